"""Every command as a user types it.

What it prints and leaves, and how it ends when it is fed nonsense.
"""

import argparse
import importlib.util
import io
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import jax
import pytest

from racer_jax.cli import system
from racer_jax.cli.main import _parsed, build_parser, main
from racer_jax.data import load
from racer_jax.racer.racer import Racer
from tests.racer.test_racer import MODELS

# --- what they do ---------------------------------------------------------------------------------


@pytest.mark.long
def test_the_whole_path(folder, capsys):
    assert (
        main(
            [
                "train",
                "train.npz",
                "-o",
                "new.racer",
                "--router",
                "knn",
                "--share",
                "0.9",
                "--seed",
                "3",
            ]
        )
        == 0
    )
    told = capsys.readouterr().out
    assert "trained the router 'knn' on 72 questions; 'racer-jax evaluate' says how well" in told
    assert "Next: racer-jax calibrate " in told
    assert main(["calibrate", "new.racer", "calibration.npz", "--alpha", "0.25", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["alpha"] == "0.25"
    assert told["n"] == 80
    assert "exchangeable" in told["guarantee"]
    assert main(["calibrate", "new.racer", "--alpha", "0.4", "-o", "other.racer"]) == 0
    assert Racer.load("new.racer").alpha == "0.25"
    assert Racer.load("other.racer").alpha == "0.4"
    assert (
        main(
            [
                "evaluate",
                "new.racer",
                "test.npz",
                "--alphas",
                "0.1:0.3:0.1",
                "--output",
                "figures.json",
            ]
        )
        == 0
    )
    printed = capsys.readouterr().out
    assert "full ensemble" in printed
    figures = json.loads(Path("figures.json").read_text())
    assert figures["alphas"] == ["0.1", "0.2", "0.25", "0.3"]
    assert (
        main(["evaluate", "new.racer", "test.npz", "--json", "--alphas", "0.1", "--group", "a"])
        == 0
    )
    assert [g["group"] for g in json.loads(capsys.readouterr().out)["groups"]] == ["all", "a"]


@pytest.mark.long
def test_unseen_leaves_out_what_was_trained_and_calibrated_on(folder, capsys):
    assert (
        main(["train", "calibration.npz", "-o", "new.racer", "--router", "knn", "--share", "0.5"])
        == 0
    )
    assert main(["calibrate", "new.racer", "calibration.npz", "--alpha", "0.3"]) == 1
    assert "41 of 80 calibration questions were trained on" in capsys.readouterr().err
    assert (
        main(
            [
                "calibrate",
                "new.racer",
                "calibration.npz",
                "--alpha",
                "0.3",
                "--unseen",
                "--share",
                "0.5",
                "--no-groups",
            ]
        )
        == 0
    )
    assert (
        main(["evaluate", "new.racer", "calibration.npz", "--unseen", "--json", "--alphas", "0.3"])
        == 0
    )
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert found["num_seen"] == 0
    assert found["groups"][0]["num_queries"] == 19
    assert (
        main(["calibrate", "new.racer", "calibration.npz", "--alpha", "0.3", "--allow-overlap"])
        == 0
    )
    assert "Nothing is promised" in capsys.readouterr().out


@pytest.mark.long
def test_what_is_left_out_is_said_with_counts(folder, capsys):
    """On the terminal and in JSON, by every command that leaves rows out."""
    Path("holes.csv").write_text(
        "".join(["query,model,correct\n"])
        + "".join(f"q{i}?,x,{i % 2}\nq{i}?,y,{'' if i < 3 else 1}\n" for i in range(20))
    )
    line = ["train", "holes.csv", "-o", "h.racer", "--router", "knn", "--missing", "drop"]
    assert main([*line, "--share", "0.5", "--json"]) == 0
    streams = capsys.readouterr()
    notes = json.loads(streams.out)["notes"]
    assert any("3" in note and "20" in note for note in notes), notes
    left_out = next(note for note in notes if note.startswith("--share 0.5 left out"))
    assert left_out.endswith("of 17 questions")
    assert f"note: {left_out}\n" in streams.err
    line = ["evaluate", "my.racer", "test.npz", "--alphas", "0.3", "--group", "a", "--json"]
    assert main(line) == 0
    notes = json.loads(capsys.readouterr().out)["notes"]
    assert any(note.startswith("--group left out ") for note in notes)


def test_route_in_words_and_in_json(folder, made, capsys):
    assert main(["route", "my.racer", "--group", "a", "What is a prime?"]) == 0
    assert "at alpha = 0.3 in group 'a'" in capsys.readouterr().out
    assert (
        main(["route", "my.racer", "--group", "a", "--json", "--alpha", "0.001", "x?", "y?"]) == 0
    )
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["reason"] for line in lines] == ["alpha infeasible"] * 2
    assert main(["route", "my.racer", "--group", "a", "x?", "--output", "words.txt"]) == 0
    assert capsys.readouterr().out == ""
    assert Path("words.txt").read_text().startswith("x?\n  ")


@pytest.mark.long
@pytest.mark.parametrize("batch", [1, 7, 256])
def test_route_lines(folder, made, capsys, monkeypatch, batch):
    wanted = made.racer.route(made.test.texts, made.test.group)
    options = ["route", "my.racer", "--batch", str(batch)]
    assert main([*options, "--input", "queries.jsonl", "--output", "out.jsonl"]) == 0
    lines = [json.loads(line) for line in Path("out.jsonl").read_text().splitlines()]
    assert [line["id"] for line in lines] == list(made.test.ids)
    assert [tuple(line["models"]) for line in lines] == [decision.models for decision in wanted]
    stdin = SimpleNamespace(
        buffer=io.BytesIO(b"\xef\xbb\xbf" + Path("queries.jsonl").read_bytes() + b"\n\n")
    )
    monkeypatch.setattr(sys, "stdin", stdin)
    assert main([*options, "--input", "-"]) == 0
    assert [json.loads(line) for line in capsys.readouterr().out.splitlines()] == lines


def test_route_lines_of_every_kind(folder, capsys, monkeypatch):
    lines = b'plain words?\n{"query": "q?", "id": 7, "group": "b"}\n"a string?"\n{"id": 8}\n'
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(lines)))
    assert main(["route", "my.racer", "-", "--group", "a", "--batch", "2"]) == 1
    answers = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [answer.get("group") for answer in answers] == ["a", "b", "a", None]
    assert [answer.get("id") for answer in answers] == [None, 7, None, 8]
    assert "must be the text of a question" in answers[3]["error"]


