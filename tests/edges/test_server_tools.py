"""Tools that the gateway runs between the turns of a model: a scripted model, real tools, and what the caller sees."""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

import grpc
import httpx
import pytest

from tests.edges.errors import fields_of, reason_of
from tests.edges.observed import LIMIT_S, Observed, Streamed, observed, spec, stream
from tests.faults.waiting import until
from tests.support.service import model, provider
from tests.support.upstream import (
    END,
    Exchange,
    Hang,
    Pause,
    Reset,
    Step,
    Upstream,
    answer,
    delta,
    event,
    finish,
    head,
    upstream,
    usage,
    whole,
)
from trunkline.v1.completion_pb2 import Completion, FinishReason, ServerToolState
from trunkline.v1.completion_service_pb2 import CompleteRequest, CompleteUnaryRequest, StreamOptions
from trunkline.v1.completion_service_pb2_grpc import CompletionServiceStub
from trunkline.v1.completion_spec_pb2 import (
    BuiltinSource,
    CompletionSpec,
    RegisteredSource,
    Tool,
    ToolChoice,
    ToolChoiceMode,
    ToolOptions,
    WebhookSource,
)
from trunkline.v1.message_pb2 import Message, Part, Role, ToolCall, ToolResult

pytestmark = pytest.mark.once

STARTED: Final = ServerToolState.SERVER_TOOL_STATE_STARTED
SUCCEEDED: Final = ServerToolState.SERVER_TOOL_STATE_SUCCEEDED
FAILED: Final = ServerToolState.SERVER_TOOL_STATE_FAILED
SECRET: Final = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
FAILING: Final = whole({"error": {"message": "no"}}, 500)
SCHEMA: Final = json.dumps({"type": "object", "properties": {"n": {"type": "integer"}}})

Turn = Sequence[Step]
Model = Callable[[int, Exchange], Turn]  # The number of the request, and what it says.


def calls(*named: tuple[str, str, str], text: str = "", reason: str = "tool_calls") -> Turn:
    """A turn that calls tools: id, name and arguments of each."""
    steps: list[Step] = [head()]
    if text:
        steps.append(event(delta(text)))
    for index, (call_id, name, arguments) in enumerate(named):
        call = {
            "index": index,
            "id": call_id,
            "type": "function",
            "function": {"name": name, "arguments": arguments},
        }
        steps.append(event({"choices": [{"index": 0, "delta": {"tool_calls": [call]}}]}))
    return [*steps, event(finish(reason)), event(usage()), event("[DONE]"), END]


def result(text: str) -> Callable[[Exchange], Turn]:
    """A tool that always says so."""
    return lambda _: whole({"result": text})


FORTY_TWO: Final = result("42")


@dataclass
class World:
    """A service, its model, and the tool behind it."""

    running: Observed
    model: Upstream
    tool: Upstream

    def server_tool(self, name: str = "lookup", **more: Any) -> Tool:
        """A webhook."""
        return Tool(
            name=name,
            description="Looks up.",
            parameters_schema_json=SCHEMA,
            webhook=WebhookSource(url=f"{self.tool.url}/{name}", secret_ref="hook"),
            **more,
        )

    async def ask(self, *tools: Tool, **fields: Any) -> Streamed:
        """A stream with these tools."""
        options = fields.pop("options", {})
        asked = spec("m", tool_options=ToolOptions(tools=tools, **options), **fields)
        return await stream(self.running.service, asked, StreamOptions(include_final_messages=True))

    def told(self, number: int) -> list[dict[str, Any]]:
        """The messages of one request to the model."""
        messages: list[dict[str, Any]] = self.model.exchanges[number].json["messages"]
        return messages


