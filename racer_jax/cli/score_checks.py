"""`bound-check` without an artefact: scores of any router, or a table to learn on.

And how checks are printed.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from racer_jax.cli import names
from racer_jax.cli.output import FAILED, print_json, print_line, print_notes
from racer_jax.data.errors import DataError

if TYPE_CHECKING:
    from racer_jax.montecarlo.bound_check import BoundCheck
    from racer_jax.studies.checked_pools import AnyPool

_ENDINGS = (".npz", ".npy", ".csv")
STOP_LOSSES = ("regret", "differs", "wrong")
LOSSES = ("miss", "grade", "shortfall", *STOP_LOSSES)


def add_source(parser: argparse.ArgumentParser) -> None:
    """What is checked where there is no artefact.

    Use this when a command checks scores of a table without an artefact.
    """
    other = parser.add_argument_group("without an artefact")
    other.add_argument(
        "--scores",
        type=Path,
        metavar="FILE",
        help="scores of your router: .npz with 'scores' and 'correct' [n, m]; or .npz, .npy or "
        ".csv with the scores of the queries of a TABLE (default: an artefact's router)",
    )
    other.add_argument(
        "--table",
        action="store_true",
        help="the files are tables: router and orders are learned on 40%% of their questions",
    )
    other.add_argument(
        "--nonconformity",
        default=None,
        metavar="NAME,...",
        help="scores to check: gap, inverse_probability, module:function of your own, or with "
        "--table J, static, J_learned "
        "(default: the first two)",
    )
    other.add_argument(
        "--loss",
        choices=LOSSES,
        default=None,
        help="what is checked. miss: a miss; grade: 1 - the best grade called; shortfall: how far "
        "that is below the best of the pool (both for graded tables); regret, differs, wrong: the "
        "losses of 'cascade' (--table with answers) (default: miss)",
    )
    other.add_argument(
        "--null",
        choices=("paper", "free", "never"),
        help="what counts where no model can answer (default: paper)",
    )


def check_source(arguments: argparse.Namespace) -> None:
    """Refuses options that do not go together.

    Use this when the options of such a command are parsed.

    Raises:
      ValueError: If what is to be checked is not clear; the message names the options.
    """
    files = files_of(arguments)
    if arguments.scores is not None and arguments.table:
        raise ValueError("--scores and --table exclude each other: scores are of a router of yours")
    if arguments.scores is None and not arguments.table:
        for name in ("nonconformity", "loss", "null"):
            if getattr(arguments, name) is not None:
                raise ValueError(f"--{name} is for --scores and --table: an artefact has its own")
        if len(files) < 2:
            raise ValueError(
                "name an ARTEFACT and a TABLE; or --scores FILE, or --table and a TABLE"
            )
    if arguments.table and not files:
        raise ValueError("--table needs a TABLE")
    if arguments.scores is not None or arguments.table:
        for name in ("unseen", "group", "share"):
            if getattr(arguments, name):
                raise ValueError(f"--{name} is for an artefact; leave it out")
        _check_scores_named(arguments, files)


def files_of(arguments: argparse.Namespace) -> list[Path]:
    """The files that are named: without an artefact, the first of them is a table too.

    Use this when a command names no artefact.
    """
    return [path for path in (arguments.artefact, *arguments.path) if path is not None]


def _check_scores_named(arguments: argparse.Namespace, files: Sequence[Path]) -> None:
    """Refuses a loss or scores that do not fit what is checked.

    Raises:
      DataError: If the file of scores is of no kind that is read.
      ValueError: If a loss or a score does not fit.
    """
    if arguments.loss in STOP_LOSSES and (not files or arguments.scores is not None):
        raise ValueError(
            f"--loss {arguments.loss} is of a chain of calls: name a --table with answers"
        )
    if arguments.scores is not None and arguments.scores.suffix.lower() not in _ENDINGS:
        raise DataError("must be an .npz, .npy or .csv file of scores", path=arguments.scores)
    typed = arguments.nonconformity or "both"
    scores = [name.strip() for name in typed.split(",")]
    known = (*names.nonconformities(), *names.orders())
    for name in scores:
        # A function of one's own is known once its module is imported: `check_own_scores`.
        if typed != "both" and name not in known and ":" not in name:
            raise ValueError(
                f"nonconformity must be both, or among {', '.join(known)}, got {name!r}"
            )
        if arguments.scores is not None and name in names.orders():
            raise ValueError(f"--nonconformity {name} is learned from texts: use --table")
    if len(set(scores)) < len(scores):
        raise ValueError(f"nonconformity must name each score once, got {typed!r}")


def check_own_scores(arguments: argparse.Namespace) -> None:
    """Refuses `module:function` that cannot be imported. The module may import JAX.

    Use this when nothing else is wrong with the options.

    Raises:
      ValueError: If it cannot be.
    """
    from racer_jax.studies.own_scores import own_function

    for name in (arguments.nonconformity or "").split(","):
        own_function(name.strip())


def bound_check_without_artefact(arguments: argparse.Namespace) -> int:
    """`bound-check` of scores in a file, or of what is learned on a part of a table.

    Use this when a command line names no artefact.
    """
    import jax
    from tqdm import tqdm

    from racer_jax.core.nonconformity import NONCONFORMITIES
    from racer_jax.core.risk_levels import parse_alphas
    from racer_jax.montecarlo.bound_check import BoundSpec
    from racer_jax.studies import bound_pools
    from racer_jax.studies.bound_runs import check_any
    from racer_jax.studies.checked_pools import score_names

    loss: Any = arguments.loss or "miss"
    null: Any = arguments.null or "paper"
    scores: Sequence[str] = score_names(arguments.nonconformity or "both")
    read = arguments.read
    with_table = bool(arguments.path)
    table = read if arguments.scores is None else read.table
    notes = table.notes if with_table else ()
    print_notes(notes)
    pool_key, key = jax.random.split(jax.random.key(arguments.seed or 0))
    pools: Sequence[AnyPool]
    if loss in STOP_LOSSES:
        pools = bound_pools.stop_pools(pool_key, table, loss)
        scores = (loss,)
    elif arguments.scores is not None:
        if learned := [name for name in scores if name not in NONCONFORMITIES]:
            raise ValueError(f"--nonconformity {learned[0]} is learned from texts: use --table")
        pools = bound_pools.pools_of_scores(read, arguments.scores, with_table=with_table)
    else:
        pools = bound_pools.table_pools(pool_key, table, scores, null)
    checks: list[BoundCheck] = []
    total = arguments.splits * len(pools) * len(scores)
    with tqdm(total=total, unit="split", disable=None, leave=False) as bar:
        for number in range(len(pools)):
            pool = pools[number]
            for place, name in enumerate(scores):
                one_key = jax.random.fold_in(jax.random.fold_in(key, number), place)
                spec = BoundSpec(
                    num_calibration=round(arguments.calibration * len(pool.correct)),
                    alphas=parse_alphas(arguments.alphas),
                    z_limit=arguments.z,
                    null=null,
                )
                checks.append(
                    check_any(one_key, pool, name, loss, arguments.splits, bar.update, spec)
                )
    any_failure = any(verdict == "FAIL" for check in checks for verdict in check.verdict)
    print_checks(checks, parse_alphas(arguments.alphas), arguments.json, notes)
    return FAILED if any_failure else 0


def print_checks(
    checks: Sequence["BoundCheck"],
    alphas: Sequence[str],
    as_json: bool,
    notes: Sequence[str] = (),
) -> None:
    """Prints checks of the bounds as a table or as JSON, there with what was left out.

    Use this when a command has compared means with bounds.
    """
    from racer_jax.reporting.tables import text_table

    if as_json:
        any_failure = any(verdict == "FAIL" for check in checks for verdict in check.verdict)
        print_json({"passed": not any_failure, "notes": list(notes), "checks": checks})
        return
    several = len({check.nonconformity for check in checks}) > 1
    head = [
        "group",
        *["score"][: int(several)],
        "n",
        "alpha",
        "risk",
        "exact",
        "at least",
        "at most",
        "models",
        "abstains",
        "verdict",
    ]
    rows = [
        [
            check.pool,
            *[check.nonconformity][: int(several)],
            str(check.num_calibration),
            alpha,
            *(_known(column[i]) for column in (check.risk, check.exact, check.lower, check.upper)),
            f"{check.size[i]:.2f}",
            f"{check.abstention[i]:.1%}",
            check.verdict[i] + (f" ({check.note[i]})" if check.note[i] else ""),
        ]
        for check in checks
        for i, alpha in enumerate(alphas)
    ]
    print_line(f"{text_table(head, rows)}\n\n{_LEGEND}")


_LEGEND = """\
n         questions that calibrate in each split; the rest is measured
risk      mean risk over the splits (--splits 0: over all possible splits, the same as exact),
          which must lie between the two bounds
exact     the mean over all possible splits, computed without a sample (-: not known)
at least  lower bound of the mean risk, where ties are broken; at most: the upper bound, alpha
models    called for a query on average; abstains: share of the queries with no model called
verdict   PASS: within the bounds and on the exact law; FAIL: further off than chance explains"""


def _known(value: float) -> str:
    """A number to four digits; a dash where there is none."""
    return "-" if value != value else f"{value:.4f}"
