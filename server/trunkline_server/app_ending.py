"""How a process ends: asked to by a signal, hurried by a second one, and whatever happens not much later than it said.

A clean-up may hang: a database that does not answer, a thread that never returns. What was not written down by then is
what a start after a crash looks for anyway, so there is nothing to be saved by waiting for ever.
"""

import asyncio
import os
from collections.abc import Callable
from threading import Thread, Timer
from typing import Final

from trunkline_server.config import ServerSettings, is_loopback

LB_GRACE_S: Final = 5.0  # For load balancers to notice; nothing when only this machine can call.
HARD_STOP_S: Final = 5.0  # After the drain, before a process that hangs is ended.
LAST_WORDS_S: Final = 1.0  # Whoever reads the log may hang too.
FAILED: Final = 1


def grace_s(server: ServerSettings) -> float:
    """For how long new requests are still taken after the first signal."""
    if server.lb_grace_s is not None:
        return server.lb_grace_s
    return 0.0 if is_loopback(server.grpc) and is_loopback(server.http) else LB_GRACE_S


def gone_after_s(server: ServerSettings) -> float:
    """For how long a process may go on after the first signal, whatever holds it."""
    return grace_s(server) + server.drain_s + HARD_STOP_S


class Ending:
    """Counts the signals that a process gets. The first asks it to go down, the second to hurry, the third ends it.

    From the first on a thread waits for the end of the process, and brings it about when `limit_s` are over: of the
    whole process, because threads that a clean-up has given up can hold it as well. So nothing takes that back.

    Args:
        hurry: called by the second.
        say: writes to the log why the process is ended, from a thread of its own.
        leave: ends the process with a code, at once.
    """

    def __init__(
        self,
        limit_s: float,
        hurry: Callable[[], None],
        say: Callable[[str], None],
        leave: Callable[[int], object] = os._exit,
    ) -> None:
        self.asked = asyncio.Event()
        self.is_hurried = False
        self._limit_s = limit_s
        self._hurry = hurry
        self._say = say
        self._leave = leave

    def signal(self) -> None:
        """One more of them."""
        if self.is_hurried:
            self._end("third signal")
        elif self.asked.is_set():
            self.is_hurried = True
            self._hurry()
        else:
            self.asked.set()
            timer = Timer(self._limit_s, self._end, [f"not gone after {self._limit_s:g} s"])
            timer.daemon = True
            timer.start()

    def _end(self, why: str) -> None:
        saying = Thread(target=self._say, args=[why], daemon=True)
        saying.start()
        saying.join(LAST_WORDS_S)
        self._leave(FAILED)
