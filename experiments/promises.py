"""What sharper promises cost.

With high probability, for all alphas at once, in every group, under a cap on the models.

    python experiments/promises.py                                    # the embedded simulated pool
    python experiments/promises.py --data FOLDER                      # RouterDC's files
    python experiments/promises.py --data TABLE --missing drop        # any table that
    racer_jax.data reads

Orders are learned from training rows alone. Risks and sizes are exact: the mean over all
calibration/test splits of each benchmark, nothing sampled. What alpha costs in dollars is in
experiments/dollars.py.
"""

import sys
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import jax
import numpy as np
from scipy.stats import beta

import racer_jax as racer
from racer_jax import reporting
from racer_jax.core.risk_levels import parse_alphas
from racer_jax.data import RoutingTable
from racer_jax.montecarlo.exact import pool_law
from racer_jax.montecarlo.step_functions import Pool, Steps, pool_steps
from racer_jax.plotting.promises import PromiseCosts, promises_figure
from racer_jax.risk_control.costs import cap_models
from racer_jax.risk_control.high_probability import high_probability_budget, uniform_budget
from racer_jax.studies.corpora import Parts, for_pool, read_parts
from racer_jax.studies.order_studies import (
    OrdersConfig,
    calibration_size,
    hashed_embeddings,
    orders,
)
from racer_jax.studies.runner import Drawer, Progress, Report, run_experiment

ON_AVERAGE = "on average"
# Drawn in the figure; the tables hold every score.
DRAWN = "J blend"


@dataclass(frozen=True)
class Config(OrdersConfig):
    """Options of the comparison."""

    alphas: Annotated[str, "risk levels, listed or first:last:step"] = "0.05,0.1,0.2,0.3"
    deltas: Annotated[str, "chances of failure of the promises with high probability"] = (
        "0.2,0.1,0.05,0.01"
    )
    uniform: Annotated[float, "chance of failure of the promise for all alphas at once"] = 0.1
    output: Annotated[Path, "folder of the results"] = Path("results/promises")

    @cached_property
    def levels(self) -> tuple[str, ...]:
        """The risk levels as exact decimals."""
        return parse_alphas(self.alphas)

    def __post_init__(self) -> None:
        super().__post_init__()
        _ = self.levels  # read here, so that a wrong one is an error of usage
        for delta in self.delta_list:
            high_probability_budget(0.5, 1, delta)
        uniform_budget(0.5, 1, self.uniform)

    @property
    def delta_list(self) -> list[float]:
        """The chances of failure as numbers."""
        try:
            return [float(delta) for delta in self.deltas.split(",")]
        except ValueError:
            raise ValueError(f"deltas must be numbers like 0.1,0.05, got {self.deltas!r}") from None


class Promised(NamedTuple):
    """One promise kept by one score on one benchmark at one alpha.

    Attributes:
      benchmark: Name of the benchmark.
      score: Name of the score.
      promise: What is promised of the risk.
      alpha: Risk level.
      budget: Calibration queries that may be missed; -1 where every model is called.
      risk: Exact mean test risk.
      size: Exact mean number of models called.
      chance_above: Chance that calibration gives a threshold whose risk is above alpha, Beta(b + 1,
        n - b).
    """

    benchmark: str
    score: str
    promise: str
    alpha: str
    budget: int
    risk: float
    size: float
    chance_above: float


class Grouped(NamedTuple):
    """One score on one group, calibrated with all the others or by itself.

    Attributes:
      score: Name of the score.
      calibration: `pooled` or `by group`.
      alpha: Risk level.
      benchmark: Name of the group; `all` for the mean over queries.
      risk: Mean test risk of its queries.
      size: Mean number of models called for them.
    """

    score: str
    calibration: str
    alpha: str
    benchmark: str
    risk: float
    size: float


class Capped(NamedTuple):
    """One score on one benchmark under a cap on the number of models.

    Attributes:
      benchmark: Name of the benchmark.
      score: Name of the score.
      most: The cap.
      attainable: The smallest alpha that can be attained, mean over splits.
      size: Mean number of models called at each alpha `[a]`; NaN where alpha is not attainable.
      risk: Mean test risk at each alpha; NaN likewise.
    """

    benchmark: str
    score: str
    most: int
    attainable: float
    size: np.ndarray
    risk: np.ndarray


