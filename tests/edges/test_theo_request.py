"""Theo's requests as the contract has them."""

import json
from typing import Any, Final

import pytest

from trunkline.v1.completion_spec_pb2 import (
    CacheMode,
    CachePolicy,
    CompletionSpec,
    SamplingOptions,
    Tool,
    ToolOptions,
)
from trunkline.v1.job_service_pb2 import CreateJobRequest
from trunkline.v1.message_pb2 import Media, Message, Part, ProviderState, Role, ToolResult
from trunkline_server.edges.rest.call_state import CallIds
from trunkline_server.edges.rest.http import Refused
from trunkline_server.edges.rest.theo_fields import envelope, theos
from trunkline_server.edges.rest.theo_jobs import read_job
from trunkline_server.edges.rest.theo_request import Wanted, read_chat, read_completion

ALLOWED: Final = CachePolicy(mode=CacheMode.CACHE_MODE_ALLOW)


def read(**body: Any) -> tuple[CompletionSpec, Wanted]:
    """A body of `/api/v1/completions`."""
    spec = CompletionSpec()
    wanted = read_completion(json.dumps(body).encode(), spec)
    return spec, wanted


def chat(*messages: dict[str, Any], **body: Any) -> tuple[CompletionSpec, Wanted]:
    """A body of `/api/v1/chat/completions`."""
    spec = CompletionSpec()
    wanted = read_chat(json.dumps({"messages": messages, **body}).encode(), spec)
    return spec, wanted


def said(role: Role.ValueType, *parts: Part) -> Message:
    """A message."""
    return Message(role=role, parts=parts)


def user(text: str) -> Message:
    """What a user says."""
    return said(Role.ROLE_USER, Part(text=text))


def test_every_field_of_the_page_reaches_the_contract():
    spec, wanted = read(
        prompt="Check stock.",
        mode="think",
        stream=True,
        conversation_id="conv_1",
        skills=["inventory", "tone"],
        tools=[
            {"name": "check", "description": "Looks.", "input_schema": {"type": "object"}},
            {"name": "order", "description": "Orders."},
        ],
        persona={"system_prompt": "You are Atlas."},
        temperature=0.7,
        max_iterations=5,
        model_overrides={"think": "theo-1-reason", "code": "gpt-5"},
        format="openai",
        metadata={"a": [1, 2.50]},
        component_library="shop",
    )

    assert spec == CompletionSpec(
        messages=[user("Check stock.")],
        mode="think",
        conversation_id="conv_1",
        skills=["inventory", "tone"],
        tool_options=ToolOptions(
            tools=[
                Tool(
                    name="check", description="Looks.", parameters_schema_json='{"type": "object"}'
                ),
                Tool(name="order", description="Orders."),
            ],
            max_hops=5,
        ),
        system_prompt="You are Atlas.",
        sampling=SamplingOptions(temperature=0.7),
        model_overrides={"think": "theo-1-reason", "code": "gpt-5"},
        metadata_json='{"a": [1, 2.5]}',
        component_library="shop",
    )
    assert wanted == Wanted(["prompt"], streams=True, is_openai=True)


def test_a_prompt_alone_is_theo_in_any_mode_and_may_be_cached():
    nulls = dict.fromkeys(
        (
            "mode", "stream", "conversation_id", "conversation", "skills", "tools", "tool_results", "attachments",
            "persona", "temperature", "max_iterations", "model_overrides", "format", "metadata", "component_library",
            "response_style", "brand_soul",
        )
    )  # fmt: skip

    found = [read(prompt="hi"), read(prompt="hi", **nulls)]

    spec = CompletionSpec(messages=[user("hi")], mode="auto", persona="theo", cache=ALLOWED)
    assert found == [(spec, Wanted(["prompt"]))] * 2


@pytest.mark.parametrize("conversation_id", ["conv_1", "new"])
def test_a_conversation_is_not_cached(conversation_id):
    spec, _ = read(prompt="hi", conversation_id=conversation_id)

    assert spec == CompletionSpec(
        messages=[user("hi")], mode="auto", persona="theo", conversation_id=conversation_id
    )


@pytest.mark.parametrize(
    ("persona", "fields"),
    [
        ("theo", {"persona": "theo"}),
        ("none", {"persona": "none"}),
        ("pirate", {"persona": "pirate"}),
        ({"system_prompt": "Be brief."}, {"system_prompt": "Be brief."}),
    ],
)
def test_a_persona_is_a_name_or_a_prompt(persona, fields):
    spec, _ = read(prompt="hi", persona=persona)

    assert spec == CompletionSpec(messages=[user("hi")], mode="auto", cache=ALLOWED, **fields)


