"""What is tested of one artefact of one route: counts, tests and their alarms."""

import shlex
from dataclasses import dataclass, field

from racer_jax.serving.gateway._references import Reference
from racer_jax.serving.monitor import ExchangeabilityMonitor, RiskMonitor

_RECALIBRATE = (
    "recalibrate on labels of requests since then (racer-jax recalibrate STATE --artefact FOLDER "
    "-o NEW --since-alarm --route {})"
)


@dataclass
class Watched:
    """What is tested of one artefact of one route.

    Attributes:
      route: Name of the route.
      artefact: The artefact's checksum.
      level: Chance that any of its monitors ever raises a false alarm.
      null: The null mode, which says what a miss is.
      risk: The test of the risk, by alpha.
      reference: Top scores of the calibration.
      live: Top scores that will choose the bins of a group without any in the calibration.
      top_scores: The test of exchangeability, by group, as soon as it has bins.
      labels: Audited requests whose set had a promise, and those of them with a label; misses;
        wrong answers though the set held a right one; answers shown, and the wrong ones of them;
        and, apart from all these, audited requests whose set had no promise, and labels that cannot
        be read.
      alarm_times: Seconds since 1970 of the request or label that raised an alarm, by its kind.
      users: What users said: number, and how many were wrong. It feeds no test.
      kept_alarms: Alarms, in words, by their kind, of tests whose own state could not be read.
    """

    route: str
    artefact: str
    level: float
    null: str = "paper"
    risk: dict[str, RiskMonitor] = field(default_factory=dict)
    reference: Reference = field(default_factory=Reference)
    live: dict[str, list[float]] = field(default_factory=dict)
    top_scores: dict[str, ExchangeabilityMonitor] = field(default_factory=dict)
    labels: dict[str, int] = field(
        default_factory=lambda: {
            "audited": 0,
            "num": 0,
            "misses": 0,
            "judged": 0,
            "judge_errors": 0,
            "without_promise": 0,
            "unreadable": 0,
        }
    )
    alarm_times: dict[str, float] = field(default_factory=dict)
    users: dict[str, int] = field(default_factory=lambda: {"num": 0, "wrong": 0})
    kept_alarms: dict[str, str] = field(default_factory=dict)

    @property
    def alarms(self) -> list[str]:
        """The tests that have raised an alarm, in words."""
        return list(self.alarms_by_kind.values())

    @property
    def alarms_by_kind(self) -> dict[str, str]:
        """The tests that have raised an alarm, in words, by what they say."""
        remedy = _RECALIBRATE.format(shlex.quote(self.route))
        words = {
            risk_kind(alpha): f"{risk_kind(alpha)} since label {monitor.alarm} (evidence "
            f"{monitor.evidence:.3g}): {remedy}"
            for alpha, monitor in self.risk.copy().items()  # another thread may add a test
            if monitor.alarm is not None
        }
        for group, top in self.top_scores.copy().items():
            if top.alarm is not None:
                kind = self.change_kind(group)
                live = max(top.alarm - len(self.reference.first.get(group, ())), 0)
                words[kind] = (
                    f"{kind} since tested decision {live} (evidence {top.evidence:.3g}): {remedy}"
                )
        return {**self.kept_alarms, **words}

    def change_kind(self, group: str) -> str:
        """What the alarm of the test of exchangeability of a group says."""
        which = "" if self.reference.groups is None else f" of the group {group!r}"
        return f"queries{which} have changed"

    @property
    def level_of_groups(self) -> float:
        """Chance of a false alarm of the test of exchangeability of each group, ever."""
        return self.level / 2 / max(len(self.reference.groups or ()), 1)

    @property
    def level_of_next_risk(self) -> float:
        """Chance of a false alarm of the test of the risk at one more alpha, ever.

        How many there will be is not known, so the j-th, from 0, has 1 / ((j + 1) (j + 2)) of half
        of the level: all of them together have that half, however many there are.
        """
        num = len(self.risk)
        return self.level / 2 / ((num + 1) * (num + 2))


def risk_kind(alpha: str) -> str:
    """What the alarm of the test of the risk says."""
    return f"risk above {alpha}"
