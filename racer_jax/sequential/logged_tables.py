"""What a table of logged answers must hold; nothing here imports JAX.

So a command says what its table lacks before it waits for JAX.
"""

import numpy as np

from racer_jax.data.table import RoutingTable


def check_table(table: object) -> None:
    """Refuses what is no table. Use this when a table comes from outside."""
    if not isinstance(table, RoutingTable):
        raise TypeError(f"table must be a RoutingTable, got {type(table).__name__}")


def check_logged(table: RoutingTable) -> None:
    """Refuses a table without rows or without answers. Use this when a step reads answers.

    Raises:
      ValueError: If it has none.
    """
    check_table(table)
    if table.answers is None:
        raise ValueError(
            "the table must hold the answer of every model: stopping early reads answers, and this "
            "table has labels alone (answers is None)"
        )
    if not len(table):
        raise ValueError("the table must hold at least one query, got none")


def check_labels(table: RoutingTable) -> None:
    """Refuses a table with labels that are missing. Use this when a loss needs labels."""
    check_table(table)
    if table.missing is not None:
        row, model = np.argwhere(table.missing)[0]
        raise ValueError(
            "the table must hold every label: that of query "
            f"{table.ids[row]!r} and model {table.models[model]!r} is missing; drop such queries "
            "(table.complete()) or use the loss 'differs', which needs none"
        )


def is_unlabelled(table: RoutingTable) -> bool:
    """Whether a table has no label at all. Use this when a step works with and without labels."""
    return len(table) > 0 and table.missing is not None and bool(table.missing.all())


def check_training(table: RoutingTable, loss: str, reference: str, objective: str) -> None:
    """Refuses a table that a policy cannot be learned from.

    Use this when the rows that train a policy are known.

    Args:
      table: The training rows.
      loss: What stopping early shall not incur.
      reference: Whose answer is the measure.
      objective: What the order saves.

    Raises:
      ValueError: If it lacks the answers, labels or costs that these need.
    """
    check_logged(table)
    label_free = loss == "differs" and is_unlabelled(table)
    if not label_free:
        check_labels(table)
    if label_free and reference == "best":
        raise ValueError("reference 'best' needs labels, which say what model that is: got none")
    if objective == "dollars" and mean_filled(table.cost) is None:
        raise ValueError("objective 'dollars' needs the cost of every model's answers, got none")


def mean_filled(cost: np.ndarray | None) -> np.ndarray | None:
    """Dollars `[n, m]` with a model's mean where its cost is not known.

    None where a model has none.

    Use this when costs of calls are compared.
    """
    if cost is None or np.isnan(cost).all(axis=0).any():
        return None
    return np.where(np.isnan(cost), np.nanmean(cost, axis=0), cost)