def test_a_conversation_of_the_callers_own_goes_before_the_prompt():
    turns = [
        {"role": "user", "content": "Name a river.", "id": "m1", "createdAt": "2026-01-01"},
        {"role": "assistant", "content": "The Aare.", "mode": "fast", "artifacts": [{"id": 1}]},
    ]

    spec, wanted = read(
        prompt="And a lake?", conversation={"id": "c", "title": "T", "messages": turns}
    )

    assert list(spec.messages) == [
        user("Name a river."),
        said(Role.ROLE_ASSISTANT, Part(text="The Aare.")),
        user("And a lake?"),
    ]
    assert not spec.conversation_id
    assert wanted.origins == [
        "conversation.messages[0].content",
        "conversation.messages[1].content",
        "prompt",
    ]


def test_results_of_tools_answer_the_calls_of_a_conversation():
    results = [
        {"tool_call_id": "c1", "content": "3"},
        {"tool_call_id": "c2", "content": "no such shelf", "is_error": True},
    ]

    alone, _ = read(conversation_id="conv_1", tool_results=results)
    spoken, wanted = read(conversation_id="conv_1", tool_results=results, prompt="And now?")

    answered = said(
        Role.ROLE_TOOL,
        Part(tool_result=ToolResult(tool_call_id="c1", parts=[Part(text="3")])),
        Part(
            tool_result=ToolResult(
                tool_call_id="c2", parts=[Part(text="no such shelf")], is_error=True
            )
        ),
    )
    assert list(alone.messages) == [answered]
    assert list(spoken.messages) == [answered, user("And now?")]
    assert wanted.origins == ["tool_results", "prompt"]


def test_a_result_answers_the_call_that_openais_format_told():
    state = ProviderState(data=b"signed")
    call_id = CallIds().written("c1", state)

    spec, _ = read(
        conversation_id="conv_1", tool_results=[{"tool_call_id": call_id, "content": "3"}]
    )

    assert call_id.startswith("c1~")
    assert spec.messages[0].parts[0].tool_result.tool_call_id == "c1"


def test_attachments_are_images_beside_the_prompt():
    attachments = [
        {"type": "image_url", "url": "https://example.com/a.png"},
        {"type": "image_url", "url": "data:image/gif;base64,R0lG"},
        {"type": "image_base64", "data": "iVBO", "mime_type": "image/png"},
    ]

    spec, _ = read(prompt="What is it?", attachments=attachments)

    assert list(spec.messages) == [
        said(
            Role.ROLE_USER,
            Part(text="What is it?"),
            Part(image=Media(url="https://example.com/a.png")),
            Part(image=Media(data=b"GIF", mime_type="image/gif")),
            Part(image=Media(data=b"\x89PN"[:3], mime_type="image/png")),
        )
    ]


def test_what_nothing_acts_on_goes_along_as_it_came():
    options = {
        "personality_config": {"traits": {"funny": 1}, "uncensored_mode": False},
        "response_style": {"format": "prose", "preciseness": "high"},
        "theo_branding": False,
        "brand_soul": True,
        "image_model": "theo-1-photo",
        "image_quality": "hd",
        "stealth_model": "m",
        "stealth_aspect": "wide",
        "stealth_duration": "5s",
        "style": "cinematic",
        "aspect_ratio": "16:9",
        "count": 2,
    }

    spec, _ = read(prompt="hi", **options)

    assert json.loads(spec.mode_options_json) == options


