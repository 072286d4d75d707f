"""Every command fed nonsense.

One clear line, a status that is not 0, no traceback, nothing half written.

The table of commands crossed with the table of faults; a fault applies to a command that has its
kind of argument. Tests may run as root, for whom every file can be read and written, so refusals of
the system are raised by hand.
"""

import io
import json
import os
import resource
import sys
from contextlib import ExitStack, contextmanager
from pathlib import Path
from unittest import mock

import pytest

from racer_jax.cli.main import main
from racer_jax.data import load
from racer_jax.racer.racer import Racer

# T: a table; A: a calibrated artefact; Q: questions; F: feedback; N: numbers; R: numbers for
# reference; S: a state. What a command writes is always called `out` and something.
COMMANDS = {
    "data summary": "data summary T",
    "data convert csv": "data convert T out.csv",
    "data convert npz": "data convert T out.npz",
    "data fetch": "data fetch routerbench --folder out --base-url http://127.0.0.1:9",
    "train": "train T -o out.racer --router knn",
    "train over": "train T -o my.racer --router knn --overwrite",
    "calibrate": "calibrate A T --alpha 0.2 -o out.racer",
    "calibrate alpha": "calibrate A --alpha 0.2",
    "calibrate scores": "calibrate out.racer T --alpha 0.1 --from-scores",
    "route": "route A --group a what?",
    "route lines": "route A --input Q --output out.jsonl",
    "evaluate": "evaluate A T --output out.json --alphas 0.2",
    "bound-check": "bound-check A T --splits 0 --alphas 0.2",
    "monitor": "monitor out.json --artefact A --input F",
    "monitor numbers": "monitor out.json --kind exchangeability --reference R --input N",
    "monitor again": "monitor S --input F",
    "report": "report A --data T --output out.html --alphas 0.2",
    "doctor": "doctor",
    "demo": "demo --output out",
    "completion": "completion bash",
}
FILES = {
    "T": "test.npz",
    "A": "my.racer",
    "Q": "queries.jsonl",
    "F": "feedback.jsonl",
    "N": "numbers.jsonl",
} | {
    "R": "reference.jsonl",
    "S": "state.json",
}


@pytest.fixture
def folder(folder, capsys):
    """The folder of the other tests, with numbers, and a state."""
    Path("numbers.jsonl").write_text("".join(f"{i % 7 / 7}\n" for i in range(30)))
    Path("reference.jsonl").write_text("".join(f'{{"number": {i % 5 / 7}}}\n' for i in range(30)))
    assert main(["monitor", "state.json", "--alpha", "0.1", "--input", "feedback.jsonl"]) == 0
    capsys.readouterr()
    return folder


def words(command, **other):
    files = FILES | {
        "T": {"calibrate scores": "scores.npz", "calibrate": "calibration.npz"}.get(
            command, "test.npz"
        )
    }
    return [(files | other).get(word, word) for word in COMMANDS[command].split()]


def snapshot(folder):
    return {
        str(p.relative_to(folder)): p.read_bytes() if p.is_file() else None
        for p in sorted(folder.rglob("*"))
    }


def refused(folder, capsys, line, status=1):
    """The command ends with the status and one clear line, and leaves everything as it was.

    Returns the line.
    """
    before = snapshot(folder)
    capsys.readouterr()
    assert main(line) == status
    output = capsys.readouterr().err
    assert output.startswith("racer-jax: ")
    assert output.count("\n") == 1
    assert output.strip().removeprefix("racer-jax:").strip(), "the line says nothing"
    assert "Traceback" not in output
    assert snapshot(folder) == before
    return output


# --- what is read ---------------------------------------------------------------------------------

