"""Who gives up is gone at once: the peer sees the connection close, in every phase of a request."""

import asyncio
import ssl
import statistics
from collections.abc import Sequence

import pytest

from tests.egress.peers import (
    LIMIT_S,
    NAME,
    OK,
    Connection,
    Peer,
    Script,
    allowing,
    always,
    door,
    peer,
    post,
    silent,
    told,
)

CLOSED_WITHIN_S = 0.05
ROUNDS = 7
MIB = 1024 * 1024


async def stuck_in_body(connection: Connection) -> None:
    """Half a response."""
    await connection.take_request()
    await connection.say(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf")
    await connection.wait_until_gone()


async def give_up(outside: Peer, scheme: str, content: bytes, tls: ssl.SSLContext) -> float:
    """Begin a request, cancel it when it is under way, and tell how long caller and peer had to wait for the end."""
    egress = allowing(tls=tls)
    outside.accepted.clear()
    outside.gone.clear()
    request = asyncio.create_task(post(egress, f"{scheme}://{NAME}:{outside.port}/", content))
    await outside.accepted.wait()
    await asyncio.sleep(0.01)
    assert not request.done()
    cancelled_at_s = asyncio.get_running_loop().time()
    request.cancel()
    with pytest.raises(asyncio.CancelledError):
        await request
    passed_at_s = asyncio.get_running_loop().time()
    await outside.gone.wait()
    return max(passed_at_s, outside.connections[-1].gone_at_s) - cancelled_at_s


@pytest.mark.parametrize(
    ("scheme", "script", "content", "is_tls"),
    [
        pytest.param("http", silent, b"{}", False, id="waiting for the head"),
        pytest.param("http", stuck_in_body, b"{}", False, id="reading the body"),
        pytest.param("https", silent, b"{}", False, id="in the handshake"),
        pytest.param("https", silent, b"{}", True, id="waiting for the head over TLS"),
        pytest.param("https", stuck_in_body, b"{}", True, id="reading the body over TLS"),
    ],
)
async def test_a_cancelled_request_closes_the_peers_connection_at_once(
    trusting, serving, scheme: str, script: Script, content: bytes, is_tls: bool
):
    async with asyncio.timeout(LIMIT_S), peer(script, tls=serving if is_tls else None) as outside:
        waits_s = [await give_up(outside, scheme, content, trusting) for _ in range(ROUNDS)]

    # The middle one: a busy machine may hold up any single round.
    assert statistics.median(waits_s) < CLOSED_WITHIN_S


@pytest.mark.parametrize("is_tls", [False, True], ids=["plain", "TLS"])
async def test_a_request_that_is_cancelled_while_it_is_written_is_cut(trusting, serving, is_tls):
    async def deaf(connection: Connection) -> None:
        connection.writer.transport.pause_reading()  # type: ignore[attr-defined]
        while True:  # It hears of the end only by what it says being refused.
            await connection.say(b"x")
            await asyncio.sleep(0.005)

    scheme = "https" if is_tls else "http"
    async with asyncio.timeout(LIMIT_S), peer(deaf, tls=serving if is_tls else None) as outside:
        waits_s = [await give_up(outside, scheme, b"a" * 32 * MIB, trusting) for _ in range(ROUNDS)]

    assert statistics.median(waits_s) < CLOSED_WITHIN_S


async def test_a_request_that_is_cancelled_while_its_name_is_looked_up_connects_to_nobody():
    asked = asyncio.Event()

    async def never(host: str, port: int) -> Sequence[str]:
        asked.set()
        await asyncio.Event().wait()
        return ["127.0.0.1"]

    async with asyncio.timeout(LIMIT_S), peer(silent) as outside:
        request = asyncio.create_task(
            post(door([NAME], resolve=never), f"http://{NAME}:{outside.port}/")
        )
        await asked.wait()
        request.cancel()
        with pytest.raises(asyncio.CancelledError):
            await request

    assert outside.connections == []


async def test_hundreds_of_cancelled_requests_leave_nothing_behind(trusting, serving):
    async def answer(connection: Connection) -> None:
        await connection.take_request()
        await asyncio.sleep(0.002)
        await connection.say(OK)

    async with asyncio.timeout(LIMIT_S), peer(answer, tls=serving) as outside:
        egress = door([NAME], resolve=always("127.0.0.1"), tls=trusting)
        url = f"https://{NAME}:{outside.port}/"
        before = asyncio.all_tasks()
        for round_number in range(10):
            requests = [asyncio.create_task(post(egress, url)) for _ in range(20)]
            await asyncio.sleep(0.002 * round_number)
            for request in requests:
                request.cancel()
            await asyncio.gather(*requests, return_exceptions=True)
        last = told(await post(egress, url))
        while not all(connection.gone_at_s for connection in outside.connections):  # noqa: ASYNC110 - a list tells nobody
            await asyncio.sleep(0.005)
        left = {task for task in asyncio.all_tasks() - before if "serve" not in repr(task)}

    assert last == 200
    assert left == set()
