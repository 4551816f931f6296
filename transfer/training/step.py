"""One training step, and the same step recorded for a GPU."""

from collections.abc import Callable, Iterable

import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.optim.adam import adam

Forward = Callable[[torch.Tensor], torch.Tensor]


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
        device = self.parameters[0].device
        # A recorded step reads the rate anew only from a tensor.
        self.rate = torch.tensor(lr, device=device) if device.type == "cuda" else None
        self.means = [torch.zeros_like(p) for p in self.parameters]
        self.squares = [torch.zeros_like(p) for p in self.parameters]
        self.steps = [torch.zeros((), device=device) for p in self.parameters]

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
            lr=self.lr if self.rate is None else self.rate,
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
            if self.rate is not None:
                self.rate.fill_(self.lr)

    @property
    def state(self) -> list[torch.Tensor]:
        """Every tensor that a step changes."""
        return [*self.parameters, *self.means, *self.squares, *self.steps]


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
    """Forward, cross entropy, backward and Adam on one batch."""

    def __init__(self, forward: Forward, optimizer: Adam, totals: Totals) -> None:
        self.forward, self.optimizer, self.totals = forward, optimizer, totals

    def __call__(self, inputs: torch.Tensor, labels: torch.Tensor) -> None:
        outputs = self.forward(inputs)
        loss = cross_entropy(outputs, labels)
        loss.backward()
        self.optimizer.step()
        self.totals.add(outputs, labels, loss)


class Recorded:
    """A step recorded as a CUDA graph at its first batch and replayed from then on.

    Launching the kernels of a batch of four takes longer than running them; a replay is one
    launch. A batch of another shape, the short last one, takes the plain step. `buffers` are the
    tensors that the forward changes.
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
        state = [*self.buffers, *self.step.optimizer.state, totals.loss, totals.correct]
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
