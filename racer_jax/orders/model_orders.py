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

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from racer_jax.core.nonconformity import NullMode, check_null, null_nonconformity
from racer_jax.orders.coverage_gain import static_order
from racer_jax.orders.learned_gains import LearnedGains
from racer_jax.orders.racer_j import RacerJ

STATIC, BLEND, LEARNED = "static", "J", "J_learned"
ORDERS = (STATIC, BLEND, LEARNED)
# What a group goes by that has no training rows.
OTHER = "(any other group)"
# The neighbours of the blend, and their weight.
NEIGHBORS, WEIGHT = 200, 0.3


@dataclass(frozen=True, eq=False)
class StaticOrder:
    """The static order of each group, by which every query of it goes.

    E(x, m) = 1 - the share m adds (`static_order`).

    Attributes:
      real: Nonconformity of the real models, float32 `[g, m]`.
      groups: Names of the groups, `[g]`; None where there are none.
    """

    real: np.ndarray
    groups: tuple[str, ...] | None

    @classmethod
    def fit(cls, correct: np.ndarray, groups: Sequence[str] | None) -> "StaticOrder":
        """The order of each group's rows, bool `[n, m]`."""
        known = None if groups is None else tuple(dict.fromkeys(groups))
        parts = (
            [correct]
            if known is None
            else [correct[np.array([g == name for g in groups or ()])] for name in known]
        )
        return cls(np.stack([np.asarray(static_order(part))[:-1] for part in parts]), known)

    def __call__(
        self, embeddings: ArrayLike, groups: Sequence[str] | None, null: NullMode
    ) -> np.ndarray:
        """Nonconformity `[n, m + 1]` of queries, whose embeddings it does not look at."""
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


@dataclass(frozen=True, eq=False)
class Order:
    """An order of the models for each query, learned from training rows.

    Attributes:
      kind: `static`, `J` or `J_learned`.
      model: What was learned; where it has groups, the last is `OTHER`.
    """

    kind: str
    model: Model

    @property
    def by_group(self) -> bool:
        """Whether queries must say their group."""
        return self.model.groups is not None

    def __call__(
        self, embeddings: ArrayLike, groups: Sequence[str | None] | None, null: NullMode
    ) -> np.ndarray:
        """Nonconformity of queries.

        Args:
          embeddings: Floating `[n, d]`.
          groups: The group of each query; ignored where the training rows had none.
          null: The null mode.

        Returns:
          float32 `[n, m + 1]`, null model last.
        """
        names = None
        if self.model.groups is not None:
            known = set(self.model.groups)
            num = len(np.asarray(embeddings))
            names = [name if name in known else OTHER for name in groups or [None] * num]
        return np.asarray(self.model(embeddings, names, null))


def fit_order(
    kind: str, embeddings: ArrayLike, correct: np.ndarray, groups: Sequence[str] | None
) -> Order:
    """Learns an order from training rows; deterministic.

    Args:
      kind: `static`, `J` or `J_learned`.
      embeddings: Of the training queries, floating `[n, d]`.
      correct: Whether each model got each right, bool `[n, m]`.
      groups: The group of each, or None.

    Returns:
      The order.

    Raises:
      ValueError: If the kind is unknown.
    """
    if kind not in ORDERS:
        raise ValueError(f"an order must be one of {ORDERS}, got {kind!r}")
    if kind == STATIC:
        static = StaticOrder.fit(correct, groups)
        if static.groups is not None:
            real = np.concatenate([static.real, StaticOrder.fit(correct, None).real])
            static = StaticOrder(real, (*static.groups, OTHER))
        return Order(kind, static)
    if kind == BLEND:
        blend = RacerJ.fit(
            embeddings, correct, groups=groups, k=min(NEIGHBORS, len(correct)), w=WEIGHT
        )
        if blend.groups is not None:
            share = np.bincount(np.asarray(blend.of_row), minlength=len(blend.patterns)) / len(
                correct
            )
            prior = jnp.concatenate([blend.prior, jnp.asarray(share, jnp.float32)[None]])
            blend = replace(blend, prior=prior, groups=(*blend.groups, OTHER))
        return Order(kind, blend)
    learned = LearnedGains.fit(embeddings, correct, groups=groups)
    if learned.groups is not None:
        whole = LearnedGains.fit(embeddings, correct)
        order, weights, bias = (
            jnp.concatenate([getattr(learned, name), getattr(whole, name)])
            for name in ("order", "weights", "bias")
        )
        learned = replace(
            learned, order=order, weights=weights, bias=bias, groups=(*learned.groups, OTHER)
        )
    return Order(kind, learned)
