"""The grammar of a label rule's name, apart from what the rule does."""

import math
import re
from typing import NamedTuple

_THRESHOLD = re.compile(r"score\s*(>=|>)\s*([0-9.eE+-]+)")
ONE_ATTEMPT = "one attempt"


class Threshold(NamedTuple):
    """`score > value`, or `score >= value` where `inclusive`.

    Use this when you read what `parse_threshold` returns.
    """

    value: float
    inclusive: bool


def parse_threshold(text: str) -> Threshold | None:
    """The threshold in a rule's name; None where it is not one of a finite number.

    Use this when a rule's name comes as text.
    """
    match = _THRESHOLD.fullmatch(text.strip())
    try:
        value = float(match[2]) if match else math.nan
    except ValueError:
        value = math.nan
    if match is None or not math.isfinite(value):
        return None
    return Threshold(value, match[1] == ">=")


def is_rule(text: str) -> bool:
    """Whether a text is the name of a label rule.

    Use this when an option may be a rule or something else.
    """
    return text.strip() == ONE_ATTEMPT or parse_threshold(text) is not None
