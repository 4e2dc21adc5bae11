"""One spec that asks for everything, and what each service is sent of it."""

import json
from typing import Any

import pytest

from tests.providers.specs import (
    SCHEMA,
    ask,
    assistant,
    call,
    message,
    result,
    tools,
    user,
)
from trunkline.v1.completion_spec_pb2 import (
    JsonSchemaFormat,
    ReasoningEffort,
    ReasoningOptions,
    ResponseFormat,
    SamplingOptions,
    ToolChoice,
    ToolChoiceMode,
)
from trunkline.v1.message_pb2 import Part, Role
from trunkline_server.core.candidate import Candidate, Capability
from trunkline_server.core.ports import AttemptFacts, Prompt
from trunkline_server.providers.openai import OpenAITranslator
from trunkline_server.providers.services import LOCAL, SERVICES, Service

ROWS = {**SERVICES, "local": LOCAL}
RICH = ask(
    user("Oslo, ", "please.", name="ada"),
    assistant("Let me look.", call("call_1")),
    message(Role.ROLE_TOOL, result("call_1")),
    assistant(Part(refusal="I can't.")),
    user("Why?"),
    system_prompt="Be brief.",
    tool_options=tools(
        choice=ToolChoice(mode=ToolChoiceMode.TOOL_CHOICE_MODE_REQUIRED), parallel_calls=True
    ),
    response_format=ResponseFormat(
        json_schema=JsonSchemaFormat(name="trip", schema_json=SCHEMA, strict=True)
    ),
    reasoning=ReasoningOptions(
        effort=ReasoningEffort.REASONING_EFFORT_XHIGH, budget_tokens=2048, include=True
    ),
    sampling=SamplingOptions(
        temperature=0.5,
        top_p=0.9,
        top_k=40,
        max_output_tokens=99,
        stop=["END"],
        seed=7,
        frequency_penalty=0.5,
        presence_penalty=0.25,
        candidate_count=2,
        logprobs=True,
        top_logprobs=2,
        logit_bias={"42": -100.0},
        verbosity="low",
    ),
    end_user_id="u-1",
    service_tier="default",
)
SYSTEM = {"role": "system", "content": "Be brief."}
TEXTS = [{"type": "text", "text": "Oslo, "}, {"type": "text", "text": "please."}]
NAMED = {"role": "user", "content": TEXTS, "name": "ada"}
FOLDED = {"role": "user", "content": [{"type": "text", "text": "ada: Oslo, "}, TEXTS[1]]}
FUNCTION = {"name": "get_weather", "arguments": '{"city": "Oslo"}'}
WHY = {"role": "user", "content": "Why?"}
REFUSED = {"role": "assistant", "content": None, "refusal": "I can't."}
SAID_NO = {"role": "assistant", "content": "I can't."}


def called(call_id: str = "call_1", **more: str) -> dict[str, Any]:
    made = {"id": call_id, "type": "function", "function": FUNCTION}
    return {"role": "assistant", "content": "Let me look.", "tool_calls": [made], **more}


def answered(call_id: str = "call_1", **more: str) -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": call_id, "content": "4 degrees", **more}


# What OpenAI is sent for a model that does not reason.
PLAIN: dict[str, Any] = {
    "model": "m",
    "messages": [SYSTEM, NAMED, called(), answered(), REFUSED, WHY],
    "stream": True,
    "stream_options": {"include_usage": True},
    "temperature": 0.5,
    "top_p": 0.9,
    "max_completion_tokens": 99,
    "seed": 7,
    "frequency_penalty": 0.5,
    "presence_penalty": 0.25,
    "n": 2,
    "logprobs": True,
    "top_logprobs": 2,
    "stop": ["END"],
    "logit_bias": {"42": -100},
    "verbosity": "low",
    "tools": [
        {
            "type": "function",
            "function": {
                "name": "get_weather",
                "description": "The weather of a city.",
                "parameters": json.loads(SCHEMA),
            },
        },
        {
            "type": "function",
            "function": {"name": "now", "parameters": {"type": "object", "properties": {}}},
        },
    ],
    "tool_choice": "required",
    "parallel_tool_calls": True,
    "response_format": {
        "type": "json_schema",
        "json_schema": {"name": "trip", "schema": json.loads(SCHEMA), "strict": True},
    },
    "user": "u-1",
    "service_tier": "default",
}
GONE = object()
NO_REFUSALS = [SYSTEM, NAMED, called(), answered(), SAID_NO, WHY]
NO_NAMES = [SYSTEM, FOLDED, called(), answered(), SAID_NO, WHY]
OLD_LIMIT = {"max_completion_tokens": GONE, "max_tokens": 99}

