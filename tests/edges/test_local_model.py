"""The embedded model, end to end: what it answers, and when its process ends."""

import asyncio
import json
import os
import re
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx
import pytest

from tests.clients.gateway import missing
from tests.faults.gateway import written
from trunkline import AsyncClient, json_schema, text
from trunkline_server.local_model.process import default_model_path, has_engine

pytestmark = pytest.mark.once

LIMIT_S: Final = 120.0
# Many turns of a model on a processor that others use, too.
RESEARCH_LIMIT_S: Final = 240.0
CAPITAL: Final = "What is the capital of France? Answer in one sentence."
ANSWER: Final = {
    "type": "object",
    "properties": {"city": {"enum": ["Paris", "Rome"]}, "large": {"type": "boolean"}},
    "required": ["city", "large"],
    "additionalProperties": False,
}

if not has_engine() or default_model_path() is None:
    missing("the engine or the weights are not installed: make setup")


@dataclass
class Serving:
    """`trunkline serve` with nothing but the embedded model, in a process group of its own, as in a terminal."""

    process: asyncio.subprocess.Process
    grpc_address: str
    http_address: str

    def children(self) -> list[int]:
        """The processes that it started."""
        return [
            int(child)
            for task in Path(f"/proc/{self.process.pid}/task").iterdir()
            for child in (task / "children").read_text().split()
        ]

    async def exit_code(self) -> int:
        """Waits for the end."""
        return await asyncio.wait_for(self.process.wait(), LIMIT_S)


@asynccontextmanager
async def serving(folder: Path, **sections: Any) -> AsyncIterator[Serving]:
    """On ports of its own."""
    server = {"grpc": "127.0.0.1:0", "http": "127.0.0.1:0"}
    (folder / "trunkline.toml").write_text(written({"server": server, "providers": [], **sections}))
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "trunkline_server", "serve"),
        cwd=folder,
        env={key: os.environ[key] for key in ("PATH", "PYTHONPATH") if key in os.environ},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        start_new_session=True,
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(LIMIT_S):
            line = (await process.stdout.readline()).decode()
        found = re.search(r"gRPC on (\S+), HTTP on ([^,\s]+)", line)
        assert found, line
        yield Serving(process, found[1], found[2])
    finally:
        if process.returncode is None:
            process.kill()
        async with asyncio.timeout(LIMIT_S):
            await process.communicate()


def is_running(process: int) -> bool:
    """Is it there, and no zombie?"""
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def is_known(process: int) -> bool:
    """Is it there, be it as a zombie?"""
    return Path(f"/proc/{process}").exists()


async def gone(process: int) -> None:
    """Waits for its end."""
    async with asyncio.timeout(LIMIT_S):
        while is_running(process):  # noqa: ASYNC110 - a process of somebody else's
            await asyncio.sleep(0.02)


async def reaped(process: int) -> None:
    """Waits until its parent has seen its end."""
    async with asyncio.timeout(LIMIT_S):
        while is_known(process):  # noqa: ASYNC110 - a process of somebody else's
            await asyncio.sleep(0.02)


async def test_it_answers_over_both_edges_and_in_the_shape_that_was_asked_for(tmp_path):
    async with (
        serving(tmp_path) as running,
        AsyncClient(running.grpc_address) as client,
        httpx.AsyncClient(timeout=LIMIT_S) as http,
    ):
        before = running.children()
        spoken = await client.complete(CAPITAL, temperature=0, max_output_tokens=40)
        shaped = await client.complete(
            "Paris is the capital of France and has two million people. Is it large?",
            model="local",
            temperature=0,
            max_output_tokens=40,
            response_format=json_schema("answer", ANSWER),
        )
        chat: dict[str, Any] = {
            "model": "smollm2-135m",
            "temperature": 0,
            "max_tokens": 40,
            "messages": [{"role": "user", "content": CAPITAL}],
        }
        response = await http.post(f"http://{running.http_address}/v1/chat/completions", json=chat)
        after = running.children()

    said = response.json()
    value = json.loads(text(shaped))
    assert "Paris" in text(spoken)
    assert (spoken.route.provider, spoken.route.model) == ("local", "smollm2-135m")
    assert spoken.usage.input_tokens > 0 < spoken.usage.output_tokens
    assert not spoken.usage.estimated
    assert (set(value), type(value["large"])) == ({"city", "large"}, bool)
    assert said["choices"][0]["message"]["content"] == text(spoken)
    assert (before, len(after)) == ([], 1)


