"""The tables that the commands of `cascade` read."""

from __future__ import annotations

import argparse
from dataclasses import replace
from typing import TYPE_CHECKING

from racer_jax.cli.inputs import Rows
from racer_jax.cli.options import Source
from racer_jax.cli.output import print_notes

if TYPE_CHECKING:
    from racer_jax.data.table import RoutingTable
    from racer_jax.serving.cascade import Cascade


def labelled_rows(table: RoutingTable, loss: str) -> RoutingTable:
    """The rows that have every label; all of them where there is none and the loss needs none.

    Use this when a cascade is trained or measured on a table.

    Raises:
      ValueError: If there is no label and the loss needs them.
    """
    from racer_jax.sequential.policy import is_unlabelled

    if not is_unlabelled(table):
        return table.complete()
    if loss != "differs":
        raise ValueError(
            f"the questions have no labels, which the loss {loss!r} needs: --loss differs does "
            "without (it bounds how often the answer is not that of the vote of all models)"
        )
    return table


def answered_rows(
    arguments: argparse.Namespace, cascade: Cascade, loss: str, *, recalibrating: bool = False
) -> RoutingTable:
    """The rows that the options ask for; a loss that needs no labels keeps those without.

    A new calibration takes the place of the old one, so it may use its questions again; what is
    measured on used questions has a note.

    Use this when a command calibrates or measures a cascade.
    """
    from racer_jax.racer.usage import optimistic_notes

    rows = Rows.of(arguments, "calibrate" if recalibrating else "measure")
    source = replace(Source.of(arguments), of_racer=False)
    table = labelled_rows(source.table_of(cascade.models), loss)
    if arguments.unseen:
        usage = cascade.usage(table)
        fresh = table.select(usage.unseen(calibrated=not recalibrating))
        table = replace(fresh, notes=[*fresh.notes, *usage.notes(recalibrating)])
    table = rows.select(table, source.name)
    if not recalibrating:
        used = ~cascade.usage(table).unseen()
        table = replace(table, notes=[*optimistic_notes(used, "Cascade"), *table.notes])
    print_notes(table.notes)
    return table
