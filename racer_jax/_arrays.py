"""Arrays of NumPy from outside: with a mask, or in the byte order of another machine."""

from typing import Any

import numpy as np


def given(name: str, array: Any) -> Any:
    """An array of NumPy without a mask and in this machine's byte order; anything else as it is.

    A mask would be dropped in silence by whatever computes next, and what is beneath it count as a
    value; JAX takes no other byte order than that of the machine.

    Use this when a public function is given an array.

    Raises:
      ValueError: If entries are masked; the first of them is named.

    >>> given("scores", np.array([0.5], ">f4")).dtype
    dtype('float32')
    """
    if isinstance(array, np.ma.MaskedArray):
        mask = np.ma.getmaskarray(array)
        if mask.any():
            first = [int(i) for i in np.argwhere(mask)[0]]
            raise ValueError(
                f"{name} must have a value everywhere, got a masked array that lacks "
                f"{int(mask.sum()):,} of {mask.size:,}, the first at {first}: leave out the rows "
                "that lack one, or fill them with what they stand for (its method filled)"
            )
        array = np.asarray(array)
    if isinstance(array, np.ndarray | np.generic) and not array.dtype.isnative:
        return array.astype(array.dtype.newbyteorder("="))
    return array
