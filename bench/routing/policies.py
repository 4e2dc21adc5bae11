"""What is judged: the interface of a routing policy, policies to measure others against, and the list of all."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from statistics import fmean
from typing import Final, Protocol

from bench.routing.worlds import Offer, Scoring, World
from trunkline_server.core.breaker import Breaker, State
from trunkline_server.routing.thompson import Thompson

FAILURE_PRIOR: Final = 0.01
FAILURE_PRIOR_WEIGHT: Final = 20  # Attempts that the prior stands for.
FAILURE_S: Final = 3.0  # What a failure is thought to cost while none was seen.
MOVING_SHARE: Final = 0.05  # Of the newest value in a moving average.
EXPLORED_SHARE: Final = 0.02


class Policy(Protocol):
    """Orders the candidates of each request, and is told how attempts ended."""

    def order(self, now_s: float, request_id: str, candidates: Sequence[Offer]) -> Sequence[str]:
        """The names of all candidates, each once, in the order in which they are to be tried."""

    def observe(self, now_s: float, candidate: str, latency_s: float | None, failed: bool) -> None:
        """An attempt ended now; calls come in the order of time, late attempts late.

        Args:
            latency_s: time to the first token, or until it failed. None: nobody waited for either.
        """


@dataclass(frozen=True, slots=True)
class Briefing:
    """All that a policy may know before the first request.

    Attributes:
        scoring: by name.
        seed: for a policy that draws.
    """

    candidates: tuple[Offer, ...]
    scoring: Mapping[str, Scoring]
    seed: int


def briefing(world: World) -> Briefing:
    return Briefing(world.offers, world.scorings[0], world.seed)


def index_s(latency_s: float, failure: float, failure_s: float, known_loss_s: float) -> float:
    """What a candidate costs per answer: the lower it is, the earlier the candidate should be tried.

    The expected cost of an attempt, divided by the probability that it is the last, as explained in `worlds`.
    """
    if failure >= 1:
        return float("inf")
    return latency_s + known_loss_s + failure_s * failure / (1 - failure)


class Clairvoyant:
    """Knows the conditions, though not the luck. The measure of all the others."""

    def __init__(self, world: World) -> None:
        self._world = world

    def order(self, now_s: float, request_id: str, candidates: Sequence[Offer]) -> Sequence[str]:
        return [candidates[i].name for i in self._world.moment(now_s).best]

    def observe(self, now_s: float, candidate: str, latency_s: float | None, failed: bool) -> None:
        pass


class Average:
    """Moving averages of one candidate's attempts, from a scoring run on."""

    def __init__(self, scoring: Scoring) -> None:
        attempts = len(scoring.latencies_s) + scoring.failures
        self.latency_s = fmean(scoring.latencies_s) if scoring.latencies_s else FAILURE_S
        self.failure = (scoring.failures + FAILURE_PRIOR * FAILURE_PRIOR_WEIGHT) / (
            attempts + FAILURE_PRIOR_WEIGHT
        )
        self.failure_s = FAILURE_S

    def index_s(self, known_loss_s: float) -> float:
        return index_s(self.latency_s, self.failure, self.failure_s, known_loss_s)

    def add(self, latency_s: float | None, failed: bool) -> None:
        self.failure += MOVING_SHARE * (failed - self.failure)
        if latency_s is None:
            return
        if failed:
            self.failure_s += MOVING_SHARE * (latency_s - self.failure_s)
        else:
            self.latency_s += MOVING_SHARE * (latency_s - self.latency_s)


def ranking(candidates: Sequence[Offer], scoring: Mapping[str, Scoring]) -> tuple[str, ...]:
    """Names in the order that a scoring run suggests."""

    def measured_s(offer: Offer) -> float:
        return Average(scoring[offer.name]).index_s(offer.known_loss_s)

    return tuple(offer.name for offer in sorted(candidates, key=measured_s))


