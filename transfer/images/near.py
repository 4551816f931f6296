"""Images that look alike: re-saved, scaled or mirrored copies, by their thumbnails.

Thumbnails are uint8 [n, SIDE · SIDE · 3]. They are compared in blocks, so memory grows with their
number and not with its square.
"""

import numpy as np
from PIL import Image
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

SIDE = 16
"""The side of a thumbnail, in pixels."""
ALIKE = 0.99
"""Images whose thumbnails correlate at least this much look alike. Of 80 photographs and MRI
slices, saved as JPEG of quality 40 or halved, none fell below 0.996; of 153 photographs none had
more than 0.95 with any of 244 others."""
BLOCK = 256
"""Images that are compared with all others at once."""


def thumbnail(image: Image.Image) -> bytes:
    """The image in RGB, SIDE pixels wide and high; each pixel is a mean."""
    return image.resize((SIDE, SIDE), Image.Resampling.BOX).tobytes()


def nearest(thumbnails: np.ndarray, others: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Each image's largest correlation with one of the others, float32 [n], and the place of that
    one, int64 [n]. The correlation is 0 without others, and for images of one colour."""
    correlation = np.zeros(len(thumbnails), np.float32)
    place = np.zeros(len(thumbnails), np.int64)
    vectors, theirs = _normalised(thumbnails), _normalised(others)
    for start in range(0, len(vectors) if len(theirs) else 0, BLOCK):
        block = slice(start, start + BLOCK)
        found = _correlations(vectors[block], theirs)
        correlation[block], place[block] = found.max(axis=1), found.argmax(axis=1)
    return correlation, place


def distinct(thumbnails: np.ndarray) -> np.ndarray:
    """bool [n]: whether an image looks like no earlier image for which this is True."""
    vectors = _normalised(thumbnails)
    kept = np.ones(len(vectors), bool)
    for start in range(0, len(vectors), BLOCK):
        block = vectors[start : start + BLOCK]
        earlier = vectors[:start][kept[:start]]
        within = _correlations(block, block) >= ALIKE
        new = np.all(_correlations(block, earlier) < ALIKE, axis=1)
        for i in np.flatnonzero(new):
            new[i] = not (within[i, :i] & new[:i]).any()
        kept[start : start + BLOCK] = new
    return kept


def components(thumbnails: np.ndarray, classes: np.ndarray | None = None) -> np.ndarray:
    """int64 [n]: equal numbers for images that look alike, directly or by way of others; numbered
    in order of their first images. classes: int [n]; with them, only images of one class count as
    alike."""
    vectors = _normalised(thumbnails)
    numbers = np.arange(len(vectors))
    for start in range(0, len(vectors), BLOCK):
        block = slice(start, start + BLOCK)
        alike = _correlations(vectors[block], vectors[start:]) >= ALIKE
        alike &= numbers[block, None] != numbers[start:]
        if classes is not None:
            alike &= classes[block, None] == classes[start:]
        one, other = np.nonzero(alike)
        edges = numbers[start + one], numbers[start + other]
        graph = coo_array((np.ones(len(one), bool), edges), shape=(len(numbers),) * 2)
        numbers = connected_components(graph, directed=False)[1][numbers].astype(np.int64)
    return numbers


def _normalised(thumbnails: np.ndarray) -> np.ndarray:
    """float32, of mean 0 and length 1; images of one colour are 0."""
    vectors = thumbnails.astype(np.float32)
    vectors -= vectors.mean(axis=1, keepdims=True)
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    vectors /= np.where(lengths > 0, lengths, 1)
    return vectors


def _correlations(vectors: np.ndarray, others: np.ndarray) -> np.ndarray:
    """float32 [n, others]: the larger one of each pair as it is and with one of them mirrored."""
    mirrored = vectors.reshape(-1, SIDE, SIDE, 3)[:, :, ::-1].reshape(vectors.shape)
    return np.maximum(vectors @ others.T, mirrored @ others.T)
