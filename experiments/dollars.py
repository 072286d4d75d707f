"""What alpha costs in dollars, and what a budget in dollars buys, where every answer has a cost.

    python experiments/dollars.py --data shared/data/routerbench --missing drop       # RouterBench,
    eleven models python experiments/dollars.py
    # simulated prices

Orders are learned from training rows, the cost-aware ones from the training rows' mean cost of each
model; what is reported is what the answers of the test rows did cost. Alphas: exact, over all
calibration/test splits. Budgets: each split calibrates the largest threshold that keeps the
expected cost within the budget; mean over random splits.
"""

import sys
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import jax
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

import racer_jax as racer
from racer_jax import reporting
from racer_jax.core.risk_levels import parse_alphas
from racer_jax.data import RoutingTable
from racer_jax.montecarlo.exact import pool_law
from racer_jax.montecarlo.step_functions import pool_steps
from racer_jax.orders.racer_j import RacerJ
from racer_jax.plotting.layout import figure_style, panels, percent
from racer_jax.plotting.styles import Style, style_of, styles_of
from racer_jax.risk_control.costs import calibrate_budget
from racer_jax.studies.corpora import Parts, for_pool, read_parts
from racer_jax.studies.order_studies import (
    Nonconformity,
    OrdersConfig,
    calibration_size,
    hashed_embeddings,
    orders,
)
from racer_jax.studies.runner import Progress, Report, run_experiment

# The orders of `all_orders`.
NUM_SCORES = 5
# Dollars are shown for so many queries.
UNIT = 1_000
# What a call may cost at most, declared as this multiple of the most expensive training call of the
# model.
MARGIN = 3.0
COST_AWARE = ", cost-aware"


@dataclass(frozen=True)
class Config(OrdersConfig):
    """Options of the comparison."""

    data: Annotated[
        Path | None, "a table with costs; the simulated pool with made-up prices when not given"
    ] = None
    alphas: Annotated[str, "risk levels, listed or first:last:step"] = "0.02,0.05,0.1,0.15,0.2,0.3"
    budgets: Annotated[str, "dollars a query, as shares of what calling every model costs"] = (
        "0.05,0.1,0.2,0.4"
    )
    gamma: Annotated[float, "how much cost matters to the cost-aware orders: gain / cost^gamma"] = (
        0.5
    )
    splits: Annotated[int, "random splits that measure the budgets"] = 200
    output: Annotated[Path, "folder of the results"] = Path("results/dollars")

    def __post_init__(self) -> None:
        super().__post_init__()
        parse_alphas(self.alphas)
        try:
            parse_alphas(self.budgets)
        except ValueError as error:  # it speaks of alphas
            raise ValueError(
                f"budgets must be shares above 0 and below 1, such as 0.2,0.5, got {self.budgets!r}"
            ) from error
        if self.splits < 2:
            raise ValueError(f"splits must be at least 2, got {self.splits}")


class AlphaCost(NamedTuple):
    """One score on one benchmark, arrays by alpha `[a]`.

    Attributes:
      benchmark: Name of the benchmark.
      score: Name of the score.
      risk: Exact mean test risk.
      size: Exact mean number of models called.
      dollars: Exact mean dollars a query.
    """

    benchmark: str
    score: str
    risk: np.ndarray
    size: np.ndarray
    dollars: np.ndarray


class BudgetCost(NamedTuple):
    """One score on one benchmark at one budget, means over splits.

    Attributes:
      benchmark: Name of the benchmark.
      score: Name of the score.
      budget: Dollars a query, as promised in expectation.
      dollars: Dollars a test query.
      error: Standard error of `dollars` over splits.
      risk: Test risk.
      size: Models called for a test query.
    """

    benchmark: str
    score: str
    budget: float
    dollars: float
    error: float
    risk: float
    size: float


