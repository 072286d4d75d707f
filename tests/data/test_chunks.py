"""Files read in parts of a few rows: every length around the borders, and the row an error names."""

import numpy as np
import pytest

from racer_jax.data import DataError, load
from racer_jax.data.formats import _rows, _text
from racer_jax.data.formats._cells import _MAX_SPARSITY, grid

SIZES = range(1, 9)


@pytest.fixture(params=[1, 2, 3, 4096])
def chunk_rows(monkeypatch, request):
    """Rows of a part, in every reader that reads by parts."""
    for module in (_rows, _text):
        monkeypatch.setattr(module, "CHUNK_ROWS", request.param)
    return request.param


def lines(num):
    """A wide table whose labels say which row they are of, in binary."""
    return [f"q{i},{i}?,{i & 1},{i >> 1 & 1},{i >> 2 & 1}" for i in range(num)]


def check(path, num):
    table = load(path)
    assert table.ids == tuple(f"q{i}" for i in range(num))
    assert table.texts == tuple(f"{i}?" for i in range(num))
    np.testing.assert_array_equal(table.correct @ [1, 2, 4], np.arange(num) % 8)


@pytest.mark.parametrize("blank", ["", "\n", "\n\n,,,,\n"])
def test_every_row_is_read_once_whatever_a_part_holds(chunk_rows, blank, tmp_path):
    path = tmp_path / "a.csv"
    for num in SIZES:
        rows = "\n".join(lines(num)[:3]) + blank + "\n" + "\n".join(lines(num)[3:])
        path.write_text("query_id,query,x,y,z\n" + rows + "\n")
        check(path, num)


def test_rows_of_json_lines_are_read_once_whatever_a_part_holds(chunk_rows, tmp_path):
    path = tmp_path / "a.jsonl"
    for num in SIZES:
        rows = [row.split(",") for row in lines(num)]
        path.write_text(
            "".join(
                f'{{"query_id": "{a}", "query": "{b}", "x": {x}, "y": {y}, "z": {z}}}\n'
                for a, b, x, y, z in rows
            )
        )
        check(path, num)


@pytest.mark.parametrize("bad", range(6))
def test_an_error_names_its_row_on_either_side_of_a_border(chunk_rows, bad, tmp_path):
    path = tmp_path / "a.csv"
    for broken, message in ((f"q{bad},{bad}?,1", "must have 5 fields"), ("q,?,1,7,0", "y")):
        rows = lines(6)
        rows[bad] = broken
        path.write_text("query_id,query,x,y,z\n" + "\n".join(rows) + "\n")
        with pytest.raises(DataError, match=message) as raised:
            load(path)
        assert raised.value.row == bad + 1


def test_a_table_may_have_twenty_cells_for_each_result_beyond_a_million():
    assert _MAX_SPARSITY == 20
    none = np.zeros(0, np.int64)
    assert grid(none, none, (1000, 1000), "a").shape == (1000, 1000)
    with pytest.raises(DataError, match="must hold most of the pairs, got 0 results for 1001"):
        grid(none, none, (1001, 1000), "a")
    five = np.arange(5)
    assert grid(five, five, (1_000_100, 1), "a").places.tolist() == [0, 2, 4, 6, 8]
    with pytest.raises(DataError, match="got 5 results for 1000101 queries x 1"):
        grid(five, five, (1_000_101, 1), "a")
