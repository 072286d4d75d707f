"""Exact bounds of a proportion (Clopper and Pearson 1934)."""

from racer_jax.core.scalar_checks import check_chance, check_count


def _check_successes(successes: int, n: int) -> None:
    check_count("successes", successes, 0)
    check_count("n", n, 0)
    if successes > n:
        raise ValueError(f"successes must be at most n = {n}, got {successes}")


def clopper_pearson_upper(successes: int, n: int, delta: float) -> float:
    """Upper bound of a proportion that holds with probability 1 - delta: the exact one.

    Args:
      successes: Number of successes, 0 to `n`; of misses, where the risk is bounded.
      n: Number of trials.
      delta: Chance that the proportion is above the bound, in (0, 1).

    Returns:
      The bound; 1 where every trial is a success.

    Raises:
      TypeError: If an argument is of the wrong kind.
      ValueError: If one is out of range.

    References:
      Clopper and Pearson 1934: the bound is a quantile of a Beta law.

    Use this when only too large a proportion would do harm, as a risk.

    >>> round(clopper_pearson_upper(0, 10, 0.05), 4)
    0.2589
    """
    from scipy.special import betainccinv  # takes a fifth of a second to import

    _check_successes(successes, n)
    delta = check_chance("delta", delta)
    if successes == n:
        return 1.0
    # Of the complement, since 1 - delta would lose a small delta.
    return float(betainccinv(successes + 1, n - successes, delta))
