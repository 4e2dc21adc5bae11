"""The gateway as its own process, as an operator runs it."""

import asyncio
import json
import os
import re
import signal
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

START_S = 30.0


@dataclass
class Gateway:
    """A running `trunkline serve`."""

    process: asyncio.subprocess.Process
    grpc_address: str
    http_address: str
    log: asyncio.Task[bytes]

    def terminate(self) -> None:
        """SIGTERM."""
        self.process.send_signal(signal.SIGTERM)

    async def exit_code(self, limit_s: float) -> int:
        """Waits for the end."""
        return await asyncio.wait_for(self.process.wait(), limit_s)


def written(sections: Mapping[str, Any]) -> str:
    """TOML of tables and lists of tables."""
    lines = []
    for name, value in sections.items():
        for table in value if isinstance(value, list) else [value]:
            lines.append(f"[[{name}]]" if isinstance(value, list) else f"[{name}]")
            lines += [f"{key} = {json.dumps(entry)}" for key, entry in table.items()]
    return "\n".join(lines) + "\n"


@asynccontextmanager
async def gateway(folder: Path, **sections: Any) -> AsyncIterator[Gateway]:
    """On ports of its own; killed when the block is left, if it still runs."""
    server = {"grpc": "127.0.0.1:0", "http": "127.0.0.1:0", **sections.pop("server", {})}
    tree = {"server": server, "local": {"enabled": False}, **sections}
    path = folder / "trunkline.toml"
    path.write_text(written(tree))
    environment = {key: os.environ[key] for key in ("PATH", "PYTHONPATH") if key in os.environ}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "trunkline_server", "serve", "--config", str(path)),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=environment,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    log = asyncio.create_task(process.stderr.read())
    try:
        line = await asyncio.wait_for(process.stdout.readline(), START_S)
        found = re.search(rb"gRPC on (\S+), HTTP on ([^,\s]+)", line)
        assert found, line + (await log if process.returncode is not None else b"")
        rest = asyncio.create_task(process.stdout.read())
        yield Gateway(process, found[1].decode(), found[2].decode(), log)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
        await asyncio.gather(log, rest)
