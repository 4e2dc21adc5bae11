"""Messages and specs without dicts."""

import json
import subprocess
import sys

import pytest

import trunkline
from tests.python_client.events import answer, call_part, said
from trunkline import (
    Client,
    arguments,
    assistant,
    developer,
    document,
    function_tool,
    image,
    json_object,
    json_schema,
    only_tool,
    system,
    text,
    tool_calls,
    tool_result,
    turns,
    user,
)
from trunkline.v1.completion_pb2 import Completion
from trunkline.v1.completion_service_pb2 import CompleteUnaryResponse
from trunkline.v1.completion_spec_pb2 import (
    REASONING_EFFORT_HIGH,
    TOOL_CHOICE_MODE_REQUIRED,
    CompletionSpec,
    JsonObjectFormat,
    JsonSchemaFormat,
    ReasoningOptions,
    ResponseFormat,
    RoutingConstraints,
    SamplingOptions,
    Tool,
    ToolChoice,
    ToolOptions,
)
from trunkline.v1.message_pb2 import (
    ROLE_ASSISTANT,
    ROLE_DEVELOPER,
    ROLE_SYSTEM,
    ROLE_TOOL,
    ROLE_USER,
    Media,
    Message,
    Part,
    ToolCall,
    ToolResult,
)

SCHEMA = {"type": "object", "properties": {"z": {"type": "integer"}, "ä": {}}}


def test_each_role_has_its_constructor():
    call = ToolCall(id="a", name="f", arguments_json="{}")

    assert system("s") == Message(role=ROLE_SYSTEM, parts=[Part(text="s")])
    assert developer("d") == Message(role=ROLE_DEVELOPER, parts=[Part(text="d")])
    assert user("u", "v", name="Ann") == Message(
        role=ROLE_USER, parts=[Part(text="u"), Part(text="v")], name="Ann"
    )
    assert assistant("a", call) == Message(
        role=ROLE_ASSISTANT, parts=[Part(text="a"), Part(tool_call=call)]
    )
    assert tool_result(call, "r", is_error=True) == Message(
        role=ROLE_TOOL,
        parts=[
            Part(
                tool_result=ToolResult(
                    tool_call_id="a", tool_name="f", parts=[Part(text="r")], is_error=True
                )
            )
        ],
    )
    assert tool_result("a", "r").parts[0].tool_result.tool_call_id == "a"


def test_media_are_given_by_address_or_by_bytes():
    by_address = image(url="https://example.com/a.png", detail="low")
    by_bytes = document(data=b"%PDF", mime_type="application/pdf", filename="a.pdf")

    assert by_address == Part(image=Media(url="https://example.com/a.png", detail="low"))
    assert by_bytes == Part(
        document=Media(data=b"%PDF", mime_type="application/pdf", filename="a.pdf")
    )


@pytest.mark.parametrize(
    "media", [{}, {"url": "u", "data": b"d", "mime_type": "m"}, {"data": b"d"}], ids=str
)
def test_media_that_say_too_little_or_too_much_are_refused(media):
    with pytest.raises(ValueError, match=r"url|mime_type"):
        image(**media)


def test_a_schema_keeps_the_order_of_its_keys():
    tool = function_tool("f", "Does.", SCHEMA, strict=True)

    assert tool.parameters_schema_json == (
        '{"type":"object","properties":{"z":{"type":"integer"},"ä":{}}}'
    )
    assert (tool.name, tool.description, tool.strict) == ("f", "Does.", True)


def test_response_formats():
    assert json_object() == ResponseFormat(json_object=JsonObjectFormat())
    wanted = json_schema("n", SCHEMA, description="d")
    assert wanted.json_schema == JsonSchemaFormat(
        name="n",
        description="d",
        schema_json=json.dumps(SCHEMA, ensure_ascii=False, separators=(",", ":")),
        strict=True,
    )


