"""`monitor`: is what was promised still true after deployment?"""

from __future__ import annotations

import argparse
import os
import stat
import sys
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from racer_jax.cli.before import check_artefact_read, check_levels, check_lines
from racer_jax.cli.inputs import open_input
from racer_jax.cli.options import (
    Source,
    Subparsers,
    add_command,
    add_json,
    add_reading_options,
    as_seed,
)
from racer_jax.cli.output import FAILED, flush, print_json, print_line, print_notes
from racer_jax.cli.places import check_file
from racer_jax.cli.reading import read_with
from racer_jax.data.errors import DataError

if TYPE_CHECKING:
    from racer_jax.data.table import RoutingTable
    from racer_jax.serving.feedback import Entries, MonitorOptions
    from racer_jax.serving.misses import LabelledFeedback
    from racer_jax.serving.monitor import Monitor

# What is counted, and what to do with a table of labels.
_LINES = 'JSON such as {"missed": 0}, or a number for each query'
_INSTEAD = "; for a table of labels give --decisions FILE --labels TABLE in place of --input"
# What is typed for a monitor that counts, and says nothing where nothing is counted.
_OF_COUNTING = ("kind", "level", "alpha", "artefact", "reference", "seed")


def add(subparsers: Subparsers) -> None:
    """The command of this module. Use this when the parser of all commands is built."""
    parser = add_command(
        subparsers,
        "monitor",
        "Test, query by query, whether the promise still holds. Kind 'risk' tests whether the risk "
        "is at most alpha. It reads lines of JSON with 'missed' (0 or 1), in the order they came, "
        "or computes misses from --decisions and --labels. Kind 'exchangeability' tests whether "
        "the queries have changed, and needs no labels: it reads decisions as 'route' writes "
        "them, whose best score counts, or objects with a 'number' of yours. The chance that a "
        "false alarm EVER happens is at most --level; after an alarm the exit status is 3. The "
        "state is kept in the file STATE, which one monitor at a time can use; STATE alone shows "
        "what it holds. A file is counted whole or not at all. A stream is counted line by line: "
        "an alarm is printed when it comes, and the state on disk is at most a second or 1,000 "
        "lines behind. Lines with a 'position' that grows are counted once, however often they "
        "are sent.",
        """
racer-jax monitor state.json --artefact my.racer --input feedback.jsonl
racer-jax monitor state.json                              what the state holds; nothing is counted
racer-jax monitor --decisions decisions.jsonl --labels labels.csv
racer-jax monitor state.json --artefact my.racer --input feedback.jsonl --resume   new lines only
tail -f feedback.jsonl | racer-jax monitor state.json --alpha 0.1 --input -
racer-jax monitor drift.json --kind exchangeability --reference before.jsonl --input new.jsonl""",
        check=_check,
        needs=("racer_jax.serving.feedback", "racer_jax.serving.state_file"),
        reads=_read_labels,
    )
    parser.add_argument(
        "state",
        nargs="?",
        type=Path,
        metavar="STATE",
        help="file of the state; made if absent. With --decisions it may be left out: then all of "
        "them are counted, and nothing is saved",
    )
    parser.add_argument(
        "--input",
        metavar="FILE",
        help="lines to count; - for the standard input (default: none, the state is shown)",
    )
    parser.add_argument(
        "--decisions",
        type=Path,
        metavar="FILE",
        help="risk: lines that 'route' wrote, each with an 'id'; needs --labels (default: none)",
    )
    parser.add_argument(
        "--labels",
        type=Path,
        metavar="TABLE",
        help="risk: which model was right on which query, any file that 'data summary' reads; "
        "matched by id or text. A miss is what the promise of --artefact says; without it, a query "
        "that some model could answer and no called one did (default: none)",
    )
    parser.add_argument(
        "--resume",
        action="store_true",
        help="the input is one file that grows: leave out the lines that this state has counted",
    )
    parser.add_argument(
        "--kind",
        choices=("risk", "exchangeability"),
        help="what is tested (default: that of the state, else risk)",
    )
    parser.add_argument(
        "--artefact",
        type=Path,
        metavar="ARTEFACT",
        help="risk: the artefact whose alpha was promised (default: none, --alpha says it)",
    )
    parser.add_argument(
        "--alpha",
        help="risk: what was promised, where no artefact is named (default: that of the state or "
        "of the decisions)",
    )
    parser.add_argument(
        "--reference",
        type=Path,
        metavar="FILE",
        help="exchangeability: decisions that are not counted, such as those on training "
        "questions: they set the scale on which numbers are compared. What is normal is learned "
        "from the first lines that are counted: let these be calibration queries (default: that of "
        "the state)",
    )
    parser.add_argument(
        "--level",
        type=float,
        help="false-alarm chance: that an alarm ever comes although the risk is at most alpha, or "
        "the numbers are as before (default: 0.05); not --alpha, the risk that was promised",
    )
    parser.add_argument(
        "--seed", type=as_seed, help="exchangeability: breaks ties of numbers (default: 0)"
    )
    parser.add_argument(
        "--wait",
        type=float,
        default=60.0,
        metavar="SECONDS",
        help="how long to wait for another monitor of this state (default: %(default)g)",
    )
    add_json(parser)
    add_reading_options(parser, "how --labels is read", seed=False)
    parser.set_defaults(run=monitor)


