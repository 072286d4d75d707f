"""A batch of columns gives row by row what `Racer.route` decides, whatever cuts and holds it."""

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from racer_jax.batch import RouteBatch, ScoreBatch, threshold_of_shards
from racer_jax.batch.columns import _loaded
from racer_jax.core.calibration import critical_scores
from racer_jax.racer.errors import ArtefactError

pytestmark = pytest.mark.long  # an artefact is trained first
ROWS = 16


def check(queries, result):
    """Whether rows `id`, `models`, ... are the decisions on these queries."""
    routed = queries.racer.route(queries.columns["text"], queries.columns["group"])
    expected = {name: routed[i] for i, name in enumerate(queries.columns["id"])}
    assert len(result["id"]) == len(expected)
    for i, name in enumerate(result["id"]):
        decision = expected.pop(str(name))
        assert tuple(result["models"][i]) == decision.models
        assert str(result["reason"][i]) == str(decision.reason)
        assert float(result["threshold"][i]) == decision.threshold
        np.testing.assert_allclose(result["scores"][i], list(decision.scores.values()), rtol=1e-6)
    assert not expected


@pytest.fixture
def route(queries):
    return RouteBatch(queries.artefact, group="group", keep=["id"], rows=ROWS)


@pytest.mark.parametrize(
    "held_as",
    [
        lambda columns: columns,
        lambda columns: {name: np.array(values) for name, values in columns.items()},
        pd.DataFrame,
        pa.table,
        lambda columns: pa.RecordBatch.from_pydict(columns),
    ],
    ids=["lists", "NumPy", "pandas", "Arrow table", "Arrow batch"],
)
def test_columns_of_any_library(queries, route, held_as):
    check(queries, route(held_as(queries.columns)))


def test_one_program_serves_batches_of_every_length(queries, route):
    """What is cut differently has the same rows, bit for bit, and nothing is compiled for it."""
    whole = route(queries.columns)
    scorer = route._racer().scorer
    before = scorer._forward._cache_size()
    parts = [
        route({name: values[first:last] for name, values in queries.columns.items()})
        for first, last in ((0, 1), (1, 8), (8, 30), (30, 50))
    ]
    assert scorer._forward._cache_size() == before
    for name, column in whole.items():
        assert [value for part in parts for value in part[name]] == column


def test_an_empty_batch_has_empty_columns(queries, route):
    empty = route({name: [] for name in queries.columns})
    assert empty == {"id": [], "models": [], "reason": [], "threshold": [], "scores": []}


def test_another_level(queries):
    route = RouteBatch(queries.artefact, group="group", rows=ROWS, alpha="0.6")
    expected = queries.racer.at("0.6").route(queries.columns["text"], queries.columns["group"])
    assert route(queries.columns)["models"] == [list(decision.models) for decision in expected]


def test_an_artefact_that_is_written_again_is_read_again(queries, tmp_path):
    path = tmp_path / "my.racer"
    queries.racer.save(path)
    route = RouteBatch(path, group="group", rows=ROWS)
    before = route(queries.columns)["threshold"]
    queries.racer.at("0.6").save(path)
    assert route(queries.columns)["threshold"] != before
    assert _loaded.cache_info().currsize <= 4


def test_scores_and_critical_scores(queries):
    score = ScoreBatch(queries.artefact, group="group", correct="correct", rows=ROWS)
    result = score(queries.columns)
    measured = queries.racer.score(queries.table)
    np.testing.assert_allclose(result["scores"], measured.scores, rtol=1e-6)
    np.testing.assert_allclose(result["nonconformity"], measured.nonconformity, rtol=1e-6)
    entries = np.array(result["nonconformity"], np.float32)
    critical = np.asarray(critical_scores(entries, queries.table.correct))
    assert np.float32(result["critical"]).tolist() == critical.tolist()
    threshold = threshold_of_shards(lambda: [np.array(result["critical"])], 0.3)
    assert (critical <= threshold).mean() >= 0.7


@pytest.mark.parametrize(
    ("change", "error", "match"),
    [
        ({"text": "question"}, ValueError, "columns must hold 'question', got 'id', 'text'"),
        ({"group": "task"}, ValueError, "columns must hold 'task'"),
        ({"keep": ["name"]}, ValueError, "columns must hold 'name'"),
        ({"artefact": "nowhere.racer"}, ArtefactError, "nowhere.racer: folder not found"),
        ({"rows": 0}, ValueError, "rows must be at least 1, got 0"),
    ],
)
def test_what_is_wrong_is_named(queries, change, error, match):
    with pytest.raises(error, match=match):
        RouteBatch(**{"artefact": queries.artefact, "rows": ROWS} | change)(queries.columns)


def test_a_text_that_is_none(queries, route):
    columns = dict(queries.columns, text=[*queries.columns["text"][:-1], None])
    with pytest.raises(TypeError, match=r"texts must be strings, got NoneType at \[49\]"):
        route(columns)


def test_labels_of_another_pool(queries):
    score = ScoreBatch(queries.artefact, group="group", correct="correct", rows=ROWS)
    with pytest.raises(ValueError, match="must hold lists of 3 labels, one for each model, got 2"):
        score(dict(queries.columns, correct=[[True, False]] * 50))
    with pytest.raises(ValueError, match="must hold labels of each of the 50 queries, got 49"):
        score(dict(queries.columns, correct=queries.columns["correct"][:-1]))
    labels = [*queries.columns["correct"][:-1], [True, False, float("nan")]]
    with pytest.raises(ValueError, match=r"column 'correct' must hold 0 or 1 .*, got nan for '"):
        score(dict(queries.columns, correct=labels))
