"""Calibration by group (Mondrian): the risk is at most alpha in every group, not only on average over them.

One threshold for all groups spends the misses where they are easy to save: on average the risk is
alpha, on the hard group it may be twice that. So where queries have groups, `calibrate_table` makes
a threshold for each.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, log, log1p
from typing import Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from racer_jax.core.calibration import critical_scores, threshold_at_rank
from racer_jax.core.checks import check_no_nan
from racer_jax.core.nonconformity import TieBroken
from racer_jax.core.risk_levels import Level, exact_alpha, miss_budget
from racer_jax.risk_control.bounds import smallest_calibration_size
from racer_jax.risk_control.high_probability import check_delta, high_probability_budget

Fallback = Literal["pooled", "all"]
FALLBACKS: tuple[str, ...] = get_args(Fallback)
Unseen = Literal["error", "pooled", "all"]
UNSEEN: tuple[str, ...] = get_args(Unseen)


@dataclass(frozen=True)
class GroupedThreshold:
    """One threshold for each group, or one for all queries where they have no groups.

    Attributes:
      groups: Names of the groups, `[g]`; None where the calibration queries had none.
      threshold: Of each group, floating `[g]`, or a `TieBroken` pair of them; `[1]` where there are
        no groups.
      pooled: The threshold of all calibration queries together, floating `[]` or a `TieBroken`
        pair.
      num_rows: Calibration queries of each group, `[g]`; `[1]` where there are no groups.
      alpha: The risk level as given.
      delta: The chance of failure the thresholds were calibrated for; None where the risk is
        bounded on average.
      fallback: What groups too small for alpha were given.
      unseen: What a group gets that calibration did not see.
      too_small: Names of the groups too small; no promise holds for them under `"pooled"`.
    """

    groups: tuple[str, ...] | None
    threshold: jax.Array | TieBroken
    pooled: jax.Array | TieBroken
    num_rows: tuple[int, ...]
    alpha: Level
    delta: float | None
    fallback: str
    unseen: str
    too_small: tuple[str, ...]

    def warning(self) -> str:
        """What a user must know of the groups that are too small; empty where there are none."""
        if not self.too_small:
            return ""
        counts = dict(zip(self.groups or (), self.num_rows, strict=True))
        names = ", ".join(f"{name!r} (n = {counts[name]})" for name in self.too_small)
        given = (
            "the pooled threshold, without a promise of their own"
            if self.fallback == "pooled"
            else "every model"
        )
        needed = smallest_size(self.alpha, self.delta)
        surely = "" if self.delta is None else f" and delta = {self.delta:g}"
        return (
            f"groups too small for alpha = {self.alpha}{surely}, which takes n >= {needed}: "
            f"{names}; they get {given}"
        )

    def of(self, groups: Sequence[str] | None) -> jax.Array | TieBroken:
        """The threshold of each query, `[n]`; the single one, `[]`, where the calibration queries had no groups.

        Args:
          groups: Name of the group of each query, `[n]`; None where, and only where, the
            calibration queries had none.

        Returns:
          Thresholds for `prediction_sets`. A group that calibration did not see gets, as `unseen`
          says, the pooled threshold, for which no promise of its own holds, or +inf: every model.

        Raises:
          TypeError: If `groups` is a single string.
          ValueError: If groups are given where calibration had none or the reverse, or, under
            `unseen = "error"`, one was not among the calibration queries.
        """
        if (groups is None) != (self.groups is None):
            raise ValueError(
                "groups must be given where the calibration queries have them, and only there: got "
                f"{'none' if groups is None else 'some'}, calibrated on {self.groups or 'none'}"
            )
        if groups is None or self.groups is None:
            single: jax.Array | TieBroken = jax.tree.map(lambda x: x[0], self.threshold)
            return single
        codes = _codes(groups, self.groups, known_only=self.unseen == "error")
        value, tie = (
            self.threshold if isinstance(self.threshold, TieBroken) else (self.threshold, None)
        )
        # One more entry at the end for the groups that calibration did not see.
        pooled = self.pooled.value if isinstance(self.pooled, TieBroken) else self.pooled
        other = pooled if self.unseen == "pooled" else jnp.full_like(pooled, jnp.inf)
        each = jnp.append(value, other)[codes]
        if tie is None or not isinstance(self.pooled, TieBroken):
            return each
        other_tie = (
            self.pooled.tie
            if self.unseen == "pooled"
            else jnp.full_like(self.pooled.tie, 0xFFFFFFFF)
        )
        return TieBroken(each, jnp.append(tie, other_tie)[codes])


def smallest_size(alpha: Level, delta: float | None = None) -> int:
    """The smallest number of calibration queries with a finite threshold: ceil(1 / alpha) - 1, and more with a delta.

    Args:
      alpha: Risk level in (0, 1).
      delta: Chance of failure in (0, 1), for a promise with high probability: (1 - alpha)^n <=
        delta is needed.

    Returns:
      The number.

    Raises:
      TypeError: If an argument is not a number.
      ValueError: If one is outside (0, 1).

    >>> smallest_size(0.1), smallest_size(0.1, 0.05)
    (9, 29)
    """
    if delta is None:
        return smallest_calibration_size(alpha)
    size = max(1, ceil(log(check_delta(delta)) / log1p(-float(exact_alpha(alpha)))) - 1)
    while high_probability_budget(alpha, size, delta) < 0:  # once or twice: rounding decides
        size += 1
    return size


def _codes(groups: Sequence[str], known: Sequence[str], *, known_only: bool) -> np.ndarray:
    """The place of each group among the known, the number of these for others."""
    if isinstance(groups, str):
        raise TypeError(f"groups must be a sequence of names, got the one string {groups!r}")
    place = {name: i for i, name in enumerate(known)}
    codes = np.array([place.get(name, len(known)) for name in groups], np.int32)
    if known_only and (codes == len(known)).any():
        i = int(np.argmax(codes == len(known)))
        raise ValueError(
            f"groups must be among those of the calibration queries, {tuple(known)}, got {groups[i]!r} at [{i}]; "
            f"calibrate with unseen='all' or unseen='pooled' to let others through"
        )
    return codes


def _budget(alpha: Level, n: int, delta: float | None) -> int:
    return int(miss_budget(alpha, n) if delta is None else high_probability_budget(alpha, n, delta))


def calibrate_by_group(
    critical_scores: ArrayLike | TieBroken,
    groups: Sequence[str] | None,
    alpha: Level,
    fallback: Fallback = "all",
    *,
    delta: float | None = None,
    unseen: Unseen = "error",
) -> GroupedThreshold:
    r"""Mondrian calibration: a threshold for each group, all in one call.

    If the queries of a group are exchangeable with the calibration queries of that group, the risk
    within the group is at most alpha; hence it is on average too, whatever mix of groups is to
    come. With a delta the same holds for each group with probability 1 - delta over its calibration
    queries.

    Args:
      critical_scores: c(x) of the calibration queries, floating `[n]`, or a `TieBroken` pair.
      groups: Name of the group of each, `[n]`; None for one threshold for all.
      alpha: Risk level in (0, 1).
      fallback: What a group with fewer queries than `smallest_size` gets: `"all"` models, which
        keeps the promise, or the `"pooled"` threshold of all groups, which makes none for it.
      delta: Chance of failure, in (0, 1), for `calibrate_with_probability` in each group; None for
        `calibrate`.
      unseen: What a group gets at use that is not among these: an `"error"`, `"all"` models, or the
        `"pooled"` threshold, which makes no promise for it.

    Returns:
      The `GroupedThreshold`; its `warning` names the groups that fell back.

    Raises:
      TypeError: If an argument is of the wrong kind.
      ValueError: If shapes do not fit, scores are NaN, alpha or delta is outside (0, 1), or the
        fallback or `unseen` is unknown.

    References:
      Vovk, Gammerman and Shafer, "Algorithmic Learning in a Random World", 2005, Section 4.5.

    >>> grouped = calibrate_by_group(jnp.arange(12.0), ["a"] * 9 + ["b"] * 3, 0.1)
    >>> grouped.threshold.tolist(), grouped.too_small
    ([8.0, inf], ('b',))
    """
    if fallback not in FALLBACKS:
        raise ValueError(f"fallback must be one of {FALLBACKS}, got {fallback!r}")
    if unseen not in UNSEEN:
        raise ValueError(f"unseen must be one of {UNSEEN}, got {unseen!r}")
    value, tie = (
        critical_scores
        if isinstance(critical_scores, TieBroken)
        else (jnp.asarray(critical_scores), None)
    )
    check_no_nan("critical_scores", value)
    if value.ndim != 1 or not len(value):
        raise ValueError(f"critical_scores must have shape [n] with n >= 1, got {value.shape}")
    num = len(value)
    if groups is not None and not isinstance(groups, str) and len(groups) != num:
        raise ValueError(
            f"groups must name one group for each of the {num} queries, got {len(groups)}"
        )
    known = None if groups is None else tuple(dict.fromkeys(groups))
    codes = (
        np.zeros(num, np.int32) if groups is None else _codes(groups, known or (), known_only=True)
    )
    masks = codes == np.arange(codes.max() + 1)[:, None]
    num_rows = tuple(int(rows) for rows in masks.sum(axis=1))

    def thresholds(masks: np.ndarray | None, sizes: tuple[int, ...]) -> jax.Array | TieBroken:
        ranks = np.array([size - _budget(alpha, size, delta) for size in sizes], np.int32)
        ranks, rows = (ranks, None) if masks is None else (ranks[:, None], jnp.asarray(masks))
        found: jax.Array | TieBroken = threshold_at_rank(value, jnp.asarray(ranks), rows, tie)
        found = jax.tree.map(lambda x: x[..., 0], found)
        return found

    own, pooled = thresholds(masks, num_rows), thresholds(None, (num,))
    small = np.array([_budget(alpha, rows, delta) < 0 for rows in num_rows])
    if known is not None and fallback == "pooled":
        own = jax.tree.map(lambda each, all_: jnp.where(small, all_, each), own, pooled)
    names = tuple(
        name for name, is_small in zip(known or (), small, strict=known is not None) if is_small
    )
    return GroupedThreshold(known, own, pooled, num_rows, alpha, delta, fallback, unseen, names)


def calibrate_table(
    nonconformity: ArrayLike,
    correct: ArrayLike,
    alpha: Level,
    groups: Sequence[str] | None = None,
    *,
    tie_break: jax.Array | None = None,
    delta: float | None = None,
    fallback: Fallback = "all",
    unseen: Unseen = "error",
) -> GroupedThreshold:
    """Calibrates a table of queries: by group where it has groups, which is the default, else all together.

    For one threshold whatever the groups, pass `groups=None`.

    Args:
      nonconformity: E(x, m) of the calibration queries, floating `[n, m + 1]`, null model last.
      correct: Whether each real model is right, bool or 0/1 `[n, m]`.
      alpha: Risk level in (0, 1).
      groups: Name of the group of each query, `[n]`, such as a table's `group`; None where there
        are none.
      tie_break: Optional second keys, uint32 `[n, m + 1]`, from `racer_jax.tie_break`.
      delta: As in `calibrate_by_group`.
      fallback: As in `calibrate_by_group`.
      unseen: As in `calibrate_by_group`.

    Returns:
      The `GroupedThreshold`. `of` gives the threshold of each new query; tell the user of its
      `warning`.

    Raises:
      TypeError: If an argument is of the wrong kind.
      ValueError: If shapes do not fit, a value is NaN or not 0/1, alpha or delta is outside (0, 1),
        or an option is unknown.

    >>> nonconformity = jnp.arange(40.0).reshape(20, 2)
    >>> found = calibrate_table(nonconformity, jnp.ones((20, 1)), 0.1, ["a", "b"] * 10)
    >>> found.of(["b", "a"]).tolist()
    [38.0, 36.0]
    """
    critical = (
        critical_scores(nonconformity, correct, tie_break)
        if tie_break is not None
        else critical_scores(nonconformity, correct)
    )
    return calibrate_by_group(critical, groups, alpha, fallback, delta=delta, unseen=unseen)
