"""Upstreams that fail below HTTP: resets, connections that never come about, broken TLS, cuts at a given byte."""

import asyncio
import re
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from time import monotonic
from typing import Final

import trustme

from tests.faults.proxy import LINGER_NOT, Fin
from tests.faults.wires import MARK, Counts, Wire, in_chunks, pieces, said
from tests.support.upstream import END, Hang, Pause, Reset, chunk, head

LENGTH: Final = re.compile(rb"\r\ncontent-length: *([0-9]+)", re.IGNORECASE)
CHUNKED: Final = re.compile(rb"\r\ntransfer-encoding: *chunked", re.IGNORECASE)
# Of JSON in one line, which holds no line ends.
CHUNK: Final = re.compile(rb"[0-9a-f]+\r\n([^\r]+)\r\n")

Step = bytes | Pause | Hang | Reset | Fin


@dataclass
class Ask:
    """One request as an upstream saw it.

    Attributes:
        mark: what makes the request unlike any other, found in its prompt.
    """

    wire: Wire
    mark: str
    is_stream: bool
    head: str
    at_s: float = field(default_factory=monotonic)
    closed_at_s: float | None = None
    closed: asyncio.Event = field(default_factory=asyncio.Event)

    @staticmethod
    def of(wire: Wire, request: bytes) -> "Ask":
        """A whole request, read."""
        head, _, body = request.partition(b"\r\n\r\n")
        if CHUNKED.search(head):
            body = b"".join(CHUNK.findall(body))
        found = MARK.search(body)
        mark = found[0].decode() if found else ""
        text = head.decode("latin-1")
        return Ask(wire, mark, wire.asks_for_stream(text, body), text)


Script = Callable[[Ask], Iterable[Step]]


class FaultyUpstream:
    """Does what `script` says for each request, and counts.

    Attributes:
        connections: sockets accepted.
        open_sockets: of these, open now.
        closings: connections that the peer closed while it was waiting for an answer.
        asks: requests read, the latest ones first to be forgotten by whoever clears the list.
    """

    def __init__(self, wire: Wire, script: Script, *, accepts: str = "requests") -> None:
        self.wire = wire
        self.port = 0
        self.scheme = "http"
        self.connections = 0
        self.open_sockets = 0
        self.closings = 0
        self.asks: list[Ask] = []
        self._script = script
        self._accepts = accepts

    @property
    def url(self) -> str:
        """Without a path."""
        return f"{self.scheme}://127.0.0.1:{self.port}"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        self.connections += 1
        self.open_sockets += 1
        try:
            if self._accepts == "silence":  # The peer's first words are read, and never answered.
                ask = Ask(self.wire, "", False, "")
                self.asks.append(ask)
                while await reader.read(65536):
                    pass
                self._closed(ask)
                return
            while await self._exchange(reader, writer):
                pass
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            self.open_sockets -= 1
            writer.close()

    def _reset(self, writer: asyncio.StreamWriter) -> None:
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_NOT)
        writer.transport.abort()

    def _closed(self, ask: Ask) -> None:
        ask.closed_at_s = monotonic()  # The loop's own clock stands still within a turn.
        self.closings += 1
        ask.closed.set()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = await reader.readuntil(b"\r\n\r\n")
        if found := LENGTH.search(head):
            body = await reader.readexactly(int(found[1]))
        else:  # Other gateways send chunks, whose last one is empty.
            body = await reader.readuntil(b"0\r\n\r\n")
        ask = Ask.of(self.wire, head + body)
        self.asks.append(ask)
        gone = asyncio.ensure_future(reader.read(1))
        try:
            for step in self._script(ask):
                if gone.done() or writer.transport.is_closing():
                    break
                if isinstance(step, bytes):
                    writer.write(step)
                    await writer.drain()
                elif isinstance(step, Reset):
                    self._reset(writer)
                    return False
                elif isinstance(step, Fin):
                    return False
                else:
                    limit_s = step.seconds if isinstance(step, Pause) else None
                    await asyncio.wait([gone], timeout=limit_s)
            if gone.done() or writer.transport.is_closing():
                self._closed(ask)
                return False
            return True
        finally:
            gone.cancel()
            await asyncio.wait([gone])
            if not gone.cancelled():
                gone.exception()


