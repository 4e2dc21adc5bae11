"""The HTTP/1.1 edge as its clients meet it: good ones, old ones, slow ones and bad ones."""

import asyncio

import pytest

from tests.edges.http11 import LIMIT_S, Response, Served, Wire, serving
from trunkline_server.edges.rest.connection import (
    BODY_TIMEOUT_S,
    HEAD_TIMEOUT_S,
    HIGH_WATER_BYTES,
    KEEP_ALIVE_S,
    MAX_PIPELINED,
    WRITE_STALL_S,
)
from trunkline_server.edges.rest.http import MAX_BODY_BYTES, MAX_HEADER_BYTES, Request

MIB = 1024 * 1024


def said(text: str, **headers: str) -> Response:
    """What `echo` answers."""
    body = text.encode()
    found = {
        "content-type": "application/json",
        "x-request-id": "",
        "content-length": str(len(body)),
        **{name.replace("_", "-"): value for name, value in headers.items()},
    }
    return Response(200, found, body)


def now_s() -> float:
    """Of the loop."""
    return asyncio.get_running_loop().time()


async def streamed(request: Request) -> None:
    """A body in three pieces."""
    request.exchange.write_head(200, [(b"content-type", b"text/plain")], None)
    request.exchange.write(b"a")
    request.exchange.write(b"")
    request.exchange.write(b"b" * 20)
    request.exchange.end(b"c")


async def test_a_connection_serves_one_request_after_the_other():
    async with serving() as served, served.connect() as wire:
        answers = []
        for path in ("/a", "/b?q=1", "/c%20d"):
            wire.get(path)
            answers.append(await wire.response())

    assert answers == [said("GET /a "), said("GET /b "), said("GET /c d ")]


@pytest.mark.parametrize("size", [1, 3, 1000])
async def test_a_request_is_read_however_its_bytes_are_split(size):
    data = b"POST /a HTTP/1.1\r\nHost: g\r\nContent-Length: 5\r\n\r\nhello"
    async with serving() as served, served.connect() as wire:
        for start in range(0, len(data), size):
            wire.send(data[start : start + size])
            await asyncio.sleep(0)
        found = await wire.response()

    assert found == said("POST /a hello")
    assert served.requests[0].headers == [(b"host", b"g"), (b"content-length", b"5")]


async def test_pipelined_requests_are_answered_in_order_and_one_at_a_time():
    running = most = 0

    async def slowly(request: Request) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.02 if request.path == "/1" else 0)
        running -= 1
        request.respond(200, request.path.encode())

    async with serving(slowly) as served, served.connect() as wire:
        for number in range(1, MAX_PIPELINED + 1):
            wire.get(f"/{number}")
        bodies = [(await wire.response()).body for _ in range(MAX_PIPELINED)]

    assert bodies == [b"/%d" % number for number in range(1, MAX_PIPELINED + 1)]
    assert most == 1


async def forever(request: Request) -> None:
    """Never answers."""
    await asyncio.Event().wait()


async def test_too_many_pipelined_requests_end_the_connection():
    async with serving(forever) as served, served.connect() as wire:
        for _ in range(MAX_PIPELINED + 2):
            wire.get()

        assert await wire.is_closed()
        assert len(served.requests) <= 1


async def test_pipelined_bodies_are_not_gathered_without_end():
    head = b"POST / HTTP/1.1\r\nhost: g\r\ncontent-length: %d\r\n\r\n" % (8 * MIB)
    async with serving(forever) as served, served.connect() as wire:
        wire.get()
        await served.until(lambda: len(served.requests) == 1)
        sent_bytes = 0
        try:
            async with asyncio.timeout(LIMIT_S):
                for _ in range(MAX_PIPELINED - 1):
                    wire.send(head + bytes(8 * MIB))
                    await wire.writer.drain()
                    sent_bytes += 8 * MIB
        except ConnectionError:
            pass

        assert sent_bytes <= MAX_BODY_BYTES + 16 * MIB
        await served.until(lambda: not served.connections.open)


