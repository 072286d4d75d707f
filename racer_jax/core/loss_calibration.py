r"""Conformal risk control: the threshold for any bounded loss that a larger set lowers.

With losses L_i in [0, B] of n calibration queries the threshold is

    lambda_hat = inf{lambda : (L_1(lambda) + ... + L_n(lambda) + B) / (n + 1) <= alpha}

(Angelopoulos, Bates, Fisch, Lei and Schuster 2024). The sum is a falling step function whose steps
are those of the queries, so lambda_hat is one of them: all are sorted once, their drops are added
up, and the first step is taken at which the sum is within its budget, alpha (n + 1) - B. No grid of
thresholds is searched, and none is missed.

Sums are pairs (high, low) of int32 that stand for high * 2**16 + low ticks: 32 bits hold the ticks
of 400 queries only. A budget is such a pair too, computed from the decimal that was written, so
that another alpha never recompiles.
"""

from dataclasses import replace
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import ArrayLike

from racer_jax.core.checks import is_traced, on_device, on_host
from racer_jax.core.float_keys import common_dtype, float_keys, from_integers, without_sign_of_zero
from racer_jax.core.losses import TICKS, SetLoss
from racer_jax.core.miss_ranks import farey_floor, rounded_down
from racer_jax.core.nonconformity import TieBroken
from racer_jax.core.order_statistics import varying_like
from racer_jax.core.padding import can_pad, padded
from racer_jax.core.placement import on_any_mesh
from racer_jax.core.risk_levels import Alpha, exact_shares
from racer_jax.core.threshold_parts import checked_rows, first_threshold, without_gradient

_TOP = np.uint32(0xFFFFFFFF)
# A denominator up to here leaves room for the long division in int32.
MOST_DENOMINATOR = 700_000_000
# Steps up to which the sums of their lowest bytes fit into an int32.
MOST_STEPS = 1 << 23
Pair = tuple[jax.Array, jax.Array]


def _carried(low: jax.Array, middle: jax.Array, high: jax.Array) -> Pair:
    """The pair of a number in three parts, of which the lower two have grown beyond their byte."""
    middle = middle + (low >> 8)
    return high + (middle >> 8), ((middle & 255) << 8) | (low & 255)


