"""Any mutation of a valid file: a correct table or a `DataError` that names it.

What can be known of a mutated file is checked: mutations that do not change the meaning must not
change the table; a file cut short must give nothing that the whole file did not say; whatever else
is read must be what a slow, separate reader of the same bytes reads.
"""

import csv
import importlib.util
import io
import json
import math
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from racer_jax.data import (
    DataError,
    RoutingTable,
    load,
    read_embedllm,
    read_every_eval_ever,
    read_helm,
    read_inspect,
    read_llmrouter,
    read_llmrouterbench,
    read_lm_eval,
    read_long_csv,
    read_parquet,
    read_promptfoo,
    read_routellm,
    read_routerarena,
    read_routerbench,
    read_routerdc,
    read_routereval,
    read_score_matrix,
    read_table,
    read_wide_csv,
    save_table,
    write_long_csv,
    write_parquet,
)
from tests.data import log_samples, samples
from tests.parameters import few_by_default


def exported(folder):
    path = folder / "exported.csv"
    write_long_csv(read_long_csv(samples.long_csv(folder)), path)
    return path


def saved(folder):
    path = folder / "saved.npz"
    save_table(read_long_csv(samples.long_csv(folder)), path)
    return path


def one_log(folder):
    return next(samples.lm_eval(folder).rglob("*toy_arc*"))


def one_old_log(folder):
    return next(samples.lm_eval_old(folder).rglob("*toy_arc*"))


def spreadsheet(folder):
    """A long table as a spreadsheet of another country writes it, with an index."""
    path = samples.long_csv(folder)
    with path.open(encoding="utf-8", newline="") as file:
        head, *rows = csv.reader(file)
    lines = [["", *head[:-1], "Correct "]]
    for number, row in enumerate(rows):
        words = {"1": "Yes", "0": "no"}
        cost = f"${row[5]}".replace(".", ",")
        lines.append([number, *row[:5], cost, *row[6:-1], words[row[-1]]])
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, delimiter=";", lineterminator="\n").writerows(lines)
    return path


def json_rows(folder):
    """A long table as JSON lines."""
    with samples.long_csv(folder).open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    path = folder / "rows.jsonl"
    lines = (json.dumps(row | {"correct": int(row["correct"])}) + "\n" for row in rows)
    path.write_text("".join(lines), encoding="utf-8")
    return path


def saved_parquet(folder):
    path = folder / "saved.parquet"
    write_parquet(read_long_csv(samples.long_csv(folder)), path)
    return path


TEXTS = {
    "spreadsheet": (spreadsheet, read_long_csv),
    "json_rows": (json_rows, read_long_csv),
    "long": (samples.long_csv, read_long_csv),
    "exported": (exported, read_long_csv),
    "wide": (samples.wide_csv, read_wide_csv),
    "routerbench": (samples.routerbench, read_routerbench),
    "routellm": (samples.routellm, read_routellm),
    "llmrouter": (samples.llmrouter, read_llmrouter),
    "routerdc": (samples.routerdc, read_routerdc),
    "lm_eval": (one_log, read_lm_eval),
    "lm_eval_old": (one_old_log, read_lm_eval),
    "inspect": (log_samples.inspect_json, read_inspect),
    "every_eval_ever": (log_samples.every_eval_ever_file, read_every_eval_ever),
    "promptfoo": (log_samples.promptfoo, read_promptfoo),
    "helm": (log_samples.helm_run, lambda path: read_helm(path.parent)),
    "llmrouterbench": (log_samples.llmrouterbench_file, read_llmrouterbench),
    "embedllm": (log_samples.embedllm, read_embedllm),
    "routerarena": (log_samples.routerarena_file, read_routerarena),
}
BINARY = {
    "routereval": (samples.routereval, read_routereval),
    "score_matrix": (samples.score_matrix, lambda path: read_score_matrix(path).table),
    "table": (saved, read_table),
    "inspect_eval": (log_samples.inspect_eval, read_inspect),
}
if importlib.util.find_spec("pyarrow") is not None:
    BINARY["parquet"] = (saved_parquet, read_parquet)
ALL = TEXTS | BINARY
# Those that most people bring are tried in every run.
USUAL = ("long", "wide", "lm_eval", "json_rows")


def usual(names):
    """Names as parameters; what is not usual takes long."""
    return [name if name in USUAL else pytest.param(name, marks=pytest.mark.long) for name in names]


EVIL = [
    *(
        "",
        "NaN",
        "nan",
        "Infinity",
        "-1",
        "2",
        "0.5",
        "1e999",
        "1e-999",
        "9" * 400,
        "0x1",
        "1_0",
        "true",
        "null",
    ),
    *(
        '"',
        '""',
        "'",
        ",",
        ";",
        "\t",
        "\n",
        "\r",
        "\r\n",
        "\\",
        "\x00",
        "\ufeff",
        "\u2028",
        "\u0661",
        "[",
        "]",
    ),
    *("{", "}", "[" * 3000, '{"a":' * 3000, "\\ud800", "x" * 200),
]
KINDS = ("cut", "remove", "repeat", "insert", "flip", "replace token", "swap lines", "repeat line")


