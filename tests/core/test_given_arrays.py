"""Arrays with a mask, and arrays in the byte order of another machine, wherever one can be given."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from racer_jax import Racer, RoutingTable, core, montecarlo, risk_control
from racer_jax.batch import sharded
from racer_jax.core.losses import grade_loss, loss_at
from racer_jax.orders.coverage_gain import check_cost, check_weights
from racer_jax.racer.scoring import check_given_scores
from racer_jax.routers import KNNR, Scores
from racer_jax.routers.base import check_embeddings
from racer_jax.serving import ExchangeabilityMonitor
from tests.parameters import few_by_default

RNG = np.random.default_rng(0)
N, M = 40, 3
SCORES = RNG.random((N, M)).astype(np.float32)
CORRECT = (RNG.random((N, M)) < 0.6).astype(np.int32)
NONCONFORMITY = np.asarray(core.gap(SCORES), np.float32)
CRITICAL = np.array(core.critical_scores(NONCONFORMITY, CORRECT), np.float32)
CRITICAL[~np.isfinite(CRITICAL)] = 1.0
ANSWERS = RNG.integers(-1, 3, (N, M))
SETS = RNG.random((N, M + 1)) < 0.5
TIES = RNG.integers(0, 1 << 32, (N, M + 1), np.uint32)
KEYS = core.entry_keys(NONCONFORMITY, TIES)
KEY, HALVES = jax.random.key(0), {"num_calibration": 20, "num_queries": N}
LOSS = grade_loss(NONCONFORMITY, SCORES)


def table(**columns):
    """A table with these columns."""
    columns = {"correct": CORRECT} | columns
    ids = [str(i) for i in range(N)]
    return RoutingTable(ids=ids, texts=ids, models=["a", "b", "c"], **columns)


def voted_at(temperature):
    """Votes at these temperatures."""
    return core.weighted_vote(SETS, ANSWERS, SCORES, SCORES, temperature)


def decided(encode=lambda texts: SCORES[: len(texts)], router=lambda rows: SCORES[: len(rows)]):
    """What a racer of these parts, which are a caller's own, gives for the queries of the table."""
    return Racer.from_router(encode, router, ["a", "b", "c"]).score(table()).scores


