import jax
import numpy as np
import pytest

from racer_jax.montecarlo.bootstrap import at_equal_service, bootstrap_sizes
from racer_jax.montecarlo.step_functions import pool_steps

ALPHAS = ["0.05", "0.2", "0.5"]


def pool_of(nonconformity, correct):
    return pool_steps(nonconformity, correct)


def test_bootstrapped_sizes_equal_resampled_rows():
    rng, num, resamples = np.random.default_rng(0), 40, 6
    entries = rng.permutation(num * 4).reshape(num, 4).astype(np.float32)
    correct = rng.random((num, 3)) < 0.4
    key = jax.random.key(3)
    sizes = bootstrap_sizes(
        key,
        {"one": pool_of(entries, correct), "two": pool_of(entries[:, [1, 0, 2, 3]], correct)},
        ALPHAS,
        resamples,
    )
    counts = np.random.default_rng(np.asarray(jax.random.key_data(key))).multinomial(
        num, np.full(num, 1 / num), resamples
    )
    critical = np.array(
        [e[:3][y].min() if y.any() else e[3] for e, y in zip(entries, correct, strict=True)]
    )
    for count, got in zip(counts, sizes["one"], strict=True):
        rows = np.repeat(np.arange(num), count)
        ordered = np.sort(critical[rows])
        thresholds = [ordered[num - int(float(alpha) * num) - 1] for alpha in ALPHAS]
        expected = [(entries[rows, :3] <= threshold).sum() / num for threshold in thresholds]
        np.testing.assert_allclose(got, expected)
    assert sizes["two"].shape == (resamples, len(ALPHAS))


def test_the_same_pool_differs_by_nothing():
    rng = np.random.default_rng(1)
    nonconformity, correct = rng.random((30, 3)).astype(np.float32), rng.random((30, 2)) < 0.5
    pool = pool_of(nonconformity, correct)
    sizes = bootstrap_sizes(jax.random.key(0), {"a": pool, "b": pool}, 0.1, 5)
    np.testing.assert_array_equal(sizes["a"], sizes["b"])


def test_equal_service_interpolates_and_does_not_extrapolate():
    result = at_equal_service([0.0, 0.1, 0.3], [4.0, 2.0, 1.0], [0.0, 0.05, 0.2, 0.31])
    np.testing.assert_allclose(result, [4.0, 3.0, 1.5, np.nan])


def test_bad_input_is_named():
    rng = np.random.default_rng(1)
    small = pool_of(rng.random((3, 2)).astype(np.float32), np.ones((3, 1)))
    large = pool_of(rng.random((4, 2)).astype(np.float32), np.ones((4, 1)))
    with pytest.raises(ValueError, match="pools must hold the same queries"):
        bootstrap_sizes(jax.random.key(0), {"a": small, "b": large}, 0.1, 5)
    with pytest.raises(ValueError, match="num must be at least 2 resamples, got 1"):
        bootstrap_sizes(jax.random.key(0), {"a": small}, 0.1, 1)
    with pytest.raises(ValueError, match="must have one shape"):
        at_equal_service([0.1], [1.0, 2.0], [0.1])
