"""Where a command writes: nothing else is lost there in silence, and what is written opens."""

import json
import shutil
from pathlib import Path

import pytest

from racer_jax.cli.main import main
from racer_jax.cli.places import PAGES, check_artefact, check_file
from racer_jax.racer.artefact import DESCRIPTION, read, write

GOLDEN = Path(__file__).parents[1] / "golden" / "format_3"
REFUSED = [
    "train logs.csv -o my.racer",
    "cascade train logs.csv -o my.racer",
    "calibrate my.racer logs.csv --alpha 0.2 -o other.racer",
    "calibrate my.racer scores.npz --alpha 0.2 --from-scores",
    "cascade calibrate my.cascade logs.csv --alpha 0.2 -o my.racer",
    "extend my.racer logs.csv -o other.racer",
    "recalibrate gateway.db --artefact my.racer -o other.racer",
]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A calibrated artefact, one of another router, and one that is not calibrated."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(GOLDEN / "golden.racer", "my.racer")
    description, arrays = read("my.racer")
    write("same.racer", description, arrays)
    write("bare.racer", description | {"calibration": None}, arrays)
    router = description["router"] | {"fingerprint": "0" * 32}
    write("other.racer", description | {"router": router}, arrays)
    write("my.cascade", description | {"kind": "cascade"}, arrays)
    return tmp_path


def contents() -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(Path().rglob("*")) if path.is_file()}


@pytest.mark.parametrize("line", REFUSED)
def test_a_calibrated_artefact_is_not_lost_without_consent(folder, capsys, line):
    before = contents()
    assert main(line.split()) == 1
    problem = capsys.readouterr().err.strip()
    assert "\n" not in problem
    assert "holds a router of 3 models, calibrated at alpha = 0.2 on 60 queries" in problem
    assert "which would be lost: name another folder, or pass --overwrite" in problem
    assert contents() == before


@pytest.mark.parametrize("line", REFUSED)
def test_with_consent_the_work_begins(folder, capsys, line):
    assert main([*line.split(), "--overwrite"]) == 1
    problem = capsys.readouterr().err
    assert "not found" in problem or "is not a cascade" in problem  # what is read comes next


def test_a_calibration_of_the_same_router_is_replaced(folder, capsys):
    source = Path("my.racer")
    for name in ("my.racer", "same.racer", "new.racer"):
        check_artefact(Path(name), overwrite=False, changed=source)
    assert capsys.readouterr().err == ""


def test_what_is_not_calibrated_or_damaged_is_replaced_with_a_note(folder, capsys):
    check_artefact(Path("bare.racer"), overwrite=False)
    note = "bare.racer: a router of 3 models, not calibrated, is there and will be replaced"
    assert capsys.readouterr().err == f"note: {note}\n"
    (folder / "bare.racer" / DESCRIPTION).write_text("{")
    check_artefact(Path("bare.racer"), overwrite=False)
    assert "the artefact that is there is damaged, and will be replaced" in capsys.readouterr().err


def test_an_artefact_of_a_newer_version_is_not_lost(folder, capsys):
    path = folder / "my.racer" / DESCRIPTION
    path.write_text(json.dumps(json.loads(path.read_text()) | {"format": 99}))
    assert main(REFUSED[0].split()) == 1
    assert "holds an artefact that a newer version wrote" in capsys.readouterr().err


NAMES = [
    ("report my.racer --data test.npz --output report", ".html or .htm, such as report.html"),
    ("report my.racer --data test.npz --output r.txt", ".html or .htm, such as r.html, got r.txt"),
    ("cascade report c --data test.npz --output report", ".html or .htm, such as report.html"),
    ("evaluate my.racer test.npz --output figures", ".json, such as figures.json, got figures"),
    ("cascade evaluate c test.npz --output figures.csv", ".json, such as figures.json"),
    ("data convert logs.csv table", ".npz, .csv or .parquet, got table"),
]


@pytest.mark.parametrize(("line", "advice"), NAMES)
def test_a_file_has_a_name_that_opens_it(tmp_path, monkeypatch, capsys, line, advice):
    monkeypatch.chdir(tmp_path)
    assert main(line.split()) == 1
    assert f"must end in {advice}" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


INPUTS = [
    "evaluate my.racer test.json --output test.json",
    "report my.racer --data logs.html --output logs.html",
    "report my.racer --data logs --output logs/part.html",
    "cascade evaluate my.racer test.json --output ./test.json",
    "route my.racer --input test.json --output test.json",
    "data convert logs/test.npz logs/../logs/test.npz",
]


@pytest.mark.parametrize("line", INPUTS)
def test_a_command_does_not_write_over_what_it_reads(tmp_path, monkeypatch, capsys, line):
    monkeypatch.chdir(tmp_path)
    Path("logs").mkdir()
    for name in ("test.json", "logs.html", "logs/part.html", "logs/test.npz"):
        Path(name).write_text("{}")
    before = contents()
    assert main(line.split()) == 1
    assert "is read by this command: write to another file" in capsys.readouterr().err
    assert contents() == before


def test_a_page_that_is_there_is_replaced(tmp_path):
    """It is made anew from an artefact and a table: nothing is lost."""
    page = tmp_path / "r.HTM"
    page.touch()
    check_file(page, *PAGES, inputs=[tmp_path / "logs.csv"])
    assert page.exists()
