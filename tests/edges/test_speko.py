"""Speko's API: its requests as the contract has them, and the contract's events as Speko's clients read them."""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import grpc
import httpx
import pytest
from google.protobuf.duration_pb2 import Duration

from tests.edges.http11 import serving
from tests.edges.observed import LIMIT_S, observed
from tests.python_client.scripted import Failure, Gateway, Step, error_info
from tests.support.service import model, provider, service, service_over
from tests.support.upstream import (
    Hang,
    Pause,
    Reset,
    answer,
    delta,
    event,
    head,
    upstream,
    whole,
)
from tests.support.upstream import Step as Bytes
from trunkline.v1.completion_event_pb2 import (
    CompleteResponse,
    PartCompleted,
    RefusalDelta,
    RouteSelected,
    StreamCompleted,
    StreamInterrupted,
    TextDelta,
)
from trunkline.v1.completion_pb2 import Completion, Route, ServerToolCall, ServerToolState, Usage
from trunkline.v1.completion_service_pb2 import (
    CompleteRequest,
    PreviewRouteResponse,
    RouteCandidate,
)
from trunkline.v1.completion_spec_pb2 import (
    BuiltinSource,
    CompletionSpec,
    OptimizeFor,
    PreToolSpeech,
    ReasoningEffort,
    ReasoningOptions,
    RegisteredSource,
    RoutingConstraints,
    RoutingIntent,
    SamplingOptions,
    Tool,
    ToolChoice,
    ToolChoiceMode,
    ToolOptions,
    WebhookResponseMode,
    WebhookSource,
)
from trunkline.v1.message_pb2 import Message, Part, Reasoning, Role, ToolCall, ToolResult
from trunkline_server.edges.grpc.call import Calls
from trunkline_server.edges.grpc.local import LocalChannel
from trunkline_server.edges.grpc.methods import methods
from trunkline_server.edges.rest.app import RestApp
from trunkline_server.edges.rest.call_state import CallIds
from trunkline_server.edges.rest.http import Refused
from trunkline_server.edges.rest.speko import SpekoShim, preview_object
from trunkline_server.edges.rest.speko_fields import CODES
from trunkline_server.edges.rest.speko_request import read_complete, read_preview
from trunkline_server.edges.status import STATUSES

COMPLETE: Final = "/v1/complete"
HELLO: Final = [{"role": "user", "content": "hi"}]
ENGLISH: Final = {"language": "en"}
KEY: Final = "sk-a-key-of-these-tests"
HEARTBEAT_S: Final = 0.1  # The least that a service can be set to.


def asked(**fields: Any) -> dict[str, Any]:
    """A good request but for these fields."""
    return {"messages": HELLO, "intent": ENGLISH, **fields}


def read(body: dict[str, Any]) -> CompletionSpec:
    """As the contract has it."""
    spec = CompletionSpec()
    read_complete(json.dumps(body).encode(), spec)
    return spec


def said(role: Role.ValueType, *parts: Part) -> Message:
    """A message."""
    return Message(role=role, parts=parts)


# What is asked


def test_every_field_of_the_page_reaches_the_contract():
    body = asked(
        messages=[
            {"role": "system", "content": "Be kind."},
            {"role": "user", "content": "Weather?"},
            {
                "role": "assistant",
                "content": "Let me look.",
                "toolCalls": [{"id": "c1", "name": "weather", "args": '{"city":"Bern"}'}],
            },
            {"role": "tool", "content": "no such city", "toolCallId": "c1", "isError": True},
        ],
        intent={"language": "de-CH", "region": "europe-west3", "optimizeFor": "latency"},
        systemPrompt="You are brief.",
        temperature=0.5,
        maxTokens=100,
        reasoningEffort="xhigh",
        constraints={"allowedProviders": {"llm": ["openai", "groq"]}},
        tools=[{"name": "weather", "description": "Finds it.", "parameters": {"type": "object"}}],
        toolChoice="required",
        parallelToolCalls=False,
        maxToolHops=4,
    )

    spec = read(body)

    assert spec == CompletionSpec(
        messages=[
            said(Role.ROLE_SYSTEM, Part(text="Be kind.")),
            said(Role.ROLE_USER, Part(text="Weather?")),
            said(
                Role.ROLE_ASSISTANT,
                Part(text="Let me look."),
                Part(tool_call=ToolCall(id="c1", name="weather", arguments_json='{"city":"Bern"}')),
            ),
            said(
                Role.ROLE_TOOL,
                Part(
                    tool_result=ToolResult(
                        tool_call_id="c1", parts=[Part(text="no such city")], is_error=True
                    )
                ),
            ),
        ],
        intent=RoutingIntent(
            language="de-CH",
            region="europe-west3",
            optimize_for=OptimizeFor.OPTIMIZE_FOR_LATENCY,
        ),
        system_prompt="You are brief.",
        sampling=SamplingOptions(temperature=0.5, max_output_tokens=100),
        reasoning=ReasoningOptions(effort=ReasoningEffort.REASONING_EFFORT_XHIGH),
        constraints=RoutingConstraints(allowed_providers=["openai", "groq"]),
        tool_options=ToolOptions(
            tools=[
                Tool(
                    name="weather",
                    description="Finds it.",
                    parameters_schema_json='{"type": "object"}',
                )
            ],
            choice=ToolChoice(mode=ToolChoiceMode.TOOL_CHOICE_MODE_REQUIRED),
            parallel_calls=False,
            max_hops=4,
        ),
    )


