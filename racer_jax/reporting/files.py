"""How an experiment meets its reader: options from a dataclass, tables as text, files written whole or not at all."""

import argparse
import csv
import dataclasses
import json
import os
import platform
import types
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import jax
import numpy as np

import racer_jax
from racer_jax.core.calibration import exact_alphas
from racer_jax.data.files import written_whole

C = TypeVar("C")


def _kind(hint: Any) -> tuple[Any, tuple[str, ...] | None]:
    """What an option is read as, and its choices: `int` of `int | None`, strings of a `Literal`."""
    if get_origin(hint) in (Union, types.UnionType):
        hint = next(arg for arg in get_args(hint) if arg is not type(None))
    return (str, get_args(hint)) if get_origin(hint) is Literal else (hint, None)


def parse_config(config: type[C], description: str, arguments: Sequence[str] | None = None) -> C:
    """Builds a command line from the fields of a dataclass and reads it.

    Args:
      config: A dataclass of fields `name: Annotated[type, "help"] = default`; the type may be
        optional or a `Literal`. ValueErrors of its construction become errors of usage.
      description: What the command does.
      arguments: The command line; that of the process by default.

    Returns:
      An instance of `config`.

    Raises:
      SystemExit: If an argument is unknown or not what it should be, or help was asked for.
    """
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    hints = get_type_hints(config, include_extras=True)
    for field in dataclasses.fields(config):  # type: ignore[arg-type]
        annotated, text = get_args(hints[field.name])
        kind, choices = _kind(annotated)
        how: dict[str, Any] = {"action": argparse.BooleanOptionalAction}
        if kind is not bool:
            how = {
                "type": kind,
                "choices": choices,
                "metavar": None if choices else kind.__name__.upper(),
            }
        parser.add_argument(
            "--" + field.name.replace("_", "-"), default=field.default, help=text, **how
        )
    try:
        return config(**vars(parser.parse_args(arguments)))
    except ValueError as error:
        parser.error(str(error))


def parse_alphas(text: str) -> tuple[str, ...]:
    """`0.05,0.1` or `first:last:step`, as exact decimals.

    >>> parse_alphas("0.1:0.3:0.1")
    ('0.1', '0.2', '0.3')
    """
    try:
        if ":" in text:
            first, last, step = (Decimal(part) for part in text.split(":"))
            if not (step > 0 and first <= last):
                raise ValueError
            levels = [first + i * step for i in range(int((last - first) / step) + 1)]
        else:
            levels = [Decimal(part) for part in text.split(",")]
    except (InvalidOperation, ValueError):
        raise ValueError(f"alphas must be like 0.05,0.1 or 0.01:0.99:0.01, got {text!r}") from None
    names = tuple(f"{level.normalize():f}" for level in levels)
    exact_alphas(names)
    if len(set(names)) < len(names):
        raise ValueError(f"alphas must differ from each other, got {text!r}")
    return names


def text_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Right-aligned columns under a header and a rule.

    >>> print(text_table(["alpha", "risk"], [["0.1", "0.0987"]]))
    alpha    risk
    -----  ------
      0.1  0.0987
    """
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]
    lines = [header, ["-" * width for width in widths], *rows]
    return "\n".join(
        "  ".join(str(cell).rjust(w) for cell, w in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """The same as a table of Markdown.

    >>> print(markdown_table(["alpha", "risk"], [["0.1", "0.0987"]]))
    | alpha | risk |
    | --- | --- |
    | 0.1 | 0.0987 |
    """
    return "\n".join(
        "| " + " | ".join(line) + " |" for line in [header, ["---"] * len(header), *rows]
    )


def as_plain(value: Any) -> Any:
    """What JSON can hold: arrays as lists, infinities as strings, since JSON has none."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return as_plain(dataclasses.asdict(value))
    if isinstance(value, Mapping):
        return {str(key): as_plain(item) for key, item in value.items()}
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        return as_plain(value._asdict())
    if isinstance(value, np.ndarray | jax.Array):
        return as_plain(np.asarray(value).tolist())
    if isinstance(value, list | tuple):
        return [as_plain(item) for item in value]
    if isinstance(value, np.generic):
        return as_plain(value.item())
    if isinstance(value, float) and not np.isfinite(value):
        return str(value)
    return str(value) if isinstance(value, Path) else value


def write_json(path: str | Path, results: Any) -> None:
    """Writes results as JSON: arrays as lists, named tuples and dataclasses as objects, infinities as strings."""
    with written_whole(path) as temporary:
        temporary.write_text(
            json.dumps(as_plain(results), indent=1, ensure_ascii=False) + "\n", encoding="utf-8"
        )


def write_csv(path: str | Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Writes one line for each row; the columns are the keys of the first."""
    with (
        written_whole(path) as temporary,
        temporary.open("w", newline="", encoding="utf-8") as file,
    ):
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def write_figure(path: str | Path, figure: Any) -> None:
    """Writes a matplotlib figure as a PNG picture."""
    with written_whole(path) as temporary:
        figure.savefig(temporary, format="png", dpi=150)


def environment() -> dict[str, str]:
    """What a figure depends on besides the code: versions, machine and devices."""
    devices = jax.devices()
    return {
        "racer_jax": racer_jax.__version__,
        "jax": jax.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
        "devices": f"{len(devices)} x {devices[0].device_kind}",
    }


def finish(write: Callable[[Path], None], output: str | Path) -> Path:
    """Makes the output folder, has it filled, and returns it.

    Raises:
      SystemExit: If the folder cannot be written to, with the reason in a line.
    """
    folder = Path(output)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write(folder)
    except OSError as error:
        raise SystemExit(f"cannot write to {folder}: {error.strerror or error}") from None
    return folder
