r"""Monte Carlo: thousands of random splits x many alphas in one jitted call.

A trial draws a uniform subset of the pool for calibration and measures every metric on the rest.
Nothing is sorted: the pool is in rank space already (`pool_steps`), so a threshold is a position,
found by counting calibration queries, and every metric is a sum over a prefix of its steps, found
by counting test queries. Trial i is a function of `fold_in(key, i)` alone, whatever the tile, the
chunk or the number of devices.
"""

import time
from collections.abc import Callable, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jax.typing import ArrayLike

from racer_jax.core.nonconformity import TieBroken
from racer_jax.core.risk_levels import Alpha
from racer_jax.montecarlo.packed_bits import (
    Packed,
    as_bytes,
    count_before,
    exclusive_sums,
    gather_bytes,
    running_counts,
)
from racer_jax.montecarlo.packed_bits import select as select_bit
from racer_jax.montecarlo.plan import Plan, Shape, trial_plan
from racer_jax.montecarlo.split_design import (
    Counts,
    Design,
    check_integer,
    split_design,
    trial_keys,
    trial_parts,
    words_by_position,
)
from racer_jax.montecarlo.step_functions import METRICS, Pool
from racer_jax.montecarlo.subsets import key_words, load
from racer_jax.montecarlo.summaries import Accumulator, Summary, fingerprint
from racer_jax.montecarlo.summaries import load as load_sums
from racer_jax.montecarlo.summaries import save as save_sums

# Trials of a tile: what one pass keeps in cache on a CPU, and enough work for a kernel on an
# accelerator.
_TILE = 256
_ACCELERATOR_TILE = 4096
# Trials that tell how wide the histograms have to be.
_PILOT = 512


class Trials(NamedTuple):
    """What each trial measured on its test part, for each alpha; host arrays, None for what the pool leaves out.

    Attributes:
      threshold: Calibrated thresholds, `[s, a]`; a `TieBroken` pair of them if the pool has a
        tie-break.
      risk: Share of test queries misrouted, float32 `[s, a]`.
      size: Mean number of models called, the null model never counted, `[s, a]`.
      abstention: Share of test queries for which no model is called, `[s, a]`.
      avoidable_miss: Share of test queries some model could answer, while none that can was called,
        `[s, a]`.
      extra: Mean of each further metric of the pool, by name, `[s, a]`.
      validation: The same metrics on the validation part, by name, `[s, a]`; empty without one.
    """

    threshold: np.ndarray | TieBroken
    risk: np.ndarray
    size: np.ndarray
    abstention: np.ndarray
    avoidable_miss: np.ndarray
    extra: dict[str, np.ndarray]
    validation: dict[str, np.ndarray]


_Scratch = tuple[tuple[jax.Array, jax.Array], ...]  # bytes and running counts of each part


def _metric_values(
    shape: Shape, counts: jax.Array, rows: jax.Array, uncovered: jax.Array | None
) -> dict[str, Any]:
    """Each metric over a part `[a, t]`: totals, int32 where it counts and float32 otherwise; or means, float32."""
    values = {}
    for metric in shape.metrics:
        kind = jnp.int32 if metric.counts else jnp.float32
        if metric.name == "risk" and uncovered is not None:
            total = uncovered
        else:
            total = jnp.broadcast_to(rows[None].astype(kind) * kind(metric.base), counts.shape[1:])
            for plane, weight in zip(metric.planes, metric.weights, strict=True):
                total = total + counts[plane].astype(kind) * kind(weight)
        values[metric.name] = (
            total.astype(jnp.float32) / rows[None].astype(jnp.float32) if shape.means else total
        )
    return values


