"""Scores of a black box: what any router outside this package computed enters here."""

from collections.abc import Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from racer_jax._arrays import given
from racer_jax.core.checks import check_scores


@dataclass(frozen=True, eq=False)
class Scores:
    """A checked matrix of scores, with the names of the models.

    Use this when scores come from outside, such as a file or another program, and each column shall
    keep the name of its model.

    Attributes:
      values: s(x, m), float32 `[n, m]`, in [0, 1].
      models: Names of the models, `[m]`.

    Raises:
      TypeError: If the values are not floating.
      ValueError: If there is no query or model, a value is not finite or outside [0, 1], or the
        names do not fit.

    >>> Scores(np.array([[0.25, 0.75]]), ["small", "large"]).of("large").tolist()
    [0.75]
    """

    values: jax.Array
    models: Sequence[str]

    def __post_init__(self) -> None:
        values = jnp.asarray(given("values", self.values))
        check_scores(values)
        if values.ndim != 2 or values.shape[0] < 1:
            raise ValueError(f"values must have shape [n, m] with n, m >= 1, got {values.shape}")
        models = tuple(self.models)
        if len(models) != values.shape[1] or len(set(models)) != len(models):
            raise ValueError(f"models must hold {values.shape[1]} different names, got {models}")
        object.__setattr__(self, "values", values.astype(jnp.float32))
        object.__setattr__(self, "models", models)

    def __len__(self) -> int:
        return int(self.values.shape[0])

    def of(self, model: str) -> jax.Array:
        """The scores of one model, float32 `[n]`.

        Use this when you read the scores of one model.

        Raises:
          KeyError: If there is no model of that name.
        """
        if model not in self.models:
            raise KeyError(f"no model {model!r}; the models are {', '.join(self.models)}")
        return self.values[:, self.models.index(model)]

    def take(self, rows: ArrayLike) -> "Scores":
        """The scores of some queries: row numbers, or a mask bool `[n]`.

        Use this when you need the scores of some rows.
        """
        return Scores(self.values[np.asarray(rows)], self.models)
