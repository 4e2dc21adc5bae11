import json
import time
from itertools import count
from typing import Any

import pytest

from tests.providers.readings import RECORDINGS, Reading, decoder, read, read_whole
from tests.providers.specs import (
    NOW,
    PDF,
    PNG,
    SCHEMA,
    WEATHER,
    ask,
    assistant,
    call,
    message,
    result,
    tools,
    user,
)
from trunkline.v1.completion_event_pb2 import (
    ChoiceFinished,
    CompleteResponse,
    PartCompleted,
    ReasoningDelta,
    RefusalDelta,
    TextDelta,
    ToolCallDelta,
)
from trunkline.v1.completion_pb2 import FinishReason, TokenLogprob, Usage
from trunkline.v1.completion_spec_pb2 import (
    CompletionSpec,
    JsonObjectFormat,
    JsonSchemaFormat,
    ReasoningEffort,
    ReasoningOptions,
    ResponseFormat,
    SamplingOptions,
    TextFormat,
    Tool,
    ToolChoice,
    ToolChoiceMode,
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
from trunkline_server.core.candidate import Candidate
from trunkline_server.core.errors import UpstreamError
from trunkline_server.core.failure import Failure
from trunkline_server.core.ports import AttemptFacts, Prompt, Unencodable
from trunkline_server.providers.openai import Deviations, OpenAITranslator
from trunkline_server.providers.openai_answer import MAX_LOOKS
from trunkline_server.providers.services import SERVICES

OPENAI = OpenAITranslator(SERVICES["openai"].deviations)
STOP = FinishReason.FINISH_REASON_STOP
CALLS = FinishReason.FINISH_REASON_TOOL_CALLS
LENGTH = FinishReason.FINISH_REASON_LENGTH
FILTERED = FinishReason.FINISH_REASON_CONTENT_FILTER
DETAILS = [
    {
        "type": "reasoning.text",
        "text": "The user wants the weather.",
        "format": "anthropic-claude-v1",
        "index": 0,
        "signature": "c3ludGhldGlj",
    }
]


def encode(
    spec: CompletionSpec,
    model: str = "gpt-4.1",
    *,
    translator: OpenAITranslator = OPENAI,
    stream: bool = False,
    service: str = "openai",
) -> tuple[dict[str, Any], list[tuple[str, str]]]:
    """The body, and code and field of each warning."""
    asked = Candidate(provider=service, id=model, model=model, family=service)
    request = translator.encode(asked, Prompt(spec, stream))
    warned = [(warning.code, warning.field) for warning in request.warnings]
    return json.loads(request.body), warned


def deviating(**flags: Any) -> OpenAITranslator:
    return OpenAITranslator(Deviations(**flags))


def body_of(spec: CompletionSpec, model: str = "gpt-4.1", **options: Any) -> dict[str, Any]:
    body, warned = encode(spec, model, **options)
    assert warned == []
    return body


def sent(*messages: Message, **options: Any) -> list[dict[str, Any]]:
    written: list[dict[str, Any]] = body_of(ask(*messages), **options)["messages"]
    return written


# Requests


def test_a_plain_request_holds_the_model_and_the_messages():
    assert body_of(ask()) == {"model": "gpt-4.1", "messages": [{"role": "user", "content": "Hi"}]}


def test_a_stream_is_asked_for_with_its_usage():
    assert body_of(ask(), stream=True) == {
        "model": "gpt-4.1",
        "messages": [{"role": "user", "content": "Hi"}],
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    assert "stream_options" not in body_of(
        ask(), stream=True, translator=deviating(asks_for_usage=False)
    )


@pytest.mark.parametrize(
    ("model", "role"), [("gpt-4.1", "system"), ("o3", "developer"), ("gpt-5-mini", "developer")]
)
def test_system_text_has_the_role_that_the_model_knows(model, role):
    spec = ask(
        message(Role.ROLE_SYSTEM, "Be ", "brief."),
        message(Role.ROLE_DEVELOPER, "Be kind."),
        user("Hi"),
        system_prompt="Be right.",
    )

    assert body_of(spec, model)["messages"] == [
        {"role": role, "content": "Be right."},
        {"role": role, "content": "Be brief."},
        {"role": role, "content": "Be kind."},
        {"role": "user", "content": "Hi"},
    ]


@pytest.mark.parametrize(
    ("part", "written"),
    [
        (
            Part(image=Media(url="https://example.com/a.png", detail="low")),
            {
                "type": "image_url",
                "image_url": {"url": "https://example.com/a.png", "detail": "low"},
            },
        ),
        (
            Part(image=Media(data=PNG, mime_type="image/png")),
            {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}},
        ),
        (
            Part(audio=Media(data=b"RIFF", mime_type="audio/x-wav; rate=8000")),
            {"type": "input_audio", "input_audio": {"data": "UklGRg==", "format": "wav"}},
        ),
        (
            Part(document=Media(data=PDF, mime_type="application/pdf", filename="a.pdf")),
            {
                "type": "file",
                "file": {
                    "filename": "a.pdf",
                    "file_data": "data:application/pdf;base64,JVBERi0xLjc=",
                },
            },
        ),
        (
            Part(document=Media(file_id="file-1")),
            {"type": "file", "file": {"file_id": "file-1"}},
        ),
    ],
)
def test_media_are_parts_of_their_own_kind(part, written):
    assert sent(user("See: ", part)) == [
        {"role": "user", "content": [{"type": "text", "text": "See: "}, written]}
    ]


@pytest.mark.parametrize(
    ("flags", "document", "written"),
    [
        (
            {"document_urls": True},
            Media(url="https://example.com/a.pdf", filename="a.pdf"),
            {
                "type": "document_url",
                "document_url": "https://example.com/a.pdf",
                "document_name": "a.pdf",
            },
        ),
        (
            {"document_urls": True},
            Media(data=PDF, mime_type="application/pdf"),
            {
                "type": "document_url",
                "document_url": "data:application/pdf;base64,JVBERi0xLjc=",
            },
        ),
        (
            {"document_urls": True},
            Media(file_id="file-1"),
            {"type": "file", "file": {"file_id": "file-1"}},
        ),
        (
            {"file_urls": True},
            Media(url="https://example.com/a.pdf"),
            {
                "type": "file",
                "file": {"filename": "document", "file_data": "https://example.com/a.pdf"},
            },
        ),
    ],
)
def test_documents_go_by_address_where_the_service_takes_one(flags, document, written):
    [turn] = sent(user(Part(document=document)), translator=deviating(**flags))

    assert turn["content"] == [written]


@pytest.mark.parametrize(
    ("turn", "field"),
    [
        (user(Part(image=Media(file_id="f"))), "spec.messages[].parts[].image.file_id"),
        (
            user(Part(audio=Media(data=b"x", mime_type="audio/ogg"))),
            "spec.messages[].parts[].audio.mime_type",
        ),
        (user(Part(audio=Media(url="https://x"))), "spec.messages[].parts[].audio"),
        (user(Part(video=Media(url="https://x"))), "spec.messages[].parts[].video"),
        (user(Part(document=Media(url="https://x"))), "spec.messages[].parts[].document.url"),
        (assistant(Part(image=Media(url="https://x"))), "spec.messages[].parts[].image"),
        (
            message(
                Role.ROLE_TOOL,
                Part(
                    tool_result=ToolResult(
                        tool_call_id="c", parts=[Part(image=Media(url="https://x"))]
                    )
                ),
            ),
            "spec.messages[].parts[].tool_result.parts",
        ),
    ],
)
def test_what_the_dialect_has_no_words_for_is_refused_by_name(turn, field):
    with pytest.raises(Unencodable) as raised:
        encode(ask(turn))

    assert raised.value.field == field


def test_a_turn_of_the_assistant_holds_text_refusal_and_calls():
    turns = sent(
        assistant("Let me ", "look.", call("call_1"), call("call_2", "")),
        assistant(Part(refusal="I can't.")),
        assistant(),
        assistant(call("call_3")),
    )

    def made(call_id: str, arguments: str) -> dict[str, Any]:
        function = {"name": "get_weather", "arguments": arguments}
        return {"id": call_id, "type": "function", "function": function}

    oslo = '{"city": "Oslo"}'
    assert turns == [
        {
            "role": "assistant",
            "content": "Let me look.",
            "tool_calls": [made("call_1", oslo), made("call_2", "{}")],
        },
        {"role": "assistant", "content": None, "refusal": "I can't."},
        {"role": "assistant", "content": ""},
        {"role": "assistant", "content": None, "tool_calls": [made("call_3", oslo)]},
    ]


def test_results_are_messages_of_their_own_and_cannot_say_that_they_are_errors():
    body, warned = encode(
        ask(message(Role.ROLE_TOOL, result("call_1"), result("call_2", "down", is_error=True)))
    )

    assert body["messages"] == [
        {"role": "tool", "tool_call_id": "call_1", "content": "4 degrees"},
        {"role": "tool", "tool_call_id": "call_2", "content": "down"},
    ]
    assert warned == [("PARAMETER_DROPPED", "spec.messages[].parts[].tool_result.is_error")]


def test_names_are_a_field_or_go_before_the_text():
    turns = [
        user("Hi", name="ada"),
        user(Part(image=Media(url="https://x")), name="ada"),
        user("Hi", Part(image=Media(url="https://x")), name="ada"),
        assistant("Yes?", name="bob"),
        assistant(call(), name="bob"),
    ]

    assert [turn["name"] for turn in sent(*turns)] == ["ada", "ada", "ada", "bob", "bob"]
    folded = sent(*turns, translator=deviating(names=False))
    image = {"type": "image_url", "image_url": {"url": "https://x"}}
    assert [turn["content"] for turn in folded] == [
        "ada: Hi",
        [{"type": "text", "text": "ada:"}, image],
        [{"type": "text", "text": "ada: Hi"}, image],
        "bob: Yes?",
        None,
    ]
    assert not any("name" in turn for turn in folded)


@pytest.mark.parametrize("names", [True, False])
@pytest.mark.parametrize("joins_text", [True, False])
@pytest.mark.parametrize(
    "empty", [user(name="bob"), user("", name="bob"), user("", "")], ids=range(3)
)
def test_a_turn_of_the_user_that_says_nothing_is_left_out(empty, names, joins_text):
    translator = deviating(names=names, joins_text=joins_text)

    turns = sent(empty, user("Hi"), translator=translator)

    assert turns == [{"role": "user", "content": "Hi"}]


def test_an_unfinished_answer_is_marked_where_it_has_to_be():
    turns = [user("Count."), assistant("One, ")]

    assert "prefix" not in sent(*turns)[-1]
    assert sent(*turns, translator=deviating(prefix=True))[-1] == {
        "role": "assistant",
        "content": "One, ",
        "prefix": True,
    }
    assert "prefix" not in sent(user("Hi"), translator=deviating(prefix=True))[-1]


def test_call_ids_of_a_fixed_length_stay_the_same_for_call_and_result():
    turns = sent(
        assistant(call("call_1"), call("aB3dE6gH9")),
        message(Role.ROLE_TOOL, result("call_1"), result("aB3dE6gH9")),
        translator=deviating(call_id_chars=9),
    )

    called = [made["id"] for made in turns[0]["tool_calls"]]
    assert called == [turn["tool_call_id"] for turn in turns[1:]]
    assert called[1] == "aB3dE6gH9"
    assert len(called[0]) == 9
    assert called[0].isalnum()


@pytest.mark.parametrize(
    ("choice", "written"),
    [
        (None, None),
        (ToolChoice(mode=ToolChoiceMode.TOOL_CHOICE_MODE_AUTO), "auto"),
        (ToolChoice(mode=ToolChoiceMode.TOOL_CHOICE_MODE_NONE), "none"),
        (ToolChoice(mode=ToolChoiceMode.TOOL_CHOICE_MODE_REQUIRED), "required"),
        (ToolChoice(tool_name="now"), {"type": "function", "function": {"name": "now"}}),
        (
            ToolChoice(mode=ToolChoiceMode.TOOL_CHOICE_MODE_REQUIRED, allowed_tool_names=["now"]),
            {
                "type": "allowed_tools",
                "allowed_tools": {
                    "mode": "required",
                    "tools": [{"type": "function", "function": {"name": "now"}}],
                },
            },
        ),
    ],
)
def test_tools_are_offered_with_a_choice(choice, written):
    body = body_of(ask(tool_options=tools(choice=choice)))

    weather = {
        "name": "get_weather",
        "description": "The weather of a city.",
        "parameters": json.loads(SCHEMA),
    }
    now = {"name": "now", "parameters": {"type": "object", "properties": {}}}
    assert body == {
        "model": "gpt-4.1",
        "messages": [{"role": "user", "content": "Hi"}],
        "tools": [{"type": "function", "function": weather}, {"type": "function", "function": now}],
        **({"tool_choice": written} if written else {}),
    }


@pytest.mark.parametrize("allowed_tools", [True, False])
def test_no_call_at_all_is_no_choice_among_some(allowed_tools):
    choice = ToolChoice(
        mode=ToolChoiceMode.TOOL_CHOICE_MODE_NONE, allowed_tool_names=["get_weather"]
    )

    body = body_of(
        ask(tool_options=tools(WEATHER, NOW, choice=choice)),
        translator=deviating(allowed_tools=allowed_tools),
    )

    assert body["tool_choice"] == "none"


def test_a_service_that_cannot_narrow_a_choice_is_offered_less():
    options = tools(
        choice=ToolChoice(mode=ToolChoiceMode.TOOL_CHOICE_MODE_REQUIRED, allowed_tool_names=["now"])
    )

    body = body_of(ask(tool_options=options), translator=deviating(required_word="any"))

    assert [tool["function"]["name"] for tool in body["tools"]] == ["now"]
    assert body["tool_choice"] == "any"


def test_no_tools_means_no_options_for_them():
    options = tools()
    del options.tools[:]
    options.parallel_calls = False

    assert set(body_of(ask(tool_options=options))) == {"model", "messages"}


def test_strictness_and_parallel_calls_are_said_only_when_asked():
    strict = Tool(name="t", parameters_schema_json='{"type":"object"}', strict=True)

    body = body_of(ask(tool_options=tools(strict, WEATHER, NOW, parallel_calls=False)))

    assert [tool["function"].get("strict") for tool in body["tools"]] == [True, None, None]
    assert body["parallel_tool_calls"] is False


@pytest.mark.parametrize(
    ("wanted", "written"),
    [
        (ResponseFormat(text=TextFormat()), None),
        (ResponseFormat(json_object=JsonObjectFormat()), {"type": "json_object"}),
        (
            ResponseFormat(
                json_schema=JsonSchemaFormat(
                    name="trip", description="A trip.", schema_json='{"type":"object"}', strict=True
                )
            ),
            {
                "type": "json_schema",
                "json_schema": {
                    "name": "trip",
                    "schema": {"type": "object"},
                    "description": "A trip.",
                    "strict": True,
                },
            },
        ),
        (
            ResponseFormat(json_schema=JsonSchemaFormat(schema_json='{"type":"object"}')),
            {
                "type": "json_schema",
                "json_schema": {"name": "answer", "schema": {"type": "object"}},
            },
        ),
    ],
)
def test_a_response_format_is_written_as(wanted, written):
    assert body_of(ask(response_format=wanted)).get("response_format") == written


def test_schemas_keep_the_order_and_the_numbers_of_their_author():
    schema = '{"type":"object","properties":{"z":{"maximum":10},"a":{}}}'
    spec = ask(tool_options=tools(Tool(name="t", parameters_schema_json=schema)))
    asked = Candidate(provider="openai", id="m", model="m")

    request = OPENAI.encode(asked, Prompt(spec, stream=False))

    assert schema.encode() in request.body


def test_one_choice_is_not_worth_a_parameter():
    assert "n" not in body_of(ask(sampling=SamplingOptions(candidate_count=1)))


def test_a_bias_that_is_no_whole_number_is_sent_as_it_is():
    bias = {"1": -100.0, "2": 0.5}

    assert body_of(ask(sampling=SamplingOptions(logit_bias=bias)))["logit_bias"] == {
        "1": -100,
        "2": 0.5,
    }


def test_extra_options_are_merged_except_those_that_the_gateway_sets():
    spec = ask()
    spec.provider_options_json["*"] = '{"store": true, "seed": 1, "n": 5}'
    spec.provider_options_json["openai"] = '{"seed": 2, "model": "dear", "metadata": {"a": "b"}}'
    spec.provider_options_json["groq"] = '{"seed": 3}'

    body, warned = encode(spec)

    assert body == {
        "model": "gpt-4.1",
        "messages": [{"role": "user", "content": "Hi"}],
        "store": True,
        "seed": 2,
        "metadata": {"a": "b"},
    }
    assert sorted(warned) == [
        ("PARAMETER_DROPPED", "spec.provider_options_json.model"),
        ("PARAMETER_DROPPED", "spec.provider_options_json.n"),
    ]


def test_tiers_go_by_the_words_of_the_service():
    groq = OpenAITranslator(SERVICES["groq"].deviations)

    assert encode(ask(service_tier="priority"), translator=groq)[0]["service_tier"] == "performance"
    body, warned = encode(ask(service_tier="scale"), translator=groq)
    assert "service_tier" not in body
    assert warned == [("PARAMETER_DROPPED", "spec.service_tier")]


# Reasoning that goes back


def thought(service: str, data: bytes, text: str = "Hm") -> Part:
    state = ProviderState(provider=service, model="m", data=data)
    return Part(reasoning=Reasoning(text=text), provider_state=state)


@pytest.mark.parametrize("service", ["anthropic", "openai"])
def test_state_that_the_service_has_no_place_for_is_dropped_with_a_warning(service):
    body, warned = encode(ask(user("Hi"), assistant(thought(service, b"x"), "Yes?")))

    assert body["messages"][1] == {"role": "assistant", "content": "Yes?"}
    assert warned == [("STATE_DROPPED", "spec.messages")]


def test_details_go_back_to_openrouter_as_they_came():
    openrouter = OpenAITranslator(SERVICES["openrouter"].deviations)
    reading = read("openrouter", [(RECORDINGS / "openrouter/reasoning_tool.sse").read_bytes()])
    [choice] = reading.choices

    body, warned = encode(
        ask(user("Hi"), assistant(*choice.message.parts)),
        translator=openrouter,
        service="openrouter",
    )

    assert warned == []
    assert body["messages"][1]["reasoning_details"] == DETAILS
    assert body["messages"][1]["content"] is None


@pytest.mark.parametrize("data", [b"", b"{}", b"[1]", b"[{}", b"\xff"])
def test_details_that_were_tampered_with_are_dropped(data):
    openrouter = OpenAITranslator(SERVICES["openrouter"].deviations)

    body, warned = encode(
        ask(assistant("Yes?", thought("openrouter", data))),
        translator=openrouter,
        service="openrouter",
    )

    assert body["messages"] == [{"role": "assistant", "content": "Yes?"}]
    assert warned == [("STATE_DROPPED", "spec.messages")]


def test_reasoning_goes_back_to_deepseek_with_calls_and_only_with_them():
    deepseek = OpenAITranslator(SERVICES["deepseek"].deviations)

    turns = sent(
        assistant(thought("deepseek", "Hm …".encode(), text=""), call()),
        assistant(Part(reasoning=Reasoning(text="As said.")), call()),
        assistant(call()),
        assistant(thought("deepseek", b"Hm"), "Yes?"),
        translator=deepseek,
        service="deepseek",
    )

    assert [turn.get("reasoning_content") for turn in turns] == ["Hm …", "As said.", "", None]


# Answers


def stream(*chunks: Any) -> bytes:
    return b"".join(b"data: " + json.dumps(chunk).encode() + b"\n\n" for chunk in chunks)


def piece(delta: dict[str, Any], finish: str | None = None, **more: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": delta, "finish_reason": finish, **more}]}


def calling(index: int, call_id: str | None, name: str | None, arguments: Any) -> dict[str, Any]:
    function = {"name": name, "arguments": arguments}
    return {"tool_calls": [{"index": index, "id": call_id, "function": function}]}


COUNTS = {"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 4}}


def listed(*pieces: dict[str, Any]) -> dict[str, Any]:
    """Pieces of calls in one list."""
    return {"tool_calls": [call for made in pieces for call in made["tool_calls"]]}


def text(part: int, said: str) -> CompleteResponse:
    return CompleteResponse(text_delta=TextDelta(part_index=part, text=said))


def thinking(part: int, said: str, *, summary: bool = False) -> CompleteResponse:
    delta = ReasoningDelta(part_index=part, text=said, summary=summary)
    return CompleteResponse(reasoning_delta=delta)


def kept(part: int, reasoning: Reasoning, service: str, data: bytes) -> CompleteResponse:
    model = "m-1"
    state = ProviderState(provider=service, model=model, data=data)
    whole = Part(reasoning=reasoning, provider_state=state)
    return CompleteResponse(part_completed=PartCompleted(part_index=part, part=whole))


def begins(part: int, index: int, call_id: str, name: str) -> CompleteResponse:
    delta = ToolCallDelta(part_index=part, tool_call_index=index, id=call_id, name=name)
    return CompleteResponse(tool_call_delta=delta)


def writes(part: int, index: int, arguments: str) -> CompleteResponse:
    delta = ToolCallDelta(part_index=part, tool_call_index=index, arguments_json=arguments)
    return CompleteResponse(tool_call_delta=delta)


def called(part: int, call_id: str, name: str, arguments: str) -> CompleteResponse:
    whole = Part(tool_call=ToolCall(id=call_id, name=name, arguments_json=arguments))
    return CompleteResponse(part_completed=PartCompleted(part_index=part, part=whole))


def finished(reason: FinishReason.ValueType, native: str) -> CompleteResponse:
    end = ChoiceFinished(finish_reason=reason, native_finish_reason=native)
    return CompleteResponse(choice_finished=end)


def recorded(name: str) -> Reading:
    return read(name.partition("/")[0], [(RECORDINGS / f"{name}.sse").read_bytes()])


def call_events(*calls: tuple[str, str, list[str]], native: str = "tool_calls") -> list[Any]:
    """Id, name and fragments of calls that are written one after another."""
    written: list[Any] = []
    for index, (call_id, name, fragments) in enumerate(calls):
        written.append(begins(index, index, call_id, name))
        written += [writes(index, index, fragment) for fragment in fragments]
    for index, (call_id, name, fragments) in enumerate(calls):
        written.append(called(index, call_id, name, "".join(fragments)))
    return [*written, finished(CALLS, native)]


HELLO = [text(0, "Hé"), text(0, "llo, world 👋"), finished(STOP, "stop")]
WEATHER_ARGUMENTS = '{"city":"Zürich","days":2}'


@pytest.mark.parametrize(
    ("name", "events"),
    [
        (
            "openai/hello",
            [text(0, "Hé"), text(0, "llo"), text(0, ", world 👋"), finished(STOP, "stop")],
        ),
        (
            "openai/reasoning",
            [
                thinking(0, "17 times 23 "),
                thinking(0, "is 391."),
                text(1, "It is "),
                text(1, "391."),
                finished(STOP, "stop"),
            ],
        ),
        (
            "openai/refusal",
            [
                CompleteResponse(refusal_delta=RefusalDelta(text="I'm sorry, ")),
                CompleteResponse(refusal_delta=RefusalDelta(text="I can't help with that.")),
                finished(STOP, "stop"),
            ],
        ),
        (
            "azure/asynchronous_filter",
            [text(0, "Héllo"), text(0, ", world 👋"), finished(STOP, "stop")],
        ),
        ("mistral/hello", HELLO),
        (
            "mistral/tool_call",
            call_events(("call_0", "get_weather", ['{"city": "Zürich", "days": 2}'])),
        ),
        (
            "mistral/thinking",
            [
                thinking(0, "17 times 23 "),
                thinking(0, "is 391."),
                text(1, "It is "),
                text(1, "391."),
                finished(STOP, "stop"),
            ],
        ),
        ("groq/hello", HELLO),
        ("groq/tool_call", call_events(("fc_synthetic-1", "get_weather", [WEATHER_ARGUMENTS]))),
        ("openrouter/hello", HELLO),
        (
            "openrouter/reasoning_tool",
            [
                thinking(0, "The user wants "),
                thinking(0, "the weather."),
                kept(
                    0,
                    Reasoning(text="The user wants the weather."),
                    "openrouter",
                    json.dumps(DETAILS, separators=(",", ":")).encode(),
                ),
                begins(1, 0, "toolu_Synthetic01", "get_weather"),
                writes(1, 0, '{"city": "Zürich", "days": 2}'),
                called(1, "toolu_Synthetic01", "get_weather", '{"city": "Zürich", "days": 2}'),
                finished(CALLS, "tool_calls"),
            ],
        ),
        ("vllm/hello", HELLO),
        (
            "vllm/tool_call",
            call_events(
                ("chatcmpl-tool-synthetic01", "get_weather", ['{"city": "Zürich"', ', "days": 2}'])
            ),
        ),
        ("llamacpp/hello", HELLO),
        (
            "openai/same_index",
            [
                thinking(0, "Two places."),
                begins(1, 0, "call_synth001", "get_weather"),
                writes(1, 0, '{"city":"Oslo"}'),
                begins(2, 1, "call_synth002", "get_weather"),
                writes(2, 1, '{"city":"Rome"}'),
                begins(3, 2, "call_synth003", "now"),
                writes(3, 2, "{}"),
                called(1, "call_synth001", "get_weather", '{"city":"Oslo"}'),
                called(2, "call_synth002", "get_weather", '{"city":"Rome"}'),
                called(3, "call_synth003", "now", "{}"),
                finished(CALLS, "tool_calls"),
            ],
        ),
        (
            "deepseek/reasoning_tool",
            [
                thinking(0, "The user wants "),
                thinking(0, "the weather."),
                text(1, "Let me check."),
                kept(2, Reasoning(redacted=True), "deepseek", b"The user wants the weather."),
                begins(3, 0, "call_00_Synthetic000000000001", "get_weather"),
                writes(3, 0, '{"city": "Zürich", '),
                writes(3, 0, '"days": 2}'),
                called(
                    3,
                    "call_00_Synthetic000000000001",
                    "get_weather",
                    '{"city": "Zürich", "days": 2}',
                ),
                finished(CALLS, "tool_calls"),
            ],
        ),
        (
            "xai/tool_call",
            call_events(
                ("call_synthetic01", "get_weather", [WEATHER_ARGUMENTS]),
                native="REASON_TOOL_CALLS",
            ),
        ),
        ("together/hello", [*HELLO[:2], finished(STOP, "eos")]),
    ],
)
def test_a_recording_gives_these_events(name, events):
    reading = recorded(name)

    assert reading.error is None
    assert reading.events == events


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("openai/length", FinishReason.FINISH_REASON_LENGTH),
        ("openai/length_tool_call", FinishReason.FINISH_REASON_LENGTH),
        ("openai/content_filter", FinishReason.FINISH_REASON_CONTENT_FILTER),
        ("mistral/length", FinishReason.FINISH_REASON_LENGTH),
        ("vllm/length_tool_call", FinishReason.FINISH_REASON_LENGTH),
        ("xai/length", FinishReason.FINISH_REASON_LENGTH),
        ("xai/context", FinishReason.FINISH_REASON_CONTEXT_LENGTH),
        ("xai/time_limit", FinishReason.FINISH_REASON_LENGTH),
    ],
)
def test_an_answer_ends_for_the_reason_that_holds(name, reason):
    [choice] = recorded(name).choices

    assert choice.finish_reason == reason


@pytest.mark.parametrize(
    ("name", "usage"),
    [
        ("openai/hello", Usage(input_tokens=9, output_tokens=6, total_tokens=15)),
        (
            "openai/cached_usage",
            Usage(
                input_tokens=5326,
                output_tokens=71,
                total_tokens=5397,
                cached_input_tokens=4096,
                cache_write_input_tokens=1024,
                reasoning_tokens=64,
                input_audio_tokens=96,
                input_image_tokens=110,
            ),
        ),
        (
            "deepseek/cached_usage",
            Usage(
                input_tokens=5326,
                output_tokens=71,
                total_tokens=5397,
                cached_input_tokens=4096,
                reasoning_tokens=64,
            ),
        ),
        ("groq/usage_aside", Usage(input_tokens=9, output_tokens=6, total_tokens=15)),
        (
            # Its 6 tokens of completion leave out the 40 of reasoning.
            "xai/reasoning",
            Usage(
                input_tokens=14,
                output_tokens=46,
                total_tokens=60,
                cached_input_tokens=4,
                reasoning_tokens=40,
            ),
        ),
        (
            "together/hello",
            Usage(input_tokens=9, output_tokens=6, total_tokens=15, cached_input_tokens=4),
        ),
    ],
)
def test_usage_is_read_wherever_it_stands(name, usage):
    assert recorded(name).facts.usage == usage


@pytest.mark.parametrize(
    ("name", "failure", "status"),
    [
        ("openai/error_midstream", Failure.SERVER, 200),
        ("mistral/error_midstream", Failure.SERVER, 200),
        ("mistral/error_finish", Failure.SERVER, 200),
        ("groq/error_midstream", Failure.SERVER, 200),
        ("groq/error_aside", Failure.SERVER, 200),
        ("openrouter/error_midstream", Failure.THROTTLED, 429),
        ("openrouter/error_finish", Failure.SERVER, 502),
        ("openrouter/error_first", Failure.SERVER, 200),
        ("vllm/error_midstream", Failure.SERVER, 500),
        ("llamacpp/error_midstream", Failure.SERVER, 500),
        ("xai/error_midstream", Failure.SERVER, 200),
        ("deepseek/error_finish", Failure.SERVER, 200),
        ("openai/cut_off", Failure.AMBIGUOUS, 0),
        ("vllm/cut_no_finish", Failure.AMBIGUOUS, 0),
    ],
)
def test_an_error_inside_a_stream_is_classified(name, failure, status):
    error = recorded(name).error

    assert error is not None
    assert (error.failure, error.http_status) == (failure, status)


def test_facts_are_learned_from_the_first_chunk_that_names_a_model():
    facts = recorded("azure/hello").facts

    assert facts.response_model == "gpt-4.1-mini-2025-04-14"
    assert facts.system_fingerprint == "fp_0synthetic"


def test_log_probabilities_come_with_their_text_even_without_any():
    deltas = [event.text_delta for event in recorded("openai/logprobs").events[:-1]]

    assert [delta.text for delta in deltas] == ["Hi", "", " 👋"]
    hi = TokenLogprob(token="Hi", logprob=-0.125, utf8=b"Hi")
    hello = TokenLogprob(token="Hello", logprob=-2.5, utf8=b"Hello")
    assert list(deltas[0].logprobs) == [
        TokenLogprob(token="Hi", logprob=-0.125, utf8=b"Hi", top=[hi, hello])
    ]
    assert [list(delta.logprobs) for delta in deltas[1:]] == [
        [TokenLogprob(token="\\xf0\\x9f\\x91", logprob=-0.25, utf8=b"\xf0\x9f\x91")],
        [TokenLogprob(token="\\x8b", logprob=-0.5, utf8=b"\x8b")],
    ]


def test_an_encrypted_block_is_kept_beside_its_summary():
    [reasoning, done, *_] = recorded("openrouter/encrypted_reasoning").events

    assert reasoning == thinking(0, "**Weighing it**", summary=True)
    part = done.part_completed.part
    assert part.reasoning == Reasoning(text="**Weighing it**", summary=True)
    assert [detail["type"] for detail in json.loads(part.provider_state.data)] == [
        "reasoning.summary",
        "reasoning.encrypted",
    ]


def test_state_is_kept_for_callers_who_do_not_want_to_see_reasoning():
    translator = OpenAITranslator(SERVICES["openrouter"].deviations)
    asked = Candidate(provider="openrouter", id="m", model="m-1", family="openrouter")
    ids = count()
    decoder = translator.decoder(
        asked, Prompt(ask(), stream=True), AttemptFacts(), lambda: f"call_{next(ids)}"
    )
    data = (RECORDINGS / "openrouter/reasoning_tool.sse").read_bytes()

    [done, *_] = decoder.feed(data)

    assert done.part_completed.part.reasoning == Reasoning(redacted=True)
    assert json.loads(done.part_completed.part.provider_state.data) == DETAILS


@pytest.mark.parametrize(
    ("deltas", "calls"),
    [
        # Interleaved, as servers that decode calls in parallel write them.
        (
            [
                calling(0, "a", "x", ""),
                calling(1, "b", "y", ""),
                calling(0, None, None, '{"n":'),
                calling(1, None, None, "{}"),
                calling(0, None, None, "1}"),
            ],
            [("a", "x", '{"n":1}'), ("b", "y", "{}")],
        ),
        # All numbered 0, told apart by id, and one of them goes on later.
        (
            [
                calling(0, "a", "x", '{"n":'),
                calling(0, "b", "y", "{}"),
                calling(0, "a", None, "1}"),
            ],
            [("a", "x", '{"n":1}'), ("b", "y", "{}")],
        ),
        # Id and name again with every fragment.
        (
            [calling(0, "a", "x", '{"n":'), calling(0, "a", "x", "1}")],
            [("a", "x", '{"n":1}')],
        ),
        # Arguments as an object, and none at all.
        (
            [calling(0, "a", "x", {"n": 1}), calling(1, "b", "y", None)],
            [("a", "x", '{"n":1}'), ("b", "y", "{}")],
        ),
        # No id, or one twice.
        (
            [calling(0, None, "x", "{}"), calling(1, "", "y", "{}"), calling(2, "null", "z", "{}")],
            [("call_0", "x", "{}"), ("call_1", "y", "{}"), ("call_2", "z", "{}")],
        ),
        # The same id under different numbers, in one list or in several, and both go on.
        (
            [
                listed(calling(0, "0", "x", '{"n":'), calling(1, "0", "y", '{"m":')),
                calling(1, "0", None, "2}"),
                calling(0, "0", None, "1}"),
            ],
            [("0", "x", '{"n":1}'), ("call_0", "y", '{"m":2}')],
        ),
        (
            [calling(0, "0", "x", '{"n":1}'), calling(1, "0", "y", '{"m":2}')],
            [("0", "x", '{"n":1}'), ("call_0", "y", '{"m":2}')],
        ),
        # No ids, and all numbered 0: one after the other, in one list, and twice the same.
        *(
            (
                [calling(0, none, "x", '{"n":1}'), calling(0, none, "y", "{}")],
                [("call_0", "x", '{"n":1}'), ("call_1", "y", "{}")],
            )
            for none in (None, "")
        ),
        (
            [
                calling(0, None, "x", '{"n":'),
                calling(0, None, None, "1}"),
                calling(0, None, "y", ""),
                calling(0, None, None, '{"m":2}'),
            ],
            [("call_0", "x", '{"n":1}'), ("call_1", "y", '{"m":2}')],
        ),
        (
            [listed(calling(0, None, "x", None), calling(0, None, "x", None))],
            [("call_0", "x", "{}"), ("call_1", "x", "{}")],
        ),
        (
            [listed(calling(0, None, "x", '{"n":1}'), calling(0, None, "x", '{"n":2}'))],
            [("call_0", "x", '{"n":1}'), ("call_1", "x", '{"n":2}')],
        ),
        (
            [calling(0, None, "x", '{"n":1}'), calling(0, None, "x", '{"n":2}')],
            [("call_0", "x", '{"n":1}'), ("call_1", "x", '{"n":2}')],
        ),
        (
            [
                calling(0, None, "x", '{"n":1}'),
                calling(0, None, "x", ""),
                calling(0, None, None, '{"n":2}'),
            ],
            [("call_0", "x", '{"n":1}'), ("call_1", "x", '{"n":2}')],
        ),
        # The same id and number, and another name.
        (
            [calling(0, "0", "x", '{"n":1}'), calling(0, "0", "y", "{}")],
            [("0", "x", '{"n":1}'), ("call_0", "y", "{}")],
        ),
        # No id, and the name again with every fragment, the last of which is empty.
        (
            [
                calling(0, None, "x", '{"n":{}'),
                calling(0, None, "x", ',"m":"}'),
                calling(0, None, "x", '"}'),
                calling(0, None, "x", ""),
                calling(0, None, "x", None),
            ],
            [("call_0", "x", '{"n":{},"m":"}"}')],
        ),
        # The same in one list, as a proxy joins pieces.
        (
            [listed(calling(0, None, "x", '{"n":'), calling(0, None, "x", "1}"))],
            [("call_0", "x", '{"n":1}')],
        ),
        # White space after the end belongs to nobody else, with the name once more or without.
        (
            [calling(0, None, "x", "{}"), calling(0, None, "x", ""), calling(0, None, None, "\n")],
            [("call_0", "x", "{}\n")],
        ),
        (
            [calling(0, None, "x", '{"n":1}'), calling(0, None, "x", "\n")],
            [("call_0", "x", '{"n":1}\n')],
        ),
        # It does not hide that the arguments are whole.
        (
            [
                calling(0, None, "x", "{}"),
                calling(0, None, "x", "\n"),
                calling(0, None, "x", " "),
                calling(0, None, "x", '{"n":2}'),
            ],
            [("call_0", "x", "{}\n "), ("call_1", "x", '{"n":2}')],
        ),
        # The same id and name under another number: one call, whose pieces may go on there, or that is sent again.
        (
            [calling(0, "a", "x", ""), calling(0, "a", None, ""), calling(1, "a", "x", "{}")],
            [("a", "x", "{}")],
        ),
        (
            [
                calling(0, "a", "x", '{"n":'),
                calling(1, "a", "x", "1"),
                calling(1, None, None, "2"),
                calling(2, "a", "x", "}"),
            ],
            [("a", "x", '{"n":12}')],
        ),
        (
            [
                listed(calling(0, "a", "x", '{"n":1}'), calling(1, "b", "y", "{}")),
                calling(2, "a", "x", '{"n": 1}'),
                calling(3, "b", "y", "{}"),
            ],
            [("a", "x", '{"n":1}'), ("b", "y", "{}")],
        ),
        # But not in one list, and not with other arguments where the first are whole.
        (
            [listed(calling(0, "0", "x", '{"n":1}'), calling(1, "0", "x", '{"n":1}'))],
            [("0", "x", '{"n":1}'), ("call_0", "x", '{"n":1}')],
        ),
        *(
            (
                [calling(0, "0", "x", '{"n":1}'), calling(number, "0", "x", '{"n":2}')],
                [("0", "x", '{"n":1}'), ("call_0", "x", '{"n":2}')],
            )
            for number in (0, 1)
        ),
        # A whole call once more in a later chunk, as a last one that sums up: under its number, with its id or none.
        *(
            (
                [calling(0, call_id, "x", '{"n":1}'), calling(0, call_id, "x", '{"n":1}')],
                [(call_id or "call_0", "x", '{"n":1}')],
            )
            for call_id in ("a", None)
        ),
        # In one list it is two, and so it is under a number of its own.
        (
            [listed(calling(0, None, "x", '{"n":1}'), calling(0, None, "x", '{"n":1}'))],
            [("call_0", "x", '{"n":1}'), ("call_1", "x", '{"n":1}')],
        ),
        (
            [calling(0, None, "x", '{"n":1}'), calling(1, None, "x", '{"n":1}')],
            [("call_0", "x", '{"n":1}'), ("call_1", "x", '{"n":1}')],
        ),
    ],
)
def test_calls_are_told_apart_however_they_are_numbered(deltas, calls):
    data = stream(*(piece(delta) for delta in deltas), piece({}, "tool_calls"))

    [choice] = read("openai", [data]).choices

    made = [part.tool_call for part in choice.message.parts]
    assert [(call.id, call.name, call.arguments_json) for call in made] == calls


@pytest.mark.parametrize("call_id", ["0", "", None])
def test_calls_of_a_whole_body_are_told_apart_without_ids_and_numbers(call_id):
    calls = [
        {"id": call_id, "type": "function", "function": {"name": name, "arguments": "{}"}}
        for name in "xy"
    ]
    message = {"role": "assistant", "content": None, "tool_calls": calls}
    choice = {"index": 0, "message": message, "finish_reason": "tool_calls"}

    [read_choice] = read_whole("openai", json.dumps({"choices": [choice]}).encode()).choices

    made = [part.tool_call for part in read_choice.message.parts]
    assert [(call.name, call.arguments_json) for call in made] == [("x", "{}"), ("y", "{}")]
    assert len({call.id for call in made}) == 2


def test_a_call_whose_name_is_repeated_with_every_brace_stays_one():
    braces = [calling(0, None, "x", "{}") for _ in range(MAX_LOOKS)]
    pieces = [calling(0, None, "x", '{"n":"'), *braces, calling(0, None, "x", '"}')]

    [choice] = read("openai", [stream(*map(piece, pieces), piece({}, "tool_calls"))]).choices

    [made] = choice.message.parts
    assert made.tool_call.arguments_json == '{"n":"%s"}' % ("{}" * MAX_LOOKS)


@pytest.mark.parametrize(
    "begun", ['{"a":"' + " " * 400_000, '{"a":1' + "\n" * 200_000], ids=["in a text", "outside"]
)
def test_a_name_that_comes_again_and_again_is_as_quick_after_long_arguments(begun):
    reader = decoder("openai", AttemptFacts())
    reader.feed(stream(piece(calling(0, None, "x", begun))))
    again = stream(piece(listed(*[calling(0, None, "x", "")] * 10_000)))

    started_s = time.thread_time()
    reader.feed(again)

    # Some milliseconds; seconds where each name looks through all of the last piece.
    assert time.thread_time() - started_s < 0.5


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ('{"n": 1', FinishReason.FINISH_REASON_LENGTH),
        ("{n: 1}", FinishReason.FINISH_REASON_MALFORMED_TOOL_CALL),
        ("[1]", FinishReason.FINISH_REASON_MALFORMED_TOOL_CALL),
    ],
)
@pytest.mark.parametrize("native", ["stop", "tool_calls", "function_call"])
def test_arguments_that_do_not_parse_are_handed_on_and_named(arguments, reason, native):
    data = stream(piece(calling(0, "a", "x", arguments)), piece({}, native))

    reading = read("openai", [data])

    [choice] = reading.choices
    assert choice.message.parts[0].tool_call.arguments_json == arguments
    assert choice.finish_reason == reason
    assert [warning.code for warning in reading.facts.warnings] == ["MALFORMED_TOOL_CALL"]