def _tile(
    plan: Plan, shape: Shape, scratch: _Scratch, keys: jax.Array
) -> tuple[_Scratch, dict[str, Any]]:
    """One tile of trials: positions of the thresholds (or thresholds) and values of the metrics, all `[a, t]`.

    The scratch arrays are carried from tile to tile, so that they are not cleared for each.
    """
    lanes = keys.shape[-1] // plan.draw.calibration.num.shape[0]
    drawn, validation = trial_parts(keys, plan.draw)
    words = words_by_position(drawn, plan.draw, lanes)
    parts = {"test": ~words}
    if validation is not None:
        validation = words_by_position(validation, plan.draw, lanes)
        parts = {"test": ~(words | validation), "validation": validation}

    # The words of the calibration part and the blocks of all the others, summed in one go.
    bits, running, per_row = [], [], [lax.population_count(words).astype(jnp.int32)]
    for part, (byte, count) in zip(parts.values(), scratch, strict=True):
        bits.append(gather_bytes(as_bytes(part), plan.planes.order, byte))
        counted, total = running_counts(bits[-1], count)
        running.append(counted)
        per_row.append(total.astype(jnp.int32))
    before = exclusive_sums(jnp.concatenate(per_row))[0]
    num_words, num_blocks = len(words), bits[0].shape[1]
    num = before[num_words]

    # One column where the number of calibration rows is fixed, one a lane where it varies with the
    # split.
    rows = num if plan.ranks.rank.shape[1] > 1 else jnp.full(1, plan.ranks.least)
    rank = plan.ranks.rank[:, rows - plan.ranks.least]
    position = select_bit(
        words, before, jnp.minimum(rank, rows[None]), plan.ranks.guess, shape.width
    )
    position = jnp.where(rank > rows[None], shape.num_queries, position)

    result: dict[str, Any] = {"position": position}
    if shape.means:
        result = {"threshold": jax.tree.map(lambda x: load(x, position), plan.threshold)}
    left = shape.num_queries - num
    if validation is not None:
        num_validation = lax.population_count(validation).astype(jnp.int32).sum(axis=0)
        sizes = {"test": left - num_validation, "validation": num_validation}
    else:
        sizes = {"test": left}
    for i, name in enumerate(parts):
        begin = num_words + i * num_blocks
        packed = Packed(bits[i], running[i], before[begin : begin + num_blocks])

        def prefix(
            _: None, plane: tuple[jax.Array, jax.Array], packed: Packed = packed
        ) -> tuple[None, jax.Array]:
            entry, begin = plane
            start = load(packed.before, begin >> 7)[None]  # planes begin with a block
            return None, count_before(packed, load(entry, position)) - start

        counts: jax.Array = lax.scan(prefix, None, (plan.planes.entry, plan.planes.begin))[1]
        uncovered = (
            (shape.num_queries - 1 - position) - (rows[None] - rank) if shape.distinct else None
        )
        result[name] = _metric_values(shape, counts, sizes[name], uncovered)
        if not shape.means:
            result[name]["rows"] = sizes[name][None]
    return tuple(zip(bits, running, strict=True)), result


def _run(
    key: jax.Array,
    plan: Plan,
    first: jax.Array,
    shape: Shape,
    tile: int,
    num_tiles: int,
    mesh: Mesh,
    gather: bool,
) -> dict[str, Any]:
    """Tiles one after the other on each device; results `[a, s]`, sharded over trials (or gathered on all)."""

    def on_device(key: jax.Array, plan: Plan, first: jax.Array) -> dict[str, Any]:
        begin = first + (lax.axis_index("trials") * num_tiles * tile).astype(jnp.uint32)
        trials = begin + jnp.arange(num_tiles * tile, dtype=jnp.uint32).reshape(num_tiles, tile)
        keys = trial_keys((key[0], key[1]), plan.draw, trials)
        blank = jnp.zeros((*plan.planes.order.row.shape[::2], tile), jnp.uint8)
        scratch = ((blank, blank),) * (1 if plan.draw.outer is None else 2)
        one = jax.eval_shape(partial(_tile, plan, shape), scratch, keys[0])[1]
        results = jax.tree.map(lambda x: jnp.zeros((x.shape[0], num_tiles * tile), x.dtype), one)

        def step(
            i: jax.Array, state: tuple[_Scratch, dict[str, Any]]
        ) -> tuple[_Scratch, dict[str, Any]]:
            scratch, results = state
            scratch, done = _tile(plan, shape, scratch, load(keys, i))
            put = partial(lax.dynamic_update_slice_in_dim, start_index=i * tile, axis=1)
            return scratch, jax.tree.map(put, results, done)

        all_tiles: dict[str, Any] = lax.fori_loop(0, num_tiles, step, (scratch, results))[1]
        return all_tiles

    spec = PartitionSpec(None, "trials")
    done: dict[str, Any] = jax.shard_map(
        on_device, mesh=mesh, in_specs=PartitionSpec(), out_specs=spec, check_vma=False
    )(key, plan, first)
    if gather:  # several processes: each sees all trials
        done = lax.with_sharding_constraint(done, NamedSharding(mesh, PartitionSpec()))
    return done


_STATIC = ("shape", "tile", "num_tiles", "mesh", "gather")


