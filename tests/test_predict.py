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
from transfer.model import predict, saved
from transfer.model.out_of_distribution import FeatureDistribution
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
    "confidence_threshold": ["NaN", "2", "-0.1", '"x"'],
    "ood_distance": ["NaN", "-1", "1e999"],
    "risk": ["NaN", "7"],
    "accuracy": ["NaN", "1.5"],
    "mean": ["[0, 0, 0]", "[NaN, 1, 1]", "0"],
    "decoding": ["{}[]", "[]", '{"low": 1e999, "high": 1e999}', '{"low": 5, "high": 1}',
                 '{"low": 1}', '{"low": -1e308, "high": 1e308}', '{"more": 1}'],
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


def test_numbers_that_an_image_makes_infinite_cost_it_a_line(network, file, images):
    state = {name: one.clone() for name, one in network.state_dict().items()}
    card, loaded, _ = predict.load(str(file), None)
    loaded.fc.weight[:] = float("nan")
    found = predict.classify(card, loaded, None, [(images / "1.png", "")])
    assert [answer for _, answer in found] == [predict.NO_NUMBER]
    nowhere = FeatureDistribution(np.zeros(64, np.float32), -np.eye(64, dtype=np.float32))
    loaded.load_state_dict(state)
    sure = card.model_copy(update={"ood_distance": 1e9, "confidence_threshold": 0.0})
    grey = torch.zeros((1, 40, 40, 3), dtype=torch.uint8)
    (answer,) = predict.answers(sure, loaded, nowhere, grey)
    assert (answer.unsure, answer.none_of_these) == (False, True), "a distance of NaN"
    loaded.fc.weight[:] = float("nan")
    assert predict.answers(sure, loaded, None, grey)[0].unsure


def test_what_training_images_look_like_must_fit_the_network(network, file, images):
    for mean, precision in ((3, 3), (64, 63)):
        known = dict(
            zip(saved.DISTRIBUTION, (torch.zeros(mean), torch.zeros(mean, precision)), strict=True)
        )
        saved.save(
            file, CARD.model_copy(update={"ood_distance": 1.0}), network.state_dict() | known
        )
        assert "not a complete model" in refused(file, images)


def test_names_cannot_forge_a_line_or_reach_the_terminal(network, file, images, tmp_path):
    labels = ["a\tb\n\x1b[31m\u202e/", "\U0001f41d" * 60]
    saved.save(file, CARD.model_copy(update={"labels": labels}), network.state_dict())
    odd = os.fsencode(images) + b"/x\ty\n\x1b[2J\xff.png"
    os.rename(images / "1.png", odd)
    status, out, err = told(file, images, "--explain", tmp_path / "why")
    assert (status, err, len(out)) == (0, [], 3)
    assert all(line.isprintable() for line in "".join(out).split("\t"))
    assert [line.count("\t") for line in out] == [2, 2, 2] and "x\\ty\\n\\x1b[2J\\udcff" in "".join(
        out
    )
    pictures = os.listdir(tmp_path / "why")
    assert len(pictures) == 3 and all(name.isprintable() for name in pictures)
    status, out, _ = told(file, images, "--json")
    lines = [json.loads(line) for line in out]
    assert all(set(line["probabilities"]) == set(labels) for line in lines)
    assert os.fsdecode(odd) in {line["path"] for line in lines}


def test_what_is_no_file_costs_a_line_each(file, images, tmp_path):
    os.mkfifo(images / "pipe.jpg")
    with socket.socket(socket.AF_UNIX) as one, chdir(images):
        one.bind("socket.jpg")
    (images / "null.jpg").symlink_to("/dev/zero")
    (images / "gone.jpg").symlink_to("nowhere")
    (images / "folder.jpg").mkdir()
    (images / "cut.jpg").write_bytes(b"\xff\xd8\xff")
    (images / "deep/loop").symlink_to(images)
    (tmp_path / "away").mkdir()
    Image.new("RGB", (40, 40)).save(tmp_path / "away/4.png")
    (images / "link").symlink_to(tmp_path / "away")
    (tmp_path / "empty").mkdir()
    Image.new("1", (20_000, 20_000)).save(images / "vast.png")
    status, out, err = told(file, tmp_path / "empty", "n" * 300 + ".png", images)
    names = [line.split("\t")[0].removeprefix(f"{images}/") for line in out]
    assert (status, names) == (1, ["1.png", "2.png", "deep/3.png", "link/4.png"])
    wrong = [line.removeprefix(f"error: {images}/") for line in err]
    assert "has an image's extension" in wrong[0] and "too long" in wrong[1]
    assert [line.split(": ")[0] for line in wrong[2:]] == [
        "cut.jpg", "deep/loop", "gone.jpg", "null.jpg", "pipe.jpg", "socket.jpg", "vast.png"
    ]  # fmt: skip
    assert sum("not a regular file" in line for line in wrong) == 3
    assert "400000000 pixels" in wrong[-1] and "a link to a folder that contains it" in wrong[3]


def test_pictures_need_a_folder(file, images, tmp_path):
    (tmp_path / "taken").touch()
    for path in ("taken", "taken/why", "n" * 300):
        assert "give a folder for the pictures" in refused(file, images, "--explain", path)
    assert (tmp_path / "taken").read_bytes() == b""


@pytest.mark.parametrize(
    ("to", "line"), [(">&-", "standard output is closed"), ("> /dev/full", "the disk is full")]
)
def test_a_stdout_that_takes_nothing_is_one_line(file, images, to, line):
    command = f"{sys.executable} -m transfer predict {file} {images} {to}"
    done = subprocess.run(command, shell=True, capture_output=True, text=True)
    assert done.returncode and line in done.stderr and done.stderr.count("\n") == 1, done.stderr


def test_a_file_that_is_cut_or_garbled_is_refused(file, images):
    whole = file.read_bytes()
    for wrong in (b"", whole[:9], whole[:-1], b"\xff" * 100, whole[:8] + b"[" * (len(whole) - 8)):
        file.write_bytes(wrong)
        assert "not a model made by" in refused(file, images)
