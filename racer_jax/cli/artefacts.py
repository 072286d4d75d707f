"""`train` and `calibrate`: an artefact is made."""

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
    add_unseen,
    labelled,
    narrowed,
)
from racer_jax.cli.output import print_json, print_line, print_notes
from racer_jax.core.nonconformity import NONCONFORMITIES, NULL_MODES
from racer_jax.data.errors import DataError
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
    """The commands of this module. Use this when the parser of all commands is built."""
    _add_train(subparsers)
    _add_calibrate(subparsers)


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
        help="queries no model can answer: 'paper' scores 'none of them' as 1 - the best score; "
        "'free' never counts them as a miss; 'never' always does",
    )
    parser.add_argument(
        "--no-tie-break", action="store_true", help="leave ties of scores as they are"
    )


def _describe(path: Path, racer: Racer, as_json: bool, notes: Sequence[str]) -> None:
    """The artefact that was written, and what must be known of it."""
    print_notes(notes)
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
            }
        print_json(description)
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
    add_choosing(parser)
    add_json(parser)
    parser.set_defaults(run=train)


def train(arguments: argparse.Namespace) -> None:
    """`train`. Use this when a command line asks for a new artefact; in Python, `Racer.fit`."""
    check_place(arguments.output)  # before minutes of work are spent
    source, rows = Source.of(arguments), Rows.of(arguments)
    table = rows.select(source.table().complete(), source.name)
    racer = Racer.fit(
        jax.random.key(arguments.seed or 0),
        table,
        arguments.router,
        arguments.encoder,
        nonconformity=arguments.nonconformity,
        null=arguments.null,
        tie_break=not arguments.no_tie_break,
    )
    racer.save(arguments.output)
    _describe(arguments.output, racer, arguments.json, table.notes)


def _add_calibrate(subparsers: Subparsers) -> None:
    parser = add_command(
        subparsers,
        "calibrate",
        "Choose the threshold so that the risk is at most alpha. The questions must not be those "
        "of training; "
        "where the table has groups, each gets a threshold and the risk is at most alpha in each.",
        """
racer-jax calibrate my.racer logs/ --alpha 0.1 --unseen --share 0.6
racer-jax calibrate my.racer --alpha 0.05              another alpha needs no data
racer-jax calibrate new.racer scores.npz --alpha 0.1 --from-scores   any router's scores""",
    )
    parser.add_argument("artefact", type=Path, metavar="ARTEFACT", help="folder of the artefact")
    add_reading(
        parser,
        nargs="*",
        help="labelled queries; without them only alpha is changed",
    )
    parser.add_argument("--alpha", required=True, help="the risk level, such as 0.1")
    parser.add_argument(
        "-o", "--output", type=Path, metavar="ARTEFACT", help="where to write (default: in place)"
    )
    parser.add_argument("--no-groups", action="store_true", help="one threshold for all groups")
    parser.add_argument(
        "--fallback",
        choices=("all", "pooled"),
        default="all",
        help="groups too small for alpha get every model, or the threshold of all groups "
        "(default: %(default)s)",
    )
    parser.add_argument(
        "--delta", type=float, help="risk at most alpha with probability 1 - delta, not on average"
    )
    parser.add_argument(
        "--allow-overlap", action="store_true", help="calibrate on training questions; no promise"
    )
    parser.add_argument(
        "--from-scores", action="store_true", help="make an artefact from a score matrix (.npz)"
    )
    _add_racer_options(parser, tuple(NONCONFORMITIES))
    add_unseen(parser)
    add_choosing(parser)
    add_json(parser)
    parser.set_defaults(run=calibrate)


def calibrate(arguments: argparse.Namespace) -> None:
    """`calibrate`.

    Use this when a command line asks for a threshold; in Python, `Racer.calibrate`.
    """
    output = arguments.output or arguments.artefact
    check_place(output)
    if arguments.from_scores:
        if not arguments.path:
            raise ValueError("--from-scores needs a score matrix (.npz) to read")
        models = Source.of(arguments).scored().table.models
        seed = None if arguments.no_tie_break else arguments.seed or 0
        racer = Racer.from_scores(
            models, nonconformity=arguments.nonconformity, null=arguments.null, seed=seed
        )
    else:
        racer = Racer.load(arguments.artefact)
    source = Source.of(arguments)
    pool = narrowed(source, racer)
    notes: Sequence[str]
    if not arguments.path:
        if racer.calibration is None:
            raise DataError(
                "has no calibration to change alpha of: give labelled queries",
                path=arguments.artefact,
            )
        if pool is not racer:
            raise ValueError("--models needs labelled queries: a smaller pool is calibrated anew")
        racer_at_alpha, notes = racer.at(arguments.alpha), ()
    else:
        table, scores = labelled(source, Rows.of(arguments), pool)
        notes = [*pool.notes[len(racer.notes) :], *table.notes]
        racer_at_alpha = pool.calibrate(
            table,
            arguments.alpha,
            scores=scores,
            by_group=not arguments.no_groups,
            fallback=arguments.fallback,
            delta=arguments.delta,
            allow_overlap=arguments.allow_overlap,
        )
    racer_at_alpha.save(output)
    _describe(output, racer_at_alpha, arguments.json, notes)
