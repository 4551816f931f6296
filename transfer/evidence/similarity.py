"""How similar a pretrained network's source is to a target data set, from the network with its own
head and the target's training images.

Throughout, features are float32 [n, d], the head's inputs; logits float32 [n, source classes];
labels [n] the target's, of any values. Functions of labels raise ValueError unless there is one
label per image and two classes or more.
"""

from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import minimize_scalar
from scipy.special import softmax
from sklearn.neighbors import NearestNeighbors
from torch import nn

from transfer.images.packed import Packed
from transfer.training import loader, models

BATCH = 64
"""Images that go through the network at once."""


@dataclass(frozen=True)
class Observed:
    """features: float32 [n, d]. logits: float32 [n, source classes].

    batchnorm: per BatchNorm2d, in module order, (target mean, target variance, source mean, source
    variance), float64 [channels]: the target's of the layer's input over all images and positions,
    the variance biased; the source's the layer's running ones.
    """

    features: np.ndarray
    logits: np.ndarray
    batchnorm: list[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]]


def collect(model: nn.Module, batches: Iterable[torch.Tensor], device: torch.device) -> Observed:
    """One pass over normalised float32 images [n, 3, h, w] by a network with its own head.

    The model is left on the device and in eval mode. Raises ValueError when there are no batches.
    """
    model.to(device).eval()
    layers = [layer for layer in model.modules() if isinstance(layer, nn.BatchNorm2d)]
    sums: dict[nn.Module, torch.Tensor] = {}
    features: list[torch.Tensor] = []
    logits: list[torch.Tensor] = []

    def add(layer: nn.Module, inputs: tuple[torch.Tensor]) -> None:
        variance, mean = torch.stack(torch.var_mean(inputs[0], (0, 2, 3), correction=0)).double()
        count = inputs[0].numel() // len(mean)
        moments = count * torch.stack([torch.ones_like(mean), mean, variance + mean**2])
        sums[layer] = sums[layer] + moments if layer in sums else moments

    def keep(layer: nn.Module, inputs: tuple[torch.Tensor]) -> None:
        features.append(inputs[0].cpu())

    with ExitStack() as hooks, torch.inference_mode():
        for layer in layers:
            hooks.enter_context(layer.register_forward_pre_hook(add))
        hooks.enter_context(models.head(model).register_forward_pre_hook(keep))
        for images in batches:
            logits.append(model(images.to(device)).cpu())
    if not logits:
        raise ValueError("there are no images to measure")
    batchnorm = []
    for layer in layers:
        count, mean, square = sums[layer].cpu().numpy()
        variance = np.maximum(square / count - (mean / count) ** 2, 0)
        source = (
            torch.stack([buffer for name, buffer in layer.named_buffers() if "running" in name])
            .double()
            .cpu()
            .numpy()
        )
        batchnorm.append((mean / count, variance, *source))
    return Observed(torch.cat(features).numpy(), torch.cat(logits).numpy(), batchnorm)


def batches(data: Packed) -> Iterator[torch.Tensor]:
    """The training images, prepared as test images are, and normalised."""
    n = len(data.train)
    for start in range(0, n, BATCH):
        indices = range(start, min(start + BATCH, n))
        images = [data.prepared_image(data.train, i) for i in indices]
        yield loader.normalize(torch.from_numpy(np.stack(images)))


def batchnorm_frechet(batchnorm: list[tuple]) -> float:
    """Fréchet distance between the inputs of the batch-norm layers; lower is more similar, ≥ 0.

    mean over layers of [mean over channels of (μt - μs)² + (σt - σs)²] / [mean over channels of
    σs²], t the target and s the source: the squared distance between Gaussians with diagonal
    covariance (Dowson & Landau 1982; FID, Heusel 2017), in units of the layer's source variance so
    that layers weigh alike. Raises ValueError without layers, or where a source variance is 0.
    """
    if not batchnorm or any(not source_variance.any() for *_, source_variance in batchnorm):
        raise ValueError("needs batch-norm layers, each with a source variance above 0")
    distances = []
    for mean, variance, source_mean, source_variance in batchnorm:
        squared = (mean - source_mean) ** 2 + (np.sqrt(variance) - np.sqrt(source_variance)) ** 2
        distances.append(squared.mean() / source_variance.mean())
    return float(np.mean(distances))