READ_FAULTS = {
    "missing": lambda path: None,
    "empty": lambda path: path.write_bytes(b""),
    "prose": lambda path: path.write_bytes(b"once upon a time\nthere was no table"),
    "binary": lambda path: path.write_bytes(bytes(range(256)) * 8),
    "other JSON": lambda path: path.write_bytes(b'{"a": [1]}\n'),
    "cut": lambda path: path.write_bytes(Path("test.npz").read_bytes()[:700]),
    "an empty folder": lambda path: path.mkdir(),
    "under a file": lambda path: path.write_bytes(b"x"),
    "no permission": lambda path: path.write_bytes(b"x"),
}
ARTEFACT_FAULTS = {
    "missing": lambda path: None,
    "a file": lambda path: path.write_bytes(b"x"),
    "an empty folder": lambda path: path.mkdir(),
    "empty": lambda path: (path.mkdir(), (path / "racer.json").write_bytes(b"")),
    "prose": lambda path: (path.mkdir(), (path / "racer.json").write_bytes(b"once upon a time")),
    "binary": lambda path: (path.mkdir(), (path / "racer.json").write_bytes(bytes(range(256)))),
    "other JSON": lambda path: (path.mkdir(), (path / "racer.json").write_bytes(b"[1]")),
    "a folder inside": lambda path: (path.mkdir(), (path / "racer.json").mkdir()),
    "not calibrated": lambda path: os.rename("bare.racer", path),
    "no permission": lambda path: (path.mkdir(), (path / "racer.json").write_bytes(b"{}")),
}


@contextmanager
def locked(name):
    """Nobody may open what has this name, or lies in it."""

    def refusing(real):
        def opened(path, *args, **kwargs):
            if name in str(path):
                raise PermissionError(13, "Permission denied", str(path))
            return real(path, *args, **kwargs)

        return opened

    opened = refusing(io.open)
    with (
        mock.patch("io.open", opened),
        mock.patch("builtins.open", opened),
        mock.patch("os.open", refusing(os.open)),
    ):
        yield


def readings():
    """Command, argument and fault, where they fit."""
    for command, line in COMMANDS.items():
        for word in line.split():
            faults = {"A": ARTEFACT_FAULTS}.get(word, READ_FAULTS if word in FILES else {})
            for fault in faults:
                if fault == "not calibrated" and command in ("calibrate", "bound-check"):
                    continue  # they can work on it
                if fault == "missing" and word == "S":
                    continue  # a new one is made then
                if fault == "prose" and word == "Q":
                    continue  # lines of plain text are questions
                yield pytest.param(command, word, fault, id=f"{command}-{word}-{fault}")


@pytest.mark.long
@pytest.mark.parametrize(("command", "word", "fault"), list(readings()))
def test_what_cannot_be_read(folder, capsys, command, word, fault):
    suffix = {"T": ".npz" if fault in ("cut", "binary", "missing") else ".csv", "A": ".racer"}.get(
        word, ".jsonl"
    )
    path = folder / f"bad{suffix}"
    (ARTEFACT_FAULTS if word == "A" else READ_FAULTS)[fault](path)
    name = f"{path.name}/inside{suffix}" if fault == "under a file" else path.name
    with locked(path.name) if fault == "no permission" else ExitStack():
        before = None if fault == "no permission" else snapshot(folder)
        status = main(words(command, **{word: name}))
    output = capsys.readouterr().err
    assert (status, output.count("\n")) == (1, 1), output
    assert "bad." in output
    assert "Traceback" not in output
    if fault == "no permission":
        assert "Permission denied" in output
    else:
        assert snapshot(folder) == before
    assert not list(folder.glob("*out*"))


# --- what is written ------------------------------------------------------------------------------


def refuses(error):
    def fails(*_, **__):
        raise error

    return fails


