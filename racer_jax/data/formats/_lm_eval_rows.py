"""The rows of one log of lm-evaluation-harness: who asked what, the metric, the answer, the text."""

import hashlib
import json
import math
from collections.abc import Iterator
from typing import Any, NamedTuple

from racer_jax.data.errors import DataError
from racer_jax.data.formats._json import json_lines, shown
from racer_jax.data.formats._lm_eval_files import Log, delimiter, normaliser

_QUESTION_FIELDS = ("question", "Question", "query", "problem", "prompt", "ctx", "input")
_INVALID = "[invalid]"


class Query(NamedTuple):
    """What all models share of a question."""

    task: str
    doc_id: int
    doc_hash: str


class Sample(NamedTuple):
    """One row, read and checked."""

    row: int
    line: int
    query: Query
    filter: str
    record: dict[str, Any]


def read_samples(log: Log) -> Iterator[Sample]:
    """The rows of a log, with what every row must have."""
    for row, line, record in json_lines(log.path):
        doc_id, doc = record.get("doc_id"), record.get("doc")
        if isinstance(doc_id, bool) or not isinstance(doc_id, int):
            problem = f"must be a whole number, got {shown(doc_id)}"
            raise DataError(problem, path=log.path, row=row, line=line or None, field="doc_id")
        digest = record.get("doc_hash")
        if digest is None:
            # The harness's own recipe, so that logs with and without hashes join.
            text = json.dumps(doc, indent=2, ensure_ascii=False)
            digest = hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()
        name = record.get("filter", "")
        for field, value in (("doc_hash", digest), ("filter", name)):
            if not isinstance(value, str):
                problem = f"must be a text, got {shown(value)}"
                raise DataError(problem, path=log.path, row=row, line=line or None, field=field)
        # Only what is read later is kept: prompts with worked examples fill most of a log.
        kept = {name: value for name, value in record.items() if name != "resps"}
        yield Sample(row, line, Query(log.task, doc_id, digest), name, kept)


def metric_value(log: Log, sample: Sample, metric: str, graded: bool) -> float:
    """The metric of a row."""
    value = sample.record.get(metric)
    try:
        number = float(value) if isinstance(value, int | float) else math.nan
    except OverflowError:
        number = math.nan
    if not math.isfinite(number) or not (graded or number in (0, 1)):
        hint = (
            "a number"
            if graded
            else "0 or 1 (for a graded metric pass label_rule, such as 'score > 0.5')"
        )
        problem = f"must be {hint}, got {shown(value)}"
        raise DataError(
            problem, path=log.path, row=sample.row, line=sample.line or None, field=metric
        )
    return number


def answer_of(log: Log, sample: Sample, metric: str, value: float) -> tuple[str | None, bool]:
    """The answer of a row, and whether one could be read (a row may say that there is none)."""
    responses = sample.record.get("filtered_resps")
    if not isinstance(responses, list) or not responses:
        problem = f"must be a list of responses, got {shown(responses)}; pass answers=False to leave answers out"
        raise DataError(
            problem, path=log.path, row=sample.row, line=sample.line or None, field="filtered_resps"
        )
    if all(isinstance(response, list) and len(response) == 2 for response in responses):
        return _most_likely(log, sample, metric, value, responses)
    while isinstance(responses, list) and len(responses) == 1:
        responses = responses[0]
    if not isinstance(responses, str):
        return None, False
    text = responses.strip()
    return (None if text == _INVALID else normaliser(log, metric)(text).strip() or None), True


def _most_likely(
    log: Log, sample: Sample, metric: str, value: float, responses: list[list[Any]]
) -> tuple[str | None, bool]:
    """The letter of the most likely choice."""
    where: dict[str, Any] = {"path": log.path, "row": sample.row, "line": sample.line or None}
    if len(responses) < 2 or len(responses) > 26:
        return None, False
    likelihoods = []
    for likelihood, _ in responses:
        try:
            number = float(likelihood) if isinstance(likelihood, str | int | float) else math.nan
        except (ValueError, OverflowError):
            number = math.nan
        if math.isnan(number):
            problem = f"must hold log-likelihoods, got {shown(likelihood)}; pass answers=False to leave answers out"
            raise DataError(problem, field="filtered_resps", **where)
        likelihoods.append(number)
    if metric == "acc_norm":
        lengths = _choice_lengths(log, sample)
        if lengths is None or len(lengths) != len(likelihoods):
            raise DataError(
                "must hold the text of each choice for acc_norm; pass answers=False to leave "
                "answers out",
                field="arguments",
                **where,
            )
        likelihoods = [number / length for number, length in zip(likelihoods, lengths, strict=True)]
    best = likelihoods.index(max(likelihoods))
    target = sample.record.get("target")
    if (
        metric in ("acc", "acc_norm")
        and str(target).isdecimal()
        and (best == int(str(target))) != (value == 1)
    ):
        raise DataError(
            f"must agree with {metric}: choice {best} is the most likely, {target} is right, got {metric} {value:g}; "
            "pass answers=False to leave answers out",
            field="filtered_resps",
            **where,
        )
    return chr(ord("A") + best), True


def _choice_lengths(log: Log, sample: Sample) -> list[float] | None:
    """The number of characters of each choice, None where the row does not hold them."""
    texts = []
    for arguments in _arguments(sample.record):
        if len(arguments) < 2 or not isinstance(arguments[1], str):
            return None
        texts.append(arguments[1].removeprefix(delimiter(log)))
    return [float(len(text)) for text in texts] if texts and all(texts) else None


def _arguments(record: dict[str, Any]) -> list[list[Any]]:
    """The requests of a row: objects of objects since version 0.4.3, lists of lists before."""
    requests = record.get("arguments")
    requests = list(requests.values()) if isinstance(requests, dict) else requests
    if not isinstance(requests, list):
        return []
    return [
        list(r.values()) if isinstance(r, dict) else r if isinstance(r, list) else []
        for r in requests
    ]


def text_of(record: dict[str, Any]) -> str:
    """The text of a question with its choices; the prompt where the document has no known field."""
    found = record.get("doc")
    doc: dict[str, Any] = found if isinstance(found, dict) else {}
    question = next(
        (doc[name] for name in _QUESTION_FIELDS if isinstance(doc.get(name), str) and doc[name]),
        None,
    )
    if question is None:
        prompt = next((request[0] for request in _arguments(record) if request), "")
        return prompt if isinstance(prompt, str) else ""
    choices: Any = doc.get("choices")
    labels: Any = None
    if isinstance(choices, dict):
        choices, labels = choices.get("text"), choices.get("label")
    if choices is None and isinstance(doc.get("A"), str):
        choices = [doc[name] for name in "ABCDE" if isinstance(doc.get(name), str)]
    if not isinstance(choices, list):
        return str(question)
    if not isinstance(labels, list) or len(labels) != len(choices):
        labels = (
            [chr(ord("A") + i) for i in range(len(choices))]
            if len(choices) <= 26
            else range(1, len(choices) + 1)
        )
    return "\n".join(
        [
            str(question),
            *(f"{label}. {choice}" for label, choice in zip(labels, choices, strict=True)),
        ]
    )
