import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

import racer_jax as racer
from racer_jax import risk_control as choosing
from racer_jax.core.nonconformity import TieBroken

RNG = np.random.default_rng(0)


def test_the_knee_is_the_corner_of_an_elbow():
    alpha = np.linspace(0.05, 0.95, 19)
    size = np.where(alpha <= 0.25, 7 - 20 * (alpha - 0.05), 3 - 3 * (alpha - 0.25))
    assert alpha[choosing.knee(alpha, size)] == pytest.approx(0.25)
    assert choosing.knee([0.1, 0.2, 0.3], [2.0, 2.0, 2.0]) == 0


def test_the_smallest_alpha_within_a_budget():
    assert choosing.within_budget([0.2, 0.1, 0.05], [1.0, 2.0, 4.0], 2.0) == 1
    with pytest.raises(
        ValueError, match=r"no alpha is within the budget of 0\.5: the least cost is 1"
    ):
        choosing.within_budget([0.2, 0.1], [1.0, 2.0], 0.5)


def test_the_smallest_sets_within_one_error_of_the_best():
    accuracy, error, size = RNG.random(30), RNG.random(30) / 5, RNG.random(30)
    best = accuracy.argmax()
    good = [i for i in range(30) if accuracy[i] >= accuracy[best] - error[best]]
    assert choosing.within_error(accuracy, error, size) == min(good, key=lambda i: size[i])


def test_uniform_budgets_hold_for_every_threshold_at_once():
    # Uniform critical scores: the risk of a threshold is 1 - threshold, so "all alphas at once" can
    # be watched.
    n, delta, num = 200, 0.1, 2000
    alphas = [i / 20 for i in range(1, 20)]
    critical = jax.random.uniform(jax.random.key(0), (num, n))
    risk = 1 - np.asarray(choosing.calibrate_uniform(critical, alphas, delta), np.float64)
    failed = (risk > np.array(alphas)).any(axis=1).mean()
    assert failed <= delta + 5 * np.sqrt(delta * (1 - delta) / num)
    plain = 1 - np.asarray(racer.calibrate(critical, alphas), np.float64)
    assert (plain > np.array(alphas)).any(axis=1).mean() > 0.5  # one by one, but not all at once
    slack = np.sqrt(np.log(1 / delta) / (2 * n))
    assert choosing.uniform_budget(alphas, n, delta).tolist() == [
        max(-1, int(np.floor(n * (a - slack)))) for a in alphas
    ]


def test_uniform_thresholds_keep_the_tie_break():
    value, tie = jnp.zeros(50), racer.tie_break(jax.random.key(1), (50,))
    threshold = choosing.calibrate_uniform(TieBroken(value, tie), 0.5, 0.1)
    rank = 50 - choosing.uniform_budget(0.5, 50, 0.1)
    assert int(threshold.tie) == np.sort(np.asarray(tie))[rank - 1]


@pytest.mark.long
@pytest.mark.parametrize("broken", [False, True])
def test_a_cap_keeps_the_first_models(broken, transform):
    nonconformity = (RNG.integers(0, 3, (40, 5)) / 2).astype(np.float32)
    ties = np.asarray(racer.tie_break(jax.random.key(2), nonconformity.shape))
    run = transform(lambda e, u: choosing.cap_models(e, 2, u if broken else None))
    capped = np.asarray(run(nonconformity, ties))
    for before, after, tie in zip(nonconformity, capped, ties, strict=True):
        second = tie if broken else np.arange(5)
        rest = sorted(range(4), key=lambda m: (before[m], second[m]))[:2]
        assert [m for m in range(4) if np.isfinite(after[m])] == sorted(rest)
        assert after[4] == before[4]
    assert int(racer.set_size(racer.prediction_sets(capped, jnp.inf)).max()) == 2