@contextmanager
def small_files():
    """A real disk that takes a few bytes of a file and then no more."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@contextmanager
def failing(target, names, error):
    with ExitStack() as stack:
        for name in names:
            stack.enter_context(mock.patch.object(target, name, refuses(error)))
        yield


@contextmanager
def no_new_files(error):
    """A disk that reads, and makes no new file or folder."""
    real = os.open

    def mkdir(path, *_, **__):
        raise OSError(error.errno, error.strerror, os.fspath(path))

    def opens(path, flags, *rest, **options):
        return mkdir(path) if flags & os.O_CREAT else real(path, flags, *rest, **options)

    with mock.patch.object(os, "mkdir", mkdir), mock.patch.object(os, "open", opens):
        yield


FULL = OSError(28, "No space left on device")
WRITE_FAULTS = {
    "full at once": (
        lambda: no_new_files(FULL),
        1,
        "No space left on device",
    ),
    "full in the middle": (small_files, 1, "File too large"),
    "full at the end": (
        lambda: failing(os, ("replace", "rename"), FULL),
        1,
        "No space left on device",
    ),
    "no permission": (
        lambda: no_new_files(PermissionError(13, "Permission denied")),
        1,
        "Permission denied",
    ),
    "Ctrl-C at the end": (
        lambda: failing(os, ("replace", "rename"), KeyboardInterrupt()),
        130,
        "interrupted",
    ),
}
WRITES = [
    command
    for command, line in COMMANDS.items()
    if command in ("train over", "calibrate alpha", "monitor again")
    or (" out" in line and command != "data fetch")
]


@pytest.mark.long
@pytest.mark.parametrize("command", WRITES)
@pytest.mark.parametrize("fault", WRITE_FAULTS)
def test_what_cannot_be_written(folder, capsys, few_queries, command, fault):
    broken, expected, what = WRITE_FAULTS[fault]
    if command == "report":
        pytest.importorskip("plotly", reason="extra report")
    before = snapshot(folder)
    with broken():
        status = main(words(command))
    output = capsys.readouterr().err
    assert (status, output.count("\n")) == (expected, 1), output
    assert output.startswith("racer-jax: ")
    assert what in output
    if expected == 1:  # the line says which file
        assert any(name in output for name in ("out", "my.racer", "state.json")), output
    after = snapshot(folder)
    if command == "demo":  # its folder is there, empty
        assert after.pop("out", None) is None
    assert after == before


PLACES = {
    "evaluate": ["evaluate my.racer test.npz --output P"],
    "report": ["report my.racer --data test.npz --output P"],
    "route": ["route my.racer --input queries.jsonl --output P"],
    "monitor": ["monitor P --alpha 0.1 --input feedback.jsonl"],
    "data convert": ["data convert test.npz P.csv"],
}


@pytest.mark.parametrize("command", PLACES)
def test_places_that_are_none(folder, capsys, command):
    (folder / "there.csv").mkdir()
    for line in PLACES[command]:
        assert "nowhere" in refused(folder, capsys, line.replace("P", "nowhere/out").split())
        assert "there" in refused(
            folder, capsys, line.replace("P.csv", "P").replace("P", "there.csv").split()
        )


# --- what is printed, and Ctrl-C ------------------------------------------------------------------


class Stdout(io.StringIO):
    """A standard output that refuses."""

    def __init__(self, error):
        super().__init__()
        self.error = error

    def write(self, text):
        raise self.error


def with_extras(names):
    """The names of commands; one that needs more than the tests' own extra bears the marker."""
    mark = pytest.mark.extra
    return [pytest.param(name, marks=mark) if name == "completion" else name for name in names]


PRINTS = [name for name in COMMANDS if name not in ("data fetch", "route lines")]


@pytest.mark.long
@pytest.mark.parametrize("command", with_extras(PRINTS))
@pytest.mark.parametrize("fault", ["full", "Ctrl-C"])
def test_what_cannot_be_printed(folder, capsys, monkeypatch, few_queries, command, fault):
    for extra in {"report": ["plotly"], "completion": ["shtab"]}.get(command, []):
        pytest.importorskip(extra)
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", Stdout(FULL if fault == "full" else KeyboardInterrupt()))
        status = main(words(command))
    output = capsys.readouterr().err
    expected = (
        (1, "racer-jax: No space left on device\n")
        if fault == "full"
        else (130, "racer-jax: interrupted\n")
    )
    assert (status, output) == expected
    assert not [path for path in folder.rglob(".*")]  # what was written is whole
    for artefact in folder.glob("*.racer"):
        Racer.load(artefact)
    for table in folder.glob("out.[nc]*"):
        assert len(load(table)) == 50


