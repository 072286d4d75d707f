r"""A simulated pool: seven models on four benchmarks that behave as the paper's do.

It is made from a key, with no download.

Each model m answers query i rightly where a latent ability exceeds a threshold:

  t_im = lambda z_i + sqrt(1 - lambda^2) (sqrt(tau) A_cm + sqrt(1 - tau) e_im)
  correct_im = (t_im > -a_m)

z is how easy the query is for every model, A_cm what model m makes of topic c, e noise; all of mean
0 and variance 1 over the queries. Topic and, in part, easiness show in the query's text, made up in
the manner of the benchmark. The thresholds a and the correlation lambda^2 are not stated but solved
for, so that every model's accuracy and the share of queries that no model answers are the published
ones.
"""

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import NamedTuple

import jax
import numpy as np

from racer_jax.data.labels import generator
from racer_jax.data.synthetic_texts import NUM_LEVELS, NUM_TOPICS, Question, questions
from racer_jax.data.table import RoutingTable

BENCHMARKS = ("gsm8k", "mmlu", "cmmlu", "arc_challenge")

# Table 1 of the paper (Hao et al. 2026, arXiv 2603.06616), the rows of the single models: accuracy
# on GSM8K, MMLU, C-MMLU, ARC-C. The order of the models is that of its Section 5.1.
ACCURACIES: Mapping[str, tuple[float, float, float, float]] = MappingProxyType(
    {
        "Mistral-7B-v0.1": (0.375, 0.621, 0.446, 0.507),
        "MetaMath-Mistral-7B": (0.751, 0.599, 0.444, 0.487),
        "Zephyr-7b-beta": (0.340, 0.596, 0.435, 0.576),
        "Chinese-Mistral-7B-v0.1": (0.427, 0.575, 0.491, 0.453),
        "Dolphin-2.6-Mistral-7b": (0.547, 0.607, 0.442, 0.537),
        "Meta-Llama-3-8B": (0.471, 0.646, 0.512, 0.505),
        "Dolphin-2.9-Llama3-8b": (0.750, 0.596, 0.439, 0.498),
    }
)
MODELS = tuple(ACCURACIES)

# Share of test questions that no model of the pool answers: counted in RouterDC's own files for the
# same seven models (datasets/split2_model7; score > 0, GSM8K score > 0.5).
ALL_WRONG_RATES: Mapping[str, float] = MappingProxyType(
    {"gsm8k": 0.162, "mmlu": 0.147, "cmmlu": 0.204, "arc_challenge": 0.276}
)

# Numbers of questions in RouterDC's test and train files.
TEST_SIZES: Mapping[str, int] = MappingProxyType(
    {"gsm8k": 1319, "mmlu": 4213, "cmmlu": 3475, "arc_challenge": 352}
)
TRAIN_SIZES: Mapping[str, int] = MappingProxyType(
    {"gsm8k": 1000, "mmlu": 2000, "cmmlu": 2000, "arc_challenge": 820}
)

# How closely a router follows the latent ability: the correlation of its signal with what decides.
QUALITIES: Mapping[str, float] = MappingProxyType({"weak": 0.2, "fair": 0.4, "strong": 0.7})

# Share of what is left of the ability once the easiness is taken out that the topic explains.
TOPIC_SHARE = 0.3
# Share of the easiness that shows in how a question is put.
SHOWN_SHARE = 0.4
# Of the answers that are not right: none at all; of the rest, the most tempting wrong one.
_NO_ANSWER_RATE, _TEMPTED_RATE = 0.03, 0.5
# The same correlation for the evaluator whose confidence is recorded, as `QUALITIES` does for
# routers.
_EVALUATOR_SEES = 0.6


class SimulatedBenchmark(NamedTuple):
    """One benchmark of the simulated pool.

    Use this when you read what `simulated_pool` returns.

    Attributes:
      train: Queries to train routers on.
      test: Queries to calibrate and test on.
      scores: Quality (`weak`, `fair`, `strong`) -> router scores of the test queries, float32
        `[n, m]` in [0, 1].
    """

    train: RoutingTable
    test: RoutingTable
    scores: Mapping[str, np.ndarray]


