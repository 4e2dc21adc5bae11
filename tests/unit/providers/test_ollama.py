"""The Ollama dialect: whole bodies out, whole lists of events in. What all dialects share is in tests/providers."""

import itertools
import json
from typing import Any

import pytest

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
from trunkline_server.providers.ollama import OllamaTranslator

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
CALLED = {"function": {"name": "get_weather", "arguments": {"city": "Oslo"}}}


def encode(spec: CompletionSpec, *, stream: bool = True, **more: Any) -> tuple[Any, list[str]]:
    """The body, and the fields of the warnings: dropped (-) or changed (~)."""
    candidate = Candidate(provider="box", id="m", model="qwen3:4b", family="ollama", **more)
    request = OllamaTranslator().encode(candidate, Prompt(spec, stream))
    assert request.path == "/api/chat"
    signs = {"PARAMETER_DROPPED": "-", "VALUE_CLAMPED": "~", "STATE_DROPPED": "!"}
    fields = [signs[w.code] + w.field.removeprefix("spec.") for w in request.warnings]
    return json.loads(request.body), fields


def messages_of(spec: CompletionSpec) -> Any:
    body, warnings = encode(spec)
    assert warnings == []
    return body["messages"]


def lines(*values: Any) -> bytes:
    return "".join(json.dumps(value) + "\n" for value in values).encode()


def done(**more: Any) -> dict[str, Any]:
    return {"message": {"role": "assistant", "content": ""}, "done": True, **more}


def said(content: str = "", **more: Any) -> dict[str, Any]:
    return {"message": {"role": "assistant", "content": content, **more}, "done": False}


def answered(*values: Any) -> Reading:
    return read("ollama", [lines(*values)])


# Requests


@pytest.mark.parametrize("stream", [True, False])
def test_a_stream_is_asked_for_or_refused_and_nothing_may_be_cut(stream):
    body, warnings = encode(ask(), stream=stream)

    expected = {"model": "qwen3:4b", "messages": [HI], "stream": stream, "truncate": False}
    assert (body, warnings) == (expected, [])


def test_a_configured_window_is_asked_for():
    body, _ = encode(ask(sampling=SamplingOptions(seed=7)), context_window_tokens=32768)

    assert body["options"] == {"num_ctx": 32768, "seed": 7}


def test_messages_keep_their_places_and_names_go_before_the_text():
    spec = ask(
        message(Role.ROLE_DEVELOPER, "Be brief."),
        user("Hi, ", "you.", name="ada"),
        assistant(Part(refusal="No.")),
        message(Role.ROLE_SYSTEM, "Be kind."),
        user("Why?"),
        system_prompt="Be right.",
    )

    assert messages_of(spec) == [
        {"role": "system", "content": "Be right."},
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "ada: Hi, you."},
        {"role": "assistant", "content": "No."},
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": "Why?"},
    ]


def test_images_go_beside_the_text():
    image = Media(data=PNG, mime_type="image/png", detail="high")

    body, warnings = encode(ask(user("What is it?", Part(image=image))))

    shown = {"role": "user", "content": "What is it?", "images": ["iVBORw0KGgo="]}
    assert body["messages"] == [shown]
    assert warnings == ["-messages[].parts[].image.detail"]


def test_results_stand_behind_their_calls_in_the_order_of_the_calls():
    spec = ask(
        user("Oslo and Rome?"),
        assistant(
            Part(reasoning=Reasoning(text="Two places.")),
            "Let me look.",
            call("call_1"),
            call("call_2", '{"city": "Rome"}'),
        ),
        message(Role.ROLE_TOOL, result("call_2", "down", is_error=True), result("call_1")),
        user("So?"),
    )

    [_, asked, *rest] = messages_of(spec)

    rome = {"function": {"name": "get_weather", "arguments": {"city": "Rome"}}}
    assert asked == {
        "role": "assistant",
        "content": "Let me look.",
        "thinking": "Two places.",
        "tool_calls": [CALLED, rome],
    }
    assert rest == [
        {"role": "tool", "tool_name": "get_weather", "content": "4 degrees"},
        {"role": "tool", "tool_name": "get_weather", "content": '{"error":"down"}'},
        {"role": "user", "content": "So?"},
    ]