COMPUTES = {
    "data summary": "racer_jax.data.table.RoutingTable.summary",
    "data convert csv": "racer_jax.data.loading.save",
    "data fetch": "pooch.retrieve",
    "train": "racer_jax.racer.racer.Racer.fit",
    "calibrate": "racer_jax.racer.racer.Racer.calibrate",
    "calibrate alpha": "racer_jax.racer.changes.ChangeableRacer.recalibrate",
    "calibrate scores": "racer_jax.racer.racer.Racer.calibrate",
    "route": "racer_jax.racer.racer.Racer.route",
    "route lines": "racer_jax.racer.racer.Racer.route",
    "evaluate": "racer_jax.racer.racer.Racer.evaluate",
    "bound-check": "racer_jax.montecarlo.bound_check.check_bounds_exactly",
    "monitor": "racer_jax.serving.monitor.RiskMonitor.update",
    "monitor numbers": "racer_jax.serving.monitor.ExchangeabilityMonitor.update",
    "monitor again": "racer_jax.serving.monitor.RiskMonitor.update",
    "report": "racer_jax.racer.report.report_html",
    "doctor": "racer_jax.reporting.files.environment",
    "demo": "racer_jax.data.synthetic.simulated_pool",
    "completion": "shtab.complete",
}


@pytest.mark.long
@pytest.mark.parametrize("command", with_extras(COMPUTES))
def test_ctrl_c_and_too_little_memory_while_it_computes(folder, capsys, monkeypatch, command):
    for extra in {"data fetch": ["pooch"], "completion": ["shtab"]}.get(command, []):
        pytest.importorskip(extra)
    for error, status, output in (
        (KeyboardInterrupt(), 130, "racer-jax: interrupted\n"),
        (MemoryError(), 1, "racer-jax: out of memory\n"),
    ):
        before = snapshot(folder)
        with monkeypatch.context() as patch:
            patch.setattr(COMPUTES[command], refuses(error))
            assert main(words(command)) == status
        assert capsys.readouterr().err == output
        after = snapshot(folder)
        # the folder of `demo` and of `data fetch` is there, empty
        assert after.pop("out", None) is None
        before.pop("out", None)
        assert after == before


def test_every_command_is_in_the_table():
    from racer_jax.cli.main import build_parser
    from tests.cli.test_commands import parsers

    here = {
        tuple(line.split()[:2] if line.startswith("data") else line.split()[:1])
        for line in COMMANDS.values()
    }
    # Those of a cascade, a gateway and signatures have tables of their own, and so has adding a model.
    elsewhere = {"cascade", "serve", "replay", "recalibrate", "extend", "compare", "sign"}
    assert here == {name for name, _ in parsers(build_parser()) if name[0] not in elsewhere}


# --- downloads ------------------------------------------------------------------------------------


def test_downloads(folder, capsys, monkeypatch):
    pooch = pytest.importorskip("pooch")
    line = [
        "data",
        "fetch",
        "routerbench",
        "--folder",
        "test.npz",
        "--base-url",
        "http://127.0.0.1:9",
    ]
    assert "test.npz" in refused(folder, capsys, line)
    for error, output in {
        FULL: "No space left on device",
        PermissionError(13, "Permission denied"): "denied",
    }.items():
        monkeypatch.setattr(pooch, "retrieve", refuses(error))
        assert main(words("data fetch")) == 1
        line = capsys.readouterr().err
        assert output in line
        assert "network" not in line
        assert line.count("\n") == 1


# --- options and lines ----------------------------------------------------------------------------


