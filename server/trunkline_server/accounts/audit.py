"""The audit log: who did what, in a chain that shows when somebody changed it.

An entry is written in the transaction of the change that it records, so there is neither without the other. Each holds
the hash of the one before it:

    hash = SHA-256("trunkline-audit-v1" NUL | sequence, 64 bits, big-endian | hash before | entry)

The first follows 32 zero bytes. The entry is a JSON array, encoded as RFC 8785 says (no blanks; of all characters only
the quote, the backslash and those below U+0020 are escaped): `at` as a number, then `action`, `actor`, `organization`,
`entity_type`, `entity_id`, `request_id` and `details` as strings, then the commitment in hex or null. Nine values of
known types in a known order, so two different entries never have one encoding.

Content stays out of it. What may have to be forgotten, such as a caller's metadata, lies beside the chain, which has
only a salted commitment to it: without the salt it can't be guessed from the hash, so erasing row and salt erases it.

    commitment = SHA-256("trunkline-private-v1" NUL | length of the salt, one byte | salt | content as UTF-8)

`audit_checkpoints` signs the head of the chain, `audit_verify` checks all of it.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Final

import msgspec

from trunkline_server.core.errors import InvalidRequest, NotFound
from trunkline_server.core.transactions import Row, Statement, Transaction, Value

MAX_FIELD_CHARS: Final = 256  # Action, actor, organisation, entity, request: names, all of them.
MAX_DETAILS_BYTES: Final = 16 * 1024
MAX_PRIVATE_BYTES: Final = 64 * 1024
MIN_SALT_BYTES: Final = 16
MAX_SALT_BYTES: Final = 64
MAX_AT_US: Final = (
    2**53 - 1
)  # What every reader of JSON can tell from its neighbours; the year 2255.
MAX_RECORDS: Final = 1_000  # In one call.
MAX_ROWS: Final = 256  # In one statement; both databases allow 32,767 parameters.
DEFAULT_PAGE: Final = 50
MAX_PAGE: Final = 200
MAX_PAGE_CHARS: Final = (
    2 * 1024 * 1024
)  # A page ends early at that, because gRPC clients take 4 MiB at most.
MAX_SEQUENCE: Final = 2**63 - 1

GENESIS: Final = bytes(32)
ERASED: Final = "audit.erased"  # Of the entry whose sequence is `entity_id`.
ENTITY: Final = "audit_entry"

_CHAIN: Final = hashlib.sha256(b"trunkline-audit-v1\0")  # To be copied: cheaper than a new one.
_PRIVATE: Final = b"trunkline-private-v1\0"
_sha256: Final = hashlib.sha256
_encode: Final = msgspec.json.Encoder().encode
_encode_sorted: Final = msgspec.json.Encoder(order="sorted").encode

COLUMNS: Final = (
    "sequence, at, action, actor, organization, entity_type, entity_id, request_id, details, commitment, "
    "previous_hash, hash"
)
# The first to come finds no head and makes it; everyone else adds to it, and holds it until the end.
_TAKE: Final = (
    "INSERT INTO audit_head (id, sequence, hash) VALUES (1, $1, $2) "
    "ON CONFLICT (id) DO UPDATE SET sequence = audit_head.sequence + $1 RETURNING sequence, hash"
)
_ADVANCE: Final = "UPDATE audit_head SET hash = $1 WHERE id = 1"


@dataclass(frozen=True, slots=True)
class AuditRecord:
    """Something that happened.

    Attributes:
        action: such as `key.created` or `completion.settled`.
        actor: the id of the key that did it, or the name of the part of the server.
        details: canonical JSON (`canonical_json`), without content and secrets: it stays for ever.
        private: what may be erased one day; empty: nothing.
        salt: of 16 bytes or more, random, for this record alone; only with `private`.

    Raises:
        ValueError: over a limit, or not text that both databases can hold.
    """

    at_us: int
    action: str
    actor: str
    organization: str
    entity_type: str
    entity_id: str
    request_id: str = ""
    details: str = "{}"
    private: str = field(default="", repr=False)
    salt: bytes = field(default=b"", repr=False)

    def __post_init__(self) -> None:
        names = (
            self.action,
            self.actor,
            self.organization,
            self.entity_type,
            self.entity_id,
            self.request_id,
        )
        joined = "".join(names)
        if not 0 <= self.at_us <= MAX_AT_US:
            raise ValueError("audit: the time is out of range")
        if len(joined) > MAX_FIELD_CHARS and max(map(len, names)) > MAX_FIELD_CHARS:
            raise ValueError(f"audit: a name has more than {MAX_FIELD_CHARS} characters")
        if not _is_storable(joined, MAX_FIELD_CHARS * len(names) * 4):
            raise ValueError("audit: a name is no text")
        if not _is_storable(self.details, MAX_DETAILS_BYTES):
            raise ValueError(f"audit: the details are no text of {MAX_DETAILS_BYTES} bytes")
        if self.private:
            if not _is_storable(self.private, MAX_PRIVATE_BYTES):
                raise ValueError(f"audit: the private part is no text of {MAX_PRIVATE_BYTES} bytes")
            if not MIN_SALT_BYTES <= len(self.salt) <= MAX_SALT_BYTES:
                raise ValueError("audit: the private part needs a salt of 16 to 64 bytes")


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """A record in its place in the log. `private` is None where there was none, or it is erased."""

    sequence: int
    at_us: int
    action: str
    actor: str
    organization: str
    entity_type: str
    entity_id: str
    request_id: str
    details: str
    is_erased: bool
    previous_hash: bytes
    hash: bytes
    private: str | None = field(repr=False)


@dataclass(frozen=True, slots=True)
class AuditPage:
    """Entries, newest first. `next_page_token` is empty on the last page."""

    entries: tuple[AuditEntry, ...]
    next_page_token: str


def canonical_json(value: Any) -> str:
    """JSON with sorted keys and no blanks."""
    return _encode_sorted(value).decode()


def commitment_of(salt: bytes, content: str) -> bytes:
    """What the chain knows of a private content."""
    return _sha256(_PRIVATE + len(salt).to_bytes(1, "big") + salt + content.encode()).digest()


def entry_hash(
    sequence: int,
    previous: bytes,
    at_us: int,
    texts: tuple[str, str, str, str, str, str, str],
    commitment: bytes | None,
) -> bytes:
    """The link of one entry. `texts` are its columns from action to details.

    Raises:
        TypeError, AttributeError, OverflowError, UnicodeEncodeError: no such values were ever appended.
    """
    "".join(texts)  # Bytes, which the encoder would take for their base64, are a TypeError here.
    entry = (at_us, *texts, None if commitment is None else commitment.hex())
    link = _CHAIN.copy()
    link.update(sequence.to_bytes(8, "big"))
    link.update(previous)
    link.update(_encode(entry))
    return link.digest()


def append(records: Sequence[AuditRecord]) -> Transaction[int]:
    """Write records, in order: a part of the transaction that does what they record. The last one's sequence.

    To be the last thing in its transaction that waits for a lock: the head of the chain is the one row that all of them
    need, and whoever holds it and then waits for another row makes everyone wait.
    """
    if not 1 <= len(records) <= MAX_RECORDS:
        raise ValueError(f"audit: between 1 and {MAX_RECORDS} records at a time")
    [[last, previous]] = yield Statement(_TAKE, (len(records), GENESIS))
    entries: list[tuple[Value, ...]] = []
    contents: list[tuple[Value, ...]] = []
    for sequence, record in enumerate(records, last - len(records) + 1):
        texts = (
            record.action,
            record.actor,
            record.organization,
            record.entity_type,
            record.entity_id,
            record.request_id,
            record.details,
        )
        commitment = None
        if record.private:
            commitment = commitment_of(record.salt, record.private)
            contents.append((sequence, record.salt, record.private))
        digest = entry_hash(sequence, previous, record.at_us, texts, commitment)
        entries.append((sequence, record.at_us, *texts, commitment, previous, digest))
        previous = digest
    yield from _insert(f"audit ({COLUMNS})", entries)
    yield from _insert("audit_private (sequence, salt, content)", contents)
    yield Statement(_ADVANCE, (previous,))
    return int(last)


def erase(
    sequence: int, *, at_us: int, actor: str, request_id: str = "", organization: str | None = None
) -> Transaction[bool]:
    """Forget the private content of an entry, and record that. False: there was none, or no more.

    Args:
        organization: whose entry it has to be; None: anyone's.

    Raises:
        NotFound: no such entry.
    """
    found = yield Statement("SELECT organization FROM audit WHERE sequence = $1", (sequence,))
    if not found or organization not in (None, found[0][0]):
        raise NotFound("no such audit entry")
    gone = yield Statement(
        "DELETE FROM audit_private WHERE sequence = $1 RETURNING sequence", (sequence,)
    )
    if not gone:
        return False
    record = AuditRecord(at_us, ERASED, actor, found[0][0], ENTITY, str(sequence), request_id)
    yield from append([record])
    return True


def page(
    organization: str | None, *, page_size: int = 0, page_token: str = ""
) -> Transaction[AuditPage]:
    """What happened to an organisation, newest first; of all of them for None.

    A page has at most `MAX_PAGE` entries and may have fewer than were asked for.

    Raises:
        InvalidRequest: the token, or a negative size.
    """
    before = _before(page_token)
    if page_size < 0:
        raise InvalidRequest("page_size", "must not be negative")
    size = min(page_size or DEFAULT_PAGE, MAX_PAGE)
    where = "a.sequence < $1"
    values: tuple[Value, ...] = (before, size + 1)
    if organization is not None:
        where, values = f"a.organization = $3 AND {where}", (*values, organization)
    rows = yield Statement(
        "SELECT a.sequence, a.at, a.action, a.actor, a.organization, a.entity_type, a.entity_id, a.request_id, "
        "a.details, a.commitment, a.previous_hash, a.hash, p.content "
        "FROM audit a LEFT JOIN audit_private p ON p.sequence = a.sequence "
        f"WHERE {where} ORDER BY a.sequence DESC LIMIT $2",
        values,
    )
    entries: list[AuditEntry] = []
    chars = 0
    for row in rows[:size]:
        entry = _entry(row)
        chars += len(entry.details) + len(entry.private or "")
        if entries and chars > MAX_PAGE_CHARS:
            break
        entries.append(entry)
    token = str(entries[-1].sequence) if len(entries) < len(rows) else ""
    return AuditPage(tuple(entries), token)


def _entry(row: Row) -> AuditEntry:
    return AuditEntry(
        sequence=row[0],
        at_us=row[1],
        action=row[2],
        actor=row[3],
        organization=row[4],
        entity_type=row[5],
        entity_id=row[6],
        request_id=row[7],
        details=row[8],
        is_erased=row[9] is not None and row[12] is None,
        previous_hash=row[10],
        hash=row[11],
        private=row[12],
    )


def _before(token: str) -> int:
    if not token:
        return MAX_SEQUENCE
    if not token.isascii() or not token.isdigit() or len(token) > 18:
        raise InvalidRequest("page_token", "is none of ours")
    return int(token)


def _insert(table: str, rows: Sequence[tuple[Value, ...]]) -> Transaction[None]:
    """In statements of 256 rows, 128, 64 and so on, so that there are few to prepare."""
    start = 0
    while start < len(rows):
        count = min(MAX_ROWS, 1 << ((len(rows) - start).bit_length() - 1))
        batch = rows[start : start + count]
        yield Statement(
            _insert_sql(table, count, len(rows[0])), tuple(value for row in batch for value in row)
        )
        start += count


@lru_cache(maxsize=32)
def _insert_sql(table: str, rows: int, width: int) -> str:
    places = (
        "(" + ", ".join(f"${row * width + place + 1}" for place in range(width)) + ")"
        for row in range(rows)
    )
    return f"INSERT INTO {table} VALUES {', '.join(places)}"


def _is_storable(text: str, max_bytes: int) -> bool:
    """PostgreSQL holds no NUL; UTF-8 has no lone surrogates."""
    if "\0" in text:
        return False
    if text.isascii():
        return len(text) <= max_bytes
    try:
        return len(text.encode()) <= max_bytes
    except UnicodeEncodeError:
        return False
