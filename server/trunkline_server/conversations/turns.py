"""Conversations in a database: the port of `core.conversations`, and what callers see of them.

Turns of one conversation are serialised twice. In this process they stand in a line, in the order of arrival; between
processes whoever speaks holds the lease in the row, and renews it while the turn goes on. A process that is killed
holds up the next turn until its lease has run out, and no longer. Where no other process can use the database (SQLite),
the line alone decides, and a lease that was left behind counts for nothing.
"""

import asyncio
import json
import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Final

import structlog

from trunkline.v1.message_pb2 import Message
from trunkline_server.conversations import records
from trunkline_server.conversations.lines import Lines, Place
from trunkline_server.conversations.records import Claim, Conversation, Said, Size, StoredMessage
from trunkline_server.core.conversations import NEW
from trunkline_server.core.errors import (
    ConcurrencyExhausted,
    ConversationNotFound,
    DeadlineExceeded,
    InvalidRequest,
    PayloadTooLarge,
    StorageUnavailable,
    TrunklineError,
)
from trunkline_server.core.transactions import Storage
from trunkline_server.core.validation import (
    MAX_IDEMPOTENCY_KEY_CHARS,
    MAX_JSON_DEPTH,
    MAX_METADATA_BYTES,
    json_depth_is_bounded,
)

PREFIX: Final = "conv_"
ID: Final = re.compile(rf"{PREFIX}[0-9A-HJKMNP-TV-Z]{{26}}\Z")
MAX_TITLE_CHARS: Final = 256
MAX_WAITING: Final = 16  # Turns of one conversation that wait in this process.
MAX_MESSAGE_BYTES: Final = 8 * 1024 * 1024
MAX_CONVERSATION_BYTES: Final = 16 * 1024 * 1024
READS: Final = 5
SHORT_MESSAGES: Final = 64  # So many are read with what is short.
LEASE_S: Final = 20.0
RENEW_S: Final = 5.0
RENEWED_AT_ONCE: Final = 128
FIRST_POLL_S: Final = 0.02  # Of a lease that another process holds; doubled each time.
MAX_POLL_S: Final = 0.25
STORE_S: Final = 3.0  # So long what was said is tried to be written.
PAUSE_S: Final = 0.1
SWEEP_S: Final = 60.0
RETRY_AFTER_S: Final = 1.0
MICROS: Final = 1_000_000
DAY_US: Final = 86_400 * MICROS
EVER_US: Final = 2**63 - 1

log: structlog.typing.FilteringBoundLogger = structlog.get_logger()


class HeldTurn:
    """The `Turn` port: one turn of a conversation."""

    def __init__(
        self, conversations: "StoredConversations", claim: Claim, place: Place | None
    ) -> None:
        """Args: place: in the line; None for a conversation that this turn begins: nobody else knows of it."""
        self.claim = claim
        self.messages: Sequence[Message] = ()
        self._conversations = conversations
        self._place = place
        self._is_over = False
        self._is_stored = False

    @property
    def conversation_id(self) -> str:
        """See `Turn`."""
        return self.claim.id

    async def store(self, messages: Sequence[Message], completion_id: str) -> None:
        """See `Turn`."""
        await self._conversations.append(self.claim, messages, completion_id)
        self._is_stored = True

    def release(self) -> None:
        """See `Turn`."""
        if self._is_over:
            return
        self._is_over = True
        is_new = self._place is None
        leave = _nobody if self._place is None else self._place.leave
        if self._is_stored:
            self._conversations.forget(self.claim)
            leave()
        else:
            self._conversations.give_back(self.claim, leave, is_new=is_new)


