"""Wakes those in this process who wait for news of a job. Of news from other processes nobody is woken: they look."""

import asyncio
from contextlib import suppress


class Bell:
    """Rings by job."""

    def __init__(self) -> None:
        self._waiting: dict[str, set[asyncio.Future[None]]] = {}

    def ring(self, job_id: str) -> None:
        """There is news."""
        for waiter in self._waiting.pop(job_id, ()):
            if not waiter.done():
                waiter.set_result(None)

    def ring_all(self) -> None:
        """Something has changed for everybody."""
        for job_id in list(self._waiting):
            self.ring(job_id)

    def listen(self, job_id: str) -> "asyncio.Future[None]":
        """Done when it rings next. To be taken before looking, so that nothing falls between."""
        waiter = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(job_id, set()).add(waiter)
        waiter.add_done_callback(lambda _: self._forget(job_id, waiter))
        return waiter

    def _forget(self, job_id: str, waiter: "asyncio.Future[None]") -> None:
        waiters = self._waiting.get(job_id)
        if waiters is not None:
            waiters.discard(waiter)
            if not waiters:
                del self._waiting[job_id]


async def heard(waiter: "asyncio.Future[None]", limit_s: float) -> None:
    """Wait until it rings, or so long."""
    with suppress(TimeoutError):
        await asyncio.wait_for(waiter, limit_s)
