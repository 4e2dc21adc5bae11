"""A database that is away while a service runs: what callers are told meanwhile, and that nothing is lost by it.

A trickle of requests with good keys goes on through all of it. Each names the second in which it was told something, so
that it can be compared with the outage's.
"""

import asyncio
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from random import Random
from signal import SIGINT, SIGQUIT
from typing import Any, Final

import asyncpg
import grpc
import pytest
from google.rpc import error_details_pb2

from tests.edges.errors import reason_of, status_of
from tests.edges.observed import spec
from tests.storage.conftest import opened
from tests.support.accounts import ENVIRONMENT, Desk, desk, new_sqlite
from tests.support.postgres import MAX_CONNECTIONS, Postgres, missing, running_postgres
from tests.support.upstream import Exchange, Pause, Step, hello, upstream
from trunkline.v1.account_service_pb2 import QueryUsageRequest
from trunkline.v1.catalog_service_pb2 import ListModelsRequest
from trunkline.v1.catalog_service_pb2_grpc import CatalogServiceStub
from trunkline.v1.completion_service_pb2 import CompleteRequest, CompleteUnaryRequest
from trunkline.v1.completion_service_pb2_grpc import CompletionServiceStub
from trunkline_server.accounts import ledger
from trunkline_server.accounts.callers import MAX_LOOKS, Callers
from trunkline_server.accounts.keys import mint
from trunkline_server.app_accounts import now_us
from trunkline_server.core.errors import InvalidApiKey
from trunkline_server.core.plans import Caller
from trunkline_server.core.transactions import MakeTransaction, Storage, T
from trunkline_server.storage.upgrade import sqlite_path

pytestmark = pytest.mark.once

COST: Final = 9 * 1_000 + 4 * 2_000  # 9 tokens in and 4 out, at 1 and 2 dollars for a million.
PLENTY: Final = 10_000_000_000
EVERY_S: Final = 0.05
REMEMBERED_S: Final = 1.0
ANSWERED_S: Final = 3.0  # What a write may take, and what may pass before it.
HEALED_S: Final = 2.0
LAG_S: Final = 0.3  # By which this machine may be late.
SETTLED_S: Final = 10.0
LIMIT_S: Final = 30.0
SLOW_S: Final = (
    0.6  # An answer that takes so long is under way when the outage begins, and ends in it.
)
CALM: Final = ("OK", "UNAVAILABLE")
OURS: Final = (
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'trunkline'"
)
# Holds the lock of the file for so many seconds.
HOLD: Final = """
import apsw, sys, time
db = apsw.Connection(sys.argv[1])
db.set_busy_timeout(10_000)
db.execute("BEGIN IMMEDIATE")
print("held", flush=True)
time.sleep(float(sys.argv[2]))
db.execute("ROLLBACK")
"""

Metadata = tuple[tuple[str, str], ...]


@pytest.fixture(scope="module")
def server() -> Iterator[Postgres]:
    """A PostgreSQL that may be ill-treated."""
    reason = missing()
    if reason:
        pytest.skip(reason)
    with running_postgres() as started:
        yield started


@pytest.fixture
def pg_url(server: Postgres) -> str:
    """A database with the schema, on it."""
    return server.migrated()


@dataclass
class Told:
    """One request. `retry_after_s`: None where it was not told to come back."""

    kind: str
    asked_s: float
    told_s: float
    reason: str
    retry_after_s: float | None = None


@dataclass
class Trickle:
    """What was told to whom, and how many answers an upstream was asked for."""

    told: list[Told] = field(default_factory=list)

    def of(self, kind: str, *, since_s: float = 0.0, until_s: float = 1e12) -> list[Told]:
        """Those that were asked in this time, in order."""
        return [t for t in self.told if t.kind == kind and since_s <= t.asked_s < until_s]


