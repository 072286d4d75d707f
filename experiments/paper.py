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
from racer_jax.studies.paper_data import set_up
from racer_jax.studies.runner import (
    Report,
    error_text,
    options_beside_redraw,
    publish,
    redraw,
)
from racer_jax.studies.vote_study import counted_votes

# What each corpus is for; in one folder, or the simulated pool for both.
CORRECTNESS, ANSWERS = "routerdc", "routerbench"
OF_CORRECTNESS = (risk_table, histograms, set_size)
OF_ANSWERS = (accuracy_table, ensemble_tradeoff, selection_heatmap)


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


def draw_again(config: Config, drawing: reporting.DrawingOptions, named: frozenset[str]) -> None:
    """Draws every figure of an earlier run again, in the folder of each or below `--output`."""
    if problem := options_beside_redraw(named):
        raise ValueError(problem)
    assert drawing.redraw is not None
    for module in (*OF_CORRECTNESS, *OF_ANSWERS):
        name = module.__name__.split(".")[-1]
        output = config.output / name if "output" in named else None
        redraw(module.Config, module.run, module.report, drawing, drawing.redraw / name, output)


def main(arguments: Sequence[str] | None = None) -> int:
    """Reads the options, makes everything, prints and writes it; returns the exit status."""
    begin = START if arguments is None else time.perf_counter()
    (config, drawing), named = reporting.parse_configs(
        (Config, reporting.DrawingOptions), "Every table and figure of the paper.", arguments
    )
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
        if drawing.redraw is not None:
            draw_again(config, drawing, named)
            return 0
        set_up(StudyConfig(**common))
        splits_of_risk = {"splits": config.risk_splits}
        risks = zip(OF_CORRECTNESS, (splits_of_risk, splits_of_risk, {}), strict=True)
        all_pass = True
        with tqdm(total=8, unit="part", disable=None) as bar:

            def done(module: ModuleType, settings: Any, result: Any, since: float) -> bool:
                summary: Report = module.report(settings, result)
                title = (module.__doc__ or "").partition("\n")[0]
                print(f"\n=== {title}\n")
                publish(settings, result, summary, since, drawing)
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
    except (ValueError, ImportError, OSError) as error:
        print(f"error: {error_text(error, config)}", file=sys.stderr)
        return 2
    wall, cpu = time.perf_counter() - begin, time.process_time()
    print(f"\nIn all {wall:.1f} s ({cpu:.1f} s of CPU time), from the import to the last file.")
    return 0 if all_pass else 1


if __name__ == "__main__":
    sys.exit(main())
