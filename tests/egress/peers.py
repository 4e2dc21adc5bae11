"""Servers that say what a test wants, byte by byte, and names that lead to them."""

import asyncio
import ssl
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final

from trunkline_server.tools.egress import Egress, EgressError, EgressResponse, Resolve

LIMIT_S: Final = 10.0
NAME: Final = "tool.example.com"
PUBLIC: Final = "93.184.216.34"
OK: Final = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
MAX_BYTES: Final = 64 * 1024


@dataclass
class Connection:
    """One that a peer has accepted."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    request: bytes = b""
    gone_at_s: float = 0.0
    said_bytes: int = 0

    async def take_request(self) -> None:
        """All of it, by its content-length."""
        self.request = await self.reader.readuntil(b"\r\n\r\n")
        length = [
            int(line.split(b":")[1])
            for line in self.request.lower().split(b"\r\n")
            if line.startswith(b"content-length:")
        ]
        self.request += await self.reader.readexactly(length[0] if length else 0)

    async def say(self, data: bytes) -> None:
        """And wait until it is gone."""
        if self.writer.transport.is_closing():
            raise ConnectionResetError
        self.writer.write(data)
        await self.writer.drain()
        self.said_bytes += len(data)

    async def wait_until_gone(self) -> None:
        """The other side has closed."""
        while await self.reader.read(65536):
            pass


Script = Callable[[Connection], Awaitable[None]]


@dataclass
class Peer:
    """A server, and who came."""

    port: int = 0
    connections: list[Connection] = field(default_factory=list)
    accepted: asyncio.Event = field(default_factory=asyncio.Event)
    gone: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def requests(self) -> list[bytes]:
        """Whole ones."""
        return [connection.request for connection in self.connections if connection.request]


def reply(*pieces: bytes) -> Script:
    """Takes the request, says this, and closes."""

    async def script(connection: Connection) -> None:
        await connection.take_request()
        for piece in pieces:
            await connection.say(piece)

    return script


def endless(head: bytes, piece: bytes, pause_s: float = 0.0) -> Script:
    """Takes the request, says the head, and then the piece over and over."""

    async def script(connection: Connection) -> None:
        await connection.take_request()
        await connection.say(head)
        while True:
            await connection.say(piece)
            await asyncio.sleep(pause_s)

    return script


async def silent(connection: Connection) -> None:
    """Takes what comes and says nothing."""
    await connection.wait_until_gone()


@asynccontextmanager
async def peer(
    script: Script,
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    tls: ssl.SSLContext | None = None,
) -> AsyncIterator[Peer]:
    """A listener; every connection gets the script."""
    found = Peer()
    tasks = set[asyncio.Task[None]]()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        connection = Connection(reader, writer)
        found.connections.append(connection)
        found.accepted.set()
        try:
            await script(connection)
        except (OSError, asyncio.IncompleteReadError):
            pass  # The gateway closes when it has heard enough.
        finally:
            connection.gone_at_s = asyncio.get_running_loop().time()
            found.gone.set()
            writer.close()
            tasks.discard(task)

    server = await asyncio.start_server(serve, host, port, ssl=tls)
    found.port = server.sockets[0].getsockname()[1]
    try:
        yield found
    finally:
        server.close()
        for connection in found.connections:
            connection.writer.transport.abort()
        await asyncio.gather(*tasks)


class Names:
    """A resolver of the test's own. Each question for a name takes its next answer; the last one stays."""

    def __init__(self, **answers: Iterable[Sequence[str]]) -> None:
        self.asked: list[str] = []
        self._answers = {name: deque(rows) for name, rows in answers.items()}

    async def __call__(self, host: str, port: int) -> Sequence[str]:
        self.asked.append(host)
        rows = self._answers.get(host) or self._answers["default"]
        return rows.popleft() if len(rows) > 1 else rows[0]


def always(*addresses: str) -> Names:
    """Every name is at these."""
    return Names(default=[addresses])


def door(
    allowed: Sequence[str] = (), *, resolve: Resolve, tls: ssl.SSLContext | None = None
) -> Egress:
    """An egress that trusts no certificate unless it is told to."""
    return Egress(allowed, resolve=resolve, tls=tls or ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))


def allowing(name: str = NAME, *, tls: ssl.SSLContext | None = None) -> Egress:
    """An egress whose operator trusts this name, which is on this machine."""
    return door([name], resolve=always("127.0.0.1"), tls=tls)


async def post(
    egress: Egress,
    url: str,
    content: bytes = b"{}",
    *,
    limit_s: float = LIMIT_S,
    max_bytes: int = MAX_BYTES,
) -> EgressResponse | EgressError:
    """What comes of it, a failure included."""
    until_s = asyncio.get_running_loop().time() + limit_s
    try:
        return await egress.request(
            "POST", url, headers={}, content=content, until_s=until_s, max_bytes=max_bytes
        )
    except EgressError as error:
        return error


def told(outcome: EgressResponse | EgressError) -> tuple[str, bool] | int:
    """Of a failure its reason and whether the request was sent, of a response its status."""
    if isinstance(outcome, EgressError):
        return outcome.reason, outcome.was_sent
    return outcome.status
