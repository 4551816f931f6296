"""The protocol against a plain PyTorch loop written out here, and what must hold of any run."""

import copy
import gc
import shutil
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from functools import cache
from types import SimpleNamespace

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
from transfer.training import augment, engine, features, models
from transfer.training.feed import Feed
from transfer.training.step import Recorded, Step, Totals, changed_by

release = pytest.mark.release
CPU = torch.device("cpu")
PROTOCOL = engine.Protocol(
    lr=1e-3,
    epochs=2,
    batch_size=4,
    schedule=Component("StepLR", {"step_size": 1, "gamma": 0.1}),
    seed=3,
)


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


def plain_loop(model, data, protocol, frozen):
    """The tutorial's loop: every step spelled out, batches of 4, one image at a time."""
    if frozen:
        for parameter in model.parameters():
            parameter.requires_grad = False
        for parameter in model.fc.parameters():
            parameter.requires_grad = True
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.Adam(trained, lr=protocol.lr)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, **protocol.schedule.options)
    accuracies = []
    for epoch in range(protocol.epochs):
        model.train()
        if frozen and protocol.frozen_batchnorm == "eval":
            model.eval()
        batches, crops = protocol.plan(data, epoch)
        for batch in batches:
            images = augment.normalize(augment.crop_batch(data, batch, crops)).contiguous()
            optimizer.zero_grad()
            labels = torch.tensor([data.train.label[i] for i in batch])
            nn.functional.cross_entropy(model(images), labels).backward()
            optimizer.step()
        scheduler.step()
        model.eval()
        with torch.no_grad():
            predicted = model(augment.normalize(data.prepared_images())).argmax(1).numpy()
        right = predicted == np.concatenate([data.validation.label, data.test.label])
        held = len(data.validation)
        accuracies.append((right[:held].mean(), right[held:].mean()))
    return accuracies


def run(model, data, protocol, frozen, chunk=64):
    if not frozen:
        return [row for row, _ in engine.finetune(model, data, protocol, CPU)]
    head = model.fc
    epochs = features.Pass(model, data, protocol, CPU).compute(chunk)
    curve = [row for row, _ in engine.probe(head, epochs, data, protocol)]
    model.fc = head
    return curve


@pytest.mark.parametrize("frozen,batchnorm", [(False, "train"), (True, "train"), (True, "eval")])
@pytest.mark.parametrize("chunk", [pytest.param(4, marks=release), 64])
def test_same_weights_as_a_plain_loop(model, data, frozen, batchnorm, chunk):
    protocol = replace(PROTOCOL, frozen_batchnorm=batchnorm)
    plain = copy.deepcopy(model)
    accuracies = plain_loop(plain, data, protocol, frozen)
    curve = run(model, data, protocol, frozen, chunk)
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
    run(model, data, replace(PROTOCOL, frozen_batchnorm=batchnorm), frozen=True)
    moved = {n for n, value in model.state_dict().items() if not torch.equal(value, before[n])}
    statistics = {name for name, _ in model.named_buffers()} if batchnorm == "train" else set()
    assert moved == statistics | {"fc.weight", "fc.bias"}


def test_finetuning_moves_every_parameter(model, data):
    before = copy.deepcopy(model.state_dict())
    run(model, data, PROTOCOL, frozen=False)
    assert not [n for n, p in model.named_parameters() if torch.equal(p, before[n])]


@pytest.mark.parametrize("frozen", [pytest.param(True, marks=release), False])
def test_same_seed_same_curve(scratch, data, frozen):
    def curve(seed):
        model = models.build("resnet18", 2, scratch, seed)
        return run(model, data, replace(PROTOCOL, seed=seed), frozen)

    assert curve(0) == curve(0)
    assert curve(0) != curve(1)


def test_runs_may_take_turns_by_the_epoch(scratch, data):
    """Each epoch draws from a seed of its own, so one process may train several runs at once."""

    def epochs(seed):
        model = models.build("resnet18", 2, scratch, seed)
        model.avgpool = nn.Sequential(model.avgpool, nn.Dropout(0.5))
        return engine.finetune(model, data, replace(PROTOCOL, seed=seed), CPU)

    alone = [[row for row, _ in epochs(seed)] for seed in (3, 4)]
    in_turn = [[row for row, _ in pair] for pair in zip(epochs(3), epochs(4), strict=True)]
    assert in_turn == [list(pair) for pair in zip(*alone, strict=True)]


def test_learning_rate_steps_down(model, data):
    curve = run(
        model,
        data,
        replace(PROTOCOL, epochs=5, schedule=Component("StepLR", {"step_size": 2})),
        frozen=True,
    )
    assert [epoch.lr for epoch in curve] == pytest.approx([1e-3, 1e-3, 1e-4, 1e-4, 1e-5])


