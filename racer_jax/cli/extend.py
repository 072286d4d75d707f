"""`extend`: an artefact of a pool with further models."""

import argparse
from pathlib import Path

from racer_jax.cli import names
from racer_jax.cli.artefacts import describe
from racer_jax.cli.before import check_artefact_read, check_tables
from racer_jax.cli.options import (
    Subparsers,
    add_command,
    add_json,
    add_reading,
    add_reading_options,
)
from racer_jax.cli.output import print_notes
from racer_jax.cli.places import add_overwrite, check_artefact
from racer_jax.cli.reading import read_table
from racer_jax.cli.work_bar import work_bar


def add(subparsers: Subparsers) -> None:
    """The command of this module.

    Use this when the parser of all commands is built.
    """
    parser = add_command(
        subparsers,
        "extend",
        "Add models to the pool of an artefact: those that only the table has. The table must hold "
        "the questions the artefact was trained and calibrated on, with a result of every model, "
        "old and new. The router is trained again on the questions it was trained on, and the "
        "threshold is chosen on those it was calibrated on, with the same alpha and options.",
        """
racer-jax extend my.racer logs-with-the-new-model/ -o larger.racer""",
        check=_check,
        reads=read_table,
    )
    parser.add_argument("artefact", type=Path, metavar="ARTEFACT", help="folder of the artefact")
    add_reading(parser)
    parser.add_argument(
        "-o", "--output", type=Path, metavar="ARTEFACT", help="where to write (default: in place)"
    )
    add_overwrite(parser)
    parser.add_argument(
        "--router",
        choices=names.routers(),
        help="kind of the new router (default: that of the artefact)",
    )
    add_json(parser)
    add_reading_options(parser)
    parser.set_defaults(run=extend)


def _check(arguments: argparse.Namespace) -> None:
    """What can be said before anything is computed."""
    output = arguments.output or arguments.artefact
    check_artefact(output, overwrite=arguments.overwrite, changed=arguments.artefact)
    check_artefact_read(arguments.artefact)
    check_tables(arguments)


def extend(arguments: argparse.Namespace) -> None:
    """`extend`.

    Use this when a command line asks for a larger pool; in Python, `Racer.extended`.
    """
    import jax

    from racer_jax.racer.racer import Racer

    output = arguments.output or arguments.artefact
    racer = Racer.load(arguments.artefact)
    table = arguments.read
    with work_bar("train the router again and choose the threshold"):
        larger = racer.extended(jax.random.key(arguments.seed or 0), table, arguments.router)
    larger.save(output)
    print_notes(table.notes)
    describe(output, larger, arguments.json, table.notes)
