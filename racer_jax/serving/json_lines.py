"""Queries as lines of JSON, in and out, a batch at a time: memory does not grow with the file."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, Any

import numpy as np

from racer_jax.data.errors import DataError
from racer_jax.racer.racer import Racer

# A line longer than this is no query but a file that is not lines.
_LONGEST = 16 << 20


@dataclass(frozen=True)
class Query:
    """One line.

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
    id: str | None


def _string(record: dict[str, Any], field: str, path: str, line: int) -> str | None:
    value = record.get(field)
    if value is not None and not isinstance(value, str):
        raise DataError(f"must be a string, got {value!r}", path=path, line=line, field=field)
    return value


def _scores(record: dict[str, Any], models: tuple[str, ...], path: str, line: int) -> list[float]:
    given = record.get("scores")
    if not isinstance(given, dict) or set(given) != set(models):
        raise DataError(
            f"must hold a score of each of {list(models)}, got {given!r}",
            path=path,
            line=line,
            field="scores",
        )
    for model, score in given.items():
        if isinstance(score, bool) or not isinstance(score, int | float) or not 0 <= score <= 1:
            raise DataError(
                f"must be in [0, 1], got {score!r} for {model!r}",
                path=path,
                line=line,
                field="scores",
            )
    return [float(given[model]) for model in models]


def read_queries(file: IO[bytes], path: str, racer: Racer) -> Iterator[Query]:
    """The queries of a file of JSON lines: objects with `text` (or `scores`), and `group` and `id` if there are any.

    Args:
      file: Opened for bytes.
      path: Its name, for errors.
      racer: Who will route them.

    Yields:
      One query for each line that is not blank.

    Raises:
      DataError: If a line is not such an object, named by line and field, or there is none.
    """
    none = True
    for line in range(1, 1 << 62):
        raw = file.readline(_LONGEST)
        if not raw:
            break
        if len(raw) >= _LONGEST:
            raise DataError(
                f"must be lines of JSON, got one of more than {_LONGEST >> 20} MiB",
                path=path,
                line=line,
            )
        if not raw.strip():
            continue
        try:
            record = json.loads(raw.decode("utf-8-sig" if line == 1 else "utf-8"))
        except (ValueError, RecursionError):
            raise DataError("must be a JSON object in UTF-8", path=path, line=line) from None
        if not isinstance(record, dict):
            raise DataError(
                f"must be a JSON object, got {type(record).__name__}", path=path, line=line
            )
        text, scores = _string(record, "text", path, line), None
        if racer.scorer is None:
            scores = _scores(record, racer.models, path, line)
        elif text is None or not text.strip():
            raise DataError(
                f"must be the text of a question, got {text!r}", path=path, line=line, field="text"
            )
        group = _string(record, "group", path, line)
        none = False
        yield Query(line, text, scores, group, _string(record, "id", path, line))
    if none:
        raise DataError("holds no question: there must be at least one line", path=path)


def route_lines(racer: Racer, queries: Iterator[Query], batch: int) -> Iterator[str]:
    """Routes queries as they come; yields a line of JSON for each, in their order, `id` first where it has one.

    Raises:
      NotCalibratedError: If the racer has no threshold.
      DataError: If a query is not what it should be.
    """
    waiting: list[Query] = []

    def routed() -> Iterator[str]:
        groups = [query.group for query in waiting]
        if racer.scorer is None:
            scores = np.array([query.scores for query in waiting], np.float32)
            named = [query.text or query.id for query in waiting]
            ids = [name for name in named if name is not None]
            decisions = racer.route_scores(
                scores, groups, ids=ids if len(ids) == len(waiting) else None
            )
        else:
            decisions = racer.route([query.text or "" for query in waiting], groups)
        for query, decision in zip(waiting, decisions, strict=True):
            name = {} if query.id is None else {"id": query.id}
            yield json.dumps({**name, **decision.to_dict()}, ensure_ascii=False, allow_nan=False)

    for query in queries:
        waiting.append(query)
        if len(waiting) == batch:
            yield from routed()
            waiting.clear()
    if waiting:
        yield from routed()
