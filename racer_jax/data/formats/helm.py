"""Run folders of HELM: `run_spec.json`, `scenario_state.json` and `per_instance_stats.json`.

The first names the model, the second holds the questions and the answers, the third the metrics.
They are joined by `instance_id` and `train_trial_index`, and models by scenario, id and text.
Perturbed copies of an instance bear its id; they are left out with a note.
"""

from __future__ import annotations

import math
import re
from collections.abc import Hashable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from racer_jax.data.errors import DataError
from racer_jax.data.formats._attempts import (
    Attempts,
    Place,
    Question,
    Result,
    objects,
    score_of,
    text_field,
)
from racer_jax.data.formats._cells import Missing, Rules
from racer_jax.data.formats._folders import bare_name, compressed_or_not, walked
from racer_jax.data.formats._json import check_object, parse, shown
from racer_jax.data.formats._text import read_text
from racer_jax.data.remedies import Remedy
from racer_jax.data.table import RoutingTable

if TYPE_CHECKING:
    import jax

FILES = ("run_spec.json", "scenario_state.json", "per_instance_stats.json")
# Of several metrics, those read where the user names none: the more special one first, since the
# exact match of a worked answer with its last number is 0 throughout.
_PREFERRED = (
    "final_number_exact_match",
    "math_equiv_chain_of_thought",
    "math_equiv",
    "exact_match_indicator",
    "exact_match",
    "quasi_exact_match",
)
_MODEL_ARGUMENT = re.compile(r"(?:(?<=:)|,)(?:model|model_deployment)=[^,]*,?")


class _State(NamedTuple):
    """What the scenario's state says of one attempt at an instance."""

    text: str
    prompt: Any
    answer: str | None


def read_helm(
    path: str | Path,
    *,
    metric: str | None = None,
    label_rule: Rules | None = None,
    key: jax.Array | None = None,
    attempt: int | None = None,
    whole_prompt: bool = False,
    missing: Missing = "error",
) -> RoutingTable:
    """Reads run folders of HELM.

    Use this when the models were evaluated with HELM, or its leaderboards' runs were downloaded.
    Several train trials (other worked examples for the same question) are attempts.

    Args:
      path: One run folder, or a folder that holds such folders at any depth.
      metric: The statistic that says right or wrong, such as `quasi_exact_match`; when None
        `final_number_exact_match`, `math_equiv` or `exact_match`, the first there is.
      label_rule: Makes the labels from a graded metric, or from its mean over train trials; when
        None the metric must be 0 or 1.
      key: A typed PRNG key, for the rule `one attempt` alone.
      attempt: The train trial to read, counted from 1 (`train_trial_index` 0); all when None.
      whole_prompt: Whether the text is the whole prompt, worked examples included, instead of the
        question with its options.
      missing: What to do with pairs that have no result: `error`, `drop` their queries with a note,
        or `keep` them.

    Returns:
      The table; `group` is the name of the run without the model, and a query's id is
      `<group>/<instance_id>`.

    Raises:
      DataError: If a file is not what it should be; it names file, row and field.
      ValueError: If an option is not one of those above.
    """
    path = Path(path)
    attempts = Attempts(
        path, label_rule=label_rule, key=key, attempt=attempt, missing=missing, unit="train trial"
    )
    notes: list[str] = []
    metrics: dict[str, str] = {}
    runs: dict[tuple[str, str], Path] = {}
    files: list[Path] = []
    for folder in _folders(path):
        group, model = _named(compressed_or_not(folder / FILES[0]))
        if (other := runs.setdefault((group, model), folder)) != folder:
            raise DataError(
                f"must be the only run of {model!r} on {group!r}, got {other} as well", path=folder
            )
        files += [compressed_or_not(folder / name) for name in FILES]
        states, num_perturbed = _states(compressed_or_not(folder / FILES[1]))
        stats_path = compressed_or_not(folder / FILES[2])
        for row, stats in enumerate(
            objects(parse(read_text(stats_path), stats_path), stats_path), 1
        ):
            if stats.get("perturbation") is not None:
                continue
            place = Place(stats_path, row)
            values = _statistics(stats, place)
            name = _metric(values, metric, place)
            if metrics.setdefault(group, name) != name:
                raise place.error(
                    f"must be read by {metrics[group]!r} as for the other models, got {name!r}",
                    "stats",
                    Remedy("pass, for example: {}", metric=name),
                )
            identity, trial = _identity(stats, place)
            if (identity, trial) not in states:
                raise place.error(
                    f"must stand in {FILES[1]} as well, got train_trial_index {trial} of "
                    f"{identity!r} here alone",
                    "instance_id",
                )
            state = states[identity, trial]
            words = state.text
            if whole_prompt:
                words = text_field(state.prompt, "request.prompt", place)
            question_key: Hashable = (group, identity, state.text)
            question = Question(question_key, f"{group}/{identity}", words, group)
            tokens = values.get("num_completion_tokens", values.get("num_output_tokens", math.nan))
            attempts.add(
                question_key,
                question,
                place,
                Result(
                    model,
                    values[name],
                    attempt=trial + 1,
                    answer=state.answer,
                    tokens=tokens if tokens >= 0 and tokens % 1 == 0 else math.nan,
                    field=f"stats.{name}",
                ),
            )
        if num_perturbed:
            notes.append(f"left out {num_perturbed} perturbed instances of {folder.name}")
    names = sorted(set(metrics.values()))
    rule_name = f"{names[0]} = 1" if len(names) == 1 else " or ".join(f"{n} = 1" for n in names)
    return attempts.table(notes, files=files, rule_name=rule_name)


