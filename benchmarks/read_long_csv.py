"""Reading a long CSV: this package against `pandas.read_csv` and a pivot.

The file holds one row for each (query, model): id, text, model, label. Both readers end with a
matrix of labels; ours also checks every field, joins text to query and refuses repeated and missing
pairs. Run it with

    python benchmarks/read_long_csv.py [--rows 1000000] [--repeats 5]

Peak memory is that of a process that reads the file once and
does nothing else.
"""

import resource
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import numpy as np
from harness import Counted, needs, report, turns

from racer_jax import reporting
from racer_jax.data import read_long_csv

NUM_MODELS = 7
LIMIT_RATIO, LIMIT_BYTES = 3.0, 2_000_000_000


def write_file(path: Path, rows: int, seed: int = 0) -> int:
    """Writes the file; returns how many rows it holds."""
    rng = np.random.default_rng(seed)
    words = np.array([f"word{i}" for i in range(1000)])
    models = [f"org/model-{j}-7b" for j in range(NUM_MODELS)]
    queries = -(-rows // NUM_MODELS)
    with path.open("w", encoding="utf-8") as file:
        file.write("query_id,query,model,correct\n")
        for i in range(queries):
            text = " ".join(words[rng.integers(len(words), size=16)])
            labels = rng.integers(2, size=NUM_MODELS)
            file.writelines(
                f'q{i},"{text}, {i}?",{m},{c}\n' for m, c in zip(models, labels, strict=True)
            )
    return queries * NUM_MODELS


def ours(path: Path) -> np.ndarray:
    """The labels by this package."""
    return read_long_csv(path).correct


def by_pandas(path: Path) -> np.ndarray:
    """The labels by pandas, queries and models in order of appearance."""
    import pandas as pd

    frame = pd.read_csv(path)
    matrix = frame.pivot(index="query_id", columns="model", values="correct")
    return matrix.loc[frame["query_id"].unique(), frame["model"].unique()].to_numpy(dtype=bool)


READERS = {"racer_jax": ours, "pandas": by_pandas}


def peak_bytes() -> int:
    """Peak memory of this process so far."""
    status = Path("/proc/self/status")
    if status.exists():  # ru_maxrss would count the parent that this process was forked from
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (
        1 if sys.platform == "darwin" else 1024
    )


def peaks(name: str, path: Path) -> tuple[int, int]:
    """Peak memory of a fresh process, before it reads and after."""
    command = [sys.executable, __file__, "--only", name, str(path)]
    before, after = subprocess.run(command, capture_output=True, check=True).stdout.split()
    return int(before), int(after)


@dataclass(frozen=True)
class Config(Counted):
    """Options of the benchmark."""

    rows: Annotated[int, "rows of the file"] = 1_000_000
    repeats: Annotated[int, "times that each library reads it"] = 5


def main() -> None:
    if sys.argv[1:2] == ["--only"]:  # a process of its own, of `peaks`
        before = peak_bytes()
        READERS[sys.argv[2]](Path(sys.argv[3]))
        print(before, peak_bytes())
        return
    options = reporting.parse_config(Config, "Reading a long CSV file, beside pandas.")
    needs("test", "pandas")
    wall: dict[str, list[float]] = {name: [] for name in READERS}
    cpu: dict[str, list[float]] = {name: [] for name in READERS}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "long.csv"
        rows = write_file(path, options.rows)
        size = path.stat().st_size
        if not np.array_equal(ours(path), by_pandas(path)):
            raise SystemExit("the two readers disagree")
        for _ in turns(range(options.repeats)):
            for name, reader in READERS.items():
                start, started = time.perf_counter(), time.process_time()
                reader(path)
                wall[name].append(time.perf_counter() - start)
                cpu[name].append(time.process_time() - started)
        memory = {name: peaks(name, path) for name in READERS}
    seconds = {
        name: (statistics.median(wall[name]), statistics.median(cpu[name])) for name in READERS
    }
    ratio = seconds["racer_jax"][0] / seconds["pandas"][0]
    held = ratio <= LIMIT_RATIO and memory["racer_jax"][1] < LIMIT_BYTES
    lines = [
        [
            name,
            *(f"{value:.2f}" for value in seconds[name]),
            *(f"{memory_bytes / 1e6:.0f}" for memory_bytes in reversed(memory[name])),
        ]
        for name in READERS
    ]
    results = {
        "rows": rows,
        "file_bytes": size,
        "repeats": options.repeats,
        "wall_ratio": ratio,
        "readers": {
            name: {
                "wall_s": seconds[name][0],
                "cpu_s": seconds[name][1],
                "peak_bytes": memory[name][1],
            }
            for name in READERS
        },
        "versions": {name: version(name) for name in ("numpy", "pandas")},
    }
    title = f"{rows:,} rows, {size / 1e6:.0f} MB, median of {options.repeats};"
    header = ["reader", "wall s", "CPU s", "peak MB", "imports MB"]
    report("read_long_csv", title, header, lines, results)
    print(
        f"{ratio:.2f} times pandas (at most {LIMIT_RATIO:g}), under {LIMIT_BYTES / 1e9:g} GB: "
        f"{'yes' if held else 'NO'}"
    )
    sys.exit(0 if held else 1)


if __name__ == "__main__":
    main()
