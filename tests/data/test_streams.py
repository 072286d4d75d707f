"""Files read as streams: what is decoded is what Python's parser decodes, and little is held."""

import json
import tracemalloc
from collections import Counter

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from racer_jax.data import DataError, load, save
from racer_jax.data.formats import _json, _lines, _progress, _records
from racer_jax.data.formats._batches import record_lines
from racer_jax.data.formats._json import json_lines, json_list
from racer_jax.data.formats._lines import byte_lines
from racer_jax.data.formats._lm_eval_questions import Questions

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**25), 10**25)
    | st.floats(allow_nan=True)
    | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=6,
)
NAMES = st.sampled_from(["doc_id", "doc", "filter", "acc", "resps", "é", 'a"b', "\ud800"])
LAYOUTS = ({}, {"separators": (",", ":")}, {"ensure_ascii": False}, {"indent": None})


@pytest.mark.long
@settings(
    max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(rows=st.lists(st.dictionaries(NAMES, VALUES, min_size=1), min_size=1), data=st.data())
def test_records_are_those_of_the_plain_parser(tmp_path, rows, data):
    layout = data.draw(st.sampled_from(LAYOUTS))
    text = "\n".join(json.dumps(row, **layout) for row in rows)
    path = tmp_path / "rows.jsonl"
    path.write_bytes(text.encode(errors="replace"))
    try:
        expected = [(row, line, repr(record)) for row, line, record in json_lines(path)]
    except DataError as error:  # two names that became one
        with pytest.raises(DataError, match="must be named once"):
            list(record_lines(path))
        assert "must be named once" in str(error)  # noqa: PT017 - both readers refuse the row
        return
    found = [
        (*record.place[1:], repr({name: record[name] for name in record}))
        for record in record_lines(path)
    ]
    assert found == expected


@pytest.mark.parametrize(
    "row",
    [
        '{"doc_id": 1, "acc": 0.0, "acc": 1.0}',
        '{"doc_id":1,"acc":0.0,"acc":1.0}',
        '{"doc_id": 1, "resps": [], "resps": []}',
        '{"acc": 1.0,"acc":1.0}',
        '{"acc": NaN, "acc": 1.0}',
        '{"a\\u0063c": 0.0, "acc": 1.0}',
    ],
)
def test_a_field_named_twice_is_refused(tmp_path, row):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"doc_id": 0, "acc": 1.0}\n' + row + "\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"row 2 \(line 2\), field '\w+': must be named once"):
        list(record_lines(path))


NESTED = '{"doc_id": %d, "doc": {"question": "%s"%s}, "arguments": [{"a": 1%s}], "acc": 1.0}\n'


@pytest.mark.parametrize(
    "inner",
    [
        (', "question": "b?"', ""),
        (', "\\u0071uestion": "b?"', ""),
        (', "x": [{"y": 1, "y": 2}]', ""),
        ("", ', "a": 2'),
    ],
)
def test_a_name_that_stands_twice_within_a_field_is_refused(tmp_path, inner):
    path = tmp_path / "rows.jsonl"
    good = [NESTED % (i, "a?", "", "") for i in range(3)]
    path.write_text("".join(good) + NESTED % (3, "a?", *inner), encoding="utf-8")
    with pytest.raises(
        DataError, match=r"row 4 \(line 4\), field '\w': must be named once|question"
    ):
        list(record_lines(path))
    path.write_text("[" + ",".join([*good, NESTED % (3, "a?", *inner)]) + "]", encoding="utf-8")
    with pytest.raises(DataError, match=r"row 4, field '\w+': must be named once"):
        list(record_lines(path))


@pytest.mark.parametrize("question", ['a "b": c', '\\"a\\": \\u0022:', "x\\\\", '\\":\\":'])
def test_a_text_that_looks_like_names_is_read(tmp_path, question):
    question = question if question[:1] in ("\\", "x") else json.dumps(question)[1:-1]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(NESTED % (i, question, "", "") for i in range(3)), encoding="utf-8")
    docs = [record["doc"] for record in record_lines(path)]
    assert docs == [json.loads(f'{{"question": "{question}"}}')] * 3


