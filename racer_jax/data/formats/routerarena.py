"""RouterArena: answers of models (`cached_results/<model>.jsonl`) and predictions of routers.

A line of the first holds `global_index`, `question`, `llm_selected`, `generated_answer`,
`token_usage` and `evaluation_result` (github.com/RouteWorks/RouterArena). A prediction file is a
JSON list with `global index`, `prompt`, `prediction` (the model chosen), `accuracy` and `cost`: one
model for each question, which is feedback on a router, not calibration data. Models are joined by
the global index.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Hashable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from racer_jax.data.answers import text
from racer_jax.data.errors import DataError
from racer_jax.data.formats._attempts import (
    Attempts,
    Place,
    Question,
    Result,
    number_of,
    score_of,
    text_field,
)
from racer_jax.data.formats._cells import Missing, Rules
from racer_jax.data.formats._content import normal_answer
from racer_jax.data.formats._folders import bare_name, files_of
from racer_jax.data.formats._heads import head, head_keys
from racer_jax.data.formats._json import check_object, json_lines
from racer_jax.data.table import RoutingTable

if TYPE_CHECKING:
    import jax

_NUMBERED = re.compile(r"(?P<group>.+)_\d+")


def read_routerarena(
    path: str | Path,
    *,
    label_rule: Rules | None = None,
    key: jax.Array | None = None,
    answer: Callable[[str], str | None] = text,
    missing: Missing = "error",
) -> RoutingTable:
    """Reads evaluated answers of RouterArena.

    An answer that failed or was not judged yet counts as not evaluated. A file of predictions holds
    one model for each question (and a few more where `for_optimality`): it is read with
    `missing="keep"` alone.

    Use this when `llm_evaluation/run.py` of RouterArena has judged the answers in its folder
    `cached_results`.

    Args:
      path: One file, or a folder of `.jsonl` files.
      label_rule: Makes the labels from graded scores; when None the scores must be 0 or 1.
      key: A typed PRNG key, for the rule `one attempt` alone.
      answer: Finds the answer in what was extracted (see `racer_jax.data.answers`).
      missing: What to do with pairs that have no result: `error`, `drop` their queries with a note,
        or `keep` them.

    Returns:
      The table; `group` is the dataset that the global index names, and a query's id is the index.

    Raises:
      DataError: If a file is not what it should be; it names file, row and field.
      ValueError: If an option is not one of those above.
    """
    path = Path(path)
    attempts = Attempts(
        path, label_rule=label_rule, key=key, attempt=None, missing=missing, unit="answer"
    )
    files = files_of(path, ".jsonl")
    if path.is_dir():
        files = [file for file in files if _is_cache(file)] or files
    num_judged = 0
    for file in files:
        for row, line, record in json_lines(file):
            place = Place(file, row, line or None)
            num_judged += _take(attempts, record, place, answer)
    if not num_judged:
        raise DataError(
            "must hold evaluated answers, got none; run llm_evaluation/run.py of RouterArena first",
            path=path,
        )
    return attempts.table(files=files)


def _is_cache(file: Path) -> bool:
    """Whether the lines of a file begin as answers of a model do."""
    return bool({"global_index", "global index"} & set(head_keys(head(file))))


def _take(
    attempts: Attempts,
    record: dict[str, Any],
    place: Place,
    answer: Callable[[str], str | None],
) -> bool:
    """One record as a result; whether it was judged."""
    index = record.get("global_index", record.get("global index"))
    name = text_field(index, "global_index", place)
    prediction = "prediction" in record
    field = "prediction" if prediction else "llm_selected"
    model = text_field(
        record.get(field, bare_name(place.path).removesuffix(".jsonl")), field, place
    )
    match = _NUMBERED.fullmatch(name)
    words = record.get("prompt" if prediction else "question")
    question_key: Hashable = name

    def question() -> Question:
        field = "prompt" if prediction else "question"
        group = match["group"] if match else name
        return Question(question_key, name, text_field(words, field, place), group)

    result = _object(record, "generated_result", place) if prediction else record
    verdict = record if prediction else _object(record, "evaluation_result", place)
    fields = ("accuracy", "cost") if prediction else ("score", "inference_cost")
    prefix = "" if prediction else "evaluation_result."
    score = score_of(verdict.get(fields[0]), prefix + fields[0], place)
    if result.get("success") is False:
        score = math.nan
    response = verdict.get("extracted_answer", result.get("generated_answer"))
    num_tokens = _object(result, "token_usage", place).get("output_tokens")
    attempts.add(
        question_key,
        question,
        place,
        Result(
            model,
            score,
            answer=normal_answer(response, answer),
            cost=number_of(verdict.get(fields[1]), prefix + fields[1], place, low=0),
            tokens=number_of(num_tokens, "token_usage.output_tokens", place, low=0, whole=True),
            field=prefix + fields[0],
        ),
    )
    return not math.isnan(score)


def _object(record: dict[str, Any], field: str, place: Place) -> dict[str, Any]:
    """A part of a record that is an object; empty where it is null or not there."""
    part = record.get(field)
    if part is None:
        return {}
    check_object(part, place.path, row=place.row, line=place.line, field=field)
    return dict(part)
