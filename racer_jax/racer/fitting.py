"""What a racer learns from labelled questions: a router, an order, costs, and who was seen."""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from racer_jax.core.keys import check_key
from racer_jax.core.nonconformity import NONCONFORMITIES, NullMode, check_null
from racer_jax.core.scalar_checks import check_cost_weight
from racer_jax.data.table import RoutingTable
from racer_jax.encoders.adapters import as_encoder
from racer_jax.encoders.base import Encoder
from racer_jax.encoders.registry import named as named_encoder
from racer_jax.orders.coverage_gain import discounts, static_order
from racer_jax.orders.model_orders import ORDERS, PRICED, fit_order
from racer_jax.orders.static_orders import Prices
from racer_jax.racer.costs import known_mean_cost, mean_cost
from racer_jax.racer.errors import OverlapError
from racer_jax.racer.fingerprints import fingerprints, question_fingerprints
from racer_jax.racer.processes import check_process
from racer_jax.racer.scoring import Scorer
from racer_jax.racer.stages import Progress, Stages
from racer_jax.routers.adapters import as_router
from racer_jax.routers.registry import named as named_router

# What calls the fewest models at the same avoidable misses (docs/beyond.md); the paper's scores,
# RACER-P and RACER-G, come with the paper's null model.
NONCONFORMITY = "J_learned"
PAPER: NullMode = "paper"


def check_nonconformity(name: str) -> None:
    """Refuses what is neither a nonconformity score nor an order of the models.

    Use this when a nonconformity comes from a caller or a file.

    Raises:
      ValueError: If it is not.
    """
    names = (*NONCONFORMITIES, *ORDERS)
    if name not in names:
        raise ValueError(f"nonconformity must be one of {names}, got {name!r}")


def null_mode(nonconformity: str, null: NullMode | None) -> NullMode:
    """The null mode asked for; where None, the paper's for its scores and `free` for an order.

    >>> null_mode("gap", None), null_mode("J_learned", None), null_mode("gap", "never")
    ('paper', 'free', 'never')

    Use this when a null mode may be left to the nonconformity.
    """
    if null is not None:
        return null
    return "free" if nonconformity in ORDERS else PAPER


