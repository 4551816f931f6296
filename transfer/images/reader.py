"""Which files are images, and how one is decoded: by split, pack, predict and the figures alike."""

import io
import sys
import warnings
from dataclasses import dataclass
from functools import lru_cache
from operator import not_
from pathlib import Path
from typing import IO, Annotated, Any

import numpy as np
from PIL import Image, ImageCms, ImageOps
from pydantic import Field

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
"""Pillow's name of each format, and its extensions: all that torchvision's ImageFolder reads, and
more."""
EXTENSIONS = sum(FORMATS.values(), ())
READ = tuple(kind for kind in FORMATS if kind != "HEIF" or HEIF)
INSTALL = "pip install pillow-heif"
MAX_PIXELS = 89_478_485
"""Pillow's own limit, beyond which it warns of a decompression bomb."""
BITS, BANDS, PLANES = 258, 277, 284
"""TIFF's tags for the bits of each band, the number of bands, and whether each is stored on its
own (2)."""

# Set once, because images are decoded in threads. `read` has its own limit for each data set.
Image.MAX_IMAGE_PIXELS = None
warnings.filterwarnings("ignore", module="PIL")  # palettes with transparency


def kind(name: str) -> str | None:
    """The format that the file's extension stands for, None if it is no image's."""
    kinds = (kind for kind, extensions in FORMATS.items() if name.lower().endswith(extensions))
    return next(kinds, None)


def unread(name: str) -> str:
    """Why no image of this extension can be read here, '' if it can."""
    return f"HEIC; {INSTALL}" if kind(name) == "HEIF" and not HEIF else ""


def unidentified(name: str) -> str:
    """What to say of a file whose format Pillow does not identify."""
    if kind(name) == "TIFF":
        return "not a TIFF with 1, 3 or 4 bands of 8 or 16 bits, or one of 32 bits"
    return unread(name) or f"not an image of these kinds: {', '.join(READ)}"


class Decoding(Stored):
    """How images become 8-bit RGB, the same in training and in `predict`.

    exif: apply the EXIF orientation. white: lay transparent pixels on white, instead of showing
    their hidden colour. low, high: the values that become 0 and 255 in images of more than 8 bits;
    None: 0 and 65535 for 16-bit images, else the image's own limits. srgb: convert 8-bit images
    with another ICC profile to sRGB. max_pixels: the largest image to read.

    srgb and max_pixels are left out of files where they have their defaults, which older files
    do not say.
    """

    exif: bool = False
    white: bool = False
    low: float | None = None
    high: float | None = None
    srgb: bool = Field(False, exclude_if=not_)
    max_pixels: Annotated[int, Field(ge=1, le=10**9, exclude_if=lambda n: n == MAX_PIXELS)] = (
        MAX_PIXELS
    )


DECODING = "decoding.json"
"""The file that holds it, beside the parts of a data set."""
PAPER = Decoding()
"""As torchvision's ImageFolder reads images of 8 bits."""
DEEP = ("I", "F", "I;16", "I;16B", "I;16L", "I;16N")
"""Pillow's modes of more than 8 bits, all with one channel."""
FULL = 65535.0
"""The largest 16-bit value."""

QUANTILES = (np.arange(256) + 0.5) / 256
SAMPLED = 1 << 16
"""Values of an image from which its quantiles are computed."""
NO_DATA = 1e38
"""Files of floating-point numbers mark missing values with one near the largest, -3.4e38."""