class Mutation(NamedTuple):
    """A change of bytes, at a place given as a share of the whole."""

    kind: str
    spot: float
    size: float
    evil: bytes
    byte: int

    def __call__(self, data):
        a = int(self.spot * len(data))
        b = a + int(self.size * (len(data) - a))
        match self.kind:
            case "cut":
                return data[:a]
            case "remove":
                return data[:a] + data[b:]
            case "repeat":
                return data[:b] + data[a:b] + data[b:]
            case "insert":
                return data[:a] + self.evil + data[a:]
            case "flip":
                return data[:a] + bytes([self.byte]) + data[a + 1 :]
            case "replace token":
                end = min(
                    (
                        i
                        for i in (data.find(c, a) for c in (b",", b"\n", b":", b"]", b"}"))
                        if i >= 0
                    ),
                    default=b,
                )
                return data[:a] + self.evil + data[end:]
        lines = data.split(b"\n")
        i, j = int(self.spot * len(lines)) % len(lines), int(self.size * len(lines)) % len(lines)
        if self.kind == "swap lines":
            lines[i], lines[j] = lines[j], lines[i]
        else:
            lines.insert(j, lines[i])
        return b"\n".join(lines)


def mutations():
    shares = st.floats(0, 1)
    evil = st.sampled_from([text.encode() for text in EVIL])
    return st.builds(Mutation, st.sampled_from(KINDS), shares, shares, evil, st.integers(0, 255))


