"""What an `.npz` may unpack to, to the byte over all its arrays; and what it may hold."""

import io
import zipfile

import numpy as np
import pytest

from racer_jax.data import DataError, RoutingTable, read_table, save
from racer_jax.data.formats import _npz
from racer_jax.data.formats._npz import open_npz

HEADER = 128  # bytes before the data of an array, as NumPy writes it


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "a.npz"
    np.savez_compressed(path, a=np.zeros(1000, np.uint8), b=np.zeros(2000, np.uint8))
    return path


def limits(monkeypatch, growth, free, most=1 << 32):
    monkeypatch.setattr(_npz, "_MAX_GROWTH", growth)
    monkeypatch.setattr(_npz, "_FREE_GROWTH", free)
    monkeypatch.setattr(_npz, "MAX_BYTES", most)


def sizes(path):
    with open_npz(path) as archive:
        return [archive.array(name).size for name in archive.names]


def test_the_limits():
    assert (_npz._MAX_GROWTH, _npz._FREE_GROWTH, _npz.MAX_BYTES) == (100, 16 << 20, 4 << 30)


@pytest.mark.parametrize("part", ["free", "growth", "most"])
def test_to_the_byte_over_all_arrays(path, monkeypatch, part):
    whole = 3000 + 2 * HEADER
    size = path.stat().st_size

    def limit(value):
        free = {"free": value, "growth": value - size, "most": 1 << 20}[part]
        growth = 1 if part == "growth" else 0
        limits(monkeypatch, growth, free, value if part == "most" else 1 << 32)

    limit(whole)
    assert sizes(path) == [1000, 2000]
    limit(whole - 1)
    with pytest.raises(DataError, match="field 'b': must unpack to at most"):
        sizes(path)


def test_the_size_is_checked_before_the_content(path, monkeypatch):
    """A member that is too large is not even opened."""
    limits(monkeypatch, 0, 1127)
    monkeypatch.setattr(_npz.zipfile.ZipFile, "open", lambda *_: pytest.fail("opened"))
    with pytest.raises(DataError, match="field 'a': must unpack to at most"):
        sizes(path)


@pytest.mark.parametrize("declared", [999, 1001])
def test_a_shape_of_another_size_than_the_data(tmp_path, declared):
    path, content = tmp_path / "a.npz", io.BytesIO()
    np.save(content, np.zeros(1000, np.uint8))
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.npy", content.getvalue().replace(b"(1000,)", b"(%04d,)" % declared))
    with pytest.raises(DataError, match=rf"must hold {declared} bytes"):
        sizes(path)


def test_an_array_with_a_damaged_name_is_no_column_less(tmp_path):
    table = RoutingTable(
        ids=["a"], texts=["a?"], models=["m"], correct=np.ones((1, 1), bool), cost=np.ones((1, 1))
    )
    save(table, tmp_path / "a.npz")
    data = (tmp_path / "a.npz").read_bytes()
    for name in (b"cost.npy", b"about.ends.npy"):
        place = data.rindex(name)  # in the directory at the end, by which it would be looked for
        (tmp_path / "a.npz").write_bytes(data[:place] + b"C" + data[place + 1 :])
        with pytest.raises(DataError, match=r"must (be in the file|hold the arrays of a table)"):
            read_table(tmp_path / "a.npz")
