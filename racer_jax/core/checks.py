"""Checks at the edge: shapes and dtypes always, values only where there are values to look at.

Under `jit` and `vmap` an array has a shape and a dtype but no values, so the checks of range run
for concrete arrays only, once, where the data enters.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from racer_jax._arrays import given


def is_traced(*arrays: Any) -> bool:
    """Whether any of the arrays has no concrete value yet.

    Use this when a check of values must be skipped under `jit`.
    """
    return any(isinstance(array, jax.core.Tracer) for array in arrays)


# What each library's arrays are turned into, and how; none of them is imported here.
_REMEDIES = {
    "torch": "{}.detach().cpu().numpy()",
    "pandas": "{}.to_numpy()",
    "polars": "{}.to_numpy()",
    "tensorflow": "{}.numpy()",
}


def as_array(name: str, array: Any) -> jax.Array:
    """An input as an array of JAX; one of another library is refused, with what to pass instead.

    Raises:
      TypeError: If it is a tensor of PyTorch or TensorFlow, or a table of pandas or polars.
      ValueError: If it is a masked array of NumPy that lacks a value.

    Use this when a public function is given an array.
    """
    check_native(name, array)
    return on_device(given(name, array))


def check_native(name: str, array: Any) -> None:
    """Refuses arrays of other libraries: copied in silence they lose device, gradient or labels.

    Use this when an input goes to the host and not to a device; else `as_array`.
    """
    library = type(array).__module__.partition(".")[0]
    if library in _REMEDIES:
        kind = f"{library}.{type(array).__name__}"
        remedy = _REMEDIES[library].format(name)
        raise TypeError(f"{name} must be an array of JAX or NumPy, got a {kind}: pass {remedy}")


def first_bad(bad: np.ndarray) -> str:
    """The index of the first True of a boolean array, as `[i, j]`.

    Use this when an error shall name the entry that broke a rule.
    """
    return str([int(i) for i in np.argwhere(bad)[0]])


def check_floating(name: str, array: jax.Array | np.ndarray) -> None:
    """Refuses arrays whose dtype is not floating.

    Use this when a function takes numbers whose dtype decides the result.
    """
    if not jnp.issubdtype(array.dtype, jnp.floating):
        raise TypeError(f"{name} must be floating, got dtype {array.dtype}")


def check_scores(scores: jax.Array | np.ndarray) -> None:
    """Router scores: floating, at least one model, finite and in [0, 1].

    Use this when scores come from outside the package.
    """
    check_floating("scores", scores)
    if scores.ndim < 1 or scores.shape[-1] < 1:
        raise ValueError(
            f"scores must have shape [..., m] with at least one model, got {scores.shape}"
        )
    if is_traced(scores):
        return
    values = on_host(scores).astype(np.float64, copy=False)
    if (bad := ~np.isfinite(values)).any():
        raise ValueError(f"scores must be finite, got {values[bad][0]} at {first_bad(bad)}")
    if (bad := (values < 0) | (values > 1)).any():
        raise ValueError(f"scores must be in [0, 1], got {values[bad][0]} at {first_bad(bad)}")


def check_no_nan(name: str, array: jax.Array | np.ndarray) -> None:
    """Floating, and without NaN; infinities are allowed, since the null modes use them.

    Use this when a function takes nonconformity or critical scores.
    """
    check_floating(name, array)
    if is_traced(array):
        return
    if (bad := np.isnan(on_host(array).astype(np.float64, copy=False))).any():
        raise ValueError(f"{name} must not be NaN, got NaN at {first_bad(bad)}")


def nan_as_inf(array: jax.Array) -> jax.Array:
    """NaN as +inf where there are no values to look at yet: in no set, and a miss in calibration.

    Compared as integers a NaN is above +inf or, with its sign bit set, as 0 / 0 gives it, below
    -inf; calibration would then count a hit where no set holds the model.

    Use this when a function compares nonconformity or critical scores, after `check_no_nan`.
    """
    return jnp.where(jnp.isnan(array), jnp.inf, array) if is_traced(array) else array


def rows_of_labels(array: Any, labels: jax.Array) -> jax.Array | None:
    """Which rows `[...]` hold nothing but 0 and 1; None where that is known of all.

    Use this when a traced row of anything else must not count as a hit, after `as_binary`.
    """
    if not is_traced(array) or array.dtype == jnp.bool_:
        return None
    return jnp.all(labels | (array == 0), axis=-1)


def on_device(array: Any) -> jax.Array:
    """`jnp.asarray`, which compiles a program for each shape of NumPy's arrays; this does not.

    A transfer that is asked for, as `jax.transfer_guard` has it.

    Use this when an array comes from the host, outside of `jit`.
    """
    if not isinstance(array, np.ndarray | np.generic):
        return jnp.asarray(array)
    sent: jax.Array = jax.device_put(array)
    return sent


def on_host(array: Any) -> np.ndarray:
    """`np.asarray`, but that an array of JAX is asked for, as `jax.transfer_guard` has it.

    Use this when values of an array are looked at.
    """
    try:  # takes a tenth of the time of `device_get`
        return np.asarray(array)
    except jax.errors.JaxRuntimeError:
        return np.asarray(jax.device_get(array))


def as_binary(name: str, array: Any) -> jax.Array:
    """`array` as booleans; anything but booleans and 0/1 numbers is refused.

    Use this when a function takes labels or losses.
    """
    if not isinstance(array, jax.Array):
        check_native(name, array)
        array = np.asarray(given(name, array))
    if array.dtype == np.bool_:
        return on_device(array)
    if not (jnp.issubdtype(array.dtype, jnp.integer) or jnp.issubdtype(array.dtype, jnp.floating)):
        raise TypeError(f"{name} must be boolean or 0/1, got dtype {array.dtype}")
    if not is_traced(array):
        values = on_host(array).astype(np.float64, copy=False)
        if (bad := (values != 0) & (values != 1)).any():
            raise ValueError(f"{name} must be 0/1, got {values[bad][0]} at {first_bad(bad)}")
        if not isinstance(array, jax.Array):
            return on_device(values != 0)  # on the host, where nothing is compiled
        if len(array.devices()) == 1:
            where = array.sharding if array.committed else None
            labels: jax.Array = jax.device_put(values != 0, where)
            return labels
    return jnp.asarray(array == 1)


def check_tie_break(tie_break: jax.Array | np.ndarray, shape: tuple[int, ...]) -> None:
    """A tie-break is uint32 and has the shape of what it orders.

    Use this when a function takes second keys.
    """
    if tie_break.dtype != jnp.uint32:
        raise TypeError(
            f"tie_break must be uint32 (see racer_jax.tie_break), got dtype {tie_break.dtype}"
        )
    if tie_break.shape != shape:
        raise ValueError(f"tie_break must have shape {shape}, got {tie_break.shape}")
