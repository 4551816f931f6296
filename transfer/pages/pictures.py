"""Which pictures a study has, and what is on them."""

import hashlib
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from transfer.evidence.compare import best_run
from transfer.evidence.measures import MEASURES, Similarity
from transfer.evidence.published import published
from transfer.evidence.records import Evidence, Gain, LabelError
from transfer.evidence.scores import Measure, chosen_epoch
from transfer.files import replacing
from transfer.images import draw as drawings
from transfer.images import packed
from transfer.images.audit import Audit
from transfer.images.names import parted
from transfer.images.packed import PARTS, Packed, Part
from transfer.pages import figures, recommendation
from transfer.pages.figures import INK, VERMILION, Example
from transfer.params import Params
from transfer.runs import PREDICTIONS, Run
from transfer.training.predictions import Predictions
from transfer.training.predictions import load as load_predictions
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
    """All pictures of the study by name. costs: see transfer.training.preflight."""
    pictures: dict[str, Figure | None] = {**charts(study, evidence, similar, costs)}
    pictures["contact_sheet"] = figures.image_sheet(drawn_images(study), CONTACTS)
    for name, audit in audits.items():
        pictures |= photographs(name, study, evidence, audit)
    return {name: picture for name, picture in pictures.items() if picture}


def save(folder: Path, pictures: dict[str, Figure]) -> None:
    """As PNG, in a new folder."""
    with replacing(folder) as part:
        part.mkdir(parents=True)
        for name, picture in pictures.items():
            figures.save(picture, part / f"{name}.png")


def charts(
    study: Params,
    evidence: Evidence,
    similar: list[Similarity],
    costs: dict[str, dict[str, int]],
) -> dict[str, Figure]:
    """Those of the first size, and the learning curves by size if there are several."""
    grid, datasets = study.grid, study.datasets
    titles = {name: datasets[name].title for name in grid.dataset}
    size, tables = grid.images[0], published()
    printed = {name: tables.get(datasets[name].table, {}) for name in titles}
    rows = [row for row in evidence.rows if row.images == size]
    first = {row.dataset: row.run(grid.init[0], grid.seed[0]) for row in reversed(rows)}
    n_train = {name: Record.load(run).n["train"] for name, run in first.items()}
    choices = {name: evidence.ranking(name) for name in titles}
    costed = {}
    for name, title in titles.items():
        relative = recommendation.relative_costs(choices[name], grid.seed[0], costs)
        costed[title] = list(zip(choices[name], relative, strict=True))
    pictures = {
        "gains": figures.gains(rows, n_train, titles, printed),
        "confusion": figures.confusion({title: choices[name][0] for name, title in titles.items()}),
        "calibration": figures.calibration(
            {title: evidence.calibration[name] for name, title in titles.items()}
        ),
        "cost": figures.cost(costed),
    }
    points = [point(gain, similar) for gain in evidence.gains if gain.images == size]
    if len({point.dataset for point in points}) > 1:  # one alone shows no relation
        pictures["similarity"] = figures.similarity(points)
    if len(grid.images) > 1:
        pictures["learning"] = figures.learning(evidence.rows, titles)
    return pictures


def photographs(
    name: str, study: Params, evidence: Evidence, audit: Audit
) -> dict[str, Figure | None]:
    """A data set's duplicates and label errors, and test images on which the best transfer run and
    its baseline disagree."""
    grid, title = study.grid, study.datasets[name].title
    data = packed.load(f"data/packed/{name}", grid.seed[0])
    sheets = {}
    for what, copies in {"also occur": audit.leaked, "look like one": audit.near}.items():
        if shown := duplicates(data, copies):
            among = f"{len(shown) // 2} of {len(copies)} at random, each after its duplicate"
            sheets[f"Test images that {what} in training, {title}: {among}"] = shown
    pictures = {f"duplicates-{name}": figures.image_sheet(sheets, 6)}
    if errors := [error for error in evidence.label_errors if error.dataset == name]:
        shown = label_errors(data, errors)
        heading = f"Labels that look wrong, {title}: {len(shown)} of {len(errors)}, by confidence"
        pictures[f"label_errors-{name}"] = figures.image_sheet({heading: shown}, 4)
    if {"pretrained", "scratch"} <= set(grid.init):
        transfer = best_run(grid, [row for row in evidence.rows if row.dataset == name])
        runs = {"transfer": transfer, "baseline": transfer.run("scratch", transfer.seed)}
        measure = evidence.measures[name]
        predicted = {role: predictions_on_test(run, measure) for role, run in runs.items()}
        shown, differ = disagreements(data, predicted)
        heading = f"Where transfer and baseline disagree, {title}, {transfer.label}: "
        heading += f"{len(shown)} of {differ} test images, at random"
        pictures[f"disagreements-{name}"] = figures.image_sheet({heading: shown}, 4)
    return pictures


