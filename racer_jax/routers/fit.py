"""From a routing table to a router of texts, whichever the router."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

import jax

from racer_jax.core.keys import check_key
from racer_jax.data.table import RoutingTable
from racer_jax.encoders.base import Encoder
from racer_jax.encoders.compound import ReducedEncoder
from racer_jax.routers.base import Router
from racer_jax.routers.knn import KNNR, KNNConfig
from racer_jax.routers.mlp import MLPConfig, fit_mlp
from racer_jax.routers.report import TrainingReport
from racer_jax.routers.routerdc import RouterDCConfig, fit_routerdc

RouterConfig: TypeAlias = KNNConfig | MLPConfig | RouterDCConfig | Any


@dataclass(frozen=True)
class TextRouter:
    """Scores texts: an encoder and a router on its embeddings.

    Use this when you want to score texts directly, without computing embeddings first; `fit`
    returns one.

    Attributes:
      encoder: Texts to embeddings.
      router: Embeddings to scores.
      models: Names of the models, in the order of the scores' columns.
    """

    encoder: Encoder
    router: Router
    models: tuple[str, ...]

    def __call__(self, texts: Sequence[str]) -> jax.Array:
        """Scores s(x, m) of texts, float32 `[n, m]`, in [0, 1].

        Raises:
          TypeError: If `texts` is a single string, or holds anything but strings.
          ValueError: If it is empty, or a text is empty or only white space.
        """
        return self.router(self.encoder.encode(texts))


class Fit(NamedTuple):
    """A fitted router of texts.

    Use this when you read what `fit` returns.

    Attributes:
      router: The router.
      report: How its training went; None for a router that is not trained.
    """

    router: TextRouter
    report: TrainingReport | None


def fit(
    key: jax.Array, table: RoutingTable, config: RouterConfig, encoder: Encoder | None = None
) -> Fit:
    """Fits a router to a table; deterministic for a key.

    Use this when texts and labels are there and no embeddings are needed for themselves.

    Args:
      key: A typed PRNG key.
      table: The training queries; rows of the same question are held out together.
      config: Which router: a `KNNConfig`, `MLPConfig` or `RouterDCConfig`, or an object with a
        method `fit(key, embeddings, correct, questions)` that returns a router.
      encoder: Texts to embeddings; where None, hashed n-grams with a truncated SVD fitted on these
        texts.

    Returns:
      The router of texts, and the report of its training.

    Raises:
      TypeError: If the configuration is of none of these kinds.
      ValueError: If the table lacks results or texts, or has too few rows.
      TrainingDivergedError: If loss or gradient stopped being finite.
    """
    check_key(key)
    if not isinstance(config, KNNConfig | MLPConfig | RouterDCConfig) and not hasattr(
        config, "fit"
    ):
        raise TypeError(
            f"config must be a KNNConfig, MLPConfig or RouterDCConfig, got {type(config).__name__}"
        )
    if table.missing is not None:
        raise ValueError(
            "table must have a result of every model for every query; see RoutingTable.complete"
        )
    encoder_key, router_key = jax.random.split(key)
    encoder = encoder or ReducedEncoder.fit(encoder_key, table.texts)
    embeddings = encoder.encode(table.texts)
    router: Router
    report = None
    if isinstance(config, KNNConfig):
        router = KNNR.fit(embeddings, table.correct, config.k, config.block_size)
    elif isinstance(config, MLPConfig):
        router, report = fit_mlp(router_key, embeddings, table.correct, config, table.question_ids)
    elif isinstance(config, RouterDCConfig):
        router, report = fit_routerdc(
            router_key, embeddings, table.correct, config, questions=table.question_ids
        )
    else:
        router = config.fit(router_key, embeddings, table.correct, table.question_ids)
    return Fit(TextRouter(encoder, router, tuple(table.models)), report)
