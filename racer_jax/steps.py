r"""A pool's metrics as step functions of the threshold's rank: built once, read by `trials` and `exact`.

Every set is a prefix of its query's models in order of nonconformity, so a metric of a set (a miss, its size, an
abstention, a cost) is a step function of the threshold. Only thresholds at a critical score matter, so the threshold
is a POSITION j in the queries sorted by critical score, and each step of each query takes effect from one position on.
The total of a metric over any subset of queries, at any threshold, is then a sum over a prefix of the steps.

Positions run from 0 to N - 1; position N is the threshold +inf that no critical score gives (an infeasible alpha).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from racer_jax._checks import as_binary, check_no_nan, check_tie_break, first_bad, is_traced
from racer_jax.nonconformity import TieBroken

METRICS = ("risk", "size", "abstention", "avoidable_miss")
# Values that are not integers are held in this many integer limbs, see `_limbs`.
_NUM_LIMBS = 3


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Steps:
    """One metric of every query as a step function of the threshold's position.

    A query's value at position j is its `start` plus its steps among the first `upto[j]`, times `scale`. Values are
    integers, in units of `scale`; what is not a multiple of one unit is split into several limbs, most significant
    first, each worth 2**-limb_bits of the one before, so that sums are exact and do not depend on their order.

    Attributes:
      start: int32 `[l, N]`, the value in an empty set, queries by position.
      query: int32 `[K]`, the position of the query whose step this is; steps are sorted by the position they act from.
      upto: int32 `[N + 1]`, the number of steps in effect at each threshold position.
      delta: int32 `[l, K]`, the size of each step; None where each is `unit`.
      unit: +1 or -1 where every step is that; 0 otherwise.
      scale: What one unit of the first limb is worth.
      limb_bits: Width of a limb.
    """

    start: jax.Array
    query: jax.Array
    upto: jax.Array
    delta: jax.Array | None
    unit: int = field(metadata={"static": True})
    scale: float = field(default=1.0, metadata={"static": True})
    limb_bits: int = field(default=0, metadata={"static": True})


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Pool:
    """Labelled queries in rank space: sorted once by critical score, with the steps of every metric.

    Attributes:
      threshold: The critical scores in order, then +inf: `[N + 1]`, or a `TieBroken` pair of that shape.
      order: int32 `[N]`, the query at each position.
      covered: int32 `[N + 1]`, how many queries a threshold at each position covers; they are the first ones.
      metrics: The `Steps` of each metric by name: `risk`, `size`, `abstention`, `avoidable_miss` and the caller's own.
      distinct: Whether a threshold at position j covers exactly j + 1 queries: no ties and no infinite scores.
    """

    threshold: jax.Array | TieBroken
    order: jax.Array
    covered: jax.Array
    metrics: dict[str, Steps]
    distinct: bool = field(metadata={"static": True})

    @property
    def num_queries(self) -> int:
        """N."""
        return int(self.order.shape[0])


def _keys(value: np.ndarray, tie: np.ndarray | None) -> np.ndarray:
    """Unsigned integers in the lexicographic order of (value, tie)."""
    if value.dtype.itemsize <= 4:
        bits = np.where(value == 0, np.float32(0), value).astype(np.float32).view(np.uint32)
        ordered = np.where(bits >> 31 != 0, ~bits, bits | np.uint32(1 << 31))
    else:  # float64: 64 bits of value leave no room for a tie, so its rank stands for it
        ordered = np.unique(value, return_inverse=True)[1].reshape(value.shape)
    if tie is None:
        return ordered
    return (ordered.astype(np.uint64) << np.uint64(32)) | tie.astype(np.uint64)


def _steps(first: np.ndarray, query: np.ndarray, start: np.ndarray, num: int, **how: object) -> Steps:
    """Sorts steps by the position they act from; `first` above `num` never acts."""
    acting = first <= num
    first, query = first[acting], query[acting]
    by_position = np.argsort(first, kind="stable")
    upto = np.cumsum(np.bincount(first, minlength=num + 1))
    delta = how.pop("delta", None)
    if delta is not None:
        delta = jnp.asarray(np.asarray(delta)[:, acting][:, by_position], jnp.int32)
    return Steps(
        start=jnp.asarray(start, jnp.int32).reshape(-1, num),
        query=jnp.asarray(query[by_position], jnp.int32),
        upto=jnp.asarray(upto, jnp.int32),
        delta=delta,
        **how,  # type: ignore[arg-type]
    )


def _limbs(table: np.ndarray) -> tuple[np.ndarray, float, int]:
    """Integers `[l, ...]`, scale and limb width: table = scale * sum_i limbs[i] 2**(-i bits), almost exactly.

    A limb is narrow enough that the sum over every step fits in int32. Integers that fit need a single limb and are
    exact; other values are rounded to 2**-(l bits) of the largest.
    """
    largest = float(np.abs(table).max(initial=0.0))
    bits = 30 - int(np.ceil(np.log2(max(table.size, 2))))
    if (table == np.rint(table)).all() and largest < 2.0**bits:
        return table.astype(np.int64)[None], 1.0, 0
    if bits < 1:
        raise ValueError(f"metrics: a table of {table.size} values is too large for exact sums")
    scale = 2.0 ** (int(np.floor(np.log2(largest))) + 1 - bits)
    rest, limbs = table / scale, []
    for i in range(_NUM_LIMBS):
        limb = np.rint(rest) if i == _NUM_LIMBS - 1 else np.trunc(rest)
        limbs.append(limb.astype(np.int64))
        rest = (rest - limb) * 2.0**bits
    return np.stack(limbs), scale, bits


def _table_steps(name: str, table: ArrayLike, first: np.ndarray, order: np.ndarray) -> Steps:
    """The steps of a caller's metric, given by the number of models called."""
    values = np.asarray(table, np.float64)
    num, num_models = first.shape
    if values.shape != (num, num_models + 1):
        raise ValueError(
            f"metrics[{name!r}] must have shape [n, m + 1] = {(num, num_models + 1)}, a value for each number of "
            f"models called from 0 to m, got {values.shape}"
        )
    if (bad := ~np.isfinite(values)).any():
        raise ValueError(f"metrics[{name!r}] must be finite, got {values[bad][0]} at {first_bad(bad)}")
    limbs, scale, bits = _limbs(values[order])
    # Models that enter at one position enter together: all but the last of them add up to nothing by then.
    entering = np.sort(first, axis=1).ravel()
    query = np.repeat(np.arange(num), num_models)
    delta = np.diff(limbs, axis=-1).reshape(len(limbs), -1)
    return _steps(entering, query, limbs[..., 0], num, delta=delta, unit=0, scale=scale, limb_bits=bits)


