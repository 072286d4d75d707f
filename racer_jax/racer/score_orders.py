"""Orders of the models where scores come from outside: they stand in the place of embeddings.

The static order asks nothing of a query. RACER-J's neighbours of a query are the training queries
that a router scored alike.
"""

from collections.abc import Sequence
from dataclasses import replace

import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from racer_jax._arrays import given
from racer_jax.data.table import RoutingTable
from racer_jax.orders.model_orders import BLEND, ORDERS, STATIC, Order, fit_order
from racer_jax.racer.fitting import matched, prices_of
from racer_jax.racer.processes import check_process
from racer_jax.racer.scoring import ModelScores, check_given_scores, measure_scores, padded_batches
from racer_jax.routers.knn import unit_rows
from racer_jax.routers.scores import Scores

OF_SCORES = (STATIC, BLEND)


def order_of_scores(
    models: Sequence[str],
    nonconformity: str,
    training: RoutingTable | None,
    training_scores: Scores | ArrayLike | None,
    cost_weight: float,
) -> Order | None:
    """The order that a racer of scores from outside learns; None where its score is none.

    Use this when a racer is made of scores; `Racer.from_scores` does it for you.

    Args:
      models: Names of the models.
      nonconformity: Name of the nonconformity.
      training: Labelled questions; None where no order is learned.
      training_scores: Their scores `[n, m]`, which `"J"` needs.
      cost_weight: How much the order of the models minds what they cost.

    Raises:
      ValueError: If there is nothing to learn the order from, or it cannot be learned from scores.
    """
    if nonconformity not in ORDERS:
        if training_scores is not None:
            raise ValueError(
                f"training_scores are for the order {BLEND!r}, got nonconformity {nonconformity!r}"
            )
        return None
    if nonconformity not in OF_SCORES:
        raise ValueError(
            f"the order {nonconformity!r} is learned from texts: with scores use "
            f"{' or '.join(map(repr, OF_SCORES))}, or Racer.from_router"
        )
    if training is None:
        raise ValueError(
            f"the order {nonconformity!r} is learned from labelled questions: pass them "
            f"as training="
        )
    prices = prices_of(training, nonconformity, cost_weight)
    table = matched(training, models)
    if training_scores is None:
        if nonconformity == BLEND:
            raise ValueError(
                f"the order {BLEND!r} compares a query's scores with those of the training "
                f"questions: pass these as training_scores="
            )
        return fit_order(STATIC, np.zeros((len(table), 1)), table.correct, table.group, prices)
    values = named_columns(training_scores, models, "training_scores")
    if len(values) != len(table):
        raise ValueError(
            f"training_scores must have a row for each of the {len(table)} training questions, got "
            f"{len(values)}"
        )
    return fit_order(nonconformity, values, table.correct, table.group, prices)


def named_columns(
    scores: Scores | ArrayLike, models: Sequence[str], who: str = "scores"
) -> np.ndarray:
    """Scores from outside `[n, m]`, by name where they have names.

    Use this when scores come from outside and may name their models.

    Raises:
      ValueError: If one of the models has no scores, or a score is none.
    """
    if not isinstance(scores, Scores):
        return check_given_scores(scores, len(models), who)
    names = list(scores.models)
    if absent := [model for model in models if model not in names]:
        raise ValueError(
            f"{who} must be of the models {tuple(models)}, got {tuple(names)}: scores are missing "
            f"of {', '.join(map(repr, absent))}"
        )
    columns = [names.index(model) for model in models]
    return check_given_scores(np.asarray(given(who, scores.values))[:, columns], len(models), who)


def of_columns(order: Order, columns: Sequence[int]) -> Order:
    """The order of some of the models, from the scores of these alone.

    Use this when a model leaves a pool whose scores come from outside: it has no scores any more.

    Args:
      order: From `order_of_scores`.
      columns: Places of the models in the pool.
    """
    smaller = order.of_models(columns)
    if order.kind != BLEND:
        return smaller
    train = np.asarray(smaller.model.train)[:, list(columns)]
    return replace(smaller, model=replace(smaller.model, train=unit_rows(jnp.asarray(train))))


def measure_by(
    order: Order | None,
    scores: np.ndarray,
    nonconformity: str,
    null: str,
    groups: Sequence[str | None] | None,
) -> ModelScores:
    """Nonconformity of scores `[n, m]` from outside, by an order where there is one.

    Use this when scores are there and their nonconformity is needed.

    Raises:
      ValueError: If the order goes by group and there are none.
    """
    if order is None:
        return measure_scores(scores, nonconformity, null)
    if order.by_group and groups is None:
        raise ValueError(
            f"queries must have groups: the order {nonconformity!r} was learned by group, and a "
            f"query has to say which it is of"
        )
    check_process()
    parts, start = [], 0
    for batch, num in padded_batches(scores):
        names = None
        if groups is not None:
            names = [*groups[start : start + num], *[None] * (len(batch) - num)]
        parts.append(order(batch, names, null)[:num])  # type: ignore[arg-type]
        start += num
    return ModelScores(scores, np.concatenate(parts))
