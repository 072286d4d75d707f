"""Checkpoints: written, read back bit for bit, and refused with a list of what does not fit."""

import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from safetensors.numpy import load_file, save_file

from racer_jax.encoders.checkpoint import (
    INDEX_FILE,
    WEIGHTS_FILE,
    abstract_model,
    load_config,
    load_model,
    resolve,
    save_model,
)
from tests.encoders.conftest import TINY

pytestmark = pytest.mark.long


def arrays(model):
    return {
        path: np.asarray(v.get_value())
        for path, v in nnx.to_flat_state(nnx.state(model, nnx.Param))
    }


def assert_same(a, b):
    a, b = arrays(a), arrays(b)
    assert a.keys() == b.keys()
    for path in a:
        np.testing.assert_array_equal(a[path], b[path])


@pytest.fixture
def folder(tiny_bert, tmp_path):
    return shutil.copytree(tiny_bert, tmp_path / "copy")


def edit(folder, change):
    weights = load_file(folder / WEIGHTS_FILE)
    change(weights)
    save_file(
        {name: np.ascontiguousarray(array) for name, array in weights.items()},
        folder / WEIGHTS_FILE,
    )


def test_saved_and_loaded_bit_for_bit(tiny_bert, tmp_path):
    model = load_model(tiny_bert)
    save_model(model, tmp_path)
    assert_same(model, load_model(tmp_path))
    assert load_config(tmp_path).to_dict()["hidden_size"] == TINY["hidden_size"]


def test_names_and_axes_are_those_of_the_hub(tiny_bert):
    weights = load_file(tiny_bert / WEIGHTS_FILE)
    assert weights["encoder.layer.1.intermediate.dense.weight"].shape == (48, 32)
    assert weights["embeddings.LayerNorm.weight"].shape == (32,)
    model = load_model(tiny_bert)
    kernel = model.encoder.layer[1].intermediate.dense.kernel[...]
    np.testing.assert_array_equal(kernel, weights["encoder.layer.1.intermediate.dense.weight"].T)


def test_shards(tiny_bert, tmp_path):
    model = load_model(tiny_bert)
    save_model(model, tmp_path, max_shard_bytes=20_000)
    shards = sorted(tmp_path.glob("model-*.safetensors"))
    assert len(shards) > 2
    assert not (tmp_path / WEIGHTS_FILE).exists()
    assert_same(model, load_model(tmp_path))
    shards[0].unlink()
    with pytest.raises(FileNotFoundError, match=f"no {shards[0].name} in"):
        load_model(tmp_path)
    save_model(model, tmp_path)  # one file again: no index may point to shards of an earlier save
    assert not (tmp_path / INDEX_FILE).exists()
    assert_same(model, load_model(tmp_path))


def test_parameters_in_bfloat16(tiny_bert, tmp_path):
    model = load_model(tiny_bert, param_dtype=jnp.bfloat16)
    assert {array.dtype for array in arrays(model).values()} == {jnp.dtype(jnp.bfloat16)}
    save_model(model, tmp_path)
    assert_same(model, load_model(tmp_path, param_dtype=jnp.bfloat16))


def test_prefix_of_a_head_and_old_names(folder, tiny_bert):
    def change(weights):
        for name in list(weights):
            new = "bert." + name.replace("LayerNorm.weight", "LayerNorm.gamma").replace(
                "LayerNorm.bias", "LayerNorm.beta"
            )
            weights[new] = weights.pop(name)
        weights["bert.pooler.dense.weight"] = np.zeros((32, 32), np.float32)
        weights["cls.predictions.bias"] = np.zeros(60, np.float32)
        weights["bert.embeddings.position_ids"] = np.arange(64)[None]

    edit(folder, change)
    assert_same(load_model(tiny_bert), load_model(folder))


def test_every_weight_that_does_not_fit_is_listed(folder):
    def change(weights):
        del weights["embeddings.LayerNorm.bias"]
        weights["encoder.layer.7.output.dense.bias"] = np.zeros(3, np.float32)
        weights["encoder.layer.0.output.dense.weight"] = np.zeros((32, 47), np.float32)

    edit(folder, change)
    with pytest.raises(ValueError, match="do not fit the model") as error:
        load_model(folder)
    for line in (
        "1 missing:\n  embeddings.LayerNorm.bias",
        "1 surplus:\n  encoder.layer.7.output.dense.bias",
        "1 of another shape:\n  encoder.layer.0.output.dense.weight: model (32, 48), file (32, 47)",
    ):
        assert line in str(error.value)
    with pytest.raises(ValueError, match="1 missing"):
        load_model(folder, ignore=["encoder.layer.7.*"])


