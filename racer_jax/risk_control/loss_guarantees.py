r"""Guarantees for bounded losses: what the mean is promised to be, by group, with high probability.

With high probability, a threshold is tested by the evidence against "its risk is at least alpha".
Hoeffding and Bentkus judge by the mean loss alone. A bet multiplies 1 + v (alpha - L_i) over the
queries: if the risk is at least alpha its expectation is at most 1, so it exceeds 1 / delta with a
chance of at most delta (Markov). The mean over several stakes v has the same property. Both grow as
the losses fall, so the first threshold that passes is the answer, and all thresholds are judged in
one pass over the steps.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import floor, log
from typing import Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
from scipy.special import betainc

from racer_jax._arrays import given
from racer_jax.core.checks import is_traced, on_host
from racer_jax.core.loss_calibration import calibrate_loss, pair_of_ticks, threshold_at_loss
from racer_jax.core.losses import TICKS, SetLoss
from racer_jax.core.nonconformity import TieBroken
from racer_jax.core.padding import placed_like
from racer_jax.core.risk_levels import Alpha, Level, exact_number, exact_shares
from racer_jax.core.scalar_checks import check_count
from racer_jax.core.sort_keys import ordered_keys
from racer_jax.risk_control.bounds import RiskBounds
from racer_jax.risk_control.group_scores import FALLBACKS, Fallback, group_codes
from racer_jax.risk_control.high_probability_budgets import check_delta
from racer_jax.risk_control.mondrian import UNSEEN, GroupedThreshold, Unseen

Method = Literal["betting", "hoeffding_bentkus"]
METHODS: tuple[str, ...] = get_args(Method)
# A bet is the mean over stakes: most of it on the one that is best where losses are 0/1 and the
# mean just passes, with which a bet passes wherever Hoeffding's inequality does; the rest on larger
# ones, which pay where losses vary less than that.
_FIRST_SHARE, _LARGER_STAKES = 0.75, 7
# What rounding may do to a sum of logarithms, with room to spare.
_LOG_ERROR = 1e-9
_TOP = np.uint32(0xFFFFFFFF)


def loss_bounds(
    alpha: Alpha, n: int, bound: float | str | Fraction = 1, largest_drop: float | None = None
) -> RiskBounds:
    r"""Bounds of the expected loss: alpha - (B + J) / (n + 1) < E[loss] <= alpha.

    The upper one needs exchangeability and a loss of 0 where every model is called. The lower one
    also needs steps without ties, as the tie-break gives, and a loss of B for the empty set.

    Args:
      alpha: Level or levels in (0, B), in the unit of the loss.
      n: Number of calibration queries.
      bound: B, the largest loss there can be.
      largest_drop: J, the largest drop at one step, such as `loss.largest_drop`; B where None.

    Returns:
      `RiskBounds` of floats, or of `[a]` arrays. The lower bound is not clipped at 0.

    Raises:
      TypeError: If `alpha` is not numeric or `n` not an integer.
      ValueError: If an alpha or the drop is outside (0, B], or `n` below 1.

    References:
      Angelopoulos, Bates, Fisch, Lei and Schuster, "Conformal Risk Control", 2024, Theorems 1 and
      2, the latter with J in the place of the second B.

    Use this when a measured mean loss is to be compared with what it must be.

    >>> loss_bounds(0.1, 99)
    RiskBounds(lower=0.08, upper=0.1)
    """
    check_count("n", n)
    limit = exact_number("bound", bound)
    shares, scalar = exact_shares(alpha, limit)
    drop = float(limit) if largest_drop is None else float(largest_drop)
    if not 0 < drop <= float(limit) * (1 + 1e-6):
        raise ValueError(f"largest_drop must be in (0, {limit}], got {largest_drop}")
    upper = np.array([float(share * limit) for share in shares])
    lower = upper - (float(limit) + drop) / (n + 1)
    return RiskBounds(float(lower[0]), float(upper[0])) if scalar else RiskBounds(lower, upper)


def hoeffding_bentkus_ticks(share: Fraction, n: int, delta: float) -> int:
    """The largest sum of n losses, in ticks, that rules out a risk of `share` of the bound.

    The larger of what Hoeffding's inequality (in its form with a relative entropy) and Bentkus's
    allow; -1 where not even a sum of 0 will do.

    Use this when a budget for the sum of the losses is wanted; `calibrate_loss_with_probability`
    turns it into a threshold.

    >>> round(hoeffding_bentkus_ticks(Fraction(1, 10), 1000, 0.05) / 5_040_000, 1)
    80.0
    """
    level, ticks = float(share), -1
    if -n * np.log1p(-level) >= log(1 / delta) * (1 + 1e-9):
        ticks = floor(_hoeffding_mean(level, n, delta) * n * TICKS * (1 - 1e-12))
    chances = betainc(n - np.arange(n), np.arange(n) + 1.0, 1 - level)  # of at most k of n
    whole = int(np.searchsorted(chances, delta / np.e * (1 - 1e-8), side="right")) - 1
    return max(ticks, whole * TICKS if whole >= 0 else -1)


def _hoeffding_mean(level: float, n: int, delta: float) -> float:
    """The largest mean with n h(mean, level) >= log(1 / delta); 0 where there is none."""
    low, high = 0.0, level
    for _ in range(60):
        middle = (low + high) / 2
        far = n * _relative_entropy(middle, level) >= log(1 / delta) * (1 + 1e-9)
        low, high = (middle, high) if far else (low, middle)
    return low


def _stakes(level: float, n: int, delta: float) -> tuple[np.ndarray, np.ndarray]:
    """The stakes of a bet against a mean of `level`, below 1 / (1 - level); and their shares."""
    first = (level - _hoeffding_mean(level, n, delta)) / (level * (1 - level))
    most = (1 - 1e-6) / (1 - level)
    stakes = np.geomspace(min(first, most), most, _LARGER_STAKES + 1)
    shares = np.full(len(stakes), (1 - _FIRST_SHARE) / _LARGER_STAKES)
    shares[0] = _FIRST_SHARE
    return stakes, shares


def _relative_entropy(mean: float, level: float) -> float:
    """Of Bernoulli laws with these means."""
    near = mean * log(mean / level) if mean > 0 else 0.0
    return near + (1 - mean) * log((1 - mean) / (1 - level))


def calibrate_loss_with_probability(
    loss: SetLoss, alpha: Alpha, delta: float, method: Method = "betting"
) -> jax.Array | TieBroken:
    r"""The smallest threshold whose expected loss is at most alpha with probability 1 - delta.

    The probability is over the calibration set, whose queries are to be independent and of the law
    of the queries to come. Runs on the host in float64.

    Args:
      loss: The loss of each calibration query, `[n]`.
      alpha: One level in (0, B), in the unit of the loss, or several `[a]`.
      delta: Chance over the calibration set that the expected loss exceeds alpha, in (0, 1).
      method: `"betting"`, which uses all that the losses say and gives the smaller sets, or
        `"hoeffding_bentkus"`, which looks at their mean alone.

    Returns:
      The threshold `[]` or `[a]`, as of `calibrate_loss`; +inf where no threshold will do.

    Raises:
      TypeError: If an argument is of the wrong kind, or the loss is traced.
      ValueError: If the loss is not `[n]`, or an option is out of range.

    References:
      Bates, Angelopoulos, Lei, Malik and Jordan, "Distribution-Free, Risk-Controlling Prediction
      Sets", 2021, Theorem 1 and Section 3.1.2; Waudby-Smith and Ramdas, "Estimating Means of
      Bounded Random Variables by Betting", 2024, Section 4, with the mean over constant bets.

    Use this when one calibration set is all there will be, and its expected loss must hold.
    """
    chance = check_delta(delta)
    if method not in METHODS:
        raise ValueError(f"method must be one of {METHODS}, got {method!r}")
    if is_traced(loss.start, loss.step, loss.drop):
        raise TypeError(
            "a promise with high probability is computed on the host and cannot be traced: call "
            "calibrate_loss_with_probability outside jit and vmap"
        )
    if loss.start.ndim != 1:
        raise ValueError(f"loss must be of queries [n], got {loss.start.shape}")
    shares, scalar = exact_shares(alpha, loss.bound)
    if method == "betting":
        thresholds = _betting_thresholds(loss, [float(share) for share in shares], chance)
    else:
        ticks = [hoeffding_bentkus_ticks(share, loss.num_queries, chance) for share in shares]
        thresholds = threshold_at_loss(loss, pair_of_ticks(np.array(ticks, object)))
    first: jax.Array | TieBroken = jax.tree.map(lambda x: x[0], thresholds)
    return first if scalar else thresholds


def _betting_thresholds(
    loss: SetLoss, levels: Sequence[float], delta: float
) -> jax.Array | TieBroken:
    """The first step at which the mean bet against each level comes to 1 / delta."""
    step = np.asarray(loss.step)
    tie = None if loss.tie is None else np.asarray(loss.tie)
    start, drop = np.asarray(loss.start) / TICKS, np.asarray(loss.drop)
    after = (np.asarray(loss.start)[:, None] - np.cumsum(drop, axis=1)) / TICKS
    before = after + drop / TICKS
    order = np.argsort(ordered_keys(step, tie).ravel(), kind="stable")
    order = order[drop.ravel()[order] > 0]
    before, after = before.ravel()[order], after.ravel()[order]
    values = np.append(step.ravel()[order], np.inf).astype(step.dtype)
    needed = -log(delta) + _LOG_ERROR * len(start)
    places, free = [], []
    for level in levels:
        evidence = np.full(len(order) + 1, -np.inf)
        for stake, share in zip(*_stakes(level, len(start), delta), strict=True):
            gain = np.log1p(stake * (level - after)) - np.log1p(stake * (level - before))
            bet = np.cumsum(np.append(np.log1p(stake * (level - start)).sum(), gain))
            evidence = np.logaddexp(evidence, bet + log(share))
        passes = evidence >= needed
        # The first entry is the empty set's; entry i + 1 that of step i.
        free.append(bool(passes[0]))
        places.append(int(np.argmax(passes)) - 1 if passes.any() else len(order))
    at = np.where(free, np.array(-np.inf, step.dtype), values[np.maximum(places, 0)])
    if tie is None:
        return placed_like(at, loss.step)
    second = np.append(tie.ravel()[order], _TOP)
    ties = np.where(free, np.uint32(0), second[np.maximum(places, 0)])
    return TieBroken(placed_like(at, loss.step), placed_like(ties, loss.step))


@dataclass(frozen=True)
class GroupedLossThreshold(GroupedThreshold):
    """One threshold for each group, for a bounded loss.

    `too_small` names the groups in which no threshold reaches alpha, because they have too few
    queries or because even every model together loses too much.

    Use this when you read the result of `calibrate_loss_by_group`.
    """

    def warning(self) -> str:
        """A warning about the groups in which alpha is out of reach; empty where there are none.

        Use this when groups may be too small for alpha.
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
        surely = "" if self.delta is None else f" and delta = {self.delta:g}"
        return (
            f"groups in which no threshold reaches alpha = {self.alpha}{surely}: {names}; they "
            f"get {instead}"
        )


