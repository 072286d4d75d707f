"""RouteLLM's evaluation CSV: `prompt, <weak>, <strong>` with True or False.

Some files also hold the whole responses.

The files of `routellm/evals/` of github.com/lm-sys/RouteLLM: `gsm8k/gsm8k_responses.csv` and, for
each subject, `mmlu/responses/mmlu_<subject>.csv`. Columns `<model>_response` hold free text; they
are read as answers only through a function that finds the answer in it.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from racer_jax.data.combine import concat
from racer_jax.data.errors import DataError
from racer_jax.data.formats._cells import Missing, built, check_missing, settle_missing
from racer_jax.data.formats._fields import column_of_labels
from racer_jax.data.formats._folders import bare_name, files_of, unread
from racer_jax.data.formats._text import open_csv
from racer_jax.data.remedies import Remedy
from racer_jax.data.table import RoutingTable

_RESPONSE = "_response"


def read_routellm(
    path: str | Path,
    *,
    group: str | None = None,
    answer: Callable[[str], str | None] | None = None,
    missing: Missing = "error",
) -> RoutingTable:
    """Reads a CSV of RouteLLM, or a folder of them.

    Use this when you want the weak and the strong model of RouteLLM's evaluation.

    Args:
      path: The file, or a folder of files with the same models.
      group: The benchmark of a single file; from its name when None (`gsm8k_responses.csv` is
        `gsm8k`).
      answer: Finds the answer in a response (see `racer_jax.data.answers`); responses are not read
        when None.
      missing: What to do with empty labels: `error`, `drop` their queries with a note, or `keep`
        them marked.

    Returns:
      The table; a query's id is `<file>/<row>`, since prompts may repeat.

    Raises:
      DataError: If a file is not what it should be; it names file, row and field.
      ValueError: If an option is not one of those above.
    """
    check_missing(missing)
    path = Path(path)
    if not path.is_dir():
        return settle_missing(_read_file(path, group, answer), missing, path)
    if group is not None:
        raise DataError(
            f"must be a single file to name its benchmark {group!r}, got a folder",
            path=path,
            remedy=Remedy("leave out {}", group=...),
        )
    files = files_of(path, ".csv")
    try:
        table = concat([_read_file(file, None, answer) for file in files])
        table = replace(table, notes=[*table.notes, *unread(path, files)])
    except DataError:
        raise
    except ValueError as error:
        raise DataError(str(error), path=path) from None
    return settle_missing(table, missing, path)


def _read_file(
    path: Path, group: str | None, answer: Callable[[str], str | None] | None
) -> RoutingTable:
    with open_csv(path, names=["prompt"]) as file:
        file.require("prompt")
        responses_of = {name for name in file.header if name.endswith(_RESPONSE)}
        stem = {name for name in responses_of if name.removesuffix(_RESPONSE) in file.columns}
        models = [name for name in file.header if name != "prompt" and name not in stem]
        if len(models) < 2:
            raise DataError(f"must hold columns of at least two models, got {models}", path=path)
        file.check_end(safe=[*models, *(stem if answer is None else ())])
        prompts: list[str] = []
        labels: list[np.ndarray] = []
        answers: list[list[str | None]] = []
        for chunk in file.chunks():
            prompts.extend(chunk.columns["prompt"])
            labels.append(
                np.column_stack([column_of_labels(file, chunk, model) for model in models])
            )
            if answer is not None:
                blank = [""] * len(chunk.columns["prompt"])
                responses = [chunk.columns.get(model + _RESPONSE, blank) for model in models]
                answers.extend(
                    [answer(text) or None for text in row] for row in zip(*responses, strict=True)
                )
        notes = file.notes()
    values = np.concatenate(labels)
    stem_name = Path(bare_name(path)).stem
    name = group or stem_name.removesuffix("_responses")
    return built(
        path,
        ids=[f"{stem_name}/{row}" for row in range(1, len(prompts) + 1)],
        texts=prompts,
        models=models,
        correct=values == 1,
        group=[name] * len(prompts),
        answers=np.array(answers, dtype=object) if stem and answer is not None else None,
        missing=values == -1,
        notes=notes,
    )
