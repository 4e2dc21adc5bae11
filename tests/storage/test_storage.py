"""What every backend does alike; after that, what PostgreSQL alone can suffer."""

import asyncio
import signal
import struct
from collections.abc import (
    AsyncIterator,
    Callable,
    Coroutine,
    Iterator,
    MutableMapping,
    Sequence,
)
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import apsw
import asyncpg
import pytest
from structlog.testing import capture_logs

from tests.storage.conftest import opened
from tests.support.postgres import MAX_CONNECTIONS, PASSWORD, Postgres
from trunkline_server.core.errors import InsufficientCredits, StorageUnavailable
from trunkline_server.core.transactions import MakeTransaction, Statement, Storage, Transaction
from trunkline_server.storage.postgres import (
    CLOSE_S,
    MAX_WAITING,
    NO_CONNECTION_S,
    READ_S,
    TURN,
    WRITE_S,
)
from trunkline_server.storage.postgres_group import StatementFailed
from trunkline_server.storage.upgrade import sqlite_path

HEALED_S = 2.0
LAG_S = 0.3  # By which this machine may be late.

OPEN = "INSERT INTO accounts (organization, available, updated_at) VALUES ($1, $2, 0)"
SPEND = (
    "UPDATE accounts SET available = available - $2, entries = entries + 1"
    " WHERE organization = $1 AND available >= $2 RETURNING entries"
)
NOTE = "INSERT INTO generations (name, value) VALUES ($1, $2)"
NOTES = "SELECT name, value FROM generations WHERE name <> 'keys' ORDER BY name"


def one(sql: str, *values: Any) -> MakeTransaction[Sequence[Any]]:
    """A transaction of one statement, that returns its rows."""

    def run() -> Transaction[Sequence[Any]]:
        return (yield Statement(sql, values))

    return run


def spend(name: str, organization: str = "acme", amount: int = 1) -> MakeTransaction[int]:
    """Takes the amount, and notes under the name as which spender. Refused before its first write, if it is."""

    def run() -> Transaction[int]:
        rows = yield Statement(SPEND, (organization, amount))
        if not rows:
            raise InsufficientCredits
        number: int = rows[0][0]
        yield Statement(NOTE, (name, number))
        return number

    return run


async def notes(storage: Storage) -> dict[str, int]:
    return dict(await storage.read(one(NOTES)))


async def account(storage: Storage, organization: str = "acme", available: int = 1_000_000) -> None:
    await storage.write(one(OPEN, organization, available))


@pytest.fixture
def commits(request: pytest.FixtureRequest, url: str) -> Callable[[], int]:
    """How many transactions that wrote were committed so far."""
    path = sqlite_path(url)
    if path is not None:
        return lambda: commit_frames(Path(f"{path}-wal").read_bytes())
    server: Postgres = request.getfixturevalue("postgres")

    def transactions() -> int:
        sql = "SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint"
        with asyncio.Runner() as runner:
            number: int = runner.run(fetch(server.url(), sql))[0][0]
            return number

    return transactions


def commit_frames(wal: bytes) -> int:
    """Frames that end a transaction: they say how large the database is after it.

    Source: https://www.sqlite.org/fileformat2.html#walformat
    """
    (page_bytes,) = struct.unpack_from(">I", wal, 8)
    starts = range(32, len(wal), 24 + page_bytes)
    return sum(1 for start in starts if struct.unpack_from(">I", wal, start + 4)[0])


async def fetch(url: str, sql: str) -> list[Any]:
    connection = await asyncpg.connect(url)
    try:
        rows: list[Any] = await connection.fetch(sql)
        return rows
    finally:
        await connection.close()


# Writes


async def test_what_was_written_is_there_when_it_is_answered(url):
    async with opened(url) as storage:
        await account(storage)
        assert await storage.write(spend("first")) == 1
        assert await notes(storage) == {"first": 1}

    async with opened(url) as again:
        assert await notes(again) == {"first": 1}


