"""Label rules: how a graded score becomes right or wrong; the table keeps the rule's name.

On GSM8K the rule moves the share of questions that no model answers from 4.5% to 32%, so a result
means nothing without its rule.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

import numpy as np

from racer_jax.data.errors import DataError
from racer_jax.data.remedies import Remedy
from racer_jax.data.rule_text import ONE_ATTEMPT, parse_threshold

if TYPE_CHECKING:
    import jax

# The table's labels came as 0/1: no rule of ours was applied.
GIVEN = "as given"


@dataclass(frozen=True)
class LabelRule:
    """A rule that turns graded scores into right or wrong.

    Use this when scores are graded and you make 0/1 labels of them in your own code; the readers
    take the rule's name as `label_rule`.

    Attributes:
      name: Its canonical name, such as `score > 0.5`; `parse` reads it back.
      threshold: The number compared with, None for `one attempt`.
      inclusive: Whether a score equal to the threshold is right.
    """

    name: str
    threshold: float | None
    inclusive: bool = False

    @classmethod
    def parse(cls, name: str | LabelRule) -> LabelRule:
        """The rule of a name: `score > X`, `score >= X` or `one attempt`.

        Use this when the rule comes as text, as from an option.

        Args:
          name: The name; a rule is returned as it is.

        Returns:
          The rule, with its canonical name.

        Raises:
          TypeError: If `name` is neither a string nor a rule.
          ValueError: If no rule has this name.

        >>> LabelRule.parse("score>.50").name
        'score > 0.5'
        """
        if isinstance(name, LabelRule):
            return name
        if not isinstance(name, str):
            raise TypeError(f"label rule must be a string such as 'score > 0.5', got {name!r}")
        if name.strip() == ONE_ATTEMPT:
            return cls(ONE_ATTEMPT, None)
        threshold = parse_threshold(name)
        if threshold is None:
            raise ValueError(
                f"label rule must be 'score > X', 'score >= X' or '{ONE_ATTEMPT}', got {name!r}"
            )
        number = repr(threshold.value).removesuffix(".0")  # the shortest text that reads back equal
        sign = ">=" if threshold.inclusive else ">"
        return cls(f"score {sign} {number}", threshold.value, threshold.inclusive)

    def apply(self, graded: np.ndarray, key: jax.Array | None = None) -> np.ndarray:
        """Labels of graded scores.

        Use this when results are graded and a table needs right and wrong.

        Args:
          graded: Scores `[n, m]`, finite; in [0, 1] for `one attempt`, whose pass rate they then
            are.
          key: A typed PRNG key, needed by `one attempt` alone, which draws one of the attempts of
            each cell.

        Returns:
          bool `[n, m]`.

        Raises:
          ValueError: If the rule needs a key and got none, or pass rates outside [0, 1].
        """
        if self.threshold is None:
            if key is None:
                raise DataError(
                    f"label rule '{ONE_ATTEMPT}' draws an attempt and needs a key, got none",
                    remedy=Remedy("pass {}", key=0),
                )
            if ((graded < 0) | (graded > 1)).any():
                raise ValueError(f"label rule '{ONE_ATTEMPT}' needs pass rates in [0, 1]")
            return generator(key).random(graded.shape) < graded
        return graded >= self.threshold if self.inclusive else graded > self.threshold


def for_name(option: str | Mapping[str, str] | None, name: str) -> str | None:
    """What an option says of one task or benchmark.

    Use this when an option holds one value for all tasks or a mapping by task.

    Args:
      option: One value for all, or one by name or pattern of the name.
      name: The name of the task or benchmark.

    Returns:
      The value: that of the name itself, else of the first pattern that fits, else None.

    >>> for_name({"mmlu_*": "acc", "mmlu_law": "acc_norm"}, "mmlu_law")
    'acc_norm'
    """
    if not isinstance(option, Mapping):
        return option
    if name in option:
        return option[name]
    return next((value for pattern, value in option.items() if fnmatchcase(name, pattern)), None)


def generator(key: jax.Array) -> np.random.Generator:
    """A NumPy generator seeded from a typed PRNG key: host draws stay explicit and replayable.

    Use this when host code draws random numbers from a key of JAX.

    Args:
      key: A typed PRNG key (`jax.random.key`).

    Returns:
      A generator that depends on the key alone.

    Raises:
      TypeError: If `key` is not a single typed key.
    """
    import jax  # a table alone is read without it
    import jax.numpy as jnp

    if not isinstance(key, jax.Array) or not jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
        raise TypeError(f"key must be jax.random.key(seed), got {key!r}")
    if key.ndim:
        raise TypeError(f"key must be a single key, got an array of keys {list(key.shape)}")
    return np.random.default_rng(np.asarray(jax.random.key_data(key)))


def key_of_part(key: jax.Array | None, number: int) -> jax.Array | None:
    """The key of one part of what is read, such as a file or a group; none where there is none.

    Use this when parts of a table are drawn each on its own.
    """
    if key is None:
        return None
    import jax

    return jax.random.fold_in(key, number)
