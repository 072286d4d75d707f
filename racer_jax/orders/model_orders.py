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
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from racer_jax.core.nonconformity import NullMode, check_null, null_nonconformity
from racer_jax.orders.coverage_gain import static_order
from racer_jax.orders.learned_gains import LearnedGains
from racer_jax.orders.racer_j import RacerJ

STATIC, BLEND, LEARNED = "static", "J", "J_learned"
# What a group goes by that has no training rows.
OTHER = "(any other group)"
# The neighbours of the blend, and their weight.
NEIGHBORS, WEIGHT = 200, 0.3


@dataclass(frozen=True, eq=False)
class StaticOrder:
    """The static order of each group, the same for every query of the group.

    E(x, m) = 1 - the share m adds (`static_order`).

    Attributes:
      real: Nonconformity of the real models, float32 `[g, m]`.
      groups: Names of the groups, `[g]`; None where there are none.

    Use this when the order of the models should depend on the group alone, as a baseline or where
    embeddings say nothing; `static_order` gives it for one set of rows.
    """

    real: np.ndarray
    groups: tuple[str, ...] | None

    @classmethod
    def fit(cls, correct: np.ndarray, groups: Sequence[str] | None) -> "StaticOrder":
        """The order of each group's rows, bool `[n, m]`.

        Use this when you have labelled training rows, with or without groups; calibrate on other
        rows.
        """
        names = None if groups is None else tuple(dict.fromkeys(groups))
        parts = (
            [correct]
            if names is None
            else [correct[np.array([g == name for g in groups or ()])] for name in names]
        )
        return cls(np.stack([np.asarray(static_order(part))[:-1] for part in parts]), names)

    def __call__(
        self, embeddings: ArrayLike, groups: Sequence[str] | None, null: NullMode
    ) -> np.ndarray:
        """Nonconformity `[n, m + 1]` of queries; only the number of the embeddings is used.

        Use this when you want what `critical_scores` and `prediction_sets` take.
        """
        check_null(null)
        place = {name: i for i, name in enumerate(self.groups or ())}
        codes = (
            [0] * len(np.asarray(embeddings))
            if groups is None
            else [place[name] for name in groups]
        )
        real = self.real[codes]
        # E = 1 - gain, so the largest score is the first gain.
        null_column = np.asarray(
            null_nonconformity(jnp.asarray(1 - real.min(axis=1, keepdims=True)), null)
        )
        return np.concatenate([real, null_column], axis=1).astype(np.float32)


Model: TypeAlias = StaticOrder | RacerJ | LearnedGains
# What of a model is written to disk: its arrays, and its settings.
_ARRAYS = {
    STATIC: ("real",),
    BLEND: ("train", "of_row", "prior", "patterns"),
    LEARNED: ("order", "weights", "bias"),
}
_SETTINGS: dict[str, tuple[str, ...]] = {STATIC: (), BLEND: ("k", "w"), LEARNED: ("ridge",)}


@dataclass(frozen=True, eq=False)
class Order:
    """An order of the models for each query, learned from training rows.

    Attributes:
      kind: `static`, `J` or `J_learned`.
      model: The learned model; where it has groups, the last one is `OTHER`.

    Use this when code must treat every kind of order alike, for example to save and load one;
    `fit_order` makes it.
    """

    kind: str
    model: Model

    def to_parts(self, prefix: str = "order") -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """The order in pieces: a description in plain values, and arrays by name.

        Use this when you write an order to a file; `from_parts` reads it back.
        """
        groups = None if self.model.groups is None else list(self.model.groups)
        description: dict[str, Any] = {"kind": self.kind, "groups": groups}
        if self.kind not in _ARRAYS:
            raise ValueError(f"an order of kind {self.kind!r} cannot be saved")
        description |= {name: getattr(self.model, name) for name in _SETTINGS[self.kind]}
        names = _ARRAYS[self.kind]
        arrays = {f"{prefix}.{name}": np.asarray(getattr(self.model, name)) for name in names}
        if self.kind == BLEND:  # 0 or 1: a byte each
            arrays[f"{prefix}.patterns"] = arrays[f"{prefix}.patterns"].astype(np.uint8)
        return description, arrays

    @classmethod
    def from_parts(
        cls,
        description: Mapping[str, Any],
        arrays: Mapping[str, np.ndarray],
        prefix: str = "order",
    ) -> "Order":
        """The order of `to_parts`.

        Use this when you read an order that `to_parts` wrote.

        Raises:
          KeyError: If an array or a setting is missing.
          ValueError: If the description is not of an order.
        """
        kind = description.get("kind")
        if kind not in _ARRAYS:
            raise ValueError(f"an order of kind {kind!r} is not known")
        groups = None if description["groups"] is None else tuple(description["groups"])
        fields = {name: np.asarray(arrays[f"{prefix}.{name}"]) for name in _ARRAYS[kind]}
        if kind == STATIC:
            return cls(kind, StaticOrder(fields["real"], groups))
        on_device = {name: jnp.asarray(array) for name, array in fields.items()}
        if kind == LEARNED:
            return cls(
                kind,
                LearnedGains(**on_device, groups=groups, ridge=float(description["ridge"])),
            )
        on_device["patterns"] = on_device["patterns"].astype(jnp.float32)
        k, w = int(description["k"]), float(description["w"])
        return cls(kind, RacerJ(**on_device, groups=groups, k=k, w=w))

    @property
    def by_group(self) -> bool:
        """Whether queries must say their group."""
        return self.model.groups is not None

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
        return np.asarray(self.model(embeddings, names, null))


def _static(embeddings: ArrayLike, correct: np.ndarray, groups: Sequence[str] | None) -> Model:
    """The static order of each group, and of all rows for other groups."""
    static = StaticOrder.fit(correct, groups)
    if static.groups is None:
        return static
    real = np.concatenate([static.real, StaticOrder.fit(correct, None).real])
    return StaticOrder(real, (*static.groups, OTHER))


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
# Name -> what learns the order from embeddings, correctness and groups of the training rows.
ORDERS: dict[str, Fit] = {STATIC: _static, BLEND: _blend, LEARNED: _learned}


def register_order(name: str, fit: Fit) -> None:
    """Adds an order to those that go by a name; a racer with it cannot be saved.

    Args:
      name: Its name.
      fit: A function of embeddings `[n, d]`, correctness bool `[n, m]` and groups or None to a
        model: called with embeddings, groups and the null mode it gives nonconformity float32
        `[n, m + 1]`; its `groups`, None or a tuple, are its groups, `OTHER` last.

    Raises:
      ValueError: If the name is taken.

    Use this when an order of your own is to be chosen by name.
    """
    if name in ORDERS:
        raise ValueError(f"the order {name!r} is there already")
    ORDERS[name] = fit


def fit_order(
    kind: str, embeddings: ArrayLike, correct: np.ndarray, groups: Sequence[str] | None
) -> Order:
    """Learns an order from training rows; deterministic.

    Args:
      kind: One of `ORDERS`: `static`, `J`, `J_learned`, or a registered one.
      embeddings: Embeddings of the training queries, floating `[n, d]`.
      correct: Whether each model got each right, bool `[n, m]`.
      groups: The group of each, or None.

    Returns:
      The order.

    Raises:
      ValueError: If the kind is unknown.

    Use this when sets are to hold models that answer what the others do not.
    """
    if kind not in ORDERS:
        raise ValueError(f"an order must be one of {tuple(ORDERS)}, got {kind!r}")
    return Order(kind, ORDERS[kind](embeddings, correct, groups))
