"""Confidence that is known to be true, or by how much it is not."""

import numpy as np
import pytest
import torch

from transfer.evidence import calibration
from transfer.evidence.calibration import BINS, FEWEST, Answers
from transfer.training import predictions

RNG = np.random.default_rng(0)


def predicted(n: int, temperature: float, classes: int = 3) -> Answers:
    """Of n images, whose classes come with the probabilities at that temperature."""
    logits = RNG.normal(scale=3, size=(n, classes))
    given = torch.from_numpy(logits).softmax(1).numpy()
    true = torch.from_numpy(logits / temperature).softmax(1).numpy()
    label = np.array([RNG.choice(classes, p=row) for row in true])
    return Answers(np.array([f"a/{i}" for i in range(n)]), label, given)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.5])
def test_the_temperature_is_found_and_mends_the_confidence(temperature):
    found = predicted(4000, temperature)
    fitted = calibration.fit(found)
    assert fitted == pytest.approx(temperature, rel=0.1)
    before, after = calibration.error(found), calibration.error(found.at(fitted))
    assert after.low <= after.chance_high and after.value < 0.03
    if temperature != 1.0:
        assert before.low > before.chance_high
    assert (found.at(fitted).probabilities.argmax(1) == found.probabilities.argmax(1)).all()


def test_scaling_is_division_before_the_softmax():
    logits = torch.randn(20, 4, dtype=torch.float64)
    expected = (logits / 1.7).softmax(1).numpy()
    found = calibration.scaled(logits.softmax(1).numpy(), 1.7)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_the_error_is_that_of_its_definition():
    found = predicted(97, 2.0)
    confidence = found.probabilities.max(1)
    right = found.probabilities.argmax(1) == found.label
    order, expected = confidence.argsort(), 0.0
    for one in range(BINS):
        own = order[[i for i in range(97) if i * BINS // 97 == one]]
        expected += len(own) / 97 * abs(confidence[own].mean() - right[own].mean())
    error = calibration.error(found)
    assert error.value == pytest.approx(expected, abs=1e-4)
    assert error.low <= error.value <= error.high and len(error.bins) == BINS


def test_images_that_several_seeds_share_count_once():
    few = predicted(FEWEST - 1, 3.0)
    twice = Answers(*(np.concatenate([part, part]) for part in vars(few).values()))
    assert twice.images == FEWEST - 1 and calibration.fit(twice) == 1.0
    once, again = calibration.error(few), calibration.error(twice)
    assert again.value == pytest.approx(once.value, abs=0.03)
    assert again.high - again.low > 0.8 * (once.high - once.low), "no more sure than by half of it"


@pytest.mark.parametrize(("wrong", "fits"), [(0, False), (4, False), (5, True)])
def test_a_temperature_needs_wrong_answers(wrong, fits):
    """Without any, the lowest would fit best, and call every answer certain."""
    found = predicted(400, 1.0)
    label = found.probabilities.argmax(1)
    label[:wrong] = (label[:wrong] + 1) % 3
    held = predictions.from_probabilities(list(found.name), label, found.probabilities[None])
    made = calibration.calibrate([{"validation": held, "test": held}] * 2, "accuracy")
    assert (made.wrong, made.fitted, made.temperature != 1.0) == (wrong, fits, fits)


def test_runs_without_validation_images_keep_their_confidence():
    found = predicted(60, 2.0)
    run = {
        "test": predictions.from_probabilities(
            list(found.name), found.label, found.probabilities[None]
        )
    }
    made = calibration.calibrate([run], "accuracy")
    assert (made.temperature, made.n, made.fitted) == (1.0, 0, False) and made.before == made.after


def test_a_network_that_is_always_sure_and_right_half_the_time_is_off_by_half():
    sure = np.tile([1.0, 0.0], (100, 1))
    names = np.array([f"a/{i}" for i in range(100)])
    error = calibration.error(Answers(names, np.arange(100) % 2, sure))
    assert error.value == 0.5 and error.chance_low == error.chance_high == 0
    assert calibration.fit(Answers(names, np.arange(100) % 2, sure)) == pytest.approx(20, rel=0.01)


def sure_of(confidence, right) -> Answers:
    confidence, right = np.array(confidence), np.array(right)
    names = np.array([f"a/{i}" for i in range(len(right))])
    return Answers(names, np.where(right, 0, 1), np.stack([confidence, 1 - confidence], 1))


def test_an_answer_is_taken_from_the_lowest_confidence_that_keeps_the_risk():
    confidence = np.linspace(0.999, 0.6, 100)
    right = np.ones(100, bool)
    right[[40, 60, 61, 62]] = False  # from the surest
    assert calibration.confidence_threshold(sure_of(confidence, right), 0.0) == pytest.approx(
        confidence[39]
    )
    assert calibration.confidence_threshold(sure_of(confidence, right), 0.02) == pytest.approx(
        confidence[59]
    )
    assert calibration.confidence_threshold(sure_of(confidence, right), 0.04) == pytest.approx(
        confidence[99]
    )
    assert calibration.confidence_threshold(sure_of(confidence, ~right), 0.02) is None
    assert (
        calibration.confidence_threshold(sure_of(confidence[:49], right[:49]), 0.5) is None
    )  # too few


def test_equal_confidences_are_taken_together():
    confidence = np.repeat([0.9, 0.7], 50)
    right = np.ones(100, bool)
    right[[10, 11]] = False  # 2 of the 50 at 0.9
    assert calibration.confidence_threshold(sure_of(confidence, right), 0.03) == pytest.approx(0.7)
    right[[60, 61]] = False
    assert calibration.confidence_threshold(sure_of(confidence, right), 0.02) is None


def test_a_guarantee_takes_149_images_without_an_error_for_2_percent():
    confidence = np.linspace(0.999, 0.6, 160)
    right = np.ones(160, bool)
    few = sure_of(confidence[:148], right[:148])
    assert calibration.confidence_threshold(few, 0.02, guarantee=True) is None
    enough = calibration.confidence_threshold(sure_of(confidence, right), 0.02, guarantee=True)
    assert enough == pytest.approx(confidence[159])
    right[100] = False
    assert calibration.confidence_threshold(sure_of(confidence, right), 0.02, True) is None


def test_a_temperature_that_does_not_help_on_other_images_is_not_used():
    """Of networks whose confidence is true, most get none."""
    fitted = [calibration.fit(predicted(60, 1.0)) for _ in range(40)]
    assert np.mean([temperature == 1.0 for temperature in fitted]) > 0.5


def test_chance_holds_networks_whose_confidence_is_true():
    errors = [calibration.error(predicted(100, 1.0)) for _ in range(60)]
    held = [error.chance_low <= error.value <= error.chance_high for error in errors]
    assert np.mean(held) > 0.85