def test_below_the_attainable_alpha_no_threshold_is_finite():
    critical = jnp.asarray(np.where(RNG.random(99) < 0.2, np.inf, RNG.random(99)), jnp.float32)
    result = choosing.attainable_alpha(critical)
    assert result.misses == int(jnp.isinf(critical).sum())
    exact = f"{result.misses + 1}/100"
    assert np.isfinite(float(racer.calibrate(critical, exact)))
    assert float(racer.calibrate(critical, f"{result.misses}/100")) == np.inf
    # two-sided 90%
    assert result.upper == pytest.approx(stats.binomtest(result.misses, 99).proportion_ci(0.9).high)


def test_the_budget_is_kept_on_average_and_used():
    rng, budget, n = np.random.default_rng(3), 1.2, 60
    cost, spent = np.array([0.2, 1.0, 3.0]), []
    for _ in range(400):
        nonconformity = rng.random((n + 1, 4)).astype(np.float32)
        result = choosing.calibrate_budget(nonconformity[:n], cost, budget)
        spent.append((cost * (nonconformity[n, :3] <= result.threshold)).sum())
    assert np.mean(spent) < budget + 5 * np.std(spent) / 20
    assert np.mean(spent) > budget - 0.2 - 5 * np.std(spent) / 20
    rows = choosing.calibrate_budget(nonconformity, np.tile(cost, (n + 1, 1)), budget, most=cost)
    assert rows == choosing.calibrate_budget(nonconformity, cost, budget)
    assert rows == choosing.calibrate_budget(
        nonconformity, np.tile(cost, (n + 1, 1)), budget, most=cost.sum()
    )
    assert choosing.calibrate_budget(nonconformity, cost, 1e-6).threshold == -np.inf


@pytest.mark.long
@pytest.mark.parametrize(("n", "num"), [(4, 1500), (60, 500)])
def test_the_budget_is_kept_where_rare_queries_are_dear(n, num):
    # One query in 20 costs 30 times as much: the dearest of 4 calibration queries is seldom one of
    # them.
    rng, budget, spent = np.random.default_rng(5), 1.0, {"declared": [], "seen": []}
    for _ in range(num):
        nonconformity = rng.random((n + 1, 3)).astype(np.float32)
        cost = np.where(rng.random((n + 1, 1)) < 1 / 20, 30.0, 1.0) * np.array([0.4, 0.6])
        for name, most in (("declared", [12.0, 18.0]), ("seen", cost[:n].sum(axis=1).max())):
            limit = choosing.calibrate_budget(
                nonconformity[:n], cost[:n], budget, most=most
            ).threshold
            spent[name].append((cost[n] * (nonconformity[n, :2] <= limit)).sum())
    mean = {name: np.mean(values) for name, values in spent.items()}
    error = {name: np.std(values) / np.sqrt(num) for name, values in spent.items()}
    assert mean["declared"] <= budget + 4 * error["declared"]
    assert mean["declared"] > 0 or n == 4
    assert mean["seen"] > budget + 4 * error["seen"] or n == 60


