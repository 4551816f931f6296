"""Training by the report's protocol (section 3.3), or by a recipe that changes it."""

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from transfer.images.packed import Packed
from transfer.params import Component
from transfer.training import augment, components, models
from transfer.training.checkpoint import Checkpoint
from transfer.training.feed import Feed
from transfer.training.record import Epoch
from transfer.training.step import Adam, Forward, Loss, Optimizer, Recorded, Step, Totals


class Outcome(NamedTuple):
    """An epoch and what the network then made of the prepared images: float32 [n, classes] for
    the `validation` part, which may have none, and the `test` part."""

    epoch: Epoch
    outputs: dict[str, torch.Tensor]


@dataclass(frozen=True)
class Protocol:
    """As transfer.params.Train has it, with the report's parts where none are given."""

    lr: float
    epochs: int
    batch_size: int
    schedule: Component
    seed: int
    optimizer: Component = Component("Adam")
    loss: Component = Component("CrossEntropyLoss")
    activation: Component = Component(components.OWN)
    pooling: Component = Component(components.OWN)
    augmentation: tuple[Component, ...] = components.REPORT
    probe_epochs: int = 1
    frozen_batchnorm: str = "train"
    memory_format: str = "contiguous"
    precision: str = "default"
    cuda_graph: bool = False

    def plan(self, data: Packed, epoch: int) -> tuple[list[np.ndarray], augment.Crops]:
        """The epoch's batches (indices of training images) and crops, from (seed, epoch) alone."""
        rng = np.random.default_rng([self.seed, epoch])
        order = rng.permutation(len(data.train))
        crops = augment.random_crops(data.train.height, data.train.width, rng, self.augmentation)
        starts = range(0, len(order), self.batch_size)
        return [order[i : i + self.batch_size] for i in starts], crops

    def build(self, backbone: str, classes: int, checkpoint: str | Path) -> nn.Module:
        """The network to train. Raises UserError as models.build does, and ValueError as
        transfer.training.components does."""
        model = models.build(backbone, classes, checkpoint, self.seed)
        components.replace_activation(model, self.activation)
        components.replace_pooling(model, self.pooling)
        return model

    def backbone_only(self) -> "Protocol":
        """The same for whatever a frozen backbone never sees."""
        report = {f.name: f.default for f in fields(self) if f.name in ("optimizer", "loss")}
        return replace(self, lr=0, schedule=Component(""), probe_epochs=1, **report)

    def begin(self, epoch: int) -> None:
        """Seed what a network itself draws (dropout, stochastic depth), by (seed, epoch) alone."""
        torch.manual_seed(int(np.random.default_rng([self.seed, epoch, 1]).integers(2**31)))

    def rates(self) -> list[float]:
        """The learning rate of each epoch."""
        return components.rates(self.schedule, self.lr, self.epochs)

    def forward(self, module: nn.Module) -> Forward:
        """The module as called: float32 out, and bfloat16 inside, where that is safe, if asked."""

        def call(inputs: torch.Tensor) -> torch.Tensor:
            reduced = self.precision == "bfloat16"
            with torch.autocast(inputs.device.type, torch.bfloat16, enabled=reduced):
                return module(inputs).float()

        return call

    def feed(self, data: Packed, device: torch.device) -> Feed:
        return Feed(data, device, self.layout, components.transforms(self.augmentation))

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
    freezing: str = "finetuned",
) -> Iterator[Outcome]:
    """Train the model in place, an epoch at a time; from where the checkpoint left it.

    An epoch's order and crops come from its number and the seed alone, so the model's state and the
    optimiser's are all there is to save.
    """
    model.to(device, memory_format=protocol.layout)
    feed, forward = protocol.feed(data, device), protocol.forward(model)
    totals, rates, loss = Totals(device), protocol.rates(), components.loss(protocol.loss)
    found = checkpoint.load(device) if checkpoint else None
    outcomes = _outcomes(found) if found else []
    trained, step = None, None
    if found:
        trained = phase(freezing, protocol.probe_epochs, len(outcomes) - 1)
        step = _step(model, trained, forward, loss, totals, protocol, device)
        model.load_state_dict(found["model"])
        step.optimizer.load_state_dict(found["optimizer"])
    yield from list(outcomes)
    for epoch in range(len(outcomes), protocol.epochs):
        if trained != (trained := phase(freezing, protocol.probe_epochs, epoch)):
            step = _step(model, trained, forward, loss, totals, protocol, device)
        models.train_mode(model, protocol.frozen_batchnorm == "train")
        step.optimizer.set_rate(rates[epoch])
        protocol.begin(epoch)
        for images, labels in feed.train(*protocol.plan(data, epoch)):
            step(images, labels)
        model.eval()
        with torch.inference_mode():
            outputs = torch.cat([forward(images) for images in feed.prepared()])
        outcomes.append(_outcome(epoch, rates[epoch], totals, loss, outputs, data))
        if checkpoint:
            checkpoint.save(partial(_progress, outcomes, model, step.optimizer))
        yield outcomes[-1]


def phase(freezing: str, probe_epochs: int, epoch: int) -> str:
    """What is trained in the epoch."""
    if freezing == "lpft":
        return "frozen" if epoch < probe_epochs else "finetuned"
    return freezing


def _step(
    model: nn.Module,
    what: str,
    forward: Forward,
    loss: Loss,
    totals: Totals,
    protocol: Protocol,
    device: torch.device,
) -> Step | Recorded:
    models.freeze(model, what)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = components.optimizer(protocol.optimizer, trained, protocol.lr)
    step = Step(forward, loss, optimizer, totals)
    if protocol.cuda_graph and device.type == "cuda" and isinstance(optimizer, Adam):
        return Recorded(step, model.buffers())
    return step


def _progress(outcomes: list[Outcome], model: nn.Module, optimizer: Optimizer) -> dict[str, Any]:
    return {
        "rows": [asdict(outcome.epoch) for outcome in outcomes],
        "outputs": [outcome.outputs for outcome in outcomes],
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
    }


def _outcomes(found: dict[str, Any]) -> list[Outcome]:
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
    totals, rates, loss = Totals(device), protocol.rates(), components.loss(protocol.loss)
    optimizer = components.optimizer(protocol.optimizer, list(head.parameters()), protocol.lr)
    step = Step(head, loss, optimizer, totals)
    for epoch, (train_features, prepared_features) in enumerate(epochs):
        optimizer.set_rate(rates[epoch])
        order = np.concatenate(protocol.plan(data, epoch)[0])
        labels = torch.from_numpy(data.train.label[order]).to(device)
        size = protocol.batch_size
        for batch in zip(train_features.split(size), labels.split(size), strict=True):
            step(*batch)
        with torch.inference_mode():
            outputs = head(prepared_features)
        yield _outcome(epoch, rates[epoch], totals, loss, outputs, data)


def _outcome(
    epoch: int, lr: float, totals: Totals, loss: Loss, outputs: torch.Tensor, data: Packed
) -> Outcome:
    validation, test = outputs.split([len(data.validation), len(data.test)])
    row = Epoch(
        epoch,
        lr,
        *totals.take(len(data.train)),
        *_means(validation, data.validation.label, loss),
        *_means(test, data.test.label, loss),
    )
    return Outcome(row, {"validation": validation, "test": test})


def _means(
    outputs: torch.Tensor, label: np.ndarray, loss: Loss
) -> tuple[float, float] | tuple[None, None]:
    if not len(label):
        return None, None
    labels, totals = torch.from_numpy(label).to(outputs.device), Totals(outputs.device)
    totals.add(outputs, labels, loss(outputs, labels))
    return totals.take(len(labels))