def knn_accuracy(features: np.ndarray, labels: np.ndarray, neighbours: int = 5) -> float:
    """Leave-one-out accuracy of k nearest neighbours by cosine; higher is more transferable.

    Cover & Hart 1967. Of classes with as many votes, the one of the nearest image wins; k is at
    most n - 1.
    """
    one_hot = _one_hot(labels, features)
    neighbours = min(neighbours, len(features) - 1)
    search = NearestNeighbors(n_neighbors=neighbours, algorithm="brute").fit(_unit(features))
    nearest = search.kneighbors(return_distance=False)  # an image is not its own neighbour
    # 1 vote each, and halves, quarters, … that only ever decide between as many votes.
    votes = 1 + 0.5 ** np.arange(1, neighbours + 1)
    chosen = np.einsum("k,nkc->nc", votes, one_hot[nearest]).argmax(axis=1)
    return float((chosen == one_hot.argmax(axis=1)).mean())


def logme(features: np.ndarray, labels: np.ndarray) -> float:
    """Log maximum evidence per image, nats; higher is more transferable (LogME, You et al. 2021).

    mean over classes of max over α, β of log p(y | F, α, β) / n, where y [n] is 1 for the class
    and 0 elsewhere, y ~ N(Fw, 1/β) and w ~ N(0, 1/α). The evidence has no maximum where F fits y
    exactly or not at all, so α/β is kept within 1e±8 of the sum of F's squares.
    """
    one_hot, n = _one_hot(labels, features), len(features)
    reduced = principal(features)
    eigenvalues = (reduced**2).sum(axis=0)
    reduced, eigenvalues = reduced[:, eigenvalues > 0], eigenvalues[eigenvalues > 0]
    axes = reduced / np.sqrt(eigenvalues)  # orthonormal, and each of mean 0
    mean = features.mean(axis=0, dtype=float)
    tilt = axes.T @ (features @ mean)
    mean_along = tilt**2 / eigenvalues
    mean_across = max(mean @ mean - mean_along.sum(), 0.0)
    squares = np.square(features, dtype=float).sum() or 1.0

    def evidence(
        decades: np.ndarray | float, fitted: np.ndarray, constant: float, outside: float
    ) -> np.ndarray:
        """At α/β = t = 10^decades of the squares, and the best β = n / (|y - Fw|² + t|w|²); of a y
        by its parts along the axes and the unit vector of ones, and the square of what is left.

        On these FFᵀ + t is diagonal but for the vector's row and column: its Schur complement gives
        the determinant and the inverse.
        """
        t = squares * 10 ** np.reshape(decades, (-1, 1))
        damped = eigenvalues + t
        complement = 1 + n * (mean_across / t[:, 0] + (mean_along / damped).sum(axis=1))
        crossed = constant - np.sqrt(n) * (tilt * fitted / damped).sum(axis=1)
        energy = outside + (fitted**2 * t / damped).sum(axis=1) + crossed**2 / complement
        determinant = np.log1p(eigenvalues / t).sum(axis=1) + np.log(complement)
        return (np.log(n / energy / 2 / np.pi) - 1 - determinant / n) / 2

    def best(y: np.ndarray) -> float:
        """There may be more than one peak: the top of the highest that a grid finds."""
        fitted, constant = axes.T @ y, y.mean() * np.sqrt(n)
        parts = fitted, constant, max(y @ y - fitted @ fitted - constant**2, 0.0)
        grid = np.linspace(-8, 8, 65)
        near = int(evidence(grid, *parts).argmax())
        bounds = grid[max(near - 1, 0)], grid[min(near + 1, len(grid) - 1)]
        top = minimize_scalar(lambda x: -evidence(x, *parts)[0], bounds=bounds, method="bounded")
        return -float(top.fun)

    return float(np.mean([best(y) for y in one_hot.T]))


