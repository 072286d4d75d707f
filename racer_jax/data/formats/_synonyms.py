"""Names that people give to the columns of a table of their own, to say what to pass."""

from collections.abc import Iterable

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
}


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
        for ours, others in _OTHERS.items()
        if ours not in place
        and (name := next((place[n] for n in others if n in place), None)) is not None
    }
    known = {*place, *columns}
    if "query" in known:
        columns.pop("query_id", None)  # one name is enough, and it may be another thing
    elif "query_id" not in known:
        return None
    if "correct" in known:
        columns.pop("score", None)
    if not ("model" in known and known & {"correct", "score"}):
        if "model" in known:
            return None
        columns = {ours: name for ours, name in columns.items() if ours in ("query", "query_id")}
    return columns or None


def is_long(header: Iterable[str], columns: dict[str, str] | None) -> bool:
    """Whether columns, some under other names, are those of a long table."""
    known = {name.strip().casefold() for name in header} | set(columns or {})
    return "model" in known and bool(known & {"correct", "score"})
