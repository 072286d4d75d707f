"""What an error advises can be typed where it was met, in the spelling of the shell."""

import ast
import re
import shlex
from pathlib import Path

import numpy as np
import pytest

import racer_jax
from racer_jax.cli.main import _parsed, in_shell, main
from racer_jax.cli.options import Source
from racer_jax.data.remedies import OPTIONS, Remedy, option_value, shell_text

VALUES = {
    "format": "long_csv",
    "models": ["a", "b,c"],
    "columns": {"query": "prompt", "correct": "is_correct"},
    "delimiter": "\t",
    "missing": "drop",
    "label_rule": {"gsm8k": "score > 0.5"},
    "metric": {"ifeval": "inst_acc"},
    "filter": "strict-match",
    "tasks": ["mmlu_*"],
    "groups": {"mmlu_*": "mmlu"},
    "group": "gsm8k",
    "num_fewshot": 5,
    "scorer": "match",
    "attempt": 2,
    "ignore": ["latency", "cost"],
    "part": "val",
    "pools": "intersect",
}
COMMANDS = {
    "data summary": "data summary T OPTION",
    "data convert": "data convert T out.csv OPTION",
    "train": "train T -o a OPTION",
    "calibrate": "calibrate a T --alpha 0.1 OPTION",
    "evaluate": "evaluate a T OPTION",
    "report": "report a --data T OPTION",
    "bound-check": "bound-check a T OPTION",
    "monitor": "monitor --decisions d --labels T OPTION",
}


@pytest.mark.long
@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_of_the_readers_can_be_typed(command):
    for keyword, option in OPTIONS.items():
        if keyword == "key":
            continue
        for value in (True, False) if option.kind == "switch" else (VALUES[keyword],):
            typed = shlex.split(shell_text(keyword, value))
            words = [
                word
                for part in COMMANDS[command].split()
                for word in (typed if part == "OPTION" else [part])
            ]
            source = Source.of(_parsed(words), [Path("T")])
            assert source.options == {keyword: value}, words
            assert source.paths == (Path("T"),)


def texts():
    """Every string of the package that an error may show: those in `raise` and in a `Remedy`."""
    for path in Path(racer_jax.__file__).parent.rglob("*.py"):
        if path.parts[-2] in ("studies", "cli", "serving"):
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Raise) and node.exc is not None:
                strings = [
                    part.value
                    for part in ast.walk(node.exc)
                    if isinstance(part, ast.Constant) and isinstance(part.value, str)
                ]
                yield path.name, "".join(strings)


def test_no_error_that_a_command_prints_advises_python():
    """After translation no advice is left that names a keyword argument or a method."""
    advice = re.compile(r"(?:pass|give|call|see|use) [\w.]+(?:=|\()")
    beyond = {  # no command of the shell comes to these
        "base.py": "pass [text]",
        "threshold_parts.py": "pass jax.lax.stop_gradient",
        "serialization.py": "pass it as encoder=",
    }
    left = [
        (name, text)
        for name, text in texts()
        if advice.search(in_shell(ValueError(text))) and beyond.get(name, "\0") not in text
    ]
    assert left == []


def test_remedies_of_the_data_package_name_options_of_the_table():
    """`Remedy` refuses any other; this sees that none is built past it."""
    names = set()
    for path in Path(racer_jax.__file__).parent.rglob("data/**/*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == Remedy.__name__:
                names |= {keyword.arg for keyword in node.keywords if keyword.arg}
    assert names
    assert names - {"path"} <= set(OPTIONS)


# --- tried: the error, then what it advises -------------------------------------------------------


def advised(line, capsys):
    """The line of an error."""
    assert main(line) == 1
    return capsys.readouterr().err


def test_columns(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("t.csv").write_text("q,llm,ok\na?,x,1\na?,y,0\nb?,x,0\nb?,y,1\n")
    assert "--columns" in advised(["data", "summary", "t.csv"], capsys)
    columns = "query=q,model=llm,correct=ok"
    assert main(["data", "summary", "t.csv", "--columns", columns]) == 0


def test_the_standard_input_is_a_table():
    source = Source.of(_parsed(["data", "summary", "-", "a.csv", "/tmp/-"]))
    assert list(map(str, source.paths)) == ["/dev/stdin", "a.csv", "/tmp/-"]


def test_several_files_are_joined(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("a.csv").write_text("query,model,correct\na?,x,1\na?,y,0\n")
    Path("b.csv").write_text("query,model,correct\nb?,y,1\nb?,x,0\nb?,z,0\n")
    assert "--pools intersect" in advised(["data", "summary", "a.csv", "b.csv"], capsys)
    line = ["data", "convert", "a.csv", "b.csv", "both.npz", "--pools", "intersect"]
    assert main(line) == 0
    both = racer_jax.load("both.npz")
    assert both.models == ("x", "y")
    np.testing.assert_array_equal(both.correct, [[1, 0], [0, 1]])
    capsys.readouterr()
    assert main(["data", "convert", "a.csv", "less.csv", "--models", "y"]) == 0
    assert racer_jax.load("less.csv").models == ("y",)


def test_a_delimiter_is_typed_by_its_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("t.csv").write_text("query|model|correct\na?|x|1\na?|y|0\n")
    assert main(["data", "summary", "t.csv", "--delimiter", "|"]) == 0
    Path("t.csv").write_text("query\tmodel\tcorrect\na?\tx\t1\na?\ty\t0\n")
    assert main(["data", "summary", "t.csv", "--delimiter", "tab"]) == 0


def test_pairs_that_are_none_name_their_option(tmp_path, capsys):
    assert "--columns must be pairs" in advised(["data", "summary", "t", "--columns", "a"], capsys)
    with pytest.raises(ValueError, match="--num-fewshot must be a whole number"):
        option_value("num_fewshot", "x")
