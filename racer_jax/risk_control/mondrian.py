"""Calibration by group (Mondrian).

The risk is at most alpha in every group, not only on average over them.

One threshold for all groups spends the misses where they are easy to save: on average the risk is
alpha, on the hard group it may be twice that. So where queries have groups, `calibrate_table` makes
a threshold for each.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from racer_jax.core.calibration import critical_scores
from racer_jax.core.checks import on_device
from racer_jax.core.nonconformity import TieBroken
from racer_jax.core.padding import can_pad, placed_like
from racer_jax.core.risk_levels import Level
from racer_jax.risk_control.group_scores import FALLBACKS as FALLBACKS
from racer_jax.risk_control.group_scores import Fallback as Fallback
from racer_jax.risk_control.group_scores import group_codes, group_scores
from racer_jax.risk_control.high_probability_budgets import smallest_size as smallest_size

Unseen = Literal["error", "pooled", "all"]
UNSEEN: tuple[str, ...] = get_args(Unseen)


@dataclass(frozen=True)
class GroupedThreshold:
    """One threshold for each group, or one for all queries where they have no groups.

    Attributes:
      groups: Names of the groups, `[g]`; None where the calibration queries had none.
      threshold: The threshold of each group, floating `[g]`, or a `TieBroken` pair of them; `[1]`
        where there are no groups.
      pooled: The threshold of all calibration queries together, floating `[]` or a `TieBroken`
        pair.
      num_rows: Calibration queries of each group, `[g]`; `[1]` where there are no groups.
      alpha: The risk level as given.
      delta: The chance of failure the thresholds were calibrated for; None where the risk is
        bounded on average.
      fallback: The kind of threshold of groups that are too small for alpha.
      unseen: The kind of threshold of groups that calibration did not see.
      too_small: Names of the groups too small; under `"pooled"` nothing is guaranteed for them.

    Use this when queries to come are to get the threshold of their group, by `of`.
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
        """A warning about the groups that are too small; empty where there are none.

        Use this when you show results of a calibration by group.
        """
        if not self.too_small:
            return ""
        counts = dict(zip(self.groups or (), self.num_rows, strict=True))
        names = ", ".join(f"{name!r} (n = {counts[name]})" for name in self.too_small)
        instead = (
            "the pooled threshold, without a promise of their own"
            if self.fallback == "pooled"
            else "every model"
        )
        smallest = smallest_size(self.alpha, self.delta)
        surely = "" if self.delta is None else f" and delta = {self.delta:g}"
        return (
            f"groups too small for alpha = {self.alpha}{surely}, which takes n >= {smallest}: "
            f"{names}; they get {instead}"
        )

    def of(self, groups: Sequence[str] | None) -> jax.Array | TieBroken:
        """The threshold of each query, `[n]`.

        The single one, `[]`, where the calibration queries had no groups.

        Use this when the groups of new queries are there.

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
        codes = _known_codes(groups, self.groups, self.unseen)
        value, tie = (
            self.threshold if isinstance(self.threshold, TieBroken) else (self.threshold, None)
        )
        # One more entry at the end for the groups that calibration did not see.
        other_value = self.pooled.value if isinstance(self.pooled, TieBroken) else self.pooled
        other = other_value if self.unseen == "pooled" else jnp.full_like(other_value, jnp.inf)
        per_query = jnp.append(value, other)[codes]
        if tie is None or not isinstance(self.pooled, TieBroken):
            return per_query
        other_tie = (
            self.pooled.tie
            if self.unseen == "pooled"
            else jnp.full_like(self.pooled.tie, 0xFFFFFFFF)
        )
        return TieBroken(per_query, jnp.append(tie, other_tie)[codes])


def _known_codes(groups: Sequence[str], names: tuple[str, ...], unseen: str) -> np.ndarray:
    """`group_codes` of queries to come, which `unseen` may not allow to be of another group."""
    if isinstance(groups, str):
        raise TypeError(f"groups must be a sequence of names, got the one string {groups!r}")
    codes = group_codes(groups, names)
    if unseen == "error" and (codes == len(names)).any():
        i = int(np.argmax(codes == len(names)))
        raise ValueError(
            f"groups must be among those of the calibration queries, {names}, got {groups[i]!r} at "
            f"[{i}]; calibrate with unseen='all' or unseen='pooled' to let others through"
        )
    return codes


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
        keeps the promise (unless some have E = +inf: sets are capped, or the null mode is `never`),
        or the `"pooled"` threshold of all groups, which makes none for it.
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

    Use this when the risk of every group matters, not only that of all queries together.

    >>> grouped = calibrate_by_group(jnp.arange(12.0), ["a"] * 9 + ["b"] * 3, 0.1)
    >>> grouped.threshold.tolist(), grouped.too_small
    ([8.0, inf], ('b',))
    """
    if fallback not in FALLBACKS:
        raise ValueError(f"fallback must be one of {FALLBACKS}, got {fallback!r}")
    if unseen not in UNSEEN:
        raise ValueError(f"unseen must be one of {UNSEEN}, got {unseen!r}")
    scores = group_scores(critical_scores, groups)
    like = jax.tree.leaves(critical_scores)[0]
    own_fallback: Fallback = "all" if groups is None else fallback
    too_small = scores.budgets([alpha], delta)[:, 0] < 0
    names = tuple(np.array(scores.groups or (), object)[too_small[: len(scores.groups or ())]])
    return GroupedThreshold(
        groups=scores.groups,
        threshold=_on_device(*scores.thresholds([alpha], delta, own_fallback), np.s_[:, 0], like),
        pooled=_on_device(*scores.pooled().thresholds([alpha], delta), np.s_[0, 0], like),
        num_rows=tuple(scores.num_queries.tolist()),
        alpha=alpha,
        delta=delta,
        fallback=fallback,
        unseen=unseen,
        too_small=names,
    )


def _on_device(
    value: np.ndarray, tie: np.ndarray | None, places: Any, like: ArrayLike
) -> jax.Array | TieBroken:
    """Some of the thresholds `[g, a]` as arrays of the device on which another one lies."""

    def of(array: np.ndarray) -> jax.Array:
        values = np.asarray(array[places])
        return placed_like(values, like) if can_pad(like) else on_device(values)

    return of(value) if tie is None else TieBroken(of(value), of(tie))


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
    """Calibrates a table of queries.

    By group where it has groups, which is the default, else all together.

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
      The `GroupedThreshold`. `of` gives the threshold of each new query; show the user its
      `warning`.

    Raises:
      TypeError: If an argument is of the wrong kind.
      ValueError: If shapes do not fit, a value is NaN or not 0/1, alpha or delta is outside (0, 1),
        or an option is unknown.

    Use this when queries come as a table: it takes the groups where there are any.

    >>> nonconformity = jnp.arange(40.0).reshape(20, 2)
    >>> grouped = calibrate_table(nonconformity, jnp.ones((20, 1)), 0.1, ["a", "b"] * 10)
    >>> grouped.of(["b", "a"]).tolist()
    [38.0, 36.0]
    """
    critical: jax.Array | TieBroken
    if tie_break is None:
        critical = critical_scores(nonconformity, correct)
    else:
        critical = critical_scores(nonconformity, correct, tie_break)
    return calibrate_by_group(critical, groups, alpha, fallback, delta=delta, unseen=unseen)
