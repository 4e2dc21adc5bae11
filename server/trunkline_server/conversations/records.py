"""The rows of conversations, and what may be done with them.

A conversation has a lease: the mark of the turn that is on, which no other turn has. Whoever adds messages shows its
mark, and one that is not there any more adds nothing. So a process that was away for longer than its lease, and comes
back when another turn has begun, changes nothing.

A conversation that was begun for an end user is theirs alone. One that nobody has said anything in becomes theirs with
the first turn.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from trunkline.v1.message_pb2 import Message
from trunkline_server.core.errors import ConversationNotFound, IdempotencyConflict
from trunkline_server.core.transactions import Row, Statement, Transaction, Value

KEY_KEPT_US: Final = 24 * 3600 * 1_000_000  # As long a creation is not repeated under its key.
MAX_PAGE_BYTES: Final = 2 * 1024 * 1024  # Half of what most gRPC clients take.
INSERTED_AT_ONCE: Final = 50
SWEPT_AT_ONCE: Final = 50
ERASED_AT_ONCE: Final = 200
NOBODY: Final = ""  # Owns what is to be erased.


@dataclass(frozen=True, slots=True)
class Conversation:
    """One, without what was said. Times are microseconds since 1970."""

    id: str
    title: str
    metadata_json: str
    message_count: int
    created_us: int
    updated_us: int


@dataclass(frozen=True, slots=True)
class StoredMessage:
    """One message. `sequence` begins at 1 in each conversation."""

    sequence: int
    message: Message
    completion_id: str
    created_us: int


@dataclass(frozen=True, slots=True)
class Claim:
    """Who would speak in a conversation. `lease`: the mark of this turn alone."""

    owner: str
    end_user: str
    id: str
    lease: str


@dataclass(frozen=True, slots=True)
class Size:
    """What a conversation holds."""

    messages: int
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Said:
    """What a turn adds: serialised messages, oldest first."""

    messages: Sequence[bytes]
    completion_id: str
    at_us: int


_COLUMNS: Final = "id, title, metadata, messages, created_at, updated_at"


def _conversation(row: Row) -> Conversation:
    return Conversation(*row)


def create(
    owner: str, id_: str, title: str, metadata_json: str, key: str, now_us: int
) -> Transaction[Conversation]:
    """Begin one without a turn; the one that was made under this key, where there is one.

    Raises:
        IdempotencyConflict.
    """
    if key:
        rows = yield Statement(
            f"SELECT {_COLUMNS} FROM conversations WHERE owner = $1 AND creation_key = $2",
            (owner, key),
        )
        if rows:
            made = _conversation(rows[0])
            if made.created_us > now_us - KEY_KEPT_US:
                if (made.title, made.metadata_json) != (title, metadata_json):
                    raise IdempotencyConflict
                return made
            yield Statement(
                "UPDATE conversations SET creation_key = NULL WHERE id = $1", (made.id,)
            )
    at_us = yield from _instant(owner, now_us)
    yield Statement(
        "INSERT INTO conversations (id, owner, end_user, title, metadata, creation_key, created_at, updated_at)"
        " VALUES ($1, $2, '', $3, $4, $5, $6, $6)",
        (id_, owner, title, metadata_json, key or None, at_us),
    )
    return Conversation(id_, title, metadata_json, 0, at_us, at_us)


def begin(claim: Claim, now_us: int, until_us: int) -> Transaction[Size]:
    """A new conversation, with its first turn on."""
    at_us = yield from _instant(claim.owner, now_us)
    yield Statement(
        "INSERT INTO conversations"
        " (id, owner, end_user, title, metadata, created_at, updated_at, lease, leased_until)"
        " VALUES ($1, $2, $3, '', '', $4, $4, $5, $6)",
        (claim.id, claim.owner, claim.end_user, at_us, claim.lease, until_us),
    )
    return Size(0, 0)


def _instant(owner: str, now_us: int) -> Transaction[int]:
    """Now, or a moment later: no two of an owner's begin at once, so that lists can go on from any of them."""
    rows = yield Statement("SELECT MAX(created_at) FROM conversations WHERE owner = $1", (owner,))
    latest_us = rows[0][0]
    return now_us if latest_us is None else max(now_us, latest_us + 1)


