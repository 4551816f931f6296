"""What studying one's own images will take."""

import io
import math
import time
from collections.abc import Callable
from contextlib import suppress
from statistics import fmean, median
from typing import TypeVar

from PIL import Image

from transfer.images.archive import Source
from transfer.images.fit import square_side
from transfer.images.layout import Reading
from transfer.own.settings import SHARE
from transfer.params import Params
from transfer.training import engine, preflight
from transfer.training.preflight import Speed

T = TypeVar("T")
LOOKED_AT = 50
"""Images whose sizes are read."""
MUCH = 0.5
"""The share of an image's area above which it should not be left out: more than the paper's crop
takes of photographs of 3:2, in which the subject is seldom at an edge."""
SEEDS, MANY_SEEDS, FEW_IMAGES = 3, 5, 500
"""Seeds by default; and where there is a GPU, or no more images than that."""
DECODED = 10
"""Images that are decoded to see how long that takes."""
STAGE, PAGES = 1.0, 30.0
"""Seconds that DVC takes for a run, and that all other stages take beside what grows with the
images; measured on two cores of an AMD EPYC, and no more than a guess elsewhere."""


def sizes(source: Source) -> list[tuple[int, int]]:
    """Width and height of some images, from their headers."""
    return _of_some(source, LOOKED_AT, lambda image: image.size)


def decoding(source: Source) -> float:
    """Seconds to read and decode an image: the mean over some."""
    started = time.perf_counter()
    decoded = _of_some(source, DECODED, lambda image: image.convert("RGB").size)
    return (time.perf_counter() - started) / max(1, len(decoded))


def _of_some(source: Source, number: int, of: Callable[[Image.Image], T]) -> list[T]:
    found = []
    for name in source.images[:: max(1, len(source.images) // number)]:
        with suppress(Exception), Image.open(io.BytesIO(source.read(name))) as image:
            found.append(of(image))  # what cannot be read, split will say
    return found


def others(
    study: Params, runs: int, images: tuple[int, int], decode: float, speeds: dict[str, Speed]
) -> float:
    """Seconds of all stages but the runs: images are decoded twice, and similarity passes the
    training images through each backbone."""
    similarity = sum(images[0] * speeds[backbone].forward for backbone in study.grid.backbone)
    return PAGES + STAGE * runs + 2 * sum(images) * decode + similarity


def enough(study: Params, sides: list[tuple[int, int]]) -> int:
    """The short side in pixels to which larger training images may be reduced: of a square image,
    the smallest random crop still has what the network sees. 0 where few are larger."""
    if study.pack.short_side:
        return study.pack.short_side
    options = {one.name: one.options for one in study.train.augmentation}
    smallest = options.get("RandomResizedCrop", {"scale": (1.0, 1.0)}).get("scale", (0.08, 1.0))[0]
    side = max(study.pack.resize, math.ceil(study.pack.size / math.sqrt(smallest)))
    return side if sides and median(map(min, sides)) > side else 0


def cut_away(study: Params, sides: list[tuple[int, int]]) -> float:
    """The share of an image's area that cropping its centre leaves out: the median of the images,
    by their widths and heights."""
    kept = (study.pack.size / study.pack.resize) ** 2
    return median(1 - kept * min(side) / max(side) for side in sides)


def fit(study: Params, sides: list[tuple[int, int]], free: bool) -> tuple[str, list[str]]:
    """pack.fit, and lines about it. free: whether it may be another than the study has."""
    if not sides:
        return study.pack.fit, []
    lost, now = cut_away(study, sides), study.pack.fit
    words = f"cropping the centre would leave out {lost:.0%} of the area of the median image"
    if now != "crop":
        return now, [f"{words}; pack.fit: {now} keeps all of it"]
    if lost <= MUCH:
        return now, [f"{words}; pack.fit: squash or pad would keep all of it"]
    if free:
        return "squash", [f"{words}, so images are squashed to squares instead (pack.fit: squash)"]
    other = "pack.fit: squash would keep all, but also changes your other data sets"
    return now, [f"note: {words}; {other}"]


def seeds(study: Params, reading: Reading) -> int:
    """How many to train each setting with, so that a few lucky runs do not decide."""
    few = sum(sum(part.values()) for part in reading.images.values()) <= FEW_IMAGES
    gpu = engine.pick_device(study.train.device).type == "cuda"
    return MANY_SEEDS if few or gpu else SEEDS


def images(reading: Reading) -> tuple[int, int]:
    """Training images of a run, and images that it predicts."""
    total = sum(sum(part.values()) for part in reading.images.values())
    train = sum((reading.images.get("train") or reading.images["all"]).values())
    train = round(train * (1 - SHARE if "all" in reading.images else 1))
    train = round(train * (1 if "validation" in reading.images else 1 - SHARE))
    return train, total - train


def disk(
    study: Params, images: dict[str, tuple[int, int]], sides: list[tuple[int, int]]
) -> list[str]:
    """What pixels and features take."""
    short, size = study.pack.short_side, study.pack.size
    shrunk = [min(1.0, short / min(side)) if short else 1.0 for side in sides]
    pixels = [w * h * s * s * 3 for (w, h), s in zip(sides, shrunk, strict=True)] or [0.0]
    if study.pack.fit != "crop":
        pixels = [3.0 * square_side(side, size, short) ** 2 for side in sides] or [0.0]
    prepared = 3 * size**2
    packed = sum(train * fmean(pixels) + rest * prepared for train, rest in images.values())
    if study.split.resplit:  # any image may be in any part
        packed = sum((train + rest) * (fmean(pixels) + prepared) for train, rest in images.values())
    lines = [
        f"disk: about {2 * packed / 1e9:.1f} GB for pixels, half of it in DVC's cache, and "
        f"{preflight.features(study, images) / 1e9:.1f} GB for the outputs of frozen backbones"
    ]
    if any(share < 1 for share in shrunk):
        lines.append(
            f"training images are reduced to a short side of {short} px (pack.short_side), of "
            f"which the smallest random crop still has {size} px"
        )
    return lines