class StoredConversations:
    """The `Conversations` port over a database. `start` before use, `close` after.

    Args:
        mint_id: makes ULIDs.
        now_us: microseconds since 1970.
        max_messages: of a conversation. A turn that has begun may go past it, and past `MAX_CONVERSATION_BYTES`, by
            what its answer adds.
        keep_days: what nobody has spoken in for so long is deleted; None: nothing is.
        is_alone: no other process uses the database.
        is_lasting: the database was there before this process, and there may be something to delete in it.
    """

    def __init__(
        self,
        storage: Storage,
        *,
        mint_id: Callable[[], str],
        now_us: Callable[[], int],
        max_messages: int,
        keep_days: float | None = None,
        is_alone: bool = False,
        is_lasting: bool = True,
        lease_s: float = LEASE_S,
        renew_s: float = RENEW_S,
        sweep_s: float = SWEEP_S,
    ) -> None:
        self._storage = storage
        self._mint_id = mint_id
        self._now_us = now_us
        self._max_messages = max_messages
        self._keep_us = None if keep_days is None else round(keep_days * DAY_US)
        self._is_alone = is_alone
        self._lease_us = round(lease_s * MICROS)
        self._renew_s = renew_s
        self._sweep_s = sweep_s
        self._lines = Lines()
        self._held: set[Claim] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._keepers: list[asyncio.Task[None]] = []
        self._is_used = asyncio.Event()
        if is_lasting:
            self._is_used.set()

    def start(self) -> None:
        """Begin to renew leases, and to delete what is old."""
        self._keepers = [asyncio.create_task(self._renew()), asyncio.create_task(self._sweep())]

    async def close(self) -> None:
        """Wait for leases that are being given back; the database is still open."""
        for keeper in self._keepers:
            keeper.cancel()
        if self._keepers:
            await asyncio.wait(self._keepers)
        while self._tasks:
            await asyncio.wait(self._tasks)

    # Turns

    async def begin(
        self,
        owner: str,
        end_user: str,
        conversation_id: str,
        until_s: float,
        adds: Sequence[Message] = (),
    ) -> HeldTurn:
        """See `Conversations`."""
        if "\0" in end_user:
            raise InvalidRequest("spec.end_user_id", "holds a NUL")
        added_bytes = _added_bytes(adds)
        is_new = conversation_id == NEW
        if not is_new and not ID.match(conversation_id):
            raise ConversationNotFound
        id_ = f"{PREFIX}{self._mint_id()}" if is_new else conversation_id
        claim = Claim(owner, end_user, id_, self._mint_id())
        # Other owners stand in other lines: not even by waiting do they learn that this one is there.
        place = None if is_new else self._lines.join((owner, id_))
        if place is not None:
            await self._wait(place, claim, until_s)
        turn = HeldTurn(self, claim, place)
        try:
            size = await (self._take(claim, until_s) if place is not None else self._make(claim))
            self._held.add(claim)
            self._is_used.set()
            self._check_room(size, len(adds), added_bytes)
            turn.messages = await self._history(claim, size)
        except BaseException:
            turn.release()  # If it was taken or not: the answer may have been lost.
            raise
        return turn

    async def _wait(self, place: Place, claim: Claim, until_s: float) -> None:
        """Until it is the first in the line. Leaves it when that can't be waited for."""
        if place.is_first:
            return
        try:
            await self._storage.write(partial(records.look, claim))
            if place.ahead > MAX_WAITING:
                raise ConcurrencyExhausted(
                    f"{MAX_WAITING} requests wait for this conversation",
                    retry_after_s=RETRY_AFTER_S,
                )
            async with asyncio.timeout_at(until_s):
                await place.wait()
        except TimeoutError:
            place.leave()
            raise DeadlineExceeded from None
        except BaseException:
            place.leave()
            raise

    async def _make(self, claim: Claim) -> Size:
        now_us = self._now_us()
        make = partial(records.begin, claim, now_us, now_us + self._lease_us)
        return await self._storage.write(make)

    async def _take(self, claim: Claim, until_s: float) -> Size:
        """The lease, as soon as no other process has it."""
        clock = asyncio.get_running_loop().time
        pause_s = FIRST_POLL_S
        while True:
            now_us = self._now_us()
            expired_us = EVER_US if self._is_alone else now_us
            take = partial(records.take, claim, now_us + self._lease_us, expired_us)
            size = await self._storage.write(take)
            if size is not None:
                return size
            left_s = until_s - clock()
            if left_s <= 0:
                raise DeadlineExceeded
            await asyncio.sleep(min(pause_s, left_s))
            pause_s = min(2 * pause_s, MAX_POLL_S)

    def _check_room(self, size: Size, count: int, added_bytes: int) -> None:
        """Raises: InvalidRequest, PayloadTooLarge."""
        if size.messages + count >= self._max_messages:  # The answer needs a place, too.
            raise InvalidRequest(
                "spec.conversation_id",
                f"a conversation has at most {self._max_messages} messages: begin another one",
            )
        if size.size_bytes + added_bytes > MAX_CONVERSATION_BYTES:
            raise PayloadTooLarge(
                "spec.conversation_id",
                f"a conversation has at most {MAX_CONVERSATION_BYTES} bytes: begin another one",
            )

    async def _history(self, claim: Claim, size: Size) -> Sequence[Message]:
        if not size.messages:
            return ()
        for _ in range(READS):
            found = await self._storage.read(
                partial(records.history, claim.id), is_short=size.messages <= SHORT_MESSAGES
            )
            if len(found) == size.messages:
                return found
            # Deleted, or read from a replica that is behind.
            await self._storage.write(partial(records.look, claim))
            await asyncio.sleep(PAUSE_S)
        raise StorageUnavailable(retry_after_s=RETRY_AFTER_S)

    async def append(self, claim: Claim, messages: Sequence[Message], completion_id: str) -> None:
        """End a turn. See `Turn.store`."""
        serialised = [message.SerializeToString() for message in messages]
        said = Said(serialised, completion_id, self._now_us())
        clock = asyncio.get_running_loop().time
        until_s = clock() + STORE_S
        while True:
            try:
                is_ours = await self._storage.write(partial(records.append, claim, said))
                break
            except StorageUnavailable:
                # It may have been written all the same, which the next try finds out.
                if clock() > until_s:
                    raise
            await asyncio.sleep(PAUSE_S)
        if not is_ours:
            log.warning("turn_lost", conversation=claim.id)
            raise StorageUnavailable(retry_after_s=RETRY_AFTER_S)

    def forget(self, claim: Claim) -> None:
        """A turn is over that has given its lease back itself."""
        self._held.discard(claim)

    def give_back(self, claim: Claim, leave: Callable[[], None], *, is_new: bool) -> None:
        """End a turn that has added nothing, in the background. Then somebody else is let in."""
        self._held.discard(claim)

        async def give_back() -> None:
            try:
                with suppress(TrunklineError):  # It runs out by itself.
                    await self._storage.write(partial(records.give_back, claim, is_new=is_new))
            finally:
                leave()

        task = asyncio.create_task(give_back())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # What callers see

    async def create(
        self, owner: str, title: str, metadata_json: str, idempotency_key: str
    ) -> Conversation:
        """Begin one without a turn; the same one again under the same key, for a day.

        Raises:
            InvalidRequest, IdempotencyConflict, StorageUnavailable.
        """
        if len(title) > MAX_TITLE_CHARS or "\0" in title:
            raise InvalidRequest("title", f"at most {MAX_TITLE_CHARS} characters, and no NUL")
        _check_metadata(metadata_json)
        if len(idempotency_key) > MAX_IDEMPOTENCY_KEY_CHARS or not idempotency_key.isprintable():
            raise InvalidRequest(
                "idempotency_key", f"at most {MAX_IDEMPOTENCY_KEY_CHARS} printable characters"
            )
        id_, now_us = f"{PREFIX}{self._mint_id()}", self._now_us()
        made = await self._storage.write(
            lambda: records.create(owner, id_, title, metadata_json, idempotency_key, now_us)
        )
        self._is_used.set()
        return made

    async def find(self, owner: str, conversation_id: str) -> Conversation:
        """Raises: ConversationNotFound, StorageUnavailable."""
        id_ = _checked(conversation_id)
        return await self._storage.read(lambda: records.find(owner, id_), is_short=True)

    async def page(self, owner: str, before_us: int, count: int) -> tuple[list[Conversation], bool]:
        """Those begun before that, newest first, and whether there are more. Raises: StorageUnavailable."""
        return await self._storage.read(lambda: records.page(owner, before_us, count))

    async def messages(
        self, owner: str, conversation_id: str, after: int, count: int
    ) -> tuple[list[StoredMessage], bool]:
        """Those after this number, oldest first, and whether there are more.

        Raises:
            ConversationNotFound, StorageUnavailable.
        """
        id_ = _checked(conversation_id)
        return await self._storage.read(lambda: records.messages(owner, id_, after, count))

    async def delete(self, owner: str, conversation_id: str) -> None:
        """All of it, to the last row. At once it is there for nobody, and a turn that is on can't be stored any more.

        Raises:
            ConversationNotFound, StorageUnavailable: after which the rest may be deleted in the background.
        """
        id_ = _checked(conversation_id)
        await self._storage.write(lambda: records.hide(owner, id_))
        await self._erase(id_)

    async def _erase(self, id_: str) -> None:
        has_more = True
        while has_more:
            has_more = await self._storage.write(lambda: records.erase(id_))

    # In the background

    async def _renew(self) -> None:
        while True:
            await asyncio.sleep(self._renew_s)
            claims = list(self._held)
            for start in range(0, len(claims), RENEWED_AT_ONCE):
                some = claims[start : start + RENEWED_AT_ONCE]
                until_us = self._now_us() + self._lease_us
                with suppress(StorageUnavailable):
                    await self._storage.write(partial(records.renew, some, until_us))

    async def _sweep(self) -> None:
        await self._is_used.wait()
        while True:
            has_more = False
            with suppress(StorageUnavailable):
                has_more = await self._sweep_some()
            await asyncio.sleep(PAUSE_S if has_more else self._sweep_s)

    async def _sweep_some(self) -> bool:
        """Delete some of what is old, and what a process that was killed had only hidden. Is there more?"""
        found: list[str] = []
        if self._keep_us is not None:
            now_us = self._now_us()
            before_us = now_us - self._keep_us
            found = await self._storage.read(lambda: records.aged(before_us, now_us))
            for id_ in found:
                await self._storage.write(partial(records.hide_aged, id_, before_us, now_us))
        for id_ in await self._storage.read(records.hidden):
            await self._erase(id_)
        return len(found) == records.SWEPT_AT_ONCE


