"""Which parts of an image an answer depends on: occlusion maps, the change of its probability when
each part is covered (Zeiler and Fergus 2014). Works with any network."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn

from transfer import files
from transfer.training import loader

PARTS = 8
"""Windows side by side; each step moves the window by half its width."""
GAP = 8
"""Pixels between images."""
AT_ONCE = 16
"""Covered copies in a batch."""


def picture(model: nn.Module, image: np.ndarray, answer: int) -> np.ndarray:
    """A prepared image, uint8 [size, size, 3], with the answer's occlusion map at its right."""
    return side_by_side(image, occlusion_map(model, torch.tensor(image), answer))


def occlusion_map(model: nn.Module, image: torch.Tensor, answer: int) -> np.ndarray:
    """For each pixel, by how much the answer's probability falls when a window over it is covered
    in grey, mean over the windows: float [size, size], of a prepared image, uint8 [size, size,
    3]."""
    from captum.attr import Occlusion  # slow to import, and used only here

    size = len(image)
    side = max(1, size // PARTS)
    step = max(1, side // 2)
    drops = Occlusion(lambda images: model(images).float().softmax(1)).attribute(
        loader.normalize(image[None].to(next(model.parameters()).device)),
        sliding_window_shapes=(3, side, side),
        strides=(3, step, step),
        target=answer,
        perturbations_per_eval=AT_ONCE,
    )
    return drops[0].mean(0).cpu().numpy()


def side_by_side(image: np.ndarray, drop: np.ndarray) -> np.ndarray:
    """The image, and beside it in grey with the parts that support the answer in red and those that
    oppose it in blue: uint8 [size, 2 size, 3]. drop: its occlusion map."""
    from matplotlib import colormaps  # slow to import, and used only here

    largest = max(float(np.abs(drop).max()), 1e-6)
    colours = colormaps["RdBu_r"](0.5 + drop / largest / 2)[..., :3] * 255
    weight = np.abs(drop)[..., None] / largest
    grey = image.mean(2, keepdims=True).repeat(3, 2)
    mixed = (1 - 0.7 * weight) * grey + 0.7 * weight * colours
    return np.concatenate([image, mixed.round().astype(np.uint8)], axis=1)


def write(path: Path, rows: list[list[np.ndarray]]) -> None:
    """Save images of one size, uint8 [h, w, 3], as a PNG, row by row."""
    height, width, _ = rows[0][0].shape
    shape = len(rows) * (height + GAP) - GAP, max(map(len, rows)) * (width + GAP) - GAP, 3
    sheet = np.full(shape, 255, np.uint8)
    for y, row in enumerate(rows):
        for x, image in enumerate(row):
            top, left = y * (height + GAP), x * (width + GAP)
            sheet[top : top + height, left : left + width] = image
    with files.replacing(path) as part:
        Image.fromarray(sheet).save(part, "PNG")
