"""LLMRouter's JSON lines and the three kinds of .npz."""

import io
import json
import zipfile

import jax
import numpy as np
import pytest
from hypothesis import given, settings

from racer_jax.data import (
    DataError,
    read_llmrouter,
    read_routereval,
    read_routereval_embeddings,
    read_score_matrix,
    read_table,
    save_table,
)
from racer_jax.data.formats import _npz
from tests.data import samples
from tests.data.strategies import tables

CORRECT = np.array(samples.CORRECT, bool)


def lines(folder, *changes, drop=()):
    """LLMRouter's sample with its first rows changed and some keys removed."""
    path = samples.llmrouter(folder)
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    for row, change in zip(rows, changes, strict=False):
        row.update(change)
    rows = [{name: value for name, value in row.items() if name not in drop} for row in rows]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_llmrouter(tmp_path):
    table = read_llmrouter(samples.llmrouter(tmp_path))
    assert table.models == tuple(samples.MODELS)
    assert table.texts == tuple(samples.QUESTIONS)
    assert table.ids == ("nq/1", "nq/2", "nq/3", "nq/4")
    assert table.group == ("nq",) * 4
    np.testing.assert_array_equal(table.correct, CORRECT)
    assert table.answers.tolist() == [["A0", "A1"]] * 4
    assert table.tokens.tolist() == [[5 + i] * 2 for i in range(4)]


def test_llmrouter_as_one_list(tmp_path):
    path = samples.llmrouter(tmp_path)
    whole = read_llmrouter(path)
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    path.write_text(json.dumps(rows))
    assert read_llmrouter(path) == whole


def test_llmrouter_rows_in_another_order(tmp_path):
    path = samples.llmrouter(tmp_path)
    rows = path.read_text(encoding="utf-8").splitlines(keepends=True)
    path.write_text("\n".join(rows[::-1]), encoding="utf-8")
    table = read_llmrouter(path)
    assert table.texts == tuple(samples.QUESTIONS[::-1])
    assert table.models == tuple(samples.MODELS[::-1])
    np.testing.assert_array_equal(table.correct, CORRECT[::-1, ::-1])


def test_llmrouter_tells_questions_of_one_text_apart_by_their_embedding(tmp_path):
    same = [{"query": "same?"}] * 4
    assert len(read_llmrouter(lines(tmp_path, *same))) == 4
    with pytest.raises(
        DataError,
        match=r"row 3 \(line 3\), field 'query': must be given once for model 'org/weak-7b'",
    ):
        read_llmrouter(lines(tmp_path, *same, drop=["embedding_id"]))


def test_llmrouter_graded_and_bare(tmp_path):
    path = lines(tmp_path, {"performance": 0.5}, drop=["token_num", "response"])
    with pytest.raises(
        DataError,
        match=r"row 1 \(line 1\), field 'performance': must be 0 or 1, got 0.5; for graded",
    ):
        read_llmrouter(path)
    table = read_llmrouter(path, label_rule="score > 0.4")
    assert table.graded[0, 0] == 0.5
    assert table.tokens is None
    assert table.answers is None
    assert (
        read_llmrouter(path, label_rule="one attempt", key=jax.random.key(0)).label_rule
        == "one attempt"
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"query": 3}, "field 'query': must be a text, got 3"),
        ({"task_name": ""}, "field 'task_name': must be a text, got \"\""),
        ({"model_name": None}, "field 'model_name': must be a text, got null"),
        ({"performance": "1"}, "field 'performance': must be a number, got \"1\""),
        ({"performance": None}, "1 of 8 are missing"),
        ({"performance": [1]}, "field 'performance': must be a number, got \\[1\\]"),
        ({"performance": 10**400}, "field 'performance': must be a number"),
        ({"performance": float("nan")}, "1 of 8 are missing"),
        ({"token_num": -1}, "field 'token_num': must be a whole number of at least 0, got -1"),
        ({"token_num": 1.5}, "field 'token_num': must be a whole number of at least 0, got 1.5"),
        ({"response": 3}, "field 'response': must be a text, got 3"),
        ({"model_name": "other"}, "are missing .*first for query 'nq/1' and model 'org/weak-7b'"),
        (
            {"query": "a\ud800"},
            r"row 1 \(line 1\), field 'query': must be text that UTF-8 can write, .* character 2",
        ),
        ({"response": "\ud800"}, "field 'response': must be text that UTF-8 can write"),
    ],
)
def test_llmrouter_rows_that_are_wrong(tmp_path, change, message):
    with pytest.raises(DataError, match=message):
        read_llmrouter(lines(tmp_path, change))


