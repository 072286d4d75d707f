"""The static order of each group, and what the models cost where an order minds it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from racer_jax.core.nonconformity import NullMode, check_null, null_nonconformity
from racer_jax.orders.coverage_gain import distinct_patterns, static_order
from racer_jax.orders.racer_j import as_codes


class Prices(NamedTuple):
    """What calling each model costs, and how much an order of the models minds it.

    Attributes:
      cost: Mean dollars of an answer of each model, above 0, float64 `[m]`.
      gamma: 0 not at all, 1 the gain for each dollar, as of `coverage_gain`.

    Use this when an order shall put cheap models first where they add about as much.
    """

    cost: np.ndarray
    gamma: float


@dataclass(frozen=True, eq=False)
class StaticOrder:
    """The static order of each group, the same for every query of the group.

    E(x, m) = 1 - the share m adds (`static_order`).

    Attributes:
      real: Nonconformity of the real models, float32 `[g, m]`.
      groups: Names of the groups, `[g]`; None where there are none.
      patterns: The distinct rows of correctness of the training rows, bool `[s, m]`; None where an
        older artefact did not keep them.
      counts: How many rows of each group have each pattern, int32 `[g, s]`; None likewise.

    Use this when the order of the models should depend on the group alone, as a baseline or where
    embeddings say nothing; `static_order` gives it for one set of rows.
    """

    real: np.ndarray
    groups: tuple[str, ...] | None
    patterns: np.ndarray | None = None
    counts: np.ndarray | None = None

    @classmethod
    def fit(
        cls, correct: np.ndarray, groups: Sequence[str] | None, prices: Prices | None = None
    ) -> "StaticOrder":
        """The order of each group's rows, bool `[n, m]`.

        Use this when you have labelled training rows, with or without groups; calibrate on other
        rows.

        Args:
          correct: Whether each model got each training query right, bool `[n, m]`.
          groups: The group of each, or None.
          prices: What the models cost, where the order shall mind it.
        """
        known, codes = as_codes(groups, len(correct))
        rows = distinct_patterns(correct)
        counts = np.zeros((codes.max() + 1, len(rows.correct)), np.int32)
        np.add.at(counts, (codes, rows.of_row), 1)
        return cls._of_patterns(rows.correct, counts, known, prices)

    @classmethod
    def _of_patterns(
        cls,
        patterns: np.ndarray,
        counts: np.ndarray,
        groups: tuple[str, ...] | None,
        prices: Prices | None,
    ) -> "StaticOrder":
        """The order of groups with so many rows of each pattern."""
        rows = [np.repeat(patterns, count, axis=0) for count in counts]
        options = {} if prices is None else prices._asdict()
        real = np.stack([np.asarray(static_order(part, **options))[:-1] for part in rows])
        return cls(real, groups, patterns, counts)

    @property
    def reads_embeddings(self) -> bool:
        """Whether the order depends on the query: not this one."""
        return False

    def of_models(self, columns: Sequence[int], prices: Prices | None = None) -> "StaticOrder":
        """The static order of some of the models, learned from the same training rows.

        Use this when a model leaves the pool: those that came after it may add more without it.

        Args:
          columns: Their places in the pool.
          prices: What those models cost, where the order minds it.
        """
        chosen = list(columns)
        if self.patterns is None or self.counts is None:  # what each added stays what it was
            return StaticOrder(self.real[:, chosen], self.groups)
        return self._of_patterns(self.patterns[:, chosen], self.counts, self.groups, prices)

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
