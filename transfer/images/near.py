"""Images that look alike: re-saved, scaled or mirrored copies, by their thumbnails."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from PIL import Image
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

if TYPE_CHECKING:
    from transfer.images.audit import Picture

SIDE = 16
"""Of a thumbnail, in pixels."""
ALIKE = 0.99
"""The correlation of thumbnails from which on two images are taken for copies. Of 80 photographs
and MRI slices, saved as JPEG of quality 40 or halved, none fell below 0.996; of 153 photographs
none had more than 0.95 with any of 244 others."""
TRAINED = ("train", "validation")
PARTS = ("test", "train", "all")
CHUNK = 1000
"""Pictures compared with all others at once."""


def thumbnail(image: Image.Image) -> bytes:
    """RGB, SIDE pixels wide and high, each the mean of what it stands for."""
    return image.resize((SIDE, SIDE), Image.Resampling.BOX).tobytes()


def pairs(pictures: list[Picture]) -> list[tuple[Picture, Picture]]:
    """Every test picture that looks like one of training, though it is not equal to any, with that
    which looks most alike."""
    trained = [p for p in pictures if p.part in TRAINED]
    equal = {p.content.digest for p in trained}
    test = [p for p in pictures if p.part == "test" and p.content.digest not in equal]
    nearest = zip(test, *_nearest(test, trained), strict=True)
    return [(picture, trained[duplicate]) for picture, most, duplicate in nearest if most >= ALIKE]


def dropped(pictures: list[Picture]) -> set[Picture]:
    """Pictures of training that look like one of test; of a source that is not divided, those that
    look like one before them."""
    test, train, pool = ([p for p in pictures if p.part == part] for part in PARTS)
    most, _ = _nearest(train, test)
    gone = {picture for picture, alike in zip(train, most, strict=True) if alike >= ALIKE}
    kept = np.ones(len(pool), bool)
    vectors, mirrored = _vectors(pool)
    for i in range(1, len(pool)):
        before = vectors[:i][kept[:i]]
        kept[i] = np.maximum(before @ vectors[i], before @ mirrored[i]).max() < ALIKE
    return gone | {picture for picture, stays in zip(pool, kept, strict=True) if not stays}


def units(pictures: list[Picture]) -> list[int]:
    """Of each picture a number, equal for those that stay together: the pictures of a group, equal
    ones, and those that look alike."""
    edges = _same(pictures)
    theirs, mirrored = _vectors(pictures)
    for start in range(0, len(pictures), CHUNK):
        chunk = slice(start, start + CHUNK)
        found = np.maximum(theirs[chunk] @ theirs.T, mirrored[chunk] @ theirs.T) >= ALIKE
        edges += [(start + one, other) for one, other in np.argwhere(found).tolist()]
    return _joined(edges, len(pictures))


def copies(pictures: list[Picture]) -> list[int]:
    """The same, of the pictures of a group and equal ones alone."""
    return _joined(_same(pictures), len(pictures))


def _same(pictures: list[Picture]) -> list[tuple[int, int]]:
    """Each picture's place, with that of the first of its group and of the first equal to it."""
    first: dict[str, int] = {}
    edges = []
    for at, picture in enumerate(pictures):
        for name in (f"group {picture.group}" if picture.group else "", picture.content.digest):
            edges += [(first.setdefault(name, at), at)] if name else []
    return edges


def _joined(edges: list[tuple[int, int]], n: int) -> list[int]:
    """Of each place a number, equal for those that edges join."""
    one, other = np.array(edges).T
    graph = coo_array((np.ones(len(one)), (one, other)), shape=(n, n))
    return connected_components(graph, directed=False)[1].tolist()


def _nearest(some: list[Picture], others: list[Picture]) -> tuple[np.ndarray, np.ndarray]:
    """Of each of some, its largest correlation with one of the others, as it is or mirrored, and
    which that is. 0 for images of one colour, and without others."""
    most, at = np.zeros(len(some), np.float32), np.zeros(len(some), np.int64)
    theirs, _ = _vectors(others)
    for start in range(0, len(some) if others else 0, CHUNK):
        chunk = slice(start, start + CHUNK)
        ours, mirrored = _vectors(some[chunk])
        found = np.maximum(ours @ theirs.T, mirrored @ theirs.T)
        most[chunk], at[chunk] = found.max(axis=1), found.argmax(axis=1)
    return most, at


def _vectors(pictures: list[Picture]) -> tuple[np.ndarray, np.ndarray]:
    """The thumbnails, and their mirror images, float32 [n, SIDE · SIDE · 3], of mean 0 and length
    1; images of one colour are 0."""
    thumbnails = b"".join(p.content.thumbnail for p in pictures)
    rows = np.frombuffer(thumbnails, np.uint8).reshape(-1, SIDE * SIDE * 3).astype(np.float32)
    rows -= rows.mean(axis=1, keepdims=True)
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    rows /= np.where(lengths > 0, lengths, 1)
    return rows, rows.reshape(-1, SIDE, SIDE, 3)[:, :, ::-1].reshape(rows.shape)
