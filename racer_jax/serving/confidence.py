r"""Asking a model how sure it is of an answer.

The weights `verbal` and `p_true` of the weighted vote.

One evaluator model, behind any endpoint with the OpenAI protocol, is shown each question
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
from racer_jax.serving.endpoint import Endpoint, EndpointError, shown

Scheme = Literal["verbal", "p_true"]
SCHEMES: tuple[str, ...] = get_args(Scheme)

PROMPTS = {
    "verbal": (
        "Question:\n{question}\n\nProposed answer:\n{answer}\n\nIs the proposed answer correct? "
        "Reply with one digit "
        "and nothing else: 1 if you are confident that it is correct, 0 if you are not."
    ),
    "p_true": (
        "Question:\n{question}\n\nProposed answer:\n{answer}\n\nIs the proposed answer true or "
        "false? Reply with one "
        "word and nothing else: True or False."
    ),
}
_BINARY = re.compile(r"(?<![\d.,-])[01](?![\d]|[.,]\d)")
# Enough for a digit behind a word or two, and for a word that a tokenizer takes apart.
_MAX_TOKENS = 8
_TOP_LOGPROBS = 20
# A log-probability that a server rounded may be a little above 0.
_ROUNDED_UP = 1e-3
# What an endpoint answers when it does not know an option of the request.
_UNKNOWN_OPTION = (400, 404, 422, 501)


@dataclass(frozen=True)
class Judgement:
    """What the evaluator said about one answer to one question.

    Use this when you read what the evaluator said about single answers; `elicit` puts only the
    values into its table.

    Attributes:
      value: Confidence in [0, 1]; None where the endpoint gives no log-probabilities.
      reply: Its whole reply.
      source: `verbal` or `p_true`; `unparsable` for a verbal reply without 0 or 1, which counts as
        0; `neither` where the log-probabilities name neither option; `no logprobs` where there are
        none.
    """

    value: float | None
    reply: str
    source: str


def parse_binary(reply: str) -> int | None:
    """The first 0 or 1 of a reply that stands by itself; None where there is none.

    Use this when an evaluator answered in words.

    >>> parse_binary("Confidence: 1."), parse_binary("0.9"), parse_binary("10")
    (1, None, None)
    """
    match = _BINARY.search(reply)
    return None if match is None else int(match[0])


def probability_of_true(tokens: Sequence[tuple[str, float]]) -> float | None:
    """P(True) from the likeliest tokens and their log-probabilities.

    The softmax over the two options.

    All spellings of an option (`True`, ` true`) count together. An option that is not among the
    tokens is far less likely than all that are and counts as impossible. None if neither is among
    them.

    Use this when an endpoint gives log-probabilities.

    Raises:
      ValueError: If a log-probability is infinite or NaN.

    >>> tokens = [("True", math.log(0.6)), (" False", math.log(0.2)), ("It", math.log(0.1))]
    >>> round(probability_of_true(tokens), 6)
    0.75
    """
    logs: dict[str, list[float]] = {"true": [], "false": []}
    for token, log_probability in tokens:
        if not log_probability < math.inf:  # NaN too
            raise ValueError(f"a log-probability must be finite, got {log_probability}")
        option = token.strip().strip("\"'*.").lower()
        if option in logs and log_probability > -math.inf:
            logs[option].append(log_probability)
    highest = max((*logs["true"], *logs["false"]), default=None)
    if highest is None:
        return None
    mass = {name: math.fsum(math.exp(v - highest) for v in values) for name, values in logs.items()}
    return mass["true"] / (mass["true"] + mass["false"])


def ask(client: Any, model: str, scheme: Scheme, question: str, answer: str) -> Judgement:
    """Asks the evaluator for its confidence in one answer.

    Use this when you ask for one answer; `elicit` asks for a table.

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
    key = client.api_key
    try:
        completion = client.chat.completions.create(model=model, messages=messages, **options)
        return _judgement(completion, scheme, key)
    except openai.APITimeoutError:
        raise EndpointError(
            f"no reply within {client.timeout:g} s, sent {client.max_retries + 1} times"
        ) from None
    except openai.APIStatusError as error:
        if scheme == "p_true" and error.status_code in _UNKNOWN_OPTION:
            return Judgement(None, f"status {error.status_code}", "no logprobs")
        message = shown(error.message, key)
        raise EndpointError(
            f"the endpoint answers with status {error.status_code}: {message}"
        ) from None
    except openai.APIResponseValidationError as error:
        raise EndpointError(f"the reply cannot be read: {shown(error, key)}") from None
    except openai.OpenAIError as error:
        cause = f" ({error.__cause__})" if error.__cause__ is not None else ""
        problem = shown(f"{error}{cause}", key)
        raise EndpointError(f"the endpoint cannot be reached: {problem}") from None
    except (ValueError, TypeError, AttributeError, LookupError, RecursionError) as error:
        raise EndpointError(f"the reply cannot be read: {shown(error, key)}") from None


