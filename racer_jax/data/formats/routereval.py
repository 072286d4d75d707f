"""RouterEval's NPZ: for each part `<part>_score` [n, m] and `<part>_embed` [n, d] or `<part>_prompt` [n].

The parts are `train`, `val` and `test` (github.com/MilkThink-Lab/RouterEval writes such a file for
its routers). The file names neither models nor queries.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, get_args

import jax
import numpy as np

from racer_jax.data.errors import DataError
from racer_jax.data.formats._cells import built
from racer_jax.data.formats._npz import open_npz
from racer_jax.data.labels import GIVEN, LabelRule
from racer_jax.data.table import RoutingTable

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
    rule = None if label_rule is None else LabelRule.parse(label_rule)
    field = f"{part}_score"
    with open_npz(path) as archive:
        scores = archive.array(field, "biuf", 2).astype(np.float64)
        n, m = scores.shape
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
    if not n:
        raise DataError("must hold at least one query, got none", path=path, field=field)
    allowed = np.isfinite(scores) if rule else (scores == 0) | (scores == 1)
    if not allowed.all():
        i, j = (int(k) for k in np.argwhere(~allowed)[0])
        hint = (
            "be finite"
            if rule
            else "be 0 or 1 (for graded scores pass label_rule, such as 'score > 0.5')"
        )
        raise DataError(
            f"must {hint}, got {scores[i, j]:g} in column {j + 1}",
            path=path,
            row=i + 1,
            field=field,
        )
    if models is not None and len(models) != m:
        raise ValueError(f"models must name the {m} columns of {field}, got {len(models)} names")
    return built(
        path,
        ids=[f"{part}/{row}" for row in range(1, n + 1)],
        texts=prompts,
        models=[f"model_{j}" for j in range(1, m + 1)] if models is None else models,
        correct=scores == 1 if rule is None else rule.apply(scores, key),
        graded=None if rule is None else scores,
        label_rule=GIVEN if rule is None else rule.name,
        notes=[] if models is not None else ["the file names no models; they are numbered"],
    )


def read_routereval_embeddings(path: str | Path, part: Part = "test") -> np.ndarray:
    """The embeddings that such a file holds beside the scores.

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
