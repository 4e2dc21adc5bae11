"""The two programs to start from, in every language, against a real service: with a model that has tools, and with the
embedded one."""

import asyncio
import os
import re
from collections.abc import Callable
from typing import Any, Final

import pytest

from tests.conformance.languages import LANGUAGES, Command, Language
from tests.support.service import model, provider, service
from tests.support.turns import said
from tests.support.upstream import Exchange, Step, upstream
from trunkline_server.local_model.process import default_model_path, has_engine

KEY: Final = "sk-a-key-of-these-tests"
# A Go program is compiled when it is run.
LIMIT_S: Final = 120.0
WITH_KEY: Final[dict[str, Any]] = {
    "environment": {"KEY": KEY},
    "keys": [{"id": "tests", "key_env": "KEY"}],
    "models": [model("m", "a")],
}


@pytest.fixture(params=LANGUAGES, ids=lambda language: language.name)
def language(request: pytest.FixtureRequest, build: Callable[[Language], None]) -> Language:
    chosen: Language = request.param
    build(chosen)
    return chosen


async def run(
    language: Language, program: Command, target: str, key: str = KEY
) -> tuple[int, str, str]:
    """A program of a caller's, who has nothing but the client: exit code, output and errors."""
    process = await asyncio.create_subprocess_exec(
        *(*program, "--target", target),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        cwd=language.folder,
        env={**os.environ, "TRUNKLINE_API_KEY": key},
    )
    async with asyncio.timeout(LIMIT_S):
        out, err = await process.communicate()
    return process.returncode or 0, out.decode(), err.decode()


@pytest.mark.parametrize("turns", [1, 2])
async def test_a_tool_conversation_talks_to_a_model_from_end_to_end(language, turns):
    """The model calls the program's own tool, wrongly too, and answers with the results."""

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
        service(providers=[provider("a", at.url)], **WITH_KEY) as running,
    ):
        code, out, err = await run(language, language.tool_conversation, running.grpc_address)

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


async def test_a_streamed_answer_is_printed_with_who_gave_it(language):
    async with (
        upstream(lambda exchange: said(exchange, "Paris.")) as at,
        service(providers=[provider("a", at.url)], **WITH_KEY) as running,
    ):
        code, out, err = await run(language, language.stream_answer, running.grpc_address)

    assert (code, out, err) == (0, "Paris.\n\na/m, 4 output tokens\n", "")


async def test_a_wrong_key_is_told_by_its_reason(language):
    async with service(providers=[provider("a", "http://127.0.0.1:1")], **WITH_KEY) as running:
        target = running.grpc_address
        for program in (language.stream_answer, language.tool_conversation):
            code, out, err = await run(language, program, target, "wrong")

            assert (code, out.strip()) == (1, "")
            assert "INVALID_API_KEY" in err


@pytest.mark.skipif(
    not has_engine() or default_model_path() is None,
    reason="the embedded model is not installed",
)
async def test_both_run_with_the_embedded_model_alone(language):
    async with service(
        local={"enabled": True}, environment={"KEY": KEY}, keys=WITH_KEY["keys"]
    ) as running:
        target = running.grpc_address
        answered = await run(language, language.stream_answer, target)
        talked = await run(language, language.tool_conversation, target)

    assert (answered[0], answered[2]) == (0, "")
    assert re.fullmatch(r".*Paris.*\n\nlocal/smollm2-135m, \d+ output tokens\n", answered[1])
    # It has no tools, which the program says, and asks without.
    assert talked[0] == 0
    assert "has no tools" in talked[2]
    assert talked[1].strip()
