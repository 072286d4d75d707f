"""From a routing table to a router of texts."""

import jax
import numpy as np
import pytest

from racer_jax.data import RoutingTable
from racer_jax.encoders import HashedNgrams
from racer_jax.routers import KNNConfig
from racer_jax.routers.fit import fit
from racer_jax.routers.mlp import MLPConfig
from racer_jax.routers.routerdc import RouterDCConfig
from racer_jax.routers.training import OptimizerConfig

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def table():
    rng = np.random.default_rng(0)
    kind = rng.integers(0, 2, 60)
    texts = [
        f"{('solve', '求解')[k]} {('equation', '方程')[k]} number {i}" for i, k in enumerate(kind)
    ]
    return RoutingTable(
        ids=[str(i) for i in range(60)],
        texts=texts,
        models=["en", "zh"],
        correct=np.stack([kind == 0, kind == 1], 1),
    )


@pytest.mark.parametrize(
    "config",
    [
        KNNConfig(k=5),
        MLPConfig(hidden=(8,), batch_size=16, max_epochs=15, input_scale=1.0),
        RouterDCConfig(
            dim=4, batch_size=16, num_rounds=2, cluster_weight=0.0, optimizer=OptimizerConfig(1e-2)
        ),
    ],
    ids=["knn", "mlp", "routerdc"],
)
def test_every_router_tells_the_languages_apart(table, config):
    fitted = fit(jax.random.key(0), table, config)
    scores = np.asarray(fitted.router(["solve this equation", "求解这个方程"]))
    assert scores.shape == (2, 2)
    assert scores.argmax(1).tolist() == [0, 1]
    assert fitted.router.models == ("en", "zh")
    assert (fitted.report is None) == isinstance(config, KNNConfig)


def test_an_encoder_of_ones_own(table):
    fitted = fit(jax.random.key(0), table, KNNConfig(k=5), HashedNgrams(dim=128))
    assert fitted.router.encoder == HashedNgrams(dim=128)


def test_bad_input(table):
    with pytest.raises(
        ValueError, match="k must be between 1 and the number of training rows, 60, got 61"
    ):
        fit(jax.random.key(0), table, KNNConfig(k=61))
    with pytest.raises(
        TypeError, match="config must be a KNNConfig, MLPConfig or RouterDCConfig, got int"
    ):
        fit(jax.random.key(0), table, 3)
    lacking = RoutingTable(
        ids=["a", "b"],
        texts=["x", "y"],
        models=["m"],
        correct=[[0], [1]],
        missing=[[True], [False]],
    )
    with pytest.raises(
        ValueError, match=r"a result of every model for every query; see RoutingTable\.complete"
    ):
        fit(jax.random.key(0), lacking, KNNConfig(k=1))
    silent = RoutingTable(ids=["a", "b"], texts=["x", ""], models=["m"], correct=[[0], [1]])
    with pytest.raises(
        ValueError, match=r"texts must not be empty or only white space, got '' at \[1\]"
    ):
        fit(jax.random.key(0), silent, KNNConfig(k=1))
