"""Where cached answers are kept for longer, or for several: a database or Redis, and processes that share one."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any, Final

import pytest
import redis as redis_client

from tests.storage.conftest import opened as opened_storage
from tests.support.redis import RedisServer, redis_server
from tests.unit.cache.asking import (
    FOR_EVER_S,
    START_US,
    Clock,
    Meter,
    about,
    answers,
    ask,
    asks,
    opened,
    shown,
)
from tests.unit.cache.test_semantic import ALSO_SKY, SKY, Scripted, tier
from trunkline_server.cache import rows
from trunkline_server.cache.answers import LOOK_S, Answers, CacheRules
from trunkline_server.cache.database import DatabaseShelf
from trunkline_server.cache.evidence import Count, bin_of
from trunkline_server.cache.place import RULES
from trunkline_server.cache.question import OpenQuestion
from trunkline_server.cache.rows import QuestionRow
from trunkline_server.core.cache import CacheEvent, CacheSubject, Hit, Kept, Shelf, ShelfAway
from trunkline_server.core.errors import NotFound, StorageUnavailable
from trunkline_server.core.transactions import Storage
from trunkline_server.storage.redis_answers import ANSWER_PREFIX, CLEARINGS, RedisAnswers
from trunkline_server.storage.upgrade import upgrade

SECOND_US: Final = 1_000_000
ENOUGH_S: Final = 10.0  # Of waiting for another process to hear of something.


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    with redis_server() as server:
        yield server


@pytest.fixture(params=["sqlite", "postgres", "redis"])
def shelf_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Of an empty shelf of each kind."""
    if request.param == "redis":
        server: RedisServer = request.getfixturevalue("redis")
        with redis_client.Redis.from_url(server.url) as client:
            client.flushall()
        return server.url
    if request.param == "postgres":
        database: str = request.getfixturevalue("postgres").migrated()
        return database
    url = f"sqlite:{tmp_path / 'cache.db'}"
    upgrade(url)
    return url


@pytest.fixture
async def shelf(shelf_url: str) -> AsyncIterator[Shelf]:
    if shelf_url.startswith("redis:"):
        found = RedisAnswers(shelf_url, operation_s=ENOUGH_S)
        yield found
        await found.close()
        return
    async with opened_storage(shelf_url) as storage:
        yield DatabaseShelf(storage, max_entries=100)


def kept(number: int = 1, owner: str = "acme", *, at_us: int = START_US, life_s: int = 60) -> Kept:
    key = number.to_bytes(32, "big")
    return Kept(key, owner, b"\x00answer\xff %d" % number, at_us, at_us + life_s * SECOND_US)


async def test_what_was_put_is_found_by_its_owner_alone(shelf):
    await shelf.put(kept())
    await shelf.put(kept(2, "key:a b"))

    assert await shelf.find(kept().key, "acme") == kept()
    assert await shelf.find(kept(2).key, "key:a b") == kept(2, "key:a b")
    assert await shelf.find(kept().key, "globex") is None
    assert await shelf.find(kept(3).key, "acme") is None


async def test_a_newer_answer_takes_the_place_of_the_older(shelf):
    newer = kept(at_us=START_US + 5 * SECOND_US)
    await shelf.put(kept())
    await shelf.put(newer)

    assert await shelf.find(kept().key, "acme") == newer


async def test_what_is_cleared_is_gone_and_so_is_what_was_asked_before(shelf):
    before, after = kept(1), kept(2, at_us=START_US + 1)
    await shelf.put(before)
    await shelf.put(after)
    await shelf.put(kept(3, "globex"))
    await shelf.clear("acme", START_US)
    await shelf.put(kept(4))  # Asked before, answered after.

    found = [await shelf.find(kept(n).key, "acme") for n in (1, 2, 4)]
    assert found == [None, after, None]
    assert await shelf.find(kept(3).key, "globex") == kept(3, "globex")


async def test_an_older_clearing_does_not_undo_a_newer_one(shelf):
    await shelf.put(kept())
    await shelf.clear("acme", START_US)
    await shelf.clear("acme", START_US - 9)
    await shelf.drop(kept(9).key, "acme")
    await shelf.put(kept())

    assert await shelf.find(kept().key, "acme") is None


async def test_changes_are_told_once_by_owner(shelf):
    first = await shelf.clearings("")
    assert first is not None
    await shelf.clear("acme", START_US)
    await shelf.put(kept(1, "globex"))
    await shelf.drop(kept(1).key, "globex")
    second = await shelf.clearings(first.mark)
    assert second is not None
    nothing = await shelf.clearings(second.mark)

    assert first.by_owner == {}
    assert {owner: found.before_us for owner, found in second.by_owner.items()} == {
        "acme": START_US,
        "globex": 0,
    }
    assert nothing is None
    assert await shelf.find(kept(1).key, "globex") is None
    await shelf.drop(kept(2).key, "globex")
    third = await shelf.clearings(second.mark)
    assert third is not None
    assert third.by_owner["acme"] == second.by_owner["acme"]
    assert third.by_owner["globex"] != second.by_owner["globex"]


