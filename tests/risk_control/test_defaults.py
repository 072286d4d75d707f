"""Another default changes what is promised to programs that name no option."""

import pytest

from racer_jax.risk_control.costs import attainable_alpha, calibrate_budget
from racer_jax.risk_control.covariate_shift import estimate_density_ratio
from racer_jax.risk_control.group_scores import GroupedScores, group_scores
from racer_jax.risk_control.loss_guarantees import (
    calibrate_loss_by_group,
    calibrate_loss_with_probability,
    loss_bounds,
)
from racer_jax.risk_control.mondrian import calibrate_by_group, calibrate_table
from racer_jax.risk_control.vote_path import stopping_scores
from tests.defaults import defaults

GROUPS = {"fallback": "all", "delta": None, "unseen": "error"}


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (attainable_alpha, {"delta": 0.05}),
        (calibrate_budget, {"most": None}),
        (estimate_density_ratio, {"ridge": 1.0, "largest": 50.0}),
        (group_scores, {"names": None}),
        (GroupedScores.budgets, {"delta": None}),
        (GroupedScores.thresholds, {"delta": None, "fallback": "all"}),
        (loss_bounds, {"bound": 1, "largest_drop": None}),
        (calibrate_loss_with_probability, {"method": "betting"}),
        (calibrate_loss_by_group, GROUPS | {"method": "betting"}),
        (calibrate_by_group, GROUPS),
        (calibrate_table, GROUPS | {"groups": None, "tie_break": None}),
        (stopping_scores, {"settled": "vote"}),
    ],
)
def test_of(function, expected):
    assert defaults(function) == expected
