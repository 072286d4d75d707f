"""The fields of a column as labels or numbers.

Spreadsheets write the same thing in many ways. What can mean one thing only is read, and said once,
in the note of `Rows.notes`; what can mean two things is refused.
"""

import re
from collections.abc import Callable

import numpy as np

from racer_jax.data.formats._rows import Chunk, Rows
from racer_jax.data.remedies import Remedy

# Fields that say that nothing is known, beside the empty one.
_UNKNOWN = frozenset({"na", "n/a", "n.a.", "#n/a", "null", "nan", "none", "<na>", "\\n"})
_UNKNOWN_NOTE = "NA, N/A, NaN, null and none stand for what is not known"
# 12,345 can be twelve thousand or twelve and a third; 0,345 and 12,34 can not.
_COMMA = re.compile(r"[+-]?\d+,\d+(?:[eE][+-]?\d+)?")
_AMBIGUOUS = re.compile(r"[+-]?[1-9]\d{0,2},\d{3}")
# Thousands apart by commas, and with the decimals or a second comma that make that certain.
_THOUSANDS = re.compile(r"[+-]?[1-9]\d{0,2}(?:,\d{3})+(?:\.\d*)?")
_SURE_THOUSANDS = re.compile(r"[+-]?[1-9]\d{0,2}(?:(?:,\d{3}){2,}(?:\.\d*)?|(?:,\d{3})+\.\d*)")
_SURE_POINTS = re.compile(r"[+-]?[1-9]\d{0,2}(?:(?:\.\d{3}){2,}(?:,\d*)?|(?:\.\d{3})+,\d*)")
# Spaces that do not break, and apostrophes, stand between thousands and nowhere else in a number.
_APART = re.compile(r"[+-]?[1-9]\d{0,2}(?:[\u00a0\u2009\u202f'\u2019]\d{3})+(?:[.,]\d*)?")
_BETWEEN = re.compile(r"[\u00a0\u2009\u202f'\u2019]")
_DOLLARS = re.compile(r"(?:US)?\$\s*|(?:USD)\s+|\s*\$$|\s+USD$", re.IGNORECASE)


def column_of_floats(
    file: Rows,
    chunk: Chunk,
    name: str,
    low: float = -np.inf,
    high: float = np.inf,
    whole: bool = False,
) -> np.ndarray:
    """A column of decimal numbers, float64; NaN where empty; anything else is refused.

    Args:
      file: The rows.
      chunk: Some of them.
      name: The column.
      low: The least it may hold.
      high: The most it may hold.
      whole: Whether its numbers are whole, so that a comma can only stand between thousands.

    Returns:
      float64 `[k]`.

    Raises:
      DataError: If a field is no such number, or can be two.
    """
    column = chunk.columns[name]
    joined = "".join(column)
    try:
        values = np.array([float(text) if text else np.nan for text in column])
        # float() also reads 1_000 and the digits of other scripts, and "nan"
        plain = joined.isascii() and "_" not in joined and not ("n" in joined or "N" in joined)
    except ValueError:
        plain = False
    if not plain:
        column = _plain_numbers(file, chunk, name, low, high, whole)
        values = np.array([float(text) if text else np.nan for text in column])
    empty = np.fromiter(map(len, column), np.int64, len(column)) == 0
    bad = ~(np.isfinite(values) & (values >= low) & (values <= high)) & ~empty
    for zero in np.flatnonzero(values == 0):  # 1e-400 is not zero
        bad[zero] |= any(digit in column[zero].lower().partition("e")[0] for digit in "123456789")
    if bad.any():
        first = int(np.flatnonzero(bad)[0])
        text = chunk.columns[name][first]
        raise file.error(_numeric(low, high, text), chunk.first_row + first, name)
    return values


