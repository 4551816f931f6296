"""The protocol against a plain PyTorch loop written out here, and what must hold of any run."""

import copy
import shutil
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
import torchvision
from torch import nn
from torchvision.models import list_models

from tests.conftest import draw_split
from transfer import arithmetic
from transfer.cli import UserError
from transfer.images import packed
from transfer.params import Component
from transfer.runs import Run
from transfer.training import engine, features, loader, models
from transfer.training.pretrain import PAPER

release = pytest.mark.release
CPU = torch.device("cpu")
RUN = Run(
    dataset="ab",
    images="all",
    backbone="resnet18",
    lr=1e-3,
    freezing="finetuned",
    recipe="default",
    init="scratch",
    seed=3,
)
SCHEDULE = Component("StepLR", {"step_size": 1, "gamma": 0.1})
SETTINGS = PAPER.model_copy(update={"epochs": 2, "schedule": SCHEDULE})


def job(data: packed.Packed, device: torch.device = CPU, **changes) -> engine.Job:
    """Two epochs on the data, with these changes to the run or its settings."""
    axes = {name: changes.pop(name) for name in {*changes} & {*Run.model_fields}}
    run, settings = RUN.model_copy(update=axes), SETTINGS.model_copy(update=changes)
    return engine.Job(run, settings, data, device)


@pytest.fixture(scope="module")
def scratch(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "scratch.pth"
    torch.save({}, path)
    return path


@pytest.fixture(scope="module")
def many(tmp_path_factory) -> packed.Packed:
    """With so many test images that an accuracy means something."""
    folder = tmp_path_factory.mktemp("packed")
    draw_split(folder / "split", {"train": 20, "test": 60})
    packed.write(folder / "split", folder / "ab", resize=72, size=64, short_side=0)
    return packed.load(folder / "ab")


@pytest.fixture
def model(scratch):
    return models.build("resnet18", 2, scratch, seed=0)


def plain_loop(model, job, frozen):
    """The tutorial's loop: every step spelled out, batches of 4, one image at a time."""
    if frozen:
        for parameter in model.parameters():
            parameter.requires_grad = False
        for parameter in model.fc.parameters():
            parameter.requires_grad = True
    trained = [p for p in model.parameters() if p.requires_grad]
    data, settings = job.data, job.settings
    optimizer = torch.optim.Adam(trained, lr=job.run.lr)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, **settings.schedule.options)
    accuracies = []
    for epoch in range(settings.epochs):
        model.train()
        if frozen and settings.frozen_batchnorm == "eval":
            model.eval()
        batches, crops = job.plan(epoch)
        for batch in batches:
            images = loader.normalize(loader.crop_batch(data, batch, crops)).contiguous()
            optimizer.zero_grad()
            labels = torch.tensor([data.train.label[i] for i in batch])
            nn.functional.cross_entropy(model(images), labels).backward()
            optimizer.step()
        scheduler.step()
        model.eval()
        with torch.no_grad():
            predicted = model(loader.normalize(data.prepared_images())).argmax(1).numpy()
        right = predicted == np.concatenate([data.validation.label, data.test.label])
        held = len(data.validation)
        accuracies.append((right[:held].mean(), right[held:].mean()))
    return accuracies


def run(model, job, frozen, chunk=64):
    if not frozen:
        return [result.epoch for result in engine.finetune(job, model)]
    head = model.fc
    epochs = features.Pass(job, model).compute(chunk)
    curve = [result.epoch for result in engine.probe(job, head, epochs)]
    model.fc = head
    return curve


@pytest.mark.parametrize("frozen,batchnorm", [(False, "train"), (True, "train"), (True, "eval")])
@pytest.mark.parametrize("chunk", [pytest.param(4, marks=release), 64])
def test_same_weights_as_a_plain_loop(model, data, frozen, batchnorm, chunk):
    plain, made = copy.deepcopy(model), job(data, frozen_batchnorm=batchnorm)
    accuracies = plain_loop(plain, made, frozen)
    curve = run(model, made, frozen, chunk)
    found = [(epoch.validation_accuracy, epoch.test_accuracy) for epoch in curve]
    assert np.array(found) == pytest.approx(np.array(accuracies))
    # Adam turns rounding in a tiny gradient into a step of the order of lr, so that single weights
    # part ways, and which do depends on the processor.
    for (name, ours), theirs in zip(
        model.state_dict().items(), plain.state_dict().values(), strict=True
    ):
        assert rms(ours - theirs) < 5e-3 * rms(theirs) + 1e-4, name


def rms(values):
    return values.double().square().mean().sqrt()