def fit_scorer(
    encoder_key: jax.Array,
    router_key: jax.Array,
    table: RoutingTable,
    router: Any,
    encoder: Encoder | str,
    nonconformity: str,
    cost_weight: float = 0.0,
    progress: Progress | None = None,
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
      cost_weight: How much the order of the models minds what they cost.
      progress: Called with each stage as it begins, and with an empty name at the end.

    Raises:
      ValueError: If the order is to mind the cost and cannot, or the costs are not known.
    """
    prices = prices_of(table, nonconformity, cost_weight)
    from racer_jax.routers.fit import fit  # imports Flax, which a racer of scores does without

    num_stages = 2 + isinstance(encoder, str) + (nonconformity in ORDERS)
    stages = Stages(num_stages, progress)
    if isinstance(encoder, str):
        stages.begin("fit the encoder")
        encoder = named_encoder(encoder, encoder_key, table.texts)
    encoder = as_encoder(encoder)
    config = named_router(router, len(table)) if isinstance(router, str) else router
    once = _EncodedOnce(encoder)
    stages.begin("encode the questions")
    once.encode(table.texts)
    stages.begin("train the router")
    fit_result = fit(router_key, table, config, once)
    stages.report = fit_result.report
    order = None
    if nonconformity in ORDERS:
        stages.begin("learn the order of the models")
        order = fit_order(
            nonconformity, once.encode(table.texts), table.correct, table.group, prices
        )
    stages.begin("")
    return Scorer(encoder, fit_result.router.router, len(table.models), order)


def own_scorer(
    encoder: Any,
    router: Any,
    models: Sequence[str],
    training: RoutingTable | None,
    nonconformity: str,
    cost_weight: float,
) -> Scorer:
    """A caller's encoder and router, and an order learned from a table where one is asked for.

    Use this when a racer is made of parts of a caller; `Racer.from_router` does it for you.

    Args:
      encoder: Anything that `as_encoder` takes.
      router: Anything that `as_router` takes.
      models: Names of the models.
      training: Labelled questions of these models, complete; None where no order is learned.
      nonconformity: Name of the nonconformity.
      cost_weight: How much the order of the models minds what they cost.

    Raises:
      TypeError: If the encoder or the router is none.
      ValueError: If there is no table to learn an order from, or no cost that it could mind.
    """
    encoder, router, order = as_encoder(encoder), as_router(router), None
    if nonconformity in ORDERS:
        if training is None:
            raise ValueError(
                f"the order {nonconformity!r} is learned from labelled questions: pass them as "
                f"training="
            )
        prices = prices_of(training, nonconformity, cost_weight)
        embeddings = encoder.encode(training.texts)
        order = fit_order(nonconformity, embeddings, training.correct, training.group, prices)
    return Scorer(encoder, router, len(models), order)


def prices_of(table: RoutingTable, nonconformity: str, cost_weight: float) -> Prices | None:
    """What the models cost, where their order is to mind it; None where it is not.

    Use this when an order of the models is learned.

    Args:
      table: Labelled questions.
      nonconformity: Name of the nonconformity.
      cost_weight: How much the order minds the cost.

    Raises:
      ValueError: If the order cannot mind it, or the costs are not known.
    """
    check_cost_weight("cost_weight", cost_weight)
    if not cost_weight:
        return None
    if nonconformity not in PRICED:
        raise ValueError(
            f"cost_weight is for an order of the models that can depend on costs, "
            f"{' or '.join(map(repr, PRICED))}, got it with nonconformity {nonconformity!r}"
        )
    cost = known_mean_cost(table)
    discounts(cost, cost_weight, len(cost))  # refuses what is no cost
    return Prices(cost, float(cost_weight))


def fitted_fields(
    key: jax.Array,
    table: RoutingTable,
    router: Any,
    encoder: Encoder | str,
    nonconformity: str,
    null: NullMode | None,
    tie_break: bool,
    cost_weight: float,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """The fields of a racer fitted to training questions; see `Racer.fit`.

    Use this when a racer is trained; `Racer.fit` does it for you.

    Raises:
      ValueError: If an option is unknown, or there are no questions.
    """
    check_key(key)
    check_nonconformity(nonconformity)
    mode = null_mode(nonconformity, null)
    check_null(mode)
    if not len(table):
        raise ValueError("table must hold training questions, got none")
    check_process()
    encoder_key, router_key, tie_key = jax.random.split(key, 3)
    return {
        "models": tuple(table.models),
        "nonconformity": nonconformity,
        "null": mode,
        "seed": int(jax.random.bits(tie_key)) if tie_break else None,
        "scorer": fit_scorer(
            encoder_key, router_key, table, router, encoder, nonconformity, cost_weight, progress
        ),
        "trained_on": np.unique(question_fingerprints(table)),
        "label_rule": label_rule(table),
        "notes": tuple(f"training: {note}" for note in table.notes),
        **table_facts(table),
    }


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
    return {"static_order": tuple(int(j) for j in order), "cost": mean_cost(table)}


def training_facts(
    models: Sequence[str], trained_on: Sequence[str], training: RoutingTable | None
) -> dict[str, Any]:
    """What a racer of parts of a caller's own knows of its training.

    Use this when a racer is not fitted here; `Racer.from_router` and `from_scores` do it for you.

    Args:
      models: Names of the models.
      trained_on: The texts of its training.
      training: Labelled questions that an order is learned from; they count as trained on.
    """
    questions = fingerprints(trained_on)
    if training is None:
        return {"trained_on": np.unique(questions)}
    table = matched(training, models)
    questions = np.concatenate([questions, question_fingerprints(table)])
    facts = {"label_rule": label_rule(table), **table_facts(table)}
    return {"trained_on": np.unique(questions), **facts}


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


def check_overlap(
    table: RoutingTable, questions: np.ndarray, trained_on: np.ndarray, allow_overlap: bool
) -> int:
    """Refuses calibration questions that were trained on; returns how many there are.

    Use this when a racer is calibrated; `Racer.calibrate` does it for you.

    Args:
      table: The calibration queries.
      questions: Fingerprints of their questions, uint64 `[n]`.
      trained_on: Those of the training questions, uint64.
      allow_overlap: Whether they are let in.

    Raises:
      OverlapError: If there are some and they are not let in.
    """
    overlap = np.isin(questions, trained_on)
    if overlap.any() and not allow_overlap:
        row = int(np.argmax(overlap))
        raise OverlapError(
            f"{int(overlap.sum())} of {len(overlap)} calibration questions were trained on, "
            f"first {table.ids[row]!r}: the router knows their answers, and the risk would be "
            f"higher than promised; leave them out, or pass allow_overlap=True to do without "
            f"the promise"
        )
    return int(overlap.sum())
