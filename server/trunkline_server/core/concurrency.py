"""How many attempts one candidate takes at once, found out by asking. Sans-I/O: the caller brings the clock.

Additive increase, multiplicative decrease: as many successes as the limit is high raise it by one, and a sign of
congestion (429, 503, or first tokens that come twice as late as usual) lowers it to seven tenths. As in TCP, attempts
that began before the last decrease are part of the same congestion and lower it no further. First tokens vary tenfold
with the prompt, so it is not one of them that counts but their short-term average against the long-term one, and only
while at least half of the limit is used: a slow answer on an idle candidate is not our doing.

Where the search begins is a guess, slowness may be our own, and one refusal may be chance. So the limit is a reason to
prefer others and not one to refuse, unless the candidate itself has said lately, and more than a few times, that it is
too much. While it is not a reason to refuse, what is in flight when the candidate says so is what is lowered.

Source of the numbers: TCP Reno's AIMD with CUBIC's decrease, RFC 9438 4.6; Envoy's max_requests (1,024).
"""

from collections import deque
from typing import Final

START: Final = 32
MAX: Final = 1024
DECREASE_TENTHS: Final = 7
SLOW: Final = 2.0  # Times the long-term average.
SHORT_TERM: Final = 1 / 8
LONG_TERM: Final = 1 / 64
SIGNS: Final = 5  # So many refusals
SIGNS_S: Final = 10.0  # within so many seconds make the limit one that refuses.
MIN_SAMPLES: Final = 16  # Before that the averages mean nothing.


class ConcurrencyLimit:
    """The limit of one candidate in one process. Every `begin` is followed by exactly one of the other calls."""

    def __init__(self, max_attempts: int = MAX) -> None:
        self._max = max(1, max_attempts)
        self._limit = float(min(START, self._max))
        self._successes = 0
        self._signs: deque[float] = deque(maxlen=SIGNS)
        self._lowered_at_s = float("-inf")
        self._samples = 0
        self._short_s = 0.0
        self._long_s = 0.0
        self.in_flight = 0

    @property
    def limit(self) -> int:
        """Attempts that may run at once, 1 at least."""
        return int(self._limit)

    @property
    def has_room(self) -> bool:
        """Is the candidate below its limit?"""
        return self.in_flight < int(self._limit)

    def is_binding(self, now_s: float) -> bool:
        """Has the candidate said lately, and more than a few times, that it is too much?"""
        signs = self._signs
        return len(signs) == SIGNS and now_s - signs[0] <= SIGNS_S

    def begin(self) -> None:
        """An attempt starts."""
        self.in_flight += 1

    def succeed(self, now_s: float, began_s: float, first_token_s: float | None) -> None:
        """An attempt served its answer; its first token came after `first_token_s`, where that is known."""
        is_used = 2 * self.in_flight >= int(self._limit)
        self.in_flight -= 1
        if first_token_s is not None and self._is_slow(first_token_s) and is_used:
            self._lower(now_s, began_s)
            return
        self._successes += 1
        if self._successes >= self._limit:
            self._successes = 0
            self._limit = min(self._limit + 1, self._max)

    def congest(self, now_s: float, began_s: float) -> None:
        """An attempt was turned away for too much load."""
        if not self.is_binding(now_s) and began_s > self._lowered_at_s:
            self._limit = min(max(self._limit, float(self.in_flight)), float(self._max))
        self._signs.append(now_s)
        self.in_flight -= 1
        self._lower(now_s, began_s)

    def end(self) -> None:
        """An attempt ended in a way that says nothing about load."""
        self.in_flight -= 1

    def _lower(self, now_s: float, began_s: float) -> None:
        if began_s <= self._lowered_at_s:
            return
        self._lowered_at_s = now_s
        self._limit = max(1.0, self._limit * DECREASE_TENTHS / 10)
        self._successes = 0

    def _is_slow(self, first_token_s: float) -> bool:
        if not self._samples:
            self._short_s = self._long_s = first_token_s
        self._samples += 1
        self._short_s += SHORT_TERM * (first_token_s - self._short_s)
        self._long_s += LONG_TERM * (first_token_s - self._long_s)
        return self._samples >= MIN_SAMPLES and self._short_s > SLOW * self._long_s
