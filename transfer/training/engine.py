"""Training by the paper's protocol (section 3.3), or by a recipe that changes it."""

import io
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from transfer import files
from transfer.cli import UserError
from transfer.images.packed import PARTS, Packed
from transfer.params import Train
from transfer.runs import Run
from transfer.training import components, loader, models
from transfer.training.record import Epoch
from transfer.training.step import Average, Forward, Loss, Recorded, Step, Totals, set_rate

Features = tuple[torch.Tensor, torch.Tensor]
"""An epoch's backbone outputs, float32: [n, d] of the training images, in the order of its batches,
and [v + m, d] of the validation and test images."""
LAYOUTS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}


@dataclass(frozen=True)
class Job:
    """A run and all that its training takes.

    settings: train, with what the run's recipe changes. arithmetic: what the device computes with,
    as in Record.arithmetic.
    """

    run: Run
    settings: Train
    data: Packed
    device: torch.device
    arithmetic: str = ""

    @property
    def images(self) -> int:
        """How many an epoch takes, including those that are only predicted."""
        return sum(len(getattr(self.data, part)) for part in PARTS)

    def build(self, checkpoint: str | Path) -> nn.Module:
        """The network to train. Raises UserError as models.build does, and ValueError as
        transfer.training.components does."""
        model = models.build(self.run.backbone, len(self.data.classes), checkpoint, self.run.seed)
        components.replace_activation(model, self.settings.activation)
        components.replace_pooling(model, self.settings.pooling)
        return model

    def rates(self) -> list[float]:
        """The learning rate of each epoch, from the run's and the schedule."""
        train = self.settings
        return components.rates(train.schedule, self.run.lr, train.epochs, train.warmup_epochs)

    def plan(self, epoch: int) -> tuple[list[np.ndarray], loader.Crops]:
        """The epoch's batches (indices of training images) and crops, from (seed, epoch) alone."""
        data, size = self.data, self.settings.batch_size
        rng = np.random.default_rng([self.run.seed, epoch])
        order = rng.permutation(len(data.train))
        sides = data.train.height, data.train.width
        crops = loader.random_crops(*sides, rng, self.settings.augmentation, data.share)
        return [order[i : i + size] for i in range(0, len(order), size)], crops

    def begin(self, epoch: int) -> None:
        """Seed what a network itself draws (dropout, stochastic depth), by (seed, epoch) alone."""
        rng = np.random.default_rng([self.run.seed, epoch, 1])
        torch.manual_seed(int(rng.integers(2**31)))

    def loss(self) -> Loss:
        counts, train = self.data.train.count(self.data.classes), self.settings
        return components.loss(train.loss, train.class_weights, counts, self.device)

    @property
    def blends(self) -> bool:
        """Whether images of a batch are blended with each other, and their labels too. Then a
        frozen backbone's outputs serve one run alone."""
        names = {component.name for component in self.settings.augmentation}
        return not names.isdisjoint(components.MIXING)

    def feed(self) -> loader.Feed:
        transforms = components.transforms(self.settings.augmentation)
        return loader.Feed(self.data, self.device, self.layout, transforms)

    @property
    def layout(self) -> torch.memory_format:
        return LAYOUTS[self.settings.memory_format]

    def average(self, module: nn.Module) -> Average:
        return Average(module, self.settings.epochs - self.settings.average_epochs)

    def forward(self, module: nn.Module) -> Forward:
        return forward(module, self.settings.precision)


