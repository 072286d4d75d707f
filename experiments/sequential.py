"""One model after another.

Calls, dollars and accuracy of a calibrated stop beside sets, agreement and fixed rules.

    python experiments/sequential.py --data FOLDER          # routerbench/ and zeroeval/gsm8k.npz
    python experiments/sequential.py --data TABLE --draws 3     # any table with answers

Order, weights and risk models are learned on a random part of the questions, `--draws` times; the
rest is halved for calibration and test in all possible ways: means are exact over these splits, and
standard errors are over questions. Every way is calibrated on the same loss, `regret`: its answer
is wrong although the reference's (the full tuned vote, or the best single model where voting does
not help) is right. That the mean risk follows the law is checked with 10,000 drawn splits a cell.
"""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import jax
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from racer_jax.core.risk_levels import parse_alphas
from racer_jax.data.table import RoutingTable
from racer_jax.montecarlo import pool_law, split_trials
from racer_jax.montecarlo.step_functions import Pool
from racer_jax.plotting.layout import figure_style, panels, percent
from racer_jax.plotting.styles import style_of
from racer_jax.reporting.tables import left_table
from racer_jax.risk_control.bounds import sharp_risk
from racer_jax.sequential.policy import fit_policy
from racer_jax.sequential.replay import Paths, replay
from racer_jax.sequential.weights import fit_vote_weights
from racer_jax.studies import runtime, stopping_ways
from racer_jax.studies.answer_pools import answer_pools
from racer_jax.studies.runner import Report, run_experiment
from racer_jax.studies.stopping_ways import QuestionMeans, Rows, Way, means_by_query

SEQUENTIAL, DOLLARS, LABEL_FREE = "sequential", "sequential, dollars", "sequential, label-free"
UNLABELLED = "sequential, no labels at all"
ONE_SHOT = ("RACER-P", "RACER-G", "RACER-J", "static")
WAYS = (SEQUENTIAL, LABEL_FREE, "agreement", DOLLARS, *ONE_SHOT, UNLABELLED)
DECIDED = "0"
LIMIT = 4.5
_MOST_ROWS = 2000


