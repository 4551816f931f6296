"""Packed pixels and crops against torchvision on PIL images."""

import io
import re
import shutil
import struct
import time
import zlib
from itertools import product
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from onnx import helper
from onnxruntime import InferenceSession
from PIL import Image, ImageCms, ImageOps
from scipy.stats import ks_2samp
from sklearn.datasets import load_sample_image
from sklearn.neighbors import KNeighborsClassifier
from timm.data import create_transform
from torchvision import transforms
from torchvision.datasets import ImageFolder
from torchvision.transforms import functional

from tests.conftest import draw_split
from tests.test_engine import job
from transfer import params
from transfer.cli import UserError
from transfer.images import audit, fit, packed, reader, scan, split
from transfer.images.names import CLASSES, Classes
from transfer.model import exported, hub, predict
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


@pytest.mark.parametrize("height,width", [(9, 160), (161, 9), (1, 400), (700, 40), (5, 431)])
def test_a_thin_image_is_cropped_as_if_its_ends_were_resized_too(height, width):
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    image = Image.fromarray(pixels)
    for resize, size in ((72, 64), (36, 36), (33, 7)):
        ours = fit.prepare(image, resize, size).astype(int)
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


@pytest.mark.parametrize("how", ["crop", "pad", "squash"])
def test_a_tiny_image_is_packed(tmp_path, how):
    """Also one so thin that with a short side of 72 px all of it would have a hundred gigabytes."""
    draw_split(tmp_path / "split", {"train": 2, "test": 2}, sides=(3, 9))
    for part, label in product(("train", "test"), "01"):
        thin = Image.new("RGB", (400_000, 1) if label == "0" else (1, 400_000))
        thin.save(tmp_path / f"split/{part}/{label}/thin.png")
    packed.write(tmp_path / "split", tmp_path / "out", resize=72, size=64, short_side=0, fit=how)
    tiny = packed.load(tmp_path / "out")
    assert len(tiny.pixels) < 4e6
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
    saved(folder / "wide.jpg", rgb, icc_profile=profile(DISPLAY_P3))
    (folder / "deep colours.png").write_bytes(deep_png(rng.integers(0, 4096, (30, 40, 4))))
    (folder / "deep colours.tif").write_bytes(tiff(rng.integers(0, 4096, (30, 40, 3))))
    return {path.name: path for path in sorted(folder.iterdir())}


def divided(folder: Path, images: dict[str, Path], how="crop", **rules) -> audit.Audit:
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
    rules = {"exif": "apply", "transparency": "white", "icc": "convert", "resplit": False} | rules
    rules = {"max_pixels": reader.MAX_PIXELS} | rules
    rules = {"unreadable": "fail", "duplicates": "keep", "seed": 0, "validation": 0.0} | rules
    report = split.divide("ab", dataset, params.Split(**rules))
    sizes = {"resize": 24, "size": 24, "short_side": 0}
    packed.write(Path("data/split/ab"), Path("data/packed/ab"), **sizes, fit=how)
    return report


@pytest.mark.parametrize(
    "rules",
    [{}, {"how": "pad"}, {"exif": "ignore", "transparency": "drop", "icc": "ignore"}],
)
def test_an_image_is_the_same_in_training_and_in_predict(tmp_path, monkeypatch, rules):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "kinds").mkdir()
    images = kinds(tmp_path / "kinds")
    report = divided(tmp_path, images, **rules)
    data = packed.load("data/packed/ab")
    card = SimpleNamespace(decoding=data.decoding, resize=24, size=24, fit=data.fit)
    assert data.decoding == report.decoding
    prepared = dict(zip(data.test.names, data.prepared_images(), strict=True))
    assert len(prepared) == 2 * len(images)
    for name, path in images.items():
        written = f"a/{name}".replace(".jfif", ".jpg")
        predicted = predict.prepared(path, card)
        assert (prepared[written].numpy() == predicted).all(), name
        i = data.train.names.index(written)
        assert data.image(data.train, i).shape[2] == 3


def deep_png(pixels: np.ndarray) -> bytes:
    """Of values up to 65535 [height, width, channels], which Pillow does not write."""
    height, width, channels = pixels.shape
    kind = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    chunks = {
        b"IHDR": struct.pack(">IIBBBBB", width, height, 16, kind, 0, 0, 0),
        b"IDAT": zlib.compress(rows),
        b"IEND": b"",
    }
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in chunks.items()
    )


