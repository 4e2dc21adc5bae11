"""The circuit breaker of one candidate, rule by rule, and against a model that recounts all of history each time."""

from dataclasses import dataclass
from random import Random

import pytest

from tests.unit.core.walks import Step, go, lengths, seconds, ticks
from trunkline_server.core.breaker import (
    CONSECUTIVE_FAILURES,
    COOLDOWN_MAX_S,
    OPEN_MAX_S,
    OPEN_S,
    WINDOW_MIN_OUTCOMES,
    WINDOW_S,
    Breaker,
    State,
)

START_S = 1_000.0


def new_breaker(jitter: float = 0.0) -> Breaker:
    """Of which the jitter is this share of its range."""
    return Breaker(lambda: jitter)


def attempt(breaker: Breaker, now_s: float, failed: bool) -> None:
    """One that begins and ends at once."""
    round_ = breaker.begin()
    if failed:
        breaker.fail(now_s, round_)
    else:
        breaker.succeed(now_s, round_)


def opened(now_s: float = START_S, jitter: float = 0.0) -> Breaker:
    """A breaker that opened just now, for the first time."""
    breaker = new_breaker(jitter)
    for _ in range(CONSECUTIVE_FAILURES):
        attempt(breaker, now_s, failed=True)
    return breaker


def test_a_new_breaker_is_closed():
    breaker = new_breaker()

    assert breaker.state(START_S) is State.CLOSED
    assert breaker.allows(START_S)
    assert breaker.available_at_s(START_S) <= START_S


@pytest.mark.parametrize(("failures", "state"), [(4, State.CLOSED), (5, State.OPEN)])
def test_five_failures_in_a_row_open_it(failures, state):
    breaker = new_breaker()

    for _ in range(failures):
        attempt(breaker, START_S, failed=True)

    assert breaker.state(START_S) is state
    assert breaker.allows(START_S) is (state is State.CLOSED)


def test_a_success_begins_the_row_anew():
    breaker = new_breaker()

    for failed in [True] * 4 + [False] + [True] * 4:
        attempt(breaker, START_S, failed)

    assert breaker.state(START_S) is State.CLOSED


@pytest.mark.parametrize(
    ("outcomes", "state"),
    [(WINDOW_MIN_OUTCOMES - 1, State.CLOSED), (WINDOW_MIN_OUTCOMES, State.OPEN)],
)
def test_half_of_twenty_failures_within_the_window_open_it(outcomes, state):
    breaker = new_breaker()

    for number in range(outcomes):
        attempt(breaker, START_S + number, failed=number % 2 == 1)

    assert breaker.state(START_S + outcomes) is state


def test_a_smaller_share_of_failures_does_not_open_it():
    breaker = new_breaker()

    for number in range(300):
        attempt(breaker, START_S + number / 10, failed=number % 5 in (1, 3))

    assert breaker.state(START_S + 30) is State.CLOSED
    assert breaker.error_rate(START_S + 30) == pytest.approx(0.4, abs=0.01)


def test_outcomes_older_than_the_window_do_not_count():
    breaker = new_breaker()

    for number in range(WINDOW_MIN_OUTCOMES):
        attempt(breaker, START_S + number * WINDOW_S / 10, failed=number % 2 == 1)

    assert breaker.state(START_S + 2 * WINDOW_S) is State.CLOSED


def test_a_refused_credential_opens_it_at_once():
    breaker = new_breaker()

    breaker.fail(START_S, breaker.begin(), at_once=True)

    assert breaker.state(START_S) is State.OPEN


@pytest.mark.parametrize(("jitter", "open_s"), [(0.0, 30.0), (0.5, 33.0), (1.0, 36.0)])
def test_it_stays_open_for_thirty_seconds_and_up_to_a_fifth_more(jitter, open_s):
    breaker = opened(jitter=jitter)

    assert breaker.available_at_s(START_S) == pytest.approx(START_S + open_s)
    assert breaker.state(START_S + open_s - 0.01) is State.OPEN
    assert not breaker.allows(START_S + open_s - 0.01)
    assert breaker.state(START_S + open_s) is State.HALF_OPEN
    assert breaker.allows(START_S + open_s)


def test_half_open_it_lets_one_attempt_through_at_a_time():
    breaker = opened()
    now_s = START_S + OPEN_S

    round_ = breaker.begin()

    assert not breaker.allows(now_s)
    breaker.succeed(now_s + 1, round_)
    assert breaker.allows(now_s + 1)


