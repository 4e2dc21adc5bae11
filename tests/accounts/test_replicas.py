"""Two services on one PostgreSQL and one Redis: what holds for one holds for both of them together, also when one is
killed and when Redis does not answer."""

import asyncio
import re
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from os import environ
from pathlib import Path
from statistics import quantiles
from typing import Any, Final, Self

import grpc
import httpx
import pytest

from tests.edges.errors import reason_of
from tests.edges.observed import spec
from tests.faults.gateway import written
from tests.storage.conftest import opened
from tests.support.accounts import ENVIRONMENT, NANOS, Desk, account_sections, desk
from tests.support.postgres import Postgres
from tests.support.redis import RedisServer, redis_server
from tests.support.upstream import Exchange, Step, hello, upstream
from trunkline.v1.admin_service_pb2 import CreateKeyRequest, RevokeKeyRequest
from trunkline.v1.catalog_service_pb2 import ListModelsRequest
from trunkline.v1.catalog_service_pb2_grpc import CatalogServiceStub
from trunkline.v1.completion_service_pb2 import CompleteUnaryRequest
from trunkline.v1.completion_service_pb2_grpc import CompletionServiceStub
from trunkline_server.accounts import access, books, ledger

pytestmark = pytest.mark.once

START_S: Final = 60.0
LIMIT_S: Final = 30.0
COST: Final = 9 * 1_000 + 4 * 2_000  # 9 tokens in and 4 out, at 1 and 2 dollars for a million.
PER_SECOND: Final = 40
BURST: Final = 20
SLOW_BURST: Final = 8
REVOKED_S: Final = 1.0
REDIS_S: Final = 0.06  # The longest that a request waits for Redis.
LAG_S: Final = 0.3  # By which this machine may be late.
CALLERS: Final = 8
PLANS: Final = [
    {"id": "one", "concurrency": 1},
    {"id": "prepaid", "prepaid": True},
    {"id": "limited", "requests_per_second": PER_SECOND, "burst": BURST},
    {"id": "slow", "requests_per_second": 0.02, "burst": SLOW_BURST},
]
Metadata = tuple[tuple[str, str], ...]
ROOT: Final[Metadata] = (("authorization", f"Bearer {ENVIRONMENT['ROOT_KEY']}"),)


class Backend:
    """An upstream in a thread of its own, so that it outlives the tests. While it is `closed` nobody gets an answer."""

    def __init__(self) -> None:
        self.url = ""
        self.is_open = True
        self.asked = 0
        self._ready = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()))

    @contextmanager
    def closed(self) -> Iterator[None]:
        """Whoever asks meanwhile is answered afterwards."""
        self.is_open = False
        try:
            yield
        finally:
            self.is_open = True

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._ready.wait(LIMIT_S)
        return self

    def __exit__(self, *_: object) -> None:
        assert self._loop is not None
        assert self._stop is not None
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(LIMIT_S)

    async def _run(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        async with upstream(self._answer) as started:
            self.url = started.url
            self._ready.set()
            await self._stop.wait()

    async def _answer(self, exchange: Exchange) -> Sequence[Step]:
        self.asked += 1
        while not self.is_open:  # noqa: ASYNC110 - it is opened in another thread
            await asyncio.sleep(0.005)
        return hello(exchange)


@dataclass
class Replica:
    """A `trunkline serve` of its own."""

    process: subprocess.Popen[bytes]
    grpc_address: str
    http_address: str

    def kill(self) -> None:
        """SIGKILL."""
        self.process.kill()
        self.process.wait(LIMIT_S)


@contextmanager
def replicas(
    count: int, folder: Path, database: str, backend: str, **accounts: Any
) -> Iterator[list[Replica]]:
    """Started at the same time; ended as SIGTERM has it, unless they are killed before."""
    folders = [folder / f"replica-{number}" for number in range(count)]
    processes = []
    try:
        for own in folders:
            own.mkdir()
            processes.append(launched(own, database, backend, dict(accounts)))
        found = [_started(process, own) for process, own in zip(processes, folders, strict=True)]
        yield found
        running = [process for process in processes if process.poll() is None]
        for process in running:
            process.terminate()
        assert [process.wait(LIMIT_S) for process in running] == [0] * len(running)
    finally:
        for process in processes:
            if process.poll() is None:
                process.kill()
                process.wait(LIMIT_S)
            if process.stdout is not None:
                process.stdout.close()


def launched(
    folder: Path, database: str, backend: str, accounts: dict[str, Any]
) -> subprocess.Popen[bytes]:
    """It starts."""
    server = {"grpc": "127.0.0.1:0", "http": "127.0.0.1:0", "log_level": "warning"}
    server |= accounts.pop("server", {})
    found = account_sections("", backend, plans=PLANS)
    del found["accounts"]["database_url"]  # Its password is in none of our files.
    found["accounts"] |= {
        "database_url_env": "DATABASE_URL",
        "progress_dir": str(folder / "progress"),
        **accounts,
    }
    path = folder / "trunkline.toml"
    path.write_text(written({"server": server, "local": {"enabled": False}, **found}))
    kept = {name: environ[name] for name in ("PATH", "PYTHONPATH") if name in environ}
    with (folder / "log").open("wb") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "trunkline_server", "serve", "--config", str(path)],
            env={**kept, **ENVIRONMENT, "DATABASE_URL": database},
            stdout=subprocess.PIPE,
            stderr=log,
            cwd=folder,
        )


