"""Callers who have stopped reading, when their requests have to end: nothing is held for them, and they learn why."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Final, Protocol

import grpc
import grpc.aio
import pytest

from tests.edges.errors import reason_of
from tests.faults.callers import chat, spec
from tests.faults.test_slow_readers import NARROW, WIRE, Flood
from tests.faults.upstreams import FaultyUpstream, faulty
from tests.faults.waiting import until
from tests.support.service import model, service
from trunkline.v1.completion_service_pb2 import CompleteRequest
from trunkline.v1.completion_service_pb2_grpc import CompletionServiceStub
from trunkline_server.app import Service
from trunkline_server.edges.grpc import stall

BLOCKED_S: Final = 40.0
# A write that is held up has a quarter of a second to end.
AT_ONCE_S: Final = 2.0
TIMEOUT_S: Final = 60.0


class Reader(Protocol):
    """A caller who reads nothing before it is told to."""

    async def rest(self) -> str:
        """Reads on to the end. The reason that its answer ended for."""
        ...


class GrpcReader:
    """Over a connection of its own."""

    def __init__(self, channel: grpc.aio.Channel, *, is_paced: bool) -> None:
        asked = CompleteRequest(spec=spec("m", "say mark-slow-1"))
        if is_paced:
            asked.stream_options.heartbeat_interval.FromSeconds(1)
        self._call: Any = CompletionServiceStub(channel).Complete(asked, timeout=TIMEOUT_S)

    async def take(self) -> None:
        """One message."""
        async with asyncio.timeout(TIMEOUT_S):
            assert await self._call.read() is not grpc.aio.EOF

    def leave(self) -> None:
        """Cancels the call."""
        self._call.cancel()

    async def rest(self) -> str:
        """Of the status."""
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            [event async for event in self._call]
        return reason_of(caught.value)[1]


class SseReader:
    """Takes no more than its socket does by itself."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection

    async def rest(self) -> str:
        """Of the error event, which is the last one."""
        loop = asyncio.get_running_loop()
        last = b""
        while data := await loop.sock_recv(self._connection, 65_536):
            last = (last + data)[-2_000:]
        _, _, event = last.rpartition(b"data: ")
        assert b'"error"' in event
        assert b"[DONE]" not in event
        assert event.endswith(b"\n\n\r\n0\r\n\r\n")  # The response ends as one that is whole.
        return "DRAINING" if b"shutting down" in event else event.decode()


@asynccontextmanager
async def unread(way: str) -> AsyncIterator[tuple[Service, FaultyUpstream, Reader]]:
    """One request whose caller reads nothing, so that everything before it is full."""
    flood = Flood(50)
    async with (
        faulty(WIRE, flood.script) as upstream,
        service(providers=[WIRE.provider("p", upstream.url)], models=[model("m", "p")]) as running,
        grpc.aio.insecure_channel(running.grpc_address, NARROW) as channel,
    ):
        if way == "SSE":
            host, _, port = running.http_address.rpartition(":")
            with socket.socket() as connection:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16_384)
                connection.setblocking(False)
                loop = asyncio.get_running_loop()
                await loop.sock_connect(connection, (host, int(port)))
                await loop.sock_sendall(connection, chat("m", "say mark-slow-1", stream=True))
                await flood.blocked(BLOCKED_S)
                yield running, upstream, SseReader(connection)
        else:
            reader = GrpcReader(channel, is_paced=way == "paced")
            await until(lambda: bool(flood.pieces), "it has begun")
            if way != "slow":
                await flood.blocked(BLOCKED_S)
            yield running, upstream, reader


def is_free(running: Service, upstream: FaultyUpstream) -> Callable[[], bool]:
    """Is nothing held any more?"""
    (candidate,) = running.catalog.candidates
    health = running.circuits.health(candidate)
    return lambda: (
        running.admission.in_flight == 0
        and health.concurrency.in_flight == 0
        and upstream.open_sockets == 0
    )


@pytest.mark.parametrize("way", ["gRPC", "paced", "SSE"])
async def test_who_reads_on_after_the_request_had_to_end_finds_out_why(way: str):
    async with unread(way) as (running, upstream, reader):
        assert running.admission.in_flight == 1
        assert running.admission.expel() == 1
        await until(is_free(running, upstream), "nothing is held", AT_ONCE_S)

        assert await asyncio.wait_for(reader.rest(), TIMEOUT_S) == "DRAINING"


async def test_nothing_is_held_for_who_leaves_just_as_the_request_has_to_end():
    async with unread("paced") as (running, upstream, reader):
        assert isinstance(reader, GrpcReader)
        assert running.admission.expel() == 1
        reader.leave()

        await until(is_free(running, upstream), "nothing is held", AT_ONCE_S)


async def test_nothing_is_held_for_who_never_reads(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(stall, "WRITE_STALL_S", 4.0)
    async with unread("gRPC") as (running, upstream, reader):
        await until(is_free(running, upstream), "nothing is held", 10.0)

        assert await asyncio.wait_for(reader.rest(), TIMEOUT_S) == "DEADLINE_EXCEEDED"


async def test_who_takes_one_message_now_and_then_is_waited_for(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(stall, "WRITE_STALL_S", 3.0)
    async with unread("slow") as (running, _, reader):
        assert isinstance(reader, GrpcReader)
        for _ in range(16):
            await reader.take()
            await asyncio.sleep(0.4)

        assert running.admission.in_flight == 1
