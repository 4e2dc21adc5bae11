"""How far each running request has come, in memory that outlives the process.

A file is mapped into memory, a slot for each request: who answers at which price, and how much has come. Writing to it
is a store into memory, so it can be done for every batch; when the process is killed the system still has the pages,
and the next start reads there what the requests had used. It is not synced: after a loss of power the ledger falls back
on what it knows itself.

The file is locked for as long as its process lives, so a file that can be locked belonged to one that is gone.
"""

import fcntl
import mmap
import os
import struct
from pathlib import Path
from typing import Final

from trunkline_server.core.progress import Progressed

SLOT: Final = struct.Struct("<32s64s128sqqqqqqqqq")
COUNTS: Final = struct.Struct("<qqq")
COUNTS_AT: Final = SLOT.size - COUNTS.size
MAX_SLOTS: Final = 100_000
UNKNOWN: Final = -1  # A price or a cost that is not known.
NEW_SUFFIX: Final = ".new"


class Progress:
    """The slots of this process.

    Args:
        directory: where the files of all processes of one service on this machine are.
        slots: requests at once.
    """

    def __init__(self, directory: Path, owner: str, slots: int) -> None:
        self._path = directory / f"{owner}.progress"
        self._slots = min(slots, MAX_SLOTS)
        self._free = list(range(self._slots - 1, -1, -1))
        self._file = -1
        self._map: mmap.mmap | None = None

    def open(self) -> None:
        """Make the file. Raises: OSError."""
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        unlocked = self._path.with_suffix(NEW_SUFFIX)
        self._file = os.open(unlocked, flags, 0o600)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # With all its room: on a disk that is full later, a store into a hole would be the end of the process.
            os.posix_fallocate(self._file, 0, self._slots * SLOT.size)
            self._map = mmap.mmap(self._file, self._slots * SLOT.size)
            # Whoever finds it by its name finds it locked.
            unlocked.rename(self._path)
        except OSError:
            unlocked.unlink(missing_ok=True)
            os.close(self._file)
            raise

    def close(self, *, keeps: bool) -> None:
        """Remove the file, unless requests are left in it that the next start has to settle."""
        if self._map is None:
            return
        self._map.close()
        self._map = None
        if not keeps:
            self._path.unlink(missing_ok=True)
        os.close(self._file)

    def take(self, id_: str) -> int:
        """A slot for a request; -1 when there is none left, which costs only exactness."""
        if not self._free or self._map is None:
            return -1
        slot = self._free.pop()
        SLOT.pack_into(
            self._map, slot * SLOT.size, id_.encode()[:32], b"", b"", -1, -1, -1, 0, 0, 0, 0, 0, 0
        )
        return slot

    def answers(
        self,
        slot: int,
        id_: str,
        provider: str,
        model: str,
        prices: tuple[int | None, int | None, int | None],
        earlier: tuple[int, int, int | None],
    ) -> None:
        """Somebody has begun to answer.

        Args:
            earlier: input and output tokens of the model turns before, and what they cost.
        """
        if slot < 0 or self._map is None:
            return
        known = [UNKNOWN if nanos is None else nanos for nanos in (*prices, *earlier)]
        name = (id_.encode()[:32], provider.encode()[:64], model.encode()[:128])
        SLOT.pack_into(self._map, slot * SLOT.size, *name, *known, 0, 0, 0)

    def count(self, slot: int, input_tokens: int, output_tokens: int, output_chars: int) -> None:
        """So much has come. 0 tokens: not told yet."""
        if slot >= 0 and self._map is not None:
            at = slot * SLOT.size + COUNTS_AT
            COUNTS.pack_into(self._map, at, input_tokens, output_tokens, output_chars)

    def give_back(self, slot: int) -> None:
        """The request is settled."""
        if slot >= 0 and self._map is not None:
            self._map[slot * SLOT.size] = 0
            self._free.append(slot)


def left_behind(directory: Path) -> list[Path]:
    """Files whose process is gone."""
    found = []
    for path in sorted(directory.glob("*.progress")):
        try:
            file = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except OSError:
            continue
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            found.append(path)
        except OSError:
            pass
        finally:
            os.close(file)
    return found


def read(path: Path) -> dict[str, Progressed]:
    """What a process had in its slots, by the id of the request."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return {}  # Another process has just settled all that was in it.
    found = {}
    for at in range(0, len(data) - SLOT.size + 1, SLOT.size):
        if data[at]:
            id_, provider, model, *numbers = SLOT.unpack_from(data, at)
            found[_text(id_)] = Progressed(
                _text(provider),
                _text(model),
                input_price=_price(numbers[0]),
                output_price=_price(numbers[1]),
                cached_input_price=_price(numbers[2]),
                earlier_input_tokens=numbers[3],
                earlier_output_tokens=numbers[4],
                earlier_nanos=_price(numbers[5]),
                input_tokens=numbers[6],
                output_tokens=numbers[7],
                output_chars=numbers[8],
            )
    return found


def _price(kept: int) -> int | None:
    return None if kept == UNKNOWN else kept


def _text(field: bytes) -> str:
    return field.rstrip(b"\0").decode("utf-8", "replace")
