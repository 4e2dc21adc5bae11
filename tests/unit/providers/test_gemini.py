"""The Gemini dialect: whole bodies out, whole lists of events in."""

import base64
import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from trunkline.v1.completion_event_pb2 import (
    ChoiceFinished,
    CompleteResponse,
    PartCompleted,
    ReasoningDelta,
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
from trunkline_server.core.failure import Failure
from trunkline_server.core.ports import AttemptFacts, Prompt, Unencodable
from trunkline_server.providers.gemini import GeminiDecoder, GeminiTranslator

RECORDINGS = Path(__file__).parents[2] / "recordings" / "gemini"
SIZES = pytest.mark.parametrize("size", [1, 7, 4096], ids="{}-byte chunks".format)
NEWEST = "gemini-3.8-flash"
OLDER = "gemini-2.5-flash"
SIGNATURE = "CiQBcsjafHR5nJr2vX1m0e9bQyN2kzG8s4pT6wYhUoLdRfA3cEsKaQFyyNp8q1ZbV7oD0kP5xWm3uGtH"
TEXT_SIGNATURE = "CnsBcsjafOa0b8k3VwqTn5LrY1uJ6mXeZ9hPsD2fGtC7iBoKxRvNQyW4zAaUl0EjHg=="
UNSIGNED = "skip_thought_signature_validator"

GET_WEATHER = Tool(
    name="get_weather",
    description="Weather of a city",
    parameters_schema_json='{"type":"object","properties":{"city":{"type":"string"}}}',
)
GET_TIME = Tool(name="get_time")
DECLARED_WEATHER = {
    "name": "get_weather",
    "description": "Weather of a city",
    "parametersJsonSchema": {"type": "object", "properties": {"city": {"type": "string"}}},
}
DECLARED_TIME = {"name": "get_time"}


def candidate(model: str = NEWEST) -> Candidate:
    return Candidate(provider="google", id=model, model=model, family="gemini")


def user(*parts: str | Part, name: str = "") -> Message:
    return message(Role.ROLE_USER, parts, name)


def assistant(*parts: str | Part, name: str = "") -> Message:
    return message(Role.ROLE_ASSISTANT, parts, name)


def tool(*parts: Part) -> Message:
    return message(Role.ROLE_TOOL, parts)


def message(role: Role.ValueType, parts: Sequence[str | Part], name: str = "") -> Message:
    written = [Part(text=part) if isinstance(part, str) else part for part in parts]
    return Message(role=role, parts=written, name=name)


def state(data: str, provider: str = "gemini") -> ProviderState:
    return ProviderState(provider=provider, model=NEWEST, data=data.encode())


def call(call_id: str, arguments: str = "{}", *, signature: ProviderState | None = None) -> Part:
    written = ToolCall(id=call_id, name="get_weather", arguments_json=arguments)
    return Part(tool_call=written, provider_state=signature)


def result(call_id: str, *parts: str | Part, is_error: bool = False) -> Part:
    content = [Part(text=part) if isinstance(part, str) else part for part in parts]
    return Part(tool_result=ToolResult(tool_call_id=call_id, parts=content, is_error=is_error))


def encode(
    spec: CompletionSpec, model: str = NEWEST, *, stream: bool = True
) -> tuple[Any, list[tuple[str, str]]]:
    """The body, and the codes and fields of the warnings."""
    request = GeminiTranslator().encode(candidate(model), Prompt(spec=spec, stream=stream))
    return json.loads(request.body), [(w.code, w.field) for w in request.warnings]


def config_of(spec: CompletionSpec, model: str = NEWEST) -> tuple[Any, list[tuple[str, str]]]:
    """As `encode`, of a spec that says hello: the generation config alone."""
    spec.messages.append(user("Hello"))
    body, warnings = encode(spec, model)
    assert body.pop("contents") == [{"role": "user", "parts": [{"text": "Hello"}]}]
    assert set(body) <= {"generationConfig"}
    return body.get("generationConfig", {}), warnings


def contents_of(*messages: Message, model: str = NEWEST) -> Any:
    body, warnings = encode(CompletionSpec(messages=messages), model)
    assert warnings == []
    assert set(body) == {"contents"}
    return body["contents"]


def decoder(spec: CompletionSpec | None = None) -> tuple[GeminiDecoder, AttemptFacts]:
    facts = AttemptFacts()
    ids = itertools.count(1)
    prompt = Prompt(spec=spec or CompletionSpec(), stream=True)
    made = GeminiTranslator().decoder(candidate(), prompt, facts, lambda: f"call_{next(ids)}")
    return made, facts


def decode(
    data: bytes, size: int = 4096, spec: CompletionSpec | None = None
) -> tuple[list[CompleteResponse], AttemptFacts]:
    reader, facts = decoder(spec)
    chunks = [data[start : start + size] for start in range(0, len(data), size)]
    events = [event for chunk in chunks for event in reader.feed(chunk)]
    return events + reader.finish(), facts


def read_into(events: list[CompleteResponse], data: bytes, size: int) -> None:
    """Reads a stream of which the events before a failure matter."""
    reader, _ = decoder()
    for start in range(0, len(data), size):
        events += reader.feed(data[start : start + size])
    events += reader.finish()


def recording(name: str) -> bytes:
    return (RECORDINGS / name).read_bytes()


def sse(*chunks: Any) -> bytes:
    return b"".join(b"data: " + json.dumps(chunk).encode() + b"\r\n\r\n" for chunk in chunks)


def chunk(*parts: dict[str, Any], finish: str | None = None, **fields: Any) -> dict[str, Any]:
    written: dict[str, Any] = {"content": {"role": "model", "parts": list(parts)}, **fields}
    if finish:
        written["finishReason"] = finish
    return {"candidates": [written]}


def text(said: str, part: int = 0, choice: int = 0) -> CompleteResponse:
    return CompleteResponse(text_delta=TextDelta(choice_index=choice, part_index=part, text=said))


def thought(said: str, part: int = 0) -> CompleteResponse:
    return CompleteResponse(
        reasoning_delta=ReasoningDelta(part_index=part, text=said, summary=True)
    )


def completed(part_index: int, part: Part) -> CompleteResponse:
    return CompleteResponse(part_completed=PartCompleted(part_index=part_index, part=part))


def called(
    part: int, index: int, call_id: str, name: str, arguments: str, signature: str = ""
) -> list[CompleteResponse]:
    """A call begins, and its arguments come whole."""
    begun = ToolCallDelta(part_index=part, tool_call_index=index, id=call_id, name=name)
    if signature:
        begun.provider_state.CopyFrom(state(signature))
    written = ToolCallDelta(part_index=part, tool_call_index=index, arguments_json=arguments)
    return [CompleteResponse(tool_call_delta=begun), CompleteResponse(tool_call_delta=written)]


def whole_call(
    part: int, call_id: str, name: str, arguments: str, signature: str = ""
) -> CompleteResponse:
    written = ToolCall(id=call_id, name=name, arguments_json=arguments)
    return completed(
        part, Part(tool_call=written, provider_state=state(signature) if signature else None)
    )


def finished(reason: FinishReason.ValueType, native: str, choice: int = 0) -> CompleteResponse:
    return CompleteResponse(
        choice_finished=ChoiceFinished(
            choice_index=choice, finish_reason=reason, native_finish_reason=native
        )
    )


STOPPED = finished(FinishReason.FINISH_REASON_STOP, "STOP")
CALLED = finished(FinishReason.FINISH_REASON_TOOL_CALLS, "STOP")


# Requests


@pytest.mark.parametrize(
    ("model", "stream", "path"),
    [
        (NEWEST, True, "/models/gemini-3.8-flash:streamGenerateContent?alt=sse"),
        (NEWEST, False, "/models/gemini-3.8-flash:generateContent"),
        ("models/gemini-4-hydrogen", False, "/models/gemini-4-hydrogen:generateContent"),
        ("a/b c", False, "/models/a%2Fb%20c:generateContent"),
    ],
)
def test_the_path_names_the_model_and_the_way_to_answer(model, stream, path):
    prompt = Prompt(spec=CompletionSpec(messages=[user("Hello")]), stream=stream)

    request = GeminiTranslator().encode(candidate(model), prompt)

    assert (request.path, list(request.headers)) == (path, [])


def test_the_dialect_can_express_everything():
    assert GeminiTranslator().capabilities == frozenset(Capability)


def test_system_text_is_a_field_of_its_own_and_neighbours_of_one_role_are_one_turn():
    spec = CompletionSpec(
        system_prompt="Be brief.",
        messages=[
            message(Role.ROLE_DEVELOPER, ["In French."]),
            user("Hello", ""),
            user("Who are you?"),
            assistant("A model."),
            assistant("Of language."),
            message(Role.ROLE_SYSTEM, ["Or German."]),
            user("Thanks"),
        ],
        labels={"team": "blue"},
        end_user_id="u1",
    )

    assert encode(spec) == (
        {
            "contents": [
                {"role": "user", "parts": [{"text": "Hello"}, {"text": "Who are you?"}]},
                {"role": "model", "parts": [{"text": "A model."}, {"text": "Of language."}]},
                {"role": "user", "parts": [{"text": "Thanks"}]},
            ],
            "systemInstruction": {
                "parts": [{"text": "Be brief."}, {"text": "In French."}, {"text": "Or German."}]
            },
        },
        [],
    )


def test_instructions_alone_are_asked_as_a_question():
    spec = CompletionSpec(system_prompt="Say hello.")

    assert encode(spec) == ({"contents": [{"role": "user", "parts": [{"text": "Say hello."}]}]}, [])


def test_names_go_before_the_text_of_their_author():
    contents = contents_of(
        user("Hello", name="Ada"),
        assistant("Hi", name="Bot"),
        user(Part(image=Media(data=b"1", mime_type="image/png")), name="Ada"),
    )

    assert contents == [
        {"role": "user", "parts": [{"text": "Ada: Hello"}]},
        {"role": "model", "parts": [{"text": "Bot: Hi"}]},
        {
            "role": "user",
            "parts": [{"text": "Ada:"}, {"inlineData": {"mimeType": "image/png", "data": "MQ=="}}],
        },
    ]


@pytest.mark.parametrize(
    ("part", "written"),
    [
        (
            Part(image=Media(data=b"\x89P", mime_type="image/png", detail="auto")),
            {"inlineData": {"mimeType": "image/png", "data": "iVA="}},
        ),
        (
            Part(audio=Media(data=b"RIFF", mime_type="audio/wav")),
            {"inlineData": {"mimeType": "audio/wav", "data": "UklGRg=="}},
        ),
        (
            Part(document=Media(data=b"%PDF", mime_type="application/pdf", filename="a.pdf")),
            {"inlineData": {"mimeType": "application/pdf", "data": "JVBERg=="}},
        ),
        (
            Part(video=Media(url="gs://bucket/film", mime_type="video/mp4")),
            {"fileData": {"fileUri": "gs://bucket/film", "mimeType": "video/mp4"}},
        ),
        (
            Part(image=Media(url="https://example.com/a.JPG?w=1")),
            {"fileData": {"fileUri": "https://example.com/a.JPG?w=1", "mimeType": "image/jpeg"}},
        ),
        (
            Part(video=Media(url="https://www.youtube.com/watch?v=x")),
            {"fileData": {"fileUri": "https://www.youtube.com/watch?v=x"}},
        ),
        (
            Part(document=Media(file_id="files/abc-123")),
            {
                "fileData": {
                    "fileUri": "https://generativelanguage.googleapis.com/v1beta/files/abc-123"
                }
            },
        ),
        (
            Part(document=Media(file_id="https://example.com/x", mime_type="text/csv")),
            {"fileData": {"fileUri": "https://example.com/x", "mimeType": "text/csv"}},
        ),
    ],
)
def test_media_go_inline_or_by_address(part, written):
    assert contents_of(user("Look:", part)) == [
        {"role": "user", "parts": [{"text": "Look:"}, written]}
    ]


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        (
            CompletionSpec(messages=[user(Part(image=Media(url="https://example.com/image")))]),
            "spec.messages[].parts[].image.mime_type",
        ),
        (
            CompletionSpec(messages=[user(Part(image=Media(url="https://[x/a.png")))]),
            "spec.messages[].parts[].image.mime_type",
        ),
        (
            CompletionSpec(messages=[user(Part(video=Media(url="s3://bucket/film.mp4")))]),
            "spec.messages[].parts[].video.url",
        ),
        (
            CompletionSpec(messages=[user(Part(refusal="No"))]),
            "spec.messages[].parts[].refusal",
        ),
        (CompletionSpec(messages=[assistant(result("c1"))]), "spec.messages[].parts[].tool_result"),
        (CompletionSpec(messages=[user("")]), "spec.messages"),
        (CompletionSpec(messages=[user("Hello"), assistant("Well,")]), "spec.messages"),
        (
            CompletionSpec(
                messages=[user("Hello")], tool_options=ToolOptions(tools=[Tool(name="1st")])
            ),
            "spec.tool_options.tools[].name",
        ),
        (
            CompletionSpec(messages=[user("Hello")], sampling=SamplingOptions(candidate_count=2)),
            "spec.sampling.candidate_count",
        ),
    ],
    ids=[
        "media without a type",
        "media at no address",
        "an s3 address",
        "a refusal of the user",
        "a result of the assistant",
        "blank text alone",
        "a turn of the model at the end",
        "a name that begins with a digit",
        "several choices",
    ],
)
def test_what_the_dialect_cannot_say_names_the_field(spec, field):
    with pytest.raises(Unencodable) as caught:
        encode(spec)

    assert caught.value.field == field


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        (
            CompletionSpec(
                messages=[user("Hello")],
                tool_options=ToolOptions(tools=[GET_TIME]),
                response_format=ResponseFormat(json_object=JsonObjectFormat()),
            ),
            "spec.response_format",
        ),
        (
            CompletionSpec(
                messages=[
                    user("Look"),
                    assistant(call("c1")),
                    tool(result("c1", Part(image=Media(data=b"1", mime_type="image/png")))),
                ]
            ),
            "spec.messages[].parts[].tool_result.parts",
        ),
    ],
)
def test_older_models_lack_what_newer_ones_take(spec, field):
    encode(spec, NEWEST)

    with pytest.raises(Unencodable) as caught:
        encode(spec, OLDER)

    assert caught.value.field == field


