"""The shell around every study: options in, tables, pictures and files out; the study itself is free of all that."""

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

from racer_jax import reporting
from racer_jax.studies import runtime
from racer_jax.studies.benchmarks import SCORES, Benchmark, StudyConfig, run_key, study

C = TypeVar("C", bound=StudyConfig)
R = TypeVar("R")
Item = TypeVar("Item")
Progress = Callable[[int], object]


class Report(NamedTuple):
    """What a reader gets.

    Attributes:
      text: The tables and what to make of them.
      rows: The lines of `results.csv`.
      figures: Pictures by file name.
      passed: Whether every check of the study held; the exit status says so.
    """

    text: str
    rows: Sequence[Mapping[str, Any]]
    figures: Mapping[str, Figure]
    passed: bool = True


def side_by_side(function: Callable[[Item], R], items: Sequence[Item]) -> list[R]:
    """Results in the order of the items; each pool compiles anew, on one core, so that several use all cores."""
    with ThreadPoolExecutor(os.cpu_count() or 1) as threads:
        return list(threads.map(function, items))


def cells(benchmarks: Sequence[Benchmark]) -> list[tuple[int, Benchmark, str, str]]:
    """Number, benchmark, router and score of every cell of a table."""
    found = [
        (benchmark, router, score)
        for benchmark in benchmarks
        for router in benchmark.scores
        for score in SCORES
    ]
    return [(number, *cell) for number, cell in enumerate(found)]


def num_cells(config: StudyConfig, benchmarks: Sequence[Benchmark]) -> int:
    """How many `cells` there are."""
    return len(benchmarks) * len(config.router_names) * len(SCORES)


def publish(config: StudyConfig, result: Any, report: Report, seconds: float) -> None:
    """Prints the tables and writes pictures, `results.json` and `results.csv` into the folder `config.output`.

    Raises:
      SystemExit: If the results cannot be written.
    """
    print(report.text)  # noqa: T201 - what a command prints

    def write(folder: Path) -> None:
        described = {"config": config, "environment": reporting.environment(), "seconds": seconds}
        reporting.write_json(folder / "results.json", described | {"results": result})
        reporting.write_csv(folder / "results.csv", report.rows)
        (folder / "tables.txt").write_text(report.text + "\n", encoding="utf-8")
        for name, figure in report.figures.items():
            reporting.write_figure(folder / name, figure)

    folder = reporting.finish(write, config.output)  # type: ignore[attr-defined]
    names = ", ".join(str(path) for path in sorted(folder.iterdir()))
    print(f"\n{seconds:.1f} s. Written: {names}")  # noqa: T201


def set_up(config: StudyConfig) -> None:
    """Devices, and the cache of compiled code; what the encoder needs is asked for before any work.

    Raises:
      ModuleNotFoundError: If an extra is not installed that the options need.
    """
    if config.encoder != "hashed":
        from racer_jax.encoders.text import minilm_folder  # takes seconds to import

        minilm_folder()
    runtime.use_compilation_cache(None if config.cache is None else config.cache / "compiled")
    runtime.use_all_cores()


def run_experiment(
    config_class: type[C],
    description: str,
    run: Callable[[jax.Array, list[Benchmark], C, Progress], R],
    report: Callable[[C, R], Report],
    num_steps: Callable[[C, list[Benchmark]], int],
    arguments: Sequence[str] | None = None,
) -> int:
    """Reads the options, makes the study's benchmarks, runs it, prints and writes what it found.

    Args:
      config_class: The options, with a field `output`.
      description: What the command does.
      run: The experiment: key, benchmarks, options, and what to call with the number of steps done.
      report: What to make of its result.
      num_steps: Steps in all, for the progress bar.
      arguments: The command line; that of the process by default.

    Returns:
      The exit status: 0, 1 where a check of the experiment failed, 2 where the data or an option
      does not fit.

    Raises:
      SystemExit: If an argument is not what it should be, or the results cannot be written.
    """
    begin = time.perf_counter()
    config = reporting.parse_config(config_class, description, arguments)
    try:
        set_up(config)
        benchmarks = study(config)
        with tqdm(total=num_steps(config, benchmarks), unit="step", disable=None) as bar:
            result = run(run_key(config), benchmarks, config, bar.update)
        found = report(config, result)
    except (ValueError, ModuleNotFoundError) as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201
        return 2
    publish(config, result, found, time.perf_counter() - begin)
    return 0 if found.passed else 1