FUZZ = partial(settings, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def attempt(reader, path, data):
    """What a reader makes of some bytes: a table, or the error it must be."""
    path.write_bytes(data)
    try:
        return reader(path)
    except DataError as error:
        refused = error
    assert refused.path is not None
    assert str(path.parent) in str(refused)
    return refused


def check_table(table):
    """What holds of every table, however it came about."""
    assert isinstance(table, RoutingTable)
    assert table.correct.dtype == bool
    rebuilt = replace(table)
    assert rebuilt == table


@pytest.mark.parametrize("name", few_by_default(ALL, 1))
@FUZZ(max_examples=120)
@given(changes=st.lists(mutations(), min_size=1, max_size=3))
def test_any_mutation_gives_a_table_or_a_data_error(tmp_path_factory, name, changes):
    make, reader = ALL[name]
    path = make(tmp_path_factory.mktemp(name))
    data = path.read_bytes()
    for change in changes:
        data = change(data)
    result = attempt(reader, path, data)
    if not isinstance(result, DataError):
        check_table(result)
        # which marks empty labels as it was told to
        assert result.missing is None or name in ("exported", "parquet")
    attempt(load, path, data)


def cells(table):
    """Everything a table says of its pairs, as a set."""
    said = set()
    for i, j in np.ndindex(table.correct.shape):
        pair = (table.ids[i], table.texts[i], table.models[j])
        said.add((*pair, "correct", bool(table.correct[i, j])))
        for field in ("graded", "cost", "tokens", "answers"):
            if getattr(table, field) is not None:
                said.add((*pair, field, str(getattr(table, field)[i, j])))
    return said


@pytest.mark.long
@pytest.mark.parametrize("name", ALL)
def test_a_file_cut_short_anywhere_says_nothing_new(tmp_path, name):
    make, reader = ALL[name]
    path = make(tmp_path)
    data, whole = path.read_bytes(), cells(reader(path))
    for end in range(0, len(data), max(1, len(data) // 500)):
        result = attempt(reader, path, data[:end])
        if isinstance(result, DataError):
            continue
        new = cells(result) - whole
        words = ("may have lost characters", "may be the beginning of another word")
        if any(word in note for note in result.notes for word in words):
            # which speaks of one field, that of the last column in the last row
            assert len(new) <= 1, data[:end][-40:]
            new = {cell for cell in new if cell[0] != result.ids[-1] or cell[3] == "correct"}
        assert not new, data[:end][-40:]


@pytest.mark.parametrize("name", TEXTS)
def test_marks_and_line_ends_of_other_systems_change_nothing(tmp_path, name):
    make, reader = TEXTS[name]
    path = make(tmp_path)
    data, whole = path.read_bytes(), reader(path)
    assert attempt(reader, path, b"\xef\xbb\xbf" + data) == whole
    assert attempt(reader, path, data + b"\n\n") == whole
    if path.suffix != ".csv":  # within quotes of a CSV a line break is part of the text
        assert attempt(reader, path, data.replace(b"\n", b"\r\n")) == whole


@pytest.mark.long
@pytest.mark.parametrize("name", ["long", "wide", "routerbench", "routellm", "embedllm"])
@FUZZ(max_examples=40)
@given(data=st.data())
def test_columns_may_stand_in_any_order(tmp_path_factory, name, data):
    make, reader = TEXTS[name]
    path = make(tmp_path_factory.mktemp(name))
    whole = reader(path)
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file))
    order = data.draw(st.permutations(range(len(rows[0]))))
    samples.write_csv(path, [[row[i] for i in order] for row in rows])
    result = reader(path)
    assert result.select(models=whole.models) == whole


@pytest.mark.parametrize(
    "name",
    ["long", "wide", "routerbench", "routellm", "llmrouter", "lm_eval", "embedllm", "routerarena"],
)
@FUZZ(max_examples=25)
@given(data=st.data())
def test_a_repeated_row_is_found_or_harmless(tmp_path_factory, name, data):
    make, reader = TEXTS[name]
    path = make(tmp_path_factory.mktemp(name))
    whole, text = reader(path), path.read_text(encoding="utf-8")
    if path.suffix == ".csv":
        head, *rows = list(csv.reader(io.StringIO(text, newline="")))
        rows.insert(data.draw(st.integers(0, len(rows))), data.draw(st.sampled_from(rows)))
        samples.write_csv(path, [head, *rows])
    else:
        rows = text.splitlines(keepends=True)
        rows.insert(data.draw(st.integers(0, len(rows))), data.draw(st.sampled_from(rows)))
        path.write_text("".join(rows), encoding="utf-8")
    try:
        result = reader(path)
    except DataError:
        return
    # RouterBench joins its rows; the rows of RouteLLM have no name, and the question then stands
    # twice.
    assert {cell[1:] for cell in cells(result)} == {cell[1:] for cell in cells(whole)}


def slow_long_csv(data):
    """The labels of a long CSV by the plainest means; None where it is not plainly right."""
    try:
        lines = [
            row
            for row in csv.reader(io.StringIO(data.decode("utf-8-sig"), newline=""), strict=True)
            if row
        ]
    except (UnicodeDecodeError, csv.Error):
        return None
    head, *rows = lines
    head = [name.strip().lower() for name in head]
    if any(len(row) != len(head) for row in rows):
        return None
    labels = {}
    for row in (dict(zip(head, row, strict=True)) for row in rows):
        label = {
            "1": True,
            "1.0": True,
            "true": True,
            "0": False,
            "0.0": False,
            "false": False,
            "yes": True,
            "y": True,
            "no": False,
            "n": False,
        }.get((row.get("correct") or "").strip().lower())
        name = row["query_id"].strip() if "query_id" in row else row.get("query")
        pair = (name, (row.get("model") or "").strip())
        if label is None or None in pair or "" in pair or pair in labels:
            return None
        labels[pair] = label
    queries, models = dict.fromkeys(q for q, _ in labels), dict.fromkeys(m for _, m in labels)
    if not labels or len(labels) != len(queries) * len(models):
        return None
    return {(q, m): labels[q, m] for q in queries for m in models}


@pytest.mark.long
@FUZZ(max_examples=300)
@given(changes=st.lists(mutations(), min_size=1, max_size=4))
def test_labels_are_those_of_a_separate_reader(tmp_path_factory, changes):
    path = samples.long_csv(tmp_path_factory.mktemp("twin"))
    data = path.read_bytes()
    for change in changes:
        data = change(data)
    result = attempt(read_long_csv, path, data)
    if isinstance(result, DataError):
        return
    expected = slow_long_csv(data)
    assert expected is not None
    ours = {
        (q, m): bool(result.correct[i, j])
        for i, q in enumerate(result.ids)
        for j, m in enumerate(result.models)
    }
    assert ours == expected


def slow_routerdc(data):
    """The scores of RouterDC's JSON by plain `json`."""
    return [
        {name: float(value) for name, value in record["scores"].items()}
        for record in json.loads(data.decode("utf-8-sig"))
    ]


@pytest.mark.long
@FUZZ(max_examples=300)
@given(changes=st.lists(mutations(), min_size=1, max_size=3))
def test_scores_are_those_of_a_separate_reader(tmp_path_factory, changes):
    path = samples.routerdc(tmp_path_factory.mktemp("twin"))
    data = path.read_bytes()
    for change in changes:
        data = change(data)
    result = attempt(read_routerdc, path, data)
    if isinstance(result, DataError):
        return
    expected = slow_routerdc(data)
    ours = [dict(zip(result.models, row, strict=True)) for row in result.graded.tolist()]
    assert ours == expected
    assert all(math.isfinite(value) for row in ours for value in row.values())


@pytest.mark.slow
@pytest.mark.parametrize("name", ALL)
@FUZZ(max_examples=2000)
@given(changes=st.lists(mutations(), min_size=1, max_size=5))
def test_any_mutation_at_length(tmp_path_factory, name, changes):
    make, reader = ALL[name]
    path = make(tmp_path_factory.mktemp(name))
    data = path.read_bytes()
    for change in changes:
        data = change(data)
    result = attempt(reader, path, data)
    if not isinstance(result, DataError):
        check_table(result)
