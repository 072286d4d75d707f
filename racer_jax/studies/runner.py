"""What surrounds every study: it reads options, and prints tables and writes pictures and files.

The study itself does none of that.
"""

import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import jax
from matplotlib.figure import Figure
from tqdm import tqdm

import racer_jax.reporting as reporting
from racer_jax.studies import runtime
from racer_jax.studies.benchmarks import SCORES, Benchmark, StudyConfig, run_key, study

C = TypeVar("C")
D = TypeVar("D")
R = TypeVar("R")
Item = TypeVar("Item")
Progress = Callable[[int], object]


class Report(NamedTuple):
    """What a study prints and writes.

    Use this when you write a study of your own: `run_experiment` prints and writes its report.

    Attributes:
      text: The tables and their explanation.
      rows: The lines of `results.csv`.
      figures: Pictures by file name.
      passed: Whether every check of the study held; the exit status says so.
      details: What `results.json` holds beside the options and the environment; None for the whole
        result under the name `results`.
    """

    text: str
    rows: Sequence[Mapping[str, Any]]
    figures: Mapping[str, Figure]
    passed: bool = True
    details: Mapping[str, Any] | None = None


def side_by_side(function: Callable[[Item], R], items: Sequence[Item]) -> list[R]:
    """Results in the order of the items.

    Each pool is compiled on its own, on one core; several at the same time use all cores.

    Use this when cells are independent and there are several cores.
    """
    with ThreadPoolExecutor(os.cpu_count() or 1) as threads:
        return list(threads.map(function, items))


def cells(benchmarks: Sequence[Benchmark]) -> list[tuple[int, Benchmark, str, str]]:
    """Number, benchmark, router and score of every cell of a table.

    Use this when a table has a cell for each benchmark, router and score.
    """
    routers = [(benchmark, router) for benchmark in benchmarks for router in benchmark.scores]
    triples = [(*pair, score) for pair in routers for score in SCORES]
    return [(number, *cell) for number, cell in enumerate(triples)]


def num_cells(config: StudyConfig, benchmarks: Sequence[Benchmark]) -> int:
    """How many `cells` there are. Use this when progress is reported."""
    return len(benchmarks) * len(config.router_names) * len(SCORES)


def publish(config: Any, result: Any, report: Report, seconds: float) -> None:
    """Prints the tables and writes pictures and files into the folder `config.output`.

    The files are `results.json`, `results.csv` and `tables.txt`.

    Use this when an experiment is done.

    Raises:
      SystemExit: If the results cannot be written.
    """
    print(report.text)  # noqa: T201 - what a command prints
    details = {"results": result} if report.details is None else report.details

    def write(folder: Path) -> None:
        head = {"config": config, "environment": reporting.environment(), "seconds": seconds}
        reporting.write_json(folder / "results.json", head | dict(details))
        reporting.write_csv(folder / "results.csv", report.rows)
        (folder / "tables.txt").write_text(report.text + "\n", encoding="utf-8")
        for name, figure in report.figures.items():
            reporting.write_figure(folder / name, figure)

    folder = reporting.finish(write, config.output)
    names = ", ".join(str(path) for path in sorted(folder.iterdir()))
    print(f"\n{seconds:.1f} s. Written: {names}")  # noqa: T201


def set_up(config: StudyConfig) -> None:
    """Devices, and the cache of compiled code; what the encoder needs is asked for before any work.

    Use this when an experiment starts.

    Raises:
      ModuleNotFoundError: If an extra is not installed that the options need.
    """
    if config.encoder != "hashed":
        from racer_jax.encoders.text import minilm_folder  # takes seconds to import

        minilm_folder()
    runtime.use_compilation_cache(None if config.cache is None else config.cache / "compiled")
    runtime.use_all_cores()


def study_data(config: StudyConfig) -> tuple[jax.Array, list[Benchmark]]:
    """The key of an experiment's own draws, and the benchmarks that its options ask for.

    Use this when an experiment reads its data.
    """
    set_up(config)
    return run_key(config), study(config)


def run_experiment(
    config_class: type[C],
    description: str,
    run: Callable[[jax.Array, D, C, Progress], R],
    report: Callable[[C, R], Report],
    num_steps: Callable[[C, D], int],
    arguments: Sequence[str] | None = None,
    *,
    load: Callable[[C], tuple[jax.Array, D]],
) -> int:
    """Reads the options and the data, runs the experiment, prints and writes what it shows.

    Use this when an experiment has options, data, and results to look at: its own file then holds
    nothing but those.

    Args:
      config_class: The options, with a field `output`.
      description: What the command does.
      run: The experiment: key, data, options, and what to call with the number of steps done. It
        reads and writes nothing.
      report: What to make of its result.
      num_steps: Steps in all, for the progress bar.
      arguments: The command line; that of the process by default.
      load: The key of the run and the data, from the options; `study_data` for the paper's studies.

    Returns:
      The exit status: 0, 1 where a check of the experiment failed, 2 where the data or an option
      does not fit.

    Raises:
      SystemExit: If an argument is not what it should be, or the results cannot be written.
    """
    begin = time.perf_counter()
    config = reporting.parse_config(config_class, description, arguments)
    try:
        key, data = load(config)
        with tqdm(total=num_steps(config, data), unit="step", disable=None) as bar:
            result = run(key, data, config, bar.update)
        summary = report(config, result)
    except (ValueError, ModuleNotFoundError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201
        return 2
    publish(config, result, summary, time.perf_counter() - begin)
    return 0 if summary.passed else 1
