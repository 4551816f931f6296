"""Draw a data set of the sample study: data/raw/<data set>/<class>/<0000>.png."""

import argparse

from transfer import cli, files, params
from transfer.images import draw


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m stages.draw", description=__doc__)
    parser.add_argument("dataset", help="a key under draw in params.yaml")
    dataset = parser.parse_args().dataset
    settings = params.entry("draw", params.load().draw, dataset)
    painters = draw.painters(dataset)
    with files.replacing(f"data/raw/{dataset}") as part:
        for name in painters:
            (part / name).mkdir(parents=True)
            for index in range(settings.images):
                image = draw.picture(settings, dataset, name, index)
                image.save(part / name / f"{index:04}.png")
    print(f"{dataset}: {len(painters)} classes of {settings.images} images")


if __name__ == "__main__":
    cli.run(main)
