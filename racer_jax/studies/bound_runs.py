"""One pool and score checked in the way that fits it: sets and misses, graded losses, or a stop."""

from typing import Any

import jax

from racer_jax.montecarlo.bound_check import (
    BoundCheck,
    BoundSpec,
    check_bounds,
    check_bounds_exactly,
)
from racer_jax.montecarlo.measured_splits import Progress
from racer_jax.studies.checked_pools import AnyPool, CheckedPool, StopPool, scored, stop_steps


def check_any(
    key: jax.Array,
    pool: AnyPool,
    score: str,
    loss: Any,
    num_splits: int,
    progress: Progress,
    spec: BoundSpec,
    num_validation: int = 0,
) -> BoundCheck:
    """Checks a pool of any kind.

    Args:
      key: A typed PRNG key.
      pool: What to check.
      score: Name of the nonconformity; of the loss, for a stop.
      loss: `miss`, a graded loss, or that of a stop.
      num_splits: Number of random splits; 0 for the exact law, or for all splits of a graded loss,
        which has none.
      progress: Called with the number of splits done since the last call.
      spec: What is checked.
      num_validation: Queries of a split that neither calibrate nor test, for the loss `miss`.

    Returns:
      The `BoundCheck`.

    Raises:
      ValueError: If a graded loss is asked for and there are no grades, or no splits.

    Use this when a command takes pools of every kind; for one kind call its own check.
    """
    if isinstance(pool, StopPool):
        from racer_jax.montecarlo.loss_check import check_stops

        steps, split_key = stop_steps(key, pool, loss)
        return check_stops(
            split_key,
            pool.name,
            loss,
            steps,
            num_splits=num_splits,
            progress=progress,
            **spec,
        )
    graded = None
    if isinstance(pool, CheckedPool):
        graded, spec = pool.graded, BoundSpec(**{**spec, "matrix": pool.matrices.get(score)})
    if loss == "miss":
        if not num_splits:
            return check_bounds_exactly(key, scored(pool), score, **spec)
        return check_bounds(
            key,
            scored(pool),
            score,
            num_splits=num_splits,
            num_validation=num_validation,
            progress=progress,
            **spec,
        )
    from racer_jax.montecarlo.loss_check import check_losses

    if graded is None:
        raise ValueError(f"loss {loss!r} needs graded scores; {scored(pool).name!r} has none")
    if num_splits == 1:
        raise ValueError(f"loss {loss!r} takes at least 2 splits, or 0 for all of them")
    return check_losses(
        key,
        scored(pool),
        graded,
        score,
        loss,
        num_splits=num_splits,
        progress=progress,
        **spec,
    )
