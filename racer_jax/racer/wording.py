"""The words in which a promise is stated."""

from collections.abc import Mapping
from typing import NamedTuple

# What orders the models of a query, by the nonconformity's name.
ORDERED_BY: Mapping[str, str] = {
    "J_learned": "what each model adds to those before it, learned from this question",
    "J": "what it adds near this question (RACER-J)",
    "static": "what it adds on the training questions, the same for every question",
    "inverse_probability": "1 - score (RACER-P of the paper)",
    "gap": "the gap to the best score (RACER-G of the paper)",
}


class Wording(NamedTuple):
    """The parts of a promise that may be said in other words.

    Use this when a promise is to be said in the words of an earlier version.

    Attributes:
      assumption: What is assumed of new queries; `{who}` stands for the calibration queries,
        `{of}` for the groups that it is of.
      misses: What counts as a miss, by null mode.
      grades: What the loss `grade` is, by null mode.
      surely: How sure a promise with a delta is, of `{delta}` and `{confidence}`, 1 - delta.
      by_group: What is added to it where the promise is one for each of several groups.
    """

    assumption: str
    misses: Mapping[str, str]
    grades: Mapping[str, str]
    surely: str
    by_group: str = ""


def counted(most: int) -> str:
    """A number of models in a sentence. Use this when a sentence counts models."""
    return "1 model" if most == 1 else f"{most} models"
