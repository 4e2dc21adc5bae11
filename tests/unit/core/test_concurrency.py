"""How many attempts a candidate takes at once: slowly more while it serves, at once fewer when it is too many."""

from dataclasses import dataclass
from fractions import Fraction
from random import Random

import pytest

from tests.unit.core.walks import TICKS_PER_S, Step, go, lengths, seconds
from trunkline_server.core.concurrency import MIN_SAMPLES, SIGNS, START, ConcurrencyLimit


def serve(limit: ConcurrencyLimit, count: int, first_token_s: float | None = None) -> None:
    """One after the other."""
    for _ in range(count):
        limit.begin()
        limit.succeed(2.0, 1.0, first_token_s)


def congested(limit: ConcurrencyLimit, now_s: float, began_s: float) -> int:
    """The limit after one attempt was turned away."""
    limit.begin()
    limit.congest(now_s, began_s)
    return limit.limit


def grown(to: int) -> ConcurrencyLimit:
    """A limit that has grown that far."""
    limit = ConcurrencyLimit()
    while limit.limit < to:
        serve(limit, 1)
    return limit


def test_it_begins_at_thirty_two_and_binds_nobody():
    limit = ConcurrencyLimit()

    assert limit.limit == START == 32
    assert limit.has_room
    assert not limit.is_binding(3.0)


@pytest.mark.parametrize(("running", "has_room"), [(31, True), (32, False), (33, False)])
def test_there_is_room_below_the_limit(running, has_room):
    limit = ConcurrencyLimit()

    for _ in range(running):
        limit.begin()

    assert limit.has_room is has_room


@pytest.mark.parametrize(("successes", "found"), [(31, 32), (32, 33), (64, 33), (65, 34)])
def test_as_many_successes_as_it_is_high_raise_it_by_one(successes, found):
    limit = ConcurrencyLimit()

    serve(limit, successes)

    assert limit.limit == found


def test_it_grows_to_its_greatest_and_no_further():
    limit = ConcurrencyLimit(40)

    serve(limit, 10_000)

    assert limit.limit == 40


def test_a_greatest_below_the_usual_start_is_the_start():
    assert ConcurrencyLimit(4).limit == 4


def test_even_a_greatest_of_nothing_leaves_room_for_one():
    assert ConcurrencyLimit(0).limit == 1


def test_congestion_lowers_it_to_seven_tenths():
    limit = ConcurrencyLimit()

    found = [congested(limit, now_s, now_s - 0.5) for now_s in (1.0, 2.0, 3.0)]

    assert found == [22, 15, 10]
    assert not limit.is_binding(3.0)


@pytest.mark.parametrize("height", [40, 50, 60, 70, 80, 90, 100])
def test_seven_tenths_are_exact(height):
    assert congested(grown(height), 3.0, 2.5) == height * 7 // 10


def test_it_never_falls_below_one():
    limit = ConcurrencyLimit()

    found = [congested(limit, float(now_s), now_s - 0.5) for now_s in range(100)]

    assert found[-1] == 1
    assert limit.has_room


def test_a_decrease_forgets_the_successes_before_it():
    limit = ConcurrencyLimit()
    serve(limit, 31)
    congested(limit, 3.0, 2.5)

    serve(limit, 22)

    assert limit.limit == 22
    serve(limit, 1)
    assert limit.limit == 23


def test_attempts_that_began_before_the_decrease_lower_it_no_further():
    limit = ConcurrencyLimit()

    found = [congested(limit, now_s, 1.0) for now_s in (2.0, 2.1, 3.0, 60.0)]

    assert found == [22] * 4


def test_an_attempt_that_began_after_the_decrease_lowers_it_again():
    limit = ConcurrencyLimit()

    found = [congested(limit, 2.0, 1.0), congested(limit, 3.0, 2.5)]

    assert found == [22, 15]


def test_a_burst_that_is_turned_away_within_one_tick_of_the_clock_lowers_it_once():
    limit = ConcurrencyLimit()

    found = [congested(limit, 1.0, 1.0) for _ in range(5)]

    assert found == [22] * 5