def test_nothing_is_said_that_was_not_asked():
    nulls = dict.fromkeys(
        (
            "systemPrompt", "temperature", "maxTokens", "reasoningEffort", "constraints", "tools", "toolChoice",
            "parallelToolCalls", "maxToolHops",
        )
    )  # fmt: skip

    specs = [read(asked()), read(asked(**nulls)), read(asked(intent={**ENGLISH, "vertical": "x"}))]

    (plain,) = {spec.SerializeToString() for spec in specs}
    assert CompletionSpec.FromString(plain) == CompletionSpec(
        messages=[said(Role.ROLE_USER, Part(text="hi"))], intent=RoutingIntent(language="en")
    )


def tool(**fields: Any) -> dict[str, Any]:
    """A tool with the least that it needs."""
    return {"name": "f", "description": "d", "parameters": {}, **fields}


WEBHOOK: Final = {"kind": "webhook", "url": "https://example.com/f", "secretRef": "s1"}
INTEGRATION: Final = {"kind": "integration", "installationId": "i", "appKey": "a", "actionKey": "b"}


@pytest.mark.parametrize(
    ("fields", "source"),
    [
        ({}, {}),
        ({"executionMode": "inline"}, {}),
        ({"source": {"kind": "inline"}}, {}),
        ({"executionMode": "webhook"}, {"registered": RegisteredSource()}),
        ({"executionMode": "builtin"}, {"registered": RegisteredSource()}),
        (
            {"executionMode": "webhook", "source": WEBHOOK},
            {"webhook": WebhookSource(url="https://example.com/f", secret_ref="s1")},
        ),
        (
            {
                "source": {
                    **WEBHOOK,
                    "headers": {"x-a": "1"},
                    "authHeaders": [
                        {"name": "authorization", "secretRef": "s2"},
                        {"name": "x-key", "secretRef": "s3"},
                    ],
                    "timeoutMs": 2500,
                    "responseMode": "async",
                    "asyncAck": "on its way",
                }
            },
            {
                "webhook": WebhookSource(
                    url="https://example.com/f",
                    secret_ref="s1",
                    headers={"x-a": "1"},
                    auth_header_secret_refs={"authorization": "s2", "x-key": "s3"},
                    timeout=Duration(seconds=2, nanos=500_000_000),
                    response_mode=WebhookResponseMode.WEBHOOK_RESPONSE_MODE_ASYNC,
                    async_ack="on its way",
                )
            },
        ),
        (
            {"source": {"kind": "builtin", "name": "http_get", "config": {"hosts": ["a"]}}},
            {"builtin": BuiltinSource(name="http_get", config_json='{"hosts": ["a"]}')},
        ),
        (
            {"executionMode": "builtin", "source": {"kind": "builtin", "name": "calculator"}},
            {"builtin": BuiltinSource(name="calculator")},
        ),
        (
            {"preToolSpeech": "always"},
            {"pre_tool_speech": PreToolSpeech.PRE_TOOL_SPEECH_ALWAYS},
        ),
    ],
)
def test_tools_say_who_runs_them(fields, source):
    spec = read(asked(tools=[tool(**fields)]))

    assert list(spec.tool_options.tools) == [
        Tool(name="f", description="d", parameters_schema_json="{}", **source)
    ]


@pytest.mark.parametrize(
    ("allowed", "constraints"),
    [
        (["openai:gpt-5"], RoutingConstraints(allowed_models=["openai/gpt-5"])),
        (
            ["ollama:llama3:8b", "openai:gpt-5"],
            RoutingConstraints(allowed_models=["ollama/llama3:8b", "openai/gpt-5"]),
        ),
        # The whole provider was allowed already.
        (["openai", "openai:gpt-5"], RoutingConstraints(allowed_providers=["openai"])),
    ],
)
def test_an_allowed_provider_may_name_its_model(allowed, constraints):
    spec = read(asked(constraints={"allowedProviders": {"llm": allowed}}))

    assert spec.constraints == constraints


def test_a_named_function_is_chosen():
    choice = {"type": "function", "function": {"name": "f"}}

    spec = read(asked(tools=[tool()], toolChoice=choice))

    assert spec.tool_options.choice == ToolChoice(tool_name="f")


def test_state_that_travels_in_the_id_of_a_call_is_put_back():
    reasoning = Part(reasoning=Reasoning(text="hm"))
    reasoning.provider_state.data = b"signed"
    call = Part(tool_call=ToolCall(id="c1", name="f", arguments_json="{}"))
    call.provider_state.data = b"thought"
    ids = CallIds()
    ids.add_reasoning(reasoning)
    written = ids.written("c1", call.provider_state)
    turns = [
        {"role": "assistant", "content": "", "toolCalls": [{"id": written, "name": "f", "args": "{}"}]},
        {"role": "tool", "content": "1", "toolCallId": written},
    ]  # fmt: skip

    spec = read(asked(messages=[*HELLO, *turns]))

    assert list(spec.messages[1].parts) == [reasoning, call]
    assert spec.messages[2].parts[0].tool_result.tool_call_id == "c1"


def message(**fields: Any) -> dict[str, Any]:
    """A request with a second message."""
    return asked(messages=[*HELLO, {"role": "user", "content": "x", **fields}])


def with_tool(**fields: Any) -> dict[str, Any]:
    """A request with a second tool."""
    return asked(tools=[tool(name="other"), tool(**fields)])