def test_results_stand_in_one_turn_in_the_order_of_the_calls():
    contents = contents_of(
        user("Paris and Rome?"),
        assistant(
            "Looking.", call("c1", '{"city":"Paris"}', signature=state(SIGNATURE)), call("c2")
        ),
        tool(result("c2", "no such city", is_error=True)),
        tool(result("c1", '{"degrees":', "21}")),
        user("And now?"),
    )

    assert contents == [
        {"role": "user", "parts": [{"text": "Paris and Rome?"}]},
        {
            "role": "model",
            "parts": [
                {"text": "Looking."},
                {
                    "functionCall": {"id": "c1", "name": "get_weather", "args": {"city": "Paris"}},
                    "thoughtSignature": SIGNATURE,
                },
                {"functionCall": {"id": "c2", "name": "get_weather", "args": {}}},
            ],
        },
        {
            "role": "user",
            "parts": [
                {
                    "functionResponse": {
                        "id": "c1",
                        "name": "get_weather",
                        "response": {"result": '{"degrees":21}'},
                    }
                },
                {
                    "functionResponse": {
                        "id": "c2",
                        "name": "get_weather",
                        "response": {"error": "no such city"},
                    }
                },
            ],
        },
        {"role": "user", "parts": [{"text": "And now?"}]},
    ]


