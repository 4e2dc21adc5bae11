"""Speko's official SDK, both its clients, over both edges: all of them read the same.

The SDK brings a whole telephone along, so it has an environment of its own; `drive_speko` runs there.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import grpc
import pytest
import pytest_asyncio

from tests.clients.gateway import EDGES, HERE, LIMIT_S, ROOT, need, run, shim
from tests.clients.script import ANSWERS, LINE_ENDS, TOOL_CALLS
from tests.edges.http11 import serving
from tests.python_client.events import routed, text_delta
from tests.python_client.scripted import Gateway
from tests.support.service import model, provider, service
from tests.support.upstream import Exchange, Step, Upstream, upstream
from trunkline.v1.completion_event_pb2 import CompleteResponse, StreamCompleted
from trunkline.v1.completion_pb2 import Completion, Route, ServerToolCall, ServerToolState, Usage
from trunkline.v1.completion_spec_pb2 import (
    BuiltinSource,
    PreToolSpeech,
    RegisteredSource,
    Tool,
    WebhookSource,
)
from trunkline_server.edges.rest.app import RestApp
from trunkline_server.edges.rest.speko import SpekoShim

pytestmark = pytest.mark.asyncio(loop_scope="module")

KEY: Final = "sk-a-key-of-these-tests"
WAYS: Final = ("sync", "async")
CALLERS: Final = tuple(f"{way}-{edge}" for way in WAYS for edge in EDGES)
# What each provider does, by the names of the scripts that the other SDKs are tested with. Of two that are allowed the
# first is asked first.
SCRIPTS: Final[Mapping[str, str]] = {
    "plain": "plain",
    "line-ends": "line-ends",
    "failing": "failing",
    "second": "plain",
    "tools": "tools",
    "conversation": "conversation",
    "options": "plain",
    "throttled": "throttled",
    "broken": "broken",
    "broken-streamed": "broken",
    "early-close": "early-close",
}


@dataclass
class Speko:
    """A running service, its upstream, and both edges by name."""

    upstream: Upstream
    urls: Mapping[str, str]

    def exchanges(self, case: str, caller: str) -> list[Exchange]:
        """What a provider was asked, in order."""
        return [e for e in self.upstream.exchanges if e.json["model"] == f"{case}-{caller}"]


def scripted(exchange: Exchange) -> Sequence[Step]:
    """By the provider, which has one model of its own name."""
    way, edge = exchange.json["model"].split("-")[-2:]
    case = exchange.json["model"].removesuffix(f"-{way}-{edge}")
    return ANSWERS[SCRIPTS[case]](bool(exchange.json.get("stream")))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def speko() -> AsyncIterator[Speko]:
    names = [f"{case}-{caller}" for case in SCRIPTS for caller in CALLERS]
    accuracy = {"second": 0.1}
    async with upstream(scripted) as running, service(
        environment={"KEY": KEY},
        providers=[provider(name, running.url) for name in names],
        models=[
            model(name, name, scores={"accuracy": accuracy.get(name.partition("-")[0], 0.9)})
            for name in names
        ],
        keys=[{"id": "tests", "key_env": "KEY"}],
    ) as started, shim(started.grpc_address) as shim_url:  # fmt: skip
        yield Speko(running, {"local": f"http://{started.http_address}", "shim": shim_url})


CALLS: Final = [
    {"id": key, "name": name, "args": "".join(pieces)} for key, name, pieces in TOOL_CALLS
]


def done(case: str, caller: str, **more: Any) -> dict[str, Any]:
    """A result."""
    return {
        "text": "Hello",
        "provider": f"{case}-{caller}",
        "model": f"{case}-{caller}",
        "usage": {"prompt_tokens": 9, "completion_tokens": 4},
        "failover_count": 0,
        "scores_run_id": None,
        **more,
    }


def meta(case: str, caller: str) -> dict[str, Any]:
    """The first event."""
    return {
        "type": "meta",
        "provider": f"{case}-{caller}",
        "model": f"{case}-{caller}",
        "failover_count": 0,
        "total_failover_count": 0,
        "scores_run_id": None,
        "hop": 0,
    }


def failed(status: int, code: str, message: str, kind: str = "SpekoApiError", **more: Any) -> Any:
    """An error."""
    return {"class": kind, "status": status, "code": code, "message": message, **more}


def expected(caller: str) -> Mapping[str, Any]:
    """The results of all cases."""
    return {
        "complete": done("plain", caller, tool_calls=None),
        "complete_stream": [
            meta("plain", caller),
            {"type": "delta", "text": "Hello"},
            {"type": "done", **done("plain", caller)},
        ],
        "line_ends": [LINE_ENDS, LINE_ENDS],
        "failover": done("second", caller, failover_count=1, tool_calls=None),
        "pinned_model": done("plain", caller, tool_calls=None),
        "tools": done("tools", caller, text="", tool_calls=CALLS),
        "tools_streamed": [
            meta("tools", caller),
            *({"type": "tool_call", **call} for call in CALLS),
            {"type": "done", **done("tools", caller, text="", tool_calls=CALLS)},
        ],
        "conversation": "It is noon and sunny.",
        "options": "Hello",
        "wrong_key": failed(401, "AUTH_ERROR", "missing or unknown API key", "SpekoAuthError"),
        "bad_request": failed(400, "VALIDATION_ERROR", "temperature: 0 to 2"),
        "throttled": failed(
            429,
            "RATE_LIMITED",
            "all providers are rate limited",
            "SpekoRateLimitError",
            retry_after=7,
        ),
        "failing": failed(502, "COMPLETE_FAILED", "all providers failed"),
        "nobody": ["SpekoApiError", 400, "VALIDATION_ERROR"],
        "integration": failed(
            400,
            "VALIDATION_ERROR",
            "tools[0].source.kind: 'get_weather': integrations are not served here",
        ),
        "broken": failed(200, "STREAM_ERROR", "the provider's stream broke off"),
        "broken_streamed": [
            meta("broken-streamed", caller),
            {"type": "delta", "text": "Hel"},
            {
                "type": "error",
                "error": "the provider's stream broke off",
                "code": "STREAM_ERROR",
            },
        ],
        "early_close": "Hel",
    }


CASES: Final = tuple(expected(""))


async def drive(urls: Mapping[str, str], *cases: str) -> Any:
    """The SDK's results, by client and edge. One process for all: it takes a second to start."""
    python = need(ROOT / ".venv-speko/bin/python", "make setup-clients")
    edges = ",".join(f"{edge}={url}" for edge, url in urls.items())
    program = [python, "-W", "error", str(HERE / "drive_speko.py")]
    code, out, err = await run(*program, KEY, edges, *cases)
    assert code == 0, err.decode()
    return json.loads(out)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def driven(speko: Speko) -> Mapping[str, Mapping[str, Any]]:
    """What all callers found."""
    found: Mapping[str, Mapping[str, Any]] = await drive(speko.urls, *CASES)
    return found


