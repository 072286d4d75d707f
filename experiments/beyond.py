"""Sizes at the same risk: RACER-P, RACER-G, the static order, and RACER-J.

    python experiments/beyond.py                                  # the embedded simulated pool
    python experiments/beyond.py --data FOLDER                    # RouterDC's files, hashed n-grams
    python experiments/beyond.py --data FOLDER --encoder both     # and MiniLM beside them

Routers, orders and laws learn from the training files alone. Each benchmark's test file is
calibrated and measured over all its calibration/test splits at once, by the exact law. Differences
to the static order are paired, with bootstrap errors over queries. Sizes are compared within one
null mode, and across modes at equal avoidable-miss rate.
"""

import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import racer_jax as racer
from racer_jax import reporting
from racer_jax.core.nonconformity import NullMode
from racer_jax.core.risk_levels import parse_alphas
from racer_jax.data import RoutingTable
from racer_jax.encoders.base import Encoder
from racer_jax.encoders.compound import JoinedEncoder, ReducedEncoder
from racer_jax.encoders.hashing import HashedNgrams
from racer_jax.encoders.surface import SurfaceEncoder
from racer_jax.montecarlo.bootstrap import at_equal_service, bootstrap_sizes
from racer_jax.montecarlo.exact import SplitLaw, pool_law
from racer_jax.montecarlo.step_functions import Pool, pool_steps
from racer_jax.orders.joint_laws import MAX_TILTED, factor, fit_loadings, pattern_law, tilt
from racer_jax.orders.learned_gains import LearnedGains
from racer_jax.orders.racer_j import RacerJ
from racer_jax.plotting import risk as plotting
from racer_jax.routers import KNNR
from racer_jax.routers.mlp import MLPConfig, fit_mlps
from racer_jax.studies.corpora import Parts, for_pool, read_parts
from racer_jax.studies.order_studies import Nonconformity, calibration_size
from racer_jax.studies.runner import Drawer, Progress, Report, run_experiment

STATIC, ORACLE, P_MLP = "static", "oracle", "P, MLP"
# Scores of routers and loadings that are trained. Hundreds of steps carry the rounding of a
# processor, and of a version of JAX, into the second decimal of their sizes: the first is printed.
TRAINED = (P_MLP, "G, MLP", "J factor, KNN", "J tilt, KNN", "J tilt, MLP")
# Drawn in the figure; the tables hold every score.
DRAWN = (P_MLP, "P, KNN", STATIC, "J blend", "J tilt, MLP", "J learned")
# Avoidable-miss rates at which sizes are compared across null modes, and the risk levels that find
# them.
SERVICE = (0.05, 0.1, 0.2)
SERVICE_ALPHAS = tuple(f"{i / 100:g}" for i in range(1, 60))
NUM_FOLDS = 5


@dataclass(frozen=True)
class Config:
    """Options of the comparison."""

    data: Annotated[
        Path | None, "RouterDC's folder or any table; the simulated pool when not given"
    ] = None
    encoder: Annotated[Literal["hashed", "both"], "hashed n-grams, or MiniLM beside them"] = (
        "hashed"
    )
    alphas: Annotated[str, "risk levels, listed or first:last:step"] = (
        "0.02,0.05,0.1,0.15,0.2,0.3,0.4,0.5"
    )
    null: Annotated[NullMode, "null mode of the tables"] = "free"
    calibration: Annotated[float, "share of each benchmark that calibrates"] = 0.5
    neighbors: Annotated[int, "neighbours of RACER-J blend"] = 200
    blend: Annotated[float, "weight of the neighbours in RACER-J blend"] = 0.3
    ridge: Annotated[float, "penalty of the learned gains"] = 8.0
    networks: Annotated[int, "MLP routers averaged"] = 2
    epochs: Annotated[int, "epochs of training an MLP router, at most"] = 20
    resamples: Annotated[int, "bootstrap resamples of the queries"] = 200
    queries: Annotated[int, "queries of each file at most; 0 for all"] = 0
    seed: Annotated[int, "seed of everything"] = 0
    output: Annotated[Path, "folder of the results"] = Path("results/beyond")
    cache: Annotated[Path | None, "folder that keeps embeddings between runs (--encoder both)"] = (
        None
    )

    def __post_init__(self) -> None:
        parse_alphas(self.alphas)
        if not 0 < self.calibration < 1:
            raise ValueError(f"calibration must be in (0, 1), got {self.calibration}")
        for name, least in (
            ("networks", 1),
            ("resamples", 2),
            ("queries", 0),
            ("neighbors", 1),
            ("epochs", 1),
        ):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, got {getattr(self, name)}")


