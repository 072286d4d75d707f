"""The parts that BERT and DeBERTa share.

Parameters may be stored in one dtype and computed in another. Softmax and LayerNorm are computed in
float32, whatever the compute dtype, and so are the sums of a product: see `arithmetic`.
"""

import functools
from collections.abc import Callable
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import lax
from jax.typing import DTypeLike

from racer_jax._programs import usual_devices
from racer_jax.encoders.arithmetic import (
    add_row,
    dense,
    dropout,
    product,
    times_row,
)

# In the place of -inf for masked logits: a row that is all padding then gives a mean and not NaN.
_MASKED = float(np.finfo(np.float32).min)

# Below this the logits of a batch stay in the cache of a CPU.
_CACHE_BYTES = 1 << 25

ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    # jax.nn.gelu takes the complementary error function, which costs three times as much.
    "gelu": lambda x: 0.5 * x * (1 + lax.erf(x * 0.5**0.5)),
    "gelu_new": jax.nn.gelu,
    "gelu_pytorch_tanh": jax.nn.gelu,
    "relu": jax.nn.relu,
    "silu": jax.nn.silu,
    "tanh": jnp.tanh,
}


def activation(name: str) -> Callable[[jax.Array], jax.Array]:
    """The activation that a configuration names.

    Use this when a layer is built from a configuration.

    Raises:
      ValueError: If there is none of that name.
    """
    if name not in ACTIVATIONS:
        raise ValueError(f"activation must be one of {sorted(ACTIVATIONS)}, got {name!r}")
    return ACTIVATIONS[name]


def compiler_options() -> dict[str, str]:
    """What `jax.jit` is given where it compiles an encoder: `compiler_options=compiler_options()`.

    On a CPU, XLA hands chains of matrix products to a library (YNN) that multiplies them a quarter
    slower than XLA's own way. An XLA that does not know the option gets none.

    Use this when you jit an encoder yourself.
    """
    return _options_of(usual_devices(local=True)[0].platform)


@functools.cache
def _options_of(platform: str) -> dict[str, str]:
    """The options of a platform; the first call asks the compiler which ones it knows."""
    options = {"xla_cpu_experimental_ynn_fusion_type": ""}
    if platform != "cpu":
        return {}
    try:
        jax.jit(lambda: 0, compiler_options=options).lower().compile()
    except jax.errors.JaxRuntimeError:
        return {}
    return options


