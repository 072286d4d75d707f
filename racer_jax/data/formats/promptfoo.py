"""Exports of promptfoo, version 3: `promptfoo eval --output results.json` or `promptfoo export`.

`results.results` holds one record for each (test, prompt, provider): `testIdx`, `promptId`,
`vars`, `provider.id`, `success` and, in `gradingResult.componentResults`, each assertion's verdict.
`success` mixes quality with cost and latency, so that a right answer that came late counts as
wrong: labels are made from the assertions about quality alone.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Hashable, Iterator, Sequence
from functools import partial
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
    text_field,
)
from racer_jax.data.formats._cells import Missing, Rules
from racer_jax.data.formats._content import normal_answer, prompt_text
from racer_jax.data.formats._json import check_object, parse, shown
from racer_jax.data.formats._text import read_text
from racer_jax.data.remedies import Remedy
from racer_jax.data.table import RoutingTable

if TYPE_CHECKING:
    import jax

# Assertions that say what an answer costs, not whether it is right.
NOT_QUALITY = ("cost", "latency")
_ERROR = 2  # `failureReason`: the provider failed, nothing was judged
_PASSES = "all assertions but those of {} pass"


def read_promptfoo(
    path: str | Path,
    *,
    ignore: Sequence[str] = NOT_QUALITY,
    label_rule: Rules | None = None,
    key: jax.Array | None = None,
    attempt: int | None = None,
    answer: Callable[[str], str | None] = text,
    missing: Missing = "error",
) -> RoutingTable:
    """Reads an export of promptfoo.

    Use this when prompts were tested with several providers. An answer is right where every
    assertion passes that is not of an ignored type. A result whose provider failed
    (`failureReason` 2) was not evaluated. Tests with the same variables and assertions are
    attempts at one question, as `--repeat` makes them.

    Args:
      path: The file.
      ignore: Types of assertions that say nothing of quality.
      label_rule: Makes the labels from the mean score of the assertions, by their weights, or from
        its mean over attempts.
      key: A typed PRNG key, for the rule `one attempt` alone.
      attempt: The attempt to read, counted from 1; all when None.
      answer: Finds the answer in an output (see `racer_jax.data.answers`).
      missing: What to do with pairs that have no result: `error`, `drop` their queries with a note,
        or `keep` them.

    Returns:
      The table; a model is named by its provider's id, and a query's id is
      `test <testIdx>`, with the number of the prompt where there are several.

    Raises:
      DataError: If the file is not what it should be; it names file, row and field.
      ValueError: If an option is not one of those above.
    """
    path = Path(path)
    assertions_left_out = [ignore] if isinstance(ignore, str) else list(ignore)
    attempts = Attempts(
        path, label_rule=label_rule, key=key, attempt=attempt, missing=missing, unit="attempt"
    )
    results = _results(path)
    prompts: dict[str, int] = {}
    labels: dict[str, set[str]] = {}
    for result, place in results:
        prompts.setdefault(_prompt_id(result), len(prompts))
        name, label = _provider(result, place)
        labels.setdefault(name, set()).add(label)
    numbers: dict[Hashable, dict[int, int]] = {}
    types: set[str] = set()
    for result, place in results:
        test = result.get("testIdx")
        if isinstance(test, bool) or not isinstance(test, int):
            raise place.error(f"must be a whole number, got {shown(test)}", "testIdx")
        case = result.get("testCase")
        assertions = case.get("assert") if isinstance(case, dict) else None
        prompt = _prompt_id(result)
        case_key = (result.get("vars"), assertions)
        identity: Hashable = (prompt, json.dumps(case_key, sort_keys=True))
        tests = numbers.setdefault(identity, {})
        number = tests.setdefault(test, len(tests) + 1)
        several = f", prompt {prompts[prompt] + 1}" if len(prompts) > 1 else ""
        name, label = _provider(result, place)
        model = f"{name} ({label})" if label and len(labels[name]) > 1 else name
        first = f"test {next(iter(tests))}{several}"
        score = _score(
            result, place, assertions_left_out, types, as_score=attempts.rule is not None
        )
        question = partial(_question, result, place, identity, first)
        parts = _result(result, place, score, model, number, answer)
        attempts.add(identity, question, place, parts)
    _check_left_out(path, assertions_left_out, types)
    rule_name = (
        _PASSES.format(", ".join(assertions_left_out))
        if assertions_left_out
        else "all assertions pass"
    )
    return attempts.table(rule_name=rule_name)


def _check_left_out(path: Path, left_out: Sequence[str], types: set[str]) -> None:
    """Refuses a type of assertion to leave out that there is none of; the usual ones may be so."""
    unknown = [name for name in left_out if name not in types and name not in NOT_QUALITY]
    if unknown and types:
        raise DataError(
            f"must hold an assertion {unknown[0]!r} to leave out, got {sorted(types)}", path=path
        )


def _results(path: Path) -> list[tuple[dict[str, Any], Place]]:
    """The records of an export, each an object."""
    whole = parse(read_text(path), path)
    check_object(whole, path, row=None)
    inner = whole.get("results")
    check_object(inner, path, row=None, field="results")
    version, entries = inner.get("version"), inner.get("results")
    if version != 3 or not isinstance(entries, list):
        raise DataError(
            f"must be an export of promptfoo of version 3 with a list results.results, got version "
            f"{shown(version)}",
            path=path,
            field="results.version",
        )
    results = []
    for row, result in enumerate(entries, start=1):
        check_object(result, path, row=row, field="results.results")
        results.append((result, Place(path, row)))
    return results


def _prompt_id(result: dict[str, Any]) -> str:
    """What distinguishes prompts: the hash of the template where there is one, else its number."""
    name = result.get("promptId")
    return name if isinstance(name, str) else f"{result.get('promptIdx')}"


def _provider(result: dict[str, Any], place: Place) -> tuple[str, str]:
    """Id and label of the provider of a record."""
    provider = result.get("provider")
    if isinstance(provider, str):
        return text_field(provider, "provider", place), ""
    check_object(provider, place.path, row=place.row, field="provider")
    name = text_field(result["provider"].get("id"), "provider.id", place)
    label = result["provider"].get("label") or ""
    return name, text_field(label, "provider.label", place, empty=True)


def _question(record: dict[str, Any], place: Place, identity: Hashable, name: str) -> Question:
    """The question of a record."""
    prompt = record.get("prompt")
    words = prompt.get("raw") if isinstance(prompt, dict) else prompt
    return Question(identity, name, _plain(text_field(words, "prompt.raw", place)), "promptfoo")


def _result(
    record: dict[str, Any],
    place: Place,
    score: float,
    model: str,
    attempt: int,
    answer: Callable[[str], str | None],
) -> Result:
    """The result of a record."""
    response = record.get("response")
    output = response.get("output") if isinstance(response, dict) else None
    usage = response.get("tokenUsage") if isinstance(response, dict) else None
    num_tokens = usage.get("completion") if isinstance(usage, dict) else None
    field = "response.tokenUsage.completion"
    return Result(
        model,
        score,
        attempt=attempt,
        answer=normal_answer(output, answer),
        cost=number_of(record.get("cost"), "cost", place, low=0),
        tokens=number_of(num_tokens, field, place, low=0, whole=True),
        field="gradingResult.componentResults",
    )


def _plain(prompt: str) -> str:
    """A prompt that is a JSON list of chat messages as the text of these."""
    if not prompt.lstrip().startswith("[{"):
        return prompt
    try:
        return prompt_text(json.loads(prompt)) or prompt
    except (ValueError, RecursionError):
        return prompt


def _score(
    result: dict[str, Any],
    place: Place,
    assertions_left_out: Sequence[str],
    all_types: set[str],
    as_score: bool,
) -> float:
    """What the assertions about quality say; NaN where the provider failed."""
    if result.get("failureReason") == _ERROR:
        return math.nan
    grading = result.get("gradingResult")
    field = "gradingResult"
    check_object(grading, place.path, row=place.row, field=field)
    components = result["gradingResult"].get("componentResults")
    field = "gradingResult.componentResults"
    if not isinstance(components, list):
        raise place.error(f"must be a list of assertions, got {shown(components)}", field)
    scores, weights, passes = [], [], []
    types: set[str] = set()
    for component in _components(components, place, 0):
        assertion = component.get("assertion")
        about: dict[str, Any] = assertion if isinstance(assertion, dict) else {}
        kind = about.get("type")
        name = kind.removeprefix("not-") if isinstance(kind, str) else ""
        types.add(name or "unnamed")
        if name in assertions_left_out:
            continue
        weight = number_of(about.get("weight"), f"{field}.assertion.weight", place, low=0)
        weight = 1.0 if math.isnan(weight) else weight
        if not weight:
            continue  # promptfoo reports such an assertion and does not judge by it
        verdict = component.get("pass")
        if not isinstance(verdict, bool):
            raise place.error(f"must be true or false, got {shown(verdict)}", f"{field}.pass")
        score = number_of(component.get("score"), f"{field}.score", place)
        passes.append(verdict)
        scores.append(float(verdict) if math.isnan(score) else score)
        weights.append(weight)
    all_types |= types
    if not passes:
        raise place.error(
            f"must hold an assertion about quality, got {sorted(types)}",
            field,
            Remedy(
                "to judge by these pass, for example: {}",
                ignore=sorted(set(assertions_left_out) - types),
            ),
        )
    mean = math.fsum(s * w for s, w in zip(scores, weights, strict=True)) / math.fsum(weights)
    threshold = _threshold(result, place)
    if as_score:
        return mean
    return float(all(passes) if math.isnan(threshold) else mean >= threshold)


def _components(components: list[Any], place: Place, depth: int) -> Iterator[dict[str, Any]]:
    """The single assertions: a set of assertions stands for its members."""
    for component in components:
        check_object(component, place.path, row=place.row, field="gradingResult.componentResults")
        inner = component.get("componentResults")
        if isinstance(inner, list) and inner and depth < 8:
            yield from _components(inner, place, depth + 1)
        else:
            yield component


def _threshold(result: dict[str, Any], place: Place) -> float:
    """The score a test asks for, NaN where all its assertions must pass."""
    case = result.get("testCase")
    value = case.get("threshold") if isinstance(case, dict) else None
    return number_of(value, "testCase.threshold", place)
