"""False alarms of the risk monitor and its delay, beside a test on a fixed window.

    python experiments/monitoring.py

Streams of labelled feedback are simulated at a risk of exactly alpha (any alarm is false), and at a
risk of 1.5 alpha from the start or from some query on. The monitor bets; the fixed-window test
compares the misses of the last w queries with the binomial quantile, at every query, as a dashboard
would.
"""

import math
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, StrMethodFormatter
from scipy.stats import binom

from racer_jax import reporting
from racer_jax.montecarlo.subsets import threefry
from racer_jax.plotting.layout import figure_style, panels
from racer_jax.plotting.styles import style_of
from racer_jax.serving.betting import RISK_RATIOS, bets, reserve
from racer_jax.serving.monitor import RiskMonitor
from racer_jax.studies.runner import Progress, Report, run_experiment

NEVER = np.iinfo(np.int32).max


@dataclass(frozen=True)
class Config:
    """Options of the simulation."""

    alpha: Annotated[float, "the risk that was promised"] = 0.1
    level: Annotated[float, "chance of a false alarm, ever"] = 0.05
    streams: Annotated[int, "number of streams"] = 10_000
    length: Annotated[int, "queries in each"] = 10_000
    window: Annotated[int, "queries of the fixed window"] = 500
    change: Annotated[int, "query from which the risk is higher, in the third scenario"] = 2_000
    ratio: Annotated[float, "the higher risk, in alphas"] = 1.5
    seed: Annotated[int, "seed of the streams"] = 0
    output: Annotated[Path, "folder of the results"] = Path("results/monitoring")

    def __post_init__(self) -> None:
        RiskMonitor(self.alpha, self.level)
        for name in ("streams", "length", "window", "change"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if not 1 <= self.ratio < 1 / self.alpha:
            raise ValueError(f"ratio must be at least 1 and leave a risk below 1, got {self.ratio}")


class Scenario(NamedTuple):
    """Alarms of one scenario.

    Attributes:
      name: What happens.
      risk_before: Chance of a miss until the change.
      risk_after: Chance of a miss from then on.
      change: Queries before the change.
      monitor: First alarm of the monitor in each stream, `NEVER` where there is none, int32 `[s]`.
      window: First alarm of the fixed-window test, int32 `[s]`.
    """

    name: str
    risk_before: float
    risk_after: float
    change: int
    monitor: np.ndarray
    window: np.ndarray


# Streams simulated at once: what a scan keeps of them stays in the cache.
TILE = 1_000


class _Case(NamedTuple):
    """The risk of the streams, and when a test raises its alarm.

    Attributes:
      risk_before: Risk before the change.
      risk_after: Risk from the change on.
      change: The first query of the new risk.
      alpha_bets: What each bet pays for a miss and for a hit.
      threshold: Wealth of the alarm.
      window_limit: Misses in a window that are too many.
    """

    risk_before: float
    risk_after: float
    change: int
    alpha_bets: tuple[jax.Array, jax.Array]
    threshold: float
    window_limit: int


def first_alarms(
    key: jax.Array, *case: Any, num_streams: int, **sizes: int
) -> tuple[np.ndarray, np.ndarray]:
    """First alarms of the monitor and of the fixed window, int32 `[s]`, by tiles of streams."""
    words = tuple(jax.random.key_data(key))
    tiles = [
        _tile_alarms(
            words, jnp.uint32(first), _Case(*case), num_streams=min(TILE, num_streams), **sizes
        )
        for first in range(0, num_streams, TILE)
    ]
    monitor, window = (
        np.concatenate([np.asarray(part) for part in parts]) for parts in zip(*tiles, strict=True)
    )
    return monitor[:num_streams], window[:num_streams]


@partial(jax.jit, static_argnames=("num_streams", "length", "window"))
def _tile_alarms(
    key: tuple[jax.Array, jax.Array],
    first: jax.Array,
    case: _Case,
    *,
    num_streams: int,
    length: int,
    window: int,
) -> tuple[jax.Array, jax.Array]:
    """First alarms of a tile of streams; one scan over the queries."""
    stream = first + jnp.arange(num_streams, dtype=jnp.uint32)
    reserves = jnp.asarray(reserve(np.arange(length + 1)), jnp.float32)
    paid_miss, paid_hit = (jnp.asarray(factors, jnp.float32)[None] for factors in case.alpha_bets)

    def query(carry: tuple[jax.Array, ...], now: jax.Array) -> tuple[tuple[jax.Array, ...], None]:
        wealth, recent, in_window, alarm, window_alarm = carry
        bits = threefry(key, stream, jnp.full_like(stream, now.astype(jnp.uint32)))[0]
        miss = (bits >> 8).astype(jnp.float32) * 2.0**-24 < jnp.where(
            now < case.change, case.risk_before, case.risk_after
        )
        shares = (reserves[now] - reserves[now + 1]) / len(RISK_RATIOS)
        wealth = (wealth + shares) * jnp.where(miss[:, None], paid_miss, paid_hit)
        wealth = jnp.minimum(wealth, 1e30)
        rich = wealth.sum(axis=1) + reserves[now + 1] >= case.threshold
        oldest = recent[now % window]
        in_window = in_window + miss - oldest
        many = (in_window > case.window_limit) & (now + 1 >= window)
        alarm = jnp.where(rich, jnp.minimum(alarm, now + 1), alarm)
        window_alarm = jnp.where(many, jnp.minimum(window_alarm, now + 1), window_alarm)
        return (wealth, recent.at[now % window].set(miss), in_window, alarm, window_alarm), None

    never = jnp.full(num_streams, NEVER, jnp.int32)
    start = jnp.full(
        (num_streams, len(RISK_RATIOS)), jnp.float32(math.exp(RiskMonitor(0.5).log_wealth[0]))
    )
    carry = (
        start,
        jnp.zeros((window, num_streams), bool),
        jnp.zeros(num_streams, jnp.int32),
        never,
        never,
    )
    carry, _ = lax.scan(query, carry, jnp.arange(length, dtype=jnp.int32))
    return carry[3], carry[4]


def run(
    key: jax.Array, data: None, config: Config, progress: Progress = lambda _: None
) -> list[Scenario]:
    """Simulates every scenario, which takes no data; reads and writes nothing."""
    high = config.ratio * config.alpha
    limit = int(binom.isf(config.level, config.window, config.alpha))
    cases = [
        ("risk = alpha", config.alpha, config.alpha, 0),
        (f"{config.ratio:g} alpha from the start", high, high, 0),
        (f"{config.ratio:g} alpha from query {config.change:,}", config.alpha, high, config.change),
    ]
    scenarios = []
    for i, case in enumerate(cases):
        alarms = first_alarms(
            jax.random.fold_in(key, i),
            *case[1:],
            bets(config.alpha),
            1 / config.level,
            limit,
            num_streams=config.streams,
            length=config.length,
            window=config.window,
        )
        scenarios.append(Scenario(*case, *alarms))
        progress(1)
    return scenarios


def rows(config: Config, scenarios: list[Scenario]) -> list[dict[str, Any]]:
    """A row for each scenario and test: alarms before the change, and the delay after it."""
    lines = []
    for scenario in scenarios:
        false_only = scenario.risk_after == config.alpha
        for test, alarms in (
            ("betting monitor", scenario.monitor),
            (f"window of {config.window}", scenario.window),
        ):
            early = alarms <= (config.length if false_only else scenario.change)
            delay = alarms[~early] - scenario.change
            share, quantiles = float("nan"), np.full(2, np.nan)
            if len(delay) and not false_only:
                share = float((alarms[~early] < NEVER).mean())
                quantiles = np.quantile(delay, [0.5, 0.9], method="inverted_cdf")
            lines.append(
                {
                    "scenario": scenario.name,
                    "test": test,
                    "false_alarms": float(early.mean()),
                    "false_alarms_error": float(
                        np.sqrt(early.mean() * (1 - early.mean()) / len(alarms))
                    ),
                    "detected": share,
                    "median_delay": float(quantiles[0]),
                    "delay_90_percent": float(quantiles[1]),
                }
            )
    return lines


def table(results: list[dict[str, Any]], length: int) -> str:
    """The rows as text."""

    def number(value: float) -> str:
        if np.isnan(value):
            return "-"
        return "never" if value > length else f"{value:,.0f}"

    lines = [
        [
            row["scenario"],
            row["test"],
            f"{100 * row['false_alarms']:.2f} ± {100 * row['false_alarms_error']:.2f}%",
            "-" if np.isnan(row["detected"]) else f"{100 * row['detected']:.1f}%",
            number(row["median_delay"]),
            number(row["delay_90_percent"]),
        ]
        for row in results
    ]
    return reporting.text_table(
        ["scenario", "test", "false alarms", "detected", "median delay", "90% within"], lines
    )


def figure(config: Config, scenarios: list[Scenario], *, width: float | None = None) -> Figure:
    """Share of the streams with an alarm, against the number of queries."""
    window = f"window of {config.window}"
    with figure_style(width):
        grid = panels(len(scenarios), (2.5,), width=width, share_y=True)
        for number, scenario in enumerate(scenarios):
            panel = grid.axes[0, number]
            for label, name, alarms in (
                ("betting monitor", "betting monitor", scenario.monitor),
                (window, "fixed window", scenario.window),
            ):
                at = np.sort(alarms[alarms < NEVER])
                steps = np.append(at, config.length)
                shares = np.append(np.arange(1, len(at) + 1), len(at)) / len(alarms)
                panel.step(steps, shares, where="post", **style_of(name).line(label=label))
            level = style_of("alpha").line(lw=0.8, label=f"level {config.level:g}")
            panel.axhline(config.level, **level)
            if scenario.change:
                line = {"color": "0.4", "ls": ":", "lw": 0.8}
                panel.axvline(scenario.change, **line, label="the risk rises")
            panel.set(xlim=(0, config.length), ylim=(0, 1.02))
            panel.xaxis.set_major_locator(MaxNLocator(3))
            panel.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
            grid.title(number, scenario.name)
        grid.label_below(0, "queries")
        grid.label_left(0, "share of streams with an alarm")
        title = f"Alarms of a monitor at level {config.level:g} beside a test of a fixed window"
        return grid.finish(title, *grid.axes[0])


def report(config: Config, scenarios: list[Scenario]) -> Report:
    """The table, whether false alarms are as rare as promised, and the picture."""
    lines = rows(config, scenarios)
    false, error = lines[0]["false_alarms"], lines[0]["false_alarms_error"]
    within_level = false <= config.level + 4 * error
    verdict = (
        f"{'PASS' if within_level else 'FAIL'}: the monitor raised {100 * false:.2f}% false "
        f"alarms in {config.streams:,} streams of {config.length:,}, level {100 * config.level:g}%."
    )
    figures = {"alarms": partial(figure, config, scenarios)}
    return Report(f"{table(lines, config.length)}\n{verdict}", lines, figures, within_level)


def main(arguments: list[str] | None = None) -> int:
    """Simulates, prints and writes; status 1 where false alarms are more frequent than promised."""
    return run_experiment(
        Config,
        "Simulates the risk monitor: false alarms and detection delay.",
        run,
        report,
        lambda *_: 3,
        arguments,
        load=lambda config: (jax.random.key(config.seed), None),
    )


if __name__ == "__main__":
    sys.exit(main())
