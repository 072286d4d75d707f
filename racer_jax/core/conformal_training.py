r"""A differentiable threshold, to train a router for small sets (conformal training).

`calibrate` returns one of the critical scores, and its gradient is of no use. The soft threshold is
the root of a smooth count of misses,

    sum_i sigmoid((c_i - lambda) / T) = alpha (n + 1) - 1/2,

where a score at the threshold counts one half, so that it tends to that of `calibrate` as T tends
to 0. Its gradient is that of the root, exactly: each score moves the threshold by its share of the
slope, sigma'_i / sum sigma'. It promises nothing: train with it, then calibrate other queries with
`calibrate`.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import ArrayLike

from racer_jax.core.checks import (
    as_array,
    as_binary,
    check_no_nan,
    first_bad,
    is_traced,
    on_device,
    on_host,
)
from racer_jax.core.float_keys import common_dtype
from racer_jax.core.padding import by_rows, can_pad, padded
from racer_jax.core.placement import on_any_mesh

_STEPS = 60


def _misses(critical: jax.Array, threshold: jax.Array, temperature: float) -> jax.Array:
    """How much each score counts as above the threshold, `[..., n]`."""
    counts: jax.Array = jax.nn.sigmoid((critical - threshold[..., None]) / temperature)
    return counts


@jax.custom_jvp
def _root(critical: jax.Array, budget: jax.Array, temperature: float, rows: jax.Array) -> jax.Array:
    """The threshold `[...]` at which the soft misses of the rows come to the budget."""
    reach = 40 * temperature
    low = jnp.where(rows, critical, jnp.inf).min(axis=-1) - reach
    high = jnp.where(rows, critical, -jnp.inf).max(axis=-1) + reach

    def halve(_: int, edges: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        low, high = edges
        middle = (low + high) / 2
        count = jnp.where(rows, _misses(critical, middle, temperature), 0).sum(axis=-1)
        above = count > budget
        return jnp.where(above, middle, low), jnp.where(above, high, middle)

    low, high = lax.fori_loop(0, _STEPS, halve, (low, high))
    root: jax.Array = (low + high) / 2
    return root


@_root.defjvp
def _root_jvp(primals: Any, tangents: Any) -> Any:
    critical, budget, temperature, rows = primals
    threshold = _root(critical, budget, temperature, rows)
    soft = _misses(critical, threshold, temperature)
    slope = jnp.where(rows, soft * (1 - soft), 0)
    share = slope / jnp.maximum(slope.sum(axis=-1, keepdims=True), 1e-30)
    return threshold, (share * tangents[0]).sum(axis=-1)


@on_any_mesh
def soft_threshold(
    critical_scores: ArrayLike, alpha: float, temperature: float, mask: ArrayLike | None = None
) -> jax.Array:
    r"""A differentiable stand-in for `calibrate`, for training alone: it promises nothing.

    Args:
      critical_scores: c(x), finite where they count, floating `[..., n]`, such as those of half a
        batch. Under the null mode `free` mask the queries that no model can answer: theirs is -inf.
      alpha: The risk level, in (0, 1), with alpha (n + 1) at least 1 for the n rows that count; it
        may be traced.
      temperature: T, above 0: how far around the threshold a score counts as near it. A tenth of
        the spread of the scores is a start.
      mask: Which rows count, bool or 0/1 `[..., n]`; all by default.

    Returns:
      `[...]`, the dtype of the scores.

    Raises:
      TypeError: If the scores are not floating.
      ValueError: If a score that counts is not finite, or an option is out of range.

    References:
      Stutz, Dvijotham, Cemgil and Doucet, "Learning Optimal Conformal Classifiers", 2022, with the
      root of a smooth count in the place of their smooth sort.

    Use this when a router is trained for small sets; the threshold in use comes from `calibrate`.

    >>> critical = jnp.arange(1.0, 100.0) / 100
    >>> round(float(soft_threshold(critical, 0.1, 1e-4)), 3)  # calibrate gives .9
    0.9
    >>> gradient = jax.grad(lambda c: soft_threshold(c, 0.1, 0.05))(critical)
    >>> round(float(gradient.sum()), 3)  # all scores up by one: so is the threshold
    1.0
    """
    critical = as_array("critical_scores", critical_scores)
    check_no_nan("critical_scores", critical)
    if not temperature > 0:
        raise ValueError(f"temperature must be above 0, got {temperature}")
    whole = np.ones(critical.shape[-1], bool)
    rows = on_device(whole) if mask is None else as_binary("mask", mask)
    _check_scores_that_count(critical, rows)
    if not is_traced(alpha, rows):
        least = int(on_host(rows).sum(axis=-1).min())
        if not 0 < alpha < 1 or alpha * (least + 1) < 1:
            raise ValueError(
                f"alpha must be in (0, 1) and at least 1 / (n + 1) = {1 / (least + 1):.4g}, got "
                f"{alpha}"
            )
    levels = (_as_dtype(alpha, jnp.float32), _as_dtype(temperature, critical.dtype))
    if can_pad(critical, rows, *levels):
        critical, rows = padded(critical, -1, 0), padded(rows, -1, False)
    threshold: jax.Array = _soft_threshold(critical, rows, *levels)
    return threshold


def _as_dtype(number: Any, dtype: Any) -> jax.Array:
    """A number of Python's as an array; arrays stay what they are."""
    return number if isinstance(number, jax.Array) else on_device(np.asarray(number, dtype))


