r"""RACER-J on training queries.

Weights that blend a query's whole group with its nearest neighbours.

  W(x) = (1 - w) G(x) + w N(x)

G(x) is uniform over the training rows of the query's group (or over all), N(x) over the k nearest.
w = 0 is the static order of the group, w = 1 pure nearest neighbours. The group says how the models
cover each other, the neighbours what this query asks for; where the signal is weak the blend stays
close to the static order. Rows of one pattern of correctness are gathered before the order is made,
so its cost depends on the number of patterns.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import ArrayLike

from racer_jax.core.checks import on_device
from racer_jax.core.nonconformity import NullMode, check_null
from racer_jax.orders.coverage_gain import block_size, discounts, distinct_patterns, greedy
from racer_jax.routers.base import check_embeddings, check_training
from racer_jax.routers.knn import neighbor_weights, unit_rows


def as_codes(groups: Sequence[str] | None, num: int) -> tuple[tuple[str, ...] | None, np.ndarray]:
    """The names of the training groups in order of appearance, and the number of each row's.

    One group where None.

    Use this when training rows have names of groups.
    """
    names = None if groups is None else tuple(dict.fromkeys(groups))
    return names, np.asarray(group_codes(groups, names, num))


def group_codes(groups: Sequence[str] | None, names: Sequence[str] | None, num: int) -> jax.Array:
    """The place of each query's group among the training groups, int32 `[n]`.

    Zeros where there are none.

    Use this when queries have names of groups and the order was fitted by group.

    Raises:
      TypeError: If `groups` is a single string.
      ValueError: If groups are given where there are none or the reverse, there is not one for each
        query, or one is not known.
    """
    if isinstance(groups, str):
        raise TypeError(f"groups must be a sequence of names, got the one string {groups!r}")
    if (groups is None) != (names is None):
        raise ValueError(
            "groups must be given where the training rows have them, and only there: got "
            f"{'none' if groups is None else 'some'}, trained on {names or 'none'}"
        )
    if groups is None or names is None:
        return on_device(np.zeros(num, np.int32))
    if len(groups) != num:
        raise ValueError(
            f"groups must name one group for each of the {num} queries, got {len(groups)}"
        )
    place = {name: i for i, name in enumerate(names)}
    for i, name in enumerate(groups):
        if name not in place:
            raise ValueError(
                f"groups must be among those of the training rows, {tuple(names)}, got {name!r} "
                f"at [{i}]"
            )
    return on_device(np.array([place[name] for name in groups], np.int32))


@partial(
    jax.tree_util.register_dataclass,
    data_fields=("train", "of_row", "patterns", "prior"),
    meta_fields=("groups", "k", "w"),
)
@dataclass(frozen=True)
class RacerJ:
    """RACER-J with training rows weighted for each query; it gives nonconformity, not scores.

    Attributes:
      train: Embeddings of the training queries, scaled to length 1, float32 `[n, d]`.
      of_row: The pattern of each training query, int32 `[n]`.
      patterns: Whether each model is right, 0 or 1, float32 `[s, m]`.
      prior: Share of each pattern among the rows of each group, float32 `[g, s]`; one row where
        there are no groups.
      groups: Names of the groups, `[g]`; None where there are none.
      k: Number of neighbours.
      w: Weight of the neighbours, in [0, 1].

    Use this when the training queries near a query say more about it than its group alone;
    `StaticOrder` uses the group alone, and `coverage_gain` takes weights of your own.

    >>> model = RacerJ.fit(jnp.eye(3), [[1, 0], [1, 1], [0, 1]], k=1, w=0.5)
    >>> model(jnp.array([[0.0, 0.0, 1.0]])).round(3).tolist()
    [[0.8330000638961792, 0.16700001060962677, -inf]]
    """

    train: jax.Array
    of_row: jax.Array
    patterns: jax.Array
    prior: jax.Array
    groups: tuple[str, ...] | None
    k: int
    w: float

    @classmethod
    def fit(
        cls,
        embeddings: ArrayLike,
        correct: ArrayLike,
        *,
        groups: Sequence[str] | None = None,
        k: int = 200,
        w: float = 0.3,
    ) -> "RacerJ":
        """Keeps the training queries; there is nothing to learn.

        Use this when you have labelled training rows with embeddings; calibrate on other rows.

        Args:
          embeddings: Floating `[n, d]`.
          correct: Whether each model got each query right, bool or 0/1 `[n, m]`.
          groups: Name of the group of each query, `[n]`.
          k: Number of neighbours, between 1 and n.
          w: Weight of the neighbours, in [0, 1].

        Raises:
          TypeError: If embeddings are not floating, `correct` neither boolean nor numeric, or k not
            an integer.
          ValueError: If shapes do not fit, a value is not finite or not 0/1, or k or w is out of
            range.
        """
        embeddings, right = check_training(embeddings, correct)
        num = embeddings.shape[0]
        if isinstance(k, bool) or not isinstance(k, int):
            raise TypeError(f"k must be an integer, got {k!r} of type {type(k).__name__}")
        if not 1 <= k <= num:
            raise ValueError(f"k must be between 1 and the number of training rows, {num}, got {k}")
        if not 0 <= w <= 1:
            raise ValueError(f"w must be in [0, 1], got {w}")
        names, codes = as_codes(groups, num)
        patterns = distinct_patterns(right)
        counts = np.zeros((codes.max() + 1, len(patterns.correct)))
        np.add.at(counts, (codes, patterns.of_row), 1)
        return cls(
            train=unit_rows(embeddings),
            of_row=jnp.asarray(patterns.of_row),
            patterns=jnp.asarray(patterns.correct, jnp.float32),
            prior=jnp.asarray(counts / counts.sum(axis=1, keepdims=True), jnp.float32),
            groups=names,
            k=k,
            w=float(w),
        )

    def of_models(self, columns: Sequence[int]) -> "RacerJ":
        """The same training queries for some of the models.

        Use this when a model leaves the pool: the order of the others is made anew for each query.

        Args:
          columns: Places of those models in the pool.
        """
        rows = distinct_patterns(np.asarray(self.patterns)[:, list(columns)])
        prior = np.zeros((len(self.prior), len(rows.correct)))
        np.add.at(prior.T, rows.of_row, np.asarray(self.prior, np.float64).T)
        return replace(
            self,
            patterns=jnp.asarray(rows.correct, jnp.float32),
            of_row=jnp.asarray(rows.of_row)[self.of_row],
            prior=jnp.asarray(prior, jnp.float32),
        )

    def __call__(
        self,
        embeddings: ArrayLike,
        groups: Sequence[str] | None = None,
        null: NullMode = "free",
        *,
        cost: ArrayLike | None = None,
        gamma: float = 0.5,
    ) -> jax.Array:
        """Nonconformity of queries, a block at a time.

        Use this when you want what `critical_scores` and `prediction_sets` take.

        Args:
          embeddings: Floating `[n, d]`.
          groups: Name of the group of each query, `[n]`; with, and only with, a model that was
            fitted with groups.
          null: The null mode.
          cost: As in `coverage_gain`, `[m]` or `[n, m]`.
          gamma: As in `coverage_gain`.

        Returns:
          float32 `[n, m + 1]`, null model last.

        Raises:
          TypeError: If embeddings are not floating or costs not numeric.
          ValueError: If shapes do not fit, a value is not finite, a group was not among the
            training rows, a cost is missing, not above 0 or infinite, or the null mode is unknown.
        """
        check_null(null)
        queries = check_embeddings("embeddings", embeddings, self.train.shape[1])
        num, num_models = queries.shape[0], self.patterns.shape[1]
        codes = group_codes(groups, self.groups, num)
        discount = discounts(cost, gamma, num_models)
        if discount.ndim > 2 or discount.shape[:-1] not in ((), (1,), (num,)):
            raise ValueError(
                f"cost must have shape [{num_models}] or [{num}, {num_models}], got "
                f"{discount.shape}"
            )
        discount = jnp.broadcast_to(discount, (num, num_models))
        result: jax.Array = _nonconformity(self, queries, codes, discount, null)
        return result


@partial(jax.jit, static_argnames="null")
def _nonconformity(
    model: RacerJ, queries: jax.Array, codes: jax.Array, discount: jax.Array, null: str
) -> jax.Array:
    """Nonconformity `[n, m + 1]`, a block of queries at a time."""

    def one(query: tuple[jax.Array, jax.Array, jax.Array]) -> jax.Array:
        embedding, code, discount = query
        near = neighbor_weights(embedding[None], model.train, model.k)[0]
        near = jax.ops.segment_sum(near, model.of_row, num_segments=len(model.patterns))
        return greedy(
            (1 - model.w) * model.prior[code] + model.w * near, model.patterns, discount, null
        )

    result: jax.Array = lax.map(
        one, (queries, codes, discount), batch_size=block_size(len(model.train))
    )
    return result
