"""Rows of a spreadsheet that sum others up: they stand last and are no questions."""

from collections.abc import Sequence

_WORDS = frozenset(
    (
        *("total", "totals", "grand total", "subtotal", "sum", "average", "mean", "avg"),
        *("overall", "accuracy", "summe", "gesamt", "gesamtsumme", "gesamtergebnis"),
        *("mittelwert", "durchschnitt", "totaux", "total général", "somme", "moyenne", "suma"),
        *("promedio", "media", "total general", "totale", "somma", "totaal", "som", "gemiddelde"),
        *("soma", "média", "合计", "总计", "平均", "合計"),
    )
)
# Rows that number those before and after them begin there.
_FIRST_NUMBERS = (0, 1)


def is_total(text: str) -> bool:
    """Whether the name of a row says that it sums up others.

    >>> is_total(" Total: "), is_total("Total cost of 3 apples?")
    (True, False)
    """
    return text.strip().rstrip(":").strip().casefold() in _WORDS


def about_total(text: str) -> str:
    """What an error says of such a row."""
    return f"must be a question, got {text[:60]!r}, which looks like a row of totals: remove it"


def numbers_rows(texts: Sequence[object], least: int = 3) -> bool:
    """Whether a column counts the rows, from 0 or 1; fewer rows than `least` may be a coincidence.

    >>> numbers_rows(["1", "2", "3"]), numbers_rows(["1", "0", "1"])
    (True, False)
    """
    if len(texts) < least:
        return False
    try:
        numbers = [float(str(text)) for text in texts]
    except ValueError:
        return False
    first = numbers[0]
    return first in _FIRST_NUMBERS and numbers == [first + i for i in range(len(numbers))]
