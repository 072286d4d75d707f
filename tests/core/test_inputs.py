"""What is no array and no key is named, with what to pass instead."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from racer_jax import calibrate, critical_scores, gap, prediction_sets, tie_break
from racer_jax.core.keys import check_key
from racer_jax.core.losses import grade_loss
from racer_jax.core.prediction_sets import misrouted
from racer_jax.data.labels import generator
from racer_jax.montecarlo import pool_steps, split_trials
from racer_jax.racer.racer import Racer
from racer_jax.routers.clusters import cluster_queries
from racer_jax.serving.cascade import Cascade


def tensor_of(library):
    """An object that says it is an array of a library, which need not be installed."""
    names = {"torch": "Tensor", "pandas": "DataFrame", "polars": "DataFrame", "tensorflow": "Eager"}
    kind = type(names[library], (), {"__module__": f"{library}.core"})
    return kind()


@pytest.mark.parametrize(
    ("library", "remedy"),
    [
        ("torch", r"got a torch.Tensor: pass scores.detach\(\).cpu\(\).numpy\(\)"),
        ("pandas", r"got a pandas.DataFrame: pass scores.to_numpy\(\)"),
        ("polars", r"got a polars.DataFrame: pass scores.to_numpy\(\)"),
        ("tensorflow", r"got a tensorflow.Eager: pass scores.numpy\(\)"),
    ],
)
def test_arrays_of_other_libraries_are_named_with_their_remedy(library, remedy):
    with pytest.raises(TypeError, match=f"scores must be an array of JAX or NumPy, {remedy}"):
        gap(tensor_of(library))


@pytest.mark.parametrize(
    ("name", "call"),
    [
        ("critical_scores", lambda x: calibrate(x, 0.1)),
        ("mask", lambda x: calibrate(jnp.arange(9.0), 0.1, x)),
        ("weights", lambda x: calibrate(jnp.arange(9.0), 0.1, weights=x)),
        ("nonconformity", lambda x: critical_scores(x, [[1]])),
        ("correct", lambda x: critical_scores(jnp.zeros((1, 2)), x)),
        ("nonconformity", lambda x: prediction_sets(x, 0.5)),
        ("sets", lambda x: misrouted(x, [[1]])),
        ("grades", lambda x: grade_loss(jnp.zeros((1, 2)), x)),
    ],
)
def test_every_array_of_the_core_is_checked(name, call):
    with pytest.raises(TypeError, match=f"{name} must be an array of JAX or NumPy, got a torch"):
        call(tensor_of("torch"))


@pytest.mark.parametrize(
    ("key", "message"),
    [
        (0, r"key must be jax\.random\.key\(seed\), got 0$"),
        (None, r"key must be jax\.random\.key\(seed\), got None$"),
        (np.zeros(2, np.uint32), "got the uint32 \\[2\\] of jax.random.PRNGKey: make it with"),
        (np.zeros(99), "got an object of type ndarray"),
        (jax.random.split(jax.random.key(0)), "must be a single key, got an array of keys \\[2\\]"),
    ],
)
def test_a_key_that_is_none_is_named(key, message):
    with pytest.raises(TypeError, match=message):
        check_key(key)


@pytest.mark.parametrize(
    "call",
    [
        lambda key: tie_break(key, (2, 3)),
        lambda key: generator(key),
        lambda key: cluster_queries(key, np.zeros((9, 2), np.float32)),
        lambda key: Racer.fit(key, None),
        lambda key: Cascade.fit(key, None),
        lambda key: split_trials(
            key,
            pool_steps(jnp.zeros((4, 2)), np.ones((4, 1))),
            alpha=0.5,
            num_calibration=2,
            num_trials=1,
        ),
    ],
)
def test_functions_that_take_a_key_say_so(call):
    with pytest.raises(TypeError, match=r"key must be jax\.random\.key\(seed\), got 3"):
        call(3)


def test_a_traced_key_passes():
    keys = jax.random.split(jax.random.key(0), 3)
    bits = jax.jit(jax.vmap(lambda key: tie_break(key, (2,))))(keys)
    assert bits.shape == (3, 2)
