"""Networks: a backbone with a new head, from a checkpoint or at random, and which of its parameters
are trained."""

import math
import pickle
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn
from torch.nn.utils import parametrize

from transfer import files
from transfer.cli import UserError, one_line
from transfer.training import zoo
from transfer.training.step import Group

State = dict[str, torch.Tensor]
"""A network's parameters and buffers by name."""
COUNTER = "num_batches_tracked"
RESNETS = [
    *(f"resnet{layers}" for layers in (18, 34, 50, 101, 152)),
    *("resnext50_32x4d", "resnext101_32x8d", "resnext101_64x4d"),
    *("wide_resnet50_2", "wide_resnet101_2"),
]
"""torchvision's. A backbone that is neither one of these nor in zoo.MINIATURE is timm's."""


def build(backbone: str, classes: int, checkpoint: str | Path, seed: int) -> nn.Module:
    """The network with a new `classes`-way head (paper, section 2.3).

    The head is drawn from `seed`, and so are all weights if the checkpoint is a baseline's. Raises
    UserError as `load_checkpoint` does.
    """
    state = load_checkpoint(checkpoint)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = architecture(backbone)(num_classes=classes)
        if isinstance(model, zoo.Network):
            # As torchvision draws heads: some of timm's start so large that few steps move them.
            model.head.reset_parameters()
    if set(state) <= {zoo.SCALE, zoo.SHIFT}:  # a baseline's
        model.load_state_dict(state, strict=False)
    else:
        _fill(model, state, backbone, checkpoint, new_head=True)
    return model


def source(backbone: str, checkpoint: str | Path) -> tuple[nn.Module, torch.Tensor | None]:
    """The checkpoint's own network, and the weights of the head that it was trained with, float32
    [source classes, d]; None, and any head, if it was trained without.

    Raises UserError as `load_checkpoint` does.
    """
    state = load_checkpoint(checkpoint)
    model = architecture(backbone)(num_classes=2)
    weight = state.get(f"{head_name(model)}.weight")
    if weight is not None:
        model = architecture(backbone)(num_classes=len(weight))
    _fill(model, state, backbone, checkpoint, new_head=weight is None)
    return model, weight


def load_checkpoint(path: str | Path, source: str | Path = "") -> State:
    """Read a state_dict; a file that holds more than tensors is rejected, never executed.

    `source` names the file in messages, if not its path. Raises UserError for a file that is
    missing, is not a checkpoint, or holds pickled code.
    """
    source = source or path
    try:
        if str(path).endswith(".safetensors"):
            state = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise UserError(f"{source}: no such weights file; check `weights` in params.yaml") from None
    except pickle.UnpicklingError:
        raise UserError(
            f"{source}: holds more than tensors, and is not run; "
            "save it again as torch.save(model.state_dict(), …)"
        ) from None
    except SafetensorError as error:
        raise UserError(f"{source}: not a whole checkpoint: {one_line(error)}") from None
    except OSError:
        raise
    except Exception as error:  # what a damaged file raises depends on where the damage is
        raise UserError(f"{source}: not a whole checkpoint: {one_line(error)}") from None
    if not isinstance(state, dict) or not all(
        isinstance(name, str) and torch.is_tensor(value) for name, value in state.items()
    ):
        raise UserError(f"{source}: not a state_dict (names → tensors)")
    return state


def save_scratch(path: str | Path, pretrained: State | None = None) -> None:
    """Write a baseline's checkpoint. It holds how the pretrained network's input is normalised, and
    no weights: `build` draws those at random."""
    names = (zoo.SCALE, zoo.SHIFT)
    kept = {name: value for name, value in (pretrained or {}).items() if name in names}
    with files.replacing(path) as part:
        torch.save(kept, part)


def check_fits(state: State, backbone: str, source: str | Path) -> None:
    """Raise UserError unless `state` is that backbone's, apart from the head, and finite."""
    _fill(shape(backbone), state, backbone, source, new_head=True)
    check_finite(state, source)


def check_finite(state: State, source: str | Path) -> None:
    """Raise UserError for a number that is not finite, or not in single precision."""
    for name, value in state.items():
        if not value.float().isfinite().all():
            raise UserError(f"{source}: {name} holds NaN or infinite numbers; train it again")


