"""The candidates' health: what is known of each, and how it combines into who may be asked."""

from collections.abc import Callable, Sequence

from trunkline_server.core.breaker import Breaker, State
from trunkline_server.core.candidate import Candidate
from trunkline_server.core.concurrency import ConcurrencyLimit
from trunkline_server.core.failure import CONSEQUENCES, Failure
from trunkline_server.core.hedging import FirstTokens, HedgeAllowance
from trunkline_server.core.retry_budget import RetryBudget
from trunkline_server.core.retry_throttle import RetryThrottle
from trunkline_server.core.throttling import Throttling

FULL_WAIT_S = 1.0
MIN_SILENCE_S = 2.0  # Shorter ones are held against nobody who may take longer.
USUAL_TIMES = 3  # So many times what is usual is silence that tells.
UNKNOWN_SHARE = 0.25  # Of its own limit, where nothing is usual yet.
CLOCK_S = 0.005  # A timer may fire a little early.
TOO_MUCH_LOAD = frozenset({429, 503, 529})


class Health:
    """What this process knows of one candidate. The budget is that of its provider."""

    __slots__ = (
        "breaker",
        "budget",
        "concurrency",
        "first_tokens",
        "is_panicking",
        "throttle",
        "throttling",
        "wholes",
    )

    def __init__(
        self, candidate: Candidate, budget: RetryBudget, random: Callable[[], float]
    ) -> None:
        self.breaker = Breaker(random)
        self.budget = budget
        self.concurrency = ConcurrencyLimit(candidate.max_concurrency)
        self.throttle = RetryThrottle()
        self.throttling = Throttling(random)
        self.first_tokens = FirstTokens()
        self.wholes = (
            FirstTokens()
        )  # Of answers that came whole, which is when their first token came.
        self.is_panicking = False  # An attempt is under way although the breaker is open.

    def is_full(self, now_s: float) -> bool:
        """Does it run as many attempts as it has been found to bear?"""
        return not self.concurrency.has_room and self.concurrency.is_binding(now_s)

    def is_throttled(self, now_s: float) -> bool:
        """Is it only left alone, and nothing else wrong with it?"""
        return self.breaker.is_cooling(now_s) and self.breaker.state(now_s) is State.CLOSED

    def allows(self, now_s: float) -> bool:
        """May it be asked now?"""
        return self.breaker.allows(now_s) and not self.is_full(now_s)

    def is_telling(self, silence_s: float, own_s: float, *, whole: bool) -> bool:
        """Does such a silence before content say something about it, and not of who was in a hurry?

        Args:
            own_s: what it may take by its own configuration.
            whole: it was asked for an answer in one piece.
        """
        if silence_s >= own_s - CLOCK_S:
            return True
        usual_s = (self.wholes if whole else self.first_tokens).usual_s
        enough_s = UNKNOWN_SHARE * own_s if usual_s is None else USUAL_TIMES * usual_s
        return silence_s >= max(enough_s, MIN_SILENCE_S)


