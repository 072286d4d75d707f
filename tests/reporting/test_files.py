import csv
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

import jax.numpy as jnp
import numpy as np
import pytest

from racer_jax import reporting


@dataclass(frozen=True)
class Config:
    splits: Annotated[int, "number of splits"] = 10
    data: Annotated[Path | None, "folder"] = None
    null: Annotated[Literal["paper", "free"], "null mode"] = "paper"
    tie_break: Annotated[bool, "break ties"] = True

    def __post_init__(self):
        if self.splits < 1:
            raise ValueError(f"splits must be at least 1, got {self.splits}")


def test_a_dataclass_is_a_command_line():
    assert reporting.parse_config(Config, "does", []) == Config()
    arguments = ["--splits", "3", "--data", "x", "--null", "free", "--no-tie-break"]
    assert reporting.parse_config(Config, "does", arguments) == Config(3, Path("x"), "free", False)


def test_the_help_names_defaults_but_none(capsys):
    with pytest.raises(SystemExit):
        reporting.parse_config(Config, "does", ["--help"])
    printed = " ".join(capsys.readouterr().out.split())
    assert "number of splits (default: 10)" in printed
    assert "--data PATH folder --null" in printed


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--splits", "0"], "splits must be at least 1, got 0"),
        (["--splits", "x"], "invalid int value: 'x'"),
        (["--null", "x"], "invalid choice: 'x'"),
        (["--other"], "unrecognized arguments: --other"),
    ],
)
def test_usage_errors_are_named(arguments, message, capsys):
    with pytest.raises(SystemExit) as caught:
        reporting.parse_config(Config, "does", arguments)
    assert caught.value.code == 2
    assert message in capsys.readouterr().err


class Pair(NamedTuple):
    value: np.ndarray
    name: str


def test_json_holds_arrays_named_tuples_paths_and_infinities(tmp_path):
    results = {
        "config": Config(data=Path("x")),
        "pair": Pair(jnp.array([1.5, jnp.inf]), "a"),
        "n": np.int64(3),
    }
    reporting.write_json(tmp_path / "r.json", results)
    expected = {
        "config": {"splits": 10, "data": "x", "null": "paper", "tie_break": True},
        "pair": {"value": [1.5, "inf"], "name": "a"},
        "n": 3,
    }
    assert json.loads((tmp_path / "r.json").read_text()) == expected


def test_csv_has_a_line_for_each_row(tmp_path):
    rows = [{"alpha": "0.1", "risk": 0.25}, {"alpha": "0.2", "risk": 0.5}]
    reporting.write_csv(tmp_path / "r.csv", rows)
    with (tmp_path / "r.csv").open(newline="") as file:
        assert list(csv.DictReader(file)) == [{k: str(v) for k, v in row.items()} for row in rows]


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path):
    reporting.write_json(tmp_path / "r.json", [1])
    with pytest.raises(TypeError):
        reporting.write_json(tmp_path / "r.json", [object()])
    assert json.loads((tmp_path / "r.json").read_text()) == [1]
    assert [path.name for path in tmp_path.iterdir()] == ["r.json"]


def test_an_output_that_is_a_file_is_one_line(tmp_path):
    (tmp_path / "taken").write_text("x")
    with pytest.raises(SystemExit, match=r"cannot write to .*taken: File exists"):
        reporting.finish(lambda folder: None, tmp_path / "taken")


def test_environment_names_versions_and_devices():
    import jax

    assert reporting.environment()["jax"] == jax.__version__
    assert "cpu" in reporting.environment()["devices"].lower()