def slow_at_first(exchange: Exchange) -> Sequence[Step]:
    """Says Hello, after a while where it is asked for that."""
    steps = hello(exchange)
    if "slow" in exchange.json["messages"][-1]["content"]:
        return [steps[0], Pause(SLOW_S), *steps[1:]] if len(steps) > 1 else [Pause(SLOW_S), *steps]
    return steps


async def ask(kind: str, call: Callable[[], Any], trickle: Trickle) -> None:
    """One request, and what came of it."""
    time = asyncio.get_running_loop().time
    asked_s = time()
    try:
        asked = call()
        if isinstance(asked, grpc.aio.UnaryStreamCall):
            assert [response async for response in asked][-1].HasField("completed")
        else:
            await asked
    except grpc.aio.AioRpcError as error:
        retry = error_details_pb2.RetryInfo()
        is_told = any(detail.Unpack(retry) for detail in status_of(error).details)
        after_s = retry.retry_delay.ToMilliseconds() / 1000 if is_told else None
        trickle.told.append(Told(kind, asked_s, time(), reason_of(error)[1], after_s))
    else:
        trickle.told.append(Told(kind, asked_s, time(), "OK"))


@asynccontextmanager
async def trickling(found: Desk, key: Metadata, guest: Metadata) -> AsyncIterator[Trickle]:
    """All the while, a request of each kind every now and then. Whoever was asked has answered at the end."""
    trickle = Trickle()
    catalog, stub = CatalogServiceStub(found.channel), CompletionServiceStub(found.channel)
    unary, stream = CompleteUnaryRequest(spec=spec("m")), CompleteRequest(spec=spec("m"))
    kinds: dict[str, Callable[[], Any]] = {
        "list": lambda: catalog.ListModels(ListModelsRequest(), metadata=key, timeout=LIMIT_S),
        "unary": lambda: stub.CompleteUnary(unary, metadata=key, timeout=LIMIT_S),
        "stream": lambda: stub.Complete(stream, metadata=key, timeout=LIMIT_S),
        "guest": lambda: stub.CompleteUnary(unary, metadata=guest, timeout=LIMIT_S),
    }
    asked: set[asyncio.Task[None]] = set()

    async def run() -> None:
        while True:
            for kind, call in kinds.items():
                asked.add(asyncio.create_task(ask(kind, call, trickle)))
            await asyncio.sleep(EVERY_S)

    running = asyncio.create_task(run())
    try:
        yield trickle
    finally:
        running.cancel()
        await asyncio.wait([running])
        await asyncio.wait(asked, timeout=LIMIT_S)
    assert all(task.done() and task.exception() is None for task in asked)


async def once_settled(found: Desk, organization: str) -> int:
    """What is left when nothing is held any more."""
    async with asyncio.timeout(SETTLED_S):
        while True:
            with suppress(grpc.aio.AioRpcError):
                balance = await found.balance(organization)
                if not balance.held_nanos:
                    return balance.available_nanos
            await asyncio.sleep(0.05)


@dataclass
class Outage:
    """When it was, and what was told in it."""

    trickle: Trickle
    began_s: float
    begun_s: float
    ending_s: float
    ended_s: float
    left: int
    guests: int
    served: int
    problems: list[str]

    def check(self, *, reads_fail: bool = True) -> None:
        """What holds for each outage."""
        trickle, began_s, ended_s = self.trickle, self.began_s, self.ended_s
        assert {told.reason for told in trickle.told} <= set(CALM)
        late = [t for t in trickle.told if t.told_s - t.asked_s > ANSWERED_S]
        assert not late
        away = [t for t in trickle.told if t.reason == "UNAVAILABLE"]
        assert away
        assert {t.retry_after_s for t in away} == {1.0}
        assert min(t.told_s for t in away) >= began_s
        # Keys are known for a while, and no longer: nobody could be told that one was revoked.
        if reads_fail:
            since_s = self.begun_s + REMEMBERED_S + LAG_S
            dark = [t for t in trickle.of("list", since_s=since_s) if t.told_s < self.ending_s]
            assert {t.reason for t in dark} <= {"UNAVAILABLE"}
        known = trickle.of("list", since_s=began_s, until_s=began_s + LAG_S)
        assert known
        assert {t.reason for t in known} == {"OK"}
        for kind in ("list", "unary", "stream", "guest"):
            after = trickle.of(kind, since_s=ended_s + HEALED_S + LAG_S)
            assert after
            assert {t.reason for t in after} == {"OK"}, kind
        assert self.problems == []
        # Whatever was answered by the upstream was charged, once, and nothing else.
        charged = PLENTY - self.left
        assert charged % COST == 0
        assert charged // COST + self.guests == self.served
        told_ok = [t for t in trickle.told if t.kind in ("unary", "stream") and t.reason == "OK"]
        assert charged // COST >= len(told_ok)


