"""The strategies of a study of votes: RACER's sets, a router's first choices, single models.

Each strategy says of every query, in every split, whether it is answered rightly and how many
models that takes.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from racer_jax.core.aggregation import answer_codes, model_order, prefix_answers, voted_right
from racer_jax.core.nonconformity import NullMode, tie_break
from racer_jax.core.risk_levels import parse_alphas
from racer_jax.montecarlo.replay import split_parts
from racer_jax.montecarlo.step_functions import Pool, pool_steps
from racer_jax.montecarlo.tuning import (
    TEMPERATURES,
    Selections,
    VoteTables,
    select,
    select_each,
    vote_tables,
)
from racer_jax.studies.benchmarks import ROUTERS, SCORES, Benchmark, StudyConfig
from racer_jax.studies.strategies import (
    ORACLE,
    PICKED_SINGLE,
    STATIC_TOP,
    Strategy,
    full_name,
    pooled_name,
    racer_name,
    single_name,
    top_name,
)

# Every percent to 10, and the paper's larger risk levels: sets of strong models shrink from all
# models to one within a few percent, about the share of the questions that no model can answer.
VOTE_ALPHAS = "0.01,0.02,0.03,0.04,0.05,0.06,0.07,0.08,0.09,0.1,0.15,0.2,0.3,0.4,0.5"
TOP_K = (2, 3, 5)
NUM_RANDOM_ORDERS = 16


@dataclass(frozen=True)
class VoteConfig(StudyConfig):
    """What every study of votes asks for.

    Use this when a study compares votes of several models; `StudyConfig` has the options without
    votes.
    """

    alphas: Annotated[str, "risk levels to choose from, listed or first:last:step"] = VOTE_ALPHAS
    routers: Annotated[
        str, "routers, listed: knn, mlp, routerdc, prior (the training accuracy)"
    ] = "knn,mlp,routerdc,prior"
    neighbors: Annotated[
        int, "neighbours of the k-NN router; 0: chosen on the training questions"
    ] = 0
    splits: Annotated[int, "random splits of each training of the routers"] = 200
    repeats: Annotated[
        int, "trainings of the routers, on other questions each time where the data is in one part"
    ] = 5
    tolerance: Annotated[
        float, "standard errors within which the smallest set is chosen; 0: the best"
    ] = 1.0
    null: Annotated[NullMode, "null mode"] = "paper"
    pools: Annotated[
        str | None,
        "pools of models, 'name=model,model' or 'name=-model' (all but), listed with ';'",
    ] = None

    def __post_init__(self) -> None:
        super().__post_init__()
        parse_alphas(self.alphas)
        if self.splits < 2:
            raise ValueError(f"splits must be at least 2, got {self.splits}")
        if not self.tolerance >= 0:
            raise ValueError(f"tolerance must be at least 0, got {self.tolerance}")


class Setting(NamedTuple):
    """What every strategy on one benchmark shares: labels, answers, costs, and the splits.

    Use this when you write a strategy of your own.

    Attributes:
      benchmark: The benchmark.
      alphas: Risk levels to choose from.
      config: The options.
      codes: Codes of the answers, int32 `[n, m]`.
      cost: Dollars of each answer `[n, m]`; None where not known.
      confidence: Name -> how sure each model says it is, `[n, m]`.
      ties: Second keys, uint32 `[n, m + 1]`.
      random_orders: Orders drawn at random of the models, int32 `[orders, n, m]`.
      part: Part of each query in each split, 0 calibration, 1 validation, 2 test, `[s, n]`.
    """

    benchmark: Benchmark
    alphas: tuple[str, ...]
    config: VoteConfig
    codes: np.ndarray
    cost: np.ndarray | None
    confidence: dict[str, np.ndarray]
    ties: jax.Array
    random_orders: np.ndarray
    part: np.ndarray

    @property
    def correct(self) -> np.ndarray:
        """Whether each model is right, bool `[n, m]`."""
        return np.asarray(self.benchmark.test.correct)

    @property
    def in_test(self) -> np.ndarray:
        """1 where a query is in the test part of a split, float32 `[s, n]`."""
        return np.asarray(self.part == 2, np.float32)


class Scored(NamedTuple):
    """One router and score on one benchmark: sets, votes, and what validation chooses.

    Use this when you write a strategy that uses a router.

    Attributes:
      label: Name of the RACER variant.
      router: Name of the router.
      scores: The router's scores, float32 `[n, m]`.
      pool: The queries as step functions.
      table: Which votes are right, by aggregation and number of models called.
      covers: Whether some of the first k models is right, bool `[n, m + 1]`.
      costs: Dollars of the first k models, `[n, m + 1]`; None where not known.
      choice: Alpha and vote chosen within the tolerance.
      best: The best of them on validation.
      pooled: The best, its vote chosen on calibration and validation together.
    """

    label: str
    router: str
    scores: np.ndarray
    pool: Pool
    table: VoteTables
    covers: np.ndarray
    costs: np.ndarray | None
    choice: Selections
    best: Selections
    pooled: Selections


def vote_setting(key: jax.Array, benchmark: Benchmark, config: VoteConfig) -> Setting:
    """Labels, answers, costs and splits of one benchmark, for all strategies.

    Use this when a benchmark is measured by votes.
    """
    split_key, tie_key, order_key = jax.random.split(key, 3)
    test = benchmark.test
    if test.answers is None:
        raise ValueError(f"benchmark {benchmark.name!r} must have answers to vote on, got none")
    num, num_models = test.correct.shape
    ties = tie_break(tie_key, (num, num_models + 1))
    rng = np.random.default_rng(np.asarray(jax.random.key_data(order_key)))
    orders = rng.random((NUM_RANDOM_ORDERS, num, num_models)).argsort(axis=-1)
    return Setting(
        benchmark,
        parse_alphas(config.alphas),
        config,
        answer_codes(test.answers),
        known_costs(benchmark),
        # A model that gave no answer has no confidence either; it casts no vote, so what stands
        # there does not matter.
        {name: np.nan_to_num(value) for name, value in test.confidence.items()},
        ties,
        orders.astype(np.int32),
        _split_parts(split_key, benchmark, config, ties),
    )


def _split_parts(
    key: jax.Array, benchmark: Benchmark, config: VoteConfig, ties: jax.Array
) -> np.ndarray:
    """The part of each query in each split, the same whatever the models and the score."""
    num_calibration, num_validation = benchmark.part_sizes
    scores = benchmark.scores[config.router_names[0]]
    nonconformity = next(iter(SCORES.values()))(scores, config.null)
    pool = pool_steps(nonconformity, benchmark.test.correct, ties)
    # By query, not in the order of this score.
    pool = pool._replace(order=np.arange(len(scores), dtype=np.int32))
    counts = {"num_calibration": num_calibration, "num_validation": num_validation}
    return np.asarray(split_parts(key, jnp.arange(config.splits), pool, **counts))


def scored_votes(setting: Setting, router: str, score: str) -> Scored:
    """Sets and votes of one router and score, and what validation chooses.

    Use this when a strategy needs the sets of a router.
    """
    config, correct = setting.config, setting.correct
    scores = setting.benchmark.scores[router]
    nonconformity = SCORES[score](scores, config.null)
    pool = pool_steps(nonconformity, correct, setting.ties)
    table = vote_tables(
        nonconformity,
        setting.codes,
        scores,
        correct,
        setting.ties,
        confidence=setting.confidence,
        temperatures=TEMPERATURES,
    )
    order = np.asarray(model_order(nonconformity, setting.ties))
    covers = np.logical_or.accumulate(np.take_along_axis(correct, order, axis=1), axis=1)

    def chosen(tolerance: float, pooled_vote: bool = False) -> Selections:
        return select(
            setting.part,
            pool,
            table.right,
            alpha=list(setting.alphas),
            tolerance=tolerance,
            pooled_vote=pooled_vote,
        )

    return Scored(
        racer_name(ROUTERS[router], score),
        ROUTERS[router],
        scores,
        pool,
        table,
        np.pad(covers, ((0, 0), (1, 0))),
        _prefix_costs(setting, order),
        chosen(config.tolerance),
        chosen(0.0),
        chosen(0.0, pooled_vote=True),
    )


def _prefix_costs(setting: Setting, order: np.ndarray) -> np.ndarray | None:
    """Dollars by number of models called in an order, `[n, m + 1]`."""
    if setting.cost is None:
        return None
    in_order = np.take_along_axis(setting.cost, order, axis=1)
    return np.pad(np.cumsum(in_order, axis=1), ((0, 0), (1, 0)))


def majority_right(setting: Setting, order: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Whether the majority of each prefix of an order is right, `[..., n, m + 1]`.

    Use this when a strategy votes along an order.
    """
    answers = prefix_answers(order, setting.codes, scores)
    return np.asarray(voted_right(answers, setting.codes[:, None], setting.correct[:, None]))


