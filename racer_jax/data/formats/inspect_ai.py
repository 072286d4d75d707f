"""Logs of Inspect AI: `.eval` archives and `.json` files, one log for each task and model.

A log holds `eval` (task, model), `results` and `samples`, each with an `id`, an `epoch`, the
`input` and the `scores` by scorer. An `.eval` file is a ZIP archive of the same, `header.json` and
`samples/<id>_epoch_<n>.json`. Models are joined by (task, id, input), never by order.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Hashable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from racer_jax.data.answers import text
from racer_jax.data.errors import DataError
from racer_jax.data.formats._attempts import (
    Attempts,
    Place,
    Question,
    Result,
    number_of,
    score_of,
    text_field,
)
from racer_jax.data.formats._cells import Missing, Rules
from racer_jax.data.formats._content import normal_answer, prompt_text, with_options
from racer_jax.data.formats._folders import bare_name, walked
from racer_jax.data.formats._heads import head, head_keys
from racer_jax.data.formats._json import check_object, parse, shown
from racer_jax.data.formats._text import read_text
from racer_jax.data.formats._zip import open_zip
from racer_jax.data.labels import GIVEN
from racer_jax.data.remedies import Remedy
from racer_jax.data.table import RoutingTable

if TYPE_CHECKING:
    import jax

_SAMPLE = re.compile(r"samples/.+\.json")
_ZIP = b"PK"
# What Inspect's own reducers make of a value that is no number.
_VALUES = {"C": 1.0, "I": 0.0, "P": 0.5, "N": 0.0, "yes": 1.0, "no": 0.0, "true": 1.0, "false": 0.0}


class Log(NamedTuple):
    """One log, its samples not read yet.

    Use this when you read the logs of a folder yourself.

    Attributes:
      path: The file.
      model: Name of the model.
      task: Name of the task.
      arguments: Arguments of the task, as JSON.
      created: When the run began.
      header: The log without its samples.
    """

    path: Path
    model: str
    task: str
    arguments: str
    created: str
    header: dict[str, Any]


def read_inspect(
    path: str | Path,
    *,
    scorer: str | None = None,
    label_rule: Rules | None = None,
    key: jax.Array | None = None,
    attempt: int | None = None,
    answer: Callable[[str], str | None] = text,
    missing: Missing = "error",
) -> RoutingTable:
    """Reads logs of Inspect AI.

    Use this when the models were evaluated with Inspect AI, inspect_evals or a version of lighteval
    that writes its logs. C is right and I and N are wrong; P is half right, a graded score. Where a
    sample has several epochs a label rule judges the share of them that is right, or `attempt`
    names the epoch to read. A sample that ended in an error was not evaluated.

    Args:
      path: One log, or a folder of logs.
      scorer: The scorer that says right or wrong, where there are several; `<scorer>/<key>` of one
        that gives several values.
      label_rule: Makes the labels from graded scores, or from the pass rate over epochs; when None
        the scores must be C, I, N, 0 or 1.
      key: A typed PRNG key, for the rule `one attempt` alone.
      attempt: The epoch to read, counted from 1; all when None.
      answer: Finds the answer in what the scorer took for it (see `racer_jax.data.answers`).
      missing: What to do with pairs that have no result: `error`, `drop` their queries with a note,
        or `keep` them.

    Returns:
      The table; `group` is the task, and a query's id is `<task>/<id>`.

    Raises:
      DataError: If a log is not what it should be; it names file, row and field.
      ImportError: If an archive is compressed with zstd and nothing here reads that.
      ValueError: If an option is not one of those above.
    """
    path = Path(path)
    attempts = Attempts(
        path, label_rule=label_rule, key=key, attempt=attempt, missing=missing, unit="epoch"
    )
    logs, notes = _newest(_found(path))
    groups = _groups(logs)
    scorer_of: dict[str, str] = {}
    for log in logs:
        group = groups[log.task, log.arguments]
        count = 0
        for sample, place in _samples(log):
            count += 1
            name = _scorer(log, sample, place, scorer)
            if name is not None and scorer_of.setdefault(group, name) != name:
                raise place.error(
                    f"must be scored by {scorer_of[group]!r} as for the other models, got "
                    f"{name!r}: score the logs anew by one of them",
                    "scores",
                )
            _take(attempts, log, group, sample, place, name, answer)
        notes += _incomplete(log, count)
    if not scorer_of:
        raise DataError(
            "must hold scores, got samples without any; run `inspect score` on the logs first",
            path=path,
        )
    return attempts.table(notes, files=(log.path for log in logs), rule_name=_rule_name(scorer_of))


def _rule_name(scorer_of: Mapping[str, str]) -> str:
    scorers = sorted(set(scorer_of.values()))
    return f"{scorers[0]} = C" if len(scorers) == 1 else GIVEN


def _found(path: Path) -> list[Log]:
    """All logs of a path."""
    if not path.is_dir():
        return [_opened(path)]
    files = walked(path, ".eval", ".json")
    files = [file for file in files if _is_log(file)]
    if not files:
        raise DataError("must hold .eval or .json logs of Inspect, got none", path=path)
    logs = []
    for file in files:
        logs.append(_opened(file))
        # All logs at once may be more than memory holds: each is read again when it is its turn.
        logs[-1].header.pop("samples", None)
    return logs


def _is_log(file: Path) -> bool:
    """Whether a file is a log: an archive, or JSON that begins as one does."""
    if bare_name(file).endswith(".eval"):
        return True
    # `logs.json` and `eval-set.json` of an eval set describe logs and are none.
    return bare_name(file) not in ("logs.json", "eval-set.json") and {"eval", "status"} <= set(
        head_keys(head(file))
    )


def _is_archive(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(2) == _ZIP
    except OSError:
        return False  # who reads it says why


def _opened(path: Path) -> Log:
    """A log and what its header says, checked."""
    if _is_archive(path):
        with open_zip(path) as archive:
            if "header.json" not in archive.names:
                is_unfinished = "_journal/start.json" in archive.names
                hint = (
                    ": the run did not finish; run `inspect log recover` on it first"
                    if is_unfinished
                    else ""
                )
                raise DataError(f"must hold the member 'header.json'{hint}", path=path)
            header = parse(archive.text("header.json"), path)
        samples: Any = []
    else:
        header = parse(read_text(path), path)
        samples = header.get("samples") if isinstance(header, dict) else None
    check_object(header, path, row=None)
    if not isinstance(samples, list):
        raise DataError(
            f"must be a list of samples, got {shown(samples)}; logs written with "
            "`--no-log-samples` hold none",
            path=path,
            field="samples",
        )
    about = header.get("eval")
    check_object(about, path, row=None, field="eval")
    place = Place(path)
    model = text_field(about.get("model"), "eval.model", place)
    task = text_field(about.get("task"), "eval.task", place)
    time = about.get("created")
    arguments = json.dumps(about.get("task_args") or {}, sort_keys=True)
    return Log(path, model, task, arguments, time if isinstance(time, str) else "", header)


def _newest(logs: list[Log]) -> tuple[list[Log], list[str]]:
    """The newest log of each model, task and arguments, and notes on the older ones."""
    newest: dict[tuple[str, str, str], Log] = {}
    notes: list[str] = []
    for log in logs:
        other = newest.setdefault((log.model, log.task, log.arguments), log)
        if other is log:
            continue
        if other.created == log.created:
            raise DataError(
                f"must be the only newest log of {log.model!r} on {log.task!r}, got {other.path} "
                "as well",
                path=log.path,
            )
        newer, older = (log, other) if log.created > other.created else (other, log)
        newest[log.model, log.task, log.arguments] = newer
        notes.append(f"ignored {older.path.name} of {log.model}, older than {newer.path.name}")
    return list(newest.values()), notes


def _groups(logs: list[Log]) -> dict[tuple[str, str], str]:
    """Name of each task; with its arguments where one model ran it with several."""
    runs: dict[tuple[str, str], set[str]] = {}
    for log in logs:
        runs.setdefault((log.model, log.task), set()).add(log.arguments)
    several = {task for (_, task), arguments in runs.items() if len(arguments) > 1}
    return {
        (log.task, log.arguments): f"{log.task}{log.arguments}" if log.task in several else log.task
        for log in logs
    }


def _samples(log: Log) -> Iterator[tuple[dict[str, Any], Place]]:
    """The samples of a log, one by one, each an object."""
    if _is_archive(log.path):
        with open_zip(log.path) as archive:
            names = [name for name in archive.names if _SAMPLE.fullmatch(name)]
            for row, name in enumerate(names, start=1):
                sample = parse(archive.text(name), log.path, row=row)
                check_object(sample, log.path, row=row, field=name)
                yield sample, Place(log.path, row)
        return
    samples = log.header.get("samples")
    samples = parse(read_text(log.path), log.path)["samples"] if samples is None else samples
    for row, sample in enumerate(samples, start=1):
        check_object(sample, log.path, row=row, field="samples")
        yield sample, Place(log.path, row)


def _scorer(log: Log, sample: dict[str, Any], place: Place, scorer: str | None) -> str | None:
    """The scorer to read a sample by, None where it has no score."""
    scores = sample.get("scores")
    if not scores:
        return None
    check_object(scores, place.path, row=place.row, field="scores")
    for name in scores:
        text_field(name, "scores", place)
    if scorer is not None:
        if scorer.partition("/")[0] in scores or scorer in scores:
            return scorer
        raise place.error(
            f"must hold the scorer {scorer!r}, got {sorted(scores)}",
            "scores",
            Remedy("pass, for example: {}", scorer=sorted(scores)[0]),
        )
    if len(scores) > 1:
        raise place.error(
            f"must have one scorer, got {sorted(scores)}",
            "scores",
            Remedy("pass, for example: {}", scorer=sorted(scores)[0]),
        )
    return str(next(iter(scores)))


def _take(
    attempts: Attempts,
    log: Log,
    group: str,
    sample: dict[str, Any],
    place: Place,
    scorer: str | None,
    answer: Callable[[str], str | None],
) -> None:
    """One sample as a result."""
    identity = sample.get("id")
    if isinstance(identity, bool) or not isinstance(identity, int | str) or identity == "":
        raise place.error(f"must be a whole number or a text, got {shown(identity)}", "id")
    epoch = sample.get("epoch", 1)
    if isinstance(epoch, bool) or not isinstance(epoch, int) or not 0 < epoch < 1 << 31:
        raise place.error(f"must be a whole number of at least 1, got {shown(epoch)}", "epoch")
    messages = sample.get("input")
    key: Hashable = (group, str(identity), json.dumps(messages, sort_keys=True))

    def question() -> Question:
        attachments = sample.get("attachments")
        prompt = prompt_text(messages, attachments if isinstance(attachments, dict) else None)
        words = with_options(prompt, sample.get("choices"))
        return Question(key, f"{group}/{identity}", words, group)

    score, response = math.nan, None
    if scorer is not None and sample.get("error") is None:
        score, response = _value(sample["scores"], scorer, place)
    tokens, cost = _usage(log, sample, place)
    attempts.add(
        key,
        question,
        place,
        Result(
            log.model,
            score,
            attempt=epoch,
            answer=normal_answer(response, answer),
            tokens=tokens,
            cost=cost,
            field=f"scores.{scorer}.value",
            hint=" (P is 0.5)" if score == 0.5 else "",
        ),
    )


def _value(scores: Mapping[str, Any], scorer: str, place: Place) -> tuple[float, str | None]:
    """The score that a scorer gave, and the answer it saw; NaN where it gave none."""
    name, _, part = (scorer, "", "") if scorer in scores else scorer.partition("/")
    entry = scores[name]
    if entry is None:
        return math.nan, None
    field = f"scores.{scorer}"
    check_object(entry, place.path, row=place.row, field=field)
    value = entry.get("value")
    if isinstance(value, dict):
        if not part:
            keys = [str(key) for key in value] or ["key"]
            raise place.error(
                f"must be one value, got {sorted(keys)[:12]}",
                f"{field}.value",
                Remedy("pass, for example: {}", scorer=f"{name}/{keys[0]}"),
            )
        check_object(value, place.path, row=place.row, field=f"{field}.value")
        value = value.get(part)
    elif part:
        raise place.error(f"must hold the value {part!r}, got {shown(value)}", f"{field}.value")
    answer = entry.get("answer")
    answer_text = answer if isinstance(answer, str) and value != "N" else None
    if isinstance(value, str):
        if value not in _VALUES:
            raise place.error(
                f"must be C, I, P, N or a number, got {shown(value)}", f"{field}.value"
            )
        return _VALUES[value], answer_text
    return score_of(value, f"{field}.value", place), answer_text


def _usage(log: Log, sample: dict[str, Any], place: Place) -> tuple[float, float]:
    """Output tokens and dollars of the model that was evaluated, NaN where the log does not say."""
    by_model = sample.get("model_usage")
    usage = by_model.get(log.model) if isinstance(by_model, dict) else None
    if not isinstance(usage, dict):
        return math.nan, math.nan
    field = f"model_usage.{log.model}"
    num_tokens = usage.get("output_tokens")
    tokens = number_of(num_tokens, f"{field}.output_tokens", place, low=0, whole=True)
    cost = number_of(usage.get("total_cost"), f"{field}.total_cost", place, low=0)
    return tokens, cost


def _incomplete(log: Log, count: int) -> list[str]:
    """A note on a run that did not end well."""
    status = log.header.get("status")
    if status in (None, "success"):
        return []
    data = log.header["eval"].get("dataset")
    ids = data.get("sample_ids") if isinstance(data, dict) else None
    of = f" of {len(ids)}" if isinstance(ids, list) else ""
    return [f"{log.path.name} has status {shown(status)}: {count}{of} samples"]