def test_a_call_that_has_no_name_is_no_call():
    error = read("openai", [stream(piece(calling(0, "a", None, "{}")))]).error

    assert error is not None
    assert error.failure is Failure.PROTOCOL


def test_an_unknown_end_is_an_end_of_another_kind():
    [choice] = read("openai", [stream(piece({"content": "Hi"}, "bored"))]).choices

    assert choice.finish_reason == FinishReason.FINISH_REASON_OTHER
    assert choice.native_finish_reason == "bored"


@pytest.mark.parametrize(
    "usage",
    [
        {"prompt_tokens": -1, "completion_tokens": 2},
        {"prompt_tokens": "9", "completion_tokens": 2},
        {"prompt_tokens": 10**12, "completion_tokens": 2},
        {"completion_tokens": 2},
        [],
        "many",
    ],
)
def test_usage_that_cannot_be_is_not_believed(usage):
    data = stream(piece({"content": "Hi"}, "stop"), {"choices": [], "usage": usage})

    assert read("openai", [data]).facts.usage is None


def test_details_of_usage_never_exceed_their_totals():
    usage = {
        "prompt_tokens": 9,
        "completion_tokens": 6,
        "prompt_tokens_details": {"cached_tokens": 99},
        "completion_tokens_details": {"reasoning_tokens": 99},
    }
    data = stream(piece({"content": "Hi"}, "stop"), {"choices": [], "usage": usage})

    assert read("openai", [data]).facts.usage == Usage(
        input_tokens=9,
        output_tokens=6,
        total_tokens=15,
        cached_input_tokens=9,
        reasoning_tokens=6,
    )


