"""Jobs, as those see them who ask for them: made, looked at, watched and cancelled.

What is asked for is durable before it is answered. Then somebody has to see that it runs: whoever finds a job that
nobody attends to, in this process or another one, puts it into the queue of the library that runs it.
"""

import asyncio
import re
from collections.abc import AsyncGenerator, Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from hashlib import sha256
from typing import Final, Protocol

import structlog

from trunkline.v1.job_service_pb2 import CreateJobRequest, Job, JobState, WatchJobResponse
from trunkline_server.core.errors import (
    Draining,
    InvalidRequest,
    JobNotFound,
    NotSupported,
    Overloaded,
    StorageUnavailable,
)
from trunkline_server.core.plans import Caller
from trunkline_server.core.transactions import Storage
from trunkline_server.core.validation import MAX_IDEMPOTENCY_KEY_CHARS, check_spec
from trunkline_server.jobs import records
from trunkline_server.jobs.bell import Bell, heard
from trunkline_server.jobs.callbacks import Callbacks, Deliver
from trunkline_server.jobs.completion import complete
from trunkline_server.jobs.durable import Durable, NotAvailable, is_installed
from trunkline_server.jobs.messages import (
    COMPLETION,
    MICROS,
    RESEARCH,
    VIDEO,
    job_event,
    job_message,
    response,
)
from trunkline_server.jobs.records import Record
from trunkline_server.jobs.research import check, research
from trunkline_server.jobs.runner import (
    LEASE_S,
    RENEW_S,
    Complete,
    Describe,
    Kind,
    Runner,
)

ATTEND_S: Final = 1.0
UPKEEP_S: Final = 5.0
LAUNCH_RETRY_S: Final = 5.0
LOOK_S: Final = 0.5  # Of who watches a job that runs in another process.
CLAIMED_AT_ONCE: Final = 100
READ_AT_ONCE: Final = 64  # Events of a job.
MAX_WATCHERS: Final = 1_000
MAX_CALLBACK_URL_CHARS: Final = 2_048
JOB_ID: Final = re.compile(r"job_[0-9A-Z]{26}\Z")

log: structlog.typing.FilteringBoundLogger = structlog.get_logger()


class CheckUrl(Protocol):
    """Raises: InvalidRequest, naming `callback_url`: nothing would be sent there."""

    def __call__(self, url: str) -> None: ...


@dataclass(frozen=True, slots=True)
class JobRules:
    """What `[jobs]` says.

    Attributes:
        max_s: a job runs no longer.
        keep_s: after its end it is forgotten; so is one that never began.
    """

    max_running: int
    max_queued: int
    max_s: float
    keep_s: float


