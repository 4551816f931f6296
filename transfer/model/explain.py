"""What a network looked at: how much surer or less sure of its answer it is with each part of the
image covered (Zeiler and Fergus 2014). Works for any network, one image after another."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn

from transfer import files
from transfer.training import augment

PARTS = 8
"""Windows that fit side by side; each is moved by half its width."""
AT_ONCE = 16
"""Covered copies of the image that go through the network at once."""


def matters(model: nn.Module, image: torch.Tensor, answer: int) -> np.ndarray:
    """By how much the answer's probability falls with the parts around each pixel covered in grey,
    mean over the windows that cover it: float [size, size] of a prepared image, uint8 [size, size,
    3]."""
    from captum.attr import Occlusion  # a second, which only this needs

    size = len(image)
    side = max(1, size // PARTS)
    step = max(1, side // 2)
    found = Occlusion(lambda images: model(images).float().softmax(1)).attribute(
        augment.normalize(image[None].to(next(model.parameters()).device)),
        sliding_window_shapes=(3, side, side),
        strides=(3, step, step),
        target=answer,
        perturbations_per_eval=AT_ONCE,
    )
    return found[0].mean(0).cpu().numpy()


def write(path: Path, image: np.ndarray, matter: np.ndarray) -> None:
    """The image beside itself in grey with what spoke for the answer in red and against it in blue,
    as a PNG."""
    from matplotlib import colormaps  # predicting alone does without

    most = max(float(np.abs(matter).max()), 1e-6)
    colours = colormaps["RdBu_r"](0.5 + matter / most / 2)[..., :3] * 255
    weight = np.abs(matter)[..., None] / most
    grey = image.mean(2, keepdims=True).repeat(3, 2)
    mixed = (1 - 0.7 * weight) * grey + 0.7 * weight * colours
    both = np.concatenate([image, mixed.round().astype(np.uint8)], axis=1)
    with files.replacing(path) as part:
        Image.fromarray(both).save(part, "PNG")
