"""Durable execution, by DBOS: a queue, steps that are not done again once they are done, and a database for both.

The library runs in threads of its own, so that its database never holds up a completion. A job is one of its workflows:
a function that does everything in steps. It runs on the library's event loop, each step on ours. Cancelled, which only
happens when the process goes down, it leaves no trace, and goes on from its last step when somebody resumes it.

It is loaded when the first job comes, because that takes a second or two. There is one of it in a process.
"""

import asyncio
import importlib.util
import logging
import sqlite3
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, ClassVar, Final, Protocol, TypeVar

import structlog

if TYPE_CHECKING:
    from dbos import DBOSConfig

NAME: Final = "trunkline-jobs"
QUEUE: Final = "jobs"
WORKFLOW: Final = "job"
# Of the order of steps. A job that began under another version is not taken up by this one.
VERSION: Final = "1"
POLL_S: Final = 0.2
LISTEN_S: Final = 0.25
POOL: Final = 8
KNOWS_FRACTIONS: Final = (3, 42, 0)  # https://sqlite.org/lang_datefunc.html: the modifier `subsec`.

T = TypeVar("T")
log: structlog.typing.FilteringBoundLogger = structlog.get_logger()


class NotAvailable(Exception):
    """The library can't start. The text names the kind of the cause."""


