"""Secrets: references in the configuration, values that are never shown, and redacted logs."""

import logging
import os
import re
from collections.abc import Iterable
from pathlib import Path

_REFERENCE = re.compile(r"\$\{(?P<file>file:)?(?P<name>[^}]*)\}")
_SHORTEST = 6


class Secret:
    """A text that no `repr`, error or log shows.

    Use this when you give a key to `Deployment` or `Audit` in a program.

    Args:
      text: The secret.
    """

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def __repr__(self) -> str:
        return "Secret(...)"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._text == self._text

    def __hash__(self) -> int:
        return hash(self._text)

    def reveal(self) -> str:
        """The text itself, for the one who sends it."""
        return self._text


def expanded(text: str, folder: Path = Path()) -> str:
    """A text with its references `${VAR}` and `${file:PATH}` replaced.

    Args:
      text: The text.
      folder: What paths are relative to.

    Raises:
      ValueError: If a variable is not set, or a file cannot be read.
    """
    return _REFERENCE.sub(lambda match: _value(match, folder), text)


def is_reference(text: str) -> bool:
    """Whether a text is one reference and nothing else."""
    return _REFERENCE.fullmatch(text) is not None


def _value(match: re.Match[str], folder: Path) -> str:
    name = match["name"]
    if match["file"]:
        try:
            return (folder / name).read_text(encoding="utf-8").strip()
        except (OSError, ValueError) as error:
            problem = getattr(error, "strerror", None) or "it is not text in UTF-8"
            raise ValueError(f"the file {name!r} cannot be read: {problem}") from None
    if name not in os.environ:
        raise ValueError(f"the environment variable {name!r} is not set")
    return os.environ[name]


class Redaction(logging.Filter):
    """Takes secrets out of what is logged, exceptions included.

    Args:
      secrets: What must not be shown; those below 6 characters are left, as they are in any text.
    """

    def __init__(self, secrets: Iterable[str]) -> None:
        super().__init__()
        self._secrets = sorted({s for s in secrets if len(s) >= _SHORTEST}, key=len, reverse=True)

    def clean(self, text: str) -> str:
        """The text without the secrets."""
        for secret in self._secrets:
            text = text.replace(secret, "[secret]")
        return text

    def filter(self, record: logging.LogRecord) -> bool:
        """Redacts a record; it is always kept."""
        record.msg, record.args = self.clean(record.getMessage()), None
        if record.exc_info:
            record.exc_text = self.clean(logging.Formatter().formatException(record.exc_info))
            record.exc_info = None
        return True
