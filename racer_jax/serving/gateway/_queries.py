"""Requests: what the gateway reads of them, and what it passes on untouched."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Annotated, Any, Literal

import msgspec

from racer_jax.core.risk_levels import exact_alpha
from racer_jax.serving.gateway._errors import GatewayError, bad_request
from racer_jax.serving.gateway._faults import fault_of
from racer_jax.serving.gateway._keys import Client
from racer_jax.serving.gateway._replies import Fields
from racer_jax.serving.gateway._views import Conversation, has_text, viewed
from racer_jax.serving.gateway.settings import Mode, Name

PREFIX = "racer/"
_HEADER = "x-racer-"
_SYSTEM = ("system", "developer")
# Capabilities for what a message may hold beside text.
BESIDE_TEXT = frozenset({"images", "audio", "files"})
_TEXT_PARTS = frozenset({"text", "input_text", "output_text", "refusal"})
# One of the two escapes of a character beyond 16 bits, without the other.
_HIGH, _LOW = rb"\\u[dD][89abAB][0-9a-fA-F]{2}", rb"\\u[dD][c-fC-F][0-9a-fA-F]{2}"
_HALF = re.compile(rb"(?:%b)(?!%b)|(?<!\\u[dD][89abAB][0-9a-fA-F]{2})(?:%b)" % (_HIGH, _LOW, _LOW))


class Options(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """The field `racer` of a request, and the headers `x-racer-...` of the same names.

    Attributes:
      alpha: Another level, of those that the route publishes.
      group: The group of the query.
      mode: How several answers become one.
      max_models: Models called at most.
      max_cost: Dollars that the calls may be expected to cost.
      deadline_ms: Milliseconds the answer may take.
      on_abstain: What an empty set leads to.
      verbose: Whether scores and margins come back too.
      session: Name of a conversation, whose models shall stay the same; without a promise.
    """

    alpha: str | float | None = None
    group: Name | None = None
    mode: Mode | None = None
    max_models: int | None = None
    max_cost: float | None = None
    deadline_ms: int | None = None
    on_abstain: Literal["fallback", "error", "refusal"] | None = None
    verbose: bool = False
    session: Annotated[str, msgspec.Meta(max_length=200)] | None = None


_NAMES = Options.__struct_fields__
_DEFAULTS = Options()


class _Message(msgspec.Struct):
    role: str
    content: Any = None
    tool_calls: Any = None


_fields = msgspec.json.Decoder(Fields)
_messages = msgspec.json.Decoder(list[_Message])
_options = msgspec.json.Decoder(Options | None)
# What is read of a request, and what it must have.
_KINDS: dict[str, Any] = {
    "model": str,
    "messages": list[_Message],
    "stream": bool | None,
    "racer": Options | None,
}
_NEEDED = frozenset({"model", "messages"})
_name = msgspec.json.Decoder(str)
_flag = msgspec.json.Decoder(bool | None)


@dataclass(slots=True)
class Query:
    """A request for a completion.

    Attributes:
      fields: Its fields as they came, without `racer`.
      model: The model it names.
      conversation: Its texts that may be routed.
      needs: Capabilities a model must have to answer it.
      stream: Whether the answer is to be streamed.
      include_usage: Whether the stream shall end with the usage.
      options: The field `racer`.
    """

    fields: Fields
    model: str
    conversation: Conversation
    needs: frozenset[str]
    stream: bool
    include_usage: bool
    options: Options

    @property
    def special(self) -> str | None:
        """The group of a request that is more than plain text; None for one that is not."""
        if "tools" in self.needs:
            return "tools"
        if self.needs & BESIDE_TEXT:
            return "modality"
        if "json" in self.needs:
            return "json"
        return "n" if "n" in self.needs else None

    @property
    def is_greedy(self) -> bool:
        """Whether it asks for the likeliest answer: temperature 0."""
        return bool(self.value("temperature") == 0)

    def value(self, name: str) -> Any:
        """A field that is passed on, read; None where there is none.

        Raises:
          GatewayError: If it cannot be: a number beyond any float, say.
        """
        try:
            return _decoded(self.fields, name)
        except (msgspec.MsgspecError, RecursionError) as error:
            raise bad_request(f"{name} cannot be read: {error}", name) from None

    def text(self, view: str) -> str:
        """The text that is routed."""
        return viewed(self.conversation, view)

    def has_text(self, view: str) -> bool:
        """Whether there is a text to route."""
        return has_text(self.conversation, view)

    @property
    def texts(self) -> list[str]:
        """The texts of the user's messages, in their order."""
        return self.conversation.user


