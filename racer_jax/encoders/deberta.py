r"""DeBERTa v2 and v3: content attends to positions, and positions to content.

The logit of query i and key j is

  (q_i . k_j + q_i . kr(i - j) + k_j . qr(i - j)) / sqrt(d * number of terms),

where kr and qr project learned vectors of relative positions, and i - j is counted exactly near
zero and in logarithmic buckets beyond (He et al., "DeBERTa: Decoding-enhanced BERT with
disentangled attention", 2021, Eqs. 2-4, and the paper on DeBERTaV3, 2023). The two terms with
positions depend on i - j alone. So the relative vectors are laid out along the 2t - 1 values of i -
j, one matrix product makes all the logits, and a change of shape, not a gather, moves them into
place.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.typing import DTypeLike

from racer_jax.encoders.arithmetic import dropout, matmul_precision, product
from racer_jax.encoders.layers import (
    Layer,
    LayerNorm,
    Linear,
    Transformer,
    activation,
    attend,
    embedding,
    head_size,
    split_heads,
    split_key,
)

POSITION_TERMS = ("c2p", "p2c")


def relative_buckets(distance: np.ndarray, num_buckets: int, max_distance: int) -> np.ndarray:
    """Bucket of each signed distance.

    The distance itself up to half the buckets, logarithmic beyond.

    Use this when DeBERTa's attention needs the bucket of each distance.

    Args:
      distance: Query position minus key position, integers of any shape.
      num_buckets: Size of one side; 0 or less leaves every distance as it is.
      max_distance: The distance that falls into the last bucket; 0 or less leaves every distance as
        it is.

    Returns:
      Integers of that shape, odd in the distance.

    >>> relative_buckets(np.array([-500, -3, 0, 3, 200, 500]), 256, 512).tolist()
    [-254, -3, 0, 3, 169, 254]
    """
    if num_buckets <= 0 or max_distance <= 0:
        return distance
    middle = num_buckets // 2
    # float32, as the pretrained models were built: a rounding apart would move a boundary between
    # two buckets.
    far = np.maximum(np.abs(distance), middle).astype(np.float32)
    log_ratio = np.log(far / np.float32(middle)) / np.log(np.float32((max_distance - 1) / middle))
    bucket = (np.ceil(log_ratio * np.float32(middle - 1)) + middle).astype(np.int64)
    return np.asarray(np.where(np.abs(distance) <= middle, distance, np.sign(distance) * bucket))


def along_diagonals(x: jax.Array) -> jax.Array:
    """`out[..., i, j] = x[..., i, j - i + t - 1]` for `x` `[..., t, 2t - 1]`, by shapes alone.

    Use this when a score by distance is needed by pair of positions.
    """
    *batch, t, _ = x.shape
    flat = x.reshape(*batch, t * (2 * t - 1))
    # Element (i, j) stands at i (2t - 1) + j - i + t - 1 = i (2t - 2) + j + (t - 1): rows of 2t - 2
    # after an offset.
    if t == 1:
        return x
    window = flat[..., t - 1 : t - 1 + t * (2 * t - 2)]
    return window.reshape(*batch, t, 2 * t - 2)[..., :t]


class DisentangledSelfAttention(nnx.Module):
    """Attention with content-to-position and position-to-content terms.

    Use this when you build a DeBERTa layer by hand; `Deberta` has them all.
    """

    def __init__(self, config: Any, **types: Any) -> None:
        self.head_size = head_size(config)
        self.num_heads = int(config.num_attention_heads)
        self.rate = float(config.attention_probs_dropout_prob)
        self.position_rate = float(config.hidden_dropout_prob)
        self.terms = position_terms(config)
        width = self.num_heads * self.head_size
        self.query_proj = Linear(config.hidden_size, width, **types)
        self.key_proj = Linear(config.hidden_size, width, **types)
        self.value_proj = Linear(config.hidden_size, width, **types)
        self.shared = bool(getattr(config, "share_att_key", False))
        if config.relative_attention and not self.shared:
            if "c2p" in self.terms:
                self.pos_key_proj = Linear(config.hidden_size, width, **types)
            if "p2c" in self.terms:
                self.pos_query_proj = Linear(config.hidden_size, width, **types)

    def __call__(
        self, key: jax.Array | None, hidden: jax.Array, mask: jax.Array, relative: jax.Array | None
    ) -> jax.Array:
        """Hidden states `[b, t, hidden]`, mask, relative `[2t - 1, hidden]` to the context.

        Row r of `relative` belongs to the distance i - j = t - 1 - r.
        """
        attention_key, position_key = split_key(key, 2)
        q, k, v = (
            split_heads(p(hidden), self.num_heads)
            for p in (self.query_proj, self.key_proj, self.value_proj)
        )
        scale = (self.head_size * (1 + len(self.terms))) ** -0.5
        add = None
        if relative is not None and self.terms:
            add = self._position_logits(dropout(position_key, relative, self.position_rate), scale)
        return attend(attention_key, q * scale, k, v, mask, self.rate, add)

    def _position_logits(
        self, relative: jax.Array, scale: float
    ) -> Callable[[jax.Array, jax.Array], jax.Array]:
        """The terms with positions: a function of one example's queries and keys, `[h, t, d]`."""

        def heads(project: Linear, relative: jax.Array) -> jax.Array:
            # [h, d, 2t - 1]
            return split_heads(project(relative), self.num_heads).transpose(1, 2, 0)

        kr = qr = None
        if "c2p" in self.terms:
            kr = heads(self.key_proj if self.shared else self.pos_key_proj, relative)
        if "p2c" in self.terms:
            # Seen from key j the diagonals run the other way: column c belongs to i - j = c - (t -
            # 1).
            qr = (
                heads(self.query_proj if self.shared else self.pos_query_proj, relative[::-1])
                * scale
            )

        def logits(q: jax.Array, k: jax.Array) -> jax.Array:
            by_query = jnp.zeros(()) if kr is None else along_diagonals(product(q, kr))
            return (
                by_query
                if qr is None
                else by_query + along_diagonals(product(k, qr)).swapaxes(1, 2)
            )

        return logits


