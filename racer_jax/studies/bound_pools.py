"""What a check of the bounds runs on: any table, scores of any router, orders of the models, stops.

`racer_jax.studies.scored_pools` has the simulated pool, RouterDC's files and score matrices.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from racer_jax.core.nonconformity import NullMode
from racer_jax.data import RoutingTable, load
from racer_jax.data.formats.score_matrix import ScoredTable
from racer_jax.encoders import HashedNgrams
from racer_jax.montecarlo.bound_check import ScoredPool
from racer_jax.orders.model_orders import ORDERS, fit_order
from racer_jax.risk_control.stopping import Loss
from racer_jax.routers import KNNR
from racer_jax.sequential.policy import fit_policy
from racer_jax.sequential.replay import replay
from racer_jax.studies.answer_pools import ROUTERBENCH, ZEROEVAL, answer_pools
from racer_jax.studies.checked_pools import CheckedPool, StopPool
from racer_jax.studies.corpora import (
    Source,
    read_source,
    two_parts,
    unseen_by_group,
    unseen_questions,
)
from racer_jax.studies.score_files import read_scored
from racer_jax.studies.scored_pools import pools_of_matrix

# Share of the questions that teach router, order or policy where the data brings no such part.
TRAIN_SHARE = 0.4
# Grades that the simulated pool's right answers get, each as often: it has none of its own.
_SIMULATED_GRADES = (0.25, 0.5, 0.75, 1.0)


def table_pools(
    key: jax.Array,
    data: Path | RoutingTable | None,
    scores: Sequence[str],
    null: NullMode,
    *,
    label_rule: str | None = None,
    missing: str = "error",
    num_neighbors: int = 100,
    share: float = TRAIN_SHARE,
) -> list[CheckedPool]:
    """The pools of anything that `load` reads: a k-NN router and the orders learn on a part of it.

    Args:
      key: A typed PRNG key, of the training part where the data brings none.
      data: RouterDC's folder, which brings its own training part, any file or folder that `load`
        reads, or a table; None for the simulated pool.
      scores: Names of the scores to check; orders among them are learned.
      null: The null mode of the orders.
      label_rule: When a graded score counts as right.
      missing: What becomes of queries without a result of every model: `error` or `drop`.
      num_neighbors: k of the router, at most the number of training rows.
      share: Share of the questions that train.

    Returns:
      A pool for each group, of questions that nothing was trained on.

    Raises:
      DataError: If the data is not what it should be.
      ValueError: If an option does not fit it.

    Use this when the bounds are to be checked on a table without scores.
    """
    source_key, split_key, grade_key = jax.random.split(key, 3)
    source = _source(source_key, data, label_rule, missing)
    train, rest = two_parts(split_key, source, share)
    if not len(train) or not len(rest):
        raise ValueError(f"the data must hold questions to train and to check on, got {len(train)}")
    by_group = unseen_by_group(train, rest)
    read = any(text.strip() for text in train.texts)
    encoder = HashedNgrams(dim=1024)
    embeddings = encoder.encode(train.texts) if read else np.zeros((len(train), 1), np.float32)
    router = KNNR.fit(embeddings, train.correct, k=min(num_neighbors, len(train)))
    orders = {
        name: fit_order(name, embeddings, train.correct, train.group)
        for name in scores
        if name in ORDERS
    }
    pools = []
    for number, (name, (rows, left_out)) in enumerate(by_group.items()):
        encoded = encoder.encode(rows.texts) if read else np.zeros((len(rows), 1), np.float32)
        shares = np.broadcast_to(train.correct.mean(axis=0), rows.correct.shape)
        scored = np.asarray(router(encoded)) if read else shares.astype(np.float32)
        rule = rows.label_rule if isinstance(rows.label_rule, str) else rows.label_rule[name]
        lacks = "" if read else "no texts: each model's score is its share of right answers"
        note = "; ".join(filter(None, (f"right iff {rule}", lacks, left_out)))
        matrices = {
            kind: np.asarray(order(jnp.asarray(encoded), rows.group, null))
            for kind, order in orders.items()
        }
        graded = rows.graded
        if graded is None and data is None:
            graded = _simulated_grades(jax.random.fold_in(grade_key, number), rows.correct)
        pools.append(CheckedPool(ScoredPool(name, scored, rows.correct, note), matrices, graded))
    return pools


def _simulated_grades(key: jax.Array, correct: np.ndarray) -> np.ndarray:
    """Grades of the simulated pool: right answers are more or less good, wrong ones get 0."""
    drawn = jax.random.choice(key, jnp.array(_SIMULATED_GRADES), correct.shape)
    return np.where(correct, np.asarray(drawn, np.float64), 0.0)


def _source(
    key: jax.Array, data: Path | RoutingTable | None, label_rule: str | None, missing: str
) -> Source:
    """A table, or the two parts that the data brings; a table without groups is one group."""
    if isinstance(data, RoutingTable):
        source: Source = data
    else:
        source = read_source(key, data, **_reading(label_rule, missing))
    if not isinstance(source, RoutingTable):
        return source
    source = source.complete()
    name = data.stem if isinstance(data, Path) else "all"
    return source if source.group is not None else replace(source, group=[name] * len(source))


def read_table(
    data: Path, label_rule: str | None = None, missing: str = "error", **more: Any
) -> RoutingTable:
    """The table of a file or folder; `more` are further options of its reader.

    Use this when scores come in a file of their own and `scored_pools` needs the labels.
    """
    return load(data, **_reading(label_rule, missing), **more)


def _reading(label_rule: str | None, missing: str) -> dict[str, Any]:
    """Options of the reader, those alone that were asked for."""
    options = {} if label_rule is None else {"label_rule": label_rule}
    return options if missing == "error" else options | {"missing": missing}


def scored_pools(scores: Path, table: RoutingTable | None) -> list[CheckedPool]:
    """Scores of any router in a file of its own.

    Args:
      scores: `.npz` with `scores` and `correct` (see `matrix_pools`), `.npy` `[2, n, m]` of both,
        or a long `.csv` with `model`, `query_id` or `query`, `score` and `correct`; or, with a
        table, `.npz` with `scores`, `.npy` `[n, m]`, or `.csv` with a row for each query in the
        order of the table (or a column `id`, which is matched) and a column for each model, by
        name.
      table: The queries and their labels; None where the file has them.

    Returns:
      One pool for each group.

    Raises:
      DataError: If a file is not what it should be, or the two do not fit.

    Use this when your router runs elsewhere and its scores are to be checked.
    """
    return pools_of_scores(read_scored(scores, table), scores, with_table=table is not None)


def pools_of_scores(read: ScoredTable, scores: Path, *, with_table: bool) -> list[CheckedPool]:
    """The pools of scores that `read_scored` has read.

    Use this when the file was read before.

    Args:
      read: The queries and their scores.
      scores: The file.
      with_table: Whether the labels are of a table, and not of the file.

    Returns:
      One pool for each group.
    """
    if scores.suffix.lower() == ".npz" and not with_table:
        return [CheckedPool(pool, {}, None) for pool in pools_of_matrix(read, scores.stem)]
    table, values = read
    place = {name: i for i, name in enumerate(table.ids)}
    group = np.array(table.group if table.group is not None else [scores.stem] * len(table))
    pools = []
    for name in dict.fromkeys(group.tolist()):
        part, left_out = unseen_questions(table.select([]), table.select(group == name))
        rows = [place[row_id] for row_id in part.ids]
        pool = ScoredPool(name, values[rows].astype(np.float32), part.correct, left_out)
        pools.append(CheckedPool(pool, {}, part.graded))
    return pools


def stop_pools(
    key: jax.Array,
    data: Path | RoutingTable | None,
    loss: Loss,
    share: float = TRAIN_SHARE,
    missing: str = "error",
) -> list[StopPool]:
    """Paths of logged answers under policies learned on a part of the questions.

    Args:
      key: A typed PRNG key.
      data: A folder with RouterBench's or ZeroEval's answers, anything else with answers that
        `load` reads, or None for the simulated pool.
      loss: What stopping early may incur.
      share: Share of the questions that the policy is learned on.
      missing: As of `table_pools`; the benchmarks' own folders leave such queries out.

    Returns:
      One for each group or pool of models.

    Raises:
      DataError: If the data is not what it should be.
      ValueError: If it has no answers.

    Use this when the theorem of the calibrated stop is to be checked on a table of answers.
    """
    source_key, split_key, policy_key = jax.random.split(key, 3)
    tables: dict[str, tuple[RoutingTable, RoutingTable]] = {}
    if isinstance(data, Path) and _has_pools(data):
        for name, table in answer_pools(data).items():
            tables[name] = two_parts(split_key, table, share)
    else:
        source = _source(source_key, data, None, missing)
        train, rest = two_parts(split_key, source, share)
        for name in rest.groups:
            tables[name] = train.select(group=name), rest.select(group=name)
    pools = []
    for number, (name, (train, rest)) in enumerate(tables.items()):
        part, left_out = unseen_questions(train, rest)
        policy = fit_policy(jax.random.fold_in(policy_key, number), train.complete(), loss=loss)
        pools.append(StopPool(name, replay(policy, part.complete()), left_out))
    return pools


def _has_pools(data: Path) -> bool:
    """Whether a folder holds the files of `answer_pools`."""
    return (data / ROUTERBENCH).is_dir() or (data / ZEROEVAL).is_file()