async def test_many_writes_at_once_share_commits(storage, commits):
    await account(storage)
    before = await asyncio.to_thread(commits)

    numbers = await asyncio.gather(*(storage.write(spend(f"{n}")) for n in range(200)))

    assert sorted(numbers) == list(range(1, 201))
    assert await asyncio.to_thread(commits) - before <= 20  # On a busy machine a group ends early.
    assert len(await notes(storage)) == 200


async def test_a_refusal_is_its_callers_alone(storage, commits):
    await account(storage, "rich")
    await account(storage, "poor", 0)
    before = await asyncio.to_thread(commits)

    outcomes = await asyncio.gather(
        *(storage.write(spend(f"{n}", "poor" if n % 3 else "rich")) for n in range(60)),
        return_exceptions=True,
    )

    assert [type(o) is InsufficientCredits for o in outcomes] == [n % 3 > 0 for n in range(60)]
    assert len(await notes(storage)) == 20
    assert await asyncio.to_thread(commits) - before <= 10


def spend_and_fail(name: str) -> MakeTransaction[int]:
    def run() -> Transaction[int]:
        yield from spend(name)()
        raise InsufficientCredits("after all")

    return run


async def test_an_error_after_a_write_undoes_that_transaction_alone(storage):
    await account(storage)

    outcomes = await asyncio.gather(
        *(storage.write((spend if n % 10 else spend_and_fail)(f"{n}")) for n in range(40)),
        return_exceptions=True,
    )

    assert [type(o) is InsufficientCredits for o in outcomes] == [n % 10 == 0 for n in range(40)]
    assert sorted((await notes(storage)).values()) == list(range(1, 37))


@pytest.mark.parametrize(
    "sql",
    [
        "UPDATE accounts SET available = -$1",
        "INSERT INTO generations (name, value) VALUES ('keys', $1)",
        "SELECT this is no SQL",
    ],
    ids=["check", "unique", "syntax"],
)
async def test_a_statement_that_fails_undoes_its_transaction_alone(storage, sql):
    await account(storage)

    def run() -> Transaction[None]:
        yield Statement(NOTE, ("failed", 1))
        yield Statement(sql, (1,) if "$1" in sql else ())

    outcomes: list[Any] = await asyncio.gather(
        *(storage.write(run if n == 7 else spend(f"{n}")) for n in range(20)),
        return_exceptions=True,
    )

    assert isinstance(outcomes.pop(7), StatementFailed | apsw.Error)
    assert sorted(outcomes) == list(range(1, 20))
    assert "failed" not in await notes(storage)


async def test_a_transaction_may_end_without_a_statement(storage):
    def nothing() -> Transaction[str]:
        return "nothing"
        yield Statement("")

    def refused() -> Transaction[str]:
        raise InsufficientCredits
        yield Statement("")

    assert await storage.write(nothing) == "nothing"
    assert await storage.read(nothing) == "nothing"
    with pytest.raises(InsufficientCredits):
        await storage.write(refused)
    with pytest.raises(InsufficientCredits):
        await storage.read(refused)


async def test_callers_that_are_cancelled_break_nothing(storage):
    await account(storage)
    tasks = [asyncio.ensure_future(storage.write(spend(f"{n}"))) for n in range(300)]

    for n, task in enumerate(tasks):
        if n % 3 == 0:
            task.cancel()
        if n % 20 == 0:
            await asyncio.sleep(0.001)
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)

    numbers = [o for o in outcomes if isinstance(o, int)]
    found = await notes(storage)
    assert len(numbers) == len(set(numbers)) >= 200
    assert sorted(found.values()) == list(range(1, len(found) + 1))
    assert set(numbers) <= set(found.values())
    assert await storage.write(spend("after")) == len(found) + 1


async def test_close_commits_what_waits(url):
    async with opened(url) as storage:
        await account(storage)
        tasks = [asyncio.ensure_future(storage.write(spend(f"{n}"))) for n in range(50)]
        await asyncio.sleep(0)
    assert sorted(await asyncio.gather(*tasks)) == list(range(1, 51))

    with pytest.raises(StorageUnavailable):
        await storage.write(spend("late"))
    with pytest.raises(StorageUnavailable):
        await storage.read(one(NOTES))
    async with opened(url) as again:
        assert len(await notes(again)) == 50


