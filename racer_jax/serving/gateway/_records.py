"""What is kept of decisions, calls and feedback, and why feedback may be refused."""

from collections.abc import Collection, Iterable
from typing import Any, Literal

import msgspec

from racer_jax.serving.gateway._errors import GatewayError, bad_request

Source = Literal["audit", "user", "test", "judge"]
_SHOWN = 100  # characters of an id that an error repeats
# Labels that may feed a guarantee: those of decisions that the keyed hash drew.
TRUSTED = frozenset({"audit", "test", "judge"})


class CallRow(msgspec.Struct):
    """One call of a model.

    Attributes:
      model: Its name.
      outcome: `ok`, `cancelled`, or why it failed.
      seconds: How long it took.
      prompt_tokens: Tokens of the prompt.
      completion_tokens: Tokens of the answer.
      dollars: What it cost; None where not known.
    """

    model: str
    outcome: str
    seconds: float = 0.0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    dollars: float | None = None


class DecisionRow(msgspec.Struct):
    """One decision and what came of it.

    Attributes:
      id: Its name.
      at: When it was made, seconds since 1970.
      route: Name of the route.
      artefact: 12 digits of the artefact's checksum; empty for a bypass.
      client: Name of the client's key.
      alpha: The level.
      group: The group of the query.
      reason: Why these models.
      mode: How several answers became one.
      decided: The set that the racer decided on, most plausible first.
      called: The models that were called.
      answered: The model whose answer was shown; empty where there was none.
      failed: Models that gave no answer, and why.
      guarantee: `holds` or `void`.
      status: Status of HTTP; 499 where the client had gone.
      seconds: How long the request took.
      dollars: What its calls cost, as far as known.
      fingerprint: Fingerprint of the text, as a signed integer of 64 bits.
      top_score: The highest score of the router; None where none was computed.
      null_in_set: Whether the null model is in the set.
      pool: The models that were scored.
      scores: Their scores.
      audited: Whether the keyed hash drew it.
      prompt: The text, where texts are kept.
      promised: Whether the set that the racer decided on has the promise of the artefact, whatever
        became of the calls.
      experiment: The experiment that drew the route; None without one.
      unit: A keyed hash of the conversation, user or key it was drawn for, as a signed integer of
        64 bits; None without an experiment.
      charged: What counts against the day of a key with a limit: its dollars, and an estimate for
        calls whose cost nobody said; None for other keys.
      calls: The calls.
    """

    id: str
    at: float
    route: str
    artefact: str = ""
    client: str = ""
    alpha: str = ""
    group: str | None = None
    reason: str = "ok"
    mode: str = ""
    decided: tuple[str, ...] = ()
    called: tuple[str, ...] = ()
    answered: str = ""
    failed: dict[str, str] = msgspec.field(default_factory=dict)
    guarantee: str = "void"
    status: int = 200
    seconds: float = 0.0
    dollars: float | None = None
    fingerprint: int = 0
    top_score: float | None = None
    null_in_set: bool = False
    pool: tuple[str, ...] = ()
    scores: tuple[float, ...] = ()
    audited: bool = False
    prompt: str | None = None
    promised: bool = True
    experiment: str | None = None
    unit: int | None = None
    charged: float | None = None
    calls: list[CallRow] = msgspec.field(default_factory=list)


class AuditRow(msgspec.Struct):
    """An audited request: the answers of all models, until they are labelled.

    Attributes:
      id: Name of the decision.
      at: When it was drawn.
      messages: The conversation, as JSON.
      answers: What every model wrote; None for one that failed.
      nonconformity: E(x, m) of the pool and the null model, bytes of float32.
      checksum: The artefact that scored it.
      null: The null mode, which says what a miss is.
    """

    id: str
    at: float
    messages: bytes
    answers: dict[str, str | None]
    nonconformity: bytes
    checksum: str
    null: str


class Feedback(msgspec.Struct, forbid_unknown_fields=True, kw_only=True, frozen=True):
    """What somebody says of a decision.

    Attributes:
      id: Name of the decision.
      correct: Whether each model's answer is right, 0 or 1.
      missed: Whether no model of the set was right.
      answer_correct: Whether the answer that was shown is right. Alone it says nothing of the set:
        an audited request goes on waiting for its label.
      source: Who says so. Only `audit`, `test` and `judge`, of an audited decision, feed a monitor.
      labeller: Name of the person or program.
      comment: Free text.
    """

    id: str
    correct: dict[str, Literal[0, 1]] | None = None
    missed: Literal[0, 1] | None = None
    answer_correct: Literal[0, 1] | None = None
    source: Source = "user"
    labeller: str | None = None
    comment: str | None = None


