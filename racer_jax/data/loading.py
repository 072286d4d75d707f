"""Reads a table in any format, which is guessed from the file where the user names none.

The tables of several files are joined, and a pipe is read once, to its end.
"""

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields, replace
from fnmatch import fnmatchcase
from pathlib import Path
from types import MappingProxyType
from typing import Any

from racer_jax.data.combine import Pools, concat
from racer_jax.data.endings import ENDINGS
from racer_jax.data.endings import check_output as check_output
from racer_jax.data.errors import DataError
from racer_jax.data.formats._cells import Missing, check_missing, settle_missing
from racer_jax.data.formats._source import as_file
from racer_jax.data.formats._text import check_delimiter
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
from racer_jax.data.guessing import guess, is_exported_csv
from racer_jax.data.labels import LabelRule
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


_WRITERS: Mapping[str, Callable[[RoutingTable, str | Path], None]] = MappingProxyType(
    dict(zip(ENDINGS, (save_table, write_long_csv, write_parquet), strict=True))
)
Paths = str | Path | Sequence[str | Path]


def load(
    path: Paths, format: str | None = None, *, pools: Pools = "match", **options: Any
) -> RoutingTable:
    """Reads a table in any of the formats.

    Use this when your labels are in a file of any known format; the reader of one format, such as
    `read_lm_eval`, shows the options of that format.

    Args:
      path: A file, a folder of files, or several of them, whose queries are joined.
      format: Its name, such as `long_csv`; guessed from the content when None, and then named in a
        note of the table.
      pools: For several files: they must hold the same models (`match`), only the models that all
        of them hold are kept (`intersect`), or they hold other models on the same questions, which
        are put side by side (`unite`).
      **options: Those of the format's reader, such as `label_rule` or `missing`; and `models`,
        the models to keep, for any format.

    Returns:
      The table; its notes say what was guessed, joined and left out.

    Raises:
      DataError: If the file is not what it should be, its format cannot be recognised, or its
        reader does not have an option.
      ValueError: If the format is unknown.
    """
    if format is not None and format not in READERS:
        raise ValueError(f"format must be one of {tuple(READERS)}, got {format!r}")
    paths = [Path(path)] if isinstance(path, str | Path) else [Path(one) for one in path]
    if len(paths) == 1:
        table = _load_one(paths[0], format, options)
    else:
        table = _joined(paths, format, pools, options)
    notes = _fitting_nothing(table, options)
    return replace(table, notes=[*table.notes, *notes]) if notes else table


def check_options(format: str | None, options: Mapping[str, Any]) -> None:
    """Refuses options of `load` that no file could be read with; nothing is read.

    Use this when options are known before their files are opened.

    Args:
      format: The format, where it was named.
      options: Those of its reader.

    Raises:
      DataError: If one cannot be, or the reader of the format does not have it.
      ValueError: If a label rule is none, or no model is named.
    """
    if (rules := options.get("label_rule")) is not None:
        for rule in rules.values() if isinstance(rules, Mapping) else (rules,):
            LabelRule.parse(rule)
    if "models" in options and not options["models"]:
        raise ValueError("models must hold at least one model, got none")
    if (delimiter := options.get("delimiter")) is not None:
        check_delimiter(delimiter)
    if format is not None:
        _check_options_of(format, options)


def _fitting_nothing(table: RoutingTable, options: Mapping[str, Any]) -> list[str]:
    """A note on each name among the options by task or group that no task and no group has."""
    by_name = {name: value for name, value in options.items() if isinstance(value, Mapping)}
    by_name.pop("columns", None)
    if not by_name:
        return []
    # The id of a question of lm-evaluation-harness begins with its task.
    names = {*(table.group or ()), *(name.rpartition("/")[0] for name in table.ids)}
    return [
        f"no task or group fits {pattern!r}, which {option} names"
        for option, value in by_name.items()
        for pattern in value
        if not any(fnmatchcase(name, pattern) for name in names)
    ]


def _joined(
    paths: Sequence[Path], format: str | None, pools: Pools, options: Mapping[str, Any]
) -> RoutingTable:
    """The queries of several files."""
    name = ", ".join(map(str, paths))
    if pools == "unite":
        return _united(paths, name, format, options)
    tables = [_load_one(path, format, options) for path in paths]
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
        is_export = name == "long_csv" and is_exported_csv(file, delimiter)
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
    options_of_reader = _check_options_of(format, options, path)
    if "models" in options_of_reader or options.get("models") is None:
        options = {name: value for name, value in options.items() if name in options_of_reader}
        if keep_missing and "missing" in options_of_reader:
            return _marked(reader, path, options)
        return reader(path, **options)
    rest = {name: value for name, value in options.items() if name != "models"}
    if "missing" in options_of_reader:
        check_missing(rest.get("missing") or "error")
        # What further models lack is no reason to refuse or to leave out anything.
        table = _marked(reader, path, rest)
    else:
        table = reader(path, **rest)
    try:
        table = table.aligned(options["models"])
    except DataError as error:
        raise error.at(path) from None
    if "missing" not in options_of_reader:
        return table
    is_export = format == "long_csv" and is_exported_csv(path, options.get("delimiter"))
    default: Missing = "keep" if is_export else "error"
    policy: Missing = options.get("missing") or default
    return settle_missing(table, policy, path)


def _marked(
    reader: Callable[..., RoutingTable], path: Path, options: Mapping[str, Any]
) -> RoutingTable:
    """What is read with missing results marked; a file without any is refused in its own words."""
    table = reader(path, **{**options, "missing": "keep"})
    nothing = table.missing is not None and table.missing.all()
    return reader(path, **options) if nothing and options.get("missing") != "keep" else table


def _check_options_of(
    format: str, options: Mapping[str, Any], path: Path | None = None
) -> list[str]:
    """The names of the options that the reader of a format has, which must be among them."""
    options_of_reader = _options_of(READERS[format])
    for option in options:
        if option not in options_of_reader and option != "models":
            raise _no_option(path, format, option, options_of_reader)
    return options_of_reader


def _options_of(reader: Callable[..., RoutingTable]) -> list[str]:
    """The names of the options of a reader, of which some are in an object."""
    if reader is read_lm_eval:
        return [field.name for field in fields(LmEvalOptions)]
    return [option for option in inspect.signature(reader).parameters if option != "path"]


def _no_option(path: Path | None, format: str, option: str, options: Sequence[str]) -> DataError:
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
    check_output(path)
    _WRITERS[Path(path).suffix](table, path)