# Reads


async def test_a_read_sees_one_state_while_others_write(storage):
    await account(storage)

    written = 0

    def watch() -> Transaction[tuple[set[int], int]]:
        seen = set()
        enough = None  # Counted from the first read: it may have had to wait for its turn.
        for count in range(50_000):
            rows = yield Statement("SELECT entries FROM accounts WHERE organization = 'acme'")
            seen.add(rows[0][0])
            if enough is None:
                enough = written + 3
            elif written > enough:
                return seen, count
        return seen, 0

    watching = asyncio.ensure_future(storage.read(watch))
    while not watching.done():
        written = await storage.write(spend(f"{written}"))

    states, count = await watching
    assert len(states) == 1
    assert count


async def test_a_read_that_writes_changes_nothing(storage):
    await account(storage)

    with pytest.raises((StatementFailed, apsw.Error, StorageUnavailable)):
        await storage.read(spend("none"))

    assert await notes(storage) == {}
    assert storage.is_healthy


# Values

TEXTS = [
    "",
    "plain",
    "Ünïcödé ✓ 漢字 🦜 \U0010ffff \ufffe e\u0301 \u202eright to left",
    "'; DROP TABLE accounts; --",
    "\x01\t\r\n\x7f \\ $1 ?1 :name %s %% {}",
    "x" * 100_000,
]


async def test_values_come_back_as_they_were(storage):
    numbers = [0, 1, -1, 2**31, -(2**31) - 1, 2**63 - 1, -(2**63)]
    blobs = [b"", b"\0", bytes(range(256)), b"x" * 100_000]
    rows = [(n, blobs[i % 4], TEXTS[i % 6]) for i, n in enumerate(numbers)]

    def keep() -> Transaction[None]:
        for row in rows:
            yield Statement(
                "INSERT INTO audit_private (sequence, salt, content) VALUES ($1, $2, $3)", row
            )

    await storage.write(keep)

    found = await storage.read(
        one("SELECT sequence, salt, content FROM audit_private ORDER BY sequence")
    )
    assert [tuple(row) for row in found] == sorted(rows)


async def test_nothing_comes_back_as_none(storage):
    await storage.write(
        one(
            "INSERT INTO alerts (id, body, created_at, next_at, delivered_at) VALUES ('a', '', 1, 2, $1)",
            None,
        )
    )

    assert list(await storage.read(one("SELECT tries, delivered_at FROM alerts"))) == [(0, None)]


async def test_sums_and_counts_are_integers(storage):
    for n in range(3):
        await account(storage, f"{n}", 10**15)

    (found,) = await storage.read(
        one("SELECT sum(available), count(*), sum(held), -sum(available) FROM accounts")
    )

    assert tuple(found) == (3 * 10**15, 3, 0, -3 * 10**15)
    assert {type(value) for value in found} == {int}


# PostgreSQL

CUT = (
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
    " WHERE datname = current_database() AND application_name = 'trunkline'"
)
COUNT = (
    "SELECT count(*) FROM pg_stat_activity"
    " WHERE datname = current_database() AND application_name = 'trunkline'"
)
CONNECTIONS = 3


@pytest.fixture
def pg_url(postgres: Postgres) -> str:
    return postgres.migrated()


@pytest.fixture(autouse=True)
def logs() -> Iterator[list[MutableMapping[str, Any]]]:
    """All that is logged, which is never a secret."""
    with capture_logs() as lines:
        yield lines
    assert PASSWORD not in repr(lines)


async def timed(work: Coroutine[Any, Any, Any]) -> tuple[Any, float]:
    """What it returns or raises, and how long that takes."""
    time = asyncio.get_running_loop().time
    began_s = time()
    try:
        outcome = await work
    except StorageUnavailable as error:
        outcome = error
    return outcome, time() - began_s


