"""The line in front of a full house: short, bounded in time, and honest. Sans-I/O: the caller brings the clock.

A line that was empty lately is a burst: those in it are served in order and may wait half a second. A line that has
stood for that long is overload: from then on nobody waits longer than a tenth of a second, and the newest is served
first, because the oldest callers are the ones most likely to have given up.

Source: CoDel (RFC 8289: interval and target) with adaptive LIFO, as in B. Maurer, "Fail at Scale",
ACM Queue 13(8), 2015.
"""

from collections import deque
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

INTERVAL_S: Final = 0.5
TARGET_S: Final = 0.1
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
        self._was_empty_at_s = float("-inf")

    def __len__(self) -> int:
        return len(self._places)

    @property
    def is_full(self) -> bool:
        """Is there no place left?"""
        return len(self._places) >= self._max_waiting

    def is_overloaded(self, now_s: float) -> bool:
        """Has it stood, since it was last empty, for a whole interval?"""
        return bool(self._places) and now_s >= self._was_empty_at_s + INTERVAL_S

    def join(self, who: T, now_s: float) -> None:
        """Wait from now on. The caller has asked `is_full`."""
        if not self._places:
            self._was_empty_at_s = now_s
        self._places.append(_Place(now_s, who))

    def leave(self, who: T) -> None:
        """Wait no longer, if still waiting."""
        for place in self._places:
            if place.who is who:
                self._places.remove(place)
                return

    def next(self, now_s: float) -> T | None:
        """Who is served now that there is room; None when nobody waits.

        That may be somebody whose time has just run out, if `expired` was not asked first: to serve is better than to
        refuse.
        """
        if not self._places:
            return None
        return (self._places.pop() if self.is_overloaded(now_s) else self._places.popleft()).who

    def expired(self, now_s: float) -> list[T]:
        """Those who have waited too long, oldest first; they are out of the line."""
        found: list[T] = []
        while self._places and self._places[0].since_s + self._patience_s(now_s) <= now_s:
            found.append(self._places.popleft().who)
        return found

    def next_expiry_s(self, now_s: float) -> float | None:
        """The instant at which `expired` should be asked again; None when nobody waits."""
        if not self._places:
            return None
        oldest_s = self._places[0].since_s
        turns_s = self._was_empty_at_s + INTERVAL_S
        return min(oldest_s + INTERVAL_S, max(turns_s, oldest_s + TARGET_S))

    def _patience_s(self, now_s: float) -> float:
        return TARGET_S if self.is_overloaded(now_s) else INTERVAL_S