def test_older_models_pair_results_by_order_alone():
    contents = contents_of(
        user("Paris?"),
        assistant(call("c1", '{"city":"Paris"}')),
        tool(result("c1", "sunny")),
        model=OLDER,
    )

    assert contents[1:] == [
        {
            "role": "model",
            "parts": [{"functionCall": {"name": "get_weather", "args": {"city": "Paris"}}}],
        },
        {
            "role": "user",
            "parts": [
                {"functionResponse": {"name": "get_weather", "response": {"result": "sunny"}}}
            ],
        },
    ]


def test_results_may_hold_media():
    picture = Part(image=Media(data=b"1", mime_type="image/png"))

    contents = contents_of(
        user("Show it"),
        assistant(call("c1", signature=state(SIGNATURE))),
        tool(result("c1", "here", picture)),
    )

    assert contents[2]["parts"] == [
        {
            "functionResponse": {
                "id": "c1",
                "name": "get_weather",
                "response": {"result": "here"},
                "parts": [{"inlineData": {"mimeType": "image/png", "data": "MQ=="}}],
            }
        }
    ]


def test_a_call_without_a_result_gets_an_error_because_the_provider_counts_them():
    spec = CompletionSpec(
        messages=[user("Paris?"), assistant(call("c1"), call("c2")), user("Never mind.")]
    )

    body, warnings = encode(spec, OLDER)

    missing = {"functionResponse": {"name": "get_weather", "response": {"error": "no result"}}}
    assert body["contents"][2:] == [
        {"role": "user", "parts": [missing, missing]},
        {"role": "user", "parts": [{"text": "Never mind."}]},
    ]
    assert warnings == [("RESULT_MISSING", "spec.messages")]


def test_signatures_go_back_on_the_parts_they_came_with():
    contents = contents_of(
        user("Paris?"),
        assistant(
            Part(reasoning=Reasoning(text="Hm."), provider_state=state("VEhJTks=")),
            Part(reasoning=Reasoning(text="Unsigned.")),
            Part(text="Looking.", provider_state=state("VEVYVA==")),
            Part(provider_state=state("RU1QVFk=")),
            Part(refusal="I won't."),
            call("c1", signature=state(SIGNATURE)),
        ),
        tool(result("c1", "sunny")),
    )

    assert contents[1]["parts"] == [
        {"text": "Hm.", "thought": True, "thoughtSignature": "VEhJTks="},
        {"text": "Looking.", "thoughtSignature": "VEVYVA=="},
        {"text": "", "thoughtSignature": "RU1QVFk="},
        {"text": "I won't."},
        {
            "functionCall": {"id": "c1", "name": "get_weather", "args": {}},
            "thoughtSignature": SIGNATURE,
        },
    ]


@pytest.mark.parametrize(
    ("model", "signature"), [(NEWEST, {"thoughtSignature": UNSIGNED}), (OLDER, {})]
)
def test_state_of_another_family_is_dropped_and_newer_models_are_told(model, signature):
    foreign = state("c2lnbmVk", provider="anthropic")
    spec = CompletionSpec(
        messages=[
            user("Paris?"),
            assistant(
                Part(reasoning=Reasoning(text="Hm."), provider_state=foreign),
                call("c1", signature=foreign),
                call("c2"),
            ),
            tool(result("c1", "sunny"), result("c2", "rainy")),
        ]
    )

    body, warnings = encode(spec, model)

    calls = [
        {k: v for k, v in p.items() if k != "functionCall"} for p in body["contents"][1]["parts"]
    ]
    assert calls == [signature, {}]
    assert warnings == [("STATE_DROPPED", "spec.messages")]


