"""Statistics against scipy and worked cases, and what a page says of runs made up for it."""

import json
from zlib import crc32

import numpy as np
import pytest
from scipy import stats as reference

from transfer import params
from transfer.evidence import compare, stats
from transfer.pages import recommendation, report
from transfer.runs import Run
from transfer.training import predictions


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


NAMES = np.array([f"{'ab'[i % 2]}/{i}.jpg" for i in range(200)])


def made_up(transfer=0.95, baseline=0.6, leaked=(), validation=None, **axes):
    """Evidence of runs with those accuracies, on 200 images."""

    def read(run: Run) -> compare.Tested:
        accuracy = transfer if run.start == "pretrained" else baseline
        right = np.random.default_rng(crc32(run.name.encode())).random((3, 200)) < accuracy
        return compare.Tested(NAMES, right, 2, *((49, validation(run)) if validation else ()))

    grid = SETTINGS.grid.model_copy(update=axes)
    return compare.compute(grid, SETTINGS.datasets, {"glioma": list(leaked)}, read)


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


def test_the_epoch_is_the_best_on_validation_and_the_latest_of_equals():
    def parts(*accuracies):
        labels = np.zeros(10, int)
        right = np.array([[i < 10 * accuracy for i in range(10)] for accuracy in accuracies])
        probabilities = np.stack([right, ~right], axis=2).astype(float)
        return predictions.of([f"a/{i}" for i in range(10)], labels, probabilities)

    test = parts(0.1, 0.9, 0.2, 0.3)
    held = parts(0.5, 0.7, 0.7, 0.6)
    assert predictions.chosen_epoch({"test": test}) == 3
    assert predictions.chosen_epoch({"validation": held, "test": test}) == 2
    found = compare.tested({"validation": held, "test": test})
    assert (found.best, found.right[found.chosen].mean()) == (0.9, 0.2)
    assert (found.n_validation, found.validation) == (10, 0.7)


def test_rates_and_the_best_setting_are_chosen_on_validation_alone():
    """On the test images every setting is as good as the next."""

    def validation(run: Run) -> float:
        return 0.5 + 0.1 * (run.lr == (0.0001 if run.start == "pretrained" else 0.001))

    found = made_up(validation=validation)
    assert all(row["lr"] == {"pretrained": 0.0001, "scratch": 0.001} for row in found["transfer"])
    assert {row["verdict"] for row in found["transfer"]} == {"helps"}
    assert compare.best(found["rows"], "pretrained")["lr"] == 0.0001
    assert {row["verdict"] for row in made_up(0.6, 0.9, validation=validation)["transfer"]} == {
        "hurts"
    }
    assert made_up(0.6, 0.9)["transfer"] == []


def test_seeds_are_averaged_and_paired():
    """Of three seeds with 0.5, 0.6 and 0.7 right, the baseline's always 0.4 less."""

    def read(run: Run) -> compare.Tested:
        accuracy = 0.5 + run.seed / 10 - 0.4 * (run.start == "scratch")
        return compare.Tested(NAMES, np.arange(200)[None] < round(200 * accuracy), 0)

    grid = SETTINGS.grid.model_copy(update={"seed": [0, 1, 2]})
    row = compare.compute(grid, SETTINGS.datasets, {}, read)["rows"][0]
    found = row["pretrained"]
    assert (found["best"], found["inflation"]) == (0.5, 0)
    assert (found["chosen"]["mean"], found["chosen"]["sd"]) == pytest.approx((0.6, 0.1))
    assert row["difference"]["value"] == pytest.approx(0.4)
    assert row["mcnemar"]["first_only"] == 80
    assert "0.600 ± 0.100 [" in report.settings_table([row])


def test_each_size_has_its_own_rows():
    found = made_up(images=["all", 50])
    assert [row["images"] for row in found["rows"][:9]] == ["all"] * 8 + [50]
    assert "| 50 a class |" in report.settings_table(found["rows"][:9])
    assert found["claims"] == made_up(images=["all"])["claims"]


def test_what_leaked_is_left_out_by_name():
    rows = made_up(leaked=[name for name in NAMES if name.startswith("a/")])["rows"]
    left = [row["unleaked"] for row in rows if row["dataset"] == "glioma"]
    assert all(row["n"] == {"a": 0, "b": 100} for row in left)
    assert not [row for row in rows if "unleaked" in row and row["dataset"] != "glioma"]
    everything = made_up(leaked=NAMES)["rows"]
    gone = [row["unleaked"]["pretrained"] for row in everything if row["dataset"] == "glioma"]
    assert {after for _, after in gone} == {None}


def test_without_leaks_each_class_counts_the_same():
    """Of class a all are right and all but ten leak; of b half are right and none leaks."""
    right = np.array([[name.startswith("a/") or i % 4 == 1 for i, name in enumerate(NAMES)]])
    leaked = [name for name in NAMES if name.startswith("a/")][10:]
    grid = SETTINGS.grid.model_copy(update={"dataset": ["glioma"]})
    read = lambda run: compare.Tested(NAMES, right, 0)  # noqa: E731
    found = compare.compute(grid, SETTINGS.datasets, {"glioma": leaked}, read)["rows"][0]
    assert found["unleaked"]["pretrained"] == [0.75, 0.75]
    assert found["unleaked"]["n"] == {"a": 10, "b": 100}


