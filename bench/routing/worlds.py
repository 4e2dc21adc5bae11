"""Worlds in which routing policies are judged. Pure: a kind and a seed make the same world on every machine.

A world is 4 to 8 candidates and requests that arrive by a Poisson process on a simulated clock. An attempt at a
candidate succeeds after a log-normal time to first token, or fails: at once (an error comes back) or silently (the
first token never comes, and neither does any that would take longer than TIMEOUT_S). A request asks one candidate
after the other until one succeeds.

**Loss** is what the caller of one request pays, in seconds: the time of all attempts until the first token,
failed ones included; plus the known loss of the candidate that answered; plus EXHAUSTED_S when none did. The known
loss is what a caller would wait for a more accurate or a cheaper answer. It is 0 where callers optimise for nothing
but time. For balanced callers it follows from the published weights (accuracy .5, latency .3, cost .2): accuracy is
scaled to 0..1 between the worst and the best candidate, price by the dearest one, and a whole unit of latency is
LATENCY_UNIT_S; so the known loss is LATENCY_UNIT_S x (.5 / .3 x (1 - accuracy) + .2 / .3 x price).

**Common random numbers.** What an attempt would bring is drawn for every pair of request and candidate before any
policy runs, from the conditions at the request's arrival. So all policies meet the same luck, a policy's choices
cannot change what the others meet, and differences between policies are differences of paired values. Providers,
their weather, arrivals, luck and the scoring run have random streams of their own: two kinds with one seed have the
same providers and arrivals. Asking the same candidate twice for one request would bring the same outcome, so an order
names each candidate once.

**The best order.** Attempts fail independently of each other once the conditions are given. With a_i the expected
cost of one attempt at i (its known loss included, when it succeeds) and p_i its probability of failure, an order
costs a_1 + p_1 (a_2 + p_2 (...)). Swapping two neighbours shows that the order by a_i / (1 - p_i) is the cheapest,
whatever the loss of running out of candidates. The conditions are known here, so that order is, too.
"""

import math
from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from random import Random
from typing import Final

# Disjoint, and fixed before any policy was tuned. Testing seeds are for the last word, not for looking.
TUNING_SEEDS: Final = tuple(range(1_000, 1_010))
TESTING_SEEDS: Final = tuple(range(2_000, 2_010))

REQUESTS: Final = 10_000  # Of one run: five and a half hours at the usual rate.
RATE_PER_S: Final = 0.5
STEP_S: Final = 20.0  # Conditions hold for so long.

TIMEOUT_S: Final = (
    15.0  # An attempt without a first token ends: the gateway's own timeout in the mode "fast".
)
EXHAUSTED_S: Final = 30.0  # The loss of no answer at all, beside the time it took.
SCORING_PROMPTS: Final = 20  # Of one scoring run, for each candidate.
SCORING_RUNS: Final = 30  # That might have been made. Policies are told of the first.

ACCURACY_PER_LATENCY: Final = 0.5 / 0.3
COST_PER_LATENCY: Final = 0.2 / 0.3
LATENCY_UNIT_S: Final = 1.0

MIN_CANDIDATES: Final = 4
MAX_CANDIDATES: Final = 8
MEDIAN_S: Final = (0.25, 1.6)
SIGMA: Final = (0.25, 0.6)
FAILURE: Final = (0.001, 0.02)
SILENT_SHARE: Final = (0.0, 0.3)  # Of the failures in fair weather.
REFUSAL_S: Final = (0.05, 0.8)  # How long a failure takes that is not silent.
ACCURACY: Final = (0.55, 0.9)
PRICE_USD: Final = (0.2, 15.0)  # Per million tokens.

# The logarithm of a drifting median follows an Ornstein-Uhlenbeck process and the hours of the day.
DRIFT_SIGMA: Final = 0.5
DRIFT_TIME_S: Final = 7_200.0
DAY_S: Final = 86_400.0
DAY_AMPLITUDE: Final = (0.0, 0.4)
JUMP_EVERY_S: Final = (
    5_400.0  # In a world of jumps the median is drawn anew, of each candidate by itself.
)

# Denser than in life, where one would wait for weeks: each candidate is in trouble for 6 % of the time or so.
INCIDENT_EVERY_S: Final = 5_400.0  # Of fair weather before the next.
INCIDENT_S: Final = (60.0, 1_200.0)
BROWNOUT_FAILURE: Final = (0.3, 0.6)
BROWNOUT_SILENT_SHARE: Final = (0.0, 0.5)
SLOWNESS: Final = 10.0


