"""One database transaction of PostgreSQL that several transactions of rules share."""

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import Enum, auto
from functools import lru_cache
from typing import Any, Final

import asyncpg

from trunkline_server.core.errors import StorageUnavailable
from trunkline_server.core.transactions import MakeTransaction

GROUP_S: Final = 0.1  # After that long a group is committed as it is, and the rest comes next.
MAX_TRIES: Final = (
    3  # Of one that conflicts with others, or whose connection is lost before its commit.
)
MAX_SQL_KINDS: Final = 1024
RETRY_AFTER_S: Final = 1.0


class StatementFailed(Exception):
    """A statement that the database would not run, or that breaks a constraint: a bug of ours. Holds no values.

    Attributes:
        code: SQLSTATE, or the name of the driver's error.
    """

    def __init__(self, code: str, sql: str) -> None:
        super().__init__(f"{code}: {sql}")
        self.code = code


class Job:
    """One transaction, and who waits for it."""

    __slots__ = ("error", "future", "is_begun", "make", "result", "tries")

    def __init__(self, make: MakeTransaction[Any], future: asyncio.Future[Any]) -> None:
        self.make = make
        self.future = future
        self.is_begun = False
        self.tries = 0
        self.result: Any = None
        self.error: Exception | None = None

    @property
    def is_wanted(self) -> bool:
        """Is it to be run? If it was begun, yes, although its caller may have gone; unless it was refused."""
        return not self.future.done() or (self.is_begun and self.future.cancelled())

    def tell(self) -> None:
        """Hand out what came of it."""
        if self.future.done():
            return
        if self.error is not None:
            self.future.set_exception(self.error)
        else:
            self.future.set_result(self.result)

    def refuse(self) -> None:
        """Say that the database is unavailable."""
        if not self.future.done():
            self.future.set_exception(StorageUnavailable(retry_after_s=RETRY_AFTER_S))


@dataclass(slots=True)
class Ended:
    """What is left to do after a group; whoever is not named here has an answer.

    Attributes:
        again: those that must be run again, each alone.
        put_back: those that were not run, or surely not committed, for the next group on any connection.
        reason: why the database could not serve; empty: it could.
        is_busy: it could not serve one of them in time, and is well otherwise.
    """

    again: list[Job] = field(default_factory=list)
    put_back: list[Job] = field(default_factory=list)
    reason: str = ""
    is_busy: bool = False


class _Verdict(Enum):
    """What an error says."""

    BUSY = auto()  # A time limit of the database: the statement had its chance.
    CONFLICT = auto()  # Of transactions that ran side by side: all is well the next time.
    LOST = auto()  # The connection is of no use any more.
    UNABLE = auto()  # The disk is full, and the like.
    WRONG = auto()


READ_ONLY: Final = "25006"
# By SQLSTATE, or the first two characters of it, which are its class.
# https://www.postgresql.org/docs/current/errcodes-appendix.html
_VERDICTS: Final = {
    "08": _Verdict.LOST,
    READ_ONLY: _Verdict.LOST,  # Read-only: it was made a standby, and the primary is elsewhere.
    "25P03": _Verdict.LOST,  # It was closed, because we left a transaction idle.
    "40": _Verdict.CONFLICT,
    "53": _Verdict.UNABLE,
    "55P03": _Verdict.BUSY,
    "57": _Verdict.LOST,
    "57014": _Verdict.BUSY,
    "58": _Verdict.UNABLE,
    "F0": _Verdict.UNABLE,
    "XX": _Verdict.UNABLE,
}


class _Failed(Exception):
    """A member of a group failed, and what it and those before it wrote must be undone."""

    def __init__(self, job: Job, cause: Exception, sql: str = "") -> None:
        super().__init__()
        self.job = job
        self.cause = cause
        self.sql = (
            sql  # Of the statement that the database would not run; empty: the rules raised it.
        )


