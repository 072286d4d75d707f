"""Labels as a column of lists: 0 and 1 and nothing else."""

import decimal

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from racer_jax.batch.columns import labels_of

MODELS = ["a", "b"]
RIGHT = [[True, False], [False, True], [True, True]]


@pytest.mark.parametrize(
    "column",
    [
        RIGHT,
        [[1, 0], [0, 1], [1, 1]],
        [(1.0, -0.0), np.array([0.0, 1.0]), np.array([1, 1], np.int8)],
        np.array(RIGHT),
        np.array(RIGHT, np.float32),
        pd.Series(RIGHT),
        pa.array(RIGHT),
        pa.chunked_array([pa.array([[1, 0]]), pa.array([[0, 1], [1, 1]])]),
    ],
)
def test_zeros_and_ones_of_any_library(column):
    assert labels_of(column, "c", MODELS).tolist() == RIGHT


@pytest.mark.parametrize("column", [[], np.zeros((0, 2)), pa.array([], pa.list_(pa.bool_()))])
def test_no_row(column):
    assert labels_of(column, "c", MODELS).shape == (0, 2)


@pytest.mark.parametrize(
    "label",
    [
        *(float("nan"), np.float32("nan"), float("inf"), "0", "1", b"1", "", None, 0.2, -1, 2),
        *([1], {}, pd.NA, pd.NaT, 1j, decimal.Decimal(1)),
    ],
)
def test_another_label_is_refused_with_its_place(label):
    with pytest.raises(ValueError, match=r"column 'c' must hold 0 or 1 .* for 'b' in row 2$"):
        labels_of([[0, 1], [1, 0], [1, label]], "c", MODELS)


def test_labels_of_an_array_that_are_none():
    with pytest.raises(ValueError, match=r"got nan for 'a' in row 0"):
        labels_of(np.full((2, 2), np.nan), "c", MODELS)
    with pytest.raises(ValueError, match=r"got None for 'b' in row 1"):
        labels_of(pa.array([[True, False], [True, None]]), "c", MODELS)


@pytest.mark.parametrize("row", [None, "01", b"01", 1, float("nan"), [], [1], [1, 0, 1]])
def test_rows_that_are_no_lists_of_the_pool(row):
    with pytest.raises(ValueError, match=r"column 'c' must hold lists of 2 labels, .* in row 1$"):
        labels_of([[0, 1], row], "c", MODELS)