@asynccontextmanager
async def world(
    script: Model, tool: Callable[[Exchange], Any] = FORTY_TWO, **sections: Any
) -> AsyncIterator[World]:
    """A service with one model."""
    asked: list[Exchange] = []

    def turn(exchange: Exchange) -> Turn:
        asked.append(exchange)
        return script(len(asked) - 1, exchange)

    async with AsyncExitStack() as stack:
        upstreams = [await stack.enter_async_context(upstream(s)) for s in (turn, tool)]
        running = await stack.enter_async_context(
            observed(
                {"HOOK": SECRET},
                **{
                    "providers": [provider("a", upstreams[0].url)],
                    "models": [model("m", "a")],
                    "secrets": {
                        "hook": {"env": "HOOK", "hosts": [f"127.0.0.1:{upstreams[1].port}"]}
                    },
                    "egress": {"allowed_hosts": [f"127.0.0.1:{upstreams[1].port}"]},
                    **sections,
                },
            )
        )
        yield World(running, *upstreams)


def completed(found: Streamed) -> Completion:
    """The end of a stream."""
    assert found.error is None
    return found.events[-1].completed.completion


def states(found: Streamed) -> list[tuple[str, int]]:
    """What was told of server tools."""
    events = [e.server_tool_call for e in found.events if e.HasField("server_tool_call")]
    return [(event.name, event.state) for event in events]


def inline(name: str = "mine") -> Tool:
    """A tool of the caller's own."""
    return Tool(name=name, description="Mine.", parameters_schema_json="{}")


def once(*turns: Turn) -> Model:
    """These turns, one after the other."""
    return lambda number, _: turns[number]


async def test_a_tool_runs_between_two_turns_and_its_call_is_never_shown():
    script = once(calls(("c1", "lookup", '{"n": 7}'), text="Let me see. "), answer("It is ", "42."))
    async with world(script) as found:
        streamed = await found.ask(found.server_tool())

    end = completed(streamed)
    assert streamed.text == "Let me see. It is 42."
    assert "tool_call_delta" not in streamed.kinds
    assert states(streamed) == [("lookup", STARTED), ("lookup", SUCCEEDED)]
    assert [
        e.route_selected.route.hop for e in streamed.events if e.HasField("route_selected")
    ] == [
        0,
        1,
    ]
    assert streamed.kinds[-2:] == ["choice_finished", "completed"]
    assert streamed.kinds.count("choice_finished") == 1
    parts = [e.text_delta.part_index for e in streamed.events if e.HasField("text_delta")]
    assert len(set(parts)) == 2
    assert parts == sorted(parts)
    # What was asked
    assert found.told(1)[-2:] == [
        {
            "role": "assistant",
            "content": "Let me see. ",
            "tool_calls": [
                {
                    "id": "c1",
                    "type": "function",
                    "function": {"name": "lookup", "arguments": '{"n": 7}'},
                }
            ],
        },
        {"role": "tool", "tool_call_id": "c1", "content": '{"result": "42"}'},
    ]
    (called,) = found.tool.exchanges
    assert called.json["data"]["arguments"] == {"n": 7}
    # What is told at the end
    assert end.choices[0].finish_reason == FinishReason.FINISH_REASON_STOP
    assert [part.text for part in end.choices[0].message.parts] == ["It is 42."]
    assert [m.role for m in end.transcript] == [Role.ROLE_ASSISTANT, Role.ROLE_TOOL]
    assert end.transcript[0].parts[0].text == "Let me see. "
    assert end.transcript[0].parts[1].tool_call.name == "lookup"
    assert end.transcript[1].parts[0].tool_result.parts[0].text == '{"result": "42"}'
    assert [(c.name, c.state, c.hop) for c in end.server_tool_calls] == [("lookup", SUCCEEDED, 0)]
    assert (end.usage.input_tokens, end.usage.output_tokens) == (18, 8)
    assert [attempt.hop for attempt in end.attempts] == [0, 1]


