"""Every measure against a worked case or another implementation, and what must hold of any data."""

from dataclasses import replace
from itertools import permutations

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from scipy.stats import multivariate_normal

from transfer.evidence import similarity
from transfer.evidence.measures import MEASURES

CPU = torch.device("cpu")
LABELLED = [key for key in MEASURES if key != "batchnorm_frechet"]


def draw(n=60, d=5, classes=3, apart=3.0, seed=0):
    """Classes around prototypes that are also the source's: (observed, labels)."""
    rng = np.random.default_rng(seed)
    prototypes = rng.normal(0, apart, (classes, d))
    labels = np.arange(n) % classes
    features = (prototypes[labels] + rng.normal(size=(n, d))).astype(np.float32)
    batchnorm = [tuple(rng.uniform(1, 2, 4) for _ in range(4))]
    return similarity.Observed(features, features @ prototypes.T, batchnorm), labels


@pytest.fixture(scope="module")
def model():
    from torchvision.models import resnet18

    torch.manual_seed(0)
    model = resnet18(num_classes=7)
    for layer in model.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.running_mean.normal_()
            layer.running_var.uniform_(0.5, 2)
    return model


def test_collect_is_the_whole_set_at_once(model):
    images = torch.randn(5, 3, 32, 32)
    observed = similarity.collect(model, [images[:3], images[3:]], CPU)
    layers = [m for m in model.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert len(observed.batchnorm) == len(layers) == 20
    assert not any(m._forward_pre_hooks for m in model.modules())
    inputs = {}
    for layer in layers:
        layer.register_forward_pre_hook(lambda m, given: inputs.update({m: given[0].numpy()}))
    with torch.inference_mode():
        logits = model.eval()(images)
        features = torch.nn.Sequential(*list(model.children())[:-1])(images).flatten(1)
    np.testing.assert_allclose(observed.logits, logits, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(observed.features, features, rtol=1e-5, atol=1e-5)
    assert observed.features.dtype == observed.logits.dtype == np.float32
    for layer, (mean, variance, *source) in zip(layers, observed.batchnorm, strict=True):
        given = inputs[layer].astype(np.float64)
        np.testing.assert_allclose(mean, given.mean((0, 2, 3)), rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(variance, given.var((0, 2, 3)), rtol=1e-4)
        np.testing.assert_array_equal(source, [layer.running_mean, layer.running_var])
        assert mean.dtype == variance.dtype == source[0].dtype == source[1].dtype == np.float64


def test_collect_removes_its_hooks_after_an_error(model):
    before = [len(m._forward_pre_hooks) for m in model.modules()]
    with pytest.raises(RuntimeError):
        similarity.collect(model, [torch.zeros(1, 4, 32, 32)], CPU)
    with pytest.raises(ValueError, match="no images"):
        similarity.collect(model, [], CPU)
    assert [len(m._forward_pre_hooks) for m in model.modules()] == before


def test_batchnorm_frechet_by_hand():
    layer = np.array([[1.0, 0], [4, 1], [0, 0], [1, 1]])  # (1² + (2 - 1)²) / 2 channels = 1
    rescaled = layer * [[10], [100], [10], [100]]
    halved = np.array([[0.0, 1], [2, 2], [0, 0], [2, 2]])  # 1² / 2 channels / 2 = 1/4
    assert similarity.batchnorm_frechet([tuple(layer), tuple(rescaled)]) == pytest.approx(1)
    assert similarity.batchnorm_frechet([tuple(layer), tuple(halved)]) == pytest.approx(5 / 8)
    assert similarity.batchnorm_frechet([(*layer[:2], *layer[:2])]) == 0


@pytest.mark.parametrize("neighbours", [1, 4, 100])
def test_knn_accuracy_by_loops(neighbours):
    observed, labels = draw(n=24, apart=0.7)
    labels = np.minimum(labels, 1)
    units = [row / np.linalg.norm(row) for row in observed.features.astype(float)]
    right = 0
    for i, unit in enumerate(units):
        others = sorted(set(range(24)) - {i}, key=lambda j: -(unit @ units[j]))
        near = [labels[j] for j in others[:neighbours]]
        # max takes the first of equals, and the nearest come first
        right += max(near, key=near.count) == labels[i]
    assert 0 < right < 24
    assert similarity.knn_accuracy(observed.features, labels, neighbours) == right / 24


@pytest.mark.parametrize(("n", "d"), [(20, 3), (8, 12)])
def test_logme_is_the_best_evidence(n, d):
    observed, labels = draw(n, d, classes=2, apart=0.3, seed=2)
    features = observed.features.astype(float)

    def lost(logs, y):
        noise, weights = np.exp(-logs)
        covariance = noise * np.eye(n) + weights * features @ features.T
        return -multivariate_normal(cov=covariance).logpdf(y) / n

    inits = [(a, b) for a in (-1, 3) for b in (-1, 3)]
    best = [
        -min(minimize(lost, s, args=(labels == c,), method="Nelder-Mead").fun for s in inits)
        for c in (0, 1)
    ]
    found = similarity.logme(observed.features, labels)
    assert found == pytest.approx(np.mean(best), abs=1e-5)


def leep_by_loops(theta, labels):
    total = 0
    for theta_i, label in zip(theta, labels, strict=True):
        expected = 0
        for z, probability in enumerate(theta_i):
            same = sum(t[z] for t, y in zip(theta, labels, strict=True) if y == label)
            expected += same / sum(t[z] for t in theta) * probability
        total += np.log(expected)
    return total / len(labels)


def test_leep_by_hand_and_by_loops():
    theta = np.array([[0.5, 0.5], [0.8, 0.2], [0.2, 0.8]])
    # P(y = 0 | z) = (1.3, 0.7) / 1.5 and P(y = 1 | z) = (0.2, 0.8) / 1.5
    by_hand = np.mean(np.log([2.0 / 3, (1.04 + 0.14) / 1.5, (0.04 + 0.64) / 1.5]))
    assert similarity.leep(np.log(theta), [0, 0, 1]) == pytest.approx(by_hand)
    assert leep_by_loops(theta, [0, 0, 1]) == pytest.approx(by_hand)
    # predictions that underflow to (1, 0) tell nothing: P(y | z) is the share of y
    blind = similarity.leep(np.array([[0, -1e4]] * 3), [0, 0, 1])
    assert blind == pytest.approx((2 * np.log(2 / 3) + np.log(1 / 3)) / 3)


def test_leep_null_is_that_of_all_permutations():
    theta, labels = np.random.default_rng(3).dirichlet(np.ones(3), size=5), (0, 0, 1, 1, 1)
    every = [leep_by_loops(theta, order) for order in permutations(labels)]
    share = np.mean(np.array(every) >= leep_by_loops(theta, labels) - 1e-12)
    mean, sd, p = similarity.leep_null(np.log(theta), labels, 2000, seed=0)
    assert (mean, sd) == pytest.approx((np.mean(every), np.std(every)), rel=0.05)
    assert 0.1 < share < 0.9
    assert p == pytest.approx(share, abs=0.05)
    # where every permutation does as well, nothing is significant
    assert similarity.leep_null(np.ones((5, 3)), labels, 20, seed=0)[2] == 1


def test_measure_ranks_the_classes_above_shuffled_labels():
    observed, labels = draw()
    shuffled = np.random.default_rng(0).permutation(labels)
    found, null = (similarity.measure(observed, y, True) for y in (labels, shuffled))
    assert set(found) == {*MEASURES, "leep_null_mean", "leep_null_sd", "leep_p"}
    assert all(type(value) is float for value in found.values())
    for key, (_, sign) in MEASURES.items():
        labelled = key in LABELLED
        assert sign * found[key] > sign * null[key] if labelled else found[key] == null[key]
    assert abs(null["knn_accuracy"] - 1 / 3) < 0.15 and found["knn_accuracy"] > 0.8
    assert null["leep_p"] > 0.1 and found["leep_p"] == pytest.approx(1 / 201)
    assert found == similarity.measure(observed, labels, True)


def test_scale_of_the_features_and_order_of_the_images_change_nothing():
    observed, labels = draw(apart=0.8)
    order = np.random.default_rng(0).permutation(len(labels))
    other = replace(observed, features=64 * observed.features[order], logits=observed.logits[order])
    found = similarity.measure(observed, labels, True)
    moved = similarity.measure(other, labels[order] + 5, True)
    for key in MEASURES:
        assert moved[key] == pytest.approx(found[key], rel=1e-5), key


DEGENERATE = {
    "constant": lambda x, y: (np.full_like(x, 0.1), y),
    "zero": lambda x, y: (np.zeros_like(x), y),
    "dead channels": lambda x, y: (x * [1, 0, 0, 1, 0], y),
    "one channel": lambda x, y: (x[:, :1], y),
    "single image": lambda x, y: (x, np.where(np.arange(len(y)) == 0, 9, y)),
    "equal classes": lambda x, y: (np.tile(x[:6], (2, 1)), np.repeat([0, 1], 6)),
    "all single": lambda x, y: (x, np.arange(len(y))),
    "two images": lambda x, y: (x[:2], y[:2]),
    "no spread": lambda x, y: (np.eye(5)[y], y),
    "huge": lambda x, y: (1e6 * x, y),
    "fewer images than channels": lambda x, y: (x[:4], y[:4]),
}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("case", DEGENERATE)
def test_degenerate_features_give_numbers(case):
    observed, labels = draw(n=12)
    features, labels = DEGENERATE[case](observed.features, labels)
    features = features.astype(np.float32)
    head = np.random.default_rng(0).normal(size=(features.shape[1], 3))
    observed = replace(observed, features=features, logits=features @ head)
    found = similarity.measure(observed, labels, True, permutations=5)
    assert np.isfinite(list(found.values())).all(), found
    if case in ("constant", "zero"):
        assert found["leep_p"] == 1
    if case == "no spread":
        assert found["knn_accuracy"] == 1


def test_what_is_undefined_is_an_error():
    observed, labels = draw(n=6)
    layer = observed.batchnorm[0]
    for wrong in (np.zeros(6), labels[:5]):
        with pytest.raises(ValueError, match="one label per image, and two classes"):
            similarity.measure(observed, wrong, True)
    for batchnorm in ([], [(*layer[:3], np.zeros(4))]):
        with pytest.raises(ValueError, match="batch-norm"):
            similarity.batchnorm_frechet(batchnorm)
    with pytest.raises(ValueError, match="one permutation"):
        similarity.measure(observed, labels, True, permutations=0)
    for changed in (
        {"logits": np.full((6, 3), np.nan)},
        {"features": np.full((6, 5), np.nan)},
        {"batchnorm": [(*layer[:3], np.full(4, np.inf))]},
    ):
        with pytest.raises(ValueError, match="not finite"):
            similarity.measure(replace(observed, **changed), labels, True)