def test_a_mean_gain_is_known_better_than_one_settings():
    found = made_up(0.8, 0.6)
    for gain in found["gains"]:
        place = gain["dataset"], gain["backbone"]
        own = [r["difference"] for r in found["rows"] if (r["dataset"], r["backbone"]) == place]
        assert gain["value"] == pytest.approx(np.mean([d["value"] for d in own]))
        assert gain["high"] - gain["low"] < min(d["high"] - d["low"] for d in own)


def test_the_best_by_validation_is_recommended_and_what_is_as_good_and_cheaper():
    def validation(run: Run) -> float:
        place = run.backbone, run.lr, run.freezing, run.start
        return 0.9 if place == ("resnet50", 0.001, "finetuned", "pretrained") else 0.7

    found = made_up(0.9, 0.5, validation=validation)["choices"]
    own = [choice for choice in found if choice["dataset"] == "glioma"]
    assert len(found) == 64 and len(own) == 16
    first, *rest = own
    assert recommendation.name(first) == "R50 0.001 finetuned from pretrained weights"
    assert first["difference"] == {"value": 0.0, "low": 0.0, "high": 0.0}
    assert all(choice["difference"]["high"] < 0 for choice in rest if choice["start"] == "scratch")
    costs = [90 if c["backbone"] == "resnet50" else 30 + 1000 * (i % 2) for i, c in enumerate(own)]
    relative = [cost / 90 for cost in costs]
    good = recommendation.as_good_and_cheaper(own, relative)
    assert good and {c["start"] for c, _ in good} == {"pretrained"}
    assert {cost for _, cost in good} == {1 / 3}
    text = recommendation.write(SETTINGS.datasets["glioma"], own, costs, [])
    assert "**Take R50 0.001 finetuned from pretrained weights**: right on 0.9" in text
    assert "of 200 test images, chosen among 16 settings on 49 validation images." in text
    assert "cannot be told from it" in text and "takes 33% of the computation" in text
    cheap = [0.01 if choice is good[-1][0] else c for choice, c in zip(own, relative, strict=True)]
    assert "takes 33% of the computation" in recommendation.verdict(own, cheap)
    assert "Doubtful" not in text
    high = own[0] | {"validation": 1.0, "n_validation": 400}
    assert "On the test images no others did better" in recommendation.doubt([high, *own[1:]])
    lucky = own[0] | {"validation": 0.98, "n_validation": 49}
    lucky |= {"chosen": first["chosen"] | {"high": 0.85}}
    assert "Doubtful" in recommendation.doubt([lucky])  # but the best of 16 may be as lucky
    assert "Doubtful" not in recommendation.doubt([lucky, *own[1:]])
    gain = good[0][0] | {"difference": {"value": 0.1, "low": 0.05, "high": 0.15}}
    words = recommendation.verdict([high, gain], [1, 1 / 3])
    assert "did better on the test images (+0.100 [0.050, 0.150]) and takes 33%" in words
    assert "On the test images 1 other did better beyond noise." in words
    equal = recommendation.write(SETTINGS.datasets["glioma"], own, [90] * 16, [])
    assert "of the computation" not in equal


def test_evidence_is_json_and_the_same_twice():
    assert json.dumps(made_up()) == json.dumps(made_up())


def test_the_page_says_what_was_found():
    datasets = {name: SETTINGS.datasets[name] for name in SETTINGS.grid.dataset}
    helps = report.write(datasets, made_up(), [], {}, "", [])
    equal = report.write(datasets, made_up(0.6, 0.6), [], {}, "", [])
    assert helps.count("Transfer is better than random weights") == 4
    assert equal.count("not to be told from random weights") >= 3
    assert "states 200 test images: its accuracies are no multiples of 1/200" in helps
    assert "figures/" not in helps
    own = {name: data.model_copy(update={"quadrant": "none"}) for name, data in datasets.items()}
    assert "## The report's claims" in helps and "states 200 test images" in helps
    assert "claims" not in report.write(own, made_up(), [], {}, "", [])
    assert "(small, similar)" in helps and "chosen on the test images, which flatters it" in helps
    judged = report.write(datasets, made_up(0.6, 0.9, validation=lambda _: 0.5), [], {}, "", [])
    assert "hurts: negative transfer" in judged and "chosen on 49 validation images" in judged
    leaks = report.write(datasets, made_up(leaked=NAMES[::2]), [], {}, "", [])
    assert "Of glioma no test image of a is left." in leaks and "0 a, 100 b" in leaks


def test_four_data_sets_cannot_show_a_correlation():
    measures = {key: float(i) for i, key in enumerate([*report.MEASURES, "leep_p"])}
    names = list(SETTINGS.grid.dataset)
    similar = [
        {"dataset": name, "backbone": "resnet18", "n": 8, "measures": {**measures, first: float(i)}}
        for first in [next(iter(measures))]
        for i, name in enumerate(reversed(names))
    ]
    table = report.similarity_table(similar, SETTINGS.datasets, made_up()["gains"])
    places = [line.split("|")[1].strip() for line in table.splitlines()[2:6]]
    assert places == names[::-1]
    assert ["less similar" in line for line in table.splitlines()[2:6]] == [
        False,
        False,
        True,
        True,
    ]
    assert "even a perfect one has p = 0.083" in table
