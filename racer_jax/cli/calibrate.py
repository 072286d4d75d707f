"""`calibrate`: the threshold of an artefact, from labelled queries or from those it has seen."""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from racer_jax.cli import names
from racer_jax.cli.artefacts import describe
from racer_jax.cli.before import (
    OFF,
    check_artefact_read,
    check_form,
    check_levels,
    check_sizes,
    check_tables,
)
from racer_jax.cli.inputs import Rows, labelled
from racer_jax.cli.options import (
    Source,
    Subparsers,
    add_choosing,
    add_command,
    add_json,
    add_reading,
    add_reading_options,
    add_sequential,
    add_unseen,
)
from racer_jax.cli.output import print_notes
from racer_jax.cli.places import add_overwrite, check_artefact
from racer_jax.cli.reading import read_of_racer, read_with, table_in
from racer_jax.cli.work_bar import work_bar
from racer_jax.data.errors import DataError
from racer_jax.data.remedies import OPTIONS
from racer_jax.racer.pool_names import places_without

if TYPE_CHECKING:
    from racer_jax.data.formats.score_matrix import ScoredTable
    from racer_jax.data.table import RoutingTable
    from racer_jax.racer.racer import Racer

# What only a table can answer: how it is typed, and where argparse keeps it.
_OF_A_TABLE = {
    "--loss": "loss",
    "--unseen": "unseen",
    "--share": "share",
    "--group": "group",
    "--allow-overlap": "allow_overlap",
    "--seed": "seed",
}
# What only an artefact made from scores is asked for: the others were trained with theirs.
_OF_SCORES = {
    "--nonconformity": "nonconformity",
    "--null": "null",
    "--no-tie-break": "no_tie_break",
}


def _or_none(kind: Callable[[str], Any]) -> Callable[[str], Any]:
    """Reads a value, or `none`, which turns off what an earlier calibration had."""

    def read(text: str) -> Any:
        return OFF if text == OFF else kind(text)

    read.__name__ = kind.__name__  # argparse names it in its error
    return read


def add(subparsers: Subparsers) -> None:
    """The command of this module.

    Use this when the parser of all commands is built.
    """
    parser = add_command(
        subparsers,
        "calibrate",
        "Choose the threshold so that the risk is at most alpha. The questions must not be those "
        "of training; where the table has groups, each group gets a threshold, and the risk is at "
        "most alpha in each. Without a table, the questions of the last calibration are used "
        "again: for another alpha, other options or fewer models.",
        """
racer-jax calibrate my.racer logs/ --alpha 0.1 --unseen --share 0.6
racer-jax calibrate my.racer --alpha 0.05            # another alpha: no table needed
racer-jax calibrate my.racer --delta 0.05            # another option: no table needed
racer-jax calibrate my.racer --without gpt-4         # drop a model: no table needed
racer-jax calibrate new.racer scores.npz --alpha 0.1 --from-scores   # any router's scores""",
        check=_check,
        reads=_read,
    )
    parser.add_argument("artefact", type=Path, metavar="ARTEFACT", help="folder of the artefact")
    add_reading(
        parser,
        nargs="*",
        help="labelled queries; without them the questions of the last calibration are used",
    )
    parser.add_argument(
        "--alpha",
        help="the risk that is allowed, such as 0.1; needed with a table (default without one: as "
        "before)",
    )
    parser.add_argument(
        "-o", "--output", type=Path, metavar="ARTEFACT", help="where to write (default: in place)"
    )
    add_overwrite(parser)
    parser.add_argument(
        "--without",
        action="append",
        metavar="MODEL",
        help="leave this model out of the pool; may be typed several times. The threshold becomes "
        "that of the models that are left (default: none is left out)",
    )
    parser.add_argument(
        "--max-models",
        type=_or_none(int),
        metavar="N",
        help="no question calls more models than this; the risk is at most alpha as before, down "
        "to the least alpha that N models can reach (default: all)",
    )
    parser.add_argument(
        "--min-models",
        type=int,
        metavar="N",
        help="every question calls this many models at least, so that none goes without an answer; "
        "the promise is the same, and what it costs in models is printed (default: 0)",
    )
    parser.add_argument("--no-groups", action="store_true", help="one threshold for all groups")
    parser.add_argument(
        "--fallback",
        choices=("all", "pooled"),
        help="groups too small for alpha get every model, or the threshold of all groups "
        "(default: all)",
    )
    parser.add_argument(
        "--unknown-group",
        choices=("all", "pooled", "error"),
        help="a question of a group that is not in the table, or of none, gets every model, the "
        "threshold of all groups with no promise for it, or an error (default: all)",
    )
    parser.add_argument(
        "--delta",
        type=_or_none(float),
        help="the risk is at most alpha with confidence 1 - delta: --delta 0.05 for 95%% (default: "
        "on average over calibration sets)",
    )
    parser.add_argument(
        "--loss",
        choices=("grade", "shortfall"),
        help="for graded tables: alpha bounds a mean instead of the chance of a miss. grade: of 1 "
        "- the best grade called; shortfall: of how far that is below the best of the pool "
        "(default: the chance of a miss)",
    )
    parser.add_argument(
        "--allow-overlap",
        action="store_true",
        help="calibrate also on questions that were trained on; then nothing is promised",
    )
    parser.add_argument(
        "--form",
        help="how the gateway compares answers: text, letter, number, json:FIELD or "
        "regex:PATTERN; GROUP=FORM,GROUP=FORM where groups differ, * for the others (default: as "
        "before)",
    )
    parser.add_argument(
        "--view",
        metavar="VIEW",
        help="what the gateway routes of a conversation: last_user, all_user or template:TEXT with "
        "{system}, {first_user}, {last_user}, {all_user}; the same as the questions of the table "
        "(default: as before)",
    )
    _add_scores(parser)
    add_unseen(parser, recalibrates=True)
    add_choosing(parser)
    add_sequential(parser, "calibrate")
    add_json(parser)
    add_reading_options(parser)
    parser.set_defaults(run=calibrate)


