"""How late an event loop is by itself, and how values are spread."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from math import ceil
from time import monotonic
from typing import Final

EVERY_S: Final = 0.01


def share_of(values: Sequence[float], percent: float) -> float:
    """The value that this many percent do not exceed."""
    return sorted(values)[max(0, ceil(len(values) * percent / 100) - 1)]


@asynccontextmanager
async def loop_lag() -> AsyncIterator[list[float]]:
    """By how many seconds each of a row of short sleeps was too long, while the block ran."""
    late_s: list[float] = []

    async def watch() -> None:
        while True:
            due_s = monotonic() + EVERY_S
            await asyncio.sleep(EVERY_S)
            late_s.append(max(0.0, monotonic() - due_s))

    watching = asyncio.create_task(watch())
    try:
        yield late_s
    finally:
        watching.cancel()
