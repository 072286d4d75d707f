"""Several tables as one, with a note on whatever could not be kept."""

from collections.abc import Sequence
from typing import Any, Literal, get_args

import numpy as np

from racer_jax.data.errors import DataError
from racer_jax.data.pools import unite
from racer_jax.data.remedies import Remedy
from racer_jax.data.table import RoutingTable

Pools = Literal["match", "intersect", "unite"]


def concat(tables: Sequence[RoutingTable], pools: Pools = "match") -> RoutingTable:
    """The queries of several tables, one after the other.

    Use this when the tables are already in memory; `load` joins several files itself.

    Args:
      tables: At least one; no two with a query of the same id, and either all with groups or none.
      pools: `match` demands the same models in every table (their order is that of the first);
        `intersect` keeps the models that all tables hold, and a note names those left out; `unite`
        puts tables of other models on the same questions side by side, see `unite`.

    Returns:
      The table. What only some tables know (`graded`, `answers`, `cost`, `tokens`, `price`, a
      confidence scheme) is left out, and a note says so.

    Raises:
      DataError: If the pools do not match, an id is in two tables, or the label rules differ and
        cannot be kept apart because the tables have no groups, or share one.
      ValueError: If there is no table.

    >>> a = RoutingTable(ids=["a"], texts=["1 + 1?"], models=["x", "y"], correct=[[1, 0]])
    >>> b = RoutingTable(ids=["b"], texts=["2 + 2?"], models=["z", "x"], correct=[[1, 1]])
    >>> both = concat([a, b], pools="intersect")
    >>> both.models, both.correct.tolist(), both.notes
    (('x',), [[True], [True]], ('models not in every table were left out: y, z',))
    """
    if pools not in get_args(Pools):
        raise ValueError(f"pools must be one of {get_args(Pools)}, got {pools!r}")
    if not tables:
        raise ValueError("tables must hold at least one table, got none")
    if pools == "unite":
        return unite(tables)
    models, notes = _pool(tables, pools)
    tables = [table if table.models == models else table.select(models=models) for table in tables]
    _check_ids(tables)
    for table in tables:
        notes.extend(note for note in table.notes if note not in notes)
    fields: dict[str, Any] = {}
    for name in ("graded", "answers", "cost", "tokens"):
        if all(getattr(table, name) is not None for table in tables):
            fields[name] = np.concatenate([getattr(table, name) for table in tables])
        elif any(getattr(table, name) is not None for table in tables):
            notes.append(f"{name} is not in every table and was left out")
    schemes = list(dict.fromkeys(scheme for table in tables for scheme in table.confidence))
    schemes_of_all = [
        scheme for scheme in schemes if all(scheme in table.confidence for table in tables)
    ]
    notes.extend(
        f"confidence {s!r} is not in every table and was left out"
        for s in schemes
        if s not in schemes_of_all
    )
    price = tables[0].price
    if any(not _equal(price, table.price) for table in tables):
        price = None
        notes.append("price is not the same in every table and was left out")
    missing = None
    if any(table.missing is not None for table in tables):
        blank = [
            np.zeros(table.correct.shape, bool) if table.missing is None else table.missing
            for table in tables
        ]
        missing = np.concatenate(blank)
    has_groups = {table.group is not None for table in tables if len(table)}
    if len(has_groups) > 1:
        raise DataError("tables must all have groups, or none, got some of both")
    return RoutingTable(
        ids=[name for table in tables for name in table.ids],
        texts=[text for table in tables for text in table.texts],
        models=models,
        correct=np.concatenate([table.correct for table in tables]),
        group=[name for table in tables for name in table.group or ()]
        if has_groups == {True}
        else None,
        confidence={
            scheme: np.concatenate([table.confidence[scheme] for table in tables])
            for scheme in schemes_of_all
        },
        price=price,
        label_rule=_rule(tables),
        missing=missing,
        notes=notes,
        **fields,
    )


def _pool(tables: Sequence[RoutingTable], pools: Pools) -> tuple[tuple[str, ...], list[str]]:
    models = tuple(tables[0].models)
    pools_of = [frozenset(table.models) for table in tables]
    everywhere = [name for name in models if all(name in pool for pool in pools_of)]
    left_out = sorted({name for table in tables for name in table.models} - set(everywhere))
    if not left_out:
        return models, []
    again = len({name for table in tables for name in table.ids}) < sum(map(len, tables))
    aside = Remedy("pass {} to put models of the same questions side by side", pools="unite")
    in_common = Remedy(
        f"pass {{}} to keep the {len(everywhere)} models of all tables", pools="intersect"
    )
    if pools == "match":
        raise DataError(
            f"tables must hold the same models, got {left_out[0]!r} in some but not all",
            remedy=aside if again or not everywhere else in_common,
        )
    if not everywhere:
        raise DataError("tables must have a model in common, got none", remedy=aside)
    return tuple(everywhere), [f"models not in every table were left out: {', '.join(left_out)}"]


def _check_ids(tables: Sequence[RoutingTable]) -> None:
    first_row: dict[str, int] = {}
    for number, table in enumerate(tables):
        for name in table.ids:
            if first_row.setdefault(name, number) != number:
                raise DataError(
                    f"ids must be unique over the tables, got {name!r} in tables "
                    f"{first_row[name]} and {number}"
                )


def _equal(a: np.ndarray | None, b: np.ndarray | None) -> bool:
    return (a is None and b is None) or (
        a is not None and b is not None and np.array_equal(a, b, equal_nan=True)
    )


def _rule(tables: Sequence[RoutingTable]) -> str | dict[str, str]:
    names = {rule for table in tables for rule in table.rules.values()}
    if len(names) == 1:
        return names.pop()
    rules: dict[str, str] = {}
    for table in tables:
        if table.group is None and len(table):
            raise DataError(f"tables without groups must have one label rule, got {sorted(names)}")
        for group, rule in table.rules.items():
            if rules.setdefault(group, rule) != rule:
                raise DataError(
                    f"group {group!r} must have one label rule, got {rules[group]!r} and {rule!r}"
                )
    return rules
