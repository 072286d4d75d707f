"""Processes that save, read and die at once over one artefact.

Run by tests/racer/test_concurrent_saves.py.

python tests/racer/concurrent_saves.py FOLDER rounds=100 kills=60 kills_empty=60 threads=20
"""

import multiprocessing
import os
import random
import shutil
import signal
import sys
import threading
import time
import traceback
import warnings
from collections import Counter
from pathlib import Path

import numpy as np

from racer_jax.racer import artefact
from racer_jax.racer.errors import ArtefactError

warnings.simplefilter("ignore")  # forks: no process here computes with JAX
os.fsync = lambda handle: None  # the power stays on; without waiting more happens at once
WRITERS, READERS, READS = 4, 4, 6


def save(path, number):
    # Two of three versions share their arrays with another, as `at(alpha)` does.
    content = number - number % 3 if number % 3 else number
    arrays = {"x": np.full(2048, content)}
    artefact.write(path, {"models": ["a"], "number": number, "content": content}, arrays)


def read(path):
    description, arrays = artefact.read(path)
    whole = bool((arrays["x"] == description["content"]).all())
    return description["number"] if whole else "MIXED"


def safely(work, barrier, outcomes):
    """Runs a process of the rounds; what goes wrong is an outcome too."""
    try:
        work()
    except BaseException:
        outcomes.put(("ERROR", traceback.format_exc()[-600:]))
        barrier.abort()


def rounds(path, num):
    """Each round: four save once, four read; every other begins without a folder."""
    context = multiprocessing.get_context("fork")
    barrier, outcomes = context.Barrier(WRITERS + READERS + 1), context.SimpleQueue()

    def writer(i):
        rng = random.Random(i)
        for number in range(num):
            barrier.wait()
            time.sleep(rng.random() * 0.002)
            save(path, 10 * number + i)
            barrier.wait()

    def reader():
        for number in range(num):
            barrier.wait()
            is_there = number % 2 == 1
            for _ in range(READS):
                try:
                    value = read(path)
                    is_there = True
                    if value == "MIXED" or value // 10 not in (number, number - 1):
                        outcomes.put(("READ", value))
                except ArtefactError as error:
                    if is_there:
                        outcomes.put(("READ", str(error)))
            barrier.wait()

    work = [lambda i=i: writer(i) for i in range(WRITERS)] + [reader] * READERS
    processes = [context.Process(target=safely, args=(each, barrier, outcomes)) for each in work]
    for process in processes:
        process.start()
    counts = Counter()
    for number in range(num):
        if number % 2 == 0:
            shutil.rmtree(path, ignore_errors=True)
        try:
            barrier.wait()
            barrier.wait()
        except threading.BrokenBarrierError:
            break
        value = read(path)
        beside = sorted(p.name for p in path.parent.iterdir())
        inside = len(list(path.iterdir()))
        clean = beside == [path.name] and inside == 2
        counts["good" if value // 10 == number and clean else f"BAD {value} {beside} {inside}"] += 1
    for process in processes:
        process.join()
    while not outcomes.empty():
        counts[str(outcomes.get())] += 1
    return counts


def kills(path, num, empty=False):
    """A process that saves without end is killed.

    The artefact loads, litter is at most a version.
    """
    rng, counts = random.Random(0), Counter()
    if not empty:
        save(path, 0)
    for number in range(num):
        if empty:  # an empty folder, or none at all
            shutil.rmtree(path, ignore_errors=True)
            if number % 2:
                path.mkdir()
        child = os.fork()
        if not child:
            while True:
                save(path, number := number + 1)
        time.sleep(0.001 + 0.006 * rng.random() * (0.4 if empty else 1))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        if empty:
            save(path, 1)
        counts["MIXED" if read(path) == "MIXED" else "good"] += 1
        files = [p for p in path.parent.rglob("*") if p.is_file()]
        litter = sum(p.stat().st_size for p in files) // (2048 * 8)
        if litter > 2:
            counts[f"LITTER {sorted(map(str, files))}"] += 1
    save(path, 1)
    left = sorted(p.name for p in path.iterdir() if p.name != ".lock")
    counts[f"left {len(left)}"] += 1
    return counts


def kills_empty(path, num):
    """The same where there was no artefact before."""
    return kills(path, num, empty=True)


def threads(path, num):
    """Threads of one process take turns too."""
    problems = []

    def work(i):
        try:
            for number in range(num):
                save(path, 10 * number + i)
                if read(path) == "MIXED":
                    problems.append("MIXED")
        except BaseException as error:
            problems.append(str(error))

    workers = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return Counter(problems or ["good"])


if __name__ == "__main__":
    for part in sys.argv[2:]:
        what, _, how_many = part.partition("=")
        folder = Path(sys.argv[1]) / what
        folder.mkdir()
        run = {"rounds": rounds, "kills": kills, "kills_empty": kills_empty, "threads": threads}
        print(what, dict(run[what](folder / "a.racer", int(how_many))), flush=True)  # noqa: T201
