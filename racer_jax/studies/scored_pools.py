"""Pools of labelled queries with a router's scores.

Simulated, from benchmark files, or from a saved matrix.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import jax
import numpy as np

from racer_jax.data.errors import DataError
from racer_jax.data.synthetic import simulated_pool
from racer_jax.montecarlo.bound_check import ScoredPool

if TYPE_CHECKING:  # simulated pools need no reader of files
    from racer_jax.data.formats.score_matrix import ScoredTable


def simulated_pools(key: jax.Array, quality: str = "fair") -> list[ScoredPool]:
    """The default, which needs no files: seven simulated models on four benchmarks.

    The router is simulated too.

    Use this when a check shall run without any data of yours.

    Args:
      key: A typed PRNG key; it fixes everything.
      quality: How closely the scores follow the right answers: `weak`, `fair` or `strong`.

    Returns:
      One pool for each benchmark.

    Raises:
      ValueError: If the quality is unknown.
    """
    pool = simulated_pool(key)
    scores = next(iter(pool.values())).scores
    if quality not in scores:
        raise ValueError(f"quality must be one of {tuple(scores)}, got {quality!r}")
    return [
        ScoredPool(name, part.scores[quality], part.test.correct) for name, part in pool.items()
    ]


def routerdc_pools(
    folder: Path, *, label_rule: str | None = None, num_neighbors: int = 100
) -> list[ScoredPool]:
    """RouterDC's benchmarks, scored by k nearest neighbours over hashed n-grams.

    Use this when a check shall run on RouterDC's public files and a simple router will do.

    Args:
      folder: Holds `<benchmark>_train.json` and `<benchmark>_test.json`.
      label_rule: When a score counts as right; by default that of each benchmark.
      num_neighbors: k of the router.

    Returns:
      One pool for each benchmark.

    Raises:
      DataError: If a file is not what it should be.
      ValueError: If the label rule is unknown or k does not fit.
    """
    # The simulated pools, which most runs are of, need none of these.
    from racer_jax.data.formats.routerdc import read_routerdc_parts
    from racer_jax.encoders import HashedNgrams
    from racer_jax.routers import KNNR
    from racer_jax.studies.corpora import unseen_by_group

    if not folder.is_dir():
        raise DataError("must be a folder of RouterDC's JSON files", path=folder)
    train, test = read_routerdc_parts(folder, label_rule=label_rule)
    encoder = HashedNgrams(dim=1024)
    router = KNNR.fit(encoder.encode(train.texts), train.correct, k=num_neighbors)
    pools = []
    for name, (rows, left_out) in unseen_by_group(train, test).items():
        rule = rows.label_rule if isinstance(rows.label_rule, str) else rows.label_rule[name]
        note = "; ".join(filter(None, (f"right iff {rule}", left_out)))
        pools.append(
            ScoredPool(name, np.asarray(router(encoder.encode(rows.texts))), rows.correct, note)
        )
    return pools


def matrix_pools(path: Path) -> list[ScoredPool]:
    """A saved score matrix of any router.

    Use this when a check shall run on scores that your own router made.

    Args:
      path: An .npz file with `scores`, floating `[n, m]` in [0, 1], and `correct`, 0/1 `[n, m]`;
        where it has `group`, strings `[n]`, each group is a pool, and where it has `texts`, repeats
        of a question are left out.

    Returns:
      One pool for each group, or a single pool named as the file.

    Raises:
      DataError: If the file is not such an archive, or its arrays do not fit or hold what they
        should not.
    """
    from racer_jax.data.formats.score_matrix import read_score_matrix

    return pools_of_matrix(read_score_matrix(path), path.stem)


def pools_of_matrix(read: ScoredTable, name_of_all: str) -> list[ScoredPool]:
    """The pools of a score matrix that is read.

    Use this when the file of `matrix_pools` was read before.

    Args:
      read: The matrix.
      name_of_all: The name of the pool where there are no groups.

    Returns:
      One pool for each group, or a single one.
    """
    table, scores = read
    group = np.array(table.group if table.group is not None else [name_of_all] * len(table))
    _, first = np.unique(table.question_ids, return_index=True)
    is_first = np.isin(np.arange(len(table)), first)
    pools = []
    for name in dict.fromkeys(group.tolist()):
        rows = is_first & (group == name)
        num_repeats = int((~is_first & (group == name)).sum())
        note = f"left out {num_repeats} repeated questions" if num_repeats else ""
        pools.append(ScoredPool(name, scores[rows], table.correct[rows], note))
    return pools
