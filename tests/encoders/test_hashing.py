"""The hashed n-gram encoder against a hash written one code point at a time."""

import subprocess
import sys
import unicodedata

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from racer_jax.encoders import Encoder, HashedNgrams, hashing
from racer_jax.encoders.hashing import ngram_hashes

TEXTS = [
    "What is 2 + 2?",
    "如果一列火车两小时行驶一百公里,速度是多少?",
    "ＡＢＣ naïve Straße",
    "a",
    "🙂 emoji " * 40,
]


def plain_hash(gram: str) -> int:
    h = 0x811C9DC5 ^ len(gram)
    for char in gram:
        h = ((h ^ ord(char)) * 0x01000193) % 2**32
    h ^= h >> 16
    h = h * 0x85EBCA6B % 2**32
    h ^= h >> 13
    h = h * 0xC2B2AE35 % 2**32
    return h ^ (h >> 16)


def plain_encode(text: str, dim: int, sizes: tuple[int, ...]) -> np.ndarray:
    form = " " + " ".join(unicodedata.normalize("NFKC", text).casefold().split()) + " "
    counts = np.zeros(dim)
    for size in sizes:
        for i in range(len(form) - size + 1):
            h = plain_hash(form[i : i + size])
            counts[h % dim] += -1 if h >= 2**31 else 1
    values = np.sign(counts) * np.sqrt(np.abs(counts))
    return values / np.linalg.norm(values)


@given(st.text(min_size=0, max_size=12), st.integers(1, 4))
@settings(deadline=None, max_examples=50)
def test_ngram_hashes_equal_the_plain_hash(text, size):
    text = text.encode("utf-8", "ignore").decode()
    code_points = np.array([ord(c) for c in text], np.uint32)
    expected = [plain_hash(text[i : i + size]) for i in range(len(text) - size + 1)]
    assert ngram_hashes(code_points, size).tolist() == expected


@pytest.mark.parametrize(
    ("dim", "sizes"), [(256, (2, 3, 4)), (64, (1,)), (64, (9, 2, 3)), (1 << 15, (3, 2))]
)
def test_encode_equals_the_plain_loop(dim, sizes):
    embeddings = HashedNgrams(dim=dim, sizes=sizes).encode(TEXTS)
    assert embeddings.dtype == np.float32
    np.testing.assert_allclose(embeddings, [plain_encode(t, dim, sizes) for t in TEXTS], atol=1e-6)


@given(
    st.lists(st.text(min_size=1).filter(str.strip), min_size=1, max_size=9),
    st.sampled_from([2, 64, 1 << 31]),
    st.sampled_from([(2, 3), (4, 1, 3), (3, 3), (6,)]),
)
@settings(deadline=None, max_examples=90)
@example(texts=["ab"], dim=2, sizes=(1,))  # counts that cancel, of one text
@example(texts=["ab", "ab"], dim=2, sizes=(1,))
def test_sparse_counts_equal_a_plain_count(texts, dim, sizes):
    encoder = HashedNgrams(dim=dim, sizes=sizes)
    places, counts = encoder.sparse_counts(texts)
    expected = {}
    for i, text in enumerate(texts):
        form = np.array([ord(c) for c in hashing._normal_form(text)], np.uint32)
        for h in np.concatenate([ngram_hashes(form, size) for size in encoder.sizes]).tolist():
            place = i * dim + h % dim
            expected[place] = expected.get(place, 0) + (-1 if h >> 31 else 1)
    places, counts = places.tolist(), counts.tolist()
    assert places == sorted(set(places))
    assert set(places) <= set(expected)
    found = dict(zip(places, counts, strict=True))
    assert {place: found.get(place, 0) for place in expected} == expected
    if dim == 64:
        dense = np.zeros(len(texts) * dim)
        dense[places] = counts
        assert dense.tolist() == encoder.counts(texts).ravel().tolist()


def test_a_text_does_not_depend_on_its_batch(monkeypatch):
    together = HashedNgrams().encode(TEXTS)
    alone = np.concatenate([HashedNgrams().encode([text]) for text in TEXTS])
    np.testing.assert_array_equal(together, alone)
    monkeypatch.setattr("racer_jax.encoders.hashing._GROUP_CHARS", 20)
    np.testing.assert_array_equal(together, HashedNgrams().encode(TEXTS))


def test_case_width_and_spacing_do_not_matter():
    a, b = HashedNgrams().encode(["Hello  World", "ｈｅｌｌｏ world\n"])
    np.testing.assert_array_equal(a, b)


def test_similar_texts_are_near_in_english_and_chinese():
    e = HashedNgrams().encode(
        ["how fast is the train", "how fast was the train", "the capital of France"]
    )
    c = HashedNgrams().encode(["火车的速度是多少", "汽车的速度是多少", "法国的首都在哪里"])
    for near in (e @ e.T, c @ c.T):
        assert near[0, 1] > near[0, 2] + 0.3


@pytest.mark.long
def test_the_same_in_another_process():
    code = (
        "from racer_jax.encoders import HashedNgrams; import sys;"
        "sys.stdout.write(HashedNgrams(dim=64).encode(['2 + 2', '火车']).tobytes().hex())"
    )
    out = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout
    assert out == HashedNgrams(dim=64).encode(["2 + 2", "火车"]).tobytes().hex()


@pytest.mark.parametrize("side", ["left", "right"])
def test_long_text_is_cut_on_the_chosen_side_and_counted(side, caplog):
    rest = "x" * 100_000
    long = f"0123456789{rest}" if side == "right" else f"{rest}0123456789"
    a, b = HashedNgrams(max_chars=10, truncation_side=side).encode([long, "0123456789"])
    np.testing.assert_array_equal(a, b)
    assert caplog.messages == [f"1 of 2 texts were longer than 10 characters and cut on the {side}"]


def test_signed_counts_that_cancel_give_the_zero_vector():
    encoder = HashedNgrams(dim=2, sizes=(1,))
    vectors = encoder.encode([chr(97 + a) + chr(97 + b) for a in range(26) for b in range(26)])
    assert np.isfinite(vectors).all()
    assert (np.linalg.norm(vectors, axis=1) == 0).any()


def test_satisfies_the_protocol():
    assert isinstance(HashedNgrams(), Encoder)


@pytest.mark.parametrize(
    ("texts", "error", "message"),
    [
        ("one text", TypeError, r"got a single string; pass \[text\]"),
        ([], ValueError, "at least one text, got none"),
        (["a", 3], TypeError, r"texts must be strings, got int at \[1\]"),
        (["a", ""], ValueError, r"must not be empty or only white space, got '' at \[1\]"),
        (["\n\t "], ValueError, r"only white space, got '\\n\\t ' at \[0\]"),
    ],
)
def test_bad_texts(texts, error, message):
    with pytest.raises(error, match=message):
        HashedNgrams().encode(texts)


@pytest.mark.parametrize(
    ("settings_", "message"),
    [
        ({"dim": 1000}, "dim must be a power of two, at least 2, got 1000"),
        ({"sizes": ()}, r"sizes must hold at least one size, each at least 1, got \(\)"),
        ({"sizes": (0, 2)}, "each at least 1"),
        ({"max_chars": 0}, "max_chars must be at least 1, got 0"),
        (
            {"truncation_side": "middle"},
            r"truncation_side must be one of \('left', 'right'\), got 'middle'",
        ),
    ],
)
def test_bad_settings(settings_, message):
    with pytest.raises(ValueError, match=message):
        HashedNgrams(**settings_)
