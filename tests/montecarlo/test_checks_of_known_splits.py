"""Checks of splits whose measurements are known beforehand, and splits of other routers' scores."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from racer_jax.core.losses import TICKS
from racer_jax.montecarlo import bound_check, loss_check, measured_splits
from racer_jax.montecarlo.bound_check import ScoredPool, check_bounds, check_bounds_exactly
from racer_jax.montecarlo.exact import pool_law
from racer_jax.montecarlo.loss_check import check_losses, check_stops
from racer_jax.montecarlo.loss_splits import LossTrials
from racer_jax.montecarlo.measured_splits import SplitMetrics, fresh_splits, stale_splits
from racer_jax.montecarlo.step_functions import pool_steps
from racer_jax.montecarlo.summaries import Summary
from racer_jax.risk_control.bounds import risk_bounds
from racer_jax.risk_control.loss_guarantees import loss_bounds

NUM, CALIBRATION = 12, 8
LEVELS = ("0.05", "0.25", "0.5")
SCORES = np.random.default_rng(0).random((NUM, 2)).astype(np.float32)
MATRIX = 1 - np.concatenate([SCORES, 1 - SCORES.max(1, keepdims=True)], 1)
POOL = ScoredPool("small", SCORES, np.random.default_rng(1).random((NUM, 2)) < 0.6)


def key():
    """A key that was not used before."""
    return jax.random.key(0)


def words(key):
    return np.asarray(jax.random.key_data(key)).tolist()


# --- bounded losses -------------------------------------------------------------------------------

LOST = np.array([[0.0, 0.2, 0.5], [0.1, 0.3, 0.9], [0.05, 0.1, 0.7]])
REACHED = np.array([[True, True, True], [False, True, True], [True, True, True]])


def checked(monkeypatch, loss="grade", start=TICKS, graded=None, **options):
    """A check whose three splits are known; what was asked of them."""
    asked = SimpleNamespace()

    def grade_loss(entries, graded, ties, against):
        asked.entries, asked.graded, asked.ties, asked.against = entries, graded, ties, against
        return SimpleNamespace(largest_drop=0.5, start=np.full(NUM, start))

    def loss_trials(key, steps, alphas, **options):
        asked.key, asked.alphas, asked.options = key, alphas, options
        return LossTrials(LOST, 1 + LOST, LOST / 2, REACHED)

    monkeypatch.setattr(loss_check, "grade_loss", grade_loss)
    monkeypatch.setattr(loss_check, "loss_trials", loss_trials)
    monkeypatch.setattr(loss_check, "second_keys", lambda key, shape: ("keys", words(key), shape))
    how = {"num_calibration": CALIBRATION, "alphas": LEVELS, "z_limit": 3.0, "num_splits": 3}
    graded = POOL.correct.astype(float) if graded is None else graded
    how |= {"matrix": MATRIX, **options}
    return check_losses(key(), POOL, graded, "own", loss, **how), asked


def test_mean_losses_beside_what_is_promised(monkeypatch):
    check, asked = checked(monkeypatch, progress=print)
    assert (check.pool, check.nonconformity, check.num_calibration) == ("small", "own", CALIBRATION)
    assert (check.num_test, check.num_splits, check.histogram) == (4, 3, None)
    np.testing.assert_array_equal(asked.entries, MATRIX)
    tie_key, split_key = jax.random.split(key())
    assert words(asked.key) == words(split_key)
    assert asked.ties == ("keys", words(tie_key), (NUM, 3))
    assert asked.against == "perfect"
    assert asked.alphas == list(LEVELS)
    expected = {"num_calibration": CALIBRATION, "num_trials": 3, "progress": print}
    assert asked.options == expected
    np.testing.assert_allclose(check.risk, LOST.mean(0))
    np.testing.assert_allclose(check.risk_std, LOST.std(0, ddof=1))
    np.testing.assert_allclose(check.risk_error, LOST.std(0, ddof=1) / np.sqrt(3))
    np.testing.assert_allclose(check.size, 1 + LOST.mean(0))
    np.testing.assert_allclose(check.abstention, LOST.mean(0) / 2)
    bounds = loss_bounds(list(LEVELS), CALIBRATION, 1, 0.5)
    np.testing.assert_array_equal(check.lower, bounds.lower)
    np.testing.assert_array_equal(check.upper, bounds.upper)
    np.testing.assert_array_equal(check.alpha, bounds.upper)
    assert check.lower_applies.tolist() == [False, True, True]
    # Errors above the upper bound; where some split reached no threshold there is nothing to say.
    above = (LOST.mean(0) - bounds.upper)[2] / check.risk_error[2]
    assert np.isnan(check.z[0])
    assert check.z[1] == 0
    assert check.z[2] == pytest.approx(above)
    for name in ("sharp", "exact", "exact_std", "exact_size", "avoidable_miss"):
        assert np.isnan(getattr(check, name)).all()
    assert check.verdict == ["PASS", "PASS", "PASS"]
    assert check.note[0].startswith("threshold +inf: needs n >= 19")
    assert check.note[1:] == ["", ""]


def test_what_is_said_of_levels_that_fail_or_are_out_of_reach(monkeypatch):
    check, _ = checked(monkeypatch, z_limit=0.5, alphas=("0.05", "0.25", "0.2"))
    assert check.verdict == ["PASS", "PASS", "FAIL"]
    check, _ = checked(monkeypatch, z_limit=0.5, alphas=("0.005", "0.25", "0.2"))
    assert check.verdict[0] == "infeasible"
    check, _ = checked(monkeypatch, alphas=("0.2", "0.25", "0.5"))
    assert check.note[0] == "in some splits no threshold loses as little on the calibration queries"


def test_options_of_a_check_of_losses(monkeypatch):
    check, asked = checked(monkeypatch, "shortfall", tie_break=False)
    assert (asked.against, asked.ties) == ("pool", None)
    assert not check.lower_applies.any()  # ties, so that the lower bound is not promised
    check, _ = checked(monkeypatch, start=TICKS - 1)
    assert not check.lower_applies.any()  # no loss of 1 where nothing is called
    made = []
    monkeypatch.setitem(
        loss_check.NONCONFORMITIES,
        "own",
        lambda scores, null: made.append(null) or jnp.ones((12, 3)),
    )
    _, asked = checked(monkeypatch, matrix=None, null="free")
    assert made == ["free"]
    assert (np.asarray(asked.entries) == 1).all()
    _, asked = checked(monkeypatch, matrix=None)
    assert made[1] == "paper"


@pytest.mark.parametrize(
    ("grade", "message"),
    [
        (np.nan, r"must be in \[0, 1\], got 0 to 1 and 1 missing"),
        (-0.5, r"grades of pool 'small' must be in \[0, 1\], got -0.5 to 1 and 0 missing"),
        (1.5, "got 0 to 1.5 and 0 missing"),
        (np.inf, "got 0 to inf"),
    ],
)
def test_grades_out_of_range_are_refused(monkeypatch, grade, message):
    graded = np.ones((NUM, 2))
    graded[0] = 0, grade
    with pytest.raises(ValueError, match=message):
        checked(monkeypatch, graded=graded)


@pytest.mark.parametrize(("num", "is_refused"), [(0, True), (1, False), (11, False), (12, True)])
def test_each_part_of_a_check_needs_a_query(monkeypatch, num, is_refused):
    def losses():
        return checked(monkeypatch, num_calibration=num)[0].num_test

    def bounds():
        how = {"num_calibration": num, "alphas": LEVELS, "z_limit": 3.0}
        return check_bounds_exactly(key(), POOL, "own", matrix=MATRIX, **how).num_test

    for check in (losses, bounds):
        if is_refused:
            with pytest.raises(ValueError, match="pool 'small' of 12 queries is too small"):
                check()
        else:
            assert check() == NUM - num


# --- the calibrated stop --------------------------------------------------------------------------


def paths():
    """A pool with the metrics of a chain of calls, ties broken."""
    keys = np.random.default_rng(2).integers(0, 2**32, MATRIX.shape, dtype=np.uint32)
    table = np.random.default_rng(3).random((3, NUM, 3))
    names = ("calls", "abstained", "regret")
    return pool_steps(MATRIX, POOL.correct, keys, metrics=dict(zip(names, table, strict=True)))


def test_all_splits_of_a_chain_are_its_law():
    pool, how = paths(), {"num_calibration": CALIBRATION, "alphas": LEVELS, "z_limit": 3.0}
    check = check_stops(key(), "chain", "regret", pool, num_splits=0, **how)
    law = pool_law(pool, num_calibration=CALIBRATION, alpha=LEVELS)
    assert (check.pool, check.nonconformity, check.num_test) == ("chain", "regret", 4)
    assert (check.num_calibration, check.num_splits, check.histogram) == (CALIBRATION, 0, None)
    np.testing.assert_allclose(check.sharp, [0, 2 / 9, 4 / 9])
    for ours, theirs in (
        (check.risk, law.risk_mean),
        (check.exact, law.risk_mean),
        (check.risk_std, law.risk_std),
        (check.exact_std, law.risk_std),
        (check.size, law.extra_mean["calls"]),
        (check.exact_size, law.extra_mean["calls"]),
        (check.abstention, law.extra_mean["abstained"]),
        (check.avoidable_miss, law.extra_mean["regret"]),
    ):
        np.testing.assert_array_equal(ours, theirs)
    assert (check.risk_error == 0).all()
    assert (check.z == 0).all()
    bounds = risk_bounds(LEVELS, CALIBRATION)
    np.testing.assert_array_equal(check.lower, bounds.lower)
    np.testing.assert_array_equal(check.alpha, bounds.upper)
    assert check.lower_applies.tolist() == [True, True, True]
    assert check.verdict == ["PASS"] * 3
    assert check.note == ["threshold +inf: needs n >= 19", "", ""]
    other = check_stops(key(), "chain", "wrong", pool, num_splits=0, **how)
    assert np.isnan(other.avoidable_miss).all()


def known_summaries(asked, mean, std):
    def stream_trials(key, pool, **options):
        asked.append((words(key), pool, options))
        names = ("risk", "calls", "abstained", "regret", "size", "abstention", "avoidable_miss")
        edges, histogram = np.tile(np.arange(4.0), (3, 1)), np.full((3, 3), 2)
        return {
            name: Summary(mean + i, std + i, mean, mean, edges + i, histogram + i)
            for i, name in enumerate(names)
        }

    return stream_trials


def test_drawn_splits_of_a_chain_are_set_beside_its_law(monkeypatch):
    pool, asked, std = paths(), [], np.array([0.1, 0.2, 0.4])
    law = pool_law(pool, num_calibration=CALIBRATION, alpha=LEVELS)
    mean = law.risk_mean + np.array([0.0, 1e-13, 0.1])
    monkeypatch.setattr(loss_check, "stream_trials", known_summaries(asked, mean, std))
    how = {"num_calibration": CALIBRATION, "alphas": LEVELS, "num_splits": 16, "progress": print}
    check = check_stops(key(), "chain", "regret", pool, z_limit=1.1, **how)
    (of_key, of_pool, options) = asked[0]
    assert of_key == words(key())
    assert of_pool is pool
    assert options.pop("budget").tolist() == [-1, 1, 3]
    rest = {"num_calibration": CALIBRATION, "num_trials": 16, "bins": 64, "progress": print}
    assert options == rest
    np.testing.assert_array_equal(check.risk, mean)
    np.testing.assert_allclose(check.risk_error, std / 4)
    np.testing.assert_array_equal(check.risk_std, std)
    np.testing.assert_allclose(check.z, [0, 0, 1.0])
    np.testing.assert_array_equal(check.size, mean + 1)
    np.testing.assert_array_equal(check.abstention, mean + 2)
    np.testing.assert_array_equal(check.avoidable_miss, mean + 3)
    assert check.verdict == ["PASS"] * 3
    assert check_stops(key(), "chain", "regret", pool, z_limit=0.9, **how).verdict[2] == "FAIL"


# --- the bounds -----------------------------------------------------------------------------------


def test_drawn_splits_are_set_beside_their_law(monkeypatch):
    asked, std = [], np.array([0.1, 0.2, 0.4])
    mean = np.array([0.0, 0.2, 0.9])
    monkeypatch.setattr(measured_splits, "stream_trials", known_summaries(asked, mean, std))
    how = {"num_calibration": 7, "num_validation": 2, "alphas": LEVELS, "z_limit": 3.0}
    check = check_bounds(
        key(), POOL, "own", num_splits=16, progress=print, matrix=MATRIX, null="free", **how
    )
    options = asked[0][2]
    assert options.pop("budget").tolist() == [-1, 1, 3]
    assert options == {
        "num_calibration": 7,
        "num_validation": 2,
        "num_trials": 16,
        "bins": 64,
        "progress": print,
        "size": None,
    }
    assert (check.num_calibration, check.num_test, check.num_splits) == (7, 3, 16)
    np.testing.assert_array_equal(check.risk, mean)
    np.testing.assert_array_equal(check.risk_std, std)
    np.testing.assert_allclose(check.risk_error, std / 4)
    np.testing.assert_array_equal(check.size, mean + 4)
    np.testing.assert_array_equal(check.abstention, mean + 5)
    np.testing.assert_array_equal(check.avoidable_miss, mean + 6)
    np.testing.assert_allclose(check.sharp, [0, 2 / 8, 4 / 8])
    np.testing.assert_allclose(check.z, (mean - check.exact) / (std / 4))
    assert check.verdict == ["PASS", "PASS", "FAIL"]


def test_what_is_measured_is_kept_by_name(monkeypatch):
    asked, mean, std = [], np.array([0.0, 0.2, 0.9]), np.array([0.1, 0.2, 0.4])
    monkeypatch.setattr(measured_splits, "stream_trials", known_summaries(asked, mean, std))
    metrics = fresh_splits(key(), "pool", 7, 2, "budget", 6, print)
    assert metrics.num_splits == 6
    np.testing.assert_array_equal(metrics.mean["calls"], mean + 1)
    np.testing.assert_array_equal(metrics.edges[0], np.arange(4.0))
    np.testing.assert_allclose(metrics.share, np.full((3, 3), 1 / 3))
    assert asked[0][:2] == (words(key()), "pool")


def test_a_level_is_promised_below_only_where_its_law_is_sharp(monkeypatch):
    """Ties and null models move the mean: then the lower bound is not promised."""
    tied = np.zeros_like(MATRIX)
    how = {"num_calibration": CALIBRATION, "alphas": ("0.5",), "z_limit": 3.0, "matrix": tied}
    check = check_bounds_exactly(key(), POOL, "own", tie_break=False, **how)
    assert check.lower_applies.tolist() == [False]
    assert check.verdict == ["PASS"]
    check = check_bounds_exactly(key(), POOL, "own", **how)
    assert check.lower_applies.tolist() == [True]
    assert bound_check.HISTOGRAM_ALPHA == "0.1"


# --- scores of another query ----------------------------------------------------------------------


@pytest.mark.long
def test_splits_that_are_routed_by_other_queries_scores():
    num_splits, budget = 5, np.array([-1, 0, 2])
    keys = np.random.default_rng(4).integers(0, 3, MATRIX.shape).astype(np.uint32)
    entries = np.round(MATRIX * 4) / np.float32(4)
    how = (entries, POOL.correct, keys, CALIBRATION, budget, num_splits)
    metrics = stale_splits(key(), *how)
    rows_key, split_key = jax.random.split(key())
    stale = entries[np.asarray(jax.random.permutation(rows_key, NUM))]
    masks = measured_splits.split_masks(
        split_key, jnp.arange(num_splits), num_calibration=CALIBRATION, num_queries=NUM
    )
    truth = np.concatenate([POOL.correct, ~POOL.correct.any(1, keepdims=True)], axis=1)
    both = np.stack([entries, keys], axis=-1).tolist()
    critical = [min(p for p, yes in zip(both[i], truth[i], strict=True) if yes) for i in range(NUM)]
    values = {name: np.zeros((num_splits, 3)) for name in metrics.mean}
    for s, mask in enumerate(np.asarray(masks)):
        ordered = sorted(critical[i] for i in np.flatnonzero(mask))
        rest = np.flatnonzero(~mask)
        for a, b in enumerate(budget):
            limit = [np.inf, 0] if b < 0 else ordered[CALIBRATION - b - 1]
            inside = np.array(
                [[[stale[i, m], keys[i, m]] <= limit for m in range(3)] for i in range(NUM)]
            )
            called = inside[:, :-1]
            measured = {
                "risk": ~(inside & truth).any(1),
                "size": called.sum(1),
                "abstention": ~called.any(1),
                "avoidable_miss": POOL.correct.any(1) & ~(called & POOL.correct).any(1),
            }
            for name, value in measured.items():
                values[name][s, a] = value[rest].mean()
    for name, mean in metrics.mean.items():
        np.testing.assert_allclose(mean, values[name].mean(0), rtol=1e-6, err_msg=name)
    np.testing.assert_allclose(metrics.risk_std, values["risk"].std(0, ddof=1), atol=1e-7)
    assert metrics.num_splits == num_splits
    assert metrics.share.shape == (3, 32)
    np.testing.assert_allclose(metrics.share.sum(axis=1), 1)
    assert isinstance(metrics, SplitMetrics)
    assert (metrics.edges[:, 0] <= values["risk"].min(0)).all()
