"""What the models of a table cost; nothing here imports JAX."""

import numpy as np

from racer_jax.data.table import RoutingTable


def mean_cost(table: RoutingTable) -> np.ndarray | None:
    """Mean dollars of an answer of each model, float64 `[m]`; None where one is not known.

    Use this when costs are to be compared and a table may lack some.
    """
    if table.cost is None or not np.isfinite(table.cost).any(axis=0).all():
        return None
    return np.asarray(np.nanmean(table.cost, axis=0), np.float64)


def known_mean_cost(table: RoutingTable) -> np.ndarray:
    """The mean cost, where an order of the models is to depend on it.

    Use this when a table trains such an order.

    Raises:
      ValueError: If that of some model is not known.
    """
    cost = mean_cost(table)
    if cost is None:
        raise ValueError("cost_weight needs the cost of every model in the table, got none of some")
    return cost
