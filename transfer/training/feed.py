"""A data set's images as the network takes them: cropped anew every epoch, batched, normalised."""

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from transfer.images.packed import Packed, ahead
from transfer.training import augment

CHUNK = 64  # images that go through a network at once where batches do not matter


class Feed:
    """Batches of a data set on a device.

    `layout` is the memory format of the batches, `transforms` further augmentations of the training
    images (see augment.transformed). A GPU holds all pixels and cuts the crops itself where a
    quarter of its memory takes them; otherwise threads on the host prepare some batches ahead. A
    CPU prepares each batch when it is asked for: threads beside those of the convolutions would
    only stall them.
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
        self, batches: list[np.ndarray], crops: augment.Crops, group: int = 1
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

    def _resident(self, groups: list[np.ndarray], crops: augment.Crops) -> Iterator[torch.Tensor]:
        # Launching a kernel takes longer than cropping four images, so many are cropped at once.
        at_once = max(1, CHUNK // len(groups[0]))
        for start in range(0, len(groups), at_once):
            some = groups[start : start + at_once]
            images = self._cut(augment.crop_chunk, np.concatenate(some), crops)
            yield from images.split([len(group) for group in some])

    def _host(self, groups: list[np.ndarray], crops: augment.Crops) -> Iterator[torch.Tensor]:
        def prepared(chosen: np.ndarray) -> torch.Tensor:
            images = self._cut(augment.crop_batch, chosen, crops)
            return images.pin_memory() if self.device.type == "cuda" else images

        for images in ahead(prepared, groups, self.threads):
            yield images.to(self.device, non_blocking=True)

    def _cut(
        self, cut: Callable[..., torch.Tensor], chosen: np.ndarray, crops: augment.Crops
    ) -> torch.Tensor:
        images = cut(self.data, chosen, crops)
        return self._normalized(augment.transformed(images, crops.seed[chosen], self.transforms))

    def _normalized(self, images: torch.Tensor) -> torch.Tensor:
        return augment.normalize(images).contiguous(memory_format=self.layout)