class Static:
    """The ranking of one scoring run, for ever."""

    def __init__(self, briefing: Briefing) -> None:
        self._order = ranking(briefing.candidates, briefing.scoring)

    def order(self, now_s: float, request_id: str, candidates: Sequence[Offer]) -> Sequence[str]:
        return self._order

    def observe(self, now_s: float, candidate: str, latency_s: float | None, failed: bool) -> None:
        pass


class Shuffled:
    """Any order."""

    def __init__(self, briefing: Briefing) -> None:
        self._random = Random(f"{briefing.seed} shuffled")

    def order(self, now_s: float, request_id: str, candidates: Sequence[Offer]) -> Sequence[str]:
        names = [offer.name for offer in candidates]
        self._random.shuffle(names)
        return names

    def observe(self, now_s: float, candidate: str, latency_s: float | None, failed: bool) -> None:
        pass


class MovingAverages:
    """Best moving average first, and now and then anybody, so that none is forgotten."""

    def __init__(self, briefing: Briefing) -> None:
        self._random = Random(f"{briefing.seed} moving averages")
        self._averages = {name: Average(scoring) for name, scoring in briefing.scoring.items()}

    def order(self, now_s: float, request_id: str, candidates: Sequence[Offer]) -> Sequence[str]:
        names = self._ranked(candidates)
        if self._random.random() < EXPLORED_SHARE:
            names.insert(0, names.pop(self._random.randrange(len(names))))
        return names

    def observe(self, now_s: float, candidate: str, latency_s: float | None, failed: bool) -> None:
        self._averages[candidate].add(latency_s, failed)

    def _ranked(self, candidates: Sequence[Offer]) -> list[str]:
        averages = self._averages
        ranked = sorted(candidates, key=lambda o: averages[o.name].index_s(o.known_loss_s))
        return [offer.name for offer in ranked]


class PowerOfTwo(MovingAverages):
    """The better of two that are drawn, then the others by their moving averages."""

    def order(self, now_s: float, request_id: str, candidates: Sequence[Offer]) -> Sequence[str]:
        names = self._ranked(candidates)
        first, second = self._random.sample(range(len(names)), 2)
        names.insert(0, names.pop(min(first, second)))
        return names


class Guarded:
    """A policy behind the gateway's own circuit breakers: who is not allowed comes last.

    An open circuit's one trial goes to a request that would have asked that candidate first.
    """

    def __init__(self, policy: Policy, briefing: Briefing) -> None:
        self._policy = policy
        random = Random(f"{briefing.seed} breakers").random
        self._breakers = {offer.name: Breaker(random) for offer in briefing.candidates}
        self._rounds = dict.fromkeys(self._breakers, 0)

    def order(self, now_s: float, request_id: str, candidates: Sequence[Offer]) -> Sequence[str]:
        order = self._policy.order(now_s, request_id, candidates)
        breakers = self._breakers
        refused = [name for name in order if not breakers[name].allows(now_s)]
        if refused:
            refused.sort(key=lambda name: breakers[name].available_at_s(now_s))
            order = [name for name in order if name not in refused] + refused
        for name in order:
            # Begun without being asked, a closed circuit only tells its round; an open one would count a trial.
            if name == order[0] or breakers[name].state(now_s) is State.CLOSED:
                self._rounds[name] = breakers[name].begin()
        return order

    def observe(self, now_s: float, candidate: str, latency_s: float | None, failed: bool) -> None:
        self._policy.observe(now_s, candidate, latency_s, failed)
        breaker = self._breakers[candidate]
        if failed:
            breaker.fail(now_s, self._rounds[candidate])
        else:
            breaker.succeed(now_s, self._rounds[candidate])


BASELINE: Final = "static"  # Whose regret the others' is a ratio of.

# A policy of the gateway's own is one more row: a class here that wraps it, made anew for each run.
POLICIES: Final[dict[str, Callable[[Briefing], Policy]]] = {
    BASELINE: Static,
    "static-breaker": lambda briefing: Guarded(Static(briefing), briefing),
    "random": Shuffled,
    "power-of-two": PowerOfTwo,
    "moving-averages": lambda briefing: Guarded(MovingAverages(briefing), briefing),
    "thompson": lambda briefing: Guarded(Thompson(briefing.scoring), briefing),
}