def test_a_trial_that_says_nothing_makes_room_for_the_next():
    breaker = opened()
    now_s = START_S + OPEN_S

    breaker.neutral(breaker.begin())

    assert breaker.state(now_s) is State.HALF_OPEN
    assert breaker.allows(now_s)


@pytest.mark.parametrize(("successes", "state"), [(2, State.HALF_OPEN), (3, State.CLOSED)])
def test_three_successes_close_it(successes, state):
    breaker = opened()

    for number in range(successes):
        attempt(breaker, START_S + OPEN_S + number, failed=False)

    assert breaker.state(START_S + OPEN_S + 10) is state


def test_once_closed_it_has_forgotten_what_it_counted():
    breaker = opened()
    now_s = START_S + OPEN_S
    for _ in range(3):
        attempt(breaker, now_s, failed=False)

    for _ in range(4):
        attempt(breaker, now_s, failed=True)

    assert breaker.state(now_s) is State.CLOSED


def test_a_failed_trial_opens_it_for_longer():
    breaker = opened()
    now_s = START_S + OPEN_S

    attempt(breaker, now_s, failed=True)

    assert breaker.state(now_s) is State.OPEN
    assert breaker.available_at_s(now_s) == now_s + 2 * OPEN_S


def test_it_never_stays_open_for_more_than_five_minutes():
    breaker = opened()

    lengths = []
    for _ in range(14):
        now_s = breaker.available_at_s(0)
        attempt(breaker, now_s, failed=True)
        lengths.append(breaker.available_at_s(0) - now_s)

    assert max(lengths) == OPEN_MAX_S
    assert lengths[:3] == [60.0, 90.0, 120.0]


def opened_often(openings: int) -> tuple[Breaker, float]:
    """A breaker that opened so often in a row and was closed then, and that instant."""
    breaker = opened()
    for _ in range(openings - 1):
        attempt(breaker, breaker.available_at_s(0), failed=True)
    closed_s = (
        breaker.available_at_s(0) + 10_000
    )  # That nobody asked for a long time proves nothing.
    for _ in range(3):
        attempt(breaker, closed_s, failed=False)
    return breaker, closed_s


@pytest.mark.parametrize(
    ("openings", "healthy_s", "open_s"),
    [
        (3, 0, 120),
        (3, 299, 120),
        (3, 300, 90),
        (3, 899, 60),
        (3, 900, 30),
        (3, 90_000, 30),
        (40, 299, 300),
        (40, 300, 300),
        (40, 600, 270),
    ],
)
def test_five_minutes_of_being_closed_forgive_one_opening(openings, healthy_s, open_s):
    breaker, closed_s = opened_often(openings)

    for _ in range(CONSECUTIVE_FAILURES):
        attempt(breaker, closed_s + healthy_s, failed=True)

    assert breaker.available_at_s(0) == closed_s + healthy_s + open_s


@pytest.mark.parametrize("jitter", [0.0, 0.12, 0.5, 1.0])
def test_one_that_is_dead_for_hours_is_asked_every_five_minutes(jitter):
    breaker = opened(jitter=jitter)

    lengths = []
    while (now_s := breaker.available_at_s(0)) < START_S + 6 * 3_600:
        attempt(breaker, now_s, failed=True)
        lengths.append(breaker.available_at_s(0) - now_s)

    longest_s = OPEN_MAX_S * (1 + 0.2 * jitter)
    assert lengths[8:] == [pytest.approx(longest_s)] * len(lengths[8:])
    assert len(lengths) > 60


@pytest.mark.parametrize(
    "end",
    [
        lambda breaker, now_s, round_: breaker.succeed(now_s, round_),
        lambda breaker, now_s, round_: breaker.fail(now_s, round_),
        lambda breaker, now_s, round_: breaker.fail(now_s, round_, at_once=True),
        lambda breaker, now_s, round_: breaker.neutral(round_),
    ],
    ids=["serves", "fails", "is refused", "says nothing"],
)
def test_what_began_before_the_opening_neither_ends_a_trial_nor_counts_as_one(end):
    breaker = new_breaker()
    before = breaker.begin()
    for _ in range(CONSECUTIVE_FAILURES):
        attempt(breaker, START_S, failed=True)
    now_s = START_S + OPEN_S
    trial = breaker.begin()

    end(breaker, now_s, before)

    assert breaker.state(now_s) is State.HALF_OPEN
    assert not breaker.allows(now_s)
    breaker.succeed(now_s, trial)
    attempt(breaker, now_s, failed=False)
    assert breaker.state(now_s) is State.HALF_OPEN


