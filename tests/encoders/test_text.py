"""TextEncoder: batches, padding, truncation, cache, and what it refuses."""

import copy
import logging
import os
import subprocess
import sys

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st

from racer_jax.encoders import Encoder
from racer_jax.encoders.batching import bucket_batches
from racer_jax.encoders.checkpoint import load_model
from racer_jax.encoders.text import TextEncoder, pool
from tests.devices import devices

pytestmark = pytest.mark.long

TEXTS = [
    "what is two plus two ?",
    "火车 速度 多少 ?",
    "how fast is the train ?",
    "a",
    "what is two plus two ?",
]


@pytest.fixture(scope="module")
def model(tiny_bert):
    return load_model(tiny_bert)


@pytest.fixture(scope="module")
def encoder(model, tokenizer):
    return TextEncoder(model, tokenizer, batch_tokens=64)


@given(
    st.lists(st.integers(1, 40), min_size=1, max_size=60),
    st.integers(1, 300),
    st.sampled_from([1, 2, 4]),
)
@settings(deadline=None, max_examples=60)
def test_every_text_is_in_one_batch_and_whole(lengths, batch_tokens, multiple):
    tokens = [[i + 1] * length for i, length in enumerate(lengths)]
    batches = list(bucket_batches(tokens, 40, batch_tokens, 0, multiple))
    assert sorted(row for batch in batches for row in batch.rows) == list(range(len(tokens)))
    for batch in batches:
        size, length = batch.input_ids.shape
        assert size % multiple == 0
        assert size * length <= max(batch_tokens, multiple * length)
        for i, row in enumerate(batch.rows):
            assert batch.input_ids[i][batch.attention_mask[i]].tolist() == tokens[row]
        assert batch.attention_mask.any(axis=1).all()
    # Full batches have one shape for each bucket; at most one, the last, is smaller.
    shapes = {batch.input_ids.shape for batch in batches}
    assert len(shapes) <= len({length for _, length in shapes}) + 1


def test_rows_equal_one_text_at_a_time(encoder, model, tokenizer):
    embeddings = encoder.encode(TEXTS)
    assert embeddings.shape == (5, 32)
    assert embeddings.dtype == np.float32
    np.testing.assert_array_equal(embeddings[0], embeddings[4])
    call = nnx.jit(lambda model, ids: pool(model(ids, jnp.ones_like(ids)), jnp.ones_like(ids)))
    for i in (1, 3):
        ids = np.array([tokenizer(TEXTS[i])["input_ids"]])
        np.testing.assert_allclose(embeddings[i], call(model, ids)[0], atol=1e-5)
    assert isinstance(encoder, Encoder)


def test_pooling():
    rng = np.random.default_rng(0)
    hidden = rng.normal(size=(2, 3, 4)).astype(np.float32)
    mask = np.array([[1, 1, 0], [1, 0, 0]])
    mean = np.stack([hidden[0, :2].mean(0), hidden[1, 0]])
    np.testing.assert_allclose(pool(hidden, mask, "mean", normalize=False), mean, atol=1e-6)
    np.testing.assert_allclose(pool(hidden, mask, "cls", normalize=False), hidden[:, 0], atol=1e-6)
    unit = mean / np.linalg.norm(mean, axis=1, keepdims=True)
    np.testing.assert_allclose(pool(hidden, mask), unit, atol=1e-6)
    with pytest.raises(ValueError, match=r"pooling must be one of \('mean', 'cls'\), got 'max'"):
        pool(hidden, mask, "max")


def test_long_text_is_cut_on_the_chosen_side_and_counted(model, tokenizer, caplog):
    long = "two " * 25_000 + "train"  # 100,005 characters
    for side, rest in (("right", "two"), ("left", "train")):
        encoder = TextEncoder(
            model, tokenizer, max_length=16, truncation_side=side, batch_tokens=64
        )
        (row, other), num_truncated = encoder.tokenize([long, "a"])
        assert len(row) == 16
        assert (row[0], row[-1], len(other), num_truncated) == (2, 3, 3, 1)
        assert row[-2] == tokenizer.convert_tokens_to_ids(rest)
    with caplog.at_level(logging.WARNING):
        encoder.encode([long, "a"])
    assert "1 of 2 texts were longer than 16 tokens and cut on the left" in caplog.text
    assert tokenizer.truncation_side == "right"  # the caller's tokenizer is left alone


