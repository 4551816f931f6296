"""How an image becomes the square that a network sees, by pack.fit.

crop: resize the short side and take the square at the centre. pad: resize the long side and pad
with FILL. squash: resize both sides to the square's.
"""

import math

import numpy as np
from PIL import Image

FILL = (124, 116, 104)
"""ImageNet's mean in RGB, which normalising turns into almost 0."""
THIN = 16
"""The ratio of an image's sides above which its ends are cut off before it is resized: whole, it
would take 3·resize² bytes times that ratio."""
DETAIL = 4
"""A training image's square has at most this many times the side that networks see, unless the
image itself has more pixels: the paper's smallest random crop, 8 % of the area, needs 3.6 times."""


def prepare(image: Image.Image, resize: int, size: int, fit: str = "crop") -> np.ndarray:
    """uint8 [size, size, 3]. crop: torchvision's Resize(resize) and CenterCrop(size); of a THIN
    image, to one grey level."""
    if fit != "crop":
        return np.asarray(square(image, size, fit))
    return np.asarray(center_crop(resize_short_side(_shortened(image), resize), size))


def stored(image: Image.Image, size: int, short_side: int, fit: str = "crop") -> Image.Image:
    """A training image as random crops are cut from it. short_side: see transfer.params.Pack.

    crop: the image, with at most that short side. pad, squash: a square with the image's long side,
    or at most that side; with 0, at most DETAIL times `size`, or as many pixels as the image.
    """
    if fit != "crop":
        return square(image, square_side(image.size, size, short_side), fit)
    smaller = short_side and min(image.size) > short_side
    return resize_short_side(image, short_side) if smaller else image


def square_side(sides: tuple[int, int], size: int, short_side: int) -> int:
    """The side of the square that `stored` makes of an image with these sides, all in pixels."""
    return min(max(sides), short_side or max(DETAIL * size, math.isqrt(sides[0] * sides[1])))


def square(image: Image.Image, side: int, fit: str) -> Image.Image:
    """The whole image in a square: padded, as timm does with crop_mode 'border', or squashed."""
    if fit == "squash":
        return image.resize((side, side), Image.Resampling.BILINEAR)
    ratio = max(image.size) / side
    width, height = (max(1, round(length / ratio)) for length in image.size)
    canvas = Image.new("RGB", (side, side), FILL)
    resized = image.resize((width, height), Image.Resampling.BILINEAR)
    canvas.paste(resized, ((side - width) // 2, (side - height) // 2))
    return canvas


def resize_short_side(image: Image.Image, side: int) -> Image.Image:
    """torchvision's Resize(side) on a PIL image: bilinear, antialiased."""
    if min(image.size) == side:
        return image
    return image.resize(_resized(image, side), Image.Resampling.BILINEAR)


def center_crop(image: Image.Image, size: int) -> Image.Image:
    """torchvision's CenterCrop(size) of an image at least that large."""
    left, top = round((image.width - size) / 2), round((image.height - size) / 2)
    return image.crop((left, top, left + size, top + size))


def _resized(image: Image.Image, side: int) -> tuple[int, int]:
    """Width and height with a short side of `side`, rounded as by torchvision's Resize."""
    width, height = image.size
    long = int(side * max(image.size) / min(image.size))
    return (side, long) if width <= height else (long, side)


def _shortened(image: Image.Image) -> Image.Image:
    """Without the ends of a THIN image. They are cut by an even multiple of the short side, which
    the resized image is shorter by in whole pixels."""
    short = min(image.size)
    left, top = (max(0, (side - THIN * short) // (4 * short)) * 2 * short for side in image.size)
    return image.crop((left, top, image.width - left, image.height - top)) if left or top else image
