"""`bound-check` and `monitor`: is what was promised true, before and after deployment?"""

import argparse
from pathlib import Path

import jax
import numpy as np

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
from racer_jax.cli.output import FAILED, check_file, print_json, print_line
from racer_jax.core.risk_levels import parse_alphas
from racer_jax.racer.racer import Racer
from racer_jax.reporting.tables import text_table
from racer_jax.serving.monitor import RiskMonitor


def add(subparsers: Subparsers) -> None:
    """The commands of this module."""
    _add_bound_check(subparsers)
    _add_monitor(subparsers)


def _add_bound_check(subparsers: Subparsers) -> None:
    parser = add_command(
        subparsers,
        "bound-check",
        "Check the bounds on your own data: split it at random again and again, calibrate on one part, measure the "
        "other, and compare the mean risk with the promises and the exact law. Exit status 3 where it is off.",
        """
racer-jax bound-check my.racer test.csv --splits 10000
racer-jax bound-check my.racer test.csv --splits 0        the exact law in the place of splits""",
    )
    parser.add_argument("artefact", type=Path, metavar="ARTEFACT", help="folder of the artefact")
    add_reading(parser)
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


def bound_check(parsed: argparse.Namespace) -> int:
    """`bound-check`."""
    from tqdm import tqdm

    from racer_jax.montecarlo.bound_check import ScoredPool, check_bounds

    alphas = parse_alphas(parsed.alphas)
    if not 0 < parsed.calibration < 1:
        raise ValueError(f"--calibration must be a share in (0, 1), got {parsed.calibration}")
    if parsed.splits < 0 or not parsed.z > 0:
        raise ValueError("--splits must not be negative, and --z must be above 0")
    racer = Racer.load(parsed.artefact)
    table, scores = labelled(Source.of(parsed), Rows.of(parsed), racer)
    measured = racer.score(table, scores)
    names = table.groups or ("all",)
    group = np.array(table.group if table.group is not None else ["all"] * len(table))
    checks = []
    with tqdm(total=parsed.splits * len(names), unit="split", disable=None, leave=False) as bar:
        for i, name in enumerate(names):
            rows = np.flatnonzero(group == name)
            checks.append(
                check_bounds(
                    jax.random.key(1000 * (parsed.seed or 0) + i),
                    ScoredPool(name, measured.scores[rows], table.correct[rows]),
                    racer.nonconformity,
                    num_calibration=round(parsed.calibration * len(rows)),
                    alphas=alphas,
                    num_splits=parsed.splits,
                    z_limit=parsed.z,
                    null=racer.null,
                    tie_break=racer.seed is not None,
                    matrix=measured.nonconformity[rows],
                    progress=bar.update,
                )
            )
    failed = any(verdict == "FAIL" for check in checks for verdict in check.verdict)
    if parsed.json:
        print_json({"passed": not failed, "checks": checks})
    else:
        head = [
            "group",
            "n",
            "alpha",
            "risk",
            "exact",
            "at least",
            "at most",
            "size",
            "abstains",
            "verdict",
        ]
        rows_ = [
            [
                check.pool,
                str(check.num_calibration),
                alpha,
                *(
                    f"{column[i]:.4f}"
                    for column in (check.risk, check.exact, check.lower, check.upper)
                ),
                f"{check.size[i]:.2f}",
                f"{check.abstention[i]:.1%}",
                check.verdict[i] + (f" ({check.note[i]})" if check.note[i] else ""),
            ]
            for check in checks
            for i, alpha in enumerate(alphas)
        ]
        print_line(text_table(head, rows_))
    return FAILED if failed else 0


def _add_monitor(subparsers: Subparsers) -> None:
    parser = add_command(
        subparsers,
        "monitor",
        "Watch what was deployed. Is the risk still at most alpha (kind 'risk')? Feedback is lines of JSON with "
        "'missed' (0 or 1), in the order it came. Have the queries changed (kind 'exchangeability')? That takes no "
        "labels: lines are decisions as 'route' writes them, whose best score counts, or objects with a 'number' of "
        "yours. The chance of a false alarm, EVER, is at most --level. The state is kept in a file. Exit status 3 once "
        "there is an alarm.",
        """
racer-jax monitor state.json --artefact my.racer --input feedback.jsonl
tail -f feedback.jsonl | racer-jax monitor state.json --alpha 0.1 --input -
racer-jax monitor drift.json --kind exchangeability --reference before.jsonl --input decisions.jsonl""",
    )
    parser.add_argument(
        "state", type=Path, metavar="STATE", help="file of the state; made if absent"
    )
    parser.add_argument(
        "--input", default="-", metavar="FILE", help="lines to read; - for the standard input"
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
        help="exchangeability: lines like those to come, not among them, such as decisions on training questions; "
        "they say how finely numbers are told apart, not what is normal: for that, feed calibration queries first",
    )
    parser.add_argument("--level", type=float, help="chance of a false alarm (default: 0.05)")
    parser.add_argument(
        "--seed", type=int, help="exchangeability: breaks ties of numbers (default: 0)"
    )
    add_json(parser)
    parser.set_defaults(run=monitor)


def monitor(parsed: argparse.Namespace) -> int:
    """`monitor`."""
    from racer_jax.serving.feedback import Asked, open_monitor, read_for

    names = ("kind", "level", "alpha", "artefact", "reference", "seed")
    check_file(parsed.state)
    watch = open_monitor(parsed.state, Asked(**{name: getattr(parsed, name) for name in names}))
    with open_input(parsed.input) as file:
        watch = watch.update(read_for(watch, file, parsed.input))
    watch.save(parsed.state)
    if parsed.json:
        told = (
            "kind",
            "level",
            "num",
            "alarm",
            "evidence",
            *(("alpha", "misses") if isinstance(watch, RiskMonitor) else ()),
        )
        print_json({name: getattr(watch, name) for name in told})
    else:
        alarm = "no alarm" if watch.alarm is None else f"ALARM since query {watch.alarm}"
        if isinstance(watch, RiskMonitor):
            seen = f"{watch.misses} missed ({watch.misses / watch.num:.3f}), alpha = {watch.alpha}"
            against = "risk <= alpha"
        else:
            seen, against = "their numbers ranked", "exchangeable queries"
        print_line(
            f"{watch.num} queries, {seen}: {alarm}; evidence {watch.evidence:.3g} against {against}, an alarm from "
            f"{1 / watch.level:g}"
        )
    return FAILED if watch.alarm is not None else 0
