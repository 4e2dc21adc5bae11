"""What goes out, what comes back, and what is said of a peer that does not keep to HTTP, limits or time."""

import asyncio
import gzip
import logging
import time
import traceback

import pytest

from tests.egress.peers import (
    LIMIT_S,
    MAX_BYTES,
    NAME,
    OK,
    Connection,
    Names,
    Script,
    allowing,
    always,
    door,
    endless,
    peer,
    post,
    reply,
    silent,
    told,
)
from trunkline_server.tools.egress import Egress, EgressError, EgressResponse
from trunkline_server.tools.exchange import MAX_PIECES

SOON_S = 0.15
LATER_S = 2.0  # Much more than `SOON_S`, for a machine that is busy with other things.
HEAD = b"HTTP/1.1 200 OK\r\n"
CHUNKED = HEAD + b"transfer-encoding: chunked\r\n\r\n"
MIB = 1024 * 1024


def chunk(data: bytes, extension: bytes = b"") -> bytes:
    """One of a chunked body."""
    return b"%x%b\r\n%b\r\n" % (len(data), extension, data)


async def outcome_of(
    script: Script, content: bytes = b"{}", limit_s: float = LIMIT_S
) -> EgressResponse | EgressError:
    """Of one request to a peer with this script."""
    async with peer(script) as outside:
        return await post(
            allowing(), f"http://{NAME}:{outside.port}/hook", content, limit_s=limit_s
        )


def now_s() -> float:
    """Of the loop."""
    return asyncio.get_running_loop().time()


async def test_the_request_goes_out_as_it_was_given():
    async with peer(reply(OK)) as outside:
        response = await allowing().request(
            "POST",
            f"http://Tool.Example.com:{outside.port}/a/../b%2F?q=1&ü=%20",
            headers={"Webhook-Id": "msg_1", "content-type": "application/json", "X-Empty": " "},
            content=b'{"a":1}',
            until_s=now_s() + LIMIT_S,
            max_bytes=2,
        )

    assert response == EgressResponse(200, {"content-length": "2"}, b"ok")
    assert outside.requests == [
        b"POST /a/../b%2F?q=1&%C3%BC=%20 HTTP/1.1\r\n"
        b"host: " + NAME.encode() + b":%d\r\n" % outside.port + b"connection: close\r\n"
        b"accept-encoding: identity\r\n"
        b"accept: */*\r\n"
        b"user-agent: trunkline\r\n"
        b"webhook-id: msg_1\r\n"
        b"content-type: application/json\r\n"
        b"x-empty: \r\n"
        b"Content-Length: 7\r\n"
        b"\r\n"
        b'{"a":1}'
    ]


async def test_headers_that_frame_the_message_or_name_the_host_are_ours():
    theirs = {
        "Host": "127.0.0.1",
        "Content-Length": "0",
        "Transfer-Encoding": "chunked",
        "Connection": "upgrade",
        "Upgrade": "websocket",
        "Expect": "100-continue",
        "Accept-Encoding": "gzip",
        "Proxy-Authorization": "Basic eA==",
    }
    async with peer(reply(OK)) as outside:
        await allowing().request(
            "PUT",
            f"http://{NAME}:{outside.port}/",
            headers=theirs,
            content=b"hello",
            until_s=now_s() + LIMIT_S,
            max_bytes=MAX_BYTES,
        )

    lines = outside.requests[0].lower().split(b"\r\n")
    assert sorted(line for line in lines if line) == [
        b"accept-encoding: identity",
        b"accept: */*",
        b"connection: close",
        b"content-length: 5",
        b"hello",
        f"host: {NAME}:{outside.port}".encode(),
        b"put / http/1.1",
        b"user-agent: trunkline",
    ]


