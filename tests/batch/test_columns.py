"""A batch of columns gives row by row what `Racer.route` decides, whatever cuts and holds it."""

import pickle

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


class AsPolars:
    """A frame as Polars has it: iteration gives the columns, and they do not compare to a truth."""

    class Series:
        def __init__(self, values):
            self.values = values

        def __eq__(self, other):
            return self

        def __bool__(self):
            raise TypeError("the truth value of a Series is ambiguous")

        def __len__(self):
            return len(self.values)

        def __iter__(self):
            return iter(self.values)

        def to_list(self):
            return list(self.values)

    def __init__(self, columns):
        self.held = {name: self.Series(values) for name, values in columns.items()}
        self.columns = list(columns)

    def __iter__(self):
        return iter(self.held.values())

    def __getitem__(self, name):
        return self.held[name]


def strings(columns):
    """The columns of strings by name."""
    return [(name, columns[name]) for name in ("id", "text", "group")]


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
        lambda columns: {name: iter(values) for name, values in columns.items()},
        lambda columns: {
            name: np.array(columns[name], np.dtypes.StringDType())
            for name in ("id", "text", "group")
        },
        lambda columns: pa.table({n: pa.array(v).dictionary_encode() for n, v in strings(columns)}),
        lambda columns: pa.table({n: pa.array(v, pa.large_string()) for n, v in strings(columns)}),
        lambda columns: pa.table({n: pa.array(v, pa.string_view()) for n, v in strings(columns)}),
        lambda columns: pa.record_batch(
            {n: pa.array(["", *v, ""]).slice(1, len(v)) for n, v in strings(columns)}
        ),
        lambda columns: pa.concat_tables(
            [pa.table(columns).slice(first, num) for first, num in ((0, 7), (7, 0), (7, 43))]
        ),
        lambda columns: pd.DataFrame(dict(strings(columns))).astype("category"),
        lambda columns: pd.DataFrame(columns, index=range(len(columns["id"]))[::-1]),
        lambda columns: AsPolars(columns),
    ],
    ids=[
        *("lists", "NumPy", "pandas", "Arrow table", "Arrow batch", "iterators", "NumPy's strings"),
        *("dictionaries", "large strings", "views of strings", "slices", "chunks", "categories"),
        *("shuffled index", "as Polars"),
    ],
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
        ({"rows": 1.5}, TypeError, "rows must be an integer, got 1.5"),
        ({"rows": "16"}, TypeError, "rows must be an integer, got '16'"),
        ({"keep": "id"}, TypeError, r"got a single string; pass \['id'\]"),
        ({"keep": ["id", "models"]}, ValueError, "keep must not name 'models': the result has"),
    ],
)
def test_what_is_wrong_is_named(queries, change, error, match):
    with pytest.raises(error, match=match):
        RouteBatch(**{"artefact": queries.artefact, "rows": ROWS} | change)(queries.columns)


def test_a_text_that_is_none(queries, route):
    columns = dict(queries.columns, text=[*queries.columns["text"][:-1], None])
    with pytest.raises(TypeError, match=r"texts must be strings, got NoneType at \[49\]"):
        route(columns)


@pytest.mark.parametrize(
    ("change", "error", "match"),
    [
        ({"group": ["a"] * 60}, ValueError, "'group' must hold a value for each of the 50 .* 60"),
        ({"group": ["a"] * 49}, ValueError, "'group' must hold a value for each of the 50 .* 49"),
        ({"id": ["a"] * 51}, ValueError, "'id' must hold a value for each of the 50 .* got 51"),
        ({"text": "What is 2 + 2?"}, TypeError, "got the one string 'What is .* batched=True"),
        ({"group": "a"}, TypeError, "column 'group' must hold a value for each of several"),
        (
            {"group": [*["a"] * 49, 7]},
            TypeError,
            "groups must be strings or None, got 7 for que.* 49",
        ),
    ],
)
def test_columns_that_do_not_fit_together(queries, change, error, match):
    route = RouteBatch(queries.artefact, group="group", keep=["id"], rows=25)
    with pytest.raises(error, match=match):
        route(queries.columns | change)


