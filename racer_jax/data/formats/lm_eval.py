"""The output of lm-evaluation-harness with `--log_samples`: a folder for each model, a file of samples for each task.

`<out>/<model>/samples_<task>_<timestamp>.jsonl` beside `results_<timestamp>.json`, which alone
holds the name of the model. Up to version 0.4.2 a file of samples is one indented JSON list,
without hashes and without the names of filters. Models are joined by (task, doc_id, doc_hash),
never by order.
"""

import math
from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from racer_jax.data.errors import DataError
from racer_jax.data.formats._cells import (
    Missing,
    built,
    check_missing,
    grid,
    object_matrix,
    settle_missing,
)
from racer_jax.data.formats._json import check_text
from racer_jax.data.formats._lm_eval_files import Log, filters_in_order, find_logs, reported
from racer_jax.data.formats._lm_eval_rows import (
    Query,
    Sample,
    answer_of,
    metric_value,
    read_samples,
    text_of,
)
from racer_jax.data.labels import LabelRule
from racer_jax.data.table import RoutingTable

# Keys of a row that are not metrics.
_PLAIN = {
    *("doc_id", "doc", "target", "arguments", "resps", "filtered_resps", "filter", "metrics"),
    *("doc_hash", "prompt_hash", "target_hash"),
}
# Of several metrics of a task, the one taken where the user names none.
_PREFERRED = ("acc", "exact_match")


class _Choice(NamedTuple):
    """What the samples of one task are read by."""

    metric: str
    filter: str


def read_lm_eval(
    path: str | Path,
    *,
    tasks: str | list[str] | None = None,
    metric: str | Mapping[str, str] | None = None,
    filter: str | Mapping[str, str] | None = None,
    groups: Mapping[str, str] | None = None,
    label_rule: str | None = None,
    key: jax.Array | None = None,
    answers: bool = True,
    check_results: bool = True,
    missing: Missing = "error",
) -> RoutingTable:
    """Reads logs of lm-evaluation-harness.

    The answer to a multiple-choice question is the letter of the most likely choice (A for the
    first, whatever its label in the document); with the metric `acc_norm`, of the most likely per
    character. The answer to an open question is what the filter found, without what the metric
    ignores (`87.` is `87`); `[invalid]` is no answer.

    Args:
      path: The output folder of several models, of one, or one file of samples.
      tasks: Patterns of the tasks to read, such as `mmlu_*`; all when None.
      metric: The metric that says right or wrong, or one by pattern of the task; when None `acc`,
        else `exact_match`, else the only metric there is.
      filter: The filter of tasks that have several, or one by pattern of the task (gsm8k:
        `strict-match` or `flexible-extract`). It has no default: the filters answer different
        questions.
      groups: Pattern of the task -> group, such as `{"mmlu_*": "mmlu"}`; a task is a group of its
        own when none fits.
      label_rule: When given, makes the labels from a graded metric; when None the metric must be 0
        or 1.
      key: A typed PRNG key, for the rule `one attempt` alone.
      answers: Whether to read answers.
      check_results: Whether to compare the number of questions and the mean of the metric with what
        the harness reported in `results_<timestamp>.json`.
      missing: What to do with pairs that have no row: `error`, `drop` their queries with a note, or
        `keep` them.

    Returns:
      The table, models in order of their names; a query's id is `<task>/<doc_id>`.

    Raises:
      DataError: If a file is not what it should be; it names file, row and field.
      ValueError: If an option is not one of those above.
    """
    check_missing(missing)
    path = Path(path)
    rule = None if label_rule is None else LabelRule.parse(label_rule)
    logs, notes = find_logs(path)
    if tasks is not None:
        patterns = [tasks] if isinstance(tasks, str) else list(tasks)
        found = sorted({log.task for log in logs})
        logs = [log for log in logs if any(fnmatchcase(log.task, pattern) for pattern in patterns)]
        if not logs:
            raise DataError(f"must hold a log of tasks {patterns}, got logs of {found}", path=path)
    models = list(dict.fromkeys(log.model for log in logs))
    choices: dict[str, _Choice] = {}
    texts: dict[Query, str] = {}
    results: list[tuple[Query, int, float]] = []
    given: list[str | None] = []
    unread: set[str] = set()
    for log in logs:
        values: list[float] = []
        for sample, choice in _chosen(log, metric, filter):
            if choices.setdefault(log.task, choice) != choice:
                other = choices[log.task]
                problem = f"must be read by the metric and filter of the other models, {other}, got {choice}"
                raise DataError(problem, path=log.path)
            value = metric_value(log, sample, choice.metric, graded=rule is not None)
            answer, read = (
                answer_of(log, sample, choice.metric, value) if answers else (None, False)
            )
            if answers and not read:
                unread.add(log.task)
            where: dict[str, Any] = {
                "path": log.path,
                "row": sample.row,
                "line": sample.line or None,
            }
            if sample.query not in texts:
                check_text(text := text_of(sample.record), "doc", **where)
                texts[sample.query] = text
            if answer is not None:
                check_text(answer, "filtered_resps", **where)
            results.append((sample.query, models.index(log.model), value))
            given.append(answer)
            values.append(value)
        if check_results:
            _check_results(log, choices[log.task], values)
    order = sorted(texts, key=lambda query: (query.task, query.doc_id, query.doc_hash))
    numbers = {query: number for number, query in enumerate(order)}
    rows = np.array([numbers[query] for query, _, _ in results])
    columns = np.array([model for _, model, _ in results])
    place = grid(rows, columns, (len(order), len(models)), path)
    scores = place.fill(np.array([value for _, _, value in results]), np.nan)
    absent = np.isnan(scores)
    correct = (
        scores == 1 if rule is None else rule.apply(np.where(absent, 0.0, scores), key) & ~absent
    )
    if unread:
        notes.append(
            f"answers were left out: those of {', '.join(sorted(unread))} could not be read"
        )
    names = [_group(query.task, groups) for query in order]
    table = built(
        path,
        ids=_ids(order),
        texts=[texts[query] for query in order],
        models=models,
        correct=correct,
        group=names,
        graded=None if rule is None else scores,
        answers=object_matrix(place, given) if answers and not unread else None,
        label_rule=_rules(order, names, choices, rule, path),
        missing=absent,
        notes=[*notes, *_changed(order)],
    )
    return settle_missing(table, missing, path)


