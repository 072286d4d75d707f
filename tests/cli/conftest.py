"""What the tests of the command work on."""

import json
import shutil
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from racer_jax.data import save
from racer_jax.encoders import HashedNgrams, ReducedEncoder
from racer_jax.racer.racer import Racer
from racer_jax.routers import KNNConfig
from tests.racer.test_racer import MODELS, table_of


@pytest.fixture(scope="session")
def made(tmp_path_factory):
    """Tables, an artefact that is calibrated and one that is not, a score matrix and queries."""
    folder = tmp_path_factory.mktemp("commands")
    rng = np.random.default_rng(4)
    train, calibration = table_of(rng, 80), table_of(rng, 80, start=500, answers=True, cost=True)
    test = table_of(rng, 50, start=900, answers=True, cost=True)
    for name, part in (("train", train), ("calibration", calibration), ("test", test)):
        save(part.table, folder / f"{name}.npz")
    np.savez(
        folder / "scores.npz",
        scores=test.scores,
        correct=test.table.correct.astype(int),
        models=np.array(MODELS),
        texts=np.array(test.table.texts),
    )
    encoder = ReducedEncoder.fit(jax.random.key(0), train.table.texts, 8, HashedNgrams(dim=64))
    racer = Racer.fit(jax.random.key(1), train.table, KNNConfig(k=7), encoder)
    racer.save(folder / "bare.racer")
    racer.calibrate(calibration.table, 0.3).save(folder / "my.racer")
    (folder / "queries.jsonl").write_text(
        "".join(
            json.dumps({"text": text, "group": group, "id": name}) + "\n"
            for name, text, group in zip(
                test.table.ids, test.table.texts, test.table.group, strict=True
            )
        )
    )
    (folder / "feedback.jsonl").write_text("0\n" * 20 + '{"missed": 1}\n')
    return SimpleNamespace(folder=folder, test=test.table, racer=Racer.load(folder / "my.racer"))


@pytest.fixture
def folder(made, tmp_path, monkeypatch):
    """A copy of what was made, to work in."""
    shutil.copytree(made.folder, tmp_path / "w")
    monkeypatch.chdir(tmp_path / "w")
    return tmp_path / "w"


@pytest.fixture
def few_queries(monkeypatch):
    """`demo` in miniature."""
    from racer_jax.data import synthetic

    real = synthetic.simulated_pool

    def small(key, test_sizes, train_sizes):
        name = next(iter(test_sizes))
        # Half of the first calibrate: alpha = 0.005 takes 199.
        return real(key, test_sizes={name: 400}, train_sizes={name: 40})

    monkeypatch.setattr(synthetic, "simulated_pool", small)