def test_a_later_cooldown_wins_over_an_earlier_one_and_never_the_reverse():
    breaker = new_breaker()

    breaker.cool(START_S + 20, START_S)
    breaker.cool(START_S + 5, START_S)

    assert breaker.available_at_s(START_S) == START_S + 20
    assert not breaker.allows(START_S + 19.9)
    assert breaker.allows(START_S + 20)
    breaker.cool(START_S + 40, START_S + 10)
    assert breaker.available_at_s(START_S) == START_S + 40


def test_a_cooldown_holds_nothing_against_the_candidate():
    breaker = new_breaker()

    breaker.cool(START_S + 20, START_S)

    assert breaker.state(START_S) is State.CLOSED
    assert breaker.error_rate(START_S) == 0.0


def test_no_cooldown_lasts_for_more_than_an_hour():
    breaker = new_breaker()

    breaker.cool(START_S + 86_400, START_S)

    assert breaker.available_at_s(START_S) == START_S + COOLDOWN_MAX_S


def test_when_open_and_cooling_the_later_end_counts():
    breaker = opened()

    breaker.cool(START_S + 100, START_S)

    assert breaker.available_at_s(START_S) == START_S + 100
    assert not breaker.allows(START_S + OPEN_S)


def test_what_began_in_an_earlier_opening_does_not_end_the_trial_of_a_later_one():
    breaker = opened()
    before = breaker.begin()
    breaker.neutral(before)
    attempt(breaker, START_S + OPEN_S, failed=True)
    breaker.begin()

    breaker.neutral(before)

    assert not breaker.allows(START_S + 10 * OPEN_S)


def test_openings_alone_end_a_round():
    breaker = new_breaker()
    first = breaker.begin()
    for _ in range(CONSECUTIVE_FAILURES):
        attempt(breaker, START_S, failed=True)

    rounds = []
    for _ in range(4):
        rounds.append(breaker.begin())
        breaker.succeed(START_S + OPEN_S, rounds[-1])

    assert breaker.state(START_S + OPEN_S) is State.CLOSED
    assert len({first, *rounds}) == 2
    assert first not in rounds


def test_what_began_before_the_opening_says_nothing_even_when_it_has_closed_again():
    breaker = new_breaker()
    before = [breaker.begin() for _ in range(CONSECUTIVE_FAILURES)]
    for _ in range(CONSECUTIVE_FAILURES):
        attempt(breaker, START_S, failed=True)
    now_s = START_S + OPEN_S
    for _ in range(3):
        attempt(breaker, now_s, failed=False)

    for round_ in before:
        breaker.fail(now_s, round_)

    assert breaker.state(now_s) is State.CLOSED
    assert breaker.error_rate(now_s) == 0.0


def test_an_attempt_made_while_it_is_open_neither_prolongs_nor_ends_that():
    breaker = opened()

    for failed in (True, False, True, False, False, False):
        attempt(breaker, START_S + 1, failed)

    assert breaker.available_at_s(START_S + 1) == START_S + OPEN_S
    assert breaker.state(START_S + OPEN_S) is State.HALF_OPEN


def test_an_outcome_counts_for_exactly_thirty_seconds():
    breaker = new_breaker()
    attempt(breaker, START_S, failed=True)

    rates = [breaker.error_rate(START_S + later_s) for later_s in (0.0, WINDOW_S, WINDOW_S + 0.01)]

    assert rates == [1.0, 1.0, 0.0]


def test_however_many_outcomes_there_are_it_remembers_the_last_two_thousand():
    breaker = new_breaker()
    for failed in [True, True, True, False] * 4 + [False] * 2_000:
        attempt(breaker, START_S, failed)
    assert breaker.error_rate(START_S) == 0.0

    for failed in [True, False, False, False] * 400:
        attempt(breaker, START_S, failed)

    assert breaker.error_rate(START_S) == 400 / 2_000


def test_a_cooldown_that_is_over_already_holds_nobody_back():
    breaker = new_breaker()

    breaker.cool(START_S - 5, START_S)

    assert breaker.allows(START_S)
    assert not breaker.is_cooling(START_S)


