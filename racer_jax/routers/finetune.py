"""RouterDC with its encoder: both trained together on token ids."""

import hashlib
import os
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh
from jax.typing import ArrayLike

from racer_jax.core.checks import as_binary
from racer_jax.core.keys import check_key
from racer_jax.encoders.checkpoint import Model
from racer_jax.encoders.layers import compiler_options
from racer_jax.encoders.text import Pooling, pool
from racer_jax.routers.contrastive import contrast, sample_llm_loss
from racer_jax.routers.report import holdout
from racer_jax.routers.routerdc import (
    RouterDC,
    RouterDCConfig,
    check_clusters,
    check_targets,
    dual_contrastive_loss,
)
from racer_jax.routers.runs import Resident, Rounds, Run, train
from racer_jax.routers.training import OptimizerConfig


@dataclass(frozen=True)
class FinetuneConfig:
    """How an encoder and a RouterDC are trained together.

    Use this when the encoder shall be trained too; where it stays as it is, use `RouterDCConfig`.

    Attributes:
      router: Losses, temperature, clusters, batch size, share held out, and the optimizer, whose
        defaults are RouterDC's: 1000 steps at a learning rate of 5e-5, no projection.
      pooling: How the encoder's states become one vector: `"cls"` as in RouterDC, or `"mean"`.
      dropout: Whether the encoder trains under its dropout.
    """

    router: RouterDCConfig = field(
        default_factory=lambda: RouterDCConfig(
            dim=None, optimizer=OptimizerConfig(learning_rate=5e-5)
        )
    )
    pooling: Pooling = "cls"
    dropout: bool = True


class FinetuneData(NamedTuple):
    """Tokenized queries and what each model of the pool made of them.

    Use this when you call `finetune`.

    Attributes:
      input_ids: Token ids, int `[n, t]`, padded to one length.
      attention_mask: 1 for text and 0 for padding, `[n, t]`.
      correct: Whether each model of the pool got each query right, bool or 0/1 `[n, m]`.
      graded: Optional graded scores in [0, 1], floating `[n, m]`, to contrast models by in the
        place of `correct`.
      clusters: Cluster of each query, integers `[n]`; by k-means on the first embeddings where
        None.
      questions: Optional integers `[n]`, equal for rows of the same question: those are held out
        together.
    """

    input_ids: ArrayLike
    attention_mask: ArrayLike
    correct: ArrayLike
    graded: ArrayLike | None = None
    clusters: ArrayLike | None = None
    questions: ArrayLike | None = None


def finetune(
    key: jax.Array,
    model: Model,
    data: FinetuneData,
    config: FinetuneConfig | None = None,
    *,
    folder: str | os.PathLike[str] | None = None,
    mesh: Mesh | None = None,
) -> tuple[Model, RouterDC, Run]:
    """Trains encoder and router together; deterministic for a key.

    Afterwards `TextEncoder(model, tokenizer, pooling=config.pooling, normalize=False)` gives the
    embeddings that the router takes.

    Use this when a RouterDC and its text encoder shall learn together; `fit_routerdc` keeps the
    encoder.

    Args:
      key: A typed PRNG key.
      model: A `Bert` or `Deberta` to start from; it is not changed.
      data: Token ids, and which model is right.
      config: How they are trained; the defaults where None.
      folder: Where checkpoints go, and are looked for; None for none.
      mesh: Devices to spread each batch over; None for the default device.

    Returns:
      The trained encoder, the router, and the run.

    Raises:
      TypeError: If an array is of the wrong kind.
      ValueError: If shapes do not fit, a value is out of range, or the folder holds checkpoints of
        another run.
      TrainingDivergedError: If loss or gradient stopped being finite; the last good checkpoint
        stays.
    """
    check_key(key)
    config = config or FinetuneConfig()
    settings = config.router
    ids, mask = jnp.asarray(data.input_ids, jnp.int32), jnp.asarray(data.attention_mask, bool)
    right = as_binary("correct", data.correct)
    if (
        ids.ndim != 2
        or ids.shape != mask.shape
        or right.ndim != 2
        or right.shape[0] != ids.shape[0]
    ):
        raise ValueError(
            "input_ids and attention_mask must have one shape [n, t] where correct has [n, m], got "
            f"{ids.shape}, {mask.shape} and {right.shape}"
        )
    scores = check_targets(right, data.graded)
    init_key, train_key = jax.random.split(jax.random.fold_in(key, 1))
    router = RouterDC(model.config.hidden_size, right.shape[1], settings, rngs=nnx.Rngs(init_key))
    graph, params = nnx.split((model, router))

    def hidden(
        model: Model, ids: jax.Array, mask: jax.Array, key: jax.Array | None = None
    ) -> jax.Array:
        return pool(model(ids, mask, key=key), mask, config.pooling, normalize=False)

    def embed(params: Any, ids: jax.Array, mask: jax.Array) -> jax.Array:
        """In blocks of a batch, so that no more is in memory than in a training step."""
        size = min(settings.batch_size, len(ids))
        num_padded = -(-len(ids) // size) * size
        blocks = [
            jnp.resize(a, (num_padded, a.shape[1])).reshape(-1, size, a.shape[1])
            for a in (ids, mask)
        ]
        model = nnx.merge(graph, params)[0]
        out: jax.Array = jax.lax.map(lambda block: hidden(model, *block), tuple(blocks))
        return out.reshape(num_padded, -1)[: len(ids)]

    if data.clusters is None and settings.cluster_weight > 0:
        embeddings = jax.jit(embed, compiler_options=compiler_options())(params, ids, mask)
        groups = check_clusters(jax.random.fold_in(key, 2), embeddings, settings, None)
    else:
        groups = check_clusters(jax.random.fold_in(key, 2), ids, settings, data.clusters)
    validation = holdout(jax.random.fold_in(key, 0), len(ids), settings.holdout, data.questions)
    held_ids, held_mask, held_scores = ids[validation], mask[validation], scores[validation]

    def loss(params: Any, batch: Any, key: jax.Array) -> jax.Array:
        ids, mask, scores, groups = batch
        model, router = nnx.merge(graph, params)
        dropout_key, loss_key = jax.random.split(key)
        queries = router.hidden(hidden(model, ids, mask, dropout_key if config.dropout else None))
        return dual_contrastive_loss(
            loss_key, queries, router.models[...], scores, groups, settings
        )

    def evaluate(params: Any) -> jax.Array:
        router = nnx.merge(graph, params)[1]
        pairs = contrast(held_scores, settings.num_positive, settings.num_negative)
        return sample_llm_loss(router.logits(embed(params, held_ids, held_mask)), pairs)

    num_steps = settings.steps_per_round * settings.num_rounds
    run = train(
        train_key,
        params,
        loss,
        settings.optimizer.transformation(num_steps),
        Resident(
            jax.tree.map(lambda array: array[~validation], (ids, mask, scores, groups)),
            settings.batch_size,
        ),
        Rounds(
            num_steps,
            settings.steps_per_round,
            folder,
            mesh,
            asdict(config) | {"data": _fingerprint(ids, mask, scores, groups)},
        ),
        evaluate,
    )
    encoder_state, router = nnx.merge(graph, run.params)
    return encoder_state, router, run


def _fingerprint(*arrays: jax.Array) -> str:
    """A hash of the data, so that a checkpoint is not resumed on other data."""
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()[:16]
