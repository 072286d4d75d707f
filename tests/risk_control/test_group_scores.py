"""Thresholds of sorted critical scores, on the host, against the core's under one mask a group."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from racer_jax import calibrate, tie_break
from racer_jax.core.calibration import threshold_at_budget
from racer_jax.core.nonconformity import TieBroken
from racer_jax.risk_control.group_scores import GroupedScores, group_codes, group_scores
from racer_jax.risk_control.high_probability import calibrate_with_probability

ALPHAS = ["0.01", "0.05", "0.1", "0.29", "0.5", "0.99"]
NAMES = ["a"] * 60 + ["b"] * 35 + ["c"] * 5


def scores(dtype, broken):
    rng = np.random.default_rng(0)
    value = rng.choice(np.array([-np.inf, -0.0, 0.0, 0.5, 0.7, np.inf], dtype), len(NAMES))
    tie = np.asarray(tie_break(jax.random.key(0), value.shape))
    groups = rng.permutation(NAMES).tolist()
    return (TieBroken(value, tie) if broken else value), groups


def leaves(threshold):
    return [np.asarray(x) for x in jax.tree.leaves(threshold)]


@pytest.mark.long
@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@pytest.mark.parametrize("broken", [False, True])
@pytest.mark.parametrize("delta", [None, 0.2])
def test_thresholds_are_those_of_the_core_under_masks(dtype, broken, delta):
    critical, groups = scores(dtype, broken)
    ordered = group_scores(critical, groups)
    assert ordered.num_queries.sum() == len(NAMES)
    value, tie = ordered.thresholds(ALPHAS, delta)
    assert value.dtype == dtype
    masks = np.array([np.array(groups) == name for name in ordered.groups])
    on_device = jax.tree.map(jnp.asarray, critical)
    if delta is None:
        expected = calibrate(on_device, ALPHAS, mask=masks)
    else:
        expected = threshold_at_budget(on_device, ordered.budgets(ALPHAS, delta), masks)
    for actual, reference in zip(
        [value, *([tie] if broken else [])], leaves(expected), strict=True
    ):
        np.testing.assert_array_equal(actual, reference)
    whole = ordered.pooled()
    assert whole.groups is None
    plain = calibrate if delta is None else lambda c, a: calibrate_with_probability(c, a, delta)
    single = [x[0] for x in whole.thresholds(ALPHAS, delta) if x is not None]
    for actual, reference in zip(single, leaves(plain(on_device, ALPHAS)), strict=True):
        np.testing.assert_array_equal(actual, reference)


@pytest.mark.parametrize("broken", [False, True])
def test_a_group_too_small_gets_what_the_fallback_says(broken):
    critical, groups = scores(np.float32, broken)
    ordered = group_scores(critical, groups, names="abc")
    assert ordered.groups == ("a", "b", "c")
    small = ordered.budgets(ALPHAS) < 0
    assert small[2].tolist() == [True, True, True, False, False, False]
    for fallback in ("all", "pooled"):
        value, tie = ordered.thresholds(ALPHAS, fallback=fallback)
        pooled, pooled_tie = ordered.pooled().thresholds(ALPHAS)
        expected = np.where(small, pooled if fallback == "pooled" else np.inf, value)
        np.testing.assert_array_equal(value, expected)
        if broken:
            edge = pooled_tie if fallback == "pooled" else np.uint32(2**32 - 1)
            np.testing.assert_array_equal(tie, np.where(small, edge, tie))


def test_budgets_run_from_none_to_all_and_beyond():
    critical = np.float32([3, 1, 2, 5, 4])
    ordered = group_scores(TieBroken(critical, np.arange(5, dtype=np.uint32)), list("aabba"))
    value, tie = ordered.at_budgets(np.tile([-1, 0, 1, 2, 9], (2, 1)))
    assert value.tolist() == [[np.inf, 4, 3, 1, -np.inf], [np.inf, 5, 2, -np.inf, -np.inf]]
    assert tie.tolist() == [[2**32 - 1, 4, 0, 1, 0], [2**32 - 1, 3, 2, 0, 0]]
    empty = group_scores(critical, list("aaaaa"), names=["a", "b"])
    assert empty.num_queries.tolist() == [5, 0]
    assert empty.thresholds(["0.5"])[0].tolist() == [[3], [np.inf]]
    assert empty.thresholds(["0.5"], fallback="pooled")[0].tolist() == [[3], [3]]


def test_names_that_calibration_did_not_see_come_after_the_last():
    ordered = group_scores(np.float32([1, 2]), ["a", "b"])
    assert ordered.place(["b", None, "c", "a"]).tolist() == [1, 2, 2, 0]
    assert group_codes(["x"], ()).tolist() == [0]
    assert isinstance(ordered, GroupedScores)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: group_scores(np.zeros((2, 2)), None), ValueError, "must have shape [n]"),
        (lambda: group_scores(np.zeros(0), None), ValueError, "n >= 1"),
        (lambda: group_scores(np.zeros(2, int), None), TypeError, "must be floating"),
        (lambda: group_scores(np.float32([np.nan]), None), ValueError, "must not be NaN"),
        (lambda: group_scores(np.zeros(2), "ab"), TypeError, "the one string 'ab'"),
        (lambda: group_scores(np.zeros(2), ["a"]), ValueError, "each of the 2 queries, got 1"),
        (
            lambda: group_scores(np.zeros(2), ["a", "b"], names=["a"]),
            ValueError,
            "groups must be among the names ('a',), got 'b'",
        ),
        (
            lambda: jax.jit(lambda c: group_scores(c, None).value)(jnp.zeros(2)),
            TypeError,
            "call calibrate with one mask for each group",
        ),
    ],
)
def test_bad_input_is_named(call, error, message):
    with pytest.raises(error, match=re.escape(message)):
        call()
