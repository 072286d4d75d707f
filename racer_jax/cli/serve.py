"""`serve`: the gateway in front of traffic, and what belongs to it."""

import argparse
import importlib.util
import json
from pathlib import Path
from typing import TYPE_CHECKING

from racer_jax._distribution import install_command
from racer_jax._files import check_folder
from racer_jax.cli.before import check_artefact_read, check_calibrated, check_levels
from racer_jax.cli.options import Subparsers, add_command, add_json
from racer_jax.cli.output import flush, print_json, print_line
from racer_jax.cli.places import add_overwrite, check_artefact

if TYPE_CHECKING:
    from racer_jax.serving.gateway._since import Since

_NEEDED = ("starlette", "uvicorn", "httptools", "aiohttp", "prometheus_client", "yaml")


def add(subparsers: Subparsers) -> None:
    """The commands of this module. Use this when the parser of all commands is made."""
    _add_recalibrate(subparsers)
    _add_replay(subparsers)
    _add_compare(subparsers)
    parser = add_command(
        subparsers,
        "serve",
        "Serve an OpenAI-compatible endpoint. It decides which models to call, calls them, returns "
        "one answer, and tests on audited traffic whether the promise still holds.",
        """
racer-jax serve --demo                      simulated models, no key, no network
racer-jax serve gateway.toml
racer-jax serve gateway.toml --check        read the configuration and its artefacts, and end
racer-jax serve --schema > schema.json      JSON Schema of the configuration
racer-jax serve --new-key alice             a key, and the lines that let it in""",
        check=_check_serve,
        needs=(),
    )
    parser.add_argument(
        "config", nargs="?", type=Path, metavar="CONFIG", help="file of TOML or YAML"
    )
    parser.add_argument("--demo", action="store_true", help="simulated models on this machine")
    parser.add_argument(
        "--schema", action="store_true", help="print the JSON Schema of CONFIG, and end"
    )
    parser.add_argument(
        "--new-key",
        metavar="NAME",
        help="print a new key for a client of this name, and end (default: no key)",
    )
    parser.add_argument(
        "--check",
        action="store_true",
        help="read CONFIG and its artefacts, say what is wrong, and end",
    )
    parser.add_argument(
        "--port", type=int, help="inference port, 0 for a free one (default: that of CONFIG)"
    )
    parser.add_argument(
        "--admin-port", type=int, help="management port, 0 for a free one (default: that of CONFIG)"
    )
    parser.add_argument(
        "--folder",
        type=Path,
        default=Path("racer-demo"),
        help="where --demo keeps its artefact and state (default: %(default)s)",
    )
    parser.set_defaults(run=serve)


def _add_recalibrate(subparsers: Subparsers) -> None:
    parser = add_command(
        subparsers,
        "recalibrate",
        "Calibrate an artefact again, on labelled audits of a gateway. Feedback of users is not "
        "used: they choose which answers they rate.",
        """
racer-jax recalibrate gateway.db --artefact my.racer -o new.racer
racer-jax recalibrate gateway.db --artefact my.racer -o new.racer --since-alarm
racer-jax recalibrate gateway.db --artefact my.racer -o new.racer --route exams
racer-jax recalibrate gateway.db --artefact my.racer -o my.racer --alpha 0.05""",
        check=_check_recalibrate,
    )
    parser.add_argument("state", metavar="STATE", help="the state of the gateway")
    parser.add_argument(
        "--artefact", type=Path, required=True, help="folder of the artefact that was in use"
    )
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder to write (needed)")
    add_overwrite(parser)
    parser.add_argument("--alpha", help="another risk level (default: the artefact's)")
    parser.add_argument(
        "--route",
        help="only audits and alarms of this route, where several use the artefact (default: of "
        "all that do, together)",
    )
    which = parser.add_mutually_exclusive_group()
    which.add_argument(
        "--since",
        metavar="TIME",
        help="only audits of requests after this time, such as 2026-03-31T12:00 (UTC), or after "
        "the decision with this id (default: all, unless there was an alarm)",
    )
    which.add_argument(
        "--since-alarm",
        action="store_true",
        help="only audits of requests after the latest alarm of a monitor",
    )
    which.add_argument(
        "--all", action="store_true", help="all audits, though a monitor has raised an alarm"
    )
    add_json(parser)
    parser.set_defaults(run=recalibrate)


def _since(parsed: argparse.Namespace) -> "Since":
    """Which audits count.

    Raises:
      ValueError: If --since is neither a time nor a decision.
    """
    from racer_jax.serving.gateway._since import time_of

    if parsed.since is not None:
        try:
            return time_of(parsed.since)
        except ValueError as error:
            raise ValueError(f"--since {error}") from None
    if parsed.since_alarm:
        return "alarm"
    return "all" if parsed.all else None


