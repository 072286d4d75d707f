"""Checks of what a routing table is made of; each returns a read-only copy in its own type."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from racer_jax._arrays import given

_CHUNK = 1 << 14
_ANSWER_TYPES = frozenset({str, type(None)})


def strings(
    name: str, values: Iterable[str], unique: bool = False, empty: bool = False
) -> tuple[str, ...]:
    """`values` as a tuple of strings that UTF-8 can write; optionally no two alike, none empty.

    Use this when names come from a file or a caller.
    """
    if isinstance(values, str):
        raise TypeError(f"{name} must be a sequence of strings, got the one string {values!r}")
    result = tuple(values)
    if not set(map(type, result)) <= {str}:
        for i, value in enumerate(result):
            if not isinstance(value, str):
                raise TypeError(f"{name} must hold strings, got {value!r} at [{i}]")
        result = tuple(map(str, result))  # NumPy's strings become plain ones
    if not empty and not all(result):
        raise ValueError(f"{name} must not hold empty strings, got one at [{result.index('')}]")
    try:
        # One by one: joined, the texts of a large table would be held a second and a third time.
        for value in result:
            if not value.isascii():
                value.encode()
    except UnicodeEncodeError:
        i = next(
            i for i, value in enumerate(result) if value != value.encode(errors="ignore").decode()
        )
        raise ValueError(
            f"{name} must be text that UTF-8 can write, got a lone surrogate at [{i}]"
        ) from None
    if unique and may_repeat(result):
        first_row: dict[str, int] = {}
        for i, value in enumerate(result):
            if (first := first_row.setdefault(value, i)) != i:
                raise ValueError(f"{name} must be unique, got {value!r} at [{first}] and [{i}]")
    return result


def may_repeat(values: Sequence[str]) -> bool:
    """Whether two values have the same hash; a set of the values would weigh as much as they do.

    Use this when names are many and nearly always unique.
    """
    hashes = np.fromiter(map(hash, values), np.int64, len(values))
    hashes.sort()
    return bool((hashes[1:] == hashes[:-1]).any())


def frozen(array: np.ndarray) -> np.ndarray:
    """A copy that cannot be written to; the array itself where it owns its data and is one.

    Use this when a table keeps an array that must not change.
    """
    if not array.flags.writeable and array.base is None and array.flags.c_contiguous:
        return array
    array = np.array(array, order="C")
    array.flags.writeable = False
    return array


def first_place(bad: np.ndarray) -> str:
    """The indices of the first true element, as an error shows them.

    Use this when an error shall name the entry that broke a rule.
    """
    return str([int(i) for i in np.argwhere(bad)[0]])


def label_matrix(name: str, array: Any, shape: tuple[int, ...]) -> np.ndarray:
    """Truth values, or numbers that are all 0 or 1, as bool.

    Use this when a table is made of labels.
    """
    array = np.asarray(given(name, array))
    if array.dtype.kind not in "biuf":
        raise TypeError(f"{name} must be boolean or 0/1, got dtype {array.dtype}")
    if array.shape != shape:
        raise ValueError(f"{name} must have shape {shape}, got {array.shape}")
    if array.dtype.kind != "b" and (bad := (array != 0) & (array != 1)).any():
        raise ValueError(f"{name} must be 0/1, got {array[bad][0]} at {first_place(bad)}")
    return frozen(array.astype(bool, copy=False))


def number_array(
    name: str,
    array: Any,
    shape: tuple[int, ...],
    low: float = -np.inf,
    high: float = np.inf,
    unit: str = "",
) -> np.ndarray:
    """float64 with NaN for "not known", no infinity, within [low, high].

    What a masked array of NumPy lacks is not known.

    Use this when a table is made of costs, confidences or graded scores.
    """
    if isinstance(array, np.ma.MaskedArray) and array.dtype.kind in "iuf":
        array = np.ma.filled(array.astype(np.float64), np.nan)
    array = np.asarray(array)
    if array.dtype.kind not in "iuf":
        raise TypeError(f"{name} must be numeric, got dtype {array.dtype}")
    if array.shape != shape:
        raise ValueError(f"{name} must have shape {shape}, got {array.shape}")
    array = array.astype(np.float64, copy=False)
    if (bad := first_bad(array, np.isinf)) is not None:
        place, value = bad
        raise ValueError(f"{name} must be finite (NaN where not known), got {value} at {place}")
    if (bad := first_bad(array, lambda part: (part < low) | (part > high))) is not None:
        place, value = bad
        raise ValueError(f"{name} must be in [{low:g}, {high:g}]{unit}, got {value:g} at {place}")
    return frozen(array)


def first_bad(
    array: np.ndarray, is_bad: Callable[[np.ndarray], np.ndarray]
) -> tuple[list[int], Any] | None:
    """The indices and the value of the first number that breaks a rule; None where none does.

    Use this when a matrix is checked: marks for all of it would weigh as much as an eighth of it.

    Args:
      array: The numbers.
      is_bad: Marks the bad ones of some of them.

    Returns:
      Indices and value, or None.
    """
    flat = array.reshape(-1)
    for start in range(0, len(flat), _CHUNK):
        bad = is_bad(flat[start : start + _CHUNK])
        if bad.any():
            index = start + int(bad.argmax())
            return [int(i) for i in np.unravel_index(index, array.shape)], flat[index]
    return None


def answer_matrix(answers: Any, shape: tuple[int, ...]) -> np.ndarray:
    """Strings of which none is empty, and None where there is no answer, as objects.

    Use this when a table is made of answers.
    """
    if isinstance(answers, np.ma.MaskedArray):  # what is masked is no answer
        is_absent = np.ma.getmaskarray(answers)
        answers = np.array(answers, dtype=object)
        answers[is_absent] = None
    array = np.asarray(answers, dtype=object)
    if array.shape != shape:
        raise ValueError(f"answers must have shape {shape}, got {array.shape}")
    flat = array.reshape(-1)
    for start in range(0, len(flat), _CHUNK):
        part = flat[start : start + _CHUNK].tolist()
        if not set(map(type, part)) <= _ANSWER_TYPES or "" in part or not _can_be_written(part):
            for i, value in enumerate(part, start):
                _check_answer(value, str(list(divmod(i, shape[1]))))
    return frozen(array)


def _can_be_written(values: Iterable[str | None]) -> bool:
    """Whether UTF-8 can write all of some strings."""
    try:
        for value in values:
            if value is not None and not value.isascii():
                value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _check_answer(value: Any, place: str) -> None:
    """Refuses what is no answer."""
    if value is not None and not isinstance(value, str):
        raise TypeError(f"answers must be strings or None, got {value!r} at {place}")
    if value == "":
        raise ValueError(f"answers must be None where there is no answer, got '' at {place}")
    if not _can_be_written([value]):
        raise ValueError(
            f"answers must be text that UTF-8 can write, got a lone surrogate at {place}"
        )
