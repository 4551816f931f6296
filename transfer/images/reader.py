"""Which files are images, and how one is read: by split, pack, predict and the pictures alike."""

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
from PIL import Image, ImageOps

from transfer.files import Stored

try:
    from pillow_heif import register_heif_opener

    register_heif_opener()
    HEIF = True
except ImportError:  # an extra
    HEIF = False

FORMATS = {
    "JPEG": (".jpg", ".jpeg", ".jfif"),
    "PNG": (".png",),
    "PPM": (".ppm", ".pgm"),
    "BMP": (".bmp",),
    "TIFF": (".tif", ".tiff"),
    "WEBP": (".webp",),
    "AVIF": (".avif",),
    "HEIF": (".heic", ".heif"),
}
"""As Pillow names the content, and how its files are named: all that torchvision's ImageFolder
reads, and more."""
EXTENSIONS = sum(FORMATS.values(), ())
READ = tuple(kind for kind in FORMATS if kind != "HEIF" or HEIF)
INSTALL = "pip install pillow-heif"
# Set once, as images are read in threads: of palettes with transparency, and of many pixels.
warnings.filterwarnings("ignore", module="PIL")


def kind(name: str) -> str | None:
    """The format that a file is named for, if it is named as an image."""
    found = (kind for kind, names in FORMATS.items() if name.lower().endswith(names))
    return next(found, None)


def unread(name: str) -> str:
    """Why a file that is named as an image cannot be read here, if that is so: '' if it can."""
    return f"HEIC; {INSTALL}" if kind(name) == "HEIF" and not HEIF else ""


class Decoding(Stored):
    """How images become 8-bit RGB, the same in training and in `predict`.

    exif: whether the EXIF orientation is applied. white: whether transparency is laid on white, not
    dropped. low, high: what becomes 0 and 255 of images of more than 8 bits or of floating point
    numbers; None: 0 and the largest number of a 16-bit image, else the image's own range.
    """

    exif: bool = False
    white: bool = False
    low: float | None = None
    high: float | None = None


DECODING = "decoding.json"
"""The file that holds it, beside the parts of a data set."""
PAPER = Decoding()
"""As torchvision's ImageFolder reads, for images of 8 bits."""
DEEP = ("I", "F", "I;16", "I;16B", "I;16L", "I;16N")
"""Pillow's modes of more than 8 bits, all of one channel."""


@dataclass(frozen=True)
class Read:
    """An image decoded.

    pixels: [height, width] of a DEEP mode, as they are; else uint8 [height, width, 3], RGB.
    format, mode: Pillow's names of what the file holds. pages: how many images it holds, of which
    this is the first.
    """

    pixels: np.ndarray
    format: str
    mode: str
    pages: int

    def rgb(self, decoding: Decoding) -> Image.Image:
        """In 8-bit RGB."""
        if self.pixels.ndim == 3:
            return Image.fromarray(self.pixels)
        values = np.nan_to_num(self.pixels.astype(np.float64))
        low, high = decoding.low, decoding.high
        if low is None or high is None:
            own = values.min(), values.max()
            low, high = (0.0, 65535.0) if self.mode.startswith("I;16") else own
        scaled = (values - low) / ((high - low) or 1.0)
        grey = np.rint(scaled.clip(0, 1) * 255).astype(np.uint8)
        return Image.fromarray(grey).convert("RGB")


def read(file: str | Path | IO[bytes], decoding: Decoding = PAPER) -> Read:
    """Decode a whole image.

    Raises PIL.UnidentifiedImageError for what is none of READ, Image.DecompressionBombError for
    one of more pixels than Pillow's limit, and a dozen other errors for a broken one.
    """
    with Image.open(file, formats=READ) as image:
        if image.width * image.height > (Image.MAX_IMAGE_PIXELS or 0):
            words = "could be a decompression bomb: Pillow reads at most"
            raise Image.DecompressionBombError(f"{words} {Image.MAX_IMAGE_PIXELS} pixels")
        # A camera's JPEG has more pictures behind the first, such as its preview.
        camera = image.format == "MPO"
        pages = 1 if camera else getattr(image, "n_frames", 1)
        mode, kind = image.mode, "JPEG" if camera else str(image.format)
        found: Image.Image = ImageOps.exif_transpose(image) if decoding.exif else image
        if mode in DEEP:
            pixels = np.array(found)
        elif decoding.white and found.has_transparency_data:
            alpha = found.convert("RGBA")
            paper = Image.new("RGBA", alpha.size, "white")
            pixels = np.array(Image.alpha_composite(paper, alpha).convert("RGB"))
        else:
            pixels = np.array(found.convert("RGB"))
        return Read(pixels, kind, mode, pages)
