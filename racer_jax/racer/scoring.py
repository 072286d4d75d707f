"""Texts to scores and nonconformity in one compiled call, for one query or a million.

What is Python (the hashing of text, and the projection of the few buckets that a text has) stays on
the host; everything after it, the router and the nonconformity, is one jitted function. Batches are
padded to powers of two, so that few shapes are ever compiled.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from racer_jax._arrays import given
from racer_jax._programs import is_known, run_small
from racer_jax.core.checks import first_bad
from racer_jax.core.nonconformity import NONCONFORMITIES, NullMode
from racer_jax.encoders.base import Encoder, Stages, check_texts
from racer_jax.orders.model_orders import Order
from racer_jax.racer.processes import check_process
from racer_jax.routers.base import Router
from racer_jax.routers.registry import pure_router
from racer_jax.routers.restricted import of_models

# Rows of the largest batch that is compiled; more are cut into batches of it.
LARGEST = 1024
# Batches that are sent off before the first is waited for.
_AHEAD = 2


class ModelScores(NamedTuple):
    """Queries as calibration and routing see them.

    Use this when you read what `Racer.score` returns.

    Attributes:
      scores: s(x, m), float32 `[n, m]`.
      nonconformity: E(x, m), float32 `[n, m + 1]`, null model last.
      embeddings: float32 `[n, d]`, where the order of the models depends on them; else None.
    """

    scores: np.ndarray
    nonconformity: np.ndarray
    embeddings: np.ndarray | None = None

    @classmethod
    def joined(cls, parts: "Sequence[ModelScores]") -> "ModelScores":
        """Queries that were measured in parts, as one.

        Use this when queries were measured batch by batch.
        """
        if len(parts) == 1:
            return parts[0]
        embeddings = [part.embeddings for part in parts if part.embeddings is not None]
        return cls(
            np.concatenate([part.scores for part in parts]),
            np.concatenate([part.nonconformity for part in parts]),
            np.concatenate(embeddings) if embeddings else None,
        )


@partial(jax.jit, static_argnames=("nonconformity", "null"))
def _measure(scores: jax.Array, nonconformity: str, null: str) -> jax.Array:
    return NONCONFORMITIES[nonconformity](scores, null)


def _padded_size(num: int) -> int:
    return 1 << (num - 1).bit_length()


def padded_batches(x: np.ndarray) -> Iterator[tuple[np.ndarray, int]]:
    """Batches padded to a power of two by repeating the first row, and how many rows are real.

    Use this when rows go through compiled code that must see few shapes.
    """
    for start in range(0, len(x), LARGEST):
        batch = x[start : start + LARGEST]
        size = _padded_size(len(batch))
        if size > len(batch):
            batch = np.concatenate(
                [batch, np.broadcast_to(batch[:1], (size - len(batch), *batch.shape[1:]))]
            )
        yield batch, min(LARGEST, len(x) - start)


def check_given_scores(scores: ArrayLike, num_models: int, who: str = "scores") -> np.ndarray:
    """Scores from outside as float32 `[n, m]`: floating, finite and in [0, 1].

    Use this when scores come from outside.
    """
    values = np.asarray(given(who, scores))
    if values.dtype.kind != "f":
        raise TypeError(f"{who} must be floating, got dtype {values.dtype}")
    if values.ndim != 2 or values.shape[1] != num_models:
        raise ValueError(
            f"{who} must have shape [n, {num_models}], one column for each model, got "
            f"{values.shape}"
        )
    if (bad := ~((values >= 0) & (values <= 1))).any():
        raise ValueError(
            f"{who} must be finite and in [0, 1], got {values[bad][0]} at {first_bad(bad)}"
        )
    return values.astype(np.float32)


def measure_scores(scores: np.ndarray, nonconformity: str, null: str) -> ModelScores:
    """Nonconformity of scores float32 `[n, m]` that came from outside.

    Use this when scores are there and their nonconformity is needed.
    """
    check_process()
    parts = [
        np.asarray(_measure(batch, nonconformity, null))[:num]
        for batch, num in padded_batches(scores)
    ]
    return ModelScores(scores, np.concatenate(parts))


class Scorer:
    """An encoder and a router, compiled together.

    Use this when texts are to be scored as a racer scores them; it pickles as what it was made of.

    Args:
      encoder: Texts to embeddings.
      router: Embeddings to scores.
      num_models: m, without the null model.
      order: The order of the models, where the nonconformity is one that is learned.
    """

    def __init__(
        self, encoder: Encoder, router: Router, num_models: int, order: Order | None = None
    ) -> None:
        self.encoder, self.router, self.num_models, self.order = encoder, router, num_models, order
        check_process()
        split = getattr(encoder, "stages", None)
        stages: Stages = Stages(encoder.encode) if split is None else split()
        self._front, back = stages.front, stages.back
        pure = pure_router(router)
        self._is_compilable = pure is not None
        if pure is None:
            return
        function, arrays = pure
        leaves, tree = jax.tree.flatten((stages.arrays, arrays))
        # Leaves in a flat list: a call flattens no modules.
        self._leaves = [jax.device_put(leaf) for leaf in leaves]

        @partial(jax.jit, static_argnames=("nonconformity", "null"))
        def forward(
            leaves: list[jax.Array], x: jax.Array, nonconformity: str, null: str
        ) -> tuple[jax.Array, jax.Array]:
            encoder_arrays, arrays = jax.tree.unflatten(tree, leaves)
            embeddings = x if back is None else back(encoder_arrays, x)
            scores = function(arrays, embeddings)
            if order is not None:  # what it needs in the place of scores
                return scores, embeddings
            return scores, NONCONFORMITIES[nonconformity](scores, null)

        self._forward = forward
        # What a program depends on beside its arrays, where all of that is the package's own code.
        self._facts: tuple[str, ...] | None = None
        parts = [function] if back is None else [function, back]
        if all(map(is_known, parts)) and "CustomNode" not in str(tree):
            names = [f"{part.__module__}.{part.__qualname__}" for part in parts]
            self._facts = (*names, str(tree), str(order is not None))

    def of_models(self, columns: Sequence[int]) -> "Scorer":
        """The same encoder and router for some of the models, in this order.

        Use this when a model leaves the pool.

        Args:
          columns: Their places in the pool.
        """
        order = None if self.order is None else self.order.of_models(columns)
        return Scorer(self.encoder, of_models(self.router, columns), len(columns), order)

    def with_order(self, order: Order | None) -> "Scorer":
        """The same programs, and another order of as many models.

        Use this when the order changes and nothing is to be compiled again.
        """
        other = object.__new__(Scorer)
        other.__dict__.update(self.__dict__ | {"order": order})
        return other

    def __reduce__(self) -> tuple[type["Scorer"], tuple[object, ...]]:
        return Scorer, (self.encoder, self.router, self.num_models, self.order)

    def __call__(
        self,
        texts: Sequence[str],
        nonconformity: str,
        null: NullMode,
        groups: Sequence[str | None] | None = None,
    ) -> ModelScores:
        """Scores and nonconformity of texts; a text gets the same alone as among others.

        Up to rounding, that is.

        Args:
          texts: `[n]`.
          nonconformity: Its name.
          null: The null mode.
          groups: The group of each text, for an order that goes by group.

        Raises:
          TypeError: If `texts` is a single string, or holds anything but strings.
          ValueError: If it is empty, a text is empty or only white space, or the router gives no
            scores.
        """
        check_process()
        texts = check_texts(texts)
        pending: list[Callable[[], ModelScores]] = []
        parts: list[ModelScores] = []
        for start in range(0, len(texts), LARGEST):
            rows = slice(start, start + LARGEST)
            pending.append(
                self._started(
                    texts[rows], nonconformity, null, None if groups is None else groups[rows]
                )
            )
            if len(pending) > _AHEAD:  # the host hashes the next texts while the device computes
                parts.append(pending.pop(0)())
        parts += [finish() for finish in pending]
        result = ModelScores.joined(parts)
        in_range = (result.scores >= 0) & (result.scores <= 1)
        if in_range.all():
            return result
        if not np.isfinite(result.scores).all():
            raise ValueError(
                "the router's scores must be finite, got NaN or infinity: its parameters are broken"
            )
        raise ValueError(
            "the router's scores must be finite and in [0, 1], got "
            f"{result.scores[~in_range][0]} at {first_bad(~in_range)}"
        )

    def _ran(self, batch: np.ndarray, nonconformity: str, null: str) -> tuple[jax.Array, jax.Array]:
        """The compiled call of one batch."""
        args, static = (self._leaves, batch), {"nonconformity": nonconformity, "null": null}
        score = None if self.order is not None else NONCONFORMITIES[nonconformity]
        results: tuple[jax.Array, jax.Array]
        if self._facts is None or not (score is None or is_known(score)):
            results = self._forward(*args, **static)
            return results
        packages = ("core", "encoders", "routers", "racer/scoring")
        results = run_small(self._forward, args, static, facts=self._facts, packages=packages)
        return results

    def _started(
        self,
        texts: Sequence[str],
        nonconformity: str,
        null: NullMode,
        groups: Sequence[str | None] | None,
    ) -> Callable[[], ModelScores]:
        """Sends one batch to the device; returns what waits for it."""
        num, order = len(texts), self.order
        second: jax.Array | np.ndarray
        if not self._is_compilable:
            embeddings = given("the encoder's embeddings", self.encoder.encode(texts))
            scores_of_batch = check_given_scores(
                self.router(embeddings), self.num_models, "the router's scores"
            )
            if order is None:
                return partial(measure_scores, scores_of_batch, nonconformity, null)
            scores = jnp.asarray(scores_of_batch)
            second, _ = next(padded_batches(np.asarray(embeddings)))
        else:
            batch, _ = next(padded_batches(self._front(texts)))
            scores, second = self._ran(batch, nonconformity, null)

        def finish() -> ModelScores:
            if order is None:
                return ModelScores(np.asarray(scores)[:num], np.asarray(second)[:num])
            names = None if groups is None else [*groups, *[None] * (len(second) - num)]
            embeddings = np.asarray(second)[:num] if order.reads_embeddings else None
            measured = order(second, names, null)[:num]
            return ModelScores(np.asarray(scores)[:num], measured, embeddings)

        return finish
