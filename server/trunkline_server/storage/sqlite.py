"""SQLite: one file, one writer, group commit.

Statements run where the event loop runs, because each takes microseconds and a thread would cost more in waiting for
the interpreter's lock than it saves. What can take milliseconds, the commit with its sync to the disk, runs in a
thread; meanwhile the next group gathers. So the more there is to do, the more share a commit.

Reads have threads of their own and never wait for a writer; short ones have theirs apart from those that may be long
(lists, usage).

The library is apsw's own and not the standard library's, because SQLite before 3.51.3 can corrupt a database in WAL
mode when two connections write and checkpoint at once. https://www.sqlite.org/wal.html#walreset
"""

import asyncio
import fcntl
import os
import re
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import apsw
import structlog

from trunkline_server.core.errors import StorageUnavailable
from trunkline_server.core.transactions import MakeTransaction, Row, T

MAX_GROUP: Final = 128  # Transactions that share a commit.
MAX_WAITING: Final = 10_000
COMMIT_S: Final = 2.5  # A commit that takes longer fails those who wait for it; the database is asked again after it.
LOCK_MS: Final = (
    1_000  # Another process may be writing: `trunkline db upgrade`, or a tool of the operator's.
)
READ_S: Final = 5.0
RETRY_AFTER_S: Final = 1.0
SAFE_VERSION: Final = (3, 51, 3)
PARAMETER: Final = re.compile(r"\$(\d+)")

log: structlog.typing.FilteringBoundLogger = structlog.get_logger()


class UnusableDatabase(Exception):
    """The file can't be used; the text says why, for the operator."""


class _Job:
    """One transaction that waits, and who waits for it."""

    __slots__ = ("error", "future", "is_alone", "make", "result")

    def __init__(self, make: MakeTransaction[Any], future: asyncio.Future[Any]) -> None:
        self.make = make
        self.future = future
        self.is_alone = False
        self.result: Any = None
        self.error: Exception | None = None


class _Reader:
    """A connection that only reads, and the thread that it is used in."""

    __slots__ = ("db", "thread")

    def __init__(self, name: str) -> None:
        self.thread = ThreadPoolExecutor(1, name)
        self.db: apsw.Connection | None = None


