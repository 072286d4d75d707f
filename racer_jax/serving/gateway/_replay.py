"""Decides again what a gateway has decided, under another artefact, without a call."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from racer_jax.data.errors import DataError
from racer_jax.racer.errors import UnknownGroupWarning
from racer_jax.racer.racer import Racer
from racer_jax.serving.gateway._databases import reading, shown
from racer_jax.serving.gateway._monitoring import upper_bound
from racer_jax.serving.gateway._records import TRUSTED
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
      miss_rate_upper_bound: 95% upper bound of the new rate of misses; None without a label.
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


def replay(state: str | Path, racer: Racer, route: str | None = None) -> Replay:
    """Decides again, from the prompts that a state keeps.

    Args:
      state: The SQLite file of a gateway with `state.store_prompts`.
      racer: The other artefact.
      route: Only decisions of this route; of all where None.

    Raises:
      DataError: If it is no state, has no decision of the route, or keeps no prompt.
    """
    rows = _rows(state, route)
    if route is not None and not rows:
        raise DataError(f"holds no decision of --route {route!r}", path=shown(str(state)))
    stored = [row for row in rows if row["prompt"] is not None and row["pool"]]
    if not stored:
        raise DataError(
            "keeps no prompts to decide on again: say store_prompts = true in [state]",
            path=shown(str(state)),
        )
    groups: Sequence[str | None] | None = [row["grp"] for row in stored]
    known = None if racer.calibration is None else racer.calibration.groups
    if known is None:
        groups = None
    same = before = after = labelled = old_misses = new_misses = 0
    for start in range(0, len(stored), _BATCH):
        part = stored[start : start + _BATCH]
        names = None if groups is None else groups[start : start + _BATCH]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UnknownGroupWarning)  # they are counted
            decisions = racer.route([row["prompt"] for row in part], names)
        for i, row in enumerate(part):
            new = set(decisions[i].models)
            same += new == row["decided"]
            before, after = before + len(row["decided"]), after + len(new)
            pool = set(racer.models)
            null = bool(decisions.sets[i, -1])
            now = miss_of(row["label"], new, pool, null, racer.null)
            then = miss_of(row["label"], row["decided"], row["pool"], row["null"], racer.null)
            if now is not None and then is not None:
                labelled, old_misses = labelled + 1, old_misses + then
                new_misses += now
    bound = None
    if labelled:
        bound = upper_bound(new_misses, labelled)
    return Replay(
        num=len(stored),
        without_prompt=len(rows) - len(stored),
        unknown_group=0 if known is None else sum(row["grp"] not in known for row in stored),
        same=same,
        size_before=before / len(stored),
        size_after=after / len(stored),
        labelled=labelled,
        misses_before=old_misses,
        misses_after=new_misses,
        miss_rate_upper_bound=bound,
    )


def _rows(state: str | Path, route: str | None) -> list[dict[str, Any]]:
    """The decisions of a state, with the label of those that were audited."""
    with reading(state) as connection:
        rows = connection.execute(
            "select id, prompt, grp, decided, pool, null_in_set, audited from decision "
            "where artefact != '' and (? is null or route = ?) order by seq",
            [route, route],
        ).fetchall()
        labels = connection.execute(
            "select decision, source, content from feedback where source != 'user' order by seq"
        ).fetchall()
        correct: dict[str, list[dict[str, int]]] = {}
        for name, source, content in labels:
            said = msgspec.json.decode(content).get("correct")
            if source in TRUSTED and said is not None:
                correct.setdefault(name, []).append(said)
        plain = []
        for name, prompt, group, decided, pool, null, audited in rows:
            models = set(msgspec.json.decode(pool))
            # The first that says it of every model: others say nothing of a miss.
            whole = [said for said in correct.get(name, ()) if audited and models <= set(said)]
            plain.append(
                {
                    "prompt": prompt,
                    "grp": group,
                    "decided": set(msgspec.json.decode(decided)),
                    "pool": models,
                    "null": bool(null),
                    "label": {"correct": whole[0]} if whole else {},
                }
            )
    return plain