# Service, model, what differs from PLAIN, and the options that were dropped (-) or changed (~).
TABLE: list[tuple[str, str, dict[str, Any], str]] = [
    ("openai", "gpt-4.1", {}, "-top_k -effort -budget_tokens"),
    (
        "openai",
        "gpt-5.4-mini",
        {
            "messages": [{**SYSTEM, "role": "developer"}, *PLAIN["messages"][1:]],
            **dict.fromkeys(("temperature", "top_p", "logprobs", "top_logprobs"), GONE),
            **dict.fromkeys(("frequency_penalty", "presence_penalty"), GONE),
            "reasoning_effort": "xhigh",
        },
        (
            "-temperature -top_p -top_k -frequency_penalty -presence_penalty -logprobs -top_logprobs"
            " -budget_tokens"
        ),
    ),
    ("azure", "my gpt", {}, "-top_k -effort -budget_tokens"),
    (
        "groq",
        "openai/gpt-oss-20b",
        {
            "messages": NO_REFUSALS,
            **dict.fromkeys(("n", "logprobs", "top_logprobs", "logit_bias", "verbosity"), GONE),
            "service_tier": "on_demand",
            "reasoning_effort": "high",
        },
        (
            "-top_k -candidate_count -logprobs -top_logprobs -logit_bias -verbosity ~effort"
            " -budget_tokens"
        ),
    ),
    (
        "groq",
        "qwen/qwen3-32b",
        {
            "messages": NO_REFUSALS,
            **dict.fromkeys(("n", "logprobs", "top_logprobs", "logit_bias", "verbosity"), GONE),
            "service_tier": "on_demand",
            "reasoning_effort": "default",
            "reasoning_format": "parsed",
        },
        (
            "-top_k -candidate_count -logprobs -top_logprobs -logit_bias -verbosity ~effort"
            " -budget_tokens"
        ),
    ),
    (
        "mistral",
        "mistral-medium-3.5",
        {
            "messages": [
                SYSTEM,
                FOLDED,
                called("oZgfGO2B8"),
                answered("oZgfGO2B8", name="get_weather"),
                SAID_NO,
                WHY,
            ],
            **OLD_LIMIT,
            **dict.fromkeys(("logprobs", "top_logprobs", "logit_bias", "verbosity"), GONE),
            **dict.fromkeys(("stream_options", "seed", "user", "service_tier"), GONE),
            "random_seed": 7,
            "tool_choice": "any",
        },
        (
            "-top_k -logprobs -top_logprobs -logit_bias -verbosity -effort -budget_tokens"
            " -end_user_id -service_tier"
        ),
    ),
    (
        "together",
        "m",
        {
            "messages": NO_REFUSALS,
            **OLD_LIMIT,
            **dict.fromkeys(("verbosity", "service_tier"), GONE),
            "top_k": 40,
            "reasoning_effort": "high",
        },
        "-verbosity ~effort -budget_tokens -service_tier",
    ),
    (
        "openrouter",
        "m",
        {
            **OLD_LIMIT,
            "n": GONE,
            "top_k": 40,
            "reasoning": {"effort": "xhigh"},
            "usage": {"include": True},
        },
        "-candidate_count -budget_tokens",
    ),
    (
        "xai",
        "grok-4.3",
        {
            "messages": NO_REFUSALS,
            **dict.fromkeys(("frequency_penalty", "presence_penalty", "stop"), GONE),
            **dict.fromkeys(("logit_bias", "verbosity"), GONE),
            "reasoning_effort": "high",
        },
        (
            "-top_k -frequency_penalty -presence_penalty -stop -logit_bias -verbosity ~effort"
            " -budget_tokens"
        ),
    ),
    (
        "xai",
        "grok-4-fast-non-reasoning",
        {"messages": NO_REFUSALS, **dict.fromkeys(("logit_bias", "verbosity"), GONE)},
        "-top_k -logit_bias -verbosity -effort -budget_tokens",
    ),
    (
        "deepseek",
        "deepseek-v4-pro",
        {
            "messages": [
                SYSTEM,
                {"role": "user", "content": "Oslo, please.", "name": "ada"},
                called(reasoning_content=""),
                answered(),
                SAID_NO,
                WHY,
            ],
            **OLD_LIMIT,
            **dict.fromkeys(("seed", "n", "logit_bias", "verbosity"), GONE),
            **dict.fromkeys(("parallel_tool_calls", "service_tier"), GONE),
            "response_format": {"type": "json_object"},
            "thinking": {"type": "enabled"},
            "reasoning_effort": "high",
        },
        (
            "-top_k -seed -candidate_count -logit_bias -verbosity -parallel_calls ~json_schema ~effort"
            " -budget_tokens -service_tier"
        ),
    ),
    (
        "vllm",
        "m",
        {
            "messages": NO_REFUSALS,
            **OLD_LIMIT,
            **dict.fromkeys(("verbosity", "service_tier"), GONE),
            "top_k": 40,
            "reasoning_effort": "high",
        },
        "-verbosity ~effort -budget_tokens -service_tier",
    ),
    (
        "llamacpp",
        "m",
        {
            "messages": NO_NAMES,
            **OLD_LIMIT,
            **dict.fromkeys(("n", "verbosity", "service_tier"), GONE),
            "top_k": 40,
        },
        "-candidate_count -verbosity -effort -budget_tokens -service_tier",
    ),
    (
        "local",
        "m",
        {
            "messages": NO_NAMES,
            **OLD_LIMIT,
            **dict.fromkeys(("n", "logprobs", "top_logprobs", "logit_bias", "verbosity"), GONE),
            "service_tier": GONE,
            "top_k": 40,
        },
        (
            "-candidate_count -logprobs -top_logprobs -logit_bias -verbosity -effort -budget_tokens"
            " -service_tier"
        ),
    ),
]
SIGNS = {"PARAMETER_DROPPED": "-", "VALUE_CLAMPED": "~"}