@dataclass(frozen=True, slots=True)
class Kind:
    """What happens in a world.

    Attributes:
        drifts: medians wander, and follow the hours.
        jumps: medians change at once: a new deployment behind a name, a bad one that recovers.
        has_incidents: refusals, silence, brownouts and slowness, for minutes.
        is_balanced: callers weigh accuracy and cost as well.
    """

    drifts: bool = False
    jumps: bool = False
    has_incidents: bool = False
    is_balanced: bool = False

    @property
    def is_stationary(self) -> bool:
        """Nothing changes."""
        return not (self.drifts or self.jumps or self.has_incidents)


KINDS: Final[Mapping[str, Kind]] = {
    "stationary": Kind(),
    "drifting": Kind(drifts=True),
    "jumping": Kind(jumps=True),
    "outages": Kind(has_incidents=True),
    "drifting-outages": Kind(drifts=True, has_incidents=True),
    "balanced": Kind(drifts=True, has_incidents=True, is_balanced=True),
}


class Trouble(Enum):
    """What an incident does to its candidate."""

    REFUSING = "refusing"
    SILENT = "silent"
    BROWNOUT = "brownout"
    SLOW = "slow"


@dataclass(frozen=True, slots=True)
class Incident:
    """From `start_s` up to `end_s`. `failure` and `silent_share` are those of a brownout."""

    start_s: float
    end_s: float
    trouble: Trouble
    failure: float
    silent_share: float


@dataclass(frozen=True, slots=True)
class Condition:
    """How one candidate does for one step.

    Attributes:
        log_median_s, sigma: of the time to first token.
        failure: the probability that an attempt fails whatever its time.
        silent_share: of those failures, how many cost the whole TIMEOUT_S; the others cost `refusal_s`.
    """

    log_median_s: float
    sigma: float
    failure: float
    silent_share: float
    refusal_s: float

    def attempt(self, known_loss_s: float) -> tuple[float, float]:
        """The expected cost of one attempt, and its probability of failure."""
        deadline = (math.log(TIMEOUT_S) - self.log_median_s) / self.sigma
        in_time = _normal_cdf(deadline)
        mean_s = math.exp(self.log_median_s + self.sigma * self.sigma / 2)
        served = (1 - self.failure) * in_time
        cost_s = (
            self.failure
            * (self.silent_share * TIMEOUT_S + (1 - self.silent_share) * self.refusal_s)
            + (1 - self.failure) * (1 - in_time) * TIMEOUT_S
            # The mean of the log-normal up to the time-out, times the probability to be below it.
            + (1 - self.failure) * mean_s * _normal_cdf(deadline - self.sigma)
            + served * known_loss_s
        )
        return cost_s, 1 - served

    def draw(self, normal: float, uniform: float) -> tuple[float, bool]:
        """One attempt from two random numbers: how long it takes, and whether it fails."""
        if uniform < self.failure:
            is_silent = uniform < self.failure * self.silent_share
            return (TIMEOUT_S if is_silent else self.refusal_s), True
        elapsed_s = math.exp(self.log_median_s + self.sigma * normal)
        return (elapsed_s, False) if elapsed_s < TIMEOUT_S else (TIMEOUT_S, True)


@dataclass(frozen=True, slots=True)
class Moment:
    """What holds for one step: conditions by candidate, and what follows from them.

    Attributes:
        attempts: expected cost and probability of failure, by candidate.
        best: indices of candidates, in the order with the least expected loss.
    """

    conditions: tuple[Condition, ...]
    attempts: tuple[tuple[float, float], ...]
    best: tuple[int, ...]

    def expected_loss_s(self, order: Sequence[int]) -> float:
        """Of a request whose candidates are tried in this order; all of them are in it."""
        loss_s = 0.0
        reached = 1.0
        for i in order:
            cost_s, failure = self.attempts[i]
            loss_s += reached * cost_s
            reached *= failure
        return loss_s + reached * EXHAUSTED_S


@dataclass(frozen=True, slots=True)
class Offer:
    """What everybody knows of a candidate before any request. `known_loss_s` is the loss beside that of time."""

    name: str
    known_loss_s: float


@dataclass(frozen=True, slots=True)
class Scoring:
    """A scoring run's measurements of one candidate: times of the answers that came, and how many failed."""

    latencies_s: tuple[float, ...]
    failures: int


