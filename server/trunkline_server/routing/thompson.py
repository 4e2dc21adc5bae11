"""Discounted Thompson sampling over what candidates have shown lately. Sans-I/O: the caller brings the clock.

**Time to first token.** Of each candidate, the mean and variance of its logarithm, in which an observation counts less
with every later one (GAMMA) and with time (HALF_LIFE_S). What is forgotten gives way to what the candidate is usually
like, a slow average that starts at its scoring run. So one that was slow, and is asked no more, becomes after a while
one that may be well again; and the longer nobody asked, the less certain its mean.

**Failures.** A candidate is well and fails now and then, which a slow average counts; or it is in trouble, and fails
with TROUBLE_FAILURE. The probability of trouble follows from each outcome by Bayes' rule and, with nothing heard, goes
back to TROUBLE_SHARE. One lone failure is then hardly held against a candidate that fails rarely, and a few in a row
are the end of its lead. A mere discounted share of failures has to be either slow to notice or easily scared.

**Choice.** The index of a candidate is what it costs per answer: its mean time, plus its known loss, plus what failed
attempts cost before one succeeds. The order by index is the best one if the belief is right, and most requests get it.
EXPLORED_SHARE of them, picked by a hash of their id, explore instead: every candidate whose index is at most NEAR times
the best draws a belief that it may be true, and the best draw but for the leader's is asked first; but a candidate that
nobody has ever asked goes before. The same id, clock and observations give the same order.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from random import Random
from typing import Final, NamedTuple, Protocol

GAMMA: Final = 0.98
HALF_LIFE_S: Final = 600.0
USUAL_GAMMA: Final = 0.999
USUAL_FIRST: Final = (
    20  # So many observations, the scoring run's included, make a plain mean of what is usual.
)
USUAL_WEIGHT: Final = 1.0  # Of what is usual, in observations.
SIGMA: Final = 0.5  # Of the logarithm, while little is known.
SIGMA_WEIGHT: Final = 10.0
UNKNOWN_S: Final = 1.0  # Time to first token of a candidate that nobody has measured.
MIN_LATENCY_S: Final = 1e-3  # Less is no time that a provider took.

TROUBLE_FAILURE: Final = 0.3
TROUBLE_SHARE: Final = 0.005
TROUBLE_S: Final = 150.0
FAILURE: Final = 0.01  # Of a candidate that is well, while little is known.
FAILURE_WEIGHT: Final = 50.0
FAILURE_GAMMA: Final = 0.998
FAILURE_S: Final = 3.0  # What a failed attempt takes, while none was seen.
FAILURE_STEP: Final = 0.3
MIN_FAILURE: Final = 1e-4
MAX_TROUBLE: Final = 0.999

EXPLORED_SHARE: Final = 0.02
NEAR: Final = 2.0
REFRESH_S: Final = 10.0  # An index without news is good for so long.

HASH_BYTES: Final = 8
FORGETTING_PER_S: Final = math.log(2) / HALF_LIFE_S
PRIOR_WEIGHT: Final = (1 - GAMMA) * SIGMA_WEIGHT
PRIOR_SQUARES: Final = PRIOR_WEIGHT * SIGMA * SIGMA


class Offer(Protocol):
    """A candidate, and its loss in seconds beside that of time: what it lacks in accuracy, what it costs more."""

    @property
    def name(self) -> str: ...

    @property
    def known_loss_s(self) -> float: ...


class Measured(Protocol):
    """A scoring run's attempts at one candidate: times of the answers that came, and how many failed."""

    @property
    def latencies_s(self) -> Sequence[float]: ...

    @property
    def failures(self) -> int: ...


@dataclass(frozen=True, slots=True)
class Expectation:
    """What the next attempt is thought to bring.

    Attributes:
        latency_s: the mean time to first token, of an attempt that succeeds.
        failure: the probability of the other kind.
        lost_s: what failed attempts cost for each answer, in the mean.
    """

    latency_s: float
    failure: float
    lost_s: float


class Fortune:
    """How often a candidate fails, and how likely it is in trouble: the same for whoever asks it for what.

    Attributes:
        failure: the probability, while it is well.
    """

    __slots__ = ("_at_s", "_trouble", "failure")

    def __init__(self, measured: Measured | None, now_s: float) -> None:
        failures = measured.failures if measured else 0
        attempts = len(measured.latencies_s) + failures if measured else 0
        self._at_s = now_s
        self._trouble = TROUBLE_SHARE
        self.failure = (failures + FAILURE * FAILURE_WEIGHT) / (attempts + FAILURE_WEIGHT)

    def trouble(self, now_s: float) -> float:
        """The probability now."""
        idle_s = now_s - self._at_s
        if idle_s <= 0:
            return self._trouble
        return TROUBLE_SHARE + (self._trouble - TROUBLE_SHARE) * math.exp(-idle_s / TROUBLE_S)

    def see(self, now_s: float, failed: bool) -> float:
        """An attempt ended. Returns how much it says about how often the candidate fails while it is well."""
        trouble, failure = self.trouble(now_s), self.failure
        if failed:
            in_trouble, well = trouble * TROUBLE_FAILURE, (1 - trouble) * failure
        else:
            in_trouble, well = trouble * (1 - TROUBLE_FAILURE), (1 - trouble) * (1 - failure)
        trouble = in_trouble / (in_trouble + well)
        # What happens in trouble says nothing about how often a candidate fails that is well.
        step = (1 - FAILURE_GAMMA) * (1 - trouble)
        self.failure = max(MIN_FAILURE, failure + step * (failed - failure))
        self._trouble = min(MAX_TROUBLE, trouble)
        if now_s > self._at_s:
            self._at_s = now_s
        return step


