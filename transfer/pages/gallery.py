"""A data set's test images to look through in metrics/report.html, with what each setting says."""

import base64
import io
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, Self, get_args

import numpy as np
from PIL import Image

from transfer.evidence import calibration
from transfer.evidence.calibration import Answers
from transfer.evidence.found import Choice, Evidence
from transfer.evidence.scores import chosen_epoch
from transfer.files import Fields
from transfer.images.audit import Audit
from transfer.images.names import parted
from transfer.images.packed import Packed
from transfer.pages import examples
from transfer.params import Params
from transfer.runs import PREDICTIONS, Run
from transfer.training.predictions import Predictions, load

SIDE = 96  # pixels, of a thumbnail's longer side
SETTINGS = 16
"""Settings at most of which each image says the answer."""
RISK = 0.02
"""The share of wrong answers by which an image counts as unsure."""
Kind = Literal["suspected", "leaked", "alike", "wrong", "unsure", "disagreeing", "right"]
"""The rarest first: so they stay where not all images fit."""
Mark = tuple[Kind | None, str]
"""What is known of an image besides its answers: its kind, and a note."""


class Shown(Fields):
    """An image. name: <class>/<file>. thumbnail: a data URI. label: the place of its class.
    predicted,
    confidence: of each setting the class's place and its confidence in percent; empty for an image
    that the first seed trained on. note: what else there is to say of it."""

    name: str
    thumbnail: str
    label: int
    kinds: list[Kind]
    predicted: list[int]
    confidence: list[int]
    note: str


class Gallery(Fields):
    """Images of the first seed. settings: the recommended first. left: the number of test images
    for which there was no room. confidence_threshold: below it an answer counts as unsure, None
    if unknown."""

    dataset: str
    title: str
    classes: list[str]
    settings: list[str]
    left: int
    confidence_threshold: float | None
    images: list[Shown]


@dataclass(frozen=True)
class Opinions:
    """What the settings say of the images of a part: predicted, confidence, int [settings, n], the
    first's
    with its temperature. places: the images' indices, by name. good: which settings are not
    significantly worse than the first."""

    part: Predictions
    places: dict[str, int]
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
        least: float | None,
    ) -> Self:
        parts = [(run[part], epoch) for run, epoch in zip(runs, epochs, strict=True)]
        first, epoch = parts[0]
        given = np.nan_to_num(first.probabilities[epoch]).astype(float)
        confidence = calibration.scaled(given, temperature).max(1)
        others = [np.nan_to_num(one.confidence[e]).astype(float) for one, e in parts[1:]]
        confidences = np.stack([confidence, *others])
        return cls(
            part=first,
            places={str(name): i for i, name in enumerate(first.name)},
            predicted=np.stack([one.predicted[e] for one, e in parts]),
            confidence=(100 * confidences).round().astype(int),
            unsure=confidence < (least or 0.0),
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
    """Of a data set; `data`: with the first seed's parts. room: bytes that the
    thumbnails may take together; where they would take more, images that are right are left out
    first, and of equals the names' hashes say which stay."""
    choices = [choice for choice in evidence.choices if choice.dataset == name][:SETTINGS]
    answers, least = _answers(choices, study, evidence)
    label_errors: dict[str, Mark] = {
        one.image: ("suspected", f"all {one.runs} good runs say {one.predicted}")
        for one in evidence.label_errors
        if one.dataset == name
    }
    copies: dict[str, Mark] = {
        test: ("alike", f"looks like {duplicate}") for test, duplicate in audit.near
    }
    copies |= {test: ("leaked", f"the same as {duplicate}") for test, duplicate in audit.leaked}
    tested = answers[0].places.keys()
    found = []
    for image in sorted(tested | label_errors.keys(), key=examples.by_hash):
        copied = copies.get(image) if image in tested else (None, "not a test image")
        marks = [mark for mark in (copied, label_errors.get(image)) if mark]
        found.append(_shown(image, data.classes, answers, marks))
    found.sort(key=lambda one: min(map(get_args(Kind).index, one.kinds)))  # stable
    images = list(_within(found, data, room))
    return Gallery(
        dataset=name,
        title=study.datasets[name].title,
        classes=data.classes,
        settings=[choice.words for choice in choices],
        left=len(tested - {one.name for one in images}),
        confidence_threshold=least,
        images=images,
    )


def _shown(image: str, classes: list[str], answers: list[Opinions], marks: list[Mark]) -> Shown:
    """Without its thumbnail."""
    kinds: list[Kind] = []
    predicted, confidence = [], []
    if found := next((one for one in answers if image in one.places), None):
        i = found.places[image]
        kinds += found.kinds(i)
        predicted, confidence = found.predicted[:, i].tolist(), found.confidence[:, i].tolist()
    return Shown(
        name=image,
        thumbnail="",
        label=classes.index(parted(image)[0]),
        kinds=kinds + [kind for kind, _ in marks if kind],
        predicted=predicted,
        confidence=confidence,
        note="; ".join(note for _, note in marks),
    )


def _answers(
    choices: list[Choice], study: Params, evidence: Evidence
) -> tuple[list[Opinions], float | None]:
    """Of the test images and, if there are any, of the validation images; and the confidence below
    which the first setting counts as unsure."""
    first, seeds = choices[0], study.grid.seed
    measure = evidence.measures[first.dataset]
    temperature = evidence.calibration[first.dataset].temperature
    of_seeds = [_predicted(first.run(first.init, seed)) for seed in seeds]
    least = calibration.confidence_threshold(
        Answers.from_runs(of_seeds, "validation", measure).at(temperature), RISK
    )
    runs = [_predicted(choice.run(choice.init, seeds[0])) for choice in choices]
    epochs = [chosen_epoch(run, measure) for run in runs]
    good = np.array([choice.difference.sign >= 0 for choice in choices])
    parts = [part for part in ("test", "validation") if part in runs[0]]
    return [
        Opinions.from_runs(part, runs, epochs, good, temperature, least) for part in parts
    ], least


def _predicted(run: Run) -> dict[str, Predictions]:
    return load(run.written(PREDICTIONS))


def _within(found: list[Shown], data: Packed, room: int) -> Iterator[Shown]:
    """The first of them whose thumbnails fit."""
    where = examples.places(data)
    for one in found:
        thumbnail = _thumbnail(data.prepared_image(*where[one.name]))
        room -= len(thumbnail)
        if room < 0:
            return
        yield one.model_copy(update={"thumbnail": thumbnail})


def _thumbnail(pixels: np.ndarray) -> str:
    """Of uint8 [h, w, 3]."""
    image, file = Image.fromarray(pixels), io.BytesIO()
    image.thumbnail((SIDE, SIDE))
    image.save(file, "JPEG", quality=75, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()