UNREAD: Final[dict[str, tuple[Any, str]]] = {
    "no intent": (
        {"messages": HELLO},
        "intent: Object missing required field `intent`",
    ),
    "no language": (
        asked(intent={"region": "global"}),
        "intent.language: Object missing required field `language`",
    ),
    "a blank language": (asked(intent={"language": " "}), "intent.language: is needed"),
    "a wrong preset": (
        asked(intent={**ENGLISH, "optimizeFor": "speed"}),
        "intent.optimizeFor: must be one of balanced, accuracy, latency, cost",
    ),
    "a field nobody knows": (
        asked(max_tokens=5),
        "max_tokens: Object contains unknown field `max_tokens`",
    ),
    "an unknown field deep inside": (
        message(tool_calls=[]),
        "messages[1].tool_calls: Object contains unknown field `tool_calls`",
    ),
    "arguments that are no text": (
        message(
            role="assistant",
            toolCalls=[
                {"id": "a", "name": "f", "args": "{}"},
                {"id": "b", "name": "f", "args": {}},
            ],
        ),
        "messages[1].toolCalls[1].args: Expected `str`, got `object`",
    ),
    "a role of another API": (
        message(role="developer"),
        "messages[1].role: must be one of system, user, assistant, tool",
    ),
    "no content": (
        asked(messages=[{"role": "user"}]),
        "messages[0].content: Object missing required field `content`",
    ),
    "a result of nothing": (
        message(role="tool"),
        "messages[1].toolCallId: is needed with the role tool",
    ),
    "a result of the user's": (
        message(toolCallId="c1"),
        "messages[1].toolCallId: goes with the role tool only",
    ),
    "an error of the user's": (
        message(isError=True),
        "messages[1].isError: goes with the role tool only",
    ),
    "a tool that calls": (
        message(role="tool", toolCallId="c", toolCalls=[{"id": "a", "name": "f", "args": "{}"}]),
        "messages[1].toolCalls: only the assistant calls tools",
    ),
    "an effort of another API": (
        asked(reasoningEffort="max"),
        "reasoningEffort: must be one of none, minimal, low, medium, high, xhigh",
    ),
    "a list for voices": (
        asked(constraints={"allowedProviders": {"tts": ["cartesia"]}}),
        "constraints.allowedProviders.tts: only llm is served here",
    ),
    "a list for ears": (
        asked(constraints={"allowedProviders": {"stt": [], "llm": ["openai"]}}),
        "constraints.allowedProviders.stt: only llm is served here",
    ),
    "nobody allowed": (
        asked(constraints={"allowedProviders": {"llm": []}}),
        "constraints.allowedProviders.llm: must name at least one provider",
    ),
    "providers and models": (
        asked(constraints={"allowedProviders": {"llm": ["openai", "groq:m"]}}),
        "constraints.allowedProviders.llm: either providers or provider:model, not some of each",
    ),
    "an unknown mode": (
        with_tool(executionMode="remote"),
        "tools[1].executionMode: must be one of inline, webhook, builtin, integration",
    ),
    "an integration": (
        with_tool(executionMode="integration"),
        "tools[1].executionMode: 'f': integrations are not served here",
    ),
    "the source of an integration": (
        with_tool(executionMode="webhook", source=INTEGRATION),
        "tools[1].source.kind: 'f': integrations are not served here",
    ),
    "a mode and another source": (
        with_tool(executionMode="builtin", source=WEBHOOK),
        "tools[1].source.kind: must be builtin, as executionMode says",
    ),
    "inline and a source": (
        with_tool(executionMode="inline", source=WEBHOOK),
        "tools[1].source.kind: must be inline, as executionMode says",
    ),
    "a webhook without an address": (
        with_tool(source={"kind": "webhook", "secretRef": "s"}),
        "tools[1].source.url: Object missing required field `url`",
    ),
    "no time": (
        with_tool(source={**WEBHOOK, "timeoutMs": 0}),
        "tools[1].source.timeoutMs: must be more than 0",
    ),
    "a header twice": (
        with_tool(source={**WEBHOOK, "authHeaders": [{"name": "a", "secretRef": "s"}] * 2}),
        "tools[1].source.authHeaders[1].name: is used twice",
    ),
    "a wrong answer mode": (
        with_tool(source={**WEBHOOK, "responseMode": "later"}),
        "tools[1].source.responseMode: must be one of sync, async",
    ),
    "a choice nobody knows": (
        asked(toolChoice="any"),
        "toolChoice: must be one of auto, none, required",
    ),
    "a choice of another type": (
        asked(toolChoice={"type": "tool", "function": {"name": "f"}}),
        "toolChoice.type: must be function",
    ),
    "hops: a fraction": (
        asked(maxToolHops=1.5),
        "maxToolHops: Expected `int | null`, got `float`",
    ),
    "half a surrogate pair": (
        asked(messages=[{"role": "user", "content": "\udc00"}]),
        "the body is no valid JSON",
    ),
}

