r"""Asking a model how sure it is of an answer: the weights `verbal` and `p_true` of the weighted vote.

One evaluator model, behind any endpoint that speaks the OpenAI protocol, is shown each question
with each answer the pool gave to it, and rates the answer (Appendix B of the paper, "Weighting
schemes"):

- `verbal`: it is asked for 0 or 1, greedily; a reply that holds neither counts as 0.
- `p_true`: it is asked for True or False; P(True) is the softmax over the log-probabilities of the
  two.

An endpoint that gives no log-probabilities leaves `p_true` out, and the table's notes say so. Needs
the extra `endpoint` (the `openai` client).
"""

import hashlib
import json
import math
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Lock
from typing import Any, Literal, get_args

import numpy as np
from tqdm import tqdm

from racer_jax.data import RoutingTable
from racer_jax.serving.endpoint import Endpoint, EndpointError

Scheme = Literal["verbal", "p_true"]
SCHEMES: tuple[str, ...] = get_args(Scheme)

PROMPTS = {
    "verbal": (
        "Question:\n{question}\n\nProposed answer:\n{answer}\n\nIs the proposed answer correct? Reply with one digit "
        "and nothing else: 1 if you are confident that it is correct, 0 if you are not."
    ),
    "p_true": (
        "Question:\n{question}\n\nProposed answer:\n{answer}\n\nIs the proposed answer true or false? Reply with one "
        "word and nothing else: True or False."
    ),
}
_BINARY = re.compile(r"(?<![\d.,-])[01](?![\d]|[.,]\d)")
# Enough for a digit behind a word or two, and for a word that a tokenizer takes apart.
_MAX_TOKENS = 8
_TOP_LOGPROBS = 20
# What an endpoint answers when it does not know an option of the request.
_UNKNOWN_OPTION = (400, 404, 422, 501)


@dataclass(frozen=True)
class Judgement:
    """What the evaluator said of one answer to one question.

    Attributes:
      value: Confidence in [0, 1]; None where the endpoint gives no log-probabilities.
      reply: Its reply, word for word.
      source: `verbal` or `p_true`; `unparsable` for a verbal reply without 0 or 1, which counts as
        0; `neither` where the log-probabilities name neither option; `no logprobs` where there are
        none.
    """

    value: float | None
    reply: str
    source: str


def parse_binary(reply: str) -> int | None:
    """The first 0 or 1 of a reply that stands by itself; None where there is none.

    >>> parse_binary("Confidence: 1."), parse_binary("0.9"), parse_binary("10")
    (1, None, None)
    """
    found = _BINARY.search(reply)
    return None if found is None else int(found[0])


def probability_of_true(tokens: Sequence[tuple[str, float]]) -> float | None:
    """P(True) from the likeliest tokens and their log-probabilities: the softmax over the two options.

    All spellings of an option (`True`, ` true`) count together. An option that is not among the
    tokens is far less likely than all that are and counts as impossible. None if neither is among
    them.

    >>> round(probability_of_true([("True", math.log(0.6)), (" False", math.log(0.2)), ("It", math.log(0.1))]), 6)
    0.75
    """
    mass = {"true": 0.0, "false": 0.0}
    for token, log_probability in tokens:
        option = token.strip().strip("\"'*.").lower()
        if option in mass:
            mass[option] += math.exp(log_probability)
    total = sum(mass.values())
    return mass["true"] / total if total > 0 else None


