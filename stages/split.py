"""Sort a data set's images into data/split/<dataset>/<part>/<number of the class>, and audit them.
The parts are train, test and, if split.validation is not 0, validation."""

from transfer import cli, params
from transfer.images import audit, split


def main() -> None:
    (name,) = cli.arguments("split", __doc__, dataset="a key under datasets in params.yaml")
    study = params.load()
    dataset = params.entry("datasets", study.datasets, name)
    cli.say(*audit.summary(split.divide(name, dataset, study.split)))


if __name__ == "__main__":
    cli.run(main)
