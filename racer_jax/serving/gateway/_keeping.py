"""Which answers are kept, for how long, and for which requests they stand."""

from typing import TYPE_CHECKING

from racer_jax.serving.gateway._cache import key_of

if TYPE_CHECKING:
    from racer_jax.serving.gateway._completions import Completion


def kept_as(completion: "Completion") -> tuple[bytes | None, float]:
    """What stands for requests whose answer is the same, and the seconds for which it is kept.

    Returns:
      None in the place of what stands for them where the answer is not kept.
    """
    query, planner, plan = completion.query, completion.planner, completion.plan
    if planner is None or plan is None or not planner.route.cache_seconds or plan.mode == "cascade":
        return None, 0.0
    if query.stream or "tools" in query.needs or not query.is_greedy:
        return None, 0.0
    about = (planner.name, planner.loaded.checksum, completion.client.name, plan.alpha, plan.mode)
    key = key_of(query.fields, *about, completion.on_abstain, *plan.models, *plan.void)
    return key, planner.route.cache_seconds


def keep(completion: "Completion", key: bytes, seconds: float) -> None:
    """Keeps an answer, with all that the models said, unless one of them or the judge failed."""
    answer, panel = completion.answer, completion.asking.panel
    if answer is None or not answer.replies or panel.failed or panel.extra_failed:
        return
    size = sum(len(raw) for reply in panel.replies.values() for raw in reply.fields.values())
    completion.gateway.cache.put(key, seconds, (answer, panel), size)
