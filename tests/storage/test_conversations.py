"""Conversations on every database: one turn at a time, in order, and nothing is left of what was deleted."""

import asyncio
import os
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.storage.conftest import opened
from trunkline.v1.message_pb2 import Media, Message, Part, ProviderState, Role, ToolCall
from trunkline_server.conversations.records import (
    ERASED_AT_ONCE,
    INSERTED_AT_ONCE,
    KEY_KEPT_US,
    MAX_PAGE_BYTES,
    Conversation,
)
from trunkline_server.conversations.turns import (
    DAY_US,
    MAX_CONVERSATION_BYTES,
    MAX_MESSAGE_BYTES,
    MAX_TITLE_CHARS,
    MAX_WAITING,
    StoredConversations,
)
from trunkline_server.core.conversations import NEW
from trunkline_server.core.errors import (
    ConcurrencyExhausted,
    ConversationNotFound,
    DeadlineExceeded,
    IdempotencyConflict,
    InvalidRequest,
    StorageUnavailable,
)
from trunkline_server.core.ids import ENTROPY_BYTES, ulid
from trunkline_server.core.transactions import MakeTransaction, Statement, Storage, T, Transaction
from trunkline_server.core.validation import MAX_METADATA_BYTES
from trunkline_server.storage.upgrade import sqlite_path, upgrade

START_US = 1_790_000_000_000_000
LIMIT_S = 10.0
NOBODYS = "conv_01ARZ3NDEKTSV4RRFFQ69G5FAV"
EVER = 2**62


def said(text: str, role: "Role.ValueType" = Role.ROLE_USER) -> Message:
    return Message(role=role, parts=[Part(text=text)])


def until(limit_s: float = LIMIT_S) -> float:
    return asyncio.get_running_loop().time() + limit_s


def time_us() -> int:
    return time.time_ns() // 1_000


@dataclass
class Clock:
    """Stands still until a test moves it."""

    now_us: int = START_US

    def __call__(self) -> int:
        return self.now_us


