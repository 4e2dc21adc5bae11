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

import asyncio
import contextlib
import fcntl
import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from trunkline_server.core.transactions import Row, Statement, Storage, Transaction

EVERY_S: Final = 60.0
EVERY_ENTRIES: Final = 1_000
DEFAULT_ORIGIN: Final = "trunkline"
MAX_ORIGIN_CHARS: Final = 256
MAX_LINE_BYTES: Final = 4_096
MAX_KEY_BYTES: Final = 16 * 1024
MAX_EXPORTED: Final = 1_000  # Checkpoints in one call: the rest follows with the next.
TAIL_BYTES: Final = 4 * MAX_LINE_BYTES

_SIGNED: Final = b"trunkline-audit-checkpoint-v1\0"
_COLUMNS: Final = "sequence, at, hash, key_id, signature"
_encode: Final = msgspec.json.Encoder().encode


class ChainBroken(Exception):
    """The log does not go on from where it was when it was last signed. The text says where, for the operator."""


class UnusableKey(Exception):
    """A file does not hold a key for checkpoints. The text says why, for the operator."""


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


# Keys


def create_key(private_path: Path, public_path: Path) -> str:
    """Make a pair of keys: the private one for nobody but the owner. The id of the key.

    Raises:
        FileExistsError: one of them is there; nothing is overwritten.
    """
    key = Ed25519PrivateKey.generate()
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    if public_path.exists():
        raise FileExistsError(f"{public_path} exists")
    _create(private_path, private, 0o600)
    _create(public_path, public, 0o644)
    return key_id_of(key.public_key())


def load_signer(path: Path, origin: str = DEFAULT_ORIGIN) -> CheckpointSigner:
    """The signer whose private key is in a PEM file.

    Raises:
        UnusableKey, OSError.
    """
    try:
        key = load_pem_private_key(_read_key(path), None)
    except (ValueError, TypeError) as error:
        raise UnusableKey(f"{path} is no private key in PEM without a password") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise UnusableKey(f"{path} is no Ed25519 key")
    return CheckpointSigner(key, origin)


def load_public_key(path: Path) -> Ed25519PublicKey:
    """The public key in a PEM file.

    Raises:
        UnusableKey, OSError.
    """
    try:
        key = load_pem_public_key(_read_key(path))
    except ValueError as error:
        raise UnusableKey(f"{path} is no public key in PEM") from error
    if not isinstance(key, Ed25519PublicKey):
        raise UnusableKey(f"{path} is no Ed25519 key")
    return key


def key_id_of(key: Ed25519PublicKey) -> str:
    """Sixteen hex digits that name a key."""
    return hashlib.sha256(key.public_bytes(Encoding.Raw, PublicFormat.Raw)).hexdigest()[:16]


# In the database


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


async def keep_checkpoint(
    storage: Storage, signer: CheckpointSigner, at_us: int, file: "CheckpointFile | None"
) -> Checkpoint | None:
    """Make a checkpoint if the log has moved, and bring the file up to what the database has.

    One call at a time; each takes as long as database and disk do. Being cancelled costs nothing: what was made and
    not yet written to the file is written by the next call, of this process or any other with the same file.

    Raises:
        ChainBroken: tell the operator: somebody changed the log.
        StorageUnavailable, OSError: to be tried again later.
    """
    known = None if file is None else await asyncio.to_thread(file.last)
    made = await storage.write(lambda: make_checkpoint(signer, at_us, known))
    if file is None:
        return made
    start = known.sequence + 1 if known else 0
    stored = await storage.read(lambda: checkpoints_from(start, 2**63 - 1))
    for checkpoint in stored:
        if checkpoint.key_id == signer.key_id and not signer.verifier.is_signed(checkpoint):
            raise ChainBroken(f"the checkpoint at {checkpoint.sequence} has a false signature")
    last = stored[-1].sequence if stored else 0
    if made is not None and last < made.sequence and len(stored) < MAX_EXPORTED:
        raise ChainBroken(f"the checkpoint at {made.sequence} did not stay in the database")
    await asyncio.to_thread(file.extend, stored)
    return made


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