@pytest.mark.parametrize(
    ("method", "headers"),
    [
        ("GET", {"a": "b\r\nHost: 127.0.0.1"}),
        ("GET", {"a": "b\nc"}),
        ("GET", {"a": "b\x00"}),
        ("GET", {"a": "ж"}),
        ("GET", {"a b": "c"}),
        ("GET", {"a:b": "c"}),
        ("GET", {"": "c"}),
        ("GET", {"ä": "c"}),
        ("GET", {"a": "b" * 32 * 1024}),
        ("CONNECT", {}),
        ("TRACE", {}),
        ("get", {}),
        ("GET / HTTP/1.1\r\nA: b\r\n\r\nGET", {}),
    ],
)
async def test_a_method_or_header_that_breaks_the_message_is_refused(method, headers):
    async with peer(reply(OK)) as outside:
        with pytest.raises(EgressError) as caught:
            await allowing().request(
                method,
                f"http://{NAME}:{outside.port}/",
                headers=headers,
                until_s=now_s() + LIMIT_S,
                max_bytes=MAX_BYTES,
            )

    assert told(caught.value) == ("URL_INVALID", False)
    assert outside.connections == []


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (CHUNKED + chunk(b"ab") + chunk(b"c") + b"0\r\n\r\n", (200, b"abc")),
        (HEAD + b"\r\nuntil the end", (200, b"until the end")),
        (b"HTTP/1.1 100 Continue\r\n\r\n" + OK, (200, b"ok")),
        (b"HTTP/1.1 103 Early\r\nlink: </a>\r\n\r\n" + OK, (200, b"ok")),
        (b"HTTP/1.1 204 No Content\r\n\r\n", (204, b"")),
        (b"HTTP/1.1 404 Not Found\r\ncontent-length: 4\r\n\r\ngone", (404, b"gone")),
        (b"HTTP/1.1 500 Oops\r\ncontent-length: 0\r\n\r\n", (500, b"")),
        (HEAD + b"content-encoding: identity\r\ncontent-length: 1\r\n\r\na", (200, b"a")),
        (HEAD + b"content-encoding: gzip\r\ncontent-length: 0\r\n\r\n", (200, b"")),
        (
            HEAD + b"content-length: %d\r\n\r\n" % MAX_BYTES + b"a" * MAX_BYTES,
            (200, b"a" * MAX_BYTES),
        ),
    ],
)
async def test_a_whole_response_is_read_however_it_is_framed(said, expected):
    response = await outcome_of(reply(said))

    assert isinstance(response, EgressResponse)
    assert (response.status, response.body) == expected


async def test_headers_are_told_in_lower_case_without_cookies():
    said = HEAD + b"X-A: 1\r\nx-a: 2\r\nSet-Cookie: s=1\r\nX-\xe4: b\r\n"
    bad = await outcome_of(reply(said + b"\r\n"))
    good = await outcome_of(reply(said.replace(b"X-\xe4", b"X-B") + b"content-length: 0\r\n\r\n"))

    assert told(bad) == ("BROKEN", True)
    assert good == EgressResponse(200, {"x-a": "1, 2", "x-b": "b", "content-length": "0"}, b"")


async def test_a_head_request_has_no_body_whatever_length_it_tells():
    async with peer(reply(HEAD + b"content-length: 1073741824\r\n\r\n")) as outside:
        response = await allowing().request(
            "HEAD",
            f"http://{NAME}:{outside.port}/",
            headers={},
            until_s=now_s() + LIMIT_S,
            max_bytes=10,
        )

    assert response == EgressResponse(200, {"content-length": "1073741824"}, b"")