@asynccontextmanager
async def faulty(
    wire: Wire, script: Script, *, accepts: str = "requests", tls: ssl.SSLContext | None = None
) -> AsyncIterator[FaultyUpstream]:
    """On a free port of loopback.

    Args:
        accepts: what it does with a connection: serve `requests`, or keep `silence`.
    """
    upstream = FaultyUpstream(wire, script, accepts=accepts)
    server = await asyncio.start_server(upstream.serve, "127.0.0.1", 0, ssl=tls, backlog=2048)
    upstream.port = server.sockets[0].getsockname()[1]
    upstream.scheme = "https" if tls or accepts == "silence" else "http"
    try:
        yield upstream
    finally:
        server.close()


def unknown_authority() -> ssl.SSLContext:
    """A server's certificate that nobody vouches for."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(context)
    return context


@contextmanager
def refusing() -> Iterator[str]:
    """A URL that nobody listens at. The port is held, so that nobody else gets it."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{held.getsockname()[1]}"


@contextmanager
def black_hole() -> Iterator[str]:
    """A URL whose SYNs get no answer: the queue of its listener is full."""
    with ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(4):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


JSON_HEAD: Final = head(200, "application/json")


def head_of(ask: Ask) -> bytes:
    """The head of an answer, as it was asked for."""
    return head(200, ask.wire.stream_type) if ask.is_stream else JSON_HEAD


def complete(ask: Ask, provider: str, counts: Counts | None = Counts()) -> list[Step]:  # noqa: B008
    """The whole answer of a provider, as it was asked for."""
    text = said(ask.mark, provider)
    if ask.is_stream:
        return [head_of(ask) + in_chunks(ask.wire.stream(text, counts)) + END]
    return [*whole(ask.wire.whole(text, counts))]


@dataclass(frozen=True)
class Layout:
    """An answer as it goes over the wire, and places in it, counted in bytes from its beginning.

    Attributes:
        head: where its head ends.
        opened: where what comes before content ends.
        first: where the first content is all there.
        begun: where the first half of the text is all there.
        finish: from where on it may be taken for whole.
    """

    data: bytes
    head: int
    opened: int
    first: int
    begun: int
    finish: int

    @property
    def in_chunk(self) -> int:
        """The middle of what holds the first content."""
        return (self.opened + self.first) // 2


def layout(ask: Ask, provider: str) -> Layout:
    """Of the answer that `complete` gives. One that is not streamed shows nothing before its end."""
    (data,) = complete(ask, provider)
    assert isinstance(data, bytes)
    end_of_head = data.index(b"\r\n\r\n") + 4
    size = len(data)
    if not ask.is_stream:
        half = end_of_head + (size - end_of_head) // 2
        return Layout(data, end_of_head, end_of_head, size, half, size)
    # The line end of a chunk adds nothing to what it holds.
    chunks = [len(chunk(event)) for event in ask.wire.stream(said(ask.mark, provider))]
    opened = end_of_head + chunks[0]
    half = len(pieces(said(ask.mark, provider))) // 2
    return Layout(
        data,
        end_of_head,
        opened,
        opened + chunks[1] - 2,
        opened + sum(chunks[1 : 1 + half]),
        data.rindex(ask.wire.finish),
    )


def whole(body: bytes, status: int = 200, *headers: str) -> list[bytes]:
    """A JSON response."""
    lines = [
        f"HTTP/1.1 {status} X",
        "content-type: application/json",
        f"content-length: {len(body)}",
        *headers,
    ]
    return [("\r\n".join(lines) + "\r\n\r\n").encode() + body]


@asynccontextmanager
async def healthy(
    wire: Wire, provider: str, *, tls: ssl.SSLContext | None = None
) -> AsyncIterator[FaultyUpstream]:
    """An upstream that answers."""
    async with faulty(wire, lambda ask: complete(ask, provider), tls=tls) as upstream:
        yield upstream
