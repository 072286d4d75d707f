"""Orders of the models learned from training rows, as a racer uses them.

The static order and RACER-J.

`inverse_probability` and `gap` need scores and nothing else. These need labelled rows to learn
from, the training rows and no others, so that the queries to calibrate on and those to come stay
exchangeable:

- `static`: the greedy cover of a group's training rows, the same for every query.
- `J`: RACER-J, which blends the group's rows with the query's nearest neighbours
  (`racer_jax.orders.racer_j`).
- `J_learned`: the static order, each model's gain learned from the query
  (`racer_jax.orders.learned_gains`).

Where the training rows have groups each has its own order; a group that is not among them gets that
of all rows.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from racer_jax._arrays import given
from racer_jax.core.checks import on_device
from racer_jax.core.nonconformity import NullMode
from racer_jax.orders.learned_gains import LearnedGains
from racer_jax.orders.racer_j import RacerJ
from racer_jax.orders.static_orders import Prices, StaticOrder

STATIC, BLEND, LEARNED = "static", "J", "J_learned"
# What a group goes by that has no training rows.
OTHER = "(any other group)"
# The orders that can mind what the models cost.
PRICED = (STATIC, BLEND)
# The neighbours of the blend, and their weight.
NEIGHBORS, WEIGHT = 200, 0.3


@dataclass(frozen=True, eq=False)
class RestrictedOrder:
    """An order of the whole pool, of which some models are called.

    Attributes:
      model: The order of the whole pool.
      columns: Places of those models in the pool.
      options: Further arguments of the order, by name.

    Use this when an order of your own cannot say what it is without some of its models.
    """

    model: Any
    columns: tuple[int, ...]
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def groups(self) -> tuple[str, ...] | None:
        """The groups that the order knows."""
        groups: tuple[str, ...] | None = self.model.groups
        return groups

    def __call__(
        self, embeddings: ArrayLike, groups: Sequence[str] | None, null: NullMode
    ) -> np.ndarray:
        """Nonconformity `[n, m + 1]` of those models, the null model's as in the whole pool.

        Use this when you want what `critical_scores` and `prediction_sets` take.
        """
        whole = np.asarray(self.model(embeddings, groups, null, **self.options))
        return whole[:, [*self.columns, whole.shape[1] - 1]]


# An order of a caller's own has any type.
Model: TypeAlias = Any
Parts: TypeAlias = tuple[dict[str, Any], dict[str, np.ndarray]]
# What of a model is written to disk: its arrays, and its settings.
_ARRAYS = {
    STATIC: ("real",),
    BLEND: ("train", "of_row", "prior", "patterns"),
    LEARNED: ("order", "weights", "bias"),
}
# What an older version did not write.
_LATER: dict[str, tuple[str, ...]] = {STATIC: ("patterns", "counts"), BLEND: (), LEARNED: ()}
_SETTINGS: dict[str, tuple[str, ...]] = {STATIC: (), BLEND: ("k", "w"), LEARNED: ("ridge",)}


@dataclass(frozen=True, eq=False)
class Order:
    """An order of the models for each query, learned from training rows.

    Attributes:
      kind: `static`, `J` or `J_learned`.
      model: The learned model; where it has groups, the last one is
        `"(any other group)"`.
      prices: What the models cost, where the order minds it; else None.

    Use this when code must treat every kind of order alike, for example to save and load one;
    `fit_order` makes it.
    """

    kind: str
    model: Model
    prices: Prices | None = None

    def to_parts(
        self, prefix: str = "order", own_part: Callable[[Any, str], Parts] | None = None
    ) -> Parts:
        """The order in pieces: a description in plain values, and arrays by name.

        Use this when you write an order to a file; `from_parts` reads it back.

        Args:
          prefix: Prefix of the names of the arrays.
          own_part: What makes pieces of the model of a registered order; None to refuse it.

        Raises:
          ValueError: If it is a registered order and that is None.
        """
        groups = None if self.model.groups is None else list(self.model.groups)
        description: dict[str, Any] = {"kind": self.kind, "groups": groups}
        if self.kind not in _ARRAYS and own_part is not None:
            inside = self.model
            if isinstance(inside, RestrictedOrder):
                description["columns"] = list(inside.columns)
                inside = inside.model
            description["model"], arrays = own_part(inside, prefix)
            return description, arrays
        if self.kind not in _ARRAYS:
            raise ValueError(f"an order of kind {self.kind!r} cannot be saved")
        description |= {name: getattr(self.model, name) for name in _SETTINGS[self.kind]}
        values = {name: getattr(self.model, name) for name in _ARRAYS[self.kind]}
        later = {name: getattr(self.model, name) for name in _LATER[self.kind]}
        values |= {name: value for name, value in later.items() if value is not None}
        arrays = {f"{prefix}.{name}": np.asarray(value) for name, value in values.items()}
        if self.kind == BLEND:  # 0 or 1: a byte each
            arrays[f"{prefix}.patterns"] = arrays[f"{prefix}.patterns"].astype(np.uint8)
        if self.prices is not None:
            description["gamma"] = self.prices.gamma
            arrays[f"{prefix}.cost"] = self.prices.cost
        return description, arrays

    @classmethod
    def from_parts(
        cls,
        description: Mapping[str, Any],
        arrays: Mapping[str, np.ndarray],
        prefix: str = "order",
        own_part: Callable[[Mapping[str, Any], str], Any] | None = None,
    ) -> "Order":
        """The order of `to_parts`.

        Use this when you read an order that `to_parts` wrote.

        Args:
          description: From `to_parts`.
          arrays: Its arrays.
          prefix: Prefix of the names of the arrays.
          own_part: What gives the model of a registered order; None where there is none.

        Raises:
          KeyError: If an array or a setting is missing.
          ValueError: If the description is not of an order.
        """
        kind = description.get("kind")
        if kind in ORDERS and "model" in description and own_part is not None:
            model = own_part(description["model"], prefix)
            if "columns" in description:
                model = RestrictedOrder(model, tuple(description["columns"]))
            return cls(kind, model)
        if kind not in _ARRAYS:
            raise ValueError(
                f"an order of kind {kind!r} is not known: register it first (register_order)"
            )
        groups = None if description["groups"] is None else tuple(description["groups"])
        fields = {name: np.asarray(arrays[f"{prefix}.{name}"]) for name in _ARRAYS[kind]}
        prices = None
        if "gamma" in description:
            prices = Prices(np.asarray(arrays[f"{prefix}.cost"]), float(description["gamma"]))
        if kind == STATIC:
            later = {name: arrays.get(f"{prefix}.{name}") for name in _LATER[kind]}
            return cls(kind, StaticOrder(fields["real"], groups, **later), prices)
        if "patterns" in fields:
            fields["patterns"] = fields["patterns"].astype(np.float32)
        arrays_of = {name: on_device(array) for name, array in fields.items()}
        if kind == LEARNED:
            return cls(
                kind,
                LearnedGains(**arrays_of, groups=groups, ridge=float(description["ridge"])),
            )
        k, w = int(description["k"]), float(description["w"])
        return cls(kind, RacerJ(**arrays_of, groups=groups, k=k, w=w), prices)

    @property
    def by_group(self) -> bool:
        """Whether queries must say their group."""
        return self.model.groups is not None

    @property
    def reads_embeddings(self) -> bool:
        """Whether the order depends on the query, and not on its group alone."""
        return bool(getattr(self.model, "reads_embeddings", True))

    def of_models(self, columns: Sequence[int]) -> "Order":
        """The order of some of the models, learned from the same training rows.

        Use this when a model leaves the pool; nothing is trained.

        Args:
          columns: Their places in the pool.
        """
        prices = None
        if self.prices is not None:
            prices = Prices(self.prices.cost[list(columns)], self.prices.gamma)
        if self.kind == STATIC:
            return Order(self.kind, self.model.of_models(columns, prices), prices)
        if hasattr(self.model, "of_models"):
            return Order(self.kind, self.model.of_models(columns), prices)
        return Order(self.kind, RestrictedOrder(self.model, tuple(columns)))

    def __call__(
        self, embeddings: ArrayLike, groups: Sequence[str | None] | None, null: NullMode
    ) -> np.ndarray:
        """Nonconformity of queries.

        Use this when you want what `critical_scores` and `prediction_sets` take; groups that were
        not in training get the order of all rows.

        Args:
          embeddings: Floating `[n, d]`.
          groups: The group of each query; ignored where the training rows had none.
          null: The null mode.

        Returns:
          float32 `[n, m + 1]`, null model last.
        """
        names = None
        if self.model.groups is not None:
            group_names = set(self.model.groups)
            num = len(np.asarray(embeddings))
            names = [name if name in group_names else OTHER for name in groups or [None] * num]
        options = {}
        if self.prices is not None and self.kind == BLEND:  # the static order has them in it
            options = self.prices._asdict()
        whole = self.model(embeddings, names, null, **options)
        return np.asarray(given("the order's nonconformity", whole))


def _static(
    embeddings: ArrayLike,
    correct: np.ndarray,
    groups: Sequence[str] | None,
    prices: Prices | None = None,
) -> Model:
    """The static order of each group, and of all rows for other groups."""
    static = StaticOrder.fit(correct, groups, prices)
    if static.groups is None:
        return static
    whole = StaticOrder.fit(correct, None, prices)
    if static.counts is None or whole.counts is None:
        raise AssertionError("an order that was just learned knows its rows")
    return StaticOrder(
        np.concatenate([static.real, whole.real]),
        (*static.groups, OTHER),
        static.patterns,
        np.concatenate([static.counts, whole.counts]),
    )


def _blend(embeddings: ArrayLike, correct: np.ndarray, groups: Sequence[str] | None) -> Model:
    """RACER-J; other groups have the shares of all rows."""
    num_neighbors = min(NEIGHBORS, len(correct))
    blend = RacerJ.fit(embeddings, correct, groups=groups, k=num_neighbors, w=WEIGHT)
    if blend.groups is None:
        return blend
    share = np.bincount(np.asarray(blend.of_row), minlength=len(blend.patterns)) / len(correct)
    prior = jnp.concatenate([blend.prior, jnp.asarray(share, jnp.float32)[None]])
    return replace(blend, prior=prior, groups=(*blend.groups, OTHER))


def _learned(embeddings: ArrayLike, correct: np.ndarray, groups: Sequence[str] | None) -> Model:
    """Learned gains; other groups have those of all rows."""
    model = LearnedGains.fit(embeddings, correct, groups=groups)
    if model.groups is None:
        return model
    whole = LearnedGains.fit(embeddings, correct)
    arrays: dict[str, Any] = {
        name: jnp.concatenate([getattr(model, name), getattr(whole, name)])
        for name in ("order", "weights", "bias")
    }
    return replace(model, groups=(*model.groups, OTHER), **arrays)


Fit: TypeAlias = Callable[[ArrayLike, np.ndarray, Sequence[str] | None], Any]
ORDERS: dict[str, Fit] = {STATIC: _static, BLEND: _blend, LEARNED: _learned}
"""Orders by name: what learns each from embeddings, correctness and groups of training rows.

