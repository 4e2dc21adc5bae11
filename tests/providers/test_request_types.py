"""What we send is what the vendors' own request types allow: no field is invented, none is missing."""

import json
import re
from collections.abc import Iterator
from inspect import signature
from typing import Any

import pytest
from anthropic.types import message_create_params
from botocore.model import Shape
from botocore.session import Session
from botocore.validate import ParamValidator
from cohere import types as cohere_types
from cohere.v2.client import AsyncV2Client
from google.genai import types as genai_types
from ollama import Message, Options
from ollama._types import ChatRequest
from openai.types.chat import completion_create_params
from pydantic import BaseModel, TypeAdapter

from tests.providers.specs import SPECS
from tests.providers.typed import misfits
from trunkline.v1.completion_spec_pb2 import CompletionSpec
from trunkline_server.core.candidate import Candidate
from trunkline_server.core.ports import Prompt
from trunkline_server.providers.registry import DIALECTS

MODELS = {
    "openai": ["gpt-4.1", "gpt-6.2-sol", "o3", "gpt-5"],
    "anthropic": [
        "claude-opus-5-5",
        "claude-opus-4-8",
        "claude-sonnet-4-5",
        "claude-3-haiku-20240307",
    ],
    "gemini": ["gemini-2.5-flash", "gemini-3-pro", "gemini-4-flash"],
    "bedrock": [
        "us.anthropic.claude-opus-4-8",
        "anthropic.claude-sonnet-4-5-20250929-v1:0",
        "amazon.nova-lite-v1:0",
        "us.amazon.nova-2-lite-v1:0",
        "openai.gpt-oss-120b-1:0",
        "meta.llama3-3-70b-instruct-v1:0",
        "qwen.qwen3-32b-v1:0",
    ],
    "cohere": ["command-a-03-2025", "command-a-reasoning-08-2025"],
    "ollama": ["qwen3:4b"],
}
OpenAIWhole = completion_create_params.CompletionCreateParamsNonStreaming
OpenAIStreamed = completion_create_params.CompletionCreateParamsStreaming
AnthropicWhole = message_create_params.MessageCreateParamsNonStreaming
AnthropicStreamed = message_create_params.MessageCreateParamsStreaming
# What cannot be asked of a dialect, or of its newer models, at all.
UNENCODABLE = {
    "anthropic": {"audio": "claude", "two choices": "claude"},
    "gemini": {"two choices": r"gemini-[34]"},
    "openai": {},
    # It fetches nothing but from S3.
    "bedrock": {"two choices": "", "image by address": ""},
    "cohere": {"audio": "", "document": "", "two choices": ""},
    "ollama": {"audio": "", "document": "", "two choices": "", "image by address": ""},
}


def cases(dialect: str) -> list[tuple[str, str]]:
    """All specs with all models, except those that can't be sent."""
    never = UNENCODABLE[dialect]
    return [
        (name, model)
        for name in SPECS
        for model in MODELS[dialect]
        if not (name in never and re.match(never[name], model))
    ]


def body_of(
    dialect: str, model: str, spec: CompletionSpec, *, stream: bool = False
) -> dict[str, Any]:
    asked = Candidate(provider=dialect, id=model, model=model, family=dialect)
    request = DIALECTS[dialect].translator.encode(asked, Prompt(spec, stream))
    body: dict[str, Any] = json.loads(request.body)
    return body


@pytest.mark.parametrize(("name", "model"), cases("openai"))
def test_openais_types_allow_what_we_send(name, model):
    body = body_of("openai", model, SPECS[name])

    assert misfits(body, OpenAIWhole) == []


@pytest.mark.parametrize(("name", "model"), cases("anthropic"))
def test_anthropics_types_allow_what_we_send(name, model):
    body = body_of("anthropic", model, SPECS[name])

    found = misfits(body, AnthropicWhole)

    # Older models take what newer ones refuse, and what the types therefore no longer have.
    older = {"claude-sonnet-4-5", "claude-3-haiku-20240307"}
    gone = {".temperature", ".top_k"} if name == "sampling" and model in older else set()
    assert {text.partition(":")[0] for text in found} == gone


@pytest.mark.parametrize(
    ("dialect", "kind"), [("openai", OpenAIStreamed), ("anthropic", AnthropicStreamed)]
)
def test_streams_are_asked_for_as_the_types_say(dialect, kind):
    body = body_of(dialect, MODELS[dialect][0], SPECS["text"], stream=True)

    assert misfits(body, kind) == []


GEMINI_FIELDS: dict[str, Any] = {
    "systemInstruction": genai_types.Content,
    "toolConfig": genai_types.ToolConfig,
    "generationConfig": genai_types.GenerationConfig,
}