def _chosen(
    log: Log, metric: str | Mapping[str, str] | None, filter_name: str | Mapping[str, str] | None
) -> Iterator[tuple[Sample, _Choice]]:
    """The samples of a log that the chosen filter made, each question once, and how they are read."""
    samples = list(read_samples(log))
    chosen_metric = _metric(log, samples, _for_task(metric, log.task))
    samples = _named_filters(log, samples, chosen_metric)
    filters = list(dict.fromkeys(sample.filter for sample in samples))
    wanted = _for_task(filter_name, log.task)
    if len(filters) == 1 and (wanted is None or not isinstance(filter_name, Mapping)):
        wanted = filters[0]  # one filter for all tasks speaks of those that have a choice
    elif wanted is None:
        problem = f"must be one filter, got {' and '.join(filters)}; pass filter=, such as filter={filters[0]!r}"
        raise DataError(problem, path=log.path, field="filter")
    elif wanted not in filters:
        raise DataError(
            f"must hold filter {wanted!r}, got {' and '.join(filters)}",
            path=log.path,
            field="filter",
        )
    seen: dict[int, int] = {}
    for sample in samples:
        if sample.filter != wanted:
            continue
        if (first := seen.setdefault(sample.query.doc_id, sample.row)) != sample.row:
            problem = f"must be given once for each filter, got {sample.query.doc_id} in row {first} already"
            raise DataError(
                problem, path=log.path, row=sample.row, line=sample.line or None, field="doc_id"
            )
        yield sample, _Choice(chosen_metric, wanted)


def _named_filters(log: Log, samples: list[Sample], metric: str) -> list[Sample]:
    """The samples with names for filters that the log does not name: rows then repeat filter by filter."""
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


def _for_task(option: str | Mapping[str, str] | None, task: str) -> str | None:
    """An option's value for a task: the same for all, or that of the first pattern that fits."""
    if isinstance(option, Mapping):
        return next(
            (value for pattern, value in option.items() if fnmatchcase(task, pattern)), None
        )
    return option


def _group(task: str, groups: Mapping[str, str] | None) -> str:
    return _for_task(groups, task) or task


def _metric(log: Log, samples: list[Sample], wanted: str | None) -> str:
    """The metric to read."""
    first = samples[0].record
    listed = first.get("metrics")
    names = [name for name in listed if isinstance(name, str)] if isinstance(listed, list) else []
    names = names or [
        name for name in first if name not in _PLAIN and isinstance(first[name], int | float)
    ]
    if wanted is not None:
        return wanted  # a row without it says so
    preferred = [name for name in _PREFERRED if name in names]
    if preferred:
        return preferred[0]
    if len(names) != 1:
        problem = f"must be one metric, got {names}; pass metric="
        raise DataError(problem, path=log.path, row=1, field="metrics")
    return names[0]


def _check_results(log: Log, choice: _Choice, values: list[float]) -> None:
    """Refuses a log that is not the one the harness reported on."""
    asked, found = reported(log, choice.metric, choice.filter)
    hint = "pass check_results=False if the log was shortened on purpose"
    if asked is not None and asked != len(values):
        raise DataError(
            f"must hold the {asked} questions of the run, got {len(values)}; {hint}", path=log.path
        )
    mean = math.fsum(values) / len(values)
    if found is not None and not math.isclose(mean, found, rel_tol=1e-9, abs_tol=1e-9):
        problem = (
            f"must have the mean {found:.6g} that the harness reported, got {mean:.6g}; {hint}"
        )
        raise DataError(problem, path=log.path, field=choice.metric)


def _ids(order: list[Query]) -> list[str]:
    """`<task>/<doc_id>`, and a part of the hash where one number stands for several documents."""
    changed = _several(order)
    return [
        f"{query.task}/{query.doc_id}"
        + (f"#{query.doc_hash}" if (query.task, query.doc_id) in changed else "")
        for query in order
    ]


def _several(order: list[Query]) -> set[tuple[str, int]]:
    """The (task, doc_id) that name more than one document."""
    pairs = [(query.task, query.doc_id) for query in order]
    return {pair for pair, following in pairwise(pairs) if pair == following}


def _changed(order: list[Query]) -> list[str]:
    changed = sorted(_several(order))
    if not changed:
        return []
    task, doc_id = changed[0]
    return [
        f"{len(changed)} questions are not the same document for all models, such as doc_id "
        f"{doc_id} of {task}"
    ]


def _rules(
    order: list[Query],
    groups: list[str],
    choices: dict[str, _Choice],
    rule: LabelRule | None,
    path: Path,
) -> dict[str, str]:
    """The label rule of each group: the metric, and the filter where there is a choice."""
    rules: dict[str, str] = {}
    for query, group in zip(order, groups, strict=True):
        choice = choices[query.task]
        name = (
            choice.metric if choice.filter in ("", "none") else f"{choice.metric}, {choice.filter}"
        )
        name = f"{name} = 1" if rule is None else rule.name.replace("score", name)
        if rules.setdefault(group, name) != name:
            raise DataError(
                f"group {group!r} must have one label rule, got {rules[group]!r} and {name!r}",
                path=path,
            )
    return rules
