"""The nonconformity of a pool, in one compiled program, and the keys that break its ties."""

from collections.abc import Callable
from functools import cache

import jax
import numpy as np

from racer_jax._arrays import given
from racer_jax._programs import default_device, run_kept
from racer_jax.core.checks import check_scores
from racer_jax.core.keys import check_key
from racer_jax.core.nonconformity import NONCONFORMITIES
from racer_jax.core.threefry import bits, halves


def pool_entries(
    key: jax.Array,
    scores: np.ndarray,
    nonconformity: str,
    null: str,
    matrix: np.ndarray | None = None,
    rows: int | None = None,
) -> tuple[np.ndarray, np.ndarray, jax.Array]:
    """What a check of a pool begins with.

    Operation by operation, JAX would compile some twenty programs for each size of pool.

    Use this when a pool is checked by its scores or by an order.

    Args:
      key: A typed PRNG key.
      scores: Router scores, floating `[n, m]`.
      nonconformity: Name of a nonconformity score.
      null: The null mode.
      matrix: Nonconformity `[n, m + 1]` that is not to be made from the scores.
      rows: Rows that the compiled program works on, so that pools of several sizes share it; the
        results are the same.

    Returns:
      The nonconformity `[n, m + 1]`, the second keys of its entries, uint32 `[n, m + 1]`, and the
      key of the splits.

    Raises:
      TypeError: If the key is none, or scores are not floating.
      ValueError: If a score is not in [0, 1], or the null mode is unknown.
    """
    check_key(key)
    name = "scores" if matrix is None else "matrix"
    values = np.asarray(given(name, scores if matrix is None else matrix))
    num = len(values)
    tie_key, split_key = halves(key)
    if matrix is None:
        check_scores(values)
        if rows is not None and rows > num:
            values = np.pad(values, ((0, rows - num), (0, 0)), mode="edge")
        values = _entries(values, nonconformity, null)[:num]
    return values, bits(tie_key, values.shape), split_key


def _entries(scores: np.ndarray, nonconformity: str, null: str) -> np.ndarray:
    """The nonconformity of scores `[n, m]`, on the host `[n, m + 1]`."""
    function = NONCONFORMITIES[nonconformity]
    # Of a function that is not the package's own, the source may change unseen.
    if not function.__module__.startswith("racer_jax."):
        return np.asarray(_compiled(function)(scores, null))
    facts = "pool_entries", function.__module__, function.__qualname__, null
    entries = run_kept(
        lambda: _compiled(function),
        (scores,),
        {"null": null},
        facts=facts,
        devices=[default_device()],
        packages=("core", "montecarlo"),
    )
    return np.asarray(entries)


@cache
def _compiled(function: Callable[..., jax.Array]) -> Callable[..., jax.Array]:
    """The function under `jit`, whatever it calls its second argument."""
    return jax.jit(lambda scores, null: function(scores, null), static_argnames="null")
