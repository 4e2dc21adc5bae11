"""How an HTTP connection begins: many at once, none that is wasted, and none that ties up the server."""

import asyncio
import resource
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from time import monotonic

import grpc
import pytest
import structlog
import uvloop

from tests.faults.waiting import until
from trunkline_server.edges.rest.app import RestApp, json_page
from trunkline_server.edges.rest.connection import Connection
from trunkline_server.edges.rest.openai import OpenAIShim
from trunkline_server.edges.rest.server import ACCEPT_PAUSE_S, HttpServer

pytestmark = pytest.mark.once

LIMIT_S = 10.0
LOOPS = {"uvloop": uvloop.new_event_loop, "asyncio": asyncio.new_event_loop}
PAGE = b"GET /livez HTTP/1.1\r\nhost: g\r\n\r\n"


def serving() -> tuple[HttpServer, tuple[str, int]]:
    """A server with one page, and where it is."""
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.bind(("127.0.0.1", 0))
    address = listener.getsockname()
    pages = {"/livez": lambda: json_page(200, b'{"live":true}')}
    server = HttpServer(RestApp([OpenAIShim(grpc.insecure_channel("127.0.0.1:1"))], pages))
    server.start(listener)
    return server, address


@contextmanager
def few_files() -> Iterator[None]:
    """Not one more file may be opened than are."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    probe = socket.socket()
    resource.setrlimit(resource.RLIMIT_NOFILE, (probe.fileno(), hard))
    probe.close()
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def out_of_files() -> None:
    """Until the server has found that it may open none."""
    with structlog.testing.capture_logs() as lines:
        await until(
            lambda: any(line["event"] == "no_connection_accepted" for line in lines), "out of files"
        )
    assert lines[0]["reason"] == "EMFILE"


async def answered(client: socket.socket) -> bytes:
    """The start of what comes, as soon as it comes."""
    client.setblocking(False)
    async with asyncio.timeout(LIMIT_S):
        return await asyncio.get_running_loop().sock_recv(client, 15)


@pytest.mark.parametrize("loop", LOOPS.values(), ids=LOOPS)
def test_all_who_wait_are_let_in_within_a_few_turns_of_the_loop(loop):
    async def main() -> tuple[int, int]:
        server, address = serving()
        with ExitStack() as stack:
            for _ in range(100):
                stack.enter_context(socket.create_connection(address))
            turns = 0
            while server.open_connections < 100 and turns < 50:
                await asyncio.sleep(0)
                turns += 1
            await server.finish(0.0)
            return server.open_connections, turns

    with asyncio.Runner(loop_factory=loop) as runner:
        left, turns = runner.run(main())

    assert turns < 10
    assert left == 0


@pytest.mark.parametrize("loop", LOOPS.values(), ids=LOOPS)
def test_small_answers_are_not_held_back_by_nagles_algorithm(loop, monkeypatch):
    options: list[int] = []

    def made(connection: Connection, transport: asyncio.BaseTransport) -> None:
        peer = transport.get_extra_info("socket")
        options.append(peer.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
        was_made(connection, transport)

    was_made = Connection.connection_made
    monkeypatch.setattr(Connection, "connection_made", made)

    async def main() -> bytes:
        server, address = serving()
        with socket.create_connection(address) as client:
            client.sendall(PAGE)
            start = await answered(client)
        await server.finish(0.0)
        return start

    with asyncio.Runner(loop_factory=loop) as runner:
        assert runner.run(main()) == b"HTTP/1.1 200 OK"
    assert options == [1]


def test_without_files_left_newcomers_wait_and_are_served_later():
    async def main() -> float:
        server, address = serving()
        try:
            with socket.socket() as client, few_files():
                began_s = monotonic()
                client.connect(address)
                client.sendall(PAGE)
                await out_of_files()
                assert server.open_connections == 0
            with socket.create_connection(address) as client:
                client.sendall(PAGE)
                assert await answered(client) == b"HTTP/1.1 200 OK"
                return monotonic() - began_s
        finally:
            await server.finish(0.0)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        assert 0.5 * ACCEPT_PAUSE_S < runner.run(main()) < 5 * ACCEPT_PAUSE_S


def test_a_server_that_ends_while_it_pauses_lets_nobody_in():
    async def main() -> None:
        server, address = serving()
        with socket.socket() as client, few_files():
            client.connect(address)
            await out_of_files()
            server.stop_listening()
        await server.finish(0.0)
        await asyncio.sleep(ACCEPT_PAUSE_S + 0.2)
        assert server.open_connections == 0
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(address)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())