@pytest.mark.long
def test_selective_risk_is_certified_no_more_often_than_promised():
    rng, alpha, delta, grid = (
        np.random.default_rng(4),
        0.3,
        0.2,
        np.linspace(0.05, 0.95, 10).astype(np.float32),
    )
    big = rng.random((20_000, 3)).astype(np.float32)
    right = rng.random((20_000, 3)) < 0.75 - 0.5 * big
    nonconformity = np.concatenate([big, np.full((20_000, 1), -np.inf, np.float32)], axis=1)

    def risk(threshold):
        sets = racer.prediction_sets(nonconformity, threshold)
        answered = ~np.asarray(racer.abstains(sets))
        return (np.asarray(racer.misrouted(sets, right)) & answered).sum() / answered.sum()

    true = {float(t): risk(t) for t in grid}
    failed, certified, num = 0, 0, 150
    for _ in range(num):
        rows = rng.integers(0, 20_000, 300)
        result = choosing.calibrate_selective(nonconformity[rows], right[rows], grid, alpha, delta)
        certified += result.threshold is not None
        failed += result.threshold is not None and true[result.threshold] > alpha
    assert certified > num / 2
    assert failed / num <= delta + 5 * np.sqrt(delta * (1 - delta) / num)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: choosing.knee([0.1, 0.2], [1.0, 2.0]),
            ValueError,
            "at least three increasing levels",
        ),
        (
            lambda: choosing.knee([0.1, 0.2], [1.0]),
            ValueError,
            "alpha, size must have one shape [a]",
        ),
        (
            lambda: choosing.knee([0.1, 0.2, 0.3], [1, np.nan, 2]),
            ValueError,
            "size must be finite, got nan at [1]",
        ),
        (
            lambda: choosing.within_error([1.0], [-1.0], [1.0]),
            ValueError,
            "error must not be negative, got -1",
        ),
        (lambda: choosing.uniform_budget(0.1, 10, 0.6), ValueError, "delta must be in (0, .5]"),
        (lambda: choosing.uniform_budget(0.1, 0, 0.1), ValueError, "n must be at least 1, got 0"),
        (
            lambda: choosing.calibrate_uniform(jnp.zeros(0), 0.1, 0.1),
            ValueError,
            "n >= 1, got (0,)",
        ),
        (
            lambda: choosing.cap_models(jnp.zeros((2, 3)), 0),
            ValueError,
            "most must be at least 1, got 0",
        ),
        (lambda: choosing.cap_models(jnp.zeros((2, 1)), 1), ValueError, "m >= 1, got (2, 1)"),
        (
            lambda: choosing.attainable_alpha(jnp.zeros((2, 2))),
            ValueError,
            "critical_scores must have shape [n]",
        ),
        (
            lambda: choosing.calibrate_budget(jnp.zeros((2, 3)), [1.0, -1.0], 1),
            ValueError,
            "cost must be known",
        ),
        (
            lambda: choosing.calibrate_budget(jnp.zeros((2, 3)), [1.0], 1),
            ValueError,
            "cost must have shape [2] or [2, 2], got [1]",
        ),
        (
            lambda: choosing.calibrate_budget(jnp.zeros((2, 3)), np.ones((2, 2)), 1),
            ValueError,
            "most must be given where costs vary from query to query",
        ),
        (
            lambda: choosing.calibrate_budget(
                jnp.zeros((2, 3)), [[1.0, 1.0], [1.0, 3.0]], 1, most=[2.0, 2.0]
            ),
            ValueError,
            "a model's cost must be at most what was declared, got 3 at [1, 1], declared [2.0, "
            "2.0]",
        ),
        (
            lambda: choosing.calibrate_budget(
                jnp.zeros((2, 3)), [[1.0, 1.0], [1.0, 3.0]], 1, most=3.0
            ),
            ValueError,
            "the cost of all models must be at most what was declared, got 4 at [1], declared 3.0",
        ),
        (
            lambda: choosing.calibrate_budget(jnp.zeros((2, 3)), [1.0, 1.0], 1, most=[1.0, np.nan]),
            ValueError,
            "most must be known and not negative, got nan at [1]",
        ),
        (
            lambda: choosing.calibrate_budget(jnp.zeros((2, 3)), [1.0, 1.0], 0),
            ValueError,
            "budget must be positive",
        ),
        (
            lambda: choosing.calibrate_budget(jnp.zeros((2, 3)), ["a", "b"], 1),
            TypeError,
            "cost must be numeric",
        ),
        (
            lambda: choosing.calibrate_selective(
                jnp.zeros((2, 3)), jnp.zeros((2, 2)), np.array([np.nan]), 0.1, 0.1
            ),
            ValueError,
            "thresholds must be floating [l]",
        ),
    ],
)
def test_bad_input_is_named(call, error, message):
    with pytest.raises(error, match=re.escape(message)):
        call()
