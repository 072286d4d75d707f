"""Hypothesis strategies.

Small routing problems with many ties, as k-nearest-neighbour routers make them.
"""

import numpy as np
from hypothesis import strategies as st

ALPHAS = st.integers(1, 99).map(lambda i: i / 100)
NULLS = st.sampled_from(["paper", "free", "never"])


@st.composite
def problems(draw):
    """Scores on a coarse grid, float32 [n, m], and correct, bool [n, m].

    Few shapes, since each one compiles.
    """
    n, m = draw(st.sampled_from([(1, 1), (1, 3), (2, 3), (23, 3)]))
    levels = draw(st.sampled_from([1, 2, 4, 64]))
    grid = draw(st.lists(st.integers(0, levels), min_size=n * m, max_size=n * m))
    right = draw(st.lists(st.booleans(), min_size=n * m, max_size=n * m))
    return np.array(grid, np.float32).reshape(n, m) / levels, np.array(right).reshape(n, m)
