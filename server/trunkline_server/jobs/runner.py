"""Runs jobs in this process, one step after the other, until they end or somebody else has ended them.

A job may be run in more than one life of a process, and by more than one process; only steps that were not done yet are
done again. A completion that was told of in part, and then cut off, comes again after a StreamReset; one that was told
as a whole is taken from what was told.
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Mapping
from contextlib import aclosing, suppress
from dataclasses import dataclass, field, replace
from typing import Any, Final

import structlog
from google.rpc.status_pb2 import Status

from trunkline.v1.completion_event_pb2 import CompleteResponse, StreamReset
from trunkline.v1.completion_pb2 import Completion
from trunkline.v1.completion_spec_pb2 import CompletionSpec
from trunkline.v1.job_service_pb2 import JobState, WatchJobResponse
from trunkline_server.core.errors import (
    AllProvidersThrottled,
    Draining,
    Overloaded,
    PayloadTooLarge,
    ProvidersUnavailable,
    RateLimited,
    RequestInProgress,
    StorageUnavailable,
    StreamInterrupted,
    TrunklineError,
)
from trunkline_server.core.transactions import MakeTransaction, Storage, T
from trunkline_server.jobs import records
from trunkline_server.jobs.bell import Bell
from trunkline_server.jobs.durable import Steps
from trunkline_server.jobs.journal import Journal
from trunkline_server.jobs.messages import MICROS, job_event
from trunkline_server.jobs.records import Lost, Record, TooManyEvents

LEASE_S: Final = 6.0  # After that long, a job whose process was killed is run by another one.
RENEW_S: Final = 1.0  # Also how soon a job stops that another process has cancelled.
RETRY_S: Final = 1.0
MAX_RETRY_S: Final = 60.0
MAX_STARTS: Final = 100  # A job that takes its process down with it would do so for ever.

DONE: Final = "done"
FAILED: Final = "failed"
EXPIRED: Final = "expired"

# Nothing has happened yet, and later it may go better.
_PASSING: Final = (
    AllProvidersThrottled,
    Draining,
    Overloaded,
    ProvidersUnavailable,
    RateLimited,
    RequestInProgress,
    StorageUnavailable,
)

Complete = Callable[[CompletionSpec, str, str, str], AsyncGenerator[list[CompleteResponse], None]]
Describe = Callable[[BaseException, str], Status]
log: structlog.typing.FilteringBoundLogger = structlog.get_logger()


class Failed(Exception):
    """A step has failed, and the job with it. `status`: serialised."""

    def __init__(self, status: bytes) -> None:
        super().__init__()
        self.status = status


class Expired(Exception):
    """The job has taken as long as it may."""


@dataclass
class Run:
    """A job that this process runs. `over`: somebody else has ended it, or runs it."""

    record: Record
    journal: Journal
    until_s: float
    over: asyncio.Event = field(default_factory=asyncio.Event)


class Work:
    """What a kind of job sees of its job. On the event loop of the library."""

    def __init__(self, runner: "Runner", run: Run, steps: Steps) -> None:
        self._runner = runner
        self._run = run
        self._steps = steps
        self.job_id = run.record.id
        self.spec = CompletionSpec.FromString(run.record.spec)

    async def complete(self, name: str, spec: CompletionSpec) -> Completion:
        """The answer to a request of the job's caller, told to those who watch.

        Args:
            name: of the step, unlike all others of the job.

        Raises:
            Failed, Expired.
        """
        runner, run = self._runner, self._run
        answer = await self.once(name, lambda: runner.completed(run, name, spec))
        return Completion.FromString(answer)

    async def once(self, name: str, make: Callable[[], Coroutine[Any, Any, bytes]]) -> bytes:
        """Do something on our event loop, unless it was done before. Raises: Failed, Expired."""
        runner, run = self._runner, self._run
        how, content = await self._steps.once(name, lambda: runner.guarded(run, make()))
        if how == FAILED:
            raise Failed(content)
        if how == EXPIRED:
            raise Expired
        return content

    async def advance(self, progress: int) -> None:
        """Tell how far it has come, in percent. Raises: Failed, Expired."""
        runner, run = self._runner, self._run
        how, content = await self._steps.now(lambda: runner.guarded(run, self.tell(progress)))
        if how == FAILED:
            raise Failed(content)
        if how == EXPIRED:
            raise Expired

    async def tell(self, progress: int) -> bytes:
        """The same from within a step, on our event loop."""
        await self._run.journal.advance(progress)
        return b""


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of job.

    Attributes:
        run: does it, and returns its result, serialised.
        check: raises InvalidRequest where a request can't be of this kind.
    """

    run: Callable[[Work], Awaitable[bytes]]
    check: Callable[[CompletionSpec], None] = lambda spec: None


