"""Fetch the Kaggle archive that params.yaml names under download.KEY to data/raw/KEY.zip."""

from pathlib import Path

from transfer import cli, params
from transfer.images import kaggle


def main() -> None:
    (key,) = cli.arguments("download", __doc__, key="a key under download in params.yaml")
    source = params.entry("download", params.load().download, key)
    target = Path(f"data/raw/{key}.zip")
    if kaggle.fetched(source, target):
        print(f"{target}: is {source.kaggle} version {source.version} already")
    else:
        kaggle.fetch(source, target)


if __name__ == "__main__":
    cli.run(main)
