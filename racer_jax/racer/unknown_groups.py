"""Queries of a group without calibration queries, or of none: what they get, and the warning.

Where thresholds are by group, such a query has none. Calibration says what it gets, the artefact
records it, and a decision names it as its reason.
"""

import warnings
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from threading import Lock
from typing import Literal, get_args
from weakref import WeakKeyDictionary

from racer_jax.racer.errors import UnknownGroupError, UnknownGroupWarning
from racer_jax.racer.wording import counted

UnknownGroup = Literal["all", "pooled", "error"]
UNKNOWN_GROUP: tuple[str, ...] = get_args(UnknownGroup)
_GETS = {
    "all": "every model is called",
    "pooled": "the threshold of all groups together is used, with no promise for it",
}
# Names come with the queries, so there may be any number of them.
_MOST_WARNINGS = 100
_LOCK = Lock()
_WARNED: "WeakKeyDictionary[object, set[str | None]]" = WeakKeyDictionary()


def check_unknown_group(policy: str) -> None:
    """Refuses an unknown policy.

    Use this when a policy comes from a caller or a file.

    Raises:
      ValueError: If it is none of `UNKNOWN_GROUP`.
    """
    if policy not in UNKNOWN_GROUP:
        raise ValueError(f"unknown_group must be one of {UNKNOWN_GROUP}, got {policy!r}")


def check_groups(names: Sequence[object]) -> None:
    """Refuses groups that are no names: a number that is one elsewhere would be an unknown group.

    Use this when the groups of queries come from a caller.

    Raises:
      TypeError: If one is neither a string nor None.
    """
    for row, name in enumerate(names):
        if name is not None and not isinstance(name, str):
            raise TypeError(f"groups must be strings or None, got {name!r} for query {row}")


def handle_unknown(
    calibration: object, policy: str, known: Sequence[str], names: Iterable[str | None]
) -> None:
    """Warns of each unknown group once, or refuses it, as the policy says.

    Use this when queries are about to be decided.

    Args:
      calibration: Whose policy it is; each calibration warns once of each group. Its `max_models`,
        where it has one, says how many models are called at most.
      policy: `"all"`, `"pooled"` or `"error"`.
      known: The groups it was calibrated on.
      names: Groups that are not among them, None where a query names none.

    Raises:
      UnknownGroupError: If the policy is `"error"` and there is such a group.
    """
    gets, most = _GETS.get(policy, ""), getattr(calibration, "max_models", None)
    if policy == "all" and most is not None:
        gets = f"no more than {counted(most)} may be called, with no promise for it"
    for name in dict.fromkeys(names):
        sentence = unknown_sentence(name, known)
        if policy == "error":
            raise UnknownGroupError(sentence)
        with _LOCK:
            before = _WARNED.setdefault(calibration, set())
            if name in before or len(before) >= _MOST_WARNINGS:
                continue
            before.add(name)
            last = len(before) == _MOST_WARNINGS
        more = "; no further unknown group is reported" if last else ""
        warnings.warn(f"{sentence}; {gets}{more}", UnknownGroupWarning, stacklevel=6)


def unknown_sentence(name: str | None, known: Sequence[str]) -> str:
    """What is wrong with a group, and which was perhaps meant.

    Use this when one query is refused and the others go on.
    """
    if not known:
        return "no group was given, and the models have an order for each group"
    if name is None:
        return f"no group was given, and there is a threshold for each of {_listed(known)}"
    by_lower = {group.lower(): group for group in known}
    close = get_close_matches(name.lower(), list(by_lower), 1)
    if close:
        return f"the group {name!r} is unknown (did you mean {by_lower[close[0]]!r}?)"
    return f"the group {name!r} is unknown (calibrated on {_listed(known)})"


def _listed(known: Sequence[str], most: int = 8) -> str:
    """The names of the groups, the first of them where there are many."""
    named = ", ".join(map(repr, known[:most]))
    return named if len(known) <= most else f"{named} and {len(known) - most} more"
