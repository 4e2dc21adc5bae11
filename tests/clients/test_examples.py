"""The program of the documentation's page on tools, against a real service."""

import asyncio
import json
import re
import sys
from typing import Any

import msgspec

from tests.clients.gateway import LIMIT_S, ROOT
from tests.support.service import model, provider, service
from tests.support.turns import said
from tests.support.upstream import Exchange, Step, upstream


async def run(program: str) -> tuple[int, str, str]:
    """Exit code, output and errors."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-W", "error", program),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        cwd=ROOT,
    )
    async with asyncio.timeout(LIMIT_S):
        out, err = await process.communicate()
    return process.returncode or 0, out.decode(), err.decode()


async def test_the_example_of_the_gateways_own_tools_runs_as_it_is_written(tmp_path):
    """docs/tools.md: its configuration and its program, with only the address changed."""
    page = (ROOT / "docs/tools.md").read_text()
    section = page.partition("## An answer with tools")[2].partition("\n## ")[0]
    blocks = dict(re.findall(r"```(toml|python)\n(.*?)```", section, re.DOTALL))
    configured: dict[str, Any] = msgspec.toml.decode(blocks["toml"])

    def script(exchange: Exchange) -> list[Step]:
        last = exchange.json["messages"][-1]
        if last["role"] == "tool":
            return said(exchange, f"It is {last['content']}.")
        name = exchange.json["tools"][0]["function"]["name"]
        given = json.dumps({"expression": "48.40 * 12.5 / 100"})
        return said(exchange, calls=[("c1", name, given)])

    async with (
        upstream(script) as at,
        service(
            providers=[provider("a", at.url)], models=[model("m", "a")], **configured
        ) as running,
    ):
        program = tmp_path / "ask.py"
        program.write_text(blocks["python"].replace("127.0.0.1:50051", running.grpc_address))
        code, out, err = await run(str(program))

    assert (code, err) == (0, "")
    assert re.fullmatch(r"It is 6\.05\. \[\('sum', \d+\)\]\n", out)