UNREAD: Final[dict[str, tuple[dict[str, Any], str]]] = {
    "no prompt": ({}, "prompt: must be a non-empty string"),
    "an empty prompt": ({"prompt": ""}, "prompt: must be a non-empty string"),
    "a blank prompt": ({"prompt": " \n"}, "prompt: must be a non-empty string"),
    "a prompt that is none": ({"prompt": 5}, "prompt: Expected `str | null`, got `int`"),
    "a field nobody knows": (
        {"prompt": "hi", "max_tokens": 5},
        "max_tokens: Object contains unknown field `max_tokens`",
    ),
    "a field nobody knows inside": (
        {"prompt": "hi", "tools": [{"name": "f", "parameters": {}}]},
        "tools[0].parameters: Object contains unknown field `parameters`",
    ),
    "a format of another API": (
        {"prompt": "hi", "format": "xml"},
        "format: Invalid enum value 'xml'",
    ),
    "a persona without a prompt": (
        {"prompt": "hi", "persona": {}},
        "persona.system_prompt: Object missing required field `system_prompt`",
    ),
    "both kinds of conversation": (
        {"prompt": "hi", "conversation_id": "conv_1", "conversation": {"messages": []}},
        "conversation: goes without conversation_id",
    ),
    "a role of another API": (
        {"prompt": "hi", "conversation": {"messages": [{"role": "system", "content": "x"}]}},
        "conversation.messages[0].role: Invalid enum value 'system'",
    ),
    "results of nothing": (
        {"prompt": "hi", "tool_results": [{"tool_call_id": "c", "content": "x"}]},
        "tool_results: needs the conversation_id of the call",
    ),
    "results in a conversation that begins": (
        {"conversation_id": "new", "tool_results": [{"tool_call_id": "c", "content": "x"}]},
        "tool_results: needs the conversation_id of the call",
    ),
    "an attachment of another type": (
        {"prompt": "hi", "attachments": [{"type": "audio_url", "url": "x"}]},
        "attachments[0].type: Invalid value 'audio_url'",
    ),
    "an attachment that is no base64": (
        {
            "prompt": "hi",
            "attachments": [{"type": "image_base64", "data": "§", "mime_type": "image/png"}],
        },
        "attachments[0].data: is no base64",
    ),
    "iterations: a fraction": (
        {"prompt": "hi", "max_iterations": 1.5},
        "max_iterations: Expected `int | null`, got `float`",
    ),
    "half a surrogate pair": ({"prompt": "\udc00"}, "the body is no valid JSON"),
}


@pytest.mark.parametrize("name", UNREAD)
def test_what_can_not_be_read_is_named_in_theos_spelling(name):
    body, text = UNREAD[name]

    with pytest.raises(Refused) as refused:
        read(**body)

    assert envelope(theos(refused.value.refusal, "req_1")) == {
        "error": {
            "message": text,
            "type": "invalid_request_error",
            "code": "validation_error",
            "request_id": "req_1",
        }
    }


# In OpenAI's format


def test_the_last_message_of_the_user_is_the_prompt_and_instructions_are_merged():
    spec, wanted = chat(
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": "Name a river."},
        {"role": "assistant", "content": None, "tool_calls": [{"id": "c1"}]},
        {"role": "tool", "content": "Aare", "tool_call_id": "c1"},
        {"role": "assistant", "content": "The Aare."},
        {"role": "developer", "content": [{"type": "text", "text": "Be brief."}]},
        {"role": "user", "content": "And a lake?"},
        {"role": "assistant", "content": "Lake"},
        model="theo-1-reason",
        stream=True,
        stream_options={"include_usage": True},
        temperature=0.5,
        skills=["tone"],
        metadata={"team": "a"},
        top_p=7,
        n=50,
        max_tokens="many",
        user=None,
        tools="none",
    )

    assert spec == CompletionSpec(
        messages=[
            user("Name a river."),
            said(Role.ROLE_ASSISTANT, Part(text="The Aare.")),
            user("And a lake?"),
        ],
        system_prompt="Be kind.\n\nBe brief.",
        mode="think",
        sampling=SamplingOptions(temperature=0.5),
        skills=["tone"],
        metadata_json='{"team": "a"}',
        cache=ALLOWED,
    )
    assert wanted == Wanted(
        ["messages[1].content", "messages[4].content", "messages[6].content"],
        streams=True,
        is_openai=True,
        includes_usage=True,
    )


def test_without_instructions_it_is_theo_who_answers():
    spec, wanted = chat({"role": "user", "content": "hi"})

    assert spec == CompletionSpec(messages=[user("hi")], mode="auto", persona="theo", cache=ALLOWED)
    assert wanted == Wanted(["messages[0].content"], is_openai=True)


@pytest.mark.parametrize(
    ("model", "mode"),
    [
        ("theo-1-auto", "auto"),
        ("theo-1-flash", "fast"),
        ("theo-1-reason", "think"),
        ("theo-1-code", "code"),
        ("theo-1-create", "image"),
        ("theo-1-motion", "video"),
        ("theo-1-research", "research"),
        ("theo-1-roast", "roast"),
        ("theo-1-genui", "genui"),
        ("theo-1-vision", "auto"),
        ("gpt-5", "auto"),
        ("", "auto"),
        (None, "auto"),
        (5, "auto"),
    ],
)
def test_an_engine_is_a_mode_and_an_unknown_model_is_any(model, mode):
    spec, _ = chat({"role": "user", "content": "hi"}, model=model)

    assert (spec.mode, spec.model) == (mode, "")


