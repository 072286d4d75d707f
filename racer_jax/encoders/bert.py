"""BERT and its kin, MiniLM among them: a transformer encoder with absolute positions.

The modules carry the names of the pretrained weights, so that `checkpoint` needs no table to
translate them.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from racer_jax.encoders.arithmetic import dropout
from racer_jax.encoders.layers import (
    Layer,
    LayerNorm,
    Linear,
    Transformer,
    attend,
    embedding,
    head_size,
    split_heads,
    split_key,
)


class BertSelfAttention(nnx.Module):
    """Scaled dot-product attention over several heads.

    Use this when you build a BERT layer by hand; `Bert` has them all.
    """

    def __init__(self, config: Any, **types: Any) -> None:
        self.head_size = head_size(config)
        self.num_heads = int(config.num_attention_heads)
        self.rate = float(config.attention_probs_dropout_prob)
        width = self.num_heads * self.head_size
        self.query = Linear(config.hidden_size, width, **types)
        self.key = Linear(config.hidden_size, width, **types)
        self.value = Linear(config.hidden_size, width, **types)

    def __call__(self, key: jax.Array | None, hidden: jax.Array, mask: jax.Array) -> jax.Array:
        """Hidden states `[b, t, hidden]`, mask `[b, t]` to context `[b, t, heads * head_size]`."""
        q, k, v = (
            split_heads(project(hidden), self.num_heads)
            for project in (self.query, self.key, self.value)
        )
        return attend(key, q * self.head_size**-0.5, k, v, mask, self.rate)


class BertEmbeddings(nnx.Module):
    """The sum of word, position and token-type vectors, normalised.

    Use this when you build a BERT encoder by hand; `Bert` has them all.
    """

    def __init__(self, config: Any, **types: Any) -> None:
        self.word_embeddings = embedding(config.vocab_size, config.hidden_size, **types)
        self.position_embeddings = embedding(
            config.max_position_embeddings, config.hidden_size, **types
        )
        self.token_type_embeddings = embedding(config.type_vocab_size, config.hidden_size, **types)
        self.LayerNorm = LayerNorm(config.hidden_size, config.layer_norm_eps, **types)
        self.rate = float(config.hidden_dropout_prob)

    def __call__(
        self, key: jax.Array | None, input_ids: jax.Array, token_type_ids: jax.Array | None
    ) -> jax.Array:
        """Token ids `[b, t]` to vectors `[b, t, hidden]`."""
        token_types = jnp.zeros_like(input_ids) if token_type_ids is None else token_type_ids
        positions = self.position_embeddings(jnp.arange(input_ids.shape[1]))[None]
        vectors = (
            self.word_embeddings(input_ids) + self.token_type_embeddings(token_types) + positions
        )
        return dropout(key, self.LayerNorm(vectors), self.rate)


class BertEncoder(nnx.Module):
    """The stack of layers. Use this when you build a BERT encoder by hand; `Bert` has them all."""

    def __init__(self, config: Any, **types: Any) -> None:
        attentions = [BertSelfAttention(config, **types) for _ in range(config.num_hidden_layers)]
        self.layer = nnx.List([Layer(attention, config, **types) for attention in attentions])


class Bert(Transformer):
    """A BERT encoder without heads, for a `transformers.BertConfig`; see `Transformer`.

    Use this when a checkpoint is BERT; `load_model` makes one with its weights.

    Raises:
      ValueError: If the configuration asks for what is not here: a decoder, cross-attention,
        relative positions, an unknown activation.
    """

    embeddings_type = BertEmbeddings
    encoder_type = BertEncoder

    def __init__(self, config: Any, **options: Any) -> None:
        _check_config(config)
        super().__init__(config, **options)

    def hidden(
        self,
        key: jax.Array | None,
        input_ids: jax.Array,
        mask: jax.Array,
        token_type_ids: jax.Array | None,
    ) -> jax.Array:
        """See `Transformer`. Use this when the inputs were checked."""
        embedding_key, *layer_keys = split_key(key, 1 + len(self.encoder.layer))
        states: jax.Array = self.embeddings(embedding_key, input_ids, token_type_ids)
        for layer_key, layer in zip(layer_keys, self.encoder.layer, strict=True):
            states = self.through(layer, layer_key, states, mask)
        return states


def _check_config(config: Any) -> None:
    position = getattr(config, "position_embedding_type", "absolute")
    if position != "absolute":
        raise ValueError(f"position_embedding_type must be 'absolute', got {position!r}")
    if getattr(config, "is_decoder", False) or getattr(config, "add_cross_attention", False):
        raise ValueError(
            "a BERT decoder or cross-attention is not supported: is_decoder and add_cross_attention"
        )
