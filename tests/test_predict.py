"""`python -m transfer predict` with files, folders and models that are not what they should be."""

import json
import os
import socket
import subprocess
import sys
from contextlib import chdir
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from tests.study import in_process
from transfer import cli
from transfer.evidence import calibration
from transfer.images import packed
from transfer.model import doubt, predict, saved
from transfer.params import Component
from transfer.training import models
from transfer.training.components import OWN

TEXT = dict.fromkeys(("run", "start", "start_source", "device", "commit"), "x")
SHA256 = {"start_sha256": "0" * 64, "data_sha256": "0" * 64}
NUMBERS = {"seed": 0, "epoch": 0, "accuracy": 0.5, "low": 0.4, "high": 0.6, "n": 10}
CARD = saved.Card(
    backbone="miniresnet10", labels=["a", "b"], resize=44, size=40, start_needed=False,
    activation=Component(OWN), pooling=Component(OWN), versions={}, **TEXT, **SHA256, **NUMBERS,
)  # fmt: skip


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return models.architecture("miniresnet10")(num_classes=2).eval()


@pytest.fixture
def file(network, tmp_path) -> Path:
    saved.save(tmp_path / "m.safetensors", CARD, network.state_dict())
    return tmp_path / "m.safetensors"


@pytest.fixture
def images(tmp_path) -> Path:
    rng = np.random.default_rng(0)
    (tmp_path / "images/deep").mkdir(parents=True)
    for name in ("1.png", "2.png", "deep/3.png"):
        pixels = rng.integers(0, 256, (50, 60, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "images" / name)
    return tmp_path / "images"


def told(file: Path, *words) -> tuple[int, list[str], list[str]]:
    status, out, err = in_process(file.parent, predict.main, file, *words)
    return status, out.splitlines(), err.splitlines()


def refused(file: Path, *words) -> str:
    status, out, err = told(file, *words)
    assert (status, out, len(err)) == (1, [], 1), err
    return err[0]


WRONG = {
    "size": ["0", "-1", "41.5", '"40"', "true", "1000000", "1" * 400, "1" * 5000, "NaN", "[", "45"],
    "resize": ["0", "39", "null", "1e999"],
    "labels": ['["a", "a"]', '["a"]', "[]", '["a", 1]', "{}", "[" * 100_000, '["a", "b", "c"]',
               '["a", "\\ud800"]'],
    "temperature": ["1e-40", "0", "-1", "NaN", "Infinity", "1e999", "null", "1e40"],
    "sure": ["NaN", "2", "-0.1", '"x"'],
    "far": ["NaN", "-1", "1e999"],
    "risk": ["NaN", "7"],
    "accuracy": ["NaN", "1.5"],
    "mean": ["[0, 0, 0]", "[NaN, 1, 1]", "0"],
    "how": ["{}[]", "[]", '{"low": 1e999, "high": 1e999}', '{"low": 5, "high": 1}', '{"low": 1}',
            '{"low": -1e308, "high": 1e308}', '{"more": 1}'],
    "backbone": ["miniresnet99", "../x", "", "resnet18"],
    "activation": ["DataParallel", '{"ReLU": 1}', "{", '{"LeakyReLU": {"negative_slope": "x"}}',
                   '{"LeakyReLU": {"negative_slope": 1e999}}'],
    "pooling": ["Linear"],
    "start_needed": ["1", "maybe"],
    "start_sha256": ["../../*"],
    "versions": ["[]", '{"torch": 1}'],
}  # fmt: skip


@pytest.mark.parametrize("field", WRONG)
def test_a_card_that_cannot_be_right_is_refused(field, file, images):
    good, tensors = CARD.metadata(), load_file(file)
    for value in WRONG[field]:
        save_file(tensors, file, good | {field: value})
        line = refused(file, images)
        assert line.startswith(f"error: {file}: not a ") and len(line) < 500, (value, line)
    del good[field]
    save_file(tensors, file, good)
    if saved.Card.model_fields[field].is_required():
        assert f"{field}: Field required" in refused(file, images)


def test_a_card_may_hold_any_temperature_that_is_fitted():
    for temperature in (1 / calibration.HOTTEST, calibration.HOTTEST):
        found = CARD.model_copy(update={"temperature": temperature})
        assert saved.parse(found.metadata()) == found


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e38])
def test_numbers_that_are_not_finite_are_refused(value, network, file, images, tmp_path):
    """Those of the last value are, but not what they add up to."""
    state = {name: one.clone() for name, one in network.state_dict().items()}
    state["fc.weight"][:] = value
    saved.save(file, CARD, state)
    wanted = "fc.weight holds NaN or infinite" if value != 1e38 else "is not a number"
    assert wanted in refused(file, images)
    if value != 1e38:
        with pytest.raises(cli.UserError, match=r"^own.pth: fc.weight holds NaN or infinite"):
            models.check_fits(state, "miniresnet10", "own.pth")
