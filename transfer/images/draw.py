"""Images drawn by code: a many-class source to pretrain on, and four targets of two classes.

The source is eight shapes, plain and striped, in colour. `hearts_drops` and `arrows_bolts` are
unseen shapes in the same style; `scans` and `cells` are grey, as from a medical scanner and a
microscope, and share nothing with the source but the square they fill.

Lengths are in half-widths of the image: x and y run from -1 to 1, left to right and top to bottom.
Colours and brightnesses run from 0 to 1.
"""

import zlib
from collections.abc import Callable
from functools import partial

import numpy as np
from PIL import Image, ImageDraw

from transfer.cli import UserError
from transfer.params import Draw

Rng = np.random.Generator
Painter = Callable[[Rng, int], np.ndarray]

_OVERSAMPLING = 4


def image(seed: int, dataset: str, name: str, index: int, size: int) -> np.ndarray:
    """Image `index` of class `name` as uint8 (size, size, 3).

    A pure function of its arguments, so more images leave the earlier ones as they were.
    Raises UserError for an unknown data set, KeyError for an unknown class.
    """
    painter = painters(dataset)[name]
    key = (seed, zlib.crc32(f"{dataset}/{name}".encode()), index)
    pixels = painter(np.random.default_rng(key), size)
    return (np.clip(pixels, 0, 1) * 255).round().astype(np.uint8)


def picture(settings: Draw, dataset: str, name: str, index: int) -> Image.Image:
    return Image.fromarray(image(settings.seed, dataset, name, index, settings.size))


def painters(dataset: str) -> dict[str, Painter]:
    """Class name → what paints one image of it as floats (size, size, 3).

    Raises UserError, with the names there are, for an unknown data set.
    """
    if dataset not in DATASETS:
        raise UserError(
            f"params.yaml: draw: no drawing for {dataset!r}; there are {', '.join(DATASETS)}"
        )
    return DATASETS[dataset]


# Shapes: outlines as points (n, 2) within the unit circle, one closed polygon each.


def _polar(radius: np.ndarray | float, angle: np.ndarray) -> np.ndarray:
    return np.stack([radius * np.sin(angle), -radius * np.cos(angle)], axis=-1)


def _arc(start: float, stop: float, radius: float = 1, points: int = 40) -> np.ndarray:
    return _polar(radius, np.linspace(start, stop, points))


def _regular(corners: int) -> np.ndarray:
    return _arc(0, 2 * np.pi, points=corners + 1)


def _star() -> np.ndarray:
    return _polar(np.resize([1, 0.42], 10), np.arange(10) * np.pi / 5)


def _cross() -> np.ndarray:
    quarter = np.array([(-0.28, -0.95), (0.28, -0.95), (0.28, -0.28)])
    turn = np.array([[0, 1], [-1, 0]])
    return np.concatenate([quarter @ np.linalg.matrix_power(turn, k) for k in range(4)])


def _ring() -> np.ndarray:
    return np.concatenate([_arc(0, 2 * np.pi), _arc(2 * np.pi, 0, radius=0.55)])


def _moon() -> np.ndarray:
    tip, bite = 0.6, 0.45
    x, y = np.sin(tip), np.cos(tip) - bite
    inner = _arc(-np.arctan2(x, y), np.arctan2(x, y) - 2 * np.pi, np.hypot(x, y)) - (0, bite)
    return np.concatenate([_arc(tip, 2 * np.pi - tip), inner])


def _flower() -> np.ndarray:
    angle = np.linspace(0, 2 * np.pi, 80)
    return _polar(0.72 + 0.28 * np.cos(5 * angle), angle)


def _heart() -> np.ndarray:
    t = np.linspace(0, 2 * np.pi, 60)
    y = 13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t)
    return np.stack([16 * np.sin(t) ** 3, -y - 2.5], axis=-1) / 16


