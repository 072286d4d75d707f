r"""The order of the calls.

A search over orders by weight, cost and accuracy, on training rows alone.
"""

from collections.abc import Callable, Iterator

import numpy as np

_TINY = 1e-12
_MOVED = 5
_ROUNDS = 3
_GAIN = 0.005
_NUM_THRESHOLDS = 60
LEVELS = (0.005, 0.01, 0.02, 0.03)
Order = tuple[int, ...]


def candidate_orders(
    weights: np.ndarray, accuracy: np.ndarray, cost: np.ndarray | None
) -> list[Order]:
    """Orders by weight, accuracy, cost and mixtures of them, without repeats.

    Use this when an order is searched for.

    Args:
      weights: Vote weight of each model, `[m]`.
      accuracy: Its share of right answers, `[m]`.
      cost: Its mean dollars a call, `[m]`; None where they are not known.

    Returns:
      Permutations of the models, the best first by weight.
    """
    keys = [-weights, -accuracy]
    if cost is not None:
        price = np.maximum(cost, _TINY)
        price = price / price.mean()
        keys += [-weights / price**power for power in (0.1, 0.2, 0.3, 0.5, 1.0)]
        keys += [price]
        keys += [(1 - accuracy) * price**power for power in (0.15, 0.3, 0.5, 1.0)]
        keys += [-accuracy / price**power for power in (0.1, 0.25)]
    # Of equal keys the more accurate model first, then the order of the pool.
    place = np.arange(len(weights))
    orders = [tuple(np.lexsort((place, -accuracy, key)).tolist()) for key in keys]
    return list(dict.fromkeys(orders))


def cut_after(order: Order, last: int | None) -> Order:
    """The order up to and with the model whose answer is the reference; all of it where None.

    Use this when calls after the reference's answer cannot change it.
    """
    return order if last is None else order[: order.index(last) + 1]


def _moves(order: Order, last: int | None) -> Iterator[Order]:
    """The order with one of its first models moved to the end of the calls."""
    for place in range(min(_MOVED, len(order))):
        model = order[place]
        if model != last:
            yield (*order[:place], *order[place + 1 :], model)


def search(
    candidates: list[Order], objective: Callable[[Order], float], last: int | None
) -> tuple[Order, float]:
    """The best candidate, then improved by moving one of its first models to the end.

    Use this when the candidates leave something to gain.

    Args:
      candidates: From `candidate_orders`.
      objective: What an order costs, lower is better.
      last: The model after whose call the path ends, None where it ends with the pool.

    Returns:
      The order of the calls and its objective.
    """
    values: dict[Order, float] = {}

    def value(order: Order) -> float:
        calls = cut_after(order, last)
        if calls not in values:
            values[calls] = objective(calls)
        return values[calls]

    best = min(candidates, key=value)
    for _ in range(_ROUNDS):
        neighbour = min(_moves(best, last), key=value, default=best)
        if value(neighbour) >= value(best) * (1 - _GAIN):
            break
        best = neighbour
    return cut_after(best, last), value(best)


def mean_cost_at(
    scores: np.ndarray, losses: np.ndarray, cost: np.ndarray, levels: tuple[float, ...]
) -> float:
    """The least mean cost at thresholds with a mean loss of at most h, averaged over levels h.

    Use this when two orders are compared by what they cost at equal loss.

    Args:
      scores: Stopping scores, `[n, b]`, the last one +inf.
      losses: Loss of stopping, bool `[n, b]`.
      cost: Cost of the first calls up to and with each, `[n, b]`.
      levels: The levels h.
    """
    finite = scores[np.isfinite(scores)]
    thresholds = np.array([np.inf, -np.inf])
    if len(finite):
        shares = np.linspace(0, 1, _NUM_THRESHOLDS)
        thresholds = np.concatenate([thresholds, np.quantile(finite, shares, method="lower")])
    safe = (scores[None] > thresholds[:, None, None]) | (scores[None] == np.inf)
    stop = safe.argmax(axis=2)
    row = np.arange(len(scores))
    loss = losses[row, stop].mean(axis=1)
    mean_cost = cost[row, stop].mean(axis=1)
    return float(np.mean([mean_cost[loss <= level].min(initial=np.inf) for level in levels]))


def mean_cost_when_safe(scores: np.ndarray, cost: np.ndarray) -> float:
    """The mean cost of stopping only where that cannot lose, at a score of +inf.

    Use this when two orders are compared for a policy that is never calibrated.

    Args:
      scores: Stopping scores, `[n, b]`, the last one +inf.
      cost: Cost of the first calls up to and with each, `[n, b]`.
    """
    stop = (scores == np.inf).argmax(axis=1)
    return float(cost[np.arange(len(scores)), stop].mean())