def test_routing_reads_no_more_than_a_batch_ahead(made):
    from racer_jax.serving.json_lines import read_queries, route_lines

    read = 0

    class Endless:
        def readline(self, _):
            nonlocal read
            read += 1
            return b'{"text": "a question?", "group": "a"}\n'

    lines = route_lines(made.racer, read_queries(Endless(), "-", made.racer), 8)
    for i in range(100):
        next(lines)
        assert read <= (i // 8 + 1) * 8


def test_arguments_may_follow_options(folder, capsys):
    assert (
        main(["calibrate", "my.racer", "--alpha", "0.2", "calibration.npz", "-o", "new.racer"]) == 0
    )
    assert main(["route", "new.racer", "--group", "a", "one?", "two?", "--json"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 4
    with pytest.raises(SystemExit, match="2"):
        main(["doctor", "now"])
    assert "unrecognized arguments: now" in capsys.readouterr().err


@pytest.mark.long
def test_from_scores(folder, made, capsys):
    assert (
        main(
            [
                "calibrate",
                "s.racer",
                "scores.npz",
                "--alpha",
                "0.2",
                "--from-scores",
                "--null",
                "free",
            ]
        )
        == 0
    )
    assert main(["evaluate", "s.racer", "scores.npz", "--alphas", "0.2"]) == 0
    assert "null mode 'free'" in capsys.readouterr().out
    line = json.dumps({"scores": dict.fromkeys(MODELS, 0.5), "id": "x"})
    Path("in.jsonl").write_text(line + "\n")
    assert main(["route", "s.racer", "--input", "in.jsonl"]) == 0
    assert json.loads(capsys.readouterr().out)["id"] == "x"
    assert (
        main(["bound-check", "s.racer", "scores.npz", "--splits", "0", "--alphas", "0.2,0.3"]) == 0
    )


def test_bound_check(folder, capsys, monkeypatch):
    assert (
        main(["bound-check", "my.racer", "test.npz", "--splits", "0", "--alphas", "0.2,0.4"]) == 0
    )
    assert capsys.readouterr().out.count("PASS\n") == 4
    monkeypatch.setattr(
        "racer_jax.montecarlo.bound_check.verdicts", lambda check, z_limit, null: ["FAIL"]
    )
    assert (
        main(["bound-check", "my.racer", "test.npz", "--splits", "0", "--alphas", "0.2", "--json"])
        == 3
    )
    printed = capsys.readouterr()
    assert json.loads(printed.out)["passed"] is False
    assert json.loads(printed.out)["notes"] == list(load("test.npz").notes)


@pytest.mark.slow
def test_bound_check_over_random_splits(folder, capsys):
    assert (
        main(["bound-check", "my.racer", "test.npz", "--splits", "200", "--alphas", "0.2,0.4"]) == 0
    )
    assert capsys.readouterr().out.count("PASS\n") == 4
    # Measured means are never the exact ones to a billionth of their error.
    options = ["--splits", "50", "--alphas", "0.2", "--z", "1e-9"]
    assert main(["bound-check", "my.racer", "test.npz", *options]) == 3


def test_monitor_the_risk(folder, capsys):
    assert (
        main(["monitor", "state.json", "--artefact", "my.racer", "--input", "feedback.jsonl"]) == 0
    )
    assert (
        "No alarm: nothing says that the risk is above alpha = 0.3.\n21 queries counted, 1 missed (0.048)"
        in (capsys.readouterr().out)
    )
    Path("bad.jsonl").write_text("1\n" * 60)
    # The line of a timer names the artefact each time.
    assert (
        main(["monitor", "state.json", "--artefact", "my.racer", "--input", "bad.jsonl", "--json"])
        == 3
    )
    told = json.loads(capsys.readouterr().out)
    assert told["num"] == 81
    assert told["alarm"] > 21


def test_monitor_exchangeability(folder, made, capsys):
    """The command does what the monitor does, from the decisions that `route` writes.

    No label is needed.
    """
    from racer_jax.serving.monitor import ExchangeabilityMonitor

    main(["route", "my.racer", "--input", "queries.jsonl", "--output", "decisions.jsonl"])
    numbers = made.racer.route(made.test.texts, made.test.group).scores.max(axis=1)
    Path("reference.jsonl").write_text("".join(f'{{"number": {i / 16}}}\n' for i in range(16)))
    line = (
        "monitor drift.json --kind exchangeability --reference reference.jsonl --seed 5 --level "
        "0.01 --input"
    )
    assert main([*line.split(), "decisions.jsonl", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    wanted = ExchangeabilityMonitor.over([i / 16 for i in range(16)], level=0.01, seed=5).update(
        numbers.tolist()
    )
    assert told == {
        "kind": "exchangeability",
        "level": 0.01,
        "num": 50,
        "alarm": None,
        "evidence": pytest.approx(wanted.evidence),
    }
    Path("shifted.jsonl").write_text("0.99\n" * 100)
    assert main(["monitor", "drift.json", "--input", "shifted.jsonl"]) == 3
    told = capsys.readouterr().out
    assert told.startswith("ALARM at query ")
    assert ": the questions have changed. Recalibrate: label some queries of now" in told
    assert "150 queries counted" in told


@pytest.mark.long
def test_report(folder, capsys):
    pytest.importorskip("plotly")
    assert (
        main(
            ["report", "my.racer", "--data", "test.npz", "--output", "page.html", "--alphas", "0.2"]
        )
        == 0
    )
    page = Path("page.html").read_text(encoding="utf-8")
    data = json.loads(page.split('id="report-data">')[1].split("</script>")[0])
    assert data["evaluation"]["alphas"] == ["0.2", "0.3"]
    assert "open it in a browser" in capsys.readouterr().out


def test_doctor(capsys):
    assert main(["doctor", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["jax"] == jax.__version__
    assert set(told["extras"]) == set(system._EXTRAS)
    assert main(["doctor"]) == 0
    assert "extra minilm" in capsys.readouterr().out


@pytest.mark.extra
def test_completion(monkeypatch, capsys):
    pytest.importorskip("shtab")
    for shell in ("bash", "zsh", "fish", "tcsh"):
        assert main(["completion", shell]) == 0
        assert "bound-check" in capsys.readouterr().out
    monkeypatch.setitem(sys.modules, "shtab", None)
    assert main(["completion", "bash"]) == 1
    assert "pip install -e '.[completion]'" in capsys.readouterr().err


@pytest.mark.slow
def test_demo(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["demo", "--output", "d"]) == 0
    left = {path.name for path in Path("d").iterdir()}
    assert {"commands.sh", "demo.racer", "evaluation.json", "test.npz"} <= left
    lines = Path("d/commands.sh").read_text().splitlines()
    assert any(line.startswith("racer-jax calibrate d/demo.racer") for line in lines)
    assert "PASS" in capsys.readouterr().out


@pytest.mark.long
def test_demo_without_the_report(folder, capsys, monkeypatch, few_queries):
    """It says what it leaves out, which extra is lacking, and the command to type once it is there."""
    found = importlib.util.find_spec
    monkeypatch.setattr(
        "importlib.util.find_spec",
        lambda name, *more: None if name == "plotly" else found(name, *more),
    )
    assert main(["demo", "--output", "d"]) == 0
    told = capsys.readouterr().out.splitlines()[-2:]
    assert "No report was written" in told[0]
    assert "pip install -e '.[report]'" in told[0]
    assert told[1] == (
        "  racer-jax report d/demo.racer --data d/test.npz --sequential d/demo.cascade "
        "--output d/report.html"
    )
    assert not Path("d/report.html").exists()
    assert "report" not in Path("d/commands.sh").read_text()


def parsers(parser, name=()):
    inner = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    if not inner:
        yield name, parser
    for action in inner:
        for word, child in action.choices.items():
            if hasattr(child, "format_help"):
                yield from parsers(child, (*name, word))


@pytest.mark.long
def test_every_help_teaches_with_examples_that_parse(capsys):
    """The examples of `--help` are command lines that exist."""
    import shlex

    found = dict(parsers(build_parser()))
    assert len(found) == 24
    for name, parser in found.items():
        assert "examples:" in parser.format_help(), name
        for line in parser.epilog.splitlines():
            if "racer-jax " in line:
                typed = line.split("racer-jax ", 1)[1].split(">")[0]
                _parsed(shlex.split(typed.split("   ")[0]))  # after three blanks stands a comment
    with pytest.raises(SystemExit, match="0"):
        main(["--help"])
    assert "exit status:" in capsys.readouterr().out


def test_every_option_says_what_it_does_and_its_default():
    """An option that takes a value and need not be typed names what is used without it."""
    for name, parser in parsers(build_parser()):
        for action in parser._actions:
            assert action.help, (name, action.dest)
            if action.option_strings and action.nargs != 0 and not action.required:
                assert "default" in action.help, (name, action.option_strings)


def test_own_options_come_before_those_of_reading():
    """The usage names what must be typed, and how tables are read stands at the end."""
    for name, parser in parsers(build_parser()):
        page = parser.format_help()
        usage = page.split("\n\n")[0]
        assert "[options]" in usage, name
        assert "--format" not in usage, name
        if "--label-rule" in page:
            own = page.index("\noptions:")
            title = "\nhow tables are read:" if name != ("monitor",) else "\nhow --labels is read:"
            assert own < page.index(title) < page.index("\nexamples:")
            others = ("\nwhich rows:", "\noptions:")
            assert max(page.rfind(other) for other in others) < page.index(title)
