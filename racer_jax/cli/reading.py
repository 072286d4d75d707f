"""The tables of a command, read before JAX is imported: what is wrong with one is said at once.

What draws rows or asks an artefact what it has seen needs JAX, and comes after: `Rows.select`.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from racer_jax.cli.before import check_artefact_read
from racer_jax.cli.inputs import Purpose, Rows
from racer_jax.cli.options import Source
from racer_jax.cli.work_bar import work_bar

if TYPE_CHECKING:
    from racer_jax.data.formats.score_matrix import ScoredTable
    from racer_jax.data.table import RoutingTable

Read = TypeVar("Read", bound="RoutingTable | ScoredTable")


def read_with(
    arguments: argparse.Namespace,
    read: Callable[[Source], Read],
    purpose: Purpose | None = None,
    paths: Sequence[Path] | None = None,
) -> Read:
    """What `read` makes of the tables, with every group in it that the options name.

    Use this when a command reads tables in a way of its own.

    Args:
      arguments: The options.
      read: Reads the tables, without JAX where their format needs none.
      purpose: What the rows are for, where the command has the options that choose some.
      paths: The tables, where they are not those of `add_reading`.

    Raises:
      DataError: If a table is not what it should be.
      ValueError: If a group is named that it does not have.
    """
    with work_bar("read the table"):
        result = read(Source.of(arguments, paths))
    if purpose is not None:
        Rows.of(arguments, purpose).check_groups(table_in(result))
    return result


def table_in(read: RoutingTable | ScoredTable) -> RoutingTable:
    """The table that was read, without its scores.

    Use this when a command looks at a table that may have scores beside it.
    """
    from racer_jax.data.table import RoutingTable

    return read if isinstance(read, RoutingTable) else read.table


def read_table(arguments: argparse.Namespace, purpose: Purpose | None = None) -> RoutingTable:
    """Every row of the tables.

    Use this when a command reads tables and no artefact says which models they must hold.

    Raises:
      DataError: If a table is not what it should be.
      ValueError: If a group is named that it does not have.
    """
    return read_with(arguments, Source.table, purpose)


def read_of_racer(
    arguments: argparse.Namespace, purpose: Purpose = "measure", without: Sequence[str] = ()
) -> RoutingTable | ScoredTable:
    """The rows that have a result of every model of a racer, with their scores where it needs them.

    Use this when a command measures or calibrates a racer.

    Args:
      arguments: The options, `artefact` among them.
      purpose: What the rows are for.
      without: Models that the racer is to do without.

    Raises:
      DataError: If the tables lack one of its models, or are not what they should be.
      ValueError: If `--models` names others than those of the racer, or a group is not there.
    """
    description = check_artefact_read(arguments.artefact)
    models = [name for name in description["models"] if name not in without]

    def read(source: Source) -> RoutingTable | ScoredTable:
        source.check_models(models)
        if description.get("router") is None:
            return source.scored_of(models)
        return source.table_of(models).complete()

    return read_with(arguments, read, purpose)


def read_of_cascade(
    arguments: argparse.Namespace, loss: str | None = None, purpose: Purpose = "measure"
) -> RoutingTable:
    """The rows with the answers, and the labels that a loss needs, of every model of a cascade.

    Use this when a command measures or calibrates a cascade.

    Args:
      arguments: The options, `artefact` among them.
      loss: The loss; that of its calibration, else of its training, where None.
      purpose: What the rows are for.

    Raises:
      DataError: If the tables lack one of its models, or are not what they should be.
      ValueError: If `--models` names others than those of the cascade, a group is not there, or
        answers or labels are missing.
    """
    from racer_jax.sequential.logged_tables import check_logged

    description = check_artefact_read(arguments.artefact, "cascade")
    stop = description["calibration"] or description["policy"]
    name = loss or stop["loss"]

    def read(source: Source) -> RoutingTable:
        source = replace(source, of_racer=False)
        source.check_models(description["models"])
        return labelled_rows(source.table_of(description["models"]), name)

    table = read_with(arguments, read, purpose)
    check_logged(table)
    return table


def labelled_rows(table: RoutingTable, loss: str) -> RoutingTable:
    """The rows that have every label; all of them where there is none and the loss needs none.

    Use this when a cascade is trained or measured on a table.

    Raises:
      ValueError: If there is no label and the loss needs them.
    """
    from racer_jax.sequential.logged_tables import is_unlabelled

    if not is_unlabelled(table):
        return table.complete()
    if loss != "differs":
        raise ValueError(
            f"the questions have no labels, which the loss {loss!r} needs: --loss differs does "
            "without (it bounds how often the answer is not that of the vote of all models)"
        )
    return table
