"""A small routing problem: which model is right depends on the query."""

import numpy as np
import pytest


@pytest.fixture(scope="session")
def problem() -> tuple[np.ndarray, np.ndarray]:
    """Embeddings [320, 8] and correct [320, 3].

    No single model is right on more than about half of the queries.
    """
    rng = np.random.default_rng(0)
    x = rng.normal(size=(320, 8)).astype(np.float32)
    logits = 4 * x[:, :3] - 1
    return x, rng.random((320, 3)) < 1 / (1 + np.exp(-logits))
