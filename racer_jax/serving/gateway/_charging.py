"""What a request counts against the day of its key: kept before its calls, settled after them."""

from typing import TYPE_CHECKING

from racer_jax.serving.gateway._budgets import Reservation
from racer_jax.serving.gateway._costs import estimated, most_of_calls
from racer_jax.serving.gateway._planning import Plan
from racer_jax.serving.gateway._records import CallRow

if TYPE_CHECKING:
    from racer_jax.serving.gateway._completions import Completion


def check_day(completion: "Completion") -> None:
    """Refuses a request of a key whose day is spent, before anything is decided.

    Raises:
      GatewayError: If it is.
    """
    client = completion.client
    if client.key.daily_dollars is not None:
        completion.gateway.budgets.check(client.name, client.key.daily_dollars)


def reservation(completion: "Completion", plan: Plan) -> Reservation | None:
    """Keeps what a request may cost, of the dollars of its key's day; None without a limit.

    Raises:
      GatewayError: If too little is left.
    """
    client, planner = completion.client, completion.planner
    limit = client.key.daily_dollars
    if limit is None:
        return None
    calls, judge = list(plan.models), None
    may_abstain = plan.abstained or (plan.mode == "cascade" and not plan.scores)
    if may_abstain and completion.on_abstain == "fallback" and completion.fallback() not in calls:
        calls.append(completion.fallback())
    if plan.mode in ("select", "synthesize") and len(calls) > 1 and planner is not None:
        judge = planner.route.judge
    models = completion.gateway.settings.models
    picks = plan.mode == "select"
    streams = completion.query.stream and completion.single() is not None
    dollars, is_most = most_of_calls(completion.query, models, calls, judge, picks, streams)
    return completion.gateway.budgets.reserve(client.name, limit, dollars, is_most=is_most)


def charge(completion: "Completion", cost: float | None, calls: list[CallRow]) -> float | None:
    """Counts a request against the day of its key, and gives back what was kept for it.

    Args:
      completion: The request.
      cost: What its calls cost, as far as known.
      calls: The rows of its calls.

    Returns:
      What was counted, an estimate of what nobody said included; None without a limit.
    """
    budgets, client = completion.gateway.budgets, completion.client
    charged = None
    if client.key.daily_dollars is not None:
        replies = completion.asking.panel.replies.values()
        answers = {reply.model: len(reply.content or "") / 4 for reply in replies}
        if completion.passed:
            answers[completion.passed] = completion.num_passed
        models, begun = completion.gateway.settings.models, completion.asking.begun
        passed = completion.passed
        charged = (cost or 0.0) + estimated(completion.query, models, begun, calls, answers, passed)
        budgets.spend(client.name, charged)
    elif cost:
        budgets.spend(client.name, cost)
    give_back(completion)
    return charged


def give_back(completion: "Completion") -> None:
    """Nothing is kept for a request any more, however it ended."""
    if completion.reservation is not None:
        completion.reservation.give_back()
