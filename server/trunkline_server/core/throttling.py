"""How long a candidate is left alone that says "too much" and not for how long. Sans-I/O: the caller brings the clock.

A refusal while others are answered says that a limit is near, which is for the concurrency limit to find. One after the
other, with no answer begun in between, they say that there is nothing to be had for now: then it is left alone for a
second, and for twice as long each time that this was not enough. What began before the last refusal says nothing new.
"""

from collections.abc import Callable
from typing import Final

REFUSALS_IN_A_ROW: Final = 3
FIRST_WAIT_S: Final = 1.0
MAX_WAIT_S: Final = 30.0
JITTER: Final = 0.2  # Or all who were kept away would come back at once.


class Throttling:
    """Of one candidate in one process."""

    def __init__(self, random: Callable[[], float]) -> None:
        self._random = random
        self._refusals = 0
        self._wait_s = 0.0
        self._last_s = 0.0

    def refuse(self, now_s: float, began_s: float) -> float:
        """An attempt that began then was refused, without a time. Returns seconds to leave the candidate alone."""
        if began_s < self._last_s:
            return 0.0
        self._last_s = now_s
        self._refusals += 1
        if self._refusals < REFUSALS_IN_A_ROW:
            return 0.0
        self._wait_s = min(2 * self._wait_s, MAX_WAIT_S) or FIRST_WAIT_S
        return self._wait_s * (1 + JITTER * self._random())

    def answer(self) -> None:
        """An answer has begun."""
        self._refusals = 0
        self._wait_s = 0.0
