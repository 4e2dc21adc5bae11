"""A service with MCP servers: it is ready whether they are or not, and knows their tools once they have told."""

import sys
import time
from pathlib import Path
from typing import Any, Final

import httpx
import pytest

from tests.edges.observed import LIMIT_S, observed, spec, stream
from tests.edges.test_server_tools import calls, once
from tests.faults.waiting import until
from tests.support.service import model, provider
from tests.support.upstream import Exchange, Step, answer, upstream
from trunkline.v1.completion_spec_pb2 import RegisteredSource, Tool, ToolOptions

pytestmark = pytest.mark.once

SCRIPT: Final = Path(__file__).parents[1] / "tools/mcp_script.py"
READY_WITHIN_S: Final = 1.5  # Of a whole start. A server that is waited for takes 5 s at least.
PID: Final = Tool(name="pid", registered=RegisteredSource())


def sections(*command: str, **more: Any) -> dict[str, Any]:
    """A registered tool that leaves its schema to its server."""
    return {
        "tools": [{"name": "pid", "mcp_server": "s"}],
        "mcp_servers": [{"id": "s", "command": list(command)}],
        **more,
    }


@pytest.mark.parametrize(
    "command",
    [(sys.executable, str(SCRIPT), "mute"), (sys.executable, str(SCRIPT), "gone"), ("/no/such",)],
    ids=["says nothing", "ends", "is not there"],
)
async def test_a_server_that_does_not_tell_its_tools_holds_no_start_up(command):
    began_s = time.monotonic()
    async with observed(**sections(*command)) as running:
        ready_s = time.monotonic() - began_s
        async with httpx.AsyncClient(timeout=LIMIT_S) as http:
            ready = await http.get(f"http://{running.service.http_address}/readyz")
        stopping_s = time.monotonic()
    stopped_s = time.monotonic() - stopping_s

    assert ready.status_code == 200
    assert ready_s < READY_WITHIN_S
    assert stopped_s < 6


async def test_a_call_of_a_dead_servers_tool_is_an_error_result_and_the_answer_goes_on():
    script = once(calls(("c1", "pid", "{}")), answer("Done."))
    asked: list[Exchange] = []

    def turn(exchange: Exchange) -> list[Step]:
        asked.append(exchange)
        return list(script(len(asked) - 1, exchange))

    async with (
        upstream(turn) as at,
        observed(
            **sections("/no/such", providers=[provider("a", at.url)], models=[model("m", "a")])
        ) as running,
    ):
        line = await running.told("mcp_server_unknown")
        asked_spec = spec("m", tool_options=ToolOptions(tools=[PID]))
        streamed = await stream(running.service, asked_spec)

    assert streamed.text == "Done."
    assert line["problem"] == "the MCP server s is not available (NOT_STARTED)"
    told = asked[1].json["messages"][-1]["content"]
    assert told == "the MCP server s is not available (NOT_STARTED)"


async def test_once_a_server_has_told_its_tools_models_know_what_they_take():
    def turn(exchange: Exchange) -> list[Step]:
        return list(answer("Done."))

    async with (
        upstream(turn) as at,
        observed(
            **sections(
                sys.executable,
                str(SCRIPT),
                providers=[provider("a", at.url)],
                models=[model("m", "a")],
            )
        ) as running,
    ):
        asked = spec("m", tool_options=ToolOptions(tools=[PID]))

        tools = running.service.parts.tools
        await until(
            lambda: tools.resolve(PID, "tool").tool.parameters_schema_json != "", "it is known"
        )
        await stream(running.service, asked)

    (exchange,) = at.exchanges
    assert exchange.json["tools"][0]["function"]["parameters"] == {"type": "object"}
