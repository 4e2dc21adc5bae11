"""One request to addresses that were checked, and its response.

httpx sends it over httpcore, and httpcore over the streams below, so that every byte on the wire is counted, a close
takes effect at once, and nobody but `Exchange.connect_tcp` decides where to connect. httpx is told of the origin only:
it logs the URLs that it knows, and secrets stand in paths and queries.
"""

import asyncio
import socket
import ssl
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Iterable,
    Mapping,
    Sequence,
)
from contextlib import aclosing
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address
from typing import Final, Literal, cast

import httpcore
import httpx

from trunkline_server.tools.addresses import Address
from trunkline_server.tools.destinations import Destination

CONNECT_S: Final = 3.0  # For each address of a name, before the next is tried.
MAX_CONNECTS: Final = 4
MAX_HEAD_BYTES: Final = 64 * 1024  # Of the response, interim ones included.
MAX_FRAMING: Final = 8  # Bytes on the wire for each byte of a body: a chunk of one byte takes six.
MAX_PIECES: Final = 20_000  # Of a body, beside those of at least
PIECE_BYTES: Final = 512  # this size; each costs some 20 us of CPU, however small it is.
PIECES_AT_A_TIME: Final = 64  # Then others have their turn.
WRITE_BYTES: Final = 64 * 1024
READ_BYTES: Final = 64 * 1024

Reason = Literal[
    "ADDRESS_DENIED",
    "URL_INVALID",
    "UNRESOLVED",
    "CONNECT_FAILED",
    "TLS_FAILED",
    "TIMEOUT",
    "TOO_LARGE",
    "BROKEN",
]


class EgressError(Exception):
    """The request was not made or not answered.

    Attributes:
        reason: URL_INVALID (method and headers count as parts of it), ADDRESS_DENIED (one that is not the public's, or
            a bare one), UNRESOLVED, CONNECT_FAILED, TLS_FAILED, TIMEOUT, TOO_LARGE (the response), or BROKEN (it is no
            HTTP, is compressed though that was not asked for, or ends too early).
        was_sent: the peer may have acted on the request. False only if it can't have got all of it.
    """

    def __init__(self, reason: Reason, *, was_sent: bool = False) -> None:
        super().__init__(reason)
        self.reason: Reason = reason
        self.was_sent = was_sent


@dataclass(frozen=True, slots=True)
class EgressResponse:
    """A whole response.

    Attributes:
        headers: names in lower case, values of one name joined by commas; without cookies.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes


class Exchange(httpcore.AsyncNetworkBackend):
    """One request's connection. Close it, whatever happened.

    Attributes:
        was_sent: the last byte of the request was handed to the socket.
        max_wire_bytes: what may be read now, from the start of the response.
        unsent_bytes: of the request's body.
    """

    def __init__(self, destination: Destination, tls: ssl.SSLContext) -> None:
        self.destination = destination
        self.tls = tls
        self.was_sent = False
        self.max_wire_bytes = MAX_HEAD_BYTES
        self.unsent_bytes = 0
        self._addresses: Sequence[Address] = ()
        self._socket: socket.socket | None = None
        self._writer: asyncio.StreamWriter | None = None

    async def send(
        self,
        addresses: Sequence[Address],
        method: str,
        headers: Sequence[tuple[str, str]],
        content: bytes,
        max_bytes: int,
    ) -> EgressResponse:
        """Once only.

        Args:
            addresses: where to connect to, in order.
            headers: all but the content's length.
            max_bytes: of the response's body.

        Raises:
            EgressError
        """
        self._addresses = addresses
        self.unsent_bytes = len(content)
        destination = self.destination
        request = httpx.Request(
            method,
            f"{destination.scheme}://{destination.authority}/",
            headers=[(name.encode(), value.encode("latin-1")) for name, value in headers],
            content=content,
        )
        async with httpx.AsyncClient(transport=_Transport(self), trust_env=False) as client:
            try:
                response = await client.send(
                    request, stream=True, auth=None, follow_redirects=False
                )
                self.max_wire_bytes = MAX_HEAD_BYTES + MAX_FRAMING * max_bytes
                body = await self._body(response, max_bytes)
            except (httpcore.NetworkError, httpcore.ProtocolError):
                raise self.error("BROKEN") from None  # Their texts quote what the peer said.
        return EgressResponse(response.status_code, dict(response.headers.items()), body)

    async def _body(self, response: httpx.Response, max_bytes: int) -> bytes:
        declared = response.headers.get("content-length", "0")
        if response.request.method != "HEAD" and int(declared) > max_bytes:
            raise self.error("TOO_LARGE")
        is_encoded = response.headers.get("content-encoding", "identity").lower() != "identity"
        body = bytearray()
        count = 0
        async with aclosing(cast(AsyncGenerator[bytes, None], response.aiter_raw())) as pieces:
            async for piece in pieces:
                count += 1
                body += piece
                if is_encoded:
                    raise self.error("BROKEN")
                if len(body) > max_bytes or count > MAX_PIECES + len(body) // PIECE_BYTES:
                    raise self.error("TOO_LARGE")
                if count % PIECES_AT_A_TIME == 0:
                    # What one read brought is handed over piece by piece without ever waiting.
                    await asyncio.sleep(0)
        return bytes(body)

    def error(self, reason: Reason) -> EgressError:
        """What to raise now."""
        return EgressError(reason, was_sent=self.was_sent)

    def close(self) -> None:
        """At once, whatever is buffered."""
        if self._socket is not None:
            self._socket.close()
        if self._writer is not None:
            self._writer.transport.abort()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 - httpcore's
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """To the first of the addresses that answers; httpcore's host is not looked at. Raises: EgressError."""
        for address in self._addresses[:MAX_CONNECTS]:
            try:
                self._socket = await _connect(address, self.destination.port)
            except OSError:
                continue
            return _Connected(self) if self.destination.scheme == "https" else await self.open(None)
        raise self.error("CONNECT_FAILED")

    async def open(self, tls: ssl.SSLContext | None) -> "_Stream":
        """Begin to talk on the connected socket. Raises: EgressError."""
        connected, self._socket = self._socket, None  # asyncio closes it from here on.
        host = self.destination.host if tls else None
        try:
            reader, writer = await asyncio.open_connection(
                sock=connected, ssl=tls, server_hostname=host, limit=READ_BYTES
            )
        except (OSError, ValueError) as error:
            raise self.error("TLS_FAILED" if tls else "CONNECT_FAILED") from error
        self._writer = writer
        # Without room in the buffer, what was written leaves before more is handed over. One byte and not none: with
        # none, asyncio's TLS pauses writers for good.
        writer.transport.set_write_buffer_limits(high=1)
        return _Stream(self, reader, writer)


