"""Embeddings on disk, looked up by the text and by the weights and settings of the encoder."""

import hashlib
import logging
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from racer_jax._files import check_folder, written_whole

_LOGGER = logging.getLogger(__name__)


def text_key(text: str) -> bytes:
    """The 32 bytes by which a text is found. Use this when vectors of texts are stored by text."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()


class EmbeddingCache:
    """A folder of embeddings, one subfolder for each encoder.

    Every `store` adds one file, named after its content and moved into place whole, so that several
    processes may use one cache. A file that cannot be read is passed over, with a warning in the
    log, and its texts are encoded again.

    Use this when you build an encoder of your own that is slow enough to keep its vectors;
    `TextEncoder` makes its cache itself from the option `cache`.

    Args:
      folder: Folder of the cache; made if absent.
      fingerprint: Name of the encoder that stands for its weights and settings.

    Raises:
      OSError: If the folder is an address, or something else is there.
    """

    def __init__(self, folder: str | os.PathLike[str], fingerprint: str) -> None:
        self._folder = Path(folder) / fingerprint
        check_folder(folder, written=False)  # one that holds all that is asked for may be read-only
        self._rows: dict[bytes, np.ndarray] = {}
        self._paths: set[str] = set()

    def _refresh(self) -> None:
        """Reads the files that appeared since the last look."""
        for path in sorted(self._folder.glob("*.safetensors")):
            # A point begins what another process is writing, or was when it was killed.
            if path.name in self._paths or path.name.startswith("."):
                continue
            self._paths.add(path.name)
            try:
                tensors = load_file(path)
                keys, embeddings = tensors["keys"], tensors["embeddings"]
            except (SafetensorError, KeyError, OSError) as error:
                _LOGGER.warning("cache file %s cannot be read and is passed over: %s", path, error)
                continue
            for key, embedding in zip(keys, embeddings, strict=True):
                self._rows[key.tobytes()] = embedding

    def lookup(self, keys: Sequence[bytes]) -> dict[bytes, np.ndarray]:
        """The embeddings of those keys that the cache has.

        Use this when some embeddings may be in the cache.
        """
        self._refresh()
        return {key: self._rows[key] for key in keys if key in self._rows}

    def check_writable(self) -> None:
        """Refuses a folder that cannot be written to.

        Use this when embeddings are about to be computed that are to be stored.

        Raises:
          OSError: If it cannot.
        """
        check_folder(self._folder)

    def store(self, keys: Sequence[bytes], embeddings: np.ndarray) -> None:
        """Adds embeddings `[n, d]`, one for each key. Use this when embeddings are new."""
        tensors = {
            "keys": np.frombuffer(b"".join(keys), np.uint8).reshape(-1, 32),
            "embeddings": embeddings,
        }
        name = hashlib.sha256(b"".join(keys)).hexdigest()[:32] + ".safetensors"
        self._folder.mkdir(parents=True, exist_ok=True)
        with written_whole(self._folder / name) as path:
            save_file(tensors, path)
        self._paths.add(name)
        self._rows.update(zip(keys, embeddings, strict=True))