@partial(jax.jit, inline=True)
def _soft_threshold(
    critical: jax.Array, rows: jax.Array, alpha: jax.Array, temperature: jax.Array
) -> jax.Array:
    rows = jnp.broadcast_to(rows, critical.shape)
    dtype = common_dtype(critical.dtype, jnp.float32)
    num = rows.sum(axis=-1, dtype=jnp.int32)
    budget = alpha.astype(dtype) * (num + 1).astype(dtype) - 0.5
    # What does not count may be infinite, which no sum may see.
    return _root(jnp.where(rows, critical, 0), budget.astype(critical.dtype), temperature, rows)


def _check_scores_that_count(critical: jax.Array, rows: jax.Array) -> None:
    """Refuses infinite scores of rows that count, where there are values to look at."""
    if is_traced(critical, rows):
        return
    values = on_host(critical).astype(np.float64, copy=False)
    if (bad := on_host(rows) & ~np.isfinite(values)).any():
        raise ValueError(
            f"critical_scores must be finite, got {values[bad][0]} at {first_bad(bad)}; leave such "
            "rows out with mask"
        )


@on_any_mesh
def soft_set_size(nonconformity: ArrayLike, threshold: ArrayLike, temperature: float) -> jax.Array:
    r"""A differentiable number of models called: sum_m sigmoid((lambda - E(x, m)) / T).

    Args:
      nonconformity: E(x, m) of the augmented pool, floating `[..., m + 1]`, null model last, which
        is not counted.
      threshold: lambda, `[]`, from `soft_threshold`.
      temperature: T, above 0.

    Returns:
      `[...]`, the dtype of the nonconformity.

    Raises:
      TypeError: If the nonconformity is not floating.
      ValueError: If it is NaN or the temperature not above 0.

    Use this when the size of the sets is to be a term of a training loss; `set_size` counts sets.

    >>> soft_set_size(jnp.array([0.0, 0.5, 1.0]), 0.25, 1e-3).tolist()
    1.0
    """
    entries = as_array("nonconformity", nonconformity)
    check_no_nan("nonconformity", entries)
    if not temperature > 0:
        raise ValueError(f"temperature must be above 0, got {temperature}")
    numbers = (_as_dtype(threshold, entries.dtype), _as_dtype(temperature, entries.dtype))
    size: jax.Array = by_rows(_soft_set_size, entries, *numbers)
    return size


@partial(jax.jit, inline=True)
def _soft_set_size(entries: jax.Array, threshold: jax.Array, temperature: jax.Array) -> jax.Array:
    return jax.nn.sigmoid((threshold - entries[..., :-1]) / temperature).sum(axis=-1)
