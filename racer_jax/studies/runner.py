"""What surrounds every study: it reads options, and prints tables and writes figures and files.

The study itself does none of that. This module imports little, so that a command starts at once.
"""

import atexit
import dataclasses
import gc
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from importlib import import_module
from math import isnan
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeVar

import jax
from tqdm import tqdm

import racer_jax.reporting as reporting
from racer_jax._files import written_whole
from racer_jax._memory import forgotten, give_back
from racer_jax.data.errors import DataError
from racer_jax.studies import runtime

if TYPE_CHECKING:
    from matplotlib.figure import Figure

C = TypeVar("C")
D = TypeVar("D")
R = TypeVar("R")
Item = TypeVar("Item")
Progress = Callable[[int], object]


class Drawer(Protocol):
    """Draws a figure; one of `racer_jax.plotting` with all but its width bound.

    It is called with `width`, inches or None, and gives the figure.

    Use this when you annotate a figure of a report.
    """

    def __call__(self, *, width: float | None) -> "Figure":
        """The figure, so many inches wide. Use this when it is drawn."""


class Report(NamedTuple):
    """What a study prints and writes.

    Use this when you write a study of your own: `run_experiment` prints and writes its report.

    Attributes:
      text: The tables and their explanation.
      rows: The lines of `results.csv`.
      figures: How each figure is drawn, by file name without its format.
      passed: Whether every check of the study held; the exit status says so.
    """

    text: str
    rows: Sequence[Mapping[str, Any]]
    figures: Mapping[str, Drawer]
    passed: bool = True


def side_by_side(function: Callable[[Item], R], items: Sequence[Item]) -> list[R]:
    """Results in the order of the items.

    Each pool is compiled on its own, on one core; several at the same time use all cores.

    Use this when cells are independent and there are several cores.
    """
    with ThreadPoolExecutor(os.cpu_count() or 1) as threads:
        return list(threads.map(function, items))


def draw(
    folder: Path, figures: Mapping[str, Drawer], drawing: reporting.DrawingOptions
) -> list[Path]:
    """Writes every figure in every format, and returns their files.

    Use this when a report has figures.
    """
    files = [folder / f"{name}.{kind}" for name in figures for kind in drawing.formats]
    packed: list[Future[None]] = []
    with ThreadPoolExecutor(1) as beside:  # packs a picture while the next one is drawn
        for name, drawer in figures.items():
            with forgotten():  # a figure refers to itself: ten megabytes until they are looked for
                figure = drawer(width=drawing.inches)
                for kind in drawing.formats:
                    reporting.write_figure(
                        folder / f"{name}.{kind}",
                        figure,
                        lambda write: packed.append(beside.submit(write)),
                    )
                del figure
    for writing in packed:
        writing.result()  # an error of the disk is one of this command
    return files


def publish(
    config: Any,
    result: Any,
    report: Report,
    begin: float,
    drawing: reporting.DrawingOptions | None = None,
) -> None:
    """Prints the tables and writes figures and files into the folder `config.output`.

    The files are `results.json`, with the rows and all that the figures need, `results.csv` with
    the same rows, and `tables.txt`.

    Use this when an experiment is done.

    Args:
      config: Its options, with a field `output`.
      result: Its result.
      report: What to make of the result.
      begin: `time.perf_counter()` when it began.
      drawing: Formats and width of the figures; PNG by default.

    Raises:
      SystemExit: If the results cannot be written.
    """
    print(report.text)  # noqa: T201 - what a command prints
    drawing = reporting.DrawingOptions() if drawing is None else drawing

    def write(folder: Path) -> None:
        record = {
            "config": config,
            "environment": reporting.environment(),
            "seconds": time.perf_counter() - begin,
            "rows": [_known(row) for row in report.rows],
            "results": result,
        }
        reporting.write_json(folder / "results.json", record)
        reporting.write_csv(folder / "results.csv", report.rows)
        with written_whole(folder / "tables.txt") as temporary:
            temporary.write_text(report.text + "\n", encoding="utf-8")
        draw(folder, report.figures, drawing)

    folder = reporting.finish(write, config.output)
    names = ", ".join(str(path) for path in sorted(folder.iterdir()))
    print(f"\nIn all {time.perf_counter() - begin:.1f} s. Written: {names}")  # noqa: T201


