"""Runs the attacks and prints what each counted: `python -m tests.attack --rounds N [NAME ...]`."""

import argparse
import sys
import tempfile
import time
from pathlib import Path

from tests.attack import files, lines, pipes, processes, replies
from tests.attack.tally import Tally

ATTACKS = {
    "files": files.fuzzed_files,
    "bits": files.flipped_bits,
    "bombs": files.bombs,
    "pipes": pipes.pipes,
    "saves": processes.concurrent_saves,
    "killed-saves": processes.killed_saves,
    "killed-files": processes.interrupted_saves,
    "killed-monitors": processes.killed_monitors,
    "two-monitors": processes.two_monitors,
    "killed-routes": processes.killed_routes,
    "replies": replies.replies,
    "lines": lines.command_line_fuzzer,
}


def run(name: str, rounds: int) -> Tally:
    """One attack, in a folder of its own."""
    tally = Tally()
    with tempfile.TemporaryDirectory(prefix="racer-attack-") as folder:
        ATTACKS[name](tally, rounds, Path(folder))
    return tally


def main() -> int:
    """Prints a line for each attack; the status is 1 if something did not hold."""
    parser = argparse.ArgumentParser(prog="python -m tests.attack", description=__doc__)
    parser.add_argument("names", nargs="*", help=f"some of {', '.join(ATTACKS)}; all by default")
    parser.add_argument("--rounds", type=int, default=1, help="how long (default: 1)")
    parsed = parser.parse_args()
    if unknown := set(parsed.names) - set(ATTACKS):
        parser.error(f"no such attack: {', '.join(sorted(unknown))}")
    bad = False
    for name in parsed.names or ATTACKS:
        start = time.monotonic()
        tally = run(name, parsed.rounds)
        print(f"{name}: {tally} [{time.monotonic() - start:.0f} s]", flush=True)  # noqa: T201
        for kind, what in tally.problems[:20]:
            print(f"  {kind}: {what}", flush=True)  # noqa: T201
        bad = bad or bool(tally.problems)
    return int(bad)


if __name__ == "__main__":
    sys.exit(main())