class DebertaEmbeddings(nnx.Module):
    """Word vectors, with position and token-type vectors where the configuration has them.

    Zero on padding.

    Use this when you build a DeBERTa encoder by hand; `Deberta` has them all.
    """

    def __init__(self, config: Any, **types: Any) -> None:
        width = int(getattr(config, "embedding_size", config.hidden_size))
        self.word_embeddings = embedding(config.vocab_size, width, **types)
        self.with_positions = bool(getattr(config, "position_biased_input", True))
        if self.with_positions:
            self.position_embeddings = embedding(config.max_position_embeddings, width, **types)
        self.with_types = config.type_vocab_size > 0
        if self.with_types:
            self.token_type_embeddings = embedding(config.type_vocab_size, width, **types)
        self.projected = width != config.hidden_size
        if self.projected:
            self.embed_proj = Linear(width, config.hidden_size, use_bias=False, **types)
        self.LayerNorm = LayerNorm(config.hidden_size, config.layer_norm_eps, **types)
        self.rate = float(config.hidden_dropout_prob)

    def __call__(
        self,
        key: jax.Array | None,
        input_ids: jax.Array,
        mask: jax.Array,
        token_type_ids: jax.Array | None,
    ) -> jax.Array:
        """Token ids and mask `[b, t]` to vectors `[b, t, hidden]`."""
        vectors = self.word_embeddings(input_ids)
        if self.with_positions:
            vectors = vectors + self.position_embeddings(jnp.arange(input_ids.shape[1]))[None]
        if self.with_types:
            token_types = jnp.zeros_like(input_ids) if token_type_ids is None else token_type_ids
            vectors = vectors + self.token_type_embeddings(token_types)
        if self.projected:
            vectors = self.embed_proj(vectors)
        vectors = self.LayerNorm(vectors) * mask[..., None].astype(vectors.dtype)
        return dropout(key, vectors, self.rate)