def head(model: nn.Module) -> nn.Linear:
    """Its classifier, the last linear layer."""
    if isinstance(model, zoo.Network):
        return model.head
    return [part for part in model.modules() if isinstance(part, nn.Linear)][-1]


def head_name(model: nn.Module) -> str:
    last = head(model)
    return next(name for name, part in model.named_modules() if part is last)


def stages(model: nn.Module) -> list[list[nn.Parameter]]:
    """The parameters of the network's stem and of each stage after it, without the head's; those of
    a normalisation between two belong to the one before. Raises ValueError for a network whose
    stages timm does not know."""
    if isinstance(model, zoo.Network):
        parts = model.groups(coarse=True)
    else:
        parts = [list(child.parameters()) for child in model.children()]
    heads = {id(parameter) for parameter in head(model).parameters()}
    result: list[list[nn.Parameter]] = []
    for part in parts:
        rest = [parameter for parameter in part if id(parameter) not in heads]
        if result and all(parameter.ndim < 2 for parameter in rest):
            result[-1] += rest
        else:
            result.append(rest)
    return result


class LowRank(nn.Module):
    """Low-rank adaptation (LoRA, Hu 2022): adds b · a to a linear layer's weight, float32 [n, m].

    a is [rank, m], and b is [n, rank] and starts at 0. Hu's factor alpha / rank is 1.
    """

    def __init__(self, weight: torch.Tensor, rank: int) -> None:
        super().__init__()
        n, m = weight.shape
        self.a = nn.Parameter(weight.new_empty(rank, m))
        self.b = nn.Parameter(weight.new_zeros(n, rank))
        nn.init.kaiming_uniform_(self.a, a=math.sqrt(5))

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        return weight + self.b @ self.a


def adapt(model: nn.Module, freezing: str, seed: int = 0) -> None:
    """Add what the way of freezing trains beside the network's own parameters: low-rank matrices
    (`lora8`: of rank 8), drawn from the seed, to all linear layers but the head. Raises ValueError
    where there are none."""
    if not freezing.startswith("lora"):
        return
    last = head(model)
    layers = [part for part in model.modules() if isinstance(part, nn.Linear) and part is not last]
    if not layers:
        raise ValueError(f"{freezing}: this backbone has no linear layers beside its head")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for layer in layers:
            matrices = LowRank(layer.weight, int(freezing.removeprefix("lora")))
            parametrize.register_parametrization(layer, "weight", matrices)


def low_rank(model: nn.Module) -> list[nn.Parameter]:
    """The matrices that `adapt` added."""
    added = [part for part in model.modules() if isinstance(part, LowRank)]
    return [parameter for part in added for parameter in part.parameters()]


def merge_low_rank(model: nn.Module) -> None:
    """Make the matrices that `adapt` added a part of the weights."""
    for layer in list(model.modules()):
        if isinstance(layer, nn.Linear) and parametrize.is_parametrized(layer):
            parametrize.remove_parametrizations(layer, "weight")


def freeze(model: nn.Module, freezing: str) -> None:
    """Turn gradients on for what is trained, and off for the rest: all (`finetuned`), the head
    alone (`frozen`), or the head with the normalisation (`norm`), with all biases (`bias`; BitFit,
    Ben Zaken 2022), with what `adapt` added (`lora8`), or with some stages: the `first2` or
    `last2`, say, or the third (`stage3`; Lee 2023, "Surgical fine-tuning"). Raises ValueError where
    the network has fewer stages, or no normalisation with weights."""
    model.requires_grad_(freezing == "finetuned")
    for parameter in [*head(model).parameters(), *_trained_too(model, freezing)]:
        parameter.requires_grad_(True)


def _trained_too(model: nn.Module, freezing: str) -> list[nn.Parameter]:
    """The parameters trained besides the head; none where the head alone is trained, or all is."""
    if freezing.startswith("lora"):
        return low_rank(model)
    if freezing == "norm":
        modules = [part for part in model.modules() if "Norm" in type(part).__name__]
        weights = [weight for module in modules for weight in module.parameters(recurse=False)]
        if not weights:
            raise ValueError("norm: this backbone has no normalisation with weights")
        return weights
    if freezing == "bias":
        return [value for name, value in model.named_parameters() if name.endswith("bias")]
    named = re.fullmatch(r"(first|last|stage)(\d)", freezing)
    if not named:
        return []
    parts, count = stages(model), int(named[2])
    if count > len(parts):
        raise ValueError(f"{freezing}: this backbone has {len(parts)} stages")
    which = {"first": slice(count), "last": slice(-count, None), "stage": slice(count - 1, count)}
    return [parameter for part in parts[which[named[1]]] for parameter in part]


