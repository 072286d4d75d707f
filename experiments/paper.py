"""The whole paper in one run: every table and figure, the routers trained once for all.

    python -m experiments.paper                     # the embedded simulated pool throughout
    python -m experiments.paper --data FOLDER       # FOLDER/routerdc (correctness) and
    FOLDER/routerbench (answers)

Table 2 and Figures 2, 5 and 8 need correctness alone and are made from RouterDC's files, the
paper's own pool. Table 1 and Figures 3, 6 and 7 need answers and are made from RouterBench. Each is
also a command of its own.
"""

import sys
import time

START = time.perf_counter()  # before the imports, which are part of what a user waits for

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any

import jax
from tqdm import tqdm

from experiments import (
    accuracy_table,
    ensemble_tradeoff,
    histograms,
    risk_table,
    selection_heatmap,
    set_size,
)
from racer_jax import reporting
from racer_jax.studies.benchmarks import EncoderName, StudyConfig, run_key, study
from racer_jax.studies.runner import Report, publish, set_up
from racer_jax.studies.vote_study import counted_votes

# What each corpus is for; in one folder, or the simulated pool for both.
CORRECTNESS, ANSWERS = "routerdc", "routerbench"


@dataclass(frozen=True)
class Config:
    """Options of the run."""

    data: Annotated[
        Path | None, "folder with routerdc/ and routerbench/; the simulated pool when not given"
    ] = None
    encoder: Annotated[EncoderName, "embeddings: hashed n-grams, MiniLM, or both side by side"] = (
        "hashed"
    )
    routers: Annotated[str, "routers, listed: knn, mlp, routerdc; prior joins them for votes"] = (
        "knn,mlp,routerdc"
    )
    queries: Annotated[int, "queries of each benchmark and part at most; 0 for all"] = 0
    risk_splits: Annotated[int, "random splits of Table 2 and of the histograms"] = 10_000
    splits: Annotated[int, "random splits of each training of the routers, for votes"] = 200
    repeats: Annotated[int, "trainings of the routers, for votes"] = 5
    seed: Annotated[int, "seed of everything"] = 0
    cache: Annotated[
        Path | None, "folder that keeps router scores, embeddings and compiled code between runs"
    ] = None
    output: Annotated[Path, "folder of the results, with a folder for each table or figure"] = Path(
        "results/paper"
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Reads the options, makes everything, prints and writes it; returns the exit status."""
    begin = START if arguments is None else time.perf_counter()
    config = reporting.parse_config(Config, "Every table and figure of the paper.", arguments)
    common = {
        name: getattr(config, name) for name in ("encoder", "routers", "queries", "seed", "cache")
    }
    correctness, answers = (
        None if config.data is None else config.data / part for part in (CORRECTNESS, ANSWERS)
    )

    def configured(module: ModuleType, data: Path | None, **options: Any) -> Any:
        return module.Config(
            data=data,
            output=config.output / module.__name__.split(".")[-1],
            **{**common, **options},
        )

    try:
        set_up(StudyConfig(**common))
        risks = (
            (risk_table, {"splits": config.risk_splits}),
            (histograms, {"splits": config.risk_splits}),
            (set_size, {}),
        )
        all_pass = True
        with tqdm(total=8, unit="part", disable=None) as bar:

            def done(module: ModuleType, settings: Any, result: Any, since: float) -> bool:
                summary: Report = module.report(settings, result)
                title = (module.__doc__ or "").partition("\n")[0]
                print(f"\n=== {title}\n")
                publish(settings, result, summary, time.perf_counter() - since)
                bar.update(1)
                return summary.passed

            benchmarks = study(StudyConfig(data=correctness, **common))
            bar.update(1)
            for module, options in risks:
                since, settings = time.perf_counter(), configured(module, correctness, **options)
                all_pass &= done(
                    module, settings, module.run(run_key(settings), benchmarks, settings), since
                )

            since = time.perf_counter()
            routers = ",".join(
                dict.fromkeys([*config.routers.replace(" ", "").split(","), "prior"])
            )
            voting = {"splits": config.splits, "repeats": config.repeats, "routers": routers}
            settings = configured(accuracy_table, answers, **voting)
            study_result = study(settings)
            votes = counted_votes(run_key(settings), study_result, settings, lambda _: None)
            bar.update(1)
            silent = [benchmark for benchmark in benchmarks if benchmark.test.answers is None]
            done(
                accuracy_table,
                settings,
                accuracy_table.tabulate(
                    jax.random.split(run_key(settings))[1],
                    votes,
                    [*study_result, *silent],
                    settings,
                ),
                since,
            )
            for module, result in (
                (ensemble_tradeoff, ensemble_tradeoff.trades(votes)),
                (selection_heatmap, selection_heatmap.choices(votes)),
            ):
                done(module, configured(module, answers, **voting), result, time.perf_counter())
    except (ValueError, ModuleNotFoundError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    wall, cpu = time.perf_counter() - begin, time.process_time()
    print(f"\nIn all {wall:.1f} s ({cpu:.1f} s of CPU time), from the import to the last file.")
    return 0 if all_pass else 1


if __name__ == "__main__":
    sys.exit(main())