class Result(NamedTuple):
    """All the comparisons.

    Attributes:
      alphas: Risk levels as written.
      null: Null mode.
      promised: High probability and all alphas at once.
      grouped: Pooled against by group; empty where there is one group.
      capped: Caps on the number of models.
      notes: By benchmark, what was left out.
    """

    alphas: tuple[str, ...]
    null: str
    promised: list[Promised]
    grouped: list[Grouped]
    capped: list[Capped]
    notes: dict[str, str]


# --- what is compared -----------------------------------------------------------------------------


def promised(
    config: Config, benchmark: str, score: str, pool: Pool, alphas: tuple[str, ...]
) -> list[Promised]:
    """Every promise at every alpha, from the exact law."""
    num = calibration_size(config.calibration, pool.num_queries)
    budgets = {ON_AVERAGE: racer.miss_budget(alphas, num)}
    for delta in config.delta_list:
        budgets[f"surely, delta = {delta:g}"] = high_probability_budget(alphas, num, delta)
    budgets[f"all alphas, delta = {config.uniform:g}"] = uniform_budget(alphas, num, config.uniform)
    rows = []
    for promise, budget in budgets.items():
        law = pool_law(pool, num_calibration=num, budget=budget)
        above = [
            float(beta.sf(float(a), b + 1, num - b)) if b >= 0 else 0.0
            for a, b in zip(alphas, budget, strict=True)
        ]
        rows += [
            Promised(
                benchmark,
                score,
                promise,
                alpha,
                int(budget[i]),
                law.risk_mean[i],
                law.size_mean[i],
                above[i],
            )
            for i, alpha in enumerate(alphas)
        ]
    return rows


def of_rows(steps: Steps, rows: np.ndarray) -> Steps:
    """The steps of some of the queries; rows bool `[N]` by position."""
    in_rows = rows[steps.query]
    start = np.where(rows, steps.start, 0.0)
    return Steps(
        start,
        steps.query[in_rows],
        steps.first[in_rows],
        steps.delta[in_rows],
        steps.value[in_rows],
    )


def grouped(
    config: Config,
    score: str,
    nonconformity: np.ndarray,
    test: RoutingTable,
    ties: jax.Array,
    alphas: tuple[str, ...],
) -> list[Grouped]:
    """Risk and size of each group, calibrated pooled and by group."""
    rows_of = {name: np.array(test.group) == name for name in test.groups}
    pool = pool_steps(nonconformity, test.correct, ties)
    parts = {
        f"{metric} {name}": of_rows(pool.metrics[metric], rows[pool.order])
        for metric in ("risk", "size")
        for name, rows in rows_of.items()
    }
    pool = pool._replace(metrics={**pool.metrics, **parts})
    law = pool_law(
        pool, num_calibration=calibration_size(config.calibration, len(test)), alpha=alphas
    )
    cells = []
    for i, alpha in enumerate(alphas):
        for name, rows in rows_of.items():
            part = [
                float(law.extra_mean[f"{metric} {name}"][i] / rows.mean())
                for metric in ("risk", "size")
            ]
            cells.append(Grouped(score, "pooled", alpha, name, *part))
        cells.append(
            Grouped(score, "pooled", alpha, "all", float(law.risk_mean[i]), float(law.size_mean[i]))
        )
    by_group = {}
    for name, rows in rows_of.items():
        pool = pool_steps(nonconformity[rows], test.correct[rows], ties[rows])
        num = calibration_size(config.calibration, pool.num_queries)
        by_group[name] = pool_law(pool, num_calibration=num, alpha=alphas)
    for i, alpha in enumerate(alphas):
        moments = np.array([(law.risk_mean[i], law.size_mean[i]) for law in by_group.values()])
        cells += [
            Grouped(score, "by group", alpha, name, *map(float, cell))
            for name, cell in zip(rows_of, moments, strict=True)
        ]
        mean = np.average(moments, axis=0, weights=[rows.sum() for rows in rows_of.values()])
        cells.append(Grouped(score, "by group", alpha, "all", *map(float, mean)))
    return cells


def capped(
    config: Config,
    benchmark: str,
    score: str,
    nonconformity: np.ndarray,
    correct: np.ndarray,
    ties: jax.Array,
    alphas: tuple[str, ...],
) -> list[Capped]:
    """Every cap: the smallest attainable alpha, and sizes where alpha is attainable."""
    rows = []
    for most in range(1, correct.shape[1] + 1):
        pool = pool_steps(cap_models(nonconformity, most, ties), correct, ties)
        num = calibration_size(config.calibration, pool.num_queries)
        avoidable = 1 - int(pool.covered[-1]) / pool.num_queries
        attainable = (num * avoidable + 1) / (num + 1)
        law = pool_law(pool, num_calibration=num, alpha=alphas)
        within = np.array([float(alpha) >= attainable for alpha in alphas])
        size, risk = (np.where(within, values, np.nan) for values in (law.size_mean, law.risk_mean))
        rows.append(Capped(benchmark, score, most, attainable, size, risk))
    return rows


