"""Studies: benchmarks split into what routers learn from and what is calibrated and tested.

Each has the scores of its routers.

`study` reads, trains and scores once; every experiment takes what it returns.
"""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

import jax
import numpy as np
from safetensors.numpy import load_file, save_file

from racer_jax._distribution import __version__
from racer_jax._files import written_whole
from racer_jax.core.nonconformity import NONCONFORMITIES, NONCONFORMITY_LABELS
from racer_jax.data import RoutingTable
from racer_jax.data.splits import PAPER, PAPER_ARC
from racer_jax.encoders import Encoder, JoinedEncoder, ReducedEncoder
from racer_jax.routers import KNNR, Router, choose_neighbors
from racer_jax.routers.base import DRAWS
from racer_jax.studies.corpora import (
    Source,
    first_of_each_group,
    read_source,
    two_parts,
    unseen_by_group,
)

EncoderName = Literal["hashed", "minilm", "both"]
ROUTERS: Mapping[str, str] = {
    "knn": "KNNR",
    "mlp": "MLPR",
    "routerdc": "RouterDC",
    "prior": "Prior",
}
# The scores of the paper, by their labels and in its order.
SCORES: Mapping[str, Callable[..., jax.Array]] = {
    NONCONFORMITY_LABELS[name]: NONCONFORMITIES[name] for name in ("gap", "inverse_probability")
}
# The risk levels of the paper.
PAPER_ALPHAS = "0.01,0.05,0.1,0.15,0.2,0.3,0.4,0.5"
# Pools of RouterBench's eleven models, by what is left out: the model that needs no help; the four
# that are right most often over all questions, which leaves the seven least accurate; the three
# that are right nine times of ten and claude-v2, which refuses to answer more than a third of the
# questions.
GPT_4 = "gpt-4-1106-preview"
ROUTERBENCH_POOLS: Mapping[str, tuple[str, ...]] = {
    "without gpt-4": (GPT_4,),
    "7 least accurate": (
        GPT_4,
        "claude-v1",
        "zero-one-ai/Yi-34B-Chat",
        "mistralai/mixtral-8x7b-chat",
    ),
    "7 weak that answer": (GPT_4, "claude-v1", "zero-one-ai/Yi-34B-Chat", "claude-v2"),
}