def test_of_a_conversation_that_goes_on_only_the_prompt_is_new():
    turns = [
        {"role": "user", "content": "Name a river."},
        {"role": "assistant", "content": "The Aare."},
        {"role": "user", "content": "And a lake?"},
    ]

    kept, wanted = chat(*turns, conversation_id="conv_1")
    begun, _ = chat(*turns, conversation_id="new")

    assert (list(kept.messages), kept.conversation_id) == ([user("And a lake?")], "conv_1")
    assert wanted.origins == ["messages[2].content"]
    assert (len(begun.messages), begun.conversation_id) == (3, "new")
    assert not kept.HasField("cache")


@pytest.mark.parametrize(
    ("messages", "code", "text"),
    [
        ([], "validation_error", "messages: must contain at least one message"),
        (
            [{"role": "system", "content": "Be kind."}, {"role": "tool", "content": "x"}],
            "empty_prompt",
            "messages: must contain a message of the user",
        ),
        (
            [{"role": "user", "content": " "}],
            "empty_prompt",
            "messages: must contain a message of the user",
        ),
        (
            [{"role": "assistant", "content": "Hello."}],
            "empty_prompt",
            "messages: must contain a message of the user",
        ),
        (
            [{"role": "robot", "content": "hi"}],
            "validation_error",
            "messages[0].role: must be one of system, developer, user, assistant, tool, function",
        ),
        (
            [{"role": "user", "content": [{"type": "text"}]}],
            "validation_error",
            "messages[0].content[0].text: is needed",
        ),
    ],
)
def test_messages_that_ask_nothing_are_refused(messages, code, text):
    with pytest.raises(Refused) as refused:
        chat(*messages)

    found = envelope(theos(refused.value.refusal, "req_1"))["error"]
    assert (found["code"], found["message"]) == (code, text)


# Jobs


def test_research_and_video_are_jobs_with_what_their_modes_can_be_told():
    research = {
        "prompt": "Compare three lakes.",
        "depth": "basic",
        "max_sources": 5,
        "skills": ["tone"],
        "model_overrides": {"research": "theo-1-reason"},
        "metadata": {"a": 1},
        "callback_url": "https://example.com/done",
    }
    video = {"prompt": "A rocket.", "duration": "5s", "style": "cinematic"}

    found = [
        read_job(json.dumps(research).encode(), "research"),
        read_job(json.dumps(video).encode(), "video"),
    ]

    assert found == [
        CreateJobRequest(
            kind="research",
            spec=CompletionSpec(
                messages=[user("Compare three lakes.")],
                mode="research",
                persona="theo",
                skills=["tone"],
                model_overrides={"research": "theo-1-reason"},
                metadata_json='{"a": 1}',
                mode_options_json='{"depth":1,"max_sources":5}',
            ),
            callback_url="https://example.com/done",
        ),
        CreateJobRequest(
            kind="video",
            spec=CompletionSpec(
                messages=[user("A rocket.")],
                mode="video",
                persona="theo",
                mode_options_json='{"duration":"5s","style":"cinematic"}',
            ),
        ),
    ]


@pytest.mark.parametrize(
    ("kind", "options"),
    [("research", '{"depth":2,"max_sources":10}'), ("video", "")],
)
def test_a_job_has_the_defaults_of_the_page(kind, options):
    found = read_job(b'{"prompt": "Lakes."}', kind)

    assert found.spec.mode_options_json == options


@pytest.mark.parametrize(
    ("kind", "body", "text"),
    [
        ("research", {"depth": "deep"}, "depth: Invalid enum value 'deep'"),
        ("research", {"max_sources": 51}, "max_sources: Expected `int` <= 50"),
        ("research", {"max_sources": 0}, "max_sources: Expected `int` >= 1"),
        ("research", {"duration": "5s"}, "duration: Object contains unknown field `duration`"),
        ("video", {"depth": "basic"}, "depth: Object contains unknown field `depth`"),
        ("video", {"style": 5}, "style: Expected `str | null`, got `int`"),
    ],
)
def test_a_job_that_can_not_be_read_is_named(kind, body, text):
    with pytest.raises(Refused) as refused:
        read_job(json.dumps({"prompt": "Lakes.", **body}).encode(), kind)

    assert envelope(theos(refused.value.refusal, "req_1"))["error"]["message"] == text


@pytest.mark.parametrize("body", [{}, {"prompt": ""}, {"prompt": " "}, {"prompt": None}])
def test_a_job_without_a_prompt_has_an_error_of_its_own(body):
    with pytest.raises(Refused) as refused:
        read_job(json.dumps(body).encode(), "video")

    assert envelope(theos(refused.value.refusal, "req_1")) == {
        "error": {
            "message": "prompt: is required",
            "type": "invalid_request_error",
            "code": "missing_prompt",
            "request_id": "req_1",
        }
    }