# What the service itself finds, in fields that have other names there.
INVALID: Final[dict[str, tuple[Any, str]]] = {
    "heat": (asked(temperature=3), "temperature: 0 to 2"),
    "no tokens": (asked(maxTokens=0), "maxTokens: 1 to 10000000"),
    "21 hops": (asked(maxToolHops=21, tools=[tool()]), "maxToolHops: 1 to 20"),
    "a bad name in the second call after text": (
        message(
            role="assistant",
            toolCalls=[
                {"id": "a", "name": "f", "args": "{}"},
                {"id": "b", "name": "f!", "args": "{}"},
            ],
        ),
        "messages[1].toolCalls[1].name: must match [a-zA-Z0-9_-]{1,64}",
    ),
    "deep arguments without text": (
        message(
            role="assistant",
            content="",
            toolCalls=[{"id": "a", "name": "f", "args": "[" * 65 + "]" * 65}],
        ),
        "messages[1].toolCalls[0].args: nests deeper than 64 levels",
    ),
    "a result of no call": (
        message(role="tool", toolCallId="c9"),
        "messages[1].toolCallId: answers no tool call of an earlier message",
    ),
    "calls of the user": (
        message(toolCalls=[{"id": "a", "name": "f", "args": "{}"}]),
        "messages[1].toolCalls[0]: only the assistant calls tools",
    ),
    "a schema that is none": (
        with_tool(parameters={"type": 5}),
        "tools[1].parameters: is no JSON Schema (at /type)",
    ),
    "a tool twice": (with_tool(name="other"), "tools[1].name: is used twice"),
    "a tool that nobody registered": (
        with_tool(executionMode="webhook"),
        "tools[1].name: names no registered tool of this server",
    ),
    "a builtin that there is not": (
        with_tool(source={"kind": "builtin", "name": "shell"}),
        "tools[1].source.name: names no builtin of this server",
    ),
    "options of a builtin without any": (
        with_tool(source={"kind": "builtin", "name": "calculator", "config": {"a": 1}}),
        "tools[1].source.config: must be empty: this builtin has no options",
    ),
    "a webhook at home": (
        with_tool(source={**WEBHOOK, "url": "https://127.0.0.1/"}),
        "tools[1].source.url: leads to an address that is not public",
    ),
    "a webhook that takes for ever": (
        with_tool(source={**WEBHOOK, "timeoutMs": 60_001}),
        "tools[1].source.timeoutMs: more than 0 s and at most 60 s",
    ),
    "a header that is none": (
        with_tool(source={**WEBHOOK, "headers": {"x a": "1"}}),
        "tools[1].source.headers['x a']: is no header name",
    ),
    "a secret that there is not": (
        with_tool(source={**WEBHOOK, "authHeaders": [{"name": "x-a", "secretRef": "s2"}]}),
        "tools[1].source.authHeaders['x-a']: names no secret of this server",
    ),
    "a choice of no tool": (
        asked(toolChoice={"type": "function", "function": {"name": "f"}}),
        "toolChoice.function.name: names no tool of this request",
    ),
    "a choice without tools": (asked(toolChoice="required"), "toolChoice: REQUIRED needs tools"),
    "a long region": (
        asked(intent={**ENGLISH, "region": "x" * 300}),
        "intent.region: at most 256 characters",
    ),
    "two at once": (
        asked(temperature=-1, maxTokens=-1),
        "temperature: 0 to 2; maxTokens: 1 to 10000000",
    ),
    "no messages": (asked(messages=[]), "messages: at least one message is needed"),
}


@pytest.fixture(params=["local", "grpc"])
def wire(request: pytest.FixtureRequest) -> str:
    """How the shim reaches its service."""
    name: str = request.param
    return name


@pytest.mark.parametrize("name", UNREAD)
def test_what_can_not_be_read_is_named_in_spekos_spelling(name):
    body, text = UNREAD[name]

    with pytest.raises(Refused) as refused:
        read(body)

    error = json.loads(SpekoShim(local(Scripted(()))).error(refused.value.refusal))
    assert error == {"error": text, "code": "VALIDATION_ERROR"}


@pytest.mark.parametrize("data", [b"", b"{", b"null", b'{"a":"\xff"}', b"[" * 100])
def test_what_is_no_json_is_said_to_be_none(data):
    with pytest.raises(Refused) as refused:
        read_complete(data, CompletionSpec())

    assert refused.value.refusal.reason == "INVALID_REQUEST"
    assert refused.value.refusal.field is None


@asynccontextmanager
async def asking(url: str, **headers: str) -> AsyncIterator[httpx.AsyncClient]:
    """A client of one server."""
    async with httpx.AsyncClient(base_url=url, headers=headers, timeout=LIMIT_S) as http:
        yield http


async def test_what_the_service_refuses_is_named_in_spekos_spelling():
    async with (
        upstream(answer("no")) as scripted,
        service_over(scripted.url) as running,
        asking(f"http://{running.http_address}") as http,
    ):
        found = {name: await http.post(COMPLETE, json=body) for name, (body, _) in INVALID.items()}

    assert {name: response.json() for name, response in found.items()} == {
        name: {"error": text, "code": "VALIDATION_ERROR"} for name, (_, text) in INVALID.items()
    }
    assert {response.status_code for response in found.values()} == {400}
    assert not scripted.exchanges


def test_every_reason_has_a_code():
    statuses: dict[str, set[int]] = {}
    for reason, code in CODES.items():
        statuses.setdefault(code, set()).add(STATUSES[reason].http_status)

    assert CODES.keys() == STATUSES.keys()
    assert statuses == {
        "VALIDATION_ERROR": {400, 409, 413, 501},
        "UNAUTHORIZED": {401},
        "INSUFFICIENT_CREDITS": {402},
        "FORBIDDEN": {403},
        "NOT_FOUND": {404},
        "RATE_LIMITED": {429},
        "OVERLOADED": {409, 503},
        "COMPLETE_FAILED": {499, 502, 504},
        "STREAM_ERROR": {502},
        "INTERNAL_ERROR": {500},
    }


# What is answered


def sse(data: bytes) -> list[tuple[str, Any]]:
    """The events of a stream, name and value; comments too."""
    found: list[tuple[str, Any]] = []
    assert data.endswith(b"\n\n")
    for block in data.decode().removesuffix("\n\n").split("\n\n"):
        if block.startswith(":"):
            found.append((block, None))
            continue
        name, value = block.split("\n")
        assert name.startswith("event: ")
        assert value.startswith("data: ")
        found.append((name.removeprefix("event: "), json.loads(value.removeprefix("data: "))))
    return found