def test_arguments_that_are_no_object_are_sent_in_one():
    spec = ask(
        user("Hi"), assistant(call(arguments='{"city": "Os')), message(Role.ROLE_TOOL, result())
    )

    arguments = messages_of(spec)[1]["tool_calls"][0]["function"]["arguments"]

    assert arguments == {"arguments": '{"city": "Os'}


def test_state_of_another_family_is_left_out():
    state = ProviderState(provider="anthropic", data=b"x")

    _, warnings = encode(ask(user("Hi"), assistant(Part(text="Hello", provider_state=state))))

    assert warnings == ["!messages"]


@pytest.mark.parametrize(
    ("choice", "shown", "warnings"),
    [
        (ToolChoice(), [WEATHER, NOW], []),
        (ToolChoice(mode=ToolChoiceMode.TOOL_CHOICE_MODE_AUTO), [WEATHER, NOW], []),
        (ToolChoice(mode=ToolChoiceMode.TOOL_CHOICE_MODE_NONE), None, []),
        (ToolChoice(allowed_tool_names=["now"]), [NOW], []),
        (ToolChoice(tool_name="now"), [NOW], ["-tool_options.choice"]),
        (
            ToolChoice(mode=ToolChoiceMode.TOOL_CHOICE_MODE_REQUIRED),
            [WEATHER, NOW],
            ["-tool_options.choice"],
        ),
    ],
)
def test_tools_are_shown_but_none_can_be_required(choice, shown, warnings):
    body, found = encode(ask(tool_options=tools(choice=choice)))

    assert (body.get("tools"), found) == (shown, warnings)


def test_single_calls_and_strict_schemas_can_not_be_insisted_on():
    _, warnings = encode(ask(tool_options=tools(Tool(name="t", strict=True), parallel_calls=False)))

    assert warnings == ["-tool_options.parallel_calls", "-tool_options.tools[].strict"]


def test_sampling_options_have_their_names():
    sampling = SamplingOptions(
        temperature=0.5,
        top_p=0.9,
        top_k=40,
        max_output_tokens=99,
        stop=["END"],
        seed=-7,
        frequency_penalty=0.5,
        presence_penalty=-0.5,
        logprobs=True,
        top_logprobs=2,
        logit_bias={"42": -100.0},
        verbosity="low",
        candidate_count=1,
    )

    body, warnings = encode(ask(sampling=sampling, end_user_id="u", service_tier="flex"))

    assert body["options"] == {
        "temperature": 0.5,
        "top_p": 0.9,
        "top_k": 40,
        "num_predict": 99,
        "stop": ["END"],
        "seed": -7,
        "frequency_penalty": 0.5,
        "presence_penalty": -0.5,
    }
    assert (body["logprobs"], body["top_logprobs"]) == (True, 2)
    assert warnings == [
        *("-sampling.logit_bias", "-sampling.verbosity"),
        *("-end_user_id", "-service_tier"),
    ]


@pytest.mark.parametrize(
    ("wanted", "sent"),
    [
        (ResponseFormat(json_object=JsonObjectFormat()), "json"),
        (ResponseFormat(json_schema=JsonSchemaFormat(schema_json=SCHEMA)), json.loads(SCHEMA)),
        (ResponseFormat(), None),
    ],
)
def test_structured_output_is_a_format(wanted, sent):
    body, warnings = encode(ask(response_format=wanted))

    assert (body.get("format"), warnings) == (sent, [])


EFFORTS = [False, "low", "low", "medium", "high", "high", "high"]


def test_an_effort_is_a_level_or_off():
    efforts = [effort for effort in ReasoningEffort.values() if effort]

    found = [encode(ask(reasoning=ReasoningOptions(effort=effort))) for effort in efforts]

    assert [body["think"] for body, _ in found] == EFFORTS
    told = [bool(warnings) for _, warnings in found]
    assert told == [False, True, False, False, False, True, True]


@pytest.mark.parametrize(
    ("reasoning", "think", "warnings"),
    [
        (ReasoningOptions(include=True), None, []),
        (ReasoningOptions(budget_tokens=0), False, []),
        (ReasoningOptions(budget_tokens=512), None, ["-reasoning.budget_tokens"]),
    ],
)
def test_a_budget_can_only_be_nothing(reasoning, think, warnings):
    body, found = encode(ask(reasoning=reasoning))

    assert (body.get("think"), found) == (think, warnings)