class Runner:
    """All jobs that this process runs.

    Args:
        name: of the process, and of no other one ever.
        complete: asks for a completion: spec, key id, request id, idempotency key; as `Completions.stream`.
        describe: an error as callers are told of it.
        kinds: by name.
        keeps_keys: an idempotency key is honoured.
        ended: told when a job has ended here.
    """

    def __init__(
        self,
        storage: Storage,
        bell: Bell,
        *,
        name: str,
        complete: Complete,
        describe: Describe,
        kinds: Mapping[str, Kind],
        keeps_keys: bool,
        max_s: float,
        keep_s: float,
        now_us: Callable[[], int],
        ended: Callable[[], None],
    ) -> None:
        self.name = name
        self._storage = storage
        self._bell = bell
        self._complete = complete
        self._describe = describe
        self._kinds = kinds
        self._keeps_keys = keeps_keys
        self._max_us = round(max_s * MICROS)
        self._keep_us = round(keep_s * MICROS)
        self._now_us = now_us
        self._ended = ended
        self._runs: dict[str, Run] = {}

    async def work(self, job_id: str, steps: Steps) -> None:
        """Run one job to its end. On the event loop of the library."""
        run = await steps.now(lambda: self._begin(job_id))
        if run is None:
            return
        end = replace(run.record, state=JobState.JOB_STATE_SUCCEEDED, progress=100)
        try:
            result = await self._kinds[end.kind].run(Work(self, run, steps))
            end = replace(end, result=result)
        except Failed as failed:
            progress = run.journal.progress
            state = JobState.JOB_STATE_FAILED
            end = replace(end, state=state, progress=progress, error=failed.status)
        except Expired:
            end = replace(end, state=JobState.JOB_STATE_EXPIRED, progress=run.journal.progress)
        except Exception as bug:  # noqa: BLE001 - the last line: no job is left without an end
            end = replace(end, state=JobState.JOB_STATE_FAILED, error=self._bug(job_id, bug))
        last = end
        await steps.now(lambda: self._end(run, last))

    async def completed(self, run: Run, step: str, spec: CompletionSpec) -> bytes:
        """A completion of a job, told as it comes. Returns it, serialised. Raises: TrunklineError, Lost."""
        job_id, journal = run.record.id, run.journal
        has_begun, told = await self._read(lambda: records.step_so_far(job_id, step))
        if told is not None:
            answer = WatchJobResponse.FromString(told).completion_event.completed.completion
            return answer.SerializeToString()
        key = f"{job_id}:{step}" if self._keeps_keys else ""
        while True:
            if has_begun:
                await journal.add(step, [CompleteResponse(stream_reset=StreamReset())])
                has_begun = False
            found = b""
            try:
                events = self._complete(spec, run.record.key_id, f"{job_id}-{step}", key)
                async with aclosing(events) as batches:
                    async for batch in batches:
                        has_begun = has_begun or bool(batch)
                        await journal.add(step, batch)
                        if batch and batch[-1].HasField("completed"):
                            found = batch[-1].completed.completion.SerializeToString()
                await journal.flush()
                return found
            except _PASSING as error:
                if has_begun:
                    raise
                await asyncio.sleep(min(error.retry_after_s or RETRY_S, MAX_RETRY_S))

    async def guarded(self, run: Run, body: Coroutine[Any, Any, bytes]) -> tuple[str, bytes]:
        """Do something until it is done or the job is over. Cancelled then: there is nobody left to tell."""
        task = asyncio.ensure_future(body)
        over = asyncio.ensure_future(run.over.wait())
        lost = asyncio.ensure_future(run.journal.lost.wait())
        waiting = [task, over, lost]
        left_s = max(0.0, run.until_s - asyncio.get_running_loop().time())
        try:
            await asyncio.wait(waiting, timeout=left_s, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for each in waiting:
                each.cancel()
            await asyncio.wait(waiting)
        if run.over.is_set() or run.journal.lost.is_set():
            raise asyncio.CancelledError
        if task.cancelled():
            return EXPIRED, b""
        error = task.exception()
        if error is None:
            return DONE, task.result()
        if isinstance(error, Lost):
            raise asyncio.CancelledError
        return FAILED, self._status(run.record.id, error)

    def stop_running(self, job_id: str) -> None:
        """It has ended: whatever is done for it here is cancelled."""
        run = self._runs.get(job_id)
        if run is not None:
            run.over.set()
            self._leave(run)

    async def renew(self) -> None:
        """Go on running what runs, for another lease; stop what somebody else has ended. Raises: StorageUnavailable."""
        known = list(self._runs)
        if not known:
            return
        until_us = self._now_us() + round(LEASE_S * MICROS)
        still = await self._storage.write(lambda: records.renew(self.name, until_us))
        for job_id in known:
            if job_id not in still:
                self.stop_running(job_id)

    async def close(self) -> None:
        """After the library has stopped: others may run what ran here."""
        for run in list(self._runs.values()):
            self._runs.pop(run.record.id)
            await run.journal.close()
        await self._storage.write(lambda: records.release(self.name))

    async def _begin(self, job_id: str) -> Run | None:
        while True:
            record = await self._read(lambda: records.find(job_id))
            if record is None or record.has_ended:
                return None
            if record.starts >= MAX_STARTS:
                error = StreamInterrupted("the server went down too often while this job ran")
                status = self._describe(error, job_id).SerializeToString()
                state = JobState.JOB_STATE_FAILED
                await self.finish(replace(record, state=state, error=status))
                return None
            begun = await self._write(self._beginning(record))
            if begun is not None:
                break
            await asyncio.sleep(RETRY_S)  # Whoever has it ends it, or is found to be gone.
        left_s = (begun.expires_us - self._now_us()) / MICROS
        until_s = asyncio.get_running_loop().time() + left_s
        run = self._runs[job_id] = Run(begun, Journal(self._storage, self._bell, begun), until_s)
        self._bell.ring(job_id)
        return run

    def _beginning(self, record: Record) -> MakeTransaction[Record | None]:
        now_us = self._now_us()
        lease_us = now_us + round(LEASE_S * MICROS)
        began_us = record.started_us or now_us
        running = replace(
            record,
            state=JobState.JOB_STATE_RUNNING,
            started_us=began_us,
            expires_us=began_us + self._max_us,
        )
        event = job_event(running)
        return lambda: records.begin(record, event, self.name, now_us, lease_us, self._max_us)

    async def _end(self, run: Run, end: Record) -> None:
        with suppress(Lost, TooManyEvents):  # The end says what there is to say.
            await run.journal.flush()
        with suppress(Lost):
            await self.finish(end, only_runner=self.name)
        self._leave(run)
        await run.journal.close()

    async def finish(self, end: Record, *, only_runner: str = "") -> bool:
        """Write a job's end, if it has none. Tries for as long as it takes.

        Args:
            end: the job with its last state, and without the time.

        Raises:
            Lost: it is not `only_runner` that runs it.
        """
        now_us = self._now_us()
        end = replace(end, ended_us=now_us, expires_us=now_us + self._keep_us)
        event = job_event(end)
        has_ended = await self._write(
            lambda: records.finish(end, event, only_runner=only_runner, now_us=now_us)
        )
        self._bell.ring(end.id)
        if has_ended:
            log.info("job_ended", job_id=end.id, kind=end.kind, state=JobState.Name(end.state))
            self._ended()
        return has_ended

    def _leave(self, run: Run) -> None:
        if self._runs.get(run.record.id) is run:
            del self._runs[run.record.id]

    async def _write(self, make: MakeTransaction[T]) -> T:
        while True:
            try:
                return await self._storage.write(make)
            except StorageUnavailable as error:
                await asyncio.sleep(error.retry_after_s or RETRY_S)

    async def _read(self, make: MakeTransaction[T]) -> T:
        while True:
            try:
                return await self._storage.read(make, is_short=True)
            except StorageUnavailable as error:
                await asyncio.sleep(error.retry_after_s or RETRY_S)

    def _status(self, job_id: str, error: BaseException) -> bytes:
        if isinstance(error, TooManyEvents):
            error = PayloadTooLarge("job", f"tells more than {records.MAX_EVENT_BYTES} bytes")
        if not isinstance(error, TrunklineError):
            return self._bug(job_id, error)
        return self._describe(error, job_id).SerializeToString()

    def _bug(self, job_id: str, error: BaseException) -> bytes:
        # Where it was, without its text, which could quote content.
        trace = RuntimeError(type(error).__name__).with_traceback(error.__traceback__)
        log.error("bug", job_id=job_id, exc_info=trace)
        return self._describe(error, job_id).SerializeToString()