def family(address: Address) -> socket.AddressFamily:
    """Of sockets that reach it."""
    return socket.AF_INET6 if isinstance(address, IPv6Address) else socket.AF_INET


async def _connect(address: Address, port: int) -> socket.socket:
    """Raises: OSError, also (as TimeoutError) when it takes too long."""
    connected = socket.socket(family(address), socket.SOCK_STREAM)
    try:
        connected.setblocking(False)
        async with asyncio.timeout(CONNECT_S):
            loop = asyncio.get_running_loop()
            await loop.sock_connect(connected, (str(address), port))
        if ip_address(connected.getpeername()[0]) != address:
            raise ConnectionError("connected to another address")
    except BaseException:
        connected.close()
        raise
    return connected


class _Connected(httpcore.AsyncNetworkStream):
    """A socket on which TLS comes next."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange

    async def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,  # noqa: ASYNC109 - httpcore's
    ) -> httpcore.AsyncNetworkStream:
        return await self._exchange.open(ssl_context)


class _Stream(httpcore.AsyncNetworkStream):
    """Reads and writes, and counts both."""

    def __init__(
        self, exchange: Exchange, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._exchange = exchange
        self._reader = reader
        self._writer = writer
        self._is_head_out = False
        self._read_bytes = 0

    async def read(
        self,
        max_bytes: int,
        timeout: float | None = None,  # noqa: ASYNC109 - httpcore's
    ) -> bytes:
        if self._read_bytes > self._exchange.max_wire_bytes:
            raise self._exchange.error("TOO_LARGE")
        try:
            data = await self._reader.read(READ_BYTES)
        except OSError as error:
            raise httpcore.ReadError from error
        self._read_bytes += len(data)
        return data

    async def write(
        self,
        buffer: bytes,
        timeout: float | None = None,  # noqa: ASYNC109 - httpcore's
    ) -> None:
        exchange = self._exchange
        for start in range(0, len(buffer), WRITE_BYTES):
            piece = buffer[start : start + WRITE_BYTES]
            if self._writer.transport.is_closing():  # uvloop would call a write now a bug.
                raise httpcore.WriteError("closed by the peer")
            # httpcore writes the whole head at first, and then the body.
            if self._is_head_out:
                exchange.unsent_bytes -= len(piece)
            exchange.was_sent = exchange.unsent_bytes == 0
            self._writer.write(piece)
            try:
                await self._writer.drain()
            except OSError as error:
                # httpcore looks for a response all the same: some servers refuse before they have read it all.
                raise httpcore.WriteError from error
        self._is_head_out = True

    async def aclose(self) -> None:
        self._exchange.close()


class _Transport(httpx.AsyncBaseTransport):
    """Sends httpx's request over the exchange, to the target that httpx was not told."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        destination = self._exchange.destination
        url = httpcore.URL(
            scheme=destination.scheme,
            host=destination.host,
            port=destination.port,
            target=destination.target,
        )
        connection = httpcore.AsyncHTTPConnection(
            url.origin, ssl_context=self._exchange.tls, network_backend=self._exchange
        )
        response = await connection.handle_async_request(
            httpcore.Request(
                request.method, url, headers=request.headers.raw, content=request.content
            )
        )
        # httpx would keep cookies, and read them for that.
        headers = [line for line in response.headers if line[0].lower() != b"set-cookie"]
        assert isinstance(response.stream, AsyncIterable)
        return httpx.Response(response.status, headers=headers, stream=_Body(response.stream))


class _Body(httpx.AsyncByteStream):
    """What httpcore reads, as httpx wants it."""

    def __init__(self, chunks: AsyncIterable[bytes]) -> None:
        self._chunks = chunks

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for chunk in self._chunks:
            yield chunk