class Belief:
    """About one candidate. When the clock runs backwards, no time has passed.

    Args:
        fortune: the candidate's. Whoever else adds to it says `reconsider` here.

    Attributes:
        index_s: what an answer costs in time, the mean over all that may be true: `latency_s + lost_s`.
        good_until_s: from then on `refresh` it.
        is_blank: no time is known of it, not even from a scoring run.
    """

    __slots__ = (
        "_at_s",
        "_failure_s",
        "_fortune",
        "_log_s",
        "_lost_s",
        "_squares",
        "_squares_weight",
        "_usual_count",
        "_usual_log_s",
        "_variance",
        "_weight",
        "good_until_s",
        "index_s",
        "is_blank",
    )

    def __init__(self, measured: Measured | None, now_s: float, fortune: Fortune) -> None:
        logs = [math.log(max(s, MIN_LATENCY_S)) for s in measured.latencies_s] if measured else []
        failures = measured.failures if measured else 0
        self._fortune = fortune
        self._at_s = now_s
        self._weight = float(len(logs))
        self._log_s = sum(logs) / len(logs) if logs else math.log(UNKNOWN_S)
        self._usual_log_s = self._log_s
        self._usual_count = len(logs)
        self.is_blank = not (logs or failures)
        self._squares = sum((log_s - self._log_s) ** 2 for log_s in logs)
        self._squares += SIGMA * SIGMA * SIGMA_WEIGHT
        self._squares_weight = self._weight + SIGMA_WEIGHT
        self._variance = self._squares / self._squares_weight
        self._lost_s = fortune.failure * FAILURE_S
        self._failure_s = FAILURE_S
        self.good_until_s = -math.inf
        self.index_s = self.refresh(now_s)

    def refresh(self, now_s: float) -> float:
        """Makes `index_s` anew, and returns it."""
        idle_s = max(0.0, now_s - self._at_s)
        weight = self._weight * math.exp(-FORGETTING_PER_S * idle_s)
        usual = USUAL_WEIGHT / (weight + USUAL_WEIGHT)
        log_s = self._log_s + usual * (self._usual_log_s - self._log_s)
        trouble = self._fortune.trouble(now_s)
        failing = trouble * TROUBLE_FAILURE
        lost_s = failing * self._failure_s + (1 - trouble) * self._lost_s
        lost_s /= 1 - failing - (1 - trouble) * self._fortune.failure
        self.good_until_s = now_s + REFRESH_S
        self.index_s = math.exp(log_s + self._variance / 2) + lost_s
        return self.index_s

    def expected(self, now_s: float) -> Expectation:
        """What `index_s` is made of."""
        log_s, _ = self._mean(now_s)
        return self._expectation(log_s, self._fortune.trouble(now_s))

    def drawn(self, now_s: float, random: Random) -> Expectation:
        """If what is drawn were true: each belief with the probability that it has."""
        log_s, weight = self._mean(now_s)
        log_s = random.gauss(log_s, math.sqrt(self._variance / (weight + USUAL_WEIGHT)))
        is_in_trouble = random.random() < self._fortune.trouble(now_s)
        return self._expectation(log_s, float(is_in_trouble))

    def see(self, now_s: float, latency_s: float | None, failed: bool) -> None:
        """An attempt ended: `latency_s` until its first token, or until it failed; None if neither is known."""
        step = self._fortune.see(now_s, failed)
        self.good_until_s = -math.inf
        if latency_s is None:
            return
        self.is_blank = False
        self._lost_s += step * (failed * latency_s - self._lost_s)
        if failed:
            self._failure_s += FAILURE_STEP * (latency_s - self._failure_s)
            return
        log_s, self._weight = self._mean(now_s)
        self._at_s = max(now_s, self._at_s)
        self._time(math.log(max(MIN_LATENCY_S, latency_s)), log_s)

    def reconsider(self) -> None:
        """The candidate's fortune has changed."""
        self.good_until_s = -math.inf

    def outwait(self, now_s: float, waited_s: float) -> None:
        """Nobody waits any more for an attempt that has not begun to answer: it would have taken longer than that.

        What was to be expected anyway is no news.
        """
        log_s, weight = self._mean(now_s)
        if waited_s > math.exp(log_s + self._variance / 2):
            self._weight = weight
            self.is_blank = False
            self._at_s = max(now_s, self._at_s)
            self._time(math.log(waited_s), log_s)
            self.good_until_s = -math.inf

    def _mean(self, now_s: float) -> tuple[float, float]:
        """Of the logarithm of time to first token; and the weight of the observations in it."""
        weight = self._weight * math.exp(-FORGETTING_PER_S * max(0.0, now_s - self._at_s))
        usual = USUAL_WEIGHT / (weight + USUAL_WEIGHT)
        return self._log_s + usual * (self._usual_log_s - self._log_s), weight

    def _expectation(self, log_s: float, trouble: float) -> Expectation:
        failure = trouble * TROUBLE_FAILURE + (1 - trouble) * self._fortune.failure
        lost_s = trouble * TROUBLE_FAILURE * self._failure_s + (1 - trouble) * self._lost_s
        return Expectation(math.exp(log_s + self._variance / 2), failure, lost_s / (1 - failure))

    def _time(self, log_s: float, expected_log_s: float) -> None:
        # The prior variance stays in at its full weight, whatever else is forgotten.
        # The first observation of all differs from nothing.
        gap = log_s - expected_log_s if self._usual_count else 0.0
        self._squares = squares = self._squares * GAMMA + PRIOR_SQUARES + gap * gap
        self._squares_weight = weight = self._squares_weight * GAMMA + PRIOR_WEIGHT + 1
        self._variance = squares / weight
        kept = self._weight * GAMMA
        self._log_s = (self._log_s * kept + log_s) / (kept + 1)
        self._weight = kept + 1
        step = 1 - USUAL_GAMMA
        if self._usual_count < USUAL_FIRST:
            self._usual_count += 1
            step = 1 / self._usual_count
        self._usual_log_s += step * (log_s - self._usual_log_s)


