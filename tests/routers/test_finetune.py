"""Encoder and router trained together.

Learns, equals torch's step, resumes, spreads over devices.
"""

import subprocess
import sys
from dataclasses import replace

import jax
import numpy as np
import pytest

from racer_jax.encoders.checkpoint import new_model
from racer_jax.encoders.text import pool
from racer_jax.routers.finetune import FinetuneConfig, FinetuneData, finetune
from racer_jax.routers.report import routing_accuracy
from racer_jax.routers.routerdc import RouterDCConfig
from racer_jax.routers.training import OptimizerConfig
from tests.devices import devices

SIZES = {
    "vocab_size": 30,
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "max_position_embeddings": 8,
}
CONFIG = FinetuneConfig(
    router=RouterDCConfig(
        dim=None,
        num_positive=1,
        num_negative=1,
        batch_size=16,
        steps_per_round=20,
        num_rounds=3,
        temperature=0.2,
        optimizer=OptimizerConfig(1e-2),
    )
)


def problem():
    """Which of two models is right depends on whether word 7 is in the text."""
    rng = np.random.default_rng(0)
    ids = rng.integers(8, 30, (96, 6))
    kind = rng.integers(0, 2, 96)
    ids[np.arange(96), rng.integers(1, 4, 96)] = np.where(kind, 7, 6)
    mask = np.arange(6)[None] < rng.integers(4, 7, 96)[:, None]
    return ids, mask, np.stack([kind == 0, kind == 1], axis=1)


def run(graded=None, **options):
    from transformers import BertConfig

    ids, mask, correct = problem()
    model = new_model(jax.random.key(1), BertConfig(**SIZES))
    options = {"config": CONFIG} | options
    data = FinetuneData(ids, mask, correct, graded, clusters=correct[:, 0].astype(int))
    return finetune(jax.random.key(0), model, data, **options)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("finetune")
    return *run(folder=folder), folder


@pytest.mark.long
def test_learns(trained):
    model, router, result, _ = trained
    ids, mask, correct = problem()
    scores = router(
        pool(jax.jit(lambda i, m: model(i, m))(ids, mask), mask, "cls", normalize=False)
    )
    assert routing_accuracy(scores, correct) > 0.9
    assert result.losses[-5:].mean() < result.losses[:5].mean()
    assert np.isfinite(result.best_value)


@pytest.mark.long
def test_resumes(trained):
    *_, result, folder = trained
    (folder / "step-000000060.safetensors").unlink()
    _, router, again = run(folder=folder)
    assert again.resumed_at == 40
    np.testing.assert_array_equal(again.losses, result.losses)
    np.testing.assert_array_equal(router.models[...], trained[1].models[...])


@pytest.mark.long
def test_other_data_is_another_run(trained):
    graded = 0.6 * problem()[2]
    with pytest.raises(ValueError, match="is the checkpoint of another run"):
        run(graded=graded, folder=trained[3])


@pytest.mark.slow  # in every run for a small model, in test_runs.py
def test_four_devices_equal_one(tmp_path):
    config = replace(
        CONFIG, dropout=False, router=replace(CONFIG.router, steps_per_round=6, num_rounds=1)
    )
    code = f"""
import sys
import numpy as np
sys.path.insert(0, ".")
from racer_jax.encoders.text import data_mesh
from tests.routers.test_finetune import *
config = replace(CONFIG, dropout=False, router=replace(CONFIG.router, steps_per_round=6, num_rounds=1))
_, router, result = run(config=config, mesh=data_mesh())
np.savez({str(tmp_path / "out.npz")!r}, losses=result.losses, models=router.models[...])
"""
    subprocess.run([sys.executable, "-c", code], check=True, env=devices(4))
    _, router, result = run(config=config)
    out = np.load(tmp_path / "out.npz")
    np.testing.assert_allclose(out["losses"], result.losses, atol=1e-5)
    np.testing.assert_allclose(out["models"], router.models[...], atol=1e-4)


def test_bad_input():
    ids, mask, correct = problem()
    with pytest.raises(
        ValueError, match=r"must have one shape \[n, t\] where correct has \[n, m\]"
    ):
        finetune(jax.random.key(0), None, FinetuneData(ids, mask[:, :2], correct), CONFIG)
    with pytest.raises(ValueError, match="correct must be 0/1"):
        finetune(jax.random.key(0), None, FinetuneData(ids, mask, 2 * correct), CONFIG)