def look(claim: Claim) -> Transaction[None]:
    """Is it there for them? Raises: ConversationNotFound."""
    rows = yield Statement(
        "SELECT end_user FROM conversations WHERE id = $1 AND owner = $2", (claim.id, claim.owner)
    )
    if not rows or rows[0][0] not in ("", claim.end_user):
        raise ConversationNotFound


def take(claim: Claim, until_us: int, expired_us: int) -> Transaction[Size | None]:
    """Begin a turn. None: another one is on.

    Args:
        until_us: how long the lease is good for.
        expired_us: leases of others that end by then count no more.

    Raises:
        ConversationNotFound.
    """
    yield from look(claim)
    rows = yield Statement(
        "UPDATE conversations SET lease = $2, leased_until = $3"
        " WHERE id = $1 AND (lease = '' OR lease = $2 OR leased_until <= $4) RETURNING messages, size_bytes",
        (claim.id, claim.lease, until_us, expired_us),
    )
    return Size(*rows[0]) if rows else None


def renew(claims: Sequence[Claim], until_us: int) -> Transaction[None]:
    """Turns go on. One whose lease was lost is left as it is."""
    for claim in claims:
        yield Statement(
            "UPDATE conversations SET leased_until = $3 WHERE id = $1 AND lease = $2",
            (claim.id, claim.lease, until_us),
        )


def give_back(claim: Claim, *, is_new: bool) -> Transaction[None]:
    """A turn is over that added nothing. A conversation that it began goes with it."""
    if is_new:
        yield Statement(
            "DELETE FROM conversations WHERE id = $1 AND lease = $2 AND messages = 0",
            (claim.id, claim.lease),
        )
    yield Statement(
        "UPDATE conversations SET lease = '', leased_until = 0 WHERE id = $1 AND lease = $2",
        (claim.id, claim.lease),
    )


def append(claim: Claim, said: Said) -> Transaction[bool]:
    """End a turn with what was said in it. False: its lease was lost. Once is as good as twice.

    Raises:
        ConversationNotFound: it was deleted.
    """
    rows = yield Statement(
        "SELECT lease, messages FROM conversations WHERE id = $1 AND owner = $2",
        (claim.id, claim.owner),
    )
    if not rows:
        raise ConversationNotFound
    lease, count = rows[0]
    if lease != claim.lease:
        found = yield Statement(
            "SELECT 1 FROM conversation_messages WHERE conversation = $1 AND completion_id = $2 LIMIT 1",
            (claim.id, said.completion_id),
        )
        return bool(found)
    added = [
        (claim.id, count + n, message, said.completion_id, said.at_us)
        for n, message in enumerate(said.messages, start=1)
    ]
    yield from _insert(added)
    yield Statement(
        "UPDATE conversations SET messages = messages + $2, size_bytes = size_bytes + $3, updated_at = $4,"
        " lease = '', leased_until = 0,"
        " end_user = CASE WHEN messages = 0 AND end_user = '' THEN $5 ELSE end_user END WHERE id = $1",
        (claim.id, len(added), sum(map(len, said.messages)), said.at_us, claim.end_user),
    )
    return True


def _insert(rows: Sequence[tuple[Value, ...]]) -> Transaction[None]:
    """Many at a time, in statements of two lengths, which databases prepare once."""
    start = 0
    while start < len(rows):
        some = rows[start : start + INSERTED_AT_ONCE]
        if len(some) < INSERTED_AT_ONCE:
            some = some[:1]
        start += len(some)
        marks = ", ".join(
            f"({', '.join(f'${5 * n + k}' for k in range(1, 6))})" for n in range(len(some))
        )
        yield Statement(
            "INSERT INTO conversation_messages (conversation, sequence, message, completion_id, created_at)"
            f" VALUES {marks}",
            tuple(value for row in some for value in row),
        )


def history(id_: str) -> Transaction[list[Message]]:
    """All that was said, oldest first."""
    rows = yield Statement(
        "SELECT message FROM conversation_messages WHERE conversation = $1 ORDER BY sequence",
        (id_,),
    )
    return [Message.FromString(bytes(row[0])) for row in rows]


def find(owner: str, id_: str) -> Transaction[Conversation]:
    """One, whoever's of the owner's users it is. Raises: ConversationNotFound."""
    rows = yield Statement(
        f"SELECT {_COLUMNS} FROM conversations WHERE id = $1 AND owner = $2", (id_, owner)
    )
    if not rows:
        raise ConversationNotFound
    return _conversation(rows[0])


