"""The embedding cache beside other processes that use it."""

import numpy as np

from racer_jax.encoders.cache import EmbeddingCache


def test_what_another_process_is_writing_is_not_read(tmp_path, caplog):
    cache, key, row = EmbeddingCache(tmp_path, "encoder"), bytes(32), np.ones((1, 3), np.float32)
    cache.store([key], row)
    (file,) = (tmp_path / "encoder").iterdir()
    half = file.with_name(f".{file.name}.0123456789abcdef{file.suffix}")
    half.write_bytes(file.read_bytes()[:100])
    assert np.array_equal(EmbeddingCache(tmp_path, "encoder").lookup([key])[key], row[0])
    assert caplog.text == ""