@pytest.mark.parametrize(
    ("effort", "think", "warnings"),
    [
        (ReasoningEffort.REASONING_EFFORT_HIGH, None, ["-reasoning.effort"]),
        (ReasoningEffort.REASONING_EFFORT_NONE, False, []),
    ],
)
def test_a_model_that_is_known_not_to_reason_is_not_asked_to(effort, think, warnings):
    able = frozenset({Capability.TOOLS})

    body, found = encode(ask(reasoning=ReasoningOptions(effort=effort)), capabilities=able)

    assert (body.get("think"), found) == (think, warnings)


def test_extra_options_are_merged_unless_the_gateway_sets_them():
    extra = {"options": {"num_ctx": 8192}, "keep_alive": "5m", "truncate": True, "stream": False}
    spec = ask(
        sampling=SamplingOptions(seed=7),
        provider_options_json={"box": json.dumps(extra), "*": '{"store": true}'},
    )

    body, warnings = encode(spec)

    assert body == {
        "model": "qwen3:4b",
        "messages": [HI],
        "stream": True,
        "truncate": True,
        "options": {"seed": 7, "num_ctx": 8192},
        "keep_alive": "5m",
    }
    assert warnings == ["-provider_options_json.stream"]


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        (ask(user(Part(image=Media(url="https://a/b.png")))), "messages[].parts[].image"),
        (ask(user(Part(image=Media(file_id="f")))), "messages[].parts[].image"),
        (ask(user(Part(audio=Media(data=b"x")))), "messages[].parts[].audio"),
        (ask(user(Part(video=Media(data=b"x")))), "messages[].parts[].video"),
        (ask(user(Part(document=Media(data=b"x")))), "messages[].parts[].document"),
        (ask(assistant(Part(image=Media(data=b"x")))), "messages[].parts[].image"),
        (
            ask(
                user("Hi"),
                assistant(call()),
                message(
                    Role.ROLE_TOOL,
                    Part(
                        tool_result=ToolResult(
                            tool_call_id="call_1", parts=[Part(image=Media(data=b"x"))]
                        )
                    ),
                ),
            ),
            "messages[].parts[].tool_result.parts",
        ),
        (ask(sampling=SamplingOptions(candidate_count=2)), "sampling.candidate_count"),
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
        ({"done_reason": "stop"}, FinishReason.FINISH_REASON_STOP),
        ({"done_reason": "length"}, FinishReason.FINISH_REASON_LENGTH),
        ({"done_reason": "bored"}, FinishReason.FINISH_REASON_OTHER),
        ({}, FinishReason.FINISH_REASON_STOP),
    ],
)
def test_reasons_to_finish_are_translated(native, reason):
    reading = answered(said("Hello"), done(**native))

    [choice] = reading.choices
    assert choice.finish_reason == reason
    assert choice.native_finish_reason == native.get("done_reason", "")


@pytest.mark.parametrize("native", ["load", "unload"])
def test_a_model_that_was_only_loaded_gave_no_answer(native):
    error = answered(done(done_reason=native)).error

    assert error is not None
    assert error.failure is Failure.SERVER


def test_calls_end_an_answer_that_says_it_just_stopped_and_are_given_ids():
    first = {"function": {"name": "a", "arguments": {"n": 1.50, "é": "\n"}}}
    second = {"id": "theirs", "function": {"index": 0, "name": "a", "arguments": {}}}
    third = {"id": "theirs", "function": {"index": 0, "name": "b"}}

    reading = answered(
        said(tool_calls=[first]), said(tool_calls=[second, third]), done(done_reason="stop")
    )

    [choice] = reading.choices
    calls = [part.tool_call for part in choice.message.parts]
    assert choice.finish_reason == FinishReason.FINISH_REASON_TOOL_CALLS
    assert [(made.id, made.name, made.arguments_json) for made in calls] == [
        ("call_0", "a", '{"n": 1.5, "\\u00e9": "\\n"}'),
        ("theirs", "a", "{}"),
        ("call_1", "b", "{}"),
    ]


