r"""How a pool is split: which rows move together, in how many parts, and who the threshold is.

Rows that share a question are one UNIT and move together. Units belong to groups (one by default),
and each part of a split takes a fixed number of units from each group, every such choice equally
likely.
"""

from typing import NamedTuple, Required, TypedDict

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from racer_jax._arrays import given
from racer_jax.core.risk_levels import Alpha, Budget, budget_of, exact_alphas, exact_budgets
from racer_jax.core.scalar_checks import check_count
from racer_jax.montecarlo.packed_bits import (
    BLOCK,
    Order,
    as_bytes,
    gather_bytes,
    packing_order,
)
from racer_jax.montecarlo.subsets import Draw, Leaf, Words, draw_plan, folded, uniform_subsets

Counts = int | np.integer | ArrayLike


class SplitSpec(TypedDict, total=False):
    """How to split a pool: keywords of everything that draws splits, such as `split_trials`.

    Use this when several calls share a way to split: make it once and hand it on with `**`.

    Attributes:
      num_calibration: n, the number of queries (of questions, if given) that calibrate, at least 1.
        With groups, one number for each in order of label, or one in all that is shared in
        proportion to their sizes.
      num_validation: The same for a validation part, for choices that must not see the test part.
      group: Labels `[N]`; each part takes a fixed number from each group (a stratified split).
      question: Labels `[N]`; rows of one question always stand in one part. n then varies from
        trial to trial, and each trial uses its own.

    >>> SplitSpec(num_calibration=100, num_validation=50)
    {'num_calibration': 100, 'num_validation': 50}
    """

    num_calibration: Required[Counts]
    num_validation: Counts
    group: ArrayLike | None
    question: ArrayLike | None


class Design(NamedTuple):
    """A way to split a pool, by position of its queries; host arrays.

    Use this when you read what `split_design` returns.

    Attributes:
      calibration: Units of each group that calibrate, int64 `[g]`.
      validation: Units of each group that validate, int64 `[g]`.
      group_size: Units of each group, int64 `[g]`.
      group: Group of the query at each position, int64 `[N]`.
      place: Its unit's number within the group, int64 `[N]`.
      least: The fewest rows that calibration can take.
      most: The most.
    """

    calibration: np.ndarray
    validation: np.ndarray
    group_size: np.ndarray
    group: np.ndarray
    place: np.ndarray
    least: int
    most: int

    @property
    def num_queries(self) -> int:
        """Number of queries, N."""
        return len(self.group)

    @property
    def even(self) -> bool:
        """Whether every unit has as many rows, so that each part is as large in every split."""
        if len(self.group) == self.group_size.sum():
            return True
        rows = np.unique(np.stack([self.group, self.place]), axis=1, return_counts=True)[1]
        return bool((rows == rows[0]).all())

    @property
    def plain(self) -> bool:
        """Whether each query is a unit and there is one group, so that units are positions."""
        return len(self.group_size) == 1 and bool((self.place == np.arange(len(self.place))).all())

    @property
    def validates(self) -> bool:
        """Whether there is a validation part."""
        return bool(self.validation.any())

    def budgets(self, alpha: Alpha | None, budget: Budget | None = None) -> np.ndarray:
        """How many calibration rows each threshold may miss, by level and number n of rows.

        Use this when ranks are made from levels.

        Args:
          alpha: One risk level in (0, 1) or several.
          budget: In its place, the budgets themselves; only where n is the same in every split.

        Returns:
          int64 `[a, r]`, column i for `least + i` rows.

        Raises:
          TypeError: If both or neither are there, or one is of the wrong kind.
          ValueError: If one is out of range, or n varies and budgets are given.
        """
        if alpha is not None and budget is None:
            levels = exact_alphas(alpha)[0]  # read once, for every n
            numbers = range(self.least, self.most + 1)
            return np.array([exact_budgets(levels, n) for n in numbers], np.int64).T
        if self.least < self.most:
            raise ValueError(
                "budget needs a fixed number of calibration rows, and with these questions it "
                f"varies from {self.least} to {self.most}: name alpha instead"
            )
        return np.atleast_1d(budget_of(alpha, self.least, budget))[:, None]


