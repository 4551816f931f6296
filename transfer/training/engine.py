"""The report's training protocol (section 3.3)."""

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from transfer.training import augment
from transfer.training.checkpoint import Checkpoint
from transfer.training.feed import Feed
from transfer.training.packed import Packed
from transfer.training.step import Adam, Forward, Recorded, Step, Totals


@dataclass(frozen=True)
class Epoch:
    """One row of a curve. Losses are mean cross entropies in nats, accuracies fractions; None where
    there are no validation images."""

    epoch: int
    lr: float
    train_loss: float
    train_accuracy: float
    validation_loss: float | None
    validation_accuracy: float | None
    test_loss: float
    test_accuracy: float


class Outcome(NamedTuple):
    """An epoch and what the network then made of the prepared images: float32 [n, classes] for
    the `validation` part, which may have none, and the `test` part."""

    epoch: Epoch
    outputs: dict[str, torch.Tensor]


@dataclass(frozen=True)
class Protocol:
    """Adam at `lr`, multiplied by `lr_gamma` every `lr_step` epochs; cross entropy; shuffled."""

    lr: float
    epochs: int
    batch_size: int
    lr_step: int
    lr_gamma: float
    seed: int
    frozen_batchnorm: str
    memory_format: str
    precision: str
    cuda_graph: bool

    def plan(self, data: Packed, epoch: int) -> tuple[list[np.ndarray], augment.Crops]:
        """The epoch's batches (indices of training images) and crops, from (seed, epoch) alone."""
        rng = np.random.default_rng([self.seed, epoch])
        order = rng.permutation(len(data.train))
        crops = augment.random_crops(data.train.height, data.train.width, rng)
        starts = range(0, len(order), self.batch_size)
        return [order[i : i + self.batch_size] for i in starts], crops

    def forward(self, module: nn.Module) -> Forward:
        """The module as called: float32 out, and bfloat16 inside, where that is safe, if asked."""

        def call(inputs: torch.Tensor) -> torch.Tensor:
            reduced = self.precision == "bfloat16"
            with torch.autocast(inputs.device.type, torch.bfloat16, enabled=reduced):
                return module(inputs).float()

        return call

    def optimizer(self, module: nn.Module) -> Adam:
        return Adam(module.parameters(), self.lr, self.lr_step, self.lr_gamma)

    @property
    def layout(self) -> torch.memory_format:
        channels_last = self.memory_format == "channels_last"
        return torch.channels_last if channels_last else torch.contiguous_format


Features = tuple[torch.Tensor, torch.Tensor]


def pick_device(name: str) -> torch.device:
    """'auto' is the GPU where there is one. Raises ValueError when 'cuda' is asked for in vain."""
    available = torch.cuda.is_available()
    # The same seed gives the same run: cuDNN's fastest kernels would not.
    torch.backends.cudnn.deterministic = True
    if name == "cuda" and not available:
        raise ValueError("no GPU was found; set it to auto or cpu")
    return torch.device("cuda" if available and name != "cpu" else "cpu")


def finetune(
    model: nn.Module,
    data: Packed,
    protocol: Protocol,
    device: torch.device,
    checkpoint: Checkpoint | None = None,
) -> Iterator[Outcome]:
    """Train the whole model in place, an epoch at a time; from where the checkpoint left it.

    An epoch's order and crops come from its number and the seed alone, so weights, batch-norm
    statistics and Adam's moments are all there is to save.
    """
    model.to(device, memory_format=protocol.layout)
    feed, forward = Feed(data, device, protocol.layout), protocol.forward(model)
    optimizer, totals = protocol.optimizer(model), Totals(device)
    step = Step(forward, optimizer, totals)
    if protocol.cuda_graph and device.type == "cuda":
        step = Recorded(step, model.buffers())
    state = [*optimizer.state, *model.buffers()]
    outcomes = _resume(checkpoint, state, optimizer, device) if checkpoint else []
    yield from list(outcomes)
    for epoch in range(len(outcomes), protocol.epochs):
        model.train()
        lr = optimizer.lr
        for images, labels in feed.train(*protocol.plan(data, epoch)):
            step(images, labels)
        optimizer.end_epoch()
        model.eval()
        with torch.inference_mode():
            outputs = torch.cat([forward(images) for images in feed.prepared()])
        outcomes.append(_outcome(epoch, lr, totals, outputs, data))
        if checkpoint:
            checkpoint.save(partial(_progress, outcomes, state))
        yield outcomes[-1]


def _progress(outcomes: list[Outcome], state: list[torch.Tensor]) -> dict[str, Any]:
    return {
        "rows": [asdict(outcome.epoch) for outcome in outcomes],
        "outputs": [outcome.outputs for outcome in outcomes],
        "state": [tensor.detach() for tensor in state],
    }


@torch.no_grad()
def _resume(
    checkpoint: Checkpoint, state: list[torch.Tensor], optimizer: Adam, device: torch.device
) -> list[Outcome]:
    found = checkpoint.load(device)
    if not found:
        return []
    for tensor, value in zip(state, found["state"], strict=True):
        tensor.copy_(value)
    for _ in found["rows"]:
        optimizer.end_epoch()
    return [
        Outcome(Epoch(**row), outputs)
        for row, outputs in zip(found["rows"], found["outputs"], strict=True)
    ]


def probe(
    head: nn.Module, epochs: Iterable[Features], data: Packed, protocol: Protocol
) -> Iterator[Outcome]:
    """Train a head alone on each epoch's backbone features.

    The features of an epoch are those of the training images in the order of its batches,
    [n, d], and of the validation and test images, [v + m, d]: a frozen backbone's output, its
    batch-norm statistics included, does not depend on the head, so this is the frozen run itself.
    """
    device = next(head.parameters()).device
    optimizer, totals = protocol.optimizer(head), Totals(device)
    step = Step(head, optimizer, totals)
    for epoch, (train_features, prepared_features) in enumerate(epochs):
        lr = optimizer.lr
        order = np.concatenate(protocol.plan(data, epoch)[0])
        labels = torch.from_numpy(data.train.label[order]).to(device)
        size = protocol.batch_size
        for batch in zip(train_features.split(size), labels.split(size), strict=True):
            step(*batch)
        optimizer.end_epoch()
        with torch.inference_mode():
            outputs = head(prepared_features)
        yield _outcome(epoch, lr, totals, outputs, data)


def _outcome(epoch: int, lr: float, totals: Totals, outputs: torch.Tensor, data: Packed) -> Outcome:
    validation, test = outputs.split([len(data.validation), len(data.test)])
    row = Epoch(
        epoch,
        lr,
        *totals.take(len(data.train)),
        *_means(validation, data.validation.label),
        *_means(test, data.test.label),
    )
    return Outcome(row, {"validation": validation, "test": test})


def _means(outputs: torch.Tensor, label: np.ndarray) -> tuple[float, float] | tuple[None, None]:
    if not len(label):
        return None, None
    labels, totals = torch.from_numpy(label).to(outputs.device), Totals(outputs.device)
    totals.add(outputs, labels, cross_entropy(outputs, labels))
    return totals.take(len(labels))
