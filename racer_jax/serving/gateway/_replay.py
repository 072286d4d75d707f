"""Decides again what a gateway has decided, under another artefact, without a call."""

import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from racer_jax.data.errors import DataError
from racer_jax.racer.errors import UnknownGroupWarning
from racer_jax.racer.racer import Racer
from racer_jax.serving.gateway._databases import Connection, reading, shown
from racer_jax.serving.gateway._monitoring import upper_bound
from racer_jax.serving.gateway._records import TRUSTED
from racer_jax.serving.gateway._rows import (
    Kept,
    Said,
    UnreadableError,
    all_unreadable,
    kept_of,
    said_of,
)
from racer_jax.serving.misses import miss_of

_BATCH = 256


@dataclass(frozen=True)
class Replay:
    """What another artefact would have decided.

    Attributes:
      num: Decisions with a stored prompt.
      without_prompt: Decisions whose prompt was not stored.
      unknown_group: Decisions of no group, or of one that the new artefact has no threshold for.
      same: Decisions that call the same models.
      size_before: Mean number of models of the sets then.
      size_after: Mean number now.
      labelled: Labelled audits among them.
      misses_before: Misses of the old sets there.
      misses_after: Misses of the new ones.
      miss_rate_upper_bound: 95% upper bound of the new rate of misses; None without a label. A
        label that cannot be read, or is one of a decision that cannot be, counts as a miss.
      unreadable: Decisions that are left out, for they or their label cannot be read, and why.
    """

    num: int
    without_prompt: int
    unknown_group: int
    same: int
    size_before: float
    size_after: float
    labelled: int
    misses_before: int
    misses_after: int
    miss_rate_upper_bound: float | None
    unreadable: tuple[str, ...] = ()


@dataclass
class _Read:
    """The decisions of a state.

    Attributes:
      rows: Those that can be read, with their sets, their pools, and the labels of those that were
        audited.
      unreadable: Those that cannot be, by name, and why.
      unread_labels: The number of them that had a label, or may have had one.
    """

    rows: list[tuple[Kept, set[str], set[str], dict[str, Any]]] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)
    unread_labels: int = 0


def replay(state: str | Path, racer: Racer, route: str | None = None) -> Replay:
    """Decides again, from the prompts that a state keeps.

    Args:
      state: The SQLite file of a gateway with `state.store_prompts`.
      racer: The other artefact.
      route: Only decisions of this route; of all where None.

    Raises:
      DataError: If it is no state, has no decision of the route, or keeps no prompt.
    """
    read = _read(state, route)
    place = shown(str(state))
    if route is not None and not read.rows and not read.unreadable:
        raise DataError(f"holds no decision of --route {route!r}", path=place)
    if read.unreadable and not read.rows:
        raise all_unreadable(read.unreadable, place)
    stored = [row for row in read.rows if row[0].prompt is not None and row[2]]
    if not stored:
        raise DataError(
            "keeps no prompts to decide on again: say store_prompts = true in [state]", path=place
        )
    named = [decision.group for decision, *_ in stored]
    known = None if racer.calibration is None else racer.calibration.groups
    groups: Sequence[str | None] | None = None if known is None else named
    same = before = after = labelled = old_misses = new_misses = 0
    for start in range(0, len(stored), _BATCH):
        part = stored[start : start + _BATCH]
        names = None if groups is None else groups[start : start + _BATCH]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UnknownGroupWarning)  # they are counted
            decisions = racer.route([str(decision.prompt) for decision, *_ in part], names)
        for i, (decision, decided, models, label) in enumerate(part):
            new = set(decisions[i].models)
            same += new == decided
            before, after = before + len(decided), after + len(new)
            pool = set(racer.models)
            null = bool(decisions.sets[i, -1])
            now = miss_of(label, new, pool, null, racer.null)
            then = miss_of(label, decided, models, bool(decision.null_in_set), racer.null)
            if now is not None and then is not None:
                labelled, old_misses = labelled + 1, old_misses + then
                new_misses += now
    bound, unread = None, read.unread_labels
    if labelled:
        bound = upper_bound(new_misses + unread, labelled + unread)
    return Replay(
        num=len(stored),
        without_prompt=len(read.rows) - len(stored),
        unknown_group=0 if known is None else sum(group not in known for group in named),
        same=same,
        size_before=before / len(stored),
        size_after=after / len(stored),
        labelled=labelled,
        misses_before=old_misses,
        misses_after=new_misses,
        miss_rate_upper_bound=bound,
        unreadable=tuple(read.unreadable),
    )


def _read(state: str | Path, route: str | None) -> _Read:
    """The decisions of a state, of one route or of all."""
    read = _Read()
    with reading(state) as connection:
        labels = _labels(connection, read)
        rows = connection.execute(
            "select id, route, prompt, grp, decided, pool, null_in_set, audited from decision "
            "where artefact != '' order by seq"
        ).fetchall()
    for row in rows:
        # A route that is no text may have been any.
        if route is not None and isinstance(row[1], str) and row[1] != route:
            continue
        try:
            decision, decided, pool = kept_of(row)
        except UnreadableError as error:
            read.unreadable.append(f"decision {row[0]}: {error}")
            read.unread_labels += row[-1] != 0 and row[0] in labels
            continue
        said = _first(labels.get(decision.id, ()), pool) if decision.audited else None
        if isinstance(said, UnreadableError):
            read.unreadable.append(f"label of {decision.id}: {said}")
            read.unread_labels += 1
            said = None
        read.rows.append(
            (decision, decided, pool, {} if said is None else {"correct": said.correct})
        )
    return read


def _labels(connection: Connection, read: _Read) -> dict[Any, list[Said | UnreadableError]]:
    """What was said of each decision by others than users, in its order."""
    rows = connection.execute(
        "select f.decision, f.source, f.content, d.id from feedback f "
        "left join decision d on d.id = f.decision order by f.seq"
    )
    labels: dict[Any, list[Said | UnreadableError]] = {}
    for name, source, content, known in rows.fetchall():
        if source == "user":
            continue
        if known is None:
            read.unreadable.append(f"label of {name}: there is no such decision")
            read.unread_labels += 1
            continue
        try:
            if source not in TRUSTED:
                raise UnreadableError(f"source must be one of {', '.join(sorted(TRUSTED))}")
            said: Said | UnreadableError = said_of(content)
        except UnreadableError as error:
            said = error
        labels.setdefault(name, []).append(said)
    return labels


def _first(
    labels: Iterable[Said | UnreadableError], pool: set[str]
) -> Said | UnreadableError | None:
    """The first label that says it of every model, or that may have said it: others say no miss."""
    for said in labels:
        if isinstance(said, UnreadableError) or (said.correct and pool <= set(said.correct)):
            return said
    return None
