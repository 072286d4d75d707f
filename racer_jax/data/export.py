"""Predictions as files: the models called for each query, abstention, and the answer."""

import csv
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from racer_jax._arrays import given
from racer_jax._files import written_whole
from racer_jax.data.formats._arrow import modules


def write_predictions(
    path: str | Path,
    ids: Sequence[str],
    models: Sequence[str],
    called: np.ndarray,
    answers: Sequence[str | None] | None = None,
) -> None:
    """Writes one row for each query, as CSV, as JSON lines or as Parquet.

    Fields: `query_id`, `models` (a list; within CSV as JSON), `num_models`, `abstained`, and
    `answer` if there are any. The system abstains where it calls no model, and where those it calls
    give no answer.

    Use this when another program shall call the models that were chosen; `save` writes the labelled
    table.

    Args:
      path: Where to; `.csv`, `.jsonl` or `.parquet`. Written whole or not at all.
      ids: Name of each query, `[n]`.
      models: Name of each model, `[m]`, without the null model.
      called: Which models are called, bool `[n, m]` (the real columns of `prediction_sets`).
      answers: The aggregated answer of each query, `[n]`, None where there is none.

    Raises:
      ImportError: If Parquet is to be written and pyarrow is not installed.
      ValueError: If the name ends in none of these, or shapes do not fit.
      TypeError: If `called` is not boolean.
    """
    path, called = Path(path), np.asarray(given("called", called))
    if path.suffix not in (".csv", ".jsonl", ".parquet"):
        raise ValueError(f"path must end in .csv, .jsonl or .parquet, got {path}")
    if called.dtype != np.bool_:
        raise TypeError(f"called must be boolean, got dtype {called.dtype}")
    if called.shape != (len(ids), len(models)):
        shape = (len(ids), len(models))
        raise ValueError(f"called must have shape {shape} for ids and models, got {called.shape}")
    if answers is not None and len(answers) != len(ids):
        raise ValueError(
            f"answers must hold one answer for each of the {len(ids)} ids, got {len(answers)}"
        )
    rows = _rows(ids, models, called, answers)
    if path.suffix == ".parquet":
        _write_parquet(path, list(rows), answers is not None)
        return
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


def _write_parquet(path: Path, rows: list[dict[str, Any]], with_answers: bool) -> None:
    arrow, parquet = modules()
    kinds = {
        "query_id": arrow.string(),
        "models": arrow.list_(arrow.string()),
        "num_models": arrow.int64(),
        "abstained": arrow.bool_(),
    }
    if with_answers:
        kinds["answer"] = arrow.string()
    table = arrow.Table.from_pylist(rows, schema=arrow.schema(kinds))
    with written_whole(path) as temporary:
        parquet.write_table(table, temporary)


def _rows(
    ids: Sequence[str],
    models: Sequence[str],
    called: np.ndarray,
    answers: Sequence[str | None] | None,
) -> Iterator[dict[str, Any]]:
    for i, name in enumerate(ids):
        names = [models[j] for j in np.flatnonzero(called[i]).tolist()]
        row: dict[str, Any] = {"query_id": name, "models": names, "num_models": len(names)}
        row["abstained"] = not names or (answers is not None and answers[i] is None)
        if answers is not None:
            row["answer"] = answers[i] if names else None
        yield row


def write_routerarena(
    path: str | Path,
    ids: Sequence[str],
    texts: Sequence[str],
    models: Sequence[str],
    called: np.ndarray,
    preference: np.ndarray,
) -> int:
    """Writes RouterArena's prediction file: one model for each question.

    A set is reduced to one model by this rule: of the models called, the one with the highest
    preference; of several, the first in the order of `models`. Where no model is called, the rule
    is applied to all models, for RouterArena counts every question.

    Use this when a router is to be judged by RouterArena. Take the router's scores as preference to
    call the most promising model of each set, or the negative prices to call the cheapest.

    Args:
      path: Where to; `.json`. Written whole or not at all.
      ids: RouterArena's global index of each question, `[n]`.
      texts: Its prompt of each question, `[n]`.
      models: Name of each model, `[m]`, as RouterArena spells it.
      called: Which models are called, bool `[n, m]`.
      preference: What the rule compares, finite, `[n, m]`, or `[m]` for all questions alike.

    Returns:
      For how many questions no model was called.

    Raises:
      TypeError: If `called` is not boolean.
      ValueError: If the name does not end in `.json`, or shapes do not fit.
    """
    path, called = Path(path), np.asarray(given("called", called))
    if path.suffix != ".json":
        raise ValueError(f"path must end in .json, got {path}")
    if called.dtype != np.bool_:
        raise TypeError(f"called must be boolean, got dtype {called.dtype}")
    shape = (len(ids), len(models))
    if called.shape != shape or len(texts) != len(ids):
        raise ValueError(
            f"called must have shape {shape} and texts length {len(ids)} for ids and models, got "
            f"{called.shape} and {len(texts)}"
        )
    values = np.asarray(given("preference", preference), dtype=np.float64)
    if values.shape not in (shape, shape[1:]) or not np.isfinite(values).all():
        raise ValueError(
            f"preference must be finite and have shape {shape} or {shape[1:]}, got {values.shape}"
        )
    empty = ~called.any(axis=1, keepdims=True)
    models_called = np.where(called | empty, np.broadcast_to(values, shape), -np.inf).argmax(axis=1)
    entries = [
        {
            "global index": name,
            "prompt": text,
            "prediction": models[model],
            "generated_result": None,
            "cost": None,
            "accuracy": None,
            "for_optimality": False,
        }
        for name, text, model in zip(ids, texts, models_called.tolist(), strict=True)
    ]
    with written_whole(path) as temporary:
        document = json.dumps(entries, ensure_ascii=False, indent=2)
        temporary.write_text(document + "\n", encoding="utf-8")
    return int(empty.sum())
