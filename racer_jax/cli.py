"""The `racer-jax` command."""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import jax

from racer_jax.data.errors import DataError
from racer_jax.data.fetch import BASE_URL, CORPORA, fetch
from racer_jax.data.load import READERS, load, save
from racer_jax.data.table import RoutingTable


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command.

    Args:
      arguments: What follows the command's name; those of the process when None.

    Returns:
      The exit status: 0, or 1 where the data is not what it should be.
    """
    parsed = _parser().parse_args(arguments)
    try:
        parsed.run(parsed)
    except (DataError, ValueError, ImportError) as error:
        print(f"racer-jax: {error}", file=sys.stderr)  # noqa: T201
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="racer-jax", description="Calibrated sets of LLMs from any router's scores.")
    rooms = parser.add_subparsers(required=True, metavar="ROOM")
    data = rooms.add_parser("data", help="read, convert and download routing data")
    commands = data.add_subparsers(required=True, metavar="COMMAND")

    summary = commands.add_parser("summary", help="print accuracies and all-wrong rates by group")
    _add_reading(summary)
    summary.add_argument("--json", action="store_true", help="print JSON")
    summary.set_defaults(run=_summary)

    convert = commands.add_parser("convert", help="write any format as a table (.npz) or a long CSV")
    _add_reading(convert)
    convert.add_argument("output", type=Path, help="file to write, .npz or .csv")
    convert.set_defaults(run=_convert)

    download = commands.add_parser("fetch", help="download a public corpus; prints its folder")
    download.add_argument("corpus", choices=CORPORA)
    download.add_argument("--folder", type=Path, help="where to keep it (default: the cache folder)")
    download.add_argument("--base-url", default=BASE_URL, help="a mirror (default: %(default)s)")
    download.set_defaults(run=_fetch)
    return parser


def _add_reading(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("path", type=Path, help="file or folder to read")
    parser.add_argument("--format", choices=READERS, help="its format (default: guessed)")
    parser.add_argument("--label-rule", help="such as 'score > 0.5' or 'one attempt'")
    parser.add_argument("--missing", choices=("error", "drop", "keep"), help="what to do with pairs not evaluated")
    parser.add_argument("--part", choices=("train", "val", "test"), help="part to read of formats that have parts")
    parser.add_argument("--metric", help="metric of lm_eval logs, such as acc_norm")
    parser.add_argument("--filter", help="filter of lm_eval logs, such as strict-match")
    parser.add_argument("--tasks", nargs="+", help="patterns of the lm_eval tasks to read")
    parser.add_argument("--delimiter", help="what separates the fields of a CSV of your own")
    parser.add_argument("--seed", type=int, help="key of the label rule 'one attempt'")


def _load(parsed: argparse.Namespace) -> RoutingTable:
    names = ("label_rule", "missing", "part", "metric", "filter", "tasks", "delimiter")
    options = {name: value for name in names if (value := getattr(parsed, name)) is not None}
    if parsed.seed is not None:
        options["key"] = jax.random.key(parsed.seed)
    return load(parsed.path, parsed.format, **options)


def _summary(parsed: argparse.Namespace) -> None:
    summary = _load(parsed).summary()
    print(json.dumps(summary.to_dict(), ensure_ascii=False) if parsed.json else summary)  # noqa: T201


def _convert(parsed: argparse.Namespace) -> None:
    table = _load(parsed)
    save(table, parsed.output)
    print(f"{parsed.output}: {table!r}")  # noqa: T201


def _fetch(parsed: argparse.Namespace) -> None:
    print(fetch(parsed.corpus, parsed.folder, base_url=parsed.base_url))  # noqa: T201


if __name__ == "__main__":
    sys.exit(main())