# Of a candidate: its name, what is believed of it, and its known loss.
Row = tuple[str, Belief, float]


class Ranking(NamedTuple):
    """All candidates of one request.

    Attributes:
        names: in the order in which they are to be tried.
        losses_s: by name, what was expected of each.
        is_explored: the first is not the one with the least loss.
    """

    names: list[str]
    losses_s: Mapping[str, float]
    is_explored: bool


class Thompson:
    """The policy. Bounded by the number of candidates that it is ever asked about.

    Args:
        measured: by name, what a scoring run found.
        explored_share: 0 for nobody ever but the best.
        fortunes: by name, where another policy has them too; filled as candidates are met.
    """

    def __init__(
        self,
        measured: Mapping[str, Measured],
        explored_share: float = EXPLORED_SHARE,
        fortunes: dict[str, Fortune] | None = None,
    ) -> None:
        self._measured = measured
        self._fortunes = {} if fortunes is None else fortunes
        self._explored = explored_share * 256**HASH_BYTES
        self._beliefs: dict[str, Belief] = {}

    def belief(self, candidate: str, now_s: float) -> Belief:
        """Begins with its scoring run, if there was one, as if that were made when the candidate is first met."""
        belief = self._beliefs.get(candidate)
        if belief is None:
            measured = self._measured.get(candidate)
            fortune = self._fortunes.get(candidate)
            if fortune is None:
                fortune = self._fortunes[candidate] = Fortune(measured, now_s)
            belief = self._beliefs[candidate] = Belief(measured, now_s, fortune)
        return belief

    def order(self, now_s: float, request_id: str, candidates: Sequence[Offer]) -> list[str]:
        """The names of all candidates, in the order in which they are to be tried."""
        rows = [(o.name, self.belief(o.name, now_s), o.known_loss_s) for o in candidates]
        return self.rank(now_s, request_id, rows).names

    def rank(
        self, now_s: float, request_id: str, rows: Sequence[Row], *, explores: bool = True
    ) -> Ranking:
        """The order, and what it follows from. Unless it `explores`, the best comes first."""
        losses_s = {
            name: known_loss_s
            + (belief.index_s if now_s < belief.good_until_s else belief.refresh(now_s))
            for name, belief, known_loss_s in rows
        }
        names = sorted(losses_s, key=losses_s.__getitem__)
        if not explores or not self._explored:
            return Ranking(names, losses_s, is_explored=False)
        digest = int.from_bytes(
            blake2b(request_id.encode(), digest_size=HASH_BYTES).digest(), "big"
        )
        if digest < self._explored:
            limit_s = NEAR * losses_s[names[0]]
            others = [row for row in rows if row[0] != names[0]]
            near = [row for row in others if row[1].is_blank]
            near = near or [row for row in others if losses_s[row[0]] <= limit_s]
            if near:
                first = _best_draw(now_s, near, Random(digest))
                names.remove(first)
                names.insert(0, first)
                return Ranking(names, losses_s, is_explored=True)
        return Ranking(names, losses_s, is_explored=False)

    def observe(self, now_s: float, candidate: str, latency_s: float | None, failed: bool) -> None:
        """An attempt ended. Its time as in `Belief.see`."""
        self.belief(candidate, now_s).see(now_s, latency_s, failed)


def _best_draw(now_s: float, rows: Sequence[Row], random: Random) -> str:
    def drawn_s(row: Row) -> float:
        _, belief, known_loss_s = row
        drawn = belief.drawn(now_s, random)
        return drawn.latency_s + drawn.lost_s + known_loss_s

    return min(rows, key=drawn_s)[0]
