"""The report's training transform on packed images: RandomResizedCrop, flip, normalise.

Same distribution and, for a given crop, the same pixels (to one grey level) as torchvision's
transforms on PIL images: https://pytorch.org/vision/stable/transforms.html
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch.nn.functional import interpolate

from transfer.packed import Packed

MEAN = (0.485, 0.456, 0.406)  # ImageNet's, as in torchvision's presets
STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Crops:
    """One crop per image, pixels: int64 [n] each; flip: bool [n], mirrored left to right."""

    top: np.ndarray
    left: np.ndarray
    height: np.ndarray
    width: np.ndarray
    flip: np.ndarray


def random_crops(
    height: np.ndarray,
    width: np.ndarray,
    rng: np.random.Generator,
    scale: tuple[float, float] = (0.08, 1.0),
    ratio: tuple[float, float] = (3 / 4, 4 / 3),
) -> Crops:
    """torchvision's RandomResizedCrop.get_params for all images at once, and a coin for each flip.

    Ten tries per image of a random area and aspect ratio; the first that fits is taken, else the
    largest centre crop within the ratio.
    """
    n, tries = len(height), 10
    rows, columns = height[:, None], width[:, None]
    area = rows * columns * rng.uniform(*scale, (n, tries))
    aspect = np.exp(rng.uniform(*np.log(ratio), (n, tries)))
    w = np.rint(np.sqrt(area * aspect)).astype(np.int64)
    h = np.rint(np.sqrt(area / aspect)).astype(np.int64)
    fits = (w > 0) & (w <= columns) & (h > 0) & (h <= rows)
    first = np.arange(n), fits.argmax(axis=1)
    inside = fits.any(axis=1)
    h = np.where(inside, h[first], np.minimum(height, np.rint(width / ratio[0]).astype(np.int64)))
    w = np.where(inside, w[first], np.minimum(width, np.rint(height * ratio[1]).astype(np.int64)))
    top = np.where(inside, rng.integers(0, height - h + 1), (height - h) // 2)
    left = np.where(inside, rng.integers(0, width - w + 1), (width - w) // 2)
    return Crops(top, left, h, w, rng.random(n) < 0.5)


def crop_batch(data: Packed, chosen: np.ndarray, crops: Crops) -> torch.Tensor:
    """Cut, resize and flip the chosen training images: uint8 [len(chosen), size, size, 3]."""
    out = torch.empty((len(chosen), data.size, data.size, 3), dtype=torch.uint8)
    for row, i in zip(out, chosen, strict=True):
        top, left = crops.top[i], crops.left[i]
        cut = data.image(data.train, i)[top : top + crops.height[i], left : left + crops.width[i]]
        pixels = torch.from_numpy(cut).permute(2, 0, 1)[None]
        resized = interpolate(pixels, (data.size, data.size), mode="bilinear", antialias=True)
        row.copy_((resized.flip(3) if crops.flip[i] else resized)[0].permute(1, 2, 0))
    return out


def normalize(images: torch.Tensor) -> torch.Tensor:
    """uint8 [n, h, w, 3] → float32 [n, 3, h, w], channels last: ToTensor and Normalize(MEAN, STD).

    Row by row: an inner loop over three channels would take longer than the resizing.
    """
    n, height, width, _ = images.shape
    scale = torch.tensor([1 / (255 * s) for s in STD], device=images.device).repeat(width)
    shift = torch.tensor([-m / s for m, s in zip(MEAN, STD, strict=True)], device=images.device)
    rows = images.reshape(n, height, width * 3).float()
    torch.addcmul(shift.repeat(width), rows, scale, out=rows)
    return rows.view(n, height, width, 3).permute(0, 3, 1, 2)
