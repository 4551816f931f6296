"""What a recipe names: activation, pooling, loss, optimizer, schedule and augmentation, by their
names in torch and torchvision (paper, section 4)."""

import inspect
import warnings
from collections.abc import Callable, Iterable
from math import isfinite
from typing import Any

import torch
from torch import nn, optim
from torch.nn.functional import cross_entropy, one_hot

from transfer.cli import one_line
from transfer.params import Component, Train
from transfer.training import models
from transfer.training.loader import CROP, FLIP
from transfer.training.step import Group, Loss

OWN = "own"
GEOMETRY = (CROP, FLIP)
MIXING = ("MixUp", "CutMix")
Mix = Callable[[torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor]]
"""Images float32 [n, 3, h, w] and labels int64 [n] → such images, and labels as for a Loss."""

# What networks activate with; gates (Sigmoid, Hardsigmoid, Softmax) are left alone.
ACTIVATIONS = (nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.GELU, nn.SiLU, nn.Hardswish, nn.Mish)
BY_LABEL = ("CrossEntropyLoss", "MultiMarginLoss")
BY_CLASS = ("BCEWithLogitsLoss", "MultiLabelSoftMarginLoss", "MSELoss", "SmoothL1Loss", "HuberLoss")


def check(train: Train, backbones: list[str]) -> None:
    """Raise ValueError for a name or option of these that torch, torchvision or a backbone does not
    take."""
    replaced = {train.activation.name, train.pooling.name} != {OWN}
    for backbone in backbones if replaced else ():
        model = models.shape(backbone)
        replace_activation(model, train.activation)
        replace_pooling(model, train.pooling)
    for backbone in backbones if train.layer_decay < 1 else ():
        models.layers(models.shape(backbone))
    classes = len(train.loss.options.get("weight", "abc"))
    criterion = loss(train.loss, train.class_weights, [1] * classes)
    _called(train.loss, criterion, torch.zeros(2, classes), torch.tensor([0, classes - 1]))
    stand_in = torch.zeros(2, requires_grad=True)
    stand_in.sum().backward()
    checked = optimizer(train.optimizer, [stand_in], lr=0.001)
    _called(train.optimizer, checked.step)
    rates(train.schedule, 0.001, train.epochs, train.warmup_epochs)
    transforms(train.augmentation)
    blended = mix(train.augmentation, classes)(torch.zeros(2, 3, 8, 8), torch.tensor([0, 1]))[1]
    if blended.ndim == 2:
        _called(train.loss, criterion, torch.zeros(2, classes), blended)
    for name in GEOMETRY:
        if [component.name for component in train.augmentation].count(name) > 1:
            raise ValueError(f"augmentation lists {name} twice")


def replace_activation(model: nn.Module, component: Component) -> None:
    """Replace the model's activations, except its gates, by the named one.

    Raises ValueError for a name that is no activation, and for a model without such modules.
    """
    if component.name == OWN:
        return
    made = _made(nn, component)
    if not type(made).__module__.endswith(".activation") or not _keeps_shape(made):
        raise ValueError(f"{component.name} is no activation of one tensor in torch.nn")
    places = [name for name, module in model.named_modules() if type(module) in ACTIVATIONS]
    if not places:
        raise ValueError(f"this backbone has no activation modules to make {component.name}")
    for name in places:
        model.set_submodule(name, _made(nn, component))


def replace_pooling(model: nn.Module, component: Component) -> None:
    """Replace the model's last average pooling, by AdaptiveMaxPool2d, for example.

    Raises ValueError for another name, and for a model that has none.
    """
    if component.name == OWN:
        return
    if component.name not in ("AdaptiveAvgPool2d", "AdaptiveMaxPool2d") or component.options:
        raise ValueError(f"{component.name}: give own, AdaptiveAvgPool2d or AdaptiveMaxPool2d")
    if not isinstance(pooling := getattr(model, "avgpool", None), nn.AdaptiveAvgPool2d):
        raise ValueError("this backbone has no AdaptiveAvgPool2d before its classifier")
    model.avgpool = getattr(nn, component.name)(pooling.output_size)


