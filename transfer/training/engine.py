"""Training by the paper's protocol (section 3.3), or by a recipe that changes it."""

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from transfer.cli import UserError
from transfer.images.packed import Packed
from transfer.params import Component
from transfer.training import augment, components, models
from transfer.training.average import Average
from transfer.training.checkpoint import Checkpoint
from transfer.training.feed import Feed
from transfer.training.record import Epoch
from transfer.training.step import Forward, Loss, Recorded, Step, Totals, set_rate

Features = tuple[torch.Tensor, torch.Tensor]
"""An epoch's backbone outputs, float32: [n, d] of the training images, in the order of its batches,
and [v + m, d] of the validation and test images."""


class EpochResult(NamedTuple):
    """An epoch and what the network then made of the prepared images: float32 [n, classes] for
    the `validation` part, which may have none, and the `test` part."""

    epoch: Epoch
    outputs: dict[str, torch.Tensor]


@dataclass(frozen=True)
class Protocol:
    """As transfer.params.Train has it, with the paper's parts where none are given."""

    lr: float
    epochs: int
    batch_size: int
    schedule: Component
    seed: int
    optimizer: Component = Component("Adam")
    loss: Component = Component("CrossEntropyLoss")
    class_weights: str = "none"
    activation: Component = Component(components.OWN)
    pooling: Component = Component(components.OWN)
    augmentation: tuple[Component, ...] = augment.PAPER
    warmup_epochs: int = 0
    layer_decay: float = 1.0
    clip_norm: float = 0.0
    average_epochs: int = 0
    probe_epochs: int = 1
    frozen_batchnorm: str = "train"
    memory_format: str = "contiguous"
    precision: str = "default"
    cuda_graph: bool = False

    def plan(self, data: Packed, epoch: int) -> tuple[list[np.ndarray], augment.Crops]:
        """The epoch's batches (indices of training images) and crops, from (seed, epoch) alone."""
        rng = np.random.default_rng([self.seed, epoch])
        order = rng.permutation(len(data.train))
        sides = data.train.height, data.train.width
        crops = augment.random_crops(*sides, rng, self.augmentation, data.share)
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
        """The same for all protocols that differ in what a frozen backbone never sees."""
        unseen = Component("")
        own = {"schedule": unseen, "optimizer": unseen, "loss": unseen, "class_weights": "none"}
        own |= {"lr": 0.0, "warmup_epochs": 0, "layer_decay": 1.0, "clip_norm": 0.0}
        own |= {"average_epochs": 0}
        return replace(self, probe_epochs=1, **own)  # type: ignore[arg-type]

    def begin(self, epoch: int) -> None:
        """Seed what a network itself draws (dropout, stochastic depth), by (seed, epoch) alone."""
        torch.manual_seed(int(np.random.default_rng([self.seed, epoch, 1]).integers(2**31)))

    def loss_of(self, data: Packed, device: torch.device) -> Loss:
        counts = data.train.count(data.classes)
        return components.loss(self.loss, self.class_weights, counts, device)

    @property
    def mixes(self) -> bool:
        """Whether images of a batch are blended, with their labels: then frozen backbones see other
        images for each head, too."""
        return any(one.name in components.MIXING for one in self.augmentation)

    def mix(self, data: Packed) -> components.Mix:
        return components.mix(self.augmentation, len(data.classes))

    def rates(self) -> list[float]:
        """The learning rate of each epoch."""
        return components.rates(self.schedule, self.lr, self.epochs, self.warmup_epochs)

    def forward(self, module: nn.Module) -> Forward:
        """The module as called: float32 out, and inside what autocast makes of it."""

        def call(inputs: torch.Tensor) -> torch.Tensor:
            with self.autocast(inputs.device):
                return module(inputs).float()

        return call

    def autocast(self, device: torch.device) -> torch.autocast:
        """The context that a network is called in: bfloat16 where that is safe, if asked for."""
        return torch.autocast(device.type, torch.bfloat16, enabled=self.precision == "bfloat16")

    def average(self, module: nn.Module) -> Average:
        return Average(module, self.epochs - self.average_epochs)

    def feed(self, data: Packed, device: torch.device) -> Feed:
        return Feed(data, device, self.layout, components.transforms(self.augmentation))

    @property
    def layout(self) -> torch.memory_format:
        channels_last = self.memory_format == "channels_last"
        return torch.channels_last if channels_last else torch.contiguous_format


def pick_device(name: str) -> torch.device:
    """'auto' is the GPU where there is one. Raises UserError when 'cuda' is asked for in vain."""
    available = torch.cuda.is_available()
    # The same seed gives the same run: cuDNN's fastest kernels would not.
    torch.backends.cudnn.deterministic = True
    if name == "cuda" and not available:
        raise UserError("params.yaml: train.device: no GPU was found; set it to auto or cpu")
    return torch.device("cuda" if available and name != "cpu" else "cpu")