def tiff(pixels: np.ndarray, order="<", bits=16, compressed=False, planes=1) -> bytes:
    """Of [height, width, bands], in one strip."""
    height, width, bands = pixels.shape
    data = pixels.astype(f"{order}u{bits // 8}").tobytes()
    data = zlib.compress(data) if compressed else data
    tags = {256: width, 257: height, 259: 8 if compressed else 1, 262: 2, 277: bands}
    tags |= {278: height, 279: len(data), 284: planes}
    start = 8 + 2 + 12 * (len(tags) + 3) + 4
    lists = {258: [bits] * bands, 338: [0] * (bands - 3)}
    tags |= {273: start + 2 * (bands + max(0, bands - 3))}
    entries, more = b"", b""
    for tag in sorted(tags | {tag: 0 for tag, values in lists.items() if values}):
        values = lists.get(tag, [])
        packed_values = struct.pack(f"{order}{len(values)}H", *values)
        if len(packed_values) > 4:
            value = struct.pack(f"{order}I", start + len(more))
            more += packed_values
        else:
            value = packed_values.ljust(4, b"\0") if values else struct.pack(f"{order}I", tags[tag])
        kind, count = (3, len(values)) if values else (4, 1)
        entries += struct.pack(f"{order}HHI", tag, kind, count) + value
    n = len(entries) // 12
    head = (b"II" if order == "<" else b"MM") + struct.pack(f"{order}HIH", 42, 8, n)
    body = (head + entries + b"\0" * 4).ljust(start, b"\0") + more
    return body.ljust(tags[273], b"\0") + data


def read(data: bytes, **decoding) -> reader.Read:
    return reader.read(io.BytesIO(data), reader.Decoding(**decoding))


@pytest.mark.parametrize("channels", [3, 4])
def test_colours_of_16_bits_are_read_whole(channels):
    pixels = np.random.default_rng(0).integers(0, 65536, (6, 9, channels))
    files = {
        "png": deep_png(pixels),
        "little": tiff(pixels, "<"),
        "big": tiff(pixels, ">"),
        "compressed": tiff(pixels, "<", compressed=True),
    }
    for name, data in files.items():
        image = read(data)
        assert (image.pixels == pixels[..., :3]).all(), name
        assert image.deep and image.mode.endswith(";16")
    grey = np.asarray(read(files["png"]).rgb(reader.Decoding(low=1000, high=2000)))
    assert (grey == np.rint(((pixels[..., :3] - 1000) / 1000).clip(0, 1) * 255)).all()
    if channels == 4:
        seen = read(files["png"], white=True).rgb(reader.Decoding(white=True))
        alpha = pixels[..., 3:] / 65535
        expected = np.rint((pixels[..., :3] / 65535 * alpha + 1 - alpha) * 255)
        assert (np.asarray(seen) == expected).all()
        two = read(deep_png(pixels[..., :2]), white=True)
        assert (two.pixels == pixels[..., [0, 0, 0, 1]]).all()


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (tiff(np.zeros((6, 9, 5)), bits=8), "5 bands; save those that are red, green and blue"),
        (tiff(np.zeros((6, 9, 3)), planes=2), "save them pixel by pixel"),
        (b"P6 2 1 4095\n" + b"\0\7" * 6, "PPM of more than 8 bits; save it as PNG or TIFF"),
    ],
)
def test_pixels_that_would_lose_something_are_refused(data, words):
    with pytest.raises(ValueError, match=words):
        read(data)


def test_deep_images_keep_their_contrast(tmp_path, monkeypatch):
    """12 bits in a 16-bit file: the training images' range, in the audit, for grey and colours."""
    monkeypatch.chdir(tmp_path)
    ramp = np.linspace(100, 4000, 30 * 40).reshape(30, 40)
    saved(tmp_path / "x/12 bits.png", ramp.astype(np.uint16))
    colours = np.stack([ramp / 2] * 3, axis=2).astype(int)
    (tmp_path / "x/colours.png").write_bytes(deep_png(colours))
    report = divided(tmp_path, {path.name: path for path in (tmp_path / "x").iterdir()})
    assert (report.decoding.low, report.decoding.high) == pytest.approx((50, 4000), abs=20)
    (line,) = (line for line in audit.summary(report) if "8 bits" in line)
    assert re.search(r"5\d\.\d+ becomes black and 39\d\d.* white, the range of those in tr", line)
    data = packed.load("data/packed/ab")
    brightest = {n: data.image(data.train, i).max() for i, n in enumerate(data.train.names)}
    assert brightest == {"a/12 bits.png": 255, "a/colours.png": 126} | {
        "b/12 bits.png": 255,
        "b/colours.png": 126,
    }