async def test_redis_that_throws_keys_away_never_forgets_a_clearing(redis):
    shelf = RedisAnswers(redis.url, operation_s=ENOUGH_S)
    with redis_client.Redis.from_url(redis.url) as client:
        client.flushall()
        await shelf.put(kept())
        known = await shelf.clearings("")
        assert known is not None
        await shelf.clear("acme", START_US)
        client.delete(CLEARINGS)

        assert await shelf.find(kept().key, "acme") is None
        anew = await shelf.clearings(known.mark)
        assert anew is not None
        await shelf.put(kept())
        assert await shelf.find(kept().key, "acme") == kept()
        life_ms = client.pttl(f"{ANSWER_PREFIX}{kept().key.hex()}")
        assert 0 < life_ms <= 60_000
    await shelf.close()


# a database


@pytest.fixture
async def table(storage: Storage) -> DatabaseShelf:
    return DatabaseShelf(storage, max_entries=100)


async def test_a_database_counts_what_can_be_found(table):
    for number in range(5):
        await table.put(kept(number, life_s=number * 10))
    await table.put(kept(9, "globex"))

    now_us = START_US + 20 * SECOND_US
    assert await table.count("acme", now_us) == (2, 2 * len(kept().answer))
    await table.clear("acme", START_US)
    assert await table.count("acme", now_us) == (0, 0)
    assert await table.count("globex", now_us) == (1, len(kept().answer))


async def test_a_sweep_deletes_what_expired_and_the_oldest_of_too_many(storage):
    table = DatabaseShelf(storage, max_entries=10)
    for number in range(5):
        await table.put(kept(number, life_s=1))
    for number in range(10, 25):
        await table.put(kept(number, at_us=START_US + number))

    await table.sweep(START_US + 2 * SECOND_US)

    left = [n for n in range(25) if await table.find(kept(n).key, "acme") is not None]
    assert left == list(range(15, 25))


async def test_a_clearing_tidies_up(storage):
    table = DatabaseShelf(storage, max_entries=10)
    await table.put(kept())
    row = QuestionRow(kept().key, "Why?", b"\x00" * 768, START_US, START_US + SECOND_US)
    await storage.write(lambda: rows.put_question("acme", b"s", row))
    before = await storage.read(lambda: rows.questions("acme", b"s", 0, 10))
    others = await storage.read(lambda: rows.questions("globex", b"s", 0, 10))
    await table.clear("acme", START_US)

    is_more = await storage.write(lambda: rows.sweep_cleared("acme", START_US))
    assert (before, others, is_more) == ([row], [], False)
    assert await storage.read(lambda: rows.questions("acme", b"s", 0, 10)) == []


async def test_questions_come_from_old_to_new_and_only_the_newest(storage):
    given = [
        QuestionRow(bytes([n]) * 32, f"Q{n}", bytes([n]) * 4, START_US + n, START_US + SECOND_US)
        for n in range(6)
    ]
    for row in given:
        await storage.write(lambda row=row: rows.put_question("acme", b"s", row))

    assert await storage.read(lambda: rows.questions("acme", b"s", 0, 4)) == given[2:]
    assert await storage.read(lambda: rows.questions("acme", b"s", START_US + 3, 9)) == given[4:]
    assert await storage.read(lambda: rows.questions("acme", b"t", 0, 9)) == []


async def test_evidence_adds_up_by_owner_rules_and_bin(storage):
    for is_same in (True, True, False):
        last = await storage.write(lambda same=is_same: rows.judge("acme", "1", 7, same))
    await storage.write(lambda: rows.judge("acme", "1", 8, True))

    assert last == Count(2, 1)
    found = await storage.read(lambda: rows.evidence("acme", "1"))
    assert found == {7: Count(2, 1), 8: Count(1, 0)}
    assert await storage.read(lambda: rows.evidence("acme", "2")) == {}
    assert await storage.read(lambda: rows.evidence("globex", "1")) == {}


# processes that share a shelf


async def test_another_process_finds_the_answer(shelf):
    clock = Clock()
    async with opened(clock, shelf=Lasting(shelf)) as first:
        await ask(first, about(asks()), answers())
        await first.settled()
        clock.pass_s(3)
        async with opened(clock, shelf=Lasting(shelf)) as second:
            found = await asyncio.gather(*(ask(second, about(asks())) for _ in range(3)))

    assert [shown(each) for each in found] == ["Paris."] * 3
    assert isinstance(found[0], Hit)
    assert found[0].age_s == 3