async def healed_s(storage: Storage) -> float:
    """How long until it writes and reads again."""
    time = asyncio.get_running_loop().time
    began_s = time()
    while time() < began_s + 10:
        with suppress(StorageUnavailable):
            await storage.write(one("UPDATE generations SET value = value WHERE name = 'keys'"))
            await notes(storage)
            return time() - began_s
        await asyncio.sleep(0.02)
    raise AssertionError("not healed")


@asynccontextmanager
async def spenders(storage: Storage, answered: dict[str, int]) -> AsyncIterator[None]:
    """Eight that spend all the time, and note what they were answered. Nothing else may be wrong."""
    is_over = False

    async def spend_on(who: int) -> None:
        n = 0
        while not is_over:
            n += 1
            try:
                answered[f"{who}-{n}"] = await storage.write(spend(f"{who}-{n}"))
            except StorageUnavailable:
                await asyncio.sleep(0.01)

    tasks = [asyncio.create_task(spend_on(who)) for who in range(8)]
    try:
        yield
    finally:
        is_over = True
        await asyncio.gather(*tasks)


async def check_books(storage: Storage, answered: dict[str, int]) -> None:
    """What was answered happened, and what happened did so wholly and once."""
    found = await notes(storage)
    (spent,) = await storage.read(one("SELECT entries, 1000000 - available FROM accounts"))
    assert len(answered) > 20
    assert answered.items() <= found.items()
    assert sorted(found.values()) == list(range(1, len(found) + 1))
    assert tuple(spent) == (len(found), len(found))


async def test_a_frozen_server_is_answered_for_in_time(postgres, pg_url, logs):
    answered: dict[str, int] = {}
    async with opened(pg_url) as storage:
        await account(storage)
        async with spenders(storage, answered):
            await asyncio.sleep(0.2)
            postgres.freeze()
            try:
                writes = [timed(storage.write(spend(f"w{n}"))) for n in range(20)]
                reads = [timed(storage.read(one(NOTES))) for _ in range(20)]
                outcomes = await asyncio.gather(*writes, *reads)
                later = await asyncio.gather(
                    timed(storage.write(spend("later"))), timed(storage.read(one(NOTES)))
                )
                was_healthy = storage.is_healthy
            finally:
                postgres.thaw()
            healing_s = await healed_s(storage)
        await check_books(storage, answered)

    assert {type(outcome) for outcome, _ in [*outcomes, *later]} == {StorageUnavailable}
    assert {outcome.retry_after_s for outcome, _ in outcomes} == {1.0}
    assert max(took_s for _, took_s in outcomes[:20]) < WRITE_S + LAG_S
    assert max(took_s for _, took_s in outcomes[20:]) < READ_S + LAG_S
    assert max(took_s for _, took_s in later) < NO_CONNECTION_S + LAG_S
    assert not was_healthy
    assert healing_s < HEALED_S
    told = sorted((line["event"], line["lane"]) for line in logs)
    assert told == [
        ("database_back", "read"),
        ("database_back", "write"),
        ("database_unavailable", "read"),
        ("database_unavailable", "write"),
    ]


async def test_a_server_that_crashes_loses_nothing_that_was_answered(postgres, pg_url, logs):
    answered: dict[str, int] = {}
    async with opened(pg_url) as storage:
        await account(storage)
        async with spenders(storage, answered):
            await asyncio.sleep(0.2)
            await asyncio.to_thread(postgres.stop, signal.SIGQUIT)
            try:
                refusals = [await timed(storage.write(spend(f"w{n}"))) for n in range(3)]
                refusals += [await timed(storage.read(one(NOTES))) for n in range(3)]
            finally:
                await asyncio.to_thread(postgres.start)
            healing_s = await healed_s(storage)
            await asyncio.sleep(0.1)
        await check_books(storage, answered)

    assert {type(outcome) for outcome, _ in refusals} == {StorageUnavailable}
    assert max(took_s for _, took_s in refusals) < NO_CONNECTION_S + LAG_S
    assert healing_s < HEALED_S
    assert len(logs) == 4


async def test_a_cut_connection_costs_nobody_anything(postgres, pg_url):
    async with opened(pg_url) as storage:
        await account(storage)
        for n in range(3):
            await fetch(pg_url, CUT)

            assert await storage.write(spend(f"{n}")) == n + 1
            assert len(await notes(storage)) == n + 1


