"""What the tables and figures of the paper begin with: its benchmarks, and the cells of a table."""

from collections.abc import Sequence

import jax

from racer_jax.studies import runtime
from racer_jax.studies.benchmarks import SCORES, Benchmark, StudyConfig, run_key, study


def cells(benchmarks: Sequence[Benchmark]) -> list[tuple[int, Benchmark, str, str]]:
    """Number, benchmark, router and score of every cell of a table.

    Use this when a table has a cell for each benchmark, router and score.
    """
    routers = [(benchmark, router) for benchmark in benchmarks for router in benchmark.scores]
    triples = [(*pair, score) for pair in routers for score in SCORES]
    return [(number, *cell) for number, cell in enumerate(triples)]


def num_cells(config: StudyConfig, benchmarks: Sequence[Benchmark]) -> int:
    """How many `cells` there are. Use this when progress is reported."""
    return len(benchmarks) * len(config.router_names) * len(SCORES)


def set_up(config: StudyConfig) -> None:
    """Devices, and the cache of compiled code; what the encoder needs is asked for before any work.

    Use this when an experiment starts.

    Raises:
      ModuleNotFoundError: If an extra is not installed that the options need.
    """
    if config.encoder != "hashed":
        from racer_jax.encoders.text import minilm_folder  # takes seconds to import

        minilm_folder()
    runtime.use_compilation_cache(None if config.cache is None else config.cache / "compiled")
    runtime.use_all_cores()


def study_data(config: StudyConfig) -> tuple[jax.Array, list[Benchmark]]:
    """The key of an experiment's own draws, and the benchmarks that its options ask for.

    Use this when an experiment reads its data.
    """
    set_up(config)
    return run_key(config), study(config)
