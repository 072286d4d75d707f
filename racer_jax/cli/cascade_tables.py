"""The rows that the commands of `cascade` work on."""

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


def answered_rows(
    arguments: argparse.Namespace, cascade: Cascade, *, recalibrating: bool = False
) -> RoutingTable:
    """The rows that the options ask for, of the table that was read for a cascade.

    A new calibration takes the place of the old one, so it may use its questions again; what is
    measured on used questions has a note.

    Use this when a command calibrates or measures a cascade.
    """
    from racer_jax.racer.usage import optimistic_notes

    rows = Rows.of(arguments, "calibrate" if recalibrating else "measure")
    table: RoutingTable = arguments.read
    if arguments.unseen:
        usage = cascade.usage(table)
        fresh = table.select(usage.unseen(calibrated=not recalibrating))
        table = replace(fresh, notes=[*fresh.notes, *usage.notes(recalibrating)])
    table = rows.select(table, Source.of(arguments).name)
    if not recalibrating:
        used = ~cascade.usage(table).unseen()
        table = replace(table, notes=[*optimistic_notes(used, "Cascade"), *table.notes])
    print_notes(table.notes)
    return table
