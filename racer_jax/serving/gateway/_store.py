"""The state: SQLite or PostgreSQL, written by one thread, off the path of requests.

Rows of decisions are queued and written in groups. What a client is told was taken (feedback,
labels) has been committed before: a process that is killed loses none of it. Rows that a database
which cannot be reached does not take are kept, and written once it is back.
"""

import asyncio
import contextlib
import errno
import itertools
import logging
import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError
from typing import Any, TypeVar

import msgspec

from racer_jax.data.errors import DataError
from racer_jax.serving.gateway import _databases
from racer_jax.serving.gateway._databases import Connection, insert_rows
from racer_jax.serving.gateway._errors import unwritten
from racer_jax.serving.gateway._labels import keep_feedback
from racer_jax.serving.gateway._records import (
    AuditRow,
    DecisionRow,
    Feedback,
    plain_row,
    unknown_id,
    unreadable,
)
from racer_jax.serving.gateway._tables import (
    CALL_COLUMNS,
    DECISION_COLUMNS,
    insert_audit,
    opened,
    values_of,
)

_LOG = logging.getLogger("racer_jax.serving.gateway")
T = TypeVar("T")
_PAUSE = 0.05
# Time between tries to write while the database takes nothing.
_AGAIN_SECONDS = 1.0
# Rows that are kept while the database cannot be reached, and the characters in them; older ones
# are dropped, and counted.
_MOST_KEPT = 20_000
_MOST_CHARACTERS = 64_000_000
_WRITTEN = (
    "insert into meta values ('written', ?) on conflict (name) do update set value = excluded.value"
)