def calibrate_loss_by_group(
    loss: SetLoss,
    groups: Sequence[str],
    alpha: Level,
    fallback: Fallback = "all",
    *,
    delta: float | None = None,
    method: Method = "betting",
    unseen: Unseen = "error",
) -> GroupedLossThreshold:
    """A threshold for each group: the expected loss is at most alpha in every group.

    Args:
      loss: The loss of each calibration query, `[n]`.
      groups: Name of the group of each, `[n]`.
      alpha: Level in (0, B), in the unit of the loss.
      fallback: What a group gets in which no threshold reaches alpha: `"all"` models, or the
        `"pooled"` threshold of all groups, which makes no promise for it.
      delta: Chance of failure in (0, 1), for `calibrate_loss_with_probability` in each group; None
        for `calibrate_loss`.
      method: As of `calibrate_loss_with_probability`.
      unseen: What a group gets at use that is not among these, as of `calibrate_by_group`.

    Returns:
      The `GroupedLossThreshold`; its `warning` names the groups that fell back.

    Raises:
      TypeError: If an argument is of the wrong kind.
      ValueError: If shapes do not fit, or an option is out of range or unknown.

    Use this when the loss of every group matters, not only that of all queries together.

    >>> from racer_jax.core.losses import grade_loss
    >>> loss = grade_loss(jnp.arange(80.0).reshape(40, 2), jnp.ones((40, 1)))
    >>> calibrate_loss_by_group(loss, ["a", "b"] * 20, 0.1).of(["b", "a"]).tolist()
    [74.0, 72.0]
    """
    if fallback not in FALLBACKS:
        raise ValueError(f"fallback must be one of {FALLBACKS}, got {fallback!r}")
    if unseen not in UNSEEN:
        raise ValueError(f"unseen must be one of {UNSEEN}, got {unseen!r}")
    if isinstance(groups, str):
        raise TypeError(f"groups must be a sequence of names, got the one string {groups!r}")
    if loss.start.ndim != 1 or len(groups) != loss.num_queries:
        raise ValueError(
            f"groups must name one group for each of the {loss.start.shape} queries, got "
            f"{len(groups)}"
        )
    groups = given("groups", groups)
    names = tuple(dict.fromkeys(groups))
    masks = group_codes(groups, names) == np.arange(len(names))[:, None]

    def pooled_of(part: SetLoss) -> jax.Array | TieBroken:
        if delta is None:
            return calibrate_loss(part, alpha)
        return calibrate_loss_with_probability(part, alpha, delta, method)

    pooled = pooled_of(loss)
    if delta is None:
        thresholds = calibrate_loss(loss, alpha, masks)
    else:
        parts = [pooled_of(loss.rows(np.flatnonzero(mask))) for mask in masks]
        thresholds = jax.tree.map(lambda *at: jnp.stack(at), *parts)
    value = thresholds.value if isinstance(thresholds, TieBroken) else thresholds
    out_of_reach = on_host(value) == np.inf
    if fallback == "pooled":
        thresholds = jax.tree.map(
            lambda group_value, all_: jnp.where(out_of_reach, all_, group_value), thresholds, pooled
        )
    return GroupedLossThreshold(
        groups=names,
        threshold=thresholds,
        pooled=pooled,
        num_rows=tuple(int(mask.sum()) for mask in masks),
        alpha=alpha,
        delta=delta,
        fallback=fallback,
        unseen=unseen,
        too_small=tuple(np.array(names, object)[out_of_reach]),
    )
