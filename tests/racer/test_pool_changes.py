"""A model leaves the pool, and what was left out stays known: in the racer, on disk, in figures."""

import json
from dataclasses import replace

import jax
import numpy as np
import pytest

from racer_jax.data import RoutingTable
from racer_jax.encoders import HashedNgrams, ReducedEncoder
from racer_jax.racer.artefact import _checksum
from racer_jax.racer.errors import CorruptError
from racer_jax.racer.racer import Racer
from racer_jax.racer.report import report_data
from racer_jax.routers import KNNConfig, Scores
from tests.racer.test_racer import MODELS, table_of


@pytest.fixture(scope="module")
def part():
    return table_of(np.random.default_rng(5), 60, cost=True)


def test_a_model_that_leaves_the_pool_is_noted(tmp_path, part):
    racer = Racer.from_scores(MODELS, seed=7).calibrate(part.table, 0.2, scores=part.scores)
    smaller = racer.without("medium")
    assert smaller.notes == ("taken out of the pool: medium",)
    smaller.save(tmp_path / "a.racer")
    assert Racer.load(tmp_path / "a.racer").notes == smaller.notes
    table = part.table.select(models=["small", "large"])
    again = smaller.calibrate(table, 0.2, scores=part.scores[:, [0, 2]])
    assert again.notes == smaller.notes


@pytest.mark.long
def test_what_training_left_out_is_kept_and_shown(tmp_path, part):
    table = replace(part.table, notes=["left out 3 of 63 queries"])
    encoder = ReducedEncoder.fit(jax.random.key(0), table.texts, 8, HashedNgrams(dim=64))
    racer = Racer.fit(
        jax.random.key(1), table, KNNConfig(k=7), encoder, nonconformity="inverse_probability"
    )
    racer.calibrate(table, 0.3, allow_overlap=True).save(tmp_path / "a.racer")
    loaded = Racer.load(tmp_path / "a.racer")
    assert loaded.notes == (
        "training: left out 3 of 63 queries",
        "calibration: left out 3 of 63 queries",
    )
    shown = report_data(loaded, loaded.evaluate(table, ["0.3"]))["evaluation"]["notes"]
    assert set(loaded.notes) <= set(shown)


def rewritten(folder, **changes):
    """The description of an artefact changed, with a checksum that fits."""
    described = json.loads((folder / "racer.json").read_text()) | changes
    described["checksum"] = _checksum(described)
    (folder / "racer.json").write_text(json.dumps(described))


def test_notes_of_the_tables_are_kept_in_the_racer(tmp_path, part):
    table = replace(part.table, notes=["left out 1 of 61 queries that lack a model's result"])
    racer = Racer.from_scores(MODELS).calibrate(table, 0.2, scores=part.scores)
    note = "calibration: left out 1 of 61 queries that lack a model's result"
    assert racer.notes == (note,)
    assert racer.at(0.3).notes == (note,)
    racer.save(tmp_path / "a.racer")
    assert Racer.load(tmp_path / "a.racer").notes == (note,)
    assert note in racer.evaluate(part.table, ["0.2"], scores=part.scores).notes
    assert racer.calibrate(part.table, 0.2, scores=part.scores).notes == ()
    rewritten(tmp_path / "a.racer", notes=[7])
    with pytest.raises(CorruptError, match="notes must hold strings, got 7"):
        Racer.load(tmp_path / "a.racer")


def test_a_further_model_of_a_table_is_left_out_with_a_note_in_the_racer(part):
    models = ["large", "huge", "small", "medium"]
    correct = np.column_stack([part.table.correct[:, [2]], part.table.correct[:, [0, 0, 1]]])
    table = RoutingTable(
        ids=part.table.ids,
        texts=part.table.texts,
        models=models,
        correct=correct,
        group=part.table.group,
    )
    racer = Racer.from_scores(MODELS, seed=7)
    with pytest.raises(ValueError, match="in that order, where scores are columns without names"):
        racer.calibrate(table, 0.2, scores=part.scores)
    calibrated = racer.calibrate(table, 0.2, scores=Scores(part.scores, MODELS))
    assert calibrated.notes == (
        "calibration: left out 1 of 4 models, which the pool does not hold: huge",
    )
    plain = racer.calibrate(part.table, 0.2, scores=part.scores)
    np.testing.assert_array_equal(
        calibrated.calibration.thresholds(["0.2"])[0], plain.calibration.thresholds(["0.2"])[0]
    )
