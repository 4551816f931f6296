"""What a recipe changes, against torch and torchvision themselves."""

import copy
import re
from dataclasses import replace

import numpy as np
import pytest
import timm
import torch
from sklearn.utils.class_weight import compute_class_weight
from timm.optim import param_groups_layer_decay
from torch import nn
from torchvision.transforms import v2

from tests.conftest import ROOT
from tests.test_engine import CPU, job, rms
from transfer import params
from transfer.cli import UserError
from transfer.params import Component
from transfer.training import components, engine, features, loader, models
from transfer.training.engine import Checkpoint
from transfer.training.preflight import check
from transfer.training.step import Step, set_rate

release = pytest.mark.release


@pytest.fixture(scope="module")
def scratch(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "scratch.pth"
    models.save_scratch(path)
    return path


def one_hot(loss):
    return lambda outputs, labels: loss(outputs, nn.functional.one_hot(labels, 2).float())


RECIPES = {
    "sgd": (
        {
            "optimizer": Component("SGD", {"momentum": 0.9, "weight_decay": 1e-4}),
            "schedule": Component("CosineAnnealingLR"),
            "loss": Component("CrossEntropyLoss", {"label_smoothing": 0.1}),
        },
        lambda p: torch.optim.SGD(p, lr=1e-3, momentum=0.9, weight_decay=1e-4),
        lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, T_max=2),
        nn.CrossEntropyLoss(label_smoothing=0.1),
    ),
    "adamw": (
        {
            "optimizer": Component("AdamW", {"weight_decay": 0.1}),
            "schedule": Component("ExponentialLR", {"gamma": 0.5}),
            "loss": Component("BCEWithLogitsLoss"),
        },
        lambda p: torch.optim.AdamW(p, lr=1e-3, weight_decay=0.1),
        lambda o: torch.optim.lr_scheduler.ExponentialLR(o, 0.5),
        one_hot(nn.BCEWithLogitsLoss()),
    ),
    "weighted": (
        {"loss": Component("CrossEntropyLoss", {"weight": [0.5, 2.0]})},
        lambda p: torch.optim.Adam(p, lr=1e-3),
        lambda o: torch.optim.lr_scheduler.StepLR(o, 1),
        nn.CrossEntropyLoss(weight=torch.tensor([0.5, 2.0])),
    ),
    "margin": (
        {"loss": Component("MultiMarginLoss"), "optimizer": Component("Adam", {"eps": 1e-7})},
        lambda p: torch.optim.Adam(p, lr=1e-3, eps=1e-7),
        lambda o: torch.optim.lr_scheduler.StepLR(o, 1),
        nn.MultiMarginLoss(),
    ),
}


@pytest.mark.parametrize(
    "recipe,freezing",
    [
        ("sgd", "finetuned"),
        ("adamw", "frozen"),
        pytest.param("sgd", "frozen", marks=release),
        pytest.param("adamw", "finetuned", marks=release),
        ("margin", "frozen"),
        ("weighted", "frozen"),
        ("sgd", "last1"),
    ],
)
def test_same_weights_as_a_plain_loop(scratch, data, recipe, freezing):
    changes, make_optimizer, make_schedule, loss = RECIPES[recipe]
    made = job(data, freezing=freezing, **changes)
    plain = made.build(scratch)
    trained = {"finetuned": [plain], "frozen": [plain.fc], "last1": [plain.layer4, plain.fc]}
    parameters = [p for module in trained[freezing] for p in module.parameters()]
    optimizer = make_optimizer(parameters)
    schedule = make_schedule(optimizer)
    for epoch in range(made.settings.epochs):
        plain.train()
        batches, crops = made.plan(epoch)
        for batch in batches:
            images = loader.normalize(loader.crop_batch(data, batch, crops)).contiguous()
            optimizer.zero_grad()
            loss(plain(images), torch.tensor(data.train.label[batch])).backward()
            optimizer.step()
        schedule.step()
    ours = made.build(scratch)
    if freezing == "frozen":
        head = ours.fc
        list(engine.probe(made, head, features.Pass(made, ours).compute()))
        ours.fc = head
    else:
        list(engine.finetune(made, ours))
    expected = plain.state_dict()
    for name, value in ours.state_dict().items():
        assert rms(value - expected[name]) < 5e-3 * rms(expected[name]) + 1e-4, name


