"""What the benchmark of RACER-J takes as right: any greedy order with its levels, and no other."""

import importlib
from pathlib import Path

import numpy as np
import pytest

WEIGHTS = np.full((1, 4), 0.25)
# The first two add the same. After model 0, row 2 is left to either of the others; after model 1,
# row 0 to model 0 alone.
SUPPORT = np.array([[1, 0, 0], [1, 1, 0], [0, 1, 1], [0, 0, 0]])


@pytest.fixture
def distance(monkeypatch):
    # Beside the other files of the folder, as where the script is started.
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
    return importlib.import_module("benchmarks.coverage").distance


@pytest.mark.parametrize("right", [[0.5, 0.75, 1], [0.5, 1, 0.75], [0.75, 0.5, 1]])
def test_either_of_two_that_tie_may_come_first(distance, right):
    assert distance(np.array([right]), WEIGHTS, SUPPORT) < 1e-12


@pytest.mark.parametrize(
    "wrong", [[0.5, 0.75, 0.9], [0.6, 0.75, 1], [1, 0.5, 0.75], [1, 0.75, 0.5]]
)
def test_another_order_and_other_levels_are_far_away(distance, wrong):
    assert distance(np.array([wrong]), WEIGHTS, SUPPORT) > 0.05
