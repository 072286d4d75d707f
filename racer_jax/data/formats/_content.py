"""Prompts as text: a string, chat messages or parts, and the options of a question."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

_ATTACHMENT = "attachment://"


def content_text(content: Any, attachments: Mapping[str, Any] | None = None) -> str:
    """The text of a message: a string, or the texts of its parts; images and the like are named.

    Args:
      content: As the log holds it.
      attachments: Texts that the log holds apart and names by `attachment://<name>`.

    Returns:
      The text.
    """
    if isinstance(content, str):
        if attachments and content.startswith(_ATTACHMENT):
            attachment = attachments.get(content.removeprefix(_ATTACHMENT))
            return attachment if isinstance(attachment, str) else content
        return content
    if not isinstance(content, list):
        return ""
    parts = []
    for part in content:
        if isinstance(part, str):
            parts.append(content_text(part, attachments))
        elif isinstance(part, dict) and isinstance(part.get("text"), str):
            parts.append(content_text(part["text"], attachments))
        elif isinstance(part, dict) and isinstance(part.get("type"), str):
            parts.append(f"[{part['type']}]")
    return "\n".join(parts)


def prompt_text(prompt: Any, attachments: Mapping[str, Any] | None = None) -> str:
    r"""The text of a prompt: a string, or chat messages, one after another.

    One message stands for itself; of several, each is preceded by its role.

    Args:
      prompt: As the log holds it.
      attachments: As in `content_text`.

    Returns:
      The text.

    >>> prompt_text([{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}])
    'system: Be brief.\nuser: Hi'
    """
    messages = isinstance(prompt, list) and all(isinstance(m, dict) for m in prompt)
    if not (messages and any("content" in message for message in prompt)):
        return content_text(prompt, attachments)
    texts = [content_text(message.get("content"), attachments) for message in prompt]
    if len(prompt) == 1:
        return texts[0]
    roles = [message.get("role") for message in prompt]
    return "\n".join(
        f"{role}: {text}" if isinstance(role, str) else text
        for role, text in zip(roles, texts, strict=True)
    )


def chat_text(value: Any) -> str | None:
    """The text of a list of chat messages; None for anything else."""
    is_chat = isinstance(value, list) and bool(value)
    if is_chat and all(isinstance(message, dict) and "content" in message for message in value):
        return prompt_text(value)
    return None


def with_options(text: str, options: Any) -> str:
    r"""A question and its options, lettered A, B, C.

    Args:
      text: The question.
      options: The texts of the options, in order; anything else than a list of texts is left out.

    Returns:
      The text.

    >>> with_options("Which?", ["this", "that"])
    'Which?\nA. this\nB. that'
    """
    if not isinstance(options, list) or not options:
        return text
    labels: Sequence[Any] = range(1, len(options) + 1)
    if len(options) <= 26:
        labels = [chr(ord("A") + i) for i in range(len(options))]
    lines = [f"{label}. {option}" for label, option in zip(labels, options, strict=True)]
    return "\n".join([text, *lines])


def normal_answer(response: object, answer: Callable[[str], str | None]) -> str | None:
    """The normal form of a response; None where there is no response, or no answer in it."""
    return answer(response) or None if isinstance(response, str) else None
