"""`data`: tables of labelled queries are read, converted and downloaded."""

import argparse
from pathlib import Path

from racer_jax.cli import names
from racer_jax.cli.options import Source, Subparsers, add_command, add_json, add_reading
from racer_jax.cli.output import print_json, print_line


def add(subparsers: Subparsers) -> None:
    """The commands of this module."""
    data = subparsers.add_parser("data", help="read, convert and download routing data")
    inner = data.add_subparsers(required=True, metavar="COMMAND")
    _add_summary(inner)
    _add_convert(inner)
    _add_fetch(inner)


def _add_summary(subparsers: Subparsers) -> None:
    parser = add_command(
        subparsers,
        "summary",
        "Print accuracies and all-wrong rates by group.",
        "racer-jax data summary logs/",
        needs=("racer_jax.data.loading",),
    )
    add_reading(parser)
    add_json(parser)
    parser.set_defaults(run=summary)


def summary(parsed: argparse.Namespace) -> None:
    """`data summary`."""
    found = Source.of(parsed).table().summary()
    if parsed.json:
        print_json(found.to_dict())
    else:
        print_line(str(found))


def _add_convert(subparsers: Subparsers) -> None:
    parser = add_command(
        subparsers,
        "convert",
        "Write any format as a table (.npz) or a long CSV.",
        "racer-jax data convert logs/ table.npz --metric acc_norm",
        needs=("racer_jax.data.loading",),
    )
    add_reading(parser)
    parser.add_argument("output", type=Path, help="file to write, .npz, .csv or .parquet")
    parser.set_defaults(run=convert)


def convert(parsed: argparse.Namespace) -> None:
    """`data convert`."""
    from racer_jax.data.loading import save

    table = Source.of(parsed).table()
    save(table, parsed.output)
    print_line(f"{parsed.output}: {table!r}")


def _add_fetch(subparsers: Subparsers) -> None:
    parser = add_command(
        subparsers,
        "fetch",
        "Download a public corpus; print its folder.",
        "racer-jax data fetch routerdc --folder corpora",
        needs=("racer_jax.data.download",),
    )
    parser.add_argument("corpus", choices=names.CORPORA)
    parser.add_argument("--folder", type=Path, help="where to keep it (default: the cache folder)")
    mirror = "a mirror (default: %(default)s)"
    parser.add_argument("--base-url", default=names.BASE_URL, help=mirror)
    parser.set_defaults(run=fetch_corpus)


def fetch_corpus(parsed: argparse.Namespace) -> None:
    """`data fetch`."""
    from racer_jax.data.download import fetch

    print_line(str(fetch(parsed.corpus, parsed.folder, base_url=parsed.base_url)))
