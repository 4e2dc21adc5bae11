"""HTTP/1.1 to upstream providers: the only module that opens a connection to one.

The data path's largest single cost is its HTTP client, and what failover needs from one is unusual: to know whether a
request was fully written when its connection died, a timer that is renewed for each read at no cost, and a close that
takes effect at once in every phase. So this is a small protocol over the llhttp parser; docs/decisions/0001 has the
measurements. A read hands over everything that one TCP read brought.

Nothing is retried here but what a kept connection lost without a byte, redirects are not followed and proxies of the
environment are not used.
"""

import asyncio
import math
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Self, cast

import httptools

IDLE_CONNECTION_S: Final = 30.0
LINGER_S: Final = (
    1.0  # For the end of a message whose answer is complete, so that the connection can be kept.
)
EARLY_S: Final = 0.002  # By which a timer may fire before its instant.
MAX_IDLE_PER_ENDPOINT: Final = 1024
MAX_HEADER_BYTES: Final = 32 * 1024
MAX_BODY_BYTES: Final = 64 * 1024 * 1024
HIGH_WATER_BYTES: Final = 64 * 1024  # Unread bytes beyond this pause the socket.


class TransportError(Exception):
    """The connection or the message on it is broken."""


class NotSent(TransportError):
    """The provider can't have acted on the request: it never got all of it."""


class Lost(TransportError):
    """The connection broke after the request was out."""


class BadMessage(TransportError):
    """What came is no HTTP, or more of it than allowed."""


