"""Training over seeds, and what a run says about itself.

Where it stopped, what it reached on rows it never saw.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import flax
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax import lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jax.typing import ArrayLike

from racer_jax._programs import run_kept, usual_devices
from racer_jax.core.keys import check_key
from racer_jax.core.threefry import at, folded, permutation, written_out
from racer_jax.encoders.layers import compiler_options
from racer_jax.routers.training import Fitted, take

# Scores that vary less than this over the held-out queries carry nothing about the query.
CONSTANT_SPREAD = 0.005


class TrainingDivergedError(ValueError):
    """Loss or gradient stopped being finite.

    Use this when you catch a training run with too high a rate.

    Attributes:
      step: The first step at which that was so.
      checkpoint: Path of the last good checkpoint, or None where none was written.
    """

    step: int
    checkpoint: str | None

    def __init__(self, step: int, checkpoint: str | None = None) -> None:
        what_remains = (
            f"the last good checkpoint is {checkpoint}"
            if checkpoint
            else "no checkpoint was written"
        )
        super().__init__(
            f"training stopped: loss or gradient not finite at step {step}; {what_remains}"
        )
        self.step = step
        self.checkpoint = checkpoint

    def __reduce__(self) -> tuple[type["TrainingDivergedError"], tuple[int, str | None]]:
        return TrainingDivergedError, (self.step, self.checkpoint)


@dataclass(frozen=True)
class TrainingReport:
    """How a training run went.

    Use this when you read how a router was trained.

    Attributes:
      num_steps: Steps taken.
      best_round: The round (epoch) whose parameters were kept.
      losses: Loss of each step taken, float32.
      evaluations: Held-out loss after each round.
      accuracy: Held-out share of queries whose best-scored model is right.
      best_single: The same for the model that is right most often there.
      spread: Largest standard deviation, over the models, of a model's held-out scores.
      problems: What is wrong with the router, one sentence each; empty where nothing is.
      num_held_out: Rows that were held out.
    """

    num_steps: int
    best_round: int
    losses: np.ndarray
    evaluations: np.ndarray
    accuracy: float
    best_single: float
    spread: float
    problems: tuple[str, ...]
    num_held_out: int = 0


def holdout(
    key: jax.Array, num_rows: int, share: float, questions: ArrayLike | None = None
) -> np.ndarray:
    """Which rows are held out, bool `[n]`; rows of the same question always together.

    Use this when rows are held out by question.

    Args:
      key: A typed PRNG key.
      num_rows: Rows in all, at least 2.
      share: Share of the questions, in (0, 1).
      questions: Integers `[n]`, equal for rows of the same question; None where every row is its
        own.

    Raises:
      ValueError: If there are fewer than two questions, or `questions` has another length.
    """
    check_key(key)
    numbers = np.arange(num_rows) if questions is None else np.asarray(questions)
    if numbers.shape != (num_rows,):
        raise ValueError(f"questions must have shape ({num_rows},), got {numbers.shape}")
    _, numbers = np.unique(numbers, return_inverse=True)
    num_questions = int(numbers.max(initial=-1)) + 1
    if num_questions < 2:
        raise ValueError(
            f"a router is trained on at least two different questions, got {num_questions}"
        )
    num_validation = min(num_questions - 1, max(1, round(share * num_questions)))
    is_validation = np.zeros(num_questions, bool)
    is_validation[permutation(key, num_questions)[:num_validation]] = True
    return np.asarray(is_validation[numbers])


def routing_accuracy(scores: ArrayLike, correct: ArrayLike) -> float:
    """Share of queries whose best-scored model is right; the first of equal scores counts.

    Use this when a router is judged by its best choice alone.

    Args:
      scores: `[n, m]`.
      correct: bool or 0/1 `[n, m]`.

    >>> routing_accuracy([[0.9, 0.1], [0.2, 0.3]], [[1, 0], [1, 0]])
    0.5
    """
    scores, correct = np.asarray(scores), np.asarray(correct)
    return float(np.take_along_axis(correct, scores.argmax(axis=1)[:, None], axis=1).mean())


def report_training(
    fit_result: Fitted, held_scores: np.ndarray, held_correct: np.ndarray
) -> TrainingReport:
    """The report of one run, from what it gave back and its scores on the held-out rows.

    Use this when a run is over and its router scored the rows that were held out.

    Raises:
      TrainingDivergedError: If loss or gradient stopped being finite.
    """
    if (failed_at := int(fit_result.failed_at)) >= 0:
        raise TrainingDivergedError(failed_at)
    losses = np.asarray(fit_result.losses).reshape(-1)
    evaluations = np.asarray(fit_result.evaluations)
    accuracy = routing_accuracy(held_scores, held_correct)
    best_single = float(held_correct.mean(axis=0).max())
    spread = float(held_scores.std(axis=0).max())
    problems = []
    if spread < CONSTANT_SPREAD:
        problems.append(
            f"constant router: held-out scores vary by {spread:.2g} at most, so every query gets "
            "the same answer"
        )
    if held_correct.shape[1] > 1 and accuracy < best_single:
        problems.append(
            f"worse than one model for all: on held-out questions the router's choice is right "
            f"{accuracy:.1%} of the time, the best single model {best_single:.1%}; what is "
            "promised does not depend on it, but a better router gives smaller sets: train on "
            "more questions, or with --nonconformity static (in Python nonconformity='static'), "
            "an order that needs no router"
        )
    return TrainingReport(
        num_steps=int(np.isfinite(losses).sum()),
        best_round=int(fit_result.best_round),
        losses=losses[np.isfinite(losses)],
        evaluations=evaluations[np.isfinite(evaluations)],
        accuracy=accuracy,
        best_single=best_single,
        spread=spread,
        problems=tuple(problems),
        num_held_out=len(held_correct),
    )


def first_of(keys: jax.Array, number: int) -> jax.Array:
    """A key for what all seeds share: the first key, folded with a number.

    Use this when several seeds share the rows that are held out.
    """
    return folded(at(keys, 0), number)


def split_rows(
    key: jax.Array,
    arrays: tuple[jax.Array, ...],
    share: float,
    batch_size: int,
    questions: ArrayLike | None = None,
) -> tuple[tuple[jax.Array, ...], tuple[jax.Array, ...]]:
    """The rows to train on and the rows held out, of every array.

    Use this when training arrays are split before a run.

    Raises:
      ValueError: If there are too few rows to hold some out, or to fill a batch with the rest.
    """
    validation = holdout(key, len(arrays[0]), share, questions)
    if not 1 <= batch_size <= (num_train := int((~validation).sum())):
        raise ValueError(
            f"batch_size must be at most the {num_train} rows left to train on, got {batch_size}"
        )
    return _rows(arrays, ~validation), _rows(arrays, validation)


def _rows(arrays: tuple[jax.Array, ...], chosen: np.ndarray) -> tuple[jax.Array, ...]:
    """The chosen rows of each array; those of a CPU by NumPy, which compiles nothing."""
    if usual_devices(local=True)[0].platform != "cpu":
        rows: tuple[jax.Array, ...] = take(arrays, np.flatnonzero(chosen))
        return rows
    return tuple(jax.device_put(np.asarray(array)[chosen]) for array in arrays)


# A router's state, the result of its run without the parameters, and its scores of the held-out
# rows.
_Trained = tuple[Any, Fitted, jax.Array]


def _quick(leaf: jax.Array) -> jax.Array:
    """Keys that compile quickly in the place of keys; what is none as it is."""
    return written_out(leaf) if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) else leaf


def _train(
    starts: Any,
    arrays: Any,
    validation: jax.Array,
    fit: Callable[..., tuple[Any, Fitted]],
    config: Any,
    graph: nnx.GraphDef[Any],
    platform: str,
) -> _Trained:
    """One run for each start `[s, ...]`, on one device of the platform."""

    def one(start: Any) -> _Trained:
        state, fit_result = fit(jax.tree.map(_quick, start), arrays, config)
        return state, fit_result, nnx.merge(graph, state)(validation)

    # Under vmap a run that stopped early goes on computing, and a CPU is busy with one run.
    if len(jax.tree.leaves(starts)[0]) == 1 or platform == "cpu":
        results: _Trained = lax.map(one, starts)
    else:
        results = jax.vmap(one)(starts)
    return results


@functools.cache
def _compiled(mesh: Mesh) -> Callable[..., _Trained]:
    """`_train` with the seeds spread over devices."""
    platform = mesh.devices.flat[0].platform

    def spread(starts: Any, arrays: Any, validation: jax.Array, **static: Any) -> _Trained:
        by_device, all_of_it = PartitionSpec(mesh.axis_names[0]), PartitionSpec()
        train: Callable[..., _Trained] = functools.partial(_train, **static, platform=platform)
        specs = (by_device, all_of_it, all_of_it)
        part = jax.shard_map(train, mesh=mesh, in_specs=specs, out_specs=by_device, check_vma=False)
        return part(starts, arrays, validation)

    return jax.jit(
        spread, static_argnames=("fit", "config", "graph"), compiler_options=compiler_options()
    )


def fit_over_keys(
    keys: jax.Array,
    arrays: Any,
    fit: Callable[..., tuple[Any, Fitted]],
    config: Any,
    abstract: Any,
    validation: tuple[jax.Array, jax.Array],
    start: Callable[[jax.Array], Any] = lambda keys: keys,
) -> tuple[list[Any], list[TrainingReport]]:
    """Trains one router for each key, the seeds spread over the local devices, and reports on each.

    Use this when several seeds are trained; one seed is a list of one key.

    Args:
      keys: Typed PRNG keys `[s]`.
      arrays: What is trained on.
      fit: `fit(start, arrays, config)`, pure: the state of a router, and the result of its run
        without the parameters.
      config: Hashable.
      abstract: A router whose structure is that of the result.
      validation: Embeddings and 0/1 correctness of the held-out rows.
      start: From typed keys `[k]` a pytree of arrays `[k, ...]`, what each run starts from: what is
        drawn on the host is not compiled. The keys themselves where not given.

    Raises:
      TrainingDivergedError: If loss or gradient stopped being finite.
    """
    # Numbers 0 and 2 of the first key draw the held-out rows and the clusters.
    keys = folded(keys, 1)
    # As many devices as there are seeds to keep busy; the last seed fills up where they do not come
    # out even.
    devices = usual_devices(local=True)[: len(keys)]
    mesh = Mesh(np.array(devices), ("seeds",))
    num = -(-len(keys) // len(devices)) * len(devices)
    filled = at(keys, np.minimum(np.arange(num), len(keys) - 1))
    graph = nnx.graphdef(abstract)
    inputs = jax.device_put(
        (start(filled), arrays, validation[0]), NamedSharding(mesh, PartitionSpec())
    )
    results: _Trained = run_kept(
        functools.partial(_compiled, mesh),
        inputs,
        {"fit": fit, "config": config, "graph": graph},
        facts=(fit.__module__, fit.__qualname__, config, flax.__version__, optax.__version__),
        devices=devices,
        packages=("core", "encoders", "routers"),
        options=compiler_options,
    )
    states, fits, scores = jax.tree.map(np.asarray, results)
    routers = [
        nnx.merge(graph, jax.tree.map(lambda a, i=i: jax.device_put(a[i]), states))
        for i in range(len(keys))
    ]
    reports = [
        report_training(
            jax.tree.map(lambda a, i=i: a[i], fits), scores[i], np.asarray(validation[1])
        )
        for i in range(len(keys))
    ]
    return routers, reports
