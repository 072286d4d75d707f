"""All that an accelerator must show, in one command of a few minutes.

    python benchmarks/device.py [--minutes 8] [--size full|tiny] [--tests 0]

Needs the package, its dependencies and, for the tests, pytest, pytest-xdist, hypothesis, chex and
pandas; no network and no file besides this clone. First the tests of the core, the trials and the
routers run on the device. Then each line of work is computed on the CPU too and has to agree before
it is timed. The device's own memory bandwidth and matrix product are measured in the same run; the
column "share" says how much of them a line reaches. What there is no time left for is named as not
run, and each line is printed when it is done, so that a run cut short has not been for nothing.
`--size tiny` runs all of it on small shapes, on a CPU if there is nothing else.

Written: `results.json` with every figure, and `table.md`.
"""

import dataclasses
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, Literal, NamedTuple

from harness import ROOT, Counted, report, seconds

TESTS = ("tests/core", "tests/montecarlo", "tests/routers")


@dataclass(frozen=True)
class Config(Counted):
    """Options of the benchmark."""

    may_be_zero = ("tests",)
    minutes: Annotated[float, "time for all of it"] = 8.0
    size: Annotated[Literal["full", "tiny"], "shapes: full, or tiny for a dry run"] = "full"
    tests: Annotated[int, "seconds for the tests on the device; 0 leaves them out"] = 210
    workers: Annotated[int, "processes of the tests, which share the device"] = 14
    rounds: Annotated[int, "timed runs of each line, of which the median counts"] = 5


@dataclass(frozen=True)
class Sizes:
    """Shapes of the work.

    Attributes:
      splits: Splits of W1, of its stream, and of W2.
      scores: Critical scores of the long calibration.
      encode: Rows and tokens of a batch, for the shapes of MiniLM and DeBERTa.
      hidden: Divides the widths of the encoders.
      contrastive: Steps, rows and tokens of RouterDC.
      mlp: Rows, columns, seeds and epochs of MLPR.
      product: Side of the matrix product that stands for the device's peak.
      copy: Numbers of the copy that stands for its bandwidth.
    """

    splits: tuple[int, int, int]
    scores: int
    encode: tuple[tuple[int, int], tuple[int, int]]
    hidden: int
    contrastive: tuple[int, int, int]
    mlp: tuple[int, int, int, int]
    product: int
    copy: int


SIZES = {
    "full": Sizes(
        splits=(10_000, 1_000_000, 1_000),
        scores=10_000_000,
        encode=((1024, 128), (128, 256)),
        hidden=1,
        contrastive=(20, 64, 128),
        mlp=(5820, 640, 64, 10),
        product=8192,
        copy=1 << 28,
    ),
    "tiny": Sizes(
        splits=(64, 256, 16),
        scores=20_000,
        encode=((4, 16), (2, 16)),
        hidden=8,
        contrastive=(2, 4, 16),
        mlp=(160, 8, 3, 2),
        product=64,
        copy=1 << 12,
    ),
}


class Line(NamedTuple):
    """One line of the table.

    Attributes:
      work: What was done, with its size.
      agreement: What was compared with the CPU, and how far they are apart.
      first: Seconds of the first call, compilation included.
      wall: Median seconds of the later ones.
      rate: What is done in a second, in words.
      share: Share of what the device does at best, by `Peaks`; None where none is the limit.
    """

    work: str
    agreement: str
    first: float
    wall: float
    rate: str
    share: Callable[["Peaks"], str] | None = None


class Peaks(NamedTuple):
    """What the device does at best, measured here.

    Attributes:
      bandwidth: Bytes a second, read and written, of a copy.
      bfloat16: Operations a second of a square matrix product in bfloat16.
      float32: The same in float32, with all of its digits.
    """

    bandwidth: float
    bfloat16: float
    float32: float

    def __str__(self) -> str:
        return (
            f"copy {self.bandwidth / 1e12:.3g} TB/s, product {self.bfloat16 / 1e12:.3g} TFLOP/s "
            f"in bfloat16 and {self.float32 / 1e12:.3g} in float32"
        )