def ask(client: Any, model: str, scheme: Scheme, question: str, answer: str) -> Judgement:
    """Asks the evaluator for its confidence in one answer.

    Args:
      client: From `Endpoint.client`.
      model: Name of the evaluator.
      scheme: `verbal` or `p_true`.
      question: The question.
      answer: The answer to be rated.

    Returns:
      The judgement.

    Raises:
      EndpointError: If the endpoint cannot be reached, refuses, or leaves out what the protocol
        promises.
      ValueError: If the scheme is unknown.
    """
    import openai

    if scheme not in SCHEMES:
        raise ValueError(f"scheme must be one of {SCHEMES}, got {scheme!r}")
    options: dict[str, Any] = {"temperature": 0.0, "max_tokens": _MAX_TOKENS}
    if scheme == "p_true":
        options |= {"logprobs": True, "top_logprobs": _TOP_LOGPROBS}
    messages = [
        {"role": "user", "content": PROMPTS[scheme].format(question=question, answer=answer)}
    ]
    try:
        completion = client.chat.completions.create(model=model, messages=messages, **options)
    except openai.APITimeoutError:
        raise EndpointError(
            f"no reply within {client.timeout:g} s, sent {client.max_retries + 1} times"
        ) from None
    except openai.APIStatusError as error:
        if scheme == "p_true" and error.status_code in _UNKNOWN_OPTION:
            return Judgement(None, f"status {error.status_code}", "no logprobs")
        raise EndpointError(
            f"the endpoint answers with status {error.status_code}: {error.message}"
        ) from None
    except openai.OpenAIError as error:
        raise EndpointError(f"the endpoint cannot be reached: {error}") from None
    choices = getattr(completion, "choices", None)
    if not choices:
        raise EndpointError("the reply holds no field 'choices'")
    reply = getattr(getattr(choices[0], "message", None), "content", None)
    if scheme == "p_true":
        tokens = getattr(getattr(choices[0], "logprobs", None), "content", None)
        if not tokens:
            return Judgement(None, reply or "", "no logprobs")
        for token in tokens:  # models may open with white space or a quotation mark
            value = probability_of_true(
                [(top.token, top.logprob) for top in token.top_logprobs or [token]]
            )
            if value is not None:
                return Judgement(value, reply or "", "p_true")
        return Judgement(None, reply or "", "neither")
    if reply is None:
        raise EndpointError("the reply holds no field 'choices[0].message.content'")
    binary = parse_binary(reply)
    return Judgement(float(binary or 0), reply, "unparsable" if binary is None else "verbal")


class _Record:
    """Judgements on disk, a line each, so that a run that was interrupted goes on where it stopped."""

    def __init__(self, path: Path | None, model: str) -> None:
        self.path, self.model = path, model
        self._lock = Lock()
        self._found: dict[str, Judgement] = {}
        self._torn = False
        if path is not None and path.exists():
            text = path.read_text(encoding="utf-8")
            self._torn = bool(text) and not text.endswith("\n")
            for line in text.splitlines():
                try:
                    entry = json.loads(line)
                    self._found[entry["key"]] = Judgement(
                        entry["value"], entry["reply"], entry["source"]
                    )
                except (json.JSONDecodeError, KeyError, TypeError):
                    continue  # the line that an interrupted run left half written

    def key(self, scheme: str, question: str, answer: str) -> str:
        said = json.dumps([self.model, PROMPTS[scheme], question, answer])
        return hashlib.sha256(said.encode("utf-8", "surrogatepass")).hexdigest()

    def lookup(self, key: str) -> Judgement | None:
        return self._found.get(key)

    def add(self, key: str, scheme: str, name: str, answer: str, judgement: Judgement) -> None:
        if self.path is None:
            return
        entry = {
            "key": key,
            "evaluator": self.model,
            "scheme": scheme,
            "query": name,
            "answer": answer,
            "value": judgement.value,
            "reply": judgement.reply,
            "source": judgement.source,
        }
        with self._lock:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a", encoding="utf-8") as file:
                file.write(("\n" if self._torn else "") + json.dumps(entry) + "\n")
            self._torn = False


