"""Answers in a database: the `Shelf` port over the `Storage` port."""

import asyncio
from contextlib import suppress
from typing import Final

from trunkline_server.cache import rows
from trunkline_server.core.cache import Clearings, Kept, ShelfAway
from trunkline_server.core.errors import StorageUnavailable
from trunkline_server.core.transactions import MakeTransaction, Storage, T

TIDY_S: Final = (
    2.0  # After a clearing. What is left then is not found any more, and goes when it expires.
)


class DatabaseShelf:
    """In SQLite or PostgreSQL."""

    def __init__(self, storage: Storage, max_entries: int) -> None:
        self._storage = storage
        self._max_entries = max_entries

    async def find(self, key: bytes, owner: str) -> Kept | None:
        """See `Shelf`."""
        return await self._read(lambda: rows.find(key, owner))

    async def put(self, kept: Kept) -> None:
        """See `Shelf`."""
        await self._write(lambda: rows.put(kept))

    async def drop(self, key: bytes, owner: str) -> None:
        """See `Shelf`."""
        await self._write(lambda: rows.drop(key, owner))

    async def clear(self, owner: str, before_us: int) -> None:
        """See `Shelf`."""
        await self._write(lambda: rows.clear(owner, before_us))
        with suppress(TimeoutError, ShelfAway):
            async with asyncio.timeout(TIDY_S):
                while await self._write(lambda: rows.sweep_cleared(owner, before_us)):
                    pass

    async def clearings(self, mark: str) -> Clearings | None:
        """See `Shelf`."""
        return await self._read(lambda: rows.clearings(mark))

    async def count(self, owner: str, now_us: int) -> tuple[int, int] | None:
        """See `Shelf`."""
        return await self._read(lambda: rows.count(owner, now_us), is_short=False)

    async def sweep(self, now_us: int) -> None:
        """See `Shelf`."""
        await self._write(lambda: rows.sweep(now_us, self._max_entries))

    async def close(self) -> None:
        """The database is somebody else's."""

    async def _read(self, make: MakeTransaction[T], *, is_short: bool = True) -> T:
        try:
            return await self._storage.read(make, is_short=is_short)
        except StorageUnavailable as error:
            raise ShelfAway from error

    async def _write(self, make: MakeTransaction[T]) -> T:
        try:
            return await self._storage.write(make)
        except StorageUnavailable as error:
            raise ShelfAway from error
