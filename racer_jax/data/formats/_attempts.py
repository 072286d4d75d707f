"""Results gathered row by row, with one or several attempts of each model at each question.

Where there are several attempts at a question, nothing is chosen in silence: a label rule judges
the pass rate, or the caller names the attempt to read.
"""

from __future__ import annotations

import hashlib
import math
from array import array
from collections.abc import Callable, Hashable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from racer_jax.data.errors import DataError
from racer_jax.data.formats._cells import (
    GRADED,
    Missing,
    Rules,
    built,
    check_missing,
    check_rule,
    grid,
    labels_by_rule,
    object_matrix,
    settle_missing,
)
from racer_jax.data.formats._folders import unread
from racer_jax.data.formats._json import check_object, check_text, shown
from racer_jax.data.labels import GIVEN
from racer_jax.data.remedies import Remedy
from racer_jax.data.table import RoutingTable

if TYPE_CHECKING:
    import jax


class Place(NamedTuple):
    """Where a result stands.

    Attributes:
      path: The file.
      row: Number of the record, counted from 1; None for the whole file.
      line: Line of the file, None where the format has none.
    """

    path: Path
    row: int | None = None
    line: int | None = None

    def error(
        self, problem: str, field: str | None = None, remedy: Remedy | None = None
    ) -> DataError:
        """An error at this place."""
        where: dict[str, Any] = {"path": self.path, "row": self.row, "line": self.line}
        return DataError(problem, field=field, remedy=remedy, **where)


class Question(NamedTuple):
    """What all models share of a question.

    Attributes:
      key: What joins the results of several models.
      name: Name of the question in the table.
      text: What is given to the router.
      group: Benchmark or subject.
    """

    key: Hashable
    name: str
    text: str
    group: str


class Result(NamedTuple):
    """What one model did with one question.

    Attributes:
      model: Name of the model.
      score: 0 or 1, or a graded score where a label rule makes labels; NaN where the model was not
        evaluated.
      attempt: Number of the attempt.
      answer: The answer in a normal form, None where there is none.
      cost: Dollars.
      tokens: Tokens of the answer.
      field: The field the score comes from, for the error.
      hint: What the error about a graded score says of the score.
    """

    model: str
    score: float
    attempt: int = 1
    answer: str | None = None
    cost: float = math.nan
    tokens: float = math.nan
    field: str = "score"
    hint: str = ""