ROW = '{"task_name": "t", "query": "q", "model_name": "m", "performance": 1}'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{}{}", r"row 1 \(line 1\): must be JSON: Extra data"),
        ("\n" + ROW + '\n{"a": ', r"row 2 \(line 3\): must be JSON"),
        ('{"query": "a", "query": "b"}', r"row 1 \(line 1\), field 'query': must be named once"),
        ("3\n", r"row 1 \(line 1\): must be an object, got 3"),
        ("[3]", "row 1: must be an object, got 3"),
        ("1" * 5000, r"row 1 \(line 1\): must be JSON with numbers of a sane length"),
    ],
)
def test_json_lines_that_are_wrong(tmp_path, text, message):
    path = tmp_path / "routing.jsonl"
    path.write_text(text)
    with pytest.raises(DataError, match=message):
        read_llmrouter(path)


def test_unicode_line_separators_stay_inside_their_string(tmp_path):
    path = samples.llmrouter(tmp_path)
    path.write_text(
        path.read_text(encoding="utf-8").replace("legs", "le\u2028gs"), encoding="utf-8"
    )
    assert "le\u2028gs" in read_llmrouter(path).texts[0]


def npz(folder, **arrays):
    path = folder / "file.npz"
    np.savez(path, **arrays)
    return path


def test_routereval(tmp_path):
    path = samples.routereval(tmp_path)
    table = read_routereval(path)
    assert table.texts == tuple(samples.QUESTIONS)
    assert table.models == ("model_1", "model_2")
    assert table.ids == ("test/1", "test/2", "test/3", "test/4")
    assert table.notes == ("the file names no models; they are numbered",)
    np.testing.assert_array_equal(table.correct, CORRECT)
    assert read_routereval(path, part="train", models=["a", "b"]).texts == ("",) * 4
    np.testing.assert_array_equal(read_routereval_embeddings(path), np.arange(12).reshape(4, 3))
    assert read_routereval(
        npz(tmp_path, test_score=[[0.2, 0.9]]), label_rule="score > 0.5"
    ).correct.tolist() == [[False, True]]


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        (
            {"train_score": [[1.0]]},
            r"field 'test_score': must be in the file, which holds \['train_score'\]",
        ),
        ({"test_score": [1.0]}, r"field 'test_score': must have 2 dimensions, got shape \(1,\)"),
        (
            {"test_score": [["1"]]},
            "field 'test_score': must hold booleans or integers or floats, got dtype <U1",
        ),
        (
            {"test_score": [[0.5]]},
            r"row 1, field 'test_score': must be 0 or 1, got 0.5 in column 1; .*label_rule=",
        ),
        ({"test_score": [[np.nan]]}, "row 1, field 'test_score': must be 0 or 1"),
        (
            {"test_score": np.zeros((0, 2))},
            "field 'test_score': must hold at least one query and one model",
        ),
        (
            {"test_score": [[1]], "test_prompt": ["a", "b"]},
            "field 'test_prompt': must hold 1 texts like",
        ),
        (
            {"test_score": np.array([[None]])},
            "Python objects would have to be unpickled, which is never done",
        ),
    ],
)
def test_routereval_files_that_are_wrong(tmp_path, arrays, message):
    with pytest.raises(DataError, match=message):
        read_routereval(npz(tmp_path, **arrays))


def test_routereval_options(tmp_path):
    path = samples.routereval(tmp_path)
    with pytest.raises(ValueError, match=r"part must be one of .* got 'dev'"):
        read_routereval(path, part="dev")
    with pytest.raises(ValueError, match="must have a name for each of its 2 columns, got 1 names"):
        read_routereval(path, models=["a"])
    with pytest.raises(DataError, match="field 'val_embed': must be in the file"):
        read_routereval_embeddings(path, "val")
    with pytest.raises(DataError, match="row 2, field 'test_embed': must be finite"):
        read_routereval_embeddings(npz(tmp_path, test_embed=[[1.0], [np.inf]]))


