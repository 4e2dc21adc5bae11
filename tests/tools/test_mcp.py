"""Tools of MCP servers: real ones made with the official SDK, of both kinds of handshake, and some that break."""

import asyncio
import json
import logging
import os
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import pytest
import uvicorn

from tests.support.upstream import Exchange, Hang, Reset, Step, upstream, whole
from tests.tools.mcp_tools import new_server
from trunkline.v1.completion_spec_pb2 import McpSource, RegisteredSource, Tool
from trunkline_server.core.tools import ToolContext, ToolOutcome
from trunkline_server.tools.egress import Egress
from trunkline_server.tools.mcp import McpLink
from trunkline_server.tools.mcp_server import McpServer
from trunkline_server.tools.registry import RegisteredMcpServer, RegisteredTool, ToolRegistry
from trunkline_server.tools.replies import MAX_RESULT_CHARS

HERE: Final = Path(__file__).parent
EGRESS: Final = Egress(["127.0.0.1"])
STRICT: Final = Egress()
MODERN, LEGACY = "2026", "2025"
CONTEXT: Final = ToolContext("call-1", "req-1")


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    """The SDK's server sets the process's logging up."""
    handlers, level = logging.root.handlers[:], logging.root.level
    yield
    logging.root.handlers[:] = handlers
    logging.root.setLevel(level)


class HttpServer:
    """The SDK's server over HTTP.

    Attributes:
        seen: of each request: method, MCP session, authorization.
    """

    def __init__(self, log: Path, era: str) -> None:
        self._log = log
        self._era = era
        self._app: Any = None
        self._lifespan: Any = None
        self.seen: list[tuple[str, str, str]] = []
        self.url = ""
        self.forgets = False

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            headers = dict(scope["headers"])
            found = (
                headers.get(name, b"").decode() for name in (b"mcp-session-id", b"authorization")
            )
            self.seen.append((scope["method"], *found))
            if self._era == LEGACY and headers.get(b"mcp-method") == b"server/discover":
                await send({"type": "http.response.start", "status": 400, "headers": []})
                await send({"type": "http.response.body", "body": b""})
                return
            if self.forgets and b"mcp-session-id" in headers:
                self.forgets = False
                headers[b"mcp-session-id"] = b"f" * 32
                scope = {**scope, "headers": list(headers.items())}
        await self._app(scope, receive, send)

    @asynccontextmanager
    async def serving(self) -> AsyncIterator["HttpServer"]:
        """On a free port."""
        self._app = new_server(self._log).streamable_http_app()
        config = uvicorn.Config(self, log_config=None, ws="none", timeout_graceful_shutdown=1)
        server = uvicorn.Server(config)
        with socket.create_server(("127.0.0.1", 0)) as listening:
            self.url = f"http://127.0.0.1:{listening.getsockname()[1]}/mcp"
            task = asyncio.create_task(server.serve([listening]))
            await _until(lambda: server.started)
            try:
                yield self
            finally:
                server.should_exit = True
                await task


@asynccontextmanager
async def linked(server: McpServer, egress: Egress = EGRESS) -> AsyncIterator[McpLink]:
    """A way to a server, closed afterwards."""
    link = McpLink(server, egress)
    try:
        yield link
    finally:
        await link.close()


@asynccontextmanager
async def sdk_server(kind: str, log: Path) -> AsyncIterator[McpLink]:
    """The SDK's server, of a kind, and the way to it."""
    if kind == "stdio":
        command = [sys.executable, str(HERE / "mcp_tools.py"), str(log)]
        async with linked(McpServer("m", command=command)) as link:
            yield link
    else:
        async with (
            HttpServer(log, kind).serving() as server,
            linked(McpServer("m", server.url)) as link,
        ):
            yield link


def script(mode: str = "", **env: str) -> McpServer:
    """A server that breaks."""
    return McpServer("m", command=[sys.executable, str(HERE / "mcp_script.py"), mode], env=env)


