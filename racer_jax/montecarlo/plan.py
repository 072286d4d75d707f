r"""What the trials of one pool read: metrics as weighted counts, ranks and draws, worked out once on the host."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from racer_jax.core.risk_levels import Alpha
from racer_jax.montecarlo.packed_bits import BLOCK, Order, packing_order
from racer_jax.montecarlo.split_design import Design, DrawPlan, Ranks, draw_parts, rank_plan
from racer_jax.montecarlo.step_functions import Pool, Steps
from racer_jax.montecarlo.subsets import Leaf

# Metrics that do not count are rounded to this many binary digits of their largest step.
_DIGITS = 24


class Planes(NamedTuple):
    """Metrics as weighted counts: every entry of a plane is one query from one position on; data of a jitted call.

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
    """Value of a metric: base * rows + sum of weight * count over its planes."""

    name: str
    base: float
    planes: tuple[int, ...]
    weights: tuple[float, ...]

    @property
    def counts(self) -> bool:
        """Whether every value is a whole number."""
        return all(float(x).is_integer() for x in (self.base, *self.weights))


@dataclass(frozen=True)
class Shape:
    """The static part of a plan."""

    metrics: tuple[Metric, ...]
    num_queries: int
    width: int
    distinct: bool
    means: bool


class Plan(NamedTuple):
    """All that a jitted call reads."""

    draw: DrawPlan
    ranks: Ranks
    planes: Planes
    threshold: Leaf


def _split_steps(steps: Steps) -> tuple[float, list[tuple[float, np.ndarray, np.ndarray]]]:
    """The common value of a metric at position 0, and its steps as planes (weight, query, first) of equal steps."""
    # No threshold lies below position 0, so steps at 0 are part of the start: with the gap score,
    # the first model's.
    now = np.searchsorted(steps.first, 1)
    value = steps.start + np.bincount(steps.query[:now], steps.delta[:now], len(steps.start))
    values, number = np.unique(value, return_counts=True)
    base = float(values[number.argmax()])
    other = np.flatnonzero(value != base)  # these begin with a step of their own
    query = np.concatenate([other, steps.query[now:]])
    first = np.concatenate([np.zeros(len(other), np.int64), steps.first[now:]])
    delta = np.concatenate([value[other] - base, steps.delta[now:]])
    if len(delta) == 0:
        return base, []
    sizes = np.unique(delta)
    if len(sizes) <= 2:
        return base, [(float(size), query[delta == size], first[delta == size]) for size in sizes]
    # Binary digits of the steps, in two's complement: one plane a digit, so that a sum of steps is
    # a sum of counts.
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


def trial_plan(pool: Pool, design: Design, alpha: Alpha, means: bool) -> tuple[Plan, Shape]:
    """What is worked out once, on the host."""
    draw = draw_parts(design)
    ranks, width = rank_plan(design, alpha)
    num = pool.num_queries
    # Without ties the misses are the test queries above the threshold: known from its position
    # alone.
    distinct = pool.distinct and not design.validates and design.least == design.most
    metrics, queries, entries = [], [], []
    begin: list[int] = []
    end = 0
    for name, steps in pool.metrics.items():
        base, planes = (1.0, []) if name == "risk" and distinct else _split_steps(steps)
        numbers = range(len(begin), len(begin) + len(planes))
        metrics.append(Metric(name, base, tuple(numbers), tuple(weight for weight, _, _ in planes)))
        for _, query, first in planes:
            by_position = np.argsort(first, kind="stable")
            padded = np.zeros(-(-(len(query) + 1) // BLOCK) * BLOCK, np.int64)
            padded[: len(query)] = query[by_position]
            queries.append(padded)
            entries.append(
                end + np.searchsorted(first[by_position], np.arange(num + 1), side="right")
            )
            begin.append(end)
            end += len(padded)
    num_words = len(draw.calibration.valid) if draw.order is None else draw.order.row.shape[2] * 4
    planes_ = Planes(
        packing_order(np.concatenate([*queries, np.zeros(0, np.int64)]), num_words),
        np.array(entries, np.int32).reshape(-1, num + 1),
        np.array(begin, np.int32),
    )
    return Plan(draw, ranks, planes_, pool.threshold), Shape(
        tuple(metrics), num, width, distinct, means
    )
