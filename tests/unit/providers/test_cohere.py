"""The Cohere dialect: whole bodies out, whole lists of events in. What all dialects share is in tests/providers."""

import itertools
import json
from typing import Any

import pytest

from tests.providers.canonical import sse
from tests.providers.readings import Reading, read, read_whole
from tests.providers.specs import PNG, SCHEMA, ask, assistant, call, message, result, tools, user
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
)
from trunkline.v1.message_pb2 import Media, Part, ProviderState, Reasoning, Role, ToolResult
from trunkline_server.core.candidate import Candidate, Capability
from trunkline_server.core.failure import Failure
from trunkline_server.core.ports import AttemptFacts, Prompt, Unencodable
from trunkline_server.providers.cohere import CohereTranslator

REASONS = "command-a-reasoning-08-2025"
HI = {"role": "user", "content": "Hi"}
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather of a city.",
        "parameters": json.loads(SCHEMA),
    },
}
NOW = {
    "type": "function",
    "function": {"name": "now", "parameters": {"type": "object", "properties": {}}},
}


def candidate(model: str = REASONS, **more: Any) -> Candidate:
    return Candidate(provider="co", id="m", model=model, family="cohere", **more)


def encode(
    spec: CompletionSpec, model: str = REASONS, *, stream: bool = True, **more: Any
) -> tuple[Any, list[str]]:
    """The body, and the fields of the warnings: dropped (-) or changed (~)."""
    request = CohereTranslator().encode(candidate(model, **more), Prompt(spec, stream))
    assert request.path == "/chat"
    signs = {"PARAMETER_DROPPED": "-", "VALUE_CLAMPED": "~", "STATE_DROPPED": "!"}
    fields = [signs[w.code] + w.field.removeprefix("spec.") for w in request.warnings]
    return json.loads(request.body), fields


def messages_of(spec: CompletionSpec) -> Any:
    body, warnings = encode(spec)
    assert warnings == []
    return body["messages"]


def delta(kind: str, index: int | None = 0, **message: Any) -> dict[str, Any]:
    event = {"type": kind, "delta": {"message": message}}
    return event if index is None else {**event, "index": index}


def text(piece: str, **more: Any) -> dict[str, Any]:
    return {**delta("content-delta", content={"text": piece}), **more}


def begins(index: int | None, name: str = "now", arguments: str = "") -> dict[str, Any]:
    function = {"name": name, "arguments": arguments}
    return delta("tool-call-start", index, tool_calls={"id": f"c-{name}", "function": function})


def goes_on(index: int | None, arguments: str) -> dict[str, Any]:
    return delta("tool-call-delta", index, tool_calls={"function": {"arguments": arguments}})


def end(reason: str | None = "COMPLETE", **more: Any) -> dict[str, Any]:
    return {"type": "message-end", "delta": {"finish_reason": reason, **more}}


def answered(*events: Any) -> Reading:
    return read("cohere", [sse(*events)])


# Requests


@pytest.mark.parametrize("stream", [True, False])
def test_a_stream_is_asked_for_or_refused(stream):
    found = encode(ask(), stream=stream)

    assert found == ({"model": REASONS, "messages": [HI], "stream": stream}, [])


def test_system_text_is_one_turn_at_the_start_and_names_go_before_the_text():
    spec = ask(
        message(Role.ROLE_SYSTEM, "Be brief."),
        user("Hi, ", "you.", name="ada"),
        assistant(Part(refusal="No.")),
        message(Role.ROLE_DEVELOPER, "Be kind."),
        user(Part(image=Media(url="https://a/b.png")), name="ada"),
        user("Why?"),
        user(""),
        system_prompt="Be right.",
    )

    texts = ["Be right.", "Be brief.", "Be kind."]
    shown = {"type": "image_url", "image_url": {"url": "https://a/b.png"}}
    assert messages_of(spec) == [
        {"role": "system", "content": [{"type": "text", "text": text} for text in texts]},
        {
            "role": "user",
            "content": [{"type": "text", "text": "ada: Hi, "}, {"type": "text", "text": "you."}],
        },
        {"role": "assistant", "content": "No."},
        {"role": "user", "content": [{"type": "text", "text": "ada:"}, shown]},
        {"role": "user", "content": "Why?"},
    ]


def test_instructions_alone_are_asked_as_a_question():
    spec = ask(message(Role.ROLE_SYSTEM, "Be brief."), system_prompt="Be right.")

    assert messages_of(spec) == [
        {"role": "system", "content": "Be right."},
        {"role": "user", "content": "Be brief."},
    ]