BOMB = gzip.compress(b"\0" * 16 * MIB)


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        pytest.param(endless(CHUNKED, chunk(b"a" * 4096)), "TOO_LARGE", id="endless chunks"),
        pytest.param(endless(HEAD + b"\r\n", b"a" * 4096), "TOO_LARGE", id="endless"),
        pytest.param(
            endless(HEAD + b"content-length: 1073741824\r\n\r\n", b"a" * 65536),
            "TOO_LARGE",
            id="1 GiB",
        ),
        pytest.param(
            reply(HEAD + b"content-length: 1073741824\r\n\r\n"), "TOO_LARGE", id="1 GiB, told only"
        ),
        pytest.param(
            reply(HEAD + b"\r\n" + b"a" * (MAX_BYTES + 1)), "TOO_LARGE", id="one byte too many"
        ),
        pytest.param(endless(HEAD, b"x-more: " + b"a" * 1000 + b"\r\n"), "TOO_LARGE", id="headers"),
        pytest.param(endless(HEAD + b"x: ", b"a" * 4096), "TOO_LARGE", id="one header"),
        pytest.param(endless(b"", b"a" * 4096), "TOO_LARGE", id="status line"),
        pytest.param(
            endless(b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 100), "TOO_LARGE", id="interim heads"
        ),
        pytest.param(reply(CHUNKED + b"0\r\n" + b"x: y\r\n" * 200_000), "BROKEN", id="trailers"),
        pytest.param(
            reply(HEAD + b"content-encoding: gzip\r\n\r\n" + BOMB), "BROKEN", id="gzip bomb"
        ),
        pytest.param(
            reply(HEAD + b"content-encoding: br, gzip\r\n\r\nabc"), "BROKEN", id="encoded twice"
        ),
        pytest.param(reply(), "BROKEN", id="nothing"),
        pytest.param(reply(b"SSH-2.0-OpenSSH_9.9\r\n"), "BROKEN", id="ssh"),
        pytest.param(reply(b"\x15\x03\x01\x00\x02\x02\x50"), "BROKEN", id="a TLS alert"),
        pytest.param(reply(b"-ERR unknown command\r\n" * 20), "BROKEN", id="redis"),
        pytest.param(reply(HEAD), "BROKEN", id="half a head"),
        pytest.param(reply(HEAD + b"content-length: 9\r\n\r\nhalf"), "BROKEN", id="half a body"),
        pytest.param(reply(CHUNKED + chunk(b"half")), "BROKEN", id="half of the chunks"),
        pytest.param(reply(CHUNKED + b"zz\r\n"), "BROKEN", id="a chunk without size"),
        pytest.param(
            reply(HEAD + b"content-length: 1\r\ncontent-length: 2\r\n\r\na"),
            "BROKEN",
            id="two lengths",
        ),
        pytest.param(
            reply(b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\n\r\n"),
            "BROKEN",
            id="another protocol",
        ),
    ],
)
async def test_a_peer_that_does_not_keep_to_http_or_limits_is_an_error(script, reason):
    assert told(await outcome_of(script)) == (reason, True)


async def test_frames_around_a_body_are_counted_with_it():
    framed = chunk(b"a", b";" + b"e" * 4000)
    async with peer(endless(CHUNKED, framed)) as outside:
        outcome = await post(allowing(), f"http://{NAME}:{outside.port}/", max_bytes=MAX_BYTES)

    assert told(outcome) == ("TOO_LARGE", True)
    # Some MiB may be under way in the system's buffers. By its body alone it could go on for 250 MiB.
    assert outside.connections[0].said_bytes < 16 * MIB


async def test_tiny_chunks_are_cut_off_and_leave_time_for_others():
    turns = 0

    async def live() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    other = asyncio.create_task(live())
    outcome = await outcome_of(endless(CHUNKED, chunk(b"a") * 5000))
    other.cancel()

    assert told(outcome) == ("TOO_LARGE", True)
    assert turns > MAX_PIECES / 100


@pytest.mark.parametrize(
    "script",
    [
        pytest.param(silent, id="no response"),
        pytest.param(endless(HEAD, b"x", 0.01), id="slow headers"),
        pytest.param(endless(CHUNKED, chunk(b"x"), 0.01), id="slow body"),
        pytest.param(reply(CHUNKED + chunk(b"x")), id="no end"),
    ],
)
async def test_a_peer_that_never_ends_is_left_when_the_time_is_over(script):
    async def lasting(connection: Connection) -> None:
        await script(connection)
        await connection.wait_until_gone()

    began_s = time.monotonic()
    outcome = await outcome_of(lasting, limit_s=SOON_S)

    assert told(outcome) == ("TIMEOUT", True)
    assert SOON_S - 0.01 <= time.monotonic() - began_s < LATER_S


