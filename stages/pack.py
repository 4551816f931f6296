"""Decode a data set's images once: data/split/<dataset> → data/packed/<dataset>."""

import argparse
from pathlib import Path

from transfer import cli, files, packed, params


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("dataset")
    dataset = parser.parse_args().dataset
    settings = params.load().pack
    with files.replacing(f"data/packed/{dataset}") as part:
        packed.write(Path("data/split", dataset), part, **settings.model_dump())
    data = packed.load(f"data/packed/{dataset}")
    print(
        f"{dataset}: {len(data.train)} + {len(data.test)} images, {data.pixels.nbytes / 1e6:.0f} MB"
    )


if __name__ == "__main__":
    cli.run(main)
