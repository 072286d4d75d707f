"""The `racer-jax` command: what can be typed, and how every command ends."""

import argparse
import io
import os
import re
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from difflib import get_close_matches
from importlib import import_module
from pathlib import Path
from types import MappingProxyType
from typing import Any, NoReturn

from racer_jax._distribution import __version__
from racer_jax.cli import (
    artefacts,
    calibrate,
    cascade,
    checks,
    demo,
    extend,
    monitor,
    serve,
    sign,
    system,
    tables,
    use,
)
from racer_jax.cli.output import CLOSED, INTERRUPTED, OK, TERMINATED, WRONG, flush, print_notes
from racer_jax.data.errors import DataError, printable
from racer_jax.racer.errors import UnknownGroupWarning
from racer_jax.serving.terminated import Terminated

_STATUSES = """exit status:
  0  done
  1  something is wrong with the data, the options or the machine; one line says what
  2  the command line cannot be read
  3  a check ran and failed (bound-check), or an alarm has been raised (monitor)
  130  interrupted; what was being written is not there (monitor: what was counted is saved)
  143  terminated"""

_EXAMPLES = """from evaluation logs to decisions with a guarantee:
  racer-jax data summary LOGS                              what the file holds
  racer-jax train LOGS -o my.racer --share 0.4             train a router on 40% of the questions
  racer-jax calibrate my.racer LOGS --alpha 0.1 --unseen --share 0.6
  racer-jax evaluate my.racer LOGS --unseen                on what is left
  racer-jax route my.racer "What is 2 + 2?"
  racer-jax demo                                           all steps on simulated logs, in a minute
"""


def main(
    arguments: Sequence[str] | None = None, imported: Callable[[], object] = lambda: None
) -> int:
    """Runs the command.

    Use this when you write a program that is to behave like the command.

    Args:
      arguments: What follows the command's name; those of the process when None.
      imported: Called once the modules that the command needs are imported, before it runs.

    Returns:
      The exit status; `racer-jax --help` lists them.
    """
    try:
        _write_any_text()
        _give_bars_a_size()
        namespace = argparse.Namespace(flags={})
        namespace = _parsed(arguments)
        namespace.check_options(namespace)
        namespace.read = namespace.read_tables(namespace)
        for module in namespace.needs:
            import_module(module)
        imported()
        with warnings.catch_warnings():
            warnings.simplefilter("always", UnknownGroupWarning)
            warnings.showwarning = _show_warning  # type: ignore[assignment]
            status: int | None = namespace.run(namespace)
        flush()
    except KeyboardInterrupt:
        _give_up_output()
        return _say("interrupted", INTERRUPTED)
    except Terminated:
        _give_up_output()
        return _say("terminated", TERMINATED)
    except BrokenPipeError:
        _give_up_output()
        return CLOSED
    except OSError as error:
        _give_up_output()
        place = f"{error.filename}: " if error.filename else ""
        return _say(f"{place}{error.strerror or error}", WRONG)
    except (ValueError, ImportError) as error:
        return _say(in_shell(error, namespace.flags), WRONG)
    except RecursionError:
        return _say("the input is nested too deeply", WRONG)
    except MemoryError:
        return _say("out of memory", WRONG)
    return OK if status is None else status


def _parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The options; what argparse leaves over, since an option came first, is put in its place."""
    parser = build_parser()
    words = sys.argv[1:] if arguments is None else list(arguments)
    if not words:  # whoever types the name alone wants to know what there is
        parser.print_help(sys.stderr)
        raise SystemExit(WRONG)
    words = list(sequential_words(words))
    command = _command(parser, words)
    takes_texts = any(
        action.dest == "text" and not action.option_strings for action in command._actions
    )
    if not takes_texts and any(map(command._option_string_actions.get, ("--alphas", "--alpha"))):
        words = joined_levels(words)
    namespace, rest = parser.parse_known_args(words)
    namespace.flags = {
        action.dest: action.option_strings[-1]
        for action in command._actions
        if action.option_strings
    }
    if rest and not any(word.startswith("-") for word in rest):
        if getattr(namespace, "text", None) == []:
            namespace.text, rest = rest, []
        elif isinstance(getattr(namespace, "path", None), list):
            namespace.path, rest = [*namespace.path, *map(Path, rest)], []
    if rest:
        command.error(f"unrecognized arguments: {' '.join(rest)}")
    return namespace


def _command(parser: argparse.ArgumentParser, words: Sequence[str]) -> argparse.ArgumentParser:
    """The parser of the command that the words name."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for number, word in enumerate(words):
                if word in action.choices:
                    return _command(action.choices[word], words[number + 1 :])
    return parser