class Jobs:
    """All jobs of a service.

    Args:
        url: of the library's database; asked for when the library is started.
        is_lasting: there may be jobs of an earlier life.
        is_alone: no other process runs these jobs, so whoever ran them before is gone.
        name: of the process, and of no other one ever.
        check_url: of callbacks; `deliver`: tells somebody. None: there is no secret to sign with.
    """

    def __init__(
        self,
        storage: Storage,
        rules: JobRules,
        *,
        url: Callable[[], str],
        is_lasting: bool,
        is_alone: bool,
        name: str,
        complete_for: Complete,
        describe: Describe,
        kinds: Mapping[str, Kind],
        keeps_keys: bool,
        check_url: CheckUrl,
        deliver: Deliver | None,
        now_us: Callable[[], int],
        mint_id: Callable[[], str],
    ) -> None:
        self._storage = storage
        self._rules = rules
        self._url = url
        self._is_lasting = is_lasting
        self._is_alone = is_alone
        self._check_url = check_url
        self._can_call_back = deliver is not None
        self._now_us = now_us
        self._mint_id = mint_id
        self._kinds = {COMPLETION: Kind(complete), RESEARCH: Kind(research, check), **kinds}
        self._bell = Bell()
        self._news = asyncio.Event()
        self._callbacks = Callbacks(storage, deliver, now_us)
        self._runner = Runner(
            storage,
            self._bell,
            name=name,
            complete=complete_for,
            describe=describe,
            kinds=self._kinds,
            keeps_keys=keeps_keys,
            max_s=rules.max_s,
            keep_s=rules.keep_s,
            now_us=now_us,
            ended=self._callbacks.wake,
        )
        self._durable: Durable | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._watchers = 0
        self._has_old = False  # Something is to be forgotten, by the library too.
        self._is_stopping = False

    def start(self) -> None:
        """Attend to what an earlier life, or another process, has left. Where nothing lasts there is nothing yet."""
        if self._is_lasting and is_installed():
            self._attend()

    async def stop(self) -> None:
        """Interrupt what runs: it goes on in the next life, where it lasts. Those who watch are sent away."""
        if self._is_stopping:
            return
        self._is_stopping = True
        self._bell.ring_all()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        if self._durable is not None:
            await self._durable.stop()
        if self._tasks:
            try:
                await self._runner.close()
            except StorageUnavailable:
                log.warning("jobs_not_released")  # Their leases run out.

    async def create(self, request: CreateJobRequest, caller: Caller) -> Job:
        """A new job, or the one that was made under the same key before.

        Raises:
            InvalidRequest, NotSupported, IdempotencyConflict, RequestInProgress, Overloaded, Draining,
            StorageUnavailable.
        """
        if self._is_stopping:
            raise Draining
        self._check(request)
        now_us = self._now_us()
        record = Record(
            id=f"job_{self._mint_id()}",
            owner=caller.owner,
            key_id=caller.key_id,
            kind=request.kind,
            spec=request.spec.SerializeToString(deterministic=True),
            metadata_json=request.spec.metadata_json,
            state=JobState.JOB_STATE_QUEUED,
            created_us=now_us,
            expires_us=now_us + round(self._rules.keep_s * MICROS),
            callback_url=request.callback_url,
        )
        asked = f"{record.kind}\0{record.callback_url}\0".encode() + record.spec
        event = job_event(record)
        kept, is_new = await self._storage.write(
            lambda: records.create(
                record,
                event,
                idempotency_key=request.idempotency_key,
                fingerprint=sha256(asked).digest(),
                max_queued=self._rules.max_queued,
            )
        )
        if is_new:
            self._attend()
            self._news.set()
        return job_message(kept)

    async def get(self, job_id: str, caller: Caller) -> Job:
        """As it is now. Raises: JobNotFound, StorageUnavailable."""
        return job_message(await self._found(job_id, caller))

    async def page(self, caller: Caller, before: str, count: int) -> list[Job]:
        """The caller's jobs, newest first, without their results. Raises: StorageUnavailable.

        Args:
            before: the id of the last one that was seen; empty for the beginning.
        """
        found = await self._storage.read(lambda: records.page(caller.owner, before, count))
        return [job_message(record) for record in found]

    async def cancel(self, job_id: str, caller: Caller) -> Job:
        """End it. One that has ended stays as it is. Raises: JobNotFound, StorageUnavailable."""
        record = await self._found(job_id, caller)
        if not record.has_ended:
            await self._runner.finish(replace(record, state=JobState.JOB_STATE_CANCELLED))
            self._runner.stop_running(job_id)
        return job_message(await self._found(job_id, caller))

    async def watch(
        self, job_id: str, after: int, caller: Caller
    ) -> AsyncGenerator[list[WatchJobResponse], None]:
        """All events after that number, and those that are still to come, until the job has ended.

        Raises:
            JobNotFound, InvalidRequest, Overloaded, Draining, StorageUnavailable.
        """
        if after < 0:
            raise InvalidRequest("after_sequence", "0 or more")
        record = await self._found(job_id, caller)
        if after > record.last_sequence:
            raise InvalidRequest("after_sequence", f"there are {record.last_sequence} events")
        if self._watchers >= MAX_WATCHERS:
            raise Overloaded("too many jobs are watched")
        self._watchers += 1
        try:
            while True:
                if self._is_stopping:
                    raise Draining
                news = self._bell.listen(job_id)
                try:
                    found = await self._events(job_id, after)
                    if found:
                        after = found[-1].sequence
                        yield found
                    if found and found[-1].job.state in records.ENDED:
                        return
                    if len(found) < READ_AT_ONCE:
                        if not found and (await self._found(job_id, caller)).has_ended:
                            found = await self._events(job_id, after)
                            if not found:
                                return  # All of it was read before.
                            continue
                        await heard(news, LOOK_S)
                finally:
                    news.cancel()
        finally:
            self._watchers -= 1

    def _check(self, request: CreateJobRequest) -> None:
        kind = request.kind
        if kind == VIDEO and kind not in self._kinds:
            raise NotSupported(
                "no provider of videos is configured: [jobs] video_url", field="kind"
            )
        if kind not in self._kinds:
            known = ", ".join(sorted(self._kinds))
            raise InvalidRequest("kind", f"is none of {known}")
        if not is_installed():
            raise NotSupported('jobs need the extra `jobs`: pip install "trunkline[server,jobs]"')
        check_spec(request.spec)
        self._kinds[kind].check(request.spec)
        key = request.idempotency_key
        if len(key) > MAX_IDEMPOTENCY_KEY_CHARS or not key.isprintable():
            raise InvalidRequest(
                "idempotency_key", f"at most {MAX_IDEMPOTENCY_KEY_CHARS} printable characters"
            )
        if request.callback_url:
            if not self._can_call_back:
                raise NotSupported(
                    "this server has no secret to sign callbacks with", field="callback_url"
                )
            if len(request.callback_url) > MAX_CALLBACK_URL_CHARS:
                raise InvalidRequest("callback_url", f"at most {MAX_CALLBACK_URL_CHARS} characters")
            self._check_url(request.callback_url)

    async def _found(self, job_id: str, caller: Caller) -> Record:
        if not JOB_ID.match(job_id):
            raise JobNotFound
        record = await self._storage.read(partial(records.find, job_id), is_short=True)
        if record is None or record.owner != caller.owner:
            raise JobNotFound
        return record

    async def _events(self, job_id: str, after: int) -> list[WatchJobResponse]:
        found = await self._storage.read(
            lambda: records.events(job_id, after, READ_AT_ONCE), is_short=True
        )
        if not found:
            return []
        messages = [response(number, content, None) for number, content in found]
        if messages[-1].job.state in records.ENDED:
            record = await self._storage.read(lambda: records.find(job_id), is_short=True)
            messages[-1] = response(*found[-1], record)
        return messages

    # Seeing that jobs run.

    def _attend(self) -> None:
        if not self._tasks and not self._is_stopping:
            loop = asyncio.get_running_loop()
            works = (self._dispatch, self._renew, self._upkeep, self._callbacks.run)
            self._tasks = [loop.create_task(work()) for work in works]

    async def _dispatch(self) -> None:
        """Puts jobs that nobody attends to into the queue."""
        is_adopted = not (self._is_alone and self._is_lasting)
        while True:
            self._news.clear()
            try:
                if not is_adopted:
                    await self._storage.write(records.adopt)
                    is_adopted = True
                now_us = self._now_us()
                is_any, is_left = await self._storage.read(
                    partial(records.unfinished, now_us), is_short=True
                )
                if (is_any or self._has_old) and self._durable is None:
                    await self._launch()
                while is_left:
                    is_left = await self._claim(now_us)
            except StorageUnavailable:
                pass
            except NotAvailable as error:
                log.error("jobs_unavailable", reason=str(error))
                await asyncio.sleep(LAUNCH_RETRY_S)
            await heard_event(self._news, ATTEND_S)

    async def _launch(self) -> None:
        durable = Durable(
            self._url(), self._runner.name, self._rules.max_running, self._runner.work
        )
        self._durable = durable  # Known to `stop` from here on.
        try:
            await durable.start()
        except NotAvailable:
            self._durable = None
            raise

    async def _claim(self, before_us: int) -> bool:
        """Returns whether there may be more."""
        assert self._durable is not None
        until_us = self._now_us() + round(LEASE_S * MICROS)
        claimed = await self._storage.write(
            partial(records.claim, before_us, until_us, CLAIMED_AT_ONCE)
        )
        for job_id, is_new in claimed:
            if is_new:
                await self._durable.enqueue(job_id)
            else:
                await self._durable.resume(job_id)
            await self._storage.write(partial(records.entrust, job_id))
        return len(claimed) == CLAIMED_AT_ONCE

    async def _renew(self) -> None:
        while True:
            await asyncio.sleep(RENEW_S)
            try:
                await self._runner.renew()
            except StorageUnavailable:
                log.warning("jobs_not_renewed")

    async def _upkeep(self) -> None:
        """Ends what should have ended, and forgets what was kept long enough."""
        while True:
            await asyncio.sleep(UPKEEP_S)
            try:
                now_us = self._now_us()
                for record in await self._storage.read(
                    partial(records.overdue, now_us, CLAIMED_AT_ONCE)
                ):
                    await self._runner.finish(replace(record, state=JobState.JOB_STATE_EXPIRED))
                    self._runner.stop_running(record.id)
                old = await self._storage.read(partial(records.old, now_us, CLAIMED_AT_ONCE))
                self._has_old = bool(old)
                if old and self._durable is not None:
                    # Afterwards nobody would know any more what the library still holds.
                    await self._durable.forget(old)
                    await self._storage.write(partial(records.forget, old))
            except (StorageUnavailable, NotAvailable):
                pass  # It is tried again.


async def heard_event(event: asyncio.Event, limit_s: float) -> None:
    """Wait until it is set, or so long."""
    try:
        async with asyncio.timeout(limit_s):
            await event.wait()
    except TimeoutError:
        pass