async def test_a_unary_caller_gets_the_last_turn_and_the_transcript():
    script = once(calls(("c1", "lookup", "{}")), answer("Done."))

    def unary(number: int, exchange: Exchange) -> Turn:
        if exchange.json.get("stream"):
            return script(number, exchange)
        message: dict[str, Any] = {"role": "assistant", "content": "Done." if number else None}
        if number == 0:
            function = {"name": "lookup", "arguments": "{}"}
            message["tool_calls"] = [{"id": "c1", "type": "function", "function": function}]
        choice = {
            "index": 0,
            "message": message,
            "finish_reason": "stop" if number else "tool_calls",
        }
        counts = {"prompt_tokens": 9, "completion_tokens": 4, "total_tokens": 13}
        return whole({"id": "c", "model": "m-1", "choices": [choice], "usage": counts})

    async with (
        world(unary) as found,
        grpc.aio.insecure_channel(found.running.service.grpc_address) as channel,
    ):
        asked = spec("m", tool_options=ToolOptions(tools=[found.server_tool()]))
        response = await CompletionServiceStub(channel).CompleteUnary(
            CompleteUnaryRequest(spec=asked), timeout=LIMIT_S
        )

    end = response.completion
    assert [part.text for part in end.choices[0].message.parts] == ["Done."]
    assert len(end.transcript) == 2
    assert end.usage.total_tokens == 26
    assert [call.state for call in end.server_tool_calls] == [SUCCEEDED]


async def test_of_a_mixed_turn_the_caller_gets_its_own_call_and_the_rest_is_kept_for_it():
    mixed = calls(("c1", "lookup", "{}"), ("c2", "mine", '{"x": 1}'), text="Both. ")
    async with world(once(mixed, answer("Done."))) as found:
        streamed = await found.ask(found.server_tool(), inline())
        end = completed(streamed)
        history = [
            Message(role=Role.ROLE_USER, parts=[Part(text="hi")]),
            end.choices[0].message,
            Message(
                role=Role.ROLE_TOOL,
                parts=[Part(tool_result=ToolResult(tool_call_id="c2", parts=[Part(text="mine!")]))],
            ),
        ]
        tools = ToolOptions(tools=[found.server_tool(), inline()])
        again = CompletionSpec(model="m", messages=history, tool_options=tools)
        second = await stream(found.running.service, again)
        again.messages.insert(1, end.transcript[0])
        again.messages.insert(2, end.transcript[1])
        told = found.told(1)

    deltas = [e.tool_call_delta for e in streamed.events if e.HasField("tool_call_delta")]
    assert {d.name for d in deltas if d.name} == {"mine"}
    assert {d.tool_call_index for d in deltas} == {0}
    shown = [e.part_completed.part for e in streamed.events if e.HasField("part_completed")]
    assert [part.tool_call for part in shown] == [
        ToolCall(id="c2", name="mine", arguments_json='{"x": 1}')
    ]
    assert end.choices[0].finish_reason == FinishReason.FINISH_REASON_TOOL_CALLS
    assert states(streamed) == [("lookup", STARTED), ("lookup", SUCCEEDED)]
    assert second.text == "Done."
    assert [m["role"] for m in told] == ["user", "assistant", "tool", "assistant", "tool"]
    assert told[1]["tool_calls"][0]["id"] == "c1"
    assert told[2] == {"role": "tool", "tool_call_id": "c1", "content": '{"result": "42"}'}
    assert told[3]["tool_calls"][0]["id"] == "c2"
    assert told[4]["content"] == "mine!"


