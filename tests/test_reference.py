"""The whole package against the plain reference, split by split.

Same splits, same numbers, ties included.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import racer_jax as racer
from racer_jax import reference
from racer_jax.montecarlo.replay import split_masks
from racer_jax.montecarlo.step_functions import pool_steps
from racer_jax.montecarlo.trials import split_trials

ALPHAS = ["0.01", "0.05", "0.1", "0.29", "0.5", "0.77", "0.99"]
SCORES = {"gap": racer.gap, "inverse_probability": racer.inverse_probability}
METRICS = ("risk", "size", "abstention", "avoidable_miss")
NUM, NUM_CALIBRATION, NUM_TRIALS = 83, 40, 12


@pytest.mark.long
@pytest.mark.parametrize("null", ["paper", "free", "never"])
@pytest.mark.parametrize("broken", [False, True])
@pytest.mark.parametrize("name", SCORES)
def test_trials_equal_the_reference_for_every_split_and_alpha(name, broken, null):
    rng = np.random.default_rng(7)
    # 11 levels, as ten neighbours give
    scores = (rng.random((NUM, 4)) * 10).round().astype(np.float32) / 10
    correct = rng.random((NUM, 4)) < 0.6 * scores
    nonconformity = SCORES[name](scores, null)
    ties = racer.tie_break(jax.random.key(1), nonconformity.shape) if broken else None
    pool = pool_steps(nonconformity, correct, ties)
    key = jax.random.key(2)
    trials = split_trials(
        key, pool, num_calibration=NUM_CALIBRATION, alpha=ALPHAS, num_trials=NUM_TRIALS
    )
    positions = split_masks(
        key, jnp.arange(NUM_TRIALS), num_calibration=NUM_CALIBRATION, num_queries=NUM
    )
    threshold = trials.threshold.value if broken else trials.threshold
    for s in range(NUM_TRIALS):
        calibration = np.zeros(NUM, bool)
        calibration[np.asarray(pool.order)[np.asarray(positions[s])]] = True
        assert calibration.sum() == NUM_CALIBRATION
        for a, alpha in enumerate(ALPHAS):
            expected = reference.split_metrics(
                np.asarray(nonconformity), correct, calibration, alpha, ties
            )
            assert float(threshold[s, a]) == expected["threshold"]
            for metric in METRICS:
                assert float(getattr(trials, metric)[s, a]) == pytest.approx(
                    expected[metric], abs=1e-6
                )


@pytest.mark.long
@pytest.mark.parametrize("broken", [False, True])
def test_the_public_functions_equal_the_reference_on_a_split(broken):
    rng = np.random.default_rng(3)
    scores = (rng.random((30, 3)) * 4).round().astype(np.float32) / 4
    correct = rng.random((30, 3)) < 0.5
    mask = np.arange(30) < 17
    nonconformity = racer.gap(scores)
    ties = racer.tie_break(jax.random.key(1), nonconformity.shape) if broken else None
    threshold = racer.calibrate(
        racer.critical_scores(nonconformity, correct, ties), ALPHAS, mask=mask
    )
    sets = racer.prediction_sets(nonconformity, threshold, ties)[:, ~mask]
    actual = {
        "risk": racer.misrouted(sets, correct[~mask]),
        "size": racer.set_size(sets),
        "abstention": racer.abstains(sets),
        "avoidable_miss": racer.avoidably_missed(sets, correct[~mask]),
    }
    for a, alpha in enumerate(ALPHAS):
        expected = reference.split_metrics(np.asarray(nonconformity), correct, mask, alpha, ties)
        for metric in METRICS:
            assert float(actual[metric][a].mean()) == pytest.approx(expected[metric], abs=1e-6)


def test_reference_thresholds_obey_the_literal_inequality():
    rng = np.random.default_rng(5)
    critical = [(float(value), 0) for value in rng.integers(0, 6, 25)]
    for alpha in ALPHAS:
        limit = reference.threshold(critical, alpha)
        risks = {candidate: sum(c > candidate for c in critical) / 25 for candidate in critical}
        allowed = [
            c for c, risk in risks.items() if 25 / 26 * risk + 1 / 26 <= float(alpha) + 1e-12
        ]
        assert limit == (min(allowed) if allowed else (np.inf, np.inf))
