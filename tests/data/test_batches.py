"""Logs read many rows at a time say what they say row by row, whatever a row holds."""

import json

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from racer_jax.data import DataError, LmEvalOptions, load, read_lm_eval
from racer_jax.data.formats import _batches, _lines, _records
from racer_jax.data.formats._batches import record_batches, record_lines

STAMP = "2026-01-01T00-00-00.000001"


def one_row(i, j, kind="choice"):
    """A row of model j on question i."""
    best = (i * 7 + j) % 3
    doc = {"question": f"What is {i} + 1?", "choices": ["a", "b", "c"], "more": {"n": i}}
    row = {"doc_id": i, "doc": doc, "target": str(i % 3)}
    row["arguments"] = {"gen_args_0": {"arg_0": f"Question: {i}", "arg_1": " a"}}
    responses = [[str(-1.5 - (k != best)), "False"] for k in range(3)]
    row |= {"resps": [responses], "filtered_resps": responses, "filter": "none"}
    row |= {"metrics": ["acc"], "doc_hash": f"{i:064x}", "acc": float(best == i % 3)}
    if kind == "text":
        row |= {"filtered_resps": [f"{i + j}. "], "metrics": ["exact_match"]}
        row["exact_match"] = row.pop("acc")
    return row


def doubled(text, name, value):
    """A row in which a name stands twice."""
    return text.replace(f'"{name}": ', f'"{name}": {value}, "{name}": ', 1)


FIELDS = {
    "doc_id": [True, -1, 5, 2**70, "1", None, 4000],
    "doc_hash": ["A" * 64, "x", None, 3, "0" * 62 + "  ", "é"],
    "filter": ["", "loose", 1],
    "doc": [{"question": "é?"}, {"question": "\ud800"}, {"question": " "}, "x", {}, {"a": None}],
    "acc": [None, float("nan"), 1, True, 0.5, "1", [1.0], float("inf"), 10**400],
    "exact_match": [0.25, None, 0],
    "target": ["01", "2", "b", 1, 300, None, {"a": 1}],
    "filtered_resps": [
        *([], [["nan", ""], ["1", ""]], [["-inf", ""], ["inf", ""]], [["x", ""], ["1", ""]]),
        *(["[invalid]"], ["\ud800"], ["é "], "a", [["1", ""]] * 27, [["2", ""], ["1", ""]], [1]),
    ],
    "resps": [float("nan")],
    "extra": [1],
}
TEXTS = [
    lambda text: doubled(text, "acc", "0.0"),
    lambda text: doubled(text, "question", '"x"'),
    lambda text: doubled(text, "arg_0", '"x"'),
    lambda text: text.replace(": ", ":").replace(", ", ","),
    lambda text: text.replace('"doc_id": ', '"doc_id":  '),
    lambda text: text + "\r",
    lambda text: " \n" + text,
    lambda text: text + "}",
    lambda text: text.replace('{"arg_0"', '{\n"arg_0"'),
]
changes = st.one_of(
    *(st.tuples(st.just(name), st.sampled_from(values)) for name, values in FIELDS.items()),
    st.tuples(st.just(""), st.sampled_from(TEXTS)),
    st.tuples(st.just("without"), st.sampled_from(["doc", "doc_hash", "filter", "target", "acc"])),
)


def changed_row(row, name, value):
    """The text of a row with one change."""
    if name == "":
        return value(json.dumps(row))
    if name == "without":
        row.pop(value, None)
    else:
        row[name] = value
    return json.dumps(row)


def write_logs(folder, kind, row_changes, end="\n"):
    """Logs of two models, of which some rows are changed."""
    for j in range(2):
        lines = [json.dumps(one_row(i, j, kind)) for i in range(12)]
        for (model, i), change in row_changes.items():
            if model == j:
                lines[i] = changed_row(one_row(i, j, kind), *change)
        path = folder / f"m{j}" / f"samples_toy_{STAMP}.jsonl"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(("\n".join(lines) + end).encode())
    return folder


def outcome(folder, **options):
    """The table, or the error."""
    try:
        return read_lm_eval(folder, **options)
    except DataError as error:
        return str(error)


