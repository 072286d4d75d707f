"""The databases that can hold the state: SQLite for one gateway, PostgreSQL for several replicas.

Statements are written once, in the SQL that both read. What a replica writes in PostgreSQL it
writes under an advisory lock, so transactions come one after another: the numbers of rows grow in
the order of their commits, and whoever holds the lock sees every row before its own.
"""

import contextlib
import importlib.util
import os
import re
import shlex
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Protocol, TypeVar
from urllib.parse import urlsplit, urlunsplit

import msgspec

from racer_jax._distribution import install_command
from racer_jax._files import address_problem
from racer_jax.data.errors import DataError
from racer_jax.data.locks import locked

_SCHEMES = ("postgresql", "postgres")
# The lock of those who write; any number that nobody else uses in the same database.
_LOCK = 0x5241434552
_BEGIN = "begin immediate"
_LOG_BYTES = 64 << 20
# Values of one statement: SQLite took no more before 3.32.
MOST_VALUES = 999
# A gateway that ends finishes what is under way: one that takes its place waits for it.
_PATIENCE = 40.0
# How a machine that vanished shows: the system alone would wait for it for minutes, or for hours.
# Seconds, but for the last: milliseconds.
_TIMES = {
    "connect_timeout": 10,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 25_000,
}
_DAMAGED = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
_TYPES = {
    "integer primary key autoincrement": "bigserial primary key",
    "integer": "bigint",
    "real": "double precision",
    "blob": "bytea",
}
_TYPE = re.compile(r"\b(" + "|".join(_TYPES) + r")\b")


class Connection(Protocol):
    """What the state needs of a database."""

    @property
    def in_transaction(self) -> bool:
        """Whether a transaction has begun."""
        ...

    def execute(self, sql: str, parameters: Sequence[Any] = (), /) -> Any:
        """Runs one statement; returns a cursor."""
        ...

    def close(self) -> None:
        """Ends the connection."""
        ...


Opened = TypeVar("Opened", bound=Connection)


class Postgres:
    """A connection to PostgreSQL that reads the statements of SQLite.

    Args:
      address: Such as `postgresql://user@host/database`.
    """

    def __init__(self, address: str) -> None:
        import psycopg

        self._connection = psycopg.connect(
            _patient(address), autocommit=True, cursor_factory=psycopg.ClientCursor
        )

    @property
    def in_transaction(self) -> bool:
        """Whether a transaction has begun."""
        return not self.lost and self._connection.info.transaction_status.name != "IDLE"

    @property
    def lost(self) -> bool:
        """Whether the connection has broken."""
        return bool(self._connection.closed)

    def execute(self, sql: str, parameters: Sequence[Any] = ()) -> Any:
        """Runs one statement; the beginning of a transaction waits for its turn to write."""
        if sql == _BEGIN:
            self._connection.execute("begin")
            return self._connection.execute(f"select pg_advisory_xact_lock({_LOCK})")
        return self._connection.execute(sql.replace("?", "%s"), _plain(parameters) or None)

    def executescript(self, sql: str) -> None:
        """Runs the statements that make the tables."""
        self._connection.execute(_TYPE.sub(lambda match: _TYPES[match[0]], sql))

    def close(self) -> None:
        """Ends the connection."""
        self._connection.close()


def _patient(address: str) -> str:
    """An address with times after which a server that says nothing counts as lost."""
    from psycopg.conninfo import conninfo_to_dict, make_conninfo

    said = conninfo_to_dict(address)
    full: str = make_conninfo(address, **{k: n for k, n in _TIMES.items() if k not in said})
    return full


def _plain(values: Sequence[Any]) -> list[Any]:
    """Values without what PostgreSQL refuses: truth as a number, and the character of code 0."""
    return [_plain_value(value) for value in values]


def _plain_value(value: Any) -> Any:
    if isinstance(value, bool):
        return int(value)
    return value.replace("\0", "\ufffd") if isinstance(value, str) else value


def _text_of(content: bytes) -> str | bytes:
    """A text; bytes where it is none, for one of them must not stop the reading of all rows."""
    try:
        return content.decode()
    except UnicodeDecodeError:
        return content


def is_shared(path: str) -> bool:
    """Whether a state is one that several replicas can share."""
    return path.partition("://")[0] in _SCHEMES


