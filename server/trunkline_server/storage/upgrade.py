"""Bring a database to the schema of this program, or say what it lacks.

A database is named by a URL: `sqlite:PATH` for a file, as in `sqlite:trunkline.db` (where the program was started) and
`sqlite:/var/lib/trunkline.db`; or libpq's own, `postgresql://user:password@host:port/database`.

The steps are alembic's, each a file in `migrations/versions/`: `NNNN_name.py` has the revision `NNNN`, after the one
before. Alembic writes those that are missing as SQL, and they run here as one transaction: all or nothing, and on
PostgreSQL with the driver that the server uses. So a step is made of SQL alone, and none looks at data in Python.

All of it is for a thread without an event loop; and not for a process that has the SQLite file open already: a process
that closes a file drops all locks that it has on it, those of the other library too.
"""

import asyncio
import errno
import fcntl
import io
import os
import sqlite3
import time
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import asynccontextmanager, closing, contextmanager, suppress
from pathlib import Path
from typing import Any, Final, TypeVar
from urllib.parse import quote

import asyncpg

CONNECT_S: Final = 5.0
CHECK_S: Final = 10.0
UPGRADE_S: Final = 1800.0  # With the wait for another upgrade.
STATEMENT_S: Final = 900.0  # Of one that builds an index, say.
LOCK_S: Final = 10.0  # Requests queue up behind an upgrade that waits for a table.
FILE_S: Final = 5.0  # For a file that another upgrade uses.
POLL_S: Final = 0.05
LOCK: Final = 0x7472756E6B757067  # Names the advisory lock: one upgrade at a time.
SQLITE: Final = "sqlite:"
POSTGRES: Final = ("postgresql://", "postgres://")
STEPS: Final = Path(__file__).parent / "migrations"

T = TypeVar("T")


class UpgradeError(Exception):
    """The database can't be upgraded, or used as it is. The text says why, for the operator; it holds no password."""


def upgrade(url: str, steps: Path = STEPS) -> list[str]:
    """Apply what is missing. Returns the revisions applied, oldest first.

    Raises:
        UpgradeError: and nothing has changed.
    """
    path = sqlite_path(url)
    if path is not None:
        with _sqlite_errors(path):
            return _upgrade_sqlite(path, steps)
    return _run(_upgrade_postgres(url, steps), UPGRADE_S)


def pending(url: str, steps: Path = STEPS) -> list[str]:
    """The revisions that are missing, oldest first. Changes nothing.

    Raises:
        UpgradeError: the database can't be read, or is of a newer program.
    """
    path = sqlite_path(url)
    if path is not None:
        with _sqlite_errors(path):
            return _lacking(_read_sqlite(path), steps)
    return _lacking(_run(_read_postgres(url), CHECK_S), steps)


def check(url: str, steps: Path = STEPS) -> None:
    """Is the schema the one that this program needs?

    Raises:
        UpgradeError: it is not.
    """
    lacking = pending(url, steps)
    if lacking:
        raise UpgradeError(f"the database lacks {', '.join(lacking)}; run `trunkline db upgrade`")


def sqlite_path(url: str) -> Path | None:
    """The file that the URL names; None where it names a PostgreSQL.

    Raises:
        UpgradeError: it names neither.
    """
    if url.startswith(POSTGRES):
        return None
    path = url.removeprefix(SQLITE)
    if path == url:
        raise UpgradeError("a database is named as sqlite:PATH or postgresql://...")
    if not path or path.startswith(("//", ":")) or "\0" in path:
        raise UpgradeError(
            "a SQLite database is named as sqlite:PATH, such as sqlite:trunkline.db or sqlite:/var/lib/trunkline.db"
        )
    return Path(path)


def _known(steps: Path) -> list[str]:
    # By the names of the files: every start of the server asks, and alembic takes half a second and 40 MiB to import.
    return sorted(path.name[:4] for path in (steps / "versions").glob("[0-9][0-9][0-9][0-9]_*.py"))


def _lacking(current: str | None, steps: Path) -> list[str]:
    known = _known(steps)
    if current is None:
        return known
    if current not in known:
        raise UpgradeError(
            f"the database is at {current} and this program knows {known[-1]}: a newer program has upgraded it"
        )
    return known[known.index(current) + 1 :]