@asynccontextmanager
async def row_held(url: str) -> AsyncIterator[None]:
    """Another program holds acme's row, and has entered ten on it when the block is left."""
    other = await asyncpg.connect(url)
    try:
        async with other.transaction():
            await other.execute("UPDATE accounts SET entries = 10 WHERE organization = 'acme'")
            yield
    finally:
        await other.close()


async def wait_for_lock(url: str) -> None:
    """Until a connection of ours waits for a row."""
    for _ in range(200):
        if (await fetch(url, f"{COUNT} AND wait_event_type = 'Lock'"))[0][0]:
            return
        await asyncio.sleep(0.01)
    raise AssertionError("nobody waits")


async def test_what_was_not_committed_when_its_connection_was_cut_is_run_again(pg_url):
    async with opened(pg_url) as storage:
        await account(storage)
        async with row_held(pg_url):
            writing = asyncio.gather(*(storage.write(spend(name)) for name in "abc"))
            await wait_for_lock(pg_url)
            await fetch(pg_url, CUT)

        assert await writing == [11, 12, 13]
        assert await notes(storage) == {"a": 11, "b": 12, "c": 13}


async def test_what_was_begun_happens_although_its_caller_is_cancelled(pg_url):
    async with opened(pg_url) as storage:
        await account(storage)
        async with row_held(pg_url):
            makes = [spend("first"), spend("left"), spend_and_fail("failed"), spend("last")]
            first, left, failed, last = [asyncio.ensure_future(storage.write(m)) for m in makes]
            await wait_for_lock(pg_url)
            left.cancel()

        assert [await first, await last] == [11, 13]
        with pytest.raises(InsufficientCredits):
            await failed
        assert left.cancelled()
        assert await notes(storage) == {"first": 11, "left": 12, "last": 13}


