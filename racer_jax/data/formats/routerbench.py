"""RouterBench's wide CSV: a score, an answer and a cost in dollars for each model.

Columns: `sample_id`, `prompt`, `eval_name`, and for each model `<model>` (score),
`<model>|model_response`, `<model>|total_cost`. The files of `datasets/routerbench_zs/` of
github.com/shuhao02/RouterDC are such. Some of their questions stand in two rows, with
complementary scores: the rows are joined, across files too.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from racer_jax.data.answers import letter, text
from racer_jax.data.errors import DataError
from racer_jax.data.formats._cells import (
    Missing,
    Rules,
    built,
    check_missing,
    check_rule,
    labels_by_rule,
    settle_missing,
)
from racer_jax.data.formats._fields import column_of_floats, column_of_labels
from racer_jax.data.formats._folders import files_of, unread
from racer_jax.data.formats._rows import ignored_columns
from racer_jax.data.formats._text import CsvFile, open_csv
from racer_jax.data.table import RoutingTable

if TYPE_CHECKING:
    import jax

_RESPONSE, _COST = "|model_response", "|total_cost"
_PLAIN = ("", "sample_id", "prompt", "eval_name", "oracle_model_to_route_to")
# Benchmarks whose answers are letters; those of others are kept as they are.
MULTIPLE_CHOICE = ("arc-challenge*", "mmlu*", "hellaswag*", "winogrande*")
_ANSWER = "Answer:"
# The fields of a Python list of texts as `str` writes it. Each alternative begins with another
# character, so that the expression never goes back.
_ITEM = re.compile(
    r"""\s*+(?:'((?:[^'\\]++|\\.)*+)'|"((?:[^"\\]++|\\.)*+)")\s*+(,|\Z)""", re.DOTALL
)
_ESCAPE = re.compile(r"\\(?:x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|(.))", re.DOTALL)
_CHARACTERS = {"n": "\n", "r": "\r", "t": "\t", "\\": "\\", "'": "'", '"': '"'}


class _Row(NamedTuple):
    """One line of a file, read and checked."""

    path: Path
    row: int
    name: str
    group: str
    question: str
    copies: int
    scores: np.ndarray
    costs: np.ndarray
    answers: list[str | None]


def read_routerbench(
    path: str | Path,
    *,
    label_rule: Rules | None = None,
    key: jax.Array | None = None,
    whole_prompt: bool = False,
    multiple_choice: Sequence[str] = MULTIPLE_CHOICE,
    missing: Missing = "error",
) -> RoutingTable:
    """Reads a CSV of RouterBench, or a folder of them.

    Rows of one `sample_id` are joined: of each model the score that is there is kept, with the
    answer beside it. Two different scores for one model are an error. The cost is that of the row
    whose prompt was sent fewest times, since the other rows hold the price of sending it twice.

    Use this when you want RouterBench's answers and dollars, or have a CSV in its layout.

    Args:
      path: The file, or a folder of files with the same models.
      label_rule: When given, makes the labels from graded scores, for all rows or by `eval_name`;
        when None the scores must be 0 or 1.
      key: A typed PRNG key, for the rule `one attempt` alone.
      whole_prompt: Whether the text of a query is its whole prompt; when False it is the last
        question, without the worked examples that all prompts share.
      multiple_choice: Patterns of the `eval_name` whose answers are letters; a response that is not
        a lone letter A to E is then a refusal, and no answer. Other responses are kept without the
        white space around them.
      missing: What to do with scores that no row holds: `error`, `drop` their queries with a note,
        or `keep` them.

    Returns:
      The table; `group` is `eval_name`.

    Raises:
      DataError: If a file is not what it should be; it names file, row and field.
      ValueError: If an option is not one of those above.
    """
    check_missing(missing)
    path = Path(path)
    check_rule(label_rule)
    files = files_of(path, ".csv")
    models: list[str] = []
    rows: dict[str, list[_Row]] = {}
    other_columns: dict[str, None] = {}
    notes: dict[str, None] = {}
    for file_path in files:
        with open_csv(file_path, names=_PLAIN[1:], index=False) as file:
            models = _models(file, models)
            columns_read = {
                *_PLAIN,
                *(model + part for model in models for part in ("", _RESPONSE, _COST)),
            }
            other_columns |= dict.fromkeys(name for name in file.header if name not in columns_read)
            for row in _rows(file, models, label_rule is None, whole_prompt, multiple_choice):
                rows.setdefault(row.name, []).append(row)
            notes |= dict.fromkeys(file.notes())
    rows_of_queries = [_joined(several, models) for several in rows.values()]
    scores = np.stack([row.scores for row in rows_of_queries])
    groups = [row.group for row in rows_of_queries]
    labels = labels_by_rule(path, scores, groups, label_rule, key)
    answers = np.empty(scores.shape, dtype=object)
    for i, row in enumerate(rows_of_queries):
        answers[i] = row.answers
    costs = np.stack([row.costs for row in rows_of_queries])
    table = built(
        path,
        ids=list(rows),
        texts=[row.question for row in rows_of_queries],
        models=models,
        correct=labels.correct,
        group=groups,
        graded=labels.graded,
        answers=answers,
        cost=None if np.isnan(costs).all() else costs,
        label_rule=labels.rule,
        missing=labels.missing,
        notes=[
            *_notes(rows, labels.correct, answers),
            *notes,
            *ignored_columns(other_columns),
            *unread(path, files),
        ],
    )
    return settle_missing(table, missing, path)


