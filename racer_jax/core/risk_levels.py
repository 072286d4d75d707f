"""Risk levels as the decimals they are written as, and the whole number of misses each allows.

Neither JAX nor NumPy is imported here: a command refuses a wrong level before it waits for them.
"""

from collections.abc import Sequence
from decimal import Decimal, InvalidOperation
from fractions import Fraction
from math import floor
from typing import TYPE_CHECKING, Any, TypeAlias, Union

from racer_jax.core.scalar_checks import check_count, numpy_type

if TYPE_CHECKING:
    import jax
    import numpy as np

Level: TypeAlias = float | str | Decimal | Fraction
# In quotes, for the reason above; a text cannot be joined by `|`.
Alpha: TypeAlias = Union[Level, "np.ndarray", "jax.Array", Sequence[Level]]
Budget: TypeAlias = Union[int, "np.ndarray", Sequence[int]]


# Digits a level may be written with: more would only cost time, as 1e-9999999 does.
_MOST_DIGITS = 100
# Levels that one text may ask for.
_MOST_LEVELS = 10_000


def _shown(alpha: Any) -> str:
    """A level as an error quotes it: cut where it is long, also an integer too long to print."""
    try:
        text = str(alpha)
    except ValueError:  # Python prints no integer of more than 4,300 digits
        return f"an integer of {alpha.bit_length()} bits"
    return text if len(text) <= 40 else f"{text[:20]}... of {len(text)} characters"


def _as_fraction(alpha: Level) -> Fraction:
    """The exact value; a ValueError where it is no finite number, or has too many digits."""
    if isinstance(alpha, int | Fraction):
        fraction = Fraction(alpha)
    # str() of a NumPy float32 prints the shortest decimal of ITS precision, so np.float32(0.29)
    # is 29/100 too.
    elif "/" in (text := str(alpha)):
        parts = text.split("/")
        if len(parts) != 2 or int(parts[1]) == 0:
            raise ValueError("no fraction")
        fraction = Fraction(int(parts[0]), int(parts[1]))
    else:
        decimal = Decimal(text)
        if not decimal.is_finite():
            raise ValueError("not finite")
        _, digits, exponent = decimal.as_tuple()
        # Before the power of ten is computed, which takes for ever for a large exponent.
        if len(digits) > _MOST_DIGITS or abs(int(exponent)) > _MOST_DIGITS:
            raise OverflowError
        fraction = Fraction(decimal)
    if fraction.denominator >= 10**_MOST_DIGITS + 1:
        raise OverflowError
    return fraction


def confidence_name(delta: float) -> str:
    """1 - delta in percent, exactly as delta was written.

    Use this when a sentence says how sure a promise is.

    >>> confidence_name(0.05), confidence_name(1e-9)
    ('95%', '99.9999999%')
    """
    percent = 100 * (1 - Decimal(str(float(delta))))
    return f"{percent.normalize():f}%"


def exact_alpha(alpha: Level) -> Fraction:
    """The rational the user wrote: `0.29` is 29/100, whatever its binary rounding.

    Args:
      alpha: A risk level in (0, 1); a float is read as the shortest decimal that prints as it.

    Returns:
      The exact fraction.

    Raises:
      TypeError: If `alpha` is not a number or a numeral.
      ValueError: If it is not in (0, 1), not finite, or written with more than 100 digits.

    Use this when a level is read: from here on it travels as exact numbers.

    >>> exact_alpha(0.29)
    Fraction(29, 100)
    """
    if isinstance(alpha, bool) or not isinstance(
        alpha, (int, float, str, Decimal, Fraction, numpy_type("number"))
    ):
        raise TypeError(
            f"alpha must be a number in (0, 1), got {alpha!r} of type {type(alpha).__name__}"
        )
    try:
        fraction = _as_fraction(alpha)
    except OverflowError:
        raise ValueError(
            f"alpha must have at most {_MOST_DIGITS} digits, got {_shown(alpha)}"
        ) from None
    except (ValueError, InvalidOperation):
        raise ValueError(f"alpha must be in (0, 1), got {_shown(alpha)}") from None
    if not 0 < fraction < 1:
        raise ValueError(f"alpha must be in (0, 1), got {_shown(alpha)}")
    return fraction


