"""How long is a step of RouterDC with its encoder trained too, against PyTorch with the same loss?

    python benchmarks/train_routerdc.py

An encoder of the shape of all-MiniLM-L6-v2, or of DeBERTa-v3-base with `--model deberta`, with
random weights, both contrastive losses, AdamW on all parameters. Both sides start from the same
weights and see the same batches, positives and negatives, without dropout; the losses of the first
steps agree before anything is timed. Training goes on from call to call, so that no call begins
with an optimizer to set up. Needs the extra `parity`.
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
import lazy_loader
import numpy as np
import optax
from encode import random_deberta
from flax import nnx
from harness import Counted, needs
from jax import lax
from timing import interleaved

from racer_jax import reporting
from racer_jax.encoders.checkpoint import load_model
from racer_jax.encoders.layers import compiler_options
from racer_jax.routers.contrastive import (
    Contrast,
    Neighbors,
    contrast,
    cosines,
    draw_neighbors,
    sample_llm_loss,
    sample_sample_loss,
)
from racer_jax.routers.training import TrainState, start, update

# Imported when it is used, so that `--help` and the name of the extra come without it. So is
# `transformers`, in the functions: without torch it begins by printing that it found none.
torch = lazy_loader.load("torch")


@dataclass(frozen=True)
class Config(Counted):
    """Options of the benchmark."""

    model: Annotated[Literal["minilm", "deberta"], "shape of the encoder"] = "minilm"
    batch: Annotated[int, "rows of a batch"] = 16
    length: Annotated[int, "tokens of a row"] = 64
    steps: Annotated[int, "steps in a call"] = 8
    rounds: Annotated[int, "interleaved rounds"] = 3
    output: Annotated[Path, "folder of the results"] = Path("results/benchmarks/train_routerdc")


class Batches(NamedTuple):
    """What both sides see, `[steps, batch, ...]`."""

    ids: np.ndarray
    mask: np.ndarray
    pairs: Contrast
    neighbors: Neighbors


NUM_MODELS = 7
LEARNING_RATE, WEIGHT_DECAY = 5e-5, 0.01


def random_minilm(folder: Path) -> Path:
    """A random checkpoint of the shape of all-MiniLM-L6-v2."""
    import transformers

    torch.manual_seed(0)
    config = transformers.BertConfig(
        hidden_size=384, num_hidden_layers=6, num_attention_heads=12, intermediate_size=1536
    )
    transformers.BertModel(config, add_pooling_layer=False).save_pretrained(folder)
    return folder


def draw(config: Config) -> Batches:
    """Token ids, lengths, correctness and clusters at random."""
    rng = np.random.default_rng(0)
    shape = (config.steps, config.batch, config.length)
    mask = (
        np.arange(config.length)
        < rng.integers(config.length // 2, config.length + 1, shape[:2])[..., None]
    )
    scores = jnp.asarray(rng.random((*shape[:2], NUM_MODELS)) < 0.5, jnp.float32)
    clusters = jnp.asarray(rng.integers(0, 5, shape[:2]))
    keys = jax.random.split(jax.random.key(0), config.steps)
    return Batches(
        rng.integers(5, 20_000, shape).astype(np.int32),
        mask,
        jax.vmap(contrast)(scores),
        jax.vmap(draw_neighbors)(keys, clusters),
    )


def ours(folder: Path, batches: Batches, models: np.ndarray) -> Callable[[], np.ndarray]:
    """This package: the steps in one scan."""
    graph, encoder = nnx.split(load_model(folder))
    optimizer = optax.adamw(LEARNING_RATE, weight_decay=WEIGHT_DECAY)

    def loss(params: Any, batch: Batches, key: jax.Array) -> jax.Array:
        hidden = nnx.merge(graph, params[0])(batch.ids, batch.mask)[:, 0]
        logits = cosines(hidden, params[1])
        return sample_llm_loss(logits, batch.pairs) + sample_sample_loss(hidden, batch.neighbors)

    @partial(jax.jit, donate_argnums=0, compiler_options=compiler_options())
    def steps(state: TrainState, batches: Batches) -> tuple[TrainState, jax.Array]:
        step = lambda state, batch: update(None, state, batch, loss, optimizer)  # noqa: E731
        return lax.scan(step, state, batches)

    state = start((encoder, jnp.asarray(models)), optimizer)
    on_device = jax.tree.map(jnp.asarray, batches)

    def call() -> np.ndarray:
        nonlocal state
        state, losses = steps(state, on_device)
        jax.block_until_ready(state)
        return np.asarray(losses)

    return call


def theirs(folder: Path, batches: Batches, models: np.ndarray) -> Callable[[], np.ndarray]:
    """PyTorch: the same losses, its fused AdamW."""
    import transformers

    encoder = transformers.AutoModel.from_pretrained(folder).eval()  # eval: no dropout
    vectors = torch.nn.Parameter(torch.tensor(models))
    parameters = [p for p in [*encoder.parameters(), vectors] if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, LEARNING_RATE, weight_decay=WEIGHT_DECAY, fused=True)
    positive, negative = (torch.tensor(np.asarray(mask)) for mask in batches.pairs)
    partners = torch.tensor(
        np.concatenate([batches.neighbors.positive[..., None], batches.neighbors.negative], -1)
    )
    partners, valid = partners.long(), torch.tensor(np.asarray(batches.neighbors.valid))
    ids, mask = (
        torch.tensor(batches.ids.astype(np.int64)),
        torch.tensor(batches.mask.astype(np.int64)),
    )
    normalize = torch.nn.functional.normalize

    def loss(i: int) -> torch.Tensor:
        hidden = encoder(input_ids=ids[i], attention_mask=mask[i]).last_hidden_state[:, 0]
        unit = normalize(hidden, dim=1)
        logits = unit @ normalize(vectors, dim=1).T
        push = torch.logsumexp(logits.masked_fill(~negative[i], -1e30), dim=1, keepdim=True)
        one = ((torch.logaddexp(logits, push) - logits) * positive[i]).sum(1).mean()
        similar = torch.gather(unit @ unit.T, 1, partners[i])
        other = torch.logsumexp(similar, dim=1) - similar[:, 0]
        return one + (other * valid[i]).sum() / valid[i].sum().clamp(min=1)

    def call() -> np.ndarray:
        losses = []
        for i in range(len(ids)):
            optimizer.zero_grad()
            value = loss(i)
            value.backward()
            optimizer.step()
            losses.append(value.item())
        return np.array(losses)

    return call


def main(arguments: list[str] | None = None) -> int:
    """Runs the benchmark, prints the table and writes the results."""
    config = reporting.parse_config(
        Config, "A step of RouterDC with its encoder, against PyTorch.", arguments
    )
    needs("parity", "torch")

    import transformers

    batches = draw(config)
    with tempfile.TemporaryDirectory() as name:
        folder = (random_minilm if config.model == "minilm" else random_deberta)(Path(name))
        width = transformers.AutoConfig.from_pretrained(folder).hidden_size
        models = (0.78 * np.random.default_rng(1).normal(size=(NUM_MODELS, width))).astype(
            np.float32
        )
        variants = {
            "ours": ours(folder, batches, models),
            "PyTorch": theirs(folder, batches, models),
        }
    losses = {name: call() for name, call in variants.items()}
    error = float(np.abs(losses["ours"] - losses["PyTorch"]).max())
    if error > 1e-3:
        raise ValueError(f"the losses differ by {error:.2g}: {losses}")
    times = interleaved(variants, config.rounds)
    print(
        f"{config.model} shape, batch {config.batch} x {config.length}, losses agree to {error:.1e}"
    )
    print(
        reporting.text_table(
            ["trainer", "ms a step", "first call (s)", "ours is faster by"],
            [
                [
                    name,
                    f"{1e3 * timing.wall / config.steps:.0f}",
                    f"{timing.first:.1f}",
                    f"{timing.wall / times['ours'].wall:.2f}x",
                ]
                for name, timing in times.items()
            ],
        )
    )
    versions = {"torch": torch.__version__, "transformers": transformers.__version__}
    details = {
        "config": config,
        "environment": reporting.environment() | versions,
        "error": error,
        "times": times,
    }
    reporting.finish(
        lambda folder: reporting.write_json(folder / "results.json", details), config.output
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
