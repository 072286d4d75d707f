"""`cascade evaluate`, `cascade report` and `cascade route`: a cascade is measured and used."""

from __future__ import annotations

import argparse
import sys
from dataclasses import asdict
from pathlib import Path

from racer_jax.cli.before import (
    check_artefact_read,
    check_calibrated,
    check_levels,
    check_lines,
    check_stop_levels,
)
from racer_jax.cli.cascade_tables import answered_rows
from racer_jax.cli.inputs import open_input
from racer_jax.cli.measuring import (
    add_evaluating,
    add_reporting,
    check_evaluating,
    check_measured,
    check_reporting,
)
from racer_jax.cli.options import (
    Subparsers,
    add_command,
)
from racer_jax.cli.output import (
    flush,
    print_json,
    print_json_text,
    print_line,
)
from racer_jax.cli.reading import read_of_cascade
from racer_jax.cli.work_bar import work_bar


def add(subparsers: Subparsers) -> None:
    """The commands of this module. Use this when the commands of `cascade` are added."""
    _add_evaluate(subparsers)
    _add_report(subparsers)
    _add_route(subparsers)


def _add_evaluate(subparsers: Subparsers) -> None:
    parser = add_command(
        subparsers,
        "evaluate",
        "Measure calls, dollars, accuracy and risk on logged answers, and why it stopped. The "
        "first level, alpha = 0, stops only where no answer to come can change the vote.",
        "racer-jax cascade evaluate my.cascade logs/ --unseen --alphas 0.005,0.01,0.02",
        check=_check_evaluate,
        reads=read_of_cascade,
    )
    add_evaluating(parser, "levels to measure at (default: the artefact's)")
    parser.set_defaults(run=evaluate)


def _check_evaluate(arguments: argparse.Namespace) -> None:
    """What can be said before anything is computed."""
    check_evaluating(arguments, "cascade")


def evaluate(arguments: argparse.Namespace) -> None:
    """`cascade evaluate`.

    Use this when a command line asks what a cascade costs and risks; in Python, `Cascade.evaluate`.
    """
    from racer_jax.core.risk_levels import parse_alphas
    from racer_jax.reporting.files import write_json
    from racer_jax.sequential.evaluation import legend
    from racer_jax.serving.cascade import Cascade

    alphas = None if arguments.alphas is None else parse_alphas(arguments.alphas)
    cascade = Cascade.load(arguments.artefact)
    with work_bar("choose the questions", "measure") as bar:
        table = answered_rows(arguments, cascade)
        bar.next()
        evaluations = cascade.evaluate(table, alphas)
    levels = [asdict(one) for one in evaluations]
    notes = [*cascade.notes, *table.notes]
    figures = {"guarantee": cascade.guarantee(), "notes": notes, "levels": levels}
    if arguments.output is not None:
        write_json(arguments.output, figures)
    if arguments.json:
        print_json(figures)
        return
    for one in evaluations:
        print_line(str(one))
    print_line(f"\n{legend(evaluations)}\n\n{cascade.guarantee()}")


def _add_report(subparsers: Subparsers) -> None:
    parser = add_command(
        subparsers,
        "report",
        "Write one HTML page: calls, dollars and accuracy against alpha, after how many calls it "
        "stops, and why.",
        "racer-jax cascade report my.cascade --data logs/ --unseen --output report.html",
        check=_check_report,
        reads=read_of_cascade,
    )
    levels = "levels of the slider: 0.01,0.02 or first:last:step (default: ten levels)"
    add_reporting(parser, levels, "a general one")
    parser.set_defaults(run=report)


def _check_report(arguments: argparse.Namespace) -> None:
    """What can be said before anything is computed."""
    check_reporting(arguments)
    check_measured(arguments, "cascade")


def report(arguments: argparse.Namespace) -> None:
    """`cascade report`, and `report` of a cascade's artefact.

    Use this when a command line asks for a page of a cascade alone; in Python,
    `write_cascade_report`.
    """
    from racer_jax.serving.cascade import Cascade
    from racer_jax.serving.cascade_report import TITLE, write_cascade_report

    cascade = Cascade.load(arguments.artefact)
    title = arguments.title or TITLE
    with work_bar("choose the questions", "measure and write the page") as bar:
        table = answered_rows(arguments, cascade)
        bar.next()
        write_cascade_report(cascade, table, arguments.output, arguments.alphas, title=title)
    if arguments.json:
        print_json({"report": arguments.output, "notes": table.notes})
    else:
        print_line(f"{arguments.output}: open it in a browser")


def _add_route(subparsers: Subparsers) -> None:
    parser = add_command(
        subparsers,
        "route",
        'Route queries one model at a time: lines of JSON are read and written. A line {"id": '
        '"q1", "text": "..."} asks whom to call; a line {"id": "q1", "answers": {"model": "text", '
        '"other": null}} brings the answers of models, null for none. What is written names the '
        "models to call next, or the answer and why it is final, with the number of calls so far "
        "and their cost in dollars (null where it is not known). A line that does not fit "
        "gets an object with 'error', and the exit status at the end is 1.",
        "racer-jax cascade route my.cascade --input -",
        check=_check_route,
    )
    parser.add_argument("artefact", type=Path, metavar="ARTEFACT", help="folder of the artefact")
    parser.add_argument("text", nargs="*", metavar="-", help="the same as --input -")
    parser.add_argument("--alpha", help="another risk level (default: the artefact's)")
    parser.add_argument(
        "--input",
        metavar="FILE",
        default="-",
        help="lines of JSON to read (default: the standard input)",
    )
    parser.add_argument(
        "--strict", action="store_true", help="stop at the first line that does not fit"
    )
    parser.set_defaults(run=route)


def _check_route(arguments: argparse.Namespace) -> None:
    """What can be said before anything is computed."""
    if arguments.text not in ([], ["-"]):
        raise ValueError(
            "a cascade asks and is answered in lines: give them by --input FILE, or - for the "
            "standard input, not as arguments"
        )
    check_levels(arguments.alpha)
    check_lines(arguments.input)
    if arguments.alpha is None:
        check_artefact_read(arguments.artefact, "cascade")
    else:  # without a threshold there is no level
        check_calibrated(arguments.artefact, "cascade")
        check_stop_levels(arguments.artefact, [arguments.alpha])


def route(arguments: argparse.Namespace) -> None:
    """`cascade route`.

    Use this when a command line runs a cascade; in Python, `Cascade.start` and `Cascade.tell`.
    """
    from racer_jax.serving.cascade import Cascade
    from racer_jax.serving.cascade_lines import answer_lines

    cascade = Cascade.load(arguments.artefact)
    if arguments.alpha is not None:
        cascade = cascade.at(arguments.alpha)
    if cascade.calibration is None:
        # On the error stream: the other carries lines of JSON alone.
        print(f"note: {cascade.guarantee()}", file=sys.stderr)  # noqa: T201
    with open_input(arguments.input) as file:
        name = "standard input" if arguments.input == "-" else arguments.input
        for line in answer_lines(cascade, file, name, strict=arguments.strict):
            print_json_text(line)
            flush()  # a process at the other end of the pipe waits for this line
