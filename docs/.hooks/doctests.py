"""Docstrings as the site shows them: code for examples and formulas, types for results.

Results have the type of the signature. A class shows how it is called where readers call it, and
the options of a command have the words that the command prints.

Griffe fences examples only under a heading, ours stand where they explain. And it reads what stands
before a colon under `Returns:` as a type; our types stand in the signature, our sentences have
colons.
"""

import ast
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


def functions(obj: griffe.Module | griffe.Class) -> Iterator[griffe.Function]:
    """The functions of a package and the methods of its classes."""
    for member in obj.members.values():
        if isinstance(member, griffe.Function):
            yield member
        elif not member.is_alias and isinstance(member, (griffe.Module, griffe.Class)):
            yield from functions(member)


# A class whose objects readers get from a function or a method, as its docstring says.
_NOT_CALLED = re.compile(
    r"Use this when\s+(?:you\s+)?(?:read|reading|catch|want\s+to\s+look)\b|\b[Mm]ake\s+one\s+with\b"
)
# A longer default would hide the others.
_LONGEST_DEFAULT = 60


def is_called(cls: griffe.Class) -> bool:
    """Whether a class shows how it is called: where readers do so, and its attributes say less.

    Where no parameter of a dataclass has a default, its attributes are its parameters.
    """
    docstring = cls.docstring.value if cls.docstring else ""
    init = cls.members["__init__"]
    defaults = [parameter.default for parameter in init.parameters]
    is_written = "dataclass" not in cls.labels
    return not _NOT_CALLED.search(docstring) and (is_written or any(defaults))


def shown_default(default: Any) -> Any:
    """A default as a signature shows it: the result of a lambda, and dots for what is computed.

    A mapping that cannot be changed is shown as the mapping.
    """
    if isinstance(default, griffe.ExprCall) and isinstance(default.function, griffe.ExprLambda):
        default = default.function.body
    if isinstance(default, griffe.ExprCall) and str(default.function) == "MappingProxyType":
        [default] = default.arguments
    is_computed = isinstance(default, griffe.ExprBinOp) or str(default).count("(") > 1
    return "..." if is_computed or len(str(default)) > _LONGEST_DEFAULT else default


def option(annotation: Any) -> tuple[Any, str]:
    """The type of an annotation, and the text that `Annotated` may join to it."""
    if isinstance(annotation, griffe.ExprSubscript) and str(annotation.left) == "Annotated":
        kind, text, *_ = annotation.slice.elements
        return kind, ast.literal_eval(text) if isinstance(text, str) else ""
    return annotation, ""


def options_of(cls: griffe.Class) -> dict[str, str]:
    """The options of a command by name, those of its bases first: the words of its help."""
    texts = {}
    for base in (*reversed(cls.mro()), cls):
        for name, attribute in base.attributes.items():
            _, text = option(attribute.annotation)
            if text:
                texts[name] = text
    return texts


def with_options(docstring: str, options: dict[str, str]) -> str:
    """The docstring of a class with its options as attributes, where it describes none."""
    if not options or _ATTRIBUTES.search(docstring + "\n"):
        return docstring
    rows = [f"  {name}: {text[0].upper()}{text[1:]}." for name, text in options.items()]
    return "\n".join([docstring, "", "Attributes:", *rows])


class SiteDocstrings(griffe.Extension):
    """Fences every `>>>` block, up to the next empty line, and types every result."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Rewrites the docstring of one object."""
        if obj.docstring is None:
            return
        text = with_formulas(obj.docstring.value)
        obj.docstring.value = _EXAMPLE.sub(self._fenced, text + "\n").rstrip()

    def on_package(self, *, pkg: griffe.Module, **_: Any) -> None:
        """Completes what stands in other places: constructors, options, attributes of bases."""
        for cls in classes(pkg):
            self._show_constructor(cls)
        for cls in classes(pkg):
            if cls.docstring is not None:
                cls.docstring.value = with_options(cls.docstring.value, options_of(cls))
        for cls in classes(pkg):
            for attribute in cls.attributes.values():
                attribute.annotation, _ = option(attribute.annotation)
        self._describe_attributes(pkg)
        for function in functions(pkg):
            self._type_results(function)

    def _type_results(self, function: griffe.Function) -> None:
        """Types the results of a function, and shows defaults that can be read."""
        for parameter in function.parameters:
            parameter.default = shown_default(parameter.default)
        if function.docstring is not None:
            function.docstring.value = _RESULT.sub(
                lambda match: f"{match[0]}{self._type(function, match[2])}: ",
                function.docstring.value,
            )

    @staticmethod
    def _show_constructor(cls: griffe.Class) -> None:
        """Leaves a class its constructor where readers call it, with defaults that can be read."""
        if "__init__" not in cls.members:
            return
        if not is_called(cls):
            for base in (cls, *cls.mro()):
                base.members.pop("__init__", None)
            return
        for parameter in cls.members["__init__"].parameters:
            parameter.annotation, _ = option(parameter.annotation)

    @staticmethod
    def _describe_attributes(pkg: griffe.Module) -> None:
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
