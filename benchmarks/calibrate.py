"""One calibration under jit against np.partition, and thresholds for many masks at once.

    python benchmarks/calibrate.py

alpha = 0.1 and n = 1,000, 100,000 and 10,000,000 critical scores; `jnp.sort` where it does not take
minutes. Then 10,000 masks of 4,000 scores x 99 alphas under vmap against a loop of np.sort,
extrapolated from 100 masks. Agreement first.
"""

from dataclasses import dataclass
from typing import Annotated

import jax
import jax.numpy as jnp
import numpy as np
from harness import Counted, report, seconds
from timing import interleaved

from racer_jax import calibrate, miss_budget, reporting

PERCENTS = tuple(f"{i / 100:g}" for i in range(1, 100))


@dataclass(frozen=True)
class Config(Counted):
    """Options of the benchmark."""

    rounds: Annotated[int, "interleaved rounds"] = 9


def main() -> None:
    config = reporting.parse_config(Config, "Times one calibration against np.partition.")
    rng = np.random.default_rng(0)
    rows, results = [], {}
    header = ["n", "variant", "wall", "CPU", "best", "times np.partition", "first call"]
    for size in (1_000, 100_000, 10_000_000):
        values = rng.random(size, np.float32)
        rank = size - int(miss_budget(0.1, size))
        on_device = jnp.asarray(values)
        ours, by_sort = (
            jax.jit(lambda x: calibrate(x, 0.1)),
            jax.jit(lambda x, rank=rank: jnp.sort(x)[rank - 1]),
        )
        expected = np.partition(values, rank - 1)[rank - 1]
        if float(ours(on_device)) != expected:
            raise ValueError(
                f"n = {size}: calibrate gives {ours(on_device)}, np.partition {expected}"
            )
        jax.clear_caches()
        variants = {
            "np.partition": lambda values=values, rank=rank: np.partition(values, rank - 1)[
                rank - 1
            ],
            "`jit(calibrate)`": lambda x=on_device, ours=ours: ours(x),
        }
        if size <= 100_000:
            variants["`jit(jnp.sort)`"] = lambda x=on_device, by_sort=by_sort: by_sort(x)
        timings = interleaved(variants, config.rounds if size > 100_000 else 20 * config.rounds)
        results[size] = timings
        base = timings["np.partition"].wall
        for name, t in timings.items():
            times = [
                seconds(t.wall),
                seconds(t.cpu),
                seconds(t.best),
                f"{t.wall / base:.2f}",
                seconds(t.first),
            ]
            rows.append([f"{size:,}", name, *times])

    size, num_masks, few = 4_000, 10_000, 100
    values, masks = rng.random(size, np.float32), rng.random((num_masks, size)) < 0.5
    critical, all_masks = jnp.asarray(values), jnp.asarray(masks)
    many = jax.jit(jax.vmap(lambda mask, x: calibrate(x, PERCENTS, mask=mask), in_axes=(0, None)))

    def loop() -> np.ndarray:
        out = np.empty((few, len(PERCENTS)), np.float32)
        for i, mask in enumerate(masks[:few]):
            ordered = np.sort(values[mask])
            out[i] = ordered[len(ordered) - miss_budget(PERCENTS, len(ordered)) - 1]
        return out

    np.testing.assert_array_equal(many(all_masks, critical)[:few], loop())
    jax.clear_caches()
    timings = interleaved({"loop": loop, "many": lambda: many(all_masks, critical)}, 3)
    base = timings["loop"].times(num_masks / few)
    results["masks"] = {"loop of np.sort": base, "vmap": timings["many"]}
    for name, t in (("loop of np.sort *", base), ("`jit(vmap(calibrate))`", timings["many"])):
        times = [
            seconds(t.wall),
            seconds(t.cpu),
            seconds(t.best),
            f"{t.wall / base.wall:.3f} of the loop",
        ]
        rows.append([f"{num_masks:,} masks x {size:,} x 99 alphas", name, *times, seconds(t.first)])
    title = (
        f"Calibration at alpha = 0.1, median of {config.rounds} interleaved rounds or more (* "
        "extrapolated);"
    )
    report("calibrate", title, header, rows, results)


if __name__ == "__main__":
    main()
