"""Waiting for a condition."""

import asyncio
from collections.abc import Callable
from typing import Final

WAIT_S: Final = 30.0


async def until(
    holds: Callable[[], bool], what: str, limit_s: float = WAIT_S, step_s: float = 0.002
) -> None:
    """Waits for a condition, and says which one did not come true."""
    loop = asyncio.get_running_loop()
    end_s = loop.time() + limit_s
    while not holds():
        assert loop.time() < end_s, f"not within {limit_s} s: {what}"
        await asyncio.sleep(step_s)