def test_columns_that_are_none(queries, route):
    rows = pa.table(queries.columns).to_pylist()
    with pytest.raises(TypeError, match=r"columns must be a mapping of names .*, got list"):
        route(rows)
    frame = pd.DataFrame(queries.columns)
    twice = pd.concat([frame, frame[["text"]]], axis=1)
    for columns in (twice, pa.Table.from_arrays([*pa.table(queries.columns)] * 2, [*frame] * 2)):
        with pytest.raises(ValueError, match="columns must hold 'text' once, got it 2 times"):
            RouteBatch(queries.artefact, rows=ROWS)(columns)


@pytest.mark.filterwarnings("ignore::racer_jax.racer.errors.UnknownGroupWarning")
@pytest.mark.parametrize(
    "kind", ["str", "string", "category", "object", pd.ArrowDtype(pa.string())], ids=str
)
def test_a_group_that_is_null(queries, route, kind):
    """Each library writes its nulls in its own way, and all of them are no group."""
    groups = [None if i % 3 else name for i, name in enumerate(queries.columns["group"])]
    expected = queries.racer.route(queries.columns["text"], groups)
    frame = pd.DataFrame(queries.columns | {"group": pd.Series(groups, dtype=kind)})
    routed = route(frame)
    assert routed["models"] == [list(decision.models) for decision in expected]
    assert routed["reason"] == [str(decision.reason) for decision in expected]


def test_batches_have_one_arrow_type_whatever_their_rows_are(queries):
    """One whose rows all call no model or that has no rows stands in a table with the others."""
    route = RouteBatch(queries.artefact, group="group", rows=ROWS, alpha="0.9")
    table = pa.table(queries.columns)
    score = ScoreBatch(queries.artefact, group="group", rows=ROWS, correct="correct")
    routed = pa.table(route(table))
    assert max(map(len, routed["models"].to_pylist())) == 0
    expected = {"models": "list<item: string>", "reason": "string", "threshold": "double"}
    expected["scores"] = "list<item: double>"
    assert {field.name: str(field.type) for field in routed.schema} == expected
    sent = pickle.loads(pickle.dumps(route(table.slice(0, 0))))
    for batch in (sent, RouteBatch(queries.artefact, group="group", rows=ROWS)(table)):
        assert pa.table(batch).schema == routed.schema
    assert pa.table(route(table), schema=routed.schema) == routed
    assert pa.table(score(table.slice(0, 0))).schema == pa.table(score(table)).schema


def test_labels_of_another_pool(queries):
    score = ScoreBatch(queries.artefact, group="group", correct="correct", rows=ROWS)
    with pytest.raises(ValueError, match="must hold lists of 3 labels, one for each model, got 2"):
        score(dict(queries.columns, correct=[[True, False]] * 50))
    with pytest.raises(ValueError, match="must hold labels of each of the 50 queries, got 49"):
        score(dict(queries.columns, correct=queries.columns["correct"][:-1]))
    labels = [*queries.columns["correct"][:-1], [True, False, float("nan")]]
    with pytest.raises(ValueError, match=r"column 'correct' must hold 0 or 1 .*, got nan for '"):
        score(dict(queries.columns, correct=labels))


def test_more_rows_than_the_largest_batch_are_one_program_too(queries):
    """2,100 texts in batches of 1,500: a racer cuts at 1,024, and what is left is filled up."""
    columns = {"text": (queries.columns["text"] * 42)[:2100], "id": list(range(2100))}
    route = RouteBatch(queries.artefact, keep=["id"], rows=1024)
    few = route(columns)
    scorer = route._racer().scorer
    before = scorer._forward._cache_size()
    assert RouteBatch(queries.artefact, keep=["id"], rows=1500)(columns) == few
    assert ScoreBatch(queries.artefact, rows=5000)(columns)["scores"] == few["scores"]
    assert scorer._forward._cache_size() == before
