"""Every mistake in params.yaml gets one line that names the key."""

import re
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from tests.conftest import ROOT
from transfer import params
from transfer.cli import UserError

yaml = YAML()
DELETE = object()


def with_change(tmp_path: Path, path: str, value) -> Path:
    settings = yaml.load(ROOT / "params.yaml")
    *parents, last = path.split(".")
    section = settings
    for key in parents:
        section = section[key]
    if value is DELETE:
        del section[last]
    else:
        section[last] = value
    yaml.dump(settings, tmp_path / "params.yaml")
    return tmp_path / "params.yaml"


@pytest.mark.parametrize("study", [ROOT, ROOT / "sample"], ids=["root", "sample"])
def test_the_committed_settings_are_valid(study):
    params.load(study / "params.yaml")


def test_the_reports_grid_has_64_runs():
    assert params.load(ROOT / "params.yaml").runs == 64


@pytest.mark.parametrize(
    "path,value,words",
    [
        ("train.epoch", 25, "train.epoch: unknown key"),
        ("colour", "red", "colour: unknown key"),
        ("train.epochs", DELETE, "train.epochs: missing key"),
        ("grid", DELETE, "grid: missing key"),
        ("train.epochs", 0, "train.epochs: input should be greater than or equal to 1, not 0"),
        ("train.epochs", "25", "train.epochs: input should be a valid integer, not '25'"),
        ("train.epochs", 2.5, "train.epochs: "),
        ("train.device", "gpu", "train.device: input should be 'auto', 'cpu' or 'cuda'"),
        ("train.optimizer", 1.5, "train.optimizer: give a name"),
        ("grid.lr", [0.0], "grid.lr.0: input should be greater than 0"),
        ("grid.lr", [-0.1], "grid.lr.0: "),
        ("grid.lr", [float("nan")], "grid.lr.0: "),
        ("grid.lr", [1], "grid.lr.0: write 1.0"),
        ("grid.lr", ["fast"], "grid.lr.0: "),
        ("grid.lr", [], "grid.lr: empty; give at least one"),
        ("grid.lr", [0.1, 0.1], "grid: lr lists 0.1 twice"),
        ("grid.freezing", ["half"], "grid.freezing.0: "),
        ("grid.recipe", ["mine"], "grid.recipe names 'mine', which recipes lacks"),
        ("recipes.mine", {"epoch": 3}, "recipes.mine: epoch: unknown key"),
        ("recipes.mine", {"epochs": "3"}, "recipes.mine: epochs: input should be a valid integer"),
        ("recipes.mine", {"device": "cpu"}, "recipes.mine: device is no part of a recipe"),
        ("recipes.mine", {"optimizer": {"a": {}, "b": {}}}, "recipes.mine: optimizer: give a name"),
        ("train.probe_epochs", 0, "train.probe_epochs: "),
        ("grid.images", ["some"], "grid.images.0"),
        ("grid.images", [0], "grid.images.0"),
        ("grid.seed", [-1], "grid.seed.0: "),
        ("split.validation", 1.0, "split.validation: input should be less than 1"),
        ("datasets.glioma.quadrant", "big", "datasets.glioma.quadrant: input should be 'small, "),
        ("grid.dataset", ["cats"], "grid.dataset names 'cats', which datasets lacks"),
        ("grid.backbone", ["resnet34"], "grid.backbone names 'resnet34', which has no weights"),
        ("datasets", {"a-b": {}}, "datasets.a-b"),
        ("datasets.glioma.count.train", 0, "datasets.glioma.count.train: "),
        ("datasets.glioma.count.train", "some", "datasets.glioma.count.train: "),
        ("datasets.cars_bikes.count", {"train": "all", "test": "all"}, "cannot both be all"),
        ("datasets.glioma.folders.test", DELETE, "datasets.glioma.folders: give either"),
        ("datasets.glioma.folders.test", {"x": "y", "z": "w"}, "need the same classes"),
        ("datasets.cars_bikes.folders.all", {"car": "Car"}, "at least two classes"),
        ("datasets.cars_bikes.folders.all", {"car": "Car", "../x": "X"}, "'../x' cannot be"),
        ("datasets.cars_bikes.folders.all", {"car": "Car", "Car": "X"}, "differ by case"),
        ("datasets.cars_bikes.folders.all", {"car": "Car", "x": "/"}, "'/' names no folder"),
        ("download.glioma.kaggle", "not a slug", "download.glioma.kaggle: "),
        ("weights.resnet18.sha256", "xyz", "weights.resnet18.sha256: "),
        ("pack.size", 300, "pack: size 300 is larger than resize 256"),
    ],
)
def test_a_mistake_is_one_line_that_names_the_key(tmp_path, path, value, words):
    with pytest.raises(UserError) as caught:
        params.load(with_change(tmp_path, path, value))
    message = str(caught.value)
    assert words in message
    assert "\n" not in message and len(message) < 300
    assert message.startswith(str(tmp_path / "params.yaml"))


@pytest.mark.parametrize("text", ["a: [1", "a: 1\na: 2", "\x00", "", "- 1", "!!python/object:x {}"])
def test_what_is_not_a_yaml_mapping_is_refused(tmp_path, text):
    (tmp_path / "params.yaml").write_text(text)
    with pytest.raises(UserError) as caught:
        params.load(tmp_path / "params.yaml")
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(UserError, match="no such file"):
        params.load(tmp_path / "params.yaml")


def test_a_rate_in_exponent_form_is_a_number(tmp_path):
    """DVC writes 0.00001 back as 1e-05, which YAML 1.1 readers take for a string."""
    path = with_change(tmp_path, "grid.lr", [0.5])
    path.write_text(re.sub(r"- 0\.5", "- 1e-05", path.read_text()))
    assert params.load(path).grid.lr == [1e-05]
