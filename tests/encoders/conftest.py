"""Small checkpoints and a small tokenizer, made once."""

import json
from pathlib import Path

import jax
import pytest

WORDS = "[PAD] [UNK] [CLS] [SEP] what is the a of two plus train fast how 2 + ? 火 车 速 度 多 少"
TINY = {
    "vocab_size": 60,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
}


@pytest.fixture(scope="session")
def tokenizer():
    """Words and Chinese characters, BERT's special tokens."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer(
        models.WordPiece({word: i for i, word in enumerate(WORDS.split())}, unk_token="[UNK]")
    )
    backend.normalizer = normalizers.BertNormalizer()
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
    )


@pytest.fixture(scope="session")
def tiny_bert(tmp_path_factory, tokenizer) -> Path:
    """A folder with a random BERT and its tokenizer."""
    from transformers import BertConfig

    from racer_jax.encoders.checkpoint import new_model, save_model

    folder = tmp_path_factory.mktemp("tiny_bert")
    save_model(new_model(jax.random.key(0), BertConfig(**TINY)), folder)
    tokenizer.save_pretrained(folder)
    assert json.loads((folder / "config.json").read_text())["model_type"] == "bert"
    return folder