async def call(link: McpLink, tool: str, for_s: float = 60.0, **arguments: Any) -> ToolOutcome:
    """Call a tool."""
    until_s = asyncio.get_running_loop().time() + for_s
    return await link.call(tool, json.dumps(arguments), until_s)


def lost(reason: str) -> ToolOutcome:
    """The outcome of a call whose answer did not come."""
    text = f"the answer of the MCP server was lost ({reason}); the call may have had its effect"
    return ToolOutcome(text, is_error=True, is_unknown=True)


@pytest.mark.parametrize("kind", ["stdio", MODERN, LEGACY])
async def test_tools_of_a_real_server_are_called(kind, tmp_path):
    log = tmp_path / "log"
    async with sdk_server(kind, log) as link:
        outcomes = [
            await call(link, "add", a=1, b=2),
            await call(link, "two_texts"),
            await call(link, "picture"),
            await call(link, "effect"),
            await call(link, "none"),
        ]
        failure = await call(link, "fail")
        wrong = await call(link, "add", a="one")
        long = await call(link, "say", chars=MAX_RESULT_CHARS + 10)
        many = await asyncio.gather(*(call(link, "add", a=n, b=n) for n in range(20)))
        offered = link.tools["add"]

    assert outcomes == [
        ToolOutcome("3"),
        ToolOutcome("one\ntwo"),
        ToolOutcome("[image, which is no text]"),
        ToolOutcome("done"),
        ToolOutcome("the MCP server m has no tool 'none'", is_error=True),
    ]
    assert (failure.is_error, failure.is_unknown, "fail" in failure.text) == (True, False, True)
    assert (wrong.is_error, wrong.is_unknown) == (True, False)
    assert "[cut: the result has" in long.text[MAX_RESULT_CHARS:]
    assert [outcome.text for outcome in many] == [str(2 * n) for n in range(20)]
    assert log.read_text() == "effect\n"
    assert offered.description == "Adds two numbers."
    assert set(json.loads(offered.schema_json)["properties"]) == {"a", "b"}


@pytest.mark.parametrize("era", [MODERN, LEGACY])
async def test_a_call_without_end_ends_in_time_and_the_server_is_told(era, tmp_path):
    log = tmp_path / "log"
    async with sdk_server(era, log) as link:
        await call(link, "add", a=1, b=2)
        began_s = time.monotonic()
        outcome = await call(link, "wait", for_s=0.3)
        took_s = time.monotonic() - began_s
        await _until(lambda: "cancelled" in log.read_text())
        after = await call(link, "add", a=1, b=2)

    assert outcome == lost("TIMEOUT")
    assert took_s < 5
    assert after == ToolOutcome("3")


@pytest.mark.parametrize("era", [MODERN, LEGACY])
async def test_a_cancelled_call_is_cancelled_at_the_server(era, tmp_path):
    log = tmp_path / "log"
    async with sdk_server(era, log) as link:
        task = asyncio.create_task(call(link, "wait"))
        await _until(lambda: log.exists() and "waiting" in log.read_text())
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await _until(lambda: "cancelled" in log.read_text())
        after = await call(link, "add", a=1, b=2)

    assert after == ToolOutcome("3")


@pytest.mark.parametrize("era", [MODERN, LEGACY])
async def test_a_result_beyond_all_bounds_is_lost_and_nothing_more(era, tmp_path):
    async with sdk_server(era, tmp_path / "log") as link:
        outcome = await call(link, "say", chars=8 * 1024 * 1024)
        after = await call(link, "add", a=1, b=2)

    assert outcome == lost("TOO_LARGE")
    assert after == ToolOutcome("3")


async def test_a_session_that_the_server_forgot_is_begun_again(tmp_path):
    log = tmp_path / "log"
    async with (
        HttpServer(log, LEGACY).serving() as server,
        linked(McpServer("m", server.url)) as link,
    ):
        await call(link, "effect")
        server.forgets = True
        outcome = await call(link, "effect")

    assert outcome == ToolOutcome("done")
    assert log.read_text() == "effect\n" * 2
    assert len({session for _, session, _ in server.seen if session}) == 2
    assert server.seen[-1][0] == "DELETE"