def _nobody() -> None:
    """Nobody waits for a conversation that is only beginning."""


def _checked(conversation_id: str) -> str:
    if not ID.match(conversation_id):
        raise ConversationNotFound
    return conversation_id


def _added_bytes(messages: Sequence[Message]) -> int:
    """Raises: PayloadTooLarge."""
    sizes = [message.ByteSize() for message in messages]
    for i, size_bytes in enumerate(sizes):
        if size_bytes > MAX_MESSAGE_BYTES:
            raise PayloadTooLarge(
                f"spec.messages[{i}]",
                f"a conversation keeps at most {MAX_MESSAGE_BYTES} bytes of one",
            )
    return sum(sizes)


def _check_metadata(text: str) -> None:
    """As of `spec.metadata_json`; may be empty. Raises: InvalidRequest."""
    if not text:
        return
    if len(text.encode()) > MAX_METADATA_BYTES:
        raise InvalidRequest("metadata_json", f"at most {MAX_METADATA_BYTES} bytes")
    if not json_depth_is_bounded(text):
        raise InvalidRequest("metadata_json", f"nests deeper than {MAX_JSON_DEPTH} levels")
    try:
        is_object = isinstance(json.loads(text, parse_constant=_refuse), dict)
    except (ValueError, RecursionError):
        is_object = False
    if not is_object:
        raise InvalidRequest("metadata_json", "must be a JSON object")


def _refuse(name: str) -> None:
    raise ValueError(f"{name} is no JSON")
