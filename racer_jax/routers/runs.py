"""Long training: rounds of steps in one jitted scan each, with a checkpoint after every round.

A checkpoint is one safetensors file with its description as JSON in the header, written beside and
moved into place. A run that finds checkpoints of its own goes on from the newest, and ends bit for
bit where it would have ended anyway.
"""

import hashlib
import json
import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file
from tqdm import tqdm

from racer_jax._files import written_whole
from racer_jax.core.keys import check_key
from racer_jax.encoders.layers import compiler_options
from racer_jax.routers.base import DRAWS
from racer_jax.routers.report import TrainingDivergedError
from racer_jax.routers.training import Loss, Params, TrainState, batch_indices, start, take, update

_LOGGER = logging.getLogger(__name__)
# The newest and the one before it, so that a disk that fails while writing costs one round.
_NUM_KEPT = 2


class Resident(NamedTuple):
    """Data that stays on the device; batches are rows drawn from it.

    Use this when the data fit into memory.

    Attributes:
      data: Pytree of arrays `[n, ...]`.
      batch_size: Rows of a batch.
    """

    data: Any
    batch_size: int


class Streamed(NamedTuple):
    """Data that comes batch by batch.

    Use this when the data do not fit into memory.

    Attributes:
      batch: Function of the number of a step to its batch, a pytree of NumPy arrays
        `[batch_size, ...]`. Always the same for a step, so that a resumed run reads what it would
        have seen.
      batch_size: Rows of a batch.
    """

    batch: Callable[[int], Any]
    batch_size: int


class Rounds(NamedTuple):
    """How long a run trains, how often it is saved and evaluated, and where.

    Use this when you call `train`.

    Attributes:
      num_steps: Steps in all.
      steps_per_round: Steps in one jitted scan; after each round comes a checkpoint and an
        evaluation.
      folder: Where checkpoints go, and are looked for; None for none.
      mesh: Devices to spread the rows of each batch over, one axis; None for the default device.
      settings: What else must be equal for a checkpoint to belong to this run, as JSON.
    """

    num_steps: int
    steps_per_round: int = 100
    folder: str | os.PathLike[str] | None = None
    mesh: Mesh | None = None
    settings: dict[str, Any] | None = None


class RunState(NamedTuple):
    """All that a checkpoint holds.

    Use this when you read or write checkpoints of a run.

    Attributes:
      train: Parameters, optimizer and step.
      best_value: Lowest held-out loss so far, float32; infinite before the first.
      best_params: The parameters that had it; without evaluation an empty tuple.
      losses: Loss of each step, float32 `[num_steps]`; NaN for those to come.
    """

    train: TrainState
    best_value: jax.Array
    best_params: Params
    losses: jax.Array


class Run(NamedTuple):
    """What a run gives back.

    Use this when you read what `train` or `finetune` returns.

    Attributes:
      params: The parameters with the lowest held-out loss; without evaluation, the last.
      losses: Loss of each step, float32 `[num_steps]`.
      best_value: The lowest held-out loss; NaN without evaluation.
      resumed_at: The step of the checkpoint that the run went on from; 0 where it began anew.
    """

    params: Params
    losses: np.ndarray
    best_value: float
    resumed_at: int


def _named(state: RunState) -> dict[str, Any]:
    return {
        jax.tree_util.keystr(path): leaf
        for path, leaf in jax.tree_util.tree_leaves_with_path(state)
    }


def _identity(key: jax.Array, state: RunState, settings: dict[str, Any]) -> str:
    """A hash of what must be equal for a checkpoint to belong to a run."""
    shapes = {name: f"{leaf.dtype}{leaf.shape}" for name, leaf in _named(state).items()}
    text = json.dumps(
        [DRAWS, shapes, settings, jax.random.key_data(key).tolist()], sort_keys=True, default=str
    )
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _path(folder: Path, step: int) -> Path:
    return folder / f"step-{step:09d}.safetensors"


def save_checkpoint(folder: Path, state: RunState, identity: str) -> Path:
    """Writes a checkpoint and removes those that are no longer needed; its path.

    Use this when a run shall go on after a kill.
    """
    path = _path(folder, int(state.train.step))
    tensors = {name: np.asarray(leaf, order="C") for name, leaf in _named(state).items()}
    description = json.dumps({"identity": identity, "step": int(state.train.step)})
    folder.mkdir(parents=True, exist_ok=True)
    with written_whole(path) as temporary:
        save_file(tensors, temporary, {"description": description})
    for old in sorted(folder.glob("step-*.safetensors"))[:-_NUM_KEPT]:
        old.unlink()
    return path


def load_checkpoint(folder: Path, like: RunState, identity: str) -> tuple[RunState, Path] | None:
    """The newest checkpoint that can be read, and its path; None where there is none.

    Use this when a run may be the continuation of another.

    Raises:
      ValueError: If it is of another run: another key, model, optimizer or number of steps.
    """
    for path in sorted(folder.glob("step-*.safetensors"), reverse=True):
        try:
            with safe_open(path, framework="numpy") as file:
                description = json.loads((file.metadata() or {}).get("description", "{}"))
                if description.get("identity") != identity:
                    raise ValueError(
                        f"{path} is the checkpoint of another run (another key, model, optimizer "
                        "or number of steps); "
                        "give this run a folder of its own"
                    )
                leaves = [jnp.asarray(file.get_tensor(name)) for name in _named(like)]
        except (SafetensorError, OSError) as error:
            _LOGGER.warning("checkpoint %s cannot be read and is passed over: %s", path, error)
            continue
        return jax.tree.unflatten(jax.tree.structure(like), leaves), path
    return None


