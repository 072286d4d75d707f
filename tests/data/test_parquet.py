"""Parquet, long and wide, against tables that are known; and written without loss."""

import gzip
import sys
from dataclasses import replace

import numpy as np
import pytest

from racer_jax.data import (
    DataError,
    RoutingTable,
    guess,
    load,
    read_long_csv,
    read_wide_csv,
    save,
    write_parquet,
    write_predictions,
)
from racer_jax.data.formats import _arrow
from tests.data import samples
from tests.data.samples import CORRECT, IDS, MODELS, QUESTIONS

pa = pytest.importorskip("pyarrow", reason="extra parquet")
pq = pytest.importorskip("pyarrow.parquet", reason="extra parquet")

RIGHT = np.array(CORRECT, dtype=bool)


def long_rows():
    """The rows of `samples.long_csv`, typed."""
    return [
        {
            "query_id": IDS[i],
            "query": QUESTIONS[i],
            "group": f"g{i // 2}",
            "model": model,
            "answer": None if (i, j) == (2, 0) else f"A{j}",
            "cost": 0.25 + i,
            "tokens": 10 * i + j,
            "confidence_verbal": float(j),
            "correct": bool(CORRECT[i][j]),
        }
        for i in range(4)
        for j, model in enumerate(MODELS)
    ]


def written(path, rows, **options):
    pq.write_table(pa.Table.from_pylist(rows), path, **options)
    return path


def wide_rows():
    """The rows of `samples.wide_csv`, typed."""
    rows = []
    for i in range(4):
        row = {"query_id": IDS[i], "query": QUESTIONS[i], "group": "g"}
        row |= dict(zip(MODELS, CORRECT[i], strict=True))
        row |= {f"{MODELS[0]}|answer": f"A{i}", f"{MODELS[1]}|cost": 0.5, f"{MODELS[1]}|tokens": 7}
        rows.append(row)
    return rows


def same(table, other):
    """Whether two tables are equal apart from their notes."""
    return replace(table, notes=other.notes) == other


def test_long_parquet_says_what_the_long_csv_says(tmp_path):
    path = written(tmp_path / "long.parquet", long_rows(), row_group_size=3)
    assert same(load(path), read_long_csv(samples.long_csv(tmp_path)))
    assert guess(path) == "parquet"


def test_wide_parquet_says_what_the_wide_csv_says(tmp_path):
    path = written(tmp_path / "wide.parquet", wide_rows())
    assert same(load(path), read_wide_csv(samples.wide_csv(tmp_path)))
    one = load(path, models=[MODELS[1]])
    assert one.models == (MODELS[1],)
    assert any(repr(MODELS[0]) in note for note in one.notes)


def test_parts_in_a_folder_are_one_table(tmp_path):
    folder = tmp_path / "parts"
    folder.mkdir()
    rows = long_rows()
    written(folder / "part-0.parquet", rows[:3])
    written(folder / "part-1.parquet", rows[3:])
    assert (load(folder).correct == RIGHT).all()
    written(folder / "part-2.parquet", [{"query_id": "q"}])
    with pytest.raises(DataError, match=r"part-2.parquet: must have the columns of part-0"):
        load(folder)


def test_columns_of_other_names_and_of_structs_are_read(tmp_path):
    rows = [
        {
            "doc": {"id": i, "messages": [{"role": "user", "content": QUESTIONS[i]}]},
            "metric": {"acc": float(CORRECT[i][j])},
            "model": model,
        }
        for i in range(4)
        for j, model in enumerate(MODELS)
    ]
    path = written(tmp_path / "nested.parquet", rows)
    with pytest.raises(DataError, match=r"'correct'.*must be a column"):
        load(path)
    names = {"query_id": "doc.id", "query": "doc.messages", "correct": "metric.acc"}
    table = load(path, columns=names)
    assert (table.correct == RIGHT).all()
    assert table.texts == tuple(QUESTIONS)
    with pytest.raises(DataError, match=r"field 'doc\.text'.*must be a field of 'doc'"):
        load(path, columns=names | {"query": "doc.text"})
    with pytest.raises(DataError, match="field 'nothing'"):
        load(path, columns={"query": "nothing"})