def forward(module: nn.Module, precision: str) -> Forward:
    """The module as called: float32 out, and inside what autocast makes of it."""

    def call(inputs: torch.Tensor) -> torch.Tensor:
        with autocast(inputs.device, precision):
            return module(inputs).float()

    return call


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """The context to call a network in: bfloat16 where that is safe, if it is asked for."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16")


@dataclass(frozen=True)
class EpochResult:
    """An epoch, and what the network then made of the prepared images: float32 [n, classes] for
    the `validation` part, which may be empty, and the `test` part."""

    epoch: Epoch
    outputs: dict[str, torch.Tensor]


class Checkpoint:
    """A run's state in a file that DVC does not track, from which a killed run resumes.

    key: a hash of what the state depends on; a state of another key is not loaded. every: least
    seconds between writes, since writing ResNet-50 and Adam's moments takes a good part of an epoch
    on a GPU.
    """

    def __init__(self, path: str | Path, key: str, every: float = 60.0) -> None:
        self.path, self.key, self.every = Path(path), key, every
        self.saved = time.monotonic()

    def load(self, device: torch.device) -> dict[str, Any] | None:
        """The last saved state, with tensors on `device`. None where there is none, and where the
        file cannot be used, of which it prints a line on stderr."""
        if not self.path.is_file():
            return None
        try:
            saved = torch.load(self.path, map_location=device, weights_only=True)
            if saved["key"] == self.key:
                return saved["state"]
            why = "is of other settings, data or code, or another device"
        except Exception:  # what a torn file raises depends on where it is torn
            why = "is not whole"
        print(f"{self.path} {why}; starting anew", file=sys.stderr, flush=True)
        return None

    def save(self, state: dict[str, Any]) -> None:
        """Write it (tensors, numbers, strings, and lists, tuples and dicts of these), unless the
        last write was less than `every` seconds ago."""
        if time.monotonic() - self.saved < self.every:
            return
        write(self.path, {"key": self.key, "state": state})
        self.saved = time.monotonic()

    def remove(self) -> None:
        self.path.unlink(missing_ok=True)


def write(path: str | Path, value: dict[str, Any]) -> None:
    """torch.save to a file that is whole or absent. Raises OSError where the disk is full; PyTorch,
    writing by itself, would only report an unexpected position."""
    stream = io.BytesIO()
    torch.save(value, stream)
    with files.replacing(path) as part:
        part.write_bytes(stream.getbuffer())


def pick_device(name: str) -> torch.device:
    """'auto' is the GPU where there is one. Raises UserError for 'cuda' where there is none."""
    available = torch.cuda.is_available()
    # The same seed gives the same run: cuDNN's fastest kernels would not.
    torch.backends.cudnn.deterministic = True
    if name == "cuda" and not available:
        raise UserError("params.yaml: train.device: no GPU was found; set it to auto or cpu")
    return torch.device("cuda" if available and name != "cpu" else "cpu")


def finetune(
    job: Job, model: nn.Module, checkpoint: Checkpoint | None = None
) -> Iterator[EpochResult]:
    """Train the model in place, an epoch at a time; from where the checkpoint left it.

    An epoch's order, crops and learning rate come from its number and the run alone, so the model's
    state, its average's and the optimiser's are all there is to save. After each epoch the model
    holds the weights that predicted in it.
    """
    settings, freezing = job.settings, job.run.freezing
    models.adapt(model, freezing, job.run.seed)
    model.to(job.device).to(memory_format=job.layout)
    average, feed, forward, rates = job.average(model), job.feed(), job.forward(model), job.rates()
    mix = components.mix(settings.augmentation, len(job.data.classes))
    saved = checkpoint.load(job.device) if checkpoint else None
    results: list[EpochResult] = []
    if saved:
        results = [EpochResult(Epoch(**row), outputs) for row, outputs in saved["results"]]
        average.load(saved["weights"])
    yield from list(results)
    left = range(len(results), settings.epochs)
    for trained, epochs in groupby(left, lambda e: phase(freezing, settings.probe_epochs, e)):
        step = _step(job, model, trained)
        if saved and saved["trained"] == trained:
            step.optimizer.load_state_dict(saved["optimizer"])
        for epoch in epochs:
            average.leave()
            models.train_mode(model, settings.frozen_batchnorm == "train")
            set_rate(step.optimizer, rates[epoch])
            job.begin(epoch)
            for batch in feed.train(*job.plan(epoch)):
                step(*mix(*batch))
            average.enter(epoch)
            model.eval()
            with torch.inference_mode():
                outputs = torch.cat([forward(images) for images in feed.prepared()])
            results.append(_result(job, epoch, rates[epoch], step, outputs))
            if checkpoint:
                checkpoint.save(
                    {
                        "results": [(asdict(row.epoch), row.outputs) for row in results],
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


def _step(job: Job, model: nn.Module, trained: str) -> Step:
    models.freeze(model, trained)
    groups = models.groups(model, job.settings.layer_decay)
    optimizer = components.optimizer(job.settings.optimizer, groups, job.run.lr)
    clip = job.settings.clip_norm
    parts = job.forward(model), job.loss(), optimizer, Totals(job.device), clip
    if job.settings.cuda_graph and optimizer.defaults.get("capturable"):
        return Recorded(*parts, list(model.buffers()))
    return Step(*parts)


def probe(job: Job, head: nn.Module, epochs: Iterable[Features]) -> Iterator[EpochResult]:
    """Train a head alone on each epoch's backbone features.

    A frozen backbone's output, its batch-norm statistics included, does not depend on the head, so
    this is the frozen run itself.
    """
    rates, loss, size = job.rates(), job.loss(), job.settings.batch_size
    optimizer = components.optimizer(job.settings.optimizer, head.parameters(), job.run.lr)
    step = Step(head, loss, optimizer, Totals(job.device), job.settings.clip_norm)
    average = job.average(head)
    for epoch, (train_features, prepared_features) in enumerate(epochs):
        average.leave()
        set_rate(optimizer, rates[epoch])
        order = np.concatenate(job.plan(epoch)[0])
        labels = torch.from_numpy(job.data.train.label[order]).to(job.device)
        for batch in zip(train_features.split(size), labels.split(size), strict=True):
            step(*batch)
        average.enter(epoch)
        with torch.inference_mode():
            outputs = head(prepared_features)
        yield _result(job, epoch, rates[epoch], step, outputs)


def _result(job: Job, epoch: int, lr: float, step: Step, outputs: torch.Tensor) -> EpochResult:
    """`outputs`: of the validation and test images, [v + m, classes]."""
    data = job.data
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
