"""A bare score matrix as `.npz`: `scores` [n, m] of any router, and `correct` [n, m].

`models` [m], `ids` [n], `texts` [n] and `group` [n] are optional arrays of strings.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from racer_jax.data.errors import DataError
from racer_jax.data.formats._cells import built
from racer_jax.data.formats._npz import open_npz
from racer_jax.data.table import RoutingTable


class ScoredTable(NamedTuple):
    """Labelled queries and a router's scores of them.

    Use this when you read what `read_score_matrix` returns.

    Attributes:
      table: The queries and which models answered them rightly.
      scores: Router scores in [0, 1], float32 `[n, m]`.
    """

    table: RoutingTable
    scores: np.ndarray


def read_score_matrix(path: str | Path) -> ScoredTable:
    """Reads a score matrix and its labels.

    Use this when the file holds the scores of a router beside the labels; `load` reads the table of
    such a file without the scores.

    Args:
      path: The `.npz` file.

    Returns:
      The table and the scores; queries and models are numbered where the file does not name them.

    Raises:
      DataError: If the file is not what it should be; it names file, row and field.
    """
    path = Path(path)
    with open_npz(path) as archive:
        correct = archive.array("correct", "biuf", 2)
        scores = archive.array("scores", "f", 2)
        n, m = correct.shape
        if not n or not m:
            raise DataError(
                f"must hold at least one query and one model, got shape {(n, m)}",
                path=path,
                field="correct",
            )
        names: dict[str, list[str] | None] = {}
        for field, size in (("models", m), ("ids", n), ("texts", n), ("group", n)):
            names[field] = archive.array(field, "U", 1).tolist() if field in archive else None
            if (values := names[field]) is not None and len(values) != size:
                raise DataError(
                    f"must hold {size} strings to fit correct, got {len(values)}",
                    path=path,
                    field=field,
                )
    if scores.shape != correct.shape:
        raise DataError(
            f"must have the shape of correct, {correct.shape}, got {scores.shape}",
            path=path,
            field="scores",
        )
    for field, array, valid, rule in (
        ("correct", correct, (correct == 0) | (correct == 1), "0 or 1"),
        ("scores", scores, (scores >= 0) & (scores <= 1), "in [0, 1]"),
    ):
        if not valid.all():
            i, j = (int(k) for k in np.argwhere(~valid)[0])
            raise DataError(
                f"must be {rule}, got {array[i, j]} in column {j + 1}",
                path=path,
                row=i + 1,
                field=field,
            )
    table = built(
        path,
        ids=names["ids"] or [str(row) for row in range(1, n + 1)],
        texts=names["texts"] or [""] * n,
        models=names["models"] or [f"model_{j}" for j in range(1, m + 1)],
        correct=correct,
        group=names["group"],
    )
    return ScoredTable(table, scores.astype(np.float32))