def sequential_words(words: Sequence[str]) -> Sequence[str]:
    """A command with `--sequential` as the command of `cascade` that it stands for.

    Use this when a command line has `--sequential`.

    >>> sequential_words(["train", "logs.csv", "--sequential", "-o", "a"])
    ['cascade', 'train', 'logs.csv', '-o', 'a']
    """
    end = words.index("--") if "--" in words else len(words)
    if not words or words[0] not in cascade.COMMANDS or "--sequential" not in words[:end]:
        return words
    rest = [word for word in words[:end] if word != "--sequential"]
    return ["cascade", *rest, *words[end:]]


def joined_levels(words: Sequence[str]) -> list[str]:
    """A command with levels that spaces part, as the command with commas between them.

    Argparse would take the second one for a file.

    Use this when a command takes `--alphas` or `--alpha`, and no texts.

    >>> joined_levels(["evaluate", "my.racer", "--alphas", "0.05,", "0.1", "logs.csv"])
    ['evaluate', 'my.racer', '--alphas', '0.05,0.1', 'logs.csv']
    """
    end = words.index("--") if "--" in words else len(words)
    joined: list[str] = []
    is_open = False  # whether more levels may follow
    for word in words[:end]:
        option, equals, value = word.partition("=")
        if option in ("--alphas", "--alpha"):
            joined += [option, value] if equals else [option]
            is_open = True
        elif is_open and _are_levels(word):
            before = [] if joined[-1].startswith("--") else [joined.pop().rstrip(",")]
            joined.append(",".join([*before, word.strip(",")]))
        else:
            joined.append(word)
            is_open = False
    return [*joined, *words[end:]]


def _are_levels(word: str) -> bool:
    """Whether a word is numbers with commas between them, and no file."""
    try:
        for level in word.strip(",").split(","):
            float(level)
    except ValueError:
        return False
    return not Path(word).exists()


_show_in_python = warnings.showwarning


def _show_warning(message: Warning | str, category: type[Warning], *place: Any) -> None:
    """A warning of ours is a note, a line without a place in a file; others stay what they are."""
    if issubclass(category, UnknownGroupWarning):
        print_notes([in_shell(ValueError(message))])
    else:
        _show_in_python(message, category, *place)