def racer_strategies(
    setting: Setting, votes: Scored, by_chance: np.ndarray
) -> Iterator[tuple[str, Strategy]]:
    """What RACER does with one router and score, and the bounds that its sets allow.

    Use this when the variants of RACER are measured.
    """
    rows = np.arange(len(votes.scores))

    def racer(kind: str, choice: Selections) -> Strategy:
        right = votes.table.right[choice.aggregation[:, None], rows, choice.num_called]
        return of_sets(kind, choice, np.asarray(right))

    def of_sets(kind: str, choice: Selections, right: np.ndarray) -> Strategy:
        cost = None if votes.costs is None else choice.called_value(votes.costs)
        return Strategy(kind, right, choice.num_called, cost)

    label = votes.label
    yield label, racer("racer", votes.choice)
    yield f"{label}, best on validation", racer("racer", votes.best)
    yield f"{label}, best on validation, pooled vote", racer("racer", votes.pooled)
    choices = select_each(setting.part, votes.pool, votes.table.right, alpha=list(setting.alphas))
    for alpha, choice in zip(setting.alphas, choices, strict=True):
        yield f"{label}, alpha {alpha}", racer("fixed alpha", choice)
    # Sets drawn at random are of no use in practice, so they have no cost.
    chance = of_sets("bound", votes.choice, votes.choice.called_value(by_chance))
    yield f"{label}: random sets of the same sizes, majority", chance._replace(cost=None)
    coverage = votes.choice.called_value(votes.covers)
    yield f"{label}: oracle within the set", of_sets("bound", votes.choice, coverage)


