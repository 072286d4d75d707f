"""Bounded losses: the promise with high probability, by group, and the bounds of the mean."""

from fractions import Fraction
from itertools import combinations_with_replacement
from math import comb, exp, factorial, inf, log

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import brentq
from scipy.special import xlogy

from racer_jax.core.loss_calibration import calibrate_loss
from racer_jax.core.losses import TICKS, grade_loss, loss_at
from racer_jax.core.nonconformity import TieBroken
from racer_jax.risk_control import loss_guarantees
from racer_jax.risk_control.loss_guarantees import (
    calibrate_loss_by_group,
    calibrate_loss_with_probability,
    hoeffding_bentkus_ticks,
    loss_bounds,
)
from tests.losses_by_hand import loss_by_hand


def graded(seed, num=40, num_models=3):
    """A loss of random queries with a tie-break."""
    rng = np.random.default_rng(seed)
    entries = rng.random((num, num_models + 1)).astype(np.float32)
    grades = rng.choice([0, 0.25, 0.5, 0.75, 1], (num, num_models))
    ties = rng.integers(0, 2**32, entries.shape, dtype=np.uint32)
    return loss_by_hand(entries, grades, ties, against="pool")


def all_steps(loss):
    """Every step as a threshold, in order, after the empty set."""
    step, tie = (np.asarray(x).ravel() for x in (loss.step, loss.tie))
    order = np.lexsort((tie, step))
    return [(-inf, 0), *zip(step[order].tolist(), tie[order].tolist(), strict=True)]


def total_at(loss, at):
    """Losses of all queries at a step, by a plain loop over the steps."""
    step, tie, drop = (np.asarray(x).tolist() for x in (loss.step, loss.tie, loss.drop))
    return [
        (start - sum(d for e, u, d in zip(*row, strict=True) if (e, u) <= at)) / TICKS
        for start, row in zip(
            np.asarray(loss.start).tolist(), zip(step, tie, drop, strict=True), strict=True
        )
    ]


def hoeffding_bentkus_passes(losses, alpha, delta):
    """Whether the p-value of a mean of at least alpha is at most delta, from its definition."""
    n, mean = len(losses), sum(losses) / len(losses)
    low = min(mean, alpha)
    entropy = (low * log(low / alpha) if low else 0) + (1 - low) * log((1 - low) / (1 - alpha))
    count = int(np.ceil(round(sum(losses), 9)))
    chance = sum(comb(n, k) * alpha**k * (1 - alpha) ** (n - k) for k in range(count + 1))
    return min(exp(-n * entropy), np.e * chance) <= delta


def betting_passes(losses, alpha, delta):
    """Whether the mean of eight bets against a mean of at least alpha comes to 1 / delta."""
    n = len(losses)

    def gap(mean):
        near = xlogy(mean, mean / alpha) + xlogy(1 - mean, (1 - mean) / (1 - alpha))
        return n * near - log(1 / delta)

    boundary = brentq(gap, 0, alpha) if gap(0) > 0 else 0.0
    largest = 1 / (1 - alpha)
    smallest = min((alpha - boundary) / (alpha * (1 - alpha)), largest)
    stakes = smallest * (largest / smallest) ** (np.arange(8) / 7)
    shares = [0.75] + [0.25 / 7] * 7
    bets = [np.prod([1 + stake * (alpha - loss) for loss in losses]) for stake in stakes]
    return np.dot(shares, bets) >= 1 / delta


@pytest.mark.parametrize(
    ("method", "passes"),
    [
        pytest.param("hoeffding_bentkus", hoeffding_bentkus_passes, marks=pytest.mark.long),
        ("betting", betting_passes),
    ],
)
def test_the_threshold_is_the_first_that_passes(method, passes):
    alphas = [0.1, 0.2, 0.3, 0.5]
    finite = 0
    for seed in range(4):
        loss = graded(seed)
        result = calibrate_loss_with_probability(loss, alphas, 0.1, method)
        at_steps = [(at, total_at(loss, at)) for at in all_steps(loss)]
        for i, alpha in enumerate(alphas):
            wanted = next((at for at, losses in at_steps if passes(losses, alpha, 0.1)), None)
            assert float(result.value[i]) == (inf if wanted is None else wanted[0])
            if wanted is not None and wanted[0] > -inf:
                assert int(result.tie[i]) == wanted[1]
                finite += 1
    assert finite >= 8


