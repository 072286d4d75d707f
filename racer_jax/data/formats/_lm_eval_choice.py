"""Which metric and which filter of a task the labels are read by."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from racer_jax.data.errors import DataError
from racer_jax.data.formats._batches import Batch, record_batches
from racer_jax.data.formats._lm_eval_files import filters_in_order
from racer_jax.data.formats._lm_eval_rows import checked_sample, read_samples
from racer_jax.data.formats._lm_eval_runs import Log
from racer_jax.data.formats._records import Record
from racer_jax.data.labels import for_name
from racer_jax.data.remedies import Remedy

# Keys of a row that are not metrics.
_PLAIN = {
    *("doc_id", "doc", "target", "arguments", "resps", "filtered_resps", "filter", "metrics"),
    *("doc_hash", "prompt_hash", "target_hash"),
}
# Of several metrics of a task, the one taken where the user names none.
_PREFERRED = ("acc", "exact_match")
# What `--predict_only` writes in the place of a metric.
_BYPASS = "bypass"
# A byte is kept for numbers up to so many beyond eight times those seen so far.
_MOST_BEYOND = 4096
_TEXT, _INTEGER = frozenset({str}), frozenset({int})
ByTask = str | Mapping[str, str]


class Choice(NamedTuple):
    """What the samples of one task are read by."""

    metric: str
    filter: str


class Chooser:
    """Chooses metric and filter of each log by what the user says and the log holds."""

    def __init__(
        self, metric: ByTask | None, filter_name: ByTask | None, tasks: Sequence[str]
    ) -> None:
        self._metric, self._filter = metric, filter_name
        self._several_tasks = len(set(tasks)) > 1

    def batches(self, log: Log) -> Iterator[tuple[Batch, Choice]]:
        """The samples of a log that the chosen filter made, each question once."""
        first = next(read_samples(log))  # what is wrong with the first row is said at once
        metric = self._metric_of(log, first)
        name_asked = for_name(self._filter, log.task)
        survey = None
        if not first.filter or name_asked not in (None, first.filter):
            # Which filter is meant depends on all there are: a pass of its own over the log.
            survey = _survey(log)
        names = [first.filter] if survey is None else _filter_names(log, survey, metric)
        choice = Choice(metric, self._filter_of(log, names))
        turns = _Turns(names) if survey is not None and not survey.named else None
        seen = _Seen()
        for batch in record_batches(log.path):
            if turns is None and _fits(batch, choice.filter, seen):
                yield batch, choice
                del batch  # before the next block comes
                continue
            records = map(checked_sample, batch.records)
            yield Batch(self._chosen(log, records, choice, turns, survey, seen)), choice

    def _chosen(
        self,
        log: Log,
        records: Iterator[Record],
        choice: Choice,
        turns: "_Turns | None",
        survey: "_Survey | None",
        seen: "_Seen",
    ) -> Iterator[Record]:
        """Those of some rows that the chosen filter made."""
        for sample in records:
            doc_id = sample.doc_id
            name = sample.filter if turns is None else turns.filter_of(doc_id)
            if name != choice.filter:
                if survey is None and for_name(self._filter, log.task) is None:
                    self._filter_of(log, _survey(log).filters)  # names all there are
                continue
            if seen.again(doc_id):
                row = next(other.place[1] for other in read_samples(log) if other.doc_id == doc_id)
                raise DataError(
                    f"must be given once for each filter, got {doc_id} in row {row} already",
                    field="doc_id",
                    **sample.where(),
                )
            yield sample

    def _filter_of(self, log: Log, filters: list[str]) -> str:
        name_asked = for_name(self._filter, log.task)
        if len(filters) == 1 and (name_asked is None or not isinstance(self._filter, Mapping)):
            return filters[0]  # one filter for all tasks speaks of those that have a choice
        if name_asked is not None and name_asked in filters:
            return name_asked
        rule = "one filter" if name_asked is None else f"filter {name_asked!r}"
        raise DataError(
            f"must hold {rule}, got {' and '.join(filters)}",
            path=log.path,
            field="filter",
            remedy=self._by_task("filter", self._filter, log.task, filters[0]),
        )

    def _metric_of(self, log: Log, first: Record) -> str:
        """The metric to read: one number for each question."""
        names = _metric_names(first)
        single = [name for name in names if not isinstance(first[name], list | dict)]
        name_asked = for_name(self._metric, log.task)
        if _BYPASS in names and (name_asked in (None, _BYPASS) or name_asked not in first):
            raise DataError(
                "must be scored, but the metric 'bypass' means that lm_eval was run with "
                "--predict_only, which scores nothing; run it without",
                path=log.path,
                row=1,
                field="metrics",
            )
        if name_asked is not None:
            if name_asked in first and not isinstance(first[name_asked], list | dict):
                return name_asked
            problem = f"must be among the metrics of the log, {single}"
            if name_asked in first:
                problem = "is a list in each row, and so cannot say right or wrong"
            raise self._no_metric(log, problem, names, single, field=name_asked)
        preferred = [name for name in _PREFERRED if name in single]
        if preferred:
            return preferred[0]
        if len(single) == 1:
            return single[0]
        problem = f"must be one metric, got {single}"
        if not names:
            problem = "must name a metric, got none: the run scored nothing"
        elif not single:
            problem = f"must be one number for each question, got metrics that are lists: {names}"
        raise self._no_metric(log, problem, names, single, field="metrics")

    def _no_metric(
        self, log: Log, problem: str, names: list[str], single: list[str], field: str
    ) -> DataError:
        if names and not single and "lists" not in problem:
            problem += "; no other metric of the log is one number for each question"
        remedy = None
        if single:
            preferred = [name for name in _PREFERRED if name in single] or single
            remedy = self._by_task("metric", self._metric, log.task, preferred[0])
        return DataError(problem, path=log.path, row=1, field=field, remedy=remedy)

    def _by_task(self, keyword: str, option: ByTask | None, task: str, value: str) -> Remedy:
        """What to pass so that this task is read and what was said of others still holds."""
        if not self._several_tasks:
            return Remedy("pass {}", (keyword, value))
        others: dict[str, Any] = dict(option) if isinstance(option, Mapping) else {}
        if isinstance(option, str):
            others = {"*": option}
        return Remedy("pass {}", (keyword, {**others, task: value}))


def _fits(batch: Batch, filter_name: str, seen: "_Seen") -> bool:
    """Whether rows are what they must be, all of the filter, and all of questions not yet seen."""
    names = batch.column("filter", _TEXT)
    if batch.column("doc_hash", _TEXT) is None or names is None or set(names) != {filter_name}:
        return False
    # Decoded whether or not they are asked for: what is wrong with them is said.
    if any(name in batch and batch.column(name) is None for name in ("filtered_resps", "target")):
        return False
    numbers = batch.column("doc_id", _INTEGER)
    return numbers is not None and seen.adds(numbers)


class _Turns:
    """The filters of rows that name none: those of a question stand in the order of the filters.

    Args:
      names: The filters in their order.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self._names, self._passes = names, dict[int, int]()

    def filter_of(self, doc_id: int) -> str:
        """The filter of the next row of a question."""
        turn = self._passes.get(doc_id, 0)
        self._passes[doc_id] = turn + 1
        return self._names[turn]


