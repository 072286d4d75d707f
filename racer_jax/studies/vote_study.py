"""The study of votes: every way of answering on the same test parts of the same splits, RACER and honest baselines.

Each split calibrates, chooses alpha and aggregation on validation, and answers its test part. Of a
way of answering is kept what it got right, query by query, so that any two can be compared in
pairs.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated

import jax
import jax.numpy as jnp
import numpy as np

from racer_jax.core.aggregation import answer_codes, model_order, prefix_answers, voted_right
from racer_jax.core.nonconformity import NullMode, tie_break
from racer_jax.core.risk_levels import parse_alphas
from racer_jax.montecarlo.step_functions import Pool, pool_steps
from racer_jax.montecarlo.trials import split_parts
from racer_jax.montecarlo.tuning import (
    TEMPERATURES,
    Selections,
    VoteTables,
    select,
    select_each,
    vote_tables,
)
from racer_jax.studies.benchmarks import (
    ROUTERS,
    SCORES,
    Benchmark,
    StudyConfig,
    model_pools,
    subpool,
)
from racer_jax.studies.strategies import (
    BEST_SINGLE,
    ORACLE,
    PICKED_SINGLE,
    STATIC_TOP,
    Measured,
    Votes,
    Way,
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
    """What every study of votes asks for."""

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


def vote_study(
    key: jax.Array,
    benchmarks: Sequence[Benchmark],
    config: VoteConfig,
    progress: Callable[[int], object],
) -> list[Votes]:
    """Every way of answering every benchmark that has answers, with every pool of models.

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
            done = []
            for number, benchmark in enumerate(repeats):
                # The splits are the same for every pool, so that pools can be compared.
                done.append(
                    _Repeat(jax.random.fold_in(key, number), subpool(benchmark, models), config)
                )
                progress(1)
            studies.append(_joined(name if pool == "all" else f"{name}, {pool}", done, config))
    return studies


