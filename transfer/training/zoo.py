"""Networks that are not torchvision's: timm's, and small ones of our own.

timm is imported when one of its networks is named, so that studies of other networks do without it.
A network of timm's is built by its architecture's name, such as convnext_tiny; the name of its
weights is timm's tag, such as fb_in22k_ft_in1k.
"""

from difflib import get_close_matches
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from transfer.cli import UserError, one_line
from transfer.training.loader import MEAN, STD

SCALE, SHIFT = "normalization.scale", "normalization.shift"
"""The tensors of a checkpoint that say how its network's input is normalised."""


class Normalization(nn.Module):
    """From images normalised by loader.MEAN and STD, float32 [n, 3, h, w], to the same normalised
    by another mean and standard deviation of each channel."""

    scale: torch.Tensor
    shift: torch.Tensor

    def __init__(self, mean: list[float], std: list[float]) -> None:
        super().__init__()
        channels = list(zip(MEAN, STD, mean, std, strict=True))
        scale = torch.tensor([our_std / std for _, our_std, _, std in channels])
        shift = torch.tensor([(our_mean - mean) / std for our_mean, _, mean, std in channels])
        self.register_buffer("scale", scale[:, None, None])
        self.register_buffer("shift", shift[:, None, None])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.scale + self.shift


class Network(nn.Module):
    """A network of timm's that takes images as a ResNet of torchvision's does."""

    def __init__(self, backbone: str, num_classes: int | None = None, **options: Any) -> None:
        """num_classes: as many as its weights have, if not given. options: of timm.create_model."""
        super().__init__()
        import timm

        classes = {} if num_classes is None else {"num_classes": num_classes}
        self.network = timm.create_model(backbone, **classes, **options)
        card = self.network.pretrained_cfg
        self.normalization = Normalization(card["mean"], card["std"])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.network(self.normalization(x))

    @property
    def head(self) -> Any:
        """Its classifier: a linear layer, or another module in a network without such a head."""
        return self.network.get_classifier()

    @property
    def size(self) -> int:
        """The side of the images that it was made for, in pixels."""
        return self.network.pretrained_cfg["input_size"][1]

    def groups(self, coarse: bool) -> list[list[nn.Parameter]]:
        """The parameters of its stem, of each stage (coarse) or block after it, and of its head.
        Raises ValueError for a network of which timm does not know them."""
        from timm.models import group_parameters

        if not hasattr(self.network, "group_matcher"):
            raise ValueError("timm does not say what the stages of this backbone are")
        groups = group_parameters(self.network, self.network.group_matcher(coarse=coarse))
        named = dict(self.network.named_parameters())
        return [[named[name] for name in groups[key]] for key in sorted(groups)]


def check(backbone: str, resnets: list[str]) -> None:
    """Raise UserError unless timm has a network of that name with one linear head. resnets:
    torchvision's, for the message."""
    where = "params.yaml: grid.backbone"
    try:
        import timm
    except ModuleNotFoundError:
        known = ", ".join(resnets)
        raise UserError(
            f"{where}: {backbone!r} is none of {known}; for networks of timm's: pip install timm"
        ) from None
    if "." in backbone or not timm.is_model(backbone):
        close = get_close_matches(backbone.partition(".")[0], [*resnets, *timm.list_models()])
        names = ", ".join(close or resnets[:2])
        raise UserError(f"{where}: timm has no network {backbone!r}; close are {names}")
    with torch.device("meta"):
        head = Network(backbone, num_classes=7).head
    if not isinstance(head, nn.Linear):
        raise UserError(
            f"{where}: {backbone} does not end in one linear layer, and so has no head to train "
            "alone; take another"
        )


def tags(backbone: str) -> list[str]:
    """The names of its weights."""
    import timm

    return [name.partition(".")[2] for name in timm.list_pretrained(f"{backbone}.*")]


def fetch(backbone: str, tag: str) -> Path:
    """The file of these weights, downloaded from Hugging Face's hub unless it is in the hub's
    cache. Raises UserError where that fails."""
    import timm
    from huggingface_hub import hf_hub_download

    card = timm.get_pretrained_cfg(f"{backbone}.{tag}")
    name = card.hf_hub_filename or "model.safetensors"
    try:
        return Path(hf_hub_download(card.hf_hub_id, name))
    except Exception as error:  # several libraries raise their own
        raise UserError(
            f"{card.hf_hub_id}/{name}: {one_line(error)}; fetch it by other means and set "
            f"weights.{backbone}.source in params.yaml to the file"
        ) from None


def convert(backbone: str, tag: str, state: dict[str, torch.Tensor], source: str) -> dict[str, Any]:
    """The state_dict of a file of timm's, `source`, as one of Network. Raises UserError for weights
    of another network."""
    import timm

    name = f"{backbone}.{tag}" if tag else backbone
    card = timm.get_pretrained_cfg(name)
    weight = state.get(f"{card.classifier}.weight")
    # A file without that key has older names or no head.
    counts = [card.num_classes, 0] if weight is None else [len(weight)]
    errors = []
    for classes in counts:
        overlay = {"state_dict": state, "num_classes": classes}
        try:
            model = Network(name, classes, pretrained=True, pretrained_cfg_overlay=overlay)
        except (RuntimeError, KeyError, AttributeError) as error:
            errors.append(one_line(error))
        else:
            return model.state_dict()
    raise UserError(f"{source}: not weights of {name}: {errors[0]}")


class Block(nn.Module):
    """Two convolutions beside a shortcut."""

    def __init__(self, before: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, channels, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU()
        self.downsample = nn.Sequential()
        if stride > 1:
            shortcut = nn.Conv2d(before, channels, 1, stride, bias=False)
            self.downsample.extend([shortcut, nn.BatchNorm2d(channels)])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        return self.relu(out + self.downsample(x))


class MiniResNet(nn.Module):
    """A residual network of a quarter of a ResNet's channels, for images of 32 pixels (He et al.
    2016): four stages of that many blocks each, of 16 to 128 channels. Input float32 [n, 3, h, w].

    Its parts have the names of torchvision's ResNets, whose first convolution would see more than a
    quarter of such an image.
    """

    def __init__(self, blocks: int, num_classes: int = 1000) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, stride=2, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.relu = nn.ReLU()
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        self.layer1 = _stage(16, 16, blocks, stride=1)
        self.layer2 = _stage(16, 32, blocks)
        self.layer3 = _stage(32, 64, blocks)
        self.layer4 = _stage(64, 128, blocks)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(128, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(self.avgpool(x).flatten(1))


def _stage(before: int, channels: int, blocks: int, stride: int = 2) -> nn.Sequential:
    more = [Block(channels, channels, stride=1) for _ in range(blocks - 1)]
    return nn.Sequential(Block(before, channels, stride), *more)


MINIATURE = {"miniresnet10": partial(MiniResNet, 1), "miniresnet18": partial(MiniResNet, 2)}
