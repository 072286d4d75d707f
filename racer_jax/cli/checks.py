"""`bound-check` and `monitor`: is what was promised true, before and after deployment?"""

from __future__ import annotations

import argparse
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from racer_jax.cli.options import (
    Rows,
    Source,
    Subparsers,
    add_choosing,
    add_command,
    add_json,
    add_reading,
    add_unseen,
    labelled,
    open_input,
)
from racer_jax.cli.output import FAILED, check_file, flush, print_json, print_line
from racer_jax.cli.score_checks import (
    add_source,
    bound_check_without_artefact,
    check_source,
    print_checks,
)

if TYPE_CHECKING:
    from racer_jax.serving.feedback import Entries
    from racer_jax.serving.monitor import Monitor


def add(subparsers: Subparsers) -> None:
    """The commands of this module. Use this when the parser of all commands is built."""
    _add_bound_check(subparsers)
    _add_monitor(subparsers)


def _add_bound_check(subparsers: Subparsers) -> None:
    parser = add_command(
        subparsers,
        "bound-check",
        "Check the bounds on your own data: split it at random again and again, calibrate on one "
        "part, "
        "measure the other, and compare the mean risk with the promises and the exact law. Exit "
        "status 3 where it is off.",
        """
racer-jax bound-check my.racer test.csv --splits 10000
racer-jax bound-check my.racer test.csv --splits 0        the exact law in the place of splits
racer-jax bound-check --scores mine.npz                   scores and labels of your own router
racer-jax bound-check --scores mine.csv test.csv          the scores alone; labels of a table
racer-jax bound-check --table test.csv --loss regret      a stop learned from logged answers""",
    )
    parser.add_argument(
        "artefact", type=Path, nargs="?", metavar="ARTEFACT", help="folder of the artefact"
    )
    add_reading(parser, nargs="*")
    add_source(parser)
    parser.add_argument(
        "--alphas", default="0.05,0.1,0.2,0.3", help="risk levels (default: %(default)s)"
    )
    parser.add_argument(
        "--splits",
        type=int,
        default=2000,
        help="random splits of each group (default: %(default)s)",
    )
    parser.add_argument(
        "--calibration",
        type=float,
        default=0.5,
        help="share that calibrates (default: %(default)s)",
    )
    parser.add_argument(
        "--z",
        type=float,
        default=5.0,
        help="standard errors that fail a mean (default: %(default)s)",
    )
    add_unseen(parser)
    add_choosing(parser)
    add_json(parser)
    parser.set_defaults(run=bound_check)


def bound_check(arguments: argparse.Namespace) -> int:
    """`bound-check`.

    Use this when a command line asks whether the bounds hold on a table; in Python, `check_bounds`.
    """
    import jax
    import numpy as np
    from tqdm import tqdm

    from racer_jax.core.risk_levels import parse_alphas
    from racer_jax.montecarlo.bound_check import ScoredPool, check_bounds, check_bounds_exactly
    from racer_jax.racer.racer import Racer

    alphas = parse_alphas(arguments.alphas)
    check_source(arguments)
    if not 0 < arguments.calibration < 1:
        raise ValueError(f"--calibration must be a share in (0, 1), got {arguments.calibration}")
    if arguments.splits < 0 or not arguments.z > 0:
        raise ValueError("--splits must not be negative, and --z must be above 0")
    if arguments.table or arguments.scores is not None:
        return bound_check_without_artefact(arguments)
    racer = Racer.load(arguments.artefact)
    table, scores = labelled(Source.of(arguments), Rows.of(arguments), racer)
    model_scores = racer.score(table, scores)
    names = table.groups or ("all",)
    group = np.array(table.group if table.group is not None else ["all"] * len(table))
    checks = []
    with tqdm(total=arguments.splits * len(names), unit="split", disable=None, leave=False) as bar:
        for i, name in enumerate(names):
            rows = np.flatnonzero(group == name)
            check = check_bounds_exactly
            if arguments.splits:
                check = partial(check_bounds, num_splits=arguments.splits, progress=bar.update)
            checks.append(
                check(
                    jax.random.key(1000 * (arguments.seed or 0) + i),
                    ScoredPool(name, model_scores.scores[rows], table.correct[rows]),
                    racer.nonconformity,
                    num_calibration=round(arguments.calibration * len(rows)),
                    alphas=alphas,
                    z_limit=arguments.z,
                    null=racer.null,
                    tie_break=racer.seed is not None,
                    matrix=model_scores.nonconformity[rows],
                )
            )
    any_failure = any(verdict == "FAIL" for check in checks for verdict in check.verdict)
    print_checks(checks, alphas, arguments.json)
    return FAILED if any_failure else 0