Use this when you list the orders there are; `register_order` adds one.
"""


def register_order(name: str, fit: Fit) -> None:
    """Adds an order to those that go by a name.

    A program that loads an artefact with it registers it first, and passes the model that `fit`
    gave as `Racer.load(order=...)`.

    Args:
      name: Its name.
      fit: A function of embeddings `[n, d]`, correctness bool `[n, m]` and groups or None to a
        model: called with embeddings, groups and the null mode it gives nonconformity float32
        `[n, m + 1]`; its `groups`, None or a tuple, are its groups,
        `"(any other group)"` last.

    Raises:
      ValueError: If the name is taken.

    Use this when an order of your own is to be chosen by name.
    """
    if name in ORDERS:
        raise ValueError(f"the order {name!r} is there already")
    ORDERS[name] = fit


def fit_order(
    kind: str,
    embeddings: ArrayLike,
    correct: np.ndarray,
    groups: Sequence[str] | None,
    prices: Prices | None = None,
) -> Order:
    """Learns an order from training rows; deterministic.

    Args:
      kind: One of `ORDERS`: `static`, `J`, `J_learned`, or a registered one.
      embeddings: Embeddings of the training queries, floating `[n, d]`.
      correct: Whether each model got each right, bool `[n, m]`.
      groups: The group of each, or None.
      prices: What the models cost, where the order shall mind it: `static` and `J` can. The promise
        is the same; sets become cheaper and hold more models.

    Returns:
      What was learned; called with embeddings, it gives nonconformity.

    Raises:
      TypeError: If a cost is not numeric.
      ValueError: If the kind is unknown or cannot mind the cost, or a cost is not above 0.

    Use this when sets are to hold models that answer what the others do not.
    """
    if kind not in ORDERS:
        raise ValueError(f"an order must be one of {tuple(ORDERS)}, got {kind!r}")
    if prices is None:
        return Order(kind, ORDERS[kind](embeddings, correct, groups))
    if kind not in PRICED:
        raise ValueError(f"an order that minds the cost must be one of {PRICED}, got {kind!r}")
    if kind == STATIC:
        return Order(kind, _static(embeddings, correct, groups, prices), prices)
    return Order(kind, ORDERS[kind](embeddings, correct, groups), prices)