def train(
    key: jax.Array,
    params: Params,
    loss: Loss,
    optimizer: optax.GradientTransformation,
    batches: Resident | Streamed,
    rounds: Rounds,
    evaluate: Callable[[Params], jax.Array] | None = None,
) -> Run:
    """Trains in rounds; resumes from the checkpoints in their folder if it holds any.

    Use this when a run takes long enough to be interrupted; `fit_in_memory` has no checkpoints.

    Args:
      key: A typed PRNG key.
      params: Parameters to start from.
      loss: `loss(params, batch, key)`, a scalar; a mean over the rows of the batch, if several
        devices are to share it.
      optimizer: An Optax transformation.
      batches: Data on the device, or batch by batch.
      rounds: How many steps, in rounds of how many, and where checkpoints go.
      evaluate: Held-out loss of parameters, lower is better; the best parameters are given back.

    Returns:
      The result.

    Raises:
      ValueError: If a number is out of range, rows cannot be spread evenly over the devices, or the
        folder holds checkpoints of another run.
      TrainingDivergedError: If loss or gradient stopped being finite; the last good checkpoint
        stays.
    """
    check_key(key)
    num_steps, mesh = rounds.num_steps, rounds.mesh
    for name, value in (("num_steps", num_steps), ("steps_per_round", rounds.steps_per_round)):
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")
    folder = None if rounds.folder is None else Path(rounds.folder)
    num_devices = 1 if mesh is None else mesh.size
    if batches.batch_size % num_devices:
        raise ValueError(
            f"batch_size must be a multiple of the {num_devices} devices, got {batches.batch_size}"
        )
    batch_key, step_key = jax.random.split(key)
    state = RunState(
        start(params, optimizer),
        jnp.float32(jnp.inf),
        params if evaluate is not None else (),
        jnp.full(num_steps, jnp.nan, jnp.float32),
    )
    identity = _identity(
        key,
        state,
        {"settings": rounds.settings, "num_steps": num_steps, "batch": batches.batch_size},
    )
    checkpoint, resumed_at = None, 0
    last_run = None if folder is None else load_checkpoint(folder, state, identity)
    if last_run is not None:
        state, checkpoint = last_run
        resumed_at = int(state.train.step)
    # A round takes its state over, so that two of them are never in memory; the caller's parameters
    # are not among it.
    state = jax.tree.map(jnp.copy, state)
    rows = None if mesh is None else NamedSharding(mesh, PartitionSpec(mesh.axis_names[0]))
    if mesh is not None:
        state = jax.device_put(state, NamedSharding(mesh, PartitionSpec()))
    round_ = _round(step_key, loss, optimizer, batches, evaluate, rows)

    with tqdm(
        total=num_steps, initial=resumed_at, unit="step", disable=not sys.stderr.isatty()
    ) as bar:
        for first in range(resumed_at, num_steps, rounds.steps_per_round):
            count = min(rounds.steps_per_round, num_steps - first)
            if isinstance(batches, Resident):
                num_rows = jax.tree.leaves(batches.data)[0].shape[0]
                inputs = batch_indices(batch_key, num_rows, batches.batch_size, first, count)
                state = round_(state, inputs, batches.data)
            else:
                steps = [batches.batch(step) for step in range(first, first + count)]
                inputs = jax.tree.map(lambda *arrays: np.stack(arrays), *steps)
                state = round_(state, inputs, None)
            if (failed_at := int(state.train.failed_at)) >= 0:
                raise TrainingDivergedError(
                    failed_at, None if checkpoint is None else str(checkpoint)
                )
            if folder is not None:
                checkpoint = save_checkpoint(folder, state, identity)
            bar.update(count)
            per_second = (bar.format_dict["rate"] or 0) * batches.batch_size
            bar.set_postfix_str(
                f"loss {float(state.losses[first + count - 1]):.4f}, {per_second:.0f} rows/s"
            )
    best_value = float(state.best_value) if evaluate is not None else float("nan")
    return Run(
        params=state.best_params if np.isfinite(best_value) else state.train.params,
        losses=np.asarray(state.losses),
        best_value=best_value,
        resumed_at=resumed_at,
    )


def _round(
    key: jax.Array,
    loss: Loss,
    optimizer: optax.GradientTransformation,
    batches: Resident | Streamed,
    evaluate: Callable[[Params], jax.Array] | None,
    rows: NamedSharding | None,
) -> Callable[[RunState, Any, Any], RunState]:
    """The jitted function that takes the steps of one round and evaluates."""
    resident = isinstance(batches, Resident)

    def round_(state: RunState, inputs: Any, data: Any) -> RunState:
        def step(train: TrainState, batch_and_key: Any) -> tuple[TrainState, jax.Array]:
            batch = take(data, batch_and_key) if resident else batch_and_key
            if rows is not None:
                batch = lax.with_sharding_constraint(batch, rows)
            return update(jax.random.fold_in(key, train.step), train, batch, loss, optimizer)

        train, losses = lax.scan(step, state.train, inputs)
        all_losses = lax.dynamic_update_slice(state.losses, losses, (state.train.step,))
        if evaluate is None:
            return RunState(train, state.best_value, state.best_params, all_losses)
        value = evaluate(train.params).astype(jnp.float32)
        better = value < state.best_value
        best = jax.tree.map(
            lambda new, old: jnp.where(better, new, old), train.params, state.best_params
        )
        return RunState(train, jnp.where(better, value, state.best_value), best, all_losses)

    return jax.jit(round_, donate_argnums=0, compiler_options=compiler_options())
