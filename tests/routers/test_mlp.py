"""MLPR: learns, is deterministic, stops early, vmaps over seeds, names its failures."""

import subprocess
import sys
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from racer_jax.encoders.base import PartsError
from racer_jax.routers import Router, mlp, registry
from racer_jax.routers.mlp import MLPR, MLPConfig, _fit, _new, _start, fit_mlp, fit_mlps
from racer_jax.routers.report import TrainingDivergedError, routing_accuracy
from racer_jax.routers.training import OptimizerConfig
from tests.devices import devices

pytestmark = pytest.mark.long

CONFIG = MLPConfig(
    hidden=(16,),
    dropout=0.1,
    input_scale=1.0,
    batch_size=32,
    max_epochs=40,
    patience=3,
    optimizer=OptimizerConfig(5e-3),
)


@pytest.fixture(scope="module")
def fitted(problem):
    return fit_mlp(jax.random.key(0), *problem, CONFIG)


def test_beats_every_single_model(problem, fitted):
    x, correct = problem
    router, report = fitted
    scores = router(x)
    assert scores.dtype == jnp.float32
    assert routing_accuracy(scores, correct) > correct.mean(0).max() + 0.15
    assert report.accuracy > report.best_single + 0.1
    assert report.problems == ()
    assert report.spread > 0.1
    assert isinstance(router, Router)


def test_stops_early_and_keeps_the_best_epoch(fitted):
    _, report = fitted
    assert report.evaluations.argmin() == report.best_round
    assert len(report.evaluations) == report.best_round + 1 + CONFIG.patience < CONFIG.max_epochs
    # 280 rows in batches of 32
    assert report.num_steps == len(report.losses) == 9 * len(report.evaluations)
    assert report.losses[-9:].mean() < report.losses[:9].mean()


def test_deterministic_for_a_key_and_different_for_another(problem, fitted):
    again, report = fit_mlp(jax.random.key(0), *problem, CONFIG)
    np.testing.assert_array_equal(again(problem[0]), fitted[0](problem[0]))
    np.testing.assert_array_equal(report.losses, fitted[1].losses)
    other, _ = fit_mlp(jax.random.key(1), *problem, CONFIG)
    assert float(jnp.abs(other(problem[0]) - again(problem[0])).max()) > 0.01


@pytest.mark.long
def test_several_seeds_equal_each_by_itself(problem, fitted):
    keys = jax.vmap(jax.random.key)(jnp.array([0, 7]))
    routers, reports = fit_mlps(keys, *problem, CONFIG)
    assert len(routers) == len(reports) == 2
    np.testing.assert_allclose(routers[0](problem[0]), fitted[0](problem[0]), atol=1e-4)
    assert reports[0].best_round == fitted[1].best_round
    assert float(jnp.abs(routers[1](problem[0]) - routers[0](problem[0])).max()) > 0.01


@pytest.mark.parametrize(
    "most_on_host", [mlp._HOST_WEIGHTS, pytest.param(20, marks=pytest.mark.long)]
)
def test_a_run_starts_from_the_weights_that_flax_draws(monkeypatch, most_on_host):
    monkeypatch.setattr(mlp, "_HOST_WEIGHTS", most_on_host)
    config = MLPConfig(hidden=(6, 3), batch_size=4, max_epochs=2)
    keys = jax.vmap(jax.random.key)(jnp.arange(2))
    start = _start(keys, 9, 5, 2, config)
    for k in range(2):
        init_key, _ = jax.random.split(jax.random.key(k))
        for kernel, layer in zip(start.kernels, _new(init_key, 5, 2, config).layers, strict=True):
            np.testing.assert_array_equal(kernel[k], layer.kernel[...])
            assert not np.any(layer.bias[...])
    assert start.keys.steps.shape == (2, 2 * 3, 2)  # runs, steps, hidden layers


@pytest.mark.long
def test_a_run_vmaps_over_seeds(problem):
    x, y = jnp.asarray(problem[0], jnp.float32), jnp.asarray(problem[1], jnp.float32)
    arrays, config = ((x[80:], y[80:]), (x[:80], y[:80])), replace(CONFIG, max_epochs=3)
    sizes = len(x) - 80, x.shape[1], y.shape[1], config
    starts = _start(jax.vmap(jax.random.key)(jnp.arange(2)), *sizes)
    states, runs = jax.jit(jax.vmap(lambda start: _fit(start, arrays, config)))(starts)
    one = jax.jit(lambda start: _fit(start, arrays, config))
    for i in range(2):
        state, run = one(jax.tree.map(lambda a, i=i: a[i], starts))
        np.testing.assert_allclose(runs.losses[i], run.losses, atol=1e-5)
        jax.tree.map(
            lambda a, b, i=i: np.testing.assert_allclose(a[i], b, atol=1e-4), states, state
        )


@pytest.mark.slow  # compiles in a process of its own
def test_seeds_spread_over_devices_change_nothing(problem, tmp_path):
    np.savez(tmp_path / "problem.npz", x=problem[0], correct=problem[1])
    code = f"""
import sys
import numpy as np
sys.path.insert(0, ".")
from tests.routers.test_mlp import *
assert jax.local_device_count() == 4
problem = np.load({str(tmp_path / "problem.npz")!r})
routers, _ = fit_mlps(jax.random.split(jax.random.key(2), 5), problem["x"], problem["correct"], CONFIG)
np.save({str(tmp_path / "out.npy")!r}, np.stack([router(problem["x"]) for router in routers]))
"""
    subprocess.run([sys.executable, "-c", code], check=True, env=devices(4))
    routers, _ = fit_mlps(jax.random.split(jax.random.key(2), 5), *problem, CONFIG)
    expected = np.stack([router(problem[0]) for router in routers])
    np.testing.assert_allclose(np.load(tmp_path / "out.npy"), expected, atol=1e-4)