def test_scores_need_a_rule(tmp_path):
    rows = [row | {"score": 0.75 * row.pop("correct")} for row in long_rows()]
    path = written(tmp_path / "scores.parquet", rows)
    with pytest.raises(DataError, match="pass label_rule"):
        load(path)
    table = load(path, label_rule="score > 0.5")
    assert (table.correct == RIGHT).all()
    assert (table.graded == 0.75 * RIGHT).all()
    wide = [row | dict.fromkeys(MODELS, 0.75) for row in wide_rows()]
    path = written(tmp_path / "wide.parquet", wide)
    with pytest.raises(
        DataError, match=r"row 1.*got 0\.75; for graded scores pass, for example: label_rule"
    ):
        load(path)
    assert load(path, label_rule="score > 0.5").correct.all()


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"model": None}, r"row 3, field 'model': must not be empty"),
        ({"query_id": ""}, r"row 3, field 'query_id': must not be empty"),
        ({"cost": -1.0}, r"row 3, field 'cost': must be a number of at least 0"),
        ({"cost": float("inf")}, r"row 3, field 'cost': must be a number"),
        ({"tokens": 0.5}, r"row 3, field 'tokens': must be a whole number"),
        ({"confidence_verbal": 2.0}, r"row 3, field 'confidence_verbal': .* in \[0, 1\]"),
        ({"query": "Another?"}, r"row 4, field 'query': must be the same in every row"),
        ({"model": MODELS[1]}, r"row 4, field 'model': must be given once .* in row 3 already"),
        ({"correct": None}, "1 of 8 are missing"),
    ],
)
def test_what_is_wrong_is_named_with_row_and_field(tmp_path, change, match):
    rows = long_rows()
    if "tokens" in change:
        rows = [row | {"tokens": float(row["tokens"])} for row in rows]
    rows[2] |= change
    path = written(tmp_path / "long.parquet", rows, row_group_size=2)
    with pytest.raises(DataError, match=match):
        load(path)


def test_null_and_nan_are_not_known(tmp_path):
    rows = long_rows()
    rows[0] |= {"cost": float("nan"), "tokens": None}
    table = load(written(tmp_path / "long.parquet", rows))
    assert np.isnan(table.cost[0, 0])
    assert np.isnan(table.tokens[0, 0])
    assert np.isfinite(table.cost).sum() == 7


def test_a_table_is_written_without_loss(tmp_path):
    table = RoutingTable(
        ids=["a", "b"],
        texts=["1 + 1?", ""],
        models=["x", "y", "z"],
        correct=[[1, 0, 0], [0, 1, 0]],
        group=["g", "h"],
        graded=[[0.1 + 0.2, 0.0, np.nan], [0.0, 1.0, 0.5]],
        answers=[["2", None, "3"], ["é", "二", None]],
        confidence={"verbal": [[0.5, np.nan, 1.0], [0.0, 0.25, 1.0]]},
        cost=[[1e-9, 2.0, np.nan], [0.0, 1.0, 3.0]],
        tokens=[[1.0, 2.0, 3.0], [np.nan, 5.0, 6.0]],
        price=[0.1, np.nan, 3.0],
        label_rule={"g": "score > 0.5", "h": "score >= 1"},
        missing=[[0, 0, 1], [0, 0, 0]],
        notes=["joined by hand"],
    )
    path = tmp_path / "table.parquet"
    save(table, path)
    assert load(path) == table
    labels = [True, False, None, False, True, False]
    assert pq.read_table(path).column("correct").to_pylist() == labels
    plain = pq.read_table(path).replace_schema_metadata({b"racer_jax_table": b'{"version": 2}'})
    pq.write_table(plain, path)
    with pytest.raises(DataError, match="must be of format version 1"):
        load(path)
    with pytest.raises(ValueError, match="at least one query"):
        write_parquet(table.select([]), path)


def test_a_written_table_that_lost_rows_is_refused(tmp_path):
    path = tmp_path / "table.parquet"
    save(read_long_csv(samples.long_csv(tmp_path)), path)
    pq.write_table(pq.read_table(path).slice(0, 6), path)
    with pytest.raises(DataError, match="must hold the 8 rows that its metadata states, got 6"):
        load(path)


def test_predictions_are_written_as_parquet(tmp_path):
    path = tmp_path / "predictions.parquet"
    called = np.array([[1, 1], [0, 0]], bool)
    write_predictions(path, ["a", "b"], MODELS, called, ["x", None])
    assert pq.read_table(path).to_pylist() == [
        {"query_id": "a", "models": MODELS, "num_models": 2, "abstained": False, "answer": "x"},
        {"query_id": "b", "models": [], "num_models": 0, "abstained": True, "answer": None},
    ]


def test_without_pyarrow_the_error_names_the_extra(tmp_path, monkeypatch):
    path = written(tmp_path / "long.parquet", long_rows())
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ImportError, match=r"pip install -e '\.\[parquet\]'"):
        load(path)
    with pytest.raises(ImportError, match=r"pip install -e '\.\[parquet\]'"):
        save(read_long_csv(samples.long_csv(tmp_path)), tmp_path / "table.parquet")
    assert not (tmp_path / "table.parquet").exists()


