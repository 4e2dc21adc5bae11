"""The line in front of a full house: short, bounded in time, and honest. Sans-I/O: the caller brings the clock.

A line that was empty lately is a burst: those in it are served in order and may wait half a second. A line that has
stood for that long is overload: from then on nobody waits longer than a tenth of a second, and the newest is served
first, because the oldest callers are the ones most likely to have given up; a line of a few only, which keeps the house
full, moves so fast that order is better. An overload that ends is remembered for a
while: under a steady one the line runs empty now and then, and is no burst when somebody joins it again.

Source: CoDel (RFC 8289: interval and target, and its memory of the dropping state) with adaptive LIFO, as in
B. Maurer, "Fail at Scale", ACM Queue 13(8), 2015.
"""

from collections import deque
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

INTERVAL_S: Final = 0.5
TARGET_S: Final = 0.1
CALM_S: Final = 5.0  # An overload is over when the line was not overloaded for so long.
MAX_WAITING: Final = 128

T = TypeVar("T")


@dataclass(slots=True, eq=False)
class _Place(Generic[T]):
    since_s: float
    who: T


class Line(Generic[T]):
    """Those who wait, oldest first."""

    def __init__(self, max_waiting: int = MAX_WAITING) -> None:
        self._max_waiting = max_waiting
        self._places: deque[_Place[T]] = deque()
        self._overloaded_from_s = float("inf")  # While somebody waits.
        self._stressed_until_s = float("-inf")

    def __len__(self) -> int:
        return len(self._places)

    @property
    def is_full(self) -> bool:
        """Is there no place left?"""
        return len(self._places) >= self._max_waiting

    def is_overloaded(self, now_s: float) -> bool:
        """Has it stood, since it was last empty, for a whole interval, or does it stand again soon after it had?"""
        return bool(self._places) and now_s >= self._overloaded_from_s

    def is_stressed(self, now_s: float) -> bool:
        """Is it overloaded, or would it be if somebody joined it now?"""
        return self.is_overloaded(now_s) if self._places else now_s < self._stressed_until_s

    def join(self, who: T, now_s: float, *, is_stressed: bool = False) -> None:
        """Wait from now on. The caller has asked `is_full`, and may know better than the line that this is no burst."""
        if not self._places:
            is_burst = now_s >= self._stressed_until_s and not is_stressed
            self._overloaded_from_s = now_s + INTERVAL_S if is_burst else now_s
        self._places.append(_Place(now_s, who))

    def leave(self, who: T, now_s: float) -> None:
        """Wait no longer, if still waiting."""
        for place in self._places:
            if place.who is who:
                self._remember(now_s)
                self._places.remove(place)
                return

    def next(self, now_s: float, few: int = 0) -> T | None:
        """Who is served now that there is room; None when nobody waits.

        That may be somebody whose time has just run out, if `expired` was not asked first: to serve is better than to
        refuse.

        Args:
            few: so many are served in order under overload too.
        """
        if not self._places:
            return None
        self._remember(now_s)
        is_newest_first = len(self._places) > few and self.is_overloaded(now_s)
        return (self._places.pop() if is_newest_first else self._places.popleft()).who

    def expired(self, now_s: float) -> list[T]:
        """Those who have waited too long, oldest first; they are out of the line."""
        found: list[T] = []
        self._remember(now_s)
        while self._places and self._places[0].since_s + self._patience_s(now_s) <= now_s:
            found.append(self._places.popleft().who)
        return found

    def next_expiry_s(self, now_s: float) -> float | None:
        """The instant at which `expired` should be asked again; None when nobody waits."""
        if not self._places:
            return None
        oldest_s = self._places[0].since_s
        return min(oldest_s + INTERVAL_S, max(self._overloaded_from_s, oldest_s + TARGET_S))

    def _remember(self, now_s: float) -> None:
        if self.is_overloaded(now_s):
            self._stressed_until_s = now_s + CALM_S

    def _patience_s(self, now_s: float) -> float:
        return TARGET_S if self.is_overloaded(now_s) else INTERVAL_S