@pytest.mark.parametrize(("name", "model"), cases("gemini"))
def test_geminis_types_allow_what_we_send(name, model):
    body = body_of("gemini", model, SPECS[name])

    for content in body.pop("contents"):
        genai_types.Content.model_validate(content)
    for tool in body.pop("tools", []):
        genai_types.Tool.model_validate(tool)
    tier = body.pop("serviceTier", None)
    assert tier is None or tier in {value.value for value in genai_types.ServiceTier}
    for key, value in body.items():
        GEMINI_FIELDS[key].model_validate(value)


COHERE_FIELDS: dict[str, Any] = {
    "messages": cohere_types.ChatMessages,
    "tools": list[cohere_types.ToolV2],
    "response_format": cohere_types.ResponseFormatV2,
    "thinking": cohere_types.Thinking,
}


def extras(value: Any, path: str = "") -> list[str]:
    """Fields that the models of an SDK, which let anything pass, do not declare."""
    if isinstance(value, list):
        return [found for item in value for found in extras(item, f"{path}[]")]
    if not isinstance(value, BaseModel):
        return []
    own = [f"{path}.{name}" for name in value.model_extra or ()]
    fields = type(value).model_fields
    return own + [
        found for name in fields for found in extras(getattr(value, name), f"{path}.{name}")
    ]


@pytest.mark.parametrize(("name", "model"), cases("cohere"))
def test_coheres_types_allow_what_we_send(name, model):
    body = body_of("cohere", model, SPECS[name])
    arguments = signature(AsyncV2Client.chat, eval_str=True).parameters

    assert body.pop("stream") is False  # The SDK's methods write it themselves.
    assert body.get("tool_choice") in (None, "REQUIRED", "NONE")
    assert set(body) <= set(arguments)
    for key, value in body.items():
        if key in COHERE_FIELDS:
            assert extras(TypeAdapter(COHERE_FIELDS[key]).validate_python(value)) == []
        else:
            assert misfits(value, arguments[key].annotation) == []


# The server has it, the SDK's types not yet.
NEWER = {"truncate"}


@pytest.mark.parametrize(("name", "model"), cases("ollama"))
def test_ollamas_types_allow_what_we_send(name, model):
    body = body_of("ollama", model, SPECS[name])

    ChatRequest.model_validate(body)
    assert set(body) - set(ChatRequest.model_fields) == NEWER
    Options.model_validate(body.get("options", {}), extra="forbid")
    for message in body["messages"]:
        # The SDK keeps an image in an object of its own until it writes the request.
        images = [{"value": image} for image in message.pop("images", ())]
        Message.model_validate({**message, "images": images}, extra="forbid")


CONVERSE = Session().get_service_model("bedrock-runtime").operation_model("Converse").input_shape


def limits_broken(value: Any, shape: Shape, path: str = "") -> Iterator[str]:
    """What botocore leaves to the server: words, patterns and lengths."""
    limits = shape.metadata
    if shape.type_name == "structure" and not limits.get("document"):
        for name, item in value.items():
            yield from limits_broken(item, shape.members[name], f"{path}.{name}")
    elif shape.type_name == "list":
        for item in value:
            yield from limits_broken(item, shape.member, f"{path}[]")
    if "enum" in limits and value not in limits["enum"]:
        yield f"{path}: {value!r} is none of the words"
    if "pattern" in limits and not re.fullmatch(limits["pattern"], value):
        yield f"{path}: {value!r} does not fit"
    size = len(value) if isinstance(value, str | list) else value
    if ("min" in limits and size < limits["min"]) or ("max" in limits and size > limits["max"]):
        yield f"{path}: {size} is out of bounds"


@pytest.mark.parametrize(("name", "model"), cases("bedrock"))
def test_awss_service_model_allows_what_we_send(name, model):
    body = body_of("bedrock", model, SPECS[name])

    report = ParamValidator().validate({"modelId": model, **body}, CONVERSE)

    assert not report.has_errors(), report.generate_report()
    assert list(limits_broken(body, CONVERSE)) == []


def test_the_check_of_the_service_model_finds_what_is_wrong():
    body = {
        "messages": [{"role": "robot", "content": [{"toolUse": {"toolUseId": "a b", "name": ""}}]}],
        "inferenceConfig": {"temperature": 2},
    }

    found = sorted(text.partition(":")[0] for text in limits_broken(body, CONVERSE))

    assert found == [
        ".inferenceConfig.temperature",
        ".messages[].content[].toolUse.name",
        ".messages[].content[].toolUse.name",
        ".messages[].content[].toolUse.toolUseId",
        ".messages[].role",
    ]


def test_the_check_finds_what_is_wrong():
    body = {
        "model": "m",
        "messages": [{"role": "user", "content": [{"type": "text", "txt": "Hi"}]}],
        "temperature": "hot",
        "reasoning_effort": "huge",
        "invented": 1,
    }

    found = sorted(text.partition(":")[0] for text in misfits(body, OpenAIWhole))

    assert found == [
        ".invented",
        ".messages[0].content[0].text",
        ".messages[0].content[0].txt",
        ".reasoning_effort",
        ".temperature",
    ]