def _check(arguments: argparse.Namespace) -> None:
    """What can be said before anything is read."""
    if not 0 <= arguments.wait < float("inf"):
        raise ValueError(f"--wait must be seconds, at least 0, got {arguments.wait}")
    if (arguments.decisions is None) != (arguments.labels is None):
        raise ValueError("--decisions and --labels go together: give both")
    if arguments.decisions is not None and (arguments.input is not None or arguments.resume):
        raise ValueError("--decisions counts a file of its own: leave out --input and --resume")
    if arguments.labels is None:
        Source.of(arguments, ()).only_with("--labels")
    if arguments.decisions is not None and arguments.kind not in (None, "risk"):
        raise ValueError("--decisions and --labels are for monitors of kind 'risk'")
    if arguments.decisions is None and arguments.state is None:
        raise ValueError("name the file of the state, or --decisions and --labels")
    check_levels(arguments.alpha, level=arguments.level)
    for name in (arguments.input, arguments.decisions, arguments.labels, arguments.reference):
        check_lines(name)
    if arguments.artefact is not None:
        check_artefact_read(arguments.artefact)


def _read_labels(arguments: argparse.Namespace) -> RoutingTable | None:
    """The table of labels, what is missing in it marked; None where none is named."""

    def read(source: Source) -> RoutingTable:
        try:
            return replace(source, options={"missing": "keep", **source.options}).table()
        except DataError as error:
            if "missing" in source.options or "missing" not in str(error):
                raise
            return source.table()  # a format in which nothing can be missing

    if arguments.labels is None:
        return None
    return read_with(arguments, read, paths=[arguments.labels])


def monitor(arguments: argparse.Namespace) -> int:
    """`monitor`.

    Use this when a command line tests feedback for a change; in Python, `RiskMonitor` or
    `ExchangeabilityMonitor`.
    """
    from racer_jax.serving.feedback import MonitorOptions

    options = MonitorOptions(**{name: getattr(arguments, name) for name in _OF_COUNTING})
    if arguments.decisions is not None:
        return _monitor_decisions(arguments, options)
    if arguments.input is None:
        return _show(arguments)
    return _monitor_input(arguments, options)


def _show(arguments: argparse.Namespace) -> int:
    """The state as it is; nothing is counted.

    Raises:
      ValueError: If an option says what is to be counted.
    """
    from racer_jax.serving.monitor import load_monitor

    typed = [name for name in _OF_COUNTING if getattr(arguments, name) is not None]
    if arguments.resume or typed or not arguments.state.exists():
        problem = "a new monitor" if not arguments.state.exists() else f"--{(*typed, 'resume')[0]}"
        raise ValueError(
            f"{arguments.state}: {problem} needs lines to count: give --input FILE (- for the "
            "standard input), or --decisions and --labels"
        )
    if _is_fed():
        print_notes(["the standard input was not read: give --input - to count its lines"])
    state = load_monitor(arguments.state)
    _print_monitor(state, arguments.json)
    return FAILED if state.alarm is not None else 0


def _is_fed() -> bool:
    """Whether a pipe or a file stands at the standard input."""
    with suppress(OSError, ValueError, AttributeError):
        mode = os.fstat(sys.stdin.fileno()).st_mode
        return stat.S_ISFIFO(mode) or stat.S_ISREG(mode)
    return False


def _monitor_input(arguments: argparse.Namespace, options: MonitorOptions) -> int:
    """Counts the lines of a file or a pipe."""
    from racer_jax.serving.feedback import Entries, open_monitor
    from racer_jax.serving.state_file import alone_with, is_regular, raising_when_terminated

    state: Path = arguments.state
    check_file(state)
    with (
        raising_when_terminated(),
        alone_with(state, arguments.wait),
        open_input(arguments.input, _LINES, _INSTEAD) as file,
    ):
        start = open_monitor(state, options)
        name = "standard input" if arguments.input == "-" else arguments.input
        entries = Entries(start, file, name, resume=arguments.resume)
        if is_regular(file) and not arguments.resume:
            end = _counted_whole(start, entries)
            end.save(state)
        else:
            end = _counted_live(start, entries, state, arguments.json)
        num_skipped = entries.skipped
    if entries.num_errors:
        print_notes([f"{entries.num_errors:,} lines with an 'error' and no decision left out"])
    _print_monitor(end, arguments.json, num_skipped)
    return FAILED if end.alarm is not None else 0