@pytest.mark.parametrize("images", [8, 9, 61])
def test_grouped_batchnorm_is_batch_after_batch(images):
    torch.manual_seed(0)
    one = nn.Sequential(nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5)).train()
    nn.init.normal_(one[1].weight)
    many, x = copy.deepcopy(one), torch.randn(images, 3, 8, 8) + 2
    with torch.inference_mode():
        expected = torch.cat([one(part) for part in x.split(4)])
        ours = features.per_batch(many, x, PROTOCOL)
    torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-5)
    for buffer, theirs in zip(many.buffers(), one.buffers(), strict=True):
        torch.testing.assert_close(buffer, theirs, rtol=1e-5, atol=1e-6)


def frozen_curve(scratch, data, folder, key):
    model = models.build("resnet18", 2, scratch, 0)
    head = model.fc
    kept = features.Pass(model, data, PROTOCOL, CPU).kept(folder, key)
    return [row for row, _ in engine.probe(head, kept, data, PROTOCOL)]


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
    cut = features.Pass(model, data, PROTOCOL, CPU).kept(tmp_path / "cut", "one")
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
        return run(model, data, replace(PROTOCOL, epochs=3), frozen=False)[-1].test_accuracy

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
        protocol = replace(PROTOCOL, lr=0.01 if frozen else 0.001, epochs=3, **changed)
        model = models.build("miniresnet18", 2, scratch, seed=0)
        images = next(Feed(many, CPU, protocol.layout).prepared())
        with torch.inference_mode():
            outputs = protocol.forward(model.train())(images)
        model = models.build("miniresnet18", 2, scratch, seed=0)
        return outputs, run(model, many, protocol, frozen)[-1].test_accuracy

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
    protocol = replace(PROTOCOL, frozen_batchnorm="eval")
    train, prepared = next(features.Pass(model, data, protocol, CPU).compute())
    dropped, kept = ((part == 0).double().mean() for part in (train, prepared))
    assert dropped - kept > 0.4


def test_a_recording_leaves_no_trace(monkeypatch):
    """Without a GPU: its calls are stubbed, and the graph computes the plain step. What this
    recording runs is taken back, as one on a GPU runs nothing."""
    images, labels = torch.randn(11, 6), torch.arange(11) % 2
    network = nn.Sequential(nn.Linear(6, 6), nn.BatchNorm1d(6), nn.Dropout(0.5), nn.Linear(6, 2))

    def trained(step):
        torch.manual_seed(0)
        for batch in zip(images.split(4), labels.split(4), strict=True):
            step(*batch)
        return [*changed_by(step.optimizer), torch.tensor(step.totals.take(11))]

    def parts():
        model = copy.deepcopy(network)
        optimizer = torch.optim.Adam(model.parameters(), 0.01, fused=True)
        return model, nn.functional.cross_entropy, optimizer, Totals(CPU), 0.5

    def with_nodes():
        return {id(o) for o in gc.get_objects() if type(o) is torch.Tensor and o.grad_fn}

    class Graph:
        def replay(self):
            Step.__call__(recorded, recorded.inputs, recorded.labels)

    @contextmanager
    def record(graph, capture_error_mode):
        assert capture_error_mode == "thread_local"
        assert with_nodes() <= known, "autograd nodes of another stream live on"
        before = [(tensor, tensor.detach().clone()) for tensor in recorded._changed()]
        with torch.random.fork_rng():
            yield
        with torch.no_grad():
            for tensor, value in before:
                tensor.copy_(value)

    stream = SimpleNamespace(wait_stream=lambda _: None)
    stubs = {"Stream": lambda: stream, "current_stream": lambda: stream}
    stubs |= {"stream": lambda _: nullcontext(), "CUDAGraph": Graph, "graph": record}
    for name, stub in stubs.items():
        monkeypatch.setattr(torch.cuda, name, stub)
    ours, known = parts(), with_nodes()
    recorded = Recorded(*ours, list(ours[0].buffers()))
    for one, other in zip(trained(recorded), trained(Step(*parts())), strict=True):
        assert torch.equal(one, other)
    assert recorded.graph is not None


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

    def result(graph):
        model = models.build("resnet18", 2, scratch, seed=0)
        protocol = replace(PROTOCOL, cuda_graph=graph, precision=precision)
        results = engine.finetune(model, data, protocol, torch.device("cuda"))
        curve = [row for row, _ in results]
        return curve, model.state_dict()

    (recorded, weights), (plain, expected) = result(True), result(False)
    assert [row.lr for row in recorded] == [row.lr for row in plain]
    for ours, theirs in zip(weights.values(), expected.values(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=2e-3, atol=2e-4)
