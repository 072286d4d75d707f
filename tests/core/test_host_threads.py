"""BLAS on one thread for small fits: what it changes, and that it is put back."""

import numpy as np
import pytest
from threadpoolctl import threadpool_info, threadpool_limits

from racer_jax.core.host_threads import one_blas_thread
from racer_jax.sequential import policy, weights


def blas_threads() -> set[int]:
    return {pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"}


def test_one_thread_within_and_as_before_after():
    with threadpool_limits(2, "blas"):
        before = blas_threads()
        with one_blas_thread():
            assert blas_threads() <= {1}
        assert blas_threads() == before
        with pytest.raises(KeyError), one_blas_thread():
            raise KeyError
        assert blas_threads() == before


@pytest.mark.parametrize("fit", [policy.fit_policy, weights.fit_vote_weights])
def test_the_fits_of_a_cascade_run_so(fit, monkeypatch):
    seen: list[set[int]] = []

    class Stop(Exception):
        pass

    def look(*_: object, **__: object) -> None:
        seen.append(blas_threads())
        raise Stop

    monkeypatch.setattr(policy, "check_training", look)
    monkeypatch.setattr(weights, "starting_weights", look)
    codes = np.zeros((4, 2), int)
    with threadpool_limits(2, "blas"), pytest.raises(Stop):
        fit(*(("key", "table") if fit is policy.fit_policy else (codes, codes == 0)))
    assert seen
    assert all(threads <= {1} for threads in seen)
