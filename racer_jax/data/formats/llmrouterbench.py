"""Results of LLMRouterBench: `results/bench/<dataset>/<split>/<model>/<dataset>-...-<stamp>.json`.

One file for each (dataset, split, model) with `model_name`, `dataset_name`, `split` and `records`,
each with `index`, `origin_query`, `prediction`, `score`, `completion_tokens` and `cost`
(github.com/ynulihao/LLMRouterBench). Models are joined by (dataset, split, index, origin_query).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable
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
    objects,
    score_of,
    text_field,
)
from racer_jax.data.formats._cells import Missing, Rules
from racer_jax.data.formats._content import normal_answer, prompt_text
from racer_jax.data.formats._folders import walked
from racer_jax.data.formats._heads import head, head_keys
from racer_jax.data.formats._json import check_object, parse, shown
from racer_jax.data.formats._text import read_text
from racer_jax.data.table import RoutingTable

if TYPE_CHECKING:
    import jax

_STAMP = re.compile(r"(\d{8}_\d{6})$")


class _File(NamedTuple):
    """One file of results, checked as far as its head."""

    path: Path
    model: str
    dataset: str
    split: str
    stamp: str
    whole: dict[str, Any]


def read_llmrouterbench(
    path: str | Path,
    *,
    label_rule: Rules | None = None,
    key: jax.Array | None = None,
    answer: Callable[[str], str | None] = text,
    whole_prompt: bool = False,
    missing: Missing = "error",
) -> RoutingTable:
    """Reads results of LLMRouterBench.

    Use this when its pool of results was downloaded, or its collector was run. Of several results
    of one model on one dataset the newest is read; trial runs (`demo`) are not read. A record whose
    score is null was not evaluated.

    Args:
      path: One file, or a folder that holds such files at any depth.
      label_rule: Makes the labels from graded scores; when None the scores must be 0 or 1.
      key: A typed PRNG key, for the rule `one attempt` alone.
      answer: Finds the answer in a prediction (see `racer_jax.data.answers`).
      whole_prompt: Whether the text is `prompt`, worked examples included, instead of
        `origin_query`.
      missing: What to do with pairs that have no record: `error`, `drop` their queries with a note,
        or `keep` them.

    Returns:
      The table; `group` is the dataset, and a query's id is `<dataset>/<split>/<index>`.

    Raises:
      DataError: If a file is not what it should be; it names file, row and field.
      ValueError: If an option is not one of those above.
    """
    path = Path(path)
    attempts = Attempts(
        path, label_rule=label_rule, key=key, attempt=None, missing=missing, unit="record"
    )
    files, notes = _newest(path)
    for number, file in enumerate(files):
        whole = file.whole or _opened(file.path).whole
        files[number] = file._replace(whole={})  # one file at a time in memory
        records = whole.get("records")
        for row, record in enumerate(objects(records, file.path, "records"), start=1):
            place = Place(file.path, row)
            index = record.get("index")
            if isinstance(index, bool) or not isinstance(index, int | str):
                raise place.error(f"must be a whole number or a text, got {shown(index)}", "index")
            prompt = prompt_text(record.get("origin_query"))
            text_field(prompt, "origin_query", place)
            question_key: Hashable = (file.dataset, file.split, str(index), prompt)
            words = prompt
            if whole_prompt:
                words = text_field(prompt_text(record.get("prompt")), "prompt", place)
            name = f"{file.dataset}/{file.split}/{index}"
            question = Question(question_key, name, words, file.dataset)
            response = record.get("prediction")
            num_tokens = record.get("completion_tokens")
            attempts.add(
                question_key,
                question,
                place,
                Result(
                    file.model,
                    score_of(record.get("score"), "score", place),
                    answer=normal_answer(response, answer),
                    cost=number_of(record.get("cost"), "cost", place, low=0),
                    tokens=number_of(num_tokens, "completion_tokens", place, low=0, whole=True),
                ),
            )
    return attempts.table(notes, files=(file.path for file in files))


def _is_results(file: Path) -> bool:
    """Whether a file begins as results do."""
    return {"performance", "records"} & set(head_keys(head(file))) != set()


def _newest(path: Path) -> tuple[list[_File], list[str]]:
    """The newest results of each model on each dataset and split, and notes on the others."""
    paths = [path]
    if path.is_dir():
        paths = [file for file in walked(path, ".json") if _is_results(file)]
    if not paths:
        raise DataError("must hold .json files of results, got none", path=path)
    newest: dict[tuple[str, str, str], _File] = {}
    notes: list[str] = []
    for file_path in paths:
        file = _opened(file_path)
        if len(paths) > 1:
            if file.whole.get("demo") is True:
                notes.append(f"ignored {file.path.name}, a trial run")
                continue
            file = file._replace(whole={})
        pair = (file.dataset, file.split, file.model)
        other = newest.setdefault(pair, file)
        if other is file:
            continue
        if other.stamp == file.stamp:
            raise DataError(
                f"must be the only newest result of {file.model!r} on {file.dataset!r}, got "
                f"{other.path} as well",
                path=file.path,
            )
        newer, older = (file, other) if file.stamp > other.stamp else (other, file)
        newest[pair] = newer
        notes.append(f"ignored {older.path.name}, older than {newer.path.name}")
    return list(newest.values()), notes


def _opened(path: Path) -> _File:
    """A file and what its head says; what is missing there stands in the path."""
    whole = parse(read_text(path), path)
    check_object(whole, path, row=None)
    place = Place(path)
    folders = ["", "", "", *path.absolute().parts[:-1]][-3:]
    names = []
    for field, folder in zip(("dataset_name", "split", "model_name"), folders, strict=True):
        names.append(text_field(whole.get(field, folder), field, place))
    match = _STAMP.search(path.stem)
    return _File(path, names[2], names[0], names[1], match[1] if match else "", whole)
