"""RouterDC on frozen embeddings.

Learns, is deterministic, and turns cosines into scores as it is told.
"""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from racer_jax.routers import Router
from racer_jax.routers.report import routing_accuracy
from racer_jax.routers.routerdc import (
    RouterDC,
    RouterDCConfig,
    fit_routerdc,
    fit_routerdcs,
)
from racer_jax.routers.training import OptimizerConfig

pytestmark = pytest.mark.long

CONFIG = RouterDCConfig(
    dim=8,
    num_positive=2,
    num_negative=2,
    batch_size=32,
    steps_per_round=40,
    num_rounds=8,
    patience=2,
    optimizer=OptimizerConfig(2e-2),
)
CLUSTERS = np.arange(320) % 4


@pytest.fixture(scope="module")
def fitted(problem):
    return fit_routerdc(jax.random.key(0), *problem, CONFIG, clusters=CLUSTERS)


def test_beats_every_single_model(problem, fitted):
    x, correct = problem
    router, report = fitted
    scores = router(x)
    assert scores.dtype == jnp.float32
    assert routing_accuracy(scores, correct) > correct.mean(0).max() + 0.15
    assert report.problems == ()
    assert isinstance(router, Router)


@pytest.mark.long
def test_deterministic_and_vmapped_over_seeds(problem, fitted):
    again, _ = fit_routerdc(jax.random.key(0), *problem, CONFIG, clusters=CLUSTERS)
    np.testing.assert_array_equal(again(problem[0]), fitted[0](problem[0]))
    keys = jax.vmap(jax.random.key)(jnp.array([0, 5]))
    routers, _ = fit_routerdcs(keys, *problem, CONFIG, clusters=CLUSTERS)
    np.testing.assert_allclose(routers[0](problem[0]), again(problem[0]), atol=1e-4)
    assert float(jnp.abs(routers[1](problem[0]) - routers[0](problem[0])).max()) > 0.01


def test_scores_are_the_formula(problem, fitted):
    router, _ = fitted
    hidden = problem[0] @ np.asarray(router.projection.kernel[...]) + np.asarray(
        router.projection.bias[...]
    )
    models = np.asarray(router.models[...])
    cosine = (
        hidden
        @ models.T
        / np.linalg.norm(hidden, axis=1)[:, None]
        / np.linalg.norm(models, axis=1)[None]
    )
    np.testing.assert_allclose(router(problem[0]), 1 / (1 + np.exp(-cosine)), atol=1e-5)
    router.probability = "softmax"
    softmax = router(problem[0])
    router.probability = "sigmoid"
    np.testing.assert_allclose(
        softmax, np.exp(cosine) / np.exp(cosine).sum(1, keepdims=True), atol=1e-5
    )


@pytest.mark.long
def test_graded_scores_and_no_projection(problem):
    config = replace(CONFIG, dim=None, num_rounds=1, cluster_weight=0.0)
    graded = problem[1] * np.float32(0.7)
    router, report = fit_routerdc(jax.random.key(0), *problem, config, graded=graded)
    assert router.projection is None
    assert report.num_steps == 40
    with pytest.raises(
        ValueError, match=r"graded must have the shape of correct, \(320, 3\), got \(1, 3\)"
    ):
        fit_routerdc(jax.random.key(0), *problem, config, graded=graded[:1])


@pytest.mark.long
def test_one_model_is_a_constant_router(problem):
    config = replace(CONFIG, num_rounds=1, cluster_weight=0.0)
    router, _ = fit_routerdc(jax.random.key(0), problem[0], problem[1][:, :1], config)
    assert bool(jnp.isfinite(router(problem[0])).all())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"probability": "max"}, r"probability must be one of \('sigmoid', 'softmax'\), got 'max'"),
        ({"temperature": 0.0}, "temperature must be positive, got 0.0"),
        ({"cluster_weight": -1.0}, "cluster_weight must not be negative, got -1.0"),
        ({"holdout": 0.0}, r"holdout must be a share of the rows in \(0, 1\), got 0.0"),
        ({"num_positive": 0}, "num_positive must be at least 1, got 0"),
        ({"dim": 0}, "dim must be at least 1, got 0"),
    ],
)
def test_bad_config(options, message):
    with pytest.raises(ValueError, match=message):
        RouterDCConfig(**options)


@pytest.mark.parametrize(
    ("clusters", "error", "message"),
    [
        (np.ones(320), TypeError, "clusters must be integers, got dtype float64"),
        (np.ones(3, int), ValueError, r"clusters must have shape \(320,\), got \(3,\)"),
    ],
)
def test_bad_clusters(problem, clusters, error, message):
    with pytest.raises(error, match=message):
        fit_routerdc(jax.random.key(0), *problem, CONFIG, clusters=clusters)


def test_the_models_vectors_start_at_the_deviation_of_routerdc():
    router = RouterDC(8, 2000, replace(CONFIG, dim=None), rngs=nnx.Rngs(0))
    assert float(router.models[...].std()) == pytest.approx(0.78, abs=0.02)