async def test_over_openais_api_too_a_mixed_turn_goes_on():
    mixed = calls(("c1", "lookup", "{}"), ("c2", "mine", "{}"))
    registered = {"name": "lookup", "description": "Looks up.", "parameters": {"type": "object"}}
    async with world(once(mixed, answer("Done."))) as found:
        streamed = await found.ask(found.server_tool(), inline())
        function = {"name": "mine", "arguments": "{}"}
        body = {
            "model": "m",
            "messages": [
                {"role": "user", "content": "hi"},
                {
                    "role": "assistant",
                    "tool_calls": [{"id": "c2", "type": "function", "function": function}],
                },
                {"role": "tool", "tool_call_id": "c2", "content": "mine!"},
            ],
            "tools": [
                {"type": "function", "function": registered},
                {"type": "function", "function": {"name": "mine"}},
            ],
            "stream": True,
        }
        async with httpx.AsyncClient(timeout=LIMIT_S) as http:
            url = f"http://{found.running.service.http_address}/v1/chat/completions"
            response = await http.post(url, json=body)
        told = found.told(1)

    assert completed(streamed).transcript
    assert response.status_code == 200
    assert [m["role"] for m in told] == ["user", "assistant", "tool", "assistant", "tool"]


async def test_all_calls_of_a_turn_run_at_once_and_their_results_keep_their_order():
    def slow(exchange: Exchange) -> Turn:
        number = exchange.json["data"]["arguments"]["n"]
        return [Pause(0.3 - 0.1 * number), *whole({"n": number})]

    turn = calls(*((f"c{n}", "lookup", json.dumps({"n": n})) for n in range(3)))
    async with world(once(turn, answer("Done.")), slow) as found:
        began_s = asyncio.get_running_loop().time()
        streamed = await found.ask(found.server_tool())
        took_s = asyncio.get_running_loop().time() - began_s

    assert completed(streamed).transcript
    assert [m["content"] for m in found.told(1)[-3:]] == ['{"n": 0}', '{"n": 1}', '{"n": 2}']
    assert took_s < 0.55


async def test_at_the_hop_limit_the_model_has_to_answer():
    def script(number: int, exchange: Exchange) -> Turn:
        if exchange.json.get("tool_choice") == "none":
            return answer("Enough.")
        return calls((f"c{number}", "lookup", json.dumps({"n": number})))

    async with world(script) as found:
        streamed = await found.ask(found.server_tool(), options={"max_hops": 2})

    end = completed(streamed)
    assert len(found.model.exchanges) == 3
    assert len(found.tool.exchanges) == 2
    assert streamed.text == "Enough."
    assert end.choices[0].finish_reason == FinishReason.FINISH_REASON_HOP_LIMIT


@pytest.mark.parametrize(
    ("arguments", "runs"),
    [
        (lambda number: {"n": 1}, 4),
        (lambda number: {"n": number % 2}, 7),
    ],
    ids=["the same", "A-B-A-B"],
)
async def test_a_model_that_repeats_itself_is_stopped(arguments, runs):
    def script(number: int, exchange: Exchange) -> Turn:
        if exchange.json.get("tool_choice") == "none":
            return answer("Enough.")
        return calls((f"c{number}", "lookup", json.dumps(arguments(number))))

    async with world(script) as found:
        streamed = await found.ask(found.server_tool(), options={"max_hops": 20})

    end = completed(streamed)
    assert streamed.text == "Enough."
    assert len(found.tool.exchanges) == runs
    assert [w.code for w in end.warnings] == ["TOOL_LOOP"]
    assert end.server_tool_calls[-1].state == FAILED


async def test_a_model_that_asks_for_unknown_tools_is_told_and_then_stopped():
    def script(number: int, exchange: Exchange) -> Turn:
        if exchange.json.get("tool_choice") == "none":
            return answer("Enough.")
        return calls((f"c{number}", f"invented_{number}", "{}"))

    async with world(script) as found:
        streamed = await found.ask(found.server_tool(), inline())

    assert streamed.text == "Enough."
    assert "tool_call_delta" not in streamed.kinds
    assert len(found.model.exchanges) == 4
    assert found.told(1)[-1]["content"] == "There is no tool of this name."
    assert not found.tool.exchanges


