"""How long does W1 take from nothing: import, trace, compile, run, in a fresh process?

    python benchmarks/cold.py

Three kinds of fresh process in turn: without a compilation cache, with an empty one, and with a
filled one. The start of Python and the reading of the pool do not count; the import of JAX and of
the package, the sorting of the pool and 10,000 splits do.
"""

import tempfile
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Annotated

from baselines import SPLITS
from harness import Counted, fresh, report, saved_workload, seconds, turns

from racer_jax import reporting

CODE = """
import sys, time
start = time.perf_counter()
import json, resource
import jax
import numpy as np
from racer_jax.studies import runtime
from racer_jax.montecarlo.step_functions import pool_steps
from racer_jax.montecarlo.trials import split_trials
runtime.use_all_cores()
if sys.argv[3]:
    runtime.use_compilation_cache(sys.argv[3])
spent = {"trace": 0.0, "lower": 0.0, "compile or load": 0.0}
events = {"jaxpr_trace_duration": "trace", "jaxpr_to_mlir_module_duration": "lower",
          "backend_compile_duration": "compile or load", "program_load_duration": "compile or load",
          "c_library_duration": "compile or load"}
def listen(name, duration, **_):
    if (key := events.get(name.rsplit("/", 1)[-1])) is not None:
        spent[key] += duration
jax.monitoring.register_event_duration_secs_listener(listen)
jax.devices()
imported = time.perf_counter() - start
file = np.load(sys.argv[1])
nonconformity, correct, alphas = (file[name] for name in ("nonconformity", "correct", "alphas"))
start, cpu = time.perf_counter(), time.process_time()
pool = pool_steps(nonconformity, correct).only("risk", "size", "abstention")
sorting = time.perf_counter() - start
def run():
    return split_trials(jax.random.key(0), pool, num_calibration=len(correct) // 2,
                        alpha=[str(a) for a in alphas],
                        num_trials=int(sys.argv[2]))
run()
first = time.perf_counter() - start
again = time.perf_counter()
run()
warm = time.perf_counter() - again
children = resource.getrusage(resource.RUSAGE_CHILDREN)  # a C compiler
print(json.dumps({"import": imported, "sort": sorting, **spent, "warm run": warm,
                  "all": imported + first,
                  "CPU": time.process_time() + children.ru_utime + children.ru_stime}))
"""


@dataclass(frozen=True)
class Config(Counted):
    """Options of the benchmark."""

    rounds: Annotated[int, "fresh processes of each kind"] = 5


def main() -> None:
    config = reporting.parse_config(Config, "Times W1 in fresh processes.")
    kinds: dict[str, list[dict[str, float]]] = {
        "no cache": [],
        "empty cache": [],
        "filled cache": [],
    }
    with tempfile.TemporaryDirectory() as folder:
        pool, splits = saved_workload("W1", folder), str(SPLITS["W1"])
        fresh(CODE, pool, "256", "")  # the files of the libraries are in memory from here on
        for i in turns(range(config.rounds)):
            cache = str(Path(folder) / f"cache{i}")
            for kind, where in (("no cache", ""), ("empty cache", cache), ("filled cache", cache)):
                kinds[kind].append(fresh(CODE, pool, splits, where))
    columns = list(kinds["no cache"][0])
    rows = [
        [
            kind,
            *(seconds(median(run[column] for run in runs)) for column in columns),
            seconds(min(r["all"] for r in runs)),
        ]
        for kind, runs in kinds.items()
    ]
    title = f"W1 in a fresh process, median of {config.rounds}, kinds in turn;"
    report("cold", title, ["", *columns, "all, best"], rows, kinds)


if __name__ == "__main__":
    main()
