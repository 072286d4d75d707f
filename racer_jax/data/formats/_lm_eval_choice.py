"""Which metric and which filter of a task the labels are read by."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from racer_jax.data.errors import DataError
from racer_jax.data.formats._lm_eval_files import Log, filters_in_order
from racer_jax.data.formats._lm_eval_rows import Sample, read_samples
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

    def samples(self, log: Log) -> Iterator[tuple[Sample, Choice]]:
        """The samples of a log that the chosen filter made, each question once."""
        samples = list(read_samples(log))
        metric = self._metric_of(log, samples)
        samples = _named_filters(log, samples, metric)
        wanted = self._filter_of(log, list(dict.fromkeys(sample.filter for sample in samples)))
        seen: dict[int, int] = {}
        for sample in samples:
            if sample.filter != wanted:
                continue
            first = seen.setdefault(sample.query.doc_id, sample.row)
            if first != sample.row:
                raise DataError(
                    f"must be given once for each filter, got {sample.query.doc_id} in row "
                    f"{first} already",
                    field="doc_id",
                    **sample.where(log),
                )
            yield sample, Choice(metric, wanted)

    def _filter_of(self, log: Log, filters: list[str]) -> str:
        wanted = for_name(self._filter, log.task)
        if len(filters) == 1 and (wanted is None or not isinstance(self._filter, Mapping)):
            return filters[0]  # one filter for all tasks speaks of those that have a choice
        if wanted is not None and wanted in filters:
            return wanted
        rule = "one filter" if wanted is None else f"filter {wanted!r}"
        raise DataError(
            f"must hold {rule}, got {' and '.join(filters)}",
            path=log.path,
            field="filter",
            remedy=self._by_task("filter", self._filter, log.task, filters[0]),
        )

    def _metric_of(self, log: Log, samples: list[Sample]) -> str:
        """The metric to read: one number for each question."""
        first = samples[0].record
        names = _metric_names(first)
        single = [name for name in names if not isinstance(first.get(name), list | dict)]
        wanted = for_name(self._metric, log.task)
        if wanted is not None:
            if wanted in first and not isinstance(first[wanted], list | dict):
                return wanted
            problem = f"must be among the metrics of the log, {single}"
            if wanted in first:
                problem = "is a list in each row, and so cannot say right or wrong"
            raise self._no_metric(log, problem, single, field=wanted)
        if _BYPASS in names:
            raise DataError(
                "must be scored, but the metric 'bypass' means that lm_eval was run with "
                "--predict_only, which scores nothing; run it without",
                path=log.path,
                row=1,
                field="metrics",
            )
        preferred = [name for name in _PREFERRED if name in single]
        if preferred:
            return preferred[0]
        if len(single) == 1:
            return single[0]
        problem = f"must be one metric, got {single}"
        if not single:
            problem = f"must be one number for each question, got metrics that are lists: {names}"
        raise self._no_metric(log, problem, single, field="metrics")

    def _no_metric(self, log: Log, problem: str, single: list[str], field: str) -> DataError:
        if not single and "lists" not in problem:
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


def _metric_names(first: dict[str, Any]) -> list[str]:
    """The metrics a row says it has, else what may be one."""
    listed = first.get("metrics")
    names = [name for name in listed if isinstance(name, str)] if isinstance(listed, list) else []
    if names:
        return names
    return [n for n in first if n not in _PLAIN and isinstance(first[n], int | float)]


def _named_filters(log: Log, samples: list[Sample], metric: str) -> list[Sample]:
    """The samples with names for filters the log does not name: rows then repeat by filter."""
    if any(sample.filter for sample in samples):
        return samples
    passes: dict[int, int] = {}
    numbers = []
    for sample in samples:
        numbers.append(passes.get(sample.query.doc_id, 0))
        passes[sample.query.doc_id] = numbers[-1] + 1
    count = max(passes.values())
    names = filters_in_order(log, metric)
    if len(names) != count:
        names = ["none"] if count == 1 else [str(number) for number in range(1, count + 1)]
    return [
        sample._replace(filter=names[number])
        for sample, number in zip(samples, numbers, strict=True)
    ]
