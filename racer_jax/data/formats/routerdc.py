"""RouterDC's JSON, one file for each benchmark and part.

A file is a list of `{"question": ..., "scores": {model: number}}`.

The files of `datasets/split2_model7/` of github.com/shuhao02/RouterDC hold the pool of the paper on
GSM8K, MMLU, CMMLU and ARC-Challenge. For multiple choice the score is the probability a model gave
its choice, or 0 where the choice is wrong, so it is right iff `score > 0`; for GSM8K it is the pass
rate over ten attempts, right iff `score > 0.5` unless another rule is passed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from racer_jax.data.errors import DataError
from racer_jax.data.formats._cells import Rules, built, check_rule, check_scale
from racer_jax.data.formats._folders import bare_name, unread, walked
from racer_jax.data.formats._json import check_object, check_text, json_list, shown
from racer_jax.data.labels import LabelRule, for_name, key_of_part
from racer_jax.data.remedies import Remedy
from racer_jax.data.table import RoutingTable

if TYPE_CHECKING:
    import jax

Part = Literal["train", "test"]
# How the scores of each benchmark were made (see the module's first lines) decides what "right"
# means by default.
DEFAULT_RULES: Mapping[str, str] = {
    "gsm8k": "score > 0.5",
    "mmlu": "score > 0",
    "cmmlu": "score > 0",
    "arc_challenge": "score > 0",
}
_NAME = re.compile(r"(?:(?P<group>.+)[-_])?(?P<part>train|test)")


class TrainTest(NamedTuple):
    """The two parts of a corpus.

    Use this when you read what `read_routerdc_parts` returns.

    Attributes:
      train: Queries to train routers on.
      test: Queries to calibrate, validate and test on.
    """

    train: RoutingTable
    test: RoutingTable


def read_routerdc(
    path: str | Path,
    *,
    part: Part = "test",
    label_rule: Rules | None = None,
    group: str | None = None,
    key: jax.Array | None = None,
) -> RoutingTable:
    """A file of RouterDC, or one part of a folder of them.

    Use this when the data are RouterDC's and one file or one part is enough; `read_routerdc_parts`
    reads both parts.

    Args:
      path: The JSON file, or a folder of files named `<benchmark>_train.json` and
        `<benchmark>_test.json`.
      part: Which files of a folder to read.
      label_rule: `score > X`, `score >= X` or `one attempt`, for all benchmarks or by benchmark;
        what its scores mean where None or not named: `score > 0.5`, and `score > 0` for those of
        multiple choice.
      group: The benchmark of a single file; from its name when None.
      key: A typed PRNG key, for the rule `one attempt` alone.

    Returns:
      The table, groups in the order of the paper, then by name; `graded` holds the scores.

    Raises:
      DataError: If a file is not what it should be; it names file, row and field.
      ValueError: If a benchmark has no default rule and none is given.
    """
    path = Path(path)
    check_rule(label_rule)
    if part not in ("train", "test"):
        raise DataError(
            f"part must be 'train' or 'test', got {part!r}",
            path=path,
            remedy=Remedy("pass {}", part="test"),
        )
    if not path.is_dir():
        return _read_files([path], label_rule, group, key, [])
    if group is not None:
        raise DataError(
            f"must be a single file to name its benchmark {group!r}, got a folder",
            path=path,
            remedy=Remedy("leave out {}", group=...),
        )
    path_of: dict[str, Path] = {}
    for file in walked(path, ".json", deep=False):
        match = _named(file)
        if match is not None and match["part"] == part:
            path_of[_group_of(file)] = file
    if not path_of:
        raise DataError(
            f"must hold files named <benchmark>_{part}.json, got none",
            path=path,
            remedy=Remedy("name one file, or pass {} for the other part", part="train")
            if part == "test"
            else None,
        )
    group_names = list(DEFAULT_RULES)
    order = sorted(
        path_of,
        key=lambda name: (
            group_names.index(name) if name in group_names else len(group_names),
            name,
        ),
    )
    notes = unread(path, path_of.values())
    return _read_files([path_of[name] for name in order], label_rule, None, key, notes)


def _named(file: Path) -> re.Match[str] | None:
    """The benchmark and part in the name of a file; None where it is named otherwise."""
    name = bare_name(file)
    return _NAME.fullmatch(name.removesuffix(".json")) if name.endswith(".json") else None


def _group_of(file: Path) -> str:
    """The benchmark of a file: of its name, or of its folder where it is called train or test."""
    match = _named(file)
    if match is None:
        return Path(bare_name(file)).stem
    return match["group"] or file.absolute().parent.name or match["part"]


def read_routerdc_parts(
    folder: str | Path,
    *,
    label_rule: Rules | None = None,
    key: jax.Array | None = None,
) -> TrainTest:
    """Both parts of a folder of RouterDC files, with one order of models.

    Use this when you train a router on RouterDC's training part and calibrate and test it on the
    other part.

    Args:
      folder: Holds `<benchmark>_train.json` and `<benchmark>_test.json`.
      label_rule: As in `read_routerdc`.
      key: As in `read_routerdc`; split between the parts.

    Returns:
      The train and the test table.

    Raises:
      DataError: If a file is not what it should be, or the two parts hold different models.
      ValueError: If a benchmark has no default rule and none is given.
    """
    keys: tuple[jax.Array | None, ...] = (None, None)
    if key is not None:
        import jax

        keys = tuple(jax.random.split(key))
    train = read_routerdc(folder, part="train", label_rule=label_rule, key=keys[0])
    test = read_routerdc(folder, part="test", label_rule=label_rule, key=keys[1])
    if odd := set(train.models) ^ set(test.models):
        raise DataError(
            f"train and test must hold the same models, got {sorted(odd)[0]!r} in one of them",
            path=folder,
        )
    return TrainTest(train.select(models=test.models), test)


def _read_files(
    paths: list[Path],
    label_rule: Rules | None,
    group: str | None,
    key: jax.Array | None,
    notes: list[str],
) -> RoutingTable:
    texts: list[str] = []
    ids: list[str] = []
    groups: list[str] = []
    scores: list[np.ndarray] = []
    correct: list[np.ndarray] = []
    rules: dict[str, str] = {}
    models: list[str] | None = None
    for number, path in enumerate(paths):
        name = group or _group_of(path)
        stem = Path(bare_name(path)).stem
        rule = LabelRule.parse(_rule_for(name, label_rule, path))
        questions, models, values = _read_file(path, models)
        texts += questions
        ids += [f"{stem}/{row}" for row in range(1, len(questions) + 1)]
        groups += [name] * len(questions)
        scores.append(values)
        check_scale(path, rule, values)
        correct.append(rule.apply(values, key_of_part(key, number)))
        rules[name] = rule.name
    return built(
        paths[0].parent if len(paths) > 1 else paths[0],
        ids=ids,
        texts=texts,
        models=models or [],
        correct=np.concatenate(correct),
        group=groups,
        graded=np.concatenate(scores),
        label_rule=rules,
        notes=notes,
    )


def _rule_for(group: str, label_rule: Rules | None, path: Path) -> str:
    """The rule of a benchmark: the one named for it, else its default."""
    rule = for_name(label_rule, group) or DEFAULT_RULES.get(group)
    if rule is None:
        rules = dict(label_rule) if isinstance(label_rule, Mapping) else {}
        raise DataError(
            f"must have a label rule for benchmark {group!r}, which has no default",
            path=path,
            remedy=Remedy(
                "pass {} for all benchmarks or {} for this one",
                ("label_rule", "score > 0"),
                ("label_rule", {**rules, group: "score > 0.5"}),
            ),
        )
    return rule


def _read_file(path: Path, models: list[str] | None) -> tuple[list[str], list[str], np.ndarray]:
    """Questions, models and scores of one file, in the order of `models` where there are any."""
    rows = json_list(path)
    origin = "the first file" if models else "row 1"
    questions: list[str] = []
    values: list[list[float]] = []
    for row, record in rows:
        question, scores = record.get("question"), record.get("scores")
        check_text(question, "question", path=path, row=row)
        check_object(scores, path, row=row, field="scores")
        score_of: Mapping[str, Any] = record["scores"]
        if models is None:
            models = list(score_of)
            if not models:
                raise DataError(
                    "must name at least one model, got none", path=path, row=row, field="scores"
                )
        if len(score_of) != len(models) or any(model not in score_of for model in models):
            odd = sorted(set(models) ^ set(score_of))[0]
            verb = "lacks" if odd in models else "adds"
            raise DataError(
                f"must hold the {len(models)} models of {origin}, {verb} {odd!r}",
                path=path,
                row=row,
                field="scores",
            )
        questions.append(str(question))
        values.append([_score(score_of[model], path, row, model) for model in models])
    return questions, models or [], np.array(values, dtype=np.float64)


def _score(value: Any, path: Path, row: int, model: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise DataError(
            f"must be a number in [0, 1], got {shown(value)}",
            path=path,
            row=row,
            field=f"scores.{model}",
        )
    return float(value)
