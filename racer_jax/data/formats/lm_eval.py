"""The output of lm-evaluation-harness with `--log_samples`.

A folder for each model, a file of samples for each task:

`<out>/<model>/samples_<task>_<timestamp>.jsonl` beside `results_<timestamp>.json`, which alone
holds the name of the model. Up to version 0.4.2 a file of samples is one indented JSON list,
without hashes and without the names of filters. Models are joined by (task, doc_id, doc_hash),
never by order.
"""

import math
from array import array
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path

import jax
import numpy as np

from racer_jax.data.errors import DataError
from racer_jax.data.formats._cells import (
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
from racer_jax.data.formats._json import check_text, too_deep
from racer_jax.data.formats._lines import without_collector
from racer_jax.data.formats._lm_eval_answers import AnswerReader
from racer_jax.data.formats._lm_eval_choice import Choice, Chooser
from racer_jax.data.formats._lm_eval_files import Log, find_logs, reported
from racer_jax.data.formats._lm_eval_questions import Questions
from racer_jax.data.formats._lm_eval_rows import metric_value
from racer_jax.data.formats._lm_eval_text import text_of
from racer_jax.data.formats._records import Record
from racer_jax.data.labels import GIVEN, for_name
from racer_jax.data.remedies import Remedy
from racer_jax.data.table import RoutingTable


@without_collector()
def read_lm_eval(
    path: str | Path,
    *,
    tasks: str | list[str] | None = None,
    metric: str | Mapping[str, str] | None = None,
    filter: str | Mapping[str, str] | None = None,
    groups: Mapping[str, str] | None = None,
    label_rule: Rules | None = None,
    key: jax.Array | None = None,
    answers: bool = True,
    check_results: bool = True,
    num_fewshot: int | None = None,
    whole_prompt: bool = False,
    missing: Missing = "error",
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
      tasks: Patterns of the tasks to read, such as `mmlu_*`; all when None.
      metric: The metric that says right or wrong, or one by pattern of the task; when None `acc`,
        else `exact_match`, else the only metric there is.
      filter: The filter of tasks that have several, or one by pattern of the task (gsm8k:
        `strict-match` or `flexible-extract`). It has no default: the filters answer different
        questions.
      groups: Pattern of the task -> group, such as `{"mmlu_*": "mmlu"}`; a task is a group of its
        own when none fits.
      label_rule: When given, makes the labels from a graded metric, for all tasks or by pattern of
        the task; when None the metric must be 0 or 1.
      key: A typed PRNG key, for the rule `one attempt` alone.
      answers: Whether to read answers.
      check_results: Whether to compare the number of questions and the mean of the metric with what
        the harness reported in `results_<timestamp>.json`.
      num_fewshot: Which runs to read where models were run with several numbers of worked examples.
      whole_prompt: Whether the text of a query is the prompt as it was sent, worked examples
        included; when False it is the question, what it is about, and its choices.
      missing: What to do with pairs that have no row, or whose metric is NaN: `error`, `drop` their
        queries with a note, or `keep` them.

    Returns:
      The table, models in order of their names; a query's id is `<task>/<doc_id>`.

    Raises:
      DataError: If a file is not what it should be; it names file, row and field.
      ValueError: If an option is not one of those above.
    """
    check_missing(missing)
    check_rule(label_rule)
    path = Path(path)
    folder = find_logs(path, num_fewshot)
    logs = _of_tasks(path, folder.logs, tasks)
    models = {name: j for j, name in enumerate(dict.fromkeys(log.model for log in logs))}
    chooser = Chooser(metric, filter, [log.task for log in logs])
    choices: dict[str, Choice] = {}
    tasks_read = list(dict.fromkeys(log.task for log in logs))
    questions = Questions(tasks_read)
    texts: list[str] = []
    without_text: list[str] = []
    # One number for each result: Python objects would take ten times the memory.
    codes, all_values, starts = array("i"), array("d"), [0]
    answer_list: list[str | None] = []
    reasons: dict[str, str] = {}
    for log in logs:
        start, task = len(all_values), tasks_read.index(log.task)
        has_rule = for_name(label_rule, log.task) is not None
        reader: AnswerReader | None = None
        for sample, choice in chooser.samples(log):
            if choices.setdefault(log.task, choice) != choice:
                other = choices[log.task]
                raise DataError(
                    f"must be read by the metric and filter of the other models, {other}, got "
                    f"{choice}",
                    path=log.path,
                )
            value = metric_value(sample, choice.metric, has_rule)
            if answers and reader is None:
                reader = AnswerReader(log, choice.metric, has_rule)
            answer = None if reader is None else reader.answer(sample, value)
            code = _code(questions, task, sample)
            if code == len(texts):
                text = _text(sample, whole_prompt)
                texts.append(text)
                if not text or text.isspace():
                    without_text.append(f"{log.path.name}, row {sample.place[1]}")
            if answer is not None and not answer.isascii():
                check_text(answer, "filtered_resps", **sample.where())
            codes.append(code)
            all_values.append(value)
            answer_list.append(answer)
        if reader is not None and reader.unread is not None:
            reasons.setdefault(log.task, reader.unread)
        starts.append(len(all_values))
        if check_results:
            _check_results(log, choices[log.task], all_values[start:])
    order = questions.order()
    columns = np.repeat([models[log.model] for log in logs], np.diff(starts))
    shape = (len(order), len(models))
    place = grid(np.argsort(order)[np.frombuffer(codes, np.dtype("i"))], columns, shape, path)
    del codes, columns
    scores = place.fill(np.frombuffer(all_values), np.nan)
    del all_values
    of_task = [tasks_read[number] for number in questions.task_numbers(order).tolist()]
    labels = labels_by_rule(path, scores, of_task, label_rule, key)
    group_of = {task: for_name(groups, task) or task for task in tasks_read}
    rules = _rules(group_of, choices, labels.rule, path)
    in_order = [texts[code] for code in order.tolist()]
    del texts
    changed = dict.fromkeys(questions.changed(order))
    ids = _ids(questions, order, changed)
    matrix = object_matrix(place, answer_list) if answers and not reasons else None
    # What the table does not hold weighs as much as half of it: it goes before it is built.
    del questions, order, place, scores, answer_list
    table = built(
        path,
        ids=ids,
        texts=in_order,
        models=list(models),
        correct=labels.correct,
        group=[group_of[task] for task in of_task],
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
    return settle_missing(table, missing, path, because=folder.nameless)


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
            remedy=Remedy("pass such as {}", tasks=known[:1]),
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


def _text(sample: Record, whole_prompt: bool) -> str:
    """The text of the question of a row, checked."""
    try:
        text = text_of(sample, whole_prompt)
    except RecursionError:
        raise too_deep(**sample.where()) from None
    if not text.isascii():
        check_text(text, "doc", **sample.where())
    return text


def _code(questions: Questions, task: int, sample: Record) -> int:
    """The number of the question of a row."""
    try:
        return questions.code(task, sample.doc_id, sample.doc_hash)
    except OverflowError:
        raise DataError(
            "must be a whole number of at most 64 bits, got a larger one",
            field="doc_id",
            **sample.where(),
        ) from None


def _ids(
    questions: Questions, order: np.ndarray, changed: Mapping[tuple[str, int], None]
) -> list[str]:
    """`<task>/<doc_id>`, and a part of the hash where one number stands for several documents."""
    if changed:
        in_order = [questions[code] for code in order.tolist()]
        return [
            f"{question.task}/{question.doc_id}"
            + (f"#{question.doc_hash}" if (question.task, question.doc_id) in changed else "")
            for question in in_order
        ]
    names, tasks = questions.tasks, questions.task_numbers(order).tolist()
    pairs = zip(tasks, questions.doc_ids(order), strict=True)
    return [f"{names[task]}/{number}" for task, number in pairs]


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
