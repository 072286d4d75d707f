"""`racer-jax cascade`: from logs to answers, and what cannot be done, said in a line."""

import io
import json
import sys
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from racer_jax.cli.main import main, sequential_words
from racer_jax.data.errors import DataError
from racer_jax.data.formats.table_npz import save_table
from racer_jax.sequential.parts import notes_from
from racer_jax.serving.cascade import Cascade
from racer_jax.serving.cascade_lines import answer_lines
from tests.sequential.pools import answered_table


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("cascade")
    save_table(answered_table(400, seed=6), root / "logs.npz")
    arguments = ["--share", "0.5", "--form", "letter", "--reference", "vote"]
    assert main(["cascade", "train", f"{root}/logs.npz", "-o", f"{root}/a", *arguments]) == 0
    arguments = ["--alpha", "0.05", "--unseen", "-o", f"{root}/b"]
    assert main(["cascade", "calibrate", f"{root}/a", f"{root}/logs.npz", *arguments]) == 0
    return root


@pytest.mark.long
def test_train_calibrate_and_evaluate(folder, capsys):
    assert main(["cascade", "calibrate", f"{folder}/b", "--alpha", "0.1", "-o", f"{folder}/c"]) == 0
    assert "is at most 0.1" in capsys.readouterr().out
    logs = f"{folder}/logs.npz"
    assert main(["cascade", "evaluate", f"{folder}/b", logs, "--alphas", "0.05,0.1", "--json"]) == 0
    levels = json.loads(capsys.readouterr().out)["levels"]
    assert [level["alpha"] for level in levels] == ["0", "0.05", "0.1"]
    calls = [level["calls"] for level in levels]
    assert calls == sorted(calls, reverse=True)
    assert main(["cascade", "evaluate", f"{folder}/b", logs]) == 0
    said = capsys.readouterr()
    assert "stopped after" in said.out
    assert "optimistic: 400 of these 400 questions were used for training or calib" in said.err
    assert main(["cascade", "calibrate", f"{folder}/b", "--alpha", "0.05", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["n"] == 200


def lines(cascade, *records):
    text = b"".join(
        (r if isinstance(r, bytes) else json.dumps(r).encode()) + b"\n" for r in records
    )
    return map(json.loads, answer_lines(cascade, io.BytesIO(text), "-"))


def until_the_end(answers):
    """All lines that come back, and the error at the end."""
    out = []
    with pytest.raises(DataError) as end:
        out.extend(answers)
    return out, end.value


def test_queries_are_opened_by_every_kind_of_line(folder, capsys, monkeypatch):
    queries = b"plain words?\n" + b'{"id": 7, "query": "q?"}\n' + b'"quoted" words?\n' + b"\xff\n"
    queries += b'{"id": 8, "text": " "}\n' + b'{"id": 9, "text": "a", "text": "b"}\n'
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(queries)))
    assert main(["route", f"{folder}/b", "--sequential", "-"]) == 1
    printed = capsys.readouterr()
    out = [json.loads(line) for line in printed.out.splitlines()]
    assert [line.get("id") for line in out] == [1, 7, 3, None, 8, None]
    assert ["error" in line for line in out] == [False] * 3 + [True] * 3
    assert "ends while 3 queries are open, first 1; 3 of 6 lines did not fit" in printed.err
    (folder / "bad.jsonl").write_bytes(b"\xff\nquestion?\n")
    words = ["cascade", "route", f"{folder}/b", "--input", f"{folder}/bad.jsonl", "--strict"]
    assert main(words) == 1
    assert "line 1: must be text in UTF-8" in capsys.readouterr().err
    assert main(["route", f"{folder}/b", "--sequential", "what?"]) == 1
    assert "give them by --input FILE" in capsys.readouterr().err