@pytest.mark.parametrize(("later_s", "is_cooling"), [(0.0, True), (9.99, True), (10.0, False)])
def test_it_cools_until_the_instant_that_was_asked_for(later_s, is_cooling):
    breaker = new_breaker()

    breaker.cool(START_S + 10, START_S)

    assert breaker.is_cooling(START_S + later_s) is is_cooling
    assert breaker.allows(START_S + later_s) is not is_cooling


def test_neither_an_opening_nor_a_closing_ends_a_cooldown():
    breaker = new_breaker()
    breaker.cool(START_S + 1_000, START_S)
    for _ in range(CONSECUTIVE_FAILURES):
        attempt(breaker, START_S, failed=True)

    for _ in range(3):
        attempt(breaker, START_S + OPEN_S, failed=False)

    assert breaker.state(START_S + OPEN_S) is State.CLOSED
    assert not breaker.allows(START_S + 999)
    assert breaker.allows(START_S + 1_000)


def test_all_of_a_life_may_happen_at_one_instant_of_a_clock():
    breaker = opened()

    for _ in range(1_000):
        attempt(breaker, START_S, failed=True)

    assert breaker.available_at_s(START_S) == START_S + OPEN_S


@dataclass
class Running:
    """An attempt under way: what the breaker told it, and how many openings there had been by then."""

    round_: int
    era: int
    has_answered: bool = False


@dataclass
class Opening:
    """When it opened, since when it had been healthy, and its jitter, in sixteenths of the time without one."""

    healthy_from: int
    at: int
    sixteenths: int