class Store:
    """The state of a gateway.

    Args:
      path: The SQLite file, `:memory:` for none, or an address `postgresql://...`.
      retention: Seconds after which a decision is forgotten.
      on_commit: Called in the writing thread once new rows are committed, in a transaction of its
        own; it may read and write the tables.

    Raises:
      DataError: If it cannot be opened or is no state of a gateway.
      ModuleNotFoundError: If the package for PostgreSQL is missing.
    """

    def __init__(
        self,
        path: str,
        retention: float,
        on_commit: Callable[[Connection], None] | None = None,
    ) -> None:
        _databases.check_packages(path)
        self.path, self._retention = path, retention
        self.on_rollback: Callable[[], None] | None = None
        self.shared = _databases.is_shared(path)
        self.on_commit = on_commit
        self._queue: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self.depth = 0
        self.error: Exception | None = None
        self.damage: str | None = None  # which file is damaged and what to do, once it shows
        self._refused = 0  # rows that did not come into the queue, for it was full
        self._unwritten = 0
        # Rows taken into the queue, and those of them written or lost; a thread counts each.
        self._num_taken = self._num_done = 0
        self._full = False
        self._kept: list[DecisionRow | AuditRow] = []
        self._failed_at = 0.0
        self._files: tuple[tuple[int, int] | None, ...] = ()
        ready: Future[None] = Future()
        self._thread = threading.Thread(target=self._work, args=(ready,), name="racer-state")
        self._thread.daemon = True
        self._thread.start()
        ready.result()

    # --- what others call -------------------------------------------------------------------------

    def add(self, row: DecisionRow | AuditRow) -> None:
        """Queues a row; it is written within a fraction of a second.

        Where a disk takes a write but never ends it, what waits is bounded as well.
        """
        full = self._queue.qsize() >= _MOST_KEPT
        if not full:
            self._num_taken += 1
            self._queue.put(row)
        else:
            self._refused += 1
            if not self._full:
                _LOG.error("the state loses rows: %d wait to be written", _MOST_KEPT)
        self._full = full

    def ask(self, function: Callable[[Connection], T]) -> "Future[T]":
        """Runs a function on the tables, after all rows queued before it.

        Returns:
          Its result, once what it wrote is committed.
        """
        future: Future[T] = Future()
        self._queue.put((function, future))
        return future

    def feedback(self, entry: Feedback) -> "Future[bool]":
        """Keeps feedback; the result is whether it is new.

        Its errors are those of `GatewayError`: 404, 409 and 410.
        """
        return self.ask(lambda connection: keep_feedback(connection, entry, self._retention))

    def decision(self, name: str) -> "Future[dict[str, Any]]":
        """A decision with its calls and feedback; the error is that of an unknown id."""
        return self.ask(lambda connection: self._decision(connection, name))

    @property
    def dropped(self) -> int:
        """Rows that are lost."""
        return self._refused + self._unwritten

    @property
    def num_kept(self) -> int:
        """Rows that wait until the state can be written again; 0 while it can be."""
        return 0 if self.error is None else self._num_taken - self._num_done

    def close(self) -> None:
        """Writes what is queued and ends."""
        self._queue.put(None)
        self._thread.join()

    # --- the writing thread -----------------------------------------------------------------------

    def _work(self, ready: "Future[None]") -> None:
        try:
            connection = opened(self.path)
        except DataError as error:
            ready.set_exception(error)
            return
        except _databases.errors() as error:
            place, problem = _databases.shown(self.path), _databases.words_of(error, self.path)
            ready.set_exception(
                DataError(f"cannot be used as the state of a gateway: {problem}", path=place)
            )
            return
        except Exception as error:  # whoever waits for it would wait for ever
            ready.set_exception(error)
            return
        ready.set_result(None)
        self._files = _databases.files_of(self.path)
        going = True
        while going:
            items = self._gathered()
            going = None not in items
            items = [*self._kept, *(item for item in items if item is not None)]
            if getattr(connection, "lost", False):
                connection = self._again(connection)
            self._write(connection, items)
        if self._kept:
            self._lose(len(self._kept), self.error)
        connection.close()

    def _gathered(self) -> list[Any]:
        """What has come; while nothing can be written, it is tried once in a while."""
        if self.error is None:  # as long as rows are kept there is one
            items = [self._queue.get()]
            if isinstance(items[0], DecisionRow):
                time.sleep(_PAUSE)  # those that come meanwhile are written with it
        else:
            items = []
            with contextlib.suppress(queue.Empty):
                items.append(self._queue.get(timeout=_AGAIN_SECONDS))
                time.sleep(max(self._failed_at + _AGAIN_SECONDS - time.monotonic(), 0.0))
        while not self._queue.empty():
            items.append(self._queue.get())
        return items

    def _again(self, connection: Connection) -> Connection:
        """A new connection in the place of a broken one; the broken one where there is none."""
        with contextlib.suppress(DataError, *_databases.errors()):
            return opened(self.path)
        return connection

    def _lose(self, num: int, reason: Exception | str | None) -> None:
        self._unwritten += num
        self._num_done += num
        _LOG.error("the state has lost %d rows: %s", num, reason)

    def _write(self, connection: Connection, items: list[Any]) -> None:
        """Writes what it can and keeps what another try may write; then results are handed out.

        Where the database refuses one of several, each is tried alone: the others are not at fault.
        What comes after one that another try may write waits with it, for it may be about its row.
        """
        answers, error = self._tried(connection, items)
        tried = [(items, error)]
        if error is not None and len(items) > 1 and not _databases.may_pass(error):
            answers, tried = [], []
            for i, item in enumerate(items):
                answer, error = self._tried(connection, [item])
                if error is not None and _databases.may_pass(error):
                    answers += _told(items[i:], error)
                    tried.append((items[i:], error))
                    break
                answers += answer
                tried.append(([item], error))
        left: list[DecisionRow | AuditRow] = []
        for part, error in tried:
            rows = [item for item in part if isinstance(item, DecisionRow | AuditRow)]
            if error is None:
                self._num_done += len(rows)
            elif _databases.may_pass(error):
                left += rows
            elif rows:
                self._lose(len(rows), error)
        self._kept = _newest(left)
        if lost := len(left) - len(self._kept):
            self._lose(lost, self.error)
        for future, outcome in answers:
            with contextlib.suppress(InvalidStateError):  # nobody waits any more: it was cancelled
                if isinstance(outcome, Exception):
                    future.set_exception(outcome)
                else:
                    future.set_result(outcome)

    def _tried(
        self, connection: Connection, items: list[Any]
    ) -> tuple[list[tuple[Future[Any], Any]], Exception | None]:
        """One transaction: the results to hand out after its commit, and why it failed if so."""
        answers: list[tuple[Future[Any], Any]] = []
        before = self.error
        try:
            self._check_files()
            connection.execute("begin immediate")
            if before is not None:  # whether it can be written shows by writing
                connection.execute(_WRITTEN, [str(time.time())])
            decisions = [item for item in items if isinstance(item, DecisionRow)]
            if decisions and before is not None:
                decisions = _absent(connection, decisions)
            if decisions:
                self._insert(connection, decisions)
            for item in items:
                if isinstance(item, AuditRow):
                    insert_audit(connection, item)
                elif isinstance(item, tuple):
                    answers.append((item[1], self._outcome(connection, item[0])))
            connection.execute("commit")
        except Exception as raised:  # a full disk, say: whoever waits hears of it
            _undo(connection)
            error = self._explained(raised)
            self._failed(error)
            return _told(items, error), error
        self._fold(connection)
        return answers, None

    def _fold(self, connection: Connection) -> None:
        """Has what is committed taken in: what might yet be undone must not count."""
        try:
            if self.on_commit is not None:
                connection.execute("begin immediate")
                self.on_commit(connection)
                connection.execute("commit")
        except Exception as raised:
            _undo(connection)
            error = self._explained(raised)
            if self.on_rollback is not None:
                self.on_rollback()
            if self.error is None and not _databases.may_pass(error):
                _LOG.error("what was written cannot be counted by the monitors: %r", error)
            self._failed(error)
            return
        if self.error is not None:
            _LOG.warning("the state is written again")
        self.error = None

    def _outcome(self, connection: Connection, function: Callable[[Connection], Any]) -> Any:
        """The result of a function, or its error; what it wrote before an error is undone."""
        connection.execute("savepoint one")
        try:
            result = function(connection)
        except Exception as error:
            try:
                connection.execute("rollback to one")
            except _databases.errors() as undone:  # there was nothing to undo any more
                raise (error if isinstance(error, _databases.errors()) else undone) from None
            result = self._explained(error)
        connection.execute("release one")
        return result

    def _explained(self, error: Exception) -> Exception:
        """An error, with what to do where the file is damaged, which is noted."""
        error = _databases.explained(error, self.path)
        if isinstance(error, _databases.DamagedError):
            if self.damage is None:
                _LOG.error("the state is damaged: %s", error.words)
            self.damage = error.words
        return error

    def _failed(self, error: Exception) -> None:
        """Notes why nothing could be written, and says it once."""
        if self.error is None and _databases.may_pass(error):
            _LOG.error("the state cannot be written: %s; what comes is kept for now", error)
        self.error, self._failed_at = error, time.monotonic()

    def _check_files(self) -> None:
        """Refuses to write into files that are not where they were: nobody would read them again.

        Raises:
          OSError: If one was deleted or replaced.
        """
        if _databases.files_of(self.path) != self._files:
            raise OSError(errno.ESTALE, "its file was deleted or replaced: put it back, or restart")

    def _insert(self, connection: Connection, rows: list[DecisionRow]) -> None:
        insert_rows(connection, "decision", DECISION_COLUMNS, [values_of(row) for row in rows])
        calls = [
            (row.id, c.model, c.outcome, c.seconds, c.prompt_tokens, c.completion_tokens, c.dollars)
            for row in rows
            for c in row.calls
        ]
        insert_rows(connection, "call", CALL_COLUMNS, calls)

    def _decision(self, connection: Connection, name: str) -> dict[str, Any]:
        row = connection.execute(
            f"select {', '.join(DECISION_COLUMNS)} from decision where id = ?", [name]
        ).fetchone()
        if row is None:
            raise unknown_id(name)
        try:
            return self._shown(connection, name, row)
        except (msgspec.MsgspecError, UnicodeDecodeError, TypeError, ValueError) as error:
            raise unreadable(name, str(error)) from None

    def _shown(self, connection: Connection, name: str, row: tuple[Any, ...]) -> dict[str, Any]:
        """A decision with its calls and feedback, all that was read of it checked."""
        if any(isinstance(value, bytes) for value in row):
            raise ValueError("a text is no UTF-8")
        plain = plain_row(list(DECISION_COLUMNS), row)
        plain["group"] = plain.pop("grp")
        for flag in ("audited", "null_in_set"):
            plain[flag] = bool(plain[flag])
        plain["promised"] = None if plain["promised"] is None else bool(plain["promised"])
        calls = connection.execute(
            f"select {', '.join(CALL_COLUMNS[1:])} from call where decision = ?",
            [name],
        )
        plain["calls"] = [
            dict(zip([column[0] for column in calls.description], row, strict=True))
            for row in calls.fetchall()
        ]
        entries = connection.execute(
            "select source, at, content, labeller from feedback where decision = ?", [name]
        )
        plain["feedback"] = [
            {"source": source, "at": at, "labeller": labeller, **msgspec.json.decode(content)}
            for source, at, content, labeller in entries.fetchall()
        ]
        return plain

    def forget(self) -> "Future[int]":
        """Deletes what is past its retention; the result is the number of decisions."""

        def delete(connection: Connection) -> int:
            before = time.time() - self._retention
            old = "(select id from decision where at < ?)"
            for table in ("call", "audit", "feedback"):
                connection.execute(f"delete from {table} where decision in {old}", [before])
            deleted = connection.execute("delete from decision where at < ?", [before])
            return int(deleted.rowcount)

        return self.ask(delete)


