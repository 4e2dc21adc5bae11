"""Other people's mock providers, each as its own process on a free port."""

import json
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

import httpx
import pytest

ROOT: Final = Path(__file__).resolve().parents[2]
VENV: Final = ROOT / ".venv-mocks" / "bin"
AIMOCK: Final = Path(__file__).parent / "mocks/node_modules/@copilotkit/aimock/dist/cli.js"
START_S: Final = 60.0

TEXT: Final = "Paris is the capital of France, and has been for a long time."
TOOL_TEXT: Final = "It is 21 degrees in Paris."
CALL: Final = ("get_weather", {"city": "Paris"})
ALWAYS: Final = 1.0


@dataclass(frozen=True)
class Trouble:
    """A fault that a mock server can be told to make.

    Attributes:
        sees: what callers get: the `next` provider's answer, one `error` after content, a `slow` answer that is
            right, or either of the first two where the mock does not say how far it gets.
        of: the mock makes it in `streams` only, in `whole` answers only, or in `all`.
    """

    name: str
    sees: str
    of: Literal["all", "streams", "whole"] = "all"
    how: Mapping[str, Any] = field(default_factory=dict)


class MockServer:
    """One mock provider.

    Attributes:
        paths: where it speaks which dialect.
        troubles: what it can do wrong.
    """

    name: str
    paths: Mapping[str, str]
    troubles: tuple[Trouble, ...]

    def __init__(self, url: str) -> None:
        self.url = url
        self.admin = httpx.Client(base_url=url, trust_env=False, verify=False)

    def arrange(self, dialect: str, trouble: Trouble | None) -> None:
        """Before a request for plain text, which `prompt` asks for."""

    def arrange_call(self, dialect: str) -> None:
        """Before a request that offers a tool, and is to be answered with a call."""

    def arrange_result(self, dialect: str) -> None:
        """Before the request that brings the tool's result."""

    def prompt(self, trouble: Trouble | None) -> str:
        """What to ask for."""
        return f"say trouble: {trouble.name}." if trouble else "say it plainly"


class AIMock(MockServer):
    """`@copilotkit/aimock`: fixtures, chosen by what the prompt says."""

    name = "aimock"
    paths: Mapping[str, str] = {"openai": "/v1", "anthropic": "/v1", "gemini": "/v1beta"}
    troubles = (
        *(
            Trouble(
                f"status {status}",
                "next",
                how={
                    "response": {
                        "error": {"message": "no", "type": "server_error"},
                        "status": status,
                    }
                },
            )
            for status in (429, 500, 502, 503, 529)
        ),
        Trouble("chaos drop", "next", how={"chaos": {"dropRate": ALWAYS}}),
        Trouble("chaos malformed", "next", how={"chaos": {"malformedRate": ALWAYS}}),
        Trouble("chaos disconnect", "next", how={"chaos": {"disconnectRate": ALWAYS}}),
        Trouble("chaos rate limit", "next", how={"chaos": {"rateLimitRate": ALWAYS}}),
        Trouble("chaos latency", "slow", how={"chaos": {"latencyMs": 300}}),
        Trouble("latency", "slow", "streams", {"latency": 20}),
        Trouble("truncated early", "next or error", "streams", {"truncateAfterChunks": 1}),
        Trouble("truncated late", "error", "streams", {"latency": 20, "truncateAfterChunks": 5}),
        Trouble("disconnected", "error", "streams", {"latency": 50, "disconnectAfterMs": 220}),
    )

    @classmethod
    def fixtures(cls) -> dict[str, Any]:
        """All of them, the most particular first."""
        plain = {"chunkSize": 6}
        call = {"name": CALL[0], "arguments": CALL[1]}
        return {
            "fixtures": [
                *(
                    {
                        "match": {"userMessage": f"trouble: {trouble.name}."},
                        "response": {"content": TEXT},
                        **plain,
                        **trouble.how,
                    }
                    for trouble in cls.troubles
                ),
                {
                    "match": {"userMessage": "weather", "hasToolResult": False},
                    "response": {"toolCalls": [call]},
                },
                {
                    "match": {"userMessage": "weather", "hasToolResult": True},
                    "response": {"content": TOOL_TEXT},
                },
                {"match": {"userMessage": "plainly"}, "response": {"content": TEXT}, **plain},
            ]
        }


