"""YAML of a configuration: a name that comes twice is refused, as in TOML."""

from typing import Any

import yaml


class _Loader(yaml.SafeLoader):  # type: ignore[misc]  # without types
    """Values of plain types; YAML itself would keep the last of two equal names in silence."""

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


def plain_yaml(text: str) -> Any:
    """What a text of YAML holds.

    Use this when a configuration is written in YAML.

    Args:
      text: The text.

    Raises:
      ValueError: If it is none, a name comes twice in one table, or a date or number cannot be.
      RecursionError: If it is nested too deeply.
    """
    try:
        return yaml.load(text, _Loader)
    except yaml.MarkedYAMLError as error:  # whose words would quote the file, secrets and all
        mark = error.problem_mark
        raise ValueError(
            f"{error.problem} (line {mark.line + 1}, column {mark.column + 1})"
        ) from None
    except yaml.YAMLError as error:
        raise ValueError(" ".join(str(error).split())) from None
