"""Processes that save, read, count and route at once, and are killed."""

import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from racer_jax.racer.racer import Racer
from racer_jax.serving.monitor import RiskMonitor
from tests.attack.tally import LOST, Tally
from tests.racer.test_racer import MODELS, table_of

ROOT = Path(__file__).parents[2]
COMMAND = [sys.executable, "-m", "racer_jax"]


def _concurrent(tally: Tally, parts: dict[str, int], folder: Path) -> None:
    """What tests/racer/concurrent_saves.py counts: any outcome but its good ones is a loss."""
    words = [f"{name}={size}" for name, size in parts.items()]
    script = ROOT / "tests" / "racer" / "concurrent_saves.py"
    done = subprocess.run(
        [sys.executable, script, folder, *words], capture_output=True, text=True, check=False
    )
    if done.returncode:
        tally.problem(LOST, done.stderr)
    for line in done.stdout.splitlines():
        name, _, counts = line.partition(" ")
        for outcome, num in eval(counts, {}).items():
            if outcome not in ("good", "left 2"):
                tally.problem(LOST, f"{name}: {num} times {outcome}")
        tally.tried += parts[name]
        tally.outcomes[name] += parts[name]


def concurrent_saves(tally: Tally, rounds: int, folder: Path) -> None:
    """Four writers and four readers of one artefact, started together, and threads."""
    _concurrent(tally, {"rounds": 100 * rounds, "threads": 20 * rounds}, folder)


def killed_saves(tally: Tally, rounds: int, folder: Path) -> None:
    """Processes that save without end, killed: over an artefact, and into an empty folder."""
    _concurrent(tally, {"kills": 100 * rounds, "kills_empty": 60 * rounds}, folder)


def _killed_after(command: list[str], seconds: float, number: int, **options: object) -> int:
    """Starts a process that has everything to do, and ends it."""
    with subprocess.Popen(command, stderr=subprocess.DEVNULL, **options) as process:
        try:
            return process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.send_signal(number)
            return process.wait()


def killed_monitors(tally: Tally, rounds: int, folder: Path) -> None:
    """A stream with positions whose monitor is killed and started again: each line counts once."""
    rng, num = random.Random(4), 30_000
    lines = "".join(f'{{"missed": 0, "position": {i + 1}}}\n' for i in range(num))
    (folder / "lines").write_text(lines)
    command = [*COMMAND, "monitor", "state.json", "--alpha", "0.1", "--input", "-"]
    signals = (signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # or children ignore it
    try:
        for _ in range(8 * rounds):
            with open(folder / "lines") as lines_from:
                seconds = 0.3 + 3 * rng.random()
                options = {"cwd": folder, "stdin": lines_from, "stdout": subprocess.DEVNULL}
                status = _killed_after(command, seconds, rng.choice(signals), **options)
            tally.tried += 1
            tally.outcomes[f"status {status}"] += 1
            state = folder / "state.json"
            if state.exists() and not RiskMonitor.load(state).num <= num:
                tally.problem(LOST, "counted twice")
    finally:
        signal.signal(signal.SIGINT, before)
    subprocess.run(command, cwd=folder, input=lines, text=True, stdout=subprocess.DEVNULL)
    counted = RiskMonitor.load(folder / "state.json").num
    if counted != num:
        tally.problem(LOST, f"{counted} lines of {num} were counted")


def two_monitors(tally: Tally, rounds: int, folder: Path) -> None:
    """Several monitors of one state at once: all feedback is counted."""
    (folder / "feedback").write_text("0\n" * 500)
    command = [*COMMAND, "monitor", "state.json", "--alpha", "0.1", "--input", "feedback"]
    for number in range(2 * rounds):
        runs = [subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL) for _ in range(3)]
        statuses = [run.wait() for run in runs]
        tally.tried += 3
        tally.outcomes[f"statuses {statuses}"] += 1
        counted = RiskMonitor.load(folder / "state.json").num
        if counted != 1500 * (number + 1):
            tally.problem(LOST, f"{counted} of {1500 * (number + 1)} were counted")


def killed_routes(tally: Tally, rounds: int, folder: Path) -> None:
    """`route` is killed: its file of decisions is whole, as it was before, or not there."""
    part, rng = table_of(np.random.default_rng(4), 60), random.Random(5)
    racer = Racer.from_scores(MODELS).calibrate(part.table, 0.3, scores=part.scores)
    racer.save(folder / "a.racer")
    records = [
        {"scores": dict(zip(MODELS, row.tolist(), strict=True)), "group": group}
        for row, group in zip(part.scores, part.table.group, strict=True)
    ]
    num = 100 * len(records)
    (folder / "queries").write_text("".join(json.dumps(r) + "\n" for r in records) * 100)
    command = [*COMMAND, "route", "a.racer", "--input", "queries", "--output", "decisions"]
    subprocess.run(command, cwd=folder, check=True)
    decisions = folder / "decisions"
    whole = decisions.read_bytes()
    for number in range(10 * rounds):
        decisions.unlink(missing_ok=True)
        if number % 2 == 0:
            decisions.write_bytes(whole)
        seconds = 1.0 + 2.5 * rng.random()
        status = _killed_after(command, seconds, signal.SIGKILL, cwd=folder)
        tally.tried += 1
        there = decisions.read_bytes() if decisions.exists() else None
        kind = "absent" if there is None else "whole"
        tally.outcomes[f"{kind} after status {status}"] += 1
        if there not in (None, whole) or (there is None and number % 2 == 0):
            tally.problem(LOST, f"the decisions of {num} queries are {len(there or b'')} bytes")
        for left in folder.glob(".decisions.*"):
            left.unlink()  # what SIGKILL leaves; the next run takes a name of its own


# Writes a file for ever; a line says that it has begun.
_WRITES = """
import sys
from pathlib import Path
from racer_jax._files import written_whole
number = int(sys.argv[2])
print(flush=True)
while True:
    number += 1
    with written_whole(Path(sys.argv[1])) as temporary:
        temporary.write_text(str(number % 10) * 5000)
"""


def interrupted_saves(tally: Tally, rounds: int, folder: Path) -> None:
    """Many small files of one name, written whole by processes that are killed."""
    rng, path = random.Random(6), folder / "a.txt"
    path.write_text("0" * 5000)
    for number in range(50 * rounds):
        # Not a fork of this process, in which JAX may have threads by now.
        command = [sys.executable, "-c", _WRITES, str(path), str(number)]
        child = subprocess.Popen(command, stdout=subprocess.PIPE)
        assert child.stdout is not None
        with child.stdout as said:
            said.readline()
        time.sleep(0.001 + 0.005 * rng.random())
        child.kill()
        child.wait()
        tally.tried += 1
        text = path.read_text()
        if len(text) != 5000 or len(set(text)) != 1:
            tally.problem(LOST, f"{len(text)} bytes of {set(text)}")
        for left in folder.glob(".a.txt.*"):
            left.unlink()
