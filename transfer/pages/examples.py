"""Images to look at, as figures draws them. Which are shown, the names' hashes say."""

import hashlib

import numpy as np

from transfer.evidence.found import LabelError
from transfer.images.names import parted
from transfer.images.packed import PARTS, Packed, Part
from transfer.pages.figures import INK, VERMILION, Example
from transfer.training.predictions import Predictions


def disagreements(
    data: Packed, predicted: dict[str, tuple[Predictions, int]], limit: int = 8
) -> tuple[list[Example], int]:
    """Test images that two runs classify differently, with what each run says: some, and how many
    there are. predicted: `transfer` and `baseline` → a run's predictions and the epoch to take."""
    first, second = (run.predicted[epoch] for run, epoch in predicted.values())
    names = {data.test.names[i]: int(i) for i in np.flatnonzero(first != second)}
    found = []
    for name in sorted(names, key=by_hash)[:limit]:
        i = names[name]
        label = data.test.label[i]
        lines = [(f"truth: {data.classes[label]}", INK)]
        for who, (run, epoch) in predicted.items():
            answer, confidence = run.predicted[epoch][i], float(run.confidence[epoch][i])
            sign, colour = ("✓", INK) if answer == label else ("✗", VERMILION)
            words = f"{sign} {who}: {data.classes[answer]} {100 * confidence:.0f} %"
            lines.append((words, colour))
        image = data.image(data.test, i).numpy()
        found.append(Example(parted(name)[1], image, lines))
    return found, len(names)


def duplicates(data: Packed, leaked: list[tuple[str, str]], limit: int = 6) -> list[Example]:
    """Some test images, each after its copy in training: <class>/<name>, <part>/<class>/<name>."""
    found = []
    for test, duplicate in sorted(leaked, key=lambda pair: by_hash(pair[0]))[:limit]:
        part, name = duplicate.split("/", 1)
        image = data.image(data.test, data.test.names.index(test)).numpy()
        held = getattr(data, part)
        own = data.prepared_image(held, held.names.index(name))
        found += [Example(duplicate, own), Example(f"test/{test}", image)]
    return found


def doubted(data: Packed, label_errors: list[LabelError], limit: int = 8) -> list[Example]:
    """The first of them, with their label and what the runs say."""
    found, where = [], places(data)
    for label_error in label_errors[:limit]:
        label, file = parted(label_error.image)
        predicted = (
            f"✗ all: {label_error.predicted} {100 * label_error.confidence:.0f} %",
            VERMILION,
        )
        image = data.prepared_image(*where[label_error.image])
        found.append(Example(file, image, [(f"label: {label}", INK), predicted]))
    return found


def places(data: Packed) -> dict[str, tuple[Part, int]]:
    """The part and the place in it of each image, by <class>/<name>; where parts share a name, of
    the one in test, or else in validation."""
    parts = (getattr(data, part) for part in PARTS)
    return {name: (part, i) for part in parts for i, name in enumerate(part.names)}


def by_hash(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()
