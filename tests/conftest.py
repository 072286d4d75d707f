"""Fixtures that more than one test module uses."""

import os
from pathlib import Path

import jax
import pytest

jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_debug_key_reuse", True)


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of real data, beside the checkout or named by RACER_DATA; the test skips where it is absent."""
    root = Path(
        os.environ.get("RACER_DATA", Path(__file__).parents[1] / ".." / "shared" / "data")
    ).resolve()
    if not root.is_dir():
        pytest.skip("no real data (set RACER_DATA)")
    return root


@pytest.fixture(params=["eager", "jit", "vmap"])
def transform(request: pytest.FixtureRequest):
    """Runs a function of arrays as it is, jitted, and vmapped over a batch of one."""

    def vmapped(function):
        def call(*args):
            batched = jax.tree.map(lambda a: jax.numpy.asarray(a)[None], args)
            return jax.tree.map(lambda a: a[0], jax.vmap(function)(*batched))

        return call

    return {"eager": lambda f: f, "jit": jax.jit, "vmap": vmapped}[request.param]
