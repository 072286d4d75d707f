"""Every trial replayed by the package's own calibration and sets, on the split that it drew."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from racer_jax import (
    abstains,
    avoidably_missed,
    calibrate,
    critical_scores,
    gap,
    misrouted,
    prediction_sets,
    set_size,
    tie_break,
)
from racer_jax.steps import pool_steps
from racer_jax.trials import split_masks, split_trials, stream_trials

ALPHAS = [0.01, 0.1, 0.3, 0.5, 0.9]


def example(total, num_models, levels, null, broken, seed=0):
    rng = np.random.default_rng(seed)
    scores = np.round(rng.random((total, num_models)) * levels) / levels
    correct = jnp.asarray(rng.random((total, num_models)) < 0.6 * scores)
    nonconformity = gap(jnp.asarray(scores, jnp.float32), null)
    return nonconformity, correct, tie_break(jax.random.key(seed), nonconformity.shape) if broken else None


@pytest.mark.parametrize(("null", "levels", "broken"), [("paper", 5, False), ("free", 5, True), ("never", 1000, False)])
def test_replay(null, levels, broken):
    total, num, num_trials = 61, 29, 10
    nonconformity, correct, tie = example(total, 3, levels, null, broken)
    cost = np.random.default_rng(1).random((total, 4))
    key = jax.random.key(3)
    pool = pool_steps(nonconformity, correct, tie, metrics={"cost": cost})
    trials = split_trials(key, pool, num_calibration=num, alpha=ALPHAS, num_trials=num_trials)
    masks = split_masks(key, np.arange(num_trials), num_calibration=num, num_queries=total)
    for i, mask in enumerate(np.asarray(masks)):
        assert mask.sum() == num
        inside, test = np.asarray(pool.order)[mask], np.asarray(pool.order)[~mask]
        ties = (None, None) if tie is None else (tie[inside], tie[test])
        threshold = calibrate(critical_scores(nonconformity[inside], correct[inside], ties[0]), ALPHAS)
        sets = jax.vmap(lambda at, t=test, u=ties[1]: prediction_sets(nonconformity[t], at, u))(threshold)
        answers = jnp.broadcast_to(correct[test], (len(ALPHAS), *correct[test].shape))
        jax.tree.map(np.testing.assert_array_equal, jax.tree.map(lambda x, i=i: x[i], trials.threshold), threshold)
        for got, each in (
            (trials.risk, misrouted(sets, answers)),
            (trials.size, set_size(sets)),
            (trials.abstention, abstains(sets)),
            (trials.avoidable_miss, avoidably_missed(sets, answers)),
            (trials.extra["cost"], np.stack([cost[test, size] for size in np.asarray(set_size(sets))])),
        ):
            np.testing.assert_allclose(got[i], np.asarray(each, np.float64).mean(-1), rtol=1e-6)


def test_stream_equals_trials():
    pool = pool_steps(*example(61, 3, 1000, "paper", True))
    how = {"num_calibration": 29, "alpha": ALPHAS}
    trials = split_trials(jax.random.key(5), pool, num_trials=50, **how)
    done = []
    summary = stream_trials(jax.random.key(5), pool, num_trials=50, chunk_size=16, progress=done.append, **how)
    assert sum(done) == 50
    for name in ("risk", "size", "abstention", "avoidable_miss"):
        values = np.asarray(getattr(trials, name), np.float64)
        np.testing.assert_allclose(summary[name].mean, values.mean(0), rtol=1e-6)
        np.testing.assert_allclose(summary[name].std, values.std(0, ddof=1), rtol=1e-5, atol=1e-8)
        assert (summary[name].histogram.sum(axis=1) == 50).all()