@pytest.mark.parametrize(
    "late",
    [
        piece({"content": " there"}),
        piece({"content": " there"}, "length"),
        piece({"content": ""}, logprobs={"content": [{"token": "x", "logprob": -1.0}]}),
        piece({"reasoning_content": "Hm"}),
        piece({"refusal": "No"}),
        piece(calling(0, "a", "x", "{}")),
    ],
    ids=["text", "text and an end", "log probabilities", "reasoning", "a refusal", "a call"],
)
def test_words_after_the_end_of_a_choice_are_left_out(late):
    reading = read("openai", [stream(piece({"content": "Hi"}, "stop"), COUNTS, late)])

    assert reading.events == [text(0, "Hi"), finished(STOP, "stop")]


@pytest.mark.parametrize(
    "last", [b"data: [DONE]\n\n", b"", stream(COUNTS)], ids=["[DONE]", "its end", "usage"]
)
@pytest.mark.parametrize(
    ("chunks", "words"),
    [
        (
            [piece({"content": word}, "stop") for word in ("I am ", "a whole ", "answer.")],
            [text(0, "I am "), text(0, "a whole "), text(0, "answer.")],
        ),
        (
            [piece({"role": "assistant", "content": ""}, "stop"), piece({"content": "Hi"})],
            [text(0, "Hi")],
        ),
        (
            [
                piece({"reasoning_content": "Hm"}, "stop"),
                piece({"content": "4"}),
                piece({"content": "2"}, "stop"),
            ],
            [thinking(0, "Hm"), text(1, "4"), text(1, "2")],
        ),
    ],
    ids=["on every chunk", "on the first chunk", "on thoughts"],
)
def test_an_end_that_is_said_too_early_leaves_nothing_out(chunks, words, last):
    reading = read("openai", [stream(*chunks) + last])

    assert reading.events == [*words, finished(STOP, "stop")]