class Group:
    """One database transaction: `begin`, then `run` once. Neither takes longer than `limit_s`.

    A connection on which more is waited for than that is closed.
    """

    def __init__(
        self, connection: asyncpg.Connection, limit_s: float, *, is_read_only: bool
    ) -> None:
        self._connection = connection
        self._limit_s = limit_s
        self._is_read_only = is_read_only
        self._has_hung = False

    async def begin(self, sql: str) -> Ended | None:
        """Begin. None: it has."""
        try:
            with self._limited():
                await self._connection.execute(sql)
        except Exception as error:  # noqa: BLE001 - as in `_run`
            verdict = self._verdict(error)
            if verdict is _Verdict.BUSY:
                await self._roll_back()
            else:
                self._connection.terminate()
            return Ended(reason=self._reason(error), is_busy=verdict is _Verdict.BUSY)
        return None

    async def run(self, jobs: list[Job]) -> Ended:
        """Run these one after the other, and commit."""
        try:
            with self._limited():
                count = await self._run_all(jobs)
        except _Failed as failed:
            return await self._undo(jobs, failed)
        done, rest = jobs[:count], jobs[count:]
        try:
            with self._limited():
                status = await self._connection.execute("COMMIT")
        except Exception as error:  # noqa: BLE001 - as in `_run`
            ended = self._uncommitted(done, error)
        else:
            ended = self._committed(done, status)
        ended.put_back += rest
        return ended

    async def _run_all(self, jobs: Sequence[Job]) -> int:
        """How many were run: as many as there was time for. Raises: _Failed."""
        time = asyncio.get_running_loop().time
        until_s = time() + GROUP_S
        for count, job in enumerate(jobs):
            if count and time() >= until_s:
                return count
            await self._run(job)
        return len(jobs)

    async def _run(self, job: Job) -> None:
        """One member's transaction. Raises: _Failed."""
        fetch = self._connection.fetch
        has_written = False
        job.error = None
        sql = ""
        try:
            transaction = job.make()
            statement = next(transaction)
            while True:
                sql = statement.sql
                try:
                    rows = await fetch(sql, *statement.values)
                except (
                    Exception
                ) as error:  # The driver's own, and what its codecs raise for a value.
                    transaction.close()
                    raise _Failed(job, error, sql) from error
                has_written = has_written or _has_written(sql, rows)
                statement = transaction.send(rows)
        except StopIteration as stop:
            job.result = stop.value
        except _Failed:
            raise
        except Exception as error:  # Whatever the rules raise is their outcome.
            if has_written:
                raise _Failed(job, error) from error
            job.error = error

    async def _undo(self, jobs: list[Job], failed: _Failed) -> Ended:
        job, error = failed.job, failed.cause
        verdict = self._verdict(error) if failed.sql else _Verdict.WRONG
        if verdict is _Verdict.LOST:
            self._connection.terminate()
            return Ended(put_back=_tried(jobs), reason=self._reason(error))
        await self._roll_back()
        others = [other for other in jobs if other is not job]
        match verdict:
            case _Verdict.CONFLICT:
                return Ended(again=others + _tried([job]))
            case _Verdict.BUSY:
                job.refuse()
                return Ended(again=others, reason=self._reason(error), is_busy=True)
            case _Verdict.UNABLE:
                _refuse(jobs)
                return Ended(reason=self._reason(error))
        if others:
            return Ended(again=[*others, job])
        job.error = StatementFailed(_code(error), failed.sql) if failed.sql else error
        job.tell()
        return Ended()

    def _committed(self, done: list[Job], status: str) -> Ended:
        if status != "COMMIT":  # It says ROLLBACK where it had been told to before.
            self._connection.terminate()
            _refuse(done)
            return Ended(reason="NOT_COMMITTED")
        for job in done:
            job.tell()
        return Ended()

    def _uncommitted(self, done: list[Job], error: Exception) -> Ended:
        """The commit failed: surely, or nobody knows."""
        match self._verdict(error):
            case _Verdict.CONFLICT:
                return Ended(again=_tried(done))
            case _Verdict.WRONG if len(done) > 1:
                return Ended(again=done)
            case _Verdict.WRONG:
                for job in done:
                    job.error = StatementFailed(_code(error), "COMMIT")
                    job.tell()
                return Ended()
        self._connection.terminate()
        _refuse(done)
        return Ended(reason=self._reason(error))

    async def _roll_back(self) -> None:
        try:
            with self._limited():
                await self._connection.execute("ROLLBACK")
        except Exception:  # noqa: BLE001 - whatever it is, this connection is not used again
            self._connection.terminate()

    def _verdict(self, error: Exception) -> _Verdict:
        if self._connection.is_closed() or isinstance(error, asyncpg.InternalClientError):
            return _Verdict.LOST
        if isinstance(error, asyncpg.InvalidCachedStatementError):
            return _Verdict.CONFLICT  # The schema was upgraded; the driver has forgotten it now.
        code = _code(error)
        if code == READ_ONLY and self._is_read_only:
            return _Verdict.WRONG
        return _VERDICTS.get(code) or _VERDICTS.get(code[:2], _Verdict.WRONG)

    def _reason(self, error: Exception) -> str:
        return "TIMED_OUT" if self._has_hung else _code(error)

    @contextmanager
    def _limited(self) -> Iterator[None]:
        # Closed under whoever waits for it. Their task is not cancelled: the driver would then ask the database, over
        # one more connection, to stop.
        timer = asyncio.get_running_loop().call_later(self._limit_s, self._hang_up)
        try:
            yield
        finally:
            timer.cancel()

    def _hang_up(self) -> None:
        self._has_hung = True
        self._connection.terminate()


def _tried(jobs: list[Job]) -> list[Job]:
    """Those of them that may be tried again."""
    for job in jobs:
        job.tries += 1
        if job.tries >= MAX_TRIES:
            job.refuse()
    return [job for job in jobs if job.tries < MAX_TRIES]


def _refuse(jobs: Sequence[Job]) -> None:
    for job in jobs:
        job.refuse()


def _code(error: Exception) -> str:
    code = getattr(error, "sqlstate", None)
    return code if isinstance(code, str) else type(error).__name__


def _has_written(sql: str, rows: Sequence[Any]) -> bool:
    may_write, says_what = _kind(sql)
    return may_write and (bool(rows) or not says_what)


@lru_cache(MAX_SQL_KINDS)
def _kind(sql: str) -> tuple[bool, bool]:
    """May it write? And does it return the rows that it wrote?"""
    words = sql.upper()
    return not words.lstrip().startswith("SELECT"), "RETURNING" in words
