"""The columns of a wide table: which are models, and which stand beside them."""

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from racer_jax.data.errors import DataError
from racer_jax.data.formats._totals import about_total, is_total, numbers_rows
from racer_jax.data.remedies import Remedy

QUERY = ("query_id", "query", "group")
BESIDE = ("answer", "cost", "tokens")
# A remedy lists this many models, no more.
_MAX_LISTED, _LONGEST = 20, 200
# What data frames and spreadsheets call a column that numbers the rows.
_NUMBERING = re.compile(
    r"index|level_0|#|row|row_number|Unnamed: \d+(?:\.\d+)*|__index_level_\d+__", re.IGNORECASE
)
# What tables call columns beside those of models, where these hold numbers too.
_BESIDE_MODELS = frozenset(
    (
        *("label", "labels", "target", "targets", "gold", "expected", "reference", "ground_truth"),
        *("correct", "is_correct", "score", "answer", "difficulty", "level", "split", "fold", "id"),
    )
)
_NOT_MODELS = "columns that number the rows are not models"


def model_columns(path: Path, header: Sequence[str], accept: Callable[[str], None]) -> list[str]:
    """The columns that are models where no option names them: all but those of another use.

    Args:
      path: For the error.
      header: The columns.
      accept: Takes what is left out, for a note.

    Returns:
      The columns.

    Raises:
      DataError: If one has a name that no model has.
    """
    names = [name for name in header if name not in QUERY and "|" not in name]
    numbering = [name for name in names if _NUMBERING.fullmatch(name)]
    if numbering and len(numbering) < len(names):
        names = [name for name in names if name not in numbering]
        accept(f"{_NOT_MODELS}: {', '.join(numbering)} (else name all models)")
    if beside := [name for name in names if name.strip().casefold() in _BESIDE_MODELS]:
        raise no_model(path, beside[0], [name for name in names if name not in beside] or names)
    return names


def no_model(path: Path, field: str, names: Sequence[str]) -> DataError:
    """The error for a column that may hold something else than the results of a model."""
    return DataError(
        "must be the column of a model, and does not look like one",
        path=path,
        field=field,
        remedy=Remedy("pass {} to name the models", models=few(names)),
    )


def few(names: Sequence[str]) -> Any:
    """Names for a remedy, which lists a few and else the option alone."""
    is_readable = len(names) <= _MAX_LISTED and all(len(name) <= _LONGEST for name in names)
    return list(names) if is_readable else ...


def without_numbering(
    names: list[str], values: np.ndarray, accept: Callable[[str], None]
) -> tuple[list[str], np.ndarray]:
    """The models without the columns that count the rows, which a rule would take for scores."""
    places = [j for j in range(len(names)) if not numbers_rows(values[:, j].tolist())]
    if not places or len(places) == len(names):
        return names, values
    accept(f"{_NOT_MODELS}: {', '.join(name for j, name in enumerate(names) if j not in places)}")
    return [names[j] for j in places], values[:, places]


def check_last(path: Path, columns: Mapping[str, Any]) -> None:
    """Refuses a last question that looks like a row of totals."""
    for field in QUERY[:2]:
        if field in columns and is_total(text := columns[field][-1]):
            row = len(columns[field])
            raise DataError(about_total(text), path=path, row=row, field=field)
