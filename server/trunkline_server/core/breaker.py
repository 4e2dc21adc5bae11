"""The circuit breaker of one candidate. Sans-I/O: the caller brings the clock.

Closed, it counts. Five failures in a row, or half of at least twenty outcomes within thirty seconds, or one refused
credential, open it for thirty seconds times the number of recent openings, at most five minutes, plus up to a fifth of
jitter. Then it is half open: one request at a time is let through until its answer begins, ten of them run at once, and
three successes close it. Every five minutes of being closed take one off the number of openings; being open forgives
nothing.

A cooldown is apart from that: a provider that said Retry-After is left alone until then, and nothing is held against
it. An attempt that began before the last opening says nothing new, however late it ends: each attempt is told the
number of the round in which it began, and openings end rounds. Instants would not do: a clock shows the same one more
than once.

Source of the numbers: Envoy outlier detection (consecutive_5xx 5, base_ejection_time 30 s, max 300 s), scaled down to
the two to four providers of a route, where Envoy's percentages never trigger.
"""

from collections import deque
from collections.abc import Callable
from enum import Enum

CONSECUTIVE_FAILURES = 5
WINDOW_S = 30.0
WINDOW_MIN_OUTCOMES = 20
WINDOW_MAX_OUTCOMES = 2_000
WINDOW_FAILURE_RATE = 0.5
OPEN_S = 30.0
OPEN_MAX_S = 300.0
MAX_OPENINGS = int(OPEN_MAX_S / OPEN_S)  # That count: more would make a long outage unforgivable.
JITTER = 0.2
FORGIVE_S = 300.0
SUCCESSES_TO_CLOSE = 3
MAX_TRIALS = (
    10  # At once, all but one of them with an answer that has begun: so many may break off.
)
COOLDOWN_MAX_S = 3600.0


class State(Enum):
    """Of the circuit."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


class Breaker:
    """Decides whether a candidate may be asked. Outcomes are reported once for each attempt that was let through."""

    def __init__(self, random: Callable[[], float]) -> None:
        self._random = random
        self._open_until_s: float | None = None
        self._cool_until_s = 0.0
        self._round = 0
        self._openings = 0
        self._closed_from_s = 0.0  # While it is closed.
        self._consecutive = 0
        self._half_open_successes = 0
        self._trial_under_way = False
        self._trials = 0
        self._outcomes: deque[tuple[float, bool]] = deque(maxlen=WINDOW_MAX_OUTCOMES)
        self._failures = 0

    def state(self, now_s: float) -> State:
        """Open until its time is up, half open until it has proved itself, else closed."""
        if self._open_until_s is None:
            return State.CLOSED
        return State.OPEN if now_s < self._open_until_s else State.HALF_OPEN

    def available_at_s(self, now_s: float) -> float:
        """The instant from which the candidate may be asked again; `now_s` or earlier means now."""
        return max(self._open_until_s or 0.0, self._cool_until_s)

    def is_cooling(self, now_s: float) -> bool:
        """Did the provider ask to be left alone, until an instant that is still to come?"""
        return self._cool_until_s > now_s

    def allows(self, now_s: float) -> bool:
        """May an attempt start now? Changes nothing."""
        if self._cool_until_s > now_s:
            return False
        if self._open_until_s is None:
            return True
        if now_s < self._open_until_s:
            return False
        return not self._trial_under_way and self._trials < MAX_TRIALS

    @property
    def is_on_trial(self) -> bool:
        """Is the one attempt under way that an open circuit lets through?"""
        return self._trial_under_way

    def begin(self) -> int:
        """An attempt starts. Returns the number of its round, to be given back with its outcome."""
        if self._open_until_s is not None:
            self._trial_under_way = True
            self._trials += 1
        return self._round

    def begin_answer(self, round_: int) -> None:
        """An attempt's answer has begun, so the next one may be let through, however long this one takes."""
        if round_ == self._round:
            self._trial_under_way = False

    def succeed(self, now_s: float, round_: int, *, is_trial: bool = True) -> None:
        """An attempt served its answer. `is_trial`: its answer was not told of before."""
        if round_ != self._round:
            return
        self._consecutive = 0
        self._end_trial(is_trial)
        self._record(now_s, False)
        if self._open_until_s is not None and now_s >= self._open_until_s:
            self._half_open_successes += 1
            if self._half_open_successes >= SUCCESSES_TO_CLOSE:
                self._close(now_s)

    def fail(
        self, now_s: float, round_: int, *, at_once: bool = False, is_trial: bool = True
    ) -> None:
        """An attempt failed in a way that counts. `at_once` opens whatever the counts say."""
        if round_ != self._round:
            return
        self._end_trial(is_trial)
        self._consecutive += 1
        self._record(now_s, True)
        half_open = self._open_until_s is not None and now_s >= self._open_until_s
        if self._open_until_s is not None and not half_open:
            return  # It was asked for want of a better one: no reason to stay open for longer.
        if (
            at_once
            or half_open
            or self._consecutive >= CONSECUTIVE_FAILURES
            or self._rate_is_too_high()
        ):
            self._open(now_s)

    def neutral(self, round_: int, *, is_trial: bool = True) -> None:
        """An attempt ended without saying anything about the candidate: cancelled, or the caller's fault."""
        if round_ == self._round:
            self._end_trial(is_trial)

    def _end_trial(self, is_trial: bool) -> None:
        if self._open_until_s is not None:
            self._trials -= 1
        if is_trial:
            self._trial_under_way = False

    def cool(self, until_s: float, now_s: float) -> None:
        """Leave the candidate alone until then. A later instant wins over an earlier one, never the reverse."""
        self._cool_until_s = max(self._cool_until_s, min(until_s, now_s + COOLDOWN_MAX_S))

    def error_rate(self, now_s: float) -> float:
        """Share of failed outcomes in the window, 0 to 1."""
        self._expire(now_s)
        return self._failures / len(self._outcomes) if self._outcomes else 0.0

    def _record(self, now_s: float, failed: bool) -> None:
        self._expire(now_s)
        if len(self._outcomes) == WINDOW_MAX_OUTCOMES:
            self._failures -= self._outcomes[0][1]
        self._outcomes.append((now_s, failed))
        self._failures += failed

    def _expire(self, now_s: float) -> None:
        outcomes = self._outcomes
        while outcomes and outcomes[0][0] < now_s - WINDOW_S:
            self._failures -= outcomes.popleft()[1]

    def _rate_is_too_high(self) -> bool:
        count = len(self._outcomes)
        return count >= WINDOW_MIN_OUTCOMES and self._failures >= WINDOW_FAILURE_RATE * count

    def _open(self, now_s: float) -> None:
        if self._open_until_s is None:
            healthy_s = now_s - self._closed_from_s
            self._openings = max(0, self._openings - int(healthy_s / FORGIVE_S))
        self._openings = min(self._openings + 1, MAX_OPENINGS)
        self._round += 1
        self._trial_under_way = False  # Whoever tries belongs to the round before.
        self._trials = 0
        base_s = min(OPEN_S * self._openings, OPEN_MAX_S)
        self._open_until_s = now_s + base_s * (1 + JITTER * self._random())
        self._half_open_successes = 0

    def _close(self, now_s: float) -> None:
        self._open_until_s = None
        self._trial_under_way = False
        self._trials = 0
        self._closed_from_s = now_s
        self._half_open_successes = 0
        self._consecutive = 0
        self._outcomes.clear()
        self._failures = 0