def _check_state(state: str) -> None:
    """Refuses a state that cannot be opened."""
    from racer_jax.serving.gateway._databases import reading

    with reading(state) as connection:
        connection.execute("select 1 from decision limit 1")


def _check_recalibrate(parsed: argparse.Namespace) -> None:
    """What can be said before anything is computed."""
    _since(parsed)
    check_levels(parsed.alpha)
    check_artefact(parsed.output, overwrite=parsed.overwrite, changed=parsed.artefact)
    check_artefact_read(parsed.artefact)
    _check_state(parsed.state)


def recalibrate(parsed: argparse.Namespace) -> None:
    """`recalibrate`. Use this when a command line asks for a calibration on audits."""
    from racer_jax.racer.artefact import read
    from racer_jax.racer.racer import Racer
    from racer_jax.serving.gateway._recalibration import audited, recalibrated

    racer = Racer.load(parsed.artefact)
    checksum = str(read(parsed.artefact)[0]["checksum"])
    labelled = audited(parsed.state, checksum, racer, _since(parsed), parsed.route)
    new = recalibrated(racer, labelled, parsed.alpha)
    new.save(parsed.output)
    warnings = (*new.warnings(), *labelled.notes())
    if parsed.json:
        facts = {"n": len(labelled), "audited": labelled.num_audited, "routes": labelled.routes}
        print_json({**facts, "guarantee": new.guarantee(), "warnings": warnings})
        return
    print_line(f"{parsed.output}: {new!r}")
    for line in (new.guarantee(), *warnings):
        print_line(line)


def _add_replay(subparsers: Subparsers) -> None:
    parser = add_command(
        subparsers,
        "replay",
        "Decide again what a gateway has decided, with another artefact. No model is called; it "
        "says how sets change and, on labelled audits, how many misses there are. Needs a state "
        "that keeps prompts.",
        "racer-jax replay gateway.db --artefact new.racer",
        check=_check_replay,
    )
    parser.add_argument("state", metavar="STATE", help="the state of the gateway")
    parser.add_argument(
        "--artefact", type=Path, required=True, help="folder of the artefact that decides now"
    )
    parser.add_argument("--route", help="only decisions of this route (default: all)")
    add_json(parser)
    parser.set_defaults(run=replay)


def _check_replay(parsed: argparse.Namespace) -> None:
    """What can be said before anything is computed."""
    check_calibrated(parsed.artefact)
    _check_state(parsed.state)


def replay(parsed: argparse.Namespace) -> None:
    """`replay`. Use this when a command line asks what another artefact would have decided."""
    from dataclasses import asdict

    from racer_jax.racer.racer import Racer
    from racer_jax.serving.gateway._replay import replay as decide_again
    from racer_jax.serving.gateway._rows import left_out

    done = decide_again(parsed.state, Racer.load(parsed.artefact), parsed.route)
    if parsed.json:
        print_json(asdict(done))
        return
    print_line(f"{done.num} decisions again, {done.same} with the same models")
    print_line(f"models called: {done.size_before:.2f} on average, {done.size_after:.2f} now")
    bound = ""
    if done.miss_rate_upper_bound is not None:
        bound = f" (a rate of at most {done.miss_rate_upper_bound:.3g}, with 95% confidence)"
    print_line(
        f"misses in {done.labelled} labelled audits: {done.misses_before}, {done.misses_after} now"
        f"{bound}"
    )
    if done.unreadable:
        print_line(f"{left_out(done.unreadable)}; a label among them counts as a miss in the bound")
    if done.unknown_group:
        print_line(
            f"{done.unknown_group} of these decisions name no group that {parsed.artefact} has a "
            "threshold for, and the promise leaves them out: requests name theirs, or "
            'group = "NAME" on their route does it for them'
        )


def _add_compare(subparsers: Subparsers) -> None:
    parser = add_command(
        subparsers,
        "compare",
        "Compare the answers of two routes that an experiment of a gateway drew, on labelled "
        "audits. Each conversation, user or key that a route was drawn for counts once, with its "
        "first label. It may be asked at any time and as often as you like: the chance that equal "
        "routes are ever said to differ is at most --level.",
        """
racer-jax compare gateway.db old new
racer-jax compare gateway.db old new --users    on what users said; they choose what they judge""",
        check=_check_compare,
        needs=(),
    )
    parser.add_argument("state", metavar="STATE", help="the state of the gateway")
    parser.add_argument("routes", nargs=2, metavar="ROUTE", help="the two routes")
    parser.add_argument(
        "--level",
        type=float,
        default=0.05,
        help="chance that equal routes are ever said to differ (default: %(default)s)",
    )
    parser.add_argument(
        "--users",
        action="store_true",
        help="count the feedback of users in place of labelled audits",
    )
    parser.add_argument(
        "--experiment", help="the experiment that drew them (default: the only one that did)"
    )
    add_json(parser)
    parser.set_defaults(run=compare)