class Attempts:
    """The results of a log, one for each (question, model, attempt)."""

    def __init__(
        self,
        path: Path,
        *,
        label_rule: Rules | None,
        key: jax.Array | None,
        attempt: int | None,
        missing: Missing,
        unit: str,
    ) -> None:
        """Checks the options before anything is read.

        Args:
          path: The file or folder, for errors that concern all of it.
          label_rule: Makes labels from graded scores, for all or by group; None where the scores
            are labels.
          key: A typed PRNG key, for the rule `one attempt` alone.
          attempt: Number of the attempt to read, None for all.
          missing: What to do with pairs without a result.
          unit: What the format calls an attempt, such as `epoch`.
        """
        check_missing(missing)
        if attempt is not None and (isinstance(attempt, bool) or not isinstance(attempt, int)):
            raise TypeError(f"attempt must be a whole number, got {attempt!r}")
        self._path, self._key, self._attempt, self._missing = path, key, attempt, missing
        check_rule(label_rule)
        self.rule = label_rule
        self._unit = unit
        self._others: set[int] = set()
        self._questions: dict[Hashable, int] = {}
        self._names: list[Question] = []
        self._models: dict[str, int] = {}
        self._answers: list[str | None] = []
        self._places: list[Place] = []
        # One number for each result: Python objects would take ten times the memory.
        self._rows, self._columns, self._numbers = array("q"), array("q"), array("q")
        self._scores, self._costs, self._tokens = array("d"), array("d"), array("d")

    def add(
        self,
        key: Hashable,
        question: Question | Callable[[], Question],
        place: Place,
        result: Result,
    ) -> None:
        """Takes one result in.

        Args:
          key: What joins the results of several models.
          question: The question, or what makes it; called when the key is new.
          place: Where the result stands.
          result: The result.

        Raises:
          DataError: If the score is graded and there is no rule, or a text is not one.
        """
        if self._attempt is not None and result.attempt != self._attempt:
            self._others.add(result.attempt)
            return
        score = result.score
        if self.rule is None and not (score in (0, 1) or math.isnan(score)):
            message = f"must be 0 or 1, got {score:g}{result.hint}"
            raise place.error(message, result.field, GRADED)
        number = self._questions.get(key)
        if number is None:
            query = question() if callable(question) else question
            check_text(query.text, "text", path=place.path, row=place.row, line=place.line)
            number = self._questions[key] = len(self._names)
            self._names.append(query)
        if result.answer is not None:
            check_text(result.answer, "answer", path=place.path, row=place.row, line=place.line)
        self._rows.append(number)
        self._columns.append(self._models.setdefault(result.model, len(self._models)))
        self._numbers.append(result.attempt)
        self._scores.append(score)
        self._costs.append(result.cost)
        self._tokens.append(result.tokens)
        self._answers.append(result.answer)
        self._places.append(place)

    def table(
        self,
        notes: Sequence[str] = (),
        *,
        files: Iterable[Path] = (),
        rule_name: str = GIVEN,
        nothing: str = "must hold at least one result",
    ) -> RoutingTable:
        """The table of all results.

        Args:
          notes: What reading did.
          files: The files that were read, of a folder.
          rule_name: Name of the label rule where the scores are labels.
          nothing: The error where there is no result at all.

        Returns:
          The table.

        Raises:
          DataError: If there is no result, one is given twice, or there are several attempts and
            neither a rule nor the number of one.
        """
        if not self._rows:
            if others := sorted(self._others):
                raise DataError(
                    f"must hold {self._unit} {self._attempt}, got {others[:12]}",
                    path=self._path,
                    remedy=Remedy("pass, for example: {}", attempt=others[0]),
                )
            raise DataError(nothing, path=self._path)
        rows, columns = np.array(self._rows), np.array(self._columns)
        models = list(self._models)
        place = grid(rows, columns, (len(self._names), len(models)), self._path)
        self._check_repeats(place.places)
        counts = np.bincount(place.places, minlength=place.shape[0] * place.shape[1])
        most = int(counts.max())
        scores = np.array(self._scores)
        if most > 1 and self.rule is None:
            first = int(np.flatnonzero(counts == most)[0])
            raise DataError(
                f"must hold one {self._unit} of each question, got {most} for "
                f"{self._names[first // len(models)].name!r} and model "
                f"{models[first % len(models)]!r}",
                path=self._path,
                remedy=Remedy(
                    f"pass {{}} to judge the pass rate, or {{}} to read one {self._unit}",
                    label_rule="score > 0.5",
                    attempt=min(self._numbers),
                ),
            )
        means = _means(place.places, scores, place.shape)
        groups = [question.group for question in self._names]
        labels = labels_by_rule(self._path, means, groups, self.rule, self._key)
        notes = [*notes, *self._attempt_notes(counts, most)]
        names, num_renamed = _unique_names(self._names)
        answers = cost = tokens = None
        if most == 1 and any(answer is not None for answer in self._answers):
            answers = object_matrix(place, self._answers)
        if _any_known(values := np.array(self._costs)):
            cost = _means(place.places, values, place.shape)
        if most == 1 and _any_known(values := np.array(self._tokens)):
            tokens = place.fill(values, np.nan)
        table = built(
            self._path,
            ids=names,
            texts=[question.text for question in self._names],
            models=models,
            correct=labels.correct,
            group=groups,
            graded=labels.graded,
            answers=answers,
            cost=cost,
            tokens=tokens,
            label_rule=rule_name if self.rule is None else labels.rule,
            missing=labels.missing,
            notes=[*notes, *num_renamed, *unread(self._path, files, deep=True)],
        )
        return settle_missing(table, self._missing, self._path)

    def _check_repeats(self, places: np.ndarray) -> None:
        """Refuses an attempt given twice."""
        order = np.lexsort((np.array(self._numbers), places))
        pairs = np.column_stack([places, np.array(self._numbers)])[order]
        again = np.flatnonzero((pairs[1:] == pairs[:-1]).all(axis=1))
        if not len(again):
            return
        later = int(order[again + 1].min())
        pair = (places[later], self._numbers[later])
        same = (places == pair[0]) & (np.array(self._numbers) == pair[1])
        first = self._places[int(np.flatnonzero(same)[0])]
        where = self._places[later]
        origin = "" if first.path == where.path else f" of {first.path.name}"
        question = self._names[self._rows[later]]
        raise where.error(
            f"must be given once for question {question.name!r} and model "
            f"{list(self._models)[self._columns[later]]!r}, got it in row {first.row}{origin} "
            "already"
        )

    def _attempt_notes(self, counts: np.ndarray, most: int) -> list[str]:
        if self._others:
            return [f"read {self._unit} {self._attempt} alone"]
        if most == 1:
            return []
        fewest = int(counts[counts > 0].min())
        span = str(most) if fewest == most else f"{fewest} to {most}"
        return [
            f"scores are means over {span} {self._unit}s of each question; answers and tokens of "
            "single attempts were left out, costs are means"
        ]


