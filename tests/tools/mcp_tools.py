"""An MCP server with tools for tests, made with the official SDK. As a program it speaks over stdin and stdout."""

import asyncio
import sys
from pathlib import Path

from mcp.server.mcpserver import Image, MCPServer
from mcp.types import CallToolResult, TextContent


def new_server(log: Path) -> MCPServer:
    """A server.

    Args:
        log: gets a line for each call of `effect`, and what happens to `wait`.
    """
    server = MCPServer("tests", log_level="CRITICAL")

    def note(line: str) -> None:
        with log.open("a") as file:
            file.write(line + "\n")

    @server.tool()
    def add(a: int, b: int) -> int:
        """Adds two numbers."""
        return a + b

    @server.tool()
    def two_texts() -> CallToolResult:
        """Says two things."""
        return CallToolResult(
            content=[TextContent(text="one", type="text"), TextContent(text="two", type="text")]
        )

    @server.tool(structured_output=False)
    def picture() -> Image:
        """Shows something."""
        return Image(data=b"\x89PNG", format="png")

    @server.tool()
    def fail() -> str:
        """Never works."""
        raise ValueError("out of paper")

    @server.tool()
    def effect() -> str:
        """Does something once."""
        note("effect")
        return "done"

    @server.tool(structured_output=False)
    def say(chars: int) -> str:
        """Talks a lot."""
        return "x" * chars

    @server.tool()
    async def wait() -> str:
        """Takes its time."""
        note("waiting")
        try:
            await asyncio.sleep(600)
        except BaseException:
            note("cancelled")
            raise
        return "late"

    return server


if __name__ == "__main__":
    new_server(Path(sys.argv[1])).run("stdio")