async def test_arguments_that_do_not_fit_are_told_with_their_place():
    script = once(
        calls(("c1", "lookup", '{"n": "seven"}')),
        calls(("c2", "lookup", '{"n": 7}')),
        answer("Done."),
    )
    async with world(script) as found:
        streamed = await found.ask(found.server_tool())

    assert found.told(1)[-1]["content"] == (
        'This call was not made: at /n: "seven" is not of type "integer"'
    )
    assert states(streamed) == [
        ("lookup", STARTED),
        ("lookup", FAILED),
        ("lookup", STARTED),
        ("lookup", SUCCEEDED),
    ]
    assert len(found.tool.exchanges) == 1


async def test_a_tool_that_fails_is_told_to_the_model_and_called_once():
    script = once(calls(("c1", "lookup", "{}")), answer("It is down."))
    async with world(script, lambda _: whole({"secret": "detail"}, 500)) as found:
        streamed = await found.ask(found.server_tool())

    assert streamed.text == "It is down."
    assert states(streamed) == [("lookup", STARTED), ("lookup", FAILED)]
    assert "500" in found.told(1)[-1]["content"]
    assert len(found.tool.exchanges) == 1


async def test_a_lost_reply_is_asked_for_again_only_where_the_tool_is_idempotent():
    counts = []
    for idempotent in (False, True):
        script = once(calls(("c1", "lookup", "{}")), answer("Done."))
        async with world(script, lambda _: [head()[:20], Reset()]) as found:
            tool = found.server_tool(idempotent=idempotent)
            streamed = await found.ask(tool)
            ids = {call.header("webhook-id") for call in found.tool.exchanges}
        assert streamed.text == "Done."
        assert len(ids) == 1
        counts.append(len(found.tool.exchanges))

    assert counts == [1, 2]


async def test_a_forced_call_is_forced_once():
    async with world(once(calls(("c1", "lookup", "{}")), answer("Done."))) as found:
        choice = ToolChoice(mode=ToolChoiceMode.TOOL_CHOICE_MODE_REQUIRED)
        streamed = await found.ask(found.server_tool(), options={"choice": choice})

    assert streamed.text == "Done."
    assert found.model.exchanges[0].json["tool_choice"] == "required"
    assert found.model.exchanges[1].json.get("tool_choice", "auto") == "auto"


async def test_the_second_turn_fails_over_like_the_first():
    def failing(number: int, exchange: Exchange) -> Turn:
        return calls(("c1", "lookup", "{}"), text="Wait. ") if number == 0 else FAILING

    async with upstream(answer("Done.")) as other, world(failing) as found:
        sections = {
            "providers": [provider("a", found.model.url), provider("b", other.url)],
            "models": [model("m-a", "a"), model("m-b", "b")],
            "routes": [{"id": "m", "candidates": ["m-a", "m-b"], "strategy": "ordered"}],
            "secrets": {"hook": {"env": "HOOK", "hosts": [f"127.0.0.1:{found.tool.port}"]}},
            "egress": {"allowed_hosts": [f"127.0.0.1:{found.tool.port}"]},
        }
        async with observed({"HOOK": SECRET}, **sections) as running:
            streamed = await World(running, found.model, found.tool).ask(found.server_tool())

    end = completed(streamed)
    assert streamed.text == "Wait. Done."
    assert end.route.provider == "b"
    assert (end.route.hop, end.route.total_failover_count) == (1, end.route.failover_count)
    assert end.route.failover_count >= 1
    assert other.exchanges[0].json["messages"][-1]["role"] == "tool"


async def test_a_caller_who_leaves_closes_the_tools_connection_at_once():
    script = once(calls(("c1", "lookup", "{}"), text="Wait. "), answer("Done."))
    async with (
        world(script, lambda _: [Hang()]) as found,
        grpc.aio.insecure_channel(found.running.service.grpc_address) as channel,
    ):
        asked = spec("m", tool_options=ToolOptions(tools=[found.server_tool()]))
        call: Any = CompletionServiceStub(channel).Complete(CompleteRequest(spec=asked))
        async with asyncio.timeout(LIMIT_S):
            async for got in call:
                if got.HasField("server_tool_call"):
                    break
            await until(lambda: bool(found.tool.exchanges), "the tool is called")
            left_s = asyncio.get_running_loop().time()
            call.cancel()
            (exchange,) = found.tool.exchanges
            await exchange.closed.wait()

    assert exchange.closed_at_s is not None
    assert exchange.closed_at_s - left_s < 0.25


