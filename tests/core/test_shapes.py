"""The core takes one query as well as many, and names a shape that it cannot take."""

import jax
import numpy as np
import pytest

from racer_jax import abstains, avoidably_missed, critical_scores, misrouted, set_size
from racer_jax.core.calibration import calibrate, threshold_at_budget

SETS, RIGHT = np.array([True, False, False]), np.array([False, True])


def test_one_query_without_an_axis_of_queries():
    assert bool(misrouted(SETS, RIGHT))
    assert bool(avoidably_missed(SETS, RIGHT))
    assert not bool(abstains(SETS))
    assert int(set_size(SETS)) == 1
    assert float(critical_scores(np.float32([0.5, 0.25, 0.125]), RIGHT)) == 0.25


@pytest.mark.parametrize("correct", [RIGHT[:1], np.array([True] * 3), np.array(True)])
def test_labels_of_another_number_of_models(correct):
    for measure in (misrouted, avoidably_missed):
        with pytest.raises(ValueError, match="correct"):
            measure(SETS, correct)
    with pytest.raises(ValueError, match="correct"):
        critical_scores(np.float32([0.5, 0.25, 0.125]), correct)


def test_a_mask_of_another_number_of_queries():
    critical = np.float32([0.1, 0.2, 0.3, 0.4])
    for mask in (np.ones(3, bool), np.ones((4, 3), bool), np.array(True)):
        with pytest.raises(ValueError, match="mask"):
            calibrate(critical, 0.3, mask)


@pytest.mark.long
def test_masks_of_several_splits_and_a_level_that_no_threshold_keeps():
    critical = np.float32([0.1, 0.2, 0.3, 0.4])
    masks = np.array([[True, True, True, False], [False, True, True, True], [True] * 4])
    # floor(0.3 (n + 1)) - 1 misses are allowed: none of three queries, and none of four.
    assert calibrate(critical, 0.3, masks).tolist() == np.float32([0.3, 0.4, 0.4]).tolist()
    assert calibrate(critical, 0.1).tolist() == np.inf
    assert calibrate(critical, 0.1, masks).tolist() == [np.inf] * 3
    levels = calibrate(critical, [0.1, 0.3, 0.5])
    assert levels.tolist() == [np.inf, *np.float32([0.4, 0.3]).tolist()]
    misses = np.array([-5, -1, 0, 3, 4, 9])
    budgets = threshold_at_budget(critical, misses)
    traced = jax.jit(lambda misses: threshold_at_budget(critical, misses))(misses)
    assert traced.tolist() == budgets.tolist()
    assert budgets[:4].tolist() == [np.inf, np.inf, *np.float32([0.4, 0.1]).tolist()]
    assert (budgets[4:] < 0.1).all()


def test_a_batch_of_pools_is_one_pool_after_the_other():
    rng = np.random.default_rng(0)
    entries = (rng.integers(0, 3, (2, 6, 4)) / 2).astype(np.float32)
    correct = rng.random((2, 6, 3)) < 0.4
    ties = rng.integers(0, 4, entries.shape).astype(np.uint32)
    batch = jax.jit(critical_scores)(entries, correct, ties)
    for pool in range(2):
        for i in range(6):
            right = [*correct[pool, i], not correct[pool, i].any()]
            pairs = zip(entries[pool, i].tolist(), ties[pool, i].tolist(), right, strict=True)
            smallest = min((value, tie) for value, tie, is_true in pairs if is_true)
            assert (float(batch.value[pool, i]), int(batch.tie[pool, i])) == smallest