def _started(process: subprocess.Popen[bytes], folder: Path) -> Replica:
    assert process.stdout is not None
    line = process.stdout.readline()
    said = re.search(rb"gRPC on (\S+), HTTP on ([^,\s]+)", line)
    assert said is not None, (line, (folder / "log").read_text())
    return Replica(process, said[1].decode(), said[2].decode())


@dataclass
class Pair:
    """Two of them, and what they share."""

    replicas: list[Replica]
    backend: Backend
    redis: RedisServer
    database: str


@pytest.fixture(scope="module")
def pair(postgres: Postgres, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    database = postgres.migrated()
    with ExitStack() as stack:
        backend = stack.enter_context(Backend())
        redis = stack.enter_context(redis_server())
        folder = tmp_path_factory.mktemp("pair")
        started = replicas(2, folder, database, backend.url, redis_url=redis.url, replicas=2)
        yield Pair(stack.enter_context(started), backend, redis, database)


@dataclass
class Clients:
    """Channels to each of some services, and what is often asked over them."""

    channels: list[grpc.aio.Channel]
    _turn: int = field(default=0)

    @property
    def stubs(self) -> list[Any]:
        return [CompletionServiceStub(channel) for channel in self.channels]

    def desk(self, number: int = 0) -> Desk:
        """The administrator, at one of them."""
        return Desk(None, self.channels[number])  # type: ignore[arg-type]

    def list_models(self, key: Metadata, number: int | None = None) -> Any:
        """The cheapest request that counts; at each of them in turn."""
        self._turn += 1
        channel = self.channels[self._turn % len(self.channels) if number is None else number]
        return CatalogServiceStub(channel).ListModels(
            ListModelsRequest(), metadata=key, timeout=LIMIT_S
        )


@asynccontextmanager
async def clients(*addresses: str) -> AsyncIterator[Clients]:
    channels = [grpc.aio.insecure_channel(address) for address in addresses]
    try:
        yield Clients(channels)
    finally:
        await asyncio.gather(*(channel.close() for channel in channels))


@pytest.fixture
async def both(pair: Pair) -> AsyncIterator[Clients]:
    async with clients(*(replica.grpc_address for replica in pair.replicas)) as found:
        yield found


async def reason(asked: Awaitable[Any]) -> str:
    """How it ended."""
    try:
        await asked
    except grpc.aio.AioRpcError as error:
        return reason_of(error)[1]
    return "OK"


def completion(text: str = "hi", key: str = "") -> CompleteUnaryRequest:
    """A question with a small answer."""
    asked = CompleteUnaryRequest(spec=spec("m", text=text), idempotency_key=key)
    asked.spec.sampling.max_output_tokens = 100
    return asked


async def once_settled(found: Desk, organization: str, limit_s: float = LIMIT_S) -> int:
    """What is left when nothing is held any more."""
    async with asyncio.timeout(limit_s):
        while True:
            balance = await found.balance(organization)
            if not balance.held_nanos:
                return balance.available_nanos
            await asyncio.sleep(0.02)


async def until(is_so: Callable[[], bool]) -> None:
    async with asyncio.timeout(LIMIT_S):
        while not is_so():  # noqa: ASYNC110 - it becomes so in another thread
            await asyncio.sleep(0.005)


async def problems(database: str) -> list[str]:
    """What is wrong with the books."""
    async with opened(database) as storage:
        return await storage.read(lambda: ledger.problems(is_deep=True))


@asynccontextmanager
async def balancer(*addresses: str) -> AsyncIterator[str]:
    """Passes each connection on to the next of them. Its address."""
    turn = 0
    serving: set[asyncio.Task[None] | None] = set()

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            while data := await reader.read(65_536):
                writer.write(data)
                await writer.drain()
        with suppress(ConnectionError, RuntimeError):
            writer.write_eof()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal turn
        turn += 1
        serving.add(asyncio.current_task())
        host, _, port = addresses[turn % len(addresses)].rpartition(":")
        other_reader, other_writer = await asyncio.open_connection(host, int(port))
        try:
            await asyncio.gather(pump(reader, other_writer), pump(other_reader, writer))
        finally:
            other_writer.close()
            writer.close()
            serving.discard(asyncio.current_task())

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        # Their callers have left. (`wait_closed` waits for connections on some loops only.)
        await asyncio.gather(*filter(None, serving))


# Keys


async def test_a_key_holds_everywhere_at_once_and_is_refused_everywhere_within_a_second(both):
    first = both.desk(0)
    created = await first.admin.CreateKey(CreateKeyRequest(organization="keys"), metadata=ROOT)
    key = (("authorization", f"Bearer {created.secret}"),)

    at_once = await reason(both.list_models(key, 1))
    for _ in range(20):
        assert await reason(both.list_models(key)) == "OK"
    time = asyncio.get_running_loop().time
    await first.admin.RevokeKey(RevokeKeyRequest(key_id=created.key.id), metadata=ROOT)
    revoked_s = time()
    last_s = revoked_s
    while (now_s := time()) < revoked_s + 2 * REVOKED_S:
        if await reason(both.list_models(key, 1)) == "OK":
            last_s = now_s
        await asyncio.sleep(0.01)

    assert at_once == "OK"
    assert await reason(both.list_models(key, 0)) == "INVALID_API_KEY"
    assert last_s - revoked_s <= REVOKED_S


# Limits


@dataclass
class Hammered:
    """What many callers were told in a while."""

    took_s: float = 0.0
    admitted: int = 0
    waits_s: list[float] = field(default_factory=list)
    others: set[str] = field(default_factory=set)


async def hammer(both: Clients, key: Metadata, for_s: float, pause_s: float = 0.01) -> Hammered:
    """Ask all the time, at both."""
    time = asyncio.get_running_loop().time
    found = Hammered()
    began_s = time()

    async def run() -> None:
        while time() - began_s < for_s:
            asked_s = time()
            ended = await reason(both.list_models(key))
            found.waits_s.append(time() - asked_s)
            if ended == "OK":
                found.admitted += 1
            elif ended != "RATE_LIMITED":
                found.others.add(ended)
            await asyncio.sleep(pause_s)

    await asyncio.gather(*(run() for _ in range(CALLERS)))
    found.took_s = time() - began_s
    return found


async def test_one_limit_holds_for_both(both):
    key = await both.desk(0).new_key("limited", plan="limited")

    found = await hammer(both, key, 1.5)

    allowed = PER_SECOND * found.took_s + BURST
    assert found.others == set()
    assert 0.8 * allowed <= found.admitted <= allowed


async def test_one_limit_holds_behind_a_balancer(pair, both):
    key = await both.desk(0).new_key("balanced", plan="slow")
    told: list[int] = []
    async with balancer(*(replica.http_address for replica in pair.replicas)) as address:
        # A connection for each request, so that they go to both in turn.
        limits = httpx.Limits(max_keepalive_connections=0)
        async with httpx.AsyncClient(base_url=f"http://{address}", limits=limits) as http:
            for _ in range(SLOW_BURST + 2):
                response = await http.get("/v1/models", headers=dict(key))
                told.append(response.status_code)

    # Each sees what the other one has counted.
    assert told == [200] * SLOW_BURST + [429] * 2


@pytest.mark.parametrize("away_s", [1.5, pytest.param(60.0, marks=pytest.mark.slow)])
async def test_a_frozen_redis_makes_nobody_wait_and_nobody_pass(pair, both, away_s):
    key = await both.desk(0).new_key(f"frozen-{away_s}", plan="limited")
    calm = await hammer(both, key, 0.5, 0.02)

    pair.redis.freeze()
    try:
        frozen = await hammer(both, key, away_s, 0.02)
    finally:
        pair.redis.thaw()
    after = await hammer(both, key, 0.5, 0.02)

    took_s = calm.took_s + frozen.took_s + after.took_s
    admitted = calm.admitted + frozen.admitted + after.admitted
    assert calm.others | frozen.others | after.others == set()
    assert admitted <= 1.1 * (PER_SECOND * took_s + BURST)
    assert frozen.admitted >= 0.7 * PER_SECOND * frozen.took_s
    usual_s = quantiles(calm.waits_s, n=50)[-1]
    assert max(frozen.waits_s) <= usual_s + REDIS_S + LAG_S
    assert quantiles(frozen.waits_s, n=50)[-1] <= usual_s + REDIS_S + LAG_S / 3


# Money


async def held_by_one(pair: Pair, both: Clients) -> int:
    """What one request holds."""
    key = await both.desk(0).new_key("one", plan="prepaid")
    await both.desk(0).grant(NANOS, "one")
    with pair.backend.closed():
        asked = pair.backend.asked
        running = asyncio.create_task(
            reason(both.stubs[0].CompleteUnary(completion(), metadata=key))
        )
        await until(lambda: pair.backend.asked > asked)
        held = (await both.desk(1).balance("one")).held_nanos
    assert await running == "OK"
    return int(held)


@pytest.mark.parametrize("callers", [40, pytest.param(256, marks=pytest.mark.slow)])
async def test_a_balance_for_so_many_is_never_spent_by_more(pair, both, callers):
    organization, k = f"k-{callers}", callers // 4
    held = await held_by_one(pair, both)
    key = await both.desk(0).new_key(organization, plan="prepaid")
    await both.desk(1).grant(k * held + held - 1, organization)
    asked = pair.backend.asked

    with pair.backend.closed():
        running = [
            asyncio.create_task(
                reason(both.stubs[n % 2].CompleteUnary(completion(), metadata=key, timeout=LIMIT_S))
            )
            for n in range(callers)
        ]
        await until(lambda: sum(task.done() for task in running) == callers - k)
        during = await both.desk(1).balance(organization)
        refused = [task.result() for task in running if task.done()]
    ended = await asyncio.gather(*running)

    left = await once_settled(both.desk(0), organization)
    assert set(refused) == {"INSUFFICIENT_CREDITS"}
    assert ended.count("OK") == k
    assert pair.backend.asked - asked == k
    assert (during.available_nanos, during.held_nanos) == (held - 1, k * held)
    assert left == k * held + held - 1 - k * COST


async def test_an_idempotency_key_is_run_by_one_and_told_by_the_other(pair, both):
    key = await both.desk(0).new_key("idempotent", plan="prepaid")
    await both.desk(0).grant(NANOS, "idempotent")
    asked = pair.backend.asked
    with pair.backend.closed():
        running = [
            asyncio.create_task(
                reason(stub.CompleteUnary(completion(key="k-1"), metadata=key, timeout=LIMIT_S))
            )
            for stub in both.stubs
        ]
        await until(lambda: any(task.done() for task in running))
        [early] = [task for task in running if task.done()]
    ended = await asyncio.gather(*running)

    loser = running.index(early)
    call = both.stubs[loser].CompleteUnary(completion(key="k-1"), metadata=key)
    replayed = await call
    head = dict(await call.initial_metadata())
    left = await once_settled(both.desk(0), "idempotent")
    assert sorted(ended) == ["OK", "REQUEST_IN_PROGRESS"]
    assert early.result() == "REQUEST_IN_PROGRESS"
    assert head["idempotent-replayed"] == "true"
    assert replayed.completion.choices[0].message.parts[0].text == "Hello"
    assert pair.backend.asked - asked == 1
    assert left == NANOS - COST


# One of them is killed


async def load(found: Clients, number: int, key: Metadata, tasks: set[asyncio.Task[str]]) -> None:
    """Requests at one of them, for ever."""
    while True:
        asked = found.stubs[number].CompleteUnary(completion(), metadata=key, timeout=LIMIT_S)
        tasks.add(asyncio.create_task(outcome(asked)))
        await asyncio.sleep(0.02)


async def outcome(asked: Awaitable[Any]) -> str:
    """As `reason`, also where the server is gone and has told none."""
    try:
        await asked
    except grpc.aio.AioRpcError as error:
        return error.code().name
    return "OK"


async def killed(
    victim: Replica, found: Clients, backend: Backend, limit_s: float, grows_old: Callable[[], None]
) -> tuple[int, int, int]:
    """Kill it under load, with some answers under way. What was charged, and how many answers were served, and told.

    Args:
        grows_old: called when it is dead.
    """
    desk_ = found.desk(1)
    key = await desk_.new_key("victims", plan="prepaid")
    await desk_.grant(NANOS, "victims")
    asked, tasks = backend.asked, set[asyncio.Task[str]]()
    loads = [asyncio.create_task(load(found, number, key, tasks)) for number in (0, 1)]
    await asyncio.sleep(0.5)
    with backend.closed():
        await asyncio.sleep(0.2)
        victim.kill()
        grows_old()
    for running in loads:
        running.cancel()
    await asyncio.wait(loads)
    told = await asyncio.gather(*tasks)
    assert set(told) <= {"OK", "UNAVAILABLE"}
    assert "UNAVAILABLE" in told

    left = await once_settled(desk_, "victims", limit_s)
    return NANOS - left, backend.asked - asked, told.count("OK")


async def test_what_a_killed_one_held_is_settled_by_the_other(postgres_url, tmp_path, monkeypatch):
    monkeypatch.setattr(books, "BEAT_S", 0.2)

    def grow_old() -> None:
        monkeypatch.setattr(books, "DEAD_S", 0.5)
        monkeypatch.setattr(books, "RECOVER_S", 0.3)

    with Backend() as backend, replicas(1, tmp_path, postgres_url, backend.url) as [victim]:
        async with (
            desk(postgres_url, backend.url, plans=PLANS) as survivor,
            clients(victim.grpc_address, survivor.service.grpc_address) as found,
        ):
            charged, served, told = await killed(victim, found, backend, 10.0, grow_old)
    # Those that were under way when it died are charged what is known of them, and no more than one holds.
    assert told * COST < charged < served * 100 * COST
    assert await problems(postgres_url) == []


@pytest.mark.slow
async def test_the_other_settles_it_in_the_time_that_is_promised(postgres_url, tmp_path):
    with (
        Backend() as backend,
        replicas(2, tmp_path, postgres_url, backend.url) as [victim, survivor],
    ):
        async with clients(victim.grpc_address, survivor.grpc_address) as found:
            limit_s = books.DEAD_S + books.RECOVER_S + 2 * books.BEAT_S + 1
            charged, served, told = await killed(victim, found, backend, limit_s, lambda: None)
    # Those that were under way when it died are charged what is known of them, and no more than one holds.
    assert told * COST < charged < served * 100 * COST
    assert await problems(postgres_url) == []


@pytest.mark.slow
async def test_a_place_that_a_killed_one_held_is_free_after_a_while(postgres_url, tmp_path):
    with (
        Backend() as backend,
        redis_server() as redis,
        replicas(2, tmp_path, postgres_url, backend.url, redis_url=redis.url, replicas=2) as [
            victim,
            survivor,
        ],
    ):
        async with clients(victim.grpc_address, survivor.grpc_address) as found:
            key = await found.desk(1).new_key("places", plan="one")
            time = asyncio.get_running_loop().time
            with backend.closed():
                running = asyncio.create_task(
                    outcome(found.stubs[0].CompleteUnary(completion(), metadata=key))
                )
                await until(lambda: backend.asked > 0)
                await asyncio.sleep(access.LEASE_S + 1)  # It is renewed.
                during = await reason(found.stubs[1].CompleteUnary(completion(), metadata=key))
                victim.kill()
                killed_s = time()
            assert await running == "UNAVAILABLE"
            async with asyncio.timeout(2 * access.LEASE_S):
                ended = ""
                while ended != "OK":
                    await asyncio.sleep(0.2)
                    asked = found.stubs[1].CompleteUnary(completion(), metadata=key)
                    ended = await reason(asked)
            free_s = time() - killed_s
    assert during == "CONCURRENCY_EXHAUSTED"
    assert free_s < access.LEASE_S + LAG_S


@pytest.fixture
def postgres_url(postgres: Postgres) -> str:
    """A database that no other test uses."""
    return postgres.migrated()


# Workers


async def test_workers_of_one_service_share_all_that_replicas_do(postgres_url, tmp_path):
    server = {"workers": 2}
    with (
        Backend() as backend,
        replicas(1, tmp_path, postgres_url, backend.url, server=server) as [service],
    ):
        async with clients(*[service.grpc_address] * 6) as found:
            await serving(found)
            key = await found.desk(0).new_key("workers", plan="prepaid")
            await found.desk(1).grant(NANOS, "workers")

            ended = await asyncio.gather(
                *(
                    reason(found.stubs[n % 6].CompleteUnary(completion(), metadata=key))
                    for n in range(60)
                )
            )
            left = await once_settled(found.desk(2), "workers")
        assert set(ended) == {"OK"}
        assert backend.asked == 60
    assert left == NANOS - 60 * COST
    assert await problems(postgres_url) == []


async def serving(found: Clients) -> None:
    """Until its workers answer: it says where they listen before they do."""
    async with asyncio.timeout(START_S):
        for number in range(len(found.channels)):
            await CatalogServiceStub(found.channels[number]).ListModels(
                ListModelsRequest(), metadata=ROOT, wait_for_ready=True, timeout=START_S
            )
