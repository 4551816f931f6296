"""Backbones: torchvision's classifiers with a new head, from a checkpoint or at random."""

import pickle
import re
from collections import OrderedDict
from collections.abc import Callable
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from transfer import files
from transfer.cli import UserError, one_line
from transfer.training import miniature

State = dict[str, torch.Tensor]
"""A network's parameters and buffers by name."""
COUNTER = "num_batches_tracked"
LEGACY = (
    (r"(denselayer\d+\.(?:norm|conv))\.([12]\.)", r"\1\2"),
    (r"(encoder_layer_\d+\.mlp\.)linear_1\.", r"\g<1>0."),
    (r"(encoder_layer_\d+\.mlp\.)linear_2\.", r"\g<1>3."),
)
"""Names in torchvision's own checkpoints, and what its networks have since called them."""
AUXILIARY = ("aux1.", "aux2.", "AuxLogits.")
"""The further classifiers of GoogLeNet and Inception v3, which only training on the source uses."""
WITHOUT_AUXILIARY = {"aux_logits": False, "init_weights": True, "transform_input": True}
OPTIONS = {"googlenet": WITHOUT_AUXILIARY, "inception_v3": WITHOUT_AUXILIARY}
"""What torchvision makes a network with when it loads its own weights."""
OWN = {"miniresnet10": miniature.resnet10, "miniresnet18": miniature.resnet18}
"""The networks that are not torchvision's."""
CONTAINERS = ("features", "encoder", "layers", "trunk_output", "blocks", "classifier", "heads")
"""What torchvision calls a network's sequence of blocks, and the layers around its head."""


def build(backbone: str, classes: int, checkpoint: str | Path, seed: int) -> nn.Module:
    """torchvision's network with a new `classes`-way head (report, section 2.3).

    Everything the checkpoint does not hold is drawn from `seed`: the head always, the whole
    network when the checkpoint is empty. Raises UserError as `load_checkpoint` does.
    """
    state = load_checkpoint(checkpoint)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = architecture(backbone)(num_classes=classes)
    if state:
        _fill(model, state, backbone, checkpoint, new_head=True)
    return model


def source(backbone: str, checkpoint: str | Path) -> nn.Module:
    """The checkpoint's own network, with the head it was trained with.

    Raises UserError as `load_checkpoint` does, and for a checkpoint without a head.
    """
    state = load_checkpoint(checkpoint)
    name = f"{head_name(shape(backbone))}.weight"
    if name not in state:
        raise UserError(f"{checkpoint}: has no {name}, the head of its source classes")
    model = architecture(backbone)(num_classes=len(state[name]))
    _fill(model, state, backbone, checkpoint)
    return model


def load_checkpoint(path: str | Path, source: str | Path = "") -> State:
    """Read a state_dict; a file that holds more than tensors is rejected, never executed.

    Names are those of torchvision's networks now; auxiliary classifiers are left out. `source`
    names the file in messages, if not its path. Raises UserError for a file that is missing, is
    not a checkpoint, or holds pickled code.
    """
    source = source or path
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise UserError(f"{source}: no such weights file; check `weights` in params.yaml") from None
    except pickle.UnpicklingError:
        raise UserError(
            f"{source}: holds more than tensors, and is not run; "
            "save it again as torch.save(model.state_dict(), …)"
        ) from None
    except OSError:
        raise
    except Exception as error:  # what a damaged file raises depends on where the damage is
        raise UserError(f"{source}: not a whole checkpoint: {one_line(error)}") from None
    if not isinstance(state, dict) or not all(
        isinstance(name, str) and torch.is_tensor(value) for name, value in state.items()
    ):
        raise UserError(f"{source}: not a state_dict (names → tensors)")
    for pattern, now in LEGACY:
        state = {re.sub(pattern, now, name): value for name, value in state.items()}
    return {name: value for name, value in state.items() if not name.startswith(AUXILIARY)}


def load_state(model: nn.Module, state: State, **options: bool) -> tuple[list[str], list[str]]:
    """load_state_dict of names as they are now; returns the missing and the unexpected ones."""
    # MNASNet asks for the version of its names, of which PyTorch's types say nothing.
    own: Any = model.state_dict()
    named: Any = OrderedDict(state)
    named._metadata = own._metadata
    return model.load_state_dict(named, **options)


def save_empty(path: str | Path) -> None:
    """Write an empty checkpoint: that of a baseline, whose weights `build` draws at random."""
    with files.replacing(path) as part:
        torch.save({}, part)


def check_fits(state: State, backbone: str, source: str | Path) -> None:
    """Raise UserError unless `state` is that backbone's, apart from the head."""
    _fill(shape(backbone), state, backbone, source, new_head=True)