def _add_monitor(subparsers: Subparsers) -> None:
    parser = add_command(
        subparsers,
        "monitor",
        "Test what was deployed, query by query. Is the risk still at most alpha (kind 'risk')? "
        "Feedback is lines of JSON with 'missed' (0 or 1), in the order it came. Have the queries "
        "changed (kind 'exchangeability')? That takes no labels: lines are decisions as 'route' "
        "writes them, whose best score counts, or objects with a 'number' of yours. The chance of "
        "a false alarm, EVER, is at most --level. The state is kept in a file, and no two "
        "monitors count into one state at once. A stream is counted line by line: an alarm is "
        "said when it comes, and the state on disk is at most a second or 1,000 lines behind. A "
        "file is counted whole or not at all. Lines with a 'position' that grows are counted once, "
        "however often they are sent. Exit status 3 once there is an alarm.",
        """
racer-jax monitor state.json --artefact my.racer --input feedback.jsonl
racer-jax monitor state.json --artefact my.racer --input feedback.jsonl --resume   new lines only
tail -f feedback.jsonl | racer-jax monitor state.json --alpha 0.1 --input -
racer-jax monitor drift.json --kind exchangeability --reference before.jsonl --input new.jsonl""",
        needs=("racer_jax.serving.feedback", "racer_jax.serving.state_file"),
    )
    parser.add_argument(
        "state", type=Path, metavar="STATE", help="file of the state; made if absent"
    )
    parser.add_argument(
        "--input",
        default="-",
        metavar="FILE",
        help="lines to read; - for the standard input (default: %(default)s)",
    )
    parser.add_argument(
        "--resume",
        action="store_true",
        help="the input is one file that grows: leave out the lines that this state has counted",
    )
    parser.add_argument(
        "--kind", choices=("risk", "exchangeability"), help="default: that of the state, else risk"
    )
    parser.add_argument(
        "--artefact", type=Path, metavar="ARTEFACT", help="risk: whose alpha was promised"
    )
    parser.add_argument("--alpha", help="risk: what was promised, where there is no artefact")
    parser.add_argument(
        "--reference",
        type=Path,
        metavar="FILE",
        help="exchangeability: lines like those to come, not among them, such as decisions on "
        "training questions; they say how finely numbers are distinguished, not what is normal: "
        "for that, give calibration queries first",
    )
    parser.add_argument("--level", type=float, help="chance of a false alarm (default: 0.05)")
    parser.add_argument(
        "--seed", type=int, help="exchangeability: breaks ties of numbers (default: 0)"
    )
    parser.add_argument(
        "--wait",
        type=float,
        default=60.0,
        metavar="SECONDS",
        help="how long to wait for another monitor of this state (default: %(default)g)",
    )
    add_json(parser)
    parser.set_defaults(run=monitor)


def monitor(arguments: argparse.Namespace) -> int:
    """`monitor`.

    Use this when a command line tests feedback for a change; in Python, `RiskMonitor` or
    `ExchangeabilityMonitor`.
    """
    from racer_jax.serving.feedback import Entries, MonitorOptions, open_monitor
    from racer_jax.serving.state_file import alone_with, is_regular, raising_when_terminated

    if not 0 <= arguments.wait < float("inf"):
        raise ValueError(f"--wait must be seconds, at least 0, got {arguments.wait}")
    names = ("kind", "level", "alpha", "artefact", "reference", "seed")
    options = MonitorOptions(**{name: getattr(arguments, name) for name in names})
    state: Path = arguments.state
    check_file(state)
    with (
        raising_when_terminated(),
        alone_with(state, arguments.wait),
        open_input(arguments.input) as file,
    ):
        start = open_monitor(state, options)
        entries = Entries(start, file, arguments.input, resume=arguments.resume)
        if is_regular(file) and not arguments.resume:
            end = _counted_whole(start, entries)
            end.save(state)
        else:
            end = _counted_live(start, entries, state, arguments.json)
        num_skipped = entries.skipped
    _print_monitor(end, arguments.json, num_skipped)
    return FAILED if end.alarm is not None else 0


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
    """A monitor in a line, of words or of JSON."""
    from racer_jax.serving.monitor import RiskMonitor

    if as_json:
        of_risk = ("alpha", "misses") if isinstance(monitor, RiskMonitor) else ()
        names = ("kind", "level", "num", "alarm", "evidence", *of_risk)
        counted_before = {"skipped": num_skipped} if num_skipped else {}
        print_json({name: getattr(monitor, name) for name in names} | counted_before)
        return
    if isinstance(monitor, RiskMonitor):
        share = f" ({monitor.misses / monitor.num:.3f})" if monitor.num else ""
        counts = f"{monitor.misses} missed{share}, alpha = {monitor.alpha}"
        against = "risk <= alpha"
    else:
        counts, against = "their numbers ranked", "exchangeable queries"
    alarm = "no alarm" if monitor.alarm is None else f"ALARM since query {monitor.alarm}"
    again = f"; {num_skipped} lines were counted before and left out" if num_skipped else ""
    print_line(
        f"{monitor.num} queries, {counts}: {alarm}; evidence {monitor.evidence:.3g} against "
        f"{against}, an alarm from {1 / monitor.level:g}{again}"
    )
