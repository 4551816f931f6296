"""Backbones: torchvision ResNets with a new classifier, from a checkpoint or at random."""

import pickle
import sys
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

import torch
from torch import nn

from transfer import files
from transfer.cli import UserError

HEAD = "fc"


def build(backbone: str, classes: int, checkpoint: str | Path, seed: int) -> nn.Module:
    """A torchvision ResNet with a new `classes`-way head (report, section 2.3).

    Everything the checkpoint does not hold is drawn from `seed`: the head always, the whole
    network when the checkpoint is empty. Raises UserError as `load_checkpoint` does.
    """
    state = load_checkpoint(checkpoint)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = _architecture(backbone)(num_classes=classes)
    if state:
        _fill(model, _without_head(state), backbone, checkpoint)
    return model


def source(backbone: str, checkpoint: str | Path) -> nn.Module:
    """The checkpoint's own network, with the head it was trained with.

    Raises UserError as `load_checkpoint` does, and for a checkpoint without a head.
    """
    state = load_checkpoint(checkpoint)
    if f"{HEAD}.weight" not in state:
        raise UserError(f"{checkpoint}: has no {HEAD}.weight, the head of its source classes")
    model = _architecture(backbone)(num_classes=len(state[f"{HEAD}.weight"]))
    _fill(model, state, backbone, checkpoint)
    return model


def load_checkpoint(path: str | Path, source: str | Path = "") -> dict[str, torch.Tensor]:
    """Read a state_dict; a file that holds more than tensors is refused, never run.

    `source` names the file in messages, if not its path. Raises UserError for a file that is
    missing, is not a checkpoint, or holds pickled code.
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
        raise UserError(f"{source}: not a whole checkpoint: {_line(error)}") from None
    if not isinstance(state, dict) or not all(torch.is_tensor(v) for v in state.values()):
        raise UserError(f"{source}: not a state_dict (names → tensors)")
    return state


def save_empty(path: str | Path) -> None:
    """Write a checkpoint that holds nothing: a baseline's, from which `build` draws it all."""
    with files.replacing(path) as part:
        torch.save({}, part)


def check_fits(state: dict[str, torch.Tensor], backbone: str, source: str | Path) -> None:
    """Raise UserError unless `state` is that backbone's, apart from the head."""
    with torch.device("meta"):
        model = _architecture(backbone)()
    _fill(model, _without_head(state), backbone, source)


def freeze(model: nn.Module) -> None:
    """Leave gradients to the head alone. Batch-norm statistics still move in train()."""
    model.requires_grad_(False)
    getattr(model, HEAD).requires_grad_(True)


def check_backbones(names: list[str]) -> None:
    """Raise UserError for a name that is not a torchvision ResNet."""
    known = [name for name in _resnet().__all__ if name.islower()]
    for name in names:
        if name not in known:
            raise UserError(
                f"params.yaml: grid.backbone: torchvision has no ResNet {name!r}, "
                f"only {', '.join(known)}"
            )


def _architecture(backbone: str) -> Callable[..., nn.Module]:
    """torchvision's constructor of that ResNet."""
    return getattr(_resnet(), backbone)


def _resnet() -> ModuleType:
    """torchvision's module of ResNets, with its others left alone.

    Importing torchvision whole takes seconds, and each of 64 runs would pay them.
    """
    if "torchvision" in sys.modules:
        from torchvision.models import resnet

        return resnet
    return _import_alone("torchvision", "models", "resnet")


def _import_alone(package: str, inner: str, module: str) -> ModuleType:
    """Import package.inner.module without running the packages' own __init__ files."""
    folder = find_spec(package).submodule_search_locations[0]
    for name, path in ((package, folder), (f"{package}.{inner}", f"{folder}/{inner}")):
        sys.modules[name] = ModuleType(name)
        sys.modules[name].__path__ = [path]
    try:
        return import_module(f"{package}.{inner}.{module}")
    finally:
        # So that a later import finds nothing and loads the package whole.
        for name in [name for name in sys.modules if name.split(".")[0] == package]:
            del sys.modules[name]


def _without_head(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: value for name, value in state.items() if not name.startswith(f"{HEAD}.")}


def _fill(model: nn.Module, state: dict, backbone: str, source: str | Path) -> None:
    meta = next(model.parameters()).is_meta
    try:
        # assign: a model on the meta device has nothing to copy into.
        missing, unexpected = model.load_state_dict(state, strict=False, assign=meta)
    except RuntimeError as error:
        raise UserError(f"{source}: not weights of {backbone}: {_line(error)}") from None
    # Checkpoints older than PyTorch 0.4.1 lack the counters, and nothing reads them.
    missing = [
        name
        for name in missing
        if not name.startswith(f"{HEAD}.") and not name.endswith("num_batches_tracked")
    ]
    if wrong := missing + unexpected:
        kind = "lacks" if missing else "has the unknown"
        raise UserError(f"{source}: not weights of {backbone}: it {kind} {wrong[0]}")


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
