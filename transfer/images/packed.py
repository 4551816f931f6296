"""A data set decoded once: every image's pixels in one file, mapped into memory."""

import hashlib
import json
import os
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, TypeVar

import numpy as np
from PIL import Image
from pydantic import Field

from transfer.cli import UserError
from transfer.files import Fields, Stored
from transfer.images import reader
from transfer.images.division import DIVISION, Division
from transfer.images.fit import prepare, stored
from transfer.images.names import CLASSES, Classes, named

if TYPE_CHECKING:
    import torch

T = TypeVar("T")
U = TypeVar("U")
PARTS = ("train", "validation", "test")
INDEX, PIXELS = "index.json", "pixels.bin"


class Columns(Fields):
    """The images of a part, by class and file: <class>/<file>, where their pixels start, height and
    width in pixels, index into the classes, and where their prepared pixels start, which for
    validation and test images are the only ones."""

    names: list[str]
    offset: list[int]
    height: list[int]
    width: list[int]
    label: list[int]
    prepared: list[int]


class Index(Stored):
    """index.json: what pixels.bin holds. division: how each seed divides the training images anew,
    if it does. sha256: of pixels.bin, so that this file alone tells whether two packed data sets
    are the same. The fit is left out where it is crop, as in files from before it was a setting."""

    classes: list[str]
    resize: int
    size: int
    fit: str = Field("crop", exclude_if=lambda fit: fit == "crop")
    decoding: reader.Decoding
    division: Division | None
    train: Columns
    validation: Columns
    test: Columns
    sha256: str

    def write(self, path: str | Path) -> None:
        text = json.dumps(self.model_dump(mode="json")) + "\n"
        Path(path).write_text(text, encoding="utf-8")


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

    @classmethod
    def from_columns(cls, columns: Columns) -> "Part":
        numbers = columns.offset, columns.height, columns.width, columns.label
        return cls(columns.names, *(np.asarray(column, dtype=np.int64) for column in numbers))

    def __len__(self) -> int:
        return len(self.names)

    def count(self, classes: list[str]) -> list[int]:
        """Images of each class."""
        return np.bincount(self.label, minlength=len(classes)).tolist()

    def taken(self, places: np.ndarray) -> "Part":
        """The images at those places, int64."""
        numbers = self.offset, self.height, self.width, self.label
        return Part([self.names[i] for i in places], *(column[places] for column in numbers))


@dataclass(frozen=True)
class Packed:
    """pixels: uint8, flat, mapped. resize, size, fit: how validation images (of which there may be
    none) and test images were prepared; see transfer.images.fit. sha256: of the pixels."""

    pixels: "torch.Tensor"
    decoding: reader.Decoding
    classes: list[str]
    resize: int
    size: int
    sha256: str
    train: Part
    validation: Part
    test: Part
    fit: str = "crop"

    @property
    def share(self) -> float:
        """The share of the short side of a training image that it would keep as a test image."""
        return self.size / self.resize if self.fit == "crop" else 1.0

    def image(self, part: Part, i: int) -> "torch.Tensor":
        """Image i as uint8 [height, width, 3], not copied."""
        height, width, start = int(part.height[i]), int(part.width[i]), int(part.offset[i])
        return self.pixels[start : start + height * width * 3].reshape(height, width, 3)

    def prepared_image(self, part: Part, i: int) -> np.ndarray:
        """Image i of one of these parts as test images are prepared: uint8 [size, size, 3]."""
        pixels = self.image(part, i).numpy()
        if part is not self.train:
            return pixels
        return prepare(Image.fromarray(pixels), self.resize, self.size, self.fit)

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
    """At most `per_class` images of each class, sampled by name hash, so that larger subsets
    contain smaller ones."""
    order = sorted(
        range(len(part)), key=lambda i: hashlib.sha256(part.names[i].encode()).hexdigest()
    )
    kept = [[i for i in order if part.label[i] == c][:per_class] for c in np.unique(part.label)]
    return part.taken(np.array(sorted(i for indices in kept for i in indices), dtype=np.int64))