def speaking(tools_call: list[Step], seen: list[str]) -> Callable[[Exchange], list[Step]]:
    """A server that answers the older handshake, and each call of its one tool like this."""

    def answer(exchange: Exchange) -> list[Step]:
        message = exchange.json
        seen.append(message["method"])
        match message["method"]:
            case "initialize":
                result: dict[str, Any] = {
                    "protocolVersion": "2025-06-18",
                    "capabilities": {},
                    "serverInfo": {"name": "s", "version": "1"},
                }
            case "tools/list":
                result = {"tools": [{"name": "t", "inputSchema": {"type": "object"}}]}
            case "tools/call":
                return tools_call
            case "server/discover":
                return whole({}, 400)
            case _:
                return [b"HTTP/1.1 202 X\r\ncontent-length: 0\r\n\r\n"]
        return whole({"jsonrpc": "2.0", "id": message["id"], "result": result})

    return answer


async def test_a_cancelled_call_closes_its_connection_at_once():
    seen: list[str] = []
    times_s = []
    async with upstream(speaking([Hang()], seen)) as peer, linked(McpServer("m", peer.url)) as link:
        for number in range(11):
            task = asyncio.create_task(call(link, "t"))
            await _until(lambda: seen.count("tools/call") > number)  # noqa: B023
            calls = [x for x in peer.exchanges if x.json["method"] == "tools/call"]
            cancelled_at_s = asyncio.get_running_loop().time()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            async with asyncio.timeout(5):
                await calls[-1].closed.wait()
            times_s.append((calls[-1].closed_at_s or 0.0) - cancelled_at_s)

    assert sorted(times_s)[5] < 0.05
    assert seen.count("initialize") == 1


@pytest.mark.parametrize(
    ("steps", "outcome"),
    [
        ([Reset()], lost("BROKEN")),
        ([b"HTTP/1.1 200 X\r\ncontent-length: 1073741824\r\n\r\n", Hang()], lost("TOO_LARGE")),
        (
            [b"HTTP/1.1 200 X\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n"],
            lost("BROKEN"),
        ),
        (
            [b"HTTP/1.1 307 X\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n"],
            ToolOutcome(
                "the MCP server refused the call: Unexpected content type: ", is_error=True
            ),
        ),
        (
            [b"HTTP/1.1 500 X\r\ncontent-length: 4\r\n\r\npsst"],
            ToolOutcome(
                "the MCP server refused the call: Server returned an error response", is_error=True
            ),
        ),
    ],
    ids=["reset", "1 GiB", "no answer", "redirect", "status"],
)
async def test_a_bad_answer_is_an_error_result_and_nothing_is_sent_again(steps, outcome):
    seen: list[str] = []
    async with upstream(speaking(steps, seen)) as peer, linked(McpServer("m", peer.url)) as link:
        found = await call(link, "t")

        assert found == outcome
        assert seen.count("tools/call") == 1


async def test_nobody_there_is_an_error_result_and_not_asked_again_for_a_moment():
    asked = 0

    def answer(_: Exchange) -> list[Step]:
        nonlocal asked
        asked += 1
        return [Reset()]

    async with upstream(answer) as peer, linked(McpServer("m", peer.url)) as link:
        first = await call(link, "t")
        asked_at_first = asked
        second = await call(link, "t")

    assert first == second
    assert first == ToolOutcome("the MCP server m is not available (BROKEN)", is_error=True)
    assert asked == asked_at_first > 0


