"""PostgreSQL: one database for any number of servers, with group commit.

What waits to be written is run as one database transaction, one rule's transaction after the other, and committed once.
The groups of all servers run one after the other: each begins by waiting for its turn, an advisory lock that ends with
its transaction. Groups that ran side by side would lock the rows of many accounts in any order, and the head of the
audit log in between, and be stopped as deadlocks, each after a second of PostgreSQL's waiting. It also makes rules run
here as they do on SQLite, where there is one writer too. So one connection writes: with two or three, and with or
without turns, the same load was never faster, and without turns it was ten times slower at 512 callers.

A connection is kept up by a task of its own, which alone uses it. So a caller that is cancelled breaks nothing, and
what hangs is closed under its task, which then connects anew. Attempts to connect are made one at a time, with pauses.
"""

import asyncio
import errno
import random
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

import asyncpg
import structlog

from trunkline_server.core.errors import StorageUnavailable
from trunkline_server.core.transactions import MakeTransaction, T
from trunkline_server.storage.postgres_group import RETRY_AFTER_S, Group, Job

MAX_GROUP: Final = 128  # Transactions that share a commit.
MAX_WAITING: Final = 4096  # Reads and writes, each: those that were not answered yet.
CONFLICT_PAUSE_S: Final = 0.02
# Who waits that long where there is no connection is refused, and after that everybody at once.
NO_CONNECTION_S: Final = 0.25
WRITE_S: Final = 2.5  # By then a write is answered, whatever happens.
READ_S: Final = 1.0
STATEMENT_S: Final = 2.0
LOCK_S: Final = 1.5  # Longer than PostgreSQL takes to find a deadlock, which is a better answer.
# A server that was frozen in its turn holds the others up for no longer.
IDLE_IN_TRANSACTION_S: Final = 1.0
HANGING_S: Final = 0.25  # Past the time that the database has itself, its connection is closed.
CONNECT_S: Final = 1.0
FIRST_PAUSE_S: Final = 0.1  # Between attempts to connect; doubled for each in a row.
MAX_PAUSE_S: Final = 0.5  # Both are halved at random.
CLOSE_S: Final = 3.0
MAX_STATEMENTS: Final = 256  # Prepared ones, of each connection.
TURN: Final = 0x7472756E6B6C696E  # Names the advisory lock.

log: structlog.typing.FilteringBoundLogger = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class _Kind:
    """What a lane is for, and its limits.

    Attributes:
        wait_s: how long one may wait for its turn.
        answer_s: and for its answer, from its beginning on.
        statement_s: what the database itself allows a statement.
    """

    name: str
    connections: int
    max_group: int
    begin: str
    wait_s: float
    answer_s: float
    statement_s: float
    settings: dict[str, str]
    is_read_only: bool


_COMMON: Final = {
    "application_name": "trunkline",
    "idle_in_transaction_session_timeout": str(round(IDLE_IN_TRANSACTION_S * 1000)),
    "tcp_keepalives_idle": "30",  # Seconds: firewalls forget connections on which nothing moves.
}
_WRITES: Final = _Kind(
    name="write",
    connections=1,
    max_group=MAX_GROUP,
    begin=f"BEGIN; SELECT pg_advisory_xact_lock({TURN})",
    wait_s=WRITE_S,
    answer_s=WRITE_S,
    statement_s=STATEMENT_S,
    settings={
        **_COMMON,
        "default_transaction_isolation": "read committed",
        "default_transaction_read_only": "off",
        "synchronous_commit": "on",
        "statement_timeout": str(round(STATEMENT_S * 1000)),
        "lock_timeout": str(round(LOCK_S * 1000)),
    },
    is_read_only=False,
)
_READS: Final = _Kind(
    name="read",
    connections=2,
    max_group=1,
    begin="BEGIN",
    wait_s=NO_CONNECTION_S,
    answer_s=READ_S,
    statement_s=READ_S,
    settings={
        **_COMMON,
        "default_transaction_isolation": "repeatable read",
        "default_transaction_read_only": "on",
        "statement_timeout": str(round(READ_S * 1000)),
    },
    is_read_only=True,
)


class PostgresStorage:
    """The `Storage` port over one database. `start` before use, `close` after; all from one event loop.

    Args:
        url: as libpq has it: `postgresql://user:password@host:port/database`.
    """

    def __init__(self, url: str) -> None:
        connector = _Connector(url)
        self._writes = _Lane(_WRITES, connector)
        self._reads = _Lane(_READS, connector)

    async def start(self) -> None:
        """Connect. Returns when connected, or after a while when not: it goes on trying."""
        self._writes.start()
        self._reads.start()
        with suppress(TimeoutError):
            async with asyncio.timeout(CONNECT_S):
                await self._writes.connected.wait()
                await self._reads.connected.wait()

    @property
    def is_healthy(self) -> bool:
        """Can it write and read, as far as is known?"""
        return not self._writes.problem and not self._reads.problem

    async def write(self, make: MakeTransaction[T]) -> T:
        """See `Storage`."""
        return await self._writes.run(make)

    async def read(self, make: MakeTransaction[T], *, is_short: bool = False) -> T:
        """See `Storage`. What is long ends after `READ_S`, and there are connections for several."""
        return await self._reads.run(make)

    async def close(self) -> None:
        """Commit what waits, within `CLOSE_S`, and disconnect."""
        await asyncio.gather(self._writes.close(), self._reads.close())


