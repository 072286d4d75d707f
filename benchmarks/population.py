"""What does a population of 1,000,000 queries take?

    python benchmarks/population.py

7 models and the null model, half of the queries calibrate, 20 alphas, 64 splits; a fresh process,
peak memory beside the time. The mean risk and size are checked against the exact law, which is
timed too.
"""

from dataclasses import dataclass
from typing import Annotated

from harness import Counted, fresh, report, seconds, turns

from racer_jax import reporting

CODE = """
import json, resource, sys, time
import jax
import numpy as np
from baselines import problem
from racer_jax.studies import runtime
from racer_jax.montecarlo.exact import pool_law
from racer_jax.montecarlo.step_functions import pool_steps
from racer_jax.montecarlo.trials import split_trials
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024  # kilobytes on Linux
runtime.use_all_cores()
jax.devices()
size, splits = int(sys.argv[1]), int(sys.argv[2])
task = problem(size, 7, tuple(f"{i / 20 - .025:g}" for i in range(1, 21)))
how = {"num_calibration": size // 2, "alpha": task.alphas}
start = time.perf_counter()
pool = pool_steps(task.nonconformity, task.correct).only("risk", "size", "abstention")
sort = time.perf_counter() - start
before = peak()
start = time.perf_counter()
split_trials(jax.random.key(0), pool, num_trials=splits, **how)
first = time.perf_counter() - start
start, cpu = time.perf_counter(), time.process_time()
done = split_trials(jax.random.key(1), pool, num_trials=splits, **how)
wall, cpu = time.perf_counter() - start, time.process_time() - cpu
used = peak()
start = time.perf_counter()
law = pool_law(pool, **how)
exact = time.perf_counter() - start
for name in ("risk", "size", "abstention"):
    value = np.asarray(getattr(done, name), np.float64)
    error = np.maximum(getattr(law, name + "_std"), 1e-12) / np.sqrt(splits) + 1e-6
    if (z := np.abs(value.mean(axis=0) - getattr(law, name + "_mean")) / error).max() > 6:
        raise ValueError(f"{name} is off the exact law, |z| = {z.max():.1f}")
print(json.dumps({"sort": sort, "first": first, "wall": wall, "cpu": cpu, "exact": exact,
                  "before": before,
                  "peak": used}))
"""


@dataclass(frozen=True)
class Config(Counted):
    """Options of the benchmark."""

    queries: Annotated[int, "largest population"] = 1_000_000
    splits: Annotated[int, "splits"] = 64


def main() -> None:
    config = reporting.parse_config(Config, "Measures a large population.")
    rows, results = [], {}
    for size in turns((config.queries // 4, config.queries), "population"):
        r = results[size] = fresh(CODE, str(size), str(config.splits))
        times = [seconds(r[name]) for name in ("sort", "first", "wall", "cpu", "exact")]
        rows.append(
            [
                f"{size:,}",
                *times,
                seconds(r["wall"] / config.splits),
                f"{r['peak'] - r['before']:,.0f} MB",
            ]
        )
    header = [
        "queries",
        "sort",
        "first run",
        "warm run",
        "CPU",
        "exact law",
        "a split",
        "peak memory, beyond the pool",
    ]
    report("population", f"{config.splits} splits, 20 alphas, 7 models;", header, rows, results)


if __name__ == "__main__":
    main()
