"""The phases of an upstream request that have limits of their own, over real sockets."""

import asyncio
import socket
from collections.abc import AsyncIterator, Container, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest

from tests.providers.specs import ask as ask_for
from tests.support.upstream import (
    END,
    Hang,
    Pause,
    Reset,
    Step,
    chunk,
    delta,
    event,
    finish,
    head,
    upstream,
    usage,
)
from trunkline.v1.completion_spec_pb2 import CompletionSpec
from trunkline_server.core.candidate import Candidate
from trunkline_server.core.errors import UpstreamError
from trunkline_server.core.failure import Failure
from trunkline_server.core.ports import Prompt
from trunkline_server.providers.registry import DIALECTS, Address, Provider, Upstreams
from trunkline_server.providers.transport import Endpoint, HttpTransport, Lost, NotSent, Timeouts

LONG_S = 30.0
REQUEST_BYTES = 16_000_000  # More than sockets buffer.
PING = chunk(": ping\n\n")


@dataclass
class Sluggish:
    """A server that takes bytes only when it is let."""

    port: int
    may_read: asyncio.Event


@asynccontextmanager
async def sluggish() -> AsyncIterator[Sluggish]:
    """On a free port."""
    loop = asyncio.get_running_loop()
    may_read = asyncio.Event()

    async def serve(listener: socket.socket) -> None:
        connection, _ = await loop.sock_accept(listener)
        with connection:
            await may_read.wait()
            left_bytes = REQUEST_BYTES
            while left_bytes > 0:
                left_bytes -= len(await loop.sock_recv(connection, 65536))
            await loop.sock_sendall(connection, b"HTTP/1.1 204 X\r\n\r\n")

    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        serving = asyncio.create_task(serve(listener))
        yield Sluggish(listener.getsockname()[1], may_read)
        serving.cancel()
        await asyncio.wait([serving])


async def send(transport: HttpTransport, port: int) -> int:
    """A request too large for any buffer; the answer's status."""
    until_s = asyncio.get_running_loop().time() + LONG_S
    response = await transport.send(
        Endpoint("127.0.0.1", port), b"POST / HTTP/1.1\r\nhost: x", bytes(REQUEST_BYTES), until_s
    )
    response.close()
    return response.status


async def test_a_request_that_nobody_takes_was_not_sent():
    began_s = asyncio.get_running_loop().time()
    async with sluggish() as server, HttpTransport(Timeouts(write_s=0.1)) as transport:
        with pytest.raises(NotSent):
            await send(transport, server.port)
        assert transport.open_connections == 0 or await _gone(transport)

    assert asyncio.get_running_loop().time() - began_s < 1.0


async def _gone(transport: HttpTransport) -> bool:
    async with asyncio.timeout(1):
        while transport.open_connections:  # noqa: ASYNC110 - a number tells nobody
            await asyncio.sleep(0.005)
    return True


async def test_a_request_that_is_taken_slowly_is_waited_for():
    async with sluggish() as server, HttpTransport(Timeouts(write_s=0.2)) as transport:
        asyncio.get_running_loop().call_later(0.1, server.may_read.set)

        status = await send(transport, server.port)

    assert status == 204


@dataclass
class Forgetful:
    """A server behind a balancer that forgets connections: they are reset when they are used again.

    Attributes:
        asked: the number of the connection of each request that came in, from 1.
        forgotten: such numbers.
        last_words: what comes on a forgotten connection before its reset.
    """

    port: int = 0
    asked: list[int] = field(default_factory=list)
    forgotten: Container[int] = ()
    last_words: bytes = b""
    connections: int = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        self.connections += 1
        number = self.connections
        try:
            while await reader.readuntil(b"\r\n\r\n"):
                self.asked.append(number)
                if number in self.forgotten:
                    writer.write(self.last_words)
                    await writer.drain()
                    writer.transport.abort()
                    return
                writer.write(b"HTTP/1.1 204 X\r\ncontent-length: 0\r\n\r\n")
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


@asynccontextmanager
async def forgetful(
    kept: int, timeouts: Timeouts | None = None
) -> AsyncIterator[tuple[Forgetful, HttpTransport]]:
    """A server, and a transport that keeps so many connections to it."""
    server = Forgetful()
    listening = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    server.port = listening.sockets[0].getsockname()[1]
    try:
        async with HttpTransport(timeouts or Timeouts()) as transport:
            await asyncio.gather(*(ask(transport, server) for _ in range(kept)))
            assert sorted(server.asked) == list(range(1, kept + 1))
            server.asked.clear()
            yield server, transport
    finally:
        listening.close()


async def ask(transport: HttpTransport, server: Forgetful) -> int:
    """A small request; the answer's status."""
    until_s = asyncio.get_running_loop().time() + LONG_S
    endpoint = Endpoint("127.0.0.1", server.port)
    response = await transport.send(endpoint, b"POST / HTTP/1.1\r\nhost: x", b"", until_s)
    response.close()
    return response.status


