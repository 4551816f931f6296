"""Sort a data set's images into data/split/<dataset>/<part>/<class>, and audit them. The parts are
train, test and, if split.validation is not 0, validation."""

import argparse

from transfer import cli, params
from transfer.images import division


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m stages.split", description=__doc__)
    parser.add_argument("dataset", help="a key of datasets in params.yaml")
    name = parser.parse_args().dataset
    study = params.load()
    dataset = params.entry("datasets", study.datasets, name)
    print("\n".join(division.summary(division.divide(name, dataset, study.split))))


if __name__ == "__main__":
    cli.run(main)