def _plain_numbers(
    file: Rows, chunk: Chunk, name: str, low: float, high: float, whole: bool
) -> tuple[str, ...]:
    """A column with the ways of spreadsheets put into Python's; what is no number is refused."""
    texts = [text.strip() for text in chunk.columns[name]]
    is_money = low == 0
    if is_money and any("$" in text or "usd" in text.lower() for text in texts):
        file.accept("a dollar sign or USD may stand at a number")
        texts = [_DOLLARS.sub("", text, count=1) for text in texts]
    if any(map(_APART.fullmatch, texts)):
        file.accept("thousands may stand apart by hard spaces or apostrophes")
        texts = [_BETWEEN.sub("", text) if _APART.fullmatch(text) else text for text in texts]
    if any(map(_has_decimal_comma, texts)):
        file.decimal_commas.add(name)
    if whole or any(map(_SURE_THOUSANDS.fullmatch, texts)):
        file.thousand_commas.add(name)
    numbers = []
    for i, text in enumerate(texts):
        plain = text
        if plain.lower() in _UNKNOWN:
            file.unknown(plain, name)
            file.accept(_UNKNOWN_NOTE)
            plain = ""
        if "," in plain:
            plain = _without_commas(file, plain, name) or plain
        if "," in plain and _AMBIGUOUS.fullmatch(plain):
            raise file.error(
                f"must be a number with a decimal point, got {text[:60]!r}, which can be "
                f"{plain.replace(',', '.')} or {plain.replace(',', '')}",
                chunk.first_row + i,
                name,
            )
        if plain and not (is_number(plain) and plain.isascii() and "_" not in plain):
            got = chunk.columns[name][i]
            raise file.error(_numeric(low, high, got), chunk.first_row + i, name)
        numbers.append(plain)
    return tuple(numbers)


def _without_commas(file: Rows, text: str, name: str) -> str | None:
    """A number whose commas can only mean one thing in this column; None for any other."""
    decimal, thousands = name in file.decimal_commas, name in file.thousand_commas
    if decimal and thousands:
        return None
    if thousands and _THOUSANDS.fullmatch(text):
        file.accept("thousands may stand before a comma")
        return text.replace(",", "")
    if decimal and _SURE_POINTS.fullmatch(text):
        file.accept("thousands may stand before a point, and decimals after a comma")
        return text.replace(".", "").replace(",", ".")
    if _COMMA.fullmatch(text) and (decimal or not _AMBIGUOUS.fullmatch(text)):
        file.accept("decimals may stand after a comma")
        return text.replace(",", ".")
    return None


def _has_decimal_comma(text: str) -> bool:
    """Whether the comma of a number can only stand before its decimals."""
    sure = _COMMA.fullmatch(text) and not _AMBIGUOUS.fullmatch(text)
    return bool(sure or ("," in text and _SURE_POINTS.fullmatch(text)))


def _numeric(low: float, high: float, text: str) -> str:
    bounds = ""
    if np.isfinite(high):
        bounds = f" in [{low:g}, {high:g}]"
    elif np.isfinite(low):
        bounds = f" of at least {low:g}"
    problem = f"must be a number{bounds}, or empty where not known, got {text[:60]!r}"
    problem += _on_percentages(text)
    if set(text) & set("€£¥"):
        problem += ": amounts must be in dollars"
    return problem


def _on_percentages(text: str) -> str:
    """What to do about a percentage; empty for anything else."""
    if text.strip().endswith("%") and is_number(text.strip().removesuffix("%")):
        return ": write percentages without the sign, all as shares of 1 or all as of 100"
    return ""


def is_number(text: str) -> bool:
    """Whether `float` reads the text."""
    try:
        float(text)
    except ValueError:
        return False
    return True


