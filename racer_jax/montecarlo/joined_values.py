"""What many trials measured, in one array of each type: made, written and copied as one.

An array for each metric is set to zero apart and copied to the host apart. Of ten thousand trials
that is four times the memory in pieces too small for the system's large pages, and a millisecond
for each.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from racer_jax.montecarlo.plan import Shape, TrialPlan


class Rows(NamedTuple):
    """Where the values of one metric stand.

    Use this when you read what `rows_of_values` returns.

    Attributes:
      kind: Name of their type, and of the array.
      first: First row of it.
      num: Number of rows, one for each alpha; or one in all.
    """

    kind: str
    first: int
    num: int


def _is_rows(node: Any) -> bool:
    return isinstance(node, Rows)


def rows_of_values(plan: TrialPlan, shape: Shape) -> dict[str, Any]:
    """The tree of `tile_values`, with the rows of each array in the place of the array.

    Use this when the values of many tiles are kept in one array.
    """
    num_rows: dict[str, int] = {}

    def rows(kind: Any, num: int = plan.ranks.rank.shape[0]) -> Rows:
        name = jax.dtypes.canonicalize_dtype(kind).name
        first = num_rows.get(name, 0)
        num_rows[name] = first + num
        return Rows(name, first, num)

    tree: dict[str, Any] = {}
    if shape.means:
        tree["threshold"] = jax.tree.map(lambda leaf: rows(leaf.dtype), plan.threshold)
    for part in ("test",) if plan.draw.outer is None else ("test", "validation"):
        tree[part] = {}
        for metric in shape.metrics:
            whole = metric.whole and not shape.means
            tree[part][metric.name] = rows(jnp.int32 if whole else jnp.float32)
        if not shape.means:
            tree[part]["rows"] = rows(jnp.int32, 1)
    return tree


def blank(places: dict[str, Any], num_trials: int) -> dict[str, jax.Array]:
    """An array `[rows, s]` for each type.

    Use this when the first of many tiles begins.
    """
    num_rows: dict[str, int] = {}
    for rows in jax.tree.leaves(places, is_leaf=_is_rows):
        num_rows[rows.kind] = max(num_rows.get(rows.kind, 0), rows.first + rows.num)
    return {name: jnp.zeros((num, num_trials), name) for name, num in num_rows.items()}


def written(
    arrays: dict[str, jax.Array], places: dict[str, Any], values: dict[str, Any], first: jax.Array
) -> dict[str, jax.Array]:
    """The arrays with the values `[a, t]` of a tile in the columns from `first` on.

    Use this when a tile is done.
    """
    arrays = dict(arrays)
    leaves = jax.tree.leaves(places, is_leaf=_is_rows)
    for rows, value in zip(leaves, jax.tree.leaves(values), strict=True):
        arrays[rows.kind] = lax.dynamic_update_slice(arrays[rows.kind], value, (rows.first, first))
    return arrays


class JoinedValues(NamedTuple):
    """Values of trials that may still be under way.

    Use this when the devices work on while the host has other things to do.

    Attributes:
      arrays: An array `[rows, s]` for each type.
      places: Where each metric stands, from `rows_of_values`.
    """

    arrays: dict[str, jax.Array]
    places: dict[str, Any]

    def on_host(self) -> dict[str, Any]:
        """The values of each metric `[a, s]`, once they are there: parts of one host array.

        Use this when the values are needed.
        """
        arrays = {name: np.asarray(array) for name, array in self.arrays.items()}
        tree: dict[str, Any] = jax.tree.map(
            lambda rows: arrays[rows.kind][rows.first : rows.first + rows.num],
            self.places,
            is_leaf=_is_rows,
        )
        return tree
