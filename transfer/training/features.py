"""One pass of a frozen backbone over the epochs, for every head that is trained on it.

A frozen backbone never sees its head: its outputs depend on the images, the crops, the batches
(through batch norm, whose statistics keep moving in the paper's frozen runs) and the starting
weights. So one pass serves every learning rate, and is kept in files.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from transfer.files import locked
from transfer.training import models
from transfer.training.engine import Checkpoint, Features, Job
from transfer.training.loader import CHUNK
from transfer.training.step import Forward


@dataclass(frozen=True)
class Pass:
    """The epochs of a frozen backbone; computing the first removes the model's head."""

    job: Job
    model: nn.Module

    def compute(self, chunk: int = CHUNK, first: int = 0) -> Iterator[Features]:
        """Each epoch's features. The model's batch-norm statistics move as in training.

        About `chunk` images go through the network at once, with batch norm still per batch.
        Starts at epoch `first`, for which the statistics have to be those after the one before.
        """
        job, model, settings = self.job, self.model, self.job.settings
        model.set_submodule(models.head_name(model), nn.Identity())
        model.requires_grad_(False).to(job.device).to(memory_format=job.layout)
        feed, forward, size = job.feed(), job.forward(model), settings.batch_size
        moving, prepared = settings.frozen_batchnorm == "train", None
        for epoch in range(first, settings.epochs):
            with torch.inference_mode():
                models.train_mode(model, moving)
                job.begin(epoch)
                batches = feed.train(*job.plan(epoch), max(1, chunk // size))
                train = torch.cat(
                    [per_batch(model, forward, images, size) for images, _ in batches]
                )
                model.eval()
                if moving or prepared is None:
                    prepared = torch.cat([forward(images) for images in feed.prepared()])
            # Clones outside inference mode are ordinary tensors, which a head can be trained on.
            yield train.clone(), prepared.clone()

    def kept(self, folder: Path, key: str) -> Iterator[Features]:
        """What `compute` gives, each epoch read from its file in the folder, or stored there. So an
        interrupted pass resumes after its last complete epoch.

        A file of another key is out of date and is overwritten. Of several processes one computes
        a pass, and the others wait for it.
        """
        epochs = range(self.job.settings.epochs)
        files = [Checkpoint(folder / f"{epoch}.pt", key, every=0) for epoch in epochs]
        buffers: list[torch.Tensor] = []
        for epoch, file in enumerate(files):
            if not (saved := file.load(self.job.device)):
                with locked(folder / ".lock", f"features of {folder.name}") as waited:
                    # Another process may have stored it while this one waited.
                    if not waited or not (saved := file.load(self.job.device)):
                        yield from self._stored(files[epoch:], epoch, buffers)
                        return
            buffers = saved["buffers"]
            yield saved["features"]

    def _stored(
        self, files: list[Checkpoint], first: int, buffers: list[torch.Tensor]
    ) -> Iterator[Features]:
        """The epochs from `first` on, each stored as it comes. `buffers`: as the one before left
        them."""
        if not first:  # an older pass may have had more epochs
            for old in files[0].path.parent.glob("[!.]*"):
                old.unlink()
        for buffer, value in zip(self.model.buffers(), buffers, strict=False):
            buffer.copy_(value)
        for file, features in zip(files, self.compute(first=first), strict=True):
            file.save({"features": features, "buffers": list(self.model.buffers())})
            yield features


def per_batch(model: nn.Module, forward: Forward, images: torch.Tensor, size: int) -> torch.Tensor:
    """The model's output with batch norm over each batch of that size apart; a short last batch
    goes through by itself. forward: calls the model."""
    layers = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    if any(type(layer) is not nn.BatchNorm2d for layer in layers):  # which do more than normalise
        return torch.cat([forward(batch) for batch in images.split(size)])
    whole, outputs = len(images) - len(images) % size, []
    if whole:
        with grouped_batchnorm(model, whole // size):
            outputs.append(forward(images[:whole]))
    if whole < len(images):
        outputs.append(forward(images[whole:]))
    return torch.cat(outputs)


@contextmanager
def grouped_batchnorm(model: nn.Module, groups: int) -> Iterator[None]:
    """Within the block, a model in train() normalises each of `groups` equal parts of its input by
    that part's own statistics (as in ghost batch norm, Hoffer 2017), and folds them into the
    running statistics in order: what as many single forwards would have done."""
    layers: list[Any] = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d) and m.training]
    for layer in layers:
        layer.forward = partial(_grouped, layer, groups=groups)
    try:
        yield
    finally:
        for layer in layers:
            del layer.forward


def _grouped(layer: Any, x: torch.Tensor, groups: int) -> torch.Tensor:
    """`layer`: an nn.BatchNorm2d that keeps running statistics, as its type does not say."""
    n, channels, height, width = x.shape
    # Sums in bfloat16 would be too coarse for statistics.
    parts = x.float().view(groups, n // groups, channels, height, width)
    var, mean = torch.var_mean(parts, dim=(1, 3, 4), correction=0, keepdim=True)
    scale = layer.weight.view(1, 1, channels, 1, 1) * torch.rsqrt(var + layer.eps)
    shift = layer.bias.view(1, 1, channels, 1, 1) - mean * scale
    count = parts[0, :, 0].numel()
    _fold(layer.running_mean, mean.view(groups, channels), layer.momentum)
    _fold(layer.running_var, var.view(groups, channels) * (count / (count - 1)), layer.momentum)
    layer.num_batches_tracked += groups
    return torch.addcmul(shift, parts, scale).view_as(x).to(x.dtype)


def _fold(running: torch.Tensor, steps: torch.Tensor, momentum: float) -> None:
    ages = torch.arange(len(steps) - 1, -1, -1, device=steps.device, dtype=torch.float64)
    weights = (momentum * (1 - momentum) ** ages).to(steps.dtype)
    running.mul_((1 - momentum) ** len(steps)).add_(weights @ steps)