def test_a_last_chunk_that_comes_twice_counts_once():
    last = piece({"content": " there"}, "stop")

    reading = read("openai", [stream(piece({"content": "Hi"}), last, last)])

    assert reading.events == [text(0, "Hi"), text(0, " there"), finished(STOP, "stop")]


@pytest.mark.parametrize(
    "before", [[], [piece({"content": "Oh "}, "stop")]], ids=["first", "later"]
)
def test_the_same_word_twice_is_two_words_where_each_says_that_it_is_the_last(before):
    word = piece({"content": "ha "}, "stop")

    reading = read("openai", [stream(*before, word, word)])

    assert reading.said("text_delta").endswith("ha ha ")


@pytest.mark.parametrize(
    ("natives", "end"),
    [
        (["stop", "length"], finished(LENGTH, "length")),
        (["length", "stop"], finished(LENGTH, "length")),
        (["content_filter", "eos"], finished(FILTERED, "content_filter")),
        (["length", "strange"], finished(LENGTH, "length")),
        (["length", "content_filter"], finished(FILTERED, "content_filter")),
        (["strange", "stop"], finished(STOP, "stop")),
        (["stop", "eos"], finished(STOP, "eos")),
    ],
)
def test_the_last_reason_for_an_end_counts_that_tells_why(natives, end):
    chunks = [piece({"content": "a"}, native) for native in natives]

    reading = read("openai", [stream(*chunks)])

    assert reading.events == [text(0, "a"), text(0, "a"), end]


