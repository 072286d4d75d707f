"""Queries through a cascade as lines of JSON, both ways.

A line asks for calls, a line brings answers.

A line `{"id": ..., "text": ...}` opens a query; the line that comes back names the models to call.
A line `{"id": ..., "answers": {model: text or null}}` brings answers; what comes back names the
next models, or gives the answer and its reason. Queries may be open at the same time. A line that
does not fit comes back with an `error`, and the query stays as it was.
"""

import json
from collections.abc import Iterator
from typing import IO, Any

from racer_jax.data.errors import DataError
from racer_jax.sequential.caller import CallState
from racer_jax.serving.cascade import Cascade

# A line longer than this is no query but a file that is not lines.
_LONGEST = 16 << 20


def _record(raw: bytes) -> dict[str, Any]:
    """A line as an object.

    Raises:
      ValueError: If it is none, or has no id.
    """
    try:
        record = json.loads(raw.decode("utf-8-sig"))
    except (ValueError, RecursionError):
        raise ValueError("must be a JSON object in UTF-8") from None
    if not isinstance(record, dict):
        raise ValueError(f"must be a JSON object, got {type(record).__name__}")
    name = record.get("id")
    if not isinstance(name, str):
        raise ValueError(f"must have an id that is a string, got {name!r}")
    if ("text" in record) == ("answers" in record):
        raise ValueError("must have 'text', to open a query, or 'answers', to go on with it")
    return record


def _next(cascade: Cascade, states: dict[str, CallState], record: dict[str, Any]) -> CallState:
    """The state of a query after a line.

    Raises:
      TypeError: If a field is of the wrong kind.
      ValueError: If it does not fit the state of its query.
    """
    name = record["id"]
    if "text" in record:
        if name in states:
            raise ValueError(f"the query {name!r} is open already")
        return cascade.start(record["text"], record.get("group"))
    if name not in states:
        raise ValueError(f"no query {name!r} is open: its text comes first, its answer ends it")
    answers, dollars = record["answers"], record.get("dollars")
    if not isinstance(answers, dict):
        raise TypeError(f"answers must be an object of model to text or null, got {answers!r}")
    if dollars is not None and not isinstance(dollars, dict):
        raise TypeError(f"dollars must be an object of model to number, got {dollars!r}")
    return cascade.tell(states[name], answers, dollars)


def answer_lines(cascade: Cascade, file: IO[bytes], path: str) -> Iterator[str]:
    """Carries queries through a cascade.

    Use this when another program makes the calls and exchanges lines with this one; in Python, call
    `Cascade.start` and `Cascade.tell`.

    Args:
      cascade: The cascade.
      file: Lines of JSON, opened for bytes.
      path: Its name, for errors.

    Yields:
      A line of JSON for each line that is not blank: `id`, and `call` or `answer` and `reason`,
      `calls` and `cost` so far; or `error` and the number of the `line`.

    Raises:
      DataError: If a line is too long to be one, or the input ends while queries are open.
    """
    states: dict[str, CallState] = {}
    for line in range(1, 1 << 62):
        raw = file.readline(_LONGEST)
        if not raw:
            break
        if len(raw) >= _LONGEST:
            problem = f"must be lines of JSON, got one of more than {_LONGEST >> 20} MiB"
            raise DataError(problem, path=path, line=line)
        if not raw.strip():
            continue
        try:
            record = _record(raw)
            state = _next(cascade, states, record)
        except (TypeError, ValueError) as error:
            yield json.dumps({"line": line, "error": str(error)}, ensure_ascii=False)
            continue
        if state.done:
            states.pop(record["id"], None)
        else:
            states[record["id"]] = state
        yield json.dumps({"id": record["id"], **state.to_dict()}, ensure_ascii=False)
    if states:
        first = next(iter(states))
        several = "1 query is" if len(states) == 1 else f"{len(states)} queries are"
        raise DataError(f"ends while {several} open, first {first!r}", path=path)
