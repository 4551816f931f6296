"""A data set decoded once: every image's pixels in one file, mapped into memory."""

import hashlib
import json
import math
import os
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from PIL import Image

from transfer.cli import UserError
from transfer.images import reader
from transfer.images.division import DIVISION, Division
from transfer.images.names import CLASSES, Classes, named

if TYPE_CHECKING:
    import torch

T = TypeVar("T")
U = TypeVar("U")
PARTS = ("train", "validation", "test")
COLUMNS = ("offset", "height", "width", "label")
THIN = 16
"""The ratio of an image's sides above which only its middle is resized."""


@dataclass(frozen=True)
class Part:
    """Images of the train, validation or test part, by class and file.

    offset: int64 [n], where an image's height·width·3 bytes (RGB, row by row) start.
    height, width: int64 [n], pixels. label: int64 [n], index into the classes.
    """

    names: list[str]
    offset: np.ndarray
    height: np.ndarray
    width: np.ndarray
    label: np.ndarray

    def __len__(self) -> int:
        return len(self.names)

    def count(self, classes: list[str]) -> list[int]:
        """Images of each class."""
        return np.bincount(self.label, minlength=len(classes)).tolist()


@dataclass(frozen=True)
class Packed:
    """pixels: uint8, flat, mapped. how: how the images were read. resize, size: how the prepared
    images, those of validation (which may have none) and test, were made; see prepare. sha256: of
    the pixels."""

    pixels: "torch.Tensor"
    decoding: reader.Decoding
    classes: list[str]
    resize: int
    size: int
    sha256: str
    train: Part
    validation: Part
    test: Part

    def image(self, part: Part, i: int) -> "torch.Tensor":
        """Image i as uint8 [height, width, 3], not copied."""
        height, width, start = int(part.height[i]), int(part.width[i]), int(part.offset[i])
        return self.pixels[start : start + height * width * 3].reshape(height, width, 3)

    def prepared_image(self, part: Part, i: int) -> np.ndarray:
        """Image i of one of these parts as test images are prepared: uint8 [size, size, 3]."""
        pixels = self.image(part, i).numpy()
        stored = part is not self.train
        return pixels if stored else prepare(Image.fromarray(pixels), self.resize, self.size)

    def prepared_images(self, start: int = 0, stop: int | None = None) -> "torch.Tensor":
        """Of the validation images and then the test images, those from `start` up to `stop`, as
        uint8 [n, size, size, 3]; copied only where they do not lie side by side."""
        offsets = np.concatenate([self.validation.offset, self.test.offset])[start:stop]
        shape = (len(offsets), self.size, self.size, 3)
        each = self.size * self.size * 3
        if (np.diff(offsets) == each).all():
            first = offsets[0] if len(offsets) else 0
            return self.pixels[first : first + len(offsets) * each].reshape(shape)
        images = [self.pixels[at : at + each] for at in offsets]
        import torch

        return torch.stack(images).reshape(shape)


def fewer(part: Part, per_class: int) -> Part:
    """At most `per_class` images of each class; more hold fewer. Which, the names' hashes say."""
    order = sorted(
        range(len(part)), key=lambda i: hashlib.sha256(part.names[i].encode()).hexdigest()
    )
    kept = [[i for i in order if part.label[i] == c][:per_class] for c in np.unique(part.label)]
    chosen = sorted(i for indices in kept for i in indices)
    columns = {key: getattr(part, key)[chosen] for key in COLUMNS}
    return Part([part.names[i] for i in chosen], **columns)


def _resized(image: Image.Image, side: int) -> tuple[int, int]:
    """Its width and height once its short side is `side`, as torchvision's Resize has them."""
    width, height = image.size
    long = int(side * max(image.size) / min(image.size))
    return (side, long) if width <= height else (long, side)


def resize_short_side(image: Image.Image, side: int) -> Image.Image:
    """torchvision's Resize(side) on a PIL image: bilinear, antialiased."""
    if min(image.size) == side:
        return image
    return image.resize(_resized(image, side), Image.Resampling.BILINEAR)


def center_crop(image: Image.Image, size: int) -> Image.Image:
    """torchvision's CenterCrop(size) of an image at least that large."""
    left, top = round((image.width - size) / 2), round((image.height - size) / 2)
    return image.crop((left, top, left + size, top + size))


def prepare(image: Image.Image, resize: int, size: int) -> np.ndarray:
    """torchvision's Resize(resize) and CenterCrop(size): uint8 [size, size, 3]; of a THIN image, to
    one grey level."""
    if max(image.size) > THIN * min(image.size):
        resized = _middle(image, resize, size)
    else:
        resized = resize_short_side(image, resize)
    return np.asarray(center_crop(resized, size))


def _middle(image: Image.Image, resize: int, size: int) -> Image.Image:
    """The resized image, of which only the middle `size` pixels of the long side are computed: the
    whole would take 4·resize² bytes times the ratio of the sides. Pillow keeps a box in single
    precision, so it is given as little of the image as its filter sees."""
    cut, box, sides = [], [], []
    for length, resized in zip(image.size, _resized(image, resize), strict=True):
        side = size if length > min(image.size) else resized
        step = length / resized
        low, reach = round((resized - side) / 2) * step, max(step, 1.0)
        first = max(0, math.floor(low - reach))
        cut.append((first, min(length, math.ceil(low + side * step + reach))))
        box.append((low - first, low - first + side * step))
        sides.append(side)
    (left, top), (right, bottom) = zip(*cut, strict=True)
    (x0, y0), (x1, y1) = zip(*box, strict=True)
    seen = image.crop((left, top, right, bottom))
    return seen.resize(sides, Image.Resampling.BILINEAR, (x0, y0, x1, y1))


