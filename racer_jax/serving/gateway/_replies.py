"""Answers of upstreams: read only as far as needed, the rest passed on untouched."""

from collections.abc import Sequence
from typing import Annotated, Any

import msgspec

Fields = dict[str, msgspec.Raw]


class _Message(msgspec.Struct):
    content: Any = None
    refusal: Any = None
    tool_calls: list[msgspec.Raw] | None = None


class Choice(msgspec.Struct):
    """One of the answers of a reply.

    Use this when you read `Reply.choices`.

    Attributes:
      message: The message as it came.
      finish_reason: Why it ended.
    """

    message: msgspec.Raw
    finish_reason: str | None = None


# More than any call takes; a number above it is nonsense, and no database takes much larger ones.
_MOST_TOKENS = 10**12
_MOST_DOLLARS = 1e9
_Tokens = Annotated[int, msgspec.Meta(ge=0, le=_MOST_TOKENS)]
_Dollars = Annotated[float, msgspec.Meta(ge=0, le=_MOST_DOLLARS)]


class Usage(msgspec.Struct):
    """Tokens of a call, and its dollars where the upstream says them.

    Use this when you read what a call took.

    Attributes:
      prompt_tokens: Tokens of the prompt.
      completion_tokens: Tokens of the answer.
      cost: Dollars, None where not known.
    """

    prompt_tokens: _Tokens = 0
    completion_tokens: _Tokens = 0
    cost: _Dollars | None = None


_fields = msgspec.json.Decoder(Fields)
_NULL = msgspec.Raw(b"null")
_TOKENS = ("prompt_tokens", "completion_tokens")
_choices = msgspec.json.Decoder(list[Choice])
_message = msgspec.json.Decoder(_Message)
_usage = msgspec.json.Decoder(Usage)


class Reply(msgspec.Struct, frozen=True):
    """The answer of one model.

    Use this when you read `Panel.replies`.

    Attributes:
      model: Its name in the pool.
      fields: The completion, field by field, as it came.
      choices: Its choices as they came.
      message: The first choice's message as it came.
      content: The text of that message; None where it has none.
      refusal: Its refusal; None where it has none.
      tool_calls: Its calls of tools, as they came; empty where it has none.
      finish_reason: Why the first choice ended.
      usage: Tokens and dollars.
      seconds: How long the call took.
    """

    model: str
    fields: Fields
    choices: list[Choice]
    message: msgspec.Raw
    content: str | None
    refusal: str | None
    tool_calls: list[msgspec.Raw]
    finish_reason: str | None
    usage: Usage
    seconds: float = 0.0

    def said(self, field: str) -> str | None:
        """A field of the completion that is a text; None where it is not."""
        value = msgspec.json.decode(self.fields.get(field, b"null"))
        return value if isinstance(value, str) else None


def usage_from(raw: bytes) -> Usage | None:
    """What an upstream says of the tokens and dollars of a call.

    An answer is one whatever is said beside it: what is no sensible number counts as not said.

    Args:
      raw: JSON.

    Returns:
      The usage; None where it says nothing of tokens or dollars.
    """
    try:
        usage = _usage.decode(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return _sensible_usage(raw)
    says_any = usage.prompt_tokens or usage.completion_tokens or usage.cost is not None
    return usage if says_any else None


def _sensible_usage(raw: bytes) -> Usage | None:
    """`usage_from` where not all that is said is sensible."""
    try:
        said = msgspec.json.decode(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    if not isinstance(said, dict):
        return None
    tokens = [_sensible(said.get(name), _MOST_TOKENS) for name in _TOKENS]
    cost = _sensible(said.get("cost"), _MOST_DOLLARS)
    if cost is None and not any(tokens):
        return None
    prompt, completion = (int(number or 0) for number in tokens)
    return Usage(prompt, completion, None if cost is None else float(cost))


def _sensible(number: Any, most: float) -> float | None:
    """A number that can be an amount of something; None where it is none."""
    if isinstance(number, bool) or not isinstance(number, int | float):
        return None
    return number if 0 <= number <= most else None


def message_of(raw: bytes) -> _Message:
    """What a message says; its content and refusal are texts or None.

    Args:
      raw: JSON.

    Raises:
      msgspec.MsgspecError: If it is no message.
    """
    message = _message.decode(raw)
    if not isinstance(message.content, str):
        message.content = None
    if not isinstance(message.refusal, str):
        message.refusal = None
    return message


def reply_of(model: str, body: bytes, seconds: float = 0.0) -> Reply:
    """Reads a completion.

    Args:
      model: Name of the model in the pool.
      body: The bytes that its upstream sent.
      seconds: How long the call took.

    Raises:
      msgspec.MsgspecError: If they are no completion.
      UnicodeDecodeError: If they are not UTF-8, of which parts would be passed on unread.
      RecursionError: If they are nested too deeply.
    """
    if not body.isascii():
        body.decode()
    fields = _fields.decode(body)
    choices = _choices.decode(fields.get("choices", b"[]"))
    if not choices:
        raise msgspec.ValidationError("a completion must have a choice")
    # Some upstreams say with a status of success that they failed, as streams do within a chunk.
    if fields.get("error", _NULL) != _NULL or choices[0].finish_reason == "error":
        raise msgspec.ValidationError("a completion must not hold an error")
    message = message_of(choices[0].message)
    for choice in choices[1:]:  # one that cannot be read would be noticed while it is streamed
        message_of(choice.message)
    usage = usage_from(fields.get("usage", b"null")) or Usage()
    return Reply(
        model=model,
        fields=fields,
        choices=choices,
        message=choices[0].message,
        content=message.content,
        refusal=message.refusal,
        tool_calls=message.tool_calls or [],
        finish_reason=choices[0].finish_reason,
        usage=usage,
        seconds=seconds,
    )


def choices_of(replies: Sequence[Reply]) -> list[dict[str, Any]]:
    """The choices of several replies as those of one, each with the model that wrote it."""
    choices = [(reply.model, one) for reply in replies for one in reply.choices]
    return [
        {
            "index": i,
            "message": choice.message,
            "finish_reason": choice.finish_reason,
            "racer_model": model,
        }
        for i, (model, choice) in enumerate(choices)
    ]
