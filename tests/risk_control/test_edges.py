"""Models that are always called, weights that float32 cannot add up, thresholds on a grid."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from racer_jax import prediction_sets
from racer_jax.risk_control.costs import calibrate_budget, call_at_least
from racer_jax.risk_control.selective import calibrate_selective
from racer_jax.risk_control.vote_path import path_states


def test_a_budget_counts_the_models_that_are_always_called():
    entries = np.random.default_rng(0).random((200, 4)).astype(np.float32)
    always = call_at_least(entries, 1)
    with pytest.raises(ValueError, match=r"budget must be at least 1\.01, what the models cost"):
        calibrate_budget(always, [1.0, 1.0, 1.0], 0.5)
    at = calibrate_budget(always, [1.0, 1.0, 1.0], 1.5)
    size = np.asarray(prediction_sets(always, at.threshold))[:, :-1].sum(axis=1).mean()
    assert at.mean_cost == pytest.approx(size)
    none = calibrate_budget(entries, [1.0, 1.0, 1.0], 0.01)
    assert (none.threshold, none.mean_cost) == (-np.inf, 0.0)


@pytest.mark.parametrize("weights", [[0.2, 0.8, 0.9, 0.3, 0.3], [0.1, 0.2, 0.3, 0.7, 0.1]])
def test_a_vote_is_decided_where_no_answer_changes_it_also_with_decimals(weights):
    answers = np.array(list(itertools.product([0, 1, 2, -1], repeat=5)))
    states = path_states(answers, jnp.array(weights))
    leader, is_decided = np.asarray(states.leader), np.asarray(states.is_decided)
    assert (is_decided <= (leader == leader[:, -1:])).all()
    assert (is_decided[:, -1] == (answers >= 0).any(axis=1)).all()
    # The same weights in whole numbers add up exactly: what differs are ties.
    exact = np.asarray(path_states(answers, jnp.rint(10 * jnp.array(weights))).is_decided)
    assert (is_decided <= exact).all()
    assert (exact & ~is_decided).sum() < 0.1 * exact.sum()


def test_a_threshold_of_the_grid_answers_what_it_was_certified_for():
    entries = np.tile(np.float32([[0.1, -np.inf]]), (100, 1))
    with jax.enable_x64(True):
        result = calibrate_selective(entries, np.ones((100, 1)), [0.1, 0.5], 0.1, 0.05)
        sets = prediction_sets(entries, result.threshold)
    assert sets[:, 0].mean() == result.answered == 1