def test_options_that_are_nonsense(folder, capsys):
    for line, output in {
        "calibrate my.racer calibration.npz --alpha 2": "alpha must be a number between 0 and 1, such as 0.1 for 10%, got 2",
        "calibrate my.racer calibration.npz --alpha x": "alpha must be a number between 0 and 1, such as 0.1 for 10%, got x",
        "calibrate my.racer calibration.npz --alpha 0.1 --delta 3": "delta must be a number between 0 and 1",
        "calibrate my.racer calibration.npz --alpha 0.1 --share 1.5": "--share must be above 0 and at most 1, such as 0.4 for 40%, got 1.5",
        "calibrate my.racer calibration.npz --alpha 0.1 --group z": "group must be one of",
        "calibrate my.racer train.npz --alpha 0.1 --unseen": "no question is left",
        "calibrate new.racer --alpha 0.1 --from-scores": "--from-scores needs a score matrix",
        "calibrate my.racer train.npz --alpha 0.1": "80 of 80 calibration questions were trained on",
        "evaluate my.racer test.npz --alphas 0.3:0.1:0.1": "alphas must be like",
        "bound-check my.racer test.npz --calibration 2": "--calibration must be a share",
        "bound-check my.racer test.npz --splits -1": "--splits must be at least 0",
        "calibrate my.racer": "nothing is to be changed: give a table",
        "route my.racer": "give questions as arguments or --input FILE",
        "route my.racer what? --input queries.jsonl": "not both",
        "route my.racer --input queries.jsonl --batch 0": "--batch must be at least 1",
        "route my.racer what? --alpha 7": "alpha must be a number between 0 and 1, such as 0.1 for 10%, got 7",
        "train train.npz -o train.npz": "must be a folder to write an artefact to, got a file",
        "train train.npz -o .": "a folder with other files",
        "demo --output .": "must be a new folder, or that of an earlier demo",
        "data convert test.npz out.txt": "path must end in .npz, .csv or .parquet",
        "monitor new.json --input feedback.jsonl": "needs --alpha or --artefact",
        "monitor new.json --alpha 0.1 --artefact my.racer --input feedback.jsonl": "--alpha or --artefact, not both",
        "monitor new.json --alpha 1.5 --input feedback.jsonl": "alpha must be a number between 0 and 1, such as 0.1 for 10%, got 1.5",
        "monitor new.json --alpha 0.1 --level 0 --input feedback.jsonl": "level must be a number between 0 and 1, such as 0.1 for 10%, got 0",
        "monitor new.json --alpha 0.1 --reference numbers.jsonl --input -": "--reference is not for monitors of kind 'risk'",
        "monitor new.json --kind exchangeability --alpha 0.1 --input -": "--alpha is not for monitors of kind 'exchang",
        "monitor new.json --kind exchangeability --input -": "needs --reference",
        "monitor new.json": "new.json: a new monitor needs lines to count: give --input FILE",
        "monitor": "name the file of the state, or --decisions and --labels",
        "monitor new.json --decisions d.jsonl": "--decisions and --labels go together",
        "monitor --decisions d.jsonl --labels test.npz --input -": "leave out --input and --resume",
    }.items():
        assert output in refused(folder, capsys, line.split()), line
    assert "must not be empty or only white space" in refused(
        folder, capsys, ["route", "my.racer", " "]
    )
    for line in ("route", "eat", "train train.npz -o x --router tree"):
        with pytest.raises(SystemExit, match="2"):
            main(line.split())
        assert "Traceback" not in capsys.readouterr().err


@pytest.mark.long
@pytest.mark.parametrize(
    ("line", "told"),
    [
        (b"{", "line 51: must be a JSON object, or plain text"),
        (b"\xff", "line 51: must be text in UTF-8"),
        (b'{"text": "\\ud800"}', "line 51: must be text without lone surrogates"),
        (b'{"text": "x", "id": [1]}', "field 'id': must be a string or a whole number"),
        (b'{"text": "x", "query": "y"}', "must stand under 'text' or 'query', not both"),
        (b'{"prompt": 1}', "must be the text of a question, got an object with 'prompt'"),
        (b'{"text": "x", "text": "y"}', "field 'text': must be named once, got it twice"),
        (b'{"text": "x", "id": "\\ud800"}', "must be text without lone surrogates"),
        (b'{"text": "x"},', "begins like JSON"),
        (b"]", "must be a JSON object, or plain text; begins like JSON"),
        (b"x" * (17 << 20), "line 51: must be a line of at most 16 MiB, got a longer one"),
        (b"[1]", "line 51: must be one JSON object on each line, got a list"),
        (b"{}", "line 51, field 'text': must be the text of a question, got {}"),
        (b'{"text": " "}', "field 'text': must be the text of a question, got \" \""),
        (b'{"text": 5}', "field 'text': must be a string, got 5"),
        (b'{"text": "x", "group": 1}', "field 'group': must be a string, got 1"),
    ],
)
def test_lines_that_are_no_queries(folder, capsys, line, told):
    with Path("queries.jsonl").open("ab") as file:
        file.write(line + b"\n")
    assert told in refused(
        folder,
        capsys,
        ["route", "my.racer", "--input", "queries.jsonl", "--output", "out.jsonl", "--strict"],
    )
    # Without --strict the line has an error in its place, and the others their decisions.
    lenient = ["route", "my.racer", "--input", "queries.jsonl", "--output", "out.jsonl"]
    assert main(lenient) == 1
    assert "1 of 51 lines cannot be read as queries" in capsys.readouterr().err
    answers = [json.loads(text) for text in Path("out.jsonl").read_text().splitlines()]
    assert ["error" in answer for answer in answers] == [False] * 50 + [True]
    assert told in answers[-1]["error"]