class Result(NamedTuple):
    """All that was measured.

    Attributes:
      alphas: Risk levels as written.
      null: Null mode.
      by_alpha: Alpha against dollars.
      by_budget: Budgets against what they buy.
      full: Dollars a query of calling every model, by benchmark.
      cheapest: Dollars a query of an oracle that calls the cheapest right model, or none, by
        benchmark.
      notes: By benchmark, what was left out.
    """

    alphas: tuple[str, ...]
    null: str
    by_alpha: list[AlphaCost]
    by_budget: list[BudgetCost]
    full: dict[str, float]
    cheapest: dict[str, float]
    notes: dict[str, str]


def made_up_prices(table: RoutingTable) -> np.ndarray:
    """Prices for a pool without any, `[m]`: 1 to 64 hundredths of a cent, rising with accuracy."""
    place = np.argsort(table.correct.mean(axis=0)).argsort()
    return np.asarray(1e-4 * 2.0 ** np.linspace(0, 6, len(place))[place])


def with_costs(table: RoutingTable, price: np.ndarray, key: jax.Array) -> RoutingTable:
    """The table with costs: the prices times a log-normal length of each query."""
    length = np.exp(0.3 * np.asarray(jax.random.normal(key, (len(table), 1))))
    return replace(table, cost=length * price)


def known_costs(table: RoutingTable) -> np.ndarray:
    """Dollars of every answer, `[n, m]`.

    Raises:
      ValueError: If the table has no costs, or one is not known.
    """
    if table.cost is None:
        raise ValueError("the table must know the cost of every answer, it has no costs")
    if (bad := np.isnan(table.cost)).any():
        i, j = np.argwhere(bad)[0]
        raise ValueError(
            f"the table must know the cost of every answer, {int(bad.sum())} are not known, the "
            "first for query "
            f"{table.ids[i]!r} and model {table.models[j]!r}"
        )
    return np.asarray(table.cost)


def cumulative(nonconformity: np.ndarray, ties: np.ndarray, cost: np.ndarray) -> np.ndarray:
    """Dollars after each number of models of each query's order, `[n, m + 1]`."""
    order = np.lexsort((ties[:, :-1], nonconformity[:, :-1]), axis=-1)
    running = np.cumsum(np.take_along_axis(cost, order, axis=1), axis=1)
    return np.concatenate([np.zeros((len(running), 1)), running], axis=1)


def bought(
    config: Config,
    key: jax.Array,
    nonconformity: np.ndarray,
    correct: np.ndarray,
    cost: np.ndarray,
    most: np.ndarray,
    budget: float,
) -> np.ndarray:
    """Mean dollars, their standard error, mean risk and mean size on the test parts."""
    rng = np.random.default_rng(np.asarray(jax.random.key_data(key)))
    num = calibration_size(config.calibration, len(cost))
    truth = np.concatenate([correct, ~correct.any(axis=1, keepdims=True)], axis=1)
    critical = np.where(truth, nonconformity, np.inf).min(axis=1)
    results = []
    for _ in range(config.splits):
        rows = rng.permutation(len(cost))
        calibration, test = rows[:num], rows[num:]
        limit = calibrate_budget(
            nonconformity[calibration], cost[calibration], budget, most=most
        ).threshold
        is_called = nonconformity[test, :-1] <= limit
        results.append(
            [
                (cost[test] * is_called).sum(axis=1).mean(),
                (critical[test] > limit).mean(),
                is_called.sum(axis=1).mean(),
            ]
        )
    dollars, risk, size = np.mean(results, axis=0)
    return np.array(
        [dollars, np.std([d for d, *_ in results], ddof=1) / np.sqrt(config.splits), risk, size]
    )


def all_orders(
    config: Config, key: jax.Array, train: RoutingTable, test: RoutingTable, price: np.ndarray
) -> dict[str, Nonconformity]:
    """The plain orders, and the cost-aware ones."""
    x, z = hashed_embeddings(key, train, test)
    by_name = orders(x, train, z, test, neighbors=config.neighbors, blend=config.blend)
    static = RacerJ.fit(x, train.correct, groups=train.group, k=1, w=0.0)
    blend = RacerJ.fit(
        x, train.correct, groups=train.group, k=min(config.neighbors, len(x)), w=config.blend
    )
    by_name["static" + COST_AWARE] = lambda null: static(
        z, test.group, null, cost=price, gamma=config.gamma
    )
    by_name["J blend" + COST_AWARE] = lambda null: blend(
        z, test.group, null, cost=price, gamma=config.gamma
    )
    return by_name