@dataclass(frozen=True, slots=True)
class World:
    """One run, whole.

    Attributes:
        scorings: by name; each made right before the first request, in fair weather.
        moments: one for each STEP_S.
        incidents: by candidate, in order, apart from each other.
        elapsed_s, failed: what an attempt would bring, at request x number of candidates + candidate.
    """

    kind: str
    seed: int
    offers: tuple[Offer, ...]
    scorings: tuple[Mapping[str, Scoring], ...]
    moments: tuple[Moment, ...]
    incidents: tuple[tuple[Incident, ...], ...]
    arrivals_s: Sequence[float] = field(repr=False)
    elapsed_s: Sequence[float] = field(repr=False)
    failed: bytes = field(repr=False)

    def moment(self, now_s: float) -> Moment:
        """What holds at an instant."""
        return self.moments[min(int(now_s / STEP_S), len(self.moments) - 1)]


@dataclass(frozen=True, slots=True)
class _Provider:
    """One candidate in fair weather."""

    fair: Condition
    accuracy: float
    price_usd: float


def world(kind: str, seed: int, requests: int = REQUESTS, rate_per_s: float = RATE_PER_S) -> World:
    """The world of that kind and seed.

    Raises:
        KeyError: no such kind.
    """
    weather = KINDS[kind]
    providers = _providers(Random(f"{seed} providers"))
    offers = _offers(providers, weather.is_balanced)
    arrivals_s = array("d", _arrivals_s(Random(f"{seed} arrivals"), requests, rate_per_s))
    steps = int(arrivals_s[-1] / STEP_S) + 1
    incidents = tuple(
        tuple(_incidents(Random(f"{seed} incidents {i}"), steps * STEP_S))
        if weather.has_incidents
        else ()
        for i in range(len(providers))
    )
    fair = [
        list(_fair(provider.fair, weather, Random(f"{seed} weather {i}"), steps))
        for i, provider in enumerate(providers)
    ]
    scoring = Random(f"{seed} scoring")
    scorings = tuple(
        {offer.name: _scoring(path[0], scoring) for offer, path in zip(offers, fair, strict=True)}
        for _ in range(SCORING_RUNS)
    )
    paths = [list(_troubled(path, own)) for path, own in zip(fair, incidents, strict=True)]
    moments = tuple(_moments(paths, [offer.known_loss_s for offer in offers]))
    elapsed_s, failed = _luck(Random(f"{seed} luck"), arrivals_s, moments)
    return World(kind, seed, offers, scorings, moments, incidents, arrivals_s, elapsed_s, failed)


def _normal_cdf(z: float) -> float:
    return 0.5 * math.erfc(-z * math.sqrt(0.5))


def _log_uniform(random: Random, bounds: tuple[float, float]) -> float:
    return math.exp(random.uniform(math.log(bounds[0]), math.log(bounds[1])))


def _providers(random: Random) -> list[_Provider]:
    return [
        _Provider(
            Condition(
                log_median_s=math.log(_log_uniform(random, MEDIAN_S)),
                sigma=random.uniform(*SIGMA),
                failure=_log_uniform(random, FAILURE),
                silent_share=random.uniform(*SILENT_SHARE),
                refusal_s=_log_uniform(random, REFUSAL_S),
            ),
            accuracy=random.uniform(*ACCURACY),
            price_usd=_log_uniform(random, PRICE_USD),
        )
        for _ in range(random.randint(MIN_CANDIDATES, MAX_CANDIDATES))
    ]


def _offers(providers: Sequence[_Provider], is_balanced: bool) -> tuple[Offer, ...]:
    worst = min(provider.accuracy for provider in providers)
    spread = max(provider.accuracy for provider in providers) - worst
    dearest_usd = max(provider.price_usd for provider in providers)

    def known_loss_s(provider: _Provider) -> float:
        accuracy = (provider.accuracy - worst) / spread
        price = provider.price_usd / dearest_usd
        return LATENCY_UNIT_S * (ACCURACY_PER_LATENCY * (1 - accuracy) + COST_PER_LATENCY * price)

    return tuple(
        Offer(f"provider-{i}/model", known_loss_s(provider) if is_balanced else 0.0)
        for i, provider in enumerate(providers)
    )


def _arrivals_s(random: Random, requests: int, rate_per_s: float) -> Iterator[float]:
    now_s = 0.0
    for _ in range(requests):
        now_s += random.expovariate(rate_per_s)
        yield now_s


