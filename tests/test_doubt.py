"""When an answer is not to be taken, of images whose confidences and features are known."""

import numpy as np
import pytest

from transfer.evidence.calibration import Said
from transfer.model import doubt

RNG = np.random.default_rng(0)


def said(confidence, right) -> Said:
    confidence, right = np.array(confidence), np.array(right)
    names = np.array([f"a/{i}" for i in range(len(right))])
    return Said(names, np.where(right, 0, 1), np.stack([confidence, 1 - confidence], 1))


def test_an_answer_is_taken_from_the_lowest_confidence_that_keeps_the_risk():
    confidence = np.linspace(0.999, 0.6, 100)
    right = np.ones(100, bool)
    right[[40, 60, 61, 62]] = False  # from the surest
    assert doubt.sure(said(confidence, right), 0.0) == pytest.approx(confidence[39])
    assert doubt.sure(said(confidence, right), 0.02) == pytest.approx(confidence[59])
    assert doubt.sure(said(confidence, right), 0.04) == pytest.approx(confidence[99])
    assert doubt.sure(said(confidence, ~right), 0.02) is None
    assert doubt.sure(said(confidence[:49], right[:49]), 0.5) is None  # too few


def test_equal_confidences_are_taken_together():
    confidence = np.repeat([0.9, 0.7], 50)
    right = np.ones(100, bool)
    right[[10, 11]] = False  # 2 of the 50 at 0.9
    assert doubt.sure(said(confidence, right), 0.03) == pytest.approx(0.7)
    right[[60, 61]] = False
    assert doubt.sure(said(confidence, right), 0.02) is None


def test_distances_are_those_to_the_fifth_nearest():
    features, own = RNG.normal(size=(6, 8)), RNG.normal(size=(30, 8))
    unit = [rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (features, own)]
    for column, (rows, others) in enumerate([(features, own), unit]):
        apart = np.linalg.norm(rows[:, None] - others[None], axis=2)
        found = doubt.distances(features, own)[:, column]
        np.testing.assert_allclose(found, np.sort(apart)[:, 4], atol=1e-9)
        found = doubt.distances(features, own[:2])[:, column]
        np.testing.assert_allclose(found, apart[:, :2].max(1), atol=1e-9)


def test_at_most_a_twentieth_of_its_own_kind_count_as_strangers():
    shares = []
    for _ in range(300):
        held, others = RNG.gamma(2, size=(80, 2)), RNG.gamma(2, size=(400, 2))
        shares.append((others > doubt.far(held)).any(1).mean())
    assert 0.03 < np.mean(shares) < 0.052
    rising = np.stack([np.arange(39.0), -np.arange(39.0)], 1)
    assert doubt.far(rising[1:]) is None and doubt.far(rising) == [38, 0]


def test_so_many_features_are_kept_and_always_the_same():
    features = RNG.normal(size=(doubt.MOST + 5, 3)).astype(np.float32)
    kept = doubt.some(features)
    assert len(kept) == doubt.MOST and kept.dtype == np.float16
    assert np.array_equal(kept, doubt.some(features))
    assert np.array_equal(doubt.some(features[:9]), features[:9].astype(np.float16))