async def test_a_stream_to_the_byte():
    steps = answer("Hé\u2028", "!")
    async with (
        upstream(steps) as scripted,
        service_over(scripted.url) as running,
        asking(f"http://{running.http_address}", **{"x-request-id": "my-own-id-1"}) as http,
    ):
        response = await http.post(COMPLETE, json=asked())

    assert response.status_code == 200
    assert sorted(response.headers.multi_items()) == [
        ("cache-control", "no-cache"),
        ("content-type", "text/event-stream; charset=utf-8"),
        # One request of the many that the anonymous plan allows.
        ("ratelimit", '"requests";r=99999;t=1'),
        ("ratelimit-limit", "100000"),
        ("ratelimit-policy", '"requests";q=100000;w=1'),
        ("ratelimit-remaining", "99999"),
        ("ratelimit-reset", "1"),
        ("transfer-encoding", "chunked"),
        ("trunkline-failover-count", "0"),
        ("trunkline-model", "m-a"),
        ("trunkline-provider", "a"),
        ("x-ratelimit-limit", "100000"),
        ("x-ratelimit-remaining", "99999"),
        ("x-ratelimit-reset", "1"),
        ("x-request-id", "my-own-id-1"),
        ("x-speko-failover-count", "0"),
        ("x-speko-model", "m-a"),
        ("x-speko-provider", "a"),
    ]
    assert response.content.decode() == (
        'event: meta\ndata: {"provider":"a","model":"m-a","failoverCount":0,"totalFailoverCount":0,'
        '"scoresRunId":null,"hop":0}\n\n'
        'event: delta\ndata: {"text":"Hé\\u2028"}\n\n'
        'event: delta\ndata: {"text":"!"}\n\n'
        'event: done\ndata: {"text":"Hé\\u2028!","provider":"a","model":"m-a",'
        '"usage":{"promptTokens":9,"completionTokens":4},"failoverCount":0,"scoresRunId":null}\n\n'
    )


def routed(hop: int, total: int = 0, **fields: Any) -> CompleteResponse:
    """A model turn begins."""
    route = Route(provider="p", model="m", hop=hop, total_failover_count=total, **fields)
    return CompleteResponse(route_selected=RouteSelected(route=route))


def text(piece: str) -> CompleteResponse:
    """Some text."""
    return CompleteResponse(text_delta=TextDelta(text=piece))


def called(call_id: str, arguments: str, part: Part | None = None) -> CompleteResponse:
    """A whole call."""
    call = part or Part(tool_call=ToolCall(id=call_id, name="f", arguments_json=arguments))
    return CompleteResponse(part_completed=PartCompleted(part=call))


def ran(state: ServerToolState.ValueType, call_id: str = "s1") -> CompleteResponse:
    """What becomes of a tool of the gateway's."""
    return CompleteResponse(
        server_tool_call=ServerToolCall(id=call_id, name="look_up", state=state)
    )


def completed(**fields: Any) -> CompleteResponse:
    """The end."""
    fields = {"provider": "p", "model": "m", **fields}
    completion = Completion(
        route=Route(**fields), usage=Usage(input_tokens=20, output_tokens=7, total_tokens=27)
    )
    return CompleteResponse(completed=StreamCompleted(completion=completion))


STARTED: Final = ServerToolState.SERVER_TOOL_STATE_STARTED
SUCCEEDED: Final = ServerToolState.SERVER_TOOL_STATE_SUCCEEDED
FAILED: Final = ServerToolState.SERVER_TOOL_STATE_FAILED


@dataclass
class Shim:
    """The shim before a service that plays a script."""

    http: httpx.AsyncClient
    requests: list[CompleteRequest] = field(default_factory=list)


@asynccontextmanager
async def shim(wire: str, *script: Step) -> AsyncIterator[Shim]:
    """Over the local channel, all events as one batch; over a real one, as they come."""
    if wire == "grpc":
        with Gateway() as gateway:
            gateway.plays(script)
            async with (
                grpc.aio.insecure_channel(gateway.target) as channel,
                _shim(channel) as found,
            ):
                yield found
            found.requests += [call.request for call in gateway.calls]
        return
    servicer = Scripted(script)
    async with _shim(local(servicer)) as found:
        yield found
    found.requests += servicer.requests


@dataclass
class Scripted:
    """The service behind a local channel."""

    script: Sequence[Step]
    requests: list[CompleteRequest] = field(default_factory=list)

    async def Complete(self, request: CompleteRequest, context: Any) -> AsyncIterator[list[Any]]:
        """One batch, up to an error."""
        self.requests.append(request)
        failures = [step for step in self.script if isinstance(step, Failure)]
        yield [step for step in self.script if isinstance(step, CompleteResponse)]
        for failure in failures:
            await context.abort(failure.code, failure.message)


def local(servicer: Scripted) -> LocalChannel:
    """A channel to it."""
    calls = Calls(lambda: "1", lambda: "0" * 16)
    return LocalChannel(methods({"trunkline.v1.CompletionService": servicer}, calls))


@asynccontextmanager
async def _shim(channel: Any) -> AsyncIterator[Shim]:
    app = RestApp([SpekoShim(channel)], {})
    async with serving(app) as served, asking(f"http://127.0.0.1:{served.port}") as http:
        yield Shim(http)