def test_an_end_that_says_nothing_changes_nothing_but_the_room():
    limit = ConcurrencyLimit()
    for _ in range(32):
        limit.begin()

    limit.end()

    assert limit.has_room
    assert (limit.limit, limit.in_flight) == (32, 31)
    assert not limit.is_binding(3.0)


@pytest.mark.parametrize(("running", "found"), [(15, 32), (16, 22)])
def test_late_first_tokens_lower_it_while_half_of_it_is_used(running, found):
    limit = ConcurrencyLimit()
    serve(limit, MIN_SAMPLES, first_token_s=0.5)
    for _ in range(running):
        limit.begin()

    limit.succeed(3.0, 2.5, 60.0)

    assert limit.limit == found


@pytest.mark.parametrize(("samples", "found"), [(MIN_SAMPLES - 2, 32), (MIN_SAMPLES - 1, 22)])
def test_the_averages_mean_something_from_sixteen_samples_on(samples, found):
    limit = ConcurrencyLimit()
    serve(limit, samples, first_token_s=0.5)
    for _ in range(20):
        limit.begin()

    limit.succeed(3.0, 2.5, 60.0)

    assert limit.limit == found


def test_slowness_alone_lowers_it_but_binds_nobody():
    limit = ConcurrencyLimit()
    serve(limit, MIN_SAMPLES, first_token_s=0.5)
    for _ in range(20):
        limit.begin()

    limit.succeed(3.0, 2.5, 60.0)

    assert limit.limit < START
    assert not limit.is_binding(3.0)


@pytest.mark.parametrize(
    ("running", "greatest", "found"),
    [(1, 1_024, 22), (32, 1_024, 22), (100, 1_024, 70), (100, 50, 35)],
)
def test_what_was_in_flight_when_it_said_that_it_is_too_much_is_lowered(running, greatest, found):
    limit = ConcurrencyLimit(greatest)
    for _ in range(running):
        limit.begin()

    limit.congest(3.0, 2.5)

    assert limit.limit == found
    assert not limit.is_binding(3.0)


def test_it_refuses_once_the_candidate_has_said_so_five_times_and_until_that_is_ten_seconds_ago():
    limit = ConcurrencyLimit()

    found = []
    for number in range(SIGNS):
        found.append(limit.is_binding(3.0))
        congested(limit, 3.0 + number, 2.5 + number)

    assert found == [False] * SIGNS
    assert limit.is_binding(7.0)
    assert limit.is_binding(13.0)
    assert not limit.is_binding(13.1)


def test_while_it_refuses_what_is_in_flight_does_not_raise_it():
    limit = ConcurrencyLimit()
    for number in range(SIGNS):
        congested(limit, 1.0 + number, 0.5 + number)
    height = limit.limit
    for _ in range(100):
        limit.begin()

    limit.congest(6.0, 5.5)

    assert limit.limit == height * 7 // 10


def test_one_first_token_that_is_only_ten_times_later_lowers_nothing():
    limit = ConcurrencyLimit()
    serve(limit, 200, first_token_s=0.5)
    height = limit.limit
    for _ in range(height):
        limit.begin()

    limit.succeed(3.0, 2.5, 5.0)

    assert limit.limit == height


def test_answers_whose_first_token_is_unknown_are_only_counted():
    limit = ConcurrencyLimit()
    for _ in range(32):
        limit.begin()

    for _ in range(32):
        limit.succeed(2.0, 1.0, None)

    assert (limit.limit, limit.in_flight) == (33, 0)


@dataclass
class Running:
    """An attempt under way."""

    began: int


