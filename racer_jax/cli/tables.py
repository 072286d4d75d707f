"""`data`: tables of labelled queries are read, converted and downloaded."""

import argparse
from pathlib import Path

from racer_jax._files import check_folder
from racer_jax.cli import names
from racer_jax.cli.before import check_installed, check_tables
from racer_jax.cli.options import (
    Source,
    Subparsers,
    add_command,
    add_json,
    add_reading,
    add_reading_options,
)
from racer_jax.cli.output import print_json, print_line, print_notes
from racer_jax.cli.places import check_file
from racer_jax.data.endings import check_output


def add(subparsers: Subparsers) -> None:
    """The commands of this module. Use this when the parser of all commands is built."""
    data = subparsers.add_parser("data", help="read, convert and download routing data")
    inner = data.add_subparsers(required=True, metavar="COMMAND")
    _add_summary(inner)
    _add_convert(inner)
    _add_fetch(inner)


def _add_summary(subparsers: Subparsers) -> None:
    parser = add_command(
        subparsers,
        "summary",
        "Print what a table holds: accuracies, and how often no model is right, by group.",
        "racer-jax data summary logs/",
        check=check_tables,
        needs=("racer_jax.data.loading",),
    )
    add_reading(parser)
    add_json(parser)
    add_reading_options(parser)
    parser.set_defaults(run=summary)


def summary(arguments: argparse.Namespace) -> None:
    """`data summary`.

    Use this when a command line asks what a table holds; in Python, `RoutingTable.summary`.
    """
    result = Source.of(arguments).table().summary()
    if arguments.json:
        print_json(result.to_dict())
    else:
        print_line(str(result))


def _add_convert(subparsers: Subparsers) -> None:
    parser = add_command(
        subparsers,
        "convert",
        "Write logs of any format as one table: .npz, .csv or .parquet.",
        "racer-jax data convert logs/ table.npz --metric acc_norm",
        check=_check_convert,
        needs=("racer_jax.data.loading",),
    )
    add_reading(parser)
    kinds = "file to write, .npz, .csv or .parquet"
    parser.add_argument("output", type=Path, metavar="OUTPUT", help=kinds)
    add_reading_options(parser)
    parser.set_defaults(run=convert)


def _check_convert(arguments: argparse.Namespace) -> None:
    """What can be said before anything is read."""
    check_output(arguments.output)
    if arguments.output.suffix.lower() == ".parquet":
        check_installed("pyarrow", "Parquet", "parquet")
    check_file(arguments.output, inputs=arguments.path)
    check_tables(arguments)


def convert(arguments: argparse.Namespace) -> None:
    """`data convert`.

    Use this when a command line turns logs into another format; in Python, `load` and a writer.
    """
    from racer_jax.data.loading import save

    table = Source.of(arguments).table()
    save(table, arguments.output)
    print_notes(table.notes)
    print_line(f"{arguments.output}: {table!r}")


def _add_fetch(subparsers: Subparsers) -> None:
    parser = add_command(
        subparsers,
        "fetch",
        "Download a public corpus; print its folder.",
        "racer-jax data fetch routerdc --folder corpora",
        check=_check_fetch,
        needs=("racer_jax.data.download",),
    )
    parser.add_argument("corpus", choices=names.CORPORA, help="corpus to download")
    parser.add_argument(
        "--folder", type=Path, help="where to keep it (default: the user's cache folder)"
    )
    mirror = "a mirror (default: %(default)s)"
    parser.add_argument("--base-url", default=names.BASE_URL, help=mirror)
    parser.set_defaults(run=fetch_corpus)


def _check_fetch(arguments: argparse.Namespace) -> None:
    """The folder alone: the download itself waits for no JAX."""
    if arguments.folder is not None:
        check_folder(arguments.folder)


def fetch_corpus(arguments: argparse.Namespace) -> None:
    """`data fetch`. Use this when a command line downloads a public corpus; in Python, `fetch`."""
    from racer_jax.data.download import fetch

    print_line(str(fetch(arguments.corpus, arguments.folder, base_url=arguments.base_url)))
