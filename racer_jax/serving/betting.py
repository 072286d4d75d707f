"""The bets of the monitors: what they pay, and the reserve that they are given slowly.

Everything here is a fair bet or a loss under the hypothesis it is made against, for any state: the
mean of the wealth after a query, reserve included, is at most the wealth before it.
"""

from collections.abc import Iterable, Sequence
from functools import lru_cache
from math import exp, fsum, log, log1p, log2
from typing import Any

import numpy as np

# The bets of the risk monitor: against each of these multiples of alpha as the true risk.
RISK_RATIOS = (1.2, 1.5, 2.0, 3.0, 5.0)
# The bets of the exchangeability monitor: on ranks below, in the midst of and above uniform ones.
DRIFTS = (-1.0, -1 / 3, 0.0, 1 / 3, 1.0)
# Share of the wealth of each of these bets that is spread over all of them at every query.
_JUMP = 1e-3
# Wealth kept in reserve at the start, for changes that come later.
RESERVE = 0.5


def bets(alpha: float) -> tuple[np.ndarray, np.ndarray]:
    """What each bet pays for a miss and for a hit, `[k]`: fair where the risk is alpha.

    Where the risk is below alpha, the bets lose. A bet on risk p > alpha pays the likelihood ratio:
    p / alpha for a miss, (1 - p) / (1 - alpha) for a hit.

    Use this when you write a monitor of your own.
    """
    highest = min((1 + 3 * alpha) / 4, float(np.nextafter(1, 0)))
    risks = np.minimum(alpha * np.array(RISK_RATIOS), highest)
    return risks / alpha, (1 - risks) / (1 - alpha)


def reserve(num: Any) -> Any:
    """Wealth still in reserve after `num` queries; it goes to the bets slowly, never all of it.

    Use this when you write a monitor of your own.
    """
    return RESERVE / (1 + np.log2(1 + np.asarray(num, float)))


def log_released(num: int) -> float:
    """Logarithm of reserve(num) - reserve(num + 1), without cancellation at large `num`.

    Use this when you need what the reserve gives at one query.
    """
    growth = log1p(1 / (num + 1)) / log(2)
    return log(RESERVE * growth) - log1p(log2(num + 1)) - log1p(log2(num + 2))


def log_sum(logs: Iterable[float]) -> float:
    """log(sum(exp(logs))) of finite logarithms.

    Use this when numbers are too large or too small for sums of themselves.
    """
    logs = tuple(logs)
    largest = max(logs)
    return largest + log(fsum(exp(value - largest) for value in logs))


def log_total(log_held: Sequence[float], num: int) -> float:
    """Logarithm of all wealth after `num` queries: that of the bets and the reserve.

    Use this when the evidence of a monitor is read.
    """
    return log_sum((*log_held, log(float(reserve(num)))))


@lru_cache(maxsize=64)
def log_bets(alpha: float) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """The logarithms of `bets`. Use this when a monitor keeps its wealth as logarithms."""
    paid_miss, paid_hit = bets(alpha)
    return tuple(np.log(paid_miss).tolist()), tuple(np.log(paid_hit).tolist())


def tie_break(seed: int, num: int) -> float:
    """The number in [0, 1) that ranks query `num` among those of its bin.

    Use this when numbers fall into the same bin.
    """
    return float(np.random.default_rng((seed, num)).random())


def log_capital_after(log_capital: Sequence[float], num: int, rank: float) -> tuple[float, ...]:
    """The bets on drift after query `num + 1` had this rank: jump, take from the reserve, be paid.

    A bet e pays 1 + e (rank - 1/2), whose mean over uniform ranks is 1; jumping moves wealth and
    makes none.

    Use this when a monitor counts one more number.
    """
    share = log(len(log_capital))
    spread = (
        log(_JUMP) + log_sum(log_capital) - share,
        log_released(num) - share,
    )
    return tuple(
        log_sum((log1p(-_JUMP) + value, *spread)) + log1p(drift * (rank - 0.5))
        for value, drift in zip(log_capital, DRIFTS, strict=True)
    )