MODES: Final = ("fast", "think", "code", "roast", "genui")


async def test_every_mode_a_conversation_and_research_work_with_it_alone(tmp_path):
    modes = [{"id": mode, "max_output_tokens": 24} for mode in (*MODES, "research")]
    async with (
        serving(tmp_path, modes=modes) as running,
        httpx.AsyncClient(timeout=LIMIT_S, base_url=f"http://{running.http_address}") as http,
    ):

        async def completed(**fields: Any) -> Any:
            body = {"temperature": 0, "persona": "none", **fields}
            response = await http.post("/api/v1/completions", json=body)
            assert response.status_code == 200, response.text
            return response.json()

        auto = await completed(prompt=CAPITAL)
        again = await completed(prompt=CAPITAL)
        named = [await completed(prompt="Three colours.", mode=mode) for mode in MODES]
        begun = await completed(prompt="I like cats.", mode="fast", conversation_id="new")
        id_ = begun["conversation_id"]
        await completed(prompt="What do I like?", mode="fast", conversation_id=id_)
        kept = (await http.get(f"/api/v1/conversations/{id_}/messages")).json()["messages"]
        options = {"depth": "basic"}
        job = (
            await http.post("/api/v1/research", json={"prompt": "Why is the sky blue?", **options})
        ).json()
        async with asyncio.timeout(RESEARCH_LIMIT_S):
            while True:
                report = (await http.get(job["poll_url"])).json()
                if report["status"] in ("completed", "failed"):
                    break
                await asyncio.sleep(0.1)

    assert "Paris" in auto["content"]
    assert (auto["mode"], auto["resolved_mode"]) == ("auto", "fast")
    assert (again["_cached"], again["content"]) == (True, auto["content"])
    assert [found["resolved_mode"] for found in named] == list(MODES)
    assert all(found["content"] for found in named)
    assert named[-1]["content"].startswith("root = Stack([")
    assert [message["role"] for message in kept] == ["user", "assistant"] * 2
    assert kept[2]["content"] == "What do I like?"
    assert report["status"] == "completed", report
    assert report["result"]["report"]
    assert report["result"]["sourceCount"] == 0


async def test_an_interrupt_of_the_terminal_lets_the_answer_end_first(tmp_path):
    pieces: list[str] = []
    async with serving(tmp_path) as running, AsyncClient(running.grpc_address) as client:
        options: dict[str, Any] = {"temperature": 0, "max_output_tokens": 24}
        async with client.stream("Tell me a long story.", **options) as stream:
            async for piece in stream.text_deltas():
                if not pieces:
                    (child,) = running.children()
                    os.killpg(running.process.pid, signal.SIGINT)
                pieces.append(piece)
            completion = await stream.completion()
        code = await running.exit_code()
        await gone(child)

    assert len(pieces) > 1
    assert completion.usage.output_tokens > 10
    assert code == 0


async def test_it_is_started_again_when_it_died_and_ends_with_a_service_that_was_killed(tmp_path):
    async with serving(tmp_path) as running, AsyncClient(running.grpc_address) as client:
        await client.complete("Hi", max_output_tokens=2)
        (first,) = running.children()
        os.kill(first, signal.SIGKILL)
        await reaped(first)
        again = await client.complete(CAPITAL, temperature=0, max_output_tokens=20)
        (second,) = running.children()
        running.process.kill()
        await running.exit_code()

        await gone(second)

    assert "Paris" in text(again)


@pytest.mark.slow
async def test_many_at_once_are_all_answered(tmp_path):
    async with serving(tmp_path) as running, AsyncClient(running.grpc_address) as client:
        asked = [client.complete(CAPITAL, temperature=0, max_output_tokens=20) for _ in range(12)]
        answers = await asyncio.gather(*asked)

    assert ["Paris" in text(answer) for answer in answers] == [True] * 12