def groups(model: nn.Module, decay: float) -> list[Group]:
    """The parameters that are trained, with layer-wise decay of their learning rate (ULMFiT, Howard
    & Ruder 2018): the rate of the layer before the head is multiplied by `decay`, that of the next
    one down by decay², and so on. Raises ValueError as `layers` does."""
    parts = layers(model) if decay < 1 else [list(model.parameters())]
    result = []
    for depth, part in enumerate(reversed(parts)):
        if trained := [parameter for parameter in part if parameter.requires_grad]:
            result.append({"params": trained, "lr_scale": decay**depth})
    return result[::-1]


def layers(model: nn.Module) -> list[list[nn.Parameter]]:
    """The parameters of the network's stem, of each of its blocks, and of its head. Raises
    ValueError for a network whose blocks timm does not know."""
    if isinstance(model, zoo.Network):
        return model.groups(coarse=False)
    stem: list[nn.Parameter] = []
    blocks = []
    for child in model.children():
        if isinstance(child, nn.Sequential):
            blocks += [list(block.parameters()) for block in child]
        elif child is not head(model):
            stem += child.parameters()
    return [stem, *blocks, list(head(model).parameters())]


def train_mode(model: nn.Module, statistics_move: bool) -> None:
    """Set the model to training. Batch norm with frozen weights normalises by the batch, and
    updates its running statistics, only if these are to move."""
    model.train()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d) and not module.weight.requires_grad:
            module.train(statistics_move)


def check_backbones(names: list[str]) -> None:
    """Raise UserError for a name that is no backbone: neither in zoo.MINIATURE nor RESNETS,
    nor a network of timm's that ends in one linear layer."""
    for name in filter(is_timms, names):
        zoo.check(name, RESNETS)


def is_timms(backbone: str) -> bool:
    return backbone not in RESNETS and backbone not in zoo.MINIATURE


def shape(backbone: str, classes: int = 1000) -> nn.Module:
    """The network on the meta device: shapes without numbers."""
    with torch.device("meta"):
        return architecture(backbone)(num_classes=classes)


def check_size(backbone: str, size: int) -> None:
    """Raise ValueError unless the network takes images of that side, in pixels."""
    model = shape(backbone).eval()
    try:
        model(torch.empty((2, 3, size, size), device="meta"))
    except (AssertionError, RuntimeError) as error:
        made = f"; it was made for {model.size} px" if isinstance(model, zoo.Network) else ""
        raise ValueError(f"{one_line(error)}{made}") from None


def architecture(backbone: str) -> Callable[..., nn.Module]:
    """The constructor of that network."""
    if backbone in zoo.MINIATURE:
        return zoo.MINIATURE[backbone]
    if is_timms(backbone):
        return partial(zoo.Network, backbone)
    import torchvision  # two seconds, which other networks do without

    return getattr(torchvision.models, backbone)


def _fill(
    model: nn.Module, state: State, backbone: str, source: str | Path, new_head: bool = False
) -> None:
    """Load the state, but for a new head."""
    skipped = (f"{head_name(model)}.",) if new_head else ()
    state = {name: value for name, value in state.items() if not name.startswith(skipped)}
    meta = next(model.parameters()).is_meta
    try:
        # assign: a model on the meta device has nothing to copy into.
        missing, unexpected = model.load_state_dict(state, strict=False, assign=meta)
    except RuntimeError as error:
        raise UserError(f"{source}: not weights of {backbone}: {one_line(error)}") from None
    # Checkpoints older than PyTorch 0.4.1 lack the counters, and nothing reads them.
    missing = [n for n in missing if not n.startswith(skipped) and not n.endswith(COUNTER)]
    if wrong := missing + unexpected:
        kind = "lacks" if missing else "has the unknown"
        raise UserError(f"{source}: not weights of {backbone}: it {kind} {wrong[0]}")
