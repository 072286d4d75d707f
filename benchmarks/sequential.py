"""How fast is a calibrated stop.

Replay over thousands of splits, learning a policy, one step of a query?.

    python benchmarks/sequential.py                 # an invented pool
    python benchmarks/sequential.py --data FOLDER   # RouterBench's ARC-Challenge

Replay: 10,000 splits x 20 alphas of calls and regret, in one call of `split_trials`, beside a NumPy
loop over splits with one sort and one table look-up each, which has to give the same means.
"""

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np
from harness import Counted, report, seconds, turns

from racer_jax import Cascade, miss_budget, reporting
from racer_jax.data.table import RoutingTable
from racer_jax.montecarlo import Pool, split_masks, split_trials
from racer_jax.risk_control.stopping import stops_at
from racer_jax.sequential.policy import fit_policy
from racer_jax.sequential.replay import Paths, replay
from racer_jax.studies.answer_pools import answer_pools

ALPHAS = [round(0.005 * i, 3) for i in range(1, 21)]


@dataclass(frozen=True)
class Config(Counted):
    """Options of the benchmark."""

    data: Annotated[Path | None, "folder with routerbench/; an invented pool when not given"] = None
    splits: Annotated[int, "random splits"] = 10_000
    loop_splits: Annotated[int, "splits that the NumPy loop is timed on"] = 200
    steps: Annotated[int, "queries whose steps are timed"] = 300
    rounds: Annotated[int, "warm rounds; the median counts"] = 5


def invented(num: int = 1470, num_models: int = 11) -> RoutingTable:
    """Queries of different difficulty, models of different skill, four possible answers."""
    rng = np.random.default_rng(0)
    skill = np.linspace(0, 2.2, num_models)
    right = rng.random((num, num_models)) < 1 / (1 + np.exp(rng.normal(size=(num, 1)) - skill))
    wrong = rng.choice(np.array(list("BCD"), object), (num, num_models))
    return RoutingTable(
        ids=[f"q{i}" for i in range(num)],
        texts=[f"question {i}?" for i in range(num)],
        models=[f"model {m}" for m in range(num_models)],
        correct=right,
        answers=np.where(right, "A", wrong),
    )


def timed(call: Callable[[], Any], rounds: int) -> tuple[float, float]:
    """Seconds of the first call and the median of the warm ones."""
    laps = []
    for _ in turns(range(rounds + 1)):
        begin = time.perf_counter()
        jax.block_until_ready(call())
        laps.append(time.perf_counter() - begin)
    return laps[0], median(laps[1:])


def numpy_replay(
    paths: Paths, ties: np.ndarray, masks: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Mean calls and regret of each split and alpha `[s, a]`: one threshold at a time."""
    critical = paths.critical("regret", jnp.asarray(ties))
    value, tie = np.asarray(critical.value), np.asarray(critical.tie)
    rank = np.empty(len(value), np.int64)
    order = np.lexsort((tie, value))
    rank[order] = np.arange(len(value))
    # Where each query stops at each threshold, worked out once: the loop only looks it up.
    at = type(critical)(jnp.asarray(value[order]), jnp.asarray(tie[order]))
    stops = np.asarray(stops_at(paths.scores("regret"), at, jnp.asarray(ties)).calls)
    rows = np.arange(len(value))
    regret = paths.metrics["regret"][rows, stops - 1]
    calls, lost = [], []
    for mask in masks:
        mine = np.sort(rank[mask])
        budgets = [miss_budget(alpha, len(mine)) for alpha in ALPHAS]
        place = [mine[len(mine) - budget - 1] for budget in budgets]
        calls.append([stops[p, ~mask].mean() for p in place])
        lost.append([regret[p, ~mask].mean() for p in place])
    return np.array(calls), np.array(lost)


def agree(pool: Pool, paths: Paths, ties: np.ndarray, config: Config) -> float:
    """Checks that both replays give the same; seconds the NumPy loop takes a split."""
    num = pool.num_queries // 2
    few = np.arange(config.loop_splits)
    positions = np.asarray(
        split_masks(jax.random.key(1), few, num_calibration=num, num_queries=pool.num_queries)
    )
    masks = np.zeros_like(positions)
    masks[:, pool.order] = positions
    numpy_replay(paths, ties, masks[:2])
    begin = time.perf_counter()
    calls, lost = numpy_replay(paths, ties, masks)
    picked_rows = (time.perf_counter() - begin) / config.loop_splits
    trials = split_trials(
        jax.random.key(1), pool, num_calibration=num, alpha=ALPHAS, num_trials=config.loop_splits
    )
    np.testing.assert_allclose(trials.extra["calls"], calls, rtol=1e-5)
    np.testing.assert_allclose(trials.extra["regret"], lost, rtol=1e-5, atol=1e-7)
    return picked_rows


def step_time(cascade: Cascade, table: RoutingTable, num: int) -> float:
    """Median seconds of one `tell`."""
    laps = []
    for row in range(min(num, len(table))):
        state = cascade.start(table.texts[row])
        while not state.done:
            heard = {m: table.answers[row, table.models.index(m)] for m in state.call}
            begin = time.perf_counter()
            state = cascade.tell(state, heard)
            laps.append(time.perf_counter() - begin)
    return median(laps)


def main(arguments: Sequence[str] | None = None) -> int:
    """Times all, prints and writes the table."""
    config = reporting.parse_config(Config, __doc__.splitlines()[0], arguments)
    table = invented() if config.data is None else answer_pools(config.data)["arc all"]
    num = int(0.4 * len(table))
    train, rest = table.select(slice(0, num)), table.select(slice(num, len(table)))
    fit = timed(lambda: fit_policy(jax.random.key(0), train, reference="vote").weights, 2)
    cascade = Cascade.fit(jax.random.key(0), train, reference="vote")
    paths = replay(cascade.policy, rest)
    ties = cascade.tie_break(rest)
    pool = paths.pool("regret", jnp.asarray(ties)).only("risk", "calls", "regret")
    loop = agree(pool, paths, ties, config)
    replay_time = timed(
        lambda: (
            split_trials(
                jax.random.key(2),
                pool,
                num_calibration=len(rest) // 2,
                alpha=ALPHAS,
                num_trials=config.splits,
            ).risk
        ),
        config.rounds,
    )
    calibrated = cascade.calibrate(rest, 0.01)
    step = step_time(calibrated, rest, config.steps)
    first = {"fit": fit[0], "replay": replay_time[0]}
    rows = [
        [
            f"learn a policy, {num} rows, {len(table.models)} models",
            seconds(fit[1]),
            seconds(fit[0]),
            "",
        ],
        [
            f"replay, {config.splits:,} splits x {len(ALPHAS)} alphas, {len(rest)} queries",
            seconds(replay_time[1]),
            seconds(replay_time[0]),
            seconds(loop * config.splits),
        ],
        ["one step of a query", seconds(step), "", ""],
    ]
    header = ["what", "warm", "first call", "NumPy loop"]
    figures = {"warm": {"fit": fit[1], "replay": replay_time[1], "step": step}, "first": first}
    report("sequential", "Calibrated stop.", header, rows, {**figures, "numpy_loop_a_split": loop})
    return 0


if __name__ == "__main__":
    sys.exit(main())
