"""Reads a table in any format, which is guessed from the file where the user names none.

The tables of several files are joined, and a pipe is read once, to its end.
"""

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from racer_jax.data.combine import Pools, concat
from racer_jax.data.errors import DataError
from racer_jax.data.formats import _signatures, long_csv, table_npz
from racer_jax.data.formats._cells import Missing, check_missing, settle_missing
from racer_jax.data.formats._folders import bare_name, walked
from racer_jax.data.formats._json import json_lines, parse
from racer_jax.data.formats._npz import open_npz
from racer_jax.data.formats._shapes import is_by_column, line_of_header
from racer_jax.data.formats._source import as_file
from racer_jax.data.formats._synonyms import is_long, other_names
from racer_jax.data.formats._tables import holds_json
from racer_jax.data.formats._text import open_csv, read_text, refuse_binary
from racer_jax.data.formats.embedllm import read_embedllm
from racer_jax.data.formats.every_eval_ever import read_every_eval_ever
from racer_jax.data.formats.helm import read_helm
from racer_jax.data.formats.inspect_ai import read_inspect
from racer_jax.data.formats.llmrouter import read_llmrouter
from racer_jax.data.formats.llmrouterbench import read_llmrouterbench
from racer_jax.data.formats.lm_eval import LmEvalOptions, read_lm_eval
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
from racer_jax.data.remedies import OPTIONS, Remedy
from racer_jax.data.table import RoutingTable


def _scored(path: str | Path) -> RoutingTable:
    table = read_score_matrix(path).table
    note = "the router scores of the file are not read: a table holds labels"
    return replace(table, notes=[*table.notes, note])


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


Paths = str | Path | Sequence[str | Path]
# A remedy lists this many files, no more.
_MAX_LISTED = 20
# Columns by which a CSV is recognised, read whatever their case.
_KNOWN = (
    *(*long_csv.COLUMNS, "sample_id", "eval_name", "prompt"),
    *("prompt_id", "label", "model_name", "model_id"),
)


def load(
    path: Paths, format: str | None = None, *, pools: Pools = "match", **options: Any
) -> RoutingTable:
    """Reads a table in any of the formats.

    Use this when your labels are in a file of any known format; the reader of one format, such as
    `read_lm_eval`, shows the options of that format.

    Args:
      path: A file, a folder of files, or several of them, whose queries are joined.
      format: One of `READERS`; guessed from the content when None, and then named in a note of the
        table.
      pools: For several files: they must hold the same models (`match`), only the models that all
        of them hold are kept (`intersect`), or they hold other models on the same questions, which
        are put side by side (`unite`).
      **options: Those of the format's reader, such as `label_rule` or `missing`; and `models`,
        the models to keep, for any format.

    Returns:
      The table.

    Raises:
      DataError: If the file is not what it should be, its format cannot be recognised, or its
        reader does not have an option.
      ValueError: If the format is unknown.
    """
    if format is not None and format not in READERS:
        raise ValueError(f"format must be one of {tuple(READERS)}, got {format!r}")
    if isinstance(path, str | Path):
        return _load_one(Path(path), format, options)
    if len(path) == 1:
        return _load_one(Path(path[0]), format, options)
    name = ", ".join(map(str, path))
    if pools == "unite":
        return _united([Path(one) for one in path], name, format, options)
    tables = [_load_one(Path(one), format, options) for one in path]
    try:
        table = concat(tables, pools)
    except DataError as error:
        raise error.at(name) from None
    return replace(table, notes=[*table.notes, f"joined {len(tables)} files"])


def _united(
    paths: Sequence[Path], name: str, format: str | None, options: Mapping[str, Any]
) -> RoutingTable:
    """Files of other models side by side: which models, and what is missing, is of all of them."""
    policy: Missing = options.get("missing") or "error"
    check_missing(policy)
    models = options.get("models")
    of_each = {key: value for key, value in options.items() if key not in ("models", "missing")}
    tables = [_load_part(path, format, of_each, models) for path in paths]
    try:
        table = concat(tables, "unite")
        if models is not None:
            table = table.aligned(models)
    except DataError as error:
        raise error.at(name) from None
    table = settle_missing(table, policy, Path(name))
    return replace(table, notes=[*table.notes, f"joined {len(tables)} files"])


def _load_part(
    path: Path, format: str | None, options: Mapping[str, Any], models: Sequence[str] | None
) -> RoutingTable:
    """The table of a file that holds some of the models, and what is missing in it marked."""
    try:
        return _load_one(path, format, options, keep_missing=True)
    except DataError as error:
        columns = dict(error.remedy.options).get("models") if error.remedy is not None else None
        if models is None or not isinstance(columns, list):
            raise
        # Some columns of a wide table are no models: those that were named say which are.
        named = [name for name in models if name in columns]
        if not named:
            raise
        return _load_one(path, format, {**options, "models": named}, keep_missing=True)


