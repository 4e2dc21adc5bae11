"""The service as clients meet it: its own HTTP port, and `trunkline shim` in a process of its own before it."""

import asyncio
import os
import shutil
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, Final, NoReturn

import pytest

from tests.clients.script import CASES, answer
from tests.support.service import model, provider, service
from tests.support.upstream import Exchange, Script, Step, Upstream, upstream
from trunkline_server.app import Service

HERE: Final = Path(__file__).parent
ROOT: Final = HERE.parents[1]
KEY: Final = "sk-a-key-of-these-tests"
EDGES: Final = ("local", "shim")
CALLERS: Final = tuple(
    f"{sdk}-{edge}" for sdk in ("python", "openai-1x", "node", "raw") for edge in EDGES
)
MODELS: Final = tuple(f"{case}/{caller}" for case in CASES for caller in CALLERS)
FREE: Final = "m"
"""The model whose answer a test says itself."""
LIMIT_S: Final = 60.0


@dataclass
class Gateway:
    """A running service, its upstream, and both edges.

    Attributes:
        urls: by edge, without a path.
        steps: the upstream's answer for the model `FREE`, or the script that gives it.
    """

    service: Service
    upstream: Upstream
    urls: dict[str, str]
    steps: Script | Sequence[Step] = ()

    def answer(self, exchange: Exchange) -> Sequence[Step] | Awaitable[Sequence[Step]]:
        """The upstream's script."""
        if exchange.json["model"] != FREE:
            return answer(exchange)
        return self.steps(exchange) if callable(self.steps) else self.steps

    def exchanges(self, model: str) -> list[Exchange]:
        """What the upstream was asked for a model, in order."""
        return [e for e in self.upstream.exchanges if e.json["model"] == model]


@asynccontextmanager
async def gateway() -> AsyncIterator[Gateway]:
    """Both edges of one service that asks for a key."""
    async with upstream(()) as scripted:
        names = [caller.replace(".", "-") for caller in CALLERS]
        sections: dict[str, Any] = {
            "providers": [provider(name, scripted.url) for name in ("free", *names)],
            "models": [
                model(FREE, "free", aliases=["vendor/of:many"]),
                *(model(name, name.partition("/")[2]) for name in MODELS),
            ],
            "keys": [{"id": "tests", "key_env": "KEY"}],
        }
        async with (
            service(environment={"KEY": KEY}, **sections) as started,
            shim(started.grpc_address) as shim_url,
        ):
            urls = {"local": f"http://{started.http_address}", "shim": shim_url}
            running = Gateway(started, scripted, urls)
            scripted.script = running.answer
            yield running


@asynccontextmanager
async def shim(target: str, *program: str) -> AsyncIterator[str]:
    """`trunkline shim` in a process of its own; its URL. It must end well when it is told to.

    Args:
        program: what Python runs instead, if anything; it says the address in its first line, as the command does.
    """
    arguments = program or (
        "-m", "trunkline", "shim", "--target", target, "--http", "127.0.0.1:0",
    )  # fmt: skip
    with TemporaryFile() as log:
        process = await asyncio.create_subprocess_exec(
            sys.executable, *arguments, stdout=asyncio.subprocess.PIPE, stderr=log
        )
        assert process.stdout is not None
        try:
            async with asyncio.timeout(LIMIT_S):
                line = (await process.stdout.readline()).decode()
            if line.startswith("trunkline: HTTP on 127.0.0.1:"):
                yield "http://" + line.split()[3].rstrip(",")
        finally:
            if process.returncode is None:
                process.send_signal(signal.SIGTERM)
            async with asyncio.timeout(LIMIT_S):
                await process.communicate()
        log.seek(0)
        told = f"{process.returncode}: {line}{log.read().decode()}"
        assert process.returncode == 0, told


async def run(*command: str | Path) -> tuple[int, bytes, bytes]:
    """A program to its end: exit code, standard output and error."""
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    try:
        async with asyncio.timeout(LIMIT_S):
            out, err = await process.communicate()
    except BaseException:
        process.kill()
        await process.wait()
        raise
    assert process.returncode is not None
    return process.returncode, out, err


def need(name: str | Path, how: str) -> str:
    """The path of a program; without it the test is skipped, or fails on CI.

    Args:
        how: what would install it.
    """
    found = shutil.which(name)
    if found is None:
        missing(f"{name} is not installed: {how}")
    return found


def missing(reason: str) -> NoReturn:
    """Skip, except on CI."""
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)
