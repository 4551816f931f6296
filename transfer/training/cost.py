"""What a run costs, as the same number everywhere: seconds depend on the machine."""

from collections import Counter

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from transfer.training import models
from transfer.training.engine import Protocol, phase
from transfer.training.packed import Packed


def flops(backbone: str, freezing: str, data: Packed, protocol: Protocol) -> int:
    """The floating-point operations of a run's convolutions and matrix products, as PyTorch counts
    them: forward and backward on its training images, forward on those it predicts."""
    model = models.shape(backbone, len(data.classes))
    prepared = len(data.validation) + len(data.test)
    total = protocol.epochs * prepared * _of_two(model, data.size)
    phases = Counter(phase(freezing, protocol, epoch) for epoch in range(protocol.epochs))
    for trained, epochs in phases.items():
        models.freeze(model, trained)
        total += epochs * len(data.train) * _of_two(model, data.size, backward=True)
    return total // 2


def _of_two(model: nn.Module, size: int, backward: bool = False) -> int:
    """Those of a batch of two images, on a device that computes nothing."""
    with FlopCounterMode(display=False) as counter, torch.set_grad_enabled(backward):
        out = model.train(backward)(torch.empty((2, 3, size, size), device="meta"))
        if backward:
            out.sum().backward()
    return counter.get_total_flops()
