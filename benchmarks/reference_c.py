"""The package's C program with the cheapest random words: what the machine attains at all.

`splits_reference.c` draws its splits with xoshiro256+ and measures them as the package does, so what
lies between the two is the price of Threefry, and of a result that a seed and a trial's number give
on every device.
"""

import ctypes
import tempfile
from pathlib import Path

import numpy as np
from baselines import Problem

from racer_jax.montecarlo import plain_splits
from racer_jax.montecarlo.plan import plan_parts
from racer_jax.montecarlo.split_design import split_design
from racer_jax.montecarlo.step_functions import Pool

SOURCE = Path(__file__).with_name("splits_reference.c")
PROGRAM = Path(plain_splits.__file__).with_suffix(".c")


class Reference:
    """The compiled program with one problem."""

    def __init__(self, program: ctypes.CDLL, pool: Pool, problem: Problem, name: str) -> None:
        self.program, self.name = program, name
        design = split_design(pool.order, num_calibration=problem.num_calibration)
        self.parts = plan_parts(pool, design, design.budgets(problem.alphas), means=True)

    def run(self, seed: int, num_splits: int, threads: int) -> np.ndarray:
        """Risk, size and abstention, float32 `[3, s, a]`."""
        key = np.array([0, seed], np.uint32)
        trials = plain_splits.PlainTrials(self.program, key, self.parts, threads)
        means = trials.start(0, num_splits).wait()["test"]
        return np.stack([means[name].T for name in ("risk", "size", "abstention")])


def build(pool: Pool, problem: Problem) -> Reference | None:
    """Compiles the program; None where it cannot run, or the split is not in halves."""
    options = plain_splits.compiler_options()
    if options is None or 2 * problem.num_calibration != pool.num_queries:
        return None
    # One file: the compiler is not told where the package is.
    whole = SOURCE.read_text("utf-8").replace(
        '#include "plain_splits.c"', PROGRAM.read_text("utf-8")
    )
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / SOURCE.name
        source.write_text(whole, encoding="utf-8")
        program = plain_splits.compiled_program(source, options, None)
    if program is None:
        return None
    form = "AVX-512" if "-mavx512f" in options else "AVX2"
    return Reference(program, pool, problem, f"C for {form} with xoshiro256+")
