"""The text of a question in a log of lm-evaluation-harness: all that the model was asked about.

A document has a field for the question, and often others for what the question is about (a passage,
a premise) and what there is to choose from. All of them belong to the text: questions such as
"Which is right?" differ in these alone.
"""

import json
from collections.abc import Mapping
from typing import Any

from racer_jax.data.formats._json import check_text, too_deep

# What the question is about, in the order in which prompts show it.
_CONTEXT = (
    *("passage", "Passage", "article", "story", "document", "abstract", "paragraph", "background"),
    *("context", "Context", "contexts", "CONTEXTS", "support", "body", "Body", "premise"),
    "instruction",
)
_QUESTION = (
    *("question", "Question", "QUESTION", "question_stem", "query", "problem", "prompt", "goal"),
    *("ctx", "input"),
)
_CHOICES = ("choices", "options", "Options", "endings", "answer_choices")
# Choices in fields of their own, in order.
_NUMBERED = (
    ("A", "B", "C", "D", "E", "F", "G", "H", "I", "J"),
    ("opa", "opb", "opc", "opd", "ope"),
    ("answerA", "answerB", "answerC"),
    ("choice1", "choice2", "choice3", "choice4"),
    ("option1", "option2", "option3", "option4"),
    ("ending0", "ending1", "ending2", "ending3"),
    ("sol1", "sol2"),
)
_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


def arguments_of(record: Mapping[str, Any]) -> list[list[Any]]:
    """The requests of a row: objects of objects since version 0.4.3, lists of lists before."""
    requests = record.get("arguments")
    requests = list(requests.values()) if isinstance(requests, dict) else requests
    if not isinstance(requests, list):
        return []
    parts = []
    for request in requests:
        values = list(request.values()) if isinstance(request, dict) else request
        parts.append(values if isinstance(values, list) else [])
    return parts


def text_of(record: Mapping[str, Any], where: dict[str, Any], whole_prompt: bool = False) -> str:
    """The text of a question with what it is about and its choices.

    Args:
      record: A row of the log.
      where: Path, row and line, for an error.
      whole_prompt: Whether the text is the prompt as it was sent, worked examples included.

    Returns:
      The text; the last user message or the prompt where the document has no known field, and
      empty where there is neither.
    """
    try:
        text = "" if whole_prompt else _from_document(record.get("doc"))
        text = text or _from_prompt(record, whole_prompt)
    except RecursionError:
        raise too_deep(**where) from None
    check_text(text, "doc", **where)
    return text


def _from_document(doc: Any) -> str:
    """The text of the known fields of a document; empty where it has no question."""
    if not isinstance(doc, dict):
        return ""
    questions = (_plain(doc[name]) for name in _QUESTION if name in doc)
    question = next(filter(None, questions), "")
    if not question:
        return ""
    contexts = [doc[name] for name in _CONTEXT if name in doc]
    about = [text for value in contexts if (text := _plain(value)) and text != question]
    return "\n".join([*about, question, *_choices(doc)])


def _plain(value: Any) -> str:
    """A field as text; passages may be lists of texts."""
    if isinstance(value, str):
        return value if value.strip() else ""
    if isinstance(value, list) and value and all(isinstance(part, str) for part in value):
        return "\n".join(value)
    if isinstance(value, dict):
        return next((text for part in value.values() if (text := _plain(part))), "")
    return ""


def _choices(doc: dict[str, Any]) -> list[str]:
    """A line for each choice, with its label."""
    choices: Any = next((doc[name] for name in _CHOICES if doc.get(name)), None)
    labels: Any = None
    if isinstance(choices, dict):
        if isinstance(choices.get("text"), list):
            choices, labels = choices["text"], choices.get("label")
        else:
            choices, labels = list(choices.values()), list(choices)
    if choices is None and isinstance(targets := doc.get("mc1_targets"), dict):
        choices = targets.get("choices")
    if choices is None:
        choices = next((options for names in _NUMBERED if (options := _numbered(doc, names))), None)
    if not isinstance(choices, list):
        return [str(choices)] if isinstance(choices, str) else []
    if choices and all(isinstance(c, dict) and "key" in c and "value" in c for c in choices):
        labels, choices = [c["key"] for c in choices], [c["value"] for c in choices]
    if not isinstance(labels, list) or len(labels) != len(choices):
        numbers = [str(number) for number in range(1, len(choices) + 1)]
        labels = _LETTERS[: len(choices)] if len(choices) <= len(_LETTERS) else numbers
    return [f"{label}. {choice}" for label, choice in zip(labels, choices, strict=True)]


def _numbered(doc: dict[str, Any], names: tuple[str, ...]) -> list[str]:
    """The choices in fields of their own; none where there are fewer than two."""
    options = [doc[name] for name in names if isinstance(doc.get(name), str)]
    return options if len(options) > 1 else []


def _from_prompt(record: Mapping[str, Any], whole: bool) -> str:
    """The prompt as it was sent: of a chat the last message of the user, or all of them."""
    prompt: Any = next((request[0] for request in arguments_of(record) if request), "")
    messages = _messages(prompt)
    if messages is None:
        return prompt if isinstance(prompt, str) else ""
    texts = [(message.get("role"), _content(message.get("content"))) for message in messages]
    if whole:
        return "\n\n".join(text for _, text in texts if text)
    users = [text for role, text in texts if text and role == "user"]
    return users[-1] if users else next((text for _, text in reversed(texts) if text), "")


def _messages(prompt: Any) -> list[dict[str, Any]] | None:
    """The messages of a chat: a list of them, or the JSON of one, perhaps in a list of its own."""
    while isinstance(prompt, list) and len(prompt) == 1 and not isinstance(prompt[0], dict):
        prompt = prompt[0]
    if isinstance(prompt, str) and prompt.lstrip()[:1] == "[":
        try:
            prompt = json.loads(prompt)
        except ValueError:
            return None
    if not isinstance(prompt, list) or not prompt:
        return None
    if not all(isinstance(message, dict) and "content" in message for message in prompt):
        return None
    return prompt


def _content(content: Any) -> str:
    """The text of a message: a string, or parts of which some are text."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        return ""
    parts = [part.get("text") for part in content if isinstance(part, dict)]
    return "\n".join(part for part in parts if isinstance(part, str))
