"""One training step, and the same step recorded for a GPU."""

from collections.abc import Callable, Iterable
from typing import Any, Protocol

import torch
from torch import nn
from torch.optim.adam import adam

Forward = Callable[[torch.Tensor], torch.Tensor]
Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""(outputs [n, classes], labels int64 [n]) → their mean loss."""


class Optimizer(Protocol):
    """What a step asks of an optimiser."""

    def set_rate(self, lr: float) -> None: ...

    def step(self) -> None:
        """Update the parameters by their gradients, and drop those."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


class Adam:
    """Adam with PyTorch's defaults (Kingma 2015), on torch's own fused kernel.

    torch.optim.Adam computes the same, but its first use imports TorchDynamo, 1.3 s that each of
    64 runs would pay.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], lr: float) -> None:
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
        """Mean loss and accuracy over n images, and start again from nothing."""
        means = self.loss.item() / n, self.correct.item() / n
        self.loss.zero_()
        self.correct.zero_()
        return means


class Step:
    """Forward, loss, backward and update on one batch."""

    def __init__(self, forward: Forward, loss: Loss, optimizer: Optimizer, totals: Totals) -> None:
        self.forward, self.loss, self.optimizer, self.totals = forward, loss, optimizer, totals

    def __call__(self, inputs: torch.Tensor, labels: torch.Tensor) -> None:
        outputs = self.forward(inputs)
        loss = self.loss(outputs, labels)
        loss.backward()
        self.optimizer.step()
        self.totals.add(outputs, labels, loss)


class Recorded:
    """A step recorded as a CUDA graph at its first batch and replayed from then on.

    Launching the kernels of a batch of four takes longer than running them; a replay is one
    launch. A batch of another shape, the short last one, takes the plain step. `buffers` are the
    tensors that the forward changes; the optimiser is an Adam.
    """

    def __init__(self, step: Step, buffers: Iterable[torch.Tensor]) -> None:
        self.step, self.buffers, self.graph = step, list(buffers), None

    def __call__(self, inputs: torch.Tensor, labels: torch.Tensor) -> None:
        if self.graph is None:
            self._record(inputs, labels)
        if inputs.shape != self.inputs.shape:
            self.step(inputs, labels)
            return
        self.inputs.copy_(inputs)
        self.labels.copy_(labels)
        self.graph.replay()

    def _record(self, inputs: torch.Tensor, labels: torch.Tensor) -> None:
        self.inputs, self.labels = inputs.clone(), labels.clone()
        totals = self.step.totals
        state = [*self.buffers, *self.step.optimizer.tensors, totals.loss, totals.correct]
        before = [tensor.clone() for tensor in state]
        # Libraries allocate at their first use, which must not happen while recording.
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(3):
                self.step(self.inputs, self.labels)
        torch.cuda.current_stream().wait_stream(side)
        with torch.no_grad():
            for tensor, value in zip(state, before, strict=True):
                tensor.copy_(value)
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            self.step(self.inputs, self.labels)
