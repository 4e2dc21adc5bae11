"""HTTP/1.1 from clients: one connection, its requests one after the other.

A small protocol over the llhttp parser, for what this edge needs and the usual servers do not give: a request is
cancelled the moment its client is gone, without a second task to watch for it, and a chunk costs one write.
docs/decisions/0002 has the measurements. A request is handed on when it is whole.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Final, cast
from urllib.parse import unquote

import httptools
import structlog

from trunkline_server.edges.rest.http import (
    MAX_BODY_BYTES,
    MAX_HEADER_BYTES,
    Headers,
    Request,
    too_large,
)
from trunkline_server.edges.status import Refusal, jittered_s

HEAD_TIMEOUT_S: Final = 10.0
BODY_TIMEOUT_S: Final = 30.0  # Without progress.
MAX_BODY_S: Final = 600.0
KEEP_ALIVE_S: Final = 75.0
WRITE_STALL_S: Final = 60.0
MAX_PIPELINED: Final = 16
MAX_ARRIVING_BYTES: Final = (
    512 * 1024 * 1024
)  # Of bodies that are not whole yet, over all connections.
MAX_DISCARDED_BYTES: Final = 64 * 1024 * 1024  # Of a refused body, so that its sender can read why.
TOO_MANY_BODIES_S: Final = 1.0  # Until one who was refused for them may come again.
HIGH_WATER_BYTES: Final = 64 * 1024

App = Callable[[Request], Awaitable[None]]
Refuse = Callable[[Request, Refusal], None]

log: structlog.typing.FilteringBoundLogger = structlog.get_logger()

_STATUS_LINES: Final = {
    status.value: f"HTTP/1.1 {status.value} {status.phrase}".encode() for status in HTTPStatus
}


class Connections:
    """All connections of one server, and what they serve."""

    def __init__(self, app: App, refuse: Refuse, max_connections: int) -> None:
        self.app = app
        self.refuse = refuse
        self.max_connections = max_connections
        self.open: set[Connection] = set()
        self.is_draining = False
        self._arriving_bytes = 0
        self._is_empty = asyncio.Event()
        self._is_empty.set()

    def add(self, connection: "Connection") -> None:
        """A client has come."""
        self.open.add(connection)
        self._is_empty.clear()

    def discard(self, connection: "Connection") -> None:
        """A client has gone."""
        self.open.discard(connection)
        if not self.open:
            self._is_empty.set()

    def take_body(self, size: int) -> bool:
        """May so much more of a body be kept in memory?"""
        if self._arriving_bytes + size > MAX_ARRIVING_BYTES:
            return False
        self._arriving_bytes += size
        return True

    def release_body(self, size: int) -> None:
        """So much of a body arrives no longer."""
        self._arriving_bytes -= size

    async def wait_until_empty(self) -> None:
        """Until the last client has gone."""
        await self._is_empty.wait()

    def drain(self) -> None:
        """Close what is idle now, and the others after their response."""
        self.is_draining = True
        for connection in list(self.open):
            connection.close_if_idle()

    def sweep(self, now_s: float) -> None:
        """Close whoever took too long: to send a head or a body, to ask again, to read."""
        for connection in list(self.open):
            connection.close_if_late(now_s)


class Connection(asyncio.Protocol):
    """One client."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self.peer = ""  # The client's address, as gRPC names one.
        self._parser = httptools.HttpRequestParser(self)
        self._waiting: deque[tuple[Request, bool, bool]] = deque()
        self._waiting_bytes = 0
        self._task: asyncio.Task[None] | None = None
        self._drained: asyncio.Future[None] | None = None
        # The request that is arriving
        self._url = b""
        self._headers: Headers = []
        self._header_bytes = 0
        self._unread_bytes = 0
        self._body = bytearray()
        self._body_bytes = 0
        self._has_headers = False
        self._is_arriving = False
        self._arrives_by_s = 0.0
        self._is_refused = False
        # The response that is being written
        self._keeps_alive = True
        self._knows_chunks = True
        self._is_chunked = False
        self._has_body = True
        self._has_head = False
        self._head = b""
        self._has_ended = False
        self._late_at_s = self._loop.time() + HEAD_TIMEOUT_S

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self.peer = _peer_of(transport)
        if len(self._connections.open) >= self._connections.max_connections:
            self._transport.abort()
            return
        self._transport.set_write_buffer_limits(high=HIGH_WATER_BYTES)
        self._connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._connections.discard(self)
        self._release_body()
        self._waiting.clear()
        if self._task is not None:
            self._task.cancel()
        self.resume_writing()

    def eof_received(self) -> None:
        return None  # A client that stops sending has gone: close, which cancels its request.

    def pause_writing(self) -> None:
        if self._drained is None:
            self._drained = self._loop.create_future()
            self._late_at_s = self._loop.time() + WRITE_STALL_S

    def resume_writing(self) -> None:
        drained, self._drained = self._drained, None
        if drained is not None and not drained.done():
            drained.set_result(None)

    def data_received(self, data: bytes) -> None:
        if self._is_refused and self._task is not None:
            return  # The connection ends with the response that is being written.
        self._unread_bytes += len(data)
        if self._is_arriving and self._has_headers and self._task is None:
            self._late_at_s = min(self._loop.time() + BODY_TIMEOUT_S, self._arrives_by_s)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as pause:
            self._without_upgrade(data[pause.args[0] :])
        except httptools.HttpParserError:
            self._refuse(Refusal("INVALID_REQUEST", "the request is no HTTP"))
        if self._unread_bytes > MAX_HEADER_BYTES:
            # The parser keeps the header that it is in the middle of, however long that gets.
            self._refuse_headers()

    def _without_upgrade(self, rest: bytes) -> None:
        """An offer of another protocol is passed over. The parser stops for it before the body, so another one goes on,
        with a head that makes no offer."""
        method = self._parser.get_method()
        if method == b"CONNECT":
            self._refuse(Refusal("INVALID_REQUEST", "this is no proxy"))
            return
        version = self._parser.get_http_version().encode()
        lines = [b"%b %b HTTP/%b" % (method, self._url, version)]
        for name, value in self._headers:
            if name == b"connection":
                value = b"close" if b"close" in value.lower() else b"keep-alive"
            if name != b"upgrade":
                lines.append(b"%b: %b" % (name, value))
        self._parser = httptools.HttpRequestParser(self)
        self.data_received(b"\r\n".join([*lines, b"", b""]) + rest)

    # httptools callbacks

    def on_message_begin(self) -> None:
        self._url = b""
        self._headers = []
        self._header_bytes = 0
        self._release_body()
        self._body_bytes = 0
        self._has_headers = False
        self._is_arriving = True
        if self._task is None:
            self._late_at_s = self._loop.time() + HEAD_TIMEOUT_S

    def on_url(self, url: bytes) -> None:
        self._unread_bytes = 0
        self._url += url
        self._count_header(len(url))

    def on_header(self, name: bytes, value: bytes) -> None:
        self._unread_bytes = 0
        self._header_bytes += len(name) + len(value)
        if self._header_bytes > MAX_HEADER_BYTES:
            self._refuse_headers()
        # Trailers mean nothing here: what a proxy in front has checked is the head.
        if not self._has_headers:
            self._headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        self._has_headers = True
        if self._task is None:
            self._late_at_s = self._loop.time() + BODY_TIMEOUT_S
            self._arrives_by_s = self._loop.time() + MAX_BODY_S
        headers = dict(self._headers)
        if int(headers.get(b"content-length", b"0")) > MAX_BODY_BYTES:
            self._refuse(too_large())
        elif headers.get(b"expect", b"").lower() == b"100-continue":
            self._invite()

    def _invite(self) -> None:
        """The client waits to be told that its body is welcome."""
        if not self._is_refused and self._task is None:
            self._write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, body: bytes) -> None:
        self._unread_bytes = 0
        self._body_bytes += len(body)
        if self._task is not None and self._waiting_bytes + self._body_bytes > MAX_BODY_BYTES:
            self.abort()
        elif self._is_refused:
            if self._body_bytes > MAX_DISCARDED_BYTES:
                self.abort()
        elif self._body_bytes > MAX_BODY_BYTES:
            self._refuse(too_large())
        elif not self._connections.take_body(len(body)):
            wait_s = jittered_s(TOO_MANY_BODIES_S)
            self._refuse(
                Refusal("OVERLOADED", "too many bodies are arriving", retry_after_s=wait_s)
            )
        else:
            self._body += body

    def on_message_complete(self) -> None:
        self._is_arriving = False
        self._unread_bytes = 0
        if self._is_refused:
            self._close()
            return
        if self._parser.should_upgrade():
            return
        body = bytes(self._body)
        self._release_body()
        target, _, query = self._url.partition(b"?")
        path = target.decode("latin-1")
        if "%" in path:
            path = unquote(path)
        method = self._parser.get_method().decode("ascii")
        request = Request(method, path, self._headers, body, self, query=query.decode("latin-1"))
        knows_chunks = self._parser.get_http_version() != "1.0"
        keeps_alive = self._parser.should_keep_alive() and knows_chunks
        self._waiting.append((request, keeps_alive, knows_chunks))
        self._waiting_bytes += len(body)
        if self._task is None:
            self._next()
        elif len(self._waiting) > MAX_PIPELINED:
            self.abort()

    def _release_body(self) -> None:
        self._connections.release_body(len(self._body))
        self._body = bytearray()

    # One request after the other

    def _next(self) -> None:
        request, self._keeps_alive, self._knows_chunks = self._waiting.popleft()
        self._waiting_bytes -= len(request.body)
        self._has_head = False
        self._has_ended = False
        self._has_body = request.method != "HEAD"
        self._late_at_s = float("inf")
        self._task = self._loop.create_task(self._serve(request))

    async def _serve(self, request: Request) -> None:
        try:
            await self._connections.app(request)
        except asyncio.CancelledError:
            # The client is gone and everything below has been cleaned up on the way here. This task ends with its
            # connection, so there is nobody left to tell.
            if self._transport is None or not self._transport.is_closing():
                raise
        finally:
            self._task = None
            self._after()

    def _after(self) -> None:
        if not self._has_ended:
            self.abort()  # A response that was not finished must not look as if it had been.
        elif not self._keeps_alive or self._connections.is_draining:
            self._close()
        elif self._waiting:
            self._next()
        else:
            self._late_at_s = self._loop.time() + KEEP_ALIVE_S

    # Exchange: the response

    def write_head(self, status: int, headers: Headers, length: int | None) -> None:
        """Status and headers. A second head in one response would be read as its body: that ends the connection."""
        if self._has_head:
            self.abort()
            return
        self._has_head = True
        self._is_chunked = length is None and self._knows_chunks
        line = _STATUS_LINES[status] if status in _STATUS_LINES else b"HTTP/1.1 %d " % status
        lines = [line, *map(b": ".join, headers)]
        if length is not None:
            lines.append(b"content-length: %d" % length)
        elif self._knows_chunks:  # Otherwise the end of the connection is that of the body.
            lines.append(b"transfer-encoding: chunked")
        if not self._keeps_alive or self._connections.is_draining:
            self._keeps_alive = False
            lines.append(b"connection: close")
        lines.append(b"\r\n")
        self._head = b"\r\n".join(lines)  # Goes out with what follows it, in one write.

    def write(self, data: bytes) -> None:
        """A piece of the body."""
        if self._has_body and data:
            self._write(b"%x\r\n%b\r\n" % (len(data), data) if self._is_chunked else data)

    def end(self, data: bytes = b"") -> None:
        """The last piece."""
        self._has_ended = True
        if not self._has_body:
            self._write(b"")
        elif not self._is_chunked:
            self._write(data)
        elif data:
            self._write(b"%x\r\n%b\r\n0\r\n\r\n" % (len(data), data))
        else:
            self._write(b"0\r\n\r\n")

    @property
    def is_slow(self) -> bool:
        """Is more buffered than the client takes?"""
        return self._drained is not None

    async def drain(self) -> None:
        """Wait until it is not."""
        if self._drained is not None:
            await self._drained

    # Ends

    def close_if_idle(self) -> None:
        """Close unless a request is under way."""
        if self._task is None and not self._is_arriving:
            self._close()

    def close_if_late(self, now_s: float) -> None:
        """Close when the client has had its time."""
        if now_s < self._late_at_s:
            return
        if self._task is None or self._drained is not None:
            self.abort()

    def _count_header(self, size: int) -> None:
        self._header_bytes += size
        if self._header_bytes > MAX_HEADER_BYTES:
            self._refuse_headers()

    def _refuse_headers(self) -> None:
        self._refuse(
            Refusal("INVALID_REQUEST", f"headers are larger than {MAX_HEADER_BYTES} bytes")
        )

    def _refuse(self, refused: Refusal) -> None:
        """Answer a request that can't be handed on, and read no other. What still comes of it is thrown away."""
        if self._is_refused:
            return
        self._is_refused = True
        self._keeps_alive = False
        self._release_body()
        if self._task is not None:
            return  # A response is being written; the refused request came after it.
        self._late_at_s = self._loop.time() + BODY_TIMEOUT_S
        self._has_body = True
        self._has_head = False
        self._connections.refuse(Request("", "", self._headers, b"", self), refused)
        if refused.reason != "PAYLOAD_TOO_LARGE":
            self._close()

    def _write(self, data: bytes) -> None:
        head, self._head = self._head, b""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(head + data if head else data)

    def _close(self) -> None:
        if self._transport is not None:
            # What is buffered goes out first, but nobody waits for ever for a client that does not read it.
            self._late_at_s = self._loop.time() + WRITE_STALL_S
            self._transport.close()

    def abort(self) -> None:
        """Close now, whatever is buffered."""
        if self._transport is not None:
            self._transport.abort()


def _peer_of(transport: asyncio.BaseTransport) -> str:
    name = transport.get_extra_info("peername")
    if not isinstance(name, tuple):
        return "unix:"
    host, port = name[:2]
    return f"ipv6:[{host}]:{port}" if ":" in host else f"ipv4:{host}:{port}"