def elicit(
    table: RoutingTable,
    endpoint: Endpoint,
    schemes: Sequence[Scheme] = ("verbal", "p_true"),
    *,
    record: str | Path | None = None,
) -> RoutingTable:
    """Asks one evaluator for its confidence in every answer of a table.

    Answers that several models gave to a question are asked about once.

    Args:
      table: With answers.
      endpoint: Where the evaluator is.
      schemes: Which confidences to ask for.
      record: File to keep every judgement in, a JSON line each; what it holds is not asked again.

    Returns:
      The table with `confidence` by scheme, NaN where a model gave no answer, and with notes: how
      many replies could not be read, and whether `p_true` had to be left out. If it had, `verbal`
      is asked for in its place.

    Raises:
      EndpointError: If the endpoint gives no usable reply; the message names the query.
      ModuleNotFoundError: If the `openai` package is not installed.
      ValueError: If the table has no answers, or a scheme is unknown.
    """
    if table.answers is None:
        raise ValueError("table must have answers to ask about, got none")
    if unknown := [scheme for scheme in schemes if scheme not in SCHEMES]:
        raise ValueError(f"schemes must be among {SCHEMES}, got {unknown[0]!r}")
    if not schemes:
        raise ValueError("schemes must name at least one scheme, got none")
    kept = _Record(None if record is None else Path(record), endpoint.model)
    client = endpoint.client()
    try:
        found: dict[Scheme, dict[tuple[int, str], Judgement]] = {}
        notes, wanted = [], list(schemes)
        if "p_true" in wanted:
            judged = _judge(table, endpoint.model, client, "p_true", kept, endpoint.num_workers)
            if any(j.source == "no logprobs" for j in judged.values()):
                notes.append(
                    f"{endpoint.model}: the endpoint gives no log-probabilities, so there is no p_true; verbal "
                    f"confidence stands in its place"
                )
                wanted = ["verbal"]
            else:
                found["p_true"] = judged
        if "verbal" in wanted:
            found["verbal"] = _judge(
                table, endpoint.model, client, "verbal", kept, endpoint.num_workers
            )
    finally:
        client.close()
    confidence = dict(table.confidence)
    for scheme, judged in found.items():
        confidence[scheme], note = _matrix(table, judged)
        notes.append(f"{scheme} confidence of {endpoint.model}: {note}")
    return replace(table, confidence=confidence, notes=[*table.notes, *notes])


def _judge(
    table: RoutingTable, model: str, client: Any, scheme: Scheme, record: _Record, num_workers: int
) -> dict[tuple[int, str], Judgement]:
    """The judgement of every distinct answer of every query; stops at the first sign of missing log-probabilities."""
    answers: np.ndarray = table.answers  # type: ignore[assignment]
    pairs = [
        (i, answer)
        for i, row in enumerate(answers)
        for answer in sorted({x for x in row if x is not None})
    ]
    stop: list[bool] = []

    def one(pair: tuple[int, str]) -> Judgement:
        i, answer = pair
        key = record.key(scheme, table.texts[i], answer)
        if (known := record.lookup(key)) is not None:
            return known
        if stop:
            return Judgement(None, "", "no logprobs")
        try:
            judgement = ask(client, model, scheme, table.texts[i], answer)
        except EndpointError as error:
            stop.append(True)
            raise EndpointError(f"query {table.ids[i]!r}, answer {answer!r}: {error}") from None
        if judgement.source == "no logprobs":
            stop.append(True)
        else:
            record.add(key, scheme, table.ids[i], answer, judgement)
        return judgement

    first = [one(pair) for pair in pairs[:1]]  # alone: it tells whether there are log-probabilities
    with ThreadPoolExecutor(num_workers) as workers:
        rest = tqdm(
            workers.map(one, pairs[1:]), scheme, len(pairs) - 1, disable=None, unit="answer"
        )
        return dict(zip(pairs, [*first, *rest], strict=True))


def _matrix(
    table: RoutingTable, judged: dict[tuple[int, str], Judgement]
) -> tuple[np.ndarray, str]:
    """Judgements as `[n, m]`, and a sentence on those that could not be read; these count as 0."""
    answers: np.ndarray = table.answers  # type: ignore[assignment]
    matrix = np.full(answers.shape, np.nan)
    for (i, answer), judgement in judged.items():
        matrix[i, answers[i] == answer] = judgement.value or 0.0
    unread = sum(j.source in ("unparsable", "neither") for j in judged.values())
    return matrix, f"{len(judged)} answers rated, {unread} replies could not be read and count as 0"
