"""HTTP/1.1 byte by byte: a server with an application of the test's own, and a client that sends what it is told."""

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final

from trunkline_server.edges.rest.connection import Connection, Connections
from trunkline_server.edges.rest.http import Request
from trunkline_server.edges.status import Refusal

LIMIT_S: Final = 20.0

App = Callable[[Request], Awaitable[None]]


@dataclass
class Response:
    """One, as it was received. Header names are in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes


@dataclass
class Wire:
    """A client's connection."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    def send(self, data: bytes) -> None:
        """As it is."""
        self.writer.write(data)

    def get(self, path: str = "/", *headers: str, method: str = "GET") -> None:
        """A request without a body."""
        lines = [f"{method} {path} HTTP/1.1", "host: g", *headers, "", ""]
        self.send("\r\n".join(lines).encode())

    async def line(self) -> bytes:
        """Up to the next line end."""
        async with asyncio.timeout(LIMIT_S):
            return await self.reader.readuntil(b"\r\n")

    async def head(self) -> tuple[int, dict[str, str]]:
        """Status and headers."""
        async with asyncio.timeout(LIMIT_S):
            lines = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        pairs = [line.partition(": ") for line in lines[1:] if line]
        names = [name for name, _, _ in pairs]
        assert len(set(names)) == len(names)
        return int(lines[0].split(" ")[1]), {name: value for name, _, value in pairs}

    async def response(self, *, has_body: bool = True) -> Response:
        """The next response."""
        status, headers = await self.head()
        async with asyncio.timeout(LIMIT_S):
            if not has_body:
                body = b""
            elif headers.get("transfer-encoding") == "chunked":
                body = await self.chunks()
            elif "content-length" in headers:
                body = await self.reader.readexactly(int(headers["content-length"]))
            else:
                body = await self.reader.read()
        return Response(status, headers, body)

    async def chunks(self) -> bytes:
        """A chunked body."""
        body = b""
        while size := int(await self.line(), 16):
            body += await self.reader.readexactly(size)
            assert await self.line() == b"\r\n"
        assert await self.line() == b"\r\n"
        return body

    async def rest(self) -> bytes:
        """All that comes before the end, however the connection ends."""
        async with asyncio.timeout(LIMIT_S):
            try:
                return await self.reader.read()
            except ConnectionError:
                return b""

    async def is_closed(self) -> bool:
        """Does it end, with nothing more?"""
        return await self.rest() == b""


class Unread(asyncio.Transport):
    """A connection whose client never reads, and whose kernel buffers nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.buffered_bytes = 0
        self.high_bytes = 0
        self.is_aborted = False
        self.connection: Connection | None = None

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self.high_bytes = high or 0

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.buffered_bytes += len(data)
        if self.connection is not None and self.buffered_bytes > self.high_bytes:
            self.connection.pause_writing()

    def is_closing(self) -> bool:
        return self.is_aborted

    def close(self) -> None:
        """What is buffered is to be sent first."""

    def abort(self) -> None:
        self.is_aborted = True


@dataclass
class Served:
    """A server, and what it was asked."""

    connections: Connections
    port: int
    requests: list[Request] = field(default_factory=list)

    @asynccontextmanager
    async def connect(self, buffer_bytes: int | None = None) -> AsyncIterator[Wire]:
        """A client. It reads into a buffer of this size, where one is given."""
        client = socket.socket()
        client.setblocking(False)
        if buffer_bytes is not None:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer_bytes)
        await asyncio.get_running_loop().sock_connect(client, ("127.0.0.1", self.port))
        limit = buffer_bytes or 2**16
        wire = Wire(*await asyncio.open_connection(sock=client, limit=limit))
        try:
            yield wire
        finally:
            wire.writer.transport.abort()

    def connect_unread(self) -> tuple[Connection, Unread]:
        """A client that never reads."""
        connection, transport = Connection(self.connections), Unread()
        transport.connection = connection
        connection.connection_made(transport)
        return connection, transport

    async def until(self, holds: Callable[[], bool]) -> None:
        """Waits for a condition."""
        async with asyncio.timeout(LIMIT_S):
            while not holds():  # noqa: ASYNC110 - conditions of the server, which tells nobody
                await asyncio.sleep(0.002)


def refuse(request: Request, refused: Refusal) -> None:
    """Answers with the error's reason."""
    request.respond(refused.status.http_status, refused.reason.encode())


async def echo(request: Request) -> None:
    """Says what it was asked."""
    request.respond(200, f"{request.method} {request.path} ".encode() + request.body)


@asynccontextmanager
async def serving(app: App = echo, max_connections: int = 100) -> AsyncIterator[Served]:
    """On a free port of loopback."""
    served: Served

    async def recorded(request: Request) -> None:
        served.requests.append(request)
        await app(request)

    connections = Connections(recorded, refuse, max_connections)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Connection(connections), "127.0.0.1", 0)
    served = Served(connections, server.sockets[0].getsockname()[1])
    try:
        yield served
    finally:
        server.close()
        for connection in list(connections.open):
            connection.abort()
        async with asyncio.timeout(LIMIT_S):
            await connections.wait_until_empty()