class Linear(nnx.Linear):
    """A dense layer that accumulates in float32 and answers in its compute dtype.

    Use this when you build a layer of a transformer by hand.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        dtype: DTypeLike = jnp.float32,
        param_dtype: DTypeLike = jnp.float32,
        **kwargs: Any,
    ) -> None:
        options = {"kernel_init": nnx.initializers.normal(0.02)} | kwargs
        super().__init__(in_features, out_features, dtype=dtype, param_dtype=param_dtype, **options)

    def __call__(self, inputs: jax.Array, out_sharding: Any = None) -> jax.Array:
        """Applies the layer to the last axis."""
        out = dense(inputs.astype(self.dtype), self.kernel[...].astype(self.dtype))
        if self.bias is not None:
            out = add_row(out, self.bias[...].astype(self.dtype))
        return out.astype(self.dtype)


class LayerNorm(nnx.Module):
    """LayerNorm over the last axis, in float32 whatever the compute dtype.

    The variance is the mean of the centred squares: E[x^2] - E[x]^2 loses digits.

    Use this when you build a layer of a transformer by hand.
    """

    def __init__(
        self,
        num_features: int,
        epsilon: float,
        *,
        dtype: DTypeLike,
        param_dtype: DTypeLike,
        rngs: nnx.Rngs,
    ) -> None:
        self.scale = nnx.Param(jnp.ones(num_features, param_dtype))
        self.bias = nnx.Param(jnp.zeros(num_features, param_dtype))
        self.epsilon = epsilon
        self.dtype = dtype

    def __call__(self, x: jax.Array) -> jax.Array:
        """`[..., features]` to the same shape, in the compute dtype."""
        x = x.astype(jnp.float32)
        deviation = x - x.mean(axis=-1, keepdims=True)
        variance = jnp.square(deviation).mean(axis=-1, keepdims=True)
        normal = times_row(
            deviation * lax.rsqrt(variance + self.epsilon), self.scale[...].astype(jnp.float32)
        )
        return add_row(normal, self.bias[...].astype(jnp.float32)).astype(self.dtype)


def embedding(
    num: int, features: int, *, dtype: DTypeLike, param_dtype: DTypeLike, rngs: nnx.Rngs
) -> nnx.Embed:
    """A table of vectors, N(0, 0.02) at the start as in the pretrained models.

    Use this when a model needs vectors of tokens, positions or types.
    """
    return nnx.Embed(
        num,
        features,
        dtype=dtype,
        param_dtype=param_dtype,
        embedding_init=nnx.initializers.normal(0.02),
        rngs=rngs,
    )


def split_key(key: jax.Array | None, num: int) -> list[jax.Array | None]:
    """`num` keys, or as many times None where there is no key.

    Use this when a layer may or may not be in training.
    """
    return [None] * num if key is None else list(jax.random.split(key, num))


def split_heads(x: jax.Array, num_heads: int) -> jax.Array:
    """`[..., t, h * d]` to `[..., t, h, d]`.

    Use this when attention is computed over several heads.
    """
    return x.reshape(*x.shape[:-1], num_heads, -1)


def over_batch(function: Callable[..., jax.Array], *args: Any, bytes_each: int) -> jax.Array:
    """Maps a function of one example over the leading axis.

    A CPU goes example by example where what the function holds for all of them, `bytes_each` a
    piece, does not fit into its cache; anything else takes the batch at once.

    Use this when a layer is written for one example.
    """
    at_once = jax.vmap(function)
    if args[0].shape[0] * bytes_each <= _CACHE_BYTES:
        return at_once(*args)
    result: jax.Array = lax.platform_dependent(
        *args,
        cpu=lambda *args: lax.map(lambda example: function(*example), args),
        default=at_once,
    )
    return result


def attend(
    key: jax.Array | None,
    query: jax.Array,
    keys: jax.Array,
    values: jax.Array,
    mask: jax.Array,
    rate: float,
    position_logits: Callable[[jax.Array, jax.Array], jax.Array] | None = None,
) -> jax.Array:
    """Softmax over the keys that count, times the values.

    Use this when queries, keys and values of all heads are there.

    Args:
      key: PRNG key of the dropout, or None.
      query: Scaled queries `[b, t, h, d]`.
      keys: `[b, t, h, d]`.
      values: `[b, t, h, d]`.
      mask: bool `[b, t]`, which positions are text and not padding.
      rate: Dropout rate of the attention.
      position_logits: Function of one example's queries and keys, `[h, t, d]` both, to logits
        `[h, t, t]` to add.

    Returns:
      `[b, t, h * d]` in the dtype of the values.
    """

    def example(
        q: jax.Array, k: jax.Array, v: jax.Array, mask: jax.Array, *key: jax.Array
    ) -> jax.Array:
        q, k, v = (x.swapaxes(0, 1) for x in (q, k, v))
        logits = product(q, k.swapaxes(1, 2))
        if position_logits is not None:
            logits = logits + position_logits(q, k)
        logits = jnp.where(mask[None, None, :], logits, _MASKED)
        weights = jnp.exp(logits - lax.stop_gradient(logits.max(axis=-1, keepdims=True)))
        total = weights.sum(axis=-1, keepdims=True)
        weights = dropout(key[0] if key else None, weights, rate)
        # Divided after the product: t x d numbers instead of t x t.
        context = product(weights.astype(v.dtype), v) / total
        return context.astype(v.dtype).swapaxes(0, 1)

    batch = query.shape[0]
    split = () if key is None or rate == 0 else (jax.random.split(key, batch),)
    length, num_heads = query.shape[1:3]
    logits_bytes = 4 * num_heads * length**2
    context = over_batch(example, query, keys, values, mask, *split, bytes_each=logits_bytes)
    return context.reshape(*context.shape[:2], -1)


def rematerialized(layer: Any, *args: Any) -> Any:
    """Calls a layer so that the backward pass computes its inner values again.

    Use this when a training step must fit into less memory.
    """
    graph, state = nnx.split(layer)

    @jax.checkpoint
    def call(state: Any, *args: Any) -> Any:
        return nnx.merge(graph, state)(*args)

    return call(state, *args)


def check_inputs(input_ids: jax.Array, attention_mask: jax.Array, max_length: int | None) -> None:
    """Token ids and mask.

    Integers `[b, t]` of one shape, no longer than the positions the model has.

    Use this when a model is called with token ids.

    Raises:
      TypeError: If the ids are not integers.
      ValueError: If the shapes do not fit.
    """
    if not jnp.issubdtype(input_ids.dtype, jnp.integer):
        raise TypeError(f"input_ids must be integers, got dtype {input_ids.dtype}")
    if input_ids.ndim != 2 or input_ids.shape != attention_mask.shape:
        raise ValueError(
            "input_ids and attention_mask must have the same shape [b, t], got "
            f"{input_ids.shape} and {attention_mask.shape}"
        )
    if max_length is not None and input_ids.shape[1] > max_length:
        raise ValueError(
            f"input_ids must have at most {max_length} tokens a row, got {input_ids.shape[1]}"
        )


class ResidualOutput(nnx.Module):
    """Dense layer, dropout, and LayerNorm over the sum with the residual.

    Use this when you build a layer of a transformer by hand.
    """

    def __init__(self, in_features: int, config: Any, **types: Any) -> None:
        self.dense = Linear(in_features, config.hidden_size, **types)
        self.LayerNorm = LayerNorm(config.hidden_size, config.layer_norm_eps, **types)
        self.rate = float(config.hidden_dropout_prob)

    def __call__(self, key: jax.Array | None, x: jax.Array, residual: jax.Array) -> jax.Array:
        """`[b, t, in]` and `[b, t, hidden]` to `[b, t, hidden]`."""
        return self.LayerNorm(dropout(key, self.dense(x), self.rate) + residual)


class Intermediate(nnx.Module):
    """The wide dense layer and its activation.

    Use this when you build a layer of a transformer by hand.
    """

    def __init__(self, config: Any, **types: Any) -> None:
        self.dense = Linear(config.hidden_size, config.intermediate_size, **types)
        self.activation = activation(config.hidden_act)

    def __call__(self, x: jax.Array) -> jax.Array:
        """`[b, t, hidden]` to `[b, t, intermediate]`."""
        return self.activation(self.dense(x))


class Attention(nnx.Module):
    """Self-attention and its output.

    `self` and `output` are the names of the pretrained weights.

    Use this when you build a layer of a transformer by hand.
    """

    def __init__(self, self_attention: Any, config: Any, **types: Any) -> None:
        self.self = self_attention
        self.output = ResidualOutput(
            config.num_attention_heads * self_attention.head_size, config, **types
        )


class Layer(nnx.Module):
    """One transformer layer.

    Self-attention, then two dense layers, each with a residual and LayerNorm after it.

    Use this when you build a layer of a transformer by hand.
    """

    def __init__(self, self_attention: nnx.Module, config: Any, **types: Any) -> None:
        self.attention = Attention(self_attention, config, **types)
        self.intermediate = Intermediate(config, **types)
        self.output = ResidualOutput(config.intermediate_size, config, **types)

    def __call__(
        self, key: jax.Array | None, hidden: jax.Array, mask: jax.Array, *extra: Any
    ) -> jax.Array:
        """Hidden states `[b, t, hidden]`, mask bool `[b, t]`, and what else attention takes."""
        attention_key, output_key, feed_forward_key = split_key(key, 3)
        context = self.attention.self(attention_key, hidden, mask, *extra)
        hidden = self.attention.output(output_key, context, hidden)
        return self.output(feed_forward_key, self.intermediate(hidden), hidden)


def head_size(config: Any) -> int:
    """Width of an attention head.

    Use this when a configuration gives the width and the number of heads.

    Raises:
      ValueError: If the hidden size is not a multiple of the number of heads.
    """
    if config.hidden_size % config.num_attention_heads:
        raise ValueError(
            f"hidden_size must be a multiple of num_attention_heads, got {config.hidden_size} and "
            f"{config.num_attention_heads}"
        )
    return int(
        getattr(config, "attention_head_size", config.hidden_size // config.num_attention_heads)
    )


class Transformer(nnx.Module):
    """What the encoders without heads share: how they are built and called.

    Use this when you add an architecture: it brings `embeddings_type`, `encoder_type` and `hidden`.

    Args:
      config: The configuration, that of `transformers`.
      dtype: Compute dtype; products accumulate in float32 also where this is bfloat16.
      param_dtype: Dtype the parameters are kept in.
      remat: Whether the backward pass recomputes the layers' inner values instead of keeping them:
        less memory for about a third more work.
      rngs: Draws the initial weights.
    """

    embeddings_type: ClassVar[type]
    encoder_type: ClassVar[type]

    def __init__(
        self,
        config: Any,
        *,
        dtype: DTypeLike = jnp.float32,
        param_dtype: DTypeLike = jnp.float32,
        remat: bool = False,
        rngs: nnx.Rngs,
    ) -> None:
        types = {"dtype": dtype, "param_dtype": param_dtype, "rngs": rngs}
        self.embeddings = self.embeddings_type(config, **types)
        self.encoder = self.encoder_type(config, **types)
        self.config = config
        self.remat = remat

    @property
    def max_length(self) -> int | None:
        """The most tokens of a text; None where there is no limit."""
        return int(self.config.max_position_embeddings)

    def hidden(
        self,
        key: jax.Array | None,
        input_ids: jax.Array,
        mask: jax.Array,
        token_type_ids: jax.Array | None,
    ) -> jax.Array:
        """Hidden states of the last layer for inputs that were checked.

        Use this when you add an architecture; calling the encoder checks its inputs.
        """
        raise NotImplementedError

    def through(self, layer: Any, *args: Any) -> jax.Array:
        """What a layer makes of its arguments. Use this when `hidden` calls a layer."""
        states: jax.Array = rematerialized(layer, *args) if self.remat else layer(*args)
        return states

    def __call__(
        self,
        input_ids: jax.Array,
        attention_mask: jax.Array,
        token_type_ids: jax.Array | None = None,
        *,
        key: jax.Array | None = None,
    ) -> jax.Array:
        """Hidden states of the last layer.

        Args:
          input_ids: Token ids, int `[b, t]`.
          attention_mask: 1 for text and 0 for padding, `[b, t]`.
          token_type_ids: Optional, int `[b, t]`; zeros where absent.
          key: PRNG key of the dropout; without one there is no dropout.

        Returns:
          `[b, t, hidden]` in the compute dtype; rows of padding hold nothing of use.

        Raises:
          TypeError: If the ids are not integers.
          ValueError: If the shapes do not fit or there are more tokens than positions.
        """
        check_inputs(input_ids, attention_mask, self.max_length)
        return self.hidden(key, input_ids, attention_mask.astype(bool), token_type_ids)