class Cell(NamedTuple):
    """One score on one benchmark, arrays by alpha `[a]`.

    Attributes:
      benchmark: Name of the benchmark.
      score: Name of the score.
      risk: Exact mean test risk over all splits.
      size: Exact mean number of models called.
      avoidable_miss: Share that some model could answer while none that can was called.
      abstention: Share of queries without a model called.
      change: Size relative to the static order's, minus 1.
      change_error: Its bootstrap standard error over queries, paired.
      against_p: Size relative to RACER-P's on the MLP router, minus 1.
      against_p_error: Its bootstrap standard error, paired.
    """

    benchmark: str
    score: str
    risk: np.ndarray
    size: np.ndarray
    avoidable_miss: np.ndarray
    abstention: np.ndarray
    change: np.ndarray
    change_error: np.ndarray
    against_p: np.ndarray
    against_p_error: np.ndarray


class Service(NamedTuple):
    """Sizes of one score at equal avoidable-miss rate.

    Attributes:
      benchmark: Name of the benchmark.
      score: Name of the score.
      null: Null mode.
      size: Mean number of models called at each rate of `SERVICE`; NaN where the mode does not
        reach it.
    """

    benchmark: str
    score: str
    null: str
    size: np.ndarray


class Result(NamedTuple):
    """The whole comparison.

    Attributes:
      alphas: Risk levels as written.
      null: Null mode of the cells.
      models: Names of the models of the pool, `[m]`.
      cells: One for each benchmark and score.
      service: Sizes at equal avoidable-miss rate, null modes `paper` and `free`.
      notes: By benchmark, what was left out.
    """

    alphas: tuple[str, ...]
    null: str
    models: tuple[str, ...]
    cells: list[Cell]
    service: list[Service]
    notes: dict[str, str]


# --- what is compared -----------------------------------------------------------------------------


def embed(
    config: Config, key: jax.Array, train: RoutingTable, test: RoutingTable
) -> tuple[np.ndarray, ...]:
    """Embeddings of training and test rows, and the same with the texts' surface beside them."""
    encoder: Encoder = ReducedEncoder.fit(
        key, train.texts, 256, HashedNgrams(dim=4096, sizes=(1, 2, 3))
    )
    if config.encoder == "both":
        from racer_jax.encoders.text import minilm

        encoder = JoinedEncoder((minilm(cache=config.cache), encoder))
    surface = SurfaceEncoder.fit(train.texts)
    x, z = encoder.encode(train.texts), encoder.encode(test.texts)
    return (
        x,
        z,
        np.hstack([x, surface.encode(train.texts)]),
        np.hstack([z, surface.encode(test.texts)]),
    )


def out_of_fold(key: jax.Array, x: np.ndarray, correct: np.ndarray) -> np.ndarray:
    """Scores a k-NN router gives to training rows it does not hold, float32 `[n, m]`."""
    fold = np.asarray(jax.random.randint(key, len(x), 0, NUM_FOLDS))
    scores = np.zeros(correct.shape, np.float32)
    for i in range(NUM_FOLDS):
        inside = fold != i
        scores[~inside] = KNNR.fit(x[inside], correct[inside], k=min(100, int(inside.sum())))(
            x[~inside]
        )
    return scores


