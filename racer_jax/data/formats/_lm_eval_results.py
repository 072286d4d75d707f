"""What logs of lm-evaluation-harness say, gathered row by row or many rows at a time."""

from array import array
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from racer_jax.data.errors import DataError
from racer_jax.data.formats._batches import Batch
from racer_jax.data.formats._json import check_text, too_deep
from racer_jax.data.formats._lm_eval_answers import AnswerReader
from racer_jax.data.formats._lm_eval_questions import Questions
from racer_jax.data.formats._lm_eval_rows import metric_column, metric_value
from racer_jax.data.formats._lm_eval_text import document_text, text_of
from racer_jax.data.formats._records import Record
from racer_jax.data.formats._texts import Texts

_TEXT, _INTEGER, _OBJECT = frozenset({str}), frozenset({int}), frozenset({dict})


class Column(NamedTuple):
    """The results of one log.

    Attributes:
      model: The model, as its place among the models.
      codes: The question of each result.
      values: Its metric; int8 where all are 0 or 1.
      answers: Its answer.
    """

    model: int
    codes: np.ndarray | range
    values: np.ndarray
    answers: Texts


class Results:
    """The results of logs, one number for each: Python objects would take ten times the memory.

    Attributes:
      questions: The questions, each once.
      texts: Their texts.
      without_text: Where the questions without text stand.
      codes: The question of each result of the log that is read now.
      values: Its metric.
      answers: Its answer, None where there is none.
      columns: What the logs before hold.
      num_results: How many results they hold.
    """

    def __init__(self, tasks: Sequence[str], whole_prompt: bool) -> None:
        self.questions = Questions(tasks)
        self.texts: list[str] = []
        self.without_text: list[str] = []
        self.codes, self.values = array("i"), array("d")
        self.answers = Texts()
        self.columns: list[Column] = []
        self.num_results = 0
        self._whole_prompt = whole_prompt

    def add(
        self, batch: Batch, task: int, metric: str, graded: bool, reader: AnswerReader | None
    ) -> None:
        """Adds the results of some rows.

        Args:
          batch: The rows.
          task: The task, as its place among the tasks.
          metric: The metric.
          graded: Whether a metric may be any number.
          reader: Reads the answers; None where they are not wanted.

        Raises:
          DataError: If a row is not what it should be; it names the row and the field.
        """
        if len(batch) and self._add_columns(batch, task, metric, graded, reader):
            return
        for sample in batch.records:
            value = metric_value(sample, metric, graded)
            answer = None if reader is None else reader.answer(sample, value)
            code = self._code(task, sample)
            if code == len(self.texts):
                self._add_text(_text(sample, self._whole_prompt), sample)
            if answer is not None and not answer.isascii():
                check_text(answer, "filtered_resps", **sample.where())
            self.codes.append(code)
            self.values.append(value)
            self.answers.extend((answer,))

    def end_log(self, model: int) -> None:
        """Puts the results of a log into a few bytes each.

        Args:
          model: The model of the log.
        """
        codes: np.ndarray | range = np.array(self.codes, np.int32)
        if len(codes) and (np.diff(codes) == 1).all():
            codes = range(codes[0], codes[0] + len(codes))
        values = np.array(self.values)
        if ((values == 0) | (values == 1)).all():
            values = values.astype(np.int8)
        self.num_results += len(codes)
        self.columns.append(Column(model, codes, values, self.answers))
        self.codes, self.values, self.answers = array("i"), array("d"), Texts()

    def _add_columns(
        self, batch: Batch, task: int, metric: str, graded: bool, reader: AnswerReader | None
    ) -> bool:
        """Adds the results of rows that are all as usual; nothing where one is not."""
        values = metric_column(batch, metric, graded)
        doc_ids = batch.column("doc_id", _INTEGER)
        hashes = batch.column("doc_hash", _TEXT)
        if values is None or doc_ids is None or hashes is None:
            return False
        answers = None if reader is None else reader.column(batch, values)
        if reader is not None and (answers is None or not _can_be_written(answers)):
            return False
        try:
            codes = self.questions.codes(task, doc_ids, hashes)
        except OverflowError:
            return False
        new = len(self.texts)
        if max(codes) >= new:
            # Read row by row, the questions have the numbers that they have now.
            texts = None if self._whole_prompt else _texts(batch)
            if texts is None:
                return False
            for code, text in zip(codes, texts, strict=True):
                if code == new:
                    self.texts.append(text)
                    new += 1
        self.codes.extend(codes)
        self.values.extend(values)
        self.answers.extend([None] * len(values) if answers is None else answers)
        return True

    def _add_text(self, text: str, sample: Record) -> None:
        self.texts.append(text)
        if not text or text.isspace():
            path, row, _ = sample.place
            self.without_text.append(f"{path.name}, row {row}")

    def _code(self, task: int, sample: Record) -> int:
        """The number of the question of a row."""
        try:
            return self.questions.code(task, sample.doc_id, sample.doc_hash)
        except OverflowError:
            raise DataError(
                "must be a whole number of at most 64 bits, got a larger one",
                field="doc_id",
                **sample.where(),
            ) from None


def score_matrix(columns: Sequence[Column], order: np.ndarray, num_models: int) -> np.ndarray:
    """The metric of each question and model, `[n, m]`.

    Args:
      columns: The results of the logs.
      order: The questions in the order of the table.
      num_models: How many models there are.

    Returns:
      Numbers, NaN where there is no result; or int8 where all are 0 or 1, -1 where none.
    """
    whole = all(column.values.dtype == np.int8 for column in columns)
    empty = np.int8(-1) if whole else np.float64(np.nan)
    matrix = np.full((len(order), num_models), empty)
    for column, rows in _with_rows(columns, order):
        matrix[rows, column.model] = column.values
    return matrix


def answer_matrix(columns: Sequence[Column], order: np.ndarray, num_models: int) -> np.ndarray:
    """The answer of each question and model, `[n, m]`, None where there is none."""
    matrix = np.full((len(order), num_models), None, dtype=object)
    for column, rows in _with_rows(columns, order):
        matrix[rows, column.model] = column.answers[:]
    return matrix


def _with_rows(columns: Sequence[Column], order: np.ndarray) -> Iterator[tuple[Column, np.ndarray]]:
    """Each log, and the rows of the table that its results belong to."""
    rank = np.empty(len(order), np.int32)
    rank[order] = np.arange(len(order), dtype=np.int32)
    for column in columns:
        codes = column.codes
        if isinstance(codes, range):
            yield column, rank[codes.start : codes.stop]
        else:
            yield column, rank[codes]


def _text(sample: Record, whole_prompt: bool) -> str:
    """The text of the question of a row, checked."""
    try:
        text = text_of(sample, whole_prompt)
    except RecursionError:
        raise too_deep(**sample.where()) from None
    if not text.isascii():
        check_text(text, "doc", **sample.where())
    return text


def _texts(batch: Batch) -> list[str] | None:
    """The texts of the questions of rows whose documents have all a question; else None."""
    documents = batch.column("doc", _OBJECT)
    if documents is None:
        return None
    try:
        texts = list(map(document_text, documents))
    except RecursionError:
        return None
    return texts if all(texts) and _can_be_written(texts) else None


def _can_be_written(texts: Sequence[str | None]) -> bool:
    """Whether texts hold no half of a character, which JSON can escape."""
    for text in texts:
        if text is not None and not text.isascii():
            try:
                text.encode()
            except UnicodeEncodeError:
                return False
    return True