def test_images_go_by_address_or_as_data():
    image = Media(data=PNG, mime_type="image/png", detail="low")

    [asked] = messages_of(ask(user("What is it?", Part(image=image))))

    shown = {"url": "data:image/png;base64,iVBORw0KGgo=", "detail": "low"}
    assert asked["content"][1] == {"type": "image_url", "image_url": shown}


def test_thinking_goes_back_as_the_plan_of_its_calls_and_results_stand_behind_them():
    spec = ask(
        user("Oslo and Rome?"),
        assistant(Part(reasoning=Reasoning(text="Hm.")), "Which Rome?"),
        user("Rome."),
        assistant(
            Part(reasoning=Reasoning(text="Two places.")),
            "Let me look.",
            call("call_1"),
            call("call_2", ""),
        ),
        message(Role.ROLE_TOOL, result("call_2", "down", is_error=True), result("call_1")),
        user("So?"),
    )

    found = messages_of(spec)

    def called(call_id: str, arguments: str) -> dict[str, Any]:
        function = {"name": "get_weather", "arguments": arguments}
        return {"id": call_id, "type": "function", "function": function}

    assert found[1] == {"role": "assistant", "content": "Which Rome?"}
    assert found[3:] == [
        {
            "role": "assistant",
            "content": "Let me look.",
            "tool_plan": "Two places.",
            "tool_calls": [called("call_1", '{"city": "Oslo"}'), called("call_2", "{}")],
        },
        {"role": "tool", "tool_call_id": "call_1", "content": "4 degrees"},
        {"role": "tool", "tool_call_id": "call_2", "content": '{"error":"down"}'},
        {"role": "user", "content": "So?"},
    ]


def test_state_of_another_family_is_left_out():
    state = ProviderState(provider="anthropic", data=b"x")

    _, warnings = encode(ask(user("Hi"), assistant(Part(text="Hello", provider_state=state))))

    assert warnings == ["!messages"]


@pytest.mark.parametrize(
    ("choice", "shown", "sent"),
    [
        (ToolChoice(), [WEATHER, NOW], None),
        (ToolChoice(mode=ToolChoiceMode.TOOL_CHOICE_MODE_AUTO), [WEATHER, NOW], None),
        (ToolChoice(mode=ToolChoiceMode.TOOL_CHOICE_MODE_NONE), [WEATHER, NOW], "NONE"),
        (ToolChoice(mode=ToolChoiceMode.TOOL_CHOICE_MODE_REQUIRED), [WEATHER, NOW], "REQUIRED"),
        (ToolChoice(allowed_tool_names=["now"]), [NOW], None),
        (ToolChoice(tool_name="now"), [NOW], "REQUIRED"),
    ],
)
def test_a_tool_is_named_by_showing_it_alone(choice, shown, sent):
    body, warnings = encode(ask(tool_options=tools(choice=choice)))

    assert (body["tools"], body.get("tool_choice"), warnings) == (shown, sent, [])


@pytest.mark.parametrize(
    ("strict", "sent", "warnings"),
    [
        ([True, True], True, []),
        ([True, False], None, ["-tool_options.tools[].strict"]),
        ([False, False], None, []),
    ],
)
def test_tools_are_strict_together_or_not_at_all(strict, sent, warnings):
    offered = [Tool(name=f"t{index}", strict=value) for index, value in enumerate(strict)]

    body, found = encode(ask(tool_options=tools(*offered)))

    assert (body.get("strict_tools"), found) == (sent, warnings)


def test_single_calls_can_not_be_insisted_on():
    _, warnings = encode(ask(tool_options=tools(parallel_calls=False)))

    assert warnings == ["-tool_options.parallel_calls"]


def test_sampling_options_have_their_names():
    sampling = SamplingOptions(
        temperature=0.5,
        top_p=0.9,
        top_k=40,
        max_output_tokens=99,
        stop=["END"],
        seed=7,
        frequency_penalty=0.5,
        presence_penalty=0.0,
        logprobs=True,
        candidate_count=1,
    )

    body, warnings = encode(ask(sampling=sampling))

    assert body == {
        "model": REASONS,
        "messages": [HI],
        "stream": True,
        "temperature": 0.5,
        "p": 0.9,
        "k": 40,
        "max_tokens": 99,
        "stop_sequences": ["END"],
        "seed": 7,
        "frequency_penalty": 0.5,
        "logprobs": True,
    }
    assert warnings == []