async def test_a_client_that_waits_to_be_invited_is():
    async with serving() as served, served.connect() as wire:
        wire.send(
            b"POST / HTTP/1.1\r\nhost: g\r\nexpect: 100-continue\r\ncontent-length: 2\r\n\r\n"
        )
        invited = await wire.head()
        wire.send(b"hi")
        found = await wire.response()

    assert invited == (100, {})
    assert found == said("POST / hi")


async def test_a_client_whose_body_is_too_large_is_not_invited():
    head = f"POST / HTTP/1.1\r\nhost: g\r\ncontent-length: {MAX_BODY_BYTES + 1}\r\n"
    async with serving() as served, served.connect() as wire:
        wire.send(f"{head}expect: 100-continue\r\n\r\n".encode())
        found = await wire.response()

    assert (found.status, found.body) == (413, b"PAYLOAD_TOO_LARGE")
    assert found.headers["connection"] == "close"
    assert served.requests == []


@pytest.mark.parametrize("app", [None, streamed], ids=["whole", "streamed"])
async def test_head_has_the_head_and_no_body(app):
    async with serving(*[app] if app else []) as served, served.connect() as wire:
        wire.get(method="HEAD")
        first = await wire.response(has_body=False)
        wire.get("/next")
        second = await wire.response()

    assert first.status == 200
    assert ("content-length" in first.headers) is (app is None)
    assert second.body == (b"GET /next " if app is None else b"a" + b"b" * 20 + b"c")


async def test_a_streamed_answer_comes_in_chunks():
    async with serving(streamed) as served, served.connect() as wire:
        wire.get()
        status, headers = await wire.head()
        data = await wire.reader.readuntil(b"0\r\n\r\n")

    assert (status, headers) == (
        200,
        {"content-type": "text/plain", "transfer-encoding": "chunked"},
    )
    assert data == b"1\r\na\r\n14\r\n" + b"b" * 20 + b"\r\n1\r\nc\r\n0\r\n\r\n"


@pytest.mark.parametrize(
    "body",
    [
        b"5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n",
        b"B;name=value\r\nhello world\r\n0\r\n\r\n",
        b"b\r\nhello world\r\n0\r\nx-checksum: 1\r\n\r\n",
    ],
    ids=["two", "an extension", "a trailer"],
)
async def test_a_chunked_body_is_put_together(body):
    async with serving() as served, served.connect() as wire:
        wire.send(b"POST / HTTP/1.1\r\nhost: g\r\ntransfer-encoding: chunked\r\n\r\n" + body)
        first = await wire.response()
        wire.get("/next")
        second = await wire.response()

    assert (first, second) == (said("POST / hello world"), said("GET /next "))


