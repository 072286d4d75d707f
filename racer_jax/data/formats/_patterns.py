"""Regular expressions that come with a file, run only where they take linear time.

A log may bring any expression along, and Python's engine takes exponential time for some. Accepted
are those that look at a bounded number of characters from each place: characters, classes and
anchors in a row, one group of alternatives, and one open repetition at the very end, which always
succeeds. A leading `.*` is found from the right instead.
"""

import re
from collections.abc import Callable

_MAX_LENGTH, _MAX_OPTIONAL = 200, 3
_FLAGS = re.compile(r"\(\?([ims]{1,3})\)")
_REPEATED = re.compile(r"\{\d{1,2}\}")
_ESCAPES = frozenset("dDwWsSbBnrtfvAZ")


def linear_remover(pattern: str) -> Callable[[str], str] | None:
    r"""What `re.sub(pattern, "", text)` does, in linear time.

    Args:
      pattern: A regular expression.

    Returns:
      The function of a text; None where the expression is invalid or not among those accepted.

    >>> linear_remover("(?s).*#### ")("2 + 2 = 4\n#### 4"), linear_remover("(a+)+$")
    ('4', None)
    """
    if len(pattern) > _MAX_LENGTH:
        return None
    flags = _FLAGS.match(pattern)
    start = flags.end() if flags else 0
    rest = pattern[start:]
    starts_anywhere = rest.startswith(".*") and rest[2:3] not in ("?", "+", "*", "{")
    if starts_anywhere:
        rest = rest[2:]
    if not _is_bounded(rest, alternatives=not starts_anywhere):
        return None
    try:
        expression = re.compile((flags[0] if flags else "") + rest)
    except (re.error, RecursionError, OverflowError):
        return None
    if starts_anywhere:
        everywhere = bool(flags and "s" in flags[1])
        return lambda text: _without_prefixed(expression, everywhere, text)
    return lambda text: expression.sub("", text)


def linear_pattern(pattern: str) -> re.Pattern[str] | None:
    r"""An expression whose matches in a text are found in linear time.

    Args:
      pattern: A regular expression.

    Returns:
      The expression; None where it is invalid or not among those accepted.

    >>> linear_pattern(r"answer is \(?([A-E])").search("the answer is (B)")[1]
    'B'
    >>> linear_pattern("(a+)+")
    """
    flags = _FLAGS.match(pattern)
    rest = pattern[flags.end() :] if flags else pattern
    if len(pattern) > _MAX_LENGTH or not _is_bounded(rest, alternatives=True):
        return None
    try:
        return re.compile(pattern)
    except (re.error, RecursionError, OverflowError):
        return None


def is_expression(pattern: object) -> bool:
    """Whether a value is a regular expression at all."""
    try:
        re.compile(pattern)  # type: ignore[call-overload]
    except (re.error, TypeError, RecursionError, OverflowError):
        return False
    return True


def _without_prefixed(rest: re.Pattern[str], everywhere: bool, text: str) -> str:
    """The text without what `.*` followed by `rest` matches.

    `.*` is greedy: from wherever it starts it reaches for the last place of its line (of the text,
    with the flag `s`) at which the rest matches. That place is the same for all starts before it,
    so one pass from the right finds it.
    """
    parts, start = [], 0
    while start <= len(text):
        end = len(text) if everywhere else text.find("\n", start)
        end = len(text) if end < 0 else end
        for place in range(end, start - 1, -1):
            match = rest.match(text, place)
            if match is not None:
                break
        if match is None:
            parts.append(text[start : end + 1])
            start = end + 1
            continue
        # No later place of the line matches: what is left of it stays.
        start = match.end()
        if start <= end:
            parts.append(text[start : end + 1])
            start = end + 1
    return "".join(parts)


def _is_bounded(pattern: str, alternatives: bool) -> bool:
    """Whether an expression looks at a bounded number of characters, but for an end it repeats."""
    i, open_groups, groups, optional = 0, 0, 0, 0
    while i < len(pattern):
        character = pattern[i]
        if character == "(":
            i += 3 if pattern.startswith("(?:", i) else 1
            open_groups, groups = open_groups + 1, groups + 1
            if groups > 1 or pattern[i : i + 1] == "?":
                return False
            continue
        if character == "|":
            if not (open_groups or alternatives):
                return False
            i += 1
            continue
        if character == ")":
            if not open_groups:
                return False
            open_groups -= 1
            i += 1
            if pattern[i : i + 1] in ("+", "*", "{"):
                return False
        elif (width := _atom(pattern, i)) is None:
            return False
        else:
            i += width
        following = pattern[i : i + 1]
        if following in ("+", "*") and following:
            return i + 1 == len(pattern)
        if following == "?":
            optional += 1
            i += 1
            if optional > _MAX_OPTIONAL or pattern[i : i + 1] in ("?", "+", "*"):
                return False
        elif following == "{":
            times = _REPEATED.match(pattern, i)
            if times is None or pattern[times.end() : times.end() + 1] in ("?", "+", "*", "{"):
                return False
            i = times.end()
    return not open_groups


def _atom(pattern: str, i: int) -> int | None:
    """The width of the character, escape or class at a place; None where there is none."""
    character = pattern[i]
    if character in "?*+{":
        return None
    if character == "\\":
        following = pattern[i + 1 : i + 2]
        plain = following in _ESCAPES or (following.isascii() and not following.isalnum())
        return 2 if following and plain else None
    if character != "[":
        return 1
    end = i + 1 + (pattern[i + 1 : i + 2] == "^")
    if pattern[end : end + 1] == "]":
        end += 1
    while end < len(pattern) and pattern[end] != "]":
        # What may mean sets of sets in a later version of Python is not accepted.
        if pattern[end] == "[" or pattern[end : end + 2] in ("--", "&&", "~~", "||"):
            return None
        end += 2 if pattern[end] == "\\" else 1
    return end + 1 - i if end < len(pattern) else None