def page(owner: str, before_us: int, count: int) -> Transaction[tuple[list[Conversation], bool]]:
    """Those begun before that, newest first, and whether there are more. At most `MAX_PAGE_BYTES`, or one."""
    rows = yield Statement(
        f"SELECT {_COLUMNS} FROM conversations WHERE owner = $1 AND created_at < $2"
        " ORDER BY created_at DESC LIMIT $3",
        (owner, before_us, count + 1),
    )
    sizes = [len(row[1].encode()) + len(row[2].encode()) for row in rows]
    kept = _fitting(sizes, count)
    return [_conversation(row) for row in rows[:kept]], kept < len(rows)


def messages(
    owner: str, id_: str, after: int, count: int
) -> Transaction[tuple[list[StoredMessage], bool]]:
    """Those that come after, oldest first, and whether there are more. At most `MAX_PAGE_BYTES`, or one.

    Raises:
        ConversationNotFound.
    """
    yield from find(owner, id_)
    rows = yield Statement(
        "SELECT sequence, message, completion_id, created_at FROM conversation_messages"
        " WHERE conversation = $1 AND sequence > $2 ORDER BY sequence LIMIT $3",
        (id_, after, count + 1),
    )
    kept = _fitting([len(row[1]) for row in rows], count)
    found = [
        StoredMessage(sequence, Message.FromString(bytes(message)), completion_id, at_us)
        for sequence, message, completion_id, at_us in rows[:kept]
    ]
    return found, kept < len(rows)


def _fitting(sizes_bytes: Sequence[int], count: int) -> int:
    """How many are a page."""
    total_bytes = 0
    for n, size_bytes in enumerate(sizes_bytes[:count]):
        total_bytes += size_bytes
        if n and total_bytes > MAX_PAGE_BYTES:
            return n
    return min(len(sizes_bytes), count)


def hide(owner: str, id_: str) -> Transaction[None]:
    """From now on it is nobody's, and only to be erased. A turn that is on finds nothing to add to.

    Raises:
        ConversationNotFound.
    """
    yield from find(owner, id_)
    yield from _hide(id_)


def hide_aged(id_: str, before_us: int, now_us: int) -> Transaction[None]:
    """The same for one that is still as `aged` says."""
    rows = yield Statement(
        "SELECT 1 FROM conversations WHERE id = $1 AND updated_at < $2 AND leased_until <= $3",
        (id_, before_us, now_us),
    )
    if rows:
        yield from _hide(id_)


def _hide(id_: str) -> Transaction[None]:
    yield Statement(
        "UPDATE conversations SET owner = $2, end_user = '', title = '', metadata = '', creation_key = NULL"
        " WHERE id = $1",
        (id_, NOBODY),
    )


def erase(id_: str) -> Transaction[bool]:
    """Delete some messages of one that is hidden, and itself with the last of them. Is there more to do?

    In steps, because SQLite overwrites what it deletes, and does so where the event loop runs.
    """
    rows = yield Statement(
        "DELETE FROM conversation_messages WHERE conversation = $1 AND sequence IN"
        " (SELECT sequence FROM conversation_messages WHERE conversation = $1 ORDER BY sequence LIMIT $2)"
        " RETURNING sequence",
        (id_, ERASED_AT_ONCE),
    )
    if len(rows) == ERASED_AT_ONCE:
        return True
    yield Statement("DELETE FROM conversations WHERE id = $1 AND owner = $2", (id_, NOBODY))
    return False


def hidden() -> Transaction[list[str]]:
    """Some that are still to be erased."""
    rows = yield Statement(
        "SELECT id FROM conversations WHERE owner = $1 LIMIT $2", (NOBODY, SWEPT_AT_ONCE)
    )
    return [row[0] for row in rows]


def aged(before_us: int, now_us: int) -> Transaction[list[str]]:
    """Some in which nothing was said since, and no turn is on: the oldest first."""
    rows = yield Statement(
        "SELECT id FROM conversations WHERE updated_at < $1 AND leased_until <= $2 AND owner <> $3"
        " ORDER BY updated_at LIMIT $4",
        (before_us, now_us, NOBODY, SWEPT_AT_ONCE),
    )
    return [row[0] for row in rows]