def pool_steps(
    nonconformity: ArrayLike,
    correct: ArrayLike,
    tie_break: jax.Array | None = None,
    *,
    metrics: Mapping[str, ArrayLike] | None = None,
) -> Pool:
    r"""Sorts a pool of labelled queries once into rank space, with the steps of every metric.

    Runs on the host, once; `split_trials` and `split_law` read its result and nothing else.

    Args:
      nonconformity: E(x, m) of the augmented pool, floating, `[N, m + 1]`, null model last.
      correct: Whether each real model is right, bool or 0/1, `[N, m]`.
      tie_break: Optional second keys, uint32 `[N, m + 1]`, from `tie_break`; pairs (E, U) are then compared
        lexicographically. Without them all entries equal to the threshold are inside.
      metrics: Further metrics by name, each a table `[N, m + 1]` of a query's value by the number of real models
        called, from none to all, in order of nonconformity; models that tie enter together.

    Returns:
      The `Pool`.

    Raises:
      TypeError: If `nonconformity` is not floating, `correct` not boolean or 0/1, or `tie_break` not uint32.
      ValueError: If shapes do not fit, a value is NaN, there is no query, or the name of a metric is taken.

    >>> pool = pool_steps(jnp.array([[0.0, 0.5, 0.25], [0.5, 0.0, 0.25]]), jnp.array([[1, 0], [1, 0]]))
    >>> pool.threshold.tolist(), pool.metrics["size"].upto.tolist()
    ([0.0, 0.5, inf], [2, 4, 4])
    """
    nonconformity = jnp.asarray(nonconformity)
    check_no_nan("nonconformity", nonconformity)
    correct = as_binary("correct", correct)
    if is_traced(nonconformity, correct, tie_break):
        raise TypeError("pool_steps sorts on the host and cannot be traced; call it outside jit")
    if nonconformity.ndim != 2 or correct.ndim != 2 or nonconformity.shape[1] != correct.shape[1] + 1:
        raise ValueError(
            f"nonconformity must have shape [N, m + 1] where correct has [N, m]: got {nonconformity.shape} and "
            f"{correct.shape}; the null model is the last column"
        )
    if nonconformity.shape[0] != correct.shape[0] or nonconformity.shape[0] < 1 or correct.shape[1] < 1:
        raise ValueError(f"there must be the same N >= 1 of both, got {nonconformity.shape} and {correct.shape}")
    if tie_break is not None:
        tie_break = jnp.asarray(tie_break)
        check_tie_break(tie_break, nonconformity.shape)
    value = np.asarray(nonconformity)
    right = np.asarray(correct)
    num, num_models = right.shape
    truth = np.concatenate([right, ~right.any(axis=1, keepdims=True)], axis=1)

    keys = _keys(value, None if tie_break is None else np.asarray(tie_break))
    rows = np.arange(num)
    critical = np.where(truth, keys, np.iinfo(keys.dtype).max).argmin(axis=1)
    order = np.argsort(keys[rows, critical], kind="stable")
    sorted_keys = keys[rows, critical][order]

    # A model is in the set from the first position whose critical key is not below its own.
    first = np.searchsorted(sorted_keys, keys[order].ravel()).reshape(num, num_models + 1)
    value, right, truth = value[order], right[order], truth[order]
    first[value == -np.inf] = 0  # always inside, whatever the tie
    first[value == np.inf] = num + 1  # never inside
    never = num + 1

    def lost(group: np.ndarray, which: np.ndarray, start: np.ndarray) -> Steps:
        """The metric 1 until the first model of a group is in the set, then 0."""
        until = np.where(group, which, never).min(axis=1)
        return _steps(np.where(start, until, never), rows, start, num, unit=-1)

    ones = np.ones(num, bool)
    real = first[:, :-1]
    steps = {
        "risk": lost(truth, first, ones),
        "size": _steps(real.ravel(), np.repeat(rows, num_models), np.zeros(num), num, unit=1),
        "abstention": lost(np.ones_like(right), real, ones),
        "avoidable_miss": lost(right, real, np.asarray(right.any(axis=1))),
    }
    for name, table in (metrics or {}).items():
        if name in (*METRICS, "threshold"):
            raise ValueError(f"metrics: the name {name!r} is taken")
        steps[name] = _table_steps(name, table, real, order)
    covered = np.asarray(steps["risk"].upto)
    at = jnp.asarray(np.append(value[rows, critical[order]], np.inf), nonconformity.dtype)
    threshold: jax.Array | TieBroken = at
    if tie_break is not None:
        tie = np.asarray(tie_break)[order, critical[order]]
        threshold = TieBroken(at, jnp.asarray(np.append(tie, 0xFFFFFFFF), jnp.uint32))
    return Pool(
        threshold=threshold,
        order=jnp.asarray(order, jnp.int32),
        covered=jnp.asarray(covered, jnp.int32),
        metrics=steps,
        distinct=bool((covered[:-1] == rows + 1).all()),
    )