def _script(dialect: str, current: str | None, steps: Path) -> str:
    """What is to be run after `current`, as SQL."""
    from alembic import command
    from alembic.config import Config

    config = Config(output_buffer=io.StringIO(), attributes={"dialect": dialect})
    config.set_main_option("script_location", str(steps).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    command.upgrade(config, f"{current or 'base'}:head", sql=True)
    assert isinstance(config.output_buffer, io.StringIO)
    return config.output_buffer.getvalue()


# SQLite


def _upgrade_sqlite(path: Path, steps: Path) -> list[str]:
    with _alone(path):
        with suppress(FileExistsError):
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        os.chmod(
            path, 0o600
        )  # What it holds is for nobody else, and its journals are made with its mode.
        with closing(sqlite3.connect(path, timeout=FILE_S, isolation_level=None)) as db:
            # This is the standard library's SQLite, and before 3.51.3 that can corrupt a database in WAL mode when two
            # connections write at once (https://www.sqlite.org/wal.html#walreset). So there is no second one: the
            # file is locked from the first look at it, and it leaves WAL mode. The server turns that on again.
            db.execute("PRAGMA locking_mode = EXCLUSIVE")
            db.execute("PRAGMA journal_mode = DELETE")
            db.execute("PRAGMA synchronous = FULL")
            db.execute("BEGIN EXCLUSIVE")
            current = _revision(db)
            lacking = _lacking(current, steps)
            if lacking:
                for statement in _statements(_script("sqlite", current, steps)):
                    db.execute(statement).fetchall()
            db.execute("COMMIT")
    return lacking


def _read_sqlite(path: Path) -> str | None:
    if not path.exists():
        return None
    if path.with_name(f"{path.name}-journal").exists():
        # Whoever wrote it was killed: only who may write can take it back.
        with (
            _alone(path),
            closing(sqlite3.connect(path, timeout=FILE_S, isolation_level=None)) as db,
        ):
            return _revision(db)
    url = f"file:{quote(str(path))}?mode=ro"  # A server may use it meanwhile: nothing is written or checkpointed.
    with closing(sqlite3.connect(url, uri=True, timeout=FILE_S, isolation_level=None)) as db:
        return _revision(db)


def _revision(db: sqlite3.Connection) -> str | None:
    found = db.execute("SELECT 1 FROM sqlite_master WHERE name = 'alembic_version'").fetchall()
    return (
        _only(db.execute("SELECT version_num FROM alembic_version").fetchall()) if found else None
    )


def _statements(script: str) -> Iterator[str]:
    """One by one: `executescript` would commit first."""
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Neither a server nor another upgrade uses the file. The lock is the one that the server takes."""
    descriptor = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        deadline_s = time.monotonic() + FILE_S
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline_s:
                    raise UpgradeError(f"{path} is in use: stop its server first") from None
                time.sleep(POLL_S)
        yield
    finally:
        os.close(descriptor)


@contextmanager
def _sqlite_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.OperationalError as error:
        if "locked" in str(
            error
        ):  # The standard library has no class for it before Python 3.11's error codes.
            raise UpgradeError(f"{path} is in use: stop its server first") from error
        raise UpgradeError(f"{path}: {error}") from error
    except sqlite3.Error as error:
        raise UpgradeError(f"{path} is no SQLite database, or damaged: {error}") from error
    except OSError as error:
        raise UpgradeError(f"{path}: {error.strerror}") from error


# PostgreSQL


async def _upgrade_postgres(url: str, steps: Path) -> list[str]:
    async with _connected(url) as connection, connection.transaction():
        await connection.execute(f"SELECT pg_advisory_xact_lock({LOCK})")
        await connection.execute(f"SET LOCAL lock_timeout = '{LOCK_S:.0f}s'")
        current = await _revision_postgres(connection)
        lacking = _lacking(current, steps)
        if lacking:
            await connection.execute(_script("postgresql", current, steps))
    return lacking


async def _read_postgres(url: str) -> str | None:
    async with _connected(url) as connection:
        return await _revision_postgres(connection)


async def _revision_postgres(connection: asyncpg.Connection) -> str | None:
    if await connection.fetchval("SELECT to_regclass('alembic_version')") is None:
        return None
    return _only(await connection.fetch("SELECT version_num FROM alembic_version"))


@asynccontextmanager
async def _connected(url: str) -> AsyncIterator[asyncpg.Connection]:
    try:
        connection = await asyncpg.connect(
            url,
            timeout=CONNECT_S,
            server_settings={
                "application_name": "trunkline upgrade",
                "statement_timeout": str(round(STATEMENT_S * 1000)),
            },
        )
    except (OSError, asyncpg.PostgresError):
        raise
    except Exception as error:  # noqa: BLE001 - of whatever type the driver finds fit
        # Its text may quote the URL, and so the password.
        raise UpgradeError(
            f"the URL of the database can't be used: {type(error).__name__}"
        ) from None
    try:
        yield connection
        await connection.close(timeout=CONNECT_S)
    finally:
        connection.terminate()


def _run(work: Coroutine[Any, Any, T], limit_s: float) -> T:
    async def within_limit() -> T:
        async with asyncio.timeout(limit_s):
            return await work

    try:
        return asyncio.run(within_limit())
    except asyncpg.PostgresError as error:
        text = f"{type(error).__name__} ({error.sqlstate}): {error.args[0] if error.args else ''}"
        raise UpgradeError(f"the database said {text}") from error
    except TimeoutError:
        raise UpgradeError("the database did not answer in time") from None
    except OSError as error:
        name = errno.errorcode.get(error.errno or 0, type(error).__name__)
        raise UpgradeError(f"the database can't be reached: {name}") from None


def _only(rows: list[Any]) -> str | None:
    if len(rows) > 1:
        raise UpgradeError("the database is at several revisions at once")
    return str(rows[0][0]) if rows else None
