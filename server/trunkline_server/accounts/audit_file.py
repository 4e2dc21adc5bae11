"""The second place of the checkpoints: a file that is only ever appended to, outside of the database.

One JSON object a line, oldest first, on the disk before the next checkpoint is made. Several processes may write to one
file, or have one each: what a file lacks, it gets from the database.
"""

import asyncio
import contextlib
import fcntl
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import msgspec

from trunkline_server.accounts.audit import MAX_SEQUENCE
from trunkline_server.accounts.audit_checkpoints import (
    DEFAULT_ORIGIN,
    MAX_EXPORTED,
    ChainBroken,
    Checkpoint,
    CheckpointSigner,
    checkpoints_from,
    make_checkpoint,
)
from trunkline_server.core.transactions import Storage

MAX_LINE_BYTES: Final = 4_096
TAIL_BYTES: Final = 4 * MAX_LINE_BYTES

_encode: Final = msgspec.json.Encoder().encode


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
    stored = await storage.read(lambda: checkpoints_from(start, MAX_SEQUENCE))
    last = stored[-1].sequence if stored else 0
    if made is not None and last < made.sequence and len(stored) < MAX_EXPORTED:
        raise ChainBroken(f"the checkpoint at {made.sequence} did not stay in the database")
    await asyncio.to_thread(_export, signer, stored, file)
    return made


def _export(signer: CheckpointSigner, stored: Sequence[Checkpoint], file: "CheckpointFile") -> None:
    for checkpoint in stored:
        if checkpoint.key_id == signer.key_id and not signer.verifier.is_signed(checkpoint):
            raise ChainBroken(f"the checkpoint at {checkpoint.sequence} has a false signature")
    file.extend(stored)


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
                write_all(descriptor, b"" if _ends_a_line(descriptor) else b"\n", lines)
            os.fsync(descriptor)
            if is_new:
                sync_directory(self._path.parent)
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


def write_all(descriptor: int, *parts: bytes) -> None:
    """Write it, in as many calls as it takes."""
    rest = memoryview(b"".join(parts))
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def sync_directory(path: Path) -> None:
    """So that a file that was just made is still there after a crash."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # Some file systems don't know it of directories.
            os.fsync(descriptor)
    finally:
        os.close(descriptor)
