"""One size for the plans of several pools, so that one compilation serves all of them.

A program is compiled for the shapes of its arrays, and compiling it takes a hundred times as long
as ten thousand splits. What is added to a plan is no query: no draw can hit it, no threshold stands
in it and no metric counts it, so that every result is the same, bit for bit.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import numpy as np

from racer_jax.montecarlo.packed_bits import BLOCK
from racer_jax.montecarlo.plan import Shape, TrialPlan
from racer_jax.montecarlo.split_design import bracket_width
from racer_jax.montecarlo.subsets import HALF_WORDS, Draw


class PlanSize(NamedTuple):
    """What plans are padded to.

    Use this when many pools are split in the same way: make it once for all of them with
    `plan_size`.

    Attributes:
      num_queries: Queries.
      num_blocks: Blocks of the entries of all metrics.
      width: Words of the bracket in which a threshold is looked for.
    """

    num_queries: int
    num_blocks: int
    width: int

    @property
    def num_words(self) -> int:
        """Words of the bits of all queries."""
        return -(-self.num_queries // 32)


def plan_size(parts: Sequence[tuple[int, int]], num_models: int) -> PlanSize:
    """The size that holds the plans of several pools of one number of models.

    Use this when you know the pools before the first of them is split.

    Args:
      parts: N and n of each pool: its queries, and those that calibrate.
      num_models: m, without the null model.

    Returns:
      The size: it has room for the four metrics that every pool has.
    """
    most = max(num for num, _ in parts)
    # Each model enters a set at most once, and each query stops to abstain and to miss at most
    # once.
    entries = (num_models * most, most, most)
    num_blocks = sum(-(-(num + 1) // BLOCK) for num in entries)
    widths = [
        bracket_width(num, num_calibration, num_calibration) for num, num_calibration in parts
    ]
    return PlanSize(most, num_blocks, max(widths))


def padded(plan: TrialPlan, shape: Shape, size: PlanSize) -> tuple[TrialPlan, Shape]:
    """A plan of another size that gives the same results.

    Use this when splits of several sizes shall share one compilation.

    Args:
      plan: From `trial_plan`.
      shape: Its static part.
      size: The size wanted.

    Returns:
      Both, padded; as they are where the size is too small for them, or where units are no
      positions (groups, questions).
    """
    valid = plan.draw.calibration.valid
    num_words, num_blocks = len(valid), plan.planes.order.row.shape[2]
    more_words, more_blocks = size.num_words - num_words, size.num_blocks - num_blocks
    more_queries = size.num_queries - int(plan.num_queries)
    # The draws of a repair are packed otherwise where there are many words.
    same_draws = (num_words <= HALF_WORDS) == (size.num_words <= HALF_WORDS)
    more_width = min(size.width, size.num_words) - shape.width
    least = min(more_words, more_blocks, more_queries, more_width)
    if least < 0 or not same_draws or plan.draw.order is not None:
        return plan, shape

    def with_words(draw: Draw) -> Draw:
        return draw._replace(valid=np.pad(draw.valid, ((0, more_words), (0, 0))))

    def with_rows(array: np.ndarray) -> np.ndarray:
        return np.pad(array, (0, more_queries), mode="edge")

    outer = plan.draw.outer
    draw = plan.draw._replace(
        calibration=with_words(plan.draw.calibration),
        outer=None if outer is None else with_words(outer),
    )
    width = shape.width + more_width
    guess = np.clip(plan.ranks.guess - more_width // 2, 0, size.num_words - width)
    byte, word = np.divmod(plan.planes.order.row, num_words)
    added = ((0, 0), (0, 0), (0, more_blocks))
    order = plan.planes.order._replace(
        row=np.pad((byte * size.num_words + word).astype(np.int32), added),
        mask=np.pad(plan.planes.order.mask, added),
    )
    entry = np.pad(plan.planes.entry, ((0, 0), (0, more_queries)), mode="edge")
    return (
        plan._replace(
            draw=draw,
            ranks=plan.ranks._replace(guess=guess),
            planes=plan.planes._replace(order=order, entry=entry),
            threshold=jax.tree.map(with_rows, plan.threshold),
        ),
        Shape(shape.metrics, width, shape.distinct, shape.means),
    )
