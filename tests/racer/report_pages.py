"""A small racer and labelled queries to report on, for the tests of the report and of its page.

Sizes are few, since each one compiles.
"""

import numpy as np

from racer_jax.data import RoutingTable
from racer_jax.racer.racer import Racer

MODELS = ("small", "medium", "org/large")
ALPHAS = ("0.005", "0.05", "0.1", "0.2", "0.35", "0.5")
HOSTILE = ("</script><b>bold</b>", '<img src=x onerror="alert(1)">', "a&lt;b %{x} 'q' \u2028 \\")


def labelled(num=40, models=MODELS, *, start=0, groups=("maths", "law"), answers=True, cost=True):
    """Questions of which the scores tell something, and the scores."""
    rng = np.random.default_rng(start)
    scores = rng.random((num, len(models))).astype(np.float32)
    correct = rng.random(scores.shape) < scores
    inputs = np.where(correct, "right", rng.choice(["x", "y"], scores.shape)).astype(object)
    table = RoutingTable(
        ids=[f"q{start + i}" for i in range(num)],
        texts=[f"question {start + i}" for i in range(num)],
        models=models,
        correct=correct,
        group=None if groups is None else [groups[i % len(groups)] for i in range(num)],
        answers=inputs if answers else None,
        cost=np.tile(0.0001 * 4.0 ** np.arange(len(models)), (num, 1)) if cost else None,
    )
    return table, scores


def calibrated(
    num=60, models=MODELS, alpha="0.2", *, null="paper", by_group=True, fallback="all", **how
):
    """A racer of any scores, calibrated."""
    table, scores = labelled(num, models, **how)
    racer = Racer.from_scores(models, null=null)
    return racer.calibrate(table, alpha, scores=scores, by_group=by_group, fallback=fallback)
