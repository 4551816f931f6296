"""A data set's test images in metrics/report.html, with each setting's answers."""

import base64
import io
from collections.abc import Iterator
from typing import Literal, get_args

import numpy as np
from PIL import Image

from transfer.evidence import calibration
from transfer.evidence.calibration import Answers
from transfer.evidence.records import Choice, Evidence
from transfer.evidence.scores import Measure, chosen_epoch
from transfer.files import Fields
from transfer.images.audit import Audit
from transfer.images.names import parted
from transfer.images.packed import Packed
from transfer.pages.pictures import by_hash, index_by_name
from transfer.params import Params
from transfer.runs import PREDICTIONS, Run
from transfer.training.predictions import Predictions, load

SIDE = 96  # pixels, of a thumbnail's longer side
SETTINGS = 16
"""The most settings whose answers are shown."""
RISK = 0.02
"""An answer is unsure below the confidence that keeps this share of wrong answers."""
Kind = Literal["suspected", "leaked", "alike", "wrong", "unsure", "disagreeing", "right"]
"""In the order in which images are kept where not all fit."""
Mark = tuple[Kind | None, str]
"""A kind that does not depend on the answers, and a note."""
Answer = tuple[list[Kind], list[int], list[int]]
"""The kinds that depend on the answers, and Shown's predicted and confidence."""


class Shown(Fields):
    """An image. name: <class>/<file>. thumbnail: a data URI. label: the index of its class.
    predicted, confidence: each setting's class index and its confidence in percent; empty for an
    image that the first seed trained on. note: such as its duplicate's name."""

    name: str
    thumbnail: str
    label: int
    kinds: list[Kind]
    predicted: list[int]
    confidence: list[int]
    note: str


class Gallery(Fields):
    """Images of the first seed. settings: the recommended first. left: the number of test images
    left out for lack of room. confidence_threshold: an answer below it is unsure; None if
    unknown."""

    dataset: str
    title: str
    classes: list[str]
    settings: list[str]
    left: int
    confidence_threshold: float | None
    images: list[Shown]


def collect(
    name: str, study: Params, evidence: Evidence, audit: Audit, data: Packed, room: int
) -> Gallery:
    """A data set's gallery. data: with the first seed's parts. room: the bytes of all thumbnails
    together; if not all fit, images are kept in the order of Kind, and in a kind by name hash."""
    choices = evidence.ranking(name)[:SETTINGS]
    measure, temperature = evidence.measures[name], evidence.calibration[name].temperature
    threshold = _threshold(choices[0], study.grid.seed, measure, temperature)
    runs = [_predictions(choice.run(choice.init, study.grid.seed[0])) for choice in choices]
    good = np.array([choice.difference.sign >= 0 for choice in choices])
    answers: dict[str, Answer] = {}
    for part in sorted(runs[0], reverse=True):  # test last: its answers count for a name in both
        chosen = [(run[part], chosen_epoch(run, measure)) for run in runs]
        answers |= _answers(chosen, good, temperature, threshold)
    tested = {str(image) for image in runs[0]["test"].name}
    marks = _marks(name, evidence, audit, tested)
    images = [
        _shown(image, data.classes, answers.get(image, ([], [], [])), marks.get(image, []))
        for image in sorted(tested | marks.keys(), key=by_hash)
    ]
    images.sort(key=lambda image: min(map(get_args(Kind).index, image.kinds)))  # stable
    images = list(_within(images, data, room))
    return Gallery(
        dataset=name,
        title=study.datasets[name].title,
        classes=data.classes,
        settings=[choice.words for choice in choices],
        left=len(tested - {image.name for image in images}),
        confidence_threshold=threshold,
        images=images,
    )


def _threshold(
    choice: Choice, seeds: list[int], measure: Measure, temperature: float
) -> float | None:
    """The confidence below which the setting's answers are unsure."""
    runs = [_predictions(run) for run in choice.runs(seeds)]
    answers = Answers.from_runs(runs, "validation", measure).at(temperature)
    return calibration.confidence_threshold(answers, RISK)


def _answers(
    chosen: list[tuple[Predictions, int]],
    good: np.ndarray,
    temperature: float,
    threshold: float | None,
) -> dict[str, Answer]:
    """By image. chosen: each setting's predictions and epoch, the recommended first, whose
    confidence gets the temperature. good: which settings are not significantly worse than it."""
    first, epoch = chosen[0]
    probabilities = np.nan_to_num(first.probabilities[epoch]).astype(float)
    sure = calibration.scaled(probabilities, temperature).max(1)
    others = [np.nan_to_num(run.confidence[epoch]).astype(float) for run, epoch in chosen[1:]]
    confidence = (100 * np.stack([sure, *others])).round().astype(int)
    predicted = np.stack([run.predicted[epoch] for run, epoch in chosen])
    answers: dict[str, Answer] = {}
    for i, name in enumerate(first.name):
        kinds: list[Kind] = ["right" if predicted[0, i] == first.label[i] else "wrong"]
        if sure[i] < (threshold or 0.0):
            kinds.append("unsure")
        if len(np.unique(predicted[good, i])) > 1:
            kinds.append("disagreeing")
        answers[str(name)] = kinds, predicted[:, i].tolist(), confidence[:, i].tolist()
    return answers


def _marks(name: str, evidence: Evidence, audit: Audit, tested: set[str]) -> dict[str, list[Mark]]:
    """By image, of test images and of those whose labels look wrong."""
    copies: dict[str, Mark] = {
        test: ("alike", f"looks like {duplicate}") for test, duplicate in audit.near
    }
    copies |= {test: ("leaked", f"the same as {duplicate}") for test, duplicate in audit.leaked}
    marks = {test: [mark] for test, mark in copies.items() if test in tested}
    for error in evidence.label_errors:
        if error.dataset == name:
            if error.image not in tested:
                marks[error.image] = [(None, "not a test image")]
            mark: Mark = "suspected", f"{error.runs} runs say {error.predicted}"
            marks.setdefault(error.image, []).append(mark)
    return marks


def _shown(image: str, classes: list[str], answer: Answer, marks: list[Mark]) -> Shown:
    """Without its thumbnail."""
    kinds, predicted, confidence = answer
    return Shown(
        name=image,
        thumbnail="",
        label=classes.index(parted(image)[0]),
        kinds=kinds + [kind for kind, _ in marks if kind],
        predicted=predicted,
        confidence=confidence,
        note="; ".join(note for _, note in marks),
    )


def _predictions(run: Run) -> dict[str, Predictions]:
    return load(run.written(PREDICTIONS))


def _within(images: list[Shown], data: Packed, room: int) -> Iterator[Shown]:
    """The first of them whose thumbnails fit."""
    index = index_by_name(data)
    for shown in images:
        thumbnail = _thumbnail(data.prepared_image(*index[shown.name]))
        room -= len(thumbnail)
        if room < 0:
            return
        yield shown.model_copy(update={"thumbnail": thumbnail})


def _thumbnail(pixels: np.ndarray) -> str:
    """A data URI. pixels: uint8 [h, w, 3]."""
    image, file = Image.fromarray(pixels), io.BytesIO()
    image.thumbnail((SIDE, SIDE))
    image.save(file, "JPEG", quality=75, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()
