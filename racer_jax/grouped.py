"""Calibration by group (Mondrian): the risk is at most alpha in every group, not only on average over them.

One threshold for all groups spends the misses where they are easy to save: on average the risk is alpha, on the hard
group it may be twice that.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from racer_jax.calibration import Level, calibrate, exact_alpha
from racer_jax.guarantees import smallest_calibration_size
from racer_jax.nonconformity import TieBroken

Fallback = Literal["pooled", "all"]
FALLBACKS: tuple[str, ...] = get_args(Fallback)


@dataclass(frozen=True)
class GroupedThreshold:
    """One threshold for each group.

    Attributes:
      groups: Names of the groups, `[g]`.
      threshold: float32 `[g]`, or a `TieBroken` pair of them.
      num_rows: Calibration queries of each group, `[g]`.
      alpha: The risk level as given.
      fallback: What groups too small for alpha were given.
      too_small: Names of those groups; no promise holds for them under `"pooled"`.
    """

    groups: tuple[str, ...]
    threshold: jax.Array | TieBroken
    num_rows: tuple[int, ...]
    alpha: Level
    fallback: str
    too_small: tuple[str, ...]

    def warning(self) -> str:
        """What a user must know of the groups that are too small; empty where there are none."""
        if not self.too_small:
            return ""
        counts = dict(zip(self.groups, self.num_rows, strict=True))
        names = ", ".join(f"{name!r} (n = {counts[name]})" for name in self.too_small)
        given = "the pooled threshold, without a promise of their own" if self.fallback == "pooled" else "every model"
        needed = smallest_calibration_size(self.alpha)
        return f"groups too small for alpha = {self.alpha}, which takes n >= {needed}: {names}; they get {given}"

    def of(self, groups: Sequence[str]) -> jax.Array | TieBroken:
        """The threshold of each query, `[n]`.

        Args:
          groups: Name of the group of each query, `[n]`.

        Raises:
          TypeError: If `groups` is a single string.
          ValueError: If a group was not among the calibration queries.
        """
        codes = _codes(groups, self.groups, "calibration")
        threshold: jax.Array | TieBroken = jax.tree.map(lambda x: x[codes], self.threshold)
        return threshold


def _codes(groups: Sequence[str], known: Sequence[str], kind: str) -> np.ndarray:
    if isinstance(groups, str):
        raise TypeError(f"groups must be a sequence of names, got the one string {groups!r}")
    place = {name: i for i, name in enumerate(known)}
    for i, name in enumerate(groups):
        if name not in place:
            raise ValueError(f"groups must be among those of the {kind} queries, {tuple(known)}, got {name!r} at [{i}]")
    return np.array([place[name] for name in groups], np.int32)


def calibrate_by_group(
    critical_scores: ArrayLike | TieBroken, groups: Sequence[str], alpha: Level, fallback: Fallback = "all"
) -> GroupedThreshold:
    r"""Mondrian calibration: a threshold for each group, all in one vmapped call.

    If the queries of a group are exchangeable with the calibration queries of that group, the risk within the group is
    at most alpha; hence it is on average too, whatever mix of groups is to come.

    Args:
      critical_scores: c(x) of the calibration queries, floating `[n]`, or a `TieBroken` pair.
      groups: Name of the group of each, `[n]`.
      alpha: Risk level in (0, 1).
      fallback: What a group with fewer than ceil(1 / alpha) - 1 queries gets: `"all"` models, which keeps the promise,
        or the `"pooled"` threshold of all groups, which makes none for it.

    Returns:
      The `GroupedThreshold`; its `warning` names the groups that fell back.

    Raises:
      TypeError: If an argument is of the wrong kind.
      ValueError: If shapes do not fit, scores are NaN, alpha is outside (0, 1) or the fallback unknown.

    References:
      Vovk, Gammerman and Shafer, "Algorithmic Learning in a Random World", 2005, Section 4.5.

    >>> grouped = calibrate_by_group(jnp.arange(12.0), ["a"] * 9 + ["b"] * 3, 0.1)
    >>> grouped.threshold.tolist(), grouped.too_small
    ([8.0, inf], ('b',))
    """
    if fallback not in FALLBACKS:
        raise ValueError(f"fallback must be one of {FALLBACKS}, got {fallback!r}")
    value = critical_scores.value if isinstance(critical_scores, TieBroken) else jnp.asarray(critical_scores)
    if value.ndim != 1:
        raise ValueError(f"critical_scores must have shape [n], got {value.shape}")
    if not isinstance(groups, str) and len(groups) != len(value):
        raise ValueError(f"groups must name one group for each of the {len(value)} queries, got {len(groups)}")
    needed = smallest_calibration_size(exact_alpha(alpha))
    known = tuple(dict.fromkeys(groups))
    codes = _codes(groups, known, "calibration")
    masks = codes == np.arange(len(known))[:, None]
    threshold = calibrate(critical_scores, alpha, mask=masks)
    num_rows = tuple(int(num) for num in masks.sum(axis=1))
    small = np.array([num < needed for num in num_rows])
    if fallback == "pooled" and small.any():
        pooled = calibrate(critical_scores, alpha)
        threshold = jax.tree.map(lambda own, all_: jnp.where(small, all_, own), threshold, pooled)
    names = tuple(name for name, is_small in zip(known, small, strict=True) if is_small)
    return GroupedThreshold(known, threshold, num_rows, alpha, fallback, names)
