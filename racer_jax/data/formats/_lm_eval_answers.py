"""The answers of a log of lm-evaluation-harness: equal answers as equal strings."""

import math
import re
import string
from collections.abc import Callable
from itertools import chain
from operator import itemgetter
from typing import Any

from racer_jax.data.errors import DataError
from racer_jax.data.formats._batches import Batch
from racer_jax.data.formats._json import shown
from racer_jax.data.formats._lm_eval_files import delimiter
from racer_jax.data.formats._lm_eval_runs import Log, section
from racer_jax.data.formats._lm_eval_text import arguments_of
from racer_jax.data.formats._patterns import is_expression, linear_remover
from racer_jax.data.formats._records import Record
from racer_jax.data.remedies import Remedy

_INVALID = "[invalid]"
_LETTERS = string.ascii_uppercase
_NUMBER = re.compile(r"-?\$?\d[\d,]*(?:\.\d+)?\.?")
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)
_LIST, _NUMBER_OR_TEXT = frozenset({list}), frozenset({int, str})
_NO_ANSWER = "responses are neither one text nor 2 to 26 choices"
WITHOUT_ANSWERS = Remedy("pass {} to leave answers out", answers=False)


class AnswerReader:
    """Reads the answers of one log by one metric.

    Attributes:
      log: The log.
      metric: The metric.
      unread: Why answers could not be read, None while all could.
    """

    def __init__(self, log: Log, metric: str, graded: bool) -> None:
        self.log, self.metric = log, metric
        self.unread: str | None = None
        # A metric of 0 and 1 says whether the most likely choice is right; a graded one does not.
        self._checks_choice = metric in ("acc", "acc_norm") and not graded
        self._delimiter = delimiter(log)
        self._normal = self._normaliser()

    def answer(self, sample: Record, value: float) -> str | None:
        """The answer of a row; None where it says that there is none, or none could be read."""
        responses = sample.filtered_resps
        if not isinstance(responses, list) or not responses:
            raise DataError(
                f"must be a list of responses, got {shown(responses)}",
                field="filtered_resps",
                remedy=WITHOUT_ANSWERS,
                **sample.where(),
            )
        if type(responses[0]) is list and all([type(r) is list and len(r) == 2 for r in responses]):
            return self._most_likely(sample, value, responses)
        while isinstance(responses, list) and len(responses) == 1:
            responses = responses[0]
        if not isinstance(responses, str):
            self.unread = _NO_ANSWER
            return None
        text = responses.strip()
        return None if text == _INVALID else self._normal(text).strip() or None

    def column(self, batch: Batch, values: list[float]) -> list[str | None] | None:
        """The answers of many rows; None where one must be looked at by itself."""
        responses = batch.column("filtered_resps", _LIST)
        if responses is None or not all(responses):
            return None
        parts = list(chain.from_iterable(responses))
        kinds = set(map(type, parts))
        if kinds == {str} and len(parts) == len(responses):
            texts = map(str.strip, parts)
            return [None if t == _INVALID else self._normal(t).strip() or None for t in texts]
        if kinds != {list} or set(map(len, parts)) != {2} or self.metric == "acc_norm":
            return None
        best = _most_likely_of(parts, list(map(len, responses)))
        if best is None or (self._checks_choice and not _agree(batch, best, values)):
            return None
        return [_LETTERS[choice] for choice in best]

    def _normaliser(self) -> Callable[[str], str]:
        """What the metric does to an answer before it compares, as the report says.

        Where there is no report: numbers lose thousands separators, currency signs and a full stop
        at their end.
        """
        config = section(section(self.log.results, "configs"), self.log.task)
        metrics = config.get("metric_list")
        entries = metrics if isinstance(metrics, list) else []
        rules = [entry for entry in entries if isinstance(entry, dict)]
        rule = next((entry for entry in rules if entry.get("metric") == self.metric), None)
        if rule is None:
            return _plain_number
        removers = []
        regexes = rule.get("regexes_to_ignore")
        for regex in regexes if isinstance(regexes, list) else []:
            remover = linear_remover(regex) if isinstance(regex, str) else None
            if remover is None and not is_expression(regex):
                continue  # the harness cannot have used it either
            if remover is None:
                what = "an expression that the metric ignores is too involved to be run"
                self.unread = f"{what}: {shown(regex)}"
                return str
            removers.append(remover)

        def normal(text: str) -> str:
            for remover in removers:
                text = remover(text)
            if rule.get("ignore_case") is True:
                text = text.lower()
            if rule.get("ignore_punctuation") is True:
                text = text.translate(_NO_PUNCTUATION)
            return text

        return normal

    def _most_likely(self, sample: Record, value: float, responses: list[list[Any]]) -> str | None:
        """The letter of the most likely choice."""
        if len(responses) < 2 or len(responses) > 26:
            self.unread = _NO_ANSWER
            return None
        try:
            likelihoods = [float(likelihood) for likelihood, _ in responses]
        except (ValueError, TypeError, OverflowError):
            likelihoods = [math.nan]
        total = sum(likelihoods)
        if total != total:  # one of them is no number, or they cancel out
            where = sample.where()
            likelihoods = [self._likelihood(likelihood, where) for likelihood, _ in responses]
        if self.metric == "acc_norm":
            lengths = self._choice_lengths(sample)
            if lengths is None and not self._checks_choice:
                self.unread = "rows do not hold the text of each choice, which acc_norm needs"
                return None
            if lengths is None or len(lengths) != len(likelihoods):
                raise DataError(
                    "must hold the text of each choice for acc_norm",
                    field="arguments",
                    remedy=WITHOUT_ANSWERS,
                    **sample.where(),
                )
            pairs = zip(likelihoods, lengths, strict=True)
            likelihoods = [number / length for number, length in pairs]
        best = likelihoods.index(max(likelihoods))
        if not self._checks_choice or value not in (0, 1):
            return _LETTERS[best]
        target = str(sample.target)
        right = _choice_number(target)
        if right is not None and (right == best) != (value == 1):
            raise DataError(
                f"must agree with {self.metric}: choice {best} is the most likely, "
                f"{target[:20]} is right, got {self.metric} {value:g}",
                field="filtered_resps",
                remedy=WITHOUT_ANSWERS,
                **sample.where(),
            )
        return _LETTERS[best]

    def _likelihood(self, value: Any, where: dict[str, Any]) -> float:
        try:
            number = float(value) if isinstance(value, str | int | float) else math.nan
        except (ValueError, OverflowError):
            number = math.nan
        if math.isnan(number):
            raise DataError(
                f"must hold log-likelihoods, got {shown(value)}",
                field="filtered_resps",
                remedy=WITHOUT_ANSWERS,
                **where,
            )
        return number

    def _choice_lengths(self, sample: Record) -> list[float] | None:
        """The number of characters of each choice, None where the row does not hold them."""
        texts = []
        for arguments in arguments_of(sample["arguments"]):
            if len(arguments) < 2 or not isinstance(arguments[1], str):
                return None
            texts.append(arguments[1].removeprefix(self._delimiter))
        return [float(len(text)) for text in texts] if texts and all(texts) else None


