"""A caller who leaves while a tool runs: the tool's own socket sees its connection close, and nothing stays open."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

import grpc
import pytest

from tests.edges.observed import LIMIT_S, spec
from tests.edges.test_server_tools import Turn, World, calls, world
from tests.faults.lag import share_of
from tests.faults.waiting import until
from tests.support.upstream import Exchange, Hang, Step, whole
from trunkline.v1.completion_service_pb2 import CompleteRequest
from trunkline.v1.completion_service_pb2_grpc import CompletionServiceStub
from trunkline.v1.completion_spec_pb2 import CompletionSpec, RegisteredSource, Tool, ToolOptions

pytestmark = pytest.mark.once

CLOSED_WITHIN_S: Final = 0.050
TIMES: Final = [
    pytest.param(100, id="short"),
    pytest.param(1_000, id="long", marks=pytest.mark.slow),
]
MCP_ANSWERS: Final[Mapping[str, Any]] = {
    "initialize": {
        "protocolVersion": "2025-06-18",
        "capabilities": {},
        "serverInfo": {"name": "s", "version": "1"},
    },
    "tools/list": {"tools": [{"name": "lookup", "inputSchema": {"type": "object"}}]},
}


def asking(number: int, exchange: Exchange) -> Turn:
    """A model that calls the tool."""
    return calls(("c1", "lookup", "{}"))


def webhook(_: Exchange) -> list[Step]:
    """A tool that never answers."""
    return [Hang()]


def mcp(exchange: Exchange) -> list[Step]:
    """A server of the older handshake, whose tool never answers."""
    asked = exchange.json
    if asked["method"] == "tools/call":
        return [Hang()]
    if asked["method"] == "server/discover":
        return whole({}, 400)
    if result := MCP_ANSWERS.get(asked["method"]):
        return whole({"jsonrpc": "2.0", "id": asked["id"], "result": result})
    return [b"HTTP/1.1 202 X\r\ncontent-length: 0\r\n\r\n"]


KINDS: Final[Mapping[str, Callable[[Exchange], list[Step]]]] = {"webhook": webhook, "MCP": mcp}


@asynccontextmanager
async def tool_world(kind: str) -> AsyncIterator[tuple[World, list[Exchange]]]:
    """A service whose model always calls one tool of a kind; and the calls that the tool has got."""
    called: list[Exchange] = []

    def tool(exchange: Exchange) -> list[Step]:
        if kind == "webhook" or exchange.json["method"] == "tools/call":
            called.append(exchange)
        return KINDS[kind](exchange)

    async with AsyncExitStack() as stack:
        found = await stack.enter_async_context(world(asking, tool))
        # The tool's address is known now; the service that is asked knows it as an operator's.
        at: dict[str, dict[str, Any]] = {
            "webhook": {"url": f"{found.tool.url}/lookup"},
            "MCP": {
                "mcp_server": "s",
                "parameters": {"type": "object"},
                "description": "Looks up.",
            },
        }
        running = await stack.enter_async_context(
            world(
                asking,
                tools=[{"name": "lookup", **at[kind]}],
                mcp_servers=[{"id": "s", "url": f"{found.tool.url}/mcp", "allow_private": True}],
                egress={"allowed_hosts": [f"127.0.0.1:{found.tool.port}"]},
            )
        )
        yield World(running.running, running.model, found.tool), called


@dataclass
class Caller:
    """Asks over one edge, and leaves when it is told to."""

    found: World
    stub: CompletionServiceStub

    def spec(self) -> CompletionSpec:
        """A question with the operator's tool."""
        tool = Tool(name="lookup", registered=RegisteredSource())
        return spec("m", tool_options=ToolOptions(tools=[tool]))

    async def stream(self) -> Callable[[], None]:
        """Over gRPC's `Complete`."""
        call: Any = self.stub.Complete(CompleteRequest(spec=self.spec()))
        reading = asyncio.ensure_future(call.read())
        reading.add_done_callback(lambda done: done.cancelled() or done.exception())
        return lambda: call.cancel()

    async def speko(self) -> Callable[[], None]:
        """Over `/v1/complete`: the connection is dropped."""
        host, port = self.found.running.service.http_address.split(":")
        _, writer = await asyncio.open_connection(host, int(port))
        body = {
            "messages": [{"role": "user", "content": "hi"}],
            "intent": {"language": "en"},
            "tools": [{"name": "lookup", "executionMode": "webhook"}],
        }
        data = json.dumps(body).encode()
        head = (
            "POST /v1/complete HTTP/1.1\r\nhost: g\r\ncontent-type: application/json\r\n"
            f"content-length: {len(data)}\r\n\r\n"
        )
        writer.write(head.encode() + data)
        return writer.close


EDGES: Final = {
    "gRPC Complete": Caller.stream,
    "REST /v1/complete": Caller.speko,
}


async def closing_times_s(kind: str, edge: str, times: int) -> list[float]:
    """From the caller's leaving until the tool's socket saw the end, each time. Nothing is left afterwards."""
    found_s = []
    async with (
        tool_world(kind) as (found, called),
        grpc.aio.insecure_channel(found.running.service.grpc_address) as channel,
    ):
        caller = Caller(found, CompletionServiceStub(channel))
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(LIMIT_S * times):
            for number in range(times):
                leave = await EDGES[edge](caller)
                await until(lambda: len(called) > number, "the tool is called", step_s=0.001)  # noqa: B023
                left_s = loop.time()
                leave()
                exchange = called[number]
                await exchange.closed.wait()
                assert exchange.closed_at_s is not None
                found_s.append(exchange.closed_at_s - left_s)
        admission = found.running.service.admission
        await until(lambda: admission.in_flight == 0, "all requests have ended")
        await until(lambda: found.tool.open_sockets == 0, "the tool has no open connection")
        assert len(called) == times
    return found_s


@pytest.mark.parametrize("times", TIMES)
@pytest.mark.parametrize("edge", EDGES)
@pytest.mark.parametrize("kind", KINDS)
async def test_who_leaves_while_a_tool_runs_closes_its_connection(kind, edge, times):
    found_s = await closing_times_s(kind, edge, times)

    p99_s = share_of(found_s, 99)
    figures = f"p50 {share_of(found_s, 50) * 1e3:.1f} ms, p99 {p99_s * 1e3:.1f} ms, max {max(found_s) * 1e3:.1f} ms"
    print(f"{kind}, {edge}, {times} times: {figures}")
    assert p99_s < CLOSED_WITHIN_S, figures
