"""The output of lm-evaluation-harness with `--log_samples`.

A folder for each model, a file of samples for each task:

`<out>/<model>/samples_<task>_<timestamp>.jsonl` beside `results_<timestamp>.json`, which alone
holds the name of the model. Up to version 0.4.2 a file of samples is one indented JSON list,
without hashes and without the names of filters. Models are joined by (task, doc_id, doc_hash),
never by order.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from racer_jax.data.errors import DataError
from racer_jax.data.formats._cells import (
    Labels,
    Missing,
    Rules,
    built,
    check_full,
    check_missing,
    check_rule,
    labels_by_rule,
    settle_missing,
)
from racer_jax.data.formats._folders import unread
from racer_jax.data.formats._growing import give_back
from racer_jax.data.formats._lines import without_collector
from racer_jax.data.formats._lm_eval_answers import AnswerReader
from racer_jax.data.formats._lm_eval_choice import Choice, Chooser
from racer_jax.data.formats._lm_eval_files import find_logs, reported
from racer_jax.data.formats._lm_eval_questions import Questions
from racer_jax.data.formats._lm_eval_results import Results, answer_matrix, score_matrix
from racer_jax.data.formats._lm_eval_runs import Log
from racer_jax.data.labels import GIVEN, for_name
from racer_jax.data.remedies import Remedy
from racer_jax.data.table import RoutingTable

if TYPE_CHECKING:
    import jax


@dataclass(frozen=True, kw_only=True, eq=False)
class LmEvalOptions:
    """How logs of lm-evaluation-harness are read.

    Use this when several folders are to be read in the same way; for one folder `read_lm_eval`
    takes each of them as a keyword.

    Attributes:
      tasks: Patterns of the tasks to read, such as `mmlu_*`; all when None.
      metric: The metric that says right or wrong, or one by pattern of the task; when None `acc`,
        else `exact_match`, else the only metric there is.
      filter: The filter of tasks that have several, or one by pattern of the task (gsm8k:
        `strict-match` or `flexible-extract`). It has no default: the filters answer different
        questions.
      groups: Pattern of the task -> group, such as `{"mmlu_*": "mmlu"}`; a task is a group of its
        own when none fits.
      label_rule: When not None, makes the labels from a graded metric, for all tasks or by pattern
        of the task; when None the metric must be 0 or 1.
      key: A typed PRNG key, for the rule `one attempt` alone.
      answers: Whether to read answers.
      check_results: Whether to compare the number of questions and the mean of the metric with what
        the harness reported in `results_<timestamp>.json`.
      num_fewshot: Which runs to read where models were run with several numbers of worked examples.
      whole_prompt: Whether the text of a query is the prompt as it was sent, worked examples
        included; when False it is the question, what it is about, and its choices.
      missing: What to do with pairs that have no row, or whose metric is NaN: `error`, `drop` their
        queries with a note, or `keep` them.

    Raises:
      ValueError: If an option is not one of those above.
    """

    tasks: str | list[str] | None = None
    metric: str | Mapping[str, str] | None = None
    filter: str | Mapping[str, str] | None = None
    groups: Mapping[str, str] | None = None
    label_rule: Rules | None = None
    key: jax.Array | None = None
    answers: bool = True
    check_results: bool = True
    num_fewshot: int | None = None
    whole_prompt: bool = False
    missing: Missing = "error"

    def __post_init__(self) -> None:
        check_missing(self.missing)
        check_rule(self.label_rule)


@without_collector()
def read_lm_eval(
    path: str | Path, options: LmEvalOptions | None = None, **changes: Any
) -> RoutingTable:
    """Reads logs of lm-evaluation-harness.

    The answer to a multiple-choice question is the letter of the most likely choice (A for the
    first, whatever its label in the document); with the metric `acc_norm`, of the most likely per
    character. The answer to an open question is what the filter found, without what the metric
    ignores (`87.` is `87`); `[invalid]` is no answer.

    Use this when you evaluated your models with lm-evaluation-harness and the option
    `--log_samples`.

    Args:
      path: The output folder of several models, of one, or one file of samples.
      options: How to read them; the defaults when None.
      **changes: Options by name, such as `metric="acc_norm"`, in the place of those of `options`.

    Returns:
      The table, models in order of their names; a query's id is `<task>/<doc_id>`.

    Raises:
      DataError: If a file is not what it should be; it names file, row and field.
      TypeError: If there is no option of a name.
      ValueError: If the value of an option is not one of those it takes.
    """
    options = replace(options or LmEvalOptions(), **changes)
    label_rule = options.label_rule
    path = Path(path)
    folder = find_logs(path, options.num_fewshot)
    logs = _of_tasks(path, folder.logs, options.tasks)
    models = {name: j for j, name in enumerate(dict.fromkeys(log.model for log in logs))}
    chooser = Chooser(options.metric, options.filter, [log.task for log in logs])
    choices: dict[str, Choice] = {}
    tasks_read = list(dict.fromkeys(log.task for log in logs))
    results = Results(tasks_read, options.whole_prompt)
    reasons: dict[str, str] = {}
    for log in logs:
        task, has_rule = tasks_read.index(log.task), for_name(label_rule, log.task) is not None
        reader: AnswerReader | None = None
        for batch, choice in chooser.batches(log):
            if choices.setdefault(log.task, choice) != choice:
                other = choices[log.task]
                raise DataError(
                    f"must be read by the metric and filter of the other models, {other}, got "
                    f"{choice}",
                    path=log.path,
                )
            if options.answers and reader is None:
                reader = AnswerReader(log, choice.metric, has_rule)
            results.add(batch, task, choice.metric, has_rule, reader)
            del batch  # before the next one comes
        if reader is not None and reader.unread is not None:
            reasons.setdefault(log.task, reader.unread)
        if options.check_results:
            _check_results(log, choices[log.task], results.values)
        results.end_log(models[log.model])
    questions = results.questions
    order = questions.order()
    check_full(results.num_results, (len(order), len(models)), path)
    of_task = tuple(map(tasks_read.__getitem__, questions.task_numbers(order)))
    in_order = tuple(map(results.texts.__getitem__, order))
    results.texts.clear()
    changed = dict.fromkeys(questions.changed(order))
    if not changed:
        questions.forget_hashes()
    give_back()
    ids = _ids(questions, order, changed)
    scores = score_matrix(results.columns, order, len(models))
    labels = _labels(path, scores, of_task, options)
    group_of = {task: for_name(options.groups, task) or task for task in tasks_read}
    rules = _rules(group_of, choices, labels.rule, path)
    group = of_task
    if any(name != task for task, name in group_of.items()):
        group = tuple(map(group_of.__getitem__, of_task))
    without_text, columns = results.without_text, results.columns
    # What the table does not hold weighs as much as half of it: it goes before it is built.
    del results, questions, scores, of_task
    give_back()
    matrix = None
    if options.answers and not reasons:
        matrix = answer_matrix(columns, order, len(models))
    del columns, order
    table = built(
        path,
        ids=ids,
        texts=in_order,
        models=list(models),
        correct=labels.correct,
        group=group,
        graded=labels.graded,
        answers=matrix,
        label_rule=rules,
        missing=labels.missing,
        without_text=without_text,
        notes=[
            *folder.notes,
            *(f"answers of {task} were left out: {why}" for task, why in sorted(reasons.items())),
            *_changed(changed),
            *unread(path, {*folder.others, *(log.path for log in logs)}, deep=True),
        ],
    )
    return settle_missing(table, options.missing, path, because=folder.reasons)


def _of_tasks(path: Path, logs: list[Log], tasks: str | list[str] | None) -> list[Log]:
    """The logs of the tasks whose names fit."""
    if tasks is None:
        return logs
    patterns = [tasks] if isinstance(tasks, str) else list(tasks)
    matches = [log for log in logs if any(fnmatchcase(log.task, pattern) for pattern in patterns)]
    if not matches:
        known = sorted({log.task for log in logs})
        raise DataError(
            f"must hold a log of tasks {patterns}, got logs of {known}",
            path=path,
            remedy=Remedy("pass, for example: {}", tasks=known[:1]),
        )
    return matches


def _check_results(log: Log, choice: Choice, values: Sequence[float]) -> None:
    """Refuses a log that is not the one the harness reported on."""
    num_asked, mean = reported(log, choice.metric, choice.filter)
    remedy = Remedy("pass {} if the log was shortened on purpose", check_results=False)
    if num_asked is not None and num_asked != len(values):
        raise DataError(
            f"must hold the {num_asked} questions of the run, got {len(values)}",
            path=log.path,
            remedy=remedy,
        )
    if mean is None or any(map(math.isnan, values)):
        return  # the mean of what is not known is not known
    ours = math.fsum(values) / len(values)
    if not math.isclose(ours, mean, rel_tol=1e-9, abs_tol=1e-9):
        raise DataError(
            f"must have the mean {mean:.6g} that the harness reported, got {ours:.6g}",
            path=log.path,
            field=choice.metric,
            remedy=remedy,
        )


def _labels(
    path: Path, scores: np.ndarray, of_task: Sequence[str], options: LmEvalOptions
) -> Labels:
    """The labels of scores, which are int8 where all are 0 or 1."""
    if scores.dtype != np.int8:
        return labels_by_rule(path, scores, of_task, options.label_rule, options.key)
    if options.label_rule is None:
        return Labels(scores == 1, scores < 0, GIVEN)
    numbers = np.where(scores < 0, np.nan, scores)
    return labels_by_rule(path, numbers, of_task, options.label_rule, options.key)


def _ids(
    questions: Questions, order: np.ndarray, changed: Mapping[tuple[str, int], None]
) -> tuple[str, ...]:
    """`<task>/<doc_id>`, and a part of the hash where one number stands for several documents."""
    if changed:
        in_order = [questions[code] for code in order.tolist()]
        return tuple(
            f"{question.task}/{question.doc_id}"
            + (f"#{question.doc_hash}" if (question.task, question.doc_id) in changed else "")
            for question in in_order
        )
    return tuple(questions.ids(order))


def _changed(changed: Mapping[tuple[str, int], None]) -> list[str]:
    if not changed:
        return []
    task, doc_id = next(iter(changed))
    return [
        f"{len(changed)} questions are not the same document for all models, such as doc_id "
        f"{doc_id} of {task}"
    ]


def _rules(
    group_of: Mapping[str, str],
    choices: Mapping[str, Choice],
    rule: str | dict[str, str],
    path: Path,
) -> dict[str, str]:
    """The label rule of each group: the metric, and the filter where there is a choice."""
    rules: dict[str, str] = {}
    for task, group in group_of.items():
        choice = choices[task]
        score = choice.metric
        if choice.filter not in ("", "none"):
            score = f"{choice.metric}, {choice.filter}"
        of_task = rule if isinstance(rule, str) else rule[task]
        name = f"{score} = 1" if of_task == GIVEN else of_task.replace("score", score)
        if rules.setdefault(group, name) != name:
            raise DataError(
                f"group {group!r} must have one label rule, got {rules[group]!r} and {name!r}",
                path=path,
                remedy=Remedy("give its tasks groups of their own with {}", groups=...),
            )
    return rules
