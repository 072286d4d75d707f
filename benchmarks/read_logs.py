"""Reading lm-eval logs: how fast, how much memory, and how it was in another version.

The logs hold multiple-choice rows in the layout of lm-evaluation-harness 0.4.13, of two models.
Run it with

    python benchmarks/read_logs.py [--megabytes 75] [--shots 0] [--repeats 5] [--before TREE]

`--before` names a checkout of the version to compare with, such as

    git worktree add /tmp/before 263bd31

the last version that decoded and held whole rows. Each version reads the same files in processes of
its own, which take turns; their tables must agree. Times are CPU seconds of the call alone, after a
first call on a few rows, medians. Memory is what Python allocates, at its peak, and the finished
table's share.
"""

import hashlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import msgspec
import numpy as np
from harness import Counted, report, turns

from racer_jax import reporting

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


CODE = """
import hashlib, json, sys, time, tracemalloc
from racer_jax.data import read_lm_eval

def digest(table):
    parts = (table.ids, table.texts, table.models, table.correct.tolist(), table.answers.tolist())
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()

read_lm_eval(sys.argv[1])
started = time.process_time()
table = read_lm_eval(sys.argv[2])
result = {"cpu_s": time.process_time() - started, "digest": digest(table)}
if sys.argv[3:] == ["memory"]:
    del table
    try:  # blocks outside Python's heap are put there, so that they are counted
        from racer_jax.data.formats import _growing
        _growing.new_memory, _growing._BLOCK = bytearray, 1 << 14
    except ImportError:
        pass
    tracemalloc.start()
    table = read_lm_eval(sys.argv[2])
    result["table_bytes"], result["peak_bytes"] = tracemalloc.get_traced_memory()
print(json.dumps(result))
"""


def measured(tree: Path, *arguments: str) -> dict[str, Any]:
    """What one process prints that imports the package from a checkout."""
    done = subprocess.run(
        [sys.executable, "-c", CODE, *arguments],
        env=os.environ | {"PYTHONPATH": str(tree)},
        cwd=tree,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


@dataclass(frozen=True)
class Config(Counted):
    """Options of the benchmark."""

    may_be_zero = ("shots",)
    megabytes: Annotated[float, "size of the logs"] = 75.0
    shots: Annotated[int, "worked examples in each prompt"] = 0
    repeats: Annotated[int, "times that each version reads them"] = 5
    before: Annotated[Path | None, "checkout of the version to compare with"] = None


def main() -> None:
    options = reporting.parse_config(Config, "Reading lm-eval logs, now and in another version.")
    trees = {"now": Path(__file__).parents[1]}
    if options.before is not None:
        trees["before"] = options.before.resolve()
    seconds: dict[str, list[float]] = {name: [] for name in trees}
    with tempfile.TemporaryDirectory() as name:
        small, large = Path(name) / "small", Path(name) / "large"
        write_logs(small, 0.2, options.shots)
        rows = write_logs(large, options.megabytes, options.shots)
        results = {}
        for _ in turns(range(options.repeats)):
            for version, tree in trees.items():
                results[version] = measured(tree, str(small), str(large))
                seconds[version].append(results[version]["cpu_s"])
        for version, tree in trees.items():
            results[version] = measured(tree, str(small), str(large), "memory")
    if len({result.pop("digest") for result in results.values()}) > 1:
        raise SystemExit("the versions disagree")
    lines = []
    for version, result in results.items():
        result["cpu_s"] = statistics.median(seconds[version])
        peak, table = result["peak_bytes"], result["table_bytes"]
        numbers = [f"{result['cpu_s']:.2f}", f"{peak / 1e6:.1f}", f"{table / 1e6:.1f}"]
        lines.append([version, *numbers, f"{peak / table:.2f}"])
    title = f"{rows:,} rows, {options.megabytes:g} MB, {options.shots} worked examples a prompt;"
    record = {
        "rows": rows,
        "megabytes": options.megabytes,
        "shots": options.shots,
        "versions": results,
        "cpu_s": seconds,
        "msgspec": msgspec.__version__,
    }
    header = ["version", "CPU s", "peak MB", "table MB", "peak / table"]
    report("read_logs", title, header, lines, record)
    if "before" in results:
        ratio = results["before"]["cpu_s"] / results["now"]["cpu_s"]
        print(f"now it is {ratio:.1f} times as fast as before")


if __name__ == "__main__":
    main()
