"""Whose tool it is, what it takes, and what of a call is anybody else's: through the whole service."""

import asyncio
import json
from collections.abc import Sequence
from typing import Any

import grpc
import pytest

from tests.edges.errors import fields_of
from tests.edges.observed import LIMIT_S, spec, stream
from tests.edges.test_server_tools import (
    FAILED,
    STARTED,
    SUCCEEDED,
    Turn,
    calls,
    completed,
    inline,
    once,
    states,
    world,
)
from tests.support.upstream import Exchange, answer, upstream, whole
from trunkline.v1.completion_pb2 import FinishReason
from trunkline.v1.completion_service_pb2 import StreamOptions
from trunkline.v1.completion_spec_pb2 import (
    CompletionSpec,
    RegisteredSource,
    Tool,
    ToolOptions,
    WebhookSource,
)
from trunkline.v1.message_pb2 import Message, Part, Role, ToolResult

pytestmark = pytest.mark.once

LONG = "".join(f"{number:06d}," for number in range(20_000))


def registered(port: int, **more: Any) -> list[dict[str, Any]]:
    """The operator's tool: it takes `small`, up to 9."""
    parameters = {
        "type": "object",
        "properties": {"small": {"type": "integer", "maximum": 9}},
        "required": ["small"],
    }
    tool = {"name": "lookup", "description": "Looks up.", "url": f"http://127.0.0.1:{port}/"}
    return [{**tool, "parameters": parameters, **more}]


async def test_a_request_cannot_lift_what_the_operator_demands_of_a_registered_tools_arguments():
    script = once(
        calls(("c1", "lookup", '{"small": 10}')),
        calls(("c2", "lookup", '{"small": 9}')),
        answer("Done."),
    )
    reached: list[Any] = []

    def reach(exchange: Exchange) -> Turn:
        reached.append(exchange.json["data"]["arguments"])
        return whole({})

    async with upstream(reach) as theirs:
        sections: dict[str, Any] = {
            "tools": registered(theirs.port),
            "egress": {"allowed_hosts": [f"127.0.0.1:{theirs.port}"]},
        }
        async with world(script, **sections) as found:
            wide = Tool(name="lookup", parameters_schema_json="{}", registered=RegisteredSource())
            streamed = await found.ask(wide)

    assert streamed.text == "Done."
    assert reached == [{"small": 9}]
    assert found.told(1)[-1]["content"] == (
        "This call was not made: at /small: 10 is greater than the maximum of 9"
    )


async def test_a_schema_that_takes_for_ever_is_refused_and_holds_nobody_up():
    schemas: dict[str, Any] = {
        f"s{n}": {"anyOf": [{"$ref": f"#/$defs/s{n + 1}"}] * 2} for n in range(40)
    }
    schema = {"$defs": {**schemas, "s40": {"type": "string"}}, "$ref": "#/$defs/s0"}
    async with world(once(calls(("c1", "lookup", "{}")), answer("Done."))) as found:
        tool = found.server_tool()
        tool.parameters_schema_json = json.dumps(schema)
        async with asyncio.timeout(LIMIT_S):
            streamed = await found.ask(tool)

    assert fields_of(streamed.error) == ["spec.tool_options.tools[0].parameters_schema_json"]
    assert not found.model.exchanges


async def test_arguments_that_take_for_ever_to_check_are_told_to_the_model():
    tree = {"properties": {"a": {"anyOf": [{"$ref": "#"}, {"$ref": "#"}]}}}
    deep: Any = 1
    for _ in range(40):
        deep = {"a": deep}
    async with world(once(calls(("c1", "lookup", json.dumps(deep))), answer("Done."))) as found:
        tool = found.server_tool()
        tool.parameters_schema_json = json.dumps(tree)
        async with asyncio.timeout(LIMIT_S):
            streamed = await found.ask(tool)

    assert streamed.text == "Done."
    assert "too many to be checked" in found.told(1)[-1]["content"]
    assert not found.tool.exchanges


@pytest.mark.parametrize("arguments", ['{"n": 7]}', "[7]", '{"n": "\\ud800"}'])
async def test_a_call_that_is_no_json_is_told_to_the_model_which_may_do_better(arguments):
    script = once(
        calls(("c1", "lookup", arguments)), calls(("c2", "lookup", '{"n": 7}')), answer("Done.")
    )
    async with world(script) as found:
        streamed = await found.ask(found.server_tool())

    assert streamed.text == "Done."
    assert states(streamed) == [
        ("lookup", STARTED),
        ("lookup", FAILED),
        ("lookup", STARTED),
        ("lookup", SUCCEEDED),
    ]
    said, told = found.told(1)[-2:]
    assert said["tool_calls"][0]["function"] == {"name": "lookup", "arguments": "{}"}
    assert told["content"].startswith("This call was not made: the arguments are no JSON")
    assert [call.json["data"]["arguments"] for call in found.tool.exchanges] == [{"n": 7}]
    assert completed(streamed).choices[0].finish_reason == FinishReason.FINISH_REASON_STOP


async def test_a_call_that_was_cut_off_is_not_made():
    script = once(calls(("c1", "lookup", '{"n": 7'), reason="length"))
    async with world(script) as found:
        streamed = await found.ask(found.server_tool())

    assert completed(streamed).choices[0].finish_reason == FinishReason.FINISH_REASON_LENGTH
    assert "tool_call_delta" not in streamed.kinds
    assert not found.tool.exchanges


