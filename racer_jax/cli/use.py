"""`route`, `evaluate` and `report`: a calibrated artefact is used and measured."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from racer_jax.cli import cascade_use
from racer_jax.cli.before import (
    check_artefact_read,
    check_calibrated,
    check_levels,
    check_lines,
    not_calibrated,
)
from racer_jax.cli.inputs import Rows, labelled, open_input, refuse_table
from racer_jax.cli.measuring import (
    add_evaluating,
    add_reporting,
    check_evaluating,
    check_measured,
    check_reporting,
)
from racer_jax.cli.options import (
    Source,
    Subparsers,
    add_command,
    add_json,
    add_sequential,
)
from racer_jax.cli.output import (
    flush,
    print_json,
    print_json_text,
    print_line,
    print_notes,
    write_lines,
)
from racer_jax.cli.places import check_file
from racer_jax.cli.reading import read_of_cascade, read_of_racer, table_in
from racer_jax.cli.work_bar import work_bar
from racer_jax.core.scalar_checks import check_count
from racer_jax.data.errors import DataError

if TYPE_CHECKING:
    import numpy as np

    from racer_jax.data.formats.score_matrix import ScoredTable
    from racer_jax.data.table import RoutingTable
    from racer_jax.racer.racer import Racer
    from racer_jax.serving.cascade import Cascade
    from racer_jax.serving.json_lines import BadLine, Query, Routed


def add(subparsers: Subparsers) -> None:
    """The commands of this module. Use this when the parser of all commands is built."""
    _add_route(subparsers)
    _add_evaluate(subparsers)
    _add_report(subparsers)


def _loaded(artefact: Path) -> Racer:
    from racer_jax.racer.racer import Racer

    racer = Racer.load(artefact)
    if racer.calibration is None:
        raise not_calibrated(artefact)
    return racer


def _add_route(subparsers: Subparsers) -> None:
    parser = add_command(
        subparsers,
        "route",
        "Say which models to call. Questions are arguments, or lines: plain text, or JSON with "
        "'text' or 'query' (for an artefact made from scores: 'scores', by model, and the text "
        "or 'id' it was calibrated by, which tells equal scores apart) and, if there are any, "
        "'group' and 'id'. A question that is an argument gets a few lines of text, or "
        "with --json a line of JSON; each line of --input gets a line of JSON. A line that cannot "
        "be read gets an object with 'error', and the exit status at the end is 1.",
        """
