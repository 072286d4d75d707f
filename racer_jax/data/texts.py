"""The text by which two questions are the same."""

import unicodedata

_MAX_MARKS = 1000


def normal_text(text: str) -> str:
    """The text by which two questions are the same: Unicode NFC, runs of white space as one.

    Use this when two texts may be the same question.
    """
    if not text.isascii() and not _has_many_marks(text):
        text = unicodedata.normalize("NFC", text)
    return " ".join(text.split())


def _has_many_marks(text: str) -> bool:
    """Whether a letter carries more marks than any script puts on one.

    To put a run of marks in order takes the square of its length: a megabyte of them takes hours.
    """
    run = 0
    for character in text if len(text) > _MAX_MARKS else "":
        run = run + 1 if unicodedata.combining(character) else 0
        if run > _MAX_MARKS:
            return True
    return False
