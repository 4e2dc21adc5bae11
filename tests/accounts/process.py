"""`trunkline serve` as its own process, with secrets in its environment, and all that it ever says."""

import asyncio
import os
import re
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from tests.faults.gateway import written

START_S: Final = 30.0
STOP_S: Final = 20.0


@dataclass
class Process:
    """A running service. `said`: standard output and standard error, whole once it has ended."""

    process: asyncio.subprocess.Process
    grpc_address: str = ""
    http_address: str = ""
    said: bytearray = field(default_factory=bytearray)


@asynccontextmanager
async def process(
    folder: Path, environment: Mapping[str, str], **sections: Any
) -> AsyncIterator[Process]:
    """On ports of its own; it ends, as SIGTERM has it, when the block is left."""
    server = {"grpc": "127.0.0.1:0", "http": "127.0.0.1:0", **sections.pop("server", {})}
    path = folder / "trunkline.toml"
    path.write_text(written({"server": server, "local": {"enabled": False}, **sections}))
    kept = {name: os.environ[name] for name in ("PATH", "PYTHONPATH") if name in os.environ}
    started = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "trunkline_server", "serve", "--config", str(path)),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**kept, **environment},
        cwd=folder,
    )
    assert started.stdout is not None
    assert started.stderr is not None
    found = Process(started)
    reading = [asyncio.create_task(_read(started.stderr, found.said))]
    try:
        line = await asyncio.wait_for(started.stdout.readline(), START_S)
        found.said += line
        reading.append(asyncio.create_task(_read(started.stdout, found.said)))
        said = re.search(rb"gRPC on (\S+), HTTP on ([^,\s]+)", line)
        if said is None:
            await asyncio.wait(reading, timeout=STOP_S)
            raise RuntimeError(bytes(found.said).decode("utf-8", "replace"))
        found.grpc_address, found.http_address = said[1].decode(), said[2].decode()
        yield found
        started.terminate()
        await asyncio.wait_for(started.wait(), STOP_S)
    finally:
        if started.returncode is None:
            started.kill()
            await started.wait()
        await asyncio.wait(reading, timeout=STOP_S)


async def _read(stream: asyncio.StreamReader, into: bytearray) -> None:
    while data := await stream.read(65_536):
        into += data
