"""How fast does the k-NN router score queries, against scikit-learn's brute-force search?

    python benchmarks/knn_search.py

Scores are the share of the k nearest training queries that each model got right:
`KNeighborsRegressor.predict` with brute force, by cosine and, which is the same order and its
faster path, by Euclidean distance on unit vectors. All agree before anything is timed. Needs the
extra `parity`.
"""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, NamedTuple

import jax
import numpy as np
from harness import Counted, needs
from timing import Timing, interleaved

from racer_jax import reporting
from racer_jax.routers import KNNR


@dataclass(frozen=True)
class Config(Counted):
    """Options of the benchmark."""

    k: Annotated[int, "neighbours"] = 100
    rounds: Annotated[int, "interleaved rounds"] = 5
    output: Annotated[Path, "folder of the results"] = Path("results/benchmarks/knn_search")


# Training queries, queries, dimensions: RouterDC's files with the encoder "both", and a larger
# pool.
SIZES = ((5820, 2048, 640), (50_000, 1024, 384))
NUM_MODELS = 7


class Row(NamedTuple):
    """One size.

    Attributes:
      size: Training queries, queries, dimensions.
      error: Largest difference of a score.
      times: Variant -> seconds.
      speedup: The faster of scikit-learn's over ours.
    """

    size: tuple[int, int, int]
    error: float
    times: dict[str, Timing]
    speedup: float


def compare(size: tuple[int, int, int], config: Config) -> Row:
    """Checks that all agree, then times them."""
    n, num_queries, dim = size
    rng = np.random.default_rng(0)
    train = rng.normal(size=(n, dim)).astype(np.float32)
    train /= np.linalg.norm(train, axis=1, keepdims=True)
    queries = train[rng.integers(0, n, num_queries)] + 0.05 * rng.normal(
        size=(num_queries, dim)
    ).astype(np.float32)
    queries /= np.linalg.norm(queries, axis=1, keepdims=True)
    correct = rng.random((n, NUM_MODELS)) < 0.5
    from sklearn import neighbors

    router = KNNR.fit(train, correct, k=config.k)
    cosine, euclidean = (
        neighbors.KNeighborsRegressor(config.k, algorithm="brute", metric=metric).fit(
            train, correct.astype(np.float32)
        )
        for metric in ("cosine", "euclidean")
    )
    variants = {
        "ours": lambda: np.asarray(router(queries)),
        "sklearn cosine": lambda: cosine.predict(queries),
        "sklearn euclidean": lambda: euclidean.predict(queries),
    }
    results = {name: call() for name, call in variants.items()}
    error = max(float(np.abs(result - results["ours"]).max()) for result in results.values())
    # A pair of neighbours at equal distance, up to rounding, may be taken in either order: one vote
    # of k.
    if error > 1.5 / config.k:
        raise ValueError(f"{size}: the variants differ by {error:.2g}")
    times = interleaved(variants, config.rounds)
    fastest = min(times["sklearn cosine"].wall, times["sklearn euclidean"].wall)
    return Row(size, error, times, fastest / times["ours"].wall)


def main(arguments: list[str] | None = None) -> int:
    """Runs the benchmark, prints the table and writes the results."""
    config = reporting.parse_config(Config, "k-NN scoring against scikit-learn.", arguments)
    needs("parity", "sklearn")
    import sklearn

    rows = [compare(size, config) for size in SIZES]
    names = list(rows[0].times)
    print(
        f"Queries per second, k = {config.k}; the speed-up is over the faster of scikit-learn's two"
    )
    print(
        reporting.text_table(
            ["train x queries x d", *names, "speed-up", "largest difference"],
            [
                [
                    " x ".join(map(str, row.size)),
                    *(f"{row.size[1] / row.times[name].wall:.0f}" for name in names),
                    f"{row.speedup:.2f}x",
                    f"{row.error:.1e}",
                ]
                for row in rows
            ],
        )
    )
    environment = reporting.environment() | {
        "sklearn": sklearn.__version__,
        "backend": jax.default_backend(),
    }
    details = {"config": config, "environment": environment, "rows": rows}
    reporting.finish(
        lambda folder: reporting.write_json(folder / "results.json", details), config.output
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
