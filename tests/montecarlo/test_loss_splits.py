"""Bounded losses over splits: against one calibration and one set after the other."""

from itertools import combinations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from racer_jax.core.loss_calibration import calibrate_loss
from racer_jax.core.losses import grade_loss, loss_at
from racer_jax.core.nonconformity import TieBroken, inverse_probability, tie_break
from racer_jax.core.prediction_sets import abstains, prediction_sets, set_size
from racer_jax.montecarlo.loss_splits import exact_loss_means, loss_trials
from racer_jax.montecarlo.replay import split_masks

pytestmark = pytest.mark.long

N, M, NUM = 9, 3, 5
LEVELS = ["0.1", "0.25", "0.5", "0.9"]


def pool(seed, null="paper", broken=True):
    rng = np.random.default_rng(seed)
    scores = jnp.asarray(rng.integers(0, 5, (N, M)) / 5, jnp.float32)
    entries = inverse_probability(scores, null)
    grades = rng.choice([0, 0.25, 0.5, 1], (N, M))
    ties = tie_break(jax.random.key(seed), entries.shape) if broken else None
    return entries, grades, ties


def one_by_one(entries, grades, ties, masks, against):
    """Test means of each split and level, from thresholds and sets."""
    loss = grade_loss(entries, grades, ties, against=against)
    results = np.zeros((3, len(masks), len(LEVELS)))
    for i, mask in enumerate(masks):
        thresholds = calibrate_loss(loss, LEVELS, mask)
        for j in range(len(LEVELS)):
            at = jax.tree.map(lambda x, j=j: x[j], thresholds)
            sets = prediction_sets(entries, at, ties)
            values = (loss_at(loss, at), set_size(sets), abstains(sets))
            results[:, i, j] = [np.asarray(value)[~mask].mean() for value in values]
    return results


def check(null, broken, against, masks, trials):
    entries, grades, ties = pool(4, null, broken)
    expected = one_by_one(entries, grades, ties, masks, against)
    for name, values in zip(("loss", "size", "abstention"), expected, strict=True):
        np.testing.assert_allclose(getattr(trials, name), values, atol=1e-6, err_msg=name)


def test_each_split_is_one_calibration():
    key = jax.random.key(3)
    entries, grades, ties = pool(4)
    loss = grade_loss(entries, grades, ties)
    trials = loss_trials(key, loss, LEVELS, num_calibration=NUM, num_trials=4)
    masks = np.asarray(split_masks(key, jnp.arange(4), num_calibration=NUM, num_queries=N))
    check("paper", True, "perfect", masks, trials)


@pytest.mark.long
@pytest.mark.parametrize("null", ["paper", "free", "never"])
@pytest.mark.parametrize("broken", [True, False])
@pytest.mark.parametrize("against", ["perfect", "pool"])
def test_each_split_is_one_calibration_in_every_mode(null, broken, against):
    key = jax.random.key(5)
    entries, grades, ties = pool(4, null, broken)
    loss = grade_loss(entries, grades, ties, against=against)
    trials = loss_trials(key, loss, LEVELS, num_calibration=NUM, num_trials=12)
    masks = np.asarray(split_masks(key, jnp.arange(12), num_calibration=NUM, num_queries=N))
    check(null, broken, against, masks, trials)
    reached = [
        [
            np.ravel(calibrate_loss(loss, a, m).value if broken else calibrate_loss(loss, a, m))[0]
            for a in LEVELS
        ]
        for m in masks
    ]
    np.testing.assert_array_equal(
        trials.reached | (null == "never"),
        np.isfinite(reached) | (np.array(reached) == -np.inf) | (null == "never"),
    )


def test_the_exact_means_are_those_of_every_split():
    entries, grades, ties = pool(4)
    loss = grade_loss(entries, grades, ties, against="pool")
    masks = np.zeros((126, N), bool)
    np.put_along_axis(masks, np.array(list(combinations(range(N), NUM))), True, axis=1)
    exact = exact_loss_means(loss, LEVELS, num_calibration=NUM)
    thresholds = calibrate_loss(loss, LEVELS, masks)
    assert isinstance(thresholds, TieBroken)
    for j, alpha in enumerate(LEVELS):
        at = jax.tree.map(lambda x, j=j: x[:, j, None], thresholds)
        lost = np.asarray(jax.vmap(loss_at, (None, 0))(loss, at))
        assert exact.loss[j] == pytest.approx(np.where(masks, 0, lost).sum() / (~masks).sum())
        assert exact.loss[j] <= float(alpha) + 1e-9


@pytest.mark.long
def test_trials_converge_to_the_exact_means():
    entries, grades, ties = pool(6)
    loss = grade_loss(entries, grades, ties)
    exact = exact_loss_means(loss, LEVELS, num_calibration=NUM)
    trials = loss_trials(jax.random.key(0), loss, LEVELS, num_calibration=NUM, num_trials=4000)
    for name in ("loss", "size", "abstention"):
        values = getattr(trials, name)
        error = values.std(axis=0, ddof=1) / np.sqrt(len(values))
        assert (np.abs(values.mean(axis=0) - getattr(exact, name)) <= 5 * error + 1e-9).all()


def test_too_many_splits_are_refused():
    entries = jnp.zeros((40, 3))
    loss = grade_loss(entries, np.ones((40, 2)))
    with pytest.raises(ValueError, match=r"1.38e\+11 splits, more than the 200,000"):
        exact_loss_means(loss, 0.1, num_calibration=20)
    with pytest.raises(ValueError, match="leaves at least one"):
        exact_loss_means(loss, 0.1, num_calibration=40)