class LimitWalk:
    """The model keeps who is under way, the first tokens of all, the successes of each height, and all decreases.

    An attempt that began before the last decrease, or while the clock still showed its instant, lowers it no further.
    Unless the candidate has said five times in the last ten seconds that it is too much, more may be under way than the
    limit; what is under way when it says so is the limit then, before that is lowered.

    The averages are those of the docstring, weighed anew each time: the latest counts an eighth (a sixty-fourth), the
    one before that share of the rest, and the first one whatever is left.
    """

    def __init__(self, random: Random) -> None:
        self.stands_still = random.random() < 0.5
        self.greatest = random.choice([1, 2, 5, 12, 40, 100])
        self.load = random.choice([0.35, 0.5, 0.65, 0.8])
        self.trouble = random.choice([0.0, 0.01, 0.02, 0.2])
        self.limit = ConcurrencyLimit(self.greatest)
        self.now = random.randrange(1_000)
        self.height = Fraction(min(self.greatest, 32))
        self.successes = 0
        self.said_so_at: list[int] = []
        self.lowered_at = [-1]
        self.running: list[Running] = []
        self.first_tokens: list[float] = []

    @property
    def is_binding(self) -> bool:
        lately = [at for at in self.said_so_at if self.now - at <= 10 * TICKS_PER_S]
        return len(lately) >= SIGNS

    def average(self, share: float) -> float:
        weight, found = 1.0, 0.0
        for sample in reversed(self.first_tokens[1:]):
            found += weight * share * sample
            weight *= 1 - share
        return found + weight * self.first_tokens[0]

    @property
    def is_late(self) -> bool:
        return len(self.first_tokens) >= 16 and self.average(1 / 8) > 2 * self.average(1 / 64)

    def choose(self, random: Random) -> Step:
        if random.random() < 0.2:
            return ("wait", random.choice([0, 1, 64]))
        if random.random() < self.load:
            return ("begin",)
        which = random.choice([0, -1, random.randrange(1_000)])
        if random.random() < self.trouble:
            return (random.choice(["congest", "end"]), which)
        usual = random.choice([0.5, 0.625, 0.75])
        first_token_s = random.choice(
            [None, usual, usual, usual, usual * random.choice([1, 9, 33])]
        )
        return ("succeed", which, first_token_s)

    def take(self, step: Step) -> None:
        match step:
            case ("wait", length):
                self.now += length
            case ("begin",):
                # Where it binds, at times one more than there is room for.
                if not self.is_binding or len(self.running) < self.height:
                    self.limit.begin()
                    self.running.append(Running(self.now))
                    self.now += not self.stands_still
            case (kind, which, *rest) if self.running:
                attempt = self.running[which % len(self.running)]
                getattr(self, kind)(attempt, *rest)
                self.running.remove(attempt)
        assert self.limit.in_flight == len(self.running)
        assert self.limit.limit == int(self.height)
        assert 1 <= self.limit.limit <= self.greatest
        assert self.limit.has_room is (len(self.running) < int(self.height))
        assert self.limit.is_binding(seconds(self.now)) is self.is_binding

    def succeed(self, attempt: Running, first_token_s: float | None) -> None:
        self.limit.succeed(seconds(self.now), seconds(attempt.began), first_token_s)
        if first_token_s is not None:
            self.first_tokens.append(first_token_s)
            if self.is_late and 2 * len(self.running) >= int(self.height):
                self.lower(attempt)
                return
        self.successes += 1
        if self.successes >= self.height:
            self.height = min(self.height + 1, Fraction(self.greatest))
            self.successes = 0

    def congest(self, attempt: Running) -> None:
        self.limit.congest(seconds(self.now), seconds(attempt.began))
        if not self.is_binding and attempt.began > self.lowered_at[-1]:
            self.height = min(
                max(self.height, Fraction(len(self.running))), Fraction(self.greatest)
            )
        self.said_so_at.append(self.now)
        self.lower(attempt)

    def end(self, attempt: Running) -> None:
        self.limit.end()

    def lower(self, attempt: Running) -> None:
        if attempt.began > self.lowered_at[-1]:
            self.height = max(Fraction(1), self.height * 7 / 10)
            self.successes = 0
            self.lowered_at.append(self.now)


@lengths
def test_it_does_what_the_whole_history_says(steps):
    go(LimitWalk, steps, lengths=(100, 300, 600))