class SqliteStorage:
    """The `Storage` port over one file. `start` before use, `close` after; both from the event loop's thread."""

    def __init__(self, path: str | Path, *, only_reads: bool = False) -> None:
        """`only_reads`: beside a server that may be running; nothing can be written then."""
        self._path = str(path)
        self._only_reads = only_reads
        self._waiting: deque[_Job] = deque()
        self._group: list[_Job] = []
        self._is_scheduled = False
        self._is_stuck = False
        self._is_refusing = False
        self._failure: Exception | None = None
        self._statements: dict[str, str] = {}
        self._committer = ThreadPoolExecutor(1, "sqlite-commit")
        self._readers = tuple(_Reader(name) for name in ("sqlite-read", "sqlite-read-short"))
        self._writer_db: apsw.Connection | None = None
        self._lock = -1
        self._idle = asyncio.Event()
        self._idle.set()
        self._watchdog: asyncio.TimerHandle | None = None

    async def start(self) -> None:
        """Open the file.

        Raises:
            UnusableDatabase: it is not there, in use by another server, damaged, or the library has the known bug.
        """
        version = tuple(int(part) for part in apsw.sqlite_lib_version().split("."))
        if version < SAFE_VERSION:
            raise UnusableDatabase(
                f"SQLite {apsw.sqlite_lib_version()} can corrupt a database in WAL mode; 3.51.3 or newer is needed"
            )
        if not self._only_reads:
            self._lock = _lock(self._path)
        loop = asyncio.get_running_loop()
        try:
            if not self._only_reads:
                self._writer_db = await loop.run_in_executor(
                    self._committer, _open, self._path, False
                )
            for reader in self._readers:
                reader.db = await loop.run_in_executor(reader.thread, _open, self._path, True)
        except apsw.Error as error:
            await self.close()
            raise UnusableDatabase(f"{self._path} is no usable database: {error}") from error

    @property
    def has_failed(self) -> bool:
        """Did the disk fail? Then nothing is written any more."""
        return self._failure is not None

    @property
    def is_healthy(self) -> bool:
        """Can it write, as far as is known? When it can't, some failures heal, and a write that succeeds tells so."""
        return self._failure is None and not self._is_stuck and not self._is_refusing

    async def write(self, make: MakeTransaction[T]) -> T:
        """See `Storage`."""
        is_closed = self._failure is not None or self._is_stuck or self._writer_db is None
        if is_closed or len(self._waiting) >= MAX_WAITING:
            raise StorageUnavailable(retry_after_s=RETRY_AFTER_S)
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        self._waiting.append(_Job(make, future))
        self._schedule(loop)
        return await future

    async def read(self, make: MakeTransaction[T], *, is_short: bool = False) -> T:
        """See `Storage`. One that takes longer than `READ_S` is broken off."""
        reader = self._readers[is_short]
        if reader.db is None:
            raise StorageUnavailable(retry_after_s=RETRY_AFTER_S)
        loop = asyncio.get_running_loop()
        reading = loop.run_in_executor(reader.thread, self._read, reader.db, make)
        try:
            async with asyncio.timeout(READ_S):
                return await asyncio.shield(reading)
        except TimeoutError as error:
            reader.db.interrupt()
            reading.add_done_callback(_forget)
            raise StorageUnavailable(retry_after_s=RETRY_AFTER_S) from error
        except asyncio.CancelledError:
            reading.add_done_callback(_forget)
            raise
        except _UNAVAILABLE as error:
            raise StorageUnavailable(retry_after_s=RETRY_AFTER_S) from error

    async def close(self) -> None:
        """Commit what waits, and close."""
        try:
            async with asyncio.timeout(COMMIT_S):
                await self._idle.wait()
        except TimeoutError:
            log.warning("database_not_flushed", waiting=len(self._waiting) + len(self._group))
        loop = asyncio.get_running_loop()
        writer, self._writer_db = self._writer_db, None
        for reader in self._readers:
            if reader.db is not None:
                reader.db.interrupt()
                await loop.run_in_executor(reader.thread, reader.db.close)
                reader.db = None
            reader.thread.shutdown(wait=False)
        if writer is not None and not self._is_stuck:
            await loop.run_in_executor(self._committer, writer.close)
        self._committer.shutdown(wait=False)
        if self._watchdog is not None:
            self._watchdog.cancel()
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    # One group after the other

    def _schedule(self, loop: asyncio.AbstractEventLoop) -> None:
        if not self._is_scheduled and not self._group:
            self._is_scheduled = True
            self._idle.clear()
            loop.call_soon(
                self._run_group, loop
            )  # So that all who come in one turn of the loop share a commit.

    def _run_group(self, loop: asyncio.AbstractEventLoop) -> None:
        self._is_scheduled = False
        self._group = self._next_group()
        if not self._group:
            self._idle.set()
            return
        self._watchdog = loop.call_later(COMMIT_S, self._stick)
        db = self._writer_db
        assert db is not None
        try:
            db.execute("BEGIN IMMEDIATE")
        except apsw.Error:  # Another process writes: wait for it where waiting is no harm.
            committing = loop.run_in_executor(self._committer, self._begin_and_commit, db)
        else:
            try:
                has_writes = self._run_all(db)
            except _MustRunAlone:
                _roll_back(db)
                self._end_group(loop, retries=True)
                return
            if not has_writes:
                _roll_back(db)
                self._end_group(loop)
                return
            committing = loop.run_in_executor(self._committer, _commit, db)
        committing.add_done_callback(lambda done: self._committed(loop, done))

    def _next_group(self) -> list[_Job]:
        group: list[_Job] = []
        while self._waiting and len(group) < MAX_GROUP:
            if group and (self._waiting[0].is_alone or group[0].is_alone):
                break
            job = self._waiting.popleft()
            # One that had begun with others is run to its end, though its caller may have gone.
            if not job.future.done() or (job.is_alone and job.future.cancelled()):
                group.append(job)
        return group

    def _run_all(self, db: apsw.Connection) -> bool:
        """Run the group's transactions. Has any of them written? Raises: _MustRunAlone."""
        has_writes = False
        for job in self._group:
            try:
                job.result, has_written = self._run(db, job.make)
                has_writes = has_writes or has_written
            except _Undo as undo:
                job.error = undo.cause
                if len(self._group) > 1:
                    raise _MustRunAlone from undo
                return False  # Alone in its group: what it wrote goes with the rollback.
        return has_writes

    def _run(self, db: apsw.Connection, make: MakeTransaction[T]) -> tuple[Any, bool]:
        transaction = make()
        before = db.total_changes()
        statements = self._statements
        try:
            statement = next(transaction)
            while True:
                text = statement.sql
                sql = statements.get(text)
                if sql is None:
                    sql = statements[text] = PARAMETER.sub(r"?\1", text)
                rows: Sequence[Row] = db.execute(sql, statement.values).fetchall()
                statement = transaction.send(rows)
        except StopIteration as stop:
            return stop.value, db.total_changes() != before
        except apsw.Error as error:
            raise _Undo(error) from error
        except Exception as error:
            if db.total_changes() != before:
                raise _Undo(error) from error
            return _Refusal(error), False

    def _begin_and_commit(self, db: apsw.Connection) -> None:
        """In the thread: the same, after waiting for another process."""
        db.set_busy_timeout(LOCK_MS)
        try:
            db.execute("BEGIN IMMEDIATE")
        finally:
            db.set_busy_timeout(0)
        try:
            has_writes = self._run_all(db)
        except BaseException:
            _roll_back(db)
            raise
        if has_writes:
            _commit(db)
        else:
            _roll_back(db)

    def _committed(self, loop: asyncio.AbstractEventLoop, done: asyncio.Future[None]) -> None:
        error = done.exception()
        if isinstance(error, _MustRunAlone):
            self._end_group(loop, retries=True)
            return
        if error is None:
            if self._is_refusing:
                self._is_refusing = False
                log.info("database_back")
        else:
            self._note_failure(error)
            for job in self._group:
                job.error = StorageUnavailable(retry_after_s=RETRY_AFTER_S)
        self._end_group(loop)

    def _note_failure(self, error: BaseException) -> None:
        if isinstance(error, _FATAL):
            # A sync that failed may have dropped what it was to write; asking again would say that all is well.
            self._failure = error
            log.error("database_failed", error=type(error).__name__)
        elif not self._is_refusing:
            # A full disk, say: as soon as there is room, a later write succeeds.
            self._is_refusing = True
            log.warning("database_refused", error=type(error).__name__)

    def _end_group(self, loop: asyncio.AbstractEventLoop, *, retries: bool = False) -> None:
        group, self._group = self._group, []
        if self._watchdog is not None:
            self._watchdog.cancel()
        if self._is_stuck:
            self._is_stuck = False
            log.info("database_back")
        if retries:
            for job in reversed(group):
                job.is_alone, job.error = True, None
                self._waiting.appendleft(job)
        else:
            for job in group:
                if isinstance(job.error, _FATAL):
                    self._note_failure(job.error)
                _tell(job)
        if self._failure is not None:
            self._refuse_waiting()
        if self._waiting:
            self._schedule(loop)
        else:
            self._idle.set()

    def _stick(self) -> None:
        """The commit takes too long. Whoever waits is told so; what it does in the end is not known to them."""
        self._is_stuck = True
        log.warning("database_stuck")
        for job in self._group:
            _fail(job)
        self._refuse_waiting()

    def _refuse_waiting(self) -> None:
        while self._waiting:
            _fail(self._waiting.popleft())

    def _read(self, db: apsw.Connection, make: MakeTransaction[T]) -> T:
        db.execute("BEGIN")
        try:
            result, _ = self._run(db, make)
        except _Undo as undo:
            raise undo.cause from None
        finally:
            db.execute("ROLLBACK")
        if isinstance(result, _Refusal):
            raise result.error
        return result  # type: ignore[no-any-return]


