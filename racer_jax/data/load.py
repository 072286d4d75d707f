"""One door for every format: the format is guessed from the file, and named, where the user does not say."""

import inspect
import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from racer_jax.data.errors import DataError
from racer_jax.data.formats import _signatures, long_csv, table_npz
from racer_jax.data.formats._npz import open_npz
from racer_jax.data.formats._text import open_csv, read_text, refuse_binary
from racer_jax.data.formats.embedllm import read_embedllm
from racer_jax.data.formats.every_eval_ever import read_every_eval_ever
from racer_jax.data.formats.helm import read_helm
from racer_jax.data.formats.inspect_ai import read_inspect
from racer_jax.data.formats.llmrouter import read_llmrouter
from racer_jax.data.formats.llmrouterbench import read_llmrouterbench
from racer_jax.data.formats.lm_eval import read_lm_eval
from racer_jax.data.formats.long_csv import read_long_csv, write_long_csv
from racer_jax.data.formats.parquet import is_exported, read_parquet, write_parquet
from racer_jax.data.formats.promptfoo import read_promptfoo
from racer_jax.data.formats.routellm import read_routellm
from racer_jax.data.formats.routerarena import read_routerarena
from racer_jax.data.formats.routerbench import read_routerbench
from racer_jax.data.formats.routerdc import read_routerdc
from racer_jax.data.formats.routereval import read_routereval
from racer_jax.data.formats.score_matrix import read_score_matrix
from racer_jax.data.formats.table_npz import read_table, save_table
from racer_jax.data.formats.wide_csv import read_wide_csv
from racer_jax.data.table import RoutingTable


def _scored(path: str | Path) -> RoutingTable:
    table = read_score_matrix(path).table
    return replace(
        table, notes=[*table.notes, "the router scores of the file are read by read_score_matrix"]
    )


READERS: Mapping[str, Callable[..., RoutingTable]] = MappingProxyType(
    {
        "lm_eval": read_lm_eval,
        "inspect": read_inspect,
        "every_eval_ever": read_every_eval_ever,
        "promptfoo": read_promptfoo,
        "helm": read_helm,
        "routerdc": read_routerdc,
        "routerbench": read_routerbench,
        "routellm": read_routellm,
        "llmrouter": read_llmrouter,
        "routereval": read_routereval,
        "llmrouterbench": read_llmrouterbench,
        "embedllm": read_embedllm,
        "routerarena": read_routerarena,
        "long_csv": read_long_csv,
        "wide_csv": read_wide_csv,
        "parquet": read_parquet,
        "score_matrix": _scored,
        "table": read_table,
    }
)


def load(path: str | Path, format: str | None = None, **options: Any) -> RoutingTable:
    """Reads a table in any of the formats.

    Args:
      path: A file, or a folder of files.
      format: One of `READERS`; guessed from the content when None, and then named in a note of the
        table.
      **options: Those of the format's reader, such as `label_rule` or `missing`.

    Returns:
      The table.

    Raises:
      DataError: If the file is not what it should be, or its format cannot be told.
      ValueError: If the format is unknown or its reader does not have an option.
    """
    path = Path(path)
    delimiter = options.get("delimiter", ",")
    name = guess(path, delimiter) if format is None else format
    if name not in READERS:
        raise ValueError(f"format must be one of {tuple(READERS)}, got {format!r}")
    reader = READERS[name]
    known = [option for option in inspect.signature(reader).parameters if option != "path"]
    for option in options:
        if option not in known:
            raise ValueError(f"options of format {name!r} are {known}, got {option!r}")
    table = reader(path, **options)
    if (
        format is not None
        or name == "table"
        or (name == "long_csv" and _is_exported(path, delimiter))
        or (name == "parquet" and is_exported(path))
    ):
        return table
    return replace(table, notes=[*table.notes, f"read as {name}, guessed from the content"])


