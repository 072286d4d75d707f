"""Reading lm-eval logs: as a stream with the wanted fields alone, against parsing whole rows.

The logs hold multiple-choice rows in the layout of lm-evaluation-harness 0.4.13, of two models.
`whole rows` is the same reader fed by Python's parser, with every row of a log decoded and held, as
it was read before. Run it with

    python benchmarks/read_logs.py [--megabytes 75] [--shots 0] [--repeats 5] [--output FILE]

It prints a table and writes JSON. Times are CPU seconds, medians; the runs take turns. Memory is
what Python allocates beyond what was there before, at its peak, and the finished table's share.
"""

import argparse
import hashlib
import json
import os
import platform
import statistics
import tempfile
import time
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from racer_jax.data import RoutingTable, read_lm_eval
from racer_jax.data.formats import _lm_eval_choice, _lm_eval_rows
from racer_jax.data.formats._batches import Batch
from racer_jax.data.formats._json import check_object, parse
from racer_jax.data.formats._records import Record, parsed
from racer_jax.data.formats._text import read_text

MODELS = ("org/model-a", "org/model-b")
STAMP = "2026-01-02T03-04-05.678901"


def write_logs(folder: Path, megabytes: float, shots: int, seed: int = 0) -> int:
    """Writes a log of each model; returns the number of rows in all."""
    words = [f"word{i}" for i in range(2000)]
    rows = 0
    for j, model in enumerate(MODELS):
        place = folder / model.replace("/", "__")
        place.mkdir(parents=True)
        # The questions are the same for both models, the answers are not.
        questions, answers = np.random.default_rng(seed), np.random.default_rng(seed + 1 + j)
        examples = " ".join(words[k] for k in questions.integers(2000, size=60 * shots))
        written = i = 0
        with (place / f"samples_arc_{STAMP}.jsonl").open("w", encoding="utf-8") as file:
            while written < megabytes * 1e6 / len(MODELS):
                row = one_row(i, words, examples, questions, answers)
                written += file.write(json.dumps(row, ensure_ascii=False) + "\n")
                i += 1
        rows += i
    return rows


def one_row(
    i: int,
    words: list[str],
    examples: str,
    questions: np.random.Generator,
    answers: np.random.Generator,
) -> dict[str, Any]:
    """One row of a log."""
    question = " ".join(words[k] for k in questions.integers(2000, size=20)) + f" {i}?"
    options = [" ".join(words[k] for k in questions.integers(2000, size=4)) for _ in range(4)]
    doc = {"id": str(i), "question": question, "choices": {"text": options, "label": list("ABCD")}}
    likelihoods = [str(round(float(x), 4)) for x in -10 * answers.random(4)]
    right = float(np.argmax([float(x) for x in likelihoods]) == 1)
    prompt = f"{examples}\nQuestion: {question}\nAnswer:"
    requests = {f"gen_args_{k}": {"arg_0": prompt, "arg_1": f" {options[k]}"} for k in range(4)}
    digest = hashlib.sha256(json.dumps(doc).encode()).hexdigest()
    row = {"doc_id": i, "doc": doc, "target": "1", "arguments": requests}
    row |= {"resps": [[[x, "False"]] for x in likelihoods]}
    row |= {"filtered_resps": [[x, "False"] for x in likelihoods], "filter": "none"}
    row |= {"metrics": ["acc", "acc_norm"], "doc_hash": digest, "prompt_hash": digest}
    return row | {"target_hash": digest, "acc": right, "acc_norm": right}


def whole_rows(path: Path) -> Iterator[Batch]:
    """Every row decoded and held, as logs were read before."""
    held: list[Record] = []
    for line, content in enumerate(read_text(path).split("\n"), start=1):
        if content.strip():
            record = parse(content, path, row=line, line=line)
            check_object(record, path, row=line, line=line)
            held.append(parsed(record, (path, line, line)))
    yield Batch(iter(held))


STREAM = _lm_eval_rows.record_batches
READERS: dict[str, Callable[..., Any]] = {"stream": STREAM, "whole rows": whole_rows}


def read(name: str, folder: Path) -> RoutingTable:
    """The table, its rows read by one of the two."""
    modules = (_lm_eval_rows, _lm_eval_choice)
    for module in modules:
        module.record_batches = READERS[name]
    try:
        return read_lm_eval(folder)
    finally:
        for module in modules:
            module.record_batches = STREAM


def memory(name: str, folder: Path) -> tuple[int, int]:
    """Bytes at the peak and of the finished table."""
    tracemalloc.start()
    try:
        table = read(name, folder)
        held, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(table)
    return peak, held


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--megabytes", type=float, default=75)
    parser.add_argument("--shots", type=int, default=0, help="worked examples in each prompt")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    seconds: dict[str, list[float]] = {name: [] for name in READERS}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rows = write_logs(folder, options.megabytes, options.shots)
        if read("stream", folder) != read("whole rows", folder):
            raise SystemExit("the two ways disagree")
        for _ in range(options.repeats):
            for reader in READERS:
                started = time.process_time()
                read(reader, folder)
                seconds[reader].append(time.process_time() - started)
        peaks = {reader: memory(reader, folder) for reader in READERS}
    medians = {reader: statistics.median(times) for reader, times in seconds.items()}
    ratio = medians["whole rows"] / medians["stream"]
    print(f"{rows:,} rows, {options.megabytes:g} MB, {options.shots} shots")
    print(f"{'reader':<12}{'cpu s':>8}{'peak MB':>10}{'table MB':>10}{'peak/table':>12}")
    for reader, (peak, held) in peaks.items():
        numbers = f"{medians[reader]:>8.2f}{peak / 1e6:>10.1f}{held / 1e6:>10.1f}"
        print(f"{reader:<12}{numbers}{peak / held:>12.2f}")
    print(f"the stream is {ratio:.1f} times as fast")
    if options.output:
        result = {
            "rows": rows,
            "megabytes": options.megabytes,
            "shots": options.shots,
            "ratio": ratio,
            "cpu_s": medians,
            "peak_bytes": {reader: peak for reader, (peak, _) in peaks.items()},
            "table_bytes": {reader: held for reader, (_, held) in peaks.items()},
            "versions": {"python": platform.python_version(), "msgspec": msgspec.__version__},
            "cores": os.cpu_count(),
        }
        options.output.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
