"""Which files of an lm-evaluation-harness output folder to read, of which model and task."""

import re
import string
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from racer_jax.data.errors import DataError
from racer_jax.data.formats._json import parse
from racer_jax.data.formats._text import read_text

_STAMP = r"\d{4}-\d{2}-\d{2}T\d{2}[-:]\d{2}[-:]\d{2}(?:\.\d+)?"
_SAMPLES = re.compile(rf"samples_(?P<task>.+)_(?P<stamp>{_STAMP})\.jsonl?")
_RESULTS = re.compile(rf"results_(?P<stamp>{_STAMP})\.json")
_NUMBER = re.compile(r"-?\$?\d[\d,]*(?:\.\d+)?\.?")
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)
_MODEL_ARGS = re.compile(r"(?:^|,)(?:peft|delta|pretrained|model|path|engine)=([^,]+)")


class Log(NamedTuple):
    """The samples of one model on one task.

    Attributes:
      path: The file.
      model: Name of the model.
      task: Name of the task.
      stamp: When the run was, as in the file's name; empty before version 0.4.3.
      results: What the harness reported of the run, empty where its file is gone.
    """

    path: Path
    model: str
    task: str
    stamp: str
    results: dict[str, Any]


def find_logs(path: Path) -> tuple[list[Log], list[str]]:
    """The newest log of each model and task under a folder, and notes on the older ones.

    Args:
      path: The output folder of several models, of one, or one file.

    Returns:
      The logs, by model and task, and the notes.

    Raises:
      DataError: If there is none, or two are equally new.
    """
    if path.is_dir():
        files = sorted(file for kind in ("*.jsonl", "*.json") for file in path.rglob(kind))
    elif path.exists():
        files = [path]
    else:
        raise DataError("cannot be read: no such file or folder", path=path)
    reports: dict[Path, dict[str, dict[str, Any]]] = {}
    logs: dict[tuple[str, str], Log] = {}
    notes: list[str] = []
    for file in files:
        if file.name == "results.json" or _RESULTS.fullmatch(file.name):
            continue
        folder = file.parent
        if folder not in reports:
            reports[folder] = _reports(folder)
        log = _log(file, reports[folder], alone=file == path)
        if log is None:
            continue
        other = logs.setdefault((log.model, log.task), log)
        if other is log:
            continue
        if other.stamp == log.stamp:
            problem = f"must be the only newest log of {log.model!r} on {log.task!r}, got {other.path} as well"
            raise DataError(problem, path=log.path)
        newer, older = (log, other) if log.stamp > other.stamp else (other, log)
        logs[log.model, log.task] = newer
        notes.append(f"ignored {older.path.name} of {log.model}, older than {newer.path.name}")
    if not logs:
        raise DataError("must hold files samples_<task>_<timestamp>.jsonl, got none", path=path)
    return [logs[pair] for pair in sorted(logs)], notes


def _reports(folder: Path) -> dict[str, dict[str, Any]]:
    """The results files of a folder, by time stamp; under the empty one that of versions before 0.4.3."""
    reports: dict[str, dict[str, Any]] = {}
    for file in sorted(folder.glob("results*.json")):
        match = _RESULTS.fullmatch(file.name)
        if match is None and file.name != "results.json":
            continue
        report = parse(read_text(file), file)
        if not isinstance(report, dict):
            raise DataError(f"must be a JSON object, got {type(report).__name__}", path=file)
        reports[match["stamp"] if match else ""] = report
    return reports


def _log(file: Path, reports: dict[str, dict[str, Any]], alone: bool) -> Log | None:
    """What a file is the log of; None for a file that is none."""
    match = _SAMPLES.fullmatch(file.name)
    if match:
        # The name of the model stands in the newest report even where that of this run is gone.
        report = reports.get(match["stamp"], {})
        newest = reports[max(reports)] if reports else {}
        return Log(
            file,
            _model(report) or _model(newest) or file.parent.name,
            match["task"],
            match["stamp"],
            report,
        )
    report = reports.get("", {})
    tasks = [name for name in _section(report, "results") if f"_{file.stem}".endswith(f"_{name}")]
    if tasks:
        return Log(file, _model(report) or file.parent.name, max(tasks, key=len), "", report)
    if alone:
        return Log(
            file, _model(report) or file.parent.name, file.stem.removeprefix("samples_"), "", {}
        )
    return None


def _model(report: dict[str, Any]) -> str | None:
    """The name of the model in a report, None where it is not there."""
    name = report.get("model_name")
    if isinstance(name, str) and name:
        return name
    arguments = _section(report, "config").get("model_args")
    if isinstance(arguments, dict):
        found = [
            arguments.get(key) for key in ("peft", "delta", "pretrained", "model", "path", "engine")
        ]
        return next((name for name in found if isinstance(name, str) and name), None)
    match = _MODEL_ARGS.search(arguments) if isinstance(arguments, str) else None
    return match[1] if match else None


def _section(report: dict[str, Any], name: str) -> dict[str, Any]:
    """A part of a report that is an object; empty where it is not there."""
    part = report.get(name)
    return part if isinstance(part, dict) else {}


def reported(log: Log, metric: str, filter_name: str) -> tuple[int | None, float | None]:
    """How many questions the harness says it asked, and the metric it says it found; None where it does not."""
    asked = _section(_section(log.results, "n-samples"), log.task).get("effective")
    value = _section(_section(log.results, "results"), log.task).get(f"{metric},{filter_name}")
    count = asked if isinstance(asked, int) and not isinstance(asked, bool) else None
    return count, value if isinstance(value, float) else None


def filters_in_order(log: Log, metric: str) -> list[str]:
    """The filters of a task in the order in which its rows were written, as the report names them."""
    names = _section(_section(log.results, "results"), log.task)
    return [name.removeprefix(f"{metric},") for name in names if name.startswith(f"{metric},")]


def normaliser(log: Log, metric: str) -> Callable[[str], str]:
    """What the metric does to an answer before it compares, as the report tells; so equal answers are equal strings.

    Where there is no report: numbers lose thousands separators, currency signs and a full stop at
    their end.
    """
    config = _section(_section(log.results, "configs"), log.task)
    listed = config.get("metric_list")
    entries = (
        [entry for entry in listed if isinstance(entry, dict)] if isinstance(listed, list) else []
    )
    rule = next((entry for entry in entries if entry.get("metric") == metric), None)
    if rule is None:
        return lambda text: re.sub(r"[$,]|\.$", "", text) if _NUMBER.fullmatch(text) else text
    regexes = rule.get("regexes_to_ignore")
    patterns: list[re.Pattern[str]] = []
    for regex in regexes if isinstance(regexes, list) else []:
        try:
            patterns.append(re.compile(regex))
        except (re.error, TypeError, RecursionError, OverflowError):
            continue

    def normal(text: str) -> str:
        for pattern in patterns:
            text = pattern.sub("", text)
        if rule.get("ignore_case") is True:
            text = text.lower()
        return text.translate(_NO_PUNCTUATION) if rule.get("ignore_punctuation") is True else text

    return normal


def delimiter(log: Log) -> str:
    """What stands before each choice in the prompt of a task."""
    value = _section(_section(log.results, "configs"), log.task).get("target_delimiter", " ")
    return value if isinstance(value, str) else " "
