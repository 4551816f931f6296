"""When an image is unlike all that a network was trained on."""

import numpy as np
from sklearn.neighbors import NearestNeighbors
from sklearn.preprocessing import normalize

NEAREST = 5
MOST = 2000
"""Training images at most whose features are kept."""
ALARMS = 0.05
"""Share of images of its own kind that may count as strangers."""


def distances(features: np.ndarray, own: np.ndarray) -> np.ndarray:
    """How unlike the training images others are, by their features, float [m, d] and [n, d]: the
    distance to the NEAREST-th of them, float [m, 2], as they are and after scaling to length 1 (Sun
    2022). A trained network maps some strangers to its classes' directions, at other lengths, and
    others near 0."""
    count = min(NEAREST, len(own))
    features, own = features.astype(np.float64), own.astype(np.float64)
    both = [(features, own), (normalize(features), normalize(own))]
    near = [NearestNeighbors(n_neighbors=count).fit(them).kneighbors(us)[0] for us, them in both]
    return np.stack([found[:, -1] for found in near], 1)


def far(found: np.ndarray) -> list[float] | None:
    """The distances of which an image that is beyond either counts as a stranger: no more than
    ALARMS of images like these, float [v, 2], are expected to (split conformal prediction,
    Papadopoulos 2002, with half of it for each); None for too few."""
    n = len(found)
    rank = int(np.ceil((1 - ALARMS / found.shape[1]) * (n + 1)))
    return np.sort(found, axis=0)[rank - 1].tolist() if rank <= n else None


def some(features: np.ndarray) -> np.ndarray:
    """At most MOST of them, at random, in half precision."""
    rng = np.random.default_rng(0)
    kept = np.sort(rng.permutation(len(features))[:MOST])
    return features[kept].astype(np.float16)
