"""The candidates' health: a breaker for each, a retry budget for each provider, and how they combine."""

from collections.abc import Callable, Sequence

from trunkline_server.core.breaker import Breaker
from trunkline_server.core.candidate import Candidate
from trunkline_server.core.failure import CONSEQUENCES, Failure
from trunkline_server.core.retry_budget import RetryBudget


class Circuits:
    """Breakers and budgets of one process. Bounded by the number of configured candidates."""

    def __init__(self, random: Callable[[], float]) -> None:
        self._random = random
        self._breakers: dict[str, Breaker] = {}
        self._budgets: dict[str, RetryBudget] = {}
        self._panicking: dict[str, float] = {}  # When that attempt began.

    def breaker(self, candidate: Candidate) -> Breaker:
        """The candidate's own."""
        breaker = self._breakers.get(candidate.key)
        if breaker is None:
            breaker = self._breakers[candidate.key] = Breaker(self._random)
        return breaker

    def budget(self, candidate: Candidate) -> RetryBudget:
        """That of the candidate's provider."""
        budget = self._budgets.get(candidate.provider)
        if budget is None:
            budget = self._budgets[candidate.provider] = RetryBudget()
        return budget

    def allows(self, candidate: Candidate, now_s: float) -> bool:
        """May it be asked now?"""
        breaker = self._breakers.get(candidate.key)
        return breaker is None or breaker.allows(now_s)

    def least_bad(self, candidates: Sequence[Candidate], now_s: float) -> Candidate | None:
        """When none is allowed: the open one whose time is up first, unless it is being tried already.

        One that asked to be left alone is left alone all the same.
        """
        free = [
            c
            for c in candidates
            if c.key not in self._panicking
            and not self.breaker(c).is_on_trial
            and not self.breaker(c).is_cooling(now_s)
        ]
        return min(free, key=lambda c: self.breaker(c).available_at_s(now_s), default=None)

    def all_cool(self, candidates: Sequence[Candidate], now_s: float) -> bool:
        """Did every one of them ask to be left alone?"""
        return all(self.breaker(c).is_cooling(now_s) for c in candidates)

    def shortest_wait_s(self, candidates: Sequence[Candidate], now_s: float) -> float:
        """Seconds until one of them may be asked again."""
        return max(0.0, min(self.breaker(c).available_at_s(now_s) for c in candidates) - now_s)

    def begin(self, candidate: Candidate, now_s: float) -> None:
        """An attempt starts."""
        breaker = self.breaker(candidate)
        if not breaker.allows(now_s):
            self._panicking[candidate.key] = now_s
        breaker.begin(now_s)

    def end(
        self,
        candidate: Candidate,
        now_s: float,
        began_s: float,
        failure: Failure | None,
        retry_after_s: float | None = None,
    ) -> None:
        """An attempt ended: None for success, `Failure.DEADLINE` for anything that says nothing about the candidate."""
        if self._panicking.get(candidate.key) == began_s:
            del self._panicking[candidate.key]
        breaker = self.breaker(candidate)
        if failure is None:
            breaker.succeed(now_s, began_s)
            return
        consequence = CONSEQUENCES[failure]
        if consequence.cools and retry_after_s:
            breaker.cool(now_s + retry_after_s, now_s)
        if consequence.opens or consequence.trips:
            breaker.fail(now_s, began_s, at_once=consequence.opens)
        else:
            breaker.neutral(now_s, began_s)
