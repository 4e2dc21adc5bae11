"""Counters that are added to in bulk: adding to one of Prometheus' own takes a lock, and four of them a while."""

import asyncio
from collections.abc import Callable

FLUSH_S = 0.25

Add = Callable[[float], None]


class Tally:
    """What is still to be added to counters. A page that shows them calls `flush` first."""

    def __init__(self) -> None:
        self._pending: dict[Add, float] = {}
        self._timer: asyncio.TimerHandle | None = None

    def add(self, counter: Add, amount: float) -> None:
        """Soon, and all that comes until then at once."""
        pending = self._pending
        if counter in pending:
            pending[counter] += amount
            return
        pending[counter] = amount
        if self._timer is None:
            # Pages of several processes read what each has written, so it can't wait until somebody asks this one.
            self._timer = asyncio.get_running_loop().call_later(FLUSH_S, self.flush)

    def flush(self) -> None:
        """Now."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        pending, self._pending = self._pending, {}
        for counter, amount in pending.items():
            counter(amount)