@pytest.mark.parametrize("batchnorm", ["train", "eval"])
def test_frozen_leaves_the_backbone_as_it_was(model, data, batchnorm):
    before = copy.deepcopy(model.state_dict())
    run(model, job(data, frozen_batchnorm=batchnorm), frozen=True)
    moved = {n for n, value in model.state_dict().items() if not torch.equal(value, before[n])}
    statistics = {name for name, _ in model.named_buffers()} if batchnorm == "train" else set()
    assert moved == statistics | {"fc.weight", "fc.bias"}


def test_finetuning_moves_every_parameter(model, data):
    before = copy.deepcopy(model.state_dict())
    run(model, job(data), frozen=False)
    assert not [n for n, p in model.named_parameters() if torch.equal(p, before[n])]


@pytest.mark.parametrize("frozen", [pytest.param(True, marks=release), False])
def test_same_seed_same_curve(scratch, data, frozen):
    def curve(seed):
        model = models.build("resnet18", 2, scratch, seed)
        return run(model, job(data, seed=seed), frozen)

    assert curve(0) == curve(0)
    assert curve(0) != curve(1)


def test_runs_may_take_turns_by_the_epoch(scratch, data):
    """Each epoch draws from a seed of its own, so one process may train several runs at once."""

    def epochs(seed):
        model = models.build("resnet18", 2, scratch, seed)
        model.avgpool = nn.Sequential(model.avgpool, nn.Dropout(0.5))
        return engine.finetune(job(data, seed=seed), model)

    alone = [[result.epoch for result in epochs(seed)] for seed in (3, 4)]
    pairs = zip(epochs(3), epochs(4), strict=True)
    in_turn = [[result.epoch for result in pair] for pair in pairs]
    assert in_turn == [list(pair) for pair in zip(*alone, strict=True)]


def test_learning_rate_steps_down(model, data):
    schedule = Component("StepLR", {"step_size": 2})
    curve = run(model, job(data, epochs=5, schedule=schedule), frozen=True)
    assert [epoch.lr for epoch in curve] == pytest.approx([1e-3, 1e-3, 1e-4, 1e-4, 1e-5])


@pytest.mark.parametrize("images", [8, 9, 61])
def test_grouped_batchnorm_is_batch_after_batch(images):
    torch.manual_seed(0)
    one = nn.Sequential(nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5)).train()
    nn.init.normal_(one[1].weight)
    many, x = copy.deepcopy(one), torch.randn(images, 3, 8, 8) + 2
    with torch.inference_mode():
        expected = torch.cat([one(part) for part in x.split(4)])
        ours = features.per_batch(many, many, x, 4)
    torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-5)
    for buffer, theirs in zip(many.buffers(), one.buffers(), strict=True):
        torch.testing.assert_close(buffer, theirs, rtol=1e-5, atol=1e-6)


def frozen_curve(scratch, data, folder, key):
    model = models.build("resnet18", 2, scratch, 0)
    head = model.fc
    kept = features.Pass(job(data), model).kept(folder, key)
    return [result.epoch for result in engine.probe(job(data), head, kept)]


def fails(*_, **__):
    yield pytest.fail("the backbone was asked again")


def test_kept_features_give_the_same_run(scratch, data, tmp_path, monkeypatch):
    first = frozen_curve(scratch, data, tmp_path, "one")
    with monkeypatch.context() as patch:
        patch.setattr(features.Pass, "compute", fails)
        assert frozen_curve(scratch, data, tmp_path, "one") == first
    frozen_curve(scratch, data, tmp_path, "two")
    assert sorted(path.name for path in tmp_path.iterdir()) == [".lock", "0.pt", "1.pt"]
    keys = {torch.load(path, weights_only=True)["key"] for path in tmp_path.glob("*.pt")}
    assert keys == {"two"}


def test_a_pass_cut_short_goes_on_where_it_was(scratch, data, tmp_path, monkeypatch, capsys):
    expected = frozen_curve(scratch, data, tmp_path / "whole", "one")
    model = models.build("resnet18", 2, scratch, 0)
    cut = features.Pass(job(data), model).kept(tmp_path / "cut", "one")
    next(cut)
    cut.close()
    firsts, compute = [], features.Pass.compute

    def seen(*arguments, first):
        firsts.append(first)
        return compute(*arguments, first=first)

    monkeypatch.setattr(features.Pass, "compute", seen)
    shutil.copytree(tmp_path / "cut", tmp_path / "torn")
    (tmp_path / "torn/0.pt").write_bytes(b"PK")
    assert frozen_curve(scratch, data, tmp_path / "cut", "one") == expected
    assert frozen_curve(scratch, data, tmp_path / "torn", "one") == expected
    assert firsts == [1, 0]
    assert "torn/0.pt is not whole; starting anew" in capsys.readouterr().err
    for folder in ("whole", "cut", "torn"):
        assert {p.name for p in (tmp_path / folder).iterdir()} == {".lock", "0.pt", "1.pt"}


