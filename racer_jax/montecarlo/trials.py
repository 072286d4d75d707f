r"""Monte Carlo: thousands of random splits x many alphas in one jitted call.

A trial draws a uniform subset of the pool for calibration and measures every metric on the rest.
Nothing is sorted: the pool is in rank space already (`pool_steps`), so a threshold is a position,
found by counting calibration queries, and every metric is a sum over a prefix of its steps, found
by counting test queries. Trial i is a function of `fold_in(key, i)` alone, whatever the tile, the
chunk or the number of devices.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple, Unpack

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from racer_jax._programs import run_kept, usual_devices
from racer_jax.core.nonconformity import TieBroken
from racer_jax.core.placement import on_own_devices
from racer_jax.core.risk_levels import Alpha, Budget
from racer_jax.core.scalar_checks import check_count
from racer_jax.montecarlo.common_size import PlanSize, padded
from racer_jax.montecarlo.kernel import Scratch, blank_scratch, tile_values
from racer_jax.montecarlo.plan import Shape, TrialPlan, trial_plan, usual_tile
from racer_jax.montecarlo.split_design import SplitSpec, split_design, trial_keys
from racer_jax.montecarlo.step_functions import METRICS, Pool
from racer_jax.montecarlo.subsets import key_words, load
from racer_jax.montecarlo.summaries import Accumulator, Checkpoint, Summary, fingerprint
from racer_jax.montecarlo.trial_means import means_on_host
from racer_jax.montecarlo.value_counts import ValueCounts, value_counts

# Trials that a stream has in memory at once on each device, where a tile is no larger.
_CHUNK = 512
_PILOT = 512  # trials that determine how wide the histograms have to be


class Trials(NamedTuple):
    """What each trial measured on its test part, for each alpha.

    Host arrays. Metrics that the pool does not hold are None.

    Use this when you read the result of `split_trials` and need the value of every trial;
    `stream_trials` keeps summaries only.

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


# Traced once for the shape of its results and for the loop over tiles: half of all tracing.
_tile_values = jax.jit(tile_values, static_argnums=1, inline=True)


def _run(
    key: jax.Array,
    plan: TrialPlan,
    first: jax.Array,
    shape: Shape,
    tile: int,
    num_tiles: int,
    mesh: Mesh,
    gather: bool,
) -> dict[str, Any]:
    """Tiles one after the other on each device.

    Results `[a, s]`, sharded over trials (or gathered on all devices).
    """

    def on_device(key: jax.Array, plan: TrialPlan, first: jax.Array) -> dict[str, Any]:
        begin = first + (lax.axis_index("trials") * num_tiles * tile).astype(jnp.uint32)
        trials = begin + jnp.arange(num_tiles * tile, dtype=jnp.uint32).reshape(num_tiles, tile)
        keys = trial_keys((key[0], key[1]), plan.draw, trials)
        scratch = blank_scratch(plan, tile)
        one = jax.eval_shape(partial(_tile_values, plan, shape), scratch, keys[0])[1]
        results = jax.tree.map(lambda x: jnp.zeros((x.shape[0], num_tiles * tile), x.dtype), one)

        def step(
            i: jax.Array, state: tuple[Scratch, dict[str, Any]]
        ) -> tuple[Scratch, dict[str, Any]]:
            scratch, results = state
            scratch, values = _tile_values(plan, shape, scratch, load(keys, i))
            write = partial(lax.dynamic_update_slice_in_dim, start_index=i * tile, axis=1)
            return scratch, jax.tree.map(write, results, values)

        all_tiles: dict[str, Any] = lax.fori_loop(0, num_tiles, step, (scratch, results))[1]
        return all_tiles

    spec = PartitionSpec(None, "trials")
    results: dict[str, Any] = jax.shard_map(
        on_device, mesh=mesh, in_specs=PartitionSpec(), out_specs=spec, check_vma=False
    )(key, plan, first)
    if gather:  # several processes: each computes all trials
        results = lax.with_sharding_constraint(results, NamedSharding(mesh, PartitionSpec()))
    return results


_STATIC = ("shape", "tile", "num_tiles", "mesh", "gather")


