"""How does the time grow with splits, alphas, queries and models, each doubled four times?

    python benchmarks/growth.py

Around 4,000 queries, 8 models, 4,096 splits and 32 alphas; warm runs, sizes in turn, compilation
apart. Before that, the splits of the smallest sizes are counted by plain NumPy too.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any

import jax
import numpy as np
from baselines import BestNumpy, problem
from harness import Counted, report, seconds, turns
from matplotlib.figure import Figure
from timing import Timing, interleaved

from racer_jax import reporting
from racer_jax.montecarlo.replay import split_masks
from racer_jax.montecarlo.step_functions import pool_steps
from racer_jax.montecarlo.trials import split_trials
from racer_jax.studies import runtime

BASE = {"queries N": 4_000, "models M": 8, "splits S": 4_096, "alphas A": 32}
SERIES = {
    "splits S": (1_024, 2_048, 4_096, 8_192, 16_384),
    "alphas A": (8, 16, 32, 64, 128),
    "queries N": (2_000, 4_000, 8_000, 16_000, 32_000),
    "models M": (2, 4, 8, 16, 32),
}


@dataclass(frozen=True)
class Config(Counted):
    """Options of the benchmark."""

    rounds: Annotated[int, "interleaved rounds"] = 5


def run_of(sizes: dict[str, int]) -> Callable[[], Any]:
    """The call for these sizes; raises unless it agrees with NumPy on three splits."""
    num_alphas = sizes["alphas A"]
    alphas = tuple(f"{(i + 0.5) / num_alphas:.6f}" for i in range(num_alphas))
    task = problem(sizes["queries N"], sizes["models M"], alphas)
    pool = pool_steps(task.nonconformity, task.correct).only("risk", "size", "abstention")
    how: dict[str, Any] = {
        "num_calibration": task.num_calibration,
        "alpha": alphas,
        "num_trials": sizes["splits S"],
    }
    done = split_trials(jax.random.key(0), pool, **how)
    masks = split_masks(
        jax.random.key(0),
        np.arange(3),
        num_calibration=task.num_calibration,
        num_queries=pool.num_queries,
    )
    for i, mask in enumerate(np.asarray(masks)):
        num_test = pool.num_queries - task.num_calibration
        got = [np.rint(value[i] * num_test) for value in (done.risk, done.size, done.abstention)]
        np.testing.assert_array_equal(got, BestNumpy(task, pool).counts(mask)[1:])
    return lambda: split_trials(jax.random.key(0), pool, **how)


def slope(sizes: tuple[int, ...], timings: list[Timing]) -> float:
    """The power of the size that the time grows by, least squares."""
    return float(np.polyfit(np.log(sizes), np.log([t.wall for t in timings]), 1)[0])


def main() -> None:
    config = reporting.parse_config(
        Config, "Times growing numbers of splits, alphas, queries and models."
    )
    runtime.use_all_cores()
    rows, results = [], {}
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.add_subplot()
    for name, sizes in turns(SERIES.items(), "series"):
        timings = list(
            interleaved({str(s): run_of(BASE | {name: s}) for s in sizes}, config.rounds).values()
        )
        power = slope(sizes, timings)
        results[name] = {"sizes": sizes, "timings": timings, "power": power}
        rows.append(
            [
                name,
                *(f"{s:,}: {seconds(t.wall)}" for s, t in zip(sizes, timings, strict=True)),
                f"{power:.2f}",
            ]
        )
        relative = [t.wall / timings[0].wall for t in timings]
        axes.plot(
            [s / sizes[0] for s in sizes], relative, marker="o", label=f"{name}: power {power:.2f}"
        )
    axes.plot([1, 16], [1, 16], color="0.7", linestyle="--", label="linear")
    axes.set(
        xscale="log",
        yscale="log",
        xlabel="size, times the smallest",
        ylabel="time, times the smallest",
    )
    axes.set_xticks([1, 2, 4, 8, 16], ["1", "2", "4", "8", "16"])
    axes.legend()
    title = (
        f"Base {', '.join(f'{value:,} {name}' for name, value in BASE.items())}; median of "
        f"{config.rounds};"
    )
    axes.set_title(title.rstrip(";"), fontsize=9)
    header = ["doubled", "", "", "", "", "", "power"]
    report("growth", title, header, rows, results, {"growth.png": figure})


if __name__ == "__main__":
    main()