def test_balanced_class_weights_are_scikit_learns():
    counts = [30, 6, 4]
    labels = np.repeat([0, 1, 2], counts)
    weights = compute_class_weight("balanced", classes=np.unique(labels), y=labels)
    theirs = nn.CrossEntropyLoss(weight=torch.tensor(weights, dtype=torch.float32))
    outputs, some = torch.randn(5, 3), torch.tensor([0, 1, 2, 0, 1])
    plain = Component("CrossEntropyLoss")
    ours = components.loss(plain, "balanced", counts)
    torch.testing.assert_close(ours(outputs, some), theirs(outputs, some))
    weighted = Component("CrossEntropyLoss", {"weight": [1.0, 1.0, 1.0]})
    for component in (Component("MultiMarginLoss"), weighted):
        with pytest.raises(ValueError, match="for CrossEntropyLoss without weight"):
            components.loss(component, "balanced", counts)
    with pytest.raises(ValueError, match="2 weights for 3 classes"):
        components.loss(Component("CrossEntropyLoss", {"weight": [1.0, 1.0]}), "none", counts)


WAYS = {
    "first1": "conv1|bn1",
    "first2": "conv1|bn1|layer1",
    "last1": "layer4",
    "last2": "layer3|layer4",
    "stage3": "layer2",
    "norm": r".*bn\d|layer\d\.0\.downsample\.1",
    "bias": r".*bias",
}


@pytest.mark.parametrize("freezing", WAYS)
def test_what_a_way_trains_moves_and_all_else_stays(scratch, data, freezing):
    model = models.build("resnet18", 2, scratch, 0)
    before = copy.deepcopy(model.state_dict())
    list(engine.finetune(job(data, epochs=1, freezing=freezing), model))
    moved = {n for n, p in model.named_parameters() if not torch.equal(p, before[n])}
    names = re.compile(rf"({WAYS[freezing]})(\.|$)|fc\.")
    assert moved == {name for name, _ in model.named_parameters() if names.match(name)}


def test_layers_learn_as_slowly_as_timms_grouping_has_it(scratch):
    """timm's ResNet-18 is torchvision's, by name."""
    network = timm.create_model("resnet18", num_classes=2)
    theirs = param_groups_layer_decay(network, weight_decay=0.0, layer_decay=0.7)
    scales = {id(one): group["lr_scale"] for group in theirs for one in group["params"]}
    expected = {name: scales[id(one)] for name, one in network.named_parameters()}
    model = models.build("resnet18", 2, scratch, 0)
    names = {id(one): name for name, one in model.named_parameters()}
    groups = models.groups(model, 0.7)
    found = {names[id(one)]: group["lr_scale"] for group in groups for one in group["params"]}
    assert found == pytest.approx(expected)
    for component in (Component("Adam"), Component("SGD", {"momentum": 0.9})):
        optimizer = components.optimizer(component, groups, lr=0.1)
        set_rate(optimizer, 0.01)
        rates = [group["lr"] for group in optimizer.param_groups]
        assert rates == pytest.approx([0.01 * group["lr_scale"] for group in groups])
        assert rates[-1] == 0.01 and rates[0] == pytest.approx(0.01 * 0.7**9)


def test_a_gradient_is_clipped_to_its_norm():
    layer = nn.Linear(3, 2)
    before = copy.deepcopy(layer)
    images, labels = 100 * torch.randn(4, 3), torch.tensor([0, 1, 0, 1])
    loss = components.loss(Component("CrossEntropyLoss"), "none", [1, 1])
    Step(layer, loss, torch.optim.SGD(layer.parameters(), lr=1.0), engine.Totals(CPU), 0.5)(
        images, labels
    )
    loss(before(images), labels).backward()
    nn.utils.clip_grad_norm_(before.parameters(), 0.5)
    torch.testing.assert_close(layer.weight, before.weight - before.weight.grad)
    torch.testing.assert_close(layer.bias, before.bias - before.bias.grad)


