"""The same bytes through pipes, in pieces of every size: read once and whole."""

import contextlib
import os
import random
import threading
from functools import partial
from pathlib import Path

from racer_jax.data import DataError, load
from tests.attack.tally import LOST, Tally
from tests.data.test_fuzz import TEXTS
from tests.data.test_hostile_inputs import rows_of


def write_in_pieces(handle: int, data: bytes, rng: random.Random) -> None:
    with contextlib.suppress(BrokenPipeError):
        while data:
            size = rng.choice([1, 7, 511, 4096, 65536, len(data)])
            data = data[os.write(handle, data[:size]) :]
    os.close(handle)


def pipes(tally: Tally, rounds: int, folder: Path) -> None:
    """Pipes without a name and with one, of every format that is a text, and of aligned rows."""
    rng = random.Random(3)
    (folder / "aligned.jsonl").write_text("".join(rows_of(128)))
    paths = {"aligned": folder / "aligned.jsonl"}
    for name, (make, _) in TEXTS.items():
        (folder / name).mkdir()
        paths[name] = make(folder / name)
    for name, path in paths.items():
        if name == "helm":  # a folder of several files
            continue
        data = path.read_bytes()
        try:
            whole = load(path)
        except DataError:
            continue
        for number in range(4 * rounds):
            cut = data if number % 4 else data[: rng.randrange(len(data))]
            named = folder / f"{name}.{number}" / path.name
            if number % 2:
                named.parent.mkdir()
                os.mkfifo(named)
                source = str(named)
            else:
                read, write = os.pipe()
                source = f"/proc/self/fd/{read}"

            def work(cut=cut, number=number, named=named, ends=(None if number % 2 else write)):
                handle = os.open(named, os.O_WRONLY) if ends is None else ends
                write_in_pieces(handle, cut, rng)

            writer = threading.Thread(target=work)
            writer.start()
            table = tally.attempt(partial(load, source), DataError, name)
            if number % 2 == 0:
                os.close(read)
            writer.join(30)
            if writer.is_alive():
                tally.problem(LOST, f"{name}: the writer still waits")
            if cut is not data:
                continue
            # Models and rules may come from the name of the file, or from a report beside it.
            named_by_file = name == "routerdc" and number % 2 == 0
            if table is None and named_by_file:
                continue
            if (
                table is None
                or table.texts != whole.texts
                or len(table.models) != len(whole.models)
            ):
                tally.problem(LOST, f"{name}: a pipe gives another table than the file")
