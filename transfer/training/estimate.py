"""What a study will take, before it starts: time, from a few steps measured here, and disk."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from typing import Self

import torch

from transfer.params import Params
from transfer.runs import runs
from transfer.training import components, models
from transfer.training.engine import Protocol, pick_device

FORWARD = 8  # images at least that go through the network at once while measuring


@dataclass(frozen=True)
class Speed:
    """Seconds of an image: `step`, forward, backward and update in a batch of the study's size;
    `forward` alone."""

    step: float
    forward: float

    @classmethod
    def of(cls, backbone: str, study: Params) -> Self:
        """Measured on random pixels."""
        train, side = study.train, study.pack.size
        device = pick_device(train.device)
        protocol = Protocol(lr=1e-3, seed=0, **train.protocol)
        model = models.architecture(backbone)(num_classes=2).to(device)
        model.to(memory_format=protocol.layout)
        forward, loss = (
            protocol.forward(model),
            components.loss(protocol.loss, "none", [1, 1], device),
        )
        optimizer = components.optimizer(protocol.optimizer, model.parameters(), protocol.lr)
        images = torch.rand((max(FORWARD, train.batch_size), 3, side, side), device=device)
        images = images.contiguous(memory_format=protocol.layout)
        batch = images[: train.batch_size]
        labels = torch.arange(len(batch), device=device) % 2

        def step() -> None:
            loss(forward(batch), labels).backward()
            optimizer.step()
            optimizer.zero_grad()

        def alone() -> None:
            with torch.inference_mode():
                forward(images)

        return cls(_seconds(step) / len(batch), _seconds(alone) / len(images))


def _seconds(once: Callable[[], None], times: int = 2) -> float:
    once()  # what is only done once
    _wait()
    started = time.perf_counter()
    for _ in range(times):
        once()
    _wait()
    return (time.perf_counter() - started) / times


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def seconds(study: Params, images: dict[str, tuple[int, int]], speeds: dict[str, Speed]) -> float:
    """The time of all runs, one after another; frozen runs that share a backbone pass share it.

    images: data set → training images, and images that are only predicted. speeds: by backbone.
    """
    passes, total = set(), 0.0
    for name, (train, predicted) in images.items():
        for run in runs(study.grid, name):
            speed, epochs = speeds[run.backbone], study.trained_by(run.recipe).epochs
            if run.freezing != "frozen":
                total += epochs * (train * speed.step + predicted * speed.forward)
            elif (run.group, run.start) not in passes:
                passes.add((run.group, run.start))
                total += epochs * (train + predicted) * speed.forward
    return total


def features(study: Params, images: dict[str, tuple[int, int]]) -> int:
    """Bytes of the frozen backbones' outputs, if they are kept."""
    if "frozen" not in study.grid.freezing or not study.train.keep_features:
        return 0
    grid, total = study.grid, 0
    for backbone, recipe in product(grid.backbone, grid.recipe):
        width = models.head(models.shape(backbone)).in_features
        per_image = 4 * width * study.trained_by(recipe).epochs
        passes = len(grid.images) * len(grid.start) * len(grid.seed)
        total += passes * per_image * sum(map(sum, images.values()))
    return total