def query_of(
    body: bytes,
    headers: Iterable[tuple[bytes, bytes]],
    client: Client,
    max_messages: int,
) -> Query:
    """Reads a request.

    Args:
      body: Its body.
      headers: Its headers.
      client: Who sent it.
      max_messages: Messages it may have.

    Raises:
      GatewayError: If it is not of the protocol, or asks for what the client may not.
    """
    try:
        if not body.isascii():
            body.decode()  # what is passed on unread must be text too
        fields = _fields.decode(body)
        model = _name.decode(fields.get("model", b"null"))
        messages = _messages.decode(fields.get("messages", b"null"))
        stream = bool(_flag.decode(fields.get("stream", b"null")))
        options = _DEFAULTS
        if "racer" in fields:
            options = _options.decode(fields.pop("racer")) or _DEFAULTS
        options = _with_headers(options, headers)
        needs = _needs(fields, messages)
        include_usage = stream and _asks_for_usage(fields)
    except msgspec.MsgspecError as error:
        raise _fault(body, error) from None
    except RecursionError:
        raise bad_request("the request is nested too deeply") from None
    except UnicodeDecodeError:
        raise bad_request("the request must be JSON in UTF-8") from None
    if len(messages) > max_messages:
        raise bad_request(
            f"messages must be at most {max_messages}, got {len(messages)}", "messages"
        )
    conversation = _conversation(messages)
    if not conversation.user:
        raise bad_request("messages must hold a message of the role 'user'", "messages")
    if options is not _DEFAULTS:
        _check_allowed(options, client)
    return Query(fields, model, conversation, needs, stream, include_usage, options)


def _fault(body: bytes, error: msgspec.MsgspecError) -> GatewayError:
    """What is wrong with a request that could not be read: its field, and what would be right."""
    try:
        plain = msgspec.json.decode(body)
        for name, kind in _KINDS.items():
            value = plain[name] if name in plain or name in _NEEDED else None
            try:
                msgspec.convert(value, kind)
            except msgspec.ValidationError as fault:
                return bad_request(*fault_of(fault, value, kind, name))
    except KeyError as absent:
        name = absent.args[0]
        return bad_request(f"{name} is missing", name)
    except (msgspec.MsgspecError, TypeError, UnicodeDecodeError, RecursionError):
        pass  # no object of JSON at all
    return bad_request(f"the request is not one for a completion: {_cause(body) or error}")


