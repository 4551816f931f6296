"""Low-rank adaptation (LoRA, Hu 2022): each linear layer's weights stay, and the product of two
small matrices is learnt that is added to them; afterwards it becomes part of them."""

import math

import torch
from torch import nn
from torch.nn.utils import parametrize


class LowRank(nn.Module):
    """Adds b · a to a weight, float32 [n, m]: a is [rank, m] and b, which starts at 0,
    [n, rank]. Hu's factor alpha / rank is 1."""

    def __init__(self, weight: torch.Tensor, rank: int) -> None:
        super().__init__()
        n, m = weight.shape
        self.a = nn.Parameter(weight.new_empty(rank, m))
        self.b = nn.Parameter(weight.new_zeros(n, rank))
        nn.init.kaiming_uniform_(self.a, a=math.sqrt(5))

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        return weight + self.b @ self.a


def add(model: nn.Module, rank: int, head: nn.Module, seed: int) -> None:
    """To all linear layers but the head, drawn from the seed. Raises ValueError where there are
    none."""
    layers = [part for part in model.modules() if isinstance(part, nn.Linear) and part is not head]
    if not layers:
        raise ValueError(f"lora{rank}: this backbone has no linear layers beside its head")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for layer in layers:
            parametrize.register_parametrization(layer, "weight", LowRank(layer.weight, rank))


def parameters(model: nn.Module) -> list[nn.Parameter]:
    """What was added."""
    added = [part for part in model.modules() if isinstance(part, LowRank)]
    return [parameter for part in added for parameter in part.parameters()]


def merge(model: nn.Module) -> None:
    """Make what was added a part of the weights."""
    for layer in list(model.modules()):
        if isinstance(layer, nn.Linear) and parametrize.is_parametrized(layer):
            parametrize.remove_parametrizations(layer, "weight")
