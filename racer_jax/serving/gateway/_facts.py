"""What a response says of its decision: the headers and the `racer` object."""

from collections.abc import Mapping
from functools import lru_cache
from typing import Any
from urllib.parse import quote

from racer_jax.serving.gateway._answers import Answer
from racer_jax.serving.gateway._panel import Panel
from racer_jax.serving.gateway._planning import Plan
from racer_jax.serving.gateway._replies import Usage
from racer_jax.serving.gateway.settings import Model

# What may stand in a header as it is; a name with anything else is percent-encoded.
_SAFE = " /:.,-_@+()[]"
# Errors that say why nothing was decided, as the reasons of decisions do.
_DECLINED = frozenset({"racer_unknown_group", "racer_infeasible"})
Headers = list[tuple[bytes, bytes]]


def header(name: bytes, value: str) -> tuple[bytes, bytes]:
    """A header whose value cannot break a line."""
    return name, quote(value, safe=_SAFE).encode()


def void_reasons(plan: Plan, answer: Answer | None, panel: Panel) -> list[str]:
    """Why the promise does not hold; empty where it does.

    A call that was lost voids the promise of its request: its answer might have been the right one.
    Calls that were cancelled could not have changed the winner of a vote, and a lost call that
    could not either does no harm.
    """
    reasons = list(plan.void)
    if answer is not None:
        reasons += answer.void
    if lost := lost_calls(plan, answer, panel):
        reasons.append(f"gave no answer: {', '.join(lost)}")
    if plan.mode == "synthesize":
        reasons.append("a judge wrote the answer: no model of the set did")
    return reasons


def lost_calls(plan: Plan, answer: Answer | None, panel: Panel) -> list[str]:
    """Models of the set that gave no answer, where one might have mattered."""
    if not panel.failed or (answer is not None and answer.settled):
        return []
    return [name for name in panel.failed if name in plan.models]


def racer_object(
    name: str,
    plan: Plan,
    panel: Panel,
    answer: Answer | None,
    verbose: bool,
    artefact: str = "",
) -> dict[str, Any]:
    """The `racer` object of a response."""
    void = void_reasons(plan, answer, panel)
    failed = {model: error.reason for model, error in panel.failed.items()}
    answered = []
    if answer is not None:
        answered = [reply.model for reply in answer.replies]
    facts: dict[str, Any] = {
        "id": name,
        "set": plan.decided,
        "called": plan.models,
        "answered": answered,
        "failed": failed,
        "mode": plan.mode,
        "alpha": plan.alpha,
        "group": plan.group,
        "reason": reason(plan, panel),
        "guarantee": "void" if void else "holds",
        "artefact": artefact,
    }
    if plan.arm is not None:
        facts["arm"] = plan.arm
    if void:
        facts["void"] = void
    if answer is not None:
        if answer.votes is not None:
            facts["votes"] = answer.votes
        if answer.judge is not None:
            facts["judge"] = answer.judge
        facts |= answer.more
    if panel.cancelled:
        facts["cancelled"] = panel.cancelled
    if verbose and plan.routed is not None:
        decision = plan.routed.decision.to_dict()
        facts |= {key: decision[key] for key in ("scores", "margins", "threshold")}
    return facts


def reason(plan: Plan, panel: Panel) -> str:
    """The reason in the headers; lost calls count where nothing else is to be said."""
    if panel.failed and plan.reason == "ok" and not panel.failed.keys().isdisjoint(plan.models):
        return "degraded"
    return plan.reason


def headers(facts: Mapping[str, Any], seconds: float, guarantee: str | None = None) -> Headers:
    """The headers of a response.

    Args:
      facts: The `racer` object.
      seconds: What the gateway itself took.
      guarantee: What they say of the promise, where it is not what the object says.
    """
    arm = [header(b"x-racer-arm", facts["arm"])] if "arm" in facts else []
    return [
        *arm,
        (b"x-racer-id", facts["id"].encode()),  # hexadecimal digits: safe as they are
        *_decided(
            facts["reason"],
            tuple(facts["set"]),
            tuple(facts["answered"]),
            guarantee or facts["guarantee"],
            facts["artefact"],
            facts["alpha"],
        ),
        _overhead(seconds),
    ]


@lru_cache(maxsize=1024)  # the same few sets, names and reasons over and over
def _decided(
    reason: str,
    models: tuple[str, ...],
    answered: tuple[str, ...],
    guarantee: str,
    artefact: str,
    alpha: str,
) -> tuple[tuple[bytes, bytes], ...]:
    """The headers that many responses have in common."""
    return (
        header(b"x-racer-reason", reason),
        header(b"x-racer-set", ",".join(models)),
        header(b"x-racer-answered", ",".join(answered)),
        header(b"x-racer-guarantee", guarantee),
        header(b"x-racer-artefact", artefact),
        header(b"x-racer-alpha", alpha),
    )


def undecided(name: str, error_type: str, seconds: float) -> Headers:
    """The headers of a request for which nothing was decided: why, in the words of decisions."""
    reason = error_type.removeprefix("racer_") if error_type in _DECLINED else "refused"
    return [
        (b"x-racer-id", name.encode()),
        (b"x-racer-reason", reason.encode()),
        (b"x-racer-guarantee", b"void"),
        _overhead(seconds),
    ]


def _overhead(seconds: float) -> tuple[bytes, bytes]:
    return b"x-racer-overhead-ms", f"{seconds * 1e3:.2f}".encode()


def dollars(usage: Usage, model: Model) -> float | None:
    """What a call cost: by the prices of the configuration, else as the upstream says; or None."""
    known = usage.prompt_tokens or usage.completion_tokens  # no call takes none: it was not said
    if known and model.dollars_in is not None and model.dollars_out is not None:
        return (
            usage.prompt_tokens * model.dollars_in + usage.completion_tokens * model.dollars_out
        ) / 1e6
    return usage.cost


def usage_of(panel: Panel, models: Mapping[str, Model]) -> tuple[dict[str, Any], float | None]:
    """Usage and dollars of all calls of a request, those of the judge included."""
    prompt = completion = 0
    prices: list[float] = []
    used = [(reply.model, reply.usage) for reply in panel.replies.values()]
    for model, usage in (*used, *panel.extra.items()):
        prompt += usage.prompt_tokens
        completion += usage.completion_tokens
        price = dollars(usage, models[model])
        if price is not None:
            prices.append(price)
    cost = sum(prices) if prices and len(prices) == len(used) + len(panel.extra) else None
    plain: dict[str, Any] = {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
    }
    if cost is not None:
        plain["cost"] = cost
    return plain, cost
