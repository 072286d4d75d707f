"""Shows the examples of docstrings as code.

Griffe fences them only under a heading, ours stand where they explain.
"""

import re
from typing import Any

import griffe

_EXAMPLE = re.compile(r"^( *)>>> .*\n(?:\1\S.*\n?)*", re.MULTILINE)


class FencedDoctests(griffe.Extension):
    """Fences every `>>>` block, up to the next empty line."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Rewrites the docstring of one object."""
        if obj.docstring is not None:
            obj.docstring.value = _EXAMPLE.sub(self._fenced, obj.docstring.value + "\n").rstrip()

    @staticmethod
    def _fenced(match: re.Match[str]) -> str:
        indent, example = match[1], match[0].rstrip("\n")
        return f"{indent}```pycon\n{example}\n{indent}```\n"