def test_a_name_that_stands_twice_is_seen_where_the_numbers_of_names_agree(tmp_path):
    """The row has as many names as another; the field that is read is looked at itself."""
    path = tmp_path / "rows.jsonl"
    rows = ['{"doc": {"a": 1, "b": 2}}\n'] * 2 + ['{"doc": {"a": 1, "a": 2}}\n']
    path.write_text("".join(rows), encoding="utf-8")
    records = list(record_lines(path))
    assert records[1]["doc"] == {"a": 1, "b": 2}
    with pytest.raises(DataError, match=r"row 3 \(line 3\), field 'a': must be named once"):
        records[2]["doc"]
    rows[2] = '{"doc": {"a": 1, "a": "\\u0022:"}}\n'
    path.write_text("".join(rows), encoding="utf-8")
    with pytest.raises(DataError, match=r"row 3 \(line 3\), field 'a': must be named once"):
        list(record_lines(path))[2]["doc"]


def test_an_integer_of_5000_digits_is_refused_with_its_place(tmp_path):
    path = tmp_path / "rows.jsonl"
    digits = "9" * 5000
    for text in ('{"a": 1}\n{"acc": D}\n', '[{"a": 1},\n{"b": [D]}]'):
        path.write_text(text.replace("D", digits), encoding="utf-8")
        with pytest.raises(DataError, match=r"row 2.*: must be JSON with numbers of a sane length"):
            list(record_lines(path))
    path.write_text('{"b": 1}\n' * 2 + '{"b": ' + digits + "}\n", encoding="utf-8")
    records = list(record_lines(path))
    with pytest.raises(DataError, match=r"rows.jsonl, row 3 \(line 3\): .*more than 4300 digits"):
        records[2]["b"]


@pytest.mark.long
@given(
    rows=st.lists(
        st.dictionaries(st.text(max_size=3), VALUES.filter(lambda v: v == v)), min_size=1
    ),
    indent=st.sampled_from([None, 1]),
    block=st.sampled_from([16, 17, 64, 1 << 18]),
)
@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_a_list_is_that_of_the_plain_parser_wherever_blocks_end(tmp_path, rows, indent, block):
    path = tmp_path / "rows.json"
    path.write_text(json.dumps(rows, indent=indent, ensure_ascii=False), errors="replace")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_json, "_BLOCK", block)
        found = [record for _, record in json_list(path)]
    assert repr(found) == repr(json.loads(path.read_text(), object_pairs_hook=dict))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[]", "must hold at least one record, got an empty list"),
        ("[{}", r"row 1 \(line 1\): must be JSON: Expecting ',' delimiter at column 4"),
        (
            '[{"a": 1},\n {"a": 1 "b"}]',
            r"row 2, .*line 2|row 2 \(line 2\): must be JSON: Expecting",
        ),
        ('[{"a": 1},\n\n {"a": ', r"row 2 \(line 3\): must be JSON"),
        ('[{"a": 1}] x', r"line 1: must be JSON: Extra data at column 12"),
        ('[{"a": 1}, 3]', "row 2: must be an object, got 3"),
        ('{"a": 1}', "must be a JSON list of objects, got dict"),
        ("", "must not be empty"),
        ("[" * 100_000, "must be JSON nested less deeply"),
    ],
)
@pytest.mark.parametrize("block", [16, 1 << 18])
def test_lists_that_are_wrong(tmp_path, monkeypatch, text, message, block):
    monkeypatch.setattr(_json, "_BLOCK", block)
    path = tmp_path / "rows.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=message):
        list(json_list(path))


def test_little_is_held_of_a_long_list(tmp_path):
    path = tmp_path / "rows.json"
    row = json.dumps({"doc_id": 1, "arguments": "x" * 2000, "acc": 1.0}, indent=1)
    path.write_text("[" + ",\n".join([row] * 5000) + "]", encoding="utf-8")  # 10 MB
    list(zip(json_list(path), range(3), strict=False))
    tracemalloc.start()
    try:
        count = sum(record["acc"] == 1.0 for _, record in json_list(path))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert count == 5000
    assert peak < 8 * _json._BLOCK