@pytest.mark.parametrize("batchnorm", ["train", "eval"])
def test_frozen_stages_keep_their_statistics_if_asked(scratch, data, batchnorm):
    model = models.build("resnet18", 2, scratch, 0)
    before = copy.deepcopy(model.state_dict())
    list(engine.finetune(job(data, frozen_batchnorm=batchnorm, freezing="last1"), model))
    same = torch.equal(model.bn1.running_mean, before["bn1.running_mean"])
    assert same == (batchnorm == "eval")
    assert not torch.equal(model.layer4[0].bn1.running_mean, before["layer4.0.bn1.running_mean"])


def test_lpft_probes_and_then_tunes_all(scratch, data):
    made = job(data, epochs=3, probe_epochs=2, freezing="lpft")
    model = models.build("resnet18", 2, scratch, 0)
    before, names, heads = copy.deepcopy(model.state_dict()), dict(model.named_parameters()), []
    for epoch, _ in enumerate(engine.finetune(made, model)):
        same = {name for name, value in names.items() if torch.equal(value, before[name])}
        assert same == ({n for n in names if not n.startswith("fc.")} if epoch < 2 else set())
        heads.append(model.fc.weight.clone())
    probing = job(data, epochs=2)
    frozen = models.build("resnet18", 2, scratch, 0)
    head = frozen.fc
    list(engine.probe(probing, head, features.Pass(probing, frozen).compute()))
    torch.testing.assert_close(heads[1], head.weight, rtol=1e-3, atol=1e-4)


SCHEDULES = {
    "StepLR": {"step_size": 2, "gamma": 0.3},
    "CosineAnnealingLR": {"T_max": 6},
    "LinearLR": {"total_iters": 6},
    "OneCycleLR": {"max_lr": 0.1, "total_steps": 6},
    "MultiStepLR": {"milestones": [1, 4]},
    "CosineAnnealingWarmRestarts": {"T_0": 3},
}


@pytest.mark.parametrize("name", SCHEDULES)
def test_rates_are_torchs(name):
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.01, momentum=0.9)
    schedule = getattr(torch.optim.lr_scheduler, name)(optimizer, **SCHEDULES[name])
    expected = []
    for _ in range(6):
        expected.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    length = {"T_max", "total_iters", "total_steps"}
    given = {key: value for key, value in SCHEDULES[name].items() if key not in length}
    assert components.rates(Component(name, given), 0.01, 6) == expected


def test_a_warm_up_is_torchs_before_the_schedule():
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.01)
    before = torch.optim.lr_scheduler.LinearLR(optimizer, start_factor=1 / 3, total_iters=2)
    after = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=4)
    schedule = torch.optim.lr_scheduler.SequentialLR(optimizer, [before, after], [2])
    expected = []
    for _ in range(6):
        expected.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    cosine = Component("CosineAnnealingLR")
    assert components.rates(cosine, 0.01, 6, warmup=2) == pytest.approx(expected)
    with pytest.raises(ValueError, match="leaves none of 6 epochs"):
        components.rates(cosine, 0.01, 6, warmup=6)


@pytest.mark.parametrize("backbone", ["resnet18", "mobilenetv3_small_050", "vit_tiny_patch16_224"])
def test_activation_takes_the_place_of_all_but_gates(backbone):
    model = models.shape(backbone)
    before = [type(module) for module in model.modules()]
    components.replace_activation(model, Component("LeakyReLU", {"negative_slope": 0.2}))
    after = [type(module) for module in model.modules()]
    own = {nn.ReLU, nn.Hardswish, nn.GELU}
    assert own & set(before) and not own & set(after)
    swapped = [nn.LeakyReLU if kind in own else kind for kind in before]
    assert after == swapped
    assert {m.negative_slope for m in model.modules() if isinstance(m, nn.LeakyReLU)} == {0.2}


def test_pooling_takes_the_largest_value(scratch, data):
    model = job(data, pooling=Component("AdaptiveMaxPool2d")).build(scratch).eval()
    plain = job(data).build(scratch).eval()
    maps, x = [], torch.randn(2, 3, 64, 64)
    plain.layer4.register_forward_hook(lambda *found: maps.append(found[2]))
    plain(x)
    torch.testing.assert_close(model(x), plain.fc(maps[0].amax((2, 3))))


