"""Pools of labelled queries with a router's scores: simulated, from benchmark files, or from a saved matrix."""

import zipfile
import zlib
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from racer_jax._checks import as_binary
from racer_jax.data import DataError, RoutingTable, read_routerdc_parts, simulated_pool
from racer_jax.data.table import normal_text
from racer_jax.encoders import HashedNgrams
from racer_jax.nonconformity import augment
from racer_jax.routers import KNNR


class ScoredPool(NamedTuple):
    """Labelled queries with the scores of a router.

    Attributes:
      name: Of the benchmark.
      scores: Router scores, float32 `[n, m]` in [0, 1].
      correct: Whether each model is right, bool `[n, m]`.
      note: What a reader should know of how it was made; may be empty.
    """

    name: str
    scores: np.ndarray
    correct: np.ndarray
    note: str = ""


def simulated_pools(key: jax.Array, quality: str = "fair") -> list[ScoredPool]:
    """The embedded default: seven simulated models on four benchmarks, and a simulated router.

    Args:
      key: A typed PRNG key; it fixes everything.
      quality: How much the router sees of what decides: `weak`, `fair` or `strong`.

    Returns:
      One pool for each benchmark.

    Raises:
      ValueError: If the quality is unknown.
    """
    pool = simulated_pool(key)
    known = next(iter(pool.values())).scores
    if quality not in known:
        raise ValueError(f"quality must be one of {tuple(known)}, got {quality!r}")
    return [ScoredPool(name, part.scores[quality], part.test.correct) for name, part in pool.items()]


def unseen_questions(train: RoutingTable, test: RoutingTable) -> tuple[RoutingTable, str]:
    """The test rows without repeats of a question and without questions of the training part.

    So no question stands on both sides of a split, and the rows are exchangeable.

    Args:
      train: What the router was trained on.
      test: What is to be calibrated and tested on.

    Returns:
      The rows left, and a sentence on what was left out; empty where nothing was.
    """
    trained = {normal_text(text) for text in train.texts}
    _, first = np.unique(test.question_ids, return_index=True)
    keep = [int(i) for i in np.sort(first) if normal_text(test.texts[i]) not in trained]
    repeated, leaked = len(test) - len(first), len(first) - len(keep)
    note = f"left out {repeated} repeated and {leaked} trained-on questions" if repeated or leaked else ""
    return test.select(keep), note


def routerdc_pools(folder: Path, *, label_rule: str | None = None, num_neighbors: int = 100) -> list[ScoredPool]:
    """RouterDC's benchmarks, scored by k nearest neighbours over hashed n-grams of the union of the training files.

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
    if not folder.is_dir():
        raise DataError("must be a folder of RouterDC's JSON files", path=folder)
    train, test = read_routerdc_parts(folder, label_rule=label_rule)
    encoder = HashedNgrams(dim=1024)
    router = KNNR.fit(encoder.encode(train.texts), train.correct, k=num_neighbors)
    pools = []
    for name in test.groups:
        rows, left_out = unseen_questions(train, test.select(group=name))
        rule = rows.label_rule if isinstance(rows.label_rule, str) else rows.label_rule[name]
        note = "; ".join(filter(None, (f"right iff {rule}", left_out)))
        pools.append(ScoredPool(name, np.asarray(router(encoder.encode(rows.texts))), rows.correct, note))
    return pools


def matrix_pools(path: Path) -> list[ScoredPool]:
    """A saved score matrix of any router.

    Args:
      path: An .npz file with `scores`, floating `[n, m]` in [0, 1], and `correct`, 0/1 `[n, m]`.

    Returns:
      A single pool, named as the file.

    Raises:
      DataError: If the file is not such an archive, or its arrays do not fit or hold what they should not.
    """
    arrays: dict[str, np.ndarray] | None = None
    try:
        with path.open("rb") as file:  # NumPy itself leaves a truncated archive open
            loaded = np.load(file, allow_pickle=False)
            if isinstance(loaded, np.lib.npyio.NpzFile):
                arrays = {name: loaded[name] for name in loaded.files}
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror or error}", path=path) from None
    except (ValueError, EOFError, zipfile.BadZipFile, zlib.error):
        arrays = None  # the error is ours to word: NumPy's speaks of pickles
    if arrays is None:
        raise DataError("must be an .npz archive of plain arrays, as np.savez writes it", path=path)
    if missing := [name for name in ("scores", "correct") if name not in arrays]:
        raise DataError(f"must be there, got only {sorted(arrays)}", path=path, field=missing[0])
    scores, correct = arrays["scores"], arrays["correct"]
    if scores.ndim != 2 or scores.shape != correct.shape or 0 in scores.shape:
        raise DataError(f"scores and correct must both be [n, m], got {scores.shape} and {correct.shape}", path=path)
    try:
        augment(scores)
        as_binary("correct", correct)
    except (TypeError, ValueError) as error:
        raise DataError(str(error), path=path) from None
    return [ScoredPool(path.stem, scores.astype(np.float32), correct.astype(bool))]