def levels_left(folder: Path, images: list[np.ndarray]) -> tuple[int, audit.Audit]:
    """Grey levels of the first image, once it is packed with the others."""
    for at, pixels in enumerate(images):
        saved(folder / f"x/{at:02}.tif", pixels)
    report = divided(folder, {path.name: path for path in sorted((folder / "x").iterdir())})
    data = packed.load("data/packed/ab")
    return len(np.unique(data.image(data.train, 0))), report


@pytest.mark.parametrize("kind", [np.uint16, np.float32])
def test_a_few_wild_values_do_not_set_the_range(tmp_path, monkeypatch, kind):
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    images = [rng.normal(23000, 60, (30, 40)).astype(kind) for _ in range(10)]
    images[1][0, :2] = (0, 65535) if kind is np.uint16 else (-3.4e38, np.nan)
    if kind is np.float32:
        images[2][:15] = np.inf
    left, report = levels_left(tmp_path, images)
    assert left > 100 and report.few_levels is None
    assert 22500 < report.decoding.low < report.decoding.high < 23500
    nothing = reader.Read(np.full((2, 3), np.nan, np.float32), "TIFF", "F", 1)
    assert len(reader.quantiles(nothing.values)) == 0
    assert not np.asarray(nothing.rgb(reader.PAPER)).any()
    # Near duplicates are found by 8-bit thumbnails, which would all be flat.
    first, second = (scan.decode(Path(f"x/0{n}.tif").read_bytes()) for n in (0, 3))
    assert len(set(first.thumbnail)) > 50 and first.thumbnail != second.thumbnail


