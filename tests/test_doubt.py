"""How unlike others images are, by features that are known."""

import numpy as np

from transfer.model import doubt

RNG = np.random.default_rng(0)


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
