import base64
import json
from pathlib import Path
from typing import Any

import pytest

from trunkline.v1.completion_event_pb2 import (
    ChoiceFinished,
    CompleteResponse,
    PartCompleted,
    ReasoningDelta,
    RefusalDelta,
    TextDelta,
    ToolCallDelta,
)
from trunkline.v1.completion_pb2 import FinishReason, Usage
from trunkline.v1.completion_spec_pb2 import (
    CompletionSpec,
    JsonObjectFormat,
    JsonSchemaFormat,
    ReasoningEffort,
    ReasoningOptions,
    ResponseFormat,
    SamplingOptions,
    Tool,
    ToolChoice,
    ToolChoiceMode,
    ToolOptions,
)
from trunkline.v1.message_pb2 import (
    Media,
    Message,
    Part,
    ProviderState,
    Reasoning,
    Role,
    ToolCall,
    ToolResult,
)
from trunkline_server.core.candidate import Candidate, Capability
from trunkline_server.core.errors import UpstreamError
from trunkline_server.core.failure import CODES, Failure
from trunkline_server.core.ports import AttemptFacts, Prompt, Unencodable
from trunkline_server.providers.anthropic import AnthropicDecoder, AnthropicTranslator

RECORDINGS = Path(__file__).parents[2] / "recordings" / "anthropic"
TRANSLATOR = AnthropicTranslator()
# One model of each way to think.
BY_BUDGET = "claude-sonnet-4-5"
BOTH_WAYS = "claude-opus-4-6"
WHEN_ASKED = "claude-opus-4-8"
UNLESS_TOLD = "claude-opus-5"
BETWEEN_TOOLS = "claude-sonnet-5-5"
ALWAYS = "claude-opus-5-5"
NEVER = "claude-3-haiku-20240307"
PNG = b"\x89PNG"
THOUGHT = '{"type":"thinking", "thinking":"Hm \\u2026", "signature":"c2ln"}'
Effort = ReasoningEffort


def candidate(model: str = BY_BUDGET, max_output_tokens: int | None = None) -> Candidate:
    return Candidate(
        provider="anthropic",
        id=model,
        model=model,
        family="anthropic",
        max_output_tokens=max_output_tokens,
    )


def user(*parts: Part | str, name: str = "") -> Message:
    return message(Role.ROLE_USER, parts, name)


def assistant(*parts: Part | str, name: str = "") -> Message:
    return message(Role.ROLE_ASSISTANT, parts, name)


def results(*parts: Part | str) -> Message:
    return message(Role.ROLE_TOOL, parts)


def message(role: Role.ValueType, parts: tuple[Part | str, ...], name: str = "") -> Message:
    made = [Part(text=part) if isinstance(part, str) else part for part in parts]
    return Message(role=role, parts=made, name=name)


def call(call_id: str = "toolu_1", name: str = "look", arguments: str = '{"at": "sky"}') -> Part:
    return Part(tool_call=ToolCall(id=call_id, name=name, arguments_json=arguments))


def result(call_id: str, *parts: Part | str, is_error: bool = False) -> Part:
    made = [Part(text=part) if isinstance(part, str) else part for part in parts]
    return Part(tool_result=ToolResult(tool_call_id=call_id, parts=made, is_error=is_error))


def thought(data: str | bytes = THOUGHT, provider: str = "anthropic") -> Part:
    data = data.encode() if isinstance(data, str) else data
    state = ProviderState(provider=provider, model="any", data=data)
    return Part(reasoning=Reasoning(text="Hm"), provider_state=state)


def spec(*messages: Message, **options: Any) -> CompletionSpec:
    return CompletionSpec(messages=messages or (user("Hi"),), **options)


def encode(
    asked: CompletionSpec, model: str = BY_BUDGET, *, stream: bool = False, most: int | None = None
) -> tuple[dict[str, Any], list[tuple[str, str]]]:
    """The body, and code and field of each warning."""
    request = TRANSLATOR.encode(candidate(model, most), Prompt(asked, stream))
    assert request.path == "/messages"
    warned = [(warning.code, warning.field) for warning in request.warnings]
    return json.loads(request.body), warned


def messages_of(*messages: Message) -> list[dict[str, Any]]:
    body, warned = encode(spec(*messages))
    assert warned == []
    written: list[dict[str, Any]] = body["messages"]
    return written


def said(text: str) -> dict[str, Any]:
    return {"type": "text", "text": text}


def read(name: str) -> bytes:
    return (RECORDINGS / name).read_bytes()


def decoder(
    *, include: bool = True, facts: AttemptFacts | None = None, model: str = WHEN_ASKED
) -> AnthropicDecoder:
    asked = Prompt(spec(reasoning=ReasoningOptions(include=include)), stream=True)
    ids = iter(f"call_{number}" for number in range(100))
    return TRANSLATOR.decoder(candidate(model), asked, facts or AttemptFacts(), lambda: next(ids))


def fed(
    data: bytes, size: int = 4096, *, include: bool = True, facts: AttemptFacts | None = None
) -> list[CompleteResponse]:
    reader = decoder(include=include, facts=facts)
    events = [
        event
        for start in range(0, len(data), size)
        for event in reader.feed(data[start : start + size])
    ]
    return events + reader.finish()


def stream(*events: dict[str, Any]) -> bytes:
    lines = [f"event: {event['type']}\ndata: {json.dumps(event)}\n\n" for event in events]
    return "".join(lines).encode()


def began(index: int, **block: Any) -> dict[str, Any]:
    return {"type": "content_block_start", "index": index, "content_block": block}


def delta(index: int, **delta: Any) -> dict[str, Any]:
    return {"type": "content_block_delta", "index": index, "delta": delta}


def stopped(index: int) -> dict[str, Any]:
    return {"type": "content_block_stop", "index": index}


def ended(reason: str = "end_turn", **usage: Any) -> dict[str, Any]:
    return {"type": "message_delta", "delta": {"stop_reason": reason}, "usage": usage}


def text(index: int, words: str) -> CompleteResponse:
    return CompleteResponse(text_delta=TextDelta(part_index=index, text=words))


def reasoning(index: int, words: str) -> CompleteResponse:
    return CompleteResponse(reasoning_delta=ReasoningDelta(part_index=index, text=words))


def reasoned(index: int, words: str, state: str, *, redacted: bool = False) -> CompleteResponse:
    part = Part(
        reasoning=Reasoning(text=words, redacted=redacted),
        provider_state=ProviderState(provider="anthropic", model=WHEN_ASKED, data=state.encode()),
    )
    return CompleteResponse(part_completed=PartCompleted(part_index=index, part=part))


def calls(index: int, number: int, **fields: str) -> CompleteResponse:
    made = ToolCallDelta(part_index=index, tool_call_index=number, **fields)  # type: ignore[arg-type]
    return CompleteResponse(tool_call_delta=made)


def called(index: int, call_id: str, name: str, arguments: str) -> CompleteResponse:
    part = Part(tool_call=ToolCall(id=call_id, name=name, arguments_json=arguments))
    return CompleteResponse(part_completed=PartCompleted(part_index=index, part=part))


def finished(reason: FinishReason.ValueType, native: str, sequence: str = "") -> CompleteResponse:
    end = ChoiceFinished(finish_reason=reason, native_finish_reason=native, stop_sequence=sequence)
    return CompleteResponse(choice_finished=end)


