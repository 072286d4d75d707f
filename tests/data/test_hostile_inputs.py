"""Inputs made to hang, to swell, or to be read by halves: bounded, or refused."""

import json
import os
import re
import subprocess
import sys
import threading
import time
import tracemalloc
import zipfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from racer_jax.data import (
    DataError,
    load,
    read_llmrouter,
    read_lm_eval,
    read_long_csv,
    read_routerbench,
    read_routerdc,
    read_wide_csv,
)
from racer_jax.data.answers import last_number, letter
from racer_jax.data.formats._patterns import is_expression, linear_remover
from racer_jax.data.formats._text import refuse_binary
from racer_jax.data.formats.routerbench import _listed, last_question
from racer_jax.data.texts import normal_text
from tests.data import samples


def seconds(call):
    """CPU time of a call, the lesser of two."""
    times = []
    for _ in range(2):
        start = time.process_time()
        call()
        times.append(time.process_time() - start)
    return min(times)


def assert_linear(call, size):
    """Twice the input takes no more than thrice the time; quadratic is four times, and hangs."""
    call(size)  # warm
    short, long = seconds(lambda: call(size)), seconds(lambda: call(2 * size))
    assert long < 3 * short + 0.02, (short, long)


HALF = 1 << 17
# Texts that took the square of their length, or more.
SLOW = {
    "worked examples": lambda n: last_question("Answer: " * (n // 8)),
    "worked examples without end": lambda n: last_question("Answer:\n" * (n // 8)),
    "a letter and white space": lambda n: letter("A" + " " * n + "x"),
    "digits": lambda n: last_number("1," * (n // 2) + "x"),
    "a list that never ends": lambda n: _listed("['" + "\\'" * (n // 2)),
    "combining marks": lambda n: normal_text("a" + "\u0300\u0316" * (n // 8)),
    "an expression with a prefix": lambda n: linear_remover("(?s).*#### ")("### #" * (n // 5)),
    "lines": lambda n: linear_remover(".*#### ")("### \n" * (n // 5)),
}


@pytest.mark.parametrize("name", SLOW)
def test_no_text_takes_more_than_linear_time(name):
    assert_linear(SLOW[name], HALF)


def test_a_wide_table_takes_time_linear_in_its_columns(tmp_path):
    def read(columns):
        names = [f"m{j}" for j in range(columns)]
        path = tmp_path / f"{columns}.csv"
        path.write_text(
            ",".join(["query_id", *names]) + "\n" + ",".join(["a", *"1" * columns]) + "\n"
        )
        table = read_wide_csv(path)
        return table.aligned(names[::-1])

    assert_linear(read, 3000)


def peak(call, message="must"):
    """The most memory Python held during a call that is refused, in bytes."""
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match=message):
            call()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


# What swells most, for its length: a megabyte of empty lists took 26 MB, of a literal 480.
SWELLING = {
    "lists in a list": (read_routerdc, lambda n: "[" + "[]," * (n // 3) + "[]]"),
    "records of lists": (
        read_llmrouter,
        lambda n: "[" + ('{"a":[' + "[]," * 100 + "[]]},") * (n // 310) + "{}]",
    ),
    "a literal": (
        read_routerbench,
        lambda n: f'sample_id,prompt,eval_name,m,m|total_cost\na,"[{"[]," * (n // 3)}]",g,1,0.5\n',
    ),
    "rows of other fields each": (
        read_long_csv,
        lambda n: "\n".join(json.dumps({f"k{i}": 1}) for i in range(n // 14)),
    ),
}


@pytest.mark.parametrize("name", SWELLING)
def test_memory_is_a_small_multiple_of_the_file(tmp_path, name):
    reader, make = SWELLING[name]
    path = tmp_path / "a.json"
    path.write_text(make(HALF))
    assert peak(lambda: reader(path)) < 12 * path.stat().st_size + (1 << 20)


def archive(folder, **members):
    path = folder / "a.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, data in members.items():
            file.writestr(f"{name}.npy", data)
    return path


def array(descr, shape, data=b""):
    header = f"{{'descr': {descr!r}, 'fortran_order': False, 'shape': {shape}, }}".encode()
    header += b" " * (-(len(header) + 11) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + data


LABELS = array("|b1", (2, 1), b"\x01\x00")
SCORES = array("<f4", (2, 1), np.array([0.5, 0.25], np.float32).tobytes())
BOMBS = {
    "many models of no query": ({"test_score": array("<f8", (0, 2**30))}, "at least one query"),
    "many queries of no model": ({"test_score": array("<f8", (2**47, 0))}, "at least one query"),
    "zeros": ({"test_score": array("|b1", (1 << 26, 1), bytes(1 << 26))}, "100 times the size"),
    "empty names": (
        {"correct": LABELS, "scores": SCORES, "models": array("<U0", (2**45,))},
        "at least one character",
    ),
    "no character": (
        {"correct": LABELS, "scores": SCORES, "models": array("<U1", (1,), b"\xff" * 4)},
        "characters of Unicode",
    ),
    "a header that is code": (
        {"test_score": array("<f8", "(" * 5000)},
        "the header is damaged",
    ),
}


@pytest.mark.parametrize("name", BOMBS)
def test_sizes_are_checked_before_anything_is_allocated(tmp_path, name):
    members, message = BOMBS[name]
    path = archive(tmp_path, **members)
    del members

    assert peak(lambda: load(path), message) < 1 << 21


@pytest.mark.parametrize(
    "pattern",
    [
        ",",
        "\\$",
        "(?s).*#### ",
        "\\.$",
        "(?i)the |a ",
        "[^\\d]+",
        "(?:a|b)c?",
        ".*b",
        "\\s*",
        "x{3}",
        ".*",
        "(a|ab)(?s)",
    ],
)
@given(text=st.text("ab #\n.$x1THEthe,", max_size=30))
@settings(max_examples=60, deadline=None)
def test_accepted_expressions_do_what_python_does(pattern, text):
    remover = linear_remover(pattern)
    if remover is None:
        assert not is_expression(pattern)
        return
    assert remover(text) == re.sub(pattern, "", text)


@pytest.mark.parametrize(
    "pattern",
    [
        "(a+)+$",
        "(a|a)(a|a)b",
        "\\s+$",
        "(.*)x",
        "a*b",
        "(?=a)",
        "(a)\\1",
        "a{1,99}b",
        "x?" * 4 + "y",
        "a" * 300,
        "((((a{0,9999}){0,9999}){0,9999}){0,9999})b",
    ],
)
def test_other_expressions_are_not_run(pattern):
    assert linear_remover(pattern) is None
    assert is_expression(pattern)


def test_answers_an_involved_expression_would_change_are_left_out_with_a_note(tmp_path):
    folder = samples.lm_eval(tmp_path)
    for path in folder.rglob("results_*"):
        report = json.loads(path.read_text())
        rule = {"metric": "exact_match", "regexes_to_ignore": ["(a+)+$"]}
        report["configs"] = {"toy_gsm8k": {"metric_list": [rule]}}
        path.write_text(json.dumps(report))
    log = next(folder.rglob("*gsm8k*.jsonl"))
    rows = [json.loads(line) for line in log.read_text().splitlines()]
    for row in rows:
        row["filtered_resps"] = ["a" * 5000 + "b"]
    log.write_text("".join(json.dumps(row) + "\n" for row in rows))
    table = read_lm_eval(folder, tasks="toy_gsm8k", filter="strict-match")
    assert table.answers is None
    assert 'too involved to be run: "(a+)+$"' in table.notes[0]


SHOT = re.compile(r"Answer:[ \t]*\n?[^\n]*\n\n")


@given(st.lists(st.sampled_from(["Answer:", "\n", "\n\n", " ", "B", "\t", "Q?"]), max_size=14))
@settings(max_examples=200, deadline=None)
def test_the_last_question_is_what_an_expression_of_the_same_meaning_finds(parts):
    prompt = "".join(parts)
    assert last_question(prompt) == SHOT.split(prompt)[-1]


@pytest.mark.long
@given(st.lists(st.text(max_size=6), max_size=4))
@settings(max_examples=60, deadline=None)
def test_a_list_of_texts_is_read_as_python_writes_it(items):
    assert _listed(str(items)) == items


@pytest.mark.parametrize(
    "text",
    ["[1]", "['a'", "['a' 'b']", "['a', b'c']", "[,]", "['\\N{DASH}']", "['\\U99999999']", "a"],
)
def test_what_is_no_list_of_texts_is_none(text):
    assert _listed(text) is None


def rows_of(size):
    """JSON lines of exactly `size` bytes each, so that 4,096 bytes end with a line."""
    for i in range(200):
        for model in "xy":
            row = {
                "task_name": "nq",
                "query": f"q{i:04d}",
                "model_name": model,
                "performance": i % 2,
            }
            text = json.dumps(row)
            yield text[:-1] + " " * (size - 1 - len(text)) + "}\n"


@pytest.mark.parametrize("format", [None, "llmrouter"])
def test_a_pipe_is_read_once_and_whole(format):
    read, write = os.pipe()
    data = "".join(rows_of(128)).encode()
    writer = threading.Thread(target=lambda: (os.write(write, data), os.close(write)))
    writer.start()
    try:
        table = load(f"/proc/self/fd/{read}", format)
    finally:
        writer.join()
        os.close(read)
    assert len(table) == 200
    assert table.ids[0] == "nq/1"


def test_a_named_pipe_is_read_when_somebody_writes_and_refused_when_nobody_does(
    tmp_path, monkeypatch
):
    path = tmp_path / "a.csv"
    os.mkfifo(path)
    with monkeypatch.context() as patch:
        patch.setattr("racer_jax.data.formats._source._WAIT_SECONDS", 0.1)
        with pytest.raises(
            DataError, match=r"a\.csv: must be written to, got a pipe no process writes"
        ):
            load(path)
    writer = threading.Thread(target=path.write_text, args=("query_id,query,x\na,1?,maybe\n",))
    writer.start()
    with pytest.raises(DataError, match=rf"^{path}, row 1 \(line 2\), field 'x'"):
        load(path)
    writer.join()


@pytest.mark.parametrize("path", ["/dev/zero", "/dev/null", "/dev/urandom"])
def test_devices_are_refused(path):
    with pytest.raises(DataError, match="must be a file or a pipe, got a device"):
        load(path)
    with pytest.raises(DataError, match="must be a file or a pipe, got a device"):
        read_long_csv(path)


def test_an_archive_that_grows_without_end_is_refused(tmp_path):
    import gzip

    path = tmp_path / "a.csv.gz"
    with gzip.open(path, "wb") as file:
        for _ in range(80):
            file.write(bytes(1 << 20))
    with pytest.raises(DataError, match="must unpack to at most 200 times its size"):
        load(path)


@pytest.mark.parametrize(
    "name", ["$(touch x).pkl", "a'b.pkl", 'a"; touch x; ".pkl', "`touch x`.pkl", "-rf.pkl"]
)
def test_the_recipe_for_a_pickle_runs_nothing_a_name_says(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(b"\x80\x04")
    with pytest.raises(DataError) as raised:
        refuse_binary(path)
    recipe = str(raised.value).split("trust into CSV with ")[1]
    # The same command, its code replaced by one that prints what it is given.
    shown = re.sub(
        r'-c ".*?"', '-c "import sys, json; print(json.dumps(sys.argv[1:]))"', recipe, count=1
    )
    shown = shown.replace("python", sys.executable, 1)
    done = subprocess.run(
        ["bash", "-c", shown], capture_output=True, text=True, cwd=tmp_path, check=True
    )
    assert json.loads(done.stdout) == [str(path), str(path.with_suffix(".csv"))]
    assert sorted(os.listdir(tmp_path)) == [name]


DEEP = {
    "lm_eval": (
        read_lm_eval,
        '{"doc_id": 0, "doc": DEEP, "filtered_resps": ["x"], "exact_match": 1.0}',
    ),
    "choices": (
        read_lm_eval,
        '{"doc_id": 0, "doc": {"question": "?", "choices": [DEEP, 1]}, "doc_hash": "h", '
        '"filtered_resps": ["x"], "exact_match": 1.0}',
    ),
    "llmrouter": (
        read_llmrouter,
        '{"task_name": "t", "query": "?", "ground_truth": DEEP, "model_name": "m", '
        '"performance": 1}',
    ),
    "routerdc": (read_routerdc, '[{"question": DEEP, "scores": {"m": 1}}]'),
}


@pytest.mark.parametrize("depth", [200, 600, 900, 3000, 100_000])
@pytest.mark.parametrize("name", DEEP)
def test_nested_json_is_read_or_refused_in_one_line(tmp_path, name, depth):
    reader, text = DEEP[name]
    path = tmp_path / "a.json"
    path.write_text(text.replace("DEEP", "[" * depth + "]" * depth))
    said = []
    try:
        said = [len(reader(path)), 1]
    except DataError as error:
        said = [str(error), *str(error).splitlines()]
    assert said[0] == said[1]
    assert len(said) == 2