def test_score_matrix(tmp_path):
    table, scores = read_score_matrix(samples.score_matrix(tmp_path))
    np.testing.assert_array_equal(table.correct, CORRECT)
    np.testing.assert_array_equal(scores, CORRECT * 0.5 + 0.25)
    assert scores.dtype == np.float32
    assert table.ids == ("1", "2", "3", "4")
    named = npz(
        tmp_path, scores=[[0.5]], correct=[[1]], models=["m"], ids=["q"], texts=["t"], group=["g"]
    )
    table = read_score_matrix(named).table
    assert (table.models, table.ids, table.texts, table.group) == (("m",), ("q",), ("t",), ("g",))


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"scores": [[0.5]]}, "field 'correct': must be in the file"),
        (
            {"scores": [[0.5, 1]], "correct": [[1]]},
            r"field 'scores': must have the shape of correct, \(1, 1\)",
        ),
        (
            {"scores": [[1.5]], "correct": [[1]]},
            r"row 1, field 'scores': must be in \[0, 1\], got 1.5 in column 1",
        ),
        ({"scores": [[np.nan]], "correct": [[1]]}, "row 1, field 'scores': must be in"),
        (
            {"scores": [[0.5]], "correct": [[2]]},
            "row 1, field 'correct': must be 0 or 1, got 2 in column 1",
        ),
        (
            {"scores": [[0.5]], "correct": [[1]], "models": ["a", "b"]},
            "field 'models': must hold 1 strings",
        ),
        (
            {"scores": np.zeros((0, 1)), "correct": np.zeros((0, 1))},
            "must hold at least one query and one model",
        ),
        (
            {"scores": [[0.5]], "correct": [[1]], "ids": [""]},
            "must hold a valid table: ids must not hold",
        ),
    ],
)
def test_score_matrices_that_are_wrong(tmp_path, arrays, message):
    with pytest.raises(DataError, match=message):
        read_score_matrix(npz(tmp_path, **arrays))


@pytest.mark.long
@settings(deadline=None, max_examples=60)
@given(tables(min_queries=1))
def test_a_table_comes_back_from_an_npz_bit_for_bit(tmp_path_factory, table):
    path = tmp_path_factory.mktemp("npz") / "table.npz"
    save_table(table, path)
    assert read_table(path) == table
    save_table(table.select([]), path)
    assert read_table(path) == table.select([])


def test_no_part_of_a_saved_table_is_a_pickle(tmp_path):
    path = tmp_path / "table.npz"
    save_table(read_llmrouter(samples.llmrouter(tmp_path)), path)
    with np.load(path, allow_pickle=False) as arrays:
        assert all(arrays[name].dtype.kind in "biuf" for name in arrays.files)


def test_a_saved_table_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    table, path = read_llmrouter(samples.llmrouter(tmp_path)), tmp_path / "table.npz"
    save_table(table, path)

    def fails(file, **arrays):
        file.write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(np, "savez_compressed", fails)
    with pytest.raises(OSError, match="disk full"):
        save_table(table.select([0]), path)
    assert read_table(path) == table
    assert sorted(p.name for p in tmp_path.iterdir()) == ["routing.jsonl", "table.npz"]


def test_the_name_must_tell_the_format(tmp_path):
    with pytest.raises(ValueError, match=r"path must end in \.npz, got"):
        save_table(read_llmrouter(samples.llmrouter(tmp_path)), tmp_path / "table.csv")


def resaved(path, **changes):
    with np.load(path) as arrays:
        rest = {name: arrays[name] for name in arrays.files}
    np.savez(
        path, **{name: array for name, array in {**rest, **changes}.items() if array is not None}
    )
    return path


