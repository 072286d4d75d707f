"""The questions of logs of lm-evaluation-harness, each once: a few bytes for each, no objects."""

from array import array
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np

# A place in an array is kept for numbers up to this many times those seen so far.
_DENSE, _FIRST = 4, 1 << 10
_HASH_BYTES = 32


class Question(NamedTuple):
    """What all models share of a question."""

    task: str
    doc_id: int
    doc_hash: str


class Questions:
    """Questions numbered by first appearance, told apart by task, number and hash.

    Args:
      tasks: Names of the tasks.
    """

    def __init__(self, tasks: Sequence[str]) -> None:
        self.tasks = list(tasks)
        self._tasks, self._ids = array("i"), array("q")
        # Hashes are nearly always 64 hexadecimal digits; any other is kept as it is.
        self._digests, self._other = bytearray(), dict[int, str]()
        self._dense = [array("q") for _ in self.tasks]
        self._sparse: list[dict[int, int]] = [{} for _ in self.tasks]
        self._changed: dict[Question, int] = {}

    def __len__(self) -> int:
        return len(self._ids)

    def code(self, task: int, doc_id: int, doc_hash: str) -> int:
        """The number of a question; that of a new one is the length before the call.

        Raises:
          OverflowError: If `doc_id` does not fit 64 bits.
        """
        known = self._known(task, doc_id)
        if known < 0:
            return self._new(task, doc_id, doc_hash)
        start = _HASH_BYTES * known
        digest = _packed(doc_hash)
        if digest is not None and self._digests.startswith(digest, start):
            return known
        if self._hash(known) == doc_hash:
            return known
        question = Question(self.tasks[task], doc_id, doc_hash)
        if question not in self._changed:
            self._changed[question] = self._append(task, doc_id, doc_hash)
        return self._changed[question]

    def codes(self, task: int, doc_ids: Sequence[int], doc_hashes: Sequence[str]) -> Sequence[int]:
        """The numbers of questions, as of one after another by `code`.

        Raises:
          OverflowError: If a `doc_id` does not fit 64 bits.
        """
        codes = self._codes_of_run(task, doc_ids, doc_hashes)
        if codes is not None:
            return codes
        pairs = zip(doc_ids, doc_hashes, strict=True)
        return [self.code(task, doc_id, doc_hash) for doc_id, doc_hash in pairs]

    def _codes_of_run(
        self, task: int, doc_ids: Sequence[int], doc_hashes: Sequence[str]
    ) -> range | None:
        """The numbers of questions in a row that are all new or all known; None for any other."""
        start, count, dense = doc_ids[0], len(doc_ids), self._dense[task]
        joined = "".join(doc_hashes)
        if list(doc_ids) != list(range(start, start + count)) or start < 0:
            return None
        if set(map(len, doc_hashes)) != {2 * _HASH_BYTES} or self._sparse[task]:
            return None
        digests = _digits(joined)
        if digests is None or digests.hex() != joined:
            return None
        if start + count <= len(dense) and (first := dense[start]) >= 0:
            codes = range(first, first + count)
            known = dense[start : start + count] == array("q", codes)
            is_same = self._digests.startswith(digests, _HASH_BYTES * first)
            return codes if known and is_same and not self._other else None
        first = len(self._ids)
        if max(dense[start : start + count], default=-1) >= 0:
            return None
        if not self._grow(dense, start + count, first + 1):
            return None
        codes = range(first, first + count)
        dense[start : start + count] = array("q", codes)
        self._ids.extend(doc_ids)
        self._tasks.extend([task] * count)
        self._digests += digests
        return codes

    def _grow(self, dense: "array[int]", size: int, num_seen: int) -> bool:
        """Whether there is a place for each number below a size, made if it is not too many."""
        most = _FIRST + _DENSE * num_seen
        if len(dense) < size <= most:
            length = min(max(2 * len(dense), size), most)
            dense.extend(array("q", [-1]) * (length - len(dense)))
        return size <= len(dense)

    def _known(self, task: int, doc_id: int) -> int:
        """The first question of a number; -1 where there is none."""
        dense = self._dense[task]
        if 0 <= doc_id < len(dense):
            return dense[doc_id]
        return self._sparse[task].get(doc_id, -1)

    def _new(self, task: int, doc_id: int, doc_hash: str) -> int:
        """Enters a question of which no other document has the number."""
        code = self._append(task, doc_id, doc_hash)
        dense = self._dense[task]
        if len(dense) <= doc_id and self._grow(dense, doc_id + 1, code + 1):
            for number in [n for n in self._sparse[task] if 0 <= n < len(dense)]:
                dense[number] = self._sparse[task].pop(number)
        if 0 <= doc_id < len(dense):
            dense[doc_id] = code
        else:
            self._sparse[task][doc_id] = code
        return code

    def _append(self, task: int, doc_id: int, doc_hash: str) -> int:
        code = len(self._ids)
        self._ids.append(doc_id)
        self._tasks.append(task)
        digest = _packed(doc_hash)
        if digest is None or digest.hex() != doc_hash:
            self._other[code] = doc_hash
        self._digests += digest or bytes(_HASH_BYTES)
        return code

    def _hash(self, code: int) -> str:
        if code in self._other:
            return self._other[code]
        return self._digests[_HASH_BYTES * code : _HASH_BYTES * (code + 1)].hex()

    def order(self) -> np.ndarray:
        """The questions by task, number and hash, int64 `[n]`."""
        ranks = np.argsort(np.argsort(self.tasks, kind="stable"))
        tasks = np.frombuffer(self._tasks, np.dtype("i"))
        order: np.ndarray = np.lexsort((np.frombuffer(self._ids, np.int64), ranks[tasks]))
        if not self._changed:
            return order
        key = {code: self[code] for code in order.tolist()}
        return np.array(sorted(key, key=key.__getitem__), dtype=np.int64)

    def __getitem__(self, code: int) -> Question:
        """A question by its number."""
        return Question(self.tasks[self._tasks[code]], self._ids[code], self._hash(code))

    def task_numbers(self, order: np.ndarray) -> np.ndarray:
        """The task of each question in an order, as its place among `tasks`."""
        tasks: np.ndarray = np.frombuffer(self._tasks, np.dtype("i"))[order]
        return tasks

    def doc_ids(self, order: np.ndarray) -> list[int]:
        """The number of each question in an order."""
        ids: list[int] = np.frombuffer(self._ids, np.int64)[order].tolist()
        return ids

    def changed(self, order: np.ndarray) -> Iterator[tuple[str, int]]:
        """The (task, number) that name more than one document, in order."""
        if not self._changed:
            return
        pairs = [(self[code].task, self[code].doc_id) for code in order.tolist()]
        yield from dict.fromkeys(a for a, b in pairwise(pairs) if a == b)


def _packed(doc_hash: str) -> bytes | None:
    """A hash of 64 hexadecimal digits as bytes; None for any other."""
    return _digits(doc_hash) if len(doc_hash) == 2 * _HASH_BYTES else None


def _digits(text: str) -> bytes | None:
    """The bytes that hexadecimal digits stand for; None for any other text."""
    try:
        digits = bytes.fromhex(text)
    except ValueError:
        return None
    return digits if 2 * len(digits) == len(text) else None  # spaces are skipped
