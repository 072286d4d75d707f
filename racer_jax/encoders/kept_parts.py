"""Tokenizer and configuration of a checkpoint as `transformers` reads them, without importing it.

`transformers` takes two to three seconds to import, and both are a few settings once it has read
them. What it made of a folder is kept as JSON where JAX keeps compiled code, under its version and
the content of the files; the next process needs no more than `tokenizers`.
"""

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

import jax

from racer_jax._files import make_way, read_kept, written_whole

# Files that a tokenizer is read from; those of weights are large and say nothing of it.
_READ = ("*.json", "*.txt", "*.model")


class CheckpointConfig:
    """The settings of a checkpoint, as attributes, the defaults of its architecture among them.

    Use this when only the sizes and options of a checkpoint are needed.

    Args:
      fields: What `to_dict` of the configuration of `transformers` gave.
    """

    def __init__(self, fields: dict[str, Any]) -> None:
        self._fields = fields

    def __getattr__(self, name: str) -> Any:
        if not name.startswith("_") and name in self._fields:
            return self._fields[name]
        raise AttributeError(f"the checkpoint has no setting {name!r}")

    def to_dict(self) -> dict[str, Any]:
        """All settings by name. Use this when they are compared or written."""
        return deepcopy(self._fields)


class FastTokenizer:
    """A tokenizer of the library `tokenizers`, called as one of `transformers` is.

    Use this when texts are cut into tokens and nothing else is asked of the tokenizer.

    Args:
      settings: The tokenizer as JSON text (`tokenizer`), `pad_token_id` and `model_max_length`.
    """

    def __init__(self, settings: dict[str, Any]) -> None:
        from tokenizers import Tokenizer

        self.backend_tokenizer = Tokenizer.from_str(settings["tokenizer"])
        self.pad_token_id: int | None = settings["pad_token_id"]
        self.model_max_length: int = settings["model_max_length"]
        self.truncation_side = "right"

    def get_vocab(self) -> dict[str, int]:
        """Token -> its number. Use this when a tokenizer is compared with weights."""
        vocabulary: dict[str, int] = self.backend_tokenizer.get_vocab(with_added_tokens=True)
        return vocabulary

    def __call__(
        self,
        texts: Sequence[str],
        truncation: bool = False,
        max_length: int | None = None,
        verbose: bool = True,
    ) -> dict[str, list[list[int]]]:
        """The token ids of each text, those around it included, cut to `max_length` where asked.

        Use this when texts become token ids.
        """
        backend = self.backend_tokenizer
        backend.no_padding()
        if truncation:
            side, longest = self.truncation_side, max_length or self.model_max_length
            backend.enable_truncation(longest, direction=side)
        else:
            backend.no_truncation()
        return {"input_ids": [encoding.ids for encoding in backend.encode_batch(list(texts))]}


@cache
def _version() -> str:
    from importlib.metadata import version

    return f"{version('transformers')} {version('tokenizers')}"


def _kept(
    folder: Path, kind: str, make: Callable[[], dict[str, Any] | None]
) -> dict[str, Any] | None:
    """What `make` gives for the files of a folder, from disk where it was kept.

    None where nothing can be kept, or `make` gives nothing that could be.
    """
    home = getattr(jax.config, "jax_compilation_cache_dir", None)
    if not home or not os.path.isdir(home):
        return None
    files = sorted({path for pattern in _READ for path in folder.glob(pattern) if path.is_file()})
    digest = hashlib.sha256(f"{kind} {_version()}".encode())
    for path in files:
        digest.update(f"\n{path.name} ".encode() + hashlib.sha256(path.read_bytes()).digest())
    place = Path(home) / f"racer_jax-{kind}-{digest.hexdigest()}.json"
    with suppress(OSError, ValueError):
        fields: dict[str, Any] = json.loads(read_kept(place))
        return fields
    if (settings := make()) is None:
        return None
    make_way(place)
    with suppress(OSError, TypeError), written_whole(place) as temporary:
        temporary.write_text(json.dumps(settings), "utf-8")
    return settings


def load_tokenizer(folder: Path) -> Any:
    """The tokenizer of a folder: that of `transformers`, or one that gives the same tokens.

    Use this when a tokenizer is read from a folder.
    """
    read: list[Any] = []

    def make() -> dict[str, Any] | None:
        from transformers import AutoTokenizer, PreTrainedTokenizerFast

        tokenizer = AutoTokenizer.from_pretrained(folder)
        read.append(tokenizer)
        usual = PreTrainedTokenizerFast
        names = ("__call__", "_encode_plus", "_batch_encode_plus", "prepare_for_tokenization")
        differs = (getattr(type(tokenizer), n, None) is not getattr(usual, n, None) for n in names)
        if not isinstance(tokenizer, usual) or any(differs):
            return None  # it does more than its backend
        return {
            "tokenizer": tokenizer.backend_tokenizer.to_str(),
            "pad_token_id": tokenizer.pad_token_id,
            "model_max_length": tokenizer.model_max_length,
        }

    settings = _kept(folder, "tokenizer", make)
    if settings is not None:
        return FastTokenizer(settings)
    if not read:
        make()
    return read[0]


def kept_config(folder: Path, make: Callable[[], dict[str, Any]]) -> CheckpointConfig:
    """The configuration of a folder; `make` reads it with `transformers` where it is not kept.

    Use this when the configuration of a checkpoint is read.
    """
    read: list[dict[str, Any]] = []

    def plain() -> dict[str, Any] | None:
        read.append(make())
        text = json.dumps(read[0], sort_keys=True, default=str)
        # Numbers as keys come back as text and in another order, which changes a fingerprint.
        same: dict[str, Any] = json.loads(text)
        return same if json.dumps(same, sort_keys=True) == text else None

    fields = _kept(folder, "config", plain)
    if fields is None:
        fields = read[0] if read else make()
    return CheckpointConfig(fields)
