"""Every command as a user types it: what it prints and leaves, and how it ends when it is fed nonsense."""

import io
import json
import os
import sys
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from racer_jax import commands
from racer_jax.cli import _parsed, build_parser, main
from racer_jax.data import save
from racer_jax.encoders import HashedNgrams, ReducedEncoder
from racer_jax.racer import Racer
from racer_jax.routers import KNNConfig
from tests.test_racer import MODELS, table_of


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Tables, an artefact that is calibrated and one that is not, a score matrix and queries."""
    folder = tmp_path_factory.mktemp("commands")
    rng = np.random.default_rng(4)
    train, calibration = table_of(rng, 70), table_of(rng, 80, start=500, answers=True, cost=True)
    test = table_of(rng, 50, start=900, answers=True, cost=True)
    for name, part in (("train", train), ("calibration", calibration), ("test", test)):
        save(part.table, folder / f"{name}.npz")
    np.savez(
        folder / "scores.npz",
        scores=test.scores,
        correct=test.table.correct.astype(int),
        models=np.array(MODELS),
        texts=np.array(test.table.texts),
    )
    encoder = ReducedEncoder.fit(jax.random.key(0), train.table.texts, 8, HashedNgrams(dim=64))
    racer = Racer.fit(jax.random.key(1), train.table, KNNConfig(k=7), encoder)
    racer.save(folder / "bare.racer")
    racer.calibrate(calibration.table, 0.3).save(folder / "my.racer")
    (folder / "queries.jsonl").write_text(
        "".join(
            json.dumps({"text": text, "group": group, "id": name}) + "\n"
            for name, text, group in zip(test.table.ids, test.table.texts, test.table.group, strict=True)
        )
    )
    (folder / "feedback.jsonl").write_text("0\n" * 20 + '{"missed": 1}\n')
    return SimpleNamespace(folder=folder, test=test.table, racer=Racer.load(folder / "my.racer"))


@pytest.fixture
def folder(made, tmp_path, monkeypatch):
    """A copy of what was made, to work in."""
    import shutil

    shutil.copytree(made.folder, tmp_path / "w")
    monkeypatch.chdir(tmp_path / "w")
    return tmp_path / "w"


def snapshot(folder):
    return {str(p.relative_to(folder)): p.read_bytes() if p.is_file() else None for p in sorted(folder.rglob("*"))}


# --- what they do ----------------------------------------------------------------------------------------------------


def test_the_whole_path(folder, capsys):
    assert main(["train", "train.npz", "-o", "new.racer", "--router", "knn", "--share", "0.9", "--seed", "3"]) == 0
    assert "not calibrated yet" in capsys.readouterr().out
    assert main(["calibrate", "new.racer", "calibration.npz", "--alpha", "0.25", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["alpha"] == "0.25"
    assert told["n"] == 80
    assert "exchangeable" in told["guarantee"]
    assert main(["calibrate", "new.racer", "--alpha", "0.4", "-o", "other.racer"]) == 0
    assert Racer.load("new.racer").alpha == "0.25"
    assert Racer.load("other.racer").alpha == "0.4"
    assert main(["evaluate", "new.racer", "test.npz", "--alphas", "0.1:0.3:0.1", "--output", "figures.json"]) == 0
    printed = capsys.readouterr().out
    assert "full ensemble" in printed
    figures = json.loads(Path("figures.json").read_text())
    assert figures["alphas"] == ["0.1", "0.2", "0.25", "0.3"]
    assert main(["evaluate", "new.racer", "test.npz", "--json", "--alphas", "0.1", "--group", "a"]) == 0
    assert [g["group"] for g in json.loads(capsys.readouterr().out)["groups"]] == ["all", "a"]


def test_unseen_leaves_out_what_was_trained_and_calibrated_on(folder, capsys):
    assert main(["train", "calibration.npz", "-o", "new.racer", "--router", "knn", "--share", "0.5"]) == 0
    assert main(["calibrate", "new.racer", "calibration.npz", "--alpha", "0.3"]) == 1
    assert "41 of 80 calibration questions were trained on" in capsys.readouterr().err
    assert (
        main(
            ["calibrate", "new.racer", "calibration.npz", "--alpha", "0.3", "--unseen", "--share", "0.5", "--no-groups"]
        )
        == 0
    )
    assert main(["evaluate", "new.racer", "calibration.npz", "--unseen", "--json", "--alphas", "0.3"]) == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert found["num_seen"] == 0
    assert found["groups"][0]["num_queries"] == 19
    assert main(["calibrate", "new.racer", "calibration.npz", "--alpha", "0.3", "--allow-overlap"]) == 0
    assert "Nothing is promised" in capsys.readouterr().out


def test_route_in_words_and_in_json(folder, made, capsys):
    assert main(["route", "my.racer", "--group", "a", "What is a prime?"]) == 0
    assert "at alpha = 0.3 of group 'a'" in capsys.readouterr().out
    assert main(["route", "my.racer", "--group", "a", "--json", "--alpha", "0.001", "x?", "y?"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["reason"] for line in lines] == ["alpha infeasible"] * 2


@pytest.mark.parametrize("batch", [1, 7, 256])
def test_route_lines(folder, made, capsys, monkeypatch, batch):
    wanted = made.racer.route(made.test.texts, made.test.group)
    options = ["route", "my.racer", "--batch", str(batch)]
    assert main([*options, "--input", "queries.jsonl", "--output", "out.jsonl"]) == 0
    lines = [json.loads(line) for line in Path("out.jsonl").read_text().splitlines()]
    assert [line["id"] for line in lines] == list(made.test.ids)
    assert [tuple(line["models"]) for line in lines] == [decision.models for decision in wanted]
    stdin = SimpleNamespace(buffer=io.BytesIO(b"\xef\xbb\xbf" + Path("queries.jsonl").read_bytes() + b"\n\n"))
    monkeypatch.setattr(sys, "stdin", stdin)
    assert main([*options, "--input", "-"]) == 0
    assert [json.loads(line) for line in capsys.readouterr().out.splitlines()] == lines


def test_routing_reads_no_more_than_a_batch_ahead(made):
    from racer_jax.streaming import read_queries, route_lines

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
    assert main(["calibrate", "my.racer", "--alpha", "0.2", "calibration.npz", "-o", "new.racer"]) == 0
    assert main(["route", "new.racer", "--group", "a", "one?", "two?", "--json"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 4
    with pytest.raises(SystemExit, match="2"):
        main(["doctor", "now"])
    assert "unrecognized arguments: now" in capsys.readouterr().err


def test_from_scores(folder, made, capsys):
    assert main(["calibrate", "s.racer", "scores.npz", "--alpha", "0.2", "--from-scores", "--null", "free"]) == 0
    assert main(["evaluate", "s.racer", "scores.npz", "--alphas", "0.2"]) == 0
    assert "null mode 'free'" in capsys.readouterr().out
    line = json.dumps({"scores": dict.fromkeys(MODELS, 0.5), "id": "x"})
    Path("in.jsonl").write_text(line + "\n")
    assert main(["route", "s.racer", "--input", "in.jsonl"]) == 0
    assert json.loads(capsys.readouterr().out)["id"] == "x"
    assert main(["bound-check", "s.racer", "scores.npz", "--splits", "0", "--alphas", "0.2,0.3"]) == 0


def test_bound_check(folder, capsys, monkeypatch):
    assert main(["bound-check", "my.racer", "test.npz", "--splits", "0", "--alphas", "0.2,0.4"]) == 0
    assert capsys.readouterr().out.count("PASS") == 4
    monkeypatch.setattr("racer_jax.checking.verdicts", lambda check, z_limit, null: ["FAIL"])
    assert main(["bound-check", "my.racer", "test.npz", "--splits", "0", "--alphas", "0.2", "--json"]) == 3
    assert json.loads(capsys.readouterr().out)["passed"] is False


@pytest.mark.slow
def test_bound_check_over_random_splits(folder, capsys):
    assert main(["bound-check", "my.racer", "test.npz", "--splits", "200", "--alphas", "0.2,0.4"]) == 0
    assert capsys.readouterr().out.count("PASS") == 4
    # Measured means are never the exact ones to a billionth of their error.
    options = ["--splits", "50", "--alphas", "0.2", "--z", "1e-9"]
    assert main(["bound-check", "my.racer", "test.npz", *options]) == 3


def test_monitor(folder, capsys):
    pytest.importorskip("racer_jax.monitor")
    assert main(["monitor", "state.json", "--artefact", "my.racer", "--input", "feedback.jsonl"]) == 0
    assert "21 queries, 1 missed (0.048), alpha = 0.3: no alarm" in capsys.readouterr().out
    Path("bad.jsonl").write_text("1\n" * 60)
    assert main(["monitor", "state.json", "--input", "bad.jsonl", "--json"]) == 3
    told = json.loads(capsys.readouterr().out)
    assert told["num"] == 81
    assert told["alarm"] > 21


def test_report(folder, capsys):
    pytest.importorskip("plotly")
    assert main(["report", "my.racer", "--data", "test.npz", "--output", "page.html", "--alphas", "0.2"]) == 0
    page = Path("page.html").read_text(encoding="utf-8")
    data = json.loads(page.split('id="report-data">')[1].split("</script>")[0])
    assert data["evaluation"]["alphas"] == ["0.2", "0.3"]
    assert "open it in a browser" in capsys.readouterr().out


def test_doctor(capsys):
    assert main(["doctor", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["jax"] == jax.__version__
    assert set(told["extras"]) == set(commands._EXTRAS)
    assert main(["doctor"]) == 0
    assert "extra minilm" in capsys.readouterr().out


def test_completion(monkeypatch, capsys):
    pytest.importorskip("shtab")
    assert main(["completion", "bash"]) == 0
    assert "bound-check" in capsys.readouterr().out
    monkeypatch.setitem(sys.modules, "shtab", None)
    assert main(["completion", "bash"]) == 1
    assert "pip install 'racer-jax[completion]'" in capsys.readouterr().err


@pytest.mark.slow
def test_demo(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["demo", "--output", "d"]) == 0
    left = {path.name for path in Path("d").iterdir()}
    assert {"commands.sh", "demo.racer", "evaluation.json", "test.npz"} <= left
    lines = Path("d/commands.sh").read_text().splitlines()
    assert any(line.startswith("racer-jax calibrate d/demo.racer") for line in lines)
    assert "PASS" in capsys.readouterr().out


def parsers(parser, name=()):
    inner = [action for action in parser._actions if hasattr(action, "choices") and isinstance(action.choices, dict)]
    if not inner:
        yield name, parser
    for action in inner:
        for word, child in action.choices.items():
            if hasattr(child, "format_help"):
                yield from parsers(child, (*name, word))


def test_every_help_teaches_with_examples_that_parse(capsys):
    """The examples of `--help` are command lines that exist."""
    import shlex

    found = dict(parsers(build_parser()))
    assert len(found) == 13
    for name, parser in found.items():
        assert "examples:" in parser.format_help(), name
        for line in parser.epilog.splitlines():
            if "racer-jax " in line:
                typed = line.split("racer-jax ", 1)[1].split(">")[0]
                _parsed(shlex.split(typed.split("   ")[0]))  # after three blanks stands a comment
    with pytest.raises(SystemExit, match="0"):
        main(["--help"])
    assert "exit status:" in capsys.readouterr().out


# --- nonsense --------------------------------------------------------------------------------------------------------


def refused(folder, capsys, line, status=1):
    """The command ends with the status and one clear line, and leaves everything as it was; returns the line."""
    before = snapshot(folder)
    capsys.readouterr()
    assert main(line) == status
    told = capsys.readouterr().err
    assert told.startswith("racer-jax: ")
    assert told.count("\n") == 1
    assert told.strip().removeprefix("racer-jax:").strip(), "the line says nothing"
    assert "Traceback" not in told
    assert snapshot(folder) == before
    return told


READS_TABLE = {
    "summary": "data summary T",
    "convert": "data convert T out.csv",
    "train": "train T -o new.racer",
    "calibrate": "calibrate my.racer T --alpha 0.1",
    "from scores": "calibrate new.racer T --alpha 0.1 --from-scores",
    "evaluate": "evaluate my.racer T --output out.json",
    "bound-check": "bound-check my.racer T",
    "report": "report my.racer --data T --output page.html",
}
BAD_TABLES = {
    "missing": lambda path: None,
    "empty": lambda path: path.write_bytes(b""),
    "garbage": lambda path: path.write_bytes(b"once upon a time\nthere was no table"),
    "binary": lambda path: path.write_bytes(bytes(range(256)) * 8),
    "cut": lambda path: path.write_bytes(Path("test.npz").read_bytes()[:700]),
    "an empty folder": lambda path: path.mkdir(),
    "under a file": lambda path: path.write_bytes(b"x"),
}


@pytest.mark.parametrize("command", READS_TABLE)
@pytest.mark.parametrize("kind", BAD_TABLES)
def test_tables_that_are_none(folder, capsys, command, kind):
    path = folder / ("bad.npz" if kind in ("cut", "binary", "missing") else "bad.csv")
    BAD_TABLES[kind](path)
    name = f"{path.name}/table.npz" if kind == "under a file" else path.name
    assert "bad." in refused(folder, capsys, [name if word == "T" else word for word in READS_TABLE[command].split()])


@pytest.mark.parametrize("command", READS_TABLE)
def test_tables_without_permission(folder, capsys, monkeypatch, command):
    real = io.open

    def opened(path, *args, **kwargs):
        if str(path).endswith("secret.npz"):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path, *args, **kwargs)

    save_as = folder / "secret.npz"
    save_as.write_bytes((folder / ("scores.npz" if command == "from scores" else "test.npz")).read_bytes())
    before = snapshot(folder)
    monkeypatch.setattr(io, "open", opened)
    monkeypatch.setattr("builtins.open", opened)
    capsys.readouterr()
    assert main(["secret.npz" if word == "T" else word for word in READS_TABLE[command].split()]) == 1
    told = capsys.readouterr().err
    monkeypatch.undo()
    assert "secret.npz" in told
    assert "Permission denied" in told
    assert told.count("\n") == 1
    assert snapshot(folder) == before


READS_ARTEFACT = {
    "calibrate": "calibrate A calibration.npz --alpha 0.1",
    "alpha": "calibrate A --alpha 0.1",
    "route": "route A what?",
    "route lines": "route A --input queries.jsonl --output out.jsonl",
    "evaluate": "evaluate A test.npz",
    "bound-check": "bound-check A test.npz",
    "monitor": "monitor state.json --artefact A --input feedback.jsonl",
    "report": "report A --data test.npz --output page.html",
}


@pytest.mark.parametrize("command", READS_ARTEFACT)
def test_artefacts_that_are_none(folder, capsys, command):
    def tried(name):
        return refused(folder, capsys, [name if word == "A" else word for word in READS_ARTEFACT[command].split()])

    assert "no such folder" in tried("nowhere.racer")
    assert tried("test.npz")
    (folder / "empty").mkdir()
    assert "there is no racer.json" in tried("empty")
    door = folder / "my.racer" / "racer.json"
    door.write_text(door.read_text().replace('"seed"', '"sead"'))
    assert "edited or damaged" in tried("my.racer")
    if command not in ("calibrate", "bound-check"):
        assert "calibrate(table, alpha) first" in tried("bare.racer")


def test_options_that_are_nonsense(folder, capsys):
    for line, told in {
        "calibrate my.racer calibration.npz --alpha 2": "alpha must be in (0, 1), got 2",
        "calibrate my.racer calibration.npz --alpha x": "alpha must be in (0, 1), got x",
        "calibrate my.racer calibration.npz --alpha 0.1 --delta 3": "delta must be in (0, 1)",
        "calibrate my.racer calibration.npz --alpha 0.1 --share 1.5": "--share must be in (0, 1], got 1.5",
        "calibrate my.racer calibration.npz --alpha 0.1 --group z": "group must be one of",
        "calibrate my.racer calibration.npz --alpha 0.1 --unseen": "no question is left",
        "calibrate new.racer --alpha 0.1 --from-scores": "--from-scores needs a score matrix",
        "calibrate my.racer train.npz --alpha 0.1": "70 of 70 calibration questions were trained on",
        "evaluate my.racer test.npz --alphas 0.3:0.1:0.1": "alphas must be like",
        "bound-check my.racer test.npz --calibration 2": "--calibration must be a share",
        "bound-check my.racer test.npz --splits -1": "--splits must not be negative",
        "route my.racer": "give questions as arguments, or --input FILE",
        "route my.racer what? --input queries.jsonl": "not both",
        "route my.racer --input queries.jsonl --batch 0": "--batch must be at least 1",
        "route my.racer --input nowhere.jsonl": "nowhere.jsonl: No such file or directory",
        "route my.racer --input .": "Is a directory",
        "route my.racer what? --alpha 7": "alpha must be in (0, 1), got 7",
        "train train.npz -o train.npz": "must be a folder to write an artefact to, got a file",
        "train train.npz -o .": "a folder with other files",
        "demo --output .": "must be a new folder, or that of an earlier demo",
        "data convert test.npz out.txt": "path must end in .npz or .csv",
        "evaluate my.racer test.npz --output my.racer": "must be a file to write to",
        "monitor state.json --input feedback.jsonl": "needs --alpha or --artefact",
    }.items():
        assert told in refused(folder, capsys, line.split()), line
    assert "must not be empty or only white space" in refused(folder, capsys, ["route", "my.racer", " "])
    for line in ("route", "calibrate my.racer", "eat", "train train.npz -o x --router tree"):
        with pytest.raises(SystemExit, match="2"):
            main(line.split())
        assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("line", "told"),
    [
        (b"{", "line 51: must be a JSON object in UTF-8"),
        (b"\xff", "line 51: must be a JSON object in UTF-8"),
        (b"[1]", "line 51: must be a JSON object, got list"),
        (b"{}", "line 51, field 'text': must be the text of a question, got None"),
        (b'{"text": " "}', "field 'text': must be the text of a question, got ' '"),
        (b'{"text": 5}', "field 'text': must be a string, got 5"),
        (b'{"text": "x", "group": 1}', "field 'group': must be a string, got 1"),
    ],
)
def test_lines_that_are_no_queries(folder, capsys, line, told):
    with Path("queries.jsonl").open("ab") as file:
        file.write(line + b"\n")
    assert told in refused(folder, capsys, ["route", "my.racer", "--input", "queries.jsonl", "--output", "out.jsonl"])


def test_scores_that_are_no_queries(folder, capsys):
    main(["calibrate", "s.racer", "scores.npz", "--alpha", "0.2", "--from-scores"])
    for scores, told in {
        '{"scores": {"small": 1}}': "must hold a score of each of",
        '{"scores": {"small": 1, "medium": 2, "large": 0}}': "must be in [0, 1], got 2 for 'medium'",
        '{"scores": {"small": NaN, "medium": 0, "large": 0}}': "must be in [0, 1], got nan",
    }.items():
        Path("in.jsonl").write_text(scores + "\n")
        assert told in refused(folder, capsys, ["route", "s.racer", "--input", "in.jsonl"])
    assert "no router of its own" in refused(folder, capsys, ["route", "s.racer", "what?"])


def test_feedback_that_is_none(folder, capsys):
    pytest.importorskip("racer_jax.monitor")
    for text, told in {
        "2\n": "must be 0 or 1, got 2",
        "{\n": "must be a JSON object",
        '{"a": 1}\n': "got None",
    }.items():
        Path("bad.jsonl").write_text(text)
        assert told in refused(folder, capsys, ["monitor", "state.json", "--alpha", "0.1", "--input", "bad.jsonl"])
    Path("state.json").write_text("{}")
    assert "state.json" in refused(folder, capsys, ["monitor", "state.json", "--input", "feedback.jsonl"])


WRITES = {
    "convert": "data convert test.npz out.csv",
    "convert npz": "data convert test.npz out.npz",
    "train": "train train.npz -o new.racer --router knn",
    "train over": "train train.npz -o my.racer --router knn",
    "calibrate": "calibrate my.racer --alpha 0.2",
    "route": "route my.racer --input queries.jsonl --output out.jsonl",
    "evaluate": "evaluate my.racer test.npz --output out.json --alphas 0.2",
    "monitor": "monitor state.json --alpha 0.1 --input feedback.jsonl",
}


@pytest.mark.parametrize("command", WRITES)
@pytest.mark.parametrize("problem", ["full", "interrupted"])
def test_a_disk_that_is_full_and_ctrl_c_leave_nothing_half_written(folder, capsys, monkeypatch, command, problem):
    if command == "monitor":
        pytest.importorskip("racer_jax.monitor")

    def fails(*_, **__):
        raise KeyboardInterrupt if problem == "interrupted" else OSError(28, "No space left on device")

    for name in ("replace", "rename"):
        monkeypatch.setattr(os, name, fails)
    before = snapshot(folder)
    status = main(WRITES[command].split())
    monkeypatch.undo()
    told = capsys.readouterr().err
    assert status == (130 if problem == "interrupted" else 1)
    assert told == ("racer-jax: interrupted\n" if problem == "interrupted" else "racer-jax: No space left on device\n")
    assert snapshot(folder) == before


def test_ctrl_c_while_it_computes(folder, capsys, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    for name, line in {
        "racer_jax.commands.load": "data summary test.npz",
        "racer_jax.racer.Racer.fit": "train train.npz -o new.racer",
        "racer_jax.racer.Racer.calibrate": "calibrate my.racer calibration.npz --alpha 0.1",
        "racer_jax.racer.Racer.route": "route my.racer --input queries.jsonl --output out.jsonl",
        "racer_jax.racer.Racer.evaluate": "evaluate my.racer test.npz --output out.json",
        "racer_jax.checking.check_bounds": "bound-check my.racer test.npz",
    }.items():
        with monkeypatch.context() as patch:
            patch.setattr(name, interrupted)
            assert refused(folder, capsys, line.split(), 130) == "racer-jax: interrupted\n"


def test_memory_that_is_not_there(folder, capsys, monkeypatch):
    def exhausted(*_, **__):
        raise MemoryError

    monkeypatch.setattr("racer_jax.racer.Racer.evaluate", exhausted)
    assert refused(folder, capsys, ["evaluate", "my.racer", "test.npz"]) == "racer-jax: out of memory\n"


def test_the_report_says_what_it_lacks(folder, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "plotly.offline", None)
    assert "pip install 'racer-jax[report]'" in refused(folder, capsys, ["report", "my.racer", "--data", "test.npz"])