async def test_long_results_of_calls_that_are_numbered_anew_are_told_apart():
    def script(number: int, exchange: Exchange) -> Turn:
        if number < 2:
            return calls(("call_0", "lookup", json.dumps({"n": number})))
        if number == 2:
            ids = [m["tool_call_id"] for m in exchange.json["messages"] if m["role"] == "tool"]
            assert len(set(ids)) == 2
            looks = [
                (
                    f"r{n}",
                    "read_result",
                    json.dumps({"tool_call_id": key, "offset": 20, "limit": 4}),
                )
                for n, key in enumerate(ids)
            ]
            return calls(*looks)
        return answer("Done.")

    def say(exchange: Exchange) -> Turn:
        number = exchange.json["data"]["arguments"]["n"]
        return whole({"text": f"{number}" * 40_000})

    async with world(script, say) as found:
        streamed = await found.ask(found.server_tool())
        ids = {call.json["data"]["id"] for call in found.tool.exchanges}

    assert streamed.text == "Done."
    assert [m["content"].partition("\n")[2] for m in found.told(3)[-2:]] == ["0000", "1111"]
    assert len(ids) == 2


async def test_a_callers_own_read_result_is_not_said_to_have_what_the_gateway_cut():
    body = LONG.encode()
    reply = b"HTTP/1.1 200 X\r\ncontent-type: text/plain\r\ncontent-length: %d\r\n\r\n%b"
    script = once(calls(("c1", "lookup", "{}")), answer("Done."))
    async with world(script, lambda _: [reply % (len(body), body)]) as found:
        streamed = await found.ask(found.server_tool(), inline("read_result"))

    told = found.told(1)[-1]["content"]
    assert streamed.text == "Done."
    assert "characters left out]" in told
    assert "read_result" not in told


async def test_a_callers_tool_is_never_run_here_though_one_of_its_name_is_registered():
    reached: list[Exchange] = []

    def reach(exchange: Exchange) -> Turn:
        reached.append(exchange)
        return whole({})

    script = once(calls(("c1", "lookup", '{"small": 1}')))
    async with world(script, reach) as probe:
        sections: dict[str, Any] = {
            "tools": registered(probe.tool.port),
            "egress": {"allowed_hosts": [f"127.0.0.1:{probe.tool.port}"]},
        }
        async with world(script, **sections) as found:
            other = Tool(
                name="other", webhook=WebhookSource(url=f"http://127.0.0.1:{probe.tool.port}/")
            )
            streamed = await found.ask(inline("lookup"), other)

    end = completed(streamed)
    assert end.choices[0].finish_reason == FinishReason.FINISH_REASON_TOOL_CALLS
    assert [p.tool_call.name for p in end.choices[0].message.parts] == ["lookup"]
    assert not reached
    assert not end.server_tool_calls


async def test_a_transcript_that_the_caller_sends_itself_is_not_put_in_again():
    mixed = calls(("c1", "lookup", "{}"), ("c2", "mine", "{}"))
    async with world(once(mixed, answer("Done."))) as found:
        tools = [found.server_tool(), inline()]
        end = completed(await found.ask(*tools))
        again = CompletionSpec(
            model="m",
            messages=[
                Message(role=Role.ROLE_USER, parts=[Part(text="hi")]),
                *end.transcript,
                end.choices[0].message,
                _result("c2", "mine!"),
            ],
            tool_options=ToolOptions(tools=tools),
        )
        second = await stream(found.running.service, again)

    assert second.text == "Done."
    assert [m["role"] for m in found.told(1)] == ["user", "assistant", "tool", "assistant", "tool"]


async def test_neither_secrets_nor_content_are_told_to_the_caller_or_the_log():
    canaries = ("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "canary-argument", "canary-reply")
    turns: Sequence[Turn] = (
        calls(("c1", "lookup", '{"n": "canary-argument"}')),
        calls(("c2", "lookup", "{}")),
        answer("Done."),
    )
    async with world(once(*turns), lambda _: whole({"why": "canary-reply"}, 500)) as found:
        streamed = await found.ask(found.server_tool())
        await found.running.request()
        log = json.dumps(found.running.lines, default=str)

    told = " ".join(str(event) for event in streamed.events)
    assert streamed.text == "Done."
    assert [c for c in canaries if c in log] == []
    # What a model wrote may be quoted to whoever asked it; what the tool's server said, and its secret, may not.
    assert [c for c in canaries if c in told] in ([], ["canary-argument"])


async def test_a_tool_of_two_sources_at_once_and_two_of_one_name_are_refused():
    async with world(once(answer("No."))) as found:
        streamed = await found.ask(found.server_tool(), inline("lookup"))

    assert streamed.error is not None
    assert streamed.error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert not found.model.exchanges


def _result(call_id: str, text: str) -> Message:
    result = ToolResult(tool_call_id=call_id, parts=[Part(text=text)])
    return Message(role=Role.ROLE_TOOL, parts=[Part(tool_result=result)])


async def test_tools_run_the_same_with_arguments_buffered_and_heartbeats():
    options = StreamOptions(buffer_tool_arguments=True)
    options.heartbeat_interval.FromMilliseconds(100)
    async with world(once(calls(("c1", "lookup", "{}")), answer("Done."))) as found:
        asked = spec("m", tool_options=ToolOptions(tools=[found.server_tool()]))
        streamed = await stream(found.running.service, asked, options)

    assert streamed.text == "Done."
    assert states(streamed) == [("lookup", STARTED), ("lookup", SUCCEEDED)]
