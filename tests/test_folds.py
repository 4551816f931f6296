"""Divisions that each seed makes anew: from the source to what a run sees."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.test_evidence import run_of
from tests.test_near import photos
from tests.test_split import POOL, image, pack, patients, pool, run, study, summary
from transfer import params
from transfer.cli import UserError
from transfer.evidence import choices, stats
from transfer.images import packed
from transfer.images.division import Division
from transfer.training.pretrain import pretrain

__all__ = ["study"]  # a fixture: each test has a folder of its own
PACKED = {"resize": 10, "size": 8, "short_side": 0}


def load(seeds, name="ab") -> list[packed.Packed]:
    packed.write(Path("data/split", name), Path("data/packed", name), **PACKED)
    return [packed.load(f"data/packed/{name}", seed) for seed in seeds]


def test_five_seeds_test_each_image_once_and_leave_no_class_out():
    report = run(pack(pool(20)), POOL, test=0.2, resplit=True, validation=0.25)
    assert report["split"]["images"] == {"train": {"ant": 20, "bee": 20}}
    assert "each seed holds out others of the training images: 0.2 for test and 0.25" in "".join(
        summary(report)
    )
    found = load(range(6))
    tests = [data.test.names for data in found]
    assert Counter(name for names in tests[:5] for name in names) == Counter(
        packed.load("data/packed/ab").train.names
    )
    assert sorted(tests[5]) != sorted(tests[0])  # another order
    for data in found:
        parts = [getattr(data, part) for part in packed.PARTS]
        assert [part.count(data.classes) for part in parts] == [[12, 12], [4, 4], [4, 4]]
        names = [name for part in parts for name in part.names]
        assert len(set(names)) == 40
    assert len({data.sha256 for data in found}) == 1


def test_recall_counts_each_image_once_however_many_seeds_test_it():
    run(pack(pool(20)), POOL, test=0.2, resplit=True, validation=0.25)
    tested = [np.array(data.test.names) for data in load([*range(5), 0])]
    runs = [run_of(names, np.ones((1, 8), bool)) for names in tested]
    recalls = choices.by_class(runs, resplit=True)["recall"]
    assert [(one.label, one.n) for one in recalls] == [("ant", 20), ("bee", 20)]
    assert (recalls[0].low, recalls[0].high) == stats.wilson(1.0, 20)


def test_every_image_is_stored_once_in_either_form_and_read_back_as_itself():
    run(pack(pool(10)), POOL, test=0.2, resplit=True, validation=0.25)
    found = load(range(5))
    whole = packed.load("data/packed/ab")
    size = Path("data/packed/ab/pixels.bin").stat().st_size
    assert size == 20 * (12 * 9 + 8 * 8) * 3
    assert (len(whole.train), len(whole.test)) == (20, 0)
    raw = {name: whole.image(whole.train, i) for i, name in enumerate(whole.train.names)}
    for data in found:
        for i, name in enumerate(data.train.names):
            np.testing.assert_array_equal(data.image(data.train, i), raw[name])
        names = data.validation.names + data.test.names
        for name, shown in zip(names, data.prepared_images(), strict=True):
            expected = packed.prepare(Image.fromarray(raw[name].numpy()), 10, 8)
            np.testing.assert_array_equal(shown, expected)
        assert torch.equal(data.prepared_images(1, 7), data.prepared_images()[1:7])


def test_groups_and_copies_stay_on_one_side():
    members = patients({"Ant": [5] * 8, "Bee": [3, 9, 2, 6, 5, 5, 5, 5]})
    grouped = {"all": {"ant": "Ant/*", "bee": "Bee/*"}}
    run(pack(members), grouped, test=0.25, resplit=True, validation=0.25)
    for data in load(range(8)):
        sides = [{name.split("/")[1].split("-")[0] for name in getattr(data, part).names}
                 for part in packed.PARTS]  # fmt: skip
        assert sum(map(len, sides)) == len(set.union(*sides)) == 8
    copies = {f"x/{name.split('/', 2)[2]}-{i}.png": data
              for i, (name, data) in enumerate(photos().items())}  # fmt: skip
    copies = {name.replace("x/ant", "Ant").replace("x/bee", "Bee"): d for name, d in copies.items()}
    run(pack(copies), POOL, test=0.25, resplit=True, validation=0.25, name="alike")
    units = Division.read("data/split/alike/division.json").units
    duplicates = [units[name] for name in units]
    # Three were made of training images, and one equals one.
    assert len(duplicates) - len(set(duplicates)) == 4
    for data in load(range(8), "alike"):
        sides = [{units[name] for name in getattr(data, part).names} for part in packed.PARTS]
        assert sum(map(len, sides)) == len(set.union(*sides))


def test_a_source_that_has_test_images_keeps_them():
    source = {f"set/{part}/{label}/{n}.png": image(100 * i + n)
              for i, (part, label) in enumerate((p, c) for p in ("train", "val") for c in
                                                ("ant", "bee"))
              for n in range(8)}  # fmt: skip
    run(pack(source), resplit=True, validation=0.25)
    first, second = load((0, 1))
    assert first.test.names == second.test.names and len(first.test) == 16
    assert first.validation.names != second.validation.names
    assert Division.read("data/split/ab/division.json").test == 0
    assert first.prepared_images().shape == (4 + 16, 8, 8, 3)


def test_a_backbone_is_pretrained_on_the_division_of_its_own_seed(capsys):
    run(pack(pool(10)), POOL, test=0.2, resplit=True, validation=0.25)
    load([])
    schedule = {"StepLR": {"step_size": 1}}
    how = {"lr": 0.001, "epochs": 1, "batch_size": 4, "schedule": schedule, "seed": 3}
    pretrain("miniresnet10", params.Pretrain(source="ab", **how), "fast")
    assert "on 2 source classes" in capsys.readouterr().out


def test_a_class_with_too_few_images_is_refused():
    members = {name: data for name, data in pool(20).items() if name[:5] in ("Ant/1", "Bee/0")}
    words = (
        "no image of class 'bee' for train: it has only 1 image, too few to hold out 0.2 for test"
    )
    with pytest.raises(UserError, match=words + " and 0.25 for validation; add images of it$"):
        run(pack(members), POOL, test=0.2, resplit=True, validation=0.25)
    assert not Path("data/split/ab").exists()


def test_fewer_groups_than_folds_are_refused():
    grouped = {"all": {"ant": "Ant/*", "bee": "Bee/*"}}
    members = patients({"Ant": [4] * 3, "Bee": [4] * 3})
    words = (
        "'ant' .* its 12 images form only 3 groups .* further groups, or set split.resplit: false"
    )
    with pytest.raises(UserError, match=words):
        run(pack(members), grouped, test=0.2, resplit=True, validation=0.2)
    run(pack(members), grouped, test=0.2, validation=0.2)


def test_a_class_that_is_all_copies_of_another_is_refused():
    members = {f"{label}/{n}.png": image(n) for label in ("Ant", "Bee") for n in range(9)}
    members |= {f"Ant/{n}.png": image(n) for n in range(9, 18)}
    with pytest.raises(UserError, match="drop would leave class 'bee' 0 of 9 .* to keep"):
        run(pack(members), POOL, test=0.2, resplit=True, validation=0.25, duplicates="drop")