def finetune(
    model: nn.Module,
    data: Packed,
    protocol: Protocol,
    device: torch.device,
    checkpoint: Checkpoint | None = None,
    freezing: str = "finetuned",
) -> Iterator[EpochResult]:
    """Train the model in place, an epoch at a time; from where the checkpoint left it.

    An epoch's order and crops come from its number and the seed alone, so the model's state, its
    average's and the optimiser's are all there is to save. After each epoch the model is what
    predicted in it.
    """
    models.adapt(model, freezing, protocol.seed)
    model.to(device).to(memory_format=protocol.layout)
    average, mix = protocol.average(model), protocol.mix(data)
    feed, forward, rates = protocol.feed(data, device), protocol.forward(model), protocol.rates()
    found = checkpoint.load(device) if checkpoint else None
    results = (
        [EpochResult(Epoch(**row), outputs) for row, outputs in found["results"]] if found else []
    )
    if found:
        average.load(found["weights"])
    yield from list(results)
    left = range(len(results), protocol.epochs)
    for trained, epochs in groupby(left, lambda e: phase(freezing, protocol.probe_epochs, e)):
        step = _step(model, trained, protocol, data, device)
        if found and found["trained"] == trained:
            step.optimizer.load_state_dict(found["optimizer"])
        for epoch in epochs:
            average.leave()
            models.train_mode(model, protocol.frozen_batchnorm == "train")
            set_rate(step.optimizer, rates[epoch])
            protocol.begin(epoch)
            for batch in feed.train(*protocol.plan(data, epoch)):
                step(*mix(*batch))
            average.enter(epoch)
            model.eval()
            with torch.inference_mode():
                outputs = torch.cat([forward(images) for images in feed.prepared()])
            results.append(_result(epoch, rates[epoch], step, outputs, data))
            if checkpoint:
                checkpoint.save(
                    {
                        "results": [(asdict(row), outputs) for row, outputs in results],
                        "weights": average.state(),
                        "trained": trained,
                        "optimizer": step.optimizer.state_dict(),
                    }
                )
            yield results[-1]


def phase(freezing: str, probe_epochs: int, epoch: int) -> str:
    """What is trained in the epoch."""
    if freezing == "lpft":
        return "frozen" if epoch < probe_epochs else "finetuned"
    return freezing


def _step(
    model: nn.Module, trained: str, protocol: Protocol, data: Packed, device: torch.device
) -> Step:
    models.freeze(model, trained)
    groups = models.groups(model, protocol.layer_decay)
    optimizer = components.optimizer(protocol.optimizer, groups, protocol.lr)
    forward, loss = protocol.forward(model), protocol.loss_of(data, device)
    parts = forward, loss, optimizer, Totals(device), protocol.clip_norm
    if protocol.cuda_graph and optimizer.defaults.get("capturable"):
        return Recorded(*parts, list(model.buffers()))
    return Step(*parts)


def probe(
    head: nn.Module, epochs: Iterable[Features], data: Packed, protocol: Protocol
) -> Iterator[EpochResult]:
    """Train a head alone on each epoch's backbone features.

    A frozen backbone's output, its batch-norm statistics included, does not depend on the head, so
    this is the frozen run itself.
    """
    device, rates = next(head.parameters()).device, protocol.rates()
    optimizer = components.optimizer(protocol.optimizer, head.parameters(), protocol.lr)
    loss = protocol.loss_of(data, device)
    step = Step(head, loss, optimizer, Totals(device), protocol.clip_norm)
    average = protocol.average(head)
    for epoch, (train_features, prepared_features) in enumerate(epochs):
        average.leave()
        set_rate(optimizer, rates[epoch])
        order = np.concatenate(protocol.plan(data, epoch)[0])
        labels = torch.from_numpy(data.train.label[order]).to(device)
        size = protocol.batch_size
        for batch in zip(train_features.split(size), labels.split(size), strict=True):
            step(*batch)
        average.enter(epoch)
        with torch.inference_mode():
            outputs = head(prepared_features)
        yield _result(epoch, rates[epoch], step, outputs, data)


def _result(epoch: int, lr: float, step: Step, outputs: torch.Tensor, data: Packed) -> EpochResult:
    """`outputs`: of the validation and test images, [v + m, classes]."""
    validation, test = outputs.split([len(data.validation), len(data.test)])
    row = Epoch(
        epoch,
        lr,
        *step.totals.take(len(data.train)),
        *_means(validation, data.validation.label, step.loss),
        *_means(test, data.test.label, step.loss),
    )
    return EpochResult(row, {"validation": validation, "test": test})


def _means(
    outputs: torch.Tensor, label: np.ndarray, loss: Loss
) -> tuple[float, float] | tuple[None, None]:
    if not len(label):
        return None, None
    labels, totals = torch.from_numpy(label).to(outputs.device), Totals(outputs.device)
    totals.add(outputs, labels, loss(outputs, labels))
    return totals.take(len(labels))
