"""RACER-J on embeddings.

The blend against its definition, learned gains between static and the truth.
"""

import re

import jax.numpy as jnp
import numpy as np
import pytest

from racer_jax.encoders.surface import SurfaceEncoder, surface
from racer_jax.orders.coverage_gain import coverage_gain, static_order
from racer_jax.orders.learned_gains import LearnedGains, first_right
from racer_jax.orders.racer_j import RacerJ
from racer_jax.routers.knn import neighbor_weights

pytestmark = pytest.mark.long

RNG = np.random.default_rng(0)
X = RNG.normal(size=(90, 6)).astype(np.float32)
Y = RNG.random((90, 3)) < 0.5
GROUPS = RNG.permutation(["a"] * 50 + ["b"] * 40).tolist()
Z = RNG.normal(size=(11, 6)).astype(np.float32)
ZG = RNG.choice(["a", "b"], 11).tolist()


@pytest.mark.parametrize("w", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("null", ["paper", "free", "never"])
def test_the_blend_is_its_definition(w, null, monkeypatch):
    model = RacerJ.fit(X, Y, groups=GROUPS, k=7, w=w)
    mine = np.array([np.array(GROUPS) == g for g in ZG])
    weights = (1 - w) * mine / mine.sum(axis=1, keepdims=True) + w * np.asarray(
        neighbor_weights(Z, X, 7)
    )
    expected = coverage_gain(weights.astype(np.float32), Y, null)
    np.testing.assert_allclose(model(Z, ZG, null), expected, atol=2e-6)


def test_no_weight_on_neighbours_is_the_static_order_of_the_group():
    model = RacerJ.fit(X, Y, groups=GROUPS, k=5, w=0.0)
    for name in "ab":
        expected = static_order(Y[np.array(GROUPS) == name])
        np.testing.assert_allclose(model(Z, [name] * 11), jnp.tile(expected, (11, 1)), atol=1e-6)


def test_costs_reach_the_blend():
    model = RacerJ.fit(X, Y, k=5, w=1.0)
    cost = np.array([1.0, 5.0, 50.0])
    expected = coverage_gain(neighbor_weights(Z, X, 5), Y, cost=cost)
    np.testing.assert_allclose(model(Z, cost=cost), expected, atol=2e-6)


def test_a_large_ridge_is_the_static_order_and_a_small_one_learns():
    rng = np.random.default_rng(1)
    x = rng.normal(size=(1500, 2)).astype(np.float32)
    correct = rng.random((1500, 3)) < 1 / (1 + np.exp(-2 * x[:, :1] - np.array([0.5, 0.0, -0.5])))
    stiff = LearnedGains.fit(x, correct, ridge=1e9)
    expected = np.asarray(static_order(correct))
    np.testing.assert_allclose(stiff(x[:5]), np.tile(expected, (5, 1)), atol=5e-3)
    free = LearnedGains.fit(x, correct, ridge=0.1)
    position = first_right(correct, np.asarray(free.order[0]))
    law = np.asarray(free.positions(x), np.float64)
    np.testing.assert_allclose(law.sum(axis=1), 1, atol=1e-5)
    likelihood = np.log(law[np.arange(1500), position]).mean()
    share = np.bincount(position, minlength=4) / 1500
    assert likelihood > np.log(share[position]).mean() + 0.05
    # the score equations of the intercepts
    np.testing.assert_allclose(law.mean(axis=0), share, atol=0.01)
    assert law[x[:, 0] > 1, 0].mean() > law[x[:, 0] < -1, 0].mean() + 0.3


@pytest.mark.parametrize("null", ["paper", "free", "never"])
def test_learned_gains_rise_along_the_order_and_groups_stay_apart(null):
    model = LearnedGains.fit(X, Y, groups=GROUPS, ridge=1.0)
    actual = np.asarray(model(Z, ZG, null))
    law = np.asarray(model.positions(Z, ZG))
    for row, chance, name in zip(actual, law, ZG, strict=True):
        order = np.asarray(model.order[model.groups.index(name)])
        np.testing.assert_allclose(row[order], np.maximum.accumulate(1 - chance[:-1]), atol=1e-6)
    mine = {"paper": law[:, 0], "free": np.full(11, -np.inf), "never": np.full(11, np.inf)}[null]
    np.testing.assert_allclose(actual[:, -1], mine)
    alone = LearnedGains.fit(X[np.array(GROUPS) == "a"], Y[np.array(GROUPS) == "a"], ridge=1.0)
    np.testing.assert_allclose(model(Z, ["a"] * 11), alone(Z), atol=2e-3)


def test_surface_features():
    text = "How many (roughly)?\nA. 12\nB. thirteen\n"
    features = surface(text)
    assert features[5] == 2  # options
    assert features[6] == 0.5  # one of them without a letter
    assert features[-1] == 1  # parentheses in the question
    texts = [text, "x" * 40, "为什么？"]
    encoder = SurfaceEncoder.fit(texts)
    encoded = encoder.encode(texts)
    np.testing.assert_allclose(encoded.mean(axis=0), 0, atol=1e-6)
    deviation = encoded.std(axis=0)
    assert ((np.abs(deviation - 0.2) < 1e-4) | (deviation < 1e-6)).all()
    assert np.abs(encoder.encode(["1" * 10**5])).max() <= 0.8 + 1e-6


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: RacerJ.fit(X, Y, k=91),
            ValueError,
            "k must be between 1 and the number of training rows, 90, got 91",
        ),
        (lambda: RacerJ.fit(X, Y, k=1.5), TypeError, "k must be an integer, got 1.5"),
        (lambda: RacerJ.fit(X, Y, k=5, w=1.5), ValueError, "w must be in [0, 1], got 1.5"),
        (
            lambda: RacerJ.fit(X, Y, groups=["a"], k=1),
            ValueError,
            "one group for each of the 90 queries, got 1",
        ),
        (
            lambda: RacerJ.fit(X, Y, k=1)(Z, ZG),
            ValueError,
            "groups must be given where the training rows have them",
        ),
        (lambda: RacerJ.fit(X, Y, groups=GROUPS, k=1)(Z), ValueError, "got none, trained on ('"),
        (
            lambda: RacerJ.fit(X, Y, groups=GROUPS, k=1)(Z, ["new"] * 11),
            ValueError,
            "got 'new' at [0]",
        ),
        (lambda: RacerJ.fit(X, Y, k=1)(Z, null="x"), ValueError, "null must be one of"),
        (
            lambda: RacerJ.fit(X, Y, k=1)(Z, cost=[1.0, 0.0, 1.0]),
            ValueError,
            "above 0 for every model, got 0.0 at [1]",
        ),
        (
            lambda: RacerJ.fit(X, Y, k=1)(Z, cost=np.ones((2, 3))),
            ValueError,
            "cost must have shape [3] or [11, 3]",
        ),
        (
            lambda: LearnedGains.fit(X, Y, ridge=0),
            ValueError,
            "ridge must be positive and finite, got 0",
        ),
        (
            lambda: LearnedGains.fit(X, Y, groups=GROUPS)(Z, "a"),
            TypeError,
            "groups must be a sequence of names",
        ),
        (
            lambda: SurfaceEncoder.fit(["a"], scale=0),
            ValueError,
            "scale must be positive and finite, got 0",
        ),
    ],
)
def test_bad_input_is_named(call, error, message):
    with pytest.raises(error, match=re.escape(message)):
        call()