def test_scores_that_are_no_queries(folder, capsys):
    main(["calibrate", "s.racer", "scores.npz", "--alpha", "0.2", "--from-scores"])
    for scores, output in {
        '{"scores": {"small": 1}}': "must hold a score of each of",
        '{"scores": {"small": 1, "medium": 2, "large": 0}}': "must be in [0, 1], got 2 for 'medium'",
        '{"scores": {"small": NaN, "medium": 0, "large": 0}}': "must be in [0, 1], got NaN",
        '{"scores": {"small": 1, "medium": 0}}': "got none of 'large'",
        '{"scores": {"small": 1, "medium": 0, "large": 0, "huge": 1}}': "got 'huge' as well",
        '{"text": "what?"}': "must hold a score of each of ['small', 'medium', 'large'], got none",
    }.items():
        Path("in.jsonl").write_text(scores + "\n")
        assert output in refused(folder, capsys, ["route", "s.racer", "--input", "in.jsonl"])
    assert "this artefact was made from scores" in refused(
        folder, capsys, ["route", "s.racer", "what?"]
    )


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("2\n", "line 1: 'missed' must be 0 or 1, got 2"),
        ("{\n", "must be JSON"),
        ('0\n{"a": 1}\n', "line 2: "),
    ],
)
def test_feedback_that_is_none(folder, capsys, text, told):
    Path("bad.jsonl").write_text(text)
    assert told in refused(
        folder, capsys, ["monitor", "new.json", "--alpha", "0.1", "--input", "bad.jsonl"]
    )


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("true\n", "line 1: must be a finite number"),
        ("NaN\n", "must be a finite number"),
        ('{"scores": {}}\n', "or an object with 'number' or 'scores'"),
        ('{"scores": {"a": "b"}}\n', "'scores' must hold finite numbers"),
    ],
)
def test_numbers_that_are_none(folder, capsys, text, told):
    Path("bad.jsonl").write_text(text)
    assert told in refused(folder, capsys, [*words("monitor numbers")[:-1], "bad.jsonl"])


def test_a_state_of_another_monitor(folder, capsys):
    for line, output in {
        "monitor state.json --alpha 0.2": "state.json: holds a monitor with alpha = 0.1, got 0.2",
        "monitor state.json --artefact my.racer": "with alpha = 0.1, got 0.3",
        "monitor state.json --level 0.01": "with level = 0.05, got 0.01",
        "monitor state.json --kind exchangeability": "of kind 'risk', not 'exchangeability'",
    }.items():
        assert output in refused(folder, capsys, [*line.split(), "--input", "feedback.jsonl"])
    Path("same.jsonl").write_text("1\n" * 9)
    line = [
        "monitor",
        "new.json",
        "--kind",
        "exchangeability",
        "--reference",
        "same.jsonl",
        "--input",
        "numbers.jsonl",
    ]
    assert "same.jsonl: reference must hold at least two different" in refused(folder, capsys, line)


def test_the_report_says_what_it_lacks(folder, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "plotly.offline", None)
    assert "pip install -e '.[report]'" in refused(
        folder, capsys, ["report", "my.racer", "--data", "test.npz"]
    )
