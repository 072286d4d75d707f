"""Encoders: texts to embeddings `[n, d]`, with no network and no PyTorch."""

from racer_jax.encoders.base import Encoder, check_texts
from racer_jax.encoders.hashing import HashedNgrams

__all__ = ["Encoder", "HashedNgrams", "check_texts"]
