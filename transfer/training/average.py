"""The mean of a network's weights over its last epochs."""

from typing import Any

from torch import nn
from torch.optim.swa_utils import AveragedModel

State = dict[str, Any]


class Average:
    """Stochastic weight averaging (Izmailov 2018), of buffers too. From the epoch `first` on, the
    module holds the mean after each epoch, and its own weights again before the next."""

    def __init__(self, module: nn.Module, first: int) -> None:
        self.module, self.first = module, first
        self.mean: AveragedModel | None = None
        self.own: State | None = None
        """The module's own weights while it holds the mean."""

    def enter(self, epoch: int) -> None:
        """Take the weights after that epoch into the mean, and put the mean in their place."""
        if epoch < self.first:
            return
        self.mean = self.mean or AveragedModel(self.module, use_buffers=True)
        self.mean.update_parameters(self.module)
        self.own = {name: value.clone() for name, value in self.module.state_dict().items()}
        self.module.load_state_dict(self.mean.module.state_dict())

    def leave(self) -> None:
        """Put its own weights back."""
        if self.own is not None:
            self.module.load_state_dict(self.own)
        self.own = None

    def state(self) -> State:
        """What a resumed run continues from: the module's own weights, and the mean's."""
        own = self.own if self.own is not None else self.module.state_dict()
        return {"model": own, "mean": self.mean.state_dict() if self.mean else None}

    def load(self, state: State) -> None:
        self.module.load_state_dict(state["model"])
        if state["mean"]:
            self.mean = AveragedModel(self.module, use_buffers=True)
            self.mean.load_state_dict(state["mean"])
