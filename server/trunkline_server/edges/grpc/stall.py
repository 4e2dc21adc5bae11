"""Notices a caller who has stopped reading. gRPC would wait for him for ever, and so would all that is held for him."""

import asyncio
from typing import Any, Final

WRITE_STALL_S: Final = 60.0  # Without taking anything, though there is something to take.
LOOKS: Final = 4  # In that time: it is noticed at most a quarter later. None comes to most calls.


class StallWatch:
    """Of one streaming call. Cancels its task when nothing is taken; `close` it when the call ends.

    Attributes:
        sent: messages that were handed to the library so far; whoever writes counts them.
        is_writing: the last of them has not been taken yet.
        has_stalled: the cancellation came from here.
    """

    __slots__ = (
        "_look_s",
        "_looks",
        "_loop",
        "_seen",
        "_task",
        "_timer",
        "has_stalled",
        "is_writing",
        "sent",
    )

    def __init__(self, task: "asyncio.Task[Any] | None") -> None:
        self._task = task
        self._loop = asyncio.get_running_loop()
        self._look_s = WRITE_STALL_S / LOOKS
        self._looks = 0
        self._seen = 0
        self._timer = self._loop.call_later(self._look_s, self._look)
        self.sent = 0
        self.is_writing = False
        self.has_stalled = False

    def close(self) -> None:
        """Look no more."""
        self._timer.cancel()

    def _look(self) -> None:
        if self.is_writing and self.sent == self._seen:
            self._looks += 1
        else:
            self._looks = 0
            self._seen = self.sent
        if self._looks >= LOOKS and self._task is not None:
            self.has_stalled = True
            self._task.cancel()
            return
        self._timer = self._loop.call_later(self._look_s, self._look)
