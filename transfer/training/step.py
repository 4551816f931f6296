"""One training step, the same step recorded for a GPU, and the mean of weights over epochs."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn.utils import clip_grad_norm_
from torch.optim import Optimizer
from torch.optim.swa_utils import AveragedModel

Forward = Callable[[torch.Tensor], torch.Tensor]
Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""(outputs [n, classes], labels: int64 [n], or each class's share, float32 [n, classes]) → their
mean loss."""
Group = dict[str, Any]
"""Parameters that an optimiser treats alike: `params`, and `lr_scale`, what their learning rate is
multiplied by (as timm calls it)."""


def set_rate(optimizer: Optimizer, lr: float) -> None:
    """Set the learning rate of each group of parameters, by its lr_scale."""
    for group in optimizer.param_groups:
        rate = lr * group.get("lr_scale", 1.0)
        if torch.is_tensor(group["lr"]):
            group["lr"].fill_(rate)  # a recorded step reads it anew only from its own tensor
        else:
            group["lr"] = rate


def parameters(optimizer: Optimizer) -> list[torch.Tensor]:
    return [tensor for group in optimizer.param_groups for tensor in group["params"]]


class Totals:
    """Sums kept on the device: reading them every step would make a GPU wait."""

    def __init__(self, device: torch.device) -> None:
        self.loss = torch.zeros((), dtype=torch.float64, device=device)
        self.correct = torch.zeros((), dtype=torch.int64, device=device)

    def add(self, outputs: torch.Tensor, labels: torch.Tensor, loss: torch.Tensor) -> None:
        """Add a batch: outputs [n, classes], labels as for a Loss, their mean loss."""
        labels = labels.argmax(1) if labels.ndim == 2 else labels
        self.loss += loss.detach() * len(labels)
        self.correct += (outputs.argmax(1) == labels).sum()

    def take(self, n: int) -> tuple[float, float]:
        """Mean loss and accuracy over n images; the sums start again from zero."""
        means = self.loss.item() / n, self.correct.item() / n
        self.loss.zero_()
        self.correct.zero_()
        return means


@dataclass
class Step:
    """Forward, loss, backward and update on one batch, which is added to the totals. Gradients of
    a larger norm than clip_norm are scaled to it, if it is not 0."""

    forward: Forward
    loss: Loss
    optimizer: Optimizer
    totals: Totals
    clip_norm: float

    def __call__(self, inputs: torch.Tensor, labels: torch.Tensor) -> None:
        outputs = self.forward(inputs)
        loss = self.loss(outputs, labels)
        loss.backward()
        if self.clip_norm:
            clip_grad_norm_(parameters(self.optimizer), self.clip_norm)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.totals.add(outputs, labels, loss)


@dataclass
class Recorded(Step):
    """A step recorded as a CUDA graph at its first batch and replayed from then on.

    Launching the kernels of a batch of four takes longer than running them; a replay is one
    launch. A batch of another shape, the short last one, takes the plain step. `buffers` are the
    tensors that the forward changes. The optimizer is Adam, whose state begins with zeros.
    """

    buffers: list[torch.Tensor]
    graph: torch.cuda.CUDAGraph | None = None

    def __call__(self, inputs: torch.Tensor, labels: torch.Tensor) -> None:
        if self.graph is None:
            self.inputs, self.labels = inputs.clone(), labels.clone()
            self.graph = self._recorded()
        if inputs.shape != self.inputs.shape:
            super().__call__(inputs, labels)
            return
        self.inputs.copy_(inputs)
        self.labels.copy_(labels)
        self.graph.replay()

    def _recorded(self) -> torch.cuda.CUDAGraph:
        # With gradients, the clones would keep the parameters' autograd nodes of this stream.
        with torch.no_grad():
            before = {tensor: tensor.clone() for tensor in self._changed()}
        # Libraries allocate at their first use, which must not happen while recording.
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.random.fork_rng(), torch.cuda.stream(side):
            for _ in range(3):
                super().__call__(self.inputs, self.labels)
        torch.cuda.current_stream().wait_stream(side)
        with torch.no_grad():
            for tensor in self._changed():
                tensor.copy_(before[tensor]) if tensor in before else tensor.zero_()
        graph = torch.cuda.CUDAGraph()
        # Other threads pin memory meanwhile.
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):
            super().__call__(self.inputs, self.labels)
        return graph

    def _changed(self) -> list[torch.Tensor]:
        """Every tensor that a step changes."""
        moments = [value for state in self.optimizer.state.values() for value in state.values()]
        tensors = [value for value in moments if torch.is_tensor(value)]
        totals = [self.totals.loss, self.totals.correct]
        return [*self.buffers, *parameters(self.optimizer), *tensors, *totals]


class Average:
    """Stochastic weight averaging (Izmailov 2018), of buffers too. From the epoch `first` on, the
    module holds the mean after each epoch, and its own weights again before the next."""

    def __init__(self, module: nn.Module, first: int) -> None:
        self.module, self.first = module, first
        self.mean: AveragedModel | None = None
        self.weights: dict[str, Any] | None = None
        """The module's own weights while it holds the mean, else None."""

    def enter(self, epoch: int) -> None:
        """Take the weights after that epoch into the mean, and put the mean in their place."""
        if epoch < self.first:
            return
        self.mean = self.mean or AveragedModel(self.module, use_buffers=True)
        self.mean.update_parameters(self.module)
        self.weights = {name: value.clone() for name, value in self.module.state_dict().items()}
        self.module.load_state_dict(self.mean.module.state_dict())

    def leave(self) -> None:
        """Put its own weights back."""
        if self.weights is not None:
            self.module.load_state_dict(self.weights)
        self.weights = None

    def state(self) -> dict[str, Any]:
        """What a resumed run continues from: the module's own weights, and the mean's."""
        weights = self.weights if self.weights is not None else self.module.state_dict()
        return {"model": weights, "mean": self.mean.state_dict() if self.mean else None}

    def load(self, state: dict[str, Any]) -> None:
        self.module.load_state_dict(state["model"])
        if state["mean"]:
            self.mean = AveragedModel(self.module, use_buffers=True)
            self.mean.load_state_dict(state["mean"])
