"""The first grid for one's own images: what is proposed for how many images and how much time."""

import pytest

from tests.conftest import ROOT
from transfer import params
from transfer.own import grid, settings
from transfer.training.preflight import Speed

STUDY = params.load(ROOT / "params.yaml")
NAME = "glioma"
SPEEDS = {"resnet18": Speed(step=0.1, forward=0.03), "resnet50": Speed(step=0.4, forward=0.1)}
STUDY = grid.changed(STUDY, grid={"dataset": [NAME], "seed": [0, 1, 2, 3, 4]})


def plan(train=300, limit=1e9) -> grid.Plan:
    return grid.fitting(STUDY, NAME, train, 100, SPEEDS, limit)


def test_with_time_enough_all_that_params_yaml_lists_is_tried():
    found = plan()
    assert found.study == STUDY and not found.left
    assert grid.described(found, NAME, 1e9)[0].endswith("batches of 4: 80 runs")


@pytest.mark.parametrize(
    "train,epochs,batch,step",
    [(300, 25, 4, 7), (2000, 25, 16, 7), (5000, 10, 16, 3), (60_000, 5, 64, 1)],
)
def test_more_images_are_seen_less_often_in_larger_batches(train, epochs, batch, step):
    found = plan(train).study.train
    assert (found.epochs, found.batch_size) == (epochs, batch)
    assert found.schedule.options == {"step_size": step, "gamma": 0.1}


def test_what_params_yaml_has_is_not_made_longer_or_its_batches_smaller():
    study = grid.changed(STUDY, train={"epochs": 6, "batch_size": 32})
    found = grid.fitting(study, NAME, 5000, 100, SPEEDS, 1e9).study.train
    assert (found.epochs, found.batch_size) == (6, 32)


def test_what_matters_least_is_left_out_first_until_the_rest_fits():
    left = []
    for limit in (1e9, 1e6, 5e4, 2e4, 8e3, 4e3, 2e3, 1e3, 1):
        found, before = plan(limit=limit), left
        assert found.seconds <= limit or limit == 1
        left = list(found.left)
        if grid.RATES in before and grid.FINETUNING in left:
            before = before[:-1]
        assert left[: len(before)] == before  # the same as with more time, and more
        # With what was left out last, it would not have fitted.
        assert not left or found.seconds + found.left[left[-1]] > limit
        assert found.seconds + sum(found.left.values()) == pytest.approx(plan().seconds)
    assert left == [
        "baselines from random weights",
        "R50",
        "epochs beyond 10",
        "seeds beyond 3",
        "epochs beyond 5",
        "finetuning",
    ]
    smallest = found.study
    assert smallest.grid.init == ["pretrained"] and smallest.grid.freezing == ["frozen"]
    assert smallest.grid.backbone == ["resnet18"] and smallest.grid.seed == [0, 1, 2]
    assert smallest.train.epochs == 5 and smallest.train.schedule.options["step_size"] == 2
    assert smallest.grid.lr == STUDY.grid.lr
    *_, asked, note = grid.described(found, NAME, 1)
    assert asked.startswith("freeze or finetune? is not asked: finetuning would take ")
    assert note == "note: this takes more than the 1 s asked for"


def test_finetuning_is_tried_at_one_rate_where_that_fits():
    whole = plan(limit=1)
    smaller = grid.changed(whole.study, grid={"freezing": STUDY.grid.freezing, "lr": [1e-4]})
    needed = grid.preflight.seconds(smaller, {NAME: (300, 100)}, SPEEDS)
    found = plan(limit=needed)
    assert (found.study.grid.lr, found.study.grid.freezing) == ([1e-4], ["frozen", "finetuned"])
    assert list(found.left)[-1] == grid.RATES
    assert plan(limit=needed - 1).study.grid == whole.study.grid


def test_params_yaml_says_what_is_tried_and_why_and_keeps_its_other_comments():
    text = (ROOT / "params.yaml").read_text()
    found = plan(limit=8e3)
    why = grid.described(found, NAME, 8e3)
    written = settings.planned(text, found.study, why)
    read = params.load(text=written)
    assert (read.grid, read.train) == (found.study.grid, found.study.train)
    comments = [line for line in text.splitlines() if line.startswith("#")]
    assert [line for line in comments if line not in written] == []
    block = written[: written.index("\ngrid:")].rpartition("\n\n")[2]
    assert block.startswith("# to try: R18; frozen, finetuned;") and "left out" in block
    assert all(line.startswith("# ") and len(line) <= 100 for line in block.splitlines())