@pytest.mark.long
def test_a_conversation_in_lines(folder):
    cascade = Cascade.load(folder / "b")
    first = cascade.policy.calls[0]
    answers = dict.fromkeys(cascade.models, "B")
    out, end = until_the_end(
        lines(
            cascade,
            {"id": "x", "text": "What is 2 + 2?"},
            {"id": "y", "text": "And 3 + 3?"},
            {"id": "x", "text": "again"},
            {"id": "x", "answers": {"nobody": "A"}},
            {"id": "z", "answers": {first: "A"}},
            {"id": "x", "answers": {first: 3}},
            {"id": "x", "answers": [first]},
            b"{",
            b"[]",
            {"id": True, "text": "no id"},
            {"id": "x"},
            *({"id": "x", "answers": {name: answers[name]}} for name in cascade.policy.calls[:1]),
            {"id": "y", "answers": {first: None}},
            *({"id": name, "answers": {model: "C"}} for model in cascade.policy.calls[1:] for name in "xy"),
        )
    )  # fmt: skip
    assert out[0] == {"id": "x", "call": [first], "calls": 0, "cost": 0}
    errors = [line["error"] for line in out[2:11]]
    for error, expected in zip(
        errors,
        (
            "'x' is open already", "was not asked", "no query 'z' is open", "must be a string",
            "must be an object", "be a JSON object", "got a list", "or a whole number", "'text'",
        ),
        strict=True,
    ):  # fmt: skip
        assert expected in error
    assert (out[2]["id"], out[2]["line"]) == ("x", 3)
    assert "15 of 21 lines did not fit; each has an object with 'error'" in str(end)
    final = [line for line in out if "reason" in line]
    assert {line["id"] for line in final} == {"x", "y"}
    assert all(line["answer"] in ("B", "C") for line in final)


@pytest.mark.long
def test_sequential_is_another_word_for_the_commands_of_cascade(folder, capsys):
    words = ["evaluate", "{0}/b", "{0}/logs.npz"]
    shown = []
    for arguments in (["cascade", *words], [*words, "--sequential"]):
        assert main([word.format(folder) for word in arguments]) == 0
        shown.append(capsys.readouterr().out)
    assert shown[0] == shown[1]
    after = ["route", "my.racer", "--", "--sequential"]  # a question, not an option
    assert sequential_words(after) == after
    assert sequential_words([]) == []
    report = ["report", "my.racer", "--sequential", "my.cascade"]  # there it takes an artefact
    assert sequential_words(report) == report


def test_what_is_left_out_is_said_and_may_calibrate_again(folder, capsys):
    """`b` was calibrated on the 200 questions that it was not trained on."""
    words = ["cascade", "calibrate", f"{folder}/b", f"{folder}/logs.npz", "-o", f"{folder}/again"]
    assert main([*words, "--unseen", "--alpha", "0.05"]) == 0
    printed = capsys.readouterr()
    assert "200 calibration queries" in printed.out
    assert "--unseen left out 200 of 400 questions: 200 trained on" in printed.err
    assert "200 questions were calibrated on before and may be used again" in printed.err


@pytest.mark.long
def test_what_is_left_out_is_said_in_json_and_in_the_artefact(folder, capsys):
    """Questions without a result, of those that were trained on: the others are as many as ever."""
    table = answered_table(400, seed=6)
    fresh = set(Cascade.load(folder / "a").unseen(table).ids)
    missing = np.zeros(table.correct.shape, bool)
    missing[[row for row, name in enumerate(table.ids) if name not in fresh][:7], 0] = True
    known = table.correct & ~missing
    save_table(replace(table, missing=missing, correct=known), folder / "holes.npz")
    words = ["calibrate", f"{folder}/a", f"{folder}/holes.npz", "-o", f"{folder}/said", "--json"]
    assert main(["cascade", *words, "--unseen", "--alpha", "0.1"]) == 0
    printed = capsys.readouterr()
    note = "left out 7 of 400 queries that lack a model's result"
    assert note in json.loads(printed.out)["notes"]
    assert f"note: {note}\n" in printed.err
    assert f"calibration: {note}" in Cascade.load(folder / "said").notes
    assert main(["cascade", "evaluate", f"{folder}/said", f"{folder}/logs.npz", "--json"]) == 0
    assert f"calibration: {note}" in json.loads(capsys.readouterr().out)["notes"]
    name = table.models[0]
    save_table(table.select(models=table.models[1:]), folder / "fewer.npz")
    assert main(["cascade", "evaluate", f"{folder}/said", f"{folder}/fewer.npz"]) == 1
    said = capsys.readouterr().err
    assert "fewer.npz: the table has no model " in said
    assert f"no model {name!r}" in said
    assert "train a cascade of the others: cascade train --models " in said


