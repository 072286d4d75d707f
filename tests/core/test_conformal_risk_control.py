"""Thresholds of a bounded loss against the formula of conformal risk control on a grid, in NumPy."""

import jax.numpy as jnp
import numpy as np
import pytest

from racer_jax.core.loss_calibration import calibrate_loss
from racer_jax.core.losses import grade_loss
from tests.core.test_losses import LEVELS, N, pool
from tests.parameters import few_by_default


def on_a_grid(losses, grid, alpha):
    """The largest sets are at the end of the grid: the first place where the bound is kept.

    n / (n + 1) R(lambda) + 1 / (n + 1) <= alpha, as in Angelopoulos et al. (2024); +inf where no
    place will do. A hair is allowed, for the mean of a table is rounded.
    """
    n = len(losses)
    bounds = n / (n + 1) * losses.mean(axis=0) + 1 / (n + 1)
    kept = bounds <= float(alpha) + 1e-12
    return grid[kept.argmax()] if kept.any() else np.inf


def loss_table(nonconformity, grades, grid, against):
    """The loss of every query at every threshold `[n, g]`, by brute force over the members."""
    full = np.column_stack([grades, (grades == 0).all(axis=1)])
    inside = nonconformity[:, :, None] <= grid
    best = np.where(inside, full[:, :, None], 0).max(axis=1)
    return (full.max(axis=1)[:, None] if against == "pool" else 1) - best


@pytest.mark.parametrize("against", ["perfect", "pool"])
@pytest.mark.parametrize("seed", few_by_default(range(8)))
def test_the_formula_on_a_grid_of_all_steps_gives_the_same_threshold(seed, against):
    nonconformity, grades, _ = pool(seed, broken=False)
    entries = np.asarray(nonconformity, np.float64)
    steps = np.unique(entries[np.isfinite(entries)])
    grid = np.concatenate([[-np.inf], steps])
    losses = loss_table(entries, grades, grid, against)
    assert losses.shape[0] == N
    result = calibrate_loss(grade_loss(nonconformity, jnp.asarray(grades), against=against), LEVELS)
    expected = [on_a_grid(losses, grid, alpha) for alpha in LEVELS]
    np.testing.assert_array_equal(np.asarray(result, np.float64), expected)


@pytest.mark.parametrize("seed", range(4))
def test_a_grid_that_misses_steps_gives_larger_sets(seed):
    nonconformity, grades, _ = pool(seed, broken=False)
    entries = np.asarray(nonconformity, np.float64)
    coarse = np.array([0.05, 0.33, 0.71, 1.0])
    losses = loss_table(entries, grades, coarse, "pool")
    result = calibrate_loss(grade_loss(nonconformity, jnp.asarray(grades), against="pool"), LEVELS)
    for at, alpha in zip(np.asarray(result), LEVELS, strict=True):
        assert on_a_grid(losses, coarse, alpha) >= at
