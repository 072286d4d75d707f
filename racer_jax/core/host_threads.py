"""How many threads linear algebra on the host takes.

The L-BFGS-B of SciPy and matrices of some tens of rows call BLAS thousands of times for problems of
microseconds. OpenBLAS shares some of these among all cores, and its threads then wait for each
other longer than they compute: a fit of vote weights takes up to ten times the processor time.
"""

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """BLAS of NumPy and SciPy on one thread, as long as the block runs.

    JAX has threads of its own and is not touched. Sums are then in one order, whatever the number
    of cores.

    Use this when a small problem is solved on the host in many steps.
    """
    from threadpoolctl import threadpool_limits  # looks for the libraries that are loaded

    with threadpool_limits(1, user_api="blas"):
        yield