def _add_scores(parser: argparse.ArgumentParser) -> None:
    """What an artefact that is made from scores is asked for."""
    scores = parser.add_argument_group("an artefact from scores")
    scores.add_argument(
        "--from-scores", action="store_true", help="make an artefact from a score matrix (.npz)"
    )
    scores.add_argument(
        "--nonconformity",
        choices=names.nonconformities(),
        help="what orders the models of a question. inverse_probability: 1 - score (RACER-P); gap: "
        "the gap to the best score (RACER-G) (default: inverse_probability)",
    )
    scores.add_argument(
        "--null",
        choices=names.NULL_MODES,
        help="what counts where no model can answer. free: never a miss; never: always a miss; "
        "paper: a miss unless the set holds 'none of them', which scores 1 - the best score "
        "(default: paper)",
    )
    scores.add_argument(
        "--no-tie-break",
        action="store_true",
        help="do not break ties of scores: the risk is at most alpha, and not known exactly",
    )


def _check(arguments: argparse.Namespace) -> None:
    """What can be said before anything is computed."""
    _check_applied(arguments)
    check_levels(arguments.alpha, delta=arguments.delta)
    check_form(arguments.form, arguments.view)
    changed = None if arguments.from_scores else arguments.artefact
    output = arguments.output or arguments.artefact
    check_artefact(output, overwrite=arguments.overwrite, changed=changed)
    if arguments.from_scores:
        check_sizes(arguments.max_models, arguments.min_models)
        check_tables(arguments, "calibrate")
        Source.of(arguments).check_scored()
        return
    description = check_artefact_read(arguments.artefact)
    models = description["models"]
    num_models = len(places_without(models, arguments.without) if arguments.without else models)
    check_sizes(arguments.max_models, arguments.min_models, num_models)
    if arguments.path:
        check_tables(arguments, "calibrate")
    elif description["calibration"] is None:
        raise _nothing_to_change(arguments.artefact)


def _read(arguments: argparse.Namespace) -> "RoutingTable | ScoredTable | None":
    """The table where one is named, of the models that the artefact is to have."""
    if not arguments.path:
        return None
    if arguments.from_scores:
        read: RoutingTable | ScoredTable = read_with(arguments, Source.scored, "calibrate")
        Source.of(arguments).check_models(table_in(read).models)
    else:
        read = read_of_racer(arguments, "calibrate", arguments.without or ())
    if arguments.loss is not None:
        from racer_jax.racer.losses import check_graded

        check_graded(arguments.loss, table_in(read).graded)
    return read


def _nothing_to_change(artefact: Path) -> DataError:
    """The error for an artefact that has no calibration, where no table is named."""
    return DataError("has no calibration to change: give labelled queries", path=artefact)