@dataclass(frozen=True)
class Config:
    """Options of the study."""

    data: Annotated[Path | None, "needed: a folder with routerbench/ or zeroeval/, or a table"] = (
        None
    )
    alphas: Annotated[str, "risk levels, listed or first:last:step"] = "0.005,0.01,0.02,0.05"
    draws: Annotated[int, "random training parts"] = 20
    splits: Annotated[int, "splits of each cell that check the law; 0 for none"] = 10_000
    pools: Annotated[str, "pools by name, separated by commas; all where empty"] = ""
    ways: Annotated[str, "calibrated ways by name, separated by semicolons; all where empty"] = ""
    neighbors: Annotated[int, "neighbours of the router of the one-shot sets"] = 50
    seed: Annotated[int, "seed of everything"] = 0
    output: Annotated[Path, "folder of the results"] = Path("results/sequential")

    def __post_init__(self) -> None:
        parse_alphas(self.alphas)
        for name, least in (("draws", 1), ("splits", 0), ("neighbors", 1), ("seed", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, got {getattr(self, name)}")
        if unknown := [name for name in self.way_names if name not in WAYS]:
            raise ValueError(f"ways must be among {'; '.join(WAYS)}, got {unknown[0]!r}")

    @property
    def way_names(self) -> tuple[str, ...]:
        """The calibrated ways to measure."""
        names = [name.strip() for name in self.ways.split(";")]
        return tuple(name for name in names if name) or WAYS


class Row(NamedTuple):
    """One way at one level; dollars are per query, nan where not logged."""

    pool: str
    way: str
    alpha: float | None
    calls: float
    calls_error: float
    dollars: float
    rounds: float
    accuracy: float
    accuracy_error: float
    difference: float
    difference_error: float
    regret: float
    risk: float | None
    law: float | None


class Check(NamedTuple):
    """The mean envelope risk of one cell over drawn splits, against its exact law."""

    pool: str
    way: str
    alpha: str
    mean: float
    law: float
    sharp: float
    z: float


class Result(NamedTuple):
    """All rows and checks."""

    rows: list[Row]
    checks: list[Check]


class Levels(NamedTuple):
    """A way, and the levels it is calibrated at: all of them, unless it is learned for one."""

    alphas: list[str]
    way: Way


class Ways(NamedTuple):
    """The ways of one draw, and what they are measured against.

    `lossless` stops on decided votes alone, in the order that was searched for that; ties of the
    full vote go to the first voter, so it has a reference of its own. `lossless_unlabelled` is
    learned without any label; None where that way is not named.
    """

    lossless: Way
    lossless_right: np.ndarray
    lossless_unlabelled: Way | None
    calibrated: dict[str, list[Levels]]
    fixed: dict[str, Way]
    reference_right: np.ndarray


def ways_of(
    key: jax.Array,
    train: RoutingTable,
    rest: RoutingTable,
    alphas: tuple[str, ...],
    k: int,
    names: Sequence[str] = WAYS,
) -> Ways:
    """Every way, learned from the training rows; of the calibrated ones those that are named."""
    fit_key, encode_key = jax.random.split(key)
    fit_data = jax.random.key_data(fit_key)

    def policy(rows: RoutingTable = train, **options: Any) -> Any:
        return fit_policy(jax.random.wrap_key_data(fit_data), rows, **options)

    main = replay(policy(), rest)
    order, tuning_scores = list(main.policy.order), np.zeros(len(train.models))
    tuning_scores[order] = main.policy.weights
    if main.policy.reference == "best":  # the path does not name the weights of the others
        tuning_scores = fit_vote_weights(stopping_ways.codes_of(train), np.asarray(train.correct))
    rows = Rows(main.codes, np.asarray(rest.correct), rest.cost, main.reference)
    accuracy = np.asarray(train.correct).mean(axis=0)
    at_all = partial(Levels, list(alphas))
    calibrated = {
        SEQUENTIAL: [at_all(stopping_ways.of_paths(main, "regret"))],
        "agreement": [at_all(stopping_ways.agreement(rows, accuracy))],
    }
    if LABEL_FREE in names:
        without_labels = replay(policy(loss="differs"), rest)
        calibrated[LABEL_FREE] = [at_all(stopping_ways.of_paths(without_labels, "differs"))]
    if DOLLARS in names and train.cost is not None:
        for_level = [
            replay(policy(objective="dollars", alpha=float(alpha)), rest) for alpha in alphas
        ]
        calibrated[DOLLARS] = [
            Levels([alpha], stopping_ways.of_paths(paths, "regret"))
            for alpha, paths in zip(alphas, for_level, strict=True)
        ]
    if set(ONE_SHOT) & set(names):
        for name, nonconformity in stopping_ways.one_shot_nonconformities(
            encode_key, train, rest, k
        ).items():
            way = stopping_ways.one_shot(rows, nonconformity.astype(np.float64), tuning_scores)
            calibrated[name] = [at_all(way)]
    lossless_unlabelled = None
    if UNLABELLED in names:
        nothing = np.zeros(train.correct.shape, bool)
        blind = replace(train, correct=nothing, missing=~nothing)
        paths = replay(policy(blind, loss="differs"), rest)
        calibrated[UNLABELLED] = [at_all(stopping_ways.of_paths(paths, "differs"))]
        until_sure = replay(policy(blind, loss="differs", alpha=0.0), rest)
        lossless_unlabelled = stopping_ways.of_paths(until_sure, "differs")
    price = -accuracy if train.cost is None else np.nanmean(train.cost, axis=0)
    cheap_first = -price if train.cost is None else price
    baselines = {
        "unanimity of 3": stopping_ways.unanimity(rows, cheap_first),
        "majority decided": stopping_ways.majority_decided(rows, accuracy),
        "best single": stopping_ways.top(rows, accuracy, 1),
        **{
            f"top {size}": stopping_ways.top(rows, accuracy, size)
            for size in range(2, len(train.models) + 1)
        },
        "full vote": stopping_ways.full_vote(rows, tuning_scores),
    }
    until_decided = replay(policy(alpha=0.0), rest)
    lossless = stopping_ways.of_paths(until_decided, "regret")
    named = {name: calibrated[name] for name in names if name in calibrated}
    return Ways(
        lossless, _right(until_decided), lossless_unlabelled, named, baselines, _right(main)
    )


def _right(paths: Paths) -> np.ndarray:
    """Whether the reference is right, 0 or 1, `[n]`."""
    return np.asarray(paths.right(paths.reference[:, None])[:, 0], np.float64)


def parts_of(key: jax.Array, table: RoutingTable) -> tuple[np.ndarray, np.ndarray]:
    """Rows of a random training part, by question, and the others."""
    questions = table.question_ids
    order = np.asarray(jax.random.permutation(key, int(questions.max()) + 1))
    num = min(int(0.4 * len(order)), _MOST_ROWS)
    training = np.isin(questions, order[:num])
    return np.flatnonzero(training), np.flatnonzero(~training)


def run_pool(
    key: jax.Array, name: str, table: RoutingTable, config: Config, progress: Callable[[int], Any]
) -> Result:
    """All rows and checks of one pool."""
    alphas = parse_alphas(config.alphas)
    cells: dict[tuple[str, str | None], QuestionMeans] = {}
    checks: list[Check] = []
    size = 0
    for draw in range(config.draws):
        part_key, way_key, tie_key, trial_key = jax.random.split(jax.random.fold_in(key, draw), 4)
        training, others = parts_of(part_key, table)
        ways = ways_of(
            way_key,
            table.select(training),
            table.select(others),
            alphas,
            config.neighbors,
            config.way_names,
        )
        size = len(others)

        add = partial(record, cells, others, ways.reference_right, len(table))
        sure = stopped_where_sure(ways.lossless)
        record(cells, others, ways.lossless_right, len(table), SEQUENTIAL, DECIDED, sure, 0.0)
        if ways.lossless_unlabelled is not None:
            sure = stopped_where_sure(ways.lossless_unlabelled)
            add(UNLABELLED, DECIDED, sure, None)
        for number, (label, levels) in enumerate(ways.calibrated.items()):
            bits_key = jax.random.fold_in(tie_key, number)
            for at_levels, way in levels:
                bits = jax.random.bits(bits_key, way.scores.shape, "uint32")
                pool = way.pool(bits)
                law = pool_law(pool, num_calibration=size // 2, alpha=at_levels).risk_mean
                means = means_by_query(way, np.asarray(bits), at_levels)
                for place, alpha in enumerate(at_levels):
                    exact = float(law[place])
                    add(label, alpha, {k: v[place] for k, v in means.items()}, exact)
                    if draw == 0 and config.splits:
                        cell_key = jax.random.fold_in(
                            jax.random.fold_in(trial_key, number), len(checks)
                        )
                        checks.append(
                            checked(cell_key, name, label, alpha, pool, exact, config.splits)
                        )
        for label, way in ways.fixed.items():
            add(label, None, stopped_where_sure(way), None)
        progress(1)
    rows = [row_of(name, way, alpha, sums, size) for (way, alpha), sums in cells.items()]
    return Result(rows, checks)


def record(
    cells: dict[tuple[str, str | None], QuestionMeans],
    rows: np.ndarray,
    reference_right: np.ndarray,
    num: int,
    way: str,
    alpha: str | None,
    values: dict[str, np.ndarray],
    risk: float | None,
) -> None:
    """Adds the means of the rows of one draw to a cell."""
    sums = cells.setdefault((way, alpha), QuestionMeans(num))
    sums.add(rows, {**values, "difference": values["accuracy"] - reference_right})
    if risk is not None:
        sums.risk.append(risk)


def stopped_where_sure(way: Way) -> dict[str, np.ndarray]:
    """Metrics of a way that stops at a score of +inf alone."""
    place = (way.scores == np.inf).argmax(axis=1)
    return {name: table[np.arange(len(place)), place] for name, table in way.metrics.items()}


def checked(
    key: jax.Array, pool_name: str, way: str, alpha: str, pool: Pool, exact: float, splits: int
) -> Check:
    """Mean envelope risk over drawn splits against the exact law."""
    num = pool.num_queries // 2
    sharp = float(sharp_risk(alpha, num))
    if not (pool.metrics["risk"].first > 0).any():  # one risk at every threshold
        return Check(pool_name, way, alpha, exact, exact, sharp, 0.0)
    trials = split_trials(
        key, pool.only("risk"), num_calibration=num, alpha=alpha, num_trials=splits
    )
    risk = trials.risk[:, 0].astype(np.float64)
    error = risk.std(ddof=1) / np.sqrt(splits)
    z = 0.0 if error == 0 and abs(risk.mean() - exact) < 1e-6 else (risk.mean() - exact) / error
    return Check(pool_name, way, alpha, float(risk.mean()), exact, sharp, z)


def row_of(pool: str, way: str, alpha: str | None, sums: QuestionMeans, size: int) -> Row:
    """A cell as a line of the results."""
    calls, calls_error = sums.mean("calls")
    accuracy, accuracy_error = sums.mean("accuracy")
    difference, difference_error = sums.mean("difference")
    has_level = alpha not in (None, DECIDED)
    level = None if alpha is None else float(alpha)
    risk = float(np.mean(sums.risk)) if sums.risk else None
    law = float(sharp_risk(alpha, size // 2)) if has_level else None
    return Row(
        pool=pool,
        way=way,
        alpha=level,
        calls=calls,
        calls_error=calls_error,
        dollars=sums.mean("dollars")[0],
        rounds=sums.mean("rounds")[0],
        accuracy=accuracy,
        accuracy_error=accuracy_error,
        difference=difference,
        difference_error=difference_error,
        regret=sums.mean("regret")[0],
        risk=risk,
        law=law,
    )


class NumberedPool(NamedTuple):
    """A pool and its place among all of the data, from which its random numbers come.

    So a pool that is run alone has the results that it has among the others.
    """

    number: int
    table: RoutingTable


def load(config: Config) -> tuple[jax.Array, dict[str, NumberedPool]]:
    """The key of the run, and the pools that the options ask for."""
    runtime.use_all_cores()
    if config.data is None:
        raise ValueError("--data is needed: a folder or a table with every model's answers")
    pools = answer_pools(config.data)
    names = [name.strip() for name in config.pools.split(",") if name.strip()]
    if unknown := [name for name in names if name not in pools]:
        raise ValueError(f"pools must be among {tuple(pools)}, got {unknown[0]!r}")
    places = {name: place for place, name in enumerate(pools)}
    pools_to_run = {name: NumberedPool(places[name], pools[name]) for name in names or pools}
    return jax.random.key(config.seed), pools_to_run


def run(
    key: jax.Array, pools: dict[str, NumberedPool], config: Config, progress: Callable[[int], Any]
) -> Result:
    """Every pool, one after the other; reads and writes nothing."""
    parts = [
        run_pool(jax.random.fold_in(key, pool.number), name, pool.table, config, progress)
        for name, pool in pools.items()
    ]
    return Result(
        [row for result in parts for row in result.rows],
        [check for result in parts for check in result.checks],
    )


def _shown(row: Row) -> list[str]:
    dollars = "" if np.isnan(row.dollars) else f"{1000 * row.dollars:.2f}"
    alpha = "" if row.alpha is None else f"{row.alpha:g}"
    return [
        row.way,
        alpha,
        f"{row.calls:.2f}",
        dollars,
        f"{row.rounds:.2f}",
        f"{100 * row.accuracy:.1f}",
        f"{100 * row.difference:+z.2f} ± {100 * row.difference_error:.2f}",
        f"{row.regret:.4f}",
        "" if row.law is None else f"{row.law:.4f}",
    ]


HEAD = ["way", "alpha", "calls", "$/1000", "rounds", "accuracy", "difference", "regret", "law"]


def report(config: Config, result: Result) -> Report:
    """A table for each pool, the check of the law, the figure."""
    parts = []
    for name in dict.fromkeys(row.pool for row in result.rows):
        lines = [_shown(row) for row in result.rows if row.pool == name]
        parts.append(f"{name}\n{left_table(HEAD, lines)}")
    all_pass = True
    if result.checks:
        worst = max(result.checks, key=lambda check: abs(check.z))
        all_pass = abs(worst.z) <= LIMIT
        below = sum(check.law < check.sharp - 1e-9 for check in result.checks)
        parts.append(
            f"{'PASS' if all_pass else 'FAIL'}: mean envelope risk of {len(result.checks)} cells "
            "over "
            f"{config.splits} splits against its law: largest deviation {worst.z:+z.2f} standard "
            f"errors ({worst.pool}, {worst.way}, alpha {worst.alpha}). In {below} cells the law is "
            "below floor(alpha (n + 1)) / (n + 1), for one call loses less than alpha."
        )
    rows = [row._asdict() for row in result.rows]
    return Report("\n\n".join(parts), rows, {"sequential": partial(figure, result.rows)}, all_pass)


_LINES = (SEQUENTIAL, LABEL_FREE, "agreement", "RACER-P", "RACER-J", "static")
_POINTS = ("best single", "full vote", "majority decided", "unanimity of 3")


def figure(rows: Sequence[Row], *, width: float | None = None) -> Figure:
    """Accuracy against the number of calls, a panel a pool."""
    names = list(dict.fromkeys(row.pool for row in rows))
    with figure_style(width):
        inches = min(3, len(names)) * 4.2 if width is None else width
        grid = panels(len(names), (2.9,), width=inches, least_panel=min(inches, 2.2))
        for number, name in enumerate(names):
            axes = grid.axes[0, number]
            here = [row for row in rows if row.pool == name]
            for way in _LINES:
                line = sorted((row.calls, row.accuracy) for row in here if row.way == way)
                if line:
                    style = style_of(way).marked(ms=4, lw=1.3, label=way)
                    axes.plot(*zip(*line, strict=True), **style)
            tops = sorted((row.calls, row.accuracy) for row in here if row.way.startswith("top "))
            if tops:
                top = style_of("top k").marked(label="top k, majority")
                axes.plot(*zip(*tops, strict=True), **top)
            for way in _POINTS:
                spots = [row for row in here if row.way == way]
                if spots:
                    at = [[row.calls for row in spots], [row.accuracy for row in spots]]
                    axes.plot(*at, **style_of(way).points(label=way, zorder=3))
            percent(axes, "y", 1)
            axes.yaxis.set_major_locator(MaxNLocator(5))
            axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
            grid.title(number, name)
        grid.label_below(0, "calls a query")
        grid.label_left(0, "right answers")
        return grid.finish("Right answers by the number of calls", *grid.axes[0])


def main(arguments: Sequence[str] | None = None) -> int:
    """Reads the options, runs the study, prints and writes it; returns the exit status."""
    return run_experiment(
        Config,
        __doc__.splitlines()[0],
        run,
        report,
        lambda config, pools: config.draws * len(pools),
        arguments,
        load=load,
    )


if __name__ == "__main__":
    sys.exit(main())