@pytest.mark.parametrize("kept", [1, 2, 8])
async def test_what_a_kept_connection_lost_unseen_is_sent_once_more_on_a_new_one(kept):
    async with forgetful(kept) as (server, transport):
        server.forgotten = range(1, kept + 1)

        assert [await ask(transport, server) for _ in range(2)] == [204, 204]

    # The others that were kept are not tried: who forgot one of them may have forgotten all.
    first, *others = server.asked
    assert first <= kept
    assert others == [kept + 1, kept + 1]


async def test_requests_that_lose_their_kept_connections_at_once_are_all_sent_once_more():
    async with forgetful(4) as (server, transport):
        server.forgotten = range(1, 5)

        assert await asyncio.gather(*(ask(transport, server) for _ in range(4))) == [204] * 4

    assert sorted(server.asked) == list(range(1, 9))


async def test_what_was_lost_after_a_while_may_have_run_and_is_not_sent_again():
    async with forgetful(1, Timeouts(stale_s=0.0)) as (server, transport):
        server.forgotten = range(1, 2)

        with pytest.raises(Lost):
            await ask(transport, server)

    assert server.asked == [1]


async def test_what_the_new_connection_loses_too_is_lost():
    async with forgetful(3) as (server, transport):
        server.forgotten = range(1, 100)

        with pytest.raises(Lost):
            await ask(transport, server)

    assert server.asked[1:] == [4]


async def test_what_began_to_be_answered_is_not_sent_again():
    async with forgetful(1) as (server, transport):
        server.forgotten, server.last_words = range(1, 2), b"HTTP/1.1 2"

        with pytest.raises(Lost):
            await ask(transport, server)

    assert server.asked == [1]


@asynccontextmanager
async def answer_to(
    steps: Sequence[Step],
    gap_s: float = LONG_S,
    refusal_s: float = LONG_S,
    dialect: str = "openai",
) -> AsyncIterator[Upstreams]:
    """The adapter over one provider that answers so."""
    async with upstream(steps) as scripted, HttpTransport() as transport:
        address = Address(Endpoint("127.0.0.1", scripted.port), "/v1", [])
        provider = Provider("a", DIALECTS[dialect].translator, address)
        yield Upstreams(transport, {"a": provider}, lambda: "id", gap_s, refusal_s)


async def read_on(upstreams: Upstreams) -> list[str | None]:
    """Event names, until the third event."""
    loop = asyncio.get_running_loop()
    until_s = loop.time() + LONG_S
    answer = await upstreams.open(
        Candidate("a", "m", "m"), Prompt(CompletionSpec(), stream=True), until_s
    )
    kinds: list[str | None] = []
    try:
        while not kinds:
            kinds += [e.WhichOneof("event") for e in await answer.read(until_s)]
    finally:
        answer.close()
    return kinds


async def read_all(steps: Sequence[Step], dialect: str = "openai") -> list[str | None]:
    """Event names of an answer, to its end."""
    until_s = asyncio.get_running_loop().time() + LONG_S
    kinds: list[str | None] = []
    async with answer_to(steps, dialect=dialect) as upstreams:
        answer = await upstreams.open(
            Candidate("a", "m", "m"), Prompt(ask_for(), stream=True), until_s
        )
        try:
            while not answer.is_complete:
                kinds += [e.WhichOneof("event") for e in await answer.read(until_s)]
        finally:
            answer.close()
    return kinds


async def test_a_provider_whose_keep_alives_stop_is_given_up():
    async with answer_to([head(), PING, Hang()], gap_s=0.05) as upstreams:
        with pytest.raises(UpstreamError) as caught:
            await read_on(upstreams)

    assert caught.value.failure is Failure.SLOW


async def test_keep_alives_keep_the_wait_alive():
    pings: list[Step] = [PING, Pause(0.05)]
    steps = [head(), *pings * 6, event(delta("x")), Hang()]
    async with answer_to(steps, gap_s=0.2) as upstreams:
        assert await read_on(upstreams) == ["text_delta"]


async def test_who_never_sent_a_keep_alive_may_be_silent_for_longer():
    async with answer_to([head(), Pause(0.2), event(delta("x")), Hang()], gap_s=0.05) as upstreams:
        assert await read_on(upstreams) == ["text_delta"]


REFUSED = b"HTTP/1.1 429 X\r\ncontent-type: application/json\r\nretry-after: 30\r\n"