def _known(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row with null for numbers that are not known, as other programs read it."""
    unknown = {name for name, value in row.items() if isinstance(value, float) and isnan(value)}
    return {name: None if name in unknown else value for name, value in row.items()}


def redraw(
    config_class: type[C],
    run: Callable[..., Any],
    report: Callable[[C, Any], Report],
    drawing: reporting.DrawingOptions,
    folder: Path,
    output: Path | None = None,
) -> None:
    """Draws the figures of an earlier run from its `results.json`; nothing is computed.

    Use this when figures are wanted in another format or width.

    Args:
      config_class: The options of the experiment.
      run: The experiment; what it is annotated to return is what the file holds.
      report: What to make of its result.
      drawing: Formats and width of the figures.
      folder: The results of the earlier run.
      output: Where the figures go; into `folder` by default.

    Raises:
      ValueError: If there is no `results.json`, or it is that of another experiment or version.
      SystemExit: If the figures cannot be written.
    """
    path = folder / "results.json"
    record = reporting.read_results(path)
    try:
        config = reporting.as_typed(config_class, record["config"])
        result = reporting.as_typed(run.__annotations__["return"], record["results"])
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path}: not of this experiment ({error})") from None
    figures = report(config, result).figures
    if not figures:
        raise ValueError(f"{path}: this run has no figures")
    files: list[Path] = []
    reporting.finish(lambda into: files.extend(draw(into, figures, drawing)), output or folder)
    print(f"Drawn again: {', '.join(map(str, files))}")  # noqa: T201


def options_beside_redraw(named: frozenset[str]) -> str:
    """What is wrong with options that `--redraw` cannot heed; empty where nothing is.

    Use this when a command takes `--redraw`.
    """
    heeded = {field.replace("_", "-") for field in ("figures", "width", "redraw", "output")}
    others = sorted({name.replace("_", "-") for name in named} - heeded)
    if not others:
        return ""
    return f"--redraw computes nothing: leave out {', '.join(f'--{name}' for name in others)}"


def error_text(error: Exception, config: Any = None) -> str:
    """An error as a command of a clone prints it, in the words of the shell.

    What a reader could be passed is an option of the command, goes into its `--reading`, or is for
    `racer-jax data convert`, which writes a table that needs no options.

    Use this when an experiment ends with an error of the data, of an option or of an extra.

    Args:
      error: What was raised.
      config: The options of the command, a dataclass; None where they cannot be passed on.
    """
    if not isinstance(error, DataError):
        return str(error) if config is None else reporting.with_flags(str(error), config)
    names = {name for name, _ in error.remedy.options} if error.remedy is not None else set()
    if error.format is not None:
        names.add("format")
    fields = set() if config is None else {field.name for field in dataclasses.fields(config)}
    text = error.in_shell()
    if "reading" in fields:
        advice = ". Options of the reader go into --reading '--name value ...'"
        return text + advice if names else text
    if names - fields - {"path"}:
        text += (
            ". What this command has no option for is typed once, to write a table: racer-jax data "
            "convert PATH table.npz OPTIONS; then --data table.npz"
        )
    return text


def run_experiment(
    config_class: type[C],
    description: str,
    run: Callable[[jax.Array, D, C, Progress], R],
    report: Callable[[C, R], Report],
    num_steps: Callable[[C, D], int],
    arguments: Sequence[str] | None = None,
    *,
    load: Callable[[C], tuple[jax.Array, D]],
    unit: str = "step",
    begin: float | None = None,
    script: str | None = None,
) -> int:
    """Reads the options and the data, runs the experiment, prints and writes what it shows.

    Every experiment has the options of `DrawingOptions` beside its own.

    Use this when an experiment has options, data, and results to look at: its own file then holds
    nothing but those.

    Args:
      config_class: The options, with a field `output`.
      description: What the command does.
      run: The experiment: key, data, options, and what to call with the number of steps done. It
        reads and writes nothing; what it is annotated to return can be read back from JSON.
      report: What to make of its result.
      num_steps: Steps in all, for the progress bar.
      arguments: The command line; that of the process by default.
      load: The key of the run and the data, from the options; `study_data` for the paper's studies.
      unit: What a step is called in the progress bar.
      begin: `time.perf_counter()` at the start of the process, where the imports count too.
      script: The file of the command, where its options have `processes`: it is started again in
        each of them.

    Returns:
      The exit status: 0, 1 where a check of the experiment failed, 2 where the data or an option
      does not fit.

    Raises:
      SystemExit: If an argument is not what it should be, or the results cannot be written.
    """
    begin = time.perf_counter() if begin is None else begin
    # What is left then ends with the process: Python would look through it for garbage, for a tenth
    # of a second where Matplotlib was imported.
    atexit.register(gc.freeze)
    arguments = sys.argv[1:] if arguments is None else arguments
    classes = (config_class, reporting.DrawingOptions)
    (config, drawing), named = reporting.parse_configs(classes, description, arguments)
    try:
        if drawing.redraw is not None:
            if problem := options_beside_redraw(named):
                raise ValueError(problem)
            output = config.output if "output" in named else None
            redraw(config_class, run, report, drawing, drawing.redraw, output)
            return 0
        if script is not None and config.processes > 1 and not runtime.launched():
            return runtime.launch(script, arguments, config.processes)
        key, data = load(config)
        total = num_steps(config, data)
        # None: no bar where there is no terminal.
        quiet = None if runtime.speaks() and total else True
        with (
            ThreadPoolExecutor(1) as beside,
            tqdm(total=total, unit=unit, unit_scale=total > 999, disable=quiet) as bar,
        ):
            if runtime.speaks():  # Matplotlib takes long to import: while the first code compiles
                beside.submit(import_module, "racer_jax.plotting.risk")
            result = run(key, data, config, bar.update)
        give_back()  # what the run freed is there for the figures, and not beside them
        summary = report(config, result)
    except (ValueError, ImportError, OSError) as error:
        print(f"error: {error_text(error, config)}", file=sys.stderr)  # noqa: T201
        return 2
    if runtime.speaks():
        publish(config, result, summary, begin, drawing)
    return 0 if summary.passed else 1
