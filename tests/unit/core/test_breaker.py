"""The circuit breaker of one candidate, rule by rule, and against a model that recounts all of history each time."""

from dataclasses import dataclass

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

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
    breaker.begin(now_s)
    if failed:
        breaker.fail(now_s, now_s)
    else:
        breaker.succeed(now_s, now_s)


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

    breaker.begin(START_S)
    breaker.fail(START_S, START_S, at_once=True)

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

    breaker.begin(now_s)

    assert not breaker.allows(now_s)
    breaker.succeed(now_s + 1, now_s)
    assert breaker.allows(now_s + 1)


def test_a_trial_that_says_nothing_makes_room_for_the_next():
    breaker = opened()
    now_s = START_S + OPEN_S

    breaker.begin(now_s)
    breaker.neutral(now_s, now_s)

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


def test_five_minutes_without_an_opening_forgive_one():
    breaker = opened()
    attempt(breaker, START_S + OPEN_S, failed=True)
    later_s = START_S + OPEN_S + 600
    for _ in range(3):
        attempt(breaker, later_s, failed=False)

    for _ in range(CONSECUTIVE_FAILURES):
        attempt(breaker, later_s, failed=True)

    assert breaker.available_at_s(later_s) == later_s + OPEN_S


@pytest.mark.parametrize("ends", ["succeed", "fail", "neutral"])
def test_what_began_before_the_opening_neither_ends_a_trial_nor_counts_as_one(ends):
    breaker = new_breaker()
    breaker.begin(START_S - 1)
    for _ in range(CONSECUTIVE_FAILURES):
        attempt(breaker, START_S, failed=True)
    now_s = START_S + OPEN_S
    breaker.begin(now_s)

    getattr(breaker, ends)(now_s, START_S - 1)

    assert breaker.state(now_s) is State.HALF_OPEN
    assert not breaker.allows(now_s)
    breaker.succeed(now_s, now_s)
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


@dataclass
class Ended:
    """An attempt's outcome that counts."""

    at_s: float
    failed: bool


class BreakerAgainstModel(RuleBasedStateMachine):
    """The model keeps all outcomes since the last closing, and counts them again whenever it is asked."""

    def __init__(self) -> None:
        super().__init__()
        self.breaker = new_breaker(0.5)
        self.now_s = START_S
        self.running: list[float] = []
        self.history: list[Ended] = []
        self.openings: list[float] = []
        self.recent_openings = 0
        self.open_until_s: float | None = None
        self.trial: float | None = None
        self.proven = 0
        self.cool_until_s = 0.0

    @property
    def state(self) -> State:
        if self.open_until_s is None:
            return State.CLOSED
        return State.OPEN if self.now_s < self.open_until_s else State.HALF_OPEN

    @property
    def allows(self) -> bool:
        if self.now_s < self.cool_until_s or self.state is State.OPEN:
            return False
        return self.state is State.CLOSED or self.trial is None

    @rule(seconds=st.sampled_from([0.25, 1.0, 7.0, 33.0, 301.0]))
    def time_passes(self, seconds: float) -> None:
        self.now_s += seconds

    @precondition(lambda self: self.allows and len(self.running) < 40)
    @rule()
    def an_attempt_begins(self) -> None:
        self.breaker.begin(self.now_s)
        self.running.append(self.now_s)
        if self.open_until_s is not None:
            self.trial = self.now_s

    @precondition(lambda self: self.running)
    @rule(which=st.integers(0), outcome=st.sampled_from(["ok", "failed", "refused", "neutral"]))
    def an_attempt_ends(self, which: int, outcome: str) -> None:
        began_s = self.running.pop(which % len(self.running))
        if outcome == "ok":
            self.breaker.succeed(self.now_s, began_s)
        elif outcome == "neutral":
            self.breaker.neutral(self.now_s, began_s)
        else:
            self.breaker.fail(self.now_s, began_s, at_once=outcome == "refused")
        if self.open_until_s is not None and began_s < self.openings[-1]:
            return
        was = self.state
        self.trial = None
        if outcome == "neutral":
            return
        self.history.append(Ended(self.now_s, outcome != "ok"))
        if outcome == "ok":
            self.proven += was is State.HALF_OPEN
            if self.proven == 3:
                self.open_until_s, self.proven, self.history = None, 0, []
        elif was is State.HALF_OPEN or (
            was is State.CLOSED and (outcome == "refused" or self.is_too_bad())
        ):
            self.opens()

    @rule(seconds=st.sampled_from([0.5, 10.0, 50.0, 7200.0]))
    def the_provider_asks_for_a_pause(self, seconds: float) -> None:
        self.breaker.cool(self.now_s + seconds, self.now_s)
        self.cool_until_s = max(self.cool_until_s, self.now_s + min(seconds, 3600))

    def is_too_bad(self) -> bool:
        last = self.history[-5:]
        if len(last) == 5 and all(ended.failed for ended in last):
            return True
        recent = [ended for ended in self.history if ended.at_s >= self.now_s - 30]
        return len(recent) >= 20 and 2 * sum(ended.failed for ended in recent) >= len(recent)

    def opens(self) -> None:
        if self.openings:
            forgiven = int((self.now_s - self.openings[-1]) / 300)
            self.recent_openings = max(0, self.recent_openings - forgiven)
        self.recent_openings += 1
        self.openings.append(self.now_s)
        self.open_until_s = self.now_s + min(30 * self.recent_openings, 300) * 1.1
        self.proven = 0

    @invariant()
    def they_agree(self) -> None:
        assert self.breaker.state(self.now_s) is self.state
        assert self.breaker.allows(self.now_s) is self.allows
        at_s = max(self.open_until_s or 0.0, self.cool_until_s)
        assert self.breaker.available_at_s(self.now_s) == at_s


TestBreakerAgainstModel = BreakerAgainstModel.TestCase
TestBreakerAgainstModel.settings = settings(max_examples=30, stateful_step_count=50, deadline=None)