@pytest.mark.parametrize(
    ("counts", "usage"),
    [
        (
            {"prompt_eval_count": 9, "eval_count": 6},
            Usage(input_tokens=9, output_tokens=6, total_tokens=15),
        ),
        ({"eval_count": 6}, None),  # The prompt was still in the cache.
        ({"prompt_eval_count": 9}, None),
        ({"prompt_eval_count": -1, "eval_count": 6}, None),
        ({"prompt_eval_count": "9", "eval_count": True}, None),
        ({}, None),
    ],
)
def test_usage_needs_both_counts(counts, usage):
    reading = answered(said("Hello"), done(done_reason="stop", **counts))

    assert reading.error is None
    assert reading.facts.usage == usage


def test_the_model_that_answered_is_noted():
    reading = answered({**said("Hello"), "model": "qwen3:4b"}, done())

    assert reading.facts.response_model == "qwen3:4b"


def test_nothing_after_the_end_matters():
    stream = lines(said("Hello"), done()) + b'{"error": "late"}\n<html>\n'

    reading = read("ollama", [stream[:-30], stream[-30:]])

    assert reading.said("text_delta") == "Hello"
    assert [choice.finish_reason for choice in reading.choices] == [1]


def test_logprobs_come_with_the_text_they_belong_to():
    top = [{"token": "H", "logprob": -0.25}, {"token": "\ufffd", "logprob": -2.0}]
    entry = {"token": "H", "logprob": -0.25, "bytes": [72], "top_logprobs": top}

    reading = answered(
        {**said(thinking="Hm"), "logprobs": [entry]}, {**said("H"), "logprobs": [entry]}, done()
    )

    [_, delta, _] = reading.events
    chosen = TokenLogprob(token="H", logprob=-0.25, utf8=b"H")
    [found] = delta.text_delta.logprobs
    assert list(found.top) == [chosen, TokenLogprob(token="\ufffd", logprob=-2.0)]
    del found.top[:]
    assert found == chosen


def test_thinking_that_nobody_asked_for_only_counts_as_progress():
    prompt = Prompt(ask(), stream=True)
    candidate = Candidate(provider="box", id="m", model="m", family="ollama")
    decoder = OllamaTranslator().decoder(candidate, prompt, AttemptFacts(), str)

    events = decoder.feed(lines(said(thinking="Hm")))

    assert events == []
    assert decoder.progressed
    assert decoder.output_chars == 2


@pytest.mark.parametrize(
    ("stream", "failure", "words"),
    [
        (lines(said("Hello")), Failure.AMBIGUOUS, "the stream ended before the answer"),
        (lines(said("Hello"))[:-9], Failure.AMBIGUOUS, "the stream ended inside of a line"),
        (b"", Failure.AMBIGUOUS, "the stream ended before the answer"),
        (lines({"error": "boom"}), Failure.SERVER, "boom"),
        (lines({"error": {"message": "boom"}}), Failure.SERVER, "boom"),
        (b"<html>\n", Failure.PROTOCOL, "malformed JSON: DecodeError"),
        (lines(said(tool_calls=[{"function": {}}])), Failure.PROTOCOL, None),
        (lines(said(tool_calls=[{}])), Failure.PROTOCOL, None),
        (lines(said("Hello"), [1]), Failure.PROTOCOL, None),
    ],
)
def test_a_stream_that_fails_says_how(stream, failure, words):
    error = read("ollama", [stream]).error

    assert error is not None
    assert error.failure is failure
    assert words is None or str(error) == words


def test_the_last_line_needs_no_end():
    reading = read("ollama", [lines(said("Hello"), done())[:-1]])

    assert reading.error is None


def test_an_answer_in_one_piece_is_one_line_that_is_done():
    whole = {**done(done_reason="stop"), "message": {"content": "Hello", "thinking": "Hm"}}

    reading = read_whole("ollama", json.dumps(whole, indent=2).encode())
    unfinished = read_whole("ollama", lines(said("Hello")))

    assert (reading.said("reasoning_delta"), reading.said("text_delta")) == ("Hm", "Hello")
    assert unfinished.error is not None
    assert unfinished.error.failure is Failure.PROTOCOL
