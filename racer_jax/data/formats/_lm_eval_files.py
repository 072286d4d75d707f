"""Which files of an lm-evaluation-harness output folder to read, of which model and task."""

import re
from pathlib import Path
from typing import Any, NamedTuple

from racer_jax.data.errors import DataError
from racer_jax.data.formats._folders import bare_name, walked
from racer_jax.data.formats._json import parse
from racer_jax.data.formats._lm_eval_runs import (
    Log,
    newest_of,
    of_few_shots,
    other_settings,
    section,
)
from racer_jax.data.formats._text import read_text

# Systems that allow no colon in a name write something else in its place.
_STAMP = r"\d{4}-\d{2}-\d{2}T\d{2}[-:_]\d{2}[-:_]\d{2}(?:\.\d+)?"
_SAMPLES = re.compile(rf"samples_(?P<task>.+)_(?P<stamp>{_STAMP})\.jsonl?")
# `results_<stamp>.json`, or `<stem>_<stamp>.json` for `--output_path <stem>.json`.
_RESULTS = re.compile(rf"(?!samples_)(?P<stem>.+)_(?P<stamp>{_STAMP})\.json")
_MODEL_KEYS = ("peft", "delta", "pretrained", "model", "path", "engine")
_MODEL_ARGS = re.compile(rf"(?:^|,)(?:{'|'.join(_MODEL_KEYS)})=([^,]+)")
# Up to version 0.4.2 files are named after the arguments of the model, and the task.
_MODEL_OF_STEM = re.compile(rf"(?:{'|'.join(_MODEL_KEYS)})(?:=|__)([^,]+?)(?:,.*)?_$")
# What the harness replaces in the name of a model to name its folder.
_NOT_IN_FOLDERS = re.compile(r"[\"<>:/|\\?*\[\]]+")


class Found(NamedTuple):
    """The logs under a folder.

    Attributes:
      logs: The newest log of each model and task, by model and task.
      notes: On logs that are older, and models that are named by their folder.
      others: Files that were looked at and are no newest log: reports and older logs.
      reasons: Those of the notes that may be why pairs are missing.
    """

    logs: list[Log]
    notes: list[str]
    others: set[Path]
    reasons: list[str]


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
        files = walked(path, ".json", ".jsonl")
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
        if not log.results and (log.model == _folder_name(file) or not log.stamp):
            nameless.setdefault((folder, log.model), []).append(file.name)
    if not logs:
        raise DataError("must hold files samples_<task>_<timestamp>.jsonl, got none", path=path)
    notes = [
        f"the model of {', '.join(names)} is named by its "
        f"{'folder' if model == _folder_name(folder / names[0]) else 'file'}, {model!r}: no report "
        "of its run is there"
        for (folder, model), names in nameless.items()
    ]
    logs, more, left_out = of_few_shots(path, logs, num_fewshot)
    notes_on_settings = other_settings(logs)
    newest, older = newest_of(logs)
    others |= {log.path for several in logs.values() for log in several} - {
        log.path for log in newest
    }
    reasons = [*notes, *left_out, *older]
    return Found(newest, [*reasons, *more, *notes_on_settings], others, reasons)


class _Report(NamedTuple):
    path: Path
    content: dict[str, Any]


def _reports(folder: Path) -> dict[str, _Report]:
    """The reports of a folder by time stamp; under the empty one that of versions before 0.4.3."""
    reports: dict[str, _Report] = {}
    for file in walked(folder, ".json", deep=False):
        match = _RESULTS.fullmatch(bare_name(file))
        if match is None and bare_name(file) != "results.json":
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
        task = max(tasks, key=len)
        if (other := _model_of_stem(stem, task, report)) is not None:
            return _named_log(file, other, task, "", {})
        return _named_log(file, _model(report), task, "", report)
    if alone:
        return _named_log(file, None, stem.removeprefix("samples_"), "", {})
    return None


def _model_of_stem(stem: str, task: str, report: dict[str, Any]) -> str | None:
    """The model that a file is named after where it is not that of the report beside it."""
    named = _MODEL_OF_STEM.match(stem.removesuffix(task))
    if named is None:
        return None
    model, arguments = _model(report), section(report, "config").get("model_args")
    if model and named[1] in (_NOT_IN_FOLDERS.sub("__", model), model):
        return None
    if isinstance(arguments, str) and stem.startswith(
        (re.sub("[/=]", "__", arguments), arguments.replace("/", "__"))
    ):
        return None
    return named[1]


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
        return name.rstrip("/") or name
    arguments = section(report, "config").get("model_args")
    if isinstance(arguments, dict):
        names = [arguments.get(key) for key in _MODEL_KEYS]
        return next((name for name in names if isinstance(name, str) and name), None)
    match = _MODEL_ARGS.search(arguments) if isinstance(arguments, str) else None
    return match[1] if match else None


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
