"""The proxy does what it is told at the byte it is told, and knows when the other side has left."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from time import monotonic

import pytest

from tests.faults.proxy import (
    LINGER_NOT,
    Ending,
    Fault,
    Fin,
    Hole,
    Passage,
    Proxy,
    Say,
    Trickle,
    proxy,
)
from tests.faults.waiting import until
from tests.support.upstream import Hang, Reset

ANSWER = bytes(range(100))
QUESTION = b"question"


async def _answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answers each question, and closes when the peer does."""
    while await reader.read(len(QUESTION)):
        writer.write(ANSWER)
    writer.close()


@asynccontextmanager
async def between(
    choose: Callable[[bytes], Fault | None], on_accept: Ending | None = None
) -> AsyncIterator[tuple[Proxy, asyncio.StreamReader, asyncio.StreamWriter]]:
    """A provider of `ANSWER`, the proxy, and a connection to it over which `QUESTION` was asked."""
    server = await asyncio.start_server(_answer, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with proxy(port, choose, on_accept=on_accept) as passing:
        reader, writer = await asyncio.open_connection("127.0.0.1", passing.port)
        writer.write(QUESTION)
        yield passing, reader, writer
        writer.close()
    server.close()


async def everything(reader: asyncio.StreamReader) -> tuple[bytes, str]:
    """All that comes, and how it ends; silence of 0.1 s is an end too."""
    found = b""
    while True:
        try:
            data = await asyncio.wait_for(reader.read(1000), 0.1)
        except ConnectionResetError:
            return found, "RST"
        except TimeoutError:
            return found, "silence"
        if not data:
            return found, "FIN"
        found += data


@pytest.mark.parametrize(
    ("ending", "how"),
    [
        (Reset(), "RST"),
        (Fin(), "FIN"),
        (Hang(), "silence"),
        (Hole(), "silence"),
        (Trickle(60), "silence"),
        (Say(b"!"), "FIN"),
    ],
    ids=["reset", "fin", "hang", "hole", "trickle", "say"],
)
@pytest.mark.parametrize("at", [0, 1, 99, 100])
async def test_a_fault_comes_at_its_byte(ending: Ending, how: str, at: int):
    async with between(lambda sent: Fault(at, ending)) as (passing, reader, _):
        since_s = monotonic()

        data, seen = await everything(reader)

        more = {Say: b"!", Trickle: ANSWER[at : at + 1]}.get(type(ending), b"")
        (record,) = passing.connections
        assert (data, seen) == (ANSWER[:at] + more, how)
        assert record.down_bytes == len(data)
        assert record.up_bytes == len(QUESTION)
        assert record.fired == Fault(at, ending)
        assert record.fired_at_s is not None
        assert since_s <= record.fired_at_s <= monotonic()


async def test_one_byte_at_a_time():
    async with between(lambda sent: Fault(95, Trickle(0.05))) as (_, reader, _writer):
        assert await reader.readexactly(95) == ANSWER[:95]

        since_s = monotonic()
        sizes = [len(await reader.read(1000)) for _ in range(5)]

        assert sizes == [1] * 5
        assert monotonic() - since_s >= 0.2


@pytest.mark.parametrize(("ending", "how"), [(Reset(), "RST"), (Hole(), "silence")])
async def test_a_connection_may_be_doomed_from_the_start(ending: Ending, how: str):
    async with between(lambda sent: None, ending) as (_, reader, _writer):
        assert await everything(reader) == (b"", how)


async def test_what_was_asked_decides_and_turns_are_apart():
    asked: list[bytes] = []

    def choose(sent: bytes) -> Fault | None:
        asked.append(sent)
        return Fault(10, Fin()) if len(asked) == 3 else None

    async with between(choose) as (passing, reader, writer):
        for _ in range(2):
            assert await reader.readexactly(100) == ANSWER
            writer.write(QUESTION)
        assert await everything(reader) == (ANSWER[:10], "FIN")

    assert asked == [QUESTION] * 3
    assert passing.connections[0].down_bytes == 210


@pytest.mark.parametrize("how", ["FIN", "RST"])
async def test_who_leaves_is_seen(how: str):
    async with between(lambda sent: Fault(50, Hang())) as (passing, reader, writer):
        await reader.readexactly(50)
        (record,) = passing.connections
        assert (record.left, record.left_at_s) == ("", None)

        since_s = monotonic()
        if how == "RST":
            connection: socket.socket = writer.get_extra_info("socket")
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_NOT)
            writer.transport.abort()
        else:
            writer.close()
        await asyncio.wait_for(record.gone.wait(), 5)

        assert record.left == how
        assert record.left_at_s is not None
        assert since_s <= record.left_at_s <= monotonic()
        await until(lambda: passing.open_sockets == 0, "the proxy's socket closed")


async def test_it_refuses_and_listens_again():
    async with between(lambda sent: None) as (passing, reader, _):
        passing.refuse()
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", passing.port)
        assert await reader.readexactly(100) == ANSWER

        await passing.listen()
        _, writer = await asyncio.open_connection("127.0.0.1", passing.port)
        writer.close()


def test_a_record_of_a_reset_does_not_claim_that_the_gateway_left():
    record = Passage(0.0, fired=Fault(0, Reset()))

    record.leave("RST")

    assert record.left == ""