def _judgement(completion: Any, scheme: Scheme, key: str | None) -> Judgement:
    """The judgement that a reply holds; whatever else it holds is an error."""
    choices = getattr(completion, "choices", None)
    if not (isinstance(choices, list) and choices):
        raise EndpointError("the reply holds no field 'choices'")
    reply = getattr(getattr(choices[0], "message", None), "content", None)
    if reply is not None and not isinstance(reply, str):
        raise EndpointError(
            "the field 'choices[0].message.content' of the reply must be text, got "
            f"{shown(repr(reply), key)}"
        )
    words = None if reply is None else _kept(reply, key)
    if scheme == "p_true":
        return _from_logprobs(choices[0], words or "", key)
    if words is None:
        raise EndpointError("the reply holds no field 'choices[0].message.content'")
    binary = parse_binary(words)
    return Judgement(float(binary or 0), words, "unparsable" if binary is None else "verbal")


def _from_logprobs(choice: Any, reply: str, key: str | None) -> Judgement:
    """P(True) of the first token that names an option."""
    tokens = getattr(getattr(choice, "logprobs", None), "content", None)
    if not tokens:
        return Judgement(None, reply, "no logprobs")
    if not isinstance(tokens, list):
        raise EndpointError(
            f"the log-probabilities of the reply must be a list, got {shown(repr(tokens), key)}"
        )
    for token in tokens:  # models may open with white space or a quotation mark
        likeliest = getattr(token, "top_logprobs", None) or [token]
        value = probability_of_true([_log_probability(top, key) for top in likeliest])
        if value is not None:
            return Judgement(value, reply, "p_true")
    return Judgement(None, reply, "neither")


def _log_probability(top: Any, key: str | None) -> tuple[str, float]:
    """A token and its log-probability, as the protocol has them."""
    token, value = getattr(top, "token", None), getattr(top, "logprob", None)
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not isinstance(token, str) or not number:
        raise EndpointError(
            "a log-probability of the reply must be a token and a number, got "
            f"{shown(repr((token, value)), key)}"
        )
    log_probability = float(value)  # type: ignore[arg-type]
    if not log_probability <= _ROUNDED_UP:  # NaN, or more than certain
        raise EndpointError(f"a log-probability of the reply must be at most 0, got {value}")
    return token, log_probability


def _kept(reply: str, key: str | None) -> str:
    """A reply as it is kept: without lone surrogates, and without the key if it was echoed."""
    words = reply.encode("utf-8", "backslashreplace").decode("utf-8")
    return words.replace(key, "[key]") if key is not None and len(key) > len("none") else words


def _is_judgement(entry: Judgement) -> bool:
    """Whether what a record holds is one: nothing else may come into a table."""
    value = entry.value
    number = isinstance(value, int | float) and not isinstance(value, bool)
    valid = value is None or (number and 0 <= value <= 1)
    return valid and isinstance(entry.reply, str) and isinstance(entry.source, str)


