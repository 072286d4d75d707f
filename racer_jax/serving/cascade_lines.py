"""Queries through a cascade as lines of JSON, both ways.

A line asks for calls, a line brings answers.

A line `{"id": ..., "text": ...}` opens a query; the line that comes back names the models to call.
A line `{"id": ..., "answers": {model: text or null}}` brings answers; what comes back names the
next models, or gives the answer and its reason. Queries may be open at the same time. A query
without an `id`, such as a line of plain text, is named by the number of its line. A line that does
not fit comes back with an `error`, and the query stays as it was.
"""

import json
from collections.abc import Iterator
from typing import IO, Any

from racer_jax.data.errors import DataError
from racer_jax.data.formats._json import shown
from racer_jax.sequential.caller import CallState
from racer_jax.serving.cascade import Cascade
from racer_jax.serving.line_input import (
    name_of,
    no_question,
    numbered_lines,
    question_of,
    record_of,
    string_of,
)

Name = str | int


def answer_lines(
    cascade: Cascade, file: IO[bytes], path: str, *, strict: bool = False
) -> Iterator[str]:
    """Carries queries through a cascade.

    Use this when another program makes the calls and exchanges lines with this one; in Python, call
    `Cascade.start` and `Cascade.tell`.

    Args:
      cascade: The cascade.
      file: Lines of JSON, opened for bytes; a line of plain text opens a query.
      path: Its name, for errors.
      strict: Raise the error of the first line that does not fit, in place of yielding it.

    Yields:
      A line of JSON for each line that is not blank: `id`, and `call` or `answer` and `reason`,
      `calls` and `cost` so far; or `error` and the number of the `line`.

    Raises:
      DataError: At the end, if lines did not fit or queries are still open; at once, if `strict`, a
        line has no end or the file is no text.
    """
    states: dict[Name, CallState] = {}
    num_lines = num_bad = 0
    first_error: DataError | None = None
    for line, raw in numbered_lines(file, path):
        num_lines += 1
        name: Name | None = None
        try:
            if isinstance(raw, DataError):
                raise raw
            record = record_of(raw, path, line, plain=True)
            name = name_of(record, path, line)
            query = _number_as_name(record, path, line) if name is None else name
            state = _next(cascade, states, query, record, path, line)
        except DataError as error:
            if strict:
                raise
            num_bad, first_error = num_bad + 1, first_error or error
            yield _error_line(error, name, line)
            continue
        if state.done:
            states.pop(query, None)
        else:
            states[query] = state
        yield json.dumps({"id": query, **state.to_dict()}, ensure_ascii=False)
    _check_end(path, list(states), num_lines, num_bad, first_error)


def _number_as_name(record: dict[str, Any], path: str, line: int) -> int:
    """The number of a line, which names the query that it opens.

    Raises:
      DataError: If it opens none.
    """
    if "answers" in record:
        problem = "must have the 'id' of the query that the answers are for"
        raise DataError(problem, path=path, line=line)
    return line


def _next(
    cascade: Cascade,
    states: dict[Name, CallState],
    name: Name,
    record: dict[str, Any],
    path: str,
    line: int,
) -> CallState:
    """The state of a query after a line.

    Raises:
      DataError: If the line does not fit the state of its query.
    """
    try:
        if "answers" in record:
            return _state_after_answers(cascade, states, name, record)
        return _state_of_new(cascade, states, name, record, path, line)
    except DataError:
        raise
    except (TypeError, ValueError) as error:
        problem = str(error).replace("or None for no answer", "or null for no answer")
        raise DataError(problem, path=path, line=line) from None


def _state_of_new(
    cascade: Cascade,
    states: dict[Name, CallState],
    name: Name,
    record: dict[str, Any],
    path: str,
    line: int,
) -> CallState:
    """The state of a query that a line opens."""
    text = question_of(record, path, line)
    if text is None and not {"text", "query"} & set(record):
        raise ValueError("must have 'text', to open a query, or 'answers', to go on with it")
    if text is None or not text.strip():
        raise no_question(record, text, path, line)
    if name in states:
        raise ValueError(f"the query {name!r} is open already")
    return cascade.start(text, string_of(record, "group", path, line))


def _state_after_answers(
    cascade: Cascade, states: dict[Name, CallState], name: Name, record: dict[str, Any]
) -> CallState:
    """The state of a query after its models answered."""
    if {"text", "query"} & set(record):
        raise ValueError("must have 'text', to open a query, or 'answers', not both")
    if name not in states:
        raise ValueError(f"no query {name!r} is open: its text comes first, its answer ends it")
    answers, dollars = record["answers"], record.get("dollars")
    if not isinstance(answers, dict):
        raise TypeError(f"answers must be an object of model to text or null, got {shown(answers)}")
    if dollars is not None and not isinstance(dollars, dict):
        raise TypeError(f"dollars must be an object of model to number, got {shown(dollars)}")
    return cascade.tell(states[name], answers, dollars)


def _error_line(error: DataError, name: Name | None, line: int) -> str:
    """What comes back for a line that does not fit."""
    place = {"line": line} if name is None else {"id": name, "line": line}
    return json.dumps({**place, "error": str(error)}, ensure_ascii=False)


def _check_end(
    path: str,
    names: list[Name],
    num_lines: int,
    num_bad: int,
    first_error: DataError | None,
) -> None:
    """Says what did not fit, and which queries have no answer yet.

    Raises:
      DataError: If there is any.
    """
    problems = []
    if names:
        several = "1 query is" if len(names) == 1 else f"{len(names):,} queries are"
        problems.append(f"ends while {several} open, first {names[0]!r}")
    if num_bad:
        problems.append(
            f"{num_bad:,} of {num_lines:,} lines did not fit; each has an object with 'error' in "
            f"its place; first: {first_error}"
        )
    if problems:
        raise DataError("; ".join(problems), path=path)
