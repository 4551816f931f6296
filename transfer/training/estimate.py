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

FORWARD = 8
"""Images at least that go through the network at once while measuring."""
TIMES = 5
"""Measurements, of which the fastest counts: other work on the machine only ever adds time."""


@dataclass(frozen=True)
class Speed:
    """Seconds of an image: `step`, forward, backward and update in a batch of the study's size;
    `forward` alone."""

    step: float
    forward: float

    @classmethod
    def measure(cls, backbone: str, study: Params, classes: int) -> Self:
        """Measured on random pixels of so many classes."""
        protocol, model, images = _ready(backbone, study, classes, study.train.batch_size)
        forward = protocol.forward(model)
        loss = components.loss(protocol.loss, "none", [1] * classes, images.device)
        optimizer = components.optimizer(protocol.optimizer, model.parameters(), protocol.lr)
        labels = torch.arange(len(images), device=images.device) % classes

        def step() -> None:
            loss(forward(images), labels).backward()
            optimizer.step()
            optimizer.zero_grad()

        at_once = max(FORWARD, study.train.batch_size)
        return cls(_seconds(step) / len(images), predicting(backbone, study, classes, at_once))


def predicting(backbone: str, study: Params, classes: int, n: int) -> float:
    """Seconds of an image of n that go forward at once through a network of so many classes."""
    protocol, model, images = _ready(backbone, study, classes, n)
    forward = protocol.forward(model.eval())

    def once() -> None:
        with torch.inference_mode():
            forward(images)

    return _seconds(once) / len(images)


def _ready(
    backbone: str, study: Params, classes: int, n: int
) -> tuple[Protocol, torch.nn.Module, torch.Tensor]:
    """A network and n images of random pixels, on the study's device."""
    device, side = pick_device(study.train.device), study.pack.size
    protocol = Protocol(lr=1e-3, seed=0, **study.train.protocol)
    model = models.architecture(backbone)(num_classes=classes)
    images = torch.rand((n, 3, side, side), device=device)
    layout = protocol.layout
    model.to(device).to(memory_format=layout)
    return protocol, model, images.contiguous(memory_format=layout)


def _seconds(once: Callable[[], None]) -> float:
    took = []
    for _ in range(1 + TIMES):
        started = time.perf_counter()
        once()
        _wait()
        took.append(time.perf_counter() - started)
    return min(took[1:])  # the first also does what is only done once


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
            elif (run.group, run.init) not in passes:
                passes.add((run.group, run.init))
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
        passes = len(grid.images) * len(grid.init) * len(grid.seed)
        total += passes * per_image * sum(map(sum, images.values()))
    return total