def _cause(body: bytes) -> str:
    """What msgspec does not say in so many words; empty where it does."""
    if body.startswith((b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff")):
        return "it begins with a byte order mark, and must be JSON in UTF-8 without one"
    if half := _HALF.search(body.replace(b"\\\\", b"  ")):
        return (
            f"{half[0].decode()} at byte {half.start()} is half of a character: an escape "
            "\\ud800 to \\udbff must be followed by one of \\udc00 to \\udfff"
        )
    return ""


def _with_headers(options: Options, headers: Iterable[tuple[bytes, bytes]]) -> Options:
    """The options with those of headers; where both say one, the body counts."""
    said: dict[str, Any] = {}
    for name, value in headers:
        if name.startswith(b"x-racer-"):
            field = name.decode("latin-1").removeprefix(_HEADER).replace("-", "_")
            if field not in _NAMES:
                raise bad_request(
                    f"the header {name.decode('latin-1')!r} must be one of x-racer-"
                    f"{', x-racer-'.join(name.replace('_', '-') for name in _NAMES)}"
                )
            said[field] = _header_text(value)
    if not said:
        return options
    try:
        from_headers = msgspec.convert(said, Options, strict=False)
    except msgspec.ValidationError as error:
        message, path = fault_of(error, said, Options, "racer")
        words = message.removeprefix(path)
        header = path.removeprefix("racer.").replace("_", "-")
        raise bad_request(f"the header {_HEADER}{header}{words}", path) from None
    changes = {
        name: getattr(from_headers, name)
        for name in said
        if getattr(options, name) == getattr(_DEFAULTS, name)
    }
    return msgspec.structs.replace(options, **changes)


def _header_text(value: bytes) -> str:
    """The text of a header: in UTF-8, as names of groups may be; else as HTTP has it."""
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value.decode("latin-1")


def _conversation(messages: Iterable[_Message]) -> Conversation:
    user, system = [], []
    for message in messages:
        if message.role == "user":
            user.append(_text(message.content))
        elif message.role in _SYSTEM:
            system.append(_text(message.content))
    return Conversation(user, "\n\n".join(system))


def check_group(client: Client, group: str | None) -> None:
    """Refuses a group that a client's key may not name.

    Raises:
      GatewayError: If it may not.
    """
    groups = client.key.groups
    if group is not None and groups is not None and group not in groups:
        raise GatewayError(
            403,
            "permission_error",
            f"this key may not name the group {group!r}",
            code="group",
            param="racer.group",
        )


def check_alpha(client: Client, alpha: str | float | None) -> None:
    """Refuses a level that a client's key may not ask for.

    Raises:
      GatewayError: If it may not.
    """
    alphas = client.key.alphas
    if alpha is None or alphas is None:
        return
    if _level(alpha) not in {_level(one) for one in alphas}:
        raise GatewayError(
            403,
            "permission_error",
            f"this key may not ask for alpha = {alpha}",
            code="alpha",
            param="racer.alpha",
        )


def _level(alpha: str | float) -> Fraction | None:
    """A level, however it is written; None for what is none."""
    try:
        return exact_alpha(alpha)
    except (TypeError, ValueError):
        return None


def _check_allowed(options: Options, client: Client) -> None:
    """Refuses what the client's key may not set, and numbers out of range."""
    for name in _NAMES:
        if getattr(options, name) != getattr(_DEFAULTS, name) and name not in client.key.overrides:
            raise GatewayError(
                403,
                "permission_error",
                f"this key may not set racer.{name}",
                code="override",
                param=f"racer.{name}",
            )
    check_group(client, options.group)
    check_alpha(client, options.alpha)
    for name, least in (("max_models", 1), ("max_cost", 0), ("deadline_ms", 1)):
        value = getattr(options, name)
        if value is not None and not value >= least:
            raise bad_request(
                f"racer.{name} must be at least {least}, got {value}", f"racer.{name}"
            )


def _text(content: Any) -> str:
    """The text of a message, of all its parts."""
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else []
    texts = (part.get("text") for part in parts if isinstance(part, dict))
    return "\n".join(text for text in texts if isinstance(text, str))


def _decoded(fields: Mapping[str, msgspec.Raw], name: str) -> Any:
    return msgspec.json.decode(fields[name]) if name in fields else None


def _needs(fields: Fields, messages: list[_Message]) -> frozenset[str]:
    """Capabilities that a request needs, from its fields and the parts of its messages."""
    needs = set()
    if _decoded(fields, "tools") or _decoded(fields, "functions"):
        needs.add("tools")
    if "response_format" in fields:
        form = _decoded(fields, "response_format")
        if isinstance(form, dict) and form.get("type") != "text":
            needs.add("json")
    if "n" in fields and _decoded(fields, "n") not in (None, 1):
        needs.add("n")
    if "logprobs" in fields and _decoded(fields, "logprobs"):
        needs.add("logprobs")
    if "audio" in fields and _decoded(fields, "audio"):
        needs.add("audio")
    for message in messages:
        if message.tool_calls or message.role in ("tool", "function"):
            needs.add("tools")
        if isinstance(message.content, list):
            needs |= _part_needs(message.content, message.role == "user")
    return frozenset(needs)


def _part_needs(parts: list[Any], of_user: bool) -> set[str]:
    """Capabilities for the parts of a message; what a user sends is text where it says so alone."""
    kinds = {str(part.get("type", "text")) for part in parts if isinstance(part, dict)}
    needs = set()
    for kind in kinds - _TEXT_PARTS:
        if kind.startswith(("image", "input_image")):
            needs.add("images")
        elif kind.startswith(("audio", "input_audio")):
            needs.add("audio")
        elif of_user:  # a file, a video, and what is to come: the scores know nothing of it
            needs.add("files")
    return needs


def _asks_for_usage(fields: Fields) -> bool:
    options = _decoded(fields, "stream_options")
    return isinstance(options, dict) and options.get("include_usage") is True