def test_a_row_group_that_declares_too_much_is_refused(tmp_path, monkeypatch):
    path = written(tmp_path / "long.parquet", long_rows())
    monkeypatch.setattr(_arrow, "MAX_GROUP", 10)
    with pytest.raises(DataError, match="row group 0 declares"):
        load(path)


PAIRS = {"query": ["a?", "a?"], "model": ["x", "y"]}


@pytest.mark.parametrize(
    ("labels", "note"),
    [
        (["yes", "no"], "yes/no and y/n"),
        (["1", "0"], None),
        (pa.array(["✓", "✗"]).dictionary_encode(), "ticks and crosses"),
        (pa.array([1, 0], pa.uint64()), None),
    ],
)
def test_labels_are_read_whatever_their_type(tmp_path, labels, note):
    path = tmp_path / "rows.parquet"
    pq.write_table(pa.table(PAIRS | {"correct": labels}), path)
    table = load(path)
    assert table.correct.tolist() == [[True, False]]
    assert any("accepted as written" in note for note in table.notes) == (note is not None)
    assert note is None or any(note in text for text in table.notes)


@pytest.mark.parametrize("kind", [pa.binary(), pa.large_string(), pa.string_view()])
def test_texts_are_read_whatever_their_type(tmp_path, kind):
    path = tmp_path / "rows.parquet"
    names = {name: pa.array(values).cast(kind) for name, values in PAIRS.items()}
    pq.write_table(pa.table(names | {"correct": [True, False]}), path)
    assert load(path).models == ("x", "y")
    pq.write_table(pa.table(PAIRS | {"query": [b"\xff", b"a"], "correct": [1, 0]}), path)
    with pytest.raises(DataError, match="row 1, field 'query': must be text in UTF-8"):
        load(path)


def test_columns_are_named_in_any_case_and_an_index_is_no_model(tmp_path):
    path = tmp_path / "rows.parquet"
    pq.write_table(pa.table({"Query ": ["a?"], " MODEL": ["x"], "Correct": [1]}), path)
    table = load(path)
    assert table.models == ("x",)
    assert "names of columns are read without spaces around them, in any case" in table.notes[0]
    for name in ("__index_level_0__", "Unnamed: 0", "index"):
        pq.write_table(pa.table({name: [0, 1], "query": ["a?", "b?"], "x": [1, 0]}), path)
        table = load(path)
        assert table.models == ("x",)
        assert any("columns that number the rows are not models" in n for n in table.notes)


def test_what_is_no_model_or_no_question_is_named_as_in_a_csv(tmp_path):
    path = tmp_path / "rows.parquet"
    pq.write_table(pa.table({"query": ["a?"], "label": [1], "x": [1]}), path)
    with pytest.raises(DataError, match="field 'label': must be the column of a model") as raised:
        load(path)
    assert raised.value.remedy.options == (("models", ["x"]),)
    pq.write_table(pa.table({"query": ["a?"], "mood": ["good"], "x": [1]}), path)
    with pytest.raises(DataError, match=r"got 'good'; if it is not a model pass models=\['x'\]"):
        load(path)
    pq.write_table(pa.table({"query": ["a?", "Total"], "x": [1, 1]}), path)
    with pytest.raises(DataError, match=r"row 2, field 'query': .* a row of totals"):
        load(path)
    counted = {"n": range(1, 201), "query": [f"{i}?" for i in range(200)], "x": [0.7] * 200}
    pq.write_table(pa.table({name: list(values) for name, values in counted.items()}), path)
    assert load(path, label_rule="score > 0.5").models == ("x",)
    pq.write_table(pa.table(PAIRS | {"model": ["x", "x"], "id": [1, 2], "correct": [1, 0]}), path)
    with pytest.raises(DataError, match="tells the questions apart") as raised:
        load(path)
    assert load(path, **dict(raised.value.remedy.options)).ids == ("1", "2")


def test_other_files_are_named_for_what_they_are(tmp_path):
    feather = pytest.importorskip("pyarrow.feather")
    feather.write_feather(pa.table(PAIRS | {"correct": [1, 0]}), tmp_path / "rows.feather")
    with pytest.raises(DataError, match="got an Arrow file"):
        load(tmp_path / "rows.feather")
    pq.write_table(pa.table(PAIRS | {"correct": [1, 0]}), tmp_path / "rows.parquet")
    packed = tmp_path / "rows.parquet.gz"
    packed.write_bytes(gzip.compress((tmp_path / "rows.parquet").read_bytes()))
    with pytest.raises(DataError, match="must not be compressed as a whole; unpack it first"):
        load(packed)
