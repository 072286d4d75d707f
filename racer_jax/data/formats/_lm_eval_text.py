"""The text of a question in a log of lm-evaluation-harness: all that the model was asked about.

A document has a field for the question, and often others for what the question is about (a passage,
a premise) and what there is to choose from. All of them belong to the text: questions such as
"Which is right?" differ in these alone.
"""

import ast
import json
import re
from functools import lru_cache
from typing import Any

# What the question is about, in the order in which prompts show it; names in any case.
_CONTEXT = (
    *("passage", "passages", "flores_passage", "article", "story", "document", "documents"),
    *("abstract", "paragraph", "paragraphs", "background", "context", "contexts", "evidence"),
    *("support", "body", "premise", "text", "table", "dialogue", "conversation", "history"),
    "instruction",
)
_QUESTION = (
    *("question", "question_stem", "query", "problem", "prompt", "goal"),
    *("ctx", "input", "sentence"),
)
_CHOICES = ("choices", "options", "endings", "answer_choices", "answer_options", "candidates")
_RANKS = {
    name: (kind, rank)
    for kind, names in enumerate((_QUESTION, _CONTEXT, _CHOICES))
    for rank, name in enumerate(names)
}
# Choices in fields of their own, told by how their names end.
_NUMBERED = re.compile(
    r"(op|answer[ _-]?|option[ _-]?|choice[ _-]?)([a-j])"
    r"|(option[ _-]?|choice[ _-]?|ending|sol|mc_answer|candidate[ _-]?|alternative[ _-]?)(\d{1,2})",
    re.IGNORECASE,
)
_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
# Fields of a message that hold its text, and what the one who asks is called.
_TEXTS = frozenset({"content", "parts", "value"})
_ASKING = frozenset({"user", "human"})
# A prompt that is a list in Python's spelling is read up to this length.
_MAX_LITERAL = 1 << 20


def arguments_of(requests: Any) -> list[list[Any]]:
    """The requests of a row: objects of objects since version 0.4.3, lists of lists before."""
    requests = list(requests.values()) if isinstance(requests, dict) else requests
    if not isinstance(requests, list):
        return []
    parts = []
    for request in requests:
        values = list(request.values()) if isinstance(request, dict) else request
        parts.append(values if isinstance(values, list) else [])
    return parts


def text_of(record: Any, whole_prompt: bool = False) -> str:
    """The text of a question with what it is about and its choices.

    Args:
      record: A row of the log: `doc` and `arguments` of it are read.
      whole_prompt: Whether the text is the prompt as it was sent, worked examples included.

    Returns:
      The text; the last user message or the prompt where the document has no known field, and
      empty where there is neither.

    Raises:
      RecursionError: If the prompt is nested too deeply.
    """
    text = "" if whole_prompt else document_text(record["doc"])
    return text or _from_prompt(record["arguments"], whole_prompt)


def document_text(doc: Any) -> str:
    """The text of the known fields of a document; empty where it has no question."""
    if not isinstance(doc, dict):
        return ""
    questions, held, listed = _known_fields(tuple(doc))
    question = ""
    for name in questions:
        question = question or _plain(doc[name])
    if not question:
        return ""
    about = [text for name in held if (text := _plain(doc[name])) and text != question]
    choices = None
    for name in listed:
        choices = choices or doc[name] or None
    return "\n".join([*about, question, *_lines_of(choices, doc)])


@lru_cache(1 << 8)
def _known_fields(names: tuple[str, ...]) -> tuple[list[str], list[str], list[str]]:
    """Which fields of a document are a question, what it is about, and choices; each in order."""
    groups_of_fields: tuple[list[str], list[str], list[str]] = ([], [], [])
    for name in sorted(names, key=lambda name: _RANKS.get(name.casefold(), (0, 0))):
        if (known := _RANKS.get(name.casefold())) is not None:
            groups_of_fields[known[0]].append(name)
    return groups_of_fields


def _plain(value: Any) -> str:
    """A field as text; passages may be lists of texts."""
    if isinstance(value, str):
        return value if value.strip() else ""
    if isinstance(value, list) and value and all(isinstance(part, str) for part in value):
        return "\n".join(value)
    if isinstance(value, dict):
        return next((text for part in value.values() if (text := _plain(part))), "")
    return ""


