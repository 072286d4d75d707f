"""Questions by fingerprint: who was trained on, who calibrates, and the keys that break ties.

A fingerprint is 64 bits of a hash of the normalised text, the same in every process. Two tables are
compared by them, so an artefact need not hold the texts. The tie-break of a question is a function
of its fingerprint and a seed: equal questions get equal decisions, a query is decided alone as it
is in a batch, and calibration and routing draw alike.
"""

from collections.abc import Iterable
from functools import lru_cache
from hashlib import blake2b

import numpy as np

from racer_jax.data.table import RoutingTable
from racer_jax.data.texts import normal_text

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_ROUNDS = (
    (np.uint64(30), np.uint64(0xBF58476D1CE4E5B9)),
    (np.uint64(27), np.uint64(0x94D049BB133111EB)),
)
_LAST, _HALF = np.uint64(31), np.uint64(32)


def fingerprint(text: str) -> int:
    """64 bits that stand for a question, whatever its white space and Unicode form.

    Use this when one text is looked up among fingerprints.

    >>> fingerprint("What is  2 + 2?") == fingerprint("What is 2 + 2? ")
    True
    """
    normal = normal_text(text).encode("utf-8", "surrogatepass")
    return int.from_bytes(blake2b(normal, digest_size=8).digest(), "little")


def fingerprints(texts: Iterable[str]) -> np.ndarray:
    """The fingerprint of each text, uint64 `[n]`.

    Use this when texts are compared without being kept.
    """
    return np.fromiter(map(fingerprint, texts), np.uint64)


def question_fingerprints(table: RoutingTable) -> np.ndarray:
    """The fingerprint of each row's question, uint64 `[n]`.

    That of its id where a row has no text, or a blank one: such rows are questions of their own, as
    in `RoutingTable.question_ids`.

    Use this when two tables may share questions.
    """
    rows = zip(table.texts, table.ids, strict=True)
    return fingerprints(text if text.strip() else name for text, name in rows)


def _mix(z: np.ndarray) -> np.ndarray:
    """The finalizer of SplitMix64: every input bit reaches every output bit."""
    for shift, factor in _ROUNDS:
        z = z ^ (z >> shift)
        z *= factor
    return np.asarray(z ^ (z >> _LAST), np.uint64)


def question_ties(questions: np.ndarray, seed: int, num: int) -> np.ndarray:
    """Second keys of questions, as independent and uniform as a hash makes them.

    Use this when the fingerprints are there; `text_ties` computes them.

    Args:
      questions: Fingerprints, uint64 `[n]`.
      seed: Seed of the racer, below 2**64.
      num: Keys of each question: the models and the null model.

    Returns:
      uint32 `[n, num]`.
    """
    start, steps = _stream(seed, num)
    keys = _mix(_mix(questions ^ start)[:, None] + steps)
    return (keys >> _HALF).astype(np.uint32)


@lru_cache
def _stream(seed: int, num: int) -> tuple[np.ndarray, np.ndarray]:
    """What of `question_ties` is the same for all questions, uint64 `[1]` and `[1, num]`."""
    start = _mix(np.array([seed], np.uint64) + _GOLDEN)
    return start, np.arange(1, num + 1, dtype=np.uint64)[None] * _GOLDEN


def text_ties(texts: Iterable[str], seed: int, num: int) -> np.ndarray:
    """Second keys of texts, uint32 `[n, num]`; equal texts get equal ones.

    Use this when queries are texts or have names.
    """
    return question_ties(fingerprints(texts), seed, num)