# The argument, one for it that fits, and the call with it alone left open.
CALLS = [
    ("critical_scores", CRITICAL, lambda x: core.calibrate(x, "0.2")),
    ("mask", np.ones(N, np.int32) > 0, lambda x: core.calibrate(CRITICAL, "0.2", x)),
    ("weights", np.ones(N, np.float32), lambda x: core.calibrate(CRITICAL, "0.2", weights=x)),
    ("alpha", np.array([0.1, 0.2]), lambda x: core.calibrate(CRITICAL, x)),
    ("nonconformity", NONCONFORMITY, lambda x: core.critical_scores(x, CORRECT)),
    ("correct", CORRECT, lambda x: core.critical_scores(NONCONFORMITY, x)),
    ("nonconformity", NONCONFORMITY, lambda x: core.prediction_sets(x, 0.5)),
    ("threshold", np.full(N, 0.5, np.float32), lambda x: core.prediction_sets(NONCONFORMITY, x)),
    ("scores", SCORES, core.gap),
    ("scores", SCORES, core.inverse_probability),
    ("sets", SETS, lambda x: core.misrouted(x, CORRECT)),
    ("correct", CORRECT, lambda x: core.misrouted(SETS, x)),
    ("sets", SETS, core.set_size),
    ("answers", ANSWERS, lambda x: core.majority_vote(SETS, x, SCORES)),
    ("scores", SCORES, lambda x: core.majority_vote(SETS, ANSWERS, x)),
    ("weights", SCORES, lambda x: core.weighted_vote(SETS, ANSWERS, SCORES, x, 0.5)),
    ("grades", SCORES, lambda x: grade_loss(NONCONFORMITY, x)),
    ("critical_scores", CRITICAL, lambda x: risk_control.calibrate_weighted(x, np.ones(N), "0.2")),
    ("weights", np.ones(N), lambda x: risk_control.calibrate_weighted(CRITICAL, x, "0.2")),
    ("critical_scores", CRITICAL, lambda x: risk_control.group_scores(x, None)),
    ("calibration", SCORES, lambda x: risk_control.estimate_density_ratio(x, SCORES)),
    ("nonconformity", NONCONFORMITY, lambda x: montecarlo.pool_steps(x, CORRECT)),
    ("correct", CORRECT, lambda x: montecarlo.pool_steps(NONCONFORMITY, x)),
    ("scores", SCORES, lambda x: check_given_scores(x, M)),
    ("embeddings", SCORES, lambda x: check_embeddings("embeddings", x)),
    ("embeddings", SCORES, lambda x: KNNR.fit(x, CORRECT, k=3)),
    ("correct", CORRECT, lambda x: KNNR.fit(SCORES, x, k=3)),
    ("weights", np.full((2, 4), 0.25, np.float32), lambda x: check_weights(x, 4)),
    ("cost", np.ones(3, np.float32), lambda x: check_cost(x, 3)),
    ("correct", CORRECT, lambda x: table(correct=x)),
    ("rows", np.arange(5), lambda x: table().select(x)),
    ("critical scores", CRITICAL, sharded.count_buckets),
    ("critical_scores", CRITICAL, lambda x: core.threshold_at_rank(x, np.array([3, 9]))),
    ("rank", np.array([3, 9]), lambda x: core.threshold_at_rank(CRITICAL, x)),
    ("critical_scores", CRITICAL, lambda x: core.threshold_at_budget(x, [3, 9])),
    ("budget", np.array([3, 9]), lambda x: core.threshold_at_budget(CRITICAL, x)),
    ("value", NONCONFORMITY, lambda x: core.ordered_keys(x, None)),
    ("tie", TIES, lambda x: core.ordered_keys(NONCONFORMITY, x)),
    ("nonconformity", NONCONFORMITY, lambda x: core.entry_keys(x, None)),
    ("keys", KEYS, lambda x: core.critical_keys(x, CORRECT > 0)),
    ("correct", CORRECT > 0, lambda x: core.critical_keys(KEYS, x)),
    ("temperature", np.full((2, 1), 0.5, np.float32), voted_at),
    ("threshold", np.full(N, 0.5, np.float32), lambda x: loss_at(LOSS, x)),
    ("groups", np.arange(N) % 2, lambda x: risk_control.group_scores(CRITICAL, x)),
    ("groups", np.arange(N) % 2, lambda x: risk_control.group_codes(x, [0, 1])),
    ("groups", np.arange(N) % 2, lambda x: risk_control.calibrate_loss_by_group(LOSS, x, "0.5")),
    ("trials", np.arange(3), lambda x: montecarlo.split_masks(KEY, x, **HALVES)),
    ("values", SCORES, lambda x: Scores(x, ["a", "b", "c"]).values),
    ("reference", np.arange(20.0), lambda x: ExchangeabilityMonitor.over(x).edges),
    ("the encoder's embeddings", SCORES, lambda x: decided(encode=lambda texts: x[: len(texts)])),
    ("the router's scores", SCORES, lambda x: decided(router=lambda rows: x[: len(rows)])),
]
IDS = [f"{number}-{name}" for number, (name, _, _) in enumerate(CALLS)]


@pytest.mark.parametrize(("name", "array", "call"), few_by_default(CALLS, 8), ids=IDS)
def test_another_byte_order_gives_the_same(name, array, call):
    if array.dtype == bool:
        pytest.skip("a byte has no order")
    expected, other = call(array), call(array.astype(array.dtype.newbyteorder()))
    leaves, others = (
        [leaf for leaf in jax.tree.leaves(result) if isinstance(leaf, jax.Array | np.ndarray)]
        for result in (expected, other)
    )
    assert len(leaves) == len(others)
    for leaf, same in zip(leaves, others, strict=True):
        assert leaf.dtype == same.dtype
        np.testing.assert_array_equal(leaf, same)


@pytest.mark.parametrize(("name", "array", "call"), few_by_default(CALLS, 8), ids=IDS)
def test_a_masked_array_is_refused_and_the_first_masked_entry_named(name, array, call):
    mask = np.zeros(array.shape, bool)
    mask[1:] = True
    first = [1] + [0] * (array.ndim - 1)
    message = "must not be null" if name == "critical scores" else f"lacks .*first at \\{first}:"
    with pytest.raises(ValueError, match=f"{name} .*{message}"):
        call(np.ma.array(array, mask=mask))


@pytest.mark.parametrize(("name", "array", "call"), few_by_default(CALLS, 8), ids=IDS)
def test_a_mask_that_hides_nothing_is_no_mask(name, array, call):
    call(np.ma.array(array, mask=False))


def test_where_a_table_may_lack_a_value_a_mask_says_so():
    mask = np.zeros((N, M), bool)
    mask[0, 1] = True
    cost = table(cost=np.ma.array(np.ones((N, M)), mask=mask)).cost
    assert np.isnan(cost[0, 1])
    assert np.nansum(cost) == N * M - 1
    answers = table(answers=np.ma.array(np.full((N, M), "x", object), mask=mask)).answers
    assert answers[0, 1] is None
    assert answers[1, 1] == "x"


def test_arrays_of_jax_and_lists_pass_as_they_are():
    assert core.calibrate(jnp.asarray(CRITICAL), "0.2") == core.calibrate(CRITICAL.tolist(), "0.2")