def run(key: jax.Array, data: Parts, config: Config, progress: Progress = lambda _: None) -> Result:
    """All comparisons; reads and writes nothing.

    Args:
      key: A typed PRNG key.
      data: Training rows, with groups, and rows that calibrate and test; models and groups of
        these are those of the training rows, or some of them.
      config: The options.
      progress: Called with 1 after each score.

    Returns:
      The `Result`.

    Raises:
      ValueError: If a model of the test rows is not among those of the training rows.
    """
    test = data.test
    train = for_pool(data.train, test.models)
    encoder_key, tie_key = jax.random.split(key)
    alphas = config.levels
    x, z = hashed_embeddings(encoder_key, train, test)
    ties = racer.tie_break(tie_key, (len(test), test.correct.shape[1] + 1))
    result = Result(alphas, config.null, [], [], [], data.notes)
    for score, call in orders(
        x, train, z, test, neighbors=config.neighbors, blend=config.blend
    ).items():
        nonconformity = np.asarray(call(config.null))
        for name in test.groups:
            rows = np.array(test.group) == name
            pool = pool_steps(nonconformity[rows], test.correct[rows], ties[rows])
            result.promised.extend(promised(config, name, score, pool, alphas))
            result.capped.extend(
                capped(
                    config, name, score, nonconformity[rows], test.correct[rows], ties[rows], alphas
                )
            )
        if len(test.groups) > 1:
            result.grouped.extend(grouped(config, score, nonconformity, test, ties, alphas))
        progress(1)
    return result


# --- tables and figures ---------------------------------------------------------------------------


def tables(result: Result) -> str:
    """A table for each benchmark and promise, one for groups, one for caps."""
    alphas = result.alphas
    parts = []
    for name in dict.fromkeys(row.benchmark for row in result.promised):
        cells: dict[tuple[str, str], list[Promised]] = {}
        for row in result.promised:
            if row.benchmark == name:
                cells.setdefault((row.score, row.promise), []).append(row)
        parts.append(
            f"{name}: models called at each alpha (chance that the calibrated risk is above "
            f"alpha), null mode '{result.null}'"
        )
        lines = [
            [*head, *(f"{r.size:.2f} ({100 * r.chance_above:.0f}%)" for r in rows)]
            for head, rows in cells.items()
        ]
        parts.append(reporting.text_table(["score", "promise", *alphas], lines))
    if result.grouped:
        names = list(dict.fromkeys(row.benchmark for row in result.grouped))
        table: dict[tuple[str, str, str], list[str]] = {}
        for g in result.grouped:
            table.setdefault((g.score, g.calibration, g.alpha), []).append(
                f"{100 * g.risk:.1f}% / {g.size:.2f}"
            )
        parts.append("One threshold for all benchmarks or one for each: risk / models called")
        lines = [
            [*head, *rows]
            for head, rows in sorted(table.items(), key=lambda item: (item[0][0], item[0][2]))
        ]
        parts.append(reporting.text_table(["score", "calibration", "alpha", *names], lines))
    parts.append(
        "A cap on the number of models: the smallest alpha that can be attained, and models "
        "called at each alpha"
    )
    lines = [
        [
            c.benchmark,
            c.score,
            str(c.most),
            f"{c.attainable:.3f}",
            *("-" if np.isnan(s) else f"{s:.2f}" for s in c.size),
        ]
        for c in result.capped
    ]
    parts.append(reporting.text_table(["benchmark", "score", "most", "attainable", *alphas], lines))
    return "\n\n".join(parts)