_feedback = msgspec.json.Decoder(Feedback)


def feedback_of(body: bytes) -> Feedback:
    """Reads feedback.

    Raises:
      GatewayError: If it is none.
    """
    try:
        entry = _feedback.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise bad_request(f"the request is not feedback: {error}") from None
    if entry.correct is None and entry.missed is None and entry.answer_correct is None:
        raise bad_request("feedback must hold correct, missed or answer_correct")
    return entry


def check_models(entry: Feedback, models: Iterable[str]) -> None:
    """Refuses what is said of models that there are not: it would count nowhere.

    Raises:
      GatewayError: If there is one.
    """
    known = set(models)
    if entry.correct is not None and not entry.correct:  # it would keep a real label out
        raise bad_request(
            f"correct must say 0 or 1 of models of the gateway, {', '.join(sorted(known))}: got "
            "none",
            "correct",
        )
    unknown = [name for name in entry.correct or () if name not in known]
    if unknown:
        raise bad_request(
            f"correct must name models of the gateway, {', '.join(sorted(known))}: got "
            f"{', '.join(unknown)}",
            "correct",
        )


def check_label(
    entry: Feedback, decided: Collection[str], answered: str, pool: Collection[str], audited: bool
) -> None:
    """Refuses feedback whose fields contradict each other, and a label of an audit with gaps.

    Args:
      entry: The feedback.
      decided: The set of the decision.
      answered: The model whose answer was shown; empty where it was that of none.
      pool: All models that were scored.
      audited: Whether the request was audited.

    Raises:
      GatewayError: If it does: only one of the fields would count.
    """
    correct = entry.correct or {}
    lacking = [name for name in pool if name not in correct]
    if correct and lacking and audited and entry.source in TRUSTED:
        # It says neither a miss nor that there was none, and would keep a whole label out.
        raise bad_request(
            f"correct must say 0 or 1 of every model of an audited request: {', '.join(lacking)} "
            "is missing",
            "correct",
        )
    right = [name for name in decided if correct.get(name)]
    if entry.missed and right:
        raise bad_request(
            "missed = 1 says that no model of the set was right, and correct says that "
            f"{', '.join(right)} was",
            "missed",
        )
    # Where no model is right at all, the null mode says whether that is a miss.
    if entry.missed == 0 and not lacking and not right and any(correct[name] for name in pool):
        raise bad_request(
            "missed = 0 says that a model of the set was right, and correct says that none was, "
            "though others were",
            "missed",
        )
    if entry.answer_correct is not None and correct.get(answered, entry.answer_correct) != (
        entry.answer_correct
    ):
        raise bad_request(
            f"answer_correct = {entry.answer_correct} is about the answer of {answered}, and "
            f"correct says {correct[answered]} of it",
            "answer_correct",
        )
    if entry.missed and entry.answer_correct and answered in decided:
        raise bad_request(
            "missed = 1 says that no model of the set was right, and answer_correct = 1 that "
            f"{answered} was, which is one of the set",
            "answer_correct",
        )


def unknown_id(name: str) -> GatewayError:
    """Feedback on what was never decided here."""
    return GatewayError(
        404, "not_found_error", f"there is no decision {name[:_SHOWN]!r}", code="unknown_decision"
    )


def past_retention(name: str) -> GatewayError:
    """Feedback that comes too late."""
    return GatewayError(
        410,
        "not_found_error",
        f"the decision {name[:_SHOWN]!r} was deleted: it was too old",
        code="expired",
    )


def unreadable(name: str, problem: str) -> GatewayError:
    """What is asked about a decision of which a row was damaged: another try ends the same way."""
    return GatewayError(
        410,
        "not_found_error",
        f"a row of the decision {name[:_SHOWN]!r} cannot be read in the state: {problem}",
        code="unreadable",
    )


def contradicts(name: str, source: str) -> GatewayError:
    """Feedback that says other than before."""
    return GatewayError(
        409,
        "conflict_error",
        f"{source} gave other feedback on {name[:_SHOWN]!r} before; the first counts",
        code="contradiction",
    )


def plain_row(names: list[str], row: tuple[Any, ...]) -> dict[str, Any]:
    """A row of a table by column, its JSON read."""
    plain = dict(zip(names, row, strict=True))
    for name in ("decided", "called", "failed", "pool", "scores"):
        if isinstance(plain.get(name), str):
            plain[name] = msgspec.json.decode(plain[name])
    return plain