async def test_a_chunked_body_over_the_limit_is_refused():
    megabyte = b"100000\r\n" + bytes(MIB) + b"\r\n"
    async with serving() as served, served.connect() as wire:
        wire.send(b"POST / HTTP/1.1\r\nhost: g\r\ntransfer-encoding: chunked\r\n\r\n")
        for _ in range(MAX_BODY_BYTES // MIB + 1):
            wire.send(megabyte)
            await wire.writer.drain()
        found = await wire.response()
        wire.send(b"0\r\n\r\n")

        assert (found.status, found.body) == (413, b"PAYLOAD_TOO_LARGE")
        assert await wire.is_closed()
        assert served.requests == []


@pytest.mark.parametrize(
    "data",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"hello\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET / HTTP/1.1\r\nno colon\r\n\r\n",
        b"GET / HTTP/1.1\r\nname : value\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: g\r\n folded: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nx: a\x00b\r\n\r\n",
        b"POST / HTTP/1.1\r\ncontent-length: -1\r\n\r\n",
        b"POST / HTTP/1.1\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n",
        b"POST / HTTP/1.1\r\ncontent-length: 99999999999999999999\r\n\r\n",
        b"POST / HTTP/1.1\r\ncontent-length: 4\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\ntransfer-encoding: chunked, identity\r\n\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ],
    ids=range(15),
)
async def test_what_is_no_http_is_refused_and_the_connection_ends(data):
    async with serving() as served, served.connect() as wire:
        wire.send(data)
        found = await wire.response()

        assert (found.status, found.body) == (400, b"INVALID_REQUEST")
        assert found.headers["connection"] == "close"
        assert await wire.is_closed()
        assert served.requests == []


async def test_garbage_after_a_request_does_not_spoil_its_answer():
    async with serving() as served, served.connect() as wire:
        wire.send(b"GET /a HTTP/1.1\r\nhost: g\r\n\r\n\x00garbage\r\n\r\n")
        found = await wire.response()

        assert found.body == b"GET /a "
        assert await wire.is_closed()


@pytest.mark.parametrize("upgrade", ["h2c", "websocket"])
@pytest.mark.parametrize("body", [b"", b"hello"], ids=["no body", "a body"])
async def test_an_offer_of_another_protocol_is_passed_over(upgrade, body):
    head = f"POST / HTTP/1.1\r\nhost: g\r\nconnection: upgrade\r\nupgrade: {upgrade}\r\n"
    async with serving() as served, served.connect() as wire:
        wire.send(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)
        found = await wire.response()

    assert found.body == b"POST / " + body


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\nx: " + b"x" * MAX_HEADER_BYTES + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"x: y\r\n" * MAX_HEADER_BYTES,
        b"GET / HTTP/1.1\r\n" + b"x" * 2 * MAX_HEADER_BYTES + b": y\r\n\r\n",
        b"GET /" + b"x" * 2 * MAX_HEADER_BYTES + b" HTTP/1.1\r\n\r\n",
    ],
    ids=["a value", "many", "a name", "a URL"],
)
async def test_headers_over_the_limit_are_refused(data):
    async with serving() as served, served.connect() as wire:
        wire.send(data)
        found = await wire.response()

    assert (found.status, found.body) == (400, b"INVALID_REQUEST")
    assert served.requests == []


@pytest.mark.parametrize(
    "start",
    [
        b"GET / HTTP/1.1\r\nx: ",
        b"GET / HTTP/1.1\r\n",
        b"GET /",
        b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n0\r\nx: ",
        b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n1;",
    ],
    ids=["a value", "a name", "a URL", "a trailer", "an extension"],
)
async def test_a_header_without_an_end_is_not_gathered(start):
    async with serving() as served, served.connect() as wire:
        wire.send(start)
        sent_bytes = 0
        try:
            async with asyncio.timeout(LIMIT_S):
                while sent_bytes < 64 * MIB:
                    wire.send(b"x" * 65_536)
                    await wire.writer.drain()
                    sent_bytes += 65_536
                    await asyncio.sleep(0)
        except ConnectionError:
            pass

        assert sent_bytes < 32 * MIB