def loss(
    component: Component,
    class_weights: str,
    counts: list[int],
    device: torch.device | str = "cpu",
) -> Loss:
    """On the device. counts: training images of each class, which `balanced` class weights divide
    by, as scikit-learn's do.

    Raises ValueError for a name that is no loss of outputs and labels in torch.nn, and for options
    that it does not take."""
    options = dict(component.options)
    if class_weights == "balanced":
        if component.name != "CrossEntropyLoss" or "weight" in options:
            raise ValueError("class_weights: balanced is for CrossEntropyLoss without weight")
        options["weight"] = [sum(counts) / len(counts) / count for count in counts]
    if component.name == "CrossEntropyLoss" and not options:
        return cross_entropy
    if component.name not in BY_LABEL + BY_CLASS:
        raise ValueError(f"{component.name}: give one of {', '.join(BY_LABEL + BY_CLASS)}")
    if isinstance(weight := options.get("weight"), list):
        if component.name in BY_LABEL and len(weight) != len(counts):
            raise ValueError(f"{component.name}: {len(weight)} weights for {len(counts)} classes")
        options["weight"] = torch.tensor(weight, dtype=torch.float32)
    module = _made(nn, Component(component.name, options)).to(device)
    if component.name in BY_LABEL:
        return module

    def by_class(outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        shares = labels if labels.ndim == 2 else one_hot(labels, outputs.shape[1]).float()
        return module(outputs, shares)

    return by_class


def optimizer(
    component: Component, parameters: Iterable[torch.Tensor] | list[Group], lr: float
) -> optim.Optimizer:
    """For parameters, or groups of them; step.set_rate sets their rates later.

    Raises ValueError for a name that is no optimiser in torch.optim that steps on gradients alone,
    and for options that it does not take.
    """
    given: Any = list(parameters)
    if component == Component("Adam"):
        first = given[0]["params"][0] if isinstance(given[0], dict) else given[0]
        gpu = first.device.type == "cuda"
        # A recorded step reads the rates from tensors, of which each group needs its own.
        rate = torch.tensor(lr, device=first.device) if gpu else lr
        adam = optim.Adam(given, rate, fused=True, capturable=gpu)
        for group in adam.param_groups if gpu else ():
            group["lr"] = group["lr"].clone()
        return adam
    return _made(optim, component, given, lr=lr)


def rates(component: Component, lr: float, epochs: int, warmup: int = 0) -> list[float]:
    """The learning rate of each epoch: it rises evenly in the epochs of the warm-up, and then the
    schedule begins. A schedule's length (T_max, total_iters, total_steps) is that of what is left
    of the run where it is not given.

    Raises ValueError for a warm-up of all epochs, for a name that is no schedule in
    torch.optim.lr_scheduler that steps by epochs alone, and for options that it does not take or
    that give no finite rates.
    """
    if warmup >= epochs:
        raise ValueError(f"warmup_epochs leaves none of {epochs} epochs to the schedule")
    epochs -= warmup
    kind = getattr(optim.lr_scheduler, component.name, None)
    takes = inspect.signature(kind).parameters if callable(kind) else ()
    lengths = {name: epochs for name in ("T_max", "total_iters", "total_steps") if name in takes}
    component = Component(component.name, lengths | component.options)
    stand_in = optim.SGD([nn.Parameter(torch.zeros(()))], lr=lr, momentum=0.9)
    schedule = _made(optim.lr_scheduler, component, stand_in)
    values = [lr * (epoch + 1) / (warmup + 1) for epoch in range(warmup)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # no gradient is ever taken
        for _ in range(epochs):
            values.append(stand_in.param_groups[0]["lr"])
            stand_in.step()
            _called(component, schedule.step)
    if not all(map(isfinite, values)):
        raise ValueError(f"{component.name}: gives learning rates that are not finite")
    return values


def transforms(components: tuple[Component, ...]) -> list[nn.Module]:
    """The augmentations besides crop and flip. Raises ValueError for a name that is no transform
    of an image in torchvision.transforms.v2, and for options that it does not take."""
    result = []
    for component in components:
        if component.name in GEOMETRY:
            _check_geometry(component)
        if component.name in GEOMETRY + MIXING:
            continue
        from torchvision.transforms import v2  # two seconds, which crop and flip do without

        made = _made(v2, component)
        image = _called(component, made, torch.zeros((3, 8, 8), dtype=torch.uint8))
        if not torch.is_tensor(image) or (image.shape, image.dtype) != ((3, 8, 8), torch.uint8):
            raise ValueError(f"{component.name} changes the image's size or type")
        result.append(made)
    return result


def mix(components: tuple[Component, ...], classes: int) -> Mix:
    """The augmentations of MIXING; of several, one at random for each batch. Raises ValueError for
    options that they do not take."""
    if not (mixing := [component for component in components if component.name in MIXING]):
        return lambda images, labels: (images, labels)
    from torchvision.transforms import v2

    made = [_made(v2, component, num_classes=classes) for component in mixing]
    return made[0] if len(made) == 1 else v2.RandomChoice(made)


def _check_geometry(component: Component) -> None:
    # Thinner crops would be resized by way of something very large.
    crop = {"scale": (1e-9, 1.0), "ratio": (1e-3, 1e3)}
    ranges = {"p": (0.0, 1.0)} if component.name == FLIP else crop
    for name, value in component.options.items():
        if name not in ranges:
            raise ValueError(f"{component.name}: {name} is no option here, only {(*ranges,)}")
        try:
            low, high = map(float, (value, value) if name == "p" else value)
        except (TypeError, ValueError):
            raise ValueError(f"{component.name}: {value!r} is no pair of numbers") from None
        least, most = ranges[name]
        if not least <= low <= high <= most:
            words = f"{name} {value} is out of range: give {least:g} to {most:g}, the smaller first"
            raise ValueError(f"{component.name}: {words}")


def _made(module: Any, component: Component, *arguments: Any, **named: Any) -> Any:
    kind = getattr(module, component.name, None)
    if not inspect.isclass(kind):
        raise ValueError(f"{component.name}: {module.__name__} has no such class")
    return _called(component, kind, *arguments, **named, **component.options)


def _called(
    component: Component, function: Callable[..., Any], *arguments: Any, **named: Any
) -> Any:
    try:
        return function(*arguments, **named)
    except Exception as error:  # whatever the class makes of options that do not fit it
        raise ValueError(f"{component.name}: {one_line(error)}") from None


def _keeps_shape(module: nn.Module) -> bool:
    try:
        return module(torch.zeros(2, 4, 3, 3)).shape == (2, 4, 3, 3)
    except Exception:  # MultiheadAttention takes more than one tensor
        return False
