"""`calibrate(weights=...)`: against its definition, against the host, under jit, vmap and masks."""

from fractions import Fraction
from math import inf

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from racer_jax import calibrate
from racer_jax.core.losses import TICKS
from racer_jax.core.nonconformity import TieBroken
from racer_jax.risk_control.covariate_shift import calibrate_weighted

N = 12
LEVELS = ["0.1", "0.29", "0.5", "0.9"]


def rows(seed):
    """Critical scores that tie, second keys, and weights that are exact in ticks."""
    rng = np.random.default_rng(seed)
    critical = jnp.asarray(rng.integers(0, 6, N) / 8, jnp.float32)
    ties = jnp.asarray(rng.permutation(N), jnp.uint32)
    return critical, ties, rng.choice([0.125, 0.25, 0.5, 1.0], N)


def searched(critical, ties, weights, own, alpha, mask):
    """The definition, in rationals, by search over the pairs."""
    pairs = sorted(zip(np.asarray(critical).tolist(), np.asarray(ties).tolist(), strict=True))
    weight = {
        pair: Fraction(w)
        for pair, w, kept in zip(
            zip(np.asarray(critical).tolist(), np.asarray(ties).tolist(), strict=True),
            weights.tolist(),
            mask.tolist(),
            strict=True,
        )
        if kept
    }
    budget = Fraction(alpha) * (sum(weight.values()) + Fraction(own)) - Fraction(own)
    for candidate in pairs:
        if candidate in weight and sum(w for p, w in weight.items() if p > candidate) <= budget:
            return candidate
    return (inf, 0xFFFFFFFF)


@jax.jit
def thresholds(critical, ties, weights, own, masks):
    return jax.vmap(
        lambda mask: calibrate(
            TieBroken(critical, ties), LEVELS, mask, weights=weights, query_weight=own
        )
    )(masks)


@pytest.mark.long
def test_thresholds_are_those_of_the_definition():
    for seed in range(12):
        critical, ties, weights = rows(seed)
        masks = np.random.default_rng(seed).random((3, N)) < 0.7
        masks[:, 0], masks[0] = True, True
        own = [0.125, 0.5, 1.0][seed % 3]
        result = thresholds(critical, ties, jnp.asarray(weights, jnp.float32), own, masks)
        for i, mask in enumerate(masks):
            for j, alpha in enumerate(LEVELS):
                found = (float(result.value[i, j]), int(result.tie[i, j]))
                assert found == searched(critical, ties, weights, own, alpha, mask)


def test_a_budget_is_met_to_the_tick():
    """Rows of 1, and of x and y ticks: at a level of 1/2 they may lose (x + y) / 2 ticks."""
    masks = np.zeros((3, N), bool)
    masks[:, :3] = True
    critical = jnp.asarray([1.0, 2.0, 3.0, *[0.5] * (N - 3)], jnp.float32)
    ties = jnp.zeros(N, jnp.uint32)
    for low, high, expected in ((5, 5, 2), (4, 6, 3), (6, 4, 2), (65537, 65537, 2), (7, 3, 2)):
        weights = np.float32([1, low / TICKS, high / TICKS, *[1] * (N - 3)])
        result = thresholds(critical, ties, jnp.asarray(weights), 1.0, masks)
        assert result.value[:, LEVELS.index("0.5")].tolist() == [expected] * 3


@pytest.mark.long
def test_equal_weights_give_the_bits_of_calibrate():
    for seed in range(6):
        critical, ties, _ = rows(seed)
        pair = TieBroken(critical, ties)
        expected = calibrate(pair, LEVELS)
        weighted = calibrate(pair, LEVELS, weights=np.full(N, 0.3))
        for x, y in zip(expected, weighted, strict=True):
            assert np.asarray(x).tobytes() == np.asarray(y).tobytes()


def test_it_agrees_with_the_host_for_any_weights():
    rng = np.random.default_rng(0)
    critical = jnp.asarray(rng.random(N), jnp.float32)
    weights = rng.gamma(2.0, size=N)
    for own in (0.1, 1.0, 3.0):
        host = [calibrate_weighted(critical, weights, a).threshold([own])[0] for a in LEVELS]
        device = calibrate(critical, LEVELS, weights=weights, query_weight=own)
        assert device.tolist() == host


@pytest.mark.long
def test_a_traced_alpha_is_safe_and_the_weights_are_a_batch():
    critical, ties, weights = rows(3)
    pair = TieBroken(critical, ties)
    batch = jnp.asarray(np.stack([weights, weights[::-1]]), jnp.float32)
    exact = jax.vmap(lambda w: calibrate(pair, LEVELS, weights=w))(batch)
    levels = jnp.array([0.1, 0.29, 0.5, 0.9])
    traced = jax.jit(lambda a, b: jax.vmap(lambda w: calibrate(pair, a, weights=w))(b))(
        levels, batch
    )
    assert (traced.value >= exact.value).all()
    assert (traced.value == exact.value).mean() > 0.5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"weights": np.ones(3)}, r"weights must have shape \[..., 12\]"),
        ({"weights": np.zeros(N)}, "weights must be finite and above 0, got 0 at"),
        ({"weights": np.full(N, np.nan)}, "weights must not be NaN"),
        ({"weights": np.ones(N), "query_weight": -1.0}, "query_weight must be finite and above 0"),
        ({"query_weight": 1.0}, "query_weight goes with the weights"),
    ],
)
def test_errors_say_what_would_be_right(options, message):
    with pytest.raises((TypeError, ValueError), match=message):
        calibrate(jnp.arange(float(N)), 0.1, **options)
