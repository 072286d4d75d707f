"""The vote of answers that arrive one after another, and when it is decided.

The rule is that of `Racer.aggregate`: the answer of most models; ties go to the higher mean score
of those who gave it, then to the first answer in the order of strings. It is decided where no
answers to come can change the winner; what is cancelled then would have changed nothing.
"""

from collections.abc import Collection, Mapping
from fractions import Fraction


class Vote:
    """Answers in normal form, as they come.

    Args:
      scores: The router's score of every model that is asked.
    """

    def __init__(self, scores: Mapping[str, float]) -> None:
        self._scores = scores
        self._awaited = set(scores)
        self.answers: dict[str, str | None] = {}
        self._voters: dict[str, list[str]] = {}

    def add(self, model: str, answer: str | None) -> None:
        """The answer of a model; None where it gave none."""
        self._awaited.discard(model)
        self.answers[model] = answer
        if answer is not None:
            self._voters.setdefault(answer, []).append(model)

    @property
    def counts(self) -> dict[str, int]:
        """Number of models for each answer, most first."""
        ordered = sorted(self._voters, key=lambda answer: (-len(self._voters[answer]), answer))
        return {answer: len(self._voters[answer]) for answer in ordered}

    @property
    def winner(self) -> str | None:
        """The answer of those heard so far; None where nobody gave one."""
        if not self._voters:
            return None
        most = max(map(len, self._voters.values()))
        tied = [answer for answer, voters in self._voters.items() if len(voters) == most]
        if len(tied) == 1:
            return tied[0]
        return min(tied, key=lambda answer: (-self._mean(self._voters[answer]), answer))

    def voters(self, answer: str) -> list[str]:
        """Who gave an answer, in the order of arrival."""
        return self._voters.get(answer, [])

    def decided_without(self, lost: Collection[str]) -> bool:
        """Whether the winner would be the same whatever these models had answered."""
        if not lost:
            return self.decided()
        again = Vote(self._scores)
        for model, answer in self.answers.items():
            if model not in lost:
                again.add(model, answer)
        return again.decided()

    def decided(self) -> bool:
        """Whether no answers to come can change the winner."""
        if not self._awaited:
            return True
        num = len(self._awaited)
        winner = self.winner if len(self.answers) >= num else None  # others may win yet
        if winner is None:
            return False
        voters = self._voters[winner]
        lead = len(voters) - num
        rivals = [(answer, others) for answer, others in self._voters.items() if answer != winner]
        for answer, others in rivals:
            if len(others) > lead:
                return False
            if len(others) == lead and not self._beats(winner, voters, answer, others):
                return False
        # An answer that nobody has given yet.
        return lead > 0 or (lead == 0 and self._mean(voters) > self._mean(self._awaited))

    def _beats(self, winner: str, voters: list[str], answer: str, others: list[str]) -> bool:
        """Whether the winner keeps its place when all who are awaited give this answer."""
        ours, theirs = self._mean(voters), self._mean({*others, *self._awaited})
        return ours > theirs or (ours == theirs and winner < answer)

    def _mean(self, models: "set[str] | list[str]") -> Fraction:
        return sum((Fraction(self._scores[model]) for model in models), Fraction()) / len(models)