async def answer_of(future: "Future[T]") -> T:
    """What was asked of the state.

    Raises:
      GatewayError: If it says so, or the state can be neither read nor written now (503).
    """
    try:
        return await asyncio.wrap_future(future)
    except _databases.errors() as error:
        raise unwritten(
            "the state of the gateway cannot be written now, and nothing of this request was kept: "
            "send it again later"
        ) from error


def _undo(connection: Connection) -> None:
    """Ends a transaction that failed, if there is one."""
    with contextlib.suppress(*_databases.errors()):
        if connection.in_transaction:
            connection.execute("rollback")


def _told(items: list[Any], error: Exception) -> list[tuple[Future[Any], Any]]:
    """An error as the result of all that was asked."""
    return [(item[1], error) for item in items if isinstance(item, tuple)]


def _absent(connection: Connection, rows: list[DecisionRow]) -> list[DecisionRow]:
    """The rows that are not there: a commit may succeed, and its answer be lost on the way."""
    known: set[str] = set()
    for begin in range(0, len(rows), _databases.MOST_VALUES):
        names = [row.id for row in rows[begin : begin + _databases.MOST_VALUES]]
        query = f"select id from decision where id in ({', '.join('?' * len(names))})"
        known.update(name for (name,) in connection.execute(query, names).fetchall())
    return [row for row in rows if row.id not in known]


def _newest(rows: list[DecisionRow | AuditRow]) -> list[DecisionRow | AuditRow]:
    """The last rows, as many as may be kept."""
    sizes = itertools.accumulate(map(_num_characters, reversed(rows)))
    num = sum(1 for size in itertools.islice(sizes, _MOST_KEPT) if size <= _MOST_CHARACTERS)
    return rows[len(rows) - num :]


def _num_characters(row: DecisionRow | AuditRow) -> int:
    """Characters of a row that come from requests and answers."""
    if isinstance(row, DecisionRow):
        return len(row.prompt or "")
    return len(row.messages or b"") + sum(len(answer or "") for answer in row.answers.values())