_LABELS = {"1": 1, "0": 0, "1.0": 1, "0.0": 0, "true": 1, "false": 0, "": -1}
# A number of no more than a one or a zero, such as 1.00 or 1,0.
_ONE_OR_ZERO = re.compile(r"[+]?0*([01])(?:[.,]0*)?(?:[eE][+]?0+)?")
_WORDS: dict[str, int] = {}
_NOTE_OF: dict[str, str] = {}
for _note, _right, _wrong in (
    ("yes/no and y/n stand for right and wrong", "yes y", "no n"),
    ("t/f stand for right and wrong", "t", "f"),
    ("words such as pass/fail stand for right and wrong", "right pass passed", "wrong fail failed"),
    ("words such as pass/fail stand for right and wrong", "correct", "incorrect"),
    ("words such as pass/fail stand for right and wrong", "success succeeded", "failure"),
    ("ticks and crosses stand for right and wrong", "✓ ✔ ✔️ ✅ ☑ ☑️", "✗ ✘ ✖ ✖️ ❌ ✕"),
    ("true and false are written in another language", "wahr vrai verdadero", "falsch faux falso"),
    ("true and false are written in another language", "vero waar verdadeiro", "onwaar"),
    ("yes and no are written in another language", "ja oui si sí sim", "nein non nee não"),
):
    _WORDS |= dict.fromkeys(_right.split(), 1) | dict.fromkeys(_wrong.split(), 0)
    _NOTE_OF |= dict.fromkeys([*_right.split(), *_wrong.split()], _note)
_WORDS |= dict.fromkeys(_UNKNOWN, -1)
_NOTE_OF |= dict.fromkeys(_UNKNOWN, _UNKNOWN_NOTE)


def column_of_labels(file: Rows, chunk: Chunk, name: str, score: str | None = None) -> np.ndarray:
    """A column of 0/1 or True/False, int8; an empty field is -1 ("nobody evaluated this pair").

    Args:
      file: The rows.
      chunk: Some of them.
      name: The column.
      score: The column that a label rule reads, where it is another.

    Returns:
      int8 `[k]`.

    Raises:
      DataError: If a field is none of these.
    """
    column = chunk.columns[name]
    known: dict[str, int] = {}
    for text in set(column):
        label = _label(file, text, name)
        if label is not None:
            known[text] = label
    if len(known) < len(set(column)):
        i = next(i for i, text in enumerate(column) if text not in known)
        raise file.error(
            not_a_label(column[i]),
            chunk.first_row + i,
            name,
            remedy=_graded(file, column, name, i, score),
        )
    return np.array([known[text] for text in column], dtype=np.int8)


def _label(file: Rows, text: str, name: str) -> int | None:
    """The label that a field stands for, None where it stands for none."""
    label = label_of(text, file.accept)
    plain = text.strip().lower()
    if label == -1 and plain:
        file.unknown(plain, name)
    return label


def label_of(text: str, accept: Callable[[str], None]) -> int | None:
    """The label that a text stands for, -1 where it says that nothing is known.

    Args:
      text: The text.
      accept: Takes what is written in another way than 0, 1, True or False, for a note.

    Returns:
      The label; None where it stands for none.
    """
    plain = text.strip().lower()
    label = _LABELS.get(plain)
    if label is None and plain in _WORDS:
        label = _WORDS[plain]
        accept(_NOTE_OF[plain])
    elif label is None and (match := _ONE_OR_ZERO.fullmatch(plain)):
        label = int(match[1])
        accept("labels are numbers with decimals or signs")
    if label is not None and len(plain) < len(text):
        accept("labels are read without spaces around them")
    return label


def not_a_label(text: str) -> str:
    """What is wrong with a text that stands for no label."""
    problem = f"must be 0/1 or True/False, or empty where not evaluated, got {text[:60]!r}"
    return problem + _on_percentages(text)


def _graded(
    file: Rows, column: tuple[str, ...], name: str, row: int, score: str | None
) -> Remedy | None:
    """What to pass where a label is a score; None where it is no number."""
    if not is_number(column[row]) or column[row].strip().lower() in _UNKNOWN:
        return None
    numbers = [float(text) for text in column if is_number(text)]
    top = max((abs(number) for number in numbers if np.isfinite(number)), default=1.0)
    rule = "score > 0.5"
    if 1 < top <= 100:
        rule = "score > 50" if top > 10 else f"score > {top / 2:g}"
    if score is None or score in file.columns:
        return Remedy("for graded scores pass, for example: {}", label_rule=rule)
    columns = {score: file.theirs.get(name, name)}
    return Remedy("for graded scores pass, for example: {} {}", label_rule=rule, columns=columns)
