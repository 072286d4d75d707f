"""Records of Every Eval Ever: `<uuid>_samples.jsonl` beside the aggregate `<uuid>.json`.

One record for each sample and metric: `model_id`, `evaluation_name`, `evaluation_result_id`,
`sample_id`, `sample_hash`, `input`, `output`, `evaluation` (schema 0.2 and 0.3 of
github.com/evaleval/every_eval_ever). Models are joined by the hash of the sample, never by order.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Hashable, Iterator
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
from racer_jax.data.formats._content import normal_answer, with_options
from racer_jax.data.formats._folders import compressed_or_not, walked
from racer_jax.data.formats._json import check_object, json_lines, shown
from racer_jax.data.remedies import Remedy
from racer_jax.data.table import RoutingTable

if TYPE_CHECKING:
    import jax

_SAMPLES = "_samples.jsonl"


def read_every_eval_ever(
    path: str | Path,
    *,
    metric: str | None = None,
    label_rule: Rules | None = None,
    key: jax.Array | None = None,
    attempt: int | None = None,
    answer: Callable[[str], str | None] = text,
    whole_prompt: bool = False,
    missing: Missing = "error",
) -> RoutingTable:
    """Reads instance-level records of Every Eval Ever.

    Use this when the records come from the public datastore, or from one of its converters. A
    sample is right where `evaluation.is_correct` is true. Several runs (`evaluation_id`) of one
    model are attempts, numbered by the names of their runs.

    Args:
      path: One file of samples, or a folder that holds such files at any depth.
      metric: The `evaluation_result_id` to read, where an evaluation has several for each sample.
      label_rule: Makes the labels from `evaluation.score`, or from its mean over runs; when None
        they are `evaluation.is_correct`.
      key: A typed PRNG key, for the rule `one attempt` alone.
      attempt: The run to read, counted from 1 for each model; all when None.
      answer: Finds the answer in the value that was extracted, or in the response where none was
        (see `racer_jax.data.answers`).
      whole_prompt: Whether the text is the formatted prompt instead of the question with its
        choices.
      missing: What to do with pairs that have no record: `error`, `drop` their queries with a note,
        or `keep` them.

    Returns:
      The table; `group` is `evaluation_name`, and a query's id is
      `<evaluation_name>/<sample_id>`.

    Raises:
      DataError: If a file is not what it should be; it names file, row and field.
      ValueError: If an option is not one of those above.
    """
    path = Path(path)
    attempts = Attempts(
        path, label_rule=label_rule, key=key, attempt=attempt, missing=missing, unit="run"
    )
    files = _files(path)
    runs = _runs(files)
    metric_of: dict[str, str] = {}
    others: set[str] = set()
    for record, place in _records(files):
        group = text_field(record.get("evaluation_name"), "evaluation_name", place)
        result = record.get("evaluation_result_id")
        result = group if result is None else text_field(result, "evaluation_result_id", place)
        if metric is not None and result != metric:
            others.add(result)
            continue
        if (first := metric_of.setdefault(group, result)) != result:
            raise place.error(
                f"must be of one metric for each evaluation_name, got {first!r} and {result!r} for "
                f"{group!r}",
                "evaluation_result_id",
                Remedy("pass, for example: {}", metric=first),
            )
        model = str(record["model_id"])
        attempt_number = runs[model].index(str(record["evaluation_id"])) + 1
        _take(attempts, record, group, place, attempt_number, answer, whole_prompt)
    nothing = "must hold at least one record"
    if metric is not None:
        nothing = f"must hold records of metric {metric!r}, got {sorted(others)[:12]}"
    notes = [f"ignored the records of {len(others)} other metrics"] if others else []
    return attempts.table(notes, files=_known(files), nothing=nothing)


def _files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    files = walked(path, _SAMPLES)
    if not files:
        raise DataError(
            f"must hold files <uuid>{_SAMPLES}, got none; an aggregate <uuid>.json alone says "
            "nothing of single questions",
            path=path,
        )
    return files


def _known(files: list[Path]) -> list[Path]:
    """The files of samples, and their aggregates, which say nothing of single questions."""
    names = [file.name.partition(_SAMPLES)[0] for file in files]
    pairs = zip(files, names, strict=True)
    aggregates = [compressed_or_not(file.with_name(f"{name}.json")) for file, name in pairs]
    return [*files, *aggregates]


def _records(files: list[Path]) -> Iterator[tuple[dict[str, Any], Place]]:
    for file in files:
        for row, line, record in json_lines(file):
            place = Place(file, row, line or None)
            for field in ("model_id", "evaluation_id"):
                text_field(record.get(field), field, place)
            yield record, place


def _runs(files: list[Path]) -> dict[str, list[str]]:
    """The runs of each model, by name."""
    runs: dict[str, set[str]] = {}
    for record, _ in _records(files):
        runs.setdefault(str(record["model_id"]), set()).add(str(record["evaluation_id"]))
    return {model: sorted(names) for model, names in runs.items()}


def _take(
    attempts: Attempts,
    record: dict[str, Any],
    group: str,
    place: Place,
    attempt: int,
    answer: Callable[[str], str | None],
    whole_prompt: bool,
) -> None:
    """One record as a result."""
    where: dict[str, Any] = {"row": place.row, "line": place.line}
    prompt, evaluation = record.get("input"), record.get("evaluation")
    check_object(prompt, place.path, field="input", **where)
    check_object(evaluation, place.path, field="evaluation", **where)
    name = text_field(record.get("sample_id"), "sample_id", place)
    raw = text_field(record["input"].get("raw"), "input.raw", place, empty=True)
    digest = record.get("sample_hash")
    key: Hashable = (group, name, raw, json.dumps(record["input"].get("reference")))
    if digest is not None:
        key = (group, text_field(digest, "sample_hash", place))

    def question() -> Question:
        words = with_options(raw, record["input"].get("choices"))
        if whole_prompt:
            whole_text = record["input"].get("formatted")
            words = text_field(whole_text, "input.formatted", place)
        return Question(key, f"{group}/{name}", words, group)

    usage = record.get("token_usage")
    tokens = math.nan
    if usage is not None:
        check_object(usage, place.path, field="token_usage", **where)
        num_tokens = record["token_usage"].get("output_tokens")
        tokens = number_of(num_tokens, "token_usage.output_tokens", place, low=0, whole=True)
    field, score = _score(attempts, record, place)
    response = _answer(record)
    attempts.add(
        key,
        question,
        place,
        Result(
            str(record["model_id"]),
            math.nan if record.get("error") else score,
            attempt=attempt,
            answer=normal_answer(response, answer),
            tokens=tokens,
            field=field,
        ),
    )


def _score(attempts: Attempts, record: dict[str, Any], place: Place) -> tuple[str, float]:
    """The score a rule judges, or the label where there is no rule, with its field."""
    if attempts.rule is not None:
        field = "evaluation.score"
        score = score_of(record["evaluation"].get("score"), field, place)
        return field, score
    field, correct = "evaluation.is_correct", record["evaluation"].get("is_correct")
    if not isinstance(correct, bool):
        raise place.error(f"must be true or false, got {shown(correct)}", field)
    return field, float(correct)


def _answer(record: dict[str, Any]) -> str | None:
    """What was extracted from the response last, else the only response."""
    entries = record.get("answer_attribution")
    for entry in reversed(entries) if isinstance(entries, list) else ():
        if isinstance(entry, dict) and isinstance(entry.get("extracted_value"), str):
            return str(entry["extracted_value"])
    output = record.get("output")
    responses = output.get("raw") if isinstance(output, dict) else None
    if isinstance(responses, list) and len(responses) == 1 and isinstance(responses[0], str):
        return responses[0]
    return None
