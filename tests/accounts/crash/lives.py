"""The lives of one service: it is started, killed, and started again on the same database."""

import asyncio
import os
import re
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx

from tests.accounts.crash.meter import Meter
from tests.faults.gateway import written
from tests.faults.stamp import ROOT
from tests.support.accounts import ENVIRONMENT, account_sections
from tests.support.accounts import ROOT as ROOT_ENTRY

START_S: Final = 60.0
STOP_S: Final = 30.0
CLIENT_KEY: Final = "client-key-of-the-tests"
VARIABLES: Final = {**ENVIRONMENT, "CLIENT_KEY": CLIENT_KEY}
CLIENT: Final = {
    "id": "client",
    "key_env": "CLIENT_KEY",
    "organization": "acme",
    "plan": "prepaid",
}
LISTENING: Final = re.compile(r"gRPC on (\S+), HTTP on ([^,\s]+)")


@dataclass
class Life:
    """A process that serves.

    Attributes:
        log: where all goes that it says.
    """

    pid: int
    log: Path
    grpc_address: str = ""
    http_address: str = ""

    @property
    def said(self) -> str:
        """All of it so far."""
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    @property
    def is_running(self) -> bool:
        return is_running(self.pid)

    def kill(self, how: signal.Signals = signal.SIGKILL) -> None:
        os.kill(self.pid, how)

    async def listens(self) -> bool:
        """Waits until it does. False: it has ended before."""
        async with asyncio.timeout(START_S):
            while (found := LISTENING.search(self.said)) is None:
                if not is_running(self.pid):
                    return False
                await asyncio.sleep(0.01)
        self.grpc_address, self.http_address = found[1], found[2]
        return True

    async def ended(self) -> None:
        """Waits until it has."""
        async with asyncio.timeout(STOP_S):
            while is_running(self.pid):  # noqa: ASYNC110 - nobody tells of another's child
                await asyncio.sleep(0.005)

    async def is_ready(self) -> bool:
        """As /readyz says."""
        async with httpx.AsyncClient(timeout=STOP_S) as http:
            found = await http.get(f"http://{self.http_address}/readyz")
        assert found.status_code in (200, 503)
        return found.status_code == 200


def is_running(pid: int) -> bool:
    """And no corpse."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return status.rpartition(")")[2].split()[0] not in ("Z", "X")


def configure(folder: Path, meter: Meter, **sections: Any) -> Path:
    """The service's file: the model `m` is at the meter, and progress is kept in the folder."""
    accounts = {
        "database_url_env": "DATABASE_URL",
        "pepper_env": "PEPPER",
        "progress_dir": str(folder / "progress"),
    }
    found = account_sections("", meter.url, accounts=accounts, keys=[ROOT_ENTRY, CLIENT])
    server = {"grpc": "127.0.0.1:0", "http": "127.0.0.1:0", "lb_grace_s": 0, "drain_s": 3}
    path = folder / "trunkline.toml"
    path.write_text(written({"server": server, "local": {"enabled": False}, **found, **sections}))
    return path


class Spawner:
    """Gives life to services quickly."""

    def __init__(self, process: asyncio.subprocess.Process, folder: Path) -> None:
        self._process = process
        self._folder = folder
        self._count = 0

    async def start(self, config: Path) -> Life:
        """A new process, which may not listen yet."""
        self._count += 1
        log = self._folder / f"life-{self._count}.log"
        return Life(int(await self._told(f"start {config} {log}")), log)

    async def kill(self, life: Life, how: signal.Signals = signal.SIGKILL) -> int:
        """Returns how it ended, once it has."""
        life.kill(how)
        return int(await self._told(f"reap {life.pid}"))

    async def _told(self, command: str) -> str:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{command}\n".encode())
        async with asyncio.timeout(START_S):
            return (await self._process.stdout.readline()).decode()


def environment(url: str) -> dict[str, str]:
    """Of a service on the database at `url`."""
    kept = {name: os.environ[name] for name in ("PATH", "PYTHONPATH") if name in os.environ}
    return {**kept, **VARIABLES, "DATABASE_URL": url}


@asynccontextmanager
async def spawner(
    folder: Path, url: str, module: str = "tests.accounts.crash.spawner"
) -> AsyncIterator[Spawner]:
    """On the database at `url`. All that it started is gone when the block is left.

    Args:
        module: what is run; another one may load more beforehand.
    """
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", module),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        env=environment(url),
        cwd=ROOT,
    )
    try:
        yield Spawner(process, folder)
    finally:
        assert process.stdin is not None
        process.stdin.close()
        await asyncio.wait_for(process.wait(), STOP_S)


@asynccontextmanager
async def executed(config: Path, url: str, log: Path, prefix: Sequence[str]) -> AsyncIterator[Life]:
    """A service that another program runs, which ends with it. Killed when the block is left."""
    command = [*prefix, sys.executable, "-m", "trunkline_server", "serve", "--config", str(config)]
    with log.open("wb") as said:
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=said,
            stderr=said,
            env=environment(url),
            cwd=ROOT,
        )
    try:
        yield Life(process.pid, log)
    finally:
        for child in children(process.pid):
            with suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
        # The other program ends when it has seen the end of the service; else it is ended too.
        try:
            await asyncio.wait_for(process.wait(), STOP_S)
        except TimeoutError:
            process.kill()
            await process.wait()


def children(pid: int) -> list[int]:
    """Those that run now."""
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            if int(status.read_text().rpartition(")")[2].split()[1]) == pid:
                found.append(int(status.parent.name))
    return found
