"""The shell of every experiment: files, figures drawn again, what it refuses."""

import json
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, NamedTuple

import jax
import numpy as np
import pytest
from matplotlib.figure import Figure

from racer_jax._distribution import install_command
from racer_jax.data.errors import DataError
from racer_jax.data.remedies import Remedy
from racer_jax.reporting import with_flags
from racer_jax.studies.runner import Report, run_experiment


@dataclass(frozen=True)
class Config:
    """Options of an invented experiment."""

    number: Annotated[int, "a number"] = 2
    label_rule: Annotated[str | None, "when a score counts as right"] = None
    levels: Annotated[str, "levels, listed"] = "0.1"
    output: Annotated[Path, "folder of the results"] = Path("results")


class Result(NamedTuple):
    """Its result."""

    values: np.ndarray
    note: str


def run(key, data, config: Config, progress) -> Result:
    progress(1)
    return Result(data * config.number / 3, "a note")


def picture(result: Result, *, width: float | None = None) -> Figure:
    figure = Figure(figsize=(width or 4, 2))
    figure.subplots().plot(result.values)
    return figure


def report(config: Config, result: Result) -> Report:
    rows = [{"value": value, "cost": float("nan")} for value in result.values]
    return Report(result.note, rows, {"line": partial(picture, result)})


def main(*arguments, run=run, load=None):
    load = load or (lambda config: (jax.random.key(0), np.arange(3.0)))
    steps = lambda config, data: 1  # noqa: E731
    return run_experiment(
        Config, "Invents.", run, report, steps, [str(one) for one in arguments], load=load
    )


def never(*arguments) -> Result:
    raise AssertionError("something was computed")


never.__annotations__["return"] = Result


def test_figures_in_every_format_and_again_without_computing(tmp_path, capsys):
    out = tmp_path / "out"
    assert main("--output", out, "--figures", "png,pdf", "--number", 5) == 0
    names = {path.name for path in out.iterdir()}
    assert names == {"results.json", "results.csv", "tables.txt", "line.png", "line.pdf"}
    record = json.loads((out / "results.json").read_text())
    assert record["config"]["number"] == 5
    assert record["results"]["values"] == [0, 5 / 3, 10 / 3]
    assert record["rows"] == [{"value": value, "cost": None} for value in (0, 5 / 3, 10 / 3)]
    before = {path: path.read_bytes() for path in out.iterdir()}
    again = {"run": never, "load": never}
    assert main("--redraw", out, "--figures", "svg", "--width", "column", **again) == 0
    assert "Drawn again" in capsys.readouterr().out
    svg = (out / "line.svg").read_text()
    assert 'width="237.6pt"' in svg  # 3.3 inches
    assert {path: path.read_bytes() for path in before} == before
    assert main("--redraw", out, "--output", tmp_path / "other", **again) == 0
    assert [path.name for path in (tmp_path / "other").iterdir()] == ["line.png"]


def test_a_picture_that_cannot_be_written_ends_the_command(tmp_path):
    (tmp_path / "line.png").mkdir()
    with pytest.raises(SystemExit, match="cannot write to"):
        main("--output", tmp_path)


def test_what_redraw_cannot_heed_is_refused(tmp_path, capsys):
    assert main("--redraw", tmp_path, "--number", 2) == 2
    assert "--redraw computes nothing: leave out --number" in capsys.readouterr().err
    assert main("--redraw", tmp_path) == 2
    assert "results.json: not the results of a run" in capsys.readouterr().err
    record = {
        "config": {"number": 1, "label_rule": None, "levels": "0.1", "output": "x"},
        "results": {"values": [1]},
    }
    (tmp_path / "results.json").write_text(json.dumps(record))
    assert main("--redraw", tmp_path) == 2
    assert "not of this experiment (Result lacks 'note'" in capsys.readouterr().err


@pytest.mark.parametrize("error", [ModuleNotFoundError, ImportError])
def test_an_extra_is_named_as_a_clone_installs_it(error, tmp_path, capsys):
    def load(config):
        raise error(f"Parquet needs pyarrow: {install_command('parquet')}")

    assert main("--output", tmp_path / "out", load=load) == 2
    message = "error: Parquet needs pyarrow: pip install -e '.[parquet]' in your clone of racer_jax"
    assert capsys.readouterr().err.endswith(message + "\n")
    assert not (tmp_path / "out").exists()


def test_an_error_of_the_data_is_in_the_words_of_the_shell(tmp_path, capsys):
    """Options that the command has as they are typed, and a way for those that it has not."""
    load_again = "racer-jax data convert PATH table.npz OPTIONS; then --data table.npz"
    for remedy, advice, lacks in (
        (Remedy("pass {}", missing="drop"), "pass --missing drop", True),
        (Remedy("pass {}", label_rule="score > 0.5"), "pass --label-rule 'score > 0.5'", False),
    ):

        def load(config, remedy=remedy):
            raise DataError("is not what it should be", path="x.csv", remedy=remedy)

        assert main("--output", tmp_path / "out", load=load) == 2
        problem = capsys.readouterr().err
        assert problem.startswith(f"error: x.csv: is not what it should be; {advice}")
        assert (load_again in problem) is lacks

    def of_number(config):
        raise ValueError("number must be such that it fits")

    assert main("--output", tmp_path / "out", load=of_number) == 2
    assert capsys.readouterr().err == "error: --number must be such that it fits\n"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("number must be at least 2, got 1", "--number must be at least 2, got 1"),
        ("number and label_rule are for tables", "--number and --label-rule are for tables"),
        ("number + label_rule must be less", "--number + --label-rule must be less"),
        ("number 'x' cannot be read", "--number 'x' cannot be read"),
        ("level must be in (0, 1), got 2", "--levels must be in (0, 1), got 2"),
        ("the number must be known", "the number must be known"),
        ("number and table must fit", "number and table must fit"),
        ("--number must be at least 2", "--number must be at least 2"),
    ],
)
def test_fields_at_the_beginning_of_an_error_are_options(text, shown):
    assert with_flags(text, Config) == shown
