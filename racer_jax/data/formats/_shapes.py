"""Shapes of tables that are not read as they are: titles above a header, JSON by column."""

import csv
from collections.abc import Iterable, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from racer_jax.data.formats._source import opened

# A header is looked for in so many lines, of so many bytes.
_MOST_LINES, _MOST_BYTES = 12, 1 << 16
_DELIMITERS = (",", ";", "\t", "|")
# Of one of each the header of a table has at least one.
_QUERIES = frozenset({"query", "query_id", "prompt", "question", "prompt_id", "question_id"})
# What data frames call the parts of their JSON.
_PARTS = ({"columns", "data"}, {"schema", "data"})


def line_of_header(path: Path) -> int | None:
    """The line that seems to name the columns of a table, where it is not the first; else None."""
    with opened(path) as file:
        text = file.read(_MOST_BYTES).decode("utf-8-sig", errors="replace")
    for number, line in enumerate(islice(text.splitlines(), _MOST_LINES), start=1):
        for delimiter in _DELIMITERS:
            names = _fields(line, delimiter)
            if len(names) > 1 and _QUERIES & set(names):
                return number if number > 1 else None
    return None


def _fields(line: str, delimiter: str) -> list[str]:
    """The fields of a line, in lower case; none where it cannot be taken apart."""
    try:
        fields = next(csv.reader([line], delimiter=delimiter), [])
    except csv.Error:
        return []
    return [field.strip().casefold() for field in fields]


def is_by_column(record: Mapping[str, Any], names: Iterable[str]) -> bool:
    """Whether an object holds a table by column: every column as a list or an object."""
    if any(parts <= set(record) for parts in _PARTS):
        return True
    values = [record[name] for name in names if name in record]
    return bool(values) and all(isinstance(value, list | dict) for value in record.values())
