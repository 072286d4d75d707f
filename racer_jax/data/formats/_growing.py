"""Numbers and names of which more and more come, in little more memory than they take."""

import ctypes
import mmap
import sys
from array import array
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

_BLOCK = 1 << 18


def new_memory(num_bytes: int) -> Any:
    """Memory that goes back to the system when it is let go.

    Blocks of several columns would stand by turns in the heap, and the gap that one of them leaves
    would be too small for the matrix that is made next.
    """
    if hasattr(mmap, "MAP_PRIVATE"):
        return mmap.mmap(-1, num_bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    return mmap.mmap(-1, num_bytes)


def give_back() -> None:
    """Gives memory that is no longer used back to the system, where the C library keeps it.

    glibc keeps what was freed, and a large matrix finds no room in many small gaps: it would come
    on top of them.
    """
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)


class Growing:
    """Numbers of one type, added at the end and taken from the beginning.

    Args:
      kind: Their type.
    """

    def __init__(self, kind: Any) -> None:
        self.dtype = np.dtype(kind)
        self._blocks: deque[np.ndarray] = deque()
        self._size = _BLOCK // self.dtype.itemsize
        self._start, self._end = 0, self._size  # in the first block and in the last one
        self._length = 0

    def __len__(self) -> int:
        """How many there are."""
        return self._length

    def append(self, value: float) -> None:
        """Adds a number at the end."""
        self._make_room()
        self._blocks[-1][self._end] = value
        self._end, self._length = self._end + 1, self._length + 1

    def _make_room(self) -> None:
        """Adds a block where the last one is full."""
        if self._end == self._size:
            self._blocks.append(np.frombuffer(new_memory(_BLOCK), self.dtype))
            self._end = 0

    def extend(self, values: np.ndarray) -> None:
        """Adds numbers at the end."""
        self._length += len(values)
        while len(values):
            self._make_room()
            part = values[: self._size - self._end]
            self._blocks[-1][self._end : self._end + len(part)] = part
            self._end, values = self._end + len(part), values[len(part) :]

    def take(self, count: int) -> np.ndarray:
        """So many numbers from the beginning, which are no longer held."""
        values = np.empty(count, self.dtype)
        self._length -= count
        done = 0
        while done < count:
            part = self._blocks[0][self._start : self._start + count - done]
            values[done : done + len(part)] = part
            done, self._start = done + len(part), self._start + len(part)
            if self._start == self._size:
                self._start = 0
                self._blocks.popleft()
        return values

    def __getitem__(self, place: int) -> int:
        """One of the numbers, of whole ones."""
        block, place = divmod(self._start + place, self._size)
        return int(self._blocks[block].item(place))

    def __setitem__(self, place: int, value: float) -> None:
        """Writes over one of the numbers."""
        block, place = divmod(self._start + place, self._size)
        self._blocks[block][place] = value

    def part(self, start: int, end: int) -> np.ndarray:
        """Some of the numbers, to be read only: they may be a part of a block."""
        if start == end:
            return np.empty(0, self.dtype)
        block, place = divmod(self._start + start, self._size)
        if place + end - start <= self._size:
            return self._blocks[block][place : place + end - start]
        values = np.empty(end - start, self.dtype)
        for inside, outside in self._pieces(start, end):
            values[outside] = inside
        return values

    def put(self, start: int, values: np.ndarray) -> None:
        """Writes over some of the numbers."""
        for inside, outside in self._pieces(start, start + len(values)):
            inside[:] = values[outside]

    def _pieces(self, start: int, end: int) -> Iterator[tuple[np.ndarray, slice]]:
        """The pieces of blocks that some of the numbers are in, and their places among those."""
        done = start
        while done < end:
            block, place = divmod(self._start + done, self._size)
            piece = self._blocks[block][place : place + end - done]
            yield piece, slice(done - start, done - start + len(piece))
            done += len(piece)

    def array(self) -> np.ndarray:
        """All numbers, which are no longer held."""
        whole = np.empty(len(self), self.dtype)
        done = 0
        while len(self):
            part = self.take(min(len(self), self._size))
            whole[done : done + len(part)] = part
            done += len(part)
        return whole


class Names:
    """Strings, each once, numbered by first appearance.

    A dictionary of strings and integers takes 80 bytes an entry beside the strings; this takes 6
    to 12: it holds the numbers alone, at places by the hashes of their strings.

    Attributes:
      names: The strings in order of their numbers.
    """

    def __init__(self) -> None:
        self.names: list[Any] = []
        self._places = array("i", [-1]) * 8

    def __len__(self) -> int:
        """How many there are."""
        return len(self.names)

    def code(self, name: str | None) -> int:
        """The number of a string; that of a new one is the length before the call."""
        names, places = self.names, self._places
        last = len(places) - 1
        place = hash(name) & last
        while (code := places[place]) >= 0:
            if names[code] == name:
                return code
            place = (place + 1) & last
        places[place] = len(names)
        names.append(name)
        if 3 * len(names) > 2 * len(places):
            self._double()
        return len(names) - 1

    def _double(self) -> None:
        """Makes room: at most two thirds of the places are taken."""
        size = 2 * len(self._places)
        self._places = array("i")  # goes before the next one comes
        places = self._places = array("i", [-1]) * size
        for code, name in enumerate(self.names):
            place = hash(name) & (size - 1)
            while places[place] >= 0:
                place = (place + 1) & (size - 1)
            places[place] = code

    def codes(self, values: Iterable[str | None]) -> list[int]:
        """The number of each string."""
        values = list(values)
        return list(map(self._of(values).__getitem__, values))

    def array(self, values: Sequence[str]) -> np.ndarray:
        """The number of each string, int32."""
        return np.fromiter(map(self._of(values).__getitem__, values), np.int32, len(values))

    def _of(self, values: Iterable[str | None]) -> dict[str | None, int]:
        """The numbers of strings, most of which may stand several times."""
        return {value: self.code(value) for value in dict.fromkeys(values)}