def _means(places: np.ndarray, values: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Mean of the known values of each place, NaN where there is none."""
    cells = shape[0] * shape[1]
    finite = np.isfinite(values)
    sums = np.bincount(places[finite], weights=values[finite], minlength=cells)
    counts = np.bincount(places[finite], minlength=cells)
    means = np.full(cells, np.nan)
    np.divide(sums, counts, out=means, where=counts > 0)
    return means.reshape(shape)


def _any_known(values: np.ndarray) -> bool:
    return bool(np.isfinite(values).any())


def _unique_names(questions: Sequence[Question]) -> tuple[list[str], list[str]]:
    """Names of the questions; a part of the text's hash where one name stands for several texts."""
    counts: dict[str, int] = {}
    for question in questions:
        counts[question.name] = counts.get(question.name, 0) + 1
    several = [name for name, count in counts.items() if count > 1]
    if not several:
        return [question.name for question in questions], []
    names = []
    for question in questions:
        digest = hashlib.sha256(repr((question.key, question.text)).encode(errors="replace"))
        duplicate = counts[question.name] > 1
        names.append(f"{question.name}#{digest.hexdigest()[:8]}" if duplicate else question.name)
    note = f"{len(several)} questions are not the same text for all models, such as {several[0]!r}"
    return names, [note]


def number_of(
    value: Any, field: str, place: Place, *, low: float = -math.inf, whole: bool = False
) -> float:
    """A finite number of a record, NaN where it is null."""
    if value is None:
        return math.nan
    try:
        number = float(value) if isinstance(value, int | float) else math.nan
    except OverflowError:
        number = math.inf
    if not math.isfinite(number) or number < low or (whole and number % 1):
        kind = "a whole number" if whole else "a number"
        bound = f" of at least {low:g}" if low > -math.inf else ""
        raise place.error(f"must be {kind}{bound}, got {shown(value)}", field)
    return number


def score_of(value: Any, field: str, place: Place) -> float:
    """A score of a record, NaN where it is null or NaN: nobody knows it."""
    if isinstance(value, float) and math.isnan(value):
        return math.nan
    return number_of(value, field, place)


def text_field(value: Any, field: str, place: Place, *, empty: bool = False) -> str:
    """A text of a record."""
    check_text(value, field, path=place.path, row=place.row, line=place.line, empty=empty)
    return str(value)


def objects(value: Any, path: Path, field: str | None = None) -> list[dict[str, Any]]:
    """A parsed JSON list of objects, checked."""
    if not isinstance(value, list):
        raise DataError(f"must be a list of objects, got {shown(value)}", path=path, field=field)
    if not value:
        raise DataError("must hold at least one record, got an empty list", path=path, field=field)
    for row, record in enumerate(value, start=1):
        check_object(record, path, row=row, field=field)
    return value
