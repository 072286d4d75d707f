"""How long does it take to know the accuracy of every vote on every split.

NumPy loops, or tables and step functions?.

    python benchmarks/aggregation.py [--data FOLDER]

RouterBench's ARC-Challenge with eleven models (or random numbers of the same shape): accuracy on
the test part of 1,000 splits under 8 alphas, 4 weightings and 12 temperatures, 384,000 cells. All
variants answer the same splits, drawn once; they agree before anything is timed. Slow variants run
on fewer cells and are extrapolated, which the table says.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Annotated, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from harness import Counted, turns

import racer_jax as racer
from racer_jax import reference, reporting
from racer_jax.core.aggregation import answer_codes, log_odds
from racer_jax.core.risk_levels import parse_alphas
from racer_jax.montecarlo.replay import split_parts
from racer_jax.montecarlo.step_functions import pool_steps
from racer_jax.montecarlo.trials import split_trials
from racer_jax.montecarlo.tuning import TEMPERATURES, vote_tables
from racer_jax.studies import runtime
from racer_jax.studies.benchmarks import PAPER_ALPHAS, StudyConfig, study

ALPHAS = parse_alphas(PAPER_ALPHAS)
WEIGHTINGS = ("score", "log_odds", "verbal", "p_true")
# The paper's split of ARC-Challenge: calibration and validation; the rest is the test part.
CALIBRATION, VALIDATION = 0.4, 0.2
# NumPy's sums of weights are rounded; answers whose sums are as close as this tie.
TIE = 1e-9


@dataclass(frozen=True)
class Config(Counted):
    """Options of the benchmark."""

    data: Annotated[
        Path | None, "folder of RouterBench's CSV files; random numbers when not given"
    ] = None
    splits: Annotated[int, "number of splits"] = 1000
    rounds: Annotated[int, "interleaved rounds"] = 5
    output: Annotated[Path, "folder of the results"] = Path("results/benchmarks/aggregation")


class Problem(NamedTuple):
    """Queries with answers, scores and four weights for each model."""

    name: str
    nonconformity: np.ndarray
    ties: jax.Array
    scores: np.ndarray
    correct: np.ndarray
    answers: np.ndarray
    weights: dict[str, np.ndarray]

    @property
    def counts(self) -> dict[str, int]:
        """Calibration and validation queries."""
        num = len(self.scores)
        return {
            "num_calibration": round(num * CALIBRATION),
            "num_validation": round(num * VALIDATION),
        }


def problem(config: Config) -> Problem:
    """A k-NN router's scores.

    Verbal and P(True) are made up where the data has none, half informative.
    """
    rng = np.random.default_rng(0)
    if config.data is not None:
        benchmark = study(StudyConfig(data=config.data, routers="knn"))[0]
        name, scores, correct = benchmark.name, benchmark.scores["knn"], benchmark.test.correct
        answers = answer_codes(benchmark.test.answers)
    else:
        name, scores = (
            "random numbers",
            (rng.random((882, 11)) * 100).round().astype(np.float32) / 100,
        )
        correct = rng.random(scores.shape) < scores
        answers = np.where(correct, 0, rng.integers(1, 5, scores.shape)).astype(np.int32)
    p_true = np.clip((rng.random(scores.shape) + correct) / 2, 0, 1).astype(np.float32)
    weights = {
        "score": scores,
        "log_odds": np.asarray(log_odds(scores)),
        "verbal": (p_true > 0.5).astype(np.float32),
        "p_true": p_true,
    }
    nonconformity = np.asarray(racer.inverse_probability(scores))
    ties = racer.tie_break(jax.random.key(1), nonconformity.shape)
    return Problem(name, nonconformity, ties, scores, correct, answers, weights)


# --- the variants: each returns accuracies [s, a, w, t] -------------------------------------------


def ours(p: Problem, key: jax.Array, splits: int) -> np.ndarray:
    """This package: every vote tabulated, its accuracy a step function, all splits in one call."""
    shape = (len(WEIGHTINGS), len(TEMPERATURES))
    confidences = {name: p.weights[name] for name in ("verbal", "p_true")}
    tables = vote_tables(
        p.nonconformity, p.answers, p.scores, p.correct, p.ties, confidence=confidences
    )
    metrics = {f"right {k}": right for k, right in enumerate(tables.right[1:])}
    pool = pool_steps(p.nonconformity, p.correct, p.ties, metrics=metrics)
    trials = split_trials(key, pool, alpha=ALPHAS, num_trials=splits, **p.counts)
    accuracies = np.stack([trials.extra[name] for name in metrics], axis=-1)
    return accuracies.reshape(splits, len(ALPHAS), *shape)


def numpy_cell(
    p: Problem, inside: np.ndarray, test: np.ndarray, weights: np.ndarray, temperature: float
) -> float:
    """Accuracy of one weighting and temperature on one test part.

    One NumPy pass over its queries.
    """
    called, answers, scores = inside[test], p.answers[test], p.scores[test]
    voting = called & (answers >= 0)
    scaled = np.where(called, weights[test] / temperature, -np.inf)
    power = np.exp(scaled - scaled.max(axis=1, keepdims=True, initial=-1e30))
    codes = np.arange(p.answers.max() + 1)
    votes = voting[:, :, None] & (answers[:, :, None] == codes)
    support = np.einsum("nm,nmc->nc", power, votes)
    number = votes.sum(axis=1)
    mean = np.einsum("nm,nmc->nc", scores.astype(np.float64), votes) / np.maximum(number, 1)
    support = np.where(number > 0, support, -1.0)
    best = support >= support.max(axis=1, keepdims=True) * (1 - TIE)
    winner = np.where(best & (number > 0), mean, -1.0).argmax(axis=1)
    right = (voting & p.correct[test] & (answers == winner[:, None])).any(axis=1)
    return float(right.mean())


def called_sets(p: Problem, part: np.ndarray, alpha: str) -> np.ndarray:
    """The models called for every query at one alpha of one split, bool `[n, m]`.

    Ties by their second keys.
    """
    truth = np.concatenate([p.correct, ~p.correct.any(1, keepdims=True)], axis=1)
    # scores in [0, 1] lie further apart
    keys = p.nonconformity.astype(np.float64) + np.asarray(p.ties) / 2**32 * 1e-9
    critical = np.where(truth, keys, np.inf).min(axis=1)[part == 0]
    budget = reference.miss_budget(alpha, len(critical))
    limit = (
        np.inf
        if budget < 0
        else np.partition(critical, len(critical) - budget - 1)[len(critical) - budget - 1]
    )
    return np.asarray((keys <= limit)[:, :-1])


def numpy_loop(p: Problem, parts: np.ndarray, temperatures: tuple[float, ...]) -> np.ndarray:
    """What one writes first.

    Calibrate each split for each alpha, then vote anew for each weighting and temperature.
    """
    accuracy = np.empty((len(parts), len(ALPHAS), len(WEIGHTINGS), len(temperatures)))
    for s, part in enumerate(parts):
        for a, alpha in enumerate(ALPHAS):
            inside = called_sets(p, part, alpha)
            for w, weighting in enumerate(WEIGHTINGS):
                for t, temperature in enumerate(temperatures):
                    accuracy[s, a, w, t] = numpy_cell(
                        p, inside, part == 2, p.weights[weighting], temperature
                    )
    return accuracy


def numpy_tables(p: Problem, parts: np.ndarray) -> np.ndarray:
    """The same idea as ours in NumPy.

    Votes tabulated (by ours), then one gather for each split and alpha.
    """
    confidences = {name: p.weights[name] for name in ("verbal", "p_true")}
    tables = vote_tables(
        p.nonconformity, p.answers, p.scores, p.correct, p.ties, confidence=confidences
    ).right[1:]
    by_set = np.ascontiguousarray(np.moveaxis(tables, 0, -1))
    accuracy = np.empty((len(parts), len(ALPHAS), len(tables)))
    for s, part in enumerate(parts):
        test = np.flatnonzero(part == 2)
        for a, alpha in enumerate(ALPHAS):
            accuracy[s, a] = by_set[test, called_sets(p, part, alpha)[test].sum(axis=1)].mean(
                axis=0
            )
    return accuracy.reshape(len(parts), len(ALPHAS), len(WEIGHTINGS), len(TEMPERATURES))


def plain_cell(
    p: Problem, part: np.ndarray, alpha: str, weighting: str, temperature: float
) -> float:
    """One cell in plain Python: `racer_jax.reference`, exact."""
    rows, second = p.nonconformity.astype(float).tolist(), np.asarray(p.ties).tolist()
    calibrating = np.flatnonzero(part == 0)
    critical = [
        reference.critical_score(rows[i], p.correct[i].tolist(), second[i]) for i in calibrating
    ]
    limit = reference.threshold(critical, alpha)
    right = []
    for i in np.flatnonzero(part == 2):
        called = [
            m
            for m, yes in enumerate(reference.prediction_set(rows[i], limit, second[i])[:-1])
            if yes
        ]
        lists = (p.answers[i].tolist(), p.scores[i].tolist(), p.weights[weighting][i].tolist())
        voted = reference.vote(called, *lists, temperature)
        right.append(
            any(p.correct[i, m] and p.answers[i, m] == voted for m in range(len(lists[0])))
        )
    return float(np.mean(right))


# --- agreement and timing -------------------------------------------------------------------------


def check_agreement(p: Problem, key: jax.Array) -> float:
    """Raises unless all variants give the same accuracies.

    Returns the most that NumPy's rounded sums differ by.
    """
    parts = parts_of(p, key, 2)
    expected = ours(p, key, 2)
    np.testing.assert_allclose(numpy_tables(p, parts), expected, rtol=1e-6)
    for a, w, t in ((1, 0, 0), (2, 1, 5), (4, 2, 8), (5, 3, 11)):
        plain = plain_cell(p, parts[0], ALPHAS[a], WEIGHTINGS[w], TEMPERATURES[t])
        np.testing.assert_allclose(plain, expected[0, a, w, t], rtol=1e-6)
    difference = np.abs(numpy_loop(p, parts, TEMPERATURES) - expected).max()
    if difference > 0.01:
        raise ValueError(
            f"the NumPy loop differs by {difference} in accuracy, more than rounded sums explain"
        )
    return float(difference)


def parts_of(p: Problem, key: jax.Array, splits: int) -> np.ndarray:
    """The part of each query in each split."""
    pool = pool_steps(p.nonconformity, p.correct, p.ties)
    return split_parts(key, jnp.arange(splits), pool, **p.counts)


def wall(function: Callable[[], object]) -> float:
    """Seconds of a call whose results are on the host."""
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def seconds(value: float) -> str:
    """Three digits, whatever the size."""
    return (
        f"{value:,.0f} s"
        if value >= 100
        else f"{value:.3g} s"
        if value >= 1
        else f"{value * 1000:.3g} ms"
    )


def main() -> None:
    config = reporting.parse_config(Config, "Times the accuracy of votes against NumPy loops.")
    runtime.use_all_cores()
    p, key = problem(config), jax.random.key(0)
    difference = check_agreement(p, key)
    parts = parts_of(p, key, config.splits)
    cells = config.splits * len(ALPHAS) * len(WEIGHTINGS) * len(TEMPERATURES)
    few, temperatures = 20, TEMPERATURES[::6]
    per_round = len(ALPHAS) * len(WEIGHTINGS) * len(temperatures)
    variants: dict[str, tuple[Callable[[int], object], int, str]] = {
        "plain Python (`racer_jax.reference`)": (
            lambda i: plain_cell(
                p, parts[i], ALPHAS[i % 8], WEIGHTINGS[i % 4], TEMPERATURES[i % 12]
            ),
            1,
            "extrapolated from 1 cell a round",
        ),
        "NumPy loop over splits, alphas, weightings, temperatures": (
            lambda i: numpy_loop(p, parts[i : i + 1], temperatures),
            per_round,
            f"extrapolated from {per_round} cells a round",
        ),
        "NumPy on tabulated votes (tables by ours)": (
            lambda i: numpy_tables(p, parts[few * i : few * (i + 1)]),
            cells,
            f"tables, and {few} splits a round extrapolated",
        ),
        "`vote_tables`, `pool_steps`, `split_trials`": (
            lambda i: ours(p, jax.random.fold_in(key, i), config.splits),
            cells,
            "all cells, tables included",
        ),
    }
    first = {name: wall(lambda run=run: run(0)) for name, (run, _, _) in variants.items()}
    walls: dict[str, list[float]] = {name: [] for name in variants}
    tables = [wall(lambda: numpy_tables(p, parts[:0])) for _ in range(config.rounds)]
    for i in turns(range(config.rounds)):
        for name, (run, share, _) in variants.items():
            seconds_taken = wall(lambda run=run, i=i: run(i))
            walls[name].append(seconds_taken * cells / share)
    tabulated = "NumPy on tabulated votes (tables by ours)"
    once = median(tables)  # tables are made once, whatever the number of splits
    walls[tabulated] = [
        once + (seconds_taken - once) * config.splits / few for seconds_taken in walls[tabulated]
    ]
    best = median(walls[list(variants)[-1]])
    header = ["variant", "wall", "first call", "times ours", "how"]
    rows = [
        [
            name,
            seconds(median(walls[name])),
            seconds(first[name]),
            f"{median(walls[name]) / best:,.1f}",
            how,
        ]
        for name, (_, _, how) in variants.items()
    ]
    environment = reporting.environment()
    size = f"{len(p.scores)} queries, {p.scores.shape[1]} models"
    grid = f"{len(ALPHAS)} alphas x {len(WEIGHTINGS)} weightings x {len(TEMPERATURES)} temperatures"
    machine = f"{environment['machine']}, jax {environment['jax']}"
    how = f"median of {config.rounds} interleaved rounds, warm; {machine}"
    title = f"{p.name}, {size}: {config.splits:,} splits x {grid}; {how}."
    print(f"{title}\n\n{reporting.markdown_table(header, rows)}\n")
    print(
        f"All agree on 2 splits; the NumPy loop to {difference:.4f} in accuracy, for its sums are "
        "rounded."
    )

    def write(folder: Path) -> None:
        timings = {
            name: {"wall": walls[name], "first": first[name], "how": variants[name][2]}
            for name in variants
        }
        results = {"config": config, "environment": environment, "title": title, "timings": timings}
        reporting.write_json(folder / "results.json", results | {"largest_difference": difference})

    folder = reporting.finish(write, config.output)
    print(f"Written: {folder / 'results.json'}")


if __name__ == "__main__":
    main()