AUTO = ToolChoiceMode.TOOL_CHOICE_MODE_AUTO
NONE = ToolChoiceMode.TOOL_CHOICE_MODE_NONE
REQUIRED = ToolChoiceMode.TOOL_CHOICE_MODE_REQUIRED
BOTH = [DECLARED_WEATHER, DECLARED_TIME]


@pytest.mark.parametrize(
    ("choice", "declared", "config"),
    [
        (None, BOTH, None),
        (ToolChoice(mode=AUTO), BOTH, {"mode": "AUTO"}),
        (ToolChoice(mode=NONE), BOTH, {"mode": "NONE"}),
        (ToolChoice(mode=REQUIRED), BOTH, {"mode": "ANY"}),
        (
            ToolChoice(tool_name="get_time"),
            BOTH,
            {"mode": "ANY", "allowedFunctionNames": ["get_time"]},
        ),
        (
            ToolChoice(mode=REQUIRED, allowed_tool_names=["get_time"]),
            BOTH,
            {"mode": "ANY", "allowedFunctionNames": ["get_time"]},
        ),
        (
            ToolChoice(mode=AUTO, allowed_tool_names=["get_time"]),
            [DECLARED_TIME],
            {"mode": "AUTO"},
        ),
        (ToolChoice(allowed_tool_names=["get_time"]), [DECLARED_TIME], None),
    ],
)
def test_tools_are_declared_and_chosen(choice, declared, config):
    options = ToolOptions(tools=[GET_WEATHER, GET_TIME], choice=choice, parallel_calls=True)
    spec = CompletionSpec(messages=[user("Hello")], tool_options=options)

    expected: dict[str, Any] = {
        "contents": [{"role": "user", "parts": [{"text": "Hello"}]}],
        "tools": [{"functionDeclarations": declared}],
    }
    if config:
        expected["toolConfig"] = {"functionCallingConfig": config}
    assert encode(spec) == (expected, [])


def test_single_calls_and_strict_schemas_can_not_be_insisted_on():
    strict = Tool(name="get_time", strict=True)
    options = ToolOptions(tools=[strict], parallel_calls=False)
    spec = CompletionSpec(messages=[user("Hello")], tool_options=options)

    body, warnings = encode(spec)

    assert body["tools"] == [{"functionDeclarations": [DECLARED_TIME]}]
    assert warnings == [
        ("PARAMETER_DROPPED", "spec.tool_options.parallel_calls"),
        ("PARAMETER_DROPPED", "spec.tool_options.tools[].strict"),
    ]


def test_sampling_options_have_their_names():
    sampling = SamplingOptions(
        temperature=0.5,
        top_p=0.9,
        top_k=40,
        max_output_tokens=100,
        stop=["a", "b"],
        seed=7,
        frequency_penalty=0.25,
        presence_penalty=-0.5,
        candidate_count=2,
        logprobs=True,
        top_logprobs=3,
    )

    assert config_of(CompletionSpec(sampling=sampling), OLDER) == (
        {
            "temperature": 0.5,
            "topP": 0.9,
            "topK": 40,
            "maxOutputTokens": 100,
            "frequencyPenalty": 0.25,
            "presencePenalty": -0.5,
            "responseLogprobs": True,
            "logprobs": 3,
            "candidateCount": 2,
            "seed": 7,
            "stopSequences": ["a", "b"],
        },
        [],
    )


def test_sampling_options_beyond_the_dialect_are_clamped_or_dropped():
    sampling = SamplingOptions(
        temperature=0.5,
        stop=list("abcdefg"),
        seed=2**40 + 7,
        logit_bias={"1": 5},
        verbosity="low",
        candidate_count=1,
    )

    assert config_of(CompletionSpec(sampling=sampling)) == (
        {"seed": 7, "stopSequences": ["a", "b", "c", "d", "e"]},
        [
            ("PARAMETER_DROPPED", "spec.sampling.temperature"),
            ("VALUE_CLAMPED", "spec.sampling.seed"),
            ("VALUE_CLAMPED", "spec.sampling.stop"),
            ("PARAMETER_DROPPED", "spec.sampling.logit_bias"),
            ("PARAMETER_DROPPED", "spec.sampling.verbosity"),
        ],
    )


@pytest.mark.parametrize(
    ("model", "takes"),
    [
        ("gemini-2.5-pro", True),
        ("gemini-3.1-pro-preview", True),
        ("gemini-3.5-flash", True),
        ("gemini-3.5-flash-lite", False),
        ("gemini-3.6-flash", False),
        ("gemini-4-hydrogen", False),
        ("gemini-flash-latest", False),
    ],
)
def test_newer_models_take_no_temperature_and_no_turn_of_their_own_at_the_end(model, takes):
    spec = CompletionSpec(
        messages=[user("Hello")], sampling=SamplingOptions(temperature=1, top_p=1, top_k=1)
    )

    body, warnings = encode(spec, model)
    assert ("generationConfig" in body, len(warnings)) == ((True, 0) if takes else (False, 3))

    prefilled = CompletionSpec(messages=[user("Hello"), assistant("Well,")])
    if takes:
        assert encode(prefilled, model)[1] == []
    else:
        with pytest.raises(Unencodable):
            encode(prefilled, model)


EFFORTS = {
    name.removeprefix("REASONING_EFFORT_"): value
    for name, value in ReasoningEffort.items()
    if value
}


