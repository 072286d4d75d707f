"""Parquet as typed columns in batches; whatever is wrong with a file becomes a `DataError`."""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from racer_jax._distribution import install_command
from racer_jax.data.errors import DataError
from racer_jax.data.formats._content import prompt_text
from racer_jax.data.formats._fields import label_of, not_a_label
from racer_jax.data.formats._folders import walked
from racer_jax.data.formats._growing import Growing
from racer_jax.data.formats._progress import progress
from racer_jax.data.formats._rows import Header
from racer_jax.data.formats._source import cannot_read, refuse_compressed
from racer_jax.data.formats._synonyms import example_name
from racer_jax.data.formats._texts import Texts
from racer_jax.data.remedies import Remedy

# The key of a file's metadata under which this package writes what rows cannot hold.
MARK = b"racer_jax_table"
# Columns that are known by their names, whatever their case.
COLUMNS = ("query_id", "query", "model", "correct", "score", "group", "answer", "cost", "tokens")
# One row group may unpack to this much.
MAX_GROUP = 1 << 32
# Bytes read ahead of each column; without it a row group, perhaps the file, is held whole.
_READ_AT_ONCE = 1 << 17
# Rows are decoded so many bytes at a time, or a few rows.
_BYTES_AT_ONCE = 1 << 19
# Above this a whole number is not what a float64 holds.
_EXACT = 1 << 53


def modules() -> tuple[Any, Any]:
    """`pyarrow` and `pyarrow.parquet`.

    Raises:
      ImportError: If pyarrow is not installed.
    """
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise ImportError(f"Parquet needs pyarrow: {install_command('parquet')}") from None
    return pyarrow, pyarrow.parquet


class Batch(NamedTuple):
    """Some rows of a file.

    Attributes:
      first_row: Number of the first, counted from 1 over all files.
      columns: Column name -> its array.
    """

    first_row: int
    columns: Mapping[str, Any]