class Circuits:
    """Everybody's health in one process. Bounded by the number of configured candidates and routes."""

    def __init__(self, random: Callable[[], float]) -> None:
        self._random = random
        self._health: dict[str, Health] = {}
        self._budgets: dict[str, RetryBudget] = {}
        self._allowances: dict[str, HedgeAllowance] = {}

    def health(self, candidate: Candidate) -> Health:
        """The candidate's own."""
        health = self._health.get(candidate.key)
        if health is None:
            budget = self._budgets.setdefault(candidate.provider, RetryBudget())
            health = self._health[candidate.key] = Health(candidate, budget, self._random)
        return health

    def hedges(self, route: str) -> HedgeAllowance:
        """The hedges that a route has left."""
        return self._allowances.setdefault(route, HedgeAllowance())

    def allows(self, candidate: Candidate, now_s: float) -> bool:
        """May it be asked now?"""
        return self.health(candidate).allows(now_s)

    def choose(self, candidates: Sequence[Candidate], now_s: float) -> Candidate | None:
        """The first that may be asked and has room; without such a one, the first that may be asked."""
        crowded: Candidate | None = None
        for candidate in candidates:
            health = self.health(candidate)
            if health.allows(now_s):
                if health.concurrency.has_room:
                    return candidate
                crowded = crowded or candidate
        return crowded

    def least_bad(self, candidates: Sequence[Candidate], now_s: float) -> Candidate | None:
        """When none is allowed: the open one whose time is up first, unless it is being tried already.

        One that asked to be left alone is left alone all the same, and so is a full one.
        """
        free = [c for c in candidates if self._may_panic(self.health(c), now_s)]
        return min(free, key=lambda c: self.health(c).breaker.available_at_s(now_s), default=None)

    def _may_panic(self, health: Health, now_s: float) -> bool:
        return (
            not health.is_panicking
            and not health.breaker.is_on_trial
            and not health.breaker.is_cooling(now_s)
            and not health.is_full(now_s)
        )

    def all_throttled(self, candidates: Sequence[Candidate], now_s: float) -> bool:
        """Did every one of them ask to be left alone, or is as busy as it can be?"""
        return all(
            health.is_throttled(now_s) or health.is_full(now_s)
            for health in map(self.health, candidates)
        )

    def shortest_wait_s(self, candidates: Sequence[Candidate], now_s: float) -> float:
        """Seconds until one of them may be asked again."""
        return min(self._wait_s(self.health(c), now_s) for c in candidates)

    def _wait_s(self, health: Health, now_s: float) -> float:
        wait_s = max(0.0, health.breaker.available_at_s(now_s) - now_s)
        return max(wait_s, FULL_WAIT_S) if health.is_full(now_s) else wait_s

    def begin(self, candidate: Candidate, now_s: float, *, is_first: bool) -> "Permit":
        """An attempt starts; `is_first` unless it asks the same candidate again."""
        health = self.health(candidate)
        is_panic = not health.breaker.allows(now_s)
        is_trial = health.breaker.state(now_s) is not State.CLOSED
        if is_panic:
            health.is_panicking = True
        if is_first:
            health.budget.earn(now_s)
        health.concurrency.begin()
        return Permit(health, health.breaker.begin(), now_s, is_panic, is_trial)


class Permit:
    """What an attempt holds of its candidate. Ends once, by one of its methods."""

    __slots__ = ("_began_s", "_health", "_is_panic", "_is_trial", "_is_trying", "_round")

    def __init__(
        self, health: Health, round_: int, began_s: float, is_panic: bool, is_trial: bool
    ) -> None:
        self._health = health
        self._round = round_
        self._began_s = began_s
        self._is_panic = is_panic
        self._is_trial = is_trial
        self._is_trying = is_trial  # Others wait for what comes of it.

    def begin_answer(self) -> None:
        """Content has come: whoever waits for this trial to tell something waits no longer."""
        self._health.throttling.answer()
        if self._is_trying and not self._is_panic:
            self._is_trying = False
            self._health.breaker.begin_answer(self._round)

    def succeed(self, now_s: float, first_token_s: float | None) -> None:
        """The attempt served its answer. `first_token_s`: how long a streamed one took to begin."""
        health = self._end()
        health.breaker.succeed(now_s, self._round, is_trial=self._is_trying)
        health.throttle.succeed()
        health.concurrency.succeed(now_s, self._began_s, first_token_s)
        if first_token_s is not None:
            health.first_tokens.add(first_token_s)
        else:
            health.wholes.add(now_s - self._began_s)

    def fail(
        self,
        now_s: float,
        failure: Failure,
        retry_after_s: float | None = None,
        http_status: int = 0,
        *,
        is_neutral: bool = False,
    ) -> None:
        """The attempt failed. `is_neutral`: through no fault of the candidate."""
        if is_neutral:
            self.leave()
            return
        health = self._end()
        consequence = CONSEQUENCES[failure]
        if failure is Failure.THROTTLED and not retry_after_s:
            retry_after_s = health.throttling.refuse(now_s, self._began_s)
        if consequence.cools and retry_after_s:
            health.breaker.cool(now_s + retry_after_s, now_s)
        if consequence.opens or consequence.trips:
            health.breaker.fail(
                now_s, self._round, at_once=consequence.opens, is_trial=self._is_trying
            )
        else:
            health.breaker.neutral(self._round, is_trial=self._is_trying)
        if consequence.trips or consequence.opens or consequence.cools:
            health.throttle.fail()
        is_too_much = failure is Failure.THROTTLED or http_status in TOO_MUCH_LOAD
        if is_too_much and not self._is_trial:  # A trial is one attempt: that can't be too many.
            health.concurrency.congest(now_s, self._began_s)
        else:
            health.concurrency.end()

    def leave(self) -> None:
        """The attempt ended without saying anything about the candidate: cancelled, or never made."""
        health = self._end()
        health.breaker.neutral(self._round, is_trial=self._is_trying)
        health.concurrency.end()

    def _end(self) -> Health:
        if self._is_panic:
            self._health.is_panicking = False
        return self._health
