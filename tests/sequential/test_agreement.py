"""Weights and savings: what answers tell without labels, and what `train` says of them."""

import dataclasses

import jax
import numpy as np
import pytest

from racer_jax import RoutingTable
from racer_jax.core.aggregation import answer_codes
from racer_jax.sequential.agreement import agreement_weights, agrees_with_vote
from racer_jax.sequential.evaluation import _spread
from racer_jax.sequential.savings import Savings, estimated_savings
from racer_jax.sequential.weights import GRID, starting_weights
from tests.sequential.pools import SKILL, answered_table


def test_weights_follow_skill_without_a_label():
    table = answered_table(2000, seed=1)
    weights = agreement_weights(answer_codes(table.answers))
    assert weights.argmax() == np.argmax(SKILL)
    assert np.corrcoef(weights, SKILL)[0, 1] > 0.9
    assert (weights % GRID == 0).all()


def test_weights_are_a_fixed_point():
    """The chance of each answer from the weights, query by query, gives the weights again."""
    codes = answer_codes(answered_table(60, seed=2).answers)
    weights = agreement_weights(codes)
    agreed = np.zeros(5)
    for row in codes.tolist():
        present = sorted(set(row) - {-1})
        sums = np.array(
            [sum(w for w, a in zip(weights, row, strict=True) if a == c) for c in present]
        )
        chance = dict(zip(present, np.exp(sums) / np.exp(sums).sum(), strict=True))
        agreed += [chance.get(a, 0.0) for a in row]
    assert np.abs(starting_weights(agreed / 60) - weights).max() < 0.03


def test_who_agrees_and_who_never_answers():
    codes = np.array([[0, 1, 1, -1], [0, 0, 1, -1], [-1, -1, -1, -1]])
    weights = agreement_weights(codes)
    assert weights[3] == 0
    assert agrees_with_vote(codes, np.array([1.0, 1, 1, 0])).tolist() == [
        [False, True, True, False],
        [True, True, False, False],
        [False] * 4,
    ]


@pytest.mark.long
def test_savings_are_those_of_questions_that_were_not_learned_from():
    table = answered_table(400, seed=3)
    savings = estimated_savings(jax.random.key(0), table)
    assert (savings.num_models, savings.num_questions, savings.alpha) == (5, 200, "0.01")
    assert savings.calls < savings.decided_calls < 5
    assert abs(savings.full_accuracy - 0.82) < 0.1
    assert "calls, the same answers as all 5 (" in str(savings)
    assert savings == estimated_savings(jax.random.key(0), table)


def test_savings_of_tables_that_tell_nothing():
    table, key = answered_table(60), jax.random.key(0)
    bare = RoutingTable(table.ids, table.texts, table.models, table.correct)
    silent = RoutingTable(
        table.ids,
        table.texts,
        table.models,
        np.zeros((60, 5), bool),
        answers=np.full((60, 5), None),
    )
    for nothing in (bare, silent, table.select(slice(0, 30)), table.select(models=["small"])):
        assert estimated_savings(key, nothing) is None


def test_savings_in_words():
    savings = Savings(7, 400, "the full vote", 0.678, 3.2, "0.01", 2.83, 0.6778)
    assert "decided: 3.20 calls, the same answers as all 7 (67.8% right)." in str(savings)
    assert "Stop earlier: 2.83 calls, 67.8% right; at most 1% of the questions" in str(savings)
    alone = dataclasses.replace(savings, reference="small")
    assert "call small alone: 1 call, right as often as the vote of all 7" in str(alone)
    assert _spread(-0.0004, 0.01, 2, "+") == "+0.00 ± 0.01"
