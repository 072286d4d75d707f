"""What reading takes in memory beside the table that comes out of it.

Blocks that are not in Python's heap are put there, so that they are counted; what Arrow holds is
not (`benchmarks/read_memory.py` measures the whole process).
"""

import json
import sys
import tracemalloc
from importlib.util import find_spec

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from racer_jax.data import RoutingTable, load, save
from racer_jax.data.formats import _growing, _rows, _text, long_csv
from racer_jax.data.formats._arrow import open_source
from racer_jax.data.formats._growing import Growing, Names
from racer_jax.data.formats._text import open_csv

MODELS = [f"org/model-{j}" for j in range(3)]
STAMP = "2026-01-02T03-04-05.678901"
# Few rows of long texts, which are quick to read: beside the table less than a megabyte is held,
# whatever the length of the file.
QUERIES, WORDS = 600, 400


@pytest.fixture(scope="module")
def table():
    """A table of 600 questions of 8,000 characters and three models, 5 MB."""
    rng = np.random.default_rng(0)
    words = np.array([f"a_word_of_the_text{i:02d}" for i in range(100)])
    shape = (QUERIES, len(MODELS))
    texts = [" ".join(words[row]) for row in rng.integers(100, size=(QUERIES, WORDS))]
    return RoutingTable(
        ids=[f"arc/{i}" for i in range(QUERIES)],
        texts=[f"{text} {i}?" for i, text in enumerate(texts)],
        models=MODELS,
        group=["arc"] * QUERIES,
        correct=rng.integers(2, size=shape),
        cost=rng.integers(999, size=shape) / 1e6,
        answers=np.array(["A", "B"], object)[rng.integers(2, size=shape)],
    )


def write_csv(table, path):
    save(table, path)


def write_jsonl(table, path):
    with path.open("w", encoding="utf-8") as file:
        for i, query in enumerate(table.texts):
            for j, model in enumerate(MODELS):
                row = {"query_id": table.ids[i], "query": query, "model": model}
                row |= {"group": "arc", "correct": int(table.correct[i, j])}
                row |= {"cost": table.cost[i, j], "answer": table.answers[i, j]}
                file.write(json.dumps(row) + "\n")


def write_lm_eval(table, path):
    for j, model in enumerate(MODELS):
        folder = path / model.replace("/", "__")
        folder.mkdir(parents=True)
        with (folder / f"samples_arc_{STAMP}.jsonl").open("w", encoding="utf-8") as file:
            for i, query in enumerate(table.texts):
                responses = [["-1.5", "False"], ["-2.5", "False"]]
                row = {"doc_id": i, "doc": {"question": query}, "target": "?", "arguments": []}
                row |= {"resps": [responses], "filtered_resps": responses, "filter": "none"}
                row |= {"metrics": ["acc"], "doc_hash": f"{i:064x}"}
                row["acc"] = float(table.correct[i, j])
                file.write(json.dumps(row) + "\n")


WRITERS = {
    "lm_eval": ("logs", write_lm_eval),
    "long_csv": ("rows.csv", write_csv),
    "jsonl": ("rows.jsonl", write_jsonl),
    "parquet": ("rows.parquet", write_csv),
}


@pytest.fixture(scope="module", autouse=True)
def _imported(tmp_path_factory, table):
    """Each format is read once, so that what is imported for it is not counted."""
    folder = tmp_path_factory.mktemp("small")
    for kind, (name, write) in WRITERS.items():
        if kind == "parquet" and find_spec("pyarrow") is None:
            continue
        write(table.select([0, 1]), folder / name)
        load(folder / name, "long_csv" if kind == "jsonl" else kind)


def size(value, seen):
    """The bytes of a field of a table, each object once."""
    if value is None or id(value) in seen:
        return 0
    seen.add(id(value))
    if isinstance(value, np.ndarray):
        objects = value.reshape(-1).tolist() if value.dtype == object else ()
        return value.nbytes + sum(size(part, seen) for part in objects)
    parts = value if isinstance(value, tuple | list) else ()
    return sys.getsizeof(value) + sum(size(part, seen) for part in parts)


def peak_beside(path, name):
    """The peak of what Python holds while a table is read, the table's bytes, and the table."""
    tracemalloc.start()
    try:
        table = load(path, name)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    seen = set()
    held = sum(size(getattr(table, field), seen) for field in table.__dataclass_fields__)
    return peak, held, table


