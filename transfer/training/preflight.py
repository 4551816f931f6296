"""Before a study starts: whether its settings fit, and what its runs will take, in operations, in
time on this machine, and in disk."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, partial
from itertools import product
from typing import Self

import torch
from torch import nn

from transfer.cli import UserError
from transfer.images import draw
from transfer.params import Params
from transfer.runs import runs
from transfer.training import components, models
from transfer.training.engine import LAYOUTS, forward, phase, pick_device

FORWARD = 8
"""The least number of images in a batch of predictions that is measured."""
TIMES = 5
"""Measurements, of which the fastest counts: other work on the machine only ever adds time."""


def check(study: Params) -> None:
    """Raise UserError for a name that torch or torchvision lacks, and for settings that do not fit
    each other."""
    for dataset in study.draw:
        draw.painters(dataset)
    models.check_backbones(study.grid.backbone)
    for recipe in study.grid.recipe:
        with _place(f"train with recipe {recipe}"):
            components.check(study.trained_by(recipe), study.grid.backbone)
    for backbone in study.grid.backbone:
        with _place(f"grid.freezing: {backbone}"):
            for freezing in study.grid.freezing:
                model = models.shape(backbone)
                models.adapt(model, freezing)
                models.freeze(model, freezing)
        with _place(f"pack.size {study.pack.size}: {backbone}"):
            models.check_size(backbone, study.pack.size)


@contextmanager
def _place(where: str) -> Iterator[None]:
    try:
        yield
    except ValueError as error:
        raise UserError(f"params.yaml: {where}: {error}") from None


def costs(study: Params) -> dict[str, dict[str, int]]:
    """backbone-recipe-freezing → the floating-point operations of a run, all its epochs, for each
    image that it trains on (`train`: forward and backward) and that it predicts (`predict`), and of
    its network for one image (`image`); and how many `parameters` that has, with two classes.

    Operations are those of convolutions and matrix products, as PyTorch counts them. Unlike
    seconds, they do not depend on the machine.
    """
    grid, size, result = study.grid, study.pack.size, {}
    for backbone in grid.backbone:
        model = models.shape(backbone, classes=2)
        image, step = operations(model, size), cache(partial(step_operations, backbone, size))
        for recipe, freezing in product(grid.recipe, grid.freezing):
            settings = study.trained_by(recipe)
            trained = [phase(freezing, settings.probe_epochs, e) for e in range(settings.epochs)]
            result[f"{backbone}-{recipe}-{freezing}"] = {
                "train": sum(map(step, trained)),
                "predict": settings.epochs * image,
                "image": image,
                "parameters": sum(parameter.numel() for parameter in model.parameters()),
            }
    return result


def step_operations(backbone: str, size: int, trained: str) -> int:
    """Of one image forward and backward, where that is trained (see engine.phase)."""
    model = models.shape(backbone, classes=2)
    models.adapt(model, trained)
    models.freeze(model, trained)
    return operations(model, size, backward=True)


def operations(model: nn.Module, size: int, backward: bool = False) -> int:
    """Of one image: half of those of two, which batch norm needs, on a device without numbers."""
    from torch.utils.flop_counter import FlopCounterMode  # a second, which only this needs

    with FlopCounterMode(display=False) as counter, torch.set_grad_enabled(backward):
        out = model.train(backward)(torch.empty((2, 3, size, size), device="meta"))
        if backward:
            out.sum().backward()
    return counter.get_total_flops() // 2


@dataclass(frozen=True)
class Speed:
    """Seconds of an image. step: forward, backward and update in a batch of the study's size.
    forward: forward alone, as in prediction."""

    step: float
    forward: float

    @classmethod
    def measure(cls, backbone: str, study: Params, classes: int) -> Self:
        """Measured on the study's device, with random pixels of so many classes."""
        train, device, side = study.train, pick_device(study.train.device), study.pack.size
        layout = LAYOUTS[train.memory_format]
        model = models.architecture(backbone)(num_classes=classes)
        model.to(device).to(memory_format=layout)
        images = torch.rand((max(FORWARD, train.batch_size), 3, side, side), device=device)
        images = images.contiguous(memory_format=layout)
        batch, network = images[: train.batch_size], forward(model, train.precision)
        labels = torch.arange(len(batch), device=device) % classes
        loss = components.loss(train.loss, "none", [1] * classes, device)
        optimizer = components.optimizer(train.optimizer, model.parameters(), lr=1e-3)

        def step() -> None:
            loss(network(batch), labels).backward()
            optimizer.step()
            optimizer.zero_grad()

        def predict() -> None:
            with torch.inference_mode():
                network(images)

        trained = _seconds(step) / len(batch)
        model.eval()
        return cls(trained, _seconds(predict) / len(images))


def _seconds(once: Callable[[], None]) -> float:
    took = []
    for _ in range(1 + TIMES):
        started = time.perf_counter()
        once()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        took.append(time.perf_counter() - started)
    return min(took[1:])  # the first includes what is only done once


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
