"""How far an image is from the training images, by the inputs of the network's last stage: what
follows them discards whatever does not tell the classes apart."""

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from torch import nn

from transfer.training import models

MOST = 2000
"""Training images that the distribution is fitted to, at most."""
FALSE_ALARMS = 0.05
"""Share of images like the training images that may be called *none of these*."""


@dataclass(frozen=True)
class FeatureDistribution:
    """A normal distribution fitted to the training images' features. mean: float32 [d]. precision:
    the inverse of the covariance, float32 [d, d]."""

    mean: np.ndarray
    precision: np.ndarray

    @classmethod
    def fit(cls, features: np.ndarray) -> Self:
        """To float32 [n, d], where n may be smaller than d (Ledoit and Wolf 2004)."""
        from sklearn.covariance import LedoitWolf  # slow to import, and `predict` does not need it

        fitted = LedoitWolf().fit(features.astype(np.float64))
        return cls(fitted.location_.astype(np.float32), fitted.precision_.astype(np.float32))

    def distances(self, features: np.ndarray) -> np.ndarray:
        """Mahalanobis distances, float64 [n], of float32 [n, d] (Lee 2018, with one mean for all
        classes)."""
        offsets = features.astype(np.float64) - self.mean
        with np.errstate(invalid="ignore"):  # gives NaN, which no caller accepts
            return np.sqrt(
                np.einsum("nd,de,ne->n", offsets, self.precision, offsets, optimize=True)
            )


def ood_distance(distances: np.ndarray) -> float | None:
    """The distance that images of the same distribution exceed with probability FALSE_ALARMS at
    most (split conformal prediction, Papadopoulos 2002), from those of validation images, float
    [v]; None if these are too few."""
    rank = int(np.ceil((1 - FALSE_ALARMS) * (len(distances) + 1)))
    return float(np.sort(distances)[rank - 1]) if rank <= len(distances) else None


def sample(n: int) -> np.ndarray:
    """At most MOST of n indices, drawn at random, the same each time: int64, ascending."""
    return np.sort(np.random.default_rng(0).permutation(n)[:MOST])


def layer(model: nn.Module) -> nn.Module:
    """The layer whose inputs are the features: the first of the network's last stage, or the head
    if timm does not know the network's stages."""
    try:
        weight = models.stages(model)[-1][0]
    except ValueError:
        return models.head(model)
    return next(part for part in model.modules() if _owns(part, weight))


def _owns(part: nn.Module, weight: nn.Parameter) -> bool:
    return any(parameter is weight for parameter in part.parameters(recurse=False))


def pooled(layer: Any, x: torch.Tensor) -> torch.Tensor:
    """The layer's inputs x, averaged over all positions: float32 [n, d]."""
    if x.ndim == 4:
        weight = getattr(layer, "weight", None)
        channels = getattr(layer, "in_channels", None if weight is None else weight.shape[-1])
        x = x.flatten(2).mT if channels in (None, x.shape[1]) else x.flatten(1, 2)
    return (x.mean(1) if x.ndim == 3 else x).float()
