r"""RouterDC: one learned vector for each model.

A model's score comes from the cosine of its vector with the query's vector.

The router is trained with the two contrastive losses of `contrastive`, on frozen embeddings with a
linear projection, or together with the encoder (`finetune`). A cosine lies in [-1, 1], and how it
becomes a score matters: `sigmoid(cosine / temperature)`, or a `softmax` over the models. With seven
models the largest softmax score is about 0.23, so the null model, whose score is one minus that,
wins every query: prefer `sigmoid`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.typing import ArrayLike

from racer_jax.core.checks import check_scores
from racer_jax.core.keys import check_key
from racer_jax.encoders.base import Parts, Read, Save
from racer_jax.routers.base import check_embeddings, check_training
from racer_jax.routers.clusters import cluster_queries
from racer_jax.routers.contrastive import (
    contrast,
    cosines,
    draw_neighbors,
    sample_llm_loss,
    sample_sample_loss,
)
from racer_jax.routers.modules import module_arrays, module_from
from racer_jax.routers.report import TrainingReport, first_of, fit_over_keys, split_rows
from racer_jax.routers.training import Fitted, OptimizerConfig, Rounds, fit_in_memory

Probability = Literal["sigmoid", "softmax"]
PROBABILITIES: tuple[str, ...] = get_args(Probability)
# Standard deviation of the models' vectors at the start, as in RouterDC.
_INITIAL_DEVIATION = 0.78


@dataclass(frozen=True)
class RouterDCConfig:
    """How a RouterDC is built and trained.

    Use this when `fit`, `Racer.fit` or `fit_routerdc` shall train a RouterDC with other settings
    than the defaults.

    Attributes:
      dim: Width of the projection of the embeddings; None for none.
      probability: How cosines become scores, `"sigmoid"` or `"softmax"`.
      temperature: Divides the cosines, in training and in scoring.
      num_positive: K+, number of models whose vectors a query is drawn towards.
      num_negative: K-, number of models whose vectors it is moved away from.
      random_ties: Whether models of equal score are ordered at random in every batch, or by their
        place in the pool.
      num_clusters: Number of clusters of queries, where no clusters are passed.
      num_cluster_negatives: H, number of queries of other clusters that a query is moved away from.
      cluster_weight: Weight of the sample-sample loss; 0 for none.
      batch_size: Rows of a batch.
      steps_per_round: Steps between two evaluations on the held-out rows.
      num_rounds: Rounds at most.
      patience: Rounds without a better held-out loss after which training stops; None to use all.
      holdout: Share of the rows held out to stop on.
      optimizer: AdamW, schedule and clipping.

    Raises:
      ValueError: If a value is out of range.
    """

    dim: int | None = 128
    probability: Probability = "sigmoid"
    temperature: float = 1.0
    num_positive: int = 3
    num_negative: int = 3
    random_ties: bool = True
    num_clusters: int = 5
    num_cluster_negatives: int = 3
    cluster_weight: float = 1.0
    batch_size: int = 64
    steps_per_round: int = 100
    num_rounds: int = 10
    patience: int | None = None
    holdout: float = 0.125
    optimizer: OptimizerConfig = field(default_factory=lambda: OptimizerConfig(learning_rate=1e-3))

    def __post_init__(self) -> None:
        if self.probability not in PROBABILITIES:
            raise ValueError(
                f"probability must be one of {PROBABILITIES}, got {self.probability!r}"
            )
        if not self.temperature > 0:
            raise ValueError(f"temperature must be positive, got {self.temperature}")
        if self.cluster_weight < 0:
            raise ValueError(f"cluster_weight must not be negative, got {self.cluster_weight}")
        if not 0 < self.holdout < 1:
            raise ValueError(f"holdout must be a share of the rows in (0, 1), got {self.holdout}")
        for name in (
            "dim",
            "num_positive",
            "num_negative",
            "num_clusters",
            "num_cluster_negatives",
            "batch_size",
            "steps_per_round",
            "num_rounds",
            "patience",
        ):
            if (value := getattr(self, name)) is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")


class RouterDC(nnx.Module):
    """The router: an optional projection, and one vector for each model.

    Use this when you want the router of the RouterDC paper; `fit_routerdc` trains one, and a router
    made here by hand is untrained.

    Args:
      dim: Columns of the embeddings.
      num_models: Models to score.
      config: Width of the projection, temperature, how cosines become scores.
      rngs: Draws the initial weights.
    """

    def __init__(
        self, dim: int, num_models: int, config: RouterDCConfig, *, rngs: nnx.Rngs
    ) -> None:
        width = dim if config.dim is None else config.dim
        self.projection = None if config.dim is None else nnx.Linear(dim, width, rngs=rngs)
        self.models = nnx.Param(
            _INITIAL_DEVIATION * jax.random.normal(rngs.params(), (num_models, width))
        )
        self.dim = dim
        self.probability = config.probability
        self.temperature = config.temperature

    def to_parts(self, prefix: str, save: Save) -> Parts:
        """The router in pieces.

        Use this when you store the router in a format of your own; `Racer.save` does so for you.
        """
        num_models, width = self.models[...].shape
        description = {
            "kind": "routerdc",
            "dim": self.dim,
            "num_models": int(num_models),
            "width": None if self.projection is None else int(width),
            "probability": self.probability,
            "temperature": self.temperature,
        }
        return description, module_arrays(self, prefix)

    @classmethod
    def from_parts(
        cls,
        description: Mapping[str, Any],
        arrays: Mapping[str, np.ndarray],
        prefix: str,
        read: Read,
    ) -> "RouterDC":
        """The router of `to_parts`. Use this when you read what `to_parts` gave."""
        config = RouterDCConfig(
            dim=description["width"],
            probability=description["probability"],
            temperature=float(description["temperature"]),
        )
        sizes = int(description["dim"]), int(description["num_models"])
        return module_from(lambda rngs: cls(*sizes, config, rngs=rngs), arrays, prefix)

    def hidden(self, embeddings: jax.Array) -> jax.Array:
        """The queries' vectors, `[n, width]`.

        Use this when you need the vectors before they are compared with the models.
        """
        embeddings = embeddings.astype(jnp.float32)
        return embeddings if self.projection is None else self.projection(embeddings)

    def logits(self, embeddings: jax.Array) -> jax.Array:
        """Cosines over the temperature, float32 `[n, m]`.

        Use this when a loss needs cosines; calling the router gives scores.
        """
        return cosines(self.hidden(embeddings), self.models[...]) / self.temperature

    def __call__(self, embeddings: ArrayLike) -> jax.Array:
        """Scores s(x, m).

        Args:
          embeddings: Floating `[n, d]`.

        Returns:
          float32 `[n, m]`, in [0, 1].

        Raises:
          TypeError: If embeddings are not floating.
          ValueError: If the shape does not fit, or a value is not finite.
        """
        logits = self.logits(check_embeddings("embeddings", embeddings, self.dim))
        return (
            jax.nn.sigmoid(logits)
            if self.probability == "sigmoid"
            else jax.nn.softmax(logits, axis=-1)
        )


def dual_contrastive_loss(
    key: jax.Array,
    hidden: jax.Array,
    models: jax.Array,
    scores: jax.Array,
    clusters: jax.Array,
    config: RouterDCConfig,
) -> jax.Array:
    """Both losses of a batch: sample-LLM plus `cluster_weight` times sample-sample.

    Use this when you train a RouterDC in a loop of your own.

    Args:
      key: Draws the order of ties and the neighbours.
      hidden: The queries' vectors, `[b, d]`.
      models: The models' vectors, `[m, d]`.
      scores: How well each model answered, floating `[b, m]`, in [0, 1].
      clusters: Cluster of each query, int `[b]`.
      config: Numbers of positives and negatives, temperature, weight.

    Returns:
      A float32 scalar.
    """
    check_key(key)
    tie_key, neighbor_key = jax.random.split(key)
    logits = cosines(hidden, models) / config.temperature
    pairs = contrast(
        scores, config.num_positive, config.num_negative, tie_key if config.random_ties else None
    )
    loss = sample_llm_loss(logits, pairs)
    if config.cluster_weight == 0:
        return loss
    neighbors = draw_neighbors(neighbor_key, clusters, config.num_cluster_negatives)
    return loss + config.cluster_weight * sample_sample_loss(hidden, neighbors, config.temperature)


def _new(key: jax.Array, dim: int, num_models: int, config: RouterDCConfig) -> RouterDC:
    return RouterDC(dim, num_models, config, rngs=nnx.Rngs(key))


def _fit(key: jax.Array, arrays: Any, config: RouterDCConfig) -> tuple[Any, Fitted]:
    train, (held_x, held_scores, *_) = arrays
    init_key, train_key = jax.random.split(key)
    graph, params = nnx.split(_new(init_key, held_x.shape[1], held_scores.shape[1], config))

    def loss(params: Any, batch: Any, key: jax.Array) -> jax.Array:
        x, scores, clusters = batch
        router = nnx.merge(graph, params)
        return dual_contrastive_loss(
            key, router.hidden(x), router.models[...], scores, clusters, config
        )

    def evaluate(params: Any) -> jax.Array:
        pairs = contrast(held_scores, config.num_positive, config.num_negative)
        return sample_llm_loss(nnx.merge(graph, params).logits(held_x), pairs)

    fit_state = fit_in_memory(
        train_key,
        params,
        train[:3],
        loss,
        config.optimizer.transformation(config.steps_per_round * config.num_rounds),
        Rounds(config.batch_size, config.steps_per_round, config.num_rounds, config.patience),
        evaluate=evaluate,
    )
    return fit_state.params, fit_state._replace(params=None)


def fit_routerdc(
    key: jax.Array,
    embeddings: ArrayLike,
    correct: ArrayLike,
    config: RouterDCConfig | None = None,
    *,
    graded: ArrayLike | None = None,
    clusters: ArrayLike | None = None,
    questions: ArrayLike | None = None,
) -> tuple[RouterDC, TrainingReport]:
    """Trains a RouterDC on frozen embeddings; deterministic for a key.

    Use this when you have embeddings, and perhaps graded scores, and want one router; `fit` starts
    from texts, and `fit_routerdcs` trains several routers at once.

    Args:
      key: A typed PRNG key.
      embeddings: Floating `[n, d]`.
      correct: Whether each model got each query right, bool or 0/1 `[n, m]`.
      config: How it is built and trained; the defaults where None.
      graded: Optional graded scores in [0, 1], floating `[n, m]`, to contrast models by in the
        place of `correct`.
      clusters: Cluster of each query, integers `[n]`; by k-means where None.
      questions: Optional integers `[n]`, equal for rows of the same question: those are held out
        together.

    Returns:
      The router and the report of its training.

    Raises:
      TypeError: If an array is of the wrong kind.
      ValueError: If shapes do not fit, a value is out of range, or there are too few rows.
      TrainingDivergedError: If loss or gradient stopped being finite.
    """
    check_key(key)
    routers, reports = fit_routerdcs(
        key[None],
        embeddings,
        correct,
        config,
        graded=graded,
        clusters=clusters,
        questions=questions,
    )
    return routers[0], reports[0]


def fit_routerdcs(
    keys: jax.Array,
    embeddings: ArrayLike,
    correct: ArrayLike,
    config: RouterDCConfig | None = None,
    *,
    graded: ArrayLike | None = None,
    clusters: ArrayLike | None = None,
    questions: ArrayLike | None = None,
) -> tuple[list[RouterDC], list[TrainingReport]]:
    """Trains one RouterDC for each key, all at once under `vmap`; otherwise as `fit_routerdc`.

    All of them hold out the same rows and share the same clusters, drawn from the first key.

    Use this when you need the same router from several keys, for instance to see how much chance in
    training matters.
    """
    config = config or RouterDCConfig()
    x, right = check_training(embeddings, correct)
    scores = check_targets(right, graded)
    groups = check_clusters(first_of(keys, 2), x, config, clusters)
    arrays = (x.astype(jnp.float32), scores, groups, right)
    train, validation = split_rows(
        first_of(keys, 0), arrays, config.holdout, config.batch_size, questions
    )
    abstract = nnx.eval_shape(lambda: _new(jax.random.key(0), x.shape[1], scores.shape[1], config))
    return fit_over_keys(
        keys, (train, validation), _fit, config, abstract, (validation[0], validation[3])
    )


def check_targets(correct: jax.Array, graded: ArrayLike | None) -> jax.Array:
    """The scores to contrast models by, float32 `[n, m]`: graded ones where given, else `correct`.

    Use this when results may be graded or only right and wrong.

    Raises:
      TypeError: If graded scores are not floating.
      ValueError: If they have another shape, or are not in [0, 1].
    """
    if graded is None:
        return correct.astype(jnp.float32)
    graded = jnp.asarray(graded)
    check_scores(graded)
    if graded.shape != correct.shape:
        raise ValueError(
            f"graded must have the shape of correct, {correct.shape}, got {graded.shape}"
        )
    return graded.astype(jnp.float32)


def check_clusters(
    key: jax.Array, embeddings: jax.Array, config: RouterDCConfig, clusters: ArrayLike | None
) -> jax.Array:
    """The clusters of the queries, int32 `[n]`: as given, or by k-means where the losses need them.

    Use this when clusters may come from the caller.

    Raises:
      TypeError: If given clusters are not integers.
      ValueError: If they have another shape.
    """
    n = embeddings.shape[0]
    if clusters is None:
        if config.cluster_weight == 0:
            return jnp.zeros(n, jnp.int32)
        return jnp.asarray(cluster_queries(key, embeddings, config.num_clusters))
    clusters = np.asarray(clusters)
    if clusters.dtype.kind not in "iu":
        raise TypeError(f"clusters must be integers, got dtype {clusters.dtype}")
    if clusters.shape != (n,):
        raise ValueError(f"clusters must have shape ({n},), got {clusters.shape}")
    return jnp.asarray(clusters, jnp.int32)
