"""Models to take away: they predict as their runs did, and what is wrong is one line."""

import io
import json
import os
import re
import shutil
import subprocess
import sys
from contextlib import chdir, redirect_stdout
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from onnx import helper
from onnxruntime import InferenceSession
from PIL import Image
from ruamel.yaml import YAML
from safetensors.torch import load_file, save_file
from sklearn.datasets import load_sample_image
from torch import nn

from stages import evidence
from tests.conftest import ROOT, draw_source, draw_split
from tests.study import in_process, save_weights
from transfer import cli, files, params, runs
from transfer.evidence import calibration
from transfer.evidence.scores import chosen_epoch
from transfer.images import audit, packed, reader
from transfer.model import about, explain, exported, outputs, predict, retrain, saved
from transfer.model import keep as model
from transfer.model.out_of_distribution import FeatureDistribution
from transfer.training import loader, predictions, preflight, run_cache
from transfer.training import run as training
from transfer.training.record import Record, Time, curve

FREEZINGS = ("finetuned", "frozen", "last1")
ROUNDING = 2**-12 + 1e-5  # of a confidence kept as float16
yaml = YAML()


@dataclass
class Study:
    folder: Path
    runs: dict[str, runs.Run]

    def file(self, freezing: str) -> Path:
        return self.folder / f"models/{freezing}.safetensors"

    @property
    def images(self) -> Path:
        return self.folder / "data/raw/kept/test"

    def predicted(self, freezing: str) -> predictions.Predictions:
        """The test images at the epoch chosen, as the only one."""
        parts = predictions.load(self.folder / self.runs[freezing].folder / runs.PREDICTIONS)
        test, epoch = parts["test"], chosen_epoch(parts, "accuracy")
        kept = {name: getattr(test, name)[[epoch]] for name in ("predicted", "probabilities")}
        return replace(test, **kept)


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> Study:
    """Runs of two epochs and three freezings, and a model of each."""
    folder = tmp_path_factory.mktemp("study")
    counts = {"train": 8, "validation": 3, "test": 5}
    draw_source(folder / "data/raw/kept", counts)
    draw_split(folder / "data/split/kept", counts)
    (folder / "data/weights").mkdir()
    digest = save_weights(folder / "data/weights/resnet18-pretrained.pth", 0, "resnet18")
    write_settings(folder, digest)
    found = {
        "archive": {},
        "split": audit.drawn([], []),
        "dropped": {},
        "decoding": reader.PAPER,
        "few_levels": None,
        "redrawn": None,
        "left_out": {},
        "no_class": {},
        "shared": audit.shared_groups([]),
        "leaked": [],
        "near": [],
        "remedies": [],
        "fixed_camera": None,
        "shortcuts": [],
    }
    kept = audit.Audit(dataset="kept", source="data/raw/kept", rules={}, **found)
    kept.write(folder / "metrics/data/kept.json")
    with chdir(folder):
        sizes = params.load().pack
        packed.write(folder / "data/split/kept", folder / "data/packed/kept", **dict(sizes))
        found = {run.freezing: run for run in runs.runs(params.load().grid, "kept")}
        for run in found.values():
            training.train_group([run], params.load(), every=60)
            run_cache.take(run, run_cache.key(run, params.load()))
        files.write_json("data/settings/costs.json", preflight.costs(params.load()))
    status, _, predicted = in_process(folder, evidence.main)
    assert status == 0, predicted
    made = Study(folder, found)
    for freezing, run in found.items():
        status, predicted = command(
            made,
            model.main,
            *("kept", "--small", "--run", run.name, "--output", made.file(freezing)),
        )
        assert status == 0 and "warning" not in predicted, predicted
    return made