def calibrate(arguments: argparse.Namespace) -> None:
    """`calibrate`.

    Use this when a command line asks for a threshold; in Python, `Racer.calibrate` and
    `recalibrate`.
    """
    output = arguments.output or arguments.artefact
    racer = _serving(arguments, _racer(arguments))
    notes: Sequence[str] = ()
    if arguments.path:
        smaller = racer.without(*arguments.without) if arguments.without else racer
        options = {"by_group": not arguments.no_groups, **_options(arguments)}
        with work_bar("choose the questions", "choose the threshold") as bar:
            table, scores = labelled(
                arguments.read,
                Rows.of(arguments, "calibrate"),
                Source.of(arguments).name,
                smaller,
                recalibrating=True,
            )
            notes = table.notes
            bar.next()
            calibrated = smaller.calibrate(
                table,
                arguments.alpha,
                scores=scores,
                allow_overlap=arguments.allow_overlap,
                loss=arguments.loss,
                **options,
            )
    else:
        calibrated = _changed(arguments, racer)
    calibrated.save(output)
    print_notes(notes)
    describe(output, calibrated, arguments.json, notes)


def _check_applied(arguments: argparse.Namespace) -> None:
    """Refuses what would not be applied.

    Raises:
      ValueError: If an option is for a table and there is none, or for scores and there are none;
        if a table has no alpha, or nothing is to be changed.
    """
    if arguments.from_scores and not arguments.path:
        raise ValueError("--from-scores needs a score matrix (.npz) to read")
    if arguments.from_scores and arguments.without:
        raise ValueError(
            "--without leaves models out of an artefact that exists: make it with --from-scores "
            "first"
        )
    if not arguments.from_scores and (typed := _typed(arguments, _OF_SCORES)):
        raise ValueError(
            f"{typed[0]} is for an artefact that is made here, with --from-scores; this one keeps "
            f"what it was trained with: train it again"
        )
    if arguments.path:
        if arguments.alpha is None:
            raise ValueError("a calibration on a table needs --alpha, such as --alpha 0.1")
        return
    typed = _typed(arguments, _OF_A_TABLE)
    typed += [OPTIONS[name].flag for name in Source.of(arguments).options]
    if typed:
        raise ValueError(
            f"{typed[0]} is about the rows of a table, and none is named: without one the "
            f"questions of the last calibration are used as they are"
        )
    changes = ("alpha", "no_groups", "without", "form", "view")
    if not (any(getattr(arguments, name) for name in changes) or _options(arguments)):
        raise ValueError(
            "nothing is to be changed: give a table of labelled queries and --alpha, or what shall "
            "change, such as --alpha 0.05 or --without MODEL"
        )


def _typed(arguments: argparse.Namespace, options: dict[str, str]) -> list[str]:
    """Those of some options that were typed."""
    return [
        name for name, place in options.items() if getattr(arguments, place) not in (None, False)
    ]


def _options(arguments: argparse.Namespace) -> dict[str, Any]:
    """The options of the calibration that were typed, the groups aside."""
    names = ("fallback", "unknown_group", "delta", "max_models", "min_models")
    typed = {
        name: getattr(arguments, name) for name in names if getattr(arguments, name) is not None
    }
    return {name: None if value == OFF else value for name, value in typed.items()}


def _racer(arguments: argparse.Namespace) -> "Racer":
    """The artefact, or a new one of scores."""
    from racer_jax.racer.racer import Racer

    if not arguments.from_scores:
        return Racer.load(arguments.artefact)
    return Racer.from_scores(
        arguments.read.table.models,
        nonconformity=arguments.nonconformity or "inverse_probability",
        null=arguments.null or "paper",
        seed=None if arguments.no_tie_break else arguments.seed or 0,
    )


def _serving(arguments: argparse.Namespace, racer: "Racer") -> "Racer":
    """The racer with what the gateway must know of its answers and texts."""
    from dataclasses import replace

    if arguments.form is not None:
        racer = replace(racer, normal_form=arguments.form)
    return racer if arguments.view is None else replace(racer, view=arguments.view)


def _changed(arguments: argparse.Namespace, racer: "Racer") -> "Racer":
    """The racer with another alpha, other options, or without some models; no table is read.

    Raises:
      DataError: If it has no calibration, or one that does not say what it saw.
    """
    from racer_jax.racer.errors import NoRecordError

    if racer.calibration is None:
        raise _nothing_to_change(arguments.artefact)
    try:
        changed = racer.without(*arguments.without) if arguments.without else racer
        options = _options(arguments)
        if arguments.no_groups:
            options["by_group"] = False
        return changed.recalibrate(arguments.alpha, **options)
    except NoRecordError:
        raise DataError(
            "was written by an older version, which kept nothing but the threshold for each alpha: "
            "name a table of labelled queries too",
            path=arguments.artefact,
        ) from None
