"""The management port: health, metrics, status, artefacts in and out of use, the audit queue."""

import asyncio
from typing import Any

from racer_jax._distribution import __version__
from racer_jax.data.errors import DataError
from racer_jax.serving.gateway._audits import keep, labels_of, waiting_audits
from racer_jax.serving.gateway._errors import GatewayError, bad_request
from racer_jax.serving.gateway._exchange import (
    Receive,
    Scope,
    Send,
    body_of,
    header_of,
    respond,
    respond_json,
)
from racer_jax.serving.gateway._metrics import CONTENT_TYPE
from racer_jax.serving.gateway._monitoring import upper_bound
from racer_jax.serving.gateway._openapi import document
from racer_jax.serving.gateway._planning import Planner
from racer_jax.serving.gateway._records import Feedback, check_models
from racer_jax.serving.gateway._references import EVERYTHING
from racer_jax.serving.gateway._watched import Watched
from racer_jax.serving.gateway.core import Gateway

_QUEUE = 100
_NOT_WRITTEN = "the state cannot be written"


def check_admin(gateway: Gateway, scope: Scope) -> None:
    """Refuses who may not manage: where a key has the role `admin`, only such keys may.

    Raises:
      GatewayError: If it is somebody else.
    """
    if any("admin" in key.roles for key in gateway.settings.keys.values()):
        gateway.keys.client(header_of(scope, b"authorization"), "admin")


async def openapi(gateway: Gateway, scope: Scope, receive: Receive, send: Send) -> None:
    """`GET /openapi.json`."""
    await respond_json(send, document())


async def health(gateway: Gateway, scope: Scope, receive: Receive, send: Send) -> None:
    """`GET /healthz`: the process answers."""
    await respond_json(send, {"status": "ok", "version": __version__})


def problems(gateway: Gateway) -> list[str]:
    """Why the gateway is not ready; empty where it is."""
    lacking = []
    if not gateway.ready:
        lacking.append("the artefacts are not loaded")
    if gateway.draining:
        lacking.append("it is draining")
    # One that is due to be tried again needs a request for it.
    breakers = [upstream.breaker for upstream in gateway.upstreams.values()]
    if all(breaker.is_open and not breaker.is_due for breaker in breakers):
        lacking.append("every model is down")
    if not gateway.records:
        lacking.append(_NOT_WRITTEN)
    return lacking


def notices(gateway: Gateway) -> list[str]:
    """What somebody should look after though requests are answered as they should be."""
    said, store = [], gateway.store
    if store.error is not None and gateway.records:
        said.append(
            f"{_NOT_WRITTEN}: answers go on, {store.num_kept} rows wait in memory, feedback and "
            "labels are refused"
        )
    if store.damage is not None:
        said.append(store.damage)
    if gateway.key_notice is not None:
        said.append(gateway.key_notice)
    if store.dropped:
        said.append(f"{store.dropped} rows of decisions and audits were lost")
    if gateway.monitors.unreadable:
        said.append(
            f"{gateway.monitors.unreadable} rows of the state cannot be read and count as missed"
        )
    return said


async def ready(gateway: Gateway, scope: Scope, receive: Receive, send: Send) -> None:
    """`GET /readyz`: whether requests are answered as they should be.

    Artefacts are loaded, shapes compiled, and at least one model is up. A state that cannot be
    written is no reason to send requests elsewhere unless they are refused for it: with one
    replica, or a database that is away for all of them, there is nowhere else.
    """
    lacking = problems(gateway)
    body = {"ready": not lacking, "problems": lacking, "warnings": notices(gateway)}
    await respond_json(send, body, 503 if lacking else 200)