def test_sampling_options_beyond_the_dialect_are_clamped_or_dropped():
    sampling = SamplingOptions(
        top_p=1.0,
        top_k=1000,
        stop=list("abcdef"),
        seed=-1,
        frequency_penalty=2.0,
        presence_penalty=0.5,
        logprobs=True,
        top_logprobs=2,
        logit_bias={"42": -100.0},
        verbosity="low",
    )

    body, warnings = encode(ask(sampling=sampling, end_user_id="u", service_tier="flex"))

    assert (body["p"], body["k"], body["seed"]) == (0.99, 500, 2**63 - 1)
    assert (body["frequency_penalty"], "presence_penalty" in body) == (1.0, False)
    assert body["stop_sequences"] == list("abcde")
    assert warnings == [
        *("~sampling.top_p", "~sampling.top_k", "~sampling.frequency_penalty"),
        *("-sampling.presence_penalty", "~sampling.stop", "~sampling.seed"),
        *("-sampling.top_logprobs", "-sampling.logit_bias", "-sampling.verbosity"),
        *("-end_user_id", "-service_tier"),
    ]


def test_a_penalty_below_the_scale_is_none_and_leaves_room_for_the_other():
    sampling = SamplingOptions(frequency_penalty=-1.0, presence_penalty=0.5)

    body, warnings = encode(ask(sampling=sampling))

    assert (body.get("frequency_penalty"), body["presence_penalty"]) == (None, 0.5)
    assert warnings == ["~sampling.frequency_penalty"]


@pytest.mark.parametrize(
    ("wanted", "sent"),
    [
        (ResponseFormat(json_object=JsonObjectFormat()), {"type": "json_object"}),
        (
            ResponseFormat(json_schema=JsonSchemaFormat(schema_json=SCHEMA)),
            {"type": "json_object", "json_schema": json.loads(SCHEMA)},
        ),
        (ResponseFormat(), None),
    ],
)
def test_structured_output_is_an_object_with_a_schema(wanted, sent):
    body, warnings = encode(ask(response_format=wanted))

    assert (body.get("response_format"), warnings) == (sent, [])


@pytest.mark.parametrize(
    ("reasoning", "thinking"),
    [
        (ReasoningOptions(include=True), None),
        (ReasoningOptions(effort=ReasoningEffort.REASONING_EFFORT_NONE), {"type": "disabled"}),
        (
            ReasoningOptions(effort=ReasoningEffort.REASONING_EFFORT_MINIMAL),
            {"type": "enabled", "token_budget": 1024},
        ),
        (
            ReasoningOptions(effort=ReasoningEffort.REASONING_EFFORT_LOW),
            {"type": "enabled", "token_budget": 2048},
        ),
        (
            ReasoningOptions(effort=ReasoningEffort.REASONING_EFFORT_MEDIUM),
            {"type": "enabled", "token_budget": 8192},
        ),
        (
            ReasoningOptions(effort=ReasoningEffort.REASONING_EFFORT_HIGH),
            {"type": "enabled", "token_budget": 24576},
        ),
        (
            ReasoningOptions(effort=ReasoningEffort.REASONING_EFFORT_XHIGH),
            {"type": "enabled", "token_budget": 31000},
        ),
        (ReasoningOptions(effort=ReasoningEffort.REASONING_EFFORT_MAX), {"type": "enabled"}),
        (ReasoningOptions(budget_tokens=0), {"type": "disabled"}),
        (
            ReasoningOptions(budget_tokens=9, effort=ReasoningEffort.REASONING_EFFORT_MAX),
            {"type": "enabled", "token_budget": 9},
        ),
    ],
    ids=itertools.count(),
)
def test_thinking_is_asked_for_by_its_budget(reasoning, thinking):
    body, warnings = encode(ask(reasoning=reasoning))

    assert (body.get("thinking"), warnings) == (thinking, [])


@pytest.mark.parametrize(
    ("model", "able"),
    [
        ("command-a-03-2025", frozenset(Capability)),
        ("command-r7b-12-2024", frozenset(Capability)),
        ("command-r-plus-08-2024", frozenset(Capability)),
        ("command-a-vision-07-2025", frozenset(Capability)),
        ("c4ai-aya-expanse-32b", frozenset(Capability)),
        (REASONS, frozenset({Capability.TOOLS})),
    ],
    ids=itertools.count(),
)
@pytest.mark.parametrize(
    ("reasoning", "warnings"),
    [
        (ReasoningOptions(effort=ReasoningEffort.REASONING_EFFORT_NONE), []),
        (ReasoningOptions(effort=ReasoningEffort.REASONING_EFFORT_LOW), ["-reasoning.effort"]),
        (ReasoningOptions(budget_tokens=512), ["-reasoning.budget_tokens"]),
    ],
    ids=itertools.count(),
)
def test_a_model_that_does_not_reason_is_not_asked_to(model, able, reasoning, warnings):
    body, found = encode(ask(reasoning=reasoning), model, capabilities=able)

    assert (body.get("thinking"), found) == (None, warnings)


