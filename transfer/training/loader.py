"""Batches as the network takes them: cropped anew every epoch, flipped, further augmented,
normalised.

For a given crop, training images have the same pixels (to one grey level) as torchvision's
RandomResizedCrop gives on PIL images, and the crops the same distribution:
https://pytorch.org/vision/stable/transforms.html
"""

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch.nn.functional import interpolate

from transfer.images.packed import Packed, ahead
from transfer.params import Component

CHUNK = 64  # images that go through a network at once where batches do not matter
CROP, FLIP = "RandomResizedCrop", "RandomHorizontalFlip"
PAPER = (Component(CROP), Component(FLIP))
"""The paper's augmentation, which Crops describe."""
MEAN = (0.485, 0.456, 0.406)  # ImageNet's, as in torchvision's presets
STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Crops:
    """One crop per image, pixels: int64 [n] each; flip: bool [n], mirrored left to right; seed:
    int64 [n], what further transforms of the image draw from."""

    top: np.ndarray
    left: np.ndarray
    height: np.ndarray
    width: np.ndarray
    flip: np.ndarray
    seed: np.ndarray


def random_crops(
    height: np.ndarray,
    width: np.ndarray,
    rng: np.random.Generator,
    augmentation: Sequence[Component] = PAPER,
    share: float = 224 / 256,
) -> Crops:
    """Crops and flips of images of these sizes, in pixels. Without RandomResizedCrop the crop is
    that of test images, a `share` of the short side; without RandomHorizontalFlip no image is
    mirrored."""
    options = {component.name: component.options for component in augmentation}
    if CROP in options:
        boxes = resized_crops(height, width, rng, **options[CROP])
    else:
        boxes = center_crops(height, width, share)
    mirrored = options[FLIP].get("p", 0.5) if FLIP in options else 0
    n = len(height)
    return Crops(*boxes, rng.random(n) < mirrored, rng.integers(2**31, size=n))


Boxes = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]
"""Top, left, height, width of n crops, int64 [n] each."""


def center_crops(height: np.ndarray, width: np.ndarray, share: float) -> Boxes:
    """Squares in the middle, of that share of the short side."""
    side = np.maximum(1, np.rint(np.minimum(height, width) * share).astype(np.int64))
    return (height - side) // 2, (width - side) // 2, side, side


