"""Enter a folder or zip of your own images in params.yaml; `dvc repro` then does the rest.

Each folder that contains images is a class. If there are folders train and test (or val), they
divide the images; otherwise a fifth of each class is drawn for testing. All other settings and the
file's comments are kept.
"""

import argparse
import re
import shlex
from pathlib import Path

from transfer import files, params
from transfer.images import archive, layout


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m transfer own", description=__doc__)
    parser.add_argument(
        "source", type=Path, help="the folder or zip of images, such as data/raw/flowers"
    )
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