def failure(method, alpha, delta, num):
    """The exact chance that the expected loss of the threshold exceeds alpha.

    Queries are of four kinds; the threshold depends on how many there are of each, not on their
    order, so that summing over the counts is summing over all calibration sets.
    """
    chances = np.array([0.4, 0.3, 0.2, 0.1])
    step = np.array([[0.1, 0.4], [0.2, 0.5], [0.3, 0.6], [0.7, 0.9]])
    entries = jnp.asarray(np.c_[step, np.full(4, 1.0)], jnp.float32)
    grades = np.array([[0.7, 1.0], [0.4, 1.0], [0.8, 1.0], [0.2, 1.0]])
    kinds = jax.tree.map(np.asarray, grade_loss(entries, grades))
    risks = {}
    total = 0.0
    for drawn in combinations_with_replacement(range(4), num):
        counts = np.bincount(drawn, minlength=4)
        at = calibrate_loss_with_probability(kinds.rows(np.array(drawn)), alpha, delta, method)
        if float(at) not in risks:
            risks[float(at)] = float(chances @ np.asarray(loss_at(kinds, at), np.float64))
        if risks[float(at)] > alpha + 1e-6:
            ways = factorial(num) / np.prod([factorial(c) for c in counts])
            total += ways * np.prod(chances**counts)
    return total


@pytest.mark.long
@pytest.mark.parametrize("method", ["betting", "hoeffding_bentkus"])
def test_it_fails_no_more_often_than_promised(method):
    """At .4 the expected loss is .32, a little more than is promised."""
    chance = failure(method, 0.319, 0.3, 14)
    assert 0.01 < chance <= 0.3


def test_ticks_of_hoeffding_and_bentkus_are_the_last_that_pass():
    for n, alpha, delta in ((50, "0.1", 0.1), (40, "0.3", 0.05), (10, "0.1", 0.1)):
        ticks = hoeffding_bentkus_ticks(Fraction(alpha), n, delta)
        if ticks >= 0:
            assert hoeffding_bentkus_passes([ticks / TICKS / n] * n, float(alpha), delta)
        more = (ticks + 10) / TICKS / n
        assert not hoeffding_bentkus_passes([more] * n, float(alpha), delta)


@pytest.mark.long
def test_betting_calls_fewer_models_where_losses_vary_little():
    rng = np.random.default_rng(0)
    loss = loss_by_hand(rng.random((40, 4)), rng.choice([0.7, 0.8, 1], (40, 3)), against="pool")
    alphas = [0.05, 0.1, 0.2]
    betting, mean_only = (
        calibrate_loss_with_probability(loss, alphas, 0.1, method)
        for method in ("betting", "hoeffding_bentkus")
    )
    assert (betting <= mean_only).all()
    assert (betting < mean_only).any()
    assert (calibrate_loss(loss, alphas) <= betting).all()


# Without a delta each number of queries is compiled.
DELTAS = pytest.mark.parametrize("delta", [0.2, pytest.param(None, marks=pytest.mark.long)])


def alone(loss, alpha, delta):
    if delta is None:
        return calibrate_loss(loss, alpha)
    return calibrate_loss_with_probability(loss, alpha, delta)


@DELTAS
def test_a_group_has_the_threshold_of_its_own_queries(delta):
    loss = graded(3, num=60)
    names = ["b", "a", "a"] * 20
    grouped = calibrate_loss_by_group(loss, names, 0.3, delta=delta)
    assert grouped.groups == ("b", "a")
    assert grouped.num_rows == (20, 40)
    assert (grouped.alpha, grouped.delta, grouped.fallback) == (0.3, delta, "all")
    for place, name in enumerate(grouped.groups):
        part = loss.rows(np.array([i for i, group in enumerate(names) if group == name]))
        own = alone(part, 0.3, delta)
        assert grouped.threshold.value[place] == own.value
        assert grouped.threshold.tie[place] == own.tie
    assert grouped.of(["a"]).value[0] == grouped.threshold.value[1]
    assert grouped.pooled.value == alone(loss, 0.3, delta).value
    assert grouped.warning() == ""
    with pytest.raises(ValueError, match="got 'c'"):
        grouped.of(["c"])
    for unseen, value in (("all", inf), ("pooled", grouped.pooled.value)):
        lenient = calibrate_loss_by_group(loss, names, 0.3, delta=delta, unseen=unseen)
        assert lenient.of(["c"]).value[0] == value


@DELTAS
def test_a_group_too_small_falls_back_and_says_so(delta):
    loss = graded(3, num=60)
    names = ["big"] * 57 + ["small"] * 3
    every = calibrate_loss_by_group(loss, names, 0.2, delta=delta)
    assert every.threshold.value[1] == inf
    assert every.too_small == ("small",)
    surely = "" if delta is None else " and delta = 0.2"
    assert every.warning() == (
        f"groups in which no threshold reaches alpha = 0.2{surely}: 'small' (n = 3); they get "
        "every model"
    )
    pooled = calibrate_loss_by_group(loss, names, 0.2, "pooled", delta=delta)
    assert isinstance(pooled.threshold, TieBroken)
    assert pooled.threshold.value[1] == alone(loss, 0.2, delta).value < inf
    assert pooled.threshold.tie[1] == alone(loss, 0.2, delta).tie
    assert pooled.threshold.value[0] == every.threshold.value[0]
    assert "the pooled threshold" in pooled.warning()