def translator_of(service: Service) -> OpenAITranslator:
    return OpenAITranslator(service.deviations, service.capabilities)


def candidate(service: str, model: str) -> Candidate:
    return Candidate(provider=service, id=model, model=model, family=service)


@pytest.mark.parametrize(("service", "model", "changes", "warned"), TABLE)
def test_a_service_is_sent_what_it_takes(service, model, changes, warned):
    translator = translator_of(ROWS[service])

    request = translator.encode(candidate(service, model), Prompt(RICH, stream=True))

    merged = {**PLAIN, "model": model, **changes}
    assert json.loads(request.body) == {k: v for k, v in merged.items() if v is not GONE}
    signs = [SIGNS[found.code] + found.field.rpartition(".")[2] for found in request.warnings]
    assert sorted(signs) == sorted(warned.split())


def test_every_service_is_in_the_table():
    assert {service for service, *_ in TABLE} == set(ROWS)


@pytest.mark.parametrize("service", ROWS)
def test_a_service_that_is_asked_for_one_choice_owes_no_more(service):
    row = ROWS[service]
    prompt = Prompt(RICH, stream=True)
    decoder = translator_of(row).decoder(
        candidate(service, "m"), prompt, AttemptFacts(), lambda: "call_0"
    )

    decoder.feed(
        b'data: {"choices":[{"index":0,"delta":{"content":"Hi"},"finish_reason":"stop"}]}\n\n'
    )

    is_single = "candidate_count" in row.deviations.unsupported
    assert decoder.is_finished == is_single
    assert is_single == (Capability.MULTIPLE_CHOICES not in row.capabilities)