class _Record:
    """Judgements on disk, a line each.

    So that a run that was interrupted goes on where it stopped.
    """

    def __init__(self, path: Path | None, model: str) -> None:
        self.path, self.model = path, model
        self._lock = Lock()
        self._judgements: dict[str, Judgement] = {}
        self._ends_within_line = False
        if path is not None and path.exists():
            data = path.read_bytes()
            self._ends_within_line = bool(data) and not data.endswith(b"\n")
            for line in data.splitlines():
                try:
                    entry = json.loads(line)
                    judgement = Judgement(entry["value"], entry["reply"], entry["source"])
                    if _is_judgement(judgement):
                        self._judgements[entry["key"]] = judgement
                except (ValueError, LookupError, TypeError, RecursionError):
                    continue  # the line that an interrupted run left half written

    def key(self, scheme: str, question: str, answer: str) -> str:
        content = json.dumps([self.model, PROMPTS[scheme], question, answer])
        return hashlib.sha256(content.encode("utf-8", "surrogatepass")).hexdigest()

    def lookup(self, key: str) -> Judgement | None:
        return self._judgements.get(key)

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
                file.write(("\n" if self._ends_within_line else "") + json.dumps(entry) + "\n")
            self._ends_within_line = False


def elicit(
    table: RoutingTable,
    endpoint: Endpoint,
    schemes: Sequence[Scheme] = ("verbal", "p_true"),
    *,
    record: str | Path | None = None,
) -> RoutingTable:
    """Asks one evaluator for its confidence in every answer of a table.

    Answers that several models gave to a question are asked about once.

    Use this when votes shall be weighted by confidence and the table has answers but no confidences
    yet.

    Args:
      table: A table with answers.
      endpoint: The endpoint of the evaluator.
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
    store = _Record(None if record is None else Path(record), endpoint.model)
    client = endpoint.client()
    try:
        judgements: dict[Scheme, dict[tuple[int, str], Judgement]] = {}
        notes, names = [], list(schemes)
        if "p_true" in names:
            of_scheme = _judge(table, endpoint.model, client, "p_true", store, endpoint.num_workers)
            if any(j.source == "no logprobs" for j in of_scheme.values()):
                notes.append(
                    f"{endpoint.model}: the endpoint gives no log-probabilities, so there is no "
                    "p_true; verbal "
                    f"confidence stands in its place"
                )
                names = ["verbal"]
            else:
                judgements["p_true"] = of_scheme
        if "verbal" in names:
            judgements["verbal"] = _judge(
                table, endpoint.model, client, "verbal", store, endpoint.num_workers
            )
    finally:
        client.close()
    confidence = dict(table.confidence)
    for scheme, of_scheme in judgements.items():
        confidence[scheme], note = _matrix(table, of_scheme)
        notes.append(f"{scheme} confidence of {endpoint.model}: {note}")
    return replace(table, confidence=confidence, notes=[*table.notes, *notes])


def _judge(
    table: RoutingTable, model: str, client: Any, scheme: Scheme, record: _Record, num_workers: int
) -> dict[tuple[int, str], Judgement]:
    """The judgement of every distinct answer of every query.

    Stops at the first sign of missing log-probabilities.
    """
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
        if (earlier := record.lookup(key)) is not None:
            return earlier
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

    first = [one(pair) for pair in pairs[:1]]  # alone: it shows whether there are log-probabilities
    with ThreadPoolExecutor(num_workers) as workers:
        rest = tqdm(
            workers.map(one, pairs[1:]), scheme, len(pairs) - 1, disable=None, unit="answer"
        )
        return dict(zip(pairs, [*first, *rest], strict=True))


def _matrix(
    table: RoutingTable, judgements: dict[tuple[int, str], Judgement]
) -> tuple[np.ndarray, str]:
    """Judgements as `[n, m]`, and a sentence on those that could not be read; these count as 0."""
    answers: np.ndarray = table.answers  # type: ignore[assignment]
    matrix = np.full(answers.shape, np.nan)
    for (i, answer), judgement in judgements.items():
        matrix[i, answers[i] == answer] = judgement.value or 0.0
    unread = sum(j.source in ("unparsable", "neither") for j in judgements.values())
    return (
        matrix,
        f"{len(judgements)} answers rated, {unread} replies could not be read and count as 0",
    )