def _read(path: Path, decoding: reader.Decoding) -> Image.Image:
    try:
        return reader.read(path, decoding).rgb(decoding)
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise UserError(f"{path}: cannot be decoded ({error}); run its split again") from None


def write(split: Path, out: Path, *, resize: int, size: int, short_side: int) -> dict[str, int]:
    """Decode what `split`/{train,validation,test} has of the classes in `split`/classes.json into
    `out`/pixels.bin and `out`/index.json, as `split`/decoding.json says, if it is there.

    Training images keep their pixels, or a short side of `short_side` if that is smaller and
    not 0. Validation images, if there are any, and test images are prepared. If `split` has a
    division.json, training images are stored both ways. Images are streamed, so a data set may be
    larger than memory. Returns the images of each part. Raises UserError for a class without a
    training image, and for an image that does not decode.
    """
    classes = Classes.read(split / CLASSES).names
    beside, anew = split / reader.DECODING, split / DIVISION
    decoding = reader.Decoding.read(beside) if beside.is_file() else reader.PAPER
    division = Division.read(anew) if anew.is_file() else None

    def pixels(part: str, path: Path) -> list[np.ndarray]:
        image = _read(path, decoding)
        found = []
        if part == "train":
            small = short_side and min(image.size) > short_side
            found.append(np.asarray(resize_short_side(image, short_side) if small else image))
        if part != "train" or division:
            found.append(prepare(image, resize, size))
        return found

    out.mkdir(parents=True)
    index: dict[str, Any] = {"classes": classes, "resize": resize, "size": size}
    index |= {"decoding": decoding.model_dump(), "division": division and division.model_dump()}
    digest = hashlib.sha256()
    with open(out / "pixels.bin", "wb") as file:
        for part in PARTS:
            files = [
                (label, path)
                for label in range(len(classes))
                for path in sorted((split / part / str(label)).glob("*"))
            ]
            bare = set(range(len(classes))) - {label for label, _ in files}
            if part == "train" and bare:
                raise UserError(
                    f"{split}: no training image of class {classes[min(bare)]!r}; run its split "
                    "again"
                )
            columns: dict[str, list[Any]] = {key: [] for key in ("names", *COLUMNS, "prepared")}
            # Pillow decodes outside Python's lock.
            read = ahead(partial(pixels, part), [path for _, path in files], os.cpu_count() or 1)
            for (label, path), found in zip(files, read, strict=True):
                name, side, start = named(classes[label], path.name), found[0].shape, file.tell()
                for one in found:
                    prepared = file.tell()  # the last of them
                    file.write(one.data)
                    digest.update(one.data)
                row = name, start, *side[:2], label, prepared
                for column, value in zip(columns.values(), row, strict=True):
                    column.append(value)
            index[part] = columns
    # So that index.json alone tells whether two packed data sets are the same.
    index["sha256"] = digest.hexdigest()
    (out / "index.json").write_text(json.dumps(index) + "\n", encoding="utf-8")
    return {part: len(index[part]["names"]) for part in PARTS}


def ahead(function: Callable[[T], U], inputs: Iterable[T], threads: int) -> Iterator[U]:
    """map(function, inputs), computed by `threads` threads a few inputs ahead; by none with 0."""
    if not threads:
        yield from map(function, inputs)
        return
    with ThreadPoolExecutor(threads) as pool:
        waiting: deque[Future[U]] = deque()
        for value in inputs:
            waiting.append(pool.submit(function, value))
            if len(waiting) > 2 * threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def load(folder: str | Path, seed: int | None = None) -> Packed:
    """Map what `write` wrote; nothing is read until it is used. seed: of the run, which divides the
    training images if each seed does so anew; without it, all are training images. Raises UserError
    as Division.parts does."""
    folder = Path(folder)
    index = json.loads((folder / "index.json").read_text(encoding="utf-8"))
    division = index["division"] and Division(**index["division"])
    parts = {part: _part(index[part]) for part in PARTS}
    if division and seed is not None:
        names, label = index["train"]["names"], parts["train"].label
        for part, places in division.parts(names, label, seed).items():
            if len(places):
                parts[part] = _taken(index["train"], places, part, index["size"])
    pixels = np.memmap(folder / "pixels.bin", dtype=np.uint8, mode="r")
    decoding, classes, sha256 = (
        reader.Decoding(**index["decoding"]),
        index["classes"],
        index["sha256"],
    )
    resize, size = index["resize"], index["size"]
    return Packed(_tensor(pixels), decoding, classes, resize, size, sha256, **parts)


def _part(columns: dict[str, list[Any]]) -> Part:
    numbers = {key: np.asarray(columns[key], dtype=np.int64) for key in COLUMNS}
    return Part(names=columns["names"], **numbers)


def _taken(columns: dict[str, list[Any]], places: np.ndarray, part: str, size: int) -> Part:
    """Those training images as that part."""
    taken = {key: [values[i] for i in places] for key, values in columns.items()}
    if part != "train":
        sides = [size] * len(places)
        taken |= {"offset": taken["prepared"], "height": sides, "width": sides}
    return _part(taken)


def _tensor(pixels: np.ndarray) -> "torch.Tensor":
    """Of the same memory. A mapping that is only read may be larger than the machine's memory."""
    import torch  # a second to import, and packing does without

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The given NumPy array is not writable")
        return torch.from_numpy(pixels)
