"""What `Racer.fit` should do by default: models called at equal risk, by nonconformity.

    python experiments/defaults.py --data FOLDER   # routerbench/, routerdc/, zeroeval/ in it

Each pool is split by question (RouterDC's files as they are); a racer is fitted as a user would,
with the default router and encoder, and its scores are thresholded in each of the ways that
`nonconformity=` offers, the null model in every set (null mode `free`), so that the risk is the
same for all. Risk and size are exact over all splits of the other rows into halves for calibration
and test.
"""

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import jax
import numpy as np

from racer_jax import tie_break
from racer_jax.core.risk_levels import parse_alphas
from racer_jax.data.table import RoutingTable
from racer_jax.montecarlo.exact import split_law
from racer_jax.racer.racer import Racer
from racer_jax.reporting.tables import left_table
from racer_jax.studies import runtime
from racer_jax.studies.answer_pools import answer_pools
from racer_jax.studies.corpora import read_parts
from racer_jax.studies.runner import Report, run_experiment

NAMES = ("inverse_probability", "gap", "static", "J", "J_learned")
ROUTERDC = "routerdc"


@dataclass(frozen=True)
class Config:
    """Options of the study."""

    data: Annotated[Path | None, "needed: a folder with routerbench/, routerdc/ or zeroeval/"] = (
        None
    )
    alphas: Annotated[str, "risk levels, listed or first:last:step"] = "0.05,0.1,0.2"
    share: Annotated[float, "share of the questions that train"] = 0.4
    queries: Annotated[int, "queries of each benchmark of RouterDC at most; 0 for all"] = 0
    seed: Annotated[int, "seed of everything"] = 0
    output: Annotated[Path, "folder of the results"] = Path("results/defaults")

    def __post_init__(self) -> None:
        parse_alphas(self.alphas)
        if not 0 < self.share < 1:
            raise ValueError(f"share must be in (0, 1), got {self.share}")


class Row(NamedTuple):
    """One nonconformity on one pool, at one level."""

    pool: str
    nonconformity: str
    alpha: float
    risk: float
    size: float


Pools = Mapping[str, tuple[RoutingTable, RoutingTable]]


def load(config: Config) -> tuple[jax.Array, Pools]:
    """The key of the run; training rows and the others of each pool."""
    runtime.use_all_cores()
    if config.data is None:
        raise ValueError("--data is needed: a folder with routerbench/, routerdc/ or zeroeval/")
    split_key, run_key = jax.random.split(jax.random.key(config.seed))
    pools: dict[str, tuple[RoutingTable, RoutingTable]] = {}
    if (config.data / ROUTERDC).is_dir():
        parts = read_parts(split_key, config.data / ROUTERDC, queries=config.queries)
        for name in parts.test.groups:
            train, rest = (
                table.select(np.array(table.group) == name) for table in (parts.train, parts.test)
            )
            pools[f"RouterDC {name}"] = (train, rest)
    for number, (name, table) in enumerate(answer_pools(config.data).items()):
        questions = table.question_ids
        key = jax.random.fold_in(split_key, number)
        order = np.asarray(jax.random.permutation(key, int(questions.max()) + 1))
        is_training = np.isin(questions, order[: int(config.share * len(order))])
        pools[name] = (table.select(is_training), table.select(~is_training))
    return run_key, pools


def with_nonconformity(racer: Racer, train: RoutingTable, nonconformity: str) -> Racer:
    """What `Racer.fit` makes with the same key, without another training of its router."""
    return Racer.from_router(
        racer.scorer.encoder,
        racer.scorer.router,
        train.models,
        training=train,
        nonconformity=nonconformity,
        null="free",
    )


def run(key: jax.Array, pools: Pools, config: Config, progress: Callable[[int], Any]) -> list[Row]:
    """Every nonconformity on every pool; reads and writes nothing."""
    alphas = parse_alphas(config.alphas)
    rows = []
    for number, (pool, (train, rest)) in enumerate(pools.items()):
        fit_key, tie_key = jax.random.split(jax.random.fold_in(key, number))
        fitted = Racer.fit(fit_key, train, nonconformity=NAMES[0], null="free")
        for place, name in enumerate(NAMES):
            racer = fitted if name == NAMES[0] else with_nonconformity(fitted, train, name)
            nonconformity = racer.score(rest).nonconformity
            law = split_law(
                nonconformity,
                rest.correct,
                num_calibration=len(rest) // 2,
                alpha=list(alphas),
                tie_break=tie_break(jax.random.fold_in(tie_key, place), nonconformity.shape),
            )
            rows += [
                Row(pool, name, float(alpha), float(risk), float(size))
                for alpha, risk, size in zip(alphas, law.risk_mean, law.size_mean, strict=True)
            ]
            progress(1)
    return rows


def report(config: Config, rows: Sequence[Row]) -> Report:
    """Sizes by pool and alpha, and how each does against the smallest."""
    size = {(row.pool, row.alpha, row.nonconformity): row.size for row in rows}
    cells = list(dict.fromkeys((row.pool, row.alpha) for row in rows))
    lines = [[*map(str, cell), *(f"{size[(*cell, name)]:.2f}" for name in NAMES)] for cell in cells]
    logs = {
        name: np.mean(
            [np.log(size[(*c, name)]) - np.log(min(size[(*c, n)] for n in NAMES)) for c in cells]
        )
        for name in NAMES
    }
    above = ", ".join(f"{name} {100 * np.expm1(value):.0f}%" for name, value in logs.items())
    text = (
        f"{left_table(['pool', 'alpha', *NAMES], lines)}\n\n"
        f"Above the smallest of the cell, geometric mean: {above}."
    )
    return Report(text, [row._asdict() for row in rows], {}, True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Reads the options, runs the study, prints and writes it; returns the exit status."""
    return run_experiment(
        Config,
        __doc__.splitlines()[0],
        run,
        report,
        lambda _, pools: len(NAMES) * len(pools),
        arguments,
        load=load,
    )


if __name__ == "__main__":
    sys.exit(main())
