"""The programs that the documentation points to, against a real service: a tool conversation from end to end."""

import asyncio
import json
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest

from tests.clients.gateway import LIMIT_S, ROOT
from tests.support.service import model, provider, service
from tests.support.upstream import (
    END,
    Exchange,
    Step,
    answer,
    event,
    finish,
    head,
    message,
    upstream,
    usage,
    whole,
)
from trunkline_server.app import Service

EXAMPLES: Final = ROOT / "clients/python/examples"
KEY: Final = "sk-a-key-of-these-tests"
Called = Sequence[tuple[str, str, str]]


def said(exchange: Exchange, text: str = "", calls: Called = ()) -> list[Step]:
    """A turn of the model's, streamed or whole."""
    called = [
        {"index": i, "id": key, "type": "function", "function": {"name": name, "arguments": given}}
        for i, (key, name, given) in enumerate(calls)
    ]
    if exchange.json.get("stream"):
        if not called:
            return answer(text)
        piece = event({"choices": [{"index": 0, "delta": {"tool_calls": called}}]})
        return [head(), piece, event(finish("tool_calls")), event(usage()), event("[DONE]"), END]
    if not called:
        return message(text)
    choice = {
        "index": 0,
        "message": {"role": "assistant", "content": None, "tool_calls": called},
        "finish_reason": "tool_calls",
    }
    return whole({"id": "c", "model": "m-1", "choices": [choice]})


async def run(
    running: Service, *program: str, folder: Path = ROOT, **more: str
) -> tuple[int, str, str]:
    """A program of a caller's, who has nothing but the client: exit code, output and errors."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-W", "error", *program),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        cwd=folder,
        env={**os.environ, "TRUNKLINE_API_KEY": KEY, **more},
    )
    async with asyncio.timeout(LIMIT_S):
        out, err = await process.communicate()
    return process.returncode or 0, out.decode(), err.decode()


@pytest.mark.parametrize("turns", [1, 2])
async def test_the_first_example_of_tools_talks_to_a_model_from_end_to_end(turns):
    """`tool_conversation.py`: the model calls the program's own tool, wrongly too, and answers with the results."""

    def script(exchange: Exchange) -> list[Step]:
        results = [m["content"] for m in exchange.json["messages"] if m["role"] == "tool"]
        if len(results) >= 2 * turns:
            return said(exchange, f"Oslo {results[0]}; {results[1].partition(':')[0]}.")
        number = len(results)
        return said(
            exchange,
            calls=[
                (f"call_{number}", "local_time", '{"zone": "Europe/Oslo"}'),
                (f"call_{number + 1}", "local_time", '{"zone": "Nowhere/Else"}'),
            ],
        )

    async with (
        upstream(script) as at,
        service(
            environment={"KEY": KEY},
            providers=[provider("a", at.url)],
            models=[model("m", "a")],
            keys=[{"id": "tests", "key_env": "KEY"}],
        ) as running,
    ):
        program = str(EXAMPLES / "tool_conversation.py")
        code, out, err = await run(running, program, "--target", running.grpc_address)
        refused = await run(
            running, program, "--target", running.grpc_address, TRUNKLINE_API_KEY="wrong"
        )

    assert (code, err) == (0, "")
    assert re.fullmatch(r"Oslo \d\d:\d\d; no such zone\.\n", out)
    assert len(at.exchanges) == turns + 1
    first, last = at.exchanges[0].json, at.exchanges[-1].json
    assert first["tools"][0]["function"]["name"] == "local_time"
    assert [m["role"] for m in first["messages"]] == ["system", "user"]
    roles = ["assistant", "tool", "tool"] * turns
    assert [m["role"] for m in last["messages"]] == ["system", "user", *roles]
    ids = [call["id"] for call in last["messages"][2]["tool_calls"]]
    assert [m["tool_call_id"] for m in last["messages"][3:5]] == ids
    assert refused[0] == 1
    assert "INVALID_API_KEY" in refused[2]


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
        code, out, err = await run(running, str(program))

    assert (code, err) == (0, "")
    assert re.fullmatch(r"It is 6\.05\. \[\('sum', \d+\)\]\n", out)


async def test_the_first_example_of_streams_prints_the_answer_and_who_gave_it():
    async with (
        upstream(lambda exchange: said(exchange, "Paris.")) as at,
        service(providers=[provider("a", at.url)], models=[model("m", "a")]) as running,
    ):
        program = str(EXAMPLES / "stream_answer.py")
        code, out, err = await run(running, program, "--target", running.grpc_address)

    assert (code, out, err) == (0, "Paris.\n\na/m, 4 output tokens\n", "")