def _options(platform: str) -> dict[str, str | bool]:
    """LLVM's second level compiles a fifth faster than XLA's default, to code as fast.

    Vectors are half as wide by default as AVX-512 has them, which costs a tenth.
    """
    if platform != "cpu":
        return {}
    return {"xla_backend_optimization_level": "2", "xla_cpu_prefer_vector_width": "512"}


@cache
def _compiled(platform: str) -> Callable[..., dict[str, Any]]:
    """`_run` under jit."""
    return jax.jit(_run, static_argnames=_STATIC, compiler_options=_options(platform))


class _Chunk(NamedTuple):
    """How many trials, their totals `[a, s]`, and how often each total stands among them."""

    num: int
    totals: dict[str, dict[str, jax.Array]]
    counts: dict[str, dict[str, ValueCounts]]


def _counted(
    totals: dict[str, dict[str, jax.Array]], num: int
) -> dict[str, dict[str, ValueCounts]]:
    """How often each total stands among the first `num` trials, for metrics that count."""
    counts: dict[str, dict[str, ValueCounts]] = {}
    for part, metrics in totals.items():
        whole = {name: x for name, x in metrics.items() if x.dtype == jnp.int32 and name != "rows"}
        counts[part] = {name: value_counts(x, jnp.int32(num)) for name, x in whole.items()}
    return counts


