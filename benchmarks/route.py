"""How fast is a decision? One query, and queries in batches, beside scikit-learn's pipeline.

Ours: hashed n-grams (4,096 buckets of 2- to 4-grams) -> 256 columns of a truncated SVD -> MLPR (256
hidden) or KNNR (100 neighbours) -> nonconformity -> tie-break -> set -> `Decision`. Scikit-learn's:
`HashingVectorizer` -> `TfidfTransformer` -> `TruncatedSVD` -> `MLPClassifier` or
`KNeighborsClassifier`, of the same sizes, to scores alone: no set, no decision.

LLMRouter's (0.4) k-NN, SVM and MLP routers are scikit-learn estimators on embeddings of Longformer,
fetched from the hub; RouteLLM's (0.2) matrix factorisation asks an API for an embedding. Neither
routes without a network, so the estimators stand for them.

Before anything is timed: a query decided alone, in a batch, and by the package's plain functions
one after another must get the same set. Run on one core: `taskset -c 0 python benchmarks/route.py`.
"""

import os
import platform
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import jax
import numpy as np
from harness import Counted, needs, turns

from racer_jax import inverse_probability, prediction_sets, reporting
from racer_jax.core.nonconformity import TieBroken
from racer_jax.data import RoutingTable, concat, simulated_pool
from racer_jax.racer.fingerprints import question_fingerprints, question_ties
from racer_jax.racer.racer import Racer

ROUTERS = ("mlp", "knn")


@dataclass(frozen=True)
class Config(Counted):
    """Options of the benchmark."""

    train: Annotated[int, "training queries"] = 3000
    single: Annotated[int, "single queries timed"] = 1500
    batch: Annotated[int, "queries routed at once"] = 8192
    rounds: Annotated[int, "interleaved rounds"] = 5
    output: Annotated[Path, "folder of the results"] = Path("results/benchmarks/route")