def run(key: jax.Array, data: Parts, config: Config, progress: Progress = lambda _: None) -> Result:
    """Measures everything; reads and writes nothing.

    Args:
      key: A typed PRNG key.
      data: Training rows, with groups and costs, and rows that calibrate and test, with costs;
        models and groups of these are those of training, or some of them.
      config: The options.
      progress: Called with 1 after each score.

    Returns:
      The `Result`.

    Raises:
      ValueError: If a model of the test rows is not among those of the training rows, or a cost is
        not known.
    """
    test = data.test
    train = for_pool(data.train, test.models)
    train_cost, cost = known_costs(train), known_costs(test)
    price, most = train_cost.mean(axis=0), MARGIN * train_cost.max(axis=0)
    encoder_key, tie_key, split_key = jax.random.split(key, 3)
    alphas = parse_alphas(config.alphas)
    ties = racer.tie_break(tie_key, (len(test), len(test.models) + 1))
    result = Result(alphas, config.null, [], [], {}, {}, data.notes)
    groups = np.array(test.group)
    for name in test.groups:
        rows = groups == name
        result.full[name] = float(cost[rows].sum(axis=1).mean())
        right = np.where(test.correct[rows], cost[rows], np.inf).min(axis=1)
        result.cheapest[name] = float(np.where(np.isfinite(right), right, 0).mean())
    for score, call in all_orders(config, encoder_key, train, test, price).items():
        nonconformity = np.asarray(call(config.null))
        for i, name in enumerate(test.groups):
            rows = groups == name
            values, own_ties, right, prices = (
                nonconformity[rows],
                ties[rows],
                test.correct[rows],
                cost[rows],
            )
            total = cumulative(values, np.asarray(own_ties), prices)
            pool = pool_steps(values, right, own_ties, metrics={"dollars": total})
            law = pool_law(
                pool,
                num_calibration=calibration_size(config.calibration, len(values)),
                alpha=alphas,
            )
            result.by_alpha.append(
                AlphaCost(name, score, law.risk_mean, law.size_mean, law.extra_mean["dollars"])
            )
            for share in parse_alphas(config.budgets):
                budget = float(share) * float(train_cost.sum(axis=1).mean())
                split = bought(
                    config, jax.random.fold_in(split_key, i), values, right, prices, most, budget
                )
                result.by_budget.append(BudgetCost(name, score, budget, *map(float, split)))
        progress(1)
    return result


# --- tables and figures ---------------------------------------------------------------------------


def tables(result: Result) -> str:
    """Alpha against dollars, and budgets against what they buy."""
    parts = []
    for name, full in result.full.items():
        curves = [row for row in result.by_alpha if row.benchmark == name]
        parts.append(
            f"{name}: dollars for {UNIT:,} queries (models called) at each alpha, null mode "
            f"'{result.null}'; every "
            f"model {UNIT * full:.2f}, an oracle {UNIT * result.cheapest[name]:.3f}"
        )
        lines = [
            [
                r.score,
                *(f"{UNIT * d:.2f} ({s:.2f})" for d, s in zip(r.dollars, r.size, strict=True)),
            ]
            for r in curves
        ]
        parts.append(reporting.text_table(["", *result.alphas], lines))
        parts.append(
            f"{name}: what a budget of so many dollars for {UNIT:,} queries buys, in expectation"
        )
        lines = [
            [
                b.score,
                f"{UNIT * b.budget:.2f}",
                f"{UNIT * b.dollars:.2f} ± {UNIT * b.error:.2f}",
                f"{100 * b.risk:.1f}%",
                f"{b.size:.2f}",
            ]
            for b in result.by_budget
            if b.benchmark == name
        ]
        parts.append(reporting.text_table(["", "budget", "spent", "risk", "models called"], lines))
    return "\n\n".join(parts)