async def test_a_tool_that_never_answers_is_given_up_in_time():
    script = once(calls(("c1", "lookup", "{}")), answer("Done."))
    async with world(script, lambda _: [Hang()]) as found:
        tool = found.server_tool()
        tool.webhook.timeout.FromMilliseconds(200)
        streamed = await found.ask(tool)

    assert streamed.text == "Done."
    assert states(streamed)[-1] == ("lookup", FAILED)


async def test_a_long_result_is_cut_and_the_rest_can_be_read():
    text = "".join(f"{number:06d}," for number in range(20_000))

    def script(number: int, exchange: Exchange) -> Turn:
        if number == 0:
            return calls(("c1", "lookup", "{}"))
        if number == 1:
            arguments = {"tool_call_id": "c1", "offset": 70_000, "limit": 14}
            return calls(("c2", "read_result", json.dumps(arguments)))
        return answer("Done.")

    body = text.encode()
    reply = b"HTTP/1.1 200 X\r\ncontent-type: text/plain\r\ncontent-length: %d\r\n\r\n%b"
    async with world(script, lambda _: [reply % (len(body), body)]) as found:
        streamed = await found.ask(found.server_tool())

    assert streamed.text == "Done."
    first = found.told(1)[-1]["content"]
    assert len(first) < 17_000
    assert "read_result" in first
    offered = [t["function"]["name"] for t in found.model.exchanges[1].json["tools"]]
    assert offered == ["lookup", "read_result"]
    assert "read_result" not in str(found.model.exchanges[0].json["tools"])
    assert text[70_000:70_014] in found.told(2)[-1]["content"]


async def test_a_builtin_and_a_registered_tool_run_too():
    registered = {
        "name": "sum",
        "description": "Adds up.",
        "builtin": "calculator",
        "parameters": {},
    }
    script = once(
        calls(
            ("c1", "calculator", '{"expression": "6*7"}'), ("c2", "sum", '{"expression": "1+1"}')
        ),
        answer("Done."),
    )
    async with world(script, tools=[registered]) as found:
        tools = (
            Tool(name="calculator", builtin=BuiltinSource(name="calculator")),
            Tool(name="sum", registered=RegisteredSource()),
        )
        streamed = await found.ask(*tools)

    assert streamed.text == "Done."
    assert [m["content"] for m in found.told(1)[-2:]] == ["42", "2"]
    described = {
        t["function"]["name"]: t["function"] for t in found.model.exchanges[0].json["tools"]
    }
    assert described["sum"]["description"] == "Adds up."
    assert "expression" in described["calculator"]["parameters"]["properties"]


@pytest.mark.parametrize(
    ("tool", "field"),
    [
        (Tool(name="x", registered=RegisteredSource()), "spec.tool_options.tools[0]"),
        (Tool(name="x", builtin=BuiltinSource(name="shell")), "spec.tool_options.tools[0].builtin"),
        (
            Tool(name="x", webhook=WebhookSource(url="https://169.254.169.254/")),
            "spec.tool_options.tools[0].webhook.url",
        ),
        (
            Tool(name="x", webhook=WebhookSource(url="https://a.test/", secret_ref="other")),
            "spec.tool_options.tools[0].webhook.secret_ref",
        ),
        (
            Tool(name="x", webhook=WebhookSource(url="https://a.test/", secret_ref="hook")),
            "spec.tool_options.tools[0].webhook.secret_ref",
        ),
    ],
    ids=["not registered", "no builtin", "private", "no secret", "another host's secret"],
)
async def test_a_tool_that_can_not_be_run_is_refused_by_name(tool, field):
    async with world(once(answer("No."))) as found:
        streamed = await found.ask(tool)

    code, _ = reason_of(streamed.error)
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert [name for name in fields_of(streamed.error) if name.startswith(field)]
    assert not found.model.exchanges