class Steps(Protocol):
    """What a job does its work with, on the library's event loop."""

    async def once(self, name: str, make: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Run a step on our event loop, unless an earlier run of this job has: then only return what it did.

        Returns: what the library can keep: text, numbers, bytes, and tuples of them.
        """
        ...

    async def now(self, make: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Run something on our event loop, each time anew."""
        ...


Work = Callable[[str, Steps], Awaitable[None]]


def is_installed() -> bool:
    """Is the library there? Does not load it."""
    return importlib.util.find_spec("dbos") is not None


class Durable:
    """The queue of jobs, and what runs them, between `start` and `stop`. Only one in a process.

    Args:
        url: of a database of its own, `sqlite:PATH` or `postgresql://...`; with a password, so it is never shown.
        runner: names the process, and no other one ever.
        work: runs one job, by id, to its end.
    """

    def __init__(self, url: str, runner: str, max_running: int, work: Work) -> None:
        self._url = url
        self._runner = runner
        self._max_running = max_running
        self._work = work
        self._loop: asyncio.AbstractEventLoop | None = None
        self._starting: asyncio.Future[None] | None = None
        self._is_running = False

    _only: ClassVar["Durable | None"] = (
        None  # The one whose library runs, because there is one library.
    )

    async def start(self) -> None:
        """Load the library, and begin to take jobs from the queue.

        Raises:
            NotAvailable.
        """
        if Durable._only is not None:
            raise NotAvailable("another service of this process has the library")
        Durable._only = self
        self._loop = asyncio.get_running_loop()
        self._starting = asyncio.ensure_future(asyncio.to_thread(self._start))
        try:
            await asyncio.shield(
                self._starting
            )  # A thread can't be cancelled; `stop` waits for it.
        except Exception as error:  # noqa: BLE001 - whatever it is, the library is not there
            await self.stop()
            # Texts of database libraries may hold addresses with passwords.
            raise NotAvailable(type(error).__name__) from None
        self._is_running = True

    async def stop(self) -> None:
        """Interrupt whatever runs, and let go of the database."""
        starting, self._starting = self._starting, None
        if starting is None:
            return
        self._is_running = False
        await asyncio.wait([starting])
        starting.exception()
        with suppress(Exception):  # It may have started in part only.
            await asyncio.to_thread(self._stop)
        Durable._only = None

    async def enqueue(self, job_id: str) -> None:
        """Have it run, once a place is free. Does nothing when it is known already.

        Raises:
            NotAvailable.
        """
        await self._asked(lambda: self._enqueue(job_id))

    async def resume(self, job_id: str) -> None:
        """Have it go on, whoever ran it and is gone.

        Raises:
            NotAvailable.
        """
        await self._asked(lambda: self._resume(job_id))

    async def forget(self, job_ids: Sequence[str]) -> None:
        """Delete what is known of them.

        Raises:
            NotAvailable.
        """
        await self._asked(lambda: self._forget(job_ids))

    async def once(self, name: str, make: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """See `Steps`."""
        from dbos import DBOS

        async def step() -> T:
            return await self.now(make)

        return await DBOS.run_step_async({"name": name}, step)

    async def now(self, make: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """See `Steps`."""
        assert self._loop is not None
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(make(), self._loop))

    async def _asked(self, what: Callable[[], None]) -> None:
        if not self._is_running:
            raise NotAvailable("stopped")
        try:
            await asyncio.to_thread(what)
        except Exception as error:  # noqa: BLE001 - as above
            raise NotAvailable(type(error).__name__) from None

    def _start(self) -> None:
        _redirect_log()
        _teach_fractions()
        from dbos import DBOS

        url = _library_url(self._url)
        DBOS.migrate(url)
        self._make_queue(url)
        config: DBOSConfig = {
            "name": NAME,
            "system_database_url": url,
            "executor_id": self._runner,
            "application_version": VERSION,
            "sys_db_pool_size": POOL,
            "notification_listener_polling_interval_sec": LISTEN_S,
            "log_level": "ERROR",
            "enable_otlp": False,
        }
        DBOS(config=config)

        # A job that is interrupted often is our own matter: `runner.MAX_STARTS`.
        @DBOS.workflow(name=WORKFLOW, max_recovery_attempts=None)
        async def run(job_id: str) -> None:
            await self._work(job_id, self)

        DBOS.launch()

    def _make_queue(self, url: str) -> None:
        """Before the library starts, because one that is made later is noticed a second later."""
        from dbos import DBOSClient

        client = DBOSClient(system_database_url=url, application_name=NAME)
        try:
            client.register_queue(
                QUEUE, worker_concurrency=self._max_running, polling_interval_sec=POLL_S
            )
        finally:
            client.destroy()

    def _stop(self) -> None:
        from dbos import DBOS

        DBOS.destroy(destroy_registry=True)

    def _enqueue(self, job_id: str) -> None:
        from dbos import DBOS

        DBOS.enqueue_workflow_with_options(
            {
                "workflow_name": WORKFLOW,
                "workflow_id": job_id,
                "queue_name": QUEUE,
                "app_version": VERSION,
            },
            job_id,
        )

    def _resume(self, job_id: str) -> None:
        from dbos import DBOS

        if DBOS.get_workflow_status(job_id) is None:
            self._enqueue(job_id)  # In a database that is not the one it was in, it begins anew.
        else:
            DBOS.resume_workflow(job_id, queue_name=QUEUE)

    def _forget(self, job_ids: Sequence[str]) -> None:
        from dbos import DBOS

        DBOS.delete_workflows(list(job_ids))


def _library_url(url: str) -> str:
    """As the library's own library of databases wants it."""
    if url.startswith("sqlite:"):
        return "sqlite:///" + url.removeprefix("sqlite:").removeprefix("///")
    return url


class _LogHandler(logging.Handler):
    """Says that the library has complained, and where; its texts quote what they are about."""

    def emit(self, record: logging.LogRecord) -> None:
        log.warning("jobs_library", where=f"{record.module}:{record.lineno}")


def _teach_fractions() -> None:
    """Give SQLite the time in fractions of a second, where it is older than 3.42 and has no word for that.

    The library judges by the version of Python, and would write NULL into columns that take none.
    """
    from sqlalchemy import Engine, event

    is_old = sqlite3.sqlite_version_info < KNOWS_FRACTIONS
    if is_old and not event.contains(Engine, "connect", _teach):
        event.listen(Engine, "connect", _teach)


def _teach(connection: Any, _: object) -> None:
    if isinstance(connection, sqlite3.Connection):
        connection.create_function("unixepoch", 1, _unixepoch)


def _unixepoch(word: object) -> float | None:
    return time.time() if word == "subsec" else None


def _redirect_log() -> None:
    logger = logging.getLogger("dbos")
    if not any(isinstance(handler, _LogHandler) for handler in logger.handlers):
        # There before the library looks for one, so it adds none that prints.
        logger.handlers[:] = [_LogHandler(logging.ERROR)]
        logger.propagate = False
