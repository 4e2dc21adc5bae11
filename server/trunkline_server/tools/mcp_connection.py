"""One connection to an MCP server, by the official SDK. Imported when the first one is needed: the SDK takes a second
and 50 MiB.

Over HTTP every message is one request of the egress client, read to its end: its rules hold, a redirect leads nowhere,
and a call that is given up closes its connection at once. What a server sends on its own accord is not asked for.
"""

import asyncio
import contextvars
import json
import logging
from collections.abc import Iterable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any, Final

import anyio
import httpx2
from mcp import Client, MCPError
from mcp.client.streamable_http import streamable_http_client
from mcp_types import (
    CONNECTION_CLOSED,
    CallToolResult,
    ContentBlock,
    EmbeddedResource,
    Implementation,
    ResourceLink,
    TextContent,
    TextResourceContents,
)

from trunkline_server.core.tools import ToolOutcome
from trunkline_server.tools.egress import Egress, EgressError
from trunkline_server.tools.mcp_server import McpDown, McpServer, McpTool, SessionLost
from trunkline_server.tools.mcp_stdio import stdio_streams
from trunkline_server.tools.replies import cut, failed, outcome_of_error

CONNECT_S: Final = 15.0  # The SDK gives the newest handshake 10 s before it tries the older one.
REQUEST_S: Final = 10.0  # Of requests that belong to no call.
GOODBYE_S: Final = 2.0
LAG_S: Final = 0.5  # By which a call's request could outlast it: the call ends first, so that the server is told.
MAX_MESSAGE_BYTES: Final = 4 * 1024 * 1024
MAX_PAGES: Final = 10  # Of a server's list of tools.
MAX_TOOLS: Final = 1_000
MAX_WORDS: Final = 500  # Characters of a refusal that are handed on.
SUBJECT: Final = "the MCP server"
CLIENT: Final = Implementation(name="trunkline", version="0.1")

_FORWARDED: Final = ("content-type", "mcp-session-id")
_LOGGERS: Final = ("client", "httpx2", "mcp")


@dataclass(slots=True)
class _Call:
    """What the requests of one call know of it."""

    until_s: float
    error: EgressError | None = None
    is_session_lost: bool = False
    is_over: bool = False
    requests: list[anyio.CancelScope] = field(default_factory=list)

    def end(self) -> None:
        """Close its connections."""
        self.is_over = True
        for scope in self.requests:
            scope.cancel()


# The SDK sends a call's requests in tasks of its own, but in the context of the call.
_CALL: contextvars.ContextVar[_Call | None] = contextvars.ContextVar("mcp_call", default=None)


class _EgressTransport(httpx2.AsyncBaseTransport):
    """The SDK's requests through the egress client. A failed one is a bad response, so that the session lives on.

    Attributes:
        reason: of the last failure.
    """

    def __init__(self, egress: Egress, headers: Mapping[str, str]) -> None:
        self._egress = egress
        self._headers = headers
        self.reason = ""

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        if request.method == "GET" and "last-event-id" not in request.headers:
            return httpx2.Response(405)
        call = _CALL.get()
        content = await request.aread()
        if call is not None and call.is_over and _is_tool_call(content):
            return httpx2.Response(502)  # It was given up before it was sent.
        now_s = asyncio.get_running_loop().time()
        if call is None or call.is_over:
            until_s = now_s + (GOODBYE_S if request.method == "DELETE" else REQUEST_S)
        else:
            until_s = call.until_s + LAG_S
        with anyio.CancelScope() as scope:
            if call is not None and not call.is_over:
                call.requests.append(scope)
            try:
                response = await self._egress.request(
                    request.method,
                    str(request.url),
                    headers={**request.headers, **self._headers},
                    content=content,
                    until_s=until_s,
                    max_bytes=MAX_MESSAGE_BYTES,
                )
            except EgressError as error:
                self.reason = error.reason
                if call is not None:
                    call.error = error
                return httpx2.Response(502)
        if scope.cancelled_caught:
            return httpx2.Response(502)
        self.reason = f"STATUS_{response.status}" if response.status >= 400 else ""
        if response.status == 404 and "mcp-session-id" in request.headers and call is not None:
            call.is_session_lost = True
        headers = {name: response.headers[name] for name in _FORWARDED if name in response.headers}
        return httpx2.Response(response.status, headers=headers, content=response.body)


