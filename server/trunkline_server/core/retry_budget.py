"""Bounds how many attempts ask the same provider again, so that retries can't become the outage.

Every first attempt earns a fifth of a retry, which expires after ten seconds; three a window are always allowed, or an
idle gateway could never retry. Moving on to the next candidate is not a retry and needs no budget.

Any ten seconds that end with a retry hold no more than three retries and a fifth of the first attempts in them. So any
ten seconds whatever hold no more than three and a fifth of the first attempts in them and in the ten seconds before: a
burst earns for those that fail after it. Seconds are counted whole, so what was earned expires after nine to ten of
them, what was spent comes back after ten to eleven, and the bound is never passed for that.

Source: Finagle's RetryBudget (20 %, 10 s) and Envoy's retry_budget (min_retry_concurrency 3).
"""

from collections import deque

EARN = 0.2
WINDOW_S = 10.0
FLOOR = 3
SLICES = 10


class RetryBudget:
    """The budget of one provider in one process."""

    def __init__(self) -> None:
        # [slice number, first attempts, retries]
        self._slices: deque[list[float]] = deque(maxlen=SLICES + 1)

    def earn(self, now_s: float) -> None:
        """A first attempt starts."""
        self._slice(now_s)[1] += 1

    def spend(self, now_s: float) -> bool:
        """May the same provider be asked again? Takes from the budget when it may."""
        current = self._slice(now_s)
        oldest = current[0] - SLICES
        firsts = sum(s[1] for s in self._slices if s[0] > oldest)
        # The oldest slice is only partly over. What it earned is gone, but what it spent still counts.
        retries = sum(s[2] for s in self._slices if s[0] >= oldest)
        if retries + 1 > FLOOR + EARN * firsts:
            return False
        current[2] += 1
        return True

    def _slice(self, now_s: float) -> list[float]:
        number = now_s // (WINDOW_S / SLICES)
        if not self._slices or self._slices[-1][0] != number:
            self._slices.append([number, 0.0, 0.0])
        return self._slices[-1]
