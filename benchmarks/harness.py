"""What the benchmarks of the engine share: fresh processes, a bar, and how figures are shown."""

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import numpy as np
from tqdm import tqdm

from racer_jax import reporting
from racer_jax._distribution import install_command
from racer_jax.core.scalar_checks import check_count

ROOT = Path(__file__).parents[1]
RESULTS = Path("results/benchmarks")
T = TypeVar("T")


@dataclass(frozen=True)
class Counted:
    """Options whose numbers count something: at least 1, or 0 for those that `may_be_zero` names.

    A table of no rounds would be an error of NumPy's at the end of the work.
    """

    may_be_zero: ClassVar[tuple[str, ...]] = ("seed",)

    def __post_init__(self) -> None:
        for field in fields(self):
            value, zero = getattr(self, field.name), field.name in self.may_be_zero
            if isinstance(value, int) and not isinstance(value, bool):
                check_count(field.name, value, 0 if zero else 1)
            if isinstance(value, float) and not (value > 0 or (zero and value == 0)):
                raise ValueError(f"{field.name} must be above 0, got {value:g}")


def needs(extra: str, *modules: str) -> None:
    """Says which extra brings the other side of a comparison, before any work is done."""
    if missing := [name for name in modules if importlib.util.find_spec(name) is None]:
        raise SystemExit(f"error: {', '.join(missing)} not installed: {install_command(extra)}")


def quiet_transformers() -> None:
    """Lets `transformers` print errors alone: its bars and remarks on weights hide the table."""
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()


def fresh(code: str, *arguments: str, **environment: str) -> dict[str, Any]:
    """Runs Python code in a fresh process, which prints one line of JSON last."""
    path = os.pathsep.join(
        [str(ROOT), str(ROOT / "benchmarks"), os.environ.get("PYTHONPATH", "")]
    ).rstrip(os.pathsep)
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env=os.environ | {"PYTHONPATH": path} | environment,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def saved_workload(name: str, folder: str | Path) -> str:
    """A file with the pool of a workload, for a fresh process that should not make it itself."""
    from baselines import workload  # JAX, which no option needs

    task = workload(name)
    path = Path(folder) / f"{name}.npz"
    np.savez(
        path, nonconformity=task.nonconformity, correct=task.correct, alphas=np.array(task.alphas)
    )
    return str(path)


def turns(items: Collection[T], unit: str = "round") -> Iterator[T]:
    """The items one by one, counted by a bar on stderr: a table may take minutes.

    There is no bar where stderr is no terminal, and none is left when the work is done.
    """
    return iter(tqdm(items, unit=unit, disable=None, leave=False))


def seconds(value: float) -> str:
    """Three digits, whatever the size.

    >>> seconds(0.0123), seconds(3.14159), seconds(78626)
    ('12.3 ms', '3.14 s', '78,626 s')
    """
    if value < 1e-3:
        return f"{value * 1e6:.3g} us"
    return (
        f"{value:,.0f} s"
        if value >= 100
        else f"{value:.3g} s"
        if value >= 1
        else f"{value * 1000:.3g} ms"
    )


def report(
    name: str,
    title: str,
    header: Sequence[str],
    rows: Sequence[Sequence[str]],
    results: Mapping[str, Any],
    figures: Mapping[str, Any] | None = None,
) -> str:
    """Prints the table, writes it with the figures, and returns its Markdown."""
    environment = reporting.environment()
    title = f"{title} {environment['machine']}, {environment['devices']}, jax {environment['jax']}."
    print(f"{title}\n{reporting.text_table(header, rows)}")
    markdown = f"{title}\n\n{reporting.markdown_table(header, rows)}\n"
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    record = {"command": " ".join(sys.argv), "environment": environment, "load": load, **results}

    def write(folder: Path) -> None:
        reporting.write_json(folder / "results.json", record)
        (folder / "table.md").write_text(markdown, encoding="utf-8")
        for file, figure in (figures or {}).items():
            reporting.write_figure(folder / file, figure)

    folder = reporting.finish(write, RESULTS / name)
    print(f"Written: {', '.join(str(path) for path in sorted(folder.iterdir()))}")
    return markdown
