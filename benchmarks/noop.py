"""`dvc repro` with nothing to do: the study's 64 runs against the same graph of empty files.

Both graphs are the root's dvc.yaml with commands that only make files: in ours as many as the study
has images, in the peer's one empty file per output.
`PYTHONPATH=. python benchmarks/noop.py`
"""

import argparse
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

from ruamel.yaml import YAML

from benchmarks.common import ROOT, alternate, show

SIZES = {"ants_bees": 397, "cats_dogs": 6000, "glioma": 600, "cars_bikes": 4000}
REAL = ("code", "params")  # what others depend on file by file; they take a second
FAKE = (
    f"sizes = {SIZES}"
    + """
import pathlib, sys
full, *outs = sys.argv[1:]
for out in map(pathlib.Path, outs):
    out.parent.mkdir(parents=True, exist_ok=True)
    if int(full) and str(out).startswith(("data/split/", "data/packed/")):
        out.mkdir()
        count = sizes[out.name] if out.parts[1] == "split" else 2
        for i in range(count):
            (out / f"{i}.jpg").write_text(f"{out}/{i}")
    else:
        out.write_text(str(out))
"""
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--datasets", nargs="+", default=list(SIZES), help="those of the grid")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        peer, ours = Path(folder, "peer"), Path(folder, "ours")
        make(peer, args.datasets, full=False)
        make(ours, args.datasets, full=True)
        results = alternate(
            {"same graph of empty files": lambda _: repro(peer), "study": lambda _: repro(ours)},
            args.rounds,
        )
    show("dvc repro, nothing to do", results, "s")


def make(folder: Path, datasets: list[str], full: bool) -> None:
    """A repository whose every stage has run."""
    folder.mkdir()
    (folder / "fake.py").write_text(FAKE)
    for name in (".gitignore", ".dvcignore"):
        shutil.copy(ROOT / name, folder)
    settings = YAML().load(ROOT / "params.yaml")
    settings["grid"]["dataset"] = datasets
    YAML().dump(settings, folder / "params.yaml")
    for name in ("stages", "transfer"):
        shutil.copytree(ROOT / name, folder / name)
    pipeline = YAML().load(ROOT / "dvc.yaml")
    for name, stage in pipeline["stages"].items():
        if name in REAL:
            continue
        body = stage.get("do", stage)
        outs = [*body.get("outs", []), *body.get("metrics", [])]
        paths = [out if isinstance(out, str) else next(iter(out)) for out in outs]
        body["cmd"] = f"python fake.py {full:d} {' '.join(paths)}"
    YAML().dump(pipeline, folder / "dvc.yaml")
    for command in (["git", "init", "-q"], ["dvc", "init", "-q"], ["dvc", "repro", "-q"]):
        subprocess.run(command, cwd=folder, check=True)


def repro(folder: Path) -> float:
    started = time.perf_counter()
    done = subprocess.run(["dvc", "repro"], cwd=folder, check=True, capture_output=True, text=True)
    assert "Running stage" not in done.stdout
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
