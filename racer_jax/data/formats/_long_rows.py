"""What long rows share, wherever they come from: a CSV, lines, a data frame or Parquet."""

from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from racer_jax.data.errors import DataError
from racer_jax.data.formats._cells import Grid, Rules, labels_by_rule, object_matrix, repeated
from racer_jax.data.formats._columns import first_difference
from racer_jax.data.formats._synonyms import other_names
from racer_jax.data.labels import GIVEN
from racer_jax.data.remedies import Remedy

CONFIDENCE = "confidence_"
# Makes an error of a message, a row counted from 1 and a field.
MakeError = Callable[[str, int, str], DataError]
# The strings that the codes of a column stand for.
Names = Callable[[str], list[str]]


def check_pairs(columns: Mapping[str, Any], identity: str, names: Names, error: MakeError) -> None:
    """Refuses a pair of query and model that stands twice, and a query that changes."""
    query, model = columns[identity], columns["model"]
    ids, models = names(identity), names("model")
    if (twice := repeated(query * len(models) + model)) is not None:
        first, again = twice
        raise error(
            f"must be given once for query {ids[query[again]]!r} and model "
            f"{models[model[again]]!r}, got it in row {first + 1} already",
            again + 1,
            "model",
        )
    for name in ("query", "group"):
        if name not in columns or name == identity:
            continue
        if (differs := first_difference(columns[name], query)) is not None:
            row, first = differs
            raise error(
                f"must be the same in every row of query {ids[query[row]]!r}, got another than in "
                f"row {first + 1}",
                row + 1,
                name,
            )


def fields_of(
    place: Grid, columns: Mapping[str, Any], identity: str, names: Names
) -> dict[str, Any]:
    """All fields of a table but the labels."""
    ids = names(identity)
    firsts = np.unique(columns[identity], return_index=True)[1]

    def per_query(name: str) -> list[str]:
        values = names(name)
        return [values[code] for code in columns[name][firsts].tolist()]

    fields: dict[str, Any] = {
        "ids": ids,
        "models": names("model"),
        "texts": per_query("query") if "query" in columns else [""] * len(ids),
        "group": None,
        "answers": None,
    }
    if "group" in columns:
        fields["group"] = per_query("group")
    if "answer" in columns:
        fields["answers"] = object_matrix(place, columns["answer"])
    for name, field in (("score", "graded"), ("cost", "cost"), ("tokens", "tokens")):
        if name in columns:
            fields[field] = place.fill(columns[name], np.nan)
    fields["confidence"] = {
        name.removeprefix(CONFIDENCE): place.fill(column, np.nan)
        for name, column in columns.items()
        if name.startswith(CONFIDENCE)
    }
    return fields


def is_unlabelled(names: Collection[str], rule: Rules | None) -> bool:
    """Whether rows hold answers and nothing that a label could come from."""
    return rule is None and "answer" in names and not {"correct", "score"} & set(names)


def or_unlabelled(header: Iterable[str]) -> Remedy:
    """What to pass where rows hold answers and no labels."""
    name: Any = (other_names(header) or {}).get("correct")
    value = ... if name is None else {"correct": name}
    return Remedy("if it has another name pass {}", columns=value).then(
        Remedy(
            "to read the answers as unlabelled, which the loss 'differs' of a cascade takes, "
            "pass {}",
            missing="keep",
        )
    )


def add_labels(
    path: Path,
    fields: dict[str, Any],
    place: Grid,
    columns: Mapping[str, Any],
    rule: Rules | None,
    key: jax.Array | None,
) -> None:
    """The labels of a table: those of the rows, or what a rule makes of the scores."""
    if rule is None:
        # Rows without the column are unlabelled.
        labels = columns.get("correct", np.full(len(columns["model"]), -1))
        marks = place.fill(labels, -1)
        fields |= {"correct": marks == 1, "missing": marks == -1, "label_rule": GIVEN}
        return
    labels = labels_by_rule(path, fields["graded"], fields["group"], rule, key)
    fields |= {"correct": labels.correct, "missing": labels.missing, "label_rule": labels.rule}


def prices_of(prices: list[Any] | None) -> np.ndarray | None:
    """The prices of an exported table, null where not known.

    Raises:
      TypeError, ValueError or OverflowError: If they are no numbers.
    """
    if prices is None:
        return None
    return np.array([np.nan if price is None else price for price in prices], dtype=float)
