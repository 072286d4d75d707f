"""`route`, `evaluate` and `report`: a calibrated artefact is used and measured."""

import argparse
from pathlib import Path

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
from racer_jax.cli.output import (
    check_file,
    flush,
    print_json,
    print_json_text,
    print_line,
    write_lines,
)
from racer_jax.core.risk_levels import parse_alphas
from racer_jax.data.errors import DataError
from racer_jax.data.table import RoutingTable
from racer_jax.racer.errors import NotCalibratedError
from racer_jax.racer.racer import Racer
from racer_jax.racer.report import write_report
from racer_jax.reporting.files import write_json


def add(subparsers: Subparsers) -> None:
    """The commands of this module."""
    _add_route(subparsers)
    _add_evaluate(subparsers)
    _add_report(subparsers)


def _loaded(artefact: Path) -> Racer:
    racer = Racer.load(artefact)
    if racer.calibration is None:
        raise DataError(str(NotCalibratedError("this command")), path=artefact)
    return racer


def _add_route(subparsers: Subparsers) -> None:
    parser = add_command(
        subparsers,
        "route",
        "Say which models to call. Questions are arguments, or lines of JSON with 'text' (for an artefact made from "
        "scores: 'scores', by model) and, if there are any, 'group' and 'id'; the answer is a line of JSON for each.",
        """
racer-jax route my.racer "What is 2 + 2?"
racer-jax route my.racer --group mmlu --json "Which gas do plants take in?"
racer-jax route my.racer --input queries.jsonl --output decisions.jsonl
tail -f queries.jsonl | racer-jax route my.racer --input - --batch 1""",
    )
    parser.add_argument("artefact", type=Path, metavar="ARTEFACT", help="folder of the artefact")
    parser.add_argument("text", nargs="*", help="questions")
    parser.add_argument("--group", help="the group of the questions that are arguments")
    parser.add_argument("--alpha", help="another risk level than the artefact's")
    parser.add_argument(
        "--input", metavar="FILE", help="lines of JSON to read; - for the standard input"
    )
    parser.add_argument(
        "--output", type=Path, metavar="FILE", help="where to write them (default: standard output)"
    )
    parser.add_argument(
        "--batch", type=int, default=256, help="lines routed at once (default: %(default)s)"
    )
    add_json(parser)
    parser.set_defaults(run=route)


def route(parsed: argparse.Namespace) -> None:
    """`route`."""
    from racer_jax.serving.json_lines import read_queries, route_lines

    if bool(parsed.text) == bool(parsed.input):
        raise ValueError("give questions as arguments, or --input FILE, not both and not neither")
    if parsed.batch < 1:
        raise ValueError(f"--batch must be at least 1, got {parsed.batch}")
    racer = _loaded(parsed.artefact)
    if parsed.alpha is not None:
        racer = racer.at(parsed.alpha)
    if parsed.text:
        for i, decision in enumerate(racer.route(parsed.text, parsed.group)):
            told = (
                decision.to_json()
                if parsed.json
                else f"{', '.join(decision.models) or '(abstain)'}"
            )
            print_line(
                told if parsed.json else f"{parsed.text[i]}\n  {told}\n  {decision.explain()}"
            )
        return
    with open_input(parsed.input) as file:
        lines = route_lines(racer, read_queries(file, parsed.input, racer), parsed.batch)
        if parsed.output is None:
            for line in lines:
                print_json_text(line)
                if parsed.input == "-":
                    flush()
            return
        write_lines(parsed.output, lines)


def _evaluated(parsed: argparse.Namespace) -> tuple[Racer, RoutingTable, np.ndarray | None]:
    if parsed.alphas is not None:
        parse_alphas(parsed.alphas)  # before anything is read
    racer = _loaded(parsed.artefact)
    return racer, *labelled(Source.of(parsed), Rows.of(parsed), racer)


def _add_evaluate(subparsers: Subparsers) -> None:
    parser = add_command(
        subparsers,
        "evaluate",
        "Measure risk, set size, cost and accuracy on labelled questions, beside what is promised "
        "and fixed choices.",
        """
racer-jax evaluate my.racer test.csv
racer-jax evaluate my.racer logs/ --unseen --alphas 0.05:0.3:0.05 --output figures.json""",
    )
    parser.add_argument("artefact", type=Path, metavar="ARTEFACT", help="folder of the artefact")
    add_reading(parser)
    parser.add_argument(
        "--alphas", help="levels beside the artefact's: 0.05,0.1 or first:last:step"
    )
    parser.add_argument("--output", type=Path, metavar="FILE", help="write everything as JSON")
    add_unseen(parser)
    add_choosing(parser)
    add_json(parser)
    parser.set_defaults(run=evaluate)


def evaluate(parsed: argparse.Namespace) -> None:
    """`evaluate`."""
    if parsed.output is not None:
        check_file(parsed.output)
    racer, table, scores = _evaluated(parsed)
    found = racer.evaluate(table, parsed.alphas, scores=scores)
    if parsed.output is not None:
        write_json(parsed.output, found.to_dict())
    if parsed.json:
        print_json(found.to_dict())
    else:
        print_line(str(found))


def _add_report(subparsers: Subparsers) -> None:
    parser = add_command(
        subparsers,
        "report",
        "Write one HTML page of everything 'evaluate' measures, for every alpha.",
        "racer-jax report my.racer --data test.csv --output report.html",
    )
    parser.add_argument("artefact", type=Path, metavar="ARTEFACT", help="folder of the artefact")
    add_reading(parser, "--data", dest="path", required=True)
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("report.html"),
        help="file to write (default: %(default)s)",
    )
    parser.add_argument(
        "--alphas", help="levels beside the artefact's: 0.05,0.1 or first:last:step"
    )
    add_unseen(parser)
    add_choosing(parser)
    add_json(parser)
    parser.set_defaults(run=report)


def report(parsed: argparse.Namespace) -> None:
    """`report`."""
    check_file(parsed.output)
    racer, table, scores = _evaluated(parsed)
    write_report(racer, table, parsed.output, parsed.alphas, scores=scores)
    if parsed.json:
        print_json({"report": parsed.output})
    else:
        print_line(f"{parsed.output}: open it in a browser")