async def test_a_bad_next_request_leaves_the_one_that_runs_its_answer():
    release = asyncio.Event()

    async def waiting(request: Request) -> None:
        await release.wait()
        request.respond(200, b"done")

    async with serving(waiting) as served, served.connect() as wire:
        wire.get()
        wire.send(b"GET / HTTP/1.1\r\nx: ")
        for _ in range(4 * MIB // 65_536):
            wire.send(b"x" * 65_536)
            await wire.writer.drain()
        release.set()
        found = await wire.response()

        assert (found.status, found.body) == (200, b"done")
        assert await wire.is_closed()
        assert len(served.requests) == 1


async def test_headers_within_the_limit_are_served():
    async with serving() as served, served.connect() as wire:
        wire.get("/", *(f"x-{number}: {'v' * 100}" for number in range(140)))
        found = await wire.response()

    assert found == said("GET / ")


async def half(wire: Wire) -> None:
    """Half a head."""
    wire.send(b"GET / HTTP/1.1\r\nhost:")


async def nothing(wire: Wire) -> None:
    """Not a byte."""


async def half_body(wire: Wire) -> None:
    """Half a body."""
    wire.send(b"POST / HTTP/1.1\r\nhost: g\r\ncontent-length: 10\r\n\r\nhello")


async def one_request(wire: Wire) -> None:
    """A whole request, and nothing after it."""
    wire.get()
    await wire.response()


async def half_of_a_second(wire: Wire) -> None:
    """A whole request, and half of another."""
    await one_request(wire)
    await half(wire)


@pytest.mark.parametrize(
    ("begin", "limit_s"),
    [
        (nothing, HEAD_TIMEOUT_S),
        (half, HEAD_TIMEOUT_S),
        (half_body, BODY_TIMEOUT_S),
        (one_request, KEEP_ALIVE_S),
        (half_of_a_second, HEAD_TIMEOUT_S),
    ],
    ids=["nothing sent", "half a head", "half a body", "idle", "half of a second request"],
)
async def test_a_client_that_takes_too_long_is_closed(begin, limit_s):
    async with serving() as served, served.connect() as wire:
        await begin(wire)
        await asyncio.sleep(0.05)
        served.connections.sweep(now_s() + limit_s - 1)
        await asyncio.sleep(0.01)
        open_before = len(served.connections.open)
        served.connections.sweep(now_s() + limit_s)

        assert open_before == 1
        assert await wire.is_closed()


async def test_a_request_that_runs_is_never_too_late():
    release = asyncio.Event()

    async def waiting(request: Request) -> None:
        await release.wait()
        request.respond(200, b"done")

    async with serving(waiting) as served, served.connect() as wire:
        wire.get()
        await served.until(lambda: bool(served.requests))
        served.connections.sweep(now_s() + 86_400)
        release.set()
        found = await wire.response()

    assert found.body == b"done"


@pytest.mark.parametrize("how", ["close", "reset", "half"])
async def test_a_client_that_goes_cancels_its_request(how):
    cancelled = asyncio.Event()

    async def waiting(request: Request) -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise

    async with serving(waiting) as served, served.connect() as wire:
        wire.get()
        await served.until(lambda: bool(served.requests))
        if how == "close":
            wire.writer.close()
        elif how == "reset":
            wire.writer.transport.abort()
        else:
            wire.writer.write_eof()

        await asyncio.wait_for(cancelled.wait(), LIMIT_S)
        await served.until(lambda: not served.connections.open)


@pytest.mark.parametrize(
    "part", [b"", b"GET / HT", b"POST / HTTP/1.1\r\ncontent-length: 9\r\n\r\nhal"]
)
async def test_a_client_that_goes_before_its_request_is_whole_is_not_served(part):
    async with serving() as served, served.connect() as wire:
        wire.send(part)
        await served.until(lambda: len(served.connections.open) == 1)
        wire.writer.close()

        await served.until(lambda: not served.connections.open)
        assert served.requests == []


async def flood(served: Served, sizes: list[int], request: Request) -> None:
    """Writes for ever, as fast as the client reads."""
    request.exchange.write_head(200, [], None)
    while True:
        request.exchange.write(bytes(65_536))
        sizes.append(65_536)
        await request.exchange.drain()
        await asyncio.sleep(0)


async def test_a_slow_reader_holds_the_writer_back():
    sizes: list[int] = []

    async def app(request: Request) -> None:
        await flood(served, sizes, request)

    async with serving(app) as served, served.connect(buffer_bytes=4096) as wire:
        wire.get()
        await served.until(lambda: len(sizes) > 1)
        settled = -1
        while settled != len(sizes):
            settled = len(sizes)
            await asyncio.sleep(0.1)
        written_bytes = sum(sizes)
        await wire.reader.read(1)
        read_bytes = 0
        while read_bytes < 16 * MIB:
            read_bytes += len(await asyncio.wait_for(wire.reader.read(65_536), LIMIT_S))

    # The kernel's buffers take some of it.
    assert written_bytes < HIGH_WATER_BYTES + 12 * MIB
    assert sum(sizes) > written_bytes


async def test_a_reader_that_stops_is_closed_in_the_end_and_its_request_cancelled():
    sizes: list[int] = []
    cancelled = asyncio.Event()

    async def app(request: Request) -> None:
        try:
            await flood(served, sizes, request)
        finally:
            cancelled.set()

    async with serving(app) as served, served.connect(buffer_bytes=4096) as wire:
        wire.get()
        settled = -1
        while settled != len(sizes) or not sizes:
            settled = len(sizes)
            await asyncio.sleep(0.1)
        served.connections.sweep(now_s() + WRITE_STALL_S - 1)
        await asyncio.sleep(0.01)
        was_cancelled = cancelled.is_set()
        served.connections.sweep(now_s() + WRITE_STALL_S)
        await asyncio.wait_for(cancelled.wait(), LIMIT_S)

    assert not was_cancelled


@pytest.mark.parametrize("size", [8 * MIB, HIGH_WATER_BYTES // 2])
async def test_a_last_answer_that_nobody_reads_does_not_stay_for_ever(size):
    async def app(request: Request) -> None:
        request.respond(200, bytes(size))

    async with serving(app) as served:
        connection, transport = served.connect_unread()
        connection.data_received(b"GET / HTTP/1.1\r\nhost: g\r\nconnection: close\r\n\r\n")
        await served.until(lambda: transport.buffered_bytes > size)
        await asyncio.sleep(0.01)
        served.connections.sweep(now_s() + WRITE_STALL_S - 1)
        was_aborted = transport.is_aborted
        served.connections.sweep(now_s() + WRITE_STALL_S)
        is_aborted = transport.is_aborted
        connection.connection_lost(None)

    assert (was_aborted, is_aborted) == (False, True)


async def test_a_client_may_ask_for_the_end():
    async with serving() as served, served.connect() as wire:
        wire.get("/a", "connection: close")
        found = await wire.response()

        assert found == said("GET /a ", connection="close")
        assert await wire.is_closed()


@pytest.mark.parametrize("keep", ["", "connection: keep-alive\r\n"])
async def test_http_1_0_is_answered_once(keep):
    async with serving() as served, served.connect() as wire:
        wire.send(f"GET /a HTTP/1.0\r\n{keep}\r\n".encode())
        found = await wire.response()

        assert found == said("GET /a ", connection="close")
        assert await wire.is_closed()


async def test_http_1_0_knows_no_chunks():
    async with serving(streamed) as served, served.connect() as wire:
        wire.send(b"GET / HTTP/1.0\r\n\r\n")
        found = await wire.response()

    headers = {"content-type": "text/plain", "connection": "close"}
    assert found == Response(200, headers, b"a" + b"b" * 20 + b"c")


async def test_draining_closes_who_is_idle_and_the_others_after_their_answer():
    release = asyncio.Event()

    async def waiting(request: Request) -> None:
        await release.wait()
        request.respond(200, b"done")

    async with (
        serving(waiting) as served,
        served.connect() as idle,
        served.connect() as busy,
        served.connect() as sending,
    ):
        busy.get()
        sending.send(b"POST / HTTP/1.1\r\nhost: g\r\ncontent-length: 5\r\n\r\nhe")
        await served.until(lambda: len(served.requests) == 1)
        served.connections.drain()
        idle_closed = await idle.is_closed()
        sending.send(b"llo")
        release.set()
        answers = [await wire.response() for wire in (busy, sending)]
        closed = [await wire.is_closed() for wire in (busy, sending)]
        await served.until(lambda: not served.connections.open)

    assert (idle_closed, closed) == (True, [True, True])
    assert [(a.status, a.body, a.headers["connection"]) for a in answers] == [
        (200, b"done", "close")
    ] * 2


async def test_more_clients_than_allowed_are_turned_away():
    async with serving(max_connections=1) as served, served.connect() as first:
        await served.until(lambda: len(served.connections.open) == 1)
        async with served.connect() as second:
            assert await second.is_closed()
        first.get()
        found = await first.response()

    assert found.status == 200


async def test_an_application_that_answers_nothing_ends_the_connection():
    async def silent(request: Request) -> None:
        return

    async with serving(silent) as served, served.connect() as wire:
        wire.get()

        assert await wire.is_closed()
