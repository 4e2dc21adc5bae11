"""One call for many who ask the same at once: one of them asks, and the others wait for the answer.

If whoever asks fails or leaves, the next in line asks. After a few of those the rest are let go, each to ask for
itself: what fails again and again would otherwise be waited for one after the other.
"""

import asyncio
from collections import deque
from enum import Enum
from typing import Final, Generic, TypeVar

MAX_LEADERS: Final = 3  # Of one flight, one after the other.


class Turn(Enum):
    """What becomes of one who waited in vain."""

    LEADS = "leads"  # For the others.
    ALONE = "alone"


T = TypeVar("T")


class Flight(Generic[T]):
    """All who ask one question now. Begun by the one who asks; T is an answer."""

    def __init__(self, flights: "Flights[T]", key: bytes) -> None:
        self._flights = flights
        self._key = key
        self._waiting: deque[asyncio.Future[T | Turn]] = deque()
        self._leaders = 1

    async def wait(self, until_s: float) -> T | Turn:
        """Until there is an answer, or it is one's turn to ask; at most until that instant, and then alone."""
        loop = asyncio.get_running_loop()
        mine: asyncio.Future[T | Turn] = loop.create_future()
        self._waiting.append(mine)
        timer = loop.call_at(until_s, _let_go, mine)
        try:
            return await mine
        except asyncio.CancelledError:
            # It may have become our turn a moment before.
            if mine.done() and not mine.cancelled() and mine.result() is Turn.LEADS:
                self.leave()
            raise
        finally:
            timer.cancel()

    def land(self, answer: T) -> None:
        """Here is the answer."""
        self._end(answer)

    def disband(self) -> None:
        """There is one, but not for the others."""
        self._end(Turn.ALONE)

    def leave(self) -> None:
        """Nothing came of it: the next one asks."""
        if self._leaders >= MAX_LEADERS:
            self._end(Turn.ALONE)
            return
        while self._waiting:
            waiting = self._waiting.popleft()
            if not waiting.done():
                self._leaders += 1
                waiting.set_result(Turn.LEADS)
                return
        self._end(Turn.ALONE)

    def _end(self, outcome: T | Turn) -> None:
        self._flights.end(self._key)
        for waiting in self._waiting:
            if not waiting.done():
                waiting.set_result(outcome)
        self._waiting.clear()


class Flights(Generic[T]):
    """By key."""

    def __init__(self) -> None:
        self._by_key: dict[bytes, Flight[T]] = {}

    def __len__(self) -> int:
        return len(self._by_key)

    def find(self, key: bytes) -> Flight[T] | None:
        """Does somebody ask this now?"""
        return self._by_key.get(key)

    def begin(self, key: bytes) -> Flight[T]:
        """Nobody does: ask."""
        flight = self._by_key[key] = Flight(self, key)
        return flight

    def end(self, key: bytes) -> None:
        """Whoever asks next begins anew."""
        del self._by_key[key]


def _let_go(waiting: "asyncio.Future[T | Turn]") -> None:
    if not waiting.done():
        waiting.set_result(Turn.ALONE)