def write_settings(folder: Path, digest: str) -> None:
    settings = yaml.load(ROOT / "params.yaml")
    kept = settings["datasets"]["cars_bikes"]
    kept.update(source="data/raw/kept", folders={"all": {"a": "a", "b": "b"}})
    settings["datasets"] = {"kept": kept}
    settings["weights"] = {"resnet18": {"source": "elsewhere.pth", "sha256": digest}}
    settings["pack"].update(resize=44, size=40)
    settings["grid"].update(dataset=["kept"], backbone=["resnet18"], lr=[0.001])
    settings["grid"].update(freezing=list(FREEZINGS), init=["pretrained"])
    own = {"activation": {"LeakyReLU": {"negative_slope": 0.2}}, "pooling": "AdaptiveMaxPool2d"}
    settings["train"].update(epochs=2, device="cpu", **own)
    yaml.dump(settings, folder / "params.yaml")


def command(study: Study | Path, main, *words) -> tuple[int, str]:
    """Run a command as its module does, in the study's folder; its status, and all it says."""
    status, out, err = apart(study, main, *words)
    return status, out + err


def apart(study: Study | Path, main, *words) -> tuple[int, str, str]:
    return in_process(study.folder if isinstance(study, Study) else study, main, *words)


def refused(study: Study | Path, main, *words) -> str:
    status, out, err = apart(study, main, *words)
    lines = err.splitlines()
    assert (status, out, len(lines)) == (1, "", 1), out + err
    return lines[0]


def test_images(data: packed.Packed) -> torch.Tensor:
    return data.prepared_images(len(data.validation))


test_images.__test__ = False


@pytest.mark.parametrize("freezing", FREEZINGS)
def test_the_network_is_that_of_the_very_epoch(study, freezing):
    """Of the epoch that was not chosen; the models saved are of the other."""
    run = study.runs[freezing]
    with chdir(study.folder):
        job = training.prepare(run, params.load())
        parts = predictions.load(run.folder / runs.PREDICTIONS)
        before, epoch = parts["test"], 1 - chosen_epoch(parts, "accuracy")
        network = retrain.train(job, epoch + 1)
    found = saved.probabilities(network, test_images(job.data))
    assert (found.argmax(1) == before.predicted[epoch]).all()
    assert np.abs(found.max(1) - before.confidence[epoch]).max() <= ROUNDING


@pytest.mark.parametrize("freezing", FREEZINGS)
def test_image_files_are_predicted_as_the_run_did(study, freezing):
    status, out, err = apart(study, predict.main, study.file(freezing), study.images, "--json")
    assert (status, err) == (0, "")
    lines, expected = [json.loads(line) for line in out.splitlines()], study.predicted(freezing)
    assert [line["path"] for line in lines] == [str(study.images / n) for n in expected.name]
    assert [line["class"] for line in lines] == ["ab"[i] for i in expected.predicted[0]]
    confidence = np.array([line["confidence"] for line in lines])
    assert np.abs(confidence - expected.confidence[0]).max() <= ROUNDING
    assert all(abs(sum(line["probabilities"].values()) - 1) < 1e-5 for line in lines)


def test_the_card_says_what_the_run_was(study):
    card, _ = saved.load(study.file("finetuned"))
    run, expected = study.runs["finetuned"], study.predicted("finetuned")
    recorded = json.loads((study.folder / run.folder / runs.RECORD).read_text())
    with chdir(study.folder):
        then = curve(run)[card.epoch]
    assert (card.run, card.labels, card.resize, card.size) == (run.name, ["a", "b"], 44, 40)
    assert card.accuracy == expected.right.mean() == then.test_accuracy
    assert card.n == 10
    assert 0 <= card.low < card.accuracy <= card.high <= 1
    assert (card.data_sha256, card.versions) == (recorded["data"], recorded["versions"])
    assert card.start_sha256 == files.sha256(study.folder / "data/weights/resnet18-pretrained.pth")
    assert str(study.folder) not in "".join(card.metadata().values())