def _bytes(ticks: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Ticks in three parts, of 8, 8 and the other bits."""
    return ticks & 255, (ticks >> 8) & 255, ticks >> 16


def total(ticks: jax.Array) -> Pair:
    """The sum over the last axis, from the sums of the parts.

    Use this when losses were added up in parts.
    """
    return _carried(*(part.sum(axis=-1, dtype=jnp.int32) for part in _bytes(ticks)))


def cumulative(ticks: jax.Array) -> Pair:
    """The sums up to each place of the last axis.

    Use this when losses are added up along the steps of a query.
    """
    return _carried(*(jnp.cumsum(part, axis=-1, dtype=jnp.int32) for part in _bytes(ticks)))


@jax.jit
def _threshold(
    loss: SetLoss, budget: Pair, mask: jax.Array | None
) -> tuple[jax.Array, jax.Array | None]:
    """The first step `[..., a]` at which the sum of the losses is within its budget `[..., a]`."""
    dtype, num_steps = loss.step.dtype, loss.step.shape[-1]
    value = without_gradient(loss.step).astype(common_dtype(dtype, jnp.float32))
    ndim = max(loss.start.ndim, 0 if mask is None else mask.ndim)

    def flat(array: jax.Array) -> jax.Array:
        """Steps of all queries on one axis, and the axes of the masks before it."""
        array = array.reshape(*array.shape[:-2], -1)
        return jnp.expand_dims(array, tuple(range(ndim - array.ndim)))

    value, drop = flat(value), flat(loss.drop)
    ties = [] if loss.tie is None else [flat(loss.tie)]
    place = lax.broadcasted_iota(jnp.int32, value.shape, value.ndim - 1)
    # The sort reads nothing of the mask: under a batch of masks the steps are sorted once for all.
    keys = [float_keys(value), *ties]
    *keys, drop, query = lax.sort((*keys, drop, place // num_steps), num_keys=len(keys))
    start = jnp.expand_dims(loss.start, tuple(range(ndim - loss.start.ndim)))
    if mask is not None:
        rows = jnp.expand_dims(mask, tuple(range(ndim - mask.ndim)))
        start = jnp.where(rows, start, 0)
        drop = jnp.where(jnp.take_along_axis(rows, query, axis=-1, mode="clip"), drop, 0)
    index, free = first_within(total(start), cumulative(drop), budget)
    count = drop.shape[-1]
    never = index == count
    at = [
        jnp.take_along_axis(key, jnp.minimum(index, count - 1), axis=-1, mode="clip")
        for key in keys
    ]
    threshold = without_sign_of_zero(from_integers(at[0], value.dtype))
    threshold = jnp.where(free, -jnp.inf, jnp.where(never, jnp.inf, threshold)).astype(dtype)
    if loss.tie is None:
        return threshold, None
    return threshold, jnp.where(free, np.uint32(0), jnp.where(never, _TOP, at[1]))


def first_within(start: Pair, dropped: Pair, budget: Pair) -> tuple[jax.Array, jax.Array]:
    """The first step at which a sum of losses is within its budget, and whether it starts so.

    Use this when the threshold is the first step within its budget.

    Args:
      start: The sum before any step `[...]`.
      dropped: How much it has fallen after each step `[..., k]`.
      budget: The most it may be `[..., a]`.

    Returns:
      The place of the step, k where there is none, int32 `[..., a]`, and bool `[..., a]`.
    """
    high, low = (part[..., None] for part in start)
    most_high, most_low = (jnp.expand_dims(x, tuple(range(high.ndim - x.ndim))) for x in budget)
    low = low - most_low
    # It is within its budget once it has fallen by start - budget.
    needed = (high - most_high + (low >> 16), low & 0xFFFF)
    free = (needed[0] < 0) | ((needed[0] == 0) & (needed[1] == 0))
    return _first_at_least(dropped, needed), free


def _first_at_least(sums: Pair, needed: Pair) -> jax.Array:
    """The first place where rising sums `[..., k]` reach each number `[..., a]`; k where none does.

    By bisection, which reads few of the sums where there are many levels.
    """
    size = sums[0].shape[-1]
    batch = jnp.broadcast_shapes(sums[0].shape[:-1], needed[0].shape[:-1])
    sums = (jnp.broadcast_to(sums[0], (*batch, size)), jnp.broadcast_to(sums[1], (*batch, size)))
    zero = jnp.zeros((*batch, needed[0].shape[-1]), jnp.int32)
    low, high = (varying_like(edge, *sums, *needed) for edge in (zero, jnp.full_like(zero, size)))

    def halve(_: int, edges: Pair) -> Pair:
        low, high = edges
        middle = (low + high) // 2
        high_part, low_part = (
            jnp.take_along_axis(part, jnp.minimum(middle, size - 1), axis=-1, mode="clip")
            for part in sums
        )
        below = (high_part < needed[0]) | ((high_part == needed[0]) & (low_part < needed[1]))
        below &= low < high
        return jnp.where(below, middle + 1, low), jnp.where(below, high, middle)

    edges: Pair = lax.fori_loop(0, size.bit_length(), halve, (low, high))
    return edges[0]


# --- budgets --------------------------------------------------------------------------------------


def _known_budget(shares: list[Fraction], num: int | np.ndarray) -> Pair:
    """The budget alpha (n + 1) - 1 in losses, `[..., a]`, from Python's own integers: exact."""
    counts = np.asarray(num, dtype=object)
    levels = [((counts + 1) * s.numerator - s.denominator) * TICKS // s.denominator for s in shares]
    return pair_of_ticks(np.stack([np.asarray(level, object) for level in levels], axis=-1))


def pair_of_ticks(ticks: np.ndarray) -> Pair:
    """Ticks of any number, integers of the host, as a pair; -1 for all that are below 0.

    Use this when ticks of any size go into int32.
    """
    ticks = np.maximum(ticks, -1)
    return (
        on_device((ticks // 2**16).astype(np.int32)),
        on_device((ticks % 2**16).astype(np.int32)),
    )


def _pair_of_losses(whole: jax.Array, ticks: jax.Array) -> Pair:
    """Whole losses, at least -1, and ticks up to one of them, as a pair."""
    parts = (TICKS & 255, (TICKS >> 8) & 255, TICKS >> 16)
    low, middle, high = (
        whole * np.int32(part) + more for part, more in zip(parts, _bytes(ticks), strict=True)
    )
    return _carried(low, middle, high)


def _counted_budget(shares: list[Fraction], num: jax.Array) -> Pair:
    """The budget `[..., a]` for a traced number of rows n `[...]`; exact.

    A level whose denominator is too large is read as the next lower one that is not: the whole
    losses are the same, and of the rest less than a billionth of the sum may be missing.
    """
    near = [farey_floor(share, MOST_DENOMINATOR) for share in shares]
    axes = (*(1,) * num.ndim, -1)
    p = np.array([share.numerator for share in near], np.int32).reshape(axes)
    q = np.array([share.denominator for share in near], np.int32).reshape(axes)
    whole, rest = divided(jnp.asarray(p), (num + 1)[..., None], q, 31)
    ticks, _ = divided(rest, jnp.full_like(rest, TICKS), q, TICKS.bit_length())
    return _pair_of_losses(whole - 1, ticks)


def divided(
    left: jax.Array,
    right: jax.Array,
    divisor: np.ndarray | jax.Array,
    bits: int,
    remainder: jax.Array | None = None,
) -> Pair:
    """Quotient and remainder of left * right / divisor, left <= divisor, without the product.

    Horner's scheme over the bits of `right`: the remainder stays below 3 divisors. A remainder that
    is passed on counts as what stands before the bits.

    Use this when a product of two ticks would not fit into 64 bits.
    """
    left, right = jnp.broadcast_arrays(left, right)
    zero = varying_like(jnp.zeros_like(left), left, right)
    start = zero if remainder is None else remainder

    def bit(step: int, state: Pair) -> Pair:
        quotient, remainder = state
        remainder = 2 * remainder + ((right >> (bits - 1 - step)) & 1) * left
        return 2 * quotient + remainder // divisor, remainder % divisor

    result: Pair = lax.fori_loop(0, bits, bit, (zero, start))
    return result


def _traced_budget(alpha: jax.Array, num: jax.Array, bound: Fraction) -> Pair:
    """The budget alpha (n + 1) - 1 in losses for a traced alpha `[a]`; rounds to the safe side."""
    # As in `calibrate`; one rounding more where alpha is divided by a bound.
    slack = rounded_down(alpha, float(bound))
    if bound != 1:
        slack = slack * np.float32(1 / float(bound)) * (1 - 2.0**-22)
    slack = jnp.expand_dims(slack, tuple(range(num.ndim)))
    losses = slack * (num + 1).astype(jnp.float32)[..., None]
    whole = jnp.floor(losses)
    ticks = jnp.floor((losses - whole) * np.float32(TICKS) * (1 - 2.0**-22))
    safe = slack > 0
    whole = jnp.where(safe, whole.astype(jnp.int32) - 1, -1)
    return _pair_of_losses(whole, jnp.where(safe, ticks.astype(jnp.int32), 0))


def loss_budget(
    alpha: Alpha, num: int | np.ndarray | jax.Array, bound: Fraction
) -> tuple[Pair, bool]:
    """What the losses of n calibration queries may sum up to, `[..., a]`; whether alpha is one.

    Use this when losses lie between 0 and B and are no misses.
    """
    if is_traced(alpha):
        level = jnp.asarray(alpha)
        if level.ndim > 1:
            raise ValueError(f"alpha must be a scalar or have shape [a], got shape {level.shape}")
        counts = jnp.asarray(num, jnp.int32)
        return _traced_budget(jnp.atleast_1d(level), counts, bound), level.ndim == 0
    shares, scalar = exact_shares(alpha, bound)
    if isinstance(num, jax.Array) and is_traced(num):
        return _counted_budget(shares, num), scalar
    return _known_budget(shares, on_host(num)), scalar


@on_any_mesh
def threshold_at_loss(
    loss: SetLoss, budget: Pair, mask: jax.Array | None = None
) -> jax.Array | TieBroken:
    """The smallest threshold at which the losses sum up to at most a budget.

    Args:
      loss: The loss of each calibration query, `[..., n]`.
      budget: Sums in ticks as pairs of int32 `[..., a]`, from `pair_of_ticks`.
      mask: Which rows are calibration rows, bool `[..., n]`; None for all.

    Returns:
      Thresholds `[..., a]`, with a tie-break a `TieBroken` pair; +inf where no threshold will do,
      -inf where the empty set does.

    Use this when a budget comes from somewhere else than an average of alpha.
    """
    if can_pad(loss.start, loss.step, loss.drop, loss.tie, mask, *budget) and loss.start.ndim == 1:
        mask = None if mask is None else padded(mask, -1, False)
        loss = replace(
            loss,
            start=padded(loss.start, 0, 0),
            step=padded(loss.step, 0, np.inf),
            drop=padded(loss.drop, 0, 0),
            model=padded(loss.model, 0, 0),
            tie=None if loss.tie is None else padded(loss.tie, 0, _TOP),
        )
    value, second = _threshold(loss, budget, mask)
    return value if second is None else TieBroken(value, second)


@on_any_mesh
def calibrate_loss(
    loss: SetLoss, alpha: Alpha, mask: ArrayLike | None = None
) -> jax.Array | TieBroken:
    r"""The smallest threshold whose expected loss is at most alpha.

    If the calibration queries and a new one are exchangeable, and calling every model loses nothing
    (`SetLoss.full` is 0), the expected loss of the new query is at most alpha. It is above alpha -
    (B + J) / (n + 1), J being the largest drop at one step, where no steps of two queries tie,
    which the tie-break sees to, and the empty set loses B. For the 0/1 loss this is `calibrate`,
    bit for bit.

    Where even the sets of all models lose too much on the calibration queries the threshold is
    +inf, every model is called, and the expected loss is that of every model, which may be above
    alpha. So choose a loss that is 0 there, such as `grade_loss(..., against="pool")`, or look at
    `loss.full` first.

    Pure and deterministic; works under the caller's `jit` and `vmap`, also with traced losses. Many
    masks that broadcast against the losses sort the steps once.

    Args:
      loss: The loss of each calibration query, `[..., n]`.
      alpha: One level in (0, B), in the unit of the loss, or several `[a]`; exact as a Python
        number, rounded to the safe side where it is traced.
      mask: Which rows are calibration rows, bool or 0/1 `[..., n]`; all by default.

    Returns:
      The threshold `[...]` for one alpha, `[..., a]` for several; a `TieBroken` pair where the loss
      has a tie-break. -inf where the loss of the empty set is within the budget.

    Raises:
      TypeError: If an argument is of the wrong kind.
      ValueError: If shapes do not fit, there is no calibration row, or alpha is out of range.

    References:
      Angelopoulos, Bates, Fisch, Lei and Schuster, "Conformal Risk Control", 2024, Theorems 1, 2.

    Use this when what a wrong set costs is more than right or wrong; for 0/1 use `calibrate`.

    >>> from racer_jax.core.losses import grade_loss
    >>> nonconformity = jnp.tile(jnp.array([[0.1, 0.2, 0.9]]), (19, 1))
    >>> grades = np.tile([[0.8, 1.0]], (19, 1))  # the first model is nearly as good
    >>> calibrate_loss(grade_loss(nonconformity, grades), [0.24, 0.23]).tolist()
    [0.10000000149011612, 0.20000000298023224]
    """
    if not isinstance(loss, SetLoss):
        raise TypeError(
            "loss must be a SetLoss, from grade_loss, set_loss or weighted_loss; got "
            f"{type(loss).__name__}"
        )
    if loss.start.shape[-1] * loss.step.shape[-1] > MOST_STEPS:
        raise ValueError(
            f"loss must have at most {MOST_STEPS} steps, got {loss.start.shape[-1]} queries of "
            f"{loss.step.shape[-1]} steps"
        )
    rows, num = checked_rows(loss.start, mask)
    budget, scalar = loss_budget(alpha, num, loss.bound)
    threshold = threshold_at_loss(loss, budget, rows)
    return first_threshold(threshold) if scalar else threshold
