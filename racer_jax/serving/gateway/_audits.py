"""The audited share of traffic: all models answer in the background, and the answers are labelled.

Whether a request is audited depends on a keyed hash of its name alone: neither its content nor its
answer, so the labels are those of a random sample of the traffic.
"""

import asyncio
import time
from collections.abc import Mapping
from typing import Any

import aiohttp
import msgspec

from racer_jax.serving.gateway._completions import Completion
from racer_jax.serving.gateway._errors import CallFailedError, GatewayError
from racer_jax.serving.gateway._identifiers import seconds_of
from racer_jax.serving.gateway._judging import label_request, verdict_from
from racer_jax.serving.gateway._panel import Panel
from racer_jax.serving.gateway._records import AuditRow, Feedback
from racer_jax.serving.gateway._replies import Fields, Reply
from racer_jax.serving.gateway._store import Store, answer_of
from racer_jax.serving.gateway.core import LOG, Gateway

Labels = dict[str, int]
_HOOK_SECONDS = 600.0
# Time within which a decision is written: its group waits a twentieth of a second, then its turn.
_ROW_SECONDS = 2.0
_LONGEST_REPLY = 1 << 20


def start_audit(completion: Completion) -> None:
    """Audits a request in the background, if the hash drew it."""
    plan, gateway = completion.plan, completion.gateway
    if not completion.audited or plan is None or plan.routed is None:
        return
    if gateway.num_background >= gateway.settings.audit.max_waiting:
        gateway.metrics.audits.add(("skipped",))
        return
    gateway.background(_audit(completion))


async def _audit(completion: Completion) -> None:
    """Asks the models that were not called, keeps the answers, and has them labelled."""
    gateway, plan, planner = completion.gateway, completion.plan, completion.planner
    assert plan is not None
    assert plan.routed is not None
    assert planner is not None
    replies = dict(completion.asking.panel.replies)
    pool = list(plan.scores)
    missing = [model for model in pool if model not in replies]
    fields = completion.query.fields
    extra = await asyncio.gather(*(_reply(gateway, model, fields) for model in missing))
    replies |= {reply.model: reply for reply in extra if reply is not None}
    complete = all(model in replies for model in pool)
    gateway.metrics.audits.add(("complete" if complete else "incomplete",))
    gateway.count(Panel({r.model: r for r in extra if r is not None}), {})
    if not complete:  # a label of some models says neither a miss nor that there was none
        return
    racer = planner.loaded.racers[plan.alpha]
    gateway.store.add(
        AuditRow(
            id=completion.id,
            at=time.time(),
            messages=bytes(fields["messages"]),
            answers={model: _words(replies[model]) for model in pool},
            nonconformity=plan.routed.nonconformity.tobytes(),
            checksum=planner.loaded.checksum,
            null=racer.null,
        )
    )
    await _label(gateway, completion.id, fields, {model: replies[model] for model in pool})


async def _reply(gateway: Gateway, model: str, fields: Fields) -> Reply | None:
    try:
        return await gateway.upstreams[model].call(fields)
    except CallFailedError:
        return None


def _words(reply: Reply) -> str:
    """What a model wrote, its calls of tools included."""
    if reply.tool_calls:
        return bytes(reply.message).decode()
    return reply.content or reply.refusal or ""


async def _label(gateway: Gateway, name: str, fields: Fields, replies: Mapping[str, Reply]) -> None:
    """Has an audit labelled, unless people or programs do it from the queue."""
    audit = gateway.settings.audit
    labels: Labels | None = None
    if audit.labeller == "judge":
        labels, source = await _judged(gateway, str(audit.judge), fields, replies), "judge"
    elif audit.labeller == "hook":
        labels, source = await _hooked(gateway, str(audit.hook), name, fields, replies), "test"
    if audit.labeller == "queue":
        return
    gateway.metrics.audits.add(("not labelled" if labels is None else "labelled",))
    if labels is None:
        return
    entry = msgspec.convert({"id": name, "correct": labels, "source": source}, Feedback)
    try:
        await keep(gateway.store, entry, gateway.settings.state.store_prompts)
    except GatewayError as error:
        LOG.warning("an audit could not be labelled: %s", error)


