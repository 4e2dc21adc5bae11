"""Databases of every kind for these tests, each new and with the schema of this program."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import uvloop

from tests.support.postgres import Postgres, missing, running_postgres
from trunkline_server.storage.postgres import PostgresStorage
from trunkline_server.storage.sqlite import SqliteStorage
from trunkline_server.storage.upgrade import sqlite_path, upgrade


def pytest_asyncio_loop_factories() -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """The service's own."""
    return {"uvloop": uvloop.new_event_loop}


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """One for all tests; each takes a database of its own."""
    reason = missing()
    if reason:
        pytest.skip(reason)
    with running_postgres() as started:
        yield started


@pytest.fixture(params=["sqlite", "postgres"])
def empty_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A database without tables; of SQLite, not even its file."""
    if request.param == "sqlite":
        return f"sqlite:{tmp_path / 'trunkline.db'}"
    server: Postgres = request.getfixturevalue("postgres")
    return server.database()


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A database with the schema."""
    if request.param == "sqlite":
        found = f"sqlite:{tmp_path / 'trunkline.db'}"
        upgrade(found)
        return found
    server: Postgres = request.getfixturevalue("postgres")
    return server.migrated()


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[PostgresStorage | SqliteStorage]:
    """The backend that the URL names."""
    path = sqlite_path(url)
    storage: PostgresStorage | SqliteStorage
    storage = PostgresStorage(url) if path is None else SqliteStorage(path)
    await storage.start()
    try:
        yield storage
    finally:
        await storage.close()


@pytest.fixture
async def storage(url: str) -> AsyncIterator[PostgresStorage | SqliteStorage]:
    async with opened(url) as started:
        yield started