def exact_number(name: str, number: Level) -> Fraction:
    """A number above 0 as the decimal that was written, such as the largest loss there can be.

    Args:
      name: What an error calls it.
      number: A number or numeral; a float is read as the shortest decimal that prints as it.

    Returns:
      The exact fraction.

    Raises:
      TypeError: If it is not a number or a numeral.
      ValueError: If it is not above 0, not finite, or written with more than 100 digits.

    Use this when a bound is read that levels are compared with.

    >>> exact_number("bound", "2.50")
    Fraction(5, 2)
    """
    if isinstance(number, bool) or not isinstance(
        number, (int, float, str, Decimal, Fraction, numpy_type("number"))
    ):
        raise TypeError(
            f"{name} must be a number above 0, got {number!r} of type {type(number).__name__}"
        )
    try:
        fraction = _as_fraction(number)
    except (ValueError, InvalidOperation, OverflowError):
        fraction = Fraction(0)
    if fraction <= 0:
        raise ValueError(f"{name} must be above 0 and finite, got {_shown(number)}")
    return fraction


def exact_shares(alpha: Alpha, bound: Fraction) -> tuple[list[Fraction], bool]:
    """Levels in (0, bound) as exact shares of the bound, and whether a single one was given.

    Use this when a level is of a loss whose bound is not 1.
    """
    if bound == 1:
        return exact_alphas(alpha)
    levels, scalar = _levels(alpha)
    shares = [exact_number("alpha", level) / bound for level in levels]
    for level, share in zip(levels, shares, strict=True):
        if share >= 1:
            raise ValueError(
                f"alpha must be below the bound of the loss, {bound}, got {_shown(level)}"
            )
    return shares, scalar


def exact_alphas(alpha: Alpha) -> tuple[list[Fraction], bool]:
    """Each alpha as an exact fraction, and whether a single one was given.

    Use this when a function takes one alpha or several.
    """
    levels, scalar = _levels(alpha)
    return [exact_alpha(level) for level in levels], scalar


def _levels(alpha: Alpha) -> tuple[list[Level], bool]:
    """The levels one by one, and whether a single one was given."""
    # An array, of whatever library; a number of NumPy has dimensions too.
    if hasattr(alpha, "ndim") and not isinstance(alpha, numpy_type("generic")):
        import numpy as np

        from racer_jax._arrays import given

        array = np.asarray(given("alpha", alpha))
        if array.ndim > 1:
            raise ValueError(f"alpha must be a scalar or have shape [a], got shape {array.shape}")
        # NumPy scalars: they print in their own precision
        levels, scalar = list(array.reshape(-1)), array.ndim == 0
    elif isinstance(alpha, Sequence) and not isinstance(alpha, str):
        levels, scalar = list(alpha), False
    else:
        levels, scalar = [alpha], True
    if not levels:
        raise ValueError("alpha must hold at least one risk level, got none")
    return levels, scalar


def exact_budgets(levels: Sequence[Fraction], n: int) -> list[int]:
    """The `miss_budget` of levels that are read already.

    Use this when the same levels meet several numbers of calibration queries.

    >>> exact_budgets([Fraction(29, 100)], 99)
    [28]
    """
    return [floor(level * (n + 1)) - 1 for level in levels]


def miss_budget(alpha: Alpha, n: int) -> Any:
    r"""Number of calibration queries the threshold may miss: b = floor(alpha (n + 1)) - 1, exactly.

    Args:
      alpha: One risk level in (0, 1) or several; floats are read as the decimal they print as,
        numerals, `Decimal` and `Fraction` as they are.
      n: Number of calibration queries, at least 1.

    Returns:
      An int for one alpha, an int64 NumPy array `[a]` for several. -1 where no threshold is safe,
      alpha < 1 / (n + 1).

    Raises:
      TypeError: If `alpha` is not numeric or `n` not an integer.
      ValueError: If an alpha is outside (0, 1) or `n` below 1.

    References:
      Eq. 6 of the paper, solved for the number of misses.

    Use this when you want to know how many calibration queries a threshold may miss at a risk
    level; `threshold_at_budget` takes the result.

    >>> miss_budget(0.29, 99)  # 0.29 * 100 is 28.999999999999996 in floating point
    28
    """
    check_count("n", n)
    fractions, scalar = exact_alphas(alpha)
    budgets = exact_budgets(fractions, int(n))
    if scalar:
        return budgets[0]
    import numpy as np

    return np.asarray(budgets, dtype=np.int64)


