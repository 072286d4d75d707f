"""From a list of (query, model) results to a matrix.

What is missing or named twice is reported, never filled in.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, get_args

import numpy as np

from racer_jax.data.errors import DataError
from racer_jax.data.formats._texts import Texts
from racer_jax.data.labels import GIVEN, LabelRule, for_name, key_of_part
from racer_jax.data.remedies import Remedy
from racer_jax.data.table import RoutingTable

if TYPE_CHECKING:
    import jax

Rules = str | Mapping[str, str]

Missing = Literal["error", "drop", "keep"]
# What to pass where a score is neither 0 nor 1.
GRADED = Remedy("for graded scores pass, for example: {}", label_rule="score > 0.5")
# A table may have this many cells for each result read, beyond the first million; a sparser list is
# a mistake, and its matrix would not fit in memory.
_MAX_SPARSITY = 20
# Results are put into a matrix so many at a time.
_CHUNK = 1 << 16


def check_missing(missing: str) -> None:
    """Refuses an unknown policy."""
    if missing not in get_args(Missing):
        raise ValueError(f"missing must be one of {get_args(Missing)}, got {missing!r}")


class Grid(NamedTuple):
    """Where each result stands in the matrix.

    Attributes:
      places: Flat position of each result in the matrix, int32 `[k]`, or int64 where needed.
      shape: (queries, models).
    """

    places: np.ndarray
    shape: tuple[int, int]

    def fill(self, values: Any, default: Any, dtype: Any = None) -> np.ndarray:
        """The matrix `[n, m]` of one value for each result, `default` where there is none."""
        values = np.asarray(values, dtype=dtype)
        matrix = np.full(self.shape, default, dtype=values.dtype)
        matrix.reshape(-1)[self.places] = values
        return matrix


def repeated(index: np.ndarray) -> tuple[int, int] | None:
    """The places of the first result that repeats a pair, and of the one it repeats, if any."""
    order = np.argsort(index, kind="stable")
    again = np.flatnonzero(np.diff(index[order]) == 0)
    if not len(again):
        return None
    later = int(order[again + 1].min())
    return int(np.flatnonzero(index == index[later])[0]), later


def grid(queries: np.ndarray, models: np.ndarray, shape: tuple[int, int], path: Path) -> Grid:
    """The places of results by the codes of their query and model.

    Args:
      queries: Code of the query of each result, `[k]`.
      models: Code of its model, `[k]`.
      shape: Numbers of queries and models.
      path: For the error.

    Returns:
      The grid.

    Raises:
      DataError: If there are so few results for so many queries and models that something else is
        wrong.
    """
    check_full(len(queries), shape, path)
    cells = shape[0] * shape[1]
    kind = np.int32 if cells <= np.iinfo(np.int32).max else np.int64
    places: np.ndarray = queries.astype(kind)
    np.multiply(places, shape[1], out=places)
    np.add(places, models.astype(kind), out=places)
    return Grid(places, shape)


def check_full(num_results: int, shape: tuple[int, int], path: Path) -> None:
    """Refuses so few results for so many queries and models that something else is wrong."""
    if shape[0] * shape[1] > 1_000_000 + _MAX_SPARSITY * num_results:
        raise DataError(
            f"must hold most of the pairs, got {num_results} results for {shape[0]} queries x "
            f"{shape[1]} models",
            path=path,
        )


def built(path: Path, without_text: Sequence[str] = (), **fields: Any) -> RoutingTable:
    """A table of what a file says; what is wrong with it as a table is wrong with the file.

    A note says how many questions have no text, since no router can be trained on their texts.

    Args:
      path: The file or folder.
      without_text: Where the questions without text stand, if the reader knows.
      **fields: Those of the table.

    Returns:
      The table.

    Raises:
      DataError: If they make no table.
    """
    fields["notes"] = [*fields.get("notes", ()), *_without_text(path, fields, without_text)]
    for field in [*fields.values(), *fields.get("confidence", {}).values()]:
        if isinstance(field, np.ndarray):
            field.flags.writeable = False  # so that the table need not copy it
    try:
        return RoutingTable(**fields)
    except (ValueError, TypeError) as error:
        raise DataError(f"must hold a valid table: {error}", path=path) from None


def _without_text(path: Path, fields: Mapping[str, Any], places: Sequence[str]) -> list[str]:
    """A note on questions without text: how many, and the first of them."""
    texts = fields["texts"]
    empty = [row for row, text in enumerate(texts) if not text.strip()]
    if not empty:
        return []
    if len(empty) == len(texts):
        return [f"{path.name} holds no text of any question"]
    first = f"question {empty[0] + 1}, {fields['ids'][empty[0]]!r}"
    if places:
        first = f"that of {places[0]}"
    return [
        f"{len(empty)} of {len(texts)} questions of {path.name} have no text, the first is {first}"
    ]


class Labels(NamedTuple):
    """What a rule makes of scores.

    Attributes:
      correct: Who is right, bool `[n, m]`; False where missing.
      missing: Which scores are not known, bool `[n, m]`.
      rule: The rule's name, or one for each group where there are several.
      graded: The scores; None where there is no rule, so that they say no more than `correct`.
    """

    correct: np.ndarray
    missing: np.ndarray
    rule: str | dict[str, str]
    graded: np.ndarray | None = None


def check_rule(label_rule: Rules | None) -> None:
    """Refuses what is not the name of a rule, before anything is read."""
    if label_rule is None:
        return
    for name in label_rule.values() if isinstance(label_rule, Mapping) else [label_rule]:
        LabelRule.parse(name)


def labels_by_rule(
    path: Path,
    scores: np.ndarray,
    groups: Sequence[str] | None,
    label_rule: Rules | None,
    key: jax.Array | None = None,
) -> Labels:
    """Labels of scores, by one rule or by that of each group.

    Args:
      path: For the error.
      scores: Scores `[n, m]`, NaN where not known; 0 or 1 where no rule is named.
      groups: Group of each row, or None.
      label_rule: The rule, one by name or pattern of the group, or None.
      key: A typed PRNG key, for the rule `one attempt` alone.

    Returns:
      The labels.

    Raises:
      DataError: If a rule was made for scores of another scale, a group without a rule holds graded
        scores, or a rule draws an attempt and there is no key.
    """
    missing = np.isnan(scores)
    finite_scores = np.where(missing, 0.0, scores)
    if label_rule is None:
        return Labels(finite_scores == 1, missing, GIVEN)
    if isinstance(label_rule, str) or groups is None:
        if not isinstance(label_rule, str):
            raise DataError(
                "must have groups for a label rule by group, got none",
                path=path,
                remedy=Remedy("pass one rule for all, such as {}", label_rule="score > 0.5"),
            )
        rule = LabelRule.parse(label_rule)
        check_scale(path, rule, finite_scores)
        correct = rule.apply(finite_scores, key) & ~missing
        return Labels(correct, missing, rule.name, scores)
    correct = np.zeros(scores.shape, bool)
    names: dict[str, str] = {}
    codes = {group: code for code, group in enumerate(dict.fromkeys(groups))}
    of_row = np.array([codes[group] for group in groups], dtype=np.int64)
    for group, code in codes.items():
        rows = of_row == code
        group_rule = for_name(label_rule, group)
        if group_rule is None:
            fractions = (finite_scores[rows] != 0) & (finite_scores[rows] != 1)
            if fractions.any():
                raise DataError(
                    f"must be 0 or 1 where no label rule is named, got "
                    f"{finite_scores[rows][fractions][0]:g} in group {group!r}",
                    path=path,
                    remedy=Remedy("pass {}", label_rule={**label_rule, group: "score > 0.5"}),
                )
            correct[rows], names[group] = finite_scores[rows] == 1, GIVEN
            continue
        rule = LabelRule.parse(group_rule)
        check_scale(path, rule, finite_scores[rows])
        labels_of_group = rule.apply(finite_scores[rows], key_of_part(key, code))
        correct[rows], names[group] = labels_of_group, rule.name
    return Labels(correct & ~missing, missing, names, scores)


def check_scale(path: Path, rule: LabelRule, scores: np.ndarray) -> None:
    """Asks about scores of 0 to 100 under a rule for 0 to 1, which would find all right."""
    if rule.threshold is None or not scores.size:
        return
    top = float(scores.max())
    if rule.threshold >= 1 and 0 < top <= 1 and scores.min() >= 0 and not rule.apply(scores).any():
        share = rule.name.replace(rule.name.split()[-1], f"{rule.threshold / 100:g}")
        raise DataError(
            f"must hold a score that is right by the rule {rule.name!r}, got scores up to {top:g}",
            path=path,
            remedy=Remedy("if they are shares of 1 pass {}", label_rule=share),
        )
    if 0 < rule.threshold < 1 and 1 < top <= 100 and scores.min() >= 0:
        most, scale = (100, "percentages") if top > 10 else (10, "of 0 to 10")
        share = rule.name.replace(repr(rule.threshold), f"{most * rule.threshold:.12g}")
        raise DataError(
            f"must be in [0, 1] for the rule {rule.name!r}, got scores up to {top:g}",
            path=path,
            remedy=Remedy(f"if they are {scale} pass {{}}, else divide them", label_rule=share),
        )


def settle_missing(
    table: RoutingTable, missing: Missing, path: Path, because: Sequence[str] = ()
) -> RoutingTable:
    """The table under a policy for pairs that were not evaluated.

    Args:
      table: As read.
      missing: `error` refuses them, `drop` leaves out their queries and says so in a note, `keep`
        keeps them marked.
      path: For the error.
      because: What reading did that may be why pairs are missing, one sentence each.

    Returns:
      The table.

    Raises:
      DataError: If there are such pairs and the policy is `error`, or no whole query is left.
    """
    if table.missing is None:
        return table
    report = "; ".join([missing_report(table), *because])
    if missing == "error":
        raise DataError(
            f"must hold a result for every query and model, {report}",
            path=path,
            remedy=Remedy(
                "pass {} to leave these queries out or {} to keep them marked",
                ("missing", "drop"),
                ("missing", "keep"),
            ),
        )
    if missing == "keep":
        return table
    whole = table.complete()
    if not len(whole):
        raise DataError(
            f"must hold a result of every model for at least one query, {report}", path=path
        )
    return whole


def missing_report(table: RoutingTable) -> str:
    """What is missing, in one line: how many pairs, of which models, and the first of them."""
    if table.missing is None:
        return "nothing is missing"
    holes = table.missing.sum(axis=0)
    models = ", ".join(
        f"{table.models[j]} {holes[j]}" for j in np.argsort(-holes, kind="stable")[:5] if holes[j]
    )
    i, j = (int(k) for k in np.argwhere(table.missing)[0])
    return (
        f"{int(holes.sum())} of {table.missing.size} are missing ({models}), "
        f"the first for query {table.ids[i]!r} and model {table.models[j]!r}"
    )


def object_matrix(place: Grid, values: Sequence[str | None] | Texts) -> np.ndarray:
    """A matrix of strings, None where there is none."""
    matrix = np.full(place.shape, None, dtype=object)
    flat = matrix.reshape(-1)
    for start in range(0, len(values), _CHUNK):
        part = slice(start, start + _CHUNK)
        texts = values[part]
        column = np.empty(len(texts), dtype=object)
        column[:] = texts
        flat[place.places[part]] = column
    return matrix