@asynccontextmanager
async def before(url: str) -> AsyncIterator[tuple[Desk, Any, Metadata, Metadata]]:
    """A service, its upstream, a key with credits and one that is only counted."""
    async with upstream(slow_at_first) as provider, desk(url, provider.url) as found:
        key = await found.new_key(plan="prepaid")
        guest = await found.new_key("guests")
        await found.grant(PLENTY)
        yield found, provider, key, guest


async def outage(
    url: str, begin: Callable[[], Any], end: Callable[[], Any], away_s: float
) -> Outage:
    """A service whose database is away for so long, and all that was told by it.

    Some answers are under way when it begins, and end in it.
    """
    time = asyncio.get_running_loop().time
    async with before(url) as (found, provider, key, guest):
        stub = CompletionServiceStub(found.channel)
        slow = CompleteUnaryRequest(spec=spec("m", text="slow"))
        async with trickling(found, key, guest) as trickle:
            await asyncio.sleep(0.4)
            under_way = [
                asyncio.create_task(
                    ask("unary", lambda: stub.CompleteUnary(slow, metadata=key), trickle)
                )
                for _ in range(5)
            ]
            await asyncio.sleep(SLOW_S / 2)
            began_s = time()
            await begin()
            begun_s = time()
            await asyncio.sleep(away_s)
            ending_s = time()
            await end()
            ended_s = time()
            await asyncio.sleep(HEALED_S + LAG_S + 0.3)
            await asyncio.gather(*under_way)
        left = await once_settled(found, "acme")
        usage = await guests_served(found)
        served = len(provider.exchanges)
    async with opened(url) as storage:
        problems = await storage.read(lambda: ledger.problems(is_deep=True))
    return Outage(trickle, began_s, begun_s, ending_s, ended_s, left, usage, served, problems)