class _Seen:
    """Which numbers were seen: a byte for each where they are close together."""

    def __init__(self) -> None:
        self._flags, self._others, self._count = bytearray(), set[int](), 0

    def adds(self, numbers: Sequence[int]) -> bool:
        """Notes numbers that follow one another if none was seen before; else says no."""
        start, end = numbers[0], numbers[-1] + 1
        if not start >= 0 or self._others or end > _MOST_BEYOND + 8 * self._count:
            return False
        if end - start != len(numbers) or numbers != list(range(start, end)):
            return False
        self._grow(end)
        if any(self._flags[start:end]):
            return False
        self._flags[start:end] = b"\x01" * len(numbers)
        self._count += len(numbers)
        return True

    def again(self, number: int) -> bool:
        """Whether a number was seen before; it is now."""
        self._count += 1
        if not 0 <= number < _MOST_BEYOND + 8 * self._count:
            known = number in self._others
            self._others.add(number)
            return known
        self._grow(number + 1)
        known = bool(self._flags[number]) or number in self._others
        self._flags[number] = 1
        return known

    def _grow(self, size: int) -> None:
        if size > len(self._flags):
            self._flags.extend(bytes(max(size - len(self._flags), len(self._flags))))


def _metric_names(first: Record) -> list[str]:
    """The metrics a row says it has, else what may be one."""
    listed = first["metrics"]
    names = [name for name in listed if isinstance(name, str)] if isinstance(listed, list) else []
    if names:
        return names
    return [n for n in first if n not in _PLAIN and isinstance(first[n], int | float)]


class _Survey(NamedTuple):
    """What a pass over all of a log finds.

    Attributes:
      filters: The filters that rows name, in order.
      named: Whether any row names one.
      passes: How often a question stands in the log at most.
    """

    filters: list[str]
    named: bool
    passes: int


def _survey(log: Log) -> _Survey:
    """A pass over a log, so that its rows need not be held until all filters are known."""
    filters: dict[str, None] = {}
    counts: dict[int, int] = {}
    for sample in read_samples(log):
        filters.setdefault(sample.filter)
        counts[sample.doc_id] = counts.get(sample.doc_id, 0) + 1
    return _Survey(list(filters), any(filters), max(counts.values()))


def _filter_names(log: Log, survey: _Survey, metric: str) -> list[str]:
    """The filters of a log; where it names none, rows repeat by filter, and get names by turn."""
    if survey.named:
        return survey.filters
    names = filters_in_order(log, metric)
    if len(names) == survey.passes:
        return names
    if survey.passes == 1:
        return ["none"]
    return [str(number) for number in range(1, survey.passes + 1)]