class _Connector:
    """Makes connections, one at a time."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._turn = asyncio.Lock()
        self._failures = 0

    async def connect(self, kind: _Kind, failed: Callable[[str], None]) -> asyncpg.Connection:
        """A connection, as soon as one can be had. `failed` is told why there is none yet."""
        while True:
            async with self._turn:
                try:
                    connection = await self._attempt(kind)
                except Exception as error:  # noqa: BLE001 - the driver names no common class; the next may succeed
                    failed(_reason(error))
                else:
                    self._failures = 0
                    return connection
                pause_s = min(MAX_PAUSE_S, FIRST_PAUSE_S * 2.0 ** min(self._failures, 10))
                self._failures += 1
                await asyncio.sleep(pause_s * random.uniform(0.5, 1.0))

    async def _attempt(self, kind: _Kind) -> asyncpg.Connection:
        async with asyncio.timeout(CONNECT_S):
            connection = await asyncpg.connect(
                self._url,
                timeout=2 * CONNECT_S,
                statement_cache_size=MAX_STATEMENTS,
                max_cached_statement_lifetime=0,
                server_settings=kind.settings,
                target_session_attrs="any" if kind.is_read_only else "read-write",
            )
            try:
                # Sums of 64-bit integers are of this type, and integers on SQLite.
                await connection.set_type_codec(
                    "numeric", schema="pg_catalog", encoder=str, decoder=_number, format="text"
                )
            except BaseException:
                connection.terminate()
                raise
            return connection


def _number(text: str) -> int | float:
    return int(text) if text.lstrip("-").isdigit() else float(text)


class _Lane:
    """Transactions of one kind that wait, and the connections that run them."""

    def __init__(self, kind: _Kind, connector: _Connector) -> None:
        self._kind = kind
        self._connector = connector
        self._waiting: deque[Job] = deque()
        self._unanswered: set[Job] = set()
        self._idle: list[asyncio.Event] = []
        self._connections: set[asyncpg.Connection] = set()
        self._tasks: list[asyncio.Task[None]] = []
        self._busy = 0
        self._drained = asyncio.Event()
        self._refuses = True
        self._is_closing = False
        self._refusal: asyncio.TimerHandle | None = None
        self._is_told = False
        self.problem = "NOT_CONNECTED"
        self.connected = asyncio.Event()

    # For those who ask

    async def run(self, make: MakeTransaction[T]) -> T:
        """One transaction."""
        if self._refuses or self._is_closing or len(self._unanswered) >= MAX_WAITING:
            raise StorageUnavailable(retry_after_s=RETRY_AFTER_S)
        if len(self._waiting) >= 2 * MAX_WAITING:  # Half of them at least are not wanted any more.
            self._waiting = deque(waiting for waiting in self._waiting if waiting.is_wanted)
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        job = Job(make, future)
        kind = self._kind
        answer = loop.call_later(kind.answer_s, job.refuse)
        turn = (
            loop.call_later(kind.wait_s, _refuse_late, job) if kind.wait_s < kind.answer_s else None
        )
        self._unanswered.add(job)
        self._waiting.append(job)
        self._wake()
        try:
            return await future
        finally:
            self._unanswered.discard(job)
            answer.cancel()
            if turn is not None:
                turn.cancel()

    def start(self) -> None:
        self._refuses = False
        self._refuse_soon()
        self._tasks = [
            asyncio.create_task(self._keep_up(), name=f"postgres-{self._kind.name}-{n}")
            for n in range(self._kind.connections)
        ]

    async def close(self) -> None:
        self._is_closing = True
        self._drained.clear()
        if self._connections and (self._waiting or self._busy):
            with suppress(TimeoutError):
                async with asyncio.timeout(CLOSE_S):
                    await self._drained.wait()
        if self._busy:
            for connection in self._connections:
                connection.terminate()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._refusal is not None:
            self._refusal.cancel()
        self._waiting.clear()
        for job in self._unanswered:
            job.refuse()
        await asyncio.gather(*map(_disconnect, self._connections))
        self._connections.clear()

    # Connections

    async def _keep_up(self) -> None:
        """Have one connection, and run what waits, for ever."""
        while True:
            connection = await self._connector.connect(self._kind, self._not_connected)
            self._connections.add(connection)
            self._connection_made()
            try:
                await self._use(connection)
            except Exception as error:  # noqa: BLE001 - a bug; who waits is answered when the time is up
                log.error("bug", lane=self._kind.name, reason=type(error).__name__)
                connection.terminate()
            self._connections.discard(connection)
            self._connection_lost()
            await asyncio.sleep(FIRST_PAUSE_S * random.uniform(0.5, 1.0))

    async def _use(self, connection: asyncpg.Connection) -> None:
        """Run what waits until the connection is lost."""
        wake = asyncio.Event()
        connection.add_termination_listener(lambda _: wake.set())
        while not connection.is_closed():
            if self._waiting:
                await self._serve(connection)
                continue
            wake.clear()
            self._idle.append(wake)
            try:
                await wake.wait()
            finally:
                if wake in self._idle:
                    self._idle.remove(wake)

    def _wake(self) -> None:
        if self._idle:
            self._idle.pop().set()

    def _connection_made(self) -> None:
        self._refuses = False
        if self._refusal is not None:
            self._refusal.cancel()
            self._refusal = None
        self.connected.set()
        self._works()

    def _not_connected(self, reason: str) -> None:
        if not self._connections:
            self._trouble(reason)

    def _connection_lost(self) -> None:
        if not self._connections:
            self._trouble("CONNECTION_LOST")
            self._refuse_soon()
        elif self._waiting:
            self._wake()

    def _refuse_soon(self) -> None:
        if self._refusal is None and not self._refuses:
            loop = asyncio.get_running_loop()
            self._refusal = loop.call_later(NO_CONNECTION_S, self._refuse_all)

    def _refuse_all(self) -> None:
        self._refusal = None
        self._refuses = True
        self._refuse_waiting()
        self._drained.set()

    def _refuse_waiting(self) -> None:
        while self._waiting:
            self._waiting.popleft().refuse()

    def _trouble(self, reason: str) -> None:
        self.problem = reason
        if not self._is_told:
            self._is_told = True
            log.warning("database_unavailable", lane=self._kind.name, reason=reason)

    def _works(self) -> None:
        self.problem = ""
        if self._is_told:
            self._is_told = False
            log.info("database_back", lane=self._kind.name)

    # Groups

    async def _serve(self, connection: asyncpg.Connection) -> None:
        self._busy += 1
        try:
            await self._run_waiting(connection)
        finally:
            self._busy -= 1
            if not self._waiting and not self._busy:
                self._drained.set()

    async def _run_waiting(self, connection: asyncpg.Connection) -> None:
        """Run what waits in one database transaction; what can't be run with others, each in its own."""
        again = await self._run_group(connection, None)
        while again and not connection.is_closed():
            job = again.pop(0)
            if not job.is_wanted:
                continue
            if job.tries:
                await asyncio.sleep(CONFLICT_PAUSE_S * random.uniform(0.5, 1.0))
            again += await self._run_group(connection, job)
        self._put_back(again)

    async def _run_group(self, connection: asyncpg.Connection, alone: Job | None) -> list[Job]:
        """Run one transaction, or those whose turn it is. Returns those that must be run again, each alone."""
        kind = self._kind
        group = Group(connection, kind.statement_s + HANGING_S, is_read_only=kind.is_read_only)
        ended = await group.begin(kind.begin)
        if ended is None:
            # Only now that it is our turn, so that all who have come meanwhile share the commit.
            ended = await group.run(self._take() if alone is None else [alone])
        elif alone is not None:
            ended.put_back.append(alone)
        self._put_back(ended.put_back)
        if ended.is_busy:
            log.warning("database_busy", lane=kind.name, reason=ended.reason)
        elif ended.reason:
            self._trouble(ended.reason)
        else:
            self._works()
        return ended.again

    def _take(self) -> list[Job]:
        """Those whose turn it is."""
        jobs: list[Job] = []
        while self._waiting and len(jobs) < self._kind.max_group:
            job = self._waiting.popleft()
            if job.is_wanted:
                job.is_begun = True
                jobs.append(job)
        if self._waiting:
            self._wake()
        return jobs

    def _put_back(self, jobs: Sequence[Job]) -> None:
        """They come first, next time."""
        self._waiting.extendleft(reversed(jobs))
        if jobs:
            self._wake()


def _refuse_late(job: Job) -> None:
    if not job.is_begun:
        job.refuse()


def _reason(error: Exception) -> str:
    """Without the error's text, which may quote what it was given."""
    code = getattr(error, "sqlstate", None)
    if isinstance(code, str):
        return code
    if isinstance(error, OSError) and error.errno is not None:
        return errno.errorcode.get(error.errno, type(error).__name__)
    return type(error).__name__


async def _disconnect(connection: asyncpg.Connection) -> None:
    with suppress(Exception):
        await connection.close(timeout=CONNECT_S)