def resized_crops(
    height: np.ndarray,
    width: np.ndarray,
    rng: np.random.Generator,
    scale: tuple[float, float] = (0.08, 1.0),
    ratio: tuple[float, float] = (3 / 4, 4 / 3),
) -> Boxes:
    """torchvision's RandomResizedCrop.get_params for all images at once.

    Ten tries per image of a random area and aspect ratio; the first that fits is taken, else the
    largest centre crop within the ratio.
    """
    n, tries = len(height), 10
    rows, columns = height[:, None], width[:, None]
    area = rows * columns * rng.uniform(*scale, (n, tries))
    low, high = np.log(ratio)
    aspect = np.exp(rng.uniform(low, high, (n, tries)))
    w = np.rint(np.sqrt(area * aspect)).astype(np.int64)
    h = np.rint(np.sqrt(area / aspect)).astype(np.int64)
    fits = (w > 0) & (w <= columns) & (h > 0) & (h <= rows)
    first = np.arange(n), fits.argmax(axis=1)
    inside = fits.any(axis=1)
    h = np.where(inside, h[first], np.rint(width / ratio[0]).clip(1, height).astype(np.int64))
    w = np.where(inside, w[first], np.rint(height * ratio[1]).clip(1, width).astype(np.int64))
    top = np.where(inside, rng.integers(0, height - h + 1), (height - h) // 2)
    left = np.where(inside, rng.integers(0, width - w + 1), (width - w) // 2)
    return top, left, h, w


def crop_batch(data: Packed, chosen: np.ndarray, crops: Crops) -> torch.Tensor:
    """Cut, resize and flip the chosen training images: uint8 [len(chosen), size, size, 3]."""
    out = torch.empty((len(chosen), data.size, data.size, 3), dtype=torch.uint8)
    for row, i in zip(out, chosen, strict=True):
        cut = _cut(data, crops, i).permute(2, 0, 1)[None]
        resized = interpolate(cut, (data.size, data.size), mode="bilinear", antialias=True)
        row.copy_((resized.flip(3) if crops.flip[i] else resized)[0].permute(1, 2, 0))
    return out


def crop_chunk(
    data: Packed, chosen: np.ndarray, crops: Crops, floats: int = 1 << 26
) -> torch.Tensor:
    """As crop_batch, to one grey level, for pixels on a GPU: two matrix products for all images at
    once, instead of several launches for each.

    The crops are laid on a canvas of the largest one's size. This and each later tensor hold at
    most `floats` numbers, unless one crop needs more.
    """
    height, width = crops.height[chosen], crops.width[chosen]
    tall, wide = int(height.max()), int(width.max())
    most = max(3 * tall, data.size) * max(wide, data.size)
    if len(chosen) > 1 and len(chosen) * most > floats:
        halves = np.array_split(chosen, 2)
        return torch.cat([crop_chunk(data, half, crops, floats) for half in halves])
    device, n = data.pixels.device, len(chosen)
    canvas = torch.zeros((n, 3, tall, wide), device=device)
    for row, i, h, w in zip(canvas, chosen, height, width, strict=True):
        row[:, :h, :w] = _cut(data, crops, i).permute(2, 0, 1)
    across = _triangles(width, wide, data.size, device)
    flip = torch.from_numpy(crops.flip[chosen]).to(device)
    across = torch.where(flip[:, None, None], across.flip(1), across)
    down = _triangles(height, tall, data.size, device)
    # As Pillow: first across, then down, and whole grey levels after each.
    rows = _grey(canvas.view(n, 3 * tall, wide) @ across.mT).view(n, 3, tall, data.size)
    return _grey(down[:, None] @ rows).to(torch.uint8).permute(0, 2, 3, 1)


def transformed(
    images: torch.Tensor, seeds: np.ndarray, transforms: Sequence[Callable[..., Any]]
) -> torch.Tensor:
    """uint8 [n, h, w, 3], each image through all transforms (of uint8 [3, h, w]) in order, drawing
    from its own seed, whatever else is in the batch."""
    if not transforms:
        return images
    out = torch.empty_like(images)
    with torch.random.fork_rng():
        for row, image, seed in zip(out, images, seeds, strict=True):
            torch.manual_seed(int(seed))
            image = image.permute(2, 0, 1)
            for transform in transforms:
                image = transform(image)
            row.copy_(image.permute(1, 2, 0))
    return out


def _cut(data: Packed, crops: Crops, i: int) -> torch.Tensor:
    top, left = crops.top[i], crops.left[i]
    image = data.image(data.train, i)
    return image[top : top + crops.height[i], left : left + crops.width[i]]


def _triangles(lengths: np.ndarray, longest: int, size: int, device: torch.device) -> torch.Tensor:
    """[n, size, longest]: the weight of each of `lengths` input pixels in each of `size` output
    pixels, by the triangle filter that Pillow and torch resize with, widened when it shrinks."""
    length = torch.from_numpy(lengths).to(device)[:, None, None].float()
    scale = length / size
    center = (torch.arange(size, device=device)[:, None] + 0.5) * scale
    pixel = torch.arange(longest, device=device)
    weights = 1 - (pixel + 0.5 - center).abs() / scale.clamp(min=1)
    weights = weights.clamp(min=0) * (pixel < length)
    return weights / weights.sum(2, keepdim=True)


def _grey(values: torch.Tensor) -> torch.Tensor:
    return values.round_().clamp_(0, 255)


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


class Feed:
    """Batches of a data set on a device.

    `layout` is the memory format of the batches, `transforms` are further augmentations of the
    training images. A GPU holds all pixels and cuts the crops itself where a quarter of its memory
    takes them; otherwise threads on the host prepare some batches ahead. On a CPU, threads beside
    those of the convolutions would only stall them, so each batch is prepared when it is needed.
    """

    def __init__(
        self,
        data: Packed,
        device: torch.device,
        layout: torch.memory_format,
        transforms: Sequence[Callable[..., Any]] = (),
    ) -> None:
        self.device, self.layout, self.transforms = device, layout, transforms
        gpu = device.type == "cuda"
        memory = torch.cuda.get_device_properties(device).total_memory if gpu else 0
        self.resident = gpu and data.pixels.nbytes <= memory // 4
        self.data = replace(data, pixels=data.pixels.to(device)) if self.resident else data
        # Transforms draw from PyTorch's one generator.
        self.threads = min(8, os.cpu_count() or 1) if gpu and not transforms else 0

    def train(
        self, batches: list[np.ndarray], crops: Crops, group: int = 1
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Images float32 [n, 3, size, size] and labels int64 [n] of the batches (indices of
        training images), `group` batches at a time."""
        labels = torch.from_numpy(self.data.train.label[np.concatenate(batches)]).to(self.device)
        together = [np.concatenate(batches[i : i + group]) for i in range(0, len(batches), group)]
        images = self._resident(together, crops) if self.resident else self._host(together, crops)
        yield from zip(images, labels.split(len(together[0])), strict=True)

    def prepared(self) -> Iterator[torch.Tensor]:
        """The validation images and then the test images, in order, in large batches."""
        for start in range(0, len(self.data.validation) + len(self.data.test), CHUNK):
            images = self.data.prepared_images(start, start + CHUNK)
            yield self._normalized(images.to(self.device))

    def _resident(self, groups: list[np.ndarray], crops: Crops) -> Iterator[torch.Tensor]:
        # Launching a kernel takes longer than cropping four images, so many are cropped at once.
        at_once = max(1, CHUNK // len(groups[0]))
        for start in range(0, len(groups), at_once):
            chunk = groups[start : start + at_once]
            images = self._cut(crop_chunk, np.concatenate(chunk), crops)
            yield from images.split([len(group) for group in chunk])

    def _host(self, groups: list[np.ndarray], crops: Crops) -> Iterator[torch.Tensor]:
        def prepared(chosen: np.ndarray) -> torch.Tensor:
            images = self._cut(crop_batch, chosen, crops)
            return images.pin_memory() if self.device.type == "cuda" else images

        for images in ahead(prepared, groups, self.threads):
            yield images.to(self.device, non_blocking=True)

    def _cut(
        self, cut: Callable[..., torch.Tensor], chosen: np.ndarray, crops: Crops
    ) -> torch.Tensor:
        images = cut(self.data, chosen, crops)
        return self._normalized(transformed(images, crops.seed[chosen], self.transforms))

    def _normalized(self, images: torch.Tensor) -> torch.Tensor:
        return normalize(images).contiguous(memory_format=self.layout)
