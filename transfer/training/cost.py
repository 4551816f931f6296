"""What a setting's runs cost, as the same number everywhere: seconds depend on the machine."""

from itertools import product

import torch
from torch import nn

from transfer.params import Params
from transfer.training import models


def phases(freezing: str) -> tuple[str, str]:
    """What is trained first, in the probe's epochs, and what in the others."""
    return ("frozen", "finetuned") if freezing == "lpft" else (freezing, freezing)


def costs(study: Params) -> dict[str, dict[str, int]]:
    """backbone-recipe-freezing → the floating-point operations of a run, all its epochs, for each
    image that it trains on (`train`: forward and backward) and that it predicts (`predict`).

    The convolutions and matrix products, as PyTorch counts them.
    """
    grid, size, found = study.grid, study.pack.size, {}
    for backbone in grid.backbone:
        model = models.shape(backbone, classes=2)
        forward = _of_one(model, size)
        trained = {phase for freezing in grid.freezing for phase in phases(freezing)}
        step = {phase: _of_step(model, phase, size) for phase in trained}
        for recipe, freezing in product(grid.recipe, grid.freezing):
            settings = study.trained_by(recipe)
            first, last = phases(freezing)
            probe = settings.probe_epochs if freezing == "lpft" else 0
            train = probe * step[first] + (settings.epochs - probe) * step[last]
            predict = settings.epochs * forward
            found[f"{backbone}-{recipe}-{freezing}"] = {"train": train, "predict": predict}
    return found


def _of_step(model: nn.Module, trained: str, size: int) -> int:
    models.freeze(model, trained)
    return _of_one(model, size, backward=True)


def _of_one(model: nn.Module, size: int, backward: bool = False) -> int:
    """Half of those of two images, on a device that computes nothing."""
    from torch.utils.flop_counter import FlopCounterMode  # a second, which only this needs

    with FlopCounterMode(display=False) as counter, torch.set_grad_enabled(backward):
        out = model.train(backward)(torch.empty((2, 3, size, size), device="meta"))
        if backward:
            out.sum().backward()
    return counter.get_total_flops() // 2
