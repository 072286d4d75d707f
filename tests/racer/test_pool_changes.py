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


def test_a_model_is_taken_out_of_a_pool_of_scores(part):
    smaller = part.table.select(models=["small", "large"])
    racer = Racer.from_scores(MODELS, seed=7).calibrate(part.table, 0.2, scores=part.scores)
    kept = racer.keep(["large", "small"])
    assert kept.models == ("small", "large")
    assert kept.calibration is None
    assert kept.static_order == tuple(
        kept.models.index(racer.models[j]) for j in racer.static_order if j != 1
    )
    np.testing.assert_array_equal(kept.cost, racer.cost[[0, 2]])
    columns = part.scores[:, [0, 2]]
    anew = Racer.from_scores(["small", "large"], seed=7).calibrate(smaller, 0.2, scores=columns)
    again = kept.calibrate(smaller, 0.2, scores=columns)
    np.testing.assert_array_equal(
        again.calibration.thresholds(["0.2"])[0], anew.calibration.thresholds(["0.2"])[0]
    )
    assert again.notes[0] == "taken out of the pool: medium"
    assert racer.keep(MODELS).models == MODELS
    with pytest.raises(ValueError, match=r"models must be among .* got 'huge'"):
        racer.keep(["huge"])


@pytest.mark.long
@pytest.mark.parametrize("nonconformity", ["inverse_probability", "static"])
def test_a_router_goes_on_without_a_model_and_is_saved_so(tmp_path, part, nonconformity):
    table = replace(part.table, notes=["left out 3 of 63 queries"])
    encoder = ReducedEncoder.fit(jax.random.key(0), table.texts, 8, HashedNgrams(dim=64))
    racer = Racer.fit(
        jax.random.key(1), table, KNNConfig(k=7), encoder, nonconformity=nonconformity
    )
    whole = racer.score(table)
    kept = racer.keep(["medium", "large"]).keep(["large"])
    assert kept.scorer.columns == (2,)
    smaller = table.select(models=["large"])
    measured = kept.score(smaller)
    np.testing.assert_allclose(measured.scores, whole.scores[:, 2:], atol=1e-6)
    if nonconformity == "static":
        np.testing.assert_array_equal(measured.nonconformity, whole.nonconformity[:, 2:])
    kept.calibrate(smaller, 0.3, allow_overlap=True).save(tmp_path / "a.racer")
    described = json.loads((tmp_path / "a.racer" / "racer.json").read_text())
    assert described["format"] == 3
    assert described["router_columns"] == {"kept": [2], "of": 3}
    loaded = Racer.load(tmp_path / "a.racer")
    np.testing.assert_array_equal(loaded.score(smaller).scores, measured.scores)
    assert loaded.notes == (
        "training: left out 3 of 63 queries",
        "taken out of the pool: small",
        "taken out of the pool: medium",
        "calibration: left out 3 of 63 queries",
    )
    shown = report_data(loaded, loaded.evaluate(smaller, ["0.3"]))["evaluation"]["notes"]
    assert set(loaded.notes) <= set(shown)
    for broken in ({"kept": [3], "of": 3}, {"kept": [0, 1], "of": 3}, {"kept": [True], "of": 3}):
        rewritten(tmp_path / "a.racer", router_columns=broken)
        with pytest.raises(CorruptError, match="router_columns must name 1 columns"):
            Racer.load(tmp_path / "a.racer")


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
