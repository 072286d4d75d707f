"""Comparing scores on one pool: paired errors over queries, and sizes at equal service.

All scores of a pool are calibrated and measured on the same queries, so their sizes differ by far
less than each varies from one sample of queries to another. The bootstrap resamples queries, the
same for every score.
"""

from collections.abc import Mapping, Sequence

import jax
import numpy as np

from racer_jax._arrays import given
from racer_jax.core.keys import check_key
from racer_jax.core.risk_levels import Alpha, exact_alphas
from racer_jax.montecarlo.step_functions import Pool


def bootstrap_sizes(
    key: jax.Array, pools: Mapping[str, Pool], alpha: Alpha, num: int
) -> dict[str, np.ndarray]:
    """Mean set sizes on resampled queries, each resample calibrated anew.

    The threshold of a resample is its own (1 - alpha) quantile. Use this when scores are to be
    compared on one pool: differences vary far less than the sizes themselves.

    Args:
      key: A typed PRNG key.
      pools: Score -> the pool of the SAME queries under it, from `pool_steps`.
      alpha: Risk level or levels in (0, 1).
      num: Number of resamples.

    Returns:
      Score -> float64 `[num, a]`; row i is of the same resample for every score.

    Raises:
      TypeError: If an alpha is not numeric.
      ValueError: If the pools differ in their number of queries, an alpha is out of range, or `num`
        is below 2.
    """
    check_key(key)
    if num < 2:
        raise ValueError(f"num must be at least 2 resamples, got {num}")
    sizes = {pool.num_queries for pool in pools.values()}
    if len(sizes) != 1:
        raise ValueError(f"pools must hold the same queries, got {sorted(sizes)} of them")
    size = sizes.pop()
    rng = np.random.default_rng(np.asarray(jax.random.key_data(key)))
    counts = rng.multinomial(size, np.full(size, 1 / size), size=num)
    fractions, _ = exact_alphas(alpha)
    ranks = np.array(
        [size - fraction.numerator * size // fraction.denominator for fraction in fractions]
    )
    return {
        name: np.stack([_sizes(pool, count, ranks) for count in counts])
        for name, pool in pools.items()
    }


def _sizes(pool: Pool, count: np.ndarray, ranks: np.ndarray) -> np.ndarray:
    """Mean size where each query stands `count` times.

    At the first threshold that covers `ranks` of them, `[a]`.
    """
    num = pool.num_queries
    weight = count[np.asarray(pool.order)]
    position = np.searchsorted(np.cumsum(weight), ranks)
    finite = int(np.asarray(pool.covered)[-1])  # queries from here on have a critical score of +inf
    position = np.where(position < finite, position, num)
    steps = pool.metrics["size"]
    running = np.concatenate([[0], np.cumsum(weight[steps.query])])
    return np.asarray(running[np.searchsorted(steps.first, position, side="right")] / num)


def at_equal_service(
    avoidable_miss: Sequence[float], size: Sequence[float], targets: Sequence[float]
) -> np.ndarray:
    """Sizes at given avoidable-miss rates, between the risk levels that were measured.

    Use this when null modes are to be compared. It is the one comparison that is fair to them: a
    null
    model that covers unanswerable queries lowers the risk without answering a query.

    Args:
      avoidable_miss: Avoidable-miss rate at each risk level, nondecreasing, `[a]`.
      size: Mean set size at each, `[a]`.
      targets: Rates wanted, `[t]`.

    Returns:
      float64 `[t]`, linear between neighbours; NaN outside what was measured.

    Raises:
      ValueError: If the two differ in length or are empty.

    >>> at_equal_service([0.0, 0.1], [4.0, 2.0], [0.05, 0.2]).tolist()
    [3.0, nan]
    """
    rate = np.asarray(given("avoidable_miss", avoidable_miss), float)
    sizes = np.asarray(given("size", size), float)
    if rate.shape != sizes.shape or rate.ndim != 1 or not len(rate):
        raise ValueError(
            f"avoidable_miss and size must have one shape [a], got {rate.shape} and {sizes.shape}"
        )
    return np.asarray(np.interp(targets, rate, sizes, left=np.nan, right=np.nan))