def _most_likely_of(parts: list[list[Any]], counts: list[int]) -> list[int] | None:
    """The most likely choice of each row; None where a row is not one of 2 to 26 numbers."""
    if min(counts) < 2 or max(counts) > 26:
        return None
    try:
        numbers = list(map(float, map(itemgetter(0), parts)))
    except (ValueError, TypeError, OverflowError):
        return None
    if math.isnan(sum(numbers)):  # one of them is no number, or they cancel out
        return None
    best, start = [], 0
    for count in counts:
        row = numbers[start : start + count]
        best.append(row.index(max(row)))
        start += count
    return best


def _agree(batch: Batch, best: list[int], values: list[float]) -> bool:
    """Whether the metric of each row is 1 where the most likely choice is the right one."""
    targets = batch.column("target", _NUMBER_OR_TEXT)
    if targets is None:
        return False
    targets = list(map(str, targets))
    right = {target: _choice_number(target) for target in set(targets)}
    for target, choice, value in zip(targets, best, values, strict=True):
        if right[target] is not None and (right[target] == choice) != (value == 1):
            return False
    return True


def _choice_number(target: str) -> int | None:
    """The choice that a target names, -1 for a number that no choice has; None for a text."""
    if not (target.isascii() and target.isdigit()):
        return None
    # As text: a number of five thousand digits is one that int() refuses.
    digits = target.lstrip("0") or "0"
    return int(digits) if len(digits) < 3 else -1


def _plain_number(text: str) -> str:
    return re.sub(r"[$,]|\.$", "", text) if _NUMBER.fullmatch(text) else text