def test_older_artefacts_of_cascades_have_no_notes(folder):
    """And notes that are no texts are refused."""
    path = folder / "noted"
    Cascade.load(folder / "b").save(path)
    description = json.loads(next(path.glob("*.json")).read_text())
    assert description["notes"]
    del description["notes"]
    assert notes_from(description) == ()
    with pytest.raises(ValueError, match="notes must be a list of texts"):
        notes_from(description | {"notes": [1]})


@pytest.mark.long
def test_unlabelled_traffic(folder, capsys):
    table = answered_table(400, seed=6)
    nothing = np.zeros(table.correct.shape, bool)
    save_table(replace(table, correct=nothing, missing=~nothing), folder / "traffic.npz")
    traffic = f"{folder}/traffic.npz"
    words = ["cascade", "calibrate", f"{folder}/a", traffic, "-o", f"{folder}/blind", "--unseen"]
    assert main([*words, "--alpha", "0.05", "--loss", "differs"]) == 0
    assert "differs from that of the vote of all models" in capsys.readouterr().out
    assert main(["cascade", "evaluate", f"{folder}/blind", traffic]) == 0
    assert "accuracy" not in capsys.readouterr().out
    assert main([*words, "--alpha", "0.05"]) == 1
    assert "--loss differs does without" in capsys.readouterr().err


def test_open_queries_at_the_end_are_named(folder):
    cascade = Cascade.load(folder / "b")
    out = lines(cascade, {"id": "q", "text": "What?"})
    assert next(out)["id"] == "q"
    with pytest.raises(DataError, match="ends while 1 query is open, first 'q'"):
        next(out)


def test_route_reads_a_file(folder, capsys):
    queries = folder / "queries.jsonl"
    queries.write_text('{"id": "q", "text": "What?"}\n')
    assert main(["cascade", "route", f"{folder}/a", "--input", str(queries)]) == 1
    printed = capsys.readouterr()
    assert json.loads(printed.out)["id"] == "q"
    assert "Not calibrated" in printed.err
    assert "1 query is open" in printed.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "{0}/logs.npz", "-o", "{0}/new", "--batches", "two"], "--batches must be whole"),
        (["train", "{0}/logs.npz", "-o", "{0}/new", "--form", "letters"], "json:FIELD"),
        (["calibrate", "{0}/a", "--alpha", "0.1"], "has no calibration to change alpha of"),
        (["calibrate", "{0}/b", "--alpha", "0.001"], "takes at least 999 calibration rows"),
        (["calibrate", "{0}/b", "--alpha", "0.1", "--loss", "wrong"], "another --loss needs"),
        (["calibrate", "{0}/b", "{0}/logs.npz", "--alpha", "0.1"], "were trained on"),
        (
            ["evaluate", "{0}/logs.npz", "{0}/logs.npz"],
            "not an artefact: an artefact is a folder, got a file",
        ),
        (
            ["train", "{0}/logs.npz", "-o", "{0}/new", "--share", "2"],
            "--share must be above 0 and at most 1",
        ),
        (["route", "{0}/a", "--alpha", "0.1"], "needs a threshold"),
    ],
)
def test_what_cannot_be_done(arguments, message, folder, capsys):
    assert main(["cascade", *(word.format(folder) for word in arguments)]) == 1
    assert message in capsys.readouterr().err
    assert not (folder / "new").exists()