def _models(file: CsvFile, names: list[str]) -> list[str]:
    """The models of a file, which must be those of the files before it."""
    file.require("sample_id", "prompt", "eval_name")
    beside = [name for name in file.header if name.endswith((_RESPONSE, _COST))]
    names_here = list(
        dict.fromkeys(name.removesuffix(_RESPONSE).removesuffix(_COST) for name in beside)
    )
    if not names_here:
        raise DataError(
            f"must hold columns <model>{_RESPONSE} or <model>{_COST}, got none", path=file.path
        )
    file.require(*names_here)
    among = set(names_here)
    models = names or [name for name in file.header if name in among]
    if odd := sorted(set(models) ^ set(names_here)):
        verb = "lacks" if odd[0] in models else "adds"
        raise DataError(
            f"must hold the models of the first file, {verb} {odd[0]!r}",
            path=file.path,
            field=odd[0],
        )
    return models


def _rows(
    file: CsvFile,
    models: list[str],
    labels: bool,
    whole_prompt: bool,
    multiple_choice: Sequence[str],
) -> list[_Row]:
    file.check_end(safe=["oracle_model_to_route_to", ""])  # columns that are not read
    rows: list[_Row] = []
    for chunk in file.chunks():
        columns, n = chunk.columns, len(chunk.columns["sample_id"])
        scores = np.full((n, len(models)), np.nan)
        costs = np.full((n, len(models)), np.nan)
        for j, model in enumerate(models):
            if labels:
                column = column_of_labels(file, chunk, model)
                scores[:, j] = np.where(column >= 0, column, np.nan)
            else:
                scores[:, j] = column_of_floats(file, chunk, model)
            if model + _COST in columns:
                costs[:, j] = column_of_floats(file, chunk, model + _COST, low=0.0)
        for i in range(n):
            number = chunk.first_row + i
            for field in ("sample_id", "eval_name"):
                if not columns[field][i]:
                    raise file.error("must not be empty", number, field)
            group = columns["eval_name"][i]
            has_choices = any(fnmatchcase(group, pattern) for pattern in multiple_choice)
            answers = [
                _answer(columns[m + _RESPONSE][i], has_choices)
                if m + _RESPONSE in columns
                else None
                for m in models
            ]
            question, copies = _question(file, number, columns["prompt"][i], whole_prompt)
            name = columns["sample_id"][i]
            rows.append(
                _Row(file.path, number, name, group, question, copies, scores[i], costs[i], answers)
            )
    return rows


def _question(file: CsvFile, row: int, prompt: str, whole_prompt: bool) -> tuple[str, int]:
    """The question of a prompt, and how many times the prompt was sent."""
    texts, copies = [prompt], 1
    if prompt.startswith("["):
        items = _listed(prompt)
        if items is None or not items:
            raise file.error(
                f"must be a text or a Python list of texts, got {prompt[:60]!r}", row, "prompt"
            )
        texts = list(dict.fromkeys(items))
        copies = len(items) // len(texts)
    question = "\n\n".join(texts)
    if not whole_prompt:
        question = last_question(question)
    return question, copies


