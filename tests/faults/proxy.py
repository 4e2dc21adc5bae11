"""A proxy below HTTP: bytes between the gateway and a provider that is well, until the place where a fault is due.

A connection carries turns: what the gateway sends, then what the provider answers. When the first byte of an answer is
to be passed, `choose` looks at what was asked and names the fault, whose place is counted from that byte. So the
provider behind stays a plain one, and a fault can be put at any byte of an answer whose bytes are known.
"""

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from time import monotonic
from typing import Final, Literal, assert_never

from tests.support.upstream import Hang, Reset

READ_BYTES: Final = 65536
LINGER_NOT: Final = struct.pack("ii", 1, 0)  # Closing sends a reset.
LINGER_S: Final = 5.0  # For the gateway to close after the provider did.


@dataclass(frozen=True)
class Fin:
    """Close in good order."""


@dataclass(frozen=True)
class Hole:
    """From now on nothing passes in either direction, and nobody is told: a connection that is open at one end."""


@dataclass(frozen=True)
class Trickle:
    """From now on one byte at a time."""

    every_s: float = 1.0


@dataclass(frozen=True)
class Say:
    """Bytes that are not the provider's, and the end."""

    data: bytes


Ending = Reset | Fin | Hang | Hole | Trickle | Say


@dataclass(frozen=True)
class Fault:
    """What happens once `at` bytes of an answer have passed, and `after_s` more."""

    at: int
    ending: Ending
    after_s: float = 0.0


Choose = Callable[[bytes], Fault | None]


@dataclass
class Passage:
    """One connection of the gateway, as the proxy saw it. Instants are of `time.monotonic`.

    Attributes:
        sent: what the gateway sent since the last turn began to be answered.
        asked: what was asked in that turn.
        asked_at_s: when the first of it came.
        up_bytes: passed to the provider, all turns together.
        down_bytes: passed to the gateway.
        fired: the fault that happened, and when.
        left: how the gateway closed the connection, and when; empty if it was not the first to close.
    """

    opened_at_s: float
    sent: bytearray = field(default_factory=bytearray)
    asked: bytes = b""
    asked_at_s: float = 0.0
    up_bytes: int = 0
    down_bytes: int = 0
    fired: Fault | None = None
    fired_at_s: float | None = None
    left: Literal["", "FIN", "RST"] = ""
    left_at_s: float | None = None
    gone: asyncio.Event = field(default_factory=asyncio.Event)

    def leave(self, how: Literal["FIN", "RST"]) -> None:
        """The gateway closed; unless it was the proxy, which cut it off."""
        if self.fired is None or not isinstance(self.fired.ending, Reset):
            self.left, self.left_at_s = how, monotonic()