# In the file


class _Line(msgspec.Struct, forbid_unknown_fields=True):
    origin: str
    sequence: int
    hash: str
    at_us: int
    key_id: str
    signature: str


class CheckpointFile:
    """The second place: a file of JSON lines, oldest first. Several processes may write to one file."""

    def __init__(self, path: Path, origin: str = DEFAULT_ORIGIN) -> None:
        self._path = path
        self._origin = origin

    def last(self) -> Checkpoint | None:
        """The latest one in the file; None where there is none yet."""
        try:
            with self._path.open("rb") as file:
                return _last_of(file.fileno())
        except FileNotFoundError:
            return None

    def extend(self, checkpoints: Sequence[Checkpoint]) -> int:
        """Append those that are newer than what is there; on the disk when this returns. How many these were.

        While another process is writing nothing is done: it writes the same.
        """
        if not checkpoints:
            return 0
        is_new = not self._path.exists()
        descriptor = os.open(self._path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return 0
            last = _last_of(descriptor)
            newer = [c for c in checkpoints if last is None or c.sequence > last.sequence]
            lines = b"".join(map(self._line, newer))
            if lines:
                _write(descriptor, b"" if _ends_a_line(descriptor) else b"\n", lines)
            os.fsync(descriptor)
            if is_new:
                _sync_directory(self._path.parent)
            return len(newer)
        finally:
            os.close(descriptor)

    def read(self) -> Iterator[Checkpoint | None]:
        """Every line of the file as it is now, in order; None for one that is no checkpoint of this log.

        Raises:
            OSError: the file can't be read; one that is not there is no empty one.
        """
        with self._path.open("rb") as file:
            rest = os.fstat(file.fileno()).st_size
            while rest > 0:
                line = file.readline(min(rest, MAX_LINE_BYTES))
                if not line:
                    return
                rest -= len(line)
                yield _parse(line, self._origin)

    def _line(self, checkpoint: Checkpoint) -> bytes:
        line = _Line(
            self._origin,
            checkpoint.sequence,
            checkpoint.hash.hex(),
            checkpoint.at_us,
            checkpoint.key_id,
            checkpoint.signature.hex(),
        )
        return _encode(line) + b"\n"


def _parse(line: bytes, origin: str | None) -> Checkpoint | None:
    if not line.endswith(b"\n"):
        return None
    try:
        found = msgspec.json.decode(line, type=_Line)
        if origin is not None and found.origin != origin:
            return None
        return Checkpoint(
            found.sequence,
            bytes.fromhex(found.hash),
            found.at_us,
            found.key_id,
            bytes.fromhex(found.signature),
        )
    except (msgspec.DecodeError, ValueError):
        return None


def _last_of(descriptor: int) -> Checkpoint | None:
    """A crash may have left half a line at the end, so it is the last line that is whole."""
    size = os.fstat(descriptor).st_size
    tail = os.pread(descriptor, TAIL_BYTES, max(0, size - TAIL_BYTES))
    for line in reversed(tail.splitlines(keepends=True)):
        found = _parse(line, None)
        if found is not None:
            return found
    return None


def _ends_a_line(descriptor: int) -> bool:
    size = os.fstat(descriptor).st_size
    return size == 0 or os.pread(descriptor, 1, size - 1) == b"\n"


def _write(descriptor: int, *parts: bytes) -> None:
    rest = memoryview(b"".join(parts))
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def _create(path: Path, content: bytes, mode: int) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    try:
        _write(descriptor, content)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    _sync_directory(path.parent)


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # Some file systems don't know it of directories.
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _read_key(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(MAX_KEY_BYTES)


def _message(origin: str, checkpoint: Checkpoint) -> bytes:
    head = (
        origin,
        checkpoint.sequence,
        checkpoint.hash.hex(),
        checkpoint.at_us,
        checkpoint.key_id,
    )
    return _SIGNED + _encode(head)
