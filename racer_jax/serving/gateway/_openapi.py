"""The OpenAPI document of the inference port."""

from typing import Any

from racer_jax._distribution import __version__

_TEXT = {"type": "string"}
_ANY_OBJECT = {"type": "object", "additionalProperties": True}
_GROUP = {"type": ["string", "null"]}


def _content(schema: dict[str, Any]) -> dict[str, Any]:
    return {"content": {"application/json": {"schema": schema}}}


_ERROR = {
    "description": "the request is refused, or there is no answer; `error.code` says why",
    **_content({"type": "object", "required": ["error"], "properties": {"error": _ANY_OBJECT}}),
}


def _operation(
    name: str,
    summary: str,
    answer: dict[str, Any],
    body: dict[str, Any] | None = None,
    parameters: list[dict[str, Any]] | None = None,
) -> dict[str, Any]:
    plain: dict[str, Any] = {
        "operationId": name,
        "summary": summary,
        "responses": {"200": {"description": "done", **_content(answer)}, "default": _ERROR},
    }
    if body is not None:
        plain["requestBody"] = {"required": True, **_content(body)}
    if parameters:
        plain["parameters"] = parameters
    return plain


def document() -> dict[str, Any]:
    """The document. Use this when a client or a test is made from it."""
    message = {
        "type": "object",
        "required": ["role"],
        "properties": {"role": _TEXT},
        "additionalProperties": True,
    }
    chat = {
        "type": "object",
        "required": ["model", "messages"],
        "properties": {
            "model": _TEXT,
            "messages": {"type": "array", "minItems": 1, "items": message},
            "stream": {"type": ["boolean", "null"]},
            "racer": _options(),
        },
        "additionalProperties": True,
    }
    labels = {"type": "integer", "enum": [0, 1]}
    feedback = {
        "type": "object",
        "required": ["id"],
        "properties": {
            "id": _TEXT,
            "correct": {"type": "object", "additionalProperties": labels},
            "missed": labels,
            "answer_correct": labels,
            "source": {"type": "string", "enum": ["audit", "user", "test", "judge"]},
            "labeller": _GROUP,
            "comment": _GROUP,
        },
        "additionalProperties": False,
    }
    entry = {
        "type": "object",
        "properties": {
            "text": _TEXT,
            "messages": {"type": "array", "items": message},
            "group": _GROUP,
            "id": _GROUP,
        },
        "additionalProperties": False,
    }
    route = {
        "type": "object",
        "required": ["inputs"],
        "properties": {
            "inputs": {"type": "array", "minItems": 1, "maxItems": 1024, "items": entry},
            "model": _GROUP,
            "alpha": {"type": ["string", "number", "null"]},
            "explain": {"type": "boolean"},
        },
        "additionalProperties": False,
    }
    responses = {
        "type": "object",
        "required": ["model", "input"],
        "properties": {"model": _TEXT, "input": {}, "stream": {"type": ["boolean", "null"]}},
        "additionalProperties": True,
    }
    name = {"name": "id", "in": "path", "required": True, "schema": _TEXT}
    completion = {
        "type": "object",
        "required": ["id", "choices", "racer"],
        "additionalProperties": True,
    }
    decisions = {"type": "array", "items": _ANY_OBJECT}
    return {
        "openapi": "3.1.0",
        "info": {"title": "racer-jax gateway", "version": __version__},
        "paths": {
            "/v1/chat/completions": {
                "post": _operation("complete", "A completion", completion, chat)
            },
            "/v1/responses": {
                "post": _operation("respond", "A response, nothing kept", _ANY_OBJECT, responses)
            },
            "/v1/models": {"get": _operation("models", "Routes and upstreams", _ANY_OBJECT)},
            "/v1/racer/route": {
                "post": _operation("route", "Decisions, without a call", decisions, route)
            },
            "/v1/feedback": {
                "post": _operation("feedback", "Feedback on a decision", _ANY_OBJECT, feedback)
            },
            "/v1/racer/decisions/{id}": {
                "get": _operation("decision", "A decision", _ANY_OBJECT, parameters=[name])
            },
        },
    }


def _options() -> dict[str, Any]:
    modes = ["vote", "select", "synthesize", "all", "cascade", None]
    return {
        "type": "object",
        "properties": {
            "alpha": {"type": ["string", "number", "null"]},
            "group": _GROUP,
            "mode": {"enum": modes},
            "max_models": {"type": ["integer", "null"], "minimum": 1},
            "max_cost": {"type": ["number", "null"], "minimum": 0},
            "deadline_ms": {"type": ["integer", "null"], "minimum": 1},
            "on_abstain": {"enum": ["fallback", "error", "refusal", None]},
            "verbose": {"type": "boolean"},
            "session": _GROUP,
        },
        "additionalProperties": False,
    }
