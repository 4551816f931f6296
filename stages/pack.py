"""Decode a data set's images once: data/split/<dataset> → data/packed/<dataset>."""

from pathlib import Path

from transfer import cli, files, params
from transfer.images import packed


def main() -> None:
    (dataset,) = cli.arguments("pack", __doc__, dataset="a key under datasets in params.yaml")
    settings = params.load().pack
    with files.replacing(f"data/packed/{dataset}") as part:
        counts = packed.write(Path("data/split", dataset), part, **settings.model_dump())
    words = ", ".join(f"{n} {name}" for name, n in counts.items() if n)
    size = Path(f"data/packed/{dataset}/pixels.bin").stat().st_size
    print(f"{dataset}: {words} images, {size / 1e6:.0f} MB")


if __name__ == "__main__":
    cli.run(main)
