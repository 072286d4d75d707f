r"""A pool's metrics as step functions of the threshold's rank: what `trials` and `exact` read.

Every set is a prefix of its query's models in order of nonconformity, so a metric of a set (a miss,
its size, an abstention, a cost) is a step function of the threshold. Only thresholds at a critical
score matter, so the threshold is a POSITION j in the queries sorted by critical score, and each
step of each query takes effect from one position on. The total of a metric over any subset of
queries, at any threshold, is then a sum over a prefix of the steps.

Positions run from 0 to N - 1; position N is the threshold +inf that no critical score gives (an
infeasible alpha).
"""

from collections.abc import Mapping
from typing import NamedTuple

import jax
import numpy as np
from jax.typing import ArrayLike

from racer_jax._arrays import given
from racer_jax.core.checks import as_binary, check_no_nan, check_tie_break, first_bad, is_traced
from racer_jax.core.nonconformity import TieBroken
from racer_jax.core.sort_keys import critical_places, ordered_keys

METRICS = ("risk", "size", "abstention", "avoidable_miss")


class Steps(NamedTuple):
    """One metric of every query as a step function of the threshold's position; host arrays.

    At position j the value of a query is its `start` plus its steps whose `first` is at most j.
    Those of `pool_steps` cannot be written to.

    Use this when you compute a statistic over many thresholds yourself from the metrics of a
    `Pool`; `pool_law` and `split_trials` read them for you.

    Attributes:
      start: The value of an empty set, queries by position, float64 `[N]`.
      query: The position of the query whose step this is, int32 `[K]`.
      first: The position from which it takes effect, ascending, int32 `[K]`.
      delta: Change of the value, float64 `[K]`.
      value: The value of the query after it, float64 `[K]`.
    """

    start: np.ndarray
    query: np.ndarray
    first: np.ndarray
    delta: np.ndarray
    value: np.ndarray


class Pool(NamedTuple):
    """Labelled queries in rank space.

    They are sorted once by critical score, with the steps of every metric. Arrays of the host.

    Use this when you read thresholds by position, or compute several laws or runs of trials from
    the same sorted queries.

    Attributes:
      threshold: The critical scores in order, then +inf: `[N + 1]`, or a `TieBroken` pair of that
        shape.
      order: The query at each position, int32 `[N]`.
      covered: How many queries a threshold at each position covers, int32 `[N + 1]`; they are the
        first ones.
      metrics: The `Steps` of each metric by name: `risk`, `size`, `abstention`, `avoidable_miss`,
        and those asked for.
    """

    threshold: np.ndarray | TieBroken
    order: np.ndarray
    covered: np.ndarray
    metrics: dict[str, Steps]

    @property
    def num_queries(self) -> int:
        """Number of queries, N."""
        return len(self.order)

    @property
    def distinct(self) -> bool:
        """Whether no critical scores tie and none is infinite.

        A threshold at position j then covers exactly j + 1 queries.
        """
        return bool((self.covered[:-1] == np.arange(1, len(self.covered))).all())

    def only(self, *names: str) -> "Pool":
        """The same pool with some of its metrics.

        Its trials and laws cost less; the other metrics are None there.

        Use this when you need few of the metrics, to save time and memory.

        Args:
          *names: Metrics to keep, at least one.

        Raises:
          ValueError: If the pool has no such metric, or none is named.
        """
        if not names or set(names) - set(self.metrics):
            raise ValueError(
                f"names must be some of the pool's metrics {tuple(self.metrics)}, got {names}"
            )
        return self._replace(
            metrics={name: self.metrics[name] for name in self.metrics if name in names}
        )