def test_shuffled_labels_give_chance_and_true_ones_do_not(scratch, many, result):
    """Nothing but the labels can tell the classes apart, so no path leaks them."""
    rng = np.random.default_rng(0)
    parts = {
        part: replace(getattr(many, part), label=rng.permutation(getattr(many, part).label))
        for part in ("train", "test")
    }

    def accuracy(data):
        model = models.build("resnet18", 2, scratch, seed=0)
        return run(model, job(data, epochs=3), frozen=False)[-1].test_accuracy

    assert result(frozen=False)[1] > 0.8
    assert 0.3 < accuracy(replace(many, **parts)) < 0.7


def test_the_resnets_are_torchvisions():
    assert set(models.RESNETS) == set(list_models(module=torchvision.models, include="*resne*"))
    assert all(type(models.shape(name)) is torchvision.models.ResNet for name in models.RESNETS)
    for name in ("resnet19", "ResNet", "resnet18.tv_in1k"):
        with pytest.raises(UserError, match=f"timm has no network '{name}'; .*resnet"):
            models.check_backbones(["resnet18", name])


@pytest.fixture(scope="module")
def result(scratch, many):
    @cache
    def trained(frozen: bool, **changed):
        """Outputs before training, and test accuracy after."""
        made = job(many, lr=0.01 if frozen else 0.001, epochs=3, **changed)
        model = models.build("miniresnet18", 2, scratch, seed=0)
        images = next(made.feed().prepared())
        with torch.inference_mode():
            outputs = made.forward(model.train())(images)
        model = models.build("miniresnet18", 2, scratch, seed=0)
        return outputs, run(model, made, frozen)[-1].test_accuracy

    return trained


CHANNELS_LAST, BFLOAT16 = {"memory_format": "channels_last"}, {"precision": "bfloat16"}


@pytest.mark.parametrize(
    "frozen,setting",
    [
        (False, CHANNELS_LAST),
        (True, BFLOAT16),
        pytest.param(True, CHANNELS_LAST, marks=release),
        pytest.param(False, BFLOAT16, marks=release),
    ],
)
def test_faster_settings_reach_the_same_accuracy(result, frozen, setting):
    outputs, accuracy = result(frozen=frozen, **setting)
    reference, expected = result(frozen=frozen)
    # Single losses part ways within an epoch: training makes any rounding visible.
    assert (outputs - reference).norm() < 0.05 * reference.norm()
    assert accuracy == pytest.approx(expected, abs=0.05)


def test_frozen_statistics_leave_dropout_on(model, data):
    model.avgpool = nn.Sequential(model.avgpool, nn.Dropout(0.5))
    made = job(data, frozen_batchnorm="eval")
    train, prepared = next(features.Pass(made, model).compute())
    dropped, kept = ((part == 0).double().mean() for part in (train, prepared))
    assert dropped - kept > 0.4


@pytest.mark.parametrize("precision", ["default", "float32", "bfloat16"])
def test_what_a_gpu_computes_in_is_set_and_said(monkeypatch, precision):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", torch.backends.cudnn.allow_tf32)
    for supported in (True, False):
        monkeypatch.setattr(torch.cuda, "is_tf32_supported", lambda has=supported: has)
        default = "TF32" if supported else "float32"
        found = arithmetic.apply("fast", precision, "cuda")
        assert found == (default if precision == "default" else precision)
        assert torch.backends.cudnn.allow_tf32 == (precision == "default")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("precision", ["default", "bfloat16"])
def test_a_recorded_step_is_the_plain_one(scratch, data, precision):
    """On 22 images in batches of 4, the last one short."""
    device = engine.pick_device("cuda")  # which makes cuDNN deterministic

    def result(graph):
        model = models.build("resnet18", 2, scratch, seed=0)
        results = engine.finetune(job(data, device, cuda_graph=graph, precision=precision), model)
        return [result.epoch for result in results], model.state_dict()

    (recorded, weights), (plain, expected) = result(True), result(False)
    assert [row.lr for row in recorded] == [row.lr for row in plain]
    for ours, theirs in zip(weights.values(), expected.values(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=2e-3, atol=2e-4)