def shown(path: str) -> str:
    """Where a state is, without the password."""
    if not is_shared(path):
        return path
    parts = urlsplit(path)
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit((parts.scheme, host, parts.path, "", ""))


def errors() -> tuple[type[Exception], ...]:
    """What the databases raise."""
    if importlib.util.find_spec("psycopg") is None:
        return (sqlite3.Error, OSError)
    import psycopg

    return (sqlite3.Error, OSError, psycopg.Error)


class DamagedError(sqlite3.DatabaseError):
    """A file of SQLite with pages that no SQLite wrote.

    Args:
      problem: What is wrong, with the name of the file.
      remedy: What is lost, and what to do.
    """

    def __init__(self, problem: str, remedy: str) -> None:
        super().__init__(problem)
        self.words = f"{problem}. {remedy}"


def explained(error: Exception, path: str) -> Exception:
    """An error of a database; another one, with what to do, where its file is damaged.

    Args:
      error: What the database raised.
      path: The state.
    """
    if getattr(error, "sqlite_errorcode", 0) & 0xFF not in _DAMAGED:
        return error
    file = shlex.quote(path)
    return DamagedError(
        f"{error}: {path} is damaged, if it is the state",
        "Lost are the rows on its damaged pages, and those that wait in memory when the gateway "
        f"stops. Stop it and save what can be read: sqlite3 {file} .recover | sqlite3 recovered.db"
        f" (or, by a sqlite3 without it, sqlite3 {file} .dump | sed s/^ROLLBACK/COMMIT/ | sqlite3 "
        f"recovered.db). Move {file}, its -wal and its -shm away, and put recovered.db in its "
        "place; without it monitors, labels and budgets begin anew",
    )


def words_of(error: Exception, path: str) -> str:
    """What is wrong, and what to do where a file is damaged."""
    error = explained(error, path)
    return error.words if isinstance(error, DamagedError) else str(error)


def may_pass(error: Exception) -> bool:
    """Whether another try may end in another way: a full disk, a server that restarts.

    A damaged file takes some rows and refuses others; they wait as well, and none is lost at once.
    """
    kinds: list[type[Exception]] = [sqlite3.OperationalError, OSError, DamagedError]
    if importlib.util.find_spec("psycopg") is not None:
        import psycopg

        kinds.append(psycopg.OperationalError)
    return isinstance(error, tuple(kinds))


def check_packages(path: str) -> None:
    """Refuses an address of PostgreSQL where the package that talks to it is missing.

    Raises:
      ModuleNotFoundError: If it is.
    """
    if is_shared(path) and importlib.util.find_spec("psycopg") is None:
        raise ModuleNotFoundError(
            f"a state in PostgreSQL needs psycopg: {install_command('postgres')}"
        )


@contextmanager
def kept(connection: Opened) -> Iterator[Opened]:
    """A connection that is closed if what is done first with it fails, and stays open if not."""
    try:
        yield connection
    except BaseException:  # a file that is no database, one that is locked, an older program
        connection.close()
        raise


def connected(path: str, schema: str) -> Connection:
    """A connection for the one thread that writes, the tables made where they are missing.

    Args:
      path: A file of SQLite, or an address of PostgreSQL.
      schema: The statements that make the tables.

    Raises:
      Exception: One of `errors()`, if it cannot be opened.
    """
    if is_shared(path):
        with kept(Postgres(path)) as shared:
            shared.execute(_BEGIN)  # two that make the same table at once would fail
            shared.executescript(schema)
            shared.execute("commit")
            return shared
    if path != ":memory:":
        Path(path).parent.mkdir(parents=True, exist_ok=True)
    with kept(sqlite3.connect(path, isolation_level=None, check_same_thread=False)) as connection:
        connection.text_factory = _text_of
        connection.execute("pragma journal_mode = wal")
        connection.execute("pragma synchronous = full")
        connection.execute("pragma busy_timeout = 10000")
        # What a reader that stays for long makes of the log is given back to the disk after it.
        connection.execute(f"pragma journal_size_limit = {_LOG_BYTES}")
        connection.executescript(schema)
        return connection


