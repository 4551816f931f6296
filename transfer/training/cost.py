"""What a run of each setting costs, in operations: seconds depend on the machine."""

from functools import cache, partial
from itertools import product

import torch
from torch import nn

from transfer.params import Params
from transfer.training import models
from transfer.training.engine import phase


def costs(study: Params) -> dict[str, dict[str, int]]:
    """backbone-recipe-freezing → the floating-point operations of a run, all its epochs, for each
    image that it trains on (`train`: forward and backward) and that it predicts (`predict`), and of
    its network for one image (`image`); and how many `parameters` that has, with two classes.

    The convolutions and matrix products, as PyTorch counts them.
    """
    grid, size, found = study.grid, study.pack.size, {}
    for backbone in grid.backbone:
        model = models.shape(backbone, classes=2)
        forward, step = _of_one(model, size), cache(partial(_of_step, backbone, size))
        for recipe, freezing in product(grid.recipe, grid.freezing):
            settings = study.trained_by(recipe)
            trained = [phase(freezing, settings.probe_epochs, e) for e in range(settings.epochs)]
            found[f"{backbone}-{recipe}-{freezing}"] = {
                "train": sum(map(step, trained)),
                "predict": settings.epochs * forward,
                "image": forward,
                "parameters": sum(parameter.numel() for parameter in model.parameters()),
            }
    return found


def _of_step(backbone: str, size: int, trained: str) -> int:
    model = models.shape(backbone, classes=2)
    models.adapt(model, trained)
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
