"""Random splits by question, never by row: duplicates of a question stay together."""

from collections.abc import Mapping, Sequence
from fractions import Fraction
from types import MappingProxyType
from typing import NamedTuple

import jax
import numpy as np

from racer_jax.data.labels import generator
from racer_jax.data.table import RoutingTable

Fractions = Sequence[float]

# Appendix B of the paper: calibration 50%, validation 10%, test 40%; for
# ARC-Challenge, the smallest benchmark, 40 / 20 / 40.
PAPER: Fractions = (0.5, 0.1, 0.4)
PAPER_ARC: Fractions = (0.4, 0.2, 0.4)


class Split(NamedTuple):
    """Row numbers of the three parts, each sorted, int64; together every row once.

    Use this when you read what `split` or `paper_split` returns; `RoutingTable.select` takes the
    row numbers.

    Attributes:
      calibration: Rows to calibrate on.
      validation: Rows to choose alpha and aggregation on.
      test: Rows to report on.
    """

    calibration: np.ndarray
    validation: np.ndarray
    test: np.ndarray


def split(
    key: jax.Array,
    table: RoutingTable,
    fractions: Fractions | Mapping[str, Fractions] = PAPER,
    by_group: bool = True,
) -> Split:
    """A random split of a table's questions.

    Within each group (or the whole table) the questions are shuffled and cut; the numbers of
    questions are the fractions of their total, rounded by largest remainder. Rows follow their
    question, so with duplicates the rows of a part may differ from its fraction by some. A question
    that stands in several groups is drawn in the first of them.

    Use this when you have one table and need separate rows for calibration, validation and test.

    Args:
      key: A typed PRNG key.
      table: The table.
      fractions: Calibration, validation, test: decimals that sum to 1, for all groups or by group.
      by_group: Whether each group is split on its own, so that every part holds its share of each.

    Returns:
      The rows of each part.

    Raises:
      TypeError: If `key` is not a typed key.
      ValueError: If fractions are not three numbers of at least 0 that sum to 1, or a group has
        none.

    >>> texts = ["1?", "2?", "1?", "3?"]
    >>> table = RoutingTable(ids=list("abcd"), texts=texts, models=["x"], correct=[[1]] * 4)
    >>> parts = split(jax.random.key(0), table, (0.5, 0.0, 0.5))
    >>> len(parts.validation), any({0, 2} <= set(part.tolist()) for part in parts)
    (0, True)
    """
    rng = generator(key)
    questions = table.question_ids
    groups = table.groups if by_group and table.group is not None else ("",)
    if by_group and table.group is not None:
        numbers = {name: i for i, name in enumerate(groups)}
        group_of_row = np.array([numbers[name] for name in table.group], dtype=np.int64)
    else:
        group_of_row = np.zeros(len(table), np.int64)
    firsts = np.unique(questions, return_index=True)[1]
    group_of_question = group_of_row[firsts]
    part_of_question = np.empty(len(firsts), np.int64)
    for number, name in enumerate(groups):
        members = np.flatnonzero(group_of_question == number)
        counts = _counts(_fractions_for(fractions, name), len(members))
        part_of_question[rng.permutation(members)] = np.repeat(np.arange(3), counts)
    part = part_of_question[questions]
    return Split(*(np.flatnonzero(part == number) for number in range(3)))


def paper_split(key: jax.Array, table: RoutingTable) -> Split:
    """The paper's protocol: 50 / 10 / 40 in each benchmark, 40 / 20 / 40 for ARC-Challenge.

    Use this when your figures shall be compared with the paper's; `split` takes fractions of your
    own.

    Args:
      key: A typed PRNG key.
      table: The table; groups whose name holds `arc_c` (any case, `-` for `_`) are ARC-Challenge.

    Returns:
      The rows of each part.

    Raises:
      TypeError: If `key` is not a typed key.
    """
    fractions = {
        name: PAPER_ARC if "arc_c" in name.lower().replace("-", "_") else PAPER
        for name in table.groups
    }
    return split(key, table, MappingProxyType(fractions) if fractions else PAPER)


def _fractions_for(fractions: Fractions | Mapping[str, Fractions], group: str) -> list[Fraction]:
    if isinstance(fractions, Mapping):
        if group not in fractions:
            raise ValueError(f"fractions must name every group, got none for {group!r}")
        fractions = fractions[group]
    # As decimals: 0.1 + 0.5 + 0.4 is 1, whatever binary makes of it.
    exact = [Fraction(str(fraction)) for fraction in fractions]
    if len(exact) != 3 or min(exact) < 0 or sum(exact) != 1:
        raise ValueError(
            f"fractions must be three numbers of at least 0 that sum to 1, got {tuple(fractions)}"
        )
    return exact


def _counts(fractions: list[Fraction], n: int) -> list[int]:
    """`n` shared out by largest remainder; of equal remainders the earlier part gains."""
    shares = [fraction * n for fraction in fractions]
    counts = [int(share) for share in shares]
    order = sorted(range(3), key=lambda i: (counts[i] - shares[i], i))
    for i in order[: n - sum(counts)]:
        counts[i] += 1
    return counts