class McpConnection:
    """A session with one server, kept by a task of its own.

    Attributes:
        tools: what the server offers, by name.
        is_over: nothing more can be asked over it.
    """

    def __init__(self, server: McpServer, egress: Egress) -> None:
        self._server = server
        self._http = _EgressTransport(egress, server.headers)
        self._client: Client | None = None
        self._over = asyncio.Event()
        self._keeper: asyncio.Task[None] | None = None
        self._given_up: set[asyncio.Task[CallToolResult]] = set()
        self.tools: Mapping[str, McpTool] = {}
        for name in _LOGGERS:  # They log what was asked and answered.
            logging.getLogger(name).setLevel(logging.CRITICAL + 1)

    @property
    def is_over(self) -> bool:
        """Has it ended?"""
        return self._over.is_set()

    async def open(self) -> None:
        """Connect, and learn what there is.

        Raises:
            McpDown.
        """
        ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._keeper = asyncio.create_task(self._keep(ready))
        try:
            await ready
        except asyncio.CancelledError:
            await self.close()
            raise

    async def _keep(self, ready: asyncio.Future[None]) -> None:
        reason = "FAILED"
        try:
            async with AsyncExitStack() as stack:
                async with asyncio.timeout(CONNECT_S):
                    client = await stack.enter_async_context(await self._unconnected(stack))
                    self.tools = await _tools(client)
                self._client = client
                if not ready.done():
                    ready.set_result(None)
                await self._over.wait()
        except TimeoutError:
            reason = "TIMEOUT"
        except OSError:
            reason = "NOT_STARTED"
        except (MCPError, ValueError, RuntimeError, ExceptionGroup):
            reason = self._http.reason or ("ENDED" if self.is_over else "NO_MCP")
        finally:
            self._over.set()
            if not ready.done():
                ready.set_exception(McpDown(reason))

    async def _unconnected(self, stack: AsyncExitStack) -> Client:
        server = self._server
        if not server.url:
            streams = stdio_streams(server.command, server.env, MAX_MESSAGE_BYTES, self._over.set)
            return Client(streams, client_info=CLIENT, cache=None)
        http = await stack.enter_async_context(httpx2.AsyncClient(transport=self._http))
        transport = streamable_http_client(
            server.url, http_client=http, max_sse_event_size=MAX_MESSAGE_BYTES
        )
        return Client(transport, client_info=CLIENT, cache=None)

    async def call(self, tool: str, arguments: dict[str, Any], until_s: float) -> ToolOutcome:
        """Call a tool.

        Raises:
            SessionLost.
        """
        assert self._client is not None
        call = _Call(until_s)
        context = contextvars.copy_context()
        context.run(_CALL.set, call)
        loop = asyncio.get_running_loop()
        task = loop.create_task(self._client.call_tool(tool, arguments), context=context)
        try:
            await asyncio.wait({task}, timeout=until_s - loop.time())
        finally:
            if not task.done():
                call.end()
                self._give_up(task)
        if not task.done():
            lost = EgressError("TIMEOUT", was_sent=True)
            return outcome_of_error(call.error or lost, SUBJECT)
        try:
            return outcome_of_result(task.result())
        except MCPError as error:
            if call.is_session_lost:
                self._over.set()
                raise SessionLost from error
            return self._refusal(call, error)
        except (ValueError, RuntimeError, OSError):
            return failed(f"{SUBJECT} answered with what is no result of this tool")

    def _give_up(self, task: asyncio.Task[CallToolResult]) -> None:
        """Whoever waits does not wait until the server is told; `close` does."""
        task.cancel()
        self._given_up.add(task)
        task.add_done_callback(self._given_up.discard)
        task.add_done_callback(lambda done: done.cancelled() or done.exception())

    def _refusal(self, call: _Call, error: MCPError) -> ToolOutcome:
        if call.error is not None:
            return outcome_of_error(call.error, SUBJECT)
        if error.code == CONNECTION_CLOSED:
            self._over.set()
            return outcome_of_error(EgressError("BROKEN", was_sent=True), SUBJECT)
        return failed(_clean(f"{SUBJECT} refused the call: {error.message[:MAX_WORDS]}"))

    async def close(self) -> None:
        """End the session and stop a server that was started for it."""
        self._over.set()
        for task in self._given_up:
            task.cancel()
        if self._given_up:
            await asyncio.wait(set(self._given_up))
        if self._keeper is not None:
            if self._client is None:
                self._keeper.cancel()
            await asyncio.wait({self._keeper})


def _is_tool_call(content: bytes) -> bool:
    return bool(content) and json.loads(content).get("method") == "tools/call"


async def _tools(client: Client) -> dict[str, McpTool]:
    tools: dict[str, McpTool] = {}
    cursor: str | None = None
    for _ in range(MAX_PAGES):
        page = await client.list_tools(cursor=cursor)
        for tool in page.tools[: MAX_TOOLS - len(tools)]:
            schema = json.dumps(tool.input_schema, separators=(",", ":"))
            tools[tool.name] = McpTool(tool.description or "", schema)
        cursor = page.next_cursor
        if cursor is None:
            break
    return tools


def outcome_of_result(result: CallToolResult) -> ToolOutcome:
    """Its texts, one under the other. Of what is no text, the kind is told."""
    text = "\n".join(_texts(result.content))
    if not result.content and result.structured_content is not None:
        text = json.dumps(result.structured_content, ensure_ascii=False)
    return cut(ToolOutcome(_clean(text), is_error=bool(result.is_error)))


def _texts(content: Iterable[ContentBlock]) -> Iterable[str]:
    for block in content:
        match block:
            case TextContent():
                yield block.text
            case ResourceLink():
                yield f"[{block.name}: {block.uri}]"
            case EmbeddedResource(resource=TextResourceContents() as resource):
                yield resource.text
            case _:
                yield f"[{block.type}, which is no text]"


def _clean(text: str) -> str:
    """Half a surrogate pair is no text, but JSON can carry one."""
    return text.encode("utf-8", errors="replace").decode()
