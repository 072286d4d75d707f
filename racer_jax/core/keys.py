"""The check of a random key, for every function that takes one."""

from typing import Any

import jax
import jax.numpy as jnp


def check_key(key: Any, name: str = "key") -> None:
    """Refuses anything but one typed key, also under `jit` and `vmap`.

    Args:
      key: What was passed.
      name: What the argument is called.

    Raises:
      TypeError: If it is a seed, an old key of two words, an array of keys, or something else; the
        message says what to pass.

    Use this when a public function takes a key, before it is split.

    >>> check_key(0)
    Traceback (most recent call last):
    TypeError: key must be jax.random.key(seed), got 0
    """
    dtype = getattr(key, "dtype", None)
    if isinstance(key, jax.Array) and jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
        if key.ndim:
            raise TypeError(
                f"{name} must be a single key, got an array of keys {list(key.shape)}: pass one of "
                "them, or use jax.vmap"
            )
        return
    if getattr(key, "shape", None) == (2,) and dtype == jnp.uint32:
        raise TypeError(
            f"{name} must be jax.random.key(seed), got the uint32 [2] of jax.random.PRNGKey: make "
            "it with jax.random.key, or wrap it with jax.random.wrap_key_data"
        )
    shown = repr(key)
    if len(shown) > 60:
        shown = f"an object of type {type(key).__name__}"
    raise TypeError(f"{name} must be jax.random.key(seed), got {shown}")


def two_keys(key: Any) -> tuple[jax.Array, jax.Array]:
    """Two keys of one, checked.

    Use this when a public function splits its key in two.
    """
    check_key(key)
    first, second = jax.random.split(key)
    return first, second
