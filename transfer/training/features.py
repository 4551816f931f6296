"""One pass of a frozen backbone over the epochs, for every head that is trained on it.

A frozen backbone never sees its head: its outputs depend on the images, the crops, the batches
(through batch norm, whose statistics keep moving in the report's frozen runs) and the starting
weights. So one pass serves every learning rate, and is kept in a file.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import nn

from transfer.images.packed import Packed
from transfer.training import models
from transfer.training.checkpoint import Checkpoint, alone
from transfer.training.engine import Features, Protocol
from transfer.training.feed import CHUNK


def compute(
    model: nn.Module,
    data: Packed,
    protocol: Protocol,
    device: torch.device,
    chunk: int = CHUNK,
    first: int = 0,
) -> Iterator[Features]:
    """Each epoch's features [n, d] of the training images, batch by batch, and [v + m, d] of the
    validation and test images. The model's head is replaced; its batch-norm statistics move as in
    training.

    About `chunk` images go through the network at once, with batch norm still per batch. Starts at
    epoch `first`, for which the statistics have to be those after the one before.
    """
    models.take_head(model)
    model.to(device, memory_format=protocol.layout)
    feed, forward = protocol.feed(data, device), protocol.forward(model)
    group = max(1, chunk // protocol.batch_size)
    moving, prepared = protocol.frozen_batchnorm == "train", None
    for epoch in range(first, protocol.epochs):
        with torch.inference_mode():
            model.train(moving)
            protocol.begin(epoch)
            batches = feed.train(*protocol.plan(data, epoch), group)
            train = torch.cat([per_batch(model, images, protocol) for images, _ in batches])
            model.eval()
            if moving or prepared is None:
                prepared = torch.cat([forward(images) for images in feed.prepared()])
        # A clone outside inference mode is an ordinary tensor, which a head can be trained on.
        yield train.clone(), prepared.clone()


def per_batch(model: nn.Module, images: torch.Tensor, protocol: Protocol) -> torch.Tensor:
    """The model's output with batch norm over each batch of the protocol's size apart; a short last
    batch goes through by itself."""
    forward, outputs = protocol.forward(model), []
    whole = len(images) - len(images) % protocol.batch_size
    if whole:
        with grouped_batchnorm(model, whole // protocol.batch_size):
            outputs.append(forward(images[:whole]))
    if whole < len(images):
        outputs.append(forward(images[whole:]))
    return torch.cat(outputs)


@contextmanager
def grouped_batchnorm(model: nn.Module, groups: int) -> Iterator[None]:
    """Within the block, a model in train() normalises each of `groups` equal parts of its input by
    that part's own statistics (as in ghost batch norm, Hoffer 2017), and folds them into the
    running statistics in order: what as many single forwards would have done."""
    layers = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d) and m.training]
    for layer in layers:
        layer.forward = partial(_grouped, layer, groups=groups)
    try:
        yield
    finally:
        for layer in layers:
            del layer.forward


def _grouped(layer: nn.BatchNorm2d, x: torch.Tensor, groups: int) -> torch.Tensor:
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


def kept(
    folder: Path,
    name: str,
    key: str,
    model: nn.Module,
    data: Packed,
    protocol: Protocol,
    device: torch.device,
) -> Iterator[Features]:
    """What `compute` gives, from folder/name-key.npy, or stored there once the last epoch is
    reached. A pass that was cut short goes on after its last whole epoch.

    A stored pass of the same name and another key is out of date, and makes room. Of several
    processes one computes a pass, and the others wait for it.
    """
    path = folder / f"{name}-{key[:16]}.npy"
    with alone(folder / f".{name}.lock", f"features of {name}"):
        if not path.is_file():
            yield from _stored(path, key, model, data, protocol, device)
            for old in folder.glob(f"{name}-*"):
                if old != path:
                    old.unlink()
            return
    for both in np.load(path, mmap_mode="r"):
        yield _parts(both, data, device)


def _stored(
    path: Path,
    key: str,
    model: nn.Module,
    data: Packed,
    protocol: Protocol,
    device: torch.device,
) -> Iterator[Features]:
    part = path.with_suffix(".part.npy")
    progress = Checkpoint(path.with_suffix(".part.pt"), key, every=0)
    images = len(data.train) + len(data.validation) + len(data.test)
    shape = (protocol.epochs, images, models.head(model).in_features)
    found = progress.load(device) if _is_array(part, shape) else None
    done = found["done"] if found else 0
    for buffer, value in zip(model.buffers(), found["buffers"] if found else (), strict=False):
        buffer.copy_(value)
    out = np.lib.format.open_memmap(part, "r+" if done else "w+", dtype=np.float32, shape=shape)
    for both in out[:done]:
        yield _parts(both, data, device)
    for epoch, features in enumerate(compute(model, data, protocol, device, first=done), done):
        out[epoch] = torch.cat(features).cpu().numpy()
        out.flush()
        state = {"done": epoch + 1, "buffers": list(model.buffers())}
        progress.save(lambda state=state: state)
        yield features
    os.replace(part, path)
    progress.remove()


def _is_array(path: Path, shape: tuple[int, ...]) -> bool:
    try:
        return np.load(path, mmap_mode="r").shape == shape
    except (OSError, ValueError):
        return False


def _parts(both: np.ndarray, data: Packed, device: torch.device) -> Features:
    tensor = torch.from_numpy(both.copy()).to(device)
    return tensor[: len(data.train)], tensor[len(data.train) :]