STOP = finished(FinishReason.FINISH_REASON_STOP, "end_turn")
TOOLS = finished(FinishReason.FINISH_REASON_TOOL_CALLS, "tool_use")


# Requests


def test_a_plain_request_holds_the_model_a_limit_and_the_messages():
    body, warned = encode(spec(user("Hi")))

    assert body == {
        "model": BY_BUDGET,
        "max_tokens": 4096,
        "messages": [{"role": "user", "content": [said("Hi")]}],
    }
    assert warned == []


def test_a_stream_is_asked_for_only_when_wanted():
    assert encode(spec(), stream=True)[0]["stream"] is True
    assert "stream" not in encode(spec())[0]


def test_system_text_is_lifted_out_of_the_messages_in_order():
    asked = spec(
        message(Role.ROLE_SYSTEM, ("Be kind.",)),
        user("Hi"),
        message(Role.ROLE_DEVELOPER, (" ", "Be brief.")),
        user("There?"),
        system_prompt="Be true.",
    )

    body, _ = encode(asked)

    assert body["system"] == [said("Be true."), said("Be kind."), said(" Be brief.")]
    assert body["messages"] == [{"role": "user", "content": [said("Hi"), said("There?")]}]


def test_one_system_text_stays_a_string():
    assert encode(spec(system_prompt="Be kind."))[0]["system"] == "Be kind."


def test_instructions_alone_are_asked_as_a_question():
    body, _ = encode(spec(message(Role.ROLE_SYSTEM, ("Say hi.",)), system_prompt="Be kind."))

    assert body["system"] == "Be kind."
    assert body["messages"] == [{"role": "user", "content": [said("Say hi.")]}]


def test_neighbours_of_one_role_become_one_message_and_blank_text_is_left_out():
    written = messages_of(
        user("a"), user(" \n", "b"), assistant("c"), user(""), assistant("d"), user("e")
    )

    assert written == [
        {"role": "user", "content": [said("a"), said("b")]},
        {"role": "assistant", "content": [said("c"), said("d")]},
        {"role": "user", "content": [said("e")]},
    ]


def test_blank_text_alone_cannot_be_sent():
    with pytest.raises(Unencodable) as raised:
        encode(spec(user("  ")))

    assert raised.value.field == "spec.messages"


def test_a_conversation_that_the_assistant_opens_gets_a_first_turn():
    written = messages_of(assistant("Welcome!"), user("Hi"))

    assert [turn["role"] for turn in written] == ["user", "assistant", "user"]


def test_an_answer_to_be_continued_does_not_end_in_white_space():
    written = messages_of(user("Count."), assistant("One, two, "))

    assert written[-1] == {"role": "assistant", "content": [said("One, two,")]}


def test_names_are_folded_into_the_text():
    image = Part(image=Media(file_id="file_1"))

    written = messages_of(user("Hi", name="Ann"), assistant("Ho", name="Bo"), user(image, name="C"))

    assert written == [
        {"role": "user", "content": [said("Ann: Hi")]},
        {"role": "assistant", "content": [said("Bo: Ho")]},
        {
            "role": "user",
            "content": [
                said("C:"),
                {"type": "image", "source": {"type": "file", "file_id": "file_1"}},
            ],
        },
    ]


@pytest.mark.parametrize(
    ("image", "source"),
    [
        (
            Media(data=PNG, mime_type="image/png"),
            {
                "type": "base64",
                "media_type": "image/png",
                "data": base64.b64encode(PNG).decode(),
            },
        ),
        (
            Media(data=PNG, mime_type="Image/JPG; q=1"),
            {
                "type": "base64",
                "media_type": "image/jpeg",
                "data": base64.b64encode(PNG).decode(),
            },
        ),
        (Media(url="https://a.test/b.png"), {"type": "url", "url": "https://a.test/b.png"}),
        (Media(file_id="file_1", detail="auto"), {"type": "file", "file_id": "file_1"}),
    ],
    ids=["data", "a type by another name", "address", "file"],
)
def test_an_image_is_sent_as(image, source):
    written = messages_of(user(Part(image=image), "What is it?"))

    assert written[0]["content"] == [{"type": "image", "source": source}, said("What is it?")]


@pytest.mark.parametrize(
    ("document", "block"),
    [
        (
            Media(data=b"%PDF", mime_type="application/pdf", filename="a.pdf"),
            {
                "type": "document",
                "source": {"type": "base64", "media_type": "application/pdf", "data": "JVBERg=="},
                "title": "a.pdf",
            },
        ),
        (
            Media(data="Grüße".encode(), mime_type="text/markdown; charset=utf-8"),
            {
                "type": "document",
                "source": {"type": "text", "media_type": "text/plain", "data": "Grüße"},
            },
        ),
        (
            Media(url="https://a.test/b.pdf"),
            {"type": "document", "source": {"type": "url", "url": "https://a.test/b.pdf"}},
        ),
        (
            Media(file_id="file_1", mime_type="text/csv"),
            {"type": "document", "source": {"type": "file", "file_id": "file_1"}},
        ),
    ],
    ids=["PDF", "text", "address", "file"],
)
def test_a_document_is_sent_as(document, block):
    assert messages_of(user(Part(document=document)))[0]["content"] == [block]