def _monitor_decisions(arguments: argparse.Namespace, options: MonitorOptions) -> int:
    """Counts the misses of decisions whose labels came later."""
    from racer_jax.serving.feedback import Entries, open_monitor
    from racer_jax.serving.state_file import alone_with, raising_when_terminated

    feedback = _feedback(arguments)
    if options.alpha is None and options.artefact is None:
        options = replace(options, alpha=feedback.alpha)
    name, num_skipped = str(arguments.decisions), 0
    if arguments.state is None:
        start = open_monitor(None, options)
        end = _counted_whole(start, Entries(start, feedback.lines, name))
    else:
        check_file(arguments.state)
        with raising_when_terminated(), alone_with(arguments.state, arguments.wait):
            start = open_monitor(arguments.state, options)
            entries = Entries(start, feedback.lines, name)
            end = _counted_whole(start, entries)
            end.save(arguments.state)
            num_skipped = entries.skipped
    print_notes(feedback.notes())
    _print_monitor(end, arguments.json, num_skipped)
    return FAILED if end.alarm is not None else 0


def _feedback(arguments: argparse.Namespace) -> LabelledFeedback:
    """The misses that the decisions and the labels give.

    Raises:
      DataError: If the decisions are of another alpha than the artefact or --alpha.
    """
    from racer_jax.core.risk_levels import exact_alpha
    from racer_jax.racer.racer import Racer
    from racer_jax.serving.misses import labelled_feedback

    racer = None if arguments.artefact is None else Racer.load(arguments.artefact)
    with open_input(str(arguments.decisions), "JSON that 'route' wrote") as file:
        feedback = labelled_feedback(file, str(arguments.decisions), arguments.read, racer)
    promised = arguments.alpha
    if racer is not None and racer.calibration is not None:
        promised = racer.calibration.alpha
    if promised is not None and exact_alpha(promised) != exact_alpha(feedback.alpha):
        raise DataError(
            f"holds decisions at alpha = {feedback.alpha}, and alpha = {promised} is to be tested",
            path=arguments.decisions,
        )
    return feedback


def _counted_whole(monitor: Monitor, entries: Entries) -> Monitor:
    """All entries at once, to be saved at the end: all of them or none."""
    end = monitor.update(entry.value for entry in entries)
    return replace(end, position=entries.position)


def _counted_live(monitor: Monitor, entries: Entries, state: Path, as_json: bool) -> Monitor:
    """Entries as they come; the state is saved on the way, and an alarm said when it comes."""
    from racer_jax.serving.feedback import count
    from racer_jax.serving.state_file import StateKeeper

    with StateKeeper(state, monitor) as keeper:
        for entry in entries:
            before, after = keeper.monitor, count(keeper.monitor, entry)
            keeper.count(after)
            if before.alarm is None and after.alarm is not None:
                keeper.save()
                _print_monitor(after, as_json)
                flush()
        return keeper.monitor


def _print_monitor(monitor: Monitor, as_json: bool, num_skipped: int = 0) -> None:
    """A monitor in words or as a line of JSON."""
    from racer_jax.serving.monitor import RiskMonitor

    if not as_json:
        print_line("\n".join(monitor_lines(monitor, num_skipped)))
        return
    of_risk = ("alpha", "misses") if isinstance(monitor, RiskMonitor) else ()
    names = ("kind", "level", "num", "alarm", "evidence", *of_risk)
    counted_before = {"skipped": num_skipped} if num_skipped else {}
    print_json({name: getattr(monitor, name) for name in names} | counted_before)


def monitor_lines(monitor: Monitor, num_skipped: int = 0) -> Iterable[str]:
    """What a monitor says to a person: whether there is an alarm and what to do, and the figures.

    Use this when a monitor is printed.

    Args:
      monitor: The monitor.
      num_skipped: Lines that were left out, since they were counted before.
    """
    from racer_jax.serving.monitor import RiskMonitor

    if isinstance(monitor, RiskMonitor):
        problem = f"the risk is above the promised alpha = {monitor.alpha}"
        remedy = "label some queries of now, then racer-jax calibrate ARTEFACT TABLE "
        remedy += f"--alpha {monitor.alpha}"
        calm = f"nothing says that the risk is above alpha = {monitor.alpha}"
        share = f" ({monitor.misses / monitor.num:.3f})" if monitor.num else ""
        counted = f"{monitor.num:,} queries counted, {monitor.misses:,} missed{share}"
    else:
        problem = "the questions have changed"
        calm = f"nothing says that {problem}"
        remedy = "label some queries of now, then racer-jax calibrate ARTEFACT TABLE --alpha ALPHA"
        counted = f"{monitor.num:,} queries counted"
    if monitor.alarm is None:
        yield f"No alarm: {calm}."
    else:
        yield f"ALARM at query {monitor.alarm}: {problem}. Recalibrate: {remedy}"
    again = f" {num_skipped:,} lines were counted before and left out." if num_skipped else ""
    yield (
        f"{counted}. Evidence {monitor.evidence:.3g}; the alarm comes at {1 / monitor.level:g}, "
        f"which chance alone ever reaches with probability {monitor.level:g} at most.{again}"
    )
