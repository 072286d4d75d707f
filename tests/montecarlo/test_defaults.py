"""Another default changes the splits and summaries of programs that name no option."""

import pytest

from racer_jax.montecarlo.bound_check import check_bounds
from racer_jax.montecarlo.exact import pool_law, split_law
from racer_jax.montecarlo.packed_bits import packing_order
from racer_jax.montecarlo.split_design import split_design
from racer_jax.montecarlo.step_functions import pool_steps
from racer_jax.montecarlo.trials import _Stream, split_trials, stream_trials
from racer_jax.montecarlo.tuning import Selections, select, vote_tables
from tests.defaults import defaults

LEVELS = {"alpha": None, "budget": None}


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (check_bounds, {"num_validation": 0}),
        (pool_law, LEVELS),
        (split_law, LEVELS | {"tie_break": None, "metrics": None}),
        (packing_order, {"num_kinds": 1, "kind": 0}),
        (split_design, {"num_validation": 0, "group": None, "question": None}),
        (pool_steps, {"tie_break": None, "strict_risk": False, "metrics": None}),
        (split_trials, LEVELS | {"first_trial": 0, "devices": None}),
        (stream_trials, LEVELS | {"first_trial": 0, "devices": None, "progress": None}),
        (Selections.mean, {"part": 2}),
        (select, LEVELS | {"tolerance": 1.0, "pooled_vote": False}),
    ],
)
def test_of(function, expected):
    assert defaults(function) == expected


def test_of_a_stream():
    assert _Stream() == (None, 200, None, 30.0, None)


def test_temperatures_of_the_votes():
    options = defaults(vote_tables)
    assert options.pop("temperatures")[::11] == (0.01, 10.0)
    assert options == {"tie_break": None, "confidence": None}
