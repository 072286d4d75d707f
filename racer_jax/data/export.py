"""Predictions as files: for each query the models called, abstention, and the answer."""

import csv
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from racer_jax.data.files import written_whole


def write_predictions(
    path: str | Path,
    ids: Sequence[str],
    models: Sequence[str],
    called: np.ndarray,
    answers: Sequence[str | None] | None = None,
) -> None:
    """Writes one row for each query, as CSV or as JSON lines.

    Fields: `query_id`, `models` (a JSON list, also within CSV), `num_models`, `abstained`, and
    `answer` if there are any. The system abstains where it calls no model, and where those it calls
    give no answer.

    Args:
      path: Where to; `.csv` or `.jsonl`. Written whole or not at all.
      ids: Name of each query, `[n]`.
      models: Name of each model, `[m]`, without the null model.
      called: Which models are called, bool `[n, m]` (the real columns of `prediction_sets`).
      answers: The aggregated answer of each query, `[n]`, None where there is none.

    Raises:
      ValueError: If the name ends in neither, or shapes do not fit.
      TypeError: If `called` is not boolean.
    """
    path, called = Path(path), np.asarray(called)
    if path.suffix not in (".csv", ".jsonl"):
        raise ValueError(f"path must end in .csv or .jsonl, got {path}")
    if called.dtype != np.bool_:
        raise TypeError(f"called must be boolean, got dtype {called.dtype}")
    if called.shape != (len(ids), len(models)):
        raise ValueError(
            f"called must have shape {(len(ids), len(models))} for ids and models, got "
            f"{called.shape}"
        )
    if answers is not None and len(answers) != len(ids):
        raise ValueError(
            f"answers must hold one answer for each of the {len(ids)} ids, got {len(answers)}"
        )
    rows = _rows(ids, models, called, answers)
    with (
        written_whole(path) as temporary,
        temporary.open("w", encoding="utf-8", newline="") as file,
    ):
        if path.suffix == ".jsonl":
            file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
            return
        fields = ["query_id", "models", "num_models", "abstained"] + (
            [] if answers is None else ["answer"]
        )
        writer = csv.DictWriter(file, fields)
        writer.writeheader()
        for row in rows:
            flat = {
                "models": json.dumps(row["models"], ensure_ascii=False),
                "abstained": int(row["abstained"]),
            }
            writer.writerow(row | flat)


def _rows(
    ids: Sequence[str],
    models: Sequence[str],
    called: np.ndarray,
    answers: Sequence[str | None] | None,
) -> Iterator[dict[str, Any]]:
    for i, name in enumerate(ids):
        chosen = [models[j] for j in np.flatnonzero(called[i]).tolist()]
        row: dict[str, Any] = {"query_id": name, "models": chosen, "num_models": len(chosen)}
        row["abstained"] = not chosen or (answers is not None and answers[i] is None)
        if answers is not None:
            row["answer"] = answers[i] if chosen else None
        yield row
