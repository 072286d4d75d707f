"""Names that people give to the columns of a table of their own, to say what to pass."""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from racer_jax.data.errors import DataError
from racer_jax.data.remedies import Remedy

# Column of the format -> what it is called elsewhere, the most telling first.
_OTHERS = {
    "query": ("prompt", "question", "input", "text", "instruction", "problem", "query_text"),
    "query_id": ("question_id", "prompt_id", "sample_id", "doc_id", "task_id", "qid", "id", "uid"),
    "model": ("model_name", "llm", "model_id", "llm_name", "system", "provider", "engine"),
    "correct": (
        *("is_correct", "label", "correctness", "is_right", "right", "passed", "pass", "success"),
        *("correct?", "answered_correctly", "acc", "accuracy", "exact_match", "result"),
    ),
    "score": ("rating", "grade", "performance", "points", "f1", "value"),
    "answer": ("response", "output", "completion", "prediction", "generation", "reply"),
}
# What stands between the words of a name.
_APART = re.compile(r"[\s.\-]+")
# A long table has one of these beside the model: labels, or answers of unlabelled traffic.
_RESULTS = {"correct", "score", "answer"}


def other_names(header: Iterable[str]) -> dict[str, str] | None:
    """Which columns seem to be those of a long or wide table under other names.

    Args:
      header: The columns as the file names them.

    Returns:
      Column of the format -> its name in the file, as `columns` takes it; None where they do not
      make a table, or need no other name.

    >>> other_names(["Question", "model", "is_correct"])
    {'query': 'Question', 'correct': 'is_correct'}
    """
    header = list(header)
    place = {name.strip().casefold(): name for name in header}
    columns = {
        ours: name
        for ours in _OTHERS
        if ours not in place and (name := _other(ours, header)) is not None
    }
    known = {*place, *columns}
    if "query" in known:
        columns.pop("query_id", None)  # one name is enough, and it may be another thing
    elif "query_id" not in known:
        return None
    if "correct" in known:
        columns.pop("score", None)
    if known & {"correct", "score"}:
        columns.pop("answer", None)  # not needed, and it may be another thing
    if not ("model" in known and known & _RESULTS):
        if "model" in known:
            return None
        columns = {ours: name for ours, name in columns.items() if ours in ("query", "query_id")}
    return columns or None


def _other(ours: str, header: list[str]) -> str | None:
    """The column that seems to be one of ours under another name: `Is Correct` for `correct`."""
    place = {_APART.sub("_", name.strip().casefold()): name for name in reversed(header)}
    place |= {name.strip().casefold(): name for name in header}
    return next((place[name] for name in (ours, *_OTHERS.get(ours, ())) if name in place), None)


def example_name(ours: str, header: Iterable[str]) -> str:
    """A column that may be one of ours under another name, for an example of what to pass."""
    header = list(header)
    rest = (name for name in header if name not in _OTHERS and 0 < len(name) < 60)
    return _other(ours, header) or next(rest, "name")


def other_id(header: Iterable[str]) -> str | None:
    """The column that may name the questions of a table whose texts stand twice."""
    return _other("query_id", list(header))


def is_long(header: Iterable[str], columns: dict[str, str] | None) -> bool:
    """Whether columns, some under other names, are those of a long table, labelled or not."""
    known = {name.strip().casefold() for name in header} | set(columns or {})
    return "model" in known and bool(known & _RESULTS)


def names_remedy(header: Iterable[str], columns: Mapping[str, str] | None) -> Remedy:
    """What to pass where columns have other names; where labels come of scores, a rule too."""
    names = dict(columns or {})
    known = {name.strip().casefold() for name in header} | set(names)
    if "correct" in known or not {"model", "score"} <= known:
        return Remedy("if that is what they are pass {}", columns=names)
    return Remedy(
        "if that is what they are pass, for example: {} {} (labels are made from the scores)",
        columns=names,
        label_rule="score > 0.5",
    )


def refuse_other_names(path: Path, header: Iterable[str]) -> None:
    """Refuses a long table whose model, and what it gave, have other names: it is not wide."""
    header = list(header)
    others = other_names(header)
    if not is_long(header, None) and is_long(header, others):
        raise DataError(
            f"must name its columns query, model and correct, got {header[:12]}",
            path=path,
            remedy=names_remedy(header, others),
        )