def test_the_whole_network_is_kept_and_predicts_in_any_folder(study, tmp_path):
    run, output = study.runs["frozen"], tmp_path / "whole.safetensors"
    status, predicted = command(study, model.main, "kept", "--run", run.name, "--output", output)
    assert (
        status == 0
        and "its confidence is not calibrated: too few mistakes on validation images" in predicted
    )
    image = study.images / "a/000.jpg"
    expected = apart(study, predict.main, study.file("frozen"), image)[1]
    assert apart(tmp_path, predict.main, output, image) == (0, expected, "")
    page = (tmp_path / "whole.md").read_text()
    assert f"{output}: " in predicted and "whole.md: what the network can do" in predicted
    card, _ = saved.load(output)
    assert f"Its accuracy is {card.accuracy:.3f} [" in page and run.name in page
    rows = [line.split("|") for line in page.splitlines() if re.match(r"\| [ab] ", line)]
    shares = [float(row[4].split()[0]) for row in rows]
    assert np.mean(shares) == pytest.approx(card.accuracy, abs=1e-3)  # as many of each class
    assert [int(row[3]) for row in rows] == [5, 5] and page.count("*to be filled in*") == 2


def test_small_models_hold_what_moved(study):
    sizes = {freezing: study.file(freezing).stat().st_size for freezing in FREEZINGS}
    checkpoint = (study.folder / "data/weights/resnet18-pretrained.pth").stat().st_size
    assert sizes["frozen"] < 0.002 * checkpoint
    assert sizes["last1"] < 0.8 * checkpoint < sizes["finetuned"]


def test_a_frozen_model_takes_its_own_checkpoint_alone(study, tmp_path, monkeypatch):
    file, image = study.file("frozen"), study.images / "a/000.jpg"
    own = study.folder / "data/weights/resnet18-pretrained.pth"
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    expected = apart(study, predict.main, file, image)[1]
    assert "resnet18-pretrained.pth: no such file" in refused(tmp_path, predict.main, file, image)
    assert apart(tmp_path, predict.main, file, image, "--weights", own) == (0, expected, "")

    save_weights(tmp_path / "another.pth", 1, "resnet18")
    line = refused(tmp_path, predict.main, file, image, "--weights", "another.pth")
    assert "another.pth: another file" in line and files.sha256(own) in line

    beside = shutil.copy(file, tmp_path / "frozen.safetensors")
    shutil.copy(own, tmp_path)
    assert apart(tmp_path.parent, predict.main, beside, image)[:2] == (0, expected)
    (tmp_path / own.name).unlink()

    cached = tmp_path / f"torch/hub/checkpoints/resnet18-{files.sha256(own)[:8]}.pth"
    cached.parent.mkdir(parents=True)
    shutil.copy(own, cached)
    assert apart(tmp_path, predict.main, file, image) == (0, expected, "")


def test_it_says_first_how_long_it_takes_and_what_other_seeds_gave(study):
    run = study.runs["finetuned"]
    with chdir(study.folder):
        settings = params.load()
        original = retrain.Original.load(run, settings)
        said = model.plan(original, settings)
        time = Time.read(run.time)
        seconds = (original.epoch + 1) * (16 + 6 + 10) / time.images_per_second
        assert said == (
            f"{run.name}: training epochs 1 to {original.epoch + 1} again, about {seconds:.0f} s"
        )
        parts = original.by_seed[0]
        wrong = {part: replace(p, predicted=1 - p.label[None]) for part, p in parts.items()}
        said = model.plan(replace(original, by_seed={0: parts, 7: wrong}), settings)
        accuracy = study.predicted("finetuned").right.mean()
        assert f"\ntest accuracy by seed: 0: {accuracy:.4f}, 7: 0.0000; seed 0 is saved, " in said
        time.model_copy(update={"host": "another"}).write(run.time)
        assert "about" not in model.plan(original, settings)
        time.write(run.time)


def test_without_a_run_the_best_is_taken(study):
    status, predicted = command(study, model.main, "kept", "--small")
    assert status == 0, predicted
    rows = json.loads((study.folder / "metrics/evidence.json").read_text())["rows"]
    best = max(rows, key=lambda row: row["results"]["pretrained"]["validation"])["freezing"]
    file = study.folder / "models/kept.safetensors"
    card, _ = saved.load(file, study.folder / "data/weights/resnet18-pretrained.pth")
    assert card.run == study.runs[best].name
    # It is the model that was kept by the run's name.
    assert card == saved.load(study.file(best), study.folder / card.start)[0]
    tensors, expected = load_file(file), load_file(study.file(best))
    assert tensors.keys() == expected.keys()
    assert all(torch.equal(value, expected[name]) for name, value in tensors.items())


