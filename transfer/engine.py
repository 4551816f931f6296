"""The report's training protocol (section 3.3)."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.optim.adam import adam

from transfer import augment
from transfer.packed import Packed

TEST_BATCH = 64


@dataclass(frozen=True)
class Epoch:
    """One row of a curve. Losses are mean cross entropies in nats, accuracies fractions."""

    epoch: int
    lr: float
    train_loss: float
    train_accuracy: float
    test_loss: float
    test_accuracy: float


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

    def plan(self, data: Packed, epoch: int) -> tuple[list[np.ndarray], augment.Crops]:
        """The epoch's batches (indices of training images) and crops, from (seed, epoch) alone."""
        rng = np.random.default_rng([self.seed, epoch])
        order = rng.permutation(len(data.train))
        crops = augment.random_crops(data.train.height, data.train.width, rng)
        starts = range(0, len(order), self.batch_size)
        return [order[i : i + self.batch_size] for i in starts], crops

    def forward(self, module: nn.Module) -> Callable[[torch.Tensor], torch.Tensor]:
        """The module as called: float32 out, and bfloat16 inside, where that is safe, if asked."""

        def call(inputs: torch.Tensor) -> torch.Tensor:
            reduced = self.precision == "bfloat16"
            with torch.autocast(inputs.device.type, torch.bfloat16, enabled=reduced):
                return module(inputs).float()

        return call

    def optimizer(self, module: nn.Module) -> "Adam":
        return Adam(module.parameters(), self.lr, self.lr_step, self.lr_gamma)


Report = Callable[[Epoch], None]
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
    model: nn.Module, data: Packed, protocol: Protocol, device: torch.device, report: Report
) -> list[Epoch]:
    """Train the whole model in place and return its curve; report is called after every epoch."""
    model.to(device, memory_format=memory_format(protocol.memory_format))
    labels = torch.from_numpy(data.train.label).to(device)
    optimizer, forward, curve = protocol.optimizer(model), protocol.forward(model), []
    for epoch in range(protocol.epochs):
        model.train()
        train, lr = _Totals(device), optimizer.lr
        for images, batch in train_batches(data, protocol, epoch, loaders(device)):
            _step(forward, optimizer, images.to(device, non_blocking=True), labels[batch], train)
        optimizer.end_epoch()
        with torch.inference_mode():
            outputs = torch.cat([forward(x) for x in test_batches(model, data, protocol, device)])
        curve.append(_epoch(epoch, lr, train, outputs, data))
        report(curve[-1])
    return curve


def probe(
    head: nn.Module, epochs: Iterable[Features], data: Packed, protocol: Protocol, report: Report
) -> list[Epoch]:
    """Train a head alone on each epoch's backbone features, and return the curve.

    The features of an epoch are those of the training images in the order of its batches,
    [n, d], and of the test images, [m, d]: a frozen backbone's output, its batch-norm statistics
    included, does not depend on the head, so this is the frozen run itself.
    """
    optimizer, curve = protocol.optimizer(head), []
    for epoch, (train_features, test_features) in enumerate(epochs):
        train, lr = _Totals(train_features.device), optimizer.lr
        order = np.concatenate(protocol.plan(data, epoch)[0])
        labels = torch.from_numpy(data.train.label[order]).to(train_features.device)
        for features, targets in zip(
            train_features.split(protocol.batch_size),
            labels.split(protocol.batch_size),
            strict=True,
        ):
            _step(head, optimizer, features, targets, train)
        optimizer.end_epoch()
        with torch.inference_mode():
            outputs = head(test_features)
        curve.append(_epoch(epoch, lr, train, outputs, data))
        report(curve[-1])
    return curve


def train_batches(
    data: Packed, protocol: Protocol, epoch: int, loaders: int, group: int = 1
) -> Iterator[tuple[torch.Tensor, np.ndarray]]:
    """The epoch's images, prepared, with their indices, `group` batches at a time.

    `loaders` threads prepare a few groups ahead of the one in use; with 0 nothing is ahead.
    """
    batches, crops = protocol.plan(data, epoch)
    groups = [np.concatenate(batches[i : i + group]) for i in range(0, len(batches), group)]
    prepared = partial(_prepared, data, crops, protocol)
    yield from zip(_ahead(prepared, groups, loaders), groups, strict=True)


