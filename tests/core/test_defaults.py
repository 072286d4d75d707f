"""Another default changes what programs compute that name no option."""

import pytest

from racer_jax.core.aggregation import log_odds
from racer_jax.core.losses import grade_loss, set_loss
from racer_jax.core.nonconformity import gap, inverse_probability, smooth
from racer_jax.core.scalar_checks import check_count
from tests.defaults import defaults


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (log_odds, {"margin": 0.005}),
        (grade_loss, {"tie_break": None, "against": "perfect", "highest": 1}),
        (set_loss, {"tie_break": None, "bound": 1}),
        (gap, {"null": "paper"}),
        (inverse_probability, {"null": "paper"}),
        (smooth, {"eps": 1e-6}),
        (check_count, {"least": 1, "most": None}),
    ],
)
def test_of(function, expected):
    assert defaults(function) == expected