def last_question(prompt: str) -> str:
    r"""A prompt without its worked examples: what follows the last answer and its empty line.

    An answer stands on the line of `Answer:` or on the next. The lines are read once: an expression
    that says the same takes the square of a line's length.

    Use this when a log holds few-shot prompts and only the question matters.

    Args:
      prompt: The prompt.

    Returns:
      The last question; the prompt itself where it has no worked example.

    >>> last_question("1 + 1?\nAnswer: 2\n\n2 + 2?\nAnswer:")
    '2 + 2?\nAnswer:'
    """
    lines = prompt.split("\n")
    start = i = 0
    while i < len(lines):
        end = _end_of_example(lines, i)
        if end is not None:
            start = end
        i = i + 1 if end is None else end
    return "\n".join(lines[start:])


def _end_of_example(lines: list[str], i: int) -> int | None:
    """The line after a worked example that is answered at line `i`; None where none is."""

    def blank(at: int) -> bool:
        return at + 1 < len(lines) and not lines[at]

    marks = lines[i].count(_ANSWER)
    if not marks:
        return None
    on_next_line = not lines[i].rpartition(_ANSWER)[2].strip(" \t") and blank(i + 2)
    # The first mark of a line can only be answered on the line, where another mark follows it.
    if on_next_line and (marks == 1 or not blank(i + 1)):
        return i + 3
    return i + 2 if blank(i + 1) else None


def _listed(value: str) -> list[str] | None:
    """A Python list of strings, as `str` writes it; None where the text is something else."""
    body = value.strip()
    if not (body.startswith("[") and body.endswith("]")):
        return None
    body = body[1:-1]
    items: list[str] = []
    position = 0
    while position < len(body):
        match = _ITEM.match(body, position)
        if match is None:
            return None if body[position:].strip() else items
        item = match[1] if match[2] is None else match[2]
        try:
            items.append(_ESCAPE.sub(_character, item))
        except (KeyError, ValueError, OverflowError):
            return None
        position = match.end()
    return items


def _character(match: re.Match[str]) -> str:
    """The character of an escape, as `repr` writes them."""
    code = match[1] or match[2] or match[3]
    return chr(int(code, 16)) if code else _CHARACTERS[match[4]]


def _answer(response: str, has_choices: bool) -> str | None:
    """The answer in a response such as `['A)']`."""
    items = _listed(response) if response.startswith("[") else None
    plain = "\n".join(items) if items is not None else response
    return letter(plain) if has_choices else text(plain)


def _joined(rows: list[_Row], models: list[str]) -> _Row:
    """The rows of one question as one."""
    first = rows[0]
    if len(rows) == 1:
        return first
    scores, answers = first.scores.copy(), list(first.answers)
    for row in rows[1:]:
        for field, a, b in (
            ("eval_name", first.group, row.group),
            ("prompt", first.question, row.question),
        ):
            if a != b:
                raise DataError(
                    f"must be the same in all rows of {row.name!r}, unlike in row {first.row} of "
                    f"{first.path.name}",
                    path=row.path,
                    row=row.row,
                    field=field,
                )
        for j, model in enumerate(models):
            if np.isnan(row.scores[j]):
                continue
            if not np.isnan(scores[j]) and scores[j] != row.scores[j]:
                raise DataError(
                    f"must not contradict the other rows of {row.name!r}, got {row.scores[j]:g} "
                    f"after {scores[j]:g}",
                    path=row.path,
                    row=row.row,
                    field=model,
                )
            if np.isnan(scores[j]) or answers[j] is None:
                answers[j] = row.answers[j]
            scores[j] = row.scores[j]
    costs = np.full(len(models), np.nan)
    for row in sorted(rows, key=lambda row: -row.copies):
        costs = np.where(np.isnan(row.costs), costs, row.costs)
    return first._replace(scores=scores, costs=costs, answers=answers)


def _notes(rows: dict[str, list[_Row]], correct: np.ndarray, answers: np.ndarray) -> list[str]:
    notes = []
    if again := sum(len(several) - 1 for several in rows.values()):
        total = sum(len(several) for several in rows.values())
        notes.append(f"joined {again} repeated rows: {total} rows are {len(rows)} questions")
    if odd := int((correct & (answers == None)).sum()):  # noqa: E711 - elementwise
        notes.append(
            f"{odd} responses are scored right though no answer could be read from them; they "
            "cast no vote"
        )
    return notes
