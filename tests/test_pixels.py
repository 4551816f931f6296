"""Packed pixels and crops against torchvision on PIL images."""

import time

import numpy as np
import pytest
import torch
from scipy.stats import ks_2samp
from torchvision import transforms
from torchvision.datasets import ImageFolder
from torchvision.transforms import functional

from tests.conftest import draw_split
from transfer.images import packed
from transfer.params import Component
from transfer.training import augment, engine
from transfer.training.feed import Feed, ahead


def test_prepared_images_are_torchvisions(split, data):
    steps = transforms.Compose([transforms.Resize(72), transforms.CenterCrop(64)])
    validation, test = (ImageFolder(split / part, steps) for part in ("validation", "test"))
    assert data.classes == validation.classes == test.classes
    assert data.validation.label.tolist() == validation.targets
    assert data.test.label.tolist() == test.targets
    for ours, (theirs, _) in zip(data.prepared_images(), [*validation, *test], strict=True):
        np.testing.assert_array_equal(ours, np.asarray(theirs))


def test_fewer_images_are_nested_and_as_many_of_each_class(data):
    def held(per_class):
        part = packed.fewer(data.train, per_class)
        for i, name in enumerate(part.names):
            j = data.train.names.index(name)
            assert torch.equal(data.image(part, i), data.image(data.train, j))
            assert part.label[i] == data.train.label[j]
        return part

    three, seven = held(3), held(7)
    assert [part.count(data.classes) for part in (three, seven)] == [[3, 3], [7, 7]]
    assert set(three.names) < set(seven.names)
    assert held(99).names == data.train.names


def test_packed_train_images_are_the_files_pixels(split, data):
    for i, (image, label) in enumerate(ImageFolder(split / "train")):
        assert data.train.label[i] == label
        np.testing.assert_array_equal(data.image(data.train, i), np.asarray(image))


def test_short_side_caps_large_images_only(split, tmp_path):
    packed.write(split, tmp_path / "capped", resize=72, size=64, short_side=50)
    capped = packed.load(tmp_path / "capped")
    for i, (image, _) in enumerate(ImageFolder(split / "train")):
        small = transforms.Resize(50)(image) if min(image.size) > 50 else image
        np.testing.assert_array_equal(capped.image(capped.train, i), np.asarray(small))


def test_crops_are_pillows_within_one_grey_level(split, data):
    chosen = np.arange(len(data.train))
    crops = augment.random_crops(data.train.height, data.train.width, np.random.default_rng(0))
    ours = augment.crop_batch(data, chosen, crops).numpy().astype(int)
    for i, (image, _) in enumerate(ImageFolder(split / "train")):
        box = [int(side[i]) for side in (crops.top, crops.left, crops.height, crops.width)]
        theirs = functional.resized_crop(image, *box, [64, 64])
        theirs = functional.hflip(theirs) if crops.flip[i] else theirs
        assert np.abs(ours[i] - np.asarray(theirs, dtype=int)).max() <= 1


@pytest.mark.parametrize("floats", [1, 30_000, 1 << 26])
def test_crops_by_matrix_products_are_the_same(data, floats):
    """Whether all are cut at once, in a few pieces, or one by one."""
    chosen = np.random.default_rng(1).permutation(len(data.train))[:9]
    crops = augment.random_crops(data.train.height, data.train.width, np.random.default_rng(0))
    expected = augment.crop_batch(data, chosen, crops)
    ours = augment.crop_chunk(data, chosen, crops, floats)
    assert ours.dtype == expected.dtype
    assert (ours.int() - expected.int()).abs().max() <= 1


@pytest.mark.parametrize("height,width", [(300, 500), (20, 400), (400, 20), (1, 1)])
def test_crops_are_distributed_as_torchvisions(height, width):
    n = 1500
    ours = augment.random_crops(np.full(n, height), np.full(n, width), np.random.default_rng(0))
    torch.manual_seed(0)
    image = torch.empty(3, height, width)
    theirs = np.array(
        [
            transforms.RandomResizedCrop.get_params(image, [0.08, 1.0], [3 / 4, 4 / 3])
            for _ in range(n)
        ]
    )
    columns = (ours.top, ours.left, ours.height, ours.width)
    for column, reference in zip(columns, theirs.T, strict=True):
        assert ks_2samp(column, reference).pvalue > 1e-4
    assert (ours.top + ours.height <= height).all() and (ours.left + ours.width <= width).all()
    assert 0.45 < ours.flip.mean() < 0.55


def test_normalize_is_totensor_and_normalize(split):
    image = ImageFolder(split / "train")[0][0]
    steps = [transforms.ToTensor(), transforms.Normalize(augment.MEAN, augment.STD)]
    theirs = transforms.Compose(steps)(image)
    ours = augment.normalize(torch.from_numpy(np.array(image))[None])[0]
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


def test_a_tiny_image_is_packed(tmp_path):
    draw_split(tmp_path / "split", {"train": 2, "test": 2}, sides=(3, 9))
    packed.write(tmp_path / "split", tmp_path / "out", resize=72, size=64, short_side=0)
    tiny = packed.load(tmp_path / "out")
    crops = augment.random_crops(tiny.train.height, tiny.train.width, np.random.default_rng(0))
    assert augment.crop_batch(tiny, np.arange(4), crops).shape == (4, 64, 64, 3)


@pytest.mark.parametrize("threads", [1, 3])
def test_threads_ahead_change_nothing(threads):
    """Whatever is ready first, results come in order, and an error comes out."""

    def slow(value):
        time.sleep(0.002 * (value % 3))
        return 12 // (value - 40)

    assert list(ahead(slow, range(30), threads)) == list(map(slow, range(30)))
    with pytest.raises(ZeroDivisionError):
        list(ahead(slow, range(50), threads))


def test_an_epoch_has_every_image_once(data):
    protocol = engine.Protocol(1e-3, 1, 4, Component("StepLR"), 0)
    batches, crops = protocol.plan(data, 0)
    singly = list(Feed(data, torch.device("cpu"), protocol.layout).train(batches, crops))
    grouped = list(Feed(data, torch.device("cpu"), protocol.layout).train(batches, crops, 3))
    assert sorted(np.concatenate(batches)) == list(range(len(data.train)))
    assert [len(labels) for _, labels in singly] == [4, 4, 4, 4, 4, 2]
    assert [len(labels) for _, labels in grouped] == [12, 10]
    for singles, groups in zip(zip(*singly, strict=True), zip(*grouped, strict=True), strict=True):
        assert torch.equal(torch.cat(singles), torch.cat(groups))
    order = np.concatenate(batches)
    assert torch.cat([labels for _, labels in singly]).tolist() == data.train.label[order].tolist()