@pytest.fixture(scope="module")
def row_by_row():
    """Reads every row by itself."""

    def read(folder, **options):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(_records.Layout, "columns", lambda self, block: None)
            return outcome(folder, **options)

    return read


def test_what_is_as_usual_is_read_by_field(tmp_path, monkeypatch, row_by_row):
    monkeypatch.setattr(_lines, "_BLOCK", 3000)
    for kind in ("choice", "text"):
        folder = write_logs(tmp_path, kind, {})
        path = folder / "m0" / f"samples_toy_{STAMP}.jsonl"
        lengths = [len(batch) or -len(list(batch.records)) for batch in record_batches(path)]
        assert lengths[0] < 0
        assert len(lengths) > 1
        assert all(length > 0 for length in lengths[1:])
        table = outcome(folder)
        assert table == row_by_row(folder)
        rows = [[one_row(i, j) for j in range(2)] for i in range(12)]
        assert table.correct.tolist() == [[row["acc"] == 1 for row in pair] for pair in rows]
        answers = np.array(table.answers)
        letters = [["ABC"[(i * 7 + j) % 3] for j in range(2)] for i in range(12)]
        numbers = [[str(i + j) for j in range(2)] for i in range(12)]
        assert answers.tolist() == (letters if kind == "choice" else numbers)
        assert table.texts[3].startswith("What is 3 + 1?")


@pytest.mark.long
@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    row_changes=st.dictionaries(
        st.tuples(st.integers(0, 1), st.integers(0, 11)), changes, max_size=3
    ),
    kind=st.sampled_from(["choice", "text"]),
    end=st.sampled_from(["\n", "", "\n\n "]),
    block=st.sampled_from([500, 2000, 1 << 17]),
    options=st.sampled_from(
        [
            *({}, {"missing": "keep"}, {"label_rule": "score > 0.4", "missing": "drop"}),
            *({"answers": False}, {"whole_prompt": True}, {"filter": "none"}),
        ]
    ),
)
def test_rows_together_are_the_rows_one_by_one(
    tmp_path, row_by_row, row_changes, kind, end, block, options
):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_lines, "_BLOCK", block)
        folder = write_logs(tmp_path, kind, row_changes, end)
        assert outcome(folder, **options) == row_by_row(folder, **options)


def test_a_record_over_two_lines_is_refused_in_a_block_too(tmp_path, monkeypatch):
    """Its lines have as many names as rows have."""
    monkeypatch.setattr(_lines, "_BLOCK", 100)
    path = tmp_path / "rows.jsonl"
    path.write_text('{"a": 1, "b": 1}\n' * 30 + '{"a": {"x": 1,\n"y": 1}, "b": 1}\n')
    with pytest.raises(DataError, match=r"row 31 \(line 31\): must be JSON"):
        list(record_lines(path))
    with pytest.raises(DataError, match=r"row 31 \(line 31\): must be JSON"):
        [batch for batch in record_batches(path) if not len(batch) and list(batch.records)]


def test_numbers_of_names_are_remembered_up_to_a_limit(tmp_path, monkeypatch):
    monkeypatch.setattr(_batches, "_MAX_COUNTS", 0)
    folder = write_logs(tmp_path, "choice", {})
    path = folder / "m0" / f"samples_toy_{STAMP}.jsonl"
    assert [record["acc"] for record in record_lines(path)] == [
        one_row(i, 0)["acc"] for i in range(12)
    ]


def test_options_may_be_gathered_in_an_object(tmp_path):
    folder = write_logs(tmp_path, "choice", {(1, 4): ("acc", None)})
    options = LmEvalOptions(missing="drop", answers=False)
    table = read_lm_eval(folder, options)
    assert table == read_lm_eval(folder, missing="drop", answers=False)
    assert table.answers is None
    assert len(table) == 11
    assert len(read_lm_eval(folder, options, missing="keep")) == 12
    assert load(folder, "lm_eval", missing="drop", answers=False) == table
    with pytest.raises(TypeError, match="unexpected keyword argument 'metrics'"):
        read_lm_eval(folder, metrics="acc")
    with pytest.raises(ValueError, match="missing must be one of"):
        LmEvalOptions(missing="zero")
    with pytest.raises(ValueError, match="rule"):
        LmEvalOptions(label_rule="better")
