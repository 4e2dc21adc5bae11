"""The Bedrock dialect: whole bodies out, whole lists of events in."""

import itertools
import json
from pathlib import Path
from typing import Any

import pytest

from tests.providers.event_stream import event, frame
from tests.providers.specs import (
    NOW,
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
from trunkline.v1.completion_event_pb2 import ChoiceFinished, CompleteResponse, TextDelta
from trunkline.v1.completion_pb2 import FinishReason, Usage
from trunkline.v1.completion_spec_pb2 import (
    CompletionSpec,
    JsonObjectFormat,
    JsonSchemaFormat,
    ReasoningEffort,
    ReasoningOptions,
    ResponseFormat,
    SamplingOptions,
    ToolChoice,
    ToolChoiceMode,
)
from trunkline.v1.message_pb2 import Media, Part, ProviderState, Reasoning, Role, ToolResult
from trunkline_server.core.candidate import Candidate
from trunkline_server.core.errors import UpstreamError
from trunkline_server.core.failure import Failure
from trunkline_server.core.ports import AttemptFacts, Prompt, Unencodable
from trunkline_server.providers.bedrock import FINISH_REASONS, BedrockDecoder, BedrockTranslator
from trunkline_server.providers.bedrock_models import vendor_of

RECORDINGS = Path(__file__).parents[2] / "recordings" / "bedrock"
CLAUDE = "us.anthropic.claude-opus-4-8"
OLDER_CLAUDE = "anthropic.claude-sonnet-4-5-20250929-v1:0"
NOVA = "amazon.nova-lite-v1:0"
NOVA_2 = "us.amazon.nova-2-lite-v1:0"
GPT = "openai.gpt-oss-120b-1:0"
LLAMA = "meta.llama3-3-70b-instruct-v1:0"
OTHER = "qwen.qwen3-32b-v1:0"
HI = {"role": "user", "content": [{"text": "Hi"}]}
SIGNED = b'{"reasoningContent":{"reasoningText":{"text":"Hm.","signature":"c2ln"}}}'
NONE = ToolChoice(mode=ToolChoiceMode.TOOL_CHOICE_MODE_NONE)
REQUIRED = ToolChoice(mode=ToolChoiceMode.TOOL_CHOICE_MODE_REQUIRED)


def candidate(model: str = NOVA, **more: Any) -> Candidate:
    return Candidate(provider="aws", id=model, model=model, family="bedrock", **more)


def encoded(spec: CompletionSpec, model: str = NOVA) -> tuple[dict[str, Any], list[str]]:
    """The body, and a word for each warning."""
    request = BedrockTranslator().encode(candidate(model), Prompt(spec, stream=True))
    body: dict[str, Any] = json.loads(request.body)
    return body, [f"{warning.code} {warning.field}" for warning in request.warnings]


def body_of(spec: CompletionSpec, model: str = NOVA) -> dict[str, Any]:
    """The body of what can be sent as it is."""
    body, warnings = encoded(spec, model)
    assert warnings == []
    return body


def decoder(facts: AttemptFacts, *, include: bool = True) -> BedrockDecoder:
    ids = itertools.count()
    spec = ask(reasoning=ReasoningOptions(include=include))
    prompt = Prompt(spec, stream=True)
    return BedrockTranslator().decoder(candidate(CLAUDE), prompt, facts, lambda: f"c{next(ids)}")


def events_of(*data: bytes, include: bool = True) -> tuple[list[CompleteResponse], AttemptFacts]:
    facts = AttemptFacts()
    reader = decoder(facts, include=include)
    events = [found for chunk in data for found in reader.feed(chunk)]
    return [*events, *reader.finish()], facts


# Requests


@pytest.mark.parametrize(
    ("model", "stream", "path"),
    [
        (NOVA, True, "/model/amazon.nova-lite-v1%3A0/converse-stream"),
        (CLAUDE, False, "/model/us.anthropic.claude-opus-4-8/converse"),
        (
            "arn:aws:bedrock:us-east-1:1:prompt-router/a",
            False,
            "/model/arn%3Aaws%3Abedrock%3Aus-east-1%3A1%3Aprompt-router%2Fa/converse",
        ),
    ],
)
def test_the_model_is_one_segment_of_the_path(model, stream, path):
    assert BedrockTranslator().encode(candidate(model), Prompt(ask(), stream)).path == path


def test_text_is_all_that_a_short_request_needs():
    assert body_of(ask()) == {"messages": [HI]}


def test_system_text_is_a_field_of_its_own_and_names_are_folded():
    spec = ask(
        message(Role.ROLE_SYSTEM, "Be brief."),
        message(Role.ROLE_DEVELOPER, " "),
        user("Hi", name="ada"),
        system_prompt="Be right.",
    )

    assert body_of(spec) == {
        "system": [{"text": "Be right."}, {"text": "Be brief."}],
        "messages": [{"role": "user", "content": [{"text": "ada: Hi"}]}],
    }


def test_instructions_alone_are_asked_as_a_question():
    assert body_of(ask(message(Role.ROLE_SYSTEM, "Go."))) == {
        "messages": [{"role": "user", "content": [{"text": "Go."}]}]
    }


def test_blank_text_alone_can_not_be_sent():
    with pytest.raises(Unencodable):
        encoded(ask(user(" ")))


def test_roles_alternate_and_the_user_begins():
    spec = ask(assistant("Hello."), user("Hi", " "), user("you"), assistant("Well, "))

    assert body_of(spec)["messages"] == [
        {"role": "user", "content": [{"text": "(The conversation begins.)"}]},
        {"role": "assistant", "content": [{"text": "Hello."}]},
        {"role": "user", "content": [{"text": "Hi"}, {"text": "you"}]},
        {"role": "assistant", "content": [{"text": "Well,"}]},
    ]


def test_results_stand_first_in_one_turn_and_only_errors_have_a_status():
    spec = ask(
        user("Oslo?"),
        assistant("Let me look.", call("call_1"), call("with~odd~letters", "not JSON")),
        user("Quick!"),
        message(
            Role.ROLE_TOOL, result("call_1"), result("with~odd~letters", "down", is_error=True)
        ),
        message(Role.ROLE_TOOL, Part(tool_result=ToolResult(tool_call_id="call_3"))),
        tool_options=tools(),
    )

    body = body_of(spec, CLAUDE)

    called, answered = body["messages"][1:]
    hashed = called["content"][2]["toolUse"]["toolUseId"]
    assert called["content"] == [
        {"text": "Let me look."},
        {"toolUse": {"toolUseId": "call_1", "name": "get_weather", "input": {"city": "Oslo"}}},
        {
            "toolUse": {
                "toolUseId": hashed,
                "name": "get_weather",
                "input": {"arguments": "not JSON"},
            }
        },
    ]
    assert answered["content"] == [
        {"toolResult": {"toolUseId": "call_1", "content": [{"text": "4 degrees"}]}},
        {"toolResult": {"toolUseId": hashed, "content": [{"text": "down"}], "status": "error"}},
        {"toolResult": {"toolUseId": "call_3", "content": [{"text": "(no output)"}]}},
        {"text": "Quick!"},
    ]
    assert hashed.startswith("tooluse_")


@pytest.mark.parametrize("model", [NOVA, NOVA_2, LLAMA, "mistral.mistral-large-2407-v1:0", GPT])
def test_all_models_but_claude_get_results_and_words_in_turns_of_their_own(model):
    spec = ask(
        user("Oslo?"),
        assistant("Let me look.", call()),
        message(Role.ROLE_TOOL, result()),
        user("In Kelvin!"),
        assistant("277 K."),
        tool_options=tools(),
    )

    turns = body_of(spec, model)["messages"]

    given = {"toolResult": {"toolUseId": "call_1", "content": [{"text": "4 degrees"}]}}
    assert turns[2:] == [
        {"role": "user", "content": [given]},
        {"role": "assistant", "content": [{"text": "(The results are in.)"}]},
        {"role": "user", "content": [{"text": "In Kelvin!"}]},
        {"role": "assistant", "content": [{"text": "277 K."}]},
    ]


def test_results_alone_need_no_turn_between():
    spec = ask(
        user("Oslo?"),
        assistant(call()),
        message(Role.ROLE_TOOL, result()),
        tool_options=tools(),
    )

    assert [turn["role"] for turn in body_of(spec)["messages"]] == ["user", "assistant", "user"]


def document(filename: str, mime_type: str = "application/pdf") -> Part:
    return Part(document=Media(data=b"x", mime_type=mime_type, filename=filename))


def test_documents_have_names_that_are_allowed_and_differ():
    names = ["a.pdf", "a.txt", "Q3_report (final) [v2].pdf", "../été.pdf", "", "y" * 300]

    body = body_of(ask(user(*map(document, names), "Read.")))

    blocks = [block["document"] for block in body["messages"][0]["content"] if "document" in block]
    assert [block["name"] for block in blocks] == [
        "a",
        "a 2",
        "Q3 report (final) [v2]",
        "t",
        "document",
        "y" * 200,
    ]
    assert blocks[0] == {"name": "a", "format": "pdf", "source": {"bytes": "eA=="}}


def test_a_document_without_text_gets_some():
    assert body_of(ask(user(document("a.pdf"))))["messages"][0]["content"][-1] == {
        "text": "(See the document.)"
    }


@pytest.mark.parametrize(
    ("part", "block"),
    [
        (
            Part(image=Media(data=b"x", mime_type="image/jpg")),
            {"image": {"format": "jpeg", "source": {"bytes": "eA=="}}},
        ),
        (
            Part(video=Media(url="s3://bucket/a.mp4")),
            {"video": {"format": "mp4", "source": {"s3Location": {"uri": "s3://bucket/a.mp4"}}}},
        ),
        (
            Part(audio=Media(data=b"x", mime_type="audio/mpeg")),
            {"audio": {"format": "mp3", "source": {"bytes": "eA=="}}},
        ),
        (
            document("notes", "text/x-rst"),
            {"document": {"name": "notes", "format": "txt", "source": {"bytes": "eA=="}}},
        ),
        (
            document("Page.HTM", ""),
            {"document": {"name": "Page", "format": "html", "source": {"bytes": "eA=="}}},
        ),
    ],
)
def test_media_are_bytes_or_in_s3_with_a_format(part, block):
    assert body_of(ask(user(part, "?")))["messages"][0]["content"][0] == block


@pytest.mark.parametrize(
    "part",
    [
        Part(image=Media(url="https://example.com/a.png")),
        Part(image=Media(file_id="file-1")),
        Part(image=Media(data=b"x", mime_type="image/tiff")),
        Part(document=Media(data=b"x", mime_type="application/zip")),
        Part(document=Media(data=b"x", mime_type="application/zip", filename="//[a.pdf")),
        Part(document=Media(url="s3://[x/a.pdf")),
    ],
    ids=range(6),
)
def test_other_media_can_not_be_sent(part):
    with pytest.raises(Unencodable):
        encoded(ask(user(part)))


def test_media_are_not_the_assistants():
    with pytest.raises(Unencodable):
        encoded(ask(user("Hi"), assistant(document("a.pdf"))))


TOOLS = [
    {
        "toolSpec": {
            "name": "get_weather",
            "description": "The weather of a city.",
            "inputSchema": {"json": json.loads(SCHEMA)},
        }
    },
    {"toolSpec": {"name": "now", "inputSchema": {"json": {"type": "object", "properties": {}}}}},
]


@pytest.mark.parametrize(
    ("choice", "written"),
    [
        (ToolChoice(), {}),
        (ToolChoice(mode=ToolChoiceMode.TOOL_CHOICE_MODE_AUTO), {}),
        (REQUIRED, {"toolChoice": {"any": {}}}),
        (ToolChoice(tool_name="now"), {"toolChoice": {"tool": {"name": "now"}}}),
    ],
)
def test_tools_and_their_choice(choice, written):
    body = body_of(ask(tool_options=tools(choice=choice)))

    assert body["toolConfig"] == {"tools": TOOLS, **written}


def test_no_tool_may_be_called_when_none_is_sent():
    assert "toolConfig" not in body_of(ask(tool_options=tools(choice=NONE)))


@pytest.mark.parametrize("options", [{}, {"tool_options": tools(choice=NONE)}])
def test_a_history_with_calls_declares_them_all_the_same(options):
    spec = ask(user("?"), assistant(call()), message(Role.ROLE_TOOL, result()), **options)

    body, warnings = encoded(spec)

    [declared] = body["toolConfig"]["tools"]
    assert declared["toolSpec"]["name"] == "get_weather"
    assert "do not call" in declared["toolSpec"]["description"]
    assert warnings == ["TOOLS_DECLARED spec.tool_options.choice"]


def test_a_strict_tool_has_a_closed_schema():
    strict = tools(WEATHER)
    strict.tools[0].strict = True
    strict.tools[
        0
    ].parameters_schema_json = '{"type": "object", "properties": {}, "minProperties": 1}'

    [tool] = body_of(ask(tool_options=strict))["toolConfig"]["tools"]

    assert tool["toolSpec"]["strict"] is True
    assert tool["toolSpec"]["inputSchema"]["json"] == {
        "type": "object",
        "properties": {},
        "additionalProperties": False,
    }


def test_a_claude_that_can_not_be_forced_is_not():
    spec = ask(tool_options=tools(NOW, choice=REQUIRED))

    body, warnings = encoded(spec, "us.anthropic.claude-opus-5-5")

    assert "toolChoice" not in body["toolConfig"]
    assert warnings == ["PARAMETER_DROPPED spec.tool_options.choice"]


SAMPLING = SamplingOptions(
    temperature=1.5, top_p=0.9, top_k=40, max_output_tokens=99, stop=["END", " "]
)


@pytest.mark.parametrize(
    ("model", "inference", "fields", "dropped"),
    [
        (NOVA, {"temperature": 1.0, "topP": 0.9}, {"inferenceConfig": {"topK": 40}}, ""),
        (LLAMA, {"temperature": 1.0, "topP": 0.9}, {}, "top_k"),
        (OTHER, {"temperature": 1.0, "topP": 0.9}, {"top_k": 40}, ""),
        (OLDER_CLAUDE, {"temperature": 1.0}, {"top_k": 40}, "top_p"),
        ("cohere.command-r-v1:0", {"temperature": 1.0, "topP": 0.9}, {"k": 40}, ""),
    ],
)
def test_sampling_is_in_two_places(model, inference, fields, dropped):
    body, warnings = encoded(ask(sampling=SAMPLING), model)

    assert body["inferenceConfig"] == {"maxTokens": 99, "stopSequences": ["END"], **inference}
    assert body.get("additionalModelRequestFields", {}) == fields
    assert warnings == [
        "VALUE_CLAMPED spec.sampling.temperature",
        *([f"PARAMETER_DROPPED spec.sampling.{dropped}"] if dropped else []),
        "PARAMETER_DROPPED spec.sampling.stop",
    ]


def test_claude_is_asked_which_stop_sequence_it_was():
    spec = ask(sampling=SamplingOptions(stop=["END"]))

    assert body_of(spec, CLAUDE)["additionalModelResponseFieldPaths"] == ["/stop_sequence"]
    assert "additionalModelResponseFieldPaths" not in body_of(spec, NOVA)


def test_a_newer_claude_takes_no_samplers():
    _, warnings = encoded(ask(sampling=SamplingOptions(temperature=0.2, top_p=1.0)), CLAUDE)

    assert warnings == ["PARAMETER_DROPPED spec.sampling.temperature"]


EFFORTS = [
    value
    for value in ReasoningEffort.values()
    if value != ReasoningEffort.REASONING_EFFORT_UNSPECIFIED
]


@pytest.mark.parametrize(
    ("model", "place", "written"),
    [
        (OTHER, ("outputConfig", "effort"), "low low low medium high xhigh max"),
        (
            GPT,
            ("additionalModelRequestFields", "reasoning_effort"),
            "low low low medium high high high",
        ),
        (CLAUDE, ("outputConfig", "effort"), "- low low medium high xhigh max"),
        (
            NOVA_2,
            ("additionalModelRequestFields", "reasoningConfig", "maxReasoningEffort"),
            "- low low medium high high high",
        ),
        (LLAMA, ("outputConfig",), "- - - - - - -"),
        (NOVA, ("outputConfig",), "- - - - - - -"),
    ],
)
def test_efforts_are_said_as_each_vendor_has_them(model, place, written):
    found = []
    for effort in EFFORTS:
        value: Any = encoded(ask(reasoning=ReasoningOptions(effort=effort)), model)[0]
        for key in place:
            value = value.get(key, {})
        found.append(value or "-")

    assert " ".join(found) == written


@pytest.mark.parametrize(
    ("model", "options", "fields"),
    [
        (CLAUDE, {"effort": 5}, {"thinking": {"type": "adaptive"}}),
        (
            CLAUDE,
            {"effort": 5, "include": True},
            {"thinking": {"type": "adaptive", "display": "summarized"}},
        ),
        (CLAUDE, {"effort": 1}, {"thinking": {"type": "disabled"}}),
        (OLDER_CLAUDE, {"effort": 4}, {"thinking": {"type": "enabled", "budget_tokens": 8192}}),
        (
            OLDER_CLAUDE,
            {"budget_tokens": 3000},
            {"thinking": {"type": "enabled", "budget_tokens": 3000}},
        ),
        (NOVA_2, {"effort": 1}, {"reasoningConfig": {"type": "disabled"}}),
        (
            NOVA_2,
            {"effort": 3},
            {"reasoningConfig": {"type": "enabled", "maxReasoningEffort": "low"}},
        ),
    ],
)
def test_thinking_is_turned_on_and_off_among_the_vendors_fields(model, options, fields):
    body = body_of(ask(reasoning=ReasoningOptions(**options)), model)

    assert body["additionalModelRequestFields"] == fields


def test_nova_thinks_hard_without_limits():
    spec = ask(
        reasoning=ReasoningOptions(effort=ReasoningEffort.REASONING_EFFORT_HIGH),
        sampling=SamplingOptions(temperature=0.5, max_output_tokens=99),
    )

    body, warnings = encoded(spec, NOVA_2)

    assert "inferenceConfig" not in body
    assert warnings == [
        "PARAMETER_DROPPED spec.sampling.max_output_tokens",
        "PARAMETER_DROPPED spec.sampling.temperature",
    ]


def thought(model: str = CLAUDE, data: bytes = SIGNED, provider: str = "bedrock") -> Part:
    return Part(
        reasoning=Reasoning(text="Hm."),
        provider_state=ProviderState(provider=provider, model=model, data=data),
    )


@pytest.mark.parametrize("made_by", [CLAUDE, OLDER_CLAUDE, "global.anthropic.claude-haiku-5-5"])
def test_signed_reasoning_goes_back_as_it_came_to_its_vendor(made_by):
    request = BedrockTranslator().encode(
        candidate(CLAUDE), Prompt(ask(user("?"), assistant(thought(made_by), "Yes.")), stream=False)
    )

    assert b'"content":[%b,{"text":"Yes."}]' % SIGNED in request.body
    assert request.warnings == []


@pytest.mark.parametrize(
    "part",
    [
        thought("amazon.nova-lite-v1:0"),
        thought(provider="anthropic"),
        thought(data=b'{"text":"injected"}'),
        thought(data=b"\xff"),
        thought(data=b"[]"),
    ],
    ids=range(5),
)
def test_other_state_is_left_out_with_a_warning(part):
    body, warnings = encoded(ask(user("?"), assistant(part, "Yes.")), CLAUDE)

    assert body["messages"][1]["content"] == [{"text": "Yes."}]
    assert warnings == ["STATE_DROPPED spec.messages"]


@pytest.mark.parametrize(
    ("name", "vendor"),
    [
        ("anthropic.claude-3-haiku-20240307-v1:0", "anthropic"),
        ("us.amazon.nova-lite-v1:0", "amazon"),
        ("arn:aws:bedrock:us-east-1::foundation-model/meta.llama3-v1:0", "meta"),
        ("arn:aws:bedrock:us-east-1:1:application-inference-profile/abc", "abc"),
        ("deepseek.v3.1", "deepseek"),
    ],
)
def test_the_vendor_is_in_the_name(name, vendor):
    assert vendor_of(name) == vendor


def test_a_schema_is_sent_as_text():
    wanted = JsonSchemaFormat(name="trip", description="A trip.", schema_json=SCHEMA)

    body = body_of(ask(response_format=ResponseFormat(json_schema=wanted)))

    definition = body["outputConfig"]["textFormat"]["structure"]["jsonSchema"]
    assert body["outputConfig"]["textFormat"]["type"] == "json_schema"
    assert json.loads(definition.pop("schema")) == json.loads(SCHEMA)
    assert definition == {"name": "trip", "description": "A trip."}


def test_what_the_dialect_lacks_is_dropped_with_a_warning():
    spec = ask(
        response_format=ResponseFormat(json_object=JsonObjectFormat()),
        sampling=SamplingOptions(seed=7, frequency_penalty=1, logprobs=True),
        tool_options=tools(parallel_calls=False),
        end_user_id="u",
        service_tier="turbo",
    )

    _, warnings = encoded(spec)

    assert warnings == [
        f"PARAMETER_DROPPED spec.{name}"
        for name in (
            "tool_options.parallel_calls",
            "sampling.seed",
            "sampling.frequency_penalty",
            "sampling.logprobs",
            "response_format.json_object",
            "service_tier",
            "end_user_id",
        )
    ]


@pytest.mark.parametrize(
    ("tier", "written"),
    [("auto", None), ("standard", {"type": "default"}), ("priority", {"type": "priority"})],
)
def test_tiers(tier, written):
    assert body_of(ask(service_tier=tier)).get("serviceTier") == written


def test_one_answer_is_all_there_is():
    with pytest.raises(Unencodable):
        encoded(ask(sampling=SamplingOptions(candidate_count=2)))


def test_the_callers_extra_parameters_are_merged_and_may_not_replace_the_conversation():
    options = {
        "aws": json.dumps(
            {
                "guardrailConfig": {"guardrailIdentifier": "g1", "guardrailVersion": "1"},
                "additionalModelRequestFields": {"top_k": 5},
                "inferenceConfig": {"topP": 0.5},
                "messages": [],
            }
        ),
        "*": '{"ignored": true}',
    }
    spec = ask(sampling=SamplingOptions(temperature=0.5), provider_options_json=options)

    body, warnings = encoded(spec)

    assert body == {
        "messages": [HI],
        "inferenceConfig": {"temperature": 0.5, "topP": 0.5},
        "additionalModelRequestFields": {"top_k": 5},
        "guardrailConfig": {"guardrailIdentifier": "g1", "guardrailVersion": "1"},
    }
    assert warnings == ["PARAMETER_DROPPED spec.provider_options_json.messages"]


def test_more_than_the_model_writes_is_not_asked_for():
    spec = ask(sampling=SamplingOptions(max_output_tokens=9000))
    asked = candidate(NOVA, max_output_tokens=5000)

    request = BedrockTranslator().encode(asked, Prompt(spec, stream=False))

    assert json.loads(request.body)["inferenceConfig"] == {"maxTokens": 5000}
    assert [warning.code for warning in request.warnings] == ["VALUE_CLAMPED"]


# Answers


def test_hello():
    events, facts = events_of((RECORDINGS / "hello.eventstream").read_bytes())

    finished = ChoiceFinished(
        finish_reason=FinishReason.FINISH_REASON_STOP, native_finish_reason="end_turn"
    )
    assert events == [
        *(
            CompleteResponse(text_delta=TextDelta(text=text))
            for text in ("H", "éllo", ", world 👋")
        ),
        CompleteResponse(choice_finished=finished),
    ]
    assert facts.usage == Usage(input_tokens=9, output_tokens=6, total_tokens=15)
    assert facts.service_tier == "default"


def test_cached_tokens_are_part_of_the_input():
    _, facts = events_of((RECORDINGS / "cached_usage.eventstream").read_bytes())

    assert facts.usage == Usage(
        input_tokens=12 + 2048 + 310,
        output_tokens=4,
        total_tokens=12 + 2048 + 310 + 4,
        cached_input_tokens=2048,
        cache_write_input_tokens=310,
    )


@pytest.mark.parametrize("include", [True, False])
def test_signed_reasoning_is_state_shown_or_not(include):
    events, _ = events_of((RECORDINGS / "reasoning.eventstream").read_bytes(), include=include)

    [part] = [found.part_completed.part for found in events if found.HasField("part_completed")]
    shown = "".join(found.reasoning_delta.text for found in events)
    assert shown == ("The user greets me." if include else "")
    assert part.reasoning == Reasoning(text=shown, redacted=not include)
    assert json.loads(part.provider_state.data) == {
        "reasoningContent": {
            "reasoningText": {
                "text": "The user greets me.",
                "signature": "U3ludGhldGljU2lnbmF0dXJlMDAwMDAwMDAwMDAwMDE=",
            }
        }
    }
    assert (part.provider_state.provider, part.provider_state.model) == ("bedrock", CLAUDE)


def test_redacted_reasoning_is_state_alone():
    events, _ = events_of((RECORDINGS / "redacted_reasoning.eventstream").read_bytes())

    part = events[0].part_completed.part
    assert part.reasoning == Reasoning(redacted=True)
    assert part.provider_state.data == (
        b'{"reasoningContent":{"redactedContent":"c3ludGhldGljLCByZWRhY3RlZCByZWFzb25pbmc="}}'
    )


def test_state_comes_back_as_it_was_sent():
    events, _ = events_of((RECORDINGS / "reasoning_tool.eventstream").read_bytes())
    parts = [found.part_completed.part for found in events if found.HasField("part_completed")]

    spec = ask(user("?"), assistant(*parts), tool_options=tools())
    body = body_of(spec, CLAUDE)

    reasoning, use = body["messages"][1]["content"]
    assert reasoning["reasoningContent"]["reasoningText"]["text"] == "Weather is asked for."
    assert use["toolUse"]["input"] == {"city": "Oslo"}


@pytest.mark.parametrize("native", [*FINISH_REASONS, "something_new"])
def test_every_end_has_a_meaning(native):
    events, _ = events_of(event("messageStop", {"stopReason": native}))

    assert events[-1].choice_finished.native_finish_reason == native
    assert events[-1].choice_finished.finish_reason == FINISH_REASONS.get(
        native, FinishReason.FINISH_REASON_OTHER
    )


def test_the_stop_sequence_is_told():
    events, _ = events_of((RECORDINGS / "stop_sequence.eventstream").read_bytes())

    assert events[-1].choice_finished.stop_sequence == ", three"


def test_the_end_is_messagestop_and_metadata_may_be_missing():
    reader = decoder(AttemptFacts())
    reader.feed(event("messageStop", {"stopReason": "end_turn"}))
    before = reader.is_done

    reader.feed(event("metadata", {"usage": {"inputTokens": 1, "outputTokens": 1}}))

    assert (before, reader.is_finished, reader.is_done) == (False, True, True)
    assert events_of(event("messageStop", {"stopReason": "end_turn"}))[1].usage is None


def test_what_fails_after_the_end_takes_nothing_away():
    end = event("messageStop", {"stopReason": "end_turn"})

    events, _ = events_of(end + event("internalServerException", {"message": "late"}))

    assert events[-1].HasField("choice_finished")


@pytest.mark.parametrize(
    ("name", "failure"),
    [
        ("throttlingException", Failure.THROTTLED),
        ("modelStreamErrorException", Failure.SERVER),
        ("internalServerException", Failure.SERVER),
        ("serviceUnavailableException", Failure.SERVER),
        ("validationException", Failure.CALLER),
        ("unheardOfException", Failure.SERVER),
    ],
)
def test_exceptions_in_a_stream_are_told_by_their_name(name, failure):
    with pytest.raises(UpstreamError) as caught:
        decoder(AttemptFacts()).feed(event(name, {"message": "throttlingException, they say"}))

    assert caught.value.failure is failure
    assert caught.value.code == name[:1].upper() + name[1:]


@pytest.mark.parametrize(
    ("data", "failure"),
    [
        (
            frame({":message-type": "error", ":error-code": "InternalServerException"}, b""),
            Failure.SERVER,
        ),
        (frame({":message-type": "novelty"}, b""), Failure.PROTOCOL),
        (event("messageStop", {}), Failure.PROTOCOL),
        (event("contentBlockDelta", {"delta": {"toolUse": {"input": "{"}}}), Failure.PROTOCOL),
        (
            event("contentBlockDelta", {"delta": {"reasoningContent": {"redactedContent": "%"}}}),
            Failure.PROTOCOL,
        ),
    ],
)
def test_what_the_dialect_does_not_promise_fails(data, failure):
    with pytest.raises(UpstreamError) as caught:
        decoder(AttemptFacts()).feed(data)

    assert caught.value.failure is failure


def test_kinds_of_events_that_come_later_are_read_over():
    data = event("invention", {"contentBlockIndex": "?"})
    end = event("messageStop", {"stopReason": "end_turn"})

    assert len(events_of(data + end)[0]) == 1


def test_a_whole_answer_may_hold_cited_text_and_name_the_routed_model():
    facts = AttemptFacts()
    body = {
        "output": {
            "message": {
                "role": "assistant",
                "content": [
                    {"citationsContent": {"content": [{"text": "Cold."}], "citations": []}},
                    {"toolUse": {"toolUseId": "t", "name": "now"}},
                ],
            }
        },
        "stopReason": "tool_use",
        "trace": {"promptRouter": {"invokedModelId": "arn:aws:bedrock:model"}},
        "usage": {"inputTokens": 1, "outputTokens": 2, "totalTokens": 3},
    }

    events = decoder(facts).whole(json.dumps(body).encode())

    assert events[0].text_delta.text == "Cold."
    assert events[-2].part_completed.part.tool_call.arguments_json == "{}"
    assert facts.response_model == "arn:aws:bedrock:model"
