"""Tools that send without end, lead elsewhere or can't be trusted: an error result for the model, and nothing more.

The gateway is a process of its own here, so that its memory and its open files are its own too.
"""

import asyncio
import datetime
import json
import ssl
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import grpc
import httpx
import pytest
import pytest_asyncio
import trustme

from tests.edges.observed import LIMIT_S, spec
from tests.edges.test_server_tools import FAILED, STARTED, calls
from tests.egress.peers import OK, Connection, Peer, endless, peer, reply, silent
from tests.faults.gateway import Gateway, gateway
from tests.faults.waiting import until
from tests.support.service import model, provider
from tests.support.upstream import Exchange, Step, Upstream, answer, upstream
from trunkline.v1.completion_event_pb2 import CompleteResponse
from trunkline.v1.completion_service_pb2 import CompleteRequest
from trunkline.v1.completion_service_pb2_grpc import CompletionServiceStub
from trunkline.v1.completion_spec_pb2 import RegisteredSource, Tool, ToolOptions

pytestmark = pytest.mark.asyncio(loop_scope="module")

MIB: Final = 1024 * 1024
GIB: Final = 1024 * MIB
TIMEOUT_S: Final = 0.3  # Of each tool.
ENDED_WITHIN_S: Final = 3.0  # A whole answer, whatever its tool does.
SENT_BYTES: Final = (
    24 * MIB
)  # What a peer may get rid of until it is cut off, sockets' buffers included.
GROWN_BYTES: Final = 24 * MIB  # By which the process may grow for
AT_ONCE: Final = 8  # so many calls.
HEAD: Final = b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\n"
PIECE: Final = b"x" * MIB
LOST: Final = "the answer of the tool was lost ({}); the call may have had its effect"
NOT_REACHED: Final = "the tool could not be reached ({})"
REDIRECTED: Final = "the tool answered with a redirect ({}), which is not followed"
EITHER: Final = "BROKEN or TOO_LARGE"
FLOODS: Final = {
    "gibibyte": LOST.format("TOO_LARGE"),
    "chunks": LOST.format("TOO_LARGE"),
    "head": LOST.format("TOO_LARGE"),
    "line": LOST.format(EITHER),
}
# Whichever is noticed first: that it is too much, or no HTTP.
NOTICED: Final = {LOST.format(EITHER): {LOST.format("BROKEN"), LOST.format("TOO_LARGE")}}
UNTRUSTED: Final = ("stranger", "other_name", "expired")
LISTEN: Final = "0A"
TIME_WAIT: Final = "06"


async def no_tls(connection: Connection) -> None:
    """Speaks HTTP where TLS is expected."""
    await connection.say(OK)
    await connection.wait_until_gone()


async def half_a_handshake(connection: Connection) -> None:
    """Takes the first message and says nothing."""
    await connection.reader.read(16)
    await connection.wait_until_gone()


def redirect(status: int, location: str) -> bytes:
    """A response that leads elsewhere."""
    return f"HTTP/1.1 {status} X\r\nlocation: {location}\r\ncontent-length: 0\r\n\r\n".encode()