def _lines_of(choices: Any, doc: dict[str, Any]) -> list[str]:
    """A line for each choice, with its label."""
    labels: Any = None
    if isinstance(choices, dict):
        if isinstance(choices.get("text"), list):
            choices, labels = choices["text"], choices.get("label")
        else:
            choices, labels = list(choices.values()), list(choices)
    if choices is None and isinstance(targets := doc.get("mc1_targets"), dict):
        choices = targets.get("choices")
    if choices is None:
        choices = _numbered(doc)
    if not isinstance(choices, list):
        return [str(choices)] if isinstance(choices, str) else []
    if choices and isinstance(choices[0], dict) and all(isinstance(c, dict) for c in choices):
        labels = [_first_of(choice, ("label", "key", "id")) for choice in choices]
        choices = [_first_of(choice, ("text", "value", "content")) for choice in choices]
        labels = None if None in labels else labels
    if not isinstance(labels, list) or len(labels) != len(choices):
        numbers = [str(number) for number in range(1, len(choices) + 1)]
        labels = _LETTERS[: len(choices)] if len(choices) <= len(_LETTERS) else numbers
    return [f"{label}. {choice}" for label, choice in zip(labels, choices, strict=True)]


def _first_of(choice: dict[str, Any], names: tuple[str, ...]) -> Any:
    """The first of some fields that a choice has, None where it has none."""
    return next((choice[name] for name in names if name in choice), None)


def _numbered(doc: dict[str, Any]) -> list[str]:
    """The choices in fields of their own, by their ends; none where there are fewer than two."""
    families: dict[str, dict[str, str]] = {}
    for name, value in doc.items():
        if not isinstance(value, str):
            continue
        if len(name) == 1 and "A" <= name <= "J":
            families.setdefault("", {})[name] = value
        elif match := _NUMBERED.fullmatch(name):
            end = (match[2] or match[4]).casefold().zfill(2)
            families.setdefault((match[1] or match[3]).casefold(), {})[end] = value
    for choices in families.values():
        if len(choices) > 1:
            return [choices[end] for end in sorted(choices)]
    return []


def _from_prompt(arguments: Any, whole: bool) -> str:
    """The prompt as it was sent: of a chat the last message of the user, or all of them."""
    prompt: Any = next((request[0] for request in arguments_of(arguments) if request), "")
    messages = _messages(prompt)
    if messages is None:
        return _alone(prompt) if isinstance(_alone(prompt), str) else ""
    texts = [_spoken(message) for message in messages]
    if whole:
        return "\n\n".join(text for _, text in texts if text)
    users = [text for is_user, text in texts if text and is_user]
    return users[-1] if users else next((text for _, text in reversed(texts) if text), "")


def _messages(prompt: Any) -> list[dict[str, Any]] | None:
    """The messages of a chat: a list of them, or the text of one, perhaps in a list of its own."""
    prompt = _alone(prompt)
    if isinstance(prompt, str) and prompt.lstrip()[:1] in ("[", "{"):
        prompt = _listed(prompt)
    if isinstance(prompt, dict):
        prompt = prompt.get("messages")
    if not isinstance(prompt, list) or not prompt:
        return None
    if not all(isinstance(message, dict) and _TEXTS & set(message) for message in prompt):
        return None
    return prompt


def _alone(prompt: Any) -> Any:
    """What stands in a list of its own."""
    while isinstance(prompt, list) and len(prompt) == 1 and not isinstance(prompt[0], dict):
        prompt = prompt[0]
    return prompt


def _spoken(message: dict[str, Any]) -> tuple[bool, str]:
    """Whether a message of a chat is of the one who asks, and its text."""
    role = message.get("role", message.get("from"))
    text = next((message[name] for name in ("content", "parts", "value") if name in message), "")
    return isinstance(role, str) and role.casefold() in _ASKING, _content(text)


def _listed(text: str) -> Any:
    """What a text says in JSON, or in Python's spelling of lists; None where in neither."""
    try:
        return json.loads(text)
    except ValueError:
        pass
    if "'role'" not in text or len(text) > _MAX_LITERAL:
        return None
    try:
        return ast.literal_eval(text.strip())
    except (ValueError, SyntaxError, TypeError, MemoryError):
        return None


def _content(content: Any) -> str:
    """The text of a message: a string, or parts of which some are text."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        return ""
    parts = [part.get("text") if isinstance(part, dict) else part for part in content]
    return "\n".join(part for part in parts if isinstance(part, str))