def nonconformities(
    config: Config, key: jax.Array, train: RoutingTable, test: RoutingTable
) -> dict[str, Nonconformity]:
    """Every score: null mode -> nonconformity of all test rows.

    Learned from training rows alone.
    """
    encoder_key, network_key, fold_key = jax.random.split(key, 3)
    x, z, x_wide, z_wide = embed(config, encoder_key, train, test)
    correct, groups = train.correct, train.group
    k = min(100, len(x))
    knn = KNNR.fit(x, correct, k=k)(z)
    networks, _ = fit_mlps(
        jax.random.split(network_key, config.networks),
        x,
        correct,
        MLPConfig(
            max_epochs=config.epochs, batch_size=min(MLPConfig().batch_size, max(1, len(x) // 2))
        ),
    )
    mlp = jnp.mean(jnp.stack([network(z) for network in networks]), axis=0)
    loadings = fit_loadings(out_of_fold(fold_key, x, correct), correct)
    blend = RacerJ.fit(x, correct, groups=groups, k=min(config.neighbors, len(x)), w=config.blend)
    static = RacerJ.fit(x, correct, groups=groups, k=1, w=0.0)
    model = LearnedGains.fit(x_wide, correct, groups=groups, ridge=config.ridge)
    scores: dict[str, Nonconformity] = {
        "P, KNN": lambda null: racer.inverse_probability(knn, null),
        P_MLP: lambda null: racer.inverse_probability(mlp, null),
        "G, KNN": lambda null: racer.gap(knn, null),
        "G, MLP": lambda null: racer.gap(mlp, null),
        STATIC: lambda null: static(z, test.group, null),
        "J blend": lambda null: blend(z, test.group, null),
        "J factor, KNN": lambda null: factor(knn, loadings, null),
        "J learned": lambda null: model(z_wide, test.group, null),
    }
    if correct.shape[1] <= MAX_TILTED:
        law = pattern_law(correct)
        scores["J tilt, KNN"] = lambda null: tilt(knn, law, null)
        scores["J tilt, MLP"] = lambda null: tilt(mlp, law, null)
    return scores


# --- the comparison -------------------------------------------------------------------------------


def pools_of(
    key: jax.Array, test: RoutingTable, name: str, scores: dict[str, Nonconformity], null: NullMode
) -> dict[str, Pool]:
    """Score -> the benchmark's queries in rank space; all scores break ties by the same keys."""
    rows = np.array(test.group) == name
    ties = racer.tie_break(key, (int(rows.sum()), test.correct.shape[1] + 1))
    return {
        score: pool_steps(call(null)[rows], test.correct[rows], ties)
        for score, call in scores.items()
    }


def relative(
    size: np.ndarray, base: np.ndarray, resampled_sizes: np.ndarray, resampled_base: np.ndarray
) -> tuple[Any, Any]:
    """Size over base minus 1, and its paired bootstrap error."""
    return size / base - 1, (resampled_sizes / resampled_base).std(axis=0, ddof=1)


def cells_of(
    key: jax.Array,
    config: Config,
    alphas: tuple[str, ...],
    name: str,
    pools: dict[str, Pool],
    unanswerable: float,
) -> list[Cell]:
    """The cells of one benchmark, the trivial oracle last."""
    num = next(iter(pools.values())).num_queries
    laws = {
        score: pool_law(
            pool, num_calibration=calibration_size(config.calibration, num), alpha=alphas
        )
        for score, pool in pools.items()
    }
    resampled_sizes = bootstrap_sizes(key, pools, alphas, config.resamples)
    cells = []
    for score, law in laws.items():
        versus_static = relative(
            law.size_mean, laws[STATIC].size_mean, resampled_sizes[score], resampled_sizes[STATIC]
        )
        versus_p = relative(
            law.size_mean, laws[P_MLP].size_mean, resampled_sizes[score], resampled_sizes[P_MLP]
        )
        cells.append(Cell(name, score, *measured(law), *versus_static, *versus_p))
    return [*cells, oracle(name, np.array([float(alpha) for alpha in alphas]), unanswerable, cells)]


def measured(law: SplitLaw) -> tuple[np.ndarray, ...]:
    """Risk, size, avoidable miss and abstention."""
    return law.risk_mean, law.size_mean, law.avoidable_miss_mean, law.abstention_mean


def oracle(name: str, alpha: np.ndarray, unanswerable: float, cells: list[Cell]) -> Cell:
    """An oracle calls one right model, or none.

    Max(0, 1 - share no model answers - alpha).
    """
    size = np.maximum(0, 1 - unanswerable - alpha)
    base = {cell.score: cell.size for cell in cells}
    none = np.zeros_like(size)
    return Cell(
        name,
        ORACLE,
        1 - unanswerable - size,
        size,
        1 - unanswerable - size,
        1 - size,
        size / base[STATIC] - 1,
        none,
        size / base[P_MLP] - 1,
        none,
    )


def service_of(
    config: Config, name: str, null: NullMode, pools: dict[str, Pool], unanswerable: float
) -> list[Service]:
    """Sizes at equal avoidable-miss rate, the trivial oracle last."""
    rows = []
    for score, pool in pools.items():
        law = pool_law(
            pool,
            num_calibration=calibration_size(config.calibration, pool.num_queries),
            alpha=SERVICE_ALPHAS,
        )
        rows.append(
            Service(
                name, score, null, at_equal_service(law.avoidable_miss_mean, law.size_mean, SERVICE)
            )
        )
    return [*rows, Service(name, ORACLE, null, np.maximum(0, 1 - unanswerable - np.array(SERVICE)))]


def run(key: jax.Array, data: Parts, config: Config, progress: Progress = lambda _: None) -> Result:
    """Compares every score on every benchmark; reads and writes nothing.

    Args:
      key: A typed PRNG key.
      data: Training rows and rows that calibrate and test; models and groups of these are those of
        the training rows, or some of them.
      config: The options.
      progress: Called with 1 after each benchmark.

    Returns:
      The `Result`.

    Raises:
      ValueError: If a model or a group of the test rows is not among those of the training rows.
    """
    test = data.test
    train = for_pool(data.train, test.models)
    fit_key, tie_key, bootstrap_key = jax.random.split(key, 3)
    alphas = parse_alphas(config.alphas)
    scores = nonconformities(config, fit_key, train, test)
    cells: list[Cell] = []
    service: list[Service] = []
    for i, name in enumerate(test.groups):
        unanswerable = float((~test.select(group=name).correct.any(axis=1)).mean())
        pools = {
            null: pools_of(jax.random.fold_in(tie_key, i), test, name, scores, null)
            for null in {config.null, "free", "paper"}
        }
        cells += cells_of(
            jax.random.fold_in(bootstrap_key, i),
            config,
            alphas,
            name,
            pools[config.null],
            unanswerable,
        )
        for null in ("paper", "free"):
            service += service_of(config, name, null, pools[null], unanswerable)
        progress(1)
    return Result(alphas, config.null, test.models, cells, service, data.notes)


# --- tables and figures ---------------------------------------------------------------------------


def shown_size(score: str, size: float) -> str:
    """A size with the digits that do not depend on the processor."""
    return f"{size:.1f}" if score in TRAINED else f"{size:.2f}"


def tables(result: Result) -> str:
    """Sizes and paired changes of every benchmark, then sizes at equal service."""
    parts = []
    for name in dict.fromkeys(cell.benchmark for cell in result.cells):
        cells = [cell for cell in result.cells if cell.benchmark == name]
        parts.append(f"{name}: models called at each alpha, null mode '{result.null}'")
        parts.append(
            reporting.text_table(
                ["", *result.alphas],
                [[c.score, *(shown_size(c.score, size) for size in c.size)] for c in cells],
            )
        )
        parts.append(f"{name}: size relative to the static order, ± bootstrap error over queries")
        parts.append(
            reporting.text_table(
                ["", *result.alphas],
                [
                    [
                        c.score,
                        *(
                            f"{100 * d:+z.0f} ± {100 * e:.0f}%"
                            for d, e in zip(c.change, c.change_error, strict=True)
                        ),
                    ]
                    for c in cells
                ],
            )
        )
    parts.append(
        "Sizes at equal avoidable-miss rate (the share that some model could answer while none "
        "that can was called)"
    )
    rows = [
        [row.benchmark, row.score, row.null, *(shown_size(row.score, size) for size in row.size)]
        for row in result.service
    ]
    parts.append(
        reporting.text_table(
            ["benchmark", "score", "null", *(f"{rate:g}" for rate in SERVICE)], rows
        )
    )
    return "\n\n".join(parts)


def verdicts(result: Result) -> str:
    """RACER-J against RACER-P and against the static order, in a line for each benchmark."""
    lines = []
    for name in dict.fromkeys(cell.benchmark for cell in result.cells):
        by_score = {cell.score: cell for cell in result.cells if cell.benchmark == name}
        if "0.1" in result.alphas:
            at = result.alphas.index("0.1")
            changes = ", ".join(
                f"{score} {100 * by_score[score].against_p[at]:+z.0f} ± "
                f"{100 * by_score[score].against_p_error[at]:.0f}%"
                for score in (STATIC, "J blend", "J tilt, MLP", "J learned")
                if score in by_score
            )
            lines.append(f"{name}, alpha = 0.1, against P on the MLP router: {changes}")
        for score in ("J blend", "J learned"):
            change, error = by_score[score].change, by_score[score].change_error
            worst, best = int(np.argmax(change)), int(np.argmin(change))
            lines.append(
                f"{name}, {score} against static: "
                f"from {100 * change[best]:+z.0f} ± {100 * error[best]:.0f}% "
                f"(alpha {result.alphas[best]}) "
                f"to {100 * change[worst]:+z.0f} ± {100 * error[worst]:.0f}% "
                f"(alpha {result.alphas[worst]}); "
                f"smaller at {int((change < 0).sum())} of {len(change)} alphas"
            )
    return "\n".join(lines)


def csv_rows(result: Result) -> list[dict[str, Any]]:
    """A row for each benchmark, score and alpha."""
    return [
        {
            "benchmark": cell.benchmark,
            "score": cell.score,
            "null": result.null,
            "alpha": alpha,
            **{
                name: float(value[i])
                for name, value in cell._asdict().items()
                if isinstance(value, np.ndarray)
            },
        }
        for cell in result.cells
        for i, alpha in enumerate(result.alphas)
    ]


def figure(result: Result) -> Drawer:
    """How size is drawn against alpha, a panel for each benchmark."""
    alpha = np.array([float(a) for a in result.alphas])
    sizes = {(cell.benchmark, cell.score): cell.size for cell in result.cells}
    panels = {
        name: {
            score: plotting.SizeCurve(alpha, sizes[name, score])
            for score in DRAWN
            if (name, score) in sizes
        }
        for name in dict.fromkeys(cell.benchmark for cell in result.cells)
    }
    subtitle = f"all calibration/test splits, null mode '{result.null}'"
    return partial(plotting.size_figure, panels, len(result.models), subtitle)


def report(config: Config, result: Result) -> Report:
    """The tables, what they say, and the picture."""
    notes = [f"{name}: {note}" for name, note in result.notes.items() if note]
    text = "\n".join([tables(result), "", verdicts(result), *notes])
    return Report(text, csv_rows(result), {"size": figure(result)})


def load(config: Config) -> tuple[jax.Array, Parts]:
    """The key of the run, and the rows that the options ask for."""
    if config.encoder == "both":
        from racer_jax.encoders.text import minilm_folder

        minilm_folder()  # says which extra lacks before any work
    data_key, run_key = jax.random.split(jax.random.key(config.seed))
    return run_key, read_parts(data_key, config.data, queries=config.queries)


def main(arguments: list[str] | None = None) -> int:
    """Compares, prints and writes; returns the exit status."""
    return run_experiment(
        Config,
        "Compares the sizes of calibrated sets at the same risk.",
        run,
        report,
        lambda _, data: len(data.test.groups),
        arguments,
        load=load,
    )


if __name__ == "__main__":
    sys.exit(main())
