"""Statistics against scipy and worked cases, and what a page says of runs made up for it."""

from zlib import crc32

import numpy as np
import pytest
from scipy import stats as reference

from transfer import files, params
from transfer.cli import UserError
from transfer.evidence import compare, stats, suspects
from transfer.evidence.found import Accuracy, Choice, Evidence, Paired
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
    return compare.compute(grid, SETTINGS.datasets, {"glioma": list(leaked)}, read, unseen)


def unseen(run: Run) -> dict[str, predictions.Predictions]:
    """These runs keep no predictions of single images."""
    return {}


def test_labels_that_all_good_runs_doubt_are_named():
    """Image 0 is surely of the other class to all; 1 only to some; 2 to all, but unsurely; and what
    a bad run says of 3 does not count."""
    labels = np.arange(40) % 2
    names = [f"{'ab'[label]}/{i}.jpg" for i, label in enumerate(labels)]

    def load(run: Run) -> dict[str, predictions.Predictions]:
        right = np.full(40, 0.9)
        right[[0, 2]] = 0.02, 0.4
        right[1] = 0.02 if run.lr == 0.001 else 0.9
        right[3] = 0.1 if run.lr == 0.01 else 0.02
        if run.lr == 0.01:
            right[:] = 0.5
        rows = np.stack([np.where(labels == label, right, 1 - right) for label in (0, 1)], axis=1)
        return {"test": predictions.of(names, labels, np.stack([rows, rows[::-1]])[:1])}

    choices = [
        Choice(
            **{"dataset": "x", "images": "all", "backbone": "r", "freezing": "frozen"},
            **{"lr": lr, "recipe": "default", "start": "scratch", "n_test": 40},
            **{"n_validation": 0, "validation": None},
            chosen=Accuracy(mean=0.9, low=0.8, high=1.0, sd=None),
            difference=stats.Difference(value=0.0, low=low, high=high),
            **{"majority": "a", "share": 0.5, "recall": []},
            above=Paired(
                difference=stats.Difference(0.4, 0.3, 0.5),
                mcnemar=stats.Discordant(16, 0, 0.001),
                p_holm=0.001,
            ),
        )
        for lr, low, high in ((0.001, 0.0, 0.0), (0.0001, -0.1, 0.1), (0.01, -0.3, -0.1))
    ]
    found = suspects.find(choices, [0, 1], load)
    assert [(one.image, one.said, one.runs) for one in found] == [
        ("test/a/0.jpg", "b", 4),
        ("test/b/3.jpg", "a", 4),
    ]
    assert found[0].confidence == pytest.approx(0.98, abs=1e-3)
    assert suspects.find(choices[:1], [0], load) == []  # one run alone is no witness


def verdicts(found: Evidence, text: str) -> list[str]:
    return [claim.verdict for claim in found.claims.ours if text in claim.text]


def test_transfer_that_helps_is_found_and_one_that_does_not_is_not():
    helps, equal = made_up(), made_up(0.6, 0.6)
    assert all(row.paired.p_holm < 0.05 for row in helps.rows)
    assert not any(row.paired.p_holm < 0.05 for row in equal.rows)
    assert verdicts(helps, "beats no transfer") == ["holds"]
    assert verdicts(equal, "beats no transfer") != ["holds"]
    assert verdicts(made_up(0.6, 0.9), "beats no transfer") == ["does not"]


def test_the_best_epoch_flatters_and_the_last_does_not():
    arms = [arm for row in made_up(0.6, 0.6).rows for arm in row.arms.values()]
    assert np.mean([arm.inflation for arm in arms]) > 0.01
    assert all(arm.best >= arm.chosen.mean for arm in arms)


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
    assert all((row.lr, row.baseline_lr) == (0.0001, 0.001) for row in found.transfer)
    assert {row.verdict for row in found.transfer} == {"helps"}
    assert compare.best(found.rows, "pretrained").lr == 0.0001
    assert {row.verdict for row in made_up(0.6, 0.9, validation=validation).transfer} == {"hurts"}
    assert made_up(0.6, 0.9).transfer == []


def test_seeds_are_averaged_and_paired():
    """Of three seeds with 0.5, 0.6 and 0.7 right, the baseline's always 0.4 less."""

    def read(run: Run) -> compare.Tested:
        accuracy = 0.5 + run.seed / 10 - 0.4 * (run.start == "scratch")
        return compare.Tested(NAMES, np.arange(200)[None] < round(200 * accuracy), 0)

    grid = SETTINGS.grid.model_copy(update={"seed": [0, 1, 2]})
    row = compare.compute(grid, SETTINGS.datasets, {}, read, unseen).rows[0]
    found = row.arms["pretrained"]
    assert (found.best, found.inflation) == (0.5, 0)
    assert (found.chosen.mean, found.chosen.sd) == pytest.approx((0.6, 0.1))
    assert row.paired.difference.value == pytest.approx(0.4)
    assert row.paired.mcnemar.first_only == 80
    assert str(found.chosen).startswith("0.600 ± 0.100 [")


def test_each_size_has_its_own_rows():
    found = made_up(images=["all", 50])
    assert [row.images for row in found.rows[:9]] == ["all"] * 8 + [50]
    assert found.claims == made_up(images=["all"]).claims


def test_what_leaked_is_left_out_by_name():
    rows = made_up(leaked=[name for name in NAMES if name.startswith("a/")]).rows
    left = [row.unleaked for row in rows if row.dataset == "glioma"]
    assert all(row.n == {"a": 0, "b": 100} for row in left)
    assert not [row for row in rows if row.unleaked and row.dataset != "glioma"]
    everything = made_up(leaked=NAMES).rows
    gone = [row.unleaked.recall["pretrained"] for row in everything if row.dataset == "glioma"]
    assert {after for _, after in gone} == {None}


def test_without_leaks_each_class_counts_the_same():
    """Of class a all are right and all but ten leak; of b half are right and none leaks."""
    right = np.array([[name.startswith("a/") or i % 4 == 1 for i, name in enumerate(NAMES)]])
    leaked = [name for name in NAMES if name.startswith("a/")][10:]
    grid = SETTINGS.grid.model_copy(update={"dataset": ["glioma"]})
    read = lambda run: compare.Tested(NAMES, right, 0)  # noqa: E731
    found = (
        compare.compute(grid, SETTINGS.datasets, {"glioma": leaked}, read, unseen).rows[0].unleaked
    )
    assert found.recall["pretrained"] == (0.75, 0.75)
    assert found.n == {"a": 10, "b": 100}


def test_a_mean_gain_is_known_better_than_one_settings():
    found = made_up(0.8, 0.6)
    for gain in found.gains:
        place, mean = (gain.dataset, gain.backbone), gain.difference
        own = [r.paired.difference for r in found.rows if (r.dataset, r.backbone) == place]
        assert mean.value == pytest.approx(np.mean([d.value for d in own]))
        assert mean.high - mean.low < min(d.high - d.low for d in own)


def test_evidence_is_the_same_twice_and_comes_back_as_it_was(tmp_path):
    made_up().write(tmp_path / "1.json")
    made_up().write(tmp_path / "2.json")
    assert (tmp_path / "1.json").read_bytes() == (tmp_path / "2.json").read_bytes()
    assert Evidence.read(tmp_path / "1.json") == made_up()


def test_evidence_of_another_version_is_refused(tmp_path):
    files.write_json(tmp_path / "evidence.json", {"rows": []})
    with pytest.raises(UserError, match="of another version.*run `dvc repro`"):
        Evidence.read(tmp_path / "evidence.json")