def save(table: RoutingTable, path: str | Path) -> None:
    """Writes a table without loss, to be read by `load`.

    Args:
      table: The table.
      path: Where to; `.npz`, `.csv` for a long CSV or `.parquet` for a long Parquet file.

    Raises:
      ImportError: If Parquet is to be written and pyarrow is not installed.
      ValueError: If the name ends in none of these, or the table has no query and is not to be
        written as `.npz`.
    """
    suffix = Path(path).suffix
    writers = {".npz": save_table, ".csv": write_long_csv, ".parquet": write_parquet}
    if suffix not in writers:
        raise ValueError(f"path must end in .npz, .csv or .parquet, got {path}")
    writers[suffix](table, path)


def guess(path: str | Path, delimiter: str = ",") -> str:
    """The format of a file or folder, told from its content.

    Args:
      path: The file or folder.
      delimiter: What separates the fields if it is a CSV.

    Returns:
      One of `READERS`.

    Raises:
      DataError: If it cannot be told.
    """
    path = Path(path)
    if path.is_dir():
        return _guess_folder(path, delimiter)
    if path.suffix in (".npz", ".npy"):
        return _guess_archive(path)
    if (name := _signatures.of_bytes(path)) is not None:
        return name
    refuse_binary(path)
    if path.suffix in (".json", ".jsonl") or read_text(path).lstrip()[:1] in ("[", "{"):
        return _guess_json(path)
    return _guess_csv(path, delimiter)


def _unknown(path: Path, found: str) -> DataError:
    return DataError(
        f"must be in a known format, got {found}; pass format=, one of {', '.join(READERS)}",
        path=path,
    )


def _guess_folder(path: Path, delimiter: str) -> str:
    if (known := _signatures.of_folder(path)) is not None:
        return known
    if any(path.rglob("samples_*.json*")) or any(path.rglob("results*.json")):
        return "lm_eval"
    if any(path.glob("*test.json")) or any(path.glob("*train.json")):
        return "routerdc"
    if tables := sorted(path.glob("*.csv")):
        name = _guess_csv(tables[0], delimiter)
        if name in ("routerbench", "routellm"):
            return name
        raise DataError(
            f"must be one file of format {name}, got a folder; read the files and concat them",
            path=path,
        )
    raise _unknown(path, "a folder without logs")


def _guess_archive(path: Path) -> str:
    with open_npz(path) as archive:
        if table_npz.MARK in archive:
            return "table"
        if "correct" in archive:
            return "score_matrix"
        if any(f"{part}_score" in archive for part in ("train", "val", "test")):
            return "routereval"
        raise _unknown(path, f"arrays {sorted(archive.names)}")


def _guess_json(path: Path) -> str:
    if (known := _signatures.of_json(path)) is not None:
        return known
    text = read_text(path).lstrip()
    start = text[1:].lstrip() if text.startswith("[") else text
    try:
        record, _ = json.JSONDecoder().raw_decode(start)
    except (ValueError, RecursionError):
        raise _unknown(path, "JSON whose first record cannot be read") from None
    keys = set(record) if isinstance(record, dict) else set()
    if {"question", "scores"} <= keys:
        return "routerdc"
    if {"doc_id", "doc"} <= keys:
        return "lm_eval"
    if {"model_name", "performance"} <= keys:
        return "llmrouter"
    raise _unknown(path, f"JSON with keys {sorted(keys)[:12]}")


def _guess_csv(path: Path, delimiter: str) -> str:
    with open_csv(path, delimiter, marker=long_csv.MARK) as file:
        header = set(file.header)
        exported = file.preamble is not None
    if exported or (
        "model" in header and header & {"correct", "score"} and header & {"query_id", "query"}
    ):
        return "long_csv"
    if (known := _signatures.of_header(header)) is not None:
        return known
    if {"sample_id", "eval_name"} <= header:
        return "routerbench"
    if header & {"query_id", "query"}:
        return "wide_csv"
    if "prompt" in header:
        return "routellm"
    raise _unknown(path, f"CSV with columns {sorted(header)[:12]}")


def _is_exported(path: Path, delimiter: str) -> bool:
    with open_csv(path, delimiter, marker=long_csv.MARK) as file:
        return file.preamble is not None