def insert_rows(
    connection: Connection, table: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]
) -> None:
    """Inserts rows, many with each statement.

    After each statement SQLite's thread has to wait for its turn among the threads of Python, up
    to 5 ms while a request is worked on; in PostgreSQL each is a way to the server and back.

    Args:
      connection: A connection that may write.
      table: Name of the table.
      columns: Names of the columns.
      rows: The values of each row, in the order of the columns.
    """
    one = f"({', '.join('?' * len(columns))})"
    begin = 0
    while begin < len(rows):
        # Powers of two: few statements, which both databases keep parsed.
        most = min(MOST_VALUES // len(columns), len(rows) - begin)
        num = 1 << (most.bit_length() - 1)
        connection.execute(
            f"insert into {table} ({', '.join(columns)}) values {', '.join([one] * num)}",
            [value for row in rows[begin : begin + num] for value in row],
        )
        begin += num


def check_writable(path: str) -> None:
    """Refuses a file of SQLite that could not be made or changed, without touching it.

    Raises:
      DataError: If it could not.
    """
    file = Path(path)
    folder = next(parent for parent in file.absolute().parents if parent.exists())
    needed = [folder, file] if file.exists() else [folder]
    for place in needed:
        if path != ":memory:" and not os.access(place, os.W_OK):
            raise DataError(
                f"cannot be used as the state of a gateway: {place} may not be written", path=path
            )


def files_of(path: str) -> tuple[tuple[int, int] | None, ...]:
    """What tells the files of a state from others; None for one that is not there."""
    if is_shared(path) or path == ":memory:":
        return ()
    numbers: list[tuple[int, int] | None] = []
    for name in (path, f"{path}-wal"):
        try:
            status = os.stat(name)
        except OSError:
            numbers.append(None)
        else:
            numbers.append((status.st_dev, status.st_ino))
    return tuple(numbers)


@contextmanager
def alone_with_state(path: str) -> Iterator[None]:
    """No other gateway uses a file of SQLite till the end of the block.

    Each counts the dollars of a day, and the chances of its monitors, as if it were alone.

    Raises:
      DataError: If one does.
    """
    if is_shared(path) or path == ":memory:":
        yield
        return
    file = Path(path)
    with contextlib.suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
    lock = file.with_name(f".{file.name}.lock")
    try:
        with locked(lock, _PATIENCE):
            yield
    except TimeoutError as error:
        if error.filename != str(lock):  # of something else within the block
            raise
        raise DataError(
            "is in use by another gateway: give each a state of its own, or let them share one in "
            "PostgreSQL",
            path=path,
        ) from None


def columns_of(connection: Connection, table: str) -> list[str]:
    """The columns of a table."""
    return [
        column[0] for column in connection.execute(f"select * from {table} limit 0").description
    ]


def add_columns(connection: Connection, table: str, types: Mapping[str, str]) -> None:
    """Gives a table of an older version the columns that it lacks.

    Args:
      connection: A connection that may write.
      table: Name of the table.
      types: Types of the columns, by name, as SQLite calls them.
    """
    known = columns_of(connection, table)
    for name, type_ in types.items():
        if name in known:
            continue
        if isinstance(connection, Postgres):  # of two replicas that begin, one is the first
            type_ = _TYPES.get(type_, type_)
            connection.execute(f"alter table {table} add column if not exists {name} {type_}")
        else:
            connection.execute(f"alter table {table} add column {name} {type_}")


@contextmanager
def reading(path: str | Path) -> Iterator[Connection]:
    """A connection that only reads, for programs beside a gateway.

    Raises:
      DataError: If there is no such state, or it cannot be read.
    """
    place = str(path)
    shared = is_shared(place)
    if not shared and not Path(path).is_file():
        if problem := address_problem(place):
            raise DataError(problem)
        raise DataError("file not found", path=path)
    check_packages(place)
    try:
        if shared:
            opened: Connection = Postgres(place)
        else:
            opened = sqlite3.connect(f"file:{place}?mode=ro", uri=True)
            opened.text_factory = _text_of
        with closing(opened) as connection:
            yield connection
    except errors() as error:
        problem = f"not the state of a gateway: {words_of(error, place)}"
        raise DataError(problem, path=shown(place)) from None
    except (msgspec.MsgspecError, AttributeError, TypeError) as error:
        raise DataError(
            f"holds a row that no gateway wrote, or that was changed: {error}", path=shown(place)
        ) from error
