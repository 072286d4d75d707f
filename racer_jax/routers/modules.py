"""Flax modules in pieces: their variables as arrays by name, and back."""

from collections.abc import Callable, Mapping
from typing import TypeVar

import jax.numpy as jnp
import numpy as np
from flax import nnx

from racer_jax.encoders.base import Arrays, array_of

Module = TypeVar("Module", bound=nnx.Module)


def module_arrays(module: nnx.Module, prefix: str) -> Arrays:
    """The variables of a module, by the prefix and their path.

    Use this when a module of NNX is stored.
    """
    return {
        ".".join([prefix, *map(str, path)]): np.asarray(variable.get_value())
        for path, variable in nnx.to_flat_state(nnx.state(module))
    }


def module_from(
    make: Callable[[nnx.Rngs], Module], arrays: Mapping[str, np.ndarray], prefix: str
) -> Module:
    """A module with the variables of `module_arrays`.

    Use this when you read what `module_arrays` gave.

    Args:
      make: Makes a module of the same shape; nothing is drawn with its generator.
      arrays: Arrays by name.
      prefix: Prefix of the names.

    Raises:
      PartsError: If an array is missing or of another shape.
    """
    graph, state = nnx.split(nnx.eval_shape(lambda: make(nnx.Rngs(0))))
    flat = []
    for path, variable in nnx.to_flat_state(state):
        name = ".".join([prefix, *map(str, path)])
        array = array_of(arrays, name, variable.get_value().shape)
        flat.append((path, variable.replace(jnp.asarray(array))))
    module: Module = nnx.merge(graph, nnx.from_flat_state(flat))
    return module
