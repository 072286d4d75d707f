"""The one reader of the studies: what trains, and what is calibrated and tested, from any source.

The embedded simulated pool, RouterDC's train and test files, or any routing table, of which a
random share of the questions then trains.
"""

from collections.abc import Sequence
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import jax
import numpy as np

from racer_jax.data import RoutingTable, load, read_routerdc_parts, simulated_pool
from racer_jax.data.combine import concat
from racer_jax.data.formats.routerdc import TrainTest
from racer_jax.data.guessing import guess
from racer_jax.data.splits import split
from racer_jax.data.texts import normal_text

# Tables as they were read: both parts, or one table that is yet to be split.
Source: TypeAlias = TrainTest | RoutingTable


class Parts(NamedTuple):
    """Rows to learn from and rows to calibrate and test on, both with groups.

    Use this when you read what `two_parts` returns.

    Attributes:
      train: Training rows.
      test: Rows without repeats of a question and without questions of the training rows.
      notes: By group, what was left out; empty where nothing was.
    """

    train: RoutingTable
    test: RoutingTable
    notes: dict[str, str]


def read_source(key: jax.Array, data: Path | None, **options: Any) -> Source:
    """The simulated pool, RouterDC's two parts, or any other table.

    Use this when an experiment takes `--data`.

    Args:
      key: A typed PRNG key; it makes the simulated pool, and is not used for data that is read.
      data: A folder of RouterDC's JSON files, anything else that `racer_jax.data.load` reads, or
        None for the simulated pool.
      **options: Options of the reader, such as `label_rule` or `missing`; those that are None are
        left out.

    Returns:
      Training and test tables where the data brings both, else the one table.

    Raises:
      DataError: If a file is not what it should be.
      ValueError: If an option does not fit the data.
    """
    options = {name: value for name, value in options.items() if value is not None}
    if data is None:
        pool = simulated_pool(key).values()
        return TrainTest(concat([p.train for p in pool]), concat([p.test for p in pool]))
    if data.is_dir() and guess(data) == "routerdc":
        options.pop("missing", None)  # these files hold a result of every model
        return read_routerdc_parts(data, **options)
    return load(data, **options)


def two_parts(key: jax.Array, source: Source, share: float) -> TrainTest:
    """The training part and the rest: as the source brings them, or split at random by question.

    Use this when a study needs rows to learn from and rows to test on.

    Args:
      key: A typed PRNG key of the split.
      source: From `read_source`.
      share: Share of the questions that train, in (0, 1), where the source is one table.

    Returns:
      Both tables.
    """
    if isinstance(source, TrainTest):
        return source
    exact = Decimal(str(share))
    rows = split(key, source, (float(exact), 0.0, float(1 - exact)))
    return TrainTest(source.select(rows.calibration), source.select(rows.test))


def read_parts(
    key: jax.Array,
    data: Path | None,
    *,
    share: float = 0.4,
    missing: str = "error",
    queries: int = 0,
) -> Parts:
    """Training rows, and the rows left over that no router has seen, by group.

    Use this when a study splits its data once.

    Args:
      key: A typed PRNG key, of the simulation or the split.
      data: As in `read_source`.
      share: Share of the questions that train, where the data brings no training part of its own.
      missing: What becomes of queries without a result for every model, in formats that have such:
        `error` or `drop`.
      queries: At most so many rows of each group in either part; 0 for all.

    Returns:
      The parts; a table without groups is one group, named after its file.

    Raises:
      DataError: If the data is not what it should be.
      ValueError: If an option does not fit it.
    """
    source = read_source(key, data, missing=None if missing == "error" else missing)
    if isinstance(source, RoutingTable) and source.group is None and data is not None:
        source = replace(source, group=[data.stem] * len(source))
    train, rest = two_parts(key, source, share)
    if data is None:  # the simulation never repeats a question
        test, notes = rest, dict.fromkeys(rest.groups, "")
    else:
        by_group = unseen_by_group(train, rest)
        test = concat([rows for rows, _ in by_group.values()])
        notes = {name: note for name, (_, note) in by_group.items()}
    return Parts(first_of_each_group(train, queries), first_of_each_group(test, queries), notes)


def unseen_questions(train: RoutingTable, test: RoutingTable) -> tuple[RoutingTable, str]:
    """The test rows without repeats of a question and without questions of the training part.

    So no question stands on both sides of a split, and the rows are exchangeable.

    Use this when a corpus comes with repeats between its parts.

    Args:
      train: What the router was trained on.
      test: What is to be calibrated and tested on.

    Returns:
      The rows left, and a sentence on what was left out; empty where nothing was.
    """
    train_texts = {normal_text(text) for text in train.texts}
    _, first = np.unique(test.question_ids, return_index=True)
    keep = [int(i) for i in np.sort(first) if normal_text(test.texts[i]) not in train_texts]
    num_repeats, num_leaks = len(test) - len(first), len(first) - len(keep)
    note = ""
    if num_repeats or num_leaks:
        note = f"left out {num_repeats} repeated and {num_leaks} trained-on questions"
    return test.select(keep), note


def unseen_by_group(train: RoutingTable, test: RoutingTable) -> dict[str, tuple[RoutingTable, str]]:
    """`unseen_questions` of each group of the test rows, which must have groups.

    Use this when a corpus has groups and repeats between its parts.
    """
    return {name: unseen_questions(train, test.select(group=name)) for name in test.groups}


def first_of_each_group(table: RoutingTable, num: int) -> RoutingTable:
    """At most so many rows of each group, in the order they came; all of them where `num` is 0.

    Use this when a run on all rows would take too long.
    """
    if not num:
        return table
    group = np.array(table.group if table.group is not None else [""] * len(table))
    firsts = [np.flatnonzero(group == name)[:num] for name in np.unique(group)]
    return table.select(np.sort(np.concatenate(firsts)))


def for_pool(train: RoutingTable, models: Sequence[str]) -> RoutingTable:
    """Training rows with the models of a pool, in the pool's order.

    Use this when a study goes over pools of models.

    Args:
      train: The training table; models that are not in the pool are left out.
      models: Names of the pool's models.

    Returns:
      The table.

    Raises:
      ValueError: If a model of the pool is not in the training table: an order cannot be learned
        for it.

    >>> table = RoutingTable(ids=["a"], texts=["?"], models=["x", "y"], correct=[[1, 0]])
    >>> for_pool(table, ["y"]).models
    ('y',)
    """
    if absent := [name for name in models if name not in train.models]:
        verb = "is" if len(absent) == 1 else "are"
        raise ValueError(
            f"the training table must hold every model of the pool, {', '.join(map(repr, absent))} "
            f"{verb} not among {tuple(train.models)}"
        )
    return train if tuple(train.models) == tuple(models) else train.select(models=models)
