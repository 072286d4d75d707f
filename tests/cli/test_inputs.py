"""Which rows a command draws with `--share`."""

import argparse

import jax
import numpy as np
import pytest

from racer_jax.cli.inputs import Rows
from racer_jax.data import RoutingTable
from racer_jax.data.splits import split

NUM = 60
IDS = [str(i) for i in range(NUM)]
TABLE = RoutingTable(ids=IDS, texts=IDS, models=["a"], correct=np.ones((NUM, 1), bool))


def drawn(purpose, seed):
    options = argparse.Namespace(group=None, share=0.5, seed=seed, unseen=purpose != "train")
    return Rows.of(options, purpose).select(TABLE, "x").ids


@pytest.mark.parametrize("seed", [0, 1, 7])
def test_each_purpose_has_a_draw_of_its_own(seed):
    """The rest of a draw, drawn from by the same draw again, is not drawn from evenly.

    Of 36 rows that `train --share 0.4` left, `calibrate --unseen --share 0.6` took the first with
    probability 0.46 and the others with 0.61.
    """
    by_purpose = {purpose: drawn(purpose, seed) for purpose in ("train", "calibrate", "measure")}
    assert len(set(map(tuple, by_purpose.values()))) == 3
    for purpose, ids in by_purpose.items():
        assert drawn(purpose, seed) == ids
        assert len(ids) == NUM // 2
    plain = split(jax.random.key(seed), TABLE, (0.5, 0.0, 0.5)).calibration
    assert list(by_purpose["train"]) == [IDS[row] for row in plain]