def quantiles(pixels: np.ndarray) -> np.ndarray:
    """The QUANTILES of the finite values, float32 [256]; empty if there is none. They leave out
    0.2 % of the values at either end, such as dead pixels."""
    values = pixels.ravel()
    values = values[:: max(1, len(values) // SAMPLED)].astype(np.float64)
    values = values[np.isfinite(values) & (np.abs(values) < NO_DATA)]
    return np.quantile(values, QUANTILES).astype(np.float32) if len(values) else values[:0]


@dataclass(frozen=True)
class Read:
    """A decoded image.

    pixels: uint8 [height, width, 3], RGB; or of more than 8 bits, as stored, [height, width] or
    uint16 [height, width, 3], or 4 with transparency. format, mode: Pillow's names of the file's
    format and mode, with ';16' for colours of 16 bits. pages: images in the file, of which this is
    the first. profile: the name of its ICC profile, if that changes 8-bit colours, else ''.
    """

    pixels: np.ndarray
    format: str
    mode: str
    pages: int
    profile: str = ""

    @property
    def deep(self) -> bool:
        """Whether it has more than 8 bits."""
        return self.pixels.dtype != np.uint8

    @property
    def values(self) -> np.ndarray:
        """The pixels without transparency."""
        return self.pixels[..., :3] if self.pixels.ndim == 3 else self.pixels

    def rgb(self, decoding: Decoding) -> Image.Image:
        """In 8-bit RGB. What is not a number becomes black."""
        if not self.deep:
            return Image.fromarray(self.pixels)
        low, high = decoding.low, decoding.high
        if low is None or high is None:
            low, high = (0.0, FULL) if ";16" in self.mode else self.limits()
        scaled = (self.values.astype(np.float64) - low) / ((high - low) or 1.0)
        scaled = np.nan_to_num(scaled).clip(0, 1)
        if self.pixels.shape[2:] == (4,):
            alpha = self.pixels[..., 3:] / FULL
            scaled = scaled * alpha + 1 - alpha
        return Image.fromarray(np.rint(scaled * 255).astype(np.uint8)).convert("RGB")

    def limits(self) -> tuple[float, float]:
        """Its darkest and its brightest value, without the few at either end."""
        low, *_, high = quantiles(self.values).tolist() or (0.0, 1.0)
        return low, high


def read(file: str | Path | IO[bytes], decoding: Decoding = PAPER) -> Read:
    """Decode a whole image.

    Raises PIL.UnidentifiedImageError for a file of no format in READ, ValueError for an image of
    too many pixels or of bands that RGB cannot show, and a dozen other errors for a broken one.
    """
    with Image.open(file, formats=READ) as image:
        _check(image, decoding)
        # Cameras store further images, such as a preview, behind the first.
        camera = image.format == "MPO"
        format = "JPEG" if camera else str(image.format)
        pages = 1 if camera else getattr(image, "n_frames", 1)
        if _deep_colours(image):
            pixels, mode = _deep(file, image, decoding)
            return Read(pixels, format, mode, pages)
        mode, upright = image.mode, _upright(image, decoding)
        if mode in DEEP:
            return Read(np.array(upright), format, mode, pages)
        profile = _profile(image.info.get("icc_profile") or b"", mode)
        rgb = _flat(upright, decoding)
        if profile and decoding.srgb:
            before = upright if mode == "CMYK" else rgb
            rgb = ImageCms.applyTransform(before, profile.to_srgb) or rgb
        return Read(np.array(rgb), format, mode, pages, profile.name if profile else "")


def _check(image: Image.Image, decoding: Decoding) -> None:
    """Raise ValueError for an image that is not to be decoded."""
    if (pixels := image.width * image.height) > decoding.max_pixels:
        raise ValueError(f"{pixels} pixels, more than split.max_pixels: {decoding.max_pixels}")
    tags = getattr(image, "tag_v2", {})
    bands = tags.get(BANDS, 1)
    if bands > 4:
        raise ValueError(f"{bands} bands; save those that are red, green and blue")
    if bands > 1 and tags.get(PLANES) == 2 and np.max(tags.get(BITS, 8)) > 8:
        raise ValueError("16-bit bands stored one after another; save them pixel by pixel")
    rawmode, *rest = _unpacking(image)
    if "a;16" in rawmode:
        raise ValueError("16-bit colours multiplied by transparency; save them without")
    if image.format == "PPM" and image.mode == "RGB" and rest and rest[0] > 255:
        raise ValueError("PPM of more than 8 bits; save it as PNG or TIFF")


def _unpacking(image: Image.Image) -> list[Any]:
    """What Pillow's decoder is given: how bytes are unpacked, such as RGB;16B, and more."""
    (*_, given), *_ = getattr(image, "tile", None) or [("",)]
    return list(given) if isinstance(given, tuple) else [given or ""]


def _deep_colours(image: Image.Image) -> bool:
    """Whether an image in RGB or RGBA has 16 bits in the file."""
    return image.mode in ("RGB", "RGBA") and ";16" in _unpacking(image)[0]


def _upright(image: Image.Image, decoding: Decoding) -> Image.Image:
    return ImageOps.exif_transpose(image) if decoding.exif else image


def _flat(image: Image.Image, decoding: Decoding) -> Image.Image:
    """In RGB, without transparency."""
    if not (decoding.white and image.has_transparency_data):
        return image.convert("RGB")
    alpha = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", alpha.size, "white"), alpha).convert("RGB")


def _deep(
    file: str | Path | IO[bytes], image: Image.Image, decoding: Decoding
) -> tuple[np.ndarray, str]:
    """Pixels and mode of an image in 16-bit colours. Pillow unpacks one byte of each value, so the
    file is unpacked once more as of the other byte order, which gives the other byte."""
    rawmode, order = _unpacking(image)[0][:-1], _unpacking(image)[0][-1]
    if order == "N":
        order = "B" if sys.byteorder == "big" else "L"
    # There is no other order for LA, whose four bytes a pixel are unpacked as RGBA's.
    other = "RGBA" if rawmode == "LA;16" else rawmode + ("L" if order == "B" else "B")
    if not isinstance(file, str | Path):
        file.seek(0)
    with Image.open(file, formats=READ) as again:
        again.tile = [
            tile._replace(args=(other, *tile.args[1:]) if isinstance(tile.args, tuple) else other)
            for tile in again.tile
        ]
        low = np.array(_upright(again, decoding)).astype(np.uint16)
    if rawmode == "LA;16":
        grey, alpha = low[..., 0] << 8 | low[..., 1], low[..., 2] << 8 | low[..., 3]
        pixels = np.stack([grey, grey, grey, alpha], axis=2)
    else:
        pixels = np.array(_upright(image, decoding)).astype(np.uint16) << 8 | low
    if not decoding.white:
        pixels = np.ascontiguousarray(pixels[..., :3])
    return pixels, rawmode


@dataclass(frozen=True)
class Profile:
    """An ICC profile whose colours are not sRGB's. to_srgb: ImageCms's transform to RGB."""

    name: str
    to_srgb: Any


PROBES = np.stack(np.meshgrid(*[np.arange(0, 256, 51, dtype=np.uint8)] * 3), axis=3)
SAME = 3
"""Levels by which versions of sRGB's profile differ at most."""


@lru_cache(maxsize=64)
def _profile(icc: bytes, mode: str) -> Profile | None:
    """None for sRGB, for grey images, and where the profile is broken or of other colours."""
    inks = "CMYK" if mode == "CMYK" else "RGB"
    if not icc or mode not in ("RGB", "RGBA", "RGBX", "P", "CMYK"):
        return None
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(icc))
        name = ImageCms.getProfileDescription(source).strip()
        to_srgb = ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), inks, "RGB")
    except (ImageCms.PyCMSError, OSError):
        return None
    if inks == "RGB":
        probes = Image.fromarray(PROBES.reshape(-1, 6, 3))
        moved = np.array(ImageCms.applyTransform(probes, to_srgb), dtype=int) - np.array(probes)
        if np.abs(moved).max() <= SAME:
            return None
    return Profile(name or "unnamed", to_srgb)
