"""Lines of a stream: what is wrong with one is said in its place, and the others are read."""

import gzip
import io

import pytest

from racer_jax.cli.inputs import open_input
from racer_jax.data import DataError
from racer_jax.serving import line_input
from racer_jax.serving.json_lines import BadLine, route_queries
from racer_jax.serving.line_input import no_question, numbered_lines, question_of, record_of


@pytest.mark.parametrize(
    ("line", "record"),
    [
        ("plain words", {"text": "plain words"}),
        ('"a string"', {"text": "a string"}),
        ('"Is it?" he said.', {"text": '"Is it?" he said.'}),
        ('"\\"" is a mark', {"text": '"\\"" is a mark'}),
        ("5", {"text": "5"}),
        ('\ufeff{"text": "a"}\r\n', {"text": "a"}),
        ('{"text": "a", "other": [NaN, {}]}', None),
    ],
)
def test_what_a_line_holds(line, record):
    read = record_of(line.encode(), "f", 1, plain=True)
    assert read.keys() == {"text", "other"} if record is None else read == record


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("{", r"begins like JSON, \"{\", and is none: Expecting property name"),
        ('{"text": "a"},', "and is none: Extra data at column 14"),
        ('"a", "b"', "Extra data at column 4"),
        ('"a": 1', "Extra data at column 4"),
        ("]", "begins like JSON"),
        ("}", "begins like JSON"),
        ('[{"text": "a"}]', "got a list: write its items on lines of their own"),
        ('{"text": "a", "text": "b"}', "field 'text': must be named once"),
        ('{"scores": {"a": 0, "a": 1}}', "field 'scores.a': must be named once"),
        ('{"x": ' + "9" * 5000 + "}", "one of more than 4300 digits"),
        ('{"x": ' + "[" * 100_000, "nested less deeply"),
        ("a\x1bb", "got control characters"),
    ],
)
def test_what_a_line_must_not_hold(line, problem):
    with pytest.raises(DataError, match=f"^f, line 2.*{problem}"):
        record_of(line.encode(), "f", 2, plain=True)


def test_a_question_stands_under_either_name():
    assert question_of({"text": None, "query": "a"}, "f", 1) == "a"
    assert question_of({"text": "a", "query": None}, "f", 1) == "a"
    assert question_of({"prompt": "a"}, "f", 1) is None
    message = str(no_question({"prompt": "a"}, None, "f", 1))
    assert message.endswith("must be the text of a question, got an object with 'prompt'")
    assert str(no_question({"query": None}, None, "f", 1)).endswith(
        "field 'query': must be the text of a question, got null"
    )


def test_a_line_too_long_has_its_error_and_the_next_is_read(monkeypatch):
    monkeypatch.setattr(line_input, "LONGEST", 8)
    monkeypatch.setattr(line_input, "_MOST_SKIPPED", 32)
    lines = list(numbered_lines(io.BytesIO(b"a\n\n" + b"x" * 20 + b"\nb\n" + b"y" * 8), "f"))
    assert [number for number, _ in lines] == [1, 3, 4, 5]
    assert [isinstance(line, DataError) for _, line in lines] == [False, True, False, True]
    with pytest.raises(DataError, match="must be lines, got one of more than"):
        list(numbered_lines(io.BytesIO(b"a\n" + b"x" * 80), "f"))


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("a?\nb?\n".encode("utf-16"), "got UTF-16; save it as UTF-8"),
        (b"\n\x00\x01", "got a binary file"),
    ],
)
def test_what_is_no_text(content, problem):
    with pytest.raises(DataError, match=problem):
        list(numbered_lines(io.BytesIO(content), "f"))


def test_what_came_before_a_fault_is_passed_on():
    bad = BadLine(DataError("first"), None)

    def queries():
        yield bad
        raise DataError("second")

    routed = route_queries(None, queries(), batch=256)
    assert next(routed) is bad
    with pytest.raises(DataError, match="second"):
        next(routed)


def test_input_is_plain_or_compressed_lines(tmp_path):
    for name in ("a.jsonl", "b.gz"):
        (tmp_path / name).write_bytes(gzip.compress(b"a?\n"))
        with open_input(str(tmp_path / name)) as file:
            assert file.read() == b"a?\n"
    (tmp_path / "cut.gz").write_bytes(gzip.compress(b"a?\n" * 1000)[:-9])
    with (
        pytest.raises(DataError, match="must be a whole compressed file"),
        open_input(str(tmp_path / "cut.gz")) as file,
    ):
        file.read()
    with pytest.raises(DataError, match="got a table"), open_input("questions.csv.gz"):
        pass
    with pytest.raises(DataError, match="file not found"), open_input(str(tmp_path / "no")):
        pass
