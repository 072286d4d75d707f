"""Options of a reader, typed as one line of the shell."""

import shlex
from typing import Any

from racer_jax.data.remedies import OPTIONS, option_value


def typed_options(line: str) -> dict[str, Any]:
    """Options of `load` from a line such as an error names them.

    Use this when a command of yours hands options to a reader and has none for each.

    Args:
      line: Options as `racer-jax` takes them: `--models a,b --no-check-results`.

    Returns:
      The keywords of `load`.

    Raises:
      ValueError: If one is no option of a reader, or lacks its value; the message names it.

    >>> typed_options("--models 'a,b' --columns query=prompt")
    {'models': ['a', 'b'], 'columns': {'query': 'prompt'}}
    """
    flags = {option.flag: name for name, option in OPTIONS.items() if name != "key"}
    words, options = shlex.split(line), {}
    while words:
        flag, attached, value = words.pop(0).partition("=")
        is_off = flag.startswith("--no-")
        name = flags.get(f"--{flag[5:]}" if is_off else flag)
        if name is None or (is_off and OPTIONS[name].kind != "switch"):
            raise ValueError(
                f"options of a reader must be among {', '.join(flags)}, got {flag[:60]!r}"
            )
        if OPTIONS[name].kind == "switch":
            options[name] = not is_off
            continue
        if not attached and not words:
            raise ValueError(f"{flag} must be followed by its value")
        options[name] = option_value(name, value if attached else words.pop(0))
    return options