class Source:
    """Files of one table, their schema checked.

    Attributes:
      path: The file or folder.
      names: The names of the columns, in the names of the reader.
      metadata: The metadata of the schema.
    """

    def __init__(self, path: Path, files: Sequence[Any], columns: Mapping[str, str]) -> None:
        self.path, self._files = path, files
        schema = files[0].schema_arrow
        self.metadata: Mapping[bytes, bytes] = schema.metadata or {}
        self._names = list(schema.names)
        if len(set(self._names)) < len(self._names):
            raise DataError("must name each column once, got one twice", path=path)
        renamed = {name: _column(schema, origin) for name, origin in columns.items()}
        self._accepted: dict[str, None] = {}
        self._origin = self._spelled(set(renamed.values()))
        for name, origin in renamed.items():
            _field(schema, origin, path)
            self._origin[name] = origin
        self.names = list(self._origin)
        for file in files:
            for group in range(file.metadata.num_row_groups):
                size = file.metadata.row_group(group).total_byte_size
                if not 0 <= size <= MAX_GROUP:
                    raise DataError(
                        f"must unpack to at most {MAX_GROUP >> 30} GiB a row group, row group "
                        f"{group} declares {size} bytes",
                        path=path,
                    )

    def _spelled(self, renamed: set[str]) -> dict[str, str]:
        """Name in the reader -> name in the file, of columns that have no other name."""
        names = [name for name in self._names if name not in renamed]
        if self.metadata.get(MARK) is not None:
            return {name: name for name in names}
        header = Header(COLUMNS, index=False)
        spelled, loose = header.names(self.path, names)
        if len(set(spelled)) < len(spelled):
            return {name: name for name in names}
        if loose:
            self.accept("names of columns are read without spaces around them, in any case")
        return dict(zip(spelled, names, strict=True))

    def accept(self, what: str) -> None:
        """Notes something that was read though it is not written as the format says."""
        self._accepted[what] = None

    def notes(self) -> list[str]:
        """A note on what was accepted loosely, if anything was."""
        return [f"accepted as written: {'; '.join(self._accepted)}"] if self._accepted else []

    def numeric(self, names: Sequence[str]) -> list[str]:
        """Those of some columns that hold numbers or truth values."""
        arrow, _ = modules()
        kinds = {field.name: field.type for field in self._files[0].schema_arrow}
        of_names = {name: kinds.get(self._origin[name]) for name in names}
        tests = (arrow.types.is_boolean, arrow.types.is_integer, arrow.types.is_floating)
        return [
            name
            for name, kind in of_names.items()
            if kind is not None and any(test(kind) for test in tests)
        ]

    def shown(self) -> list[str]:
        """The file's columns, as an error shows them."""
        return self._names[:20]

    def error(
        self,
        problem: str,
        row: int | None = None,
        field: str | None = None,
        remedy: Remedy | None = None,
    ) -> DataError:
        """An error at a row; the field is named as the file names it."""
        name = self._origin.get(field or "", field)
        return DataError(problem, path=self.path, row=row, field=name, remedy=remedy)

    def origin(self, name: str) -> str:
        """What the file calls a column."""
        return str(self._origin.get(name, name))

    def identity(self) -> str:
        """The column that names the queries."""
        for name in ("query_id", "query"):
            if name in self.names:
                return name
        raise self.error(
            f"must be a column, or 'query' must, the file has {self.shown()}",
            None,
            "query_id",
            Remedy("pass, for example: {}", columns={"query": example_name("query", self._names)}),
        )

    def batches(self, names: Sequence[str], size: int) -> Iterator[Batch]:
        """The rows, some at a time, of those of the columns that there are."""
        arrow, _ = modules()
        names_here = [name for name in dict.fromkeys(names) if name in self._origin]
        origins = [self._origin[name] for name in names_here]
        first, pool = 1, arrow.default_memory_pool()
        rows = sum(file.metadata.num_rows for file in self._files)
        with progress(self.path, rows, "rows") as update:
            for file in self._files:
                count = min(size, _rows_at_once(file.metadata))
                for batch in file.iter_batches(count, columns=origins, use_threads=False):
                    columns = {
                        name: _descended(arrow, batch, origin)
                        for name, origin in zip(names_here, origins, strict=True)
                    }
                    yield Batch(first, columns)
                    first += batch.num_rows
                    update(batch.num_rows)
                    del batch, columns
                    pool.release_unused()  # which Arrow keeps for later otherwise
        if first == 1:
            raise DataError("must hold at least one row", path=self.path)


def _plain(kind: Any) -> Any:
    """The type of a column, of a dictionary that of its values."""
    arrow, _ = modules()
    return kind.value_type if arrow.types.is_dictionary(kind) else kind


def _is_text(kind: Any) -> bool:
    """Whether a column holds texts."""
    arrow, _ = modules()
    tests = (arrow.types.is_string, arrow.types.is_large_string, arrow.types.is_string_view)
    return any(test(kind) for test in tests)


def _column(schema: Any, origin: str) -> str:
    """The name of a column as the file spells it, where one alone is alike."""
    alike = [name for name in schema.names if name.strip().casefold() == origin.strip().casefold()]
    return alike[0] if origin not in schema.names and len(alike) == 1 else origin