def test_transforms_draw_from_the_image_alone(data):
    parts = (
        *loader.PAPER,
        Component("TrivialAugmentWide"),
        Component("ColorJitter", {"hue": 0.2}),
    )
    transforms = components.transforms(parts)
    _, crops = job(data).plan(0)
    chosen = np.arange(len(data.train))
    cut = loader.crop_batch(data, chosen, crops)
    whole = loader.transformed(cut, crops.seed, transforms)
    before = torch.get_rng_state()
    assert torch.equal(whole[5:6], loader.transformed(cut[5:6], crops.seed[5:6], transforms))
    assert torch.equal(before, torch.get_rng_state())
    assert (whole != cut).flatten(1).any(1).float().mean() > 0.5
    torch.manual_seed(int(crops.seed[5]))
    alone = v2.ColorJitter(hue=0.2)(v2.TrivialAugmentWide()(cut[5].permute(2, 0, 1)))
    assert torch.equal(whole[5], alone.permute(1, 2, 0))


@pytest.mark.parametrize("resize", [64, 72, 100])
def test_without_crop_and_flip_training_images_are_as_test_images(data, resize):
    crops = job(replace(data, resize=resize), augmentation=()).plan(0)[1]
    assert not crops.flip.any() and (crops.height == crops.width).all()
    short = np.minimum(data.train.height, data.train.width)
    assert np.abs(crops.height - short * 64 / resize).max() <= 0.5
    assert np.abs(crops.top * 2 + crops.height - data.train.height).max() <= 1


def test_a_crop_has_a_pixel_at_least():
    one = np.ones(1, int)
    crops = loader.resized_crops(one, one, np.random.default_rng(0), ratio=(30.0, 40.0))
    assert [int(side[0]) for side in crops] == [0, 0, 1, 1]


@pytest.mark.parametrize(
    "setting,value,words",
    [
        ("optimizer", "Adamm", "Adamm: torch.optim has no such class"),
        ("optimizer", {"SGD": {"momentun": 0.9}}, "SGD: .*momentun"),
        ("optimizer", "LBFGS", "LBFGS: "),
        ("schedule", "ReduceLROnPlateau", "ReduceLROnPlateau: "),
        ("schedule", {"StepLR": {"step_size": 0}}, "StepLR: integer modulo by zero"),
        ("schedule", "StepLR", "StepLR: .*step_size"),
        ("schedule", {"ExponentialLR": {"gamma": torch.inf}}, "rates that are not finite"),
        ("schedule", "lr_scheduler", "has no such class"),
        ("loss", "NLLLoss", "NLLLoss: give one of CrossEntropyLoss"),
        ("loss", {"CrossEntropyLoss": {"label_smoothing": 2.0}}, "label_smoothing"),
        ("activation", "Linear", "Linear: "),
        ("activation", "GLU", "GLU is no activation of one tensor"),
        ("activation", "MultiheadAttention", "MultiheadAttention"),
        ("pooling", "MaxPool2d", "MaxPool2d: give own"),
        ("augmentation", ["Rotate"], "Rotate: torchvision.transforms.v2 has no such class"),
        ("augmentation", ["CenterCrop"], "CenterCrop: "),
        ("augmentation", [{"CenterCrop": {"size": 4}}], "changes the image's size"),
        ("augmentation", [{"RandomResizedCrop": {"scale": [0.5, 2.0]}}], "out of range"),
        ("augmentation", [{"RandomResizedCrop": {"ratio": [1, torch.inf]}}], "0.001 to 1000"),
        ("augmentation", [{"RandomResizedCrop": {"size": 3}}], "size is no option here"),
        ("augmentation", [{"RandomHorizontalFlip": {"p": "x"}}], "no pair of numbers"),
        ("augmentation", ["RandomHorizontalFlip", "RandomHorizontalFlip"], "twice"),
        ("augmentation", [{"MixUp": {"beta": 1.0}}], "MixUp: .*beta"),
    ],
)
def test_a_name_that_does_not_fit_is_one_line(setting, value, words):
    study = params.load(ROOT / "params.yaml")
    changed = study.model_copy(update={"recipes": {"default": {setting: value}}})
    with pytest.raises(UserError, match=rf"^params.yaml: train with recipe default: .*{words}"):
        check(changed)


