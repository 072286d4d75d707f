"""Strategies: ways to answer queries, what each got right, and how two of them compare."""

from typing import NamedTuple

import numpy as np

# Names of the ways of answering that do not depend on a router.
BEST_SINGLE = "best single model, with hindsight"
PICKED_SINGLE = "best single model on validation"
STATIC_TOP = "top-3 by training accuracy, majority"
ORACLE = "oracle: any model right"


class Strategy(NamedTuple):
    """One way of answering the queries of a benchmark.

    Use this when you write a strategy of your own.

    Attributes:
      kind: What it is: `single`, `router`, `racer`, `ensemble` or `bound`.
      right: Whether each query is answered rightly (a share, where chance decides), `[n]` or by
        split `[s, n]`.
      calls: Models called for each query, the same shapes.
      cost: Dollars for each query, the same shapes; None where costs are not known.
    """

    kind: str
    right: np.ndarray
    calls: np.ndarray
    cost: np.ndarray | None


class StrategyMetrics(NamedTuple):
    """One way of answering on the test parts of all splits.

    Use this when you read how one way of answering did, split by split.

    Attributes:
      kind: As in `Strategy`.
      accuracy: Test accuracy of each split, `[s]`.
      calls: Mean models called, `[s]`.
      cost: Mean dollars a query, `[s]`; None where not known.
      by_query: Share of its test appearances that each query was answered rightly, `[n]`; NaN where
        it was in no test part.
    """

    kind: str
    accuracy: np.ndarray
    calls: np.ndarray
    cost: np.ndarray | None
    by_query: np.ndarray

    @property
    def mean(self) -> float:
        """Mean accuracy over splits."""
        return float(self.accuracy.mean())


def measure(strategy: Strategy, in_test: np.ndarray) -> StrategyMetrics:
    """One strategy on the test part of every split.

    Use this when a strategy is measured.

    Args:
      strategy: What it does with each query.
      in_test: 1 where a query is in the test part of a split, float32 `[s, n]`.

    Returns:
      What it got right, what it called and what that cost.
    """
    size = in_test.sum(axis=1)

    def mean(values: np.ndarray) -> np.ndarray:
        values = np.asarray(values, np.float32)
        total = in_test @ values if values.ndim == 1 else np.einsum("sn,sn->s", in_test, values)
        return np.asarray(total / size, np.float64)

    right = (in_test * np.asarray(strategy.right, np.float32)).sum(axis=0, dtype=np.float64)
    cost = None if strategy.cost is None else mean(strategy.cost)
    return StrategyMetrics(strategy.kind, mean(strategy.right), mean(strategy.calls), cost, right)


class Votes(NamedTuple):
    """All ways of answering with one pool of models on one benchmark.

    Use this when you read what `vote_study` returns.

    Attributes:
      name: Of the benchmark and the pool.
      models: Names of the models, `[m]`.
      num_queries: Queries that were in a test part.
      alphas: Risk levels to choose from, `[a]`.
      weightings: Names of the aggregations, temperatures of one weighting together, `[w]`.
      strategies: Name -> what it did; `racer_name` names a RACER variant.
      choices: Router and score -> share of the splits that chose each alpha and weighting,
        `[a, w]`.
      notes: What a reader should know, one sentence each.
    """

    name: str
    models: tuple[str, ...]
    num_queries: int
    alphas: tuple[str, ...]
    weightings: tuple[str, ...]
    strategies: dict[str, StrategyMetrics]
    choices: dict[str, np.ndarray]
    notes: tuple[str, ...]

    @property
    def routers(self) -> list[str]:
        """The routers, by name."""
        return list(dict.fromkeys(label.partition(" + ")[0] for label in self.choices))


class Difference(NamedTuple):
    """A paired difference of accuracies.

    Use this when you read how two ways of answering compare.

    Attributes:
      mean: Mean over splits.
      error: Its standard error over questions: how much it would change with other questions of
        this kind.
      split_error: Its standard error over splits alone: how much it would change with other splits
        of these questions.
    """

    mean: float
    error: float
    split_error: float


def difference(one: StrategyMetrics, other: StrategyMetrics) -> Difference:
    """How much more accurate one way is than another, on the same test parts.

    Use this when two strategies are compared on the same splits.
    """
    by_split, by_query = one.accuracy - other.accuracy, one.by_query - other.by_query
    by_query = by_query[~np.isnan(by_query)]

    def error(values: np.ndarray) -> float:
        return float(values.std(ddof=1) / np.sqrt(len(values))) if len(values) > 1 else float("nan")

    return Difference(float(by_split.mean()), error(by_query), error(by_split))


def racer_name(router: str, score: str, alpha: str | None = None) -> str:
    """Name of a RACER variant: alpha chosen on validation, or fixed.

    Use this when you look up a RACER variant in `Votes.strategies`.
    """
    return f"{router} + {score}" + ("" if alpha is None else f", alpha {alpha}")


def full_name(router: str, weighted: bool = True) -> str:
    """Name of the full ensemble: it too breaks ties, and may weigh, by the router's scores.

    Use this when you look up the full ensemble in `Votes.strategies`.
    """
    return f"{router}: all models, {'tuned vote' if weighted else 'majority'}"


def pooled_name(router: str) -> str:
    """Name of the full ensemble whose vote the calibration part helped to choose.

    Use this when you look up that ensemble in `Votes.strategies`.
    """
    return f"{router}: all models, pooled vote"


def top_name(router: str, k: int) -> str:
    """Name of the fixed top-k by router score under majority.

    Use this when you look up a top-k router in `Votes.strategies`.
    """
    return f"{router}: top-{k}, majority"


def single_name(model: str) -> str:
    """Name of the way of always asking one model.

    Use this when you look up a single model in `Votes.strategies`.
    """
    return f"single: {model}"


def saved(strategy: StrategyMetrics, full: StrategyMetrics) -> float:
    """Share of the model calls of the full ensemble that a way saves.

    Use this when a table shows what a strategy saves.
    """
    return 1 - float(strategy.calls.mean() / full.calls.mean())


def dollars(strategy: StrategyMetrics) -> float | None:
    """Mean dollars for a thousand queries; None where not known.

    Use this when a table shows what a strategy costs.
    """
    return None if strategy.cost is None else 1000 * float(strategy.cost.mean())


def points(change: Difference) -> str:
    """A paired difference in points of accuracy, with its standard error over questions.

    Use this when a table shows a difference.

    >>> points(Difference(0.0184, 0.006, 0.0004))
    '+1.8 ± 0.6'
    """
    return f"{100 * change.mean:+z.1f} ± {100 * change.error:.1f}"
