"""Training: one jitted scan where the data fits, else the same steps in checkpointed rounds.

A step is a function of the state, a batch and a key, and step i uses `fold_in(key, i)` alone. So a
run that was killed and resumed from its last checkpoint is the same run, bit for bit. A loss or
gradient that is not finite changes nothing: the parameters stay those of the last good step, whose
number is kept.
"""

import functools
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax

from racer_jax.core.threefry import split_each
from racer_jax.routers.run_keys import RunKeys, draws_of_order, epochs_of_round, run_keys

Schedule = Literal["constant", "linear", "cosine"]
SCHEDULES: tuple[str, ...] = get_args(Schedule)

# Parts of an array whose largest entries are sought side by side.
_PARTS = 3
# Entries of an array that is copied sooner than it is looked at by itself.
_SMALL = 4096

Params = Any
Batch = Any
Loss = Callable[[Params, Batch, Any], jax.Array]


@dataclass(frozen=True)
class OptimizerConfig:
    """AdamW with a schedule and clipping.

    Use this when you set how a router is trained.

    Attributes:
      learning_rate: The peak.
      weight_decay: Decoupled, as in AdamW.
      schedule: What follows the warm-up: `"constant"`, or `"linear"` or `"cosine"` down to zero.
      warmup: Share of the steps over which the rate rises from zero.
      clip_norm: Gradients with a larger global norm are scaled down to it; None for no clipping.

    Raises:
      ValueError: If a value is out of range.
    """

    learning_rate: float = 1e-3
    weight_decay: float = 0.01
    schedule: Schedule = "constant"
    warmup: float = 0.0
    clip_norm: float | None = None

    def __post_init__(self) -> None:
        if not self.learning_rate > 0:
            raise ValueError(f"learning_rate must be positive, got {self.learning_rate}")
        if self.weight_decay < 0:
            raise ValueError(f"weight_decay must not be negative, got {self.weight_decay}")
        if self.schedule not in SCHEDULES:
            raise ValueError(f"schedule must be one of {SCHEDULES}, got {self.schedule!r}")
        if not 0 <= self.warmup < 1:
            raise ValueError(f"warmup must be a share of the steps in [0, 1), got {self.warmup}")
        if self.clip_norm is not None and not self.clip_norm > 0:
            raise ValueError(f"clip_norm must be positive or None, got {self.clip_norm}")

    def transformation(self, num_steps: int) -> optax.GradientTransformation:
        """The Optax transformation for a run of so many steps.

        Use this when you train in a loop of your own.
        """
        num_warmup = round(self.warmup * num_steps)
        rest = max(1, num_steps - num_warmup)
        after = {
            "constant": optax.constant_schedule(self.learning_rate),
            "linear": optax.linear_schedule(self.learning_rate, 0.0, rest),
            "cosine": optax.cosine_decay_schedule(self.learning_rate, rest),
        }[self.schedule]
        rate = after
        if num_warmup:
            rise = optax.linear_schedule(0.0, self.learning_rate, num_warmup)
            rate = optax.join_schedules([rise, after], [num_warmup])
        clip = [] if self.clip_norm is None else [optax.clip_by_global_norm(self.clip_norm)]
        return optax.chain(*clip, optax.adamw(rate, weight_decay=self.weight_decay))


class TrainState(NamedTuple):
    """Where a run stands.

    Use this when you write a training loop of your own.

    Attributes:
      step: Number of steps taken, int32.
      params: Parameters, a pytree.
      opt_state: State of the optimizer.
      failed_at: The first step whose loss or gradient was not finite, int32; -1 where there was
        none.
    """

    step: jax.Array
    params: Params
    opt_state: Any
    failed_at: jax.Array


def start(params: Params, optimizer: optax.GradientTransformation) -> TrainState:
    """The state before the first step. Use this when parameters are new."""
    return TrainState(jnp.int32(0), params, optimizer.init(params), jnp.int32(-1))


