"""What is said of decisions: kept once, added up where one source says more, never contradicted."""

import time
from collections.abc import Collection, Mapping
from typing import Any

import msgspec

from racer_jax.serving.gateway._databases import Connection
from racer_jax.serving.gateway._errors import GatewayError
from racer_jax.serving.gateway._identifiers import seconds_of
from racer_jax.serving.gateway._records import (
    TRUSTED,
    Feedback,
    check_label,
    contradicts,
    past_retention,
    unknown_id,
    unreadable,
)
from racer_jax.serving.gateway._rows import SHOWN_MODEL, UnreadableError, models_of, said_of


def keep_feedback(connection: Connection, entry: Feedback, retention: float) -> bool:
    """Keeps feedback on a decision; what one source says of it adds up.

    Args:
      connection: The state.
      entry: The feedback.
      retention: Seconds after which a decision takes none.

    Returns:
      Whether it says anything new.

    Raises:
      GatewayError: If there is no such decision (404), it is too old (410), or it contradicts what
        it says itself (400) or was said before (409).
    """
    since = seconds_of(entry.id)
    if since is not None and since < time.time() - retention:
        raise past_retention(entry.id)
    row = connection.execute(
        f"select decided, {SHOWN_MODEL}, pool, audited from decision d where id = ?", [entry.id]
    ).fetchone()
    if row is None:
        raise unknown_id(entry.id)
    decided, answered, pool, audited = row
    try:
        decided, pool = models_of(decided), models_of(pool)
    except UnreadableError as error:
        raise unreadable(entry.id, str(error)) from None
    check_label(entry, decided, answered, pool, bool(audited))
    said = facts_of(entry)
    before = connection.execute(
        "select seq, content from feedback where decision = ? and source = ?",
        [entry.id, entry.source],
    ).fetchone()
    completes = None
    if before is not None:
        completes, earlier = before[0], _earlier(entry, before[1])
        whole = completed(earlier, said)
        if whole == earlier:
            return False
        # A second rating of a user would count twice, or never.
        if whole is None or entry.source not in TRUSTED or not audited:
            raise contradicts(entry.id, entry.source)
        check_together(entry, whole, decided, answered, pool)
        content = text_of(whole)
        if says_miss(earlier, pool):  # the monitors have counted it, and may not do so again
            place = None
            if not says_answer(earlier, answered):  # that is said only now, after all labels so far
                (place,) = connection.execute("select max(seq) from feedback").fetchone()
            changed = "update feedback set content = ?, completes = coalesce(?, completes) "
            connection.execute(f"{changed}where seq = ?", [content, place, completes])
            return True
        connection.execute("delete from feedback where seq = ?", [completes])
    else:
        content = text_of(said)
    connection.execute(
        "insert into feedback (decision, source, at, content, labeller, comment, completes) "
        "values (?, ?, ?, ?, ?, ?, ?)",
        [entry.id, entry.source, time.time(), content, entry.labeller, entry.comment,
         completes],
    )  # fmt: skip
    return True


def _earlier(entry: Feedback, content: str) -> dict[str, Any]:
    """What a source said before.

    Raises:
      GatewayError: If it cannot be read: it may have been counted while it could, and a label that
        takes its place would count once more.
    """
    try:
        earlier: dict[str, Any] = msgspec.to_builtins(said_of(content))
    except UnreadableError as error:
        raise unreadable(entry.id, str(error)) from None
    return earlier


def facts_of(entry: Feedback) -> dict[str, Any]:
    """What feedback says, without who says it."""
    said = {"correct": entry.correct, "missed": entry.missed}
    said["answer_correct"] = entry.answer_correct
    return {name: value for name, value in said.items() if value is not None}


def completed(before: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any] | None:
    """What two labels of one source say together; None where they contradict each other.

    >>> completed({"answer_correct": 1}, {"missed": 0})
    {'missed': 0, 'answer_correct': 1}
    >>> completed({"correct": {"a": 1}}, {"correct": {"a": 0, "b": 1}}) is None
    True
    """
    together = {**new, **before}
    if "correct" in before and "correct" in new:
        together["correct"] = {**new["correct"], **before["correct"]}
    for name, value in new.items():
        both = together[name]
        agrees = value.items() <= both.items() if isinstance(value, dict) else value == both
        if not agrees:
            return None
    return together


def says_miss(content: Mapping[str, Any], pool: Collection[str]) -> bool:
    """Whether a label says that the set missed, or that it did not."""
    return "missed" in content or set(pool) <= set(content.get("correct", ()))


def says_answer(content: Mapping[str, Any], answered: str) -> bool:
    """Whether a label says if the answer that was shown is right."""
    return "answer_correct" in content or answered in content.get("correct", ())


def check_together(
    entry: Feedback,
    together: Mapping[str, Any],
    decided: Collection[str],
    answered: str,
    pool: Collection[str],
) -> None:
    """Refuses a label of an audit that contradicts what its source said before in other fields.

    Raises:
      GatewayError: If it does.
    """
    try:
        check_label(msgspec.structs.replace(entry, **together), decided, answered, pool, True)
    except GatewayError:
        raise contradicts(entry.id, entry.source) from None


def text_of(value: Any) -> str:
    """A value as JSON."""
    return msgspec.json.encode(value).decode()