racer-jax route my.racer "What is 2 + 2?"
racer-jax route my.racer --group mmlu --json "Which gas do plants take in?"
racer-jax route my.racer --input queries.jsonl --output decisions.jsonl
tail -f queries.jsonl | racer-jax route my.racer --input - --batch 1""",
        check=_check_route,
        needs=("racer_jax.racer.racer",),
    )
    parser.add_argument("artefact", type=Path, metavar="ARTEFACT", help="folder of the artefact")
    parser.add_argument("text", nargs="*", metavar="QUESTION", help="questions to route")
    parser.add_argument(
        "--group", help="the group of the questions (default: none, or what each line says)"
    )
    parser.add_argument("--alpha", help="another risk level (default: the artefact's)")
    parser.add_argument(
        "--input",
        metavar="FILE",
        help="lines to read; - for the standard input (default: the arguments)",
    )
    parser.add_argument(
        "--output",
        type=Path,
        metavar="FILE",
        help="file to write (default: standard output)",
    )
    parser.add_argument(
        "--strict", action="store_true", help="stop at the first line that cannot be read"
    )
    parser.add_argument(
        "--batch", type=int, default=256, help="lines routed at once (default: %(default)s)"
    )
    add_sequential(parser, "route")
    add_json(parser)
    parser.set_defaults(run=route)


def _check_route(arguments: argparse.Namespace) -> None:
    """What can be said before anything is computed."""
    source = _source(arguments)
    check_levels(arguments.alpha)
    check_lines(source)
    if source is not None:
        refuse_table(source)
    if arguments.output is not None:
        check_file(arguments.output, inputs=() if source is None else (source,))
    check_calibrated(arguments.artefact)


def route(arguments: argparse.Namespace) -> None:
    """`route`.

    Use this when a command line asks which models to call; in Python, `Racer.route`.
    """
    from racer_jax._programs import keep_small_programs
    from racer_jax.serving.json_lines import Query, as_line, read_queries, route_queries

    source = _source(arguments)
    if source is None:
        keep_small_programs()
    racer = _loaded(arguments.artefact)
    if arguments.alpha is not None:
        racer = racer.at(arguments.alpha)
    if source is None and racer.scorer is None:
        raise ValueError(
            "this artefact was made from scores: give lines of JSON with 'scores' by --input"
        )
    words = source is None and not arguments.json
    with nullcontext() if source is None else open_input(source) as file:
        stream: Iterable[Query | BadLine] = (
            Query(line, text, None, arguments.group, None)
            for line, text in enumerate(arguments.text, start=1)
        )
        if source is not None and file is not None:
            stream = read_queries(
                file, source, racer, strict=arguments.strict, group=arguments.group
            )
        queries = _Counted(stream)
        routed = route_queries(racer, queries, arguments.batch)
        lines = queries.checked(map(_in_words if words else as_line, routed))
        if arguments.output is not None:
            write_lines(arguments.output, lines)
            lines = iter(())
        for line in lines:
            (print_line if words else print_json_text)(line)
            if source == "-":
                flush()
    if queries.num_bad:
        raise DataError(
            f"{queries.num_bad:,} of {queries.num:,} lines cannot be read as queries; each has an "
            f"object with 'error' instead of a decision; first: {queries.first_error}",
            path=source,
        )


def _source(arguments: argparse.Namespace) -> str | None:
    """Where the lines come from; None where the questions are arguments."""
    check_count("--batch", arguments.batch, most=sys.maxsize)
    source: str | None = arguments.input
    if source is None and arguments.text == ["-"]:
        return "-"
    if not arguments.text and not source:
        raise ValueError("nothing to route: give questions as arguments or --input FILE")
    if arguments.text and source:
        raise ValueError("give questions as arguments or --input FILE, not both")
    if blank := [number for number, text in enumerate(arguments.text, 1) if not text.strip()]:
        raise ValueError(f"question {blank[0]} must not be empty or only white space")
    return source


def _in_words(item: Routed | BadLine) -> str:
    """A decision for people."""
    from racer_jax.serving.json_lines import BadLine

    if isinstance(item, BadLine):
        return str(item.error)
    models = ", ".join(item.decision.models) or "(abstain)"
    return f"{item.query.text}\n  {models}\n  {item.decision.explain()}"


class _Counted:
    """Queries on their way to the router, counted.

    Attributes:
      num: Number of lines read.
      num_bad: Number of lines that are no queries.
      first_error: What is wrong with the first of them.
    """

    def __init__(self, queries: Iterable[Query | BadLine]) -> None:
        """Reads nothing yet."""
        self.num, self.num_bad = 0, 0
        self.first_error: DataError | None = None
        self._queries = queries

    def __iter__(self) -> Iterator[Query | BadLine]:
        from racer_jax.serving.json_lines import BadLine

        for query in self._queries:
            self.num += 1
            if isinstance(query, BadLine):
                self.num_bad += 1
                self.first_error = self.first_error or query.error
            yield query

    def checked(self, lines: Iterable[str]) -> Iterator[str]:
        """The lines; an input without a single query is an error, and no file is written.

        Raises:
          DataError: If there was no query.
        """
        yield from lines
        if self.first_error is not None and self.num_bad == self.num:
            raise self.first_error


def _evaluated(arguments: argparse.Namespace) -> tuple[Racer, RoutingTable, np.ndarray | None]:
    racer = _loaded(arguments.artefact)
    rows = Rows.of(arguments, "measure")
    return racer, *labelled(arguments.read, rows, Source.of(arguments).name, racer)


def _add_evaluate(subparsers: Subparsers) -> None:
    parser = add_command(
        subparsers,
        "evaluate",
        "Measure risk, set size, cost and accuracy on labelled questions. They stand beside what "
        "is promised, and beside fixed choices of models.",
        """
racer-jax evaluate my.racer test.csv
racer-jax evaluate my.racer logs/ --unseen --alphas 0.05:0.3:0.05 --output figures.json""",
        check=check_evaluating,
        reads=read_of_racer,
    )
    add_evaluating(
        parser,
        "levels to measure beside the artefact's: 0.05,0.1 or first:last:step (default: "
        "0.01:0.5:0.01; the terminal then shows the artefact's alone)",
    )
    add_sequential(parser, "evaluate")
    parser.set_defaults(run=evaluate)


def evaluate(arguments: argparse.Namespace) -> None:
    """`evaluate`.

    Use this when a command line measures an artefact; in Python, `Racer.evaluate`.
    """
    from racer_jax.reporting.files import write_json

    with work_bar("choose the questions", "measure") as bar:
        racer, table, scores = _evaluated(arguments)
        bar.next()
        evaluation = racer.evaluate(table, arguments.alphas, scores=scores)
    figures = evaluation.to_dict()
    if arguments.output is not None:
        write_json(arguments.output, figures)
    if arguments.json:
        print_json(figures)
        print_notes(evaluation.notes)
    else:
        print_line(str(evaluation))


def _add_report(subparsers: Subparsers) -> None:
    parser = add_command(
        subparsers,
        "report",
        "Write an HTML page of what 'evaluate' measures. A slider chooses alpha.",
        """
