"""Votes whose weights tie and whose mean scores differ in their last binary digits, or not at all."""

import numpy as np
import pytest

from racer_jax import reference
from racer_jax.core.aggregation import prefix_answers

NUM, MODELS = 36, 5
TEMPERATURES = (0.5, np.inf)


@pytest.mark.long
def test_every_prefix_is_the_exact_vote_down_to_the_last_digit():
    rng = np.random.default_rng(0)
    order = np.argsort(rng.random((NUM, MODELS)), axis=1)
    answers = rng.integers(-1, 3, (NUM, MODELS))
    # A quarter or an eighth, and some units of 2**-26: numbers of more digits than one limb holds.
    base = rng.choice([0.25, 0.125, 0.0, 1.0], (NUM, MODELS), p=[0.5, 0.3, 0.1, 0.1])
    last = rng.integers(0, 3, (NUM, MODELS)) * 2.0**-26
    scores = np.minimum(base + last, 1).astype(np.float32)
    weights = (rng.integers(0, 2, (NUM, MODELS)) / 2).astype(np.float32)
    table = np.asarray(
        prefix_answers(order, answers, scores, weights, np.array(TEMPERATURES, np.float32)[:, None])
    )
    for t, temperature in enumerate(TEMPERATURES):
        for i in range(NUM):
            row = (order[i], answers[i], scores[i], weights[i])
            expected = reference.prefix_answers(*(x.tolist() for x in row), temperature)
            assert table[t, i].tolist() == expected