class Latent(NamedTuple):
    """The solved law of one benchmark.

    Use this when you look at how `simulated_pool` makes its answers.

    Attributes:
      thresholds: a_m, `[m]`.
      loading: lambda, in (0, 1).
      affinity: A_cm, what each model makes of each topic, `[topics, m]`; mean 0 and variance 1 over
        the topics.
    """

    thresholds: np.ndarray
    loading: float
    affinity: np.ndarray


def simulated_pool(
    key: jax.Array,
    *,
    test_sizes: Mapping[str, int] = TEST_SIZES,
    train_sizes: Mapping[str, int] = TRAIN_SIZES,
    qualities: Mapping[str, float] = QUALITIES,
) -> dict[str, SimulatedBenchmark]:
    """The whole simulated pool: tables with texts and answers, and router scores.

    The accuracies are those of the paper's Table 1 and the all-wrong rates those of RouterDC's
    files, both up to sampling error. Scores are noisy posteriors: P(correct | what the router saw),
    where it saw the latent ability through noise that is correlated across models, as the errors of
    one encoder are. Models that are wrong often agree on the answer; some give none. The
    confidences `p_true` and `verbal` are those of an evaluator that is better than the routers.

    Use this when you want to try the package or test your own code and have no labelled data.

    Args:
      key: A typed PRNG key; it fixes everything.
      test_sizes: Number of test queries of each benchmark wanted, at least 1.
      train_sizes: Number of train queries, for the same benchmarks.
      qualities: Name -> correlation in [0, 1) of a router's signal with the latent ability.

    Returns:
      Benchmark -> its tables and scores, in the order of `test_sizes`.

    Raises:
      TypeError: If `key` is not a typed key.
      ValueError: If a benchmark is unknown, a size below 1 or a quality outside [0, 1).

    >>> pool = simulated_pool(jax.random.key(0))
    >>> len(pool["mmlu"].test), pool["mmlu"].scores["fair"].shape
    (4213, (4213, 7))
    """
    for name in test_sizes:
        if name not in BENCHMARKS:
            raise ValueError(f"test_sizes must name benchmarks among {BENCHMARKS}, got {name!r}")
        if name not in train_sizes:
            raise ValueError(
                f"train_sizes must name the benchmarks of test_sizes, got no size for {name!r}"
            )
        if min(test_sizes[name], train_sizes[name]) < 1:
            raise ValueError(
                f"sizes must be at least 1, got {min(test_sizes[name], train_sizes[name])} for "
                f"{name!r}"
            )
    for quality, noise in qualities.items():
        if not 0 <= noise < 1:
            raise ValueError(f"qualities must be in [0, 1), got {noise} for {quality!r}")
    rng = generator(key)
    # One stream for each benchmark, whichever are asked for: the pool of one does not depend on the
    # others.
    streams = dict(zip(BENCHMARKS, rng.spawn(len(BENCHMARKS)), strict=True))
    return {
        name: _benchmark(streams[name], name, n, train_sizes[name], qualities)
        for name, n in test_sizes.items()
    }