@dataclass(frozen=True)
class Preparation:
    """How `write` stores images. resplit: whether a training image may become a test image."""

    decoding: reader.Decoding
    resize: int
    size: int
    short_side: int
    fit: str
    resplit: bool

    def pixels(self, part: str, path: Path) -> list[np.ndarray]:
        """An image's pixels for training, for testing, or both in this order."""
        try:
            image = reader.read(path, self.decoding).rgb(self.decoding)
        except (OSError, ValueError) as error:
            raise UserError(f"{path}: cannot be decoded ({error}); run its split again") from None
        arrays = []
        if part == "train":
            arrays.append(np.asarray(stored(image, self.size, self.short_side, self.fit)))
        if part != "train" or self.resplit:
            arrays.append(prepare(image, self.resize, self.size, self.fit))
        return arrays


def write(
    split: Path, out: Path, *, resize: int, size: int, short_side: int, fit: str = "crop"
) -> dict[str, int]:
    """Decode the images of `split`/{train,validation,test} into `out`/pixels.bin and
    `out`/index.json; resize, size, short_side and fit as transfer.params.Pack has them.

    Images are decoded as `split`/decoding.json says, if it is there. Validation images, if there
    are any, and test images are prepared; if `split` has a division.json, training images are
    stored both ways. Images are streamed, so a data set may be larger than memory. Returns the
    images of each part. Raises UserError for a class without a training image, and for an image
    that cannot be decoded.
    """
    classes = Classes.read(split / CLASSES).names
    rules, resplit = split / reader.DECODING, split / DIVISION
    decoding = reader.Decoding.read(rules) if rules.is_file() else reader.PAPER
    division = Division.read(resplit) if resplit.is_file() else None
    how = Preparation(decoding, resize, size, short_side, fit, division is not None)
    out.mkdir(parents=True)
    digest = hashlib.sha256()
    with open(out / PIXELS, "wb") as file:
        parts = {part: _write_part(split, part, classes, how, file, digest) for part in PARTS}
    Index(
        classes=classes,
        resize=resize,
        size=size,
        fit=fit,
        decoding=decoding,
        division=division,
        sha256=digest.hexdigest(),
        **parts,
    ).write(out / INDEX)
    return {part: len(columns.names) for part, columns in parts.items()}


def _write_part(
    split: Path, part: str, classes: list[str], how: Preparation, file: IO[bytes], digest: Any
) -> Columns:
    """Append the part's pixels to the file, and to the digest."""
    files = [
        (label, path)
        for label in range(len(classes))
        for path in sorted((split / part / str(label)).glob("*"))
    ]
    bare = set(range(len(classes))) - {label for label, _ in files}
    if part == "train" and bare:
        raise UserError(
            f"{split}: no training image of class {classes[min(bare)]!r}; run its split again"
        )
    columns: dict[str, list[Any]] = {name: [] for name in Columns.model_fields}
    # Pillow decodes outside Python's lock.
    pixels = ahead(partial(how.pixels, part), [path for _, path in files], os.cpu_count() or 1)
    for (label, path), arrays in zip(files, pixels, strict=True):
        start = file.tell()
        for array in arrays:
            prepared = file.tell()  # the last of them
            file.write(array.data)
            digest.update(array.data)
        row = named(classes[label], path.name), start, *arrays[0].shape[:2], label, prepared
        for column, value in zip(columns.values(), row, strict=True):
            column.append(value)
    return Columns(**columns)


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
    """Map what `write` wrote; nothing is read until it is used. With a seed, the training images
    are divided as that seed of the study divides them, if it does; without, all are training
    images. Raises UserError as Division.parts does."""
    folder = Path(folder)
    index = Index.read(folder / INDEX)
    parts = {part: Part.from_columns(getattr(index, part)) for part in PARTS}
    if index.division and seed is not None:
        train = parts["train"]
        for part, places in index.division.parts(train.names, train.label, seed).items():
            if not len(places):
                continue
            parts[part] = train.taken(places)
            if part != "train":
                start, side = (
                    np.array(index.train.prepared)[places],
                    np.full(len(places), index.size),
                )
                parts[part] = replace(parts[part], offset=start, height=side, width=side)
    pixels = np.memmap(folder / PIXELS, dtype=np.uint8, mode="r")
    return Packed(
        _tensor(pixels),
        index.decoding,
        index.classes,
        index.resize,
        index.size,
        index.sha256,
        fit=index.fit,
        **parts,
    )


def _tensor(pixels: np.ndarray) -> "torch.Tensor":
    """Of the same memory. A mapping that is only read may be larger than the machine's memory."""
    import torch  # a second to import, and packing does without

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The given NumPy array is not writable")
        return torch.from_numpy(pixels)