@pytest.mark.parametrize(
    ("chunks", "is_believed"),
    [
        ([piece({"content": "Hi"}), piece({}, "stop")], True),
        ([piece({"content": "Hi"}, "stop")], True),
        ([piece({"content": "Hi"}, "stop"), piece({}, "stop")], True),
        ([piece({"reasoning_content": "Hm"}), piece({"content": "Hi"}, "stop")], True),
        ([piece({"reasoning_content": "Hm"}, "length")], True),
        ([piece({"content": "Hi"}, "stop"), COUNTS], True),
        ([piece({"role": "assistant", "content": ""}, "stop")], False),
        ([piece({"reasoning_content": "Hm"}, "stop")], False),
        ([piece({"reasoning_content": "Hm"}, "stop"), piece({"content": "Hi"}, "stop")], False),
        ([piece({"content": "Hi"}, "stop"), piece({"content": " there"})], False),
        ([piece({"content": "Hi"}, "stop"), piece({"content": " there"}, "stop")], False),
        ([piece({"content": "Hi"}, "stop"), piece({"content": "!"}, "stop"), COUNTS], True),
    ],
)
def test_silence_after_an_end_is_believed_only_from_who_did_not_say_it_too_early(
    chunks, is_believed
):
    reader = decoder("openai", AttemptFacts())

    reader.feed(stream(*chunks))

    assert reader.is_finished
    assert reader.has_told_end is is_believed