@given(
    rows=st.lists(
        st.tuples(
            st.integers(0, 2),
            st.sampled_from([0, 1, 2, 5, 2000, 10**6, -1, 2**62]),
            st.sampled_from(["ab" * 32, "AB" * 32, "cd" * 32, "x", "  " * 32, ""]),
        )
    )
)
def test_questions_are_told_apart_by_task_number_and_hash(rows):
    tasks = ["b", "a", "c"]
    questions, codes = Questions(tasks), {}
    for task, doc_id, doc_hash in rows:
        # A hash of hexadecimal digits may be in either case.
        key = (tasks[task], doc_id, doc_hash.lower() if len(doc_hash) == 64 else doc_hash)
        assert questions.code(task, doc_id, doc_hash) == codes.setdefault(key, len(codes))
    assert len(questions) == len(codes)
    order = questions.order().tolist()
    named = [(q.task, q.doc_id, q.doc_hash) for q in (questions[code] for code in order)]
    assert named == sorted(named)
    assert [codes[task, i, h.lower() if len(h) == 64 else h] for task, i, h in named] == order
    numbers = Counter((task, doc_id) for task, doc_id, _ in codes)
    several = sorted(pair for pair, count in numbers.items() if count > 1)
    assert list(questions.changed(questions.order())) == several


def test_lines_are_those_of_the_file_wherever_blocks_end(tmp_path, monkeypatch):
    path = tmp_path / "rows.jsonl"
    lines = ["ab", "", "  ", "é" * 5, "\u2028x", "z" * 20]
    for ending in ("\n", "\r\n"):
        path.write_bytes(b"\xef\xbb\xbf" + ending.join(lines).encode())
        for block in (8, 9, 10, 11, 1 << 18):
            monkeypatch.setattr(_lines, "_BLOCK", block)
            found = [(line, str(content, "utf-8")) for line, content in byte_lines(path)]
            assert found == [(1, "ab"), (4, "é" * 5), (5, "\u2028x"), (6, "z" * 20)]


def test_lines_that_are_no_text_or_endless_are_refused(tmp_path, monkeypatch):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'{"a": 1}\n{"a": "\xff"}\n')
    with pytest.raises(DataError, match=r"line 2: must be UTF-8, got byte 0xff at offset 16"):
        list(record_lines(path))
    monkeypatch.setattr(_lines, "MAX_RECORD", 100)
    path.write_text('{"a": 1}\n' + "x" * 200, encoding="utf-8")
    with pytest.raises(DataError, match="line 2: must be a record of at most"):
        list(byte_lines(path))
    path.write_text(" \n\n", encoding="utf-8")
    with pytest.raises(DataError, match="must not be empty"):
        list(byte_lines(path))


def test_little_is_held_of_a_long_file(tmp_path):
    path = tmp_path / "rows.jsonl"
    row = json.dumps({"doc_id": 1, "arguments": "x" * 2000, "acc": 1.0}) + "\n"
    path.write_text(row * 5000, encoding="utf-8")  # 10 MB
    list(zip(record_lines(path), range(3), strict=False))
    tracemalloc.start()
    try:
        count = sum(record["acc"] == 1.0 for record in record_lines(path))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert count == 5000
    assert peak < 8 * _lines._BLOCK


@pytest.mark.parametrize("kind", ["jsonl", "json", "csv", "parquet", "lm_eval"])
def test_what_takes_long_shows_a_bar_on_a_terminal_alone(tmp_path, monkeypatch, capsys, kind):
    path = tmp_path / f"rows.{'jsonl' if kind == 'lm_eval' else kind}"
    log = '{"doc_id": 0, "doc": {"question": "a?"}, "filtered_resps": ["1"], "acc": 1.0}\n'
    rows = {"lm_eval": log}
    rows |= {"jsonl": '{"query": "a?", "model": "x", "correct": 1}\n'}
    rows |= {"json": f"[{rows['jsonl']}]", "csv": "query,model,correct\na?,x,1\n"}
    if kind == "parquet":
        pytest.importorskip("pyarrow")
        (tmp_path / "t.csv").write_text(rows["csv"], encoding="utf-8")
        save(load(tmp_path / "t.csv"), path)
    else:
        path.write_text(rows[kind], encoding="utf-8")
    monkeypatch.setattr(_progress, "_DELAY", 0.0)
    assert len(load(path)) == 1
    assert capsys.readouterr().err == ""
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    assert len(load(path)) == 1
    assert path.name in capsys.readouterr().err


def test_the_field_of_a_record_is_there_or_not(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"doc_id": 1, "extra": [1]}\n', encoding="utf-8")
    (record,) = record_lines(path)
    assert isinstance(record, _records.Record)
    assert (record["extra"], record["acc"], record["resps"]) == ([1], None, None)
    assert "extra" in record
    assert "acc" not in record
    assert list(record) == ["doc_id", "extra"]