def disagreements(
    data: Packed, predicted: dict[str, tuple[Predictions, int]], limit: int = 8
) -> tuple[list[Example], int]:
    """At most `limit` test images that two runs classify differently, with both answers, and the
    number of all such images. predicted: `transfer` and `baseline` → a run's predictions and
    epoch."""
    first, second = (run.predicted[epoch] for run, epoch in predicted.values())
    indices = {data.test.names[i]: int(i) for i in np.flatnonzero(first != second)}
    examples = []
    for name in sorted(indices, key=by_hash)[:limit]:
        i = indices[name]
        label = data.test.label[i]
        lines = [(f"truth: {data.classes[label]}", INK)]
        for role, (run, epoch) in predicted.items():
            answer, confidence = run.predicted[epoch][i], float(run.confidence[epoch][i])
            sign, colour = ("✓", INK) if answer == label else ("✗", VERMILION)
            text = f"{sign} {role}: {data.classes[answer]} {100 * confidence:.0f} %"
            lines.append((text, colour))
        image = data.image(data.test, i).numpy()
        examples.append(Example(parted(name)[1], image, lines))
    return examples, len(indices)


def duplicates(data: Packed, leaked: list[tuple[str, str]], limit: int = 6) -> list[Example]:
    """At most `limit` test images, each after its duplicate in training: <class>/<name>,
    <part>/<class>/<name>."""
    examples = []
    for test, duplicate in sorted(leaked, key=lambda pair: by_hash(pair[0]))[:limit]:
        part_name, name = duplicate.split("/", 1)
        image = data.image(data.test, data.test.names.index(test)).numpy()
        part = getattr(data, part_name)
        copy = data.prepared_image(part, part.names.index(name))
        examples += [Example(duplicate, copy), Example(f"test/{test}", image)]
    return examples


def label_errors(data: Packed, errors: list[LabelError], limit: int = 8) -> list[Example]:
    """The first of them, with their label and the runs' answer."""
    examples, index = [], index_by_name(data)
    for error in errors[:limit]:
        label, file = parted(error.image)
        answer = f"✗ all: {error.predicted} {100 * error.confidence:.0f} %"
        image = data.prepared_image(*index[error.image])
        examples.append(Example(file, image, [(f"label: {label}", INK), (answer, VERMILION)]))
    return examples


def index_by_name(data: Packed) -> dict[str, tuple[Part, int]]:
    """<class>/<name> → the image's part and its index there; of parts that share a name, test comes
    before validation and that before train."""
    parts = (getattr(data, part) for part in PARTS)
    return {name: (part, i) for part in parts for i, name in enumerate(part.names)}


def by_hash(name: str) -> str:
    """Sorts names in an order that is arbitrary and always the same."""
    return hashlib.sha256(name.encode()).hexdigest()


def drawn_images(study: Params) -> dict[str, list[Example]]:
    """Images of each class that was drawn, by headings."""
    sheets = {}
    for name, settings in study.draw.items():
        painters = drawings.painters(name)
        quadrant = study.datasets[name].quadrant if name in study.datasets else "none"
        heading = f"{name}: {len(painters)} classes of {settings.images} images"
        sheets[heading + ("" if quadrant == "none" else f" ({quadrant})")] = [
            Example(label, np.asarray(drawings.picture(settings, name, label, index)))
            for label in painters
            for index in range(max(1, CONTACTS // len(painters)))
        ]
    return sheets


def predictions_on_test(run: Run, measure: Measure) -> tuple[Predictions, int]:
    """A run's predictions of the test images, and its chosen epoch."""
    parts = load_predictions(run.written(PREDICTIONS))
    return parts["test"], chosen_epoch(parts, measure)


def point(gain: Gain, similar: list[Similarity]) -> figures.Point:
    """A data set and backbone: its similarity, and what transfer gains."""
    pair = gain.dataset, gain.backbone
    measures = next(s.measures for s in similar if (s.dataset, s.backbone) == pair)
    shown = {MEASURES[key][0]: measures[key] for key in SHOWN if key in measures}
    return figures.Point(*pair, gain.difference, shown)