async def _judged(
    gateway: Gateway, judge: str, fields: Fields, replies: Mapping[str, Reply]
) -> Labels | None:
    """What a judge says of each answer; None unless it says it of all."""
    verdicts = await asyncio.gather(
        *(_reply(gateway, judge, label_request(fields, reply)) for reply in replies.values())
    )
    said = [None if one is None else verdict_from(one.content) for one in verdicts]
    if None in said:
        return None
    return {model: int(bool(right)) for model, right in zip(replies, said, strict=True)}


async def _hooked(
    gateway: Gateway, url: str, name: str, fields: Fields, replies: Mapping[str, Reply]
) -> Labels | None:
    """What a test at an address says of each answer; None unless it says it of all."""
    answers = {model: _words(reply) for model, reply in replies.items()}
    body = msgspec.json.encode({"id": name, "messages": fields["messages"], "answers": answers})
    try:
        async with (
            asyncio.timeout(_HOOK_SECONDS),
            gateway.session.post(
                url,
                data=body,
                headers={"content-type": "application/json"},
                allow_redirects=False,
            ) as response,
        ):
            content = await response.content.read(_LONGEST_REPLY)
            correct = msgspec.json.decode(content)["correct"]
            labels = {model: int(correct[model]) for model in replies}
    except (
        aiohttp.ClientError,
        OSError,
        TimeoutError,
        LookupError,
        TypeError,
        ValueError,
    ) as error:
        LOG.warning("the hook gave no labels: %r", error)
        return None
    return labels if set(labels.values()) <= {0, 1} else None


async def keep(store: Store, entry: Feedback, keep_texts: bool) -> bool:
    """Keeps feedback; texts of an audit that has its label are deleted.

    Args:
      store: The state.
      entry: The feedback.
      keep_texts: Whether texts are kept all the same.

    Returns:
      Whether it is new.

    Raises:
      GatewayError: If it cannot be taken.
    """
    new = await _kept(store, entry)
    of_set = entry.correct is not None or entry.missed is not None
    if new and of_set and not keep_texts and entry.source != "user":
        store.ask(
            lambda connection: (
                connection.execute(
                    "update audit set messages = null, answers = '{}' where decision = ?",
                    [entry.id],
                ).rowcount
            )
        )
    return new


async def _kept(store: Store, entry: Feedback) -> bool:
    """Keeps feedback; that on a decision of another replica may be sooner here than its row."""
    while True:
        try:
            return await answer_of(store.feedback(entry))
        except GatewayError as error:
            decided = seconds_of(entry.id)
            if not store.shared or error.status != 404 or decided is None:
                raise
            if time.time() - decided > _ROW_SECONDS:
                raise
        await asyncio.sleep(0.1)


async def waiting_audits(store: Store, limit: int) -> list[dict[str, Any]]:
    """Audits of which nobody has said whether their sets missed, oldest first."""

    def read(connection: Any) -> list[dict[str, Any]]:
        rows = connection.execute(
            "select a.decision, a.at, a.messages, a.answers, d.route, d.grp from audit a "
            "join decision d on d.id = a.decision where a.messages is not null and not exists "
            "(select 1 from feedback f where f.decision = a.decision and f.source != 'user' "
            "and (f.content like ? or f.content like ?)) order by a.at limit ?",
            ['%"correct":%', '%"missed":%', limit],
        ).fetchall()
        return [_waiting(*row) for row in rows]

    return await answer_of(store.ask(read))


def _waiting(
    name: str, at: float, messages: bytes, answers: str, route: str, group: str | None
) -> dict[str, Any]:
    """An audit that waits; of one that was damaged, only what is wrong with it."""
    shown = {"id": name, "at": at, "route": route, "group": group}
    try:
        for content in (messages, answers):
            msgspec.json.decode(content)
        texts = {"messages": msgspec.Raw(messages), "answers": msgspec.Raw(answers.encode())}
        msgspec.json.encode(shown)
    except (msgspec.MsgspecError, ValueError, TypeError, AttributeError) as error:
        return {"id": str(name), "unreadable": str(error)}
    return {**shown, **texts}


def labels_of(body: bytes) -> list[Feedback]:
    """Labels of several audits, `[{"id": ..., "correct": {...}}]`, as feedback of an audit.

    Raises:
      GatewayError: If they are none.
    """
    try:
        entries = msgspec.json.decode(body, type=list[Feedback])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise GatewayError(
            400, "invalid_request_error", f"the request holds no labels: {error}"
        ) from None
    return [
        entry if entry.source != "user" else msgspec.structs.replace(entry, source="audit")
        for entry in entries
    ]