def budget_of(alpha: Alpha | None, n: int, budget: Budget | None = None) -> Any:
    """The miss budget of a function that takes either a risk level or the budget itself.

    Args:
      alpha: One risk level in (0, 1) or several; None, and only then, where `budget` is given.
      n: Number of calibration queries, at least 1.
      budget: The budget or budgets as integers, from -1 (no threshold is safe) to n - 1.

    Returns:
      An int for one, an int64 NumPy array `[a]` for several, as of `miss_budget`.

    Raises:
      TypeError: If both or neither are given, or one is of the wrong kind.
      ValueError: If an alpha is outside (0, 1), a budget outside -1 ... n - 1, or `n` below 1.

    Use this when a law or a plan is to accept budgets that were read from alphas already.

    >>> budget_of(0.1, 99), budget_of(None, 99, budget=9)
    (9, 9)
    """
    if (alpha is None) == (budget is None):
        both = "neither" if alpha is None else "both"
        raise TypeError(f"one of alpha and budget must be given, got {both}")
    if alpha is not None:
        return miss_budget(alpha, n)
    import numpy as np

    n, budgets = check_count("n", n), np.asarray(budget)
    if budgets.dtype.kind not in "iu" or budgets.ndim > 1 or not budgets.size:
        raise TypeError(f"budget must be an integer or integers [a], got {budget!r}")
    if (bad := (budgets < -1) | (budgets >= n)).any():
        raise ValueError(f"budget must be from -1 to n - 1 = {n - 1}, got {budgets[bad][0]}")
    return budgets.astype(np.int64) if budgets.ndim else int(budgets)


def parse_alphas(text: str) -> tuple[str, ...]:
    """`0.05,0.1` or `first:last:step`, as exact decimals.

    Args:
      text: Levels in (0, 1), at most 10,000 of them.

    Returns:
      Each level as the shortest decimal.

    Raises:
      ValueError: If the text has another form, a level is not in (0, 1) or written with more than
        100 digits, two levels are the same, or there are too many.

    Use this when levels are read from a command line or a configuration.

    >>> parse_alphas("0.1:0.3:0.1")
    ('0.1', '0.2', '0.3')
    """
    is_range = ":" in text
    wrong_form = ValueError(
        f"alphas must be like 0.05,0.1 or 0.01:0.99:0.01, got {_shown(repr(text))}"
    )
    try:
        levels = [Decimal(part) for part in text.split(":" if is_range else ",")]
    except InvalidOperation:
        raise wrong_form from None
    if is_range:
        if len(levels) != 3:
            raise wrong_form
        exact_alphas(levels[:2])
        first, last, step = levels
        if not (step.is_finite() and step > 0 and first <= last):
            raise wrong_form
        exact_alpha(min(step, last))  # has no more digits than can be added up
        count = min(int((last - first) / step) + 1, _MOST_LEVELS + 1)
        levels = [first + i * step for i in range(count)]
    if len(levels) > _MOST_LEVELS:
        raise ValueError(f"alphas must be at most {_MOST_LEVELS}, got {_shown(repr(text))}")
    exact_alphas(levels)
    names = tuple(f"{level.normalize():f}" for level in levels)
    if len(set(names)) < len(names):
        raise ValueError(f"alphas must differ from each other, got {_shown(repr(text))}")
    return names


def level_name(alpha: Level) -> str:
    """A risk level as the decimal (or fraction) that is written down, checked.

    Args:
      alpha: The level.

    Returns:
      Its text.

    Raises:
      TypeError: If it is not a number or a numeral.
      ValueError: If it is not in (0, 1).

    Use this when a level is stored or shown.
    """
    exact_alpha(alpha)
    return str(alpha)
