"""Statistics against scipy and worked cases, and what a page says of runs made up for it."""

import json

import numpy as np
import pytest
from scipy import stats as reference

from transfer import evidence, page, params, predictions, stats
from transfer.runs import Run


def test_wilson_is_scipys():
    theirs = reference.binomtest(145, 153).proportion_ci(method="wilson")
    assert stats.wilson(145 / 153, 153) == pytest.approx((theirs.low, theirs.high), abs=1e-9)


def test_mcnemar_is_the_binomial_test_on_discordant_images():
    first = np.array([True] * 12 + [False] * 3 + [True] * 85)
    second = np.array([False] * 12 + [True] * 3 + [True] * 85)
    found = stats.exact_mcnemar(first, second)
    assert (found.first_only, found.second_only) == (12, 3)
    assert found.p == pytest.approx(reference.binomtest(3, 15).pvalue)
    assert stats.exact_mcnemar(first, first).p == 1


def test_five_discordant_images_decide_nothing_and_six_may():
    def decidable(n):
        right = np.arange(20) < n
        return stats.exact_mcnemar(right, np.zeros(20, bool)).decidable

    assert [decidable(n) for n in (0, 5, 6)] == [False, False, True]
    assert stats.exact_mcnemar(np.arange(20) < 6, np.zeros(20, bool)).p < stats.LEVEL


def test_holm_by_hand():
    assert stats.holm([0.04, 0.01, 0.03]) == pytest.approx([0.06, 0.03, 0.06])
    assert stats.holm([]) == []


def test_bootstrap_of_one_seed_is_scipys():
    rng = np.random.default_rng(0)
    first, second = rng.random((1, 200)) < 0.9, rng.random((1, 200)) < 0.7
    ours = stats.bootstrap(first, second)
    theirs = reference.bootstrap(
        ((first.astype(float) - second)[0],), np.mean, method="percentile", random_state=1
    ).confidence_interval
    assert ours.value == pytest.approx(first.mean() - second.mean())
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=0.01)


def test_bootstrap_covers_the_seeds_too():
    """Seeds that disagree widen the interval; images of one seed alone would not show it."""
    rng = np.random.default_rng(0)
    second = np.zeros((4, 400), bool)
    steady = rng.random((4, 400)) < 0.5
    varying = rng.random((4, 400)) < np.array([[0.2], [0.4], [0.6], [0.8]])
    narrow, wide = stats.bootstrap(steady, second), stats.bootstrap(varying, second)
    assert wide.high - wide.low > 3 * (narrow.high - narrow.low)


def test_bootstrap_interval_covers_nine_times_in_ten_or_more():
    rng = np.random.default_rng(1)
    covered = 0
    for _ in range(200):
        found = stats.bootstrap(rng.random((1, 150)) < 0.8, rng.random((1, 150)) < 0.7, draws=500)
        covered += found.low <= 0.1 <= found.high
    assert covered >= 180


def test_predictions_come_back_as_they_were(tmp_path):
    rng = np.random.default_rng(0)
    probabilities = rng.dirichlet(np.ones(3), (4, 9))
    labels = rng.integers(0, 3, 9)
    names = [f"ä/{i}.jpg" for i in range(9)]
    parts = {"test": predictions.of(names, labels, probabilities)}
    for path in ("one.npz", "two.npz"):
        predictions.save(tmp_path / path, parts)
    found = predictions.load(tmp_path / "one.npz")["test"]
    assert found.name.tolist() == names
    assert np.array_equal(found.right, probabilities.argmax(2) == labels)
    assert np.allclose(found.confidence, probabilities.max(2), atol=1e-3)
    assert (tmp_path / "one.npz").read_bytes() == (tmp_path / "two.npz").read_bytes()


SETTINGS = params.load()


def made_up(transfer=0.95, baseline=0.6, seed=0):
    """A reader of runs with those accuracies, on 200 images."""
    rng, runs = np.random.default_rng(seed), {}

    def right(run: Run) -> np.ndarray:
        if run not in runs:
            accuracy = transfer if run.start == "pretrained" else baseline
            runs[run] = rng.random((3, 200)) < accuracy
        return runs[run]

    return evidence.compute(SETTINGS.grid, SETTINGS.datasets, right)


def verdicts(found: dict, text: str) -> list[str]:
    return [claim["verdict"] for claim in found["claims"]["ours"] if text in claim["text"]]


def test_transfer_that_helps_is_found_and_one_that_does_not_is_not():
    helps, equal = made_up(), made_up(0.6, 0.6)
    assert all(row["mcnemar"]["p_holm"] < 0.05 for row in helps["rows"])
    assert not any(row["mcnemar"]["p_holm"] < 0.05 for row in equal["rows"])
    assert verdicts(helps, "beats no transfer") == ["holds"]
    assert verdicts(equal, "beats no transfer") != ["holds"]
    assert verdicts(made_up(0.6, 0.9), "beats no transfer") == ["does not"]


def test_the_best_epoch_flatters_and_the_last_does_not():
    rows = made_up(0.6, 0.6)["rows"]
    starts = [row[start] for row in rows for start in ("pretrained", "scratch")]
    assert np.mean([start["inflation"] for start in starts]) > 0.01
    assert all(start["best"] >= start["chosen"]["mean"] for start in starts)


def test_a_mean_gain_is_known_better_than_one_settings():
    found = made_up(0.8, 0.6)
    for gain in found["gains"]:
        place = gain["dataset"], gain["backbone"]
        own = [r["difference"] for r in found["rows"] if (r["dataset"], r["backbone"]) == place]
        assert gain["value"] == pytest.approx(np.mean([d["value"] for d in own]))
        assert gain["high"] - gain["low"] < min(d["high"] - d["low"] for d in own)


def test_evidence_is_json_and_the_same_twice():
    assert json.dumps(made_up()) == json.dumps(made_up())


def test_the_page_says_what_was_found():
    titles = {name: SETTINGS.datasets[name].title for name in SETTINGS.grid.dataset}
    helps = page.write(titles, made_up(), [], {}, "", [])
    equal = page.write(titles, made_up(0.6, 0.6), [], {}, "", [])
    assert helps.count("Transfer is better than random weights") == 4
    assert equal.count("not to be told from random weights") >= 3
    assert "states 200 test images: its accuracies are no multiples of 1/200" in helps
    assert "figures/" not in helps
