"""Peak resident memory of a run: over the epochs, and beside the tutorial's.

The packed pixels are mapped, not read, and the system takes their pages back when it needs them, so
what counts is the anonymous peak (VmHWM less mapped files).
`PYTHONPATH=. python benchmarks/memory.py data/split/ants_bees`
"""

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from ruamel.yaml import YAML

from benchmarks.common import ROOT, Study

PEAK = """
import runpy, sys, threading, time
peak = 0
def watch():
    global peak
    while True:
        fields = dict(line.split(":") for line in open("/proc/self/status"))
        peak = max(peak, int(fields["RssAnon"].split()[0]))
        time.sleep(0.02)
threading.Thread(target=watch, daemon=True).start()
sys.argv = sys.argv[1:]
try:
    runpy.run_module("stages.train", run_name="__main__")
finally:
    print(f"peak {peak // 1024}")
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("split", type=Path)
    parser.add_argument("--epochs", type=int, nargs="+", default=[1, 2, 4])
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        study = Study(folder, args.split, None, keep_features=False)
        for freezing in ("frozen", "finetuned"):
            peaks = [peak(study, freezing, epochs) for epochs in args.epochs]
            rows = ", ".join(f"{e}: {p} MiB" for e, p in zip(args.epochs, peaks, strict=True))
            growth = peaks[-1] / peaks[0]
            print(f"peak memory by epochs, {freezing}: {rows}; {growth:.2f} × the first")


def peak(study: Study, freezing: str, epochs: int) -> int:
    """MiB."""
    path = study.folder / "params.yaml"
    settings = YAML().load(path)
    settings["train"]["epochs"] = epochs
    YAML().dump(settings, path)
    done = subprocess.run(
        [sys.executable, "-c", PEAK, "train", "ab", "resnet18", "0.001", freezing, "scratch"],
        cwd=study.folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=True,
        capture_output=True,
        text=True,
    )
    return int(done.stdout.rsplit("peak ", 1)[1])


if __name__ == "__main__":
    main()
