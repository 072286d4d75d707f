"""Invented pools with answers.

Models of unequal skill that are wrong together where a query is hard.
"""

from functools import cache

import numpy as np

from racer_jax.data.table import RoutingTable

SKILL = (0.62, 0.82, 0.72, 0.76, 0.66)


@cache
def answered_table(num: int = 300, seed: int = 0, *, groups: bool = False) -> RoutingTable:
    """Rows with letters A to D as answers, some missing, and costs by model."""
    rng = np.random.default_rng(seed)
    hard = rng.normal(size=num)
    skill = np.log(np.array(SKILL) / (1 - np.array(SKILL)))
    right = rng.random((num, 5)) < 1 / (1 + np.exp(-(skill - 0.8 * hard[:, None])))
    gold = rng.integers(0, 4, num)
    # Wrong answers agree more often than chance: each query has a tempting one.
    tempting = (gold + rng.integers(1, 4, num)) % 4
    other = (gold[:, None] + rng.integers(1, 4, (num, 5))) % 4
    wrong = np.where(rng.random((num, 5)) < 0.6, tempting[:, None], other)
    letter = np.array(list("ABCD"), object)[np.where(right, gold[:, None], wrong)]
    silent = rng.random((num, 5)) < 0.04
    letter[silent] = None
    price = np.array([1.0, 8.0, 3.0, 4.0, 0.5]) / 1000
    names = [f"q{seed}-{i}" for i in range(num)]
    return RoutingTable(
        ids=names,
        texts=[f"question {name}?" for name in names],
        models=["small", "large", "middle", "wide", "tiny"],
        correct=right & ~silent,
        answers=letter,
        cost=price * rng.uniform(0.5, 1.5, (num, 5)),
        group=[("easy", "hard")[int(x > 0)] for x in hard] if groups else None,
    )