@pytest.mark.parametrize("refusal", [b"", b'{"error": {"code": "insufficient_'])
async def test_a_refusal_whose_body_does_not_arrive_is_taken_by_its_status(refusal):
    steps = [REFUSED + b"content-length: 100\r\n\r\n" + refusal, Hang()]
    async with answer_to(steps, refusal_s=0.05) as upstreams:
        with pytest.raises(UpstreamError) as caught:
            await read_on(upstreams)

    assert (caught.value.failure, caught.value.http_status) == (Failure.THROTTLED, 429)
    assert caught.value.retry_after_s == 30


@pytest.mark.parametrize("last", [Hang(), Reset()], ids=["late", "lost"])
async def test_a_refusal_is_understood_though_its_end_does_not_arrive(last):
    body = b'{"error": {"message": "No.", "code": "insufficient_quota"}}'
    steps = [REFUSED + b"transfer-encoding: chunked\r\n\r\n", chunk(body), Pause(0.05), last]
    async with answer_to(steps, refusal_s=0.1) as upstreams:
        with pytest.raises(UpstreamError) as caught:
            await read_on(upstreams)

    assert (caught.value.failure, caught.value.code) == (Failure.EXHAUSTED, "insufficient_quota")
    assert caught.value.retry_after_s == 30


async def test_a_refusal_is_not_waited_for_beyond_the_attempts_own_time():
    async with answer_to([REFUSED + b"content-length: 100\r\n\r\n", Hang()]) as upstreams:
        until_s = asyncio.get_running_loop().time() + 0.05
        with pytest.raises(UpstreamError) as caught:
            await upstreams.open(
                Candidate("a", "m", "m"), Prompt(CompletionSpec(), stream=True), until_s
            )

    assert caught.value.failure is Failure.THROTTLED


@pytest.mark.parametrize(
    "rest",
    [
        [chunk("data: {broken\n\n")],
        [chunk("data: {broken\n"), Reset()],
        [chunk("data: {broken\n"), END],
        [chunk("data: {broken"), Reset()],
        [event(usage()) + chunk("data: {broken\n"), Reset()],
    ],
    ids=["a broken event", "broken, then lost", "broken, then over", "half a line", "usage before"],
)
async def test_an_answer_whose_end_was_told_is_whole_whatever_follows(rest):
    steps = [head(), event(delta("x")), event(finish()), *rest]

    assert await read_all(steps) == ["text_delta", "choice_finished"]


def gemini(text: str) -> bytes:
    """A chunk that says, as some relays write it into each, that it is the last."""
    candidate = {"content": {"parts": [{"text": text}]}, "finishReason": "STOP"}
    return event({"candidates": [candidate]})


def stopping(text: str) -> bytes:
    """The same of OpenAI's."""
    return event({"choices": [{"delta": {"content": text}, "finish_reason": "stop"}]})


# An event is read at its end, or at that of the stream.
OVERLOADED = chunk('data: {"error": {"code": 503, "message": "No."}}\n')


@pytest.mark.parametrize("rest", [[OVERLOADED, Reset()], [OVERLOADED, END]], ids=["lost", "over"])
@pytest.mark.parametrize(("dialect", "said"), [("gemini", gemini), ("openai", stopping)])
async def test_an_error_is_one_where_the_end_was_said_too_early(dialect, said, rest):
    with pytest.raises(UpstreamError) as caught:
        await read_all([head(), said("a"), said("b"), Pause(0.02), *rest], dialect)

    assert (caught.value.failure, caught.value.http_status) == (Failure.SERVER, 503)


@pytest.mark.parametrize("dialect", ["gemini", "openai"])
async def test_what_can_not_be_read_may_be_more_where_the_end_was_said_too_early(dialect):
    said = gemini if dialect == "gemini" else stopping
    steps: list[Step] = [head(), said("a"), said("b"), Pause(0.02), chunk('data: {"cho\n')]

    with pytest.raises(UpstreamError) as caught:
        await read_all([*steps, Reset()], dialect)

    assert (caught.value.failure, caught.value.http_status) == (Failure.PROTOCOL, 200)


async def test_an_answer_is_whole_that_was_lost_after_its_end_was_said():
    steps: list[Step] = [head(), event(delta("a")), stopping("b"), Pause(0.02), Reset()]

    kinds = await read_all(steps, "openai")

    assert kinds == ["text_delta", "text_delta", "choice_finished"]


async def test_an_answer_of_gemini_that_was_lost_after_an_end_is_whole_though_it_says_some_early():
    steps: list[Step] = [head(), gemini("a"), gemini("b"), Pause(0.02), Reset()]

    kinds = await read_all(steps, "gemini")

    assert kinds == ["text_delta", "text_delta", "choice_finished"]


async def test_an_answer_is_not_whole_that_was_lost_where_every_chunk_says_that_it_is_the_end():
    with pytest.raises(UpstreamError) as caught:
        await read_all([head(), stopping("a"), stopping("b"), Pause(0.02), Reset()], "openai")

    assert caught.value.failure is Failure.AMBIGUOUS