async def test_several_turns_with_tools_of_the_gateway_between_them(wire):
    script = [
        routed(0, 1, failover_count=1, scores_run_id="run_1"),
        text("Let me see. "),
        ran(STARTED),
        ran(STARTED, "s2"),
        ran(SUCCEEDED),
        ran(FAILED, "s2"),
        routed(1, 1, scores_run_id="run_1"),
        text("It rains."),
        completed(total_failover_count=1, scores_run_id="run_1", hop=1),
    ]
    async with shim(wire, *script) as running:
        response = await running.http.post(COMPLETE, json=asked())

    meta = {"provider": "p", "model": "m", "totalFailoverCount": 1, "scoresRunId": "run_1"}
    assert sse(response.content) == [
        ("meta", {**meta, "failoverCount": 1, "hop": 0}),
        ("delta", {"text": "Let me see. "}),
        ("server_tool_call", {"id": "s1", "name": "look_up", "status": "started"}),
        ("server_tool_call", {"id": "s2", "name": "look_up", "status": "started"}),
        ("server_tool_call", {"id": "s1", "name": "look_up", "status": "completed"}),
        ("server_tool_call", {"id": "s2", "name": "look_up", "status": "failed"}),
        ("meta", {**meta, "failoverCount": 0, "hop": 1}),
        ("delta", {"text": "It rains."}),
        (
            "done",
            {
                "text": "Let me see. It rains.",
                "provider": "p",
                "model": "m",
                "usage": {"promptTokens": 20, "completionTokens": 7},
                "failoverCount": 1,
                "scoresRunId": "run_1",
            },
        ),
    ]
    speko = {name: value for name, value in response.headers.items() if name.startswith("x-speko")}
    assert speko == {
        "x-speko-provider": "p",
        "x-speko-model": "m",
        "x-speko-failover-count": "1",
        "x-speko-scores-run-id": "run_1",
    }


async def test_calls_come_whole_and_again_at_the_end(wire):
    refused = CompleteResponse(refusal_delta=RefusalDelta(text="No."))
    script = [routed(0), called("c1", '{"q":1}'), called("c2", ""), refused, completed()]
    async with shim(wire, *script) as running:
        response = await running.http.post(COMPLETE, json=asked())

    calls = [{"id": "c1", "name": "f", "args": '{"q":1}'}, {"id": "c2", "name": "f", "args": "{}"}]
    found = sse(response.content)
    assert found[1:4] == [
        ("tool_call", calls[0]),
        ("tool_call", calls[1]),
        ("delta", {"text": "No."}),
    ]
    assert found[4][1]["toolCalls"] == calls
    assert found[4][1]["text"] == "No."
    (request,) = running.requests
    assert request.stream_options.buffer_tool_arguments


async def test_state_of_the_provider_travels_in_the_ids_of_calls(wire):
    reasoning = Part(reasoning=Reasoning(redacted=True))
    reasoning.provider_state.data = b"signed"
    call = Part(tool_call=ToolCall(id="c1", name="f", arguments_json="{}"))
    call.provider_state.data = b"thought"
    script = [routed(0), called("", "", reasoning), called("", "", call), completed()]
    async with shim(wire, *script) as running:
        response = await running.http.post(COMPLETE, json=asked())

    ((_, told),) = [found for found in sse(response.content) if found[0] == "tool_call"]
    turn = {"role": "assistant", "content": "", "toolCalls": [told]}
    spec = read(asked(messages=[*HELLO, turn]))
    assert told["id"].startswith("c1~")
    assert list(spec.messages[1].parts) == [reasoning, call]


@pytest.mark.parametrize("arguments", ['{"city": "Be', "[1]", "null", "{'a': 1}"])
async def test_arguments_that_would_not_parse_are_an_error_and_no_call(wire, arguments):
    script = [routed(0), text("Hm."), called("c1", arguments), completed()]
    async with shim(wire, *script) as running:
        response = await running.http.post(COMPLETE, json=asked())

    error = "the arguments of a tool call are no complete JSON object"
    assert sse(response.content)[1:] == [
        ("delta", {"text": "Hm."}),
        ("error", {"error": error, "code": "STREAM_ERROR"}),
    ]


async def test_an_event_that_nobody_knows_is_passed_over(wire):
    unknown = CompleteResponse()
    interrupted = CompleteResponse(interrupted=StreamInterrupted())
    async with shim(wire, unknown, routed(0), unknown, interrupted, completed()) as running:
        response = await running.http.post(COMPLETE, json=asked())

    assert [name for name, _ in sse(response.content)] == ["meta", "done"]


async def test_an_error_after_the_first_event_is_the_last_event(wire):
    lost = Failure(grpc.StatusCode.ABORTED, "the stream broke off")
    async with shim(wire, routed(0), text("Hel"), lost) as running:
        response = await running.http.post(COMPLETE, json=asked())

    assert response.status_code == 200
    assert sse(response.content)[1:] == [
        ("delta", {"text": "Hel"}),
        ("error", {"error": "the stream broke off", "code": "STREAM_ERROR"}),
    ]


REFUSALS: Final = {
    "INVALID_API_KEY": (grpc.StatusCode.UNAUTHENTICATED, 401, "UNAUTHORIZED"),
    "INSUFFICIENT_CREDITS": (grpc.StatusCode.FAILED_PRECONDITION, 402, "INSUFFICIENT_CREDITS"),
    "PERMISSION_DENIED": (grpc.StatusCode.PERMISSION_DENIED, 403, "FORBIDDEN"),
    "MODEL_NOT_FOUND": (grpc.StatusCode.NOT_FOUND, 404, "NOT_FOUND"),
    "RATE_LIMITED": (grpc.StatusCode.RESOURCE_EXHAUSTED, 429, "RATE_LIMITED"),
    "NO_ELIGIBLE_PROVIDER": (grpc.StatusCode.FAILED_PRECONDITION, 400, "VALIDATION_ERROR"),
    "ALL_PROVIDERS_FAILED": (grpc.StatusCode.UNAVAILABLE, 502, "COMPLETE_FAILED"),
    "OVERLOADED": (grpc.StatusCode.UNAVAILABLE, 503, "OVERLOADED"),
    "INTERNAL_ERROR": (grpc.StatusCode.INTERNAL, 500, "INTERNAL_ERROR"),
}


