"""Runs Lua scripts on Redis or Valkey: each within 50 ms, or not at all.

Calls that wait at the same time leave together, over one connection and in order, so many of them cost hardly more than
one; and who gives up leaves the connection as it was. Any sign of trouble (no answer in time, a lost connection, an
error for an answer) means that Redis is away: whoever waits is told at once, and nobody waits any more. A probe in the
background runs a script again and again until it works. Each change is logged once, without the address, which may hold
a password.
"""

import asyncio
import random
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha1
from typing import Any, Final

import structlog
from redis.asyncio import ConnectionPool
from redis.asyncio.connection import AbstractConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import (
    AuthenticationError,
    AuthorizationError,
    NoPermissionError,
    NoScriptError,
    RedisError,
    ResponseError,
)
from redis.exceptions import ConnectionError as LostConnection
from redis.exceptions import TimeoutError as RedisTimeout
from redis.maint_notifications import MaintNotificationsConfig

OPERATION_S: Final = 0.05  # From the call to its answer, a new connection included.
LATE_S: Final = 0.005  # When the event loop itself is later than that,
GRACE_S: Final = 0.01  # an answer that has come meanwhile gets so long to be read.
CONNECT_S: Final = 1.0  # For the probe, for which nobody waits.
PROBE_S: Final = 0.25
MAX_PROBE_S: Final = 2.0
STEADY_S: Final = 10.0  # Away again before that: probes don't start from the shortest pause.
MAX_BATCH: Final = 128
MAX_WAITING: Final = 4_096  # If more wait, Redis is away as well.
CLOSE_S: Final = 1.0

log: structlog.typing.FilteringBoundLogger = structlog.get_logger()


class RedisAway(Exception):
    """Redis gave no answer. Whether the script ran, or will, is not known."""


