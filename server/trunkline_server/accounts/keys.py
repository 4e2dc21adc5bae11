"""Keys that are kept in the database: made, rotated, revoked, and never shown again.

A key reads `gw_<environment>_<id>_<secret>_<check>`, the last three in base 62. The id is public and finds the row;
the secret has 256 bits, so what is kept is a keyed hash (HMAC-SHA256 with a pepper that is not in the database), of all
that comes before the check: nothing in a key can be another and the key still be good. The check is a CRC-32 of the
same, so that a key that was mistyped, and noise, never reach the database, and scanners for leaked secrets know a real
one.
"""

import hmac
import re
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Final

from trunkline_server.accounts.audit import AuditRecord, append
from trunkline_server.core.errors import InvalidRequest, NotFound
from trunkline_server.core.plans import Scope
from trunkline_server.core.transactions import Row, Statement, Transaction

ALPHABET: Final = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
ID_CHARS: Final = 12
SECRET_CHARS: Final = 43
CHECK_CHARS: Final = 6
MAX_OVERLAP_US: Final = 24 * 3600 * 1_000_000
MAX_KEYS: Final = 10_000  # Of one organisation, revoked ones included.
TOKEN: Final = re.compile(
    r"gw_([a-z0-9]{1,16})_([0-9A-Za-z]{12})_([0-9A-Za-z]{43})_([0-9A-Za-z]{6})\Z"
)
NO_HASH: Final = bytes(sha256().digest_size)  # Of no key.
MAX_TOUCHED: Final = 1_000  # In one transaction.


@dataclass(frozen=True, slots=True)
class Key:
    """One key, without its secret. Times are microseconds since 1970."""

    id: str
    organization: str
    project: str
    name: str
    plan: str
    scopes: frozenset[Scope]
    secret_hash: bytes
    former_hash: bytes | None
    former_until_us: int | None
    created_us: int
    expires_us: int | None
    revoked_us: int | None
    last_used_us: int | None

    def is_alive(self, now_us: int) -> bool:
        """May it be used?"""
        return self.revoked_us is None and (self.expires_us is None or now_us < self.expires_us)

    def is_rotating(self, now_us: int) -> bool:
        """Does the secret before still count?"""
        return self.former_until_us is not None and now_us < self.former_until_us

    def accepts(self, digest: bytes, now_us: int) -> bool:
        """Is this its keyed hash, or the one of before, while that still counts? The same work whatever comes of it."""
        is_current = self.is_current(digest)
        former = self.former_hash or NO_HASH
        is_former = hmac.compare_digest(former, digest)
        return is_current or (is_former and self.is_rotating(now_us))

    def is_current(self, digest: bytes) -> bool:
        """Is this the keyed hash of its latest secret?"""
        return hmac.compare_digest(self.secret_hash, digest)


# To compare with where there is no key, so that it takes as long.
NOBODY: Final = Key("", "", "", "", "", frozenset(), NO_HASH, None, None, 0, None, 0, None)


@dataclass(frozen=True, slots=True)
class Token:
    """A key as its holder has it."""

    environment: str
    id: str
    secret: str

    @property
    def head(self) -> str:
        """All that comes before the check."""
        return f"gw_{self.environment}_{self.id}_{self.secret}"

    def __str__(self) -> str:
        return f"{self.head}_{_check(self.head)}"

    def __repr__(self) -> str:
        return f"Token({self.id})"


def mint(environment: str, random: Callable[[int], int], id_: str = "") -> Token:
    """A new key, or a new secret for one.

    Args:
        random: a number below its argument, unguessable.
    """

    def letters(count: int) -> str:
        return "".join(ALPHABET[random(len(ALPHABET))] for _ in range(count))

    return Token(environment, id_ or letters(ID_CHARS), letters(SECRET_CHARS))


def read_token(text: str) -> Token | None:
    """None where it can't be a key of ours, whoever made it."""
    match = TOKEN.match(text)
    if match is None:
        return None
    head, _, check = text.rpartition("_")
    if check != _check(head):
        return None
    return Token(match[1], match[2], match[3])


def secret_hash(pepper: bytes, token: Token) -> bytes:
    """What is kept of a key."""
    return hmac.digest(pepper, token.head.encode(), sha256)


def _check(head: str) -> str:
    value = zlib.crc32(head.encode())
    digits = ""
    for _ in range(CHECK_CHARS):
        value, digit = divmod(value, len(ALPHABET))
        digits = ALPHABET[digit] + digits
    return digits