def test_images_that_cannot_be_read_are_named_and_the_others_go_on(study, tmp_path):
    good = (study.images / "a/000.jpg").read_bytes()
    (tmp_path / "cut.jpg").write_bytes(good[: len(good) // 2])
    (tmp_path / "text.png").write_text("no image")
    (tmp_path / "good\tone.jpg").write_bytes(good)
    (tmp_path / "notes.txt").write_text("passed over in a folder")
    Image.new("P", (50, 50)).save(tmp_path / "picture.gif")
    words = [study.file("finetuned"), tmp_path / "none.jpg", tmp_path, tmp_path / "picture.gif"]
    status, out, err = apart(study, predict.main, *words)
    path, label, confidence = out.rstrip("\n").split("\t")
    assert (status, path) == (1, str(tmp_path / "good\\tone.jpg"))
    assert label in "ab" and 0.5 <= float(confidence) <= 1
    wrong = [line.removeprefix(f"error: {tmp_path}/") for line in err.splitlines()]
    assert [line.split(":")[0] for line in wrong] == [
        "none.jpg",
        "cut.jpg",
        "text.png",
        "picture.gif",
    ]
    assert "no such file" in wrong[0] and "truncated" in wrong[1] and "JPEG, PNG" in wrong[2]


def test_what_is_no_model_is_one_line(study, tmp_path):
    image = study.images / "a/000.jpg"
    (tmp_path / "text").write_text("no model, and longer than eight bytes")
    whole = study.file("finetuned").read_bytes()
    (tmp_path / "cut").write_bytes(whole[: len(whole) // 2])
    save_file({"a": torch.zeros(2)}, tmp_path / "foreign")
    card, network = saved.load(study.file("finetuned"))
    state = network.state_dict()
    lacking = {name: value for name, value in state.items() if name != "fc.bias"}
    saved.save(tmp_path / "lacking", card, lacking)
    saved.save(tmp_path / "odd", card.model_copy(update={"backbone": "list_models"}), state)
    saved.save(tmp_path / "older", card.model_copy(update={"which_transfer": "2"}), state)
    reasons = {
        "none": "no such file",
        "text": "not a model made by `python -m transfer keep`",
        "cut": "not a model made by `python -m transfer keep`",
        "foreign": "no metadata of a kept network",
        "lacking": "fc.bias",
        "odd": "no network 'list_models'",
        "older": "has format 2, and this version reads format 3; save the network again with "
        "`python -m transfer keep`",
    }
    for name, reason in reasons.items():
        assert reason in refused(tmp_path, predict.main, tmp_path / name, image)


def trained(run: runs.Run) -> tuple[retrain.Original, nn.Module, np.ndarray]:
    """The run trained again, with the network's probabilities of the test images."""
    original = retrain.Original.load(run, params.load())
    network = retrain.train(original.job, original.epoch + 1)
    return original, network, saved.probabilities(network, original.test_images)


def test_predictions_that_differ_are_a_warning(study, capsys):
    with chdir(study.folder):
        original, network, probabilities = trained(study.runs["frozen"])
    parts = original.by_seed[0]
    predicted, confidence = parts["test"].predicted.copy(), parts["test"].probabilities.copy()
    predicted[:, :2] ^= 1
    confidence[:, 2] -= 0.1
    other = replace(parts["test"], predicted=predicted, probabilities=confidence)
    capsys.readouterr()
    retrain.warn_if_different(original, network, probabilities)
    assert capsys.readouterr().err == ""
    changed = replace(original, by_seed={0: parts | {"test": other}})
    retrain.warn_if_different(changed, network, probabilities)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("warning: 3 of 10 test images") and "2 of them as another class" in line


def test_a_run_in_bfloat16_is_kept_without_a_warning(study, tmp_path, capsys):
    folder = shutil.copytree(study.folder, tmp_path / "study")
    settings = yaml.load(folder / "params.yaml")
    settings["train"]["precision"] = "bfloat16"
    yaml.dump(settings, folder / "params.yaml")
    run = study.runs["frozen"]
    with chdir(folder):
        training.train_group([run], params.load(), every=60)
        run_cache.take(run, run_cache.key(run, params.load()))
        words = trained(run)
    retrain.warn_if_different(*words)
    assert "warning" not in capsys.readouterr().err


def test_a_network_trained_on_padded_images_pads_what_it_predicts(study, tmp_path):
    folder = shutil.copytree(study.folder, tmp_path / "study")
    settings = yaml.load(folder / "params.yaml")
    settings["pack"]["fit"] = "pad"
    yaml.dump(settings, folder / "params.yaml")
    shutil.rmtree(folder / "data/packed/kept")
    padded, run = Study(folder, study.runs), study.runs["frozen"]
    with chdir(folder):
        sizes = dict(params.load().pack)
        packed.write(folder / "data/split/kept", folder / "data/packed/kept", **sizes)
        training.train_group([run], params.load(), every=60)
        run_cache.take(run, run_cache.key(run, params.load()))
    words = "kept", "--small", "--run", run.name, "--output", padded.file("frozen")
    assert command(padded, model.main, *words)[0] == 0
    out = apart(padded, predict.main, padded.file("frozen"), padded.images, "--json")[1]
    confidence = [json.loads(line)["confidence"] for line in out.splitlines()]
    expected = padded.predicted("frozen").confidence[0]
    assert np.abs(np.array(confidence) - expected).max() <= ROUNDING
    before = study.predicted("frozen").confidence[0]
    assert np.abs(expected - before).max() > ROUNDING, "cropped images are other ones"


def test_mistakes_are_found_before_anything_is_trained(study, tmp_path):
    folder = study.folder / "models"
    there = set(folder.iterdir())
    assert "not in params.yaml's grid" in refused(study, model.main, "cats")
    near = study.runs["frozen"].name.replace("frozen", "frozn")
    assert study.runs["frozen"].name in refused(study, model.main, "kept", "--run", near)
    for name in ("net.md", "net.png", "net.json", "net.onnx", "net", ".safetensors", ".", ".."):
        line = refused(study, model.main, "kept", "--output", folder / name)
        assert "give a name that ends in .safetensors" in line
    line = refused(study, model.main, "kept", "--onnx", folder / "net.safetensors")
    assert "give a name that ends in .onnx" in line
    assert set(folder.iterdir()) == there

    settings = yaml.load(study.folder / "params.yaml")
    (tmp_path / "metrics").mkdir()
    yaml.dump(settings, tmp_path / "params.yaml")
    assert "metrics/evidence.json" in refused(tmp_path, model.main, "kept")
    settings["grid"]["lr"] = [0.01]
    yaml.dump(settings, tmp_path / "params.yaml")
    shutil.copy(study.folder / "metrics/evidence.json", tmp_path / "metrics")
    assert "of another grid" in refused(tmp_path, model.main, "kept")


def test_what_would_be_lost_or_cannot_be_written_is_found_before_anything_is_trained(
    study, tmp_path
):
    net, picture, page = (tmp_path / f"net.{kind}" for kind in ("safetensors", "png", "md"))
    onnx = tmp_path / "net.onnx"
    for path in (net, picture, page, onnx):
        for make in (Path.touch, lambda it: it.write_text("mine"), Path.mkdir, os.mkfifo):
            make(path)
            why = f"{path.name}: (`keep` did not|a folder|not a regular file)"
            with pytest.raises(cli.UserError, match=why):
                outputs.check(net, onnx, None)
            files.remove(path)
    shutil.copy(study.file("frozen"), net)
    shutil.copy(study.file("frozen").with_suffix(".png"), picture)
    outputs.check(net, onnx, tmp_path / "hub")
    net.unlink()  # DVC has it, and git the page
    shutil.copy(study.file("frozen").with_suffix(".md"), page)
    with pytest.raises(cli.UserError, match="net.md: `keep` did not make this file"):
        outputs.check(net, None, None)
    page.write_text(page.read_text().replace("frozen.safe", "net.safe"))
    outputs.check(net, None, None)
    for hub in (net, page, onnx, tmp_path, net / "hub", tmp_path / "x/.."):
        with pytest.raises(cli.UserError, match="collide"):
            outputs.check(net, onnx, hub)
    for path, why in {
        page / "net.safetensors": "net.md is not a folder",
        tmp_path / f"{'x' * 240}.safetensors": "File name too long",
    }.items():
        with pytest.raises(cli.UserError, match=why):
            outputs.check(path, None, None)
    outputs.check(tmp_path / "new/folder/net.safetensors", None, None)
    assert {path.name for path in tmp_path.iterdir()} == {"net.md", "net.png"}


def test_images_or_epochs_of_another_time_are_refused(study, tmp_path):
    for section, key in (("pack", "size"), ("train", "epochs")):
        folder = shutil.copytree(study.folder, tmp_path / key)
        settings = yaml.load(folder / "params.yaml")
        settings[section][key] -= 1
        yaml.dump(settings, folder / "params.yaml")
        line = refused(folder, model.main, "kept", "--output", "fresh/x.safetensors")
        assert "`dvc repro` first" in line
        assert not (folder / "fresh").exists()


def test_onnx_predicts_the_same_in_batches_of_any_size(study):
    run = study.runs["frozen"]
    words = ("--run", run.name, "--output", "models/x.safetensors", "--onnx", "models/x.onnx")
    status, predicted = command(study, model.main, "kept", *words)
    assert status == 0, predicted
    outputs.check(study.folder / "models/x.safetensors", study.folder / "models/x.onnx", None)
    session = InferenceSession(study.folder / "models/x.onnx", providers=["CPUExecutionProvider"])
    metadata = session.get_modelmeta().custom_metadata_map
    assert json.loads(metadata["labels"]) == ["a", "b"]
    assert (metadata["resize"], metadata["size"]) == ("44", "40")
    page = (ROOT / "docs/own-images.md").read_text()
    (client,) = re.findall(r"```python\n(.*?)```", page, re.S)
    image = study.images / study.predicted("frozen").name[0]
    for path, here in (("models/insects.onnx", "models/x.onnx"), ("garden/0.jpg", image)):
        client = client.replace(path, str(here))
    predicted = io.StringIO()
    with chdir(study.folder), redirect_stdout(predicted):
        exec(client, {})
    out = apart(study, predict.main, study.folder / "models/x.safetensors", image, "--json")[1]
    for label, value in json.loads(out)["probabilities"].items():
        shown = re.search(rf"'{label}': np.float32\((.*?)\)", predicted.getvalue())
        assert float(shown[1]) == pytest.approx(value, abs=0.01)
    for batch in (1, 3, 10):
        paths = [study.images / name for name in study.predicted("frozen").name[:batch]]
        # Of one size, at least that to which they are resized.
        sides = (61, 52)
        images = np.stack([Image.open(path).convert("RGB").resize(sides) for path in paths])
        (found,) = session.run(["probabilities"], {"images": images})
        prepared = [packed.prepare(Image.fromarray(one), 44, 40) for one in images]
        _, network = saved.load(study.folder / "models/x.safetensors")
        same = saved.probabilities(network, torch.from_numpy(np.stack(prepared)))
        assert np.abs(found - same).max() < 0.01  # by a grey level here and there


def test_a_temperature_is_in_what_is_predicted_and_in_onnx(study, tmp_path):
    card, network = saved.load(study.file("finetuned"))
    assert card.temperature == 1, "of two validation images"
    hot = card.model_copy(update={"temperature": 2.5, "start_needed": False})
    saved.save(tmp_path / "hot.safetensors", hot, network.state_dict())
    _, out, _ = apart(study, predict.main, tmp_path / "hot.safetensors", study.images, "--json")
    found = [list(json.loads(line)["probabilities"].values()) for line in out.splitlines()]
    with chdir(study.folder):
        images = test_images(training.prepare(study.runs["finetuned"], params.load()).data)
    with torch.inference_mode():
        expected = (network(loader.normalize(images)) / 2.5).softmax(1).numpy()
    np.testing.assert_allclose(sorted(found), sorted(expected.tolist()), atol=1e-4)
    exported.export(network, hot, list(images.numpy()), tmp_path / "hot.onnx")
    session = InferenceSession(tmp_path / "hot.onnx", providers=["CPUExecutionProvider"])
    inputs = {"images": exported._framed(images, card.resize)}
    np.testing.assert_allclose(session.run(["probabilities"], inputs)[0], expected, atol=1e-4)


def test_answers_that_are_not_to_be_taken_say_so(study, tmp_path):
    card, network = saved.load(study.file("finetuned"))
    assert (card.confidence_threshold, card.ood_distance) == (None, None), (
        "of six validation images"
    )
    with chdir(study.folder):
        images = test_images(training.prepare(study.runs["finetuned"], params.load()).data)
    logits, features = saved.outputs(network, images)
    given = saved.softmax(logits, 1)
    assert features.shape == (10, 256)
    seen = FeatureDistribution.fit(features[:7])
    tensors = map(torch.from_numpy, (seen.mean, seen.precision))
    state = network.state_dict() | dict(zip(saved.DISTRIBUTION, tensors, strict=True))
    sure = float(given.max())
    below = int((given.max(1) < sure).sum())
    assert 0 < below < 10

    def told(ood_distance: float) -> list[str]:
        known = {"confidence_threshold": sure, "ood_distance": ood_distance, "start_needed": False}
        file = tmp_path / "m.safetensors"
        saved.save(file, card.model_copy(update=known), state)
        status, out, err = apart(study, predict.main, file, study.images)
        lines = apart(study, predict.main, file, study.images, "--json")[1].splitlines()
        found = [json.loads(line) for line in lines]
        assert (status, err, sum(line["unsure"] for line in found)) == (0, "", below)
        assert {line["none_of_these"] for line in found} == {ood_distance == 0}
        return [(line.split("\t") + [""])[3] for line in out.splitlines()]

    assert sorted(told(1e9)) == [""] * (10 - below) + ["unsure"] * below
    assert told(0.0) == ["none of these"] * 10

    card = card.model_copy(update={"confidence_threshold": sure, "ood_distance": 0.0})
    predicted = calibration.Answers(study.predicted("finetuned").name, np.zeros(10, int), given)
    answers = predict.answers(card, seen, logits, features)
    with chdir(study.folder):
        record, dataset = Record.load(study.runs["finetuned"]), params.load().datasets["kept"]
        words = (card, dataset, record, predicted, answers, about.Examples([], []))
        page = about.write(tmp_path / "m.safetensors", *words).read_text()
    assert f"Of the 10 test images, {10 - below} reach it; " in page
    assert "It wrongly says so for 1.000 [0.722, 1.000] of the test images." in page


class Corner(nn.Module):
    """It sees the upper left quarter alone."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(1, 2, bias=False)
        self.head.weight.data = torch.tensor([[-1.0], [1.0]])

    def forward(self, images):
        _, _, height, width = images.shape
        seen = images[:, :, : height // 2, : width // 2].mean((1, 2, 3))
        return self.head(seen[:, None])


def test_what_an_answer_rests_on_is_where_the_network_looks(study, tmp_path):
    image = torch.full((40, 40, 3), 220, dtype=torch.uint8)
    matter = explain.occlusion_map(Corner(), image, 1)
    assert matter.shape == (40, 40) and (matter[:18, :18] > 0.001).all()
    assert np.abs(matter[24:]).max() < 1e-6 and np.abs(matter[:, 24:]).max() < 1e-6
    np.testing.assert_allclose(explain.occlusion_map(Corner(), image, 0), -matter, atol=1e-6)

    images = shutil.copytree(study.images / "b", tmp_path / "b")
    max(images.iterdir()).rename(images / f"{'z' * 250}.png")  # near the longest that there are
    words = (study.file("finetuned"), images, "--explain", tmp_path / "why")
    status, out, err = apart(study, predict.main, *words)
    assert (status, err) == (0, "")
    answers = [line.split("\t")[:2] for line in out.splitlines()]
    pictures = sorted((tmp_path / "why").iterdir())
    assert [path.name for path in pictures] == [
        f"{place:04}_{Path(name).stem[:28]}_{answer}.png"
        for place, (name, answer) in enumerate(answers, 1)
    ]
    assert {Image.open(path).size for path in pictures} == {(80, 40)}


def test_the_page_shows_what_some_answers_rest_on(study):
    file = study.file("finetuned")
    page, picture = file.with_suffix(".md").read_text(), file.with_suffix(".png")
    assert f"]({picture.name})" in page
    rows = ("recognised: " in page) + (" taken for " in page)
    with Image.open(picture) as sheet:
        assert sheet.width in {88 * n - explain.GAP for n in (1, 2, 3)}
        assert sheet.height == rows * (40 + explain.GAP) - explain.GAP


@pytest.mark.parametrize("sides", [(427, 640), (331, 201), (44, 97), (1200, 45), (7, 9), (3, 60)])
@pytest.mark.parametrize("sizes", [(44, 40), (64, 64), (256, 224)])
def test_onnx_prepares_photographs_of_any_size_as_pillow_does(study, sides, sizes):
    card, _ = saved.load(study.file("finetuned"))
    card = card.model_copy(update=dict(zip(("resize", "size"), sizes, strict=True)))
    photograph = Image.fromarray(load_sample_image("china.jpg")).resize(sides[::-1])
    made = exported.preparing(card, [helper.make_opsetid("", 20)], 10)
    session = InferenceSession(made.SerializeToString(), providers=["CPUExecutionProvider"])
    (found,) = session.run(["normal"], {"images": np.asarray(photograph)[None]})
    prepared = packed.prepare(photograph, card.resize, card.size)
    expected = loader.normalize(torch.from_numpy(prepared)[None]).numpy()
    apart = np.abs(found - expected) * 255 * np.array(loader.STD)[:, None, None]
    assert apart.max() < 1.01 and (apart > 0.01).mean() < 0.1  # grey levels


class Fickle(nn.Module):
    """Another function when exported."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def forward(self, images):
        outputs = self.network(images)
        return outputs.flip(1) if torch.compiler.is_exporting() else outputs


def test_onnx_that_differs_is_not_left_behind(study, tmp_path):
    card, network = saved.load(study.file("finetuned"))
    images = test_images(packed.load(study.folder / "data/packed/kept"))
    with pytest.raises(cli.UserError, match="not written"):
        exported.export(Fickle(network).eval(), card, list(images.numpy()), tmp_path / "x.onnx")
    assert list(tmp_path.iterdir()) == []


def test_the_command_itself_ends_quietly_when_its_reader_does(study):
    images = " ".join([str(study.images)] * 20)
    line = f"{sys.executable} -m transfer predict {study.file('finetuned')} {images} | head -1"
    done = subprocess.run(
        ["bash", "-c", f"{line}; exit ${{PIPESTATUS[0]}}"],
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"},
        cwd=study.folder,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout.count("\n"), done.stderr) == (1, 1, "")


def test_a_checkpoint_of_halves_holds_what_it_gives():
    init = {"a": torch.rand(3).half(), "b": torch.rand(3).half(), "c": torch.tensor(4)}
    loaded = {"a": init["a"].float(), "b": init["b"].float() + 1e-7, "c": torch.tensor(4)}
    assert set(saved.differing(loaded | {"d": torch.zeros(1)}, init)) == {"b", "d"}


def test_what_a_user_has_filled_in_stays(study):
    page = study.file("finetuned").with_suffix(".md").read_text()
    assert page.count(about.TO_FILL) == 2 and about.fill_in(page, "") == page
    mine = page.replace(f"costly: {about.TO_FILL}", "costly: nuns, wasps")
    assert mine != page and about.fill_in(page, mine.replace("test images", "others")) == mine