@pytest.fixture(params=CALLERS)
def caller(request: pytest.FixtureRequest) -> str:
    """One client over one edge."""
    name: str = request.param
    return name


@pytest.fixture
def results(driven: Mapping[str, Mapping[str, Any]], caller: str) -> Mapping[str, Any]:
    """Of one caller."""
    return driven[caller]


@pytest.mark.parametrize("case", CASES)
async def test_both_clients_read_every_case_alike(results, caller, case):
    assert results[case] == expected(caller)[case]


async def test_the_upstream_is_asked_what_the_sdk_was_asked(speko, results, caller):
    assert results["options"] == "Hello"

    (asked,) = [exchange.json for exchange in speko.exchanges("options", caller)]
    (turn,) = [exchange.json for exchange in speko.exchanges("conversation", caller)]

    function = {
        "name": "get_weather",
        "description": "Finds it.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
        },
    }
    tools = [{"type": "function", "function": function}]
    assert asked == {
        "model": f"options-{caller}",
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "Say hello."},
        ],
        "stream": True,
        "stream_options": {"include_usage": True},
        "temperature": 0.5,
        "max_completion_tokens": 100,
        "tools": tools,
        "tool_choice": {"type": "function", "function": {"name": "get_weather"}},
        "parallel_tool_calls": False,
    }
    results_of_tools = [m["content"] for m in turn["messages"] if m["role"] == "tool"]
    assert len(results_of_tools) == 2
    assert "no such city" in results_of_tools[0]
    assert results_of_tools[1] == "rain"


async def test_a_stream_that_is_left_early_closes_the_upstream(speko, results, caller):
    assert results["early_close"] == "Hel"

    (exchange,) = speko.exchanges("early-close", caller)
    async with asyncio.timeout(LIMIT_S):
        await exchange.closed.wait()


# Tools of the gateway, before a service that plays a script


def ran(state: ServerToolState.ValueType) -> CompleteResponse:
    """What becomes of a tool of the gateway's."""
    call = ServerToolCall(id="s1", name="get_weather", state=state)
    return CompleteResponse(server_tool_call=call)


async def test_tools_of_the_gateway_are_asked_for_and_told_of():
    completion = Completion(
        route=Route(provider="p", model="m", hop=1),
        usage=Usage(input_tokens=20, output_tokens=7),
    )
    script = [
        routed(0),
        ran(ServerToolState.SERVER_TOOL_STATE_STARTED),
        ran(ServerToolState.SERVER_TOOL_STATE_SUCCEEDED),
        routed(1),
        text_delta("It rains."),
        CompleteResponse(completed=StreamCompleted(completion=completion)),
    ]
    with Gateway() as gateway:
        gateway.plays(script)
        async with (
            grpc.aio.insecure_channel(gateway.target) as channel,
            serving(RestApp([SpekoShim(channel)], {})) as served,
        ):
            found = await drive({"script": f"http://127.0.0.1:{served.port}"}, "server_tools")

    events = found["sync-script"]["server_tools"]
    assert found["async-script"]["server_tools"] == events
    assert [event["type"] for event in events] == [
        "meta", "server_tool_call", "server_tool_call", "meta", "delta", "done",
    ]  # fmt: skip
    assert [event["status"] for event in events[1:3]] == ["started", "completed"]
    assert [event["hop"] for event in events if event["type"] == "meta"] == [0, 1]
    assert events[-1]["text"] == "It rains."
    first, second = (call.request.spec.tool_options for call in gateway.calls)
    schema = first.tools[0].parameters_schema_json
    webhook = WebhookSource(
        url="https://example.com/weather",
        secret_ref="s1",
        auth_header_secret_refs={"x-key": "s2"},
    )
    webhook.timeout.FromMilliseconds(1500)
    shared = {"description": "Finds it.", "parameters_schema_json": schema}
    assert first == second
    assert json.loads(schema)["required"] == ["city"]
    assert list(first.tools) == [
        Tool(name="get_weather", webhook=webhook, **shared),
        Tool(name="calculator", registered=RegisteredSource(), **shared),
        Tool(
            name="clock",
            builtin=BuiltinSource(name="current_time", config_json='{"zone":"UTC"}'),
            pre_tool_speech=PreToolSpeech.PRE_TOOL_SPEECH_NEVER,
            **shared,
        ),
    ]
    assert first.max_hops == 3
