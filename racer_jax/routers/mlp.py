r"""MLPR: a multilayer perceptron with a sigmoid for each model, trained by cross-entropy."""

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax.typing import ArrayLike

from racer_jax.core.checks import on_device
from racer_jax.core.keys import check_key
from racer_jax.core.threefry import at, bits, folded_each, split_each, written_out
from racer_jax.encoders.arithmetic import drop, dropout_words
from racer_jax.encoders.base import Parts, Read, Save
from racer_jax.encoders.layers import Linear
from racer_jax.routers.base import check_embeddings, check_training
from racer_jax.routers.modules import module_arrays, module_from
from racer_jax.routers.report import TrainingReport, first_of, fit_over_keys, split_rows
from racer_jax.routers.run_keys import RunKeys, run_keys
from racer_jax.routers.training import Fitted, OptimizerConfig, Rounds, fit_in_memory

# First weights of all seeds together up to which they are drawn on the host.
_HOST_WEIGHTS = 1 << 21


class Standardizer(nnx.Variable[Any]):
    """Statistics of the training inputs: kept and saved with a router, never trained.

    Use this when a network takes inputs of any scale.
    """


@dataclass(frozen=True)
class MLPConfig:
    """How an MLPR is built and trained.

    Use this when `fit`, `Racer.fit` or `fit_mlp` shall train an MLPR with other settings than the
    defaults.

    Attributes:
      hidden: Width of each hidden layer.
      dropout: Rate after each hidden layer.
      input_scale: Inputs are standardised to this standard deviation.
      batch_size: Rows of a batch.
      max_epochs: Epochs at most.
      patience: Epochs without a better held-out loss after which training stops.
      holdout: Share of the rows held out to stop on.
      optimizer: AdamW, schedule and clipping.

    Raises:
      ValueError: If a value is out of range.
    """

    hidden: tuple[int, ...] = (256,)
    dropout: float = 0.5
    input_scale: float = 0.3
    batch_size: int = 64
    max_epochs: int = 40
    patience: int = 5
    holdout: float = 0.125
    optimizer: OptimizerConfig = field(
        default_factory=lambda: OptimizerConfig(learning_rate=3e-4, weight_decay=0.1)
    )

    def __post_init__(self) -> None:
        if not self.hidden or min(self.hidden) < 1:
            raise ValueError(
                f"hidden must hold at least one width, each at least 1, got {self.hidden}"
            )
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout must be in [0, 1), got {self.dropout}")
        if not self.input_scale > 0:
            raise ValueError(f"input_scale must be positive, got {self.input_scale}")
        for name in ("batch_size", "max_epochs", "patience"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if not 0 < self.holdout < 1:
            raise ValueError(f"holdout must be a share of the rows in (0, 1), got {self.holdout}")


class MLPR(nnx.Module):
    """The multilayer perceptron router.

    Use this when there are enough labelled queries to train on and embeddings stay as they are;
    `fit_mlp` trains one, and a router made here by hand is untrained.

    Args:
      dim: Columns of the embeddings.
      num_models: Models to score.
      hidden: Width of each hidden layer.
      dropout: Rate after each hidden layer, while training.
      rngs: Draws the initial weights.
    """

    def __init__(
        self, dim: int, num_models: int, hidden: Sequence[int], dropout: float, *, rngs: nnx.Rngs
    ) -> None:
        widths = [dim, *hidden, num_models]
        initial = nnx.initializers.variance_scaling(1 / 3, "fan_in", "uniform")
        self.mean = Standardizer(jnp.zeros(dim))
        self.scale = Standardizer(jnp.ones(dim))
        self.layers = nnx.List(
            [Linear(a, b, kernel_init=initial, rngs=rngs) for a, b in pairwise(widths)]
        )
        self.dropout = dropout

    def to_parts(self, prefix: str, save: Save) -> Parts:
        """The router in pieces.

        Use this when you store the router in a format of your own; `Racer.save` does so for you.
        """
        layers = list(self.layers)
        description = {
            "kind": "mlp",
            "dim": int(self.mean[...].shape[0]),
            "num_models": int(layers[-1].kernel[...].shape[1]),
            "hidden": [int(layer.kernel[...].shape[1]) for layer in layers[:-1]],
            "dropout": self.dropout,
        }
        return description, module_arrays(self, prefix)

    @classmethod
    def from_parts(
        cls,
        description: Mapping[str, Any],
        arrays: Mapping[str, np.ndarray],
        prefix: str,
        read: Read,
    ) -> "MLPR":
        """The router of `to_parts`. Use this when you read what `to_parts` gave."""
        sizes = int(description["dim"]), int(description["num_models"])
        hidden, dropout = tuple(description["hidden"]), float(description["dropout"])
        return module_from(lambda rngs: cls(*sizes, hidden, dropout, rngs=rngs), arrays, prefix)

    def logits(self, embeddings: jax.Array) -> jax.Array:
        """Logits `[n, m]` of embeddings `[n, d]`.

        Use this when a loss needs logits; calling the router gives scores.
        """
        return self.logits_of_standardized(self.standardized(embeddings))

    def standardized(self, embeddings: jax.Array) -> jax.Array:
        """Inputs of the first layer, float32 `[n, d]`.

        Use this when the layers are to be called by themselves.
        """
        return (embeddings.astype(jnp.float32) - self.mean[...][None]) * self.scale[...][None]

    def noise(self, key: jax.Array, num_rows: int) -> list[jax.Array]:
        """What each hidden layer drops with, for a batch of so many rows.

        Uint32 `[w]` each, empty without dropout.

        Use this when a training step drops.
        """
        return self.noise_of(jax.random.split(key, len(self.layers) - 1), num_rows)

    def noise_of(self, keys: jax.Array, num_rows: int) -> list[jax.Array]:
        """`noise`, from the keys `[h]` of the hidden layers.

        Use this when the key of a step is split already.
        """
        return [
            dropout_words(keys[i], num_rows * layer.out_features, self.dropout)
            for i, layer in enumerate(list(self.layers)[:-1])
        ]

    def logits_of_standardized(
        self, x: jax.Array, noise: Sequence[jax.Array] | None = None
    ) -> jax.Array:
        """The layers by themselves, under dropout where there is noise.

        Training standardises all rows once.

        Use this when inputs are standardised already, as in training.
        """
        *hidden, last = self.layers
        for i, layer in enumerate(hidden):
            x = jax.nn.relu(layer(x))
            x = x if noise is None else drop(noise[i], x, self.dropout)
        return last(x)

    def __call__(self, embeddings: ArrayLike) -> jax.Array:
        """Scores s(x, m), the probability that model m is right.

        Args:
          embeddings: Floating `[n, d]`.

        Returns:
          float32 `[n, m]`, in [0, 1].

        Raises:
          TypeError: If embeddings are not floating.
          ValueError: If the shape does not fit, or a value is not finite.
        """
        return jax.nn.sigmoid(
            self.logits(check_embeddings("embeddings", embeddings, self.mean.shape[0]))
        )


def _new(key: jax.Array, dim: int, num_models: int, config: MLPConfig) -> MLPR:
    return MLPR(dim, num_models, config.hidden, config.dropout, rngs=nnx.Rngs(key))


@functools.cache
def _abstract(dim: int, num_models: int, config: MLPConfig) -> MLPR:
    """The structure of a router; tracing it takes a tenth of a short training."""
    router: MLPR = nnx.eval_shape(lambda: _new(jax.random.key(0), dim, num_models, config))
    return router


def _standardizer(x: jax.Array, scale: float) -> tuple[jax.Array, jax.Array]:
    """Mean of each column, and the factor that brings it to the wanted deviation.

    Constant columns become zero.
    """
    mean = x.mean(axis=0)
    deviation = jnp.sqrt(jnp.square(x - mean[None]).mean(axis=0))
    return mean, jnp.where(deviation > 1e-6, scale / jnp.maximum(deviation, 1e-6), 0)


class _Start(NamedTuple):
    """What runs start from, drawn outside of `jit`.

    Attributes:
      kernels: Initial kernels of the layers, float32 `[k, a, b]` each.
      keys: The keys of the runs; of each step those of its hidden layers.
    """

    kernels: list[Any]
    keys: RunKeys


def _start(keys: jax.Array, num_rows: int, dim: int, num_models: int, config: MLPConfig) -> _Start:
    """What runs with these keys `[k]` start from: what `_new` and `fit_in_memory` would draw."""
    both = split_each(keys, 2)
    widths = [dim, *config.hidden, num_models]
    # A layer of Flax takes two keys in turn, for its kernel and for its bias, which is zero.
    layers = folded_each(at(both, (..., 0)), 2 * np.arange(len(widths) - 1))
    kernels = [_kernels(at(layers, (..., i)), shape) for i, shape in enumerate(pairwise(widths))]
    steps_per_epoch = -(-num_rows // config.batch_size)
    sizes = num_rows, config.batch_size, steps_per_epoch, config.max_epochs
    run = run_keys(at(both, (..., 1)), *sizes)
    return _Start(kernels, run._replace(steps=split_each(run.steps, len(config.hidden))))


def _kernels(keys: jax.Array, shape: tuple[int, int]) -> Any:
    """`variance_scaling(1 / 3, "fan_in", "uniform")` for each key, to the bit, `[k, a, b]`.

    A few are drawn on the host, which compiles nothing. The weights of 64 seeds take NumPy half a
    second, in which an accelerator has trained them all.
    """
    if len(keys) * math.prod(shape) > _HOST_WEIGHTS:
        return _device_kernels(keys, shape)
    words = np.stack([bits(at(keys, k), shape) for k in range(len(keys))])
    return _uniform_kernels(words, shape[0])


@functools.partial(jax.jit, static_argnames="shape")
def _device_kernels(keys: jax.Array, shape: tuple[int, int]) -> jax.Array:
    """`_kernels` on the device."""
    kernels: jax.Array = _uniform_kernels(
        jax.vmap(lambda key: jax.random.bits(key, shape, jnp.uint32))(written_out(keys)), shape[0]
    )
    return kernels


def _uniform_kernels(words: Any, fan_in: int) -> Any:
    """Weights of random words, of NumPy or of JAX."""
    share = ((words >> 9) | np.uint32(0x3F800000)).view(np.float32) - np.float32(1)
    width = np.sqrt(np.float32(3) * np.float32(1 / 3 / fan_in))
    return (2 * share - 1) * width


def _fit(begin: _Start, arrays: Any, config: MLPConfig) -> tuple[Any, Fitted]:
    (x, y), (held_x, held_y) = arrays
    graph, *states = nnx.split(_abstract(x.shape[1], y.shape[1], config), nnx.Param, ...)
    params, scales = states
    biases = [jnp.zeros(kernel.shape[1]) for kernel in begin.kernels]
    leaves = [leaf for pair in zip(biases, begin.kernels, strict=True) for leaf in pair]
    params = jax.tree.unflatten(jax.tree.structure(params), leaves)
    standard = _standardizer(x, config.input_scale)
    scales = jax.tree.unflatten(jax.tree.structure(scales), standard)
    router = nnx.merge(graph, params, scales)
    x, held_x = router.standardized(x), router.standardized(held_x)

    def cross_entropy(params: Any, batch: Any, noise: Any) -> jax.Array:
        x, y = batch
        logits = nnx.merge(graph, params, scales).logits_of_standardized(x, noise)
        loss: jax.Array = optax.sigmoid_binary_cross_entropy(logits, y).mean()
        return loss

    steps_per_epoch = -(-x.shape[0] // config.batch_size)
    fit_state = fit_in_memory(
        begin.keys,
        params,
        (x, y),
        cross_entropy,
        config.optimizer.transformation(steps_per_epoch * config.max_epochs),
        Rounds(config.batch_size, steps_per_epoch, config.max_epochs, config.patience),
        evaluate=lambda params: cross_entropy(params, (held_x, held_y), None),
        draw=lambda keys: router.noise_of(keys, config.batch_size),
    )
    return nnx.merge_state(fit_state.params, scales), fit_state._replace(params=None)


def fit_mlp(
    key: jax.Array,
    embeddings: ArrayLike,
    correct: ArrayLike,
    config: MLPConfig | None = None,
    questions: ArrayLike | None = None,
) -> tuple[MLPR, TrainingReport]:
    """Trains an MLPR; deterministic for a key.

    Use this when you have embeddings and want one router; `fit` starts from texts, and `fit_mlps`
    trains several routers at once.

    Args:
      key: A typed PRNG key.
      embeddings: Floating `[n, d]`.
      correct: Whether each model got each query right, bool or 0/1 `[n, m]`.
      config: How it is built and trained; the defaults where None.
      questions: Optional integers `[n]`, equal for rows of the same question: those are held out
        together.

    Returns:
      The router and the report of its training.

    Raises:
      TypeError: If an array is of the wrong kind.
      ValueError: If shapes do not fit, a value is not finite or not 0/1, or there are too few rows.
      TrainingDivergedError: If loss or gradient stopped being finite.
    """
    check_key(key)
    routers, reports = fit_mlps(at(key, None), embeddings, correct, config, questions)
    return routers[0], reports[0]


def fit_mlps(
    keys: jax.Array,
    embeddings: ArrayLike,
    correct: ArrayLike,
    config: MLPConfig | None = None,
    questions: ArrayLike | None = None,
) -> tuple[list[MLPR], list[TrainingReport]]:
    """Trains one MLPR for each key, all in one call; otherwise as `fit_mlp`.

    All of them hold out the same rows, drawn from the first key.

    Use this when you need the same router from several keys, for instance to see how much chance in
    training matters.
    """
    config = config or MLPConfig()
    x, correct = check_training(embeddings, correct)
    x = x if x.dtype == jnp.float32 else x.astype(jnp.float32)
    y = on_device(np.asarray(correct, np.float32))
    train, validation = split_rows(
        first_of(keys, 0), (x, y), config.holdout, config.batch_size, questions
    )
    abstract = _abstract(x.shape[1], y.shape[1], config)
    return fit_over_keys(
        keys,
        (train, validation),
        _fit,
        config,
        abstract,
        (validation[0], validation[1]),
        lambda keys: _start(keys, len(train[0]), x.shape[1], y.shape[1], config),
    )