def test_scores_are_the_plain_network(problem, fitted):
    router, _ = fitted
    x = (problem[0] - np.asarray(router.mean[...])) * np.asarray(router.scale[...])
    first, last = (
        (np.asarray(layer.kernel[...]), np.asarray(layer.bias[...])) for layer in router.layers
    )
    logits = np.maximum(x @ first[0] + first[1], 0) @ last[0] + last[1]
    np.testing.assert_allclose(router(problem[0]), 1 / (1 + np.exp(-logits)), atol=1e-5)


def test_constant_columns_are_ignored(problem):
    x = problem[0].copy()
    x[:, 7] = 1e6
    router, _ = fit_mlp(jax.random.key(0), x, problem[1], CONFIG)
    assert float(router.scale[...][7]) == 0
    assert float(router.scale[...][:7].min()) > 0


def test_a_constant_router_is_named(problem):
    _, report = fit_mlp(jax.random.key(0), np.zeros((320, 8), np.float32), problem[1], CONFIG)
    assert report.problems[0].startswith("constant router: held-out scores vary by ")


@pytest.mark.long
def test_one_model_and_one_class(problem):
    for value in (0, 1):
        router, report = fit_mlp(jax.random.key(0), problem[0], np.full((320, 1), value), CONFIG)
        assert bool(jnp.isfinite(router(problem[0])).all())
        assert report.accuracy == report.best_single == value


@pytest.mark.long
def test_divergence_stops_with_the_step(problem):
    config = replace(CONFIG, max_epochs=2, optimizer=OptimizerConfig(1e30))
    with pytest.raises(
        TrainingDivergedError, match=r"loss or gradient not finite at step [1-9]"
    ) as error:
        fit_mlp(jax.random.key(0), *problem, config)
    assert error.value.checkpoint is None


def test_questions_are_held_out_together(problem):
    questions = np.arange(320) // 2
    with pytest.raises(ValueError, match=r"questions must have shape \(320,\), got \(3,\)"):
        fit_mlp(jax.random.key(0), *problem, CONFIG, questions=[1, 2, 3])
    _, report = fit_mlp(jax.random.key(0), *problem, CONFIG, questions=questions)
    assert report.num_steps % 9 == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"hidden": ()}, "hidden must hold at least one width"),
        ({"dropout": 1.0}, r"dropout must be in \[0, 1\), got 1.0"),
        ({"input_scale": 0.0}, "input_scale must be positive, got 0.0"),
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
        ({"patience": 0}, "patience must be at least 1, got 0"),
        ({"holdout": 1.0}, r"holdout must be a share of the rows in \(0, 1\), got 1.0"),
    ],
)
def test_bad_config(options, message):
    with pytest.raises(ValueError, match=message):
        MLPConfig(**options)


@pytest.mark.parametrize(
    ("x", "correct", "error", "message"),
    [
        (
            np.ones((2, 3), np.float32),
            np.ones((2, 2)),
            ValueError,
            "batch_size must be at most the 1 rows left",
        ),
        (
            np.ones((1, 3), np.float32),
            np.ones((1, 2)),
            ValueError,
            "at least two different questions, got 1",
        ),
        (np.ones((9, 3), int), np.ones((9, 2)), TypeError, "embeddings must be floating"),
        (
            np.ones((9, 3), np.float32),
            np.ones((8, 2)),
            ValueError,
            r"correct must have shape \[n, m\]",
        ),
    ],
)
def test_bad_input(x, correct, error, message):
    with pytest.raises(error, match=message):
        fit_mlp(jax.random.key(0), x, correct, CONFIG)


def test_bad_queries(fitted):
    assert isinstance(fitted[0], MLPR)
    with pytest.raises(
        ValueError, match="embeddings must have 8 columns, as the router was fitted on, got 2"
    ):
        fitted[0](np.ones((1, 2), np.float32))


def test_what_is_read_from_disk_gives_the_same_scores_without_flax(problem, fitted):
    x, router = problem[0], fitted[0]
    description, arrays = registry.router_parts(router)
    served = registry.router_from(description, arrays)
    again, same_arrays = registry.router_parts(served)
    assert (again, set(same_arrays)) == (description, set(arrays))
    assert all(np.array_equal(same_arrays[name], arrays[name]) for name in arrays)
    assert np.array_equal(served(x), router(x))
    functions = [registry.pure_router(one) for one in (served, router)]
    ours, theirs = (jax.jit(function)(leaves, x) for function, leaves in functions)
    assert np.array_equal(ours, theirs)
    assert isinstance(MLPR.from_parts(description, arrays, "router", None), MLPR)


@pytest.mark.parametrize("name", ["router.mean", "router.layers.0.kernel", "router.layers.1.bias"])
def test_arrays_that_do_not_make_an_mlp_are_refused(fitted, name):
    description, arrays = registry.router_parts(fitted[0])
    with pytest.raises(PartsError, match=f"the array '{name}' is missing"):
        registry.router_from(description, {key: a for key, a in arrays.items() if key != name})
    with pytest.raises(PartsError, match=f"the array '{name}' must have shape"):
        registry.router_from(description, arrays | {name: arrays[name][..., 1:]})