async def metrics(gateway: Gateway, scope: Scope, receive: Receive, send: Send) -> None:
    """`GET /metrics`, for Prometheus."""
    counted = gateway.metrics
    counted.in_flight.set(gateway.in_flight)
    counted.depth.set(gateway.batcher.depth)
    counted.failing.set(gateway.store.error is not None)
    counted.rows_kept.set(gateway.store.num_kept)
    counted.rows_lost.set(gateway.store.dropped)
    counted.rows_unreadable.set(gateway.monitors.unreadable)
    for name, upstream in gateway.upstreams.items():
        counted.breaker.labels(name).set(upstream.breaker.is_open)
    for name, planner in gateway.planners.items():
        watched = gateway.monitors.of(name, planner.loaded.checksum)
        # Copies: the thread that writes the state adds tests meanwhile.
        counted.alarm.labels(name).set(bool(watched.alarms))
        for alpha, monitor in watched.risk.copy().items():
            counted.evidence.labels(f"risk {alpha}", name, EVERYTHING).set(monitor.evidence)
        for group, test in watched.top_scores.copy().items():
            counted.evidence.labels("exchangeability", name, group).set(test.evidence)
    await respond(send, 200, [(b"content-type", CONTENT_TYPE.encode())], counted.text())


async def status(gateway: Gateway, scope: Scope, receive: Receive, send: Send) -> None:
    """`GET /status`: what is promised, what was measured, and what is wrong."""
    await respond_json(
        send,
        {
            "version": __version__,
            "problems": problems(gateway),
            "warnings": notices(gateway),
            "in_flight": gateway.in_flight,
            "background": gateway.num_background,
            "rows_kept": gateway.store.num_kept,  # until the state can be written again
            "rows_lost": gateway.store.dropped,  # decisions and audits that could not be written
            # What the monitors left out; how it counts, the monitors of each route say.
            "rows_unreadable": gateway.monitors.unreadable,
            "routes": {
                name: _route_status(gateway, name, planner)
                for name, planner in gateway.planners.items()
            },
            "models": {
                name: {
                    "down": upstream.breaker.is_open,
                    "calls": upstream.calls.num,
                    "lost": upstream.calls.lost,
                    "loss_rate_upper_bound": upper_bound(upstream.calls.lost, upstream.calls.num),
                    "outcomes": upstream.calls.outcomes,
                }
                for name, upstream in gateway.upstreams.items()
            },
        },
    )


def _route_status(gateway: Gateway, name: str, planner: Planner) -> dict[str, Any]:
    loaded, before = planner.loaded, gateway.previous.get(name)
    watched = gateway.monitors.of(name, loaded.checksum)
    num, lost = gateway.losses.get(name, (0, 0))
    # Counted, and not alpha plus the errors of a vote or judge: a question that no model can answer
    # may be no miss, and its answer is wrong all the same.
    labels, delivered = watched.labels, None
    unreadable = labels["unreadable"]  # each may say that the answer was wrong
    if answers := labels.get("answers", 0) + unreadable:
        delivered = upper_bound(labels.get("wrong_answers", 0) + unreadable, answers)
    alpha, with_lost = float(loaded.alpha), None
    if num:
        with_lost = min(alpha + upper_bound(lost, num), 1.0)
    return {
        "artefact": loaded.checksum,
        "previous": None if before is None else before.loaded.checksum,
        "alpha": loaded.alpha,
        "mode": loaded.mode,
        "normal_form": loaded.form,
        "guarantee": loaded.guarantee,
        "warnings": loaded.warnings,
        "alarms": watched.alarms,
        # A request is missed at most where its set would be, or where one of its calls was lost.
        "alpha_with_lost_calls": with_lost,
        "delivered_wrong_at_most": delivered,
        "monitors": _monitor_status(watched, gateway.monitors.unplaced),
        "user_feedback": {
            **watched.users,
            "note": "users choose which answers they rate: these numbers do not test the promise",
        },
    }


