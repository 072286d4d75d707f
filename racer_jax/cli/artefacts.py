"""`train`: an artefact is made."""

import argparse
from collections.abc import Sequence
from pathlib import Path

import jax

from racer_jax.cli.options import (
    Rows,
    Source,
    Subparsers,
    add_choosing,
    add_command,
    add_json,
    add_reading,
)
from racer_jax.cli.output import print_json, print_line, print_notes
from racer_jax.core.nonconformity import NONCONFORMITIES, NULL_MODES
from racer_jax.encoders.registry import ENCODERS
from racer_jax.orders.model_orders import ORDERS
from racer_jax.racer.artefact import check_place
from racer_jax.racer.racer import Racer
from racer_jax.routers.registry import ROUTERS

# What the help says of each; one that was registered is named alone.
_MEANINGS = {
    "inverse_probability": "1 - score (RACER-P)",
    "gap": "the gap to the best score (RACER-G)",
    "static": "what each model adds to those before it on the training questions, the same for "
    "every question",
    "J": "the same, near this question (RACER-J)",
    "J_learned": "the same, learned from this question",
}


def add(subparsers: Subparsers) -> None:
    """The commands of this module."""
    _add_train(subparsers)


def _add_racer_options(parser: argparse.ArgumentParser, names: Sequence[str]) -> None:
    meanings = "; ".join(f"{name}: {_MEANINGS[name]}" for name in names if name in _MEANINGS)
    parser.add_argument(
        "--nonconformity",
        choices=names,
        default="inverse_probability",
        help=f"what orders the models of a question (default: %(default)s). {meanings}",
    )
    parser.add_argument(
        "--null",
        choices=NULL_MODES,
        default="paper",
        help="queries nobody can answer: 'paper' scores 'none of them' as 1 - the best score; "
        "'free' never counts them as a miss; 'never' always does",
    )
    parser.add_argument(
        "--no-tie-break", action="store_true", help="leave ties of scores as they are"
    )


def describe(path: Path, racer: Racer, as_json: bool, notes: Sequence[str]) -> None:
    """The artefact that was written, and what must be known of it."""
    print_notes(notes)
    calibration = racer.calibration
    if as_json:
        made = {
            "artefact": path,
            "models": racer.models,
            "warnings": racer.warnings(),
            "notes": notes,
        }
        if calibration is not None:
            made |= {
                "alpha": calibration.alpha,
                "n": int(calibration.num_queries.sum()),
                "groups": calibration.groups,
                "guarantee": racer.guarantee(),
            }
        print_json(made)
        return
    print_line(f"{path}: {racer!r}")
    if calibration is None:
        print_line("not calibrated yet: racer-jax calibrate, on other questions than these")
    else:
        print_line(racer.guarantee())
    for warning in racer.warnings():
        print_line(f"warning: {warning}")


def _add_train(subparsers: Subparsers) -> None:
    parser = add_command(
        subparsers,
        "train",
        "Train a router on labelled questions. Writes an artefact that wants to be calibrated, on "
        "OTHER questions.",
        """
racer-jax train logs/ -o my.racer --share 0.4          the rest is left to calibrate and to test
racer-jax train train.csv -o my.racer --router knn --encoder both
racer-jax train train.csv -o my.racer --nonconformity J --null free   the smallest sets""",
    )
    add_reading(parser)
    parser.add_argument(
        "-o", "--output", type=Path, required=True, metavar="ARTEFACT", help="folder to write"
    )
    parser.add_argument(
        "--router", choices=tuple(ROUTERS), default="mlp", help="default: %(default)s"
    )
    parser.add_argument(
        "--encoder",
        choices=tuple(ENCODERS),
        default="hashed",
        help="hashed n-grams need no download; the others need the extra 'minilm' "
        "(default: %(default)s)",
    )
    _add_racer_options(parser, (*NONCONFORMITIES, *ORDERS))
    parser.add_argument(
        "--cost-weight",
        type=float,
        default=0.0,
        metavar="W",
        help="how much the order 'static' or 'J' minds what the models cost: 0 not at all, 1 by "
        "what a model adds for each dollar. The promise is the same; sets become cheaper and hold "
        "more models (default: %(default)s)",
    )
    add_choosing(parser)
    add_json(parser)
    parser.set_defaults(run=train)


def train(parsed: argparse.Namespace) -> None:
    """`train`."""
    check_place(parsed.output)  # before minutes of work are spent
    source, rows = Source.of(parsed), Rows.of(parsed)
    table = rows.select(source.table().complete(), source.name)
    racer = Racer.fit(
        jax.random.key(parsed.seed or 0),
        table,
        parsed.router,
        parsed.encoder,
        nonconformity=parsed.nonconformity,
        null=parsed.null,
        tie_break=not parsed.no_tie_break,
        cost_weight=parsed.cost_weight,
    )
    racer.save(parsed.output)
    describe(parsed.output, racer, parsed.json, table.notes)
