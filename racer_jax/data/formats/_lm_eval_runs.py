"""The runs in an output folder of lm-evaluation-harness: which of a model's are read, and why."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from racer_jax.data.errors import DataError
from racer_jax.data.remedies import Remedy

# Arguments of a model that change how it is run, not what it answers.
_OF_MACHINES = frozenset(
    (
        *("device", "batch_size", "max_batch_size", "base_url", "num_concurrent", "max_retries"),
        *("timeout", "parallelize", "tokenizer_backend", "trust_remote_code"),
        *("gpu_memory_utilization", "tensor_parallel_size", "data_parallel_size"),
    )
)
# What else a report says of how its run asked.
_SETTINGS = ("system_instruction_sha", "chat_template_sha", "fewshot_as_multiturn")
# A note names this many tasks and counts the others.
_MAX_NAMED = 20


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


Logs = dict[tuple[str, str], list[Log]]


def newest_of(logs: Logs) -> tuple[list[Log], list[str]]:
    """The newest log of each model and task, and a note on each that is older."""
    newest, notes = [], []
    for pair in sorted(logs):
        several = sorted(logs[pair], key=lambda log: log.stamp)
        last = several[-1]
        for log in several[:-1]:
            if log.stamp == last.stamp:
                raise DataError(
                    f"must be the only newest log of {log.model!r} on {log.task!r}, got "
                    f"{last.path} as well: read one of them, not both",
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


def of_few_shots(
    path: Path, logs: Logs, num_fewshot: int | None
) -> tuple[Logs, list[str], list[str]]:
    """The logs with the wanted number of worked examples, where a task has several.

    Returns:
      The logs; notes; and notes on models that are left out on a task.

    Raises:
      DataError: If a model was run with several numbers and none is wanted, or no run has the one
        that is.
    """
    shots: dict[str, set[int]] = {}
    for (model, task), several in logs.items():
        numbers = _numbers(several)
        shots.setdefault(task, set()).update(numbers)
        if num_fewshot is None and len(numbers) > 1:
            raise DataError(
                f"must hold one run of {model!r} on {task!r}, got runs with "
                f"{_counted(numbers)} worked examples",
                path=path,
                remedy=Remedy("pass {} for one of them", num_fewshot=numbers[0]),
            )
    if num_fewshot is None:
        notes = [
            f"the models were run on {task} with {_counted(sorted(numbers))} worked examples"
            for task, numbers in shots.items()
            if len(numbers) > 1
        ]
        return logs, notes, []
    every = sorted(set().union(*shots.values()))
    if num_fewshot not in every:
        got = f"got {_counted(every)}" if every else "no report says how many there were"
        raise DataError(f"must hold runs with {num_fewshot} worked examples, {got}", path=path)
    matches: Logs = {}
    left_out: list[str] = []
    for (model, task), several in logs.items():
        if len(shots[task]) > 1:
            several = [log for log in several if log.num_fewshot == num_fewshot]
        if several:
            matches[model, task] = several
        else:
            left_out.append(f"{model} was not run on {task} with {num_fewshot} worked examples")
    others = [
        f"{task} ({_counted(sorted(numbers))})"
        for task, numbers in shots.items()
        if numbers and num_fewshot not in numbers
    ]
    notes = []
    if others:
        more = f" and {len(others) - _MAX_NAMED} more" if len(others) > _MAX_NAMED else ""
        notes = [
            f"not run with {num_fewshot} worked examples, and read as it is: "
            f"{', '.join(others[:_MAX_NAMED])}{more}"
        ]
    return matches, notes, left_out


def _numbers(logs: Sequence[Log]) -> list[int]:
    """The numbers of worked examples that the reports of some runs state."""
    return sorted({log.num_fewshot for log in logs if log.num_fewshot is not None})


def _counted(numbers: Sequence[int]) -> str:
    return " and ".join(map(str, numbers))


def other_settings(logs: Logs) -> list[str]:
    """A note on each model whose runs were not all made in the same way: they may be two models."""
    runs: dict[str, list[dict[str, str]]] = {}
    for (model, _), several in logs.items():
        for log in several:
            settings = _settings(log.results)
            if log.results and settings not in runs.setdefault(model, []):
                runs[model].append(settings)
    notes = []
    for model, ways in runs.items():
        names = sorted(set().union(*ways))
        differing = [name for name in names if len({way.get(name) for way in ways}) > 1]
        if differing:
            texts = [_written(way, differing) for way in ways]
            notes.append(
                f"the runs of {model} were made in {len(ways)} ways and are read as one model: "
                f"{'; '.join(texts[:4])}"
            )
    return notes


def _written(settings: Mapping[str, str], names: Sequence[str]) -> str:
    """Some settings of a run, as a note shows them."""
    return (
        ", ".join(f"{name}={settings[name][:40]}" for name in names if name in settings) or "none"
    )


def _settings(report: dict[str, Any]) -> dict[str, str]:
    """How a run asked its model, of what changes the answers."""
    config = section(report, "config")
    arguments = config.get("model_args")
    if isinstance(arguments, str):
        pairs = [part.partition("=") for part in arguments.split(",")]
        settings = {name.strip(): value.strip() for name, _, value in pairs}
    else:
        settings = {name: str(value) for name, value in section(config, "model_args").items()}
    settings = {name: value for name, value in settings.items() if name not in _OF_MACHINES}
    if config.get("gen_kwargs"):
        settings["gen_kwargs"] = str(config["gen_kwargs"])
    for name in _SETTINGS:
        if report.get(name):
            settings[name] = str(report[name])
    return settings


def section(report: dict[str, Any], name: str) -> dict[str, Any]:
    """A part of a report that is an object; empty where it is not there."""
    part = report.get(name)
    return part if isinstance(part, dict) else {}
