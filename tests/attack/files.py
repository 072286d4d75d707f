"""Files at random: every reader, artefacts, tables and states with flipped bits, archives."""

import random
import resource
import zipfile
from functools import partial
from pathlib import Path

import numpy as np

from racer_jax.data import DataError, load, read_table, save
from racer_jax.racer.errors import ArtefactError
from racer_jax.racer.racer import Racer
from racer_jax.serving.monitor import ExchangeabilityMonitor, RiskMonitor
from tests.attack.tally import BEYOND, LOST, Tally
from tests.data.test_fuzz import ALL, EVIL, KINDS, Mutation, check_table
from tests.data.test_hostile_inputs import BOMBS, SWELLING, archive, array
from tests.racer.test_racer import MODELS, table_of

# What reading a file of kilobytes may add to the memory of the process.
GROWTH = 600 << 20


def peak_memory() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


def mutated(data: bytes, rng: random.Random) -> bytes:
    for _ in range(rng.randint(1, 5)):
        evil = rng.choice(EVIL).encode()
        change = Mutation(rng.choice(KINDS), rng.random(), rng.random(), evil, rng.randrange(256))
        data = change(data)
    return data


def fuzzed_files(tally: Tally, rounds: int, folder: Path) -> None:
    """Mutations of a file of every format, read by its reader and by `load`."""
    before = peak_memory()
    for name, (make, reader) in ALL.items():
        rng = random.Random(name)
        (folder / name).mkdir()
        path = make(folder / name)
        data = path.read_bytes()
        for number in range(60 * rounds):
            path.write_bytes(mutated(data, rng))
            for read in (reader, load):
                what = f"{name}, number {number}, {path.read_bytes()[:300]!r}"
                table = tally.attempt(partial(read, path), DataError, what)
                if table is not None:
                    tally.attempt(partial(check_table, table), (), what)
                    tally.tried -= 1
    if peak_memory() - before > GROWTH:
        tally.problem(BEYOND, f"memory grew by {(peak_memory() - before) >> 20} MiB")


def flipped_bits(tally: Tally, rounds: int, folder: Path) -> None:
    """Every kind of file with a checksum: a flipped bit is noticed, or changes nothing."""
    part = table_of(np.random.default_rng(4), 60)
    racer = Racer.from_scores(MODELS).calibrate(part.table, 0.3, scores=part.scores)
    racer.save(folder / "a.racer")
    RiskMonitor(alpha=0.1).update([0, 1] * 20).save(folder / "risk.json")
    monitor = ExchangeabilityMonitor.over(np.arange(100) / 100).update([0.3] * 50)
    monitor.save(folder / "numbers.json")
    save(part.table, folder / "table.npz")

    def racer_content() -> object:
        loaded = Racer.load(folder / "a.racer")
        sets = loaded.route_scores(part.scores[:4], part.table.group[:4]).sets
        return loaded.guarantee(), loaded.warnings(), sets.tolist()

    content = {
        "a.racer/racer.json": racer_content,
        f"a.racer/{next((folder / 'a.racer').glob('arrays*')).name}": racer_content,
        "risk.json": lambda: RiskMonitor.load(folder / "risk.json"),
        "numbers.json": lambda: ExchangeabilityMonitor.load(folder / "numbers.json"),
        "table.npz": lambda: read_table(folder / "table.npz"),
    }
    rng = random.Random(1)
    for name, read in content.items():
        path = folder / name
        data, whole = path.read_bytes(), read()
        for _ in range(200 * rounds):
            place, bit = rng.randrange(len(data)), rng.randrange(8)
            changed = bytearray(data)
            changed[place] ^= 1 << bit
            path.write_bytes(changed)
            what = f"{name}, bit {bit} of byte {place}"
            result = tally.attempt(read, (ArtefactError, DataError), what)
            if result is not None and result != whole:
                tally.problem(LOST, f"{what}: read as something else")
        path.write_bytes(data)


def bombs(tally: Tally, rounds: int, folder: Path) -> None:
    """Archives whose sizes are lies, and texts that swell."""
    before, rng = peak_memory(), random.Random(2)
    for members, _ in BOMBS.values():
        path = archive(folder, **members)
        tally.attempt(partial(load, path), DataError, members.keys())
    for reader, make in SWELLING.values():
        text = folder / "a.json"
        text.write_text(make(1 << 20))
        tally.attempt(partial(reader, text), DataError, reader.__name__, 20)
    for _ in range(100 * rounds):
        name = rng.choice(["test_score", "correct", "scores", "models", "texts", "embeddings"])
        shape = tuple(rng.choice([0, 1, 2, 3, 2**20, 2**31, 2**47, 2**62]) for _ in range(2))
        kind = rng.choice(["|b1", "<f4", "<f8", "<U0", "<U1", "<U99999999", "|O", "|S0", "<f2"])
        data = bytes(rng.choice([0, 1, 7, 64, 1 << 16, 1 << 22]))
        path = archive(folder, **{name: array(kind, shape, data), "correct": array("|b1", (2, 1))})
        what = f"{name} {kind} {shape} {len(data)}"
        tally.attempt(partial(load, path), DataError, what)
        content = bytearray(path.read_bytes())
        place = rng.randrange(len(content) - 100, len(content))  # of the directory of the archive
        content[place] = rng.randrange(256)
        path.write_bytes(content)
        tally.attempt(partial(load, path), DataError, f"{what}, byte {place}")
    nested = folder / "nested.eval"
    with zipfile.ZipFile(nested, "w", zipfile.ZIP_DEFLATED) as file:
        for i in range(20):
            file.writestr(f"samples/{i}_epoch_1.json", b"[" * (1 << 22))
    tally.attempt(partial(load, nested), DataError, "an .eval that swells", 20)
    if peak_memory() - before > GROWTH:
        tally.problem(BEYOND, f"memory grew by {(peak_memory() - before) >> 20} MiB")