def counted_votes(
    key: jax.Array,
    benchmarks: Sequence[Benchmark],
    config: VoteConfig,
    progress: Callable[[int], object],
) -> list[Votes]:
    """`vote_study` on the splits of the accuracy table, where there must be votes to count.

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
    """How often `vote_study` reports progress."""
    answered = [benchmark for benchmark in benchmarks if benchmark.test.answers is not None]
    return sum(len(model_pools(benchmark.test.models, config.pools)) for benchmark in answered)


class _Repeat:
    """Every way of answering one benchmark with the routers of one training, over random splits common to all ways."""

    def __init__(self, key: jax.Array, benchmark: Benchmark, config: VoteConfig) -> None:
        self.split_key, tie_key, order_key = jax.random.split(key, 3)
        self.benchmark, self.config = benchmark, config
        self.alphas = parse_alphas(config.alphas)
        test = benchmark.test
        self.num, self.num_models = test.correct.shape
        if test.answers is None:
            raise ValueError(f"benchmark {benchmark.name!r} must have answers to vote on, got none")
        self.codes, self.correct, self.cost = (
            answer_codes(test.answers),
            test.correct,
            known_costs(benchmark),
        )
        # A model that gave no answer has no confidence either; it casts no vote, so what stands
        # there does not matter.
        self.confidence = {name: np.nan_to_num(value) for name, value in test.confidence.items()}
        self.ties = tie_break(tie_key, (self.num, self.num_models + 1))
        rng = np.random.default_rng(np.asarray(jax.random.key_data(order_key)))
        shuffled = rng.random((NUM_RANDOM_ORDERS, self.num, self.num_models)).argsort(axis=-1)
        self.shuffled = shuffled.astype(np.int32)
        self.by_chance: dict[str, np.ndarray] = {}
        self.part: np.ndarray | None = None
        self.ways: dict[str, Measured] = {}
        self.choices: dict[str, np.ndarray] = {}
        self.weightings: tuple[str, ...] = ()
        for router in config.router_names:
            for score in SCORES:
                self._add_score(router, score)
        self._add_singles()

    def _parts(self, pool: Pool) -> np.ndarray:
        """The part of each query in each split, the same whatever the pool of models and the score."""
        if self.part is None:
            num_calibration, num_validation = self.benchmark.part_sizes
            counts = {"num_calibration": num_calibration, "num_validation": num_validation}
            # not in the order of one score
            by_query = pool._replace(order=np.arange(self.num, dtype=np.int32))
            self.part = split_parts(
                self.split_key, jnp.arange(self.config.splits), by_query, **counts
            )
            self.test = (self.part == 2).astype(np.float32)
        return self.part

    def _add(self, name: str, way: Way) -> None:
        """Measures a way of answering on the test part of every split."""
        size = self.test.sum(axis=1)

        def mean(values: np.ndarray) -> np.ndarray:
            values = np.asarray(values, np.float32)
            total = (
                self.test @ values if values.ndim == 1 else np.einsum("sn,sn->s", self.test, values)
            )
            return np.asarray(total / size, np.float64)

        right = (self.test * np.asarray(way.right, np.float32)).sum(axis=0, dtype=np.float64)
        cost = None if way.cost is None else mean(way.cost)
        self.ways[name] = Measured(way.kind, mean(way.right), mean(way.calls), cost, right)

    def _fixed(
        self, name: str, kind: str, right: np.ndarray, calls: float, cost: np.ndarray | None
    ) -> None:
        """Adds a way that calls as many models for every query, whatever the split."""
        self._add(name, Way(kind, right, np.full(self.num, float(calls)), cost))

    def _costs(self, order: np.ndarray) -> np.ndarray | None:
        """Dollars by number of models called in an order, `[n, m + 1]`."""
        if self.cost is None:
            return None
        return np.pad(
            np.cumsum(np.take_along_axis(self.cost, order, axis=1), axis=1), ((0, 0), (1, 0))
        )

    def _majority(self, order: np.ndarray, scores: np.ndarray) -> np.ndarray:
        """Whether the majority of each prefix of an order is right, `[..., n, m + 1]`."""
        voted = prefix_answers(order, self.codes, scores)
        return np.asarray(voted_right(voted, self.codes[:, None], self.correct[:, None]))

    def _add_score(self, router: str, score: str) -> None:
        """What RACER does with one router and score, and the baselines that its sets allow."""
        config, scores, label = (
            self.config,
            self.benchmark.scores[router],
            racer_name(ROUTERS[router], score),
        )
        nonconformity = SCORES[score](scores, config.null)
        pool = pool_steps(nonconformity, self.correct, self.ties)
        part = self._parts(pool)
        table = vote_tables(
            nonconformity,
            self.codes,
            scores,
            self.correct,
            self.ties,
            confidence=self.confidence,
            temperatures=TEMPERATURES,
        )
        order = np.asarray(model_order(nonconformity, self.ties))
        costs = self._costs(order)

        def add(
            name: str, kind: str, choice: Selections, right: np.ndarray, with_cost: bool = True
        ) -> None:
            cost = None if costs is None or not with_cost else choice.called_value(costs)
            self._add(name, Way(kind, right, choice.num_called, cost))

        def right_of(choice: Selections) -> np.ndarray:
            return np.asarray(
                table.right[choice.aggregation[:, None], np.arange(self.num), choice.num_called]
            )

        def chosen(tolerance: float, pooled: bool = False) -> tuple[Selections, np.ndarray]:
            alphas = list(self.alphas)
            choice = select(
                part, pool, table.right, alpha=alphas, tolerance=tolerance, pooled_vote=pooled
            )
            return choice, right_of(choice)

        choice, right = chosen(config.tolerance)
        add(label, "racer", choice, right)
        self._count_choices(label, choice, table)
        best, best_right = chosen(0.0)
        add(f"{label}, best on validation", "racer", best, best_right)
        pooled, pooled_right = chosen(0.0, pooled=True)
        add(f"{label}, best on validation, pooled vote", "racer", pooled, pooled_right)
        each = select_each(part, pool, table.right, alpha=list(self.alphas))
        for alpha, fixed in zip(self.alphas, each, strict=True):
            add(racer_name(ROUTERS[router], score, alpha), "fixed alpha", fixed, right_of(fixed))
        covers = np.logical_or.accumulate(np.take_along_axis(self.correct, order, axis=1), axis=1)
        covers = np.pad(covers, ((0, 0), (1, 0)))
        if router not in self.by_chance:
            self.by_chance[router] = self._majority(self.shuffled, scores).mean(axis=0)
        chance = f"{label}: random sets of the same sizes, majority"
        add(chance, "bound", choice, choice.called_value(self.by_chance[router]), with_cost=False)
        add(f"{label}: oracle within the set", "bound", choice, choice.called_value(covers))
        if score == next(iter(SCORES)):  # what depends on the router alone
            self._add_router(ROUTERS[router], (choice, pooled), table, covers, costs)

    def _count_choices(self, label: str, choice: Selections, table: VoteTables) -> None:
        """Share of the splits that chose each alpha and weighting."""
        self.weightings = tuple(dict.fromkeys(table.weighting))
        weighting = np.array([self.weightings.index(name) for name in table.weighting])[
            choice.aggregation
        ]
        counts = np.zeros((len(self.alphas), len(self.weightings)))
        np.add.at(counts, (choice.alpha, weighting), 1 / len(choice.alpha))
        self.choices[label] = counts

    def _add_router(
        self,
        router: str,
        choices: tuple[Selections, Selections],
        table: VoteTables,
        covers: np.ndarray,
        costs: np.ndarray | None,
    ) -> None:
        """Routing, fixed numbers of models and the full ensemble."""

        def dollars(k: int) -> np.ndarray | None:
            return None if costs is None else costs[:, k]

        self._fixed(router, "router", covers[:, 1], 1, dollars(1))
        for k in TOP_K:
            if k < self.num_models:
                self._fixed(top_name(router, k), "ensemble", table.right[0, :, k], k, dollars(k))
        everything = float(self.num_models)
        self._fixed(
            full_name(router, False), "ensemble", table.right[0, :, -1], everything, dollars(-1)
        )
        for name, choice in zip((full_name(router), pooled_name(router)), choices, strict=True):
            tuned = table.right[choice.full_aggregation, :, -1]
            self._fixed(name, "ensemble", tuned, everything, dollars(-1))

    def _add_singles(self) -> None:
        """Single models, and what needs no router."""
        correct, models, train = (
            self.correct,
            self.benchmark.test.models,
            self.benchmark.train.correct,
        )
        part = self.part
        if part is None:
            raise ValueError("routers must hold at least one router, got none")
        for m, name in enumerate(models):
            self._fixed(
                single_name(name),
                "single",
                correct[:, m],
                1,
                None if self.cost is None else self.cost[:, m],
            )
        picked = ((part == 1).astype(np.float32) @ correct.astype(np.float32)).argmax(axis=1)
        cost = None if self.cost is None else self.cost[:, picked].T
        self._add(PICKED_SINGLE, Way("single", correct[:, picked].T, np.ones(self.num), cost))
        self._fixed(ORACLE, "bound", np.asarray(correct.any(axis=1)), 1, None)
        if self.num_models > 3:
            accuracy = train.mean(axis=0).astype(np.float32)
            order = np.broadcast_to(
                np.argsort(-accuracy, kind="stable").astype(np.int32), correct.shape
            )
            right = self._majority(order, np.broadcast_to(accuracy, correct.shape))
            costs = self._costs(order)
            self._fixed(
                STATIC_TOP, "ensemble", right[:, 3], 3, None if costs is None else costs[:, 3]
            )


def known_costs(benchmark: Benchmark) -> np.ndarray | None:
    """Dollars of each answer, those not known filled with the mean of their model; None where a model has none."""
    cost = benchmark.test.cost
    if cost is None or np.isnan(cost).all(axis=0).any():
        return None
    return np.where(np.isnan(cost), np.nanmean(cost, axis=0)[None], cost)


def _joined(name: str, repeats: Sequence[_Repeat], config: VoteConfig) -> Votes:
    """The repeats as one study, queries matched by their names."""
    row = {
        query: i
        for i, query in enumerate(dict.fromkeys(q for r in repeats for q in r.benchmark.test.ids))
    }
    rows = [np.array([row[query] for query in repeat.benchmark.test.ids]) for repeat in repeats]
    seen = np.zeros(len(row))
    for repeat, numbers in zip(repeats, rows, strict=True):
        seen[numbers] += repeat.test.sum(axis=0)
    ways: dict[str, Measured] = {}
    for way, one in repeats[0].ways.items():
        own = [repeat.ways[way] for repeat in repeats]
        right = np.zeros(len(row))
        for measured, numbers in zip(own, rows, strict=True):
            right[numbers] += measured.by_query
        costs = [measured.cost for measured in own if measured.cost is not None]
        ways[way] = Measured(
            one.kind,
            np.concatenate([measured.accuracy for measured in own]),
            np.concatenate([measured.calls for measured in own]),
            np.concatenate(costs) if len(costs) == len(own) else None,
            np.divide(right, seen, out=np.full(len(row), np.nan), where=seen > 0),
        )
    first = repeats[0]
    best = max(
        (single_name(model) for model in first.benchmark.test.models),
        key=lambda name: ways[name].mean,
    )
    ways[BEST_SINGLE] = ways[best]
    calibration, validation = first.benchmark.part_sizes
    trained = len(first.benchmark.train)
    sizes = f"{calibration} calibration, {validation} validation, {first.num - calibration - validation} test queries"
    run = f"{config.repeats} trainings of the routers ({trained:,} questions) x {config.splits:,} splits: {sizes}"
    return Votes(
        name,
        tuple(first.benchmark.test.models),
        int((seen > 0).sum()),
        first.alphas,
        first.weightings,
        ways,
        {
            label: np.mean([repeat.choices[label] for repeat in repeats], axis=0)
            for label in first.choices
        },
        (run, f"best single model: {best.removeprefix('single: ')}", *first.benchmark.notes),
    )
