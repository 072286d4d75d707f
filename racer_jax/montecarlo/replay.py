r"""Splits drawn again: which queries stood in which part of any trial."""

from functools import partial
from typing import Unpack

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from racer_jax._arrays import given
from racer_jax.core.placement import on_own_devices
from racer_jax.montecarlo.split_design import (
    DrawPlan,
    SplitSpec,
    draw_parts,
    split_design,
    trial_keys,
    trial_parts,
    words_by_position,
)
from racer_jax.montecarlo.step_functions import Pool
from racer_jax.montecarlo.subsets import draw_plan, key_words, unpack


def split_masks(
    key: jax.Array, trials: ArrayLike, *, num_calibration: int, num_queries: int
) -> jax.Array:
    """Replays plain splits: which POSITIONS of the pool are calibration queries in each trial.

    Use this when the pool is split plainly and positions are wanted; under `jit`, too.
    `split_parts` replays every design, by query.

    Args:
      key: The typed PRNG key given to `split_trials`.
      trials: Indices of trials, int `[s]`.
      num_calibration: n, the calibration queries of a split.
      num_queries: N, all queries of the pool.

    Returns:
      bool `[s, N]`, by position; query `pool.order[j]` stands at position j.
    """
    trials = given("trials", trials)  # before `jit`, which takes its bytes as they are
    masks: jax.Array = _split_masks(
        key, trials, num_calibration=num_calibration, num_queries=num_queries
    )
    return masks


@partial(jax.jit, static_argnames=("num_calibration", "num_queries"))
def _split_masks(
    key: jax.Array, trials: ArrayLike, *, num_calibration: int, num_queries: int
) -> jax.Array:
    """`split_masks`, of indices that JAX takes."""
    draw = DrawPlan(None, draw_plan(np.array([num_calibration]), np.array([num_queries])), None)
    words = key_words(key)
    keys = trial_keys((words[0], words[1]), draw, jnp.asarray(trials).astype(jnp.uint32))
    return unpack(trial_parts(keys, draw)[0], num_queries).T


@on_own_devices
def split_parts(
    key: jax.Array,
    trials: ArrayLike,
    pool: Pool,
    **split: Unpack[SplitSpec],
) -> np.ndarray:
    """Replays splits of any design: the part of each query in each trial.

    Use this when something is to be measured on the very splits that `split_trials` drew, and it is
    no step function of the threshold.

    Args:
      key: The typed PRNG key given to `split_trials`.
      trials: Indices of trials, int `[s]`.
      pool: From `pool_steps`.
      **split: How each trial splits the pool, the fields of `SplitSpec`, as for `split_trials`.

    Returns:
      int8 `[s, N]`, by query in the order given to `pool_steps`: 0 calibration, 1 validation, 2
      test.

    Raises:
      TypeError: If the key is not typed or a count is not an integer.
      ValueError: If a count is out of range or labels do not fit.
    """
    design = split_design(pool.order, **split)
    parts = np.full((len(np.asarray(trials)), pool.num_queries), 2, np.int8)
    masks = _drawn_masks(
        np.asarray(key_words(key)),
        np.asarray(given("trials", trials), np.uint32),
        draw_parts(design),
        len(pool.order),
    )
    for code, mask in enumerate(masks):
        parts[:, pool.order] = np.where(np.asarray(mask).T, np.int8(code), parts[:, pool.order])
    return parts


@partial(jax.jit, static_argnames="num_queries")
def _drawn_masks(
    key: jax.Array, trials: jax.Array, draw: DrawPlan, num_queries: int
) -> list[jax.Array]:
    """Calibration (and validation) masks by position, `[N, s]`."""
    parts = trial_parts(trial_keys((key[0], key[1]), draw, trials), draw)
    words = [words_by_position(part, draw, len(trials)) for part in parts if part is not None]
    return [unpack(part, num_queries) for part in words]
