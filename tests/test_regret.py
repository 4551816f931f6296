"""What is lost by choosing without training, of settings whose accuracies are known."""

import pytest

from transfer.evidence import regret
from transfer.evidence.found import Choice, Estimate
from transfer.evidence.measures import Similarity
from transfer.evidence.stats import Difference

LOST = {
    "near": {("r1", "frozen"): 0.0, ("r1", "finetuned"): 0.1, ("r2", "frozen"): 0.2},
    "far": {("r2", "finetuned"): 0.0, ("r2", "frozen"): 0.3, ("r1", "finetuned"): 0.4},
}
"""Data set → settings, the recommended first, and by how much it is better than each of them."""


def choices(dataset: str) -> list[Choice]:
    common = {
        **{"dataset": dataset, "images": "all", "lr": 0.001, "recipe": "default", "n_test": 40},
        **{"n_validation": 0, "validation": None, "as_good": True, "wins": None},
        **{"majority": "a", "share": 0.5, "recall": [], "mistakes": []},
        "chosen": Estimate(mean=0.9, low=0.8, high=1.0, sd=None),
        "above": Difference(0.4, 0.3, 0.5, 0.001),
    }
    baseline = ("r2", "frozen", "scratch", 0.5)
    settings = [(*place, "pretrained", lost) for place, lost in LOST[dataset].items()]
    return [
        Choice(
            **common,
            **{"backbone": backbone, "freezing": freezing, "start": start},
            difference=Difference(-lost, -lost - 0.04, -lost + 0.03, 0.5),
        )
        for backbone, freezing, start, lost in [*settings, baseline]
    ]


def similar(leep: dict[tuple[str, str], float]) -> list[Similarity]:
    common = {"n": 8, "source_classes": 10}
    return [
        Similarity(dataset=d, backbone=b, measures={"leep": value}, **common)
        for (d, b), value in leep.items()
    ]


def found(datasets: list[str], leep: dict[tuple[str, str], float]) -> dict[str, regret.Regret]:
    everything = [choice for name in datasets for choice in choices(name)]
    return {one.rule: one for one in regret.of(everything, similar(leep), ["leep"])}


def test_regret_is_what_the_best_setting_left_lacks_on_average():
    leep = {("near", "r1"): -1.0, ("near", "r2"): -2.0, ("far", "r1"): -5.0, ("far", "r2"): -6.0}
    rules = found(["near", "far"], leep)
    assert rules["always r1"].backbone.value == pytest.approx((0.0 + 0.4) / 2)
    assert rules["always r2"].backbone.value == pytest.approx((0.2 + 0.0) / 2)
    assert rules["always frozen"].freezing.value == pytest.approx((0.0 + 0.3) / 2)
    assert rules["always finetuned"].freezing.value == pytest.approx((0.1 + 0.0) / 2)
    by = rules["LEEP"]
    assert by.backbone.value == pytest.approx(0.4 / 2)  # r1 is the more similar on both
    assert by.freezing.value == 0  # near is frozen and far finetuned, which is best
    assert (by.freezing.low, by.freezing.high) == pytest.approx((-0.03 / 2**0.5, 0.04 / 2**0.5))
    assert by.spread == pytest.approx(4)


def test_what_the_grid_lacks_is_not_judged():
    rules = found(["near"], {("near", "r1"): -1.0, ("near", "r2"): -2.0})
    assert set(rules) == {"always r1", "always r2", "LEEP"}
    assert rules["LEEP"].freezing is None and rules["LEEP"].spread is None
    assert found(["near"], {("near", "r1"): -1.0}) == {}
    baselines = [one for one in choices("near") if one.start == "scratch"]
    two = similar({("near", "r1"): -1.0, ("near", "r2"): -2.0})
    assert regret.of(baselines, two, ["leep"]) == []  # nothing was transferred
