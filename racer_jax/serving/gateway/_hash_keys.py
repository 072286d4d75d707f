"""The key of all draws: kept with the state, and noticed where it is another than before.

What a set promises does not depend on it, and audits drawn by two keys one after the other are a
random sample of the traffic all the same. But a conversation, user or key of an experiment may get
another route by another key, and has another number: it would count twice in a comparison. And
replicas with different keys test different samples of the queries, each with the whole level.
"""

import logging
import re
import secrets
import time
from hashlib import blake2b
from typing import NamedTuple

import msgspec

from racer_jax.serving.gateway._databases import Connection
from racer_jax.serving.gateway._rows import UnreadableError
from racer_jax.serving.gateway._since import shown_time

_LOG = logging.getLogger("racer_jax.serving.gateway")
_NAME, _MARK, _CHANGE = "hash_key", "mark of hash_key", "change of hash_key"
_MOST_BYTES = 64
_STORED = re.compile("[0-9a-f]{64}")


class Change(NamedTuple):
    """The last time that the key was another than before.

    Attributes:
      seq: The last decision of the key before.
      at: Seconds since 1970.
    """

    seq: int
    at: float


def taken_up(connection: Connection, configured: str | None) -> bytes:
    """The key: that of the configuration, else the one that is kept in the state.

    Where it is another than before, that is said, and kept for those who compare routes.

    Args:
      connection: The state.
      configured: The key of the configuration; None where it has none.
    """
    key = _kept(connection)
    if configured is not None:
        key = configured.encode()[:_MOST_BYTES]
    mark = mark_of(key)
    before = _value(connection, _MARK)
    if before is not None and before != mark:
        (seq,) = connection.execute("select coalesce(max(seq), 0) from decision").fetchone()
        change = Change(seq, time.time())
        _write(connection, _CHANGE, msgspec.json.encode(change).decode())
        _LOG.warning("%s", words_of(change))
    if before != mark:
        _write(connection, _MARK, mark)
    return key


def mark_of(key: bytes) -> str:
    """What tells a key from others, and from which it cannot be computed."""
    return blake2b(b"mark", key=key, person=b"mark", digest_size=16).hexdigest()


def notice_of(connection: Connection, key: bytes) -> str | None:
    """What to say of the key: that it was changed, or that another replica uses another one."""
    if _value(connection, _MARK) != mark_of(key):
        return (
            "another gateway uses this state with another audit.hash_key: monitors and experiments "
            "count on one, so give all replicas the same"
        )
    try:
        change = change_of(connection)
    except UnreadableError as error:
        return f"'racer-jax compare' cannot tell which decisions to count: {error}"
    return None if change is None else words_of(change)


def change_of(connection: Connection) -> Change | None:
    """The last change of the key; None where there was none.

    Raises:
      UnreadableError: If there was one, and when cannot be read.
    """
    value = _value(connection, _CHANGE)
    if value is None:
        return None
    try:
        return msgspec.json.decode(value, type=Change)
    except (msgspec.MsgspecError, ValueError):
        raise UnreadableError(
            f"when audit.hash_key was changed cannot be read (the row {_CHANGE!r} of the table "
            "meta: the number of the last decision by the key before, and seconds since 1970, such "
            "as [120,1790000000.0])"
        ) from None


def words_of(change: Change) -> str:
    """What a change of the key means."""
    return (
        f"the key of the draws (audit.hash_key) was another before {shown_time(change.at)}: "
        "conversations, users and keys of experiments may have changed their route then, so "
        "'racer-jax compare' counts decisions since then alone; audits and promises are as before"
    )


def _kept(connection: Connection) -> bytes:
    """The key that is kept in the state; a new one where there is none, or it cannot be read."""
    stored = _value(connection, _NAME)
    if stored is None or not _STORED.fullmatch(stored):
        if stored is not None:
            _LOG.error(
                "the key of the draws cannot be read in the state: a new one takes its place"
            )
        stored = secrets.token_hex(32)
        _write(connection, _NAME, stored)
    return bytes.fromhex(stored)


def _value(connection: Connection, name: str) -> str | None:
    row = connection.execute("select value from meta where name = ?", [name]).fetchone()
    return None if row is None else str(row[0])


def _write(connection: Connection, name: str, value: str) -> None:
    connection.execute(
        "insert into meta values (?, ?) on conflict (name) do update set value = excluded.value",
        [name, value],
    )
