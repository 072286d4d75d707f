"""The nonconformity of a pool and the keys that break its ties, in one compiled program."""

from functools import partial

import jax
import numpy as np

from racer_jax._programs import run_kept
from racer_jax.core.checks import check_scores
from racer_jax.core.keys import check_key
from racer_jax.core.nonconformity import NONCONFORMITIES
from racer_jax.core.nonconformity import tie_break as second_keys
from racer_jax.core.threefry import written_out


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
    values = np.asarray(scores if matrix is None else matrix)
    num = len(values)
    if matrix is None:
        check_scores(values)
    # Only Threefry draws the bits of an entry from its place alone, whatever comes after it.
    by_place = str(jax.random.key_impl(key)) == "threefry2x32"
    by_place &= bool(getattr(jax.config, "jax_threefry_partitionable", False))
    if rows is not None and rows > num and by_place:
        values = np.pad(values, ((0, rows - num), (0, 0)), mode="edge")
    name = nonconformity if matrix is None else None
    function = None if name is None else NONCONFORMITIES[name]
    static = {"nonconformity": name, "null": null}
    # Of a function that is not the package's own, the source may change unseen.
    if function is None or function.__module__.startswith("racer_jax."):
        entries, ties, words = run_kept(
            lambda: _entries,
            (key, values),
            static,
            facts=("pool_entries", static),
            devices=jax.devices()[:1],
            packages=("core", "montecarlo"),
        )
    else:
        entries, ties, words = _entries(key, values, **static)
    split_key = jax.random.wrap_key_data(words, impl=jax.random.key_impl(key))
    return np.asarray(entries)[:num], np.asarray(ties)[:num], split_key


@partial(jax.jit, static_argnames=("nonconformity", "null"))
def _entries(
    key: jax.Array, values: jax.Array, nonconformity: str | None, null: str
) -> tuple[jax.Array, jax.Array, jax.Array]:
    tie_key, split_key = jax.random.split(written_out(key))
    entries = values if nonconformity is None else NONCONFORMITIES[nonconformity](values, null)
    return entries, second_keys(tie_key, entries.shape), jax.random.key_data(split_key)
