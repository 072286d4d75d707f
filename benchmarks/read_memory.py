"""How much memory does reading take, beyond the table that comes out of it?

    python benchmarks/read_memory.py

Each format is read in a process of its own, which first reads a small file of the same layout, so
that what is imported is not counted. The peak is that of the whole process's resident memory, over
what was resident before (free memory given back, on Linux); the table is the sum of all objects
it is made of. `shuffled` is the same CSV with its rows in a random order.
"""

import json
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
from harness import Counted, fresh, report, turns

from racer_jax import reporting
from racer_jax.data import load, save

MODELS = [f"org/model-{j}-7b" for j in range(7)]
STAMP = "2026-01-02T03-04-05.678901"
CODE = """
import ctypes, gc, json, sys
import numpy as np
from racer_jax.data import load

def status(name):
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) / 1024 for line in file if line.startswith(name))

def size(value, seen):
    if value is None or id(value) in seen:
        return 0
    seen.add(id(value))
    if isinstance(value, np.ndarray):
        inside = value.reshape(-1).tolist() if value.dtype == object else ()
        return value.nbytes + sum(size(part, seen) for part in inside)
    inside = value.values() if isinstance(value, dict) else value
    if isinstance(value, str) or not hasattr(value, "__iter__"):
        inside = ()
    return sys.getsizeof(value) + sum(size(part, seen) for part in inside)

load(sys.argv[2], sys.argv[1])
gc.collect()
ctypes.CDLL(None).malloc_trim(0)
with open("/proc/self/clear_refs", "w") as file:
    file.write("5")  # the peak begins anew
before = status("VmRSS")
table = load(sys.argv[3], sys.argv[1])
grown, seen = status("VmHWM") - before, set()
num_bytes = sum(size(getattr(table, name), seen) for name in table.__dataclass_fields__)
print(json.dumps({"peak": grown, "table": num_bytes / 2**20, "queries": len(table)}))
"""


def rows_of(queries: int, seed: int = 0):
    """The rows of each query: what they share, and one dictionary for each model."""
    rng = np.random.default_rng(seed)
    words = np.array([f"word{i}" for i in range(1000)])
    for i in range(queries):
        text = " ".join(words[rng.integers(len(words), size=16)]) + f" {i}?"
        shared = {"query_id": f"arc/{i}", "query": text, "group": "arc"}
        labels, costs = rng.integers(2, size=len(MODELS)), rng.integers(999, size=len(MODELS))
        yield [
            {**shared, "model": model, "correct": int(c), "answer": "AB"[c], "cost": d / 1e6}
            for model, c, d in zip(MODELS, labels, costs.tolist(), strict=True)
        ]


def write_jsonl(path: Path, queries: int) -> None:
    """Lines of JSON, one for each query and model."""
    with path.open("w", encoding="utf-8") as file:
        for rows in rows_of(queries):
            file.writelines(json.dumps(row) + "\n" for row in rows)


def write_csv(path: Path, queries: int) -> None:
    """A long CSV, one row for each query and model."""
    with path.open("w", encoding="utf-8") as file:
        file.write("query_id,query,group,model,correct,answer,cost\n")
        for rows in rows_of(queries):
            file.writelines(",".join(map(str, row.values())) + "\n" for row in rows)


def write_shuffled(path: Path, queries: int) -> None:
    """The rows of the long CSV in a random order."""
    write_csv(path, queries)
    header, *rows = path.read_text(encoding="utf-8").splitlines(keepends=True)
    np.random.default_rng(0).shuffle(rows)
    path.write_text("".join([header, *rows]), encoding="utf-8")


def write_parquet(path: Path, queries: int) -> None:
    """Long Parquet."""
    with tempfile.TemporaryDirectory() as folder:
        write_csv(Path(folder) / "rows.csv", queries)
        save(load(Path(folder) / "rows.csv", "long_csv"), path)


def write_lm_eval(path: Path, queries: int) -> None:
    """A log of each model, in the layout of lm-evaluation-harness."""
    path.mkdir()
    files = []
    for model in MODELS:
        folder = path / model.replace("/", "__")
        folder.mkdir()
        files.append((folder / f"samples_arc_{STAMP}.jsonl").open("w", encoding="utf-8"))
    for i, rows in enumerate(rows_of(queries)):
        for file, row in zip(files, rows, strict=True):
            doc = {"question": row["query"], "choices": ["a", "b"]}
            responses = [["-1.5", "False"], ["-2.5", "False"]]
            line = {"doc_id": i, "doc": doc, "target": str(1 - row["correct"])}
            line |= {"arguments": [], "resps": [responses], "filtered_resps": responses}
            line |= {"filter": "none", "metrics": ["acc"], "doc_hash": f"{i:064x}"}
            file.write(json.dumps(line | {"acc": float(row["correct"])}) + "\n")
    for file in files:
        file.close()


FORMATS: dict[str, tuple[str, Callable[[Path, int], None]]] = {
    "lm_eval": ("out", write_lm_eval),
    "jsonl": ("rows.jsonl", write_jsonl),
    "csv": ("rows.csv", write_csv),
    "shuffled": ("rows.csv", write_shuffled),
    "parquet": ("rows.parquet", write_parquet),
}
READER = {"jsonl": "long_csv", "csv": "long_csv", "shuffled": "long_csv"}


@dataclass(frozen=True)
class Config(Counted):
    """Options of the benchmark."""

    queries: Annotated[int, "how many queries a file holds"] = 65_000
    formats: Annotated[str, "which formats, separated by commas"] = ",".join(FORMATS)

    def __post_init__(self) -> None:
        super().__post_init__()
        if unknown := sorted(set(self.formats.split(",")) - set(FORMATS)):
            raise ValueError(
                f"formats must be of {', '.join(FORMATS)}, got {', '.join(map(repr, unknown))}"
            )


def main() -> None:
    config = reporting.parse_config(Config, "Measures the peak memory of reading, by format.")
    rows, results = [], {}
    for kind in turns([kind for kind in FORMATS if kind in config.formats.split(",")], "format"):
        name, write = FORMATS[kind]
        with tempfile.TemporaryDirectory() as folder:
            small, large = Path(folder) / "small", Path(folder) / "large"
            for place, queries in ((small, 50), (large, config.queries)):
                place.mkdir()
                write(place / name, queries)
            files = [file for file in large.rglob("*") if file.is_file()]
            megabytes = sum(file.stat().st_size for file in files) / 2**20
            result = fresh(CODE, READER.get(kind, kind), str(small / name), str(large / name))
        results[kind] = result | {"file": megabytes}
        sizes = (megabytes, result["peak"], result["table"])
        ratio = result["peak"] / result["table"]
        rows.append([kind, *(f"{number:.0f} MiB" for number in sizes), f"{ratio:.2f}"])
    header = ["format", "file", "peak", "table", "peak / table"]
    title = f"Memory of reading {config.queries:,} queries x {len(MODELS)} models;"
    report("read_memory", title, header, rows, results)


if __name__ == "__main__":
    main()