def _rows_at_once(metadata: Any) -> int:
    """How many rows of a file are held at a time, by their mean length."""
    groups = range(metadata.num_row_groups)
    num_bytes = sum(int(metadata.row_group(group).total_byte_size) for group in groups)
    return max(64, _BYTES_AT_ONCE * int(metadata.num_rows) // max(1, num_bytes))


def _field(schema: Any, origin: str, path: Path) -> None:
    """Refuses a column that is not there; a dot goes into a struct."""
    if origin in schema.names:
        return
    name, *parts = origin.split(".")
    if name not in schema.names:
        raise DataError(f"must be a column, the file has {schema.names}", path=path, field=origin)
    kind = schema.field(name).type
    for part in parts:
        members = [kind.field(i).name for i in range(getattr(kind, "num_fields", 0))]
        if part not in members or not hasattr(kind, "get_field_index"):
            raise DataError(f"must be a field of {name!r}, got {members}", path=path, field=origin)
        kind = kind.field(kind.get_field_index(part)).type


def _descended(arrow: Any, batch: Any, origin: str) -> Any:
    """A column, or a field of a struct."""
    if origin in batch.schema.names:
        return batch.column(origin)
    name, *parts = origin.split(".")
    array = batch.column(name)
    for part in parts:
        array = arrow.compute.struct_field(array, part)
    return array


@contextmanager
def open_source(path: Path, columns: Mapping[str, str]) -> Iterator[Source]:
    """Opens Parquet; whatever is wrong with it as a file becomes a `DataError`.

    Args:
      path: The file, or a folder of files.
      columns: Name in the reader -> name in the file.

    Yields:
      The source.

    Raises:
      ImportError: If pyarrow is not installed.
    """
    arrow, parquet = modules()
    import pyarrow.compute  # noqa: F401 - so that `arrow.compute` is there

    paths = walked(path, ".parquet") if path.is_dir() else [path]
    if not paths:
        raise DataError("must hold .parquet files, got none", path=path)
    try:
        with ExitStack() as stack:
            files = []
            for name in paths:
                refuse_compressed(name)
                handle = stack.enter_context(name.open("rb"))
                files.append(
                    stack.enter_context(
                        parquet.ParquetFile(handle, buffer_size=_READ_AT_ONCE, pre_buffer=False)
                    )
                )
            for name, file in zip(paths, files, strict=True):
                if not file.schema_arrow.equals(files[0].schema_arrow):
                    raise DataError(
                        f"must have the columns of {paths[0].name}: a folder holds parts of one "
                        "table",
                        path=name,
                    )
            yield Source(path, files, columns)
    except DataError:
        raise
    except OSError as error:
        if error.errno is None:  # Arrow's own: a page that cannot be unpacked
            raise DataError(f"must be whole Parquet: {_line(error)}", path=path) from None
        raise cannot_read(path, error) from None
    except (arrow.ArrowException, ValueError, OverflowError, KeyError, TypeError) as error:
        raise DataError(f"must be whole Parquet: {_line(error)}", path=path) from None


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200]