@pytest.mark.parametrize(
    ("place", "problem"),
    [("s3://bucket/cache", "is an address"), ("file", "got a file"), ("pipe", "got a pipe")],
)
def test_what_is_no_folder_of_a_cache_is_named_at_once(
    place, problem, model, tokenizer, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    os.mkfifo("pipe")
    with pytest.raises(OSError, match=problem):
        TextEncoder(model, tokenizer, cache=place)


def test_a_cache_that_cannot_be_written_to_is_named_before_work(
    model, tokenizer, tmp_path, monkeypatch
):
    kept = TextEncoder(model, tokenizer, cache=tmp_path).encode(TEXTS)
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # for root every folder is writable
    encoder = TextEncoder(model, tokenizer, cache=tmp_path)
    np.testing.assert_array_equal(encoder.encode(TEXTS), kept)  # nothing is written
    monkeypatch.setattr(encoder, "tokenize", lambda texts: pytest.fail("work before the error"))
    with pytest.raises(PermissionError, match="cannot be written to"):
        encoder.encode(["new"])


def test_cache_by_content(model, tokenizer, tmp_path, caplog):
    first = TextEncoder(model, tokenizer, batch_tokens=64, cache=tmp_path)
    embeddings, report = first.encode_with_report(TEXTS)
    assert (report.num_texts, report.num_cached, report.num_truncated) == (5, 1, 0)
    assert report.num_batches >= report.num_shapes >= 1
    assert 0 < report.padding < 1
    again = TextEncoder(model, tokenizer, batch_tokens=64, cache=tmp_path)
    for encoder in (first, again):
        cached, report = encoder.encode_with_report(["a", *TEXTS])
        assert (report.num_cached, report.num_batches, report.padding) == (6, 0, 0.0)
        np.testing.assert_array_equal(cached[1:], embeddings)
    # Other settings and other weights never share a folder.
    others = [
        TextEncoder(model, tokenizer, pooling="cls"),
        TextEncoder(model, tokenizer, max_length=32),
        TextEncoder(model, tokenizer, truncation_side="left"),
        TextEncoder(model, tokenizer, normalize=False),
    ]
    names = {other.fingerprint() for other in others} | {first.fingerprint()}
    assert len(names) == 5
    assert again.fingerprint() == first.fingerprint() == next(tmp_path.iterdir()).name
    # A damaged file costs its embeddings, not the run.
    (file,) = (tmp_path / first.fingerprint()).iterdir()
    file.write_bytes(file.read_bytes()[:100])
    fresh, report = TextEncoder(
        model, tokenizer, batch_tokens=64, cache=tmp_path
    ).encode_with_report(TEXTS)
    assert report.num_cached == 1
    assert "cannot be read and is passed over" in caplog.text
    np.testing.assert_array_equal(fresh, embeddings)


def test_weights_are_in_the_fingerprint(tiny_bert, tokenizer):
    changed = load_model(tiny_bert)
    bias = changed.encoder.layer[0].output.dense.bias
    before = TextEncoder(changed, tokenizer).fingerprint()
    bias[...] = bias[...] + 1
    assert TextEncoder(changed, tokenizer).fingerprint() != before


def test_from_pretrained_and_bfloat16(tiny_bert, encoder):
    half = TextEncoder.from_pretrained(tiny_bert, dtype=jnp.bfloat16, batch_tokens=64)
    assert half.fingerprint() != encoder.fingerprint()
    np.testing.assert_allclose(half.encode(TEXTS), encoder.encode(TEXTS), atol=0.05)


@pytest.mark.long
def test_spread_over_devices_equals_one(tiny_bert):
    code = f"""
import numpy as np
from racer_jax.encoders.text import TextEncoder, data_mesh
texts = {TEXTS!r} * 2
one = TextEncoder.from_pretrained({str(tiny_bert)!r}).encode(texts)
encoder = TextEncoder.from_pretrained({str(tiny_bert)!r}, mesh=data_mesh(), batch_tokens=64)
assert encoder.mesh.size == 4
assert np.abs(encoder.encode(texts) - one).max() < 1e-5
"""
    subprocess.run([sys.executable, "-c", code], check=True, env=devices(4))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pooling": "max"}, "pooling must be one of"),
        (
            {"truncation_side": "middle"},
            r"truncation_side must be one of \('left', 'right'\), got 'middle'",
        ),
        ({"max_length": 65}, "max_length must be between 3 and the model's 64 positions, got 65"),
        ({"batch_tokens": 0}, "batch_tokens must be at least 1, got 0"),
    ],
)
def test_bad_options(model, tokenizer, options, message):
    with pytest.raises(ValueError, match=message):
        TextEncoder(model, tokenizer, **options)


def test_tokenizer_that_does_not_fit(model, tokenizer):
    larger = copy.deepcopy(tokenizer)
    larger.add_tokens([f"word{i}" for i in range(50)])
    with pytest.raises(ValueError, match="token ids go up to 72, the weights have 60 word vectors"):
        TextEncoder(model, larger)
    other = copy.deepcopy(tokenizer)
    other.pad_token = "a"
    with pytest.raises(ValueError, match="its padding is token 7, that of the weights 0"):
        TextEncoder(model, other)
    other.pad_token = None
    with pytest.raises(ValueError, match="the tokenizer must have a padding token, got none"):
        TextEncoder(model, other)


@pytest.mark.parametrize("text", ["", " \n"])
def test_empty_text(encoder, text):
    with pytest.raises(ValueError, match=r"must not be empty or only white space, got .* at \[1\]"):
        encoder.encode(["a", text])