def _sorted_steps(values: np.ndarray, first: np.ndarray) -> Steps:
    """Steps in the order they act.

    Of values `[N, s + 1]` before and after steps that act from `first` `[N, s]` on. Steps that act
    nowhere (`first` above N) or do nothing are left out; those of a query are in ascending order.
    """
    num, num_steps = first.shape
    delta = np.diff(values, axis=1)
    acting = np.flatnonzero((first <= num) & (delta != 0))
    acting = acting[np.argsort(first.ravel()[acting], kind="stable")]
    steps = Steps(
        values[:, 0].astype(np.float64),
        (acting // num_steps).astype(np.int32),
        first.ravel()[acting].astype(np.int32),
        delta.ravel()[acting].astype(np.float64),
        values[:, 1:].ravel()[acting].astype(np.float64),
    )
    for array in steps:  # a plan that was made from them stays right
        array.flags.writeable = False
    return steps


def _table_steps(name: str, table: ArrayLike, first: np.ndarray, order: np.ndarray) -> Steps:
    """The steps of a caller's metric by number of models called; they enter at `first` `[N, m]`."""
    values = np.asarray(given(f"metrics[{name!r}]", table), np.float64)
    num, num_models = first.shape
    if values.shape != (num, num_models + 1):
        raise ValueError(
            f"metrics[{name!r}] must have shape [N, m + 1] = {(num, num_models + 1)}, a value for "
            f"each number of models called from none to all, got {values.shape}"
        )
    if (bad := ~np.isfinite(values)).any():
        raise ValueError(
            f"metrics[{name!r}] must be finite, got {values[bad][0]} at {first_bad(bad)}"
        )
    # Models that enter at one position enter together: their steps add up to the one that counts.
    return _sorted_steps(values[order], first)


def _checked(
    nonconformity: ArrayLike, correct: ArrayLike, tie_break: jax.Array | np.ndarray | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """The arrays of `pool_steps` on the host, checked."""
    if is_traced(nonconformity, correct, tie_break):
        raise TypeError("pool_steps sorts on the host and cannot be traced; call it outside jit")
    # Sorted on the host, so it never goes to a device; rounded as it would be there.
    value = np.asarray(given("nonconformity", nonconformity))
    value = value.astype(jax.dtypes.canonicalize_dtype(value.dtype), copy=False)
    check_no_nan("nonconformity", value)
    right = np.asarray(as_binary("correct", correct))
    if value.ndim != 2 or right.ndim != 2 or value.shape[1] != right.shape[1] + 1:
        raise ValueError(
            "nonconformity must have shape [N, m + 1] where correct has [N, m]: got "
            f"{value.shape} and {right.shape}; the null model is the last column"
        )
    if value.shape[0] != right.shape[0] or value.shape[0] < 1 or right.shape[1] < 1:
        raise ValueError(
            "nonconformity and correct must be of the same N >= 1 queries, with at least one "
            f"model, got {value.shape} and {right.shape}"
        )
    if tie_break is None:
        return value, right, None
    second = np.asarray(given("tie_break", tie_break))
    check_tie_break(second, value.shape)
    return value, right, second


def _until_first(group: np.ndarray, first: np.ndarray, empty: bool = False) -> Steps:
    """1 until the first model of a group is in the set, then 0.

    Args:
      group: Which models belong to it, bool `[N, s]`.
      first: Position from which each is in the set, `[N, s]`.
      empty: Whether a query whose group is empty has 1 throughout, or 0.
    """
    start = np.asarray(group.any(axis=1, keepdims=True) | empty)
    enters = np.where(group, first, len(first) + 1).min(axis=1, keepdims=True)
    values = np.concatenate([start, np.zeros_like(start)], axis=1)
    return _sorted_steps(values.astype(np.float64), enters)


def _own_metrics(right: np.ndarray, first: np.ndarray, strict_risk: bool) -> dict[str, Steps]:
    """The steps of the metrics every pool has, of queries in order of position.

    Args:
      right: Whether each real model is right, `[N, m]`.
      first: Position from which each model is in the set, `[N, m + 1]`, null model last.
      strict_risk: Whether `strict_risk` is among them.
    """
    truth = np.concatenate([right, ~right.any(axis=1, keepdims=True)], axis=1)
    real = first[:, :-1]
    number = np.broadcast_to(np.arange(first.shape[1], dtype=np.float64), first.shape)
    steps = {
        "risk": _until_first(truth, first),
        "size": _sorted_steps(number, np.sort(real, axis=1)),
        "abstention": _until_first(np.ones_like(right), real),
        "avoidable_miss": _until_first(right, real),
    }
    if strict_risk:
        steps["strict_risk"] = _until_first(right, real, empty=True)
    return steps


def pool_steps(
    nonconformity: ArrayLike,
    correct: ArrayLike,
    tie_break: jax.Array | np.ndarray | None = None,
    *,
    strict_risk: bool = False,
    metrics: Mapping[str, ArrayLike] | None = None,
) -> Pool:
    r"""Sorts a pool of labelled queries once into rank space, with the steps of every metric.

    Runs on the host, once; `split_trials` and `pool_law` read its result and nothing else.

    Use this when you split the same table many times, or with a metric of your own; for one law
    alone `split_law` calls it for you.

    Args:
      nonconformity: E(x, m) of the augmented pool, floating, `[N, m + 1]`, null model last.
      correct: Whether each real model is right, bool or 0/1, `[N, m]`.
      tie_break: Optional second keys, uint32 `[N, m + 1]`, from `tie_break`; pairs (E, U) are then
        compared lexicographically. Without them all entries equal to the threshold are inside.
      strict_risk: Whether to measure `strict_risk` too: no model that is called is right, whether
        or not any model of the pool is. It counts the avoidable misses and all unanswerable
        queries, also where the null model is in the set.
      metrics: Further metrics by name, each a table `[N, m + 1]` of a query's value by the number
        of real models called, from none to all, in order of nonconformity; models that tie enter
        together.

    Returns:
      The thresholds in order, and each metric by place among them.

    Raises:
      TypeError: If `nonconformity` is not floating, `correct` not boolean or 0/1, or `tie_break`
        not uint32.
      ValueError: If shapes do not fit, a value is NaN, there is no query, or the name of a metric
        is taken.

    >>> nonconformity = np.array([[0.0, 0.5, 0.25], [0.5, 0.0, 0.25]], np.float32)
    >>> pool = pool_steps(nonconformity, np.array([[1, 0], [1, 0]]))
    >>> pool.threshold.tolist(), pool.metrics["size"].first.tolist()
    ([0.0, 0.5, inf], [0, 0, 1, 1])
    """
    value, right, tie = _checked(nonconformity, correct, tie_break)
    num = len(value)
    keys, rows = ordered_keys(value, tie), np.arange(num)
    critical = critical_places(keys, right)
    order = np.argsort(keys[rows, critical], kind="stable")
    sorted_keys = keys[rows, critical][order]

    # A model is in the set from the first position whose critical key is not below its own.
    first = np.searchsorted(sorted_keys, keys[order].ravel()).reshape(value.shape)
    value = value[order]
    first[value == -np.inf] = 0  # always inside, whatever the tie
    first[value == np.inf] = num + 1  # never inside, whatever the threshold

    steps = _own_metrics(right[order], first, strict_risk)
    by_number = np.sort(first[:, :-1], axis=1)
    for name, table in (metrics or {}).items():
        if name in (*steps, "threshold"):
            raise ValueError(f"metrics: the name {name!r} is taken")
        steps[name] = _table_steps(name, table, by_number, order)
    at = np.append(value[rows, critical[order]], np.inf).astype(value.dtype)
    threshold: np.ndarray | TieBroken = at
    if tie is not None:
        second = np.append(tie[order, critical[order]], 0xFFFFFFFF).astype(np.uint32)
        threshold = TieBroken(at, second)  # type: ignore[arg-type]
    num_covered = np.searchsorted(steps["risk"].first, np.arange(num + 1), side="right")
    return Pool(threshold, order.astype(np.int32), num_covered.astype(np.int32), steps)