@dataclass(frozen=True, slots=True)
class Timeouts:
    """How long each phase of a request may take, whatever its deadline.

    Attributes:
        connect_s: for a TCP connection, the name's resolution included.
        tls_s: for the handshake on it.
        write_s: without the peer taking a byte of the request.
        stale_s: until a kept connection that the peer has closed or forgotten shows that: a few round trips.
    """

    connect_s: float = 3.0
    tls_s: float = 5.0
    write_s: float = 10.0
    stale_s: float = 2.0


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a provider listens. `keep_alive` False: one connection for each request."""

    host: str
    port: int
    tls: ssl.SSLContext | None = None
    keep_alive: bool = True

    @property
    def authority(self) -> str:
        """The value of the Host header."""
        default = 443 if self.tls else 80
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == default else f"{host}:{self.port}"


class HttpTransport:
    """Connections to all providers. Use as an async context manager; closing it closes them all."""

    def __init__(self, timeouts: Timeouts = Timeouts()) -> None:
        self.timeouts = timeouts
        self._idle: dict[Endpoint, list[_Connection]] = {}
        self._open: set[_Connection] = set()
        self._sweeper: asyncio.TimerHandle | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._sweeper is not None:
            self._sweeper.cancel()
        for connection in list(self._open):
            connection.abort()

    @property
    def open_connections(self) -> int:
        """Sockets open now, idle ones included."""
        return len(self._open)

    @property
    def busy_connections(self) -> int:
        """Sockets that a request holds now."""
        return len(self._open) - sum(len(idle) for idle in self._idle.values())

    async def send(
        self, endpoint: Endpoint, head: bytes, body: bytes, until_s: float
    ) -> "HttpResponse":
        """Send one request and wait for the head of its response.

        Args:
            head: the request line and headers, without the empty line and content-length.
            until_s: an instant of the loop's clock.

        Raises:
            TransportError: of a new connection, where a kept one was lost without a byte before.
            TimeoutError: when `until_s` or one of the phases' own limits passed.
        """
        kept = self._take(endpoint) if endpoint.keep_alive else None
        if kept is not None:
            loop = asyncio.get_running_loop()
            stale_until_s = loop.time() + self.timeouts.stale_s
            response = kept.start(_message(head, body))
            try:
                return await _headed(response, until_s)
            except (NotSent, Lost) as error:
                # A server may close a kept connection just as we use it. That it did so at once and without a byte
                # means that it did not look at the request, so it is as good as unsent, and nothing is held against
                # anybody. What forgot this connection, such as a balancer, may have forgotten all: a new one is made.
                if response.received or not kept.is_lost:
                    raise
                if isinstance(error, Lost) and loop.time() > stale_until_s:
                    raise  # It may have been at work since then.
                self._drop_idle(endpoint)
        connection = await self._connect(endpoint, until_s)
        return await _headed(connection.start(_message(head, body)), until_s)

    def _drop_idle(self, endpoint: Endpoint) -> None:
        for connection in self._idle.pop(endpoint, ()):
            connection.abort()

    def _take(self, endpoint: Endpoint) -> "_Connection | None":
        idle = self._idle.get(endpoint)
        while idle:
            connection = idle.pop()
            if connection.is_usable:
                return connection
        return None

    def keep(self, connection: "_Connection") -> None:
        """Take back a connection whose message is complete."""
        idle = self._idle.setdefault(connection.endpoint, [])
        if len(idle) >= MAX_IDLE_PER_ENDPOINT:
            connection.abort()
            return
        loop = asyncio.get_running_loop()
        connection.idle_since_s = loop.time()
        idle.append(connection)
        if self._sweeper is None:
            self._sweeper = loop.call_later(IDLE_CONNECTION_S, self._sweep)

    def forget(self, connection: "_Connection") -> None:
        """A connection is gone."""
        self._open.discard(connection)
        idle = self._idle.get(connection.endpoint)
        if idle and connection in idle:
            idle.remove(connection)

    def _sweep(self) -> None:
        loop = asyncio.get_running_loop()
        oldest_s = loop.time() - IDLE_CONNECTION_S
        for idle in self._idle.values():
            for connection in [c for c in idle if c.idle_since_s <= oldest_s]:
                idle.remove(connection)
                connection.abort()
        self._sweeper = (
            loop.call_later(IDLE_CONNECTION_S / 2, self._sweep)
            if any(self._idle.values())
            else None
        )

    async def _connect(self, endpoint: Endpoint, until_s: float) -> "_Connection":
        loop = asyncio.get_running_loop()
        timeouts = self.timeouts
        patience_s = timeouts.connect_s + (timeouts.tls_s if endpoint.tls else 0.0)
        patient_until_s = loop.time() + patience_s
        connection = _Connection(self, endpoint)
        try:
            async with asyncio.timeout_at(min(until_s, patient_until_s)):
                await loop.create_connection(
                    lambda: connection,
                    endpoint.host,
                    endpoint.port,
                    ssl=endpoint.tls,
                    server_hostname=endpoint.host if endpoint.tls else None,
                    ssl_handshake_timeout=timeouts.tls_s if endpoint.tls else None,
                )
        except TimeoutError as error:
            connection.abort()
            # Whose limit it was is not asked of the clock: a timer may go off a little early.
            if until_s <= patient_until_s:
                raise
            raise NotSent("no connection in time") from error
        except (OSError, ssl.SSLError) as error:
            connection.abort()
            raise NotSent(f"no connection: {type(error).__name__}") from error
        except BaseException:
            connection.abort()
            raise
        self._open.add(connection)
        return connection


class _Connection(asyncio.Protocol):
    """One socket, and the response that is being read from it."""

    def __init__(self, pool: HttpTransport, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self.idle_since_s = 0.0
        self.write_timeout_s = pool.timeouts.write_s
        self._pool = pool
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._response: HttpResponse | None = None
        self._is_writing = False
        self.is_lost = False
        # One timer serves all reads of all responses: as long as the instant only moves away, renewing it is nothing.
        self._timer: asyncio.TimerHandle | None = None
        self.timer_at_s = math.inf

    @property
    def is_usable(self) -> bool:
        """Is the socket open, as far as is known?"""
        return self._transport is not None and not self._transport.is_closing()

    @property
    def unwritten_bytes(self) -> int:
        """What the peer has not taken yet of what was written."""
        transport = self._transport
        return transport.get_write_buffer_size() if self._is_writing and transport else 0

    def start(self, request: bytes) -> "HttpResponse":
        """Write a request; the response follows."""
        transport = self._transport
        assert transport is not None
        response = self._response = HttpResponse(self)
        if self.is_lost:
            response.fail(NotSent("the connection closed before the request"))
        else:
            transport.write(request)
        return response

    def release(self, response: "HttpResponse") -> None:
        """The response is complete: keep the socket for the next request if both sides want that."""
        if self._response is not response:
            return
        self._response = None
        if (
            self.endpoint.keep_alive
            and response.keeps_alive
            and not self._is_writing
            and self.is_usable
        ):
            self._pool.keep(self)
        else:
            self.abort()

    def abort(self) -> None:
        """Close now, whatever is buffered."""
        if self._transport is not None:
            self._transport.abort()

    def arm(self, at_s: float) -> None:
        """Tell the response that is read then that its time may be up."""
        if self.is_lost:
            return  # It has been told more than that.
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_at(at_s, self._expire)
        self.timer_at_s = at_s

    def _expire(self) -> None:
        self._timer = None
        self.timer_at_s = math.inf
        if self._response is not None:
            self._response.expire()

    def pause(self) -> None:
        """Stop reading from the socket."""
        if self._transport is not None and not self.is_lost:
            self._transport.pause_reading()

    def resume(self) -> None:
        """Read from the socket again."""
        if self._transport is not None and not self.is_lost:
            self._transport.resume_reading()

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        # With limits of zero the loop tells exactly when something is left unwritten.
        self._transport.set_write_buffer_limits(high=0, low=0)

    def pause_writing(self) -> None:
        self._is_writing = True

    def resume_writing(self) -> None:
        self._is_writing = False

    def data_received(self, data: bytes) -> None:
        response = self._response
        if response is None:
            self.abort()  # Nobody asked for this.
            return
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade, BadMessage):
            response.fail(BadMessage("the response is no HTTP"))
            self.abort()
            return
        waiter = response.waiter
        if waiter is not None and response.has_body:
            # A piece of a body that somebody waits for: what nearly every read is.
            response.waiter = None
            if not waiter.done():
                waiter.set_result(None)
        else:
            response.arrived(len(data))

    def eof_received(self) -> None:
        return None  # Close our side too.

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_lost = True
        if self._timer is not None:
            self._timer.cancel()
        self._pool.forget(self)
        response = self._response
        if response is not None:
            response.connection_lost(self._is_writing)

    # httptools callbacks

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._response is not None:
            self._response.add_header(name, value)

    def on_headers_complete(self) -> None:
        if self._response is not None:
            self._response.head_complete(self._parser.get_status_code())

    def on_body(self, body: bytes) -> None:
        response = self._response
        if response is None or response.is_lingering or response.is_complete:
            return
        response.chunks.append(body)
        response.has_body = True
        response.buffered_bytes += len(body)
        if response.buffered_bytes > HIGH_WATER_BYTES:
            response.take_pressure()

    def on_message_complete(self) -> None:
        if self._response is not None:
            self._response.message_complete(self._parser.should_keep_alive())


class HttpResponse:
    """One response. Read it to its end or close it; either way the socket is dealt with."""

    __slots__ = (
        "_connection",
        "_error",
        "_has_head",
        "_has_length",
        "_is_paused",
        "_loop",
        "_pending_headers",
        "_total_bytes",
        "_until_s",
        "buffered_bytes",
        "chunks",
        "has_body",
        "headers",
        "is_complete",
        "is_lingering",
        "keeps_alive",
        "received",
        "status",
        "waiter",
    )

    def __init__(self, connection: _Connection) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        self.keeps_alive = False
        self.received = False
        self._connection = connection
        self._loop = asyncio.get_running_loop()
        self.chunks: list[bytes] = []
        self.buffered_bytes = 0
        self.has_body = False
        self._total_bytes = 0
        self._pending_headers = 0
        self._has_head = False
        self._has_length = False
        self.is_complete = False
        self._is_paused = False
        self.is_lingering = False
        self._error: TransportError | None = None
        self.waiter: asyncio.Future[None] | None = None
        self._until_s = 0.0

    async def head(self, until_s: float) -> None:
        """Wait for status and headers. Raises: TransportError, TimeoutError."""
        unwritten_bytes = self._connection.unwritten_bytes
        while not self._has_head:
            if self._error is not None:
                raise self._error
            if not unwritten_bytes:
                await self._wait(until_s)
                continue
            written_by_s = self._loop.time() + self._connection.write_timeout_s
            try:
                await self._wait(min(until_s, written_by_s))
            except TimeoutError:
                if until_s <= written_by_s:
                    raise
                if self._connection.unwritten_bytes == unwritten_bytes:
                    raise NotSent("the request was not taken in time") from None
            unwritten_bytes = self._connection.unwritten_bytes

    async def read(self, until_s: float) -> bytes:
        """Everything that has come since the last call, waiting for something if need be; empty at the end.

        Raises: TransportError, TimeoutError.
        """
        while not self.chunks:
            if self.is_complete:
                self._connection.release(self)
                return b""
            if self._error is not None:
                raise self._error
            # What `_wait` does, without a coroutine of its own: this runs once for each chunk of each stream.
            self._until_s = until_s
            if until_s < self._connection.timer_at_s:
                self._connection.arm(until_s)
            waiter = self.waiter = self._loop.create_future()
            try:
                await waiter
            finally:
                self.waiter = None
        data = self.chunks[0] if len(self.chunks) == 1 else b"".join(self.chunks)
        self.chunks.clear()
        self._total_bytes += self.buffered_bytes
        self.buffered_bytes = 0
        if self._is_paused:
            self._is_paused = False
            self._connection.resume()
        if self._total_bytes > MAX_BODY_BYTES:
            raise BadMessage("the response is too long")
        return data

    async def body(
        self, until_s: float, limit_bytes: int = MAX_BODY_BYTES, *, takes_less: bool = False
    ) -> bytes:
        """All of the body.

        Args:
            takes_less: when time is up or the connection lost, what has come until then will do.

        Raises: BadMessage when it is longer than allowed; as `read` does, unless less will do.
        """
        chunks = []
        size = 0
        try:
            while chunk := await self.read(until_s):
                chunks.append(chunk)
                size += len(chunk)
                if size > limit_bytes:
                    raise BadMessage("the response is too long")
        except (TransportError, TimeoutError):
            if not takes_less or size > limit_bytes:
                raise
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)

    def close(self) -> None:
        """Done with it. A message that is not complete costs the connection, at once."""
        if self.is_complete:
            self._connection.release(self)
        else:
            self._connection.abort()

    def finish_in_background(self) -> None:
        """The answer is complete though the message may not be: give its end a moment, to keep the connection."""
        if self.is_complete:
            self._connection.release(self)
            return
        self.is_lingering = True
        self.chunks.clear()
        if self._is_paused:
            self._connection.resume()
        self._until_s = self._loop.time() + LINGER_S
        if self._until_s < self._connection.timer_at_s:
            self._connection.arm(self._until_s)

    # Called by the connection

    def add_header(self, name: bytes, value: bytes) -> None:
        """One header, in the order of the message. Later ones of the same name are joined."""
        pending = self._pending_headers = self._pending_headers + len(name) + len(value)
        if pending > MAX_HEADER_BYTES:
            raise BadMessage("headers are too long")
        if self._has_head:
            return  # Trailers mean nothing here.
        headers = self.headers
        key, text = name.decode("latin-1").lower(), value.decode("latin-1")
        headers[key] = f"{headers[key]}, {text}" if key in headers else text

    def head_complete(self, status: int) -> None:
        """The head is in; an interim one (1xx) is forgotten."""
        if status < 200:
            self.headers = {}
            return
        if self.is_complete:  # A second response, to a request that nobody made.
            self.keeps_alive = False
            return
        self.status = status
        self.received = True
        self._has_head = True
        headers = self.headers
        self._has_length = (
            "content-length" in headers or "chunked" in headers.get("transfer-encoding", "").lower()
        )

    def take_pressure(self) -> None:
        """More is buffered than the reader takes: stop reading from the socket until it does."""
        if not self._is_paused:
            self._is_paused = True
            self._connection.pause()

    def message_complete(self, keeps_alive: bool) -> None:
        """The message is whole."""
        if self._has_head and not self.is_complete:
            self.is_complete = True
            self.keeps_alive = keeps_alive
        elif self.is_complete:
            self.keeps_alive = False

    def arrived(self, count: int) -> None:
        """A read of the socket was parsed."""
        self.received = True
        if not self._has_head:
            self._total_bytes += count
            if self._total_bytes > MAX_HEADER_BYTES:
                self.fail(BadMessage("headers are too long"))
                self._connection.abort()
                return
        elif self.is_lingering and self.is_complete:
            self._connection.release(self)
            return
        self._wake()

    def connection_lost(self, was_writing: bool) -> None:
        """The socket is gone. Without a length its end is the message's end."""
        if self._has_head and not self._has_length:
            self.is_complete = True
        elif not (self.is_complete or self.is_lingering):
            self.fail(
                NotSent("closed while sending")
                if was_writing and not self.received
                else Lost("closed")
            )
        self._wake()

    def fail(self, error: TransportError) -> None:
        """Nothing more can be read, once what is buffered is."""
        if self._error is None:
            self._error = error
        self._wake()

    def expire(self) -> None:
        """An instant has come at which time was up, unless it has been put off since."""
        waiter = self.waiter
        if not self.is_lingering and (waiter is None or waiter.done()):
            return
        if self._until_s > self._loop.time() + EARLY_S:
            self._connection.arm(self._until_s)
        elif self.is_lingering:
            self._connection.abort()
        elif waiter is not None:
            waiter.set_exception(TimeoutError())

    def _wake(self) -> None:
        if self.waiter is not None and not self.waiter.done():
            self.waiter.set_result(None)

    async def _wait(self, until_s: float) -> None:
        self._until_s = until_s
        if until_s < self._connection.timer_at_s:
            self._connection.arm(until_s)
        waiter = self.waiter = self._loop.create_future()
        try:
            await waiter
        finally:
            self.waiter = None


def _message(head: bytes, body: bytes) -> bytes:
    # Made anew for each time that it is sent: to keep it would be to have every prompt twice until its answer comes.
    return b"%b\r\ncontent-length: %d\r\n\r\n%b" % (head, len(body), body)


async def _headed(response: HttpResponse, until_s: float) -> HttpResponse:
    """A response once its head has come; closed when that fails."""
    try:
        await response.head(until_s)
    except BaseException:
        response.close()
        raise
    return response


def header_lines(headers: Sequence[tuple[str, str]]) -> bytes:
    """Headers as they go on the wire, without the last line end.

    Raises:
        ValueError: a name or value would break out of its line.
    """
    lines = []
    for name, value in headers:
        if any(c in name + value for c in "\r\n\0"):
            raise ValueError(f"header {name!r} holds a line end")
        lines.append(f"{name}: {value}")
    return "\r\n".join(lines).encode("latin-1")