@pytest.mark.parametrize(
    ("steps", "reason"),
    [
        (whole({"error": "psst"}, 401), "STATUS_401"),
        (whole({}), "NO_MCP"),
        ([b"HTTP/1.1 200 X\r\ncontent-length: 5\r\n\r\nhello"], "NO_MCP"),
        ([b"HTTP/1.1 302 X\r\nlocation: /b\r\ncontent-length: 0\r\n\r\n"], "NO_MCP"),
    ],
    ids=["no access", "other JSON", "no JSON", "a redirect"],
)
async def test_a_server_of_another_kind_is_an_error_result(steps, reason):
    async with upstream(steps) as peer, linked(McpServer("m", peer.url)) as link:
        outcome = await call(link, "t")

    assert outcome == ToolOutcome(f"the MCP server m is not available ({reason})", is_error=True)


async def test_a_name_that_leads_inside_is_not_connected_to():
    async def resolve(host: str, port: int) -> list[str]:
        return ["127.0.0.1"]

    async with linked(McpServer("m", "https://mcp.example/"), Egress(resolve=resolve)) as link:
        outcome = await call(link, "t")

    assert outcome.text == "the MCP server m is not available (ADDRESS_DENIED)"


async def test_a_server_that_ended_is_started_again():
    async with linked(script()) as link:
        first = await call(link, "pid")
        gone = await call(link, "exit")
        second = await call(link, "pid")

    assert gone == lost("BROKEN")
    assert first.text != second.text
    assert not first.is_error
    assert not second.is_error


async def test_a_line_without_end_is_the_end_of_the_server():
    async with linked(script()) as link:
        pid = int((await call(link, "pid")).text)
        outcome = await call(link, "flood")
        after = await call(link, "pid")

        assert outcome == lost("BROKEN")
        assert not _is_running(pid)
        assert not after.is_error


async def test_what_is_no_message_or_no_answer_of_ours_is_read_over():
    async with linked(script()) as link:
        assert await call(link, "noise") == await call(link, "pid")


async def test_a_server_that_says_nothing_is_waited_for_until_the_call_must_end():
    async with linked(script("mute")) as link:
        began_s = time.monotonic()
        outcome = await call(link, "pid", for_s=0.3)

        assert outcome.text == "the MCP server m did not start in time"
        assert not outcome.is_unknown
        assert time.monotonic() - began_s < 5


@pytest.mark.parametrize(
    ("server", "reason"),
    [(script("gone"), "ENDED"), (McpServer("m", command=["/no/such/program"]), "NOT_STARTED")],
    ids=["ends", "is not there"],
)
async def test_a_server_that_does_not_start_is_an_error_result(server, reason):
    async with linked(server) as link:
        outcome = await call(link, "pid")

    assert outcome == ToolOutcome(f"the MCP server m is not available ({reason})", is_error=True)


@pytest.mark.parametrize("mode", ["", "stubborn"])
async def test_closing_stops_the_server(mode):
    async with linked(script(mode)) as link:
        pid = int((await call(link, "pid")).text)
        waiting = asyncio.create_task(call(link, "silence"))
        await asyncio.sleep(0.05)
        began_s = time.monotonic()

    assert not _is_running(pid)
    assert time.monotonic() - began_s < 4
    assert (await waiting) == lost("BROKEN")


async def test_a_started_server_sees_the_secrets_that_it_was_given_and_no_others(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "of the gateway")
    async with linked(script(TOKEN="of the server")) as link:
        outcome = await call(link, "environment")

    assert json.loads(outcome.text)["TOKEN"] == "of the server"
    assert "of the gateway" not in outcome.text