def _load_one(
    path: Path, format: str | None, options: Mapping[str, Any], keep_missing: bool = False
) -> RoutingTable:
    """The table of one file, folder or pipe; an error says so where its format was guessed."""
    with as_file(path) as file, _keeping(options):
        if format is not None:
            return _read(file, format, options, keep_missing)
        delimiter, columns = options.get("delimiter"), options.get("columns")
        name = guess(file, delimiter, columns)
        try:
            table = _read(file, name, options, keep_missing)
        except DataError as error:
            raise error.taken_for(name) from None
        is_export = name == "long_csv" and _is_exported(file, delimiter)
        if name == "table" or is_export or (name == "parquet" and is_exported(file)):
            return table
    return replace(table, notes=[*table.notes, f"read as {name}, guessed from the content"])


@contextmanager
def _keeping(options: Mapping[str, Any]) -> Iterator[None]:
    """An error's advice holds what was passed already: passed again, an option replaces itself."""
    try:
        yield
    except DataError as error:
        raise error.keeping(options) from None


def _read(
    path: Path, format: str, options: Mapping[str, Any], keep_missing: bool = False
) -> RoutingTable:
    """The table by the reader of a format, which must have the options."""
    reader = READERS[format]
    options_of_reader = _options_of(reader)
    if keep_missing and "missing" in options_of_reader:
        options = {**options, "missing": "keep"}
    for option in options:
        if option not in options_of_reader and option != "models":
            raise _no_option(path, format, option, options_of_reader)
    if "models" in options_of_reader or options.get("models") is None:
        return reader(
            path, **{name: value for name, value in options.items() if name in options_of_reader}
        )
    rest = {name: value for name, value in options.items() if name != "models"}
    if "missing" in options_of_reader:
        check_missing(rest.get("missing") or "error")
        # What further models lack is no reason to refuse or to leave out anything.
        rest["missing"] = "keep"
    table = reader(path, **rest)
    try:
        table = table.aligned(options["models"])
    except DataError as error:
        raise error.at(path) from None
    if "missing" not in options_of_reader:
        return table
    is_export = format == "long_csv" and _is_exported(path, options.get("delimiter"))
    default: Missing = "keep" if is_export else "error"
    policy: Missing = options.get("missing") or default
    return settle_missing(table, policy, path)


def _options_of(reader: Callable[..., RoutingTable]) -> list[str]:
    """The names of the options of a reader, of which some are in an object."""
    if reader is read_lm_eval:
        return [field.name for field in fields(LmEvalOptions)]
    return [option for option in inspect.signature(reader).parameters if option != "path"]


def _no_option(path: Path, format: str, option: str, options: Sequence[str]) -> DataError:
    """The error for an option that a format does not have, with those it has."""
    if option not in OPTIONS:
        return DataError(f"options of format {format!r} are {list(options)}, got {option!r}")
    names = [name for name in options if name in OPTIONS]
    if not names:
        return DataError(
            f"format {format!r} has no options",
            path=path,
            remedy=Remedy("leave out {}", (option, ...)),
        )
    places = ", ".join("{}" for _ in names)
    return DataError(
        f"format {format!r} does not have every option named",
        path=path,
        remedy=Remedy(
            f"leave out {{}}; its options are {places}", (option, ...), *((n, ...) for n in names)
        ),
    )


def save(table: RoutingTable, path: str | Path) -> None:
    """Writes a table without loss, to be read by `load`.

    Use this when you want to keep a table: `.npz` is for this package alone, `.csv` and `.parquet`
    are for other programs too.

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
      One of `READERS`.

    Raises:
      DataError: If no format fits.
    """
    path = Path(path)
    if path.is_dir():
        return _guess_folder(path, delimiter, columns)
    name = bare_name(path)
    if name.endswith((".npz", ".npy")):
        return _guess_archive(path)
    if (format_name := _signatures.of_bytes(path)) is not None:
        return format_name
    refuse_binary(path)
    if name.endswith((".json", ".jsonl")) or holds_json(path):
        return _guess_json(path, columns)
    return _guess_csv(path, delimiter, columns)


def _unknown(path: Path, content: str, columns: Mapping[str, str] | None = None) -> DataError:
    if columns:
        return DataError(
            f"must name its columns query, model and correct, or query and the models, got "
            f"{content}",
            path=path,
            remedy=Remedy("if that is what they are pass {}", columns=dict(columns)),
        )
    return DataError(
        f"must be in a known format ({', '.join(READERS)}), got {content}",
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
        raise _unknown(path, "a folder without logs")
    name = _guess_csv(tables[0], delimiter, columns)
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
    head = _signatures.head(path)
    keys: set[str] = set(_signatures.head_keys(head))
    record: dict[str, Any] = {}
    if not keys or len(head) < _signatures.HEAD:
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
    raise _unknown(path, f"JSON with keys {sorted(keys)[:12]}", others)


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
    raise _unknown(path, f"CSV with columns {sorted(header)[:12]}", others)


def _guess_rows(columns: set[str], others: dict[str, str] | None) -> str | None:
    """The format of rows by their columns; None where they name no query, or something else."""
    if not columns & {"query_id", "query"}:
        return None
    if is_long(columns, None):
        return "long_csv"
    return None if "model" in columns or is_long(columns, others) else "wide_csv"


def _is_exported(path: Path, delimiter: str | None) -> bool:
    if holds_json(path):
        return False
    with open_csv(path, delimiter, long_csv.MARK) as file:
        return file.preamble is not None
