"""Tells callers who asked for it that their job has ended: at least once, for as long as somebody may still listen.

A callback says that the job has ended and how; whoever wants its result asks for it, with a key. Its id is that of the
job, so that a receiver can recognise a repetition.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import Final

import msgspec
import structlog

from trunkline.v1.job_service_pb2 import JobState
from trunkline_server.core.errors import StorageUnavailable
from trunkline_server.core.transactions import Storage
from trunkline_server.jobs import records
from trunkline_server.jobs.messages import MICROS, instant
from trunkline_server.jobs.records import Record

LOOK_S: Final = 5.0
AT_ONCE: Final = 8  # So that who does not answer holds up nobody else.
# How long after a try that failed comes the next one; after the last one there is none.
PAUSES_S: Final = (5.0, 30.0, 120.0, 600.0, 3_600.0, 6 * 3_600.0)
TRY_S: Final = 60.0  # A try that takes longer was cut off by the end of its process.

# URL, body and id. Returns what went wrong; empty when it was received.
Deliver = Callable[[str, bytes, str], Awaitable[str]]
log: structlog.typing.FilteringBoundLogger = structlog.get_logger()


class Callbacks:
    """Of all jobs. `deliver`: None where nobody can be told."""

    def __init__(
        self, storage: Storage, deliver: Deliver | None, now_us: Callable[[], int]
    ) -> None:
        self._storage = storage
        self._deliver = deliver
        self._now_us = now_us
        self._news = asyncio.Event()

    def wake(self) -> None:
        """A job has ended."""
        self._news.set()

    async def run(self) -> None:
        """Until it is cancelled."""
        if self._deliver is not None:
            async with asyncio.TaskGroup() as group:
                for _ in range(AT_ONCE):
                    group.create_task(self._tell_all(self._deliver))

    async def _tell_all(self, deliver: Deliver) -> None:
        while True:
            self._news.clear()
            with suppress(StorageUnavailable):  # It is still due.
                if await self._storage.read(partial(records.has_callback, self._now_us())):
                    while await self.tell_next(deliver):
                        pass
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK_S):
                    await self._news.wait()

    async def tell_next(self, deliver: Deliver) -> bool:
        """Tell one of those that are due. False: there was none."""
        now_us = self._now_us()
        next_us = now_us + round(TRY_S * MICROS)
        record = await self._storage.write(lambda: records.due_callback(now_us, next_us))
        if record is None:
            return False
        problem = await deliver(record.callback_url, _body(record), record.id)
        tries = record.callback_tries
        again_us = None
        if problem:
            log.warning("job_callback_failed", job_id=record.id, tries=tries, reason=problem)
            if tries <= len(PAUSES_S):
                again_us = self._now_us() + round(PAUSES_S[tries - 1] * MICROS)
        await self._storage.write(lambda: records.end_callback(record.id, again_us))
        return True


def _body(record: Record) -> bytes:
    state = JobState.Name(record.state).removeprefix("JOB_STATE_").lower()
    ended_us = record.ended_us or record.created_us
    return msgspec.json.encode(
        {
            "type": f"job.{state}",
            "timestamp": instant(ended_us),
            "data": {
                "id": record.id,
                "kind": record.kind,
                "state": state,
                "create_time": instant(record.created_us),
                "end_time": instant(ended_us),
                "metadata": msgspec.Raw(record.metadata_json.encode() or b"{}"),
            },
        }
    )
