r"""Monte Carlo: thousands of random splits x many alphas in one jitted call.

A trial draws a uniform subset of the pool for calibration and measures every metric on the rest.
Nothing is sorted: the pool is in rank space already (`pool_steps`), so a threshold is a position,
found by counting calibration queries, and every metric is a sum over a prefix of its steps, found
by counting test queries. Trial i is a function of `fold_in(key, i)` alone, whatever the tile, the
chunk or the number of devices.
"""

from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import NamedTuple, Unpack

import jax
import numpy as np

from racer_jax.core.nonconformity import TieBroken
from racer_jax.core.risk_levels import Alpha, Budget
from racer_jax.core.scalar_checks import check_count
from racer_jax.montecarlo.common_size import PlanSize
from racer_jax.montecarlo.plan import plan_parts
from racer_jax.montecarlo.split_design import SplitSpec, split_design
from racer_jax.montecarlo.step_functions import METRICS, Pool
from racer_jax.montecarlo.subsets import key_words
from racer_jax.montecarlo.summaries import Accumulator, Checkpoint, Summary, fingerprint
from racer_jax.montecarlo.trial_runs import Chunk, chunks, kernel_plan, trial_runner

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
        Where `plain_splits` runs the trials, each device named is one thread, and without a name
        every core is.
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
    budgets = design.budgets(alpha, budget)
    runner = trial_runner(key, pool, design, budgets, means=True, devices=devices)
    values = runner.means(first_trial, num_trials)
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
      chunk_size: Trials in memory at once, at least 1; by default 512 a device, 4,096 or more where
        the C program of `plain_splits` runs them, and more on an accelerator. Metrics that count
        have the same summary whatever it is.
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
    budgets = design.budgets(alpha, budget)
    runner = trial_runner(
        key, pool, design, budgets, means=False, devices=devices, size=stream.size
    )
    store = None
    if stream.checkpoint is not None:
        # The plan of the kernel, whatever runs here: another machine may go on.
        plan, shape = kernel_plan(plan_parts(pool, design, budgets, means=False), stream.size)
        words = np.asarray(key_words(key))
        run = [*jax.tree.leaves(plan), repr(shape), words, first_trial, stream.bins]
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
    first = max(_PILOT, stream.chunk_size or runner.first_chunk)
    spans = _spans(num_done, num_trials, stream.chunk_size or runner.usual_chunk, first)
    count = design.even and runner.counts_totals
    numbered = [(first_trial + start, num) for start, num in spans]
    parts = chunks(runner, numbered, count, lambda: {n: x.reach() for n, x in sums.items()})
    with closing(parts):
        for chunk in parts:
            _add(sums, chunk, stream.bins, design.even)
            report(chunk.num)
            if store is not None:
                store.save_when_due(sums)
    if store is not None and spans:
        store.save(sums)
    return {name: total.summary() for name, total in sums.items()}


def _spans(num_done: int, num_trials: int, chunk_size: int, first: int) -> list[tuple[int, int]]:
    """First trial and number of each chunk that is still to be run.

    The first chunk of all has `first` trials, enough to determine how wide the histograms have to
    be.
    """
    spans = []
    if not num_done:
        num_done = min(first, num_trials)
        spans.append((0, num_done))
    spans += [(i, min(chunk_size, num_trials - i)) for i in range(num_done, num_trials, chunk_size)]
    return spans


def _add(sums: dict[str, Accumulator], chunk: Chunk, bins: int, even: bool) -> None:
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
                times = np.asarray(counts.times)
                sums[prefix + name].add_counts(chunk.num, np.asarray(counts.least), times)
                continue
            values = np.asarray(total)[:, : chunk.num]
            sums[prefix + name].add(values if even else values / rows)
