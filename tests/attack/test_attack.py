"""The attacks, as tests: nothing lost, nothing foreign, nothing beyond limits."""

import os

import pytest

from tests.attack.__main__ import ATTACKS, run

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("name", ATTACKS)
def test_nothing_is_lost_foreign_or_beyond_limits(name):
    tally = run(name, int(os.environ.get("RACER_ATTACK_ROUNDS", "1")))
    assert tally.tried > 0
    assert tally.problems == []
