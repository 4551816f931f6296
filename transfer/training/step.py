"""One training step, and the same step recorded for a GPU."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch.optim.adam import adam

Forward = Callable[[torch.Tensor], torch.Tensor]
Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""(outputs [n, classes], labels int64 [n]) → their mean loss."""


class Adam:
    """Adam with PyTorch's defaults (Kingma 2015), on torch's own fused kernel.

    torch.optim.Adam computes the same, but its first use imports TorchDynamo, 1.3 s that each of
    64 runs would pay.
    """

    def __init__(self, parameters: Iterable[torch.Tensor], lr: float) -> None:
        self.parameters = list(parameters)
        self.lr = lr
        device = self.parameters[0].device
        # A recorded step reads the rate anew only from a tensor.
        self.rate = torch.tensor(lr, device=device) if device.type == "cuda" else None
        self.means = [torch.zeros_like(p) for p in self.parameters]
        self.squares = [torch.zeros_like(p) for p in self.parameters]
        self.steps = [torch.zeros((), device=device) for p in self.parameters]

    def set_rate(self, lr: float) -> None:
        self.lr = lr
        if self.rate is not None:
            self.rate.fill_(lr)

    @torch.no_grad()
    def step(self) -> None:
        """Update the parameters by their gradients, which each must have, and drop those."""
        adam(
            self.parameters,
            [p.grad for p in self.parameters],  # type: ignore[misc]
            self.means,
            self.squares,
            [],
            self.steps,
            fused=True,
            amsgrad=False,
            beta1=0.9,
            beta2=0.999,
            lr=self.lr if self.rate is None else self.rate,
            weight_decay=0,
            eps=1e-8,
            maximize=False,
        )
        for parameter in self.parameters:
            parameter.grad = None

    def state_dict(self) -> dict[str, list[torch.Tensor]]:
        return {"means": self.means, "squares": self.squares, "steps": self.steps}

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, list[torch.Tensor]]) -> None:
        for name, tensors in self.state_dict().items():
            for tensor, value in zip(tensors, state[name], strict=True):
                tensor.copy_(value)

    @property
    def tensors(self) -> list[torch.Tensor]:
        """Every tensor that a step changes."""
        return [*self.parameters, *self.means, *self.squares, *self.steps]


class Torch:
    """One of torch.optim's."""

    def __init__(self, optimizer: Any) -> None:
        self.optimizer = optimizer
        self.state_dict, self.load_state_dict = optimizer.state_dict, optimizer.load_state_dict

    def set_rate(self, lr: float) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = lr

    def step(self) -> None:
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)


Optimizer = Adam | Torch


class Totals:
    """Sums kept on the device: reading them every step would make a GPU wait."""

    def __init__(self, device: torch.device) -> None:
        self.loss = torch.zeros((), dtype=torch.float64, device=device)
        self.correct = torch.zeros((), dtype=torch.int64, device=device)

    def add(self, outputs: torch.Tensor, labels: torch.Tensor, loss: torch.Tensor) -> None:
        """Add a batch: outputs [n, classes], labels [n], their mean loss."""
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
    """Forward, loss, backward and update on one batch, which is added to the totals."""

    forward: Forward
    loss: Loss
    optimizer: Optimizer
    totals: Totals

    def __call__(self, inputs: torch.Tensor, labels: torch.Tensor) -> None:
        outputs = self.forward(inputs)
        loss = self.loss(outputs, labels)
        loss.backward()
        self.optimizer.step()
        self.totals.add(outputs, labels, loss)


@dataclass
class Recorded(Step):
    """A step recorded as a CUDA graph at its first batch and replayed from then on.

    Launching the kernels of a batch of four takes longer than running them; a replay is one
    launch. A batch of another shape, the short last one, takes the plain step. `buffers` are the
    tensors that the forward changes.
    """

    optimizer: Adam
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
        changed = [*self.buffers, *self.optimizer.tensors, self.totals.loss, self.totals.correct]
        # With gradients, the clones would keep the parameters' autograd nodes of this stream.
        with torch.no_grad():
            before = [tensor.clone() for tensor in changed]
        # Libraries allocate at their first use, which must not happen while recording.
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(3):
                super().__call__(self.inputs, self.labels)
        torch.cuda.current_stream().wait_stream(side)
        with torch.no_grad():
            for tensor, value in zip(changed, before, strict=True):
                tensor.copy_(value)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            super().__call__(self.inputs, self.labels)
        return graph