def test_extra_options_are_merged_unless_the_gateway_sets_them():
    extra = {"safety_mode": "STRICT", "priority": 1, "stream": False}
    spec = ask(provider_options_json={"co": json.dumps(extra), "*": '{"store": true}'})

    body, warnings = encode(spec)

    assert body == {
        "model": REASONS,
        "messages": [HI],
        "stream": True,
        "safety_mode": "STRICT",
        "priority": 1,
    }
    assert warnings == ["-provider_options_json.stream"]


RESULT = ToolResult(tool_call_id="call_1", parts=[Part(image=Media(data=b"x"))])


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        (ask(user(Part(image=Media(file_id="f")))), "messages[].parts[].image.file_id"),
        (ask(user(Part(audio=Media(data=b"x")))), "messages[].parts[].audio"),
        (ask(user(Part(video=Media(data=b"x")))), "messages[].parts[].video"),
        (ask(user(Part(document=Media(data=b"x")))), "messages[].parts[].document"),
        (ask(assistant(Part(image=Media(data=b"x")))), "messages[].parts[].image"),
        (
            ask(user("Hi"), assistant(call()), message(Role.ROLE_TOOL, Part(tool_result=RESULT))),
            "messages[].parts[].tool_result.parts",
        ),
        (ask(user("")), "messages"),
        (ask(sampling=SamplingOptions(candidate_count=2)), "sampling.candidate_count"),
        (
            ask(
                tool_options=tools(),
                response_format=ResponseFormat(json_object=JsonObjectFormat()),
            ),
            "response_format",
        ),
    ],
    ids=itertools.count(),
)
def test_what_the_dialect_cannot_say_names_the_field(spec, field):
    with pytest.raises(Unencodable) as raised:
        encode(spec)

    assert raised.value.field == f"spec.{field}"


# Answers


@pytest.mark.parametrize(
    ("native", "reason"),
    [
        ("COMPLETE", FinishReason.FINISH_REASON_STOP),
        ("STOP_SEQUENCE", FinishReason.FINISH_REASON_STOP_SEQUENCE),
        ("MAX_TOKENS", FinishReason.FINISH_REASON_LENGTH),
        ("BORED", FinishReason.FINISH_REASON_OTHER),
        (None, FinishReason.FINISH_REASON_OTHER),
    ],
)
def test_reasons_to_finish_are_translated(native, reason):
    reading = answered(text("Hello"), end(native))

    [choice] = reading.choices
    assert (choice.finish_reason, choice.native_finish_reason) == (reason, native or "")


@pytest.mark.parametrize("indexes", [(0, 1), (None, None), (0, 0)])
def test_arguments_belong_to_the_call_of_their_number_or_to_the_last(indexes):
    first, second = indexes

    reading = answered(
        begins(first, "a", "{"),
        goes_on(first, '"n": 1}'),
        begins(second, "b"),
        goes_on(second, "{}"),
        end("TOOL_CALL"),
    )

    [choice] = reading.choices
    calls = [part.tool_call for part in choice.message.parts]
    assert [(made.name, made.arguments_json) for made in calls] == [("a", '{"n": 1}'), ("b", "{}")]
    assert choice.finish_reason == FinishReason.FINISH_REASON_TOOL_CALLS


def test_calls_may_be_written_in_turns():
    reading = answered(
        begins(0, "a"), begins(1, "b"), goes_on(0, '{"n": 1}'), goes_on(1, "{}"), end()
    )

    [choice] = reading.choices
    calls = [part.tool_call.arguments_json for part in choice.message.parts]
    assert calls == ['{"n": 1}', "{}"]


@pytest.mark.parametrize(
    ("usage", "counted"),
    [
        (
            {"tokens": {"input_tokens": 9.0, "output_tokens": 6.0}, "cached_tokens": 4.0},
            Usage(input_tokens=9, output_tokens=6, total_tokens=15, cached_input_tokens=4),
        ),
        (
            {"tokens": {"input_tokens": 9, "output_tokens": 6}, "cached_tokens": 40},
            Usage(input_tokens=9, output_tokens=6, total_tokens=15, cached_input_tokens=9),
        ),
        ({"billed_units": {"input_tokens": 9, "output_tokens": 6}}, None),
        ({"tokens": {"input_tokens": 9}}, None),
        ({"tokens": {"input_tokens": -1, "output_tokens": 6}}, None),
        ({"tokens": []}, None),
        (None, None),
    ],
)
def test_usage_is_what_was_processed_and_not_what_is_billed(usage, counted):
    reading = answered(text("Hello"), end(usage=usage))

    assert reading.error is None
    assert reading.facts.usage == counted