@pytest.mark.parametrize(
    ("content", "error", "message"),
    [
        (
            '{"model_type": "llama"}',
            ValueError,
            r"model_type must be one of \['bert', 'deberta-v2'\], got 'llama'",
        ),
        ("[]", ValueError, "model_type must be one of .*, got None"),
        ("{", ValueError, "config.json must hold JSON"),
        (None, FileNotFoundError, "no config.json in"),
    ],
)
def test_bad_config(folder, content, error, message):
    (folder / "config.json").unlink()
    if content is not None:
        (folder / "config.json").write_text(content)
    with pytest.raises(error, match=message):
        load_model(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hidden_act": "swoosh"}, "activation must be one of .*, got 'swoosh'"),
        (
            {"num_attention_heads": 5},
            "hidden_size must be a multiple of num_attention_heads, got 32 and 5",
        ),
        ({"is_decoder": True}, "a BERT decoder or cross-attention is not supported"),
        (
            {"position_embedding_type": "relative_key"},
            "position_embedding_type must be 'absolute', got 'relative_key'",
        ),
    ],
)
def test_unsupported_bert(change, message):
    from transformers import BertConfig

    with pytest.raises(ValueError, match=message):
        abstract_model(BertConfig(**(TINY | change)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"pos_att_type": ["c2p", "p2p"]},
            r"pos_att_type must hold only \('c2p', 'p2c'\), got \['p2p'\]",
        ),
        ({"conv_kernel_size": 4}, "conv_kernel_size must be odd, got 4"),
    ],
)
def test_unsupported_deberta(change, message):
    from transformers import DebertaV2Config

    with pytest.raises(ValueError, match=message):
        abstract_model(DebertaV2Config(**(TINY | {"relative_attention": True} | change)))


def test_pickles_are_not_read(folder):
    (folder / WEIGHTS_FILE).rename(folder / "pytorch_model.bin")
    with pytest.raises(
        FileNotFoundError, match=r"no model.safetensors in .*; pytorch_model.bin is a pickle"
    ):
        load_model(folder)


def test_hub_id_is_found_in_the_cache_offline(tiny_bert, tmp_path, monkeypatch):
    snapshot = tmp_path / "models--owner--name" / "snapshots" / ("0" * 40)
    shutil.copytree(tiny_bert, snapshot)
    refs = tmp_path / "models--owner--name" / "refs"
    refs.mkdir()
    (refs / "main").write_text("0" * 40)
    import huggingface_hub.constants as constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert resolve("owner/name") == snapshot
    for absent in ("owner/other", "no such folder"):
        with pytest.raises(
            FileNotFoundError, match=f"a hub id that the hub or its cache has, got '{absent}'"
        ):
            resolve(absent)


def test_remat_and_dropout_change_no_shapes(tiny_bert):
    ids, mask = jnp.array([[2, 4, 3]]), jnp.ones((1, 3))
    call = nnx.jit(lambda model, key: model(ids, mask, key=key))
    plain = call(load_model(tiny_bert), None)
    model = load_model(tiny_bert, remat=True)
    np.testing.assert_allclose(call(model, None), plain, atol=1e-6)
    noisy = call(model, jax.random.key(0))
    np.testing.assert_array_equal(noisy, call(model, jax.random.key(0)))
    assert np.abs(np.asarray(noisy - plain)).max() > 0.01


@pytest.mark.parametrize(
    ("ids", "mask", "error", "message"),
    [
        (
            np.zeros((1, 3)),
            np.ones((1, 3)),
            TypeError,
            "input_ids must be integers, got dtype float32",
        ),
        (
            np.zeros((1, 3), int),
            np.ones((1, 2)),
            ValueError,
            r"same shape \[b, t\], got \(1, 3\) and \(1, 2\)",
        ),
        (np.zeros((1, 65), int), np.ones((1, 65)), ValueError, "at most 64 tokens a row, got 65"),
    ],
)
def test_bad_inputs(tiny_bert, ids, mask, error, message):
    with pytest.raises(error, match=message):
        load_model(tiny_bert)(jnp.asarray(ids), jnp.asarray(mask))
