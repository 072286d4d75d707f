"""Docstrings as the site shows them: code for examples and formulas, types for results.

Results have the type of the signature.

Griffe fences examples only under a heading, ours stand where they explain. And it reads what stands
before a colon under `Returns:` as a type; our types stand in the signature, our sentences have
colons.
"""

import re
import textwrap
from typing import Any

import griffe

_EXAMPLE = re.compile(r"^( *)>>> .*\n(?:\1 *\S.*\n?)*", re.MULTILINE)
# A heading after which indented lines are entries, and not a formula.
_SECTION = re.compile(r"[A-Z][a-z]+:")
_RESULT = re.compile(r"^( *)(Returns|Yields):\n\1( +)(?=\S)", re.MULTILINE)


def with_formulas(docstring: str) -> str:
    """The docstring with its formulas, which are indented paragraphs, as blocks of code."""
    last, paragraphs = "", []
    for paragraph in docstring.split("\n\n"):
        lines = paragraph.splitlines()
        last = next((line for line in reversed(lines) if not line.startswith(" ")), last)
        indented = bool(lines) and all(re.match(r" {2,3}[^ >*-]", line) for line in lines)
        if indented and not _SECTION.fullmatch(last):
            paragraph = f"```text\n{textwrap.dedent(paragraph)}\n```"
        paragraphs.append(paragraph)
    return "\n\n".join(paragraphs)


class SiteDocstrings(griffe.Extension):
    """Fences every `>>>` block, up to the next empty line, and types every result."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Rewrites the docstring of one object."""
        if obj.docstring is None:
            return
        text = with_formulas(obj.docstring.value)
        text = _EXAMPLE.sub(self._fenced, text + "\n").rstrip()
        if isinstance(obj, griffe.Function):
            text = _RESULT.sub(lambda match: f"{match[0]}{self._type(obj, match[2])}: ", text)
        obj.docstring.value = text

    @staticmethod
    def _fenced(match: re.Match[str]) -> str:
        indent, example = match[1], match[0].rstrip("\n")
        return f"{indent}```pycon\n{example}\n{indent}```\n"

    @staticmethod
    def _type(function: griffe.Function, section: str) -> str:
        """The type of a result; of what a generator yields, that of one of them."""
        returns = function.returns
        if returns is None:
            raise ValueError(f"{function.path}: {section} is documented, the result has no type")
        if section == "Yields" and isinstance(returns, griffe.ExprSubscript):
            first = returns.slice
            return str(first.elements[0] if isinstance(first, griffe.ExprTuple) else first)
        return str(returns)
