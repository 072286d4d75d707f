"""Metrics as steps against sets made one query at a time, at every threshold."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from racer_jax import (
    abstains,
    avoidably_missed,
    critical_scores,
    gap,
    misrouted,
    prediction_sets,
    set_size,
    tie_break,
)
from racer_jax.core.nonconformity import TieBroken
from racer_jax.montecarlo.exact import pool_law
from racer_jax.montecarlo.replay import split_parts
from racer_jax.montecarlo.step_functions import METRICS, pool_steps
from racer_jax.montecarlo.trials import split_trials

SIZE, MODELS = 40, 3


def example(levels, null, broken):
    rng = np.random.default_rng(levels)
    scores = jnp.asarray(np.round(rng.random((SIZE, MODELS)) * levels) / levels, jnp.float32)
    nonconformity = gap(scores, null)
    return (
        nonconformity,
        rng.random((SIZE, MODELS)) < 0.4,
        tie_break(jax.random.key(0), (SIZE, 4)) if broken else None,
    )


def values_at(steps, position):
    """A metric of every query by position, from the definition of `Steps`."""
    value = steps.start.copy()
    for query, first, delta in zip(steps.query, steps.first, steps.delta, strict=True):
        value[query] += delta if first <= position else 0
    return value


@pytest.mark.long
@pytest.mark.parametrize(
    ("levels", "null", "broken"),
    [
        (4, "paper", False),
        (4, "paper", True),
        (4, "free", True),
        (1000, "never", False),
        (2, "never", True),
    ],
)
def test_every_metric_of_every_query_at_every_threshold(levels, null, broken):
    nonconformity, correct, tie = example(levels, null, broken)
    rng = np.random.default_rng(1)
    tables = {
        "cost": rng.normal(size=(SIZE, MODELS + 1)) * 1e-3,  # dollars of the first models called
        "verified": np.cumprod(rng.random((SIZE, MODELS + 1)) < 0.7, axis=1).astype(float),
        # an answer that turns right and wrong again: +1, 0, -1
        "vote": rng.integers(0, 2, (SIZE, MODELS + 1)),
    }
    pool = pool_steps(nonconformity, correct, tie, strict_risk=True, metrics=tables)
    order, rows = pool.order, np.arange(SIZE)
    answers = jnp.asarray(correct)[order]
    critical = critical_scores(nonconformity, correct, tie)
    for position in range(SIZE + 1):
        at = jax.tree.map(lambda x, p=position: x[p], pool.threshold)
        sets = prediction_sets(nonconformity[order], at, None if tie is None else tie[order])
        size = np.asarray(set_size(sets))
        expected = {
            "risk": misrouted(sets, answers),
            "size": size,
            "abstention": abstains(sets),
            "avoidable_miss": avoidably_missed(sets, answers),
            "strict_risk": ~(np.asarray(sets)[:, :-1] & np.asarray(answers)).any(axis=1),
            **{name: table[order][rows, size] for name, table in tables.items()},
        }
        for name, value in expected.items():
            np.testing.assert_allclose(
                values_at(pool.metrics[name], position), np.asarray(value, float), atol=1e-12
            )
        assert pool.covered[position] == SIZE - np.asarray(misrouted(sets, answers)).sum()
    in_order = jax.tree.map(lambda x: x[order], critical)
    value = in_order.value if isinstance(in_order, TieBroken) else in_order
    threshold = pool.threshold.value if broken else pool.threshold
    np.testing.assert_array_equal(threshold, [*np.asarray(value).tolist(), np.inf])
    for name, steps in pool.metrics.items():
        assert (np.diff(steps.first) >= 0).all()
        assert steps.delta.all(), name
        if name != "cost":
            assert (steps.delta == np.rint(steps.delta)).all(), name
        after = [
            values_at(steps, position)[query]
            for query, position in zip(steps.query, steps.first, strict=True)
        ]
        # of several steps of a query at one position, the last
        last = np.append(np.diff(steps.first) > 0, True)
        np.testing.assert_allclose(steps.value[last], np.array(after)[last], atol=1e-12)


@pytest.mark.long
def test_strict_risk_is_one_less_the_share_answered():
    """In trials and in the law alike: avoidable misses and the queries that no model answers."""
    nonconformity, correct, tie = example(4, "paper", True)
    pool = pool_steps(nonconformity, correct, tie, strict_risk=True)
    design = {"num_calibration": 25, "alpha": [0.1, 0.4]}
    trials, law = (
        split_trials(jax.random.key(1), pool, num_trials=40, **design),
        pool_law(pool, **design),
    )
    parts = split_parts(jax.random.key(1), np.arange(40), pool, num_calibration=25)
    none_right = np.stack([~correct[part == 2].any(axis=1) for part in parts]).mean(axis=1)
    np.testing.assert_allclose(
        trials.extra["strict_risk"], trials.avoidable_miss + none_right[:, None], atol=1e-6
    )
    expected = law.avoidable_miss_mean + (~correct.any(axis=1)).mean()
    np.testing.assert_allclose(law.extra_mean["strict_risk"], expected, rtol=1e-12)


def test_dollars_are_added_in_double_precision():
    """A million splits of micro-dollars beside one dear query.

    Float32 sums would lose the small ones.
    """
    nonconformity, correct, _ = example(1000, "paper", False)
    cost = np.cumsum(np.full((SIZE, MODELS + 1), 1e-9), axis=1)
    cost[0] += 1.0
    law = pool_law(
        pool_steps(nonconformity, correct, metrics={"cost": cost}),
        num_calibration=20,
        alpha=[1e-9, 0.5],
    )
    # At an infeasible alpha every model is called: the mean over splits is the mean of the pool.
    np.testing.assert_allclose(law.extra_mean["cost"][0], cost[:, -1].mean(), rtol=1e-14)


def test_only_some_metrics():
    nonconformity, correct, tie = example(4, "paper", True)
    pool = pool_steps(nonconformity, correct, tie)
    few = pool.only("size", "risk")
    assert list(few.metrics) == ["risk", "size"]
    whole, law = (pool_law(p, num_calibration=20, alpha=[0.1, 0.5]) for p in (pool, few))
    np.testing.assert_array_equal(law.size_mean, whole.size_mean)
    np.testing.assert_array_equal(law.risk_std, whole.risk_std)
    assert law.abstention_mean is None
    assert set(whole.mixture) == set(METRICS)
    for names in ((), ("dollars",)):
        with pytest.raises(ValueError, match="names must be some of the pool's metrics"):
            pool.only(*names)


def test_bad_input():
    nonconformity, correct, tie = example(4, "paper", True)
    for arguments, how, error, message in [
        (
            (nonconformity, correct[:, :2]),
            {},
            ValueError,
            r"shape \[N, m \+ 1\] where correct has \[N, m\]",
        ),
        (
            (nonconformity[0], correct[0]),
            {},
            ValueError,
            r"shape \[N, m \+ 1\] where correct has \[N, m\]",
        ),
        ((nonconformity[:5], correct), {}, ValueError, "of the same N >= 1 queries"),
        (
            (nonconformity.at[0, 0].set(jnp.nan), correct),
            {},
            ValueError,
            "nonconformity must not be NaN",
        ),
        ((nonconformity, correct * 2), {}, ValueError, "correct must be 0/1"),
        ((nonconformity, correct, tie[:3]), {}, ValueError, "tie_break must have shape"),
        (
            (nonconformity, correct),
            {"metrics": {"risk": correct}},
            ValueError,
            "the name 'risk' is taken",
        ),
        (
            (nonconformity, correct),
            {"strict_risk": True, "metrics": {"strict_risk": correct}},
            ValueError,
            "the name 'strict_risk' is taken",
        ),
        (
            (nonconformity, correct),
            {"metrics": {"cost": correct}},
            ValueError,
            r"must have shape \[N, m \+ 1\]",
        ),
        (
            (nonconformity, correct),
            {"metrics": {"cost": np.full((SIZE, 4), np.inf)}},
            ValueError,
            "must be finite, got inf",
        ),
    ]:
        with pytest.raises(error, match=message):
            pool_steps(*arguments, **how)
    with pytest.raises(TypeError, match="cannot be traced"):
        jax.jit(lambda e: pool_steps(e, correct).order)(nonconformity)


@pytest.mark.parametrize("bit", [0, 15, 16, 31])
def test_every_bit_of_a_tie_break_counts(bit):
    """Two queries whose critical scores tie and whose second keys differ in one bit."""
    nonconformity = np.zeros((2, 2), np.float32)
    tie = jnp.asarray([[1 << bit, 0xFFFFFFFF], [0, 0xFFFFFFFF]], jnp.uint32)
    pool = pool_steps(nonconformity, np.ones((2, 1), bool), tie)
    assert pool.order.tolist() == [1, 0]
    assert pool.distinct
    assert pool.threshold.tie.tolist() == [0, 1 << bit, 0xFFFFFFFF]