async def test_time_that_is_over_before_it_begins_asks_nobody():
    names = always("127.0.0.1")
    outcome = await post(door([NAME], resolve=names), f"http://{NAME}/", limit_s=0)

    assert told(outcome) == ("TIMEOUT", False)
    assert names.asked == []


async def test_a_name_server_that_never_answers_is_left_when_the_time_is_over():
    async def never(host: str, port: int) -> list[str]:
        await asyncio.Event().wait()
        return []

    began_s = time.monotonic()
    outcome = await post(door(resolve=never), f"https://{NAME}/", limit_s=SOON_S)

    assert told(outcome) == ("TIMEOUT", False)
    assert time.monotonic() - began_s < LATER_S


async def test_a_request_that_the_peer_does_not_take_is_not_sent():
    async def deaf(connection: Connection) -> None:
        connection.writer.transport.pause_reading()  # type: ignore[attr-defined]
        await connection.writer.wait_closed()

    outcome = await outcome_of(deaf, b"a" * 32 * MIB, limit_s=SOON_S)

    assert told(outcome) == ("TIMEOUT", False)


async def test_a_connection_that_breaks_while_the_request_is_written_means_not_sent():
    async def early(connection: Connection) -> None:
        await connection.reader.readuntil(b"\r\n\r\n")
        connection.writer.transport.abort()

    assert told(await outcome_of(early, b"a" * 32 * MIB)) == ("BROKEN", False)


async def test_a_connection_that_breaks_after_the_request_means_that_nobody_knows():
    async def taken(connection: Connection) -> None:
        await connection.take_request()
        connection.writer.transport.abort()

    assert told(await outcome_of(taken, b"a" * MIB)) == ("BROKEN", True)


async def test_a_port_where_nobody_listens_is_no_connection():
    async with peer(silent) as gone:
        port = gone.port

    assert told(await post(allowing(), f"http://{NAME}:{port}/")) == ("CONNECT_FAILED", False)


async def test_the_next_address_of_a_name_is_tried_if_the_first_refuses():
    async with peer(reply(OK), host="127.0.0.2") as outside:
        egress = door([NAME], resolve=always("127.0.0.1", "127.0.0.2"))
        outcome = told(await post(egress, f"http://{NAME}:{outside.port}/"))

    assert outcome == 200


async def test_one_egress_serves_many_at_once():
    async def echo(connection: Connection) -> None:
        await connection.take_request()
        body = connection.request.partition(b"\r\n\r\n")[2]
        await connection.say(HEAD + b"content-length: %d\r\n\r\n%b" % (len(body), body))

    async with peer(echo) as outside:
        egress = door([NAME], resolve=Names(default=[["127.0.0.1"]]))
        url = f"http://{NAME}:{outside.port}/"
        answers = await asyncio.gather(*(post(egress, url, b"%d" % n) for n in range(50)))

    assert [answer.body for answer in answers if isinstance(answer, EgressResponse)] == [
        b"%d" % n for n in range(50)
    ]
    assert len(outside.connections) == 50


@pytest.mark.parametrize("said", [OK, b"s3cret garbage\r\n\r\n", HEAD + b"s3cret\r\n\r\n"])
async def test_paths_and_headers_are_neither_logged_nor_told(said, caplog):
    caplog.set_level(logging.INFO)
    async with peer(reply(said)) as outside:
        url = f"http://{NAME}:{outside.port}/hook/s3cret?key=s3cret"
        headers = {"authorization": "Bearer s3cret"}
        try:
            await allowing().request(
                "POST",
                url,
                headers=headers,
                content=b"s3cret",
                until_s=now_s() + LIMIT_S,
                max_bytes=MAX_BYTES,
            )
        except EgressError as error:
            shown = "".join(traceback.format_exception(error, limit=0))
        else:
            shown = ""

    assert len(outside.requests) == 1
    assert "s3cret" not in shown
    assert "s3cret" not in caplog.text


async def test_the_machines_resolver_is_asked_if_there_is_no_other():
    async with peer(reply(OK), host="localhost") as outside:
        outcome = told(await post(Egress(["localhost"]), f"http://localhost:{outside.port}/"))

    assert outcome == 200
