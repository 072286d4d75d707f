"""Which format a file or a folder has, by its content."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from racer_jax.data.errors import DataError
from racer_jax.data.formats import _heads, _signatures, long_csv, table_npz
from racer_jax.data.formats._folders import bare_name, walked
from racer_jax.data.formats._heads import head, head_keys
from racer_jax.data.formats._json import json_lines, parse
from racer_jax.data.formats._npz import open_npz
from racer_jax.data.formats._shapes import is_by_column, line_of_header
from racer_jax.data.formats._synonyms import is_long, names_remedy, other_names
from racer_jax.data.formats._tables import holds_json
from racer_jax.data.formats._text import open_csv, read_text, refuse_binary
from racer_jax.data.remedies import Remedy

# The formats, in the order in which an error lists them.
FORMATS = (
    "lm_eval",
    "inspect",
    "every_eval_ever",
    "promptfoo",
    "helm",
    "routerdc",
    "routerbench",
    "routellm",
    "llmrouter",
    "routereval",
    "llmrouterbench",
    "embedllm",
    "routerarena",
    "long_csv",
    "wide_csv",
    "parquet",
    "score_matrix",
    "table",
)
# A remedy lists this many files, no more.
_MAX_LISTED = 20
# Columns by which a CSV is recognised, read whatever their case.
_KNOWN = (
    *(*long_csv.COLUMNS, "sample_id", "eval_name", "prompt"),
    *("prompt_id", "label", "model_name", "model_id"),
)


def guess(
    path: str | Path, delimiter: str | None = None, columns: Mapping[str, str] | None = None
) -> str:
    """The format of a file or folder, recognised by its content.

    Use this when you want to know the format before you read; `load` calls it where no format is
    named.

    Args:
      path: The file or folder.
      delimiter: What separates the fields if it is a CSV; found in its header when None.
      columns: Columns that have another name in the file, if it is a CSV.

    Returns:
      Its name, such as `long_csv`.

    Raises:
      DataError: If no format fits.
    """
    path = Path(path)
    if path.is_dir():
        return _guess_folder(path, delimiter, columns)
    name = bare_name(path)
    if name.endswith(".npy"):
        raise DataError(
            "must be a table, or a .npz of 'scores' and 'correct', got one array", path=path
        )
    if name.endswith(".npz"):
        return _guess_archive(path)
    if (format_name := _signatures.of_bytes(path)) is not None:
        return format_name
    refuse_binary(path)
    if name.endswith((".json", ".jsonl")) or holds_json(path):
        return _guess_json(path, columns)
    return _guess_csv(path, delimiter, columns)


def _unknown(path: Path, content: str, remedy: Remedy | None = None) -> DataError:
    if remedy is not None:
        return DataError(
            f"must name its columns query, model and correct, or query and the models, got "
            f"{content}",
            path=path,
            remedy=remedy,
        )
    must = "must be"
    if content.startswith("CSV"):
        must = "must have the columns query, model and correct, one row for each answer, or be"
    return DataError(
        f"{must} in a known format ({', '.join(FORMATS)}), got {content}",
        path=path,
        remedy=Remedy(
            "pass {}, or {} where columns have other names", ("format", ...), ("columns", ...)
        ),
    )


def _guess_folder(path: Path, delimiter: str | None, columns: Mapping[str, str] | None) -> str:
    if (format_name := _signatures.of_folder(path)) is not None:
        return format_name
    logs = [bare_name(file) for file in walked(path, ".json", ".jsonl")]
    if any(name.startswith("samples_") for name in logs):
        return "lm_eval"
    if any(name.startswith("results") and name.endswith(".json") for name in logs):
        return "lm_eval"
    if walked(path, "test.json", "test.jsonl", "train.json", "train.jsonl", deep=False):
        return "routerdc"
    tables = walked(path, ".csv", deep=False)
    if not tables:
        tables = walked(path, ".tsv", ".json", ".jsonl", ".npz", deep=False)
    if not tables:
        raise _unknown(path, "a folder without logs")
    name = guess(tables[0], delimiter, columns)
    if name in ("routerbench", "routellm"):
        return name
    raise DataError(
        f"must be a file, or files, of format {name}, got a folder",
        path=path,
        remedy=Remedy("to join them name the files, {}", path=tables)
        if len(tables) <= _MAX_LISTED
        else Remedy("to join them name the files"),
    )


def _guess_archive(path: Path) -> str:
    with open_npz(path) as archive:
        if table_npz.MARK in archive:
            return "table"
        if "correct" in archive:
            return "score_matrix"
        if any(f"{part}_score" in archive for part in ("train", "val", "test")):
            return "routereval"
        raise _unknown(path, f"arrays {sorted(archive.names)}")


def _guess_json(path: Path, columns: Mapping[str, str] | None) -> str:
    if (format_name := _signatures.of_json(path)) is not None:
        return format_name
    text = head(path)
    keys: set[str] = set(head_keys(text))
    record: dict[str, Any] = {}
    if not keys or len(text) < _heads.HEAD:
        try:
            _, _, record = next(json_lines(path))  # what cannot be read is said with its place
            keys = keys or set(record)
        except DataError:
            if not keys or not _is_one_value(path):
                raise
    if {"question", "scores"} <= keys:
        return "routerdc"
    if {"doc_id", "doc"} <= keys:
        return "lm_eval"
    if {"model_name", "performance"} <= keys:
        return "llmrouter"
    if is_by_column(record, _KNOWN):
        raise DataError(
            "must hold an object for each row, got one for each column; pandas writes rows by "
            "to_json(path, orient='records', lines=True)",
            path=path,
        )
    renamed = keys | {ours for ours, name in (columns or {}).items() if name in keys}
    others = other_names([name for name in renamed if name not in (columns or {}).values()])
    rows = _guess_rows({name.strip().casefold() for name in renamed}, others)
    if rows is not None:
        return rows
    remedy = names_remedy(renamed, others) if others else None
    raise _unknown(path, f"JSON with keys {sorted(keys)[:12]}", remedy)


def _is_one_value(path: Path) -> bool:
    """Whether a file is one JSON value, over several lines perhaps."""
    try:
        parse(read_text(path), path)
    except DataError:
        return False
    return True


def _guess_csv(path: Path, delimiter: str | None, columns: Mapping[str, str] | None) -> str:
    with open_csv(path, delimiter, long_csv.MARK, names=_KNOWN, columns=columns) as file:
        header, others = set(file.columns), other_names(file.header)
        exported = file.preamble is not None
    if exported:
        return "long_csv"
    if (format_name := _signatures.of_header(header)) is not None:
        return format_name
    if {"sample_id", "eval_name"} <= header:
        return "routerbench"
    rows = _guess_rows(header, others)
    if rows is not None:
        return rows
    if "prompt" in header and not is_long(header, others):
        return "routellm"
    if others is None and (line := line_of_header(path)) is not None:
        raise DataError(
            f"must begin with the names of its columns, which seem to stand in line {line}: remove "
            "the lines above",
            path=path,
        )
    remedy = names_remedy(header, others) if others else None
    raise _unknown(path, f"CSV with columns {sorted(header)[:12]}", remedy)


def _guess_rows(columns: set[str], others: dict[str, str] | None) -> str | None:
    """The format of rows by their columns; None where they name no query, or something else."""
    if not columns & {"query_id", "query"}:
        return None
    if is_long(columns, None):
        return "long_csv"
    return None if "model" in columns or is_long(columns, others) else "wide_csv"


def is_exported_csv(path: Path, delimiter: str | None) -> bool:
    """Whether this package wrote a CSV. Use this when a file was guessed to be a long CSV."""
    if holds_json(path):
        return False
    with open_csv(path, delimiter, long_csv.MARK) as file:
        return file.preamble is not None
