"""When a network's answer is not to be taken: where it is unsure, and where an image is unlike all
that it was trained on."""

import numpy as np
from sklearn.neighbors import NearestNeighbors

from transfer.evidence.calibration import FEWEST, Said

NEAREST = 5
MOST = 2000
"""Training images at most whose features are kept."""
ALARMS = 0.05
"""Share of images of its own kind that may count as strangers."""


def sure(held: Said, risk: float) -> float | None:
    """The lowest confidence from which on at most that share of these images is wrong (Geifman and
    El-Yaniv 2017, without their bound); None if there is none, or fewer than FEWEST images."""
    confidence = held.probabilities.max(1)
    order = confidence.argsort(kind="stable")[::-1]
    wrong = (held.probabilities.argmax(1) != held.label)[order].cumsum()
    # Of equal confidences all are taken, or none.
    last = np.append(np.diff(confidence[order]) < 0, True)
    fits = np.flatnonzero((wrong <= risk * np.arange(1, len(order) + 1)) & last)
    if held.images < FEWEST or not len(fits):
        return None
    return float(confidence[order][fits[-1]])


def distance(features: np.ndarray, own: np.ndarray) -> np.ndarray:
    """How unlike the training images others are, by their features, float [m, d] and [n, d]: the
    distance to the NEAREST-th of them after scaling to length 1 (Sun 2022), float [m]."""
    count = min(NEAREST, len(own))
    return NearestNeighbors(n_neighbors=count).fit(_unit(own)).kneighbors(_unit(features))[0][:, -1]


def far(distances: np.ndarray) -> float | None:
    """The distance beyond which an image counts as a stranger: more than ALARMS of images like
    these, float [v], are not expected beyond it (split conformal prediction, Papadopoulos 2002);
    None for too few."""
    n = len(distances)
    rank = int(np.ceil((1 - ALARMS) * (n + 1)))
    return float(np.sort(distances)[rank - 1]) if rank <= n else None


def some(features: np.ndarray) -> np.ndarray:
    """At most MOST of them, at random, in half precision."""
    rng = np.random.default_rng(0)
    kept = np.sort(rng.permutation(len(features))[:MOST])
    return features[kept].astype(np.float16)


def _unit(rows: np.ndarray) -> np.ndarray:
    rows = rows.astype(np.float64)
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