def all_finite(tree: Any) -> jax.Array:
    """Whether every entry of every array, floating all, is finite, a bool scalar.

    Use this when a run must stop where its numbers break.
    """

    def larger(first: Sequence[jax.Array], second: Sequence[jax.Array]) -> list[jax.Array]:
        return [jnp.maximum(a, b) for a, b in zip(first, second, strict=True)]

    def finite(array: jax.Array) -> jax.Array:
        kind = np.dtype(f"int{8 * array.dtype.itemsize}")
        infinity = np.asarray(np.inf, array.dtype).view(kind)
        # Without its sign bit a float orders as the integer of the same bits, and what is not
        # finite comes last.
        magnitudes = lax.bitcast_convert_type(array, kind) & kind.type(np.iinfo(kind).max)
        # Parts side by side in one reduction run on vectors; a CPU takes five times as long over a
        # single one. They may overlap.
        axis = int(np.argmax(magnitudes.shape))
        num = magnitudes.shape[axis]
        size = -(-num // _PARTS)
        starts = [min(part * size, num - size) for part in range(_PARTS)]
        parts = [lax.slice_in_dim(magnitudes, start, start + size, axis=axis) for start in starts]
        largest = lax.reduce(parts, [kind.type(0)] * _PARTS, larger, tuple(range(magnitudes.ndim)))
        is_finite: jax.Array = functools.reduce(jnp.maximum, largest) < infinity
        return is_finite

    # What is small is looked at together: each reduction takes the compiler a twentieth of a
    # second.
    large, small = [], defaultdict(list)
    for array in map(jnp.asarray, jax.tree.leaves(tree)):
        if array.size > _SMALL:
            large.append(array)
        elif array.size:
            small[array.dtype].append(array.ravel())
    groups = [*large, *map(jnp.concatenate, small.values())]
    all_finite: jax.Array = functools.reduce(jnp.logical_and, map(finite, groups), jnp.bool_(True))
    return all_finite


def update(
    noise: Any, state: TrainState, batch: Batch, loss: Loss, optimizer: optax.GradientTransformation
) -> tuple[TrainState, jax.Array]:
    """One step.

    Use this when you write a training loop of your own.

    Args:
      noise: What `loss` takes as its third argument: the step's key, or what was drawn with it.
      state: Where the run stands.
      batch: What `loss` takes.
      loss: `loss(params, batch, noise)`, a scalar.
      optimizer: An Optax transformation.

    Returns:
      The new state and the loss, float32. Where loss or gradient are not finite, or once were, only
      `step` moves on.
    """
    value, grads = jax.value_and_grad(loss)(state.params, batch, noise)
    finite = all_finite((value, grads))
    good = finite & (state.failed_at < 0)

    def step_taken(params: Params, opt_state: Any) -> tuple[Params, Any]:
        updates, opt_state = optimizer.update(grads, opt_state, params)
        return optax.apply_updates(params, updates), opt_state

    # On a CPU not a selection: with one, XLA makes the optimizer's new state twice and copies the
    # old one. (vmap makes it one all the same.)
    def by_branch(*old: Any) -> Any:
        return lax.cond(good, step_taken, lambda *old: old, *old)

    # An accelerator would wait at each branch until the host has read the condition, once a step.
    def by_selection(*old: Any) -> Any:
        return jax.tree.map(functools.partial(jnp.where, good), step_taken(*old), old)

    params, opt_state = lax.platform_dependent(
        state.params, state.opt_state, cpu=by_branch, default=by_selection
    )
    failed_at = jnp.where((state.failed_at < 0) & ~finite, state.step, state.failed_at)
    return TrainState(state.step + 1, params, opt_state, failed_at), value.astype(jnp.float32)


def permutation(key: jax.Array, num: int) -> jax.Array:
    """A random order of 0..num - 1, int32 `[num]`.

    On a CPU several times as fast as `jax.random.permutation`; see `ordered`.

    Use this when batches are drawn under `jit`.
    """
    return ordered(jax.random.split(key, draws_of_order(num)), num)


def ordered(keys: jax.Array, num: int) -> jax.Array:
    """The order of 0..num - 1 that keys `[r]` draw, int32 `[num]`; r is `draws_of_order(num)`.

    Random words whose last bits hold the position are sorted, so that no second array moves along.

    Use this when the keys of a draw are derived already.
    """
    position_bits = (num - 1).bit_length()
    mask = np.uint32(2**position_bits - 1)
    # All draws at once: to compile one takes longer than to make it.
    draws = jax.vmap(lambda key: jax.random.bits(key, (num,), jnp.uint32))(keys)
    words = (draws & ~mask) | jnp.arange(num, dtype=jnp.uint32)[None]
    order: jax.Array
    order, *others = (jnp.sort(words, axis=1) & mask).astype(jnp.int32)
    for other in others:
        order = order[other]
    return order


def batch_indices(
    key: jax.Array,
    num_rows: int,
    batch_size: int,
    first_step: jax.Array | int,
    num_steps: int,
    num_epochs: int | None = None,
) -> jax.Array:
    """Rows of the batches of some steps.

    Every epoch is a fresh permutation, batches run on from one to the next.

    Use this when a training loop goes over the rows several times.

    Args:
      key: A typed PRNG key; epoch e is drawn from `fold_in(key, e)`.
      num_rows: Rows of the data.
      batch_size: Rows of a batch, at most `num_rows`.
      first_step: Number of the first step, int32, may be traced.
      num_steps: How many steps.
      num_epochs: How many epochs these steps touch at most, where the caller can say; as many as
        they can where None.

    Returns:
      int32 `[num_steps, batch_size]`; the same for a step whichever call asks for it.

    Raises:
      ValueError: If a batch is larger than the data.
    """
    if not 1 <= batch_size <= num_rows:
        raise ValueError(
            f"batch_size must be between 1 and the number of rows, {num_rows}, got {batch_size}"
        )
    num_draws = num_steps * batch_size
    first_row = jnp.asarray(first_step, jnp.int32) * batch_size
    first_epoch = first_row // num_rows
    if num_epochs is None:
        num_epochs = -(-(num_rows - 1 + num_draws) // num_rows)
    epochs = first_epoch + jnp.arange(num_epochs, dtype=jnp.int32)
    keys = split_each(
        jax.vmap(jax.random.fold_in, (None, 0))(key, epochs), draws_of_order(num_rows)
    )
    return _batches(keys, num_rows, first_row - first_epoch * num_rows, (num_steps, batch_size))


def _batches(
    keys: jax.Array, num_rows: int, first_row: jax.Array, shape: tuple[int, int]
) -> jax.Array:
    """Rows of batches `[num_steps, batch_size]`, from the orders that keys `[e, r]` draw.

    The first row is counted from the beginning of the first of these epochs.
    """
    rows = jax.vmap(lambda key: ordered(key, num_rows))(keys).reshape(-1)
    return lax.dynamic_slice(rows, (first_row,), (shape[0] * shape[1],)).reshape(shape)


def take(data: Any, indices: jax.Array | np.ndarray) -> Any:
    """The rows of every array of a pytree; an index past the end is that of the last row.

    Use this when batches are rows of several arrays.
    """
    # The default would compare every index and select for every entry.
    return jax.tree.map(lambda array: jnp.take(array, indices, axis=0, mode="clip"), data)


class Rounds(NamedTuple):
    """How long a run trains.

    Use this when you call `fit_in_memory`.

    Attributes:
      batch_size: Rows of a batch.
      steps_per_round: Steps between two evaluations.
      num_rounds: Rounds at most.
      patience: Rounds without improvement after which training stops; None to use all rounds.
    """

    batch_size: int
    steps_per_round: int
    num_rounds: int
    patience: int | None = None


class Fitted(NamedTuple):
    """What a training run gives back.

    Use this when you read what `fit_in_memory` returns.

    Attributes:
      params: The parameters of the best evaluation; without evaluation, the last ones.
      losses: Loss of each step, float32 `[num_rounds, steps_per_round]`; NaN where training had
        stopped.
      evaluations: Held-out loss after each round, float32 `[num_rounds]`; NaN where training had
        stopped.
      best_round: The round whose parameters were kept, int32.
      failed_at: The first step whose loss or gradient was not finite, int32; -1 where there was
        none.
    """

    params: Params
    losses: jax.Array
    evaluations: jax.Array
    best_round: jax.Array
    failed_at: jax.Array


def fit_in_memory(
    key: jax.Array | RunKeys,
    params: Params,
    data: Any,
    loss: Loss,
    optimizer: optax.GradientTransformation,
    rounds: Rounds,
    *,
    evaluate: Callable[[Params], jax.Array] | None = None,
    draw: Callable[[jax.Array], Any] = lambda key: key,
) -> Fitted:
    """Trains in one `lax.scan` over rounds of steps; pure, to be jitted and vmapped by the caller.

    Use this when the data fit into memory and a run takes minutes.

    Args:
      key: A typed PRNG key, or what `run_keys` derives from it, which saves compiling that.
      params: Parameters to start from.
      data: Pytree of arrays `[n, ...]`; a batch is the same pytree with the rows of a batch.
      loss: `loss(params, batch, noise)`, a scalar.
      optimizer: An Optax transformation.
      rounds: How many rows, steps and rounds.
      evaluate: Held-out loss of parameters, lower is better; the best parameters are kept.
      draw: The noise of a step from its key, or from what `RunKeys.steps` holds for it: an array or
        a pytree of them; drawn and kept for a whole round at once, which takes a CPU a tenth of the
        time. The key itself where not given.

    Returns:
      The result of the run.
    """
    batch_size, steps_per_round, num_rounds, patience = rounds
    num_rows = jax.tree.leaves(data)[0].shape[0]
    num_epochs = epochs_of_round(num_rows, steps_per_round * batch_size, num_rounds)
    if not isinstance(key, RunKeys):
        key = run_keys(key, num_rows, batch_size, steps_per_round, num_rounds)
    # The keys go into the scan as numbers: under vmap the `cond` below selects among what its
    # branches read, which JAX's check of key reuse counts as a use.
    implementation = jax.random.key_impl(key.epochs)
    numbers = jax.tree.map(jax.random.key_data, key)

    def keys_from(numbers: Any, first: jax.Array, num: int) -> Any:
        """The keys of so many epochs or steps, from a number on."""

        def part(number: jax.Array) -> jax.Array:
            some = lax.dynamic_slice_in_dim(number, first, num)
            keys: jax.Array = jax.random.wrap_key_data(some, impl=implementation)
            return keys

        return jax.tree.map(part, numbers)

    def step(
        state: TrainState, batch_and_key: tuple[jax.Array, Any]
    ) -> tuple[TrainState, jax.Array]:
        indices, noise = batch_and_key
        return update(noise, state, take(data, indices), loss, optimizer)

    class Best(NamedTuple):
        value: jax.Array
        round: jax.Array
        params: Params

    def run(
        carry: tuple[TrainState, Best], number: jax.Array
    ) -> tuple[tuple[TrainState, Best], Any]:
        state, best = carry
        first_row = state.step * batch_size
        first_epoch = first_row // num_rows
        indices = _batches(
            keys_from(numbers.epochs, first_epoch, num_epochs),
            num_rows,
            first_row - first_epoch * num_rows,
            (steps_per_round, batch_size),
        )
        noise = jax.vmap(draw)(keys_from(numbers.steps, state.step, steps_per_round))
        state, losses = lax.scan(step, state, (indices, noise))
        if evaluate is None:
            return (state, Best(best.value, number, state.params)), (losses, jnp.float32(jnp.nan))
        value = evaluate(state.params).astype(jnp.float32)
        # A NaN compares false, so it is never an improvement.
        better = value < best.value
        best_params = jax.tree.map(
            lambda new, old: jnp.where(better, new, old), state.params, best.params
        )
        best = Best(
            jnp.where(better, value, best.value), jnp.where(better, number, best.round), best_params
        )
        return (state, best), (losses, value)

    def skip(
        carry: tuple[TrainState, Best], number: jax.Array
    ) -> tuple[tuple[TrainState, Best], Any]:
        return carry, (jnp.full(steps_per_round, jnp.nan, jnp.float32), jnp.float32(jnp.nan))

    def round_(
        carry: tuple[TrainState, Best], number: jax.Array
    ) -> tuple[tuple[TrainState, Best], Any]:
        state, best = carry
        stop = state.failed_at >= 0
        if evaluate is not None and patience is not None:
            stop |= number - best.round > patience
        out: tuple[tuple[TrainState, Best], Any] = lax.cond(stop, skip, run, carry, number)
        return out

    first = Best(jnp.float32(jnp.inf), jnp.int32(0), params)
    (state, best), (losses, evaluations) = lax.scan(
        round_, (start(params, optimizer), first), jnp.arange(num_rounds, dtype=jnp.int32)
    )
    return Fitted(best.params, losses, evaluations, best.round, state.failed_at)
