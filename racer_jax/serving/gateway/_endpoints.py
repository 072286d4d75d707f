"""The other endpoints of the inference port: models, decisions without calls, feedback."""

import asyncio
from typing import Any

import msgspec

from racer_jax.serving.gateway._audits import keep
from racer_jax.serving.gateway._errors import GatewayError, bad_request
from racer_jax.serving.gateway._exchange import (
    Receive,
    Scope,
    Send,
    body_of,
    header_of,
    respond_json,
)
from racer_jax.serving.gateway._facts import racer_object
from racer_jax.serving.gateway._keys import Client
from racer_jax.serving.gateway._panel import Panel
from racer_jax.serving.gateway._planning import Plan
from racer_jax.serving.gateway._queries import (
    PREFIX,
    Options,
    Query,
    check_alpha,
    check_group,
    query_of,
)
from racer_jax.serving.gateway._records import TRUSTED, check_models, feedback_of, unknown_id
from racer_jax.serving.gateway._store import answer_of
from racer_jax.serving.gateway.core import Gateway
from racer_jax.serving.gateway.settings import Name

_MOST_INPUTS = 1024
# What the object `racer` says of calls, which these decisions come without.
_OF_CALLS = frozenset({"id", "answered", "failed"})


class _Input(msgspec.Struct, forbid_unknown_fields=True):
    text: str | None = None
    messages: list[Any] | None = None
    group: Name | None = None
    id: str | None = None


class _RouteRequest(msgspec.Struct, forbid_unknown_fields=True):
    inputs: list[_Input]
    model: str | None = None
    alpha: str | float | None = None
    explain: bool = False


async def models(gateway: Gateway, scope: Scope, receive: Receive, send: Send) -> None:
    """`GET /v1/models`: the routes and experiments, then the upstreams."""
    gateway.keys.client(header_of(scope, b"authorization"), "infer")
    routes = [*gateway.planners, *gateway.settings.experiments]
    names = [(f"{PREFIX}{name}", "racer") for name in routes]
    names += [(name, "upstream") for name in gateway.upstreams]
    data = [
        {"id": name, "object": "model", "created": 0, "owned_by": owner} for name, owner in names
    ]
    await respond_json(send, {"object": "list", "data": data})


async def route(gateway: Gateway, scope: Scope, receive: Receive, send: Send) -> None:
    """`POST /v1/racer/route`: decisions, and no call."""
    client = gateway.keys.client(header_of(scope, b"authorization"), "infer")
    with gateway.admitted(answers=False):
        body = await body_of(scope, receive, gateway.settings.server)
        await respond_json(send, await _decisions(gateway, client, body))


async def _decisions(gateway: Gateway, client: Client, body: bytes) -> list[dict[str, Any]]:
    """The decisions that a request asks for."""
    try:
        request = msgspec.json.decode(body, type=_RouteRequest)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise bad_request(f"the request asks for no decisions: {error}") from None
    if not 1 <= len(request.inputs) <= _MOST_INPUTS:
        raise bad_request(
            f"inputs must be 1 to {_MOST_INPUTS}, got {len(request.inputs)}", "inputs"
        )
    name = (request.model or next(iter(gateway.planners))).removeprefix(PREFIX)
    planner = gateway.planners.get(name)
    if planner is None or planner.loaded.cascade is not None:
        raise bad_request(f"model must be a route with a racer, got {name!r}", "model")
    if request.alpha is not None and "alpha" not in client.key.overrides:
        raise GatewayError(403, "permission_error", "this key may not set alpha", param="alpha")
    check_alpha(client, request.alpha)
    planner.level(request.alpha, "alpha")
    for one in request.inputs:
        check_group(client, one.group)
    most, situation = gateway.settings.server.max_messages, gateway.situation(name)

    async def planned(place: int, one: _Input) -> Plan:
        try:
            query = _query(one, request.alpha, client, most)
            return await planner.plan(query, situation)
        except GatewayError as error:
            raise _at(place, error) from None

    plans = await asyncio.gather(*(planned(i, one) for i, one in enumerate(request.inputs)))
    pairs = zip(request.inputs, plans, strict=True)
    artefact = planner.loaded.checksum
    return [_plain(one, plan, artefact, request.explain) for one, plan in pairs]


def _query(one: _Input, alpha: str | float | None, client: Client, most: int) -> Query:
    """An input as the request for a completion that it stands for, read as that would be.

    Raises:
      GatewayError: If it stands for none.
    """
    messages = one.messages
    if one.text is not None:
        messages = [{"role": "user", "content": one.text}]
    if messages is None:
        raise bad_request("it holds nothing", "messages")
    body = msgspec.json.encode({"model": "", "messages": messages})
    query = query_of(body, (), client, most)
    query.options = Options(alpha=alpha, group=one.group)
    return query


def _at(place: int, error: GatewayError) -> GatewayError:
    """The error of one input of several."""
    words = f"inputs[{place}]: {error.message}"
    if error.param == "messages":
        words = f"inputs[{place}] must hold text, or messages with a user's text: {error.message}"
    return GatewayError(error.status, error.type, words, code=error.code, param="inputs")


def _plain(one: _Input, plan: Plan, artefact: str, explain: bool) -> dict[str, Any]:
    """The decision on an input, with what a completion would say of it before any call."""
    assert plan.routed is not None
    decision = plan.routed.decision
    plain = decision.to_dict()
    if one.id is not None:
        plain["id"] = one.id
    if explain:
        plain["explanation"] = decision.explain()
    facts = racer_object("", plan, Panel(), None, False, artefact)
    plain["racer"] = {name: facts[name] for name in facts if name not in _OF_CALLS}
    return plain


async def feedback(gateway: Gateway, scope: Scope, receive: Receive, send: Send) -> None:
    """`POST /v1/feedback`: kept before it is acknowledged."""
    authorization = header_of(scope, b"authorization")
    client = gateway.keys.client(authorization, "feedback")
    with gateway.admitted(while_draining=True, answers=False):
        await _take_feedback(gateway, client, scope, receive, send)


async def _take_feedback(
    gateway: Gateway, client: Client, scope: Scope, receive: Receive, send: Send
) -> None:
    entry = feedback_of(await body_of(scope, receive, gateway.settings.server))
    check_models(entry, gateway.upstreams)
    if entry.source in TRUSTED and "feedback:audit" not in client.key.roles:
        raise GatewayError(
            403,
            "permission_error",
            f"feedback of the source {entry.source!r} feeds monitors: it needs a key with the role "
            "'feedback:audit'",
            code="role",
        )
    new = await keep(gateway.store, entry, gateway.settings.state.store_prompts)
    missed = "unknown" if entry.missed is None else str(entry.missed)
    gateway.metrics.feedback.add((entry.source, missed))
    await respond_json(send, {"id": entry.id, "source": entry.source, "new": new})


async def decision(gateway: Gateway, scope: Scope, receive: Receive, send: Send) -> None:
    """`GET /v1/racer/decisions/{id}`: the record of a decision of the same client."""
    client = gateway.keys.client(header_of(scope, b"authorization"), "infer")
    name = scope["path_params"]["id"]
    plain = await answer_of(gateway.store.decision(name))
    if plain["client"] != client.name and "admin" not in client.key.roles:
        raise unknown_id(name)
    await respond_json(send, plain)