@pytest.mark.parametrize(
    ("model", "levels"),
    [
        ("gemini-3.5-flash", "MINIMAL! MINIMAL LOW MEDIUM HIGH HIGH! HIGH!"),
        ("gemini-3.1-pro-preview", "LOW! LOW! LOW MEDIUM HIGH HIGH! HIGH!"),
        ("gemini-3.6-flash", "MINIMAL! MINIMAL LOW MEDIUM HIGH HIGH! HIGH!"),
        ("gemini-3.8-flash", "LOW! LOW! LOW MEDIUM HIGH HIGH! HIGH!"),
        ("gemini-3.8-flash-lite", "MINIMAL! MINIMAL LOW MEDIUM HIGH HIGH! HIGH!"),
        ("gemini-4-hydrogen", "LOW! LOW! LOW MEDIUM HIGH XHIGH XHIGH!"),
        ("gemini-flash-latest", "LOW! LOW! LOW MEDIUM HIGH HIGH! HIGH!"),
        ("gemini-2.5-pro", "128! 1024 1024 8192 24576 32768 32768"),
        ("gemini-2.5-flash", "0 1024 1024 8192 24576 24576 24576"),
        ("gemini-2.5-flash-lite", "0 1024 1024 8192 24576 24576 24576"),
    ],
)
def test_an_effort_becomes_a_level_or_a_budget(model, levels):
    """An exclamation mark stands for a warning that the value was clamped."""
    for (name, effort), used in zip(EFFORTS.items(), levels.split(), strict=True):
        config, warnings = config_of(
            CompletionSpec(reasoning=ReasoningOptions(effort=effort)), model
        )

        word = used.removesuffix("!")
        thinking: dict[str, Any] = (
            {"thinkingBudget": int(word)} if word.isdigit() else {"thinkingLevel": word}
        )
        clamped = [("VALUE_CLAMPED", "spec.reasoning.effort")] if used.endswith("!") else []
        assert (name, config, warnings) == (name, {"thinkingConfig": thinking}, clamped)


@pytest.mark.parametrize(
    ("model", "reasoning", "config", "warnings"),
    [
        (NEWEST, ReasoningOptions(), {}, []),
        (NEWEST, ReasoningOptions(include=True), {"includeThoughts": True}, []),
        (
            NEWEST,
            ReasoningOptions(effort=EFFORTS["LOW"], budget_tokens=500, include=True),
            {"thinkingLevel": "LOW", "includeThoughts": True},
            [("PARAMETER_DROPPED", "spec.reasoning.budget_tokens")],
        ),
        (
            OLDER,
            ReasoningOptions(effort=EFFORTS["LOW"], budget_tokens=500, include=True),
            {"thinkingBudget": 500, "includeThoughts": True},
            [],
        ),
        (OLDER, ReasoningOptions(budget_tokens=0), {"thinkingBudget": 0}, []),
        (
            "gemini-2.5-flash-lite",
            ReasoningOptions(budget_tokens=100),
            {"thinkingBudget": 512},
            [("VALUE_CLAMPED", "spec.reasoning.budget_tokens")],
        ),
        (
            "gemini-2.5-pro",
            ReasoningOptions(budget_tokens=99_999),
            {"thinkingBudget": 32768},
            [("VALUE_CLAMPED", "spec.reasoning.budget_tokens")],
        ),
        ("gemini-2.0-flash", ReasoningOptions(effort=EFFORTS["NONE"], include=True), {}, []),
        (
            "gemma-3-27b-it",
            ReasoningOptions(effort=EFFORTS["HIGH"], budget_tokens=5),
            {},
            [
                ("PARAMETER_DROPPED", "spec.reasoning.effort"),
                ("PARAMETER_DROPPED", "spec.reasoning.budget_tokens"),
            ],
        ),
    ],
)
def test_thinking_is_asked_for_as_the_model_knows_it(model, reasoning, config, warnings):
    expected = {"thinkingConfig": config} if config else {}

    assert config_of(CompletionSpec(reasoning=reasoning), model) == (expected, warnings)


@pytest.mark.parametrize(
    ("format", "config"),
    [
        (ResponseFormat(json_object=JsonObjectFormat()), {"responseMimeType": "application/json"}),
        (
            ResponseFormat(
                json_schema=JsonSchemaFormat(name="answer", schema_json='{"type":"object"}')
            ),
            {"responseMimeType": "application/json", "responseJsonSchema": {"type": "object"}},
        ),
    ],
)
def test_structured_output_is_a_media_type_and_a_schema(format, config):
    assert config_of(CompletionSpec(response_format=format)) == (config, [])


@pytest.mark.parametrize(
    ("tier", "sent", "warnings"),
    [
        ("flex", "flex", []),
        ("default", "standard", []),
        ("auto", None, []),
        ("scale", None, [("PARAMETER_DROPPED", "spec.service_tier")]),
    ],
)
def test_service_tiers_are_translated(tier, sent, warnings):
    body, found = encode(CompletionSpec(messages=[user("Hello")], service_tier=tier))

    assert (body.get("serviceTier"), found) == (sent, warnings)


def test_extra_options_are_merged_in_either_spelling_unless_the_gateway_sets_them():
    extra = {
        "safety_settings": [{"category": "HARM_CATEGORY_HARASSMENT", "threshold": "OFF"}],
        "generationConfig": {"media_resolution": "MEDIA_RESOLUTION_LOW", "candidate_count": 3},
        "system_instruction": {},
        "tools": [],
    }
    spec = CompletionSpec(
        messages=[user("Hello")],
        sampling=SamplingOptions(max_output_tokens=9),
        provider_options_json={"google": json.dumps(extra), "*": '{"user":"u"}', "other": "{}"},
    )

    assert encode(spec) == (
        {
            "contents": [{"role": "user", "parts": [{"text": "Hello"}]}],
            "generationConfig": {
                "maxOutputTokens": 9,
                "mediaResolution": "MEDIA_RESOLUTION_LOW",
            },
            "safetySettings": [{"category": "HARM_CATEGORY_HARASSMENT", "threshold": "OFF"}],
        },
        [
            ("PARAMETER_DROPPED", "spec.provider_options_json.candidate_count"),
            ("PARAMETER_DROPPED", "spec.provider_options_json.system_instruction"),
            ("PARAMETER_DROPPED", "spec.provider_options_json.tools"),
        ],
    )


# Responses