class Columns:
    """Columns as they are read: numbers, labels and texts."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._parts: dict[str, Any] = {}

    def taken(self) -> dict[str, Any]:
        """Each column: numbers or texts, which are no longer held here."""
        parts, self._parts = self._parts, {}
        return parts

    def _put(self, name: str, part: np.ndarray) -> None:
        self._parts.setdefault(name, Growing(part.dtype)).extend(part)

    def _strings(self, batch: Batch, name: str, needs_value: bool) -> list[str | None]:
        """A column as texts; None where it is null."""
        arrow, _ = modules()
        array, kind = batch.columns[name], batch.columns[name].type
        if arrow.types.is_dictionary(kind):
            array, kind = array.dictionary_decode(), kind.value_type
        if needs_value and array.null_count:
            row = int(np.flatnonzero(np.array(array.is_null()))[0])
            raise self._source.error("must not be empty", batch.first_row + row, name)
        if arrow.types.is_binary(kind) or arrow.types.is_large_binary(kind):
            return self._decoded(array, batch, name)
        if arrow.types.is_integer(kind):
            array = array.cast(arrow.string())
        elif arrow.types.is_list(kind) or arrow.types.is_large_list(kind):
            return [None if v is None else prompt_text(v) for v in array.to_pylist()]
        elif not _is_text(kind):
            raise self._source.error(f"must be text, got a column of {kind}", None, name)
        # Most texts stand in several rows: each becomes an object once.
        coded = array.dictionary_encode()
        values = [*coded.dictionary.to_pylist(), None]
        return [values[code] for code in coded.indices.fill_null(len(values) - 1).to_pylist()]

    def _decoded(self, array: Any, batch: Batch, name: str) -> list[str | None]:
        """Texts that some warehouses write as bytes."""
        texts: list[str | None] = []
        for row, value in enumerate(array.to_pylist(), start=batch.first_row):
            try:
                texts.append(None if value is None else value.decode())
            except UnicodeDecodeError:
                raise self._source.error("must be text in UTF-8", row, name) from None
        return texts

    def texts(self, batch: Batch, name: str, *, required: bool = False, empty: bool = True) -> None:
        """A column of texts; an empty one counts as null where it may be."""
        if name not in batch.columns:
            return
        values = self._strings(batch, name, required)
        if not empty and "" in values:
            row = values.index("")
            raise self._source.error("must not be empty", batch.first_row + row, name)
        texts = self._parts.setdefault(name, Texts())
        texts.extend(values if required else [value or None for value in values])

    def names(self, batch: Batch, name: str, *, empty: bool = False) -> list[str]:
        """A column of names."""
        values = self._strings(batch, name, needs_value=True)
        if not empty and "" in values:
            row = values.index("")
            raise self._source.error("must not be empty", batch.first_row + row, name)
        return list(map(str, values))

    def numbers(
        self,
        batch: Batch,
        name: str,
        *,
        low: float = -math.inf,
        high: float = math.inf,
        whole: bool = False,
    ) -> None:
        """A column of numbers, float64; null and NaN are NaN ("not known")."""
        if name not in batch.columns:
            return
        values = self._floats(batch, name)
        bad = np.isinf(values) | (values < low) | (values > high)
        if whole:
            bad |= np.isfinite(values) & (values % 1 != 0)
        if bad.any():
            row = int(np.flatnonzero(bad)[0])
            kind = "a whole number" if whole else "a number"
            bounds = f" of at least {low:g}" if low > -math.inf else ""
            bounds = f" in [{low:g}, {high:g}]" if high < math.inf else bounds
            raise self._source.error(
                f"must be {kind}{bounds}, or null where not known, got {values[row]:g}",
                batch.first_row + row,
                name,
            )
        self._put(name, values)

    def _floats(self, batch: Batch, name: str) -> np.ndarray:
        arrow, _ = modules()
        array, kind = batch.columns[name], batch.columns[name].type
        if arrow.types.is_integer(kind):
            values = array.cast(arrow.float64(), safe=False)
            floats = np.array(values.fill_null(math.nan))
            if (np.abs(floats[np.isfinite(floats)]) > _EXACT).any():
                raise self._source.error(f"must be numbers of at most {_EXACT}", None, name)
            return floats
        if arrow.types.is_boolean(kind) or arrow.types.is_floating(kind):
            floats = np.array(array.cast(arrow.float64()).fill_null(math.nan))
            return floats
        if arrow.types.is_decimal(kind):
            return np.array(array.cast(arrow.float64()).fill_null(math.nan))
        if arrow.types.is_null(kind):
            return np.full(len(array), math.nan)
        raise self._source.error(f"must be numbers, got a column of {kind}", None, name)

    def _words(self, batch: Batch, name: str) -> np.ndarray:
        """A column of texts such as `yes` and `no` as labels, int8."""
        texts = ["" if text is None else text for text in self._strings(batch, name, False)]
        label = {text: label_of(text, self._source.accept) for text in set(texts)}
        bad = next((row for row, text in enumerate(texts) if label[text] is None), None)
        if bad is not None:
            problem = not_a_label(texts[bad])
            raise self._source.error(problem, batch.first_row + bad, name)
        return np.array([label[text] for text in texts], np.int8)

    def _graded(self, name: str) -> Remedy:
        """What to pass where labels are scores."""
        if name != "correct" or "score" in self._source.names:
            return Remedy("for graded scores pass, for example: {}", label_rule="score > 0.5")
        return Remedy(
            "for graded scores pass, for example: {} {}",
            label_rule="score > 0.5",
            columns={"score": self._source.origin(name)},
        )

    def labels(self, batch: Batch, name: str) -> None:
        """A column of booleans or 0/1, int8; null is -1 ("this pair was not evaluated")."""
        if _is_text(_plain(batch.columns[name].type)):
            self._put(name, self._words(batch, name))
            return
        values = self._floats(batch, name)
        has_label = ~np.isnan(values)
        bad = has_label & (values != 0) & (values != 1)
        if bad.any():
            row = int(np.flatnonzero(bad)[0])
            raise self._source.error(
                f"must be true or false, 0 or 1, or null where not evaluated, got {values[row]:g}",
                batch.first_row + row,
                name,
                self._graded(name),
            )
        self._put(name, np.where(has_label, values, -1).astype(np.int8))