def head_name(model: nn.Module) -> str:
    """The name of its classifier, the last linear layer."""
    return [name for name, part in model.named_modules() if isinstance(part, nn.Linear)][-1]


def head(model: nn.Module) -> nn.Linear:
    return [part for part in model.modules() if isinstance(part, nn.Linear)][-1]


def stages(module: nn.Module) -> list[nn.Module]:
    """The network's parts with parameters, from the images on: of a ResNet its stem's convolution
    and normalisation and four stages, of others their blocks; and the head."""
    found = []
    for name, child in module.named_children():
        if name in CONTAINERS:
            found += stages(child)
        elif any(True for _ in child.parameters()):
            found.append(child)
    return found


def freeze(model: nn.Module, freezing: str) -> None:
    """Turn gradients on for what is trained, and off for the rest: all (`finetuned`), the head
    alone (`frozen`), or, say, the last two stages and the head (`last2`). Raises ValueError where
    the network has fewer stages."""
    model.requires_grad_(freezing == "finetuned")
    head(model).requires_grad_(True)
    if freezing.startswith("last"):
        count = int(freezing.removeprefix("last"))
        found = [part for part in stages(model) if part is not head(model)]
        if count > len(found):
            raise ValueError(f"{freezing}: this backbone has {len(found)} stages")
        for part in found[-count:]:
            part.requires_grad_(True)


def train_mode(model: nn.Module, statistics_move: bool) -> None:
    """Set the model to training. Batch norm with frozen weights normalises by the batch, and
    updates its running statistics, only if these are to move."""
    model.train()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d) and not module.weight.requires_grad:
            module.train(statistics_move)


def check_backbones(names: list[str]) -> None:
    """Raise UserError for a name that is none of OWN, and no classifier of torchvision's that ends
    in one linear layer."""
    where = "params.yaml: grid.backbone"
    for name in [name for name in names if name not in OWN]:
        from torchvision import models

        if name not in (known := models.list_models(module=models)):
            close = ", ".join(get_close_matches(name, known) or ["resnet18", "resnet50"])
            raise UserError(f"{where}: torchvision has no classifier {name!r}; close are {close}")
        if not _ends_in_one_linear(name):
            lacks = "does not end in one linear layer, and so has no head to train alone"
            raise UserError(f"{where}: {name} {lacks}; take another")


def _ends_in_one_linear(backbone: str) -> bool:
    networks = [shape(backbone, classes) for classes in (7, 9)]
    if not any(isinstance(module, nn.Linear) for module in networks[0].modules()):
        return False
    seven, nine = (network.state_dict() for network in networks)
    varies = {name.rpartition(".")[0] for name in seven if seven[name].shape != nine[name].shape}
    return varies == {head_name(networks[0])}


def shape(backbone: str, classes: int = 1000) -> nn.Module:
    """The network on the meta device: shapes without numbers."""
    make = partial(architecture(backbone), num_classes=classes)
    try:
        with torch.device("meta"):
            return make()
    except NotImplementedError:  # some compute with tensors while they are made
        return make().to("meta")


def check_size(backbone: str, size: int) -> None:
    """Raise ValueError unless the network takes images of that side, in pixels."""
    try:
        shape(backbone).eval()(torch.empty((2, 3, size, size), device="meta"))
    except (AssertionError, RuntimeError) as error:
        raise ValueError(one_line(error)) from None


def architecture(backbone: str) -> Callable[..., nn.Module]:
    """The constructor of that network."""
    if backbone in OWN:
        return OWN[backbone]
    import torchvision  # two seconds, which the networks of OWN do without

    return partial(getattr(torchvision.models, backbone), **OPTIONS.get(backbone, {}))


def _fill(
    model: nn.Module, state: State, backbone: str, source: str | Path, new_head: bool = False
) -> None:
    """Load the state, but for a new head."""
    skipped = (f"{head_name(model)}.",) if new_head else ()
    state = {name: value for name, value in state.items() if not name.startswith(skipped)}
    meta = next(model.parameters()).is_meta
    try:
        # assign: a model on the meta device has nothing to copy into.
        missing, unexpected = load_state(model, state, strict=False, assign=meta)
    except RuntimeError as error:
        raise UserError(f"{source}: not weights of {backbone}: {one_line(error)}") from None
    # Checkpoints older than PyTorch 0.4.1 lack the counters, and nothing reads them.
    missing = [n for n in missing if not n.startswith(skipped) and not n.endswith(COUNTER)]
    if wrong := missing + unexpected:
        kind = "lacks" if missing else "has the unknown"
        raise UserError(f"{source}: not weights of {backbone}: it {kind} {wrong[0]}")