def _check_compare(parsed: argparse.Namespace) -> None:
    """Nothing: it needs no JAX."""


def compare(parsed: argparse.Namespace) -> None:
    """`compare`. Use this when a command line asks which of two routes answers better."""
    from dataclasses import asdict

    from racer_jax.serving.gateway._arms import compare as compared
    from racer_jax.serving.gateway._rows import left_out
    from racer_jax.serving.gateway._since import shown_time

    first, second = parsed.routes
    done = compared(parsed.state, first, second, parsed.level, parsed.users, parsed.experiment)
    if parsed.json:
        print_json(asdict(done))
        return
    for arm in done.arms:
        dollars = "" if arm.dollars is None else f", {arm.dollars:.4g} dollars"
        print_line(
            f"{arm.route}: {arm.right} of {arm.num} conversations, users or keys with a right "
            "answer (their first with a label), a rate between "
            f"{arm.lower:.3f} and {arm.upper:.3f}; {arm.decisions} decisions, "
            f"{arm.models:.2f} models{dollars} each"
        )
    verdict = f"{done.better} answers better"
    if done.better is None:
        verdict = "no difference is shown so far"
    if done.unreadable:
        print_line(
            f"{left_out(done.unreadable, 'labels')}; the evidence and the rates allow for whatever "
            "they may have said"
        )
    print_line(f"{verdict} (evidence {done.evidence:.3g}, {1 / done.level:g} needed)")
    if done.since is not None:
        print_line(
            f"counted since {shown_time(done.since)}: the key of the draw was another before, and "
            "units may have changed their route. What was compared before then is a comparison of "
            "its own: the chances of both add up"
        )


def check_extra() -> None:
    """Refuses to begin where the packages of the extra are missing.

    Use this when a command needs them, before any work.

    Raises:
      ModuleNotFoundError: If one is.
    """
    missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise ModuleNotFoundError(
            f"racer-jax serve needs {', '.join(missing)}: {install_command('serve')}"
        )


def _check_serve(parsed: argparse.Namespace) -> None:
    """What can be said before the gateway is imported."""
    chosen = [parsed.config is not None, parsed.demo, parsed.schema, parsed.new_key is not None]
    if sum(chosen) != 1:
        raise ValueError("give one of CONFIG, --demo, --schema and --new-key NAME")
    for option, port in (("--port", parsed.port), ("--admin-port", parsed.admin_port)):
        if port is not None and not 0 <= port <= 65535:
            raise ValueError(f"{option} must be 0 to 65535, got {port}")
    if parsed.demo:
        check_folder(parsed.folder)
    check_extra()
    if parsed.config is not None:
        from racer_jax.serving.gateway.configuration import load_settings

        load_settings(parsed.config)
    if parsed.config is not None or parsed.demo:
        # Imports JAX, after which what is compiled is kept for the next start.
        parsed.needs = ("racer_jax.serving.gateway._running",)


def serve(parsed: argparse.Namespace) -> None:
    """`serve`. Use this when a command line asks for the gateway."""
    if parsed.schema:
        from racer_jax.serving.gateway.configuration import json_schema

        print_line(json.dumps(json_schema(), indent=1))
        return
    if parsed.new_key is not None:
        _print_key(parsed.new_key)
        return
    from racer_jax.serving.gateway import _running

    if parsed.demo:
        _running.run_demo(parsed.folder, parsed.port, parsed.admin_port, _say)
    else:
        _running.run(parsed.config, parsed.port, parsed.admin_port, parsed.check, _say)


def _say(text: str) -> None:
    """A line that a reader of a pipe gets at once."""
    print_line(text)
    flush()


def _print_key(name: str) -> None:
    from racer_jax.serving.gateway._keys import new_key

    key, prefix, digest = new_key()
    print_line(f"the key, shown this once:\n  {key}")
    print_line(f'its lines:\n  [keys.{json.dumps(name)}]\n  prefix = "{prefix}"')
    print_line(f'  sha256 = "{digest}"\n  roles = ["infer", "feedback"]')
