"""A balance for k requests admits k of them, however many ask at once, from however many processes.

A round is one organisation with a balance, and 64 callers who ask until they have asked often enough. On PostgreSQL the
callers are in two processes, which know nothing of each other; on SQLite, where one process alone may serve, in one.
In some rounds callers give back what they got: they settle for less, for more or for nothing, or void.

`python -m tests.accounts.test_overspend URL` is such a process: a line of JSON in, a round; a line of JSON out, what
came of it.
"""

import asyncio
import json
import random
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import asdict, dataclass
from typing import Final, TypeVar

import pytest
import structlog
import uvloop

from tests.faults.stamp import ROOT
from tests.faults.tables import Tables
from tests.storage.conftest import opened
from trunkline.v1.ledger_pb2 import LedgerKind
from trunkline_server.accounts import ledger
from trunkline_server.accounts.audit import AuditRecord
from trunkline_server.accounts.idempotency import Replay
from trunkline_server.accounts.ledger import Adjustment, Hold, Outcome, Payer, Settled
from trunkline_server.core.errors import InsufficientCredits, StorageUnavailable
from trunkline_server.core.transactions import MakeTransaction, Statement, Storage, Transaction
from trunkline_server.storage.upgrade import sqlite_path

T = TypeVar("T")

CALLERS: Final = 64
ROUND: Final = 1_000  # Reserves.
SHORT: Final = 20_000
LONG: Final = 1_000_000
AMOUNT: Final = 1_000
ROUND_S: Final = 120.0
START_S: Final = 30.0
PAUSE_S: Final = 0.1
NOW_US: Final = 1_795_219_200_000_000
# How many requests the balance of a round is for, one after the other.
BALANCES: Final = (0, 1, 7, CALLERS - 1, CALLERS, CALLERS + 1, ROUND // 2, ROUND - 1, 3, 200)


@dataclass(frozen=True)
class Task:
    """A round, for one process."""

    organization: str
    callers: int
    reserves: int
    gives_back: bool
    seed: str


@dataclass
class Done:
    """What came of it.

    Attributes:
        unanswered: reserves of which the database did not say in time what they came to.
        untold: settlements of which it did not say at once what they charged.
        is_open: requests that were not ended.
    """

    admitted: int = 0
    refused: int = 0
    unanswered: int = 0
    untold: int = 0
    settled: int = 0
    voided: int = 0
    charged: int = 0
    is_open: int = 0

    @property
    def reserves(self) -> int:
        """That were asked for."""
        return self.admitted + self.refused + self.unanswered

    def add(self, other: "Done") -> None:
        """And what came of that."""
        for name, value in asdict(other).items():
            setattr(self, name, getattr(self, name) + value)


# Callers


async def play(storage: Storage, task: Task) -> Done:
    """All callers of one process, side by side."""
    done = Done()
    numbers = iter(range(task.reserves))
    async with asyncio.TaskGroup() as callers:
        for n in range(task.callers):
            rng = random.Random(f"{task.seed}-{n}")
            callers.create_task(_call(storage, task, numbers, rng, done))
    return done


async def _call(
    storage: Storage, task: Task, numbers: Iterator[int], rng: random.Random, done: Done
) -> None:
    for number in numbers:
        id_ = f"{task.seed}-{number}"
        try:
            await storage.write(_reserve(task.organization, id_))
        except InsufficientCredits:
            done.refused += 1
        except StorageUnavailable:
            done.unanswered += 1
            await _void(storage, id_)  # As the books do: it may have been written all the same.
        else:
            done.admitted += 1
            done.is_open += 1
            if task.gives_back and rng.random() < 0.7:
                await _end(storage, id_, rng, done)


def _reserve(organization: str, id_: str) -> MakeTransaction[Replay | None]:
    payer = Payer(organization, "", "k")
    hold = Hold(id_, "", payer, "owner", AMOUNT, NOW_US, is_prepaid=True)
    return lambda: ledger.reserve(hold)


async def told(ask: Callable[[], Awaitable[T]]) -> T:
    """What the database says, asked until it says something. Only for what may be done twice."""
    while True:
        with suppress(StorageUnavailable):
            return await ask()
        await asyncio.sleep(PAUSE_S)


async def _void(storage: Storage, id_: str) -> bool:
    return await told(lambda: storage.write(lambda: ledger.void(id_, "LEFT", "", NOW_US)))


async def _settle(storage: Storage, id_: str, outcome: Outcome, done: Done) -> Settled | None:
    try:
        return await storage.write(lambda: ledger.settle(id_, outcome))
    except StorageUnavailable:
        done.untold += 1
        return await told(lambda: storage.write(lambda: ledger.settle(id_, outcome)))


async def _end(storage: Storage, id_: str, rng: random.Random, done: Done) -> None:
    """Twice at once, now and then: it counts once."""
    times = 1 if rng.random() < 0.8 else 2
    if rng.random() < 0.3:
        ended = await asyncio.gather(*(_void(storage, id_) for _ in range(times)))
        done.voided += sum(ended)
    else:
        cost = rng.choice((0, 1, AMOUNT // 2, AMOUNT, AMOUNT + 1, 3 * AMOUNT))
        outcome = Outcome(NOW_US, cost, "OK")
        settled = await asyncio.gather(
            *(_settle(storage, id_, outcome, done) for _ in range(times))
        )
        done.settled += sum(each is not None for each in settled)
        done.charged += sum(each.charged for each in settled if each is not None)
    done.is_open -= 1


async def serve(url: str) -> None:
    """A process that plays the rounds it is told."""
    loop = asyncio.get_running_loop()
    async with opened(url) as storage:
        while line := await loop.run_in_executor(None, sys.stdin.readline):
            done = await play(storage, Task(**json.loads(line)))
            print(json.dumps(asdict(done)), flush=True)


# Rounds


class Process:
    """One that plays, started by this one."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def play(self, task: Task) -> Done:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(asdict(task)).encode() + b"\n")
        await self._process.stdin.drain()
        line = await self._process.stdout.readline()
        assert line, "a process that played has ended"
        return Done(**json.loads(line))


@asynccontextmanager
async def started(url: str) -> AsyncIterator[Process]:
    words = [sys.executable, "-m", "tests.accounts.test_overspend", url]
    process = await asyncio.create_subprocess_exec(
        *words, cwd=ROOT, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    try:
        yield Process(process)
    finally:
        assert process.stdin is not None
        process.stdin.close()
        try:
            async with asyncio.timeout(START_S):
                await process.wait()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()


class Alone:
    """This process plays itself."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    async def play(self, task: Task) -> Done:
        return await play(self._storage, task)


async def rounds(url: str, reserves: int, tables: Tables, name: str) -> Done:
    """So many reserves in all, in rounds. What each came to is checked against the books."""
    total = Done()
    kinds: Counter[str] = Counter()
    began_s = time.monotonic()
    async with AsyncExitStack() as stack:
        players: list[Alone | Process]
        storage = await stack.enter_async_context(opened(url))
        if sqlite_path(url) is not None:
            players = [Alone(storage)]
        else:
            players = [await stack.enter_async_context(started(url)) for _ in range(2)]
        for n in range(reserves // ROUND):
            k = BALANCES[n // 2 % len(BALANCES)]
            gives_back = n % 2 == 1
            async with asyncio.timeout(ROUND_S):
                total.add(await one_round(storage, players, f"round-{n}", k, gives_back))
            kinds["given back" if gives_back else "kept"] += 1
    seconds = time.monotonic() - began_s
    columns = ("database", "processes", "callers", "rounds", "reserves", "admitted", "refused")
    table = tables.table(
        "Reserves of one balance at once",
        (*columns, "unanswered", "settled", "voided", "too many", "seconds", "a second"),
    )
    table.add(
        name,
        len(players),
        CALLERS,
        f"{kinds.total():,}",
        f"{total.reserves:,}",
        f"{total.admitted:,}",
        f"{total.refused:,}",
        f"{total.unanswered:,}",
        f"{total.settled:,}",
        f"{total.voided:,}",
        0,
        f"{seconds:,.0f}",
        f"{total.reserves / seconds:,.0f}",
    )
    return total


async def one_round(
    storage: Storage,
    players: Sequence[Alone | Process],
    organization: str,
    k: int,
    gives_back: bool,
) -> Done:
    """Ask for `ROUND` requests of a balance for `k`, and a bit that is not enough for one more."""
    granted = k * AMOUNT + AMOUNT - 1
    kind = LedgerKind.LEDGER_KIND_GRANT
    change = Adjustment(organization, kind, granted, "", "once", NOW_US)
    record = AuditRecord(NOW_US, "test.granted", "key", organization, "account", organization)
    await told(lambda: storage.write(lambda: ledger.adjust(change, record)))
    callers, reserves = CALLERS // len(players), ROUND // len(players)

    parts = await asyncio.gather(
        *(
            player.play(Task(organization, callers, reserves, gives_back, f"{organization}-{n}"))
            for n, player in enumerate(players)
        )
    )

    done = Done()
    for part in parts:
        done.add(part)
    balance = await told(lambda: storage.read(lambda: ledger.balance(organization)))
    problems = await told(lambda: storage.read(lambda: ledger.problems(is_deep=True)))
    assert done.reserves == ROUND
    if not gives_back:
        assert k - done.unanswered <= done.admitted <= k
    assert balance.held == done.is_open * AMOUNT
    # Nothing was charged that was not there: what callers were told adds up with what is left.
    left = granted - balance.available - balance.held - done.charged
    assert left >= 0 if done.untold else left == 0
    assert balance.available >= 0
    assert problems == []
    await told(lambda: storage.write(clear))
    return done


def clear() -> Transaction[None]:
    """So that a round costs as much as the one before it."""
    for table in ("accounts", "requests", "entries"):
        yield Statement(f"DELETE FROM {table}")


@pytest.mark.once
async def test_no_more_is_admitted_than_the_balance_is_for(url, tables):
    done = await rounds(url, SHORT, tables, f"{backend(url)}, short")

    assert done.reserves == SHORT


@pytest.mark.slow
async def test_no_more_is_admitted_than_the_balance_is_for_in_1_000_000_reserves(url, tables):
    done = await rounds(url, LONG, tables, backend(url))

    assert done.reserves == LONG


def backend(url: str) -> str:
    return "sqlite" if sqlite_path(url) is not None else "postgres"


if __name__ == "__main__":
    # Its answers alone are on standard output.
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    uvloop.run(serve(sys.argv[1]))
