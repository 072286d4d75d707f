"""The two applications of ASGI: inference, and management on a port of its own."""

from collections.abc import Awaitable, Callable
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from racer_jax.serving.gateway import _endpoints, _management
from racer_jax.serving.gateway._chat import Chat
from racer_jax.serving.gateway._errors import GatewayError
from racer_jax.serving.gateway._exchange import (
    ClientGoneError,
    Receive,
    Scope,
    Send,
    check_origin,
    internal_error,
    respond_error,
)
from racer_jax.serving.gateway._responses import Responses
from racer_jax.serving.gateway.core import LOG, Gateway

_COMPLETIONS = "/v1/chat/completions"
Endpoint = Callable[[Gateway, Scope, Receive, Send], Awaitable[None]]


class _Guarded:
    """An endpoint whose errors become responses.

    Args:
      gateway: The gateway.
      endpoint: The endpoint.
      needs: The role that a key must have, where every request to it needs the same.
    """

    def __init__(self, gateway: Gateway, endpoint: Endpoint, needs: str | None = None) -> None:
        self._gateway, self._endpoint, self._needs = gateway, endpoint, needs

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request."""
        gateway = self._gateway
        try:
            check_origin(scope, gateway.settings.server)
            if self._needs is not None:
                _management.check_admin(gateway, scope)
            await self._endpoint(gateway, scope, receive, send)
        except GatewayError as error:
            await respond_error(send, error)
        except ClientGoneError:
            return
        except Exception:
            LOG.exception("a request failed")
            await respond_error(send, internal_error())


async def _not_found(gateway: Gateway, scope: Scope, receive: Receive, send: Send) -> None:
    raise GatewayError(
        404, "invalid_request_error", f"there is nothing at {scope['path'][:200]!r}", code="path"
    )


def _routes(gateway: Gateway, rows: list[tuple[str, str, Any, str | None]]) -> list[Route]:
    return [
        Route(path, _Guarded(gateway, endpoint, needs), methods=[method])
        for method, path, endpoint, needs in rows
    ]


class _Inference(Starlette):
    """The application of the inference port: completions go straight to their endpoint.

    They are nearly all of the traffic; what Starlette does around an endpoint costs as much as
    reading the request, and `Chat` turns its errors into responses itself.
    """

    def __init__(self, chat: Chat, routes: list[Route]) -> None:
        super().__init__(routes=[Route(_COMPLETIONS, chat, methods=["POST"]), *routes])
        self._chat = chat

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request."""
        whole = scope["type"] == "http" and scope["path"] == _COMPLETIONS
        if whole and scope["method"] == "POST":
            await self._chat(scope, receive, send)
        else:
            await super().__call__(scope, receive, send)


def inference_app(gateway: Gateway) -> Starlette:
    """The application of the inference port.

    Use this when you serve the gateway yourself, with `gateway.start()` awaited before.
    """
    routes = _routes(
        gateway,
        [
            ("GET", "/v1/models", _endpoints.models, None),
            ("POST", "/v1/responses", Responses(), None),
            ("POST", "/v1/racer/route", _endpoints.route, None),
            ("POST", "/v1/feedback", _endpoints.feedback, None),
            ("GET", "/v1/racer/decisions/{id}", _endpoints.decision, None),
            ("GET", "/openapi.json", _management.openapi, None),
        ],
    )
    return _completed(gateway, _Inference(Chat(gateway), routes))


def management_app(gateway: Gateway) -> Starlette:
    """The application of the management port.

    Use this when `inference_app` is served: beside it, on another port.
    """
    routes = _routes(
        gateway,
        [
            ("GET", "/healthz", _management.health, None),
            ("GET", "/readyz", _management.ready, None),
            ("GET", "/metrics", _management.metrics, None),
            ("GET", "/status", _management.status, "admin"),
            ("POST", "/reload", _management.reload, "admin"),
            ("POST", "/artefacts/{name}/activate", _management.activate, "admin"),
            ("POST", "/artefacts/{name}/rollback", _management.roll_back, "admin"),
            ("POST", "/drain", _management.drain, "admin"),
            ("GET", "/audit", _management.audit_queue, "admin"),
            ("POST", "/audit", _management.audit_labels, "admin"),
        ],
    )
    return _completed(gateway, Starlette(routes=routes))


async def _not_allowed(request: Request, refusal: Exception) -> Response:
    """The answer to another method than those of a path, as an error of the OpenAI protocol."""
    allowed = {}
    if isinstance(refusal, HTTPException):
        allowed = dict(refusal.headers or {})
    words = f"{request.method} is no method of {request.url.path[:200]!r}"
    error = GatewayError(405, "invalid_request_error", words, code="method")
    return Response(error.to_json(), 405, allowed, "application/json")


def _completed(gateway: Gateway, app: Starlette) -> Starlette:
    """The application with an answer for what is not there."""
    app.router.default = _Guarded(gateway, _not_found)
    app.router.redirect_slashes = False  # clients do not follow: say that there is nothing
    app.add_exception_handler(405, _not_allowed)
    return app
