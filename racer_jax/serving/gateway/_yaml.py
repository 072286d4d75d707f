"""YAML of a configuration: values mean what they look like, and no name comes twice.

PyYAML reads plain values by YAML 1.1, where 010 is eight, 1:20 is eighty, and yes, no, on and off
are true or false. Here they are read by the core schema of YAML 1.2; `<<` takes over a table.
"""

import re
from collections.abc import Iterator
from typing import Any, ClassVar

import yaml

# What a plain value is, as the core schema has it; whatever is none of these is text.
_TAGS = (
    ("null", r"(?:~|null|Null|NULL|)", "~nN\0"),
    ("bool", r"(?:true|True|TRUE|false|False|FALSE)", "tTfF"),
    ("int", r"(?:[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+)", "-+0123456789"),
    (
        "float",
        r"(?:[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?"
        r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))",
        "-+.0123456789",
    ),
    ("merge", r"<<", "<"),
)
_NAME = "tag:yaml.org,2002:{}"
_INT, _FLOAT = _NAME.format("int"), _NAME.format("float")
_LEADING_ZERO = re.compile(r"([-+]?)0+([0-9].*)")


class _Loader(yaml.SafeLoader):  # type: ignore[misc]  # without types
    """Values of plain types; YAML itself would keep the last of two equal names in silence."""

    yaml_implicit_resolvers: ClassVar[dict[str, Any]] = {}  # those of YAML 1.1 stay out

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        """A table of a node."""
        seen: set[Any] = set()
        for key, _ in node.value if isinstance(node, yaml.MappingNode) else ():
            name = (key.tag, key.value) if isinstance(key, yaml.ScalarNode) else None
            if name is not None and name in seen:
                raise yaml.MarkedYAMLError(
                    problem=f"the name {key.value!r:.60} comes twice", problem_mark=key.start_mark
                )
            seen.add(name)
        return super().construct_mapping(node, deep)

    def number(self, node: Any) -> int | float:
        """A number of the core schema."""
        text = str(node.value)
        if node.tag == _INT:
            return int(text, {"0o": 8, "0x": 16}.get(text[:2], 10))
        return float(re.sub(r"\.(?=inf|nan)", "", text.lower()))


for _tag, _pattern, _first in _TAGS:
    _Loader.add_implicit_resolver(
        _NAME.format(_tag),
        re.compile(f"{_pattern}\\Z"),
        ["" if character == "\0" else character for character in _first],
    )
for _tag in (_INT, _FLOAT):
    _Loader.add_constructor(_tag, _Loader.number)


def plain_yaml(text: str) -> Any:
    """What a text of YAML holds.

    Use this when a configuration is written in YAML.

    Args:
      text: The text.

    Raises:
      ValueError: If it is none, a name comes twice in one table, a number begins with a zero, or a
        date or number cannot be.
      RecursionError: If it is nested too deeply.
    """
    try:
        loader = _Loader(text)
        try:
            root = loader.get_single_node()
            if root is None:
                return None
            _check_zeros(root)
            return loader.construct_document(root)
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:  # whose words would quote the file, secrets and all
        mark, problem = error.problem_mark, error.problem
        if (error.context or "").startswith("found duplicate anchor"):
            problem = error.context.partition(";")[0]
        raise ValueError(f"{problem} (line {mark.line + 1}, column {mark.column + 1})") from None
    except yaml.YAMLError as error:
        raise ValueError(" ".join(str(error).split())) from None


def _check_zeros(root: Any) -> None:
    """Refuses numbers that some read as octal, others as decimal, and their writers as text.

    Raises:
      yaml.MarkedYAMLError: If there is one.
    """
    for node, path in _scalars(root, "$", set()):
        match = _LEADING_ZERO.fullmatch(node.value)
        if match is None or node.style is not None or node.tag not in (_INT, _FLOAT):
            continue
        octal = f", 0o{match[2]} if it is octal" if re.fullmatch("[0-7]+", match[2]) else ""
        problem = (
            f"{node.value:.60} begins with a zero: write {match[1]}{match[2]:.60}{octal}, or "
            f'"{node.value:.60}" if it is text - at `{path}`'
        )
        raise yaml.MarkedYAMLError(problem=problem, problem_mark=node.start_mark)


def _scalars(node: Any, path: str, seen: set[int]) -> Iterator[tuple[Any, str]]:
    """The values within a node, each with its path; what an alias stands for comes once."""
    if isinstance(node, yaml.ScalarNode):
        yield node, path
    if id(node) in seen:
        return
    seen.add(id(node))
    if isinstance(node, yaml.SequenceNode):
        for i, item in enumerate(node.value):
            yield from _scalars(item, f"{path}[{i}]", seen)
    elif isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            name = key.value if isinstance(key, yaml.ScalarNode) else "?"
            yield from _scalars(key, f"{path}.{name:.60}", seen)
            yield from _scalars(value, f"{path}.{name:.60}", seen)
