"""A racer without models that are down for a while: nothing is compiled for the others.

`Racer.without` gives the racer of a smaller pool, which can be saved: it has a router and an order
of its own, and its first queries wait for the compiler. A server in whose pool a model has just
died cannot wait, and 2^m - 2 such pools would fill its memory. Here the whole pool goes on being
scored by the programs that are there, and the columns of the models that are left are cut out; the
thresholds are those of `Racer.without`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jax.typing import ArrayLike

from racer_jax._arrays import given
from racer_jax.core.nonconformity import NullMode
from racer_jax.orders.masked_orders import masked
from racer_jax.orders.model_orders import Order
from racer_jax.racer.racer import Racer
from racer_jax.racer.scoring import ModelScores, Scorer, measure_scores
from racer_jax.routers.restricted import of_models

# A model whose score is 0 changes these of no other model, nor of the null model.
_PADDED = ("inverse_probability", "gap")
# Rows of the smallest batch of them that is compiled: one program serves a server's batches.
_ROWS = 64


def without_for_now(racer: Racer, *models: str) -> Racer:
    """`racer.without(*models)`, to decide with and not to save.

    Use this when a server leaves out models that are down; `Racer.without` is for models that leave
    the pool for good.

    Args:
      racer: A racer of texts; its calibration keeps its queries.
      *models: Names of the models to leave out.

    Raises:
      NoRecordError: If it was loaded from an artefact that does not keep the queries.
      ValueError: As of `Racer.without`, or if it has no router of its own.
    """
    if racer.scorer is None:
        raise ValueError("this racer has no router of its own, and nothing to compile: use without")
    whole = LiveScorer(racer.scorer, range(len(racer.models)), racer.nonconformity)
    return replace(racer, scorer=whole).without(*models)


class LiveScorer(Scorer):
    """The scorer of a pool, for some of its models and by its programs.

    Use this when you look for what `without_for_now` decides with.

    Args:
      whole: The scorer of the whole pool.
      columns: Places of the models in it.
      nonconformity: The name of their nonconformity.
    """

    def __init__(self, whole: Scorer, columns: Sequence[int], nonconformity: str) -> None:
        self._pool, self._columns, self._name = whole, list(columns), nonconformity
        self.encoder, self.num_models = whole.encoder, len(self._columns)
        self.router, self.order = of_models(whole.router, self._columns), whole.order
        if self.num_models == whole.num_models:
            return
        if whole.order is not None:
            self.order = masked(whole.order, self._columns)
        elif nonconformity in _PADDED:
            padded = _PaddedScores(tuple(self._columns), whole.num_models, nonconformity)
            self.order = Order(nonconformity, padded)

    def of_models(self, columns: Sequence[int]) -> "LiveScorer":
        """The same for fewer models. Use this when further models are down.

        Args:
          columns: Their places among these.
        """
        return LiveScorer(self._pool, [self._columns[j] for j in columns], self._name)

    def __reduce__(self) -> tuple[type["LiveScorer"], tuple[object, ...]]:
        return LiveScorer, (self._pool, self._columns, self._name)

    def __call__(
        self,
        texts: Sequence[str],
        nonconformity: str,
        null: NullMode,
        groups: Sequence[str | None] | None = None,
    ) -> ModelScores:
        """Scores and nonconformity of texts, as of `Scorer`.

        Use this when texts are to be decided on; `Racer.route` calls it.
        """
        if self._pool.order is not None:  # the programs of the pool, and this order after them
            scorer = self._pool.with_order(self.order)
            measured = scorer(texts, nonconformity, null, groups)
            scores = np.ascontiguousarray(measured.scores[:, self._columns])
            return measured._replace(scores=scores)
        whole = self._pool(texts, nonconformity, null, groups).scores
        scores = np.ascontiguousarray(whole[:, self._columns])
        if self.order is None:  # a nonconformity of the user's own: one program for each size
            return measure_scores(scores, nonconformity, null)
        return ModelScores(scores, self.order(scores, groups, null))


@dataclass(frozen=True)
class _PaddedScores:
    """The nonconformity of scores of some models, as one of the whole pool: the others score 0."""

    columns: tuple[int, ...]
    num_models: int
    nonconformity: str
    groups = None
    reads_embeddings = False

    def __call__(self, scores: ArrayLike, groups: None, null: NullMode) -> np.ndarray:
        """Nonconformity `[n, m + 1]` of scores `[n, m]`."""
        values = np.asarray(given("scores", scores), np.float32)
        padded = np.zeros((max(len(values), _ROWS), self.num_models), np.float32)
        padded[: len(values), self.columns] = values
        measured = measure_scores(padded, self.nonconformity, null).nonconformity
        return measured[: len(values), [*self.columns, self.num_models]]