def test_thoughts_that_must_go_back_stay_one_though_each_says_that_it_is_the_end():
    details = [{"type": "reasoning.text", "text": word, "index": 0} for word in ("Hm", "!")]
    thoughts = [piece({"reasoning_details": [detail]}, "stop") for detail in details]

    reading = read("openrouter", [stream(*thoughts, piece({"content": "Hi"}, "stop"))])

    kinds = [event.WhichOneof("event") for event in reading.events]
    assert kinds.count("part_completed") == 1
    assert reading.said("text_delta") == "Hi"


def test_usage_and_calls_after_the_end_of_a_choice_still_count():
    call = calling(0, "a", "x", "{}")
    data = stream(piece({"content": "Hi"}, "stop"), piece(call), COUNTS)

    reading = read("openai", [data])

    assert reading.events == [
        text(0, "Hi"),
        begins(1, 0, "a", "x"),
        writes(1, 0, "{}"),
        called(1, "a", "x", "{}"),
        finished(CALLS, "stop"),
    ]
    assert reading.facts.usage is not None


def test_an_answer_that_nobody_asked_for_is_left_out_and_ends_nothing():
    def other(delta: dict[str, Any], end: str | None = None) -> dict[str, Any]:
        return {"choices": [{"index": 1, "delta": delta, "finish_reason": end}]}

    data = stream(
        other({"content": "No"}, "stop"),
        other(calling(0, "a", "x", "{}")),
        piece({"content": "Hi"}, "stop"),
    )
    cut = stream(piece({"content": "Hi"}), other({}, "stop")).removesuffix(b"data: [DONE]\n\n")

    assert read("openai", [data]).events == [text(0, "Hi"), finished(STOP, "stop")]
    assert read("openai", [data], choices=2).events[0].text_delta.choice_index == 1
    error = read("openai", [cut]).error
    assert error is not None
    assert error.failure is Failure.AMBIGUOUS