def _folders(path: Path) -> list[Path]:
    """The run folders of a path."""
    if not path.is_dir():
        raise DataError(
            f"must be a run folder of HELM, which holds {', '.join(FILES)}, got a file",
            path=path,
            remedy=Remedy("name its folder, {}", path=[path.parent]),
        )
    folders = [file.parent for file in walked(path, FILES[2]) if bare_name(file) == FILES[2]]
    if not folders:
        raise DataError(f"must hold {FILES[2]}, got none", path=path)
    return folders


def _named(path: Path) -> tuple[str, str]:
    """The scenario of a run, and its model."""
    spec = parse(read_text(path), path)
    place = Place(path)
    check_object(spec, path, row=None)
    name = text_field(spec.get("name"), "name", place)
    check_object(spec.get("adapter_spec"), path, row=None, field="adapter_spec")
    model = text_field(spec["adapter_spec"].get("model"), "adapter_spec.model", place)
    return _MODEL_ARGUMENT.sub("", name).strip(",:") or name, model


def _identity(record: dict[str, Any], place: Place) -> tuple[str, int]:
    """Instance and train trial of a record of statistics."""
    identity = text_field(record.get("instance_id"), "instance_id", place)
    return identity, _trial(record, place)


def _trial(record: dict[str, Any], place: Place) -> int:
    trial = record.get("train_trial_index", 0)
    if isinstance(trial, bool) or not isinstance(trial, int) or not 0 <= trial < 1 << 31:
        raise place.error(
            f"must be a whole number of at least 0, got {shown(trial)}", "train_trial_index"
        )
    return trial


def _states(path: Path) -> tuple[dict[tuple[str, int], _State], int]:
    """What the scenario's state says of each instance and trial, and how many were perturbed."""
    whole = parse(read_text(path), path)
    check_object(whole, path, row=None)
    states: dict[tuple[str, int], _State] = {}
    num_perturbed = 0
    for row, record in enumerate(
        objects(whole.get("request_states"), path, "request_states"), start=1
    ):
        place = Place(path, row)
        instance = record.get("instance")
        check_object(instance, path, row=row, field="instance")
        if record["instance"].get("perturbation") is not None:
            num_perturbed += 1
            continue
        identity = text_field(record["instance"].get("id"), "instance.id", place)
        # With one request for each option, the first stands for the instance.
        states.setdefault((identity, _trial(record, place)), _state(record, place))
    return states, num_perturbed


def _state(record: dict[str, Any], place: Place) -> _State:
    query = record["instance"].get("input")
    check_object(query, place.path, row=place.row, field="instance.input")
    words = text_field(query.get("text"), "instance.input.text", place, empty=True)
    mapping = record.get("output_mapping")
    options: dict[str, Any] = mapping if isinstance(mapping, dict) else {}
    if options:
        words = "\n".join([words, *(f"{letter}. {option}" for letter, option in options.items())])
    request = record.get("request")
    prompt = request.get("prompt") if isinstance(request, dict) else None
    result = record.get("result")
    completions = result.get("completions") if isinstance(result, dict) else None
    first = completions[0] if isinstance(completions, list) and completions else None
    completion = first.get("text") if isinstance(first, dict) else None
    answer = completion.strip() or None if isinstance(completion, str) else None
    return _State(words, prompt, answer)


def _statistics(record: dict[str, Any], place: Place) -> dict[str, float]:
    """The means of a record's statistics by name; those of perturbed copies are not among them."""
    entries = record.get("stats")
    if not isinstance(entries, list):
        raise place.error(f"must be a list of statistics, got {shown(entries)}", "stats")
    values: dict[str, float] = {}
    for stat in entries:
        check_object(stat, place.path, row=place.row, field="stats")
        about = stat.get("name")
        check_object(about, place.path, row=place.row, field="stats.name")
        name = text_field(about.get("name"), "stats.name.name", place)
        if about.get("perturbation") is not None or not stat.get("count"):
            continue
        if name in values:
            raise place.error("must be given once, got it twice", f"stats.{name}")
        values[name] = score_of(stat.get("mean"), f"stats.{name}.mean", place)
    return values


def _example(values: dict[str, float]) -> str:
    """A statistic that says right or wrong, if there is one."""
    return next((name for name in _PREFERRED if name in values), min(values, default="exact_match"))


def _metric(values: dict[str, float], metric: str | None, place: Place) -> str:
    """The statistic to read."""
    if metric is not None:
        if metric in values:
            return metric
        raise place.error(
            f"must hold the statistic {metric!r}, got {sorted(values)}",
            "stats",
            Remedy("pass, for example: {}", metric=_example(values)),
        )
    default = next((name for name in _PREFERRED if name in values), None)
    if default is None:
        raise place.error(
            f"must hold one of {', '.join(_PREFERRED)}, got {sorted(values)}",
            "stats",
            Remedy("pass {}", metric=...),
        )
    return default
