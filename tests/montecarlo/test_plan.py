"""Plans and streams at the borders of their integers, blocks and chunks."""

from fractions import Fraction

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from racer_jax import gap, miss_budget
from racer_jax.montecarlo import plan, trials
from racer_jax.montecarlo.exact import pool_law
from racer_jax.montecarlo.exact_products import exact_parts
from racer_jax.montecarlo.packed_bits import BLOCK
from racer_jax.montecarlo.replay import split_parts
from racer_jax.montecarlo.split_design import split_design
from racer_jax.montecarlo.step_functions import Steps, pool_steps
from racer_jax.montecarlo.summaries import Accumulator
from racer_jax.montecarlo.trials import split_trials

ALPHAS = [0.02, 0.2, 0.5]


def tied_pool(size, tables=None):
    """A pool of which almost every critical score ties with others.

    On either side of any border.
    """
    rng = np.random.default_rng(size)
    scores = (rng.random((size, 2)) * 2).round().astype(np.float32) / 2
    return pool_steps(gap(scores), rng.random((size, 2)) < 0.5, metrics=tables)


def plainly(pool, part, misses, name):
    """A metric of one split at one budget, by adding up steps."""
    positions = np.flatnonzero(part[pool.order] == 0)
    rank = len(positions) - misses
    at = positions[rank - 1] if rank <= len(positions) else pool.num_queries
    steps = pool.metrics[name]
    value = steps.start.copy()
    acting = steps.first <= at
    np.add.at(value, steps.query[acting], steps.delta[acting])
    return value[part[pool.order] == 2].mean()


# Words have 32 bits and blocks 256; a plane has room for one entry more than it has queries.
@pytest.mark.parametrize(
    "size",
    [
        pytest.param(256, marks=pytest.mark.long),
        *(pytest.param(n, marks=pytest.mark.slow) for n in (31, 32, 33, 128, 129, 255, 257)),
    ],
)
def test_pools_at_the_borders_of_words_and_blocks(size):
    pool = tied_pool(size)
    num = size // 2
    got = split_trials(jax.random.key(1), pool, num_calibration=num, alpha=ALPHAS, num_trials=5)
    parts = split_parts(jax.random.key(1), np.arange(5), pool, num_calibration=num)
    for name in ("risk", "size", "abstention", "avoidable_miss"):
        for s in range(5):
            for a, misses in enumerate(miss_budget(ALPHAS, num)):
                expected = plainly(pool, parts[s], int(misses), name)
                assert getattr(got, name)[s, a] == pytest.approx(expected, abs=1e-6)


@pytest.mark.long
def test_whole_totals_beyond_32_bits():
    """A count of tokens, whose total is no int32: its mean is that of the steps."""
    size, num = 400, 200
    tokens = np.cumsum(np.random.default_rng(0).integers(2**21, 2**23, (size, 3)), axis=1)
    pool = tied_pool(size, {"tokens": tokens}).only("tokens")
    assert tokens[:, -1].sum() // 2 > 2**31
    got = split_trials(jax.random.key(2), pool, num_calibration=num, alpha=ALPHAS, num_trials=4)
    parts = split_parts(jax.random.key(2), np.arange(4), pool, num_calibration=num)
    for s in range(4):
        for a, misses in enumerate(miss_budget(ALPHAS, num)):
            expected = plainly(pool, parts[s], int(misses), "tokens")
            assert got.extra["tokens"][s, a] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(("most", "whole"), [(2**30 - 1, True), (2**30, False)])
