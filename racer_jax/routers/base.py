"""What every router shares: the protocol, and the check of the arrays it is fitted on."""

from typing import Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jax.dtypes import canonicalize_dtype
from jax.typing import ArrayLike

from racer_jax._arrays import given
from racer_jax.core.checks import as_binary, check_floating, first_bad, is_traced, on_device

# To be raised whenever the same key comes to draw other batches or noise, so that nothing kept from
# before (scores, checkpoints) is taken for what this code would make.
DRAWS = 3


@runtime_checkable
class Router(Protocol):
    """Anything that scores every model of the pool for a query.

    It is called with embeddings, floating `[n, d]`, and gives scores s(x, m) in [0, 1], floating
    `[n, m]`; higher is better.

    Use this when you write a router of your own: any function of embeddings that does so.
    """

    def __call__(self, embeddings: ArrayLike) -> jax.Array:
        """Scores s(x, m) in [0, 1], floating `[n, m]`, of embeddings `[n, d]`; higher is better."""
        ...


def check_embeddings(name: str, embeddings: ArrayLike, dim: int | None = None) -> jax.Array:
    """Embeddings: floating `[n, d]`, n and d at least 1, finite.

    D equal to `dim` where that is known.

    Use this when embeddings come from outside.

    Raises:
      TypeError: If they are not floating.
      ValueError: If the shape does not fit or a value is not finite.
    """
    embeddings = given(name, embeddings)
    if isinstance(embeddings, np.ndarray):  # rounded as on the device, and looked at here
        with np.errstate(over="ignore"):
            embeddings = embeddings.astype(canonicalize_dtype(embeddings.dtype), copy=False)
    else:
        embeddings = jnp.asarray(embeddings)
    check_floating(name, embeddings)
    if embeddings.ndim != 2 or 0 in embeddings.shape:
        raise ValueError(f"{name} must have shape [n, d] with n, d >= 1, got {embeddings.shape}")
    if dim is not None and embeddings.shape[1] != dim:
        raise ValueError(
            f"{name} must have {dim} columns, as the router was fitted on, got "
            f"{embeddings.shape[1]}"
        )
    if not is_traced(embeddings) and not _all_finite(embeddings):
        bad = ~np.isfinite(np.asarray(embeddings, dtype=np.float64))
        raise ValueError(
            f"{name} must be finite, got {np.asarray(embeddings)[bad][0]} at {first_bad(bad)}"
        )
    return on_device(embeddings)


def _all_finite(array: jax.Array | np.ndarray) -> bool:
    """Whether every entry is finite; of what a CPU holds NumPy says so, which compiles nothing."""
    on_host = isinstance(array, np.ndarray) or jax.default_backend() == "cpu"
    if on_host and getattr(array, "is_fully_addressable", True):
        return bool(np.isfinite(np.asarray(array)).all())
    return bool(jnp.isfinite(array).all())


def check_training(embeddings: ArrayLike, correct: ArrayLike) -> tuple[jax.Array, jax.Array]:
    """The arrays a router is fitted on: embeddings `[n, d]`, and `correct` as booleans `[n, m]`.

    Use this when a router is fitted.

    Raises:
      TypeError: If embeddings are not floating, or `correct` neither boolean nor numeric.
      ValueError: If the shapes do not fit, a value is not finite, or `correct` holds anything but 0
        and 1.
    """
    embeddings, correct = check_embeddings("embeddings", embeddings), as_binary("correct", correct)
    if correct.ndim != 2 or correct.shape[0] != embeddings.shape[0] or correct.shape[1] < 1:
        raise ValueError(
            "correct must have shape [n, m] with m >= 1 where embeddings has [n, d], got "
            f"{correct.shape} and "
            f"{embeddings.shape}"
        )
    return embeddings, correct
