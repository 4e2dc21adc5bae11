"""What commands that ask many questions say before and while they do."""

import asyncio
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Final

MAX_LISTED: Final = 10  # Models that are named before the question whether to go on.


def announced(names: Sequence[str], count: int) -> str:
    """How many requests there will be, and whom they go to.

    Args:
        count: of each.
    """
    named = ", ".join(names[:MAX_LISTED])
    if len(names) > MAX_LISTED:
        named += f" and {len(names) - MAX_LISTED} more"
    return f"{len(names) * count} requests in all, {count} to each of: {named}"


def cost_words(costs_usd: Sequence[float | None]) -> str:
    """What they may cost together, as far as it is known of each."""
    known = [cost for cost in costs_usd if cost is not None]
    words = f"at most about {sum(known):.2f} USD" if known else "prices are not known"
    if 0 < len(known) < len(costs_usd):
        words += f", not counting {len(costs_usd) - len(known)} without a known price"
    return words


def failures_line(name: str, failures: int, unasked: int, problem: str) -> str:
    """What befell one that was asked.

    Args:
        unasked: questions that it was not asked any more.
        problem: the last one.
    """
    left = f", {unasked} were not asked any more" if unasked else ""
    return f"trunkline: {name}: {failures} failed{left}; the last one: {problem}"


async def is_agreed() -> bool:
    """Asks whoever sits there. Waits as the event loop does, so that Ctrl-C ends it."""
    print("Go on? [y/N] ", end="", flush=True, file=sys.stderr)
    loop = asyncio.get_running_loop()
    typed = asyncio.Event()
    loop.add_reader(sys.stdin.fileno(), typed.set)
    try:
        await typed.wait()
    finally:
        loop.remove_reader(sys.stdin.fileno())
    return sys.stdin.readline().strip().lower() in {"y", "yes"}


@contextmanager
def progress(total: int) -> Iterator[Callable[[int], None]]:
    """A bar on a terminal. What it gives is told how many questions are done with."""
    if not sys.stderr.isatty():
        yield lambda count: None
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    columns = (TextColumn("asking"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=total)
        yield lambda count: bar.advance(task, count)
