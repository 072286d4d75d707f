"""Sets of at least and at most some models, made on the host."""

from math import inf

import numpy as np

from racer_jax.core.sort_keys import entry_keys


def limited(
    nonconformity: np.ndarray, ties: np.ndarray | None, most: int | None, least: int = 0
) -> np.ndarray:
    """Nonconformity `[n, m + 1]` under which a set holds some models at least and at most.

    On the host. The first real models have -inf and those from the cap on +inf, as of
    `racer_jax.risk_control.costs.call_at_least` and `cap_models`; the null model keeps its own.

    Use this when sets hold at least or at most some models, at calibration and at routing alike.
    """
    num_models = nonconformity.shape[1] - 1
    if least == 0 and (most is None or most >= num_models):
        return nonconformity
    keys = entry_keys(nonconformity, ties)[:, :-1]
    order = np.argsort(keys, axis=1, kind="stable")
    result = nonconformity.copy()
    if most is not None:
        np.put_along_axis(result, order[:, most:], np.float32(inf), axis=1)
    np.put_along_axis(result, order[:, :least], np.float32(-inf), axis=1)
    return result