@pytest.fixture
def counted(monkeypatch):
    """Blocks of numbers are counted, and of a block no more than is used."""
    monkeypatch.setattr(_growing, "new_memory", bytearray)
    monkeypatch.setattr(_growing, "_BLOCK", 1 << 12)


@pytest.mark.long
@pytest.mark.usefixtures("counted")
@pytest.mark.parametrize("kind", WRITERS)
def test_reading_takes_at_most_1_3_times_the_table(tmp_path, table, kind):
    if kind == "parquet":
        pytest.importorskip("pyarrow")
    name, write = WRITERS[kind]
    write(table, tmp_path / name)
    peak, held, loaded = peak_beside(tmp_path / name, "long_csv" if kind == "jsonl" else kind)
    assert len(loaded) == QUERIES
    assert peak < 1.3 * held


@pytest.mark.long
@pytest.mark.usefixtures("counted")
def test_a_row_takes_little_beside_its_cells(tmp_path, monkeypatch):
    """Of short rows: what names, numbers and answers take while they are gathered."""
    monkeypatch.setattr(_rows, "CHUNK_ROWS", 128)
    monkeypatch.setattr(_text, "CHUNK_ROWS", 128)
    n = 12_000
    rng = np.random.default_rng(0)
    table = RoutingTable(
        ids=[f"arc/{i}" for i in range(n)],
        texts=[f"question {i}?" for i in range(n)],
        models=MODELS,
        group=["arc"] * n,
        correct=rng.integers(2, size=(n, 3)),
        cost=rng.integers(999, size=(n, 3)) / 1e6,
        answers=np.array(["A", "B"], object)[rng.integers(2, size=(n, 3))],
    )
    save(table, tmp_path / "rows.csv")
    peak, held, loaded = peak_beside(tmp_path / "rows.csv", "long_csv")
    assert loaded == table
    assert peak < 1.3 * held


@pytest.mark.parametrize("kind", ["long_csv", "parquet"])
def test_little_is_held_of_a_long_file(tmp_path, table, kind):
    name, write = WRITERS[kind]
    if kind == "parquet":
        pytest.importorskip("pyarrow")
    write(table, tmp_path / name)
    path = tmp_path / name
    tracemalloc.start()
    try:
        if kind == "parquet":
            with open_source(path, {}) as source:
                count = sum(len(batch.columns["model"]) for batch in source.batches(["model"], 99))
        else:
            with open_csv(path, marker=long_csv.MARK) as file:
                count = sum(len(chunk.columns["model"]) for chunk in file.chunks())
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert count == table.correct.size
    assert peak < table.correct.size * len(table.texts[0]) / 12


@settings(max_examples=40)
@given(
    parts=st.lists(st.lists(st.integers(-100, 100), max_size=9), max_size=9),
    counts=st.lists(st.integers(0, 9), max_size=9),
)
def test_growing_numbers_are_a_list(parts, counts):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_growing, "_BLOCK", 16)  # four to a block
        numbers, expected = Growing(np.int32), []
        for number, part in enumerate(parts):
            numbers.extend(np.array(part, np.int64))
            numbers.append(number)
            expected += [*part, number]
        for count in counts:
            count = min(count, len(expected))
            assert numbers.take(count).tolist() == expected[:count]
            expected = expected[count:]
        for place in range(len(expected)):
            assert numbers[place] == expected[place]
            numbers[place] = expected[place] = place
        half = len(expected) // 2
        assert numbers.part(half, len(expected)).tolist() == expected[half:]
        numbers.put(0, np.arange(half) + 7)
        expected[:half] = range(7, 7 + half)
        assert len(numbers) == len(expected)
        assert numbers.array().tolist() == expected
        assert len(numbers) == 0


@pytest.mark.usefixtures("counted")
def test_numbers_that_were_taken_are_not_held():
    tracemalloc.start()
    try:
        numbers = Growing(np.float64)
        numbers.extend(np.zeros(100_000))
        full = tracemalloc.get_traced_memory()[0]
        numbers.take(90_000)
        rest = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert full > 800_000
    assert rest < 0.2 * full


@settings(max_examples=40)
@given(parts=st.lists(st.lists(st.text("abc", max_size=3) | st.none()), max_size=6))
def test_names_are_numbered_by_first_appearance(parts):
    names, codes = Names(), {}
    for part in parts:
        assert names.codes(part) == [codes.setdefault(name, len(codes)) for name in part]
        assert names.names == list(codes)
