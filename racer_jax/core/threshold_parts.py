"""What every calibration does to its arguments and its result."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from racer_jax.core.checks import as_binary, is_traced, on_host
from racer_jax.core.nonconformity import TieBroken


@jax.custom_jvp
def without_gradient(critical_scores: jax.Array) -> jax.Array:
    """The scores as they are; differentiating a threshold is an error, not zeros in silence.

    Use this when a threshold is computed under `jit`.
    """
    return critical_scores


@without_gradient.defjvp
def _refuse_gradient(primals: Any, tangents: Any) -> Any:
    raise TypeError(
        "a calibrated threshold has no useful gradient: it is one of the critical scores. For a "
        "threshold that is held fixed pass jax.lax.stop_gradient(critical_scores); to train "
        "through calibration use racer_jax.core.soft_threshold in its place"
    )


def first_threshold(threshold: jax.Array | TieBroken) -> jax.Array | TieBroken:
    """The threshold of the only one alpha or budget.

    Use this when a function of several alphas serves a single one.
    """
    if isinstance(threshold, TieBroken):
        return TieBroken(_first(threshold.value), _first(threshold.tie))
    only: jax.Array = _first(threshold)
    return only


# A program of its own takes less time than an index outside of one, and sends no place there.
@partial(jax.jit, inline=True)
def _first(array: jax.Array) -> jax.Array:
    """The first of the last axis."""
    return array[..., 0]


def checked_rows(
    value: jax.Array, mask: ArrayLike | None
) -> tuple[jax.Array | None, int | np.ndarray | jax.Array]:
    """The mask, checked, and the number of calibration rows: n, or int32 `[...]` under a mask.

    Use this when rows of a calibration may be masked.
    """
    size = value.shape[-1]
    if mask is None:
        return None, size
    mask = as_binary("mask", mask)
    if mask.ndim < 1 or mask.shape[-1] != size:
        raise ValueError(
            f"mask must have shape [..., {size}] like critical_scores {value.shape}, got "
            f"{mask.shape}"
        )
    if is_traced(mask):
        return mask, jnp.sum(mask, axis=-1, dtype=jnp.int32)
    num = on_host(mask).sum(axis=-1)
    if (num == 0).any():
        raise ValueError("mask must select at least one calibration row, got none")
    return mask, num
