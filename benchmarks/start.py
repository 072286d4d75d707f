"""What is waited for before anything is computed: imports and compilers, as ratios to `import jax`.

    python benchmarks/start.py

Each line is a fresh process, and the lines take turns, so that a busy machine slows all of them
alike; the medians stand beside those of `python -c "import jax"`. CPU time is user and system
together, of all threads, and memory the most that was resident. What is "cached" has run once
before with the same folder of compiled code; what is not gets an empty one.
"""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Annotated, NamedTuple

from harness import ROOT, Counted, report, saved_workload, seconds, turns

from racer_jax import reporting

ARTEFACT = """
import sys
import jax
from racer_jax import Racer
from racer_jax.data import concat, save, simulated_pool
pool = simulated_pool(jax.random.key(0), test_sizes={"gsm8k": 300}, train_sizes={"gsm8k": 300})
train, test = (concat([getattr(b, part) for b in pool.values()]) for part in ("train", "test"))
Racer.fit(jax.random.key(1), train).calibrate(test, "0.1").save(sys.argv[1])
save(test, sys.argv[2])
"""
W1 = """
import sys
import jax
import numpy as np
from racer_jax.studies.compilation_cache import use_compilation_cache
from racer_jax.montecarlo.step_functions import pool_steps
from racer_jax.montecarlo.trials import split_trials
from racer_jax.studies import runtime
runtime.use_all_cores()
use_compilation_cache(None)
file = np.load(sys.argv[1])
nonconformity, correct, alphas = (file[name] for name in ("nonconformity", "correct", "alphas"))
pool = pool_steps(nonconformity, correct).only("risk", "size", "abstention")
split_trials(jax.random.key(0), pool, num_calibration=len(correct) // 2,
             alpha=[str(alpha) for alpha in alphas], num_trials=10_000)
"""
MLP = """
import jax
import numpy as np
from racer_jax.studies.compilation_cache import use_compilation_cache
from racer_jax.routers import fit_mlp
use_compilation_cache(None)
rng = np.random.default_rng(0)
embeddings = rng.standard_normal((2000, 256)).astype(np.float32)
fit_mlp(jax.random.key(0), embeddings, rng.random((2000, 7)) < 0.6)
"""
FLAX = "import jax, numpy; from racer_jax.routers import fit_mlp"


class Line(NamedTuple):
    """A line of the table.

    Attributes:
      name: What is done.
      words: The command.
      cached: Whether it finds compiled code.
      status: How it ends: 1 where something is wrong, as is asked for; 2 where the command line
        cannot be read.
    """

    name: str
    words: Sequence[str]
    cached: bool = True
    status: int = 0


class Cost(NamedTuple):
    """What a process took: seconds, and the largest number of megabytes."""

    wall: float
    cpu: float
    memory: float


@dataclass(frozen=True)
class Config(Counted):
    """Options of the benchmark."""

    rounds: Annotated[int, "fresh processes of each line"] = 5
    only: Annotated[
        str, "lines whose name holds one of these texts, with commas between them; all by default"
    ] = ""


def measured(words: Sequence[str], cache: str, status: int = 0) -> Cost:
    """Runs a command in a fresh process, which must end with this status."""
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
    environment = os.environ | {"PYTHONPATH": path, "RACER_JAX_CACHE": cache}
    # What is installed is there as bytecode; without this a clone would be compiled each time.
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    begin = time.perf_counter()
    process = subprocess.Popen(
        words, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    _, ended, usage = os.wait4(process.pid, 0)
    wall = time.perf_counter() - begin
    process.returncode = os.waitstatus_to_exitcode(ended)
    if process.returncode != status:
        raise SystemExit(f"{words} ended with status {process.returncode}")
    unit = 1e6 if sys.platform == "darwin" else 1e3  # of `ru_maxrss`: bytes there, else KB
    return Cost(wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / unit)


def lines(folder: Path) -> list[Line]:
    """The table; the artefact, the tables and the pool that it needs are in the folder."""
    python, command = [sys.executable, "-c"], [sys.executable, "-m", "racer_jax"]
    check = [sys.executable, str(ROOT / "experiments" / "bound_check.py")]
    check += ["--output", str(folder / "results")]
    question = [*command, "route", str(folder / "my.racer"), "What is 2 + 2?"]
    pool, artefact = str(folder / "W1.npz"), str(folder / "my.racer")
    table, broken = str(folder / "logs.csv"), str(folder / "broken.csv")
    wrong = [*command, "calibrate", artefact, table, "--alpha", "0.1", "--without", "nobody"]
    train = [*command, "train", broken, "-o", str(folder / "new.racer")]
    return [
        Line("import jax", [*python, "import jax"]),
        Line("racer-jax --help", [*command, "--help"]),
        Line("racer-jax --version", [*command, "--version"]),
        Line("racer-jax, a usage error", [*command, "route", "--no-such-option"], status=2),
        Line("calibrate, an error in its options", wrong, status=1),
        Line("data summary", [*command, "data", "summary", table]),
        Line("data summary, an error in the file", [*command, "data", "summary", broken], status=1),
        Line("train, an error in the file", train, status=1),
        Line("racer-jax route, cached", question),
        Line("import of Racer", [*python, "from racer_jax import Racer"]),
        Line("bound_check, nothing cached", check, cached=False),
        Line("bound_check, cached", check),
        Line("W1, nothing cached", [*python, W1, pool], cached=False),
        Line("W1, cached", [*python, W1, pool]),
        Line("import for MLPR", [*python, FLAX]),
        Line("first fit of MLPR, nothing cached", [*python, MLP], cached=False),
        Line("first fit of MLPR, cached", [*python, MLP]),
    ]


def main() -> None:
    config = reporting.parse_config(Config, "Times the start of commands in fresh processes.")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        warm = str(folder / "warm")
        logs = folder / "logs.csv"
        measured([sys.executable, "-c", ARTEFACT, str(folder / "my.racer"), str(logs)], warm)
        # What is wrong stands in its last line, which no command knows before it has read the rest.
        whole = logs.read_bytes().splitlines(keepends=True)
        (folder / "broken.csv").write_bytes(b"".join([*whole, whole[-1]]))
        saved_workload("W1", folder)
        table, only = lines(folder), config.only.split(",")
        table = [table[0], *(line for line in table[1:] if any(map(line.name.__contains__, only)))]
        costs: dict[str, list[Cost]] = {line.name: [] for line in table}
        for line in table:
            if line.cached:
                measured(line.words, warm, line.status)
        for i in turns(range(config.rounds)):
            for line in table:
                cache = warm if line.cached else str(folder / f"cold{i}" / line.name)
                costs[line.name].append(measured(line.words, cache, line.status))
    middle = {
        name: Cost(*(median(column) for column in zip(*runs, strict=True)))
        for name, runs in costs.items()
    }
    base = middle["import jax"]
    rows = [
        [
            name,
            seconds(cost.cpu),
            f"{cost.cpu / base.cpu:.2f}",
            seconds(cost.wall),
            f"{cost.wall / base.wall:.2f}",
            f"{cost.memory - base.memory:+z.0f} MB",
        ]
        for name, cost in middle.items()
    ]
    header = ["", "CPU", "x import jax", "wall", "x import jax", "memory beyond import jax"]
    title = f"Fresh processes, median of {config.rounds}, lines in turn;"
    report("start", title, header, rows, {"costs": {k: list(v) for k, v in costs.items()}})


if __name__ == "__main__":
    main()
