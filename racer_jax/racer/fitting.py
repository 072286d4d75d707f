"""What a racer learns from labelled questions: a router, an order, costs, and who was seen."""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from racer_jax.core.nonconformity import NONCONFORMITIES
from racer_jax.data.table import RoutingTable
from racer_jax.encoders.base import Encoder
from racer_jax.encoders.registry import named as named_encoder
from racer_jax.orders.coverage_gain import static_order
from racer_jax.orders.model_orders import ORDERS, fit_order
from racer_jax.racer.scoring import Scorer
from racer_jax.routers.registry import named as named_router


def check_nonconformity(name: str) -> None:
    """Refuses what is neither a nonconformity score nor an order of the models.

    Use this when a nonconformity comes from a caller or a file.

    Raises:
      ValueError: If it is not.
    """
    names = (*NONCONFORMITIES, *ORDERS)
    if name not in names:
        raise ValueError(f"nonconformity must be one of {names}, got {name!r}")


def fit_scorer(
    encoder_key: jax.Array,
    router_key: jax.Array,
    table: RoutingTable,
    router: Any,
    encoder: Encoder | str,
    nonconformity: str,
) -> Scorer:
    """An encoder, a router, and an order where the nonconformity is one, fitted to questions.

    Use this when a racer is trained; `Racer.fit` does it for you.

    Args:
      encoder_key: A typed PRNG key.
      router_key: Another.
      table: Training questions with texts, every model's result.
      router: One of `racer_jax.routers.ROUTERS`, or a configuration.
      encoder: One of `racer_jax.encoders.ENCODERS`, or an encoder.
      nonconformity: Name of the nonconformity.
    """
    from racer_jax.routers.fit import fit  # imports Flax, which a racer of scores does without

    if isinstance(encoder, str):
        encoder = named_encoder(encoder, encoder_key, table.texts)
    config = named_router(router, len(table)) if isinstance(router, str) else router
    once = _EncodedOnce(encoder)
    fit_result = fit(router_key, table, config, once)
    order = None
    if nonconformity in ORDERS:
        order = fit_order(nonconformity, once.encode(table.texts), table.correct, table.group)
    return Scorer(encoder, fit_result.router.router, len(table.models), order)


class _EncodedOnce:
    """An encoder that remembers the texts it encoded last: training texts are wanted twice."""

    def __init__(self, encoder: Encoder) -> None:
        self._encoder = encoder
        self._last: tuple[tuple[str, ...], np.ndarray] | None = None

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        if self._last is None or self._last[0] != tuple(texts):
            self._last = tuple(texts), self._encoder.encode(texts)
        return self._last[1]


def label_rule(table: RoutingTable) -> str:
    """How right and wrong were decided in a table, in one line.

    Use this when two tables may have been labelled in different ways.
    """
    rules = table.rules
    if len(set(rules.values())) == 1:
        return next(iter(rules.values()))
    return "; ".join(f"{group}: {rule}" for group, rule in rules.items())


def table_facts(table: RoutingTable) -> dict[str, Any]:
    """What any labelled table shows: the static order, and the mean costs where all are known.

    Use this when a racer has no static order or costs yet.
    """
    order = np.argsort(np.asarray(static_order(table.correct))[:-1], kind="stable")
    cost = None
    if table.cost is not None and np.isfinite(table.cost).any(axis=0).all():
        cost = np.nanmean(table.cost, axis=0)
    return {"static_order": tuple(int(j) for j in order), "cost": cost}


def matched(table: RoutingTable, models: Sequence[str]) -> RoutingTable:
    """A table with its models in the order of a racer, by name.

    Use this when a table comes from outside and may have models in another order.

    Raises:
      ValueError: If the table is empty, lacks one of the models, or lacks results.
    """
    table_of_models = table.aligned(models)
    if not len(table):
        raise ValueError("table must hold at least one query, got none")
    if table_of_models.missing is not None:
        raise ValueError(
            "table must have a result of every model for every query; see RoutingTable.complete"
        )
    return table_of_models
