"""What a running job tells, on its way into the database.

Events are gathered for a moment and written together, neighbouring pieces of text as one. What was not written when the
process is killed was not told to anybody. There is one writer at a time, and it knows the number of its last event: a
write whose outcome is unknown is tried again, and is found to be done if it was.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from trunkline.v1.completion_event_pb2 import CompleteResponse
from trunkline_server.core.errors import StorageUnavailable
from trunkline_server.core.transactions import Storage
from trunkline_server.jobs import records
from trunkline_server.jobs.bell import Bell
from trunkline_server.jobs.messages import completion_event, job_event
from trunkline_server.jobs.records import Event, Record

GATHER_S: Final = 0.05
RETRY_S: Final = 0.5
MAX_PENDING_BYTES: Final = 256 * 1024  # More, and whoever adds waits.
MAX_TEXT_CHARS: Final = 16 * 1024  # Of a piece that others are joined to.
_TEXTS: Final = ("text_delta", "reasoning_delta")


class Journal:
    """Of one job, while this process runs it.

    Attributes:
        progress: in percent.
        lost: set when somebody else has ended the job, or runs it.
    """

    def __init__(self, storage: Storage, bell: Bell, record: Record) -> None:
        self._storage = storage
        self._bell = bell
        self._record = record
        self._last = record.last_sequence
        self._events: list[tuple[str, CompleteResponse]] = []
        self._pending_bytes = 0
        self._writing = asyncio.Lock()
        self._later: asyncio.Task[None] | None = None
        self._failure: BaseException | None = None
        self.progress = record.progress
        self.lost = asyncio.Event()

    async def add(self, step: str, batch: Sequence[CompleteResponse]) -> None:
        """Tell what a completion of the job tells.

        Raises:
            Lost, TooManyEvents: an earlier write has failed for good.
        """
        for event in batch:
            self._pending_bytes += event.ByteSize()
            if not self._joined(step, event):
                self._events.append((step, event))
        if self._failure is not None:
            raise self._failure
        if self._pending_bytes > MAX_PENDING_BYTES:
            await self.flush()
        elif self._events and self._later is None:
            self._later = asyncio.create_task(self._write_later())

    async def flush(self) -> None:
        """All that was told is durable.

        Raises:
            Lost, TooManyEvents.
        """
        if self._failure is not None:
            raise self._failure
        await self._write()

    async def advance(self, progress: int) -> None:
        """Tell how far the job has come, in percent; never back.

        Raises:
            Lost, TooManyEvents.
        """
        await self.flush()
        if progress > self.progress:
            self.progress = progress
            now = replace(self._record, progress=progress)
            async with self._writing:
                await self._append([job_event(now)])

    async def close(self) -> None:
        """Write nothing more. What was not written is forgotten."""
        self._events.clear()
        if self._later is not None:
            self._later.cancel()
            await asyncio.wait([self._later])

    def _joined(self, step: str, event: CompleteResponse) -> bool:
        """Was this piece of text joined to the one before?"""
        kind = event.WhichOneof("event")
        if kind not in _TEXTS or not self._events or self._events[-1][0] != step:
            return False
        last = self._events[-1][1]
        if last.WhichOneof("event") != kind:
            return False
        before, now = getattr(last, kind), getattr(event, kind)
        if (before.choice_index, before.part_index) != (now.choice_index, now.part_index):
            return False
        if kind == "text_delta" and (before.logprobs or now.logprobs):
            return False
        if len(before.text) > MAX_TEXT_CHARS:
            return False
        joined = CompleteResponse()  # Events belong to those who made them.
        joined.CopyFrom(last)
        getattr(joined, kind).text += now.text
        self._events[-1] = (step, joined)
        return True

    async def _write_later(self) -> None:
        await asyncio.sleep(GATHER_S)
        self._later = None
        try:
            await self._write()
        except Exception as error:  # noqa: BLE001 - raised where the next event is added
            self._failure = error

    async def _write(self) -> None:
        async with self._writing:
            events, self._events, self._pending_bytes = self._events, [], 0
            if events:
                await self._append([completion_event(step, event) for step, event in events])

    async def _append(self, events: Sequence[Event]) -> None:
        record, last, progress = self._record, self._last, self.progress
        while True:
            try:
                self._last = await self._storage.write(
                    lambda: records.append(record.id, record.runner, last, events, progress)
                )
                break
            except StorageUnavailable as error:
                await asyncio.sleep(error.retry_after_s or RETRY_S)
            except records.Lost:
                self.lost.set()
                raise
        self._bell.ring(record.id)
