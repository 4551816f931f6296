"""Fetch the Kaggle archive that params.yaml names under download.KEY to data/raw/KEY.zip."""

import argparse

from transfer import cli, kaggle, params


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m stages.download", description=__doc__)
    parser.add_argument("key", help="a key under download in params.yaml")
    key = parser.parse_args().key
    sources = params.load().download or {}
    if key not in sources:
        known = ", ".join(sources) or "nothing"
        raise cli.UserError(f"params.yaml: download has no {key!r}; it has {known}")
    kaggle.fetch(sources[key], f"data/raw/{key}.zip")


if __name__ == "__main__":
    cli.run(main)
