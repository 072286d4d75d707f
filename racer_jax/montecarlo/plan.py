r"""What the trials of one pool read, worked out once on the host.

The metrics as weighted counts (`Planes`), the ranks of the thresholds and the draw of the parts.
"""

import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from racer_jax.montecarlo.exact_products import exact_parts
from racer_jax.montecarlo.packed_bits import BLOCK, Order, packing_order
from racer_jax.montecarlo.split_design import Design, DrawPlan, Ranks, draw_parts, rank_plan
from racer_jax.montecarlo.step_functions import Pool, Steps
from racer_jax.montecarlo.subsets import Leaf

# Steps of many sizes are rounded to this many binary digits of the largest.
_DIGITS = 24
# Totals below this are summed as int32, and so are the differences of two of them.
_MOST_WHOLE = 2**30
# An index is int32: into the entries of all planes, and into rows of bytes times lanes.
_MOST_INDEX = 2**31 - 1
# Trials of a tile. On a CPU: what a pass keeps in cache; where its bits and counts take more bytes
# than `_CACHE`, half as many, the bytes of a vector. A device that is alone shares a kernel among
# threads, and to wake them costs as much as the kernel: so it takes twice as many. On an
# accelerator a tile has a thousand short kernels in turn, so the more share them the better; int32
# indices bound its size (`most_lanes`).
_TILE = 128
_CACHE = 1 << 23
_ACCELERATOR_TILE = 1 << 16


class Planes(NamedTuple):
    """Metrics as weighted counts; data of a jitted call.

    Every entry of a plane is one query, which counts from one position of the threshold on.

    Use this when you read a `TrialPlan`.

    Attributes:
      order: The queries of all planes, one plane after the other, each padded to whole blocks.
      entry: By plane and threshold position, the end of the prefix of entries in effect, int32
        `[p, N + 1]`.
      begin: First entry of each plane, int32 `[p]`.
    """

    order: Order
    entry: Leaf
    begin: Leaf


@dataclass(frozen=True)
class Metric:
    """Value of a metric: base * rows + sum of weight * count over its planes.

    Use this when you read a `TrialPlan`.

    Attributes:
      name: Its name.
      base: What most queries have where no model is called, as one or several summands; see
        `exact_parts`.
      planes: Numbers of its planes; one may be there with several weights.
      weights: What an entry of each plane adds.
      whole: Whether every total is a whole number that int32 holds, whatever the part.
    """

    name: str
    base: tuple[float, ...]
    planes: tuple[int, ...]
    weights: tuple[float, ...]
    whole: bool


@dataclass(frozen=True)
class Shape:
    """The static part of a plan.

    Use this when you read a `TrialPlan`.

    Attributes:
      metrics: The metrics.
      width: Words of the bracket in which a threshold is looked for first.
      distinct: Whether the misses follow from the position of the threshold alone.
      means: Whether thresholds and means are wanted, or totals.
    """

    metrics: tuple[Metric, ...]
    width: int
    distinct: bool
    means: bool


class Counted:
    """What the metrics of a pool count, before it is laid out for a way of counting; host arrays.

    Use this when you read what `plan_parts` returns.

    Attributes:
      query: The queries of all planes, one plane after the other, each with a row or more that pad
        it to whole blocks, int32 `[e]`.
      entry: As of `Planes`.
      begin: As of `Planes`.
    """

    def __init__(self, query: np.ndarray, entry: np.ndarray, begin: np.ndarray) -> None:
        self.query, self.entry, self.begin = query, entry, begin
        self._planes: dict[int, Planes] = {}
        for array in (query, entry, begin):
            array.flags.writeable = False

    def planes(self, num_words: int) -> Planes:
        """The planes over words of the bits of all positions, packed once for each number of words.

        Use this when a jitted call counts them.
        """
        if num_words not in self._planes:
            order = packing_order(self.query, num_words)
            for array in order:
                array.flags.writeable = False
            self._planes[num_words] = Planes(order, self.entry, self.begin)
        return self._planes[num_words]