def test_images_that_keep_few_grey_levels_are_warned_of(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    images = [rng.normal(23000, 60, (30, 40)).astype(np.uint16) for _ in range(10)]
    images[1] = np.full((30, 40), 65535, np.uint16)
    left, report = levels_left(tmp_path, images)
    assert left < 32 and abs(report.few_levels - left) < 5
    (line,) = (line for line in audit.summary(report) if "warning" in line)
    assert f"at most {report.few_levels} of 256 grey levels left" in line


def profile(primaries: list[tuple[float, float, float]]) -> bytes:
    """An ICC profile of a screen with these colours in XYZ."""

    def xyz(*values: float) -> bytes:
        return b"XYZ \0\0\0\0" + struct.pack(">3i", *(round(v * 65536) for v in values))

    name = b"A wide\x1b screen\0"
    desc = b"desc\0\0\0\0" + struct.pack(">I", len(name)) + name + b"\0" * 79
    curve = b"curv\0\0\0\0" + struct.pack(">IHH", 1, round(2.2 * 256), 0)
    tags = {b"desc": desc, b"cprt": b"text\0\0\0\0x\0", b"wtpt": xyz(0.9642, 1.0, 0.8249)}
    for colour, values in zip("rgb", primaries, strict=True):
        tags |= {f"{colour}XYZ".encode(): xyz(*values), f"{colour}TRC".encode(): curve}
    table, body, start = struct.pack(">I", len(tags)), b"", 128 + 4 + 12 * len(tags)
    for tag, data in tags.items():
        data = data.ljust(-len(data) % 4 + len(data), b"\0")
        table += tag + struct.pack(">II", start + len(body), len(data))
        body += data
    head = struct.pack(">I4sI4s4s4s", start + len(body), b"", 0x02100000, b"mntr", b"RGB ", b"XYZ ")
    head = (head.ljust(36, b"\0") + b"acsp").ljust(68, b"\0") + xyz(0.9642, 1.0, 0.8249)[8:]
    return head.ljust(128, b"\0") + table + body


DISPLAY_P3 = [(0.51512, 0.2412, -0.00105), (0.29198, 0.69225, 0.04189), (0.1571, 0.06657, 0.78407)]


def test_colours_of_another_profile_are_said_or_converted(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    pixels = np.full((30, 40, 3), (200, 40, 40), np.uint8)
    files = {"plain": b"", "broken": b"x" * 200, "srgb": srgb, "wide": profile(DISPLAY_P3)}
    for name, icc in files.items():
        saved(tmp_path / f"x/{name}.png", pixels, icc_profile=icc)
    images = {path.name: path for path in (tmp_path / "x").iterdir()}
    for rules in ({"icc": "ignore"}, {"icc": "convert"}):
        shutil.rmtree("data", ignore_errors=True)
        report = divided(tmp_path, images, **rules)
        assert report.split.profiles == {"A wide\\x1b screen": 4}
        (line,) = (line for line in audit.summary(report) if "profile" in line)
        assert ("is ignored" in line) == (rules["icc"] == "ignore") and line.isprintable()
        data = packed.load("data/packed/ab")
        colours = {
            Path(name).stem: data.image(data.train, i)[0, 0].tolist()
            for i, name in enumerate(data.train.names)
        }
        wide = colours.pop("wide")
        assert set(map(tuple, colours.values())) == {(200, 40, 40)}
        assert (wide == [200, 40, 40]) == (rules["icc"] == "ignore")
    assert wide[0] > 210 and wide[1] < 30, "the same red is a purer one of a wider screen"


def test_all_unreadable_images_are_listed_at_once(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for n in range(5):
        saved(tmp_path / f"x/{n}.png", np.zeros((30, 40, 3), np.uint8))
    for name in ("0", "3"):
        (tmp_path / f"x/{name}.png").write_bytes(b"no image")
    images = {path.name: path for path in sorted((tmp_path / "x").iterdir())}
    with pytest.raises(UserError) as caught:
        divided(tmp_path, images)
    message = str(caught.value)
    assert message.startswith(
        "raw: 8 images cannot be read: 'train/a/0.png': not an image of these"
    )
    assert message.endswith("; and 5 more. Remove them, or set split.unreadable: skip")
    assert divided(tmp_path, images, unreadable="skip").left_out["unreadable"].count == 8


def test_the_largest_image_is_a_setting(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert Image.MAX_IMAGE_PIXELS is None and reader.MAX_PIXELS == 1024**3 // 12
    saved(tmp_path / "x/large.png", np.zeros((100, 101, 3), np.uint8))
    images = {"large.png": tmp_path / "x/large.png"}
    with pytest.raises(UserError, match="10100 pixels, more than split.max_pixels: 10000"):
        divided(tmp_path, images, max_pixels=10_000)
    report = divided(tmp_path, images, max_pixels=10_100)
    card = SimpleNamespace(decoding=report.decoding, resize=24, size=24, fit="crop")
    assert packed.load("data/packed/ab").decoding == report.decoding
    assert predict.prepared(images["large.png"], card).shape == (24, 24, 3)
    card.decoding = reader.Decoding(max_pixels=10_099)
    assert "more than split.max_pixels" in predict.prepared(images["large.png"], card)


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
    pages = reader.read(tmp_path / "pages.tif")
    assert (pages.pages, pages.pixels.max()) == (2, 7)


# Images that are not square

SIDES = (427, 640), (331, 201), (44, 97), (900, 100), (7, 9), (3, 60), (64, 64), (5, 448)


def photograph(height: int, width: int) -> Image.Image:
    return Image.fromarray(load_sample_image("china.jpg")).resize((width, height))


@pytest.mark.parametrize("sides", SIDES)
def test_padded_and_squashed_images_are_torchvisions_and_pillows(sides):
    assert list(fit.FILL) == [round(255 * mean) for mean in loader.MEAN]
    image, size = photograph(*sides), 64
    squashed = transforms.Resize((size, size))(image)
    np.testing.assert_array_equal(fit.prepare(image, 72, size, "squash"), np.asarray(squashed))

    short = max(1, round(size * min(sides) / max(sides)))
    height, width = (short, size) if sides[0] < sides[1] else (size, short)
    resized, missing = transforms.Resize((height, width))(image), size - short
    border = (missing // 2, missing - missing // 2)
    across, down = (border, (0, 0)) if width < size else ((0, 0), border)
    padding = [across[0], down[0], across[1], down[1]]
    padded = functional.pad(resized, padding, fill=list(fit.FILL))
    ours = fit.prepare(image, 72, size, "pad")
    np.testing.assert_array_equal(ours, np.asarray(padded))
    if missing % 2 == 0 and short > 1:
        method = Image.Resampling.BILINEAR
        pillows = ImageOps.pad(image, (size, size), method, color=fit.FILL)
        np.testing.assert_array_equal(ours, np.asarray(pillows))


@pytest.mark.parametrize("how", ["crop", "pad", "squash"])
def test_timm_prepares_images_as_its_copy_of_a_network_says(how):
    settings = {"crop_pct": 56 / 64 if how == "crop" else 1.0, "crop_mode": hub.MODES[how]}
    transform = create_transform((3, 56, 56), interpolation="bilinear", **settings)
    for sides in SIDES:
        if how != "squash" and max(sides) > fit.THIN * min(sides):
            continue  # ours are equal to one grey level; timm's padded ones may lose a side
        image = photograph(*sides)
        ours = loader.normalize(torch.tensor(fit.prepare(image, 64, 56, how))[None])[0]
        torch.testing.assert_close(ours, transform(image), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("how", ["crop", "pad", "squash"])
@pytest.mark.parametrize("sizes", [(64, 64), (256, 224)])
def test_onnx_prepares_images_as_pillow_does(how, sizes):
    card = SimpleNamespace(
        resize=sizes[0], size=sizes[1], fit=how, mean=loader.MEAN, std=loader.STD
    )
    made = exported.preparing(card, [helper.make_opsetid("", 20)], 10)
    session = InferenceSession(made.SerializeToString(), providers=["CPUExecutionProvider"])
    for sides in (*SIDES, (1, 40_000), (40_000, 2)):
        image = photograph(*sides)
        (ours,) = session.run(["normal"], {"images": np.asarray(image)[None]})
        prepared = torch.tensor(fit.prepare(image, *sizes, how))[None]
        apart = np.abs(ours - loader.normalize(prepared).numpy())
        grey = apart * 255 * np.array(loader.STD)[:, None, None]
        assert grey.max() < 1.01 and (grey > 0.01).mean() < 0.2, sides


def test_training_images_are_stored_as_squares_that_are_not_too_large():
    for height, width in ((40, 200), (200, 40)):
        image = photograph(height, width)
        assert fit.stored(image, 64, 0, "crop") is image
        for how in ("pad", "squash"):
            assert fit.stored(image, 64, 0, how).size == (200, 200)
            assert fit.stored(image, 64, 90, how).size == (90, 90)
            assert fit.stored(image, 20, 0, how).size == (89, 89), "as many pixels as it has"
    whole = np.asarray(fit.stored(photograph(60, 60), 64, 0, "pad"))
    np.testing.assert_array_equal(whole, np.asarray(photograph(60, 60)))


def at_the_ends(folder: Path) -> None:
    """Images of 1:5, across and upright, noisy, whose class is the colour at their two ends."""
    rng = np.random.default_rng(0)
    for part, label, n in product(("train", "test"), (0, 1), range(20)):
        pixels = rng.integers(0, 256, (20, 100, 3))
        for end in (pixels[:, :20], pixels[:, -20:]):
            end[..., 2 * label] = 255
        upright = pixels.swapaxes(0, 1) if n % 2 else pixels
        saved(folder / part / str(label) / f"{n}.png", upright.astype(np.uint8))
    Classes(names=["a", "b"]).write(folder / CLASSES)


def test_what_stands_at_the_ends_of_an_image_is_lost_by_cropping_alone(tmp_path):
    at_the_ends(tmp_path / "split")
    for how in ("crop", "pad", "squash"):
        out = tmp_path / how
        packed.write(tmp_path / "split", out, resize=36, size=32, short_side=0, fit=how)
        data = packed.load(out)
        train = [data.prepared_image(data.train, i) for i in range(len(data.train))]
        colours = KNeighborsClassifier(3).fit(np.reshape(train, (40, -1)), data.train.label)
        accuracy = colours.score(data.prepared_images().reshape(40, -1), data.test.label)
        assert (accuracy < 0.7) if how == "crop" else (accuracy > 0.9), (how, accuracy)
        assert (data.fit, data.share) == (how, 32 / 36 if how == "crop" else 1.0)
        assert ("fit" in (out / "index.json").read_text()) == (how != "crop")


def test_without_random_crops_the_whole_square_is_trained_on(tmp_path):
    at_the_ends(tmp_path / "split")
    packed.write(tmp_path / "split", tmp_path / "x", resize=36, size=32, short_side=0, fit="pad")
    data = packed.load(tmp_path / "x")
    _, crops = job(data, augmentation=()).plan(0)
    assert set(crops.height) == set(crops.width) == {100} and not crops.top.any()
