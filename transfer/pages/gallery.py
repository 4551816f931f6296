"""A data set's test images in metrics/report.html, with each setting's answers."""

import base64
import io
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, Self, get_args

import numpy as np
from PIL import Image

from transfer.evidence import calibration
from transfer.evidence.calibration import Answers
from transfer.evidence.records import Choice, Evidence
from transfer.evidence.scores import chosen_epoch
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


@dataclass(frozen=True)
class Opinions:
    """The settings' answers for a part's images. predicted, confidence: int [settings, n], the
    first setting's confidence with its temperature. index: by the images' names. unsure: bool [n].
    good: bool [settings], which are not significantly worse than the first."""

    part: Predictions
    index: dict[str, int]
    predicted: np.ndarray
    confidence: np.ndarray
    unsure: np.ndarray
    good: np.ndarray

    @classmethod
    def from_runs(
        cls,
        part: str,
        runs: list[dict[str, Predictions]],
        epochs: list[int],
        good: np.ndarray,
        temperature: float,
        threshold: float | None,
    ) -> Self:
        parts = [(run[part], epoch) for run, epoch in zip(runs, epochs, strict=True)]
        first, epoch = parts[0]
        probabilities = np.nan_to_num(first.probabilities[epoch]).astype(float)
        confidence = calibration.scaled(probabilities, temperature).max(1)
        others = [np.nan_to_num(run.confidence[e]).astype(float) for run, e in parts[1:]]
        confidences = np.stack([confidence, *others])
        return cls(
            part=first,
            index={str(name): i for i, name in enumerate(first.name)},
            predicted=np.stack([run.predicted[e] for run, e in parts]),
            confidence=(100 * confidences).round().astype(int),
            unsure=confidence < (threshold or 0.0),
            good=good,
        )

    def kinds(self, i: int) -> Iterator[Kind]:
        yield "right" if self.predicted[0, i] == self.part.label[i] else "wrong"
        if self.unsure[i]:
            yield "unsure"
        if len(np.unique(self.predicted[self.good, i])) > 1:
            yield "disagreeing"


def collect(
    name: str, study: Params, evidence: Evidence, audit: Audit, data: Packed, room: int
) -> Gallery:
    """A data set's gallery. data: with the first seed's parts. room: the bytes of all thumbnails
    together; if not all fit, images are kept in the order of Kind, and in a kind by name hash."""
    choices = [choice for choice in evidence.choices if choice.dataset == name][:SETTINGS]
    opinions, threshold = _opinions(choices, study, evidence)
    label_errors: dict[str, Mark] = {
        error.image: ("suspected", f"{error.runs} runs say {error.predicted}")
        for error in evidence.label_errors
        if error.dataset == name
    }
    copies: dict[str, Mark] = {
        test: ("alike", f"looks like {duplicate}") for test, duplicate in audit.near
    }
    copies |= {test: ("leaked", f"the same as {duplicate}") for test, duplicate in audit.leaked}
    tested = opinions[0].index.keys()
    images = []
    for image in sorted(tested | label_errors.keys(), key=by_hash):
        copied = copies.get(image) if image in tested else (None, "not a test image")
        marks = [mark for mark in (copied, label_errors.get(image)) if mark]
        images.append(_shown(image, data.classes, opinions, marks))
    images.sort(key=lambda shown: min(map(get_args(Kind).index, shown.kinds)))  # stable
    images = list(_within(images, data, room))
    return Gallery(
        dataset=name,
        title=study.datasets[name].title,
        classes=data.classes,
        settings=[choice.words for choice in choices],
        left=len(tested - {shown.name for shown in images}),
        confidence_threshold=threshold,
        images=images,
    )


def _shown(image: str, classes: list[str], opinions: list[Opinions], marks: list[Mark]) -> Shown:
    """Without its thumbnail."""
    kinds: list[Kind] = []
    predicted, confidence = [], []
    for part in opinions:
        if image in part.index:
            i = part.index[image]
            kinds += part.kinds(i)
            predicted, confidence = part.predicted[:, i].tolist(), part.confidence[:, i].tolist()
            break
    return Shown(
        name=image,
        thumbnail="",
        label=classes.index(parted(image)[0]),
        kinds=kinds + [kind for kind, _ in marks if kind],
        predicted=predicted,
        confidence=confidence,
        note="; ".join(note for _, note in marks),
    )


def _opinions(
    choices: list[Choice], study: Params, evidence: Evidence
) -> tuple[list[Opinions], float | None]:
    """Those on the test images and, if there are any, on the validation images; and the confidence
    below which the first setting's answers are unsure."""
    first, seeds = choices[0], study.grid.seed
    measure = evidence.measures[first.dataset]
    temperature = evidence.calibration[first.dataset].temperature
    by_seed = [_predicted(first.run(first.init, seed)) for seed in seeds]
    threshold = calibration.confidence_threshold(
        Answers.from_runs(by_seed, "validation", measure).at(temperature), RISK
    )
    runs = [_predicted(choice.run(choice.init, seeds[0])) for choice in choices]
    epochs = [chosen_epoch(run, measure) for run in runs]
    good = np.array([choice.difference.sign >= 0 for choice in choices])
    parts = [part for part in ("test", "validation") if part in runs[0]]
    return [
        Opinions.from_runs(part, runs, epochs, good, temperature, threshold) for part in parts
    ], threshold


def _predicted(run: Run) -> dict[str, Predictions]:
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
