"""Ways of answering: one model, a vote, a choice of a judge, all answers, one after another."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from racer_jax.sequential.normal_forms import NormalForm
from racer_jax.serving.cascade import Cascade
from racer_jax.serving.gateway._errors import CallFailedError, GatewayError
from racer_jax.serving.gateway._identifiers import draw
from racer_jax.serving.gateway._judging import pick_from, pick_request, probability_of
from racer_jax.serving.gateway._panel import Asking, all_failed
from racer_jax.serving.gateway._replies import Reply
from racer_jax.serving.gateway._votes import Vote

# A cascade promises that few of its answers are wrong, and it gives none where none is safe.
NOT_SAFE = "no answer was safe enough, and that of the fallback model is shown all the same"


@dataclass
class Answer:
    """What goes back to the client.

    Attributes:
      replies: Whose answers are shown: one, or several in the mode `all`; empty for a refusal.
      votes: Number of models for each answer in normal form; None where there was no vote.
      judge: What became of the judge: `picked`, `wrote`, `failed` or `one candidate`; None without
        a judge.
      more: Further facts for the `racer` object.
      void: Why the promise does not hold, beside the reasons of the plan.
      abstained: Whether nothing is safe enough to be shown.
      settled: Whether the calls that were lost could not have changed the answer.
    """

    replies: list[Reply]
    votes: dict[str, int] | None = None
    judge: str | None = None
    more: dict[str, Any] = field(default_factory=dict)
    void: list[str] = field(default_factory=list)
    abstained: bool = False
    settled: bool = False


async def ask_all(asking: Asking, models: Sequence[str]) -> Answer:
    """Every answer, most plausible first."""
    await asking.all(models)
    return Answer([asking.panel.replies[m] for m in models if m in asking.panel.replies])


async def vote(asking: Asking, models: Sequence[str], scores: Any, form: NormalForm) -> Answer:
    """The answer that most models give, in the words of the most plausible that gives it.

    Calls that can no longer change the winner are cancelled.

    Args:
      asking: How to ask.
      models: Whom to ask, most plausible first.
      scores: The router's scores by model, which break ties.
      form: From what a model wrote to the answer that is compared.

    Raises:
      GatewayError: If no model gives an answer.
    """
    if len(models) == 1:
        await asking.all(models)
        return Answer([asking.panel.replies[models[0]]])
    ballot = Vote({model: scores[model] for model in models})
    replies = asking.panel.replies
    async with asking.several(models) as names:
        async for model in names:
            content = replies[model].content if model in replies else None
            answer = None if content is None else form(content)
            ballot.add(model, answer)
            if ballot.decided():
                break
    if not replies:
        raise all_failed(asking.panel.failed)
    winner = ballot.winner
    voters = set(replies) if winner is None else set(ballot.voters(winner))
    shown = next(model for model in models if model in voters)
    return Answer(
        [replies[shown]], votes=ballot.counts, settled=ballot.decided_without(asking.panel.failed)
    )


async def select(
    asking: Asking,
    models: Sequence[str],
    judge: str,
    key: bytes,
    name: str,
    logprobs: bool = False,
) -> Answer:
    """The answer that a judge picks, verbatim; the most plausible where the judge fails.

    Args:
      asking: How to ask.
      models: Whom to ask, most plausible first.
      judge: The model that picks.
      key: Key of the order in which the judge sees the candidates.
      name: Name of the decision.
      logprobs: Whether to ask the judge how probable its choice is.

    Raises:
      GatewayError: If no model gives an answer.
    """
    await asking.all(models)
    replies = [asking.panel.replies[m] for m in models if m in asking.panel.replies]
    if len(replies) == 1 or len({bytes(reply.message) for reply in replies}) == 1:
        return Answer(replies[:1], judge="one candidate")
    shuffled = sorted(replies, key=lambda reply: draw(key, f"{name} {reply.model}", "judge"))
    try:
        verdict = await asking.judged(judge, pick_request(asking.fields, shuffled, logprobs))
    except CallFailedError as error:
        return without_judge(replies, error)
    place = pick_from(verdict.content, len(shuffled))
    if place is None:
        return Answer(replies[:1], judge="failed", more={"judge_error": "names no candidate"})
    probability = probability_of(verdict, place) if logprobs else None
    more = {} if probability is None else {"judge_probability": round(probability, 6)}
    return Answer([shuffled[place]], judge="picked", more=more)


def without_judge(replies: Sequence[Reply], error: CallFailedError) -> Answer:
    """The most plausible of the candidates, where the judge gives no answer."""
    return Answer([*replies[:1]], judge="failed", more={"judge_error": error.reason})


async def run_cascade(
    asking: Asking,
    cascade: Cascade,
    text: str,
    group: str | None,
    dead: Callable[[str], bool],
) -> Answer:
    """One batch of calls after another, until stopping is safe.

    Args:
      asking: How to ask.
      cascade: The policy and its calibration.
      text: The query's text.
      group: Its group.
      dead: Whether a model is down; it then gives no answer.

    Raises:
      GatewayError: If no model gives an answer.
    """
    state = cascade.start(text, group)
    panel = asking.panel
    while not state.done:
        alive = [model for model in state.call if not dead(model)]
        for model in state.call:
            if model not in alive:
                panel.failed[model] = CallFailedError("open")
        if alive:
            async with asking.several(alive) as names:
                async for _ in names:
                    pass
        heard = {m: panel.replies[m].content if m in panel.replies else None for m in state.call}
        state = cascade.tell(state, heard)
    if not panel.replies:
        raise all_failed(panel.failed)
    more = {"stopped": state.reason, "calls": state.calls}
    if state.reason == "abstained":
        return Answer([], more=more, abstained=True)
    shown = next(
        (m for m, answer in state.answers.items() if answer == state.answer and answer is not None),
        None,
    )
    if shown is None:  # whoever answered gave nothing in normal form
        shown = next(iter(panel.replies))
    return Answer([panel.replies[shown]], more=more)


def refusal_text(alpha: str) -> str:
    """What a client reads where the racer abstains and `on_abstain` is `refusal`."""
    return f"No model is likely enough to answer this rightly at a risk of {alpha}."


def abstained_error(alpha: str) -> GatewayError:
    """The error where the racer abstains and `on_abstain` is `error`."""
    return GatewayError(
        422,
        "racer_abstained",
        f"no model is plausible enough at alpha = {alpha}; ask another way, or let on_abstain be "
        "'fallback'",
    )
