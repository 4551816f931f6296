"""One pass of a frozen backbone over the epochs, for every head that is trained on it.

A frozen backbone never sees its head: its outputs depend on the images, the crops, the batches
(through batch norm, whose statistics keep moving in the report's frozen runs) and the starting
weights. So one pass serves every learning rate, and is kept in a file.
"""

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import nn

from transfer import files
from transfer.training import models
from transfer.training.engine import Features, Protocol
from transfer.training.feed import CHUNK, Feed
from transfer.training.packed import Packed


def compute(
    model: nn.Module,
    data: Packed,
    protocol: Protocol,
    device: torch.device,
    chunk: int = CHUNK,
) -> Iterator[Features]:
    """Each epoch's features [n, d] of the training images, batch by batch, and [v + m, d] of the
    validation and test images. The model's head is replaced; its batch-norm statistics move as in
    training.

    About `chunk` images go through the network at once, with batch norm still per batch.
    """
    setattr(model, models.HEAD, nn.Identity())
    model.to(device, memory_format=protocol.layout)
    feed, forward = Feed(data, device, protocol.layout), protocol.forward(model)
    group = max(1, chunk // protocol.batch_size)
    moving, prepared = protocol.frozen_batchnorm == "train", None
    for epoch in range(protocol.epochs):
        with torch.inference_mode():
            model.train(moving)
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


def fingerprint(
    index: Path, images: str | int, checkpoint: Path, backbone: str, protocol: Protocol, device: str
) -> str:
    """A hash of everything a pass depends on; the learning rate and its schedule are not."""
    heads = ("lr", "lr_step", "lr_gamma")
    depends = {
        "protocol": {k: v for k, v in asdict(protocol).items() if k not in heads},
        "images": images,
        "backbone": backbone,
        "device": device,
        "torch": torch.__version__,
        "files": [hashlib.sha256(path.read_bytes()).hexdigest() for path in (index, checkpoint)],
        "code": [
            hashlib.sha256(path.read_bytes()).hexdigest()
            for path in sorted(Path(__file__).parent.glob("*.py"))
            if path.stem in ("augment", "engine", "features", "feed", "models", "packed")
        ],
    }
    return hashlib.sha256(json.dumps(depends, sort_keys=True).encode()).hexdigest()


def kept(
    folder: Path,
    name: str,
    key: str,
    epochs: Iterator[Features],
    protocol: Protocol,
    data: Packed,
    device: torch.device,
) -> Iterator[Features]:
    """The pass stored as folder/name-key.npy, or `epochs`, stored there once the last is reached.

    A stored pass of the same name and another key is out of date, and makes room.
    """
    path = folder / f"{name}-{key[:16]}.npy"
    if path.is_file():
        for both in np.load(path, mmap_mode="r"):
            tensor = torch.from_numpy(both.copy()).to(device)
            yield tensor[: len(data.train)], tensor[len(data.train) :]
        return
    with files.replacing(path) as part:
        out = None
        for epoch, (train, prepared) in enumerate(epochs):
            both = torch.cat([train, prepared]).cpu().numpy()
            if out is None:
                shape = (protocol.epochs, *both.shape)
                out = np.lib.format.open_memmap(part, "w+", dtype=np.float32, shape=shape)
            out[epoch] = both
            yield train, prepared
        out.flush()
        for old in folder.glob(f"{name}-*.npy"):
            old.unlink()
