"""Turn evidence, similarity and audits into metrics/report.md and its pictures."""

from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from transfer import cli, files, params
from transfer.evidence.compare import best_run, trained_with
from transfer.evidence.measures import MEASURES
from transfer.evidence.published import published
from transfer.evidence.published import settings as printed_settings
from transfer.images import packed, sheet
from transfer.pages import examples, figures, report
from transfer.runs import PREDICTIONS, RECORD, Run, all_runs, label
from transfer.training import predictions

SHOWN = ("batchnorm_frechet", "knn_accuracy", "leep")


def main() -> None:
    settings = params.load()
    grid = settings.grid
    datasets = {name: settings.datasets[name] for name in grid.dataset}
    evidence = files.read_json("metrics/evidence.json")
    audits = {name: files.read_json(f"metrics/data/{name}.json") for name in datasets}
    similar = [
        files.read_json(f"metrics/similarity/{dataset}-{backbone}.json")
        for dataset, backbone in product(grid.dataset, grid.backbone)
    ]
    pictures = overview(settings, evidence, similar, audits)
    for name in datasets:
        pictures |= looked_at(name, settings, evidence, audits[name]["leaked"])
    pictures = {name: picture for name, picture in pictures.items() if picture}
    with files.replacing("metrics/figures") as folder:
        folder.mkdir(parents=True)
        for name, picture in pictures.items():
            figures.save(picture, folder / f"{name}.png")
        if settings.draw:
            sheet.contact_sheet(settings.draw).save(folder / "contact_sheet.png", optimize=True)
    drawn = "Drawn images, no photographs: this shows the pipeline at work. "
    provenance = (drawn if settings.draw else "") + made(grid)
    shown = [path.stem for path in Path("metrics/figures").glob("*.png")]
    text = report.write(datasets, evidence, similar, audits, provenance, shown)
    files.write_text("metrics/report.md", text)


def overview(settings, evidence, similar, audits) -> dict[str, Figure]:
    """Accuracies, and gains by similarity, at the first size."""
    grid, datasets = settings.grid, settings.datasets
    titles = {name: datasets[name].title for name in grid.dataset}
    first = {"images": grid.images[0]}
    rows = [
        row | {"n_train": trained(audits[row["dataset"]], grid.images[0])}
        for row in evidence["rows"]
        if first.items() <= row.items()
    ]
    tables = published()
    printed = {name: printed_settings(tables.get(datasets[name].table, {})) for name in titles}
    pictures = {"gains": figures.gains(rows, titles, printed)}
    gains = [gain for gain in evidence["gains"] if first.items() <= gain.items()]
    if len({gain["dataset"] for gain in gains}) > 1:  # one alone shows no relation
        points = [point(gain, similar) for gain in gains]
        pictures["similarity"] = figures.similarity(points, {name: name for name in titles})
    return pictures


def looked_at(name, settings, evidence, leaked) -> dict[str, Figure | None]:
    """Test images on which the best transfer run and its baseline disagree, and leaked ones."""
    data, grid = packed.load(f"data/packed/{name}"), settings.grid
    title = settings.datasets[name].title
    twins = examples.twins(data, leaked, settings.pack)
    words = f"Test images that stand in training, {title}: {len(twins)} of {len(leaked)}, at random"
    found = {f"twins-{name}": figures.duplicates(twins, words)}
    if {"pretrained", "scratch"} <= set(grid.start):
        run = best_run(grid, [row for row in evidence["rows"] if row["dataset"] == name])
        runs = {"transfer": run, "baseline": replace(run, start="scratch")}
        shown, among = examples.disagreements(data, {who: last(r) for who, r in runs.items()})
        setting = label(run.backbone, run.lr, run.freezing, run.recipe)
        words = f"Where transfer and baseline disagree, {title}, {setting}: "
        words += f"{len(shown)} of {among} test images, at random"
        found[f"disagreements-{name}"] = figures.disagreements(shown, words)
    return found


def last(run: Run) -> tuple[predictions.Predictions, int]:
    """What a run predicted of the test images, and the epoch to take."""
    parts = predictions.load(run.written(PREDICTIONS))
    return parts["test"], predictions.chosen_epoch(parts)


def trained(audit: dict[str, Any], per_class: int | str) -> int:
    """Training images of a data set."""
    counts = audit["split"]["images"]["train"].values()
    return sum(n if per_class == "all" else min(n, per_class) for n in counts)


def point(gain: dict[str, Any], similar: list[dict[str, Any]]) -> dict[str, Any]:
    """A data set and backbone: its similarity, and what transfer gains."""
    place = {key: gain[key] for key in ("dataset", "backbone")}
    found = next(found for found in similar if place.items() <= found.items())
    measures = {
        MEASURES[key][0]: found["measures"][key] for key in SHOWN if key in found["measures"]
    }
    return place | {
        "gain": gain["value"],
        "low": gain["low"],
        "high": gain["high"],
        "measures": measures,
    }


def made(grid: params.Grid) -> str:
    """Of how many runs the page is, on what data and device, with which packages."""
    found = [files.read_json(run.written(RECORD)) for run in all_runs(grid)]
    data = ", ".join(dict.fromkeys(f"{run['dataset']} {run['data'][:12]}" for run in found))
    seeds = ", ".join(map(str, grid.seed))
    trained = trained_with(found)
    return (
        f"{len(found)} runs ({'seed' if len(grid.seed) == 1 else 'seeds'} {seeds}), on "
        f"{trained['device']}, with {trained['packages']}. "
        f"Pixels, by the start of their sha256: {data}. "
        "The commit that holds this page holds the code and, in dvc.lock, the hash of every file."
    )


if __name__ == "__main__":
    cli.run(main)
