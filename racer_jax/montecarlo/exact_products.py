"""Sums of products that come out the same on every device."""

import numpy as np


# Why: whether a compiler rounds a product before it adds it depends on the processor, and on what
# else is in the loop. Where each product with a count is exact, all of them have the same sums.
def exact_parts(value: float, num: int) -> tuple[float, ...]:
    """Summands of a float32 whose products with counts of up to `num` are exact in float32.

    Use this when weighted counts are summed, and every compiler shall find the same sum.

    >>> exact_parts(0.5, 8_000), len(exact_parts(0.1, 8_000))
    ((0.5,), 3)
    """
    few = 2.0 ** max(1, 24 - num.bit_length())
    with np.errstate(over="ignore"):
        rest, parts = float(np.float32(value)), []
    if not np.isfinite(rest):
        return (rest,)
    while rest:
        unit = 2.0 ** (np.frexp(rest)[1]) / few
        parts.append(float(np.trunc(rest / unit) * unit))
        rest -= parts[-1]
    return tuple(parts) or (0.0,)
