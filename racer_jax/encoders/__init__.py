"""Encoders: texts to embeddings `[n, d]`, without PyTorch.

What needs Flax or Transformers stands in modules of its own: `text` (a pretrained encoder for texts), `checkpoint`
(weights in and out), `bert`, `deberta`.
"""

from racer_jax.encoders.base import Encoder, check_texts
from racer_jax.encoders.compound import JoinedEncoder, ReducedEncoder
from racer_jax.encoders.hashing import HashedNgrams

__all__ = ["Encoder", "HashedNgrams", "JoinedEncoder", "ReducedEncoder", "check_texts"]
