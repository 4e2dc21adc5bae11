"""Callers who come at their own pace, whether or not those before them have been served."""

import asyncio
from collections.abc import Awaitable, Callable


async def open_loop(
    ask: Callable[[int], Awaitable[None]], rate_per_s: float, seconds: float
) -> None:
    """Calls `ask` with 0, 1, 2, ... at even distances; back when all have been answered.

    One that is late does not delay the next: what could not be started in time is started at once.
    """
    loop = asyncio.get_running_loop()
    start_s = loop.time()
    async with asyncio.TaskGroup() as group:
        for number in range(int(rate_per_s * seconds)):
            wait_s = start_s + number / rate_per_s - loop.time()
            if wait_s > 0:
                await asyncio.sleep(wait_s)
            group.create_task(_awaited(ask(number)))


async def _awaited(asked: Awaitable[None]) -> None:
    await asked
