"""Tables of other models on the same questions, side by side."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from racer_jax.data.errors import DataError
from racer_jax.data.table import RoutingTable


def unite(tables: Sequence[RoutingTable]) -> RoutingTable:
    """The models of several tables side by side, matched by the questions' ids.

    Use this when each model, or each run, has a table of its own; `concat` puts tables of other
    questions one after the other.

    Args:
      tables: At least one. A question may be in some of them only; its other pairs are missing.

    Returns:
      The table, questions and models in order of their first appearance. What a table does not know
      of its pairs (`graded`, `answers`, `cost`, `tokens`, a confidence scheme) is not known there.

    Raises:
      DataError: If a pair is in two tables, or a question has another text, group or label rule in
        one table than in another.
      ValueError: If there is no table.

    >>> a = RoutingTable(ids=["q"], texts=["1 + 1?"], models=["x"], correct=[[1]])
    >>> b = RoutingTable(ids=["q"], texts=["1 + 1?"], models=["y"], correct=[[0]])
    >>> both = unite([a, b])
    >>> both.models, both.correct.tolist()
    (('x', 'y'), [[True, False]])
    """
    if not tables:
        raise ValueError("tables must hold at least one table, got none")
    rows = _numbered(name for table in tables for name in table.ids)
    models = _numbered(name for table in tables for name in table.models)
    shape = (len(rows), len(models))
    missing = np.ones(shape, bool)
    correct = np.zeros(shape, bool)
    places = [
        np.ix_([rows[name] for name in table.ids], [models[name] for name in table.models])
        for table in tables
    ]
    for number, (table, place) in enumerate(zip(tables, places, strict=True)):
        present = np.ones(table.correct.shape, bool)
        if table.missing is not None:
            present = ~table.missing
        if (again := present & ~missing[place]).any():
            i, j = (int(k) for k in np.argwhere(again)[0])
            raise DataError(
                f"a pair must be in one table, got {table.models[j]!r} on {table.ids[i]!r} in "
                f"table {number} and in one before it"
            )
        correct[place] |= table.correct
        missing[place] &= ~present
    notes: list[str] = []
    for table in tables:
        notes.extend(note for note in table.notes if note not in notes)
    schemes = list(dict.fromkeys(scheme for table in tables for scheme in table.confidence))
    return RoutingTable(
        ids=list(rows),
        texts=_of_questions(tables, rows, "texts") or [],
        models=list(models),
        correct=correct,
        group=_of_questions(tables, rows, "group"),
        graded=_matrix([table.graded for table in tables], places, shape),
        answers=_matrix([table.answers for table in tables], places, shape),
        confidence={
            scheme: _matrix([table.confidence.get(scheme) for table in tables], places, shape)
            for scheme in schemes
        },
        cost=_matrix([table.cost for table in tables], places, shape),
        tokens=_matrix([table.tokens for table in tables], places, shape),
        price=_prices(tables, models),
        label_rule=_rule(tables),
        missing=missing if missing.any() else None,
        notes=notes,
    )


def _numbered(names: Any) -> dict[str, int]:
    """Names by the order of their first appearance."""
    return {name: number for number, name in enumerate(dict.fromkeys(names))}


def _of_questions(
    tables: Sequence[RoutingTable], rows: Mapping[str, int], field: str
) -> list[str] | None:
    """The texts or groups of the questions, which must be the same wherever they stand."""
    values: list[str | None] = [None] * len(rows)
    for table in tables:
        of_table = getattr(table, field)
        if of_table is None:
            continue
        for name, value in zip(table.ids, of_table, strict=True):
            known = values[rows[name]]
            if known is None or (known == "" and field == "texts"):
                values[rows[name]] = value
            elif known != value and value:
                raise DataError(
                    f"question {name!r} must be the same in all tables, got two {field}: "
                    f"{known[:60]!r} and {value[:60]!r}"
                )
    if all(value is None for value in values):
        return None
    if any(value is None for value in values):
        raise DataError(f"tables must all have a {field}, or none, got some of both")
    return [value or "" for value in values]


def _matrix(
    parts: Sequence[np.ndarray | None], places: Sequence[Any], shape: tuple[int, int]
) -> Any:
    """What is known of the pairs, NaN or None elsewhere; None where no table knows anything."""
    kinds = [part.dtype for part in parts if part is not None]
    if not kinds:
        return None
    whole = np.full(shape, None if kinds[0].kind == "O" else np.nan, dtype=kinds[0])
    for part, place in zip(parts, places, strict=True):
        if part is None:
            continue
        known = part != None if part.dtype.kind == "O" else ~np.isnan(part)  # noqa: E711
        whole[place] = np.where(known, part, whole[place])
    return whole


def _prices(tables: Sequence[RoutingTable], models: Mapping[str, int]) -> np.ndarray | None:
    """The prices of the models; NaN where no table says, None where none says anything."""
    if all(table.price is None for table in tables):
        return None
    prices = np.full(len(models), np.nan)
    for table in tables:
        if table.price is None:
            continue
        for name, price in zip(table.models, table.price.tolist(), strict=True):
            if not np.isnan(price):
                prices[models[name]] = price
    return prices


def _rule(tables: Sequence[RoutingTable]) -> str | dict[str, str]:
    """The label rule, one for all or one for each group."""
    names = {rule for table in tables for rule in table.rules.values()}
    if len(names) == 1:
        return names.pop()
    rules: dict[str, str] = {}
    for table in tables:
        if table.group is None:
            raise DataError(f"tables without groups must have one label rule, got {sorted(names)}")
        for group, rule in table.rules.items():
            if rules.setdefault(group, rule) != rule:
                raise DataError(
                    f"group {group!r} must have one label rule, got {rules[group]!r} and {rule!r}"
                )
    return rules
