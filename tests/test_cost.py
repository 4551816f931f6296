"""What settings cost, against what is known of the networks."""

import pytest
import torch
from torch import nn

from tests.conftest import ROOT
from transfer import params
from transfer.training import preflight

GMACS = {"resnet18": 1.814, "resnet50": 4.089}  # torchvision's, of one image of 224 pixels
STUDY = params.load(ROOT / "params.yaml")


def grid(study: params.Params = STUDY, **axes) -> params.Params:
    return study.model_copy(update={"grid": study.grid.model_copy(update=axes)})


def test_the_costs_are_those_that_torchvision_names():
    found = preflight.costs(STUDY)
    for backbone, known in GMACS.items():
        frozen, finetuned = (found[f"{backbone}-default-{f}"] for f in ("frozen", "finetuned"))
        forward = 25 * 2e9 * known
        assert frozen["predict"] == finetuned["predict"] == pytest.approx(forward, rel=0.01)
        assert frozen["train"] == pytest.approx(forward, rel=0.01)
        # Back through all but the images themselves.
        assert finetuned["train"] == pytest.approx(3 * forward, rel=0.05)


def test_a_probe_costs_a_frozen_run_and_then_a_finetuned_one():
    study = grid(freezing=["frozen", "lpft", "last1", "finetuned"], backbone=["resnet18"])
    costs = {name.split("-")[2]: each["train"] for name, each in preflight.costs(study).items()}
    assert costs["frozen"] < costs["last1"] < costs["lpft"] < costs["finetuned"]
    probe = STUDY.train.probe_epochs / STUDY.train.epochs
    expected = probe * costs["frozen"] + (1 - probe) * costs["finetuned"]
    assert costs["lpft"] == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(
    "backbone", ["vit_tiny_patch16_224", "efficientnet_b0", "swin_tiny_patch4_window7_224"]
)
def test_every_kind_of_network_has_a_cost(backbone):
    found = preflight.costs(grid(backbone=[backbone]))
    frozen, finetuned = (found[f"{backbone}-default-{f}"]["train"] for f in ("frozen", "finetuned"))
    assert 0 < 2 * frozen < finetuned


def test_a_layer_is_counted_by_hand():
    with torch.device("meta"):
        layer = nn.Conv2d(3, 4, 3, padding=1, bias=False)
    assert preflight.operations(layer, 8) == 2 * (3 * 4 * 3 * 3) * (8 * 8)
