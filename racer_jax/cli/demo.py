"""`demo`: the whole path on data drawn at random."""

import importlib.util
import json
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path

from racer_jax._distribution import install_command
from racer_jax._files import check_folder, written_whole
from racer_jax.cli.options import Subparsers, add_command, as_seed
from racer_jax.cli.output import flush, print_line
from racer_jax.racer.errors import ArtefactError

# Levels at which models are called one after another: that of the artefact, and those measured.
_STOP = "0.01"
_STOPS = ("0.005", _STOP, "0.02", "0.05", "0.1")


def add(subparsers: Subparsers, main: Callable[[Sequence[str]], int]) -> None:
    """The command `demo`, whose steps `main` runs.

    Use this when the parser of all commands is built.
    """
    parser = add_command(
        subparsers,
        "demo",
        "Run all steps on simulated logs, in about a minute. Leaves tables (logs.csv to try the "
        "commands on), artefacts, the commands and, with the extra 'report', a report.",
        "racer-jax demo --output racer-demo",
        check=lambda arguments: _check_folder(arguments.output),
    )
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("racer-demo"),
        help="folder to fill (default: %(default)s)",
    )
    parser.add_argument(
        "--seed", type=as_seed, default=0, help="seed of the simulated logs (default: %(default)s)"
    )
    parser.set_defaults(run=lambda arguments: demo(arguments.output, arguments.seed, main))


def summary(folder: Path) -> str:
    """What each way of calling models gave on the test questions, and what to type next.

    Use this when the demo has measured all its ways.
    """
    from racer_jax.reporting.verdicts import verdict
    from racer_jax.sequential.evaluation import PathEvaluation

    sets = json.loads((folder / "evaluation.json").read_text(encoding="utf-8"))
    figures, row = sets["groups"][0], sets["alphas"].index(sets["alpha"])
    single, everyone = figures["baselines"][0], figures["baselines"][-1]
    levels = json.loads((folder / "sequential.json").read_text(encoding="utf-8"))["levels"]
    stops = next(level for level in levels if level["alpha"] == _STOP)
    num, majority = len(sets["models"]), "majority"
    missed, lost = figures["avoidable_miss"][row], stops["regret"]
    bounds = [float(figures[name][row]) for name in ("risk", "upper", "expected", "std")]
    of_sets, of_stops = verdict(*bounds), PathEvaluation(**stops).verdict
    lines = [
        (f"all {num}, a majority vote", num, everyone["accuracy"][majority], ""),
        ("the best one alone", 1, single["accuracy"][majority], ""),
        (
            "a set, chosen at once",
            figures["size"][row],
            figures["accuracy"][majority][row],
            f"a model could answer and no called one did: {missed:.1%} "
            f"({_share(sets['alpha'])}; {of_sets})",
        ),
        (
            "one after another",
            stops["calls"],
            stops["accuracy"],
            f"wrong though the vote of all is right: {lost:.1%} "
            f"({_share(stops['alpha'])}; {of_stops})",
        ),
    ]
    head = f"On {figures['num_queries']:,} questions that were not trained on:"
    shown = [
        f"  {name:24}{calls:.2f} calls  {accuracy:.1%} right  {promise}".rstrip()
        for name, calls, accuracy, promise in lines
    ]
    logs = shlex.quote(str(folder / "logs.csv"))
    option = (
        f"--group {shlex.quote(sets['groups'][1]['group'])} " if len(sets["groups"]) > 1 else ""
    )
    next_steps = [
        f"Next, with your own file or {logs}:",
        f"  racer-jax data summary {logs}",
        f"  racer-jax train {logs} -o my.racer --share 0.4",
        f"  racer-jax calibrate my.racer {logs} --alpha 0.1 --unseen --share 0.6",
        f"  racer-jax evaluate my.racer {logs} --unseen",
        f'  racer-jax route my.racer {option}"What is 2 + 2?"',
        "and to call one model after another, where the file holds answers:",
        f"  racer-jax cascade train {logs} -o my.cascade --share 0.4",
        f"  racer-jax cascade calibrate my.cascade {logs} --alpha 0.01 --unseen --share 0.6",
        f"  racer-jax cascade evaluate my.cascade {logs} --unseen",
    ]
    return "\n".join([head, *shown, *next_steps])