def test_a_backbone_that_does_not_fit_is_one_line():
    study = params.load(ROOT / "params.yaml")

    def refused(backbone, freezing="frozen", size=224, **recipe):
        grid = study.grid.model_copy(update={"backbone": [backbone], "freezing": [freezing]})
        pack = study.pack.model_copy(update={"size": size})
        changes = {"grid": grid, "pack": pack, "recipes": {"default": recipe}}
        with pytest.raises(UserError) as caught:
            check(study.model_copy(update=changes))
        assert "\n" not in str(caught.value)
        return str(caught.value)

    assert "does not end in one linear layer" in refused("levit_128s")
    assert "grid.freezing: resnet18: last9: this backbone has 5 stages" in refused(
        "resnet18", "last9"
    )
    vit = "vit_tiny_patch16_224"
    small = refused(vit, size=64)
    assert f"pack.size 64: {vit}: Input height (64) doesn't match" in small and "224 px" in small
    no_pool = refused(vit, pooling="AdaptiveMaxPool2d")
    assert "has no AdaptiveAvgPool2d before its classifier" in no_pool


@pytest.mark.parametrize("freezing", ["lpft", pytest.param("finetuned", marks=release)])
def test_a_network_with_dropout_resumes_to_the_same_numbers(scratch, data, tmp_path, freezing):
    """Also in another's phase, with another's optimiser state, averaged weights and blends."""
    more = {"augmentation": (*loader.PAPER, Component("MixUp")), "average_epochs": 2}
    run = {"backbone": "mobilenetv3_small_050", "freezing": freezing}
    made = job(data, epochs=4, probe_epochs=2, **run, **(RECIPES["sgd"][0] | more))

    def curve(stop=None, name="whole"):
        checkpoint = Checkpoint(tmp_path / f"{name}.pt", "key", every=0)
        results = engine.finetune(made, made.build(scratch), checkpoint)
        return [next(results).epoch for _ in range(stop)] if stop else [o.epoch for o in results]

    whole = curve()
    for stop in (1, 2, 3):
        curve(stop, f"cut{stop}")
        assert curve(name=f"cut{stop}") == whole


@pytest.mark.parametrize("freezing", ["finetuned", "frozen"])
def test_the_last_epochs_are_averaged_and_training_goes_on_as_without(scratch, data, freezing):

    def trained(**changes) -> tuple[dict, torch.Tensor]:
        """The weights after each epoch, and what they predict after the last."""
        made = job(data, epochs=3, **changes)
        model = made.build(scratch)
        if freezing == "frozen":
            module = models.head(model)
            results = engine.probe(made, module, features.Pass(made, model).compute())
        else:
            module, results = model, engine.finetune(made, model)
        states = [
            ({name: one.clone() for name, one in module.state_dict().items()}, result.outputs)
            for result in results
        ]
        return [state for state, _ in states], states[-1][1]["test"]

    (first, second, third), plain = trained()
    (same, two, averaged), outputs = trained(average_epochs=2)
    for name, value in averaged.items():
        assert torch.equal(same[name], first[name]) and torch.equal(two[name], second[name])
        if value.is_floating_point():
            torch.testing.assert_close(value, (second[name] + third[name]) / 2)
    assert not torch.equal(outputs, plain)


def test_a_blend_is_torchvisions_and_labels_are_shares():
    images, labels = torch.rand(6, 3, 8, 8), torch.tensor([0, 1, 2, 0, 1, 2])
    for name, options in (("MixUp", {"alpha": 0.4}), ("CutMix", {})):
        blend = components.mix((*loader.PAPER, Component(name, options)), 3)
        torch.manual_seed(0)
        ours = blend(images, labels)
        torch.manual_seed(0)
        theirs = getattr(v2, name)(num_classes=3, **options)(images, labels)
        assert all(torch.equal(*pair) for pair in zip(ours, theirs, strict=True))
        torch.testing.assert_close(ours[1].sum(1), torch.ones(6))
    assert components.mix(loader.PAPER, 3)(images, labels)[0] is images
    either = components.mix((Component("MixUp"), Component("CutMix")), 3)
    assert either(images, labels)[1].shape == (6, 3)
    losses = ("CrossEntropyLoss", "BCEWithLogitsLoss")
    soft = torch.tensor([[0.25, 0.75], [1.0, 0.0]])
    outputs = torch.randn(2, 2)
    for name in losses:
        expected = getattr(nn, name)()(outputs, soft)
        found = components.loss(Component(name), "none", [1, 1])(outputs, soft)
        torch.testing.assert_close(found, expected)