@pytest.mark.parametrize("reason", REFUSALS)
async def test_errors_before_the_first_event_have_a_status_and_a_code(reason):
    code, status, word = REFUSALS[reason]
    async with shim("grpc", Failure(code, "so it is", [error_info(reason)])) as running:
        response = await running.http.post(COMPLETE, json=asked())

    assert response.status_code == status
    assert response.json() == {"error": "so it is", "code": word}


@pytest.mark.parametrize(
    ("lines", "kept"),
    [
        (b"x-session-id:  sess_1 \t\r\n", "sess_1"),
        (b"x-session-id: sess_1\r\n", "sess_1"),
        (b"X-Session-Id: \r\n", ""),
        (b"", ""),
    ],
)
async def test_the_session_is_trimmed_and_kept(lines, kept):
    body = json.dumps(asked()).encode()
    head = b"POST %b HTTP/1.1\r\nhost: g\r\n%bcontent-length: %d\r\n\r\n"
    servicer = Scripted([routed(0), completed()])
    app = RestApp([SpekoShim(local(servicer))], {})
    async with serving(app) as served, served.connect() as wire:
        wire.send(head % (COMPLETE.encode(), lines, len(body)) + body)
        await wire.response()

    (request,) = servicer.requests
    assert request.spec.session_id == kept


@pytest.mark.parametrize(
    ("method", "path"), [("GET", COMPLETE), ("POST", "/v1/routing/preview"), ("PUT", COMPLETE)]
)
async def test_a_wrong_method_is_a_path_that_is_not_there(method, path):
    async with shim("local", completed()) as running:
        response = await running.http.request(method, path)

    assert response.status_code == 404
    assert response.json() == {"error": f"no such path: {method} {path}", "code": "NOT_FOUND"}


# Through the whole service


async def test_comments_keep_a_silent_answer_awake():
    steps: list[Bytes] = [Pause(3.5 * HEARTBEAT_S), *answer("Hel", "lo")]
    async with (
        upstream(steps) as slow,
        service_over(slow.url, server={"heartbeat_s": HEARTBEAT_S}) as running,
        asking(f"http://{running.http_address}") as http,
    ):
        response = await http.post(COMPLETE, json=asked())

    names = [name for name, _ in sse(response.content)]
    assert names[:2] == [": hb", ": hb"]
    assert [name for name in names if name != ": hb"] == ["meta", "delta", "delta", "done"]
    # The head was out before the route was known.
    assert "x-speko-provider" not in response.headers


async def test_an_error_after_a_comment_is_an_event():
    steps: list[Bytes] = [Pause(2.5 * HEARTBEAT_S), *whole({"error": {"message": "secret"}}, 401)]
    async with (
        upstream(steps) as failing,
        service_over(failing.url, server={"heartbeat_s": HEARTBEAT_S}) as running,
        asking(f"http://{running.http_address}") as http,
    ):
        response = await http.post(COMPLETE, json=asked())

    assert response.status_code == 200
    assert [found for found in sse(response.content) if found[0] != ": hb"] == [
        (
            "error",
            {
                "error": "all providers failed: a/m-a: provider credentials rejected",
                "code": "STREAM_ERROR",
            },
        )
    ]


async def test_a_provider_that_is_cut_off_ends_the_answer_with_an_error():
    async with (
        upstream([head(), event(delta("Hel")), Reset()]) as cut,
        service_over(cut.url) as running,
        asking(f"http://{running.http_address}") as http,
    ):
        response = await http.post(COMPLETE, json=asked())

    assert [name for name, _ in sse(response.content)] == ["meta", "delta", "error"]
    assert sse(response.content)[-1][1] == {
        "error": "the provider's stream broke off",
        "code": "STREAM_ERROR",
    }


async def test_a_failover_is_counted():
    async with (
        upstream(whole({"error": {"message": "no"}}, 500)) as failing,
        upstream(answer("Hello")) as good,
        service(
            providers=[provider("bad", failing.url), provider("good", good.url)],
            models=[
                model("m1", "bad", scores={"accuracy": 0.9}),
                model("m2", "good", scores={"accuracy": 0.1}),
            ],
        ) as running,
        asking(f"http://{running.http_address}") as http,
    ):
        response = await http.post(COMPLETE, json=asked())

    found = sse(response.content)
    assert found[0][1]["failoverCount"] == found[-1][1]["failoverCount"] >= 1
    assert found[-1][1]["provider"] == response.headers["x-speko-provider"] == "good"
    assert response.headers["x-speko-failover-count"] == str(found[-1][1]["failoverCount"])


@pytest.mark.usefixtures("no_chance")
async def test_who_is_throttled_hears_for_how_long():
    async with (
        upstream(whole({"error": {"message": "slow"}}, 429, "retry-after: 7")) as slow,
        service_over(slow.url) as running,
        asking(f"http://{running.http_address}") as http,
    ):
        response = await http.post(COMPLETE, json=asked())

    assert response.status_code == 429
    assert response.headers["retry-after"] == "7"
    assert response.json() == {"error": "all providers are rate limited", "code": "RATE_LIMITED"}


