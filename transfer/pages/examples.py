"""Images to look at, as figures draws them. Which are shown, the names' hashes say."""

import hashlib
from dataclasses import dataclass

import numpy as np
from PIL import Image

from transfer.images.packed import Packed, prepare
from transfer.params import Pack
from transfer.training.predictions import Predictions


@dataclass(frozen=True)
class Disagreement:
    """A test image that two runs classify differently. image: uint8 [h, w, 3]. name: without its
    class. transfer, baseline: the class that each run says, and its confidence."""

    image: np.ndarray
    name: str
    truth: str
    transfer: tuple[str, float]
    baseline: tuple[str, float]


@dataclass(frozen=True)
class Twin:
    """A test image and the same in training, both uint8 [h, w, 3], with their paths."""

    train: np.ndarray
    test: np.ndarray
    train_name: str
    test_name: str


def disagreements(
    data: Packed, predicted: dict[str, tuple[Predictions, int]], limit: int = 8
) -> tuple[list[Disagreement], int]:
    """Test images that two runs classify differently: some, and how many there are.

    predicted: `transfer` and `baseline` → a run's predictions and the epoch to take.
    """
    classes = {who: run.predicted[epoch] for who, (run, epoch) in predicted.items()}
    differ = np.flatnonzero(classes["transfer"] != classes["baseline"])
    names = {data.test.names[i]: i for i in differ}
    found = []
    for name in sorted(names, key=_hash)[:limit]:
        i = names[name]
        said = {
            who: (data.classes[classes[who][i]], float(run.confidence[epoch][i]))
            for who, (run, epoch) in predicted.items()
        }
        truth = data.classes[data.test.label[i]]
        found.append(Disagreement(_test_image(data, int(i)), name.split("/", 1)[1], truth, **said))
    return found, len(differ)


def twins(data: Packed, leaked: list[tuple[str, str]], pack: Pack, limit: int = 6) -> list[Twin]:
    """Some test images beside their twins in training: [<class>/<name>, <part>/<class>/<name>]."""
    found = []
    for test, twin in sorted(leaked, key=lambda pair: _hash(pair[0]))[:limit]:
        part, name = twin.split("/", 1)
        image = _test_image(data, data.test.names.index(test))
        found.append(Twin(_image(data, part, name, pack), image, twin, f"test/{test}"))
    return found


def _test_image(data: Packed, i: int) -> np.ndarray:
    return data.prepared_images()[len(data.validation) + i].numpy()


def _image(data: Packed, part: str, name: str, pack: Pack) -> np.ndarray:
    """An image of training or validation, prepared as a test image is."""
    images = getattr(data, part)
    pixels = data.image(images, images.names.index(name)).numpy()
    if part == "validation":
        return pixels
    return prepare(Image.fromarray(pixels), pack.resize, pack.size)


def _hash(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()