class _Runner:
    """The plan of many trials of one pool, made once and run in chunks."""

    def __init__(
        self,
        key: jax.Array,
        plan: TrialPlan,
        shape: Shape,
        devices: Sequence[jax.Device] | None,
    ) -> None:
        self.plan, self.shape = plan, shape
        self.key = np.asarray(key_words(key))
        self.devices = list(usual_devices() if devices is None else devices)
        self.mesh = Mesh(np.array(self.devices), ("trials",))
        self.platform = str(self.devices[0].platform)
        self.tile = usual_tile(plan, self.platform, len(self.devices))

    @property
    def usual_chunk(self) -> int:
        """Trials that a stream has in memory at once by default."""
        return max(self.tile, _CHUNK) * len(self.devices)

    @property
    def counts_totals(self) -> bool:
        """Whether the devices count whole totals; those of a CPU are at hand for NumPy."""
        return self.platform != "cpu"

    @on_own_devices
    def chunk(self, first: int, num: int) -> dict[str, Any]:
        """Totals of at least `num` trials from `first` on, `[a, s]`."""
        tile = min(self.tile, -(-num // len(self.devices)))
        num_tiles = -(-num // (tile * len(self.devices)))
        gather = any(device.process_index != jax.process_index() for device in self.devices)
        size = {"shape": self.shape, "tile": tile, "num_tiles": num_tiles, "gather": gather}
        results: dict[str, Any] = run_kept(
            partial(_compiled, self.platform),
            (self.key, self.plan, np.uint32(first)),
            {**size, "mesh": self.mesh},
            facts=("trials", size),
            devices=self.devices,
            packages=("core", "montecarlo"),
            options=partial(_options, self.platform),
        )
        return results

    def chunks(self, spans: Sequence[tuple[int, int]], count: bool) -> Iterator[_Chunk]:
        """The trials of each span (first, number).

        The devices work on the next chunk while the caller has this one. All chunks run as long as
        the longest, so that one compilation serves them; what is beyond a span is left to the
        caller to cut off.

        Args:
          spans: First trial and number of trials of each chunk.
          count: Whether the devices count the totals, where they are whole.
        """
        longest = max((num for _, num in spans), default=0)
        pending: deque[_Chunk] = deque()
        for first, num in spans:
            totals = self.chunk(first, longest)
            pending.append(_Chunk(num, totals, _counted(totals, num) if count else {}))
            if len(pending) == 2:
                yield pending.popleft()
        yield from pending


def _check_trials(num_trials: int, first_trial: int) -> None:
    for name, value, least in (("num_trials", num_trials, 1), ("first_trial", first_trial, 0)):
        check_count(name, value, least)
    if first_trial + num_trials > 1 << 32:
        raise ValueError(
            f"trials are numbered below 2**32, got first_trial {first_trial} and num_trials "
            f"{num_trials}"
        )


def split_trials(
    key: jax.Array,
    pool: Pool,
    *,
    alpha: Alpha | None = None,
    budget: Budget | None = None,
    num_trials: int,
    first_trial: int = 0,
    devices: Sequence[jax.Device] | None = None,
    **split: Unpack[SplitSpec],
) -> Trials:
    """Random splits of a pool: thresholds and test metrics of every trial and alpha.

    Each trial calibrates on a uniform random subset of the queries and is measured on the others;
    every subset of that size is equally likely, independently of the other trials.

    Use this when you want each trial by itself, or a way to split that has no exact law (groups,
    questions of several rows, a validation part). For the mean over all splits use `pool_law`,
    which samples nothing; for more trials than memory holds, `stream_trials`.

    Args:
      key: A typed PRNG key. Trial i depends on `fold_in(key, i)` alone, so any trial can be
        replayed.
      pool: From `pool_steps`.
      alpha: One risk level in (0, 1) or several.
      budget: In the place of `alpha`: how many calibration queries each threshold may miss, -1 or
        more, one integer or `[a]`.
      num_trials: S, the number of splits.
      first_trial: Index of the first; trials are numbered below 2**32.
      devices: Devices that share the trials; all by default. The results do not depend on them.
      **split: How each trial splits the pool, the fields of `SplitSpec`: `num_calibration`, and
        where wanted `num_validation`, `group` and `question`.

    Returns:
      `Trials` of `[s, a]` arrays (a = 1 for a single alpha).

    Raises:
      TypeError: If the key is not typed, a count is not an integer, or an alpha not numeric; or if
        not exactly one of `alpha` and `budget` is named.
      ValueError: If a count, an alpha or a budget is out of range, or labels do not fit.

    References:
      Section 5 of the paper runs 100 such trials.
    """
    _check_trials(num_trials, first_trial)
    design = split_design(pool.order, **split)
    plan, shape = trial_plan(pool, design, design.budgets(alpha, budget), means=True)
    chunk = _Runner(key, plan, shape, devices).chunk
    values = means_on_host(chunk(first_trial, num_trials), num_trials)
    means = values["test"]
    return Trials(
        threshold=values["threshold"],
        **{name: means.pop(name, None) for name in METRICS},
        extra=means,
        validation=values.get("validation", {}),
    )


# --- streams --------------------------------------------------------------------------------------


class StreamSpec(SplitSpec, total=False):
    """How a stream splits the pool, and how it runs: keywords of `stream_trials`.

    Use this when several streams run alike: make it once and hand it on with `**`.

    Attributes:
      num_calibration: As of `SplitSpec`, and so are `num_validation`, `group` and `question`.
      chunk_size: Trials in memory at once, at least 1; by default 512 a device, and more on an
        accelerator. Metrics that count have the same summary whatever it is.
      bins: Bins of each histogram, at least 2; 200 by default. They cover eight standard deviations
        on either side, as estimated from the first 512 trials.
      checkpoint: File that keeps the state. If it is there, the stream goes on from it: a killed
        run loses what came after the last save, and a finished one can be made longer.
      save_every: Seconds between saves, 30 by default.
      size: What the plan is padded to, so that pools of several sizes share one compilation, from
        `plan_size`; the results are the same.
    """

    chunk_size: int | None
    bins: int
    checkpoint: Path | str | None
    save_every: float
    size: PlanSize | None


class _Stream(NamedTuple):
    """The fields of `StreamSpec` beside those of `SplitSpec`, with their defaults."""

    chunk_size: int | None = None
    bins: int = 200
    checkpoint: Path | str | None = None
    save_every: float = 30.0
    size: PlanSize | None = None


def stream_trials(
    key: jax.Array,
    pool: Pool,
    *,
    alpha: Alpha | None = None,
    budget: Budget | None = None,
    num_trials: int,
    first_trial: int = 0,
    devices: Sequence[jax.Device] | None = None,
    progress: Callable[[int], object] | None = None,
    **spec: Unpack[StreamSpec],
) -> dict[str, Summary]:
    """`split_trials` in bounded memory: moments and histogram of each metric.

    Use this when there are more trials than fit in memory, or when a long run has to survive being
    stopped (`checkpoint`).

    Args:
      key: A typed PRNG key. Trial i depends on `fold_in(key, i)` alone.
      pool: From `pool_steps`.
      alpha: One risk level in (0, 1) or several.
      budget: In the place of `alpha`, as in `split_trials`.
      num_trials: S, the number of splits.
      first_trial: Index of the first.
      devices: As in `split_trials`.
      progress: Called with the number of trials done since the last call, for example `bar.update`
        of tqdm.
      **spec: The fields of `StreamSpec`: how each trial splits the pool (`num_calibration`, and
        where wanted `num_validation`, `group` and `question`), and how the stream runs
        (`chunk_size`, `bins`, `checkpoint`, `save_every`, `size`).

    Returns:
      A `Summary` by name: `risk`, `size`, `abstention`, `avoidable_miss`, those of the pool, and
      `validation_risk` and so on with a validation part.

    Raises:
      TypeError: As `split_trials`.
      ValueError: As `split_trials`, or if the checkpoint is of another run.
    """
    _check_trials(num_trials, first_trial)
    how = {name: value for name, value in spec.items() if name in _Stream._fields}
    split = {name: value for name, value in spec.items() if name not in how}
    stream = _Stream(**how)  # type: ignore[arg-type]
    if stream.chunk_size is not None:
        check_count("chunk_size", stream.chunk_size, 1)
    check_count("bins", stream.bins, 2)
    design = split_design(pool.order, **split)  # type: ignore[arg-type]
    plan, shape = trial_plan(pool, design, design.budgets(alpha, budget), means=False)
    if stream.size is not None:
        plan, shape = padded(plan, shape, stream.size)
    runner = _Runner(key, plan, shape, devices)
    store = None
    if stream.checkpoint is not None:
        run = [*jax.tree.leaves(plan), repr(shape), runner.key, first_trial, stream.bins]
        store = Checkpoint(Path(stream.checkpoint), stream.save_every, fingerprint(run))
    sums = {} if store is None else store.load()
    num_done = next(iter(sums.values())).num if sums else 0
    if num_done > num_trials:
        raise ValueError(
            f"checkpoint {stream.checkpoint} holds {num_done} trials, more than the {num_trials} "
            "asked for"
        )

    report = progress if progress is not None else lambda _: None
    if num_done:
        report(num_done)
    spans = _spans(num_done, num_trials, stream.chunk_size or runner.usual_chunk)
    count = design.even and runner.counts_totals
    for chunk in runner.chunks([(first_trial + start, num) for start, num in spans], count):
        _add(sums, chunk, stream.bins, design.even)
        report(chunk.num)
        if store is not None:
            store.save_when_due(sums)
    if store is not None and spans:
        store.save(sums)
    return {name: total.summary() for name, total in sums.items()}


def _spans(num_done: int, num_trials: int, chunk_size: int) -> list[tuple[int, int]]:
    """First trial and number of each chunk that is still to be run.

    The first chunk of all has enough trials to determine how wide the histograms have to be.
    """
    spans = []
    if not num_done:
        num_done = min(max(chunk_size, _PILOT), num_trials)
        spans.append((0, num_done))
    spans += [(i, min(chunk_size, num_trials - i)) for i in range(num_done, num_trials, chunk_size)]
    return spans


def _add(sums: dict[str, Accumulator], chunk: _Chunk, bins: int, even: bool) -> None:
    """Adds a chunk to the sums, starting them if there are none.

    Totals are summed as they are where every part is as large in every trial; else means, also
    where the parts of the first chunk happen to be equal.
    """
    for part, prefix in (("test", ""), ("validation", "validation_")):
        by_name: dict[str, jax.Array | np.ndarray] = {**chunk.totals.get(part, {})}
        rows = np.asarray(by_name.pop("rows", np.ones((1, 1))))[:, : chunk.num]
        for name, total in by_name.items():
            total = total if chunk.counts else np.asarray(total)  # NumPy cuts without compiling
            if prefix + name not in sums:
                scale = 1.0 / float(rows[0, 0]) if even else 1.0
                first = np.asarray(total[:, : min(_PILOT, chunk.num)])
                pilot = first if even else first / rows[:, :_PILOT]
                sums[prefix + name] = Accumulator.start(pilot, scale, bins)
            counts = chunk.counts.get(part, {}).get(name)
            if counts is not None and counts.fits():
                sums[prefix + name].add_counts(chunk.num, counts)
                continue
            values = np.asarray(total)[:, : chunk.num]
            sums[prefix + name].add(values if even else values / rows)