def _labels(name: str, labels: ArrayLike, num: int) -> tuple[np.ndarray, np.ndarray]:
    """Distinct labels and the number of each query's label."""
    labels = np.asarray(given(name, labels))
    if labels.shape != (num,):
        raise ValueError(
            f"{name} must have shape [N] = {(num,)}, one label a query, got {labels.shape}"
        )
    which, number = np.unique(labels, return_inverse=True)
    return which, number


def _shares(name: str, num: Counts, size: np.ndarray, least: int) -> np.ndarray:
    """Units to take of each group: a number for each, or one in all that they share.

    They share in proportion to their sizes, by largest remainder.
    """
    share = np.asarray(num)
    if share.ndim:
        if share.shape != size.shape or share.dtype.kind not in "iu":
            raise ValueError(
                f"{name} must be an integer or one integer for each of the {len(size)} groups, "
                f"got {num}"
            )
        if (share < 0).any() or share.sum() < least:
            raise ValueError(
                f"{name} must be 0 or more for each group and {least} or more in all, got {num}"
            )
        return share.astype(np.int64)
    check_count(name, num, least)
    total = int(share)
    exact = total * size / size.sum()
    share = np.floor(exact).astype(np.int64)
    largest = np.argsort(-(exact - share), kind="stable")[: total - int(share.sum())]
    share[largest] += 1
    return np.asarray(share)


def _units(
    order: np.ndarray, group: ArrayLike | None, question: ArrayLike | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[np.ndarray]]:
    """Group and place of the query at each position, and of each group its units' sizes.

    Returns:
      Group `[N]` and place within it `[N]` of each query by position, the number of units of each
      group `[g]`, and the rows of the units of each group, each `[units]`.
    """
    num = len(order)
    if group is None and question is None:
        rows = np.broadcast_to(np.int64(1), num)
        return np.zeros(num, np.int64), np.arange(num), np.array([num]), [rows]
    which, inverse = np.zeros(1), np.zeros(num, np.int64)
    if group is not None:
        which, inverse = _labels("group", group, num)
    unit = np.arange(num)
    if question is not None:
        unit = _labels("question", question, num)[1]
    group_of_unit = np.full(unit.max() + 1, -1)
    group_of_unit[unit] = inverse
    if (group_of_unit[unit] != inverse).any():
        row = int(np.flatnonzero(group_of_unit[unit] != inverse)[0])
        raise ValueError(
            f"rows of one question must be of one group, but the question of row {row} is in "
            "several"
        )
    group_size = np.bincount(group_of_unit, minlength=len(which))
    # Units in order of position, numbered within their group.
    by_position = np.asarray(order)
    if question is not None:
        by_position = np.argsort(np.unique(unit[order], return_index=True)[1])
    place = np.empty(len(group_of_unit), np.int64)
    for g in range(len(which)):
        members = by_position[group_of_unit[by_position] == g]
        place[members] = np.arange(len(members))
    rows_of_unit = np.bincount(unit)
    rows_of_group = [rows_of_unit[group_of_unit == g] for g in range(len(which))]
    return inverse[order], place[unit[order]], group_size, rows_of_group


def split_design(
    order: np.ndarray,
    num_calibration: Counts,
    num_validation: Counts = 0,
    group: ArrayLike | None = None,
    question: ArrayLike | None = None,
) -> Design:
    """Checks and lays out a way to split: a `SplitSpec`, and the `order` of the `Pool`.

    Use this when a pool is to be split many times in the same way.
    """
    group_of, place, group_size, rows_of_group = _units(order, group, question)
    calibration = _shares("num_calibration", num_calibration, group_size, 1)
    validation = _shares("num_validation", num_validation, group_size, 0)
    num_test = group_size - calibration - validation
    if (num_test < 0).any() or not num_test.any():
        raise ValueError(
            "num_calibration (and num_validation) must leave at least one of the "
            f"{group_size.sum()} queries or questions for the test and fit in each group: got "
            f"{calibration.tolist()} and {validation.tolist()} of {group_size.tolist()}"
        )
    least = most = 0
    for g, rows in enumerate(rows_of_group):
        if question is not None:
            rows = np.sort(rows)
        least += int(rows[: calibration[g]].sum())
        most += int(rows[len(rows) - calibration[g] :].sum())
    return Design(calibration, validation, group_size, group_of, place, least, most)


