"""The questions of logs of lm-evaluation-harness, each once: a few bytes for each, no objects."""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from racer_jax.data.formats._growing import Growing

# A place in an array is kept for numbers up to this many times those seen so far.
_DENSE, _FIRST = 4, 1 << 10
_HASH_BYTES = 32
_AT_ONCE = 1 << 12


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
        self._tasks, self._ids = Growing(np.int32), Growing(np.int64)
        # Hashes are nearly always 64 hexadecimal digits; any other is kept as it is.
        self._digests, self._other = Growing(np.uint8), dict[int, str]()
        self._dense = [Growing(np.int32) for _ in self.tasks]
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
        digest = _packed(doc_hash)
        if digest is not None and self._digest(known) == digest:
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
            known = (dense.part(start, start + count) == np.arange(first, first + count)).all()
            is_same = known and self._digest(first, count) == digests
            return codes if is_same and not self._other else None
        first = len(self._ids)
        end = min(start + count, len(dense))
        if start < end and (dense.part(start, end) >= 0).any():
            return None
        if not self._grow(dense, start + count, first + 1):
            return None
        codes = range(first, first + count)
        dense.put(start, np.arange(first, first + count))
        self._ids.extend(np.arange(start, start + count))
        self._tasks.extend(np.full(count, task))
        self._digests.extend(np.frombuffer(digests, np.uint8))
        return codes

    def _digest(self, code: int, count: int = 1) -> bytes:
        """The hash of a question, or those of several, as bytes."""
        start = _HASH_BYTES * code
        return self._digests.part(start, start + _HASH_BYTES * count).tobytes()

    def _grow(self, dense: Growing, size: int, num_seen: int) -> bool:
        """Whether there is a place for each number below a size, made if it is not too many."""
        most = _FIRST + _DENSE * num_seen
        if len(dense) < size <= most:
            length = min(max(len(dense) + _FIRST, size), most)
            dense.extend(np.full(length - len(dense), -1))
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
        self._digests.extend(np.frombuffer(digest or bytes(_HASH_BYTES), np.uint8))
        return code

    def _hash(self, code: int) -> str:
        if code in self._other:
            return self._other[code]
        return self._digest(code).hex()

    def order(self) -> np.ndarray:
        """The questions by task, number and hash, int32 `[n]`."""
        ranks = np.argsort(np.argsort(self.tasks, kind="stable")).astype(np.int32)
        tasks, numbers = ranks[self._tasks.part(0, len(self))], self._ids.part(0, len(self))
        if _is_sorted(tasks, numbers):
            return np.arange(len(self), dtype=np.int32)
        order: np.ndarray = np.lexsort((numbers, tasks)).astype(np.int32)
        if not self._changed:
            return order
        key = {code: self[code] for code in order.tolist()}
        return np.array(sorted(key, key=key.__getitem__), dtype=np.int32)

    def __getitem__(self, code: int) -> Question:
        """A question by its number."""
        return Question(self.tasks[self._tasks[code]], self._ids[code], self._hash(code))

    def task_numbers(self, order: np.ndarray) -> np.ndarray:
        """The task of each question in an order, as its place among `tasks`."""
        tasks: np.ndarray = self._tasks.part(0, len(self))[order]
        return tasks

    def ids(self, order: np.ndarray) -> Iterator[str]:
        """`<task>/<number>` of each question in an order."""
        tasks, numbers = self._tasks.part(0, len(self)), self._ids.part(0, len(self))
        for start in range(0, len(order), _AT_ONCE):
            part = order[start : start + _AT_ONCE]
            for task, number in zip(tasks[part].tolist(), numbers[part].tolist(), strict=True):
                yield f"{self.tasks[task]}/{number}"

    def forget_hashes(self) -> None:
        """Lets the hashes go, for they weigh more than all else here."""
        self._digests = Growing(np.uint8)

    def changed(self, order: np.ndarray) -> Iterator[tuple[str, int]]:
        """The (task, number) that name more than one document, in order."""
        if not self._changed:
            return
        pairs = [(self[code].task, self[code].doc_id) for code in order.tolist()]
        yield from dict.fromkeys(a for a, b in pairwise(pairs) if a == b)


def _is_sorted(tasks: np.ndarray, numbers: np.ndarray) -> bool:
    """Whether questions stand in the order of their tasks, and of their numbers within a task."""
    later = tasks[1:] > tasks[:-1]
    later |= (tasks[1:] == tasks[:-1]) & (numbers[1:] > numbers[:-1])
    return bool(later.all())


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
