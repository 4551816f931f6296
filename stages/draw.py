"""Draw a data set of the sample study: data/raw/<data set>/<class>/<0000>.png."""

from transfer import cli, files, params
from transfer.images import draw


def main() -> None:
    (dataset,) = cli.arguments("draw", __doc__, dataset="a key under draw in params.yaml")
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
