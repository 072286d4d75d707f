r"""Losses of a set as step functions of the threshold: any loss in [0, B] that a larger set lowers.

The sets of a query grow with the threshold, model by model in order of nonconformity. So a loss
that does not grow with the set is a falling step function of the threshold, with a step where a
model enters: 1 - the best grade among the called models, the cost of a wrong answer, the share of
relevant models that were left out. A `SetLoss` holds the steps; `calibrate_loss` finds the
threshold among them, without a grid.

Losses are whole numbers of ticks, 5,040,000 of them being the bound B. Sums of ticks are exact in
any order, so that whether a sum is within its budget is never a matter of rounding. The number is a
multiple of 1,000 and of 1 to 10: decimals of three digits and the usual fractions are exact.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import partial
from typing import Any, Literal, TypeAlias, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from racer_jax._arrays import given
from racer_jax.core.checks import (
    as_array,
    check_native,
    check_no_nan,
    check_tie_break,
    first_bad,
    is_traced,
    nan_as_inf,
    on_device,
    on_host,
)
from racer_jax.core.loss_steps import TICKS as TICKS
from racer_jax.core.loss_steps import (
    falls,
    full_of,
    grade_steps,
    in_order,
    in_units_of,
    lost_at,
    lost_at_one,
    sets_by_size,
    weighted_steps,
)
from racer_jax.core.nonconformity import TieBroken
from racer_jax.core.padding import by_rows, can_pad, placed_like
from racer_jax.core.placement import on_any_mesh
from racer_jax.core.risk_levels import exact_number

Against = Literal["perfect", "pool"]
AGAINST: tuple[str, ...] = get_args(Against)
LossFunction: TypeAlias = Callable[[jax.Array], ArrayLike]


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["start", "step", "drop", "model", "tie"],
    meta_fields=["bound"],
)
@dataclass(frozen=True, eq=False)
class SetLoss:
    """The loss of each query as a step function of the threshold.

    The loss at a threshold is `start` minus the `drop` of every step at or below it, in ticks of
    the bound / 5,040,000. A tree of arrays: it passes `jit` and `vmap`, and axes before `n` are a
    batch.

    Use this when you calibrate a loss other than the 0/1 miss: `grade_loss`, `set_loss` and
    `weighted_loss` make one, `calibrate_loss` and `loss_at` take it.

    Attributes:
      start: Loss of the empty set, ticks, int32 `[..., n]`.
      step: Threshold of each step, floating `[..., n, s]`, in order of entry.
      drop: How much the loss falls there, ticks, at least 0, int32 `[..., n, s]`.
      model: The column of the model that enters, the null model's being the last, int32
        `[..., n, s]`.
      tie: Second keys of the steps, uint32 `[..., n, s]`; None where ties are not broken.
      bound: B, the largest loss there can be, as an exact number.
    """

    start: jax.Array
    step: jax.Array
    drop: jax.Array
    model: jax.Array
    tie: jax.Array | None
    bound: Fraction

    @property
    def num_queries(self) -> int:
        """Number of queries."""
        return self.start.shape[-1]

    @property
    def full(self) -> jax.Array:
        """Loss of the set of every model, float32 `[..., n]`: no threshold brings it lower."""
        return _full(self)

    @property
    def largest_drop(self) -> jax.Array:
        """The largest drop at one step, float32 `[]`: what the lower bound of the mean knows."""
        if can_pad(self.drop):
            return self.in_units(placed_like(on_host(self.drop).max(), self.drop))
        return self.in_units(self.drop.max())

    def in_units(self, ticks: jax.Array) -> jax.Array:
        """Ticks as a loss, float32. Use this when ticks are shown to people."""
        loss: jax.Array = in_units_of(ticks, self.bound)
        return loss

    def rows(self, index: Any) -> "SetLoss":
        """The losses of some of the queries, by an index into their axis.

        Use this when a pool of `[n]` queries is split into parts.
        """
        if can_pad(index, *jax.tree.leaves(self)):  # on the host, where nothing is compiled
            index = on_host(index) if isinstance(index, jax.Array) else index
            here: SetLoss = jax.tree.map(
                lambda array: placed_like(on_host(array)[index], array), self
            )
            return here
        part: SetLoss = jax.tree.map(lambda array: array[index], self)
        return part


@on_any_mesh
def _full(loss: SetLoss) -> jax.Array:
    """The loss of the set of every model."""
    function = partial(full_of, bound=loss.bound)
    least: jax.Array = by_rows(function, loss.step, loss.drop, vectors=(loss.start,))
    return least


def _check_range(name: str, values: jax.Array, bound: Fraction) -> None:
    """Refuses numbers outside [0, bound], where there are numbers to look at."""
    check_no_nan(name, values)
    if is_traced(values):
        return
    known = on_host(values).astype(np.float64, copy=False)
    if (bad := (known < 0) | (known > float(bound) * (1 + 1e-6))).any():
        raise ValueError(
            f"{name} must be in [0, {bound}], got {known[bad][0]:g} at {first_bad(bad)}"
        )


def _as_floats(name: str, array: Any) -> jax.Array:
    """An array as floats: 0/1 labels are losses too."""
    check_native(name, array)
    values = array if isinstance(array, jax.Array) else on_device(np.asarray(given(name, array)))
    whole = values.dtype == bool or jnp.issubdtype(values.dtype, jnp.integer)
    return values.astype(jnp.float32) if whole else values


def _entries(
    nonconformity: ArrayLike, tie_break: jax.Array | None
) -> tuple[jax.Array, jax.Array | None]:
    """Nonconformity `[..., m + 1]` and its second keys, checked."""
    entries = as_array("nonconformity", nonconformity)
    check_no_nan("nonconformity", entries)
    if entries.ndim < 2 or entries.shape[-1] < 2 or entries.shape[-2] < 1:
        raise ValueError(
            "nonconformity must have shape [..., n, m + 1] with n, m >= 1, null model last, got "
            f"{entries.shape}"
        )
    entries = nan_as_inf(entries)
    if tie_break is None:
        return entries, None
    check_tie_break(tie_break, entries.shape)
    return entries, tie_break


@on_any_mesh
def grade_loss(
    nonconformity: ArrayLike,
    grades: ArrayLike,
    tie_break: jax.Array | None = None,
    *,
    against: Against = "perfect",
    highest: float | str = 1,
) -> SetLoss:
    r"""What the best answer of the set lacks: `highest` - the best grade among its models.

    The null model stands for "no model will do" (Eq. 2 of the paper): its grade is `highest` where
    the grade of every model is 0, else 0. With grades of 0 and 1 the loss is the miss of Eq. 5, and
    `calibrate_loss` gives the threshold of `calibrate`, bit for bit.

    Args:
      nonconformity: E(x, m) of the augmented pool, floating `[..., n, m + 1]`, null model last.
      grades: How good each model's answer is, in [0, highest], `[..., n, m]`.
      tie_break: Optional second keys, uint32 `[..., n, m + 1]`, from `tie_break`.
      against: What the best called grade is compared with: a `"perfect"` answer, or the best of the
        `"pool"`, so that calling every model loses nothing and every alpha can be reached.
      highest: The best grade there is, above 0; it is the bound of the loss.

    Returns:
      The loss of each query, step by step. Under `jit`, where values cannot be refused, a query
      with a grade that is NaN or out of range loses `highest` whatever is called.

    Raises:
      TypeError: If an array is not numeric.
      ValueError: If shapes do not fit, a value is NaN, a grade is out of range, or an option is
        unknown.

    Use this when answers have grades instead of being right or wrong.

    >>> grades = [[0.5, 1.0], [0.0, 0.0]]
    >>> loss = grade_loss([[0.1, 0.3, 0.6], [0.2, 0.1, 0.4]], grades)
    >>> [loss_at(loss, threshold).tolist() for threshold in (0.1, 0.3, 0.4)]
    [[0.5, 1.0], [0.0, 1.0], [0.0, 0.0]]
    """
    entries, tie = _entries(nonconformity, tie_break)
    bound, values = exact_number("highest", highest), _as_floats("grades", grades)
    if against not in AGAINST:
        raise ValueError(f"against must be one of {AGAINST}, got {against!r}")
    _check_range("grades", values, bound)
    if values.shape != (*entries.shape[:-1], entries.shape[-1] - 1):
        raise ValueError(
            "grades must have shape [..., n, m] where nonconformity has [..., n, m + 1], got "
            f"{values.shape} and {entries.shape}"
        )
    if is_traced(values):  # not a grade: as if no model had one, and none were in any set
        highest_float = float(bound) * (1 + 1e-6)
        wide = values.astype(jnp.float32)
        is_graded = ((wide >= 0) & (wide <= highest_float)).all(axis=-1, keepdims=True)
        values = jnp.where(is_graded, values, 0)
        entries = jnp.where(is_graded, entries, jnp.inf)
    function = partial(grade_steps, bound=bound, against=against)
    start, step, drop, model, *second = by_rows(function, entries, tie, values)
    return SetLoss(start, step, drop, model, second[0] if second else None, bound)


@on_any_mesh
def set_loss(
    loss: LossFunction,
    nonconformity: ArrayLike,
    tie_break: jax.Array | None = None,
    *,
    bound: float | str = 1,
) -> SetLoss:
    r"""A loss of your own, from a function of sets.

    Args:
      loss: Takes sets, bool `[..., n, m + 1]`, null model last, and returns the loss of each query,
        `[..., n]`, in [0, bound]. It is called once, with the m + 2 sets of each query from the
        empty one to all models, `[m + 2, n, m + 1]`, and a larger set must not have more loss.
      nonconformity: E(x, m) of the augmented pool, floating `[n, m + 1]`, null model last. A model
        with E = +inf is in no set.
      tie_break: Optional second keys, uint32 `[n, m + 1]`, from `tie_break`.
      bound: B, the largest loss there can be, above 0.

    Returns:
      The loss of each query, step by step. Under `jit`, where values cannot be refused, one that is
      NaN or out of range counts as the bound, and one that grows as the largest value to come.

    Raises:
      TypeError: If an array is not numeric.
      ValueError: If shapes do not fit, a loss is NaN or outside [0, bound], or it grows with the
        set.

    Use this when neither a miss nor a grade says what a wrong set costs.

    >>> relevant = jnp.array([[1, 1, 0], [0, 1, 0]], bool)
    >>> share_left_out = lambda sets: (relevant[None] & ~sets).sum(-1) / relevant.sum(-1)[None]
    >>> loss = set_loss(share_left_out, [[0.1, 0.3, 0.6], [0.2, 0.1, 0.4]])
    >>> loss_at(loss, 0.1).tolist()
    [0.5, 0.0]
    """
    entries, tie = _entries(nonconformity, tie_break)
    if entries.ndim != 2:
        raise ValueError(
            f"nonconformity must have shape [n, m + 1], got {entries.shape}; for a batch of pools "
            "use jax.vmap"
        )
    limit = exact_number("bound", bound)
    step, second, order = by_rows(in_order, entries, tie)
    if can_pad(entries, order):  # on the host, where nothing is compiled
        sets = placed_like(sets_by_size(np, on_host(entries), on_host(order)), entries)
    else:
        sets = sets_by_size(jnp, entries, order)
    values = _as_floats("loss", loss(sets))
    if values.shape != sets.shape[:-1]:
        raise ValueError(
            f"loss must return {list(sets.shape[:-1])} for sets {list(sets.shape)}, got "
            f"{list(values.shape)}"
        )
    _check_range("loss", values, limit)
    of_each = placed_like(on_host(values).T, values) if can_pad(values) else values.T
    is_envelope = is_traced(of_each)  # one that grows cannot be refused
    start, drop = by_rows(partial(falls, bound=limit, is_envelope=is_envelope), of_each)
    if not is_traced(drop) and (bad := on_host(drop) < 0).any():
        row, size = (int(i) for i in np.argwhere(bad)[0])
        raise ValueError(
            f"loss must not grow with the set, got {float(values[size, row]):g} for {size} and "
            f"{float(values[size + 1, row]):g} for {size + 1} models of query {row}"
        )
    return SetLoss(start, step, drop, order, second, limit)


@on_any_mesh
def weighted_loss(loss: SetLoss, weights: ArrayLike, most: float | str) -> SetLoss:
    """The loss of each query times its weight, such as what a wrong answer to it costs.

    Args:
      loss: The loss of each query.
      weights: A weight for each, `[..., n]`, in [0, most]. It is part of the loss: those of queries
        to come are weighted too, so the weight must be known of every query.
      most: The largest weight there can be, above 0; the bound of the product is `most` times that
        of the loss.

    Returns:
      The `SetLoss`, whose mean is that of weight times loss. Under `jit`, where values cannot be
      refused, a weight that is NaN or out of range counts as `most`.

    Raises:
      TypeError: If the weights are not numeric.
      ValueError: If they have another shape, or one is NaN or out of range.

    Use this when some queries matter more than others; where their law changes, use
    `calibrate_weighted`.

    >>> loss = grade_loss([[0.1, 0.3, 0.6]] * 2, [[0, 1], [1, 0]])
    >>> loss_at(weighted_loss(loss, [2.5, 10.0], 10), 0.0).tolist()
    [2.5, 10.0]
    """
    limit, values = exact_number("most", most), _as_floats("weights", weights)
    _check_range("weights", values, limit)
    if values.shape != loss.start.shape:
        raise ValueError(
            f"weights must have the shape of the queries {loss.start.shape}, got {values.shape}"
        )
    function = partial(weighted_steps, most=limit)
    start, drop = by_rows(function, loss.drop, vectors=(loss.start, values))
    return replace(loss, start=start, drop=drop, bound=limit * loss.bound)


@on_any_mesh
def loss_at(loss: SetLoss, threshold: ArrayLike | TieBroken) -> jax.Array:
    """The loss of each query at a threshold.

    Args:
      loss: The loss of each query.
      threshold: A threshold `[]`, or one for each query, as `calibrate_loss` returns them; a
        `TieBroken` pair where, and only where, the loss has a tie-break.

    Returns:
      float32 `[..., n]`.

    Raises:
      ValueError: If only one of the two is tie-broken.

    Use this when you measure what a threshold does on labelled queries.
    """
    if isinstance(threshold, TieBroken) != (loss.tie is not None):
        raise ValueError(
            "threshold and loss go together: both with a tie-break, or both without one"
        )
    pair = threshold if isinstance(threshold, TieBroken) else (threshold,)
    limits = tuple(on_device(given("threshold", part)) for part in pair)
    function = partial(lost_at, bound=loss.bound)
    vectors: tuple[jax.Array, ...] = (loss.start,)
    shared: tuple[jax.Array, ...] = ()
    if limits[0].ndim == 1:  # one for each query
        vectors += limits
    else:
        function, shared = partial(lost_at_one, bound=loss.bound), limits
    lost: jax.Array = by_rows(function, loss.step, loss.drop, loss.tie, *shared, vectors=vectors)
    return lost
