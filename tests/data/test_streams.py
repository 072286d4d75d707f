"""Files read as streams: what is decoded is what Python's parser decodes, and little is held."""

import json
import tracemalloc

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from racer_jax.data import DataError
from racer_jax.data.formats import _lines, _records
from racer_jax.data.formats._json import json_lines
from racer_jax.data.formats._lines import byte_lines
from racer_jax.data.formats._records import record_lines

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
        (row, line, repr({name: record[name] for name in record}))
        for row, line, record in record_lines(path)
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
        count = sum(record["acc"] == 1.0 for _, _, record in record_lines(path))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert count == 5000
    assert peak < 4 * _lines._BLOCK


def test_what_takes_long_shows_a_bar_on_a_terminal_alone(tmp_path, monkeypatch, capsys):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"a": 1}\n', encoding="utf-8")
    monkeypatch.setattr(_lines, "_DELAY", 0.0)
    assert len(list(record_lines(path))) == 1
    assert capsys.readouterr().err == ""
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    assert len(list(record_lines(path))) == 1
    assert "rows.jsonl" in capsys.readouterr().err


def test_the_field_of_a_record_is_there_or_not(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"doc_id": 1, "extra": [1]}\n', encoding="utf-8")
    ((_, _, record),) = record_lines(path)
    assert isinstance(record, _records.Record)
    assert (record["extra"], record.get("acc"), record.get("acc", 3)) == ([1], None, 3)
    assert "extra" in record
    assert list(record) == ["doc_id", "extra"]
    with pytest.raises(KeyError):
        record["acc"]
