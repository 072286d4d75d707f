"""The order in which votes are decided soonest, against all orders there are."""

from itertools import permutations

import jax
import numpy as np
import pytest

from racer_jax.core.aggregation import answer_codes
from racer_jax.risk_control.vote_path import path_states
from racer_jax.sequential.decided_order import MOST_MODELS, decided_order
from racer_jax.sequential.policy import batch_ends, batch_last, fit_policy
from racer_jax.sequential.replay import replay
from tests.sequential.pools import answered_table

WEIGHTS = np.array([1.0, 2.25, 1.53125, 1.765625, 0.46875])  # no sums of them are equal


def mean_cost(codes, weights, order, price, batches=None):
    """What stopping on decided votes costs, one query and one call at a time."""
    ends = np.flatnonzero(batch_ends(batches, len(order)))
    total = 0.0
    for row, prices in zip(codes.tolist(), price.tolist(), strict=True):
        for end in ends.tolist():
            sums = {}
            for m in order[: end + 1]:
                if row[m] >= 0:
                    sums[row[m]] = sums.get(row[m], 0.0) + weights[m]
            first, second = sorted([0.0, 0.0, *sums.values()])[::-1][:2]
            if first - second > sum(weights[m] for m in order[end + 1 :]):
                break
        total += sum(prices[m] for m in order[: end + 1])
    return total / len(codes)


@pytest.mark.parametrize("batches", [None, (2,), (2, 2)])
@pytest.mark.parametrize("in_dollars", [False, True])
def test_no_order_decides_sooner(batches, in_dollars):
    codes = answer_codes(answered_table(40, seed=3).answers)
    # Dear queries decide the mean, the last of them too.
    cost = np.random.default_rng(0).lognormal(0, 3, codes.shape)
    price = cost if in_dollars else np.ones(codes.shape)
    order = decided_order(codes, WEIGHTS, cost if in_dollars else None, batches)
    least = min(mean_cost(codes, WEIGHTS, o, price, batches) for o in permutations(range(5)))
    assert sorted(order) == list(range(5))
    assert mean_cost(codes, WEIGHTS, order, price, batches) == pytest.approx(least, rel=1e-9)


def test_the_cost_of_an_order_is_that_of_its_paths():
    codes = answer_codes(answered_table(40, seed=3).answers)
    order = [1, 3, 2, 0, 4]
    is_decided = np.array(
        path_states(codes[:, order], WEIGHTS[order].astype(np.float32)).is_decided
    )
    is_decided[:, -1] = True
    calls = is_decided.argmax(axis=1) + 1
    assert mean_cost(codes, WEIGHTS, order, np.ones(codes.shape)) == pytest.approx(calls.mean())


def test_models_without_weight_come_last_and_too_many_with_weight_are_not_searched():
    codes = np.zeros((3, 4), int)
    assert decided_order(codes, np.array([0.0, 1.0, 0.0, 3.0]))[0] == 3
    assert decided_order(codes, np.array([0.0, 1.0, 0.0, 3.0]))[2:] == (0, 2)
    assert decided_order(codes, np.zeros(4)) is None
    many = MOST_MODELS + 1
    assert decided_order(np.zeros((2, many), int), np.ones(many)) is None


@pytest.mark.long
@pytest.mark.parametrize("options", [{}, {"objective": "dollars"}, {"batches": (2, 2)}])
def test_a_policy_for_decided_votes_alone_has_the_best_order(options):
    table = answered_table(200, seed=1)
    costs = {}
    for alpha in (None, 0):
        policy = fit_policy(jax.random.key(0), table, reference="vote", alpha=alpha, **options)
        paths = replay(policy, table)
        stop = (np.asarray(paths.scores("regret")) == np.inf).argmax(axis=1)
        last = batch_last(policy.ends)
        dollars = np.cumsum(paths.cost, axis=1)[np.arange(200), last[stop]].mean()
        costs[alpha] = dollars if options.get("objective") == "dollars" else last[stop].mean()
    codes = answer_codes(table.answers)
    price = np.asarray(table.cost) if "objective" in options else np.ones(codes.shape)
    weights = dict(zip(policy.order, policy.weights.tolist(), strict=True))
    least = min(
        mean_cost(codes, weights, order, price, options.get("batches"))
        for order in permutations(range(5))
    )
    spent = costs[0] if "objective" in options else costs[0] + 1
    assert costs[0] <= costs[None]
    assert spent <= least + 1e-9  # the reference loop counts a tie as open


def test_a_bool_is_no_level():
    with pytest.raises((TypeError, ValueError), match="alpha"):
        fit_policy(jax.random.key(0), answered_table(40), alpha=False)
