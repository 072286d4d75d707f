"""RouterEval's NPZ: scores, and embeddings or prompts, of each part.

Each part has the arrays `<part>_score` [n, m] and `<part>_embed` [n, d] or `<part>_prompt` [n].

The parts are `train`, `val` and `test` (github.com/MilkThink-Lab/RouterEval writes such a file for
its routers). The file names neither models nor queries.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np

from racer_jax.data.errors import DataError
from racer_jax.data.formats._cells import GRADED, built, check_rule, labels_by_rule
from racer_jax.data.formats._npz import open_npz
from racer_jax.data.remedies import Remedy
from racer_jax.data.table import RoutingTable

if TYPE_CHECKING:
    import jax

Part = Literal["train", "val", "test"]


def read_routereval(
    path: str | Path,
    *,
    part: Part = "test",
    models: Sequence[str] | None = None,
    label_rule: str | None = None,
    key: jax.Array | None = None,
) -> RoutingTable:
    """Reads one part of an NPZ of RouterEval.

    Use this when you want the labels of RouterEval; `read_routereval_embeddings` reads the
    embeddings of the same rows.

    Args:
      path: The file.
      part: `train`, `val` or `test`.
      models: Names of the models, in the order of the columns; `model_1`, `model_2`, ... when None.
      label_rule: When given, makes the labels from graded scores; when None the scores must be 0 or
        1.
      key: A typed PRNG key, for the rule `one attempt` alone.

    Returns:
      The table; a query's id is `<part>/<row>`.

    Raises:
      DataError: If the file is not what it should be; it names file, row and field.
      ValueError: If an option is not one of those above.
    """
    if part not in get_args(Part):
        raise ValueError(f"part must be one of {get_args(Part)}, got {part!r}")
    path = Path(path)
    check_rule(label_rule)
    field = f"{part}_score"
    with open_npz(path) as archive:
        scores = archive.array(field, "biuf", 2)
        n, m = scores.shape
        if not n or not m:
            raise DataError(
                f"must hold at least one query and one model, got shape {(n, m)}",
                path=path,
                field=field,
            )
        prompts = (
            archive.array(f"{part}_prompt", "U", 1).tolist()
            if f"{part}_prompt" in archive
            else [""] * n
        )
        if len(prompts) != n:
            raise DataError(
                f"must hold {n} texts like {field}, got {len(prompts)}",
                path=path,
                field=f"{part}_prompt",
            )
    scores = scores.astype(np.float64)
    valid = np.isfinite(scores) if label_rule else (scores == 0) | (scores == 1)
    if not valid.all():
        i, j = (int(k) for k in np.argwhere(~valid)[0])
        rule = "finite" if label_rule else "0 or 1"
        raise DataError(
            f"must be {rule}, got {scores[i, j]:g} in column {j + 1}",
            path=path,
            row=i + 1,
            field=field,
            remedy=None if label_rule else GRADED,
        )
    labels = labels_by_rule(path, scores, None, label_rule, key)
    if models is not None and len(models) != m:
        raise DataError(
            f"must have a name for each of its {m} columns, got {len(models)} names",
            path=path,
            field=field,
            remedy=Remedy("pass {} with a name for each", models=...),
        )
    notes = []
    if models is None:
        models = [f"model_{j}" for j in range(1, m + 1)]
        notes = ["the file names no models; they are numbered"]
    return built(
        path,
        ids=[f"{part}/{row}" for row in range(1, n + 1)],
        texts=prompts,
        models=models,
        correct=labels.correct,
        graded=labels.graded,
        label_rule=labels.rule,
        notes=notes,
    )


def read_routereval_embeddings(path: str | Path, part: Part = "test") -> np.ndarray:
    """The embeddings that an NPZ of RouterEval holds beside the scores.

    Use this when you fit a router to RouterEval's own embeddings: the file may hold no texts to
    encode.

    Args:
      path: The file.
      part: `train`, `val` or `test`.

    Returns:
      float32 `[n, d]`, rows as in `read_routereval`.

    Raises:
      DataError: If the file holds none, or they are not finite.
    """
    path = Path(path)
    with open_npz(path) as archive:
        embeddings = archive.array(f"{part}_embed", "f", 2).astype(np.float32)
    if (bad := ~np.isfinite(embeddings).all(axis=1)).any():
        raise DataError(
            "must be finite", path=path, row=int(np.flatnonzero(bad)[0]) + 1, field=f"{part}_embed"
        )
    return embeddings