def kept_in(
    storage: Storage, clock: Callable[[], int] | None = None, **more: Any
) -> StoredConversations:
    """As one process has it."""
    return StoredConversations(
        storage,
        **{
            "mint_id": lambda: ulid(START_US // 1_000, os.urandom(ENTROPY_BYTES)),
            "now_us": clock or Clock(),
            "max_messages": 10_000,
            **more,
        },
    )


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def second(url: str, storage: Storage) -> AsyncIterator[Storage]:
    """As another process has it. A SQLite database has no other one, so there it is a second user of the same."""
    if sqlite_path(url) is not None:
        yield storage
        return
    async with opened(url) as another:
        yield another


@pytest.fixture
async def kept(storage: Storage, clock: Clock) -> AsyncIterator[StoredConversations]:
    conversations = kept_in(storage, clock)
    yield conversations
    await conversations.close()


async def began(
    kept: StoredConversations, *texts: str, owner: str = "acme", end_user: str = ""
) -> str:
    """A conversation in which this was said in a turn. Returns its id."""
    turn = await kept.begin(owner, end_user, NEW, until())
    await turn.store([said(text) for text in texts], "cmpl_first")
    turn.release()
    return turn.conversation_id


async def texts_of(kept: StoredConversations, id_: str, owner: str = "acme") -> list[str]:
    found, _ = await kept.messages(owner, id_, 0, 1_000)
    return [stored.message.parts[0].text for stored in found]


async def rows(storage: Storage) -> tuple[int, int]:
    """How many conversations and messages the tables hold, whoever's."""

    def look() -> Transaction[tuple[int, int]]:
        conversations = yield Statement("SELECT COUNT(*) FROM conversations")
        messages = yield Statement("SELECT COUNT(*) FROM conversation_messages")
        return conversations[0][0], messages[0][0]

    return await storage.read(look)


async def until_it_is(value: Any, look: Callable[[], Awaitable[Any]]) -> None:
    async with asyncio.timeout(LIMIT_S):
        while await look() != value:  # noqa: ASYNC110 - a database tells nobody
            await asyncio.sleep(0.01)


# What is kept


async def test_what_was_said_is_there_for_the_next_turn(kept):
    asked = Message(
        role=Role.ROLE_USER, parts=[Part(text="Hé 🦜\0"), Part(image=Media(data=bytes(range(256))))]
    )
    answer = Message(
        role=Role.ROLE_ASSISTANT,
        parts=[
            Part(
                tool_call=ToolCall(id="1", name="t", arguments_json="{"),
                provider_state=ProviderState(provider="p", data=b"\xff\0"),
            )
        ],
    )
    first = await kept.begin("acme", "", NEW, until())
    assert list(first.messages) == []
    await first.store([asked, answer], "cmpl_1")
    first.release()

    second = await kept.begin("acme", "", first.conversation_id, until())

    assert list(second.messages) == [asked, answer]
    second.release()


async def test_it_is_there_after_a_restart(url):
    async with opened(url) as storage:
        id_ = await began(kept_in(storage), "a", "b")

    async with opened(url) as storage:
        assert await texts_of(kept_in(storage), id_) == ["a", "b"]


async def test_each_message_tells_where_and_when_it_came(kept, clock):
    turn = await kept.begin("acme", "", NEW, until())
    await turn.store([said("a"), said("b")], "cmpl_1")
    turn.release()
    clock.now_us += 5
    turn = await kept.begin("acme", "", turn.conversation_id, until())
    await turn.store([said("c")], "cmpl_2")
    turn.release()

    found, has_more = await kept.messages("acme", turn.conversation_id, 0, 10)

    told = [(m.sequence, m.message, m.completion_id, m.created_us) for m in found]
    assert told == [
        (1, said("a"), "cmpl_1", START_US),
        (2, said("b"), "cmpl_1", START_US),
        (3, said("c"), "cmpl_2", START_US + 5),
    ]
    assert not has_more
    assert await kept.find("acme", turn.conversation_id) == Conversation(
        turn.conversation_id, "", "", 3, START_US, START_US + 5
    )


@pytest.mark.parametrize("many", [INSERTED_AT_ONCE - 1, INSERTED_AT_ONCE, 3 * INSERTED_AT_ONCE + 2])
async def test_a_turn_may_say_much(kept, many):
    texts = [f"{n}" for n in range(many)]

    assert await texts_of(kept, await began(kept, *texts)) == texts


async def test_a_turn_in_which_nothing_is_stored_changes_nothing(kept):
    id_ = await began(kept, "a")
    before = await kept.find("acme", id_)

    turn = await kept.begin("acme", "", id_, until())
    turn.release()
    turn.release()

    again = await kept.begin("acme", "", id_, until())
    assert list(again.messages) == [said("a")]
    again.release()
    assert await kept.find("acme", id_) == before


async def test_a_conversation_whose_first_turn_fails_is_none(kept, storage):
    turn = await kept.begin("acme", "", NEW, until())

    turn.release()
    await kept.close()

    assert await rows(storage) == (0, 0)


# Whose it is

STRANGERS = {"another organisation": ("other", ""), "a key of none": ("key:root", "")}


@pytest.mark.parametrize("who", STRANGERS)
async def test_of_anothers_nothing_is_told_but_that_there_is_none(kept, who):
    id_ = await began(kept, "secret")
    held = await kept.begin("acme", "", id_, until())  # Nor by waiting.
    owner, end_user = STRANGERS[who]

    async def refusals(id_: str) -> list[str]:
        found = []
        for work in (
            kept.begin(owner, end_user, id_, until()),
            kept.find(owner, id_),
            kept.messages(owner, id_, 0, 10),
            kept.delete(owner, id_),
        ):
            with pytest.raises(ConversationNotFound) as raised:
                await work
            found.append(repr((type(raised.value), raised.value.args, raised.value.metadata)))
        return found

    assert await refusals(id_) == await refusals(NOBODYS) == await refusals("no id at all\0")
    assert await kept.page(owner, EVER, 10) == ([], False)
    held.release()
    assert await texts_of(kept, id_) == ["secret"]


async def test_what_was_begun_for_a_user_is_that_users_alone(kept):
    id_ = await began(kept, "a", end_user="alice")

    for end_user in ("bob", ""):
        with pytest.raises(ConversationNotFound):
            await kept.begin("acme", end_user, id_, until())

    turn = await kept.begin("acme", "alice", id_, until())
    assert list(turn.messages) == [said("a")]
    with pytest.raises(ConversationNotFound):  # Nor is it told by waiting for the turn.
        await kept.begin("acme", "bob", id_, until())
    turn.release()


async def test_one_without_a_user_becomes_the_first_speakers(kept):
    id_ = (await kept.create("acme", "", "", "")).id
    turn = await kept.begin("acme", "alice", id_, until())
    await turn.store([said("a")], "cmpl_1")
    turn.release()

    with pytest.raises(ConversationNotFound):
        await kept.begin("acme", "bob", id_, until())


async def test_one_that_was_begun_without_a_user_stays_everybodys(kept):
    id_ = await began(kept, "a")

    for end_user in ("alice", "bob", ""):
        turn = await kept.begin("acme", end_user, id_, until())
        await turn.store([said(end_user)], f"cmpl_{end_user}")
        turn.release()

    assert await texts_of(kept, id_) == ["a", "alice", "bob", ""]


# One at a time


async def speak(kept: StoredConversations, id_: str, name: str, turns: int) -> list[int]:
    """Turns, each of which says what it found. Returns how many messages there were each time."""
    found = []
    for n in range(turns):
        turn = await kept.begin("acme", "", id_, until())
        try:
            known = len(turn.messages)
            for _ in range(3):
                await asyncio.sleep(0)
            await turn.store(
                [said(f"{known} {name}{n}"), said(f"{known} {name}{n}!")], f"cmpl_{name}{n}"
            )
            found.append(known)
        finally:
            turn.release()
    return found


async def test_turns_at_once_never_interleave(kept):
    id_ = await began(kept)

    found = await asyncio.gather(*(speak(kept, id_, name, 8) for name in "abcd"))

    texts = await texts_of(kept, id_)
    assert sorted(n for some in found for n in some) == list(range(0, 64, 2))
    assert [text.split()[0] for text in texts] == [str(n // 2 * 2) for n in range(64)]
    assert [text + "!" for text in texts[::2]] == texts[1::2]


async def test_turns_come_in_the_order_of_arrival(kept):
    id_ = await began(kept)

    await asyncio.gather(*(speak(kept, id_, f"{n}-", 1) for n in range(10)))

    assert [text.split()[1] for text in (await texts_of(kept, id_))[::2]] == [
        f"{n}-0" for n in range(10)
    ]


async def test_turns_of_processes_at_once_never_interleave(storage, second, clock):
    mine, other = kept_in(storage, clock), kept_in(second, clock)
    id_ = await began(mine)

    found = await asyncio.gather(
        *(speak(of, id_, name, 4) for of, name in [(mine, "a"), (other, "b"), (mine, "c")])
    )

    texts = await texts_of(mine, id_)
    assert sorted(n for some in found for n in some) == list(range(0, 24, 2))
    assert [text.split()[0] for text in texts] == [str(n // 2 * 2) for n in range(24)]


async def test_who_waits_too_long_gives_up(kept, storage, clock):
    id_ = await began(kept, "a")
    held = await kept.begin("acme", "", id_, until())

    with pytest.raises(DeadlineExceeded):  # In the line,
        await kept.begin("acme", "", id_, until(0.05))
    with pytest.raises(DeadlineExceeded):  # and of another process.
        await kept_in(storage, clock).begin("acme", "", id_, until(0.05))

    held.release()
    await speak(kept, id_, "b", 1)
    assert await texts_of(kept, id_) == ["a", "1 b0", "1 b0!"]


async def test_the_line_is_short(kept):
    id_ = await began(kept)
    held = await kept.begin("acme", "", id_, until())
    waiting = [asyncio.ensure_future(speak(kept, id_, f"{n}-", 1)) for n in range(MAX_WAITING)]
    await asyncio.sleep(0)

    with pytest.raises(ConcurrencyExhausted):
        await kept.begin("acme", "", id_, until())
    with pytest.raises(ConversationNotFound):  # Others are not told that there is one.
        await kept.begin("other", "", id_, until())

    held.release()
    assert await asyncio.gather(*waiting) == [[2 * n] for n in range(MAX_WAITING)]


@pytest.mark.parametrize("id_", ["old", NEW])
async def test_who_is_cancelled_at_any_moment_holds_nobody_up(kept, storage, id_):
    known = await began(kept, "a")
    for steps in range(40):
        work = asyncio.ensure_future(
            kept.begin("acme", "", known if id_ == "old" else NEW, until())
        )
        for _ in range(steps):
            await asyncio.sleep(0)
        work.cancel()
        await asyncio.wait([work])
        if not work.cancelled():
            work.result().release()

        # The clock stands still: a lease that was left behind would never run out.
        turn = await kept.begin("acme", "", known, until())
        turn.release()

    await kept.close()
    assert await rows(storage) == (1, 1)


async def test_who_is_cancelled_in_the_line_lets_the_next_one_pass(kept):
    id_ = await began(kept)
    held = await kept.begin("acme", "", id_, until())
    waiting = [asyncio.ensure_future(speak(kept, id_, f"{n}-", 1)) for n in range(6)]
    await asyncio.sleep(0)

    for n in (0, 3, 5):
        waiting[n].cancel()
    held.release()
    await asyncio.gather(*waiting, return_exceptions=True)

    assert [text.split()[1] for text in (await texts_of(kept, id_))[::2]] == ["1-0", "2-0", "4-0"]


# Leases


async def test_a_process_that_is_gone_holds_up_the_next_until_its_lease_has_run_out(
    kept, second, clock
):
    id_ = await began(kept, "a")
    await kept_in(second, clock, lease_s=20).begin("acme", "", id_, until())
    clock.now_us += 19_999_999
    with pytest.raises(DeadlineExceeded):
        await kept.begin("acme", "", id_, until(0.05))

    clock.now_us += 1
    turn = await kept.begin("acme", "", id_, until())

    assert list(turn.messages) == [said("a")]
    turn.release()


HOLD = """
import asyncio, sys, time
from tests.storage.conftest import opened
from tests.storage.test_conversations import LIMIT_S, kept_in, time_us, until

async def hold(url, id_):
    async with opened(url) as storage:
        turn = await kept_in(storage, time_us, lease_s=1.0).begin("acme", "", id_, until())
        print(len(turn.messages), flush=True)
        await asyncio.sleep(LIMIT_S)

asyncio.run(hold(*sys.argv[1:]))
"""


@pytest.mark.once
async def test_a_process_that_is_killed_in_its_turn_does_not_hold_the_next_up_for_long(postgres):
    url = await asyncio.to_thread(postgres.migrated)
    async with opened(url) as storage:
        kept = kept_in(storage, time_us, lease_s=1.0)
        id_ = await began(kept, "a")
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", HOLD, url, id_), stdout=asyncio.subprocess.PIPE
        )
        assert process.stdout is not None
        assert await process.stdout.readline() == b"1\n"
        waiting = asyncio.ensure_future(speak(kept, id_, "b", 1))
        process.kill()
        await process.wait()

        assert await waiting == [1]
        assert await texts_of(kept, id_) == ["a", "1 b0", "1 b0!"]


async def test_a_turn_whose_lease_was_lost_stores_nothing(kept, second, clock):
    id_ = await began(kept, "a")
    slow = await kept_in(second, clock).begin("acme", "", id_, until())
    clock.now_us += 60_000_000
    fast = await kept.begin("acme", "", id_, until())

    with pytest.raises(StorageUnavailable):
        await slow.store([said("late")], "cmpl_slow")
    slow.release()
    await fast.store([said("b")], "cmpl_fast")
    fast.release()
    with pytest.raises(StorageUnavailable):
        await slow.store([said("later")], "cmpl_slow")

    assert await texts_of(kept, id_) == ["a", "b"]


async def test_a_lease_that_has_run_out_is_good_until_somebody_else_has_one(kept, clock):
    id_ = await began(kept, "a")
    turn = await kept.begin("acme", "", id_, until())
    clock.now_us += 60_000_000

    await turn.store([said("b")], "cmpl_1")
    turn.release()

    assert await texts_of(kept, id_) == ["a", "b"]


async def test_a_turn_that_goes_on_renews_its_lease(storage, second, clock):
    kept = kept_in(storage, clock, lease_s=20, renew_s=0.01)
    kept.start()
    id_ = await began(kept, "a")
    turn = await kept.begin("acme", "", id_, until())
    clock.now_us += 19_000_000

    def leased_until() -> Transaction[int]:
        found = yield Statement("SELECT leased_until FROM conversations WHERE id = $1", (id_,))
        return int(found[0][0])

    await until_it_is(clock.now_us + 20_000_000, lambda: storage.read(leased_until))
    clock.now_us += 19_000_000
    with pytest.raises(DeadlineExceeded):
        await kept_in(second, clock).begin("acme", "", id_, until(0.05))

    turn.release()
    await kept.close()


async def test_where_nobody_else_can_be_a_lease_that_was_left_behind_counts_for_nothing(
    kept, storage, clock
):
    id_ = await began(kept, "a")
    lost = await kept.begin("acme", "", id_, until())

    started = kept_in(storage, clock, is_alone=True)
    turn = await started.begin("acme", "", id_, until())
    await turn.store([said("b")], "cmpl_1")
    turn.release()

    with pytest.raises(StorageUnavailable):
        await lost.store([said("late")], "cmpl_2")
    assert await texts_of(started, id_) == ["a", "b"]


# A database that fails


@dataclass
class Failing:
    """Fails some writes, by their number from when it is told; `after`: they are done all the same."""

    storage: Storage
    fails: set[int] = field(default_factory=set)
    after: bool = False
    writes: int = -1

    async def write(self, make: MakeTransaction[T]) -> T:
        self.writes += 1
        fails = self.writes in self.fails
        if fails and not self.after:
            raise StorageUnavailable
        result = await self.storage.write(make)
        if fails:
            raise StorageUnavailable
        return result

    async def read(self, make: MakeTransaction[T], *, is_short: bool = False) -> T:
        return await self.storage.read(make, is_short=is_short)


@pytest.mark.parametrize("after", [False, True], ids=["not done", "done"])
async def test_what_was_said_is_stored_once_whatever_the_database_tells(storage, clock, after):
    failing = Failing(storage, after=after)
    kept = kept_in(failing, clock)
    turn = await kept.begin("acme", "", NEW, until())
    failing.fails = {failing.writes + 1}

    await turn.store([said("a"), said("b")], "cmpl_1")
    turn.release()

    assert await texts_of(kept, turn.conversation_id) == ["a", "b"]
    await speak(kept, turn.conversation_id, "c", 1)


@pytest.mark.parametrize("after", [False, True], ids=["not done", "done"])
@pytest.mark.parametrize("is_new", [False, True], ids=["old", "new"])
async def test_a_turn_that_could_not_begin_holds_nobody_up(storage, clock, after, is_new):
    failing = Failing(storage, after=after)
    kept = kept_in(failing, clock)
    id_ = await began(kept, "a")
    failing.fails = {failing.writes + 1}

    with pytest.raises(StorageUnavailable):
        await kept.begin("acme", "", NEW if is_new else id_, until())

    await speak(kept, id_, "b", 1)
    await kept.close()
    assert await rows(storage) == (1, 3)


# Deleting


async def test_what_is_deleted_is_gone(kept, storage):
    many = [f"{n}" for n in range(2 * ERASED_AT_ONCE + 1)]
    gone, stays = await began(kept, *many), await began(kept, "b")

    await kept.delete("acme", gone)

    assert await rows(storage) == (1, 1)
    assert await texts_of(kept, stays) == ["b"]
    for work in (
        kept.begin("acme", "", gone, until()),
        kept.find("acme", gone),
        kept.delete("acme", gone),
    ):
        with pytest.raises(ConversationNotFound):
            await work


async def test_a_turn_that_is_on_while_it_is_deleted_stores_nothing(kept, storage):
    id_ = await began(kept, "a")
    turn = await kept.begin("acme", "", id_, until())
    waiting = asyncio.ensure_future(kept.begin("acme", "", id_, until()))
    await asyncio.sleep(0)

    await kept.delete("acme", id_)

    with pytest.raises(ConversationNotFound):
        await turn.store([said("b")], "cmpl_1")
    turn.release()
    with pytest.raises(ConversationNotFound):
        await waiting
    await kept.close()
    assert await rows(storage) == (0, 0)


async def test_what_was_begun_to_be_deleted_is_nobodys_and_goes_at_the_next_start(storage, clock):
    failing = Failing(storage)
    kept = kept_in(failing, clock)
    id_ = await began(kept, *(f"{n}" for n in range(ERASED_AT_ONCE + 1)))
    failing.fails = {failing.writes + 2}
    with pytest.raises(StorageUnavailable):
        await kept.delete("acme", id_)
    with pytest.raises(ConversationNotFound):
        await kept.find("acme", id_)
    assert await kept.page("", EVER, 10) != ([], False)  # So that it can be found,

    started = kept_in(storage, clock, sweep_s=0.01)
    started.start()

    await until_it_is((0, 0), lambda: rows(storage))
    await started.close()


async def test_what_is_old_goes_by_itself(storage, clock):
    kept = kept_in(storage, clock, keep_days=2.0, sweep_s=0.01)
    await began(kept, "old", "older")
    empty = await kept.create("acme", "old, too", "", "")
    held = await kept.begin("acme", "", await began(kept, "still on"), until())
    clock.now_us += DAY_US
    young = await began(kept, "young")
    clock.now_us += DAY_US + 10
    held_again = await kept_in(storage, clock).begin("acme", "", held.conversation_id, until())

    kept.start()

    await until_it_is((2, 2), lambda: rows(storage))
    with pytest.raises(ConversationNotFound):
        await kept.find("acme", empty.id)
    assert await texts_of(kept, young) == ["young"]
    assert await texts_of(kept, held_again.conversation_id) == ["still on"]
    held_again.release()
    await kept.close()


async def test_of_what_is_deleted_sqlite_leaves_nothing_in_its_files(tmp_path, clock):
    path = tmp_path / "trunkline.db"
    upgrade(f"sqlite:{path}")
    secret = "the-secret-of-the-conversation"

    def traces() -> int:
        return sum(file.read_bytes().count(secret.encode()) for file in tmp_path.iterdir())

    async with opened(f"sqlite:{path}") as storage:
        kept = kept_in(storage, clock)
        id_ = await began(kept, *[f"{n} {secret} " + "x" * n for n in range(300)])
        titled = (await kept.create("acme", f"about {secret}", '{"a": "' + secret + '"}', "")).id
    assert traces() >= 302

    async with opened(f"sqlite:{path}") as storage:
        kept = kept_in(storage, clock)
        await kept.delete("acme", id_)
        await kept.delete("acme", titled)
    assert traces() == 0


# Making, finding and listing


async def test_one_can_be_made_before_anything_is_said(kept):
    made = await kept.create("acme", "Träume", '{"a": [1]}', "")

    assert made == Conversation(made.id, "Träume", '{"a": [1]}', 0, START_US, START_US)
    assert await kept.find("acme", made.id) == made
    assert await kept.messages("acme", made.id, 0, 10) == ([], False)


async def test_under_one_key_one_is_made_for_a_day(kept, clock):
    first = await kept.create("acme", "a", "{}", "key")

    assert await kept.create("acme", "a", "{}", "key") == first
    for title, metadata in [("b", "{}"), ("a", "")]:
        with pytest.raises(IdempotencyConflict):
            await kept.create("acme", title, metadata, "key")
    ids = {first.id, (await kept.create("other", "a", "{}", "key")).id}
    ids |= {(await kept.create("acme", "a", "{}", "")).id for _ in range(2)}
    clock.now_us += KEY_KEPT_US
    ids.add((await kept.create("acme", "b", "", "key")).id)
    assert len(ids) == 5


async def test_under_one_key_at_once_one_is_made(kept):
    made = await asyncio.gather(*(kept.create("acme", "a", "", "key") for _ in range(20)))

    assert len({conversation.id for conversation in made}) == 1


async def test_a_key_goes_with_its_conversation(kept):
    made = await kept.create("acme", "a", "", "key")
    await kept.delete("acme", made.id)

    assert (await kept.create("acme", "b", "", "key")).id != made.id


async def test_a_list_has_each_once_and_the_newest_first(kept):
    made = [await kept.create("acme", f"{n}", "", "") for n in range(7)]  # In one microsecond.
    await kept.create("other", "", "", "")
    pages, before_us, has_more = [], EVER, True

    while has_more:
        page, has_more = await kept.page("acme", before_us, 3)
        pages.append(page)
        before_us = page[-1].created_us

    assert [len(page) for page in pages] == [3, 3, 1]
    assert [found for page in pages for found in page] == made[::-1]


async def test_a_page_of_much_is_a_short_page(kept):
    size = MAX_PAGE_BYTES // 2 - 1_000
    id_ = await began(kept, "a" * size, "b" * size, "c" * size, "d" * 2 * MAX_PAGE_BYTES)
    pages, after, has_more = [], 0, True

    while has_more:
        page, has_more = await kept.messages("acme", id_, after, 100)
        pages.append([stored.message.parts[0].text[0] for stored in page])
        after = page[-1].sequence

    assert pages == [["a", "b"], ["c"], ["d"]]


WRONG = [
    ("title", "x" * (MAX_TITLE_CHARS + 1), "", ""),
    ("title", "\0", "", ""),
    ("metadata_json", "", "[]", ""),
    ("metadata_json", "", "{", ""),
    ("metadata_json", "", '{"a": NaN}', ""),
    ("metadata_json", "", '{"a": "\0"}', ""),
    ("metadata_json", "", '{"a": ' * 65 + "1" + "}" * 65, ""),
    ("metadata_json", "", '{"a": "' + "é" * (MAX_METADATA_BYTES // 2) + '"}', ""),
    ("idempotency_key", "", "", "x" * 256),
    ("idempotency_key", "", "", "\n"),
]


async def test_what_can_not_be_kept_is_refused_by_name(kept, storage):
    blamed = []
    for _, title, metadata, key in WRONG:
        with pytest.raises(InvalidRequest) as raised:
            await kept.create("acme", title, metadata, key)
        blamed.append([violation.field for violation in raised.value.violations])

    assert blamed == [[field] for field, *_ in WRONG]
    assert await rows(storage) == (0, 0)


# Limits


async def refused(kept: StoredConversations, id_: str, adds: list[Message]) -> tuple[str, str]:
    """As what, and for which field."""
    with pytest.raises(InvalidRequest) as raised:
        await kept.begin("acme", "", id_, until(), adds)
    return raised.value.reason, raised.value.violations[0].field


async def test_a_conversation_has_room_for_an_answer_or_is_not_gone_on_with(storage, clock):
    kept = kept_in(storage, clock, max_messages=4)
    id_ = await began(kept, "a", "b")

    assert await refused(kept, id_, [said("c"), said("d")]) == (
        "INVALID_REQUEST",
        "spec.conversation_id",
    )
    turn = await kept.begin("acme", "", id_, until(), [said("c")])
    await turn.store(
        [said("c"), said("d"), said("e")], "cmpl_1"
    )  # Nothing that was answered is lost.
    turn.release()
    assert await refused(kept, id_, []) == ("INVALID_REQUEST", "spec.conversation_id")
    assert len(await texts_of(kept, id_)) == 5


async def test_a_conversation_is_of_so_many_bytes(kept):
    half = said("x" * (MAX_CONVERSATION_BYTES // 2 - 100))
    turn = await kept.begin("acme", "", NEW, until(), [half, half])
    await turn.store([half, half], "cmpl_1")
    turn.release()

    assert await refused(kept, turn.conversation_id, [said("x" * 1_000)]) == (
        "PAYLOAD_TOO_LARGE",
        "spec.conversation_id",
    )
    again = await kept.begin("acme", "", turn.conversation_id, until(), [said("x")])
    assert list(again.messages) == [half, half]
    again.release()


async def test_a_message_is_of_so_many_bytes(kept):
    adds = [said("x"), said("x" * MAX_MESSAGE_BYTES)]

    assert await refused(kept, NEW, adds) == ("PAYLOAD_TOO_LARGE", "spec.messages[1]")


async def test_a_user_with_a_nul_is_refused(kept):
    with pytest.raises(InvalidRequest):
        await kept.begin("acme", "a\0", NEW, until())