THINKS = CompletionSpec(reasoning=ReasoningOptions(include=True))
WEATHER = '{"city": "Zürich", "days": 2}'
OSLO = '{"city": "Oslo", "units": null}'
CONSIDERED = (
    "**Weighing it**\n\nThe product is 17 times 23.",
    " That makes 391.\n",
)
CHECKED = "**Checking the forecast**\n\nThe city is known, so I call the tool."
SIGNED_TEXT = Part(provider_state=state(TEXT_SIGNATURE))
ANSWERS: dict[str, tuple[CompletionSpec, list[CompleteResponse], Usage]] = {
    "hello.sse": (
        CompletionSpec(),
        [text("Hé"), text("llo, "), text("wörld 👋"), STOPPED],
        Usage(input_tokens=9, output_tokens=6, total_tokens=15),
    ),
    "tool_call.sse": (
        CompletionSpec(),
        [
            *called(0, 0, "q7v2k9xd", "get_weather", WEATHER, SIGNATURE),
            whole_call(0, "q7v2k9xd", "get_weather", WEATHER, SIGNATURE),
            CALLED,
        ],
        Usage(input_tokens=61, output_tokens=60, total_tokens=121, reasoning_tokens=42),
    ),
    "parallel_tools.sse": (
        CompletionSpec(),
        [
            text("I'll look both up."),
            *called(1, 0, "a1b2c3d4", "get_weather", '{"city": "Paris"}', SIGNATURE),
            *called(2, 1, "e5f6g7h8", "get_weather", '{"city": "Rome"}'),
            *called(3, 2, "i9j0k1l2", "get_time", "{}"),
            whole_call(1, "a1b2c3d4", "get_weather", '{"city": "Paris"}', SIGNATURE),
            whole_call(2, "e5f6g7h8", "get_weather", '{"city": "Rome"}'),
            whole_call(3, "i9j0k1l2", "get_time", "{}"),
            CALLED,
        ],
        Usage(input_tokens=61, output_tokens=105, total_tokens=166, reasoning_tokens=57),
    ),
    "thinking.sse": (
        THINKS,
        [
            *map(thought, CONSIDERED),
            text("17 * 23 = ", 1),
            text("391", 1),
            completed(1, SIGNED_TEXT),
            STOPPED,
        ],
        Usage(input_tokens=14, output_tokens=161, total_tokens=175, reasoning_tokens=151),
    ),
    "thinking_tool.sse": (
        THINKS,
        [
            thought(CHECKED),
            *called(1, 0, "m3n4o5p6", "get_weather", OSLO, SIGNATURE),
            whole_call(1, "m3n4o5p6", "get_weather", OSLO, SIGNATURE),
            CALLED,
        ],
        Usage(input_tokens=61, output_tokens=104, total_tokens=165, reasoning_tokens=88),
    ),
    "max_tokens.sse": (
        CompletionSpec(),
        [
            text("It was the best of times, it was"),
            text(" the"),
            finished(FinishReason.FINISH_REASON_LENGTH, "MAX_TOKENS"),
        ],
        Usage(input_tokens=12, output_tokens=40, total_tokens=52, reasoning_tokens=30),
    ),
    "safety.sse": (
        CompletionSpec(),
        [
            text("First you take"),
            finished(FinishReason.FINISH_REASON_CONTENT_FILTER, "SAFETY"),
        ],
        Usage(input_tokens=15, output_tokens=3, total_tokens=18),
    ),
    "malformed_call.sse": (
        CompletionSpec(),
        [finished(FinishReason.FINISH_REASON_MALFORMED_TOOL_CALL, "MALFORMED_FUNCTION_CALL")],
        Usage(input_tokens=61, output_tokens=40, total_tokens=101, reasoning_tokens=40),
    ),
    "cached_usage.sse": (
        CompletionSpec(),
        [text("From the "), text("cache."), STOPPED],
        Usage(
            input_tokens=5526,
            output_tokens=39,
            total_tokens=5565,
            cached_input_tokens=4096,
            reasoning_tokens=35,
            input_audio_tokens=96,
            input_image_tokens=1120,
        ),
    ),
}


@SIZES
@pytest.mark.parametrize("name", ANSWERS)
def test_a_stream_gives_the_same_events_however_its_bytes_are_split(name, size):
    spec, expected, usage = ANSWERS[name]

    events, facts = decode(recording(name), size, spec)

    assert events == expected
    assert (facts.usage, facts.warnings) == (usage, [])
    assert facts.response_model == NEWEST
    assert facts.upstream_request_id


def test_thoughts_that_nobody_asked_for_only_count_as_progress():
    reader, _ = decoder()

    events = reader.feed(sse(chunk({"text": "Hm.", "thought": True})))

    assert (events, reader.progressed, reader.output_chars) == ([], True, 3)


@pytest.mark.parametrize(
    ("spec", "deltas", "kept"),
    [
        (THINKS, [thought("Hm"), thought(".")], Reasoning(text="Hm.", summary=True)),
        (CompletionSpec(), [], Reasoning(redacted=True)),
    ],
)
def test_a_signed_thought_is_kept_whether_or_not_it_is_shown(spec, deltas, kept):
    data = sse(
        chunk({"text": "Hm", "thought": True}),
        chunk({"text": ".", "thought": True, "thoughtSignature": "VEhJTks="}, finish="STOP"),
    )

    events, _ = decode(data, spec=spec)

    part = Part(reasoning=kept, provider_state=state("VEhJTks="))
    assert events == [*deltas, completed(0, part), STOPPED]


def test_text_after_a_signature_is_a_part_of_its_own():
    data = sse(
        chunk({"text": "One", "thoughtSignature": "T05F"}),
        chunk({"text": "Two"}, {"thoughtSignature": "VFdP"}, finish="STOP"),
    )

    events, _ = decode(data)

    assert events == [
        text("One"),
        completed(0, Part(provider_state=state("T05F"))),
        text("Two", 1),
        completed(1, Part(provider_state=state("VFdP"))),
        STOPPED,
    ]


def test_calls_without_ids_are_given_some_and_missing_arguments_are_none():
    same = {"functionCall": {"name": "get_time"}}
    data = sse(chunk(same, {"functionCall": {"name": "get_time", "args": None}}, finish="STOP"))

    events, _ = decode(data)

    assert events == [
        *called(0, 0, "call_1", "get_time", "{}"),
        *called(1, 1, "call_2", "get_time", "{}"),
        whole_call(0, "call_1", "get_time", "{}"),
        whole_call(1, "call_2", "get_time", "{}"),
        CALLED,
    ]


def test_arguments_keep_the_numbers_and_the_order_that_the_model_wrote():
    args = b'{"z": 1.0, "a": 123456789012345678901234567890, "\\u00fc": "\xc3\xbc"}'
    data = (
        b'data: {"candidates":[{"content":{"parts":[{"functionCall":{"name":"f","args":'
        + args
        + b'}}]},"finishReason":"STOP"}]}\n\n'
    )

    events, _ = decode(data)

    assert events[-2].part_completed.part.tool_call.arguments_json == args.decode()


def test_parts_of_other_kinds_are_read_over():
    data = sse(
        chunk({"executableCode": {"language": "PYTHON", "code": "1"}}),
        chunk({"codeExecutionResult": {"outcome": "OUTCOME_OK", "output": "1"}}, {"text": "1"}),
        chunk({"inlineData": {"mimeType": "image/png", "data": "MQ=="}}, finish="STOP"),
    )

    assert decode(data)[0] == [text("1"), STOPPED]


