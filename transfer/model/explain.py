"""What a network looked at: how much surer or less sure of its answer it is with each part of the
image covered (Zeiler and Fergus 2014). Works for any network, one image after another."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn

from transfer import files
from transfer.training import loader

PARTS = 8
"""Windows that fit side by side; each is moved by half its width."""
GAP = 8
"""Pixels between images."""
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
        loader.normalize(image[None].to(next(model.parameters()).device)),
        sliding_window_shapes=(3, side, side),
        strides=(3, step, step),
        target=answer,
        perturbations_per_eval=AT_ONCE,
    )
    return found[0].mean(0).cpu().numpy()


def beside(image: np.ndarray, matter: np.ndarray) -> np.ndarray:
    """The image beside itself in grey with what spoke for the answer in red and against it in blue,
    uint8 [size, 2 size, 3]."""
    from matplotlib import colormaps  # predicting alone does without

    most = max(float(np.abs(matter).max()), 1e-6)
    colours = colormaps["RdBu_r"](0.5 + matter / most / 2)[..., :3] * 255
    weight = np.abs(matter)[..., None] / most
    grey = image.mean(2, keepdims=True).repeat(3, 2)
    mixed = (1 - 0.7 * weight) * grey + 0.7 * weight * colours
    return np.concatenate([image, mixed.round().astype(np.uint8)], axis=1)


def write(path: Path, rows: list[list[np.ndarray]]) -> None:
    """Images of one size, uint8 [h, w, 3], in rows, as a PNG."""
    height, width, _ = rows[0][0].shape
    shape = len(rows) * (height + GAP) - GAP, max(map(len, rows)) * (width + GAP) - GAP, 3
    sheet = np.full(shape, 255, np.uint8)
    for y, row in enumerate(rows):
        for x, image in enumerate(row):
            top, left = y * (height + GAP), x * (width + GAP)
            sheet[top : top + height, left : left + width] = image
    with files.replacing(path) as part:
        Image.fromarray(sheet).save(part, "PNG")