async def test_a_registry_calls_learns_and_closes(tmp_path):
    async with HttpServer(tmp_path / "log", MODERN).serving() as server:
        tools = ToolRegistry(
            [RegisteredTool("sum_up", mcp_server="m", mcp_tool="add")],
            [RegisteredMcpServer("m", server.url, {"authorization": "key"}, allow_private=True)],
            {"key": "Bearer s3cr3t"},
            STRICT,
            now=time.time,
            private_egress=lambda hosts: Egress(hosts),
        )
        asked = Tool(name="sum_up", registered=RegisteredSource())
        before = tools.resolve(asked, "tool").tool.description
        problems: list[str] = []
        tools.begin_learning(problems.append)
        await _until(lambda: tools.resolve(asked, "tool").tool.description != "")
        found = tools.resolve(asked, "tool")
        inline = tools.resolve(Tool(name="x", mcp=McpSource(server="m", tool="add")), "tool")
        until_s = asyncio.get_running_loop().time() + 20
        outcomes = [
            await tool.runner.run('{"a": 20, "b": 22}', CONTEXT, until_s)
            for tool in (found, inline)
        ]
        await tools.close()
        closed = await found.runner.run("{}", CONTEXT, until_s)

    assert (before, problems) == ("", [])
    assert found.tool.description == inline.tool.description == "Adds two numbers."
    assert outcomes == [ToolOutcome("42")] * 2
    assert closed.text == "the MCP server m is not available (CLOSED)"
    assert {authorization for *_, authorization in server.seen} == {"Bearer s3cr3t"}


async def test_a_server_that_is_dead_at_first_is_told_of_once_and_learned_from_later(tmp_path):
    """Here a program that is missing at first."""
    program = tmp_path / "server"
    servers = [RegisteredMcpServer("m", command=[str(program)])]
    tools = ToolRegistry(
        [RegisteredTool("pid", mcp_server="m")], servers, {}, STRICT, now=time.time
    )
    asked = Tool(name="pid", registered=RegisteredSource())
    problems: list[str] = []

    tools.begin_learning(problems.append)
    began_s = time.monotonic()
    await _until(lambda: problems != [])
    before = tools.resolve(asked, "tool").tool.parameters_schema_json
    program.write_text(f"#!/bin/sh\nexec {sys.executable} {HERE / 'mcp_script.py'}\n")
    program.chmod(0o700)
    await _until(lambda: tools.resolve(asked, "tool").tool.parameters_schema_json != "")
    took_s = time.monotonic() - began_s
    await tools.close()

    assert problems == ["the MCP server m is not available (NOT_STARTED)"]
    assert before == ""
    assert took_s < 8


async def test_whoever_hurries_a_lesson_does_not_start_servers_faster(tmp_path):
    starts = tmp_path / "starts"
    command = ["/bin/sh", "-c", f"echo >> {starts}"]
    servers = [RegisteredMcpServer("m", command=command)]
    tools = ToolRegistry([RegisteredTool("t", mcp_server="m")], servers, {}, STRICT, now=time.time)
    asked = Tool(name="t", registered=RegisteredSource())

    tools.begin_learning(lambda problem: None)
    until_s = time.monotonic() + 2.5
    while time.monotonic() < until_s:
        tools.resolve(asked, "tool")
        await asyncio.sleep(0.005)
    await tools.close()

    assert 1 <= len(starts.read_text().splitlines()) <= 4


async def test_a_registry_that_closes_while_it_learns_leaves_no_server_behind(tmp_path):
    started = tmp_path / "started"
    command = ["/bin/sh", "-c", f"echo > {started}; exec sleep 600"]  # Says nothing.
    servers = [RegisteredMcpServer("m", command=command)]
    tools = ToolRegistry([RegisteredTool("t", mcp_server="m")], servers, {}, STRICT, now=time.time)
    problems: list[str] = []

    before = asyncio.all_tasks()
    tools.begin_learning(problems.append)
    await _until(started.exists)
    began_s = time.monotonic()
    await tools.close()

    assert time.monotonic() - began_s < 5
    assert asyncio.all_tasks() == before
    assert problems == []


def test_the_sdk_is_not_loaded_before_it_is_needed():
    code = "import sys, trunkline_server.tools.registry; print('mcp' in sys.modules)"

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout == "False\n"


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


async def _until(is_true: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not is_true():  # noqa: ASYNC110
            await asyncio.sleep(0.002)
