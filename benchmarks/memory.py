"""How much memory does W1 take as a stream, beyond what the import takes?

    python benchmarks/memory.py
    python benchmarks/memory.py --worker "tests/core tests/routers"

The peak resident memory of fresh processes, less what they had after the import: compiling, the
pool and the splits. `--worker` adds a process that runs these tests one after the other, as a
worker of the suite does, beyond what `import jax` takes.
"""

import sys
import tempfile
from dataclasses import dataclass
from statistics import median
from typing import Annotated

from harness import Counted, fresh, report, saved_workload, turns
from start import measured

from racer_jax import reporting

CODE = """
import json, resource, sys
import jax
import numpy as np
from racer_jax.studies import runtime
from racer_jax.montecarlo.step_functions import pool_steps
from racer_jax.montecarlo.trials import stream_trials
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024  # kilobytes on Linux
runtime.use_all_cores()
if sys.argv[4]:
    runtime.use_compilation_cache(sys.argv[4])
jax.devices()
imported = peak()
file = np.load(sys.argv[1])
pool = pool_steps(file["nonconformity"], file["correct"]).only("risk", "size", "abstention")
alphas, how = [str(a) for a in file["alphas"]], {"num_calibration": pool.num_queries // 2}
if int(sys.argv[3]):
    how["chunk_size"] = int(sys.argv[3])
sorted_ = peak()
stream_trials(jax.random.key(0), pool, alpha=alphas, num_trials=int(sys.argv[2]), **how)
print(json.dumps({"import": imported, "pool": sorted_ - imported, "all": peak() - imported}))
"""


@dataclass(frozen=True)
class Config(Counted):
    """Options of the benchmark."""

    rounds: Annotated[int, "fresh processes of each kind"] = 3
    worker: Annotated[str, "tests of which one process is measured; none by default"] = ""


def of_worker(tests: str, cache: str) -> list[list[str]]:
    """The largest memory of one process that runs these tests, as a row of a table."""
    words = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *tests.split()]
    peak = measured(words, cache).memory
    base = measured([sys.executable, "-c", "import jax"], cache).memory
    return [[tests, f"{base:.0f} MB", f"{peak - base:.0f} MB"]]


def main() -> None:
    config = reporting.parse_config(Config, "Measures the peak memory of W1 as a stream.")
    rows, results = [], {}
    with tempfile.TemporaryDirectory() as folder:
        pool, cache = saved_workload("W1", folder), f"{folder}/cache"
        kinds = {
            "10,000 splits": (10_000, 0, ""),
            "10,000 splits, compiled code from the cache": (10_000, 0, cache),
            "100,000 splits": (100_000, 0, ""),
            "10,000 splits in chunks of 4,096": (10_000, 4096, ""),
        }
        fresh(CODE, pool, "10000", "0", cache)  # fills the cache
        for kind, (splits, chunk, where) in kinds.items():
            arguments = (pool, str(splits), str(chunk), where)
            runs = [fresh(CODE, *arguments) for _ in turns(range(config.rounds), "process")]
            results[kind] = runs
            rows.append(
                [
                    kind,
                    *(
                        f"{median(run[name] for run in runs):.0f} MB"
                        for name in ("import", "pool", "all")
                    ),
                ]
            )
    header = ["", "after the import", "pool, beyond it", "peak, beyond it"]
    report(
        "memory",
        f"Peak resident memory of W1 as a stream, median of {config.rounds} processes;",
        header,
        rows,
        results,
    )
    if config.worker:
        with tempfile.TemporaryDirectory() as folder:
            worker = of_worker(config.worker, folder)
        header = ["tests", "import jax", "peak, beyond it"]
        title = "Peak resident memory of one worker of the tests;"
        report("worker", title, header, worker, {"rows": worker})


if __name__ == "__main__":
    main()
