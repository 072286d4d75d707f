"""What the tests of exchangeability begin with: the top scores of the calibration queries.

The promise counts on live queries being exchangeable with those of the calibration, group by group.
So each group has a test of its own, and its stream begins with calibration queries: a change that
came before the first live query is then seen too. The scores are put into a random order that the
artefact alone decides, so that replicas, and a gateway that starts again, do the same; the first
part chooses the bins, which must not see the stream, and the rest begins the stream.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import blake2b

import numpy as np

from racer_jax.racer.racer import Racer
from racer_jax.serving.gateway._loaded import calibration_of
from racer_jax.serving.monitor import ExchangeabilityMonitor

# The one group of an artefact that has one threshold for all.
EVERYTHING = "all"
# Scores of a group that are kept at most: for its bins, and for the beginning of its stream.
_MOST_FOR_BINS, _MOST_FIRST = 200, 500


@dataclass
class Reference:
    """Top scores of the calibration queries of an artefact.

    Attributes:
      groups: The groups calibrated on; None for one threshold for all.
      bins: Scores that choose the bins, by group; empty where the artefact keeps no queries.
      first: Scores that begin the stream, by group.
    """

    groups: list[str] | None = None
    bins: dict[str, list[float]] = field(default_factory=dict)
    first: dict[str, list[float]] = field(default_factory=dict)

    def group_of(self, group: str | None) -> str | None:
        """The group whose test a decision belongs to; None where it belongs to none."""
        if self.groups is None:
            return EVERYTHING
        return group if group in self.groups else None


def seed_of(artefact: str, group: str) -> int:
    """The seed of what is random in a test, decided by the artefact and the group alone."""
    digest = blake2b(f"{artefact} {group}".encode(), digest_size=4).digest()
    return int.from_bytes(digest, "little")


def reference_of(racer: Racer, artefact: str) -> Reference:
    """The top scores that an artefact keeps of its calibration queries.

    Args:
      racer: The artefact.
      artefact: Its checksum.
    """
    calibration = calibration_of(racer)
    groups = None if calibration.groups is None else list(calibration.groups)
    reference, record = Reference(groups), calibration.record
    if record is None:
        return reference
    top = record.scores.max(axis=1)
    named = np.full(len(top), EVERYTHING)
    if groups is not None and record.groups is not None:
        named = np.asarray(record.groups)[record.code]
    for group in (EVERYTHING,) if groups is None else groups:
        scores = top[named == group]
        scores = np.random.default_rng(seed_of(artefact, group)).permutation(scores)
        num = min(len(scores) // 2, _MOST_FOR_BINS)
        reference.bins[group] = scores[:num].tolist()
        reference.first[group] = scores[num : num + _MOST_FIRST].tolist()
    return reference


def begun(
    reference: Reference, artefact: str, level: float
) -> Mapping[str, ExchangeabilityMonitor]:
    """The tests of an artefact, their streams begun; none for a group with too few scores.

    Args:
      reference: Its top scores.
      artefact: Its checksum.
      level: Chance of a false alarm of each test, ever.
    """
    tests = {}
    for group, scores in reference.bins.items():
        if len(set(scores)) > 1:
            test = ExchangeabilityMonitor.over(scores, level=level, seed=seed_of(artefact, group))
            tests[group] = test.update(reference.first.get(group, ()))
    return tests