class Bench(NamedTuple):
    """What every section is given."""

    sizes: Sizes
    rounds: int


class DisagreementError(ValueError):
    """The device and the CPU compute different things."""


# --- the tests, in processes of their own before this one takes the device ------------------------


def run_tests(config: Config) -> dict[str, Any]:
    """Runs the tests on the device: how they ended, and in how many seconds."""
    environment = os.environ | {
        "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
        "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]).rstrip(":"),
    }
    command = [
        *(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:benchmark"),
        *("-n", str(config.workers), "--dist", "worksteal", *TESTS),
    ]
    begin = time.perf_counter()
    try:
        done = subprocess.run(
            command,
            cwd=ROOT,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=config.tests,
        )
        output, end = done.stdout, f"exit status {done.returncode}"
    except subprocess.TimeoutExpired as error:
        output = (error.stdout or b"").decode(errors="replace")
        end = f"stopped after {config.tests} s"
    lines = output.splitlines()
    return {
        "end": end,
        "seconds": time.perf_counter() - begin,
        "counts": count_tests(lines),
        "failures": [line for line in lines if line.startswith(("FAILED", "ERROR"))],
        "last": lines[-40:],
    }


def count_tests(lines: list[str]) -> dict[str, int]:
    """How many tests ended in which way: by pytest's last line, or by its dots if it was stopped.

    >>> count_tests(["..s.F.   [100%]", "1 failed, 4 passed, 1 skipped in 2.1s"])
    {'failed': 1, 'passed': 4, 'skipped': 1}
    >>> count_tests(["....   [ 50%]", ".F."])
    {'passed': 6, 'failed': 1}
    """
    summary = re.findall(r"(\d+) (passed|failed|skipped|errors?)\b", lines[-1] if lines else "")
    if summary:
        return {word: int(number) for number, word in summary}
    progress = [line.split("[")[0].strip() for line in lines]
    signs = "".join(line for line in progress if re.fullmatch(r"[.sFE]+", line))
    ways = {".": "passed", "s": "skipped", "F": "failed", "E": "errors"}
    return {way: signs.count(sign) for sign, way in ways.items() if sign in signs}


# --- timing and agreement -------------------------------------------------------------------------


def first_call(call: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds of a call that has to compile, and its result."""
    import jax

    begin = time.perf_counter()
    result = jax.block_until_ready(call())
    return time.perf_counter() - begin, result


def later_calls(call: Callable[[], Any], rounds: int) -> float:
    """Median seconds of calls after the first."""
    from timing import interleaved

    return interleaved({"it": call}, rounds)["it"].wall


def on_cpu(call: Callable[[], Any]) -> Any:
    """What the CPU computes, as NumPy arrays."""
    import jax
    import numpy as np

    with jax.default_device(jax.devices("cpu")[0]):
        return jax.tree.map(np.asarray, call())


def apart(device: Any, cpu: Any, limit: float, what: str) -> str:
    """The largest difference, in words.

    Raises:
      DisagreementError: If it is beyond the limit, or not a number.
    """
    import jax
    import numpy as np

    pairs = zip(jax.tree.leaves(device), jax.tree.leaves(cpu), strict=True)
    largest = max(
        float(np.max(np.abs(np.asarray(a, np.float64) - np.asarray(b, np.float64))))
        for a, b in pairs
    )
    if not largest <= limit:
        raise DisagreementError(f"{what}: device and CPU are {largest:.3g} apart, at most {limit}")
    return f"{what} equal" if largest == 0 else f"{what} within {largest:.1e}"


def measure_peaks(sizes: Sizes, rounds: int) -> Peaks:
    """Bandwidth of a copy and speed of a product, on the device."""
    import jax
    import jax.numpy as jnp

    x = jnp.ones(sizes.copy, jnp.float32)
    copy = jax.jit(lambda x: x + 1)
    bandwidth = 2 * x.nbytes / later_calls(partial(copy, x), rounds)
    del x
    return Peaks(bandwidth, _product(sizes, rounds, "bfloat16"), _product(sizes, rounds, "float32"))


def _product(sizes: Sizes, rounds: int, dtype: str) -> float:
    """Operations a second of a square product."""
    import jax
    import jax.numpy as jnp

    from racer_jax.encoders.arithmetic import matmul_precision

    side, number = sizes.product, jnp.dtype(dtype)
    a = jax.random.normal(jax.random.key(0), (side, side), number)
    product = jax.jit(
        lambda a: jnp.matmul(
            a, a, precision=matmul_precision(number), preferred_element_type=jnp.float32
        )
    )
    return 2 * side**3 / later_calls(lambda: product(a), rounds)


# --- the lines ------------------------------------------------------------------------------------


def split_lines(bench: Bench, name: str) -> Iterator[Line]:
    """Random splits of a workload, and as a stream."""
    import jax
    import numpy as np
    from baselines import workload

    from racer_jax.montecarlo.step_functions import pool_steps
    from racer_jax.montecarlo.trials import split_trials, stream_trials

    task = workload(name)
    pool = pool_steps(task.nonconformity, task.correct).only("risk", "size", "abstention")
    arguments: dict[str, Any] = {"num_calibration": task.num_calibration, "alpha": task.alphas}
    key, metrics = jax.random.key(0), ("risk", "size", "abstention")

    def trials(num: int, devices: Any = None) -> dict[str, np.ndarray]:
        done = split_trials(key, pool, num_trials=num, devices=devices, **arguments)
        return {metric: getattr(done, metric) for metric in metrics}

    few = min(200, bench.sizes.splits[0])
    both = apart(trials(few), trials(few, jax.devices("cpu")), 0.0, f"{few} splits")
    num = bench.sizes.splits[0 if name == "W1" else 2]
    first, _ = first_call(lambda: trials(num))
    wall = later_calls(lambda: trials(num), bench.rounds)
    size, alphas = len(task.correct), len(task.alphas)
    yield Line(
        f"{name}: {size:,} queries, {num:,} splits x {alphas} alphas",
        both,
        first,
        wall,
        f"{num / wall:,.0f} splits/s",
    )
    if name == "W1":
        many = bench.sizes.splits[1]
        stream = partial(stream_trials, key, pool, **arguments)
        first, _ = first_call(lambda: stream(num_trials=many))
        wall = later_calls(lambda: stream(num_trials=many), 1)
        yield Line(
            f"W1 as a stream: {many:,} splits", both, first, wall, f"{many / wall:,.0f} splits/s"
        )


def calibrate_lines(bench: Bench) -> Iterator[Line]:
    """Calibrations against NumPy's selection; the way of a CPU beside the device's own."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    from racer_jax import calibrate, miss_budget
    from racer_jax.core.order_statistics import select

    def line(size: int, function: Callable[[Any], Any], how: str) -> Line:
        values = np.random.default_rng(0).random(size, np.float32)
        rank = size - int(miss_budget(0.1, size))
        expected = np.partition(values, rank - 1)[rank - 1]
        critical = jnp.asarray(values)
        first, threshold = first_call(lambda: function(critical))
        both = apart(threshold, expected, 0.0, "threshold")
        wall = later_calls(lambda: function(critical), 4 * bench.rounds)
        return Line(
            f"calibrate: {size:,} scores{how}",
            both,
            first,
            wall,
            f"{size / wall:,.3g} scores/s",
            lambda peaks: (
                f"{values.nbytes / wall / peaks.bandwidth:.0%} of the bandwidth, read once"
            ),
        )

    def by_counting(critical: jax.Array) -> jax.Array:
        size = len(critical)
        rank = jnp.int32(size - int(miss_budget(0.1, size)))
        return select(critical, None, None, rank)[0]

    for size in (bench.sizes.scores // 100, bench.sizes.scores):
        yield line(size, jax.jit(lambda x: calibrate(x, 0.1)), "")
        yield line(size, jax.jit(by_counting), ", counted as on a CPU")


def encoder_shapes(sizes: Sizes) -> dict[str, Any]:
    """Configurations of the two encoders."""
    import transformers

    bert = transformers.BertConfig(
        hidden_size=384 // sizes.hidden,
        num_hidden_layers=6 if sizes.hidden == 1 else 2,
        num_attention_heads=12,
        intermediate_size=1536 // sizes.hidden,
    )
    deberta = transformers.DebertaV2Config(
        vocab_size=128_100 if sizes.hidden == 1 else 1_000,
        hidden_size=768 // sizes.hidden,
        num_hidden_layers=12 if sizes.hidden == 1 else 2,
        num_attention_heads=12,
        intermediate_size=3072 // sizes.hidden,
        max_position_embeddings=512,
        type_vocab_size=0,
        relative_attention=True,
        position_buckets=256,
        norm_rel_ebd="layer_norm",
        share_att_key=True,
        pos_att_type=["p2c", "c2p"],
        position_biased_input=False,
    )
    return {"MiniLM": bert, "DeBERTa-v3-base": deberta}


def random_batch(config: Any, rows: int, length: int) -> tuple[Any, Any]:
    """Token ids and mask, half of the rows shorter."""
    import numpy as np

    rng = np.random.default_rng(0)
    ids = rng.integers(5, min(config.vocab_size, 20_000), (rows, length)).astype(np.int32)
    lengths = np.where(np.arange(rows) % 2, length, rng.integers(length // 2, length + 1, rows))
    return ids, np.arange(length) < lengths[:, None]


def dense_operations(config: Any, rows: int, length: int) -> float:
    """Operations of the dense layers and of attention, positions of DeBERTa left out."""
    h, w = config.hidden_size, config.intermediate_size
    return config.num_hidden_layers * 2.0 * rows * length * (4 * h * h + 2 * h * w + 2 * length * h)


def embedder(config: Any, dtype: Any) -> Callable[[Any, Any], Any]:
    """A random encoder: pooled embeddings of token ids and mask."""
    import jax
    from flax import nnx

    from racer_jax.encoders.checkpoint import abstract_model, new_model
    from racer_jax.encoders.layers import compiler_options
    from racer_jax.encoders.text import pool

    # The weights are those of float32, rounded: others would be drawn for bfloat16.
    state = nnx.state(new_model(jax.random.key(0), config))
    state = jax.tree.map(lambda weight: weight.astype(dtype), state)
    graph = nnx.graphdef(abstract_model(config, dtype=dtype, param_dtype=dtype))

    @partial(jax.jit, compiler_options=compiler_options())
    def embed(state: Any, ids: jax.Array, mask: jax.Array) -> jax.Array:
        return pool(nnx.merge(graph, state)(ids, mask), mask)

    return lambda ids, mask: embed(state, ids, mask)


def encode_line(bench: Bench, name: str, config: Any, rows: int, length: int) -> Line:
    """One encoder in bfloat16, checked in float32 too."""
    import jax.numpy as jnp

    few = random_batch(config, min(rows, 8), length)
    cpu = on_cpu(lambda: embedder(config, jnp.float32)(*few))
    both = apart(embedder(config, jnp.float32)(*few), cpu, 1e-4, "float32")
    embed = embedder(config, jnp.bfloat16)
    both += ", " + apart(embed(*few), cpu, 0.05, "bfloat16")
    batch = tuple(map(jnp.asarray, random_batch(config, rows, length)))
    first, _ = first_call(lambda: embed(*batch))
    wall = later_calls(lambda: embed(*batch), bench.rounds)
    operations = dense_operations(config, rows, length)
    return Line(
        f"encode, shape of {name}, bfloat16: {rows} x {length} tokens",
        both,
        first,
        wall,
        f"{rows / wall:,.0f} texts/s",
        lambda peaks: f"{operations / wall / peaks.bfloat16:.0%} of the product in bfloat16",
    )


def encode_lines(bench: Bench) -> Iterator[Line]:
    """Both encoders."""
    shapes = encoder_shapes(bench.sizes).items()
    for (name, config), (rows, length) in zip(shapes, bench.sizes.encode, strict=True):
        yield encode_line(bench, name, config, rows, length)


def contrastive_lines(bench: Bench) -> Iterator[Line]:
    """Steps of RouterDC through an encoder of the shape of MiniLM."""
    import jax
    import jax.numpy as jnp
    import numpy as np
    import optax
    from flax import nnx
    from jax import lax

    from racer_jax.encoders.checkpoint import new_model
    from racer_jax.encoders.layers import compiler_options
    from racer_jax.routers.contrastive import (
        contrast,
        cosines,
        draw_neighbors,
        sample_llm_loss,
        sample_sample_loss,
    )
    from racer_jax.routers.training import start, update

    num, rows, length = bench.sizes.contrastive
    config = encoder_shapes(bench.sizes)["MiniLM"]
    rng = np.random.default_rng(0)
    parts = [random_batch(config, rows, length) for _ in range(num)]
    scores = jnp.asarray(rng.random((num, rows, 7)) < 0.5, jnp.float32)
    clusters = jnp.asarray(rng.integers(0, 2, (num, rows)))
    batches = (
        np.stack([ids for ids, _ in parts]),
        np.stack([mask for _, mask in parts]),
        jax.vmap(contrast)(scores),
        jax.vmap(draw_neighbors)(jax.random.split(jax.random.key(0), num), clusters),
    )
    batches = jax.tree.map(np.asarray, batches)
    models = (0.78 * rng.normal(size=(7, config.hidden_size))).astype(np.float32)
    optimizer = optax.adamw(5e-5, weight_decay=0.01)

    def trainer(batches: Any) -> Callable[[], Any]:
        graph, encoder = nnx.split(new_model(jax.random.key(0), config))

        def loss(params: Any, batch: Any, key: Any) -> jax.Array:
            ids, mask, pairs, neighbors = batch
            hidden = nnx.merge(graph, params[0])(ids, mask)[:, 0]
            logits = cosines(hidden, params[1])
            return sample_llm_loss(logits, pairs) + sample_sample_loss(hidden, neighbors)

        @partial(jax.jit, compiler_options=compiler_options())
        def steps(state: Any, batches: Any) -> Any:
            step = lambda state, batch: update(None, state, batch, loss, optimizer)  # noqa: E731
            return lax.scan(step, state, batches)

        state = start((encoder, jnp.asarray(models)), optimizer)
        on_device = jax.tree.map(jnp.asarray, batches)
        return lambda: steps(state, on_device)[1]

    few = 2
    cpu = on_cpu(lambda: trainer(jax.tree.map(lambda x: x[:few], batches))())
    train = trainer(batches)
    first, losses = first_call(train)
    both = apart(losses[:few], cpu, 1e-3, f"losses of {few} steps")
    wall = later_calls(train, bench.rounds)
    operations = 3 * num * dense_operations(config, rows, length)
    yield Line(
        f"RouterDC, shape of MiniLM, float32: {num} steps of {rows} x {length} tokens",
        both,
        first,
        wall,
        f"{1e3 * wall / num:.2f} ms a step",
        lambda peaks: f"{operations / wall / peaks.float32:.0%} of the product in float32",
    )


def mlp_lines(bench: Bench) -> Iterator[Line]:
    """MLPR for one seed and for many."""
    import jax
    import numpy as np

    from racer_jax.routers.mlp import MLPConfig, fit_mlps

    rows, dim, seeds, epochs = bench.sizes.mlp
    rng = np.random.default_rng(0)
    x = rng.normal(size=(rows, dim)).astype(np.float32)
    logits = x @ rng.normal(size=(dim, 7)) / dim**0.5
    y = rng.random((rows, 7)) < 1 / (1 + np.exp(-2 * logits))
    config = MLPConfig(max_epochs=epochs, patience=epochs)

    def fit(num: int) -> np.ndarray:
        _, reports = fit_mlps(jax.random.split(jax.random.key(0), num), x, y, config)
        return np.array([float(report.evaluations.min()) for report in reports])

    cpu = on_cpu(lambda: fit(1))
    for num in (1, seeds):
        first, losses = first_call(partial(fit, num))
        both = apart(losses[:1], cpu, 0.02, "held-out loss")
        wall = later_calls(partial(fit, num), bench.rounds)
        yield Line(
            f"MLPR: {rows:,} rows, {epochs} epochs, {num} seed{'s' * (num > 1)}",
            both,
            first,
            wall,
            f"{num / wall:,.1f} routers/s",
        )


SECTIONS: dict[str, Callable[[Bench], Iterator[Line]]] = {
    "W1": partial(split_lines, name="W1"),
    "W2": partial(split_lines, name="W2"),
    "calibrate": calibrate_lines,
    "MLPR": mlp_lines,
    "encode": encode_lines,
    "RouterDC": contrastive_lines,
}


def main(arguments: list[str] | None = None) -> int:
    """Runs all sections, prints the table and writes the results."""
    from racer_jax import reporting

    config = reporting.parse_config(Config, "All that an accelerator must show.", arguments)
    begin = time.perf_counter()
    tests = run_tests(config) if config.tests else None
    if tests is not None:
        print(f"tests on the device: {tests['counts']}, {tests['end']}", flush=True)

    import jax

    bench = Bench(SIZES[config.size], config.rounds)
    lines, failures, not_run, bytes_at_most = [], {}, [], {}
    for name, section in SECTIONS.items():
        if time.perf_counter() - begin > 60 * config.minutes:
            not_run.append(name)
            continue
        try:
            for line in section(bench):
                lines.append(line)
                times = f"{seconds(line.wall)}, the first call {seconds(line.first)}"
                print(f"{line.work}: {times}, {line.rate}; {line.agreement}", flush=True)
        except Exception as error:  # the other sections still have something to show
            failures[name] = f"{type(error).__name__}: {error}"
            print(f"{name}: {failures[name][:2000]}", flush=True)
        statistics = jax.devices()[0].memory_stats() or {}
        bytes_at_most[name] = statistics.get("peak_bytes_in_use")
    # Last, so that the memory of the sections above is theirs alone.
    peaks = measure_peaks(bench.sizes, config.rounds)
    shares = [line.share(peaks) if line.share else "" for line in lines]
    header = ["work", "agreement with the CPU", "first call", "warm", "rate", "share"]
    rows = [
        [line.work, line.agreement, seconds(line.first), seconds(line.wall), line.rate, share]
        for line, share in zip(lines, shares, strict=True)
    ]
    results = {
        "config": dataclasses.asdict(config),
        "device": jax.devices()[0].device_kind,
        "peaks": peaks._asdict(),
        "lines": [
            line._asdict() | {"share": share} for line, share in zip(lines, shares, strict=True)
        ],
        "tests": tests,
        "failures": failures,
        "not_run": not_run,
        "peak_bytes_so_far": bytes_at_most,
        "seconds": time.perf_counter() - begin,
    }
    title = f"{jax.devices()[0].device_kind}: {peaks}; median of {config.rounds};"
    report("device", title, header, rows, results)
    if not_run:
        print(f"not run, no time left: {', '.join(not_run)}")
    failed = bool(failures) or bool(not_run)
    return int(failed or (tests is not None and tests["end"] != "exit status 0"))


if __name__ == "__main__":
    sys.exit(main())