def _drop() -> np.ndarray:
    t = np.linspace(0, 2 * np.pi, 60)
    return np.stack([0.95 * np.sin(t) * np.sin(t / 2) ** 1.5, -np.cos(t)], axis=-1)


def _arrow() -> np.ndarray:
    half = [(0, -1), (0.75, -0.15), (0.3, -0.15), (0.3, 0.95)]
    return np.array(half + [(-x, y) for x, y in reversed(half)])


def _bolt() -> np.ndarray:
    half = [(0.45, -1), (-0.65, 0.25), (-0.05, 0.25)]
    return np.array(half + [(-x, -y) for x, y in half])


SHAPES = {
    "disc": _regular(40),
    "triangle": _regular(3),
    "square": _regular(4),
    "star": _star(),
    "cross": _cross(),
    "ring": _ring(),
    "moon": _moon(),
    "flower": _flower(),
}
UNSEEN = {"heart": _heart(), "drop": _drop(), "arrow": _arrow(), "bolt": _bolt()}


# Textures: from x and y in units of the texture's period, the share of the second colour.


def _edge(value: np.ndarray) -> np.ndarray:
    """A step at 0, soft enough to be smooth at one sample a pixel."""
    return np.clip(0.5 + 2 * value, 0, 1)


def _plain(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.zeros_like(x)


def _striped(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return _edge(np.sin(2 * np.pi * x))


TEXTURES = {"plain": _plain, "striped": _striped}


# What every picture is made of.


def _axes(size: int) -> tuple[np.ndarray, np.ndarray]:
    """x and y of the pixel centres, (size, size) each."""
    centres = (np.arange(size) + 0.5) * 2 / size - 1
    return np.meshgrid(centres, centres)


def _turned(x: np.ndarray, y: np.ndarray, angle: float) -> tuple[np.ndarray, np.ndarray]:
    cos, sin = np.cos(angle), np.sin(angle)
    return cos * x - sin * y, sin * x + cos * y


def _placed(points: np.ndarray, angle: float, scale: float, centre: np.ndarray) -> np.ndarray:
    turned = np.stack(_turned(points[:, 0], points[:, 1], angle), axis=-1)
    return turned * scale + centre


def _coverage(outline: np.ndarray, size: int) -> np.ndarray:
    """The share of each pixel inside the outline, (size, size, 1)."""
    large = size * _OVERSAMPLING
    canvas = Image.new("L", (large, large))
    corners = ((outline + 1) * large / 2).ravel().tolist()
    ImageDraw.Draw(canvas).polygon(corners, fill=255)
    return np.asarray(canvas.reduce(_OVERSAMPLING), dtype=float)[..., None] / 255


def _clouds(rng: Rng, size: int, cells: int) -> np.ndarray:
    """Smooth noise of unit variance at its nodes, `cells` across, (size, size)."""
    nodes = rng.standard_normal((cells, cells)).astype(np.float32)
    return np.asarray(Image.fromarray(nodes).resize((size, size), Image.Resampling.BICUBIC))


def _colour(rng: Rng, saturation: float, value: float) -> np.ndarray:
    hue = rng.uniform() + np.arange(3) / 3
    return value * (1 - saturation * (0.5 + 0.5 * np.cos(2 * np.pi * hue)))


# The coloured style of the source and of the targets like it.


def _ground(rng: Rng, size: int, value: float) -> np.ndarray:
    """Clouds of two quiet colours."""
    share = np.clip(0.5 + 0.4 * _clouds(rng, size, 4), 0, 1)[..., None]
    first, second = (_colour(rng, rng.uniform(0.05, 0.35), value + d) for d in (-0.07, 0.07))
    return first + share * (second - first)


def _surface(rng: Rng, size: int, texture: Callable) -> np.ndarray:
    """Two shades of paint in a texture of random period, turn and phase."""
    x, y = _turned(*_axes(size), rng.uniform(0, 2 * np.pi))
    period = rng.uniform(0.34, 0.5)
    share = texture(x / period + rng.uniform(), y / period + rng.uniform())[..., None]
    first, second = (_colour(rng, rng.uniform(0.3, 0.9), value) for value in (0.95, 0.55))
    return first + share * (second - first)


def _thing(rng: Rng, size: int, outline: np.ndarray, texture: Callable) -> np.ndarray:
    """One bright, textured object on a dark ground, and grain."""
    pixels = _ground(rng, size, rng.uniform(0.1, 0.3))
    scale = rng.uniform(0.7, 0.85)
    body = _placed(outline, rng.normal(0, 0.2), scale, rng.uniform(-1, 1, 2) * (0.95 - scale))
    pixels += _coverage(body, size) * (_surface(rng, size, texture) - pixels)
    return pixels + rng.normal(0, 0.02, pixels.shape)


def _any_texture(rng: Rng, size: int, outline: np.ndarray) -> np.ndarray:
    return _thing(rng, size, outline, list(TEXTURES.values())[rng.integers(len(TEXTURES))])


# The grey style of the targets unlike the source.


def _grey(pixels: np.ndarray) -> np.ndarray:
    return np.repeat(pixels[..., None], 3, axis=-1)


def _scan(rng: Rng, size: int, lesion: float) -> np.ndarray:
    """A slice of a head: bright skull, cloudy tissue, and a blob `lesion` brighter than it."""
    x, y = _turned(*_axes(size), rng.normal(0, 0.15))
    width, height = rng.uniform(0.62, 0.74), rng.uniform(0.76, 0.88)
    radius = np.hypot(x / width, y / height)
    tissue = rng.uniform(0.3, 0.45) + 0.05 * _clouds(rng, size, 7) + 0.03 * _clouds(rng, size, 14)
    angle, distance = rng.uniform(0, 2 * np.pi), rng.uniform(0.1, 0.6)
    left, down = distance * width * np.cos(angle), distance * height * np.sin(angle)
    blob = np.exp(-((np.hypot(x - left, y - down) / rng.uniform(0.16, 0.26)) ** 2))
    inside = _edge(4 * (1 - radius)) * (tissue + lesion * blob)
    skull = 0.4 * np.exp(-(((radius - 1) / 0.06) ** 2))
    return _grey(0.04 + inside + skull + rng.normal(0, 0.03, x.shape))


def _cells(rng: Rng, size: int, core: float) -> np.ndarray:
    """Stained cells on a bright slide, their cores brighter than them by `core` (or darker)."""
    pixels = rng.uniform(0.55, 0.85) + 0.05 * _clouds(rng, size, 5)
    x, y = _axes(size)
    for _ in range(rng.integers(5, 10)):
        left, down = rng.uniform(-1, 1, 2)
        along, across = _turned(x - left, y - down, rng.uniform(0, np.pi))
        stretch, radius = rng.uniform(1, 1.5), rng.uniform(0.17, 0.27)
        depth = np.hypot(along / stretch, across * stretch) / radius
        pixels = pixels - rng.uniform(0.15, 0.4) * _edge(1 - depth) + core * _edge(0.5 - depth)
    return _grey(pixels + rng.normal(0, 0.04, x.shape))


DATASETS: dict[str, dict[str, Painter]] = {
    "things": {
        f"{shape}_{texture}": partial(_thing, outline=outline, texture=function)
        for shape, outline in SHAPES.items()
        for texture, function in TEXTURES.items()
    },
    "hearts_drops": {
        name: partial(_any_texture, outline=UNSEEN[name]) for name in ("heart", "drop")
    },
    "arrows_bolts": {
        name: partial(_any_texture, outline=UNSEEN[name]) for name in ("arrow", "bolt")
    },
    "scans": {
        "lesion": partial(_scan, lesion=0.35),
        "no_lesion": partial(_scan, lesion=0.0),
    },
    "cells": {
        "pale_core": partial(_cells, core=0.14),
        "dark_core": partial(_cells, core=-0.14),
    },
}
