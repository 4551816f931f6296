"""Turn evidence, similarity and audits into metrics/report.md and its pictures."""

import json
from itertools import product
from pathlib import Path
from typing import Any

from transfer import cli, figures, files, page, params, tables
from transfer.runs import runs
from transfer.similarity import MEASURES

SHOWN = ("batchnorm_frechet", "knn_accuracy", "leep")


def main() -> None:
    settings = params.load()
    grid, datasets = settings.grid, settings.datasets
    titles = {name: datasets[name].title for name in grid.dataset}
    evidence = read("metrics/evidence.json")
    audits = {name: read(f"metrics/data/{name}.json") for name in grid.dataset}
    similar = [
        read(f"metrics/similarity/{dataset}-{backbone}.json")
        for dataset, backbone in product(grid.dataset, grid.backbone)
    ]
    shown = [row | {"images": trained(audits[row["dataset"]])} for row in evidence["rows"]]
    report = tables.published()
    printed = {name: tables.settings(report.get(datasets[name].table, {})) for name in titles}
    pictures = {"gains": figures.gains(shown, titles, printed)}
    if points := [point(gain, similar) for gain in evidence["gains"]]:
        pictures["similarity"] = figures.similarity(points, {name: name for name in titles})
    with files.replacing("metrics/figures") as folder:
        for name, picture in pictures.items():
            figures.save(picture, folder / f"{name}.png")
    drawn = "Drawn images, no photographs: this shows the pipeline at work. "
    provenance = (drawn if settings.draw else "") + made(grid)
    text = page.write(titles, evidence, similar, audits, provenance, list(pictures))
    files.write_text("metrics/report.md", text)


def read(path: str | Path) -> Any:
    return json.loads(Path(path).read_text(encoding="utf-8"))


def trained(audit: dict[str, Any]) -> int:
    """Training images of a data set."""
    return sum(audit["split"]["images"]["train"].values())


def point(gain: dict[str, Any], similar: list[dict[str, Any]]) -> dict[str, Any]:
    """A data set and backbone: its similarity, and what transfer gains."""
    place = {key: gain[key] for key in ("dataset", "backbone")}
    found = next(found for found in similar if place.items() <= found.items())
    measures = {MEASURES[key][0]: found["measures"][key] for key in SHOWN}
    return place | {
        "gain": gain["value"],
        "low": gain["low"],
        "high": gain["high"],
        "measures": measures,
    }


def made(grid: params.Grid) -> str:
    """Of how many runs the page is, on what data and device, with which versions."""
    found = [read(run.written("runs")) for name in grid.dataset for run in runs(grid, name)]
    kinds = [", ".join(sorted({kind(run) for run in found})) for kind in KINDS]
    data = ", ".join(dict.fromkeys(f"{run['dataset']} {run['data'][:12]}" for run in found))
    return (
        f"{len(found)} runs of one seed ({kinds[0]}), on {kinds[1]}, with {kinds[2]}. "
        f"Pixels, by the start of their sha256: {data}. "
        "The commit that holds this page holds the code and, in dvc.lock, the hash of every file."
    )


KINDS = (
    lambda run: str(run["seed"]),
    lambda run: run["device"],
    lambda run: ", ".join(f"{name} {version}" for name, version in run["versions"].items()),
)


if __name__ == "__main__":
    cli.run(main)
