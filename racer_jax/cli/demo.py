"""`demo`: the whole path on data drawn at random."""

import importlib.util
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path

import jax

from racer_jax.cli.options import Subparsers, add_command
from racer_jax.cli.output import flush, print_line
from racer_jax.data.combine import concat
from racer_jax.data.files import written_whole
from racer_jax.data.load import save
from racer_jax.data.splits import split
from racer_jax.racer.errors import ArtefactError


def add(subparsers: Subparsers, main: Callable[[Sequence[str]], int]) -> None:
    """The command `demo`, whose steps `main` runs.

    Use this when the parser of all commands is built.
    """
    parser = add_command(
        subparsers,
        "demo",
        "Run the whole path on embedded data in under a minute. Leaves tables, an artefact, the "
        "commands and, with the extra 'report', a report.",
        "racer-jax demo --output racer-demo",
    )
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("racer-demo"),
        help="folder to fill (default: %(default)s)",
    )
    parser.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    parser.set_defaults(run=lambda arguments: demo(arguments.output, arguments.seed, main))


def demo(folder: Path, seed: int, main: Callable[[Sequence[str]], int]) -> int:
    """`demo`: each step is a command of this program, printed before it runs.

    Use this when you want to see every step on data that needs no download.
    """
    from racer_jax.data.synthetic import simulated_pool

    if folder.exists() and (
        not folder.is_dir() or (any(folder.iterdir()) and not (folder / "commands.sh").exists())
    ):
        raise ArtefactError("must be a new folder, or that of an earlier demo", path=folder)
    folder.mkdir(parents=True, exist_ok=True)
    sizes = {"gsm8k": 900, "mmlu": 1500, "arc_challenge": 600}
    key, split_key = jax.random.split(jax.random.key(seed))
    pool = simulated_pool(
        key, test_sizes=sizes, train_sizes={name: size // 2 for name, size in sizes.items()}
    )
    test = concat([benchmark.test for benchmark in pool.values()])
    parts = split(split_key, test, (0.5, 0.0, 0.5))
    save(concat([benchmark.train for benchmark in pool.values()]), folder / "train.npz")
    save(test.select(parts.calibration), folder / "calibration.npz")
    save(test.select(parts.test), folder / "test.npz")
    artefact, table = str(folder / "demo.racer"), str(folder / "test.npz")
    question = test.texts[int(parts.test[0])]
    group = (test.group or ("",))[int(parts.test[0])]
    commands: list[Sequence[str]] = [
        ["data", "summary", str(folder / "train.npz")],
        ["train", str(folder / "train.npz"), "-o", artefact, "--seed", str(seed)],
        ["calibrate", artefact, str(folder / "calibration.npz"), "--alpha", "0.1"],
        ["route", artefact, "--group", group, question],
        ["evaluate", artefact, table, "--output", str(folder / "evaluation.json")],
        ["bound-check", artefact, table, "--splits", "0"],
    ]
    report = ["report", artefact, "--data", table, "--output", str(folder / "report.html")]
    lacking = importlib.util.find_spec("plotly") is None
    if not lacking:
        commands.append(report)
    lines = [shlex.join(["racer-jax", *command]) for command in commands]
    with written_whole(folder / "commands.sh") as temporary:
        temporary.write_text("\n".join(["#!/bin/sh", "set -e", *lines]) + "\n", encoding="utf-8")
    for command, line in zip(commands, lines, strict=True):
        print_line(f"\n$ {line}")
        flush()
        if status := main(command):
            return status
    file_names = ", ".join(sorted(path.name for path in folder.iterdir()))
    print_line(f"\n{folder}: {file_names}")
    if lacking:
        print_line(
            "no report was written, for its charts need plotly: "
            f"pip install 'racer-jax[report]', then\n"
            f"  {shlex.join(['racer-jax', *report])}"
        )
    return 0
