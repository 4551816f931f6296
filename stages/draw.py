"""Draw the images of the sample study, and a contact sheet of them."""

from transfer import cli, draw, files, params, sheet


def main() -> None:
    settings = params.load().draw
    if settings is None:
        raise cli.UserError("params.yaml: draw: missing key; run in sample/, or add it")
    for dataset in settings.images:
        draw.painters(dataset)
    for dataset in settings.images:
        write_dataset(settings, dataset)
    with files.replacing("metrics/contact_sheet.png") as part:
        sheet.contact_sheet(settings).save(part, format="PNG", optimize=True)
    for dataset in settings.images:
        print(f"draw {dataset}: {sheet.amount(settings, dataset)}")


def write_dataset(settings: params.Draw, dataset: str) -> None:
    """Write data/raw/<data set>/<class>/<0000>.png, every image or none."""
    with files.replacing(f"data/raw/{dataset}") as part:
        for name in draw.painters(dataset):
            (part / name).mkdir(parents=True)
            for index in range(settings.images[dataset]):
                image = sheet.picture(settings, dataset, name, index)
                image.save(part / name / f"{index:04}.png")


if __name__ == "__main__":
    cli.run(main)
