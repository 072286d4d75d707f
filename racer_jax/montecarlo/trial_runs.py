r"""How trials of one pool are run: by the kernel on JAX's devices, or plain ones by a C program."""

from collections import deque
from collections.abc import Callable, Generator, Mapping, Sequence
from functools import cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from racer_jax._programs import run_kept, usual_devices
from racer_jax.core.placement import on_own_devices
from racer_jax.montecarlo.common_size import PlanSize, padded
from racer_jax.montecarlo.kernel import Scratch, blank_scratch, tile_values
from racer_jax.montecarlo.plain_splits import PlainTrials, plain_program, usual_threads
from racer_jax.montecarlo.plan import (
    PlanParts,
    Shape,
    TrialPlan,
    packed_plan,
    plan_parts,
    usual_tile,
)
from racer_jax.montecarlo.shared_work import Started
from racer_jax.montecarlo.split_design import Design, trial_keys
from racer_jax.montecarlo.step_functions import Pool
from racer_jax.montecarlo.subsets import key_words, load
from racer_jax.montecarlo.trial_means import means_on_host
from racer_jax.montecarlo.value_counts import ValueCounts, value_counts

# Trials that a stream has in memory at once on each device, where a tile is no larger.
_CHUNK = 512
# The least of them where the program runs them. Its threads are done sooner than NumPy with the
# sums, and those of many trials at once take little longer than those of few.
_PROGRAM_CHUNK = 4096
# Trials of a chunk that the program counts, which no one holds; and the most counts of a thread, as
# more of them do not stay in its cache.
_COUNTED_CHUNK = 1 << 14
_MOST_COUNTS = 1 << 20


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


class Chunk(NamedTuple):
    """How many trials, their totals `[a, s]`, and how often each total stands among them.

    Use this when you read what `chunks` yields.
    """

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


class KernelTrials:
    """The trials of one pool by the kernel, in chunks of one size, on JAX's devices.

    Use this when `plain_program` has none for them.

    Args:
      key: Two uint32 words `[2]`, from `key_words`.
      plan: What a jitted call reads.
      shape: Its static part.
      devices: Devices that share the trials; the results do not depend on them.
    """

    def __init__(
        self, key: np.ndarray, plan: TrialPlan, shape: Shape, devices: Sequence[jax.Device]
    ) -> None:
        self.key, self.plan, self.shape = key, plan, shape
        self.devices = list(devices)
        self.mesh = Mesh(np.array(self.devices), ("trials",))
        self.platform = str(self.devices[0].platform)
        self.tile = usual_tile(plan, self.platform, len(self.devices))

    @property
    def usual_chunk(self) -> int:
        """Trials that a stream has in memory at once by default.

        Use this when a stream is cut into chunks.
        """
        return max(self.tile, _CHUNK) * len(self.devices)

    @property
    def first_chunk(self) -> int:
        """Trials of the first chunk by default, where no more of them are asked for.

        Use this when a stream is cut into chunks.
        """
        return self.usual_chunk

    @property
    def counts_totals(self) -> bool:
        """Whether the devices count whole totals; those of a CPU are at hand for NumPy.

        Use this when totals are summed.
        """
        return self.platform != "cpu"

    @on_own_devices
    def chunk(self, first: int, num: int) -> dict[str, Any]:
        """Totals of at least `num` trials from `first` on, `[a, s]`.

        Use this when a chunk is wanted on the devices; `chunks` has the next one under way.
        """
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

    def means(self, first: int, num: int) -> dict[str, Any]:
        """Thresholds and means of some trials, host arrays `[s, a]`.

        Use this when each trial is wanted by itself.
        """
        return means_on_host(self.chunk(first, num), num)

    def start(self, first: int, num: int, longest: int, count: bool) -> Started:
        """Starts a chunk; what it returns waits for a `Chunk`.

        Use this when the devices work on a chunk while the last is read.

        Args:
          first: Number of the first trial.
          num: How many are wanted.
          longest: How many the longest chunk has: all run as long, so that one compilation serves
            them, and what is beyond `num` is left to the caller to cut off.
          count: Whether the devices count the totals, where they are whole.
        """
        totals = self.chunk(first, longest)
        chunk = Chunk(num, totals, _counted(totals, num) if count else {})
        return Started(lambda: chunk, lambda: None)