class Proxy:
    """Passes bytes on to `port`. `connections` holds one record for each connection of the gateway."""

    def __init__(self, port: int, choose: Choose, on_accept: Ending | None = None) -> None:
        self.port = 0
        self.scheme = "http"
        self.connections: list[Passage] = []
        self.open_sockets = 0
        self._choose = choose
        self._on_accept = on_accept
        self._is_closing = False
        self._target = port
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    @property
    def url(self) -> str:
        """Without a path."""
        return f"{self.scheme}://127.0.0.1:{self.port}"

    async def listen(self) -> None:
        """Accept connections; after `refuse`, on the same port again."""
        self._server = await asyncio.start_server(
            self._serve, "127.0.0.1", self.port, backlog=2048, reuse_address=True
        )
        self.port = self._server.sockets[0].getsockname()[1]

    def refuse(self) -> None:
        """Refuse connections from now on. Those that are open stay."""
        assert self._server is not None
        self._server.close()

    async def close(self) -> None:
        """End all of it."""
        self._is_closing = True
        self.refuse()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        passage = Passage(monotonic())
        self.connections.append(passage)
        self.open_sockets += 1
        writer.transport.set_write_buffer_limits(
            0
        )  # What is drained has been handed to the kernel.
        try:
            await self._pass(passage, reader, writer)
        except ConnectionError:
            pass  # Both ends are closed below.
        except asyncio.CancelledError:
            if (
                not self._is_closing
            ):  # Else it was us, and asyncio's streams do not expect that of a task of theirs.
                raise
        finally:
            self.open_sockets -= 1
            self._tasks.discard(task)
            writer.close()

    async def _pass(
        self, passage: Passage, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        if self._on_accept is not None:
            watching = asyncio.create_task(_up(passage, reader, None))
            try:
                await _fire(passage, Fault(0, self._on_accept), b"", None, writer)
            finally:
                await _ended(watching)
            return
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._target)
        asking = asyncio.create_task(_up(passage, reader, far_writer))
        answering = asyncio.create_task(self._down(passage, far_reader, writer))
        try:
            await asyncio.wait({asking, answering}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            far_writer.close()
            await _ended(asking)
            await _ended(answering)

    async def _down(
        self, passage: Passage, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """What the provider says, up to the fault."""
        fault: Fault | None = None
        passed = 0
        while data := await reader.read(READ_BYTES):
            if passage.sent:  # A turn begins.
                passage.asked = bytes(passage.sent)
                passage.sent.clear()
                fault, passed = self._choose(passage.asked), 0
            if fault is not None and passed + len(data) >= fault.at:
                rest = fault.at - passed
                await _down_to(passage, writer, data[:rest])
                await _fire(passage, fault, data[rest:], reader, writer)
                return
            await _down_to(passage, writer, data)
            passed += len(data)


async def _up(
    passage: Passage, reader: asyncio.StreamReader, far: asyncio.StreamWriter | None
) -> None:
    """What the gateway says, until it closes."""
    try:
        while data := await reader.read(READ_BYTES):
            if passage.fired is not None and isinstance(passage.fired.ending, Hole):
                continue
            if not passage.sent:
                passage.asked_at_s = monotonic()
            passage.sent += data
            passage.up_bytes += len(data)
            if far is not None and not far.is_closing():
                far.write(data)
                await far.drain()
        passage.leave("FIN")
    except ConnectionError:
        passage.leave("RST")
    finally:
        passage.gone.set()


async def _down_to(passage: Passage, writer: asyncio.StreamWriter, data: bytes) -> None:
    if data:
        writer.write(data)
        await writer.drain()
        passage.down_bytes += len(data)


async def _fire(
    passage: Passage,
    fault: Fault,
    rest: bytes,
    reader: asyncio.StreamReader | None,
    writer: asyncio.StreamWriter,
) -> None:
    """The fault, with what of the answer is read and not passed on. Back when the connection is over."""
    if fault.after_s:
        await asyncio.sleep(fault.after_s)
    passage.fired, passage.fired_at_s = fault, monotonic()
    match fault.ending:
        case Reset():
            connection: socket.socket = writer.get_extra_info("socket")
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_NOT)
            writer.transport.abort()
        case Fin():
            await _finish(passage, writer)
        case Say(data):
            await _down_to(passage, writer, data)
            await _finish(passage, writer)
        case Hang() | Hole():
            await passage.gone.wait()
        case Trickle(every_s):
            while not passage.gone.is_set():
                for byte in rest:
                    await _down_to(passage, writer, bytes([byte]))
                    with suppress(TimeoutError):
                        await asyncio.wait_for(passage.gone.wait(), every_s)
                        return
                rest = await reader.read(READ_BYTES) if reader else b""
                if not rest:
                    await _finish(passage, writer)
        case _:
            assert_never(fault.ending)


async def _finish(passage: Passage, writer: asyncio.StreamWriter) -> None:
    writer.write_eof()
    with suppress(TimeoutError):
        await asyncio.wait_for(passage.gone.wait(), LINGER_S)


async def _ended(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait([task])
    if not task.cancelled():
        task.exception()  # A broken connection is what this is about.


@asynccontextmanager
async def proxy(
    port: int,
    choose: Choose = lambda sent: None,
    *,
    on_accept: Ending | None = None,
) -> AsyncIterator[Proxy]:
    """On a free port of loopback, before the provider at `port`."""
    passing = Proxy(port, choose, on_accept)
    await passing.listen()
    try:
        yield passing
    finally:
        await passing.close()
