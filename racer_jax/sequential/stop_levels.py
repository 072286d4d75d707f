"""Which levels a calibration of a stop can have; nothing here imports JAX.

So a command refuses a level that its rows are too few for before it waits for JAX.
"""

from collections.abc import Sequence

import numpy as np

from racer_jax.core.risk_levels import Level, miss_budget
from racer_jax.risk_control.high_probability_budgets import high_probability_budget, smallest_size


def check_num_rows(
    alpha: Level, delta: float | None, counts: Sequence[int], groups: Sequence[str] | None
) -> None:
    """Refuses a level that takes more calibration rows than there are.

    Use this when the rows are counted and their losses are not known yet.

    Args:
      alpha: The level.
      delta: Chance over calibration sets that the risk exceeds alpha; None for a bound on average.
      counts: The number of rows of each group; of all rows where there are no groups.
      groups: Names of the groups; None for one threshold for all.

    Raises:
      ValueError: If a group has too few; it says how many it takes.
    """
    smallest = smallest_size(alpha, delta)
    for place, count in enumerate(counts):
        if count < smallest:
            who = f"group {groups[place]!r} has" if groups is not None else "there are"
            raise ValueError(
                f"alpha = {alpha}{_surely(delta)} takes at least {smallest} calibration rows, "
                f"{who} {count}: with fewer no threshold is safe, and every model would "
                "be called until the vote is decided"
            )


def check_level(
    alpha: Level,
    delta: float | None,
    loss: str,
    value: np.ndarray,
    code: np.ndarray,
    groups: Sequence[str] | None,
) -> None:
    """Refuses a level that no threshold keeps on these calibration rows.

    Use this when a calibration is made, read, or used at another level.

    Args:
      alpha: As of `check_num_rows`.
      delta: As of `check_num_rows`.
      loss: The loss whose chance is at most alpha.
      value: Critical scores, float32 `[n]`.
      code: The group of each, int32 `[n]`.
      groups: As of `check_num_rows`.

    Raises:
      ValueError: If the rows are too few for alpha, or more of them than alpha allows lose after
        the last call too.
    """
    values = [value[code == place] for place in range(1 if groups is None else len(groups))]
    check_num_rows(alpha, delta, [len(one) for one in values], groups)
    for place, one in enumerate(values):
        # `covers` alone, where the calls end with the model that is the reference.
        lost, most = int((one == np.inf).sum()), _budget(alpha, delta, len(one))
        if lost > most:
            who = f" of group {groups[place]!r}" if groups is not None else ""
            raise ValueError(
                f"no threshold keeps alpha = {alpha}{_surely(delta)} on the loss {loss!r}: "
                f"of {len(one)} calibration rows{who} {lost} lose after the last call too, "
                f"and at most {most} may. Take a larger alpha, or fit with reference='vote', "
                "which may call every model"
            )


def _surely(delta: float | None) -> str:
    """What follows alpha where the risk is bounded with confidence."""
    return "" if delta is None else f" and delta = {delta:g}"


def _budget(alpha: Level, delta: float | None, num: int) -> int:
    """How many of `num` calibration rows may lose."""
    if delta is None:
        return int(miss_budget(alpha, num))
    return int(high_probability_budget(alpha, num, delta))