class ProgramTrials:
    """The trials of one pool that is split plainly, by the C program.

    Where all totals are whole, a stream's first chunk says in which range they lie, and of the
    others only the distribution is kept: as of an accelerator, which counts for another reason.

    Use this when `plain_program` returned one.

    Args:
      trials: The program with its task.
      names: The metrics, in their order.
    """

    counts_totals = False

    def __init__(self, trials: PlainTrials, names: Sequence[str]) -> None:
        self._trials, self._names = trials, names
        self._ranges: list[tuple[np.ndarray, int]] = []
        usual = max(_PROGRAM_CHUNK, _CHUNK * trials.num_threads)
        self.usual_chunk = _COUNTED_CHUNK if trials.all_whole else usual
        self.first_chunk = 1 if trials.all_whole else usual  # as few as a range can be read from

    def means(self, first: int, num: int) -> dict[str, Any]:
        """As of `KernelTrials`. Use this when each trial is wanted by itself."""
        result: dict[str, Any] = jax.tree.map(np.transpose, self._trials.start(first, num).wait())
        return result

    @property
    def can_count(self) -> bool:
        """Whether ranges would be of use. Use this before they are found."""
        return self._trials.all_whole and not self._ranges

    def count_within(self, ranges: Mapping[str, tuple[np.ndarray, int]]) -> None:
        """From here on totals are counted within these ranges, by metric: least `[a]` and width.

        Use this when the first trials have shown where totals lie.
        """
        chosen = [ranges[name] for name in self._names]
        if sum(width * len(low) for low, width in chosen) <= _MOST_COUNTS:
            self._ranges = chosen

    def start(self, first: int, num: int, longest: int, count: bool) -> Started:
        """As of `KernelTrials`; no chunk is longer than it has to be.

        Use this when the threads work on a chunk while the last is read.
        """
        if not self._ranges or num >= 1 << 31:  # a count is int32
            totals = self._trials.start(first, num)
            return Started(lambda: Chunk(num, totals.wait(), {}), totals.cancel)
        counts = self._trials.start_counts(first, num, *zip(*self._ranges, strict=True))
        return Started(lambda: self._counted(first, num, counts.wait()), counts.cancel)

    def _counted(self, first: int, num: int, tables: list[np.ndarray] | None) -> Chunk:
        if tables is None:  # a total out of range, which is as good as never: each by itself
            return Chunk(num, self._trials.start(first, num).wait(), {})
        named = zip(self._names, self._ranges, tables, strict=True)
        counts = {
            name: ValueCounts(low, low + (width - 1), table) for name, (low, width), table in named
        }
        none: Any = np.empty((0, 0), np.int32)
        return Chunk(num, {"test": dict.fromkeys(self._names, none)}, {"test": counts})


Runner = KernelTrials | ProgramTrials


def trial_runner(
    key: jax.Array,
    pool: Pool,
    design: Design,
    budget: np.ndarray,
    *,
    means: bool,
    devices: Sequence[jax.Device] | None,
    size: PlanSize | None = None,
) -> Runner:
    """The quickest way to run the trials of a pool.

    Use this when trials are run in chunks.

    Args:
      key: A typed PRNG key.
      pool: From `pool_steps`.
      design: From `split_design`.
      budget: Misses allowed, `[a, r]`, from `Design.budgets`.
      means: Whether thresholds and means are wanted, or totals.
      devices: Devices that share the trials; all by default.
      size: What the plan of the kernel is padded to.
    """
    parts = plan_parts(pool, design, budget, means)
    used = list(usual_devices() if devices is None else devices)
    if not used or len(set(used)) < len(used):
        raise ValueError(f"devices must be one device or several different ones, got {used}")
    words = np.asarray(key_words(key))
    program = plain_program(design, parts, used)
    if program is not None:
        threads = usual_threads(devices, len(used))
        names = [metric.name for metric in parts.shape.metrics]
        return ProgramTrials(PlainTrials(program, words, parts, threads), names)
    return KernelTrials(words, *kernel_plan(parts, size), used)


def kernel_plan(parts: PlanParts, size: PlanSize | None = None) -> tuple[TrialPlan, Shape]:
    """The plan of the kernel, padded to a size.

    Use this when it says which run a checkpoint is of.
    """
    plan, shape = packed_plan(parts), parts.shape
    return (plan, shape) if size is None else padded(plan, shape, size)


def chunks(
    runner: Runner,
    spans: Sequence[tuple[int, int]],
    count: bool,
    ranges: Callable[[], Mapping[str, tuple[np.ndarray, int]]],
) -> Generator[Chunk, None, None]:
    """The trials of each span (first, number); the next are under way while the caller has these.

    Use this when trials are summed chunk by chunk.

    Args:
      runner: From `trial_runner`.
      spans: First trial and number of trials of each chunk.
      count: Whether devices that can count totals shall do so.
      ranges: Returns in which range the totals of each metric lie, as far as the caller knows after
        the first chunk; nothing where it has seen none.
    """
    longest = max((num for _, num in spans), default=0)
    pending: deque[Started] = deque()
    try:
        for first, num in spans:
            if isinstance(runner, ProgramTrials) and runner.can_count and (known := ranges()):
                runner.count_within(known)
            pending.append(runner.start(first, num, longest, count))
            if len(pending) == 2 or (isinstance(runner, ProgramTrials) and runner.can_count):
                yield pending.popleft().wait()
        while pending:
            yield pending.popleft().wait()
    finally:
        for one in pending:
            one.cancel()
