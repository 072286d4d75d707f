"""The law of all patterns of right and wrong: its largest pool, and its formula on small ones."""

import numpy as np
import pytest

from racer_jax.orders import joint_laws
from racer_jax.orders.joint_laws import MAX_TILTED, pattern_law


def by_counting(rows, smoothing):
    """(count + smoothing * product of accuracies) / (n + smoothing), pattern by pattern."""
    num, num_models = rows.shape
    accuracy = np.clip(rows.mean(axis=0), 0.005, 0.995)
    law = []
    for number in range(2**num_models):
        pattern = np.array([number >> m & 1 for m in range(num_models)])
        count = (rows == pattern).all(axis=1).sum()
        product = np.where(pattern == 1, accuracy, 1 - accuracy).prod()
        law.append((count + smoothing * product) / (num + smoothing))
    return law


@pytest.mark.parametrize("num_models", [1, 2, 3])
def test_the_law_is_that_of_counting(num_models):
    rows = (np.random.default_rng(num_models).random((9, num_models)) < 0.6).astype(int)
    rows[:, 0] = 1  # an accuracy of 1 is clipped
    for smoothing in (0.5, 50.0):
        law = pattern_law(rows, smoothing)
        np.testing.assert_allclose(law.probability, by_counting(rows, smoothing), rtol=1e-5)
    np.testing.assert_array_equal(pattern_law(rows).probability, law.probability)
    assert law.patterns.tolist()[1] == [1.0] + [0.0] * (num_models - 1)


def test_the_largest_pool_is_listed_and_one_more_is_not(monkeypatch):
    law = pattern_law(np.ones((2, MAX_TILTED), int))
    assert law.probability.shape == (2**12,)
    assert float(law.probability.sum()) == pytest.approx(1, abs=1e-5)
    with pytest.raises(ValueError, match="correct must have at most 12 models"):
        pattern_law(np.ones((2, 13), int))
    monkeypatch.setattr(joint_laws, "MAX_TILTED", 2)
    assert pattern_law(np.ones((2, 2), int)).patterns.shape == (4, 2)
    with pytest.raises(ValueError, match="correct must have at most 2 models"):
        pattern_law(np.ones((2, 3), int))


@pytest.mark.parametrize("smoothing", [0.0, -1.0, np.inf, np.nan])
def test_a_smoothing_that_is_none_is_refused(smoothing):
    with pytest.raises(ValueError, match="smoothing must be positive and finite"):
        pattern_law(np.ones((2, 2), int), smoothing)
