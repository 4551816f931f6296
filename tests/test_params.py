"""Every mistake in params.yaml gets one line that names the key."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from jsonschema import Draft7Validator
from ruamel.yaml import YAML

from tests.conftest import ROOT
from transfer import params, schema
from transfer.cli import UserError

yaml = YAML()
DELETE = object()
STUDIES = pytest.mark.parametrize("study", [ROOT, ROOT / "sample"], ids=["root", "sample"])
EDITOR = Draft7Validator(schema.schema())
# The words about mistakes that no schema can express: it knows no other key, nor 1 from 1.0.
UNSEEN_BY_AN_EDITOR = {
    "grid.lr.0: input should be a finite number",
    "grid.lr.0: write 1.0",
    "grid.recipe names 'mine', which recipes lacks",
    "grid.dataset names 'cats', which datasets lacks",
    "grid.backbone names 'resnet34', which has no weights",
    "cannot both be all",
    "so 0.3 cannot be had; the nearest share is 0.333",
    "need the same classes",
    "at least two classes",
    "class name ' ' is empty",
    "class name '\\x00' is empty",
    "'é' and 'e\u0301' differ",
    "differ by case",
    "'/' names no folder",
    "pack: size 300 is larger than resize 256",
}


TABLE = {"table": "labels.csv", "file": "file", "label": "label"}
REDRAWN = dict(yaml.load(ROOT / "params.yaml")["split"]) | {"resplit": True, "validation": 0.3}


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


@STUDIES
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
        ("grid.lr", [float("nan")], "grid.lr.0: input should be a finite number"),
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
        ("split", REDRAWN, "so 0.3 cannot be had; the nearest share is 0.333"),
        ("datasets.glioma.quadrant", "big", "datasets.glioma.quadrant: input should be 'small, "),
        ("grid.dataset", ["cats"], "grid.dataset names 'cats', which datasets lacks"),
        ("grid.backbone", ["resnet34"], "grid.backbone names 'resnet34', which has no weights"),
        ("datasets", {"a-b": {}}, "datasets.a-b"),
        ("datasets.glioma.count.train", 0, "datasets.glioma.count.train: "),
        ("datasets.glioma.count.train", "some", "datasets.glioma.count.train: "),
        ("datasets.cars_bikes.count", {"train": "all", "test": "all"}, "cannot both be all"),
        ("datasets.glioma.folders", None, "datasets.glioma.folders: give keys with their values"),
        ("datasets.glioma.folders", ["Training"], "give keys with their values, not ['Training']"),
        ("train", 25, "train: give keys with their values, not 25"),
        ("datasets.glioma.folders.test", DELETE, "datasets.glioma.folders: give either"),
        ("datasets.glioma.folders.test", {"x": "y", "z": "w"}, "need the same classes"),
        ("datasets.cars_bikes.folders.all", {"car": "Car"}, "at least two classes"),
        ("datasets.cars_bikes.folders.all", {"car": "Car", " ": "X"}, "class name ' ' is empty"),
        (
            "datasets.cars_bikes.folders",
            TABLE | {"classes": ["car", "\0"]},
            "class name '\\x00' is empty",
        ),
        ("datasets.cars_bikes.folders.all", {"é": "E", "e\u0301": "X"}, "'é' and 'e\u0301' differ"),
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
    seen = not EDITOR.is_valid(YAML(typ="safe").load(tmp_path / "params.yaml"))
    assert seen == (words not in UNSEEN_BY_AN_EDITOR)


@pytest.mark.parametrize(
    "path,meant,value",
    [
        ("train.epoch", "epochs", 25),
        ("train.keep_feature", "keep_features", True),
        ("trian", "train", {}),
        ("gird", "grid", {}),
        ("split.validaton", "validation", 0.2),
        ("datasets.glioma.quadrent", "quadrant", "none"),
        ("datasets.glioma.folders.tests", "test", {}),
        ("weights.resnet18.sha", "sha256", "f37072fd"),
        ("recipes.long.epoch", "epochs", 50),
        ("recipes.long.optimiser", "optimizer", "SGD"),
    ],
)
def test_a_misspelt_key_is_named_with_the_one_that_was_meant(tmp_path, path, meant, value):
    """One mistake, though the key that was meant is missing, too."""
    section, _, key = path.rpartition(".")
    if section.startswith("recipes"):
        changed = with_change(tmp_path, section, {key: value})
    else:
        changed = with_change(tmp_path, path, value)
        text = yaml.load(changed)
        place = text
        for part in filter(None, section.split(".")):
            place = place[part]
        del place[meant]
        yaml.dump(text, changed)
    where = path.replace("long.", "long: ")  # what the recipe says of train
    with pytest.raises(UserError) as caught:
        params.load(changed)
    assert str(caught.value) == f"{changed}: {where}: unknown key; did you mean {meant}?"


@pytest.mark.parametrize(
    "path,words",
    [
        ("train.epochs", "How often to go over the training images."),
        (
            "split.validation",
            "The share of each class's training images to hold out, to choose epochs",
        ),
        ("pack", "How images become the squares that networks see."),
        (
            "datasets.glioma.count",
            "How many images of each class to use: a number, a fraction, or all",
        ),
        (
            "draw",
            "Data sets to draw, as sample/params.yaml does, each to data/raw/KEY, or {} for none.",
        ),
    ],
)
def test_of_a_missing_key_it_is_said_what_it_is_for(tmp_path, path, words):
    with pytest.raises(UserError) as caught:
        params.load(with_change(tmp_path, path, DELETE))
    assert f": {path}: missing key; add it. {words}" in str(caught.value)


def test_a_mistake_ends_with_status_1_and_costs_no_import_of_torch(tmp_path):
    with_change(tmp_path, "train.epoch", 25)
    program = "import sys; from transfer import cli, params; assert 'torch' not in sys.modules; "
    done = subprocess.run(
        [sys.executable, "-c", program + "cli.run(params.load)"],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    said = "error: params.yaml: train.epoch: unknown key; did you mean epochs?\n"
    assert (done.returncode, done.stdout, done.stderr) == (1, "", said)


def test_the_committed_schema_is_what_the_models_give(tmp_path):
    """`make schema` writes it."""
    command = [sys.executable, "-m", "transfer.schema"]
    subprocess.run(command, cwd=tmp_path, env={"PYTHONPATH": str(ROOT)}, check=True)
    written = (tmp_path / "params.schema.json").read_text()
    assert written == (ROOT / "params.schema.json").read_text()


@STUDIES
def test_an_editor_finds_the_schema_and_nothing_to_mend(study):
    first = (study / "params.yaml").read_text().splitlines()[0]
    named = first.removeprefix("# yaml-language-server: $schema=")
    found = json.loads((study / named).read_text())
    Draft7Validator.check_schema(found)
    assert (
        list(Draft7Validator(found).iter_errors(YAML(typ="safe").load(study / "params.yaml"))) == []
    )


def test_every_key_is_described():
    found = schema.schema()
    for name, section in {"": found, **found["$defs"]}.items():
        for key, one in section["properties"].items():
            described = one | found["$defs"].get(one.get("$ref", "").rpartition("/")[2], {})
            assert described.get("description"), f"{name}.{key}"


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


def test_a_setting_counts_where_its_scope_says():
    train = params.load(ROOT / "params.yaml").train
    every = set(params.Train.model_fields)
    assert {"device", "arithmetic", "keep_features"} == params.SHARED
    assert every - set(train.deciding("lpft")) == {"keep_features"}
    assert every - set(train.deciding("finetuned")) == {"keep_features", "probe_epochs"}
    idle = {"keep_features", "probe_epochs", "layer_decay"}
    assert every - set(train.deciding("frozen")) == idle
    head = {"optimizer", "schedule", "warmup_epochs", "clip_norm", "average_epochs", "loss"}
    unseen = every - set(train.of_backbone())
    assert unseen == head | idle | {"class_weights"} | params.SHARED