racer-jax report my.racer --data test.csv --output report.html
racer-jax report my.racer --data test.csv --sequential my.cascade     both, side by side
racer-jax report my.cascade --data logs.csv                           a cascade alone""",
        check=_check_report,
        reads=_read_report,
    )
    add_reporting(
        parser,
        "levels to measure beside the artefact's: 0.05,0.1 or first:last:step (default: "
        "0.01:0.5:0.01)",
        "Routing report",
    )
    parser.add_argument(
        "--sequential",
        nargs="?",
        type=Path,
        const=Path(),
        metavar="CASCADE",
        help="show calling one model after another beside sets: an artefact of 'cascade train' "
        "(default: sets alone); without CASCADE, the ARTEFACT is that of a cascade",
    )
    parser.set_defaults(run=report)


def _check_report(arguments: argparse.Namespace) -> None:
    """What can be said before anything is computed."""
    check_reporting(arguments)
    if _is_of_a_cascade(arguments):
        check_measured(arguments, "cascade")
        return
    check_measured(arguments)
    if arguments.sequential is not None:
        check_artefact_read(arguments.sequential, "cascade")


def _read_report(arguments: argparse.Namespace) -> RoutingTable | ScoredTable:
    """The table, with answers where a cascade is shown.

    Raises:
      DataError: If it has none.
    """
    if _is_of_a_cascade(arguments):
        return read_of_cascade(arguments)
    read = read_of_racer(arguments)
    if arguments.sequential is not None and table_in(read).answers is None:
        raise DataError("has no answers, which --sequential reads", path=Source.of(arguments).name)
    return read


def _is_of_a_cascade(arguments: argparse.Namespace) -> bool:
    """Whether the page is of a cascade alone.

    Raises:
      ValueError: If both artefacts are of cascades.
    """
    from racer_jax.racer.artefact import kind_of

    if arguments.sequential == Path():
        return True
    if kind_of(arguments.artefact) != "cascade":
        return False
    if arguments.sequential is not None:
        raise ValueError(
            f"{arguments.artefact} is a cascade, and so is what --sequential names: name the "
            "artefact of a Racer first, or leave --sequential out"
        )
    return True


def report(arguments: argparse.Namespace) -> None:
    """`report`.

    Use this when a command line asks for a page of figures; in Python, `write_report`.
    """
    from racer_jax.racer.report import TITLE, write_report

    if _is_of_a_cascade(arguments):
        cascade_use.report(arguments)
        return
    cascade = None
    if arguments.sequential is not None:
        from racer_jax.serving.cascade import Cascade

        cascade = Cascade.load(arguments.sequential)
    with work_bar("choose the questions", "measure and write the page") as bar:
        racer, table, scores = _evaluated(arguments)
        if cascade is not None:
            table, scores = _beside(arguments, cascade, table, scores)
        bar.next()
        evaluation = write_report(
            racer,
            table,
            arguments.output,
            arguments.alphas,
            scores=scores,
            title=arguments.title or TITLE,
            cascade=cascade,
        )
    if arguments.json:
        print_json({"report": arguments.output, "notes": evaluation.notes})
    else:
        print_line(f"{arguments.output}: open it in a browser")
    print_notes(evaluation.notes)


def _beside(
    arguments: argparse.Namespace,
    cascade: Cascade,
    table: RoutingTable,
    scores: np.ndarray | None,
) -> tuple[RoutingTable, np.ndarray | None]:
    """Rows on which a cascade can be measured too, and their scores."""
    if not arguments.unseen:
        return table, scores
    unseen = cascade.usage(table).unseen()
    left_out = f"--unseen left out {int((~unseen).sum()):,} questions of {arguments.sequential}"
    table = table.select(unseen)
    notes = [*table.notes, left_out]
    return replace(table, notes=notes), None if scores is None else scores[unseen]