def test_a_reason_in_every_chunk_ends_the_answer_only_once():
    data = (
        sse(
            chunk(finish="STOP"),
            chunk({"text": "One"}, finish="STOP"),
            chunk({"text": "two"}, finish="MAX_TOKENS"),
        )
        + b"data: [DONE]\n\n"
    )

    assert decode(data)[0] == [
        text("One"),
        text("two"),
        finished(FinishReason.FINISH_REASON_LENGTH, "MAX_TOKENS"),
    ]


def test_a_choice_that_nobody_asked_for_is_left_out_and_ends_nothing():
    other = chunk({"text": "b"}, finish="STOP", index=1)

    assert decode(sse(other, chunk({"text": "a"}, finish="STOP")))[0] == [text("a"), STOPPED]
    with pytest.raises(UpstreamError) as caught:
        decode(sse(chunk({"text": "a"}), other))
    assert caught.value.failure is Failure.AMBIGUOUS


def test_several_choices_must_all_end():
    spec = CompletionSpec(sampling=SamplingOptions(candidate_count=2))
    both = {
        "candidates": [
            *chunk({"text": "a"}, finish="STOP", index=0)["candidates"],
            *chunk({"text": "b"}, index=1)["candidates"],
        ]
    }
    end = chunk(finish="OTHER", index=1)

    assert decode(sse(both, end), spec=spec)[0] == [
        text("a"),
        text("b", choice=1),
        STOPPED,
        finished(FinishReason.FINISH_REASON_OTHER, "OTHER", choice=1),
    ]
    with pytest.raises(UpstreamError) as caught:
        decode(sse(both), spec=spec)
    assert caught.value.failure is Failure.AMBIGUOUS


@pytest.mark.parametrize(
    ("native", "reason"),
    [
        ("STOP", FinishReason.FINISH_REASON_STOP),
        ("MAX_TOKENS", FinishReason.FINISH_REASON_LENGTH),
        ("CONTINUATION", FinishReason.FINISH_REASON_LENGTH),
        ("SAFETY", FinishReason.FINISH_REASON_CONTENT_FILTER),
        ("RECITATION", FinishReason.FINISH_REASON_CONTENT_FILTER),
        ("BLOCKLIST", FinishReason.FINISH_REASON_CONTENT_FILTER),
        ("PROHIBITED_CONTENT", FinishReason.FINISH_REASON_CONTENT_FILTER),
        ("SPII", FinishReason.FINISH_REASON_CONTENT_FILTER),
        ("IMAGE_SAFETY", FinishReason.FINISH_REASON_CONTENT_FILTER),
        ("MODEL_ARMOR", FinishReason.FINISH_REASON_CONTENT_FILTER),
        ("MALFORMED_FUNCTION_CALL", FinishReason.FINISH_REASON_MALFORMED_TOOL_CALL),
        ("UNEXPECTED_TOOL_CALL", FinishReason.FINISH_REASON_MALFORMED_TOOL_CALL),
        ("MISSING_THOUGHT_SIGNATURE", FinishReason.FINISH_REASON_MALFORMED_TOOL_CALL),
        ("LANGUAGE", FinishReason.FINISH_REASON_OTHER),
        ("OTHER", FinishReason.FINISH_REASON_OTHER),
        ("INVENTED_TOMORROW", FinishReason.FINISH_REASON_OTHER),
    ],
)
def test_reasons_to_finish_are_translated(native, reason):
    events, _ = decode(sse(chunk({"text": "Hi"}, finish=native)))

    assert events == [text("Hi"), finished(reason, native)]


def test_logprobs_come_with_the_text_they_belong_to():
    logprobs = {
        "chosenCandidates": [{"token": "Hi", "tokenId": 4, "logProbability": -0.5}],
        "topCandidates": [
            {"candidates": [{"token": "Hi", "logProbability": -0.5}, {"token": "\ufffd"}]}
        ],
    }

    events, _ = decode(sse(chunk({"text": "Hi"}, finish="STOP", logprobsResult=logprobs)))

    chosen = TokenLogprob(token="Hi", logprob=-0.5, utf8=b"Hi")
    broken = TokenLogprob(token="\ufffd")
    with_top = TokenLogprob(token="Hi", logprob=-0.5, utf8=b"Hi", top=[chosen, broken])
    delta = TextDelta(text="Hi", logprobs=[with_top])
    assert events == [CompleteResponse(text_delta=delta), STOPPED]


@pytest.mark.parametrize(
    ("reported", "usage"),
    [
        (None, None),
        ("many", None),
        ({"promptTokenCount": -1, "candidatesTokenCount": 5}, None),
        ({"promptTokenCount": 1e30}, None),
        ({"candidatesTokenCount": 5}, None),
        (
            {"promptTokenCount": 5, "candidatesTokenCount": "x", "cachedContentTokenCount": 9},
            Usage(input_tokens=5, total_tokens=5, cached_input_tokens=5),
        ),
        (
            {
                "promptTokenCount": 10**9,
                "toolUsePromptTokenCount": 10**9,
                "candidatesTokenCount": 10**9,
                "thoughtsTokenCount": 10**9,
                "promptTokensDetails": [None, {"modality": "AUDIO", "tokenCount": True}, {}],
                "candidatesTokensDetails": {"modality": "AUDIO"},
            },
            Usage(
                input_tokens=10**9,
                output_tokens=10**9,
                total_tokens=2 * 10**9,
                reasoning_tokens=10**9,
            ),
        ),
    ],
)
def test_absurd_usage_is_not_believed(reported, usage):
    data = sse({**chunk({"text": "Hi"}, finish="STOP"), "usageMetadata": reported})

    events, facts = decode(data)

    assert (events, facts.usage) == ([text("Hi"), STOPPED], usage)


def test_an_answer_in_one_piece_gives_whole_parts():
    reader, facts = decoder()

    events = reader.whole(recording("tool_call.json"))

    arguments = '{"city":"Zürich","days":2}'
    assert events == [
        *called(0, 0, "q7v2k9xd", "get_weather", arguments, SIGNATURE),
        whole_call(0, "q7v2k9xd", "get_weather", arguments, SIGNATURE),
        CALLED,
    ]
    assert facts.usage == Usage(
        input_tokens=61, output_tokens=60, total_tokens=121, reasoning_tokens=42
    )


