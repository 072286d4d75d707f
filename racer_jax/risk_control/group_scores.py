"""Critical scores sorted within each group of calibration queries.

Any threshold is then one of them.

This is what `Racer` keeps in an artefact, and what gives the threshold at a new alpha without data.
It runs on the host; under `jit` or `vmap` the same thresholds come from `calibrate` with one mask
for each group.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from jax.typing import ArrayLike

from racer_jax._arrays import given
from racer_jax.core.checks import is_traced
from racer_jax.core.nonconformity import TieBroken, value_and_tie
from racer_jax.core.risk_levels import Level, miss_budget
from racer_jax.core.sort_keys import ordered_keys
from racer_jax.risk_control.high_probability_budgets import high_probability_budget

Fallback = Literal["pooled", "all"]
FALLBACKS: tuple[str, ...] = get_args(Fallback)
_TOP = np.uint32(0xFFFFFFFF)


@dataclass(frozen=True, eq=False)
class GroupedScores:
    """Critical scores of the calibration queries, sorted within each group; arrays of the host.

    Attributes:
      value: The critical scores, ascending within each group, floating `[n]`.
      tie: Their second keys, uint32 `[n]`; None where ties are not broken.
      code: The group of each, int32 `[n]`, ascending.
      groups: Names of the groups, `[g]`; None where all queries are one group.

    Use this when thresholds at many alphas or budgets are wanted of the same calibration queries.

    >>> scores = group_scores(np.float32([0.3, 0.1, 0.2, 0.9]), ["b", "a", "b", "b"])
    >>> scores.groups, scores.num_queries.tolist(), scores.at_budgets([[0], [1]])[0].tolist()
    (('b', 'a'), [3, 1], [[0.8999999761581421], [-inf]])
    """

    value: np.ndarray
    tie: np.ndarray | None
    code: np.ndarray
    groups: tuple[str, ...] | None

    @property
    def start(self) -> np.ndarray:
        """Where each group starts, and where the last one ends, int64 `[g + 1]`."""
        num_groups = 1 if self.groups is None else len(self.groups)
        return np.searchsorted(self.code, np.arange(num_groups + 1))

    @property
    def num_queries(self) -> np.ndarray:
        """Calibration queries of each group, int64 `[g]`."""
        return np.diff(self.start)

    def pooled(self) -> "GroupedScores":
        """The critical scores of all groups as one.

        Use this when you want one threshold for all groups together.
        """
        return group_scores(_pair(self.value, self.tie), None)

    def budgets(self, alphas: Sequence[Level], delta: float | None = None) -> np.ndarray:
        """Misses that each group may make on its calibration queries.

        Args:
          alphas: Risk levels in (0, 1), `[a]`.
          delta: Chance of failure, in (0, 1), as of `high_probability_budget`; None for a risk that
            is bounded on average.

        Returns:
          int64 `[g, a]`; -1 where no threshold is safe.

        Use this when you want to see how many misses each group may make; `thresholds` goes on to
        the thresholds.
        """
        levels = list(alphas)
        return np.stack([_budgets(levels, int(num), delta) for num in self.num_queries])

    def at_budgets(self, budgets: ArrayLike) -> tuple[np.ndarray, np.ndarray | None]:
        """The threshold of each group at its miss budgets: the (n - b)-th smallest critical score.

        Args:
          budgets: Integers `[g, a]`.

        Returns:
          Thresholds `[g, a]`, the dtype of the scores, and their second keys, uint32 `[g, a]`, or
          None. +inf where b < 0, -inf where b >= n, as of `threshold_at_budget`.

        Use this when you have miss budgets of your own; `thresholds` computes them from alphas.
        """
        misses, num = np.asarray(budgets), self.num_queries[:, None]
        unsafe, free = misses < 0, misses >= num
        at = self.start[:-1, None] + num - 1 - np.where(unsafe | free, 0, misses)
        # A group without queries has no score to read; its budgets are all -1 or free.
        at = np.clip(at, 0, len(self.value) - 1)
        edge = np.where(unsafe, np.inf, -np.inf).astype(self.value.dtype)
        value = np.where(unsafe | free, edge, self.value[at])
        if self.tie is None:
            return value, None
        return value, np.where(unsafe, _TOP, np.where(free, np.uint32(0), self.tie[at]))

    def thresholds(
        self, alphas: Sequence[Level], delta: float | None = None, fallback: Fallback = "all"
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """The threshold of each group at each alpha.

        Args:
          alphas: Risk levels in (0, 1), `[a]`.
          delta: As in `budgets`.
          fallback: The threshold of a group that is too small for an alpha: `"all"` models, or the
            `"pooled"` threshold of all groups.

        Returns:
          As of `at_budgets`.

        Use this when you want the thresholds at one or many alphas, with a rule for groups that are
        too small.
        """
        budgets = self.budgets(alphas, delta)
        value, tie = self.at_budgets(budgets)
        too_small = budgets < 0
        if self.groups is None or fallback == "all" or not too_small.any():
            return value, tie
        all_groups, pooled_tie = self.pooled().thresholds(alphas, delta)
        value = np.where(too_small, all_groups, value)
        if tie is None or pooled_tie is None:
            return value, None
        return value, np.where(too_small, pooled_tie, tie)

    def place(self, groups: Sequence[str | None]) -> np.ndarray:
        """The index of each name in `groups`, int32 `[n]`; the number of groups for other names.

        Use this when you look up the threshold of each query in the result of `thresholds`.
        """
        return group_codes(groups, self.groups or ())


def group_scores(
    scores: ArrayLike | TieBroken, groups: Sequence[str] | None, names: Sequence[str] | None = None
) -> GroupedScores:
    """Sorts critical scores within each group.

    Args:
      scores: c(x) of the calibration queries, floating `[n]`, or a `TieBroken` pair.
      groups: Name of the group of each, `[n]`; None for one group of all.
      names: All groups in the order they are to have; by default as they come.

    Returns:
      The critical scores of each group, in order.

    Raises:
      TypeError: If scores are not floating or are traced, or `groups` is a single string.
      ValueError: If scores are not `[n]`, n >= 1, or NaN, groups are not `[n]`, or one of them is
        not among the names.

    Use this when calibration queries are to be kept for any alpha to come.
    """
    pair = scores if isinstance(scores, TieBroken) else (scores,)
    if is_traced(*pair):
        raise TypeError(
            "calibration by group sorts on the host and cannot be traced: under jit or vmap call "
            "calibrate with one mask for each group, bool [g, n]"
        )
    if not isinstance(scores, TieBroken):
        value, tie = np.asarray(given("critical_scores", scores)), None
        value_and_tie("critical_scores", value)
    else:
        value_and_tie("critical_scores", *scores)
        value, tie = np.asarray(scores.value), np.asarray(scores.tie)
    if value.ndim != 1:
        raise ValueError(f"critical_scores must have shape [n] with n >= 1, got {value.shape}")
    code, group_names = np.zeros(len(value), np.int32), None
    groups = given("groups", groups)
    if groups is not None:
        if isinstance(groups, str):
            raise TypeError(f"groups must be a sequence of names, got the one string {groups!r}")
        if len(groups) != len(value):
            raise ValueError(
                f"groups must name one group for each of the {len(value)} queries, got "
                f"{len(groups)}"
            )
        group_names = tuple(dict.fromkeys(groups)) if names is None else tuple(names)
        code = group_codes(groups, group_names)
        if (code == len(group_names)).any():
            unknown = groups[int(np.argmax(code == len(group_names)))]
            raise ValueError(f"groups must be among the names {group_names}, got {unknown!r}")
    order = np.lexsort((ordered_keys(value, tie), code))
    return GroupedScores(
        value[order], None if tie is None else tie[order], code[order], group_names
    )


def group_codes(groups: Sequence[str | None], names: Sequence[str]) -> np.ndarray:
    """The index of each group in `names`, int32 `[n]`; `len(names)` for any other group.

    Use this when you look up an array by group, such as the thresholds `[g, a]` of `GroupedScores`.
    """
    groups = given("groups", groups)
    place: dict[str | None, int] = {name: i for i, name in enumerate(names)}
    return np.array([place.get(name, len(place)) for name in groups], np.int32)


def _pair(value: np.ndarray, tie: np.ndarray | None) -> np.ndarray | TieBroken:
    return value if tie is None else TieBroken(value, tie)  # type: ignore[arg-type]


def _budgets(alphas: list[Level], num: int, delta: float | None) -> np.ndarray:
    """Miss budgets of a group at each alpha, int64 `[a]`."""
    if num == 0:
        return np.full(len(alphas), -1)
    if delta is None:
        return np.asarray(miss_budget(alphas, num))
    return np.asarray(high_probability_budget(alphas, num, delta))