@pytest.mark.once
async def test_another_process_hears_what_was_cleared_or_wrong(shelf):
    clock = Clock()
    other = about(asks(), "globex")
    async with (
        opened(clock, shelf=Lasting(shelf)) as first,
        opened(clock, shelf=Lasting(shelf)) as second,
    ):
        for subject in (about(asks()), other):
            await ask(first, subject, answers())
        await first.settled()
        hits = [await ask(second, subject) for subject in (about(asks()), other)]
        assert [shown(hit) for hit in hits] == ["Paris.", "Paris."]
        assert isinstance(hits[1], Hit)
        clock.pass_s(1)
        await first.clear("acme")
        await first.report("globex", hits[1].entry_id, is_wrong=True)
        for subject in (about(asks()), other):
            await until_forgotten(second, subject)
        with pytest.raises(NotFound):
            await second.report("globex", hits[1].entry_id, is_wrong=True)


async def until_forgotten(cache: Answers, subject: CacheSubject) -> None:
    async with asyncio.timeout(ENOUGH_S):
        while shown(await ask(cache, subject)):  # noqa: ASYNC110
            await asyncio.sleep(0.02)


class Lasting(DatabaseShelf):
    """A shelf that a cache does not close."""

    def __init__(self, shelf: Shelf) -> None:
        self.shelf = shelf

    def __getattribute__(self, name: str) -> Any:
        if name in ("shelf", "close"):
            return super().__getattribute__(name)
        return getattr(self.shelf, name)

    async def close(self) -> None:
        """The test does."""


# one that is slow, or broken


class Broken(DatabaseShelf):
    """Fails, or never answers."""

    def __init__(self, *, hangs: bool) -> None:
        self.hangs = hangs
        self.asked = 0

    async def _read(self, *_: Any, **__: Any) -> Any:
        self.asked += 1
        if self.hangs:
            await asyncio.Event().wait()
        raise ShelfAway

    _write = _read


@pytest.mark.parametrize("hangs", [False, True], ids=["fails", "hangs"])
async def test_a_shelf_that_is_away_is_a_miss_within_a_moment(hangs):
    loop = asyncio.get_running_loop()
    clock, meter = Clock(), Meter()
    broken = Broken(hangs=hangs)
    cache = Answers(CacheRules(), shelf=broken, semantic=None, now_us=clock, meter=meter)
    began_s = loop.time()
    first = await ask(cache, about(asks()), answers())
    took_s = loop.time() - began_s
    second = await ask(cache, about(asks()))
    for number in range(50):
        await ask(cache, about(asks(f"What is {number}?")))

    assert isinstance(first, OpenQuestion)
    assert took_s < LOOK_S + 0.25
    assert shown(second) == "Paris."
    assert broken.asked == 1  # And then left alone for a while.
    assert meter.counts[CacheEvent.AWAY] == 1
    if not hangs:
        with pytest.raises(StorageUnavailable):
            await cache.clear("acme")
        with pytest.raises(StorageUnavailable):
            await cache.stats("acme")
    assert shown(await ask(cache, about(asks()))) == ("Paris." if hangs else "")
    await cache.close()


async def test_redis_that_stands_still_is_a_miss(redis):
    loop = asyncio.get_running_loop()
    shelf = RedisAnswers(redis.url)
    cache = Answers(CacheRules(), shelf=shelf, semantic=None, now_us=Clock(), meter=Meter())
    redis.freeze()
    try:
        began_s = loop.time()
        found = await ask(cache, about(asks()), answers())
        took_s = loop.time() - began_s
    finally:
        redis.thaw()
    await cache.close()

    assert isinstance(found, OpenQuestion)
    assert took_s < LOOK_S + 0.25


async def test_a_row_that_is_no_answer_is_a_miss(table):
    clock = Clock()
    async with opened(clock, shelf=table) as cache:
        found = await cache.look(about(asks()), FOR_EVER_S)
        assert isinstance(found, OpenQuestion)
        found.close()
        garbage = Kept(found.place.key, "acme", b"\xff\xff\xff", START_US, START_US + 10**9)
        await table.put(garbage)

        assert isinstance(await ask(cache, about(asks()), answers()), OpenQuestion)
        assert shown(await ask(cache, about(asks()))) == "Paris."


# the semantic tier in a database


@pytest.mark.once
async def test_another_process_knows_the_questions_and_what_was_learned(storage):
    clock = Clock()
    model = Scripted()

    def process() -> AbstractAsyncContextManager[Answers]:
        shelf = DatabaseShelf(storage, max_entries=100)
        return opened(clock, shelf=shelf, semantic=tier(clock, Meter(), model, storage=storage))

    for _ in range(149):
        await storage.write(lambda: rows.judge("acme", RULES, bin_of(0.97), True))
    async with process() as cache:
        await ask(cache, about(asks(SKY)), answers("It scatters."))
        await cache.settled()
    async with process() as cache:
        await ask(cache, about(asks(ALSO_SKY)))  # Begins to read.
        await cache.settled()
        hit = await ask(cache, about(asks(ALSO_SKY)))
        stranger = await ask(cache, about(asks(ALSO_SKY), "globex"))

    assert (shown(hit), shown(stranger)) == ("It scatters.", "")
    assert isinstance(hit, Hit)
    assert hit.kind == "semantic"
