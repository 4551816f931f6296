"""Packed pixels and crops against torchvision on PIL images."""

import shutil
import time
from itertools import product
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.stats import ks_2samp
from torchvision import transforms
from torchvision.datasets import ImageFolder
from torchvision.transforms import functional

from tests.conftest import draw_split
from tests.test_engine import job
from transfer import params
from transfer.images import audit, division, packed, reader
from transfer.model import predict
from transfer.training import loader


def test_prepared_images_are_torchvisions(split, data):
    steps = transforms.Compose([transforms.Resize(72), transforms.CenterCrop(64)])
    validation, test = (ImageFolder(split / part, steps) for part in ("validation", "test"))
    assert data.classes == ["a", "b"] and validation.classes == test.classes == ["0", "1"]
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


@pytest.mark.parametrize("height,width", [(9, 160), (161, 9), (1, 400), (700, 40)])
def test_the_middle_of_a_thin_image_is_that_of_all_of_it(height, width):
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    image = Image.fromarray(pixels)
    for resize, size in ((72, 64), (36, 36), (33, 7)):
        ours = packed.prepare(image, resize, size).astype(int)
        whole = transforms.CenterCrop(size)(transforms.Resize(resize)(image))
        assert np.abs(ours - np.asarray(whole, dtype=int)).max() <= 1


def test_crops_are_pillows_within_one_grey_level(split, data):
    chosen = np.arange(len(data.train))
    crops = loader.random_crops(data.train.height, data.train.width, np.random.default_rng(0))
    ours = loader.crop_batch(data, chosen, crops).numpy().astype(int)
    for i, (image, _) in enumerate(ImageFolder(split / "train")):
        box = [int(side[i]) for side in (crops.top, crops.left, crops.height, crops.width)]
        theirs = functional.resized_crop(image, *box, [64, 64])
        theirs = functional.hflip(theirs) if crops.flip[i] else theirs
        assert np.abs(ours[i] - np.asarray(theirs, dtype=int)).max() <= 1


@pytest.mark.parametrize("floats", [1, 30_000, 1 << 26])
def test_crops_by_matrix_products_are_the_same(data, floats):
    """Whether all are cut at once, in a few pieces, or one by one."""
    chosen = np.random.default_rng(1).permutation(len(data.train))[:9]
    crops = loader.random_crops(data.train.height, data.train.width, np.random.default_rng(0))
    expected = loader.crop_batch(data, chosen, crops)
    ours = loader.crop_chunk(data, chosen, crops, floats)
    assert ours.dtype == expected.dtype
    assert (ours.int() - expected.int()).abs().max() <= 1


@pytest.mark.parametrize("height,width", [(300, 500), (20, 400), (400, 20), (1, 1)])
def test_crops_are_distributed_as_torchvisions(height, width):
    n = 1500
    ours = loader.random_crops(np.full(n, height), np.full(n, width), np.random.default_rng(0))
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
    steps = [transforms.ToTensor(), transforms.Normalize(loader.MEAN, loader.STD)]
    theirs = transforms.Compose(steps)(image)
    ours = loader.normalize(torch.from_numpy(np.array(image))[None])[0]
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


def test_a_tiny_image_is_packed(tmp_path):
    """Also one so thin that with a short side of 72 px all of it would have a hundred gigabytes."""
    draw_split(tmp_path / "split", {"train": 2, "test": 2}, sides=(3, 9))
    for part, label in product(("train", "test"), "01"):
        thin = Image.new("RGB", (400_000, 1) if label == "0" else (1, 400_000))
        thin.save(tmp_path / f"split/{part}/{label}/thin.png")
    packed.write(tmp_path / "split", tmp_path / "out", resize=72, size=64, short_side=0)
    tiny = packed.load(tmp_path / "out")
    crops = loader.random_crops(tiny.train.height, tiny.train.width, np.random.default_rng(0))
    assert loader.crop_batch(tiny, np.arange(6), crops).shape == (6, 64, 64, 3)
    assert len(tiny.prepared_images()) == 6


@pytest.mark.parametrize("threads", [1, 3])
def test_threads_ahead_change_nothing(threads):
    """Whatever is ready first, results come in order, and an error comes out."""

    def slow(value):
        time.sleep(0.002 * (value % 3))
        return 12 // (value - 40)

    assert list(packed.ahead(slow, range(30), threads)) == list(map(slow, range(30)))
    with pytest.raises(ZeroDivisionError):
        list(packed.ahead(slow, range(50), threads))


def test_an_epoch_has_every_image_once(data):
    made = job(data)
    batches, crops = made.plan(0)
    singly = list(made.feed().train(batches, crops))
    grouped = list(made.feed().train(batches, crops, 3))
    assert sorted(np.concatenate(batches)) == list(range(len(data.train)))
    assert [len(labels) for _, labels in singly] == [4, 4, 4, 4, 4, 2]
    assert [len(labels) for _, labels in grouped] == [12, 10]
    for singles, groups in zip(zip(*singly, strict=True), zip(*grouped, strict=True), strict=True):
        assert torch.equal(torch.cat(singles), torch.cat(groups))
    order = np.concatenate(batches)
    assert torch.cat([labels for _, labels in singly]).tolist() == data.train.label[order].tolist()


# Pixels as they are


def saved(path: Path, pixels: np.ndarray, **options) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)


