"""`bound-check`: is what is promised true on the data at hand?"""

from __future__ import annotations

import argparse
import math
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from racer_jax.cli.before import (
    check_artefact_read,
    check_levels,
    check_lines,
    check_tables,
)
from racer_jax.cli.inputs import Rows, labelled
from racer_jax.cli.options import (
    Source,
    Subparsers,
    add_choosing,
    add_command,
    add_json,
    add_reading,
    add_reading_options,
    add_unseen,
)
from racer_jax.cli.output import FAILED, print_notes
from racer_jax.cli.reading import read_of_racer, read_table, read_with
from racer_jax.cli.score_checks import (
    add_source,
    bound_check_without_artefact,
    check_own_scores,
    check_source,
    files_of,
    print_checks,
)
from racer_jax.cli.work_bar import work_bar
from racer_jax.core.scalar_checks import check_count

if TYPE_CHECKING:
    from racer_jax.data.formats.score_matrix import ScoredTable
    from racer_jax.data.table import RoutingTable


def add(subparsers: Subparsers) -> None:
    """The command of this module. Use this when the parser of all commands is built."""
    parser = add_command(
        subparsers,
        "bound-check",
        "Check the promised bounds on your own data. It is split at random many times; each time "
        "one part calibrates and the other is measured, and the mean risk is compared with the "
        "bounds and with the exact law. Exit status 3 if it does not fit.",
        """
racer-jax bound-check my.racer test.csv --splits 10000
racer-jax bound-check my.racer test.csv --splits 0        the exact law in the place of splits
racer-jax bound-check --scores mine.npz                   scores and labels of your own router
racer-jax bound-check --scores mine.csv test.csv          the scores alone; labels of a table
racer-jax bound-check --table test.csv --loss regret      a stop learned from logged answers""",
        check=_check,
        reads=_read,
    )
    parser.add_argument(
        "artefact", type=Path, nargs="?", metavar="ARTEFACT", help="folder of the artefact"
    )
    add_reading(parser, nargs="*")
    add_source(parser)
    parser.add_argument(
        "--alphas", default="0.05,0.1,0.2,0.3", help="risk levels (default: %(default)s)"
    )
    parser.add_argument(
        "--splits",
        type=int,
        default=2000,
        help="random splits of each group; 0: the exact law instead (default: %(default)s)",
    )
    parser.add_argument(
        "--calibration",
        type=float,
        default=0.5,
        help="share of the questions that calibrates (default: %(default)s)",
    )
    parser.add_argument(
        "--z",
        type=float,
        default=5.0,
        help="a mean fails when it is this many standard errors off (default: %(default)g)",
    )
    add_unseen(parser)
    add_choosing(parser)
    add_json(parser)
    add_reading_options(parser)
    parser.set_defaults(run=bound_check)


def _check(arguments: argparse.Namespace) -> None:
    """What can be said before anything is computed."""
    check_source(arguments)
    check_levels(alphas=arguments.alphas)
    if not 0 < arguments.calibration < 1:
        raise ValueError(f"--calibration must be a share in (0, 1), got {arguments.calibration}")
    check_count("--splits", arguments.splits, least=0, most=(1 << 32) - 1)
    if not 0 < arguments.z < math.inf:
        raise ValueError(f"--z must be above 0, and finite, got {arguments.z}")
    if arguments.table or arguments.scores is not None:
        check_lines(arguments.scores)
        check_tables(arguments, paths=files_of(arguments))
        if arguments.scores is not None and not files_of(arguments):
            from racer_jax.studies.score_files import check_labelled

            check_labelled(arguments.scores)
        check_own_scores(arguments)
        return
    check_tables(arguments, "measure")
    check_artefact_read(arguments.artefact)


def _read(arguments: argparse.Namespace) -> RoutingTable | ScoredTable:
    """The table, with the scores where a file holds them."""
    if not arguments.table and arguments.scores is None:
        return read_of_racer(arguments)
    from racer_jax.studies.score_files import read_scored

    arguments.path = files_of(arguments)
    if arguments.table:
        return read_table(arguments)
    return read_with(
        arguments,
        lambda source: read_scored(arguments.scores, source.table() if source.paths else None),
    )


def bound_check(arguments: argparse.Namespace) -> int:
    """`bound-check`.

    Use this when a command line asks whether the bounds hold on a table; in Python, `check_bounds`.
    """
    import jax
    import numpy as np
    from tqdm import tqdm

    from racer_jax.core.risk_levels import parse_alphas
    from racer_jax.montecarlo.bound_check import ScoredPool, check_bounds, check_bounds_exactly
    from racer_jax.racer.racer import Racer

    alphas = parse_alphas(arguments.alphas)
    if arguments.table or arguments.scores is not None:
        return bound_check_without_artefact(arguments)
    racer = Racer.load(arguments.artefact)
    with work_bar("choose the questions", "score them") as steps:
        chosen, files = Rows.of(arguments, "measure"), Source.of(arguments).name
        table, scores = labelled(arguments.read, chosen, files, racer)
        print_notes(table.notes)
        steps.next()
        model_scores = racer.score(table, scores)
    names = table.groups or ("all",)
    group = np.array(table.group if table.group is not None else ["all"] * len(table))
    checks = []
    with tqdm(total=arguments.splits * len(names), unit="split", disable=None, leave=False) as bar:
        for i, name in enumerate(names):
            rows = np.flatnonzero(group == name)
            check = check_bounds_exactly
            if arguments.splits:
                check = partial(check_bounds, num_splits=arguments.splits, progress=bar.update)
            checks.append(
                check(
                    jax.random.key(1000 * (arguments.seed or 0) + i),
                    ScoredPool(name, model_scores.scores[rows], table.correct[rows]),
                    racer.nonconformity,
                    num_calibration=round(arguments.calibration * len(rows)),
                    alphas=alphas,
                    z_limit=arguments.z,
                    null=racer.null,
                    tie_break=racer.seed is not None,
                    matrix=model_scores.nonconformity[rows],
                )
            )
    any_failure = any(verdict == "FAIL" for check in checks for verdict in check.verdict)
    print_checks(checks, alphas, arguments.json, table.notes)
    return FAILED if any_failure else 0
