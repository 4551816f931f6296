"""How unlike all images that a network was trained on another is: by the inputs of its last stage,
since what comes after that leaves out what the classes do not need."""

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from torch import nn

from transfer.training import models

MOST = 2000
"""Training images at most that the others are compared with."""
ALARMS = 0.05
"""Share of images of its own kind that may count as strangers."""


@dataclass(frozen=True)
class Known:
    """What training images look like to the network. mean: of their features, float32 [d].
    precision: the inverse of their covariance, float32 [d, d]."""

    mean: np.ndarray
    precision: np.ndarray

    @classmethod
    def fit(cls, features: np.ndarray) -> Self:
        """Of float32 [n, d]; n may be smaller than d (Ledoit and Wolf 2004)."""
        from sklearn.covariance import LedoitWolf  # a second, which predicting does without

        fitted = LedoitWolf().fit(features.astype(np.float64))
        return cls(fitted.location_.astype(np.float32), fitted.precision_.astype(np.float32))

    def distances(self, features: np.ndarray) -> np.ndarray:
        """Mahalanobis's, float64 [n], of float32 [n, d] (Lee 2018, with one mean for all
        classes)."""
        apart = features.astype(np.float64) - self.mean
        with np.errstate(invalid="ignore"):  # NaN, which is no distance to trust
            return np.sqrt(np.einsum("nd,de,ne->n", apart, self.precision, apart, optimize=True))


def ood_distance(found: np.ndarray) -> float | None:
    """The distance beyond which an image counts as a stranger: no more than ALARMS of images like
    these, float [v], are expected to (split conformal prediction, Papadopoulos 2002); None for too
    few."""
    rank = int(np.ceil((1 - ALARMS) * (len(found) + 1)))
    return float(np.sort(found)[rank - 1]) if rank <= len(found) else None


def some(n: int) -> np.ndarray:
    """The places of at most MOST of n images, at random, int64 ascending."""
    return np.sort(np.random.default_rng(0).permutation(n)[:MOST])


def layer(model: nn.Module) -> nn.Module:
    """The first of the network's last stage, of which the inputs are the features; the head of a
    network whose stages timm does not know."""
    try:
        first = models.stages(model)[-1][0]
    except ValueError:
        return models.head(model)
    owners = (part for part in model.modules() for one in part.parameters(recurse=False)
              if one is first)  # fmt: skip
    return next(owners)


def pooled(layer: Any, x: torch.Tensor) -> torch.Tensor:
    """The mean over all positions of what the layer is given, float32 [n, d]."""
    if x.ndim == 4:
        weight = getattr(layer, "weight", None)
        channels = getattr(layer, "in_channels", None if weight is None else weight.shape[-1])
        x = x.flatten(2).mT if channels in (None, x.shape[1]) else x.flatten(1, 2)
    return (x.mean(1) if x.ndim == 3 else x).float()
