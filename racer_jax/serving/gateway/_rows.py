"""Rows of the state, read whole or named as one that cannot be read.

A disk that loses bits, or a hand, may leave a row that no gateway wrote. What is read of a row is
checked before anything of it counts, so that such a row counts nowhere by half. Who reads the state
leaves it out, says so, and counts it in the way that speaks least for what is to be shown.
"""

import math
from collections.abc import Iterable, Sequence
from typing import Any, Literal, TypeVar

import msgspec

from racer_jax.data.errors import DataError
from racer_jax.serving.gateway._records import Source

Flag = Literal[0, 1]
Null = Literal["paper", "free", "never"]
T = TypeVar("T")
# The model whose answer was shown of a decision d; a judge may have written another one.
SHOWN_MODEL = "case when d.mode = 'synthesize' then '' else d.answered end"
_ERRORS = (msgspec.MsgspecError, ValueError, TypeError, RecursionError)


class UnreadableError(ValueError):
    """A row that no gateway wrote, or that was changed."""


class Decided(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    """What the tests need of a decision, in the order in which it is selected.

    Attributes:
      seq: Its place.
      id: Its name.
      at: When it was made, seconds since 1970.
      route: Name of the route.
      artefact: 12 digits of the artefact's checksum.
      top_score: The highest score of the router; None where none was computed.
      group: The group of the query.
      reason: Why these models.
      audited: Whether the keyed hash drew it.
      promised: Whether its set had a promise.
    """

    seq: int
    id: str
    at: float
    route: str
    artefact: str
    top_score: float | None
    group: str | None
    reason: str
    audited: Flag
    promised: Flag


class Activated(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    """An artefact that came into use.

    Attributes:
      seq: Its place.
      route: Name of the route.
      artefact: 12 digits of the artefact's checksum.
      null: The null mode.
    """

    seq: int
    route: str
    artefact: str
    null: Null


class Said(msgspec.Struct, omit_defaults=True):
    """What a label says, one of them at least.

    Attributes:
      correct: Whether each model's answer is right.
      missed: Whether no model of the set was right.
      answer_correct: Whether the answer that was shown is right.
    """

    correct: dict[str, Flag] | None = None
    missed: Flag | None = None
    answer_correct: Flag | None = None


class Label(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    """A label, with what is needed of its decision, in the order in which it is selected.

    Attributes:
      seq: Its place.
      decision: Name of the decision.
      source: Who says it.
      content: What it says, as JSON.
      at: When it came.
      route: Name of the route.
      artefact: 12 digits of the artefact's checksum.
      alpha: The level.
      decided: The set, as JSON.
      answered: The model whose answer was shown.
      null_in_set: Whether the null model is in the set.
      pool: All models that were scored, as JSON.
      audited: Whether the keyed hash drew it.
      promised: Whether its set had a promise.
    """

    seq: int
    decision: str
    source: Source
    content: str
    at: float
    route: str
    artefact: str
    alpha: str
    decided: str
    answered: str
    null_in_set: Flag
    pool: str
    audited: Flag
    promised: Flag

    def missed(self, said: Said, null: str) -> bool | None:
        """Whether the set was a miss; None where a label does not say it."""
        # It imports JAX, which who compares routes does not need.
        from racer_jax.serving.misses import miss_of

        decided, pool = set(models_of(self.decided)), set(models_of(self.pool))
        facts = msgspec.to_builtins(said)
        return miss_of(facts, decided, pool, bool(self.null_in_set), null)


class Kept(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    """What is needed to decide again, in the order in which it is selected.

    Attributes:
      id: Name of the decision.
      route: Name of the route.
      prompt: The text; None where texts were not kept.
      group: The group of the query.
      decided: The set, as JSON.
      pool: All models that were scored, as JSON.
      null_in_set: Whether the null model is in the set.
      audited: Whether the keyed hash drew it.
    """

    id: str
    route: str
    prompt: str | None
    group: str | None
    decided: str
    pool: str
    null_in_set: Flag
    audited: Flag


class Rated(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    """A label, with what a comparison of routes needs of its decision, as it is selected.

    Attributes:
      decision: Name of the decision.
      source: Who says it.
      content: What it says, as JSON.
      route: Name of the route.
      experiment: The experiment that drew the route; None without one.
      unit: Number of who the route was drawn for; None without an experiment.
      answered: The model whose answer was shown.
      audited: Whether the keyed hash drew it.
    """

    decision: str
    source: Source
    content: str
    route: str
    experiment: str | None
    unit: int | None
    answered: str
    audited: Flag


def decided_of(row: Sequence[Any]) -> Decided:
    """A decision.

    Raises:
      UnreadableError: If the row is none.
    """
    decided = _converted(row, Decided)
    if decided.top_score is not None and not math.isfinite(decided.top_score):
        raise UnreadableError(f"top_score must be a finite number, got {decided.top_score}")
    return decided


def activated_of(row: Sequence[Any]) -> Activated:
    """An artefact that came into use.

    Raises:
      UnreadableError: If the row is none.
    """
    return _converted(row, Activated)


def label_of(row: Sequence[Any]) -> tuple[Label, Said]:
    """A label, and what it says.

    Raises:
      UnreadableError: If the row, or that of its decision, is none.
    """
    label = _converted(row, Label)
    said = said_of(label.content)
    if label.alpha or label.audited:  # the call of a model that was named has no level
        _check_level(label.alpha)
    models_of(label.decided)
    models_of(label.pool)
    return label, said


def kept_of(row: Sequence[Any]) -> tuple[Kept, set[str], set[str]]:
    """A decision, its set and its pool.

    Raises:
      UnreadableError: If the row is none.
    """
    question = _converted(row, Kept)
    return question, set(models_of(question.decided)), set(models_of(question.pool))


def rated_of(row: Sequence[Any]) -> tuple[Rated, Said]:
    """A label, and what it says.

    Raises:
      UnreadableError: If the row, or that of its decision, is none.
    """
    rated = _converted(row, Rated)
    if rated.experiment is not None and rated.unit is None:
        raise UnreadableError("unit must be there where an experiment drew the route")
    return rated, said_of(rated.content)


def left_out(unreadable: Sequence[str], what: str = "rows") -> str:
    """What to say of rows that cannot be read.

    Args:
      unreadable: The name of each, and why.
      what: What they are.
    """
    return (
        f"{what} left out, for they or their decisions cannot be read in the state: "
        f"{len(unreadable):,} (first: {unreadable[0]})"
    )


def all_unreadable(unreadable: Iterable[str], place: str) -> DataError:
    """The error where nothing else is left.

    Args:
      unreadable: The name of each row, and why it cannot be read.
      place: The state.
    """
    problem = f"holds a row that no gateway wrote, or that was changed: {next(iter(unreadable))}"
    return DataError(problem, path=place)


def _check_level(alpha: str) -> None:
    try:
        level = float(alpha)
    except ValueError:
        level = math.nan
    if not 0 < level < 1:
        raise UnreadableError(f"alpha must be between 0 and 1, got {alpha!r}")


def said_of(content: str) -> Said:
    """What a label says.

    Raises:
      UnreadableError: If it says nothing that can be read.
    """
    said = _decoded(content, Said)
    if said == Said():
        raise UnreadableError("a label must hold correct, missed or answer_correct")
    return said


def models_of(text: str) -> list[str]:
    """The names of a set or a pool.

    Raises:
      UnreadableError: If it is none.
    """
    return _decoded(text, list[str])


def _converted(row: Sequence[Any], kind: type[T]) -> T:
    try:
        return msgspec.convert(row, kind)
    except _ERRORS as error:
        raise UnreadableError(str(error)) from None


def _decoded(text: str, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(text, type=kind)
    except _ERRORS as error:
        raise UnreadableError(str(error)) from None