def _incidents(random: Random, until_s: float) -> Iterator[Incident]:
    now_s = random.expovariate(1 / INCIDENT_EVERY_S)
    while now_s < until_s:
        end_s = now_s + _log_uniform(random, INCIDENT_S)
        yield Incident(
            now_s,
            end_s,
            random.choice(tuple(Trouble)),
            random.uniform(*BROWNOUT_FAILURE),
            random.uniform(*BROWNOUT_SILENT_SHARE),
        )
        now_s = end_s + random.expovariate(1 / INCIDENT_EVERY_S)


def _fair(fair: Condition, weather: Kind, random: Random, steps: int) -> Iterator[Condition]:
    """Conditions by step without incidents. The same object for as long as nothing changes."""
    decay = math.exp(-STEP_S / DRIFT_TIME_S)
    kick = DRIFT_SIGMA * math.sqrt(1 - decay * decay)
    drift = random.gauss(0.0, DRIFT_SIGMA)
    amplitude = random.uniform(*DAY_AMPLITUDE)
    phase = random.uniform(0.0, 2 * math.pi)
    jump_s = random.expovariate(1 / JUMP_EVERY_S)
    now = fair
    for step in range(steps):
        if weather.jumps and step * STEP_S >= jump_s:
            jump_s += random.expovariate(1 / JUMP_EVERY_S)
            now = _with_median(now, math.log(_log_uniform(random, MEDIAN_S)))
        if weather.drifts:
            day = amplitude * math.sin(phase + 2 * math.pi * step * STEP_S / DAY_S)
            yield _with_median(now, now.log_median_s + drift + day)
            drift = drift * decay + random.gauss(0.0, kick)
        else:
            yield now


def _with_median(condition: Condition, log_median_s: float) -> Condition:
    return Condition(
        log_median_s,
        condition.sigma,
        condition.failure,
        condition.silent_share,
        condition.refusal_s,
    )


def _troubled(path: Sequence[Condition], incidents: Sequence[Incident]) -> Iterator[Condition]:
    """The same path, with those steps made worse whose beginning lies in an incident."""
    coming = iter(incidents)
    incident = next(coming, None)
    for step, condition in enumerate(path):
        now_s = step * STEP_S
        while incident is not None and incident.end_s <= now_s:
            incident = next(coming, None)
        is_troubled = incident is not None and incident.start_s <= now_s
        yield _worsened(condition, incident) if incident and is_troubled else condition


def _worsened(condition: Condition, incident: Incident) -> Condition:
    median, sigma, refusal_s = condition.log_median_s, condition.sigma, condition.refusal_s
    match incident.trouble:
        case Trouble.REFUSING:
            return Condition(median, sigma, 1.0, 0.0, refusal_s)
        case Trouble.SILENT:
            return Condition(median, sigma, 1.0, 1.0, refusal_s)
        case Trouble.BROWNOUT:
            return Condition(median, sigma, incident.failure, incident.silent_share, refusal_s)
        case Trouble.SLOW:
            return _with_median(condition, median + math.log(SLOWNESS))


def _moments(paths: Sequence[Sequence[Condition]], known_s: Sequence[float]) -> Iterator[Moment]:
    """The same object for as long as nothing changes."""
    last: Moment | None = None
    for conditions in zip(*paths, strict=True):
        if last is None or any(
            now is not before and now != before
            for now, before in zip(conditions, last.conditions, strict=True)
        ):
            attempts = tuple(c.attempt(known) for c, known in zip(conditions, known_s, strict=True))
            index = [cost / (1 - p) if p < 1 else math.inf for cost, p in attempts]
            best = tuple(sorted(range(len(index)), key=index.__getitem__))
            last = Moment(conditions, attempts, best)
        yield last


def _luck(
    random: Random, arrivals_s: Sequence[float], moments: Sequence[Moment]
) -> tuple[Sequence[float], bytes]:
    """What every attempt would bring: `World.elapsed_s` and `World.failed`."""
    elapsed_s = array("d")
    failed = bytearray()
    for now_s in arrivals_s:
        for condition in moments[int(now_s / STEP_S)].conditions:
            elapsed, has_failed = condition.draw(random.gauss(0.0, 1.0), random.random())
            elapsed_s.append(elapsed)
            failed.append(has_failed)
    return elapsed_s, bytes(failed)


def _scoring(condition: Condition, random: Random) -> Scoring:
    attempts = [
        condition.draw(random.gauss(0.0, 1.0), random.random()) for _ in range(SCORING_PROMPTS)
    ]
    latencies_s = tuple(elapsed_s for elapsed_s, has_failed in attempts if not has_failed)
    return Scoring(latencies_s, SCORING_PROMPTS - len(latencies_s))