def test_a_group_is_calibrated_by_the_method_that_is_named(monkeypatch):
    loss, asked = graded(3, num=6), []

    def calibrated(part, alpha, delta, method):
        asked.append((part.num_queries, alpha, delta, method))
        return jnp.float32(part.num_queries)

    monkeypatch.setattr(loss_guarantees, "calibrate_loss_with_probability", calibrated)
    how = {"delta": 0.1, "method": "hoeffding_bentkus"}
    grouped = calibrate_loss_by_group(loss, ["a", "b", "b", "b", "a", "b"], 0.2, **how)
    assert asked == [(num, 0.2, 0.1, "hoeffding_bentkus") for num in (6, 2, 4)]
    assert grouped.threshold.tolist() == [2, 4]
    calibrate_loss_by_group(loss, ["a"] * 6, 0.2, delta=0.1)
    assert asked[-1] == (6, 0.2, 0.1, "betting")


def test_one_level_and_a_loss_without_second_keys():
    rng = np.random.default_rng(5)
    entries, grades = rng.random((40, 4)), rng.choice([0, 0.5, 1], (40, 3))
    loss = loss_by_hand(entries, grades, against="pool")
    several = calibrate_loss_with_probability(loss, [0.2, 0.01], 0.1)
    single = calibrate_loss_with_probability(loss, 0.2, 0.1)
    assert single.shape == ()
    assert several.tolist() == [float(single), inf]
    assert several.dtype == np.float32
    assert 0 < float(single) < 1
    # Where even the empty set loses little enough, nothing is called.
    nothing = loss_by_hand(entries, np.full((40, 3), 0.01), against="pool")
    assert calibrate_loss_with_probability(nothing, 0.2, 0.1).tolist() == -inf
    keys = np.ones((40, 4), np.uint32)
    pair = calibrate_loss_with_probability(
        loss_by_hand(entries, np.full((40, 3), 0.01), keys, "pool"), [0.2, 1e-6], 0.1
    )
    assert pair.value.tolist() == [-inf, inf]
    assert pair.tie.tolist() == [0, 0xFFFFFFFF]
    assert pair.tie.dtype == np.uint32


def test_bounds_of_the_mean():
    assert loss_bounds([0.1, 0.2], 99).lower == pytest.approx([0.08, 0.18])
    bounds = loss_bounds(2.5, 49, bound=10, largest_drop=5)
    assert (bounds.lower, bounds.upper) == (pytest.approx(2.5 - 15 / 50), 2.5)
    assert loss_bounds(2.5, 49, bound=10).lower == pytest.approx(2.5 - 20 / 50)
    assert loss_bounds(0.5, 1).lower == pytest.approx(-0.5)
    # A drop that float32 rounded up is the whole loss.
    assert loss_bounds(0.5, 1, 1, 1 + 5e-7).lower == pytest.approx(-0.5, abs=1e-6)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda loss: calibrate_loss_with_probability(loss, 0.1, 2), "delta must be in"),
        (lambda loss: calibrate_loss_with_probability(loss, 0.1, 0.1, "x"), "method must be one"),
        (lambda loss: calibrate_loss_by_group(loss, "abc", 0.1), "groups must be a sequence"),
        (lambda loss: calibrate_loss_by_group(loss, ["a"], 0.1), "one group for each"),
        (lambda loss: calibrate_loss_by_group(loss, ["a"], 0.1, "none"), "fallback must be one"),
        (lambda loss: loss_bounds(0.1, 9, 1, 2.0), r"largest_drop must be in \(0, 1\]"),
        (lambda loss: loss_bounds(0.1, 9, 1, 0.0), r"largest_drop must be in \(0, 1\], got 0.0"),
        (lambda loss: loss_bounds(0.1, 0), "n must be at least 1"),
        (lambda loss: calibrate_loss_by_group(loss, ["a"] * 40, 0.1, unseen="x"), "unseen must"),
        (
            lambda loss: calibrate_loss_with_probability(
                jax.tree.map(lambda x: x[None], loss), 0.1, 0.1
            ),
            r"loss must be of queries \[n\], got \(1, 40\)",
        ),
        (
            lambda loss: calibrate_loss_by_group(
                jax.tree.map(lambda x: x[None], loss), ["a"] * 40, 0.1
            ),
            "one group for each",
        ),
        (
            lambda loss: jax.jit(lambda x: calibrate_loss_with_probability(x, 0.1, 0.1))(loss),
            "cannot be traced",
        ),
    ],
)
def test_errors_say_what_would_be_right(call, message):
    with pytest.raises((TypeError, ValueError), match=message):
        call(graded(0))