def _benchmark(
    rng: np.random.Generator, name: str, n_test: int, n_train: int, qualities: Mapping[str, float]
) -> SimulatedBenchmark:
    column = BENCHMARKS.index(name)
    accuracies = np.array([row[column] for row in ACCURACIES.values()])
    affinity = rng.standard_normal((NUM_TOPICS, len(MODELS)))
    affinity = (affinity - affinity.mean(axis=0)) / affinity.std(axis=0)
    law = solve(accuracies, ALL_WRONG_RATES[name], affinity)
    n = n_train + n_test
    topics = rng.integers(NUM_TOPICS, size=n)
    visible = rng.standard_normal(n)
    easiness = np.sqrt(SHOWN_SHARE) * visible + np.sqrt(1 - SHOWN_SHARE) * rng.standard_normal(n)
    ability = _ability(rng, law.loading, easiness, law.affinity[topics])
    shown = (NUM_LEVELS * _normal_cdf(visible)).astype(int).clip(0, NUM_LEVELS - 1)
    levels = NUM_LEVELS - 1 - shown
    question_list = questions(rng, name, topics, levels)
    correct = ability > -law.thresholds
    answers = _answers(rng, question_list, correct)
    posterior = _posterior(rng, ability, law, _EVALUATOR_SEES)
    absent = answers == None  # noqa: E711 - elementwise
    p_true = np.where(absent, np.nan, posterior)
    verbal = np.where(np.isnan(p_true), np.nan, p_true > 0.5)

    def part(rows: slice, label: str) -> RoutingTable:
        texts = [question.text for question in question_list[rows]]
        return RoutingTable(
            ids=[f"{name}_{label}/{i + 1}" for i in range(len(texts))],
            texts=texts,
            models=MODELS,
            correct=correct[rows],
            group=[name] * len(texts),
            answers=answers[rows],
            confidence={"p_true": p_true[rows], "verbal": verbal[rows]},
            label_rule="simulated",
        )

    scores = {
        quality: _posterior(rng, ability[n_train:], law, noise)
        for quality, noise in qualities.items()
    }
    return SimulatedBenchmark(
        part(slice(n_train), "train"), part(slice(n_train, n), "test"), scores
    )


def _normal_cdf(value: np.ndarray) -> np.ndarray:
    """P(Z <= value) of a standard normal Z, float64 of any shape.

    Number by number, which takes a twentieth of a second in all: SciPy, faster by far, takes a
    fifth of a second to import.
    """
    numbers = (value * -math.sqrt(0.5)).ravel().tolist()
    return np.fromiter(map(math.erfc, numbers), np.float64, value.size).reshape(value.shape) / 2


def _ability(
    rng: np.random.Generator, loading: float, easiness: np.ndarray, topical: np.ndarray
) -> np.ndarray:
    """Draws of t, `[n, m]`, given each query's easiness and topic."""
    noise = rng.standard_normal(topical.shape)
    deviation = np.sqrt(TOPIC_SHARE) * topical + np.sqrt(1 - TOPIC_SHARE) * noise
    return np.asarray(loading * easiness[:, None] + np.sqrt(1 - loading**2) * deviation)


def _answers(
    rng: np.random.Generator, question_list: list[Question], correct: np.ndarray
) -> np.ndarray:
    """What each model answers, object `[n, m]`."""
    silent = rng.random(correct.shape) < _NO_ANSWER_RATE
    follows_bait = rng.random(correct.shape) < _TEMPTED_RATE
    other = rng.integers(1 << 30, size=correct.shape)
    answers = np.empty(correct.shape, dtype=object)
    for i, question in enumerate(question_list):
        wrong = question.wrong
        answers[i] = [
            wrong[0] if follows_bait[i, m] else wrong[other[i, m] % len(wrong)]
            for m in range(correct.shape[1])
        ]
    answers[~correct & silent] = None
    right = np.array([question.right for question in question_list], dtype=object)
    return np.where(correct, right[:, None], answers)


def _posterior(
    rng: np.random.Generator, ability: np.ndarray, law: Latent, correlation: float
) -> np.ndarray:
    """P(t > -a | seen t + sqrt(1 - seen^2) noise), float32 `[n, m]`; noise correlated as t is."""
    easiness, noise = rng.standard_normal((len(ability), 1)), rng.standard_normal(ability.shape)
    error = law.loading * easiness + np.sqrt(1 - law.loading**2) * noise
    signal = correlation * ability + np.sqrt(1 - correlation**2) * error
    posterior = _normal_cdf((law.thresholds + correlation * signal) / np.sqrt(1 - correlation**2))
    return np.asarray(posterior, dtype=np.float32)