def _write_any_text() -> None:
    """A terminal that cannot show a character shows its number."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _give_bars_a_size() -> None:
    """A terminal that does not say how large it is would show no bar at all."""
    with suppress(OSError, AttributeError, ValueError):  # no stream, or no terminal
        if 0 in os.get_terminal_size(sys.stderr.fileno()):
            os.environ.setdefault("TQDM_NCOLS", "80")
            os.environ.setdefault("TQDM_NROWS", "24")


def _give_up_output() -> None:
    """Where the output takes no more, Python would complain once more when it closes it."""
    try:
        flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def _say(problem: str, status: int) -> int:
    """One line on the standard error, whatever the problem says."""
    line = f"racer-jax: {printable(' '.join(problem.split()))}\n"
    with suppress(OSError, AttributeError):  # no process reads it, or the stream is closed
        sys.stderr.write(line)
        sys.stderr.flush()
    return status


# What the errors of lower packages advise, as it is typed here.
_TYPED = (
    ("pass allow_overlap=True", "pass --allow-overlap"),
    ("pass router=, a name or a configuration", "pass --router, a name"),
    ("leave them out, or", "leave them out with --unseen, or"),
    (
        "call calibrate(table, alpha) first",
        "calibrate it first, for example: racer-jax calibrate ARTEFACT TABLE --alpha 0.1 --unseen",
    ),
    ("give scores to route_scores", "give lines with 'scores' in a file: --input FILE"),
    ("score the queries yourself (Racer.from_scores)", "use calibrate --from-scores"),
    ("pass scores=, one row for each query", "name a score matrix, one row for each query"),
    ("scores= is for one made by Racer.from_scores", "scores are for one made --from-scores"),
    ("use Racer.fit(nonconformity=...)", "use train --nonconformity"),
    ("load it with Cascade.load", "its commands are racer-jax cascade evaluate, route and so on"),
    ("load it with Racer.load", "its commands are racer-jax evaluate, route and so on"),
    ("pass another base_url", "pass another --base-url"),
    ("as base_url (--base-url)", "as --base-url"),
    (", or a function of your own given as forms={name: function}", ""),
    ("such as (2, 2), or None, got", "such as 2,2, got"),
    ("must be in (0, 1), got", "must be a number between 0 and 1, such as 0.1 for 10%, got"),
)


_NAMES = re.compile(r"\(('[^'()]*',(?: '[^'()]*',?)*)\)")


def in_shell(error: Exception, flags: Mapping[str, str] = MappingProxyType({})) -> str:
    """The message of an error, its advice spelled as it is typed in a shell.

    Use this when an error of a reader is printed by a command.

    Args:
      error: What was raised.
      flags: Options of the command, by the name that they have in Python.

    >>> in_shell(ValueError("max_models must be at least 1"), {"max_models": "--max-models"})
    '--max-models must be at least 1'
    """
    text = error.in_shell() if isinstance(error, DataError) else str(error)
    for words, option in _TYPED:
        text = text.replace(words, option)
    # Names in brackets and quotes are Python's way to list them.
    text = _NAMES.sub(lambda names: names[1].replace("'", "").rstrip(","), text)
    if text.startswith("no group was given"):
        text += "; pass --group NAME, or 'group' in each line of --input"
        text += ", or calibrate with --no-groups" if "threshold for each" in text else ""
    name, _, rest = text.partition(" ")
    named = rest.startswith(("must ", "is for ")) and name in flags
    return f"{flags[name]} {rest}" if named else text


class _Parser(argparse.ArgumentParser):
    """A parser whose errors show no control characters, and name what may have been meant."""

    def error(self, message: str) -> NoReturn:
        word = re.search(r"argument COMMAND: invalid choice: '(.*)' \(choose from (.*)\)", message)
        if word is not None:
            near = get_close_matches(word[1], re.findall(r"[\w-]+", word[2]), 1)
            meant = f"did you mean {near[0]!r}? " if near else ""
            message = (
                f"argument COMMAND: invalid choice: {word[1]!r}; {meant}'{self.prog} --help' lists "
                "them all"
            )
        super().error(printable(message))


# --- the command line -----------------------------------------------------------------------------


def build_parser() -> argparse.ArgumentParser:
    """The parser of all commands; completion is made from it.

    Use this when you need the options of all commands, as the completion and the tests do.
    """
    parser = _Parser(
        prog="racer-jax",
        description="Decides which of your LLMs to ask: a small set for each question, from any "
        "router's\nscores. The chance that no called model is right although one could be is at "
        "most the\nalpha that you choose.",
        epilog=f"{_EXAMPLES}\n{_STATUSES}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    version = f"%(prog)s {__version__}"
    parser.add_argument("--version", action="version", version=version)
    subparsers = parser.add_subparsers(required=True, metavar="COMMAND")
    for family in (
        tables,
        artefacts,
        calibrate,
        extend,
        use,
        cascade,
        checks,
        monitor,
        serve,
        sign,
    ):
        family.add(subparsers)
    system.add_doctor(subparsers)
    demo.add(subparsers, main)
    system.add_completion(subparsers, parser)
    return parser