def tables(num_train: int, num_test: int) -> tuple[RoutingTable, RoutingTable]:
    """Training and calibration queries of the simulated pool."""
    names = ("gsm8k", "mmlu", "arc_challenge")
    train = dict.fromkeys(names, num_train // 3)
    pool = simulated_pool(
        jax.random.key(0), train_sizes=train, test_sizes=dict.fromkeys(names, num_test // 3)
    )
    return concat([b.train for b in pool.values()]), concat([b.test for b in pool.values()])


def sklearn_pipeline(router: str, train: RoutingTable) -> Any:
    """Scikit-learn's pipeline of the same shape, fitted."""
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import HashingVectorizer, TfidfTransformer
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.neural_network import MLPClassifier
    from sklearn.pipeline import make_pipeline

    last = (
        MLPClassifier((256,), max_iter=5)
        if router == "mlp"
        else KNeighborsClassifier(100, metric="cosine", algorithm="brute")
    )
    pipeline = make_pipeline(
        HashingVectorizer(analyzer="char", ngram_range=(2, 4), n_features=4096),
        TfidfTransformer(sublinear_tf=False),
        TruncatedSVD(256, random_state=0),
        last,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # five epochs do not converge: its speed is asked for here
        return pipeline.fit(list(train.texts), train.correct.astype(int))


def agree(racer: Racer, table: RoutingTable, num: int) -> float:
    """Checks that alone, in a batch and by plain functions the sets are the same.

    Largest difference of the scores.
    """
    part = table.select(slice(0, num))
    batch = racer.route(part.texts, part.group)
    scores = np.asarray(racer.scorer.router(racer.scorer.encoder.encode(part.texts)))
    ties = question_ties(question_fingerprints(part), racer.seed, len(racer.models) + 1)
    calibration = racer.calibration
    code = calibration.codes(part.group, num)
    threshold = TieBroken(
        jax.numpy.asarray(calibration.threshold[code]),
        jax.numpy.asarray(calibration.threshold_tie[code]),
    )
    plain = prediction_sets(
        inverse_probability(scores)[:, None], threshold, jax.numpy.asarray(ties)[:, None]
    )
    differ = 0
    for i, (decision, text, group) in enumerate(zip(batch, part.texts, part.group, strict=True)):
        alone = racer.route(text, group)
        called = {part.models[j] for j in np.flatnonzero(np.asarray(plain[i, 0])[:-1])}
        differ += set(alone.models) != set(decision.models) or set(decision.models) != called
    # A margin of a rounding error may fall either way; more than that is a fault.
    if differ > num // 200:
        raise SystemExit(f"the sets disagree on {differ} of {num} queries")
    return float(np.abs(scores - batch.scores).max())


def run(num_train: int, num_single: int, num_batch: int, rounds: int) -> dict[str, Any]:
    """All the timings, interleaved."""
    train, test = tables(num_train, 1500)
    texts, groups = list(test.texts), list(test.group or ())
    many = (
        (texts * (num_batch // len(texts) + 1))[:num_batch],
        (groups * (num_batch // len(groups) + 1))[:num_batch],
    )
    racers, pipelines, worst = {}, {}, {}
    for router in ROUTERS:
        # RACER-P, which the pipeline beside it computes too.
        fitted = Racer.fit(jax.random.key(1), train, router, nonconformity="inverse_probability")
        racers[router] = fitted.calibrate(test, 0.1)
        pipelines[router] = sklearn_pipeline(router, train)
        worst[router] = agree(racers[router], test, 200)
        racers[router].route(*many)  # every shape is compiled
    single: dict[str, list[float]] = {
        f"{who} {router}": [] for router in ROUTERS for who in ("racer_jax", "scikit-learn")
    }
    batch: dict[str, list[float]] = {name: [] for name in single}
    busy: dict[str, list[float]] = {name: [] for name in single}  # the processor's time of a batch

    def timed(name: str, call: Callable[[], Any]) -> None:
        start, cpu = time.perf_counter(), time.process_time()
        call()
        batch[name].append(time.perf_counter() - start)
        busy[name].append(time.process_time() - cpu)

    for round_ in turns(range(rounds)):
        for i in range(num_single // rounds):
            at = (round_ * (num_single // rounds) + i) % len(texts)
            for router in ROUTERS:
                start = time.perf_counter()
                racers[router].route(texts[at], groups[at])
                middle = time.perf_counter()
                if i % 10 == 0:
                    pipelines[router].predict_proba([texts[at]])
                    single[f"scikit-learn {router}"].append(time.perf_counter() - middle)
                single[f"racer_jax {router}"].append(middle - start)
        for router in ROUTERS:
            timed(f"racer_jax {router}", partial(racers[router].route, *many))
            timed(f"scikit-learn {router}", partial(pipelines[router].predict_proba, many[0]))
    return {
        "num_train": len(train),
        "num_models": len(train.models),
        "mean_characters": float(np.mean([len(text) for text in texts])),
        "num_batch": num_batch,
        "cores": len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count(),
        "machine": platform.machine(),
        "largest_difference_of_scores": worst,
        "variants": {
            name: {
                "p50_ms": 1e3 * float(np.median(single[name])),
                "p99_ms": 1e3 * float(np.quantile(single[name], 0.99)),
                "queries_per_second": num_batch / float(np.median(batch[name])),
                "queries_per_cpu_second": num_batch / float(np.median(busy[name])),
                "num_single": len(single[name]),
            }
            for name in single
        },
    }


def main() -> None:
    options = reporting.parse_config(Config, "One decision, and batches, beside scikit-learn.")
    needs("bench", "sklearn")
    figures = run(options.train, options.single, options.batch, options.rounds)
    print(
        f"{figures['num_train']:,} training queries, {figures['num_models']} models, "
        f"{figures['mean_characters']:.0f} "
        f"characters a query, {figures['cores']} core(s); scores alone, batched and plain differ "
        "by at most "
        f"{max(figures['largest_difference_of_scores'].values()):.1e}\n"
    )
    rows = [
        [
            name,
            f"{v['p50_ms']:.2f} ms",
            f"{v['p99_ms']:.2f} ms",
            f"{v['queries_per_second']:,.0f}",
            f"{v['queries_per_cpu_second']:,.0f}",
        ]
        for name, v in figures["variants"].items()
    ]
    table = reporting.markdown_table(
        ["variant", "one query, median", "99%", "queries a second", "a CPU second"], rows
    )
    print(table)
    options.output.mkdir(parents=True, exist_ok=True)
    reporting.write_json(
        options.output / "results.json", {"environment": reporting.environment(), **figures}
    )
    (options.output / "table.md").write_text(table + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