class PlanParts(NamedTuple):
    """All that the trials of one pool and way to split read, in no layout yet; host arrays.

    Use this when you run trials in another way than `tile_values` does.

    Attributes:
      draw: The draw of the parts.
      ranks: Which calibration query is the threshold.
      shape: The static part.
      counted: What the metrics count.
      threshold: The threshold at each position, a pair of arrays with a tie-break.
      num_queries: N.
    """

    draw: DrawPlan
    ranks: Ranks
    shape: Shape
    counted: Counted
    threshold: Leaf
    num_queries: int


class TrialPlan(NamedTuple):
    """All that a jitted call reads.

    Use this when you call `tile_values`.

    Attributes:
      draw: The draw of the parts.
      ranks: Which calibration query is the threshold.
      planes: The metrics.
      threshold: The threshold at each position.
      num_queries: N, int32; no part of the shape, so that pools of several sizes can have one.
    """

    draw: DrawPlan
    ranks: Ranks
    planes: Planes
    threshold: Leaf
    num_queries: Leaf


def _split_steps(steps: Steps) -> tuple[float, list[tuple[float, np.ndarray, np.ndarray]]]:
    """The common value of a metric at position 0, and its steps as planes of equal steps.

    A plane is (weight, query, first). Two sizes of step or fewer, as of risk, size and abstention,
    are two planes or fewer. Others, such as costs, are written in binary, one plane for each digit:
    a sum of any steps is then a weighted sum of counts, which is all the kernel can do.
    """
    # No threshold lies below position 0, so steps at 0 are part of the start: with the gap score,
    # the first model's.
    num_first = int(np.searchsorted(steps.first, 1))
    value = steps.start + np.bincount(
        steps.query[:num_first], steps.delta[:num_first], len(steps.start)
    )
    base = float(value[0])
    if (value != base).any():
        values, frequency = np.unique(value, return_counts=True)
        base = float(values[frequency.argmax()])
    if (steps.start == base).all() and (steps.delta == steps.delta[:1]).all():
        num_first, value = 0, steps.start  # they stay steps, which other metrics may share
    query, first, delta = (array[num_first:] for array in (steps.query, steps.first, steps.delta))
    other = np.flatnonzero(value != base)  # these begin with a step of their own
    if len(other):
        query = np.concatenate([other, query])
        first = np.concatenate([np.zeros(len(other), np.int64), first])
        delta = np.concatenate([value[other] - base, delta])
    if len(delta) == 0:
        return base, []
    low, high = delta.min(), delta.max()
    if low == high:
        return base, [(float(low), query, first)]
    if ((delta == low) | (delta == high)).all():
        both = ((size, delta == size) for size in (low, high))
        return base, [(float(size), query[has], first[has]) for size, has in both]
    # In two's complement: the last digit is that of the sign.
    largest = np.abs(delta).max()
    unit = 1.0
    if (delta != np.rint(delta)).any() or largest >= 2**_DIGITS:
        unit = 2.0 ** (np.floor(np.log2(largest)) + 1 - _DIGITS)
    number = np.rint(delta / unit).astype(np.int64)
    digits = int(np.abs(number).max()).bit_length()
    planes = []
    for digit in range(digits + 1):
        has = (number >> digit) & 1 == 1
        weight = unit * 2.0**digit * (-1 if digit == digits else 1)
        planes.append((weight, query[has], first[has]))
    return base, [plane for plane in planes if len(plane[1])]


def _is_whole(base: float, planes: list[tuple[float, np.ndarray, np.ndarray]], num: int) -> bool:
    """Whether all totals, and all sums on the way to them, are whole and below `_MOST_WHOLE`."""
    weights = [weight for weight, _, _ in planes]
    most = abs(base) * num + sum(abs(weight) * len(query) for weight, query, _ in planes)
    return most < _MOST_WHOLE and all(float(x).is_integer() for x in (base, *weights))


class _Entries(NamedTuple):
    """Entries of a plane: queries, from where each counts, and a number for both; all `[k]`."""

    query: np.ndarray
    first: np.ndarray
    key: np.ndarray


