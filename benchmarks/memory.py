"""Peak memory of a run: by number of epochs, and on a data set larger than the machine's memory;
and of packing thin images.

The packed pixels are mapped, and the system takes their pages back when it needs them, so what
counts is the anonymous peak (RssAnon). The large data set is a file of zeros without blocks on
disk: reading it fills memory as any file would.
`PYTHONPATH=. python benchmarks/memory.py data/split/ants_bees`
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from itertools import product
from pathlib import Path

from PIL import Image
from ruamel.yaml import YAML

from benchmarks.common import ROOT, Study
from transfer.images import names

LONG = 40_000
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
    runpy.run_module(sys.argv[0], run_name="__main__")
finally:
    print(f"peak {peak // 1024}")
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("split", type=Path)
    parser.add_argument("--epochs", type=int, nargs="+", default=[1, 2, 4])
    help = "the large data set's size, as a multiple of the machine's memory"
    parser.add_argument("--large", type=float, default=1.5, help=help)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        study = Study(folder, args.split, None, keep_features=False)
        for freezing in ("frozen", "finetuned"):
            peaks = [peak(study, freezing, epochs) for epochs in args.epochs]
            rows = ", ".join(f"{e}: {p} MiB" for e, p in zip(args.epochs, peaks, strict=True))
            growth = peaks[-1] / peaks[0]
            print(f"peak memory by epochs, {freezing}: {rows}; {growth:.2f} × the first")
        print(f"peak memory of packing images of 1 by {LONG} pixels: {thin(study)} MiB")
        pixels = larger_than_memory(study.folder / "data/packed/ab", args.large)
        memory = peak(study, "frozen", 1)
        print(
            f"{pixels / 2**30:.0f} GiB of pixels, {total() / 2**30:.0f} GiB of memory: {memory} MiB"
        )


def larger_than_memory(
    folder: Path, times: float, side: int = 6000, size: int = 32, tested: int = 8
) -> int:
    """Make the packed data set one of square images, so many times memory in all; its bytes."""
    image, prepared = side * side * 3, size * size * 3
    n = int(times * total()) // image
    train, test = range(n), range(tested)
    index = {
        **json.loads((folder / "index.json").read_text(encoding="utf-8")),
        "classes": ["a", "b"],
        "division": None,
        "size": size,
        "sha256": "",
        "train": part([i * image for i in train], side),
        "validation": part([], size),
        "test": part([n * image + i * prepared for i in test], size),
    }
    (folder / "index.json").write_text(json.dumps(index), encoding="utf-8")
    os.truncate(folder / "pixels.bin", 0)
    os.truncate(folder / "pixels.bin", n * image + tested * prepared)
    return n * image


def part(offsets: list[int], side: int) -> dict[str, list]:
    n = len(offsets)
    labels = [i % 2 for i in range(n)]
    names = [f"{i}" for i in range(n)]
    columns = {"names": names, "offset": offsets, "label": labels, "prepared": offsets}
    return columns | {"height": [side] * n, "width": [side] * n}


def total() -> int:
    """Bytes of memory."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def peak(study: Study, freezing: str, epochs: int) -> int:
    """MiB."""
    path = study.folder / "params.yaml"
    settings = YAML().load(path)
    settings["train"]["epochs"] = epochs
    YAML().dump(settings, path)
    return measured(
        study.folder, f"stages.train ab all resnet18 0.001 {freezing} default scratch 0 --alone"
    )


def thin(study: Study) -> int:
    """MiB, of the stage that packs four of them, in a folder of its own."""
    with tempfile.TemporaryDirectory() as temporary:
        own = Path(temporary)
        shutil.copy(study.folder / "params.yaml", own)
        split = own / "data/split/ab"
        for part, label in product(("train", "test"), (0, 1)):
            image = split / part / str(label) / "0.png"
            image.parent.mkdir(parents=True)
            Image.new("RGB", (LONG, 1) if label else (1, LONG)).save(image)
        names.Classes(names=["a", "b"]).write(split / names.CLASSES)
        return measured(own, "stages.pack ab")


def measured(folder: Path, command: str) -> int:
    """MiB, of a stage by itself in that folder."""
    done = subprocess.run(
        [sys.executable, "-c", PEAK, *command.split()],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    return int(done.stdout.rsplit("peak ", 1)[1])


if __name__ == "__main__":
    main()
