"""The tables of the state: what they hold, how they are made, and the rows that go into them."""

from typing import Any

import msgspec

from racer_jax.data.errors import DataError
from racer_jax.serving.gateway import _databases
from racer_jax.serving.gateway._databases import Connection
from racer_jax.serving.gateway._records import AuditRow, DecisionRow

_FORMAT = 1
_SCHEMA = """
create table if not exists meta (name text primary key, value text not null);
create table if not exists decision (
  seq integer primary key autoincrement, id text unique not null, at real not null,
  route text not null, artefact text not null, client text not null, alpha text not null,
  grp text, reason text not null, mode text not null, decided text not null, called text not null,
  answered text not null, failed text not null, guarantee text not null, status integer not null,
  seconds real not null, dollars real, fingerprint integer not null, top_score real,
  null_in_set integer not null, pool text not null, scores text not null,
  audited integer not null, prompt text, promised integer, experiment text, unit integer,
  charged real);
create index if not exists decision_at on decision (at);
create table if not exists call (
  decision text not null, model text not null, outcome text not null, seconds real not null,
  prompt_tokens integer not null, completion_tokens integer not null, dollars real);
create index if not exists call_decision on call (decision);
create table if not exists feedback (
  seq integer primary key autoincrement, decision text not null, source text not null,
  at real not null, content text not null, labeller text, comment text, completes integer,
  unique (decision, source));
create table if not exists audit (
  decision text primary key, at real not null, messages blob, answers text not null,
  nonconformity blob not null, checksum text not null, null_mode text not null);
create table if not exists activation (
  seq integer primary key autoincrement, route text not null, artefact text not null,
  null_mode text not null, at real not null, unique (route, artefact));
create table if not exists monitor (name text primary key, position integer not null,
  state text not null);
"""
DECISION_COLUMNS = (
    "id", "at", "route", "artefact", "client", "alpha", "grp", "reason", "mode", "decided",
    "called", "answered", "failed", "guarantee", "status", "seconds", "dollars", "fingerprint",
    "top_score", "null_in_set", "pool", "scores", "audited", "prompt", "promised", "experiment",
    "unit", "charged",
)  # fmt: skip
# Those that tables of older versions lack: empty in their rows.
_NEW_COLUMNS = {
    "decision": {"promised": "integer", "experiment": "text", "unit": "integer", "charged": "real"},
    "feedback": {"completes": "integer"},  # the label after which it counts as said, if not itself
}
CALL_COLUMNS = (
    "decision", "model", "outcome", "seconds", "prompt_tokens", "completion_tokens", "dollars",
)  # fmt: skip


def json_of(value: Any) -> str:
    return msgspec.json.encode(value).decode()


def values_of(row: DecisionRow) -> tuple[Any, ...]:
    return (
        row.id, row.at, row.route, row.artefact, row.client, row.alpha, row.group, row.reason,
        row.mode, json_of(row.decided), json_of(row.called), row.answered, json_of(row.failed),
        row.guarantee, row.status, row.seconds, row.dollars, row.fingerprint, row.top_score,
        row.null_in_set, json_of(row.pool), json_of(row.scores), row.audited, row.prompt,
        row.promised, row.experiment, row.unit, row.charged,
    )  # fmt: skip


def insert_audit(connection: Connection, row: AuditRow) -> None:
    connection.execute(
        "insert into audit values (?, ?, ?, ?, ?, ?, ?) on conflict (decision) do nothing",
        [row.id, row.at, row.messages, json_of(row.answers), row.nonconformity, row.checksum,
         row.null],
    )  # fmt: skip


def opened(path: str) -> Connection:
    """A connection to the state, its tables made where they are missing.

    Raises:
      DataError: If it was written by a newer version.
      Exception: One of the database, if it cannot be opened.
    """
    with _databases.kept(_databases.connected(path, _SCHEMA)) as connection:
        meta(connection, "format", str(_FORMAT))
        check_format(connection, path)
        for table, columns in _NEW_COLUMNS.items():
            _databases.add_columns(connection, table, columns)
        return connection


def check_format(connection: Connection, path: str) -> None:
    """Refuses a state of a newer version.

    Raises:
      DataError: If it is one.
    """
    query = "select value from meta where name = 'format'"
    (version,) = connection.execute(query).fetchone() or (_FORMAT,)
    if not str(version).isdecimal():
        raise DataError(
            f"must have a format that is a whole number, got {version!r}: it is damaged",
            path=_databases.shown(path),
        )
    if int(version) > _FORMAT:
        raise DataError(
            f"has format {version}; this version of racer_jax reads formats up to {_FORMAT}: "
            "update racer_jax",
            path=_databases.shown(path),
        )


def meta(connection: Connection, name: str, new: str) -> str:
    """A value that is kept in the state, made once."""
    connection.execute("insert into meta values (?, ?) on conflict (name) do nothing", [name, new])
    (value,) = connection.execute("select value from meta where name = ?", [name]).fetchone()
    return str(value)