def _monitor_status(watched: Watched, unplaced: int = 0) -> dict[str, Any]:
    labels = watched.labels
    # What cannot be read counts as missed; a row that does not say its route, in each of them.
    audited = labels["audited"] + unplaced
    lacking = audited - labels["num"]
    share, most = None, None
    if audited:
        share = lacking / audited
        most = (labels["misses"] + lacking) / audited
    return {
        "level": watched.level,
        # Of all audited requests whose set had a promise: a model failed, who labels could not
        # decide, the label cannot be read, or it is still to come; and the share of misses if all
        # of these were.
        "labels": {
            **labels,
            "without_label": lacking,
            "share_without_label": share,
            "missed_at_most": most,
        },
        "risk": {
            alpha: {
                "num": monitor.num,
                "misses": monitor.misses,
                "evidence": monitor.evidence,
                "alarm": monitor.alarm,
            }
            for alpha, monitor in watched.risk.copy().items()
        },
        # By group; the numbers include the calibration queries that each test began with.
        "exchangeability": {
            group: {
                "level": test.level,
                "num": test.num,
                "of_calibration": len(watched.reference.first.get(group, ())),
                "evidence": test.evidence,
                "alarm": test.alarm,
            }
            for group, test in watched.top_scores.copy().items()
        },
    }


async def reload(gateway: Gateway, scope: Scope, receive: Receive, send: Send) -> None:
    """`POST /reload`: reads every artefact again."""
    await respond_json(send, {"artefacts": await _reloaded(gateway, None)})


async def activate(gateway: Gateway, scope: Scope, receive: Receive, send: Send) -> None:
    """`POST /artefacts/{name}/activate`: reads the artefact of one route again."""
    await respond_json(send, {"artefacts": await _reloaded(gateway, _route_name(gateway, scope))})


async def _reloaded(gateway: Gateway, name: str | None) -> dict[str, str]:
    try:
        return await gateway.reload(name)
    except DataError as error:
        raise GatewayError(
            409, "conflict_error", f"the artefact in use stays: {error}", code="artefact"
        ) from None


def _route_name(gateway: Gateway, scope: Scope) -> str:
    name: str = scope["path_params"]["name"]
    if name not in gateway.planners:
        raise GatewayError(
            404, "not_found_error", f"there is no route {name!r}", code="unknown_route"
        )
    return name


async def roll_back(gateway: Gateway, scope: Scope, receive: Receive, send: Send) -> None:
    """`POST /artefacts/{name}/rollback`: the artefact before the current one comes back."""
    name = _route_name(gateway, scope)
    try:
        checksum = gateway.roll_back(name)
    except KeyError:
        raise GatewayError(
            409, "conflict_error", "there is no artefact before the one in use", code="artefact"
        ) from None
    await respond_json(send, {"artefacts": {name: checksum}})


async def drain(gateway: Gateway, scope: Scope, receive: Receive, send: Send) -> None:
    """`POST /drain`: takes no new requests; says how many are under way."""
    gateway.draining = True
    await respond_json(send, {"in_flight": gateway.in_flight, "background": gateway.num_background})


async def audit_queue(gateway: Gateway, scope: Scope, receive: Receive, send: Send) -> None:
    """`GET /audit`: audits that wait for a label."""
    waiting = await waiting_audits(gateway.store, _QUEUE)
    await respond_json(send, {"audits": waiting})


async def audit_labels(gateway: Gateway, scope: Scope, receive: Receive, send: Send) -> None:
    """`POST /audit`: labels of audits; each is kept, or refused with its reason."""
    entries = labels_of(await body_of(scope, receive, gateway.settings.server))
    if not entries:
        raise bad_request("the request must hold at least one label")

    async def kept(entry: Feedback) -> bool:
        check_models(entry, gateway.upstreams)
        return await keep(gateway.store, entry, gateway.settings.state.store_prompts)

    results = await asyncio.gather(*map(kept, entries), return_exceptions=True)
    said = []
    for entry, result in zip(entries, results, strict=True):
        if isinstance(result, GatewayError):
            said.append({"id": entry.id, **result.to_dict()})
        elif isinstance(result, BaseException):
            raise result
        else:
            said.append({"id": entry.id, "new": result})
    await respond_json(send, {"labels": said})
