"""Views: which text of a conversation is routed. It must be the text that was calibrated on."""

from dataclasses import dataclass
from string import Formatter

VIEWS = ("last_user", "all_user")
TEMPLATE = "template:"
_PARTS = ("system", "first_user", "last_user", "all_user")
# What is routed where a request holds an image alone.
_NO_TEXT = "(no text)"


@dataclass(slots=True)
class Conversation:
    """The texts of a conversation that a view may read.

    Attributes:
      user: The texts of the user's messages, in their order, at least one.
      system: The texts of the system's messages, joined.
    """

    user: list[str]
    system: str = ""


def check_view(view: str) -> str:
    """Refuses a view that there is not.

    Args:
      view: `last_user`, `all_user`, or `template:` and a text with `{system}`, `{first_user}`,
        `{last_user}` and `{all_user}`, such as that which made the questions of a log.

    Raises:
      ValueError: If it is another.
    """
    if view in VIEWS:
        return view
    if not view.startswith(TEMPLATE):
        raise ValueError(
            f"a view must be {', '.join(VIEWS)} or {TEMPLATE} and a text with "
            f"{', '.join(f'{{{part}}}' for part in _PARTS)}, got {view[:80]!r}"
        )
    try:
        parts = list(Formatter().parse(view.removeprefix(TEMPLATE)))
    except ValueError as error:
        raise ValueError(f"the template {view!r} cannot be read: {error}") from None
    names = {name for _, name, _, _ in parts if name is not None}
    formatted = any(spec or conversion for _, name, spec, conversion in parts if name is not None)
    if not names or formatted or not names <= set(_PARTS):
        raise ValueError(
            f"a template must hold {', '.join(f'{{{part}}}' for part in _PARTS)} and nothing else "
            f"in braces, got {view!r}"
        )
    return view


def viewed(conversation: Conversation, view: str) -> str:
    """The text of a conversation that is routed; a text that says so where there is none.

    Args:
      conversation: The conversation.
      view: The view, checked.
    """
    text = _viewed(conversation, view)
    return text if text.strip() else _NO_TEXT


def has_text(conversation: Conversation, view: str) -> bool:
    """Whether there is a text to route.

    Args:
      conversation: The conversation.
      view: The view, checked.
    """
    return bool(_viewed(conversation, view).strip())


def _viewed(conversation: Conversation, view: str) -> str:
    user = conversation.user
    if view == "last_user":
        text = user[-1]
    elif view == "all_user":
        text = "\n\n".join(user)
    elif not any(part.strip() for part in user):
        text = ""
    else:
        text = view.removeprefix(TEMPLATE).format(
            system=conversation.system,
            first_user=user[0],
            last_user=user[-1],
            all_user="\n\n".join(user),
        )
    return text