def test_totals_are_integers_as_long_as_they_fit(most, whole):
    planes = [(1.0, np.zeros(3), np.zeros(3)), (-float((most - 5) // 1), np.zeros(1), np.zeros(1))]
    assert plan._is_whole(1.0, planes, 2) is whole
    assert not plan._is_whole(0.5, planes[:1], 2)


@given(
    value=st.floats(-1e6, 1e6, width=32),
    num=st.sampled_from([1, 2, 100, 8_000, 2**20, 2**23 - 1]),
    share=st.floats(0, 1),
)
def test_products_with_counts_are_exact(value, num, share):
    parts = exact_parts(value, num)
    assert sum(map(Fraction, parts)) == Fraction(value)
    count = int(share * num)
    for part in parts:
        assert Fraction(float(np.float32(count) * np.float32(part))) == count * Fraction(part)


def test_steps_of_queries_that_are_not_there_are_refused():
    pool = tied_pool(40)
    steps = pool.metrics["size"]
    design = split_design(pool.order, num_calibration=20)
    for query in (-1, 40):
        wrong = steps._replace(query=np.where(np.arange(len(steps.query)) == 3, query, steps.query))
        with pytest.raises(ValueError, match=r"steps of 'size' must name .*, 0 to 39, got"):
            plan.plan_parts(
                pool._replace(metrics={"size": wrong}), design, design.budgets(ALPHAS), True
            )


def test_few_parts_stand_for_a_price():
    assert exact_parts(0.0, 8_000) == (0.0,)
    assert exact_parts(1e39, 8_000) == (np.inf,)  # beyond float32
    assert exact_parts(-1e39, 8_000) == (-np.inf,)
    assert exact_parts(-(2.0**-20), 8_000) == (-(2.0**-20),)
    assert len(exact_parts(0.3, 8_000)) == 3  # 11 bits of 24 at a time
    assert len(exact_parts(0.1, 1)) == 2


@pytest.mark.long
def test_the_risk_alone_is_measured_where_it_needs_no_counting():
    rng = np.random.default_rng(3)
    scores = rng.random((90, 2)).astype(np.float32)
    pool = pool_steps(np.pad(1 - scores, ((0, 0), (0, 1))), np.ones((90, 2), bool)).only("risk")
    assert pool.distinct
    got = split_trials(jax.random.key(0), pool, num_calibration=40, alpha=ALPHAS, num_trials=6)
    parts = split_parts(jax.random.key(0), np.arange(6), pool, num_calibration=40)
    for s in range(6):
        for a, misses in enumerate(miss_budget(ALPHAS, 40)):
            expected = plainly(pool, parts[s], int(misses), "risk")
            assert got.risk[s, a] == pytest.approx(expected, abs=1e-6)


def test_a_tile_is_no_larger_than_an_index_reaches(monkeypatch):
    pool = tied_pool(40)
    design = split_design(pool.order, num_calibration=20)
    actual, _ = plan.trial_plan(pool, design, design.budgets(ALPHAS), means=True)
    blocks, places = actual.planes.order.row.shape[2], actual.planes.order.row.shape[0]
    assert plan.most_lanes(actual) == (2**31 - 1) // (blocks * places)
    monkeypatch.setattr(plan, "_MOST_INDEX", blocks * places)
    assert plan.most_lanes(actual) == 1
    monkeypatch.setattr(plan, "_MOST_INDEX", blocks * places - 1)
    with pytest.raises(ValueError, match=r"fewer than 2\*\*31 bytes"):
        plan.most_lanes(actual)
    with pytest.raises(ValueError, match=rf"2\*\*31 steps in all, got {BLOCK * blocks}"):
        plan.trial_plan(tied_pool(40), design, design.budgets(ALPHAS), means=True)


@pytest.mark.parametrize("num_trials", [1, 2, 511, 512, 513, 1024, 1025])
@pytest.mark.parametrize("chunk_size", [1, 2, 256, 511, 512, 513])
@pytest.mark.parametrize("done", [0, 1, 512])
def test_chunks_cover_every_trial_once(num_trials, chunk_size, done):
    first = max(512, chunk_size)
    spans = trials._spans(min(done, num_trials), num_trials, chunk_size, first)
    covered = [trial for first, num in spans for trial in range(first, first + num)]
    assert covered == list(range(min(done, num_trials), num_trials))
    if not done:
        assert spans[0][1] == min(max(chunk_size, 512), num_trials)
    assert all(num <= chunk_size for _, num in spans[not done :])


@pytest.mark.parametrize("chunk", [1, 7, 64])
def test_squares_of_whole_totals_are_summed_exactly(chunk):
    """Their sum passes 2**63, and is the same however the stream is cut."""
    totals = np.random.default_rng(0).integers(-(2**30), 2**30, (2, 64), dtype=np.int32)
    sums = Accumulator.start(totals[:, :2], 1.0, 4)
    for first in range(0, 64, chunk):
        sums.add(totals[:, first : first + chunk])
    exact = [[int(x) for x in row] for row in totals]
    assert sum(x * x for x in exact[0]) > 2**63
    for row, spread in zip(exact, sums.summary().std, strict=True):
        squares = 64 * sum(x * x for x in row) - sum(row) ** 2
        assert spread == pytest.approx((squares / (64 * 63)) ** 0.5, rel=1e-14)


def test_budgets_stand_for_levels():
    pool = tied_pool(60)
    budgets = miss_budget(ALPHAS, 30)
    assert budgets.min() == -1
    by_level = pool_law(pool, num_calibration=30, alpha=ALPHAS)
    by_budget = pool_law(pool, num_calibration=30, budget=budgets)
    np.testing.assert_array_equal(by_level.risk_mean, by_budget.risk_mean)
    np.testing.assert_array_equal(by_level.risk_probability, by_budget.risk_probability)
    design = split_design(pool.order, num_calibration=30)
    np.testing.assert_array_equal(design.budgets(None, budgets), design.budgets(ALPHAS))
    assert design.budgets(None, 3).tolist() == [[3]]
    for how, error, message in [
        ({}, TypeError, "one of alpha and budget must be given, got neither"),
        ({"alpha": 0.1, "budget": 2}, TypeError, "got both"),
        ({"budget": 30}, ValueError, "budget must be from -1 to n - 1 = 29, got 30"),
        ({"budget": -2}, ValueError, "got -2"),
    ]:
        with pytest.raises(error, match=message):
            pool_law(pool, num_calibration=30, **how)
        with pytest.raises(error, match=message):
            split_trials(jax.random.key(0), pool, num_calibration=30, num_trials=2, **how)
    rows = split_design(
        pool.order, num_calibration=5, question=np.arange(60) // 4 * (np.arange(60) > 8)
    )
    assert rows.budgets([0.1, 0.3]).shape == (2, rows.most - rows.least + 1)
    with pytest.raises(ValueError, match="budget needs a fixed number of calibration rows"):
        rows.budgets(None, 2)


def test_trials_are_numbered_below_two_to_the_32():
    trials._check_trials(1, 2**32 - 1)
    with pytest.raises(ValueError, match=r"below 2\*\*32"):
        trials._check_trials(2, 2**32 - 1)


@pytest.mark.parametrize("num_steps", [255, 256, 257])
def test_a_plane_has_room_for_the_end_of_its_last_prefix(num_steps):
    """A prefix of all steps ends where the next entry would be.

    It must be an entry of the plane.
    """
    size = 400
    query = np.arange(1, num_steps + 1)
    steps = Steps(np.zeros(size), query, query, np.ones(num_steps), np.ones(num_steps))
    pool = tied_pool(size)._replace(metrics={"one": steps})
    design = split_design(pool.order, num_calibration=100)
    planes = plan.trial_plan(pool, design, design.budgets(ALPHAS), means=True)[0].planes
    assert planes.entry.max() == num_steps
    assert planes.order.row.shape[2] * BLOCK > num_steps


def values_of_plan(made, shape, size):
    """Metrics of each query at each position `[N + 1, N]` by name, as the planes count them."""
    num_words = len(made.draw.calibration.valid)
    byte, word = np.divmod(made.planes.order.row, num_words)
    bit = np.log2(np.maximum(made.planes.order.mask, 1)).astype(int)
    query = (32 * word + 8 * byte + bit).transpose(2, 0, 1).ravel()
    values = {}
    for metric in shape.metrics:
        values[metric.name] = np.full((size + 1, size), sum(metric.base))
        for plane, weight in zip(metric.planes, metric.weights, strict=True):
            for at, end in enumerate(made.planes.entry[plane]):
                counted = query[made.planes.begin[plane] : end]
                np.add.at(values[metric.name][at], counted, weight)
    return values


@pytest.mark.parametrize("kind", ["distinct", "models tie", "all below the first", "gap", "tokens"])
def test_what_two_metrics_count_is_counted_once(kind):
    size, rng = 60, np.random.default_rng(11)
    correct = rng.random((size, 3)) < 0.4
    scores = rng.random((size, 3)).astype(np.float32)
    if kind == "models tie":
        scores[:, 1] = scores[:, 0]
    if kind == "all below the first":
        scores[:9] += 1
        correct[:9] = False
    nonconformity = np.pad(1 - scores, ((0, 0), (0, 1)), constant_values=2)
    pool = pool_steps(gap(scores) if kind == "gap" else nonconformity, correct, strict_risk=True)
    if kind == "tokens":
        tokens = np.cumsum(np.arange(1, size + 1)[:, None] % np.arange(2, 6), axis=1)
        pool = pool_steps(nonconformity, correct, strict_risk=True, metrics={"tokens": tokens})
    design = split_design(pool.order, num_calibration=30)
    made, shape = plan.trial_plan(pool, design, design.budgets(ALPHAS), means=True)
    values = values_of_plan(made, shape, size)
    for name, steps in pool.metrics.items():
        if name == "risk" and shape.distinct:
            continue
        for at in range(size + 1):
            expected = steps.start.copy()
            acting = steps.first <= at
            np.add.at(expected, steps.query[acting], steps.delta[acting])
            np.testing.assert_array_equal(values[name][at], expected)
    planes = {metric.name: set(metric.planes) for metric in shape.metrics}
    assert planes["strict_risk"] <= planes["avoidable_miss"]
    if kind not in ("gap", "tokens"):
        assert planes["abstention"] < planes["size"]
    ends = made.planes.entry.max(axis=1) - made.planes.begin
    assert ends.sum() < sum(len(steps.query) for steps in pool.metrics.values())


def test_entries_are_taken_out_as_often_as_they_are_there():
    def entries(*keys):
        return plan._Entries(*(np.array(keys, np.int64),) * 3)

    left = plan._without(entries(1, 1, 2, 5, 5, 5, 9), entries(1, 5, 5))
    assert left.key.tolist() == [1, 2, 5, 9]
    assert plan._without(entries(1, 2, 5), entries(1, 1)) is None
    assert plan._without(entries(1, 2, 5), entries(5, 5)) is None
    assert plan._without(entries(1, 2, 5), entries(3)) is None
    assert plan._without(entries(1, 2), entries(1, 2, 2)) is None
    assert plan._without(entries(1, 2), entries(1, 2)).key.size == 0


def test_steps_in_another_order_are_no_one_elses():
    """Those of a pool that was made by hand may have any order of the queries."""
    query, first = np.array([3, 1, 2]), np.array([1, 1, 2])
    unordered = plan._Entries(query, first, first * 10 + query)
    ordered = plan._Entries(*(array[[1, 0, 2]] for array in unordered))
    assert plan._shared([unordered, ordered]) == [[unordered], [ordered]]


@pytest.mark.parametrize(
    ("num", "first", "message"),
    [
        (0, 0, "num_trials must be at least 1, got 0"),
        (1, -1, "first_trial must be at least 0, got -1"),
        (1, 2**32, r"trials are numbered below 2\*\*32"),
        (2, 2**32 - 1, r"trials are numbered below 2\*\*32"),
    ],
)
def test_numbers_of_trials_that_are_none(num, first, message):
    pool = pool_steps(np.float32([[0.5, 0.5], [0.25, 0.75]]), np.array([[True], [False]]))
    with pytest.raises(ValueError, match=message):
        split_trials(
            jax.random.key(0),
            pool,
            num_calibration=1,
            alpha=0.5,
            num_trials=num,
            first_trial=first,
        )
    trials._check_trials(1, 2**32 - 1)  # the last there is