def test_an_answer_is_read_by_choice():
    completion = answer("a", call_part("1", "f", '{"x":1}'), "b", call_part("2", "g", ""))
    completion.choices.add(index=1, message=said("other"))

    assert text(completion) == "ab"
    assert text(completion, 1) == "other"
    assert (text(completion, 2), tool_calls(completion, 2)) == ("", [])
    assert [call.id for call in tool_calls(completion)] == ["1", "2"]
    assert [arguments(call) for call in tool_calls(completion)] == [{"x": 1}, {}]


def test_arguments_that_were_cut_off_are_a_value_error():
    with pytest.raises(ValueError, match="Expecting"):
        arguments(ToolCall(arguments_json='{"x":'))


def test_turns_are_those_of_server_side_tools_and_then_the_answer():
    completion = answer("done")
    completion.transcript.append(assistant(ToolCall(id="a")))

    assert turns(completion) == [assistant(ToolCall(id="a")), said("done")]
    assert turns(Completion()) == []


def test_options_become_a_spec(gateway):
    tool = Tool(name="f")
    gateway.plays([CompleteUnaryResponse()])
    with Client(gateway.target) as client:
        client.complete(
            [user("Hi")],
            model="m",
            system_prompt="s",
            temperature=0.0,
            top_p=None,
            max_output_tokens=5,
            stop=["."],
            tools=[tool],
            tool_choice="required",
            parallel_tool_calls=False,
            response_format=json_object(),
            reasoning_effort="high",
            include_reasoning=True,
            constraints=RoutingConstraints(max_attempts=1),
            labels={"team": "a"},
            metadata_json='{"a":1}',
            mode="fast",
        )

    assert gateway.calls[0].request.spec == CompletionSpec(
        model="m",
        system_prompt="s",
        messages=[user("Hi")],
        sampling=SamplingOptions(temperature=0.0, max_output_tokens=5, stop=["."]),
        tool_options=ToolOptions(
            tools=[tool],
            choice=ToolChoice(mode=TOOL_CHOICE_MODE_REQUIRED),
            parallel_calls=False,
        ),
        response_format=json_object(),
        reasoning=ReasoningOptions(effort=REASONING_EFFORT_HIGH, include=True),
        constraints=RoutingConstraints(max_attempts=1),
        labels={"team": "a"},
        metadata_json='{"a":1}',
        mode="fast",
    )


def test_one_tool_can_be_asked_for(gateway):
    gateway.plays([CompleteUnaryResponse()])
    with Client(gateway.target) as client:
        client.complete("Hi", tool_choice=only_tool("f"))

    assert gateway.calls[0].request.spec.tool_options == ToolOptions(
        choice=ToolChoice(tool_name="f")
    )


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({}, ValueError),
        ({"prompt": "Hi", "spec": CompletionSpec()}, ValueError),
        ({"spec": CompletionSpec(), "model": "m"}, ValueError),
        ({"prompt": "Hi", "tool_choice": "sometimes"}, ValueError),
        ({"prompt": "Hi", "reasoning_effort": "heroic"}, ValueError),
        ({"prompt": "Hi", "temprature": 0}, TypeError),
        ({"prompt": "Hi", "temperature": "hot"}, TypeError),
        ({"prompt": "Hi", "request_id": "short"}, ValueError),
    ],
    ids=str,
)
def test_arguments_that_make_no_request_are_refused_before_anything_is_sent(
    gateway, arguments, error
):
    with Client(gateway.target) as client, pytest.raises(error):
        client.complete(**arguments)

    assert gateway.calls == []


def test_every_public_name_is_there():
    assert {name: getattr(trunkline, name) for name in trunkline.__all__}.keys() <= set(
        dir(trunkline)
    )
    with pytest.raises(AttributeError):
        trunkline.nothing_of_this_name  # noqa: B018


def test_the_contract_alone_loads_no_grpc():
    code = "import sys, trunkline.v1.completion_spec_pb2 as _; print('grpc' in sys.modules)"

    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert ran.stdout == "False\n"