def test_text_in_one_piece_is_one_delta():
    reader, _ = decoder()

    assert reader.whole(recording("hello.json")) == [text("Héllo, wörld 👋"), STOPPED]


def test_a_stream_that_came_as_a_list_is_read_too():
    reader, _ = decoder()

    body = json.dumps([chunk({"text": "One"}), chunk({"text": "two"}, finish="STOP")]).encode()

    assert reader.whole(body) == [text("One"), text("two"), STOPPED]


# Failures


@SIZES
@pytest.mark.parametrize(
    ("name", "before", "failure", "status"),
    [
        (
            "cut_off.sse",
            [text("Once upon"), text(" a time there was")],
            Failure.AMBIGUOUS,
            0,
        ),
        ("error_midstream.sse", [text("The answer begins")], Failure.SERVER, 503),
        ("blocked_prompt.sse", [], Failure.POLICY, 200),
    ],
)
def test_a_stream_that_fails_tells_what_came_before(name, before, failure, status, size):
    events: list[CompleteResponse] = []

    with pytest.raises(UpstreamError) as caught:
        read_into(events, recording(name), size)

    # What one read brought together fails together.
    assert events == ([] if size == 4096 and name == "error_midstream.sse" else before)
    assert (caught.value.failure, caught.value.http_status) == (failure, status)


def test_the_end_of_the_stream_is_no_loss_once_a_reason_was_given():
    reader, _ = decoder()

    reader.feed(sse(chunk({"text": "Hi"})))
    assert not reader.is_finished
    reader.feed(sse(chunk(finish="STOP")))

    assert (reader.is_finished, reader.is_done) == (True, False)
    assert reader.finish() == [STOPPED]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>",
        b"{",
        b"{}",
        b"[]",
        b"null",
        b'{"candidates":{}}',
        b'{"candidates":[{"content":{"parts":"x"}}]}',
        b'{"candidates":[{"content":{"parts":[{"text":"Hi"}]}}]}',
        b'{"candidates":[{"content":{"parts":[{"functionCall":{"args":{}}}]}}]}',
        b'{"candidates":[{"index":99,"content":{"parts":[{"text":"Hi"}]}}]}',
        b'{"usageMetadata":' + b"[" * 10_000,
    ],
)
def test_what_is_no_answer_is_the_providers_failure(body):
    reader, _ = decoder()

    with pytest.raises(UpstreamError) as caught:
        reader.whole(body)

    assert caught.value.failure is Failure.PROTOCOL


@pytest.mark.parametrize("data", [b"data: {\n\n", b"data: <html>\n\n", b"data: " + b"x" * 2**21])
def test_what_is_no_event_is_the_providers_failure(data):
    reader, _ = decoder()

    with pytest.raises(UpstreamError) as caught:
        reader.feed(data)

    assert caught.value.failure is Failure.PROTOCOL


def test_a_blocked_prompt_has_its_reason_as_code():
    reader, _ = decoder()

    with pytest.raises(UpstreamError) as caught:
        reader.whole(recording("blocked_prompt.json"))

    assert (caught.value.failure, caught.value.code) == (Failure.POLICY, "PROHIBITED_CONTENT")


@pytest.mark.parametrize(
    ("status", "name", "failure", "code", "retry_after_s"),
    [
        (429, "rate_limited.json", Failure.THROTTLED, "RESOURCE_EXHAUSTED", 17.0),
        (429, "quota_per_day.json", Failure.EXHAUSTED, "quota_per_day", 41.2),
        (503, "unavailable.json", Failure.SERVER, "UNAVAILABLE", None),
        (400, "invalid_key.json", Failure.CREDENTIAL, "API_KEY_INVALID", None),
        (400, "invalid_argument.json", Failure.CALLER, "INVALID_ARGUMENT", None),
        (400, "context_length.json", Failure.CONTEXT_LENGTH, "INVALID_ARGUMENT", None),
    ],
)
@pytest.mark.parametrize("wrapping", ["{}", "[{}]"])
def test_errors_are_told_by_their_details(status, name, failure, code, retry_after_s, wrapping):
    body = wrapping.replace("{}", recording(name).decode()).encode()

    error = GeminiTranslator().decode_error(status, {}, body)

    assert (error.failure, error.code) == (failure, code)
    assert (error.http_status, error.retry_after_s) == (status, retry_after_s)
    assert error.message == json.loads(recording(name))["error"]["message"]


@pytest.mark.parametrize(
    ("status", "body", "failure"),
    [
        (400, b'{"error":{"code":400,"status":"FAILED_PRECONDITION"}}', Failure.CAPABILITY),
        (401, b'{"error":{"code":401,"status":"UNAUTHENTICATED"}}', Failure.CREDENTIAL),
        (403, b'{"error":{"code":403,"status":"PERMISSION_DENIED"}}', Failure.CREDENTIAL),
        (404, recording("model_not_found.json"), Failure.MODEL_MISSING),
        (500, b'{"error":{"code":500,"status":"INTERNAL"}}', Failure.SERVER),
        (504, b'{"error":{"code":504,"status":"DEADLINE_EXCEEDED"}}', Failure.SERVER),
        (400, b"", Failure.CALLER),
        (502, b"<html>", Failure.SERVER),
        (429, b'{"error":"slow down"}', Failure.THROTTLED),
        (429, b'{"error":{"details":[null,{"@type":7},{"violations":1}]}}', Failure.THROTTLED),
        (400, b'{"error":{"status":7,"message":[],"details":{}}}', Failure.CALLER),
        (500, b"[" * 100_000, Failure.SERVER),
        (500, b"[[]]", Failure.SERVER),
    ],
)
def test_every_bad_response_means_something(status, body, failure):
    error = GeminiTranslator().decode_error(status, {}, body)

    assert (error.failure, error.http_status) == (failure, status)


def test_recorded_signatures_are_valid_base64():
    assert base64.b64decode(SIGNATURE, validate=True)
    assert base64.b64decode(TEXT_SIGNATURE, validate=True)


def test_a_reason_to_stop_in_the_middle_tells_no_end_until_the_stream_has_ended():
    read, _ = decoder()

    read.feed(sse(chunk({"text": "Hel"}, finish="STOP")))

    assert read.is_finished
    assert not read.has_told_end
    read.feed(sse(chunk({"text": "lo"}, finish="STOP")))
    read.finish()
    assert read.has_told_end
