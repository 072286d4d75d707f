"""Docstrings as the site shows them: code for examples and formulas, types for results.

Results have the type of the signature.

Griffe fences examples only under a heading, ours stand where they explain. And it reads what stands
before a colon under `Returns:` as a type; our types stand in the signature, our sentences have
colons.
"""

import re
import textwrap
from collections.abc import Iterator
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


# A class whose attributes are described at its base, and that description.
_OF_BASE = re.compile(r"\s*(?:Its|The)\s+attributes\s+are\s+those\s+of\s+`(\w+)`\.")
_ATTRIBUTES = re.compile(r"^Attributes:\n(?: +.*\n?)+", re.MULTILINE)


def classes(module: griffe.Module) -> Iterator[griffe.Class]:
    """The classes of a package, those of its modules included."""
    yield from module.classes.values()
    for inner in module.modules.values():
        if not inner.is_alias:
            yield from classes(inner)


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

    def on_package(self, *, pkg: griffe.Module, **_: Any) -> None:
        """Describes attributes where a class names the base that describes them.

        The base has no page: it is a part of the class in a file of its own.
        """
        for cls in classes(pkg):
            if cls.is_alias or cls.docstring is None:
                continue
            named = _OF_BASE.search(cls.docstring.value)
            if named is None:
                continue
            base = next(base for base in cls.mro() if base.name == named[1])
            attributes = _ATTRIBUTES.search(base.docstring.value + "\n")
            before, after = _OF_BASE.split(cls.docstring.value)[::2]
            cls.docstring.value = f"{before}{after}\n\n{attributes[0]}"

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
