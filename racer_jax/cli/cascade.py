"""`cascade`: one model after another, trained and calibrated; `cascade_use` has the rest."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from racer_jax.cli import cascade_use
from racer_jax.cli.before import (
    check_artefact_read,
    check_form,
    check_levels,
    check_stop_levels,
    check_tables,
)
from racer_jax.cli.cascade_tables import answered_rows
from racer_jax.cli.inputs import Rows
from racer_jax.cli.options import (
    Source,
    Subparsers,
    add_choosing,
    add_command,
    add_json,
    add_reading,
    add_reading_options,
    add_unseen,
)
from racer_jax.cli.output import (
    print_json,
    print_line,
    print_notes,
)
from racer_jax.cli.places import add_overwrite, check_artefact
from racer_jax.cli.reading import labelled_rows, read_of_cascade, read_with
from racer_jax.cli.work_bar import work_bar
from racer_jax.data.errors import DataError

if TYPE_CHECKING:
    from racer_jax.data.table import RoutingTable
    from racer_jax.serving.cascade import Cascade

# What takes --sequential in the place of a command of 'cascade'; after that of 'report' an artefact
# may follow, to be shown beside sets, and the artefact of a cascade needs no option.
COMMANDS = ("train", "calibrate", "evaluate", "route")
_LOSSES = {
    "regret": "a wrong answer where the reference is right",
    "differs": "an answer that is not the reference's; needs no labels",
    "covers": "no called model is right though some model of the pool is",
    "wrong": "a wrong answer; it gives none where that is not safe",
}


def add(subparsers: Subparsers) -> None:
    """The commands of this module. Use this when the parser of all commands is built."""
    cascade = subparsers.add_parser(
        "cascade", help="call one model after another until stopping is safe"
    )
    inner = cascade.add_subparsers(required=True, metavar="COMMAND")
    _add_train(inner)
    _add_calibrate(inner)
    cascade_use.add(inner)


def _add_loss(parser: argparse.ArgumentParser, default: str | None) -> None:
    meaning = "; ".join(f"{name}: {text}" for name, text in _LOSSES.items())
    default_name = default or "that of training"
    parser.add_argument(
        "--loss",
        choices=_LOSSES,
        default=default,
        help=f"what alpha bounds the chance of. {meaning} (default: {default_name})",
    )


def _describe(path: Path, cascade: Cascade, as_json: bool, notes: Sequence[str] = ()) -> None:
    """What was made, what is promised, and what was left out of the rows."""
    calibration = cascade.calibration
    if as_json:
        description: dict[str, Any] = {
            "artefact": path,
            "models": cascade.models,
            "order": cascade.policy.calls,
            "reference": cascade.policy.reference,
            "guarantee": cascade.guarantee(),
            "notes": list(notes),
        }
        if calibration is not None:
            description |= {
                "alpha": calibration.alpha,
                "loss": calibration.loss,
                "n": len(calibration.value),
                "groups": calibration.groups,
            }
        print_json(description)
        return
    print_line(f"{path}: {cascade!r}")
    print_line(cascade.guarantee())


def _add_train(subparsers: Subparsers) -> None:
    parser = add_command(
        subparsers,
        "train",
        "Learn in which order to call models, from the logged answers of every model. It stops "
        "where no answer to come can change the vote; to stop earlier, calibrate it, on OTHER "
        "questions.",
        """
racer-jax cascade train logs/ -o my.cascade --share 0.4 --form letter
racer-jax cascade train logs.npz -o my.cascade --objective dollars --batches 2,2""",
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
    _add_loss(parser, "regret")
    parser.add_argument(
        "--reference",
        choices=("auto", "vote", "best"),
        default="auto",
        help="whose answer is the reference: the weighted vote of all, the best model's, or the "
        "better of the two on questions that were held out (default: %(default)s)",
    )
    parser.add_argument(
        "--objective",
        choices=("calls", "dollars"),
        default="calls",
        help="what the order saves (default: %(default)s)",
    )
    parser.add_argument(
        "--batches",
        metavar="N,...",
        help="sizes of the first batches of models called at once, such as 2,2; then all remaining "
        "models at once (default: one model at a time)",
    )
    parser.add_argument(
        "--alpha",
        type=float,
        help="the level you will calibrate for, for which the order is made; 0 if you will not "
        "calibrate (default: none)",
    )
    parser.add_argument(
        "--form",
        default="text",
        help="how answers are compared: text, letter, number, json:FIELD or regex:PATTERN "
        "(default: %(default)s)",
    )
    add_choosing(parser)
    add_json(parser)
    add_reading_options(parser)
    parser.set_defaults(run=train)


def _batches(text: str | None) -> tuple[int, ...] | None:
    if text is None:
        return None
    try:
        sizes = tuple(int(size) for size in text.split(","))
    except ValueError:
        raise ValueError(f"--batches must be whole numbers such as 2,2, got {text!r}") from None
    if min(sizes) < 1:
        raise ValueError(f"--batches must be sizes of at least 1, such as 2,2, got {text}")
    return sizes


def _check_train(arguments: argparse.Namespace) -> None:
    """What can be said before anything is computed."""
    _batches(arguments.batches)
    if arguments.alpha:  # 0 stands for no calibration
        check_levels(arguments.alpha)
    check_form(arguments.form)
    check_artefact(arguments.output, overwrite=arguments.overwrite)
    check_tables(arguments, "train")


def _read_training(arguments: argparse.Namespace) -> RoutingTable:
    """The table, which must hold what training needs."""
    from racer_jax.sequential.logged_tables import check_training

    table = read_with(
        arguments, lambda source: labelled_rows(source.table(), arguments.loss), "train"
    )
    check_training(table, arguments.loss, arguments.reference, arguments.objective)
    return table


def train(arguments: argparse.Namespace) -> None:
    """`cascade train`.

    Use this when a command line asks for a new cascade; in Python, `Cascade.fit`.
    """
    import jax

    from racer_jax.serving.cascade import Cascade

    batches = _batches(arguments.batches)
    source, rows = Source.of(arguments), Rows.of(arguments, "train")
    with work_bar("choose the questions", "learn the order of the models") as bar:
        table = rows.select(arguments.read, source.name)
        print_notes(table.notes)
        bar.next()
        cascade = Cascade.fit(
            jax.random.key(arguments.seed or 0),
            table,
            loss=arguments.loss,
            reference=arguments.reference,
            objective=arguments.objective,
            batches=batches,
            alpha=arguments.alpha,
            form=arguments.form,
        )
    cascade.save(arguments.output)
    _describe(arguments.output, cascade, arguments.json, table.notes)


def _add_calibrate(subparsers: Subparsers) -> None:
    parser = add_command(
        subparsers,
        "calibrate",
        "Choose how early to stop so that the chance of the loss is at most alpha. The questions "
        "must not be those of training.",
        """
