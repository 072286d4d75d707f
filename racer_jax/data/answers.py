"""Answers in a normal form: equal answers are equal strings, and None is no answer."""

import re

_LETTER = re.compile(r"\(?([A-Z])\s*+[).:(]*+")
_NUMBER = re.compile(r"-?\$?\d[\d,]*(?:\.\d+)?")


def letter(response: str, last: str = "E") -> str | None:
    r"""The choice of a response that is a lone letter, perhaps with a bracket or a full stop.

    Use this when answers to multiple choice are compared.

    Args:
      response: The response.
      last: The last letter that is a choice.

    Returns:
      `A` to `last`; None for anything else, a refusal above all.

    >>> letter("A)\n"), letter("I do"), letter("A hypothesis"), letter("G")
    ('A', None, None, None)
    """
    match = _LETTER.fullmatch(response.strip())
    return match[1] if match and match[1] <= last else None


def answer_pattern(pattern: str) -> re.Pattern[str] | None:
    """A regular expression that finds answers in texts of any length, in linear time.

    Use this when a pattern comes from a file or a command line.

    Args:
      pattern: Characters, classes and anchors in a row, one group of alternatives at most, an open
        repetition at the end alone.

    Returns:
      The expression; None where it is invalid, or of another kind.
    """
    from racer_jax.data.formats._patterns import linear_pattern

    return linear_pattern(pattern)


def last_number(response: str) -> str | None:
    """The last number of a response, without separators, currency signs and trailing zeros.

    Use this when answers are numbers within a text.

    Args:
      response: The response.

    Returns:
      The number as the shortest decimal; None where there is none.

    >>> last_number("She makes 9 * $2 = $1,018.50."), last_number("I cannot say.")
    ('1018.5', None)
    """
    numbers = _NUMBER.findall(response)
    if not numbers:
        return None
    digits = numbers[-1].replace(",", "").replace("$", "")
    whole, _, fraction = digits.partition(".")
    sign = "-" if whole.startswith("-") else ""
    whole, fraction = whole.lstrip("-").lstrip("0") or "0", fraction.rstrip("0")
    number = whole + ("." + fraction if fraction else "")
    return number if number == "0" else sign + number


def text(response: str) -> str | None:
    r"""The response itself without white space around it.

    Use this when answers are compared as they are.

    Args:
      response: The response.

    Returns:
      The text; None where nothing is left.

    >>> text(" Paris\n"), text("  ")
    ('Paris', None)
    """
    return response.strip() or None
