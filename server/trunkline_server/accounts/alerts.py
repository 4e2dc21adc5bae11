"""Alerts on their way out: written in the transaction that causes them, delivered from the database until received.

Several processes may try; whoever moves an alert's next attempt into the future first makes it. An alert may come
twice, with the same id, when its receiver answered and the answer was lost.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

import structlog

from trunkline_server.core.errors import StorageUnavailable
from trunkline_server.core.transactions import Statement, Storage, Transaction

LOOK_S: Final = 2.0
AT_ONCE: Final = 20
FIRST_RETRY_US: Final = 10 * 1_000_000
MAX_RETRY_US: Final = 3_600 * 1_000_000
MAX_TRIES: Final = 60  # Two days.
KEPT_US: Final = 30 * 86_400 * 1_000_000

log: structlog.typing.FilteringBoundLogger = structlog.get_logger()

Send = Callable[[str, bytes], Awaitable[str]]


def due(now_us: int) -> Transaction[list[tuple[str, str, int, int]]]:
    """Alerts that are to be tried now: id, body, number of tries so far, when it was due."""
    rows = yield Statement(
        "SELECT id, body, tries, next_at FROM alerts WHERE delivered_at IS NULL AND next_at <= $1 AND tries < $2"
        " ORDER BY next_at LIMIT $3",
        (now_us, MAX_TRIES, AT_ONCE),
    )
    return [(row[0], row[1], row[2], row[3]) for row in rows]


def take(id_: str, due_us: int, next_us: int) -> Transaction[bool]:
    """This process tries it now. False: another one does."""
    rows = yield Statement(
        "UPDATE alerts SET tries = tries + 1, next_at = $3"
        " WHERE id = $1 AND next_at = $2 AND delivered_at IS NULL RETURNING id",
        (id_, due_us, next_us),
    )
    return bool(rows)


def delivered(id_: str, now_us: int) -> Transaction[None]:
    """It was received. Those that were long ago are forgotten."""
    yield Statement("UPDATE alerts SET delivered_at = $2 WHERE id = $1", (id_, now_us))
    yield Statement("DELETE FROM alerts WHERE delivered_at < $1", (now_us - KEPT_US,))


class Alerts:
    """Delivers alerts.

    Args:
        send: delivers one by its id and body; returns what went wrong, or nothing. Bounded in time.
    """

    def __init__(self, storage: Storage, send: Send, now_us: Callable[[], int]) -> None:
        self._storage = storage
        self._send = send
        self._now_us = now_us
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to look for them."""
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def close(self) -> None:
        """Stop. What was not delivered is tried again after the next start."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait([task])

    async def _run(self) -> None:
        while True:
            try:
                for id_, body, tries, due_us in await self._storage.read(
                    lambda: due(self._now_us())
                ):
                    await self._try(id_, body, tries, due_us)
            except StorageUnavailable:
                pass  # Said by whoever waits for the database; it is looked at again soon.
            except Exception as error:  # noqa: BLE001 - a bug in one alert must not end all others
                log.error("alerts_failed", error=type(error).__name__)
            await asyncio.sleep(LOOK_S)

    async def _try(self, id_: str, body: str, tries: int, due_us: int) -> None:
        wait_us = min(MAX_RETRY_US, FIRST_RETRY_US * 2 ** min(tries, 16))
        next_us = self._now_us() + wait_us
        if not await self._storage.write(lambda: take(id_, due_us, next_us)):
            return
        problem = await self._send(id_, body.encode())
        if problem:
            log.warning("alert_not_delivered", alert=id_, tries=tries + 1, problem=problem)
            return
        await self._storage.write(lambda: delivered(id_, self._now_us()))
        log.info("alert_delivered", alert=id_)