racer-jax cascade calibrate my.cascade logs/ --alpha 0.01 --unseen --share 0.6
racer-jax cascade calibrate my.cascade traffic.npz --alpha 0.01 --loss differs   # no labels needed
racer-jax cascade calibrate my.cascade --alpha 0.02            # another alpha: no table needed""",
        check=_check_calibrate,
        reads=_read_calibration,
    )
    parser.add_argument("artefact", type=Path, metavar="ARTEFACT", help="folder of the artefact")
    add_reading(parser, nargs="*", help="logged answers; without them only alpha is changed")
    parser.add_argument(
        "--alpha", required=True, help="the risk that is allowed, such as 0.01 (needed)"
    )
    _add_loss(parser, None)
    parser.add_argument(
        "-o", "--output", type=Path, metavar="ARTEFACT", help="where to write (default: in place)"
    )
    add_overwrite(parser)
    parser.add_argument("--by-group", action="store_true", help="a threshold for each group")
    parser.add_argument(
        "--delta",
        type=float,
        help="the risk is at most alpha with confidence 1 - delta: --delta 0.05 for 95%% (default: "
        "on average over calibration sets)",
    )
    parser.add_argument(
        "--allow-overlap",
        action="store_true",
        help="calibrate also on questions that were trained on; then nothing is promised",
    )
    add_unseen(parser, recalibrates=True)
    add_choosing(parser)
    add_json(parser)
    add_reading_options(parser)
    parser.set_defaults(run=calibrate)


def _check_calibrate(arguments: argparse.Namespace) -> None:
    """What can be said before anything is computed."""
    check_levels(arguments.alpha, delta=arguments.delta)
    output = arguments.output or arguments.artefact
    check_artefact(output, overwrite=arguments.overwrite, changed=arguments.artefact)
    description = check_artefact_read(arguments.artefact, "cascade")
    if arguments.path:
        check_tables(arguments, "calibrate")
    elif description["calibration"] is None:
        raise _nothing_to_change(arguments.artefact)
    elif arguments.loss not in (None, description["calibration"]["loss"]):
        raise ValueError("another --loss needs logged answers to calibrate on")
    else:
        check_stop_levels(arguments.artefact, [arguments.alpha])


def _read_calibration(arguments: argparse.Namespace) -> RoutingTable | None:
    """The table where one is named, with as many rows as alpha takes at least."""
    from racer_jax.sequential.stop_levels import check_num_rows

    if not arguments.path:
        return None
    policy = check_artefact_read(arguments.artefact, "cascade")["policy"]
    table = read_of_cascade(arguments, arguments.loss or policy["loss"], "calibrate")
    groups = table.groups if arguments.by_group else None
    of_row = list(table.group or ())
    counts = [len(table)] if groups is None else [of_row.count(name) for name in groups]
    check_num_rows(arguments.alpha, arguments.delta, counts, groups)
    return table


def _nothing_to_change(artefact: Path) -> DataError:
    """The error for an artefact that has no calibration, where no answers are named."""
    return DataError("has no calibration to change alpha of: give logged answers", path=artefact)


def calibrate(arguments: argparse.Namespace) -> None:
    """`cascade calibrate`.

    Use this when a command line asks for a stopping threshold; in Python, `Cascade.calibrate`.
    """
    from racer_jax.serving.cascade import Cascade

    output = arguments.output or arguments.artefact
    cascade = Cascade.load(arguments.artefact)
    notes: Sequence[str] = ()
    if not arguments.path:
        if cascade.calibration is None:
            raise _nothing_to_change(arguments.artefact)
        cascade_at_alpha = cascade.at(arguments.alpha)
    else:
        loss = arguments.loss or cascade.policy.loss
        with work_bar("choose the questions", "choose how early to stop") as bar:
            table = answered_rows(arguments, cascade, recalibrating=True)
            bar.next()
            cascade_at_alpha = cascade.calibrate(
                table,
                arguments.alpha,
                loss=loss,
                by_group=arguments.by_group,
                delta=arguments.delta,
                allow_overlap=arguments.allow_overlap,
            )
        notes = table.notes
    cascade_at_alpha.save(output)
    _describe(output, cascade_at_alpha, arguments.json, notes)