def solve(accuracies: np.ndarray, all_wrong_rate: float, affinity: np.ndarray) -> Latent:
    """The law with these accuracies and this share of queries that no model answers.

    Given the loading, each threshold has a closed condition on its own accuracy, solved by
    bisection; the all-wrong rate then grows with the loading, which a root finder finds.

    Use this when you simulate a pool with other accuracies than those of `simulated_pool`.

    Args:
      accuracies: Accuracy of each model, in (0, 1), `[m]`.
      all_wrong_rate: Share of queries that no model answers; between what independent models give
        and 1 - max accuracy.
      affinity: A_cm, `[topics, m]`.

    Returns:
      The solved law.

    Raises:
      ValueError: If no loading gives this rate.
    """
    nodes, weights = np.polynomial.hermite_e.hermegauss(63)
    weights = weights / weights.sum()

    def law(loading: float) -> tuple[np.ndarray, float]:
        rest = np.sqrt(1 - loading**2)
        shift, noise = rest * np.sqrt(TOPIC_SHARE) * affinity, rest * np.sqrt(1 - TOPIC_SHARE)
        spread = np.sqrt(loading**2 + noise**2)
        low, high = np.full(len(accuracies), -10.0), np.full(len(accuracies), 10.0)
        for _ in range(60):
            middle = (low + high) / 2
            enough = _normal_cdf((middle + shift) / spread).mean(axis=0) >= accuracies
            low, high = np.where(enough, low, middle), np.where(enough, middle, high)
        wrong = (
            _normal_cdf(-(high + shift + loading * nodes[:, None, None]) / noise)
            .prod(axis=-1)
            .mean(axis=-1)
        )
        return high, float(weights @ wrong)

    least, most = law(0.0)[1], law(0.999)[1]
    if not least < all_wrong_rate < most:
        raise ValueError(
            f"all_wrong_rate must be in ({least:.4f}, {most:.4f}) for these accuracies, got "
            f"{all_wrong_rate}"
        )
    loading = _root(lambda loading: law(loading)[1] - all_wrong_rate, 0.0, 0.999)
    return Latent(law(loading)[0], loading, affinity)


def _root(function: Callable[[float], float], low: float, high: float) -> float:
    """Where a function crosses zero, by Brent's method: what `scipy.optimize.brentq` returns.

    SciPy's package of optimizers takes as long to import as four roots take to find.
    """
    before, here = low, high
    f_before, f_here = function(before), function(here)
    if f_before == 0.0:
        return before
    if f_here == 0.0:
        return here
    # `other` lies on the other side of zero; a step is by interpolation where that makes headway.
    other, f_other, last_step, step = 0.0, 0.0, 0.0, 0.0
    for _ in range(100):
        if (f_before < 0) != (f_here < 0):
            other, f_other = before, f_before
            last_step = step = here - before
        if abs(f_other) < abs(f_here):
            before, here, other = here, other, here
            f_before, f_here, f_other = f_here, f_other, f_here
        least = (2e-12 + 4 * np.finfo(float).eps * abs(here)) / 2
        bisection = (other - here) / 2
        if f_here == 0.0 or abs(bisection) < least:
            break
        if abs(last_step) > least and abs(f_here) < abs(f_before):
            if before == other:
                trial = -f_here * (here - before) / (f_here - f_before)
            else:
                slope = (f_before - f_here) / (before - here)
                across = (f_other - f_here) / (other - here)
                trial = -f_here * (f_other * across - f_before * slope)
                trial /= across * slope * (f_other - f_before)
            makes_headway = 2 * abs(trial) < min(abs(last_step), 3 * abs(bisection) - least)
            last_step, step = (step, trial) if makes_headway else (bisection, bisection)
        else:
            last_step = step = bisection
        before, f_before = here, f_here
        here += step if abs(step) > least else math.copysign(least, bisection)
        f_here = function(here)
    return here