async def guests_served(found: Desk) -> int:
    """Answers that were only counted, and used something."""
    answer = await found.account.QueryUsage(
        QueryUsageRequest(organization="guests"), metadata=found.root
    )
    cost = sum(row.cost.amount_nanos for row in answer.rows)
    assert cost % COST == 0
    return int(cost // COST)


AWAY: Final = [1.5, pytest.param(20.0, marks=pytest.mark.slow)]


@pytest.mark.usefixtures("no_chance")
@pytest.mark.parametrize("away_s", [1.5, pytest.param(60.0, marks=pytest.mark.slow)])
async def test_a_frozen_database_is_waited_for_and_no_key_is_called_wrong(server, pg_url, away_s):
    async def freeze() -> None:
        server.freeze()

    async def thaw() -> None:
        server.thaw()

    found = await outage(pg_url, freeze, thaw, away_s)

    found.check()


@pytest.mark.usefixtures("no_chance")
@pytest.mark.parametrize("away_s", AWAY)
@pytest.mark.parametrize(
    "how", [SIGQUIT, pytest.param(SIGINT, marks=pytest.mark.slow)], ids=["killed", "stopped"]
)
async def test_a_database_that_is_started_again_is_found_again(server, pg_url, how, away_s):
    found = await outage(
        pg_url,
        lambda: asyncio.to_thread(server.stop, how),
        lambda: asyncio.to_thread(server.start),
        away_s,
    )

    found.check()


@pytest.mark.usefixtures("no_chance")
@pytest.mark.parametrize("away_s", AWAY)
async def test_a_database_without_a_free_connection_is_waited_for(pg_url, away_s):
    async with AsyncExitStack() as others:

        async def crowd() -> None:
            """Others have all connections, ours too."""
            first = await asyncpg.connect(pg_url)
            others.push_async_callback(first.close)
            taken = 1
            async with asyncio.timeout(LIMIT_S):
                while taken < MAX_CONNECTIONS:
                    try:
                        other = await asyncpg.connect(pg_url)
                    except asyncpg.TooManyConnectionsError:
                        await first.execute(OURS)
                    else:
                        others.push_async_callback(other.close)
                        taken += 1

        found = await outage(pg_url, crowd, others.aclose, away_s)

    found.check()


@pytest.mark.usefixtures("no_chance")
async def test_a_file_that_another_process_writes_to_is_waited_for(tmp_path):
    url = new_sqlite(tmp_path)
    path = sqlite_path(url)
    holders: list[asyncio.subprocess.Process] = []

    async def hold() -> None:
        holder = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", HOLD, str(path), "60"), stdout=asyncio.subprocess.PIPE
        )
        holders.append(holder)
        assert holder.stdout is not None
        assert await asyncio.wait_for(holder.stdout.readline(), LIMIT_S) == b"held\n"

    async def let_go() -> None:
        holders[0].kill()
        await holders[0].wait()

    try:
        found = await outage(url, hold, let_go, 2.5)
    finally:
        for holder in holders:
            if holder.returncode is None:
                holder.kill()
                await holder.wait()

    found.check(reads_fail=False)
    # Reading goes on.
    assert {told.reason for told in found.trickle.of("list")} == {"OK"}


# Many at once with one key


class Counted:
    """A storage that counts what is read."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self.reads = 0
        self.running = 0
        self.most_running = 0

    async def read(self, make: MakeTransaction[T], **more: bool) -> T:
        """As the storage does."""
        self.reads += 1
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        try:
            return await self._storage.read(make, **more)
        finally:
            self.running -= 1

    async def write(self, make: MakeTransaction[T]) -> T:
        """As the storage does."""
        return await self._storage.write(make)


async def test_a_key_that_many_bring_at_once_is_looked_for_once(tmp_path):
    url = new_sqlite(tmp_path)
    async with upstream(hello) as provider, desk(url, provider.url) as found:
        [(_, authorization)] = await found.new_key("many")
    async with opened(url) as storage:
        counted = Counted(storage)
        pepper = ENVIRONMENT["PEPPER"].encode()
        callers = Callers(static=(), plans={}, storage=counted, pepper=pepper, now_us=now_us)
        asking = [asyncio.create_task(callers.authenticate(authorization)) for _ in range(50)]
        await asyncio.sleep(0)

        asking[0].cancel()  # It is the one that began to look.
        outcomes = await asyncio.gather(*asking, return_exceptions=True)

        await callers.close()
    assert isinstance(outcomes[0], asyncio.CancelledError)
    answered = [outcome for outcome in outcomes if isinstance(outcome, Caller)]
    assert [caller.organization for caller in answered] == ["many"] * 49
    assert counted.reads == 1


async def test_guesses_leave_room_for_those_who_ask_for_changes(tmp_path):
    guesses = [str(mint("live", Random(number).randrange)) for number in range(200)]
    async with opened(new_sqlite(tmp_path)) as storage:
        counted = Counted(storage)
        callers = Callers(static=(), plans={}, storage=counted, pepper=b"p" * 43, now_us=now_us)

        outcomes = await asyncio.gather(
            *(callers.authenticate(f"Bearer {guess}") for guess in guesses), return_exceptions=True
        )

        await callers.close()
    assert {type(outcome) for outcome in outcomes} == {InvalidApiKey}
    assert counted.reads == len(guesses)
    assert counted.most_running == MAX_LOOKS