class ConvLayer(nnx.Module):
    """The convolution over neighbouring tokens in the first layer of the xlarge models of v2.

    Use this when you build an xlarge model of v2 by hand; `Deberta` has them all.
    """

    def __init__(
        self, config: Any, *, dtype: DTypeLike, param_dtype: DTypeLike, rngs: nnx.Rngs
    ) -> None:
        size = int(config.conv_kernel_size)
        if size % 2 == 0:
            raise ValueError(f"conv_kernel_size must be odd, got {size}")
        self.conv = nnx.Conv(
            config.hidden_size,
            config.hidden_size,
            size,
            padding=((size - 1) // 2,),
            feature_group_count=int(getattr(config, "conv_groups", 1)),
            dtype=dtype,
            param_dtype=param_dtype,
            precision=matmul_precision(dtype),
            preferred_element_type=jnp.float32,
            rngs=rngs,
        )
        self.activation = activation(getattr(config, "conv_act", "tanh"))
        self.LayerNorm = LayerNorm(
            config.hidden_size,
            config.layer_norm_eps,
            dtype=dtype,
            param_dtype=param_dtype,
            rngs=rngs,
        )
        self.rate = float(config.hidden_dropout_prob)
        self.dtype = dtype

    def __call__(
        self, key: jax.Array | None, inputs: jax.Array, residual: jax.Array, mask: jax.Array
    ) -> jax.Array:
        """The first layer's inputs and outputs `[b, t, hidden]` to its new outputs."""
        weight = mask[..., None].astype(self.dtype)
        out = self.activation(
            dropout(key, self.conv(inputs).astype(self.dtype) * weight, self.rate)
        )
        return self.LayerNorm(residual + out) * weight


class DebertaEncoder(nnx.Module):
    """The stack of layers, and the relative vectors they share.

    Use this when you build a DeBERTa encoder by hand; `Deberta` has them all.
    """

    def __init__(self, config: Any, **types: Any) -> None:
        self.layer = nnx.List(
            [
                Layer(DisentangledSelfAttention(config, **types), config, **types)
                for _ in range(config.num_hidden_layers)
            ]
        )
        self.relative = bool(config.relative_attention)
        norms = [
            part.strip() for part in getattr(config, "norm_rel_ebd", "none").lower().split("|")
        ]
        self.normalizes_relative = "layer_norm" in norms
        if self.relative:
            farthest = int(getattr(config, "max_relative_positions", -1))
            self.max_distance = farthest if farthest >= 1 else int(config.max_position_embeddings)
            self.num_buckets = int(getattr(config, "position_buckets", -1))
            self.span = self.num_buckets if self.num_buckets > 0 else self.max_distance
            self.rel_embeddings = embedding(2 * self.span, config.hidden_size, **types)
        if self.normalizes_relative:
            self.LayerNorm = LayerNorm(config.hidden_size, config.layer_norm_eps, **types)
        self.has_conv = int(getattr(config, "conv_kernel_size", 0)) > 0
        if self.has_conv:
            self.conv = ConvLayer(config, **types)

    def relative_vectors(self, length: int) -> jax.Array | None:
        """Vectors of the distances length - 1, ..., 1 - length, `[2 length - 1, hidden]`.

        Use this when an attention layer needs the vectors of distances.
        """
        if not self.relative:
            return None
        distance = np.arange(length - 1, -length, -1)
        buckets = relative_buckets(distance, self.num_buckets, self.max_distance)
        rows = np.clip(buckets + self.span, 0, 2 * self.span - 1)
        vectors: jax.Array = self.rel_embeddings(jnp.asarray(rows, jnp.int32))
        return self.LayerNorm(vectors) if self.normalizes_relative else vectors


class Deberta(Transformer):
    """A DeBERTa v2 or v3 encoder without heads, for a `transformers.DebertaV2Config`.

    Use this when a checkpoint is DeBERTa v2 or v3; `load_model` makes one with its weights.

    Raises:
      ValueError: If the configuration asks for what is not here: an unknown activation or kind of
        position term, a convolution of even size.
    """

    embeddings_type = DebertaEmbeddings
    encoder_type = DebertaEncoder

    @property
    def max_length(self) -> int | None:
        """The most tokens of a text; None where only distances between tokens count."""
        return super().max_length if self.embeddings.with_positions else None

    def hidden(
        self,
        key: jax.Array | None,
        input_ids: jax.Array,
        mask: jax.Array,
        token_type_ids: jax.Array | None,
    ) -> jax.Array:
        """See `Transformer`. Use this when the inputs were checked."""
        embedding_key, conv_key, *layer_keys = split_key(key, 2 + len(self.encoder.layer))
        embedded = self.embeddings(embedding_key, input_ids, mask, token_type_ids)
        relative = self.encoder.relative_vectors(input_ids.shape[1])
        states: jax.Array = embedded
        for i, (layer_key, layer) in enumerate(zip(layer_keys, self.encoder.layer, strict=True)):
            states = self.through(layer, layer_key, states, mask, relative)
            if i == 0 and self.encoder.has_conv:
                states = self.encoder.conv(conv_key, embedded, states, mask)
        return states


def position_terms(config: Any) -> tuple[str, ...]:
    """Which of `POSITION_TERMS` the configuration asks for.

    Use this when a layer of DeBERTa is built from a configuration.

    Raises:
      ValueError: If it asks for another.
    """
    relative_terms = config.pos_att_type or []
    terms = (
        [term.strip() for term in relative_terms.lower().split("|")]
        if isinstance(relative_terms, str)
        else list(relative_terms)
    )
    if unknown := sorted(set(terms) - set(POSITION_TERMS)):
        raise ValueError(f"pos_att_type must hold only {POSITION_TERMS}, got {unknown}")
    return tuple(term for term in POSITION_TERMS if term in terms)