def kinds(folder: Path) -> dict[str, Path]:
    """An image of every kind that people have."""
    rng = np.random.default_rng(0)
    rgb, alpha = (rng.integers(0, 256, (30, 40, n), np.uint8) for n in (3, 4))
    deep = rng.integers(200, 4096, (30, 40))
    upright = Image.Exif()
    upright[0x0112] = 6
    images = {
        "16 bits.png": (deep.astype(np.uint16), {}),
        "16 bits.tif": (deep.astype(np.uint16), {}),
        "32 bits.tif": (deep.astype(np.int32) - 1000, {}),
        "float.tif": ((deep / 4096).astype(np.float32), {}),
        "alpha.png": (alpha, {}),
        "turned.jpg": (rgb, {"exif": upright}),
        "photo.jfif": (rgb, {"format": "JPEG"}),
        "photo.avif": (rgb, {}),
        **({"photo.heic": (rgb, {"format": "HEIF"})} if reader.HEIF else {}),
    }
    for name, (pixels, options) in images.items():
        saved(folder / name, pixels, **options)
    Image.fromarray(rgb).convert("CMYK").save(folder / "inks.jpg")
    Image.fromarray(rgb).quantize(8).save(folder / "palette.png", transparency=0)
    return {path.name: path for path in sorted(folder.iterdir())}


def divided(folder: Path, images: dict[str, Path], **rules) -> audit.Audit:
    """By the stages split and pack: every image in both parts and both classes."""
    for part in ("train", "test"):
        for label in ("a", "b"):
            for name, path in images.items():
                place = folder / "raw" / part / label / name
                place.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(path, place)
    where = {part: {k: f"{part}/{k}" for k in "ab"} for part in ("train", "test")}
    dataset = params.Dataset(
        title="",
        table=0,
        quadrant="none",
        source="raw",
        folders=params.Folders(**where),
        count=params.Counts(train="all", test="all"),
    )
    rules = {"exif": "apply", "transparency": "white", "resplit": False} | rules
    rules |= {"seed": 0, "validation": 0.0, "duplicates": "keep", "unreadable": "fail"}
    found = division.divide("ab", dataset, params.Split(**rules))
    packed.write(Path("data/split/ab"), Path("data/packed/ab"), resize=24, size=24, short_side=0)
    return found


@pytest.mark.parametrize("rules", [{}, {"exif": "ignore", "transparency": "drop"}])
def test_an_image_is_the_same_in_training_and_in_predict(tmp_path, monkeypatch, rules):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "kinds").mkdir()
    images = kinds(tmp_path / "kinds")
    found = divided(tmp_path, images, **rules)
    data = packed.load("data/packed/ab")
    card = SimpleNamespace(decoding=data.decoding, resize=24, size=24)
    assert data.decoding == found.decoding
    prepared = dict(zip(data.test.names, data.prepared_images(), strict=True))
    assert len(prepared) == 2 * len(images)
    for name, path in images.items():
        written = f"a/{name}".replace(".jfif", ".jpg")
        predicted = predict.prepared(path, card)
        assert (prepared[written].numpy() == predicted).all(), name
        i = data.train.names.index(written)
        assert data.image(data.train, i).shape[2] == 3


def test_deep_images_keep_their_contrast(tmp_path, monkeypatch):
    """12 bits in a 16-bit file, and numbers below 0: the training images' range, in the audit."""
    monkeypatch.chdir(tmp_path)
    ramp = np.linspace(100, 4000, 30 * 40).reshape(30, 40)
    saved(tmp_path / "x/12 bits.png", ramp.astype(np.uint16))
    saved(tmp_path / "x/other.png", (ramp / 2).astype(np.uint16))
    found = divided(tmp_path, {path.name: path for path in (tmp_path / "x").iterdir()})
    assert (found.decoding.low, found.decoding.high) == (50, 4000)
    (line,) = (line for line in division.summary(found) if "8 bits" in line)
    assert line.endswith("50 becomes black and 4000 white, the range of those in training")
    data = packed.load("data/packed/ab")
    brightest = {n: data.image(data.train, i).max() for i, n in enumerate(data.train.names)}
    assert brightest == {"a/12 bits.png": 255, "a/other.png": 126} | {
        "b/12 bits.png": 255,
        "b/other.png": 126,
    }


def test_orientation_transparency_and_pages(tmp_path):
    rgb = np.zeros((2, 4, 3), np.uint8)
    rgb[:, :2] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # its right side is up
    saved(tmp_path / "turned.png", rgb, exif=exif)
    decoding = reader.Decoding(exif=True)
    assert reader.read(tmp_path / "turned.png").pixels.shape == (2, 4, 3)
    turned = reader.read(tmp_path / "turned.png", decoding).pixels
    assert turned.shape == (4, 2, 3) and turned[:2].all() and not turned[2:].any()
    clear = np.zeros((1, 2, 4), np.uint8)
    clear[0, 0, 3] = 255
    saved(tmp_path / "clear.png", clear)
    assert reader.read(tmp_path / "clear.png", reader.Decoding(white=True)).pixels.tolist() == [
        [[0, 0, 0], [255, 255, 255]]
    ]
    assert not reader.read(tmp_path / "clear.png").pixels.any()
    first, second = (Image.fromarray(np.full((3, 3), grey, np.uint8)) for grey in (7, 9))
    first.save(tmp_path / "pages.tif", save_all=True, append_images=[second])
    found = reader.read(tmp_path / "pages.tif")
    assert (found.pages, found.pixels.max()) == (2, 7)
