"""The study of votes: every strategy on the same test parts of the same splits, with baselines.

Each split calibrates, chooses alpha and aggregation on validation, and answers its test part. What
a strategy got right is kept query by query, so that any two can be compared in pairs.
"""

from collections.abc import Callable, Sequence
from itertools import chain
from typing import NamedTuple

import jax
import numpy as np

from racer_jax.core.risk_levels import parse_alphas
from racer_jax.studies.benchmarks import (
    SCORES,
    Benchmark,
    model_pools,
    subpool,
)
from racer_jax.studies.strategies import (
    BEST_SINGLE,
    StrategyMetrics,
    Votes,
    measure,
    single_name,
)
from racer_jax.studies.vote_strategies import (
    VoteConfig,
    choice_counts,
    majority_right,
    racer_strategies,
    router_strategies,
    scored_votes,
    single_strategies,
    vote_setting,
)


def vote_study(
    key: jax.Array,
    benchmarks: Sequence[Benchmark],
    config: VoteConfig,
    progress: Callable[[int], object],
) -> list[Votes]:
    """Every strategy on every benchmark that has answers, with every pool of models.

    Use this when you want to know which way of voting is worth its calls on your benchmarks.

    Args:
      key: A typed PRNG key.
      benchmarks: Those of one name are repeats with routers trained anew.
      config: The options.
      progress: Called with 1 after each repeat of each pool.

    Returns:
      A study for each benchmark and pool; none for benchmarks without answers.

    Raises:
      ValueError: If a benchmark is too small to split, a pool is not one of its models, or an alpha
        is out of range.
    """
    studies = []
    for name in dict.fromkeys(benchmark.name for benchmark in benchmarks):
        repeats = [benchmark for benchmark in benchmarks if benchmark.name == name]
        if repeats[0].test.answers is None:
            continue
        for pool, models in model_pools(repeats[0].test.models, config.pools).items():
            results = []
            for number, benchmark in enumerate(repeats):
                # The splits are the same for every pool, so that pools can be compared.
                repeat_key = jax.random.fold_in(key, number)
                results.append(_repeat(repeat_key, subpool(benchmark, models), config))
                progress(1)
            studies.append(_joined(name if pool == "all" else f"{name}, {pool}", results, config))
    return studies


def counted_votes(
    key: jax.Array,
    benchmarks: Sequence[Benchmark],
    config: VoteConfig,
    progress: Callable[[int], object],
) -> list[Votes]:
    """`vote_study` on the splits of the accuracy table, where there must be votes to count.

    Use this when an experiment needs votes.

    Args:
      key: The key of the experiment.
      benchmarks: As of `vote_study`.
      config: The options.
      progress: As of `vote_study`.

    Returns:
      At least one study.

    Raises:
      ValueError: If no benchmark has answers, and as `vote_study`.
    """
    studies = vote_study(jax.random.split(key)[0], benchmarks, config, progress)
    if not studies:
        raise ValueError(
            "the data must have answers to vote on, got none; accuracy_table shows what can be said"
        )
    return studies


def num_repeats(config: VoteConfig, benchmarks: Sequence[Benchmark]) -> int:
    """How often `vote_study` reports progress. Use this when progress is reported."""
    with_answers = [benchmark for benchmark in benchmarks if benchmark.test.answers is not None]
    return sum(len(model_pools(benchmark.test.models, config.pools)) for benchmark in with_answers)


class _Repeat(NamedTuple):
    """What one training of the routers gave.

    Attributes:
      benchmark: The benchmark.
      appearances: Number of splits that tested each query, `[n]`.
      metrics: Name -> what each strategy did on the test parts.
      choices: RACER variant -> share of the splits that chose each alpha and weighting.
      weightings: Names of the weightings.
    """

    benchmark: Benchmark
    appearances: np.ndarray
    metrics: dict[str, StrategyMetrics]
    choices: dict[str, np.ndarray]
    weightings: tuple[str, ...]


def _repeat(key: jax.Array, benchmark: Benchmark, config: VoteConfig) -> _Repeat:
    """Measures every strategy on one benchmark, over random splits common to all of them."""
    setting = vote_setting(key, benchmark, config)
    in_test = setting.in_test
    strategy_results: dict[str, StrategyMetrics] = {}
    choices: dict[str, np.ndarray] = {}
    weightings: tuple[str, ...] = ()
    for router in config.router_names:
        scores = benchmark.scores[router]
        # Chance is the same for every score of a router.
        by_chance = majority_right(setting, setting.random_orders, scores).mean(axis=0)
        for score in SCORES:
            votes = scored_votes(setting, router, score)
            weightings = tuple(dict.fromkeys(votes.table.weighting))
            choices[votes.label] = choice_counts(setting, votes, weightings)
            strategies = racer_strategies(setting, votes, by_chance)
            if score == next(iter(SCORES)):  # what depends on the router alone
                strategies = chain(strategies, router_strategies(setting, votes))
            # One at a time: all of them together would not fit into memory.
            strategy_results |= {name: measure(strategy, in_test) for name, strategy in strategies}
    singles = single_strategies(setting)
    strategy_results |= {name: measure(strategy, in_test) for name, strategy in singles}
    return _Repeat(benchmark, in_test.sum(axis=0), strategy_results, choices, weightings)


def _joined(name: str, repeats: Sequence[_Repeat], config: VoteConfig) -> Votes:
    """The repeats as one study, queries matched by their names."""
    queries = dict.fromkeys(query for repeat in repeats for query in repeat.benchmark.test.ids)
    row = {query: i for i, query in enumerate(queries)}
    rows = [np.array([row[query] for query in repeat.benchmark.test.ids]) for repeat in repeats]
    appearances = np.zeros(len(row))
    for repeat, numbers in zip(repeats, rows, strict=True):
        appearances[numbers] += repeat.appearances
    strategies = {
        strategy: _joined_strategy([r.metrics[strategy] for r in repeats], rows, appearances)
        for strategy in repeats[0].metrics
    }
    first = repeats[0]
    models = first.benchmark.test.models
    best = max(map(single_name, models), key=lambda single: strategies[single].mean)
    strategies[BEST_SINGLE] = strategies[best]
    calibration, validation = first.benchmark.part_sizes
    num_train, num = len(first.benchmark.train), len(first.benchmark.test)
    run = (
        f"{config.repeats} trainings of the routers ({num_train:,} questions) x {config.splits:,} "
        f"splits: {calibration} calibration, {validation} validation, "
        f"{num - calibration - validation} test queries"
    )
    return Votes(
        name,
        tuple(models),
        int((appearances > 0).sum()),
        parse_alphas(config.alphas),
        first.weightings,
        strategies,
        {label: np.mean([r.choices[label] for r in repeats], axis=0) for label in first.choices},
        (run, f"best single model: {best.removeprefix('single: ')}", *first.benchmark.notes),
    )


def _joined_strategy(
    parts: Sequence[StrategyMetrics], rows: Sequence[np.ndarray], appearances: np.ndarray
) -> StrategyMetrics:
    """One strategy over all repeats; `rows` are the numbers of each repeat's queries."""
    right = np.zeros(len(appearances))
    for one, numbers in zip(parts, rows, strict=True):
        right[numbers] += one.by_query
    costs = [one.cost for one in parts if one.cost is not None]
    return StrategyMetrics(
        parts[0].kind,
        np.concatenate([one.accuracy for one in parts]),
        np.concatenate([one.calls for one in parts]),
        np.concatenate(costs) if len(costs) == len(parts) else None,
        np.divide(right, appearances, out=np.full(len(right), np.nan), where=appearances > 0),
    )
