"""Metrics of a tile from counts that are known: totals, for means or not, misses known or not."""

import jax
import numpy as np
import pytest

from racer_jax.montecarlo.kernel import _draw, _metric_values
from racer_jax.montecarlo.packed_bits import BLOCK
from racer_jax.montecarlo.plan import Metric, Shape
from racer_jax.montecarlo.split_design import draw_parts, split_design

METRICS = (
    Metric("risk", (1.0,), (0,), (-1.0,), True),
    Metric("size", (0.0,), (1, 2), (1.0, 2.0), True),
    Metric("dollars", (0.25, 0.25), (2,), (0.25,), False),
)
COUNTS = np.arange(18, dtype=np.int32).reshape(3, 2, 3)  # planes, levels, trials
ROWS = np.array([20, 25, 40], np.int32)


@pytest.mark.parametrize("num_validation", [0, 4])
def test_parts_have_a_column_for_each_trial_whatever_the_groups(num_validation):
    group = np.arange(70) % 3
    design = split_design(np.arange(70), 30, num_validation, group)
    plan, keys = draw_parts(design), jax.ShapeDtypeStruct((2, 2, 3 * 5), np.uint32)
    calibration, parts = jax.eval_shape(_draw, plan, keys)
    assert list(parts) == ["test", "validation"][: 1 + (num_validation > 0)]
    for words in (calibration, *parts.values()):
        # a block of words for 70 queries
        assert (words.shape, words.dtype) == ((BLOCK // 32, 5), np.uint32)


@pytest.mark.parametrize("means", [False, True])
@pytest.mark.parametrize("is_known", [False, True])
def test_metrics_are_weighted_sums_of_counts(means, is_known):
    misses = np.full((2, 3), 7, np.int32) if is_known else None
    shape = Shape(METRICS, 1, is_known, means)
    values = _metric_values(shape, COUNTS, ROWS, misses)
    expected = {
        "risk": misses if is_known else ROWS - COUNTS[0],
        "size": COUNTS[1] + 2 * COUNTS[2],
        "dollars": 0.5 * ROWS + 0.25 * COUNTS[2],
    }
    assert list(values) == list(expected)
    for name, total in expected.items():
        value = np.asarray(values[name])
        assert value.shape == (2, 3)
        whole = name != "dollars" and not means
        assert value.dtype == (np.int32 if whole else np.float32)
        np.testing.assert_array_equal(value, total)
