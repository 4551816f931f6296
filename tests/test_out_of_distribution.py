"""How unlike others images are, by features that are known."""

import numpy as np
import pytest
import torch
from sklearn.covariance import LedoitWolf
from torch import nn

from transfer.model import out_of_distribution
from transfer.training import models

RNG = np.random.default_rng(0)


def test_distances_are_mahalanobis_s_with_few_images_too():
    own, others = RNG.normal(size=(30, 50)) * np.arange(1, 51), RNG.normal(size=(6, 50)) * 9
    fitted = LedoitWolf().fit(own)
    distribution = out_of_distribution.FeatureDistribution.fit(own.astype(np.float32))
    found = distribution.distances(others.astype(np.float32))
    np.testing.assert_allclose(found**2, fitted.mahalanobis(others), rtol=1e-4)


def test_at_most_a_twentieth_of_its_own_kind_count_as_strangers():
    shares = []
    for _ in range(300):
        held, others = RNG.gamma(2, size=80), RNG.gamma(2, size=400)
        shares.append((others > out_of_distribution.ood_distance(held)).mean())
    assert 0.03 < np.mean(shares) < 0.052
    assert (
        out_of_distribution.ood_distance(np.arange(18.0)) is None
        and out_of_distribution.ood_distance(np.arange(19.0)) == 18
    )


def test_so_many_images_are_compared_with_and_always_the_same():
    kept = out_of_distribution.sample(out_of_distribution.MOST + 5)
    assert len(set(kept)) == out_of_distribution.MOST and (np.diff(kept) > 0).all()
    assert np.array_equal(kept, out_of_distribution.sample(out_of_distribution.MOST + 5))
    assert np.array_equal(out_of_distribution.sample(9), np.arange(9))


@pytest.mark.parametrize(
    ("backbone", "name", "channels"),
    [
        ("resnet18", "layer4.0.conv1", 256),
        ("miniresnet10", "layer4.0.conv1", 64),
        ("test_vit", "network.blocks.5.norm1", 64),
        ("test_convnext", "network.stages.3.downsample.0", 48),
        ("swin_tiny_patch4_window7_224", "network.layers.3.downsample.norm", 1536),
    ],
)
def test_features_are_the_means_of_what_the_last_stage_is_given(backbone, name, channels):
    model = models.architecture(backbone)(num_classes=2).eval()
    layer = out_of_distribution.layer(model)
    assert layer is model.get_submodule(name)
    seen = []
    layer.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    side = getattr(model, "size", 64)
    with torch.inference_mode():
        model(torch.rand(2, 3, side, side))
    found = out_of_distribution.pooled(layer, seen[0])
    assert found.shape == (2, channels)
    last = seen[0].shape[-1] == channels
    axes = tuple(range(1, seen[0].ndim - 1)) if last else (2, 3)
    torch.testing.assert_close(found, seen[0].mean(axes))


def test_a_network_of_unknown_stages_goes_by_what_its_head_is_given(monkeypatch):
    def unknown(model):
        raise ValueError

    monkeypatch.setattr(models, "stages", unknown)
    model = models.architecture("resnet18")(num_classes=2)
    layer = out_of_distribution.layer(model)
    assert layer is model.fc and isinstance(layer, nn.Linear)
    assert torch.equal(out_of_distribution.pooled(layer, torch.ones(2, 5)), torch.ones(2, 5))
