"""Which pictures a study has, and what is on them."""

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from transfer.evidence.compare import best_run
from transfer.evidence.found import Evidence, Gain
from transfer.evidence.measures import MEASURES, Similarity
from transfer.evidence.published import published
from transfer.evidence.published import settings as printed_settings
from transfer.evidence.scores import Measure, chosen_epoch
from transfer.files import replacing
from transfer.images import draw as drawings
from transfer.images import packed
from transfer.images.audit import Audit
from transfer.pages import examples, figures, recommendation
from transfer.pages.figures import Example
from transfer.params import Params
from transfer.runs import PREDICTIONS, Run
from transfer.training import predictions
from transfer.training.record import Record

CONTACTS = 8
"""Images in a row of the contact sheet."""
SHOWN = ("batchnorm_frechet", "knn_accuracy", "leep")


def draw(
    study: Params,
    evidence: Evidence,
    similar: list[Similarity],
    audits: dict[str, Audit],
    costs: dict[str, dict[str, int]],
) -> dict[str, Figure]:
    """All that there are, by name. costs: as preflight.costs has them."""
    found: dict[str, Figure | None] = {**overview(study, evidence, similar, costs)}
    found["contact_sheet"] = figures.gallery(drawn_images(study), CONTACTS)
    for name, audit in audits.items():
        found |= looked_at(name, study, evidence, audit)
    return {name: picture for name, picture in found.items() if picture}


def save(folder: Path, drawn: dict[str, Figure]) -> None:
    """As PNG, in a new folder."""
    with replacing(folder) as part:
        part.mkdir(parents=True)
        for name, picture in drawn.items():
            figures.save(picture, part / f"{name}.png")


def overview(
    study: Params,
    evidence: Evidence,
    similar: list[Similarity],
    costs: dict[str, dict[str, int]],
) -> dict[str, Figure]:
    """What the study found, at the first size, and by size if there are several."""
    grid, datasets = study.grid, study.datasets
    titles = {name: datasets[name].title for name in grid.dataset}
    size, tables = grid.images[0], published()
    printed = {name: printed_settings(tables.get(datasets[name].table, {})) for name in titles}
    rows = [row for row in evidence.rows if row.images == size]
    first = {row.dataset: row.run(grid.init[0], grid.seed[0]) for row in reversed(rows)}
    n_train = {name: Record.load(run).n["train"] for name, run in first.items()}
    first_of = {choice.dataset: choice for choice in reversed(evidence.choices)}
    pictures = {
        "gains": figures.gains(rows, n_train, titles, printed),
        "confusion": figures.confusion({title: first_of[name] for name, title in titles.items()}),
        "calibration": figures.calibration(
            {title: evidence.calibration[name] for name, title in titles.items()}
        ),
    }
    taken = {}
    for name, title in titles.items():
        own = [choice for choice in evidence.choices if choice.dataset == name]
        relative = recommendation.relative(own, grid.seed[0], costs)
        taken[title] = list(zip(own, relative, strict=True))
    pictures["cost"] = figures.cost(taken)
    points = [point(gain, similar) for gain in evidence.gains if gain.images == size]
    if len({point.dataset for point in points}) > 1:  # one alone shows no relation
        pictures["similarity"] = figures.similarity(points)
    if len(grid.images) > 1:
        pictures["learning"] = figures.learning(evidence.rows, titles)
    return pictures


def looked_at(
    name: str, study: Params, evidence: Evidence, audit: Audit
) -> dict[str, Figure | None]:
    """Images on which the best transfer run and its baseline disagree, and those with copies or
    doubtful labels."""
    grid, title, measure = study.grid, study.datasets[name].title, evidence.measures[name]
    data = packed.load(f"data/packed/{name}", grid.seed[0])
    duplicates = {}
    for what, pairs in {"also occur": audit.leaked, "look like one": audit.near}.items():
        if shown := examples.duplicates(data, pairs):
            among = (
                f"{len(shown) // 2} of {len(pairs)}, at random, each to the right of its duplicate"
            )
            duplicates[f"Test images that {what} in training, {title}: {among}"] = shown
    found = {f"duplicates-{name}": figures.gallery(duplicates, 6)}
    if doubted := [one for one in evidence.label_errors if one.dataset == name]:
        shown = examples.doubted(data, doubted)
        words = f"Labels that look wrong, {title}: the {len(shown)} most confident of "
        words += f"{len(doubted)}, by {doubted[0].runs} good runs"
        found[f"label_errors-{name}"] = figures.gallery({words: shown}, 4)
    run = best_run(grid, [row for row in evidence.rows if row.dataset == name])
    if {"pretrained", "scratch"} <= set(grid.init):
        both = {"transfer": run, "baseline": run.run("scratch", run.seed)}
        runs = {who: last(one, measure) for who, one in both.items()}
        shown, differ = examples.disagreements(data, runs)
        words = f"Where transfer and baseline disagree, {title}, {run.label}: "
        words += f"{len(shown)} of {differ} test images, at random"
        found[f"disagreements-{name}"] = figures.gallery({words: shown}, 4)
    return found


def drawn_images(study: Params) -> dict[str, list[Example]]:
    """Some images of each class that was drawn, by headings."""
    found = {}
    for name, settings in study.draw.items():
        painters = drawings.painters(name)
        part = study.datasets[name].quadrant if name in study.datasets else "none"
        heading = f"{name}: {len(painters)} classes of {settings.images} images"
        found[heading + ("" if part == "none" else f" ({part})")] = [
            Example(label, np.asarray(drawings.picture(settings, name, label, index)))
            for label in painters
            for index in range(max(1, CONTACTS // len(painters)))
        ]
    return found


def last(run: Run, measure: Measure) -> tuple[predictions.Predictions, int]:
    """What a run predicted of the test images, and the epoch to take."""
    parts = predictions.load(run.written(PREDICTIONS))
    return parts["test"], chosen_epoch(parts, measure)


def point(gain: Gain, similar: list[Similarity]) -> figures.Point:
    """A data set and backbone: its similarity, and what transfer gains."""
    place = gain.dataset, gain.backbone
    found = next(found for found in similar if (found.dataset, found.backbone) == place)
    shown = {MEASURES[key][0]: found.measures[key] for key in SHOWN if key in found.measures}
    return figures.Point(*place, gain.difference, shown)