def text(value):
    return np.frombuffer(value, np.uint8)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"racer_jax_table": np.array(2)}, "must be of format version 1, got 2; update racer_jax"),
        ({"racer_jax_table": None}, "must hold a routing table of this package, got arrays"),
        ({"correct": np.zeros((4, 3), bool)}, "must hold a valid table: correct must have shape"),
        ({"correct": np.zeros((4, 2))}, "field 'correct': must hold booleans, got dtype float64"),
        ({"correct": None}, "field 'correct': must be in the file"),
        (
            {"ids.ends": np.array([1, 2, 3, 99])},
            "field 'ids.ends': must hold ends that fit the bytes",
        ),
        ({"ids.ends": np.array([-1, -1, -1, -5])}, "field 'ids'|ends that fit the bytes"),
        ({"models.bytes": text(b"\xff" * 24)}, "field 'models.bytes': must be UTF-8"),
        (
            {"about.bytes": text(b"{}"), "about.ends": np.array([2])},
            "must hold a valid table: 'schemes'",
        ),
        ({"about.bytes": text(b"x"), "about.ends": np.array([1])}, "must be JSON"),
    ],
)
def test_saved_tables_that_are_wrong(tmp_path, changes, message):
    path = tmp_path / "table.npz"
    save_table(read_llmrouter(samples.llmrouter(tmp_path)), path)
    with pytest.raises(DataError, match=message):
        read_table(resaved(path, **changes))


def member(path, name, data, compression=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr(name, data)
    return path


def header(text_):
    line = text_.encode() + b"\n"
    return b"\x93NUMPY\x01\x00" + len(line).to_bytes(2, "little") + line


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"no array", "must be a whole .npz file: not an array"),
        (header("nonsense"), "the header is damaged"),
        (
            header("{'descr': '<f8', 'fortran_order': False, 'shape': (9,)}"),
            "must have 2 dimensions",
        ),
        (
            header("{'descr': '<f8', 'fortran_order': False, 'shape': (10**6, 1)}"),
            "the header is damaged",
        ),
        (
            header("{'descr': '<f8', 'fortran_order': False, 'shape': (99999999999, 999999999)}"),
            "must hold .* bytes",
        ),
        (
            header("{'descr': [('a', '<f8')], 'fortran_order': False, 'shape': (1, 1)}"),
            "the header is damaged",
        ),
        (
            header("{'descr': '|O', 'fortran_order': False, 'shape': (1, 1)}"),
            "must hold .* got dtype object",
        ),
        (b"\x93NUMPY\x02\x00\xff\xff\xff\xff", "the header is too long"),
    ],
)
def test_arrays_that_claim_what_they_do_not_hold(tmp_path, data, message):
    with pytest.raises(DataError, match=message):
        read_score_matrix(member(tmp_path / "a.npz", "correct.npy", data))


def test_an_archive_that_unpacks_to_too_much_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(_npz, "MAX_BYTES", 1 << 20)
    path = tmp_path / "bomb.npz"
    np.savez_compressed(path, correct=np.zeros((1 << 12, 1 << 9)), scores=np.zeros((1, 1)))
    assert path.stat().st_size < 1 << 15
    with pytest.raises(DataError, match="field 'correct': must unpack to at most"):
        read_score_matrix(path)


def test_archives_of_other_kinds(tmp_path):
    buffer = io.BytesIO()
    np.save(buffer, np.zeros((1, 1)))
    with pytest.raises(DataError, match="must be stored or deflated, as NumPy writes it"):
        read_score_matrix(
            member(tmp_path / "a.npz", "correct.npy", buffer.getvalue(), zipfile.ZIP_LZMA)
        )
    with zipfile.ZipFile(tmp_path / "b.npz", "w") as archive:
        archive.writestr("correct.npy", buffer.getvalue())
        with pytest.warns(UserWarning, match="Duplicate name"):
            archive.writestr("correct.npy", buffer.getvalue())
    with pytest.raises(DataError, match="must hold each array once"):
        read_score_matrix(tmp_path / "b.npz")
    with pytest.raises(DataError, match="file not found"):
        read_score_matrix(tmp_path / "c.npz")
    (tmp_path / "d.npz").write_bytes(b"not a zip")
    with pytest.raises(DataError, match=r"must be a whole \.npz file: File is not a zip file"):
        read_score_matrix(tmp_path / "d.npz")


def test_arrays_in_fortran_order(tmp_path):
    table, scores = read_score_matrix(
        npz(tmp_path, scores=np.asfortranarray(CORRECT * 0.5), correct=CORRECT)
    )
    np.testing.assert_array_equal(scores, CORRECT * 0.5)
    assert len(table) == 4
