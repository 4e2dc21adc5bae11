"""Tools of servers that speak the Model Context Protocol, of the operator's choosing.

A server is connected to when the first of its tools is called, and again after the connection was lost. One that is
down is an error result, and for a moment it is not asked again.
"""

import asyncio
import importlib.util
import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from trunkline_server.core.tools import ToolContext, ToolOutcome
from trunkline_server.tools.egress import Egress
from trunkline_server.tools.mcp_server import McpDown, McpServer, McpTool, SessionLost
from trunkline_server.tools.replies import failed

if TYPE_CHECKING:
    from trunkline_server.tools.mcp_connection import McpConnection

SDK: Final = "mcp"
DOWN_S: Final = 1.0  # In which a server that could not be reached is not tried again.
LEARN_S: Final = 15.0  # For a server to say what it offers, before it is asked anew
MAX_WAIT_S: Final = 60.0  # after a while: twice as long each time, and no longer than this.


def has_sdk() -> bool:
    """Is the SDK installed?"""
    return importlib.util.find_spec(SDK) is not None


def _connection_class() -> "type[McpConnection]":
    from trunkline_server.tools.mcp_connection import McpConnection

    return McpConnection


class McpLink:
    """The way to one server: a connection when there is one, else one is made.

    Attributes:
        tools: what the server said it offers, when it was last asked.
    """

    def __init__(self, server: McpServer, egress: Egress) -> None:
        self._server = server
        self._egress = egress
        self._connection: McpConnection | None = None
        self._opening: asyncio.Task[McpConnection] | None = None
        self._down = ""
        self._down_until_s = 0.0
        self._is_closed = False
        self.tools: Mapping[str, McpTool] = {}

    @property
    def id(self) -> str:
        """The server's, as it is configured."""
        return self._server.id

    async def call(self, tool: str, arguments_json: str, until_s: float) -> ToolOutcome:
        """Call a tool."""
        arguments = json.loads(arguments_json or "{}")
        try:
            try:
                return await self._call(tool, arguments, until_s)
            except SessionLost:
                return await self._call(tool, arguments, until_s)
        except McpDown as error:
            return failed(f"the MCP server {self._server.id} is not available ({error})")
        except SessionLost:
            return failed(f"the MCP server {self._server.id} does not keep its sessions")
        except TimeoutError:
            return failed(f"the MCP server {self._server.id} did not start in time")

    async def _call(self, tool: str, arguments: dict[str, object], until_s: float) -> ToolOutcome:
        connection = await self.connection(until_s)
        if tool not in connection.tools:
            return failed(f"the MCP server {self._server.id} has no tool {tool!r}")
        return await connection.call(tool, arguments, until_s)

    async def connection(self, until_s: float) -> "McpConnection":
        """The connection. Whoever stops waiting for it does not stop it.

        Raises:
            McpDown, TimeoutError.
        """
        if self._is_closed:
            raise McpDown("CLOSED")
        if self._connection is not None and not self._connection.is_over:
            return self._connection
        if asyncio.get_running_loop().time() < self._down_until_s:
            raise McpDown(self._down)
        if self._opening is None:
            self._opening = asyncio.create_task(self._open())
            self._opening.add_done_callback(self._opened)
        async with asyncio.timeout_at(until_s):
            return await asyncio.shield(self._opening)

    async def _open(self) -> "McpConnection":
        if self._connection is not None:
            await self._connection.close()
        # In a thread, so that nobody's stream stands still while it loads.
        connection = (await asyncio.to_thread(_connection_class))(self._server, self._egress)
        await connection.open()
        self._connection, self.tools = connection, connection.tools
        return connection

    def _opened(self, opening: "asyncio.Task[McpConnection]") -> None:
        self._opening = None
        if not opening.cancelled() and (error := opening.exception()) is not None:
            self._down = str(error)
            self._down_until_s = asyncio.get_running_loop().time() + DOWN_S

    async def close(self) -> None:
        """End the connection."""
        self._is_closed = True
        if (opening := self._opening) is not None:
            opening.cancel()
            await asyncio.wait({opening})
        if self._connection is not None:
            await self._connection.close()


class Lesson:
    """Learns what a server offers, in a task of its own: until the server has said it once, or the lesson is closed.

    Args:
        tell: gets a line when the first time was in vain.
    """

    def __init__(self, link: McpLink, tell: Callable[[str], None]) -> None:
        self._link = link
        self._tell = tell
        self._hurry = asyncio.Event()
        self._task = asyncio.create_task(self._learn())

    def hurry(self) -> None:
        """Somebody wants to know: ask again now, if that is not going on. The link bounds how often."""
        self._hurry.set()

    async def _learn(self) -> None:
        wait_s = DOWN_S
        problem = await self._problem()
        if problem:
            self._tell(problem)
        while problem:
            with suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await self._hurry.wait()
            # Never at once: those who hurry come as often as requests do.
            await asyncio.sleep(DOWN_S)
            self._hurry.clear()
            wait_s = min(2 * wait_s, MAX_WAIT_S)
            problem = await self._problem()

    async def _problem(self) -> str:
        try:
            await self._link.connection(asyncio.get_running_loop().time() + LEARN_S)
        except McpDown as error:
            return f"the MCP server {self._link.id} is not available ({error})"
        except TimeoutError:
            return f"the MCP server {self._link.id} did not start in time"
        return ""

    async def close(self) -> None:
        """Learn no more."""
        self._task.cancel()
        await asyncio.wait({self._task})


class McpRunner:
    """Runs one tool of a server."""

    def __init__(self, link: McpLink, tool: str) -> None:
        self._link = link
        self._tool = tool

    async def run(self, arguments_json: str, context: ToolContext, until_s: float) -> ToolOutcome:
        """Call the tool. Cancelled over HTTP, its connection closes; a server that runs here is told."""
        return await self._link.call(self._tool, arguments_json, until_s)
