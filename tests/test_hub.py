"""A kept network as timm loads it."""

import json

import pytest
import timm
import torch
from PIL import Image
from timm.data import create_transform, resolve_model_data_config

from tests.study import in_process, small, yaml
from transfer import cli
from transfer.images import reader
from transfer.model import hub, keep, predict, saved
from transfer.params import Component
from transfer.training import models
from transfer.training.components import OWN


@pytest.fixture
def study(tmp_path):
    """Run and committed, with a network that timm has too."""
    grid = {"backbone": ["resnet18"], "freezing": ["finetuned"], "init": ["pretrained"]}
    made = small(tmp_path / "study", ["one"], **grid)
    made.repro()
    made.commit()
    return made


def test_timm_loads_the_network_that_was_kept(study):
    status, _, err = in_process(study.folder, keep.main, "one", "--hub", "hub/one")
    assert (status, err) == (0, "")
    kept = study.folder / "models/one.safetensors"
    hub.check(study.folder / "hub/one", "resnet18", Component(OWN), Component(OWN))  # once more
    card, _ = saved.load(kept)
    model = timm.create_model(f"local-dir:{study.folder / 'hub/one'}", pretrained=True).eval()
    transform = create_transform(**resolve_model_data_config(model))
    images = sorted((study.folder / "data/raw/one/test").rglob("*.jpg"))
    status, out, _ = in_process(study.folder, predict.main, kept, *images)
    assert status == 0
    for path, line in zip(images, out.splitlines()[-len(images) :], strict=True):
        with torch.inference_mode(), Image.open(path) as image:
            found = model(transform(image)[None]).softmax(1)[0]
        name, label, confidence, *_ = line.split("\t")
        assert name == str(path) and label == card.labels[found.argmax()]
        assert float(confidence) == pytest.approx(float(found.max()), abs=2e-3)
    config = json.loads((study.folder / "hub/one/config.json").read_text())
    assert config["label_names"] == ["a", "b"]
    assert not {"license", "tag", "origin_url", "paper_ids"} & config["pretrained_cfg"].keys()
    made = [*(study.folder / "hub/one").iterdir(), kept, *kept.parent.glob("one.[mp]*")]
    assert len(made) == 6 and {path.stat().st_mode & 0o777 for path in made} == {0o644}
    readme = (study.folder / "hub/one/README.md").read_text()
    assert readme.endswith((study.folder / "models/one.md").read_text())
    assert next(iter(yaml.load_all(readme.split("\n---\n")[0])))["library_name"] == "timm"


@pytest.mark.parametrize(("how", "mode"), hub.MODES.items())
def test_timm_is_told_how_images_become_squares(how, mode, tmp_path):
    model = models.architecture("resnet18")(num_classes=2).eval()
    images = torch.randint(0, 256, (2, 64, 64, 3), dtype=torch.uint8)
    about = card("resnet18", 1.0).model_copy(update={"fit": how})
    hub.export(model, about, images, "# Page\n", tmp_path / "hub")
    again = timm.create_model(f"local-dir:{tmp_path / 'hub'}", pretrained=True)
    config = resolve_model_data_config(again)
    assert (config["crop_mode"], config["crop_pct"]) == (mode, 64 / 72 if how == "crop" else 1.0)


def card(backbone: str, temperature: float) -> saved.Card:
    known = {"backbone": backbone, "labels": ["a", "b"], "size": 64, "resize": 72}
    known |= {"activation": Component(OWN), "pooling": Component(OWN), "temperature": temperature}
    words = dict.fromkeys(("run", "start", "start_source", "data_sha256"), "x")
    words["start_sha256"] = "0" * 64
    numbers = dict.fromkeys(("seed", "epoch", "accuracy", "low", "high", "n"), 0)
    rest = {"start_needed": False, "versions": {}, "device": "cpu", "commit": ""}
    return saved.Card(**known, **words, **numbers, **rest, decoding=reader.PAPER)


@pytest.mark.parametrize("backbone", ["resnet18", "test_vit", "mobilenetv3_small_050"])
def test_the_temperature_and_the_normalisation_go_with_it(backbone, tmp_path):
    torch.manual_seed(0)
    model = models.architecture(backbone)(num_classes=2).eval()
    side = getattr(model, "size", 64)
    about = card(backbone, 1.7).model_copy(update={"size": side, "resize": side + 8})
    images = torch.randint(0, 256, (5, side, side, 3), dtype=torch.uint8)
    hub.export(model, about, images, "# Page\n", tmp_path / "hub")  # which compares them
    config = json.loads((tmp_path / "hub/config.json").read_text())["pretrained_cfg"]
    assert config["crop_pct"] == pytest.approx(side / (side + 8))
    wrong = about.model_copy(update={"temperature": 1.0})
    again = timm.create_model(f"local-dir:{tmp_path / 'hub'}", pretrained=True).eval()
    with pytest.raises(cli.UserError, match="probabilities are up to"):
        hub._compare(again, model, wrong, images, tmp_path / "hub")


def test_what_timm_cannot_take_is_one_line_before_training(tmp_path):
    with pytest.raises(cli.UserError, match="timm has no network miniresnet10"):
        hub.check(tmp_path / "new", "miniresnet10", Component(OWN), Component(OWN))
    with pytest.raises(cli.UserError, match="cannot have another train.pooling"):
        hub.check(tmp_path / "new", "resnet18", Component(OWN), Component("AdaptiveMaxPool2d"))
    hub.check(tmp_path / "new", "resnet18", Component(OWN), Component(OWN), "pad")
    with pytest.raises(cli.UserError, match="timm pads images for test_vit in another grey"):
        hub.check(tmp_path / "new", "test_vit", Component(OWN), Component(OWN), "pad")
    (tmp_path / "models").mkdir()
    (tmp_path / "models/other.safetensors").touch()
    (tmp_path / "link").symlink_to(tmp_path)
    (tmp_path / "file").touch()
    (tmp_path / "own").mkdir()
    for name in hub.FILES:  # as a folder from Hugging Face's hub
        (tmp_path / "own" / name).touch()
    for name in ("models", "link", "file", "own"):
        with pytest.raises(cli.UserError, match=f"{name} holds other files; give a new folder"):
            hub.check(tmp_path / name, "resnet18", Component(OWN), Component(OWN))
