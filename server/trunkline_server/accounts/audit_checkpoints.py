"""Checkpoints: what the head of the audit log was at some time, signed with a key that the database has not.

Whoever can write to the database can write all of the log anew, with hashes that fit. What he can't do is to sign it.
So every so often the head is signed, and every signed head is kept twice: beside the log, and as a line of a file that
is only ever appended to, on another disk or machine if the operator wants to know of those who own this one. The file
also knows how long the log was, so that it can't be cut short.

What is not yet under a checkpoint, at most a minute or 1,000 entries of a server that runs, has only its hashes.

The signature, Ed25519, is over `trunkline-audit-checkpoint-v1`, NUL, and the JSON array of origin, sequence, hash in
hex, time in microseconds and the key's id, encoded like an entry (see `audit`). The origin names the log, so that a
checkpoint of another one, signed with the same key, is no checkpoint of this one.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from trunkline_server.core.transactions import Row, Statement, Transaction

EVERY_S: Final = 60.0
EVERY_ENTRIES: Final = 1_000
DEFAULT_ORIGIN: Final = "trunkline"
MAX_ORIGIN_CHARS: Final = 256
MAX_EXPORTED: Final = 1_000  # Checkpoints in one call: the rest follows with the next.

_SIGNED: Final = b"trunkline-audit-checkpoint-v1\0"
_COLUMNS: Final = "sequence, at, hash, key_id, signature"
_encode: Final = msgspec.json.Encoder().encode


class ChainBroken(Exception):
    """The log does not go on from where it was when it was last signed. The text says where, for the operator."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The log had this many entries, and the last of them this hash."""

    sequence: int
    hash: bytes
    at_us: int
    key_id: str
    signature: bytes


class CheckpointVerifier:
    """Public keys that checkpoints of one log may be signed with: today's, and those before it."""

    def __init__(self, keys: Sequence[Ed25519PublicKey], origin: str = DEFAULT_ORIGIN) -> None:
        self.origin = origin
        self._keys = {key_id_of(key): key for key in keys}

    def knows(self, checkpoint: Checkpoint) -> bool:
        """Is it signed with one of these keys, as far as it says?"""
        return checkpoint.key_id in self._keys

    def is_signed(self, checkpoint: Checkpoint) -> bool:
        """Is it signed with one of these keys?"""
        key = self._keys.get(checkpoint.key_id)
        if key is None:
            return False
        try:
            key.verify(checkpoint.signature, _message(self.origin, checkpoint))
        except (InvalidSignature, TypeError, ValueError, AttributeError):
            return False
        return True


class CheckpointSigner:
    """The private key, and the name of the log that it signs for."""

    def __init__(self, key: Ed25519PrivateKey, origin: str = DEFAULT_ORIGIN) -> None:
        if not 1 <= len(origin) <= MAX_ORIGIN_CHARS:
            raise ValueError(f"the origin has 1 to {MAX_ORIGIN_CHARS} characters")
        self._key = key
        self.key_id = key_id_of(key.public_key())
        self.verifier = CheckpointVerifier([key.public_key()], origin)

    def sign(self, sequence: int, digest: bytes, at_us: int) -> Checkpoint:
        """A checkpoint of this head. The same for the same arguments: Ed25519 draws no random numbers."""
        bare = Checkpoint(sequence, digest, at_us, self.key_id, b"")
        signature = self._key.sign(_message(self.verifier.origin, bare))
        return Checkpoint(sequence, digest, at_us, self.key_id, signature)


def is_due(entries: int, elapsed_s: float) -> bool:
    """Is it time for a checkpoint, with so many entries since the last one, so long ago?"""
    return entries >= EVERY_ENTRIES or (entries > 0 and elapsed_s >= EVERY_S)


def key_id_of(key: Ed25519PublicKey) -> str:
    """Sixteen hex digits that name a key."""
    return hashlib.sha256(key.public_bytes(Encoding.Raw, PublicFormat.Raw)).hexdigest()[:16]


def make_checkpoint(
    signer: CheckpointSigner, at_us: int, known: Checkpoint | None = None
) -> Transaction[Checkpoint | None]:
    """Sign the head of the log, if it has moved. None: it has not.

    Nothing is signed that does not go on from the last checkpoint: a log that was written anew up to there would
    otherwise get a good signature from us. Whether each entry since then is sound is not asked here.

    Args:
        known: the latest checkpoint that is kept outside of the database.

    Raises:
        ChainBroken.
    """
    head = yield Statement("SELECT sequence, hash FROM audit_head WHERE id = 1")
    stored = yield Statement(
        f"SELECT {_COLUMNS} FROM audit_checkpoints ORDER BY sequence DESC LIMIT 1"
    )
    last = _latest(signer, known, stored)
    if last is not None:
        found = yield Statement("SELECT hash FROM audit WHERE sequence = $1", (last.sequence,))
        if not found or found[0][0] != last.hash:
            raise ChainBroken(f"entry {last.sequence} is not the one that was signed")
    if not head or head[0][0] <= (last.sequence if last else 0):
        return None
    checkpoint = signer.sign(head[0][0], head[0][1], at_us)
    made = yield Statement(
        f"INSERT INTO audit_checkpoints ({_COLUMNS}) VALUES ($1, $2, $3, $4, $5) "
        "ON CONFLICT (sequence) DO NOTHING RETURNING sequence",
        (checkpoint.sequence, at_us, checkpoint.hash, checkpoint.key_id, checkpoint.signature),
    )
    return checkpoint if made else None


def checkpoints_from(
    sequence: int, last_sequence: int, limit: int = MAX_EXPORTED
) -> Transaction[list[Checkpoint]]:
    """Those stored for a range of the log, both ends included, oldest first."""
    rows = yield Statement(
        f"SELECT {_COLUMNS} FROM audit_checkpoints WHERE sequence >= $1 AND sequence <= $2 "
        "ORDER BY sequence LIMIT $3",
        (sequence, last_sequence, limit),
    )
    return [_checkpoint(row) for row in rows]


def _latest(
    signer: CheckpointSigner, known: Checkpoint | None, stored: Sequence[Row]
) -> Checkpoint | None:
    if not stored:
        return known
    last = _checkpoint(stored[0])
    # One of a former key can't be checked with this one, so it is worth no more than the log itself.
    if last.key_id == signer.key_id and not signer.verifier.is_signed(last):
        raise ChainBroken(f"the checkpoint at {last.sequence} has a false signature")
    return last if known is None or known.sequence < last.sequence else known


def _checkpoint(row: Row) -> Checkpoint:
    return Checkpoint(sequence=row[0], at_us=row[1], hash=row[2], key_id=row[3], signature=row[4])


def _message(origin: str, checkpoint: Checkpoint) -> bytes:
    head = (
        origin,
        checkpoint.sequence,
        checkpoint.hash.hex(),
        checkpoint.at_us,
        checkpoint.key_id,
    )
    return _SIGNED + _encode(head)
