"""What studying one's own images will take."""

import io
import math
from contextlib import suppress
from statistics import fmean, median

from PIL import Image

from transfer.images import reader
from transfer.images.archive import Source
from transfer.images.layout import Reading
from transfer.own.settings import SHARE
from transfer.params import Params
from transfer.training import engine, preflight

LOOKED_AT = 50
"""Images whose sizes are read."""
SEEDS, MANY_SEEDS, FEW_IMAGES = 3, 5, 500
"""Seeds by default; and where there is a GPU, or no more images than that."""


def sizes(source: Source) -> list[tuple[int, int]]:
    """Width and height of some images, from their headers."""
    names = [name for name in source.names if reader.kind(name)]
    found = []
    for name in names[:: max(1, len(names) // LOOKED_AT)]:
        with suppress(Exception), Image.open(io.BytesIO(source.read(name))) as image:
            found.append(image.size)  # what cannot be read, split will say
    return found


def enough(study: Params, sides: list[tuple[int, int]]) -> int:
    """The short side in pixels to which larger training images may be reduced: of a square image,
    the smallest random crop still has what the network sees. 0 where few are larger."""
    if study.pack.short_side:
        return study.pack.short_side
    options = {one.name: one.options for one in study.train.augmentation}
    smallest = options.get("RandomResizedCrop", {"scale": (1.0, 1.0)}).get("scale", (0.08, 1.0))[0]
    side = max(study.pack.resize, math.ceil(study.pack.size / math.sqrt(smallest)))
    return side if sides and median(map(min, sides)) > side else 0


def seeds(study: Params, found: Reading) -> int:
    """How many to train each setting with, so that a few lucky runs do not decide."""
    few = sum(sum(part.values()) for part in found.images.values()) <= FEW_IMAGES
    gpu = engine.pick_device(study.train.device).type == "cuda"
    return MANY_SEEDS if few or gpu else SEEDS


def images(found: Reading) -> tuple[int, int]:
    """Training images of a run, and images that it predicts."""
    total = sum(sum(part.values()) for part in found.images.values())
    train = sum((found.images.get("train") or found.images["all"]).values())
    train = round(train * (1 - SHARE if "all" in found.images else 1))
    train = round(train * (1 if "validation" in found.images else 1 - SHARE))
    return train, total - train


def disk(
    study: Params, images: dict[str, tuple[int, int]], sides: list[tuple[int, int]]
) -> list[str]:
    """What pixels and features take."""
    short, size = study.pack.short_side, study.pack.size
    shrunk = [min(1.0, short / min(side)) if short else 1.0 for side in sides]
    pixels = [w * h * s * s * 3 for (w, h), s in zip(sides, shrunk, strict=True)] or [0.0]
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
