"""Batches of few shapes: texts sorted by length, cut by buckets of lengths.

What does not fill a batch joins the next bucket; only the very last batch is smaller.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

_BUCKETS = (16, 32, 48, 64, 80, 96, 128, 160, 192, 256, 384, 512)


class Batch(NamedTuple):
    """Rows of one shape.

    Use this when token ids go to a compiled encoder.

    Attributes:
      rows: Which texts, int `[at most b]`.
      input_ids: int32 `[b, t]`.
      attention_mask: bool `[b, t]`.
    """

    rows: np.ndarray
    input_ids: np.ndarray
    attention_mask: np.ndarray


def pad_rows(
    rows: Sequence[Sequence[int]], num_rows: int, length: int, pad_id: int
) -> tuple[np.ndarray, np.ndarray]:
    """Token ids int32 `[num_rows, length]` and mask bool of the same shape.

    Use this when some rows make one batch of a given length.
    """
    ids = np.full((num_rows, length), pad_id, np.int32)
    mask = np.zeros((num_rows, length), bool)
    for i, row in enumerate(rows):
        ids[i, : len(row)] = row
        mask[i, : len(row)] = True
    # A row of nothing but padding still attends to something.
    mask[len(rows) :, 0] = True
    return ids, mask


def bucket_batches(
    tokens: Sequence[Sequence[int]],
    max_length: int,
    batch_tokens: int,
    pad_id: int,
    multiple: int = 1,
) -> Iterator[Batch]:
    """Cuts texts into batches of few shapes.

    Use this when many texts of different lengths are encoded.

    Args:
      tokens: Token ids of each text, none longer than `max_length`.
      max_length: Length of the last bucket.
      batch_tokens: About this many tokens, padding included, in a batch.
      pad_id: Token id of the padding.
      multiple: Batches hold a multiple of this many rows, as sharding needs.

    Yields:
      Batches, shortest texts first.
    """
    lengths = [bucket for bucket in _BUCKETS if bucket < max_length] + [max_length]
    order = np.argsort([len(row) for row in tokens], kind="stable")
    start = 0

    def batch(rows: np.ndarray, num_rows: int, length: int) -> Batch:
        return Batch(rows, *pad_rows([tokens[i] for i in rows], num_rows, length, pad_id))

    for length in lengths:
        size = max(1, batch_tokens // length // multiple) * multiple
        end = start
        while end < len(order) and len(tokens[order[end]]) <= length:
            end += 1
        last = end == len(order)
        while end - start >= size:
            yield batch(order[start : start + size], size, length)
            start += size
        if last:
            if start < end:
                smaller = size
                while smaller // 2 >= end - start and smaller % (2 * multiple) == 0:
                    smaller //= 2
                yield batch(order[start:end], smaller, length)
            return