@pytest.mark.parametrize("service", ROWS)
def test_a_service_names_no_capability_that_its_requests_leave_out(service):
    row = ROWS[service]
    has = row.capabilities
    unsupported = row.deviations.unsupported

    assert Capability.LOGPROBS not in has or "logprobs" not in unsupported
    assert Capability.SEED not in has or "seed" not in unsupported
    assert Capability.STRUCTURED_OUTPUT not in has or row.deviations.schemas


def test_azure_names_the_deployment_in_the_path_and_takes_another_version():
    translator = translator_of(SERVICES["azure"])
    asked = Prompt(ask(), stream=False)

    request = translator.encode(candidate("azure", "my gpt/4"), asked)
    newer = translator.with_api_version("2025-04-01 preview").encode(candidate("azure", "m"), asked)

    assert request.path == (
        "/openai/deployments/my%20gpt%2F4/chat/completions?api-version=2024-10-21"
    )
    assert newer.path == "/openai/deployments/m/chat/completions?api-version=2025-04-01%20preview"


def test_azures_newer_addresses_name_the_deployment_in_the_body_alone():
    translator = translator_of(SERVICES["azure"]).without_deployment()
    asked = Prompt(ask(), stream=False)

    request = translator.encode(candidate("azure", "my-gpt"), asked)
    preview = translator.with_api_version("preview").encode(candidate("azure", "my-gpt"), asked)

    assert request.path == "/chat/completions"
    assert json.loads(request.body)["model"] == "my-gpt"
    assert preview.path == "/chat/completions?api-version=preview"


@pytest.mark.parametrize(
    ("service", "model", "written"),
    [
        ("openai", "o3", ["low", "low", "low", "medium", "high", "high", "high"]),
        ("openai", "gpt-5", ["minimal", "minimal", "low", "medium", "high", "high", "high"]),
        ("openai", "gpt-5.1", ["none", "low", "low", "medium", "high", "high", "high"]),
        ("openai", "gpt-5.4-mini", ["none", "low", "low", "medium", "high", "xhigh", "xhigh"]),
        ("openai", "gpt-6", ["none", "minimal", "low", "medium", "high", "xhigh", "max"]),
        ("openai", "gpt-5-chat-latest", [None] * 7),
        ("groq", "openai/gpt-oss-120b", ["low", "low", "low", "medium", "high", "high", "high"]),
        ("groq", "qwen/qwen3-32b", ["none", *["default"] * 6]),
        ("groq", "llama-3.3-70b-versatile", [None] * 7),
        ("xai", "grok-3-mini", ["low", "low", "low", "high", "high", "high", "high"]),
        ("xai", "grok-4", [None] * 7),
        ("deepseek", "m", [None, "low", "low", "high", "high", "high", "max"]),
        ("vllm", "m", ["none", "low", "low", "medium", "high", "high", "high"]),
        ("mistral", "m", [None] * 7),
    ],
)
def test_an_effort_is_put_in_the_words_of_the_model(service, model, written):
    efforts = [effort for effort in ReasoningEffort.values() if effort]

    bodies = [body_of(service, model, ReasoningOptions(effort=effort)) for effort in efforts]

    assert [body.get("reasoning_effort") for body in bodies] == written


def body_of(service: str, model: str, reasoning: ReasoningOptions) -> dict[str, Any]:
    spec = ask(reasoning=reasoning)
    request = translator_of(ROWS[service]).encode(candidate(service, model), Prompt(spec, False))
    body: dict[str, Any] = json.loads(request.body)
    return body


def test_deepseek_turns_thinking_off_by_a_switch():
    body = body_of("deepseek", "m", ReasoningOptions(effort=ReasoningEffort.REASONING_EFFORT_NONE))

    assert body["thinking"] == {"type": "disabled"}


def test_openrouter_takes_a_budget_where_no_effort_is_named():
    assert body_of("openrouter", "m", ReasoningOptions(budget_tokens=2048))["reasoning"] == {
        "max_tokens": 2048
    }