def choice_counts(setting: Setting, votes: Scored, weightings: tuple[str, ...]) -> np.ndarray:
    """Share of the splits that chose each alpha and weighting, `[a, w]`.

    Use this when a figure shows what validation chose.
    """
    number = np.array([weightings.index(name) for name in votes.table.weighting])
    choice = votes.choice
    counts = np.zeros((len(setting.alphas), len(weightings)))
    np.add.at(counts, (choice.alpha, number[choice.aggregation]), 1 / len(choice.alpha))
    return counts


def _fixed(kind: str, right: np.ndarray, calls: float, cost: np.ndarray | None) -> Strategy:
    """A strategy that calls as many models for every query, whatever the split."""
    return Strategy(kind, right, np.full(len(right), float(calls)), cost)


def router_strategies(setting: Setting, votes: Scored) -> Iterator[tuple[str, Strategy]]:
    """Routing, fixed numbers of models and the full ensemble.

    Use this when RACER is compared with routers.
    """
    router, table = votes.router, votes.table
    num_models = setting.correct.shape[1]

    def dollars(num_called: int) -> np.ndarray | None:
        return None if votes.costs is None else votes.costs[:, num_called]

    yield router, _fixed("router", votes.covers[:, 1], 1, dollars(1))
    for k in TOP_K:
        if k < num_models:
            yield top_name(router, k), _fixed("ensemble", table.right[0, :, k], k, dollars(k))
    everything = (num_models, dollars(num_models))
    yield full_name(router, False), _fixed("ensemble", table.right[0, :, -1], *everything)
    names = full_name(router), pooled_name(router)
    for name, choice in zip(names, (votes.choice, votes.pooled), strict=True):
        right = table.right[choice.full_aggregation, :, -1]
        calls = np.full(len(votes.scores), float(num_models))
        yield name, Strategy("ensemble", right, calls, everything[1])


def single_strategies(setting: Setting) -> Iterator[tuple[str, Strategy]]:
    """Single models, and what needs no router.

    Use this when RACER is compared with single models.
    """
    correct, cost = setting.correct, setting.cost
    num, num_models = correct.shape

    def dollars(model: int | np.ndarray) -> np.ndarray | None:
        return None if cost is None else cost[:, model].T

    for m, name in enumerate(setting.benchmark.test.models):
        yield single_name(name), _fixed("single", correct[:, m], 1, dollars(m))
    validation = (setting.part == 1).astype(np.float32)
    best = (validation @ correct.astype(np.float32)).argmax(axis=1)
    yield (
        PICKED_SINGLE,
        Strategy("single", correct[:, best].T, np.ones(num), dollars(best)),
    )
    yield ORACLE, _fixed("bound", np.asarray(correct.any(axis=1)), 1, None)
    if num_models > 3:
        accuracy = setting.benchmark.train.correct.mean(axis=0).astype(np.float32)
        by_accuracy = np.argsort(-accuracy, kind="stable").astype(np.int32)
        order = np.broadcast_to(by_accuracy, correct.shape)
        right = majority_right(setting, order, np.broadcast_to(accuracy, correct.shape))
        costs = _prefix_costs(setting, order)
        top = None if costs is None else costs[:, 3]
        yield STATIC_TOP, _fixed("ensemble", right[:, 3], 3, top)


def known_costs(benchmark: Benchmark) -> np.ndarray | None:
    """Dollars of each answer, those not known filled with the mean of their model.

    None where a model has none.

    Use this when a strategy has costs and some are not known.
    """
    cost = benchmark.test.cost
    if cost is None or np.isnan(cost).all(axis=0).any():
        return None
    return np.where(np.isnan(cost), np.nanmean(cost, axis=0)[None], cost)
