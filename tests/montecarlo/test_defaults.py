"""Another default changes the splits and summaries of programs that name no option."""

import pytest

from racer_jax.montecarlo.bound_check import check_bounds
from racer_jax.montecarlo.exact import pool_law, split_law
from racer_jax.montecarlo.loss_check import check_losses, check_stops
from racer_jax.montecarlo.packed_bits import packing_order
from racer_jax.montecarlo.split_design import split_design
from racer_jax.montecarlo.step_functions import pool_steps
from racer_jax.montecarlo.trials import split_trials, stream_trials
from racer_jax.montecarlo.tuning import Selections, select, vote_tables
from tests.defaults import defaults

LEVELS = {"alpha": None, "budget": None}
STREAM = {"chunk_size": None, "bins": 200, "progress": None, "checkpoint": None, "save_every": 30.0}


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (check_bounds, {"num_validation": 0}),
        (pool_law, LEVELS),
        (split_law, LEVELS | {"tie_break": None, "metrics": None}),
        (check_losses, {"null": "paper", "tie_break": True, "matrix": None}),
        (check_stops, {}),
        (packing_order, {"num_kinds": 1, "kind": 0}),
        (split_design, {"num_validation": 0, "group": None, "question": None}),
        (pool_steps, {"tie_break": None, "strict_risk": False, "metrics": None}),
        (split_trials, LEVELS | {"first_trial": 0, "devices": None}),
        (stream_trials, LEVELS | STREAM | {"first_trial": 0, "devices": None, "size": None}),
        (Selections.mean, {"part": 2}),
        (select, LEVELS | {"tolerance": 1.0, "pooled_vote": False}),
    ],
)
def test_of(function, expected):
    assert defaults(function) == expected


def test_temperatures_of_the_votes():
    options = defaults(vote_tables)
    assert options.pop("temperatures")[::11] == (0.01, 10.0)
    assert options == {"tie_break": None, "confidence": None}
