"""Encoders: texts to embeddings `[n, d]`, without PyTorch.

What needs Flax or Transformers stands in modules of its own: `text` (a pretrained encoder for
texts), `checkpoint` (weights in and out), `bert`, `deberta`.
"""

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from racer_jax.encoders.base import Encoder, check_texts
    from racer_jax.encoders.cache import EmbeddingCache
    from racer_jax.encoders.compound import JoinedEncoder, ReducedEncoder
    from racer_jax.encoders.hashing import HashedNgrams
    from racer_jax.encoders.registry import ENCODERS, named, register_encoder
    from racer_jax.encoders.surface import SurfaceEncoder
    from racer_jax.encoders.text import TextEncoder, minilm

# Each is imported when it is asked for: what needs Flax takes half a second.
_HOMES = {
    "base": ("Encoder", "check_texts"),
    "compound": ("JoinedEncoder", "ReducedEncoder"),
    "hashing": ("HashedNgrams",),
    "cache": ("EmbeddingCache",),
    "registry": ("ENCODERS", "named", "register_encoder"),
    "surface": ("SurfaceEncoder",),
    "text": ("TextEncoder", "minilm"),
}
__getattr__, __dir__, _ = lazy_loader.attach(__name__, submod_attrs=_HOMES)

__all__ = [
    "ENCODERS",
    "EmbeddingCache",
    "Encoder",
    "HashedNgrams",
    "JoinedEncoder",
    "ReducedEncoder",
    "SurfaceEncoder",
    "TextEncoder",
    "check_texts",
    "minilm",
    "named",
    "register_encoder",
]
