"""Reads answers to their end whose callers have left, for providers that bill the whole generation whoever listens.

What such a provider counts is known only at the end of its stream. Breaking off would save nothing, and what was used
could only be guessed.
"""

import asyncio
from typing import Final

from trunkline_server.core.candidate import Candidate
from trunkline_server.core.errors import UpstreamError
from trunkline_server.core.ports import Answer, Telemetry

MAX_S: Final = 600.0  # The caller's own deadline is over, or of no interest any more.
MAX_ANSWERS: Final = 32  # Beyond that an answer is broken off like any other.


class Pump:
    """The answers being read. Owns a task for each; `close` ends them all."""

    def __init__(self, telemetry: Telemetry) -> None:
        self._telemetry = telemetry
        self._tasks: set[asyncio.Task[None]] = set()

    def adopt(self, request_id: str, candidate: Candidate, answer: Answer) -> bool:
        """Take over an answer. False: there is no room, and it is the caller's to close."""
        if len(self._tasks) >= MAX_ANSWERS:
            return False
        task = asyncio.get_running_loop().create_task(self._read(request_id, candidate, answer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return True

    async def close(self) -> None:
        """Break off what is still being read."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def _read(self, request_id: str, candidate: Candidate, answer: Answer) -> None:
        clock = asyncio.get_running_loop().time
        until_s = clock() + MAX_S
        try:
            while not answer.is_complete:
                await answer.read(min(until_s, clock() + candidate.idle_timeout_s))
        except (UpstreamError, TimeoutError):
            pass  # What was counted until then is all there will be.
        finally:
            answer.close()
            self._telemetry.drained(request_id, candidate, answer.facts.usage)