def holds(result: Result) -> bool:
    """Whether no budget was overspent on average, beyond the error of the simulation."""
    return all(row.dollars <= row.budget + 4 * row.error for row in result.by_budget)


def csv_rows(result: Result) -> list[dict[str, Any]]:
    """A row for each benchmark, score and alpha or budget."""
    rows = [
        {
            "benchmark": r.benchmark,
            "score": r.score,
            "alpha": a,
            "budget": "",
            "risk": k,
            "size": s,
            "dollars": d,
        }
        for r in result.by_alpha
        for a, k, s, d in zip(result.alphas, r.risk, r.size, r.dollars, strict=True)
    ]
    return rows + [
        {
            **{"benchmark": b.benchmark, "score": b.score, "alpha": "", "budget": b.budget},
            "risk": b.risk,
            "size": b.size,
        }
        | {"dollars": b.dollars}
        for b in result.by_budget
    ]


def figure(result: Result, *, width: float | None = None) -> Figure:
    """Dollars against alpha, a panel for each benchmark; cost-aware orders dashed."""
    styles = _styles(list(dict.fromkeys(row.score for row in result.by_alpha)))
    alpha = [float(a) for a in result.alphas]
    with figure_style(width):
        grid = panels(len(result.full), (2.8,), width=width, panel_width=3.6)
        for number, (name, full) in enumerate(result.full.items()):
            panel = grid.axes[0, number]
            for row in result.by_alpha:
                if row.benchmark == name:
                    # The static order is a broad band below the others, which may hide it.
                    broad = row.score.startswith("static")
                    look = {"lw": 4.5, "alpha": 0.55, "zorder": 1} if broad else {"lw": 1.4}
                    line = styles[row.score].marked(ms=4, label=row.score, **look)
                    panel.plot(alpha, UNIT * row.dollars, **line)
            every = style_of("all models").line(lw=1, label="every model")
            panel.axhline(UNIT * full, **every)
            panel.set_yscale("log")
            panel.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            panel.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
            panel.yaxis.set_minor_formatter(NullFormatter())
            percent(panel, "x")
            grid.title(number, name)
        grid.label_left(0, f"dollars for {UNIT:,} queries")
        grid.label_below(0, "alpha, the risk allowed")
        title = "What alpha costs in dollars"
        subtitle = f"null mode '{result.null}', all calibration/test splits"
        return grid.finish(f"{title}\n{subtitle}", *grid.axes[0])


def _styles(scores: list[str]) -> dict[str, Style]:
    """A cost-aware order has the colour of its plain one."""
    plain = styles_of(score.removesuffix(COST_AWARE) for score in scores)
    return {
        score: plain[score.removesuffix(COST_AWARE)]._replace(
            dash="--" if score.endswith(COST_AWARE) else "-"
        )
        for score in scores
    }


def report(config: Config, result: Result) -> Report:
    """The tables, whether the budgets were kept, and the picture."""
    verdict = "PASS" if holds(result) else "FAIL"
    text = f"{tables(result)}\n\n{verdict}: budgets against what was spent, {config.splits} splits."
    figures = {"dollars": partial(figure, result)}
    return Report(text, csv_rows(result), figures, holds(result))


def load(config: Config) -> tuple[jax.Array, Parts]:
    """The key of the run, and the rows that the options ask for; simulated rows get prices."""
    data_key, train_key, test_key, run_key = jax.random.split(jax.random.key(config.seed), 4)
    data = read_parts(
        data_key, config.data, share=config.share, missing=config.missing, queries=config.queries
    )
    if config.data is None:
        price = made_up_prices(data.train)
        data = data._replace(
            train=with_costs(data.train, price, train_key),
            test=with_costs(data.test, price, test_key),
        )
    return run_key, data


def main(arguments: list[str] | None = None) -> int:
    """Measures, prints and writes; status 1 where a budget is overspent, 2 where data is bad."""
    return run_experiment(
        Config,
        "What alpha costs in dollars, and what a budget buys.",
        run,
        report,
        lambda *_: NUM_SCORES,
        arguments,
        load=load,
    )


if __name__ == "__main__":
    sys.exit(main())