@cache
def _compiled(platform: str) -> Callable[..., dict[str, Any]]:
    """`_run` under jit. On a CPU, LLVM's second level compiles a fifth faster than XLA's default, to code as fast."""
    options: dict[str, str | bool] = (
        {"xla_backend_optimization_level": "2"} if platform == "cpu" else {}
    )
    return jax.jit(_run, static_argnames=_STATIC, compiler_options=options)


class _Runner:
    """The plan of many trials of one pool, made once and run in chunks."""

    def __init__(
        self,
        key: jax.Array,
        pool: Pool,
        design: Design,
        alpha: Alpha,
        devices: Sequence[jax.Device] | None,
        *,
        means: bool,
    ) -> None:
        self.plan, self.shape = trial_plan(pool, design, alpha, means)
        self.key = np.asarray(key_words(key))
        self.devices = list(jax.devices() if devices is None else devices)
        self.mesh = Mesh(np.array(self.devices), ("trials",))
        self.tile = _TILE if self.devices[0].platform == "cpu" else _ACCELERATOR_TILE

    def chunk(self, first: int, num: int) -> dict[str, Any]:
        """Positions and totals of at least `num` trials from `first` on, `[a, s]`."""
        tile = min(self.tile, -(-num // len(self.devices)))
        num_tiles = -(-num // (tile * len(self.devices)))
        gather = any(device.process_index != jax.process_index() for device in self.devices)
        run = _compiled(self.devices[0].platform)
        return run(
            self.key, self.plan, np.uint32(first), self.shape, tile, num_tiles, self.mesh, gather
        )


def _check_trials(num_trials: int, first_trial: int) -> None:
    for name, value, least in (("num_trials", num_trials, 1), ("first_trial", first_trial, 0)):
        check_integer(name, value, least)
    if first_trial + num_trials > 1 << 32:
        raise ValueError(
            f"trials are numbered below 2**32, got first_trial {first_trial} and num_trials "
            f"{num_trials}"
        )


def split_trials(
    key: jax.Array,
    pool: Pool,
    *,
    num_calibration: Counts,
    alpha: Alpha,
    num_trials: int,
    first_trial: int = 0,
    num_validation: Counts = 0,
    group: ArrayLike | None = None,
    question: ArrayLike | None = None,
    devices: Sequence[jax.Device] | None = None,
) -> Trials:
    """Random splits of a pool: thresholds and test metrics of every trial and alpha.

    Each trial calibrates on a uniform random subset of the queries and is measured on the others;
    every subset of that size is equally likely, independently of the other trials.

    Args:
      key: A typed PRNG key. Trial i depends on `fold_in(key, i)` alone, so any trial can be
        replayed.
      pool: From `pool_steps`.
      num_calibration: n, the number of queries (of questions, if given) that calibrate, at least 1.
        With groups, one number for each in order of label, or one in all that is shared in
        proportion to their sizes.
      alpha: One risk level in (0, 1) or several.
      num_trials: S.
      first_trial: Index of the first; trials are numbered below 2**32.
      num_validation: The same for a validation part, for choices that must not see the test part.
      group: Labels `[N]`; each part takes a fixed number from each group (a stratified split).
      question: Labels `[N]`; rows of one question always stand in one part. n then varies from
        trial to trial, and each trial uses its own.
      devices: Devices that share the trials; all by default. The results do not depend on them.

    Returns:
      `Trials` of `[s, a]` arrays (a = 1 for a single alpha).

    Raises:
      TypeError: If the key is not typed, a count is not an integer, or an alpha not numeric.
      ValueError: If a count or an alpha is out of range, or labels do not fit.

    References:
      Section 5 of the paper runs 100 such trials.
    """
    _check_trials(num_trials, first_trial)
    design = split_design(pool.order, num_calibration, num_validation, group, question)
    runner = _Runner(key, pool, design, alpha, devices, means=True)
    done = jax.tree.map(
        lambda x: np.asarray(x)[:, :num_trials].T, runner.chunk(first_trial, num_trials)
    )
    means = done["test"]
    return Trials(
        threshold=done["threshold"],
        **{name: means.pop(name, None) for name in METRICS},
        extra=means,
        validation=done.get("validation", {}),
    )


def stream_trials(
    key: jax.Array,
    pool: Pool,
    *,
    num_calibration: Counts,
    alpha: Alpha,
    num_trials: int,
    first_trial: int = 0,
    num_validation: Counts = 0,
    group: ArrayLike | None = None,
    question: ArrayLike | None = None,
    devices: Sequence[jax.Device] | None = None,
    chunk_size: int | None = None,
    bins: int = 200,
    progress: Callable[[int], object] | None = None,
    checkpoint: Path | str | None = None,
    save_every: float = 30.0,
) -> dict[str, Summary]:
    """`split_trials` in bounded memory: moments and histogram of each metric over any number of trials.

    Args:
      key: A typed PRNG key. Trial i depends on `fold_in(key, i)` alone.
      pool: From `pool_steps`.
      num_calibration: As in `split_trials`.
      alpha: One risk level in (0, 1) or several.
      num_trials: S.
      first_trial: Index of the first.
      num_validation: As in `split_trials`.
      group: As in `split_trials`.
      question: As in `split_trials`.
      devices: As in `split_trials`.
      chunk_size: Trials in memory at once, at least 1; by default one tile a device. Metrics that
        count have the same summary whatever it is.
      bins: Bins of each histogram, at least 2. They cover eight standard deviations on either side,
        as estimated from the first 512 trials.
      progress: Called with the number of trials done since the last call, for example `bar.update`
        of tqdm.
      checkpoint: File that keeps the state. If it is there, the stream goes on from it: a killed
        run loses what came after the last save, and a finished one can be made longer.
      save_every: Seconds between saves.

    Returns:
      A `Summary` by name: `risk`, `size`, `abstention`, `avoidable_miss`, those of the pool, and
      `validation_risk` and so on with a validation part.

    Raises:
      TypeError: If the key is not typed, a count is not an integer, or an alpha not numeric.
      ValueError: If a count or an alpha is out of range, labels do not fit, or the checkpoint is of
        another run.
    """
    _check_trials(num_trials, first_trial)
    if chunk_size is not None:
        check_integer("chunk_size", chunk_size, 1)
    check_integer("bins", bins, 2)
    design = split_design(pool.order, num_calibration, num_validation, group, question)
    runner = _Runner(key, pool, design, alpha, devices, means=False)
    if chunk_size is None:
        chunk_size = runner.tile * len(runner.devices)
    path = None if checkpoint is None else Path(checkpoint)
    sums: dict[str, Accumulator] = {}
    run = ""
    if path is not None:
        run = fingerprint(
            [*jax.tree.leaves(runner.plan), repr(runner.shape), runner.key, first_trial, bins]
        )
        if path.exists():
            sums = load_sums(path, run)
    done = next(iter(sums.values())).num if sums else 0
    if done > num_trials:
        raise ValueError(
            f"checkpoint {path} holds {done} trials, more than the {num_trials} asked for"
        )
    if progress is not None and done:
        progress(min(done, num_trials))
    pilot = min(max(chunk_size, _PILOT), num_trials)
    chunks = [(0, pilot)] if not done else []
    chunks += [
        (i, min(chunk_size, num_trials - i)) for i in range(done or pilot, num_trials, chunk_size)
    ]
    size = max(pilot, chunk_size) if not done else chunk_size
    saved = time.monotonic()
    ahead = None
    for i, (start, num) in enumerate(chunks):
        # The devices work on the next chunk while the host sums this one.
        now = (
            ahead if ahead is not None else runner.chunk(first_trial + start, min(size, num_trials))
        )
        ahead = None
        if i + 1 < len(chunks):
            ahead = runner.chunk(first_trial + chunks[i + 1][0], min(size, num_trials))
        _add(sums, now, num, bins)
        if progress is not None:
            progress(num)
        if path is not None and (i + 1 == len(chunks) or time.monotonic() - saved > save_every):
            save_sums(path, run, sums)
            saved = time.monotonic()
    return {name: total.summary() for name, total in sums.items()}


def _add(sums: dict[str, Accumulator], done: dict[str, Any], num: int, bins: int) -> None:
    """Adds the first `num` trials of a chunk to the sums, starting them if there are none."""
    for part, prefix in (("test", ""), ("validation", "validation_")):
        totals = {name: np.asarray(total)[:, :num] for name, total in done.get(part, {}).items()}
        rows = totals.pop("rows", np.ones((1, 1)))
        for name, total in totals.items():
            fixed = (rows == rows[0, 0]).all()
            if prefix + name not in sums:
                values = total if fixed else total / rows
                scale = 1.0 / rows[0, 0] if fixed else 1.0
                sums[prefix + name] = Accumulator.start(values[:, :_PILOT], float(scale), bins)
            added = sums[prefix + name]
            added.add(total if added.scale != 1.0 or fixed else total / rows)
