"""The words in which a promise is stated."""

from collections.abc import Mapping
from typing import NamedTuple


class Wording(NamedTuple):
    """The parts of a promise that may be said in other words.

    Use this when a promise is to be said in the words of an earlier version.

    Attributes:
      assumption: What is assumed of new queries; `{who}` stands for the calibration queries.
      misses: What counts as a miss, by null mode.
      surely: How sure a promise with a delta is, of `{delta}` and `{confidence}`, 1 - delta.
    """

    assumption: str
    misses: Mapping[str, str]
    surely: str