def leep(logits: np.ndarray, labels: np.ndarray) -> float:
    """Log expected empirical prediction, nats, ≤ 0; higher is more transferable (Nguyen 2020).

    mean over images of log Σz P(y|z) θz: θ is the softmax over source classes z, and P(y|z) the
    share of target class y in all images' θz.
    """
    return _leep(softmax(logits.astype(float), axis=1), _one_hot(labels, logits))


def leep_null(
    logits: np.ndarray, labels: np.ndarray, permutations: int, seed: int
) -> tuple[float, float, float]:
    """(mean, sd, p) of LEEP over random permutations of the labels; a small p is transferable.

    p = (1 + how many are at least the observed) / (1 + permutations) (Phipson & Smyth 2010); the
    sd divides by the permutations. Raises ValueError without permutations.
    """
    if permutations < 1:
        raise ValueError("the null of LEEP needs one permutation or more")
    predictions, one_hot = softmax(logits.astype(float), axis=1), _one_hot(labels, logits)
    rng = np.random.default_rng(seed)
    null = [_leep(predictions, rng.permutation(one_hot)) for _ in range(permutations)]
    # Permutations that change nothing differ from the observed by rounding.
    reached = np.sum(np.array(null) >= _leep(predictions, one_hot) - 1e-12)
    return float(np.mean(null)), float(np.std(null)), float((1 + reached) / (1 + permutations))


def _leep(predictions: np.ndarray, one_hot: np.ndarray) -> float:
    joint = one_hot.T @ predictions
    # A source class that underflows for every image adds nothing, rather than 0/0.
    conditional = joint / np.maximum(joint.sum(axis=0), np.finfo(float).tiny)
    return float(np.log(((predictions @ conditional.T) * one_hot).sum(axis=1)).mean())


def principal(features: np.ndarray) -> np.ndarray:
    """The centred features along their principal components, float64 [n, min(n, d)], the one of
    largest variance first; what rounding hides is 0. From the eigenvectors of the smaller product
    of the features with themselves, in a fraction of an SVD's time."""
    rows = features - features.mean(axis=0, dtype=float)
    n, d = rows.shape
    values, vectors = np.linalg.eigh(rows @ rows.T if n <= d else rows.T @ rows)
    hidden = values <= values[-1] * max(n, d) * np.finfo(float).eps
    vectors[:, hidden] = 0
    reduced = vectors * np.sqrt(np.where(hidden, 0, values)) if n <= d else rows @ vectors
    return reduced[:, ::-1]


def measure(
    observed: Observed,
    labels: np.ndarray,
    classified: bool,
    permutations: int = 200,
    seed: int = 0,
) -> dict[str, float]:
    """All measures that the network allows, by key. classified: whether the logits are of the
    source's classes.

    Raises ValueError as the measures do, and if the network's weights or outputs are not finite.
    """
    features, logits = observed.features, observed.logits
    given = [features, logits, *(values for layer in observed.batchnorm for values in layer)]
    if not all(np.isfinite(values).all() for values in given):
        raise ValueError("the network's weights, or what it makes of the images, are not finite")
    measures = {
        "knn_accuracy": knn_accuracy(features, labels),
        "logme": logme(features, labels),
    }
    if observed.batchnorm:  # transformers have none
        measures["batchnorm_frechet"] = batchnorm_frechet(observed.batchnorm)
    if classified:
        null = leep_null(logits, labels, permutations, seed)
        measures |= dict(zip(("leep_null_mean", "leep_null_sd", "leep_p"), null, strict=True))
        measures["leep"] = leep(logits, labels)
    return measures


def _one_hot(labels: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """float64 [n, classes], after checking the labels of the rows."""
    classes, indices = np.unique(labels, return_inverse=True)
    if len(labels) != len(rows) or len(classes) < 2:
        raise ValueError("needs one label per image, and two classes or more")
    return np.eye(len(classes))[indices]


def _unit(rows: np.ndarray) -> np.ndarray:
    """Rows scaled to length 1; rows of zeros are left."""
    rows = rows.astype(float)
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.where(lengths > 0, lengths, 1.0)