def _ahead(function: Callable, inputs: list, threads: int) -> Iterator:
    if not threads:
        yield from map(function, inputs)
        return
    with ThreadPoolExecutor(threads) as pool:
        waiting = deque()
        for value in inputs:
            waiting.append(pool.submit(function, value))
            if len(waiting) > 2 * threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _prepared(data, crops, protocol, chosen) -> torch.Tensor:
    return prepare(augment.crop_batch(data, chosen, crops), protocol)


def loaders(device: torch.device) -> int:
    """On a CPU, threads beside those of the convolutions would only stall them."""
    return min(8, os.cpu_count() or 1) if device.type == "cuda" else 0


def prepare(images: torch.Tensor, protocol: Protocol) -> torch.Tensor:
    """uint8 [n, h, w, 3] → normalised float32 [n, 3, h, w], as the protocol lays it out."""
    return augment.normalize(images).contiguous(memory_format=memory_format(protocol.memory_format))


def test_batches(model, data, protocol, device) -> Iterable[torch.Tensor]:
    """The test images in order, in large batches, with the model put in eval mode."""
    model.eval()
    images = data.test_images()
    for start in range(0, len(images), TEST_BATCH):
        batch = torch.from_numpy(images[start : start + TEST_BATCH])
        yield prepare(batch.to(device), protocol)


def memory_format(name: str) -> torch.memory_format:
    return torch.channels_last if name == "channels_last" else torch.contiguous_format


class Adam:
    """Adam with PyTorch's defaults (Kingma 2015) and StepLR, on torch's own fused kernel.

    torch.optim.Adam computes the same, but its first use imports TorchDynamo, 1.3 s that each of
    64 runs would pay.
    """

    def __init__(
        self, parameters: Iterable[nn.Parameter], lr: float, step: int, gamma: float
    ) -> None:
        self.parameters = list(parameters)
        self.lr, self.step_size, self.gamma, self.epoch = lr, step, gamma, 0
        self.means = [torch.zeros_like(p) for p in self.parameters]
        self.squares = [torch.zeros_like(p) for p in self.parameters]
        self.steps = [torch.zeros((), device=p.device) for p in self.parameters]

    @torch.no_grad()
    def step(self) -> None:
        """Update the parameters by their gradients, and drop those."""
        adam(
            self.parameters,
            [p.grad for p in self.parameters],
            self.means,
            self.squares,
            [],
            self.steps,
            fused=True,
            amsgrad=False,
            beta1=0.9,
            beta2=0.999,
            lr=self.lr,
            weight_decay=0,
            eps=1e-8,
            maximize=False,
        )
        for parameter in self.parameters:
            parameter.grad = None

    def end_epoch(self) -> None:
        self.epoch += 1
        if self.epoch % self.step_size == 0:
            self.lr *= self.gamma


def _step(forward, optimizer, inputs, labels, totals: "_Totals") -> None:
    outputs = forward(inputs)
    loss = cross_entropy(outputs, labels)
    loss.backward()
    optimizer.step()
    totals.add(loss.detach(), outputs.detach(), labels)


def _epoch(epoch: int, lr: float, train: "_Totals", outputs: torch.Tensor, data: Packed) -> Epoch:
    labels = torch.from_numpy(data.test.label).to(outputs.device)
    test = _Totals(outputs.device)
    test.add(cross_entropy(outputs, labels), outputs, labels)
    return Epoch(epoch, lr, *train.means(), *test.means())


class _Totals:
    """Sums kept on the device: reading them every step would make a GPU wait."""

    def __init__(self, device: torch.device) -> None:
        self.loss = torch.zeros((), dtype=torch.float64, device=device)
        self.correct = torch.zeros((), dtype=torch.int64, device=device)
        self.n = 0

    def add(self, loss: torch.Tensor, outputs: torch.Tensor, labels: torch.Tensor) -> None:
        self.loss += loss * len(labels)
        self.correct += (outputs.argmax(1) == labels).sum()
        self.n += len(labels)

    def means(self) -> tuple[float, float]:
        return self.loss.item() / self.n, self.correct.item() / self.n