class DrawPlan(NamedTuple):
    """What it takes to draw the parts of a split; data of a jitted call.

    Use this when you call `trial_parts`.

    Attributes:
      outer: Draw of calibration and validation together; None with two parts.
      calibration: Draw of the calibration part, among those.
      order: Where the unit of each position stands among the drawn ones; None if units are
        positions.
    """

    outer: Draw | None
    calibration: Draw
    order: Order | None

    @property
    def num_words(self) -> int:
        """Words of the bits of all positions."""
        if self.order is None:
            return len(self.calibration.valid)
        return int(self.order.row.shape[2]) * (BLOCK // 32)


def draw_parts(design: Design) -> DrawPlan:
    """The plan of a design, on the host.

    Use this when the trials of a design are drawn in a jitted call.
    """
    calibration = draw_plan(design.calibration, design.group_size)
    outer = None
    if design.validates:
        both = design.calibration + design.validation
        outer = draw_plan(both, design.group_size)
        # The second draw is among those of the first: its digits are of that share, its positions
        # still of the group.
        calibration = calibration._replace(
            digit=draw_plan(design.calibration, np.maximum(both, 1)).digit
        )
    order = None
    if not design.plain:
        num_words = len(calibration.valid)
        order = packing_order(design.place, num_words, len(design.group_size), design.group)
    return DrawPlan(outer, calibration, order)


def trial_keys(key: Words, plan: DrawPlan, trials: jax.Array) -> jax.Array:
    """Keys of the draws of each trial.

    They are uint32 `[..., 2 (draw), 2 (word), g t]` of trials `[..., t]`.

    Made apart from their use: a key that the compiler makes anew for every word costs as much as
    the word.

    Use this when the trials of one call need keys that depend on their number alone.
    """
    num_groups = plan.calibration.num.shape[0]
    trial = folded(key, trials)
    draw = jnp.arange(2 * num_groups, dtype=jnp.uint32).reshape(2, num_groups, 1)
    draw = draw.reshape(*(1,) * (trials.ndim - 1), 2, num_groups, 1)
    both = folded(
        (trial[0][..., None, None, :], trial[1][..., None, None, :]),
        jnp.broadcast_to(draw, draw.shape),
    )
    # Chosen, not stacked: a stack is compiled as code for each of its parts.
    first, second = (jnp.expand_dims(words, -3) for words in both)
    word = jnp.arange(2).reshape(*(1,) * (first.ndim - 3), 2, 1, 1)
    keys = jnp.where(word == 0, first, second)
    # Where no loop stands between a key and its draws, as for a single tile, XLA of JAX 0.12 would
    # work on both at once and not come to an end.
    apart: jax.Array = jax.lax.optimization_barrier(keys.reshape(*keys.shape[:-2], -1))
    return apart


def trial_parts(keys: jax.Array, plan: DrawPlan) -> tuple[jax.Array, jax.Array | None]:
    """Calibration and validation words `[w, g t]` of a tile of trials.

    Groups stand one after the other.

    Use this when the parts of a tile of trials are needed as packed words.
    """
    inner, outer = ((keys[i, 0], keys[i, 1]) for i in range(2))
    if plan.outer is None:
        return uniform_subsets(inner, plan.calibration), None
    both = uniform_subsets(outer, plan.outer)
    calibration = uniform_subsets(inner, plan.calibration, both)
    return calibration, both & ~calibration


def words_by_position(words: jax.Array, plan: DrawPlan, num_trials: int) -> jax.Array:
    """Words by unit `[w, g t]` as words by position `[v, t]`.

    Use this when subsets are drawn by unit, such as a question, and the pool is by query.
    """
    if plan.order is None:
        return words
    source = as_bytes(words).reshape(-1, num_trials)
    out = jnp.zeros((*plan.order.row.shape[::2], num_trials), jnp.uint8)
    byte = gather_bytes(source, plan.order, out).reshape(BLOCK // 32, 4, -1, num_trials)

    # Word v of a block has its bytes 4 v to 4 v + 3.
    def add(j: jax.Array, words: jax.Array) -> jax.Array:
        return words | (byte[:, j].astype(jnp.uint32) << (8 * j).astype(jnp.uint32))

    zero = jnp.zeros((BLOCK // 32, *byte.shape[2:]), jnp.uint32)
    words = jax.lax.fori_loop(0, 4, add, zero)
    return words.transpose(1, 0, 2).reshape(-1, num_trials)


class Ranks(NamedTuple):
    """Which calibration query is the threshold; data of a jitted call.

    Use this when you read what `rank_plan` returns.

    Attributes:
      rank: Rank k = n - b by level and by number n of calibration rows above the least, at most n,
        int32 `[a, r]`.
      floor: Lowest position of the threshold: N where no query is it, as k is n + 1; 0 otherwise,
        int32 `[a, r]`.
      last: Position of the threshold if no test query were missed, N - 1 - b, int32 `[a, r]`.
      least: The least n.
      guess: First word of the bracket in which to look for it, int32 `[a]`.
    """

    rank: Leaf
    floor: Leaf
    last: Leaf
    least: Leaf
    guess: Leaf


def bracket_width(num_queries: int, least: int, most: int) -> int:
    """Words of the bracket of `rank_plan`, where `least` to `most` of so many queries calibrate.

    Use this when the kernel shall look for a threshold in a part of the pool.
    """
    middle = (least + most) / 2
    spread = (
        np.sqrt((num_queries + 1) * max(num_queries - middle, 1) / (4 * (middle + 2)))
        + (most - least) / 4
    )
    return min(int(np.ceil(12 * spread / 32)) + 2, -(-num_queries // 32))


def rank_plan(design: Design, budget: np.ndarray) -> tuple[Ranks, int]:
    """Ranks of the thresholds, and where in the pool to look for them.

    Why a bracket: the threshold is the k-th calibration query, and its position in the pool is
    random, but hardly so. The k-th of n drawn from N stands near k (N + 1) / (n + 1), with a
    standard deviation of at most sqrt((N + 1) (N - n) / (4 (n + 2))) positions: some 50 of 8,000.
    So the kernel counts words in a bracket of a few words around that place instead of searching
    all of them. The bracket is six standard deviations to either side; where n varies from split to
    split, the mean position varies too, and the bracket is wider by half that range. A lane whose
    threshold is outside goes on by steps, so the width costs or saves time and never changes a
    result.

    Use this when thresholds of many trials are selected in a jitted call.

    Args:
      design: The way to split.
      budget: Misses allowed, `[a, r]`, from `Design.budgets`.

    Returns:
      The `Ranks`, and the width of the brackets in words.
    """
    num = np.arange(design.least, design.most + 1)
    rank = num - budget
    size, middle = design.num_queries, (design.least + design.most) / 2
    num_words = -(-size // 32)
    width = bracket_width(size, design.least, design.most)
    centre = rank.mean(axis=1) * (size + 1) / (middle + 1) / 32
    guess = np.clip(np.round(centre - width / 2).astype(np.int64), 0, num_words - width)
    return Ranks(
        rank=np.minimum(rank, num).astype(np.int32),
        floor=np.where(rank > num, size, 0).astype(np.int32),
        last=(size - 1 - budget).astype(np.int32),
        least=np.int32(design.least),
        guess=guess.astype(np.int32),
    ), width