async def test_a_key_is_asked_for():
    async with (
        upstream(answer("Hello")) as scripted,
        service(
            environment={"KEY": KEY},
            providers=[provider("a", scripted.url)],
            models=[model("m", "a")],
            keys=[{"id": "tests", "key_env": "KEY"}],
        ) as running,
        asking(f"http://{running.http_address}") as http,
    ):
        without = await http.post(COMPLETE, json=asked())
        wrong = await http.post(COMPLETE, json=asked(), headers={"authorization": "Bearer x"})
        right = await http.post(COMPLETE, json=asked(), headers={"authorization": f"Bearer {KEY}"})

    assert [without.status_code, wrong.status_code, right.status_code] == [401, 401, 200]
    assert without.json() == {"error": "missing or unknown API key", "code": "UNAUTHORIZED"}


async def test_a_caller_who_goes_closes_the_provider():
    async with (
        upstream([head(), event(delta("Hel")), Hang()]) as endless,
        observed(providers=[provider("a", endless.url)], models=[model("m", "a")]) as running,
        asking(f"http://{running.service.http_address}") as http,
    ):
        async with http.stream("POST", COMPLETE, json=asked()) as response:
            async for piece in response.aiter_text():
                if "delta" in piece:
                    break
        (exchange,) = endless.exchanges
        async with asyncio.timeout(LIMIT_S):
            await exchange.closed.wait()
        told = await running.request()

    assert told["reason"] == "CANCELLED"


# Who would be asked


@pytest.mark.parametrize(
    ("query", "intent", "name"),
    [
        ("language=en", RoutingIntent(language="en"), ""),
        (
            "language=de-CH&region=us-east4&optimizeFor=cost&model=r%2F1",
            RoutingIntent(
                language="de-CH",
                region="us-east4",
                optimize_for=OptimizeFor.OPTIMIZE_FOR_COST,
            ),
            "r/1",
        ),
        (
            "language=en&optimize_for=accuracy&vertical=healthcare",
            RoutingIntent(language="en", optimize_for=OptimizeFor.OPTIMIZE_FOR_ACCURACY),
            "",
        ),
    ],
)
def test_a_preview_asks_with_an_intent(query, intent, name):
    spec = read_preview(query).spec

    assert (spec.intent, spec.model) == (intent, name)


@pytest.mark.parametrize(
    ("query", "field", "text"),
    [
        ("", "language", "is needed"),
        ("region=global", "language", "is needed"),
        ("language=", "language", "is needed"),
        (
            "language=en&optimizeFor=speed",
            "optimizeFor",
            "must be one of balanced, accuracy, latency, cost",
        ),
        (
            "language=en&lang=de",
            "lang",
            "must be one of language, region, optimizeFor, optimize_for, vertical, model, requestId",
        ),
        ("language=en&language=de", "language", "comes twice"),
        ("&".join(["language=en"] * 17), None, "at most 16 parameters"),
    ],
)
def test_a_preview_of_nothing_is_refused(query, field, text):
    with pytest.raises(Refused) as refused:
        read_preview(query)

    assert (refused.value.refusal.field, refused.value.refusal.message) == (field, text)


async def test_a_preview_asks_nobody_and_names_everybody():
    async with (
        upstream(answer("no")) as scripted,
        service(
            providers=[provider("a", scripted.url), provider("b", scripted.url)],
            models=[
                model("m", "a", scores={"accuracy": 0.25, "latency": 0.25, "cost": 0.5}),
                model("n", "b", scores={"accuracy": 0.5, "latency": 0.5, "cost": 0.5}),
                model("o", "b", modes=["think"]),
            ],
        ) as running,
        asking(f"http://{running.http_address}") as http,
    ):
        found = await http.get("/v1/routing/preview?language=en&optimizeFor=accuracy")
        wrong = await http.get("/v1/routing/preview?region=global")
        unknown = await http.get("/v1/routing/preview?language=en&model=nope")

    told = found.json()
    assert [(c["provider"], c["model"], c["eligible"]) for c in told["candidates"]] == [
        ("b", "n", True), ("a", "m", True), ("b", "o", False),
    ]  # fmt: skip
    assert told["scoresRunId"] is None
    assert told["candidates"][0]["terms"] == {
        "accuracy": pytest.approx(0.8),
        "latency": pytest.approx(0.075, abs=0.01),
        "cost": pytest.approx(0.025),
    }
    assert told["candidates"][0]["score"] == pytest.approx(0.9, abs=0.01)
    assert told["candidates"][1]["terms"]["accuracy"] == 0
    assert "mode" in told["candidates"][2]["exclusionReason"]
    assert wrong.status_code == 400
    assert wrong.json() == {"error": "language: is needed", "code": "VALIDATION_ERROR"}
    assert (unknown.status_code, unknown.json()["code"]) == (404, "NOT_FOUND")
    assert not scripted.exchanges


def test_a_preview_tells_each_candidate_with_its_terms():
    scored = RouteCandidate(
        provider="a", model="m", score=0.75, accuracy=0.5, latency=0.25, cost=0.0, eligible=True
    )
    down = RouteCandidate(provider="b", model="n", exclusion_reason="the breaker is open")

    found = preview_object(PreviewRouteResponse(candidates=[scored, down], scores_run_id="run_1"))

    assert found == {
        "scoresRunId": "run_1",
        "candidates": [
            {
                "provider": "a",
                "model": "m",
                "eligible": True,
                "exclusionReason": None,
                "score": 0.75,
                "terms": {"accuracy": 0.5, "latency": 0.25, "cost": 0.0},
            },
            {
                "provider": "b",
                "model": "n",
                "eligible": False,
                "exclusionReason": "the breaker is open",
                "score": None,
                "terms": None,
            },
        ],
    }
