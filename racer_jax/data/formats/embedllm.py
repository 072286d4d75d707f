"""EmbedLLM's correctness data: a CSV with one row for each (prompt, model).

Columns: `prompt_id`, `prompt`, `model_name` or `model_id`, `label` (0 or 1) and, where there is
one, `category` (github.com/richardzhuang0412/EmbedLLM). Its files repeat some pairs; EmbedLLM
itself takes the largest label of such a pair.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from racer_jax.data.formats._cells import (
    Missing,
    Rules,
    built,
    check_missing,
    check_rule,
    grid,
    labels_by_rule,
    settle_missing,
)
from racer_jax.data.formats._columns import first_difference
from racer_jax.data.formats._fields import column_of_labels
from racer_jax.data.formats._growing import Names
from racer_jax.data.formats._text import open_csv
from racer_jax.data.remedies import Remedy
from racer_jax.data.table import RoutingTable

if TYPE_CHECKING:
    import jax

_KNOWN = ("prompt_id", "prompt", "model_id", "model_name", "label", "category", "category_id")


def read_embedllm(
    path: str | Path,
    *,
    columns: Mapping[str, str] | None = None,
    label_rule: Rules | None = None,
    key: jax.Array | None = None,
    missing: Missing = "error",
) -> RoutingTable:
    """Reads a CSV of EmbedLLM.

    Rows that repeat a pair with the same label are counted in a note and read once; where the
    labels differ, the rows are attempts at the question and a rule judges the share that is right:
    `score > 0` is what EmbedLLM does.

    Use this when you want EmbedLLM's 112 models on ten benchmarks.

    Args:
      path: The file, plain or compressed.
      columns: Columns that have another name in the file, such as `{"label": "correct"}`.
      label_rule: Makes the labels from the pass rate of repeated rows; when None these must agree.
      key: A typed PRNG key, for the rule `one attempt` alone.
      missing: What to do with pairs that have no row: `error`, `drop` their queries with a note, or
        `keep` them.

    Returns:
      The table; `group` is the category, and a query's id is `prompt_id`.

    Raises:
      DataError: If the file is not what it should be; it names file, row and field.
      ValueError: If an option is not one of those above.
    """
    check_missing(missing)
    path = Path(path)
    check_rule(label_rule)
    with open_csv(path, names=_KNOWN, columns=columns) as file:
        file.require("prompt_id", "prompt", "label")
        name = "model_name" if "model_name" in file.header else "model_id"
        file.require(name)
        file.check_end(safe=["label"])
        group = "category" if "category" in file.header else None
        text_columns = ["prompt_id", "prompt", name, *([group] if group else [])]
        codes = {column: Names() for column in text_columns}
        parts: dict[str, list[np.ndarray]] = {column: [] for column in [*text_columns, "label"]}
        for chunk in file.chunks():
            for column in text_columns:
                parts[column].append(codes[column].array(chunk.columns[column]))
            parts["label"].append(column_of_labels(file, chunk, "label"))
        values = {column: np.concatenate(part) for column, part in parts.items()}
        for column in text_columns:
            if "" in codes[column].names:
                empty = codes[column].names.index("")
                row = int(np.flatnonzero(values[column] == empty)[0]) + 1
                raise file.error("must not be empty", row, column)
        if (values["label"] < 0).any():
            row = int(np.flatnonzero(values["label"] < 0)[0]) + 1
            raise file.error("must be 0 or 1, got nothing", row, "label")
        queries, firsts = values["prompt_id"], np.unique(values["prompt_id"], return_index=True)[1]
        for column in ["prompt", *([group] if group else [])]:
            if (differs := first_difference(values[column], queries)) is not None:
                row, first = differs
                raise file.error(
                    f"must be the same in every row of prompt_id "
                    f"{codes['prompt_id'].names[queries[row]]!r}, got another than in row "
                    f"{first + 1}",
                    row + 1,
                    column,
                )
        notes = file.notes(c for c in file.header if c not in _KNOWN)
        shape = (len(codes["prompt_id"]), len(codes[name]))
        place = grid(queries, values[name], shape, path)
        cells = shape[0] * shape[1]
        counts = np.bincount(place.places, minlength=cells)
        right = np.bincount(place.places, weights=values["label"], minlength=cells)
        ambiguous = (right > 0) & (right < counts)
        if label_rule is None and ambiguous.any():
            i, j = divmod(int(np.flatnonzero(ambiguous)[0]), shape[1])
            row = int(np.flatnonzero(place.places == i * shape[1] + j)[-1]) + 1
            raise file.error(
                f"must agree in all rows of prompt_id {codes['prompt_id'].names[i]!r} and model "
                f"{codes[name].names[j]!r} (as for {int(ambiguous.sum())} pairs)",
                row,
                "label",
                remedy=Remedy("pass {}, which is what EmbedLLM does", label_rule="score > 0"),
            )
    scores = np.divide(right, counts, out=np.full(cells, np.nan), where=counts > 0).reshape(shape)
    repeats = int((counts > 1).sum())
    if repeats:
        notes.append(f"{repeats} pairs of prompt and model stand in several rows")
    texts = [codes["prompt"].names[code] for code in values["prompt"][firsts].tolist()]
    groups = None
    if group:
        groups = [codes[group].names[code] for code in values[group][firsts].tolist()]
    labels = labels_by_rule(path, scores, groups, label_rule, key)
    table = built(
        path,
        ids=codes["prompt_id"].names,
        texts=texts,
        models=codes[name].names,
        correct=labels.correct,
        group=groups,
        graded=labels.graded,
        label_rule=labels.rule,
        missing=labels.missing,
        notes=notes,
    )
    return settle_missing(table, missing, path)