@dataclass(frozen=True)
class StudyConfig:
    """What every study asks for: where the queries come from, and which routers score them.

    Use this when you write a study of your own: add its options in a subclass.
    """

    data: Annotated[
        Path | None,
        "RouterDC's folder, or any file or folder that load reads; the simulated pool when not "
        "given",
    ] = None
    label_rule: Annotated[str | None, "when a graded score counts as right, e.g. 'score > 0.5'"] = (
        None
    )
    train: Annotated[
        float, "share of the questions that trains the routers, where the data is in one part"
    ] = 0.4
    encoder: Annotated[EncoderName, "embeddings: hashed n-grams, MiniLM, or both side by side"] = (
        "hashed"
    )
    routers: Annotated[
        str, "routers, listed: knn, mlp, routerdc, prior (the training accuracy)"
    ] = "knn,mlp,routerdc"
    neighbors: Annotated[
        int, "neighbours of the k-NN router; 0: chosen on the training questions"
    ] = 100
    queries: Annotated[int, "queries of each benchmark and part at most; 0 for all"] = 0
    seed: Annotated[int, "seed of everything"] = 0
    cache: Annotated[Path | None, "folder that keeps router scores and embeddings between runs"] = (
        None
    )
    # How often the routers are trained anew; a study that repeats makes it an option.
    repeats = 1

    def __post_init__(self) -> None:
        names = self.router_names
        if not names or (unknown := [name for name in names if name not in ROUTERS]):
            raise ValueError(
                f"routers must be among {tuple(ROUTERS)}, got {unknown[0] if names else 'none'!r}"
            )
        if len(set(names)) < len(names):
            raise ValueError(f"routers must differ from each other, got {self.routers!r}")
        if not 0 < self.train < 1:
            raise ValueError(f"train must be in (0, 1), got {self.train}")
        for name, least in (("neighbors", 0), ("queries", 0), ("seed", 0), ("repeats", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, got {getattr(self, name)}")

    @property
    def router_names(self) -> tuple[str, ...]:
        """The routers asked for."""
        return tuple(name for name in self.routers.replace(" ", "").split(",") if name)


class Benchmark(NamedTuple):
    """One benchmark of a study.

    Use this when you have scores of your own to put into a study, or read what a study prepared.

    Attributes:
      name: Its name.
      train: The rows of this benchmark that routers learned from; other benchmarks' rows may have
        trained them too.
      test: The rows to be calibrated, validated and tested on: one row a question, none of them
        trained on.
      scores: Router -> its scores of the test rows, float32 `[n, m]` in [0, 1].
      notes: What a reader should know of how it was made, one sentence each.
    """

    name: str
    train: RoutingTable
    test: RoutingTable
    scores: Mapping[str, np.ndarray]
    notes: tuple[str, ...]

    @property
    def part_sizes(self) -> tuple[int, int]:
        """Calibration and validation queries of a split, as in the paper.

        They are 50% and 10%, and 40% and 20% for ARC-Challenge.
        """
        small = "arc_c" in self.name.lower().replace("-", "_")
        calibration, validation, _ = PAPER_ARC if small else PAPER
        num = len(self.test)
        sizes = round(num * calibration), round(num * validation)
        if min(sizes) < 1 or sum(sizes) >= num:
            raise ValueError(
                f"benchmark {self.name!r} of {num} queries is too small: {sizes[0]} would "
                f"calibrate, {sizes[1]} "
                f"validate and {num - sum(sizes)} test, and each part needs at least one"
            )
        return sizes


def _encoder(key: jax.Array, texts: Sequence[str], config: StudyConfig) -> Encoder:
    parts: list[Encoder] = []
    if config.encoder in ("hashed", "both"):
        parts.append(ReducedEncoder.fit(key, texts))
    if config.encoder in ("minilm", "both"):
        from racer_jax.encoders.text import minilm  # takes seconds to import

        parts.append(minilm(cache=None if config.cache is None else config.cache / "embeddings"))
    return parts[0] if len(parts) == 1 else JoinedEncoder(tuple(parts))


def _fitted(
    key: jax.Array, name: str, embeddings: np.ndarray, train: RoutingTable, config: StudyConfig
) -> Router:
    if name == "knn":
        neighbors = config.neighbors or choose_neighbors(embeddings, train.correct)
        return KNNR.fit(embeddings, train.correct, min(neighbors, len(train)))
    # every training question is a neighbour: how often each model is right, whatever is asked
    if name == "prior":
        return KNNR.fit(embeddings, train.correct, len(train))
    if name == "mlp":
        from racer_jax.routers.mlp import fit_mlp

        return fit_mlp(key, embeddings, train.correct, questions=train.question_ids)[0]
    from racer_jax.routers.routerdc import fit_routerdc

    return fit_routerdc(key, embeddings, train.correct, questions=train.question_ids)[0]


def _fingerprint(
    key: jax.Array, train: RoutingTable, texts: Sequence[str], config: StudyConfig
) -> str:
    """Names everything that the scores depend on."""
    options = {name: str(getattr(config, name)) for name in ("encoder", "neighbors")}
    description = json.dumps([__version__, DRAWS, options, train.texts, list(texts), train.models])
    digest = hashlib.sha256(description.encode())
    digest.update(np.packbits(train.correct).tobytes())
    digest.update(np.asarray(jax.random.key_data(key)).tobytes())
    return digest.hexdigest()[:32]


def router_scores(
    key: jax.Array, train: RoutingTable, texts: Sequence[str], config: StudyConfig
) -> dict[str, np.ndarray]:
    """Fits every router to the training rows and scores the texts.

    What the cache has is not fitted again.

    Use this when routers are to be compared on the same texts.

    Args:
      key: A typed PRNG key; each router has its own, whichever others are asked for.
      train: The training rows.
      texts: What to score.
      config: The options.

    Returns:
      Router -> float32 `[n, m]`.

    Raises:
      ModuleNotFoundError: If an extra is not installed.
      ValueError: If there are too few training rows.
    """
    encoder_key, *router_keys = jax.random.split(key, 1 + len(ROUTERS))
    keys = dict(zip(ROUTERS, router_keys, strict=True))
    path = (
        None
        if config.cache is None
        else config.cache / f"scores-{_fingerprint(key, train, texts, config)}.safetensors"
    )
    scores: dict[str, np.ndarray] = {}
    if path is not None and path.exists():
        scores = dict(load_file(path))
    missing = [name for name in config.router_names if name not in scores]
    if missing:
        encoder = _encoder(encoder_key, train.texts, config)
        train_embeddings, embeddings = encoder.encode(train.texts), encoder.encode(texts)
        for name in missing:
            scores[name] = np.asarray(
                _fitted(keys[name], name, train_embeddings, train, config)(embeddings), np.float32
            )
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            with written_whole(path) as temporary:
                save_file(scores, temporary)
    return {name: scores[name] for name in config.router_names}


def benchmarks(key: jax.Array, source: Source, config: StudyConfig) -> list[Benchmark]:
    """Trains the routers on the training part and scores every benchmark of the rest.

    Use this when a study has one split into training and rest.

    Args:
      key: A typed PRNG key; it splits a table in one part, and trains the routers.
      source: From `read_source`.
      config: The options.

    Returns:
      One benchmark for each group.

    Raises:
      ModuleNotFoundError: If an extra is not installed.
      ValueError: If there are too few training rows.
    """
    split_key, router_key = jax.random.split(key)
    train, rest = (
        first_of_each_group(part, config.queries)
        for part in two_parts(split_key, source, config.train)
    )
    if not len(train) or not len(rest):
        raise ValueError(
            f"both parts need queries, got {len(train)} to train on and {len(rest)} to test on"
        )
    default_name = config.data.stem if config.data is not None else "all"
    if rest.group is None or train.group is None:
        train, rest = (replace(table, group=[default_name] * len(table)) for table in (train, rest))
    row_numbers = unseen_by_group(train, rest)
    texts = [text for table, _ in row_numbers.values() for text in table.texts]
    scores = router_scores(router_key, train, texts, config)
    results, start = [], 0
    for name, (table, left_out) in row_numbers.items():
        rows = slice(start, start + len(table))
        start += len(table)
        rule = table.label_rule if isinstance(table.label_rule, str) else table.label_rule[name]
        train_rows = train.select(group=name) if name in train.groups else train
        notes = tuple(filter(None, (f"right: {rule}", left_out, *table.notes)))
        results.append(
            Benchmark(name, train_rows, table, {r: s[rows] for r, s in scores.items()}, notes)
        )
    return results


def study(config: StudyConfig) -> list[Benchmark]:
    """Reads the data and makes the benchmarks of every repeat.

    The options and their seed decide everything.

    Use this when a study has several repeats.

    Args:
      config: The options.

    Returns:
      The benchmarks of the first repeat, then of the second and so on; those of one name follow
      each other's names.

    Raises:
      DataError: If a file is not what it should be.
      ModuleNotFoundError: If an extra is not installed.
      ValueError: If an option does not fit the data.
    """
    source_key, router_key, _ = _keys(config)
    source = read_source(source_key, config.data, label_rule=config.label_rule)
    if isinstance(source, RoutingTable):
        source = source.complete()
    repeats = range(config.repeats)
    return [
        b for i in repeats for b in benchmarks(jax.random.fold_in(router_key, i), source, config)
    ]


def run_key(config: StudyConfig) -> jax.Array:
    """The key of an experiment's own draws, apart from those that made its benchmarks.

    Use this when an experiment draws something of its own.
    """
    return _keys(config)[2]


def _keys(config: StudyConfig) -> jax.Array:
    return jax.random.split(jax.random.key(config.seed), 3)


def model_pools(models: Sequence[str], pools: str | None) -> dict[str, tuple[str, ...]]:
    """Pools of models by name.

    Where no pools are asked for: all models, and those pools of `ROUTERBENCH_POOLS` whose
    left-out models are among them.

    Use this when an option names pools by their models.

    Args:
      models: All models.
      pools: `name=model,model` or `name=-model,model` (all but these), several parted by `;`; `all`
        for all models.

    Raises:
      ValueError: If a pool is not written so, names a model that is not there, or holds fewer than
        two models.

    >>> model_pools(["x", "y", "z"], "all; without x=-x")
    {'all': ('x', 'y', 'z'), 'without x': ('y', 'z')}
    """
    if pools is None:
        left_out = {n: out for n, out in ROUTERBENCH_POOLS.items() if set(out) <= set(models)}
        by_name = {"all": tuple(models)}
        return by_name | {
            name: tuple(m for m in models if m not in out) for name, out in left_out.items()
        }
    by_name = {}
    for part in filter(None, (part.strip() for part in pools.split(";"))):
        name, equals, members = (piece.strip() for piece in part.partition("="))
        if not equals and name != "all":
            raise ValueError(
                f"pools must be like 'all; small=model,model; rest=-model', got {part!r}"
            )
        names = [model.strip() for model in members.removeprefix("-").split(",") if model.strip()]
        if unknown := [model for model in names if model not in models]:
            raise ValueError(
                f"pools: {name!r} must hold models among {tuple(models)}, got {unknown[0]!r}"
            )
        without = not equals or members.startswith("-")
        by_name[name] = tuple(m for m in models if (m not in names) == without)
        if len(by_name[name]) < 2:
            raise ValueError(f"pools: {name!r} must hold at least two models, got {by_name[name]}")
    return by_name


def subpool(benchmark: Benchmark, models: Sequence[str]) -> Benchmark:
    """The benchmark with some of its models.

    Scores are those of the same routers, column by column.

    Use this when a study goes over pools of models.

    Raises:
      ValueError: If a model does not exist.
    """
    columns = [benchmark.test.models.index(m) if m in benchmark.test.models else -1 for m in models]
    train, test = (table.select(models=models) for table in (benchmark.train, benchmark.test))
    return benchmark._replace(
        train=train, test=test, scores={r: s[:, columns] for r, s in benchmark.scores.items()}
    )
