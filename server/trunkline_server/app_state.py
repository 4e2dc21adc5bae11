"""The part of the composition root that keeps state: the database of conversations, skills, cached answers and jobs."""

import asyncio
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from trunkline_server.config import ConfigError, Settings, secret
from trunkline_server.core.errors import NotSupported, StorageUnavailable
from trunkline_server.core.transactions import MakeTransaction, Storage, T
from trunkline_server.storage.postgres import PostgresStorage
from trunkline_server.storage.sqlite import SqliteStorage, UnusableDatabase
from trunkline_server.storage.upgrade import UpgradeError, check, sqlite_path, upgrade

RETRY_AFTER_S: Final = 1.0
FILE: Final = "state.db"
NOT_SHARED: Final = "this needs a database that all workers share: [state] database_url"


def state_url(settings: Settings, environment: Mapping[str, str]) -> str:
    """Where state is kept; empty where that goes with the process.

    Raises:
        ConfigError.
    """
    state, accounts = settings.state, settings.accounts
    url = state.database_url or secret(environment, state.database_url_env, "")
    if state.database_url_env and not url:
        raise ConfigError([f"state: the variable {state.database_url_env} is not set"])
    if url:
        try:
            sqlite_path(url)
        except UpgradeError as error:
            raise ConfigError([f"state.database_url: {error}"]) from error
        return url
    return accounts.database_url or secret(environment, accounts.database_url_env, "")


def upgrade_state(url: str) -> list[str]:
    """Bring a database of state to the schema of this program. Returns the steps that were missing.

    Raises:
        ConfigError.
    """
    try:
        return upgrade(url)
    except UpgradeError as error:
        raise ConfigError([f"state: {error}"]) from error


def check_state(url: str) -> None:
    """Has it the schema of this program?

    Raises:
        ConfigError.
    """
    try:
        check(url)
    except UpgradeError as error:
        raise ConfigError([f"state: {error}"]) from error


class Scratch:
    """A `Storage` in a folder that goes with the process, made when it is first asked: most processes never do."""

    def __init__(self) -> None:
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._storage: SqliteStorage | None = None
        self._opening: asyncio.Task[SqliteStorage] | None = None
        self._is_closed = False

    @property
    def folder(self) -> Path:
        """Made when it is first asked for."""
        if self._folder is None:
            self._folder = tempfile.TemporaryDirectory(prefix="trunkline-")
        return Path(self._folder.name)

    async def write(self, make: MakeTransaction[T]) -> T:
        """See `Storage`."""
        return await (await self._opened()).write(make)

    async def read(self, make: MakeTransaction[T], *, is_short: bool = False) -> T:
        """See `Storage`."""
        return await (await self._opened()).read(make, is_short=is_short)

    async def close(self) -> None:
        """Forget everything."""
        self._is_closed = True
        if self._opening is not None:
            await asyncio.wait([self._opening])
        if self._storage is not None:
            await self._storage.close()
        if self._folder is not None:
            self._folder.cleanup()

    async def _opened(self) -> SqliteStorage:
        if self._storage is not None:
            return self._storage
        if self._is_closed:
            raise StorageUnavailable(retry_after_s=RETRY_AFTER_S)
        if self._opening is None:
            self._opening = asyncio.create_task(self._open())
        try:
            # One opens it for all who come meanwhile, whoever of them goes.
            return await asyncio.shield(self._opening)
        except (UnusableDatabase, UpgradeError, OSError) as error:
            self._opening = None
            raise StorageUnavailable(retry_after_s=RETRY_AFTER_S) from error

    async def _open(self) -> SqliteStorage:
        path = self.folder / FILE
        await asyncio.to_thread(upgrade, f"sqlite:{path}")
        storage = SqliteStorage(path)
        await storage.start()
        self._storage = storage
        return storage


class NotShared:
    """A `Storage` for workers that have none in common: what one of them kept, the others would not find."""

    async def write(self, make: MakeTransaction[T]) -> T:
        """Raises: NotSupported."""
        raise NotSupported(NOT_SHARED)

    async def read(self, make: MakeTransaction[T], *, is_short: bool = False) -> T:
        """Raises: NotSupported."""
        raise NotSupported(NOT_SHARED)


class State:
    """The database of state, between `start` and `close`. Where it is that of accounts, those open and close it."""

    def __init__(
        self, url: str, shared: SqliteStorage | PostgresStorage | None, workers: int = 1
    ) -> None:
        """Args: shared: the storage of accounts, where state is kept in the same database."""
        self.url = url
        self._own: SqliteStorage | PostgresStorage | None = None
        self._scratch: Scratch | None = None
        self.storage: Storage
        if shared is not None:
            self.storage = shared
        elif url:
            path = sqlite_path(url)
            self._own = PostgresStorage(url) if path is None else SqliteStorage(path)
            self.storage = self._own
        elif workers > 1:
            self.storage = NotShared()
        else:
            self.storage = self._scratch = Scratch()

    @property
    def is_lasting(self) -> bool:
        """Is it there after a restart?"""
        return bool(self.url)

    @property
    def is_alone(self) -> bool:
        """Does no other process use it?"""
        return not isinstance(self.storage, PostgresStorage)

    @property
    def scratch_folder(self) -> Path | None:
        """A folder that goes with the process, where nothing lasts."""
        return None if self._scratch is None else self._scratch.folder

    async def start(self) -> None:
        """Open the database, where it is one of its own.

        Raises:
            ConfigError.
        """
        if self._own is None:
            return
        try:
            await asyncio.to_thread(check, self.url)
            await self._own.start()
        except (UpgradeError, UnusableDatabase) as error:
            raise ConfigError([f"state: {error}"]) from error
        except StorageUnavailable as error:
            raise ConfigError(["state: the database can't be reached"]) from error

    async def close(self) -> None:
        """Release what was opened here."""
        if self._own is not None:
            await self._own.close()
        if self._scratch is not None:
            await self._scratch.close()
