"""Decode a data set's images once: data/split/<dataset> → data/packed/<dataset>."""

from pathlib import Path

from transfer import cli, files, params
from transfer.images import packed
from transfer.images.names import CLASSES, Classes


def main() -> None:
    (name,) = cli.arguments("pack", __doc__, dataset="a key under datasets in params.yaml")
    study, split = params.load(), Path("data/split", name)
    classes = params.entry("datasets", study.datasets, name).folders.classes
    if Classes.read(split / CLASSES).names != sorted(classes):
        raise cli.UserError(
            f"{split}: other classes than params.yaml has; run `dvc repro split@{name}`"
        )
    with files.replacing(f"data/packed/{name}") as fresh:
        counts = packed.write(split, fresh, **study.pack.model_dump())
    words = ", ".join(f"{count} {part}" for part, count in counts.items() if count)
    size = Path(f"data/packed/{name}/pixels.bin").stat().st_size
    print(f"{name}: {words} images, {size / 1e6:.0f} MB")


if __name__ == "__main__":
    cli.run(main)
