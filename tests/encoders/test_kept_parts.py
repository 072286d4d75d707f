"""Tokenizer and configuration that are kept: those of `transformers`, which a second process spares."""

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import pytest

from racer_jax.encoders import kept_parts
from racer_jax.encoders.checkpoint import load_config
from racer_jax.encoders.kept_parts import FastTokenizer, load_tokenizer

pytestmark = pytest.mark.long

TEXTS = ["what is two plus two ?", "火车 速度 多少 ?", "[SEP] fast [UNK] zebra", "the " * 90]


@pytest.fixture
def kept(tmp_path):
    """A folder where compiled code is kept."""
    before = jax.config.jax_compilation_cache_dir
    jax.config.update("jax_compilation_cache_dir", str(tmp_path))
    yield tmp_path
    jax.config.update("jax_compilation_cache_dir", before)


@pytest.fixture(scope="module")
def theirs(tiny_bert):
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(tiny_bert)


@pytest.mark.parametrize("side", ["right", "left"])
def test_the_tokens_are_those_of_transformers(kept, tiny_bert, theirs, side):
    ours = load_tokenizer(tiny_bert)
    assert isinstance(ours, FastTokenizer)
    ours.truncation_side = theirs.truncation_side = side
    for options in ({"truncation": True, "max_length": 7}, {"truncation": False}):
        assert ours(TEXTS, **options)["input_ids"] == theirs(TEXTS, **options)["input_ids"]
    assert ours.get_vocab() == theirs.get_vocab()
    assert (ours.pad_token_id, ours.model_max_length) == (
        theirs.pad_token_id,
        theirs.model_max_length,
    )


def test_the_settings_are_those_of_transformers(kept, tiny_bert):
    from transformers import BertConfig

    fields = json.loads((tiny_bert / "config.json").read_text())
    for _ in range(2):  # read, and then from what was kept
        config = load_config(tiny_bert)
        assert config.to_dict() == json.loads(json.dumps(BertConfig.from_dict(fields).to_dict()))
        assert config.hidden_size == fields["hidden_size"]
        with pytest.raises(AttributeError, match="no setting 'nothing'"):
            _ = config.nothing
    assert len(list(kept.glob("racer_jax-config-*.json"))) == 1


def test_another_file_or_version_is_read_anew(kept, tiny_bert, tmp_path, monkeypatch):
    folder = tmp_path / "copy"
    folder.mkdir()
    text = (tiny_bert / "config.json").read_text()
    (folder / "config.json").write_text(text)
    load_config(folder)
    (folder / "config.json").write_text(text.replace('"hidden_size": 32', '"hidden_size": 64'))
    assert load_config(folder).hidden_size == 64
    monkeypatch.setattr(kept_parts, "_version", lambda: "another")
    load_config(folder)
    assert len(list(kept.glob("racer_jax-config-*.json"))) == 3
    for path in kept.glob("racer_jax-config-*.json"):
        path.write_text("{")
    assert load_config(folder).hidden_size == 64


def test_numbers_as_keys_are_not_kept_as_text(kept, tiny_bert):
    config = kept_parts.kept_config(tiny_bert, lambda: {"id2label": {i: "x" for i in range(12)}})
    assert config.to_dict() == {"id2label": {i: "x" for i in range(12)}}
    assert not list(kept.glob("racer_jax-config-*.json"))


def test_a_second_process_encodes_without_transformers(tmp_path, tiny_bert):
    code = (
        "import sys, jax; jax.config.update('jax_compilation_cache_dir', sys.argv[1])\n"
        "from racer_jax.encoders import TextEncoder\n"
        "encoder = TextEncoder.from_pretrained(sys.argv[2])\n"
        "vectors = encoder.encode(['what is two plus two ?', 'how fast is the train ?'])\n"
        "print(encoder.fingerprint(), vectors.tobytes().hex(), 'transformers' in sys.modules)"
    )

    def printed():
        words = [sys.executable, "-c", code, str(tmp_path), str(tiny_bert)]
        return subprocess.run(words, capture_output=True, text=True, check=True).stdout.split()

    first, second = printed(), printed()
    assert first[:2] == second[:2]
    assert (first[2], second[2]) == ("True", "False")


def test_a_full_disk_leaves_no_part_of_a_file(kept, tiny_bert, monkeypatch):
    """The first block of a large file is written, and the disk is full."""

    def half_written(path, text, *_):
        path.write_bytes(text.encode()[: len(text) // 2])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_text", half_written)
    assert load_config(tiny_bert).hidden_size == 32
    assert list(kept.iterdir()) == []


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: path.symlink_to(path)])
def test_what_is_no_file_makes_way(kept, tiny_bert, make):
    load_config(tiny_bert)
    (path,) = kept.glob("racer_jax-config-*.json")
    path.unlink()
    make(path)
    assert load_config(tiny_bert).hidden_size == 32
    assert json.loads(path.read_text())["hidden_size"] == 32
