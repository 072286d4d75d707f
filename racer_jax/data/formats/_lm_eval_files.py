"""Which files of an lm-evaluation-harness output folder to read, of which model and task."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from racer_jax.data.errors import DataError
from racer_jax.data.formats._folders import bare_name
from racer_jax.data.formats._json import parse
from racer_jax.data.formats._text import read_text
from racer_jax.data.remedies import Remedy

_STAMP = r"\d{4}-\d{2}-\d{2}T\d{2}[-:]\d{2}[-:]\d{2}(?:\.\d+)?"
_SAMPLES = re.compile(rf"samples_(?P<task>.+)_(?P<stamp>{_STAMP})\.jsonl?")
# `results_<stamp>.json`, or `<stem>_<stamp>.json` for `--output_path <stem>.json`.
_RESULTS = re.compile(rf"(?!samples_)(?P<stem>.+)_(?P<stamp>{_STAMP})\.json")
_MODEL_KEYS = ("peft", "delta", "pretrained", "model", "path", "engine")
_MODEL_ARGS = re.compile(rf"(?:^|,)(?:{'|'.join(_MODEL_KEYS)})=([^,]+)")
# What the harness replaces in the name of a model to name its folder.
_NOT_IN_FOLDERS = re.compile(r"[\"<>:/|\\?*\[\]]+")


class Log(NamedTuple):
    """The samples of one model on one task.

    Attributes:
      path: The file.
      model: Name of the model.
      task: Name of the task.
      stamp: When the run was, as in the file's name; empty before version 0.4.3.
      results: What the harness reported of the run, empty where its file is gone.
      num_fewshot: How many worked examples its prompts held, None where it is not stated.
    """

    path: Path
    model: str
    task: str
    stamp: str
    results: dict[str, Any]
    num_fewshot: int | None = None


class Found(NamedTuple):
    """The logs under a folder.

    Attributes:
      logs: The newest log of each model and task, by model and task.
      notes: On logs that are older, and models that are named by their folder.
      others: Files that were looked at and are no newest log: reports and older logs.
      nameless: Those of the notes about models named by their folder.
    """

    logs: list[Log]
    notes: list[str]
    others: set[Path]
    nameless: list[str]


def find_logs(path: Path, num_fewshot: int | None = None) -> Found:
    """The newest log of each model and task under a folder, and notes on the others.

    Args:
      path: The output folder of several models, of one, or one file.
      num_fewshot: Which runs to take where a task was run with several numbers of examples.

    Returns:
      The logs, the notes, and the files that are reports or older logs.

    Raises:
      DataError: If there is no log, two are equally new, or a model was run with several numbers of
        examples and the caller does not say which is meant.
    """
    files = [path]
    if path.is_dir():
        files = sorted(file for file in path.rglob("*") if _is_json(file))
    reports: dict[Path, dict[str, _Report]] = {}
    logs: dict[tuple[str, str], list[Log]] = {}
    nameless: dict[tuple[Path, str], list[str]] = {}
    others: set[Path] = set()
    for file in files:
        folder = file.parent
        if folder not in reports:
            reports[folder] = _reports(folder)
            others |= {report.path for report in reports[folder].values()}
        if file in others:
            continue
        log = _log(file, reports[folder], alone=file == path)
        if log is None:
            continue
        logs.setdefault((log.model, log.task), []).append(log)
        if not log.results and log.model == _folder_name(file):
            nameless.setdefault((folder, log.model), []).append(file.name)
    if not logs:
        raise DataError("must hold files samples_<task>_<timestamp>.jsonl, got none", path=path)
    notes = [
        f"the model of {', '.join(names)} is named by its folder, {model!r}: no report of its run "
        "is there"
        for (_, model), names in nameless.items()
    ]
    logs, more = _of_few_shots(path, logs, num_fewshot)
    newest, older = _newest(logs)
    others |= {log.path for several in logs.values() for log in several} - {
        log.path for log in newest
    }
    return Found(newest, [*notes, *more, *older], others, notes)


def _is_json(file: Path) -> bool:
    return bare_name(file).endswith((".json", ".jsonl")) and file.is_file()


def _newest(logs: dict[tuple[str, str], list[Log]]) -> tuple[list[Log], list[str]]:
    """The newest log of each model and task, and a note on each that is older."""
    newest, notes = [], []
    for pair in sorted(logs):
        several = sorted(logs[pair], key=lambda log: log.stamp)
        last = several[-1]
        for log in several[:-1]:
            if log.stamp == last.stamp:
                raise DataError(
                    f"must be the only newest log of {log.model!r} on {log.task!r}, got "
                    f"{last.path} as well",
                    path=log.path,
                )
            if not (log.results or last.results or "__" in log.path.absolute().parent.name):
                raise DataError(
                    f"must be of a known model, got two runs on {log.task!r} in one folder without "
                    f"a report, {log.path.name} and {last.path.name}: put the runs of each model "
                    f"into a folder of its own, or name one file",
                    path=log.path.parent,
                )
            notes.append(f"ignored {log.path.name} of {log.model}, older than {last.path.name}")
        newest.append(last)
    return newest, notes


def _of_few_shots(
    path: Path, logs: dict[tuple[str, str], list[Log]], num_fewshot: int | None
) -> tuple[dict[tuple[str, str], list[Log]], list[str]]:
    """The logs with the wanted number of worked examples, where a task has several."""
    shots: dict[str, set[int]] = {}
    for (_, task), several in logs.items():
        shot_numbers = {log.num_fewshot for log in several if log.num_fewshot is not None}
        shots.setdefault(task, set()).update(shot_numbers)
    notes: list[str] = []
    matches: dict[tuple[str, str], list[Log]] = {}
    for (model, task), several in logs.items():
        numbers = sorted({log.num_fewshot for log in several if log.num_fewshot is not None})
        if num_fewshot is None and len(numbers) > 1:
            raise DataError(
                f"must hold one run of {model!r} on {task!r}, got runs with "
                f"{_counted(numbers)} worked examples",
                path=path,
                remedy=Remedy("pass {} for one of them", num_fewshot=numbers[0]),
            )
        if num_fewshot is not None and len(shots[task]) > 1:
            several = [log for log in several if log.num_fewshot == num_fewshot]
        if several:
            matches[model, task] = several
    if not matches:
        every = sorted(set().union(*shots.values()))
        raise DataError(
            f"must hold runs with {num_fewshot} worked examples, got {_counted(every)}", path=path
        )
    for task, several_shots in shots.items():
        if num_fewshot is None and len(several_shots) > 1:
            counts = _counted(sorted(several_shots))
            notes.append(f"the models were run on {task} with {counts} worked examples")
    return matches, notes


def _counted(numbers: Sequence[int]) -> str:
    return " and ".join(map(str, numbers))


class _Report(NamedTuple):
    path: Path
    content: dict[str, Any]


def _reports(folder: Path) -> dict[str, _Report]:
    """The reports of a folder by time stamp; under the empty one that of versions before 0.4.3."""
    reports: dict[str, _Report] = {}
    for file in sorted(folder.glob("*.json")):
        match = _RESULTS.fullmatch(file.name)
        if match is None and file.name != "results.json":
            continue
        content = parse(read_text(file), file)
        is_report = match is None or match["stem"] == "results"
        if not isinstance(content, dict):
            if not is_report:
                continue
            raise DataError(f"must be a JSON object, got {type(content).__name__}", path=file)
        if not (is_report or isinstance(content.get("results"), dict)):
            continue
        stamp = match["stamp"] if match else ""
        other = reports.setdefault(stamp, _Report(file, content))
        if other.path != file and _model(other.content) != _model(content):
            raise DataError(
                f"must be the only report of its time stamp, got {other.path.name} as well, of "
                "another model; put the runs into folders of their own",
                path=file,
            )
    return reports


def _folder_name(file: Path) -> str:
    """The name of the folder a file is in, wherever the path to it begins."""
    return file.absolute().parent.resolve().name or "model"


def _log(file: Path, reports: dict[str, _Report], alone: bool) -> Log | None:
    """What a file is the log of; None for a file that is none."""
    name = bare_name(file)
    match = _SAMPLES.fullmatch(name)
    stamp = match["stamp"] if match else ""
    report = reports[stamp].content if stamp in reports else {}
    if match:
        # A run without a report is of the model its folder was made for, or of an unknown one.
        model = _model(report) if report else _model_of_folder(file, reports)
        return _named_log(file, model, match["task"], stamp, report)
    stem = Path(name).stem
    tasks = [task for task in section(report, "results") if f"_{stem}".endswith(f"_{task}")]
    if tasks:
        return _named_log(file, _model(report), max(tasks, key=len), "", report)
    if alone:
        return _named_log(file, _model(report), stem.removeprefix("samples_"), "", {})
    return None


def _named_log(file: Path, model: str | None, task: str, stamp: str, report: dict[str, Any]) -> Log:
    return Log(file, model or _folder_name(file), task, stamp, report, _num_fewshot(report, task))


def _model_of_folder(file: Path, reports: dict[str, _Report]) -> str | None:
    """The model whose name, as the harness writes it in paths, is that of the folder."""
    folder = _folder_name(file)
    for report in reports.values():
        name = _model(report.content)
        if name and folder in (_NOT_IN_FOLDERS.sub("__", name), name):
            return name
    return None


def _num_fewshot(report: dict[str, Any], task: str) -> int | None:
    """How many worked examples a task was run with, None where the report does not say."""
    config = section(section(report, "configs"), task)
    for number in (section(report, "n-shot").get(task), config.get("num_fewshot")):
        if isinstance(number, int) and not isinstance(number, bool):
            return number
    return None


def _model(report: dict[str, Any]) -> str | None:
    """The name of the model in a report, None where it is not there."""
    name = report.get("model_name")
    if isinstance(name, str) and name:
        return name
    arguments = section(report, "config").get("model_args")
    if isinstance(arguments, dict):
        names = [arguments.get(key) for key in _MODEL_KEYS]
        return next((name for name in names if isinstance(name, str) and name), None)
    match = _MODEL_ARGS.search(arguments) if isinstance(arguments, str) else None
    return match[1] if match else None


def section(report: dict[str, Any], name: str) -> dict[str, Any]:
    """A part of a report that is an object; empty where it is not there."""
    part = report.get(name)
    return part if isinstance(part, dict) else {}


def reported(log: Log, metric: str, filter_name: str) -> tuple[int | None, float | None]:
    """How many questions the harness says it asked, and its metric; None where it does not say."""
    num_queries = section(section(log.results, "n-samples"), log.task).get("effective")
    value = section(section(log.results, "results"), log.task).get(f"{metric},{filter_name}")
    count = (
        num_queries if isinstance(num_queries, int) and not isinstance(num_queries, bool) else None
    )
    return count, value if isinstance(value, float) else None


def filters_in_order(log: Log, metric: str) -> list[str]:
    """The filters of a task in the order of its rows, as the report names them."""
    names = section(section(log.results, "results"), log.task)
    return [name.removeprefix(f"{metric},") for name in names if name.startswith(f"{metric},")]


def delimiter(log: Log) -> str:
    """What stands before each choice in the prompt of a task."""
    value = section(section(log.results, "configs"), log.task).get("target_delimiter", " ")
    return value if isinstance(value, str) else " "