_COLUMNS: Final = (
    "id, organization, project, name, plan, scopes, secret_hash, former_hash, former_until, created_at, expires_at,"
    " revoked_at, last_used_at"
)
_BUMP: Final = Statement("UPDATE generations SET value = value + 1 WHERE name = 'keys'")


def _key(row: Row) -> Key:
    id_, organization, project, name, plan, scopes, secret, former, *times = row
    former_until, created, expires, revoked, last_used = times
    return Key(
        id_,
        organization,
        project,
        name,
        plan,
        frozenset(Scope(word) for word in scopes.split(" ") if word),
        bytes(secret),
        None if former is None else bytes(former),
        former_until,
        created,
        expires,
        revoked,
        last_used,
    )


def generation() -> Transaction[int]:
    """Counts the changes of keys: what was read before the last one may be wrong."""
    rows = yield Statement("SELECT value FROM generations WHERE name = 'keys'")
    return int(rows[0][0])


def find(id_: str) -> Transaction[tuple[int, Key | None]]:
    """A key, and the generation that it was read in."""
    now = yield from generation()
    rows = yield Statement(f"SELECT {_COLUMNS} FROM keys WHERE id = $1", (id_,))
    return now, _key(rows[0]) if rows else None


def create(key: Key, audit: AuditRecord) -> Transaction[Key]:
    """Keep a new key. Raises: InvalidRequest."""
    rows = yield Statement("SELECT COUNT(*) FROM keys WHERE organization = $1", (key.organization,))
    if rows[0][0] >= MAX_KEYS:
        raise InvalidRequest("organization", f"has {MAX_KEYS} keys already")
    yield Statement(
        f"INSERT INTO keys ({_COLUMNS}) VALUES ($1, $2, $3, $4, $5, $6, $7, NULL, NULL, $8, $9, NULL, NULL)",
        (
            key.id,
            key.organization,
            key.project,
            key.name,
            key.plan,
            " ".join(sorted(key.scopes)),
            key.secret_hash,
            key.created_us,
            key.expires_us,
        ),
    )
    yield _BUMP
    yield from append([audit])
    return key


def rotate(
    id_: str, new_hash: bytes, overlap_us: int, now_us: int, audit: AuditRecord
) -> Transaction[Key]:
    """A new secret; the old one counts for `overlap_us` more. Raises: NotFound: or it is revoked or expired."""
    rows = yield Statement(
        "UPDATE keys SET former_hash = secret_hash, former_until = $2, secret_hash = $3"
        " WHERE id = $1 AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > $4)"
        f" RETURNING {_COLUMNS}",
        (id_, now_us + overlap_us, new_hash, now_us),
    )
    if not rows:
        raise NotFound("no key that can be used has this id")
    yield _BUMP
    yield from append([audit])
    return _key(rows[0])


def revoke(id_: str, now_us: int, audit: AuditRecord) -> Transaction[Key]:
    """End a key, for good. One that is revoked already stays as it is. Raises: NotFound."""
    rows = yield Statement(
        f"UPDATE keys SET revoked_at = $2 WHERE id = $1 AND revoked_at IS NULL RETURNING {_COLUMNS}",
        (id_, now_us),
    )
    if rows:
        yield _BUMP
        yield from append([audit])
        return _key(rows[0])
    _, key = yield from find(id_)
    if key is None:
        raise NotFound("no key has this id")
    return key


def page(organization: str, after: str, count: int) -> Transaction[list[Key]]:
    """Keys by id, from the one after `after`; of all organisations where none is named."""
    if organization:
        rows = yield Statement(
            f"SELECT {_COLUMNS} FROM keys WHERE organization = $1 AND id > $2 ORDER BY id LIMIT $3",
            (organization, after, count),
        )
    else:
        rows = yield Statement(
            f"SELECT {_COLUMNS} FROM keys WHERE id > $1 ORDER BY id LIMIT $2", (after, count)
        )
    return [_key(row) for row in rows]


def touch(used: Sequence[tuple[str, int]]) -> Transaction[None]:
    """Note when keys were last used, by id: no change that anyone has to hear of. Another process may know better."""
    for id_, at_us in used:
        yield Statement(
            "UPDATE keys SET last_used_at = $2 WHERE id = $1"
            " AND (last_used_at IS NULL OR last_used_at < $2)",
            (id_, at_us),
        )