class BreakerWalk:
    """The model keeps all openings, closings and outcomes, and who is under way; every answer is counted from those.

    An attempt belongs to the time between two openings. What ends in a later one than it began in says nothing. In some
    walks the clock moves on between any two attempts, in others it shows the same instant to many.
    """

    def __init__(self, random: Random) -> None:
        self.stands_still = random.random() < 0.5
        self.patience = random.choice([0.8, 0.99, 1.0])
        self.newest = random.choice([0.3, 0.7, 0.97])
        self.jitter = 0.0
        self.breaker = Breaker(lambda: self.jitter)
        self.now = ticks(1_000) + random.randrange(1_000)
        self.running: list[Running] = []
        self.outcomes: list[tuple[int, bool]] = []
        self.openings: list[Opening] = []
        self.healthy_from = self.now  # While it is closed.
        self.proofs: list[int] = []
        self.closings = 0
        self.cooldowns = [0]

    @property
    def is_closed(self) -> bool:
        return self.closings == len(self.openings)

    @property
    def open_until(self) -> int:
        """Thirty seconds for each opening, five minutes at most; each five minutes healthy take one of them off."""
        counted = 0
        for opening in self.openings:
            for _ in range(opening.healthy_from + ticks(300), opening.at + 1, ticks(300)):
                counted = max(0, counted - 1)
            counted = min(10, counted + 1)
        last = self.openings[-1]
        return last.at + counted * ticks(30) * (16 + last.sixteenths) // 16

    @property
    def state(self) -> State:
        if self.is_closed:
            return State.CLOSED
        return State.OPEN if self.now < self.open_until else State.HALF_OPEN

    @property
    def is_on_trial(self) -> bool:
        return not self.is_closed and any(map(self.is_awaited, self.running))

    def is_awaited(self, attempt: Running) -> bool:
        """Did it begin since the last opening, and has shown nothing yet?"""
        return attempt.era == len(self.openings) and not attempt.has_answered

    @property
    def is_cooling(self) -> bool:
        return max(self.cooldowns) > self.now

    @property
    def allows(self) -> bool:
        if self.is_cooling or self.state is State.OPEN or self.is_on_trial:
            return False
        return self.is_closed or len(self.trials) < 10

    @property
    def trials(self) -> list[Running]:
        """Those under way that began since the last opening."""
        return [attempt for attempt in self.running if attempt.era == len(self.openings)]

    @property
    def recent(self) -> list[bool]:
        return [failed for at, failed in self.outcomes if at >= self.now - ticks(30)]

    @property
    def is_too_bad(self) -> bool:
        row = [failed for _, failed in self.outcomes[-5:]]
        recent = self.recent
        return row == [True] * 5 or (len(recent) >= 20 and 2 * sum(recent) >= len(recent))

    def choose(self, random: Random) -> Step:
        kind = random.choices(["wait", "begin", "end", "answer", "cool"], [4, 5, 5, 2, 0.06])[0]
        if kind == "answer":
            return ("answer", random.choice([-1, -1, random.randrange(1_000)]))
        if kind == "wait":
            far = [ticks(s) for s in (7, 29, 30, 150, 301, 650)]
            nearby = [0, 1, 1, 2, 16, 64, 64]
            length = random.choice(nearby if random.random() < self.patience else far)
            if not self.is_closed and random.random() < 0.5:
                length = max(0, self.open_until - self.now + random.choice([-1, 0, 0, 1]))
            return ("wait", length)
        if kind == "end":
            weights = random.choice([(9, 1, 0.2, 1), (1, 9, 0.2, 1), (5, 5, 0.2, 1)])
            outcome = random.choices(["ok", "failed", "refused", "neutral"], weights)[0]
            which = -1 if random.random() < self.newest else random.randrange(1_000)
            return ("end", which, outcome, random.randrange(4))
        if kind == "cool":
            return ("cool", random.choice([-64, 0, 1, 64, 640, ticks(3_600), ticks(9_000)]))
        return ("begin", random.random() < 0.3)

    def take(self, step: Step) -> None:
        match step:
            case ("wait", length):
                self.now += length
            case ("begin", as_last_resort):
                if self.allows or (as_last_resort and not self.is_on_trial):
                    self.begin()
            case ("answer", which) if self.running:
                attempt = self.running[which % len(self.running)]
                if not attempt.has_answered:
                    attempt.has_answered = True
                    self.breaker.begin_answer(attempt.round_)
            case ("end", which, outcome, jitter) if self.running:
                self.end(self.running.pop(which % len(self.running)), outcome, 5 * jitter)
            case ("cool", length):
                self.breaker.cool(seconds(self.now + length), seconds(self.now))
                self.cooldowns.append(self.now + min(length, ticks(3_600)))
        self.compare()

    def begin(self) -> None:
        self.running.append(Running(self.breaker.begin(), len(self.openings)))
        self.now += not self.stands_still

    def end(self, attempt: Running, outcome: str, sixteenths: int) -> None:
        self.jitter = sixteenths / 16  # Of a fifth: 5/16 of it are a sixteenth of the whole.
        now_s = seconds(self.now)
        is_trial = not attempt.has_answered
        match outcome:
            case "ok":
                self.breaker.succeed(now_s, attempt.round_, is_trial=is_trial)
            case "neutral":
                self.breaker.neutral(attempt.round_, is_trial=is_trial)
            case _:
                at_once = outcome == "refused"
                self.breaker.fail(now_s, attempt.round_, at_once=at_once, is_trial=is_trial)
        if attempt.era < len(self.openings) or outcome == "neutral":
            return
        was = self.state
        self.outcomes.append((self.now, outcome != "ok"))
        if was is State.HALF_OPEN and outcome == "ok":
            self.proofs.append(self.now)
            if len(self.proofs) == 3:
                self.closings += 1
                self.closed()
        elif outcome != "ok" and (
            was is State.HALF_OPEN
            or (was is State.CLOSED and (outcome == "refused" or self.is_too_bad))
        ):
            healthy_from = self.healthy_from if was is State.CLOSED else self.now
            self.openings.append(Opening(healthy_from, self.now, sixteenths // 5))
            self.closings = len(self.openings) - 1
            self.proofs = []

    def closed(self) -> None:
        self.healthy_from = self.now
        self.outcomes = []
        self.proofs = []

    def compare(self) -> None:
        now_s = seconds(self.now)
        until = 0 if self.is_closed else self.open_until
        assert self.breaker.state(now_s) is self.state
        assert self.breaker.allows(now_s) is self.allows
        assert self.breaker.is_on_trial is self.is_on_trial
        assert self.breaker.is_cooling(now_s) is self.is_cooling
        assert self.breaker.available_at_s(now_s) == seconds(max(until, *self.cooldowns, 0))
        recent = self.recent
        assert self.breaker.error_rate(now_s) == (sum(recent) / len(recent) if recent else 0.0)
        if self.state is State.HALF_OPEN:
            assert sum(map(self.is_awaited, self.running)) <= 1


@lengths
def test_it_does_what_the_whole_history_says(steps):
    go(BreakerWalk, steps)