class LLMock(MockServer):
    """`llmock`: a queue of behaviours, of which each request takes those that match it."""

    name = "llmock"
    paths: Mapping[str, str] = {
        "openai": "/v1",
        "anthropic": "/anthropic/v1",
        "gemini": "/gemini/v1beta",
    }
    troubles = (
        *(
            Trouble(f"status {status}", "next", how={"type": "fail", "status": status})
            for status in (401, 402, 403, 404, 408, 500, 502, 503, 529)
        ),
        Trouble("rate limit", "next", how={"type": "fail", "status": 429, "retry_after": 2}),
        Trouble("delay", "slow", how={"type": "delay", "seconds": 0.3}),
        Trouble(
            "slow first token", "slow", "streams", {"type": "slow_first_token", "seconds": 0.3}
        ),
        *(
            Trouble(
                f"{kind}, early",
                "next",
                "streams",
                {"type": "stream_fault", "kind": kind, "after_chunks": 0, "stall_seconds": 20},
            )
            for kind in ("disconnect", "truncate", "stall", "malformed")
        ),
        *(
            Trouble(
                f"{kind}, late",
                "next or error" if kind == "malformed" else "error",
                "streams",
                {"type": "stream_fault", "kind": kind, "after_chunks": 6, "stall_seconds": 20},
            )
            for kind in ("disconnect", "truncate", "stall", "malformed")
        ),
    )

    def _script(self, *behaviors: Mapping[str, Any]) -> None:
        self.admin.post("/_llmock/reset").raise_for_status()
        answer = self.admin.post("/_llmock/scenario", json={"behaviors": behaviors})
        answer.raise_for_status()

    def arrange(self, dialect: str, trouble: Trouble | None) -> None:
        self._script({"type": "reply", "text": TEXT}, *([trouble.how] if trouble else []))

    def arrange_call(self, dialect: str) -> None:
        name, arguments = CALL
        self._script({"type": "reply", "tool_calls": [{"name": name, "arguments": arguments}]})

    def arrange_result(self, dialect: str) -> None:
        self._script({"type": "reply", "text": TOOL_TEXT})


class FakeLLM(MockServer):
    """`fakellm`: rules over the prompt. Its faults are statuses, which its streams pass over."""

    name = "fakellm"
    paths: Mapping[str, str] = {"openai": "/v1", "anthropic": "/v1"}
    troubles = tuple(
        Trouble(f"status {status}", "next", "whole", {"status": status, "error": "no"})
        for status in (429, 500, 502, 503, 529)
    )

    @classmethod
    def rules(cls) -> dict[str, Any]:
        """JSON is YAML too."""
        return {
            "version": 1,
            "rules": [
                *(
                    {
                        "name": trouble.name,
                        "when": {"messages_contain": f"trouble: {trouble.name}."},
                        "respond": trouble.how,
                    }
                    for trouble in cls.troubles
                ),
                {
                    "name": "result",
                    "when": {"messages_contain": "weather", "tool_result_contains": "21"},
                    "respond": {"content": TOOL_TEXT},
                },
                {
                    "name": "call",
                    "when": {"messages_contain": "weather"},
                    "respond": {"tool_calls": [{"name": CALL[0], "arguments": CALL[1]}]},
                },
                {"name": "plain", "respond": {"content": TEXT}},
            ],
        }

    def arrange_call(self, dialect: str) -> None:
        # It remembers the results of a conversation, and knows a conversation by its first message.
        self.admin.post("/_fakellm/reset").raise_for_status()


MOCKS: Final[tuple[type[MockServer], ...]] = (AIMock, LLMock, FakeLLM)


@contextmanager
def mock_server(kind: type[MockServer], folder: Path) -> Iterator[MockServer]:
    """A running one."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = _COMMANDS[kind](folder, port)
    environment = {"PATH": os.environ["PATH"], "HOME": str(folder)}
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log)
        try:
            _wait_for(port, process, folder / "log")
            running = kind(f"http://127.0.0.1:{port}")
            with running.admin:
                yield running
        finally:
            process.terminate()
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _wait_for(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    end_s = time.monotonic() + START_S
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < end_s, log.read_text()
            time.sleep(0.05)
        else:
            return


def _required(program: Path | str | None, what: str) -> str:
    """The program; a test is skipped without it, except on CI, where nothing may be."""
    if program and Path(program).exists():
        return str(program)
    if os.environ.get("CI"):
        pytest.fail(f"{what} is not installed: make setup-test")
    pytest.skip(f"{what} is not installed: make setup-test")


def _aimock(folder: Path, port: int) -> list[str]:
    node, script = shutil.which("node"), AIMOCK
    fixtures = folder / "fixtures.json"
    fixtures.write_text(json.dumps(AIMock.fixtures()))
    options = ["-p", str(port), "-f", str(fixtures), "--log-level", "warn"]
    return [_required(node, "node"), _required(script, "aimock"), *options]


def _llmock(folder: Path, port: int) -> list[str]:
    options = ["serve", "--port", str(port), "--log-level", "warning"]
    return [_required(VENV / "llmock", "llmock"), *options]


def _fakellm(folder: Path, port: int) -> list[str]:
    rules = folder / "rules.yaml"
    rules.write_text(json.dumps(FakeLLM.rules()))
    options = ["serve", "--port", str(port), "--config", str(rules)]
    return [_required(VENV / "fakellm", "fakellm"), *options]


_COMMANDS: Final[Mapping[type[MockServer], Callable[[Path, int], list[str]]]] = {
    AIMock: _aimock,
    LLMock: _llmock,
    FakeLLM: _fakellm,
}
