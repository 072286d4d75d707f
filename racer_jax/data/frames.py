"""Tables of data frames, by the readers of CSV files."""

from typing import Any

from racer_jax.data.formats._synonyms import is_long, refuse_other_names
from racer_jax.data.formats._tables import frame_rows
from racer_jax.data.formats.long_csv import COLUMNS, table_of_long_rows
from racer_jax.data.formats.wide_csv import table_of_wide_rows
from racer_jax.data.table import RoutingTable


def table_of_frame(frame: Any, **options: Any) -> RoutingTable:
    """The table of a data frame; see `RoutingTable.from_frame`.

    Use this when results are in a data frame of pandas or polars.
    """
    rows = frame_rows(frame, COLUMNS, options.pop("columns", None))
    if "models" not in options:
        refuse_other_names(rows.path, rows.header)
    read = table_of_long_rows if is_long(rows.columns, None) else table_of_wide_rows
    return read(rows, **options)