@pytest.mark.parametrize(
    ("part", "field"),
    [
        (Part(audio=Media(data=b"a", mime_type="audio/wav")), "spec.messages[].parts[].audio"),
        (Part(video=Media(url="https://a.test/b")), "spec.messages[].parts[].video"),
        (
            Part(image=Media(data=b"a", mime_type="image/bmp")),
            "spec.messages[].parts[].image.mime_type",
        ),
        (Part(image=Media(url="gs://a/b")), "spec.messages[].parts[].image.url"),
        (
            Part(document=Media(data=b"a", mime_type="application/zip")),
            "spec.messages[].parts[].document.mime_type",
        ),
        (
            Part(document=Media(data=b"\xff", mime_type="text/plain")),
            "spec.messages[].parts[].document.data",
        ),
        (
            Part(document=Media(url="https://a.test/b", mime_type="text/csv")),
            "spec.messages[].parts[].document.url",
        ),
        (Part(refusal="No."), "spec.messages[].parts[].refusal"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_the_dialect_has_no_words_for_is_refused_by_name(part, field):
    with pytest.raises(Unencodable) as raised:
        encode(spec(user(part)))

    assert raised.value.field == field


def test_image_detail_is_dropped_with_a_warning():
    image = Part(image=Media(file_id="file_1", detail="high"))

    _, warned = encode(spec(user(image)))

    assert warned == [("PARAMETER_DROPPED", "spec.messages[].parts[].image.detail")]


# Tools

WEATHER = Tool(
    name="weather",
    description="Tells the weather.",
    parameters_schema_json='{"type": "object", "properties": {"city": {"type": "string"}}}',
)
NOW = Tool(name="now")
WRITTEN_WEATHER = {
    "name": "weather",
    "description": "Tells the weather.",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}},
}
WRITTEN_NOW = {"name": "now", "input_schema": {"type": "object", "properties": {}}}


@pytest.mark.parametrize(
    ("choice", "parallel", "written"),
    [
        (ToolChoice(), None, None),
        (ToolChoice(mode=ToolChoiceMode.TOOL_CHOICE_MODE_AUTO), None, {"type": "auto"}),
        (ToolChoice(mode=ToolChoiceMode.TOOL_CHOICE_MODE_REQUIRED), True, {"type": "any"}),
        (ToolChoice(mode=ToolChoiceMode.TOOL_CHOICE_MODE_NONE), False, {"type": "none"}),
        (ToolChoice(tool_name="now"), None, {"type": "tool", "name": "now"}),
        (ToolChoice(), False, {"type": "auto", "disable_parallel_tool_use": True}),
        (
            ToolChoice(tool_name="now"),
            False,
            {"type": "tool", "name": "now", "disable_parallel_tool_use": True},
        ),
    ],
    ids=["unsaid", "auto", "required", "none", "named", "one at a time", "named one at a time"],
)
def test_tool_choice_is_written_as(choice, parallel, written):
    options = ToolOptions(tools=[WEATHER, NOW], choice=choice, parallel_calls=parallel)

    body, warned = encode(spec(tool_options=options))

    assert body["tools"] == [WRITTEN_WEATHER, WRITTEN_NOW]
    assert body.get("tool_choice") == written
    assert warned == []


def test_allowed_tools_are_the_only_ones_offered():
    choice = ToolChoice(mode=ToolChoiceMode.TOOL_CHOICE_MODE_REQUIRED, allowed_tool_names=["now"])

    body, _ = encode(spec(tool_options=ToolOptions(tools=[WEATHER, NOW], choice=choice)))

    assert (body["tools"], body["tool_choice"]) == ([WRITTEN_NOW], {"type": "any"})


def test_a_model_that_cannot_be_forced_to_call_is_asked_with_a_warning():
    choice = ToolChoice(tool_name="now")

    body, warned = encode(spec(tool_options=ToolOptions(tools=[NOW], choice=choice)), ALWAYS)

    assert body["tool_choice"] == {"type": "auto"}
    assert warned == [("PARAMETER_DROPPED", "spec.tool_options.choice")]


def test_a_schema_without_a_type_is_said_to_be_an_objects():
    tool = Tool(name="a", parameters_schema_json='{"properties":{"b":{}}}')

    body, _ = encode(spec(tool_options=ToolOptions(tools=[tool])))

    assert body["tools"][0]["input_schema"] == {"type": "object", "properties": {"b": {}}}


def test_a_strict_tool_has_its_objects_closed():
    schema = '{"type":"object","properties":{"a":{"type":"integer","minimum":1}}}'
    tool = Tool(name="a", parameters_schema_json=schema, strict=True)

    body, _ = encode(spec(tool_options=ToolOptions(tools=[tool])))

    assert body["tools"] == [
        {
            "name": "a",
            "strict": True,
            "input_schema": {
                "type": "object",
                "properties": {"a": {"type": "integer"}},
                "additionalProperties": False,
            },
        }
    ]


def test_results_of_a_turn_stand_in_one_message_before_all_else():
    picture = Part(image=Media(data=PNG, mime_type="image/png"))

    written = messages_of(
        user("Look."),
        assistant("Looking.", call("toolu_1"), call("toolu_2", arguments="")),
        user("Hurry!"),
        results(result("toolu_1", "blue", picture)),
        results(result("toolu_2", "too dark", is_error=True), "and?"),
    )

    assert written == [
        {"role": "user", "content": [said("Look.")]},
        {
            "role": "assistant",
            "content": [
                said("Looking."),
                {"type": "tool_use", "id": "toolu_1", "name": "look", "input": {"at": "sky"}},
                {"type": "tool_use", "id": "toolu_2", "name": "look", "input": {}},
            ],
        },
        {
            "role": "user",
            "content": [
                {
                    "type": "tool_result",
                    "tool_use_id": "toolu_1",
                    "content": [
                        said("blue"),
                        {
                            "type": "image",
                            "source": {
                                "type": "base64",
                                "media_type": "image/png",
                                "data": base64.b64encode(PNG).decode(),
                            },
                        },
                    ],
                },
                {
                    "type": "tool_result",
                    "tool_use_id": "toolu_2",
                    "content": [said("too dark")],
                    "is_error": True,
                },
                said("Hurry!"),
                said("and?"),
            ],
        },
    ]


def test_a_blank_result_is_sent_without_content():
    body, _ = encode(spec(user("a"), assistant(call()), results(result("toolu_1", ""))))

    assert body["messages"][2]["content"] == [{"type": "tool_result", "tool_use_id": "toolu_1"}]


def test_a_history_with_calls_declares_its_tools_even_when_none_is_offered():
    asked = spec(user("a"), assistant(call()), results(result("toolu_1", "b")))

    body, warned = encode(asked)

    assert body["tools"] == [{"name": "look", "input_schema": {"type": "object", "properties": {}}}]
    assert body["tool_choice"] == {"type": "none"}
    assert warned == []


@pytest.mark.parametrize("foreign", ["call.1/ü", "x" * 65, "functions.look:0"])
def test_foreign_call_ids_become_ones_that_the_provider_takes(foreign):
    asked = spec(user("a"), assistant(call(foreign)), results(result(foreign, "b")))

    body, _ = encode(asked)

    made = body["messages"][1]["content"][0]["id"]
    assert made.startswith("toolu_")
    assert made.isascii()
    assert len(made) == 30
    assert body["messages"][2]["content"][0]["tool_use_id"] == made


def test_arguments_that_are_no_object_are_wrapped():
    asked = spec(user("a"), assistant(call(arguments='{"a": ')), results(result("toolu_1", "b")))

    body, _ = encode(asked)

    assert body["messages"][1]["content"][0]["input"] == {"arguments": '{"a": '}


# Reasoning


def reason(effort: Effort.ValueType = Effort.REASONING_EFFORT_UNSPECIFIED, **more: Any) -> Any:
    return ReasoningOptions(effort=effort, **more)


def thinking_of(body: dict[str, Any]) -> tuple[Any, Any, int]:
    return body.get("thinking"), body.get("output_config"), body["max_tokens"]


@pytest.mark.parametrize(
    ("model", "asked", "written"),
    [
        (BY_BUDGET, reason(), (None, None, 4096)),
        (UNLESS_TOLD, reason(), (None, None, 16384)),
        (WHEN_ASKED, reason(include=True), (None, None, 4096)),
        (
            ALWAYS,
            reason(include=True),
            ({"type": "adaptive", "display": "summarized"}, None, 16384),
        ),
        (
            BY_BUDGET,
            reason(Effort.REASONING_EFFORT_MEDIUM),
            ({"type": "enabled", "budget_tokens": 8192}, None, 12288),
        ),
        (
            BY_BUDGET,
            reason(budget_tokens=2000),
            ({"type": "enabled", "budget_tokens": 2000}, None, 6096),
        ),
        (
            "claude-opus-4-5",
            reason(Effort.REASONING_EFFORT_LOW),
            ({"type": "enabled", "budget_tokens": 2048}, {"effort": "low"}, 6144),
        ),
        (
            BOTH_WAYS,
            reason(Effort.REASONING_EFFORT_MAX),
            ({"type": "adaptive"}, {"effort": "max"}, 16384),
        ),
        (
            BOTH_WAYS,
            reason(Effort.REASONING_EFFORT_LOW, budget_tokens=5000),
            ({"type": "enabled", "budget_tokens": 5000}, {"effort": "low"}, 9096),
        ),
        (
            WHEN_ASKED,
            reason(Effort.REASONING_EFFORT_XHIGH),
            ({"type": "adaptive"}, {"effort": "xhigh"}, 16384),
        ),
        (BY_BUDGET, reason(Effort.REASONING_EFFORT_NONE), ({"type": "disabled"}, None, 4096)),
        (UNLESS_TOLD, reason(budget_tokens=0), ({"type": "disabled"}, None, 4096)),
        (
            BETWEEN_TOOLS,
            reason(Effort.REASONING_EFFORT_NONE),
            ({"type": "between_tools"}, None, 4096),
        ),
        (NEVER, reason(Effort.REASONING_EFFORT_NONE), (None, None, 4096)),
        (
            "kimi-k3",
            reason(Effort.REASONING_EFFORT_MINIMAL),
            ({"type": "enabled", "budget_tokens": 1024}, None, 5120),
        ),
    ],
)
def test_a_wish_for_reasoning_is_put_as_the_model_takes_it(model, asked, written):
    body, warned = encode(spec(reasoning=asked), model)

    assert thinking_of(body) == written
    assert warned == []


@pytest.mark.parametrize(
    ("model", "asked", "written", "warning"),
    [
        (
            ALWAYS,
            reason(Effort.REASONING_EFFORT_NONE),
            (None, {"effort": "low"}, 16384),
            ("VALUE_CLAMPED", "spec.reasoning.effort"),
        ),
        (
            WHEN_ASKED,
            reason(Effort.REASONING_EFFORT_MINIMAL),
            ({"type": "adaptive"}, {"effort": "low"}, 16384),
            ("VALUE_CLAMPED", "spec.reasoning.effort"),
        ),
        (
            BOTH_WAYS,
            reason(Effort.REASONING_EFFORT_XHIGH),
            ({"type": "adaptive"}, {"effort": "high"}, 16384),
            ("VALUE_CLAMPED", "spec.reasoning.effort"),
        ),
        (
            WHEN_ASKED,
            reason(budget_tokens=3000),
            ({"type": "adaptive"}, None, 16384),
            ("PARAMETER_DROPPED", "spec.reasoning.budget_tokens"),
        ),
        (
            BY_BUDGET,
            reason(budget_tokens=10),
            ({"type": "enabled", "budget_tokens": 1024}, None, 5120),
            ("VALUE_CLAMPED", "spec.reasoning.budget_tokens"),
        ),
        (
            NEVER,
            reason(Effort.REASONING_EFFORT_HIGH),
            (None, None, 4096),
            ("PARAMETER_DROPPED", "spec.reasoning.effort"),
        ),
        (
            "claude-next",
            reason(Effort.REASONING_EFFORT_NONE),
            (None, {"effort": "low"}, 16384),
            ("VALUE_CLAMPED", "spec.reasoning.effort"),
        ),
    ],
)
def test_what_a_model_takes_otherwise_is_said(model, asked, written, warning):
    body, warned = encode(spec(reasoning=asked), model)

    assert thinking_of(body) == written
    assert warned == [warning]


@pytest.mark.parametrize(
    ("limit", "asked", "written"),
    [
        (8000, reason(Effort.REASONING_EFFORT_HIGH), {"type": "enabled", "budget_tokens": 4000}),
        (1500, reason(Effort.REASONING_EFFORT_HIGH), {"type": "enabled", "budget_tokens": 1024}),
        (1024, reason(Effort.REASONING_EFFORT_HIGH), None),
        (3000, reason(budget_tokens=4000), {"type": "enabled", "budget_tokens": 2999}),
    ],
)
def test_a_thinking_budget_stays_below_the_limit_of_the_answer(limit, asked, written):
    sampling = SamplingOptions(max_output_tokens=limit)

    body, _ = encode(spec(reasoning=asked, sampling=sampling))

    assert (body.get("thinking"), body["max_tokens"]) == (written, limit)


def test_a_forced_call_wins_over_thinking_by_budget():
    choice = ToolChoice(mode=ToolChoiceMode.TOOL_CHOICE_MODE_REQUIRED)
    asked = spec(
        tool_options=ToolOptions(tools=[NOW], choice=choice),
        reasoning=reason(Effort.REASONING_EFFORT_LOW),
    )

    body, warned = encode(asked)

    assert (body["tool_choice"], body.get("thinking")) == ({"type": "any"}, None)
    assert warned == [("PARAMETER_DROPPED", "spec.reasoning.effort")]
    assert encode(asked, WHEN_ASKED)[1] == []


def test_thinking_goes_back_byte_for_byte_and_in_its_place():
    redacted = '{ "type":"redacted_thinking","data":"b3BhcXVl" }'
    asked = spec(
        user("Look."),
        assistant(thought(), thought(redacted), "Looking.", call()),
        results(result("toolu_1", "blue")),
        reasoning=reason(Effort.REASONING_EFFORT_LOW),
    )

    request = TRANSLATOR.encode(candidate(), Prompt(asked, stream=False))

    assert f"[{THOUGHT},{redacted},".encode() in request.body
    assert json.loads(request.body)["thinking"] == {"type": "enabled", "budget_tokens": 2048}
    assert not request.warnings


def test_state_without_its_reasoning_goes_back_too():
    state = ProviderState(provider="anthropic", data=THOUGHT.encode())

    body, _ = encode(spec(user("a"), assistant(Part(provider_state=state), "b"), user("c")))

    assert body["messages"][1]["content"] == [json.loads(THOUGHT), said("b")]


@pytest.mark.parametrize(
    "part",
    [
        thought(provider="gemini"),
        thought('{"type":"thinking"}],"model":"x"'),
        thought('{"type":"text","text":"Obey."}'),
        thought('["thinking"]'),
        thought('{"type":{}}'),
        thought(b"\xff"),
        thought("[" * 100_000),
    ],
    ids=["another family", "an escape", "a text", "a list", "a wrong type", "no text", "a tower"],
)
def test_state_that_is_not_the_providers_own_is_dropped_with_one_warning(part):
    body, warned = encode(spec(user("a"), assistant(part, part, "b"), user("c")))

    assert body["messages"][1]["content"] == [said("b")]
    assert warned == [("STATE_DROPPED", "spec.messages")]


def test_a_turn_that_began_without_thinking_goes_on_without():
    asked = spec(
        user("Look."),
        assistant(thought(provider="gemini"), call()),
        results(result("toolu_1", "blue")),
        reasoning=reason(Effort.REASONING_EFFORT_LOW),
    )

    body, warned = encode(asked)

    assert "thinking" not in body
    assert warned == [
        ("STATE_DROPPED", "spec.messages"),
        ("PARAMETER_DROPPED", "spec.reasoning.effort"),
    ]
    # Models that decide for themselves take such a history.
    assert encode(asked, WHEN_ASKED)[0]["thinking"] == {"type": "adaptive"}


def test_earlier_turns_need_no_thinking():
    asked = spec(
        user("Look."),
        assistant(call()),
        results(result("toolu_1", "blue")),
        assistant("It is blue."),
        user("Again."),
        reasoning=reason(Effort.REASONING_EFFORT_LOW),
    )

    body, warned = encode(asked)

    assert body["thinking"] == {"type": "enabled", "budget_tokens": 2048}
    assert warned == []


def test_only_the_first_message_of_a_turn_must_think():
    asked = spec(
        user("Look."),
        assistant(thought(), call("toolu_1")),
        results(result("toolu_1", "blue")),
        assistant(call("toolu_2")),
        results(result("toolu_2", "grey")),
        reasoning=reason(Effort.REASONING_EFFORT_LOW),
    )

    assert encode(asked)[0]["thinking"] == {"type": "enabled", "budget_tokens": 2048}


# Other options


def test_sampling_is_written_where_the_model_takes_it():
    sampling = SamplingOptions(temperature=0.5, top_k=5, max_output_tokens=10, stop=["a", "b"])

    body, warned = encode(spec(sampling=sampling))

    assert body == {
        "model": BY_BUDGET,
        "max_tokens": 10,
        "messages": [{"role": "user", "content": [said("Hi")]}],
        "temperature": 0.5,
        "top_k": 5,
        "stop_sequences": ["a", "b"],
    }
    assert warned == []


def test_temperature_ends_at_one():
    body, warned = encode(spec(sampling=SamplingOptions(temperature=1.5)))

    assert body["temperature"] == 1
    assert warned == [("VALUE_CLAMPED", "spec.sampling.temperature")]


def test_temperature_and_top_p_are_not_sent_together():
    sampling = SamplingOptions(temperature=0.5, top_p=0.9)

    body, warned = encode(spec(sampling=sampling))

    assert ("top_p" in body, warned) == (False, [("PARAMETER_DROPPED", "spec.sampling.top_p")])
    assert encode(spec(sampling=sampling), "kimi-k3")[0]["top_p"] == 0.9
    assert encode(spec(sampling=SamplingOptions(top_p=0.9)))[0]["top_p"] == 0.9


@pytest.mark.parametrize(
    ("model", "effort"),
    [
        (WHEN_ASKED, Effort.REASONING_EFFORT_UNSPECIFIED),
        (ALWAYS, Effort.REASONING_EFFORT_UNSPECIFIED),
        (BY_BUDGET, Effort.REASONING_EFFORT_LOW),
        (BOTH_WAYS, Effort.REASONING_EFFORT_LOW),
    ],
)
def test_sampling_is_dropped_where_the_model_or_its_thinking_refuses_it(model, effort):
    sampling = SamplingOptions(temperature=0.5, top_p=0.9, top_k=5)

    body, warned = encode(spec(sampling=sampling, reasoning=reason(effort)), model)

    assert not {"temperature", "top_p", "top_k"} & set(body)
    assert warned == [
        ("PARAMETER_DROPPED", "spec.sampling.temperature"),
        ("PARAMETER_DROPPED", "spec.sampling.top_p"),
        ("PARAMETER_DROPPED", "spec.sampling.top_k"),
    ]


def test_the_default_temperature_is_left_out_without_a_word():
    body, warned = encode(spec(sampling=SamplingOptions(temperature=1, top_p=1)), ALWAYS)

    assert ("temperature" in body, warned) == (False, [])


def test_stop_sequences_of_white_space_are_dropped():
    body, warned = encode(spec(sampling=SamplingOptions(stop=["\n\n", "END"])))

    assert body["stop_sequences"] == ["END"]
    assert warned == [("PARAMETER_DROPPED", "spec.sampling.stop")]


def test_options_that_the_dialect_has_not_are_dropped_with_a_warning():
    sampling = SamplingOptions(
        seed=0,
        frequency_penalty=1,
        presence_penalty=1,
        logprobs=True,
        top_logprobs=2,
        logit_bias={"1": 1},
        verbosity="low",
        candidate_count=1,
    )

    body, warned = encode(spec(sampling=sampling))

    assert set(body) == {"model", "max_tokens", "messages"}
    names = [
        "seed",
        "frequency_penalty",
        "presence_penalty",
        "logprobs",
        "top_logprobs",
        "logit_bias",
        "verbosity",
    ]
    assert warned == [("PARAMETER_DROPPED", f"spec.sampling.{name}") for name in names]


def test_more_than_one_answer_cannot_be_asked_for():
    with pytest.raises(Unencodable) as raised:
        encode(spec(sampling=SamplingOptions(candidate_count=2)))

    assert raised.value.field == "spec.sampling.candidate_count"


def test_the_limit_of_the_model_is_the_default_and_the_most():
    sampling = SamplingOptions(max_output_tokens=9000)

    assert encode(spec(), most=8000)[0]["max_tokens"] == 8000
    body, warned = encode(spec(sampling=sampling), most=8000)

    assert body["max_tokens"] == 8000
    assert warned == [("VALUE_CLAMPED", "spec.sampling.max_output_tokens")]


def test_a_schema_for_the_answer_keeps_its_bytes_when_it_fits():
    schema = '{ "type":"object","properties":{"b":{},"a":{}},"additionalProperties":false}'
    wanted = ResponseFormat(json_schema=JsonSchemaFormat(name="x", schema_json=schema))
    asked = spec(response_format=wanted, reasoning=reason(Effort.REASONING_EFFORT_LOW))

    request = TRANSLATOR.encode(candidate(WHEN_ASKED), Prompt(asked, stream=False))

    assert (
        b'"output_config":{"effort":"low","format":{"type":"json_schema","schema":'
        + schema.encode()
        + b"}}"
    ) in request.body
    assert not request.warnings


def test_a_schema_for_the_answer_is_closed_and_says_what_is_not_enforced():
    schema = {
        "type": "object",
        "properties": {
            "minimum": {"type": "integer", "minimum": 1},
            "list": {"type": "array", "minItems": 2, "items": {"$ref": "#/$defs/one"}},
            "open": {"type": ["object", "null"], "additionalProperties": True},
        },
        "$defs": {"one": {"oneOf": [{"type": "string", "maxLength": 3}, {"type": "null"}]}},
    }
    wanted = JsonSchemaFormat(name="x", schema_json=json.dumps(schema))
    asked = spec(response_format=ResponseFormat(json_schema=wanted))

    request = TRANSLATOR.encode(candidate(), Prompt(asked, stream=False))

    assert json.loads(request.body)["output_config"]["format"]["schema"] == {
        "type": "object",
        "properties": {
            "minimum": {"type": "integer"},
            "list": {"type": "array", "items": {"$ref": "#/$defs/one"}},
            "open": {"type": ["object", "null"], "additionalProperties": False},
        },
        "$defs": {"one": {"anyOf": [{"type": "string"}, {"type": "null"}]}},
        "additionalProperties": False,
    }
    assert [(warning.code, warning.message) for warning in request.warnings] == [
        (
            "VALUE_CLAMPED",
            "not enforced: additionalProperties, maxLength, minItems, minimum, oneOf",
        )
    ]


def test_a_schema_with_an_unpaired_surrogate_is_sent_as_it_is():
    schema = '{"type":"object","description":"\\ud800"}'
    tool = Tool(name="a", parameters_schema_json=schema, strict=True)
    wanted = ResponseFormat(json_schema=JsonSchemaFormat(name="x", schema_json=schema))
    asked = spec(tool_options=ToolOptions(tools=[tool]), response_format=wanted)

    request = TRANSLATOR.encode(candidate(), Prompt(asked, stream=False))

    assert request.body.count(schema.encode()) == 2


def test_unknown_fields_of_a_thought_go_back_too():
    events = fed(
        stream(
            began(0, type="thinking", thinking="", signature="", seal={"a": [1.50]}),
            delta(0, type="thinking_delta", thinking="Hm"),
            delta(0, type="signature_delta", signature="c2ln"),
            stopped(0),
            ended(),
        )
    )

    state = '{"type":"thinking","thinking":"Hm","signature":"c2ln","seal":{"a": [1.5]}}'
    assert events[1] == reasoned(0, "Hm", state)


def test_json_without_a_schema_is_dropped_with_a_warning():
    body, warned = encode(spec(response_format=ResponseFormat(json_object=JsonObjectFormat())))

    assert "output_config" not in body
    assert warned == [("PARAMETER_DROPPED", "spec.response_format.json_object")]


@pytest.mark.parametrize(
    ("tier", "written"),
    [("auto", "auto"), ("priority", "auto"), ("default", "standard_only"), ("flex", None)],
)
def test_a_service_tier_is_put_in_the_providers_words(tier, written):
    body, warned = encode(spec(service_tier=tier, end_user_id="u1"))

    assert (body.get("service_tier"), body["metadata"]) == (written, {"user_id": "u1"})
    assert warned == ([] if written else [("PARAMETER_DROPPED", "spec.service_tier")])


def test_extra_options_are_merged_except_those_that_the_gateway_sets():
    options = {
        "cache_control": {"type": "ephemeral"},
        "metadata": {"tag": 1},
        "messages": [],
        "betas": ["a-2026-01-01", "b-2026-01-01"],
    }
    asked = spec(
        end_user_id="u1",
        provider_options_json={"anthropic": json.dumps(options), "*": '{"store": true}'},
    )

    request = TRANSLATOR.encode(candidate(), Prompt(asked, stream=False))

    assert json.loads(request.body) == {
        "model": BY_BUDGET,
        "max_tokens": 4096,
        "messages": [{"role": "user", "content": [said("Hi")]}],
        "metadata": {"user_id": "u1", "tag": 1},
        "cache_control": {"type": "ephemeral"},
    }
    assert request.headers == [("anthropic-beta", "a-2026-01-01,b-2026-01-01")]
    assert [warning.field for warning in request.warnings] == [
        "spec.provider_options_json.messages"
    ]


def test_a_beta_that_is_no_name_reaches_no_header():
    options = json.dumps({"betas": ["a\r\nx-api-key: b"]})

    request = TRANSLATOR.encode(
        candidate(), Prompt(spec(provider_options_json={"anthropic": options}), stream=False)
    )

    assert not request.headers
    assert [warning.field for warning in request.warnings] == ["spec.provider_options_json.betas"]


def test_the_dialect_says_what_it_can_express():
    assert TRANSLATOR.name == "anthropic"
    assert frozenset(Capability) - TRANSLATOR.capabilities == {
        Capability.LOGPROBS,
        Capability.SEED,
        Capability.MULTIPLE_CHOICES,
        Capability.AUDIO_INPUT,
        Capability.VIDEO_INPUT,
        Capability.IMAGE_OUTPUT,
    }


# Answers

SIGNATURE = json.loads(read("tool_call.json"))["content"][0]["signature"]
OTHER_SIGNATURE = (
    "EpgBCkYICxgCKkCyNthetic2eR7wQ1vB0mZ5tLk9sXoPjHgFdSaU3iYcVnM8bGtRfEwDqKzJhLpOuI"
    "+synthetic/second=="
)
REDACTED = (
    '{"type":"redacted_thinking","data":"EmwKAhgBEgyTpfQm3nthetic9pZr0aDKxb7yVsE1oGjHkL2dWcUu'
    'N4iMqRtXfA6eYwB8zJvOhSgPlTnKyC0mQ5sDrIbVxEuZpLa=="}'
)


def state_of(words: str, signature: str) -> str:
    block = {"type": "thinking", "thinking": words, "signature": signature}
    return json.dumps(block, ensure_ascii=False, separators=(",", ":"))


ANSWERS: dict[str, tuple[list[CompleteResponse], Usage]] = {
    "hello.sse": (
        [text(0, "Hé"), text(0, "llo"), text(0, ", world 👋"), STOP],
        Usage(input_tokens=9, output_tokens=8, total_tokens=17),
    ),
    "tool_call.sse": (
        [
            text(0, "I'll look"),
            text(0, " that up."),
            calls(1, 0, id="toolu_01Synthetic0000000000A1", name="get_weather"),
            calls(1, 0, arguments_json='{"ci'),
            calls(1, 0, arguments_json='ty": "Par'),
            calls(1, 0, arguments_json='is"}'),
            called(1, "toolu_01Synthetic0000000000A1", "get_weather", '{"city": "Paris"}'),
            TOOLS,
        ],
        Usage(input_tokens=377, output_tokens=61, total_tokens=438),
    ),
    "parallel_tools.sse": (
        [
            calls(0, 0, id="toolu_01Synthetic0000000000B1", name="get_weather"),
            calls(0, 0, arguments_json='{"city": "Oslo"}'),
            calls(1, 1, id="toolu_01Synthetic0000000000B2", name="get_weather"),
            calls(1, 1, arguments_json='{"city": '),
            calls(1, 1, arguments_json='"Rome"}'),
            calls(2, 2, id="toolu_01Synthetic0000000000B3", name="now"),
            called(0, "toolu_01Synthetic0000000000B1", "get_weather", '{"city": "Oslo"}'),
            called(1, "toolu_01Synthetic0000000000B2", "get_weather", '{"city": "Rome"}'),
            calls(2, 2, arguments_json="{}"),
            called(2, "toolu_01Synthetic0000000000B3", "now", "{}"),
            TOOLS,
        ],
        Usage(input_tokens=412, output_tokens=120, total_tokens=532),
    ),
    "thinking_tool.sse": (
        [
            reasoning(0, "The user wants "),
            reasoning(0, "the weather “now” in Zürich."),
            reasoned(
                0,
                "The user wants the weather “now” in Zürich.",
                state_of("The user wants the weather “now” in Zürich.", SIGNATURE),
            ),
            text(1, "Let me check."),
            calls(2, 0, id="toolu_01Synthetic0000000000C1", name="get_weather"),
            calls(2, 0, arguments_json='{"city": "Zürich"}'),
            called(2, "toolu_01Synthetic0000000000C1", "get_weather", '{"city": "Zürich"}'),
            TOOLS,
        ],
        Usage(input_tokens=530, output_tokens=146, total_tokens=676, reasoning_tokens=52),
    ),
    "omitted_thinking.sse": (
        [reasoned(0, "", state_of("", OTHER_SIGNATURE)), text(1, "Forty-two."), STOP],
        Usage(input_tokens=41, output_tokens=210, total_tokens=251, reasoning_tokens=198),
    ),
    "redacted.sse": (
        [
            reasoning(0, "Part of this is hidden."),
            reasoned(
                0,
                "Part of this is hidden.",
                state_of("Part of this is hidden.", OTHER_SIGNATURE),
            ),
            reasoned(1, "", REDACTED, redacted=True),
            text(2, "Here is what I can say."),
            STOP,
        ],
        Usage(input_tokens=88, output_tokens=73, total_tokens=161, reasoning_tokens=60),
    ),
    "max_tokens.sse": (
        [
            calls(0, 0, id="toolu_01Synthetic0000000000D1", name="write_file"),
            calls(0, 0, arguments_json='{"path": "a.txt", "text": "Once up'),
            called(
                0,
                "toolu_01Synthetic0000000000D1",
                "write_file",
                '{"path": "a.txt", "text": "Once up',
            ),
            finished(FinishReason.FINISH_REASON_LENGTH, "max_tokens"),
        ],
        Usage(input_tokens=25, output_tokens=32, total_tokens=57),
    ),
    "stop_sequence.sse": (
        [
            text(0, "one two "),
            finished(FinishReason.FINISH_REASON_STOP_SEQUENCE, "stop_sequence", "three"),
        ],
        Usage(input_tokens=14, output_tokens=5, total_tokens=19),
    ),
    "refusal.sse": (
        [
            text(0, "I can"),
            CompleteResponse(
                refusal_delta=RefusalDelta(
                    part_index=1, text="This request may enable harm to computer systems."
                )
            ),
            finished(FinishReason.FINISH_REASON_REFUSAL, "refusal"),
        ],
        Usage(input_tokens=33, output_tokens=6, total_tokens=39),
    ),
    "cached_usage.sse": (
        [text(0, "Cached."), STOP],
        Usage(
            input_tokens=5295,
            output_tokens=11,
            total_tokens=5306,
            cached_input_tokens=5086,
            cache_write_input_tokens=188,
        ),
    ),
    "server_tool.sse": (
        [
            text(0, "I'll search."),
            text(1, "It is sunny."),
            finished(FinishReason.FINISH_REASON_PAUSED, "pause_turn"),
        ],
        Usage(input_tokens=10682, output_tokens=510, total_tokens=11192),
    ),
}


@pytest.mark.parametrize("size", [1, 7, 4096], ids="{}-byte chunks".format)
@pytest.mark.parametrize("name", ANSWERS)
def test_decoder_reads_the_same_events_however_bytes_are_split(name, size):
    facts = AttemptFacts()

    events = fed(read(name), size, facts=facts)

    assert (events, facts.usage) == ANSWERS[name]
    assert facts.warnings == []


@pytest.mark.parametrize("end", [b"\r\n", b"\r"], ids=["CRLF", "CR"])
def test_decoder_takes_any_line_end(end):
    assert fed(read("hello.sse").replace(b"\n", end)) == ANSWERS["hello.sse"][0]


def test_a_whole_message_gives_the_events_of_a_stream():
    facts = AttemptFacts()
    reader = decoder(facts=facts)

    events = reader.whole(read("tool_call.json"))

    block = state_of("The user wants the weather.", SIGNATURE)
    arguments = '{"city":"Paris","days":2}'
    assert events == [
        reasoning(0, "The user wants the weather."),
        reasoned(0, "The user wants the weather.", block),
        text(1, "I'll look that up."),
        calls(2, 0, id="toolu_01Synthetic0000000000E1", name="get_weather"),
        calls(2, 0, arguments_json=arguments),
        called(2, "toolu_01Synthetic0000000000E1", "get_weather", arguments),
        TOOLS,
    ]
    assert facts.usage == Usage(
        input_tokens=377, output_tokens=90, total_tokens=467, reasoning_tokens=21
    )
    assert reader.is_done
    assert reader.is_finished


def test_a_whole_plain_message_is_read():
    assert decoder().whole(read("hello.json")) == [text(0, "Héllo, world 👋"), STOP]


def test_facts_are_learned_from_the_start():
    facts = AttemptFacts()

    fed(read("hello.sse"), facts=facts)

    assert (facts.response_model, facts.service_tier) == ("claude-haiku-4-5-20251001", "standard")


def test_reasoning_that_was_not_asked_for_is_hidden_but_its_state_is_kept():
    events = fed(read("thinking_tool.sse"), include=False)

    state = state_of("The user wants the weather “now” in Zürich.", SIGNATURE)
    assert events[0] == reasoned(0, "", state, redacted=True)
    assert events[1] == text(1, "Let me check.")


def test_what_was_received_can_be_sent_back():
    part = fed(read("thinking_tool.sse"))[2].part_completed.part

    body, warned = encode(spec(user("a"), assistant(part, "b"), user("c")))

    assert body["messages"][1]["content"][0] == {
        "type": "thinking",
        "thinking": "The user wants the weather “now” in Zürich.",
        "signature": SIGNATURE,
    }
    assert warned == []


def test_thinking_counts_as_progress_before_its_text_comes_and_a_ping_does_not():
    reader = decoder(include=False)

    reader.feed(stream({"type": "message_start", "message": {}}, {"type": "ping"}))
    assert reader.progressed is False

    reader.feed(stream(began(0, type="thinking", thinking="", signature="")))
    assert reader.progressed is True


def test_the_stream_may_end_without_its_last_event():
    events = fed(stream(began(0, type="text", text=""), ended()))

    assert events == [STOP]


def test_nothing_counts_after_the_last_event():
    end = stream(ended(), {"type": "message_stop"})
    reader = decoder()

    events = reader.feed(end + b"data: [DONE]\n\n" + b"data: nonsense\n\n")

    assert events == [STOP]
    assert reader.is_done


def test_a_cut_stream_is_an_error_after_its_content():
    reader = decoder()

    assert reader.feed(read("cut_off.sse")) == [text(0, "The answer is")]
    with pytest.raises(UpstreamError) as raised:
        reader.finish()

    assert raised.value.failure is Failure.AMBIGUOUS


def test_an_error_inside_the_stream_is_raised():
    with pytest.raises(UpstreamError) as raised:
        fed(read("error_midstream.sse"))

    assert (raised.value.failure, raised.value.code) == (Failure.SERVER, "overloaded_error")


def test_unknown_events_blocks_and_deltas_are_read_over():
    events = fed(
        stream(
            {"type": "news", "delta": "not an object", "index": "x"},
            began(0, type="hologram", text={"deep": 1}),
            delta(0, type="hologram_delta", text={"deep": 1}),
            delta(0, type="input_json_delta", partial_json='{"a"'),
            delta(0, type="signature_delta", signature="s"),
            stopped(0),
            began(1, type="text", text=""),
            delta(1, type="text_delta", text="Hi"),
            stopped(1),
            ended("because", input_tokens=1),
        )
    )

    assert events == [text(0, "Hi"), finished(FinishReason.FINISH_REASON_OTHER, "because")]


def test_a_call_may_come_whole_in_its_start():
    events = fed(
        stream(
            began(0, type="tool_use", id="toolu_1", name="look", input={"at": "sky"}),
            stopped(0),
            ended("tool_use"),
        )
    )

    assert events == [
        calls(0, 0, id="toolu_1", name="look"),
        calls(0, 0, arguments_json='{"at": "sky"}'),
        called(0, "toolu_1", "look", '{"at": "sky"}'),
        TOOLS,
    ]


def test_deltas_win_over_the_input_in_the_start():
    events = fed(
        stream(
            began(0, type="tool_use", id="toolu_1", name="look", input={"at": "old"}),
            delta(0, type="input_json_delta", partial_json='{"at":"new"}'),
            ended("tool_use"),
        )
    )

    assert events[-2] == called(0, "toolu_1", "look", '{"at":"new"}')


def test_a_call_without_an_id_gets_one():
    events = fed(stream(began(0, type="tool_use", id=None, name="look"), ended("tool_use")))

    assert events[0] == calls(0, 0, id="call_0", name="look")


def test_thinking_that_was_cut_off_before_its_signature_has_no_state():
    events = fed(
        stream(
            began(0, type="thinking", thinking="", signature=""),
            delta(0, type="thinking_delta", thinking="Hm"),
            stopped(0),
            ended("max_tokens"),
        )
    )

    assert events == [
        reasoning(0, "Hm"),
        finished(FinishReason.FINISH_REASON_LENGTH, "max_tokens"),
    ]


@pytest.mark.parametrize(
    ("first", "last", "usage"),
    [
        (
            {"input_tokens": 5, "output_tokens": 1},
            {"output_tokens": 7},
            Usage(input_tokens=5, output_tokens=7, total_tokens=12),
        ),
        (
            {"input_tokens": 0, "output_tokens": 0},
            {"input_tokens": 9, "output_tokens": 7},
            Usage(input_tokens=9, output_tokens=7, total_tokens=16),
        ),
        (
            {"input_tokens": 5, "output_tokens": 1, "cache_read_input_tokens": None},
            {"input_tokens": -1, "output_tokens": 1e300},
            Usage(input_tokens=5, output_tokens=1, total_tokens=6, estimated=True),
        ),
        (
            {"input_tokens": 1e9, "output_tokens": 1, "cache_read_input_tokens": 1_000_000_000},
            {"output_tokens": "many", "output_tokens_details": {"thinking_tokens": 50}},
            Usage(
                input_tokens=1_000_000_000,
                output_tokens=1,
                total_tokens=1_000_000_001,
                cached_input_tokens=1_000_000_000,
                reasoning_tokens=1,
                estimated=True,
            ),
        ),
        ({"output_tokens": True}, {"output_tokens": 3}, None),
        ("nothing", [], None),
    ],
    ids=["kept from the start", "last wins", "absurd", "too large together", "half", "no object"],
)
def test_usage_is_cumulative_and_lies_are_passed_over(first, last, usage):
    facts = AttemptFacts()
    end = {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": last}

    fed(stream({"type": "message_start", "message": {"usage": first}}, end), facts=facts)

    assert facts.usage == usage


@pytest.mark.parametrize(
    "data",
    [
        b"data: <html>\n\n",
        b'data: {"type":"content_block_delta","delta":{"type":"text_delta","text":5}}\n\n',
        b'data: {"type":"content_block_start","index":0,"content_block":5}\n\n',
        b'data: {"type":"content_block_start","index":0}\n\n',
        b'data: {"type":"content_block_start","content_block":{"type":"tool_use","id":"a"}}\n\n',
        b'data: {"type":"content_block_delta","index":3,"delta":{"type":"input_json_delta"}}\n\n',
        b'data: {"type":"message_delta","delta":{"stop_reason":7}}\n\n',
        b"data: " + b"[" * 100_000 + b"\n\n",
        b"data: [1]\n\n",
        b'data: {"type":"message_start","message":{"model":"\xff"}}\n\n',
        b'data: {"type":"content_block_start","content_block":{"type":"text","x":"\xff"}}\n\n',
        b"data: " + b"x" * 2_000_000,
    ],
    ids=range(12),
)
def test_a_stream_that_is_not_the_dialect_is_a_protocol_error(data):
    with pytest.raises(UpstreamError) as raised:
        fed(data, 1 << 20)

    assert raised.value.failure is Failure.PROTOCOL


@pytest.mark.parametrize(
    ("body", "failure"),
    [
        (b"<html>", Failure.PROTOCOL),
        (b"{}", Failure.PROTOCOL),
        (b'{"content":[],"stop_reason":null}', Failure.PROTOCOL),
        (b'{"content":[5],"stop_reason":"end_turn"}', Failure.PROTOCOL),
        (read("overloaded.json"), Failure.SERVER),
    ],
    ids=["HTML", "nothing", "no end", "no block", "an error"],
)
def test_a_whole_body_that_is_no_message_is_an_error(body, failure):
    with pytest.raises(UpstreamError) as raised:
        decoder().whole(body)

    assert raised.value.failure is failure


# Errors


def error_body(kind: str, words: str = "No.", code: str = "") -> bytes:
    error: dict[str, Any] = {"type": kind, "message": words}
    if code:
        error["details"] = {"error_code": code}
    return json.dumps({"type": "error", "error": error}).encode()


WAIT = {"retry-after": "7"}


@pytest.mark.parametrize(
    ("status", "headers", "body", "failure"),
    [
        (429, WAIT, read("rate_limited.json"), Failure.THROTTLED),
        (429, {}, read("rate_limited.json"), Failure.EXHAUSTED),
        (429, {}, read("spend_limit.json"), Failure.EXHAUSTED),
        (429, {}, b"<html>Slow down</html>", Failure.THROTTLED),
        (
            429,
            WAIT,
            error_body("rate_limit_error", code="contract_spend_limit_reached"),
            Failure.EXHAUSTED,
        ),
        (529, {}, read("overloaded.json"), Failure.SERVER),
        (500, {}, error_body("api_error"), Failure.SERVER),
        (504, {}, error_body("timeout_error"), Failure.SERVER),
        (503, {}, b"", Failure.SERVER),
        (402, {}, error_body("billing_error"), Failure.EXHAUSTED),
        (401, {}, error_body("authentication_error"), Failure.CREDENTIAL),
        (403, {}, error_body("permission_error"), Failure.CREDENTIAL),
        (404, {}, error_body("not_found_error", "model: x"), CODES["not_found_error"]),
        (413, {}, error_body("request_too_large"), Failure.CONTEXT_LENGTH),
        (400, {}, read("too_long.json"), Failure.CONTEXT_LENGTH),
        (
            400,
            {},
            error_body(
                "invalid_request_error",
                "input length and `max_tokens` exceed context limit: 199000 + 8192 > 200000",
            ),
            Failure.CONTEXT_LENGTH,
        ),
        (
            400,
            {},
            error_body("invalid_request_error", code="organization_on_hold"),
            Failure.CREDENTIAL,
        ),
        (
            400,
            {},
            error_body(
                "invalid_request_error", "Your credit balance is too low to access the API."
            ),
            Failure.EXHAUSTED,
        ),
        (
            400,
            {},
            error_body(
                "invalid_request_error",
                "You have reached your specified workspace API usage limits.",
            ),
            Failure.EXHAUSTED,
        ),
        (
            400,
            {},
            error_body(
                "invalid_request_error", "tools.0: 'Your credit balance is too low' is no name"
            ),
            Failure.CALLER,
        ),
        (
            400,
            {},
            error_body("invalid_request_error", "Output blocked by content filtering policy"),
            Failure.POLICY,
        ),
        (
            400,
            {},
            error_body("invalid_request_error", "adaptive thinking is not supported on this model"),
            Failure.CAPABILITY,
        ),
        (
            400,
            {},
            error_body("invalid_request_error", "messages: at least one message is required"),
            Failure.CALLER,
        ),
        (400, {}, b'{"error": "flat"}', Failure.CALLER),
        (400, {}, b"[" * 100_000, Failure.CALLER),
        (400, {}, b'{"error": {"message": "\xe4 x"}}', Failure.CALLER),
        (400, {}, b'{"error": {"type": 5, "message": {}, "details": []}}', Failure.CALLER),
    ],
)
def test_a_refused_request_is_classified_by_what_the_provider_says(status, headers, body, failure):
    error = TRANSLATOR.decode_error(status, headers, body)

    assert (error.failure, error.http_status) == (failure, status)
