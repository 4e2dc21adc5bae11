"""A program that speaks just enough MCP over stdin and stdout, starts at once, and breaks as it is told."""

import json
import os
import sys
import time
from typing import Any

TOOLS = ("pid", "exit", "flood", "silence", "noise", "environment")


def say(value: Any) -> None:
    """A line."""
    print(json.dumps(value), flush=True)


def call(request: Any) -> None:
    """One call of a tool."""
    name = request["params"]["name"]
    if name == "exit":
        os._exit(3)
    if name == "flood":
        piece = b"x" * (1 << 20)
        for _ in range(1024):
            os.write(1, piece)
    if name == "silence":
        return
    if name == "noise":
        print("no message at all", flush=True)
        say({"jsonrpc": "2.0", "id": 999_999, "result": {}})
    text = json.dumps(dict(os.environ)) if name == "environment" else str(os.getpid())
    content = [{"type": "text", "text": text}]
    say({"jsonrpc": "2.0", "id": request["id"], "result": {"content": content}})


def main() -> None:
    """Until there is nothing more to read, or without end."""
    mode = sys.argv[1] if len(sys.argv) > 1 else ""
    if mode == "mute":
        time.sleep(600)
    if mode == "gone":
        return
    for line in sys.stdin:
        request = json.loads(line)
        match request["method"]:
            case "initialize":
                result = {
                    "protocolVersion": request["params"]["protocolVersion"],
                    "capabilities": {"tools": {}},
                    "serverInfo": {"name": "script", "version": "1"},
                }
                say({"jsonrpc": "2.0", "id": request["id"], "result": result})
            case "tools/list":
                tools = [{"name": name, "inputSchema": {"type": "object"}} for name in TOOLS]
                say({"jsonrpc": "2.0", "id": request["id"], "result": {"tools": tools}})
            case "tools/call":
                call(request)
            case _ if "id" in request:
                error = {"code": -32601, "message": "unknown"}
                say({"jsonrpc": "2.0", "id": request["id"], "error": error})
    while mode == "stubborn":
        time.sleep(600)


if __name__ == "__main__":
    main()