@asynccontextmanager
async def cut_at_commit(port: int, *, is_passed_on: bool) -> AsyncIterator[tuple[int, list[bytes]]]:
    """A port that leads to the other. At the first commit, whether the server hears of it or not, its answer is lost.

    Yields the port, and the commits seen.
    """
    commits: list[bytes] = []
    leads: list[asyncio.Task[None]] = []

    async def lead(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        own = asyncio.current_task()
        assert own is not None
        leads.append(own)
        server_reader, server_writer = await asyncio.open_connection("127.0.0.1", port)
        is_cut = False

        async def there() -> None:
            nonlocal is_cut
            while not is_cut and (data := await reader.read(65536)):
                is_commit = b"COMMIT" in data
                is_cut = is_commit and not commits
                if is_commit:
                    commits.append(data)
                if is_passed_on or not is_cut:
                    server_writer.write(data)

        async def back() -> None:
            while data := await server_reader.read(65536):
                if not is_cut:
                    writer.write(data)

        ways = [asyncio.create_task(there()), asyncio.create_task(back())]
        await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        writer.close()
        await asyncio.sleep(0.1)  # For the server to hear of it.
        for way in ways:
            way.cancel()
        await asyncio.gather(*ways, return_exceptions=True)
        server_writer.close()

    async with await asyncio.start_server(lead, "127.0.0.1", 0) as server:
        yield server.sockets[0].getsockname()[1], commits
        await asyncio.wait(leads)


@pytest.mark.parametrize("is_passed_on", [True, False], ids=["committed", "not committed"])
async def test_a_commit_of_which_nothing_is_heard_is_not_run_again(postgres, pg_url, is_passed_on):
    async with opened(pg_url) as direct:
        await account(direct)
        async with cut_at_commit(postgres.port, is_passed_on=is_passed_on) as (port, commits):
            url = pg_url.replace(f":{postgres.port}/", f":{port}/") + "?sslmode=disable"
            async with opened(url) as storage:
                outcomes = [
                    outcome
                    for outcome, _ in await asyncio.gather(
                        *(timed(storage.write(spend(name))) for name in "abc")
                    )
                ]
                await asyncio.sleep(0.2)
        found = await notes(direct)

    assert {type(outcome) for outcome in outcomes} == {StorageUnavailable}
    assert len(commits) == 1
    assert found == ({"a": 1, "b": 2, "c": 3} if is_passed_on else {})


async def test_connections_that_are_cut_while_they_work_lose_nothing(postgres, pg_url):
    answered: dict[str, int] = {}
    async with opened(pg_url) as storage:
        await account(storage)
        async with spenders(storage, answered):
            for _ in range(5):
                await asyncio.sleep(0.1)
                await fetch(pg_url, CUT)
        await healed_s(storage)
        await check_books(storage, answered)
        assert (await fetch(pg_url, COUNT))[0][0] <= CONNECTIONS


async def test_a_server_without_free_connections_is_waited_for(postgres, pg_url):
    async with AsyncExitStack() as others:
        with suppress(asyncpg.TooManyConnectionsError):
            for _ in range(MAX_CONNECTIONS + 1):
                other = await asyncpg.connect(pg_url)
                others.push_async_callback(other.close)
        async with opened(pg_url) as storage:
            outcome, took_s = await timed(storage.write(spend("none")))
            was_healthy = storage.is_healthy
            await others.aclose()
            healing_s = await healed_s(storage)

    assert isinstance(outcome, StorageUnavailable)
    assert took_s < NO_CONNECTION_S + LAG_S
    assert not was_healthy
    assert healing_s < HEALED_S


async def test_a_server_that_refuses_is_asked_one_at_a_time_and_not_too_often():
    now = most = asked = 0

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal now, most, asked
        now, asked = now + 1, asked + 1
        most = max(most, now)
        await asyncio.sleep(0.01)
        writer.close()
        now -= 1

    async with await asyncio.start_server(refuse, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        async with opened(f"postgresql://trunkline:{PASSWORD}@127.0.0.1:{port}/db?sslmode=disable"):
            pass  # It waits a second to be connected.

    assert most == 1
    assert 2 <= asked <= 8


async def test_an_url_that_cant_be_used_is_no_crash(logs):
    async with opened(f"postgresql://trunkline:{PASSWORD}/@127.0.0.1:1/db") as storage:
        with pytest.raises(StorageUnavailable):
            await storage.write(spend("none"))
    assert len(logs) == 2


async def test_who_waits_for_a_row_too_long_holds_up_nobody_else(postgres, pg_url):
    async with opened(pg_url) as storage:
        for name in ("free", "stuck"):
            await account(storage, name)
        other = await asyncpg.connect(pg_url)
        transaction = other.transaction()
        await transaction.start()
        await other.execute("UPDATE accounts SET entries = 10 WHERE organization = 'stuck'")
        outcomes = await asyncio.gather(
            *(timed(storage.write(spend(n, "stuck" if n == "b" else "free"))) for n in "abcd")
        )
        await transaction.commit()
        await other.close()

        assert await storage.write(spend("e", "stuck")) == 11

    assert isinstance(outcomes.pop(1)[0], StorageUnavailable)
    assert [outcome for outcome, _ in outcomes] == [1, 2, 3]
    assert max(took_s for _, took_s in outcomes) < WRITE_S


def spend_both(name: str, first: str, second: str) -> MakeTransaction[int]:
    def run() -> Transaction[int]:
        number = yield from spend(name, first)()
        yield Statement(SPEND, (second, 1))
        return number

    return run


async def test_a_deadlock_with_another_program_is_tried_again(postgres, pg_url):
    async with opened(pg_url) as storage:
        for name in ("a", "b"):
            await account(storage, name)
        other = await asyncpg.connect(pg_url)
        with suppress(asyncpg.DeadlockDetectedError):  # One of the two is stopped.
            async with other.transaction():
                await other.execute(SPEND, "b", 1)
                writing = asyncio.ensure_future(storage.write(spend_both("ours", "a", "b")))
                await asyncio.sleep(0.1)
                await other.execute(SPEND, "a", 1)
        await other.close()

        assert await writing in (1, 2)
        assert len(await notes(storage)) == 1


async def test_servers_that_lock_rows_in_any_order_are_never_stopped_as_a_deadlock(pg_url):
    names = "abcdefgh"
    async with opened(pg_url) as one_server, opened(pg_url) as other_server:
        for name in names:
            await account(one_server, name)
        await asyncio.gather(
            *(
                server.write(spend_both(f"{n} {order}", order[n % 8], order[(n + 1) % 8]))
                for n in range(200)
                for server, order in ((one_server, names), (other_server, names[::-1]))
            )
        )
        (total,) = await one_server.read(one("SELECT sum(entries) FROM accounts"))

    assert total[0] == 800
    assert await fetch(
        pg_url, "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
    ) == [(0,)]


async def test_more_than_may_wait_is_refused_at_once(postgres, pg_url):
    async with opened(pg_url) as storage:
        await account(storage)
        postgres.freeze()
        try:
            waiting = [
                asyncio.ensure_future(storage.write(spend(f"{n}"))) for n in range(MAX_WAITING)
            ]
            await asyncio.sleep(0)
            outcome, took_s = await timed(storage.write(spend("more")))
            for task in waiting:
                task.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)
        finally:
            postgres.thaw()

        assert isinstance(outcome, StorageUnavailable)
        assert took_s < LAG_S
        # Of those who were cancelled, none was run.
        assert await storage.write(spend("after")) == 1


async def test_a_failed_statement_is_told_without_its_values(pg_url):
    async with opened(pg_url) as storage:
        await storage.write(one(NOTE, "hunter2", 1))
        for wrong in (one(NOTE, "hunter2", 2), one(NOTE, "x", "hunter2")):
            with pytest.raises(StatementFailed) as caught:
                await storage.write(wrong)
            assert "hunter2" not in repr(caught.value)
            assert caught.value.__cause__ is caught.value.__context__ is None


async def test_a_schema_that_changes_under_a_server_is_taken_as_it_is(pg_url):
    every = one("SELECT * FROM generations")
    async with opened(pg_url) as storage:
        before = [len(row) for row in [*await storage.read(every), *await storage.write(every)]]
        await fetch(pg_url, "ALTER TABLE generations ADD COLUMN more TEXT")

        after = [len(row) for row in [*await storage.read(every), *await storage.write(every)]]

    assert (before, after) == ([2, 2], [3, 3])


@pytest.mark.slow
async def test_a_turn_that_another_server_keeps_is_waited_for_in_vain_and_then_had(pg_url):
    async with opened(pg_url) as storage:
        await account(storage)
        other = await asyncpg.connect(pg_url)
        await other.execute(f"SELECT pg_advisory_lock({TURN})")
        outcome, took_s = await timed(storage.write(spend("early")))
        await other.close()

        assert isinstance(outcome, StorageUnavailable)
        assert took_s < WRITE_S + LAG_S
        assert await storage.write(spend("late")) == 1


@pytest.mark.slow
async def test_close_ends_although_the_server_is_frozen(postgres, pg_url):
    async with opened(pg_url) as storage:
        postgres.freeze()
        try:
            writing = asyncio.ensure_future(timed(storage.write(one(NOTE, "x", 1))))
            await asyncio.sleep(0)
            began_s = asyncio.get_running_loop().time()
            await storage.close()
            took_s = asyncio.get_running_loop().time() - began_s
        finally:
            postgres.thaw()

    assert isinstance((await writing)[0], StorageUnavailable)
    assert took_s < CLOSE_S + LAG_S


@pytest.mark.slow
async def test_a_server_that_was_frozen_for_long_is_used_again_at_once(postgres, pg_url):
    answered: dict[str, int] = {}
    async with opened(pg_url) as storage:
        await account(storage)
        async with spenders(storage, answered):
            await asyncio.sleep(0.2)
            postgres.freeze()
            await asyncio.sleep(30)
            postgres.thaw()
            healing_s = await healed_s(storage)
        await check_books(storage, answered)
        assert (await fetch(pg_url, COUNT))[0][0] == CONNECTIONS

    assert healing_s < HEALED_S
