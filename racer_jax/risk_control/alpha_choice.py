r"""Choosing one of several alphas without losing the guarantee.

The guarantee of `calibrate` holds for each threshold on its own. It does not hold for an alpha
chosen by results on the same calibration queries, because the choice may follow chance. Choose on
validation queries that calibration does not use (`knee`, `within_budget`, `within_error`), or
calibrate with bounds that hold for all thresholds at once (`calibrate_uniform`).
"""

import numpy as np
from jax.typing import ArrayLike

from racer_jax._arrays import given
from racer_jax.core.checks import first_bad

# --- one of several alphas, on validation queries -------------------------------------------------


def _curve(**columns: ArrayLike) -> list[np.ndarray]:
    """Columns of a curve as float64 `[a]`, finite, of one length."""
    arrays = {name: np.asarray(given(name, column), np.float64) for name, column in columns.items()}
    shapes = {array.shape for array in arrays.values()}
    if len(shapes) != 1 or len(next(iter(shapes))) != 1 or not next(iter(shapes))[0]:
        raise ValueError(
            f"{', '.join(arrays)} must have one shape [a], got {', '.join(map(str, shapes))}"
        )
    for name, array in arrays.items():
        if (bad := ~np.isfinite(array)).any():
            raise ValueError(f"{name} must be finite, got {array[bad][0]} at {first_bad(bad)}")
    return list(arrays.values())


def knee(alpha: ArrayLike, size: ArrayLike) -> int:
    """Index of the knee of size against alpha: the point furthest below the chord between the ends.

    Args:
      alpha: Risk levels, increasing, `[a]`.
      size: Mean set size (or cost) at each, on validation queries, `[a]`.

    Returns:
      The index; 0 where the curve has no range.

    Raises:
      ValueError: If the shapes differ, there are fewer than three points, alphas do not increase,
        or a value is not finite.

    Use this when you have neither a limit of cost (`within_budget`) nor measured accuracies
    (`within_error`) and want the alpha beyond which more risk saves few calls.

    >>> knee([0.1, 0.2, 0.3, 0.4], [6.0, 2.0, 1.5, 1.0])
    1
    """
    levels, sizes = _curve(alpha=alpha, size=size)
    if len(levels) < 3 or (np.diff(levels) <= 0).any():
        raise ValueError(f"alpha must hold at least three increasing levels, got {levels.tolist()}")
    span = sizes[0] - sizes[-1]
    if span == 0:
        return 0
    across = (levels - levels[0]) / (levels[-1] - levels[0])
    return int(np.argmax(1 - across - (sizes - sizes[-1]) / span))


def within_budget(alpha: ArrayLike, cost: ArrayLike, budget: float) -> int:
    """Index of the smallest alpha whose mean cost a query is within the budget.

    Args:
      alpha: Risk levels, `[a]`.
      cost: Mean dollars (or calls) a query at each, on validation queries, `[a]`.
      budget: The largest mean cost of a query that is allowed, in the unit of `cost`.

    Returns:
      Its place in `alpha`.

    Raises:
      ValueError: If the shapes differ, a value is not finite, or no alpha is within the budget.

    Use this when the mean cost is limited and you want the least risk that fits; `calibrate_budget`
    finds the threshold itself and guarantees the expected cost.

    >>> within_budget([0.05, 0.1, 0.2], [4.0, 2.0, 1.0], 2.5)
    1
    """
    levels, costs = _curve(alpha=alpha, cost=cost)
    within = costs <= budget
    if not within.any():
        raise ValueError(
            f"no alpha is within the budget of {budget:g}: the least cost is {costs.min():g}"
        )
    return int(np.flatnonzero(within)[np.argmin(levels[within])])


def within_error(accuracy: ArrayLike, error: ArrayLike, size: ArrayLike) -> int:
    """Index of the smallest sets whose accuracy is within one standard error of the best.

    Args:
      accuracy: Validation accuracy at each alpha, `[a]`.
      error: Its standard error, not negative, `[a]`.
      size: Mean set size (or cost) at each, `[a]`.

    Returns:
      Its place in `size`.

    Raises:
      ValueError: If the shapes differ, a value is not finite, or an error is negative.

    Use this when accuracy matters most and sets should only be larger where that makes the answers
    better beyond noise; `knee` needs no accuracies.

    >>> within_error([0.70, 0.71, 0.60], [0.02, 0.02, 0.02], [3.0, 5.0, 1.0])
    0
    """
    accuracies, errors, sizes = _curve(accuracy=accuracy, error=error, size=size)
    if (errors < 0).any():
        raise ValueError(f"error must not be negative, got {errors.min():g}")
    best = int(np.argmax(accuracies))
    good = accuracies >= accuracies[best] - errors[best]
    return int(np.flatnonzero(good)[np.argmin(sizes[good])])


# --- all alphas at once ---------------------------------------------------------------------------


# --- a cap on the number of models ----------------------------------------------------------------


# --- a budget in dollars --------------------------------------------------------------------------


# --- selective risk -------------------------------------------------------------------------------
