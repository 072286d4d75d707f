"""Arrays on meshes with Explicit axes: the core works on them, and results stay on the mesh.

Under `AxisType.Explicit` the type of an array says how it is spread, and each operation must say
the same of its result. A sort along a spread axis, or one of an array made inside the function with
one that is spread, cannot. So such a call runs with the axes of the mesh as `AxisType.Auto`, where
the compiler decides, and its results have the caller's types again. No values move for it.
"""

from collections.abc import Callable
from contextlib import nullcontext
from functools import wraps
from typing import Any, TypeVar, cast

import jax
import numpy as np
from jax import lax
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding, PartitionSpec

from racer_jax.core.checks import is_traced

Function = TypeVar("Function", bound=Callable[..., Any])


def _is_explicit(mesh: Any) -> bool:
    """Whether a mesh, or the shape of one, has axes whose types say how arrays are spread."""
    return AxisType.Explicit in (getattr(mesh, "axis_types", None) or ())


def _mesh_of(array: Any) -> Any:
    """The mesh in an array's type; None where there is none."""
    if not isinstance(array, jax.Array):
        return None
    sharding = jax.typeof(array).sharding if isinstance(array, jax.core.Tracer) else array.sharding
    return getattr(sharding, "mesh", None)


def on_any_mesh(function: Function) -> Function:
    """A function that also takes arrays whose mesh has Explicit axes.

    A result whose first axes are those of the largest argument is spread as that one is; others,
    such as thresholds, are the same on all devices.

    Use this when a public function sorts, gathers or makes arrays of its own.
    """

    @wraps(function)
    def on_its_mesh(*args: Any, **kwargs: Any) -> Any:
        leaves, tree = cast(Any, jax.tree.flatten((args, kwargs)))
        meshes = [mesh for mesh in map(_mesh_of, leaves) if _is_explicit(mesh)]
        context = jax.sharding.get_abstract_mesh()
        if not meshes and not _is_explicit(context):
            return function(*args, **kwargs)

        def call(leaves: list[Any]) -> Any:
            args, kwargs = tree.unflatten(leaves)
            return function(*args, **kwargs)

        if is_traced(*leaves) or is_traced(lax.iota(np.int32, 1)):  # of a `jit` that traces now
            return _traced(call, leaves, meshes[0] if meshes else context)
        return _with_values(call, leaves)

    return cast(Function, on_its_mesh)


def on_own_devices(function: Function) -> Function:
    """A function that runs on devices of its own, whatever mesh `jax.set_mesh` has set.

    What it sends there is asked for by its call, as `jax.transfer_guard` has it.

    Use this when a function on the host spreads its work over a mesh that it makes itself.
    """

    @wraps(function)
    def without_mesh(*args: Any, **kwargs: Any) -> Any:
        with jax.transfer_guard_host_to_device("allow"):
            if jax.sharding.get_abstract_mesh().empty:
                return function(*args, **kwargs)
            with jax.set_mesh(Mesh(np.empty((), object), ())):
                return function(*args, **kwargs)

    return cast(Function, without_mesh)


def _with_values(call: Callable[[list[Any]], Any], leaves: list[Any]) -> Any:
    """The call on the same arrays, as arrays of a mesh with Auto axes."""
    explicit_meshes = {}

    def auto_of(mesh: Mesh) -> Mesh:
        auto = Mesh(mesh.devices, mesh.axis_names)
        explicit_meshes[auto] = mesh
        return auto

    def as_auto(array: Any) -> Any:
        mesh = _mesh_of(array)
        if not _is_explicit(mesh):
            return array
        return jax.device_put(array, NamedSharding(auto_of(mesh), array.sharding.spec))

    def as_explicit(array: Any) -> Any:
        mesh = explicit_meshes.get(_mesh_of(array))
        if mesh is None:
            return array
        return jax.device_put(array, NamedSharding(mesh, array.sharding.spec))

    leaves = [as_auto(leaf) for leaf in leaves]
    context = jax.sharding.get_mesh()
    with jax.set_mesh(auto_of(context)) if _is_explicit(context) else nullcontext():
        return jax.tree.map(as_explicit, call(leaves))


def _traced(call: Callable[[list[Any]], Any], leaves: list[Any], mesh: Any) -> Any:
    """The call within a `jit` on a mesh with Explicit axes."""
    places = [i for i, leaf in enumerate(leaves) if isinstance(leaf, jax.Array)]
    arrays = [leaves[i] for i in places]

    def of_arrays(*arrays: jax.Array) -> Any:
        whole = list(leaves)
        for i, array in zip(places, arrays, strict=True):
            whole[i] = array
        return call(whole)

    largest = max(arrays, key=lambda array: array.ndim, default=np.zeros(()))
    rows = largest.shape[:-1]
    spec = jax.typeof(largest).sharding.spec[: len(rows)]

    def spread(result: Any) -> NamedSharding:
        same = result.shape[: len(rows)] == rows
        return NamedSharding(mesh, PartitionSpec(*spec) if same else PartitionSpec())

    with jax.sharding.use_abstract_mesh(AbstractMesh((), ())):
        results = jax.eval_shape(
            of_arrays, *(jax.ShapeDtypeStruct(x.shape, x.dtype) for x in arrays)
        )
    return jax.sharding.auto_axes(of_arrays, out_sharding=jax.tree.map(spread, results))(*arrays)