def _without(whole: _Entries, part: _Entries) -> _Entries | None:
    """The entries of `whole` that are not those of `part`; None where it lacks one of them."""
    few = part.key[:: max(1, len(part.key) // 16)]  # mostly enough to tell
    if len(part.key) > len(whole.key):
        return None
    if (whole.key[np.searchsorted(whole.key, few) % len(whole.key)] != few).any():
        return None
    # Two models that enter together are an entry that is there twice.
    again = np.arange(len(part.key)) - np.searchsorted(part.key, part.key)
    place = np.searchsorted(whole.key, part.key) + again
    if place[-1] >= len(whole.key) or (whole.key[place] != part.key).any():
        return None
    stays = np.ones(len(whole.key), bool)
    stays[place] = False
    return _Entries(*(array[stays] for array in whole))


# Why: the first model of a set ends an abstention and makes the set larger by one. So the entries
# of one metric are often among those of another, and what is counted once serves both.
def _shared(planes: list[_Entries]) -> list[list[_Entries]]:
    """Each plane as one or several; where parts of two have the same entries, they are one."""
    parts_of_each: list[list[_Entries]] = [[] for _ in planes]
    known: list[_Entries] = []
    for i in sorted(range(len(planes)), key=lambda i: len(planes[i].key)):
        rest = planes[i]
        if (np.diff(rest.key) < 0).any():  # not in the order of `pool_steps`
            parts_of_each[i].append(rest)
            continue
        for part in reversed(known):
            if len(rest.key) and (less := _without(rest, part)) is not None:
                parts_of_each[i].append(part)
                rest = less
        if len(rest.key):
            parts_of_each[i].append(rest)
            known.append(rest)
    return parts_of_each


# Metrics and what they count by the arrays they are made from, each until one of those is gone.
_KEPT: dict[tuple[object, ...], tuple[tuple[Metric, ...], Counted]] = {}


def _kept_with(
    steps_of: Mapping[str, Steps],
    facts: tuple[object, ...],
    make: Callable[[], tuple[tuple[Metric, ...], Counted]],
) -> tuple[tuple[Metric, ...], Counted]:
    """What `make` returns; made once for steps that nobody can write, as `pool_steps` has them."""
    arrays = [array for steps in steps_of.values() for array in steps]
    if any(array.flags.writeable for array in arrays):
        return make()
    name = (*steps_of, *map(id, arrays), *facts)
    if (both := _KEPT.get(name)) is None:
        both = _KEPT[name] = make()
        for array in arrays:  # its number is free for another array once it is gone
            weakref.finalize(array, _KEPT.pop, name, None)
    return both


def _metrics_and_counted(
    steps_of: Mapping[str, Steps], num: int, distinct: bool
) -> tuple[tuple[Metric, ...], Counted]:
    """The metrics of `num` queries as weighted counts, and what is counted."""
    for name, steps in steps_of.items():
        if steps.query.size and not 0 <= steps.query.min() <= steps.query.max() < num:
            raise ValueError(
                f"the steps of {name!r} must name queries by position, 0 to {num - 1}, got "
                f"{steps.query.min()} to {steps.query.max()}"
            )
    split = {
        name: (1.0, []) if name == "risk" and distinct else _split_steps(steps)
        for name, steps in steps_of.items()
    }
    whole = {name: _is_whole(base, planes, num) for name, (base, planes) in split.items()}
    # Of numbers that are not whole the order of a sum would change the last digit.
    shared = _shared(
        [
            _Entries(query, first, first.astype(np.int64) * num + query)
            for name, (_, planes) in split.items()
            for _, query, first in planes
            if whole[name]
        ]
    )
    parts_of = iter(shared)
    metrics, queries, entries = [], [], []
    number: dict[int, int] = {}
    begin: list[int] = []
    end = 0
    for name, (base, planes) in split.items():
        of_metric: list[tuple[int, float]] = []
        for weight, query, first in planes:
            parts = next(parts_of) if whole[name] else [_Entries(query, first, query)]
            factors = (weight,) if whole[name] else exact_parts(weight, num)
            for part in parts:
                plane = number.setdefault(id(part.key), len(number))
                of_metric += [(plane, factor) for factor in factors]
                if plane < len(begin):
                    continue
                rows = np.zeros(-(-(len(part.query) + 1) // BLOCK) * BLOCK, np.int32)
                rows[: len(part.query)] = part.query
                queries.append(rows)
                entries.append(end + np.cumsum(np.bincount(part.first, minlength=num + 1)))
                begin.append(end)
                end += len(rows)
        numbers, weights = (
            (tuple(column) for column in zip(*of_metric, strict=True)) if of_metric else ((), ())
        )
        bases = (base,) if whole[name] else exact_parts(base, num)
        metrics.append(Metric(name, bases, numbers, weights, whole[name]))
    if end > _MOST_INDEX:
        raise ValueError(
            f"the metrics of a pool must have fewer than 2**31 steps in all, got {end}; keep some "
            "of them with pool.only(...)"
        )
    if not queries:  # the kernel reads a block, even where no metric is counted
        queries.append(np.zeros(BLOCK, np.int32))
    counted = Counted(
        np.concatenate(queries),
        np.array(entries, np.int32).reshape(-1, num + 1),
        np.array(begin, np.int32),
    )
    return tuple(metrics), counted


def plan_parts(pool: Pool, design: Design, budget: np.ndarray, means: bool) -> PlanParts:
    """What the trials of a pool and a way to split it read.

    Use this when you run trials in another way than `tile_values` does, which takes `trial_plan`.

    Args:
      pool: From `pool_steps`.
      design: From `split_design`.
      budget: Misses allowed, `[a, r]`, from `Design.budgets`.
      means: Whether thresholds and means are wanted, or totals.

    Raises:
      ValueError: If the metrics have 2**31 steps or more, or one of a query that is not there.
    """
    draw = draw_parts(design)
    ranks, width = rank_plan(design, budget)
    num = pool.num_queries
    # Without ties the misses are the test queries above the threshold: known from its position
    # alone.
    distinct = pool.distinct and not design.validates and design.least == design.most
    metrics, counted = _kept_with(
        pool.metrics, (num, distinct), lambda: _metrics_and_counted(pool.metrics, num, distinct)
    )
    shape = Shape(metrics, width, distinct, means)
    return PlanParts(draw, ranks, shape, counted, pool.threshold, num)


def trial_plan(
    pool: Pool, design: Design, budget: np.ndarray, means: bool
) -> tuple[TrialPlan, Shape]:
    """The plan of a pool and a way to split it.

    Use this when you call `tile_values` yourself; `stream_trials` makes its own plan.

    Args:
      pool: As of `plan_parts`, and so are the others.
      design: How to split it.
      budget: Misses allowed, `[a, r]`.
      means: Whether means are wanted.

    Returns:
      What a jitted call reads, and its static part.

    Raises:
      ValueError: As of `plan_parts`.
    """
    parts = plan_parts(pool, design, budget, means)
    return packed_plan(parts), parts.shape


def packed_plan(parts: PlanParts) -> TrialPlan:
    """What a jitted call reads, from what any way of counting reads.

    Use this when you have `plan_parts` and want `tile_values`.
    """
    planes = parts.counted.planes(parts.draw.num_words)
    return TrialPlan(parts.draw, parts.ranks, planes, parts.threshold, np.int32(parts.num_queries))


def most_lanes(plan: TrialPlan) -> int:
    """How many trials a tile may hold so that an int32 index reaches every byte and word of it.

    Use this when the size of a tile is chosen.

    Raises:
      ValueError: If not even one.
    """
    num_words, num_groups = plan.draw.calibration.valid.shape
    rows = max(np.prod(plan.planes.order.row.shape[::2]), num_words * num_groups)
    if rows > _MOST_INDEX:
        raise ValueError(f"a pool and its groups must have fewer than 2**31 bytes, got {rows}")
    return int(_MOST_INDEX // rows)


def usual_tile(plan: TrialPlan, platform: str, num_devices: int) -> int:
    """How many trials go through the kernels side by side.

    Use this when trials are run; their results do not depend on it.

    Args:
      plan: What the trials do.
      platform: Of the devices.
      num_devices: How many share the trials.
    """
    usual = _ACCELERATOR_TILE
    if platform == "cpu":
        places, _, num_blocks = plan.planes.order.row.shape
        usual = _TILE if 2 * places * num_blocks * _TILE <= _CACHE else _TILE // 2
        usual *= 2 if num_devices == 1 else 1
    return min(usual, most_lanes(plan))