def test_nothing_counts_after_done():
    data = stream(piece({"content": "Hi"}, "stop")) + b"data: [DONE]\n\ndata: {broken\n\n"

    assert read("openai", [data]).error is None


@pytest.mark.parametrize(
    ("body", "failure"),
    [
        (b"{}", Failure.PROTOCOL),
        (b'{"choices": []}', Failure.PROTOCOL),
        (b'{"choices": [{"index": 0, "message": {"content": "Hi"}}]}', Failure.PROTOCOL),
        (b"<html>", Failure.PROTOCOL),
        (b'{"error": {"code": 402, "message": "x"}}', Failure.EXHAUSTED),
        (b'{"object": "error", "message": "x", "code": 429}', Failure.THROTTLED),
    ],
)
def test_a_whole_body_that_is_no_answer_is_an_error(body, failure):
    asked = Candidate(provider="openai", id="m", model="m")
    decoder = OPENAI.decoder(asked, Prompt(ask(), stream=False), AttemptFacts(), lambda: "call_0")

    with pytest.raises(UpstreamError) as raised:
        decoder.whole(body)

    assert raised.value.failure is failure


def test_a_model_that_does_not_reason_needs_no_warning_to_do_none():
    none = ReasoningOptions(effort=ReasoningEffort.REASONING_EFFORT_NONE)

    assert "reasoning_effort" not in body_of(ask(reasoning=none))