class _Refusal:
    """What a transaction raised before it wrote."""

    __slots__ = ("error",)

    def __init__(self, error: Exception) -> None:
        self.error = error


class _Undo(Exception):
    """A transaction failed after it wrote, or a statement failed."""

    def __init__(self, cause: Exception) -> None:
        super().__init__()
        self.cause = cause


class _MustRunAlone(Exception):
    """The group can't be committed as one."""


def _tell(job: _Job) -> None:
    if job.future.done():
        return
    if isinstance(job.error, _UNAVAILABLE):
        log.warning("database_refused", error=type(job.error).__name__)
        _fail(job)
    elif job.error is not None:
        job.future.set_exception(job.error)
    elif isinstance(job.result, _Refusal):
        job.future.set_exception(job.result.error)
    else:
        job.future.set_result(job.result)


def _fail(job: _Job) -> None:
    if not job.future.done():
        job.future.set_exception(StorageUnavailable(retry_after_s=RETRY_AFTER_S))


def _forget(reading: asyncio.Future[Any]) -> None:
    """Nobody waits for it any more."""
    if not reading.cancelled():
        reading.exception()


def _commit(db: apsw.Connection) -> None:
    try:
        db.execute("COMMIT")
    except apsw.Error:
        _roll_back(db)
        raise


def _roll_back(db: apsw.Connection) -> None:
    # Some errors, a full disk among them, have ended the transaction already.
    if db.in_transaction:
        db.execute("ROLLBACK")


def _open(path: str, is_reader: bool) -> apsw.Connection:
    flags = apsw.SQLITE_OPEN_READONLY if is_reader else apsw.SQLITE_OPEN_READWRITE
    db = apsw.Connection(path, flags=flags, statementcachesize=200)
    if not is_reader:
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = FULL")
        db.execute("PRAGMA secure_delete = ON")  # What is erased leaves nothing in the file.
        # Not waited for on the event loop: see `_begin_and_commit`.
        found = db.execute("PRAGMA quick_check(1)").fetchall()
        if found != [("ok",)]:
            db.close()
            raise apsw.CorruptError("the check of its structure failed")
    return db


def _lock(path: str) -> int:
    """One server to a file: the ledger's recovery, and its group commit, count on it."""
    if not os.path.isfile(path):
        raise UnusableDatabase(f"{path} does not exist; `trunkline init` makes it")
    descriptor = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        raise UnusableDatabase(f"another server uses {path}") from error
    return descriptor


# After these, nothing that the library says of this file can be relied on before it has been opened anew.
_FATAL: Final = (apsw.IOError, apsw.CorruptError, apsw.NotADBError)
# What a database says that can't serve now; any other error of it is a bug of ours.
_UNAVAILABLE: Final = (
    apsw.BusyError,
    apsw.CantOpenError,
    apsw.CorruptError,
    apsw.FullError,
    apsw.IOError,
    apsw.LockedError,
    apsw.NoMemError,
    apsw.ReadOnlyError,
)