def _share(alpha: str) -> str:
    """A level as what the promise allows."""
    return f"promised: at most {100 * float(alpha):g}% on average"


def draw(folder: Path) -> None:
    """Writes `calls.png` and `calls-dark.png`, from what the steps have written.

    They show the calls of both ways against alpha, for light and for dark pages.

    Use this when the steps of `demo` are done.
    """
    import numpy as np

    from racer_jax.plotting.calls import CallsLine, calls_figure
    from racer_jax.reporting.files import write_figure

    sets = json.loads((folder / "evaluation.json").read_text(encoding="utf-8"))
    levels = json.loads((folder / "sequential.json").read_text(encoding="utf-8"))["levels"]
    measured = sets["groups"][0]
    fixed = [one for one in measured["baselines"] if one["name"].startswith("static")]
    lines = (
        CallsLine(np.array(sets["alphas"], float), np.array(measured["size"])),
        CallsLine(
            np.array([one["avoidable_miss"] for one in fixed]),
            np.array([one["size"] for one in fixed]),
        ),
        CallsLine(
            np.array([level["alpha"] for level in levels], float),
            np.array([level["calls"] for level in levels]),
        ),
    )
    num = len(sets["models"])
    for name, dark in (("calls.png", False), ("calls-dark.png", True)):
        write_figure(folder / name, calls_figure(*lines, num, width=5.6, dark=dark))


def _check_folder(folder: Path) -> None:
    """Refuses a folder that holds something else than a demo.

    Raises:
      ArtefactError: If it does.
      OSError: If it cannot be made or filled.
    """
    check_folder(folder)
    if folder.exists() and any(folder.iterdir()) and not (folder / "commands.sh").exists():
        raise ArtefactError("must be a new folder, or that of an earlier demo", path=folder)


def demo(folder: Path, seed: int, main: Callable[[Sequence[str]], int]) -> int:
    """`demo`: each step is a command of this program, printed before it runs.

    Use this when you want to see every step on data that needs no download.
    """
    import jax

    from racer_jax.data.combine import concat
    from racer_jax.data.loading import save
    from racer_jax.data.splits import split
    from racer_jax.data.synthetic import simulated_pool

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
    save(test, folder / "logs.csv")  # as a user's own file may look
    artefact, table = str(folder / "demo.racer"), str(folder / "test.npz")
    cascade, calibration = str(folder / "demo.cascade"), str(folder / "calibration.npz")
    question = test.texts[int(parts.test[0])]
    group = (test.group or ("",))[int(parts.test[0])]
    # The folder is the demo's own, and its commands can be run again.
    seeded = ["--seed", str(seed), "--overwrite"]
    commands: list[Sequence[str]] = [
        ["data", "summary", str(folder / "train.npz")],
        ["train", str(folder / "train.npz"), "-o", artefact, *seeded],
        ["calibrate", artefact, calibration, "--alpha", "0.1"],
        ["route", artefact, "--group", group, question],
        ["evaluate", artefact, table, "--output", str(folder / "evaluation.json")],
        ["bound-check", artefact, table, "--splits", "0"],
        ["cascade", "train", str(folder / "train.npz"), "-o", cascade, *seeded],
        ["cascade", "calibrate", cascade, calibration, "--alpha", _STOP],
        [
            *("cascade", "evaluate", cascade, table, "--alphas", ",".join(_STOPS)),
            *("--output", str(folder / "sequential.json")),
        ],
    ]
    report = ["report", artefact, "--data", table, "--sequential", cascade]
    report += ["--output", str(folder / "report.html")]
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
    draw(folder)
    file_names = ", ".join(sorted(path.name for path in folder.iterdir()))
    print_line(f"\n{folder}: {file_names}")
    print_line(f"\n{summary(folder)}")
    if lacking:
        print_line(
            f"No report was written: its charts need plotly. {install_command('report')}, then\n"
            f"  {shlex.join(['racer-jax', *report])}"
        )
    return 0