def test_the_answers_id_is_the_requests_where_there_is_no_other():
    reading = answered({"type": "message-start", "id": "29f1"}, text("Hello"), end())

    assert reading.facts.upstream_request_id == "29f1"


def test_nothing_after_the_end_matters():
    reading = answered(text("Hello"), end(), end("ERROR"), "<html>")

    assert reading.error is None
    assert reading.said("text_delta") == "Hello"


def test_a_piece_of_text_has_the_product_of_its_tokens_probabilities():
    logprobs = {"text": "Hé", "token_ids": [1, 2], "logprobs": [-0.25, -0.5]}

    reading = answered(text("Hé", logprobs=logprobs), end())

    found = list(reading.events[0].text_delta.logprobs)
    assert found == [TokenLogprob(token="Hé", logprob=-0.75, utf8="Hé".encode())]


@pytest.mark.parametrize(
    "event",
    [
        delta("tool-plan-delta", None, tool_plan="Hm"),
        delta("content-delta", content={"thinking": "Hm"}),
    ],
    ids=["plan", "thinking"],
)
def test_thinking_that_nobody_asked_for_only_counts_as_progress(event):
    decoder = CohereTranslator().decoder(
        candidate(), Prompt(ask(), stream=True), AttemptFacts(), str
    )

    events = decoder.feed(sse(event))

    assert events == []
    assert decoder.progressed
    assert decoder.output_chars == 2


@pytest.mark.parametrize(
    ("events", "failure", "words"),
    [
        ((text("Hello"),), Failure.AMBIGUOUS, "the stream ended before the answer"),
        ((text("Hello"), "[DONE]"), Failure.AMBIGUOUS, "the stream ended before the answer"),
        ((text("Hello"), end("ERROR", error="boom")), Failure.SERVER, "boom"),
        ((text("Hello"), end("TIMEOUT")), Failure.SERVER, "TIMEOUT"),
        ((text("Hello"), end(None, error="boom")), Failure.SERVER, "boom"),
        (({"message": "boom"},), Failure.SERVER, "boom"),
        (("<html>",), Failure.PROTOCOL, "malformed JSON: DecodeError"),
        ((goes_on(0, "{}"),), Failure.PROTOCOL, None),
        ((begins(0, ""),), Failure.PROTOCOL, "a tool call without a name"),
        ((text("Hello"), [1]), Failure.PROTOCOL, None),
    ],
    ids=itertools.count(),
)
def test_a_stream_that_fails_says_how(events, failure, words):
    error = answered(*events).error

    assert error is not None
    assert error.failure is failure
    assert words is None or str(error) == words


def test_later_kinds_of_events_are_read_over():
    reading = answered(
        {"type": "debug", "prompt": "x"},
        {"type": "content-delta"},
        {"type": "tool-call-start", "delta": None},
        {"type": "mood-start", "delta": {"message": {"mood": "x"}}},
        {},
        text("Hello"),
        end(),
    )

    assert reading.error is None
    assert reading.said("text_delta") == "Hello"


def test_an_answer_in_one_piece_has_plan_content_and_calls():
    function = {"name": "now", "arguments": "{}"}
    content = [{"type": "thinking", "thinking": "Hm."}, {"type": "text", "text": "Hello"}]
    whole = {
        "id": "29f1",
        "message": {
            "role": "assistant",
            "tool_plan": "I look. ",
            "content": content,
            "tool_calls": [{"id": "c1", "type": "function", "function": function}],
        },
        "finish_reason": "TOOL_CALL",
        "logprobs": [{"text": "Hello", "token_ids": [1], "logprobs": [-0.5]}],
    }

    reading = read_whole("cohere", json.dumps(whole, indent=2).encode())

    [choice] = reading.choices
    thought, said, called = choice.message.parts
    assert (thought.reasoning.text, said.text) == ("I look. Hm.", "Hello")
    assert (called.tool_call.id, called.tool_call.name) == ("c1", "now")
    assert choice.finish_reason == FinishReason.FINISH_REASON_TOOL_CALLS
    assert reading.facts.upstream_request_id == "29f1"


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"id": "x", "message": "boom"}, "boom"),
        ({"message": {"content": []}}, "HTTP 200"),
        ({"message": {"content": []}, "finish_reason": "ERROR"}, "ERROR"),
    ],
)
def test_a_body_that_is_no_answer_is_the_providers_failure(body, words):
    error = read_whole("cohere", json.dumps(body).encode()).error

    assert error is not None
    assert error.failure is Failure.SERVER
    assert str(error) == words
