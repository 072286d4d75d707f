"""An artefact, and queries as columns."""

from types import SimpleNamespace

import jax
import numpy as np
import pytest

from racer_jax.encoders import HashedNgrams, ReducedEncoder
from racer_jax.racer.racer import Racer
from racer_jax.routers import KNNConfig
from tests.racer.test_racer import table_of


@pytest.fixture(scope="session")
def queries(tmp_path_factory):
    """A calibrated artefact, its racer, and the columns of 50 queries."""
    rng = np.random.default_rng(4)
    train, calibration, test = (
        table_of(rng, num, start=start).table for num, start in ((80, 0), (80, 500), (50, 900))
    )
    encoder = ReducedEncoder.fit(jax.random.key(0), train.texts, 8, HashedNgrams(dim=64))
    racer = Racer.fit(jax.random.key(1), train, KNNConfig(k=7), encoder)
    folder = tmp_path_factory.mktemp("batch") / "my.racer"
    racer.calibrate(calibration, 0.3).save(folder)
    columns = {
        "id": list(test.ids),
        "text": list(test.texts),
        "group": list(test.group),
        "correct": test.correct.astype(bool).tolist(),
    }
    return SimpleNamespace(artefact=folder, racer=Racer.load(folder), table=test, columns=columns)
