"""Point params.yaml at a folder or zip of your own images; then `dvc repro` does the rest.

Every folder with images is a class. Folders train and test (or val) divide them; else a fifth of
each class is drawn to test on. The other settings stay, and so do the file's comments.
"""

import argparse
import re
import shlex
from pathlib import Path

from transfer import files, params
from transfer.images import archive, layout


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m transfer own", description=__doc__)
    parser.add_argument("source", type=Path, help="such as data/raw/flowers")
    source = parser.parse_args().source
    name = re.sub(r"[^a-z0-9]+", "_", source.stem.lower()).strip("_") or "own"
    with archive.opened(source) as opened:
        dataset = layout.entry(opened)
    params.load()
    text = layout.put(Path("params.yaml").read_text(encoding="utf-8"), name, dataset)
    with files.replacing("params.yaml") as part:
        part.write_text(text, encoding="utf-8")
        params.load(part)
    print(f"params.yaml: {name} from {source}, {layout.describe(dataset['folders'])}")
    add = f"dvc add {shlex.quote(str(source))}"
    print(f"next: dvc repro (and `{add}`, to share it or queue experiments)")