class Script:
    """A script, known to Redis by the hash of its text: two versions of it never meet."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.sha = sha1(text.encode(), usedforsecurity=False).hexdigest()


class _TooManyWait(Exception):
    """Calls come faster than Redis answers."""


Argument = int | str


@dataclass(slots=True)
class _Call:
    script: Script
    keys: Sequence[str]
    arguments: Sequence[Argument]
    until_s: float
    answer: asyncio.Future[Any]


class RedisScripts:
    """One Redis, as one process uses it."""

    def __init__(
        self, url: str, probe: Script, probe_key: str, *, operation_s: float = OPERATION_S
    ) -> None:
        """`probe`: a harmless script with one key and no arguments, that does what the others do.

        Raises:
            ValueError: the address is none. The message does not quote it.
        """
        try:
            pool = ConnectionPool.from_url(
                url,
                protocol=2,  # Known to every server and proxy.
                socket_connect_timeout=CONNECT_S,
                socket_timeout=None,  # All of a call has one limit, ours.
                retry=Retry(NoBackoff(), 0),
                driver_info=None,  # Or it names itself in two more commands, which may be forbidden.
                maint_notifications_config=MaintNotificationsConfig(enabled=False),
            )
        except ValueError:
            raise ValueError(
                "not the address of a Redis: redis://, rediss:// or unix:// is needed"
            ) from None
        # One connection, and not a pool: who uses it takes turns, and a pool's book-keeping costs more than a call.
        self._connection: AbstractConnection = pool.connection_class(**pool.connection_kwargs)
        self._probe_script, self._probe_key = probe, probe_key
        self._operation_s = operation_s
        self._waiting: deque[_Call] = deque()
        self._has_calls = asyncio.Event()
        self._worker: asyncio.Task[None] | None = None
        self._prober: asyncio.Task[None] | None = None
        self._is_closed = False
        self._pause_s = PROBE_S
        self._back_at_s = float("-inf")

    @property
    def is_away(self) -> bool:
        """Would a call be told so at once?"""
        return self._prober is not None or self._is_closed

    async def run(self, script: Script, keys: Sequence[str], arguments: Sequence[Argument]) -> Any:
        """The script's answer. Cancelling the caller doesn't take the call back.

        Raises:
            RedisAway.
        """
        if len(self._waiting) >= MAX_WAITING:
            self._lose(_TooManyWait())
        if self.is_away:
            raise RedisAway
        return await self._put(script, keys, arguments)

    def send(self, script: Script, keys: Sequence[str], arguments: Sequence[Argument]) -> None:
        """Run it after everything that waits now, if Redis is there, for nobody to see."""
        if not self.is_away and len(self._waiting) < MAX_WAITING:
            self._put(script, keys, arguments).cancel()

    async def close(self) -> None:
        """Whoever waits is told that Redis is away."""
        self._is_closed = True
        tasks = [task for task in (self._worker, self._prober) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._fail(self._waiting)
        try:
            async with asyncio.timeout(CLOSE_S):
                await self._connection.disconnect()
        except (TimeoutError, RedisError, OSError):
            pass  # It is gone, one way or the other.

    def _put(
        self, script: Script, keys: Sequence[str], arguments: Sequence[Argument]
    ) -> asyncio.Future[Any]:
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Any] = loop.create_future()
        self._waiting.append(
            _Call(script, keys, arguments, loop.time() + self._operation_s, answer)
        )
        self._has_calls.set()
        if self._worker is None or self._worker.done():
            self._worker = loop.create_task(self._work())
        return answer

    async def _work(self) -> None:
        while True:
            await self._has_calls.wait()
            batch = deque[_Call]()
            while self._waiting and len(batch) < MAX_BATCH:
                batch.append(self._waiting.popleft())
            if not self._waiting:
                self._has_calls.clear()
            try:
                await self._serve(batch)
            finally:
                self._fail(batch)

    async def _serve(self, batch: deque[_Call]) -> None:
        try:
            answers = await self._exchange(batch, batch[0].until_s)
        except Exception as error:  # noqa: BLE001 - Whatever its client raises: it gave no answer.
            self._lose(error)
            return
        trouble = None
        for call, answer in zip(batch, answers, strict=True):
            if isinstance(answer, Exception):
                trouble = answer
            elif not call.answer.done():
                call.answer.set_result(answer)
        if trouble is not None:
            self._lose(trouble)

    async def _exchange(self, calls: Sequence[_Call] | deque[_Call], until_s: float) -> list[Any]:
        """Their answers, in order; an error in the place of an answer is one that Redis sent.

        Raises:
            TimeoutError, and what the client raises when the connection is lost.
        """
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(None) as scope:
            timer = loop.call_at(until_s, _expire, loop, scope, until_s)
            try:
                return await self._evaluate(list(calls))
            finally:
                timer.cancel()

    async def _evaluate(self, calls: Sequence[_Call]) -> list[Any]:
        answers = await self._pipeline([_command(call) for call in calls])
        unknown = [index for index, a in enumerate(answers) if isinstance(a, NoScriptError)]
        if unknown:  # EVAL and not SCRIPT LOAD, which managed services often forbid.
            sent: set[str] = set()
            again = []
            for index in unknown:
                script = calls[index].script
                again.append(_command(calls[index], is_known=script.sha in sent))
                sent.add(script.sha)
            for index, answer in zip(unknown, await self._pipeline(again), strict=True):
                answers[index] = answer
        return answers

    async def _pipeline(self, commands: Sequence[tuple[Argument, ...]]) -> list[Any]:
        connection = self._connection
        answers: list[Any] = []
        try:
            if connection.is_connected and await connection.can_read():
                await connection.disconnect(nowait=True)  # It was closed while nobody used it.
            if not connection.is_connected:
                await connection.connect()  # type: ignore[no-untyped-call]
            packed = connection.pack_commands(commands)
            await connection.send_packed_command(packed, check_health=False)
            for _ in commands:
                try:
                    answers.append(await connection.read_response())
                except ResponseError as error:
                    answers.append(error)
        except BaseException:
            await connection.disconnect(nowait=True)  # Answers may be left on it.
            raise
        return answers

    def _fail(self, calls: deque[_Call]) -> None:
        for call in calls:
            if not call.answer.done():
                call.answer.set_exception(RedisAway())
        calls.clear()

    def _lose(self, error: Exception) -> None:
        if self.is_away:
            return
        loop = asyncio.get_running_loop()
        is_steady = loop.time() - self._back_at_s >= STEADY_S
        self._pause_s = PROBE_S if is_steady else min(2 * self._pause_s, MAX_PROBE_S)
        log.warning("redis_away", reason=_reason(error))
        self._prober = loop.create_task(self._probe(loop.time()))
        self._fail(self._waiting)
        self._has_calls.clear()

    async def _probe(self, since_s: float) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(self._pause_s * (0.75 + random.random() / 2))
            if await self._answers(CONNECT_S) and await self._answers(self._operation_s):
                break
            self._pause_s = min(2 * self._pause_s, MAX_PROBE_S)
        self._prober = None
        self._back_at_s = loop.time()
        log.info("redis_back", away_s=round(loop.time() - since_s, 3))

    async def _answers(self, within_s: float) -> bool:
        loop = asyncio.get_running_loop()
        until_s = loop.time() + within_s
        answer: asyncio.Future[Any] = loop.create_future()
        call = _Call(self._probe_script, [self._probe_key], [], until_s, answer)
        try:
            answers = await self._exchange([call], until_s)
        except Exception:  # noqa: BLE001 - As for calls. A probe that ended would leave Redis away for ever.
            return False
        return not isinstance(answers[0], Exception)


def _command(call: _Call, *, is_known: bool = True) -> tuple[Argument, ...]:
    name, script = ("EVALSHA", call.script.sha) if is_known else ("EVAL", call.script.text)
    return (name, script, len(call.keys), *call.keys, *call.arguments)


def _expire(loop: asyncio.AbstractEventLoop, scope: asyncio.Timeout, until_s: float) -> None:
    """End what takes too long. Where we are late ourselves, the answer may be there already, and only unread."""
    now_s = loop.time()
    scope.reschedule(now_s + GRACE_S if now_s - until_s > LATE_S else until_s)


REASONS: Final[dict[type[Exception], str]] = {
    TimeoutError: "timeout",
    RedisTimeout: "timeout",
    LostConnection: "connection",
    AuthenticationError: "credentials",
    AuthorizationError: "credentials",
    NoPermissionError: "scripts_not_permitted",
    _TooManyWait: "too_many_wait",
}


def _reason(error: Exception) -> str:
    """A word for the log. Never the text, which may quote anything."""
    return REASONS.get(type(error), type(error).__name__)
