"""The command, as a user types it."""

import json
import subprocess
import sys

import pytest

import racer_jax
from racer_jax.cli.main import joined_levels, main
from racer_jax.data import load
from tests.data import samples


def test_summary_prints_a_table(tmp_path, capsys):
    assert main(["data", "summary", str(samples.long_csv(tmp_path))]) == 0
    printed = capsys.readouterr().out
    assert "best single" in printed
    assert "note: read as long_csv, guessed from the content" in printed


def test_summary_prints_json(tmp_path, capsys):
    options = ["--label-rule", "score > 0.5", "--format", "routerdc", "--json"]
    assert main(["data", "summary", str(samples.routerdc(tmp_path)), *options]) == 0
    groups = json.loads(capsys.readouterr().out)["groups"]
    assert groups[0]["label_rule"] == "score > 0.5"
    assert groups[0]["all_wrong"] == 0.25


def test_options_of_logs(tmp_path, capsys):
    path = str(samples.lm_eval(tmp_path))
    assert main(["data", "summary", path]) == 1
    assert "pass --filter toy_gsm8k=strict-match" in capsys.readouterr().err
    assert main(["data", "summary", path, "--filter", "strict-match", "--tasks", "toy_gsm8k"]) == 0
    assert "exact_match, strict-match = 1" in capsys.readouterr().out


@pytest.mark.parametrize("suffix", [".npz", ".csv"])
def test_convert(tmp_path, capsys, suffix):
    out = tmp_path / f"table{suffix}"
    path = samples.routerdc(tmp_path)
    assert (
        main(["data", "convert", str(path), str(out), "--label-rule", "one attempt", "--seed", "1"])
        == 0
    )
    printed = capsys.readouterr()
    assert "RoutingTable(4 queries x 2 models, label rule 'one attempt')" in printed.out
    assert "note: read as routerdc, guessed from the content\n" in printed.err
    assert load(out).graded.tolist() == load(path, "routerdc").graded.tolist()


def test_what_is_wrong_is_told_in_one_line(tmp_path, capsys):
    assert main(["data", "summary", str(tmp_path / "nowhere.csv")]) == 1
    assert (
        capsys.readouterr().err.strip() == f"racer-jax: {tmp_path / 'nowhere.csv'}: file not found"
    )
    # Where it cannot be written is said before anything is read.
    assert main(["data", "convert", str(tmp_path / "nowhere.csv"), str(tmp_path / "a.txt")]) == 1
    assert "path must end in .npz, .csv or .parquet" in capsys.readouterr().err


@pytest.mark.long
def test_fetch_offline(tmp_path, capsys):
    assert (
        main(
            [
                "data",
                "fetch",
                "routerbench",
                "--folder",
                str(tmp_path),
                "--base-url",
                "http://127.0.0.1:9",
            ]
        )
        == 1
    )
    assert "On a machine without a network" in capsys.readouterr().err


def test_a_wrong_command_is_refused(capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["data", "eat"])
    assert "invalid choice" in capsys.readouterr().err


def test_version(capsys):
    with pytest.raises(SystemExit, match="0"):
        main(["--version"])
    assert capsys.readouterr().out == f"racer-jax {racer_jax.__version__}\n"


@pytest.mark.long
def test_the_module_runs():
    command = [sys.executable, "-m", "racer_jax", "data", "--help"]
    assert "summary" in subprocess.run(command, capture_output=True, check=True, text=True).stdout


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("serve --demo --port 99999", "--port must be 0 to 65535, got 99999"),
        ("serve --demo --admin-port -3", "--admin-port must be 0 to 65535, got -3"),
    ],
)
def test_a_port_that_no_machine_has(words, said, capsys):
    assert main(words.split()) == 1
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("trian logs.csv", "did you mean 'train'? 'racer-jax --help' lists them all"),
        ("data nothing", "'racer-jax data --help' lists them all"),
        ("train logs.csv -o a --epoch 3", "racer-jax train: error: unrecognized arguments"),
    ],
)
def test_a_word_that_is_not_known_gets_the_help_of_its_command(words, said, capsys):
    with pytest.raises(SystemExit) as caught:
        main(words.split())
    assert caught.value.code == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("--alphas 0.05 0.1 logs", "--alphas 0.05,0.1 logs"),
        ("--alpha 0.05 .1 0.2 logs", "--alpha 0.05,.1,0.2 logs"),
        ("--alphas 0.05, 0.1, 0.2 logs", "--alphas 0.05,0.1,0.2 logs"),
        ("--alphas=0.05 0.1 logs", "--alphas 0.05,0.1 logs"),
        ("--alphas 0.05,0.1 0.2", "--alphas 0.05,0.1,0.2"),
        ("--alphas 0.1 2 logs", "--alphas 0.1,2 logs"),  # which is then said of the level
        ("--alphas 0.1:0.3:0.1 logs", "--alphas 0.1:0.3:0.1 logs"),
        ("--alphas 0.1 logs 0.2", "--alphas 0.1 logs 0.2"),
        ("--alphas", "--alphas"),
        ("--alphas --json 0.1", "--alphas --json 0.1"),
        ("logs -- --alphas 0.1 0.2", "logs -- --alphas 0.1 0.2"),
        ("", ""),
    ],
)
def test_levels_with_spaces_between_them_are_levels(typed, meant):
    assert joined_levels(typed.split()) == meant.split()


def test_a_file_is_a_file_though_its_name_is_a_number(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "0.2").touch()
    words = ["--alphas", "0.1", "0.2"]
    assert joined_levels(words) == words
