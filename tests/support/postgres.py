"""A PostgreSQL of the test's own: installed here already, started in a temporary folder, on loopback.

It refuses to run as root, so as root it is started as somebody else.
"""

import asyncio
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from itertools import count
from pathlib import Path
from typing import Any

import asyncpg

from trunkline_server.storage.upgrade import upgrade

PASSWORD = "correct-horse"  # So that tests can look for it where it must not be.
START_S = 30.0
STOP_S = 10.0
MAX_CONNECTIONS = 20
TEMPLATE = "migrated"
USERS = ("postgres", "nobody")
MEMORY = "/dev/shm"
MEMORY_BYTES = 1024**3
# Nobody is left behind by tests that were killed: then the pipe closes.
GUARD = 'read -r _; kill -QUIT "$0"; sleep 1; rm -rf "$1"'
SETTINGS = {
    "fsync": "on",
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "max_connections": str(MAX_CONNECTIONS),
    "superuser_reserved_connections": "2",
    "shared_buffers": "32MB",
    "log_statement": "none",
}


@cache
def programs() -> Path | None:
    """The folder of `initdb` and `postgres`; None where they are not installed. The newest version first."""
    found = sorted(
        Path("/usr/lib/postgresql").glob("*/bin"), key=lambda p: p.parent.name, reverse=True
    )
    on_path = shutil.which("initdb")
    for folder in [*found, *([Path(on_path).resolve().parent] if on_path else [])]:
        if os.access(folder / "initdb", os.X_OK) and os.access(folder / "postgres", os.X_OK):
            return folder
    return None


def missing() -> str:
    """Why none can be started here; empty: one can."""
    if programs() is None:
        return "PostgreSQL's server is not installed (on Debian: postgresql)"
    if os.geteuid() == 0 and _other_user() is None:
        return f"PostgreSQL does not run as root, and there is no user {' or '.join(USERS)}"
    return ""


def _other_user() -> pwd.struct_passwd | None:
    for name in USERS:
        with suppress(KeyError):
            return pwd.getpwnam(name)
    return None


class Postgres:
    """One that runs. `pid` is its first process."""

    def __init__(self, folder: Path, port: int) -> None:
        self.port = port
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        self._guard: subprocess.Popen[bytes] | None = None
        self._numbers = count(1)
        self._has_template = False

    @property
    def pid(self) -> int:
        """Of the process that starts the others."""
        assert self._process is not None
        return self._process.pid

    def url(self, database: str = "postgres") -> str:
        """Its address, as its superuser."""
        return f"postgresql://trunkline:{PASSWORD}@127.0.0.1:{self.port}/{database}"

    def start(self) -> None:
        """Start, and wait until it answers."""
        folder = programs()
        assert folder is not None
        options = [word for name, value in SETTINGS.items() for word in ("-c", f"{name}={value}")]
        with (self._folder / "log").open("ab") as output:
            self._process = subprocess.Popen(
                [folder / "postgres", "-D", self._folder / "data", "-p", str(self.port), *options],
                stdout=output,
                stderr=output,
                cwd=self._folder,
                start_new_session=True,  # What ends the tests' group of processes is not for it,
                **_as_other(),
            )
        self._guard = subprocess.Popen(
            ["sh", "-c", GUARD, str(self.pid), self._folder],
            stdin=subprocess.PIPE,
            start_new_session=True,  # nor for who takes it away.
        )
        deadline = time.monotonic() + START_S
        while True:
            try:
                asyncio.run(_execute(self.url(), "SELECT 1"))
            except (OSError, asyncpg.PostgresError):
                if self._process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError((self._folder / "log").read_text()) from None
                time.sleep(0.02)
            else:
                return

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """End it. SIGINT: cuts its connections, and leaves all in order. SIGQUIT: as in a crash."""
        assert self._process is not None
        assert self._guard is not None
        self._guard.kill()
        self._guard.communicate()
        self.thaw()
        self._process.send_signal(how)
        try:
            self._process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            for pid in self._pids():
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            self._process.wait(STOP_S)

    def freeze(self) -> None:
        """Stop all its processes where they are: connections stay open, and nobody answers."""
        for pid in self._pids():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """Let them run again."""
        for pid in self._pids():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)

    def _pids(self) -> list[int]:
        """The first process, then its children, each of which leads a session of its own."""
        pids = [self.pid]
        for status in Path("/proc").glob("[0-9]*/stat"):
            with suppress(OSError):
                if int(status.read_text().rpartition(")")[2].split()[1]) == self.pid:
                    pids.append(int(status.parent.name))
        return pids

    def database(self, template: str = "template0") -> str:
        """A new database, made like the template. Returns its address."""
        name = f"test_{next(self._numbers)}"
        self.execute(f'CREATE DATABASE {name} TEMPLATE "{template}"')
        return self.url(name)

    def migrated(self) -> str:
        """A new database with this program's schema. Returns its address."""
        if not self._has_template:
            self.execute(f"CREATE DATABASE {TEMPLATE} TEMPLATE template0")
            upgrade(self.url(TEMPLATE))
            self._has_template = True
        return self.database(TEMPLATE)

    def execute(self, sql: str, database: str = "postgres") -> list[Any]:
        """Run one statement, outside of an event loop."""
        return asyncio.run(_execute(self.url(database), sql))


async def _execute(url: str, sql: str) -> list[Any]:
    connection = await asyncpg.connect(url, timeout=START_S)
    try:
        return [tuple(row) for row in await connection.fetch(sql)]
    finally:
        await connection.close()


def _fast_folder() -> str | None:
    # Each database is some 300 files, and each is synced by the next checkpoint, and after a crash.
    with suppress(OSError):
        if shutil.disk_usage(MEMORY).free >= MEMORY_BYTES:
            return MEMORY
    return None


@contextmanager
def running_postgres(*, on_disk: bool = False) -> Iterator[Postgres]:
    """Makes one, starts it, and takes it away when the block is left. Not to be called where `missing` says why.

    Args:
        on_disk: and not in memory, where there is room: for measurements.
    """
    parent = None if on_disk else _fast_folder()
    folder = Path(tempfile.mkdtemp(prefix="trunkline-postgres-", dir=parent))
    try:
        user = _other_user() if os.geteuid() == 0 else None
        if user is not None:
            os.chown(folder, user.pw_uid, user.pw_gid)
        _make(folder)
        postgres = Postgres(folder, _free_port())
        postgres.start()
        try:
            yield postgres
        finally:
            postgres.stop(signal.SIGQUIT)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _make(folder: Path) -> None:
    programs_folder = programs()
    assert programs_folder is not None
    password = folder / "password"
    password.write_text(PASSWORD)
    words = ["--username=trunkline", "--auth=scram-sha-256", f"--pwfile={password}"]
    words += ["--encoding=UTF8", "--locale=C", "--no-sync", "--no-instructions"]
    done = subprocess.run(
        [programs_folder / "initdb", "-D", folder / "data", *words],
        capture_output=True,
        text=True,
        cwd=folder,
        timeout=START_S,
        **_as_other(),
    )
    if done.returncode:
        raise RuntimeError(done.stderr)


def _as_other() -> dict[str, Any]:
    user = _other_user() if os.geteuid() == 0 else None
    if user is None:
        return {}
    return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