def certificate(authority: trustme.CA, *names: str, **more: Any) -> ssl.SSLContext:
    """A server's side."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(*names, **more).configure_cert(context)
    return context


@dataclass
class Trouble:
    """A gateway, its model, its tools by name, and a server inside that no tool may lead to."""

    gateway: Gateway
    model: Upstream
    tools: Mapping[str, Peer]
    inside: Peer

    def told(self, tool: str) -> list[dict[str, Any]]:
        """The results that the model was told of, each once."""
        asked = [
            e.json for e in self.model.exchanges if e.json["tools"][0]["function"]["name"] == tool
        ]
        return [each["messages"][-1] for each in asked if each["messages"][-1]["role"] == "tool"]

    def open_sockets(self, tool: str) -> int:
        """At a tool, on either side of a connection, as the system counts them."""
        port = f":{self.tools[tool].port:04X}"
        rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
        return sum(
            port in f"{local} {remote}" and state not in (LISTEN, TIME_WAIT)
            for _, local, remote, state, *_ in rows
        )

    def peak_bytes(self) -> int:
        """The most memory that the process had since the last `forget_peak`."""
        return self._status_bytes("VmHWM")

    def forget_peak(self) -> int:
        """Measure the peak anew; what is in use now."""
        Path(f"/proc/{self.gateway.process.pid}/clear_refs").write_text("5")
        return self._status_bytes("VmRSS")

    def _status_bytes(self, name: str) -> int:
        status = Path(f"/proc/{self.gateway.process.pid}/status").read_text()
        (line,) = [line for line in status.splitlines() if line.startswith(f"{name}:")]
        return int(line.split()[1]) * 1024


def scripted(exchange: Exchange) -> Sequence[Step]:
    """A model that calls its first tool once, and then answers."""
    asked = exchange.json
    if asked["messages"][-1]["role"] == "tool":
        return answer("Done.")
    return calls(("c1", asked["tools"][0]["function"]["name"], "{}"))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def trouble(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Trouble]:
    if sys.platform != "linux":
        pytest.skip("needs /proc")
    folder = tmp_path_factory.mktemp("gateway")
    trusted, stranger = trustme.CA(), trustme.CA()
    trusted.cert_pem.write_to_path(str(folder / "ca.pem"))
    yesterday = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=1)
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        inside = await enter(peer(reply(OK)))
        here = f"http://127.0.0.1:{inside.port}/secret"
        plain: Mapping[str, Any] = {
            "gibibyte": endless(HEAD + b"content-length: %d\r\n\r\n" % GIB, PIECE),
            "chunks": endless(
                HEAD + b"transfer-encoding: chunked\r\n\r\n", b"100000\r\n%b\r\n" % PIECE
            ),
            "head": endless(HEAD, b"x-many: %b\r\n" % (b"x" * 1000)),
            "line": endless(b"HTTP/1.1 200 ", PIECE),
            "drips": endless(HEAD + b"content-length: 9999\r\n\r\n", b"x", 0.01),
            "silent": silent,
            "moved": reply(redirect(302, here)),
            "moved_with_body": reply(redirect(307, here)),
            "metadata": reply(redirect(301, "http://169.254.169.254/latest/meta-data/")),
        }
        secure: Mapping[str, tuple[Any, ssl.SSLContext | None]] = {
            "stranger": (reply(OK), certificate(stranger, "127.0.0.1")),
            "other_name": (reply(OK), certificate(trusted, "tool.example.com")),
            "expired": (reply(OK), certificate(trusted, "127.0.0.1", not_after=yesterday)),
            "no_tls": (no_tls, None),
            "half_a_handshake": (half_a_handshake, None),
            "trusted": (reply(OK), certificate(trusted, "127.0.0.1")),
        }
        tools = {name: await enter(peer(script)) for name, script in plain.items()}
        for name, (script, tls) in secure.items():
            tools[name] = await enter(peer(script, tls=tls))
        model_ = await enter(upstream(scripted))
        running = await enter(
            gateway(
                folder,
                providers=[provider("a", model_.url)],
                models=[model("m", "a")],
                egress={
                    "allowed_hosts": [f"127.0.0.1:{tool.port}" for tool in tools.values()],
                    "ca_file": str(folder / "ca.pem"),
                },
                tools=[
                    {
                        "name": name,
                        "description": "A tool.",
                        "url": f"http{'s' * (name in secure)}://127.0.0.1:{tool.port}/",
                        "timeout_s": TIMEOUT_S,
                    }
                    for name, tool in tools.items()
                ],
            )
        )
        yield Trouble(running, model_, tools, inside)


async def ask(trouble: Trouble, tool: str) -> list[CompleteResponse]:
    """An answer for which the model calls this tool."""
    tools = [Tool(name=tool, registered=RegisteredSource())]
    asked = CompleteRequest(spec=spec("m", tool_options=ToolOptions(tools=tools)))
    async with grpc.aio.insecure_channel(trouble.gateway.grpc_address) as channel:
        call = CompletionServiceStub(channel).Complete(asked, timeout=LIMIT_S)
        return [event async for event in call]


def text_of(events: Sequence[CompleteResponse]) -> str:
    """All of it."""
    return "".join(event.text_delta.text for event in events)


def states_of(events: Sequence[CompleteResponse]) -> list[int]:
    """What was told of server tools."""
    return [e.server_tool_call.state for e in events if e.HasField("server_tool_call")]


async def until_nothing_is_open(trouble: Trouble, tool: str) -> None:
    """The tool has seen the end of each of its connections, and the system knows of none."""
    at = trouble.tools[tool]
    await until(lambda: all(c.gone_at_s for c in at.connections), "the tool's connections end")
    await until(lambda: not trouble.open_sockets(tool), "no socket is left open")


async def test_a_tool_that_can_be_trusted_works(trouble):
    """So that the others fail for their own reasons; and from now on the process has all that it needs."""
    events = await ask(trouble, "trusted")

    assert text_of(events) == "Done."
    assert [m["content"] for m in trouble.told("trusted")] == ["ok"]


@pytest.mark.parametrize(
    ("tool", "result"),
    [
        *FLOODS.items(),
        ("drips", LOST.format("TIMEOUT")),
        ("silent", LOST.format("TIMEOUT")),
        ("moved", REDIRECTED.format(302)),
        ("moved_with_body", REDIRECTED.format(307)),
        ("metadata", REDIRECTED.format(301)),
        *((name, NOT_REACHED.format("TLS_FAILED")) for name in UNTRUSTED),
        ("no_tls", NOT_REACHED.format("TLS_FAILED")),
        ("half_a_handshake", NOT_REACHED.format("TIMEOUT")),
    ],
)
async def test_a_tool_that_misbehaves_is_an_error_result_and_the_answer_goes_on(
    trouble, tool, result
):
    began_s = asyncio.get_running_loop().time()
    events = await ask(trouble, tool)
    took_s = asyncio.get_running_loop().time() - began_s
    await until_nothing_is_open(trouble, tool)

    assert text_of(events) == "Done."
    assert events[-1].HasField("completed")
    assert states_of(events) == [STARTED, FAILED]
    (told,) = [message["content"] for message in trouble.told(tool)]
    assert told in NOTICED.get(result, {result})
    assert took_s < ENDED_WITHIN_S
    # A handshake that fails is no connection to the tool's server.
    assert len(trouble.tools[tool].connections) == (0 if tool in UNTRUSTED else 1)
    assert sum(c.said_bytes for c in trouble.tools[tool].connections) < SENT_BYTES
    assert trouble.inside.connections == []


@pytest.mark.parametrize("tool", FLOODS)
async def test_floods_do_not_fill_the_memory(trouble, tool):
    await asyncio.gather(*(ask(trouble, "trusted") for _ in range(AT_ONCE)))
    trouble.tools[tool].connections.clear()
    before_bytes = trouble.forget_peak()
    answers = await asyncio.gather(*(ask(trouble, tool) for _ in range(AT_ONCE)))
    grown_bytes = trouble.peak_bytes() - before_bytes
    await until_nothing_is_open(trouble, tool)

    print(f"{AT_ONCE} x {tool}: grown by {grown_bytes / MIB:.1f} MiB at most")
    assert [text_of(events) for events in answers] == ["Done."] * AT_ONCE
    assert len(trouble.tools[tool].connections) == AT_ONCE
    assert grown_bytes < GROWN_BYTES


async def test_over_spekos_api_it_is_an_error_result_too(trouble):
    body = {
        "messages": [{"role": "user", "content": "hi"}],
        "intent": {"language": "en"},
        "tools": [{"name": "gibibyte", "executionMode": "webhook"}],
    }
    async with httpx.AsyncClient(timeout=LIMIT_S) as http:
        response = await http.post(f"http://{trouble.gateway.http_address}/v1/complete", json=body)

    events = [json.loads(line[6:]) for line in response.text.splitlines() if line[:6] == "data: "]
    assert [event["status"] for event in events if "status" in event] == ["started", "failed"]
    assert events[-1]["text"] == "Done."
