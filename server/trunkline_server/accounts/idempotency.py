"""Idempotency keys: the same key and request is answered once, however often it is sent.

A key is claimed in the transaction that holds the credits, and ends in the one that settles them. While its request
runs, others with it are told to wait. An answer is kept for a day and replayed; a request that failed may be run again
under its key. So may one whose process is gone: a recovery, which knows nothing of keys, ends the request, and a key
runs for no longer than its request is open.
"""

from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from trunkline_server.core.errors import IdempotencyConflict, RequestInProgress
from trunkline_server.core.transactions import Statement, Transaction

KEPT_US: Final = 24 * 3600 * 1_000_000
MAX_RESPONSE_BYTES: Final = 1024 * 1024  # A larger answer is not kept: its key may be run again.
SWEEP: Final = 1_000
OPEN: Final = 0  # A request that has not ended: `ledger.State`.


class KeyState(IntEnum):
    """Of a key."""

    RUNNING = 0
    ANSWERED = 1
    FAILED = 2


@dataclass(frozen=True, slots=True)
class Claim:
    """A key, as a request brings it. `fingerprint` is the hash of the method and the canonical request."""

    key: str
    fingerprint: bytes
    expires_us: int


@dataclass(frozen=True, slots=True)
class Replay:
    """The answer that a key has: a serialised `Completion`."""

    response: bytes


_FIND: Final = (
    "SELECT k.fingerprint, k.state, k.response, k.expires_at, r.state FROM idempotency k"
    " LEFT JOIN requests r ON r.id = k.id WHERE k.organization = $1 AND k.key = $2"
)
_CLAIM: Final = (
    "INSERT INTO idempotency (organization, key, fingerprint, state, id, expires_at)"
    " VALUES ($1, $2, $3, 0, $4, $5) ON CONFLICT (organization, key) DO UPDATE"
    " SET fingerprint = $3, state = 0, id = $4, response = NULL, expires_at = $5"
    " WHERE idempotency.state = 2 OR idempotency.expires_at <= $6 OR (idempotency.state = 0 AND NOT EXISTS"
    " (SELECT 1 FROM requests r WHERE r.id = idempotency.id AND r.state = 0)) RETURNING id"
)
_END: Final = (
    "UPDATE idempotency SET state = $4, response = $5, expires_at = $6"
    " WHERE organization = $1 AND key = $2 AND id = $3"
)


def seen_before(claim: Claim, organization: str, now_us: int) -> Transaction[Replay | None]:
    """The answer that the key has; None where it is free.

    Raises:
        IdempotencyConflict, RequestInProgress.
    """
    rows = yield Statement(_FIND, (organization, claim.key))
    if not rows or rows[0][3] <= now_us:
        return None
    fingerprint, state, response, _, request_state = rows[0]
    if bytes(fingerprint) != claim.fingerprint:
        raise IdempotencyConflict
    if state == KeyState.RUNNING and request_state == OPEN:
        raise RequestInProgress
    return Replay(bytes(response)) if state == KeyState.ANSWERED else None


def claim_key(claim: Claim, organization: str, id_: str) -> Transaction[None]:
    """Take a free key. Raises: RequestInProgress, after writes: another process took it in between."""
    now_us = claim.expires_us - KEPT_US
    rows = yield Statement(
        _CLAIM, (organization, claim.key, claim.fingerprint, id_, claim.expires_us, now_us)
    )
    if not rows:
        raise RequestInProgress


def end_key(
    organization: str, key: str, id_: str, response: bytes | None, now_us: int
) -> Transaction[None]:
    """Keep the answer, or let the key be run again where there is none."""
    state = KeyState.FAILED if response is None else KeyState.ANSWERED
    yield Statement(_END, (organization, key, id_, state, response, now_us + KEPT_US))


def sweep_keys(now_us: int) -> Transaction[int]:
    """Forget keys whose day has passed, some at a time. Returns how many."""
    rows = yield Statement(
        "DELETE FROM idempotency WHERE (organization, key) IN (SELECT organization, key FROM idempotency"
        " WHERE expires_at <= $1 LIMIT $2) RETURNING key",
        (now_us, SWEEP),
    )
    return len(rows)