async def test_a_schema_that_refers_elsewhere_is_refused_and_not_fetched():
    async with world(once(answer("No."))) as found:
        tool = found.server_tool()
        tool.parameters_schema_json = json.dumps({"$ref": f"{found.tool.url}/schema.json"})
        streamed = await found.ask(tool)

    assert "spec.tool_options.tools[0].parameters_schema_json" in fields_of(streamed.error)
    assert not found.tool.exchanges


async def test_several_answers_at_once_and_server_tools_do_not_go_together():
    async with world(once(answer("No."))) as found:
        asked = spec("m", tool_options=ToolOptions(tools=[found.server_tool()]))
        asked.sampling.candidate_count = 2
        streamed = await stream(found.running.service, asked)

    assert "spec.sampling.candidate_count" in fields_of(streamed.error)


async def test_over_spekos_api_too_the_gateways_tools_run():
    script = once(
        calls(("c1", "calculator", '{"expression": "6*7"}'), ("c2", "lookup", '{"n": 7}')),
        answer("It is ", "42."),
    )
    registered = {"name": "calculator", "builtin": "calculator"}
    async with world(script, tools=[registered]) as found:
        source = {"kind": "webhook", "url": f"{found.tool.url}/lookup", "secretRef": "hook"}
        body = {
            "messages": [{"role": "user", "content": "hi"}],
            "intent": {"language": "en"},
            "tools": [
                {"name": "calculator", "executionMode": "builtin"},
                {"name": "lookup", "executionMode": "webhook", "source": source},
            ],
        }
        async with httpx.AsyncClient(timeout=LIMIT_S) as http:
            url = f"http://{found.running.service.http_address}/v1/complete"
            response = await http.post(url, json=body)

    events = [json.loads(line[6:]) for line in response.text.splitlines() if line[:6] == "data: "]
    names = [line[7:] for line in response.text.splitlines() if line[:7] == "event: "]
    seen = sorted(
        (event["name"], event["status"]) for event in events if set(event) >= {"name", "status"}
    )
    assert response.status_code == 200
    assert seen == [
        ("calculator", "completed"),
        ("calculator", "started"),
        ("lookup", "completed"),
        ("lookup", "started"),
    ]
    assert events[-1]["text"] == "It is 42."
    assert events[-1]["usage"] == {"promptTokens": 18, "completionTokens": 8}
    assert "toolCalls" not in events[-1]
    assert [event["hop"] for event in events if "hop" in event] == [0, 1]
    assert "tool_call" not in names


@pytest.mark.parametrize(
    "count", [pytest.param(60, id="short"), pytest.param(10_000, id="long", marks=pytest.mark.slow)]
)
async def test_an_effect_whose_reply_is_lost_is_never_doubled(count):
    effects: list[str] = []

    def effect(exchange: Exchange) -> Turn:
        effects.append(exchange.json["data"]["id"])
        return [Reset()] if len(effects) % 2 else [head()[:30], Reset()]

    def script(number: int, exchange: Exchange) -> Turn:
        is_told = exchange.json["messages"][-1]["role"] == "tool"
        return answer("Done.") if is_told else calls(("c1", "charge", "{}"))

    turns = asyncio.Semaphore(20)
    async with world(script, effect) as found:
        tool = found.server_tool("charge")

        async def one() -> tuple[str, str]:
            async with turns:
                streamed = await found.ask(tool)
            return streamed.text, str(streamed.error and streamed.error.details())

        answers = Counter(await asyncio.gather(*(one() for _ in range(count))))

    assert answers == {("Done.", "None"): count}
    assert len(effects) == len(set(effects)) == count
