"""The commands of README and tutorial that show no output.

Typed literally, in a shell, in an empty folder.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import jax
import pytest

from racer_jax.data import concat, save, simulated_pool
from racer_jax.racer.artefact import read

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(r"^```bash\n(.*?)^```", re.DOTALL | re.MULTILINE)


def block(page: str, command: str) -> str:
    """The block of a page that holds a command."""
    found = [
        text for text in BLOCK.findall((ROOT / page).read_text(encoding="utf-8")) if command in text
    ]
    assert len(found) == 1, f"{page} must have one block with {command!r}, got {len(found)}"
    return found[0]


@pytest.fixture
def shell(tmp_path):
    """Runs lines of bash, with a `racer-jax` that is this package's.

    Returns what each line printed.
    """
    stub = tmp_path / "bin" / "racer-jax"
    stub.parent.mkdir()
    stub.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m racer_jax "$@"\n')
    stub.chmod(0o755)
    folder = tmp_path / "work"
    folder.mkdir()
    paths = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    names = os.environ | {
        "PATH": f"{stub.parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": paths,
    }

    def run(lines: str) -> dict[str, str]:
        printed = {}
        for line in filter(str.strip, lines.splitlines()):
            done = subprocess.run(
                ["bash", "-euo", "pipefail", "-c", line],
                cwd=folder,
                env=names,
                capture_output=True,
                text=True,
                check=False,
            )
            assert done.returncode == 0, f"$ {line}\n{done.stderr[-2000:]}"
            printed[line.split("#")[0].strip()] = done.stdout
        return printed

    run.folder = folder
    return run


def pool_of(num: int):
    sizes = {"gsm8k": num, "mmlu": num}
    return simulated_pool(
        jax.random.key(0), test_sizes=sizes, train_sizes={"gsm8k": 1000, "mmlu": 1000}
    )


def risks(printed: str) -> dict[str, tuple[float, float]]:
    """Risk and promise of each line of the first table that `evaluate` prints."""
    rows = re.findall(r"^ *(\w+) +\d+ +(\d\.\d+) +(\d\.\d+) ", printed, re.MULTILINE)
    return {name: (float(risk), float(promised)) for name, risk, promised in rows}


@pytest.mark.slow
def test_from_logs_to_production(shell):
    """README: every line, on the file that the first of them leaves."""
    printed = shell(block("README.md", "racer-jax calibrate"))
    assert "PASS" in printed["racer-jax demo && cp racer-demo/logs.csv ."]
    assert (shell.folder / "racer-demo" / "commands.sh").exists()
    for name in ("calls.png", "calls-dark.png"):  # the picture of this page
        assert (shell.folder / "racer-demo" / name).exists()
    evaluated = risks(printed["racer-jax evaluate my.racer logs.csv --unseen"])
    assert set(evaluated) == {"all", "gsm8k", "mmlu", "arc_challenge"}
    for risk, promised in evaluated.values():
        assert promised == 0.1
        assert risk < 0.3  # of 144 questions in the smallest group
    assert evaluated["all"][0] < 0.2
    assert (
        "used for training or calibration"
        not in printed["racer-jax evaluate my.racer logs.csv --unseen"]
    )
    description, _ = read(shell.folder / "my.racer")
    assert (
        f"alpha = {description['calibration']['alpha']}"
        in printed[next(c for c in printed if "calibrate" in c)]
    )
    assert any("What is 2 + 2?" in text for text in printed.values())


@pytest.mark.slow
def test_the_same_from_a_shell(shell):
    """The tutorial, with the logs that it makes."""
    pytest.importorskip("plotly", reason="extra report")
    save(concat([part.test for part in pool_of(1300).values()]), shell.folder / "logs.csv")
    printed = shell(block("docs/tutorial.md", "racer-jax train"))
    assert [line.split()[1] for line in printed] == ["train", "calibrate", "evaluate", "report"]
    for risk, promised in risks(printed["racer-jax evaluate my.racer logs.csv --unseen"]).values():
        assert promised == 0.05
        assert risk < 0.15
    page = (shell.folder / "report.html").read_text(encoding="utf-8")
    assert (
        "used for training or calibration"
        not in page.split('id="report-data">')[1].split("</script>")[0]
    )
