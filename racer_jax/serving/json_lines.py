"""Queries as lines of JSON, in and out, a batch at a time: memory does not grow with the file."""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import IO, Any, NamedTuple

import numpy as np

from racer_jax.data.errors import DataError
from racer_jax.data.formats._json import shown
from racer_jax.racer.decision import Decision
from racer_jax.racer.racer import Racer
from racer_jax.racer.routing import needs_ids
from racer_jax.serving.line_input import (
    name_of,
    no_question,
    numbered_lines,
    question_of,
    record_of,
    string_of,
)


@dataclass(frozen=True)
class Query:
    """One line.

    Use this when you read what `read_queries` yields.

    Attributes:
      line: Its number, counted from 1.
      text: The question; None where scores are given.
      scores: s(x, m) by the pool's order, where there is no router.
      group: Its group, or None.
      id: Its name, or None.
    """

    line: int
    text: str | None
    scores: list[float] | None
    group: str | None
    id: str | int | None


class BadLine(NamedTuple):
    """A line that is no query; its place in the answers is taken by an error.

    Use this when you read what `read_queries` yields.

    Attributes:
      error: What is wrong, with file and line.
      id: Its name where it could be read, or None.
    """

    error: DataError
    id: str | int | None

    def to_json(self) -> str:
        """The error as a line of JSON. Use this when a program reads the decisions as lines."""
        record = {} if self.id is None else {"id": self.id}
        return json.dumps({**record, "error": str(self.error)}, ensure_ascii=False)


class Routed(NamedTuple):
    """A query and its decision. Use this when you read what `route_queries` yields."""

    query: Query
    decision: Decision


def _scores(record: dict[str, Any], models: tuple[str, ...], path: str, line: int) -> list[float]:
    scores = record.get("scores")
    where: dict[str, Any] = {"path": path, "line": line, "field": "scores"}
    if not isinstance(scores, dict):
        got = shown(scores) if "scores" in record else "none"
        raise DataError(f"must hold a score of each of {list(models)}, got {got}", **where)
    if set(scores) != set(models):
        absent = [name for name in models if name not in scores]
        got = f"none of {absent[0]!r}" if absent else f"{min(set(scores) - set(models))!r} as well"
        raise DataError(f"must hold a score of each of {list(models)}, got {got}", **where)
    for model, score in scores.items():
        if isinstance(score, bool) or not isinstance(score, int | float) or not 0 <= score <= 1:
            raise DataError(f"must be in [0, 1], got {shown(score)} for {model!r}", **where)
    return [float(scores[model]) for model in models]


def read_queries(
    file: IO[bytes],
    path: str,
    racer: Racer,
    *,
    strict: bool = True,
    group: str | None = None,
) -> Iterator[Query | BadLine]:
    """The queries of a file of lines, JSON or plain text.

    A line of JSON is an object with `text` or `query` (for a racer made from scores: `scores`, by
    model), and `group` and `id` if there are any, or a string. Any other line is the text of a
    question as it stands, unless it begins like JSON.

    A query with `scores` is known by its text or its id, as `Racer.route_scores` says; one without
    either has every model called whose nonconformity equals the threshold.

    Use this when queries come as lines of a file or pipe; pass its result to `route_lines`.

    Args:
      file: Opened for bytes.
      path: Its name, for errors.
      racer: The racer that will route them.
      strict: Raise the error of the first line that is no query, in place of yielding it.
      group: The group of queries that name none.

    Yields:
      A query, or what is wrong, for each line that is not blank.

    Raises:
      DataError: If a line is no query and `strict`, a line has no end, there is no line, or the
        file is no text.
    """
    empty = True
    for line, raw in numbered_lines(file, path):
        empty = False
        if isinstance(raw, DataError):
            query: Query | BadLine = BadLine(raw, None)
        else:
            query = _query(raw, racer, path, line, group)
        if strict and isinstance(query, BadLine):
            raise query.error
        yield query
    if empty:
        raise DataError("holds no question: there must be at least one line", path=path)


def _query(
    raw: bytes, racer: Racer, path: str, line: int, default_group: str | None
) -> Query | BadLine:
    """The query of a line, or what is wrong with it."""
    name: str | int | None = None
    try:
        record = record_of(raw, path, line, plain=racer.scorer is not None)
        name = name_of(record, path, line)
        text, scores = question_of(record, path, line), None
        if racer.scorer is None:
            scores = _scores(record, racer.models, path, line)
            if needs_ids(racer) and _tie_name(text, name) is None:
                raise DataError(
                    "must name the query, since models of equal scores are drawn by it, got none",
                    path=path,
                    line=line,
                    field="id",
                )
        elif text is None or not text.strip():
            raise no_question(record, text, path, line)
        group = string_of(record, "group", path, line)
        group = default_group if group is None else group
        if problem := racer.refused_group(group):
            raise DataError(problem, path=path, line=line, field="group")
        return Query(line, text, scores, group, name)
    except DataError as error:
        return BadLine(error, name)


def route_queries(
    racer: Racer, queries: Iterable[Query | BadLine], batch: int
) -> Iterator[Routed | BadLine]:
    """Routes queries as they come; each with its decision, in their order.

    Use this when you need the decisions of a stream; `route_lines` makes lines of JSON of them.

    Raises:
      NotCalibratedError: If the racer has no threshold.
      DataError: If a query is not what it should be.
    """
    for waiting in _batches(queries, batch):
        decisions = iter(_decisions(racer, [q for q in waiting if isinstance(q, Query)]))
        for query in waiting:
            yield query if isinstance(query, BadLine) else Routed(query, next(decisions))


def _batches(queries: Iterable[Query | BadLine], batch: int) -> Iterator[list[Query | BadLine]]:
    """Some queries at a time; where the stream fails, those before come first."""
    stream = iter(queries)
    while True:
        waiting: list[Query | BadLine] = []
        try:
            waiting.extend(islice(stream, batch))
        except DataError:
            if waiting:
                yield waiting
            raise
        if not waiting:
            return
        yield waiting


def route_lines(racer: Racer, queries: Iterable[Query | BadLine], batch: int) -> Iterator[str]:
    """Routes queries as they come; yields a line of JSON for each, in their order.

    The `id` comes first where there is one. A line that was no query gets an object with `error`.

    Use this when decisions shall go to another program as JSON; in Python, `Racer.route` returns
    objects.

    Raises:
      NotCalibratedError: If the racer has no threshold.
      DataError: If a query is not what it should be.
    """
    return map(as_line, route_queries(racer, queries, batch))


def as_line(item: Routed | BadLine) -> str:
    """The line of JSON of a routed query. Use this when `route_queries` made the decisions."""
    if isinstance(item, BadLine):
        return item.to_json()
    query, decision = item.query, item.decision
    name = {} if query.id is None else {"id": query.id}
    return json.dumps({**name, **decision.to_dict()}, ensure_ascii=False, allow_nan=False)


def _decisions(racer: Racer, queries: Sequence[Query]) -> Iterable[Decision]:
    """The decisions of queries, all at once."""
    if not queries:
        return ()
    groups = [query.group for query in queries]
    if racer.scorer is not None:
        return racer.route([query.text or "" for query in queries], groups)
    scores = np.array([query.scores for query in queries], np.float32)
    ids = [_tie_name(query.text, query.id) for query in queries]
    return racer.route_scores(scores, groups, ids=ids)


def _tie_name(text: str | None, name: str | int | None) -> str | None:
    """What the ties of a query with scores are broken by, as in calibration: its text or its id."""
    known = [str(value) for value in (text, name) if value is not None and str(value).strip()]
    return known[0] if known else None