def verdicts(result: Result) -> str:
    """What each promise adds to the size of RACER-J, and what pooling does to the groups."""
    lines = []
    for alpha in result.alphas:
        base: dict[str, float] = {}
        more: dict[str, list[float]] = {}
        for row in result.promised:
            if row.score == DRAWN and row.alpha == alpha:
                base.setdefault(row.benchmark, row.size)  # the promise on average comes first
                if row.promise != ON_AVERAGE:
                    more.setdefault(row.promise, []).append(row.size / base[row.benchmark] - 1)
        text = "; ".join(
            f"{p} {100 * min(m):+z.0f} to {100 * max(m):+z.0f}%" for p, m in more.items()
        )
        lines.append(f"{DRAWN}, alpha {alpha}, size against a promise on average: {text}")
        by_group = {
            (g.calibration, g.benchmark): g
            for g in result.grouped
            if g.score == DRAWN and g.alpha == alpha
        }
        if by_group:
            all_queries = [
                100 * g.risk
                for (kind, name), g in by_group.items()
                if kind == "pooled" and name != "all"
            ]
            change = by_group["by group", "all"].size / by_group["pooled", "all"].size - 1
            lines.append(
                f"{DRAWN}, alpha {alpha}: pooled, the risk by benchmark runs from "
                f"{min(all_queries):.1f} to "
                f"{max(all_queries):.1f}%; by group it is at most {alpha} in each, with sets "
                f"{100 * change:+z.1f}% in size"
            )
    return "\n".join(lines)


def holds(result: Result) -> bool:
    """Whether no mean risk is above its alpha.

    Not asked under the null mode `never`, where some levels are out of reach.
    """
    rows = [(r.risk, r.alpha) for r in result.promised]
    rows += [
        (g.risk, g.alpha)
        for g in result.grouped
        if g.calibration == "by group" or g.benchmark == "all"
    ]
    return result.null == "never" or all(risk <= float(alpha) + 1e-9 for risk, alpha in rows)


def csv_rows(result: Result) -> list[dict[str, Any]]:
    """A row for each promise, score, benchmark and alpha."""
    rows = [row._asdict() for row in result.promised]
    blank = dict.fromkeys(rows[0], "")
    rows += [{**blank, "promise": g.calibration, **g._asdict()} for g in result.grouped]
    for c in result.capped:
        for alpha, size, risk in zip(result.alphas, c.size, c.risk, strict=True):
            promise = f"at most {c.most} models, attainable from {c.attainable:.4f}"
            cell = {"benchmark": c.benchmark, "score": c.score, "promise": promise, "alpha": alpha}
            rows.append({**blank, **cell, "risk": risk, "size": size})
    return [{name: row[name] for name in blank} for row in rows]


def figure(result: Result) -> Drawer:
    """How size by promise, risk by group, and attainable alphas by cap are drawn, for one score."""
    alpha = "0.1" if "0.1" in result.alphas else result.alphas[0]
    sizes: dict[str, dict[str, float]] = {}
    for row in result.promised:
        if (row.score, row.alpha) == (DRAWN, alpha):
            sizes.setdefault(row.benchmark, {})[row.promise] = row.size
    risks = {
        (g.benchmark, g.calibration): g.risk
        for g in result.grouped
        if (g.score, g.alpha) == (DRAWN, alpha)
    }
    benchmarks = {
        name: PromiseCosts(
            by_promise,
            {kind: risks.get((name, kind), np.nan) for kind in ("pooled", "by group")},
            [c.attainable for c in result.capped if (c.benchmark, c.score) == (name, DRAWN)],
        )
        for name, by_promise in sizes.items()
    }
    subtitle = f"{DRAWN}, null mode '{result.null}', all calibration/test splits"
    return partial(promises_figure, benchmarks, float(alpha), subtitle, not holds(result))


def report(config: Config, result: Result) -> Report:
    """The tables, what they say, whether the promises were kept, and the picture."""
    verdict = "PASS" if holds(result) else "FAIL"
    text = f"{tables(result)}\n\n{verdicts(result)}\n{verdict}: mean risks against their alphas."
    figures = {"promises": figure(result)}
    return Report(text, csv_rows(result), figures, holds(result))


def load(config: Config) -> tuple[jax.Array, Parts]:
    """The key of the run, and the rows that the options ask for."""
    data_key, run_key = jax.random.split(jax.random.key(config.seed))
    return run_key, read_parts(
        data_key, config.data, share=config.share, missing=config.missing, queries=config.queries
    )


def main(arguments: list[str] | None = None) -> int:
    """Compares, prints and writes; status 1 where a promise is broken, 2 where data is bad."""
    return run_experiment(
        Config,
        "What sharper promises cost in size.",
        run,
        report,
        lambda *_: 3,  # the scores of `orders`
        arguments,
        load=load,
    )


if __name__ == "__main__":
    sys.exit(main())
